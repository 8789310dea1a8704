//! The seam to an executor: spawn, sleep, now. The mesh itself needs none of the three.

use std::{future::Future, time::Instant};

/// An executor and its clock, for what is built on the mesh: a supervisor spawns, and an actor waits.
///
/// The adapters [`Smol`] and [`Tokio`] stand behind the features `smol` and `tokio`. A runtime of one's own, with virtual time
/// for tests, is a few lines.
pub trait Runtime: Send + Sync + 'static {
    /// A spawned task. Dropping it cancels the task: its future is dropped, at once or as soon as it is not running.
    type Task: Send + 'static;

    /// Waits for a moment.
    type Sleep: Future<Output = ()> + Send + 'static;

    /// Starts a task.
    fn spawn<F>(&self, future: F) -> Self::Task
    where
        F: Future<Output = ()> + Send + 'static;

    /// Lets a task run on without its handle.
    fn detach(&self, task: Self::Task);

    /// Waits until `deadline` on this runtime's clock; not at all if it is past.
    fn sleep_until(&self, deadline: Instant) -> Self::Sleep;

    /// What this runtime's clock shows.
    fn now(&self) -> Instant;
}

#[cfg(feature = "smol")]
pub use self::smol_runtime::Smol;
#[cfg(feature = "tokio")]
pub use self::tokio_runtime::{AbortOnDrop, Tokio};

#[cfg(feature = "smol")]
mod smol_runtime {
    use std::{
        fmt,
        future::Future,
        pin::Pin,
        sync::Arc,
        task::{Context, Poll, ready},
        time::Instant,
    };

    use smol::{Executor, Task, Timer};

    use super::Runtime;

    /// smol's global executor, or one of your own. Feature `smol`.
    ///
    /// ```
    /// use backplane::runtime::{Runtime, Smol};
    /// let (send, receive) = std::sync::mpsc::channel();
    /// let runtime = Smol::global();
    /// let task = runtime.spawn(async move { send.send("ran").unwrap() });
    /// runtime.detach(task);
    /// assert_eq!(receive.recv(), Ok("ran"));
    /// ```
    #[derive(Clone, Default)]
    pub struct Smol {
        executor: Option<Arc<Executor<'static>>>,
    }

    impl Smol {
        /// smol's global executor, whose threads (`SMOL_THREADS`, one unless set) start with the first task.
        pub fn global() -> Smol {
            Smol { executor: None }
        }

        /// An executor that somebody runs.
        pub fn new(executor: Arc<Executor<'static>>) -> Smol {
            Smol { executor: Some(executor) }
        }
    }

    impl fmt::Debug for Smol {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(if self.executor.is_some() { "Smol(own executor)" } else { "Smol(global)" })
        }
    }

    impl Runtime for Smol {
        type Task = Task<()>;
        type Sleep = Sleep;

        fn spawn<F>(&self, future: F) -> Task<()>
        where
            F: Future<Output = ()> + Send + 'static,
        {
            match &self.executor {
                Some(executor) => executor.spawn(future),
                None => smol::spawn(future),
            }
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

    /// A timer of async-io.
    #[derive(Debug)]
    pub struct Sleep(Timer);

    impl Future for Sleep {
        type Output = ();

        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
            ready!(Pin::new(&mut self.0).poll(cx));
            Poll::Ready(())
        }
    }
}

#[cfg(feature = "tokio")]
mod tokio_runtime {
    use std::{future::Future, time::Instant};

    use tokio::{
        runtime::{Handle, TryCurrentError},
        task::JoinHandle,
        time::{Sleep, sleep_until},
    };

    use super::Runtime;

    /// A tokio runtime, by its handle; its time must be enabled. Feature `tokio`.
    ///
    /// ```
    /// use backplane::runtime::{Runtime, Tokio};
    /// let tokio = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    /// let runtime = Tokio::new(tokio.handle().clone());
    /// let before = runtime.now();
    /// let task = runtime.spawn(std::future::pending());
    /// tokio.block_on(runtime.sleep_until(before + std::time::Duration::from_millis(1)));
    /// assert!(runtime.now() > before);
    /// drop(task); // cancels it
    /// ```
    #[derive(Clone, Debug)]
    pub struct Tokio {
        handle: Handle,
    }

    impl Tokio {
        /// The runtime of this handle.
        pub fn new(handle: Handle) -> Tokio {
            Tokio { handle }
        }

        /// The runtime that the caller runs in.
        ///
        /// # Errors
        ///
        /// If it runs in none.
        pub fn current() -> Result<Tokio, TryCurrentError> {
            Handle::try_current().map(Tokio::new)
        }
    }

    /// A task of tokio's that is aborted when this is dropped.
    #[derive(Debug)]
    pub struct AbortOnDrop(Option<JoinHandle<()>>);

    impl Drop for AbortOnDrop {
        fn drop(&mut self) {
            if let Some(task) = &self.0 {
                task.abort();
            }
        }
    }

    impl Runtime for Tokio {
        type Task = AbortOnDrop;
        type Sleep = Sleep;

        fn spawn<F>(&self, future: F) -> AbortOnDrop
        where
            F: Future<Output = ()> + Send + 'static,
        {
            AbortOnDrop(Some(self.handle.spawn(future)))
        }

        fn detach(&self, mut task: AbortOnDrop) {
            task.0 = None;
        }

        fn sleep_until(&self, deadline: Instant) -> Sleep {
            let _inside = self.handle.enter();
            sleep_until(deadline.into())
        }

        fn now(&self) -> Instant {
            let _inside = self.handle.enter();
            tokio::time::Instant::now().into_std()
        }
    }
}
