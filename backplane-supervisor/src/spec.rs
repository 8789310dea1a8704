//! What a child is.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use backplane::{Device, Exit, Fault};

use crate::backoff::Backoff;
use crate::starting::{Birth, Cradle, Starting};
use crate::supervisor::Listed;
use crate::tree::{AutoShutdown, Budget, Named, Restart};

/// How a child is stopped.
///
/// ```
/// use backplane_supervisor::{ChildSpec, RestartStrategy, Shutdown, Supervisor};
/// use std::time::Duration;
///
/// // What is not said is OTP's: five seconds for a worker, all the time it takes for a supervisor.
/// let worker = ChildSpec::new("worker", |device| device.manage(async { Ok::<(), ()>(()) }));
/// let tree = ChildSpec::supervisor("tree", || Supervisor::new(RestartStrategy::OneForOne));
/// assert_eq!(worker.info().shutdown, Shutdown::Timeout(Duration::from_secs(5)));
/// assert_eq!(tree.info().shutdown, Shutdown::Infinity);
/// assert_eq!(worker.shutdown(Shutdown::BrutalKill).info().shutdown, Shutdown::BrutalKill);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shutdown {
    /// Its task is dropped, unasked.
    BrutalKill,
    /// It is asked to stop, and its task is dropped if it has not ended after this long.
    Timeout(Duration),
    /// It is asked to stop and given all the time it takes.
    Infinity,
}

/// Whether a child is a supervisor: for lists, counts and the default of [`Shutdown`].
///
/// ```
/// use backplane_supervisor::{ChildKind, ChildSpec, RestartStrategy, Supervisor};
///
/// let worker = ChildSpec::new("worker", |device| device.manage(async { Ok::<(), ()>(()) }));
/// let tree = ChildSpec::supervisor("tree", || Supervisor::new(RestartStrategy::OneForOne));
/// assert_eq!((worker.info().kind, tree.info().kind), (ChildKind::Worker, ChildKind::Supervisor));
/// assert_eq!(ChildKind::Worker.to_string(), "worker");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub enum ChildKind {
    /// It does the work.
    Worker,
    /// It has children of its own.
    Supervisor,
}

impl fmt::Display for ChildKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ChildKind::Worker => "worker",
            ChildKind::Supervisor => "supervisor",
        })
    }
}

/// The name of a child among its siblings.
///
/// ```
/// use backplane_supervisor::{ChildId, ChildSpec};
///
/// let id = ChildId::from(format!("shard-{}", 7));
/// let spec = ChildSpec::new(id.clone(), |device| device.manage(async { Ok::<(), ()>(()) }));
/// assert_eq!(spec.info().id, id);
/// ```
pub type ChildId = Arc<str>;

/// What runs as a child's task.
pub(crate) type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What makes the job of a new incarnation.
pub(crate) type Recipe = Arc<dyn Fn(Birth<'_, Listed>) -> Job + Send + Sync>;

/// A child: how it is started, when it is started again, how it is stopped.
///
/// The start function is called anew for every incarnation with a fresh [`Device`]. Any future that runs under
/// [`Device::manage`] is a child; there is no trait to implement.
///
/// ```
/// use backplane_supervisor::{ChildSpec, Restart, Shutdown};
/// use std::{convert::Infallible, time::Duration};
///
/// async fn count() -> Result<(), Infallible> {
///     std::future::pending().await
/// }
///
/// let spec = ChildSpec::new("counter", |device| device.manage(count()))
///     .restart(Restart::Transient)
///     .shutdown(Shutdown::Timeout(Duration::from_secs(1)));
/// assert_eq!(spec.id(), "counter");
/// ```
#[derive(Clone)]
pub struct ChildSpec {
    pub(crate) id: ChildId,
    pub(crate) common: Arc<Common>,
}

/// What replicas share.
#[derive(Clone)]
pub(crate) struct Common {
    pub(crate) facts: Facts,
    pub(crate) recipe: Recipe,
}

/// What a supervisor has to know of a child but its start function.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    pub(crate) restart: Restart,
    pub(crate) shutdown: Option<Shutdown>,
    pub(crate) kind: ChildKind,
    pub(crate) significant: bool,
    pub(crate) start_within: Option<Duration>,
    pub(crate) progress_within: Option<Duration>,
    pub(crate) backoff: Backoff,
    pub(crate) budget: Option<Budget>,
    /// It is given a pulse.
    pub(crate) pulse: bool,
}

