//! How a pool is set up.

use std::{
    error::Error,
    fmt, io,
    rc::Rc,
    sync::{Arc, atomic::Ordering, mpsc},
    thread,
    time::Duration,
};

use crossbeam_deque::Worker;

use crate::{
    cpus::CpuSet,
    domain::{Domain, House, Remote, become_worker},
    event::Event,
    idle,
    pin::{pin_current, thread_cpus, unpin_once},
    pool::{Pool, Quarter},
    reactor::{self, Reactor},
    topology::Topology,
    watch::{Alarm, Listener, Watch, Watched},
    worker::Local,
};

/// Where the system may run a worker.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use backplane_pool::{Pinning, Pool};
/// // Not said, it is a wish; said, it must come true.
/// assert_eq!(Pinning::default(), Pinning::Node);
/// let wherever = Pool::builder().workers(2).pinning(Pinning::None).build()?;
/// match Pool::builder().workers(2).pinning(Pinning::Cpu).build() {
///     Ok(pinned) => assert_eq!(pinned.counters().len(), 2),
///     Err(error) => println!("not here: {error}"),
/// }
/// # drop(wherever);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Pinning {
    /// On any CPU of its node. So memory stays near, and the system still balances between the CPUs.
    #[default]
    Node,
    /// On one CPU, for hosts that do nothing else. With more workers than CPUs some share one.
    Cpu,
    /// Wherever the process may.
    None,
}

/// A worker, for whoever is told that it starts or stops.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::mpsc;
/// use backplane_pool::{Pool, Topology};
/// let (send, started) = mpsc::channel();
/// let pool = Pool::builder()
///     .topology(Topology::from_nodes([(0, 0..1), (3, 1..2)]))
///     .on_start(move |info| drop(send.send((info.worker, info.node))))
///     .build()?;
/// let mut both = [started.recv()?, started.recv()?];
/// both.sort();
/// assert_eq!(both, [(0, 0), (1, 3)]);
/// # drop(pool);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerInfo {
    /// Which, from zero, over all nodes.
    pub worker: usize,
    /// The node it works for.
    pub node: usize,
}

/// Why a pool could not be built. What had started has ended again.
///
/// ```
/// use backplane_pool::{BuildError, Pinning, Pool, Topology};
/// assert!(matches!(Pool::builder().workers(0).build(), Err(BuildError::NoWorkers)));
///
/// // No machine has this CPU.
/// let strange = Pool::builder().topology(Topology::from_nodes([(3, 60_000..60_001)]));
/// let error = strange.pinning(Pinning::Cpu).build().unwrap_err();
/// assert!(matches!(error, BuildError::Pin { node: 3, .. }));
/// assert!(error.to_string().starts_with("a worker cannot be pinned to node 3: "));
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum BuildError {
    /// There is no CPU in the topology, or there were to be no workers at all.
    NoWorkers,
    /// There were to be more workers on one node than any system has threads: 4,194,304.
    TooManyWorkers {
        /// The node's number.
        node: usize,
    },
    /// The system gave no thread.
    Thread(io::Error),
    /// A worker got nothing to wait in: neither an io_uring nor anything else of its own. Only with feature `uring`.
    Reactor(io::Error),
    /// A worker could not be pinned where it was to be: the CPUs are not there, or are not this process's.
    Pin {
        /// The node's number.
        node: usize,
        /// What the system said.
        error: io::Error,
    },
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BuildError::NoWorkers => f.write_str("a pool needs at least one worker"),
            BuildError::TooManyWorkers { node } => write!(f, "too many workers on node {node}"),
            BuildError::Thread(error) => write!(f, "no thread for a worker: {error}"),
            BuildError::Reactor(error) => write!(f, "nothing for a worker to wait in: {error}"),
            BuildError::Pin { node, error } => write!(f, "a worker cannot be pinned to node {node}: {error}"),
        }
    }
}

impl Error for BuildError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            BuildError::Thread(error) | BuildError::Reactor(error) | BuildError::Pin { error, .. } => {
                Some(error)
            }
            BuildError::NoWorkers | BuildError::TooManyWorkers { .. } => None,
        }
    }
}

type Hook = Arc<dyn Fn(&WorkerInfo) + Send + Sync>;

