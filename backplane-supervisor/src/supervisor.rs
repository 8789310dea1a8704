//! Does what the tree says: messages in, actions out.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{self, Poll, Waker, ready};
use std::time::{Duration, Instant};

use backplane::{Device, DeviceId, Exit, Fault, FaultKind, Line, LinkMode, Message, Runtime, catch};

use crate::engine::{Engine, Of, Sleep, Task, quietly};
use crate::handle::{
    ChildRef, Counts, DeleteChildError, KillChildError, Killed, RestartChildError, Row, RowState,
    StartChildError, Stopped, SupervisorHandle, TerminateChildError,
};
use crate::order::Key;
use crate::reply::Reply;
use crate::report::{Event, Listener, Listeners, Report};
use crate::ring::Ring;
use crate::shared::{Body, Call, Command, Kind, Shared, StartRefusal, Target, TreeOf};
use crate::spec::{
    ChildId, ChildInfo, ChildKind, ChildSpec, Common, Facts, Init, Job, Listing, Shutdown, SpecError,
    StartError, What, check_child_specs,
};
use crate::starting::{Birth, Cradle, House, Pulse, Said, Starting};
use crate::tree::{
    Action, AutoShutdown, Child, Context, End, Ending, Intensity, Members, Named, Pace, Refusal, Restart,
    RestartStrategy, State, Taken, Tree, after,
};

/// What becomes of the children of a supervisor whose own task is dropped.
///
/// ```
/// use backplane::{Device, FaultKind, LinkMode, Message};
/// use backplane_supervisor::{ChildSpec, Orphans, Restart, RestartStrategy, Supervisor, SupervisorHandle};
/// # use std::sync::{Arc, OnceLock};
/// # #[cfg(feature = "smol")] {
/// use backplane::runtime::Smol;
/// # smol::block_on(async {
/// # let clock = backplane_supervisor::ChildSpec::new("clock", |device| {
/// #     device.manage(std::future::pending::<Result<(), ()>>())
/// # });
/// # let place = Arc::new(OnceLock::<SupervisorHandle>::new());
/// # let greeted = Arc::clone(&place);
///
/// let inner = ChildSpec::supervisor("inner", move || {
/// #   let greeted = Arc::clone(&greeted);
///     Supervisor::new(RestartStrategy::OneForOne)
///         .child(clock.clone())
///         .orphans(Orphans::Told) // as it is unless said otherwise
/// #       .greet(move |handle| drop(greeted.set(handle.clone())))
/// });
/// let tree = Supervisor::new(RestartStrategy::OneForOne).child(inner.restart(Restart::Temporary));
/// let handle = tree.start(Smol::global()).await?;
/// # let inner = place.get().unwrap();
/// # let clock = inner.which_children().await?[0].child().unwrap().line();
/// let mut watcher = Device::new();
/// watcher.link(&clock, LinkMode::Monitor);
/// handle.kill_child("inner").await?; // the clock's supervisor
/// let Message::Disconnect(news) = watcher.receive().await else { panic!() };
/// let fault = news.exit.fault().expect("it was no clean end");
/// assert_eq!(fault.kind(), FaultKind::Cascade(inner.line().id()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Orphans {
    /// They hear of it by their links, as in OTP: futures under `manage` end at once, supervisors end their own children in
    /// order, and who has the news handed over decides for itself.
    #[default]
    Told,
    /// Their tasks are dropped with it.
    Dropped,
}

/// A tree of children that are listed beforehand.
///
/// ```
/// use backplane_supervisor::{ChildSpec, Intensity, RestartStrategy, Supervisor};
/// use std::time::Duration;
/// # let listener = ChildSpec::new("listener", |device| device.manage(std::future::pending::<Result<(), ()>>()));
/// # let logger = ChildSpec::new("logger", |device| device.manage(std::future::pending::<Result<(), ()>>()));
///
/// let tree = Supervisor::new(RestartStrategy::RestForOne)
///     .intensity(Intensity { restarts: 3, period: Duration::from_secs(5) })
///     .child(logger)
///     .child(listener);
/// assert_eq!(tree.check(), Ok(()));
/// ```
#[derive(Clone)]
pub struct Supervisor {
    pub(crate) strategy: RestartStrategy,
    pub(crate) auto_shutdown: AutoShutdown,
    children: Vec<ChildSpec>,
    pub(crate) common: Settings,
    pub(crate) greet: Option<Greet<SupervisorHandle>>,
}

/// What is called with the handle of each incarnation.
pub(crate) type Greet<H> = Arc<dyn Fn(&H) + Send + Sync>;

/// What supervisors of both kinds can be told.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) intensity: Intensity,
    pub(crate) grace: Duration,
    pub(crate) interruptible: bool,
    pub(crate) orphans: Orphans,
    pub(crate) name: Option<Arc<str>>,
    pub(crate) listeners: Vec<Listener>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            intensity: Intensity::DEFAULT,
            grace: Duration::from_secs(5),
            interruptible: false,
            orphans: Orphans::Told,
            name: None,
            listeners: Vec::new(),
        }
    }
}

/// The settings that both kinds of supervisors share.
macro_rules! settings {
    () => {
        /// How many restarts are too many: more than one in five seconds, unless said otherwise.
        ///
        /// ```
        /// use backplane_supervisor::{ChildSpec, Event, Intensity, RestartStrategy, Supervisor};
        /// # use std::sync::{Arc, atomic::{AtomicU32, Ordering}};
        /// # use std::time::Duration;
        /// # #[cfg(feature = "smol")] {
        /// use backplane::runtime::Smol;
        /// # let runs = Arc::new(AtomicU32::new(0));
        /// # let counted = Arc::clone(&runs);
        /// # smol::block_on(async {
        ///
        /// let broken = ChildSpec::new("broken", move |device| {
        ///     counted.fetch_add(1, Ordering::Relaxed);
        ///     device.manage(async { Err::<(), _>("no disk") })
        /// });
        /// let tree = Supervisor::new(RestartStrategy::OneForOne)
        ///     .intensity(Intensity { restarts: 3, period: Duration::from_secs(60) })
        ///     .child(broken);
        /// let handle = tree.start(Smol::global()).await?;
        /// let mut reports = handle.reports(100);
        /// while reports.next().await.is_some() {}
        /// assert_eq!(runs.load(Ordering::Relaxed), 4); // once, and three times again
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// # }).unwrap();
        /// # }
        /// ```
        #[must_use]
        pub fn intensity(mut self, intensity: Intensity) -> Self {
            self.common.intensity = intensity;
            self
        }

        /// What it is called in paths, where it is the root: `root`, unless said otherwise.
        ///
        /// ```
        /// use backplane::Exit;
        /// use backplane_supervisor::{RestartStrategy, Supervisor};
        /// # #[cfg(feature = "smol")] {
        /// use backplane::runtime::Smol;
        /// # smol::block_on(async {
        ///
        /// let shop = Supervisor::new(RestartStrategy::OneForOne).name("shop");
        /// let handle = shop.start(Smol::global()).await?;
        /// let mut reports = handle.reports(100);
        /// handle.stop(Exit::Shutdown).await?;
        /// assert_eq!(reports.next().await.unwrap().to_string(), "shop finished: shutdown");
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// # }).unwrap();
        /// # }
        /// ```
        #[must_use]
        pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
            self.common.name = Some(name.into());
            self
        }

        /// How long a child may take to be gone once its task has been dropped. After that it is reported as stuck: it
        /// never yields, and nothing can end it. Five seconds, unless said otherwise.
        ///
        /// A supervisor that is stopping goes on without it, and its end says so. One that is restarting waits on, for no
        /// two incarnations of a child ever overlap; but it obeys a stop.
        ///
        /// ```
        /// use backplane::Exit;
        /// use backplane_supervisor::{ChildSpec, RestartStrategy, Shutdown, Supervisor};
        /// # use std::sync::{Arc, Mutex};
        /// use std::time::Duration;
        /// # #[cfg(feature = "smol")] {
        /// use backplane::runtime::Smol;
        /// # smol::block_on(async {
        /// # let elsewhere = Arc::new(Mutex::new(Vec::new()));
        /// # let place = Arc::clone(&elsewhere);
        ///
        /// // Its device is not with its future, so no drop of that can end it.
        /// let stuck = ChildSpec::new("stuck", move |device| {
        ///     place.lock().unwrap().push(device);
        ///     std::future::pending::<()>()
        /// });
        /// let tree = Supervisor::new(RestartStrategy::OneForOne)
        ///     .kill_grace(Duration::from_millis(1))
        ///     .child(stuck.shutdown(Shutdown::BrutalKill));
        /// let stopped = tree.start(Smol::global()).await?.stop(Exit::Shutdown).await?;
        /// assert!(stopped.killed[0].stuck);
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// # }).unwrap();
        /// # }
        /// ```
        #[must_use]
        pub fn kill_grace(mut self, grace: Duration) -> Self {
            self.common.grace = grace;
            self
        }

        /// A stop that comes during a start attempt ends the attempt, instead of waiting for it as in OTP.
        ///
        /// ```
        /// use backplane::Exit;
        /// use backplane_supervisor::{
        ///     ChildSpec, RestartStrategy, StartChildError, StartError, Starting, Supervisor,
        /// };
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
        /// let tree = Supervisor::new(RestartStrategy::OneForOne).interruptible_starts();
        /// let handle = tree.start(Smol::global()).await?;
        /// let started = handle.start_child(slow);
        /// handle.stop(Exit::Shutdown).await?;
        /// assert_eq!(started.await, Err(StartChildError::Failed(StartError::Interrupted)));
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// # }).unwrap();
        /// # }
        /// ```
        #[must_use]
        pub fn interruptible_starts(mut self) -> Self {
            self.common.interruptible = true;
            self
        }

        /// What becomes of its children if its own task is dropped: they are told, unless said otherwise.
        ///
        /// ```
        /// use backplane::{Device, FaultKind, LinkMode, Message};
        /// use backplane_supervisor::{ChildSpec, Orphans, Restart, RestartStrategy, Supervisor, SupervisorHandle};
        /// # use std::sync::{Arc, OnceLock};
        /// # #[cfg(feature = "smol")] {
        /// use backplane::runtime::Smol;
        /// # smol::block_on(async {
        /// # let clock = backplane_supervisor::ChildSpec::new("clock", |device| {
        /// #     device.manage(std::future::pending::<Result<(), ()>>())
        /// # });
        /// # let place = Arc::new(OnceLock::<SupervisorHandle>::new());
        /// # let greeted = Arc::clone(&place);
        ///
        /// let inner = ChildSpec::supervisor("inner", move || {
        /// #   let greeted = Arc::clone(&greeted);
        ///     let tree = Supervisor::new(RestartStrategy::OneForOne).orphans(Orphans::Dropped);
        /// #   let tree = tree.greet(move |handle| drop(greeted.set(handle.clone())));
        ///     tree.child(clock.clone())
        /// });
        /// let tree = Supervisor::new(RestartStrategy::OneForOne).child(inner.restart(Restart::Temporary));
        /// let handle = tree.start(Smol::global()).await?;
        /// # let inner = place.get().unwrap();
        /// # let clock = inner.which_children().await?[0].child().unwrap().line();
        /// let mut watcher = Device::new();
        /// watcher.link(&clock, LinkMode::Monitor);
        /// handle.kill_child("inner").await?; // the clock's supervisor
        /// let Message::Disconnect(news) = watcher.receive().await else { panic!() };
        /// assert_eq!(news.exit.fault().map(|fault| fault.kind()), Some(FaultKind::Killed));
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// # }).unwrap();
        /// # }
        /// ```
        #[must_use]
        pub fn orphans(mut self, orphans: Orphans) -> Self {
            self.common.orphans = orphans;
            self
        }

        /// Calls `hook` with every report of this supervisor and all below it, in order, while it happens. Keep it short:
        /// the supervisor waits for it. A panic in it is nobody's.
        ///
        /// ```
        /// use backplane::Exit;
        /// use backplane_supervisor::{RestartStrategy, Supervisor};
        /// use std::sync::{Arc, Mutex};
        /// # #[cfg(feature = "smol")] {
        /// use backplane::runtime::Smol;
        /// # smol::block_on(async {
        /// # let clock = backplane_supervisor::ChildSpec::new("clock", |device| {
        /// #     device.manage(std::future::pending::<Result<(), ()>>())
        /// # });
        ///
        /// let heard = Arc::new(Mutex::new(Vec::new()));
        /// let log = Arc::clone(&heard);
        /// let tree = Supervisor::new(RestartStrategy::OneForOne)
        ///     .listen(move |report| log.lock().unwrap().push(report.to_string()))
        ///     .child(clock);
        /// tree.start(Smol::global()).await?.stop(Exit::Shutdown).await?;
        /// assert_eq!(
        ///     *heard.lock().unwrap(),
        ///     ["root/clock started", "root/clock stopped: shutdown", "root finished: shutdown"],
        /// );
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// # }).unwrap();
        /// # }
        /// ```
        #[must_use]
        pub fn listen(mut self, hook: impl Fn(&Report) + Send + Sync + 'static) -> Self {
            self.common.listeners.push(Arc::new(hook));
            self
        }
    };
}
pub(crate) use settings;

