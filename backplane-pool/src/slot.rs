//! The place of what runs next.
//!
//! A deque of one: its worker fills it without a locked instruction, and empties it with one. A word that is swapped takes one for
//! either, and on the way of every message between two tasks that is a twentieth of all it costs.

use std::cell::Cell;

#[cfg(not(backplane_loom))]
use crossbeam_deque::{Steal, Stealer, Worker};

#[cfg(backplane_loom)]
use loom::sync::Arc;

/// The half of the worker whose place it is. It holds one task at most, and who is there stays: whoever comes meanwhile is given back.
pub struct Slot<T> {
    #[cfg(not(backplane_loom))]
    place: Worker<T>,
    #[cfg(backplane_loom)]
    place: Arc<crate::sync::Mutex<Option<T>>>,
    /// It was filled, and has not been emptied by the worker since. A thief may have been there.
    filled: Cell<bool>,
}

/// The half of others: what a worker that is stuck cannot take, they can.
pub struct Behind<T> {
    #[cfg(not(backplane_loom))]
    place: Stealer<T>,
    #[cfg(backplane_loom)]
    place: Arc<crate::sync::Mutex<Option<T>>>,
}

impl<T> Default for Slot<T> {
    fn default() -> Slot<T> {
        Slot::new()
    }
}

impl<T> Slot<T> {
    /// An empty one.
    pub fn new() -> Slot<T> {
        #[cfg(not(backplane_loom))]
        let place = Worker::new_fifo();
        #[cfg(backplane_loom)]
        let place = Arc::new(crate::sync::Mutex::new(None));
        Slot { place, filled: Cell::new(false) }
    }

    /// For others.
    pub fn behind(&self) -> Behind<T> {
        #[cfg(not(backplane_loom))]
        let place = self.place.stealer();
        #[cfg(backplane_loom)]
        let place = Arc::clone(&self.place);
        Behind { place }
    }

    /// Whether there may be a task.
    #[inline]
    pub fn is_filled(&self) -> bool {
        self.filled.get()
    }

    /// Puts a task in, or gives it back where there is one already: nothing is lost.
    #[inline]
    pub fn put(&self, task: T) -> Option<T> {
        if self.filled.replace(true) {
            return Some(task);
        }
        // Nobody else fills it, so it is empty.
        #[cfg(not(backplane_loom))]
        self.place.push(task);
        #[cfg(backplane_loom)]
        assert!(crate::sync::lock(&self.place).replace(task).is_none(), "one at most");
        None
    }

    /// Takes what is there, unless a thief has.
    #[inline]
    pub fn take(&self) -> Option<T> {
        if !self.filled.replace(false) {
            return None;
        }
        #[cfg(not(backplane_loom))]
        return self.place.pop();
        #[cfg(backplane_loom)]
        return crate::sync::lock(&self.place).take();
    }
}

impl<T> Behind<T> {
    /// Takes what is there. Of two who take, one gets it.
    pub fn take(&self) -> Option<T> {
        #[cfg(not(backplane_loom))]
        loop {
            match self.place.steal() {
                Steal::Success(task) => return Some(task),
                Steal::Empty => return None,
                Steal::Retry => {}
            }
        }
        #[cfg(backplane_loom)]
        return crate::sync::lock(&self.place).take();
    }
}

impl<T> std::fmt::Debug for Slot<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot").field("is_filled", &self.is_filled()).finish_non_exhaustive()
    }
}

impl<T> std::fmt::Debug for Behind<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Behind").finish_non_exhaustive()
    }
}