/// Sets up a [`Pool`].
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use backplane_pool::{Pinning, Pool};
/// let pool = Pool::builder().workers(2).pinning(Pinning::None).thread_name("kitchen").build()?;
/// let name = pool.spawn(async { std::thread::current().name().map(String::from) });
/// assert!(pool.block_on(name)?.is_some_and(|name| name.starts_with("kitchen")));
/// # Ok(())
/// # }
/// ```
pub struct Builder {
    topology: Option<Topology>,
    pinning: Option<Pinning>,
    workers: Workers,
    reactor: reactor::Wish,
    thread_name: String,
    stack_size: Option<usize>,
    threshold: Duration,
    on_start: Option<Hook>,
    on_stop: Option<Hook>,
    listener: Option<Listener>,
}

#[derive(Clone, Copy, Debug)]
enum Workers {
    AsManyAsCanRun,
    InAll(usize),
    PerNode(usize),
}

/// No system has more.
const THREADS: usize = 1 << 22;
/// What a worker needs of its stack in any build, with what tells of a panic, and some room for tasks.
const LEAST_STACK: usize = 256 << 10;
/// Beyond this the standard library panics where the system's own limit is as low as musl's, and its rounding overflows.
const MOST_STACK: usize = usize::MAX / 4;

/// A node that will be a domain.
struct Plan {
    node: usize,
    cpus: CpuSet,
    workers: usize,
}

impl Builder {
    pub(crate) fn new() -> Builder {
        Builder {
            topology: None,
            pinning: None,
            workers: Workers::AsManyAsCanRun,
            reactor: reactor::Wish::default(),
            thread_name: "pool".into(),
            stack_size: None,
            threshold: Duration::from_millis(100),
            on_start: None,
            on_stop: None,
            listener: None,
        }
    }

