//! The supervised join: readers, a worker for each stage, a sink and a writer, each layer under a supervisor of its own.
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
    ChildId, ChildSpec, Event, Intensity, Report, Restart, RestartStrategy, StartError, Supervisor,
};
use futures_lite::future::{block_on, or};

use crate::{
    desk::{Berth, Desk},
    error::Error,
    job::{Job, Share, Sheet},
    kills::{How, Kills, Strike},
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
}

impl Staff {
    /// The workers of a join of so many stages, in the order in which kills are planned.
    pub(crate) fn roles(&self, stages: usize) -> Vec<Role> {
        let readers = (0..self.readers).map(Role::Reader);
        readers.chain((0..stages).map(Role::Stage)).chain([Role::Sink, Role::Writer]).collect()
    }
}

/// What a worker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Reads partitions and routes their messages to the stages.
    Reader(usize),
    /// Takes in the messages of one stage.
    Stage(usize),
    /// Merges the messages of all stages by key.
    Sink,
    /// Writes what is joined.
    Writer,
}

impl Role {
    fn name(self, stages: &[String]) -> String {
        match self {
            Role::Reader(n) => format!("reader {}", n + 1),
            Role::Stage(n) => format!("stage {}", stages[n]),
            Role::Sink => "sink".to_owned(),
            Role::Writer => "writer".to_owned(),
        }
    }

    /// The name of the layer, which is a worker's own where it is alone.
    fn layer(self, stages: &[String]) -> String {
        match self {
            Role::Reader(_) => "readers".to_owned(),
            Role::Stage(_) | Role::Sink | Role::Writer => self.name(stages),
        }
    }
}

/// What a run leaves.
#[derive(Debug)]
pub(crate) struct Outcome<T, O> {
    /// The open keys.
    pub(crate) table: T,
    /// The output.
    pub(crate) output: O,
    /// How long it took.
    pub(crate) took: Duration,
}

/// Joins all partitions, whoever dies.
pub(crate) fn run<J: Job>(
    job: Arc<J>,
    partitions: Vec<J::Partition>,
    table: J::Table,
    output: J::Output,
    staff: &Staff,
    kills: Kills,
    vitals: Arc<Vitals>,
) -> Result<Outcome<J::Table, J::Output>, Error> {
    let began = Instant::now();
    let floor = Arc::new(Floor::new(job, partitions, staff, table, output, kills, vitals));
    let root = floor.tree(&staff.roles(floor.job.stages().len()));
    if staff.pool {
        on_a_pool(&floor, root, staff)?
    } else {
        on_an_executor(&floor, root, staff)?
    }
    let floor = Arc::into_inner(floor).expect("the tree is gone");
    let (Some(bench), Some(ledger)) = (floor.bench.into_inner(), floor.ledger.into_inner()) else {
        unreachable!("a worker that is gone has left its berth");
    };
    Ok(Outcome { table: bench.table, output: ledger.output, took: began.elapsed() })
}

/// Ours: threads on their nodes.
fn on_a_pool<J: Job>(floor: &Floor<J>, root: Supervisor, staff: &Staff) -> Result<(), Error> {
    let pool = Pool::builder().workers(staff.threads.max(1)).thread_name("driver").build();
    let pool = pool.map_err(|error| Error::Request(format!("the pool: {error}")))?;
    pool.block_on(floor.oversee(root, pool.handle()))?;
    // Supervisors that have ended may have a last step to take; what is then left is dropped.
    let _ = pool.shutdown(Duration::from_secs(10));
    Ok(())
}

