//! Nobody is starved, and what each worker did is counted.

use std::{
    future::{Future, poll_fn},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    task::Poll,
    time::Duration,
};

use async_io::{Async, Timer};
use backplane_pool::give_way;
use futures_lite::{AsyncReadExt, AsyncWriteExt, future::yield_now};

use crate::support::pool;

/// Asks for another turn, again and again, until it is told to stop.
async fn always_ready(stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        yield_now().await;
    }
}

#[test]
fn a_task_that_is_always_ready_starves_neither_its_neighbours_nor_timers_nor_sockets_nor_outsiders() {
    let pool = pool(1);
    let stop = Arc::new(AtomicBool::new(false));
    let restless: Vec<_> = (0..3).map(|_| pool.spawn(always_ready(Arc::clone(&stop)))).collect();
    let neighbour = pool.spawn(async { 1 });
    assert_eq!(pool.block_on(neighbour).unwrap(), 1);
    let timer = pool.spawn(async { Timer::after(Duration::from_millis(1)).await });
    pool.block_on(timer).unwrap();
    let socket = pool.spawn(async {
        let listener = Async::<std::net::TcpListener>::bind(([127, 0, 0, 1], 0))?;
        let address = listener.get_ref().local_addr()?;
        let mut client = Async::<std::net::TcpStream>::connect(address).await?;
        let (mut server, _) = listener.accept().await?;
        let mut buffer = [0; 5];
        for _ in 0..20 {
            client.write_all(b"hello").await?;
            server.read_exact(&mut buffer).await?;
        }
        std::io::Result::Ok(buffer)
    });
    assert_eq!(&pool.block_on(socket).unwrap().unwrap(), b"hello");
    stop.store(true, Ordering::Relaxed);
    restless.into_iter().for_each(|task| pool.block_on(task).unwrap());
}

#[test]
fn two_tasks_that_wake_each_other_for_ever_let_the_others_run() {
    let pool = pool(1);
    let (there, here) = (async_channel::bounded::<()>(1), async_channel::bounded::<()>(1));
    let pair = |send: async_channel::Sender<()>, receive: async_channel::Receiver<()>| async move {
        while receive.recv().await.is_ok() {
            if send.send(()).await.is_err() {
                break;
            }
        }
    };
    let one = pool.spawn(pair(there.0.clone(), here.1.clone()));
    let other = pool.spawn(pair(here.0, there.1));
    there.0.send_blocking(()).unwrap();
    let handle = pool.handle();
    // From outside, and from inside, where it has to wait behind the two.
    let third = pool.spawn(async move {
        for _ in 0..100 {
            yield_now().await;
        }
        handle.spawn(async { 3 }).await.unwrap()
    });
    assert_eq!(pool.block_on(third).unwrap(), 3);
    drop((one, other));
}

#[test]
fn local_tasks_and_others_do_not_starve_each_other() {
    for local in [false, true] {
        let pool = pool(1);
        let stop = Arc::new(AtomicBool::new(false));
        let ready = || always_ready(Arc::clone(&stop));
        let restless: Vec<_> = (0..3)
            .map(|_| {
                let ready = ready();
                if local { pool.spawn_local(|| ready) } else { pool.spawn(ready) }
            })
            .collect();
        let handle = pool.handle();
        let both = async move {
            for _ in 0..100 {
                yield_now().await;
            }
            handle.spawn_local(|| async { 1 }).await.unwrap() + handle.spawn(async { 2 }).await.unwrap()
        };
        let both = if local { pool.spawn(both) } else { pool.spawn_local(|| both) };
        assert_eq!(pool.block_on(both).unwrap(), 3);
        stop.store(true, Ordering::Relaxed);
        restless.into_iter().for_each(|task| pool.block_on(task).unwrap());
    }
}