    /// Which nodes and CPUs to use. [`Topology::system`] unless set.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use backplane_pool::{Pool, Topology};
    /// // Two nodes, whatever the system knows of.
    /// let two = Topology::from_nodes([(0, 0..1), (1, 1..2)]);
    /// let pool = Pool::builder().topology(two).build()?;
    /// assert_eq!(pool.nodes().collect::<Vec<_>>(), [0, 1]);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn topology(mut self, topology: Topology) -> Builder {
        self.topology = Some(topology);
        self
    }

    /// Where the workers are pinned. To their [node](Pinning::Node) unless set; that default is a wish, and a system that
    /// refuses it is not asked again, while what is set here must come true.
    ///
    /// ```
    /// use backplane_pool::{BuildError, Pinning, Pool, Topology};
    /// // No machine has this CPU: as a default that is no harm, as a demand it is.
    /// let strange = || Pool::builder().topology(Topology::from_nodes([(0, 60_000..60_001)]));
    /// assert!(strange().build().is_ok());
    /// assert!(matches!(strange().pinning(Pinning::Node).build(), Err(BuildError::Pin { .. })));
    /// ```
    #[must_use]
    pub fn pinning(mut self, pinning: Pinning) -> Builder {
        self.pinning = Some(pinning);
        self
    }

    /// How many workers in all. They are dealt to the nodes in turn, as long as a node has CPUs left, and beyond that evenly;
    /// a node that gets none takes no part. Unless set, as many as can [run at a time](Topology::parallelism).
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use backplane_pool::{Pool, Topology};
    /// let two_nodes = Topology::from_nodes([(0, 0..2), (1, 2..4)]);
    /// let pool = Pool::builder().topology(two_nodes).workers(3).build()?;
    /// let nodes: Vec<_> = pool.counters().iter().map(|worker| worker.node).collect();
    /// assert_eq!(nodes, [0, 0, 1]);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Builder {
        self.workers = Workers::InAll(workers);
        self
    }

    /// How many workers on each node.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use backplane_pool::{Pool, Topology};
    /// let two_nodes = Topology::from_nodes([(0, 0..1), (1, 1..4)]);
    /// let pool = Pool::builder().topology(two_nodes).workers_per_node(2).build()?;
    /// let nodes: Vec<_> = pool.counters().iter().map(|worker| worker.node).collect();
    /// assert_eq!(nodes, [0, 0, 1, 1]);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn workers_per_node(mut self, workers: usize) -> Builder {
        self.workers = Workers::PerNode(workers);
        self
    }

    /// Makes each worker a [lane](crate::Lane), that waits in an io_uring of its own instead of the reactor that all threads
    /// share. Feature `uring`.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use backplane_pool::{Lanes, Pool};
    /// let pool = Pool::builder().workers(2).lanes(Lanes::new()).build()?;
    /// assert_eq!(pool.lanes().len(), 2);
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "uring")]
    #[must_use]
    pub fn lanes(mut self, lanes: crate::Lanes) -> Builder {
        self.reactor = reactor::Wish::Lanes(lanes);
        self
    }

    /// How the threads are called: this, a dash, and the worker's number.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use backplane_pool::Pool;
    /// let pool = Pool::builder().workers(1).thread_name("kitchen").build()?;
    /// let name = pool.spawn(async { std::thread::current().name().map(String::from) });
    /// assert_eq!(pool.block_on(name)?.as_deref(), Some("kitchen-0"));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn thread_name(mut self, name: impl Into<String>) -> Builder {
        self.thread_name = name.into();
        self
    }

    /// The stack of each worker, in bytes. What the standard library gives unless set. It is at least 256 KiB, which a worker itself
    /// needs, with a panic on it; more than the system can give is a [`BuildError::Thread`].
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use backplane_pool::Pool;
    /// fn sum(depth: u64) -> u64 {
    ///     let room = std::hint::black_box([depth; 1024]); // 8 KiB a call
    ///     if depth == 0 { 0 } else { room[7] + sum(depth - 1) }
    /// }
    /// let pool = Pool::builder().workers(1).stack_size(64 << 20).build()?;
    /// assert_eq!(pool.block_on(pool.spawn(async { sum(1_000) }))?, 500_500);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn stack_size(mut self, bytes: usize) -> Builder {
        self.stack_size = Some(bytes);
        self
    }

    /// Runs on each worker's thread, pinned already, before its first task.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::cell::Cell;
    /// use backplane_pool::Pool;
    /// thread_local!(static SEAT: Cell<usize> = const { Cell::new(usize::MAX) });
    /// let pool = Pool::builder().workers(1).on_start(|info| SEAT.set(info.worker)).build()?;
    /// assert_eq!(pool.block_on(pool.spawn(async { SEAT.get() }))?, 0);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn on_start(mut self, hook: impl Fn(&WorkerInfo) + Send + Sync + 'static) -> Builder {
        self.on_start = Some(Arc::new(hook));
        self
    }

    /// Runs on each worker's thread after its last task is gone.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::sync::mpsc;
    /// use backplane_pool::Pool;
    /// let (send, stopped) = mpsc::channel();
    /// let pool = Pool::builder().workers(2).on_stop(move |info| drop(send.send(info.worker))).build()?;
    /// drop(pool); // waits for its threads
    /// assert_eq!(stopped.iter().sum::<usize>(), 0 + 1);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn on_stop(mut self, hook: impl Fn(&WorkerInfo) + Send + Sync + 'static) -> Builder {
        self.on_stop = Some(Arc::new(hook));
        self
    }

    /// Hears what the pool has to tell, on a thread that is no worker. What takes long here delays the next event.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::{sync::mpsc, time::Duration};
    /// use backplane_pool::{Event, Pool};
    /// let (tell, told) = mpsc::channel();
    /// let pool = Pool::builder()
    ///     .workers(1)
    ///     .hog_threshold(Duration::from_millis(1))
    ///     .on_event(move |event| drop(tell.send(event.clone())))
    ///     .build()?;
    /// // It keeps its worker until that has been told of.
    /// let hog = pool.spawn(async move { told.recv() });
    /// assert!(matches!(pool.block_on(hog)??, Event::Hog(hog) if hog.worker == 0));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn on_event(mut self, listener: impl Fn(&Event) + Send + Sync + 'static) -> Builder {
        self.listener = Some(Arc::new(listener));
        self
    }

    /// How long a task may be in one poll until it is told of as a [hog](Event::Hog). 100 ms unless set.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::{sync::mpsc, time::Duration};
    /// use backplane_pool::{Event, Pool};
    /// let (tell, told) = mpsc::channel();
    /// let strict = Pool::builder().workers(1).hog_threshold(Duration::from_millis(5));
    /// let pool = strict.on_event(move |event| drop(tell.send(event.clone()))).build()?;
    /// let blocks = pool.spawn(async move { told.recv() });
    /// let Event::Hog(hog) = pool.block_on(blocks)?? else { panic!() };
    /// assert!(hog.lasted >= Duration::from_millis(5));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn hog_threshold(mut self, threshold: Duration) -> Builder {
        self.threshold = threshold;
        self
    }

    /// Starts the workers.
    ///
    /// # Errors
    ///
    /// See [`BuildError`].
    ///
    /// ```
    /// use backplane_pool::{BuildError, Pool, Topology};
    /// let pool = Pool::builder().workers(2).build().unwrap();
    /// assert_eq!(pool.counters().len(), 2);
    ///
    /// let nowhere = Topology::from_nodes([(0, 0..0)]);
    /// let refused = Pool::builder().topology(nowhere).build();
    /// assert!(matches!(refused, Err(BuildError::NoWorkers)));
    /// ```
    pub fn build(self) -> Result<Pool, BuildError> {
        let plans = self.plans()?;
        // What the standard library would panic at; such a stack where the system refuses the number before it looks for room.
        let refused = |why| Err(BuildError::Thread(io::Error::new(io::ErrorKind::InvalidInput, why)));
        if self.thread_name.contains('\0') {
            return refused("a thread's name has no null in it");
        }
        if self.stack_size.is_some_and(|bytes| bytes > MOST_STACK) {
            return refused("no system has room for such a stack");
        }
        let house = Arc::new(House::new(Alarm::default()));
        let mut domains = Vec::with_capacity(plans.len());
        let mut watched = Vec::with_capacity(plans.len());
        // An error drops the pool; its threads have not begun, and end, for nobody lets them go any more.
        let mut pool = Pool::empty(Arc::clone(&house));
        let mut goes = Vec::new();
        let mut first = 0;
        for (index, Plan { node, cpus, workers }) in plans.into_iter().enumerate() {
            let domain = Domain::new(index, node, cpus, Arc::clone(&house), workers);
            let (ready, all_ready) = mpsc::channel();
            let mut remotes = Vec::with_capacity(workers);
            for at in 0..workers {
                let (go, may_go) = mpsc::channel::<()>();
                let start = Start {
                    info: WorkerInfo { worker: first + at, node },
                    index: at,
                    domain: Arc::clone(&domain),
                    cpus: self.cpus_of(&domain.cpus, at),
                    must_pin: self.pinning.is_some(),
                    reactor: self.reactor.clone(),
                    on_start: self.on_start.clone(),
                    on_stop: self.on_stop.clone(),
                };
                let ready = ready.clone();
                let mut thread = thread::Builder::new().name(format!("{}-{}", self.thread_name, first + at));
                if let Some(bytes) = self.stack_size {
                    thread = thread.stack_size(bytes.max(LEAST_STACK));
                }
                house.started();
                let spawned = thread.spawn(move || start.run(&ready, &may_go));
                match spawned {
                    Ok(thread) => pool.keep(thread),
                    Err(error) => {
                        house.ended();
                        return Err(BuildError::Thread(error));
                    }
                }
                goes.push(go);
            }
            drop(ready);
            for _ in 0..workers {
                let Ok((at, remote)) = all_ready.recv() else { return Err(BuildError::NoWorkers) };
                remotes.push((at, remote?));
            }
            remotes.sort_by_key(|(at, _)| *at);
            domain.workers_have_started(remotes.into_iter().map(|(_, remote)| remote).collect());
            watched.push(Watched { domain: Arc::clone(&domain), first });
            domains.push(Quarter { domain, workers, first });
            first += workers;
        }
        let watch = Watch { house, domains: watched, threshold: self.threshold, listener: self.listener };
        let name = format!("{}-watch", self.thread_name);
        let watch = thread::Builder::new().name(name).spawn(|| watch.run()).map_err(BuildError::Thread)?;
        pool.open(domains, watch);
        for go in goes {
            // Each waits for it.
            let _ = go.send(());
        }
        Ok(pool)
    }

    fn plans(&self) -> Result<Vec<Plan>, BuildError> {
        let system;
        let topology = match &self.topology {
            Some(topology) => topology,
            None => {
                system = Topology::system();
                &system
            }
        };
        let mut plans: Vec<Plan> = topology
            .nodes()
            .iter()
            .map(|node| Plan { node: node.id(), cpus: node.cpus().clone(), workers: 0 })
            .collect();
        match self.workers {
            Workers::PerNode(workers) => plans.iter_mut().for_each(|plan| plan.workers = workers),
            Workers::InAll(workers) => deal(&mut plans, workers),
            Workers::AsManyAsCanRun => deal(&mut plans, topology.parallelism()),
        }
        plans.retain(|plan| plan.workers > 0);
        if let Some(plan) = plans.iter().find(|plan| plan.workers > idle::LIMIT.min(THREADS)) {
            return Err(BuildError::TooManyWorkers { node: plan.node });
        }
        if plans.is_empty() { Err(BuildError::NoWorkers) } else { Ok(plans) }
    }

    fn cpus_of(&self, node: &CpuSet, worker: usize) -> Option<CpuSet> {
        match self.pinning.unwrap_or_default() {
            Pinning::Node => Some(node.clone()),
            Pinning::Cpu => node.iter().nth(worker % node.len()).map(|cpu| [cpu].into_iter().collect()),
            Pinning::None => None,
        }
    }
}

