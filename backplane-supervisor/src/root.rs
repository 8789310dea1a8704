//! A tree from `main` to its end.

use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use backplane::{Device, Exit, LinkMode, Runtime};

use crate::engine::{Engine, Of};
use crate::handle::{Stopped, SupervisorHandle};
use crate::report::Event;
use crate::spec::StartError;
use crate::supervisor::{Supervisor, begin_owned};

/// Runs a tree from `main` to its end: the first signal stops it in order, the second drops it.
///
/// With the feature `signals` the signals are Ctrl-C and SIGTERM; without, any future will do.
///
/// ```
/// use backplane_supervisor::{ChildSpec, Restart, RestartStrategy, Root, RootEnd, Supervisor};
/// # #[cfg(feature = "smol")] {
/// use backplane::runtime::Smol;
///
/// let greeter = ChildSpec::new("greeter", |device| device.manage(async {
///     println!("hello");
///     std::future::pending::<Result<(), ()>>().await
/// }));
/// let tree = Supervisor::new(RestartStrategy::OneForOne).child(greeter);
/// // Here the signal is one that comes at once.
/// let root = Root::new(tree).run_with(Smol::global(), || async {});
/// # let end = smol::block_on(root);
/// # let _ = "
/// let end = root.await;
/// # ";
/// # assert!(matches!(end, RootEnd::Drained(_) | RootEnd::Aborted));
/// # }
/// ```
#[derive(Debug)]
pub struct Root {
    tree: Supervisor,
    drain: Duration,
}

/// How a tree that was run from `main` came to its end.
///
/// ```
/// use backplane::Exit;
/// use backplane_supervisor::RootEnd;
/// assert_eq!(RootEnd::Ended(Exit::Normal).exit_code(), 0);
/// assert_eq!(RootEnd::TooSlow.exit_code(), 124);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RootEnd {
    /// It could not be started.
    FailedToStart(StartError),
    /// It ended by itself, or because somebody else asked it to.
    Ended(Exit),
    /// One restart was too many.
    GaveUp,
    /// A signal came, and all has been stopped in order.
    Drained(Stopped),
    /// A signal came, and not all had stopped when the time was over; the rest has been dropped.
    TooSlow,
    /// A second signal came, and what was left has been dropped.
    Aborted,
}

impl RootEnd {
    /// What a shell is told: 0 after an ordinary end, 1 after any other, 124 where draining took too long (as `timeout`
    /// says it), 130 after a second signal (as after Ctrl-C).
    ///
    /// ```
    /// use backplane::{Exit, Fault};
    /// use backplane_supervisor::RootEnd;
    ///
    /// assert_eq!(RootEnd::Ended(Exit::Shutdown).exit_code(), 0);
    /// assert_eq!(RootEnd::Ended(Fault::error("no disk").into()).exit_code(), 1);
    /// assert_eq!(RootEnd::GaveUp.exit_code(), 1);
    /// assert_eq!(RootEnd::Aborted.exit_code(), 130);
    /// ```
    pub fn exit_code(&self) -> u8 {
        match self {
            RootEnd::Ended(Exit::Fault(_)) | RootEnd::FailedToStart(_) | RootEnd::GaveUp => 1,
            RootEnd::Ended(_) | RootEnd::Drained(_) => 0,
            RootEnd::TooSlow => 124,
            RootEnd::Aborted => 130,
        }
    }
}

impl From<RootEnd> for ExitCode {
    fn from(end: RootEnd) -> ExitCode {
        ExitCode::from(end.exit_code())
    }
}

impl fmt::Display for RootEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RootEnd::FailedToStart(error) => write!(f, "failed to start: {error}"),
            RootEnd::Ended(exit) => write!(f, "ended: {exit}"),
            RootEnd::GaveUp => f.write_str("gave up"),
            RootEnd::Drained(stopped) => {
                f.write_str("drained")?;
                stopped.killed.iter().try_for_each(|killed| write!(f, "; {killed}"))
            }
            RootEnd::TooSlow => f.write_str("not drained in time"),
            RootEnd::Aborted => f.write_str("aborted"),
        }
    }
}

/// Which of two futures is ready first; the first one, where both are.
enum Race<A, B> {
    First(A),
    Second(B),
}

async fn race<A, B>(first: impl Future<Output = A>, second: impl Future<Output = B>) -> Race<A, B> {
    let (mut first, mut second) = (pin!(first), pin!(second));
    poll_fn(|cx| {
        if let Poll::Ready(value) = first.as_mut().poll(cx) {
            return Poll::Ready(Race::First(value));
        }
        second.as_mut().poll(cx).map(Race::Second)
    })
    .await
}

/// Waits so long; for ever, if that is beyond what the clock can show.
async fn after(engine: &Arc<dyn Engine>, wait: Duration) {
    match engine.now().checked_add(wait) {
        Some(late) => engine.sleep_until(late).await,
        None => std::future::pending().await,
    }
}

