//! How work changes hands: a worker's death loses nothing and doubles nothing.
//!
//! Two ways, one for each kind of thing:
//!
//! 1. What is handed over and not changed lies on a [`Desk`]. Whoever takes it gets a lease in its device's name, and the
//!    desk keeps the thing. Settling the lease is the one step that counts: before it the work was never done, after it
//!    it is. News of a death brings the leases of the dead back to the front. Names of devices are never used twice, so
//!    no lease is settled by anyone but its holder, and never twice.
//! 2. What is changed by its worker, and outlives it, waits in a [`Berth`]. Whoever boards it owns it, with no lock, and
//!    when its future is dropped the thing is back. The core drops a future before anyone hears of its end: the successor
//!    finds the berth full. What lies in a berth is whole at every point where its worker can end.

use std::{
    collections::{BTreeMap, VecDeque},
    future::poll_fn,
    ops::{Deref, DerefMut},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use backplane::DeviceId;

/// Nothing of ours is left half-done under a lock, so a panic elsewhere in its holder spoils nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A thing on loan; the desk keeps it until the loan is settled.
#[derive(Debug)]
pub(crate) struct Lease<T> {
    /// How many things were given before this one, and one. The same when it is given again.
    pub(crate) serial: u64,
    /// The thing, shared with the desk.
    pub(crate) item: Arc<T>,
}

impl<T> Clone for Lease<T> {
    fn clone(&self) -> Self {
        Lease { serial: self.serial, item: Arc::clone(&self.item) }
    }
}

/// A bounded queue that keeps what it lends until the borrower has settled.
#[derive(Debug)]
pub(crate) struct Desk<T> {
    state: Mutex<State<T>>,
    capacity: usize,
}

#[derive(Debug)]
struct State<T> {
    waiting: VecDeque<Lease<T>>,
    lent: Vec<(DeviceId, Lease<T>)>,
    given: u64,
    closed: bool,
    takers: Vec<Waker>,
    /// Givers who wait, by the order in which they came.
    givers: BTreeMap<u64, Waker>,
    tickets: u64,
}

impl<T> State<T> {
    fn first_giver(&self) -> Option<Waker> {
        self.givers.values().next().cloned()
    }
}

/// A giver who waits for [room](Desk::room).
#[derive(Debug)]
pub(crate) struct Room<'a, T> {
    desk: &'a Desk<T>,
    ticket: Option<u64>,
}

impl<T> Future for Room<'_, T> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let desk = self.desk;
        let next = {
            let mut state = lock(&desk.state);
            let is_first = state.givers.keys().next().is_none_or(|first| Some(*first) == self.ticket);
            if state.waiting.len() >= desk.capacity || !is_first {
                let ticket = *self.ticket.get_or_insert(state.tickets);
                state.tickets = state.tickets.max(ticket + 1);
                state.givers.insert(ticket, cx.waker().clone());
                return Poll::Pending;
            }
            if let Some(ticket) = self.ticket.take() {
                state.givers.remove(&ticket);
            }
            // This giver will fill one place: is there another for the next?
            if state.waiting.len() + 1 < desk.capacity { state.first_giver() } else { None }
        };
        next.into_iter().for_each(Waker::wake);
        Poll::Ready(())
    }
}

impl<T> Drop for Room<'_, T> {
    /// Whoever gives up waiting holds nobody up.
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let next = {
            let mut state = lock(&self.desk.state);
            state.givers.remove(&ticket);
            if state.waiting.len() < self.desk.capacity { state.first_giver() } else { None }
        };
        next.into_iter().for_each(Waker::wake);
    }
}

impl<T> Desk<T> {
    /// An empty desk with room for this many things, and one more for each giver who saw room at the same time.
    pub(crate) fn new(capacity: usize) -> Desk<T> {
        let state = State {
            waiting: VecDeque::new(),
            lent: Vec::new(),
            given: 0,
            closed: false,
            takers: Vec::new(),
            givers: BTreeMap::new(),
            tickets: 0,
        };
        Desk { state: Mutex::new(state), capacity }
    }

