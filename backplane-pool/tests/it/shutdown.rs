//! How a pool ends.

use std::{
    convert::Infallible,
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use backplane::{Device, LinkMode};
use backplane_pool::{Handle, JoinError, Pool, TaskName, Unfinished};
use futures_lite::future::yield_now;

use crate::support::{Drops, pool, then, two_nodes};

const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_shutdown_lets_tasks_end_and_what_they_spawn_as_well() {
    let pool = pool(2);
    let (send, receive) = mpsc::channel();
    for at in 0..100 {
        let (send, handle) = (send.clone(), pool.handle());
        pool.spawn(async move {
            async_io::Timer::after(Duration::from_millis(2)).await;
            let last = handle.spawn(async move {
                yield_now().await;
                at
            });
            send.send(last.await.unwrap()).unwrap();
        })
        .detach();
    }
    drop(send);
    let handle = pool.handle();
    let begin = Instant::now();
    pool.shutdown(LONG).unwrap();
    assert!(begin.elapsed() < LONG);
    let mut all: Vec<i32> = receive.iter().collect();
    all.sort_unstable();
    assert!(all.into_iter().eq(0..100));
    assert!(matches!(futures_lite::future::block_on(handle.spawn(async {})), Err(JoinError::Cancelled)));
}

#[test]
fn while_a_pool_drains_its_tasks_may_spawn_on_another_node_and_others_may_not() {
    let (pool, (tell, told)) = (two_nodes(), mpsc::channel());
    let handle = pool.handle();
    let task = async move {
        let outsider = || {
            let handle = handle.clone();
            std::thread::spawn(move || futures_lite::future::block_on(handle.spawn(async {})).is_ok())
        };
        while outsider().join().unwrap() {
            yield_now().await;
        }
        let there = handle.clone();
        let near = handle.spawn_on(7, async move { there.current_node() }).unwrap();
        tell.send(near.await.ok()).unwrap();
    };
    pool.spawn_on(0, task).unwrap().detach();
    pool.shutdown(LONG).unwrap();
    assert_eq!(told.recv(), Ok(Some(Some(7))));
}

#[test]
fn a_shutdown_names_what_waited_and_what_ran_and_drops_both() {
    let pool = pool(2);
    let (drops, _dropped) = Drops::new();
    let guard = drops.guard();
    pool.spawn_named("patient", async move {
        let _guard = guard;
        pending::<()>().await
    })
    .detach();
    let (says, running) = mpsc::channel();
    let guard = drops.guard();
    let busy = pool.spawn_named("restless", async move {
        let _guard = guard;
        says.send(()).unwrap();
        loop {
            yield_now().await;
        }
    });
    running.recv().unwrap();
    busy.detach();
    let unfinished = pool.shutdown(Duration::from_millis(5)).unwrap_err();
    assert!(unfinished.stuck.is_empty(), "{unfinished}");
    let mut names: Vec<_> =
        unfinished.waiting.iter().chain(&unfinished.running).map(|task| task.name()).collect();
    names.sort_unstable();
    assert_eq!(names, ["patient", "restless"]);
    assert!(unfinished.waiting.iter().any(|task| task.name() == "patient"));
    assert_eq!(drops.count(), 2);
}

#[test]
fn a_shutdown_does_not_wait_for_a_task_that_is_stuck_and_names_it() {
    let pool = pool(1);
    let (drops, dropped) = Drops::new();
    let (says, running) = mpsc::channel();
    let (let_go, wait) = mpsc::channel::<()>();
    let guard = drops.guard();
    pool.spawn_named("stuck", async move {
        let _guard = guard;
        says.send(()).unwrap();
        wait.recv().unwrap();
    })
    .detach();
    running.recv().unwrap();
    let unfinished = pool.shutdown(Duration::ZERO).unwrap_err();
    assert_eq!(unfinished.stuck[0].name(), "stuck");
    assert!(unfinished.to_string().contains("; stuck: stuck ("), "{unfinished}");
    assert_eq!(drops.count(), 0);
    let_go.send(()).unwrap();
    dropped.recv().unwrap();
}

#[test]
fn a_shutdown_names_tasks_that_nobody_named_even_those_that_never_had_a_turn() {
    async fn waits() {
        pending::<()>().await
    }
    async fn never_polled(_guard: crate::support::Dropped) {
        unreachable!("somebody is before it")
    }
    async fn keeps(says: mpsc::Sender<()>, handle: backplane_pool::Handle) {
        says.send(()).unwrap();
        until_tasks_are_dropped(&handle);
    }
    let pool = pool(1);
    let (drops, dropped) = Drops::new();
    let (says, running) = mpsc::channel();
    pool.spawn(waits()).detach();
    pool.spawn(keeps(says, pool.handle())).detach();
    running.recv().unwrap();
    (0..3).for_each(|_| pool.spawn(never_polled(drops.guard())).detach());
    assert!(pool.tasks() >= 5);
    let unfinished = pool.shutdown(Duration::ZERO).unwrap_err();
    assert_eq!(drops.count(), 3);
    drop(dropped);
    let waiting: Vec<_> = unfinished.waiting.iter().map(|task| task.name()).collect();
    assert_eq!(waiting.iter().filter(|name| name.contains("::never_polled")).count(), 3, "{unfinished}");
    assert_eq!(waiting.iter().filter(|name| name.contains("::waits")).count(), 1, "{unfinished}");
    assert!(unfinished.waiting.iter().all(|task| task.spawned_at().file().ends_with("shutdown.rs")));
}

#[test]
fn dropping_a_pool_drops_its_tasks_on_its_own_threads() {
    let pool = Pool::builder().workers(2).thread_name("own").build().unwrap();
    let (drops, dropped) = Drops::new();
    for at in 0..100 {
        let guard = drops.guard();
        let task = async move {
            let _guard = guard;
            if at % 2 == 0 {
                yield_now().await;
            }
            pending::<()>().await
        };
        pool.spawn(task).detach();
    }
    let guards: Vec<_> = (0..10).map(|_| drops.guard()).collect();
    for guard in guards {
        pool.spawn_local(move || async move {
            let _both = (guard, std::rc::Rc::new(()));
            pending::<()>().await
        })
        .detach();
    }
    drop(pool);
    assert_eq!(drops.count(), 110);
    drop(drops);
    assert!(dropped.iter().all(|(_, name)| name.is_some_and(|name| name.starts_with("own-"))));
}

#[test]
fn whoever_awaits_a_task_of_a_pool_that_ends_hears_that_it_was_cancelled() {
    let pool = pool(1);
    let task = pool.spawn(pending::<()>());
    drop(pool);
    assert!(matches!(futures_lite::future::block_on(task), Err(JoinError::Cancelled)));
}

#[test]
fn what_is_spawned_by_a_destructor_while_the_pool_ends_is_cancelled() {
    let pool = pool(1);
    let (send, receive) = mpsc::channel();
    struct Spawns(backplane_pool::Handle, mpsc::Sender<backplane_pool::Task<()>>);
    impl Drop for Spawns {
        fn drop(&mut self) {
            drop(self.1.send(self.0.spawn(pending())));
        }
    }
    let spawns = Spawns(pool.handle(), send);
    pool.spawn(async move {
        let _spawns = spawns;
        pending::<()>().await
    })
    .detach();
    drop(pool);
    let task = receive.recv().unwrap();
    assert!(matches!(futures_lite::future::block_on(task), Err(JoinError::Cancelled)));
}

#[test]
fn a_pool_may_be_dropped_by_one_of_its_own_tasks() {
    let pool = pool(2);
    let (drops, dropped) = Drops::new();
    let guard = drops.guard();
    pool.spawn(async move {
        let _guard = guard;
        pending::<()>().await
    })
    .detach();
    let handle = pool.handle();
    handle.spawn(async move { drop(pool) }).detach();
    dropped.recv().unwrap();
}

#[test]
fn pools_come_and_go_while_tasks_of_others_wake_theirs() {
    let steady = two_nodes();
    for _ in 0..50 {
        let passing = pool(2);
        let (send, receive) = async_channel::bounded::<u32>(1);
        let there = passing.spawn(async move { receive.recv().await });
        let here = steady.spawn(async move { send.send(1).await });
        steady.block_on(here).unwrap().unwrap();
        assert_eq!(steady.block_on(there).unwrap(), Ok(1));
        let (send, receive) = async_channel::bounded::<u32>(1);
        passing.spawn(async move { receive.recv().await }).detach();
        let wakes = steady.spawn(async move { send.send(1).await });
        drop(passing);
        // It was heard, or its hearer was gone.
        let _ = steady.block_on(wakes).unwrap();
    }
}

#[test]
fn an_idle_pool_ends_at_once_and_so_does_one_that_was_never_used() {
    pool(2).shutdown(LONG).unwrap();
    drop(pool(2));
    let used = pool(2);
    used.block_on(used.spawn(async {})).unwrap();
    used.shutdown(Duration::ZERO).unwrap();
}

/// Starts again whatever has ended, and waits for nothing else: such a one must meet its own end all the same.
#[test]
fn who_starts_again_what_ended_with_the_pool_ends_with_it() {
    for (spawner, home) in [(0, 0), (0, 7)] {
        let pool = two_nodes();
        let (says, starts) = mpsc::channel();
        let home = pool.on_node(home).unwrap();
        let keep = async move {
            says.send(()).unwrap();
            until_tasks_are_dropped(&home);
            let mut keeper = Device::new();
            loop {
                let device = Device::new();
                keeper.link(&device, LinkMode::Monitor);
                home.spawn(device.manage(pending::<Result<(), Infallible>>())).detach();
                let _ = says.send(());
                keeper.receive().await;
            }
        };
        pool.on_node(spawner).unwrap().spawn(keep).detach();
        starts.recv().unwrap();
        drop(pool);
        assert!(starts.iter().count() < 100);
    }
}

#[test]
fn who_blocks_on_a_task_that_no_pool_takes_hears_that_it_was_cancelled() {
    let (pool, gone) = (pool(1), pool(1).handle());
    let asks = pool.spawn(async move { futures_lite::future::block_on(gone.spawn(async {})) });
    assert!(matches!(pool.block_on(asks).unwrap(), Err(JoinError::Cancelled)));
}

/// Says that it runs, keeps its worker as long as it is told to, and waits from then on.
async fn keeps_then_waits(says: mpsc::Sender<()>, keep: impl FnOnce()) {
    says.send(()).unwrap();
    keep();
    pending::<()>().await
}

/// Until tasks are dropped: not even from within is a task taken any more.
fn until_tasks_are_dropped(pool: &Handle) {
    while !pool.spawn(async {}).is_finished() {
        std::thread::yield_now();
    }
}

fn names(tasks: &[TaskName]) -> Vec<&str> {
    tasks.iter().map(TaskName::name).collect()
}

fn count(unfinished: &Unfinished) -> (usize, usize, usize) {
    (unfinished.waiting.len(), unfinished.running.len(), unfinished.stuck.len())
}

#[test]
fn who_waits_is_named_though_another_of_its_kind_is_in_its_first_poll() {
    let (pool, (says, runs)) = (pool(1), mpsc::channel());
    let (let_go, wait) = mpsc::channel::<()>();
    let mut keep = Some(wait);
    for _ in 0..2 {
        // The second one keeps its worker, from the same place in the source.
        let wait = if pool.tasks() == 0 { None } else { keep.take() };
        let keep = move || {
            let _ = wait.map(|wait| wait.recv());
        };
        pool.spawn(keeps_then_waits(says.clone(), keep)).detach();
        runs.recv().unwrap();
    }
    let unfinished = pool.shutdown(Duration::ZERO).unwrap_err();
    assert_eq!(count(&unfinished), (1, 1, 1), "{unfinished}");
    drop(let_go);
}

#[test]
fn who_comes_back_from_its_first_poll_too_late_is_named_once() {
    let (pool, (says, runs)) = (pool(1), mpsc::channel());
    let handle = pool.handle();
    // While it blocks, its worker begins to drop tasks, and writes down no more of them.
    let blocks = move || {
        handle.block_on(async {
            while !handle.spawn(pending::<()>()).is_finished() {
                yield_now().await;
            }
            yield_now().await;
        });
    };
    pool.spawn(keeps_then_waits(says, blocks)).detach();
    runs.recv().unwrap();
    let handle = pool.handle();
    let unfinished = pool.shutdown(Duration::ZERO).unwrap_err();
    assert_eq!(handle.tasks(), 0, "and is dropped all the same");
    let all: Vec<_> = [&unfinished.waiting, &unfinished.running].map(|tasks| names(tasks)).concat();
    let its = all.iter().filter(|name| name.contains("::keeps_then_waits")).count();
    assert_eq!(its, 1, "{unfinished}");
}

#[test]
fn who_blocks_its_worker_is_named() {
    for named in [false, true] {
        let (pool, (says, runs)) = (pool(1), mpsc::channel());
        let (let_go, wait) = async_channel::bounded::<()>(1);
        let handle = pool.handle();
        let task = keeps_then_waits(says, move || {
            let _ = handle.block_on(wait.recv());
        });
        if named {
            pool.spawn_named("blocks", task).detach()
        } else {
            pool.spawn(task).detach()
        }
        runs.recv().unwrap();
        // Something runs meanwhile.
        pool.block_on(pool.spawn(async {})).unwrap();
        let unfinished = pool.shutdown(Duration::ZERO).unwrap_err();
        assert_eq!(count(&unfinished), (0, 1, 1), "{unfinished}");
        assert_eq!(names(&unfinished.running), names(&unfinished.stuck));
        assert!(unfinished.stuck[0].name().contains(if named { "blocks" } else { "::keeps_then_waits" }));
        drop(let_go);
    }
}

#[test]
fn who_has_not_had_a_turn_behind_one_that_is_stuck_is_named() {
    async fn never_polled() {}
    let (pool, (says, runs)) = (pool(1), mpsc::channel());
    let (let_go, wait) = mpsc::channel::<()>();
    let handle = pool.handle();
    let stuck = async move {
        (0..2).for_each(|_| handle.spawn(never_polled()).detach());
        says.send(()).unwrap();
        let _ = wait.recv();
    };
    pool.spawn_named("stuck", stuck).detach();
    runs.recv().unwrap();
    pool.spawn(never_polled()).detach();
    pool.spawn_local(never_polled).detach();
    let handle = pool.handle();
    let unfinished = pool.shutdown(Duration::ZERO).unwrap_err();
    let unpolled =
        names(&unfinished.waiting).into_iter().filter(|name| name.contains("::never_polled")).count();
    assert_eq!((unpolled, count(&unfinished)), (4, (4, 1, 1)), "{unfinished}");
    assert_eq!(handle.tasks(), 5);
    drop(let_go);
    // And they are still there for their worker to drop.
    while handle.tasks() > 0 {
        std::thread::yield_now();
    }
}

#[test]
fn who_does_not_come_back_from_its_destructor_is_stuck() {
    let (pool, (says, runs)) = (pool(1), mpsc::channel());
    let (let_go, wait) = mpsc::channel::<()>();
    let stuck = then(move || {
        let _ = wait.recv();
    });
    let task = keeps_then_waits(says, || ());
    pool.spawn_named("stuck", async move {
        let _stuck = stuck;
        task.await
    })
    .detach();
    runs.recv().unwrap();
    let unfinished = pool.shutdown(Duration::ZERO).unwrap_err();
    assert_eq!(names(&unfinished.stuck), ["stuck"], "{unfinished}");
    drop(let_go);
}

#[test]
fn what_one_that_is_stuck_has_spawned_is_dropped_by_others() {
    let (pool, (says, runs)) = (pool(2), mpsc::channel());
    let (drops, _dropped) = Drops::new();
    let (let_go, wait) = mpsc::channel::<()>();
    let (handle, guard, waits) = (pool.handle(), drops.guard(), Arc::new(AtomicBool::new(false)));
    let stuck = async move {
        let says_so = Arc::clone(&waits);
        let waiting = async move {
            let _guard = guard;
            says_so.store(true, Ordering::Relaxed);
            pending::<()>().await
        };
        handle.spawn(waiting).detach();
        while !waits.load(Ordering::Relaxed) || handle.task_names().len() < 2 {
            yield_now().await;
        }
        says.send(()).unwrap();
        let _ = wait.recv();
    };
    pool.spawn_named("stuck", stuck).detach();
    runs.recv().unwrap();
    let unfinished = pool.shutdown(Duration::ZERO).unwrap_err();
    // Its worker may not be done with it at the deadline.
    assert_eq!(unfinished.waiting.len() + unfinished.running.len(), 2, "{unfinished}");
    assert_eq!(names(&unfinished.stuck), ["stuck"]);
    assert_eq!(drops.count(), 1);
    drop(let_go);
}

#[test]
fn a_shutdown_does_not_wait_for_a_hook_that_does_not_come_back() {
    let (let_go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let pool = Pool::builder().workers(1).on_stop(move |_| drop(wait.lock().map(|wait| wait.recv()))).build();
    pool.unwrap().shutdown(Duration::ZERO).unwrap();
    drop(let_go);
}
