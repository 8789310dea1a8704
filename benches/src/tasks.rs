//! One monitored task's life on tokio: it is spawned, it finishes, and whoever watches is told; then the next.
//!
//! On every side a driver that is itself a spawned task does this one life after another. A runtime and whatever lives
//! long (our watching device, the `JoinSet`, the parent actor) are made beforehand, or once a batch.

use std::future::Future;
use std::hint::black_box;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};

use crate::contest::{Goal, Side};

pub mod actors;

/// A runtime's kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavor {
    /// Everything on the thread that blocks.
    CurrentThread,
    /// Two worker threads.
    TwoThreads,
}

fn runtime(flavor: Flavor) -> Runtime {
    let built = match flavor {
        Flavor::CurrentThread => Builder::new_current_thread().build(),
        Flavor::TwoThreads => Builder::new_multi_thread().worker_threads(2).build(),
    };
    built.expect("a runtime can be made")
}

/// A side whose driver runs as a task of its own runtime.
fn on<D, F>(flavor: Flavor, who: &'static str, goal: Goal, driver: D) -> Side
where
    D: Fn(u64) -> F + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let runtime = runtime(flavor);
    Side::timed(who, move |times| {
        let work = driver(times);
        let task = runtime.spawn(async move {
            let start = Instant::now();
            work.await;
            start.elapsed()
        });
        runtime.block_on(task).unwrap_or(Duration::ZERO)
    })
    .goal(goal)
}

/// Ours, then everyone else who tells of a task's end.
pub fn sides(flavor: Flavor) -> Vec<Side> {
    vec![
        on(flavor, "ours", Goal::None, ours::one_by_one),
        on(flavor, "tokio::spawn and await", Goal::Within(1.3), bare),
        on(flavor, "the same, a future as large as ours", Goal::None, bare_large),
        on(flavor, "JoinSet", Goal::Within(1.0), join_set),
        on(flavor, "ractor", Goal::Within(1.0), actors::ractor),
        on(flavor, "kameo", Goal::Within(1.0), actors::kameo),
    ]
}

/// One operation is a thousand tasks at once: all are spawned, then all are heard of.
pub fn sides_at_once(flavor: Flavor) -> Vec<Side> {
    vec![
        on(flavor, "ours", Goal::None, ours::at_once),
        on(flavor, "tokio::spawn and await", Goal::None, bare_at_once),
        on(flavor, "JoinSet", Goal::None, join_set_at_once),
    ]
}

/// So many lives of ours on one thread, where nothing is left to chance: to be counted instead of timed.
pub fn lives(times: u64) {
    runtime(Flavor::CurrentThread).block_on(ours::one_by_one(times));
}

/// The same with tokio's bare tasks.
pub fn bare_lives(times: u64) {
    runtime(Flavor::CurrentThread).block_on(bare(times));
}

/// How many tasks `sides_at_once` has living at one time.
const AT_ONCE: u64 = 1000;

/// The work of every task.
async fn nothing() {}

async fn bare(times: u64) {
    for _ in 0..times {
        tokio::spawn(nothing()).await.expect("the task ends well");
    }
}

/// What of ours is the size of its future, which the runtime allocates and moves. Informs; no goal is measured by it.
async fn bare_large(times: u64) {
    for _ in 0..times {
        let ballast = [1_u64; 17];
        tokio::spawn(async move {
            nothing().await;
            black_box(&ballast);
        })
        .await
        .expect("the task ends well");
    }
}

async fn bare_at_once(times: u64) {
    let mut tasks = Vec::new();
    for _ in 0..times {
        tasks.extend((0..AT_ONCE).map(|_| tokio::spawn(nothing())));
        for task in tasks.drain(..) {
            task.await.expect("the task ends well");
        }
    }
}

async fn join_set(times: u64) {
    let mut set = tokio::task::JoinSet::new();
    for _ in 0..times {
        set.spawn(nothing());
        set.join_next().await.expect("there is a task").expect("the task ends well");
    }
}

async fn join_set_at_once(times: u64) {
    let mut set = tokio::task::JoinSet::new();
    for _ in 0..times {
        for _ in 0..AT_ONCE {
            set.spawn(nothing());
        }
        while let Some(ended) = set.join_next().await {
            ended.expect("the task ends well");
        }
    }
}

mod ours {
    use std::convert::Infallible;

    use backplane::{Device, Exit, LinkMode, Message};

    use super::{AT_ONCE, nothing};

    fn spawn_monitored(watcher: &Device) {
        let device = Device::new();
        watcher.link(&device, LinkMode::Monitor);
        tokio::spawn(device.manage(async {
            nothing().await;
            Ok::<(), Infallible>(())
        }));
    }

    async fn be_told(watcher: &mut Device) {
        let message = watcher.receive().await;
        assert!(matches!(&message, Message::Disconnect(news) if matches!(news.exit, Exit::Normal)));
    }

    pub(super) async fn one_by_one(times: u64) {
        let mut watcher = Device::new();
        for _ in 0..times {
            spawn_monitored(&watcher);
            be_told(&mut watcher).await;
        }
    }

    pub(super) async fn at_once(times: u64) {
        let mut watcher = Device::new();
        for _ in 0..times {
            for _ in 0..AT_ONCE {
                spawn_monitored(&watcher);
            }
            for _ in 0..AT_ONCE {
                be_told(&mut watcher).await;
            }
        }
    }
}
