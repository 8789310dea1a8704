//! How a child comes to life, and says so.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use backplane::{Device, DeviceId, Exit, Fault, catch};

use crate::engine::Engine;
use crate::handle::Killed;
use crate::order::Key;
use crate::report::Listeners;
use crate::ring::Ring;
use crate::shared::{Kind, Shared};
use crate::snapshot::Snapshot;
use crate::spec::{Init, Job, StartError, What};

/// What a child's start has to know of the supervisor that makes it.
pub(crate) trait House: Send + Sync {
    /// The supervisor's name for devices.
    fn id(&self) -> DeviceId;
    /// The supervisor's name for people: ids from the root down, joined with `/`.
    fn path(&self) -> &Arc<str>;
    /// The same of a child that is a supervisor.
    fn path_of(&self, child: Key) -> Arc<str>;
    fn engine(&self) -> &Arc<dyn Engine>;
    fn listeners(&self) -> &Listeners;
    /// Puts it into the inbox.
    fn say(&self, child: DeviceId, said: Said);
    /// A child that is a supervisor can be asked for its own snapshot.
    fn adopt(&self, child: Key, house: Weak<dyn House>);
    fn snapshot(&self) -> Snapshot;
    /// Notes what a supervisor below had to kill while it ended.
    fn note_killed(&self, killed: Vec<Killed>);
}

/// What a child says of its start.
#[derive(Debug)]
pub(crate) enum Said {
    Started,
    Ignored,
    Failed(Box<StartError>),
    /// The token was dropped.
    Nothing,
}

/// The token with which a child says that it is started.
///
/// Until it is used the supervisor waits, and so do the siblings that come after. A child that drops it unused has failed
/// to start.
///
/// ```
/// use backplane_supervisor::{ChildSpec, Starting};
/// use std::net::TcpListener;
///
/// let spec = ChildSpec::starting("listener", |device, starting: Starting| {
///     device.manage(async move {
///         let listener = match TcpListener::bind(("127.0.0.1", 0)) {
///             Ok(listener) => listener,
///             Err(error) => {
///                 starting.fail(&error);
///                 return Err(error);
///             }
///         };
///         let _pulse = starting.done();
///         std::future::pending::<()>().await;
///         drop(listener);
///         Ok(())
///     })
/// });
/// # drop(spec);
/// ```
#[must_use = "a child that does not say that it is started is not"]
pub struct Starting {
    house: Option<Arc<dyn House>>,
    id: DeviceId,
    pulse: Pulse,
}

impl Starting {
    pub(crate) fn new(house: Arc<dyn House>, id: DeviceId) -> Starting {
        Starting { house: Some(house), id, pulse: Pulse(None) }
    }

    /// Who waits, until it has been told.
    pub(crate) fn house(&self) -> Option<&Arc<dyn House>> {
        self.house.as_ref()
    }

