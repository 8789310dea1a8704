//! An executor that asks the kernel for completions (io_uring, or polling where that is not to be had), one thread, and
//! futures that cannot leave it.

#[path = "told.rs"]
mod told;

use std::{future::Future, rc::Rc};

use compio::runtime::{JoinHandle, Runtime};

type Luggage = Rc<()>;
type Task = JoinHandle<()>;

fn spawn(future: impl Future<Output = ()> + 'static) -> Task {
    compio::runtime::spawn(future)
}

fn tell<F: Future<Output = ()>>(story: impl Fn() -> F) {
    Runtime::new().expect("compio starts").block_on(story());
}
