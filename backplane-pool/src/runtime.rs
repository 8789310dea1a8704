//! The pool as a [`Runtime`]: what supervisors and actors run on.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Instant,
};

use async_io::Timer;
use backplane::Runtime;

use crate::{
    pool::{Handle, Pool},
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
                Sleep(Timer::at(deadline))
            }

            fn now(&self) -> Instant {
                Instant::now()
            }
        }
    )+};
}

runtime!(Handle, Pool);

/// Waits for a moment, by a timer of async-io.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use backplane::Runtime;
/// # let pool = backplane_pool::Pool::builder().workers(1).build()?;
/// let deadline = pool.now() + Duration::from_millis(1);
/// pool.block_on(pool.sleep_until(deadline));
/// assert!(pool.now() >= deadline);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a sleep does nothing unless it is awaited"]
pub struct Sleep(Timer);

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        ready!(Pin::new(&mut self.0).poll(cx));
        Poll::Ready(())
    }
}
