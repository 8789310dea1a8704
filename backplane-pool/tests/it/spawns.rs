//! Tasks that run, and what becomes of what they return.

use std::{
    cell::Cell,
    collections::BTreeSet,
    env,
    future::{pending, poll_fn},
    process,
    rc::Rc,
    sync::mpsc,
    task::{Poll, Waker},
    thread,
};

use backplane::Device;
use backplane_pool::{JoinError, Pool};
use futures_lite::future::yield_now;

use crate::support::{Drops, pool, two_nodes};

#[test]
fn a_task_runs_without_being_awaited() {
    let pool = pool(1);
    let (send, receive) = mpsc::channel();
    let _task = pool.spawn(async move { send.send(1) });
    assert_eq!(receive.recv(), Ok(1));
}

#[test]
fn a_task_gives_what_its_future_returned_whether_awaited_inside_or_outside() {
    let pool = pool(2);
    let handle = pool.handle();
    let outer = pool.spawn(async move {
        let inner = handle.spawn(async { 20 });
        inner.await.unwrap() + 1
    });
    assert_eq!(pool.block_on(outer).unwrap(), 21);
    assert_eq!(futures_lite::future::block_on(pool.spawn(async { 22 })).unwrap(), 22);
}

#[test]
fn every_one_of_many_tasks_runs_once_wherever_it_was_spawned() {
    let pool = pool(2);
    let (send, receive) = mpsc::channel();
    for at in 0..1000 {
        let (handle, send) = (pool.handle(), send.clone());
        pool.spawn(async move {
            send.send(at * 2).unwrap();
            handle.spawn(async move { send.send(at * 2 + 1).unwrap() }).detach();
        })
        .detach();
    }
    drop(send);
    let mut all: Vec<usize> = receive.iter().collect();
    all.sort_unstable();
    assert!(all.iter().copied().eq(0..2000));
}

#[test]
fn several_pools_live_side_by_side_and_their_tasks_stay_with_their_own_threads() {
    let named = |name: &str| Pool::builder().workers(1).thread_name(name).build().unwrap();
    let (left, right) = (named("left"), named("right"));
    let (to_right, from_left) = async_channel::bounded::<Option<String>>(1);
    let (to_left, from_right) = async_channel::bounded::<Option<String>>(1);
    let here = || thread::current().name().map(String::from);
    // Each wakes the other a hundred times.
    let one = left.spawn(async move {
        for _ in 0..100 {
            to_right.send(here()).await.unwrap();
            assert_eq!(from_right.recv().await.unwrap().as_deref(), Some("right-0"));
            assert_eq!(here().as_deref(), Some("left-0"));
        }
    });
    let other = right.spawn(async move {
        while let Ok(from) = from_left.recv().await {
            assert_eq!(from.as_deref(), Some("left-0"));
            to_left.send(here()).await.unwrap();
        }
    });
    left.block_on(one).unwrap();
    left.block_on(other).unwrap();
}

#[test]
fn a_dropped_task_is_cancelled_and_its_future_is_dropped_on_the_pool() {
    let pool = Pool::builder().workers(1).thread_name("mine").build().unwrap();
    let (drops, dropped) = Drops::new();
    let (send, started) = mpsc::channel();
    let guard = drops.guard();
    let task = pool.spawn(async move {
        let _guard = guard;
        send.send(()).unwrap();
        pending::<()>().await
    });
    started.recv().unwrap();
    assert_eq!(drops.count(), 0);
    drop(task);
    assert_eq!(dropped.recv().unwrap().1.as_deref(), Some("mine-0"));
}

#[test]
fn a_task_cancelled_before_its_first_poll_is_never_polled() {
    let pool = pool(1);
    let (entered, wait) = mpsc::channel::<()>();
    let (says, busy) = mpsc::channel();
    let blocker = pool.spawn(async move {
        says.send(()).unwrap();
        wait.recv().unwrap();
    });
    busy.recv().unwrap();
    let (drops, _dropped) = Drops::new();
    let guard = drops.guard();
    let task = pool.spawn(async move {
        let _guard = guard;
        unreachable!("it was cancelled");
    });
    let cancelled = task.cancel();
    let mut cancelled = Box::pin(cancelled);
    assert!(futures_lite::future::block_on(futures_lite::future::poll_once(&mut cancelled)).is_none());
    entered.send(()).unwrap();
    let ended: Option<Result<(), _>> = pool.block_on(cancelled);
    assert!(ended.is_none());
    assert_eq!(drops.count(), 1);
    pool.block_on(blocker).unwrap();
}

