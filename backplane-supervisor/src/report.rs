//! What a tree tells of itself while it runs.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Poll, Waker};
use std::time::Duration;

use backplane::{DeviceId, Exit};

use crate::engine::quietly;
use crate::spec::{ChildId, StartError};

/// Something happened in a tree: OTP's progress, crash and supervisor reports, and some more.
///
/// ```
/// use backplane::Exit;
/// use backplane_supervisor::{ChildSpec, RestartStrategy, Supervisor};
/// # #[cfg(feature = "smol")] {
/// use backplane::runtime::Smol;
/// # smol::block_on(async {
/// # let clock = backplane_supervisor::ChildSpec::new("clock", |device| {
/// #     device.manage(std::future::pending::<Result<(), ()>>())
/// # });
///
/// let inner = ChildSpec::supervisor("inner", move || {
///     Supervisor::new(RestartStrategy::OneForOne).child(clock.clone())
/// });
/// let tree = Supervisor::new(RestartStrategy::OneForOne).child(inner);
/// let handle = tree.start(Smol::global()).await?;
/// let mut reports = handle.reports(100);
/// handle.stop(Exit::Shutdown).await?;
/// let report = reports.next().await.expect("the innermost ends first");
/// assert_eq!((&*report.supervisor, report.child.as_deref()), ("root/inner", Some("clock")));
/// assert_eq!(report.to_string(), "root/inner/clock stopped: shutdown");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Where: the supervisor's path, ids from the root down joined with `/`.
    pub supervisor: Arc<str>,
    /// Which of the supervisors that have been at this path.
    pub supervisor_device: DeviceId,
    /// The child concerned, if it is one and has a name.
    pub child: Option<ChildId>,
    /// The child's device, if there is or was one.
    pub device: Option<DeviceId>,
    /// How many times this child has been started or tried to, by this supervisor.
    pub incarnation: u32,
    /// What.
    pub event: Event,
}

/// What happened.
///
/// Every incarnation that is [`Started`](Event::Started) is [`Ended`](Event::Ended) once, later; one that is not is
/// [`StartFailed`](Event::StartFailed) or [`Ignored`](Event::Ignored), once.
///
/// ```
/// use backplane_supervisor::{ChildSpec, Event, Restart, RestartStrategy, Supervisor};
/// # use std::sync::{Arc, Mutex};
/// # #[cfg(feature = "smol")] {
/// use backplane::runtime::Smol;
/// # smol::block_on(async {
/// # let told = Arc::new(Mutex::new(Vec::new()));
/// # let ear = Arc::clone(&told);
///
/// let job = ChildSpec::new("job", |device| device.manage(async { Err::<(), _>("no disk") }));
/// let tree = Supervisor::new(RestartStrategy::OneForOne)
///     .child(job.restart(Restart::Temporary))
///     .listen(move |report| ear.lock().unwrap().push(report.event.clone()));
/// let handle = tree.start(Smol::global()).await?;
/// while handle.count_children().await?.specs > 0 {} // until it has ended
/// let told = told.lock().unwrap();
/// assert_eq!(told[0], Event::Started);
/// assert!(matches!(&told[1], Event::Ended { exit, stopped: false } if exit.is_fault()));
/// assert!(matches!(&told[2], Event::ChildTerminated(exit) if exit.is_fault()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A start attempt has succeeded.
    Started,
    /// A start attempt has said that there is nothing to start.
    Ignored,
    /// A start attempt has failed.
    StartFailed(StartError),
    /// An incarnation has ended, by itself or because it was stopped; told before anything is done about it.
    Ended {
        /// How.
        exit: Exit,
        /// Whether the supervisor was stopping it.
        stopped: bool,
    },
    /// Error report: a child has ended by itself, and that is not ordinary.
    ChildTerminated(Exit),
    /// Error report: a start attempt failed, at the start of the supervisor or at a restart.
    StartError(StartError),
    /// Error report: children that were being stopped have ended in a way that was not asked for.
    ShutdownError {
        /// How.
        exit: Exit,
        /// How many, where children of one kind were stopped together.
        count: Option<usize>,
    },
    /// One restart of this child was too many. The supervisor ends its children and then itself.
    GaveUp,
    /// The child has exceeded its own budget and stays down.
    LeftDown,
    /// The child will be started again after this long.
    Backoff(Duration),
    /// The child did not end in time when it was stopped, and its task has been dropped.
    Killed {
        /// The time it was given.
        after: Duration,
    },
    /// The child's task has been dropped and it does not end: it never yields, and cannot be killed.
    Stuck {
        /// The time since it was first asked to stop.
        after: Duration,
    },
    /// The child has not made progress for this long, and its task has been dropped.
    NoProgress(Duration),
    /// The supervisor itself has ended all its children and ends like this.
    Finished(Exit),
}

