//! The pool as a [`Runtime`]: what supervisors and actors run on.

use std::{future::Future, time::Instant};

use backplane::Runtime;

use crate::{
    pool::{Handle, Pool},
    sleep::Sleep,
    task::Task,
};

/// A pool is the handle that it lends.
macro_rules! runtime {
    ($($on:ty),+) => {$(
        impl Runtime for $on {
            type Task = Task<()>;
            type Sleep = Sleep;

            fn spawn<F>(&self, future: F) -> Task<()>
            where
                F: Future<Output = ()> + Send + 'static,
            {
                Handle::spawn(self, future)
            }

            fn detach(&self, task: Task<()>) {
                task.detach();
            }

            fn sleep_until(&self, deadline: Instant) -> Sleep {
                Sleep::new(self.sleeps(), deadline)
            }

            fn now(&self) -> Instant {
                Instant::now()
            }
        }
    )+};
}

runtime!(Handle, Pool);
