//! The caller's side.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use backplane::{DeviceId, Exit, Line};

use crate::dynamic::OneKind;
use crate::order::Key;
use crate::reply::{Answer, Reply, reply};
use crate::report::Reports;
use crate::shared::{Call, Kind, Shared, Target};
use crate::snapshot::Snapshot;
use crate::spec::{ChildId, ChildInfo, ChildKind, ChildSpec, SpecError, StartError};
use crate::starting::House;
use crate::supervisor::Listed;
use crate::tree::{Intensity, RestartStrategy};

/// The supervisor has ended, or ended before it came to answer.
///
/// ```
/// use backplane::Exit;
/// use backplane_supervisor::{RestartStrategy, Supervisor};
/// # #[cfg(feature = "smol")] {
/// use backplane::runtime::Smol;
/// # smol::block_on(async {
///
/// let handle = Supervisor::new(RestartStrategy::OneForOne).start(Smol::global()).await?;
/// handle.stop(Exit::Normal).await?;
/// let gone = handle.count_children().await.unwrap_err();
/// assert_eq!(gone.to_string(), "the supervisor had ended");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone(pub(crate) Option<Exit>);

impl Gone {
    /// How it ended, if it did so before it came to answer; `None` if it was gone when it was called (OTP's `noproc`).
    ///
    /// ```
    /// use backplane::Exit;
    /// use backplane_supervisor::{RestartStrategy, Supervisor};
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// # use std::sync::Arc;
    ///
    /// // One thread, so that both calls are there before the supervisor comes to answer.
    /// let executor = Arc::new(smol::Executor::new());
    /// smol::block_on(executor.run(async {
    ///     let tree = Supervisor::new(RestartStrategy::OneForOne);
    ///     let handle = tree.start(Smol::new(Arc::clone(&executor))).await?;
    ///     let (stopped, late) = (handle.stop(Exit::Shutdown), handle.count_children());
    ///     stopped.await?;
    ///     assert_eq!(late.await.unwrap_err().exit(), Some(&Exit::Shutdown));
    ///     assert_eq!(handle.count_children().await.unwrap_err().exit(), None);
    /// #     Ok::<(), Box<dyn std::error::Error>>(())
    /// }))
    /// # .unwrap();
    /// # }
    /// ```
    pub fn exit(&self) -> Option<&Exit> {
        self.0.as_ref()
    }
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => f.write_str("the supervisor had ended"),
            Some(exit) => write!(f, "the supervisor ended before it answered: {exit}"),
        }
    }
}

impl Error for Gone {}

/// A start_child that failed.
///
/// ```
/// use backplane_supervisor::{Restart, RestartStrategy, SpecError, StartChildError, Supervisor};
/// # #[cfg(feature = "smol")] {
/// use backplane::runtime::Smol;
/// # smol::block_on(async {
/// # let clock = backplane_supervisor::ChildSpec::new("clock", |device| {
/// #     device.manage(std::future::pending::<Result<(), ()>>())
/// # });
///
/// let handle = Supervisor::new(RestartStrategy::OneForOne).start(Smol::global()).await?;
/// let line = handle.start_child(clock.clone()).await?.expect("it runs");
/// assert_eq!(handle.start_child(clock.clone()).await, Err(StartChildError::AlreadyStarted(line)));
/// handle.terminate_child("clock").await?; // it stays listed
/// assert_eq!(handle.start_child(clock.clone()).await, Err(StartChildError::AlreadyPresent));
///
/// let significant = clock.restart(Restart::Transient).significant();
/// let refused = SpecError::SignificantNeverShutsDown("clock".into());
/// assert_eq!(handle.start_child(significant).await, Err(StartChildError::Refused(refused)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartChildError {
    /// A child of this name runs, here.
    AlreadyStarted(Line),
    /// A child of this name is listed; it does not run, or is restarting.
    AlreadyPresent,
    /// The spec cannot be supervised here.
    Refused(SpecError),
    /// The start attempt failed. The child is not listed.
    Failed(StartError),
    /// The supervisor has ended, or ended before it came to answer.
    Gone(Gone),
}

impl fmt::Display for StartChildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartChildError::AlreadyStarted(line) => write!(f, "already started, as device {}", line.id()),
            StartChildError::AlreadyPresent => f.write_str("already listed"),
            StartChildError::Refused(error) => write!(f, "{error}"),
            StartChildError::Failed(error) => write!(f, "{error}"),
            StartChildError::Gone(gone) => gone.fmt(f),
        }
    }
}

impl Error for StartChildError {}

/// A terminate_child that failed.
///
/// ```
/// use backplane::Exit;
/// use backplane_supervisor::{RestartStrategy, Supervisor, TerminateChildError};
/// # #[cfg(feature = "smol")] {
/// use backplane::runtime::Smol;
/// # smol::block_on(async {
///
/// let handle = Supervisor::new(RestartStrategy::OneForOne).start(Smol::global()).await?;
/// assert_eq!(handle.terminate_child("nobody").await, Err(TerminateChildError::NotFound));
/// handle.stop(Exit::Shutdown).await?;
/// let gone = handle.terminate_child("nobody").await;
/// assert!(matches!(gone, Err(TerminateChildError::Gone(_))));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TerminateChildError {
    /// There is no such child.
    NotFound,
    /// The supervisor has ended, or ended before it came to answer.
    Gone(Gone),
}

impl fmt::Display for TerminateChildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TerminateChildError::NotFound => f.write_str("no such child"),
            TerminateChildError::Gone(gone) => gone.fmt(f),
        }
    }
}

impl Error for TerminateChildError {}

