//! One thread, and futures that cannot leave it: what they carry is not `Send`.

#[path = "told.rs"]
mod told;

use std::{future::Future, rc::Rc};

type Luggage = Rc<()>;
type Task = smol::Task<()>;

thread_local! {
    /// Every test has a thread of its own, and so an executor of its own.
    static HERE: Rc<smol::LocalExecutor<'static>> = Rc::default();
}

fn spawn(future: impl Future<Output = ()> + 'static) -> Task {
    HERE.with(|here| here.spawn(future))
}

fn tell<F: Future<Output = ()>>(story: impl Fn() -> F) {
    let here = HERE.with(Rc::clone);
    smol::block_on(here.run(story()));
}
