//! What to do next, without doing it.
//!
//! A [`Tree`] is one supervisor's mind: it is told what happened and says, one [`Action`] at a time, what to do about it.
//! It reads no clock, spawns nothing and sends nothing, so a test can put it through a year in a millisecond, and the
//! traces of the real Erlang/OTP can be held against it directly.
//!
//! How it is driven: tell it an event ([`boot`](Tree::boot), [`ended`](Tree::ended), [`retry`](Tree::retry), ...), then do
//! what [`next`](Tree::next) says until it says `None`. A `Start` is answered by [`started`](Tree::started),
//! [`ignored`](Tree::ignored) or [`failed`](Tree::failed), a `Stop` by [`stopped`](Tree::stopped), before the next `next`.
//! Events are told only in between: a supervisor handles one thing at a time.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::backoff::{Backoff, Strikes};
use crate::names::Names;
use crate::order::{Key, Order};

/// Which siblings a restart takes along.
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
/// for (strategy, expected) in [
///     (RestartStrategy::OneForOne, "clock-2"),
///     (RestartStrategy::RestForOne, "clock-2 clock-3"),
///     (RestartStrategy::OneForAll, "clock-1 clock-2 clock-3"),
/// ] {
///     let tree = Supervisor::new(strategy).children(clock.clone().replicas(3));
///     let handle = tree.start(Smol::global()).await?;
/// #   let mut reports = handle.reports(100);
///     handle.kill_child("clock-2").await?;
/// #   let mut started = Vec::new();
/// #   while let Some(report) = reports.next().await {
/// #       match report.event {
/// #           Event::Started => started.extend(report.child),
/// #           // Obeyed after the restart.
/// #           Event::ChildTerminated(_) => drop(handle.stop(backplane::Exit::Shutdown)),
/// #           _ => {}
/// #       }
/// #   }
///     // Who is started again:
///     assert_eq!(started.join(" "), expected);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RestartStrategy {
    /// None: children that do not depend on each other.
    #[default]
    OneForOne,
    /// All of them: children that all depend on each other.
    OneForAll,
    /// Those that were started after it: each child depends on the ones before it.
    RestForOne,
}

/// When a child is started again after it has ended.
///
/// ```
/// use backplane::Device;
/// use backplane_supervisor::{Event, Restart, RestartStrategy, RowState, Supervisor};
/// # #[cfg(feature = "smol")] {
/// use backplane::runtime::Smol;
/// # smol::block_on(async {
/// # let clock = backplane_supervisor::ChildSpec::new("clock", |device| {
/// #     device.manage(std::future::pending::<Result<(), ()>>())
/// # });
///
/// let tree = Supervisor::new(RestartStrategy::OneForOne).child(clock.restart(Restart::Transient));
/// let handle = tree.start(Smol::global()).await?;
/// let mut reports = handle.reports(100);
/// handle.kill_child("clock").await?; // a fault: it is started again
/// while reports.next().await.is_some_and(|report| report.event != Event::Started) {}
///
/// let child = handle.which_children().await?[0].child().expect("it runs");
/// child.line().shutdown(Device::new().id()); // a clean end: it is not
/// while reports.next().await.is_some_and(|report| !matches!(report.event, Event::Ended { .. })) {}
/// assert_eq!(handle.which_children().await?[0].state, RowState::Down);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Restart {
    /// Always, however it ended.
    #[default]
    Permanent,
    /// Only if it ended with a fault.
    Transient,
    /// Never. It leaves the supervisor's list when it ends.
    Temporary,
}

/// How many restarts are too many: more than `restarts` within any stretch of `period`.
///
/// The boundary is OTP's: a restart exactly `period` ago still counts, and the supervisor gives up when the number is
/// exceeded, not when it is reached. As in OTP, too, a restart that is older than the period is forgotten when the next one is
/// noted.
///
/// ```
/// use backplane_supervisor::{Intensity, RestartStrategy, Supervisor};
/// use std::time::Duration;
///
/// // The eleventh restart within a minute is too many.
/// let tree = Supervisor::new(RestartStrategy::OneForOne)
///     .intensity(Intensity { restarts: 10, period: Duration::from_secs(60) });
/// # drop(tree);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Intensity {
    /// The number of restarts that is still tolerated.
    pub restarts: u32,
    /// The length of the sliding window.
    pub period: Duration,
}

impl Intensity {
    /// OTP's default: one restart in five seconds.
    pub const DEFAULT: Intensity = Intensity { restarts: 1, period: Duration::from_secs(5) };
}

impl Default for Intensity {
    fn default() -> Intensity {
        Intensity::DEFAULT
    }
}

