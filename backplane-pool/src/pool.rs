//! The pool, its handle, and its end.

use std::{
    collections::{HashMap, HashSet},
    error::Error,
    fmt,
    future::Future,
    ops::Deref,
    panic::Location,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use async_task::WithInfo;
use backplane::{DeviceId, Line};

use crate::{
    builder::Builder,
    counters::WorkerCounters,
    domain::{Domain, DomainId, House, Phase, Unlisted, schedule, with_worker},
    pin::unpin_once,
    registry::{Key, Site, Spawner, TaskName},
    resident::Resident,
    sleep::Sleeps,
    task::{Errand, Job, Meta, Outcome, Pinned, Runnable, Task, drop_untold},
    worker::Local,
};

/// One node's part of a pool, as the pool sees it.
#[derive(Debug)]
pub(crate) struct Quarter {
    pub(crate) domain: Arc<Domain>,
    pub(crate) workers: usize,
    /// The number of its first worker.
    pub(crate) first: usize,
}

#[derive(Debug)]
struct Shared {
    house: Arc<House>,
    quarters: OnceLock<Vec<Quarter>>,
    /// Whose turn it is among the workers, for what comes from outside.
    turn: AtomicUsize,
    /// On which node a device lives, as far as it was said.
    homes: Mutex<Homes>,
    sleeps: Arc<Sleeps>,
}

#[derive(Debug, Default)]
struct Homes {
    known: HashMap<DeviceId, (Line, usize)>,
    /// At this size those that have ended are forgotten.
    sweep_at: usize,
}

/// Threads that run futures.
///
/// A pool is its [`Handle`], which it dereferences to, and the owner of its threads besides. Dropping it drops all of
/// its tasks, on its own threads, and waits for that; a task that keeps its worker in one poll is waited for, however long.
/// [`shutdown`](Pool::shutdown) gives tasks the time to end, and stops waiting at a deadline. Dropped on one of its
/// own threads, it does not wait.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use backplane_pool::Pool;
/// let pool = Pool::new()?;
/// let task = pool.spawn(async { 6 * 7 });
/// assert_eq!(pool.block_on(task)?, 42);
/// # Ok(())
/// # }
/// ```
pub struct Pool {
    handle: Handle,
    threads: Vec<JoinHandle<()>>,
    watch: Option<JoinHandle<()>>,
}

/// What a shutdown was still waiting for at its deadline.
///
/// ```
/// use std::time::Duration;
/// use backplane_pool::Pool;
/// # let pool = Pool::builder().workers(1).build().unwrap();
/// pool.spawn_named("patient", std::future::pending::<()>()).detach();
/// let unfinished = pool.shutdown(Duration::ZERO).unwrap_err();
/// assert!(unfinished.stuck.is_empty()); // it could be dropped
/// let words = unfinished.to_string();
/// assert!(words.starts_with("tasks had not ended") && words.contains("patient"));
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Unfinished {
    /// Tasks that had not ended, and waited for something or for their turn. They have been dropped, but for those that only
    /// the thread of a stuck one can drop, when it comes back.
    pub waiting: Vec<TaskName>,
    /// Tasks that were in a poll, or blocked in one. They have been dropped after it, unless they are among the stuck.
    pub running: Vec<TaskName>,
    /// Tasks that did not come back from their poll, or from their destructor. They have kept their threads, which go on, and
    /// end when they do. What such a thread alone knows of is not named: [local](Handle::spawn_local) tasks of its own that have not
    /// had their first turn.
    pub stuck: Vec<TaskName>,
}

impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, what: &str, names: &[TaskName]| {
            if names.is_empty() {
                return Ok(());
            }
            write!(f, "; {what}:")?;
            names
                .iter()
                .enumerate()
                .try_for_each(|(i, name)| write!(f, "{} {name}", if i == 0 { "" } else { "," }))
        };
        f.write_str("tasks had not ended")?;
        list(f, "waiting", &self.waiting)?;
        list(f, "running", &self.running)?;
        list(f, "stuck", &self.stuck)
    }
}

impl Error for Unfinished {}

/// A task in a poll.
#[derive(Clone, Debug)]
struct Running {
    name: TaskName,
    /// It was not on the list.
    is_first: bool,
}

fn names(running: Vec<Running>) -> Vec<TaskName> {
    running.into_iter().map(|running| running.name).collect()
}

/// What is on the list, and where.
type Listed = Vec<((DomainId, Key), TaskName)>;

