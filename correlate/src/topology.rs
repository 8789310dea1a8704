//! The supervised join: readers, a worker for each stage, one sink or several and a writer, each layer under a supervisor of
//! its own.
//!
//! ```text
//!            sources      stages       sink         writer
//!            (desk)       (desks)      (desk)       (desk)
//!                │           │           │            │
//!   partitions ──┴► readers ─┼► A, B, C ─┴► the sink ─┴► the writer ─► files
//!    (berths)         │      │               (table          ▲        (berth)
//!                     │                      in a berth)     │
//!                     └────────── rejects ───────────────────┘
//!
//!   root ── no restarts: a layer that gives up ends the run
//!     ├── writer ─── writer                     ┐
//!     ├── sink ───── sink                       │ one for one;
//!     ├── stage C ── stage C                    │ transient: a fault is answered with a successor,
//!     ├── stage B ── stage B                    │ a clean end is not
//!     ├── stage A ── stage A                    │
//!     └── readers ── reader 1, reader 2, ..     ┘
//! ```
//!
//! Each worker is a managed future and a transient child. What its supervisor does is `backplane-supervisor`'s business;
//! what is added here hears the supervisors' reports ([`Floor::hear`]):
//!
//! 1. An end, whichever it is: the worker's leases go back to their desks. A report comes once for each end, and before
//!    anything is done about it: the successor finds them there. Were it the successor who gives them back, those of a
//!    worker that has none would be lost.
//! 2. A clean end: when all of a layer are through, the desks below it are closed.
//! 3. A supervisor gives up: the run is over, and the error says on whom.
//!
//! How often is too often? A layer's supervisor tolerates [`PATIENCE`] restarts, and one for each kill that is planned for
//! its workers, over the whole run. So a plan, however full, never makes it give up, and a worker that dies again and again
//! always does. It is the layer that is counted, not the worker: what kills one reader is given to the next. The root
//! tolerates none.
//!
//! An error that starting again will not mend (a full disk, a broken line under `--strict`) is nothing for a supervisor:
//! the worker leaves it on the floor and ends cleanly, and the tree is stopped.
//!
//! # Epochs
//!
//! With a [`Log`] the writer is a committer. A sink keeps its rows until its epoch is over, and then hands over the whole of
//! it in one piece: rows, the cut, the order of its merges, and now and then the open keys. What is committed is whole in
//! itself, whatever the other sinks are at. A batch carries the mark at which its block ends; what a sink has settled of a
//! partition and stage is always a prefix, as one reader at a time reads a partition and desks keep the order. To stop, the
//! readers end where they are; all others work off what there is, and the last epoch is committed.
//!
//! # Hanging
//!
//! A worker waits for desks only. One that waits for anything else for too long gives no more signs of life: its supervisor
//! drops it, and it is replaced like any other that died.
//!
//! Every worker's turn is: take, make, wait for room below, and then in one step without waiting, settle and hand on. A
//! death before that step leaves no trace; there is no death within it.

use std::{
    fmt,
    future::{pending, poll_fn},
    panic::resume_unwind,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::Poll,
    thread,
    time::{Duration, Instant},
};

use async_executor::Executor;
use backplane::{Device, DeviceId, Exit, Runtime, runtime::Smol};
use backplane_pool::Pool;
use backplane_supervisor::{
    ChildId, ChildSpec, Event, Intensity, Pulse, Report, Restart, RestartStrategy, StartError, Starting,
    Supervisor,
};
use futures_lite::future::{block_on, or};

use crate::{
    desk::{Berth, Desk},
    error::Error,
    job::{Gauge, Job, Share, Sheet},
    kills::{How, Kills, Strike},
    log::{Commit, Epoch, Log, Mark, Merge, Rows, millis},
    vitals::{Death, Vitals},
};

/// How often the workers of a layer may die that nobody killed.
const PATIENCE: u32 = 3;

/// Restarts are counted from the first to the last.
const THE_WHOLE_RUN: Duration = Duration::MAX;

/// How a run is staffed.
#[derive(Debug)]
pub(crate) struct Staff {
    /// Threads that drive all workers.
    pub(crate) threads: usize,
    /// Whether the threads are a pool's; otherwise they are async-executor's.
    pub(crate) pool: bool,
    /// Workers that read partitions.
    pub(crate) readers: usize,
    /// Partitions that are read abreast, in turns: what was written at the same time is read at the same time, and keys
    /// do not stay open for long.
    pub(crate) abreast: usize,
    /// Batches that a desk holds before those above it wait. Stages overtake each other by no more than what lies on two
    /// desks; what is overtaken is open that much longer.
    pub(crate) desk: usize,
    /// Who shows no sign of life for so long is replaced.
    pub(crate) patience: Duration,
}

/// Who shows no sign of life for so long is replaced, unless said otherwise: a disk may keep its writer waiting.
pub(crate) const SIGN_OF_LIFE: Duration = Duration::from_secs(60);

/// What makes a run outlive its process.
pub(crate) struct Durable {
    /// Where epochs go.
    pub(crate) log: Box<dyn Log>,
    /// For each shard the commit it goes on from; the first has a cut of nothing but zeros.
    pub(crate) last: Vec<Commit>,
    /// An epoch is over after so long,
    pub(crate) epoch: Duration,
    /// or so many messages.
    pub(crate) messages: u64,
    /// Between two snapshots, at least; none is taken without work in between.
    pub(crate) snapshot: Duration,
    /// The wish to end early.
    pub(crate) stop: Arc<AtomicBool>,
}

/// Bytes of rows after which an epoch is over, whatever else.
const ROWS: usize = 32 << 20;

impl Staff {
    /// The workers of a join of so many stages, in the order in which kills are planned.
    pub(crate) fn roles(&self, stages: usize, shards: usize) -> Vec<Role> {
        let readers = (0..self.readers).map(Role::Reader);
        let sinks = (0..shards).map(|number| Role::Sink { number, of: shards });
        readers.chain((0..stages).map(Role::Stage)).chain(sinks).chain([Role::Writer]).collect()
    }
}

/// What a worker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Reads partitions and routes their messages to the stages.
    Reader(usize),
    /// Takes in the messages of one stage.
    Stage(usize),
    /// Merges the messages of all stages by key; one of several, each with its share of the keys.
    Sink {
        /// Which.
        number: usize,
        /// Of how many.
        of: usize,
    },
    /// Writes what is joined.
    Writer,
}

impl Role {
    fn name(self, stages: &[String]) -> String {
        match self {
            Role::Reader(n) => format!("reader {}", n + 1),
            Role::Stage(n) => format!("stage {}", stages[n]),
            Role::Sink { of: 1, .. } => "sink".to_owned(),
            Role::Sink { number, .. } => format!("sink {}", number + 1),
            Role::Writer => "writer".to_owned(),
        }
    }

    /// The name of the layer, which is a worker's own where it is alone.
    fn layer(self, stages: &[String]) -> String {
        match self {
            Role::Reader(_) => "readers".to_owned(),
            Role::Sink { of: 2.., .. } => "sinks".to_owned(),
            Role::Stage(_) | Role::Sink { .. } | Role::Writer => self.name(stages),
        }
    }
}

/// What there is to do, and where it goes.
pub(crate) struct Work<J: Job> {
    /// The input.
    pub(crate) partitions: Vec<J::Partition>,
    /// The open keys of each shard.
    pub(crate) tables: Vec<J::Table>,
    /// The output.
    pub(crate) output: J::Output,
    /// A log, if it is to outlive its process.
    pub(crate) durable: Option<Durable>,
}