impl Facts {
    pub(crate) fn new(kind: ChildKind) -> Facts {
        Facts {
            restart: Restart::Permanent,
            shutdown: None,
            kind,
            significant: false,
            start_within: None,
            progress_within: None,
            backoff: Backoff::immediate(),
            budget: None,
            pulse: false,
        }
    }

    /// Whether its first poll is all that is to be waited for when it starts.
    pub(crate) fn is_plain(&self) -> bool {
        self.kind == ChildKind::Worker && !self.pulse && self.start_within.is_none()
    }

    pub(crate) fn with_pulse(self) -> Facts {
        Facts { pulse: true, ..self }
    }

    /// What is wrong whatever the supervisor is.
    pub(crate) fn check(&self, id: &ChildId) -> Result<(), SpecError> {
        match self.progress_within {
            Some(_) if !self.pulse => Err(SpecError::CannotBeat(Arc::clone(id))),
            _ => Ok(()),
        }
    }

    pub(crate) fn shutdown(&self) -> Shutdown {
        self.shutdown.unwrap_or(match self.kind {
            ChildKind::Worker => Shutdown::Timeout(Duration::from_secs(5)),
            ChildKind::Supervisor => Shutdown::Infinity,
        })
    }

    pub(crate) fn info(&self, id: &ChildId) -> ChildInfo {
        ChildInfo {
            id: Arc::clone(id),
            kind: self.kind,
            restart: self.restart,
            significant: self.significant,
            shutdown: self.shutdown(),
        }
    }
}

/// What a running supervisor says about a child's spec, as OTP's `get_childspec`.
///
/// ```
/// use backplane_supervisor::{Restart, RestartStrategy, Supervisor};
/// # #[cfg(feature = "smol")] {
/// use backplane::runtime::Smol;
/// # smol::block_on(async {
/// # let clock = backplane_supervisor::ChildSpec::new("clock", |device| {
/// #     device.manage(std::future::pending::<Result<(), ()>>())
/// # });
///
/// let known = clock.info();
/// let tree = Supervisor::new(RestartStrategy::OneForOne).child(clock);
/// let handle = tree.start(Smol::global()).await?;
/// assert_eq!(handle.get_child_spec("clock").await?, Some(known.clone()));
/// assert_eq!((known.restart, known.significant), (Restart::Permanent, false));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChildInfo {
    /// Its name.
    pub id: ChildId,
    /// Worker or supervisor.
    pub kind: ChildKind,
    /// When it is started again.
    pub restart: Restart,
    /// Whether its end may end the supervisor.
    pub significant: bool,
    /// How it is stopped.
    pub shutdown: Shutdown,
}

impl ChildSpec {
    /// A worker that is started as soon as its future is polled for the first time.
    ///
    /// ```
    /// use backplane::Device;
    /// use backplane_supervisor::{ChildSpec, RestartStrategy, Supervisor};
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// # smol::block_on(async {
    ///
    /// // The future may be anything that owns the device, or gives it to `manage`.
    /// let plain = ChildSpec::new("plain", |device| device.manage(std::future::pending::<Result<(), ()>>()));
    /// let actor = ChildSpec::new("actor", |mut device: Device| async move {
    ///     let message = device.receive().await;
    ///     println!("{message:?}");
    /// });
    /// let tree = Supervisor::new(RestartStrategy::OneForOne).child(plain).child(actor);
    /// let handle = tree.start(Smol::global()).await?;
    /// assert_eq!(handle.count_children().await?.active, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    pub fn new<F>(id: impl Into<ChildId>, start: impl Fn(Device) -> F + Send + Sync + 'static) -> ChildSpec
    where
        F: Future + Send + 'static,
    {
        let recipe = move |birth: Birth<'_, Listed>| birth.silent(&start);
        ChildSpec::with(id.into(), Facts::new(ChildKind::Worker), Arc::new(recipe))
    }

