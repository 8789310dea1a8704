//! The supervised join: readers, a worker for each stage, a sink, a writer, and a foreman who starts again whoever dies.
//!
//! ```text
//!            sources      stages       sink         writer
//!            (desk)       (desks)      (desk)       (desk)
//!                │           │           │            │
//!   partitions ──┴► readers ─┼► A, B, C ─┴► the sink ─┴► the writer ─► files
//!    (berths)         │      │               (table          ▲        (berth)
//!                     │                      in a berth)     │
//!                     └────────── rejects ───────────────────┘
//! ```
//!
//! Each worker is a managed future, linked with the foreman's device as a peer: the foreman hears of its end, and it goes
//! down if the foreman does. What the foreman does with the news is all there is to supervision here:
//!
//! 1. A fault: the dead worker's leases go back to their desks, and a successor is started.
//! 2. A clean end: when all of a layer are done, the desks below it are closed.
//! 3. A worker that keeps dying though nobody kills it, and an error that starting again will not mend, stop the run.
//!
//! Every worker's turn is: take, make, wait for room below, and then in one step without waiting, settle and hand on. A
//! death before that step leaves no trace; there is no death within it.

use std::{
    fmt,
    future::pending,
    panic::resume_unwind,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use async_executor::{Executor, Task};
use backplane::{Device, DeviceId, FaultKind, LinkMode, Message, Watched};
use futures_lite::future::block_on;

use crate::{
    desk::{Berth, Desk},
    error::Error,
    job::{Job, Share, Sheet},
    kills::{How, Kills, Strike},
    vitals::{Death, Vitals},
};

/// How often a worker may die that nobody killed.
const PATIENCE: u64 = 3;

/// How a run is staffed.
#[derive(Debug)]
pub(crate) struct Staff {
    /// Threads that drive all workers.
    pub(crate) threads: usize,
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
    let executor = Executor::new();
    let roles = staff.roles(floor.job.stages().len());
    let stop = Desk::<()>::new(1);
    thread::scope(|scope| {
        for n in 1..staff.threads.max(1) {
            let (executor, stop) = (&executor, &stop);
            let driver = move || block_on(executor.run(stop.take(Device::new().id())));
            // With fewer threads than wished for the work is slower, and the same.
            let _ = thread::Builder::new().name(format!("driver {n}")).spawn_scoped(scope, driver);
        }
        let foreman = Foreman { floor: &floor, executor: &executor, crew: Vec::new(), began };
        let overseen = block_on(executor.run(foreman.oversee(roles)));
        stop.close();
        overseen
    })?;
    drop(executor);
    let floor = Arc::into_inner(floor).expect("all workers are gone");
    let (Some(bench), Some(ledger)) = (floor.bench.into_inner(), floor.ledger.into_inner()) else {
        unreachable!("a worker that is gone has left its berth");
    };
    Ok(Outcome { table: bench.table, output: ledger.output, took: began.elapsed() })
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
    /// Numbers of workers who are to be dropped.
    condemned: Desk<usize>,
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
    /// Something that starting again will not mend.
    Fatal(String),
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::Planned => f.write_str("killed by the plan"),
            Ending::Taken => f.write_str("its place of work is taken"),
            Ending::Fatal(words) => f.write_str(words),
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
        let stages = job.stages().iter().map(|_| Desk::new(staff.desk)).collect();
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
            stages,
            sink: Desk::new(staff.desk),
            bench: Berth::new(Bench { table, serial: 0, done: 0 }),
            writer: Desk::new(staff.desk),
            ledger: Berth::new(Ledger { output, serial: 0 }),
            kills,
            vitals,
            condemned: Desk::new(usize::MAX),
            fatal: Mutex::new(None),
        }
    }

    /// A worker's whole life.
    async fn work(self: Arc<Self>, worker: usize, role: Role, me: DeviceId) -> Result<(), Ending> {
        match role {
            Role::Reader(_) => self.read(worker, me).await,
            Role::Stage(stage) => self.take_in(worker, stage, me).await,
            Role::Sink => self.merge(worker, me).await,
            Role::Writer => self.write(worker, me).await,
        }
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

    /// Keeps an error that stops the run, for the foreman.
    fn fail(&self, error: Error) -> Ending {
        let words = error.to_string();
        self.fatal.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        Ending::Fatal(words)
    }

    /// Dies as planned.
    async fn strike(&self, worker: usize, strike: Strike) -> Result<(), Ending> {
        match strike.how {
            // Unwinds without the panic hook: this one is no surprise to anybody, so it stays off the screen.
            How::Panic => resume_unwind(Box::new("killed by the plan")),
            How::Error => Err(Ending::Planned),
            How::Drop => {
                self.condemned.give(worker);
                pending().await
            }
        }
    }
}

/// Starts workers, hears of their ends, and starts them again.
struct Foreman<'a, J: Job> {
    floor: &'a Arc<Floor<J>>,
    executor: &'a Executor<'static>,
    crew: Vec<Worker>,
    began: Instant,
}

/// One place in the crew.
struct Worker {
    role: Role,
    name: String,
    deaths: u64,
    state: WorkerState,
}

enum WorkerState {
    /// At work. Dropping the task kills it.
    Working { task: Option<Task<()>> },
    /// Through with all there was.
    Done,
}

