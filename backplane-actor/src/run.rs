//! An incarnation: news in, polls caught, and the end in its order.
//!
//! The order of an end: it is known how; what the future held is dropped; the queue is kept or buried; callers hear;
//! watchers hear.

use std::{
    fmt,
    future::Future,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll},
};

use backplane::{Device, Exit, Fault, Panic, catch};
use pin_project_lite::pin_project;

use crate::{
    frame::{self, Frame, Node},
    observe::{self, Observer},
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
    pub struct Run<M, F> {
        observer: Observer,
        #[pin]
        life: Life<F>,
        messages: PhantomData<fn() -> M>,
    }

    impl<M, F> PinnedDrop for Run<M, F> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            let LifeProj::Running { device, frame, .. } = this.life.as_mut().project() else { return };
            let (Some(device), Some(frame)) = (device.take(), frame.take()) else { return };
            let (id, exit) = (device.id(), Exit::Fault(Fault::killed()));
            frame.node.ending(id, &exit);
            let mut frame = Some(frame);
            drop(frame::within(&mut frame, || drop_all(this.life.as_mut())));
            let Some(mut frame) = frame else { return };
            frame.node.ended(id, &exit);
            observe::ended(frame.node.name(), &exit);
            frame.settle(Some(&exit));
            // The device itself says whether it was condemned.
            drop(device);
        }
    }
}

pin_project! {
    // One of two, and no option of each part: an actor's task is the smaller.
    #[project = LifeProj]
    enum Life<F> {
        Running {
            // Until it is about to end.
            device: Option<Device>,
            // Between polls.
            frame: Option<Box<Frame>>,
            #[pin]
            future: F,
        },
        Ended,
    }
}

/// Drops all that its future held; also what would survive a panic, where this happens while the thread panics, or where what
/// is dropped first does.
fn drop_all<F>(mut life: Pin<&mut Life<F>>) -> Result<(), Panic> {
    let dropped = catch(|| life.set(Life::Ended));
    dropped.and(catch(|| drop(frame::survivor())))
}

impl<M, F: Future<Output: Outcome>> Run<M, F> {
    pub(crate) fn new(node: Arc<dyn Node>, device: Device, future: F) -> Run<M, F> {
        let observer = Observer::new(&*node);
        let frame = Box::new(Frame::new(node));
        let life = Life::Running { device: Some(device), frame: Some(frame), future };
        Run { observer, life, messages: PhantomData }
    }
}

impl<M, F: Future<Output: Outcome>> Future for Run<M, F> {
    type Output = Exit;

    /// # Panics
    ///
    /// If it has returned before.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Exit> {
        let mut this = self.project();
        let LifeProj::Running { device: home, frame: place, future } = this.life.as_mut().project() else {
            panic!("polled after it had ended")
        };
        let (Some(device), Some(frame)) = (home.as_mut(), place.as_ref()) else {
            panic!("polled after it had ended")
        };
        let mut end = None;
        let id = device.id();
        let mut budget = TURN;
        while end.is_none()
            && budget > 0
            && let Poll::Ready(message) = device.poll_receive(cx)
        {
            end = frame.node.hear(id, message);
            budget -= 1;
        }
        if budget == 0 {
            cx.waker().wake_by_ref();
        }
        let exit = match end {
            Some(exit) => exit,
            None => {
                // Not what the poll returns, which would be moved at each.
                let mut ended = None;
                // What it returns may panic as well, when it is asked for its words or dropped.
                let pending =
                    this.observer.poll(place, || match catch(|| future.poll(cx).map(Outcome::exit)) {
                        Ok(Poll::Pending) => true,
                        Ok(Poll::Ready(exit)) => {
                            ended = Some(exit);
                            false
                        }
                        Err(panic) => {
                            ended = Some(Exit::Fault(Fault::panic(&panic)));
                            false
                        }
                    });
                if pending {
                    if let Some(frame) = place {
                        frame.settle(None);
                    }
                    return Poll::Pending;
                }
                match ended {
                    // Asked to stop, it ends as asked, unless it fails.
                    Some(Exit::Normal) => {
                        let asked = place.as_ref().and_then(|frame| frame.node.asked_to_stop());
                        asked.unwrap_or(Exit::Normal)
                    }
                    Some(exit) => exit,
                    None => unreachable!("it has ended"),
                }
            }
        };
        let (device, mut frame) = (home.take(), place.take());
        let ending = |frame: &Option<Box<Frame>>, exit: &Exit| {
            if let Some(frame) = frame {
                frame.node.ending(id, exit);
            }
        };
        ending(&frame, &exit);
        let dropped = frame::within(&mut frame, || drop_all(this.life.as_mut()));
        let exit = match dropped {
            Err(panic) if !exit.is_fault() => Exit::Fault(Fault::panic(&panic)),
            _ => exit,
        };
        ending(&frame, &exit);
        if let Some(frame) = &mut frame {
            frame.node.ended(id, &exit);
            observe::ended(frame.node.name(), &exit);
            frame.settle(Some(&exit));
        }
        if let Some(device) = device {
            device.disconnect(exit.clone());
        }
        Poll::Ready(exit)
    }
}

impl<M, F> fmt::Debug for Run<M, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let frame = match &self.life {
            Life::Running { frame, .. } => frame.as_ref(),
            Life::Ended => None,
        };
        f.debug_struct("Run")
            .field("actor", &frame.map(|frame| frame.node.name()))
            .field("ended", &frame.is_none())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use backplane::Device;

    use crate::{
        Actor, Context, Envelope, Handle, Mailbox, Options, Reply, System, actor::Served, observe::Observer,
        testing::Seeded,
    };

    struct Counter(u64);
    struct Add(u64);
    struct Get;

    impl Actor for Counter {
        type Messages = (Add, Get);
        type Error = Infallible;
    }

    impl Handle<Add> for Counter {
        type Reply = ();

        async fn handle(&mut self, Add(n): Add, _: &mut Context<Self>) -> Result<(), Infallible> {
            self.0 += n;
            Ok(())
        }
    }

    impl Handle<Get> for Counter {
        type Reply = u64;

        async fn handle(&mut self, _: Get, _: &mut Context<Self>) -> Result<u64, Infallible> {
            Ok(self.0)
        }
    }

    async fn count(mut mailbox: Mailbox<(u64, Reply<u64>)>) {
        let mut total = 0;
        while let Some((n, reply)) = mailbox.receive().await {
            total += n;
            reply.send(total);
        }
    }

    /// A task of tokio's is 104 bytes larger than its future, and rounded up to 128.
    #[test]
    fn a_small_actors_task_on_tokio_is_of_256_bytes() {
        let system = System::new(Seeded::new(1));
        let (_address, home) = system.prepare::<Envelope<Counter>>(Options::new());
        let handlers = size_of_val(&home.run_actor(Device::new(), Counter(0)));
        let (_address, home) = system.prepare(Options::new());
        let process = size_of_val(&home.run(Device::new(), count));
        assert!(handlers.max(process) - size_of::<Observer>() <= 256 - 104, "{handlers} and {process}");
    }

    /// And what is in its box: a pointer and a word that says which of its replies that is, or whether its last words have begun.
    #[test]
    fn an_actor_with_handlers_has_its_right_to_answer_in_two_words() {
        let (actor, cx) = (size_of::<Counter>(), size_of::<Context<Counter>>());
        assert_eq!(size_of::<Served<Counter>>() - actor - cx, 2 * size_of::<usize>());
    }
}
