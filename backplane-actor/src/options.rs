//! What an actor is given when it starts.

use std::{
    fmt,
    task::{Context, Poll},
    time::Duration,
};

use crate::{
    clock::{Clock, Deadline, later_than},
    sync::Arc,
};

/// How many messages a mailbox holds, unless said otherwise.
pub const DEFAULT_CAPACITY: usize = 1024;

/// Why a message that was accepted will not be handled.
///
/// ```
/// # #[cfg(feature = "smol")] {
/// # use backplane::runtime::Smol;
/// # use backplane_actor::System;
/// # let system = System::new(Smol::global());
/// # use backplane_actor::Options;
/// use backplane_actor::DeadLetter;
/// use std::sync::mpsc;
///
/// let (tell, told) = mpsc::channel();
/// let options = Options::new().capacity(1).dead_letters(move |n, cause| tell.send((n, cause)).unwrap());
/// let (address, _home) = system.prepare::<u32>(options);
/// address.cast(1).now().unwrap();
/// address.cast(2).drop_oldest().unwrap();
/// assert_eq!(told.recv(), Ok((1, DeadLetter::Overflow)));
/// assert_eq!(DeadLetter::Overflow.to_string(), "the mailbox was full");
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeadLetter {
    /// There was no room, and the sender had said that then the oldest, or the newest, is to be dropped.
    Overflow,
    /// The actor stopped, or was asked to, before its turn came.
    Stopped,
    /// The actor died before its turn came, and no successor takes over the queue.
    Died,
    /// The actor died of this message, and it is not tried again.
    KilledIt,
    /// It waited in a [`Router`](crate::Router) for longer than it may.
    Expired,
}

impl fmt::Display for DeadLetter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DeadLetter::Overflow => "the mailbox was full",
            DeadLetter::Stopped => "the actor had stopped",
            DeadLetter::Died => "the actor had died",
            DeadLetter::KilledIt => "the actor died of it",
            DeadLetter::Expired => "it had waited for too long",
        })
    }
}

/// What becomes of the queue when an actor under a supervisor dies. (One that ends well leaves its queue to the dead
/// letters.)
///
/// ```
/// # #[cfg(feature = "smol")] {
/// # use backplane::runtime::Smol;
/// # use backplane_actor::System;
/// # let system = System::new(Smol::global());
/// # use backplane::Device;
/// # use backplane_actor::Options;
/// use backplane_actor::QueueOnRestart;
///
/// for (queue, left) in [(QueueOnRestart::Keep, 1), (QueueOnRestart::Drop, 0)] {
///     let (address, home) = system.prepare::<u32>(Options::new().queue_on_restart(queue));
///     address.try_cast(7).unwrap();
///     let exit = smol::block_on(home.run(Device::new(), |_| async { Err::<(), _>("broken") }));
///     assert!(exit.is_fault());
///     assert_eq!(address.load().normal, left);
/// }
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum QueueOnRestart {
    /// Its successor takes it over.
    #[default]
    Keep,
    /// It goes to the dead letters; whoever waits for an answer hears of the end.
    Drop,
}

type Bury<M> = Arc<dyn Fn(M, DeadLetter) + Send + Sync>;
type Copying<M> = fn(&M) -> Option<M>;

/// How a mailbox is made.
///
/// ```
/// use backplane_actor::{Options, QueueOnRestart};
/// let options = Options::<u64>::new()
///     .capacity(16)
///     .label("counter")
///     .queue_on_restart(QueueOnRestart::Keep)
///     .retry(2)
///     .dead_letters(|message, cause| eprintln!("{message} was lost: {cause}"));
/// # drop(options);
/// ```
pub struct Options<M> {
    pub(crate) capacity: Option<usize>,
    pub(crate) label: Option<Arc<String>>,
    pub(crate) queue: QueueOnRestart,
    pub(crate) retry: Option<(u32, Copying<M>)>,
    pub(crate) dead_letters: Option<Bury<M>>,
    pub(crate) timed: bool,
}

impl<M> Default for Options<M> {
    fn default() -> Options<M> {
        Options::new()
    }
}