/// Whether a supervisor stops by itself when its significant children have ended.
///
/// ```
/// use backplane_supervisor::{AutoShutdown, ChildSpec, Restart, RestartStrategy, SpecError, Supervisor};
///
/// let job = ChildSpec::new("job", |device| device.manage(async { Ok::<(), ()>(()) }))
///     .restart(Restart::Transient)
///     .significant();
/// let tree = Supervisor::new(RestartStrategy::OneForOne).child(job);
/// assert_eq!(tree.check(), Err(SpecError::SignificantNeverShutsDown("job".into())));
/// assert_eq!(tree.auto_shutdown(AutoShutdown::AllSignificant).check(), Ok(()));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AutoShutdown {
    /// It does not.
    #[default]
    Never,
    /// When the first of them has ended by itself and is not started again.
    AnySignificant,
    /// When one has ended so and none of the others is running.
    AllSignificant,
}

/// A restart budget of one child, beside the supervisor's own [`Intensity`].
///
/// ```
/// use backplane_supervisor::{Budget, ChildSpec, Exceeded, Intensity};
/// use std::time::Duration;
///
/// // A child that one can do without.
/// let extra = ChildSpec::new("extra", |device| device.manage(std::future::pending::<Result<(), ()>>())).budget(Budget {
///     intensity: Intensity { restarts: 3, period: Duration::from_secs(60) },
///     exceeded: Exceeded::LeaveDown,
/// });
/// # drop(extra);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Budget {
    /// How often this child may be restarted.
    pub intensity: Intensity,
    /// What happens when that is exceeded.
    pub exceeded: Exceeded,
}

/// What happens to a child that has exceeded its own [`Budget`].
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
/// let intensity = Intensity { restarts: 0, period: Duration::from_secs(60) };
/// for (exceeded, event) in [(Exceeded::GiveUp, Event::GaveUp), (Exceeded::LeaveDown, Event::LeftDown)] {
///     let clock = clock.clone().budget(Budget { intensity, exceeded });
///     let tree = Supervisor::new(RestartStrategy::OneForOne).child(clock);
///     let handle = tree.start(Smol::global()).await?;
///     let mut reports = handle.reports(100);
///     handle.kill_child("clock").await?;
///     while reports.next().await.is_some_and(|report| report.event != event) {}
///     // Left down, it can be asked about; given up, there is nobody to ask.
///     assert_eq!(handle.which_children().await.is_ok(), exceeded == Exceeded::LeaveDown);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Exceeded {
    /// The supervisor gives up, as if its own intensity had been exceeded.
    #[default]
    GiveUp,
    /// The child stays down and listed; its siblings go on. This restart is not counted by the supervisor.
    LeaveDown,
}

/// How a child ended, as far as a verdict depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Normal,
    Shutdown,
    Killed,
    Fault,
}

impl End {
    /// No reason to start a transient child again.
    fn is_ordinary(self) -> bool {
        matches!(self, End::Normal | End::Shutdown)
    }
}

/// What a child does at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Not running and not about to.
    Down,
    /// Its start attempt is being made.
    Starting,
    Running,
    /// A restart failed, or waits for its backoff; a note to try (again) is in the inbox or in a timer.
    Restarting {
        /// The restart has been counted already.
        counted: bool,
    },
}

/// What the tree asks a child's body: what it is found by. Children of one kind have no name.
pub(crate) trait Named {
    fn name(&self) -> Option<&Arc<str>>;
}

/// What sort of child it is, in one byte: there may be a million of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sort(u8);

impl Sort {
    const SIGNIFICANT: u8 = 4;
    const BRUTAL: u8 = 8;
    const SUPERVISOR: u8 = 16;
    /// How it ended last, which is no sort, but has no other place that is free.
    const NORMAL: u8 = 32;
    const SHUTDOWN: u8 = 64;

    fn new(restart: Restart) -> Sort {
        Sort(match restart {
            Restart::Permanent => 0,
            Restart::Transient => 1,
            Restart::Temporary => 2,
        })
    }

    fn with(self, bit: u8, on: bool) -> Sort {
        Sort(if on { self.0 | bit } else { self.0 })
    }
}

/// A child: what a verdict depends on, and a body that the tree keeps and asks for nothing but its name.
pub(crate) struct Child<B> {
    sort: Sort,
    pub(crate) state: State,
    /// What the body's owner keeps beside it. In the body it would be eight bytes instead of these six.
    pub(crate) beside: [u8; 5],
    pub(crate) phase: Phase,
    pub(crate) body: B,
}

/// How far a child's incarnation is, for who does what the tree says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// There has been none.
    New,
    Begun,
    /// Its end is still to be handled.
    Ended,
}

impl<B> Child<B> {
    pub(crate) fn new(restart: Restart, body: B) -> Child<B> {
        Child { sort: Sort::new(restart), state: State::Down, beside: [0; 5], phase: Phase::New, body }
    }

