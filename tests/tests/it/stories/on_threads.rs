//! Everybody runs at once.

#[path = "told.rs"]
mod told;

use std::{future::Future, sync::Arc};

use backplane::Runtime;
use backplane_tests::threads::{self, Threads};

type Luggage = Arc<()>;
type Task = threads::Task;

fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Task {
    Threads.spawn(future)
}

fn tell<F: Future<Output = ()>>(story: impl Fn() -> F) {
    smol::block_on(story());
}
