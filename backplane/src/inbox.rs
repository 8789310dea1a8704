//! Where a managed future finds what its device hands over.

use std::{
    collections::VecDeque,
    future::{self, Future},
    task::{Context, Poll, Waker},
};

use crate::{
    exit::Message,
    sync::{Arc, Mutex, lock},
    unwind::quietly,
};

/// Takes the news that a device hands over while it is [managed](crate::Device::manage); made by
/// [`Device::inbox`](crate::Device::inbox).
///
/// Dropping it drops what is in it; what is handed over later is dropped, too.
///
/// ```
/// use backplane::{Device, LinkMode, Message, OnFault};
/// let (mut a, b) = (Device::new(), Device::new());
/// a.link(&b, LinkMode::Monitor);
/// a.on_fault(OnFault::HandOver);
/// let mut inbox = a.inbox();
/// drop(b);
/// let managed = a.manage(async move {
///     match inbox.receive().await {
///         Some(Message::Disconnect(news)) => Ok(news.exit.is_fault()),
///         other => Err(other),
///     }
/// });
/// assert!(futures_lite::future::block_on(managed).unwrap()); // it went on, and heard
/// ```
#[derive(Debug)]
pub struct Inbox {
    shared: Arc<Shared>,
}

/// The queue between a device and its inbox.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    messages: VecDeque<Message>,
    waker: Option<Waker>,
    closed: bool,
}

impl Inbox {
    pub(crate) fn new(shared: Arc<Shared>) -> Inbox {
        Inbox { shared }
    }

    /// The next message, if there is one.
    ///
    /// ```
    /// use backplane::Device;
    /// let mut device = Device::new();
    /// let mut inbox = device.inbox();
    /// assert_eq!(inbox.try_receive(), None); // nothing is handed over unless somebody manages the device
    /// ```
    pub fn try_receive(&mut self) -> Option<Message> {
        lock(&self.shared.state).messages.pop_front()
    }

    /// Waits for the next message. `None` once the device has ended, or has another inbox, and all before that has been
    /// taken.
    ///
    /// Cancellation-safe: a message is taken only when it is returned.
    ///
    /// ```
    /// use backplane::Device;
    /// let mut device = Device::new();
    /// let mut inbox = device.inbox();
    /// drop(device);
    /// assert_eq!(futures_lite::future::block_on(inbox.receive()), None);
    /// ```
    pub fn receive(&mut self) -> impl Future<Output = Option<Message>> + Send {
        future::poll_fn(|cx| self.poll_receive(cx))
    }

    /// As [`receive`](Inbox::receive), for futures written by hand. The waker of the last call is the one that is told.
    ///
    /// ```
    /// use std::future::poll_fn;
    /// use backplane::Device;
    /// let mut device = Device::new();
    /// let mut inbox = device.inbox();
    /// drop(device);
    /// assert_eq!(futures_lite::future::block_on(poll_fn(|cx| inbox.poll_receive(cx))), None);
    /// ```
    pub fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        let mut waker = Some(cx.waker().clone());
        let poll = {
            let mut state = lock(&self.shared.state);
            match state.messages.pop_front() {
                Some(message) => Poll::Ready(Some(message)),
                None if state.closed => Poll::Ready(None),
                None => {
                    std::mem::swap(&mut state.waker, &mut waker);
                    Poll::Pending
                }
            }
        };
        // The waker of before, or the one that was not needed: dropped outside the lock.
        drop(waker);
        poll
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.shared.close();
        let messages = std::mem::take(&mut lock(&self.shared.state).messages);
        drop(messages);
    }
}

#[cfg(feature = "stream")]
impl futures_core::Stream for Inbox {
    type Item = Message;

    fn poll_next(mut self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        self.poll_receive(cx)
    }
}

impl Shared {
    pub(crate) fn put(&self, message: Message) {
        let waker = {
            let mut state = lock(&self.state);
            if state.closed {
                return;
            }
            state.messages.push_back(message);
            state.waker.take()
        };
        // Even if it is the one that runs at this moment: the inbox may be read beside `manage`, and have had its turn.
        if let Some(waker) = waker {
            quietly(|| waker.wake());
        }
    }

    pub(crate) fn close(&self) {
        let waker = {
            let mut state = lock(&self.state);
            state.closed = true;
            state.waker.take()
        };
        if let Some(waker) = waker {
            quietly(|| waker.wake());
        }
    }
}