/// Deals workers to nodes in turn, first as long as CPUs last.
fn deal(plans: &mut [Plan], mut workers: usize) {
    while workers > 0 && plans.iter().any(|plan| plan.cpus.len() > plan.workers) {
        for plan in plans.iter_mut().filter(|plan| plan.cpus.len() > plan.workers) {
            let more = workers.min(1);
            plan.workers += more;
            workers -= more;
        }
    }
    // Whatever the number, there are no more rounds than CPUs.
    if let (Some(each), Some(left)) = (workers.checked_div(plans.len()), workers.checked_rem(plans.len())) {
        for (at, plan) in plans.iter_mut().enumerate() {
            plan.workers = plan.workers.saturating_add(each + usize::from(at < left));
        }
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("topology", &self.topology)
            .field("pinning", &self.pinning)
            .field("workers", &self.workers)
            .field("reactor", &self.reactor)
            .field("thread_name", &self.thread_name)
            .field("hog_threshold", &self.threshold)
            .finish_non_exhaustive()
    }
}

/// What a worker's thread is given.
struct Start {
    info: WorkerInfo,
    index: usize,
    domain: Arc<Domain>,
    cpus: Option<CpuSet>,
    must_pin: bool,
    reactor: reactor::Wish,
    on_start: Option<Hook>,
    on_stop: Option<Hook>,
}

