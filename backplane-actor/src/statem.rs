//! State machines behind a mailbox: OTP's `gen_statem`, to the letter where a letter can be matched.
//!
//! What happens after an event has been handled, in this order:
//!
//! 1. If the state has changed, or is to be repeated, it is [entered](StateMachine::enter).
//! 2. If the event was postponed, it is put behind those that were postponed before.
//! 3. If the state has changed, all that is postponed comes back, the oldest first, before all that is queued; and a state
//!    timeout is cancelled.
//! 4. Inserted events come before all that is queued, what has come back included, in the order in which they were inserted.
//! 5. Timeouts are set, cancelled and updated, in the order in which that was said. Those of no time at all come, in the
//!    order in which they were set, when nothing is queued and before anything is received.
//! 6. The oldest queued event is handled; if there is none, the next message, or the next timeout that is due.
//!
//! Each event that is handled cancels an event timeout first.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fmt,
    future::{Future, poll_fn, ready},
    hash::Hash,
    mem::{self, Discriminant},
    ops::{Deref, DerefMut},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use backplane::{Exit, Fault};

use crate::{
    actor::{Caught, exit_of},
    clock::{Clock, Deadline},
    frame::CallState,
    mailbox::{Item, Mailbox, Shared, drop_over},
    options::{DeadLetter, later},
    sync::Arc,
};

/// So many queued events are handled before others get their turn.
const TURN: u32 = 256;

/// A machine that is in one state at a time; OTP's `gen_statem`.
///
/// The machine itself is what OTP calls data; its state is a value of its own, mostly an `enum`, and **a state has changed
/// if it is not equal to what it was**. Messages are of one type; a request carries its [`Reply`](crate::Reply), which may be
/// kept, in the machine or by postponing the event, and used in a later state.
///
/// ```
/// # #[cfg(feature = "smol")] {
/// use backplane::runtime::Smol;
/// use backplane_actor::{Event, Next, Reply, StateMachine, System, Turn, run_machine};
/// use std::{convert::Infallible, time::Duration};
///
/// /// Opens for its code, and closes again by itself.
/// struct Door {
///     code: u32,
/// }
///
/// #[derive(Clone, Copy, Debug, PartialEq)]
/// enum State {
///     Locked,
///     Open,
/// }
///
/// enum Message {
///     Code(u32),
///     /// Answered when it is open, whenever that is.
///     Walk(Reply<&'static str>),
/// }
///
/// impl StateMachine for Door {
///     type State = State;
///     type Message = Message;
///     type Content = ();
///     type Name = ();
///     type Error = Infallible;
///
///     async fn handle(
///         &mut self,
///         state: &State,
///         event: Event<Self>,
///         turn: &mut Turn<'_, Self>,
///     ) -> Result<Next<State>, Infallible> {
///         Ok(match (state, event) {
///             (State::Locked, Event::Message(Message::Code(code))) if code == self.code => {
///                 turn.state_timeout(Duration::from_secs(10), ());
///                 Next::To(State::Open)
///             }
///             (State::Open, Event::StateTimeout(())) => Next::To(State::Locked),
///             (State::Open, Event::Message(Message::Walk(reply))) => {
///                 reply.send("in");
///                 Next::Keep
///             }
///             (State::Locked, event @ Event::Message(Message::Walk(_))) => {
///                 turn.postpone(event);
///                 Next::Keep
///             }
///             _ => Next::Keep,
///         })
///     }
/// }
///
/// let system = System::new(Smol::global());
/// let door = system.spawn(|mailbox| run_machine(Door { code: 7 }, State::Locked, mailbox));
/// smol::block_on(async {
///     let mut walk = std::pin::pin!(door.ask(Message::Walk));
///     assert!(smol::future::poll_once(walk.as_mut()).await.is_none());
///     door.cast(Message::Code(7)).await.unwrap();
///     assert_eq!(walk.await.unwrap(), "in");
/// });
/// # }
/// ```
pub trait StateMachine: Sized + Send + 'static {
    /// Where it is. It changes when it is not equal any more.
    type State: PartialEq + Send + Sync + 'static;

    /// What comes through the mailbox.
    type Message: Send + 'static;

    /// What timeouts and inserted events bring with them.
    type Content: Send + 'static;

    /// The names of [named timeouts](Entering::timeout); `()`, if there is one at most.
    type Name: Clone + Eq + Hash + Send + Sync + 'static;

    /// What ends it as a fault, with these words; [`Infallible`](std::convert::Infallible), if nothing does.
    type Error: fmt::Display + Send + 'static;

    /// Handles an event, and says what comes next.
    fn handle(
        &mut self,
        state: &Self::State,
        event: Event<Self>,
        turn: &mut Turn<'_, Self>,
    ) -> impl Future<Output = Result<Next<Self::State>, Self::Error>> + Send;

    /// Enters a state: the first one (then `from` is `None`), one that it has changed to, or one that is repeated. Before
    /// anything is handled there.
    ///
    /// Events can be neither postponed nor inserted here, and the state stays.
    fn enter(
        &mut self,
        from: Option<&Self::State>,
        state: &Self::State,
        entering: &mut Entering<'_, Self>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send {
        let _ = (from, state, entering);
        ready(Ok(()))
    }

    /// Before the end, whatever led to it, but for a kill and the fault of a linked actor. After a panic, the machine is as
    /// the panic left it, and the state is the one in which it happened.
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # use backplane::{Exit, Runtime};
    /// # use backplane_actor::{Address, Entering, Event, Next, StateMachine, System, Turn, run_machine};
    /// # use backplane_actor::testing::{Probe, Seeded};
    /// # use std::{convert::Infallible, time::Duration};
    /// # let runtime = Seeded::new(1);
    /// # let system = System::new(runtime.clone());
    /// # #[derive(PartialEq)]
    /// # enum State { Off, On }
    /// # enum Message { Press }
    /// # struct Lamp { seen: Address<&'static str> }
    /// # impl Lamp {
    /// #     fn note(&mut self, event: Event<Self>) -> Result<Next<State>, Infallible> {
    /// #         let (Event::Internal(what) | Event::StateTimeout(what) | Event::EventTimeout(what)
    /// #             | Event::Timeout(_, what)) = event else { return Ok(Next::Keep) };
    /// #         self.seen.try_cast(what).unwrap();
    /// #         Ok(Next::Keep)
    /// #     }
    /// # }
    /// # impl StateMachine for Lamp {
    /// #   type State = State;
    /// #   type Message = Message;
    /// #   type Content = &'static str;
    /// #   type Name = &'static str;
    /// #   type Error = Infallible;
    /// async fn terminate(&mut self, exit: &Exit, state: &State) {
    ///     if *exit == Exit::Shutdown && *state == State::On {
    ///         self.seen.try_cast("switched off").unwrap();
    ///     }
    /// }
    /// #   async fn handle(&mut self, _: &State, _: Event<Self>, _: &mut Turn<'_, Self>) -> Result<Next<State>, Infallible> {
    /// #       Ok(Next::To(State::On))
    /// #   }
    /// # }
    /// # let mut probe = Probe::<&str>::new(&system);
    /// # let lamp = Lamp { seen: probe.address().clone() };
    /// let lamp = system.spawn(|mailbox| run_machine(lamp, State::On, mailbox));
    /// # let _ = (Message::Press, State::Off);
    /// lamp.stop(Exit::Shutdown);
    /// assert_eq!(runtime.run(probe.expect(Duration::from_secs(1))), "switched off");
    /// # }
    /// ```
    fn terminate(&mut self, exit: &Exit, state: &Self::State) -> impl Future<Output = ()> + Send {
        let _ = (exit, state);
        ready(())
    }
}