/// smol's way: this thread and others run one executor.
fn on_an_executor<J: Job>(floor: &Floor<J>, root: Supervisor, staff: &Staff) -> Result<(), Error> {
    let executor = Arc::new(Executor::new());
    let stop = Desk::<()>::new(1);
    thread::scope(|scope| {
        for n in 1..staff.threads.max(1) {
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
    stages: Vec<Desk<J::Batch>>,
    sink: Desk<J::Batch>,
    bench: Berth<Bench<J::Table>>,
    writer: Desk<Sheet<J::Page>>,
    ledger: Berth<Ledger<J::Output>>,
    kills: Kills,
    vitals: Arc<Vitals>,
    began: Instant,
    /// For each worker, whether its future is to be dropped.
    condemned: Vec<AtomicBool>,
    /// How many readers are not through.
    readers: AtomicUsize,
    /// How many stages are not.
    unstaged: AtomicUsize,
    /// Whether all that was read is written.
    through: AtomicBool,
    /// Closed when there is nothing left to do, or no point in doing it.
    over: Desk<()>,
    fatal: Mutex<Option<Error>>,
}

/// The sink's place of work: the table, and how far the batch under way has come.
#[derive(Debug)]
struct Bench<T> {
    table: T,
    serial: u64,
    done: usize,
}

/// The writer's place of work: the files, and the last page that is in them for good.
#[derive(Debug)]
struct Ledger<O> {
    output: O,
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
    fn new(
        job: Arc<J>,
        partitions: Vec<J::Partition>,
        staff: &Staff,
        table: J::Table,
        output: J::Output,
        kills: Kills,
        vitals: Arc<Vitals>,
    ) -> Floor<J> {
        let stages: Vec<_> = job.stages().iter().map(|_| Desk::new(staff.desk)).collect();
        let crew = staff.roles(stages.len()).len();
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
            stages,
            sink: Desk::new(staff.desk),
            bench: Berth::new(Bench { table, serial: 0, done: 0 }),
            writer: Desk::new(staff.desk),
            ledger: Berth::new(Ledger { output, serial: 0 }),
            kills,
            vitals,
            began: Instant::now(),
            condemned: (0..crew).map(|_| AtomicBool::new(false)).collect(),
            through: AtomicBool::new(false),
            over: Desk::new(1),
            fatal: Mutex::new(None),
        }
    }

    // ---- supervision ---------------------------------------------------------------------------------------------

    /// A supervisor for each layer under one root. Whoever takes is there before those who give, and is stopped after them.
    fn tree(self: &Arc<Self>, roles: &[Role]) -> Supervisor {
        let floor = Arc::clone(self);
        let root = Supervisor::new(RestartStrategy::OneForOne)
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
        let start = move |device: Device| {
            device.set_label(&*name);
            let (floor, id) = (Arc::clone(&floor), device.id());
            let working = device.manage(Arc::clone(&floor).work(number, role, id)).describe();
            async move {
                let working = async {
                    // Whatever the end is, the supervisor hears of it through its link.
                    let _ = working.await;
                };
                // Asked after each step of the worker; what condemns it is such a step.
                or(working, poll_fn(|_| floor.sentence(number))).await;
            }
        };
        ChildSpec::new(Arc::clone(&worker.name), start).restart(Restart::Transient)
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
            Role::Stage(_) if self.unstaged.fetch_sub(1, Relaxed) == 1 => self.sink.close(),
            Role::Reader(_) | Role::Stage(_) => {}
            Role::Sink => self.writer.close(),
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
            Role::Sink => self.merge(worker, me).await,
            Role::Writer => self.write(worker, me).await,
        };
        // To be stopped for, not to be started again for.
        if let Err(Ending::Fatal) = ended { Ok(()) } else { ended }
    }

    async fn read(&self, worker: usize, me: DeviceId) -> Result<(), Ending> {
        while let Some(lease) = self.sources.take(me).await {
            let n = *lease.item;
            let mut partition = self.partitions[n].board().ok_or(Ending::Taken)?;
            let mut blocks = 0..self.job.blocks(&mut partition);
            let is_through = loop {
                if !self.job.fill(&mut partition).map_err(|error| self.fail(error))? {
                    break true;
                }
                if blocks.next().is_none() {
                    break false;
                }
                self.read_block(worker, &mut partition).await?;
            };
            // Back in its berth before it can be anybody's again.
            drop(partition);
            if self.sources.settle(me) {
                if is_through { self.next_source() } else { self.sources.give(n) }
            }
        }
        Ok(())
    }

    async fn read_block(&self, worker: usize, partition: &mut J::Partition) -> Result<(), Ending> {
        let job = &*self.job;
        let strike = self.kills.turn(worker);
        let routed = job.route(partition).map_err(|error| self.fail(error))?;
        if let Some(strike) = strike {
            self.strike(worker, strike).await?;
        }
        for batch in &routed.batches {
            self.stages[job.stage(batch)].room().await;
        }
        if !routed.sheets.is_empty() {
            self.writer.room().await;
        }
        job.pass(partition);
        self.vitals.rejected.fetch_add(routed.rejected, Relaxed);
        for batch in routed.batches {
            self.vitals.read.fetch_add(job.len(&batch) as u64, Relaxed);
            self.stages[job.stage(&batch)].give(batch);
        }
        for sheet in routed.sheets {
            self.writer.give(sheet);
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
        while let Some(lease) = self.stages[stage].take(me).await {
            if let Some(strike) = self.kills.turn(worker) {
                self.strike(worker, strike).await?;
            }
            self.sink.room().await;
            if self.stages[stage].settle(me) {
                self.vitals.staged[stage].fetch_add(self.job.len(&lease.item) as u64, Relaxed);
                self.sink.give(lease.item);
            }
        }
        Ok(())
    }

    async fn merge(&self, worker: usize, me: DeviceId) -> Result<(), Ending> {
        let job = &*self.job;
        let mut bench = self.bench.board().ok_or(Ending::Taken)?;
        while let Some(lease) = self.sink.take(me).await {
            let Bench { table, serial, done } = &mut *bench;
            if *serial != lease.serial {
                (*serial, *done) = (lease.serial, 0);
            }
            let len = job.len(&lease.item);
            if let Some(strike) = self.kills.turn(worker) {
                let until = *done + strike.share.of(len - *done);
                job.merge(table, &lease.item, done, until);
                self.strike(worker, strike).await?;
            }
            job.merge(table, &lease.item, done, len);
            self.hand_over(table, false).await;
            if self.sink.settle(me) {
                self.vitals.merged(len, job.gauge(table));
            }
        }
        self.hand_over(&mut bench.table, true).await;
        Ok(())
    }

    async fn hand_over(&self, table: &mut J::Table, all: bool) {
        self.writer.room().await;
        for sheet in self.job.pages(table, all) {
            self.writer.give(sheet);
        }
    }

    async fn write(&self, worker: usize, me: DeviceId) -> Result<(), Ending> {
        let job = &*self.job;
        let mut ledger = self.ledger.board().ok_or(Ending::Taken)?;
        job.rewind(&mut ledger.output).map_err(|error| self.fail(error))?;
        while let Some(lease) = self.writer.take(me).await {
            let Ledger { output, serial } = &mut *ledger;
            if *serial != lease.serial {
                if let Some(strike) = self.kills.turn(worker) {
                    job.write(output, &lease.item, strike.share).map_err(|error| self.fail(error))?;
                    self.strike(worker, strike).await?;
                }
                job.write(output, &lease.item, Share::ALL).map_err(|error| self.fail(error))?;
                job.keep(output);
                *serial = lease.serial;
            }
            let _ = self.writer.settle(me);
        }
        Ok(())
    }

    /// Gives back to the desks what a device had taken. Says whether it had anything.
    fn reclaim(&self, from: DeviceId) -> bool {
        #[cfg(test)]
        if tests::FORGETFUL.get() {
            return false;
        }
        let of_all = self.sources.reclaim(from) | self.sink.reclaim(from) | self.writer.reclaim(from);
        self.stages.iter().fold(of_all, |any, desk| any | desk.reclaim(from))
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

    use super::*;
    use crate::{
        job::Routed,
        memory::{self, InMemory, STAGES},
    };

    thread_local! {
        /// The control: a floor, on this thread, on which what the dead had taken is not given back.
        pub(super) static FORGETFUL: Cell<bool> = const { Cell::new(false) };
    }

    const CUSTOMERS: u64 = 4_000;

    fn joined(strikes: &[(usize, Strike)]) -> (memory::Verdict, Vec<Death>) {
        let job = Arc::new(InMemory::new(12, 64));
        let staff = Staff { threads: 1, pool: false, readers: 1, abreast: 64, desk: 4 };
        let kills = Kills::exactly(staff.roles(STAGES).len(), strikes);
        let messages = Arc::new(memory::messages(5, CUSTOMERS));
        let vitals = Arc::new(Vitals::default());
        let (partitions, table, output) = (job.partitions(&messages), job.table(), job.output());
        let outcome = run(Arc::clone(&job), partitions, table, output, &staff, kills, Arc::clone(&vitals));
        let output = outcome.expect("nothing is fatal in memory").output;
        (memory::check(&output, 5, CUSTOMERS), vitals.deaths_from(0))
    }

    fn each_strike() -> impl Iterator<Item = (usize, Strike)> {
        let shares = [0, 100, 256].map(Share);
        let workers = Staff { threads: 1, pool: false, readers: 1, abreast: 64, desk: 4 }.roles(STAGES).len();
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

    /// A join in memory whose sink panics, so many times, in earnest; and so do readers, if they are told to.
    struct Cursed {
        join: InMemory,
        panics: AtomicUsize,
        readers_too: bool,
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

        fn route(&self, partition: &Self::Partition) -> Result<Routed<Self>, Error> {
            assert!(!self.readers_too, "poisoned");
            let Routed { batches, sheets, rejected } = self.join.route(partition)?;
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
        let job = Arc::new(Cursed { join, panics: panics.into(), readers_too });
        let staff = Staff { threads: 2, pool: true, readers: 2, abreast: 64, desk: 4 };
        let kills = Kills::exactly(staff.roles(STAGES).len(), strikes);
        let messages = Arc::new(memory::messages(5, CUSTOMERS));
        let (partitions, table, output) =
            (job.join.partitions(&messages), job.join.table(), job.join.output());
        let outcome = run(job, partitions, table, output, &staff, kills, Arc::default())?;
        Ok(memory::check(&outcome.output, 5, CUSTOMERS))
    }

    /// In every turn of the sink that comes next, with two readers.
    fn strikes_on_the_sink(count: u64) -> Vec<(usize, Strike)> {
        let strike = |turn| Strike { turn, share: Share(128), how: How::ALL[turn as usize % 3] };
        (1..=count).map(|turn| (2 + STAGES, strike(turn))).collect()
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
            let staff = Staff { threads: 2, pool: true, readers: 2, abreast: 64, desk: 4 };
            let kills = Kills::exactly(staff.roles(STAGES).len(), &strikes);
            let messages = Arc::new(memory::messages(5, CUSTOMERS));
            let vitals = Arc::new(Vitals::default());
            let (partitions, table, output) = (job.partitions(&messages), job.table(), job.output());
            run(job, partitions, table, output, &staff, kills, Arc::clone(&vitals))
                .expect("nothing is fatal in memory");
            let (deaths, restarted) = (vitals.deaths_from(0).len(), vitals.restarted.load(Relaxed));
            assert_eq!((deaths, restarted), (strikes.len(), strikes.len() as u64));
        }
    }
}
