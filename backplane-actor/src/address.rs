//! Where an actor is reached: casts, calls, and the errors of each.

use std::{
    error::Error,
    fmt,
    future::Future,
    hash,
    pin::Pin,
    sync::Weak,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use backplane::{Exit, Line};

use crate::{
    actor::Actor,
    call::{Call, Reply},
    clock::Deadline,
    mailbox::{Item, Priority, Refusal, Shared, WhenFull},
    name::ActorName,
    options::later,
    protocol::{Accepts, Answers, Envelope, Inside},
    sync::Arc,
};

/// The wait of [`Address::ended`].
struct Ended<'a, M> {
    shared: &'a Shared<M>,
    ticket: Option<u64>,
}

impl<M> Future for Ended<'_, M> {
    type Output = Option<Exit>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Exit>> {
        let Ended { shared, ticket } = &mut *self;
        shared.poll_ended(ticket, cx)
    }
}

impl<M> Drop for Ended<'_, M> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.shared.forget_end(ticket);
        }
    }
}

/// An actor's address: sends it messages of type `M`, asks it, and survives its restarts.
///
/// When the last address is gone, the actor's [`receive`](crate::Mailbox::receive) returns `None` once all messages have
/// been received, and it ends. A [`WeakAddress`] does not count.
///
/// ```
/// # #[cfg(feature = "smol")] {
/// # use backplane::runtime::Smol;
/// use backplane::{Device, Exit, LinkMode, Message};
/// use backplane_actor::{Mailbox, System};
///
/// let system = System::new(Smol::global());
/// let words = system.spawn(|mut mailbox: Mailbox<&str>| async move {
///     while mailbox.receive().await.is_some() {}
/// });
/// let mut watcher = Device::new();
/// watcher.link(&words.line().unwrap(), LinkMode::Monitor);
///
/// drop((words.clone(), words)); // those were all
/// let news = smol::block_on(watcher.receive());
/// assert!(matches!(news, Message::Disconnect(news) if news.exit == Exit::Normal));
/// # }
/// ```
pub struct Address<M> {
    shared: Arc<Shared<M>>,
}

impl<M> Clone for Address<M> {
    fn clone(&self) -> Address<M> {
        self.shared.add_sender();
        Address { shared: Arc::clone(&self.shared) }
    }
}

impl<M> Drop for Address<M> {
    fn drop(&mut self) {
        self.shared.remove_sender();
    }
}

impl<M> PartialEq for Address<M> {
    fn eq(&self, other: &Address<M>) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

impl<M> Eq for Address<M> {}

impl<M> hash::Hash for Address<M> {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.shared).hash(state);
    }
}

impl<M> fmt::Debug for Address<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({}{})", self.shared.name, if self.shared.is_open() { "" } else { ", ended" })
    }
}

