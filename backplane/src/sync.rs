//! The one file that names a lock, so that loom can stand in for it.

#[cfg(not(backplane_loom))]
pub(crate) use std::sync::{Arc, Mutex, MutexGuard};

#[cfg(backplane_loom)]
pub(crate) use loom::sync::{Mutex, MutexGuard};
/// Words and inboxes are shared by counting alone; loom has nothing to find there.
#[cfg(backplane_loom)]
pub(crate) use std::sync::Arc;

use std::sync::atomic::Ordering;

/// Locks, whatever happened to the thread that held it before: nothing of the user's runs under our locks, so
/// there is no half-done state that poison could warn of.
#[inline]
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    match mutex.lock() {
        Ok(guard) => guard,
        Err(poisoned) => poisoned.into_inner(),
    }
}

/// A word that is written under a lock and read without it.
pub(crate) struct Word {
    #[cfg(not(backplane_loom))]
    seen: std::sync::atomic::AtomicU64,
    #[cfg(backplane_loom)]
    seen: loom::sync::atomic::AtomicU64,
    /// What the last writer wrote, for whoever reads under the lock. Loom remembers one access of an atomic only: there,
    /// a load in front of a store would hide the store from the search for other interleavings.
    #[cfg(backplane_loom)]
    written: std::sync::atomic::AtomicU64,
}

impl Word {
    pub(crate) fn new(word: u64) -> Word {
        Word {
            seen: word.into(),
            #[cfg(backplane_loom)]
            written: word.into(),
        }
    }

    /// What it is, or was a moment ago; with all that was written before it.
    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.seen.load(Ordering::Acquire)
    }

    /// What it is, for who holds the lock, or is the only one who can write.
    #[inline]
    pub(crate) fn get_locked(&self) -> u64 {
        #[cfg(not(backplane_loom))]
        let word = self.seen.load(Ordering::Relaxed);
        #[cfg(backplane_loom)]
        let word = self.written.load(Ordering::Relaxed);
        word
    }

    /// For who holds the lock, or is the only one who can write.
    #[inline]
    pub(crate) fn set(&self, word: u64) {
        #[cfg(backplane_loom)]
        self.written.store(word, Ordering::Relaxed);
        self.seen.store(word, Ordering::Release);
    }

    /// Whether it was `from`, and now is `to`.
    #[inline]
    pub(crate) fn change(&self, from: u64, to: u64) -> bool {
        let changed = self.seen.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        #[cfg(backplane_loom)]
        if changed {
            self.written.store(to, Ordering::Relaxed);
        }
        changed
    }
}
