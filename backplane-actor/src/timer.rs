//! What is to happen later: one heap and one future for any number of timers.
//!
//! The heap knows where in it each timer stands, so a timer that is cancelled leaves it at once and nothing of it stays.
//! The future sleeps until the first deadline there is, on the clock of a [`Runtime`], and is woken when an earlier one is
//! set.

use std::{
    fmt,
    future::{self, Future},
    ops::ControlFlow,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use backplane::Runtime;

use crate::{
    address::Address,
    mailbox::wake,
    protocol::{Accepts, Itself},
    sync::{Arc, Mutex, MutexGuard, lock},
};

/// So many fire before others get their turn.
const TURN: u32 = 256;
/// As many children has a place in the heap.
const ARITY: usize = 4;
const NONE: u32 = u32::MAX;

/// Timers on the clock of a runtime. Clones are the same timers.
///
/// They fire where [`run`](Timers::run) runs: a future that somebody spawns, or supervises. One service of timers is enough
/// for any number of actors; a million timers cost a place each in a heap, and no task. A timer outlives whoever set it, as
/// in OTP, and what it does is up to it: mostly, it sends.
///
/// Setting and cancelling take time in the logarithm of how many there are.
///
/// ```
/// # #[cfg(feature = "smol")] {
/// use backplane::runtime::Smol;
/// use backplane::Runtime;
/// use backplane_actor::Timers;
/// use std::{sync::mpsc, time::Duration};
///
/// let runtime = Smol::global();
/// let timers = Timers::new(runtime.clone());
/// let _running = runtime.spawn(timers.run());
/// let (send, receive) = mpsc::channel();
/// timers.after(Duration::from_millis(1), move || send.send("now").unwrap());
/// assert_eq!(receive.recv(), Ok("now"));
/// # }
/// ```
pub struct Timers<R> {
    handle: Arc<Handle<R>>,
}

/// What those who can set timers have in common. When it is dropped, no more are set.
struct Handle<R>(Arc<Shared<R>>);

struct Shared<R> {
    runtime: R,
    /// Moments are kept as nanoseconds after this one.
    epoch: Instant,
    state: Mutex<State>,
}

struct State {
    heap: Vec<Due>,
    slots: Vec<Slot>,
    /// The first free slot.
    free: u32,
    /// How many are firing.
    away: usize,
    next: u64,
    /// Who runs: the last one that began.
    driver: u64,
    waker: Option<Waker>,
    closed: bool,
}

/// A place in the heap: the earliest first, and of one moment the one that was set first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at: u64,
    number: u64,
    slot: u32,
}

enum Slot {
    /// With the next one that is free.
    Free(u32),
    Waiting {
        place: u32,
        job: Job,
    },
    /// Its job is being done.
    Away {
        number: u64,
        /// When it will fire again, if it will.
        again: Option<u64>,
    },
}

enum Job {
    Once(Box<dyn FnOnce(TimerId) + Send>),
    Every(u64, Box<dyn FnMut(Tick) -> ControlFlow<()> + Send>),
}

/// One timer of a service of timers. Good for [`cancel`](Timers::cancel) and [`time_left`](Timers::time_left) there, and
/// nowhere else.
///
/// ```
/// # #[cfg(feature = "smol")] {
/// use backplane::runtime::Smol;
/// use backplane_actor::Timers;
/// use std::time::Duration;
///
/// let timers = Timers::new(Smol::global());
/// let tea = timers.after(Duration::from_secs(180), || ());
/// let eggs = timers.after(Duration::from_secs(300), || ());
/// assert_ne!(tea, eggs);
/// timers.cancel(tea);
/// assert!(timers.time_left(tea).is_none() && timers.time_left(eggs).is_some());
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimerId {
    slot: u32,
    number: u64,
}