#[test]
fn what_was_woken_runs_next_but_not_for_ever() {
    // One worker, all spawned by one task: the order is the scheduler's alone.
    let pool = pool(1);
    let handle = pool.handle();
    let order = pool.spawn(async move {
        let (send, order) = mpsc::channel();
        let runs = Arc::new(AtomicUsize::new(0));
        let waits = send.clone();
        let waiting = handle.spawn(async move { waits.send(usize::MAX).unwrap() });
        // Each link of the chain spawns the next one, which would be next for ever.
        fn chain(handle: backplane_pool::Handle, runs: Arc<AtomicUsize>, send: mpsc::Sender<usize>) {
            let run = runs.fetch_add(1, Ordering::Relaxed);
            send.send(run).unwrap();
            if run < 200 {
                let next = handle.clone();
                handle.spawn(async move { chain(next, runs, send) }).detach();
            }
        }
        let links = handle.clone();
        handle.spawn(async move { chain(links, runs, send) }).detach();
        waiting.await.unwrap();
        while handle.tasks() > 1 {
            yield_now().await;
        }
        order.try_iter().collect::<Vec<_>>()
    });
    let order = pool.block_on(order).unwrap();
    let at = order.iter().position(|run| *run == usize::MAX).unwrap();
    assert!((1..=20).contains(&at), "it ran after {at} of 201");
    assert_eq!(order.len(), 202);
}

#[test]
fn counters_add_up() {
    let pool = pool(2);
    for _ in 0..100 {
        pool.block_on(pool.spawn(async {
            yield_now().await;
        }))
        .unwrap();
    }
    let counters = pool.counters();
    assert_eq!(counters.len(), 2);
    assert_eq!(counters.iter().map(|worker| worker.polls).sum::<u64>(), 200);
    assert_eq!(counters.iter().map(|worker| worker.from_outside).sum::<u64>(), 100);
    assert_eq!(counters.iter().map(|worker| worker.off_node_polls).sum::<u64>(), 0);
    assert!(counters.iter().all(|worker| worker.wakes <= worker.parks + 1), "{counters:?}");
}

#[test]
fn only_who_runs_because_of_the_task_before_is_counted_as_next() {
    let pool = pool(1);
    let next = || pool.counters()[0].next;
    pool.block_on(pool.spawn(async {
        for _ in 0..5 {
            yield_now().await;
        }
    }))
    .unwrap();
    pool.block_on(pool.spawn_local(yield_now)).unwrap();
    assert_eq!((pool.counters()[0].polls, next()), (8, 0));
    let handle = pool.handle();
    pool.block_on(pool.spawn(async move { handle.spawn(async {}).await })).unwrap().unwrap();
    assert_eq!((pool.counters()[0].polls, next()), (11, 2), "the child was next, and then who awaits it");
}

#[test]
fn local_tasks_that_are_spawned_or_woken_outside_are_counted_as_from_there() {
    let pool = pool(1);
    let from_outside = || pool.counters()[0].from_outside;
    let (send, receive) = async_channel::bounded::<()>(1);
    let (says, starts) = mpsc::channel();
    let waits = pool.spawn_local(move || async move {
        says.send(()).unwrap();
        receive.recv().await
    });
    starts.recv().unwrap();
    assert_eq!(from_outside(), 1);
    // It waits by then, and is woken here.
    pool.block_on(pool.spawn(async {})).unwrap();
    assert_eq!(from_outside(), 2);
    send.send_blocking(()).unwrap();
    pool.block_on(waits).unwrap().unwrap();
    assert_eq!(from_outside(), 3);
}

#[test]
fn who_sleeps_has_fallen_asleep_and_how_long_it_slept_is_known_when_it_wakes() {
    let pool = pool(1);
    let parks = |times| {
        while pool.counters()[0].parks < times {
            std::thread::yield_now();
        }
        pool.counters()[0].clone()
    };
    let first = parks(1);
    assert_eq!((first.parks, first.wakes, first.parked), (1, 0, Duration::ZERO));
    pool.block_on(pool.spawn(async {})).unwrap();
    let second = parks(2);
    assert_eq!((second.parks, second.wakes), (2, 1));
    assert!(second.parked > Duration::ZERO);
}