/// Who runs, and who waits, by what was on the list before and after it was seen who runs.
fn sorted(before: Listed, running: Vec<Running>, after: Listed) -> (Vec<Running>, Vec<TaskName>) {
    let places: HashSet<_> = before.iter().map(|(place, _)| *place).collect();
    let mut waiting: Vec<_> = before.into_iter().map(|(_, name)| name).collect();
    let mut unlisted = Vec::new();
    for Running { name, is_first } in &running {
        // It is on the list as well, unless this is its first poll.
        match waiting.iter().position(|waits| !is_first && waits == name) {
            Some(at) => drop(waiting.swap_remove(at)),
            None => unlisted.push(name),
        }
    }
    for (_, name) in after.into_iter().filter(|(place, _)| !places.contains(place)) {
        // Written down meanwhile. If it was not seen to run, its first poll came back before we looked.
        match unlisted.iter().position(|unlisted| **unlisted == name) {
            Some(at) => drop(unlisted.swap_remove(at)),
            None => waiting.push(name),
        }
    }
    (running, waiting)
}

/// After a shutdown's deadline, so long for polls to come back and tasks to be dropped.
const GRACE: Duration = Duration::from_millis(100);

/// When tasks have ended before their deadline, hooks have the time that is left, and the same grace.
fn hooks_deadline(now: Instant, tasks: Option<Instant>) -> Option<Instant> {
    tasks?.max(now).checked_add(GRACE)
}

impl Pool {
    /// A pool for all CPUs that this process may use: a domain for each node, pinned to it.
    ///
    /// # Errors
    ///
    /// If the system gives no threads.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use backplane_pool::{Pool, Topology};
    /// let pool = Pool::new()?;
    /// assert_eq!(pool.counters().len(), Topology::system().parallelism());
    /// # Ok(())
    /// # }
    /// ```
    pub fn new() -> Result<Pool, crate::BuildError> {
        Pool::builder().build()
    }

    /// Sets up a pool.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use backplane_pool::Pool;
    /// let pool = Pool::builder().workers(1).thread_name("kitchen").build()?;
    /// assert_eq!(pool.counters().len(), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder() -> Builder {
        Builder::new()
    }

    pub(crate) fn empty(house: Arc<House>) -> Pool {
        let (quarters, turn, homes) = (OnceLock::new(), AtomicUsize::new(0), Mutex::default());
        let handle = Handle {
            shared: Arc::new(Shared { house, quarters, turn, homes, sleeps: Sleeps::new() }),
            node: None,
        };
        Pool { handle, threads: Vec::new(), watch: None }
    }

    pub(crate) fn keep(&mut self, thread: JoinHandle<()>) {
        self.threads.push(thread);
    }

    pub(crate) fn open(&mut self, quarters: Vec<Quarter>, watch: JoinHandle<()>) {
        drop(self.handle.shared.quarters.set(quarters));
        self.watch = Some(watch);
    }

    /// What can be cloned and given away. It does not keep the pool.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = backplane_pool::Pool::builder().workers(1).build()?;
    /// let handle = pool.handle();
    /// let task = pool.spawn(async move { handle.spawn(async { "from inside" }).await });
    /// assert_eq!(pool.block_on(task)??, "from inside");
    /// # Ok(())
    /// # }
    /// ```
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// As [`Handle::spawn`]. It stands here as well because a pool is a [`Runtime`](backplane::Runtime), whose `spawn`, where that
    /// trait is in scope, would come before its handle's, and knows no values.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use backplane::Runtime;
    /// let pool = backplane_pool::Pool::builder().workers(1).build()?;
    /// assert_eq!(pool.block_on(pool.spawn(async { "a value" }))?, "a value");
    /// assert!(pool.now() <= pool.now());
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    #[inline]
    pub fn spawn<F>(&self, future: F) -> Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.handle.spawn(future)
    }

    /// Takes nothing more from outside, lets tasks end until `within` is over, and drops what is left.
    ///
    /// What tasks spawn from inside meanwhile is run as well. After the deadline polls have 100 ms to come back.
    /// Must be called from a thread that is not the pool's own, or there is a task that cannot end. A hook that runs for longer
    /// is waited for no more than a task.
    ///
    /// # Errors
    ///
    /// Names the tasks that had not ended by the deadline.
    ///
    /// ```
    /// use std::time::Duration;
    /// use backplane_pool::Pool;
    /// # let pool = Pool::builder().workers(1).build().unwrap();
    /// pool.spawn_named("patient", std::future::pending::<()>()).detach();
    /// let unfinished = pool.shutdown(Duration::from_millis(10)).unwrap_err();
    /// assert_eq!(unfinished.waiting[0].name(), "patient");
    /// ```
    pub fn shutdown(mut self, within: Duration) -> Result<(), Unfinished> {
        let house = Arc::clone(&self.handle.shared.house);
        let deadline = Instant::now().checked_add(within);
        house.enter(Phase::Draining);
        if house.wait(deadline, |_| self.is_empty()) {
            self.drop_tasks();
            if !house.wait(hooks_deadline(Instant::now(), deadline), |workers| workers == 0) {
                self.leave();
            }
            return Ok(());
        }
        house.keep_names_of_dropped();
        let (running, mut waiting) = self.names();
        self.drop_tasks();
        let all_ended = house.wait(Instant::now().checked_add(GRACE), |workers| workers == 0);
        let mut first: Vec<_> = running.iter().filter(|running| running.is_first).cloned().collect();
        for Unlisted { name, polled } in house.dropped() {
            // Some of those that ran for the first time came back too late to be written down.
            match first.iter().position(|first| polled && first.name == name) {
                Some(at) => drop(first.swap_remove(at)),
                None => waiting.push(name),
            }
        }
        let mut stuck = Vec::new();
        if !all_ended {
            stuck = names(self.names().0);
            waiting.extend(self.quarters().iter().flat_map(|quarter| quarter.domain.names_of_queued()));
            self.leave();
        }
        let running = names(running);
        if all_ended && running.is_empty() && waiting.is_empty() {
            return Ok(());
        }
        Err(Unfinished { waiting, running, stuck })
    }

    /// Threads are left to themselves. Whoever watches them ends with the last.
    fn leave(&mut self) {
        self.threads.clear();
        self.watch = None;
    }

    fn is_empty(&self) -> bool {
        self.handle.tasks() == 0
    }

    /// Who runs, and who waits.
    fn names(&self) -> (Vec<Running>, Vec<TaskName>) {
        let before = self.handle.listed();
        let running = self.running();
        sorted(before, running, self.handle.listed())
    }

    /// Who is in a poll.
    fn running(&self) -> Vec<Running> {
        let (mut running, mut seen) = (Vec::new(), Vec::new());
        for quarter in self.handle.quarters() {
            for polled in quarter.domain.remotes().iter().flat_map(|remote| remote.all_polled()) {
                // It may have moved from one worker to the next while we looked.
                let place = polled.key().map(|key| (quarter.domain.id(), key));
                let again = place.is_some() && seen.contains(&place);
                let Some(name) = quarter.domain.name_of(polled).filter(|_| !again) else { continue };
                seen.push(place);
                running.push(Running { name, is_first: polled.is_first() });
            }
        }
        running
    }

    fn drop_tasks(&self) {
        self.handle.shared.house.enter(Phase::Dropping);
        self.handle.quarters().iter().for_each(|quarter| quarter.domain.idle.rouse_all());
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.drop_tasks();
        if self.handle.worker(|_| ()).is_some() {
            return;
        }
        // A worker catches what tasks throw; there is no news in how its thread ended.
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
        if let Some(watch) = self.watch.take() {
            // A listener may own the pool.
            if watch.thread().id() != std::thread::current().id() {
                drop(watch.join());
            }
        }
    }
}