/// What a run leaves.
#[derive(Debug)]
pub(crate) struct Outcome<T, O> {
    /// The open keys of each shard.
    pub(crate) tables: Vec<T>,
    /// The output.
    pub(crate) output: O,
    /// How long it took.
    pub(crate) took: Duration,
}

/// Joins all partitions, whoever dies.
pub(crate) fn run<J: Job>(
    job: Arc<J>,
    work: Work<J>,
    staff: &Staff,
    kills: Kills,
    vitals: Arc<Vitals>,
) -> Result<Outcome<J::Table, J::Output>, Error> {
    let began = Instant::now();
    // Whoever waits for a disk holds up its thread.
    let threads = staff.threads.max(1) + usize::from(work.durable.is_some());
    let floor = Arc::new(Floor::new(job, work, staff, kills, vitals));
    let root = floor.tree(&staff.roles(floor.job.stages().len(), floor.sinks.len()));
    if staff.pool {
        on_a_pool(&floor, root, threads)?
    } else {
        on_an_executor(&floor, root, threads)?
    }
    let floor = Arc::into_inner(floor).expect("the tree is gone");
    let benches: Option<Vec<_>> = floor.sinks.into_iter().map(|sink| sink.bench.into_inner()).collect();
    let (Some(benches), Some(ledger)) = (benches, floor.ledger.into_inner()) else {
        unreachable!("a worker that is gone has left its berth");
    };
    let tables = benches.into_iter().map(|bench| bench.table).collect();
    Ok(Outcome { tables, output: ledger.output, took: began.elapsed() })
}

/// Ours: threads on their nodes.
fn on_a_pool<J: Job>(floor: &Floor<J>, root: Supervisor, threads: usize) -> Result<(), Error> {
    let pool = Pool::builder().workers(threads).thread_name("driver").build();
    let pool = pool.map_err(|error| Error::Request(format!("the pool: {error}")))?;
    pool.block_on(floor.oversee(root, pool.handle()))?;
    // Supervisors that have ended may have a last step to take; what is then left is dropped.
    let _ = pool.shutdown(Duration::from_secs(10));
    Ok(())
}

/// smol's way: this thread and others run one executor.
fn on_an_executor<J: Job>(floor: &Floor<J>, root: Supervisor, threads: usize) -> Result<(), Error> {
    let executor = Arc::new(Executor::new());
    let stop = Desk::<()>::new(1);
    thread::scope(|scope| {
        for n in 1..threads {
            let (executor, stop) = (&executor, &stop);
            let driver = move || block_on(executor.run(stop.take(Device::new().id())));
            // With fewer threads than wished for the work is slower, and the same.
            let _ = thread::Builder::new().name(format!("driver {n}")).spawn_scoped(scope, driver);
        }
        let overseen = block_on(executor.run(floor.oversee(root, Smol::new(Arc::clone(&executor)))));
        stop.close();
        overseen
    })?;
    // Supervisors that have ended may have a last step to take.
    while executor.try_tick() {}
    Ok(())
}

/// The workers of one supervisor.
#[derive(Debug)]
struct Layer {
    name: String,
    workers: Vec<Worker>,
    deaths: AtomicU64,
}

/// One place in the crew, whoever fills it.
#[derive(Clone, Debug)]
struct Worker {
    /// In the order in which kills are planned.
    number: usize,
    role: Role,
    name: ChildId,
}

impl Layer {
    /// Layers in the order of the work.
    fn all(roles: &[Role], stages: &[String]) -> Vec<Layer> {
        let mut layers: Vec<Layer> = Vec::new();
        for (number, role) in roles.iter().copied().enumerate() {
            let worker = Worker { number, role, name: role.name(stages).into() };
            let name = role.layer(stages);
            match layers.last_mut() {
                Some(layer) if layer.name == name => layer.workers.push(worker),
                _ => layers.push(Layer { name, workers: vec![worker], deaths: AtomicU64::new(0) }),
            }
        }
        layers
    }

    /// Whom an error should name.
    fn culprit(&self) -> String {
        match &*self.workers {
            [alone] => format!("worker {}", alone.name),
            workers => format!("one or another of {} {}", workers.len(), self.name),
        }
    }
}

/// All that outlives the workers.
struct Floor<J: Job> {
    job: Arc<J>,
    /// The numbers of the partitions that are read abreast.
    sources: Desk<usize>,
    /// How many partitions have been among them, or are.
    begun: AtomicUsize,
    /// How many partitions are not through.
    unread: AtomicUsize,
    partitions: Vec<Berth<J::Partition>>,
    stages: Vec<Desk<Parcel<J::Batch>>>,
    sinks: Vec<Sink<J>>,
    writer: Desk<Deed<J::Page>>,
    ledger: Berth<Ledger<J::Output>>,
    pace: Option<Pace>,
    kills: Kills,
    vitals: Arc<Vitals>,
    /// Messages that earlier lives have merged.
    merged_before: u64,
    began: Instant,
    /// For each worker, whether its future is to be dropped.
    condemned: Vec<AtomicBool>,
    /// For each worker, whether it waits for a desk.
    waiting: Vec<AtomicBool>,
    patience: Duration,
    /// How many readers are not through.
    readers: AtomicUsize,
    /// How many stages are not.
    unstaged: AtomicUsize,
    /// How many sinks are not.
    unsunk: AtomicUsize,
    /// Whether all that was read is written.
    through: AtomicBool,
    /// Closed when there is nothing left to do, or no point in doing it.
    over: Desk<()>,
    fatal: Mutex<Option<Error>>,
}

/// A batch, and where it is from.
#[derive(Debug)]
struct Parcel<B> {
    batch: B,
    partition: u32,
    /// Where its block ends.
    until: Mark,
    /// What goes with it into the output past the table, in a log.
    past: Vec<Rows>,
    rejected: u64,
}

/// What the writer has to do.
#[derive(Debug)]
enum Deed<P> {
    /// Write a page.
    Sheet(Sheet<P>),
    /// Commit an epoch.
    Epoch(Epoch),
}

/// A share of the keys.
struct Sink<J: Job> {
    desk: Desk<Parcel<J::Batch>>,
    bench: Berth<Bench<J::Table>>,
    /// For each partition and stage, how far it had come when the run began.
    from: Vec<Mark>,
}

/// The sink's place of work: the table, and how far the batch under way has come.
#[derive(Debug)]
struct Bench<T> {
    table: T,
    serial: u64,
    done: usize,
    gauge: Gauge,
    epoch: Option<Growing>,
}

/// An epoch under way.
#[derive(Debug)]
struct Growing {
    /// What the last one left, with what was merged since.
    commit: Commit,
    rows: Vec<Rows>,
    bytes: usize,
    messages: u64,
    since: Instant,
    /// The last snapshot, and how long it took.
    snapshot: Instant,
    took: Duration,
}

/// When an epoch is over.
#[derive(Debug)]
struct Pace {
    epoch: Duration,
    messages: u64,
    snapshot: Duration,
    stop: Arc<AtomicBool>,
}

impl Growing {
    fn new(commit: Commit) -> Growing {
        let now = Instant::now();
        Growing {
            commit,
            rows: Vec::new(),
            bytes: 0,
            messages: 0,
            since: now,
            snapshot: now,
            took: Duration::ZERO,
        }
    }

