//! How long it takes from a child's end until its successor is ready, and to start and stop many children: here, in three
//! peers, in OTP where Erlang is installed, and without any supervisor, which is the floor. All on one thread of tokio, in
//! one run, interleaved; medians are printed, with the tenth and the ninetieth percentile. The README says what is compared.
//!
//! The children do as little as they can: they say that they run, wait for a word, and end in peace, which a permanent child
//! may not. So no panic is unwound in any of them.

use std::future::ready;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// So many supervisors, one after the other, each with so many restarts: nobody has a long list of restarts to look through.
const SUPERVISORS: u32 = 40;
const RESTARTS: u32 = 50;
const ROUNDS: usize = 15;
const MANY: usize = 10_000;
/// Every third round.
const VERY_MANY: usize = 100_000;

/// What a child and the clock have in common.
#[derive(Default)]
struct Stage {
    ready: Notify,
    end: Notify,
    running: AtomicUsize,
}

/// Counts a child while it runs.
struct Present(Arc<Stage>);

impl Present {
    fn new(stage: &Arc<Stage>) -> Present {
        stage.running.fetch_add(1, Ordering::Relaxed);
        Present(Arc::clone(stage))
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn life(stage: Arc<Stage>) {
    stage.ready.notify_one();
    stage.end.notified().await;
}

async fn wait_for(stage: &Stage, count: usize) {
    while stage.running.load(Ordering::Relaxed) != count {
        tokio::task::yield_now().await;
    }
}

/// From the end of each child until the next one says that it runs.
async fn clock<F: Future<Output = ()>>(stage: &Stage, end: impl Fn() -> F) -> Duration {
    stage.ready.notified().await;
    let begin = Instant::now();
    for _ in 0..RESTARTS {
        end().await;
        stage.ready.notified().await;
    }
    begin.elapsed()
}

/// No supervisor at all: what a spawn, a wait until the task runs, and a wait until it has ended cost.
mod bare {
    use super::*;

    pub(super) async fn restarts() -> Duration {
        let stage = Arc::new(Stage::default());
        let mut task = tokio::spawn(life(Arc::clone(&stage)));
        stage.ready.notified().await;
        let begin = Instant::now();
        for _ in 0..RESTARTS {
            stage.end.notify_one();
            drop(task.await);
            task = tokio::spawn(life(Arc::clone(&stage)));
            stage.ready.notified().await;
        }
        let took = begin.elapsed();
        stage.end.notify_one();
        drop(task.await);
        took
    }

    /// One at a time: the next is spawned when the one before says that it runs, and ended when the one after is gone.
    pub(super) async fn many(count: usize) -> (Duration, Duration) {
        let stage = Arc::new(Stage::default());
        let mut tasks = Vec::new();
        let begin = Instant::now();
        for _ in 0..count {
            let child = Arc::clone(&stage);
            tasks.push(tokio::spawn(async move {
                let _present = Present::new(&child);
                child.ready.notify_one();
                std::future::pending::<()>().await
            }));
            stage.ready.notified().await;
        }
        let started = begin.elapsed();
        let begin = Instant::now();
        while let Some(task) = tasks.pop() {
            task.abort();
            drop(task.await);
        }
        assert_eq!(stage.running.load(Ordering::Relaxed), 0);
        (started, begin.elapsed())
    }
}

/// No supervisor, but what its promises need at least: a task that is known of by a device, linked with that of who watches;
/// the watcher is woken by the child's first poll, and by its end.
mod by_hand {
    use super::*;
    use backplane::{Device, Line, LinkMode, Message};
    use tokio::task::JoinHandle;

    type Job = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

    async fn spawn<F>(me: &mut Device, future: F) -> (Line, JoinHandle<()>)
    where
        F: Future<Output = Result<(), ()>> + Send + 'static,
    {
        let child = Device::new();
        let (line, watcher) = (child.line(), me.line());
        me.link(&child, LinkMode::Peer);
        let managed = child.manage(future);
        let job: Job = Box::pin(async move {
            watcher.shutdown(watcher.id());
            drop(managed.await);
        });
        let task = tokio::spawn(job);
        while !matches!(me.receive().await, Message::Shutdown(_)) {}
        (line, task)
    }

    pub(super) async fn restarts() -> Duration {
        let stage = Arc::new(Stage::default());
        let child = Arc::clone(&stage);
        let watcher = tokio::spawn(async move {
            let mut me = Device::new();
            loop {
                let stage = Arc::clone(&child);
                let life = async move {
                    life(stage).await;
                    Ok(())
                };
                drop(spawn(&mut me, life).await);
                while !matches!(me.receive().await, Message::Disconnect(_)) {}
            }
        });
        let took = clock(&stage, || {
            stage.end.notify_one();
            ready(())
        })
        .await;
        watcher.abort();
        took
    }

    pub(super) async fn many(count: usize) -> (Duration, Duration) {
        let stage = Arc::new(Stage::default());
        let (mut me, mut children) = (Device::new(), Vec::new());
        let begin = Instant::now();
        for _ in 0..count {
            let present = Present::new(&stage);
            let child = async move {
                let _present = present;
                std::future::pending().await
            };
            children.push(spawn(&mut me, child).await);
        }
        let started = begin.elapsed();
        let begin = Instant::now();
        while let Some((line, task)) = children.pop() {
            line.shutdown(me.id());
            while !matches!(me.receive().await, Message::Disconnect(_)) {}
            drop(task);
        }
        assert_eq!(stage.running.load(Ordering::Relaxed), 0);
        (started, begin.elapsed())
    }
}

mod ours {
    use super::*;
    use backplane::Exit;
    use backplane::runtime::Tokio;
    use backplane_supervisor::{ChildSpec, DynamicSupervisor, Intensity, RestartStrategy, Supervisor};

    fn runtime() -> Tokio {
        Tokio::current().unwrap_or_else(|_| unreachable!("called inside tokio"))
    }

    const OFTEN: Intensity = Intensity { restarts: 1_000_000, period: Duration::from_millis(1) };

    pub(super) async fn restarts() -> Duration {
        let stage = Arc::new(Stage::default());
        let child = Arc::clone(&stage);
        let spec = ChildSpec::new("child", move |device| {
            let stage = Arc::clone(&child);
            device.manage(async move {
                life(stage).await;
                Ok::<_, ()>(())
            })
        });
        let tree = Supervisor::new(RestartStrategy::OneForOne).intensity(OFTEN).child(spec);
        let Ok(handle) = tree.start(runtime()).await else { panic!("it starts") };
        let took = clock(&stage, || {
            stage.end.notify_one();
            ready(())
        })
        .await;
        drop(handle.stop(Exit::Shutdown).await);
        took
    }

    pub(super) async fn many(count: usize) -> (Duration, Duration) {
        let stage = Arc::new(Stage::default());
        let child = Arc::clone(&stage);
        let spec = ChildSpec::new("child", move |device| {
            let present = Present::new(&child);
            device.manage(async move {
                let _present = present;
                std::future::pending::<Result<(), ()>>().await
            })
        });
        let tree = Supervisor::new(RestartStrategy::OneForOne).children(spec.replicas(count));
        let begin = Instant::now();
        let Ok(handle) = tree.start(runtime()).await else { panic!("it starts") };
        let started = begin.elapsed();
        let begin = Instant::now();
        drop(handle.stop(Exit::Shutdown).await);
        assert_eq!(stage.running.load(Ordering::Relaxed), 0);
        (started, begin.elapsed())
    }

    pub(super) async fn one_more(already: usize) -> Duration {
        let plan =
            DynamicSupervisor::new(|device, ()| device.manage(std::future::pending::<Result<(), ()>>()));
        let Ok(handle) = plan.start(runtime()).await else { panic!("it starts") };
        for _ in 0..already {
            drop(handle.start_child(()).await);
        }
        let begin = Instant::now();
        for _ in 0..1_000 {
            if let Ok(Some(child)) = handle.start_child(()).await {
                drop(handle.terminate_child(child).await);
            }
        }
        let took = begin.elapsed() / 1_000;
        drop(handle.stop(Exit::Shutdown).await);
        took
    }
}

mod with_kameo {
    use super::*;
    use kameo::actor::{Actor, ActorRef, Spawn};
    use kameo::error::Infallible;
    use kameo::message::{Context, Message};
    use kameo::supervision::RestartPolicy;

    pub(super) struct Parent;

    impl Actor for Parent {
        type Args = ();
        type Error = Infallible;

        async fn on_start(_: (), _: ActorRef<Parent>) -> Result<Parent, Infallible> {
            Ok(Parent)
        }
    }

    #[derive(Clone)]
    struct Child {
        stage: Arc<Stage>,
        _present: Option<Arc<Present>>,
    }

    struct End;

    impl Actor for Child {
        type Args = Child;
        type Error = Infallible;

        async fn on_start(child: Child, _: ActorRef<Child>) -> Result<Child, Infallible> {
            child.stage.ready.notify_one();
            let present = Some(Arc::new(Present::new(&child.stage)));
            Ok(Child { stage: child.stage, _present: present })
        }
    }

    impl Message<End> for Child {
        type Reply = ();

        async fn handle(&mut self, _: End, context: &mut Context<Child, ()>) {
            context.stop();
        }
    }

    async fn child(parent: &ActorRef<Parent>, stage: &Arc<Stage>) -> ActorRef<Child> {
        Child::supervise(parent, Child { stage: Arc::clone(stage), _present: None })
            .restart_policy(RestartPolicy::Permanent)
            .restart_limit(u32::MAX, Duration::from_millis(1))
            .spawn()
            .await
    }

    pub(super) async fn restarts() -> Duration {
        let stage = Arc::new(Stage::default());
        let parent = Parent::spawn(());
        let child = child(&parent, &stage).await;
        let took = clock(&stage, || async { drop(child.tell(End).await) }).await;
        let _ = parent.stop_gracefully().await;
        parent.wait_for_shutdown().await;
        took
    }

    pub(super) async fn many(count: usize) -> (Duration, Duration) {
        let stage = Arc::new(Stage::default());
        let parent = Parent::spawn(());
        let begin = Instant::now();
        let mut children = Vec::new();
        for _ in 0..count {
            children.push(child(&parent, &stage).await);
        }
        wait_for(&stage, count).await;
        let started = begin.elapsed();
        let begin = Instant::now();
        let _ = parent.stop_gracefully().await;
        parent.wait_for_shutdown().await;
        wait_for(&stage, 0).await;
        (started, begin.elapsed())
    }
}

mod with_ractor {
    use std::sync::{Mutex, PoisonError};

    use super::*;
    use futures_util::FutureExt;
    use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr};
    use ractor_supervisor::{
        ChildSpec, Restart, SpawnFn, Supervisor, SupervisorArguments, SupervisorOptions, SupervisorStrategy,
    };

    /// Where the clock finds the child that it ends.
    type Place = Arc<Mutex<Option<ActorCell>>>;

    struct Child(Arc<Stage>, Place);

    #[ractor::async_trait]
    impl Actor for Child {
        type Msg = ();
        type State = Present;
        type Arguments = ();

        async fn pre_start(&self, myself: ActorRef<()>, (): ()) -> Result<Present, ActorProcessingErr> {
            *self.1.lock().unwrap_or_else(PoisonError::into_inner) = Some(myself.get_cell());
            self.0.ready.notify_one();
            Ok(Present::new(&self.0))
        }
    }

    struct Quiet(Arc<Stage>);

    #[ractor::async_trait]
    impl Actor for Quiet {
        type Msg = ();
        type State = Present;
        type Arguments = ();

        async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<Present, ActorProcessingErr> {
            Ok(Present::new(&self.0))
        }
    }

    async fn spawn(
        stage: Arc<Stage>,
        place: Option<Place>,
        above: ActorCell,
        id: String,
    ) -> Result<ActorCell, SpawnErr> {
        if let Some(place) = place {
            let (child, _) = Supervisor::spawn_linked(id, Child(stage, place), (), above).await?;
            Ok(child.get_cell())
        } else {
            let (child, _) = Supervisor::spawn_linked(id, Quiet(stage), (), above).await?;
            Ok(child.get_cell())
        }
    }

    fn arguments(stage: &Arc<Stage>, count: usize, place: Option<Place>) -> SupervisorArguments {
        let specs = (0..count).map(|n| {
            let (stage, place) = (Arc::clone(stage), place.clone());
            ChildSpec {
                id: format!("child-{n}"),
                restart: Restart::Permanent,
                spawn_fn: SpawnFn::new(move |above, id| {
                    spawn(Arc::clone(&stage), place.clone(), above, id).boxed()
                }),
                backoff_fn: None,
                reset_after: None,
            }
        });
        SupervisorArguments {
            child_specs: specs.collect(),
            options: SupervisorOptions {
                strategy: SupervisorStrategy::OneForOne,
                max_restarts: usize::MAX,
                max_window: Duration::from_millis(1),
                reset_after: None,
            },
        }
    }

    pub(super) async fn restarts() -> Duration {
        let stage = Arc::new(Stage::default());
        let place = Place::default();
        let arguments = arguments(&stage, 1, Some(Arc::clone(&place)));
        let Ok((parent, task)) = Supervisor::spawn("parent".into(), arguments).await else {
            panic!("it starts")
        };
        let end = || {
            let child = place.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(child) = child {
                child.stop(None);
            }
            ready(())
        };
        let took = clock(&stage, end).await;
        parent.stop(None);
        drop(task.await);
        took
    }

    pub(super) async fn many(count: usize) -> (Duration, Duration) {
        let stage = Arc::new(Stage::default());
        let arguments = arguments(&stage, count, None);
        let begin = Instant::now();
        let Ok((parent, task)) = Supervisor::spawn("parent".into(), arguments).await else {
            panic!("it starts")
        };
        wait_for(&stage, count).await;
        let started = begin.elapsed();
        let begin = Instant::now();
        parent.stop(None);
        drop(task.await);
        wait_for(&stage, 0).await;
        (started, begin.elapsed())
    }
}

mod with_hydra {
    use super::*;
    use hydra::{ChildSpec, ExitReason, Process, ProcessFlags, Supervisor, SupervisorOptions};

