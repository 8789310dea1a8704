//! What a supervisor and those who speak with it have in common.

use std::collections::{HashMap, VecDeque};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use backplane::{DeviceId, Exit, Line};

use crate::engine::{Engine, Task, quietly};
use crate::handle::{
    ChildRef, Counts, DeleteChildError, KillChildError, Killed, RestartChildError, Row, Stopped,
    TerminateChildError,
};
use crate::order::Key;
use crate::reply::Reply;
use crate::report::Listeners;
use crate::ring::Ring;
use crate::snapshot::{ChildSnapshot, ChildState, Snapshot};
use crate::spec::{ChildId, ChildInfo, Facts, Job, Listing};
use crate::starting::{Birth, House, Said};
use crate::tree::{AutoShutdown, Child, End, Intensity, Members, Named, Phase, RestartStrategy, State, Tree};

/// What tells a supervisor of listed children from one whose children are of one kind.
pub(crate) trait Kind: Send + Sync + Sized + 'static {
    /// What start_child brings.
    type Add: Send + 'static;
    /// What is kept for each child, to start it again.
    type Seed: Named + Send + 'static;
    /// What of the seed a start attempt has for a moment.
    type Loan: Send + 'static;
    /// What start_child answers when it cannot.
    type StartError: Send + 'static;

    const MEMBERS: Members;

    /// Unless they are lent.
    fn facts<'a>(&'a self, seed: &'a Self::Seed) -> Option<&'a Facts>;
    /// Whether it may be added, when there are `listed` children already.
    fn admit(
        &self,
        add: Self::Add,
        listed: usize,
        auto_shutdown: AutoShutdown,
    ) -> Result<Self::Seed, Self::StartError>;
    fn refuse(refusal: StartRefusal) -> Self::StartError;
    /// What the start function is given, for a moment: the seed itself, or all of it but the name. Its copy would be the user's
    /// or cost time, and is not made under a lock.
    fn lend(seed: &mut Option<Self::Seed>) -> Option<Self::Loan>;
    /// Takes back what was lent; returns what is to be dropped outside of the lock.
    fn give_back(seed: &mut Option<Self::Seed>, loan: Self::Loan) -> Option<Self::Loan>;
    /// The job of a new incarnation. Runs the user's start function.
    fn job(&self, loan: &Self::Loan, birth: Birth<'_, Self>) -> Job;
    fn set_max(&mut self, max: Option<usize>);
    fn info(&self, id: &ChildId, find: &dyn Fn(&str) -> Option<ChildInfo>) -> Option<ChildInfo>;
}

pub(crate) enum StartRefusal {
    AlreadyStarted(Line),
    AlreadyPresent,
    Failed(crate::spec::StartError),
}

/// Which child a call means.
pub(crate) enum Target {
    Named(ChildId),
    /// This incarnation.
    Exactly(ChildRef),
    Whichever(Key),
}

pub(crate) enum Call<K: Kind> {
    Start(K::Add, Reply<Result<Option<ChildRef>, K::StartError>>),
    Terminate(Target, Reply<Result<(), TerminateChildError>>),
    Kill(Target, Reply<Result<(), KillChildError>>),
    Restart(ChildId, Reply<Result<Option<ChildRef>, RestartChildError>>),
    Delete(ChildId, Reply<Result<(), DeleteChildError>>),
    Which(Reply<Vec<Row>>),
    Count(Reply<Counts>),
    Spec(ChildId, Reply<Option<ChildInfo>>),
    SetStrategy(RestartStrategy, Reply<()>),
    SetIntensity(Intensity, Reply<()>),
    SetMax(Option<usize>, Reply<()>),
    Stop(Exit, Reply<Stopped>),
}

impl<K: Kind> Call<K> {
    /// Says to whoever waits that the supervisor has ended.
    pub(crate) fn refuse(self, exit: &Exit) {
        match self {
            Call::Start(add, reply) => {
                quietly(|| drop(add));
                reply.gone(exit);
            }
            Call::Terminate(_, reply) => reply.gone(exit),
            Call::Kill(_, reply) => reply.gone(exit),
            Call::Restart(_, reply) => reply.gone(exit),
            Call::Delete(_, reply) => reply.gone(exit),
            Call::Which(reply) => reply.gone(exit),
            Call::Count(reply) => reply.gone(exit),
            Call::Spec(_, reply) => reply.gone(exit),
            Call::SetStrategy(_, reply) => reply.gone(exit),
            Call::SetIntensity(_, reply) => reply.gone(exit),
            Call::SetMax(_, reply) => reply.gone(exit),
            Call::Stop(_, reply) => reply.gone(exit),
        }
    }
}