/// A kill_child that failed.
///
/// ```
/// use backplane::Exit;
/// use backplane_supervisor::{KillChildError, RestartStrategy, Supervisor};
/// # #[cfg(feature = "smol")] {
/// use backplane::runtime::Smol;
/// # smol::block_on(async {
///
/// let handle = Supervisor::new(RestartStrategy::OneForOne).start(Smol::global()).await?;
/// assert_eq!(handle.kill_child("nobody").await, Err(KillChildError::NotFound));
/// handle.stop(Exit::Shutdown).await?;
/// assert!(matches!(handle.kill_child("nobody").await, Err(KillChildError::Gone(_))));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KillChildError {
    /// There is no such child.
    NotFound,
    /// The supervisor has ended, or ended before it came to answer.
    Gone(Gone),
}

impl fmt::Display for KillChildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KillChildError::NotFound => f.write_str("no such child"),
            KillChildError::Gone(gone) => gone.fmt(f),
        }
    }
}

impl Error for KillChildError {}

/// A restart_child that failed.
///
/// ```
/// use backplane_supervisor::{Backoff, Event, RestartChildError, RestartStrategy, Supervisor};
/// # use std::time::Duration;
/// # #[cfg(feature = "smol")] {
/// use backplane::runtime::Smol;
/// # smol::block_on(async {
/// # let clock = backplane_supervisor::ChildSpec::new("clock", |device| {
/// #     device.manage(std::future::pending::<Result<(), ()>>())
/// # });
///
/// let clock = clock.backoff(Backoff::linear(Duration::from_secs(60)));
/// let tree = Supervisor::new(RestartStrategy::OneForOne).child(clock);
/// let handle = tree.start(Smol::global()).await?;
/// assert_eq!(handle.restart_child("nobody").await, Err(RestartChildError::NotFound));
/// assert_eq!(handle.restart_child("clock").await, Err(RestartChildError::Running));
///
/// let mut reports = handle.reports(100);
/// handle.kill_child("clock").await?;
/// while reports.next().await.is_some_and(|report| !matches!(report.event, Event::Backoff(_))) {}
/// assert_eq!(handle.restart_child("clock").await, Err(RestartChildError::Restarting));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestartChildError {
    /// The child runs.
    Running,
    /// The supervisor is about to restart it.
    Restarting,
    /// There is no such child.
    NotFound,
    /// The start attempt failed. The child stays listed and not running.
    Failed(StartError),
    /// The supervisor has ended, or ended before it came to answer.
    Gone(Gone),
}

impl fmt::Display for RestartChildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RestartChildError::Running => f.write_str("the child is running"),
            RestartChildError::Restarting => f.write_str("the child is restarting"),
            RestartChildError::NotFound => f.write_str("no such child"),
            RestartChildError::Failed(error) => write!(f, "{error}"),
            RestartChildError::Gone(gone) => gone.fmt(f),
        }
    }
}

impl Error for RestartChildError {}

/// A delete_child that failed.
///
/// ```
/// use backplane_supervisor::{DeleteChildError, RestartStrategy, Supervisor};
/// # #[cfg(feature = "smol")] {
/// use backplane::runtime::Smol;
/// # smol::block_on(async {
/// # let clock = backplane_supervisor::ChildSpec::new("clock", |device| {
/// #     device.manage(std::future::pending::<Result<(), ()>>())
/// # });
///
/// let tree = Supervisor::new(RestartStrategy::OneForOne).child(clock);
/// let handle = tree.start(Smol::global()).await?;
/// assert_eq!(handle.delete_child("clock").await, Err(DeleteChildError::Running));
/// handle.terminate_child("clock").await?;
/// handle.delete_child("clock").await?;
/// assert_eq!(handle.delete_child("clock").await, Err(DeleteChildError::NotFound));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeleteChildError {
    /// The child runs.
    Running,
    /// The supervisor is about to restart it.
    Restarting,
    /// There is no such child.
    NotFound,
    /// The supervisor has ended, or ended before it came to answer.
    Gone(Gone),
}

impl fmt::Display for DeleteChildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeleteChildError::Running => f.write_str("the child is running"),
            DeleteChildError::Restarting => f.write_str("the child is restarting"),
            DeleteChildError::NotFound => f.write_str("no such child"),
            DeleteChildError::Gone(gone) => gone.fmt(f),
        }
    }
}

impl Error for DeleteChildError {}

/// A start of one more child of a [`DynamicSupervisor`](crate::DynamicSupervisor) that failed.
///
/// ```
/// use backplane_supervisor::{DynamicSupervisor, StartDynamicError};
/// # #[cfg(feature = "smol")] {
/// use backplane::runtime::Smol;
/// # smol::block_on(async {
/// # let clients = DynamicSupervisor::new(|device, _: String| {
/// #     device.manage(std::future::pending::<Result<(), ()>>())
/// # });
///
/// let handle = clients.max_children(0).start(Smol::global()).await?;
/// let refused = handle.start_child(String::from("ann")).await;
/// let Err(StartDynamicError::Full(name)) = refused else { panic!() };
/// handle.set_max_children(Some(1)).await?;
/// assert!(handle.start_child(name).await?.is_some()); // the same argument, once more
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartDynamicError<A> {
    /// It has as many children as it may. Here is the argument back.
    Full(A),
    /// The start attempt failed.
    Failed(StartError),
    /// The supervisor has ended, or ended before it came to answer.
    Gone(Gone),
}

impl<A> fmt::Display for StartDynamicError<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartDynamicError::Full(_) => f.write_str("the supervisor has as many children as it may"),
            StartDynamicError::Failed(error) => write!(f, "{error}"),
            StartDynamicError::Gone(gone) => gone.fmt(f),
        }
    }
}

