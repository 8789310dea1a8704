//! Requests and their answers.

use std::{
    error::Error,
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::Weak,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use backplane::Exit;

use crate::{
    address::Address,
    clock::{self, Clock, later_than},
    frame::{self, CallState, Node},
    mailbox::{Item, Priority, Refusal, WhenFull, wake},
    name::ActorName,
    sync::{Arc, AtomicU32, AtomicUsize, Mutex, Ordering, into_inner, lock},
};

/// So long a call waits, unless said otherwise: OTP's five seconds.
///
/// ```
/// # #[cfg(feature = "testing")] {
/// # use backplane::Runtime;
/// # use backplane_actor::{System, testing::Seeded};
/// # let runtime = Seeded::new(1);
/// # let system = System::new(runtime.clone());
/// # use backplane_actor::{CallError, Options, Reply};
/// use backplane_actor::DEFAULT_CALL_TIME;
///
/// let (silent, _home) = system.prepare::<Reply<u64>>(Options::new());
/// let before = runtime.now();
/// assert_eq!(runtime.run(async { silent.ask(|reply| reply).await }), Err(CallError::TimedOut));
/// assert_eq!(runtime.since(before), DEFAULT_CALL_TIME);
/// # }
/// ```
pub const DEFAULT_CALL_TIME: Duration = Duration::from_secs(5);

/// A call, between the two who know of it.
struct Slot<T> {
    /// [`WAITING`] and so on; written under the lock.
    done: AtomicU32,
    /// What the clock calls it, once its time is counted there; written under the lock.
    alarm: AtomicU32,
    inside: Mutex<Inside<T>>,
    /// Which actor was called, as an address that is only compared. Written before anybody else knows of the call.
    callee: AtomicUsize,
}

/// Only so is it made where it is to be, and not moved there.
impl<T> Default for Slot<T> {
    #[inline]
    fn default() -> Slot<T> {
        Slot {
            done: AtomicU32::new(WAITING),
            alarm: AtomicU32::new(UNNAMED),
            inside: Mutex::new(Inside { stage: Stage::Waiting(None), until: Until::Forever }),
            callee: AtomicUsize::new(0),
        }
    }
}

struct Inside<T> {
    stage: Stage<T>,
    until: Until,
}

/// Until when the caller waits.
enum Until {
    Forever,
    /// [`DEFAULT_CALL_TIME`] from when the clock of this number begins to count it.
    Default(u64),
    Then(Instant),
}

enum Stage<T> {
    Waiting(Option<Waker>),
    Answered(T),
    /// There will be none; with the exit of the actor, if it ended.
    Dropped(Option<Exit>),
    /// The reply was dropped where nobody knows whether the actor was ending.
    DroppedElsewhere,
    TimedOut,
    Over,
}

/// There is no answer yet.
const WAITING: u32 = 0;
/// There is, or there will be none.
const ANSWERED: u32 = 1;
const DROPPED: u32 = 2;
/// Nobody waits any more; and there was an answer, or the word that there will be none, if it is `HEARD`.
const OVER: u32 = 3;
const HEARD: u32 = 4;

/// No names of the clock's: it has none, and the clock is yet to give it one.
const UNNAMED: u32 = u32::MAX;
const FRESH: u32 = u32::MAX - 1;

impl<T> Slot<T> {
    fn finish(&self, stage: Stage<T>) -> Result<(), Stage<T>> {
        let mut inside = lock(&self.inside);
        match &mut inside.stage {
            Stage::Waiting(waker) => {
                let waker = waker.take();
                let done = if let Stage::Answered(_) = stage { ANSWERED } else { DROPPED };
                self.done.store(done, Ordering::Release);
                inside.stage = stage;
                drop(inside);
                if let Some(waker) = waker {
                    wake(waker);
                }
                Ok(())
            }
            Stage::Answered(_)
            | Stage::Dropped(_)
            | Stage::DroppedElsewhere
            | Stage::TimedOut
            | Stage::Over => {
                drop(inside);
                Err(stage)
            }
        }
    }

    /// The caller has what it waited for, or does not wait any more.
    fn leave(&self) -> Stage<T> {
        let mut inside = lock(&self.inside);
        self.over(&mut inside)
    }

    fn over(&self, inside: &mut Inside<T>) -> Stage<T> {
        let done = match inside.stage {
            Stage::Answered(_) | Stage::Dropped(_) | Stage::DroppedElsewhere => HEARD,
            Stage::Waiting(_) | Stage::TimedOut | Stage::Over => OVER,
        };
        self.done.store(done, Ordering::Release);
        mem::replace(&mut inside.stage, Stage::Over)
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<Stage<T>> {
        let mut inside = lock(&self.inside);
        match &mut inside.stage {
            Stage::Waiting(Some(waker)) if waker.will_wake(cx.waker()) => Poll::Pending,
            Stage::Waiting(_) => {
                drop(inside);
                let mut waker = Some(cx.waker().clone());
                inside = lock(&self.inside);
                if let Stage::Waiting(place) = &mut inside.stage {
                    mem::swap(place, &mut waker);
                    drop(inside);
                    drop(waker);
                    return Poll::Pending;
                }
                drop(inside);
                drop(waker);
                Poll::Ready(self.leave())
            }
            Stage::Answered(_)
            | Stage::Dropped(_)
            | Stage::DroppedElsewhere
            | Stage::TimedOut
            | Stage::Over => Poll::Ready(self.over(&mut inside)),
        }
    }
}

impl<T: Send> CallState for Slot<T> {
    fn is_over(&self) -> bool {
        self.done.load(Ordering::Acquire) >= OVER
    }

    fn is_answered(&self) -> bool {
        matches!(self.done.load(Ordering::Acquire), ANSWERED | DROPPED | HEARD)
    }

    fn is_settled(&self) -> bool {
        self.done.load(Ordering::Acquire) != WAITING
    }

    fn is_fresh(&self) -> bool {
        self.alarm.load(Ordering::Relaxed) == FRESH && !self.is_settled()
    }

    fn deadline(&self, now: &mut dyn FnMut() -> Instant) -> Option<Instant> {
        match lock(&self.inside).until {
            Until::Forever => return None,
            Until::Then(at) => return Some(at),
            Until::Default(_) => {}
        }
        Some(later_than(now(), DEFAULT_CALL_TIME))
    }

    fn counts(&self, until: Instant, name: u32) -> bool {
        let mut inside = lock(&self.inside);
        if self.is_settled() || !matches!(inside.until, Until::Default(_)) {
            return false;
        }
        inside.until = Until::Then(until);
        self.alarm.store(name, Ordering::Relaxed);
        true
    }

    fn expire(&self) {
        let mut inside = lock(&self.inside);
        if let Stage::Waiting(waker) = &mut inside.stage {
            let waker = waker.take();
            self.done.store(OVER, Ordering::Release);
            inside.stage = Stage::TimedOut;
            drop(inside);
            if let Some(waker) = waker {
                wake(waker);
            }
        }
    }

    fn settle(&self, exit: Option<&Exit>) {
        drop(self.finish(Stage::Dropped(exit.cloned())));
    }
}

/// The right to answer a call: once, now or later, from here or elsewhere.
///
/// Dropped unused, the caller hears at once that there will be no answer: because the actor has ended, or because it
/// does not want to give one.
///
/// ```
/// # #[cfg(feature = "smol")] {
/// # use backplane::runtime::Smol;
/// use backplane_actor::{CallError, Mailbox, Reply, System};
///
/// let system = System::new(Smol::global());
/// let clerk = system.spawn(|mut mailbox: Mailbox<(bool, Reply<&str>)>| async move {
///     let mut kept = Vec::new();
///     while let Some((patient, reply)) = mailbox.receive().await {
///         if patient { kept.push(reply) } else { kept.drain(..).for_each(|reply| reply.send("done")) }
///     }
/// });
/// smol::block_on(async {
///     let mut waits = clerk.ask(|reply| (true, reply));
///     assert!(smol::future::poll_once(&mut waits).await.is_none());
///     assert_eq!(clerk.ask(|reply| (false, reply)).await, Err(CallError::NoReply)); // dropped unused
///     assert_eq!(waits.await, Ok("done"));
/// });
/// # }
/// ```
#[must_use = "dropped, it tells the caller that there will be no answer"]
pub struct Reply<T: Send + 'static> {
    slot: Arc<Slot<T>>,
}

impl<T: Send + 'static> Reply<T> {
    /// Answers. If nobody waits any more the value is dropped: an answer is never late.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane_actor::{Mailbox, Reply};
    /// let double = system.spawn(|mut mailbox: Mailbox<(u64, Reply<u64>)>| async move {
    ///     while let Some((n, reply)) = mailbox.receive().await {
    ///         reply.send(2 * n);
    ///     }
    /// });
    /// assert_eq!(smol::block_on(double.ask(|reply| (21, reply))), Ok(42));
    /// # }
    /// ```
    pub fn send(self, value: T) {
        drop(self.try_send(value));
    }

    /// Answers, or gives the value back if nobody waits any more.
    ///
    /// # Errors
    ///
    /// The value, if the caller has gone or its time is up.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane_actor::{Mailbox, Reply};
    /// # let (hand_over, handed) = std::sync::mpsc::channel();
    /// # let slow = system.spawn(move |mut mailbox: Mailbox<Reply<u64>>| async move {
    /// #     while let Some(reply) = mailbox.receive().await {
    /// #         hand_over.send(reply).unwrap();
    /// #     }
    /// # });
    /// let mut call = slow.ask(|reply| reply);
    /// assert!(smol::block_on(smol::future::poll_once(&mut call)).is_none());
    /// let reply = handed.recv().unwrap();
    /// drop(call); // the caller goes
    /// assert_eq!(reply.try_send(42), Err(42));
    /// # }
    /// ```
    pub fn try_send(self, value: T) -> Result<(), T> {
        match self.slot.finish(Stage::Answered(value)) {
            Err(Stage::Answered(value)) => Err(value),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Whether nobody waits for the answer any more.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane_actor::{Mailbox, Reply};
    /// # let (hand_over, handed) = std::sync::mpsc::channel();
    /// # let slow = system.spawn(move |mut mailbox: Mailbox<Reply<u64>>| async move {
    /// #     while let Some(reply) = mailbox.receive().await {
    /// #         hand_over.send(reply).unwrap();
    /// #     }
    /// # });
    /// let mut call = slow.ask(|reply| reply);
    /// assert!(smol::block_on(smol::future::poll_once(&mut call)).is_none());
    /// let reply = handed.recv().unwrap();
    /// assert!(!reply.is_over());
    /// drop(call);
    /// assert!(reply.is_over()); // no need to go on with the work
    /// # let _ = reply.try_send(1);
    /// # }
    /// ```
    pub fn is_over(&self) -> bool {
        self.slot.is_over()
    }

    /// Until when the caller waits, if there is a limit. Of [five seconds](DEFAULT_CALL_TIME) that it has not set itself, it
    /// is exact to a millisecond.
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # use backplane::Runtime;
    /// # use backplane_actor::{System, testing::Seeded};
    /// # let runtime = Seeded::new(1);
    /// # let system = System::new(runtime.clone());
    /// # use backplane_actor::{Mailbox, Reply};
    /// # use std::time::Duration;
    /// let noon = runtime.now() + Duration::from_secs(3600);
    /// let clerk = system.spawn(move |mut mailbox: Mailbox<Reply<bool>>| async move {
    ///     while let Some(reply) = mailbox.receive().await {
    ///         let until_noon = reply.deadline() == Some(noon);
    ///         reply.send(until_noon);
    ///     }
    /// });
    /// assert_eq!(runtime.run(async { clerk.ask(|reply| reply).until(noon).await }), Ok(true));
    /// # }
    /// ```
    pub fn deadline(&self) -> Option<Instant> {
        let clock = match lock(&self.slot.inside).until {
            Until::Forever => return None,
            Until::Then(at) => return Some(at),
            Until::Default(clock) => clock,
        };
        // Nobody counts the time of a clock that is gone.
        clock::now_of(clock).map(|now| later_than(now, DEFAULT_CALL_TIME))
    }
}

impl<T: Send + 'static> Drop for Reply<T> {
    fn drop(&mut self) {
        if self.slot.is_settled() {
            return;
        }
        // In the actor that was called, what comes next says why; see `Frame::dropped`.
        let here = frame::with(|frame| {
            let here = self.slot.callee.load(Ordering::Relaxed) == address_of(&frame.node);
            if here {
                frame.dropped(Arc::clone(&self.slot) as Arc<dyn CallState>);
            }
            here
        });
        if here != Some(true) {
            drop(self.slot.finish(Stage::DroppedElsewhere));
        }
    }
}

impl<T: Send + 'static> fmt::Debug for Reply<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").field("over", &self.is_over()).finish_non_exhaustive()
    }
}