/// What comes through the doorbell.
pub(crate) enum Command<K: Kind> {
    Said(DeviceId, Said),
    Retry(Key),
    Call(Call<K>),
}

/// What a supervisor keeps of a child. There may be a million of them.
pub(crate) struct Body<S> {
    /// Absent only while it is lent.
    pub(crate) seed: Option<S>,
    /// Of the incarnation that runs, or ran last.
    pub(crate) line: Option<Line>,
    pub(crate) task: Option<Task>,
    /// What most children do not have.
    past: Option<Box<Past>>,
}

/// Of the bytes that a listed child costs these are the most: with what threads it in the list, 88.
const _: () = assert!(size_of::<Child<Body<Listing>>>() <= 72);

/// What is known of the incarnations before.
#[derive(Default)]
struct Past {
    /// The last end.
    end: Option<Exit>,
    /// The incarnations after the first.
    more: u32,
    /// Those that the supervisor made by itself.
    restarts: u32,
    /// When the one was begun that runs, if nobody looked at the clock when it was started.
    began: Option<Instant>,
}

fn of_ordinary(end: Option<End>) -> Option<&'static Exit> {
    static NORMAL: Exit = Exit::Normal;
    static SHUTDOWN: Exit = Exit::Shutdown;
    match end? {
        End::Normal => Some(&NORMAL),
        End::Shutdown => Some(&SHUTDOWN),
        End::Killed | End::Fault => None,
    }
}

impl<S> Body<S> {
    pub(crate) fn new(seed: S) -> Body<S> {
        Body { seed: Some(seed), line: None, task: None, past: None }
    }
}

impl<S> Child<Body<S>> {
    /// The end of the incarnation is still to be handled.
    pub(crate) fn has_ended(&self) -> bool {
        self.phase == Phase::Ended
    }

    /// Begins another incarnation; whether it counts as a restart is the caller's to say.
    pub(crate) fn begin(&mut self, line: Line, restart: bool) {
        self.body.line = Some(line);
        if std::mem::replace(&mut self.phase, Phase::Begun) == Phase::New {
            return;
        }
        let before = self.take_ordinary_end();
        let past = self.body.past.get_or_insert_default();
        if before.is_some() {
            past.end = before;
        }
        past.more = past.more.saturating_add(1);
        past.restarts = past.restarts.saturating_add(u32::from(restart));
    }

    /// How many incarnations there have been, attempts included.
    pub(crate) fn incarnation(&self) -> u32 {
        let begun = self.phase != Phase::New;
        u32::from(begun).saturating_add(self.body.past.as_ref().map_or(0, |past| past.more))
    }

    /// The incarnation has ended; the exit before is returned, to be dropped outside of the lock.
    ///
    /// The first one that ends as it should leaves nothing else to be remembered: of many that are stopped, each would have a box
    /// made to hold one word until it is gone.
    pub(crate) fn end(&mut self, exit: Exit) -> Option<Exit> {
        self.phase = Phase::Ended;
        let before = self.take_ordinary_end();
        let ordinary = match exit {
            Exit::Normal => Some(End::Normal),
            Exit::Shutdown => Some(End::Shutdown),
            Exit::Fault(_) => None,
        };
        if self.body.past.is_none() && ordinary.is_some() {
            self.set_ordinary_end(ordinary);
            return before;
        }
        self.body.past.get_or_insert_default().end.replace(exit)
    }

    fn take_ordinary_end(&mut self) -> Option<Exit> {
        let exit = of_ordinary(self.ordinary_end())?.clone();
        self.set_ordinary_end(None);
        Some(exit)
    }

    /// How the last incarnation ended.
    pub(crate) fn last_end(&self) -> Option<&Exit> {
        of_ordinary(self.ordinary_end()).or_else(|| self.body.past.as_ref()?.end.as_ref())
    }

    /// The end that is still to be handled, and the task, which has ended.
    pub(crate) fn take_end(&mut self) -> Option<(Exit, Option<Task>)> {
        if !self.has_ended() {
            return None;
        }
        self.phase = Phase::Begun;
        Some((self.last_end()?.clone(), self.body.task.take()))
    }

    pub(crate) fn restarts(&self) -> u32 {
        self.body.past.as_ref().map_or(0, |past| past.restarts)
    }

