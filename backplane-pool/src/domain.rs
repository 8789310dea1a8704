//! A node's queues: what its workers share with each other, and with nobody else.

use std::{
    cell::OnceCell,
    fmt,
    rc::Rc,
    sync::{
        Arc, Condvar, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
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
    registry::{Key, Shard},
    slot::Slot,
    task::Runnable,
    watch::Alarm,
    worker::Local,
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

/// What all domains of a pool share.
#[derive(Debug)]
pub(crate) struct House {
    phase: AtomicU8,
    /// Workers that have not ended.
    workers: Mutex<usize>,
    changed: Condvar,
    pub(crate) alarm: Alarm,
}

impl House {
    pub(crate) fn new(alarm: Alarm) -> House {
        House { phase: (Phase::Open as u8).into(), workers: Mutex::new(0), changed: Condvar::new(), alarm }
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
        *self.workers.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.changed.notify_all();
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
}

/// The shared half of a worker. Made on the worker's own thread, so that it lies in the node's own memory.
pub(crate) struct Remote {
    pub(crate) stealer: Stealer<Runnable>,
    /// Runs next. Others take from it only when the worker is stuck.
    pub(crate) next: CachePadded<Slot<Runnable>>,
    /// Tasks that only this worker may run, woken elsewhere.
    pub(crate) inbox: ConcurrentQueue<Runnable>,
    pub(crate) counters: CachePadded<Counters>,
    /// The key of the task that is being polled, as a word.
    pub(crate) current: AtomicU64,
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
            awake: AtomicBool::new(true),
            stuck: AtomicBool::new(false),
            #[cfg(feature = "uring")]
            driver: reactor.driver(),
        }
    }

    /// The task that is being polled, or was polled last.
    pub(crate) fn current(&self) -> Option<Key> {
        Key::from_word(self.current.load(Ordering::Relaxed))
    }
}

impl Domain {
    pub(crate) fn new(index: usize, node: usize, cpus: CpuSet, house: Arc<House>) -> Domain {
        let (injector, idle, remotes) = (Injector::new(), Idle::new(), OnceLock::new());
        Domain { index, node, cpus, house, injector, idle, remotes }
    }

    pub(crate) fn workers_have_started(&self, remotes: Box<[Arc<Remote>]>) {
        drop(self.remotes.set(remotes));
    }

    pub(crate) fn remotes(&self) -> &[Arc<Remote>] {
        self.remotes.get().map_or(&[], |remotes| remotes)
    }

    pub(crate) fn injector(&self) -> &Injector<Runnable> {
        &self.injector
    }

    /// Takes a task from a thread that is no worker of this domain.
    fn inject(&self, runnable: Runnable) {
        let pinned = runnable.metadata().pinned.and_then(|worker| {
            let worker = worker as usize;
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

impl Shard {
    /// A task's first turn.
    #[inline]
    pub(crate) fn schedule_first(&self, runnable: Runnable) {
        self.go(runnable, false);
    }

    /// Where a task of this shard goes when it is woken or spawned.
    #[inline]
    pub(crate) fn schedule(&self, runnable: Runnable, info: ScheduleInfo) {
        self.go(runnable, info.woken_while_running);
    }

    #[inline]
    fn go(&self, runnable: Runnable, woken_while_running: bool) {
        let mut runnable = Some(runnable);
        // A thread that is ending may have no place for its worker any more; then it is an outsider like others.
        let _ = CURRENT.try_with(|current| match current.get() {
            Some(local) if Arc::ptr_eq(&local.domain, &self.domain) => {
                if let Some(runnable) = runnable.take() {
                    local.schedule(runnable, woken_while_running);
                }
            }
            _ => {}
        });
        if let Some(runnable) = runnable {
            self.domain.inject(runnable);
        }
    }
}