impl Deref for Pool {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.handle
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("nodes", &self.handle.quarters()).finish_non_exhaustive()
    }
}

/// A way to a pool, and maybe to one of its nodes.
///
/// It does not keep the pool: what is spawned after the pool's end is a task that was cancelled. A handle
/// [to a node](Handle::on_node) is a [`Runtime`](backplane::Runtime) on which everything stays on that node: a supervisor that is
/// started on it has its whole subtree there.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use backplane_pool::{JoinError, Pool};
/// let pool = Pool::builder().workers(1).build()?;
/// let handle = pool.handle();
/// assert_eq!(handle.block_on(handle.spawn(async { 1 + 2 }))?, 3);
/// drop(pool);
/// let late = handle.spawn(async { 1 + 2 });
/// assert!(matches!(handle.block_on(late), Err(JoinError::Cancelled)));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
    /// The place of the node among the domains.
    node: Option<usize>,
}

/// There is no such node in the pool, or it has no workers.
///
/// ```
/// # use backplane_pool::{NoSuchNode, Pool};
/// # let pool = Pool::builder().workers(1).build().unwrap();
/// let error = pool.on_node(999).unwrap_err();
/// assert_eq!(error, NoSuchNode(999));
/// assert_eq!(error.to_string(), "the pool has no workers on node 999");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSuchNode(
    /// What was asked for.
    pub usize,
);

impl fmt::Display for NoSuchNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the pool has no workers on node {}", self.0)
    }
}

impl Error for NoSuchNode {}

impl Handle {
    fn quarters(&self) -> &[Quarter] {
        self.shared.quarters.get().map_or(&[], |quarters| quarters)
    }

    /// With the worker that this thread is, if it is this pool's.
    #[inline]
    fn worker<T>(&self, f: impl FnOnce(&Local) -> T) -> Option<T> {
        with_worker(|local| Arc::ptr_eq(&local.domain.house, &self.shared.house).then(|| f(local))).flatten()
    }

    /// The handle to a node of this pool.
    ///
    /// # Errors
    ///
    /// If there is none of this number, or it has no workers.
    ///
    /// ```
    /// # let pool = backplane_pool::Pool::builder().workers(1).build().unwrap();
    /// let first = pool.nodes().next().unwrap();
    /// let near = pool.on_node(first).unwrap();
    /// let task = near.spawn(async { "here" });
    /// assert_eq!(near.block_on(task).unwrap(), "here");
    /// assert!(pool.on_node(999).is_err());
    /// ```
    pub fn on_node(&self, node: usize) -> Result<Handle, NoSuchNode> {
        let place = self.quarters().iter().position(|quarter| quarter.domain.node == node);
        let node = Some(place.ok_or(NoSuchNode(node))?);
        Ok(Handle { shared: Arc::clone(&self.shared), node })
    }