/// What an interval is told each time.
///
/// ```
/// # #[cfg(feature = "testing")] {
/// # use backplane::Runtime;
/// # use backplane_actor::{Timers, testing::Seeded};
/// # use std::{ops::ControlFlow, time::Duration};
/// # const SECOND: Duration = Duration::from_secs(1);
/// # let runtime = Seeded::new(1);
/// # let timers = Timers::new(runtime.clone());
/// let running = timers.run();
/// let began = runtime.now();
/// timers.every(SECOND, move |tick| {
///     assert_eq!((tick.due, tick.missed), (began + SECOND, 0));
///     ControlFlow::Break(())
/// });
/// # drop(timers);
/// runtime.run(running);
/// assert_eq!(runtime.since(began), SECOND);
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tick {
    /// For which moment it is: always a whole number of periods after the beginning.
    pub due: Instant,
    /// How many ticks since the one before were left out, because it is too late for them.
    pub missed: u64,
}

impl<R> Clone for Timers<R> {
    fn clone(&self) -> Timers<R> {
        Timers { handle: Arc::clone(&self.handle) }
    }
}

impl<R: Runtime> Timers<R> {
    /// A service with no timers yet.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// use backplane_actor::Timers;
    ///
    /// assert!(Timers::new(Smol::global()).is_empty());
    /// # }
    /// ```
    pub fn new(runtime: R) -> Timers<R> {
        let state = State {
            heap: Vec::new(),
            slots: Vec::new(),
            free: NONE,
            away: 0,
            next: 0,
            driver: 0,
            waker: None,
            closed: false,
        };
        let epoch = runtime.now();
        Timers { handle: Arc::new(Handle(Arc::new(Shared { runtime, epoch, state: Mutex::new(state) }))) }
    }

    /// Does something once, when `delay` is over; when there is a [`run`](Timers::run) to do it. A delay that is too long
    /// for the clock is over in 584 years.
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # use backplane::Runtime;
    /// # use backplane_actor::{Timers, testing::Seeded};
    /// # use std::{ops::ControlFlow, time::Duration};
    /// # const SECOND: Duration = Duration::from_secs(1);
    /// # let runtime = Seeded::new(1);
    /// # let timers = Timers::new(runtime.clone());
    /// let running = timers.run();
    /// let (began, clock) = (runtime.now(), runtime.clone());
    /// timers.after(60 * SECOND, move || assert_eq!(clock.since(began), 60 * SECOND));
    /// drop(timers); // so that it runs until the last has fired
    /// runtime.run(running);
    /// assert_eq!(runtime.since(began), 60 * SECOND);
    /// # }
    /// ```
    pub fn after(&self, delay: Duration, job: impl FnOnce() + Send + 'static) -> TimerId {
        let at = self.shared().here().saturating_add(nanos(delay));
        self.shared().set(at, Job::Once(Box::new(|_| job())))
    }

    /// Does something once, at a moment on the runtime's clock; at once if it is past.
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # use backplane::Runtime;
    /// # use backplane_actor::{Timers, testing::Seeded};
    /// # use std::{ops::ControlFlow, time::Duration};
    /// # const SECOND: Duration = Duration::from_secs(1);
    /// # let runtime = Seeded::new(1);
    /// # let timers = Timers::new(runtime.clone());
    /// let running = timers.run();
    /// let (noon, clock) = (runtime.now() + 3600 * SECOND, runtime.clone());
    /// timers.at(noon, move || assert_eq!(clock.now(), noon));
    /// # drop(timers);
    /// runtime.run(running);
    /// assert_eq!(runtime.now(), noon);
    /// # }
    /// ```
    pub fn at(&self, deadline: Instant, job: impl FnOnce() + Send + 'static) -> TimerId {
        self.shared().set(self.shared().moment(deadline), Job::Once(Box::new(|_| job())))
    }