    /// Puts a thing down. Never waits: whoever wants to be held back asks for [`room`](Desk::room) first.
    pub(crate) fn give(&self, item: impl Into<Arc<T>>) {
        let takers = {
            let mut state = lock(&self.state);
            state.given += 1;
            let lease = Lease { serial: state.given, item: item.into() };
            state.waiting.push_back(lease);
            std::mem::take(&mut state.takers)
        };
        takers.into_iter().for_each(Waker::wake);
    }

    /// Waits until there is room, and until all who waited before have had it. Whoever has to wait is woken when half of
    /// the desk is free, so that two threads do not wake each other for every single thing.
    pub(crate) fn room(&self) -> Room<'_, T> {
        Room { desk: self, ticket: None }
    }

    /// Lends the next thing to a device, which holds no other of this desk. `None` when no more will come.
    ///
    /// Cancellation-safe in the way of this file: a lease that nobody has seen comes back with its device's end.
    pub(crate) async fn take(&self, by: DeviceId) -> Option<Lease<T>> {
        poll_fn(|cx| self.poll_take(by, cx)).await
    }

    fn poll_take(&self, by: DeviceId, cx: &mut Context<'_>) -> Poll<Option<Lease<T>>> {
        let (lease, giver) = {
            let mut state = lock(&self.state);
            let Some(lease) = state.waiting.pop_front() else {
                if state.closed {
                    return Poll::Ready(None);
                }
                wait_in(&mut state.takers, cx);
                return Poll::Pending;
            };
            state.lent.push((by, lease.clone()));
            let half_free = state.waiting.len() * 2 <= self.capacity;
            (lease, if half_free { state.first_giver() } else { None })
        };
        giver.into_iter().for_each(Waker::wake);
        Poll::Ready(Some(lease))
    }

    /// The work is done, once and for all. `false` if the device holds nothing: then someone else has it by now, and what
    /// was made of it must not be handed on.
    #[must_use]
    pub(crate) fn settle(&self, by: DeviceId) -> bool {
        let mut state = lock(&self.state);
        let at = state.lent.iter().position(|(holder, _)| *holder == by);
        at.map(|at| state.lent.swap_remove(at)).is_some()
    }

    /// The device has ended: what it held is given to the next who asks, before all else. Says whether it held anything.
    pub(crate) fn reclaim(&self, from: DeviceId) -> bool {
        let takers = {
            let mut state = lock(&self.state);
            let Some(at) = state.lent.iter().position(|(holder, _)| *holder == from) else { return false };
            let (_, lease) = state.lent.swap_remove(at);
            state.waiting.push_front(lease);
            std::mem::take(&mut state.takers)
        };
        takers.into_iter().for_each(Waker::wake);
        true
    }

    /// Nothing more will be given; what is there is still lent.
    pub(crate) fn close(&self) {
        let takers = {
            let mut state = lock(&self.state);
            state.closed = true;
            std::mem::take(&mut state.takers)
        };
        takers.into_iter().for_each(Waker::wake);
    }
}

/// Adds the task to those who wait, once.
fn wait_in(wakers: &mut Vec<Waker>, cx: &Context<'_>) {
    if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
        wakers.push(cx.waker().clone());
    }
}

/// Where a thing waits that belongs to one worker at a time and outlives them all.
#[derive(Debug)]
pub(crate) struct Berth<T>(Mutex<Option<T>>);

impl<T> Berth<T> {
    /// A berth with something in it.
    pub(crate) fn new(thing: T) -> Berth<T> {
        Berth(Mutex::new(Some(thing)))
    }

    /// Takes what is in it, until the guard is dropped. `None` if someone has it.
    pub(crate) fn board(&self) -> Option<Aboard<'_, T>> {
        let thing = lock(&self.0).take()?;
        Some(Aboard { berth: self, thing: Some(thing) })
    }

    /// What is in it, for good.
    pub(crate) fn into_inner(self) -> Option<T> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Owns what was in a [`Berth`], and brings it back when dropped, also by a panic.
#[derive(Debug)]
pub(crate) struct Aboard<'a, T> {
    berth: &'a Berth<T>,
    thing: Option<T>,
}