    /// A worker that says itself when it is started, or that it cannot be, or that there is nothing to do; the siblings
    /// after it wait for that.
    ///
    /// ```
    /// use backplane_supervisor::{ChildSpec, Starting};
    /// use std::convert::Infallible;
    ///
    /// let spec = ChildSpec::starting("listener", |device, starting: Starting| {
    ///     device.manage(async move {
    ///         // bind, connect, load; then
    ///         let _pulse = starting.done();
    ///         std::future::pending::<Result<(), Infallible>>().await
    ///     })
    /// });
    /// # drop(spec);
    /// ```
    pub fn starting<F>(
        id: impl Into<ChildId>,
        start: impl Fn(Device, Starting) -> F + Send + Sync + 'static,
    ) -> ChildSpec
    where
        F: Future + Send + 'static,
    {
        let recipe = move |birth: Birth<'_, Listed>| birth.speaking(&start);
        ChildSpec::with(id.into(), Facts::new(ChildKind::Worker).with_pulse(), Arc::new(recipe))
    }

    /// A supervisor. `init` is called anew for every incarnation, in its own task, and says what it is to be; as in OTP
    /// a supervisor that is started again begins with its initial list.
    ///
    /// ```
    /// use backplane_supervisor::{ChildSpec, RestartStrategy, Supervisor};
    /// # let listener = ChildSpec::new("listener", |device| device.manage(std::future::pending::<Result<(), ()>>()));
    /// # let logger = ChildSpec::new("logger", |device| device.manage(std::future::pending::<Result<(), ()>>()));
    /// let web = ChildSpec::supervisor("web", move || {
    ///     Supervisor::new(RestartStrategy::OneForAll).child(listener.clone()).child(logger.clone())
    /// });
    /// let tree = Supervisor::new(RestartStrategy::OneForOne).child(web);
    /// # tree.check().unwrap();
    /// ```
    pub fn supervisor<I>(id: impl Into<ChildId>, init: impl Fn() -> I + Send + Sync + 'static) -> ChildSpec
    where
        I: Into<Init>,
    {
        let init = Arc::new(init);
        let recipe = move |birth: Birth<'_, Listed>| -> Job {
            let init = Arc::clone(&init);
            Box::pin(birth.cradle().found(move || init().into()))
        };
        ChildSpec::with(id.into(), Facts::new(ChildKind::Supervisor), Arc::new(recipe))
    }

    fn with(id: ChildId, facts: Facts, recipe: Recipe) -> ChildSpec {
        ChildSpec { id, common: Arc::new(Common { facts, recipe }) }
    }

    fn facts(&mut self) -> &mut Facts {
        &mut Arc::make_mut(&mut self.common).facts
    }

    /// The name among its siblings.
    ///
    /// ```
    /// use backplane_supervisor::ChildSpec;
    ///
    /// let spec = ChildSpec::new("clock", |device| device.manage(async { Ok::<(), ()>(()) }));
    /// assert_eq!(spec.id(), "clock");
    /// ```
    pub fn id(&self) -> &str {
        &self.id
    }

    /// When it is started again: [`Restart::Permanent`], unless said otherwise.
    ///
    /// ```
    /// use backplane_supervisor::{ChildSpec, Restart};
    ///
    /// let spec = ChildSpec::new("job", |device| device.manage(async { Ok::<(), ()>(()) }));
    /// assert_eq!(spec.info().restart, Restart::Permanent);
    /// assert_eq!(spec.restart(Restart::Transient).info().restart, Restart::Transient);
    /// ```
    #[must_use]
    pub fn restart(mut self, restart: Restart) -> ChildSpec {
        self.facts().restart = restart;
        self
    }

    /// How it is stopped: workers get five seconds and supervisors all the time they need, unless said otherwise.
    ///
    /// ```
    /// use backplane::Exit;
    /// use backplane_supervisor::{RestartStrategy, Shutdown, Supervisor};
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// # smol::block_on(async {
    /// # let clock = backplane_supervisor::ChildSpec::new("clock", |device| {
    /// #     device.manage(std::future::pending::<Result<(), ()>>())
    /// # });
    ///
    /// let tree = Supervisor::new(RestartStrategy::OneForOne).child(clock.shutdown(Shutdown::BrutalKill));
    /// let handle = tree.start(Smol::global()).await?;
    /// let mut reports = handle.reports(100);
    /// assert!(handle.stop(Exit::Shutdown).await?.killed.is_empty()); // it was not to be asked
    /// assert_eq!(reports.next().await.unwrap().to_string(), "root/clock stopped: killed");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    #[must_use]
    pub fn shutdown(mut self, shutdown: Shutdown) -> ChildSpec {
        self.facts().shutdown = Some(shutdown);
        self
    }

