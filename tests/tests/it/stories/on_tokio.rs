//! Two threads, tasks stolen between them; a task of tokio's own would run on when its handle is dropped.

#[path = "told.rs"]
mod told;

use std::{future::Future, sync::Arc};

use backplane::{
    Runtime,
    runtime::{AbortOnDrop, Tokio},
};

type Luggage = Arc<()>;
type Task = AbortOnDrop;

fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Task {
    Tokio::current().expect("a story runs inside").spawn(future)
}

fn tell<F: Future<Output = ()>>(story: impl Fn() -> F) {
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build();
    tokio.expect("tokio starts").block_on(story());
}
