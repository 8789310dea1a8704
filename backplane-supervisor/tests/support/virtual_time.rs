//! One thread, a clock that stands still until it is moved, and tasks that run in a known order.

use backplane::Runtime;
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

pub type TaskId = u64;

/// The runtime. Clones are the same world.
#[derive(Clone)]
pub struct World(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
}

struct State {
    now: Instant,
    tasks: HashMap<TaskId, Arc<Cell_>>,
    spawned: TaskId,
    ready: VecDeque<TaskId>,
    timers: BTreeMap<(Instant, u64), Waker>,
    timers_set: u64,
    /// Where a scheduler that picks at random is in its sequence.
    random: Option<u64>,
    polls: u64,
}

struct Cell_ {
    id: TaskId,
    world: Weak<Inner>,
    future: Mutex<Option<Job>>,
    queued: AtomicBool,
    cancelled: AtomicBool,
}

thread_local! {
    static CURRENT: Cell<TaskId> = const { Cell::new(0) };
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Wake for Cell_ {
    fn wake(self: Arc<Self>) {
        if let Some(world) = self.world.upgrade()
            && !self.queued.swap(true, Ordering::SeqCst)
        {
            lock(&world.state).ready.push_back(self.id);
        }
    }
}

impl World {
    pub fn new() -> World {
        World(Arc::new(Inner {
            state: Mutex::new(State {
                now: Instant::now(),
                tasks: HashMap::new(),
                spawned: 0,
                ready: VecDeque::new(),
                timers: BTreeMap::new(),
                timers_set: 0,
                random: None,
                polls: 0,
            }),
        }))
    }

    /// Runs tasks in a random order, the same for the same seed.
    pub fn seeded(seed: u64) -> World {
        let world = World::new();
        lock(&world.0.state).random = Some(seed);
        world
    }

    /// How many tasks there are.
    pub fn tasks(&self) -> usize {
        lock(&self.0.state).tasks.len()
    }

    /// How often a task has been polled.
    pub fn polls(&self) -> u64 {
        lock(&self.0.state).polls
    }

    /// The task that was spawned last.
    pub fn last_spawned(&self) -> TaskId {
        lock(&self.0.state).spawned
    }

    /// The task that runs.
    pub fn current_task() -> TaskId {
        CURRENT.with(Cell::get)
    }

    /// Polls one task, now, whatever else is ready.
    pub fn run_task(&self, id: TaskId) {
        let Some(cell) = lock(&self.0.state).tasks.get(&id).cloned() else { return };
        let Some(mut future) = lock(&cell.future).take() else { return };
        cell.queued.store(false, Ordering::SeqCst);
        lock(&self.0.state).polls += 1;
        let before = CURRENT.with(|current| current.replace(id));
        let waker = Waker::from(Arc::clone(&cell));
        let poll = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut Context::from_waker(&waker))));
        CURRENT.with(|current| current.set(before));
        match poll {
            Ok(Poll::Pending) if !cell.cancelled.load(Ordering::SeqCst) => *lock(&cell.future) = Some(future),
            _ => {
                let gone = lock(&self.0.state).tasks.remove(&id);
                let _ = catch_unwind(AssertUnwindSafe(|| drop(future)));
                drop(gone);
            }
        }
    }

    /// Drops a task, as whoever owns it would.
    pub fn kill(&self, id: TaskId) {
        let Some(cell) = lock(&self.0.state).tasks.get(&id).cloned() else { return };
        cell.cancelled.store(true, Ordering::SeqCst);
        let future = lock(&cell.future).take();
        if let Some(future) = future {
            let gone = lock(&self.0.state).tasks.remove(&id);
            let _ = catch_unwind(AssertUnwindSafe(|| drop(future)));
            drop(gone);
        }
    }

    fn next_ready(&self) -> Option<TaskId> {
        let mut state = lock(&self.0.state);
        let Some(random) = &mut state.random else { return state.ready.pop_front() };
        *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let pick = (*random >> 33) as usize;
        if state.ready.is_empty() {
            return None;
        }
        let at = pick % state.ready.len();
        state.ready.swap_remove_back(at)
    }

    /// Runs until nothing is ready, without letting time pass.
    pub fn run(&self) {
        while let Some(id) = self.next_ready() {
            self.run_task(id);
        }
    }

    /// Runs whatever is ready but one task.
    pub fn run_all_but(&self, held: TaskId) {
        loop {
            let mut state = lock(&self.0.state);
            let Some(at) = state.ready.iter().position(|id| *id != held) else { return };
            let id = state.ready.remove(at).expect("it is there");
            drop(state);
            self.run_task(id);
        }
    }

    /// One poll of one ready task, if there is one.
    pub fn step(&self) -> bool {
        match self.next_ready() {
            Some(id) => {
                self.run_task(id);
                true
            }
            None => false,
        }
    }

    /// Runs, and lets time pass where only that helps, until nothing is waiting for a moment any more.
    pub fn settle(&self) {
        self.run();
        while let Some(at) = self.next_timer() {
            self.move_to(at);
            self.run();
        }
    }

    /// Lets time pass up to the next moment that somebody waits for, if anybody does.
    pub fn tick(&self) -> bool {
        match self.next_timer() {
            Some(at) => {
                self.move_to(at);
                true
            }
            None => false,
        }
    }

    /// Starts a task that ends when what is returned is dropped.
    pub fn spawned<F: Future<Output = ()> + Send + 'static>(&self, task: impl FnOnce(World) -> F) -> Task {
        let future = task(self.clone());
        self.spawn(future)
    }

    fn next_timer(&self) -> Option<Instant> {
        lock(&self.0.state).timers.first_key_value().map(|((at, _), _)| *at)
    }

    fn move_to(&self, now: Instant) {
        let mut due = Vec::new();
        let mut state = lock(&self.0.state);
        state.now = state.now.max(now);
        while let Some(entry) = state.timers.first_entry() {
            if entry.key().0 > now {
                break;
            }
            due.push(entry.remove());
        }
        drop(state);
        due.into_iter().for_each(Waker::wake);
    }

    /// Lets so much time pass, running what is due on the way.
    pub fn advance(&self, time: Duration) {
        let end = self.now() + time;
        self.run();
        while let Some(at) = self.next_timer().filter(|at| *at <= end) {
            self.move_to(at);
            self.run();
        }
        self.move_to(end);
        self.run();
    }

    /// Runs a future to its end, letting time pass where needed.
    pub fn block_on<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> T {
        let answer = self.ask(future);
        self.run();
        loop {
            if let Some(answer) = lock(&answer).take() {
                return answer;
            }
            let at = self.next_timer().expect("the future can still end");
            self.move_to(at);
            self.run();
        }
    }

    /// Starts a future whose result can be picked up later.
    pub fn ask<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Arc<Mutex<Option<T>>> {
        let answer = Arc::new(Mutex::new(None));
        let place = Arc::clone(&answer);
        let task = self.spawn(async move {
            let answer = future.await;
            *lock(&place) = Some(answer);
        });
        self.detach(task);
        answer
    }
}