/// What a machine handles.
///
/// ```
/// # #[cfg(feature = "testing")] {
/// # use backplane::{Exit, Runtime};
/// # use backplane_actor::{Address, Entering, Event, Next, StateMachine, System, Turn, run_machine};
/// # use backplane_actor::testing::{Probe, Seeded};
/// # use std::{convert::Infallible, time::Duration};
/// # let runtime = Seeded::new(1);
/// # let system = System::new(runtime.clone());
/// # #[derive(PartialEq)]
/// # enum State { Off, On }
/// # enum Message { Press }
/// # struct Lamp { seen: Address<&'static str> }
/// # impl Lamp {
/// #     fn note(&mut self, event: Event<Self>) -> Result<Next<State>, Infallible> {
/// #         let (Event::Internal(what) | Event::StateTimeout(what) | Event::EventTimeout(what)
/// #             | Event::Timeout(_, what)) = event else { return Ok(Next::Keep) };
/// #         self.seen.try_cast(what).unwrap();
/// #         Ok(Next::Keep)
/// #     }
/// # }
/// # impl StateMachine for Lamp {
/// #   type State = State;
/// #   type Message = Message;
/// #   type Content = &'static str;
/// #   type Name = &'static str;
/// #   type Error = Infallible;
/// async fn handle(
///     &mut self,
///     _: &State,
///     event: Event<Self>,
///     turn: &mut Turn<'_, Self>,
/// ) -> Result<Next<State>, Infallible> {
///     Ok(match event {
///         Event::Message(Message::Press) => {
///             turn.state_timeout(Duration::from_secs(10), "off");
///             Next::To(State::On)
///         }
///         Event::StateTimeout(what) => {
///             turn.insert(Event::Internal(what));
///             Next::To(State::Off)
///         }
///         event => return self.note(event), // the internal one
///     })
/// }
/// # }
/// # let mut probe = Probe::<&str>::new(&system);
/// # let lamp = Lamp { seen: probe.address().clone() };
/// let lamp = system.spawn(|mailbox| run_machine(lamp, State::Off, mailbox));
/// runtime.run(async {
///     lamp.cast(Message::Press).await.unwrap();
///     assert_eq!(probe.expect(Duration::from_secs(11)).await, "off");
/// });
/// # }
/// ```
#[expect(clippy::enum_variant_names, reason = "an event timeout is what OTP calls it")]
#[non_exhaustive]
pub enum Event<S: StateMachine> {
    /// A message came.
    Message(S::Message),
    /// It was [inserted](Turn::insert) by the machine itself.
    Internal(S::Content),
    /// It was in this state for so long.
    StateTimeout(S::Content),
    /// Nothing happened for so long.
    EventTimeout(S::Content),
    /// The timeout of this name is over.
    Timeout(S::Name, S::Content),
}

impl<S: StateMachine> fmt::Debug for Event<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Event::Message(_) => "Message(..)",
            Event::Internal(_) => "Internal(..)",
            Event::StateTimeout(_) => "StateTimeout(..)",
            Event::EventTimeout(_) => "EventTimeout(..)",
            Event::Timeout(..) => "Timeout(..)",
        })
    }
}

/// What comes next.
///
/// ```
/// # #[cfg(feature = "testing")] {
/// # use backplane::{Exit, Runtime};
/// # use backplane_actor::{Address, Entering, Event, Next, StateMachine, System, Turn, run_machine};
/// # use backplane_actor::testing::{Probe, Seeded};
/// # use std::{convert::Infallible, time::Duration};
/// # let runtime = Seeded::new(1);
/// # let system = System::new(runtime.clone());
/// # #[derive(PartialEq)]
/// # enum State { Off, On }
/// # enum Message { Press }
/// # struct Lamp { seen: Address<&'static str> }
/// # impl Lamp {
/// #     fn note(&mut self, event: Event<Self>) -> Result<Next<State>, Infallible> {
/// #         let (Event::Internal(what) | Event::StateTimeout(what) | Event::EventTimeout(what)
/// #             | Event::Timeout(_, what)) = event else { return Ok(Next::Keep) };
/// #         self.seen.try_cast(what).unwrap();
/// #         Ok(Next::Keep)
/// #     }
/// # }
/// # impl StateMachine for Lamp {
/// #   type State = State;
/// #   type Message = Message;
/// #   type Content = &'static str;
/// #   type Name = &'static str;
/// #   type Error = Infallible;
/// async fn handle(
///     &mut self,
///     state: &State,
///     event: Event<Self>,
///     _: &mut Turn<'_, Self>,
/// ) -> Result<Next<State>, Infallible> {
///     Ok(match (state, event) {
///         (State::Off, Event::Message(Message::Press)) => Next::To(State::On),
///         (State::On, Event::Message(Message::Press)) => Next::Stop(Exit::Shutdown),
///         _ => Next::Keep,
///     })
/// }
/// # }
/// # let probe = Probe::<&str>::new(&system);
/// # let lamp = Lamp { seen: probe.address().clone() };
/// let lamp = system.spawn(|mailbox| run_machine(lamp, State::Off, mailbox));
/// runtime.run(async {
///     lamp.cast(Message::Press).await.unwrap();
///     lamp.cast(Message::Press).await.unwrap();
///     assert_eq!(lamp.ended().await, Some(Exit::Shutdown));
/// });
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub enum Next<S> {
    /// It stays where it is.
    Keep,
    /// It stays where it is, and [enters](StateMachine::enter) that again. What is postponed stays so, and a state timeout
    /// goes on.
    Repeat,
    /// It goes there. To the state in which it is, that is `Keep`.
    To(S),
    /// It ends.
    Stop(Exit),
}

/// When a timeout is over.
///
/// ```
/// use backplane_actor::When;
/// use std::time::{Duration, Instant};
///
/// // What takes a `When` takes either of them.
/// let (time, moment) = (Duration::from_secs(10), Instant::now());
/// assert_eq!(When::from(time), When::After(time));
/// assert_eq!(When::from(moment), When::At(moment));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// After so long. After no time at all: as soon as nothing is queued, before anything is received.
    After(Duration),
    /// At this moment on the runtime's clock.
    At(Instant),
}

impl From<Duration> for When {
    fn from(after: Duration) -> When {
        When::After(after)
    }
}

impl From<Instant> for When {
    fn from(at: Instant) -> When {
        When::At(at)
    }
}

/// Which timeout it is: there is one of each at a time.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Which<N> {
    State,
    Event,
    Named(N),
}

enum Change<C> {
    Set(When, C),
    Update(C),
    Cancel,
}

/// What a machine can say while it enters a state. In OTP's words: the actions of a state enter call.
///
/// ```
/// # #[cfg(feature = "testing")] {
/// # use backplane::{Exit, Runtime};
/// # use backplane_actor::{Address, Entering, Event, Next, StateMachine, System, Turn, run_machine};
/// # use backplane_actor::testing::{Probe, Seeded};
/// # use std::{convert::Infallible, time::Duration};
/// # let runtime = Seeded::new(1);
/// # let system = System::new(runtime.clone());
/// # #[derive(PartialEq)]
/// # enum State { Off, On }
/// # enum Message { Press }
/// # struct Lamp { seen: Address<&'static str> }
/// # impl Lamp {
/// #     fn note(&mut self, event: Event<Self>) -> Result<Next<State>, Infallible> {
/// #         let (Event::Internal(what) | Event::StateTimeout(what) | Event::EventTimeout(what)
/// #             | Event::Timeout(_, what)) = event else { return Ok(Next::Keep) };
/// #         self.seen.try_cast(what).unwrap();
/// #         Ok(Next::Keep)
/// #     }
/// # }
/// # impl StateMachine for Lamp {
/// #   type State = State;
/// #   type Message = Message;
/// #   type Content = &'static str;
/// #   type Name = &'static str;
/// #   type Error = Infallible;
/// async fn enter(
///     &mut self,
///     _: Option<&State>,
///     state: &State,
///     entering: &mut Entering<'_, Self>,
/// ) -> Result<(), Infallible> {
///     if *state == State::On {
///         entering.state_timeout(Duration::from_secs(10), "off"); // however it came here
///     }
///     Ok(())
/// }
/// #   async fn handle(&mut self, _: &State, event: Event<Self>, _: &mut Turn<'_, Self>) -> Result<Next<State>, Infallible> {
/// #       Ok(match event {
/// #           Event::Message(Message::Press) => Next::To(State::On),
/// #           Event::StateTimeout("off") => Next::Stop(Exit::Normal),
/// #           _ => panic!("not so"),
/// #       })
/// #   }
/// # }
/// # let probe = Probe::<&str>::new(&system);
/// # let lamp = Lamp { seen: probe.address().clone() };
/// let lamp = system.spawn(|mailbox| run_machine(lamp, State::Off, mailbox));
/// let before = runtime.now();
/// runtime.run(async {
///     lamp.cast(Message::Press).await.unwrap();
///     assert_eq!(lamp.ended().await, Some(Exit::Normal));
/// });
/// assert_eq!(runtime.since(before), Duration::from_secs(10));
/// # }
/// ```
pub struct Entering<'a, S: StateMachine> {
    mailbox: &'a mut Mailbox<S::Message>,
    changes: Changes<S>,
    /// The call that is being handled, as soon as somebody has looked whether there is one.
    call: Option<Option<Arc<dyn CallState>>>,
}