impl<M> Address<M> {
    /// Takes over the count of one sender.
    pub(crate) fn counted(shared: Arc<Shared<M>>) -> Address<M> {
        Address { shared }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared<M>> {
        &self.shared
    }

    /// What people call the actor.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane_actor::Options;
    /// let (address, _home) = system.prepare::<u32>(Options::new().label("counter"));
    /// assert_eq!(address.name().to_string(), "counter");
    /// # }
    /// ```
    pub fn name(&self) -> &ActorName {
        &self.shared.name
    }

    /// The line of the incarnation that runs: what others link with and monitor. `None` if none runs.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane::Device;
    /// # use backplane_actor::Options;
    /// let (address, home) = system.prepare::<u32>(Options::new());
    /// assert!(address.line().is_none()); // nobody reads yet
    /// let device = Device::new();
    /// let line = device.line();
    /// let _run = home.run(device, |_mailbox| async {});
    /// assert_eq!(address.line(), Some(line));
    /// # }
    /// ```
    pub fn line(&self) -> Option<Line> {
        self.shared.line()
    }

    /// Whether messages are accepted. The answer may be out of date when it arrives.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane_actor::Options;
    /// let (address, home) = system.prepare::<u32>(Options::new());
    /// assert!(address.is_open());
    /// drop(home);
    /// assert!(!address.is_open());
    /// # }
    /// ```
    pub fn is_open(&self) -> bool {
        self.shared.is_open()
    }

    /// An address that does not keep the mailbox alive.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane_actor::Mailbox;
    /// let address = system.spawn(|mut mailbox: Mailbox<u32>| async move {
    ///     while mailbox.receive().await.is_some() {}
    /// });
    /// let weak = address.downgrade();
    /// assert_eq!(weak.upgrade().as_ref(), Some(&address));
    /// drop(address);
    /// assert!(weak.upgrade().is_none());
    /// # }
    /// ```
    pub fn downgrade(&self) -> WeakAddress<M> {
        WeakAddress::new(Arc::clone(&self.shared))
    }

    /// Asks the actor to stop when it has handled what it is handling; it ends with `exit`. What is in its queue goes to
    /// the dead letters. Returns whether it is the first to ask: not, if nothing runs, as between two incarnations.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane::{Device, Exit};
    /// # use backplane_actor::Options;
    /// let (address, home) = system.prepare::<u32>(Options::new());
    /// let run = home.run(Device::new(), |mut mailbox| async move {
    ///     while mailbox.receive().await.is_some() {}
    /// });
    /// address.try_cast(7).unwrap();
    /// assert!(address.stop(Exit::Shutdown));
    /// assert!(!address.stop(Exit::Normal)); // too late: it stops already
    /// assert_eq!(smol::block_on(run), Exit::Shutdown);
    /// assert_eq!(system.dead_letters(), 1);
    /// # }
    /// ```
    pub fn stop(&self, exit: Exit) -> bool {
        self.shared.stop(exit)
    }

    /// From here on nothing is accepted; what has been is handled, and then the actor ends.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane::{Device, Exit};
    /// # use backplane_actor::{Options, TryCastError};
    /// let (address, home) = system.prepare::<u32>(Options::new());
    /// let run = home.run(Device::new(), |mut mailbox| async move {
    ///     while mailbox.receive().await.is_some() {}
    /// });
    /// address.try_cast(7).unwrap();
    /// address.drain();
    /// assert_eq!(address.try_cast(8), Err(TryCastError::Closed(8)));
    /// assert_eq!(smol::block_on(run), Exit::Normal);
    /// assert_eq!((address.load().handled, system.dead_letters()), (1, 0));
    /// # }
    /// ```
    pub fn drain(&self) {
        self.shared.drain();
    }

    /// Ends the actor the next time its task is polled, in the middle of whatever it does; it is heard of as
    /// [`Killed`](backplane::FaultKind::Killed). Nothing of it runs any more but destructors.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// use backplane::{Fault, FaultKind};
    /// use backplane_actor::Mailbox;
    ///
    /// let stuck = system.spawn(|_mailbox: Mailbox<()>| std::future::pending::<()>());
    /// stuck.kill();
    /// let exit = smol::block_on(stuck.ended()).unwrap();
    /// assert_eq!(exit.fault().map(Fault::kind), Some(FaultKind::Killed));
    /// # }
    /// ```
    pub fn kill(&self) {
        self.shared.kill();
    }

    /// Waits until the incarnation that runs has ended, or returns at once if none does; how the last one ended, if there
    /// was one.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane::Exit;
    /// # use backplane_actor::{Mailbox, Options};
    /// let short = system.spawn(|_: Mailbox<()>| async { Exit::Shutdown });
    /// assert_eq!(smol::block_on(short.ended()), Some(Exit::Shutdown));
    ///
    /// let (never, _home) = system.prepare::<()>(Options::new());
    /// assert_eq!(smol::block_on(never.ended()), None);
    /// # }
    /// ```
    pub fn ended(&self) -> impl Future<Output = Option<Exit>> + use<'_, M> {
        Ended { shared: &self.shared, ticket: None }
    }

    /// How many messages wait, and how many have been handled.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane_actor::Options;
    /// let (address, _home) = system.prepare::<u32>(Options::new());
    /// address.try_cast(1).unwrap();
    /// address.try_cast(2).unwrap();
    /// assert_eq!(address.load().normal, 2);
    /// # }
    /// ```
    pub fn load(&self) -> Load {
        let (normal, urgent, system, handled) = self.shared.counts();
        Load { normal, urgent, system, handled, busy: self.shared.busy_time() }
    }

