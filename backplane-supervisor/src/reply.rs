//! One answer to one question.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use backplane::Exit;

use crate::engine::quietly;
use crate::handle::Gone;

struct Cell<T> {
    state: Mutex<State<T>>,
}

enum State<T> {
    Waiting(Option<Waker>),
    Answered(T),
    Gone(Option<Exit>),
}

impl<T> Cell<T> {
    fn set(&self, new: State<T>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State::Waiting(waker) = &mut *state else { return };
        let waker = waker.take();
        *state = new;
        drop(state);
        if let Some(waker) = waker {
            quietly(|| waker.wake());
        }
    }
}

/// The side that answers. Dropped without an answer, it says that nobody is there.
pub(crate) struct Reply<T>(Arc<Cell<T>>);

/// The side that waits.
pub(crate) struct Answer<T>(Arc<Cell<T>>);

pub(crate) fn reply<T>() -> (Reply<T>, Answer<T>) {
    let cell = Arc::new(Cell { state: Mutex::new(State::Waiting(None)) });
    (Reply(Arc::clone(&cell)), Answer(cell))
}

impl<T> Reply<T> {
    pub(crate) fn send(self, answer: T) {
        self.0.set(State::Answered(answer));
    }

    /// Nobody will answer, for who was asked has ended like this.
    pub(crate) fn gone(self, exit: &Exit) {
        self.0.set(State::Gone(Some(exit.clone())));
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        self.0.set(State::Gone(None));
    }
}

impl<T> Future for Answer<T> {
    type Output = Result<T, Gone>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T, Gone>> {
        let waker = cx.waker().clone();
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *state, State::Gone(None)) {
            State::Answered(answer) => Poll::Ready(Ok(answer)),
            State::Gone(exit) => Poll::Ready(Err(Gone(exit))),
            State::Waiting(before) => {
                *state = State::Waiting(Some(waker));
                drop(state);
                drop(before);
                Poll::Pending
            }
        }
    }
}
