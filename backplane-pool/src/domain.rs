//! A node's queues: what its workers share with each other, and with nobody else.

use std::{
    cell::OnceCell,
    collections::HashMap,
    fmt,
    rc::Rc,
    sync::{
        Arc, Condvar, Mutex, OnceLock, PoisonError, RwLock, Weak,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use async_task::ScheduleInfo;
use concurrent_queue::ConcurrentQueue;
use crossbeam_deque::{Injector, Stealer};
use crossbeam_utils::CachePadded;

use crate::{
    counters::Counters,
    cpus::CpuSet,
    idle::Idle,
    reactor::Reactor,
    registry::{Key, Shard, Site, TaskName},
    slot::Slot,
    task::{Runnable, drop_untold},
    watch::Alarm,
    worker::{Local, taken},
};

/// How far a pool is with its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Phase {
    Open,
    /// Takes nothing from outside any more; what is there, and what that spawns, may end.
    Draining,
    /// Drops what is there.
    Dropping,
}

/// A task that was not on the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unlisted {
    pub(crate) name: TaskName,
    /// It has had a turn, and came back from it too late to be written down.
    pub(crate) polled: bool,
}

/// What all domains of a pool share.
#[derive(Debug)]
pub(crate) struct House {
    phase: AtomicU8,
    /// Workers that have not ended.
    workers: Mutex<usize>,
    changed: Condvar,
    pub(crate) alarm: Alarm,
    /// Every site that a worker has run a task of, by its words.
    sites: Mutex<HashMap<[usize; 2], Site>>,
    /// Tasks that were dropped and not on the list, once somebody wants to know.
    dropped: Mutex<Option<Vec<Unlisted>>>,
}

impl House {
    pub(crate) fn new(alarm: Alarm) -> House {
        let (sites, dropped) = (Mutex::default(), Mutex::default());
        let (phase, workers, changed) = ((Phase::Open as u8).into(), Mutex::new(0), Condvar::new());
        House { phase, workers, changed, alarm, sites, dropped }
    }

    /// Can be asked for this site from now on.
    pub(crate) fn know(&self, site: Site) {
        self.sites.lock().unwrap_or_else(PoisonError::into_inner).insert(site.words(), site);
    }

    fn site(&self, words: [usize; 2]) -> Option<Site> {
        self.sites.lock().unwrap_or_else(PoisonError::into_inner).get(&words).copied()
    }

    /// From now on the names of tasks that are dropped and were not on the list are kept, for [`dropped`](House::dropped).
    pub(crate) fn keep_names_of_dropped(&self) {
        *self.dropped.lock().unwrap_or_else(PoisonError::into_inner) = Some(Vec::new());
    }

    pub(crate) fn drops(&self, unlisted: impl FnOnce() -> Unlisted) {
        if let Some(dropped) = &mut *self.dropped.lock().unwrap_or_else(PoisonError::into_inner) {
            dropped.push(unlisted());
        }
    }

