//! The GenServer-like way to write an actor.

use std::{
    fmt,
    future::{Future, poll_fn, ready},
    marker::PhantomData,
    pin::Pin,
    task::{Context as TaskContext, Poll},
    thread,
    time::{Duration, Instant},
};

use backplane::{Disconnect, Exit, Fault, Line, Panic, catch};
use pin_project_lite::pin_project;

use crate::{
    address::{Address, WeakAddress},
    call::Reply,
    frame,
    mailbox::Reader,
    name::ActorName,
    options::Overdue,
    protocol::{Accepts, Envelope, Inside, Protocol},
    sync::Arc,
    watch::{Down, Monitor},
};

/// State behind a mailbox, as OTP's `gen_server`: `call`, `cast` and `info` are one, [`Handle`], for each type of message.
///
/// Only the two types have to be written; each method says what it does if it is not.
///
/// ```
/// # #[cfg(feature = "smol")] {
/// # use backplane::runtime::Smol;
/// # use backplane_actor::System;
/// # let system = System::new(Smol::global());
/// # use backplane::Exit;
/// # use std::{convert::Infallible, sync::mpsc};
/// use backplane_actor::{Actor, Context, Handle};
///
/// struct Log {
///     lines: Vec<&'static str>,
///     file: mpsc::Sender<Vec<&'static str>>,
/// }
/// impl Actor for Log {
///     type Messages = (&'static str,);
///     type Error = Infallible;
///
///     async fn terminate(&mut self, _: &Exit, _: &mut Context<Self>) {
///         self.file.send(std::mem::take(&mut self.lines)).unwrap();
///     }
/// }
/// # impl Handle<&'static str> for Log {
/// #     type Reply = ();
/// #     async fn handle(&mut self, line: &'static str, _: &mut Context<Self>) -> Result<(), Infallible> {
/// #         self.lines.push(line);
/// #         Ok(())
/// #     }
/// # }
/// # let (file, written) = mpsc::channel();
/// let log = system.start(Log { lines: Vec::new(), file });
/// log.try_cast("hello").unwrap();
/// log.drain();
/// assert_eq!(written.recv(), Ok(vec!["hello"]));
/// # }
/// ```
pub trait Actor: Sized + Send + 'static {
    /// All types of messages that it handles, as a tuple: casts, calls, news ([`Down`]) and timers alike.
    type Messages: Protocol<Self>;

    /// What ends it as a fault, with these words; [`Infallible`](std::convert::Infallible), if nothing does.
    type Error: fmt::Display + Send + 'static;

    /// Before the first message; not at all, unless written.
    ///
    /// An error is the end of it, and of a start that waits for it. [`Context::next`] goes on with the work when whoever
    /// waits for the start has been told: OTP's `continue`.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane_actor::{Actor, Context, Options};
    /// # struct Server { port: u16 }
    /// # impl Actor for Server {
    /// #     type Messages = ();
    /// #     type Error = String;
    /// async fn init(&mut self, _: &mut Context<Self>) -> Result<(), String> {
    ///     if self.port < 1024 { Err(format!("port {} is not for us", self.port)) } else { Ok(()) }
    /// }
    /// # }
    /// smol::block_on(async {
    ///     assert!(system.start_and_wait(Options::new(), Server { port: 8080 }).await.is_ok());
    ///     let refused = system.start_and_wait(Options::new(), Server { port: 80 }).await;
    ///     assert_eq!(refused.unwrap_err().to_string(), "failed: port 80 is not for us");
    /// });
    /// # }
    /// ```
    fn init(&mut self, cx: &mut Context<Self>) -> impl Future<Output = Result<(), Self::Error>> + Send {
        let _ = cx;
        ready(Ok(()))
    }

    /// Nothing has come for as long as [`Context::idle_after`] said: it stops, unless this is written.
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # use backplane::Runtime;
    /// # use backplane_actor::{System, testing::Seeded};
    /// # let runtime = Seeded::new(1);
    /// # let system = System::new(runtime.clone());
    /// # use backplane::Exit;
    /// # use backplane_actor::{Actor, Context};
    /// # use std::{convert::Infallible, time::Duration};
    /// # struct Session { reminders: u32 }
    /// # impl Actor for Session {
    /// #     type Messages = ();
    /// #     type Error = Infallible;
    /// #     async fn init(&mut self, cx: &mut Context<Self>) -> Result<(), Infallible> {
    /// #         cx.idle_after(Duration::from_secs(600));
    /// #         Ok(())
    /// #     }
    /// async fn idle(&mut self, cx: &mut Context<Self>) -> Result<(), Infallible> {
    ///     self.reminders += 1;
    ///     if self.reminders > 2 {
    ///         cx.stop(Exit::Normal);
    ///     }
    ///     Ok(())
    /// }
    /// # }
    /// // Its `init` has said `cx.idle_after(Duration::from_secs(600))`.
    /// let (session, before) = (system.start(Session { reminders: 0 }), runtime.now());
    /// assert_eq!(runtime.run(session.ended()), Some(Exit::Normal));
    /// assert_eq!(runtime.since(before), Duration::from_secs(1800));
    /// # }
    /// ```
    fn idle(&mut self, cx: &mut Context<Self>) -> impl Future<Output = Result<(), Self::Error>> + Send {
        cx.stop(Exit::Normal);
        ready(Ok(()))
    }

    /// Before the end, whatever led to it, but for a kill and the fault of a linked actor: after those nothing of it runs any
    /// more but its destructors. After a panic, its state is as the panic left it. After an `init` that has failed, it is part of
    /// the start, and of the time that a supervisor gives to that.
    ///
    /// It runs once: if it panics, that is how the actor ends.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane::Exit;
    /// # use backplane_actor::{Actor, Context};
    /// # use std::{convert::Infallible, sync::mpsc};
    /// # struct Server { tell: mpsc::Sender<Exit> }
    /// # impl Actor for Server {
    /// #     type Messages = ();
    /// #     type Error = Infallible;
    /// async fn terminate(&mut self, exit: &Exit, _: &mut Context<Self>) {
    ///     self.tell.send(exit.clone()).unwrap();
    /// }
    /// # }
    /// # let (tell, told) = mpsc::channel();
    /// let server = system.start(Server { tell });
    /// server.stop(Exit::Shutdown);
    /// assert_eq!(told.recv(), Ok(Exit::Shutdown));
    /// # }
    /// ```
    fn terminate(&mut self, exit: &Exit, cx: &mut Context<Self>) -> impl Future<Output = ()> + Send {
        let _ = (exit, cx);
        ready(())
    }
}