impl<A: fmt::Debug> Error for StartDynamicError<A> {}

/// A child of a [`DynamicSupervisor`](crate::DynamicSupervisor), in one of its incarnations: what OTP has the pid for.
///
/// ```
/// use backplane_supervisor::{DynamicSupervisor, Event};
/// # #[cfg(feature = "smol")] {
/// use backplane::runtime::Smol;
/// # smol::block_on(async {
/// # let clients = DynamicSupervisor::new(|device, _: u32| {
/// #     device.manage(std::future::pending::<Result<(), ()>>())
/// # });
///
/// let handle = clients.start(Smol::global()).await?;
/// let first = handle.start_child(7).await?.expect("it runs");
/// let mut reports = handle.reports(100);
/// handle.kill_child(first).await?;
/// while reports.next().await.is_some_and(|report| report.event != Event::Started) {}
///
/// let second = handle.which_children().await?[0].child().expect("it runs again");
/// assert_ne!(first, second);
/// handle.remove_child(first).await?; // the child, in whichever incarnation
/// assert!(!second.line().is_alive());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChildRef {
    pub(crate) key: Key,
    pub(crate) line: Line,
}

impl ChildRef {
    /// The address of this incarnation.
    ///
    /// ```
    /// use backplane_supervisor::DynamicSupervisor;
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// # smol::block_on(async {
    /// # let clients = DynamicSupervisor::new(|device, _: u32| {
    /// #     device.manage(std::future::pending::<Result<(), ()>>())
    /// # });
    ///
    /// let handle = clients.start(Smol::global()).await?;
    /// let child = handle.start_child(7).await?.expect("it runs");
    /// assert!(child.line().is_alive());
    /// handle.terminate_child(child).await?;
    /// assert!(!child.line().is_alive());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    pub fn line(&self) -> Line {
        self.line
    }
}

/// What a listed child does, in a [`Row`].
///
/// ```
/// use backplane_supervisor::{RestartStrategy, RowState, Supervisor};
/// # #[cfg(feature = "smol")] {
/// use backplane::runtime::Smol;
/// # smol::block_on(async {
/// # let clock = backplane_supervisor::ChildSpec::new("clock", |device| {
/// #     device.manage(std::future::pending::<Result<(), ()>>())
/// # });
///
/// let tree = Supervisor::new(RestartStrategy::OneForOne).child(clock);
/// let handle = tree.start(Smol::global()).await?;
/// let RowState::Running(line) = handle.which_children().await?[0].state else { panic!() };
/// handle.terminate_child("clock").await?;
/// assert!(!line.is_alive());
/// assert_eq!(handle.which_children().await?[0].state, RowState::Down);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowState {
    /// It runs, here.
    Running(Line),
    /// A restart failed or waits for its backoff.
    Restarting,
    /// It does not run.
    Down,
}

/// One child in the answer to which_children.
///
/// ```
/// use backplane_supervisor::{ChildKind, RestartStrategy, Supervisor};
/// # #[cfg(feature = "smol")] {
/// use backplane::runtime::Smol;
/// # smol::block_on(async {
/// # let clock = backplane_supervisor::ChildSpec::new("clock", |device| {
/// #     device.manage(std::future::pending::<Result<(), ()>>())
/// # });
///
/// let tree = Supervisor::new(RestartStrategy::OneForOne).children(clock.replicas(2));
/// let handle = tree.start(Smol::global()).await?;
/// let rows = handle.which_children().await?;
/// assert_eq!(rows[0].id.as_deref(), Some("clock-2")); // the newest first
/// assert_eq!(rows[0].kind, ChildKind::Worker);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Row {
    /// Its name, if it has one.
    pub id: Option<ChildId>,
    /// What it does.
    pub state: RowState,
    /// Worker or supervisor.
    pub kind: ChildKind,
    pub(crate) key: Key,
}

impl Row {
    /// How to call this child, if it runs.
    ///
    /// ```
    /// use backplane_supervisor::DynamicSupervisor;
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// # smol::block_on(async {
    /// # let clients = DynamicSupervisor::new(|device, _: u32| {
    /// #     device.manage(std::future::pending::<Result<(), ()>>())
    /// # });
    ///
    /// let handle = clients.start(Smol::global()).await?;
    /// let started = handle.start_child(7).await?;
    /// assert_eq!(handle.which_children().await?[0].child(), started);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    pub fn child(&self) -> Option<ChildRef> {
        match self.state {
            RowState::Running(line) => Some(ChildRef { key: self.key, line }),
            RowState::Restarting | RowState::Down => None,
        }
    }
}

/// The answer to count_children.
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
/// let web = ChildSpec::supervisor("web", || Supervisor::new(RestartStrategy::OneForAll));
/// let tree = Supervisor::new(RestartStrategy::OneForOne).child(clock).child(web);
/// let handle = tree.start(Smol::global()).await?;
/// handle.terminate_child("clock").await?;
/// let counts = handle.count_children().await?;
/// assert_eq!((counts.specs, counts.active), (2, 1));
/// assert_eq!((counts.supervisors, counts.workers), (1, 1)); // running or not
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// How many specs there are: one for children of one kind.
    pub specs: usize,
    /// How many children have a live device.
    pub active: usize,
    /// How many children are supervisors, running or not.
    pub supervisors: usize,
    /// How many children are workers, running or not.
    pub workers: usize,
}

