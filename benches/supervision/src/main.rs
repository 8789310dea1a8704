//! How long it takes from a child's end until its successor is ready, and to start and stop many children: here, in three
//! peers, and in OTP where Erlang is installed. All on one thread of tokio, in one run, interleaved; medians are printed.
//!
//! The children do as little as they can: they say that they run, wait for a word, and end in peace, which a permanent child
//! may not. So no panic is unwound in any of them.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

const RESTARTS: u32 = 2_000;
const ROUNDS: usize = 7;
const MANY: usize = 10_000;

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
async fn clock(stage: &Stage) -> Duration {
    stage.ready.notified().await;
    let begin = Instant::now();
    for _ in 0..RESTARTS {
        stage.end.notify_one();
        stage.ready.notified().await;
    }
    begin.elapsed() / RESTARTS
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
        let took = clock(&stage).await;
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
        stage.ready.notified().await;
        let begin = Instant::now();
        for _ in 0..RESTARTS {
            drop(child.tell(End).await);
            stage.ready.notified().await;
        }
        let took = begin.elapsed() / RESTARTS;
        drop(parent.stop_gracefully().await);
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
        drop(parent.stop_gracefully().await);
        parent.wait_for_shutdown().await;
        wait_for(&stage, 0).await;
        (started, begin.elapsed())
    }
}