#[test]
fn cancelling_waits_until_the_future_is_gone_and_a_finished_task_keeps_its_value() {
    let pool = pool(1);
    let (drops, _dropped) = Drops::new();
    let guard = drops.guard();
    let task = pool.spawn(async move {
        let _guard = guard;
        pending::<()>().await
    });
    assert!(pool.block_on(task.cancel()).is_none());
    assert_eq!(drops.count(), 1);

    let task = pool.spawn(async { 5 });
    pool.block_on(async {
        while !task.is_finished() {
            yield_now().await;
        }
    });
    assert_eq!(pool.block_on(task.cancel()).unwrap().unwrap(), 5);
}

#[test]
fn a_running_task_that_is_cancelled_is_dropped_after_its_poll() {
    let pool = pool(1);
    let (drops, dropped) = Drops::new();
    let (says, running) = mpsc::channel();
    let (go, wait) = mpsc::channel::<()>();
    let guard = drops.guard();
    let task = pool.spawn(async move {
        let _guard = guard;
        says.send(()).unwrap();
        wait.recv().unwrap();
        yield_now().await;
        unreachable!("it was cancelled meanwhile");
    });
    running.recv().unwrap();
    drop(task);
    assert_eq!(drops.count(), 0);
    go.send(()).unwrap();
    dropped.recv().unwrap();
}

#[test]
fn a_wake_while_it_runs_gives_a_task_another_poll() {
    let pool = pool(1);
    let mut polls = 0;
    let task = pool.spawn(poll_fn(move |cx| {
        polls += 1;
        cx.waker().wake_by_ref();
        cx.waker().wake_by_ref();
        if polls < 10 { Poll::Pending } else { Poll::Ready(polls) }
    }));
    assert_eq!(pool.block_on(task).unwrap(), 10);
}

#[test]
fn a_wake_after_the_end_is_nothing_even_when_the_pool_is_gone() {
    let pool = pool(2);
    let (send, wakers) = mpsc::channel::<Waker>();
    let task = pool.spawn(poll_fn(move |cx| {
        send.send(cx.waker().clone()).unwrap();
        Poll::Ready(())
    }));
    pool.block_on(task).unwrap();
    let waker = wakers.recv().unwrap();
    waker.wake_by_ref();
    let before: u64 = pool.counters().iter().map(|worker| worker.polls).sum();
    pool.block_on(pool.spawn(async {})).unwrap();
    assert_eq!(pool.counters().iter().map(|worker| worker.polls).sum::<u64>(), before + 1);
    drop(pool);
    waker.wake();
}

#[test]
fn a_panic_is_a_value_and_its_worker_lives_on() {
    let pool = pool(1);
    let task = pool.spawn(async {
        yield_now().await;
        panic!("out of {}", "beans");
    });
    let ended: Result<(), _> = pool.block_on(task);
    let Err(JoinError::Panicked(panic)) = ended else { panic!() };
    assert_eq!(panic.message(), Some("out of beans"));
    for _ in 0..10 {
        pool.spawn(async { panic!("nobody hears") as u32 }).detach();
    }
    assert_eq!(pool.block_on(pool.spawn(async { 3 })).unwrap(), 3);
}

/// Panics when dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !thread::panicking() {
            panic!("dropped");
        }
    }
}

#[test]
fn a_panic_in_a_futures_destructor_is_its_tasks_panic() {
    let pool = pool(1);
    struct Destructor(Bomb);
    impl Future for Destructor {
        type Output = u32;
        fn poll(self: std::pin::Pin<&mut Self>, _: &mut std::task::Context<'_>) -> Poll<u32> {
            let _ = &self.0;
            Poll::Ready(1)
        }
    }
    let Err(JoinError::Panicked(panic)) = pool.block_on(pool.spawn(Destructor(Bomb))) else { panic!() };
    assert_eq!(panic.message(), Some("dropped"));
}

