//! What holds for every runtime: tasks end with their handles, and time does not come early.

use std::{future::pending, sync::Arc, time::Duration};

use backplane::{
    Device, Exit, LinkMode, Message, Runtime,
    runtime::{Smol, Tokio},
};
use backplane_pool::{Pinning, Pool, Topology};
use backplane_tests::{gate::Gate, seeded::Seeded, threads::Threads};

/// Runs for real, so it is as short as a timer's grain allows.
const WHILE: Duration = Duration::from_millis(15);

struct Opens(Gate);

impl Drop for Opens {
    fn drop(&mut self) {
        self.0.open();
    }
}

/// The whole of what is asked of a [`Runtime`].
async fn keeps_its_word(runtime: &impl Runtime) {
    a_moment_is_not_over_before_it_has_come(runtime).await;
    a_moment_that_is_past_is_not_waited_for(runtime).await;
    a_task_runs_without_being_asked(runtime).await;
    a_dropped_task_drops_its_future(runtime).await;
    a_detached_task_runs_on(runtime).await;
    a_sleep_can_be_given_up(runtime).await;
    a_device_ends_on_time(runtime).await;
}

async fn a_moment_is_not_over_before_it_has_come(runtime: &impl Runtime) {
    let deadline = runtime.now() + WHILE;
    runtime.sleep_until(deadline).await;
    assert!(runtime.now() >= deadline);
}

async fn a_moment_that_is_past_is_not_waited_for(runtime: &impl Runtime) {
    let now = runtime.now();
    runtime.sleep_until(now).await;
    if let Some(past) = now.checked_sub(WHILE) {
        runtime.sleep_until(past).await;
    }
}

async fn a_task_runs_without_being_asked(runtime: &impl Runtime) {
    let gate = Gate::new();
    let opens = gate.clone();
    let _task = runtime.spawn(async move { opens.open() });
    gate.await;
}

async fn a_dropped_task_drops_its_future(runtime: &impl Runtime) {
    let (started, dropped) = (Gate::new(), Gate::new());
    let (starts, opens) = (started.clone(), Opens(dropped.clone()));
    let task = runtime.spawn(async move {
        let _opens = opens;
        starts.open();
        pending().await
    });
    started.await;
    assert!(!dropped.is_open());
    drop(task);
    dropped.await;
}

async fn a_detached_task_runs_on(runtime: &impl Runtime) {
    let (go, gone) = (Gate::new(), Gate::new());
    let (waits, opens) = (go.clone(), gone.clone());
    runtime.detach(runtime.spawn(async move {
        waits.await;
        opens.open();
    }));
    go.open();
    gone.await;
}

async fn a_sleep_can_be_given_up(runtime: &impl Runtime) {
    let (started, over) = (Gate::new(), Gate::new());
    let (starts, opens) = (started.clone(), Opens(over.clone()));
    let sleep = runtime.sleep_until(runtime.now() + Duration::from_secs(86_400));
    let task = runtime.spawn(async move {
        let _opens = opens;
        starts.open();
        sleep.await;
    });
    started.await;
    drop(task);
    over.await;
}

/// A managed future that sleeps, and whoever watches it.
async fn a_device_ends_on_time(runtime: &impl Runtime) {
    let (mut watcher, device) = (Device::new(), Device::new());
    watcher.link(&device, LinkMode::Monitor);
    let deadline = runtime.now() + WHILE;
    let sleep = runtime.sleep_until(deadline);
    let _task = runtime.spawn(async move {
        let managed = device.manage(async {
            sleep.await;
            Ok::<_, std::convert::Infallible>(())
        });
        drop(managed.await);
    });
    let Message::Disconnect(news) = watcher.receive().await else { panic!("nobody asks us to stop") };
    assert_eq!(news.exit, Exit::Normal);
    assert!(runtime.now() >= deadline);
}

#[test]
fn smol_keeps_its_word() {
    smol::block_on(keeps_its_word(&Smol::global()));
}

#[test]
fn an_executor_of_ones_own_keeps_its_word() {
    let executor = Arc::new(smol::Executor::new());
    let runtime = Smol::new(Arc::clone(&executor));
    smol::block_on(executor.run(keeps_its_word(&runtime)));
}

#[test]
fn the_pool_keeps_its_word_and_so_does_each_of_its_nodes() {
    let nodes = Topology::from_nodes([(0, [0, 1]), (1, [2, 3])]);
    let pool = Pool::builder().topology(nodes).pinning(Pinning::None).build().expect("the pool starts");
    pool.block_on(keeps_its_word(&pool));
    for node in [0, 1] {
        let near = pool.on_node(node).expect("it has workers");
        pool.block_on(keeps_its_word(&near));
        let inside = near.clone();
        pool.block_on(near.spawn(async move { keeps_its_word(&inside).await })).expect("from inside as well");
    }
}

#[test]
fn tokio_keeps_its_word() {
    let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build();
    let one = tokio::runtime::Builder::new_current_thread().enable_time().build();
    for tokio in [threads, one] {
        let tokio = tokio.expect("tokio starts");
        tokio.block_on(keeps_its_word(&Tokio::new(tokio.handle().clone())));
    }
}

#[test]
fn a_thread_for_each_future_keeps_its_word() {
    smol::block_on(keeps_its_word(&Threads));
}

#[test]
fn a_seeded_runtime_keeps_its_word_in_any_order() {
    for seed in 0..100 {
        let runtime = Seeded::new(seed);
        runtime.run(keeps_its_word(&runtime));
    }
}