/// A child that did not stop when it was asked to.
///
/// ```
/// use backplane::{Device, Exit};
/// use backplane_supervisor::{ChildSpec, RestartStrategy, Shutdown, Supervisor};
/// use std::time::Duration;
/// # #[cfg(feature = "smol")] {
/// use backplane::runtime::Smol;
/// # smol::block_on(async {
///
/// // It hears that it should stop, and takes no notice.
/// let mule = ChildSpec::new("mule", |mut device: Device| async move {
///     loop {
///         device.receive().await;
///     }
/// });
/// let mule = mule.shutdown(Shutdown::Timeout(Duration::from_millis(1)));
/// let tree = Supervisor::new(RestartStrategy::OneForOne).child(mule);
/// let stopped = tree.start(Smol::global()).await?.stop(Exit::Shutdown).await?;
/// assert_eq!(stopped.killed[0].path, "root/mule");
/// assert!(stopped.killed[0].took >= Duration::from_millis(1));
/// assert!(!stopped.killed[0].stuck);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Killed {
    /// Its path: ids from the root down joined with `/`.
    pub path: String,
    /// Its device.
    pub device: Option<DeviceId>,
    /// From the request to the end, or to where it was given up.
    pub took: Duration,
    /// Its task was dropped, and still it did not end: it never yields. It may be running still.
    pub stuck: bool,
}

impl fmt::Display for Killed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.stuck { "could not be killed" } else { "had to be killed" };
        write!(f, "{} {how} after {:?}", self.path, self.took)
    }
}

/// How a supervisor stopped.
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
/// let tree = Supervisor::new(RestartStrategy::OneForOne).child(clock);
/// let stopped = tree.start(Smol::global()).await?.stop(Exit::Shutdown).await?;
/// assert_eq!(stopped.exit, Exit::Shutdown);
/// assert!(stopped.killed.is_empty()); // everybody stopped when asked to
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stopped {
    /// How it ended.
    pub exit: Exit,
    /// Every child below it, at any depth, that had to be killed.
    pub killed: Vec<Killed>,
}

/// The way to speak with a running [`Supervisor`](crate::Supervisor).
///
/// Every call is a message: it is put into the supervisor's inbox when the method is called, and answered in its turn, as in
/// OTP. The answer may be awaited or dropped. A handle does not keep the supervisor alive.
///
/// ```
/// use backplane::Exit;
/// use backplane_supervisor::{ChildSpec, DeleteChildError, RestartStrategy, Supervisor};
/// # #[cfg(feature = "smol")] {
/// use backplane::runtime::Smol;
///
/// let spec = ChildSpec::new("clock", |device| device.manage(std::future::pending::<Result<(), ()>>()));
/// # smol::block_on(async {
/// let handle = Supervisor::new(RestartStrategy::OneForOne).start(Smol::global()).await?;
/// let first = handle.start_child(spec).await?;
/// assert_eq!(handle.count_children().await?.active, 1);
///
/// // Started again after a kill, as after a crash; not after it has been terminated.
/// handle.kill_child("clock").await?;
/// handle.terminate_child("clock").await?;
/// assert!(!first.unwrap().is_alive());
/// handle.restart_child("clock").await?;
/// assert_eq!(handle.delete_child("clock").await, Err(DeleteChildError::Running));
///
/// let mut reports = handle.reports(100);
/// handle.stop(Exit::Shutdown).await?;
/// while let Some(report) = reports.next().await {
///     println!("{report}");
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// # }
/// ```
#[derive(Clone)]
pub struct SupervisorHandle {
    pub(crate) shared: Arc<Shared<Listed>>,
}