    /// Its end counts for the supervisor's.
    pub(crate) fn significant(mut self, is: bool) -> Child<B> {
        self.sort = self.sort.with(Sort::SIGNIFICANT, is);
        self
    }

    /// To be killed is how it is to end.
    pub(crate) fn brutal(mut self, is: bool) -> Child<B> {
        self.sort = self.sort.with(Sort::BRUTAL, is);
        self
    }

    pub(crate) fn supervisor(mut self, is: bool) -> Child<B> {
        self.sort = self.sort.with(Sort::SUPERVISOR, is);
        self
    }

    fn restart(&self) -> Restart {
        match self.sort.0 & 3 {
            0 => Restart::Permanent,
            1 => Restart::Transient,
            _ => Restart::Temporary,
        }
    }

    fn is_significant(&self) -> bool {
        self.sort.0 & Sort::SIGNIFICANT != 0
    }

    pub(crate) fn is_supervisor(&self) -> bool {
        self.sort.0 & Sort::SUPERVISOR != 0
    }

    /// The ordinary end that was noted, if one was.
    pub(crate) fn ordinary_end(&self) -> Option<End> {
        match self.sort.0 & (Sort::NORMAL | Sort::SHUTDOWN) {
            Sort::NORMAL => Some(End::Normal),
            Sort::SHUTDOWN => Some(End::Shutdown),
            _ => None,
        }
    }

    /// Notes an ordinary end, which takes no room, in the place of the one before. Any other is kept elsewhere.
    pub(crate) fn set_ordinary_end(&mut self, end: Option<End>) {
        let bit = match end {
            Some(End::Normal) => Sort::NORMAL,
            Some(End::Shutdown) => Sort::SHUTDOWN,
            _ => 0,
        };
        self.sort.0 = self.sort.0 & !(Sort::NORMAL | Sort::SHUTDOWN) | bit;
    }
}

/// What slows a child's restarts down, or ends them, beyond what OTP has.
pub(crate) struct Pace {
    strikes: Strikes,
    budget: Option<(Window, Exceeded)>,
    /// Before that it is not to be started again, whatever was to come of a wait before this one.
    waits_until: Option<Instant>,
}

impl Pace {
    /// Nothing, if neither backoff nor budget is wanted.
    pub(crate) fn new(backoff: Backoff, budget: Option<Budget>, salt: impl FnOnce() -> u64) -> Option<Pace> {
        if backoff.is_immediate() && budget.is_none() {
            return None;
        }
        let budget = budget.map(|budget| (Window::new(budget.intensity), budget.exceeded));
        Some(Pace { strikes: Strikes::new(backoff, salt()), budget, waits_until: None })
    }
}

/// The restarts that still count.
#[derive(Debug)]
pub(crate) struct Window {
    intensity: Intensity,
    /// At most `intensity.restarts` of them, the oldest first.
    recent: VecDeque<Instant>,
}

impl Window {
    pub(crate) fn new(intensity: Intensity) -> Window {
        Window { intensity, recent: VecDeque::new() }
    }

    /// Notes a restart; whether it is one too many.
    pub(crate) fn is_exceeded_by(&mut self, now: Instant) -> bool {
        // What came before that is too old to count. One subtraction, for the clock's unit is no plain number.
        let begin = now.checked_sub(self.intensity.period);
        let is_old = |then: Instant| begin.is_some_and(|begin| then < begin);
        // Only the note `restarts` before this one can decide, if it is young enough; so no more are kept.
        let full = self.recent.len() >= self.intensity.restarts as usize;
        if full {
            let decisive = self.recent.pop_front();
            if decisive.is_none_or(|then| !is_old(then)) {
                return true;
            }
        }
        self.recent.push_back(now);
        // What is too old to decide anything goes, as in OTP: a large intensity is no large memory.
        while self.recent.front().is_some_and(|then| is_old(*then)) {
            self.recent.pop_front();
        }
        false
    }

    /// Counts by another measure from now on; what has been noted stays noted.
    pub(crate) fn set_intensity(&mut self, intensity: Intensity) {
        self.intensity = intensity;
        while self.recent.len() > intensity.restarts as usize {
            self.recent.pop_front();
        }
    }
}

/// Whether the children are listed in the supervisor's plan or are all of one kind and come and go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Members {
    Listed,
    /// OTP's `simple_one_for_one`.
    OfOneKind,
}

/// What an error report is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Context {
    /// A child has ended by itself.
    ChildTerminated,
    /// A start attempt failed.
    StartError,
    /// A child that was being stopped ended in a way that was not asked for.
    ShutdownError,
}

