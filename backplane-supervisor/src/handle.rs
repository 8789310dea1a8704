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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone(pub(crate) Option<Exit>);

impl Gone {
    /// How it ended, if it did so before it came to answer; `None` if it was gone when it was called (OTP's `noproc`).
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChildRef {
    pub(crate) key: Key,
    pub(crate) line: Line,
}

impl ChildRef {
    /// The address of this incarnation.
    pub fn line(&self) -> Line {
        self.line
    }
}

/// What a listed child does, in a [`Row`].
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
    pub fn child(&self) -> Option<ChildRef> {
        match self.state {
            RowState::Running(line) => Some(ChildRef { key: self.key, line }),
            RowState::Restarting | RowState::Down => None,
        }
    }
}

/// The answer to count_children.
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
        pub fn line(&self) -> Line {
            self.shared.line
        }

        /// Its path: ids from the root down joined with `/`.
        pub fn path(&self) -> &str {
            self.shared.path()
        }

        /// The children, the newest first, as OTP lists them.
        pub fn which_children(&self) -> impl Future<Output = Result<Vec<Row>, Gone>> + Send + use<$($captured)*> + 'static {
            self.ask(Call::Which)
        }

        /// How many there are.
        pub fn count_children(&self) -> impl Future<Output = Result<Counts, Gone>> + Send + use<$($captured)*> + 'static {
            self.ask(Call::Count)
        }

        /// Changes how many restarts are too many, from now on. Those that were noted stay noted.
        pub fn set_intensity(
            &self,
            intensity: Intensity,
        ) -> impl Future<Output = Result<(), Gone>> + Send + use<$($captured)*> + 'static {
            self.ask(|reply| Call::SetIntensity(intensity, reply))
        }

        /// Ends the children in order and then the supervisor itself, with `exit`. Resolves when it has ended.
        ///
        /// What its parent does about it depends on `exit`, as with any child.
        pub fn stop(&self, exit: Exit) -> impl Future<Output = Result<Stopped, Gone>> + Send + use<$($captured)*> + 'static {
            self.ask(|reply| Call::Stop(exit, reply))
        }

        /// The supervisor and all below it as they are now. Waits for nobody: it can be had during a slow start, too.
        ///
        /// # Errors
        ///
        /// If the supervisor has ended.
        pub fn snapshot(&self) -> Result<Snapshot, Gone> {
            if self.shared.line.is_alive() { Ok(self.shared.snapshot()) } else { Err(Gone(None)) }
        }

        /// From now on, the reports of the supervisor and all below it. At most `capacity` wait to be read.
        pub fn reports(&self, capacity: usize) -> Reports {
            self.shared.listeners().subscribe(capacity)
        }

        /// Bytes that the supervisor has set aside for its list of children, besides what is in their specs and tasks.
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
    pub fn delete_child(
        &self,
        id: &str,
    ) -> impl Future<Output = Result<(), DeleteChildError>> + Send + use<> + 'static {
        let answer = self.ask(|reply| Call::Delete(ChildId::from(id), reply));
        async move { answer.await.unwrap_or_else(|gone| Err(DeleteChildError::Gone(gone))) }
    }

    /// What the supervisor knows of a child; `None` if there is none of this name.
    pub fn get_child_spec(
        &self,
        id: &str,
    ) -> impl Future<Output = Result<Option<ChildInfo>, Gone>> + Send + use<> + 'static {
        self.ask(|reply| Call::Spec(ChildId::from(id), reply))
    }

    /// Changes which siblings a restart takes along, from now on.
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
    pub fn remove_child(
        &self,
        child: ChildRef,
    ) -> impl Future<Output = Result<(), TerminateChildError>> + Send + use<A> + 'static {
        let answer = self.ask(|reply| Call::Terminate(Target::Whichever(child.key), reply));
        async move { answer.await.unwrap_or_else(|gone| Err(TerminateChildError::Gone(gone))) }
    }

    /// What the supervisor knows of its children's common spec.
    pub fn get_child_spec(&self) -> impl Future<Output = Result<ChildInfo, Gone>> + Send + use<A> + 'static {
        let answer = self.ask(|reply| Call::Spec(ChildId::from(""), reply));
        async move { answer.await?.ok_or(Gone(None)) }
    }

    /// Changes how many children there may be, from now on. Those that are there stay.
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