    /// It is started when it is polled, and nobody looks at the clock then: this is when it was begun.
    pub(crate) fn set_began(&mut self, at: Instant) {
        self.body.past.get_or_insert_default().began = Some(at);
    }

    /// How long it runs, `now` and `age` being the same moment.
    fn uptime(&self, now: Instant, age: u64) -> Duration {
        let began = self.body.past.as_ref().and_then(|past| past.began);
        let millis = match began {
            Some(began) => {
                u64::try_from(now.saturating_duration_since(began).as_millis()).unwrap_or(u64::MAX)
            }
            None => age.saturating_sub(self.since()),
        };
        Duration::from_millis(millis)
    }

    /// When it started, in milliseconds after the supervisor did. Five bytes are enough for thirty years.
    fn since(&self) -> u64 {
        let [a, b, c, d, e] = self.beside;
        u64::from_le_bytes([a, b, c, d, e, 0, 0, 0])
    }

    pub(crate) fn set_since(&mut self, age: u64) {
        let [a, b, c, d, e, ..] = age.min((1 << 40) - 1).to_le_bytes();
        self.beside = [a, b, c, d, e];
        if let Some(past) = &mut self.body.past {
            past.began = None;
        }
    }
}

impl<S: Named> Named for Body<S> {
    fn name(&self) -> Option<&Arc<str>> {
        self.seed.as_ref()?.name()
    }
}

pub(crate) type TreeOf<K> = Tree<Body<<K as Kind>::Seed>>;

/// The half of a supervisor that others can reach.
pub(crate) struct Shared<K: Kind> {
    pub(crate) line: Line,
    path: Arc<str>,
    engine: Arc<dyn Engine>,
    listeners: Listeners,
    pub(crate) born: Instant,
    queue: Mutex<Queue<K>>,
    mind: Mutex<Mind<K>>,
    killed: Mutex<Vec<Killed>>,
    /// The children that are supervisors and run.
    below: Mutex<HashMap<Key, Weak<dyn House>>>,
}

/// What decides, and by what it hears of a start that nobody waits for.
struct Mind<K: Kind> {
    tree: TreeOf<K>,
    ring: Option<Arc<Ring>>,
}

/// The tree, while nobody else has it.
pub(crate) struct Thinking<'a, K: Kind>(MutexGuard<'a, Mind<K>>);

impl<K: Kind> Deref for Thinking<'_, K> {
    type Target = TreeOf<K>;

    fn deref(&self) -> &TreeOf<K> {
        &self.0.tree
    }
}

impl<K: Kind> DerefMut for Thinking<'_, K> {
    fn deref_mut(&mut self) -> &mut TreeOf<K> {
        &mut self.0.tree
    }
}

struct Queue<K: Kind> {
    commands: VecDeque<Command<K>>,
    open: bool,
}

impl<K: Kind> Shared<K> {
    pub(crate) fn new(
        line: Line,
        path: Arc<str>,
        engine: Arc<dyn Engine>,
        listeners: Listeners,
        tree: TreeOf<K>,
    ) -> Arc<Shared<K>> {
        let born = engine.now();
        Arc::new(Shared {
            line,
            path,
            engine,
            listeners,
            born,
            queue: Mutex::new(Queue { commands: VecDeque::new(), open: true }),
            mind: Mutex::new(Mind { tree, ring: None }),
            killed: Mutex::new(Vec::new()),
            below: Mutex::new(HashMap::new()),
        })
    }