    /// Waiting, the start of a child resolves when it runs, as in ours; else it resolves when it has been spawned.
    fn spec(stage: &Arc<Stage>, n: usize, waiting: bool) -> ChildSpec {
        let stage = Arc::clone(stage);
        ChildSpec::new(format!("child-{n}")).start(move || {
            let stage = Arc::clone(&stage);
            async move {
                let child = Arc::clone(&stage);
                let process = Process::spawn_link(async move {
                    let _present = Present::new(&child);
                    life(Arc::clone(&child)).await;
                });
                if waiting {
                    stage.ready.notified().await;
                }
                Ok(process)
            }
        })
    }

    async fn inside<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
        let (send, receive) = tokio::sync::oneshot::channel();
        Process::spawn(async move {
            drop(send.send(work.await));
        });
        match receive.await {
            Ok(value) => value,
            Err(_) => panic!("the process ended early"),
        }
    }

    pub(super) async fn restarts() -> Duration {
        let stage = Arc::new(Stage::default());
        inside(async move {
            let tree = Supervisor::with_children([spec(&stage, 0, false)])
                .max_restarts(usize::MAX)
                .max_duration(Duration::from_millis(1));
            let Ok(parent) = tree.start(SupervisorOptions::new()).await else { panic!("it starts") };
            let took = clock(&stage, || {
                stage.end.notify_one();
                ready(())
            })
            .await;
            Process::exit(parent, ExitReason::Kill);
            stage.end.notify_one();
            tokio::task::yield_now().await;
            took
        })
        .await
    }