/// How an actor handles messages of type `X`, and what it answers.
///
/// The type of the answer is the message's: who calls with an `X` gets a `Reply`, and nothing has to be matched or cast.
/// An answer that comes later, or from elsewhere, is a message that carries its own [`Reply`]; see
/// [`Address::ask`](crate::Address::ask).
///
/// ```
/// # #[cfg(feature = "smol")] {
/// # use backplane::runtime::Smol;
/// # use backplane_actor::System;
/// # let system = System::new(Smol::global());
/// # use std::convert::Infallible;
/// use backplane_actor::{Actor, Context, Handle};
///
/// struct Stack(Vec<u64>);
/// struct Pop;
/// # impl Actor for Stack {
/// #     type Messages = (Pop,);
/// #     type Error = Infallible;
/// # }
/// impl Handle<Pop> for Stack {
///     type Reply = Option<u64>;
///     async fn handle(&mut self, _: Pop, _: &mut Context<Self>) -> Result<Option<u64>, Infallible> {
///         Ok(self.0.pop())
///     }
/// }
/// let stack = system.start(Stack(vec![7]));
/// assert_eq!(smol::block_on(stack.call(Pop)), Ok(Some(7)));
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not handle `{X}`",
    label = "`Handle<{X}>` is not implemented"
)]
pub trait Handle<X>: Actor {
    /// What a call with this message returns. Casts drop it.
    type Reply: Send + 'static;

    /// Handles it. An error ends the actor, and a caller hears that it ended.
    fn handle(
        &mut self,
        message: X,
        cx: &mut Context<Self>,
    ) -> impl Future<Output = Result<Self::Reply, Self::Error>> + Send;
}

/// What an actor can do about itself while it handles a message.
///
/// ```
/// # #[cfg(feature = "smol")] {
/// # use backplane::runtime::Smol;
/// # use backplane_actor::System;
/// # let system = System::new(Smol::global());
/// # use backplane::Exit;
/// # use backplane_actor::{Actor, Context, Handle};
/// # use std::convert::Infallible;
/// # struct Countdown(u32);
/// # struct Step;
/// # impl Actor for Countdown {
/// #     type Messages = (Step,);
/// #     type Error = Infallible;
/// # }
/// impl Handle<Step> for Countdown {
/// #   type Reply = ();
///     async fn handle(&mut self, _: Step, cx: &mut Context<Self>) -> Result<(), Infallible> {
///         match self.0.checked_sub(1) {
///             Some(left) => self.0 = left,
///             None => cx.stop(Exit::Normal),
///         }
///         cx.next(Step);
///         Ok(())
///     }
/// }
/// let countdown = system.start(Countdown(3));
/// countdown.try_cast(Step).unwrap();
/// assert_eq!(smol::block_on(countdown.ended()), Some(Exit::Normal));
/// # }
/// ```
pub struct Context<A: Actor> {
    reader: Reader<Envelope<A>>,
    rare: Option<Box<Rare>>,
}

/// What few actors have, or only at their end.
#[derive(Default)]
struct Rare {
    stop: Option<Exit>,
    idle_after: Option<Duration>,
    /// Until when the actor may be idle this time.
    overdue: Option<Overdue>,
    /// Answers of the message that stopped it: they wait for `terminate`.
    late: Vec<Box<dyn FnOnce() + Send>>,
    /// Its work has failed; this is how it ends.
    failed: Option<Exit>,
}

impl<A: Actor> fmt::Debug for Context<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("mailbox", &self.reader)
            .field("stop", &self.asked_to_stop())
            .finish_non_exhaustive()
    }
}

impl<A: Actor> Context<A> {
    /// Ends the actor when this message has been handled. The answer to it is sent after [`terminate`](Actor::terminate).
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane::{Device, Disconnect, Exit, Fault, Line};
    /// # use backplane_actor::{Actor, Address, Context, Down, Envelope, Handle, Options, WeakAddress};
    /// # use std::{convert::Infallible, sync::mpsc, time::{Duration, Instant}};
    /// # struct Ask;
    /// # struct Me { friend: Line, tell: mpsc::Sender<Disconnect> }
    /// # impl Actor for Me {
    /// #     type Messages = (Ask, Down<()>, Disconnect);
    /// #     type Error = Infallible;
    /// # }
    /// # impl Handle<Down<()>> for Me {
    /// #     type Reply = ();
    /// #     async fn handle(&mut self, _: Down<()>, _: &mut Context<Self>) -> Result<(), Infallible> {
    /// #         Ok(())
    /// #     }
    /// # }
    /// # impl Handle<Disconnect> for Me {
    /// #     type Reply = ();
    /// #     async fn handle(&mut self, news: Disconnect, _: &mut Context<Self>) -> Result<(), Infallible> {
    /// #         self.tell.send(news).unwrap();
    /// #         Ok(())
    /// #     }
    /// # }
    /// # impl Handle<Ask> for Me {
    /// #   type Reply = &'static str;
    /// async fn handle(&mut self, _: Ask, cx: &mut Context<Self>) -> Result<&'static str, Infallible> {
    ///     cx.stop(Exit::Shutdown);
    ///     Ok("closed") // is answered nevertheless
    /// }
    /// # }
    /// # let friend = Device::new();
    /// # let (tell, heard) = mpsc::channel();
    /// # let me = system.start(Me { friend: friend.line(), tell });
    /// assert_eq!(smol::block_on(me.call(Ask)), Ok("closed"));
    /// assert_eq!(smol::block_on(me.ended()), Some(Exit::Shutdown));
    /// # }
    /// ```
    pub fn stop(&mut self, exit: Exit) {
        self.rare().stop.get_or_insert(exit);
    }