fn address_of(node: &Arc<dyn Node>) -> usize {
    Arc::as_ptr(node).cast::<()>().addr()
}

/// A call that was not answered.
///
/// ```
/// # #[cfg(feature = "smol")] {
/// # use backplane::{Exit, runtime::Smol};
/// use backplane_actor::{CallError, Mailbox, Reply, System};
///
/// let system = System::new(Smol::global());
/// // It answers nobody: the first reply is dropped, of the second it dies.
/// let rude = system.spawn(|mut mailbox: Mailbox<Reply<()>>| async move {
///     drop(mailbox.receive().await);
///     let _reply = mailbox.receive().await;
///     Exit::Shutdown
/// });
/// smol::block_on(async {
///     assert_eq!(rude.ask(|reply| reply).await, Err(CallError::NoReply));
///     assert_eq!(rude.ask(|reply| reply).await, Err(CallError::Ended(Exit::Shutdown)));
///     rude.ended().await;
///     assert_eq!(rude.ask(|reply| reply).await, Err(CallError::Gone));
/// });
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallError {
    /// The actor had ended when it was called: OTP's `noproc`. The request is still in the [`Call`].
    Gone,
    /// The actor ended before it answered, like this; or was replaced by a successor, and died like this.
    Ended(Exit),
    /// There was no answer in time.
    TimedOut,
    /// The mailbox was full until the time was up. The request is still in the [`Call`].
    Full,
    /// The actor dropped its [`Reply`], and lives; or the request was dropped for a newer message, as who sent that
    /// [wanted](crate::Cast::drop_oldest); or it waited at a [`Home`](crate::Home) that was dropped before anybody had ever run
    /// there, so that there is no end to be told of.
    NoReply,
    /// Each of these waits for the next, the last of them for the first: there would never be an answer.
    Cycle(Vec<ActorName>),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::Gone => f.write_str("the actor had ended"),
            CallError::Ended(exit) => write!(f, "the actor ended before it answered: {exit}"),
            CallError::TimedOut => f.write_str("no answer in time"),
            CallError::Full => f.write_str("the mailbox was full until the time was up"),
            CallError::NoReply => f.write_str("the actor gave no answer"),
            CallError::Cycle(way) => {
                f.write_str("a cycle of calls: ")?;
                for (index, name) in way.iter().enumerate() {
                    write!(f, "{}{name}", if index == 0 { "" } else { " calls " })?;
                }
                Ok(())
            }
        }
    }
}

