//! The seam to an executor: spawn, sleep, now. The mesh itself needs none of the three.

use std::{future::Future, time::Instant};

/// An executor and its clock, for what is built on the mesh: a supervisor spawns, and an actor waits.
///
/// The adapters [`Smol`] and [`Tokio`] stand behind the features `smol` and `tokio`. A runtime of one's own, with virtual time
/// for tests, is a few lines.
///
/// ```
/// use std::{sync::{Arc, Mutex}, time::{Duration, Instant}};
/// use backplane::Runtime;
///
/// /// Nothing but a clock: whoever sleeps on it moves its hands.
/// struct Clock(Arc<Mutex<Instant>>);
///
/// impl Runtime for Clock {
///     type Task = ();
///     type Sleep = std::future::Ready<()>;
///
///     fn spawn<F: Future<Output = ()> + Send + 'static>(&self, _: F) {}
///
///     fn detach(&self, _: ()) {}
///
///     fn sleep_until(&self, deadline: Instant) -> Self::Sleep {
///         let mut now = self.0.lock().unwrap();
///         *now = deadline.max(*now);
///         std::future::ready(())
///     }
///
///     fn now(&self) -> Instant {
///         *self.0.lock().unwrap()
///     }
/// }
///
/// let (clock, year) = (Clock(Arc::new(Mutex::new(Instant::now()))), Duration::from_secs(31_536_000));
/// let then = clock.now() + year;
/// futures_lite::future::block_on(clock.sleep_until(then));
/// assert_eq!(clock.now(), then);
/// ```
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

    /// The same, asked by a task while this runtime polls it; asked anywhere else it may show another clock.
    ///
    /// For runtimes that find their clock sooner from inside, as tokio does. Where there is one clock for all there is nothing to
    /// add; a runtime around another passes it on.
    ///
    /// ```
    /// use backplane::Runtime;
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    ///
    /// let then = Smol::global().now();
    /// let now = smol::block_on(smol::spawn(async { Smol::global().now_inside() }));
    /// assert!(now >= then);
    /// # }
    /// ```
    fn now_inside(&self) -> Instant {
        self.now()
    }
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
        ///
        /// ```
        /// use backplane::runtime::{Runtime, Smol};
        /// let (send, receive) = std::sync::mpsc::channel();
        /// let task = Smol::global().spawn(async move { send.send(std::thread::current().id()).unwrap() });
        /// assert_ne!(receive.recv(), Ok(std::thread::current().id())); // it has threads of its own
        /// # drop(task);
        /// ```
        pub fn global() -> Smol {
            Smol { executor: None }
        }

        /// An executor that somebody runs.
        ///
        /// ```
        /// use std::sync::Arc;
        /// use backplane::runtime::{Runtime, Smol};
        /// let executor = Arc::new(smol::Executor::new());
        /// let task = Smol::new(Arc::clone(&executor)).spawn(async {});
        /// assert!(!task.is_finished()); // it waits for whoever runs the executor
        /// smol::block_on(executor.run(task));
        /// ```
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
    ///
    /// ```
    /// use std::time::Duration;
    /// use backplane::runtime::{Runtime, Smol};
    /// let deadline = Smol::global().now() + Duration::from_millis(1);
    /// smol::block_on(Smol::global().sleep_until(deadline));
    /// assert!(Smol::global().now() >= deadline);
    /// ```
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
        ///
        /// ```
        /// use backplane::runtime::{Runtime, Tokio};
        /// let tokio = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        /// let runtime = Tokio::new(tokio.handle().clone()); // need not be inside of it
        /// let (send, receive) = tokio::sync::oneshot::channel();
        /// runtime.detach(runtime.spawn(async { send.send("ran").unwrap() }));
        /// assert_eq!(tokio.block_on(receive), Ok("ran"));
        /// ```
        pub fn new(handle: Handle) -> Tokio {
            Tokio { handle }
        }

        /// The runtime that the caller runs in.
        ///
        /// # Errors
        ///
        /// If it runs in none.
        ///
        /// ```
        /// use backplane::runtime::Tokio;
        /// assert!(Tokio::current().is_err()); // outside of any
        /// let tokio = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        /// assert!(tokio.block_on(async { Tokio::current() }).is_ok());
        /// ```
        pub fn current() -> Result<Tokio, TryCurrentError> {
            Handle::try_current().map(Tokio::new)
        }
    }

    /// A task of tokio's that is aborted when this is dropped.
    ///
    /// ```
    /// use backplane::runtime::{Runtime, Tokio};
    /// let tokio = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    /// let (send, receive) = tokio::sync::oneshot::channel::<()>();
    /// let task = Tokio::new(tokio.handle().clone()).spawn(async move {
    ///     let _held = send;
    ///     std::future::pending().await
    /// });
    /// drop(task);
    /// assert!(tokio.block_on(receive).is_err()); // what the task held is gone
    /// ```
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
            self.now_inside()
        }

        fn now_inside(&self) -> Instant {
            tokio::time::Instant::now().into_std()
        }
    }
}