    /// The child is started. The next sibling is started now.
    ///
    /// ```
    /// use backplane_supervisor::{ChildSpec, RestartStrategy, Starting, Supervisor};
    /// # use std::sync::{Arc, Mutex};
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// # smol::block_on(async {
    /// # let order = Arc::new(Mutex::new(Vec::new()));
    /// # let (first, second) = (Arc::clone(&order), Arc::clone(&order));
    ///
    /// let store = ChildSpec::starting("store", move |device, starting: Starting| {
    ///     let order = Arc::clone(&first);
    ///     device.manage(async move {
    ///         order.lock().unwrap().push("the store is open");
    ///         let _pulse = starting.done();
    ///         std::future::pending::<Result<(), ()>>().await
    ///     })
    /// });
    /// let reader = ChildSpec::new("reader", move |device| {
    ///     second.lock().unwrap().push("the reader begins");
    ///     device.manage(std::future::pending::<Result<(), ()>>())
    /// });
    /// let tree = Supervisor::new(RestartStrategy::RestForOne).child(store).child(reader);
    /// tree.start(Smol::global()).await?;
    /// assert_eq!(*order.lock().unwrap(), ["the store is open", "the reader begins"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    pub fn done(mut self) -> Pulse {
        self.pulse.beat();
        self.say(Said::Started);
        self.pulse.clone()
    }

    /// There is nothing to do for this child, and that is fine: it is listed and not running. Its future should end now.
    ///
    /// ```
    /// use backplane_supervisor::{ChildSpec, ChildState, RestartStrategy, Starting, Supervisor};
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// # smol::block_on(async {
    ///
    /// let metrics = ChildSpec::starting("metrics", |device, starting: Starting| {
    ///     starting.ignore(); // nobody wants any
    ///     device.manage(async { Ok::<(), ()>(()) })
    /// });
    /// let tree = Supervisor::new(RestartStrategy::OneForOne).child(metrics);
    /// let handle = tree.start(Smol::global()).await?;
    /// assert_eq!(handle.snapshot()?.children[0].state, ChildState::Down);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    pub fn ignore(mut self) {
        self.say(Said::Ignored);
    }

    /// The child cannot be started, for this reason. Its future should end now.
    ///
    /// ```
    /// use backplane_supervisor::{ChildSpec, RestartStrategy, Starting, Supervisor};
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// # smol::block_on(async {
    ///
    /// let listener = ChildSpec::starting("listener", |device, starting: Starting| {
    ///     starting.fail("address in use");
    ///     device.manage(async { Ok::<(), ()>(()) })
    /// });
    /// let tree = Supervisor::new(RestartStrategy::OneForOne).child(listener);
    /// let error = tree.start(Smol::global()).await.unwrap_err();
    /// assert_eq!(error.to_string(), "child listener: failed: address in use");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    pub fn fail(self, words: impl fmt::Display) {
        self.fail_with(StartError::Failed(Fault::error(words)));
    }

    pub(crate) fn fail_with(mut self, error: StartError) {
        self.say(Said::Failed(Box::new(error)));
    }

    /// The supervisor that waits.
    ///
    /// ```
    /// use backplane_supervisor::{ChildSpec, RestartStrategy, Starting, Supervisor};
    /// # use std::sync::{Arc, OnceLock};
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// # smol::block_on(async {
    /// # let above = Arc::new(OnceLock::new());
    /// # let place = Arc::clone(&above);
    ///
    /// let child = ChildSpec::starting("child", move |device, starting: Starting| {
    ///     place.get_or_init(|| starting.supervisor());
    ///     let _pulse = starting.done();
    ///     device.manage(std::future::pending::<Result<(), ()>>())
    /// });
    /// let tree = Supervisor::new(RestartStrategy::OneForOne).child(child);
    /// let handle = tree.start(Smol::global()).await?;
    /// assert_eq!(above.get(), Some(&Some(handle.line().id())));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    pub fn supervisor(&self) -> Option<DeviceId> {
        self.house.as_ref().map(|house| house.id())
    }

    fn say(&mut self, said: Said) {
        if let Some(house) = self.house.take() {
            house.say(self.id, said);
        }
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        self.say(Said::Nothing);
    }
}

impl fmt::Debug for Starting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Starting({})", self.id)
    }
}

/// The token with which a child shows that it makes progress; see [`ChildSpec::progress_within`](crate::ChildSpec::progress_within).
///
/// Where no such promise was made it does nothing.
///
/// ```
/// use backplane_supervisor::{ChildSpec, Event, Restart, RestartStrategy, Starting, Supervisor};
/// use std::time::Duration;
/// # #[cfg(feature = "smol")] {
/// use backplane::runtime::Smol;
/// # smol::block_on(async {
///
/// let stalled = ChildSpec::starting("stalled", |device, starting: Starting| {
///     device.manage(async move {
///         let _pulse = starting.done(); // the first beat, and the last
///         std::future::pending::<Result<(), ()>>().await
///     })
/// });
/// let limit = Duration::from_millis(1);
/// let stalled = stalled.restart(Restart::Temporary).progress_within(limit);
/// let handle = Supervisor::new(RestartStrategy::OneForOne).start(Smol::global()).await?;
/// let mut reports = handle.reports(100);
/// handle.start_child(stalled).await?;
/// while reports.next().await.is_some_and(|report| report.event != Event::NoProgress(limit)) {}
/// while reports.next().await.is_some_and(|report| !matches!(report.event, Event::Ended { .. })) {}
/// assert_eq!(handle.count_children().await?.specs, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// # }
/// ```
#[derive(Clone)]
pub struct Pulse(Option<Arc<Beats>>);

pub(crate) struct Beats {
    engine: Arc<dyn Engine>,
    epoch: Instant,
    /// In nanoseconds after `epoch`.
    last: AtomicU64,
}

impl Pulse {
    pub(crate) fn new(engine: Option<&Arc<dyn Engine>>) -> Pulse {
        Pulse(engine.map(|engine| {
            Arc::new(Beats { engine: Arc::clone(engine), epoch: engine.now(), last: AtomicU64::new(0) })
        }))
    }

