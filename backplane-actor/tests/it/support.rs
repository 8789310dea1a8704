//! What the tests of actors share.

use std::{
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use backplane_actor::{System, testing::Seeded};

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// A story in a system of its own, on a clock of its own, under many seeds.
pub(crate) fn story<F: Future<Output = ()>>(tell: impl Fn(System<Seeded>, Seeded) -> F) {
    backplane_actor::testing::under_seeds(0..25, |runtime| {
        let system = System::new(runtime.clone());
        runtime.run(tell(system, runtime.clone()));
    });
}

/// What happened, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub(crate) fn say(&self, words: impl Into<String>) {
        self.0.lock().unwrap().push(words.into());
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}
