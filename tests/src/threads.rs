//! A thread for each future: the plainest executor there is, and a good judge of races.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::Instant,
};

use backplane::Runtime;

/// Gives each future a thread, and each sleep one, too.
#[derive(Clone, Copy, Debug, Default)]
pub struct Threads;

/// A future on its thread. Dropped, it has the thread drop the future as soon as that is not running.
#[derive(Debug)]
pub struct Task {
    thread: Thread,
    cancelled: Option<Arc<AtomicBool>>,
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(cancelled) = &self.cancelled {
            cancelled.store(true, Ordering::Release);
            self.thread.unpark();
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future on this thread. A wake that comes while it runs is not lost: `unpark` leaves a token.
fn run(future: impl Future<Output = ()>, cancelled: &AtomicBool) {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    while !cancelled.load(Ordering::Acquire) {
        if future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            return;
        }
        thread::park();
    }
}

impl Runtime for Threads {
    type Task = Task;
    type Sleep = Sleep;

    fn spawn<F>(&self, future: F) -> Task
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let cancelled = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&cancelled);
        let thread = thread::spawn(move || run(future, &seen)).thread().clone();
        Task { thread, cancelled: Some(cancelled) }
    }

    fn detach(&self, mut task: Task) {
        task.cancelled = None;
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        Sleep { deadline, alarm: None }
    }

    fn now(&self) -> Instant {
        Instant::now()
    }
}

/// Waits for a moment, on a thread that is gone as soon as nobody waits any more.
#[derive(Debug)]
pub struct Sleep {
    deadline: Instant,
    alarm: Option<Alarm>,
}

#[derive(Debug)]
struct Alarm {
    waker: Arc<Mutex<Waker>>,
    /// Its drop tells the thread that nobody waits.
    _waiting: mpsc::Sender<()>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Sleep { deadline, alarm } = &mut *self;
        if let Some(alarm) = alarm {
            // Before the look at the clock: who has gone off by then has left a token or is about to.
            alarm.waker.lock().unwrap_or_else(PoisonError::into_inner).clone_from(cx.waker());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Poll::Ready(());
        }
        if alarm.is_none() {
            let (_waiting, nobody_waits) = mpsc::channel();
            let waker = Arc::new(Mutex::new(cx.waker().clone()));
            let wakes = Arc::clone(&waker);
            thread::spawn(move || {
                if nobody_waits.recv_timeout(left) == Err(mpsc::RecvTimeoutError::Timeout) {
                    wakes.lock().unwrap_or_else(PoisonError::into_inner).wake_by_ref();
                }
            });
            *alarm = Some(Alarm { waker, _waiting });
        }
        Poll::Pending
    }
}
