//! A [`Runtime`] behind a pointer, so that specs, handles and supervisors need not name it.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::time::Instant;

use backplane::Runtime;

use crate::spec::Job;

#[cfg(feature = "smol")]
type OfSmol = <backplane::runtime::Smol as Runtime>::Task;
#[cfg(feature = "tokio")]
type OfTokio = <backplane::runtime::Tokio as Runtime>::Task;

/// A spawned task. Dropping it cancels the task.
///
/// There is one for each child, so those of the two runtimes that we know lie in no box. Another one lies in two, which keeps
/// this at 16 bytes.
pub(crate) enum Task {
    #[cfg(feature = "smol")]
    Smol(OfSmol),
    #[cfg(feature = "tokio")]
    Tokio(OfTokio),
    Other(Box<Box<dyn Any + Send>>),
}

/// The value as a `To`, if that is what it is.
#[cfg(any(feature = "smol", feature = "tokio"))]
fn cast<From: 'static, To: 'static>(value: &mut Option<From>) -> Option<To> {
    (value as &mut dyn Any).downcast_mut::<Option<To>>().and_then(Option::take)
}

/// Waits for a moment.
pub(crate) type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

pub(crate) trait Engine: Send + Sync {
    fn spawn(&self, job: Job) -> Task;
    fn detach(&self, task: Task);
    fn sleep_until(&self, deadline: Instant) -> Sleep;
    fn now(&self) -> Instant;
    /// For the supervisor's task, and its children's.
    fn now_inside(&self) -> Instant;
}

pub(crate) struct Of<R>(pub(crate) R);

impl<R: Runtime> Engine for Of<R> {
    fn spawn(&self, job: Job) -> Task {
        #[cfg_attr(
            not(any(feature = "smol", feature = "tokio")),
            expect(unused_mut, reason = "nobody is known")
        )]
        let mut task = Some(self.0.spawn(job));
        #[cfg(feature = "smol")]
        if let Some(task) = cast(&mut task) {
            return Task::Smol(task);
        }
        #[cfg(feature = "tokio")]
        if let Some(task) = cast(&mut task) {
            return Task::Tokio(task);
        }
        Task::Other(Box::new(Box::new(task)))
    }

    fn detach(&self, task: Task) {
        let task: Option<R::Task> = match task {
            #[cfg(feature = "smol")]
            Task::Smol(task) => cast(&mut Some(task)),
            #[cfg(feature = "tokio")]
            Task::Tokio(task) => cast(&mut Some(task)),
            Task::Other(task) => task.downcast::<Option<R::Task>>().ok().and_then(|task| *task),
        };
        if let Some(task) = task {
            self.0.detach(task);
        }
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        Box::pin(self.0.sleep_until(deadline))
    }

    fn now(&self) -> Instant {
        self.0.now()
    }

    fn now_inside(&self) -> Instant {
        self.0.now_inside()
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