    /// Does something every `period`, the first time when one is over, until it says [`ControlFlow::Break`] or is cancelled.
    ///
    /// Without drift: however late a tick is, those that follow are due a whole number of periods after the beginning. Where
    /// it is too late for some, they are left out, and the next one is told [how many](Tick::missed).
    ///
    /// # Panics
    ///
    /// If the period is zero.
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # use backplane::Runtime;
    /// # use backplane_actor::{Timers, testing::Seeded};
    /// # use std::{ops::ControlFlow, time::Duration};
    /// # const SECOND: Duration = Duration::from_secs(1);
    /// # let runtime = Seeded::new(1);
    /// # let timers = Timers::new(runtime.clone());
    /// let running = timers.run();
    /// let (began, mut ticks) = (runtime.now(), 0);
    /// timers.every(10 * SECOND, move |_| {
    ///     ticks += 1;
    ///     if ticks < 6 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    /// });
    /// # drop(timers);
    /// runtime.run(running);
    /// assert_eq!(runtime.since(began), 60 * SECOND);
    /// # }
    /// ```
    #[track_caller]
    pub fn every(
        &self,
        period: Duration,
        job: impl FnMut(Tick) -> ControlFlow<()> + Send + 'static,
    ) -> TimerId {
        assert!(!period.is_zero(), "the period of an interval is zero");
        let period = nanos(period);
        let at = self.shared().here().saturating_add(period);
        self.shared().set(at, Job::Every(period, Box::new(job)))
    }

    /// Sends a message to an actor when `delay` is over, through the system lane, which has no bound. One that has ended by
    /// then does not get it.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// use backplane::{Runtime, runtime::Smol};
    /// use backplane_actor::{Mailbox, System, Timers};
    /// use std::time::Duration;
    ///
    /// let (runtime, system) = (Smol::global(), System::new(Smol::global()));
    /// let timers = Timers::new(runtime.clone());
    /// let _running = runtime.spawn(timers.run());
    /// let waits = system.spawn(|mut mailbox: Mailbox<&str>| async move {
    ///     assert_eq!(mailbox.receive().await, Some("now"));
    /// });
    /// timers.send_after(&waits, Duration::from_millis(1), "now");
    /// assert_eq!(smol::block_on(waits.ended()), Some(backplane::Exit::Normal));
    /// # }
    /// ```
    pub fn send_after<M, X, I>(&self, to: &Address<M>, delay: Duration, message: X) -> TimerId
    where
        M: Accepts<X, I> + Send + 'static,
    {
        let message = M::wrap(message);
        self.send_after_with::<M, M, Itself>(to, delay, |_| message)
    }

    /// As [`send_after`](Timers::send_after), with a message that is made when it is sent and is told which timer it comes
    /// from: OTP's `start_timer`. So an actor that sets a timer anew can tell a message of the old one.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// use backplane::{Runtime, runtime::Smol};
    /// use backplane_actor::{Mailbox, System, TimerId, Timers};
    /// use std::time::Duration;
    ///
    /// let timers = Timers::new(Smol::global());
    /// let _running = Smol::global().spawn(timers.run());
    /// let setting = timers.clone();
    /// let waits = System::new(Smol::global()).spawn(|mut mailbox: Mailbox<TimerId>| async move {
    ///     let me = mailbox.upgrade().unwrap();
    ///     let timer = setting.send_after_with(&me, Duration::from_millis(1), |timer| timer);
    ///     assert_eq!(mailbox.receive().await, Some(timer));
    /// });
    /// assert_eq!(smol::block_on(waits.ended()), Some(backplane::Exit::Normal));
    /// # }
    /// ```
    pub fn send_after_with<M, X, I>(
        &self,
        to: &Address<M>,
        delay: Duration,
        make: impl FnOnce(TimerId) -> X + Send + 'static,
    ) -> TimerId
    where
        M: Accepts<X, I> + Send + 'static,
    {
        let to = to.downgrade();
        let at = self.shared().here().saturating_add(nanos(delay));
        let job = move |timer| drop(to.upgrade().map(|to| to.deliver(M::wrap(make(timer)))));
        self.shared().set(at, Job::Once(Box::new(job)))
    }