    /// Its end counts for the supervisor's [`AutoShutdown`]. Such a child cannot be permanent.
    ///
    /// ```
    /// use backplane_supervisor::{AutoShutdown, ChildSpec, Restart, RestartStrategy, Supervisor};
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// # smol::block_on(async {
    ///
    /// let (finish, finished) = smol::channel::bounded::<()>(1);
    /// // When the job is done the whole tree may go.
    /// let job = ChildSpec::new("job", move |device| {
    ///     let finished = finished.clone();
    ///     device.manage(async move { finished.recv().await })
    /// });
    /// let tree = Supervisor::new(RestartStrategy::OneForOne)
    ///     .auto_shutdown(AutoShutdown::AnySignificant)
    ///     .child(job.restart(Restart::Transient).significant());
    /// let handle = tree.start(Smol::global()).await?;
    /// let mut reports = handle.reports(100);
    /// finish.send(()).await?;
    /// while reports.next().await.is_some() {}
    /// assert!(!handle.line().is_alive());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    #[must_use]
    pub fn significant(mut self) -> ChildSpec {
        self.facts().significant = true;
        self
    }

    /// Lists and counts it as this kind, and stops it as this kind by default, whatever it is.
    ///
    /// ```
    /// use backplane_supervisor::{ChildKind, ChildSpec, Shutdown};
    ///
    /// // It runs a tree of somebody else's making.
    /// let spec = ChildSpec::new("tree", |device| device.manage(async { Ok::<(), ()>(()) }));
    /// let spec = spec.kind(ChildKind::Supervisor);
    /// assert_eq!(spec.info().kind, ChildKind::Supervisor);
    /// assert_eq!(spec.info().shutdown, Shutdown::Infinity);
    /// ```
    #[must_use]
    pub fn kind(mut self, kind: ChildKind) -> ChildSpec {
        self.facts().kind = kind;
        self
    }

    /// A start attempt that takes longer than this has failed, and its task is dropped.
    ///
    /// ```
    /// use backplane_supervisor::{ChildSpec, RestartStrategy, StartError, Starting, Supervisor};
    /// use std::time::Duration;
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// # smol::block_on(async {
    ///
    /// let slow = ChildSpec::starting("slow", |device, starting: Starting| {
    ///     device.manage(async move {
    ///         let _never_used = starting;
    ///         std::future::pending::<Result<(), ()>>().await
    ///     })
    /// });
    /// let limit = Duration::from_millis(1);
    /// let tree = Supervisor::new(RestartStrategy::OneForOne).child(slow.start_within(limit));
    /// let error = Box::new(StartError::TimedOut(limit));
    /// let late = StartError::Child { id: "slow".into(), error };
    /// assert_eq!(tree.start(Smol::global()).await.unwrap_err(), late);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    #[must_use]
    pub fn start_within(mut self, deadline: Duration) -> ChildSpec {
        self.facts().start_within = Some(deadline);
        self
    }

    /// It promises a [`beat`](crate::Pulse::beat) at least this often. If none comes its task is dropped, and it is
    /// started again as after any other kill. Only a child made by [`starting`](ChildSpec::starting) can keep such a promise:
    /// [`Starting::done`] gives it the pulse. Of another one it is refused before anything starts.
    ///
    /// ```
    /// use backplane_supervisor::{ChildSpec, Starting};
    /// use std::{convert::Infallible, time::Duration};
    ///
    /// let spec = ChildSpec::starting("pump", |device, starting: Starting| {
    ///     device.manage(async move {
    ///         let pulse = starting.done();
    ///         loop {
    ///             // One more piece of work, and then:
    ///             pulse.beat();
    ///             std::future::pending::<()>().await;
    ///         }
    ///         # #[allow(unreachable_code)]
    ///         Ok::<(), Infallible>(())
    ///     })
    /// })
    /// .progress_within(Duration::from_secs(30));
    /// # drop(spec);
    /// ```
    #[must_use]
    pub fn progress_within(mut self, deadline: Duration) -> ChildSpec {
        self.facts().progress_within = Some(deadline);
        self
    }