/// A handle whose drop cancels the task.
pub struct Task {
    id: TaskId,
    world: World,
    detached: bool,
}

impl Drop for Task {
    fn drop(&mut self) {
        if !self.detached {
            self.world.kill(self.id);
        }
    }
}

pub struct Sleep {
    deadline: Instant,
    world: World,
    number: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let (world, deadline) = (self.world.clone(), self.deadline);
        let mut state = lock(&world.0.state);
        if state.now >= deadline {
            return Poll::Ready(());
        }
        let number = match self.number {
            Some(number) => number,
            None => {
                state.timers_set += 1;
                state.timers_set
            }
        };
        self.number = Some(number);
        let before = state.timers.insert((deadline, number), cx.waker().clone());
        drop(state);
        drop(before);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let gone = lock(&self.world.0.state).timers.remove(&(self.deadline, number));
            drop(gone);
        }
    }
}

impl Runtime for World {
    type Task = Task;
    type Sleep = Sleep;

    fn spawn<F: Future<Output = ()> + Send + 'static>(&self, future: F) -> Task {
        let mut state = lock(&self.0.state);
        state.spawned += 1;
        let id = state.spawned;
        let cell = Cell_ {
            id,
            world: Arc::downgrade(&self.0),
            future: Mutex::new(Some(Box::pin(future))),
            queued: AtomicBool::new(true),
            cancelled: AtomicBool::new(false),
        };
        state.tasks.insert(id, Arc::new(cell));
        state.ready.push_back(id);
        Task { id, world: self.clone(), detached: false }
    }

    fn detach(&self, mut task: Task) {
        task.detached = true;
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        Sleep { deadline, world: self.clone(), number: None }
    }

    fn now(&self) -> Instant {
        lock(&self.0.state).now
    }
}