/// Why a supervisor ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It was asked to.
    Asked,
    /// One restart was too many.
    GaveUp,
    /// Its significant children have ended.
    Auto,
    /// This child failed in the initial start.
    FailedToStart(Key),
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Make a start attempt.
    Start(Key),
    /// End this child, by its shutdown rule.
    Stop(Key),
    /// End all running children at once, each by its shutdown rule.
    StopTogether,
    /// All initial children are started.
    Booted,
    /// Put a note into the inbox, behind what is there: [`Tree::retry`] this child.
    Retry(Key),
    /// The same after a while.
    RetryAfter(Key, Duration),
    /// Tell of an error.
    Report(Context, Key),
    /// Tell that one restart of this child was too many.
    GaveUp(Key),
    /// Tell that this child has exceeded its own budget and stays down.
    LeftDown(Key),
    /// A child has left the list: [`Tree::take_forgotten`] drops it where that is no harm.
    Forget,
    /// Nothing runs any more: end.
    Finish(Ending),
}

/// A start_child that cannot be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    Running(Key),
    Present,
}

/// A restart_child or delete_child that cannot be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Running,
    Restarting,
    NotFound,
}

/// How many children of which sort there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) listed: usize,
    pub(crate) running: usize,
    pub(crate) supervisors: usize,
}

/// One supervisor's mind. See the module's head for how it is driven.
pub(crate) struct Tree<B> {
    strategy: RestartStrategy,
    auto_shutdown: AutoShutdown,
    members: Members,
    window: Window,
    children: Order<Child<B>>,
    names: Names,
    /// Of the few that have one.
    paces: HashMap<Key, Pace>,
    running: usize,
    significant_running: usize,
    supervisors: usize,
    doing: Doing,
    forgotten: Option<Child<B>>,
    /// Whose start attempt is being made, if nobody waits for it and nothing comes after it.
    quiet: Option<Key>,
}

/// What is being done, and where in the list.
#[derive(Clone, Copy, Debug)]
enum Doing {
    Nothing,
    /// The initial start; `at` is next.
    Boot {
        at: Option<Key>,
    },
    BootFailed {
        key: Key,
    },
    /// A child has ended by itself.
    Ended {
        now: Instant,
        key: Key,
        end: End,
    },
    /// The same, after the report.
    Verdict {
        now: Instant,
        key: Key,
        end: End,
    },
    /// A restart is due.
    Restart {
        now: Instant,
        key: Key,
        count: bool,
        pause: bool,
    },
    /// The group that restarts with `culprit` is ended, from the last one down; `at` is next.
    StopGroup {
        at: Option<Key>,
        group: Group,
        odd: bool,
        pause: Option<Duration>,
    },
    /// The group is started, upwards; `at` is next.
    StartGroup {
        at: Option<Key>,
    },
    StartOne {
        key: Key,
    },
    /// A restart failed.
    Failed {
        now: Instant,
        key: Key,
    },
    Again {
        now: Instant,
        key: Key,
    },
    /// start_child (of a child that is new to the list) or restart_child.
    StartCall {
        key: Key,
        new: bool,
    },
    Terminate {
        key: Key,
        odd: bool,
    },
    /// All are ended, from the last one down; `at` is next.
    StopAll {
        at: Option<Key>,
        odd: bool,
        ending: Ending,
    },
    StopTogether {
        ending: Ending,
    },
    Finish {
        ending: Ending,
    },
}

#[derive(Clone, Copy, Debug)]
struct Group {
    culprit: Key,
    everybody: bool,
}

impl<B: Named> Tree<B> {
    pub(crate) fn new(
        members: Members,
        strategy: RestartStrategy,
        intensity: Intensity,
        auto_shutdown: AutoShutdown,
    ) -> Tree<B> {
        Tree {
            strategy,
            auto_shutdown,
            members,
            window: Window::new(intensity),
            children: Order::new(),
            names: Names::default(),
            paces: HashMap::new(),
            running: 0,
            significant_running: 0,
            supervisors: 0,
            doing: Doing::Nothing,
            forgotten: None,
            quiet: None,
        }
    }

    // ---- looking -------------------------------------------------------------------------------------------------