    /// How long to wait before it is started again: not at all, as in OTP, unless said otherwise.
    ///
    /// ```
    /// use backplane_supervisor::{Backoff, ChildState, Event, RestartStrategy, Supervisor};
    /// use std::time::Duration;
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// # smol::block_on(async {
    /// # let clock = backplane_supervisor::ChildSpec::new("clock", |device| {
    /// #     device.manage(std::future::pending::<Result<(), ()>>())
    /// # });
    ///
    /// let wait = Duration::from_secs(60);
    /// let clock = clock.backoff(Backoff::exponential(wait));
    /// let handle = Supervisor::new(RestartStrategy::OneForOne).child(clock).start(Smol::global()).await?;
    /// let mut reports = handle.reports(100);
    /// handle.kill_child("clock").await?;
    /// while reports.next().await.is_some_and(|report| report.event != Event::Backoff(wait)) {}
    /// assert_eq!(handle.snapshot()?.children[0].state, ChildState::Restarting);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> ChildSpec {
        self.facts().backoff = backoff;
        self
    }

    /// How often this child may be restarted, beside the supervisor's own [`Intensity`](crate::Intensity).
    ///
    /// ```
    /// use backplane_supervisor::{Budget, Event, Exceeded, Intensity, RestartStrategy, Supervisor};
    /// # use std::time::Duration;
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// # smol::block_on(async {
    /// # let clock = backplane_supervisor::ChildSpec::new("clock", |device| {
    /// #     device.manage(std::future::pending::<Result<(), ()>>())
    /// # });
    ///
    /// let none = Intensity { restarts: 0, period: Duration::from_secs(60) };
    /// let clock = clock.budget(Budget { intensity: none, exceeded: Exceeded::LeaveDown });
    /// let handle = Supervisor::new(RestartStrategy::OneForOne).child(clock).start(Smol::global()).await?;
    /// let mut reports = handle.reports(100);
    /// handle.kill_child("clock").await?;
    /// while reports.next().await.is_some_and(|report| report.event != Event::LeftDown) {}
    /// assert_eq!(handle.count_children().await?.active, 0);
    /// assert!(handle.restart_child("clock").await?.is_some()); // by hand it may be
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    #[must_use]
    pub fn budget(mut self, budget: Budget) -> ChildSpec {
        self.facts().budget = Some(budget);
        self
    }

    /// So many children like this one, named `id-1`, `id-2` and so on.
    ///
    /// ```
    /// # use backplane_supervisor::{ChildSpec, RestartStrategy, Supervisor};
    /// # let worker = ChildSpec::new("worker", |device| device.manage(std::future::pending::<Result<(), ()>>()));
    /// let tree = Supervisor::new(RestartStrategy::OneForOne).children(worker.replicas(3));
    /// # tree.check().unwrap();
    /// ```
    pub fn replicas(self, count: usize) -> impl Iterator<Item = ChildSpec> {
        (1..=count).map(move |n| ChildSpec {
            id: ChildId::from(format!("{}-{n}", self.id)),
            common: Arc::clone(&self.common),
        })
    }

    /// What a supervisor would say about it.
    ///
    /// ```
    /// use backplane_supervisor::{ChildKind, ChildSpec, Restart};
    ///
    /// let info = ChildSpec::new("clock", |device| device.manage(async { Ok::<(), ()>(()) })).info();
    /// assert_eq!((&*info.id, info.kind, info.restart), ("clock", ChildKind::Worker, Restart::Permanent));
    /// ```
    pub fn info(&self) -> ChildInfo {
        self.common.facts.info(&self.id)
    }

    pub(crate) fn check(&self, auto_shutdown: AutoShutdown) -> Result<(), SpecError> {
        let facts = &self.common.facts;
        if facts.significant && auto_shutdown == AutoShutdown::Never {
            return Err(SpecError::SignificantNeverShutsDown(Arc::clone(&self.id)));
        }
        if facts.significant && facts.restart == Restart::Permanent {
            return Err(SpecError::SignificantPermanent(Arc::clone(&self.id)));
        }
        facts.check(&self.id)
    }
}

impl fmt::Debug for ChildSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildSpec")
            .field("id", &self.id)
            .field("facts", &self.common.facts)
            .finish_non_exhaustive()
    }
}