    fn take_in<B>(&mut self, parcel: &Parcel<B>, stage: usize, stages: usize, messages: usize) {
        let Parcel { partition, until, past, rejected, .. } = parcel;
        let cut = &mut self.commit.cut[*partition as usize * stages + stage];
        // A block with nothing in it, from a source that waits, is no merge: nobody could make it again.
        if *cut != *until {
            *cut = *until;
            self.commit.merges.push(Merge { partition: *partition, stage: stage as u32, until: *until });
        }
        self.commit.totals.messages += messages as u64;
        self.commit.totals.rejected += rejected;
        self.messages += messages as u64;
        past.iter().cloned().for_each(|rows| self.write(rows));
    }

    fn write(&mut self, rows: Rows) {
        self.bytes += rows.bytes.len();
        self.commit.totals.rows += u64::from(rows.count);
        self.rows.push(rows);
    }
}

/// The writer's place of work: the files, and the last page that is in them for good.
struct Ledger<O> {
    output: O,
    log: Option<Box<dyn Log>>,
    serial: u64,
}

/// Why a worker returns before its work is done.
#[derive(Debug)]
enum Ending {
    /// The plan wanted it so.
    Planned,
    /// The berth it needs is taken: its predecessor is not gone.
    Taken,
    /// Something that starting again will not mend; it lies on the floor.
    Fatal,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::Planned => f.write_str("killed by the plan"),
            Ending::Taken => f.write_str("its place of work is taken"),
            Ending::Fatal => f.write_str("met an error that stops the run"),
        }
    }
}

impl<J: Job> Floor<J> {
    fn new(job: Arc<J>, work: Work<J>, staff: &Staff, kills: Kills, vitals: Arc<Vitals>) -> Floor<J> {
        let Work { partitions, tables, output, durable } = work;
        let stages: Vec<_> = job.stages().iter().map(|_| Desk::new(staff.desk)).collect();
        let crew = staff.roles(stages.len(), tables.len()).len();
        let marks = partitions.len() * stages.len();
        let (log, pace, mut last) = match durable {
            None => (None, None, Vec::new()),
            Some(Durable { log, last, epoch, messages, snapshot, stop }) => {
                (Some(log), Some(Pace { epoch, messages, snapshot, stop }), last)
            }
        };
        last.reverse();
        let sinks: Vec<_> = tables
            .into_iter()
            .map(|table| {
                let last = last.pop();
                let from =
                    last.as_ref().map_or_else(|| vec![Mark::default(); marks], |last| last.cut.clone());
                let (gauge, epoch) = (job.gauge(&table), last.map(Growing::new));
                vitals.merged(
                    epoch.as_ref().map_or(0, |epoch| epoch.commit.totals.messages),
                    Gauge::default(),
                    gauge,
                );
                let bench = Berth::new(Bench { table, serial: 0, done: 0, gauge, epoch });
                Sink { desk: Desk::new(staff.desk), bench, from }
            })
            .collect();
        let sources = Desk::new(usize::MAX);
        let (begun, unread) = (partitions.len().min(staff.abreast.max(1)), partitions.len());
        (0..begun).for_each(|n| sources.give(n));
        if unread == 0 {
            sources.close();
        }
        Floor {
            job,
            sources,
            begun: begun.into(),
            unread: unread.into(),
            partitions: partitions.into_iter().map(Berth::new).collect(),
            readers: staff.readers.into(),
            unstaged: stages.len().into(),
            unsunk: sinks.len().into(),
            stages,
            // An epoch is much, and two of each sink are enough.
            writer: Desk::new(if pace.is_some() { sinks.len() } else { staff.desk }),
            sinks,
            ledger: Berth::new(Ledger { output, log, serial: 0 }),
            pace,
            kills,
            merged_before: vitals.merged.load(Relaxed),
            vitals,
            began: Instant::now(),
            condemned: (0..crew).map(|_| AtomicBool::new(false)).collect(),
            waiting: (0..crew).map(|_| AtomicBool::new(false)).collect(),
            patience: staff.patience,
            through: AtomicBool::new(false),
            over: Desk::new(1),
            fatal: Mutex::new(None),
        }
    }

    // ---- supervision ---------------------------------------------------------------------------------------------

    /// A supervisor for each layer under one root. Whoever takes is there before those who give, and is stopped after them.
    fn tree(self: &Arc<Self>, roles: &[Role]) -> Supervisor {
        let floor = Arc::clone(self);
        let root = Supervisor::new(RestartStrategy::RestForOne)
            .intensity(Intensity { restarts: 0, period: THE_WHOLE_RUN })
            .listen(move |report| {
                if report.child.is_none() && matches!(report.event, Event::Finished(_)) {
                    floor.over.close();
                }
            });
        let layers = Layer::all(roles, self.job.stages()).into_iter().rev();
        root.children(layers.map(|layer| {
            let (name, layer) = (layer.name.clone(), self.layer(layer));
            ChildSpec::supervisor(name, move || layer.clone())
        }))
    }

    fn layer(self: &Arc<Self>, layer: Layer) -> Supervisor {
        let planned: u64 = layer.workers.iter().map(|worker| self.kills.planned(worker.number)).sum();
        let restarts = PATIENCE.saturating_add(u32::try_from(planned).unwrap_or(u32::MAX));
        let workers: Vec<ChildSpec> = layer.workers.iter().map(|worker| self.worker(worker)).collect();
        let floor = Arc::clone(self);
        Supervisor::new(RestartStrategy::OneForOne)
            .intensity(Intensity { restarts, period: THE_WHOLE_RUN })
            .listen(move |report| floor.hear(&layer, report))
            .children(workers)
    }

    fn worker(self: &Arc<Self>, worker: &Worker) -> ChildSpec {
        let (floor, Worker { number, role, name }) = (Arc::clone(self), worker.clone());
        let patience = self.patience;
        let start = move |device: Device, starting: Starting| {
            device.set_label(&*name);
            let (floor, id) = (Arc::clone(&floor), device.id());
            floor.waiting[number].store(false, Relaxed);
            let working = device.manage(Arc::clone(&floor).work(number, role, id)).describe();
            async move {
                let working = async {
                    // Whatever the end is, the supervisor hears of it through its link.
                    let _ = working.await;
                };
                let pulse = starting.done();
                // Asked after each step of the worker; what condemns it is such a step.
                let working = or(working, poll_fn(|_| floor.sentence(number)));
                or(working, floor.signs_of_life(number, &pulse)).await;
            }
        };
        ChildSpec::starting(Arc::clone(&worker.name), start)
            .restart(Restart::Transient)
            .progress_within(patience)
    }

    /// Whoever is asked and waits for a desk, lives. Asked is a worker that has stopped to wait for something. Never ready.
    async fn signs_of_life(&self, worker: usize, pulse: &Pulse) {
        let clock = Smol::global();
        loop {
            clock.sleep_until(clock.now() + self.patience / 4).await;
            if self.waiting[worker].load(Relaxed) {
                pulse.beat();
            }
        }
    }

    /// Waits for a desk: that is no hanging.
    async fn wait<T>(&self, worker: usize, desk: impl Future<Output = T>) -> T {
        self.waiting[worker].store(true, Relaxed);
        let waited = desk.await;
        self.waiting[worker].store(false, Relaxed);
        waited
    }