    /// Has the actor handle nothing but what comes through the system lane, until it is [resumed](Address::resume).
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane_actor::{Actor, Context, Handle};
    /// # use std::convert::Infallible;
    /// # struct Counter { total: u64 }
    /// # impl Actor for Counter {
    /// #     type Messages = (Add,);
    /// #     type Error = Infallible;
    /// # }
    /// # struct Add(u64);
    /// # impl Handle<Add> for Counter {
    /// #     type Reply = u64;
    /// #     async fn handle(&mut self, Add(n): Add, _: &mut Context<Self>) -> Result<u64, Infallible> {
    /// #         self.total += n;
    /// #         Ok(self.total)
    /// #     }
    /// # }
    /// # use smol::future::poll_once;
    /// let counter = system.start(Counter { total: 0 });
    /// smol::block_on(async {
    ///     counter.suspend();
    ///     let mut added = counter.call(Add(2));
    ///     assert!(poll_once(&mut added).await.is_none());
    ///     // It can be looked at nevertheless.
    ///     assert_eq!(counter.inspect(|counter| counter.total).await, Ok(0));
    ///     counter.resume();
    ///     assert_eq!(added.await, Ok(2));
    /// });
    /// # }
    /// ```
    pub fn suspend(&self) {
        self.shared.pause(true);
    }

    /// Has the actor go on.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane_actor::{Actor, Context, Handle};
    /// # use std::convert::Infallible;
    /// # struct Counter { total: u64 }
    /// # impl Actor for Counter {
    /// #     type Messages = (Add,);
    /// #     type Error = Infallible;
    /// # }
    /// # struct Add(u64);
    /// # impl Handle<Add> for Counter {
    /// #     type Reply = u64;
    /// #     async fn handle(&mut self, Add(n): Add, _: &mut Context<Self>) -> Result<u64, Infallible> {
    /// #         self.total += n;
    /// #         Ok(self.total)
    /// #     }
    /// # }
    /// let counter = system.start(Counter { total: 0 });
    /// counter.suspend();
    /// counter.try_cast(Add(2)).unwrap(); // accepted, and not handled yet
    /// counter.resume();
    /// assert_eq!(smol::block_on(counter.call(Add(3))), Ok(5));
    /// # }
    /// ```
    pub fn resume(&self) {
        self.shared.pause(false);
    }
}

