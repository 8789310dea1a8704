//! Sleeps of a pool.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use backplane::Runtime;
use futures_lite::future::{poll_once, yield_now};

use crate::support::pool;

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Count>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn of_many_sleeps_none_is_early_and_none_is_forgotten() {
    let pool = pool(2);
    let sleeps: Vec<_> = (0..500)
        .map(|at| {
            let handle = pool.handle();
            pool.spawn(async move {
                for n in 0..4 {
                    let deadline = handle.now() + Duration::from_micros((at * 37 + n * 1013) % 5000);
                    handle.sleep_until(deadline).await;
                    assert!(handle.now() >= deadline);
                }
            })
        })
        .collect();
    for sleep in sleeps {
        pool.block_on(sleep).unwrap();
    }
}

#[test]
fn a_sleep_is_not_kept_waiting_by_a_longer_one() {
    let pool = pool(1);
    let mut hour = pin!(pool.sleep_until(Instant::now() + Duration::from_secs(3600)));
    assert!(pool.block_on(poll_once(hour.as_mut())).is_none());
    pool.block_on(pool.sleep_until(Instant::now() + Duration::from_millis(1)));
    // And again, now that the timer has rung.
    pool.block_on(pool.sleep_until(Instant::now() + Duration::from_millis(1)));
    assert!(pool.block_on(poll_once(hour)).is_none());
}

#[test]
fn a_moment_that_has_been_is_not_waited_for() {
    let pool = pool(1);
    assert!(pool.block_on(poll_once(pool.sleep_until(Instant::now()))).is_some());
    let mut over = pool.sleep_until(Instant::now());
    assert!(pool.block_on(poll_once(&mut over)).is_some());
    assert!(pool.block_on(poll_once(&mut over)).is_some());
}

#[test]
fn a_sleep_wakes_whoever_polled_it_last_and_one_that_is_dropped_wakes_nobody() {
    let pool = pool(1);
    let counts = [0; 3].map(|_| Arc::new(Count::default()));
    let [first, last, never] = counts.each_ref().map(|count| Waker::from(Arc::clone(count)));
    let soon = Instant::now() + Duration::from_millis(5);
    let mut moved = pin!(pool.sleep_until(soon));
    assert!(moved.as_mut().poll(&mut Context::from_waker(&first)).is_pending());
    let second = moved.as_mut().poll(&mut Context::from_waker(&last));
    {
        let dropped = pin!(pool.sleep_until(soon));
        let _ = dropped.poll(&mut Context::from_waker(&never));
    }
    pool.block_on(pool.sleep_until(soon + Duration::from_millis(5)));
    assert!(moved.as_mut().poll(&mut Context::from_waker(&first)).is_ready());
    // Unless this thread was held up for so long that the second poll found it over.
    if second.is_pending() {
        assert_eq!(counts.map(|count| count.0.load(Ordering::SeqCst)), [0, 1, 0]);
    }
}

#[test]
fn a_sleep_outlives_its_pool() {
    let sleep = {
        let pool = pool(1);
        pool.sleep_until(Instant::now() + Duration::from_millis(1))
    };
    futures_lite::future::block_on(sleep);
}

#[test]
fn a_task_that_sleeps_can_be_cancelled() {
    let pool = pool(1);
    let handle = pool.handle();
    let task = pool.spawn(async move {
        handle.sleep_until(handle.now() + Duration::from_secs(3600)).await;
    });
    pool.block_on(async {
        yield_now().await;
        assert!(matches!(task.cancel().await, None | Some(Err(_))));
    });
    let mut sleep = pin!(pool.sleep_until(Instant::now() + Duration::from_millis(1)));
    pool.block_on(sleep.as_mut());
    assert_eq!(sleep.poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(()));
}
