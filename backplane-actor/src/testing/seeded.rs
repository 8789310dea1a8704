//! An executor that can be run again: one thread, an order that follows from a seed, and a clock that moves only when
//! everybody waits.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fmt,
    future::Future,
    mem,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use backplane::Runtime;

/// The executor. Clones are the same one.
///
/// Whoever can run may be next; the seed decides. So a story that must hold in any order is told under many seeds, and one
/// that fails is told again, step by step, under its own. The clock stands still while anybody can run; then it jumps to
/// the next moment that somebody waits for, so that a day takes no time.
///
/// ```
/// use backplane::Runtime;
/// use backplane_actor::testing::Seeded;
/// use std::time::Duration;
///
/// let runtime = Seeded::new(7);
/// let morning = runtime.now();
/// let day = Duration::from_secs(86_400);
/// runtime.run(runtime.sleep_until(morning + day));
/// assert_eq!(runtime.now(), morning + day);
/// ```
#[derive(Clone)]
pub struct Seeded {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
}

struct State {
    random: u64,
    now: Instant,
    /// The name of the next task or sleep.
    next: u64,
    tasks: BTreeMap<u64, Spawned>,
    /// Who can run.
    ready: Vec<u64>,
    alarms: BTreeMap<(Instant, u64), Waker>,
    /// Who was polled, in order.
    trace: Vec<u64>,
}

type Boxed = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Spawned {
    /// Elsewhere while it is polled.
    future: Option<Boxed>,
    ready: bool,
}

/// The future that `run` was given.
const MAIN: u64 = 0;

impl Seeded {
    /// An executor with this seed.
    ///
    /// ```
    /// use backplane_actor::testing::Seeded;
    ///
    /// let story = |runtime: &Seeded| {
    ///     runtime.run(async { /* whatever it is */ });
    ///     runtime.trace()
    /// };
    /// assert_eq!(story(&Seeded::new(7)), story(&Seeded::new(7)));
    /// ```
    pub fn new(seed: u64) -> Seeded {
        let state = State {
            random: seed,
            now: Instant::now(),
            next: MAIN + 1,
            tasks: BTreeMap::new(),
            ready: Vec::new(),
            alarms: BTreeMap::new(),
            trace: Vec::new(),
        };
        Seeded { shared: Arc::new(Shared { state: Mutex::new(state) }) }
    }

    /// Runs a future to its end, and beside it all that is spawned. What is left then is dropped.
    ///
    /// # Panics
    ///
    /// If everybody waits and nothing will ever happen, if it runs already, and with whoever panics in it.
    ///
    /// ```
    /// use backplane::Runtime;
    /// use backplane_actor::testing::Seeded;
    /// use std::sync::mpsc;
    ///
    /// let (runtime, (send, receive)) = (Seeded::new(7), mpsc::channel());
    /// let task = runtime.spawn(async move { send.send("from a task").unwrap() });
    /// runtime.detach(task);
    /// let minute = std::time::Duration::from_secs(60);
    /// runtime.run(runtime.sleep_until(runtime.now() + minute));
    /// assert_eq!(receive.try_recv(), Ok("from a task"));
    /// ```
    #[track_caller]
    pub fn run<T>(&self, main: impl Future<Output = T>) -> T {
        let mut main = pin!(main);
        let already = self.state().tasks.insert(MAIN, Spawned { future: None, ready: true });
        assert!(already.is_none(), "it runs already");
        self.state().ready.push(MAIN);
        // Also when somebody panics: what is left would keep itself alive.
        let _all_go = AllGo(self);
        loop {
            let Some((name, mut future)) = self.state().next_to_run() else {
                self.let_time_pass();
                continue;
            };
            let waker = Waker::from(Arc::new(Knock { shared: Arc::downgrade(&self.shared), name }));
            let cx = &mut Context::from_waker(&waker);
            match &mut future {
                None => {
                    if let Poll::Ready(value) = main.as_mut().poll(cx) {
                        return value;
                    }
                }
                Some(spawned) => {
                    let ended = spawned.as_mut().poll(cx).is_ready();
                    let mut state = self.state();
                    if ended {
                        state.tasks.remove(&name);
                    } else if let Some(task) = state.tasks.get_mut(&name) {
                        task.future = future.take();
                    }
                    // One that has ended, or was cancelled while it ran, is dropped without the lock.
                    drop(state);
                    drop(future);
                }
            }
        }
    }

    /// Who was polled, in order: the same for the same seed and the same story.
    ///
    /// ```
    /// use backplane::Runtime;
    /// use backplane_actor::testing::Seeded;
    ///
    /// let trace = |seed| {
    ///     let runtime = Seeded::new(seed);
    ///     let tasks: Vec<_> = (0..9).map(|_| runtime.spawn(async {})).collect();
    ///     runtime.run(runtime.sleep_until(runtime.now() + std::time::Duration::from_secs(1)));
    ///     drop(tasks);
    ///     runtime.trace()
    /// };
    /// assert_eq!(trace(7), trace(7));
    /// assert_ne!(trace(7), trace(8));
    /// ```
    pub fn trace(&self) -> Vec<u64> {
        self.state().trace.clone()
    }

    #[track_caller]
    fn let_time_pass(&self) {
        let first = self.state().alarms.pop_first();
        let Some(((moment, _), waker)) = first else {
            panic!("everybody waits, and nothing will ever happen");
        };
        self.state().now = moment;
        waker.wake();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn next_to_run(&mut self) -> Option<(u64, Option<Boxed>)> {
        while !self.ready.is_empty() {
            let place = (self.random() % self.ready.len() as u64) as usize;
            let name = self.ready.swap_remove(place);
            // One that was cancelled is not there any more.
            if let Some(task) = self.tasks.get_mut(&name) {
                task.ready = false;
                self.trace.push(name);
                return Some((name, task.future.take()));
            }
        }
        None
    }

    /// SplitMix64 (G. L. Steele et al., 2014).
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.random ^ self.random >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    fn name(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }
}

/// Drops all tasks when a run is over.
struct AllGo<'a>(&'a Seeded);