    /// Sends an actor a message every `period`, as [`every`](Timers::every), until it has ended.
    ///
    /// # Panics
    ///
    /// If the period is zero.
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # use backplane::Runtime;
    /// # use backplane_actor::{Timers, testing::Seeded};
    /// # use std::{ops::ControlFlow, time::Duration};
    /// # const SECOND: Duration = Duration::from_secs(1);
    /// # let runtime = Seeded::new(1);
    /// # let timers = Timers::new(runtime.clone());
    /// let running = timers.run();
    /// # use backplane::Exit;
    /// # use backplane_actor::{Mailbox, System};
    /// # let system = System::new(runtime.clone());
    /// let clock = system.spawn(|mut ticks: Mailbox<u64>| async move {
    ///     assert_eq!(ticks.receive().await, Some(0)); // none was missed
    ///     assert_eq!(ticks.receive().await, Some(0));
    /// });
    /// timers.send_interval(&clock, SECOND, |tick| tick.missed);
    /// runtime.run(async {
    ///     let running = runtime.spawn(running);
    ///     assert_eq!(clock.ended().await, Some(Exit::Normal));
    /// #   drop(running);
    /// });
    /// # }
    /// ```
    #[track_caller]
    pub fn send_interval<M, X, I>(
        &self,
        to: &Address<M>,
        period: Duration,
        mut make: impl FnMut(Tick) -> X + Send + 'static,
    ) -> TimerId
    where
        M: Accepts<X, I> + Send + 'static,
    {
        let to = to.downgrade();
        self.every(period, move |tick| {
            let sent = to.upgrade().is_some_and(|to| to.deliver(M::wrap(make(tick))).is_ok());
            if sent { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
    }

    /// Puts an end to a timer. Returns how much time was left, of an interval until its next tick; `None` if it has fired,
    /// is firing, or was cancelled before.
    ///
    /// Once this has returned something, the timer does not begin to do what it does any more.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// use backplane_actor::Timers;
    /// use std::time::Duration;
    ///
    /// let timers = Timers::new(Smol::global());
    /// let timer = timers.after(Duration::from_secs(5), || ());
    /// assert!(timers.cancel(timer).is_some_and(|left| left <= Duration::from_secs(5)));
    /// assert_eq!(timers.cancel(timer), None);
    /// # }
    /// ```
    pub fn cancel(&self, timer: TimerId) -> Option<Duration> {
        let here = self.shared().here();
        let mut state = lock(&self.shared().state);
        let (at, job) = state.cancel(timer)?;
        drop(state);
        drop(job);
        Some(Duration::from_nanos(at.saturating_sub(here)))
    }

    /// How much time is left, of an interval until its next tick; `None` if it has fired, is firing, or was cancelled.
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # use backplane::Runtime;
    /// # use backplane_actor::{Timers, testing::Seeded};
    /// # use std::{ops::ControlFlow, time::Duration};
    /// # const SECOND: Duration = Duration::from_secs(1);
    /// # let runtime = Seeded::new(1);
    /// # let timers = Timers::new(runtime.clone());
    /// let running = timers.run();
    /// let tea = timers.after(180 * SECOND, || ());
    /// runtime.run(runtime.sleep_until(runtime.now() + 60 * SECOND));
    /// assert_eq!(timers.time_left(tea), Some(120 * SECOND));
    /// timers.cancel(tea);
    /// assert_eq!(timers.time_left(tea), None);
    /// # drop(running);
    /// # }
    /// ```
    pub fn time_left(&self, timer: TimerId) -> Option<Duration> {
        let here = self.shared().here();
        let at = lock(&self.shared().state).due(timer)?;
        Some(Duration::from_nanos(at.saturating_sub(here)))
    }

    /// How many timers wait.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::Timers;
    /// # use std::time::Duration;
    /// let timers = Timers::new(Smol::global());
    /// let tea = timers.after(Duration::from_secs(180), || ());
    /// timers.after(Duration::from_secs(300), || ());
    /// assert_eq!(timers.len(), 2);
    /// timers.cancel(tea); // leaves nothing behind
    /// assert_eq!(timers.len(), 1);
    /// # }
    /// ```
    pub fn len(&self) -> usize {
        lock(&self.shared().state).heap.len()
    }

    /// Whether no timer waits.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::Timers;
    /// # use std::time::Duration;
    /// let timers = Timers::new(Smol::global());
    /// assert!(timers.is_empty());
    /// timers.after(Duration::from_secs(180), || ());
    /// assert!(!timers.is_empty());
    /// # }
    /// ```
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What makes timers fire. It ends when the last clone of this is dropped and no timer waits any more.
    ///
    /// There is one at a time: one that begins puts an end to the one before. Without any, timers wait, and fire late; so this
    /// can be dropped, and started again by a supervisor, and no timer is lost. Those of one moment fire in the order in which
    /// they were set.
    ///
    /// # Panics
    ///
    /// As what a timer does. That timer is gone then; the others fire when this is run again.
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # use backplane::Runtime;
    /// # use backplane_actor::{Timers, testing::Seeded};
    /// # use std::{ops::ControlFlow, time::Duration};
    /// # const SECOND: Duration = Duration::from_secs(1);
    /// # let runtime = Seeded::new(1);
    /// # let timers = Timers::new(runtime.clone());
    /// let running = timers.run();
    /// let (began, later) = (runtime.now(), timers.clone());
    /// timers.after(SECOND, move || {
    ///     later.after(SECOND, || ());
    /// });
    /// drop(timers);
    /// runtime.run(running); // ends with the last of them
    /// assert_eq!(runtime.since(began), 2 * SECOND);
    /// # }
    /// ```
    pub fn run(&self) -> impl Future<Output = ()> + Send + use<R> {
        let mut driver = Driver { shared: Arc::clone(self.shared()), number: None, sleep: None };
        future::poll_fn(move |cx| driver.poll(cx))
    }

    fn shared(&self) -> &Arc<Shared<R>> {
        &self.handle.0
    }
}

impl<R> Drop for Handle<R> {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        state.closed = true;
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            wake(waker);
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl<R: Runtime> Shared<R> {
    fn moment(&self, at: Instant) -> u64 {
        nanos(at.saturating_duration_since(self.epoch))
    }

    fn here(&self) -> u64 {
        self.moment(self.runtime.now())
    }

    /// The clock may not reach so far: then as far as it does.
    fn instant(&self, at: u64) -> Instant {
        let mut after = Duration::from_nanos(at);
        loop {
            match self.epoch.checked_add(after) {
                Some(instant) => return instant,
                None => after /= 2,
            }
        }
    }

    /// Whoever sets an earlier one from here on wakes. False if things have changed already.
    fn wait(&self, driver: u64, first: Option<Due>, cx: &Context<'_>) -> bool {
        let waker = cx.waker().clone();
        let mut state = lock(&self.state);
        if state.driver != driver || state.heap.first().copied() != first || (first.is_none() && state.closed)
        {
            drop(state);
            drop(waker);
            return false;
        }
        let before = state.waker.replace(waker);
        drop(state);
        drop(before);
        true
    }

    fn set(&self, at: u64, job: Job) -> TimerId {
        let mut state = lock(&self.state);
        let timer = state.insert(at, job);
        // Whoever sleeps does so until the deadline that was the first one.
        let first = state.heap.first().is_some_and(|due| due.number == timer.number);
        let waker = if first { state.waker.take() } else { None };
        drop(state);
        if let Some(waker) = waker {
            wake(waker);
        }
        timer
    }
}

struct Driver<R: Runtime> {
    shared: Arc<Shared<R>>,
    /// Which one this is, since it was first polled.
    number: Option<u64>,
    sleep: Option<(u64, Pin<Box<R::Sleep>>)>,
}

impl<R: Runtime> Driver<R> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let shared = Arc::clone(&self.shared);
        let number = *self.number.get_or_insert_with(|| {
            let (number, before) = lock(&shared.state).take_over();
            if let Some(before) = before {
                wake(before);
            }
            number
        });
        let mut budget = TURN;
        let mut here = shared.here();
        loop {
            let mut state = lock(&shared.state);
            if state.driver != number {
                return Poll::Ready(());
            }
            let first = state.heap.first().copied();
            let Some(due) = first.filter(|due| due.at <= here) else {
                if first.is_none() && state.closed {
                    return Poll::Ready(());
                }
                drop(state);
                if !shared.wait(number, first, cx) {
                    continue;
                }
                match first {
                    None => {
                        self.sleep = None;
                        return Poll::Pending;
                    }
                    Some(due) => {
                        if self.sleep_until(due.at).poll(cx).is_pending() {
                            return Poll::Pending;
                        }
                        // It is over, so another one is needed, whatever the clock says.
                        self.sleep = None;
                        here = shared.here().max(due.at);
                        continue;
                    }
                }
            };
            if budget == 0 {
                drop(state);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            budget -= 1;
            let Some(job) = state.begin(due, here) else { continue };
            drop(state);
            shared.fire(due, job, here);
        }
    }

    fn sleep_until(&mut self, at: u64) -> Pin<&mut R::Sleep> {
        if self.sleep.as_ref().is_none_or(|(until, _)| *until != at) {
            self.sleep = None;
        }
        let shared = &self.shared;
        let sleep =
            self.sleep.get_or_insert_with(|| (at, Box::pin(shared.runtime.sleep_until(shared.instant(at)))));
        sleep.1.as_mut()
    }
}

impl<R: Runtime> Shared<R> {
    fn fire(&self, due: Due, job: Job, here: u64) {
        // Also if the job panics.
        let mut away = Away { state: &self.state, due, again: None };
        match job {
            Job::Once(job) => job(TimerId { slot: due.slot, number: due.number }),
            Job::Every(period, mut job) => {
                let missed = here.saturating_sub(due.at) / period;
                let latest = self.instant(due.at.saturating_add(missed.saturating_mul(period)));
                if job(Tick { due: latest, missed }).is_continue() {
                    away.again = Some(Job::Every(period, job));
                } else {
                    drop(away);
                    drop(job);
                }
            }
        }
    }
}

/// A timer whose job is being done. Dropped, it waits again or is gone.
struct Away<'a> {
    state: &'a Mutex<State>,
    due: Due,
    again: Option<Job>,
}

impl Drop for Away<'_> {
    fn drop(&mut self) {
        let job = self.again.take();
        let mut state = lock(self.state);
        let left = state.end(self.due, job);
        drop(state);
        drop(left);
    }
}

impl State {
    fn insert(&mut self, at: u64, job: Job) -> TimerId {
        let number = self.next;
        self.next += 1;
        let place = self.heap.len();
        let waiting = Slot::Waiting { place: place as u32, job };
        let slot = self.free;
        let slot = match self.slots.get_mut(slot as usize) {
            Some(free) => {
                if let Slot::Free(next) = *free {
                    self.free = next;
                }
                *free = waiting;
                slot
            }
            None => {
                self.slots.push(waiting);
                // Four thousand million timers at once do not fit into memory.
                (self.slots.len() - 1) as u32
            }
        };
        self.heap.push(Due { at, number, slot });
        self.up(place);
        TimerId { slot, number }
    }