impl Event {
    /// Whether an operator should look at it.
    ///
    /// ```
    /// use backplane::Exit;
    /// use backplane_supervisor::Event;
    ///
    /// assert!(Event::GaveUp.is_error());
    /// assert!(Event::ChildTerminated(Exit::Normal).is_error()); // told of a permanent child
    /// assert!(!Event::Ended { exit: Exit::Normal, stopped: false }.is_error());
    /// ```
    pub fn is_error(&self) -> bool {
        matches!(
            self,
            Event::ChildTerminated(_)
                | Event::StartError(_)
                | Event::ShutdownError { .. }
                | Event::GaveUp
                | Event::LeftDown
                | Event::Stuck { .. }
                | Event::NoProgress(_)
        )
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Started => f.write_str("started"),
            Event::Ignored => f.write_str("ignored"),
            Event::StartFailed(error) | Event::StartError(error) => write!(f, "start failed: {error}"),
            Event::Ended { exit, stopped: false } => write!(f, "ended: {exit}"),
            Event::Ended { exit, stopped: true } => write!(f, "stopped: {exit}"),
            Event::ChildTerminated(exit) => write!(f, "terminated: {exit}"),
            Event::ShutdownError { exit, count: None } => write!(f, "shutdown error: {exit}"),
            Event::ShutdownError { exit, count: Some(count) } => {
                write!(f, "shutdown error: {count} ended: {exit}")
            }
            Event::GaveUp => f.write_str("one restart too many, giving up"),
            Event::LeftDown => f.write_str("restart budget exceeded, left down"),
            Event::Backoff(wait) => write!(f, "restart in {wait:?}"),
            Event::Killed { after } => write!(f, "killed after {after:?}"),
            Event::Stuck { after } => {
                write!(f, "does not end, {after:?} after it was asked to: it never yields")
            }
            Event::NoProgress(deadline) => write!(f, "no progress for {deadline:?}, killed"),
            Event::Finished(exit) => write!(f, "finished: {exit}"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.supervisor)?;
        match (&self.child, self.device) {
            (Some(child), _) => write!(f, "/{child}")?,
            (None, Some(device)) if device != self.supervisor_device => write!(f, "/{device}")?,
            _ => {}
        }
        if self.incarnation > 1 {
            write!(f, " (incarnation {})", self.incarnation)?;
        }
        write!(f, " {}", self.event)
    }
}

pub(crate) type Listener = Arc<dyn Fn(&Report) + Send + Sync>;

/// Who hears of what happens in a supervisor: its own listeners, and those of the supervisors above it.
#[derive(Clone)]
pub(crate) struct Listeners(Arc<Ears>);

struct Ears {
    own: Vec<Listener>,
    above: Option<Listeners>,
    subscribed: AtomicBool,
    /// None when there will be no more reports.
    subscriptions: Mutex<Option<Vec<Weak<Pipe>>>>,
}

impl Listeners {
    pub(crate) fn new(own: Vec<Listener>, above: Option<&Listeners>) -> Listeners {
        let subscriptions = Mutex::new(Some(Vec::new()));
        Listeners(Arc::new(Ears {
            own,
            above: above.cloned(),
            subscribed: AtomicBool::new(false),
            subscriptions,
        }))
    }

    /// Whether anybody would hear.
    pub(crate) fn anybody(&self) -> bool {
        #[cfg(feature = "tracing")]
        if crate::trace::anybody() {
            return true;
        }
        self.somebody()
    }

    fn somebody(&self) -> bool {
        !self.0.own.is_empty()
            || self.0.subscribed.load(Ordering::Relaxed)
            || self.0.above.as_ref().is_some_and(Listeners::somebody)
    }

    pub(crate) fn tell(&self, report: &Report) {
        #[cfg(feature = "tracing")]
        quietly(|| crate::trace::emit(report));
        self.pass(report);
    }

    fn pass(&self, report: &Report) {
        for listener in &self.0.own {
            quietly(|| listener(report));
        }
        if self.0.subscribed.load(Ordering::Relaxed) {
            let mut pipes: Vec<Arc<Pipe>> = Vec::new();
            let mut subscriptions = self.0.subscriptions.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(subscriptions) = &mut *subscriptions {
                subscriptions.retain(|pipe| match pipe.upgrade() {
                    Some(pipe) => {
                        pipes.push(pipe);
                        true
                    }
                    None => false,
                });
                self.0.subscribed.store(!subscriptions.is_empty(), Ordering::Relaxed);
            }
            drop(subscriptions);
            for pipe in pipes {
                pipe.put(report.clone());
            }
        }
        if let Some(above) = &self.0.above {
            above.pass(report);
        }
    }

    pub(crate) fn subscribe(&self, capacity: usize) -> Reports {
        let pipe =
            Arc::new(Pipe { state: Mutex::new(Flow { capacity: capacity.max(1), ..Flow::default() }) });
        let mut subscriptions = self.0.subscriptions.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *subscriptions {
            Some(subscriptions) => {
                // Where nothing is to be told those who have gone would stay: they go when there are twice as many.
                if subscriptions.len() == subscriptions.capacity() {
                    subscriptions.retain(|pipe| pipe.strong_count() > 0);
                }
                subscriptions.push(Arc::downgrade(&pipe));
                self.0.subscribed.store(true, Ordering::Relaxed);
            }
            None => pipe.lock().closed = true,
        }
        drop(subscriptions);
        Reports(pipe)
    }