impl<M: Send + 'static> Address<M> {
    /// Sends a message. Awaited, it waits for room; [`Cast`] has the other ways.
    ///
    /// `x` is the mailbox's own type, or any message that the [`Actor`](crate::Actor) behind it handles.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane_actor::{Actor, Context, Handle};
    /// # use std::convert::Infallible;
    /// # struct Counter { total: u64 }
    /// # impl Actor for Counter {
    /// #     type Messages = (Add,);
    /// #     type Error = Infallible;
    /// # }
    /// # struct Add(u64);
    /// # impl Handle<Add> for Counter {
    /// #     type Reply = u64;
    /// #     async fn handle(&mut self, Add(n): Add, _: &mut Context<Self>) -> Result<u64, Infallible> {
    /// #         self.total += n;
    /// #         Ok(self.total)
    /// #     }
    /// # }
    /// let counter = system.start(Counter { total: 0 });
    /// smol::block_on(async {
    ///     counter.cast(Add(2)).await.unwrap();
    ///     assert_eq!(counter.call(Add(3)).await, Ok(5));
    /// });
    /// # }
    /// ```
    pub fn cast<X, I>(&self, x: X) -> Cast<'_, M, X>
    where
        M: Accepts<X, I>,
    {
        Cast {
            address: self,
            message: Some(M::wrap(x)),
            back: M::unwrap,
            priority: Priority::Normal,
            limit: None,
            deadline: None,
            ticket: None,
        }
    }

    /// Sends a message if there is room.
    ///
    /// # Errors
    ///
    /// The message, if the mailbox is full or closed.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane_actor::{Options, TryCastError};
    /// let (address, home) = system.prepare::<u32>(Options::new().capacity(1));
    /// assert_eq!(address.try_cast(1), Ok(()));
    /// assert_eq!(address.try_cast(2), Err(TryCastError::Full(2)));
    /// drop(home);
    /// assert_eq!(address.try_cast(2), Err(TryCastError::Closed(2)));
    /// # }
    /// ```
    pub fn try_cast<X, I>(&self, x: X) -> Result<(), TryCastError<X>>
    where
        M: Accepts<X, I>,
    {
        let item = Item { message: M::wrap(x), call: None };
        self.shared.push(Priority::Normal, item, WhenFull::Refuse).map_err(|(refusal, item)| {
            let x = M::unwrap(item.message).expect("what comes back is what was sent");
            match refusal {
                Refusal::Full => TryCastError::Full(x),
                Refusal::Closed => TryCastError::Closed(x),
            }
        })
    }

    /// Asks an [`Actor`](crate::Actor), and waits for the answer that it has for this type of message.
    ///
    /// Waits [five seconds](crate::DEFAULT_CALL_TIME), for room and for the answer together, unless told
    /// [otherwise](Call::within).
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane_actor::{Actor, Context, Handle};
    /// # use std::convert::Infallible;
    /// # struct Counter { total: u64 }
    /// # impl Actor for Counter {
    /// #     type Messages = (Add,);
    /// #     type Error = Infallible;
    /// # }
    /// # struct Add(u64);
    /// # impl Handle<Add> for Counter {
    /// #     type Reply = u64;
    /// #     async fn handle(&mut self, Add(n): Add, _: &mut Context<Self>) -> Result<u64, Infallible> {
    /// #         self.total += n;
    /// #         Ok(self.total)
    /// #     }
    /// # }
    /// # use backplane::Exit;
    /// use backplane_actor::CallError;
    ///
    /// let counter = system.start(Counter { total: 0 });
    /// smol::block_on(async {
    ///     assert_eq!(counter.call(Add(3)).await, Ok(3));
    ///     counter.stop(Exit::Normal);
    ///     counter.ended().await;
    ///     assert_eq!(counter.call(Add(3)).await, Err(CallError::Gone));
    /// });
    /// # }
    /// ```
    pub fn call<X, I>(&self, x: X) -> Call<'_, M, M::Reply>
    where
        M: Answers<X, I>,
    {
        Call::new(self, |reply| M::request(x, reply))
    }

    /// Asks with a message that carries its own [`Reply`]: `address.ask(Message::Get)`, where `Get(Reply<u64>)` is one of its
    /// variants. Else as [`call`](Address::call).
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane_actor::{Mailbox, Reply};
    /// # enum Count { Add(u64), Get(Reply<u64>) }
    /// # async fn count(mut mailbox: Mailbox<Count>) {
    /// #     let mut total = 0;
    /// #     while let Some(message) = mailbox.receive().await {
    /// #         match message {
    /// #             Count::Add(n) => total += n,
    /// #             Count::Get(reply) => reply.send(total),
    /// #         }
    /// #     }
    /// # }
    /// // Of this process the messages are `Add(u64)` and `Get(Reply<u64>)`.
    /// let counter = system.spawn(count);
    /// smol::block_on(async {
    ///     counter.cast(Count::Add(2)).await.unwrap();
    ///     assert_eq!(counter.ask(Count::Get).await, Ok(2));
    /// });
    /// # }
    /// ```
    pub fn ask<T, X, I>(&self, make: impl FnOnce(Reply<T>) -> X) -> Call<'_, M, T>
    where
        T: Send + 'static,
        M: Accepts<X, I>,
    {
        Call::new(self, |reply| M::wrap(make(reply)))
    }

    /// Sends a message through the system lane, which has no bound and comes first. For timers, news and the like.
    pub(crate) fn deliver(&self, message: M) -> Result<(), M> {
        self.shared.push_system(message, None)
    }
}

impl<A: Actor> Address<Envelope<A>> {
    /// Looks inside, or puts something else there, between two messages and before all that waits, also if the actor is
    /// [suspended](Address::suspend): OTP's `sys:get_state` and `replace_state`. An actor that nobody looks at pays nothing.
    ///
    /// `look` runs in the actor; a panic in it is the actor's.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane_actor::{Actor, Context, Handle};
    /// # use std::convert::Infallible;
    /// # struct Counter { total: u64 }
    /// # impl Actor for Counter {
    /// #     type Messages = (Add,);
    /// #     type Error = Infallible;
    /// # }
    /// # struct Add(u64);
    /// # impl Handle<Add> for Counter {
    /// #     type Reply = u64;
    /// #     async fn handle(&mut self, Add(n): Add, _: &mut Context<Self>) -> Result<u64, Infallible> {
    /// #         self.total += n;
    /// #         Ok(self.total)
    /// #     }
    /// # }
    /// let counter = system.start(Counter { total: 2 });
    /// smol::block_on(async {
    ///     let before = counter.inspect(|counter| std::mem::replace(&mut counter.total, 40)).await;
    ///     assert_eq!(before, Ok(2));
    ///     assert_eq!(counter.call(Add(2)).await, Ok(42));
    /// });
    /// # }
    /// ```
    pub fn inspect<T: Send + 'static>(
        &self,
        look: impl FnOnce(&mut A) -> T + Send + 'static,
    ) -> Call<'_, Envelope<A>, T> {
        let make = |reply: Reply<T>| {
            Envelope(Inside::Look(Box::new(move |actor: &mut A| {
                // The caller may have gone meanwhile.
                if !reply.is_over() {
                    reply.send(look(actor));
                }
            })))
        };
        Call::new(self, make).through_the_system_lane()
    }
}