impl<'a, S: StateMachine> Entering<'a, S> {
    fn new(mailbox: &'a mut Mailbox<S::Message>) -> Entering<'a, S> {
        Entering { mailbox, changes: Vec::new(), call: None }
    }

    fn call(&mut self) -> Option<&Arc<dyn CallState>> {
        self.call.get_or_insert_with(|| self.mailbox.reader().call()).as_ref()
    }
}

/// What a machine can say while it handles an event: all that it can while it [enters](Entering) a state, and more.
///
/// ```
/// # #[cfg(feature = "testing")] {
/// # use backplane::{Exit, Runtime};
/// # use backplane_actor::{Address, Entering, Event, Next, StateMachine, System, Turn, run_machine};
/// # use backplane_actor::testing::{Probe, Seeded};
/// # use std::{convert::Infallible, time::Duration};
/// # let runtime = Seeded::new(1);
/// # let system = System::new(runtime.clone());
/// # #[derive(PartialEq)]
/// # enum State { Off, On }
/// # enum Message { Press }
/// # struct Lamp { seen: Address<&'static str> }
/// # impl Lamp {
/// #     fn note(&mut self, event: Event<Self>) -> Result<Next<State>, Infallible> {
/// #         let (Event::Internal(what) | Event::StateTimeout(what) | Event::EventTimeout(what)
/// #             | Event::Timeout(_, what)) = event else { return Ok(Next::Keep) };
/// #         self.seen.try_cast(what).unwrap();
/// #         Ok(Next::Keep)
/// #     }
/// # }
/// # impl StateMachine for Lamp {
/// #   type State = State;
/// #   type Message = Message;
/// #   type Content = &'static str;
/// #   type Name = &'static str;
/// #   type Error = Infallible;
/// # async fn handle(
/// #     &mut self,
/// #     state: &State,
/// #     event: Event<Self>,
/// #     turn: &mut Turn<'_, Self>,
/// # ) -> Result<Next<State>, Infallible> {
/// // In `handle`, where whatever else happens is noted:
/// match event {
///     Event::Message(Message::Press) => {
///         turn.insert(Event::Internal("on")); // comes before all that waits
///         turn.state_timeout(Duration::from_secs(10), "off"); // as when it enters a state
///         Ok(Next::Keep)
///     }
///     event => self.note(event),
/// }
/// # } }
/// # let mut probe = Probe::<&str>::new(&system);
/// # let lamp = Lamp { seen: probe.address().clone() };
/// # let lamp = system.spawn(|mailbox| run_machine(lamp, State::Off, mailbox));
/// # const HOUR: Duration = Duration::from_secs(3600);
/// runtime.run(async {
///     lamp.cast(Message::Press).await.unwrap();
/// #   let before = runtime.now();
///     assert_eq!(probe.expect(HOUR).await, "on");
///     assert_eq!(probe.expect(HOUR).await, "off");
/// #   assert_eq!(runtime.since(before), Duration::from_secs(10));
/// });
/// # }
/// ```
pub struct Turn<'a, S: StateMachine> {
    entering: Entering<'a, S>,
    /// Of what kind the message is that is being handled, until it is postponed.
    kind: Option<Discriminant<S::Message>>,
    postponed: Vec<Waits<S>>,
    inserted: Vec<Event<S>>,
}

/// An event that waits, the call that it is, if it is one, and how often it was tried in earlier incarnations.
struct Waits<S: StateMachine> {
    event: Event<S>,
    call: Option<Arc<dyn CallState>>,
    tries: u32,
}

impl<S: StateMachine> Waits<S> {
    /// Its caller has gone. One that has its answer, from wherever, has left something else here to do.
    fn is_over(&self) -> bool {
        self.call.as_ref().is_some_and(|call| call.is_over() && !call.is_answered())
    }
}