/// A spec whose start function may be lent.
pub(crate) struct Listing {
    pub(crate) id: ChildId,
    pub(crate) common: Option<Arc<Common>>,
}

impl From<ChildSpec> for Listing {
    fn from(spec: ChildSpec) -> Listing {
        Listing { id: spec.id, common: Some(spec.common) }
    }
}

impl Named for Listing {
    fn name(&self) -> Option<&Arc<str>> {
        Some(&self.id)
    }
}

/// What a supervisor child's start function says it is to be.
///
/// Made from a [`Supervisor`](crate::Supervisor), from a [`DynamicSupervisor`](crate::DynamicSupervisor), or from a
/// `Result` of one.
///
/// ```
/// use backplane_supervisor::{ChildSpec, Init, RestartStrategy, Supervisor};
///
/// let metrics = ChildSpec::supervisor("metrics", || -> Init {
///     match std::env::var("METRICS_PORT").map(|port| port.parse::<u16>()) {
///         Err(_) => Init::ignore(),
///         Ok(Err(error)) => Init::fail(error),
///         Ok(Ok(_port)) => Supervisor::new(RestartStrategy::OneForOne).into(),
///     }
/// });
/// # drop(metrics);
/// ```
pub struct Init(pub(crate) What);

pub(crate) enum What {
    Run(Box<dyn FnOnce(Cradle) -> Job + Send>),
    Ignore,
    Fail(Fault),
}

impl Init {
    /// There is nothing to supervise. The child is listed and not running, as with OTP's `ignore`.
    ///
    /// ```
    /// use backplane_supervisor::{ChildSpec, Init, RestartStrategy, Supervisor};
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// # smol::block_on(async {
    ///
    /// let metrics = ChildSpec::supervisor("metrics", Init::ignore);
    /// let tree = Supervisor::new(RestartStrategy::OneForOne).child(metrics);
    /// let counts = tree.start(Smol::global()).await?.count_children().await?;
    /// assert_eq!((counts.specs, counts.active), (1, 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    pub fn ignore() -> Init {
        Init(What::Ignore)
    }

    /// It cannot be started, for this reason.
    ///
    /// ```
    /// use backplane_supervisor::{ChildSpec, Init, RestartStrategy, Supervisor};
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// # smol::block_on(async {
    ///
    /// let metrics = ChildSpec::supervisor("metrics", || Init::fail("no port"));
    /// let tree = Supervisor::new(RestartStrategy::OneForOne).child(metrics);
    /// let error = tree.start(Smol::global()).await.unwrap_err();
    /// assert_eq!(error.to_string(), "child metrics: failed: no port");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    pub fn fail(words: impl fmt::Display) -> Init {
        Init(What::Fail(Fault::error(words)))
    }
}

impl<P: Into<Init>, E: fmt::Display> From<Result<P, E>> for Init {
    fn from(init: Result<P, E>) -> Init {
        match init {
            Ok(plan) => plan.into(),
            Err(error) => Init::fail(error),
        }
    }
}

impl fmt::Debug for Init {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            What::Run(_) => "Init(run)",
            What::Ignore => "Init(ignore)",
            What::Fail(_) => "Init(fail)",
        })
    }
}

/// A list of children that cannot be supervised.
///
/// ```
/// use backplane_supervisor::{AutoShutdown, ChildSpec, Restart, RestartStrategy, SpecError, Supervisor};
///
/// let job = ChildSpec::new("job", |device| device.manage(async { Ok::<(), ()>(()) }));
/// let tree = Supervisor::new(RestartStrategy::OneForOne).auto_shutdown(AutoShutdown::AnySignificant);
/// let twice = tree.clone().child(job.clone()).child(job.clone());
/// assert_eq!(twice.check(), Err(SpecError::DuplicateId("job".into())));
/// let tree = tree.child(job.significant());
/// assert_eq!(tree.check().unwrap_err().to_string(), "child job is significant and permanent");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpecError {
    /// Two children have this name.
    DuplicateId(ChildId),
    /// This child is significant, and the supervisor never shuts down by itself.
    SignificantNeverShutsDown(ChildId),
    /// This child is significant and permanent: its end can never count, for it is always started again.
    SignificantPermanent(ChildId),
    /// This child promises progress and is given nothing to show it with: only one made by
    /// [`starting`](ChildSpec::starting) is.
    CannotBeat(ChildId),
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SpecError::DuplicateId(id) => write!(f, "two children are named {id}"),
            SpecError::SignificantNeverShutsDown(id) => {
                write!(f, "child {id} is significant under a supervisor that never shuts down by itself")
            }
            SpecError::SignificantPermanent(id) => write!(f, "child {id} is significant and permanent"),
            SpecError::CannotBeat(id) => {
                write!(f, "child {id} promises progress and has no pulse to show it with")
            }
        }
    }
}