    pub(crate) fn get(&self, key: Key) -> Option<&Child<B>> {
        self.children.get(key)
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut Child<B>> {
        self.children.get_mut(key)
    }

    pub(crate) fn find(&self, name: &str) -> Option<Key> {
        let index = self.names.find(name, |index| name_at(&self.children, index))?;
        self.children.key_of(index)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, &Child<B>)> {
        self.children.iter()
    }

    pub(crate) fn iter_back(&self) -> impl Iterator<Item = (Key, &Child<B>)> {
        self.children.iter_back()
    }

    pub(crate) fn tally(&self) -> Tally {
        Tally { listed: self.children.len(), running: self.running, supervisors: self.supervisors }
    }

    /// Bytes set aside for children.
    pub(crate) fn footprint(&self) -> usize {
        self.children.footprint() + self.names.footprint() + self.paces.capacity() * size_of::<(Key, Pace)>()
    }

    pub(crate) fn auto_shutdown(&self) -> AutoShutdown {
        self.auto_shutdown
    }

    /// Whether it ends its children for good.
    pub(crate) fn is_ending(&self) -> bool {
        matches!(self.doing, Doing::StopAll { .. } | Doing::StopTogether { .. } | Doing::Finish { .. })
    }

    /// Whether a child that was being stopped has ended in a way that was not asked for.
    pub(crate) fn is_unexpected(&self, key: Key, end: End) -> bool {
        self.children.get(key).is_some_and(|child| {
            let asked_for = if child.sort.0 & Sort::BRUTAL != 0 { End::Killed } else { End::Shutdown };
            end != asked_for && (child.restart() == Restart::Permanent || !end.is_ordinary())
        })
    }

    // ---- events --------------------------------------------------------------------------------------------------

    /// Adds a child to the initial list, without starting it; unless its name is taken, by whom is said.
    pub(crate) fn list(&mut self, child: Child<B>) -> Result<Key, (Child<B>, Key)> {
        let mut vacancy = None;
        if self.members == Members::Listed
            && let Some(name) = child.body.name()
        {
            match self.names.vacancy(name, |index| name_at(&self.children, index)) {
                Ok(place) => vacancy = Some(place),
                Err(by) => {
                    if let Some(by) = self.children.key_of(by) {
                        return Err((child, by));
                    }
                }
            }
        }
        self.supervisors += usize::from(child.is_supervisor());
        let key = self.children.push(child);
        if let Some(vacancy) = vacancy {
            self.names.fill(vacancy, key);
        }
        Ok(key)
    }

    /// Makes room for so many more names.
    pub(crate) fn reserve(&mut self, more: usize) {
        self.names.reserve(more, |index| name_at(&self.children, index));
    }

    /// What slows this child down.
    pub(crate) fn set_pace(&mut self, key: Key, pace: Option<Pace>) {
        if let Some(pace) = pace {
            self.paces.insert(key, pace);
        }
    }

    fn pace_of(&mut self, key: Key) -> Option<&mut Pace> {
        if self.paces.is_empty() { None } else { self.paces.get_mut(&key) }
    }

    /// The initial start.
    pub(crate) fn boot(&mut self) {
        self.doing = Doing::Boot { at: self.children.first() };
    }

    /// A running child has ended by itself. A child that is not running has had its end handled already.
    pub(crate) fn ended(&mut self, now: Instant, key: Key, end: End) {
        if self.state(key) == Some(State::Running) {
            self.doing = Doing::Ended { now, key, end };
        }
    }

    /// The same where nobody is told that it has.
    pub(crate) fn ended_untold(&mut self, now: Instant, key: Key, end: End) {
        if self.state(key) == Some(State::Running) {
            self.doing = Doing::Verdict { now, key, end };
        }
    }

    /// A note to retry has come. It means nothing to a child that is not restarting any more, or that waits for longer.
    pub(crate) fn retry(&mut self, now: Instant, key: Key) {
        if let Some(State::Restarting { counted }) = self.state(key)
            && self.retries_at(key, now)
        {
            self.doing = Doing::Restart { now, key, count: !counted, pause: false };
        }
    }

    /// Whether a note to retry that comes then means something, as things are now.
    pub(crate) fn retries_at(&self, key: Key, then: Instant) -> bool {
        let pace = if self.paces.is_empty() { None } else { self.paces.get(&key) };
        matches!(self.state(key), Some(State::Restarting { .. }))
            && pace.and_then(|pace| pace.waits_until).is_none_or(|until| then >= until)
    }

    /// End all and then yourself, whatever is being done at the moment.
    pub(crate) fn shut_down(&mut self) {
        self.stop_all(Ending::Asked);
    }

    /// start_child.
    pub(crate) fn add(&mut self, child: Child<B>) -> Result<Key, (Child<B>, Taken)> {
        match self.list(child) {
            Ok(key) => {
                self.doing = Doing::StartCall { key, new: true };
                Ok(key)
            }
            Err((child, by)) if self.state(by) == Some(State::Running) => Err((child, Taken::Running(by))),
            Err((child, _)) => Err((child, Taken::Present)),
        }
    }

    /// terminate_child.
    pub(crate) fn terminate(&mut self, key: Key) {
        if self.children.get(key).is_some() {
            self.doing = Doing::Terminate { key, odd: false };
        }
    }

    /// restart_child.
    pub(crate) fn restart_child(&mut self, key: Key) -> Result<(), Refusal> {
        self.must_be_down(key)?;
        self.doing = Doing::StartCall { key, new: false };
        Ok(())
    }

    /// delete_child.
    pub(crate) fn delete(&mut self, key: Key) -> Result<Child<B>, Refusal> {
        self.must_be_down(key)?;
        self.remove(key).ok_or(Refusal::NotFound)
    }

    pub(crate) fn set_strategy(&mut self, strategy: RestartStrategy) {
        self.strategy = strategy;
    }

    pub(crate) fn set_intensity(&mut self, intensity: Intensity) {
        self.window.set_intensity(intensity);
    }

    // ---- answers -------------------------------------------------------------------------------------------------

    /// The start attempt has succeeded.
    pub(crate) fn started(&mut self, now: Instant, key: Key) {
        self.set_state(key, State::Running);
        if let Some(pace) = self.pace_of(key) {
            pace.strikes.started(now);
        }
        self.doing = match self.doing {
            Doing::Boot { .. } => Doing::Boot { at: self.children.after(key) },
            Doing::StartGroup { .. } => Doing::StartGroup { at: self.children.after(key) },
            _ => Doing::Nothing,
        };
    }

    /// A start attempt begins. If nobody need wait for it and nothing comes after it, nobody does, which is returned: that it
    /// went well is then for [`polled_quietly`](Tree::polled_quietly) to hear.
    pub(crate) fn begin_attempt(&mut self, key: Key, nobody: bool) -> bool {
        let last = matches!(self.doing, Doing::StartOne { key: of } if of == key);
        let quiet = nobody && last && self.paces.is_empty();
        self.quiet = quiet.then_some(key);
        quiet
    }

    /// As [`started`](Tree::started), of the attempt that nobody waits for.
    pub(crate) fn polled_quietly(&mut self) {
        if let Some(key) = self.quiet.take() {
            self.set_state(key, State::Running);
            self.doing = Doing::Nothing;
        }
    }

    /// Whether there is a start attempt that nobody waits for.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet.is_some()
    }