impl<S: StateMachine> Entering<'_, S> {
    /// Sets the state timeout: cancelled when the state changes, not when it is repeated. One that runs is set anew.
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # use backplane::{Exit, Runtime};
    /// # use backplane_actor::{Address, Entering, Event, Next, StateMachine, System, Turn, run_machine};
    /// # use backplane_actor::testing::{Probe, Seeded};
    /// # use std::{convert::Infallible, time::Duration};
    /// # let runtime = Seeded::new(1);
    /// # let system = System::new(runtime.clone());
    /// # #[derive(PartialEq)]
    /// # enum State { Off, On }
    /// # enum Message { Press }
    /// # struct Lamp { seen: Address<&'static str> }
    /// # impl Lamp {
    /// #     fn note(&mut self, event: Event<Self>) -> Result<Next<State>, Infallible> {
    /// #         let (Event::Internal(what) | Event::StateTimeout(what) | Event::EventTimeout(what)
    /// #             | Event::Timeout(_, what)) = event else { return Ok(Next::Keep) };
    /// #         self.seen.try_cast(what).unwrap();
    /// #         Ok(Next::Keep)
    /// #     }
    /// # }
    /// # impl StateMachine for Lamp {
    /// #   type State = State;
    /// #   type Message = Message;
    /// #   type Content = &'static str;
    /// #   type Name = &'static str;
    /// #   type Error = Infallible;
    /// # async fn handle(
    /// #     &mut self,
    /// #     state: &State,
    /// #     event: Event<Self>,
    /// #     turn: &mut Turn<'_, Self>,
    /// # ) -> Result<Next<State>, Infallible> {
    /// // In `handle`, where whatever else happens is noted:
    /// match event {
    ///     Event::Message(Message::Press) => {
    ///         turn.state_timeout(Duration::from_secs(10), "off");
    ///         Ok(Next::To(State::On))
    ///     }
    ///     event => self.note(event),
    /// }
    /// # } }
    /// # let mut probe = Probe::<&str>::new(&system);
    /// # let lamp = Lamp { seen: probe.address().clone() };
    /// # let lamp = system.spawn(|mailbox| run_machine(lamp, State::Off, mailbox));
    /// # const HOUR: Duration = Duration::from_secs(3600);
    /// let before = runtime.now();
    /// runtime.run(async {
    ///     lamp.cast(Message::Press).await.unwrap();
    ///     assert_eq!(probe.expect(HOUR).await, "off");
    /// });
    /// assert_eq!(runtime.since(before), Duration::from_secs(10));
    /// # }
    /// ```
    pub fn state_timeout(&mut self, when: impl Into<When>, content: S::Content) {
        self.changes.push((Which::State, Change::Set(when.into(), content)));
    }

    /// Gives the state timeout another content. If none runs, it is over at once.
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # use backplane::{Exit, Runtime};
    /// # use backplane_actor::{Address, Entering, Event, Next, StateMachine, System, Turn, run_machine};
    /// # use backplane_actor::testing::{Probe, Seeded};
    /// # use std::{convert::Infallible, time::Duration};
    /// # let runtime = Seeded::new(1);
    /// # let system = System::new(runtime.clone());
    /// # #[derive(PartialEq)]
    /// # enum State { Off, On }
    /// # enum Message { Press }
    /// # struct Lamp { seen: Address<&'static str> }
    /// # impl Lamp {
    /// #     fn note(&mut self, event: Event<Self>) -> Result<Next<State>, Infallible> {
    /// #         let (Event::Internal(what) | Event::StateTimeout(what) | Event::EventTimeout(what)
    /// #             | Event::Timeout(_, what)) = event else { return Ok(Next::Keep) };
    /// #         self.seen.try_cast(what).unwrap();
    /// #         Ok(Next::Keep)
    /// #     }
    /// # }
    /// # impl StateMachine for Lamp {
    /// #   type State = State;
    /// #   type Message = Message;
    /// #   type Content = &'static str;
    /// #   type Name = &'static str;
    /// #   type Error = Infallible;
    /// # async fn handle(
    /// #     &mut self,
    /// #     state: &State,
    /// #     event: Event<Self>,
    /// #     turn: &mut Turn<'_, Self>,
    /// # ) -> Result<Next<State>, Infallible> {
    /// // In `handle`, where whatever else happens is noted:
    /// match event {
    ///     Event::Message(Message::Press) => {
    ///         turn.state_timeout(Duration::from_secs(10), "off");
    ///         turn.update_state_timeout("really off"); // after the same ten seconds
    ///         Ok(Next::Keep)
    ///     }
    ///     event => self.note(event),
    /// }
    /// # } }
    /// # let mut probe = Probe::<&str>::new(&system);
    /// # let lamp = Lamp { seen: probe.address().clone() };
    /// # let lamp = system.spawn(|mailbox| run_machine(lamp, State::Off, mailbox));
    /// # const HOUR: Duration = Duration::from_secs(3600);
    /// runtime.run(async {
    ///     lamp.cast(Message::Press).await.unwrap();
    /// #   let before = runtime.now();
    ///     assert_eq!(probe.expect(HOUR).await, "really off");
    /// #   assert_eq!(runtime.since(before), Duration::from_secs(10));
    /// });
    /// # }
    /// ```
    pub fn update_state_timeout(&mut self, content: S::Content) {
        self.changes.push((Which::State, Change::Update(content)));
    }

    /// Cancels the state timeout.
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # use backplane::{Exit, Runtime};
    /// # use backplane_actor::{Address, Entering, Event, Next, StateMachine, System, Turn, run_machine};
    /// # use backplane_actor::testing::{Probe, Seeded};
    /// # use std::{convert::Infallible, time::Duration};
    /// # let runtime = Seeded::new(1);
    /// # let system = System::new(runtime.clone());
    /// # #[derive(PartialEq)]
    /// # enum State { Off, On }
    /// # enum Message { Press }
    /// # struct Lamp { seen: Address<&'static str> }
    /// # impl Lamp {
    /// #     fn note(&mut self, event: Event<Self>) -> Result<Next<State>, Infallible> {
    /// #         let (Event::Internal(what) | Event::StateTimeout(what) | Event::EventTimeout(what)
    /// #             | Event::Timeout(_, what)) = event else { return Ok(Next::Keep) };
    /// #         self.seen.try_cast(what).unwrap();
    /// #         Ok(Next::Keep)
    /// #     }
    /// # }
    /// # impl StateMachine for Lamp {
    /// #   type State = State;
    /// #   type Message = Message;
    /// #   type Content = &'static str;
    /// #   type Name = &'static str;
    /// #   type Error = Infallible;
    /// # async fn handle(
    /// #     &mut self,
    /// #     state: &State,
    /// #     event: Event<Self>,
    /// #     turn: &mut Turn<'_, Self>,
    /// # ) -> Result<Next<State>, Infallible> {
    /// // In `handle`, where whatever else happens is noted:
    /// match event {
    ///     Event::Message(Message::Press) => {
    ///         turn.state_timeout(Duration::from_secs(10), "off");
    ///         turn.cancel_state_timeout();
    ///         Ok(Next::Keep)
    ///     }
    ///     event => self.note(event),
    /// }
    /// # } }
    /// # let mut probe = Probe::<&str>::new(&system);
    /// # let lamp = Lamp { seen: probe.address().clone() };
    /// # let lamp = system.spawn(|mailbox| run_machine(lamp, State::Off, mailbox));
    /// # const HOUR: Duration = Duration::from_secs(3600);
    /// runtime.run(async {
    ///     lamp.cast(Message::Press).await.unwrap();
    ///     probe.expect_nothing(HOUR).await;
    /// });
    /// # }
    /// ```
    pub fn cancel_state_timeout(&mut self) {
        self.changes.push((Which::State, Change::Cancel));
    }

    /// Sets the event timeout: cancelled by the next event, whatever it is.
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # use backplane::{Exit, Runtime};
    /// # use backplane_actor::{Address, Entering, Event, Next, StateMachine, System, Turn, run_machine};
    /// # use backplane_actor::testing::{Probe, Seeded};
    /// # use std::{convert::Infallible, time::Duration};
    /// # let runtime = Seeded::new(1);
    /// # let system = System::new(runtime.clone());
    /// # #[derive(PartialEq)]
    /// # enum State { Off, On }
    /// # enum Message { Press }
    /// # struct Lamp { seen: Address<&'static str> }
    /// # impl Lamp {
    /// #     fn note(&mut self, event: Event<Self>) -> Result<Next<State>, Infallible> {
    /// #         let (Event::Internal(what) | Event::StateTimeout(what) | Event::EventTimeout(what)
    /// #             | Event::Timeout(_, what)) = event else { return Ok(Next::Keep) };
    /// #         self.seen.try_cast(what).unwrap();
    /// #         Ok(Next::Keep)
    /// #     }
    /// # }
    /// # impl StateMachine for Lamp {
    /// #   type State = State;
    /// #   type Message = Message;
    /// #   type Content = &'static str;
    /// #   type Name = &'static str;
    /// #   type Error = Infallible;
    /// # async fn handle(
    /// #     &mut self,
    /// #     state: &State,
    /// #     event: Event<Self>,
    /// #     turn: &mut Turn<'_, Self>,
    /// # ) -> Result<Next<State>, Infallible> {
    /// // In `handle`, where whatever else happens is noted:
    /// match event {
    ///     Event::Message(Message::Press) => {
    ///         turn.event_timeout(Duration::from_secs(10), "nobody presses");
    ///         Ok(Next::Keep)
    ///     }
    ///     event => self.note(event),
    /// }
    /// # } }
    /// # let mut probe = Probe::<&str>::new(&system);
    /// # let lamp = Lamp { seen: probe.address().clone() };
    /// # let lamp = system.spawn(|mailbox| run_machine(lamp, State::Off, mailbox));
    /// # const HOUR: Duration = Duration::from_secs(3600);
    /// let before = runtime.now();
    /// runtime.run(async {
    ///     lamp.cast(Message::Press).await.unwrap();
    ///     runtime.sleep_until(before + Duration::from_secs(9)).await;
    ///     lamp.cast(Message::Press).await.unwrap(); // so it begins anew
    ///     assert_eq!(probe.expect(HOUR).await, "nobody presses");
    /// });
    /// assert_eq!(runtime.since(before), Duration::from_secs(19));
    /// # }
    /// ```
    pub fn event_timeout(&mut self, when: impl Into<When>, content: S::Content) {
        self.changes.push((Which::Event, Change::Set(when.into(), content)));
    }

    /// Sets the timeout of this name: nothing cancels it but [`cancel_timeout`](Entering::cancel_timeout). One that runs is
    /// set anew.
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # use backplane::{Exit, Runtime};
    /// # use backplane_actor::{Address, Entering, Event, Next, StateMachine, System, Turn, run_machine};
    /// # use backplane_actor::testing::{Probe, Seeded};
    /// # use std::{convert::Infallible, time::Duration};
    /// # let runtime = Seeded::new(1);
    /// # let system = System::new(runtime.clone());
    /// # #[derive(PartialEq)]
    /// # enum State { Off, On }
    /// # enum Message { Press }
    /// # struct Lamp { seen: Address<&'static str> }
    /// # impl Lamp {
    /// #     fn note(&mut self, event: Event<Self>) -> Result<Next<State>, Infallible> {
    /// #         let (Event::Internal(what) | Event::StateTimeout(what) | Event::EventTimeout(what)
    /// #             | Event::Timeout(_, what)) = event else { return Ok(Next::Keep) };
    /// #         self.seen.try_cast(what).unwrap();
    /// #         Ok(Next::Keep)
    /// #     }
    /// # }
    /// # impl StateMachine for Lamp {
    /// #   type State = State;
    /// #   type Message = Message;
    /// #   type Content = &'static str;
    /// #   type Name = &'static str;
    /// #   type Error = Infallible;
    /// # async fn handle(
    /// #     &mut self,
    /// #     state: &State,
    /// #     event: Event<Self>,
    /// #     turn: &mut Turn<'_, Self>,
    /// # ) -> Result<Next<State>, Infallible> {
    /// // In `handle`, where whatever else happens is noted:
    /// match event {
    ///     Event::Message(Message::Press) => {
    ///         turn.timeout("tea", Duration::from_secs(180), "tea is ready");
    ///         turn.timeout("eggs", Duration::from_secs(300), "eggs are ready");
    ///         Ok(Next::Keep)
    ///     }
    ///     event => self.note(event),
    /// }
    /// # } }
    /// # let mut probe = Probe::<&str>::new(&system);
    /// # let lamp = Lamp { seen: probe.address().clone() };
    /// # let lamp = system.spawn(|mailbox| run_machine(lamp, State::Off, mailbox));
    /// # const HOUR: Duration = Duration::from_secs(3600);
    /// runtime.run(async {
    ///     lamp.cast(Message::Press).await.unwrap();
    ///     assert_eq!(probe.expect(HOUR).await, "tea is ready");
    ///     assert_eq!(probe.expect(HOUR).await, "eggs are ready");
    /// });
    /// # }
    /// ```
    pub fn timeout(&mut self, name: S::Name, when: impl Into<When>, content: S::Content) {
        self.changes.push((Which::Named(name), Change::Set(when.into(), content)));
    }

    /// Gives the timeout of this name another content. If none runs, it is over at once.
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # use backplane::{Exit, Runtime};
    /// # use backplane_actor::{Address, Entering, Event, Next, StateMachine, System, Turn, run_machine};
    /// # use backplane_actor::testing::{Probe, Seeded};
    /// # use std::{convert::Infallible, time::Duration};
    /// # let runtime = Seeded::new(1);
    /// # let system = System::new(runtime.clone());
    /// # #[derive(PartialEq)]
    /// # enum State { Off, On }
    /// # enum Message { Press }
    /// # struct Lamp { seen: Address<&'static str> }
    /// # impl Lamp {
    /// #     fn note(&mut self, event: Event<Self>) -> Result<Next<State>, Infallible> {
    /// #         let (Event::Internal(what) | Event::StateTimeout(what) | Event::EventTimeout(what)
    /// #             | Event::Timeout(_, what)) = event else { return Ok(Next::Keep) };
    /// #         self.seen.try_cast(what).unwrap();
    /// #         Ok(Next::Keep)
    /// #     }
    /// # }
    /// # impl StateMachine for Lamp {
    /// #   type State = State;
    /// #   type Message = Message;
    /// #   type Content = &'static str;
    /// #   type Name = &'static str;
    /// #   type Error = Infallible;
    /// # async fn handle(
    /// #     &mut self,
    /// #     state: &State,
    /// #     event: Event<Self>,
    /// #     turn: &mut Turn<'_, Self>,
    /// # ) -> Result<Next<State>, Infallible> {
    /// // In `handle`, where whatever else happens is noted:
    /// match event {
    ///     Event::Message(Message::Press) => {
    ///         turn.timeout("tea", Duration::from_secs(180), "tea is ready");
    ///         turn.update_timeout("tea", "tea is bitter");
    ///         turn.update_timeout("eggs", "there are none"); // does not run, so it is over at once
    ///         Ok(Next::Keep)
    ///     }
    ///     event => self.note(event),
    /// }
    /// # } }
    /// # let mut probe = Probe::<&str>::new(&system);
    /// # let lamp = Lamp { seen: probe.address().clone() };
    /// # let lamp = system.spawn(|mailbox| run_machine(lamp, State::Off, mailbox));
    /// # const HOUR: Duration = Duration::from_secs(3600);
    /// runtime.run(async {
    ///     lamp.cast(Message::Press).await.unwrap();
    ///     assert_eq!(probe.expect(HOUR).await, "there are none");
    ///     assert_eq!(probe.expect(HOUR).await, "tea is bitter");
    /// });
    /// # }
    /// ```
    pub fn update_timeout(&mut self, name: S::Name, content: S::Content) {
        self.changes.push((Which::Named(name), Change::Update(content)));
    }

    /// Cancels the timeout of this name.
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # use backplane::{Exit, Runtime};
    /// # use backplane_actor::{Address, Entering, Event, Next, StateMachine, System, Turn, run_machine};
    /// # use backplane_actor::testing::{Probe, Seeded};
    /// # use std::{convert::Infallible, time::Duration};
    /// # let runtime = Seeded::new(1);
    /// # let system = System::new(runtime.clone());
    /// # #[derive(PartialEq)]
    /// # enum State { Off, On }
    /// # enum Message { Press }
    /// # struct Lamp { seen: Address<&'static str> }
    /// # impl Lamp {
    /// #     fn note(&mut self, event: Event<Self>) -> Result<Next<State>, Infallible> {
    /// #         let (Event::Internal(what) | Event::StateTimeout(what) | Event::EventTimeout(what)
    /// #             | Event::Timeout(_, what)) = event else { return Ok(Next::Keep) };
    /// #         self.seen.try_cast(what).unwrap();
    /// #         Ok(Next::Keep)
    /// #     }
    /// # }
    /// # impl StateMachine for Lamp {
    /// #   type State = State;
    /// #   type Message = Message;
    /// #   type Content = &'static str;
    /// #   type Name = &'static str;
    /// #   type Error = Infallible;
    /// # async fn handle(
    /// #     &mut self,
    /// #     state: &State,
    /// #     event: Event<Self>,
    /// #     turn: &mut Turn<'_, Self>,
    /// # ) -> Result<Next<State>, Infallible> {
    /// // In `handle`, where whatever else happens is noted:
    /// match event {
    ///     Event::Message(Message::Press) => {
    ///         turn.timeout("tea", Duration::from_secs(180), "tea is ready");
    ///         turn.timeout("eggs", Duration::from_secs(300), "eggs are ready");
    ///         turn.cancel_timeout("tea");
    ///         Ok(Next::Keep)
    ///     }
    ///     event => self.note(event),
    /// }
    /// # } }
    /// # let mut probe = Probe::<&str>::new(&system);
    /// # let lamp = Lamp { seen: probe.address().clone() };
    /// # let lamp = system.spawn(|mailbox| run_machine(lamp, State::Off, mailbox));
    /// # const HOUR: Duration = Duration::from_secs(3600);
    /// runtime.run(async {
    ///     lamp.cast(Message::Press).await.unwrap();
    ///     assert_eq!(probe.expect(HOUR).await, "eggs are ready");
    /// });
    /// # }
    /// ```
    pub fn cancel_timeout(&mut self, name: S::Name) {
        self.changes.push((Which::Named(name), Change::Cancel));
    }

    /// The machine's mailbox: to link, to monitor, and to take messages out of their turn.
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # use backplane::{Exit, Runtime};
    /// # use backplane_actor::{Address, Entering, Event, Next, StateMachine, System, Turn, run_machine};
    /// # use backplane_actor::testing::{Probe, Seeded};
    /// # use std::{convert::Infallible, time::Duration};
    /// # let runtime = Seeded::new(1);
    /// # let system = System::new(runtime.clone());
    /// # #[derive(PartialEq)]
    /// # enum State { Off, On }
    /// # enum Message { Press }
    /// # struct Lamp { seen: Address<&'static str> }
    /// # impl Lamp {
    /// #     fn note(&mut self, event: Event<Self>) -> Result<Next<State>, Infallible> {
    /// #         let (Event::Internal(what) | Event::StateTimeout(what) | Event::EventTimeout(what)
    /// #             | Event::Timeout(_, what)) = event else { return Ok(Next::Keep) };
    /// #         self.seen.try_cast(what).unwrap();
    /// #         Ok(Next::Keep)
    /// #     }
    /// # }
    /// # impl StateMachine for Lamp {
    /// #   type State = State;
    /// #   type Message = Message;
    /// #   type Content = &'static str;
    /// #   type Name = &'static str;
    /// #   type Error = Infallible;
    /// # async fn handle(
    /// #     &mut self,
    /// #     state: &State,
    /// #     event: Event<Self>,
    /// #     turn: &mut Turn<'_, Self>,
    /// # ) -> Result<Next<State>, Infallible> {
    /// // In `handle`, where whatever else happens is noted:
    /// match event {
    ///     Event::Message(Message::Press) => {
    ///         let last = turn.mailbox().is_empty();
    ///         turn.insert(Event::Internal(if last { "the last" } else { "one of many" }));
    ///         Ok(Next::Keep)
    ///     }
    ///     event => self.note(event),
    /// }
    /// # } }
    /// # let mut probe = Probe::<&str>::new(&system);
    /// # let lamp = Lamp { seen: probe.address().clone() };
    /// # let lamp = system.spawn(|mailbox| run_machine(lamp, State::Off, mailbox));
    /// # const HOUR: Duration = Duration::from_secs(3600);
    /// runtime.run(async {
    ///     lamp.cast(Message::Press).await.unwrap();
    ///     lamp.cast(Message::Press).await.unwrap();
    ///     assert_eq!(probe.expect(HOUR).await, "one of many");
    ///     assert_eq!(probe.expect(HOUR).await, "the last");
    /// });
    /// # }
    /// ```
    pub fn mailbox(&mut self) -> &mut Mailbox<S::Message> {
        // What is received from here on is another one.
        self.call();
        self.mailbox
    }

    /// What the runtime's clock shows.
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # use backplane::{Exit, Runtime};
    /// # use backplane_actor::{Address, Entering, Event, Next, StateMachine, System, Turn, run_machine};
    /// # use backplane_actor::testing::{Probe, Seeded};
    /// # use std::{convert::Infallible, time::Duration};
    /// # let runtime = Seeded::new(1);
    /// # let system = System::new(runtime.clone());
    /// # #[derive(PartialEq)]
    /// # enum State { Off, On }
    /// # enum Message { Press }
    /// # struct Lamp { seen: Address<&'static str> }
    /// # impl Lamp {
    /// #     fn note(&mut self, event: Event<Self>) -> Result<Next<State>, Infallible> {
    /// #         let (Event::Internal(what) | Event::StateTimeout(what) | Event::EventTimeout(what)
    /// #             | Event::Timeout(_, what)) = event else { return Ok(Next::Keep) };
    /// #         self.seen.try_cast(what).unwrap();
    /// #         Ok(Next::Keep)
    /// #     }
    /// # }
    /// # impl StateMachine for Lamp {
    /// #   type State = State;
    /// #   type Message = Message;
    /// #   type Content = &'static str;
    /// #   type Name = &'static str;
    /// #   type Error = Infallible;
    /// # async fn handle(
    /// #     &mut self,
    /// #     state: &State,
    /// #     event: Event<Self>,
    /// #     turn: &mut Turn<'_, Self>,
    /// # ) -> Result<Next<State>, Infallible> {
    /// // In `handle`, where whatever else happens is noted:
    /// match event {
    ///     Event::Message(Message::Press) => {
    ///         let off = turn.now() + Duration::from_secs(10);
    ///         turn.state_timeout(off, "off"); // at this moment
    ///         Ok(Next::Keep)
    ///     }
    ///     event => self.note(event),
    /// }
    /// # } }
    /// # let mut probe = Probe::<&str>::new(&system);
    /// # let lamp = Lamp { seen: probe.address().clone() };
    /// # let lamp = system.spawn(|mailbox| run_machine(lamp, State::Off, mailbox));
    /// # const HOUR: Duration = Duration::from_secs(3600);
    /// let before = runtime.now();
    /// runtime.run(async {
    ///     lamp.cast(Message::Press).await.unwrap();
    ///     assert_eq!(probe.expect(HOUR).await, "off");
    /// });
    /// assert_eq!(runtime.since(before), Duration::from_secs(10));
    /// # }
    /// ```
    pub fn now(&self) -> Instant {
        self.mailbox.shared().world.clock.now()
    }
}