    /// Who begins to run, and who ran before.
    fn take_over(&mut self) -> (u64, Option<Waker>) {
        self.driver += 1;
        (self.driver, self.waker.take())
    }

    /// Takes out the first one, which is due, to be fired.
    fn begin(&mut self, due: Due, here: u64) -> Option<Job> {
        self.take_from_heap(0);
        let slot = self.slots.get_mut(due.slot as usize)?;
        let away = |again| Slot::Away { number: due.number, again };
        let Slot::Waiting { job, .. } = std::mem::replace(slot, away(None)) else { return None };
        if let Job::Every(period, _) = &job {
            let missed = here.saturating_sub(due.at) / period;
            *slot = away(Some(due.at.saturating_add((missed + 1).saturating_mul(*period))));
        }
        self.away += 1;
        Some(job)
    }

    /// It has fired. With a job, it is to fire again, unless it was cancelled meanwhile: then the job comes back.
    fn end(&mut self, due: Due, job: Option<Job>) -> Option<Job> {
        self.away -= 1;
        let slot = self.slots.get_mut(due.slot as usize)?;
        if let (Slot::Away { again: Some(at), .. }, Some(job)) = (&*slot, job) {
            let (at, place) = (*at, self.heap.len());
            *slot = Slot::Waiting { place: place as u32, job };
            self.heap.push(Due { at, ..due });
            self.up(place);
            return None;
        }
        self.release(due.slot)
    }

