//! Which tasks there are: so that a shutdown can name them, and drop them.

use std::{
    fmt,
    num::NonZeroU64,
    panic::Location,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::Waker,
};

use slab::Slab;

use crate::task::Runnable;

/// What a task is called, for people.
///
/// ```
/// # let pool = backplane_pool::Pool::builder().workers(1).build().unwrap();
/// let task = pool.spawn_named("patient", std::future::pending::<()>());
/// let name = &pool.task_names()[0];
/// assert_eq!(name.to_string(), format!("patient ({})", name.spawned_at()));
/// # drop(task);
/// ```
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

/// Where in the source a task was spawned, and of which type its future is: what it is called when nobody has named it. Every task
/// holds one, so it is small: the type's name is asked for only when it is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site {
    kind: fn() -> &'static str,
    at: &'static Location<'static>,
}

impl Site {
    #[inline]
    pub(crate) fn of<F>(at: &'static Location<'static>) -> Site {
        Site { kind: std::any::type_name::<F>, at }
    }

    /// What tells it from others, as words that a thread can leave for another.
    #[inline]
    pub(crate) fn words(self) -> [usize; 2] {
        [self.kind as usize, std::ptr::from_ref(self.at).addr()]
    }
}

impl From<Site> for TaskName {
    fn from(site: Site) -> TaskName {
        TaskName { name: Name::Type((site.kind)()), spawned_at: site.at }
    }
}

impl TaskName {
    pub(crate) fn given(name: Arc<str>, spawned_at: &'static Location<'static>) -> TaskName {
        TaskName { name: Name::Given(name), spawned_at }
    }

    /// The name it was given; without one, the type of its future.
    ///
    /// ```
    /// # let pool = backplane_pool::Pool::builder().workers(1).build().unwrap();
    /// let task = pool.spawn(std::future::pending::<()>());
    /// # while pool.task_names().is_empty() {}
    /// // It waits, and nobody has named it.
    /// assert_eq!(pool.task_names()[0].name(), std::any::type_name::<std::future::Pending<()>>());
    /// # drop(task);
    /// ```
    pub fn name(&self) -> &str {
        match &self.name {
            Name::Type(name) => name,
            Name::Given(name) => name,
        }
    }

    /// Where in the source it was spawned.
    ///
    /// ```
    /// # let pool = backplane_pool::Pool::builder().workers(1).build().unwrap();
    /// let (task, line) = (pool.spawn_named("patient", std::future::pending::<()>()), line!());
    /// let at = pool.task_names()[0].spawned_at();
    /// assert_eq!((at.file(), at.line()), (file!(), line));
    /// # drop(task);
    /// ```
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

/// Where in its domain a task is registered: shard and entry in one word, that is more than one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key(NonZeroU64);

impl Key {
    fn new(shard: u32, entry: u32) -> Key {
        let word = u64::from(shard) << 32 | u64::from(entry);
        Key(NonZeroU64::MIN.saturating_add(word.saturating_add(1)))
    }

    pub(crate) fn shard(self) -> usize {
        ((self.0.get() - 2) >> 32) as usize
    }

    fn entry(self) -> usize {
        (self.0.get() - 2) as u32 as usize
    }

    #[inline]
    pub(crate) fn to_word(self) -> u64 {
        self.0.get()
    }

    #[inline]
    pub(crate) fn from_word(word: u64) -> Option<Key> {
        NonZeroU64::new(word).filter(|word| word.get() > 1).map(Key)
    }
}

/// A part of a domain's list of tasks: what one worker has spawned and polled, or what came from outside.
///
/// Every task is counted. On the list are those that have a name, and those that a worker has polled and that wait: one that is
/// done with its first poll is never written down, and one that was never polled lies in a queue, where it can be found.
#[derive(Debug)]
pub(crate) struct Shard {
    index: u32,
    /// How many were ever spawned, and [`CLOSED`].
    spawned: AtomicU64,
    tasks: Mutex<Tasks>,
}

/// Takes no more tasks.
const CLOSED: u64 = 1 << 63;

#[derive(Debug, Default)]
pub(crate) struct Tasks {
    entries: Slab<Entry>,
}

#[derive(Debug)]
struct Entry {
    waker: Waker,
    name: TaskName,
}

/// Who spawns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spawner {
    /// The worker whose shard it is.
    Within,
    Without,
}