/// A worker that has ended is counted, however it did.
struct Ended(Arc<House>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.ended();
    }
}

type Ready = mpsc::Sender<(usize, Result<Arc<Remote>, BuildError>)>;

impl Start {
    fn run(self, ready: &Ready, may_go: &mpsc::Receiver<()>) {
        let _ended = Ended(Arc::clone(&self.domain.house));
        let reactor = match self.settle() {
            Ok(reactor) => reactor,
            Err(error) => return drop(ready.send((self.index, Err(error)))),
        };
        let deque = Worker::new_fifo();
        let remote = Arc::new(Remote::new(deque.stealer(), &reactor));
        drop(ready.send((self.index, Ok(Arc::clone(&remote)))));
        // Without a word the pool was not built.
        if may_go.recv().is_err() {
            return;
        }
        let local = Rc::new(Local::new(self.index, self.domain, remote, deque, reactor));
        become_worker(Rc::clone(&local));
        let hook = |hook: Option<Hook>| {
            if let Some(hook) = hook {
                local.remote.in_hook.store(true, Ordering::Relaxed);
                // Who is the last to have it drops it, too.
                drop(backplane::catch(|| { hook }(&self.info)));
                local.remote.in_hook.store(false, Ordering::Relaxed);
            }
        };
        hook(self.on_start);
        local.block_on(local.run());
        hook(self.on_stop);
        local.leave_reactor();
    }

    /// Pinned first: what is allocated from then on lies near.
    fn settle(&self) -> Result<Reactor, BuildError> {
        // A thread has the mask of whoever started it, which may be another than the process's, and is often the right one.
        let pinned = match &self.cpus {
            Some(cpus) if thread_cpus().is_some_and(|here| here == *cpus) => Ok(()),
            Some(cpus) => pin_current(cpus),
            None => {
                unpin_once();
                Ok(())
            }
        };
        if let Err(error) = pinned
            && self.must_pin
        {
            return Err(BuildError::Pin { node: self.info.node, error });
        }
        self.reactor.make().map_err(BuildError::Reactor)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_has_its_node_or_one_cpu_of_it_in_turn_or_none_of_its_own() {
        let node: CpuSet = [4, 6, 9].into_iter().collect();
        let on = |pinning, worker| {
            let cpus = Pool::builder().pinning(pinning).cpus_of(&node, worker);
            cpus.map(|cpus| cpus.iter().collect::<Vec<_>>())
        };
        let each = [0, 1, 2, 3].map(|worker| on(Pinning::Cpu, worker).unwrap());
        assert_eq!(each, [[4], [6], [9], [4]]);
        assert_eq!(on(Pinning::Node, 1), Some(vec![4, 6, 9]));
        assert_eq!(on(Pinning::None, 1), None);
        assert_eq!(Builder::new().cpus_of(&node, 1), Some(node.clone()));
    }
}
