//! Tasks that block their thread on other tasks.

use std::{
    future::{pending, poll_fn},
    sync::{Arc, OnceLock, mpsc},
    task::Poll,
    thread,
    time::Duration,
};

use backplane_pool::{Handle, Pool};
use futures_lite::future::yield_now;

use crate::support::{pool, then};

#[test]
fn a_task_may_block_on_another_even_on_the_only_worker() {
    let pool = pool(1);
    let handle = pool.handle();
    let task = pool.spawn(async move {
        let inner = handle.spawn(async { 1 });
        handle.block_on(inner).unwrap() + 1
    });
    assert_eq!(pool.block_on(task).unwrap(), 2);
}

fn deeper(handle: Handle, depth: u32) -> u32 {
    if depth == 0 {
        return 0;
    }
    let inner = handle.clone();
    let task = handle.spawn(async move { deeper(inner, depth - 1) });
    handle.block_on(task).unwrap() + 1
}

#[test]
fn blocking_may_be_nested_as_deep_as_the_stack_is() {
    let pool = pool(1);
    let handle = pool.handle();
    assert_eq!(pool.block_on(pool.spawn(async move { deeper(handle, 50) })).unwrap(), 50);
}

#[test]
fn while_a_task_blocks_the_others_are_woken_and_run() {
    let pool = pool(1);
    let (send, receive) = async_channel::bounded::<u32>(1);
    let (answer, answered) = async_channel::bounded::<u32>(1);
    pool.spawn(async move {
        while let Ok(n) = receive.recv().await {
            answer.send(n + 1).await.unwrap();
        }
    })
    .detach();
    let handle = pool.handle();
    let task = pool.spawn(async move {
        handle.block_on(async {
            let mut sum = 0;
            for n in 0..100 {
                send.send(n).await.unwrap();
                sum += answered.recv().await.unwrap();
            }
            sum
        })
    });
    assert_eq!(pool.block_on(task).unwrap(), 5050);
}

#[test]
fn timers_and_outside_wakes_reach_a_task_that_blocks() {
    let pool = pool(1);
    let handle = pool.handle();
    let (send, receive) = async_channel::bounded::<u32>(1);
    let (says, blocks) = mpsc::channel();
    let task = pool.spawn(async move {
        handle.block_on(async {
            async_io::Timer::after(Duration::from_millis(1)).await;
            says.send(()).unwrap();
            receive.recv().await.unwrap()
        })
    });
    blocks.recv().unwrap();
    send.send_blocking(9).unwrap();
    assert_eq!(pool.block_on(task).unwrap(), 9);
    assert_eq!(pool.block_on(pool.spawn(async { 1 })).unwrap(), 1, "and the worker goes on afterwards");
}

#[test]
fn a_stranger_that_blocks_a_worker_does_not_keep_what_waits_behind_it() {
    // Not ours to block on, so the worker runs nothing meanwhile; what it had to run next is taken by the other one.
    let pool = pool(2);
    let handle = pool.handle();
    let task = pool.spawn(async move {
        let inner = handle.spawn(async { 1 });
        futures_lite::future::block_on(inner).unwrap()
    });
    assert_eq!(pool.block_on(task).unwrap(), 1);
}

#[test]
fn a_panic_in_what_a_task_blocks_on_is_that_tasks() {
    let pool = pool(1);
    let handle = pool.handle();
    let task = pool.spawn(async move { handle.block_on(async { panic!("inside") }) });
    assert!(pool.block_on::<_>(task).map(|(): ()| ()).is_err());
    assert_eq!(pool.block_on(pool.spawn(async { 1 })).unwrap(), 1);
}

#[test]
fn what_runs_while_a_future_that_no_pool_takes_is_dropped_is_counted() {
    let (pool, gone) = (pool(1), pool(1).handle());
    let handle = pool.handle();
    let task = pool.spawn(async move {
        let blocks = then(move || assert_eq!(handle.block_on(handle.spawn(async { 3 })).unwrap(), 3));
        assert!(gone.spawn(async move { drop(blocks) }).await.is_err());
    });
    pool.block_on(task).unwrap();
    assert_eq!(pool.tasks(), 0);
}

#[test]
fn who_has_blocked_and_then_waits_is_listed_by_its_own_name() {
    async fn meanwhile() {}
    async fn blocks_and_waits(handle: Handle) {
        handle.block_on(handle.spawn(meanwhile())).unwrap();
        pending::<()>().await
    }
    let pool = pool(1);
    pool.spawn(blocks_and_waits(pool.handle())).detach();
    let names = loop {
        let names = pool.task_names();
        if !names.is_empty() {
            break names;
        }
        thread::yield_now();
    };
    assert!(matches!(&names[..], [name] if name.name().contains("::blocks_and_waits")), "{names:?}");
    let unfinished = pool.shutdown(Duration::ZERO).unwrap_err();
    assert_eq!(unfinished.waiting, names);
}

#[test]
fn whoever_blocks_a_worker_when_all_tasks_are_gone_waits_alone() {
    let (place, (send, ended)) = (Arc::new(OnceLock::<Handle>::new()), mpsc::channel());
    let handle = Arc::clone(&place);
    let pool = Pool::builder().workers(1).on_stop(move |_| {
        let waits = async {
            yield_now().await;
            4
        };
        send.send(handle.get().map(|handle| handle.block_on(waits))).unwrap();
    });
    let pool = pool.build().unwrap();
    place.set(pool.handle()).unwrap();
    drop(pool);
    assert_eq!(ended.recv(), Ok(Some(4)));
}

#[test]
fn what_a_worker_was_woken_for_does_not_wait_for_the_one_that_it_blocks_on() {
    let pool = pool(2);
    let (says, blocks) = mpsc::channel();
    let (send, receive) = mpsc::channel();
    let handle = pool.handle();
    let task = pool.spawn(async move {
        let here = usize::from(thread::current().name() == Some("pool-1"));
        let mut polls = 0;
        handle.block_on(poll_fn(|cx| {
            polls += 1;
            if polls > 1 {
                // Woken for another task: that one has to run elsewhere.
                return Poll::Ready(receive.recv().unwrap());
            }
            // So that this worker is the last to fall asleep, and the first to be woken.
            while handle.counters()[1 - here].parks == 0 {
                thread::yield_now();
            }
            says.send((cx.waker().clone(), here, handle.counters()[here].parks)).unwrap();
            Poll::Pending
        }))
    });
    let (waker, there, parks) = blocks.recv().unwrap();
    while pool.counters()[there].parks == parks {
        thread::yield_now();
    }
    pool.spawn(async move {
        send.send(5).unwrap();
        waker.wake();
    })
    .detach();
    assert_eq!(pool.block_on(task).unwrap(), 5);
}