impl Supervisor {
    /// A supervisor without children.
    ///
    /// ```
    /// use backplane_supervisor::{RestartStrategy, Supervisor};
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// # smol::block_on(async {
    ///
    /// // Nobody to supervise yet is no error.
    /// let handle = Supervisor::new(RestartStrategy::OneForOne).start(Smol::global()).await?;
    /// assert_eq!(handle.count_children().await?.specs, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    pub fn new(strategy: RestartStrategy) -> Supervisor {
        Supervisor {
            strategy,
            auto_shutdown: AutoShutdown::Never,
            children: Vec::new(),
            common: Settings::default(),
            greet: None,
        }
    }

    settings!();

    /// Adds a child behind the others.
    ///
    /// ```
    /// use backplane_supervisor::{ChildSpec, RestartStrategy, Supervisor};
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// # smol::block_on(async {
    /// # let clock = backplane_supervisor::ChildSpec::new("clock", |device| {
    /// #     device.manage(std::future::pending::<Result<(), ()>>())
    /// # });
    ///
    /// let logger = ChildSpec::new("logger", |device| device.manage(std::future::pending::<Result<(), ()>>()));
    /// let tree = Supervisor::new(RestartStrategy::RestForOne).child(logger).child(clock);
    /// let snapshot = tree.start(Smol::global()).await?.snapshot()?;
    /// assert_eq!(snapshot.children[0].id.as_deref(), Some("logger")); // started first
    /// assert_eq!(snapshot.children[1].id.as_deref(), Some("clock"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    #[must_use]
    pub fn child(mut self, child: ChildSpec) -> Supervisor {
        self.children.push(child);
        self
    }

    /// Adds children behind the others.
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
    /// let tree = Supervisor::new(RestartStrategy::OneForOne).children(clock.replicas(3));
    /// assert_eq!(tree.start(Smol::global()).await?.count_children().await?.active, 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    #[must_use]
    pub fn children(mut self, children: impl IntoIterator<Item = ChildSpec>) -> Supervisor {
        self.children.extend(children);
        self
    }

    /// Whether it stops by itself when significant children have ended: never, unless said otherwise.
    ///
    /// ```
    /// use backplane::{Device, Exit, LinkMode, Message};
    /// use backplane_supervisor::{AutoShutdown, Restart, RestartStrategy, Supervisor};
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// # smol::block_on(async {
    /// # let clock = backplane_supervisor::ChildSpec::new("clock", |device| {
    /// #     device.manage(std::future::pending::<Result<(), ()>>())
    /// # });
    ///
    /// let significant = clock.restart(Restart::Temporary).significant();
    /// let tree = Supervisor::new(RestartStrategy::OneForOne)
    ///     .auto_shutdown(AutoShutdown::AllSignificant)
    ///     .children(significant.replicas(2));
    /// let handle = tree.start(Smol::global()).await?;
    /// let mut watcher = Device::new();
    /// watcher.link(&handle.line(), LinkMode::Monitor);
    /// handle.kill_child("clock-1").await?;
    /// handle.kill_child("clock-2").await?;
    /// let Message::Disconnect(news) = watcher.receive().await else { panic!() };
    /// assert_eq!(news.exit, Exit::Shutdown);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    #[must_use]
    pub fn auto_shutdown(mut self, auto_shutdown: AutoShutdown) -> Supervisor {
        self.auto_shutdown = auto_shutdown;
        self
    }

    /// Calls `greet` with the handle of each incarnation, before its first child is started.
    ///
    /// ```
    /// use backplane_supervisor::{ChildSpec, RestartStrategy, Supervisor, SupervisorHandle};
    /// use std::sync::{Arc, OnceLock};
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// # smol::block_on(async {
    /// # let clock = backplane_supervisor::ChildSpec::new("clock", |device| {
    /// #     device.manage(std::future::pending::<Result<(), ()>>())
    /// # });
    ///
    /// // The handle of a supervisor that somebody else starts.
    /// let place = Arc::new(OnceLock::<SupervisorHandle>::new());
    /// let greeted = Arc::clone(&place);
    /// let inner = ChildSpec::supervisor("inner", move || {
    ///     let place = Arc::clone(&greeted);
    ///     Supervisor::new(RestartStrategy::OneForOne).greet(move |handle| drop(place.set(handle.clone())))
    /// });
    /// let tree = Supervisor::new(RestartStrategy::OneForOne).child(inner);
    /// tree.start(Smol::global()).await?;
    /// let inner = place.get().expect("it has been greeted");
    /// assert_eq!(inner.path(), "root/inner");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    #[must_use]
    pub fn greet(mut self, greet: impl Fn(&SupervisorHandle) + Send + Sync + 'static) -> Supervisor {
        self.greet = Some(Arc::new(greet));
        self
    }

    /// Checks the list of children without starting anything. Starting does the same first.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong with it.
    ///
    /// ```
    /// use backplane_supervisor::{ChildSpec, RestartStrategy, SpecError, Supervisor};
    ///
    /// let clock = ChildSpec::new("clock", |device| device.manage(async { Ok::<(), ()>(()) }));
    /// let tree = Supervisor::new(RestartStrategy::OneForOne).child(clock.clone());
    /// assert_eq!(tree.check(), Ok(()));
    /// assert_eq!(tree.child(clock).check(), Err(SpecError::DuplicateId("clock".into())));
    /// ```
    pub fn check(&self) -> Result<(), SpecError> {
        check_child_specs(&self.children, Some(self.auto_shutdown))
    }

    /// Starts the tree as a root: resolves when all initial children are started. Anybody who has its line may ask it to
    /// stop.
    ///
    /// Dropping what is returned before it resolves drops the tree; afterwards the tree runs until it ends.
    ///
    /// # Errors
    ///
    /// If the list is wrong or a child could not be started; those that were started have been ended again.
    ///
    /// ```
    /// use backplane_supervisor::{ChildSpec, Init, RestartStrategy, StartError, Supervisor};
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// # smol::block_on(async {
    /// # let clock = backplane_supervisor::ChildSpec::new("clock", |device| {
    /// #     device.manage(std::future::pending::<Result<(), ()>>())
    /// # });
    ///
    /// let tree = Supervisor::new(RestartStrategy::OneForOne).child(clock);
    /// let handle = tree.clone().start(Smol::global()).await?;
    /// assert!(handle.line().is_alive());
    ///
    /// let broken = ChildSpec::supervisor("broken", || Init::fail("no disk"));
    /// let Err(error) = tree.child(broken).start(Smol::global()).await else { panic!() };
    /// assert!(matches!(&error, StartError::Child { id, .. } if **id == *"broken"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    pub fn start<R: Runtime>(
        self,
        runtime: R,
    ) -> impl Future<Output = Result<SupervisorHandle, StartError>> + Send + use<R> {
        begin(Arc::new(Of(runtime)), None, self)
    }

    /// Starts the tree as a child of `parent`, as OTP's start_link: they are linked, and only the parent's shutdown
    /// requests are obeyed. When the parent ends, however, so does the tree, in order.
    ///
    /// # Errors
    ///
    /// As [`start`](Supervisor::start).
    ///
    /// ```
    /// use backplane::{Device, Exit, LinkMode, Message};
    /// use backplane_supervisor::{RestartStrategy, Supervisor};
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// # smol::block_on(async {
    /// # let clock = backplane_supervisor::ChildSpec::new("clock", |device| {
    /// #     device.manage(std::future::pending::<Result<(), ()>>())
    /// # });
    ///
    /// let parent = Device::new();
    /// let tree = Supervisor::new(RestartStrategy::OneForOne).child(clock);
    /// let handle = tree.start_linked(Smol::global(), &parent).await?;
    /// let mut watcher = Device::new();
    /// watcher.link(&handle.line(), LinkMode::Monitor);
    /// handle.line().shutdown(watcher.id()); // a stranger's request
    /// assert_eq!(handle.count_children().await?.active, 1); // it runs on
    /// parent.disconnect(Exit::Normal);
    /// let Message::Disconnect(news) = watcher.receive().await else { panic!() };
    /// assert_eq!(news.exit, Exit::Normal); // as its parent
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    pub fn start_linked<R: Runtime>(
        self,
        runtime: R,
        parent: &Device,
    ) -> impl Future<Output = Result<SupervisorHandle, StartError>> + Send + use<R> {
        begin(Arc::new(Of(runtime)), Some(parent.line()), self)
    }
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervisor")
            .field("strategy", &self.strategy)
            .field("intensity", &self.common.intensity)
            .field("auto_shutdown", &self.auto_shutdown)
            .field("children", &self.children)
            .finish_non_exhaustive()
    }
}