impl<S: StateMachine> Turn<'_, S> {
    /// Puts the event off until the state has changed; then it comes again, before all that came after it. It may be put off
    /// and the state changed at once.
    ///
    /// Who still has the event can do so, and nobody else: so what it asks cannot be answered twice.
    ///
    /// A call that is put off is handled again only if its caller still waits then; the first message of the same variant that is
    /// put off while the call is handled is taken for it.
    ///
    /// As many are put off as the mailbox has room for, and at least [`DEFAULT_CAPACITY`](crate::DEFAULT_CAPACITY); a machine
    /// that puts off more ends with a fault, and they go to the dead letters. Only a mailbox without a bound sets none.
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # use backplane::{Exit, Runtime};
    /// # use backplane_actor::{Address, Entering, Event, Next, StateMachine, System, Turn, run_machine};
    /// # use backplane_actor::testing::{Probe, Seeded};
    /// # use std::{convert::Infallible, time::Duration};
    /// # let runtime = Seeded::new(1);
    /// # let system = System::new(runtime.clone());
    /// # #[derive(PartialEq)]
    /// # enum State { Off, On }
    /// # enum Message { Press }
    /// # struct Lamp { seen: Address<&'static str> }
    /// # impl Lamp {
    /// #     fn note(&mut self, event: Event<Self>) -> Result<Next<State>, Infallible> {
    /// #         let (Event::Internal(what) | Event::StateTimeout(what) | Event::EventTimeout(what)
    /// #             | Event::Timeout(_, what)) = event else { return Ok(Next::Keep) };
    /// #         self.seen.try_cast(what).unwrap();
    /// #         Ok(Next::Keep)
    /// #     }
    /// # }
    /// # impl StateMachine for Lamp {
    /// #   type State = State;
    /// #   type Message = Message;
    /// #   type Content = &'static str;
    /// #   type Name = &'static str;
    /// #   type Error = Infallible;
    /// # async fn handle(
    /// #     &mut self,
    /// #     state: &State,
    /// #     event: Event<Self>,
    /// #     turn: &mut Turn<'_, Self>,
    /// # ) -> Result<Next<State>, Infallible> {
    /// // In `handle`, where whatever else happens is noted:
    /// match (state, event) {
    ///     (State::Off, Event::Message(Message::Press)) => {
    ///         turn.postpone(Event::Internal("afterwards")); // comes again when it is on
    ///         turn.insert(Event::Internal("first"));
    ///         Ok(Next::To(State::On))
    ///     }
    ///     (_, event) => self.note(event),
    /// }
    /// # } }
    /// # let mut probe = Probe::<&str>::new(&system);
    /// # let lamp = Lamp { seen: probe.address().clone() };
    /// # let lamp = system.spawn(|mailbox| run_machine(lamp, State::Off, mailbox));
    /// # const HOUR: Duration = Duration::from_secs(3600);
    /// runtime.run(async {
    ///     lamp.cast(Message::Press).await.unwrap();
    ///     assert_eq!(probe.expect(HOUR).await, "first");
    ///     assert_eq!(probe.expect(HOUR).await, "afterwards");
    /// });
    /// # }
    /// ```
    pub fn postpone(&mut self, event: Event<S>) {
        let (call, tries) = match &event {
            Event::Message(message) if self.kind == Some(mem::discriminant(message)) => {
                self.kind = None;
                (self.entering.call().cloned(), self.entering.mailbox.reader().tries())
            }
            _ => (None, 0),
        };
        self.postponed.push(Waits { event, call, tries });
    }

    /// Handles this next, before all that waits; after what was inserted before in the same turn. OTP's `next_event`.
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # use backplane::{Exit, Runtime};
    /// # use backplane_actor::{Address, Entering, Event, Next, StateMachine, System, Turn, run_machine};
    /// # use backplane_actor::testing::{Probe, Seeded};
    /// # use std::{convert::Infallible, time::Duration};
    /// # let runtime = Seeded::new(1);
    /// # let system = System::new(runtime.clone());
    /// # #[derive(PartialEq)]
    /// # enum State { Off, On }
    /// # enum Message { Press }
    /// # struct Lamp { seen: Address<&'static str> }
    /// # impl Lamp {
    /// #     fn note(&mut self, event: Event<Self>) -> Result<Next<State>, Infallible> {
    /// #         let (Event::Internal(what) | Event::StateTimeout(what) | Event::EventTimeout(what)
    /// #             | Event::Timeout(_, what)) = event else { return Ok(Next::Keep) };
    /// #         self.seen.try_cast(what).unwrap();
    /// #         Ok(Next::Keep)
    /// #     }
    /// # }
    /// # impl StateMachine for Lamp {
    /// #   type State = State;
    /// #   type Message = Message;
    /// #   type Content = &'static str;
    /// #   type Name = &'static str;
    /// #   type Error = Infallible;
    /// # async fn handle(
    /// #     &mut self,
    /// #     state: &State,
    /// #     event: Event<Self>,
    /// #     turn: &mut Turn<'_, Self>,
    /// # ) -> Result<Next<State>, Infallible> {
    /// // In `handle`, where whatever else happens is noted:
    /// match event {
    ///     Event::Message(Message::Press) => {
    ///         turn.insert(Event::Internal("first"));
    ///         turn.insert(Event::Internal("second"));
    ///         Ok(Next::Keep)
    ///     }
    ///     event => self.note(event),
    /// }
    /// # } }
    /// # let mut probe = Probe::<&str>::new(&system);
    /// # let lamp = Lamp { seen: probe.address().clone() };
    /// # let lamp = system.spawn(|mailbox| run_machine(lamp, State::Off, mailbox));
    /// # const HOUR: Duration = Duration::from_secs(3600);
    /// runtime.run(async {
    ///     lamp.cast(Message::Press).await.unwrap();
    ///     assert_eq!(probe.expect(HOUR).await, "first");
    ///     assert_eq!(probe.expect(HOUR).await, "second");
    /// });
    /// # }
    /// ```
    pub fn insert(&mut self, event: Event<S>) {
        self.inserted.push(event);
    }
}