    /// From now on there is somebody who waits. False if there is nothing to wait for any more.
    pub(crate) fn be_loud(&mut self) -> bool {
        self.quiet.take().is_some()
    }

    /// The start attempt has said that there is nothing to start. Returns the child if that makes it leave the list.
    pub(crate) fn ignored(&mut self, key: Key) -> Option<Child<B>> {
        self.set_state(key, State::Down);
        let after = self.children.after(key);
        let temporary = self.children.get(key).is_some_and(|child| child.restart() == Restart::Temporary);
        let leaves = match self.doing {
            Doing::Boot { .. } | Doing::StartCall { new: true, .. } => {
                temporary || self.members == Members::OfOneKind
            }
            Doing::StartOne { .. } => self.members == Members::OfOneKind,
            _ => false,
        };
        self.doing = match self.doing {
            Doing::Boot { .. } => Doing::Boot { at: after },
            Doing::StartGroup { .. } => Doing::StartGroup { at: after },
            _ => Doing::Nothing,
        };
        if leaves { self.remove(key) } else { None }
    }

    /// The child that has left the list, after [`Action::Forget`].
    pub(crate) fn take_forgotten(&mut self) -> Option<Child<B>> {
        self.forgotten.take()
    }

    /// The start attempt has failed. Returns the child if that makes it leave the list.
    pub(crate) fn failed(&mut self, now: Instant, key: Key) -> Option<Child<B>> {
        self.set_state(key, State::Down);
        match self.doing {
            Doing::Boot { .. } => self.doing = Doing::BootFailed { key },
            Doing::StartCall { new, .. } => {
                self.doing = Doing::Nothing;
                if new {
                    return self.remove(key);
                }
            }
            _ => self.doing = Doing::Failed { now, key },
        }
        None
    }

    /// A child that was to be stopped has ended.
    pub(crate) fn stopped(&mut self, key: Key, end: End) {
        let unexpected = self.is_unexpected(key, end);
        self.set_state(key, State::Down);
        match &mut self.doing {
            Doing::StopGroup { odd, .. } | Doing::Terminate { odd, .. } | Doing::StopAll { odd, .. } => {
                *odd = unexpected
            }
            _ => {}
        }
    }

    // ---- thinking ------------------------------------------------------------------------------------------------