/// What every handle can do.
macro_rules! common {
    ($($captured:tt)*) => {
        /// The supervisor's address.
        ///
        /// ```
        /// use backplane::{Device, Exit, LinkMode, Message};
        /// use backplane_supervisor::{RestartStrategy, Supervisor};
        /// # #[cfg(feature = "smol")] {
        /// use backplane::runtime::Smol;
        /// # smol::block_on(async {
        ///
        /// let handle = Supervisor::new(RestartStrategy::OneForOne).start(Smol::global()).await?;
        /// let mut watcher = Device::new();
        /// watcher.link(&handle.line(), LinkMode::Monitor);
        /// handle.stop(Exit::Normal).await?;
        /// let Message::Disconnect(news) = watcher.receive().await else { panic!() };
        /// assert_eq!((news.device, news.exit), (handle.line().id(), Exit::Normal));
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// # }).unwrap();
        /// # }
        /// ```
        pub fn line(&self) -> Line {
            self.shared.line
        }

        /// Its path: ids from the root down joined with `/`.
        ///
        /// ```
        /// use backplane_supervisor::{RestartStrategy, Supervisor};
        /// # #[cfg(feature = "smol")] {
        /// use backplane::runtime::Smol;
        /// # smol::block_on(async {
        ///
        /// let shop = Supervisor::new(RestartStrategy::OneForOne).name("shop");
        /// assert_eq!(shop.start(Smol::global()).await?.path(), "shop");
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// # }).unwrap();
        /// # }
        /// ```
        pub fn path(&self) -> &str {
            self.shared.path()
        }

        /// The children, the newest first, as OTP lists them.
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
        /// let rows = tree.start(Smol::global()).await?.which_children().await?;
        /// let names: Vec<_> = rows.iter().filter_map(|row| row.id.as_deref()).collect();
        /// assert_eq!(names, ["clock-3", "clock-2", "clock-1"]);
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// # }).unwrap();
        /// # }
        /// ```
        pub fn which_children(&self) -> impl Future<Output = Result<Vec<Row>, Gone>> + Send + use<$($captured)*> + 'static {
            self.ask(Call::Which)
        }

        /// How many there are.
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
        /// let handle = tree.start(Smol::global()).await?;
        /// handle.terminate_child("clock-2").await?;
        /// let counts = handle.count_children().await?;
        /// assert_eq!((counts.specs, counts.active), (3, 2));
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// # }).unwrap();
        /// # }
        /// ```
        pub fn count_children(&self) -> impl Future<Output = Result<Counts, Gone>> + Send + use<$($captured)*> + 'static {
            self.ask(Call::Count)
        }

        /// Changes how many restarts are too many, from now on. Those that were noted stay noted.
        ///
        /// ```
        /// use backplane_supervisor::{Event, Intensity, RestartStrategy, Supervisor};
        /// use std::time::Duration;
        /// # #[cfg(feature = "smol")] {
        /// use backplane::runtime::Smol;
        /// # smol::block_on(async {
        /// # let clock = backplane_supervisor::ChildSpec::new("clock", |device| {
        /// #     device.manage(std::future::pending::<Result<(), ()>>())
        /// # });
        ///
        /// let tree = Supervisor::new(RestartStrategy::OneForOne).child(clock);
        /// let handle = tree.start(Smol::global()).await?;
        /// handle.set_intensity(Intensity { restarts: 0, period: Duration::from_secs(5) }).await?;
        /// let mut reports = handle.reports(100);
        /// handle.kill_child("clock").await?; // one restart is too many now
        /// while reports.next().await.is_some_and(|report| report.event != Event::GaveUp) {}
        /// while reports.next().await.is_some() {}
        /// assert!(!handle.line().is_alive());
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// # }).unwrap();
        /// # }
        /// ```
        pub fn set_intensity(
            &self,
            intensity: Intensity,
        ) -> impl Future<Output = Result<(), Gone>> + Send + use<$($captured)*> + 'static {
            self.ask(|reply| Call::SetIntensity(intensity, reply))
        }

        /// Ends the children in order and then the supervisor itself, with `exit`. Resolves when it has ended.
        ///
        /// What its parent does about it depends on `exit`, as with any child.
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
        /// let tree = Supervisor::new(RestartStrategy::OneForOne).child(clock);
        /// let handle = tree.start(Smol::global()).await?;
        /// let stopped = handle.stop(Exit::Normal).await?;
        /// assert_eq!(stopped.exit, Exit::Normal);
        /// assert!(handle.stop(Exit::Normal).await.is_err()); // it is gone already
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// # }).unwrap();
        /// # }
        /// ```
        pub fn stop(&self, exit: Exit) -> impl Future<Output = Result<Stopped, Gone>> + Send + use<$($captured)*> + 'static {
            self.ask(|reply| Call::Stop(exit, reply))
        }

        /// The supervisor and all below it as they are now. Waits for nobody: it can be had during a slow start, too.
        ///
        /// # Errors
        ///
        /// If the supervisor has ended.
        ///
        /// ```
        /// use backplane::Exit;
        /// use backplane_supervisor::{ChildState, RestartStrategy, Supervisor};
        /// # #[cfg(feature = "smol")] {
        /// use backplane::runtime::Smol;
        /// # smol::block_on(async {
        /// # let clock = backplane_supervisor::ChildSpec::new("clock", |device| {
        /// #     device.manage(std::future::pending::<Result<(), ()>>())
        /// # });
        ///
        /// let tree = Supervisor::new(RestartStrategy::OneForOne).child(clock);
        /// let handle = tree.start(Smol::global()).await?;
        /// assert_eq!(handle.snapshot()?.children[0].state, ChildState::Running);
        /// handle.stop(Exit::Shutdown).await?;
        /// assert!(handle.snapshot().is_err());
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// # }).unwrap();
        /// # }
        /// ```
        pub fn snapshot(&self) -> Result<Snapshot, Gone> {
            if self.shared.line.is_alive() { Ok(self.shared.snapshot()) } else { Err(Gone(None)) }
        }

        /// From now on, the reports of the supervisor and all below it. At most `capacity` wait to be read.
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
        /// let tree = Supervisor::new(RestartStrategy::OneForOne).child(clock);
        /// let handle = tree.start(Smol::global()).await?;
        /// let mut reports = handle.reports(100); // what was before is not told again
        /// handle.stop(Exit::Shutdown).await?;
        /// assert_eq!(reports.next().await.unwrap().to_string(), "root/clock stopped: shutdown");
        /// assert_eq!(reports.next().await.unwrap().to_string(), "root finished: shutdown");
        /// assert_eq!(reports.next().await, None);
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// # }).unwrap();
        /// # }
        /// ```
        pub fn reports(&self, capacity: usize) -> Reports {
            self.shared.listeners().subscribe(capacity)
        }

        /// Bytes that the supervisor has set aside for its list of children, besides what is in their specs and tasks.
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
        /// let before = handle.footprint();
        /// handle.start_child(clock).await?;
        /// assert!(handle.footprint() > before);
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// # }).unwrap();
        /// # }
        /// ```
        pub fn footprint(&self) -> usize {
            self.shared.tree().footprint()
        }
    };
}

impl SupervisorHandle {
    common!();

    fn ask<T>(&self, call: impl FnOnce(Reply<T>) -> Call<Listed>) -> Answer<T> {
        ask(&self.shared, call)
    }

