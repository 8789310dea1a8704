//! One thread, and a clock that the test turns.

use std::{
    collections::BTreeMap,
    future::Future,
    mem,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use backplane::Runtime;

/// An executor with virtual time. Clones are the same one.
#[derive(Clone)]
pub(crate) struct World(Arc<Mutex<State>>);

type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

struct State {
    now: Instant,
    next: u64,
    tasks: BTreeMap<u64, Option<Job>>,
    ready: Vec<u64>,
    alarms: BTreeMap<(Instant, u64), Waker>,
}

struct Knock(Weak<Mutex<State>>, u64);

impl Wake for Knock {
    fn wake(self: Arc<Self>) {
        if let Some(state) = self.0.upgrade() {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            if !state.ready.contains(&self.1) {
                state.ready.push(self.1);
            }
        }
    }
}

impl World {
    pub(crate) fn new() -> World {
        let (tasks, alarms) = (BTreeMap::new(), BTreeMap::new());
        World(Arc::new(Mutex::new(State { now: Instant::now(), next: 0, tasks, ready: Vec::new(), alarms })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs until everybody waits. Time stands still.
    pub(crate) fn run(&self) {
        loop {
            let mut state = self.state();
            if state.ready.is_empty() {
                return;
            }
            let name = state.ready.remove(0);
            let Some(job) = state.tasks.get_mut(&name) else { continue };
            let Some(mut job) = job.take() else { continue };
            drop(state);
            let waker = Waker::from(Arc::new(Knock(Arc::downgrade(&self.0), name)));
            let ended = job.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
            let mut state = self.state();
            if ended {
                state.tasks.remove(&name);
            } else if let Some(place) = state.tasks.get_mut(&name) {
                *place = Some(job);
                continue;
            }
            drop(state);
            drop(job);
        }
    }

    /// Lets time pass, stopping wherever somebody waits for.
    pub(crate) fn advance(&self, time: Duration) {
        self.run();
        let until = self.now() + time;
        loop {
            let first =
                self.state().alarms.first_entry().filter(|alarm| alarm.key().0 <= until).map(|alarm| {
                    let moment = alarm.key().0;
                    (moment, alarm.remove())
                });
            let Some((moment, waker)) = first else { break };
            self.set_now(moment);
            waker.wake();
            self.run();
        }
        self.set_now(until);
    }

    fn set_now(&self, moment: Instant) {
        let mut state = self.state();
        state.now = state.now.max(moment);
    }

    /// How many alarms are set.
    pub(crate) fn alarms(&self) -> usize {
        self.state().alarms.len()
    }

    /// Spawns, and lets it run until it ends.
    pub(crate) fn go<F: Future<Output = ()> + Send + 'static>(&self, future: F) {
        let task = self.spawn(future);
        self.detach(task);
    }

    /// Runs a future to its end, letting time pass where everybody waits.
    #[track_caller]
    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        loop {
            if let Poll::Ready(value) = poll(future.as_mut()) {
                return value;
            }
            self.run();
            if let Poll::Ready(value) = poll(future.as_mut()) {
                return value;
            }
            if !self.state().ready.is_empty() {
                continue;
            }
            let first = self.state().alarms.pop_first();
            let Some(((moment, _), waker)) = first else { panic!("everybody waits") };
            self.set_now(moment);
            waker.wake();
        }
    }
}

/// Polls once, with a waker that does nothing.
pub(crate) fn poll<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Counts how often it is woken.
#[derive(Default)]
pub(crate) struct Count(pub(crate) AtomicUsize);

impl Count {
    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Panics when it is woken.
pub(crate) struct Angry;

impl Wake for Angry {
    fn wake(self: Arc<Self>) {
        panic!("angry");
    }
}

/// Runs something when it is woken.
pub(crate) struct OnWake<F>(pub(crate) F);

impl<F: Fn() + Send + Sync> Wake for OnWake<F> {
    fn wake(self: Arc<Self>) {
        (self.0)();
    }
}

pub(crate) struct Task {
    world: World,
    name: u64,
    detached: bool,
}

impl Drop for Task {
    fn drop(&mut self) {
        if !self.detached {
            let job = self.world.state().tasks.remove(&self.name);
            drop(job);
        }
    }
}

pub(crate) struct Sleep {
    world: World,
    deadline: Instant,
    name: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let world = self.world.clone();
        let mut state = world.state();
        if state.now >= self.deadline {
            return Poll::Ready(());
        }
        state.next += 1;
        let name = *self.name.get_or_insert(state.next);
        let before = state.alarms.insert((self.deadline, name), cx.waker().clone());
        drop(state);
        drop(before);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(name) = self.name {
            let alarm = self.world.state().alarms.remove(&(self.deadline, name));
            drop(alarm);
        }
    }
}

impl Runtime for World {
    type Task = Task;
    type Sleep = Sleep;

    fn spawn<F: Future<Output = ()> + Send + 'static>(&self, future: F) -> Task {
        let mut state = self.state();
        state.next += 1;
        let name = state.next;
        state.tasks.insert(name, Some(Box::pin(future)));
        state.ready.push(name);
        Task { world: self.clone(), name, detached: false }
    }

    fn detach(&self, mut task: Task) {
        task.detached = true;
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        Sleep { world: self.clone(), deadline, name: None }
    }

    fn now(&self) -> Instant {
        self.state().now
    }
}

impl Drop for State {
    fn drop(&mut self) {
        drop(mem::take(&mut self.tasks));
    }
}