impl From<Supervisor> for Init {
    fn from(plan: Supervisor) -> Init {
        Init(What::Run(Box::new(move |cradle| -> Job { Box::pin(run(plan, cradle)) })))
    }
}

/// A supervisor that has not begun: what both kinds of plan come to.
pub(crate) trait Plan: Send + 'static {
    type Kind: Kind;
    type Handle: Send + 'static;

    fn settings(&self) -> &Settings;
    fn handle(shared: Arc<Shared<Self::Kind>>) -> Self::Handle;
    /// Whom to call with the handle.
    fn greeting(&self) -> Option<Greet<Self::Handle>>;
    /// The kind, and the tree with the initial children listed, if they can be supervised.
    fn open(self) -> Result<(Self::Kind, TreeOf<Self::Kind>), SpecError>;
}

/// The kind of supervisor whose children are listed.
pub(crate) struct Listed;

impl Kind for Listed {
    type Add = ChildSpec;
    type Seed = Listing;
    type Loan = Arc<Common>;
    type StartError = StartChildError;

    const MEMBERS: Members = Members::Listed;

    fn facts<'a>(&'a self, seed: &'a Listing) -> Option<&'a Facts> {
        seed.common.as_ref().map(|common| &common.facts)
    }

    fn admit(
        &self,
        add: ChildSpec,
        _: usize,
        auto_shutdown: AutoShutdown,
    ) -> Result<Listing, StartChildError> {
        add.check(auto_shutdown).map_err(StartChildError::Refused)?;
        Ok(add.into())
    }

    fn refuse(refusal: StartRefusal) -> StartChildError {
        match refusal {
            StartRefusal::AlreadyStarted(line) => StartChildError::AlreadyStarted(line),
            StartRefusal::AlreadyPresent => StartChildError::AlreadyPresent,
            StartRefusal::Failed(error) => StartChildError::Failed(error),
        }
    }

    fn lend(seed: &mut Option<Listing>) -> Option<Arc<Common>> {
        seed.as_mut()?.common.take()
    }

    fn give_back(seed: &mut Option<Listing>, loan: Arc<Common>) -> Option<Arc<Common>> {
        match seed {
            Some(seed) => seed.common.replace(loan),
            None => Some(loan),
        }
    }

    fn job(&self, loan: &Arc<Common>, birth: Birth<'_, Listed>) -> Job {
        (loan.recipe)(birth)
    }

    fn set_max(&mut self, _: Option<usize>) {}

    fn info(&self, id: &ChildId, find: &dyn Fn(&str) -> Option<ChildInfo>) -> Option<ChildInfo> {
        find(id)
    }
}

impl Plan for Supervisor {
    type Kind = Listed;
    type Handle = SupervisorHandle;

    fn settings(&self) -> &Settings {
        &self.common
    }

    fn handle(shared: Arc<Shared<Listed>>) -> SupervisorHandle {
        SupervisorHandle { shared }
    }

    fn greeting(&self) -> Option<Greet<SupervisorHandle>> {
        self.greet.clone()
    }

    fn open(self) -> Result<(Listed, TreeOf<Listed>), SpecError> {
        let mut tree = Tree::new(Members::Listed, self.strategy, self.common.intensity, self.auto_shutdown);
        tree.reserve(self.children.len());
        for spec in self.children {
            spec.check(self.auto_shutdown)?;
            let (child, pace) = child(&Listed, spec.into());
            let key = tree.list(child).map_err(|(child, _)| {
                SpecError::DuplicateId(Named::name(&child.body).cloned().unwrap_or_else(|| ChildId::from("")))
            })?;
            tree.set_pace(key, pace);
        }
        Ok((Listed, tree))
    }
}

/// A child that is not running yet, and what slows it down.
pub(crate) fn child<K: Kind>(kind: &K, seed: K::Seed) -> (Child<Body<K::Seed>>, Option<Pace>) {
    let Some(facts) = kind.facts(&seed) else {
        return (Child::new(Restart::Temporary, Body::new(seed)), None);
    };
    let pace = Pace::new(facts.backoff, facts.budget, || seed_salt(&seed));
    let (restart, significant, is) = (facts.restart, facts.significant, facts.kind);
    let brutal = facts.shutdown() == Shutdown::BrutalKill;
    let child = Child::new(restart, Body::new(seed)).significant(significant).brutal(brutal);
    (child.supervisor(is == ChildKind::Supervisor), pace)
}