    /// Handles this next, before anything that waits: OTP's `continue`.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane_actor::{Actor, Context, Handle, Options};
    /// # use std::convert::Infallible;
    /// # #[derive(Default)]
    /// # struct Cache { words: Vec<&'static str> }
    /// # struct Load;
    /// # struct Get(usize);
    /// # impl Handle<Load> for Cache {
    /// #     type Reply = ();
    /// #     async fn handle(&mut self, _: Load, _: &mut Context<Self>) -> Result<(), Infallible> {
    /// #         self.words.push("loaded");
    /// #         Ok(())
    /// #     }
    /// # }
    /// # impl Handle<Get> for Cache {
    /// #     type Reply = &'static str;
    /// #     async fn handle(&mut self, get: Get, _: &mut Context<Self>) -> Result<&'static str, Infallible> {
    /// #         Ok(self.words[get.0])
    /// #     }
    /// # }
    /// impl Actor for Cache {
    /// #   type Messages = (Load, Get);
    /// #   type Error = Infallible;
    ///     async fn init(&mut self, cx: &mut Context<Self>) -> Result<(), Infallible> {
    ///         cx.next(Load); // whoever waits for the start does not wait for this
    ///         Ok(())
    ///     }
    /// }
    /// let cache = smol::block_on(system.start_and_wait(Options::new(), Cache::default())).unwrap();
    /// assert_eq!(smol::block_on(cache.call(Get(0))), Ok("loaded"));
    /// # }
    /// ```
    pub fn next<X, I>(&mut self, message: X)
    where
        Envelope<A>: Accepts<X, I>,
    {
        self.reader.push_first(Envelope::wrap(message));
    }

    /// Calls [`idle`](Actor::idle) whenever nothing has come for so long; `None`: never, as at first.
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # use backplane::Runtime;
    /// # use backplane_actor::{System, testing::Seeded};
    /// # let runtime = Seeded::new(1);
    /// # let system = System::new(runtime.clone());
    /// # use backplane::Exit;
    /// # use backplane_actor::{Actor, Context};
    /// # use std::{convert::Infallible, time::Duration};
    /// # struct Session;
    /// impl Actor for Session {
    /// #   type Messages = ();
    /// #   type Error = Infallible;
    ///     async fn init(&mut self, cx: &mut Context<Self>) -> Result<(), Infallible> {
    ///         cx.idle_after(Duration::from_secs(1800));
    ///         Ok(())
    ///     }
    /// }
    /// let (session, before) = (system.start(Session), runtime.now());
    /// assert_eq!(runtime.run(session.ended()), Some(Exit::Normal));
    /// assert_eq!(runtime.since(before), Duration::from_secs(1800));
    /// # }
    /// ```
    pub fn idle_after(&mut self, time: impl Into<Option<Duration>>) {
        let time = time.into();
        if time.is_some() || self.rare.is_some() {
            self.rare().idle_after = time;
        }
    }

    /// Watches an actor, or anything else on the mesh: its end comes as a [`Down`] with this tag, through the system lane,
    /// exactly once, also if it has ended already.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane::{Device, Exit, Line};
    /// # use backplane_actor::{Actor, Context, Down, Handle, Options};
    /// # use std::{convert::Infallible, sync::mpsc};
    /// # struct Nurse { patient: Line, tell: mpsc::Sender<(&'static str, Exit)> }
    /// impl Actor for Nurse {
    ///     type Messages = (Down<&'static str>,);
    /// #   type Error = Infallible;
    ///     async fn init(&mut self, cx: &mut Context<Self>) -> Result<(), Infallible> {
    ///         cx.monitor(&self.patient, "patient");
    ///         Ok(())
    ///     }
    /// }
    /// impl Handle<Down<&'static str>> for Nurse {
    /// #   type Reply = ();
    ///     async fn handle(&mut self, down: Down<&'static str>, _: &mut Context<Self>) -> Result<(), Infallible> {
    ///         self.tell.send((down.tag, down.news.exit)).unwrap();
    /// #       Ok(())
    ///     }
    /// }
    /// # let (patient, (tell, told)) = (Device::new(), mpsc::channel());
    /// # let nurse = Nurse { patient: patient.line(), tell };
    /// let nurse = smol::block_on(system.start_and_wait(Options::new(), nurse)).unwrap();
    /// patient.disconnect(Exit::Normal);
    /// assert_eq!(told.recv(), Ok(("patient", Exit::Normal)));
    /// # drop(nurse);
    /// # }
    /// ```
    pub fn monitor<T, I>(&mut self, line: &Line, tag: T) -> Monitor
    where
        T: Send + 'static,
        Envelope<A>: Accepts<Down<T>, I>,
    {
        self.reader.shared().monitor(line, move |news| Envelope::wrap(Down { tag, news }))
    }

    /// Undoes a monitor; see [`Mailbox::demonitor`](crate::Mailbox::demonitor).
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane::{Device, Disconnect, Exit, Fault, Line};
    /// # use backplane_actor::{Actor, Address, Context, Down, Envelope, Handle, Options, WeakAddress};
    /// # use std::{convert::Infallible, sync::mpsc, time::{Duration, Instant}};
    /// # struct Ask;
    /// # struct Me { friend: Line, tell: mpsc::Sender<Disconnect> }
    /// # impl Actor for Me {
    /// #     type Messages = (Ask, Down<()>, Disconnect);
    /// #     type Error = Infallible;
    /// # }
    /// # impl Handle<Down<()>> for Me {
    /// #     type Reply = ();
    /// #     async fn handle(&mut self, _: Down<()>, _: &mut Context<Self>) -> Result<(), Infallible> {
    /// #         Ok(())
    /// #     }
    /// # }
    /// # impl Handle<Disconnect> for Me {
    /// #     type Reply = ();
    /// #     async fn handle(&mut self, news: Disconnect, _: &mut Context<Self>) -> Result<(), Infallible> {
    /// #         self.tell.send(news).unwrap();
    /// #         Ok(())
    /// #     }
    /// # }
    /// # impl Handle<Ask> for Me {
    /// #   type Reply = (bool, bool);
    /// async fn handle(&mut self, _: Ask, cx: &mut Context<Self>) -> Result<(bool, bool), Infallible> {
    ///     let monitor = cx.monitor(&self.friend, ());
    ///     Ok((cx.demonitor(monitor), cx.demonitor(monitor)))
    /// }
    /// # }
    /// # let friend = Device::new();
    /// # let (tell, heard) = mpsc::channel();
    /// # let me = system.start(Me { friend: friend.line(), tell });
    /// assert_eq!(smol::block_on(me.call(Ask)), Ok((true, false)));
    /// # }
    /// ```
    pub fn demonitor(&mut self, monitor: Monitor) -> bool {
        self.reader.shared().demonitor(monitor)
    }