    pub(super) async fn many(count: usize, waiting: bool) -> (Duration, Duration) {
        let stage = Arc::new(Stage::default());
        inside(async move {
            Process::set_flags(ProcessFlags::TRAP_EXIT);
            let tree = Supervisor::with_children((0..count).map(|n| spec(&stage, n, waiting)));
            let begin = Instant::now();
            let Ok(parent) = tree.start_link(SupervisorOptions::new()).await else { panic!("it starts") };
            wait_for(&stage, count).await;
            let started = begin.elapsed();
            let begin = Instant::now();
            // By its parent, in order.
            Process::exit(parent, ExitReason::from("shutdown"));
            let patience = Instant::now();
            while stage.running.load(Ordering::Relaxed) > 0 {
                if patience.elapsed() > Duration::from_secs(20) {
                    return (started, Duration::MAX);
                }
                tokio::task::yield_now().await;
            }
            (started, begin.elapsed())
        })
        .await
    }
}

/// What OTP itself takes for the same, in nanoseconds, where `escript` is.
fn otp() -> Option<[Duration; 3]> {
    let script = std::env::temp_dir().join(format!("supervision-{}.escript", std::process::id()));
    std::fs::write(&script, include_str!("otp.escript")).ok()?;
    let arguments = [SUPERVISORS.to_string(), RESTARTS.to_string(), MANY.to_string()];
    let output = Command::new("escript").arg(&script).args(arguments).output();
    drop(std::fs::remove_file(&script));
    let output = output.ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    let mut numbers = text.split_whitespace().map(|word| word.parse().map(Duration::from_nanos));
    Some([numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?])
}

