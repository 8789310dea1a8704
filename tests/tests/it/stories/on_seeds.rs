//! In a hundred orders, each of which can be had again.

#[path = "told.rs"]
mod told;

use std::{cell::RefCell, future::Future, sync::Arc};

use backplane::Runtime;
use backplane_tests::seeded::{self, Seeded};

type Luggage = Arc<()>;
type Task = seeded::Task;

thread_local! {
    static HERE: RefCell<Option<Seeded>> = const { RefCell::new(None) };
}

fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Task {
    HERE.with_borrow(|here| here.as_ref().expect("a story runs inside").spawn(future))
}

fn tell<F: Future<Output = ()>>(story: impl Fn() -> F) {
    for seed in 0..100 {
        let here = Seeded::new(seed);
        HERE.set(Some(here.clone()));
        here.run(story());
        HERE.set(None);
    }
}