impl<M> Clone for Options<M> {
    fn clone(&self) -> Options<M> {
        Options {
            capacity: self.capacity,
            label: self.label.clone(),
            queue: self.queue,
            retry: self.retry,
            dead_letters: self.dead_letters.clone(),
            timed: self.timed,
        }
    }
}

impl<M> Options<M> {
    /// Room for [`DEFAULT_CAPACITY`] messages, no label, and the rest as each method says.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane_actor::{Options, TryCastError};
    /// use backplane_actor::DEFAULT_CAPACITY;
    ///
    /// let (address, _home) = system.prepare::<usize>(Options::new());
    /// for n in 0..DEFAULT_CAPACITY {
    ///     address.try_cast(n).unwrap();
    /// }
    /// assert_eq!(address.try_cast(7), Err(TryCastError::Full(7)));
    /// # }
    /// ```
    pub fn new() -> Options<M> {
        Options {
            capacity: Some(DEFAULT_CAPACITY),
            label: None,
            queue: QueueOnRestart::Keep,
            retry: None,
            dead_letters: None,
            timed: false,
        }
    }

    /// Room for so many messages in each lane; for one at least.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane_actor::{Options, TryCastError};
    /// let (address, _home) = system.prepare::<u32>(Options::new().capacity(1));
    /// address.try_cast(1).unwrap();
    /// assert_eq!(address.try_cast(2), Err(TryCastError::Full(2)));
    /// // Urgent messages have places of their own.
    /// assert_eq!(address.cast(3).urgent().now(), Ok(()));
    /// # }
    /// ```
    #[must_use]
    pub fn capacity(mut self, messages: usize) -> Options<M> {
        self.capacity = Some(messages.max(1));
        self
    }

