//! The one file that names a lock, so that loom can stand in for it.

#[cfg(not(backplane_loom))]
pub(crate) use std::sync::{Mutex, MutexGuard};

#[cfg(backplane_loom)]
pub(crate) use loom::sync::{Mutex, MutexGuard};
/// What is shared is shared by counting alone; loom has nothing to find there.
pub(crate) use std::sync::Arc;

/// Locks, whatever happened to the thread that held it before: nothing of the user's runs under our locks, so there is
/// no half-done state that poison could warn of.
#[inline]
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    match mutex.lock() {
        Ok(guard) => guard,
        Err(poisoned) => poisoned.into_inner(),
    }
}

/// What is inside, as [`lock`].
pub(crate) fn into_inner<T>(mutex: Mutex<T>) -> T {
    match mutex.into_inner() {
        Ok(value) => value,
        Err(poisoned) => poisoned.into_inner(),
    }
}

#[cfg(backplane_loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize};
pub(crate) use std::sync::atomic::Ordering;
#[cfg(not(backplane_loom))]
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize};