    /// Undoes a monitor, and takes its news out if it has come; see [`Mailbox::demonitor_flush`](crate::Mailbox::demonitor_flush).
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane::{Device, Disconnect, Exit, Fault, Line};
    /// # use backplane_actor::{Actor, Address, Context, Down, Envelope, Handle, Options, WeakAddress};
    /// # use std::{convert::Infallible, sync::mpsc, time::{Duration, Instant}};
    /// # struct Ask;
    /// # struct Me { friend: Line, tell: mpsc::Sender<Disconnect> }
    /// # impl Actor for Me {
    /// #     type Messages = (Ask, Down<()>, Disconnect);
    /// #     type Error = Infallible;
    /// # }
    /// # impl Handle<Down<()>> for Me {
    /// #     type Reply = ();
    /// #     async fn handle(&mut self, _: Down<()>, _: &mut Context<Self>) -> Result<(), Infallible> {
    /// #         Ok(())
    /// #     }
    /// # }
    /// # impl Handle<Disconnect> for Me {
    /// #     type Reply = ();
    /// #     async fn handle(&mut self, news: Disconnect, _: &mut Context<Self>) -> Result<(), Infallible> {
    /// #         self.tell.send(news).unwrap();
    /// #         Ok(())
    /// #     }
    /// # }
    /// # impl Handle<Ask> for Me {
    /// #   type Reply = bool;
    /// async fn handle(&mut self, _: Ask, cx: &mut Context<Self>) -> Result<bool, Infallible> {
    ///     let monitor = cx.monitor(&self.friend, ());
    ///     // .. and when nobody wants to know any more:
    ///     Ok(cx.demonitor_flush(monitor))
    /// }
    /// # }
    /// # let friend = Device::new();
    /// # let (tell, heard) = mpsc::channel();
    /// # let me = system.start(Me { friend: friend.line(), tell });
    /// assert_eq!(smol::block_on(me.call(Ask)), Ok(true)); // it was still on
    /// # }
    /// ```
    pub fn demonitor_flush(&mut self, monitor: Monitor) -> bool {
        self.reader.shared().demonitor_flush(monitor)
    }

    /// Links with an actor, or anything else on the mesh: a fault of either takes the other along.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane::{Device, Disconnect, Exit, Fault, Line};
    /// # use backplane_actor::{Actor, Address, Context, Down, Envelope, Handle, Options, WeakAddress};
    /// # use std::{convert::Infallible, sync::mpsc, time::{Duration, Instant}};
    /// # struct Ask;
    /// # struct Me { friend: Line, tell: mpsc::Sender<Disconnect> }
    /// # impl Actor for Me {
    /// #     type Messages = (Ask, Down<()>, Disconnect);
    /// #     type Error = Infallible;
    /// # }
    /// # impl Handle<Down<()>> for Me {
    /// #     type Reply = ();
    /// #     async fn handle(&mut self, _: Down<()>, _: &mut Context<Self>) -> Result<(), Infallible> {
    /// #         Ok(())
    /// #     }
    /// # }
    /// # impl Handle<Disconnect> for Me {
    /// #     type Reply = ();
    /// #     async fn handle(&mut self, news: Disconnect, _: &mut Context<Self>) -> Result<(), Infallible> {
    /// #         self.tell.send(news).unwrap();
    /// #         Ok(())
    /// #     }
    /// # }
    /// # impl Handle<Ask> for Me {
    /// #   type Reply = ();
    /// async fn handle(&mut self, _: Ask, cx: &mut Context<Self>) -> Result<(), Infallible> {
    ///     cx.link(&self.friend);
    ///     Ok(())
    /// }
    /// # }
    /// # let friend = Device::new();
    /// # let (tell, heard) = mpsc::channel();
    /// # let me = system.start(Me { friend: friend.line(), tell });
    /// assert_eq!(smol::block_on(me.call(Ask)), Ok(()));
    /// friend.disconnect(Exit::Fault(Fault::error("broken")));
    /// assert!(smol::block_on(me.ended()).unwrap().is_fault());
    /// # }
    /// ```
    pub fn link(&mut self, line: &Line) {
        self.reader.shared().link(line);
    }

    /// Undoes a link.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane::{Device, Disconnect, Exit, Fault, Line};
    /// # use backplane_actor::{Actor, Address, Context, Down, Envelope, Handle, Options, WeakAddress};
    /// # use std::{convert::Infallible, sync::mpsc, time::{Duration, Instant}};
    /// # struct Ask;
    /// # struct Me { friend: Line, tell: mpsc::Sender<Disconnect> }
    /// # impl Actor for Me {
    /// #     type Messages = (Ask, Down<()>, Disconnect);
    /// #     type Error = Infallible;
    /// # }
    /// # impl Handle<Down<()>> for Me {
    /// #     type Reply = ();
    /// #     async fn handle(&mut self, _: Down<()>, _: &mut Context<Self>) -> Result<(), Infallible> {
    /// #         Ok(())
    /// #     }
    /// # }
    /// # impl Handle<Disconnect> for Me {
    /// #     type Reply = ();
    /// #     async fn handle(&mut self, news: Disconnect, _: &mut Context<Self>) -> Result<(), Infallible> {
    /// #         self.tell.send(news).unwrap();
    /// #         Ok(())
    /// #     }
    /// # }
    /// # impl Handle<Ask> for Me {
    /// #   type Reply = ();
    /// async fn handle(&mut self, _: Ask, cx: &mut Context<Self>) -> Result<(), Infallible> {
    ///     cx.link(&self.friend);
    ///     cx.unlink(&self.friend);
    ///     Ok(())
    /// }
    /// # }
    /// # let friend = Device::new();
    /// # let (tell, heard) = mpsc::channel();
    /// # let me = system.start(Me { friend: friend.line(), tell });
    /// assert_eq!(smol::block_on(me.call(Ask)), Ok(()));
    /// friend.disconnect(Exit::Fault(Fault::error("broken")));
    /// assert_eq!(smol::block_on(me.inspect(|_| "fine")), Ok("fine"));
    /// # }
    /// ```
    pub fn unlink(&mut self, line: &Line) {
        self.reader.shared().unlink(line);
    }