impl Error for CallError {}

enum Limit {
    Default,
    Within(Duration),
    Until(Instant),
    Never,
}

enum Step {
    Start,
    /// For room.
    Waits(u64),
    Sent,
    Over,
}

/// A call: sent when it is first polled, answered when it is done. Made by [`Address::call`] and [`Address::ask`].
///
/// Dropped, it cancels the request, if it has not been handled yet.
///
/// ```
/// # #[cfg(feature = "smol")] {
/// # use backplane::runtime::Smol;
/// # use backplane_actor::System;
/// # let system = System::new(Smol::global());
/// # use backplane::{Device, Exit};
/// # use backplane_actor::{Options, Reply};
/// let (address, home) = system.prepare::<Reply<u64>>(Options::new());
/// let mut call = address.ask(|reply| reply);
/// assert_eq!(address.load().normal, 0); // nothing is sent yet
/// assert!(smol::block_on(smol::future::poll_once(&mut call)).is_none());
/// assert_eq!(address.load().normal, 1);
/// drop(call); // cancelled, so nobody handles it
/// let exit = smol::block_on(home.run(Device::new(), |mut mailbox| async move {
///     assert!(mailbox.try_receive().is_none());
/// }));
/// assert_eq!(exit, Exit::Normal);
/// # }
/// ```
#[must_use = "futures do nothing unless polled"]
pub struct Call<'a, M: Send + 'static, T: Send + 'static> {
    /// Until it is over.
    slot: Option<Arc<Slot<T>>>,
    request: Request<'a, M>,
}