    /// Adds a child behind the others and starts it. Returns its address, or nothing if it said that there is nothing to
    /// start. A start that fails leaves nothing behind, counts nothing and is not tried again.
    ///
    /// # Errors
    ///
    /// If the name is taken, the spec cannot be supervised here, or the start failed.
    ///
    /// ```
    /// use backplane_supervisor::{ChildSpec, RestartStrategy, Starting, Supervisor};
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// # smol::block_on(async {
    /// # let clock = backplane_supervisor::ChildSpec::new("clock", |device| {
    /// #     device.manage(std::future::pending::<Result<(), ()>>())
    /// # });
    ///
    /// let handle = Supervisor::new(RestartStrategy::OneForOne).start(Smol::global()).await?;
    /// let line = handle.start_child(clock).await?.expect("it runs");
    /// assert!(line.is_alive());
    ///
    /// let idle = ChildSpec::starting("idle", |device, starting: Starting| {
    ///     starting.ignore();
    ///     device.manage(async { Ok::<(), ()>(()) })
    /// });
    /// assert_eq!(handle.start_child(idle).await?, None); // listed, and not running
    /// assert_eq!(handle.count_children().await?.specs, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    pub fn start_child(
        &self,
        spec: ChildSpec,
    ) -> impl Future<Output = Result<Option<Line>, StartChildError>> + Send + use<> + 'static {
        let answer = self.ask(|reply| Call::Start(spec, reply));
        async move {
            match answer.await {
                Ok(answer) => answer.map(|started| started.map(|child| child.line)),
                Err(gone) => Err(StartChildError::Gone(gone)),
            }
        }
    }

    /// Ends a child by its shutdown rule. It stays listed, unless it is temporary. Of a child that is restarting, cancels
    /// the restart.
    ///
    /// # Errors
    ///
    /// If there is no such child.
    ///
    /// ```
    /// use backplane_supervisor::{ChildSpec, Restart, RestartStrategy, Supervisor};
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// # smol::block_on(async {
    /// # let clock = backplane_supervisor::ChildSpec::new("clock", |device| {
    /// #     device.manage(std::future::pending::<Result<(), ()>>())
    /// # });
    ///
    /// let guest = ChildSpec::new("guest", |device| device.manage(std::future::pending::<Result<(), ()>>()));
    /// let tree = Supervisor::new(RestartStrategy::OneForOne);
    /// let tree = tree.child(clock).child(guest.restart(Restart::Temporary));
    /// let handle = tree.start(Smol::global()).await?;
    /// handle.terminate_child("clock").await?;
    /// handle.terminate_child("guest").await?;
    /// assert!(handle.get_child_spec("clock").await?.is_some()); // may be restarted
    /// assert!(handle.get_child_spec("guest").await?.is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    pub fn terminate_child(
        &self,
        id: &str,
    ) -> impl Future<Output = Result<(), TerminateChildError>> + Send + use<> + 'static {
        let answer = self.ask(|reply| Call::Terminate(Target::Named(ChildId::from(id)), reply));
        async move { answer.await.unwrap_or_else(|gone| Err(TerminateChildError::Gone(gone))) }
    }

    /// Kills a child as a crash would: its task is dropped, and what follows is what follows any end with a fault. Resolves
    /// when the task has been dropped; its end is heard afterwards, when all that it held is gone. Nothing happens to a child
    /// that does not run. OTP's `exit(Pid, kill)`.
    ///
    /// # Errors
    ///
    /// If there is no such child.
    ///
    /// ```
    /// use backplane::{Exit, Fault};
    /// use backplane_supervisor::{Event, RestartStrategy, Supervisor};
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// # smol::block_on(async {
    /// # let clock = backplane_supervisor::ChildSpec::new("clock", |device| {
    /// #     device.manage(std::future::pending::<Result<(), ()>>())
    /// # });
    ///
    /// let tree = Supervisor::new(RestartStrategy::OneForOne).child(clock);
    /// let handle = tree.start(Smol::global()).await?;
    /// let mut reports = handle.reports(100);
    /// handle.kill_child("clock").await?;
    /// let ended = Event::Ended { exit: Exit::Fault(Fault::killed()), stopped: false };
    /// assert_eq!(reports.next().await.unwrap().event, ended);
    /// while reports.next().await.is_some_and(|report| report.event != Event::Started) {}
    /// assert_eq!(handle.snapshot()?.children[0].restarts, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    pub fn kill_child(
        &self,
        id: &str,
    ) -> impl Future<Output = Result<(), KillChildError>> + Send + use<> + 'static {
        let answer = self.ask(|reply| Call::Kill(Target::Named(ChildId::from(id)), reply));
        async move { answer.await.unwrap_or_else(|gone| Err(KillChildError::Gone(gone))) }
    }

    /// Starts a listed child that does not run. Not counted as a restart.
    ///
    /// # Errors
    ///
    /// If it runs or is restarting, there is none, or the start failed.
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
    /// let tree = Supervisor::new(RestartStrategy::OneForOne).child(clock);
    /// let handle = tree.start(Smol::global()).await?;
    /// handle.terminate_child("clock").await?;
    /// assert!(handle.restart_child("clock").await?.is_some());
    /// let clock = &handle.snapshot()?.children[0];
    /// assert_eq!((clock.incarnation, clock.restarts), (2, 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    pub fn restart_child(
        &self,
        id: &str,
    ) -> impl Future<Output = Result<Option<Line>, RestartChildError>> + Send + use<> + 'static {
        let answer = self.ask(|reply| Call::Restart(ChildId::from(id), reply));
        async move {
            let answer = answer.await.unwrap_or_else(|gone| Err(RestartChildError::Gone(gone)));
            answer.map(|started| started.map(|child| child.line))
        }
    }

    /// Takes a child that does not run off the list.
    ///
    /// # Errors
    ///
    /// If it runs or is restarting, or there is none.
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
    /// let tree = Supervisor::new(RestartStrategy::OneForOne).child(clock);
    /// let handle = tree.start(Smol::global()).await?;
    /// handle.terminate_child("clock").await?;
    /// handle.delete_child("clock").await?;
    /// assert_eq!(handle.count_children().await?.specs, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    pub fn delete_child(
        &self,
        id: &str,
    ) -> impl Future<Output = Result<(), DeleteChildError>> + Send + use<> + 'static {
        let answer = self.ask(|reply| Call::Delete(ChildId::from(id), reply));
        async move { answer.await.unwrap_or_else(|gone| Err(DeleteChildError::Gone(gone))) }
    }

    /// What the supervisor knows of a child; `None` if there is none of this name.
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
    /// let tree = Supervisor::new(RestartStrategy::OneForOne).child(clock);
    /// let handle = tree.start(Smol::global()).await?;
    /// let clock = handle.get_child_spec("clock").await?.expect("it is listed");
    /// assert_eq!(clock.restart, Restart::Permanent);
    /// assert_eq!(handle.get_child_spec("nobody").await?, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    pub fn get_child_spec(
        &self,
        id: &str,
    ) -> impl Future<Output = Result<Option<ChildInfo>, Gone>> + Send + use<> + 'static {
        self.ask(|reply| Call::Spec(ChildId::from(id), reply))
    }

    /// Changes which siblings a restart takes along, from now on.
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
    /// let tree = Supervisor::new(RestartStrategy::OneForOne).children(clock.replicas(2));
    /// let handle = tree.start(Smol::global()).await?;
    /// handle.set_strategy(RestartStrategy::OneForAll).await?;
    /// let mut reports = handle.reports(100);
    /// handle.kill_child("clock-1").await?;
    /// let mut started = Vec::new();
    /// while started.len() < 2 {
    ///     let report = reports.next().await.expect("it runs");
    ///     started.extend(report.child.filter(|_| report.event == Event::Started));
    /// }
    /// assert_eq!(started.join(" "), "clock-1 clock-2");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    pub fn set_strategy(
        &self,
        strategy: RestartStrategy,
    ) -> impl Future<Output = Result<(), Gone>> + Send + use<> + 'static {
        self.ask(|reply| Call::SetStrategy(strategy, reply))
    }
}