    pub(crate) fn dropped(&self) -> Vec<Unlisted> {
        self.dropped.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default()
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::SeqCst) {
            0 => Phase::Open,
            1 => Phase::Draining,
            _ => Phase::Dropping,
        }
    }

    /// Never goes back.
    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::SeqCst);
    }

    pub(crate) fn started(&self) {
        *self.workers.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    }

    pub(crate) fn ended(&self) {
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        *workers -= 1;
        let is_last = *workers == 0;
        drop(workers);
        self.changed.notify_all();
        if is_last {
            // There is nothing to watch any more.
            self.alarm.end();
        }
    }

    /// Tells whoever waits that there may be something to see.
    pub(crate) fn tell(&self) {
        drop(self.workers.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    /// Waits until `done`, which is given the number of workers, or until the deadline. `true` if it came about.
    pub(crate) fn wait(&self, deadline: Option<Instant>, mut done: impl FnMut(usize) -> bool) -> bool {
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if done(*workers) {
                return true;
            }
            workers = match deadline {
                None => self.changed.wait(workers).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return false;
                    }
                    self.changed.wait_timeout(workers, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

/// The queues of one node.
pub(crate) struct Domain {
    /// By which its tasks find it.
    id: DomainId,
    /// Its place among the pool's domains.
    pub(crate) index: usize,
    /// The node's number.
    pub(crate) node: usize,
    pub(crate) cpus: CpuSet,
    pub(crate) house: Arc<House>,
    injector: Injector<Runnable>,
    pub(crate) idle: Idle,
    /// Known as soon as all workers have started.
    remotes: OnceLock<Box<[Arc<Remote>]>>,
    /// One for each worker, and one for outsiders.
    pub(crate) shards: Box<[CachePadded<Shard>]>,
}

/// What tells a domain from all others that are there. Half a word, since every task holds one.
pub(crate) type DomainId = u32;

/// Domains by their ids. What wakes a task holds such an id, and no reference: workers would count references on the same word
/// with every task that moves between them. Only who wakes from outside looks here.
static DOMAINS: RwLock<Option<HashMap<DomainId, Weak<Domain>>>> = RwLock::new(None);

impl Drop for Domain {
    fn drop(&mut self) {
        if let Some(domains) = &mut *DOMAINS.write().unwrap_or_else(PoisonError::into_inner) {
            domains.remove(&self.id);
        }
    }
}

fn domain(id: DomainId) -> Option<Arc<Domain>> {
    DOMAINS.read().unwrap_or_else(PoisonError::into_inner).as_ref()?.get(&id)?.upgrade()
}

/// The shared half of a worker. Made on the worker's own thread, so that it lies in the node's own memory.
pub(crate) struct Remote {
    pub(crate) stealer: Stealer<Runnable>,
    /// Runs next. Others take from it only when the worker is stuck.
    pub(crate) next: CachePadded<Slot<Runnable>>,
    /// Tasks that only this worker may run, woken elsewhere.
    pub(crate) inbox: ConcurrentQueue<Runnable>,
    pub(crate) counters: CachePadded<Counters>,
    /// The task that is being polled: what [`Polled`] says of its key, which is zero between polls.
    current: AtomicU64,
    /// And its site, as words. They change while the key is zero, so that nobody sees those of one with the key of another.
    site: [AtomicUsize; 2],
    /// Tasks that block on this thread, the innermost last; their worker goes on meanwhile.
    blocked: Mutex<Vec<Polled>>,
    /// In a hook of the pool's owner, and so in no task.
    pub(crate) in_hook: AtomicBool,
    pub(crate) awake: AtomicBool,
    /// Has been with one task for so long that what waits behind it is everybody's.
    pub(crate) stuck: AtomicBool,
    #[cfg(feature = "uring")]
    pub(crate) driver: Option<crate::Driver>,
}

impl Remote {
    #[cfg_attr(
        not(feature = "uring"),
        expect(unused_variables, reason = "only a ring has a driver to tell of")
    )]
    pub(crate) fn new(stealer: Stealer<Runnable>, reactor: &Reactor) -> Remote {
        Remote {
            stealer,
            next: CachePadded::default(),
            inbox: ConcurrentQueue::unbounded(),
            counters: CachePadded::default(),
            current: AtomicU64::new(0),
            site: Default::default(),
            blocked: Mutex::default(),
            in_hook: AtomicBool::new(false),
            awake: AtomicBool::new(true),
            stuck: AtomicBool::new(false),
            #[cfg(feature = "uring")]
            driver: reactor.driver(),
        }
    }

    /// What is being polled from now on.
    #[inline]
    pub(crate) fn polls(&self, polled: Polled) {
        self.site[0].store(polled.site[0], Ordering::Release);
        self.site[1].store(polled.site[1], Ordering::Release);
        self.current.store(polled.key, Ordering::Release);
    }

    /// The poll is over.
    #[inline]
    pub(crate) fn polls_nothing(&self) {
        self.current.store(0, Ordering::Release);
    }

    /// What is being polled for the first time is on the list from now on.
    pub(crate) fn is_listed(&self) {
        self.current.store(Polled::LATER, Ordering::Release);
    }

    pub(crate) fn polled(&self) -> Polled {
        loop {
            let key = self.current.load(Ordering::Acquire);
            let site = [0, 1].map(|at| self.site[at].load(Ordering::Acquire));
            if key == 0 {
                return Polled::default();
            }
            if self.current.load(Ordering::Acquire) == key {
                return Polled { key, site };
            }
        }
    }

    /// The task that is being polled blocks from now on, until [`unblocks`](Remote::unblocks).
    pub(crate) fn blocks(&self) {
        let mut blocked = self.blocked.lock().unwrap_or_else(PoisonError::into_inner);
        blocked.push(self.polled());
        self.polls_nothing();
    }

    /// It is that one's poll again.
    pub(crate) fn unblocks(&self) {
        let mut blocked = self.blocked.lock().unwrap_or_else(PoisonError::into_inner);
        self.polls(blocked.pop().unwrap_or_default());
    }

    /// The innermost task that is in a poll on this thread: the one that it polls, or else the last that blocks.
    pub(crate) fn innermost(&self) -> Polled {
        self.all_polled().pop().unwrap_or_default()
    }

    /// The tasks that are in a poll on this thread, the innermost last.
    pub(crate) fn all_polled(&self) -> Vec<Polled> {
        let mut all = self.blocked.lock().unwrap_or_else(PoisonError::into_inner).clone();
        all.push(self.polled());
        all.retain(|polled| !polled.is_none());
        all
    }
}

/// A task that is being polled, in words that are written by one thread and read by another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Polled {
    /// Its key, or [`FIRST`](Polled::FIRST), or [`LATER`](Polled::LATER); zero if there is no task.
    key: u64,
    site: [usize; 2],
}

impl Polled {
    /// Without a key of its own, in its first poll.
    const FIRST: u64 = u64::MAX;
    /// Without a key of its own, in a later poll.
    pub(crate) const LATER: u64 = 1;

    /// Whether its key is known, by which it cannot be taken for another.
    pub(crate) fn key(self) -> Option<Key> {
        Key::from_word(self.key).filter(|_| !self.is_first())
    }

    /// Whether this is its first poll, before which it was not on the list.
    #[inline]
    pub(crate) fn is_first(self) -> bool {
        self.key == Polled::FIRST
    }

    /// Whether there is no task.
    pub(crate) fn is_none(self) -> bool {
        self.key == 0
    }

    /// With a key, or [`LATER`](Polled::LATER), or zero before the first poll.
    #[inline]
    pub(crate) fn new(known: u64, site: Site) -> Polled {
        let key = if known == 0 { Polled::FIRST } else { known };
        Polled { key, site: site.words() }
    }
}

impl Domain {
    pub(crate) fn new(
        index: usize,
        node: usize,
        cpus: CpuSet,
        house: Arc<House>,
        workers: usize,
    ) -> Arc<Domain> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (injector, idle, remotes) = (Injector::new(), Idle::new(), OnceLock::new());
        let shards = (0..=workers).map(|at| Shard::new(at).into()).collect();
        let mut domains = DOMAINS.write().unwrap_or_else(PoisonError::into_inner);
        let domains = domains.get_or_insert_default();
        // Some day they are used again, but never one that is still somebody's.
        let id = loop {
            let id = NEXT.fetch_add(1, Ordering::Relaxed);
            if !domains.contains_key(&id) {
                break id;
            }
        };
        let domain = Arc::new(Domain { id, index, node, cpus, house, injector, idle, remotes, shards });
        domains.insert(id, Arc::downgrade(&domain));
        domain
    }

    pub(crate) fn id(&self) -> DomainId {
        self.id
    }

    /// The shard of what comes from outside.
    pub(crate) fn outside(&self) -> &Shard {
        &self.shards[self.shards.len() - 1]
    }

    /// How many tasks have ended.
    pub(crate) fn ended(&self) -> u64 {
        self.remotes().iter().map(|remote| remote.counters.ended.get_after()).sum()
    }

    /// How many tasks were ever spawned. Asked after [`ended`](Domain::ended): if both are equal, there was a moment between at
    /// which no task was left, for a task is counted before it can run, and what it spawns before it can end.
    pub(crate) fn spawned(&self) -> u64 {
        self.shards.iter().map(|shard| shard.spawned()).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        let ended = self.ended();
        ended == self.spawned()
    }

    /// The name of the task that this worker polls.
    pub(crate) fn name_of(&self, polled: Polled) -> Option<TaskName> {
        let written = polled.key().and_then(|key| self.shards.get(key.shard())?.name(key));
        written.or_else(|| self.house.site(polled.site).map(TaskName::from))
    }

    pub(crate) fn workers_have_started(&self, remotes: Box<[Arc<Remote>]>) {
        drop(self.remotes.set(remotes));
    }

    pub(crate) fn remotes(&self) -> &[Arc<Remote>] {
        self.remotes.get().map_or(&[], |remotes| remotes)
    }

    /// The names of tasks that lie in queues and are not on the list, for when the worker that would drop them is stuck. What lies
    /// in no queue that others can reach, is not found.
    pub(crate) fn names_of_queued(&self) -> Vec<TaskName> {
        let mut names = Vec::new();
        let mut queued = Vec::new();
        let mut see = |runnable: Runnable| {
            let meta = runnable.metadata();
            if meta.polled().is_first() {
                names.push(meta.site.into());
            }
            queued.push(runnable);
        };
        std::iter::from_fn(|| taken(|| self.injector.steal())).for_each(&mut see);
        for remote in self.remotes() {
            std::iter::from_fn(|| taken(|| remote.stealer.steal())).for_each(&mut see);
            remote.next.take().into_iter().for_each(&mut see);
            // Only as many as there are: whoever is woken meanwhile is on the list.
            (0..remote.inbox.len()).map_while(|_| remote.inbox.pop().ok()).for_each(&mut see);
        }
        // And back: those that are pinned to their worker, the others to any.
        queued.into_iter().for_each(|runnable| self.inject(runnable));
        names
    }

    pub(crate) fn injector(&self) -> &Injector<Runnable> {
        &self.injector
    }

    /// Takes a task from a thread that is no worker of this domain.
    pub(crate) fn inject(&self, runnable: Runnable) {
        let pinned = runnable.metadata().pinned.and_then(|worker| {
            let worker = worker.worker();
            Some((worker, self.remotes().get(worker)?))
        });
        match pinned {
            Some((worker, remote)) => {
                // It never closes.
                drop(remote.inbox.push(runnable));
                self.idle.rouse(worker);
            }
            None => {
                self.injector.push(runnable);
                self.idle.notify();
            }
        }
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Domain").field("node", &self.node).field("workers", &self.remotes().len()).finish()
    }
}