    /// There will be no more.
    pub(crate) fn close(&self) {
        let subscriptions =
            self.0.subscriptions.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default();
        for pipe in subscriptions.iter().filter_map(Weak::upgrade) {
            let mut flow = pipe.lock();
            flow.closed = true;
            let waker = flow.waker.take();
            drop(flow);
            if let Some(waker) = waker {
                quietly(|| waker.wake());
            }
        }
    }
}

struct Pipe {
    state: Mutex<Flow>,
}

#[derive(Default)]
struct Flow {
    reports: VecDeque<Report>,
    capacity: usize,
    lost: u64,
    waker: Option<Waker>,
    closed: bool,
}

impl Pipe {
    fn lock(&self) -> MutexGuard<'_, Flow> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, report: Report) {
        let mut flow = self.lock();
        let oldest = if flow.reports.len() >= flow.capacity {
            flow.lost += 1;
            flow.reports.pop_front()
        } else {
            None
        };
        flow.reports.push_back(report);
        let waker = flow.waker.take();
        drop(flow);
        drop(oldest);
        if let Some(waker) = waker {
            quietly(|| waker.wake());
        }
    }
}

/// A subscription to the reports of a supervisor and all that is below it.
///
/// Never holds the tree up: where a reader is too slow the oldest reports are dropped, and [counted](Reports::lost).
///
/// ```
/// use backplane::Exit;
/// use backplane_supervisor::{RestartStrategy, Supervisor};
/// # #[cfg(feature = "smol")] {
/// use backplane::runtime::Smol;
/// # smol::block_on(async {
/// # let clock = backplane_supervisor::ChildSpec::new("clock", |device| {
/// #     device.manage(std::future::pending::<Result<(), ()>>())
/// # });
///
/// let handle = Supervisor::new(RestartStrategy::OneForOne).start(Smol::global()).await?;
/// let mut all = handle.reports(100);
/// let mut last = handle.reports(1);
/// handle.start_child(clock).await?;
/// handle.stop(Exit::Shutdown).await?;
/// assert_eq!(all.next().await.unwrap().to_string(), "root/clock started");
/// assert_eq!(last.next().await.unwrap().to_string(), "root finished: shutdown");
/// assert_eq!((all.lost(), last.lost()), (0, 2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// # }
/// ```
pub struct Reports(Arc<Pipe>);

impl Reports {
    /// The next report; `None` once the supervisor has ended and all has been read.
    ///
    /// ```
    /// use backplane::Exit;
    /// use backplane_supervisor::{RestartStrategy, Supervisor};
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// # smol::block_on(async {
    ///
    /// let handle = Supervisor::new(RestartStrategy::OneForOne).start(Smol::global()).await?;
    /// let mut reports = handle.reports(100);
    /// handle.stop(Exit::Shutdown).await?;
    /// while let Some(report) = reports.next().await {
    ///     assert_eq!(report.to_string(), "root finished: shutdown");
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    pub async fn next(&mut self) -> Option<Report> {
        poll_fn(|cx| {
            let waker = cx.waker().clone();
            let mut flow = self.0.lock();
            match flow.reports.pop_front() {
                Some(report) => Poll::Ready(Some(report)),
                None if flow.closed => Poll::Ready(None),
                None => {
                    let before = flow.waker.replace(waker);
                    drop(flow);
                    drop(before);
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// The next report, if there is one.
    ///
    /// ```
    /// use backplane_supervisor::{Event, RestartStrategy, Supervisor};
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// # smol::block_on(async {
    /// # let clock = backplane_supervisor::ChildSpec::new("clock", |device| {
    /// #     device.manage(std::future::pending::<Result<(), ()>>())
    /// # });
    ///
    /// let handle = Supervisor::new(RestartStrategy::OneForOne).start(Smol::global()).await?;
    /// let mut reports = handle.reports(100);
    /// assert_eq!(reports.try_next(), None);
    /// handle.start_child(clock).await?;
    /// assert_eq!(reports.try_next().map(|report| report.event), Some(Event::Started));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    pub fn try_next(&mut self) -> Option<Report> {
        self.0.lock().reports.pop_front()
    }

    /// How many reports were dropped because this reader was too slow.
    ///
    /// ```
    /// use backplane_supervisor::{RestartStrategy, Supervisor};
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// # smol::block_on(async {
    /// # let clock = backplane_supervisor::ChildSpec::new("clock", |device| {
    /// #     device.manage(std::future::pending::<Result<(), ()>>())
    /// # });
    ///
    /// let handle = Supervisor::new(RestartStrategy::OneForOne).start(Smol::global()).await?;
    /// let mut reports = handle.reports(2);
    /// for clock in clock.replicas(5) {
    ///     handle.start_child(clock).await?;
    /// }
    /// assert_eq!(reports.lost(), 3); // the oldest
    /// assert_eq!(reports.try_next().unwrap().to_string(), "root/clock-4 started");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    pub fn lost(&self) -> u64 {
        self.0.lock().lost
    }
}

impl fmt::Debug for Reports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reports({} waiting)", self.0.lock().reports.len())
    }
}