    /// Ready when the worker's future is to be dropped.
    fn sentence(&self, worker: usize) -> Poll<()> {
        let condemned = &self.condemned[worker];
        if condemned.load(Relaxed) && condemned.swap(false, Relaxed) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Runs the tree until the work is done or has become pointless.
    async fn oversee(&self, root: Supervisor, runtime: impl Runtime) -> Result<(), Error> {
        let defect = |words: &dyn fmt::Display| Error::Request(format!("the workers {words}: a defect"));
        match root.start(runtime).await {
            Ok(root) => {
                let me = Device::new();
                self.over.take(me.id()).await;
                // A root that has given up is gone, and that is as good.
                let _ = root.stop(Exit::Shutdown).await;
            }
            Err(error) => {
                self.fatal().get_or_insert_with(|| defect(&format_args!("could not be started ({error})")));
            }
        }
        match self.fatal().take() {
            Some(error) => Err(error),
            None if self.through.load(Relaxed) => Ok(()),
            None => Err(defect(&"ended before their work was done")),
        }
    }

    /// What a layer's supervisor reports of its workers.
    fn hear(&self, layer: &Layer, report: &Report) {
        let of = |worker: &&Worker| report.child.as_ref() == Some(&worker.name);
        let Some(worker) = layer.workers.iter().find(of) else { return };
        match &report.event {
            Event::Started => {
                self.vitals.restarted.fetch_add(u64::from(report.incarnation > 1), Relaxed);
            }
            // One that has died so soon may have taken something all the same.
            Event::StartFailed(StartError::Ended(exit)) => self.ended(layer, worker, report.device, exit),
            Event::Ended { exit, stopped } => {
                self.ended(layer, worker, report.device, exit);
                if !stopped && exit.fault().is_none() {
                    self.retire(worker.role);
                }
            }
            Event::GaveUp => self.despair(layer, &worker.name),
            _ => {}
        }
    }

    /// Gives back what a worker had taken, and notes its death if it was one.
    fn ended(&self, layer: &Layer, worker: &Worker, device: Option<DeviceId>, exit: &Exit) {
        let given_again = device.is_some_and(|device| self.reclaim(device));
        let Some(fault) = exit.fault() else { return };
        layer.deaths.fetch_add(1, Relaxed);
        let (name, kind, words) = (worker.name.to_string(), fault.kind(), exit.to_string());
        self.vitals.died(Death { name, kind, words, at: self.began.elapsed(), given_again });
    }

    /// A worker is through; closes the desks below its layer if it was the last. Before that nobody below is through.
    fn retire(&self, role: Role) {
        if self.fatal().is_some() {
            return;
        }
        match role {
            Role::Reader(_) if self.readers.fetch_sub(1, Relaxed) == 1 => {
                self.stages.iter().for_each(Desk::close);
            }
            Role::Stage(_) if self.unstaged.fetch_sub(1, Relaxed) == 1 => {
                self.sinks.iter().for_each(|sink| sink.desk.close());
            }
            Role::Sink { .. } if self.unsunk.fetch_sub(1, Relaxed) == 1 => self.writer.close(),
            Role::Reader(_) | Role::Stage(_) | Role::Sink { .. } => {}
            Role::Writer => {
                self.through.store(true, Relaxed);
                self.over.close();
            }
        }
    }

    /// One restart was too many.
    fn despair(&self, layer: &Layer, last: &str) {
        let planned: u64 = layer.workers.iter().map(|worker| self.kills.struck(worker.number)).sum();
        let times = layer.deaths.load(Relaxed).saturating_sub(planned);
        let exit = self.vitals.last_words(last).unwrap_or_default();
        self.stop(Error::Worker { name: layer.culprit(), times, exit });
    }

    fn fatal(&self) -> MutexGuard<'_, Option<Error>> {
        self.fatal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the first error that stops the run, and has the tree stopped.
    fn stop(&self, error: Error) {
        self.fatal().get_or_insert(error);
        self.over.close();
    }

    // ---- work ----------------------------------------------------------------------------------------------------

    /// A worker's whole life.
    async fn work(self: Arc<Self>, worker: usize, role: Role, me: DeviceId) -> Result<(), Ending> {
        let ended = match role {
            Role::Reader(_) => self.read(worker, me).await,
            Role::Stage(stage) => self.take_in(worker, stage, me).await,
            Role::Sink { number, .. } => self.merge(worker, number, me).await,
            Role::Writer => self.write(worker, me).await,
        };
        // To be stopped for, not to be started again for.
        if let Err(Ending::Fatal) = ended { Ok(()) } else { ended }
    }

    async fn read(&self, worker: usize, me: DeviceId) -> Result<(), Ending> {
        while let Some(lease) = self.wait(worker, self.sources.take(me)).await {
            let n = *lease.item;
            let mut partition = self.partitions[n].board().ok_or(Ending::Taken)?;
            let mut blocks = 0..self.job.blocks(&mut partition);
            let is_through = loop {
                if self.is_to_stop() {
                    // The others hear of it, and nobody reads on.
                    self.sources.close();
                    return Ok(());
                }
                if !self.job.fill(&mut partition).map_err(|error| self.fail(error))? {
                    break true;
                }
                if blocks.next().is_none() {
                    break false;
                }
                self.read_block(worker, n, &mut partition).await?;
            };
            // Back in its berth before it can be anybody's again.
            drop(partition);
            if self.sources.settle(me) {
                if is_through { self.next_source() } else { self.sources.give(n) }
            }
        }
        Ok(())
    }

    fn is_to_stop(&self) -> bool {
        self.pace.as_ref().is_some_and(|pace| pace.stop.load(Relaxed))
    }

    async fn read_block(&self, worker: usize, n: usize, partition: &mut J::Partition) -> Result<(), Ending> {
        let job = &*self.job;
        let strike = self.kills.turn(worker);
        let is_durable = self.pace.is_some();
        let routed = job.route(partition, is_durable).map_err(|error| self.fail(error))?;
        if let Some(strike) = strike {
            self.strike(worker, strike).await?;
        }
        let until = job.mark(partition);
        // Once for each desk, in their order: whoever asked again would stand behind those who wait for what it will give.
        for (stage, desk) in self.stages.iter().enumerate() {
            if routed.batches.iter().any(|batch| job.stage(batch) == stage) {
                self.wait(worker, desk.room()).await;
            }
        }
        if !is_durable && !routed.sheets.is_empty() {
            self.wait(worker, self.writer.room()).await;
        }
        job.pass(partition);
        self.vitals.rejected.fetch_add(routed.rejected, Relaxed);
        let mut past: Vec<Rows> = Vec::new();
        for sheet in routed.sheets {
            if is_durable { past.push(job.rows(&sheet)) } else { self.writer.give(Deed::Sheet(sheet)) }
        }
        let mut rejected = routed.rejected;
        for batch in routed.batches {
            let (stage, shard) = (job.stage(&batch), job.shard(&batch));
            // The first of them carries what goes past the table.
            let (past, rejected) = (std::mem::take(&mut past), std::mem::take(&mut rejected));
            if is_durable && self.sinks[shard].from[n * self.stages.len() + stage] >= until {
                continue;
            }
            let read = job.len(&batch) as u64 + self.vitals.read.fetch_add(job.len(&batch) as u64, Relaxed);
            let in_flight = (read + self.merged_before).saturating_sub(self.vitals.merged.load(Relaxed));
            self.vitals.in_flight_peak.fetch_max(in_flight, Relaxed);
            self.stages[stage].give(Parcel { batch, partition: n as u32, until, past, rejected });
        }
        Ok(())
    }

    /// A partition is through: another takes its place among those that are read abreast.
    fn next_source(&self) {
        let begun = self.begun.fetch_add(1, Relaxed);
        if begun < self.partitions.len() {
            self.sources.give(begun);
        }
        if self.unread.fetch_sub(1, Relaxed) == 1 {
            self.sources.close();
        }
    }

    async fn take_in(&self, worker: usize, stage: usize, me: DeviceId) -> Result<(), Ending> {
        while let Some(lease) = self.wait(worker, self.stages[stage].take(me)).await {
            if let Some(strike) = self.kills.turn(worker) {
                self.strike(worker, strike).await?;
            }
            let sink = &self.sinks[self.job.shard(&lease.item.batch)].desk;
            self.wait(worker, sink.room()).await;
            if self.stages[stage].settle(me) {
                self.vitals.staged[stage].fetch_add(self.job.len(&lease.item.batch) as u64, Relaxed);
                sink.give(lease.item);
            }
        }
        Ok(())
    }

    async fn merge(&self, worker: usize, shard: usize, me: DeviceId) -> Result<(), Ending> {
        let (job, desk) = (&*self.job, &self.sinks[shard].desk);
        let mut bench = self.sinks[shard].bench.board().ok_or(Ending::Taken)?;
        while let Some(lease) = self.wait(worker, desk.take(me)).await {
            let Bench { table, serial, done, .. } = &mut *bench;
            if *serial != lease.serial {
                (*serial, *done) = (lease.serial, 0);
            }
            let batch = &lease.item.batch;
            let len = job.len(batch);
            if let Some(strike) = self.kills.turn(worker) {
                let until = *done + strike.share.of(len - *done);
                job.merge(table, batch, done, until);
                self.strike(worker, strike).await?;
            }
            job.merge(table, batch, done, len);
            if bench.epoch.is_none() {
                self.hand_over(worker, &mut bench.table, false).await;
            }
            if desk.settle(me) {
                let Bench { table, gauge, epoch, .. } = &mut *bench;
                let before = std::mem::replace(gauge, job.gauge(table));
                self.vitals.merged(len as u64, before, *gauge);
                if let Some(epoch) = epoch {
                    epoch.take_in(&lease.item, job.stage(batch), self.stages.len(), len);
                    job.pages(table, false).iter().for_each(|sheet| epoch.write(job.rows(sheet)));
                }
            }
            self.end_epoch(worker, &mut bench, false).await;
        }
        self.end_epoch(worker, &mut bench, true).await;
        if bench.epoch.is_none() {
            self.hand_over(worker, &mut bench.table, true).await;
        }
        Ok(())
    }

    /// Hands the epoch over if it is time.
    async fn end_epoch(&self, worker: usize, bench: &mut Bench<J::Table>, is_last: bool) {
        let (Bench { table, epoch: Some(epoch), .. }, Some(pace)) = (bench, &self.pace) else { return };
        let is_long = epoch.since.elapsed() >= pace.epoch;
        let is_much = epoch.messages >= pace.messages || epoch.bytes >= ROWS;
        if epoch.commit.merges.is_empty() || !(is_last || is_much || is_long) {
            return;
        }
        self.wait(worker, self.writer.room()).await;
        let job = &*self.job;
        // What it costs to be quick at the next start is bounded.
        let is_due = !is_last && epoch.snapshot.elapsed() >= pace.snapshot.max(epoch.took * 20);
        let began = Instant::now();
        let snapshot = is_due.then(|| Arc::new(job.save(table)));
        if is_due {
            (epoch.snapshot, epoch.took) = (began, began.elapsed());
        }
        for sheet in job.pages(table, true) {
            epoch.write(job.rows(&sheet));
        }
        let gauge = job.gauge(table);
        let commit = &mut epoch.commit;
        commit.epoch += 1;
        commit.millis = millis();
        (commit.totals.joined, commit.totals.open) = (gauge.joined, gauge.open);
        commit.totals.duplicates = gauge.duplicates;
        let rows = std::mem::take(&mut epoch.rows);
        let whole = commit.clone();
        commit.merges.clear();
        (epoch.bytes, epoch.messages, epoch.since) = (0, 0, began);
        self.writer.give(Deed::Epoch(Epoch { commit: whole, rows, snapshot }));
    }

    async fn hand_over(&self, worker: usize, table: &mut J::Table, all: bool) {
        self.wait(worker, self.writer.room()).await;
        for sheet in self.job.pages(table, all) {
            self.writer.give(Deed::Sheet(sheet));
        }
    }

    async fn write(&self, worker: usize, me: DeviceId) -> Result<(), Ending> {
        let job = &*self.job;
        let mut ledger = self.ledger.board().ok_or(Ending::Taken)?;
        job.rewind(&mut ledger.output).map_err(|error| self.fail(error))?;
        if let Some(log) = &mut ledger.log {
            log.rewind().map_err(|error| self.fail(error))?;
        }
        while let Some(lease) = self.wait(worker, self.writer.take(me)).await {
            let ledger = &mut *ledger;
            if ledger.serial != lease.serial {
                if let Some(strike) = self.kills.turn(worker) {
                    self.do_deed(ledger, &lease.item, strike.share)?;
                    if let (Deed::Epoch(_), Share::ALL) = (&*lease.item, strike.share) {
                        // It is committed, and whoever comes next must know.
                        ledger.serial = lease.serial;
                    }
                    self.strike(worker, strike).await?;
                }
                self.do_deed(ledger, &lease.item, Share::ALL)?;
                job.keep(&mut ledger.output);
                ledger.serial = lease.serial;
            }
            let _ = self.writer.settle(me);
        }
        Ok(())
    }

    /// Writes, in a log for good.
    fn do_deed(
        &self,
        ledger: &mut Ledger<J::Output>,
        deed: &Deed<J::Page>,
        share: Share,
    ) -> Result<(), Ending> {
        let done = match (deed, &mut ledger.log) {
            (Deed::Sheet(sheet), _) => self.job.write(&mut ledger.output, sheet, share),
            (Deed::Epoch(epoch), Some(log)) => log.commit(epoch, share),
            (Deed::Epoch(_), None) => unreachable!("without a log there are no epochs"),
        };
        done.map_err(|error| self.fail(error))
    }

    /// Gives back to the desks what a device had taken. Says whether it had anything.
    fn reclaim(&self, from: DeviceId) -> bool {
        #[cfg(test)]
        if tests::FORGETFUL.get() {
            return false;
        }
        let of_all = self.sources.reclaim(from) | self.writer.reclaim(from);
        let of_sinks = self.sinks.iter().fold(of_all, |any, sink| any | sink.desk.reclaim(from));
        self.stages.iter().fold(of_sinks, |any, desk| any | desk.reclaim(from))
    }

    /// Stops the run.
    fn fail(&self, error: Error) -> Ending {
        self.stop(error);
        Ending::Fatal
    }

    /// Dies as planned.
    async fn strike(&self, worker: usize, strike: Strike) -> Result<(), Ending> {
        match strike.how {
            // Unwinds without the panic hook: this one is no surprise to anybody, so it stays off the screen.
            How::Panic => resume_unwind(Box::new("killed by the plan")),
            How::Error => Err(Ending::Planned),
            #[cfg(test)]
            How::Hang => pending().await,
            How::Drop => {
                self.condemned[worker].store(true, Relaxed);
                pending().await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use backplane::FaultKind;
    use serde_json::json;

    use super::*;
    use crate::{
        audit::audit,
        job::Routed,
        log::{
            code::Malformed,
            embedded::{Folder, Trial},
        },
        memory::{self, InMemory, STAGES},
    };

    #[test]
    fn a_block_with_nothing_in_it_is_no_merge() {
        let mut epoch = Growing::new(Commit { cut: vec![Mark::default(); 2], ..Commit::default() });
        for offset in [5, 5, 5, 9, 9] {
            let until = Mark { offset, byte: 0 };
            let parcel = Parcel { batch: (), partition: 1, until, past: Vec::new(), rejected: 0 };
            epoch.take_in(&parcel, 0, 1, 0);
        }
        let merged: Vec<u64> = epoch.commit.merges.iter().map(|merge| merge.until.offset).collect();
        assert_eq!((merged, epoch.commit.cut[1].offset), (vec![5, 9], 9));
    }

    thread_local! {
        /// The control: a floor, on this thread, on which what the dead had taken is not given back.
        pub(super) static FORGETFUL: Cell<bool> = const { Cell::new(false) };
    }

    const CUSTOMERS: u64 = 4_000;

    fn joined(strikes: &[(usize, Strike)]) -> (memory::Verdict, Vec<Death>) {
        let job = Arc::new(InMemory::new(12, 64));
        let staff =
            Staff { threads: 1, pool: false, readers: 1, abreast: 64, desk: 4, patience: SIGN_OF_LIFE };
        let kills = Kills::exactly(staff.roles(STAGES, 1).len(), strikes);
        let messages = Arc::new(memory::messages(5, CUSTOMERS));
        let vitals = Arc::new(Vitals::default());
        let (partitions, table, output) = (job.partitions(&messages), job.tables(), job.output());
        let outcome = run(
            Arc::clone(&job),
            Work { partitions, tables: table, output, durable: None },
            &staff,
            kills,
            Arc::clone(&vitals),
        );
        let output = outcome.expect("nothing is fatal in memory").output;
        (memory::check(&output, 5, CUSTOMERS), vitals.deaths_from(0))
    }

    fn each_strike() -> impl Iterator<Item = (usize, Strike)> {
        let shares = [0, 100, 256].map(Share);
        let workers =
            Staff { threads: 1, pool: false, readers: 1, abreast: 64, desk: 4, patience: SIGN_OF_LIFE }
                .roles(STAGES, 1)
                .len();
        (0..workers).flat_map(move |worker| {
            shares.into_iter().flat_map(move |share| {
                How::ALL.into_iter().map(move |how| (worker, Strike { turn: 2, share, how }))
            })
        })
    }

    #[test]
    fn any_worker_may_die_any_death_at_any_point_of_its_turn() {
        for strike in each_strike() {
            let (verdict, deaths) = joined(&[strike]);
            assert!(verdict.is_exact(), "{strike:?}: {verdict:?}");
            assert_eq!(deaths.len(), 1, "{strike:?}");
            let kind = match strike.1.how {
                How::Panic => FaultKind::Panic,
                How::Error => FaultKind::Error,
                How::Drop => FaultKind::Dropped,
                How::Hang => FaultKind::Killed,
            };
            assert_eq!(deaths[0].kind, kind, "{strike:?}");
        }
    }

    #[test]
    fn control_without_leases_given_back_the_check_sees_what_is_lost() {
        FORGETFUL.set(true);
        let mut lost = 0;
        // A reader's lease is on a whole partition: were that forgotten the run would wait for it for ever.
        let of_batches = |(worker, strike): &(usize, Strike)| *worker > 0 && strike.share != Share::ALL;
        for strike in each_strike().filter(of_batches) {
            let (verdict, _) = joined(&[strike]);
            lost += verdict.lost;
            assert!(!verdict.is_exact(), "{strike:?}");
        }
        FORGETFUL.set(false);
        assert!(lost > 0);
    }

    #[test]
    fn a_worker_may_die_in_every_turn() {
        let strikes: Vec<_> = (0..6)
            .flat_map(|worker| (1..20).map(move |turn| (worker, turn)))
            .map(|(worker, turn)| {
                (worker, Strike { turn, share: Share(128), how: How::ALL[turn as usize % 3] })
            })
            .collect();
        let (verdict, deaths) = joined(&strikes);
        assert!(verdict.is_exact(), "{verdict:?}");
        assert!(deaths.len() > 100, "{}", deaths.len());
    }

    /// A join in memory whose sink panics, so many times, in earnest, and so do readers, if they are told to; or whose sink
    /// is as slow as others allow.
    struct Cursed {
        join: InMemory,
        panics: AtomicUsize,
        readers_too: bool,
        slow: Option<Arc<Vitals>>,
    }

    impl Job for Cursed {
        type Batch = <InMemory as Job>::Batch;
        type Output = <InMemory as Job>::Output;
        type Page = <InMemory as Job>::Page;
        type Partition = <InMemory as Job>::Partition;
        type Table = <InMemory as Job>::Table;

        fn stages(&self) -> &[String] {
            self.join.stages()
        }

        fn fill(&self, partition: &mut Self::Partition) -> Result<bool, Error> {
            self.join.fill(partition)
        }

        fn shards(&self) -> usize {
            self.join.shards()
        }

        fn shard(&self, batch: &Self::Batch) -> usize {
            self.join.shard(batch)
        }

        fn mark(&self, partition: &Self::Partition) -> Mark {
            self.join.mark(partition)
        }

        fn seek(&self, partition: &mut Self::Partition, mark: Mark) {
            self.join.seek(partition, mark);
        }

        fn save(&self, table: &Self::Table) -> Vec<u8> {
            self.join.save(table)
        }

        fn load(&self, saved: &[u8]) -> Result<Self::Table, Malformed> {
            self.join.load(saved)
        }

        fn rows(&self, sheet: &Sheet<Self::Page>) -> Rows {
            self.join.rows(sheet)
        }

        fn route(&self, partition: &Self::Partition, all: bool) -> Result<Routed<Self>, Error> {
            assert!(!self.readers_too, "poisoned");
            let Routed { batches, sheets, rejected } = self.join.route(partition, all)?;
            Ok(Routed { batches, sheets, rejected })
        }

        fn pass(&self, partition: &mut Self::Partition) {
            self.join.pass(partition);
        }

        fn stage(&self, batch: &Self::Batch) -> usize {
            self.join.stage(batch)
        }

        fn len(&self, batch: &Self::Batch) -> usize {
            self.join.len(batch)
        }

        fn merge(&self, table: &mut Self::Table, batch: &Self::Batch, done: &mut usize, until: usize) {
            if let Some(vitals) = &self.slow {
                until_nobody_reads(vitals);
            }
            let half = *done + (until - *done) / 2;
            self.join.merge(table, batch, done, half);
            let left = self.panics.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1));
            assert!(left.is_err(), "cursed");
            self.join.merge(table, batch, done, until);
        }

        fn pages(&self, table: &mut Self::Table, all: bool) -> Vec<Sheet<Self::Page>> {
            self.join.pages(table, all)
        }

        fn gauge(&self, table: &Self::Table) -> crate::job::Gauge {
            self.join.gauge(table)
        }

        fn write(
            &self,
            output: &mut Self::Output,
            sheet: &Sheet<Self::Page>,
            share: Share,
        ) -> Result<(), Error> {
            self.join.write(output, sheet, share)
        }

        fn keep(&self, output: &mut Self::Output) {
            self.join.keep(output);
        }

        fn rewind(&self, output: &mut Self::Output) -> Result<(), Error> {
            self.join.rewind(output)
        }
    }

    fn cursed(
        panics: usize,
        readers_too: bool,
        strikes: &[(usize, Strike)],
    ) -> Result<memory::Verdict, Error> {
        let join = InMemory::new(12, 64);
        let job = Arc::new(Cursed { join, panics: panics.into(), readers_too, slow: None });
        let staff =
            Staff { threads: 2, pool: true, readers: 2, abreast: 64, desk: 4, patience: SIGN_OF_LIFE };
        let kills = Kills::exactly(staff.roles(STAGES, 1).len(), strikes);
        let messages = Arc::new(memory::messages(5, CUSTOMERS));
        let (partitions, table, output) =
            (job.join.partitions(&messages), job.join.tables(), job.join.output());
        let outcome = run(
            job,
            Work { partitions, tables: table, output, durable: None },
            &staff,
            kills,
            Arc::default(),
        )?;
        Ok(memory::check(&outcome.output, 5, CUSTOMERS))
    }

    /// In every turn of the sink that comes next, with two readers.
    fn strikes_on_the_sink(count: u64) -> Vec<(usize, Strike)> {
        let strike = |turn| Strike { turn, share: Share(128), how: How::ALL[turn as usize % 3] };
        (1..=count).map(|turn| (2 + STAGES, strike(turn))).collect()
    }

    /// As slow as others allow.
    fn until_nobody_reads(vitals: &Vitals) {
        let (mut read, mut same) = (0, 0);
        while same < 1_000 {
            thread::yield_now();
            let now = vitals.read.load(Relaxed);
            (read, same) = if now == read { (read, same + 1) } else { (now, 0) };
        }
    }

    /// A log in memory: what was committed counts, and nothing else. It looks at how much is under way meanwhile.
    #[derive(Default)]
    struct Slow {
        kept: Arc<Mutex<Vec<Epoch>>>,
        under_way: Vec<Rows>,
        vitals: Arc<Vitals>,
        most: Arc<AtomicU64>,
        is_slow: bool,
    }

    impl Log for Slow {
        fn commit(&mut self, epoch: &Epoch, share: Share) -> Result<(), Error> {
            self.under_way.extend_from_slice(&epoch.rows[..share.of(epoch.rows.len())]);
            let mut kept = self.kept.lock().expect("nobody panics here");
            let committed: u64 = kept.iter().map(|epoch| epoch.commit.totals.messages).max().unwrap_or(0);
            if self.is_slow {
                until_nobody_reads(&self.vitals);
            }
            let read = self.vitals.read.load(Relaxed);
            self.most.fetch_max(read.saturating_sub(committed), Relaxed);
            if share == Share::ALL {
                self.under_way.clear();
                let Epoch { commit, rows, .. } = epoch;
                kept.push(Epoch { commit: commit.clone(), rows: rows.clone(), snapshot: None });
            }
            Ok(())
        }

        fn rewind(&mut self) -> Result<(), Error> {
            self.under_way.clear();
            Ok(())
        }
    }

    /// Joins on such a log, and says what was committed and how much was under way at most.
    fn logged(
        strikes: &[(usize, Strike)],
        patience: Duration,
        is_slow: bool,
    ) -> (Vec<Epoch>, u64, Vec<Death>) {
        let job = Arc::new(InMemory::new(12, 64));
        let staff = Staff { threads: 2, pool: false, readers: 1, abreast: 64, desk: 4, patience };
        let kills = Kills::exactly(staff.roles(STAGES, 1).len(), strikes);
        let messages = Arc::new(memory::messages(5, CUSTOMERS * 5));
        let vitals = Arc::new(Vitals::default());
        let (kept, most) = (Arc::default(), Arc::default());
        let slow = Slow {
            kept: Arc::clone(&kept),
            most: Arc::clone(&most),
            vitals: Arc::clone(&vitals),
            is_slow,
            ..Slow::default()
        };
        let durable = Durable {
            log: Box::new(slow),
            last: vec![Commit { cut: vec![Mark::default(); 12 * STAGES], ..Commit::default() }],
            epoch: THE_WHOLE_RUN,
            messages: 2_000,
            snapshot: THE_WHOLE_RUN,
            stop: Arc::default(),
        };
        let (partitions, tables, output) = (job.partitions(&messages), job.tables(), job.output());
        run(
            job,
            Work { partitions, tables, output, durable: Some(durable) },
            &staff,
            kills,
            Arc::clone(&vitals),
        )
        .expect("nothing is fatal in memory");
        let deaths = vitals.deaths_from(0);
        let kept = std::mem::take(&mut *kept.lock().expect("nobody panics here"));
        (kept, most.load(Relaxed), deaths)
    }

    /// Every epoch once, in order, with all rows.
    fn assert_exact(kept: &[Epoch]) {
        let epochs: Vec<u64> = kept.iter().map(|epoch| epoch.commit.epoch).collect();
        assert_eq!(epochs, (1..=kept.len() as u64).collect::<Vec<_>>());
        let rows: Vec<&[u8]> = kept
            .iter()
            .flat_map(|epoch| &epoch.rows)
            .flat_map(|rows| rows.bytes.chunks(memory::ROW))
            .collect();
        let different: std::collections::HashSet<&[u8]> = rows.iter().copied().collect();
        assert_eq!((rows.len() as u64, different.len() as u64), (CUSTOMERS * 5, CUSTOMERS * 5));
        let last = kept.last().expect("there are some");
        assert_eq!((last.commit.totals.joined, last.commit.totals.open), (CUSTOMERS * 5, 0));
    }

    #[test]
    fn whoever_dies_every_epoch_is_committed_once() {
        let shares = [0, 128, 256].map(Share);
        for (worker, share) in (0..6).flat_map(|worker| shares.map(|share| (worker, share))) {
            let strikes: Vec<_> = How::ALL
                .into_iter()
                .zip(1..)
                .map(|(how, turn)| (worker, Strike { turn, share, how }))
                .collect();
            let (kept, _, deaths) = logged(&strikes, SIGN_OF_LIFE, false);
            assert_exact(&kept);
            assert_eq!(deaths.len(), 3, "worker {worker}, {share:?}");
        }
    }

    #[test]
    fn a_slow_sink_holds_up_the_readers_and_no_memory_grows() {
        let (kept, most, _) = logged(&[], SIGN_OF_LIFE, true);
        assert_exact(&kept);
        // Epochs on the desk, at work and growing, and what lies on the desks above.
        let bound = 4 * (2_000 + 64 * 2) + 2 * 4 * 4 * 64 * 2;
        assert!(kept.len() > 20 && (2_000..bound).contains(&most), "{} epochs, {most} messages", kept.len());
    }

    #[test]
    fn in_memory_too_a_slow_sink_holds_up_the_readers() {
        let vitals = Arc::new(Vitals::default());
        let (join, slow) = (InMemory::new(12, 64), Some(Arc::clone(&vitals)));
        let job = Arc::new(Cursed { join, panics: 0.into(), readers_too: false, slow });
        let staff =
            Staff { threads: 2, pool: false, readers: 1, abreast: 64, desk: 4, patience: SIGN_OF_LIFE };
        let kills = Kills::exactly(staff.roles(STAGES, 1).len(), &[]);
        let messages = Arc::new(memory::messages(5, CUSTOMERS * 2));
        let (partitions, tables, output) =
            (job.join.partitions(&messages), job.join.tables(), job.join.output());
        let work = Work { partitions, tables, output, durable: None };
        let outcome = run(job, work, &staff, kills, Arc::clone(&vitals)).expect("nothing is fatal in memory");
        assert!(memory::check(&outcome.output, 5, CUSTOMERS * 2).is_exact());
        // Four batches on each of four desks, and what each worker has in its hands; a batch is of 64 messages, about.
        let (most, bound) = (vitals.in_flight_peak.load(Relaxed), (4 * 4 + 3 + 3 + 1) * 64 * 2);
        assert!((512..bound).contains(&most), "{most} of {} messages in flight", messages.len());
    }

    /// One worker of a crew with two readers and two sinks is killed, in memory or with a log on disk; nobody else is
    /// replaced, and the output is exact.
    fn killed_once(worker: usize, how: How, with_a_log: bool, patience: Duration) {
        let of = format!("worker {worker}, {how:?}, with a log: {with_a_log}");
        let job = Arc::new(InMemory::new(12, 64).sharded(2));
        let staff = Staff { threads: 2, pool: false, readers: 2, abreast: 64, desk: 4, patience };
        let roles = staff.roles(STAGES, 2);
        let kills = Kills::exactly(roles.len(), &[(worker, Strike { turn: 2, share: Share(128), how })]);
        let messages = Arc::new(memory::messages(5, CUSTOMERS));
        let vitals = Arc::new(Vitals::default());
        let name = format!("correlate-killed-{worker}-{how}-{}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        let durable = with_a_log.then(|| {
            let _ = std::fs::remove_dir_all(&dir);
            let about = json!({ "messages": CUSTOMERS, "seed": 5, "partitions": 12 });
            let folder = Folder::open(&dir, &about).expect("opened");
            let (log, _) = folder.log(job.owners(), STAGES, Trial::default()).expect("a log");
            let last = |shard| Commit { shard, cut: vec![Mark::default(); 12 * STAGES], ..Commit::default() };
            Durable {
                log: Box::new(log),
                last: [0, 1].map(last).into(),
                epoch: THE_WHOLE_RUN,
                messages: 1_000,
                snapshot: Duration::ZERO,
                stop: Arc::default(),
            }
        });
        let (partitions, tables, output) = (job.partitions(&messages), job.tables(), job.output());
        let work = Work { partitions, tables, output, durable };
        let outcome = run(Arc::clone(&job), work, &staff, kills, Arc::clone(&vitals)).expect(&of);
        if with_a_log {
            let audit = audit(&dir).expect("it is sound");
            assert!(audit.is_exact(), "{of}: {audit}");
            std::fs::remove_dir_all(&dir).expect("it was there");
        } else {
            let verdict = memory::check(&outcome.output, 5, CUSTOMERS);
            assert!(verdict.is_exact(), "{of}: {verdict:?}");
        }
        let kind = match how {
            How::Panic => FaultKind::Panic,
            How::Error => FaultKind::Error,
            How::Drop => FaultKind::Dropped,
            How::Hang => FaultKind::Killed,
        };
        let deaths: Vec<_> =
            vitals.deaths_from(0).into_iter().map(|death| (death.name, death.kind)).collect();
        assert_eq!(deaths, [(roles[worker].name(job.stages()), kind)], "{of}");
        assert_eq!(vitals.restarted.load(Relaxed), 1, "{of}");
    }

    /// Two readers, three stages, two sinks, the writer: each panics, fails and is dropped; and each hangs, all of them at
    /// the same time, for that takes as long as the patience with them.
    #[test]
    fn the_kill_matrix_each_worker_dies_each_death_alone_in_memory_and_with_a_log() {
        let all = || (0..8).flat_map(|worker| [false, true].map(|with_a_log| (worker, with_a_log)));
        for (how, (worker, with_a_log)) in How::ALL.into_iter().flat_map(|how| all().map(move |at| (how, at)))
        {
            killed_once(worker, how, with_a_log, SIGN_OF_LIFE);
        }
        thread::scope(|scope| {
            for (worker, with_a_log) in all() {
                scope.spawn(move || killed_once(worker, How::Hang, with_a_log, Duration::from_secs(4)));
            }
        });
    }

    #[test]
    fn a_worker_that_hangs_is_replaced_and_what_it_had_taken_is_given_again() {
        for worker in 0..6 {
            let hang = Strike { turn: 2, share: Share(128), how: How::Hang };
            let (kept, _, deaths) = logged(&[(worker, hang)], Duration::from_millis(400), false);
            assert_exact(&kept);
            // A machine that is busy enough may make others look as if they hung: they are replaced as well.
            assert!(
                deaths.iter().any(|death| death.kind == FaultKind::Killed),
                "worker {worker}: {deaths:?}"
            );
        }
    }

    #[test]
    fn a_panic_in_earnest_is_survived_too() {
        let verdict = cursed(PATIENCE as usize, false, &[]).expect("it is patient");
        assert!(verdict.is_exact(), "{verdict:?}");
    }

    #[test]
    fn kills_that_are_planned_use_up_no_patience() {
        let verdict = cursed(PATIENCE as usize, false, &strikes_on_the_sink(40)).expect("it is patient");
        assert!(verdict.is_exact(), "{verdict:?}");
    }

    #[test]
    fn a_worker_that_keeps_dying_stops_the_run_and_says_why() {
        let error = cursed(usize::MAX, false, &[]).expect_err("no end of it").to_string();
        assert!(error.starts_with("worker sink ended 4 times") && error.contains("cursed"), "{error}");
    }

    #[test]
    fn a_worker_that_keeps_dying_stops_the_run_whatever_else_was_planned() {
        let error = cursed(usize::MAX, false, &strikes_on_the_sink(5)).expect_err("no end of it").to_string();
        assert!(error.starts_with("worker sink ended ") && error.contains("cursed"), "{error}");
    }

    #[test]
    fn what_kills_one_reader_after_another_stops_the_run() {
        let error = cursed(0, true, &[]).expect_err("no end of it").to_string();
        let said = "one or another of 2 readers ended 4 times";
        assert!(error.starts_with(said) && error.contains("poisoned"), "{error}");
    }

    #[test]
    fn every_death_is_followed_by_one_restart() {
        for strikes in [1, 7, 20].map(strikes_on_the_sink) {
            let job = Arc::new(InMemory::new(12, 64));
            let staff =
                Staff { threads: 2, pool: true, readers: 2, abreast: 64, desk: 4, patience: SIGN_OF_LIFE };
            let kills = Kills::exactly(staff.roles(STAGES, 1).len(), &strikes);
            let messages = Arc::new(memory::messages(5, CUSTOMERS));
            let vitals = Arc::new(Vitals::default());
            let (partitions, table, output) = (job.partitions(&messages), job.tables(), job.output());
            run(
                job,
                Work { partitions, tables: table, output, durable: None },
                &staff,
                kills,
                Arc::clone(&vitals),
            )
            .expect("nothing is fatal in memory");
            let (deaths, restarted) = (vitals.deaths_from(0).len(), vitals.restarted.load(Relaxed));
            assert_eq!((deaths, restarted), (strikes.len(), strikes.len() as u64));
        }
    }
}