impl<'a, S: StateMachine> Deref for Turn<'a, S> {
    type Target = Entering<'a, S>;

    fn deref(&self) -> &Entering<'a, S> {
        &self.entering
    }
}

impl<'a, S: StateMachine> DerefMut for Turn<'a, S> {
    fn deref_mut(&mut self) -> &mut Entering<'a, S> {
        &mut self.entering
    }
}

impl<S: StateMachine> fmt::Debug for Entering<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entering").field("mailbox", &self.mailbox).finish_non_exhaustive()
    }
}

impl<S: StateMachine> fmt::Debug for Turn<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn").field("mailbox", &self.entering.mailbox).finish_non_exhaustive()
    }
}

/// A machine's timeouts: those that are over at once come first, then by moment, then by the order of setting.
struct Timeouts<S: StateMachine> {
    set: HashMap<Which<S::Name>, Running<S::Content>>,
    order: BTreeMap<(Option<Instant>, u64), Which<S::Name>>,
    next: u64,
}

struct Running<C> {
    /// `None`: over at once.
    at: Option<Instant>,
    number: u64,
    content: C,
}

impl<S: StateMachine> Timeouts<S> {
    fn new() -> Timeouts<S> {
        Timeouts { set: HashMap::new(), order: BTreeMap::new(), next: 0 }
    }

