//! Deadlines: a heap of moments on the runtime's clock, and one task that looks after all of them.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Weak,
    task::{Context, Poll, Waker},
    time::Instant,
};

use backplane::{Runtime, catch};

use crate::sync::{Arc, Mutex, lock};

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
    driven: bool,
    /// The moment that the task waits for; it may be earlier than the first in the heap.
    armed: Option<Instant>,
    driver: Option<Waker>,
}

struct Place {
    /// Where in the heap, or `OUT`.
    at: u32,
    waker: Option<Waker>,
}

const OUT: u32 = u32::MAX;

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

    fn remove(&mut self, place: u32) {
        let index = std::mem::replace(&mut self.places[place as usize].at, OUT) as usize;
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

    fn set(self: &Arc<Clock>, at: Instant, waker: Waker) -> u32 {
        let mut deadlines = lock(&self.deadlines);
        let place = Place { at: deadlines.heap.len() as u32, waker: Some(waker) };
        let name = match deadlines.free.pop() {
            Some(name) => {
                deadlines.places[name as usize] = place;
                name
            }
            None => {
                deadlines.places.push(place);
                deadlines.places.len() as u32 - 1
            }
        };
        deadlines.heap.push((at, name));
        let last = deadlines.heap.len() - 1;
        deadlines.up(last);
        let start = !std::mem::replace(&mut deadlines.driven, true);
        let sooner = deadlines.armed.is_none_or(|armed| at < armed);
        let driver = if sooner { deadlines.driver.take() } else { None };
        drop(deadlines);
        if start {
            (self.start)(Arc::downgrade(self));
        }
        if let Some(driver) = driver {
            driver.wake();
        }
        name
    }

    /// Whether it has fired; else the waker is told.
    fn look(&self, name: u32, cx: &Context<'_>) -> bool {
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

    fn cancel(&self, name: u32) {
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
        while let Some(&(at, name)) = deadlines.heap.first()
            && at <= now
        {
            deadlines.remove(name);
            due.extend(deadlines.places[name as usize].waker.take());
        }
        deadlines.armed = deadlines.heap.first().map(|first| first.0);
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
            (deadlines.driven, deadlines.armed) = (false, None);
            let driver = deadlines.driver.take();
            drop(deadlines);
            drop(driver);
        }
    }
}

async fn drive<R: Runtime>(runtime: Arc<R>, clock: Weak<Clock>) {
    let driving = Driving(clock);
    let mut sleep: Option<(Instant, Pin<Box<R::Sleep>>)> = None;
    poll_fn(|cx| {
        loop {
            let Some(clock) = driving.0.upgrade() else { return Poll::Ready(()) };
            let next = clock.turn(cx);
            drop(clock);
            let Some(at) = next else {
                sleep = None;
                return Poll::Pending;
            };
            if sleep.as_ref().map(|(armed, _)| *armed) != Some(at) {
                sleep = Some((at, Box::pin(runtime.sleep_until(at))));
            }
            let Some((_, timer)) = &mut sleep else { return Poll::Pending };
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            sleep = None;
        }
    })
    .await;
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

    pub(crate) fn is_past(&self) -> bool {
        self.at <= self.clock.now()
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