    /// The tree, as it is now: what was rung where nobody waits is noted first.
    pub(crate) fn tree(&self) -> Thinking<'_, K> {
        let mut mind = self.mind.lock().unwrap_or_else(PoisonError::into_inner);
        if mind.tree.is_quiet() && mind.ring.as_ref().is_some_and(|ring| ring.was_polled_quietly()) {
            mind.tree.polled_quietly();
        }
        Thinking(mind)
    }

    /// By this ring first polls are heard from now on; the one before is returned.
    pub(crate) fn set_ring(&self, ring: Option<Arc<Ring>>) -> Option<Arc<Ring>> {
        std::mem::replace(&mut self.tree().0.ring, ring)
    }

    fn queue(&self) -> MutexGuard<'_, Queue<K>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn call(&self, call: Call<K>) {
        self.put(Command::Call(call));
    }

    pub(crate) fn put(&self, command: Command<K>) {
        let mut queue = self.queue();
        if !queue.open {
            // Dropped outside the lock: whoever waits for an answer hears that nobody is there.
            drop(queue);
            drop(command);
            return;
        }
        queue.commands.push_back(command);
        drop(queue);
        // The bell: of a device's requests to itself none is taken for another.
        self.line.shutdown(self.line.id());
    }

    pub(crate) fn pop(&self) -> Option<Command<K>> {
        self.queue().commands.pop_front()
    }

    /// What the child whose start attempt is being made has said, if that is in the queue still; a word of no meaning stays in
    /// its place, so that each ring of the bell finds what it was rung for.
    pub(crate) fn overtaken(&self, child: DeviceId) -> Option<Said> {
        let nothing = Command::Said(child, Said::Nothing);
        let mut queue = self.queue();
        let of_child = |command: &&mut Command<K>| matches!(command, Command::Said(by, _) if *by == child);
        match std::mem::replace(queue.commands.iter_mut().find(of_child)?, nothing) {
            Command::Said(_, said) => Some(said),
            Command::Retry(_) | Command::Call(_) => None,
        }
    }

    /// No commands any more. What is left is returned, to be dropped outside.
    pub(crate) fn close(&self) -> VecDeque<Command<K>> {
        let mut queue = self.queue();
        queue.open = false;
        std::mem::take(&mut queue.commands)
    }

    pub(crate) fn take_killed(&self) -> Vec<Killed> {
        std::mem::take(&mut *self.killed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Milliseconds since the supervisor began.
    pub(crate) fn age_at(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.born).as_millis()).unwrap_or(u64::MAX)
    }
}

impl<K: Kind> House for Shared<K> {
    fn id(&self) -> DeviceId {
        self.line.id()
    }

    fn path(&self) -> &Arc<str> {
        &self.path
    }

    fn path_of(&self, child: Key) -> Arc<str> {
        let name = self.tree().get(child).and_then(|child| child.body.name().cloned());
        Arc::from(match name {
            Some(name) => format!("{}/{name}", self.path),
            None => format!("{}/{child:?}", self.path),
        })
    }

    fn engine(&self) -> &Arc<dyn Engine> {
        &self.engine
    }

    fn listeners(&self) -> &Listeners {
        &self.listeners
    }

    fn say(&self, child: DeviceId, said: Said) {
        self.put(Command::Said(child, said));
    }

    fn adopt(&self, child: Key, house: Weak<dyn House>) {
        let mut below = self.below.lock().unwrap_or_else(PoisonError::into_inner);
        // Those of children that have been removed go when there are twice as many.
        if below.len() == below.capacity() {
            below.retain(|_, house| house.strong_count() > 0);
        }
        below.insert(child, house);
    }

    fn note_killed(&self, mut killed: Vec<Killed>) {
        self.killed.lock().unwrap_or_else(PoisonError::into_inner).append(&mut killed);
    }

    fn snapshot(&self) -> Snapshot {
        let now = self.engine.now();
        let age = self.age_at(now);
        let mut below: Vec<(usize, Key)> = Vec::new();
        let mut children = Vec::new();
        {
            let tree = self.tree();
            for (key, child) in tree.iter() {
                let body = &child.body;
                let state = match child.state {
                    State::Down => ChildState::Down,
                    State::Starting => ChildState::Starting,
                    State::Running => ChildState::Running,
                    State::Restarting { .. } => ChildState::Restarting,
                };
                let running = state == ChildState::Running;
                if running || state == ChildState::Starting {
                    below.push((children.len(), key));
                }
                children.push(ChildSnapshot {
                    id: body.name().cloned(),
                    kind: if child.is_supervisor() {
                        crate::spec::ChildKind::Supervisor
                    } else {
                        crate::spec::ChildKind::Worker
                    },
                    state,
                    device: body.line.map(|line| line.id()),
                    incarnation: child.incarnation(),
                    restarts: child.restarts(),
                    uptime: running.then(|| child.uptime(now, age)),
                    last_end: child.last_end().map(Exit::to_string),
                    below: None,
                });
            }
        }
        let houses = {
            let known = self.below.lock().unwrap_or_else(PoisonError::into_inner);
            let known = |(place, key)| Some((place, known.get(&key)?.upgrade()?));
            below.into_iter().filter_map(known).collect::<Vec<(usize, Arc<dyn House>)>>()
        };
        for (place, house) in houses {
            let child: &mut ChildSnapshot = &mut children[place];
            child.below = Some(house).map(|house| Box::new(house.snapshot()));
        }
        Snapshot { path: self.path.to_string(), device: self.line.id(), children }
    }
}