    /// What to do next; `None` when there is nothing to do until something happens.
    pub(crate) fn next(&mut self) -> Option<Action> {
        loop {
            match self.doing {
                Doing::Nothing => return None,

                Doing::Boot { at: None } => {
                    self.doing = Doing::Nothing;
                    return Some(Action::Booted);
                }
                Doing::Boot { at: Some(key) } | Doing::StartGroup { at: Some(key) } => {
                    return Some(self.start(key));
                }
                Doing::BootFailed { key } => {
                    self.stop_all(Ending::FailedToStart(key));
                    return Some(Action::Report(Context::StartError, key));
                }

                Doing::Ended { now, key, end } => {
                    self.doing = Doing::Verdict { now, key, end };
                    if self.restart_of(key) == Restart::Permanent || !end.is_ordinary() {
                        return Some(Action::Report(Context::ChildTerminated, key));
                    }
                }
                Doing::Verdict { now, key, end } => {
                    let restart = match self.restart_of(key) {
                        Restart::Permanent => true,
                        Restart::Transient => !end.is_ordinary(),
                        Restart::Temporary => false,
                    };
                    if restart {
                        self.doing = Doing::Restart { now, key, count: true, pause: true };
                        continue;
                    }
                    self.set_state(key, State::Down);
                    match self.is_last_straw(key) {
                        true => self.stop_all(Ending::Auto),
                        false => self.doing = Doing::Nothing,
                    }
                    let leaves =
                        self.restart_of(key) == Restart::Temporary || self.members == Members::OfOneKind;
                    if leaves && let Some(child) = self.forget(key) {
                        self.forgotten = Some(child);
                        return Some(Action::Forget);
                    }
                }
                Doing::Restart { now, key, count, pause } => {
                    if let Some(action) = self.restart(now, key, count, pause) {
                        return Some(action);
                    }
                }

                Doing::StopGroup { at: Some(key), group, odd, pause } => {
                    if self.state(key) == Some(State::Running) {
                        return Some(Action::Stop(key));
                    }
                    if odd {
                        self.doing = Doing::StopGroup { at: Some(key), group, odd: false, pause };
                        return Some(Action::Report(Context::ShutdownError, key));
                    }
                    // A retry of its own that waits is off: the group's start takes its place.
                    self.set_state(key, State::Down);
                    let is_first = key == group.culprit && !group.everybody;
                    let at = if is_first { None } else { self.children.before(key) };
                    self.doing = Doing::StopGroup { at, group, odd: false, pause };
                    if self.restart_of(key) == Restart::Temporary
                        && let Some(child) = self.remove(key)
                    {
                        self.forgotten = Some(child);
                        return Some(Action::Forget);
                    }
                }
                Doing::StopGroup { at: None, group, pause: None, .. } => {
                    let at = if group.everybody { self.children.first() } else { Some(group.culprit) };
                    self.doing = Doing::StartGroup { at };
                }
                Doing::StopGroup { at: None, group, pause: Some(wait), .. } => {
                    return Some(self.wait(group.culprit, wait));
                }

                Doing::StartGroup { at: None } => self.doing = Doing::Nothing,
                Doing::StartOne { key } | Doing::StartCall { key, .. } => return Some(self.start(key)),
                Doing::Failed { now, key } => {
                    self.set_state(key, State::Restarting { counted: false });
                    self.doing = Doing::Again { now, key };
                    return Some(Action::Report(Context::StartError, key));
                }
                Doing::Again { now, key } => {
                    self.doing = Doing::Nothing;
                    return Some(match self.pause(now, key) {
                        None => Action::Retry(key),
                        Some(wait) => Action::RetryAfter(key, wait),
                    });
                }

                Doing::Terminate { key, odd } => {
                    if self.state(key) == Some(State::Running) {
                        return Some(Action::Stop(key));
                    }
                    if odd {
                        self.doing = Doing::Terminate { key, odd: false };
                        return Some(Action::Report(Context::ShutdownError, key));
                    }
                    self.set_state(key, State::Down);
                    self.doing = Doing::Nothing;
                    let leaves =
                        self.restart_of(key) == Restart::Temporary || self.members == Members::OfOneKind;
                    if leaves && let Some(child) = self.remove(key) {
                        self.forgotten = Some(child);
                        return Some(Action::Forget);
                    }
                }

                Doing::StopAll { at: Some(key), odd, ending } => {
                    if self.state(key) == Some(State::Running) {
                        return Some(Action::Stop(key));
                    }
                    if odd {
                        self.doing = Doing::StopAll { at: Some(key), odd: false, ending };
                        return Some(Action::Report(Context::ShutdownError, key));
                    }
                    self.doing = Doing::StopAll { at: self.children.before(key), odd: false, ending };
                }
                Doing::StopAll { at: None, ending, .. } => self.doing = Doing::Finish { ending },
                Doing::StopTogether { ending } => {
                    self.doing = Doing::Finish { ending };
                    return Some(Action::StopTogether);
                }
                Doing::Finish { ending } => {
                    self.doing = Doing::Nothing;
                    return Some(Action::Finish(ending));
                }
            }
        }
    }