    /// Room for as many messages as the memory holds. Nothing tells a sender then that it is too fast.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane_actor::{DEFAULT_CAPACITY, Options};
    /// let (address, _home) = system.prepare::<usize>(Options::new().unbounded());
    /// for n in 0..=DEFAULT_CAPACITY {
    ///     address.try_cast(n).unwrap();
    /// }
    /// assert_eq!(address.load().normal, DEFAULT_CAPACITY + 1);
    /// # }
    /// ```
    #[must_use]
    pub fn unbounded(mut self) -> Options<M> {
        self.capacity = None;
        self
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
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Options<M> {
        self.label = Some(Arc::new(label.into()));
        self
    }

    /// What becomes of the queue when the actor dies and is started again: it is [kept](QueueOnRestart::Keep), unless said
    /// otherwise.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane::Device;
    /// # use backplane_actor::{Options, QueueOnRestart};
    /// let (address, home) = system.prepare::<u32>(Options::new().queue_on_restart(QueueOnRestart::Drop));
    /// address.try_cast(7).unwrap();
    /// let exit = smol::block_on(home.run(Device::new(), |_| async { Err::<(), _>("broken") }));
    /// assert!(exit.is_fault());
    /// assert_eq!(system.dead_letters(), 1);
    /// # }
    /// ```
    #[must_use]
    pub fn queue_on_restart(mut self, queue: QueueOnRestart) -> Options<M> {
        self.queue = queue;
        self
    }

    /// The message of which the actor dies is given to its successor, so many times at most; then it goes to the dead
    /// letters. Setting it aside or postponing it in between counts nothing anew. Without this it is not tried again. For that
    /// each message is cloned before it is handled; calls are not, for their callers hear of the death and decide for themselves.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane::Device;
    /// # use backplane_actor::Options;
    /// let (address, home) = system.prepare::<u32>(Options::new().retry(1));
    /// let dies = || {
    ///     smol::block_on(home.run(Device::new(), |mut mailbox| async move {
    ///         Err::<(), _>(format!("died of {:?}", mailbox.receive().await))
    ///     }))
    /// };
    /// address.try_cast(7).unwrap();
    /// assert_eq!(dies().to_string(), "failed: died of Some(7)");
    /// assert_eq!(system.dead_letters(), 0); // for its successor is given it once more
    /// assert_eq!(dies().to_string(), "failed: died of Some(7)");
    /// assert_eq!(system.dead_letters(), 1);
    /// # }
    /// ```
    #[must_use]
    pub fn retry(self, times: u32) -> Options<M>
    where
        M: Clone,
    {
        self.retry_where(times, |message| Some(message.clone()))
    }

    /// As [`retry`](Options::retry), for those messages that `copy` makes a copy of.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane::{Device, Exit};
    /// # use backplane_actor::Options;
    /// let even = |n: &u32| (*n % 2 == 0).then_some(*n);
    /// for (n, again) in [(7, None), (8, Some(8))] {
    ///     let (address, home) = system.prepare(Options::new().retry_where(1, even));
    ///     address.try_cast(n).unwrap();
    ///     smol::block_on(home.run(Device::new(), |mut mailbox| async move {
    ///         mailbox.receive().await;
    ///         Err::<(), _>("broken")
    ///     }));
    ///     let successor = home.run(Device::new(), |mut mailbox| async move {
    ///         assert_eq!(mailbox.try_receive(), again);
    ///     });
    ///     assert_eq!(smol::block_on(successor), Exit::Normal);
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn retry_where(mut self, times: u32, copy: fn(&M) -> Option<M>) -> Options<M> {
        self.retry = Some((times, copy));
        self
    }

    /// Takes each message that was accepted and will not be handled. It runs on whatever thread finds out, and a panic in it
    /// is nobody's.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane::Device;
    /// # use backplane_actor::{DeadLetter, Options};
    /// # use std::sync::mpsc;
    /// let (tell, told) = mpsc::channel();
    /// let options = Options::new().dead_letters(move |n, cause| tell.send((n, cause)).unwrap());
    /// let (address, home) = system.prepare::<u32>(options);
    /// address.try_cast(7).unwrap();
    /// smol::block_on(home.run(Device::new(), |_| async { /* it stops, and has not looked */ }));
    /// assert_eq!(told.recv(), Ok((7, DeadLetter::Stopped)));
    /// # }
    /// ```
    #[must_use]
    pub fn dead_letters(mut self, bury: impl Fn(M, DeadLetter) + Send + Sync + 'static) -> Options<M> {
        self.dead_letters = Some(Arc::new(bury));
        self
    }

    /// Measures how long the actor is busy: the time that its polls take on the runtime's clock, which is read twice a poll.
    /// [`Load::busy`](crate::Load::busy) says it. Without this no clock is read.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// use backplane_actor::{Mailbox, Options, Reply, System};
    ///
    /// let system = System::new(Smol::global());
    /// let timed = system.spawn_with(Options::new().timed(), |mut mailbox: Mailbox<Reply<()>>| async move {
    ///     while let Some(reply) = mailbox.receive().await {
    ///         reply.send(());
    ///     }
    /// });
    /// assert_eq!(smol::block_on(timed.ask(|reply| reply)), Ok(()));
    /// assert!(timed.load().busy.is_some());
    /// # }
    /// ```
    #[must_use]
    pub fn timed(mut self) -> Options<M> {
        self.timed = true;
        self
    }

    /// Whether there is something to remember.
    pub(crate) fn is_special(&self) -> bool {
        self.queue != QueueOnRestart::Keep
            || self.retry.is_some()
            || self.dead_letters.is_some()
            || self.timed
    }
}

impl<M> fmt::Debug for Options<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("capacity", &self.capacity)
            .field("label", &self.label)
            .field("queue", &self.queue)
            .field("retry", &self.retry.map(|(times, _)| times))
            .field("dead_letters", &self.dead_letters.is_some())
            .field("timed", &self.timed)
            .finish()
    }
}

/// When an actor has had nothing to do for too long.
pub(crate) struct Overdue(Deadline);

impl Overdue {
    pub(crate) fn new(clock: &Arc<Clock>, after: Duration) -> Overdue {
        Overdue(Deadline::new(Arc::clone(clock), later(clock, after)))
    }

    pub(crate) fn poll(&mut self, cx: &Context<'_>) -> Poll<()> {
        self.0.poll(cx)
    }
}

/// So much later than now.
pub(crate) fn later(clock: &Clock, after: Duration) -> std::time::Instant {
    later_than(clock.now(), after)
}