impl fmt::Debug for SupervisorHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SupervisorHandle({})", self.shared.path())
    }
}

/// The way to speak with a running [`DynamicSupervisor`](crate::DynamicSupervisor).
///
/// Every call is a message: it is put into the supervisor's inbox when the method is called, and answered in its turn. The
/// answer may be awaited or dropped. A handle does not keep the supervisor alive.
///
/// ```
/// use backplane_supervisor::{DynamicSupervisor, StartDynamicError};
/// # #[cfg(feature = "smol")] {
/// use backplane::runtime::Smol;
///
/// let clients = DynamicSupervisor::new(|device, client: u32| {
///     device.manage(async move {
///         println!("client {client}");
///         std::future::pending::<Result<(), ()>>().await
///     })
/// })
/// .max_children(1);
/// # smol::block_on(async {
/// let handle = clients.start(Smol::global()).await?;
/// let child = handle.start_child(7).await?.unwrap();
/// assert_eq!(handle.start_child(8).await, Err(StartDynamicError::Full(8)));
/// handle.terminate_child(child).await?;
/// assert_eq!(handle.count_children().await?.workers, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// # }
/// ```
pub struct DynamicHandle<A: Clone + Send + 'static> {
    pub(crate) shared: Arc<Shared<OneKind<A>>>,
}

impl<A: Clone + Send + 'static> Clone for DynamicHandle<A> {
    fn clone(&self) -> DynamicHandle<A> {
        DynamicHandle { shared: Arc::clone(&self.shared) }
    }
}