impl<J: Job> Foreman<'_, J> {
    async fn oversee(mut self, roles: Vec<Role>) -> Result<(), Error> {
        let mut device = Device::labelled("foreman");
        for role in roles {
            let name = role.name(self.floor.job.stages());
            self.crew.push(Worker { role, name, deaths: 0, state: WorkerState::Done });
            self.start(&device, self.crew.len() - 1);
        }
        while self.crew.iter().any(|worker| matches!(worker.state, WorkerState::Working { .. })) {
            let me = device.id();
            let condemned = pin!(self.floor.condemned.take(me));
            match device.watch(condemned).await {
                Watched::Value(Some(lease)) => {
                    let _ = self.floor.condemned.settle(me);
                    if let WorkerState::Working { task, .. } = &mut self.crew[*lease.item].state {
                        drop(task.take());
                    }
                }
                Watched::Message(Message::Disconnect(news)) => {
                    let worker = news.tag as usize;
                    match news.exit.fault() {
                        Some(fault) => {
                            self.bury(worker, news.device, fault.kind(), news.exit.to_string())?;
                            self.start(&device, worker);
                        }
                        None => self.retire(worker),
                    }
                }
                Watched::Value(None) | Watched::Message(Message::Shutdown(_)) => {}
                Watched::Panic(panic) => panic.resume(),
            }
        }
        Ok(())
    }

    fn start(&mut self, device: &Device, worker: usize) {
        let place = &mut self.crew[worker];
        let theirs = Device::labelled(place.name.as_str());
        device.link(&theirs, LinkMode::Peer.tag(worker as u64));
        let id = theirs.id();
        let managed = theirs.manage(Arc::clone(self.floor).work(worker, place.role, id)).describe();
        let task = self.executor.spawn(async move {
            // Whatever the end is, the foreman hears of it through the link.
            let _ = managed.await;
        });
        place.state = WorkerState::Working { task: Some(task) };
    }

    /// Gives back what the dead had, and says whether it may be started again.
    fn bury(&mut self, worker: usize, device: DeviceId, kind: FaultKind, words: String) -> Result<(), Error> {
        if let Some(error) = self.floor.fatal.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(error);
        }
        let floor = self.floor;
        let given_again = floor.reclaim(device);
        let place = &mut self.crew[worker];
        place.deaths += 1;
        let name = place.name.clone();
        let unplanned = place.deaths - floor.kills.struck(worker);
        if unplanned > PATIENCE {
            return Err(Error::Worker { name, times: unplanned, exit: words });
        }
        let death = Death { name, kind, words, at: self.began.elapsed(), given_again };
        floor.vitals.deaths.lock().unwrap_or_else(PoisonError::into_inner).push(death);
        Ok(())
    }

    /// A worker is through; closes the desks below its layer if it was the last.
    fn retire(&mut self, worker: usize) {
        self.crew[worker].state = WorkerState::Done;
        let done = |layer: fn(Role) -> bool| {
            self.crew
                .iter()
                .filter(|worker| layer(worker.role))
                .all(|worker| matches!(worker.state, WorkerState::Done))
        };
        if done(|role| matches!(role, Role::Reader(_))) {
            self.floor.stages.iter().for_each(Desk::close);
        }
        if done(|role| matches!(role, Role::Reader(_) | Role::Stage(_))) {
            self.floor.sink.close();
        }
        if done(|role| !matches!(role, Role::Writer)) {
            self.floor.writer.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::{
        job::Routed,
        memory::{self, InMemory, STAGES},
    };

    thread_local! {
        /// The control: a foreman, on this thread, who does not give back what the dead had taken.
        pub(super) static FORGETFUL: Cell<bool> = const { Cell::new(false) };
    }

    const CUSTOMERS: u64 = 4_000;

    fn joined(strikes: &[(usize, Strike)]) -> (memory::Verdict, Vec<Death>) {
        let job = Arc::new(InMemory::new(12, 64));
        let staff = Staff { threads: 1, readers: 1, abreast: 64, desk: 4 };
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
        let workers = Staff { threads: 1, readers: 1, abreast: 64, desk: 4 }.roles(STAGES).len();
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

    /// A join in memory whose sink panics, so many times, in earnest.
    struct Cursed {
        join: InMemory,
        panics: AtomicUsize,
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

    fn cursed(panics: usize) -> Result<memory::Verdict, Error> {
        let job = Arc::new(Cursed { join: InMemory::new(12, 64), panics: panics.into() });
        let staff = Staff { threads: 2, readers: 2, abreast: 64, desk: 4 };
        let kills = Kills::exactly(staff.roles(STAGES).len(), &[]);
        let messages = Arc::new(memory::messages(5, CUSTOMERS));
        let (partitions, table, output) =
            (job.join.partitions(&messages), job.join.table(), job.join.output());
        let outcome = run(job, partitions, table, output, &staff, kills, Arc::default())?;
        Ok(memory::check(&outcome.output, 5, CUSTOMERS))
    }

    #[test]
    fn a_panic_in_earnest_is_survived_too() {
        let verdict = cursed(PATIENCE as usize).expect("it is patient");
        assert!(verdict.is_exact(), "{verdict:?}");
    }

    #[test]
    fn a_worker_that_keeps_dying_stops_the_run_and_says_why() {
        let error = cursed(usize::MAX).expect_err("no end of it").to_string();
        assert!(error.starts_with("worker sink ended 4 times") && error.contains("cursed"), "{error}");
    }
}