    /// The ends of linked actors come as messages from here on, and take nobody along: OTP's `trap_exit`.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane::{Device, Disconnect, Exit, Fault, Line};
    /// # use backplane_actor::{Actor, Address, Context, Down, Envelope, Handle, Options, WeakAddress};
    /// # use std::{convert::Infallible, sync::mpsc, time::{Duration, Instant}};
    /// # struct Ask;
    /// # struct Me { friend: Line, tell: mpsc::Sender<Disconnect> }
    /// # impl Actor for Me {
    /// #     type Messages = (Ask, Down<()>, Disconnect);
    /// #     type Error = Infallible;
    /// # }
    /// # impl Handle<Down<()>> for Me {
    /// #     type Reply = ();
    /// #     async fn handle(&mut self, _: Down<()>, _: &mut Context<Self>) -> Result<(), Infallible> {
    /// #         Ok(())
    /// #     }
    /// # }
    /// # impl Handle<Disconnect> for Me {
    /// #     type Reply = ();
    /// #     async fn handle(&mut self, news: Disconnect, _: &mut Context<Self>) -> Result<(), Infallible> {
    /// #         self.tell.send(news).unwrap();
    /// #         Ok(())
    /// #     }
    /// # }
    /// # impl Handle<Ask> for Me {
    /// #   type Reply = ();
    /// async fn handle(&mut self, _: Ask, cx: &mut Context<Self>) -> Result<(), Infallible> {
    ///     cx.trap_links(); // it has a `Handle<Disconnect>`
    ///     cx.link(&self.friend);
    ///     Ok(())
    /// }
    /// # }
    /// # let friend = Device::new();
    /// # let (tell, heard) = mpsc::channel();
    /// # let me = system.start(Me { friend: friend.line(), tell });
    /// assert_eq!(smol::block_on(me.call(Ask)), Ok(()));
    /// friend.disconnect(Exit::Fault(Fault::error("broken")));
    /// assert_eq!(heard.recv().unwrap().exit.to_string(), "failed: broken");
    /// assert!(me.is_open());
    /// # }
    /// ```
    pub fn trap_links<I: 'static>(&mut self)
    where
        Envelope<A>: Accepts<Disconnect, I>,
    {
        self.reader.shared().trap_links(Envelope::wrap);
    }

    /// A fault of a linked actor takes this one along again.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane::{Device, Disconnect, Exit, Fault, Line};
    /// # use backplane_actor::{Actor, Address, Context, Down, Envelope, Handle, Options, WeakAddress};
    /// # use std::{convert::Infallible, sync::mpsc, time::{Duration, Instant}};
    /// # struct Ask;
    /// # struct Me { friend: Line, tell: mpsc::Sender<Disconnect> }
    /// # impl Actor for Me {
    /// #     type Messages = (Ask, Down<()>, Disconnect);
    /// #     type Error = Infallible;
    /// # }
    /// # impl Handle<Down<()>> for Me {
    /// #     type Reply = ();
    /// #     async fn handle(&mut self, _: Down<()>, _: &mut Context<Self>) -> Result<(), Infallible> {
    /// #         Ok(())
    /// #     }
    /// # }
    /// # impl Handle<Disconnect> for Me {
    /// #     type Reply = ();
    /// #     async fn handle(&mut self, news: Disconnect, _: &mut Context<Self>) -> Result<(), Infallible> {
    /// #         self.tell.send(news).unwrap();
    /// #         Ok(())
    /// #     }
    /// # }
    /// # impl Handle<Ask> for Me {
    /// #   type Reply = ();
    /// async fn handle(&mut self, _: Ask, cx: &mut Context<Self>) -> Result<(), Infallible> {
    ///     cx.trap_links();
    ///     cx.link(&self.friend);
    ///     cx.untrap_links();
    ///     Ok(())
    /// }
    /// # }
    /// # let friend = Device::new();
    /// # let (tell, heard) = mpsc::channel();
    /// # let me = system.start(Me { friend: friend.line(), tell });
    /// assert_eq!(smol::block_on(me.call(Ask)), Ok(()));
    /// friend.disconnect(Exit::Fault(Fault::error("broken")));
    /// assert!(smol::block_on(me.ended()).unwrap().is_fault());
    /// # }
    /// ```
    pub fn untrap_links(&mut self) {
        self.reader.shared().untrap_links();
    }

    /// Its own address, which does not keep it alive.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane::{Device, Disconnect, Exit, Fault, Line};
    /// # use backplane_actor::{Actor, Address, Context, Down, Envelope, Handle, Options, WeakAddress};
    /// # use std::{convert::Infallible, sync::mpsc, time::{Duration, Instant}};
    /// # struct Ask;
    /// # struct Me { friend: Line, tell: mpsc::Sender<Disconnect> }
    /// # impl Actor for Me {
    /// #     type Messages = (Ask, Down<()>, Disconnect);
    /// #     type Error = Infallible;
    /// # }
    /// # impl Handle<Down<()>> for Me {
    /// #     type Reply = ();
    /// #     async fn handle(&mut self, _: Down<()>, _: &mut Context<Self>) -> Result<(), Infallible> {
    /// #         Ok(())
    /// #     }
    /// # }
    /// # impl Handle<Disconnect> for Me {
    /// #     type Reply = ();
    /// #     async fn handle(&mut self, news: Disconnect, _: &mut Context<Self>) -> Result<(), Infallible> {
    /// #         self.tell.send(news).unwrap();
    /// #         Ok(())
    /// #     }
    /// # }
    /// # impl Handle<Ask> for Me {
    /// #   type Reply = WeakAddress<Envelope<Me>>;
    /// async fn handle(&mut self, _: Ask, cx: &mut Context<Self>) -> Result<WeakAddress<Envelope<Me>>, Infallible> {
    ///     Ok(cx.address())
    /// }
    /// # }
    /// # let friend = Device::new();
    /// # let (tell, heard) = mpsc::channel();
    /// # let me = system.start(Me { friend: friend.line(), tell });
    /// let weak = smol::block_on(me.call(Ask)).unwrap();
    /// assert_eq!(weak.upgrade(), Some(me));
    /// # }
    /// ```
    pub fn address(&self) -> WeakAddress<Envelope<A>> {
        self.reader.shared().address()
    }

