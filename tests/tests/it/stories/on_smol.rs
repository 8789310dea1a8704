//! smol's global executor: tasks are polled on its thread while the story runs on its own.

#[path = "told.rs"]
mod told;

use std::{future::Future, sync::Arc};

type Luggage = Arc<()>;
type Task = smol::Task<()>;

fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Task {
    smol::spawn(future)
}

fn tell<F: Future<Output = ()>>(story: impl Fn() -> F) {
    smol::block_on(story());
}