impl Error for SpecError {}

/// Why a start attempt failed.
///
/// ```
/// use backplane_supervisor::{ChildSpec, RestartStrategy, StartError, Starting, Supervisor};
/// use std::error::Error;
/// # #[cfg(feature = "smol")] {
/// use backplane::runtime::Smol;
/// # smol::block_on(async {
///
/// let listener = ChildSpec::starting("listener", |device, starting: Starting| {
///     starting.fail("address in use");
///     device.manage(async { Ok::<(), ()>(()) })
/// });
/// let web = ChildSpec::supervisor("web", move || {
///     Supervisor::new(RestartStrategy::OneForOne).child(listener.clone())
/// });
/// let tree = Supervisor::new(RestartStrategy::OneForOne).child(web);
/// let error = tree.start(Smol::global()).await.unwrap_err();
/// assert_eq!(error.to_string(), "child web: child listener: failed: address in use");
/// assert!(matches!(&error, StartError::Child { id, .. } if **id == *"web"));
/// assert_eq!(error.source().unwrap().to_string(), "child listener: failed: address in use");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartError {
    /// The start function itself panicked.
    StartFunction(Fault),
    /// The child ended, like this, before it was started.
    Ended(Exit),
    /// The child said that it cannot be started.
    Failed(Fault),
    /// It was not started within its deadline, and has been killed.
    TimedOut(Duration),
    /// A stop came before it was started, and it has been killed.
    Interrupted,
    /// It is a supervisor, and this child of it could not be started.
    Child {
        /// The child's name.
        id: ChildId,
        /// Why.
        error: Box<StartError>,
    },
    /// It is a supervisor whose children cannot be supervised. None of them was started.
    Spec(SpecError),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::StartFunction(fault) => write!(f, "start function {fault}"),
            StartError::Ended(exit) => write!(f, "ended before it was started: {exit}"),
            StartError::Failed(fault) => write!(f, "{fault}"),
            StartError::TimedOut(deadline) => write!(f, "not started within {deadline:?}"),
            StartError::Interrupted => f.write_str("stopped before it was started"),
            StartError::Child { id, error } => write!(f, "child {id}: {error}"),
            StartError::Spec(error) => write!(f, "{error}"),
        }
    }
}

impl Error for StartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            StartError::StartFunction(fault) | StartError::Failed(fault) => Some(fault),
            StartError::Child { error, .. } => Some(error.as_ref()),
            StartError::Spec(error) => Some(error),
            StartError::Ended(exit) => exit.fault().map(|fault| fault as &(dyn Error + 'static)),
            StartError::TimedOut(_) | StartError::Interrupted => None,
        }
    }
}

/// Checks a list of children without starting anything, as OTP's `check_childspecs`. Without a setting of
/// [`AutoShutdown`] significant children are accepted.
///
/// # Errors
///
/// The first thing that is wrong.
///
/// ```
/// use backplane_supervisor::{AutoShutdown, ChildSpec, SpecError, check_child_specs};
/// # let spec = ChildSpec::new("a", |device| device.manage(std::future::pending::<Result<(), ()>>()));
/// assert_eq!(check_child_specs([&spec, &spec], None), Err(SpecError::DuplicateId("a".into())));
/// ```
pub fn check_child_specs<'a>(
    specs: impl IntoIterator<Item = &'a ChildSpec>,
    auto_shutdown: Option<AutoShutdown>,
) -> Result<(), SpecError> {
    let mut seen = std::collections::HashSet::new();
    for spec in specs {
        spec.check(auto_shutdown.unwrap_or(AutoShutdown::AnySignificant))?;
        if !seen.insert(&*spec.id) {
            return Err(SpecError::DuplicateId(Arc::clone(&spec.id)));
        }
    }
    Ok(())
}