    /// Its own address; `None` if nobody else has one any more.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane::{Device, Disconnect, Exit, Fault, Line};
    /// # use backplane_actor::{Actor, Address, Context, Down, Envelope, Handle, Options, WeakAddress};
    /// # use std::{convert::Infallible, sync::mpsc, time::{Duration, Instant}};
    /// # struct Ask;
    /// # struct Me { friend: Line, tell: mpsc::Sender<Disconnect> }
    /// # impl Actor for Me {
    /// #     type Messages = (Ask, Down<()>, Disconnect);
    /// #     type Error = Infallible;
    /// # }
    /// # impl Handle<Down<()>> for Me {
    /// #     type Reply = ();
    /// #     async fn handle(&mut self, _: Down<()>, _: &mut Context<Self>) -> Result<(), Infallible> {
    /// #         Ok(())
    /// #     }
    /// # }
    /// # impl Handle<Disconnect> for Me {
    /// #     type Reply = ();
    /// #     async fn handle(&mut self, news: Disconnect, _: &mut Context<Self>) -> Result<(), Infallible> {
    /// #         self.tell.send(news).unwrap();
    /// #         Ok(())
    /// #     }
    /// # }
    /// # impl Handle<Ask> for Me {
    /// #   type Reply = bool;
    /// async fn handle(&mut self, _: Ask, cx: &mut Context<Self>) -> Result<bool, Infallible> {
    ///     Ok(cx.upgrade().is_some())
    /// }
    /// # }
    /// # let friend = Device::new();
    /// # let (tell, heard) = mpsc::channel();
    /// # let me = system.start(Me { friend: friend.line(), tell });
    /// assert_eq!(smol::block_on(me.call(Ask)), Ok(true)); // for we have one
    /// # }
    /// ```
    pub fn upgrade(&self) -> Option<Address<Envelope<A>>> {
        self.address().upgrade()
    }

    /// The line of this incarnation.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane::{Device, Disconnect, Exit, Fault, Line};
    /// # use backplane_actor::{Actor, Address, Context, Down, Envelope, Handle, Options, WeakAddress};
    /// # use std::{convert::Infallible, sync::mpsc, time::{Duration, Instant}};
    /// # struct Ask;
    /// # struct Me { friend: Line, tell: mpsc::Sender<Disconnect> }
    /// # impl Actor for Me {
    /// #     type Messages = (Ask, Down<()>, Disconnect);
    /// #     type Error = Infallible;
    /// # }
    /// # impl Handle<Down<()>> for Me {
    /// #     type Reply = ();
    /// #     async fn handle(&mut self, _: Down<()>, _: &mut Context<Self>) -> Result<(), Infallible> {
    /// #         Ok(())
    /// #     }
    /// # }
    /// # impl Handle<Disconnect> for Me {
    /// #     type Reply = ();
    /// #     async fn handle(&mut self, news: Disconnect, _: &mut Context<Self>) -> Result<(), Infallible> {
    /// #         self.tell.send(news).unwrap();
    /// #         Ok(())
    /// #     }
    /// # }
    /// # impl Handle<Ask> for Me {
    /// #   type Reply = Option<Line>;
    /// async fn handle(&mut self, _: Ask, cx: &mut Context<Self>) -> Result<Option<Line>, Infallible> {
    ///     Ok(cx.line())
    /// }
    /// # }
    /// # let friend = Device::new();
    /// # let (tell, heard) = mpsc::channel();
    /// # let me = system.start(Me { friend: friend.line(), tell });
    /// assert_eq!(smol::block_on(me.call(Ask)), Ok(me.line()));
    /// # }
    /// ```
    pub fn line(&self) -> Option<Line> {
        self.reader.shared().line()
    }

    /// What people call it.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane::{Device, Disconnect, Exit, Fault, Line};
    /// # use backplane_actor::{Actor, Address, Context, Down, Envelope, Handle, Options, WeakAddress};
    /// # use std::{convert::Infallible, sync::mpsc, time::{Duration, Instant}};
    /// # struct Ask;
    /// # struct Me { friend: Line, tell: mpsc::Sender<Disconnect> }
    /// # impl Actor for Me {
    /// #     type Messages = (Ask, Down<()>, Disconnect);
    /// #     type Error = Infallible;
    /// # }
    /// # impl Handle<Down<()>> for Me {
    /// #     type Reply = ();
    /// #     async fn handle(&mut self, _: Down<()>, _: &mut Context<Self>) -> Result<(), Infallible> {
    /// #         Ok(())
    /// #     }
    /// # }
    /// # impl Handle<Disconnect> for Me {
    /// #     type Reply = ();
    /// #     async fn handle(&mut self, news: Disconnect, _: &mut Context<Self>) -> Result<(), Infallible> {
    /// #         self.tell.send(news).unwrap();
    /// #         Ok(())
    /// #     }
    /// # }
    /// # impl Handle<Ask> for Me {
    /// #   type Reply = String;
    /// async fn handle(&mut self, _: Ask, cx: &mut Context<Self>) -> Result<String, Infallible> {
    ///     Ok(cx.name().to_string())
    /// }
    /// # }
    /// # let friend = Device::new();
    /// # let (tell, _heard) = mpsc::channel();
    /// let me = system.start_with(Options::new().label("me"), Me { friend: friend.line(), tell });
    /// assert_eq!(smol::block_on(me.call(Ask)), Ok("me".to_owned()));
    /// # }
    /// ```
    pub fn name(&self) -> &ActorName {
        &self.reader.shared().name
    }

