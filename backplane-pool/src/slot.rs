//! The place of the task that was woken last, which runs next.

#[cfg(not(backplane_loom))]
use crossbeam_utils::atomic::AtomicCell;

/// Holds one task. Its worker puts and takes; a thief may take what a worker that is stuck cannot.
pub struct Slot<T> {
    #[cfg(not(backplane_loom))]
    cell: AtomicCell<Option<T>>,
    #[cfg(backplane_loom)]
    cell: crate::sync::Mutex<Option<T>>,
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
        const {
            assert!(AtomicCell::<Option<T>>::is_lock_free(), "a slot holds what fits into a word")
        };
        Slot { cell: None.into() }
    }

    /// Puts a task in and gives back the one that was there: nothing is lost.
    #[inline]
    pub fn put(&self, task: T) -> Option<T> {
        self.swap(Some(task))
    }

    /// Takes what is there. Of two who take, one gets it.
    #[inline]
    pub fn take(&self) -> Option<T> {
        self.swap(None)
    }

    #[cfg(not(backplane_loom))]
    #[inline]
    fn swap(&self, new: Option<T>) -> Option<T> {
        self.cell.swap(new)
    }

    #[cfg(backplane_loom)]
    fn swap(&self, new: Option<T>) -> Option<T> {
        std::mem::replace(&mut *crate::sync::lock(&self.cell), new)
    }
}

impl<T> std::fmt::Debug for Slot<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot").finish_non_exhaustive()
    }
}