impl<K: Kind> Drop for Shared<K> {
    fn drop(&mut self) {
        // Seeds are the user's, and may panic.
        let tree = &mut self.mind.get_mut().unwrap_or_else(PoisonError::into_inner).tree;
        let strategy = RestartStrategy::OneForOne;
        let old =
            std::mem::replace(tree, Tree::new(K::MEMBERS, strategy, Intensity::DEFAULT, AutoShutdown::Never));
        quietly(|| drop(old));
    }
}

#[cfg(all(test, feature = "smol"))]
mod tests {
    use std::future::pending;
    use std::sync::OnceLock;

    use backplane::Device;
    use backplane::runtime::Smol;

    use super::*;
    use crate::handle::SupervisorHandle;
    use crate::report::{Event, Report};
    use crate::spec::{ChildSpec, StartError};
    use crate::starting::Starting;
    use crate::supervisor::Supervisor;
    use crate::tree::Restart;

    /// What is reported of a child that ends in its first step, while somebody who calls has not come to ring the bell.
    fn told(last_words: fn(Starting)) -> Vec<Event> {
        let (told, place) = (Arc::new(Mutex::new(Vec::new())), Arc::new(OnceLock::<SupervisorHandle>::new()));
        let (ear, greeted, rings) = (Arc::clone(&told), Arc::clone(&place), Arc::clone(&place));
        let child = ChildSpec::starting("brief", move |device, starting: Starting| {
            let place = Arc::clone(&place);
            device.manage(async move {
                if let Some(handle) = place.get() {
                    let call = Command::Said(Device::new().id(), Said::Nothing);
                    handle.shared.queue().commands.push_back(call);
                }
                last_words(starting);
                Err::<(), &str>("ended")
            })
        });
        let other = ChildSpec::new("other", move |device| {
            // Now the caller has come to ring.
            if let Some(handle) = rings.get() {
                handle.line().shutdown(handle.line().id());
            }
            device.manage(pending::<Result<(), &str>>())
        });
        let tree = Supervisor::new(RestartStrategy::OneForOne)
            .greet(move |handle| drop(greeted.set(handle.clone())))
            .listen(move |report: &Report| {
                if report.child.as_deref() == Some("brief") {
                    ear.lock().unwrap_or_else(PoisonError::into_inner).push(report.event.clone());
                }
            })
            .child(child.restart(Restart::Temporary))
            .child(other);
        smol::block_on(async {
            if let Ok(handle) = tree.start(Smol::global()).await {
                let _ = handle.which_children().await;
                let _ = handle.stop(Exit::Shutdown).await;
            }
        });
        std::mem::take(&mut *told.lock().unwrap_or_else(PoisonError::into_inner))
    }

    #[test]
    fn the_last_end_is_known_until_there_is_another_and_the_first_ordinary_one_needs_no_room() {
        let device = Device::new();
        let fault = || Exit::Fault(backplane::Fault::error("ended"));
        for first in [Exit::Normal, Exit::Shutdown, fault()] {
            let mut child = Child::new(Restart::Permanent, Body::new(()));
            child.begin(device.line(), false);
            assert_eq!(child.last_end(), None);
            assert_eq!(child.end(first.clone()), None);
            assert_eq!(child.body.past.is_some(), first.is_fault());
            assert_eq!(child.take_end().map(|(exit, _)| exit), Some(first.clone()));
            child.begin(device.line(), true);
            assert_eq!((child.last_end(), child.incarnation(), child.restarts()), (Some(&first), 2, 1));
            assert_eq!(child.end(Exit::Normal), Some(first));
            assert_eq!(child.last_end(), Some(&Exit::Normal));
            child.begin(device.line(), true);
            assert_eq!(child.end(fault()), Some(Exit::Normal));
            assert_eq!(child.last_end(), Some(&fault()));
        }
    }

    #[test]
    fn what_a_child_said_counts_though_its_end_is_heard_before() {
        let started = told(|starting| drop(starting.done()));
        assert!(matches!(started[..2], [Event::Started, Event::Ended { .. }]), "{started:?}");
        assert_eq!(told(Starting::ignore), [Event::Ignored]);
        let failed = told(|starting| starting.fail("no port"));
        let Some(Event::StartFailed(StartError::Failed(fault))) = failed.first() else {
            panic!("{failed:?}")
        };
        assert!(fault.to_string().contains("no port"), "{fault}");
    }
}
