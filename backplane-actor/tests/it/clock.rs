//! The task that looks after deadlines may be dropped by its executor at any time: the next one takes over.

use std::{
    future::Future,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use backplane::Runtime;
use backplane_actor::{CallError, DEFAULT_CALL_TIME, Options, Reply, System};

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs nothing by itself, and has a clock that is set by hand.
#[derive(Clone)]
struct ByHand(Arc<Mutex<(Instant, Vec<Task>)>>, Arc<AtomicBool>);

struct Sleep(ByHand, Instant);

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if self.0.now() >= self.1 { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Runtime for ByHand {
    type Task = ();
    type Sleep = Sleep;

    fn spawn<F: Future<Output = ()> + Send + 'static>(&self, future: F) {
        self.0.lock().unwrap().1.push(Box::pin(future));
    }

    fn detach(&self, (): ()) {}

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        Sleep(self.clone(), deadline)
    }

    fn now(&self) -> Instant {
        assert!(!self.1.load(Ordering::Relaxed), "the clock is broken");
        self.0.lock().unwrap().0
    }
}

fn every_call_ends_in_time_though_the_clocks_task_is_dropped(was_polled: bool) {
    let runtime = ByHand(Arc::new(Mutex::new((Instant::now(), Vec::new()))), Arc::default());
    let system = System::new(runtime.clone());
    let mut cx = Context::from_waker(Waker::noop());
    let tasks = || mem::take(&mut runtime.0.lock().unwrap().1);
    let [(before, _one), (between, _two), (after, _three)] =
        [(); 3].map(|()| system.prepare::<Reply<()>>(Options::new()));

    let mut before = pin!(before.ask(|reply| reply));
    assert!(before.as_mut().poll(&mut cx).is_pending());
    let mut clock = tasks();
    if was_polled {
        assert!(clock[0].as_mut().poll(&mut cx).is_pending());
    }
    let mut between = pin!(between.ask(|reply| reply));
    assert!(between.as_mut().poll(&mut cx).is_pending());
    drop(clock);
    let mut after = pin!(after.ask(|reply| reply));
    assert!(after.as_mut().poll(&mut cx).is_pending());

    let mut clock = tasks();
    assert_eq!(clock.len(), 1, "the call starts the next one");
    assert!(clock[0].as_mut().poll(&mut cx).is_pending());
    runtime.0.lock().unwrap().0 += DEFAULT_CALL_TIME + Duration::from_millis(1);
    assert!(clock[0].as_mut().poll(&mut cx).is_pending());
    for call in [before, between, after] {
        assert_eq!(call.poll(&mut cx), Poll::Ready(Err(CallError::TimedOut)));
    }
}

#[test]
fn every_call_ends_in_time_though_the_clocks_task_was_dropped() {
    every_call_ends_in_time_though_the_clocks_task_is_dropped(true);
}

#[test]
fn every_call_ends_in_time_though_the_clocks_task_was_dropped_unpolled() {
    every_call_ends_in_time_though_the_clocks_task_is_dropped(false);
}

#[test]
fn every_call_ends_in_time_though_the_runtimes_clock_has_panicked() {
    let runtime = ByHand(Arc::new(Mutex::new((Instant::now(), Vec::new()))), Arc::default());
    let system = System::new(runtime.clone());
    let mut cx = Context::from_waker(Waker::noop());
    let tasks = || mem::take(&mut runtime.0.lock().unwrap().1);
    let [(before, _one), (after, _two)] = [(); 2].map(|()| system.prepare::<Reply<()>>(Options::new()));

    let mut before = pin!(before.ask(|reply| reply));
    assert!(before.as_mut().poll(&mut cx).is_pending());
    let mut clock = tasks();
    runtime.1.store(true, Ordering::Relaxed);
    assert!(catch_unwind(AssertUnwindSafe(|| clock[0].as_mut().poll(&mut cx).is_ready())).is_err());
    runtime.1.store(false, Ordering::Relaxed);
    drop(clock);

    let mut after = pin!(after.ask(|reply| reply));
    assert!(after.as_mut().poll(&mut cx).is_pending());
    let mut clock = tasks();
    assert!(clock[0].as_mut().poll(&mut cx).is_pending());
    runtime.0.lock().unwrap().0 += DEFAULT_CALL_TIME + Duration::from_millis(1);
    assert!(clock[0].as_mut().poll(&mut cx).is_pending());
    for call in [before, after] {
        assert_eq!(call.poll(&mut cx), Poll::Ready(Err(CallError::TimedOut)));
    }
}