/// As a task, for all sides alike: what waits outside of the tasks pays for parking the thread each time.
fn on_one_thread<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let Ok(tokio) = tokio::runtime::Builder::new_current_thread().enable_time().build() else {
        panic!("tokio starts")
    };
    match tokio.block_on(async { tokio::spawn(work).await }) {
        Ok(value) => value,
        Err(error) => panic!("{error}"),
    }
}

/// All samples of one figure, of one side.
#[derive(Default)]
struct Samples(Vec<f64>);

impl Samples {
    fn push(&mut self, took: Duration, times: usize) {
        self.0.push(took.as_nanos() as f64 / times as f64);
        self.0.sort_by(f64::total_cmp);
    }

    /// In nanoseconds; `at` is from 0 to 1.
    fn at(&self, at: f64) -> f64 {
        let place = (self.0.len().saturating_sub(1)) as f64 * at;
        self.0.get(place.round() as usize).copied().unwrap_or_default()
    }

    fn median(&self) -> f64 {
        self.at(0.5)
    }
}

const SIDES: [&str; 8] = [
    "backplane-supervisor",
    "hydra",
    "kameo",
    "ractor-supervisor",
    "Erlang/OTP",
    "no supervisor",
    "hydra, waiting",
    "by hand",
];

fn restarts(side: usize) -> Duration {
    match side {
        0 => on_one_thread(ours::restarts()),
        1 => on_one_thread(with_hydra::restarts()),
        2 => on_one_thread(with_kameo::restarts()),
        3 => on_one_thread(with_ractor::restarts()),
        7 => on_one_thread(by_hand::restarts()),
        _ => on_one_thread(bare::restarts()),
    }
}