    /// Progress has been made.
    ///
    /// ```
    /// use backplane_supervisor::{ChildSpec, RestartStrategy, Starting, Supervisor};
    /// use std::time::Duration;
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// # smol::block_on(async {
    ///
    /// let pump = ChildSpec::starting("pump", |device, starting: Starting| {
    ///     device.manage(async move {
    ///         let pulse = starting.done();
    ///         for piece in 1..=3 {
    ///             println!("piece {piece} is done");
    ///             pulse.beat();
    ///         }
    ///         std::future::pending::<Result<(), ()>>().await // no work, for half a minute at most
    ///     })
    /// });
    /// let tree = Supervisor::new(RestartStrategy::OneForOne).child(pump.progress_within(Duration::from_secs(30)));
    /// let handle = tree.start(Smol::global()).await?;
    /// assert_eq!(handle.count_children().await?.active, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    pub fn beat(&self) {
        if let Some(beats) = &self.0 {
            let since = beats.engine.now().saturating_duration_since(beats.epoch);
            beats.last.store(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }

    pub(crate) fn last(&self) -> Option<Instant> {
        let beats = self.0.as_ref()?;
        Some(beats.epoch + Duration::from_nanos(beats.last.load(Ordering::Relaxed)))
    }
}

impl fmt::Debug for Pulse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Pulse" } else { "Pulse(nobody listens)" })
    }
}

pin_project_lite::pin_project! {
    /// A child's job: its future, whose value is nobody's. Says first that it is started, if nobody else will.
    ///
    /// By hand, for as an `async` block it would hold the future twice.
    pub(crate) struct Life<F> {
        ring: Option<Arc<Ring>>,
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for Life<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if let Some(ring) = this.ring.take() {
            ring.polled();
        }
        this.future.poll(cx).map(drop)
    }
}

/// All that a new incarnation is given.
pub(crate) struct Birth<'a, K: Kind> {
    /// Where it was made: each copy of what has just been put together waits for it.
    pub(crate) device: &'a mut Option<Device>,
    pub(crate) shared: &'a Arc<Shared<K>>,
    pub(crate) key: Key,
    pub(crate) pulse: &'a Pulse,
    pub(crate) ring: &'a Arc<Ring>,
}

impl<K: Kind> Birth<'_, K> {
    /// The job of a worker that says nothing.
    pub(crate) fn silent<F>(self, start: impl FnOnce(Device) -> F) -> Job
    where
        F: Future + Send + 'static,
    {
        let future = start(self.device.take().unwrap_or_default());
        Box::pin(Life { ring: Some(Arc::clone(self.ring)), future })
    }

    /// The job of a worker that says when it is started.
    pub(crate) fn speaking<F>(self, start: impl FnOnce(Device, Starting) -> F) -> Job
    where
        F: Future + Send + 'static,
    {
        let cradle = self.cradle();
        let future = start(cradle.device, cradle.starting);
        Box::pin(Life { ring: None, future })
    }

    /// What a supervisor needs of it.
    pub(crate) fn cradle(self) -> Cradle {
        let house: Arc<dyn House> = Arc::clone(self.shared) as Arc<dyn House>;
        let device = self.device.take().unwrap_or_default();
        let starting =
            Starting { house: Some(Arc::clone(&house)), id: device.id(), pulse: self.pulse.clone() };
        Cradle { device, starting, house, key: self.key }
    }
}

/// The same, whatever kind the supervisor above is of.
pub(crate) struct Cradle {
    pub(crate) device: Device,
    pub(crate) starting: Starting,
    pub(crate) house: Arc<dyn House>,
    pub(crate) key: Key,
}

impl Cradle {
    /// Becomes the supervisor that `init` says.
    pub(crate) async fn found(self, init: impl FnOnce() -> Init) {
        match catch(init) {
            Ok(Init(What::Run(run))) => run(self).await,
            Ok(Init(What::Ignore)) => {
                let Cradle { device, starting, .. } = self;
                starting.ignore();
                device.disconnect(Exit::Normal);
            }
            Ok(Init(What::Fail(fault))) => {
                let Cradle { device, starting, .. } = self;
                starting.fail_with(StartError::Failed(fault.clone()));
                device.disconnect(Exit::Fault(fault));
            }
            Err(panic) => {
                let Cradle { device, starting, .. } = self;
                let exit = Exit::Fault(Fault::panic(&panic));
                starting.fail_with(StartError::Ended(exit.clone()));
                device.disconnect(exit);
            }
        }
    }
}