    /// What the runtime's clock shows.
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # use backplane::Runtime;
    /// # use backplane_actor::{System, testing::Seeded};
    /// # let runtime = Seeded::new(1);
    /// # let system = System::new(runtime.clone());
    /// # use backplane::{Device, Disconnect, Exit, Fault, Line};
    /// # use backplane_actor::{Actor, Address, Context, Down, Envelope, Handle, Options, WeakAddress};
    /// # use std::{convert::Infallible, sync::mpsc, time::{Duration, Instant}};
    /// # struct Ask;
    /// # struct Me { friend: Line, tell: mpsc::Sender<Disconnect> }
    /// # impl Actor for Me {
    /// #     type Messages = (Ask, Down<()>, Disconnect);
    /// #     type Error = Infallible;
    /// # }
    /// # impl Handle<Down<()>> for Me {
    /// #     type Reply = ();
    /// #     async fn handle(&mut self, _: Down<()>, _: &mut Context<Self>) -> Result<(), Infallible> {
    /// #         Ok(())
    /// #     }
    /// # }
    /// # impl Handle<Disconnect> for Me {
    /// #     type Reply = ();
    /// #     async fn handle(&mut self, news: Disconnect, _: &mut Context<Self>) -> Result<(), Infallible> {
    /// #         self.tell.send(news).unwrap();
    /// #         Ok(())
    /// #     }
    /// # }
    /// # impl Handle<Ask> for Me {
    /// #   type Reply = Instant;
    /// async fn handle(&mut self, _: Ask, cx: &mut Context<Self>) -> Result<Instant, Infallible> {
    ///     Ok(cx.now()) // in a test, what the test's clock shows
    /// }
    /// # }
    /// # let friend = Device::new();
    /// # let (tell, heard) = mpsc::channel();
    /// # let me = system.start(Me { friend: friend.line(), tell });
    /// assert_eq!(runtime.run(async { me.call(Ask).await }), Ok(runtime.now()));
    /// # }
    /// ```
    pub fn now(&self) -> Instant {
        self.reader.shared().world.clock.now()
    }

    /// Until when the caller of the message that is being handled waits, if it is a call with a limit.
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # use backplane::Runtime;
    /// # use backplane_actor::{System, testing::Seeded};
    /// # let runtime = Seeded::new(1);
    /// # let system = System::new(runtime.clone());
    /// # use backplane::{Device, Disconnect, Exit, Fault, Line};
    /// # use backplane_actor::{Actor, Address, Context, Down, Envelope, Handle, Options, WeakAddress};
    /// # use std::{convert::Infallible, sync::mpsc, time::{Duration, Instant}};
    /// # struct Ask;
    /// # struct Me { friend: Line, tell: mpsc::Sender<Disconnect> }
    /// # impl Actor for Me {
    /// #     type Messages = (Ask, Down<()>, Disconnect);
    /// #     type Error = Infallible;
    /// # }
    /// # impl Handle<Down<()>> for Me {
    /// #     type Reply = ();
    /// #     async fn handle(&mut self, _: Down<()>, _: &mut Context<Self>) -> Result<(), Infallible> {
    /// #         Ok(())
    /// #     }
    /// # }
    /// # impl Handle<Disconnect> for Me {
    /// #     type Reply = ();
    /// #     async fn handle(&mut self, news: Disconnect, _: &mut Context<Self>) -> Result<(), Infallible> {
    /// #         self.tell.send(news).unwrap();
    /// #         Ok(())
    /// #     }
    /// # }
    /// # impl Handle<Ask> for Me {
    /// #   type Reply = Option<Instant>;
    /// async fn handle(&mut self, _: Ask, cx: &mut Context<Self>) -> Result<Option<Instant>, Infallible> {
    ///     Ok(cx.call_deadline())
    /// }
    /// # }
    /// # let friend = Device::new();
    /// # let (tell, heard) = mpsc::channel();
    /// # let me = system.start(Me { friend: friend.line(), tell });
    /// let noon = runtime.now() + Duration::from_secs(3600);
    /// runtime.run(async {
    ///     assert_eq!(me.call(Ask).until(noon).await, Ok(Some(noon)));
    ///     assert_eq!(me.call(Ask).forever().await, Ok(None));
    /// });
    /// # }
    /// ```
    pub fn call_deadline(&self) -> Option<Instant> {
        let call = self.reader.shared().received_call()?;
        call.deadline(&mut || self.now())
    }

    pub(crate) fn answer<T: Send + 'static>(&mut self, reply: Reply<T>, value: T) {
        match &mut self.rare {
            Some(rare) if rare.stop.is_some() => rare.late.push(Box::new(move || reply.send(value))),
            _ => reply.send(value),
        }
    }

    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    fn asked_to_stop(&self) -> Option<&Exit> {
        self.rare.as_ref()?.stop.as_ref()
    }

    /// The time to be idle begins.
    fn rest(&mut self) {
        if let Some(rare) = &mut self.rare {
            rare.overdue = rare.idle_after.map(|after| self.reader.shared().overdue(after));
        }
    }

    /// What there is to do next, when something is; `None`: to end.
    #[inline]
    fn poll_turn(&mut self, task: &mut TaskContext<'_>) -> Poll<Option<Envelope<A>>> {
        match self.rare {
            None => self.reader.poll_receive(task),
            Some(_) => self.poll_rare_turn(task),
        }
    }

    #[cold]
    fn poll_rare_turn(&mut self, task: &mut TaskContext<'_>) -> Poll<Option<Envelope<A>>> {
        if self.asked_to_stop().is_some() {
            return Poll::Ready(None);
        }
        let next = self.reader.poll_receive(task);
        if next.is_pending()
            && let Some(overdue) = self.rare.as_mut().and_then(|rare| rare.overdue.as_mut())
        {
            return overdue.poll(task).map(|()| Some(Envelope(Inside::Idle)));
        }
        next
    }
}