impl Drop for AllGo<'_> {
    fn drop(&mut self) {
        loop {
            let mut state = self.0.state();
            let left = mem::take(&mut state.tasks);
            state.ready.clear();
            drop(state);
            if left.is_empty() {
                return;
            }
            // Without the lock, for what goes may spawn and wake.
            drop(left);
        }
    }
}

struct Knock {
    shared: Weak<Shared>,
    name: u64,
}

impl Wake for Knock {
    fn wake(self: Arc<Self>) {
        let Some(shared) = self.shared.upgrade() else { return };
        let state = &mut *shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = state.tasks.get_mut(&self.name)
            && !mem::replace(&mut task.ready, true)
        {
            state.ready.push(self.name);
        }
    }
}

/// A spawned task; dropped, it drops its future at once, or after the poll that it is in.
///
/// ```
/// use backplane::Runtime;
/// use backplane_actor::testing::Seeded;
/// use std::sync::mpsc;
///
/// let (runtime, (send, receive)) = (Seeded::new(7), mpsc::channel());
/// let task = runtime.spawn(async move { send.send("never").unwrap() });
/// drop(task);
/// runtime.run(async {});
/// assert!(receive.try_recv().is_err());
/// ```
#[derive(Debug)]
pub struct Task {
    runtime: Seeded,
    name: u64,
    detached: bool,
}

impl Drop for Task {
    fn drop(&mut self) {
        if !self.detached {
            let task = self.runtime.state().tasks.remove(&self.name);
            drop(task);
        }
    }
}

/// Waits for a moment on the clock of its executor.
///
/// ```
/// use backplane::Runtime;
/// use backplane_actor::testing::Seeded;
/// use std::time::Duration;
///
/// let runtime = Seeded::new(7);
/// let before = runtime.now();
/// let (short, long) = (Duration::from_secs(1), Duration::from_secs(3600));
/// runtime.run(async {
///     let long = runtime.sleep_until(before + long);
///     runtime.sleep_until(before + short).await;
///     drop(long); // leaves nothing behind
/// });
/// assert_eq!(runtime.now(), before + short);
/// ```
#[derive(Debug)]
pub struct Sleep {
    runtime: Seeded,
    deadline: Instant,
    name: Cell<Option<u64>>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let waker = cx.waker().clone();
        let mut state = self.runtime.state();
        if state.now >= self.deadline {
            return Poll::Ready(());
        }
        let name = self.name.get().unwrap_or_else(|| state.name());
        self.name.set(Some(name));
        let before = state.alarms.insert((self.deadline, name), waker);
        // Wakers are dropped without the lock.
        drop(state);
        drop(before);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(name) = self.name.get() {
            let alarm = self.runtime.state().alarms.remove(&(self.deadline, name));
            drop(alarm);
        }
    }
}

impl Runtime for Seeded {
    type Task = Task;
    type Sleep = Sleep;

    fn spawn<F>(&self, future: F) -> Task
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut state = self.state();
        let name = state.name();
        state.tasks.insert(name, Spawned { future: Some(Box::pin(future)), ready: true });
        state.ready.push(name);
        drop(state);
        Task { runtime: self.clone(), name, detached: false }
    }

    fn detach(&self, mut task: Task) {
        task.detached = true;
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        Sleep { runtime: self.clone(), deadline, name: Cell::new(None) }
    }

    fn now(&self) -> Instant {
        self.state().now
    }
}

impl Seeded {
    /// How long it is since `moment`, on this clock.
    ///
    /// ```
    /// use backplane::Runtime;
    /// use backplane_actor::testing::Seeded;
    /// use std::time::Duration;
    ///
    /// let runtime = Seeded::new(7);
    /// let before = runtime.now();
    /// runtime.run(runtime.sleep_until(before + Duration::from_secs(60)));
    /// assert_eq!(runtime.since(before), Duration::from_secs(60));
    /// ```
    pub fn since(&self, moment: Instant) -> Duration {
        self.now().saturating_duration_since(moment)
    }
}

impl fmt::Debug for Seeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seeded").finish_non_exhaustive()
    }
}

/// Tells a story once under each seed; a failure says under which, and [`Seeded::new`] tells it again.
///
/// # Panics
///
/// With the first story that does.
///
/// ```
/// use backplane::Runtime;
/// use backplane_actor::testing::{Seeded, under_seeds};
/// use std::{collections::HashSet, sync::{Arc, Mutex}, time::Duration};
///
/// let orders = Mutex::new(HashSet::new());
/// under_seeds(0..20, |runtime: &Seeded| {
///     let order = Arc::new(Mutex::new(Vec::new()));
///     for n in [1, 2] {
///         let order = Arc::clone(&order);
///         runtime.detach(runtime.spawn(async move { order.lock().unwrap().push(n) }));
///     }
///     runtime.run(runtime.sleep_until(runtime.now() + Duration::from_secs(1)));
///     orders.lock().unwrap().insert(order.lock().unwrap().clone());
/// });
/// assert_eq!(orders.into_inner().unwrap().len(), 2); // both orders have been seen
/// ```
pub fn under_seeds(seeds: impl IntoIterator<Item = u64>, story: impl Fn(&Seeded)) {
    for seed in seeds {
        let runtime = Seeded::new(seed);
        if let Err(panic) = backplane::catch(|| story(&runtime)) {
            eprintln!("this happened under seed {seed}");
            panic.resume();
        }
    }
}
