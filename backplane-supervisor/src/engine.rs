//! A [`Runtime`] behind a pointer, so that specs, handles and supervisors need not name it.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::time::Instant;

use backplane::Runtime;

use crate::spec::Job;

/// A spawned task. Dropping it cancels the task.
pub(crate) type Task = Box<dyn Any + Send>;

/// Waits for a moment.
pub(crate) type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

pub(crate) trait Engine: Send + Sync {
    fn spawn(&self, job: Job) -> Task;
    fn detach(&self, task: Task);
    fn sleep_until(&self, deadline: Instant) -> Sleep;
    fn now(&self) -> Instant;
}

pub(crate) struct Of<R>(pub(crate) R);

impl<R: Runtime> Engine for Of<R> {
    fn spawn(&self, job: Job) -> Task {
        Box::new(self.0.spawn(job))
    }

    fn detach(&self, task: Task) {
        if let Ok(task) = task.downcast::<R::Task>() {
            self.0.detach(*task);
        }
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        Box::pin(self.0.sleep_until(deadline))
    }

    fn now(&self) -> Instant {
        self.0.now()
    }
}

/// Runs or drops something of the user's; a panic in it is nobody's.
pub(crate) fn quietly(f: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(f))
        && let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(payload)))
    {
        std::mem::forget(another);
    }
}