#[test]
fn panics_that_nobody_can_hear_are_counted_and_take_no_worker_along() {
    let pool = pool(1);
    // One whose value explodes when it is thrown away, and one that explodes when it is cancelled.
    let (go, wait) = async_channel::bounded::<()>(1);
    pool.spawn(async move {
        wait.recv().await.unwrap();
        Bomb
    })
    .detach();
    go.send_blocking(()).unwrap();
    let (send, started) = mpsc::channel();
    let task = pool.spawn(async move {
        let _bomb = Bomb;
        send.send(()).unwrap();
        pending::<()>().await
    });
    started.recv().unwrap();
    drop(pool.block_on(task.cancel()));
    assert_eq!(pool.block_on(pool.spawn(async { 3 })).unwrap(), 3);
    assert_eq!(pool.counters()[0].lost_panics, 2);
    assert_eq!(pool.tasks(), 0);
}

#[test]
fn what_no_pool_takes_hides_no_panic_and_its_own_is_nobody_s() {
    let (pool, gone) = (pool(1), pool(1).handle());
    let handle = pool.handle();
    let ends_so = |with_its_own: bool| {
        let (handle, gone) = (handle.clone(), gone.clone());
        async move {
            if with_its_own {
                let untaken = handle.spawn(async { Bomb });
                while !untaken.is_finished() {
                    yield_now().await;
                }
                drop(untaken);
            }
            let bomb = Bomb;
            drop(gone.spawn(async move { drop(bomb) }));
        }
    };
    pool.block_on(pool.spawn(ends_so(false))).unwrap();
    pool.block_on(pool.spawn(async {})).unwrap();
    assert_eq!(pool.counters()[0].lost_panics, 0);
    pool.block_on(pool.spawn(ends_so(true))).unwrap();
    pool.block_on(pool.spawn(async {})).unwrap();
    assert_eq!(pool.counters()[0].lost_panics, 1);
}

#[test]
fn a_local_future_is_made_run_and_dropped_on_one_thread() {
    let pool = pool(2);
    for _ in 0..50 {
        let (drops, dropped) = Drops::new();
        let guard = drops.guard();
        let task = pool.spawn_local(move || async move {
            let _guard = guard;
            let (here, count) = (thread::current().id(), Rc::new(Cell::new(0)));
            for _ in 0..10 {
                yield_now().await;
                count.set(count.get() + 1);
                assert_eq!(thread::current().id(), here);
            }
            (here, count.get())
        });
        let (here, count) = pool.block_on(task).unwrap();
        assert_eq!(count, 10);
        assert_eq!(dropped.recv().unwrap().0, here);
    }
    assert_eq!(pool.tasks(), 0);
}

#[test]
fn a_local_future_is_woken_from_anywhere_and_cancelled_from_anywhere() {
    let pool = pool(2);
    let (drops, dropped) = Drops::new();
    let (send, receive) = async_channel::bounded::<u32>(1);
    let (made, place) = mpsc::channel();
    let guard = drops.guard();
    let task = pool.spawn_local(move || {
        made.send(thread::current().id()).unwrap();
        let (guard, luggage) = (guard, Rc::new(()));
        async move {
            let _both = (guard, luggage);
            let mut sum = 0;
            while let Ok(n) = receive.recv().await {
                sum += n;
            }
            sum
        }
    });
    let place = place.recv().unwrap();
    for n in 0..100 {
        // From outside, and from workers that may be others.
        if n % 2 == 0 {
            send.send_blocking(n).unwrap();
        } else {
            let send = send.clone();
            pool.block_on(pool.spawn(async move { send.send(n).await })).unwrap().unwrap();
        }
    }
    drop(task);
    assert_eq!(dropped.recv().unwrap().0, place);
}

#[test]
fn a_local_future_is_gone_when_its_cancellation_says_so() {
    let pool = pool(2);
    let (drops, _dropped) = Drops::new();
    for cancelled in 1..=100 {
        let (guard, (made, place)) = (drops.guard(), mpsc::channel());
        let task = pool.spawn_local(move || async move {
            let _guard = guard;
            made.send(()).unwrap();
            pending::<()>().await;
        });
        place.recv().unwrap();
        assert!(pool.block_on(task.cancel()).is_none());
        assert_eq!(drops.count(), cancelled);
    }
}

