//! Who sleeps, who looks for work, and who is woken for it.
//!
//! Whoever makes work visible and then calls [`Idle::notify`], and whoever falls asleep by [`Idle::sleep`] and then looks
//! once more, cannot both miss each other: a fence stands between the two steps on either side (invariant 1). Who has been
//! woken counts as searching from that moment on, so that a burst of work wakes one worker and not all; and the last
//! who stops searching looks once more, because others have relied on it (invariant 2).

use std::{sync::atomic::Ordering, task::Waker};

use crate::sync::{AtomicUsize, Mutex, fence, lock};

const SEARCHING: usize = 1;
const SLEEPING: usize = 1 << (usize::BITS / 2);

/// The most workers that one of these can count.
pub const LIMIT: usize = SLEEPING - 1;

const fn searching(state: usize) -> usize {
    state & (SLEEPING - 1)
}

const fn sleeping(state: usize) -> usize {
    state / SLEEPING
}

/// The sleepers of one domain.
#[derive(Debug)]
pub struct Idle {
    /// How many sleep, and how many search. Sleepers change under the lock.
    state: AtomicUsize,
    sleepers: Mutex<Vec<Sleeper>>,
}

#[derive(Debug)]
struct Sleeper {
    worker: usize,
    waker: Waker,
}

/// How a sleep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// By itself: an event came in on its own thread, or it was polled for no reason.
    Itself,
    /// By somebody who has work; it searches now.
    Notified,
}

impl Default for Idle {
    fn default() -> Idle {
        Idle::new()
    }
}

impl Idle {
    /// Everybody is awake, and nobody searches.
    pub fn new() -> Idle {
        Idle { state: AtomicUsize::new(0), sleepers: Mutex::new(Vec::new()) }
    }

    /// One more looks for work.
    pub fn search(&self) {
        self.state.fetch_add(SEARCHING, Ordering::SeqCst);
    }

    /// One who searched has found something. `true` for the last of them, who must look whether there is more, and
    /// notify if there is (invariant 2).
    pub fn found(&self) -> bool {
        let last = searching(self.state.fetch_sub(SEARCHING, Ordering::SeqCst)) == 1;
        fence(Ordering::SeqCst);
        last
    }

    /// One who searched falls asleep. It must look for work once more after this, and if there is some [leave](Idle::leave)
    /// (invariant 1) and go on [searching](Idle::search), since others may have relied on it (invariant 2).
    pub fn sleep(&self, worker: usize, waker: &Waker) {
        let waker = waker.clone();
        let mut sleepers = lock(&self.sleepers);
        sleepers.push(Sleeper { worker, waker });
        self.state.fetch_add(SLEEPING - SEARCHING, Ordering::SeqCst);
        drop(sleepers);
        fence(Ordering::SeqCst);
    }

    /// Awake again. Whoever was notified searches now.
    pub fn leave(&self, worker: usize) -> Woken {
        let mut sleepers = lock(&self.sleepers);
        let Some(at) = sleepers.iter().position(|sleeper| sleeper.worker == worker) else {
            return Woken::Notified;
        };
        let sleeper = sleepers.remove(at);
        self.state.fetch_sub(SLEEPING, Ordering::SeqCst);
        drop(sleepers);
        drop(sleeper);
        Woken::Itself
    }

    /// Wakes a worker for work that everybody can see by now, unless one is already looking (invariant 1).
    #[inline]
    pub fn notify(&self) {
        fence(Ordering::SeqCst);
        let state = self.state.load(Ordering::SeqCst);
        if sleeping(state) > 0 && searching(state) == 0 {
            self.wake_one();
        }
    }

    /// Whether [`hint`](Idle::hint) would wake somebody, as far as can be seen from here.
    #[inline]
    pub fn is_anybody_to_wake(&self) -> bool {
        let state = self.state.load(Ordering::Relaxed);
        sleeping(state) > 0 && searching(state) == 0
    }

    /// As [`notify`](Idle::notify), without the fence: for who will come by the work itself before long, so that a sleeper
    /// that is missed costs time and loses nothing.
    #[inline]
    pub fn hint(&self) {
        if self.is_anybody_to_wake() {
            self.wake_one();
        }
    }

    #[cold]
    fn wake_one(&self) {
        let woken = {
            let mut sleepers = lock(&self.sleepers);
            // Somebody else may have been woken, or have begun to search, since.
            if searching(self.state.load(Ordering::SeqCst)) > 0 {
                None
            } else {
                self.take(&mut sleepers, None)
            }
        };
        if let Some(sleeper) = woken {
            sleeper.waker.wake();
        }
    }

    /// Wakes this worker, for work that is for no other. One that is awake looks before it sleeps.
    pub fn rouse(&self, worker: usize) {
        let woken = {
            let mut sleepers = lock(&self.sleepers);
            let at = sleepers.iter().position(|sleeper| sleeper.worker == worker);
            at.and_then(|at| self.take(&mut sleepers, Some(at)))
        };
        if let Some(sleeper) = woken {
            sleeper.waker.wake();
        }
    }

    /// Wakes everybody.
    pub fn rouse_all(&self) {
        loop {
            let woken = self.take(&mut lock(&self.sleepers), None);
            let Some(sleeper) = woken else { return };
            sleeper.waker.wake();
        }
    }

    /// Takes a sleeper off the list; it searches from here on. The one who fell asleep last is the warmest.
    fn take(&self, sleepers: &mut Vec<Sleeper>, at: Option<usize>) -> Option<Sleeper> {
        let sleeper = match at {
            Some(at) => sleepers.remove(at),
            None => sleepers.pop()?,
        };
        // At most half a word of each: no carry from one into the other.
        self.state.fetch_sub(SLEEPING - SEARCHING, Ordering::SeqCst);
        Some(sleeper)
    }
}