    fn cancel(&mut self, which: &Which<S::Name>) -> Option<S::Content> {
        // The usual case: there is none at all.
        if self.set.is_empty() {
            return None;
        }
        let running = self.set.remove(which)?;
        self.order.remove(&(running.at, running.number));
        Some(running.content)
    }

    fn change(&mut self, which: Which<S::Name>, change: Change<S::Content>, clock: &Clock) {
        let (when, content) = match change {
            Change::Cancel => {
                self.cancel(&which);
                return;
            }
            Change::Update(content) => match self.set.get_mut(&which) {
                Some(running) => {
                    running.content = content;
                    return;
                }
                None => (When::After(Duration::ZERO), content),
            },
            Change::Set(when, content) => (when, content),
        };
        self.cancel(&which);
        let at = match when {
            When::After(Duration::ZERO) => None,
            When::After(time) => Some(later(clock, time)),
            When::At(at) => Some(at),
        };
        let number = self.next;
        self.next += 1;
        self.order.insert((at, number), which.clone());
        self.set.insert(which, Running { at, number, content });
    }

    /// The first one that is over, if nothing is queued: `here` for those that take time, `None` for those that take none.
    /// Without `events`, the event timeout is none of them.
    fn due(&mut self, here: Option<Instant>, events: bool) -> Option<Event<S>> {
        let over = self.order.iter().take_while(|((at, _), _)| match (at, here) {
            (None, _) => true,
            (Some(at), Some(here)) => *at <= here,
            (Some(_), None) => false,
        });
        let which =
            over.map(|(_, which)| which).find(|which| events || !matches!(which, Which::Event))?.clone();
        let content = self.cancel(&which)?;
        Some(match which {
            Which::State => Event::StateTimeout(content),
            Which::Event => Event::EventTimeout(content),
            Which::Named(name) => Event::Timeout(name, content),
        })
    }

    /// When the first one is over.
    fn first(&self) -> Option<Instant> {
        self.order.first_key_value().and_then(|((at, _), _)| *at)
    }
}

struct Machine<S: StateMachine> {
    data: S,
    state: S::State,
    mailbox: Mailbox<S::Message>,
    waiting: Waiting<S>,
    timeouts: Timeouts<S>,
}

/// Events that were accepted and have not been handled. What is left of them goes to the dead letters.
struct Waiting<S: StateMachine> {
    shared: Arc<Shared<S::Message>>,
    queue: VecDeque<Waits<S>>,
    postponed: VecDeque<Waits<S>>,
    /// By the event that is being handled.
    inserted: Vec<Event<S>>,
    cause: DeadLetter,
}

impl<S: StateMachine> Waiting<S> {
    /// How many are postponed. Where that is more than may be, those whose callers have gone leave.
    fn postponed(&mut self, most: usize) -> usize {
        if self.postponed.len() > most {
            let all = mem::take(&mut self.postponed);
            let (over, left): (VecDeque<_>, _) = all.into_iter().partition(Waits::is_over);
            self.postponed = left;
            over.into_iter().for_each(drop_over);
        }
        self.postponed.len()
    }
}

impl<S: StateMachine> Drop for Waiting<S> {
    fn drop(&mut self) {
        let inserted = self.inserted.drain(..).map(|event| Waits { event, call: None, tries: 0 });
        for Waits { event, call, .. } in self.postponed.drain(..).chain(inserted).chain(self.queue.drain(..))
        {
            match event {
                Event::Message(message) => self.shared.bury(Item { message, call }, self.cause),
                event => drop_over(event),
            }
        }
    }
}

/// What there is to do.
enum Task<S: StateMachine> {
    Handle(Event<S>),
    End,
}

impl<S: StateMachine> Machine<S> {
    async fn work(&mut self) -> Result<Exit, S::Error> {
        let changes = self.enter(None).await?;
        self.change_timeouts(changes);
        let mut turn = 0;
        loop {
            turn += 1;
            if turn % TURN == 0 {
                yield_once().await;
            }
            if let Some(exit) = self.mailbox.shared().asked_to_stop() {
                return Ok(exit);
            }
            let event = match self.next().await {
                Task::Handle(event) => event,
                Task::End => return Ok(self.mailbox.shared().asked_to_stop().unwrap_or(Exit::Normal)),
            };
            if let Some(exit) = self.handle(event).await? {
                return Ok(exit);
            }
        }
    }