mod with_ractor {
    use super::*;
    use futures_util::FutureExt;
    use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr};
    use ractor_supervisor::{
        ChildSpec, Restart, SpawnFn, Supervisor, SupervisorArguments, SupervisorOptions, SupervisorStrategy,
    };

    struct Child(Arc<Stage>);

    #[ractor::async_trait]
    impl Actor for Child {
        type Msg = ();
        type State = Present;
        type Arguments = ();

        async fn pre_start(&self, myself: ActorRef<()>, (): ()) -> Result<Present, ActorProcessingErr> {
            let stage = Arc::clone(&self.0);
            // Whoever ends it has to know it: a name would be slower still.
            tokio::spawn(async move {
                stage.end.notified().await;
                myself.stop(None);
            });
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
        watched: bool,
        above: ActorCell,
        id: String,
    ) -> Result<ActorCell, SpawnErr> {
        if watched {
            let (child, _) = Supervisor::spawn_linked(id, Child(stage), (), above).await?;
            Ok(child.get_cell())
        } else {
            let (child, _) = Supervisor::spawn_linked(id, Quiet(stage), (), above).await?;
            Ok(child.get_cell())
        }
    }

    fn arguments(stage: &Arc<Stage>, count: usize, watched: bool) -> SupervisorArguments {
        let specs = (0..count).map(|n| {
            let stage = Arc::clone(stage);
            ChildSpec {
                id: format!("child-{n}"),
                restart: Restart::Permanent,
                spawn_fn: SpawnFn::new(move |above, id| {
                    spawn(Arc::clone(&stage), watched, above, id).boxed()
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
        let Ok((parent, task)) = Supervisor::spawn("parent".into(), arguments(&stage, 1, true)).await else {
            panic!("it starts")
        };
        let took = clock(&stage).await;
        parent.stop(None);
        drop(task.await);
        stage.end.notify_one();
        took
    }

    pub(super) async fn many(count: usize) -> (Duration, Duration) {
        let stage = Arc::new(Stage::default());
        let begin = Instant::now();
        let Ok((parent, task)) = Supervisor::spawn("parent".into(), arguments(&stage, count, false)).await
        else {
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

    fn spec(stage: &Arc<Stage>, n: usize) -> ChildSpec {
        let stage = Arc::clone(stage);
        ChildSpec::new(format!("child-{n}")).start(move || {
            let stage = Arc::clone(&stage);
            async move {
                Ok(Process::spawn_link(async move {
                    let _present = Present::new(&stage);
                    life(Arc::clone(&stage)).await;
                }))
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
            let tree = Supervisor::with_children([spec(&stage, 0)])
                .max_restarts(usize::MAX)
                .max_duration(Duration::from_millis(1));
            let Ok(parent) = tree.start(SupervisorOptions::new()).await else { panic!("it starts") };
            let took = clock(&stage).await;
            Process::exit(parent, ExitReason::Kill);
            stage.end.notify_one();
            took
        })
        .await
    }

    pub(super) async fn many(count: usize) -> (Duration, Duration) {
        let stage = Arc::new(Stage::default());
        inside(async move {
            Process::set_flags(ProcessFlags::TRAP_EXIT);
            let tree = Supervisor::with_children((0..count).map(|n| spec(&stage, n)));
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
fn otp(many: usize) -> Option<[u64; 3]> {
    let script = std::env::temp_dir().join(format!("supervision-{}.escript", std::process::id()));
    std::fs::write(&script, include_str!("otp.escript")).ok()?;
    let output = Command::new("escript").arg(&script).args([RESTARTS.to_string(), many.to_string()]).output();
    drop(std::fs::remove_file(&script));
    let output = output.ok().filter(|output| output.status.success())?;
    let mut numbers = String::from_utf8(output.stdout)
        .ok()?
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<Vec<_>, _>>()
        .ok()?;
    numbers.truncate(3);
    numbers.try_into().ok()
}

fn on_one_thread<T>(work: impl Future<Output = T>) -> T {
    let Ok(tokio) = tokio::runtime::Builder::new_current_thread().enable_time().build() else {
        panic!("tokio starts")
    };
    tokio.block_on(work)
}

fn median(mut values: Vec<Duration>) -> Duration {
    values.sort();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn main() {
    let mut restarts: [Vec<Duration>; 5] = Default::default();
    for round in 0..=ROUNDS {
        let otp = otp(1).map(|[restart, ..]| Duration::from_nanos(restart));
        let took = [
            on_one_thread(ours::restarts()),
            on_one_thread(with_kameo::restarts()),
            on_one_thread(with_ractor::restarts()),
            on_one_thread(with_hydra::restarts()),
        ];
        // The first round warms up.
        if round > 0 {
            for (all, one) in restarts.iter_mut().zip(took.into_iter().chain(otp)) {
                all.push(one);
            }
        }
    }
    println!("from a child's end until its successor is ready, median of {ROUNDS} times {RESTARTS}");
    let names = ["backplane-supervisor", "kameo", "ractor-supervisor", "hydra", "Erlang/OTP"];
    let [ours, ..] = &restarts;
    let best = median(ours.clone());
    for (name, all) in names.iter().zip(&restarts) {
        if !all.is_empty() {
            let took = median(all.clone());
            println!("  {name:22} {took:>10.2?}  {:>6.2}", took.as_secs_f64() / best.as_secs_f64());
        }
    }

    println!("{MANY} children under one supervisor: started, and stopped in order, each");
    let mut many: [Vec<(Duration, Duration)>; 5] = Default::default();
    for _ in 0..3 {
        let otp = otp(MANY).map(|[_, start, stop]| (Duration::from_nanos(start), Duration::from_nanos(stop)));
        let took = [
            on_one_thread(ours::many(MANY)),
            on_one_thread(with_kameo::many(MANY)),
            on_one_thread(with_ractor::many(MANY)),
            on_one_thread(with_hydra::many(MANY)),
        ];
        for (all, one) in many.iter_mut().zip(took.into_iter().chain(otp)) {
            all.push(one);
        }
    }
    for (name, all) in names.iter().zip(&many) {
        if !all.is_empty() {
            let start = median(all.iter().map(|one| one.0).collect()) / MANY as u32;
            let stop = median(all.iter().map(|one| one.1).collect()) / MANY as u32;
            println!("  {name:22} {start:>10.2?} {stop:>10.2?}");
        }
    }

    println!("ours, by the number of children: started, stopped, each");
    for count in [1_000, 10_000, 100_000] {
        let (start, stop) = on_one_thread(ours::many(count));
        println!("  {count:>7} {:>10.2?} {:>10.2?}", start / count as u32, stop / count as u32);
    }
    println!("one dynamic child more started and removed, beside so many others");
    for count in [10, 10_000, 1_000_000] {
        println!("  {count:>7} {:>10.2?}", on_one_thread(ours::one_more(count)));
    }
}