    fn cancel(&mut self, timer: TimerId) -> Option<(u64, Option<Job>)> {
        let at = self.due(timer)?;
        match self.slots.get_mut(timer.slot as usize)? {
            Slot::Waiting { place, .. } => {
                let place = *place as usize;
                self.take_from_heap(place);
                Some((at, self.release(timer.slot)))
            }
            Slot::Away { again, .. } => {
                *again = None;
                Some((at, None))
            }
            Slot::Free(_) => None,
        }
    }

    /// When a timer fires next, if it does.
    fn due(&self, timer: TimerId) -> Option<u64> {
        match self.slots.get(timer.slot as usize)? {
            Slot::Waiting { place, .. } => {
                self.heap.get(*place as usize).filter(|due| due.number == timer.number).map(|due| due.at)
            }
            Slot::Away { number, again } if *number == timer.number => *again,
            Slot::Away { .. } | Slot::Free(_) => None,
        }
    }

    /// Frees a slot. Gives back the memory of all, if nobody needs any.
    fn release(&mut self, slot: u32) -> Option<Job> {
        let before = std::mem::replace(self.slots.get_mut(slot as usize)?, Slot::Free(self.free));
        self.free = slot;
        if self.heap.is_empty() && self.away == 0 {
            self.slots = Vec::new();
            self.heap = Vec::new();
            self.free = NONE;
        }
        match before {
            Slot::Waiting { job, .. } => Some(job),
            Slot::Away { .. } | Slot::Free(_) => None,
        }
    }