    /// Restart type said yes; intensity and strategy are next.
    fn restart(&mut self, now: Instant, key: Key, count: bool, pause: bool) -> Option<Action> {
        self.set_state(key, State::Down);
        let mut too_many = false;
        if count
            && let Some(pace) = self.pace_of(key)
            && let Some((window, exceeded)) = &mut pace.budget
            && window.is_exceeded_by(now)
        {
            if *exceeded == Exceeded::LeaveDown {
                self.doing = Doing::Nothing;
                return Some(Action::LeftDown(key));
            }
            too_many = true;
        }
        too_many |= count && self.window.is_exceeded_by(now);
        if too_many {
            self.stop_all(Ending::GaveUp);
            return Some(Action::GaveUp(key));
        }
        let pause = if pause { self.pause(now, key) } else { None };
        let everybody = match (self.members, self.strategy) {
            (Members::OfOneKind, _) | (_, RestartStrategy::OneForOne) => {
                self.doing = Doing::StartOne { key };
                return pause.map(|wait| self.wait(key, wait));
            }
            (_, RestartStrategy::RestForOne) => false,
            (_, RestartStrategy::OneForAll) => true,
        };
        let group = Group { culprit: key, everybody };
        self.doing = Doing::StopGroup { at: self.children.last(), group, odd: false, pause };
        None
    }

    /// How long a child that is to be started again has to wait for it.
    fn pause(&mut self, now: Instant, key: Key) -> Option<Duration> {
        let pace = self.pace_of(key)?;
        let wait = Some(pace.strikes.strike(now)).filter(|wait| *wait > Duration::ZERO);
        pace.waits_until = wait.map(|wait| after(now, wait));
        wait
    }

    /// Starts it later; until then it shows as restarting.
    fn wait(&mut self, key: Key, wait: Duration) -> Action {
        self.set_state(key, State::Restarting { counted: true });
        self.doing = Doing::Nothing;
        Action::RetryAfter(key, wait)
    }

    fn start(&mut self, key: Key) -> Action {
        self.set_state(key, State::Starting);
        Action::Start(key)
    }

    fn stop_all(&mut self, ending: Ending) {
        self.doing = match self.members {
            Members::Listed => Doing::StopAll { at: self.children.last(), odd: false, ending },
            Members::OfOneKind => Doing::StopTogether { ending },
        };
    }

    /// Whether the end of this child, which is not started again, ends the supervisor.
    fn is_last_straw(&self, key: Key) -> bool {
        self.children.get(key).is_some_and(Child::is_significant)
            && match self.auto_shutdown {
                AutoShutdown::Never => false,
                AutoShutdown::AnySignificant => true,
                AutoShutdown::AllSignificant => self.significant_running == 0,
            }
    }

    // ---- the list ------------------------------------------------------------------------------------------------

    fn state(&self, key: Key) -> Option<State> {
        self.children.get(key).map(|child| child.state)
    }

    fn restart_of(&self, key: Key) -> Restart {
        self.children.get(key).map_or(Restart::Temporary, Child::restart)
    }

    fn must_be_down(&self, key: Key) -> Result<(), Refusal> {
        match self.state(key) {
            Some(State::Down) => Ok(()),
            Some(State::Running | State::Starting) => Err(Refusal::Running),
            Some(State::Restarting { .. }) => Err(Refusal::Restarting),
            None => Err(Refusal::NotFound),
        }
    }

    fn set_state(&mut self, key: Key, state: State) {
        if let Some(child) = self.children.get_mut(key) {
            let (was, is) = (child.state == State::Running, state == State::Running);
            self.running = self.running + usize::from(is) - usize::from(was);
            if child.is_significant() {
                self.significant_running = self.significant_running + usize::from(is) - usize::from(was);
            }
            child.state = state;
        }
    }

    /// Removes a child while others are being stopped from the last one down.
    fn forget(&mut self, key: Key) -> Option<Child<B>> {
        if let Doing::StopAll { at, .. } = &mut self.doing
            && *at == Some(key)
        {
            *at = self.children.before(key);
        }
        self.remove(key)
    }

    fn remove(&mut self, key: Key) -> Option<Child<B>> {
        self.set_state(key, State::Down);
        if !self.paces.is_empty() {
            self.paces.remove(&key);
        }
        if self.members == Members::Listed
            && let Some(name) = self.children.get(key).and_then(|child| child.body.name())
        {
            self.names.remove(name, key, |index| name_at(&self.children, index));
        }
        let child = self.children.remove(key)?;
        self.supervisors -= usize::from(child.is_supervisor());
        Some(child)
    }
}

/// So much later; of what is no time that a clock can show, a hundred years.
pub(crate) fn after(now: Instant, wait: Duration) -> Instant {
    now.checked_add(wait).unwrap_or(now + Duration::from_secs(1 << 32))
}

fn name_at<B: Named>(children: &Order<Child<B>>, index: u32) -> Option<&str> {
    children.at(index)?.body.name().map(|name| &**name)
}