/// An actor and what it has; in one box, which goes from its work to its last words.
pub(crate) struct Served<A: Actor> {
    pub(crate) actor: A,
    pub(crate) cx: Context<A>,
    /// The right to answer the message that is being handled. Not in the future that does it: here it takes part in no rounding.
    /// `None`: its last words have begun.
    pub(crate) reply: Option<<A::Messages as Protocol<A>>::Reply>,
}

/// Has it as long as its future lives. If that panics, it comes out of it alive: by way of the [frame](frame::survive), for a
/// future that has panicked gives nothing back.
#[allow(missing_debug_implementations, reason = "nobody sees it")]
pub struct Kept<A: Actor>(Option<Box<Served<A>>>);

impl<A: Actor> Kept<A> {
    #[inline]
    pub(crate) fn served(&mut self) -> &mut Served<A> {
        match &mut self.0 {
            Some(served) => served,
            None => unreachable!("it is there until it is dropped"),
        }
    }

    /// The time to be idle begins, and what comes next is waited for.
    #[inline]
    pub(crate) fn turn(&mut self) -> impl Future<Output = Option<Envelope<A>>> {
        let served = self.served();
        served.cx.rest();
        poll_fn(|task| served.cx.poll_turn(task))
    }

    /// Somebody looks inside.
    #[cold]
    pub(crate) fn look(&mut self, turn: Option<Envelope<A>>) {
        if let Some(Envelope(Inside::Look(look))) = turn {
            look(&mut self.served().actor);
        }
    }

    pub(crate) fn has_failed(&mut self) -> bool {
        self.served().cx.rare.as_ref().is_some_and(|rare| rare.failed.is_some())
    }

    #[cold]
    pub(crate) fn fail(&mut self, error: A::Error) {
        self.served().cx.rare().failed = Some(failed(error));
    }

    /// How it ends, when it is time to.
    pub(crate) fn exit(&mut self) -> Exit {
        let cx = &mut self.served().cx;
        let own = cx.rare.as_mut().and_then(|rare| rare.failed.take().or_else(|| rare.stop.clone()));
        own.or_else(|| cx.reader.shared().asked_to_stop()).unwrap_or(Exit::Normal)
    }

    /// When it has ended its work, or that has panicked. Whether its last words begin: where they have panicked, they do not
    /// begin again.
    pub(crate) fn begins_last_words(&mut self, exit: &Exit) -> bool {
        let Served { cx, reply, .. } = self.served();
        // Whoever asks from here on, or drops a reply of this actor's, is told how it ends.
        cx.reader.ending(exit);
        // If it has panicked, there is one.
        reply.take().is_some()
    }

    pub(crate) fn last_words(&mut self, exit: &Exit) -> impl Future<Output = Result<(), Panic>> + Send {
        let Served { actor, cx, .. } = self.served();
        Caught::new(actor.terminate(exit, cx))
    }

    /// Gives the answers that have waited for `terminate`.
    pub(crate) fn answer_late(&mut self) -> Result<(), Panic> {
        let late = self.served().cx.rare.take().map_or_else(Vec::new, |rare| rare.late);
        late.into_iter().map(catch).fold(Ok(()), Result::and)
    }
}

impl<A: Actor> Drop for Kept<A> {
    #[inline]
    fn drop(&mut self) {
        if let Some(served) = self.0.take() {
            if_panicking(served);
        }
    }
}

#[cold]
fn if_panicking<A: Actor>(served: Box<Served<A>>) {
    if thread::panicking() {
        let node = Arc::as_ptr(served.cx.reader.shared()).cast::<()>().addr();
        // If it is not this actor that panics, but whoever drops it, it is dropped with the rest.
        drop(frame::survive(node, served));
    }
}

/// An actor's whole life.
pub(crate) fn serve<A: Actor, S: FnOnce() + Send>(
    actor: A,
    reader: Reader<Envelope<A>>,
    started: S,
) -> impl Future<Output = Exit> + Send {
    let cx = Context { reader, rare: None };
    let kept = Kept(Some(Box::new(Served { actor, cx, reply: Some(Default::default()) })));
    let again = |kept| A::Messages::live(kept, None::<S>);
    Serve { life: A::Messages::live(kept, Some(started)), again, actor: PhantomData::<fn() -> A> }
}

pin_project! {
    /// An actor's life; if it panics, another one of the same kind, which has the last words.
    struct Serve<A, L, F> {
        #[pin]
        life: L,
        again: F,
        actor: PhantomData<fn() -> A>,
    }
}

impl<A: Actor, L: Future<Output = Exit>, F: Fn(Kept<A>) -> L> Future for Serve<A, L, F> {
    type Output = Exit;

    #[inline]
    fn poll(self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<Exit> {
        let mut this = self.project();
        loop {
            let panic = match catch(|| this.life.as_mut().poll(task)) {
                Ok(poll) => return poll,
                Err(panic) => panic,
            };
            let exit = Exit::Fault(Fault::panic(&panic));
            let survivor = frame::survivor().and_then(|survivor| survivor.downcast::<Served<A>>().ok());
            let Some(mut served) = survivor else { return Poll::Ready(exit) };
            served.cx.rare().failed = Some(exit);
            this.life.set((this.again)(Kept(Some(served))));
        }
    }
}

/// How it ended, whose work has.
pub(crate) fn exit_of<E: fmt::Display>(worked: Result<Result<Exit, E>, Panic>) -> Exit {
    match worked {
        Ok(Ok(exit)) => exit,
        Ok(Err(error)) => failed(error),
        Err(panic) => Exit::Fault(Fault::panic(&panic)),
    }
}

#[cold]
fn failed<E: fmt::Display>(error: E) -> Exit {
    Exit::Fault(Fault::error(error))
}

pin_project! {
    /// Runs a future; a panic in it is a value.
    pub(crate) struct Caught<F> {
        #[pin]
        future: F,
    }
}

impl<F: Future> Caught<F> {
    pub(crate) fn new(future: F) -> Caught<F> {
        Caught { future }
    }
}

impl<F: Future> Future for Caught<F> {
    type Output = Result<F::Output, Panic>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Result<F::Output, Panic>> {
        let future = self.project().future;
        match catch(|| future.poll(cx)) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    }
}