    /// The nodes that have workers, by number.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use backplane_pool::{Pool, Topology};
    /// let nodes = Topology::from_nodes([(0, 0..2), (3, 2..4)]);
    /// let pool = Pool::builder().topology(nodes.clone()).workers(2).build()?;
    /// assert_eq!(pool.nodes().collect::<Vec<_>>(), [0, 3]);
    /// let small = Pool::builder().topology(nodes).workers(1).build()?;
    /// assert_eq!(small.nodes().collect::<Vec<_>>(), [0]); // nobody works on the other
    /// # Ok(())
    /// # }
    /// ```
    pub fn nodes(&self) -> impl Iterator<Item = usize> + '_ {
        self.quarters().iter().map(|quarter| quarter.domain.node)
    }

    /// The node that this handle leads to, if it leads to one.
    ///
    /// ```
    /// # let pool = backplane_pool::Pool::builder().workers(1).build().unwrap();
    /// let first = pool.nodes().next().unwrap();
    /// assert_eq!(pool.on_node(first).unwrap().node(), Some(first));
    /// assert_eq!(pool.handle().node(), None); // it leads to all of them
    /// ```
    pub fn node(&self) -> Option<usize> {
        self.node.and_then(|node| self.quarters().get(node)).map(|quarter| quarter.domain.node)
    }

    /// The node whose worker this thread is, if it is this pool's.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use backplane_pool::{Pool, Topology};
    /// # let pool = Pool::builder().topology(Topology::from_nodes([(0, 0..1), (3, 1..2)])).build()?;
    /// let handle = pool.handle();
    /// let there = pool.spawn_on(3, async move { handle.current_node() })?;
    /// assert_eq!(pool.block_on(there)?, Some(3));
    /// assert_eq!(pool.current_node(), None); // this thread is no worker
    /// # Ok(())
    /// # }
    /// ```
    pub fn current_node(&self) -> Option<usize> {
        self.worker(|local| local.domain.node)
    }

    /// What each worker has done so far.
    ///
    /// ```
    /// # let pool = backplane_pool::Pool::builder().workers(1).build().unwrap();
    /// pool.block_on(pool.spawn(async {})).unwrap();
    /// assert_eq!(pool.counters().iter().map(|worker| worker.polls).sum::<u64>(), 1);
    /// ```
    pub fn counters(&self) -> Vec<WorkerCounters> {
        let mut all = Vec::new();
        for quarter in self.quarters() {
            for (at, remote) in quarter.domain.remotes().iter().enumerate() {
                all.push(remote.counters.read(quarter.first + at, quarter.domain.node));
            }
        }
        all
    }

    /// How many tasks have been spawned and have not ended.
    ///
    /// ```
    /// # let pool = backplane_pool::Pool::builder().workers(1).build().unwrap();
    /// let task = pool.spawn(std::future::pending::<()>());
    /// assert_eq!(pool.tasks(), 1);
    /// pool.block_on(task.cancel());
    /// ```
    pub fn tasks(&self) -> usize {
        // First those that have ended: see `Domain::spawned`.
        let ended: u64 = self.quarters().iter().map(|quarter| quarter.domain.ended()).sum();
        let spawned: u64 = self.quarters().iter().map(|quarter| quarter.domain.spawned()).sum();
        usize::try_from(spawned.saturating_sub(ended)).unwrap_or(usize::MAX)
    }

    /// The names of tasks that have not ended: of those that wait for something, and of all that were
    /// [named](Handle::spawn_named). Others that wait for their first turn, or are in it, are only counted.
    ///
    /// ```
    /// # let pool = backplane_pool::Pool::builder().workers(1).build().unwrap();
    /// let task = pool.spawn_named("patient", std::future::pending::<()>());
    /// assert_eq!(pool.task_names()[0].name(), "patient");
    /// pool.block_on(task.cancel());
    /// assert!(pool.task_names().is_empty());
    /// ```
    pub fn task_names(&self) -> Vec<TaskName> {
        self.listed().into_iter().map(|(_, name)| name).collect()
    }

    fn listed(&self) -> Listed {
        let of = |quarter: &Quarter| {
            let id = quarter.domain.id();
            let listed = quarter.domain.shards.iter().flat_map(|shard| shard.listed());
            listed.map(|(key, name)| ((id, key), name)).collect::<Vec<_>>()
        };
        self.quarters().iter().flat_map(of).collect()
    }

    /// Runs a future on the pool.
    ///
    /// On one of the pool's own threads it stays on that node, and runs there soon; from outside, the nodes take turns.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use backplane_pool::{JoinError, Pool};
    /// # let pool = Pool::builder().workers(1).build()?;
    /// let whole = pool.spawn(async { "a value" });
    /// let broken = pool.spawn(async { panic!("no disk") as &str });
    /// assert_eq!(pool.block_on(whole)?, "a value");
    /// let Err(JoinError::Panicked(panic)) = pool.block_on(broken) else { panic!() };
    /// assert_eq!(panic.message(), Some("no disk"));
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    #[inline]
    pub fn spawn<F>(&self, future: F) -> Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.start(self.node, Site::of::<F>(Location::caller()), None, future)
    }

    /// As [`spawn`](Handle::spawn), with a name for reports: of hogs, and of what a shutdown could not wait for.
    ///
    /// ```
    /// # let pool = backplane_pool::Pool::builder().workers(1).build().unwrap();
    /// let client = pool.spawn_named(format!("client {}", 7), std::future::pending::<()>());
    /// let names: Vec<_> = pool.task_names().iter().map(|task| task.name().to_owned()).collect();
    /// assert_eq!(names, ["client 7"]);
    /// # drop(client);
    /// ```
    #[track_caller]
    pub fn spawn_named<F>(&self, name: impl Into<Arc<str>>, future: F) -> Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let at = Location::caller();
        let name = TaskName::given(name.into(), at);
        self.start(self.node, Site::of::<F>(at), Some(name), future)
    }

    /// Runs a future on a node, and only there.
    ///
    /// # Errors
    ///
    /// If there is none of this number, or it has no workers. It is looked for each time: who spawns much on one node takes
    /// its [handle](Handle::on_node).
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use backplane_pool::{NoSuchNode, Pool, Topology};
    /// # let pool = Pool::builder().topology(Topology::from_nodes([(0, 0..1), (1, 1..2)])).build()?;
    /// let handle = pool.handle();
    /// let there = pool.spawn_on(1, async move { handle.current_node() })?;
    /// assert_eq!(pool.block_on(there)?, Some(1));
    /// assert_eq!(pool.spawn_on(999, async {}).unwrap_err(), NoSuchNode(999));
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn spawn_on<F>(&self, node: usize, future: F) -> Result<Task<F::Output>, NoSuchNode>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let site = Site::of::<F>(Location::caller());
        Ok(self.start(self.on_node(node)?.node, site, None, future))
    }

    /// Runs a future on the node where a device [lives](Handle::settle); where nothing is known of it, as
    /// [`spawn`](Handle::spawn).
    ///
    /// ```
    /// use backplane::Device;
    /// # let pool = backplane_pool::Pool::builder().workers(1).build().unwrap();
    /// let (server, handle) = (Device::new(), pool.handle());
    /// let line = server.line();
    /// pool.block_on(pool.spawn(async move { handle.settle(&line) })).unwrap();
    /// let client = pool.spawn_near(&server.line(), async { "on the server's node" });
    /// # drop(pool.block_on(client));
    /// ```
    #[track_caller]
    pub fn spawn_near<F>(&self, line: &Line, future: F) -> Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let known = self.homes(|homes| {
            homes.known.get(&line.id()).and_then(|(line, node)| line.is_alive().then_some(*node))
        });
        self.start(known.or(self.node), Site::of::<F>(Location::caller()), None, future)
    }

    /// Says that a device lives here: on the node of the calling worker, or of this handle. Its neighbours are then
    /// [spawned near](Handle::spawn_near) it. `None` if there is no node to speak of. Forgotten when the device has ended.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use backplane::Device;
    /// # use backplane_pool::{Pool, Topology};
    /// # let pool = Pool::builder().topology(Topology::from_nodes([(0, 0..1), (1, 1..2)])).build()?;
    /// let server = Device::new();
    /// assert_eq!(pool.settle(&server.line()), None); // from outside, and to no node
    /// assert_eq!(pool.on_node(1)?.settle(&server.line()), Some(1));
    /// let handle = pool.handle();
    /// let client = pool.spawn_near(&server.line(), async move { handle.current_node() });
    /// assert_eq!(pool.block_on(client)?, Some(1));
    /// # Ok(())
    /// # }
    /// ```
    pub fn settle(&self, line: &Line) -> Option<usize> {
        let node = self.node.or_else(|| self.worker(|local| local.domain.index))?;
        self.homes(|homes| {
            if homes.known.len() >= homes.sweep_at.max(64) {
                homes.known.retain(|_, (line, _)| line.is_alive());
                homes.sweep_at = 2 * homes.known.len();
            }
            homes.known.insert(line.id(), (*line, node));
        });
        self.quarters().get(node).map(|quarter| quarter.domain.node)
    }

    fn homes<T>(&self, f: impl FnOnce(&mut Homes) -> T) -> T {
        f(&mut self.shared.homes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes a future on a worker, and runs it there: it need not be `Send`, for it never leaves that thread.
    ///
    /// On one of the pool's own threads it is that thread; from outside, the workers take turns. Only what is between the worker
    /// and the caller is sent: the closure, and what the future returns.
    ///
    /// ```
    /// # let pool = backplane_pool::Pool::builder().workers(2).build().unwrap();
    /// use std::{cell::Cell, rc::Rc};
    /// let count = pool.spawn_local(|| async {
    ///     let count = Rc::new(Cell::new(1));
    ///     futures_lite::future::yield_now().await;
    ///     count.set(count.get() + 1);
    ///     count.get()
    /// });
    /// assert_eq!(pool.block_on(count).unwrap(), 2);
    /// ```
    #[track_caller]
    pub fn spawn_local<M, F>(&self, make: M) -> Task<F::Output>
    where
        M: FnOnce() -> F + Send + 'static,
        F: Future + 'static,
        F::Output: Send + 'static,
    {
        let here = self.worker(|local| {
            let stays = self.node.is_none_or(|node| node == local.domain.index);
            stays.then_some((local.domain.index, local.index))
        });
        let (node, worker) = here.flatten().unwrap_or_else(|| {
            let (quarter, worker) = self.next_worker(self.node);
            (quarter.domain.index, worker)
        });
        self.spawn_at(node, worker, Location::caller(), make)
    }

    /// Runs a future on the worker that this thread is: it need not be `Send`, for it never leaves that thread. So a task that
    /// accepts connections, which cannot be sent, gives each a task of its own.
    ///
    /// # Errors
    ///
    /// The future, if this thread is none of this handle's workers.
    ///
    /// ```
    /// # let pool = backplane_pool::Pool::builder().workers(2).build().unwrap();
    /// use std::rc::Rc;
    /// let handle = pool.handle();
    /// let outer = pool.spawn_local(move || async move {
    ///     let (one, other) = (Rc::new(3), Rc::new(4));
    ///     let inner = handle.spawn_here(async move { *one + *other });
    ///     inner.map_err(|_| "is a worker").unwrap().await.unwrap()
    /// });
    /// assert_eq!(pool.block_on(outer).unwrap(), 7);
    /// assert!(pool.spawn_here(async { "nobody runs this" }).is_err());
    /// ```
    #[track_caller]
    pub fn spawn_here<F>(&self, future: F) -> Result<Task<F::Output>, F>
    where
        F: Future + 'static,
        F::Output: Send + 'static,
    {
        let site = Site::of::<F>(Location::caller());
        let mut given = Some(future);
        let here = self.worker(|local| {
            let stays = self.node.is_none_or(|node| node == local.domain.index);
            let future = if stays { given.take()? } else { return None };
            let pinned = Pinned::to(local.index);
            Some(self.start_here(local, site, None, pinned, Resident::<fn() -> F, F>::here(future)))
        });
        match (here.flatten(), given) {
            (Some(task), _) => Ok(task),
            (None, Some(future)) => Err(future),
            (None, None) => unreachable!("whoever took it has made a task of it"),
        }
    }

    /// As [`spawn_local`](Handle::spawn_local), on this worker of this domain.
    pub(crate) fn spawn_at<M, F>(
        &self,
        node: usize,
        worker: usize,
        spawned_at: &'static Location<'static>,
        make: M,
    ) -> Task<F::Output>
    where
        M: FnOnce() -> F + Send + 'static,
        F: Future + 'static,
        F::Output: Send + 'static,
    {
        let site = Site::of::<F>(spawned_at);
        let pinned = Pinned::to(worker);
        let mut future = Some(Resident::new(make));
        let here = self.worker(|local| {
            let is_here = (local.domain.index, local.index) == (node, worker);
            if is_here {
                future.take().map(|future| self.start_here(local, site, None, pinned, future))
            } else {
                None
            }
        });
        match (here.flatten(), future) {
            (Some(task), _) => task,
            (None, Some(future)) => {
                self.start_there(&self.quarters()[node].domain, site, None, pinned, future)
            }
            (None, None) => unreachable!("whoever took it has made a task of it"),
        }
    }

    /// Runs a closure that blocks, on a thread that is there for that: the `blocking` crate's. Cancelled before it
    /// has begun, it never runs; afterwards it runs to its end. The pool's shutdown does not wait for it. It may run on any CPU
    /// of the process's, wherever workers are pinned.
    ///
    /// ```
    /// # let pool = backplane_pool::Pool::builder().workers(1).build().unwrap();
    /// let read = pool.spawn_blocking(|| std::fs::read_to_string("Cargo.toml"));
    /// assert!(pool.block_on(read).unwrap().unwrap().contains("backplane-pool"));
    /// ```
    pub fn spawn_blocking<T, F>(&self, f: F) -> Task<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let errand = Errand::new(f);
        let run = move || {
            // Whoever started the thread may be pinned; what blocks belongs to no node.
            unpin_once();
            errand.run()
        };
        Task::blocking(blocking::unblock(run))
    }

    /// Runs a future on this thread until it is ready, and events and timers meanwhile.
    ///
    /// On one of the pool's own threads, that is, inside a task that blocks, the thread goes on to run the pool's other
    /// tasks, so that what the future waits for can come about even if there is no other worker. The task itself is a
    /// [hog](crate::Event::Hog) only if one of the others is, too. Its stack holds every task that blocks in turn: a few of
    /// them are well, a thousand are not.
    ///
    /// # Panics
    ///
    /// If the future does.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = backplane_pool::Pool::builder().workers(1).build()?;
    /// let handle = pool.handle();
    /// // A task that blocks does not keep the only worker from what it waits for.
    /// let task = pool.spawn(async move { handle.block_on(handle.spawn(async { 6 * 7 })) });
    /// assert_eq!(pool.block_on(task)??, 42);
    /// # Ok(())
    /// # }
    /// ```
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        let local = with_worker(|local| {
            Arc::ptr_eq(&local.domain.house, &self.shared.house).then(|| std::rc::Rc::clone(local))
        });
        match local.flatten() {
            Some(local) => local.block_on(local.run_until(future)),
            None => async_io::block_on(future),
        }
    }

    pub(crate) fn sleeps(&self) -> &Arc<Sleeps> {
        &self.shared.sleeps
    }

    /// The place of each lane, and what it waits in.
    #[cfg(feature = "uring")]
    pub(crate) fn drivers(&self) -> Vec<(usize, usize, crate::Driver)> {
        let mut drivers = Vec::new();
        for (node, quarter) in self.quarters().iter().enumerate() {
            let remotes = quarter.domain.remotes().iter().enumerate();
            if self.node.is_none_or(|only| only == node) {
                drivers.extend(remotes.filter_map(|(at, remote)| Some((node, at, remote.driver?))));
            }
        }
        drivers
    }

    /// The number of a worker, over all nodes.
    #[cfg(feature = "uring")]
    pub(crate) fn number_of(&self, node: usize, worker: usize) -> usize {
        self.quarters()[node].first + worker
    }

    /// The number of a node.
    #[cfg(feature = "uring")]
    pub(crate) fn node_at(&self, node: usize) -> usize {
        self.quarters()[node].domain.node
    }

    /// The domain and the worker whose turn it is.
    fn next_worker(&self, node: Option<usize>) -> (&Quarter, usize) {
        let quarters = self.quarters();
        let turn = self.shared.turn.fetch_add(1, Ordering::Relaxed);
        if let Some(quarter) = node.and_then(|node| quarters.get(node)) {
            return (quarter, turn % quarter.workers);
        }
        let workers: usize = quarters.iter().map(|quarter| quarter.workers).sum();
        let mut at = turn % workers;
        for quarter in quarters {
            if at < quarter.workers {
                return (quarter, at);
            }
            at -= quarter.workers;
        }
        unreachable!("below the sum of all")
    }

    #[inline]
    fn start<F>(&self, node: Option<usize>, site: Site, name: Option<TaskName>, future: F) -> Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let mut given = Some((name, future));
        let here = self.worker(|local| {
            let stays = node.is_none_or(|node| node == local.domain.index);
            let (name, future) = if stays { given.take()? } else { return None };
            Some(self.start_here(local, site, name, None, future))
        });
        match (here.flatten(), given) {
            (Some(task), _) => task,
            (None, Some((name, future))) => {
                self.start_there(&self.next_worker(node).0.domain, site, name, None, future)
            }
            (None, None) => unreachable!("whoever took them has made a task of them"),
        }
    }

    /// On the worker that this thread is.
    #[inline]
    fn start_here<F>(
        &self,
        local: &Local,
        site: Site,
        name: Option<TaskName>,
        pinned: Option<Pinned>,
        future: F,
    ) -> Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let refused = self.shared.house.phase() == Phase::Dropping;
        let make = make(local.domain.id(), site, pinned, future);
        let (runnable, task) = local.shard().enter(Spawner::Within, refused, name, make);
        match runnable {
            Ok(runnable) => local.schedule(runnable, false),
            Err(runnable) => local.refuse(runnable),
        }
        Task::new(task)
    }

    /// From outside, or from another node.
    fn start_there<F>(
        &self,
        domain: &Domain,
        site: Site,
        name: Option<TaskName>,
        pinned: Option<Pinned>,
        future: F,
    ) -> Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let refused = self.shared.house.phase() > Phase::Open && self.worker(|_| ()).is_none();
        let make = make(domain.id(), site, pinned, future);
        let (runnable, task) = domain.outside().enter(Spawner::Without, refused, name, make);
        match runnable {
            Ok(runnable) => domain.inject(runnable),
            Err(runnable) => refuse(runnable),
        }
        Task::new(task)
    }
}