/// How busy an actor is. In a mailbox with much room, what is received is seen a few messages later, thirty-two at most:
/// the actor does not tell of each.
///
/// ```
/// # #[cfg(feature = "smol")] {
/// # use backplane::runtime::Smol;
/// # use backplane_actor::System;
/// # let system = System::new(Smol::global());
/// # use backplane::Device;
/// # use backplane_actor::Options;
/// let (address, home) = system.prepare::<u32>(Options::new());
/// address.cast(1).now().unwrap();
/// address.cast(2).urgent().now().unwrap();
/// let load = address.load();
/// assert_eq!((load.normal, load.urgent, load.handled), (1, 1, 0));
///
/// smol::block_on(home.run(Device::new(), |mut mailbox| async move {
///     while mailbox.try_receive().is_some() {}
/// }));
/// assert_eq!(address.load().handled, 2);
/// assert_eq!(address.load().busy, None); // it is not timed
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Load {
    /// Normal messages that wait.
    pub normal: usize,
    /// Urgent ones.
    pub urgent: usize,
    /// What waits in the system lane.
    pub system: usize,
    /// Messages received so far, in all lanes and incarnations.
    pub handled: u64,
    /// How long its polls have taken so far, in all incarnations; the one that runs is counted when it is over. `None` unless
    /// the actor is [timed](crate::Options::timed).
    pub busy: Option<Duration>,
}

/// An address that neither keeps the mailbox alive nor counts among those for whom an actor goes on.
///
/// ```
/// # #[cfg(feature = "smol")] {
/// # use backplane::runtime::Smol;
/// # use backplane_actor::System;
/// # let system = System::new(Smol::global());
/// # use backplane_actor::Mailbox;
/// let address = system.spawn(|mut mailbox: Mailbox<u32>| async move {
///     while mailbox.receive().await.is_some() {}
/// });
/// let weak = address.downgrade();
/// assert!(weak.upgrade().is_some_and(|address| address.try_cast(7).is_ok()));
/// drop(address);
/// assert!(weak.upgrade().is_none()); // it ends, or has ended
/// # }
/// ```
pub struct WeakAddress<M> {
    shared: Weak<Shared<M>>,
}

impl<M> WeakAddress<M> {
    pub(crate) fn new(shared: Arc<Shared<M>>) -> WeakAddress<M> {
        WeakAddress { shared: Arc::downgrade(&shared) }
    }

    /// An address, if anybody has one yet.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane_actor::Mailbox;
    /// let address = system.spawn(|mut mailbox: Mailbox<u32>| async move {
    ///     while mailbox.receive().await.is_some() {}
    /// });
    /// let weak = address.downgrade();
    /// let another = weak.upgrade().unwrap();
    /// drop(address);
    /// assert!(another.is_open()); // kept alive by this one
    /// # }
    /// ```
    pub fn upgrade(&self) -> Option<Address<M>> {
        let shared = self.shared.upgrade()?;
        shared.add_sender_if_any().then_some(Address { shared })
    }
}

impl<M> Clone for WeakAddress<M> {
    fn clone(&self) -> WeakAddress<M> {
        WeakAddress { shared: Weak::clone(&self.shared) }
    }
}

impl<M> fmt::Debug for WeakAddress<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.shared.upgrade() {
            Some(shared) => write!(f, "WeakAddress({})", shared.name),
            None => f.write_str("WeakAddress(gone)"),
        }
    }
}

/// A message on its way: sent when it is awaited, or as each method says. Made by [`Address::cast`].
///
/// Dropped while it waits for room, the message is dropped and was never accepted.
///
/// ```
/// # #[cfg(feature = "smol")] {
/// # use backplane::runtime::Smol;
/// # use backplane_actor::System;
/// # let system = System::new(Smol::global());
/// # use backplane_actor::Options;
/// let (address, _home) = system.prepare::<u32>(Options::new().capacity(1));
/// smol::block_on(async {
///     address.cast(1).await.unwrap(); // waits for room, if need be
///     assert!(address.cast(2).now().is_err()); // does not wait
///     assert!(address.cast(3).urgent().now().is_ok()); // has another place
///     assert!(address.cast(4).drop_oldest().is_ok()); // makes room
/// });
/// assert_eq!(address.load().normal, 1);
/// assert_eq!(system.dead_letters(), 1);
/// # }
/// ```
#[must_use = "nothing is sent until it is awaited, or one of its methods is called"]
pub struct Cast<'a, M: Send + 'static, X> {
    address: &'a Address<M>,
    message: Option<M>,
    back: fn(M) -> Option<X>,
    priority: Priority,
    limit: Option<Duration>,
    deadline: Option<Deadline>,
    ticket: Option<u64>,
}