impl Shard {
    pub(crate) fn new(index: usize) -> Shard {
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        Shard { index, spawned: AtomicU64::new(0), tasks: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Tasks> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more, unless it is closed. It is visible to whoever sees the task, which is passed on after this.
    #[inline]
    fn count(&self, from: Spawner) -> bool {
        let before = self.spawned.load(Ordering::Relaxed);
        match from {
            // Nobody else writes here; a worker closes its own.
            Spawner::Within if before & CLOSED == 0 => {
                self.spawned.store(before + 1, Ordering::Relaxed);
                true
            }
            Spawner::Within => false,
            Spawner::Without => {
                let more = |count| if count & CLOSED == 0 { Some(count + 1) } else { None };
                self.spawned.fetch_update(Ordering::SeqCst, Ordering::Relaxed, more).is_ok()
            }
        }
    }

    fn is_closed(&self) -> bool {
        self.spawned.load(Ordering::SeqCst) & CLOSED > 0
    }

    /// How many were ever spawned. Whoever wants to know how many are left asks first how many have ended.
    pub(crate) fn spawned(&self) -> u64 {
        self.spawned.load(Ordering::SeqCst) & !CLOSED
    }

    /// Counts the task that `make` makes. Where nothing is taken any more, it is made all the same, and comes back as an
    /// error: its future is the caller's to drop.
    #[inline]
    pub(crate) fn enter<T>(
        &self,
        from: Spawner,
        refused: bool,
        name: Option<TaskName>,
        make: impl FnOnce(Option<Key>) -> (Runnable, T),
    ) -> (Result<Runnable, Runnable>, T) {
        // Counted before it is on the list, or it could be gone before it was there.
        let Some(name) = name else {
            let counted = !refused && self.count(from);
            let (runnable, task) = make(None);
            return (if counted { Ok(runnable) } else { Err(runnable) }, task);
        };
        let mut tasks = self.lock();
        if refused || !self.count(from) {
            drop(tasks);
            let (runnable, task) = make(None);
            return (Err(runnable), task);
        }
        let key = self.next(&tasks);
        let (runnable, task) = make(key);
        if key.is_some() {
            tasks.entries.insert(Entry { waker: runnable.waker(), name });
        }
        (Ok(runnable), task)
    }

    fn next(&self, tasks: &Tasks) -> Option<Key> {
        let entry = u32::try_from(tasks.entries.vacant_key()).ok()?;
        Some(Key::new(self.index, entry))
    }

    /// Writes down a task that waits. `None` when the list is closed: then the task is to be dropped.
    pub(crate) fn insert(&self, waker: &Waker, name: TaskName) -> Option<Key> {
        let waker = waker.clone();
        let mut tasks = self.lock();
        if self.is_closed() {
            return None;
        }
        let key = self.next(&tasks)?;
        tasks.entries.insert(Entry { waker, name });
        Some(key)
    }

    /// The task's future is gone.
    pub(crate) fn remove(&self, key: Key) {
        let entry = self.lock().entries.try_remove(key.entry());
        drop(entry);
    }

    /// Takes no more tasks. Who is about to write one down, does it before or not at all.
    pub(crate) fn close(&self) {
        let _tasks = self.lock();
        self.spawned.fetch_or(CLOSED, Ordering::SeqCst);
    }

    pub(crate) fn name(&self, key: Key) -> Option<TaskName> {
        self.lock().entries.get(key.entry()).map(|entry| entry.name.clone())
    }

    pub(crate) fn listed(&self) -> Vec<(Key, TaskName)> {
        let tasks = self.lock();
        let key = |entry| u32::try_from(entry).ok().map(|entry| Key::new(self.index, entry));
        tasks.entries.iter().filter_map(|(entry, task)| Some((key(entry)?, task.name.clone()))).collect()
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