#[test]
fn idle_workers_take_work_from_busy_ones() {
    let pool = pool(2);
    let handle = pool.handle();
    // Each waits for the other: only two threads at a time can pass.
    let both = Arc::new(std::sync::Barrier::new(2));
    let task = pool.spawn(async move {
        let other = Arc::clone(&both);
        let tasks: Vec<_> = (0..2).map(|_| handle.spawn(async {})).collect();
        let meets = handle.spawn(async move { other.wait().is_leader() });
        let last = handle.spawn(async {});
        let leads = both.wait().is_leader();
        for task in tasks {
            task.await.unwrap();
        }
        last.await.unwrap();
        leads ^ meets.await.unwrap()
    });
    assert!(pool.block_on(task).unwrap());
    assert!(pool.counters().iter().map(|worker| worker.steals).sum::<u64>() > 0);
}

#[test]
fn what_runs_next_is_taken_from_a_worker_that_is_stuck() {
    // Spawned last, it lies where the worker itself would take it next; and the worker waits for it, in its poll.
    let pool = pool(2);
    let handle = pool.handle();
    let task = pool.spawn(async move {
        let (send, receive) = mpsc::channel();
        handle.spawn(async move { send.send(4).unwrap() }).detach();
        receive.recv().unwrap()
    });
    assert_eq!(pool.block_on(task).unwrap(), 4);
}

#[test]
fn a_poll_that_is_ready_at_once_costs_one_poll() {
    let pool = pool(1);
    let mut first = true;
    let task = pool.spawn(poll_fn(move |cx| {
        if std::mem::take(&mut first) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    }));
    pool.block_on(task).unwrap();
    assert_eq!(pool.counters()[0].polls, 2);
}

#[test]
fn a_task_that_awaits_a_hundred_is_not_woken_by_each_of_them() {
    let pool = pool(1);
    let handle = pool.handle();
    let joins = pool.spawn(async move {
        let tasks: Vec<_> = (0..100).map(|_| handle.spawn(async {})).collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    pool.block_on(joins).unwrap();
    let polls = pool.counters()[0].polls;
    // Each of the hundred once, and the one that awaits them; it was two hundred.
    assert!((101..=125).contains(&polls), "{polls} polls");
}

#[test]
fn who_gives_way_goes_on_when_those_who_waited_have_run() {
    for pinned in [false, true] {
        let pool = pool(1);
        let handle = pool.handle();
        let ran = Arc::new(AtomicUsize::new(0));
        let story = move |count: usize| async move {
            let others: Vec<_> = (0..count)
                .map(|_| {
                    let ran = Arc::clone(&ran);
                    handle.spawn(async move { ran.fetch_add(1, Ordering::Relaxed) })
                })
                .collect();
            let gave = give_way().await;
            let ran = ran.load(Ordering::Relaxed);
            for other in others {
                other.await.unwrap();
            }
            // Once it knows that nobody is there.
            (gave, ran, give_way().await)
        };
        let task = if pinned { pool.spawn_local(move || story(3)) } else { pool.spawn(story(3)) };
        let (gave, ran, again) = pool.block_on(task).unwrap();
        assert!(gave && !again);
        // Pinned tasks and others take turns.
        assert!(if pinned { ran > 0 } else { ran == 3 }, "{ran}");
    }
}

#[test]
fn alone_or_outside_a_pool_nobody_gives_way() {
    let pool = pool(1);
    let alone = pool.spawn(async {
        let mut polls = 0;
        let mut gives = std::pin::pin!(give_way());
        let gave = poll_fn(|cx| {
            polls += 1;
            gives.as_mut().poll(cx)
        })
        .await;
        (gave, polls)
    });
    assert_eq!(pool.block_on(alone).unwrap(), (false, 1));
    assert!(!futures_lite::future::block_on(give_way()));
}