impl<M: Send + 'static, X> Unpin for Cast<'_, M, X> {}

impl<'a, M: Send + 'static, X> Cast<'a, M, X> {
    /// Passes messages that are not urgent.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane::{Device, Exit};
    /// # use backplane_actor::Options;
    /// let (address, home) = system.prepare::<&str>(Options::new());
    /// address.cast("later").now().unwrap();
    /// address.cast("first").urgent().now().unwrap();
    /// let exit = smol::block_on(home.run(Device::new(), |mut mailbox| async move {
    ///     assert_eq!(mailbox.receive().await, Some("first"));
    ///     assert_eq!(mailbox.receive().await, Some("later"));
    /// }));
    /// assert_eq!(exit, Exit::Normal);
    /// # }
    /// ```
    pub fn urgent(mut self) -> Cast<'a, M, X> {
        self.priority = Priority::Urgent;
        self
    }

    /// Waits for room so long at most, counted from the first poll.
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # use backplane::Runtime;
    /// # use backplane_actor::{System, testing::Seeded};
    /// # let runtime = Seeded::new(1);
    /// # let system = System::new(runtime.clone());
    /// # use backplane_actor::{CastError, Options};
    /// # use std::time::Duration;
    /// let (address, _home) = system.prepare::<u32>(Options::new().capacity(1));
    /// runtime.run(async {
    ///     let minute = Duration::from_secs(60);
    ///     assert_eq!(address.cast(1).within(minute).await, Ok(()));
    ///     assert_eq!(address.cast(2).within(minute).await, Err(CastError::TimedOut(2)));
    /// });
    /// # }
    /// ```
    pub fn within(mut self, time: Duration) -> Cast<'a, M, X> {
        self.limit = Some(time);
        self
    }

    /// Waits for room until then at most, on the runtime's clock.
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # use backplane::Runtime;
    /// # use backplane_actor::{System, testing::Seeded};
    /// # let runtime = Seeded::new(1);
    /// # let system = System::new(runtime.clone());
    /// # use backplane_actor::{CastError, Options};
    /// # use std::time::Duration;
    /// let (address, _home) = system.prepare::<u32>(Options::new().capacity(1));
    /// let noon = runtime.now() + Duration::from_secs(3600);
    /// runtime.run(async {
    ///     assert_eq!(address.cast(1).until(noon).await, Ok(()));
    ///     assert_eq!(address.cast(2).until(noon).await, Err(CastError::TimedOut(2)));
    /// });
    /// assert_eq!(runtime.now(), noon);
    /// # }
    /// ```
    pub fn until(mut self, deadline: Instant) -> Cast<'a, M, X> {
        self.deadline = Some(Deadline::new(Arc::clone(&self.address.shared.world.clock), deadline));
        self
    }

    fn back(&self, item: Item<M>) -> X {
        (self.back)(item.message).expect("what comes back is what was sent")
    }

    fn push(&mut self, when_full: WhenFull) -> Result<(), (Refusal, Item<M>)> {
        match self.message.take() {
            Some(message) => self.address.shared.push(self.priority, Item { message, call: None }, when_full),
            None => Ok(()),
        }
    }

    /// Sends it now, if there is room.
    ///
    /// # Errors
    ///
    /// The message, if the mailbox is full or closed.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane_actor::{Options, TryCastError};
    /// let (address, _home) = system.prepare::<u32>(Options::new().capacity(1));
    /// assert_eq!(address.cast(1).urgent().now(), Ok(()));
    /// assert_eq!(address.cast(2).urgent().now(), Err(TryCastError::Full(2)));
    /// # }
    /// ```
    pub fn now(mut self) -> Result<(), TryCastError<X>> {
        self.push(WhenFull::Refuse).map_err(|(refusal, item)| match refusal {
            Refusal::Full => TryCastError::Full(self.back(item)),
            Refusal::Closed => TryCastError::Closed(self.back(item)),
        })
    }

    /// Sends it now. If there is no room, the oldest message of the lane goes to the dead letters instead.
    ///
    /// The first time that somebody does this, the oldest may be the oldest of those that the actor has not yet taken into
    /// its hand; from then on it takes one at a time.
    ///
    /// # Errors
    ///
    /// The message, if the mailbox is closed.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane::{Device, Exit};
    /// # use backplane_actor::Options;
    /// let (address, home) = system.prepare::<u32>(Options::new().capacity(2));
    /// for temperature in [19, 20, 21] {
    ///     address.cast(temperature).drop_oldest().unwrap();
    /// }
    /// let exit = smol::block_on(home.run(Device::new(), |mut mailbox| async move {
    ///     assert_eq!((mailbox.receive().await, mailbox.receive().await), (Some(20), Some(21)));
    /// }));
    /// assert_eq!(exit, Exit::Normal);
    /// # }
    /// ```
    pub fn drop_oldest(mut self) -> Result<(), Closed<X>> {
        self.push(WhenFull::DropOldest).map_err(|(_, item)| Closed(self.back(item)))
    }

    /// Sends it now. If there is no room, it goes to the dead letters itself.
    ///
    /// # Errors
    ///
    /// The message, if the mailbox is closed.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane::{Device, Exit};
    /// # use backplane_actor::Options;
    /// let (address, home) = system.prepare::<u32>(Options::new().capacity(2));
    /// for line in [1, 2, 3] {
    ///     address.cast(line).drop_newest().unwrap();
    /// }
    /// assert_eq!(system.dead_letters(), 1);
    /// let exit = smol::block_on(home.run(Device::new(), |mut mailbox| async move {
    ///     assert_eq!((mailbox.receive().await, mailbox.receive().await), (Some(1), Some(2)));
    /// }));
    /// assert_eq!(exit, Exit::Normal);
    /// # }
    /// ```
    pub fn drop_newest(mut self) -> Result<(), Closed<X>> {
        self.push(WhenFull::DropNewest).map_err(|(_, item)| Closed(self.back(item)))
    }
}

