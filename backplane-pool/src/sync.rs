//! The locks and atomics that loom must see through, so that it can stand in for them.
//!
//! Only what two threads race for by a protocol of ours is here: who sleeps and who is woken. Counters, registries and
//! queues of other crates are used as they are.

#[cfg(not(backplane_loom))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicUsize, fence},
};

#[cfg(backplane_loom)]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicUsize, fence},
};

/// Locks, whatever happened to the thread that held it before: nothing of the user's runs under our locks, so
/// there is no half-done state that poison could warn of.
#[inline]
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    match mutex.lock() {
        Ok(guard) => guard,
        Err(poisoned) => poisoned.into_inner(),
    }
}
