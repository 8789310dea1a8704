//! Waits for a start.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use crate::{
    mailbox::wake,
    sync::{Arc, Mutex, lock},
};

#[derive(Default)]
struct State {
    said: Option<bool>,
    waker: Option<Waker>,
}

/// Says that it is started; dropped, that it is not.
pub(crate) struct Started(Arc<Mutex<State>>);

/// Waits for that.
pub(crate) struct Starts(Arc<Mutex<State>>);

pub(crate) fn gate() -> (Started, Starts) {
    let state = Arc::new(Mutex::new(State::default()));
    (Started(Arc::clone(&state)), Starts(state))
}

impl Started {
    pub(crate) fn open(self) {
        self.say(true);
    }

    fn say(&self, started: bool) {
        let waker = {
            let mut state = lock(&self.0);
            state.said.get_or_insert(started);
            state.waker.take()
        };
        if let Some(waker) = waker {
            wake(waker);
        }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        self.say(false);
    }
}

impl Future for Starts {
    type Output = bool;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<bool> {
        let waker = cx.waker().clone();
        let mut state = lock(&self.0);
        match state.said {
            Some(said) => Poll::Ready(said),
            None => {
                let before = state.waker.replace(waker);
                drop(state);
                drop(before);
                Poll::Pending
            }
        }
    }
}