impl<A: Clone + Send + 'static> DynamicHandle<A> {
    common!(A);

    fn ask<T>(&self, call: impl FnOnce(Reply<T>) -> Call<OneKind<A>>) -> Answer<T> {
        ask(&self.shared, call)
    }

    /// Starts one more child with this argument; a restart uses the same. Returns the child, or nothing if it said that
    /// there is nothing to start.
    ///
    /// # Errors
    ///
    /// If there are as many children as there may be, or the start failed.
    ///
    /// ```
    /// use backplane_supervisor::DynamicSupervisor;
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// # smol::block_on(async {
    /// # let clients = DynamicSupervisor::new(|device, _: &str| {
    /// #     device.manage(std::future::pending::<Result<(), ()>>())
    /// # });
    ///
    /// let handle = clients.start(Smol::global()).await?;
    /// let first = handle.start_child("ann").await?.expect("it runs");
    /// let second = handle.start_child("ann").await?.expect("children have no names to be taken");
    /// assert_ne!(first, second);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    pub fn start_child(
        &self,
        argument: A,
    ) -> impl Future<Output = Result<Option<ChildRef>, StartDynamicError<A>>> + Send + use<A> + 'static {
        let answer = self.ask(|reply| Call::Start(argument, reply));
        async move { answer.await.unwrap_or_else(|gone| Err(StartDynamicError::Gone(gone))) }
    }

    /// Ends this incarnation of a child by its shutdown rule, and takes the child off the list. Of a child that is
    /// restarting since this incarnation ended, cancels the restart. An incarnation that has ended already, whosever it
    /// was, is no error.
    ///
    /// # Errors
    ///
    /// If it lives and is not a child of this supervisor.
    ///
    /// ```
    /// use backplane_supervisor::DynamicSupervisor;
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// # smol::block_on(async {
    /// # let clients = DynamicSupervisor::new(|device, _: u32| {
    /// #     device.manage(std::future::pending::<Result<(), ()>>())
    /// # });
    ///
    /// let handle = clients.start(Smol::global()).await?;
    /// let child = handle.start_child(7).await?.expect("it runs");
    /// handle.terminate_child(child).await?;
    /// assert_eq!(handle.count_children().await?.workers, 0);
    /// assert_eq!(handle.terminate_child(child).await, Ok(())); // it has ended, as it should
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    pub fn terminate_child(
        &self,
        child: ChildRef,
    ) -> impl Future<Output = Result<(), TerminateChildError>> + Send + use<A> + 'static {
        let answer = self.ask(|reply| Call::Terminate(Target::Exactly(child), reply));
        async move { answer.await.unwrap_or_else(|gone| Err(TerminateChildError::Gone(gone))) }
    }

    /// Kills this incarnation of a child as a crash would: its task is dropped, and what follows is what follows any end with a
    /// fault. Resolves when the task has been dropped. An incarnation that has ended already is no error.
    ///
    /// # Errors
    ///
    /// If it lives and is not a child of this supervisor.
    ///
    /// ```
    /// use backplane_supervisor::{DynamicSupervisor, Event, Restart};
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// # smol::block_on(async {
    /// # let clients = DynamicSupervisor::new(|device, _: u32| {
    /// #     device.manage(std::future::pending::<Result<(), ()>>())
    /// # });
    ///
    /// let handle = clients.restart(Restart::Temporary).start(Smol::global()).await?;
    /// let child = handle.start_child(7).await?.expect("it runs");
    /// let mut reports = handle.reports(100);
    /// handle.kill_child(child).await?;
    /// let report = reports.next().await.expect("its end is told");
    /// assert_eq!(report.device, Some(child.line().id()));
    /// assert!(matches!(report.event, Event::Ended { stopped: false, .. }));
    /// assert_eq!(handle.count_children().await?.workers, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    pub fn kill_child(
        &self,
        child: ChildRef,
    ) -> impl Future<Output = Result<(), KillChildError>> + Send + use<A> + 'static {
        let answer = self.ask(|reply| Call::Kill(Target::Exactly(child), reply));
        async move { answer.await.unwrap_or_else(|gone| Err(KillChildError::Gone(gone))) }
    }

    /// Ends a child by its shutdown rule, in whichever incarnation it is by now, and takes it off the list.
    ///
    /// # Errors
    ///
    /// If it is not listed any more.
    ///
    /// ```
    /// use backplane_supervisor::{DynamicSupervisor, Event, TerminateChildError};
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// # smol::block_on(async {
    /// # let clients = DynamicSupervisor::new(|device, _: u32| {
    /// #     device.manage(std::future::pending::<Result<(), ()>>())
    /// # });
    ///
    /// let handle = clients.start(Smol::global()).await?;
    /// let child = handle.start_child(7).await?.expect("it runs");
    /// let mut reports = handle.reports(100);
    /// handle.kill_child(child).await?;
    /// while reports.next().await.is_some_and(|report| report.event != Event::Started) {}
    ///
    /// handle.terminate_child(child).await?; // that incarnation has ended: nothing happens
    /// assert_eq!(handle.count_children().await?.active, 1);
    /// handle.remove_child(child).await?;
    /// assert_eq!(handle.count_children().await?.active, 0);
    /// assert_eq!(handle.remove_child(child).await, Err(TerminateChildError::NotFound));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    pub fn remove_child(
        &self,
        child: ChildRef,
    ) -> impl Future<Output = Result<(), TerminateChildError>> + Send + use<A> + 'static {
        let answer = self.ask(|reply| Call::Terminate(Target::Whichever(child.key), reply));
        async move { answer.await.unwrap_or_else(|gone| Err(TerminateChildError::Gone(gone))) }
    }

    /// What the supervisor knows of its children's common spec.
    ///
    /// ```
    /// use backplane_supervisor::{ChildKind, DynamicSupervisor};
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// # smol::block_on(async {
    /// # let clients = DynamicSupervisor::new(|device, _: u32| {
    /// #     device.manage(std::future::pending::<Result<(), ()>>())
    /// # });
    ///
    /// let spec = clients.start(Smol::global()).await?.get_child_spec().await?;
    /// assert_eq!((&*spec.id, spec.kind), ("child", ChildKind::Worker));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    pub fn get_child_spec(&self) -> impl Future<Output = Result<ChildInfo, Gone>> + Send + use<A> + 'static {
        let answer = self.ask(|reply| Call::Spec(ChildId::from(""), reply));
        async move { answer.await?.ok_or(Gone(None)) }
    }

    /// Changes how many children there may be, from now on. Those that are there stay.
    ///
    /// ```
    /// use backplane_supervisor::{DynamicSupervisor, StartDynamicError};
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// # smol::block_on(async {
    /// # let clients = DynamicSupervisor::new(|device, _: u32| {
    /// #     device.manage(std::future::pending::<Result<(), ()>>())
    /// # });
    ///
    /// let handle = clients.start(Smol::global()).await?;
    /// handle.start_child(1).await?;
    /// handle.start_child(2).await?;
    /// handle.set_max_children(Some(1)).await?;
    /// assert_eq!(handle.count_children().await?.active, 2); // nobody is sent away
    /// assert_eq!(handle.start_child(3).await, Err(StartDynamicError::Full(3)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    pub fn set_max_children(
        &self,
        max: Option<usize>,
    ) -> impl Future<Output = Result<(), Gone>> + Send + use<A> + 'static {
        self.ask(|reply| Call::SetMax(max, reply))
    }
}

impl<A: Clone + Send + 'static> fmt::Debug for DynamicHandle<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DynamicHandle({})", self.shared.path())
    }
}

fn ask<K: Kind, T>(shared: &Arc<Shared<K>>, call: impl FnOnce(Reply<T>) -> Call<K>) -> Answer<T> {
    let (reply, answer) = reply();
    shared.call(call(reply));
    answer
}
