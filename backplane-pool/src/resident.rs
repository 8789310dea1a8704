//! A future that lives on one thread, in the hands of a task that the pool may send about.
//!
//! The task is one, not two of which one waits for the other: so the future is gone when the task says so, and what wakes the
//! future wakes the task.

use std::{
    any::Any,
    cell::RefCell,
    future::{Future, pending},
    marker::PhantomData,
    pin::{Pin, pin},
    task::{Context, Poll},
    thread::{self, ThreadId},
};

use slab::Slab;

thread_local! {
    /// The futures that live on this thread; one that is being polled is not in its place meanwhile.
    static HERE: RefCell<Slab<Option<Box<dyn Any>>>> = const { RefCell::new(Slab::new()) };
}

/// What can be sent of a future that cannot: how it is made, and then where it is.
pub(crate) struct Resident<M, F> {
    place: Place<M>,
    future: PhantomData<fn() -> F>,
}

enum Place<M> {
    /// To be made by the first poll.
    Nowhere(M),
    /// The thread of the first poll, and where it is there. All polls are there, and so is the drop: its task is pinned.
    On(ThreadId, usize),
    Gone,
}

impl<M, F> Resident<M, F> {
    pub(crate) fn new(make: M) -> Resident<M, F> {
        Resident { place: Place::Nowhere(make), future: PhantomData }
    }

    /// One that is made already, on this thread.
    pub(crate) fn here(future: F) -> Resident<M, F>
    where
        F: 'static,
    {
        let future: Box<dyn Any> = Box::new(Box::pin(future));
        let at = HERE.with_borrow_mut(|here| here.insert(Some(future)));
        Resident { place: Place::On(here(), at), future: PhantomData }
    }
}

// Nothing of it is pinned; the future is in a box.
impl<M, F> Unpin for Resident<M, F> {}

impl<M, F> Future for Resident<M, F>
where
    M: FnOnce() -> F,
    F: Future + 'static,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let mut future = match std::mem::replace(&mut self.place, Place::Gone) {
            Place::Nowhere(make) => {
                // Made before there is a place: nothing of the user's runs while that is open.
                let future: Box<dyn Any> = Box::new(Box::pin(make()));
                let at = HERE.with_borrow_mut(|here| here.insert(None));
                self.place = Place::On(here(), at);
                future
            }
            Place::On(thread, at) => {
                self.place = Place::On(thread, at);
                // Elsewhere there is nothing to poll. It does not come about.
                let Some(future) = take(thread, at) else { return Poll::Pending };
                future
            }
            Place::Gone => return pin!(pending()).poll(cx),
        };
        let polled = future.downcast_mut::<Pin<Box<F>>>().map(|future| future.as_mut().poll(cx));
        if let (Some(Poll::Pending), Place::On(_, at)) = (&polled, &self.place) {
            HERE.with_borrow_mut(|here| {
                if let Some(place) = here.get_mut(*at) {
                    *place = Some(future);
                }
            });
        }
        polled.unwrap_or(Poll::Pending)
    }
}

impl<M, F> Drop for Resident<M, F> {
    fn drop(&mut self) {
        if let Place::On(thread, at) = self.place
            && thread == here()
        {
            let future = HERE.try_with(|here| here.try_borrow_mut().ok()?.try_remove(at)).ok().flatten();
            drop(future);
        }
    }
}

/// The thread that this runs on. Unlike the thread itself, its name is kept where it costs nothing to ask for.
#[inline]
pub(crate) fn here() -> ThreadId {
    thread_local! {
        static NAME: ThreadId = thread::current().id();
    }
    NAME.with(|name| *name)
}

fn take(thread: ThreadId, at: usize) -> Option<Box<dyn Any>> {
    let is_here = thread == here();
    is_here.then(|| HERE.with_borrow_mut(|here| here.get_mut(at)?.take())).flatten()
}