fn many(side: usize, count: usize) -> (Duration, Duration) {
    match side {
        0 => on_one_thread(ours::many(count)),
        1 => on_one_thread(with_hydra::many(count, false)),
        6 => on_one_thread(with_hydra::many(count, true)),
        2 => on_one_thread(with_kameo::many(count)),
        3 => on_one_thread(with_ractor::many(count)),
        7 => on_one_thread(by_hand::many(count)),
        _ => on_one_thread(bare::many(count)),
    }
}

fn main() {
    // For a profiler: one side, so many times. With rounds, the medians of a start and a stop.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [side, what, count, rounds @ ..] = &arguments[..] {
        let side = SIDES.iter().position(|name| name.starts_with(&**side)).unwrap_or(0);
        let count = count.parse().unwrap_or(1);
        if let Some(rounds) = rounds.first().and_then(|rounds| rounds.parse().ok()) {
            let mut took: [Samples; 2] = Default::default();
            for _ in 0..rounds {
                let (start, stop) = many(side, count);
                took[0].push(start, count);
                took[1].push(stop, count);
            }
            println!("start {:.0}, stop {:.0}", took[0].median(), took[1].median());
            return;
        }
        match &**what {
            "restarts" => {
                let took: Duration = (0..count).map(|_| restarts(side)).sum();
                println!("{:?}", took / (RESTARTS * count as u32));
            }
            _ => println!("{:?}", many(side, count)),
        }
        return;
    }

    let mut took: [[Samples; 5]; 8] = Default::default();
    for round in 0..=ROUNDS {
        let forth: Vec<usize> = (0..SIDES.len()).filter(|side| *side != 4).collect();
        let sides: Vec<usize> = if round % 2 == 0 { forth } else { forth.into_iter().rev().collect() };
        for side in sides {
            // A restart is the same to both sides of Hydra's.
            let supervisors = if side == 6 { 0 } else { SUPERVISORS };
            let restart: Duration = (0..supervisors).map(|_| restarts(side)).sum();
            let (start, stop) = many(side, MANY);
            // The first round warms up.
            if round > 0 {
                if supervisors > 0 {
                    took[side][0].push(restart, (SUPERVISORS * RESTARTS) as usize);
                }
                took[side][1].push(start, MANY);
                took[side][2].push(stop, MANY);
            }
            if round % 3 == 1 {
                let (start, stop) = many(side, VERY_MANY);
                took[side][3].push(start, VERY_MANY);
                took[side][4].push(stop, VERY_MANY);
            }
        }
        if round % 5 == 1
            && let Some([restart, start, stop]) = otp()
        {
            took[4][0].push(restart, (SUPERVISORS * RESTARTS) as usize);
            took[4][1].push(start, MANY);
            took[4][2].push(stop, MANY);
        }
    }
    let figures = [
        "from a child's end until its successor is ready",
        "start, a child of 10,000",
        "stop, a child of 10,000",
        "start, a child of 100,000",
        "stop, a child of 100,000",
    ];
    for (figure, name) in figures.iter().enumerate() {
        println!("{name}: ns, median (tenth to ninetieth percentile), and how much ours is faster");
        let ours = took[0][figure].median();
        for (side, all) in SIDES.iter().zip(&took) {
            let all = &all[figure];
            if !all.0.is_empty() {
                let (median, low, high) = (all.median(), all.at(0.1), all.at(0.9));
                println!("  {side:22} {median:>8.0} ({low:>5.0} to {high:>5.0})  {:>6.2}", median / ours);
            }
        }
    }

    println!("ours, by the number of children: ns to start, to stop, each");
    for count in [1_000, 10_000, 100_000, 1_000_000] {
        let (start, stop) = many(0, count);
        let each = |took: Duration| took.as_nanos() as usize / count;
        println!("  {count:>7} {:>6} {:>6}", each(start), each(stop));
    }
    println!("one dynamic child more started and removed, beside so many others: ns");
    for count in [10, 10_000, 1_000_000] {
        println!("  {count:>7} {:>6}", on_one_thread(ours::one_more(count)).as_nanos());
    }
}