impl Root {
    /// With half a minute to drain.
    ///
    /// ```
    /// use backplane_supervisor::{ChildSpec, RestartStrategy, Root, RootEnd, Supervisor};
    /// use std::future::pending;
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    ///
    /// let broken = ChildSpec::new("broken", |device| device.manage(async { Err::<(), _>("no disk") }));
    /// let tree = Supervisor::new(RestartStrategy::OneForOne).child(broken);
    /// // Without signals it runs until it ends.
    /// let end = smol::block_on(Root::new(tree).run_with(Smol::global(), pending::<()>));
    /// assert_eq!(end, RootEnd::GaveUp); // with the second restart
    /// # }
    /// ```
    pub fn new(tree: Supervisor) -> Root {
        Root { tree, drain: Duration::from_secs(30) }
    }

    /// How long the tree may take to stop after the first signal.
    ///
    /// ```
    /// use backplane::Device;
    /// use backplane_supervisor::{ChildSpec, RestartStrategy, Root, RootEnd, Shutdown, Supervisor};
    /// use std::time::Duration;
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    ///
    /// // It takes no notice of a stop, and is given all the time it takes.
    /// let mule = ChildSpec::new("mule", |mut device: Device| async move {
    ///     loop {
    ///         device.receive().await;
    ///     }
    /// });
    /// let tree = Supervisor::new(RestartStrategy::OneForOne).child(mule.shutdown(Shutdown::Infinity));
    /// let root = Root::new(tree).drain_within(Duration::from_millis(1));
    /// // The first signal comes at once, and there is no second one.
    /// # let mut first = true;
    /// # let signal = move || {
    /// #     let now = std::mem::take(&mut first);
    /// #     async move { if now {} else { std::future::pending().await } }
    /// # };
    /// let end = smol::block_on(root.run_with(Smol::global(), signal));
    /// assert_eq!(end, RootEnd::TooSlow);
    /// # }
    /// ```
    #[must_use]
    pub fn drain_within(mut self, deadline: Duration) -> Root {
        self.drain = deadline;
        self
    }

    /// Runs the tree; each future that `signal` makes is a signal when it is ready.
    ///
    /// Dropping what is returned drops the tree.
    ///
    /// ```
    /// use backplane_supervisor::{RestartStrategy, Root, RootEnd, Supervisor};
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// # let tree = Supervisor::new(RestartStrategy::OneForOne);
    ///
    /// let mut signals = 0;
    /// let root = Root::new(tree).run_with(Smol::global(), || {
    ///     signals += 1;
    ///     let first = signals == 1;
    ///     async move {
    ///         if !first {
    ///             std::future::pending().await // nobody asks twice
    ///         }
    ///     }
    /// });
    /// let RootEnd::Drained(stopped) = smol::block_on(root) else { panic!() };
    /// assert!(stopped.killed.is_empty());
    /// # }
    /// ```
    pub async fn run_with<R, S, F>(self, runtime: R, mut signal: S) -> RootEnd
    where
        R: Runtime,
        S: FnMut() -> F,
        F: Future<Output = ()>,
    {
        let engine: Arc<dyn Engine> = Arc::new(Of(runtime));
        let early: Arc<Mutex<Option<SupervisorHandle>>> = Arc::default();
        let gave_up = Arc::new(AtomicBool::new(false));
        let mut tree = self.tree;
        let (place, greet) = (Arc::clone(&early), tree.greet.take());
        let mut tree = tree.greet(move |handle| {
            *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(handle.clone());
            if let Some(greet) = &greet {
                greet(handle);
            }
        });
        let (hook, of) = (Arc::clone(&gave_up), Arc::clone(&early));
        tree.common.listeners.push(Arc::new(move |report| {
            if report.event == Event::GaveUp {
                let early = of.lock().unwrap_or_else(PoisonError::into_inner);
                let own = early.as_ref().is_some_and(|root| root.line().id() == report.supervisor_device);
                hook.fetch_or(own, Ordering::Relaxed);
            }
        }));
        let mut starting = Box::pin(begin_owned(Arc::clone(&engine), None, tree));

        let mut watcher = Device::new();
        // One future is one signal, so this one is kept until it comes.
        let mut first = Box::pin(signal());
        let (stopped, _task) = match race(starting.as_mut(), first.as_mut()).await {
            Race::First(Err(error)) => return RootEnd::FailedToStart(error),
            Race::First(Ok((handle, task))) => {
                drop(starting);
                watcher.link(&handle.line(), LinkMode::Monitor);
                match race(watcher.receive(), first.as_mut()).await {
                    Race::First(message) => {
                        return match message {
                            _ if gave_up.load(Ordering::Relaxed) => RootEnd::GaveUp,
                            backplane::Message::Disconnect(news) => RootEnd::Ended(news.exit),
                            backplane::Message::Shutdown(_) => RootEnd::Ended(Exit::Shutdown),
                        };
                    }
                    Race::Second(()) => (handle.stop(Exit::Shutdown), Some(task)),
                }
            }
            // Asked to stop before it has started: it stops when it comes to read that.
            Race::Second(()) => {
                let handle = early.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let Some(handle) = handle else { return RootEnd::Aborted };
                let stopped = handle.stop(Exit::Shutdown);
                let late = after(&engine, self.drain);
                match race(starting.as_mut(), race(signal(), late)).await {
                    Race::First(Err(error)) => return RootEnd::FailedToStart(error),
                    Race::First(Ok((_, task))) => (stopped, Some(task)),
                    Race::Second(Race::First(())) => return RootEnd::Aborted,
                    Race::Second(Race::Second(())) => return RootEnd::TooSlow,
                }
            }
        };
        let late = after(&engine, self.drain);
        match race(stopped, race(signal(), late)).await {
            Race::First(Ok(stopped)) => RootEnd::Drained(stopped),
            Race::First(Err(gone)) => RootEnd::Ended(gone.exit().cloned().unwrap_or(Exit::Shutdown)),
            Race::Second(Race::First(())) => RootEnd::Aborted,
            Race::Second(Race::Second(())) => RootEnd::TooSlow,
        }
    }

