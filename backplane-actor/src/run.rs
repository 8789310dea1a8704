//! An incarnation: news in, polls caught, and the end in its order.
//!
//! The order of an end: it is known how; what the future held is dropped; the queue is kept or buried; callers hear;
//! watchers hear.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use backplane::{Device, Exit, Fault, Message, catch};
use pin_project_lite::pin_project;

use crate::{
    frame::{self, Frame},
    mailbox::{Item, Shared},
    observe::{self, Observer},
    options::DeadLetter,
    sync::Arc,
    system::Outcome,
};

/// So much news is heard in one poll, before the actor gets its turn.
const TURN: usize = 256;

pin_project! {
    /// An actor's future: what an executor runs. Made by [`Home`](crate::Home) and [`System`](crate::System).
    ///
    /// Dropped half-way it is a kill: all that the actor held is dropped, and those who call or watch it hear of it.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane::{Device, Fault, FaultKind, LinkMode, Message};
    /// # use backplane_actor::Options;
    /// let (_address, home) = system.prepare::<u32>(Options::new());
    /// let (actor, mut watcher) = (Device::new(), Device::new());
    /// watcher.link(&actor.line(), LinkMode::Monitor);
    ///
    /// let run = home.run(actor, |mut mailbox| async move { mailbox.receive().await; });
    /// drop(run); // half-way
    /// let Some(Message::Disconnect(news)) = watcher.try_receive() else { panic!("nobody says so") };
    /// assert!(news.exit.is_fault());
    /// # }
    /// ```
    #[must_use = "futures do nothing unless polled"]
    pub struct Run<M, F> where M: Send, M: 'static {
        shared: Arc<Shared<M>>,
        // Until it has ended.
        device: Option<Device>,
        frame: Option<Frame>,
        observer: Observer,
        #[pin]
        future: Option<F>,
    }

    impl<M, F> PinnedDrop for Run<M, F> where M: Send, M: 'static {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            let Some(device) = this.device.take() else { return };
            let exit = Exit::Fault(Fault::killed());
            this.shared.ending(&exit);
            drop(catch(|| this.future.set(None)));
            this.shared.ended(&exit);
            observe::ended(&this.shared.name, &exit);
            settle(this.frame, Some(&exit));
            // The device itself says whether it was condemned.
            drop(device);
        }
    }
}

fn settle(frame: &mut Option<Frame>, exit: Option<&Exit>) {
    if let Some(frame) = frame
        && (exit.is_some() || !frame.ending)
    {
        for call in frame.dropped.take().into_iter().flat_map(|dropped| *dropped) {
            call.settle(exit);
        }
    }
}

impl<M: Send + 'static, F: Future<Output: Outcome>> Run<M, F> {
    pub(crate) fn new(shared: Arc<Shared<M>>, device: Device, future: F) -> Run<M, F> {
        let node = shared.node();
        let frame = Frame { node, call: None, dropped: None, ending: false };
        let observer = Observer::new(&*shared);
        Run { shared, device: Some(device), frame: Some(frame), observer, future: Some(future) }
    }
}

/// What a message of the mesh means; an exit, if this is the end.
fn hear<M: Send + 'static>(shared: &Shared<M>, me: backplane::DeviceId, message: Message) -> Option<Exit> {
    match message {
        Message::Shutdown(from) if from == me => shared.is_killed().then(|| Exit::Fault(Fault::killed())),
        Message::Shutdown(_) => {
            shared.stop(Exit::Shutdown);
            None
        }
        Message::Disconnect(news) => {
            let mut heard = shared.watches(|watches| watches.hear(news.device));
            for (number, make) in heard.monitors {
                let news = news.clone();
                match catch(|| make(news)) {
                    Ok(message) => {
                        if let Err(message) = shared.push_system(message, Some(number)) {
                            shared.bury(Item { message, call: None }, DeadLetter::Stopped);
                        }
                    }
                    Err(panic) => return Some(Exit::Fault(Fault::panic(&panic))),
                }
            }
            if !heard.linked {
                return None;
            }
            match &mut heard.trap {
                None => Fault::cascade(&news).map(Exit::Fault),
                Some(trap) => {
                    let made = catch(|| trap(news));
                    if let Some(trap) = heard.trap.take() {
                        shared.watches(|watches| watches.trap_again(trap));
                    }
                    match made {
                        Ok(message) => drop(shared.push_system(message, None)),
                        Err(panic) => return Some(Exit::Fault(Fault::panic(&panic))),
                    }
                    None
                }
            }
        }
    }
}

impl<M: Send + 'static, F: Future<Output: Outcome>> Future for Run<M, F> {
    type Output = Exit;

    /// # Panics
    ///
    /// If it has returned before.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Exit> {
        let mut this = self.project();
        let Some(device) = this.device.as_mut() else { panic!("polled after it had ended") };
        let mut end = None;
        let id = device.id();
        let mut budget = TURN;
        while end.is_none()
            && budget > 0
            && let Poll::Ready(message) = device.poll_receive(cx)
        {
            end = hear(this.shared, id, message);
            budget -= 1;
        }
        if budget == 0 {
            cx.waker().wake_by_ref();
        }
        let exit = match end {
            Some(exit) => exit,
            None => {
                let Some(future) = this.future.as_mut().as_pin_mut() else {
                    panic!("polled after it had ended")
                };
                let frame = &mut *this.frame;
                let poll = || frame::within(frame, || catch(|| future.poll(cx)));
                match this.observer.poll(&**this.shared, poll) {
                    Ok(Poll::Pending) => {
                        settle(this.frame, None);
                        return Poll::Pending;
                    }
                    Ok(Poll::Ready(outcome)) => match outcome.exit() {
                        // Asked to stop, it ends as asked, unless it fails.
                        Exit::Normal => this.shared.asked_to_stop().unwrap_or(Exit::Normal),
                        exit => exit,
                    },
                    Err(panic) => Exit::Fault(Fault::panic(&panic)),
                }
            }
        };
        this.shared.ending(&exit);
        let dropped = frame::within(this.frame, || catch(|| this.future.set(None)));
        let exit = match dropped {
            Err(panic) if !exit.is_fault() => Exit::Fault(Fault::panic(&panic)),
            _ => exit,
        };
        this.shared.ending(&exit);
        this.shared.ended(&exit);
        observe::ended(&this.shared.name, &exit);
        settle(this.frame, Some(&exit));
        if let Some(device) = this.device.take() {
            device.disconnect(exit.clone());
        }
        Poll::Ready(exit)
    }
}

impl<M: Send + 'static, F> fmt::Debug for Run<M, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run")
            .field("actor", &format_args!("{}", self.shared.name))
            .field("ended", &self.device.is_none())
            .finish_non_exhaustive()
    }
}