thread_local! {
    /// The worker that this thread is.
    static CURRENT: OnceCell<Rc<Local>> = const { OnceCell::new() };
}

/// Makes this thread a worker. A thread is one worker in its life.
pub(crate) fn become_worker(local: Rc<Local>) {
    CURRENT.with(|current| drop(current.set(local)));
}

/// The worker that this thread is, if it is one.
#[inline]
pub(crate) fn with_worker<T>(f: impl FnOnce(&Rc<Local>) -> T) -> Option<T> {
    // A thread that is ending may have no place for it any more.
    CURRENT.try_with(|current| current.get().map(f)).ok().flatten()
}

/// Where a task goes when it is woken: home.
#[inline]
pub(crate) fn schedule(runnable: Runnable, info: ScheduleInfo) {
    let home = runnable.metadata().home;
    let mut runnable = Some(runnable);
    // A thread that is ending may have no place for its worker any more; then it is an outsider like others.
    let _ = CURRENT.try_with(|current| match current.get() {
        Some(local) if local.domain.id == home => {
            if let Some(runnable) = runnable.take() {
                local.schedule(runnable, info.woken_while_running);
            }
        }
        _ => {}
    });
    if let Some(runnable) = runnable {
        from_outside(home, runnable);
    }
}

fn from_outside(home: DomainId, runnable: Runnable) {
    match domain(home) {
        Some(home) => home.inject(runnable),
        // A domain is there as long as a task of it is.
        None => drop_untold(runnable),
    }
}