impl<T> Deref for Aboard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.thing.as_ref().expect("there until dropped")
    }
}

impl<T> DerefMut for Aboard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.thing.as_mut().expect("there until dropped")
    }
}

impl<T> Drop for Aboard<'_, T> {
    fn drop(&mut self) {
        *lock(&self.berth.0) = self.thing.take();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        sync::atomic::{AtomicUsize, Ordering::Relaxed},
        task::Wake,
    };

    use backplane::Device;
    use futures_lite::future::block_on;

    use super::*;

    #[test]
    fn what_the_dead_had_is_given_again_once_and_first() {
        let (desk, first, second) = (Desk::new(8), Device::new().id(), Device::new().id());
        for n in 1..=3 {
            desk.give(n);
        }
        desk.close();
        block_on(async {
            let taken = desk.take(first).await.map(|lease| (lease.serial, *lease.item));
            assert_eq!(taken, Some((1, 1)));
            assert!(desk.reclaim(first) && !desk.reclaim(first));
            for n in 1..=3 {
                let lease = desk.take(second).await.expect("there are three");
                assert_eq!((lease.serial, *lease.item), (n, n));
                assert!(desk.settle(second) && !desk.settle(second));
            }
            assert!(desk.take(second).await.is_none());
        });
    }

    #[test]
    fn nobody_settles_what_was_taken_away() {
        let (desk, dead, heir) = (Desk::<&str>::new(8), Device::new().id(), Device::new().id());
        desk.give("work");
        block_on(async {
            desk.take(dead).await;
            desk.reclaim(dead);
            desk.take(heir).await;
            assert!(!desk.settle(dead));
            assert!(desk.settle(heir));
        });
    }

    /// Counts how often it is woken.
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    fn woken() -> (Arc<Woken>, Waker) {
        let woken = Arc::new(Woken(AtomicUsize::new(0)));
        (Arc::clone(&woken), Waker::from(woken))
    }

    #[test]
    fn a_giver_waits_until_half_is_free() {
        let (desk, taker) = (Desk::new(4), Device::new().id());
        (0..4).for_each(|n| desk.give(n));
        let (count, waker) = woken();
        let mut cx = Context::from_waker(&waker);
        let mut room = pin!(desk.room());
        assert!(room.as_mut().poll(&mut cx).is_pending());
        for (woken, free) in [(0, 1), (1, 2)] {
            assert!(desk.poll_take(taker, &mut cx).is_ready());
            assert_eq!(count.0.load(Relaxed), woken, "{free} places are free");
        }
        assert!(room.as_mut().poll(&mut cx).is_ready());
    }

    #[test]
    fn givers_have_their_turns_in_the_order_in_which_they_came() {
        let (desk, taker) = (Desk::new(2), Device::new().id());
        let (count, waker) = woken();
        let (mut quiet, mut cx) = (Context::from_waker(Waker::noop()), Context::from_waker(&waker));
        (0..2).for_each(|n| desk.give(n));
        let (mut first, mut second) = (Box::pin(desk.room()), Box::pin(desk.room()));
        assert!(first.as_mut().poll(&mut quiet).is_pending() && second.as_mut().poll(&mut cx).is_pending());
        assert!(desk.poll_take(taker, &mut quiet).is_ready() && desk.settle(taker));
        assert!(second.as_mut().poll(&mut cx).is_pending(), "it is another's turn");
        assert!(pin!(desk.room()).poll(&mut quiet).is_pending(), "whoever comes later waits too");
        drop(first);
        assert_eq!(count.0.load(Relaxed), 1, "woken as the first has gone");
        assert!(second.as_mut().poll(&mut cx).is_ready());
    }

    #[test]
    fn a_berth_is_full_again_after_a_panic() {
        let berth = Berth::new(vec![1]);
        let crashed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut aboard = berth.board().expect("full");
            assert!(berth.board().is_none());
            aboard.push(2);
            std::panic::resume_unwind(Box::new("quietly"));
        }));
        assert!(crashed.is_err());
        assert_eq!(berth.board().as_deref(), Some(&vec![1, 2]));
    }
}