impl<M: Send + 'static, X> Future for Cast<'_, M, X> {
    type Output = Result<(), CastError<X>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), CastError<X>>> {
        let this = &mut *self;
        let shared = &this.address.shared;
        if let Some(ticket) = this.ticket {
            match shared.poll_waiting(this.priority, ticket, cx) {
                Poll::Ready(Ok(())) => {
                    this.ticket = None;
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Err(item)) => {
                    this.ticket = None;
                    return Poll::Ready(Err(CastError::Closed(this.back(item))));
                }
                Poll::Pending => {}
            }
        } else {
            let item = match this.push(WhenFull::Refuse) {
                Ok(()) => return Poll::Ready(Ok(())),
                Err((Refusal::Closed, item)) => return Poll::Ready(Err(CastError::Closed(this.back(item)))),
                Err((Refusal::Full, item)) => item,
            };
            let shared = &this.address.shared;
            match shared.push_waiting(this.priority, item, cx.waker().clone()) {
                Ok(None) => return Poll::Ready(Ok(())),
                Ok(Some(ticket)) => this.ticket = Some(ticket),
                Err(item) => return Poll::Ready(Err(CastError::Closed(this.back(item)))),
            }
            if let Some(time) = this.limit.take() {
                let clock = &shared.world.clock;
                this.deadline = Some(Deadline::new(Arc::clone(clock), later(clock, time)));
            }
        }
        if let Some(deadline) = &mut this.deadline
            && deadline.poll(cx).is_ready()
            && let Some(ticket) = this.ticket.take()
        {
            return Poll::Ready(match this.address.shared.take_back(this.priority, ticket) {
                Some(item) => Err(CastError::TimedOut(this.back(item))),
                None => Ok(()),
            });
        }
        Poll::Pending
    }
}

impl<M: Send + 'static, X> Drop for Cast<'_, M, X> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            drop(self.address.shared.take_back(self.priority, ticket));
        }
    }
}

impl<M: Send + 'static, X> fmt::Debug for Cast<'_, M, X> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cast").field("to", self.address).field("waits", &self.ticket.is_some()).finish()
    }
}

