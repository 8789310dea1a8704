//! Which tasks there are: so that a shutdown can name them, and drop them.

use std::{
    fmt,
    panic::Location,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::Waker,
};

use slab::Slab;

use crate::{domain::Domain, task::Runnable};

/// What a task is called, for people.
#[derive(Clone, PartialEq, Eq)]
pub struct TaskName {
    name: Name,
    spawned_at: &'static Location<'static>,
}

#[derive(Clone, PartialEq, Eq)]
enum Name {
    /// The type of its future.
    Type(&'static str),
    Given(Arc<str>),
}

impl TaskName {
    pub(crate) fn of_type<F>(spawned_at: &'static Location<'static>) -> TaskName {
        TaskName { name: Name::Type(std::any::type_name::<F>()), spawned_at }
    }

    pub(crate) fn given(name: Arc<str>, spawned_at: &'static Location<'static>) -> TaskName {
        TaskName { name: Name::Given(name), spawned_at }
    }

    /// The name it was given; without one, the type of its future.
    pub fn name(&self) -> &str {
        match &self.name {
            Name::Type(name) => name,
            Name::Given(name) => name,
        }
    }

    /// Where in the source it was spawned.
    pub fn spawned_at(&self) -> &'static Location<'static> {
        self.spawned_at
    }
}

impl fmt::Display for TaskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.spawned_at)
    }
}

impl fmt::Debug for TaskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TaskName({self})")
    }
}

/// Where in its domain a task is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    shard: u32,
    entry: u32,
}

impl Key {
    pub(crate) fn shard(self) -> usize {
        self.shard as usize
    }

    /// As a word that is never zero.
    pub(crate) fn to_word(self) -> u64 {
        (u64::from(self.shard) << 32 | u64::from(self.entry)) + 1
    }

    pub(crate) fn from_word(word: u64) -> Option<Key> {
        let word = word.checked_sub(1)?;
        Some(Key { shard: (word >> 32) as u32, entry: word as u32 })
    }
}

/// The tasks that one worker has spawned, or that came from outside. What schedules a task holds on to its shard, so that
/// workers do not count references on the same word.
pub(crate) struct Shard {
    index: u32,
    pub(crate) domain: Arc<Domain>,
    tasks: Mutex<Tasks>,
    /// Somebody waits for this to be empty. Read after a removal, under the lock.
    pub(crate) awaited: AtomicBool,
}

#[derive(Default)]
pub(crate) struct Tasks {
    closed: bool,
    entries: Slab<Entry>,
}

struct Entry {
    waker: Waker,
    name: TaskName,
}

impl Shard {
    pub(crate) fn new(index: usize, domain: Arc<Domain>) -> Shard {
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        Shard { index, domain, tasks: Mutex::default(), awaited: AtomicBool::new(false) }
    }

    fn lock(&self) -> MutexGuard<'_, Tasks> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers the task that `make` makes. Where nothing is taken any more, it is made all the same, and comes back as an
    /// error: its future is the caller's to drop.
    #[inline]
    pub(crate) fn register<T>(
        &self,
        refused: bool,
        name: TaskName,
        make: impl FnOnce(Key) -> (Runnable, T),
    ) -> (Result<Runnable, Runnable>, T) {
        let mut tasks = self.lock();
        let place = tasks.entries.vacant_key();
        let known = u32::try_from(place).ok().filter(|_| !refused && !tasks.closed);
        let (runnable, task) = make(Key { shard: self.index, entry: known.unwrap_or(u32::MAX) });
        if known.is_some() {
            tasks.entries.insert(Entry { waker: runnable.waker(), name });
            (Ok(runnable), task)
        } else {
            (Err(runnable), task)
        }
    }

    /// The task's future is gone. `true` if somebody waits for the last one and this was it.
    #[inline]
    pub(crate) fn remove(&self, key: Key) -> bool {
        let (entry, last) = {
            let mut tasks = self.lock();
            let entry = tasks.entries.try_remove(key.entry as usize);
            (entry, tasks.entries.is_empty() && self.awaited.load(Ordering::Relaxed))
        };
        drop(entry);
        last
    }

    /// Takes no more tasks.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().entries.len()
    }

    pub(crate) fn name(&self, key: Key) -> Option<TaskName> {
        self.lock().entries.get(key.entry as usize).map(|entry| entry.name.clone())
    }

    pub(crate) fn all(&self) -> Vec<(Key, TaskName)> {
        let tasks = self.lock();
        let all = tasks.entries.iter();
        all.map(|(at, entry)| (Key { shard: self.index, entry: at as u32 }, entry.name.clone())).collect()
    }

    /// Schedules every task once more, so that its worker can drop it.
    pub(crate) fn wake_all(&self) {
        let wakers: Vec<Waker> = {
            let tasks = self.lock();
            tasks.entries.iter().map(|(_, entry)| entry.waker.clone()).collect()
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shard").field("index", &self.index).finish_non_exhaustive()
    }
}