    fn take_from_heap(&mut self, place: usize) {
        self.heap.swap_remove(place);
        if place < self.heap.len() {
            self.up(place);
            self.down(place);
        }
    }

    fn up(&mut self, mut place: usize) {
        while place > 0 {
            let parent = (place - 1) / ARITY;
            if self.heap[parent] <= self.heap[place] {
                break;
            }
            self.heap.swap(parent, place);
            self.note(place);
            place = parent;
        }
        self.note(place);
    }

    fn down(&mut self, mut place: usize) {
        loop {
            let first = place * ARITY + 1;
            let children = first..(first + ARITY).min(self.heap.len());
            let Some(least) = children.min_by_key(|child| self.heap[*child]) else { break };
            if self.heap[place] <= self.heap[least] {
                break;
            }
            self.heap.swap(place, least);
            self.note(place);
            place = least;
        }
        self.note(place);
    }

    /// A slot knows its place in the heap.
    fn note(&mut self, at: usize) {
        let slot = self.heap[at].slot as usize;
        if let Some(Slot::Waiting { place, .. }) = self.slots.get_mut(slot) {
            *place = at as u32;
        }
    }
}

impl<R> fmt::Debug for Timers<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state: MutexGuard<'_, State> = lock(&self.handle.0.state);
        f.debug_struct("Timers").field("waiting", &state.heap.len()).finish_non_exhaustive()
    }
}