/// A message that was not accepted at once. Here it is back.
///
/// ```
/// # #[cfg(feature = "smol")] {
/// # use backplane::runtime::Smol;
/// # use backplane_actor::System;
/// # let system = System::new(Smol::global());
/// # use backplane_actor::Options;
/// use backplane_actor::TryCastError;
///
/// let (address, _home) = system.prepare::<&str>(Options::new().capacity(1));
/// address.try_cast("first").unwrap();
/// let mut spool = Vec::new();
/// match address.try_cast("second") {
///     Ok(()) => {}
///     Err(TryCastError::Full(order)) => spool.push(order), // for later
///     Err(TryCastError::Closed(order)) => panic!("nobody takes {order}"),
/// }
/// assert_eq!(spool, ["second"]);
/// # }
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum TryCastError<X> {
    /// There was no room.
    Full(X),
    /// The actor has ended, or is ending.
    Closed(X),
}

/// A message that was not accepted. Here it is back.
///
/// ```
/// # #[cfg(feature = "testing")] {
/// # use backplane::Runtime;
/// # use backplane_actor::{System, testing::Seeded};
/// # let runtime = Seeded::new(1);
/// # let system = System::new(runtime.clone());
/// # use backplane_actor::Options;
/// # use std::time::Duration;
/// use backplane_actor::CastError;
///
/// let (address, home) = system.prepare::<&str>(Options::new().capacity(1));
/// runtime.run(async {
///     address.cast("first").await.unwrap();
///     let refused = address.cast("second").within(Duration::from_secs(60)).await;
///     assert_eq!(refused, Err(CastError::TimedOut("second")));
///     drop(home);
///     assert_eq!(address.cast("third").await, Err(CastError::Closed("third")));
/// });
/// # }
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum CastError<X> {
    /// There was no room in time.
    TimedOut(X),
    /// The actor has ended, or is ending.
    Closed(X),
}

/// A message that was not accepted, for the actor has ended, or is ending. Here it is back.
///
/// ```
/// # #[cfg(feature = "smol")] {
/// # use backplane::runtime::Smol;
/// # use backplane_actor::System;
/// # let system = System::new(Smol::global());
/// # use backplane_actor::Options;
/// use backplane_actor::Closed;
///
/// let (address, home) = system.prepare::<&str>(Options::new());
/// drop(home);
/// let Err(Closed(order)) = address.cast("order").drop_oldest() else { panic!("nobody takes it") };
/// assert_eq!(order, "order");
/// # }
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Closed<X>(pub X);

impl<X> TryCastError<X> {
    /// The message.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane_actor::Options;
    /// let (address, _home) = system.prepare::<&str>(Options::new().capacity(1));
    /// address.try_cast("first").unwrap();
    /// let refused = address.try_cast("second").unwrap_err();
    /// assert_eq!(refused.to_string(), "the mailbox is full");
    /// assert_eq!(refused.into_inner(), "second");
    /// # }
    /// ```
    pub fn into_inner(self) -> X {
        match self {
            TryCastError::Full(x) | TryCastError::Closed(x) => x,
        }
    }
}

impl<X> CastError<X> {
    /// The message.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane_actor::Options;
    /// let (address, home) = system.prepare::<&str>(Options::new());
    /// drop(home);
    /// let refused = smol::block_on(address.cast("order")).unwrap_err();
    /// assert_eq!(refused.to_string(), "the actor has ended");
    /// assert_eq!(refused.into_inner(), "order");
    /// # }
    /// ```
    pub fn into_inner(self) -> X {
        match self {
            CastError::TimedOut(x) | CastError::Closed(x) => x,
        }
    }
}

impl<X> Closed<X> {
    /// The message.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane_actor::Options;
    /// let (address, home) = system.prepare::<&str>(Options::new());
    /// drop(home);
    /// let refused = address.cast("order").drop_newest().unwrap_err();
    /// assert_eq!(refused.into_inner(), "order");
    /// # }
    /// ```
    pub fn into_inner(self) -> X {
        self.0
    }
}

macro_rules! says {
    ($Error:ident { $($variant:pat => $words:literal),* }) => {
        impl<X> fmt::Display for $Error<X> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $($variant => $words),* })
            }
        }

        /// Without the message, which need not be `Debug`.
        impl<X> fmt::Debug for $Error<X> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($Error), "({})"), self)
            }
        }

        impl<X> Error for $Error<X> {}
    };
}

says!(TryCastError { TryCastError::Full(_) => "the mailbox is full", TryCastError::Closed(_) => "the actor has ended" });
says!(CastError { CastError::TimedOut(_) => "no room in time", CastError::Closed(_) => "the actor has ended" });
says!(Closed { Closed(_) => "the actor has ended" });