/// What a call asks, and how far it is.
struct Request<'a, M: Send + 'static> {
    address: &'a Address<M>,
    message: Option<M>,
    step: Step,
    priority: Priority,
    system: bool,
    limit: Limit,
    /// The name of what wakes us when the time is up.
    alarm: Option<u32>,
    /// Who calls, and the number of its call.
    edge: Option<(Arc<dyn Node>, u64)>,
}

impl<M: Send + 'static, T: Send + 'static> Unpin for Call<'_, M, T> {}

impl<'a, M: Send + 'static, T: Send + 'static> Call<'a, M, T> {
    pub(crate) fn new(address: &'a Address<M>, make: impl FnOnce(Reply<T>) -> M) -> Call<'a, M, T> {
        let slot = Arc::<Slot<T>>::default();
        slot.callee.store(Arc::as_ptr(address.shared()).cast::<()>().addr(), Ordering::Relaxed);
        let message = make(Reply { slot: Arc::clone(&slot) });
        let request = Request {
            address,
            message: Some(message),
            step: Step::Start,
            priority: Priority::Normal,
            system: false,
            limit: Limit::Default,
            alarm: None,
            edge: None,
        };
        Call { slot: Some(slot), request }
    }

    /// Waits so long, instead of [five seconds](DEFAULT_CALL_TIME), counted from the first poll. In an actor that is being
    /// called itself never longer than its caller waits.
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # use backplane::Runtime;
    /// # use backplane_actor::{System, testing::Seeded};
    /// # let runtime = Seeded::new(1);
    /// # let system = System::new(runtime.clone());
    /// # use backplane_actor::{CallError, Options, Reply};
    /// # use std::time::Duration;
    /// let (silent, _home) = system.prepare::<Reply<u64>>(Options::new());
    /// let (before, minute) = (runtime.now(), Duration::from_secs(60));
    /// runtime.run(async {
    ///     assert_eq!(silent.ask(|reply| reply).within(minute).await, Err(CallError::TimedOut));
    /// });
    /// assert_eq!(runtime.since(before), minute);
    /// # }
    /// ```
    pub fn within(mut self, time: Duration) -> Call<'a, M, T> {
        self.request.limit = Limit::Within(time);
        self
    }