    /// Runs the tree until it ends or Ctrl-C or SIGTERM comes.
    ///
    /// # Errors
    ///
    /// If the signals cannot be listened to. Nothing has been started then.
    ///
    /// ```
    /// use backplane_supervisor::{ChildSpec, RestartStrategy, Root, Supervisor};
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// # smol::block_on(async {
    ///
    /// let broken = ChildSpec::new("broken", |device| device.manage(async { Err::<(), _>("no disk") }));
    /// let tree = Supervisor::new(RestartStrategy::OneForOne).child(broken);
    /// let end = Root::new(tree).run(Smol::global()).await?;
    /// assert_eq!(end.to_string(), "gave up");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    #[cfg(feature = "signals")]
    pub async fn run<R: Runtime>(self, runtime: R) -> std::io::Result<RootEnd> {
        let signals = std::cell::RefCell::new(signals::Signals::listen()?);
        let end = self
            .run_with(runtime, || {
                let signals = &signals;
                poll_fn(move |cx| signals.borrow_mut().poll(cx))
            })
            .await;
        Ok(end)
    }

    /// Runs the tree on this thread until it ends or Ctrl-C or SIGTERM comes, and says what `main` should return.
    ///
    /// The runtime's tasks need threads of their own, as smol's global executor and tokio's multi-thread runtime have.
    ///
    /// ```
    /// use backplane_supervisor::{ChildSpec, RestartStrategy, Root, Supervisor};
    /// use std::process::ExitCode;
    ///
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// fn run(tree: Supervisor) -> ExitCode {
    ///     Root::new(tree).main(Smol::global()) // the last line of a `main`
    /// }
    ///
    /// let broken = ChildSpec::new("broken", |device| device.manage(async { Err::<(), _>("no disk") }));
    /// let tree = Supervisor::new(RestartStrategy::OneForOne).child(broken);
    /// assert_eq!(run(tree), ExitCode::FAILURE);
    /// # }
    /// ```
    #[cfg(feature = "signals")]
    pub fn main<R: Runtime>(self, runtime: R) -> ExitCode {
        match signals::block_on(self.run(runtime)) {
            Ok(end) => {
                if end.exit_code() != 0 {
                    eprintln!("{end}");
                }
                end.into()
            }
            Err(error) => {
                eprintln!("cannot listen to signals: {error}");
                ExitCode::FAILURE
            }
        }
    }
}

#[cfg(feature = "signals")]
mod signals {
    use std::io;
    use std::pin::{Pin, pin};
    use std::sync::Arc;
    use std::task::{Context, Poll, Wake, Waker};
    use std::thread::{self, Thread};

    use futures_core::Stream;

    pub(super) struct Signals(async_signal::Signals);

    impl Signals {
        pub(super) fn listen() -> io::Result<Signals> {
            #[cfg(unix)]
            let wanted = [async_signal::Signal::Int, async_signal::Signal::Term];
            #[cfg(not(unix))]
            let wanted = [async_signal::Signal::Int];
            Ok(Signals(async_signal::Signals::new(wanted)?))
        }

        pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
            match Pin::new(&mut self.0).poll_next(cx) {
                Poll::Ready(Some(Ok(_))) => Poll::Ready(()),
                // Without signals the tree runs on.
                Poll::Ready(Some(Err(_)) | None) | Poll::Pending => Poll::Pending,
            }
        }
    }

    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut cx = Context::from_waker(&waker);
        loop {
            match future.as_mut().poll(&mut cx) {
                Poll::Ready(value) => return value,
                Poll::Pending => thread::park(),
            }
        }
    }
}