    async fn next(&mut self) -> Task<S> {
        // What comes next may be no message. It does not inherit the time of the call that was handled, and if it dies of it, it
        // has not died of that call.
        drop(self.mailbox.reader().take_call());
        self.mailbox.reader().handled();
        if let Some(event) = self.next_waiting().or_else(|| self.timeouts.due(None, true)) {
            return Task::Handle(event);
        }
        let clock = Arc::clone(&self.mailbox.shared().world.clock);
        let mut alarm = None;
        poll_fn(|cx| self.poll_next(cx, &clock, &mut alarm)).await
    }

    /// The first of the queue whose caller has not gone.
    fn next_waiting(&mut self) -> Option<Event<S>> {
        loop {
            let waits = self.waiting.queue.pop_front()?;
            if waits.is_over() {
                drop_over(waits);
                continue;
            }
            return Some(match waits {
                Waits { event: Event::Message(message), call, tries } => {
                    Event::Message(self.mailbox.reader().deliver_own(Item { message, call }, tries))
                }
                Waits { event, .. } => event,
            });
        }
    }

    /// Timeouts that are over come before messages; but an event timeout does not, for a message is an event.
    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        clock: &Arc<Clock>,
        alarm: &mut Option<Deadline>,
    ) -> Poll<Task<S>> {
        loop {
            let first = self.timeouts.first();
            let here = first.map(|_| clock.now());
            if let Some(event) = self.timeouts.due(here, false) {
                return Poll::Ready(Task::Handle(event));
            }
            match self.mailbox.poll_receive(cx) {
                Poll::Ready(Some(message)) => return Poll::Ready(Task::Handle(Event::Message(message))),
                Poll::Ready(None) => return Poll::Ready(Task::End),
                Poll::Pending => {}
            }
            if let Some(event) = self.timeouts.due(here, true) {
                return Poll::Ready(Task::Handle(event));
            }
            let Some(first) = first else { return Poll::Pending };
            let alarm = alarm.get_or_insert_with(|| Deadline::new(Arc::clone(clock), first));
            if alarm.poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    async fn handle(&mut self, event: Event<S>) -> Result<Option<Exit>, S::Error> {
        drop(self.timeouts.cancel(&Which::Event));
        let kind = if let Event::Message(message) = &event { Some(mem::discriminant(message)) } else { None };
        let entering = Entering::new(&mut self.mailbox);
        let mut turn = Turn { entering, kind, postponed: Vec::new(), inserted: Vec::new() };
        let next = self.data.handle(&self.state, event, &mut turn).await;
        let Turn { entering: Entering { mut changes, .. }, kind: left, postponed, inserted } = turn;
        // Whatever comes next, they were accepted.
        self.waiting.postponed.extend(postponed);
        self.waiting.inserted = inserted;
        if left != kind {
            // It is put off, and not what the machine dies of if it does so now.
            self.mailbox.reader().handled();
        }
        let mut changed = false;
        match next? {
            Next::Keep => {}
            Next::To(state) if state == self.state => {}
            Next::To(state) => {
                let before = mem::replace(&mut self.state, state);
                changed = true;
                changes.extend(self.enter(Some(before)).await?);
            }
            Next::Repeat => changes.extend(self.repeat().await?),
            Next::Stop(exit) => return Ok(Some(exit)),
        }
        if changed {
            drop(self.timeouts.cancel(&Which::State));
            while let Some(waits) = self.waiting.postponed.pop_back() {
                self.waiting.queue.push_front(waits);
            }
        }
        while let Some(event) = self.waiting.inserted.pop() {
            self.waiting.queue.push_front(Waits { event, call: None, tries: 0 });
        }
        let postponed = self.waiting.postponed(self.mailbox.most_set_aside());
        if postponed > self.mailbox.most_set_aside() {
            return Ok(Some(Exit::Fault(Fault::error(format_args!("{postponed} events are postponed")))));
        }
        self.change_timeouts(changes);
        Ok(None)
    }

    async fn enter(&mut self, from: Option<S::State>) -> Result<Changes<S>, S::Error> {
        let mut entering = Entering::new(&mut self.mailbox);
        self.data.enter(from.as_ref(), &self.state, &mut entering).await?;
        Ok(entering.changes)
    }

    async fn repeat(&mut self) -> Result<Changes<S>, S::Error> {
        let mut entering = Entering::new(&mut self.mailbox);
        self.data.enter(Some(&self.state), &self.state, &mut entering).await?;
        Ok(entering.changes)
    }

    fn change_timeouts(&mut self, changes: Changes<S>) {
        let clock = &self.mailbox.shared().world.clock;
        for (which, change) in changes {
            self.timeouts.change(which, change, clock);
        }
    }
}

type Changes<S> = Vec<(Which<<S as StateMachine>::Name>, Change<<S as StateMachine>::Content>)>;

async fn yield_once() {
    let mut yielded = false;
    poll_fn(|cx| {
        if mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// A machine's whole life, as a process over its mailbox: for [`System::spawn`](crate::System::spawn),
/// [`System::child_process`](crate::System::child_process) and [`Home::run`](crate::Home::run).
///
/// What it has postponed when it ends goes to the dead letters, and who waits for an answer is told of the end.
///
/// ```
/// # #[cfg(feature = "testing")] {
/// # use backplane::{Exit, Runtime};
/// # use backplane_actor::{Address, Entering, Event, Next, StateMachine, System, Turn, run_machine};
/// # use backplane_actor::testing::{Probe, Seeded};
/// # use std::{convert::Infallible, time::Duration};
/// # let runtime = Seeded::new(1);
/// # let system = System::new(runtime.clone());
/// # #[derive(PartialEq)]
/// # enum State { Off, On }
/// # enum Message { Press }
/// # struct Lamp { seen: Address<&'static str> }
/// # impl Lamp {
/// #     fn note(&mut self, event: Event<Self>) -> Result<Next<State>, Infallible> {
/// #         let (Event::Internal(what) | Event::StateTimeout(what) | Event::EventTimeout(what)
/// #             | Event::Timeout(_, what)) = event else { return Ok(Next::Keep) };
/// #         self.seen.try_cast(what).unwrap();
/// #         Ok(Next::Keep)
/// #     }
/// # }
/// # impl StateMachine for Lamp {
/// #   type State = State;
/// #   type Message = Message;
/// #   type Content = &'static str;
/// #   type Name = &'static str;
/// #   type Error = Infallible;
/// # async fn handle(
/// #     &mut self,
/// #     state: &State,
/// #     event: Event<Self>,
/// #     turn: &mut Turn<'_, Self>,
/// # ) -> Result<Next<State>, Infallible> {
/// // In `handle`, where whatever else happens is noted:
/// let _ = (turn, state);
/// match event {
///     Event::Message(Message::Press) => Ok(Next::Stop(Exit::Shutdown)),
///     event => self.note(event),
/// }
/// # } }
/// # let probe = Probe::<&str>::new(&system);
/// # let lamp = Lamp { seen: probe.address().clone() };
/// let lamp = system.spawn(|mailbox| run_machine(lamp, State::Off, mailbox));
/// runtime.run(async {
///     lamp.cast(Message::Press).await.unwrap();
///     assert_eq!(lamp.ended().await, Some(Exit::Shutdown));
/// });
/// # }
/// ```
pub async fn run_machine<S: StateMachine>(machine: S, state: S::State, mailbox: Mailbox<S::Message>) -> Exit {
    let shared = Arc::clone(mailbox.shared());
    let waiting = Waiting {
        shared: Arc::clone(&shared),
        queue: VecDeque::new(),
        postponed: VecDeque::new(),
        inserted: Vec::new(),
        cause: DeadLetter::Died,
    };
    let mut machine = Machine { data: machine, state, mailbox, waiting, timeouts: Timeouts::new() };
    let exit = exit_of(Caught::new(machine.work()).await);
    if !exit.is_fault() {
        machine.waiting.cause = DeadLetter::Stopped;
    }
    // Whoever asks from here on, or drops a reply of this machine's, is told how it ends.
    machine.mailbox.reader().ending(&exit);
    match Caught::new(machine.data.terminate(&exit, &machine.state)).await {
        Ok(()) => exit,
        Err(panic) => Exit::Fault(Fault::panic(&panic)),
    }
}