    /// Waits until then, on the runtime's clock.
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # use backplane::Runtime;
    /// # use backplane_actor::{System, testing::Seeded};
    /// # let runtime = Seeded::new(1);
    /// # let system = System::new(runtime.clone());
    /// # use backplane_actor::{CallError, Options, Reply};
    /// # use std::time::Duration;
    /// let (silent, _home) = system.prepare::<Reply<u64>>(Options::new());
    /// let noon = runtime.now() + Duration::from_secs(3600);
    /// runtime.run(async {
    ///     assert_eq!(silent.ask(|reply| reply).until(noon).await, Err(CallError::TimedOut));
    /// });
    /// assert_eq!(runtime.now(), noon);
    /// # }
    /// ```
    pub fn until(mut self, deadline: Instant) -> Call<'a, M, T> {
        self.request.limit = Limit::Until(deadline);
        self
    }

    /// Waits for as long as it takes.
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # use backplane::Runtime;
    /// # use backplane_actor::{System, testing::Seeded};
    /// # let runtime = Seeded::new(1);
    /// # let system = System::new(runtime.clone());
    /// # use backplane_actor::{Mailbox, Reply};
    /// # use std::time::Duration;
    /// let (clock, day) = (runtime.clone(), Duration::from_secs(86_400));
    /// let slow = system.spawn(move |mut mailbox: Mailbox<Reply<&str>>| async move {
    ///     while let Some(reply) = mailbox.receive().await {
    ///         clock.sleep_until(clock.now() + day).await;
    ///         reply.send("at last");
    ///     }
    /// });
    /// assert_eq!(runtime.run(async { slow.ask(|reply| reply).forever().await }), Ok("at last"));
    /// # }
    /// ```
    pub fn forever(mut self) -> Call<'a, M, T> {
        self.request.limit = Limit::Never;
        self
    }

    /// Passes requests and messages that are not urgent.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane::{Device, Exit};
    /// # use backplane_actor::{Options, Reply};
    /// let (address, home) = system.prepare::<(&str, Reply<()>)>(Options::new());
    /// let mut later = address.ask(|reply| ("later", reply));
    /// let mut first = address.ask(|reply| ("first", reply)).urgent();
    /// # smol::block_on(async {
    /// # use smol::future::poll_once;
    /// assert!(poll_once(&mut later).await.is_none() && poll_once(&mut first).await.is_none());
    /// # });
    /// let exit = smol::block_on(home.run(Device::new(), |mut mailbox| async move {
    ///     assert_eq!(mailbox.receive().await.unwrap().0, "first");
    ///     assert_eq!(mailbox.receive().await.unwrap().0, "later");
    /// }));
    /// assert_eq!(exit, Exit::Normal);
    /// # }
    /// ```
    pub fn urgent(mut self) -> Call<'a, M, T> {
        self.request.priority = Priority::Urgent;
        self
    }

    pub(crate) fn through_the_system_lane(mut self) -> Call<'a, M, T> {
        self.request.system = true;
        self
    }

    /// The message, if it was never accepted.
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
    /// # use backplane_actor::{CallError, Options};
    /// let (counter, home) = system.prepare::<Count>(Options::new());
    /// drop(home);
    /// let mut call = counter.ask(Count::Get);
    /// assert_eq!(smol::block_on(&mut call), Err(CallError::Gone));
    /// assert!(matches!(call.take_refused(), Some(Count::Get(_))));
    /// # let _ = (Count::Add(1), count);
    /// # }
    /// ```
    pub fn take_refused(&mut self) -> Option<M> {
        match self.request.step {
            Step::Over | Step::Start => self.request.message.take(),
            Step::Waits(_) | Step::Sent => None,
        }
    }
}