/// Makes replicas draw different jitter from one seed: a hash of the name (FNV).
fn seed_salt(seed: &impl Named) -> u64 {
    let name = seed.name().map_or("", |name| &**name);
    name.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

// ---- roots -----------------------------------------------------------------------------------------------------------

/// What stands in for a supervisor above a root.
struct Outside {
    id: DeviceId,
    path: Arc<str>,
    engine: Arc<dyn Engine>,
    listeners: Listeners,
    said: Mutex<(Option<Said>, Option<Waker>)>,
}

impl House for Outside {
    fn id(&self) -> DeviceId {
        self.id
    }

    fn path(&self) -> &Arc<str> {
        &self.path
    }

    fn path_of(&self, _: Key) -> Arc<str> {
        Arc::clone(&self.path)
    }

    fn engine(&self) -> &Arc<dyn Engine> {
        &self.engine
    }

    fn listeners(&self) -> &Listeners {
        &self.listeners
    }

    fn say(&self, _: DeviceId, said: Said) {
        let mut state = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 = Some(said);
        let waker = state.1.take();
        drop(state);
        if let Some(waker) = waker {
            quietly(|| waker.wake());
        }
    }

    fn adopt(&self, _: Key, _: Weak<dyn House>) {}

    fn snapshot(&self) -> crate::snapshot::Snapshot {
        crate::snapshot::Snapshot { path: self.path.to_string(), device: self.id, children: Vec::new() }
    }

    fn note_killed(&self, _: Vec<Killed>) {}
}

/// Starts a root that runs until it ends.
pub(crate) fn begin<P: Plan>(
    engine: Arc<dyn Engine>,
    parent: Option<Line>,
    plan: P,
) -> impl Future<Output = Result<P::Handle, StartError>> + Send + use<P> {
    let starting = begin_owned(Arc::clone(&engine), parent, plan);
    async move {
        let (handle, task) = starting.await?;
        engine.detach(task);
        Ok(handle)
    }
}

/// Starts a root that runs until it ends or its task is dropped.
pub(crate) fn begin_owned<P: Plan>(
    engine: Arc<dyn Engine>,
    parent: Option<Line>,
    plan: P,
) -> impl Future<Output = Result<(P::Handle, Task), StartError>> + Send + use<P> {
    let device = Device::new();
    if let Some(parent) = parent {
        device.link(&parent, LinkMode::Peer);
    }
    async move {
        let outside = Arc::new(Outside {
            id: parent.map_or(device.id(), |parent| parent.id()),
            path: plan.settings().name.clone().unwrap_or_else(|| Arc::from("root")),
            engine: Arc::clone(&engine),
            listeners: Listeners::new(Vec::new(), None),
            said: Mutex::new((None, None)),
        });
        let starting = Starting::new(Arc::clone(&outside) as Arc<dyn House>, device.id());
        let path = Arc::clone(&outside.path);
        let running = Running::new(plan, device, starting, parent.map(|parent| parent.id()), path)?;
        let handle = P::handle(Arc::clone(&running.shared));
        let task = engine.spawn(Box::pin(running.live()));
        let said = poll_fn(|cx| {
            let waker = cx.waker().clone();
            let mut state = outside.said.lock().unwrap_or_else(PoisonError::into_inner);
            match state.0.take() {
                Some(said) => Poll::Ready(said),
                None => {
                    let before = state.1.replace(waker);
                    drop(state);
                    drop(before);
                    Poll::Pending
                }
            }
        })
        .await;
        match said {
            Said::Started => Ok((handle, task)),
            Said::Failed(error) => {
                // It has ended its children, and is about to end.
                engine.detach(task);
                Err(*error)
            }
            Said::Ignored | Said::Nothing => Err(StartError::Ended(Exit::Fault(Fault::killed()))),
        }
    }
}

/// The job of a supervisor that is a child.
pub(crate) async fn run<P: Plan>(plan: P, cradle: Cradle) {
    let Cradle { device, starting, house, key } = cradle;
    let path = house.path_of(key);
    if let Ok(running) = Running::new(plan, device, starting, Some(house.id()), path) {
        let below: Arc<dyn House> = Arc::clone(&running.shared) as Arc<dyn House>;
        house.adopt(key, Arc::downgrade(&below));
        drop((below, house));
        running.live().await;
    }
}

// ---- running ---------------------------------------------------------------------------------------------------------

/// A supervisor that runs.
pub(crate) struct Running<K: Kind> {
    pub(crate) shared: Arc<Shared<K>>,
    above: Arc<dyn House>,
    kind: K,
    settings: Settings,
    parent: Option<DeviceId>,
    starting: Option<Starting>,
    /// What has come and waits for its turn, in order.
    mail: VecDeque<Mail<K>>,
    timers: BinaryHeap<Reverse<Timer>>,
    timers_set: u64,
    /// When there are so many, those that mean nothing any more go.
    timers_most: usize,
    sleep: Option<(Instant, Sleep)>,
    /// When what it deals with happened, or a little later.
    clock: Instant,
    /// How it ends if it is asked to.
    exit: Exit,
    /// Who waits for the end.
    stoppers: Vec<Reply<Stopped>>,
    /// A stop that has broken in on what was being done.
    broken: bool,
    /// It does what somebody has called for.
    called: bool,
    killed: Vec<Killed>,
    /// Why the last start attempt failed.
    start_error: Option<StartError>,
    /// What the last start attempt has started.
    started: Option<ChildRef>,
    /// How the child that the tree has been told of last ended.
    end: Exit,
    /// The start attempt that goes on while there is nothing to do. Whoever has something to do waits for it first.
    quiet: Option<Attempt>,
    /// The one that is to be waited for.
    awaited: Option<Attempt>,
    device: Option<Device>,
    /// What of a start attempt is the list's, and not in it yet.
    fresh: Option<Fresh<K>>,
    /// By which a child's first poll is heard.
    ring: Arc<Ring>,
    /// Nobody else knows of it: what is asked in its name is what a child's first poll says where the ring is none.
    first_poll: Device,
    /// How much has come since it last waited.
    dealt_with: u32,
}

/// So much is dealt with before others get their turn: where each start attempt fails at once, there is always more.
const TURN: u32 = 256;

/// What a child's body is to have of the attempt that was begun last: put there where the list is opened anyway.
struct Fresh<K: Kind> {
    key: Key,
    task: Option<Task>,
    loan: K::Loan,
}

/// A start attempt as far as it is begun under the lock.
struct Beginning<K: Kind> {
    key: Key,
    line: Line,
    loan: K::Loan,
    within: Option<Duration>,
    progress: Option<Duration>,
    quiet: bool,
}

/// What is to be done next.
enum Next {
    Nothing,
    Do(Action),
    /// The start attempt that was to be made has been begun.
    Begun(Key, Begun),
}

impl From<Option<Action>> for Next {
    fn from(action: Option<Action>) -> Next {
        action.map_or(Next::Nothing, Next::Do)
    }
}

enum Mail<K: Kind> {
    /// With whether it was one that runs: who could not be killed, and has been given up, may end at last.
    Ended(Key, DeviceId, bool),
    /// The child whose start attempt is being made is polled for the first time.
    Polled,
    Stop(Exit),
    Command(Command<K>),
}

struct Timer {
    at: Instant,
    number: u64,
    what: Alarm,
}

enum Alarm {
    Retry(Key),
    Health { key: Key, device: DeviceId, pulse: Pulse, every: Duration },
}

impl PartialEq for Timer {
    fn eq(&self, other: &Timer) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Timer {}

impl PartialOrd for Timer {
    fn partial_cmp(&self, other: &Timer) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timer {
    fn cmp(&self, other: &Timer) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

fn end_of(exit: &Exit) -> End {
    match exit {
        Exit::Normal => End::Normal,
        Exit::Shutdown => End::Shutdown,
        Exit::Fault(fault) if fault.kind() == FaultKind::Killed => End::Killed,
        Exit::Fault(_) => End::Fault,
    }
}

impl<K: Kind> Running<K> {
    fn new<P: Plan<Kind = K>>(
        plan: P,
        mut device: Device,
        starting: Starting,
        parent: Option<DeviceId>,
        path: Arc<str>,
    ) -> Result<Running<K>, StartError> {
        let Some(above) = starting.house().cloned() else { return Err(StartError::Interrupted) };
        let (settings, greeting) = (plan.settings().clone(), plan.greeting());
        let (kind, tree) = match plan.open() {
            Ok(opened) => opened,
            Err(error) => {
                let error = StartError::Spec(error);
                starting.fail_with(error.clone());
                device.disconnect(Exit::Shutdown);
                return Err(error);
            }
        };
        device.reserve(tree.tally().listed);
        let listeners = Listeners::new(settings.listeners.clone(), Some(above.listeners()));
        let engine = Arc::clone(above.engine());
        let first_poll = Device::new();
        let ring = Ring::new(Waker::noop().clone(), device.line(), first_poll.id(), listeners.clone());
        let shared = Shared::new(device.line(), path, engine, listeners, tree);
        if let Some(greeting) = greeting {
            let handle = P::handle(Arc::clone(&shared));
            quietly(|| greeting(&handle));
        }
        let clock = shared.born;
        Ok(Running {
            shared,
            above,
            kind,
            settings,
            parent,
            starting: Some(starting),
            mail: VecDeque::new(),
            timers: BinaryHeap::new(),
            timers_set: 0,
            timers_most: 64,
            sleep: None,
            clock,
            exit: Exit::Shutdown,
            stoppers: Vec::new(),
            broken: false,
            called: false,
            killed: Vec::new(),
            start_error: None,
            started: None,
            end: Exit::Normal,
            quiet: None,
            awaited: None,
            device: Some(device),
            fresh: None,
            ring,
            first_poll,
            dealt_with: 0,
        })
    }

    fn now(&self) -> Instant {
        self.shared.engine().now_inside()
    }

    /// From the initial start to the end.
    async fn live(mut self) {
        let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
        let (line, listeners) = (self.shared.line, self.shared.listeners().clone());
        self.use_ring(Ring::new(waker, line, self.first_poll.id(), listeners));
        let boot = self.think(Tree::boot);
        let mut exit = self.drive(boot.into()).await;
        while exit.is_none() {
            let mut turn = self.next_mail().await;
            if let Turn::Next(next) = turn {
                exit = self.drive(next).await;
                continue;
            }
            self.place();
            if let Some(attempt) = self.quiet.take()
                && self.shared.tree().be_loud()
            {
                self.ring.be_awaited();
                // Had it been waited for from the beginning, this mail would have come to who waits.
                let key = attempt.key;
                let (mail, alarm) = match turn {
                    Turn::Mail(mail) => (Some(mail), None),
                    Turn::Alarm(alarm) => (None, Some(alarm)),
                    Turn::Next(_) => (None, None),
                };
                let outcome = self.hear(attempt, mail).await;
                let next = self.conclude(key, outcome);
                exit = self.drive(next).await;
                match alarm {
                    Some(alarm) if exit.is_none() => turn = Turn::Alarm(alarm),
                    _ => continue,
                }
            }
            exit = match turn {
                Turn::Mail(Mail::Ended(key, device, _)) => {
                    let next = self.ended(key, device, None).unwrap_or(Next::Nothing);
                    self.drive(next).await
                }
                Turn::Next(_) => None,
                Turn::Mail(Mail::Stop(exit)) => self.stop(exit).await,
                Turn::Mail(Mail::Polled | Mail::Command(Command::Said(..))) => None,
                Turn::Mail(Mail::Command(Command::Retry(key))) | Turn::Alarm(Alarm::Retry(key)) => {
                    // Not before the moment that it was to be, whatever the clock shows by now.
                    let now = self.now().max(self.clock);
                    self.clock = now;
                    let action = self.think(|tree| tree.retry(now, key));
                    self.drive(action.into()).await
                }
                Turn::Mail(Mail::Command(Command::Call(call))) => {
                    self.called = true;
                    let exit = self.answer(call).await;
                    self.called = false;
                    exit
                }
                Turn::Alarm(Alarm::Health { key, device, pulse, every }) => {
                    self.look_at(key, device, pulse, every);
                    None
                }
            };
        }
        self.depart(exit.unwrap_or(Exit::Shutdown)).await;
    }

    /// The end: nothing is left, and then everybody hears.
    async fn depart(mut self, exit: Exit) {
        self.tell(None, None, 0, || Event::Finished(exit.clone()));
        let left = self.unanswered();
        let empty =
            Tree::new(K::MEMBERS, RestartStrategy::OneForOne, Intensity::DEFAULT, AutoShutdown::Never);
        let tree = std::mem::replace(&mut *self.shared.tree(), empty);
        quietly(|| drop(tree));
        let killed = std::mem::take(&mut self.killed);
        if !killed.is_empty() {
            self.above.note_killed(killed.clone());
        }
        // A start that failed has been said before; one that has succeeded too.
        let mut stoppers = std::mem::take(&mut self.stoppers);
        let (device, shared) = (self.device.take(), Arc::clone(&self.shared));
        drop(self);
        if let Some(device) = device {
            device.depart(exit.clone()).await;
        }
        shared.listeners().close();
        drop(shared);
        for call in left {
            match call {
                // What it asks for is done.
                Call::Stop(_, reply) => stoppers.push(reply),
                call => call.refuse(&exit),
            }
        }
        for stopper in stoppers {
            stopper.send(Stopped { exit: exit.clone(), killed: killed.clone() });
        }
    }

    /// The calls that will not be answered any more; from here on there are no others.
    fn unanswered(&mut self) -> Vec<Call<K>> {
        let came = std::mem::take(&mut self.mail).into_iter().filter_map(|mail| match mail {
            Mail::Command(command) => Some(command),
            Mail::Ended(..) | Mail::Polled | Mail::Stop(_) => None,
        });
        came.chain(self.shared.close())
            .filter_map(|command| match command {
                Command::Call(call) => Some(call),
                Command::Said(..) | Command::Retry(_) => None,
            })
            .collect()
    }

    async fn stop(&mut self, exit: Exit) -> Option<Exit> {
        self.exit = exit;
        let action = self.think(Tree::shut_down);
        self.drive(action.into()).await
    }

    // ---- mail ----------------------------------------------------------------------------------------------------

    /// What there is to do next.
    fn next_mail(&mut self) -> impl Future<Output = Turn<K>> {
        poll_fn(|cx| {
            loop {
                if self.dealt_with == TURN {
                    self.dealt_with = 0;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                self.dealt_with += 1;
                if let Some(Reverse(timer)) = self.timers.peek()
                    && timer.at <= self.now()
                    && let Some(Reverse(timer)) = self.timers.pop()
                {
                    self.clock = timer.at;
                    return Poll::Ready(Turn::Alarm(timer.what));
                }
                if let Some(mail) = self.mail.pop_front() {
                    return Poll::Ready(Turn::Mail(mail));
                }
                // What comes most, on the shortest way.
                if let Some(device) = &mut self.device
                    && let Poll::Ready(message) = device.poll_receive(cx)
                {
                    match message {
                        // Dealt with where it is: each copy of what has just come waits for it.
                        Message::Disconnect(news) if Some(news.device) != self.parent => {
                            match self.ended(Key::from_bits(news.tag), news.device, Some(news.exit)) {
                                Ok(Next::Nothing | Next::Begun(_, Begun::Quiet)) => continue,
                                Ok(next) => return Poll::Ready(Turn::Next(next)),
                                Err(mail) => return Poll::Ready(Turn::Mail(mail)),
                            }
                        }
                        message => match self.sort(message) {
                            Some(mail) => return Poll::Ready(Turn::Mail(mail)),
                            None => continue,
                        },
                    }
                }
                let until = self.timers.peek().map(|Reverse(timer)| timer.at);
                if self.poll_time(cx, until).is_pending() {
                    self.dealt_with = 0;
                    return Poll::Pending;
                }
            }
        })
    }

    /// What comes next, or nothing when it is `until`. What is there already comes first, however late it is.
    fn receive(&mut self, until: Option<Instant>) -> impl Future<Output = Option<Mail<K>>> {
        poll_fn(move |cx| {
            loop {
                if let Some(mail) = ready!(self.poll_mail(cx, until)) {
                    return Poll::Ready(Some(mail));
                }
                if until.is_some_and(|until| self.now() >= until) {
                    return Poll::Ready(None);
                }
            }
        })
    }

    /// News, or nothing at about `until`; what is news to nobody comes to nothing, too.
    ///
    /// By hand, as the two above: a child's start and end pass through here, and each `async fn` on the way would be entered
    /// and left once more.
    fn poll_mail(&mut self, cx: &mut task::Context<'_>, until: Option<Instant>) -> Poll<Option<Mail<K>>> {
        if let Some(device) = &mut self.device
            && let Poll::Ready(message) = device.poll_receive(cx)
        {
            return Poll::Ready(self.sort(message));
        }
        self.poll_time(cx, until).map(|()| None)
    }

    /// Waits until about then.
    fn poll_time(&mut self, cx: &mut task::Context<'_>, until: Option<Instant>) -> Poll<()> {
        let Some(until) = until else {
            self.sleep = None;
            return Poll::Pending;
        };
        // A timer that is set for something earlier will do: whoever is woken too early looks at the clock.
        let timer = match &mut self.sleep {
            Some((at, timer)) if *at <= until => timer,
            sleep => &mut sleep.insert((until, self.shared.engine().sleep_until(until))).1,
        };
        ready!(timer.as_mut().poll(cx));
        self.sleep = None;
        Poll::Ready(())
    }

    fn sort(&mut self, message: Message) -> Option<Mail<K>> {
        match message {
            Message::Disconnect(news) if Some(news.device) == self.parent => Some(Mail::Stop(news.exit)),
            Message::Disconnect(news) => {
                let key = Key::from_bits(news.tag);
                let mut tree = self.shared.tree();
                let child = tree.get_mut(key)?;
                if child.body.line?.id() != news.device {
                    return None;
                }
                let runs = child.state == State::Running;
                let before = child.end(news.exit);
                drop(tree);
                drop(before);
                Some(Mail::Ended(key, news.device, runs))
            }
            Message::Shutdown(from) if from == self.first_poll.id() => Some(Mail::Polled),
            Message::Shutdown(from) if from == self.shared.line.id() => self.shared.pop().map(Mail::Command),
            Message::Shutdown(from) => {
                self.parent.is_none_or(|parent| parent == from).then_some(Mail::Stop(Exit::Shutdown))
            }
        }
    }

    /// The end of a child, if it has come and has not been handled yet.
    fn take_end(&mut self, key: Key) -> Option<Exit> {
        let (exit, task) = self.shared.tree().get_mut(key)?.take_end()?;
        // The task has ended; its handle is ours, what it drops may not be.
        quietly(|| drop(task));
        Some(exit)
    }

    // ---- telling -------------------------------------------------------------------------------------------------

    fn tell(
        &self,
        child: Option<ChildId>,
        device: Option<DeviceId>,
        incarnation: u32,
        event: impl FnOnce() -> Event,
    ) {
        let listeners = self.shared.listeners();
        if listeners.anybody() {
            listeners.tell(&Report {
                supervisor: Arc::clone(self.shared.path()),
                supervisor_device: self.shared.line.id(),
                child,
                device,
                incarnation,
                event: event(),
            });
        }
    }

    fn tell_of(&self, key: Key, event: impl FnOnce() -> Event) {
        if !self.shared.listeners().anybody() {
            return;
        }
        let tree = self.shared.tree();
        let (child, device, incarnation) = match tree.get(key) {
            Some(child) => {
                let body = &child.body;
                (Named::name(body).cloned(), body.line.map(|line| line.id()), child.incarnation())
            }
            None => (None, None, 0),
        };
        drop(tree);
        self.tell(child, device, incarnation, event);
    }

    // ---- doing what the tree says --------------------------------------------------------------------------------

    /// A child has ended by itself; what the tree says to that. Where it is `news`, the end is noted first; but if a start attempt
    /// is to be waited for, that is all, and it is mail for who waits.
    fn ended(&mut self, key: Key, device: DeviceId, news: Option<Exit>) -> Result<Next, Mail<K>> {
        let now = self.now();
        // Asked outside of the lock: a subscriber of `tracing` is the user's.
        let told = self.broken || self.shared.listeners().anybody();
        let fresh = self.fresh.take();
        let mut tree = self.shared.tree();
        let rest = place(&mut tree, fresh);
        let waits = news.is_some() && self.quiet.is_some() && tree.is_quiet();
        // A line that is known by now is that of a later incarnation, or its end has been handled.
        let is_current =
            |child: &&mut Child<Body<K::Seed>>| child.body.line.is_some_and(|line| line.id() == device);
        let Some(child) = tree.get_mut(key).filter(is_current) else {
            drop(tree);
            quietly(|| drop(rest));
            return Ok(Next::Nothing);
        };
        let was_supervisor = child.is_supervisor();
        let before = news.and_then(|exit| child.end(exit));
        if waits {
            drop(tree);
            quietly(|| drop((before, rest)));
            return Err(Mail::Ended(key, device, true));
        }
        let Some((exit, task)) = child.take_end() else {
            drop(tree);
            quietly(|| drop((before, rest)));
            return Ok(Next::Nothing);
        };
        let end = end_of(&exit);
        self.clock = now;
        if told {
            drop(tree);
            if was_supervisor {
                drop(self.shared.take_killed());
            }
            quietly(|| drop((task, rest)));
            self.tell_of(key, || Event::Ended { exit: exit.clone(), stopped: false });
            self.end = exit;
            return Ok(self.think(|tree| tree.ended(now, key, end)).into());
        }
        // Nobody is to be told in between: in one go.
        tree.ended_untold(now, key, end);
        let action = tree.next();
        let mut device = None;
        let beginning = self.begin_if(&mut tree, action.as_ref(), false, &mut device);
        drop(tree);
        if was_supervisor {
            // By itself, which is nobody's stop.
            drop(self.shared.take_killed());
        }
        drop(before);
        quietly(|| drop((task, rest)));
        self.end = exit;
        Ok(self.launched(beginning, action, &mut device))
    }

    /// Tells the tree what has happened; what it says to do about it.
    fn think(&mut self, tell: impl FnOnce(&mut TreeOf<K>)) -> Option<Action> {
        let mut tree = self.shared.tree();
        tell(&mut tree);
        if std::mem::take(&mut self.broken) {
            tree.shut_down();
        }
        tree.next()
    }

    /// Does what the tree says until it says nothing more; how to end, if it said so.
    async fn drive(&mut self, mut next: Next) -> Option<Exit> {
        loop {
            let action = match next {
                Next::Nothing => return None,
                Next::Begun(key, begun) => {
                    let outcome = match begun {
                        Begun::Quiet => return None,
                        Begun::Waits => {
                            let mail = match self.go_along().await {
                                Ok(then) => {
                                    next = then;
                                    continue;
                                }
                                Err(mail) => mail,
                            };
                            let attempt = self.awaited.take()?;
                            let key = attempt.key;
                            let outcome = self.hear(attempt, mail).await;
                            next = self.conclude(key, outcome);
                            continue;
                        }
                        Begun::Failed(fault, begin) => {
                            // What the start function was given is gone with it; if it was given away instead, it is waited for.
                            self.kill(key, begin).await;
                            Outcome::Failed(StartError::StartFunction(fault))
                        }
                    };
                    next = self.conclude(key, outcome);
                    continue;
                }
                Next::Do(Action::Start(key)) => {
                    next = match self.begin_alone(key) {
                        Some(begun) => Next::Begun(key, begun),
                        None => self.conclude(key, Outcome::Failed(StartError::Interrupted)),
                    };
                    continue;
                }
                Next::Do(action) => action,
            };
            let action = match action {
                // That is what comes above.
                Action::Start(_) => self.think(|_| {}),
                Action::Stop(key) => {
                    let exit = self.end_child(key).await;
                    self.tell_of(key, || Event::Ended { exit: exit.clone(), stopped: true });
                    let end = end_of(&exit);
                    self.end = exit;
                    self.think(|tree| tree.stopped(key, end))
                }
                Action::StopTogether => {
                    self.end_together().await;
                    self.think(|_| {})
                }
                Action::Booted => {
                    if let Some(starting) = self.starting.take() {
                        drop(starting.done());
                    }
                    self.think(|_| {})
                }
                Action::Retry(key) => {
                    self.shared.put(Command::Retry(key));
                    self.think(|_| {})
                }
                Action::RetryAfter(key, wait) => {
                    self.tell_of(key, || Event::Backoff(wait));
                    self.set_timer(wait, Alarm::Retry(key));
                    self.think(|_| {})
                }
                Action::Report(context, key) => {
                    self.tell_of(key, || match context {
                        Context::ChildTerminated => Event::ChildTerminated(self.end.clone()),
                        Context::StartError => Event::StartError(self.start_error()),
                        Context::ShutdownError => {
                            Event::ShutdownError { exit: self.end.clone(), count: None }
                        }
                    });
                    self.think(|_| {})
                }
                Action::GaveUp(key) => {
                    self.tell_of(key, || Event::GaveUp);
                    self.think(|_| {})
                }
                Action::LeftDown(key) => {
                    self.tell_of(key, || Event::LeftDown);
                    self.think(|_| {})
                }
                Action::Forget => {
                    let child = self.shared.tree().take_forgotten();
                    quietly(|| drop(child));
                    self.think(|_| {})
                }
                Action::Finish(Ending::Asked) => return Some(self.exit.clone()),
                Action::Finish(Ending::GaveUp | Ending::Auto) => return Some(Exit::Shutdown),
                Action::Finish(Ending::FailedToStart(key)) => {
                    let id = self.shared.tree().get(key).and_then(|child| Named::name(&child.body).cloned());
                    let error = Box::new(self.start_error());
                    if let Some(starting) = self.starting.take() {
                        starting.fail_with(StartError::Child {
                            id: id.unwrap_or_else(|| ChildId::from("?")),
                            error,
                        });
                    }
                    return Some(Exit::Shutdown);
                }
            };
            next = action.into();
        }
    }

    fn start_error(&self) -> StartError {
        self.start_error.clone().unwrap_or(StartError::Interrupted)
    }

    fn set_timer(&mut self, wait: Duration, what: Alarm) {
        let at = after(self.now(), wait);
        if self.timers.len() >= self.timers_most {
            self.drop_idle_timers();
        }
        self.timers_set += 1;
        self.timers.push(Reverse(Timer { at, number: self.timers_set, what }));
    }

    /// Of children that have ended each has left a timer, which may be set for a day on which a million others have ended, too.
    #[cold]
    fn drop_idle_timers(&mut self) {
        let tree = self.shared.tree();
        self.timers.retain(|Reverse(timer)| match timer.what {
            Alarm::Retry(key) => tree.retries_at(key, timer.at),
            Alarm::Health { key, device, .. } => is_healthy(&tree, key, device),
        });
        drop(tree);
        self.timers_most = 64.max(2 * self.timers.len());
    }

    // ---- starting ------------------------------------------------------------------------------------------------

    /// A start attempt has succeeded; what the tree says to that.
    fn conclude_started(&mut self, key: Key, line: Line, progress: Option<(Pulse, Duration)>) -> Next {
        let now = self.now();
        self.clock = now;
        self.started = Some(ChildRef { key, line });
        self.tell_of(key, || Event::Started);
        if let Some((pulse, every)) = progress {
            self.set_timer(every, Alarm::Health { key, device: line.id(), pulse, every });
        }
        let since = self.shared.age_at(now);
        // Asked outside of the lock: a subscriber of `tracing` is the user's.
        let told = self.shared.listeners().anybody();
        let (fresh, broken) = (self.fresh.take(), std::mem::take(&mut self.broken));
        let mut tree = self.shared.tree();
        let rest = place(&mut tree, fresh);
        tree.started(now, key);
        if let Some(child) = tree.get_mut(key) {
            child.set_since(since);
        }
        if broken {
            tree.shut_down();
        }
        let action = tree.next();
        let mut device = None;
        let beginning = self.begin_if(&mut tree, action.as_ref(), told, &mut device);
        drop(tree);
        quietly(|| drop(rest));
        self.launched(beginning, action, &mut device)
    }

    /// A start attempt is over; what the tree says about how it went.
    fn conclude(&mut self, key: Key, outcome: Outcome) -> Next {
        match outcome {
            Outcome::Started(line, progress) => self.conclude_started(key, line, progress),
            Outcome::Ignored => {
                self.tell_of(key, || Event::Ignored);
                let child = self.shared.tree().ignored(key);
                quietly(|| drop(child));
                self.think(|_| {}).into()
            }
            Outcome::Failed(error) => {
                self.tell_of(key, || Event::StartFailed(error.clone()));
                self.start_error = Some(error);
                if !self.broken {
                    drop(self.shared.take_killed());
                }
                let now = self.now();
                let child = self.shared.tree().failed(now, key);
                quietly(|| drop(child));
                self.think(|_| {}).into()
            }
        }
    }

    fn line(&self, key: Key) -> Option<Line> {
        self.shared.tree().get(key).and_then(|child| child.body.line)
    }

    fn shutdown_of(&self, key: Key) -> Option<Shutdown> {
        let tree = self.shared.tree();
        let seed = tree.get(key)?.body.seed.as_ref()?;
        self.kind.facts(seed).map(Facts::shutdown)
    }

    /// From now on first polls are heard by this ring.
    fn use_ring(&mut self, ring: Arc<Ring>) {
        let before = self.shared.set_ring(Some(Arc::clone(&ring)));
        let mine = std::mem::replace(&mut self.ring, ring);
        // What it wakes is not ours.
        quietly(|| drop((before, mine)));
    }

    /// Puts what is fresh into the list.
    fn place(&mut self) {
        if let Some(fresh) = self.fresh.take() {
            let rest = place(&mut self.shared.tree(), Some(fresh));
            quietly(|| drop(rest));
        }
    }

    /// Begins the start attempt that is to be made, where the list is open already; `told` of it is somebody.
    #[inline(always)]
    fn begin_if(
        &self,
        tree: &mut TreeOf<K>,
        action: Option<&Action>,
        told: bool,
        device: &mut Option<Device>,
    ) -> Option<Beginning<K>> {
        match action {
            Some(Action::Start(key)) if self.ring.is_free(2) => self.begin(tree, *key, told, device),
            _ => None,
        }
    }

    /// What has been begun is made here, and not where it is heard of: each copy of what was just put together waits for it.
    #[inline(always)]
    fn launched(
        &mut self,
        beginning: Option<Beginning<K>>,
        action: Option<Action>,
        device: &mut Option<Device>,
    ) -> Next {
        match beginning {
            Some(beginning) => Next::Begun(beginning.key, self.launch(beginning, device)),
            None => action.into(),
        }
    }

    fn begin_alone(&mut self, key: Key) -> Option<Begun> {
        if !self.ring.is_free(2) {
            let another = self.ring.another();
            self.use_ring(another);
        }
        self.place();
        let told = self.broken || self.shared.listeners().anybody();
        let mut device = None;
        let beginning = self.begin(&mut self.shared.tree(), key, told, &mut device)?;
        Some(self.launch(beginning, &mut device))
    }

    /// Begins a start attempt, as far as that is done under the lock. Its device stays in its place until the start function
    /// takes it.
    #[inline(always)]
    fn begin(
        &self,
        tree: &mut TreeOf<K>,
        key: Key,
        told: bool,
        device: &mut Option<Device>,
    ) -> Option<Beginning<K>> {
        let me = self.device.as_ref()?;
        let child = tree.get_mut(key)?;
        let facts = child.body.seed.as_ref().and_then(|seed| self.kind.facts(seed))?;
        let (within, progress, plain) = (facts.start_within, facts.progress_within, facts.is_plain());
        let loan = K::lend(&mut child.body.seed)?;
        let device = device.insert(Device::new());
        me.link(device, LinkMode::Peer.tag(key.to_bits()));
        let line = device.line();
        child.begin(line, !self.called);
        let quiet = tree.begin_attempt(key, plain && !told);
        if quiet && let Some(child) = tree.get_mut(key) {
            // Nobody looks at the clock when it is polled.
            child.set_began(self.clock);
        }
        self.ring.begin(quiet);
        Some(Beginning { key, line, loan, within, progress, quiet })
    }

    /// Makes the start attempt that has been begun.
    #[inline(always)]
    fn launch(&mut self, beginning: Beginning<K>, device: &mut Option<Device>) -> Begun {
        let Beginning { key, line, loan, within, progress, quiet } = beginning;
        self.quiet = None;
        self.start_error = None;
        self.started = None;
        // As new as it need be: the moment of the event that led here, or of the start before this one.
        let begin = within.map_or(self.clock, |_| self.now());
        let pulse = Pulse::new(progress.map(|_| self.shared.engine()));
        let birth = Birth { device, shared: &self.shared, key, pulse: &pulse, ring: &self.ring };
        let job = catch(|| self.kind.job(&loan, birth));
        let (task, panic) = match job {
            Ok(job) => (Some(self.shared.engine().spawn(job)), None),
            Err(panic) => (None, Some(panic)),
        };
        self.fresh = Some(Fresh { key, task, loan });
        if let Some(panic) = panic {
            // If it has not been taken.
            *device = None;
            self.place();
            self.shared.tree().be_loud();
            let fault = Fault::panic(&panic);
            quietly(|| drop(panic));
            return Begun::Failed(fault, begin);
        }
        let attempt = Attempt { key, line, begin, within, progress: progress.map(|every| (pulse, every)) };
        if quiet {
            self.quiet = Some(attempt);
            return Begun::Quiet;
        }
        self.awaited = Some(attempt);
        Begun::Waits
    }

    /// What comes next while a start attempt is waited for; that the child was polled comes before all else.
    fn listen(&mut self, until: Option<Instant>) -> impl Future<Output = Option<Mail<K>>> {
        poll_fn(move |cx| {
            loop {
                if self.ring.was_polled() {
                    return Poll::Ready(Some(Mail::Polled));
                }
                // Before the last look at the ring: whoever rings from here on wakes by this waker, or rings the bell.
                self.ring.wait_by(cx.waker());
                let Poll::Ready(mail) = self.poll_mail(cx, until) else {
                    if self.ring.was_polled() {
                        continue;
                    }
                    return Poll::Pending;
                };
                if mail.is_some() || until.is_some_and(|until| self.now() >= until) {
                    return Poll::Ready(mail);
                }
            }
        })
    }

    /// Waits for the end of a start attempt, and of those that it leads to, as long as nothing comes but first polls. What is to be
    /// done then, or the mail that has come first.
    ///
    /// In one place, as a child's end is: most children say nothing else.
    fn go_along(&mut self) -> impl Future<Output = Result<Next, Option<Mail<K>>>> {
        poll_fn(|cx| {
            loop {
                let Some(attempt) = &self.awaited else { return Poll::Ready(Ok(Next::Nothing)) };
                if self.ring.was_polled() {
                    let (key, line) = (attempt.key, attempt.line);
                    let progress = self.awaited.take().and_then(|attempt| attempt.progress);
                    match self.conclude_started(key, line, progress) {
                        Next::Begun(_, Begun::Waits) => continue,
                        next => return Poll::Ready(Ok(next)),
                    }
                }
                let until = attempt.until();
                // Before the last look at the ring: whoever rings from here on wakes by this waker, or rings the bell.
                self.ring.wait_by(cx.waker());
                if let Poll::Ready(mail) = self.poll_mail(cx, until) {
                    return Poll::Ready(Err(mail));
                }
                if !self.ring.was_polled() {
                    return Poll::Pending;
                }
            }
        })
    }

    /// Waits for the end of a start attempt. `first` has come already.
    async fn hear(&mut self, attempt: Attempt, mut first: Option<Mail<K>>) -> Outcome {
        let until = attempt.until();
        let Attempt { key, line, begin, within, progress } = attempt;
        let id = line.id();
        loop {
            let mail = match first.take() {
                None => self.listen(until).await,
                first => first,
            };
            if let Some(Mail::Polled) = mail {
                // Otherwise it was rung for an attempt that has failed since.
                if self.ring.was_polled() {
                    return Outcome::Started(line, progress);
                }
                continue;
            }
            self.place();
            match mail {
                None => {
                    self.kill(key, begin).await;
                    self.shared.overtaken(id);
                    return Outcome::Failed(StartError::TimedOut(within.unwrap_or_default()));
                }
                Some(Mail::Ended(of, device, _)) if of == key && device == id => {
                    // What it said before it ended may still wait for the bell of somebody else's call.
                    let said = self.shared.overtaken(id);
                    if matches!(said, Some(Said::Started)) || self.ring.was_polled() {
                        self.mail.push_back(Mail::Ended(key, id, true));
                        return Outcome::Started(line, progress);
                    }
                    let exit = self.take_end(key).unwrap_or(Exit::Normal);
                    return match said {
                        Some(Said::Ignored) => Outcome::Ignored,
                        Some(Said::Failed(error)) => Outcome::Failed(*error),
                        Some(Said::Started | Said::Nothing) | None => {
                            Outcome::Failed(StartError::Ended(exit))
                        }
                    };
                }
                Some(Mail::Polled) => {}
                Some(Mail::Command(Command::Said(device, said))) => {
                    if device != id {
                        continue;
                    }
                    match said {
                        Said::Started => return Outcome::Started(line, progress),
                        Said::Ignored => {
                            self.end_child(key).await;
                            return Outcome::Ignored;
                        }
                        Said::Failed(error) => {
                            self.end_child(key).await;
                            return Outcome::Failed(*error);
                        }
                        Said::Nothing => {
                            let exit = self.kill(key, begin).await;
                            return Outcome::Failed(StartError::Ended(exit));
                        }
                    }
                }
                Some(Mail::Stop(exit)) if self.settings.interruptible => {
                    self.kill(key, begin).await;
                    self.exit = exit;
                    self.broken = true;
                    return Outcome::Failed(StartError::Interrupted);
                }
                Some(Mail::Command(Command::Call(Call::Stop(exit, reply))))
                    if self.settings.interruptible =>
                {
                    self.stoppers.push(reply);
                    self.kill(key, begin).await;
                    self.exit = exit;
                    self.broken = true;
                    return Outcome::Failed(StartError::Interrupted);
                }
                Some(mail) => self.mail.push_back(mail),
            }
        }
    }

    // ---- ending --------------------------------------------------------------------------------------------------

    /// Takes in all that has come, so that an end which is there is known.
    fn take_in(&mut self) {
        while let Some(message) = self.device.as_mut().and_then(Device::try_receive) {
            if let Some(mail) = self.sort(message) {
                self.mail.push_back(mail);
            }
        }
    }

    /// Ends a child by its shutdown rule.
    async fn end_child(&mut self, key: Key) -> Exit {
        let begin = self.now();
        self.take_in();
        let (ended, rule) = {
            let mut tree = self.shared.tree();
            let Some(child) = tree.get_mut(key) else { return Exit::Normal };
            let (ended, body) = (child.take_end(), &child.body);
            (
                ended,
                body.line.zip(body.seed.as_ref().and_then(|seed| self.kind.facts(seed)).map(Facts::shutdown)),
            )
        };
        if let Some((exit, task)) = ended {
            quietly(|| drop(task));
            return exit;
        }
        let Some((line, shutdown)) = rule else { return Exit::Normal };
        let until = match shutdown {
            Shutdown::BrutalKill => return self.kill(key, begin).await,
            Shutdown::Timeout(timeout) => begin.checked_add(timeout),
            Shutdown::Infinity => None,
        };
        line.shutdown(self.shared.line.id());
        let exit = match self.await_end(key, until).await {
            Some(exit) => exit,
            None => self.kill(key, begin).await,
        };
        self.note_killed_below();
        exit
    }

    /// Drops a child's task and waits for its end.
    async fn kill(&mut self, key: Key, begin: Instant) -> Exit {
        self.drop_task(key);
        let until = self.now().checked_add(self.settings.grace);
        let exit = match self.take_end(key) {
            Some(exit) => Some(exit),
            None => self.await_end(key, until).await,
        };
        if let Some(exit) = exit {
            self.tell_killed(key, begin);
            return exit;
        }
        self.tell_stuck(key, begin);
        // Who is ending goes on without it. Who is not has nobody to put in its place until it is gone.
        let ending = self.starting.is_some() || self.shared.tree().is_ending();
        let exit = if ending { None } else { self.await_end_or_stop(key).await };
        exit.unwrap_or(Exit::Fault(Fault::killed()))
    }

    fn tell_killed(&mut self, key: Key, begin: Instant) {
        let after = self.now().saturating_duration_since(begin);
        if self.shutdown_of(key).is_some_and(|shutdown| shutdown != Shutdown::BrutalKill) {
            self.tell_of(key, || Event::Killed { after });
        }
        self.note_killed(key, after, false);
    }

    fn tell_stuck(&mut self, key: Key, begin: Instant) {
        let after = self.now().saturating_duration_since(begin);
        self.tell_of(key, || Event::Stuck { after });
        self.note_killed(key, after, true);
    }

    fn note_killed(&mut self, key: Key, took: Duration, stuck: bool) {
        let tree = self.shared.tree();
        let Some(child) = tree.get(key) else { return };
        let device = child.body.line.map(|line| line.id());
        let path = match (Named::name(&child.body), device) {
            (Some(name), _) => format!("{}/{name}", self.shared.path()),
            (None, Some(device)) => format!("{}/{device}", self.shared.path()),
            (None, None) => self.shared.path().to_string(),
        };
        let ending = tree.is_ending();
        drop(tree);
        let asked = self.shutdown_of(key).is_some_and(|shutdown| shutdown != Shutdown::BrutalKill);
        if ending && (stuck || asked) {
            self.killed.push(Killed { path, device, took, stuck });
        }
    }

    /// What a supervisor below had to kill is part of the answer to who stops this one.
    fn note_killed_below(&mut self) {
        let mut below = self.shared.take_killed();
        if !below.is_empty() && self.shared.tree().is_ending() {
            self.killed.append(&mut below);
        }
    }

    /// Waits for a child's end, which has not come yet.
    async fn await_end(&mut self, key: Key, until: Option<Instant>) -> Option<Exit> {
        loop {
            match self.receive(until).await? {
                Mail::Ended(of, ..) if of == key => return self.take_end(key),
                mail => self.mail.push_back(mail),
            }
        }
    }

    /// No successor starts before the end has come; but a stop is obeyed.
    async fn await_end_or_stop(&mut self, key: Key) -> Option<Exit> {
        loop {
            if let Some(exit) = self.take_end(key) {
                return Some(exit);
            }
            if let Some(at) = self
                .mail
                .iter()
                .position(|mail| matches!(mail, Mail::Stop(_) | Mail::Command(Command::Call(Call::Stop(..)))))
            {
                match self.mail.remove(at) {
                    Some(Mail::Stop(exit)) => self.exit = exit,
                    Some(Mail::Command(Command::Call(Call::Stop(exit, reply)))) => {
                        self.exit = exit;
                        self.stoppers.push(reply);
                    }
                    _ => {}
                }
                self.broken = true;
                return None;
            }
            let mail = self.receive(None).await?;
            self.mail.push_back(mail);
        }
    }

    /// Ends all children at once; each is given its time, which is the same for all.
    async fn end_together(&mut self) {
        let begin = self.now();
        self.take_in();
        let me = self.shared.line.id();
        let mut shutdown = Shutdown::Infinity;
        let mut running: Vec<(Key, Line)> = Vec::new();
        let mut left = 0;
        {
            let tree = self.shared.tree();
            for (key, child) in tree.iter().filter(|(_, child)| child.state == State::Running) {
                let facts = child.body.seed.as_ref().and_then(|seed| self.kind.facts(seed));
                if let Some((line, facts)) = child.body.line.zip(facts) {
                    shutdown = facts.shutdown();
                    running.push((key, line));
                    left += usize::from(!child.has_ended());
                }
            }
        }
        let until = match shutdown {
            Shutdown::BrutalKill => Some(begin),
            Shutdown::Timeout(timeout) => begin.checked_add(timeout),
            Shutdown::Infinity => None,
        };
        if shutdown != Shutdown::BrutalKill {
            for (_, line) in &running {
                line.shutdown(me);
            }
            left = self.await_ends(left, until).await;
        }
        let mut killed = Vec::new();
        if left > 0 {
            for (key, line) in &running {
                let mut tree = self.shared.tree();
                let Some(child) = tree.get_mut(*key).filter(|child| !child.has_ended()) else { continue };
                let task = child.body.task.take();
                drop(tree);
                line.condemn();
                quietly(|| drop(task));
                killed.push(*key);
            }
            let until = self.now().checked_add(self.settings.grace);
            self.await_ends(left, until).await;
        }
        for key in killed {
            let stuck = self.shared.tree().get(key).is_some_and(|child| !child.has_ended());
            if stuck { self.tell_stuck(key, begin) } else { self.tell_killed(key, begin) }
        }
        self.note_killed_below();
        let mut odd: Vec<(Exit, usize)> = Vec::new();
        for (key, _) in running {
            let exit = self.take_end(key).unwrap_or(Exit::Fault(Fault::killed()));
            self.tell_of(key, || Event::Ended { exit: exit.clone(), stopped: true });
            let end = end_of(&exit);
            let mut tree = self.shared.tree();
            let unexpected = tree.is_unexpected(key, end);
            tree.stopped(key, end);
            drop(tree);
            if unexpected {
                match odd.iter_mut().find(|(known, _)| *known == exit) {
                    Some((_, count)) => *count += 1,
                    None => odd.push((exit, 1)),
                }
            }
        }
        for (exit, count) in odd {
            self.tell(None, None, 0, || Event::ShutdownError { exit, count: Some(count) });
        }
    }

    /// Waits until so many children have ended, or it is `until`; how many are left.
    async fn await_ends(&mut self, mut left: usize, until: Option<Instant>) -> usize {
        while left > 0 {
            let Some(mail) = self.receive(until).await else { break };
            match mail {
                Mail::Ended(_, _, runs) => left -= usize::from(runs),
                mail => self.mail.push_back(mail),
            }
        }
        left
    }

    // ---- health --------------------------------------------------------------------------------------------------

    fn look_at(&mut self, key: Key, device: DeviceId, pulse: Pulse, every: Duration) {
        let current = is_healthy(&self.shared.tree(), key, device);
        let (Some(last), true) = (pulse.last(), current) else { return };
        let quiet = self.now().saturating_duration_since(last);
        if quiet < every {
            self.set_timer(every - quiet, Alarm::Health { key, device, pulse, every });
            return;
        }
        self.tell_of(key, || Event::NoProgress(every));
        self.drop_task(key);
    }

    /// Kills what runs of a child. Its end comes through the same door as any other.
    fn drop_task(&mut self, key: Key) {
        let (line, task) = match self.shared.tree().get_mut(key) {
            Some(child) => (child.body.line, child.body.task.take()),
            None => (None, None),
        };
        if let Some(line) = line {
            line.condemn();
        }
        quietly(|| drop(task));
    }

    // ---- calls ---------------------------------------------------------------------------------------------------

    async fn answer(&mut self, call: Call<K>) -> Option<Exit> {
        match call {
            Call::Start(add, reply) => {
                let (listed, auto_shutdown) = {
                    let tree = self.shared.tree();
                    (tree.tally().listed, tree.auto_shutdown())
                };
                let seed = match self.kind.admit(add, listed, auto_shutdown) {
                    Ok(seed) => seed,
                    Err(refusal) => {
                        reply.send(Err(refusal));
                        return None;
                    }
                };
                let (child, pace) = child(&self.kind, seed);
                let added = {
                    let mut tree = self.shared.tree();
                    let added = tree.add(child);
                    if let Ok(key) = added {
                        tree.set_pace(key, pace);
                    }
                    added
                };
                match added {
                    Ok(_) => {
                        let action = self.think(|_| {});
                        let end = self.drive(action.into()).await;
                        let answer = match self.start_error.take() {
                            Some(error) => Err(K::refuse(StartRefusal::Failed(error))),
                            None => Ok(self.started.take()),
                        };
                        reply.send(answer);
                        return end;
                    }
                    Err((child, taken)) => {
                        quietly(|| drop(child));
                        let refusal = match taken {
                            Taken::Present => StartRefusal::AlreadyPresent,
                            Taken::Running(key) => match self.line(key) {
                                Some(line) => StartRefusal::AlreadyStarted(line),
                                None => StartRefusal::AlreadyPresent,
                            },
                        };
                        reply.send(Err(K::refuse(refusal)));
                    }
                }
            }
            Call::Terminate(target, reply) => match self.find(&target) {
                Ok(Some(key)) => {
                    let action = self.think(|tree| tree.terminate(key));
                    let end = self.drive(action.into()).await;
                    reply.send(Ok(()));
                    return end;
                }
                Ok(None) => reply.send(Ok(())),
                Err(error) => reply.send(Err(error)),
            },
            Call::Kill(target, reply) => match self.find(&target) {
                Ok(Some(key)) => {
                    self.drop_task(key);
                    reply.send(Ok(()));
                }
                Ok(None) => reply.send(Ok(())),
                Err(_) => reply.send(Err(KillChildError::NotFound)),
            },
            Call::Restart(id, reply) => {
                let key = self.shared.tree().find(&id);
                let begun = match key {
                    Some(key) => self.shared.tree().restart_child(key),
                    None => Err(Refusal::NotFound),
                };
                match begun {
                    Ok(()) => {
                        let action = self.think(|_| {});
                        let end = self.drive(action.into()).await;
                        reply.send(match self.start_error.take() {
                            Some(error) => Err(RestartChildError::Failed(error)),
                            None => Ok(self.started.take()),
                        });
                        return end;
                    }
                    Err(Refusal::Running) => reply.send(Err(RestartChildError::Running)),
                    Err(Refusal::Restarting) => reply.send(Err(RestartChildError::Restarting)),
                    Err(Refusal::NotFound) => reply.send(Err(RestartChildError::NotFound)),
                }
            }
            Call::Delete(id, reply) => {
                let key = self.shared.tree().find(&id);
                let deleted = match key {
                    Some(key) => self.shared.tree().delete(key),
                    None => Err(Refusal::NotFound),
                };
                reply.send(match deleted {
                    Ok(child) => {
                        quietly(|| drop(child));
                        Ok(())
                    }
                    Err(Refusal::Running) => Err(DeleteChildError::Running),
                    Err(Refusal::Restarting) => Err(DeleteChildError::Restarting),
                    Err(Refusal::NotFound) => Err(DeleteChildError::NotFound),
                });
            }
            Call::Which(reply) => reply.send(self.rows()),
            Call::Count(reply) => reply.send(self.counts()),
            Call::Spec(id, reply) => {
                let find = |id: &str| {
                    let tree = self.shared.tree();
                    let child = tree.get(tree.find(id)?)?;
                    let seed = child.body.seed.as_ref()?;
                    Some(self.kind.facts(seed)?.info(Named::name(seed)?))
                };
                reply.send(self.kind.info(&id, &find));
            }
            Call::SetStrategy(strategy, reply) => {
                self.shared.tree().set_strategy(strategy);
                reply.send(());
            }
            Call::SetIntensity(intensity, reply) => {
                self.shared.tree().set_intensity(intensity);
                reply.send(());
            }
            Call::SetMax(max, reply) => {
                self.kind.set_max(max);
                reply.send(());
            }
            Call::Stop(exit, reply) => {
                self.stoppers.push(reply);
                return self.stop(exit).await;
            }
        }
        None
    }

    /// The child that a terminate_child means; none, where it is gone already.
    fn find(&self, target: &Target) -> Result<Option<Key>, TerminateChildError> {
        let tree = self.shared.tree();
        match target {
            Target::Named(id) => tree.find(id).map(Some).ok_or(TerminateChildError::NotFound),
            Target::Whichever(key) => tree.get(*key).map(|_| Some(*key)).ok_or(TerminateChildError::NotFound),
            Target::Exactly(child) => {
                let current = tree.get(child.key).is_some_and(|known| known.body.line == Some(child.line));
                match current {
                    true => Ok(Some(child.key)),
                    false if child.line.is_alive() => Err(TerminateChildError::NotFound),
                    false => Ok(None),
                }
            }
        }
    }

    fn rows(&self) -> Vec<Row> {
        let tree = self.shared.tree();
        tree.iter_back()
            .map(|(key, child)| Row {
                id: Named::name(&child.body).cloned(),
                state: match (child.state, child.body.line) {
                    (State::Running, Some(line)) => RowState::Running(line),
                    (State::Restarting { .. }, _) => RowState::Restarting,
                    _ => RowState::Down,
                },
                kind: if child.is_supervisor() { ChildKind::Supervisor } else { ChildKind::Worker },
                key,
            })
            .collect()
    }

    fn counts(&self) -> Counts {
        let tree = self.shared.tree();
        let tally = tree.tally();
        let active = tree
            .iter()
            .filter(|(_, child)| {
                child.state == State::Running && child.body.line.is_some_and(|line| line.is_alive())
            })
            .count();
        Counts {
            specs: if K::MEMBERS == Members::OfOneKind { 1 } else { tally.listed },
            active,
            supervisors: tally.supervisors,
            workers: tally.listed - tally.supervisors,
        }
    }
}

enum Turn<K: Kind> {
    /// A child has ended, and this is to be done about it.
    Next(Next),
    Mail(Mail<K>),
    Alarm(Alarm),
}

/// A start attempt that is being made.
struct Attempt {
    key: Key,
    line: Line,
    begin: Instant,
    within: Option<Duration>,
    progress: Option<(Pulse, Duration)>,
}

impl Attempt {
    /// When it has taken too long.
    fn until(&self) -> Option<Instant> {
        self.within.and_then(|within| self.begin.checked_add(within))
    }
}

/// How far a start attempt has come at once.
enum Begun {
    /// It goes on, and nobody waits for it.
    Quiet,
    /// There is somebody who waits: the supervisor.
    Waits,
    Failed(Fault, Instant),
}

/// Puts what is fresh into the list; returns what is to be dropped outside of the lock.
fn place<K: Kind>(tree: &mut TreeOf<K>, fresh: Option<Fresh<K>>) -> Option<(Option<Task>, Option<K::Loan>)> {
    let Fresh { key, task, loan } = fresh?;
    match tree.get_mut(key) {
        Some(child) => {
            child.body.task = task;
            Some((None, K::give_back(&mut child.body.seed, loan)))
        }
        None => Some((task, Some(loan))),
    }
}

/// Whether it is this incarnation that runs.
fn is_healthy<S: Named>(tree: &Tree<Body<S>>, key: Key, device: DeviceId) -> bool {
    tree.get(key).is_some_and(|child| {
        child.state == State::Running
            && !child.has_ended()
            && child.body.line.is_some_and(|line| line.id() == device)
    })
}

enum Outcome {
    Started(Line, Option<(Pulse, Duration)>),
    Ignored,
    Failed(StartError),
}

impl<K: Kind> Drop for Running<K> {
    /// The supervisor's own task is dropped, or it has departed and nothing is left.
    fn drop(&mut self) {
        self.place();
        let ring = self.shared.set_ring(None);
        quietly(|| drop(ring));
        let left = self.unanswered();
        let empty =
            Tree::new(K::MEMBERS, RestartStrategy::OneForOne, Intensity::DEFAULT, AutoShutdown::Never);
        let mut tree = std::mem::replace(&mut *self.shared.tree(), empty);
        let keys: Vec<Key> = tree.iter().map(|(key, _)| key).collect();
        for key in keys {
            let Some(child) = tree.get_mut(key) else { continue };
            let (line, task) = (child.body.line, child.body.task.take());
            match (task, self.settings.orphans) {
                (Some(task), Orphans::Told) => self.shared.engine().detach(task),
                (Some(task), Orphans::Dropped) => {
                    if let Some(line) = line {
                        line.condemn();
                    }
                    quietly(|| drop(task));
                }
                (None, _) => {}
            }
        }
        quietly(|| drop(tree));
        // The children are told now, and so is the parent; and then whoever waits for an answer.
        let Some(device) = self.device.take() else { return };
        drop(device);
        let killed = Exit::Fault(Fault::killed());
        for call in left {
            call.refuse(&killed);
        }
        for stopper in std::mem::take(&mut self.stoppers) {
            stopper.gone(&killed);
        }
        self.shared.listeners().close();
    }
}