/// Drops a task that its pool does not take any more.
#[cold]
fn refuse(runnable: Runnable) {
    let mut runnable = Some(runnable);
    with_worker(|local| runnable.take().map(|runnable| local.refuse(runnable)));
    if let Some(runnable) = runnable {
        drop_untold(runnable);
    }
}

type Made<T> = (Runnable, async_task::Task<Outcome<T>, Meta>);

/// Makes a task of a future, at home in a domain.
#[inline]
fn make<F>(
    home: DomainId,
    site: Site,
    pinned: Option<Pinned>,
    future: F,
) -> impl FnOnce(Option<Key>) -> Made<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    move |key| {
        let job = Job::new(future, key);
        let meta = Meta::new(key, site, pinned, home);
        // A closure that holds something would cost a reference to the task each time it is scheduled.
        async_task::Builder::new().metadata(meta).spawn(move |_| job, WithInfo(schedule))
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("nodes", &self.quarters()).field("node", &self.node()).finish()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crossbeam_deque::Worker;

    use super::*;
    use crate::{
        cpus::CpuSet,
        domain::{Polled, Remote},
        reactor::Reactor,
        registry::Shard,
        watch::Alarm,
    };

    #[test]
    fn hooks_have_the_time_that_tasks_have_left_them() {
        let now = Instant::now();
        let in_secs = |secs| now + Duration::from_secs(secs);
        assert_eq!(hooks_deadline(now, Some(in_secs(60))), Some(in_secs(60) + GRACE));
        assert_eq!(hooks_deadline(in_secs(5), Some(now)), Some(in_secs(5) + GRACE));
        assert_eq!(hooks_deadline(now, None), None, "without a deadline there is none for them");
    }

    #[test]
    fn a_task_that_moves_from_worker_to_worker_while_its_name_is_asked_for_is_named_once() {
        let house = Arc::new(House::new(Alarm::default()));
        let domain = Domain::new(0, 0, CpuSet::new(), Arc::clone(&house), 2);
        let remote = || Arc::new(Remote::new(Worker::new_fifo().stealer(), &Reactor::AsyncIo));
        domain.workers_have_started(Box::new([remote(), remote()]));
        let site = Site::of::<Pool>(Location::caller());
        let write_down = || domain.shards[1].insert(std::task::Waker::noop(), site.into()).unwrap();
        let (moves, other, _waits) = (write_down(), write_down(), write_down());
        let mut pool = Pool::empty(house);
        pool.open(
            vec![Quarter { domain: Arc::clone(&domain), workers: 2, first: 0 }],
            std::thread::spawn(|| ()),
        );
        let count = |on: [Key; 2]| {
            for (remote, key) in domain.remotes().iter().zip(on) {
                remote.polls(Polled::new(key.to_word(), site));
            }
            let (running, waiting) = pool.names();
            assert!(running.iter().all(|running| !running.is_first));
            (running.len(), waiting.len())
        };
        // As whoever looks at one after the other finds it on both.
        assert_eq!(count([moves, moves]), (1, 2));
        assert_eq!(count([moves, other]), (2, 1), "two of one kind are two");
    }

    #[test]
    fn a_task_that_is_written_down_while_names_are_asked_for_is_named_once() {
        let at = Location::caller();
        let (one, other) = (Site::of::<Pool>(at), Site::of::<Handle>(at));
        let shard = Shard::new(0);
        let list = |sites: &[Site]| {
            for site in sites {
                shard.insert(std::task::Waker::noop(), (*site).into()).unwrap();
            }
            shard.listed().into_iter().map(|(key, name)| ((0, key), name)).collect::<Listed>()
        };
        let runs = |site: Site, is_first| Running { name: site.into(), is_first };
        let sort = |before: &Listed, running: Vec<Running>, after: &Listed| {
            let (running, waiting) = sorted(before.clone(), running, after.clone());
            (names(running), waiting)
        };
        let [one_s, other_s] = [one, other].map(TaskName::from);
        let (none, before, after) = (list(&[]), list(&[one]), list(&[other]));
        let all = |waiting: &[&TaskName]| waiting.iter().copied().cloned().collect::<Vec<_>>();
        // Seen in its first poll, or too late for that; in a later one; and in one that has just written it down.
        assert_eq!(sort(&before, vec![runs(other, true)], &after), (all(&[&other_s]), all(&[&one_s])));
        assert_eq!(sort(&before, vec![], &after), (vec![], all(&[&one_s, &other_s])));
        assert_eq!(sort(&after, vec![runs(other, false)], &after), (all(&[&other_s]), all(&[&one_s])));
        assert_eq!(sort(&before, vec![runs(other, false)], &after), (all(&[&other_s]), all(&[&one_s])));
        // One of a kind waits and another is in its first poll, which comes back meanwhile or does not.
        let of_one =
            |listed: Listed| -> Listed { listed.into_iter().filter(|(_, name)| *name == one_s).collect() };
        let both = (all(&[&one_s]), all(&[&one_s]));
        assert_eq!(sort(&before, vec![runs(one, true)], &before), both);
        let twins = of_one(list(&[one]));
        assert_eq!(sort(&before, vec![runs(one, true)], &twins), both);
        let triplets = of_one(list(&[one]));
        let three = (all(&[&one_s]), all(&[&one_s, &one_s]));
        assert_eq!(sort(&before, vec![runs(one, true)], &triplets), three);
        // Gone by then, it waited when we asked.
        assert_eq!(sort(&before, vec![], &none), (vec![], all(&[&one_s])));
    }
}