impl<M: Send + 'static> Request<'_, M> {
    fn start<T: Send + 'static>(&mut self, slot: &Arc<Slot<T>>, cx: &Context<'_>) -> Result<(), CallError> {
        if self.message.is_none() {
            // Somebody has taken it back: there is nothing to wait for.
            drop(slot.leave());
            return Err(CallError::NoReply);
        }
        let clock = &self.address.shared().world.clock;
        // It takes long, and not all need it.
        let mut read = None;
        let mut now = || *read.get_or_insert_with(|| clock.now());
        let inherited = match frame::with(|frame| Arc::clone(&frame.node)) {
            None => None,
            Some(caller) => {
                let callee = self.address.shared().node();
                // First the edge, then the search: of two who close a cycle together one sees it.
                let (number, call) = caller.begin_wait(Arc::clone(&callee));
                self.edge = Some((Arc::clone(&caller), number));
                if let Some(way) = frame::cycle(&caller, &callee) {
                    drop(slot.leave());
                    return Err(CallError::Cycle(way));
                }
                call.and_then(|call| call.deadline(&mut now))
            }
        };
        let own = match (&self.limit, inherited) {
            // The mailbox notes it with the message.
            (Limit::Default, None) if !self.system => None,
            (Limit::Default, _) => Some(later_than(now(), DEFAULT_CALL_TIME)),
            (Limit::Within(time), _) => Some(later_than(now(), *time)),
            (Limit::Until(deadline), _) => Some(*deadline),
            (Limit::Never, _) => None,
        };
        let deadline = match (own, inherited) {
            (Some(own), Some(inherited)) => Some(own.min(inherited)),
            (own, inherited) => own.or(inherited),
        };
        let until = match (deadline, &self.limit) {
            (Some(at), _) => {
                self.alarm = Some(clock.set(at, cx.waker().clone()));
                Until::Then(at)
            }
            (None, Limit::Default) => Until::Default(clock.id()),
            (None, _) => Until::Forever,
        };
        let fresh = matches!(until, Until::Default(_));
        let waker = cx.waker().clone();
        let mut inside = lock(&slot.inside);
        inside.until = until;
        if fresh {
            slot.alarm.store(FRESH, Ordering::Relaxed);
        }
        if let Stage::Waiting(place @ None) = &mut inside.stage {
            *place = Some(waker);
        }
        drop(inside);
        let Some(message) = self.message.take() else { return Ok(()) };
        if self.system {
            self.step = Step::Sent;
            let pushed = self.address.shared().push_system(message, None);
            return pushed.map_err(|message| self.refused(slot, message));
        }
        let call = Arc::clone(slot) as Arc<dyn CallState>;
        let item = Item { message, call: Some(call) };
        let shared = self.address.shared();
        let pushed = if fresh {
            shared.push_fresh(self.priority, item)
        } else {
            shared.push(self.priority, item, WhenFull::Refuse).map(|()| false)
        };
        let pushed = match pushed {
            Ok(tell) => {
                if tell {
                    clock.tell(Arc::downgrade(shared) as Weak<dyn Node>);
                }
                Ok(None)
            }
            Err((Refusal::Closed, item)) => Err(item),
            Err((Refusal::Full, item)) => {
                if fresh {
                    let at = later_than(now(), DEFAULT_CALL_TIME);
                    let mut inside = lock(&slot.inside);
                    inside.until = Until::Then(at);
                    slot.alarm.store(UNNAMED, Ordering::Relaxed);
                    drop(inside);
                    self.alarm = Some(clock.set(at, cx.waker().clone()));
                }
                shared.push_waiting(self.priority, item, cx.waker().clone())
            }
        };
        match pushed {
            Ok(None) => self.step = Step::Sent,
            Ok(Some(ticket)) => self.step = Step::Waits(ticket),
            Err(item) => return Err(self.refused(slot, item.message)),
        }
        Ok(())
    }

    fn refused<T: Send + 'static>(&mut self, slot: &Slot<T>, message: M) -> CallError {
        self.give_back(slot, message);
        match self.address.shared().exit() {
            // It is about to end, and will not look at anything more.
            Some(exit) if self.address.line().is_some() => CallError::Ended(exit),
            _ => CallError::Gone,
        }
    }

    /// It comes back, and whatever it carries is answered by nobody.
    fn give_back<T: Send + 'static>(&mut self, slot: &Slot<T>, message: M) {
        drop(slot.leave());
        self.message = Some(message);
    }

    fn go_on<T: Send + 'static>(
        &mut self,
        slot: &Arc<Slot<T>>,
        cx: &Context<'_>,
    ) -> Poll<Result<T, CallError>> {
        if let Step::Start = self.step {
            if let Err(error) = self.start(slot, cx) {
                return Poll::Ready(Err(error));
            }
            // Whatever comes from here on wakes us; what came before it was sent does not.
            if !slot.is_settled() {
                return Poll::Pending;
            }
        }
        if let Step::Waits(ticket) = self.step {
            match self.address.shared().poll_waiting(self.priority, ticket, cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => self.step = Step::Sent,
                Poll::Ready(Err(item)) => {
                    self.step = Step::Over;
                    return Poll::Ready(Err(self.refused(slot, item.message)));
                }
            }
        }
        // Before it is sent nobody hears of it.
        let waits = matches!(self.step, Step::Waits(_));
        match if waits { Poll::Pending } else { slot.poll(cx) } {
            Poll::Ready(Stage::Answered(value)) => return Poll::Ready(Ok(value)),
            Poll::Ready(Stage::Dropped(exit)) => return Poll::Ready(Err(self.no_answer(slot, exit))),
            Poll::Ready(Stage::DroppedElsewhere) => {
                let exit = self.address.shared().exit();
                return Poll::Ready(Err(self.no_answer(slot, exit)));
            }
            Poll::Ready(Stage::TimedOut) => return Poll::Ready(Err(CallError::TimedOut)),
            Poll::Ready(Stage::Waiting(_) | Stage::Over) => return Poll::Ready(Err(CallError::NoReply)),
            Poll::Pending => {}
        }
        match self.alarm {
            Some(alarm) if self.clock().look(alarm, cx) => {}
            _ => return Poll::Pending,
        }
        if let Step::Waits(ticket) = self.step
            && let Some(item) = self.address.shared().take_back(self.priority, ticket)
        {
            self.give_back(slot, item.message);
            return Poll::Ready(Err(CallError::Full));
        }
        Poll::Ready(match slot.leave() {
            Stage::Answered(value) => Ok(value),
            _ => Err(CallError::TimedOut),
        })
    }

    /// Why there is no answer; the actor has ended like this, if it has.
    #[cold]
    fn no_answer<T>(&self, slot: &Slot<T>, exit: Option<Exit>) -> CallError {
        match exit {
            Some(exit) => CallError::Ended(exit),
            // It may have given up because the time was up, which it inherits.
            None if self.is_late(slot) => CallError::TimedOut,
            None => CallError::NoReply,
        }
    }

    fn clock(&self) -> &Clock {
        &self.address.shared().world.clock
    }

    /// Whether whoever has inherited the time saw it run out.
    fn is_late<T>(&self, slot: &Slot<T>) -> bool {
        let until = match lock(&slot.inside).until {
            Until::Forever | Until::Default(_) => return false,
            Until::Then(at) => at,
        };
        until <= self.clock().now()
    }

    /// `alarm` is the name in the clock of a time that is counted there.
    fn leave(&mut self, alarm: &AtomicU32) {
        if let Some((caller, number)) = self.edge.take() {
            caller.end_wait(number);
        }
        let counted = alarm.load(Ordering::Relaxed);
        for alarm in self.alarm.take().into_iter().chain((counted < FRESH).then_some(counted)) {
            self.clock().cancel(alarm);
        }
        self.step = Step::Over;
    }
}

