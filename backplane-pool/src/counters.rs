//! What each worker has done so far.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// What one worker has done since it started. Read while it works: each figure is true for itself.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = backplane_pool::Pool::builder().workers(1).build()?;
/// for _ in 0..3 {
///     pool.block_on(pool.spawn(async {}))?;
/// }
/// let worker = &pool.counters()[0];
/// assert_eq!((worker.worker, worker.polls, worker.from_outside), (0, 3, 3));
/// assert_eq!((worker.steals, worker.lost_panics), (0, 0)); // there is nobody to take work from
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerCounters {
    /// Which worker, from zero, over all nodes.
    pub worker: usize,
    /// The node it works for.
    pub node: usize,
    /// Tasks polled.
    pub polls: u64,
    /// Of those, polls of a task that was woken by the task before it, or spawned by it, and ran next.
    pub next: u64,
    /// Times that work was taken from another worker of the node.
    pub steals: u64,
    /// Tasks taken that somebody outside the node's workers had spawned or woken.
    pub from_outside: u64,
    /// Times that somebody woke it from its sleep.
    pub wakes: u64,
    /// Times it fell asleep, the sleep it is in among them.
    pub parks: u64,
    /// How long it slept, without the sleep it is in.
    pub parked: Duration,
    /// Polls made while the system ran the worker on a CPU of another node. Looked at once for each turn of polls, and
    /// zero wherever workers are pinned.
    pub off_node_polls: u64,
    /// Panics of destructors, of what a task returned or was cancelled with, where nobody could be told.
    pub lost_panics: u64,
}

/// Written by one worker, read by everybody.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) polls: Counter,
    pub(crate) next: Counter,
    pub(crate) steals: Counter,
    pub(crate) from_outside: Counter,
    pub(crate) wakes: Counter,
    pub(crate) parks: Counter,
    pub(crate) parked_nanos: Counter,
    pub(crate) off_node_polls: Counter,
    pub(crate) lost_panics: Counter,
    /// Tasks whose future is gone.
    pub(crate) ended: Counter,
}

impl Counters {
    pub(crate) fn read(&self, worker: usize, node: usize) -> WorkerCounters {
        WorkerCounters {
            worker,
            node,
            polls: self.polls.get(),
            next: self.next.get(),
            steals: self.steals.get(),
            from_outside: self.from_outside.get(),
            wakes: self.wakes.get(),
            parks: self.parks.get(),
            parked: Duration::from_nanos(self.parked_nanos.get()),
            off_node_polls: self.off_node_polls.get(),
            lost_panics: self.lost_panics.get(),
        }
    }
}

/// A number that one thread counts up.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// With all that its writer did before.
    pub(crate) fn get_after(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// For its one writer only; whoever [sees it](Counter::get_after) sees what was done before.
    #[inline]
    pub(crate) fn add_after(&self, more: u64) {
        self.0.store(self.get().wrapping_add(more), Ordering::Release);
    }

    /// For its one writer only.
    #[inline]
    pub(crate) fn add(&self, more: u64) {
        self.0.store(self.get().wrapping_add(more), Ordering::Relaxed);
    }
}