#[test]
fn a_panic_while_a_local_future_is_made_or_run_is_a_value() {
    let pool = pool(1);
    let make = || -> std::future::Ready<u32> { panic!("not made") };
    let Err(JoinError::Panicked(panic)) = pool.block_on(pool.spawn_local(make)) else { panic!() };
    assert_eq!(panic.message(), Some("not made"));
    let run = || async { panic!("not run") as u32 };
    let Err(JoinError::Panicked(panic)) = pool.block_on(pool.spawn_local(run)) else { panic!() };
    assert_eq!(panic.message(), Some("not run"));
    let both = pool.spawn_local(|| async { Cell::new(1) });
    assert_eq!(pool.block_on(both).unwrap().get(), 1);
}

#[test]
fn a_local_future_stays_on_the_worker_that_spawned_it() {
    let pool = two_nodes();
    let handle = pool.handle();
    let task = pool.spawn(async move {
        let here = thread::current().id();
        let local = handle.spawn_local(|| async { thread::current().id() });
        (here, local.await.unwrap())
    });
    let (here, there) = pool.block_on(task).unwrap();
    assert_eq!(here, there);
}

#[test]
fn a_blocking_closure_runs_elsewhere_and_its_panic_is_a_value() {
    let pool = pool(1);
    let handle = pool.handle();
    let task = pool.spawn(async move {
        let here = thread::current().id();
        let there = handle.spawn_blocking(move || thread::current().id()).await.unwrap();
        here != there
    });
    assert!(pool.block_on(task).unwrap());
    let task = pool.spawn_blocking(|| panic!("blocked") as u32);
    let Err(JoinError::Panicked(panic)) = pool.block_on(task) else { panic!() };
    assert_eq!(panic.message(), Some("blocked"));
}

#[test]
fn a_device_that_has_settled_has_its_neighbours_near() {
    let pool = two_nodes();
    let device = Device::new();
    for node in [7, 0, 7] {
        let (near, line) = (pool.on_node(node).unwrap(), device.line());
        let settled = pool.spawn_on(node, async move { near.settle(&line) }).unwrap();
        assert_eq!(pool.block_on(settled).unwrap(), Some(node));
        for _ in 0..20 {
            let handle = pool.handle();
            let neighbour = pool.spawn_near(&device.line(), async move { handle.current_node() });
            assert_eq!(pool.block_on(neighbour).unwrap(), Some(node));
        }
    }
    assert_eq!(pool.settle(&device.line()), None, "this thread is on no node");
}

#[test]
fn a_device_that_has_ended_has_no_neighbours_any_more() {
    let (pool, device) = (two_nodes(), Device::new());
    let line = device.line();
    assert_eq!(pool.on_node(7).unwrap().settle(&line), Some(7));
    drop(device);
    let nodes: BTreeSet<_> = (0..8)
        .map(|_| {
            let handle = pool.handle();
            pool.block_on(pool.spawn_near(&line, async move { handle.current_node() })).unwrap()
        })
        .collect();
    assert_eq!(nodes, BTreeSet::from([Some(0), Some(7)]));
}

/// The only test of a process of its own, where one thread is all there is for closures that block.
const ALONE: &str = "BACKPLANE_ALONE";

#[test]
fn a_closure_that_never_ran_may_panic_when_it_is_dropped() {
    if env::var_os(ALONE).is_none() {
        let mut this = process::Command::new(env::current_exe().unwrap());
        this.args(["--exact", "spawns::a_closure_that_never_ran_may_panic_when_it_is_dropped"]);
        let ended = this.env(ALONE, "").env("BLOCKING_MAX_THREADS", "1").output().unwrap();
        return assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    }
    let (pool, (let_go, wait)) = (pool(1), mpsc::channel::<()>());
    let keeps = pool.spawn_blocking(move || wait.recv());
    let bomb = Bomb;
    let never = pool.spawn_blocking(move || drop(bomb));
    let mut cancelled = Box::pin(never.cancel());
    assert!(pool.block_on(futures_lite::future::poll_once(&mut cancelled)).is_none());
    drop(let_go);
    assert!(pool.block_on(cancelled).is_none());
    assert!(pool.block_on(keeps).unwrap().is_err());
    assert_eq!(pool.block_on(pool.spawn_blocking(|| 3)).unwrap(), 3);
}

#[test]
fn who_has_awaited_the_last_task_finds_none_left() {
    let pool = pool(2);
    for _ in 0..20_000 {
        pool.block_on(pool.spawn(async {})).unwrap();
        assert_eq!(pool.tasks(), 0);
        pool.block_on(pool.spawn(yield_now())).unwrap();
        assert_eq!((pool.tasks(), pool.task_names()), (0, vec![]));
    }
}