impl<M: Send + 'static> Request<'_, M> {
    /// The caller goes before it has heard.
    #[inline(never)]
    fn go<T: Send + 'static>(&mut self, slot: &Slot<T>) {
        let back = match self.step {
            Step::Waits(ticket) => self.address.shared().take_back(self.priority, ticket),
            Step::Start | Step::Sent | Step::Over => None,
        };
        let stage = slot.leave();
        self.leave(&slot.alarm);
        // A message or an answer may panic when it is dropped: then nobody waits any more.
        drop((back, stage));
    }
}

impl<M: Send + 'static, T: Send + 'static> Future for Call<'_, M, T> {
    type Output = Result<T, CallError>;

    /// # Panics
    ///
    /// If it has returned before.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T, CallError>> {
        let Call { slot: place, request } = &mut *self;
        let Some(mut slot) = place.take() else { panic!("polled after it had ended") };
        if matches!(request.step, Step::Sent) && slot.done.load(Ordering::Acquire) == ANSWERED {
            // As a rule nobody else looks at it any more: then it needs no lock.
            match Arc::try_unwrap(slot) {
                Ok(Slot { inside, alarm, .. }) => {
                    request.leave(&alarm);
                    return Poll::Ready(match into_inner(inside).stage {
                        Stage::Answered(value) => Ok(value),
                        _ => Err(CallError::NoReply),
                    });
                }
                Err(shared) => slot = shared,
            }
        }
        let slot = place.insert(slot);
        let poll = request.go_on(slot, cx);
        if poll.is_ready() {
            request.leave(&slot.alarm);
            *place = None;
        }
        poll
    }
}

impl<M: Send + 'static, T: Send + 'static> Drop for Call<'_, M, T> {
    #[inline]
    fn drop(&mut self) {
        // As a rule it has been answered, and nothing is left.
        if let Some(slot) = self.slot.take() {
            self.request.go(&slot);
        }
    }
}

impl<M: Send + 'static, T: Send + 'static> fmt::Debug for Call<'_, M, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = match self.request.step {
            Step::Start => "not sent",
            Step::Waits(_) => "waits for room",
            Step::Sent => "sent",
            Step::Over => "over",
        };
        f.debug_struct("Call").field("to", self.request.address).field("step", &step).finish_non_exhaustive()
    }
}
