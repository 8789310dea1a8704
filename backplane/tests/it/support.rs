//! What the stories share: polling by hand, and wakers that count.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use backplane::{Device, Disconnect, Exit, FaultKind, Message};

/// Polls once, with a waker that does nothing.
pub(crate) fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// The value of a future that is ready at once.
pub(crate) fn now<F: Future>(future: F) -> F::Output {
    match poll(std::pin::pin!(future)) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it is not ready"),
    }
}

/// The next news, which must be of an end.
pub(crate) fn end(device: &mut Device) -> Disconnect {
    match device.try_receive() {
        Some(Message::Disconnect(news)) => news,
        other => panic!("{other:?} instead of an end"),
    }
}

/// All news there is, as who and how.
pub(crate) fn ends(device: &mut Device) -> Vec<(backplane::DeviceId, Exit)> {
    std::iter::from_fn(|| device.try_receive())
        .map(|message| match message {
            Message::Disconnect(news) => (news.device, news.exit),
            Message::Shutdown(by) => panic!("{by} asks to stop"),
        })
        .collect()
}

pub(crate) fn kind(exit: &Exit) -> Option<FaultKind> {
    exit.fault().map(|fault| fault.kind())
}

/// A waker that counts how often it is woken.
#[derive(Default)]
pub(crate) struct Wakes(AtomicUsize);

impl Wakes {
    pub(crate) fn new() -> (Arc<Wakes>, Waker) {
        let wakes = Arc::new(Wakes::default());
        (Arc::clone(&wakes), Waker::from(wakes))
    }

    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}
