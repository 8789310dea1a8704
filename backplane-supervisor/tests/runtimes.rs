//! The same story on each real runtime.

#![allow(clippy::unwrap_used)]

use backplane::{Device, Exit, Runtime};
use backplane_supervisor::{
    ChildSpec, DynamicSupervisor, Event, Intensity, Restart, RestartStrategy, Shutdown, Starting, Supervisor,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A tree with a child that fails a few times, one that takes no notice of a stop, and a pool: restarted, asked, stopped.
async fn story<R: Runtime + Clone>(runtime: R) {
    let runs = Arc::new(AtomicUsize::new(0));
    let (counted, pulse) = (Arc::clone(&runs), runtime.clone());
    let flaky = ChildSpec::starting("flaky", move |device, starting: Starting| {
        let run = counted.fetch_add(1, Ordering::SeqCst);
        let runtime = pulse.clone();
        device.manage(async move {
            drop(starting.done());
            runtime.sleep_until(runtime.now() + Duration::from_millis(1)).await;
            if run < 5 { Err::<(), _>(()) } else { std::future::pending().await }
        })
    });
    let mule = ChildSpec::new("mule", |mut device: Device| async move {
        loop {
            drop(device.receive().await);
        }
    })
    .shutdown(Shutdown::Timeout(Duration::from_millis(20)));
    let pool = ChildSpec::supervisor("pool", || {
        DynamicSupervisor::new(|device, n: u32| {
            device.manage(async move { if n == 0 { Err::<(), _>(()) } else { std::future::pending().await } })
        })
        .restart(Restart::Temporary)
        .greet(|handle| (0..100).for_each(|n| drop(handle.start_child(n))))
    });
    let tree = Supervisor::new(RestartStrategy::OneForOne)
        .intensity(Intensity { restarts: 10, period: Duration::from_secs(60) })
        .child(flaky)
        .child(mule)
        .child(pool);
    let handle = tree.start(runtime.clone()).await.unwrap();
    let mut reports = handle.reports(1000);
    while runs.load(Ordering::SeqCst) < 6 {
        runtime.sleep_until(runtime.now() + Duration::from_millis(1)).await;
    }
    assert_eq!(handle.count_children().await.unwrap().specs, 3);
    let stopped = handle.stop(Exit::Shutdown).await.unwrap();
    assert_eq!(stopped.killed.len(), 1, "{:?}", stopped.killed);
    assert_eq!(stopped.killed[0].path, "root/mule");
    assert!(!handle.line().is_alive());
    let mut last = None;
    while let Some(report) = reports.next().await {
        last = Some(report);
    }
    assert_eq!(last.unwrap().event, Event::Finished(Exit::Shutdown));
}

#[test]
fn on_smol() {
    smol::block_on(story(backplane::runtime::Smol::global()));
}

#[test]
fn on_a_smol_executor_of_ones_own() {
    let executor = Arc::new(smol::Executor::new());
    smol::block_on(executor.run(story(backplane::runtime::Smol::new(Arc::clone(&executor)))));
}

#[test]
fn on_tokio() {
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    tokio.block_on(story(backplane::runtime::Tokio::new(tokio.handle().clone())));
}

#[test]
fn on_one_thread_of_tokio() {
    let tokio = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    tokio.block_on(story(backplane::runtime::Tokio::new(tokio.handle().clone())));
}
