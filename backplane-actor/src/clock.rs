//! Deadlines: a heap of moments on the runtime's clock, and one task that looks after all of them.
//!
//! A call's default time is counted without reading the clock, which takes as long as half a call, and without a place here
//! for a call that is answered at once: the mailbox notes it with the message, and tells the clock only if it has not told it
//! since the clock last looked. The task collects such calls, and counts from then. It looks at once if it was not about to,
//! and again after each [`TICK`] in which somebody told it. So such a deadline is never early, and late by a tick at most, and
//! by what the executor is late itself.

use std::{
    collections::BTreeMap,
    fmt,
    future::{Future, poll_fn},
    mem,
    pin::Pin,
    sync::Weak,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use backplane::{Runtime, catch};

use crate::{
    call::DEFAULT_CALL_TIME,
    frame::{CallState, Node},
    mailbox::wake,
    sync::{Arc, Mutex, lock},
};

/// The clock of a system. Its task is started with the first deadline, and again if its executor dropped it.
pub(crate) struct Clock {
    id: u64,
    now: Box<dyn Fn() -> Instant + Send + Sync>,
    start: Box<dyn Fn(Weak<Clock>) + Send + Sync>,
    deadlines: Mutex<Deadlines>,
}

#[derive(Default)]
struct Deadlines {
    heap: Vec<(Instant, u32)>,
    places: Vec<Place>,
    free: Vec<u32>,
    /// Mailboxes with calls that wait for [`DEFAULT_CALL_TIME`] from when the task next looks.
    fresh: Vec<Weak<dyn Node>>,
    /// Those that such mailboxes have shown, until it is known what time it is.
    shown: Vec<Arc<dyn CallState>>,
    /// The task looks there again within a tick, by itself or because it has been woken.
    ticks: bool,
    driven: bool,
    /// The moment that the task waits for; it may be earlier than the first in the heap.
    armed: Option<Instant>,
    driver: Option<Waker>,
}

struct Place {
    /// Where in the heap; or `OUT`.
    at: u32,
    who: Option<Who>,
}

/// Who is to hear that the time has come.
enum Who {
    Waker(Waker),
    Call(Arc<dyn CallState>),
}

const OUT: u32 = u32::MAX;

/// Clocks by their numbers: a call knows its clock without counting references to it.
static CLOCKS: std::sync::Mutex<BTreeMap<u64, Weak<Clock>>> = std::sync::Mutex::new(BTreeMap::new());

fn clocks() -> std::sync::MutexGuard<'static, BTreeMap<u64, Weak<Clock>>> {
    CLOCKS.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// What time it is on the clock of this number, if it is still there.
pub(crate) fn now_of(id: u64) -> Option<Instant> {
    let clock = clocks().get(&id)?.upgrade();
    clock.map(|clock| clock.now())
}

/// By so much a default deadline may be late.
const TICK: Duration = Duration::from_millis(1);

impl Deadlines {
    fn put(&mut self, index: usize, entry: (Instant, u32)) {
        self.heap[index] = entry;
        self.places[entry.1 as usize].at = index as u32;
    }

    fn up(&mut self, mut index: usize) {
        let entry = self.heap[index];
        while index > 0 {
            let parent = (index - 1) / 2;
            if self.heap[parent].0 <= entry.0 {
                break;
            }
            self.put(index, self.heap[parent]);
            index = parent;
        }
        self.put(index, entry);
    }

    fn down(&mut self, mut index: usize) {
        let entry = self.heap[index];
        loop {
            let mut child = 2 * index + 1;
            if child >= self.heap.len() {
                break;
            }
            if child + 1 < self.heap.len() && self.heap[child + 1].0 < self.heap[child].0 {
                child += 1;
            }
            if self.heap[child].0 >= entry.0 {
                break;
            }
            self.put(index, self.heap[child]);
            index = child;
        }
        self.put(index, entry);
    }

    fn new_place(&mut self, place: Place) -> u32 {
        match self.free.pop() {
            Some(name) => {
                self.places[name as usize] = place;
                name
            }
            None => {
                self.places.push(place);
                self.places.len() as u32 - 1
            }
        }
    }

    fn insert(&mut self, at: Instant, name: u32) {
        self.heap.push((at, name));
        self.up(self.heap.len() - 1);
    }

    fn remove(&mut self, place: u32) {
        let index = mem::replace(&mut self.places[place as usize].at, OUT) as usize;
        let Some(last) = self.heap.pop() else { return };
        if index < self.heap.len() {
            self.put(index, last);
            self.up(index);
            self.down(self.places[last.1 as usize].at as usize);
        }
    }
}

impl Clock {
    pub(crate) fn new<R: Runtime>(runtime: Arc<R>) -> Arc<Clock> {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let id = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let clock = Arc::clone(&runtime);
        let clock = Arc::new(Clock {
            id,
            now: Box::new(move || clock.now()),
            start: Box::new(move |clock| {
                let task = runtime.spawn(drive(Arc::clone(&runtime), clock));
                runtime.detach(task);
            }),
            deadlines: Mutex::default(),
        });
        clocks().insert(id, Arc::downgrade(&clock));
        clock
    }

    /// By which [`now_of`] finds it.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn now(&self) -> Instant {
        (self.now)()
    }

    pub(crate) fn set(self: &Arc<Clock>, at: Instant, waker: Waker) -> u32 {
        let mut deadlines = lock(&self.deadlines);
        let name = deadlines.new_place(Place { at: OUT, who: Some(Who::Waker(waker)) });
        deadlines.insert(at, name);
        let start = !mem::replace(&mut deadlines.driven, true);
        let sooner = deadlines.armed.is_none_or(|armed| at < armed);
        let driver = if sooner { deadlines.driver.take() } else { None };
        drop(deadlines);
        self.see_to_it(start, driver);
        name
    }

    /// There are calls in this mailbox whose time begins.
    #[cold]
    pub(crate) fn tell(self: &Arc<Clock>, node: Weak<dyn Node>) {
        let mut deadlines = lock(&self.deadlines);
        deadlines.fresh.push(node);
        let start = !mem::replace(&mut deadlines.driven, true);
        let ticks = mem::replace(&mut deadlines.ticks, true);
        let driver = if ticks { None } else { deadlines.driver.take() };
        drop(deadlines);
        self.see_to_it(start, driver);
    }

    #[inline]
    fn see_to_it(self: &Arc<Clock>, start: bool, driver: Option<Waker>) {
        if start {
            (self.start)(Arc::downgrade(self));
        }
        if let Some(driver) = driver {
            wake(driver);
        }
    }

    /// Whether it has fired; else the waker is told.
    pub(crate) fn look(&self, name: u32, cx: &Context<'_>) -> bool {
        let mut new = None;
        loop {
            let mut deadlines = lock(&self.deadlines);
            let place = &mut deadlines.places[name as usize];
            if place.at == OUT {
                return true;
            }
            if let Some(Who::Waker(waker)) = &place.who
                && waker.will_wake(cx.waker())
            {
                return false;
            }
            if let Some(new) = new.take() {
                let before = place.who.replace(Who::Waker(new));
                drop(deadlines);
                drop(before);
                return false;
            }
            drop(deadlines);
            new = Some(cx.waker().clone());
        }
    }

    pub(crate) fn cancel(&self, name: u32) {
        let mut deadlines = lock(&self.deadlines);
        let place = &mut deadlines.places[name as usize];
        let who = place.who.take();
        if place.at != OUT {
            deadlines.remove(name);
        }
        deadlines.free.push(name);
        drop(deadlines);
        drop(who);
    }

    /// Begins to count the time of those that have told, and fires what is due; the next moment, if there is one.
    fn turn(&self, cx: &Context<'_>) -> Option<Instant> {
        let driver = cx.waker().clone();
        let mut deadlines = lock(&self.deadlines);
        let mut nodes = mem::take(&mut deadlines.fresh);
        deadlines.ticks = !nodes.is_empty();
        drop(deadlines);
        let mut calls = Vec::new();
        for node in nodes.drain(..).filter_map(|node| node.upgrade()) {
            node.show_calls(&mut calls);
        }
        calls.retain(|call| !call.is_over());
        if !calls.is_empty() {
            // Nobody shows them again: if the runtime's clock panics, they are here for the next turn.
            lock(&self.deadlines).shown.append(&mut calls);
        }
        // After that, so that nobody's time is short.
        let now = self.now();
        let until = later_than(now, DEFAULT_CALL_TIME);
        let mut deadlines = lock(&self.deadlines);
        let calls = mem::take(&mut deadlines.shown);
        let (mut due, mut counted) = (Vec::new(), Vec::with_capacity(calls.len()));
        if deadlines.fresh.is_empty() {
            deadlines.fresh = nodes;
        }
        for call in calls {
            let name = deadlines.new_place(Place { at: OUT, who: Some(Who::Call(Arc::clone(&call))) });
            deadlines.insert(until, name);
            counted.push((call, name));
        }
        while let Some(&(at, name)) = deadlines.heap.first()
            && at <= now
        {
            deadlines.remove(name);
            due.extend(deadlines.places[name as usize].who.take());
        }
        let first = deadlines.heap.first().map(|first| first.0);
        let tick = deadlines.ticks.then(|| later_than(now, TICK));
        deadlines.armed = match (first, tick) {
            (Some(first), Some(tick)) => Some(first.min(tick)),
            (first, tick) => first.or(tick),
        };
        let (armed, before) = (deadlines.armed, deadlines.driver.replace(driver));
        drop(deadlines);
        drop(before);
        for (call, name) in counted {
            if !call.counts(until, name) {
                self.cancel(name);
            }
        }
        for who in due {
            drop(catch(|| match who {
                Who::Waker(waker) => waker.wake(),
                Who::Call(call) => call.expire(),
            }));
        }
        armed
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        clocks().remove(&self.id);
        let driver = lock(&self.deadlines).driver.take();
        if let Some(driver) = driver {
            wake(driver);
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").field("deadlines", &lock(&self.deadlines).heap.len()).finish_non_exhaustive()
    }
}

/// Says that nobody drives any more, when the task is dropped.
struct Driving(Weak<Clock>);

impl Drop for Driving {
    fn drop(&mut self) {
        if let Some(clock) = self.0.upgrade() {
            let mut deadlines = lock(&clock.deadlines);
            (deadlines.driven, deadlines.ticks, deadlines.armed) = (false, false, None);
            let driver = deadlines.driver.take();
            // They stay for the next task; and whoever is called there starts it.
            let fresh = deadlines.fresh.clone();
            drop(deadlines);
            drop(driver);
            for node in fresh.into_iter().filter_map(|node| node.upgrade()) {
                node.forget_clock();
            }
        }
    }
}

fn drive<R: Runtime>(runtime: Arc<R>, clock: Weak<Clock>) -> impl Future<Output = ()> + Send {
    // Also for a task that is dropped before its first poll.
    let driving = Driving(clock);
    // With what it waits for, unless it has been.
    let mut sleep: Option<(Option<Instant>, Pin<Box<_>>)> = None;
    poll_fn(move |cx| {
        loop {
            let Some(clock) = driving.0.upgrade() else { return Poll::Ready(()) };
            let next = clock.turn(cx);
            drop(clock);
            let Some(at) = next else {
                sleep = None;
                return Poll::Pending;
            };
            let (armed, timer) = sleep.get_or_insert_with(|| (Some(at), Box::pin(runtime.sleep_until(at))));
            if *armed != Some(at) {
                timer.set(runtime.sleep_until(at));
                *armed = Some(at);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            // It has been; it is not to be polled again.
            *armed = None;
        }
    })
}

/// So much later; a hundred years, if that is more than the clock can show.
pub(crate) fn later_than(now: Instant, after: Duration) -> Instant {
    now.checked_add(after).unwrap_or(now + Duration::from_secs(100 * 365 * 86_400))
}

/// A moment that somebody waits for.
pub(crate) struct Deadline {
    clock: Arc<Clock>,
    at: Instant,
    name: Option<u32>,
}

impl Deadline {
    pub(crate) fn new(clock: Arc<Clock>, at: Instant) -> Deadline {
        Deadline { clock, at, name: None }
    }

    pub(crate) fn poll(&mut self, cx: &Context<'_>) -> Poll<()> {
        let fired = match self.name {
            Some(name) => self.clock.look(name, cx),
            None => {
                self.name = Some(self.clock.set(self.at, cx.waker().clone()));
                false
            }
        };
        if fired { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        if let Some(name) = self.name {
            self.clock.cancel(name);
        }
    }
}
