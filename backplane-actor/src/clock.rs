//! Deadlines: a heap of moments on the runtime's clock, and one task that looks after all of them.
//!
//! A call's default time is counted without reading the clock, which takes as long as half a call: who waits so long stands
//! in `fresh`, and the task counts from when it looks there. It looks at once if it was not about to, and again after each
//! [`TICK`] in which somebody came. So such a deadline is never early, and late by a tick at most, and by what the executor
//! is late itself.

use std::{
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
    sync::{Arc, Mutex, lock},
};

/// The clock of a system. Its task is started with the first deadline, and again if its executor dropped it.
pub(crate) struct Clock {
    now: Box<dyn Fn() -> Instant + Send + Sync>,
    start: Box<dyn Fn(Weak<Clock>) + Send + Sync>,
    deadlines: Mutex<Deadlines>,
}

#[derive(Default)]
struct Deadlines {
    heap: Vec<(Instant, u32)>,
    places: Vec<Place>,
    free: Vec<u32>,
    /// Places of those that wait for [`DEFAULT_CALL_TIME`] from when the task next looks.
    fresh: Vec<u32>,
    /// Somebody has come there since the task last looked.
    came: bool,
    /// The task looks there again within a tick, by itself or because it has been woken.
    ticks: bool,
    driven: bool,
    /// The moment that the task waits for; it may be earlier than the first in the heap.
    armed: Option<Instant>,
    driver: Option<Waker>,
}

struct Place {
    /// Where in the heap; or where in `fresh`, with `FRESH`; or `OUT`.
    at: u32,
    waker: Option<Waker>,
}

const OUT: u32 = u32::MAX;
const FRESH: u32 = 1 << 31;

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
        let at = mem::replace(&mut self.places[place as usize].at, OUT);
        if at & FRESH != 0 {
            let index = (at & !FRESH) as usize;
            self.fresh.swap_remove(index);
            if let Some(moved) = self.fresh.get(index) {
                self.places[*moved as usize].at = at;
            }
            return;
        }
        let index = at as usize;
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
        let clock = Arc::clone(&runtime);
        Arc::new(Clock {
            now: Box::new(move || clock.now()),
            start: Box::new(move |clock| {
                let task = runtime.spawn(drive(Arc::clone(&runtime), clock));
                runtime.detach(task);
            }),
            deadlines: Mutex::default(),
        })
    }

    pub(crate) fn now(&self) -> Instant {
        (self.now)()
    }

    pub(crate) fn set(self: &Arc<Clock>, at: Instant, waker: Waker) -> u32 {
        let mut deadlines = lock(&self.deadlines);
        let name = deadlines.new_place(Place { at: OUT, waker: Some(waker) });
        deadlines.insert(at, name);
        let start = !mem::replace(&mut deadlines.driven, true);
        let sooner = deadlines.armed.is_none_or(|armed| at < armed);
        let driver = if sooner { deadlines.driver.take() } else { None };
        drop(deadlines);
        self.see_to_it(start, driver);
        name
    }

    /// For so long as a call waits unless told otherwise, from now on, about.
    pub(crate) fn set_default(self: &Arc<Clock>, waker: Waker) -> u32 {
        let mut deadlines = lock(&self.deadlines);
        let at = FRESH | deadlines.fresh.len() as u32;
        let name = deadlines.new_place(Place { at, waker: Some(waker) });
        deadlines.fresh.push(name);
        deadlines.came = true;
        let start = !mem::replace(&mut deadlines.driven, true);
        let ticks = mem::replace(&mut deadlines.ticks, true);
        let driver = if ticks { None } else { deadlines.driver.take() };
        drop(deadlines);
        self.see_to_it(start, driver);
        name
    }

    /// When this one is due; now, if it has fired; `None`, if it has but just been set, and is counted from when the task
    /// next looks.
    pub(crate) fn deadline_of(&self, name: u32) -> Option<Instant> {
        let deadlines = lock(&self.deadlines);
        let at = deadlines.places.get(name as usize).map_or(OUT, |place| place.at);
        let due = deadlines.heap.get(at as usize).map(|due| due.0);
        drop(deadlines);
        match at {
            OUT => Some(self.now()),
            _ => due,
        }
    }

    #[inline]
    fn see_to_it(self: &Arc<Clock>, start: bool, driver: Option<Waker>) {
        if start {
            (self.start)(Arc::downgrade(self));
        }
        if let Some(driver) = driver {
            driver.wake();
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
            if place.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                return false;
            }
            if let Some(new) = new.take() {
                let before = place.waker.replace(new);
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
        let waker = place.waker.take();
        if place.at != OUT {
            deadlines.remove(name);
        }
        deadlines.free.push(name);
        drop(deadlines);
        drop(waker);
    }

    /// Fires what is due; the next moment, if there is one.
    fn turn(&self, cx: &Context<'_>) -> Option<Instant> {
        let (now, driver) = (self.now(), cx.waker().clone());
        let mut due = Vec::new();
        let mut deadlines = lock(&self.deadlines);
        let mut fresh = mem::take(&mut deadlines.fresh);
        for name in fresh.drain(..) {
            deadlines.insert(later_than(now, DEFAULT_CALL_TIME), name);
        }
        deadlines.fresh = fresh;
        deadlines.ticks = mem::take(&mut deadlines.came);
        while let Some(&(at, name)) = deadlines.heap.first()
            && at <= now
        {
            deadlines.remove(name);
            due.extend(deadlines.places[name as usize].waker.take());
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
        for waker in due {
            drop(catch(|| waker.wake()));
        }
        armed
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        let driver = lock(&self.deadlines).driver.take();
        if let Some(driver) = driver {
            drop(catch(|| driver.wake()));
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
            drop(deadlines);
            drop(driver);
        }
    }
}

async fn drive<R: Runtime>(runtime: Arc<R>, clock: Weak<Clock>) {
    let driving = Driving(clock);
    // With what it waits for, unless it has been.
    let mut sleep: Option<(Option<Instant>, Pin<Box<_>>)> = None;
    poll_fn(|cx| {
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
    .await;
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
