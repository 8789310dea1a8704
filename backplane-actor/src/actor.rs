//! The GenServer-like way to write an actor.

use std::{
    fmt,
    future::{Future, poll_fn, ready},
    pin::pin,
    task::Poll,
    time::{Duration, Instant},
};

use backplane::{Disconnect, Exit, Fault, Line, catch};

use crate::{
    address::{Address, WeakAddress},
    call::Reply,
    frame,
    mailbox::Mailbox,
    name::ActorName,
    options::Overdue,
    protocol::{Accepts, Envelope, Inside, Protocol},
    watch::{Down, Monitor},
};

/// State behind a mailbox, as OTP's `gen_server`: `call`, `cast` and `info` are one, [`Handle`], for each type of message.
///
/// Only the two types have to be written; each method says what it does if it is not.
pub trait Actor: Sized + Send + 'static {
    /// All types of messages that it handles, as a tuple: casts, calls, news ([`Down`]) and timers alike.
    type Messages: Protocol<Self>;

    /// What ends it as a fault, with these words; [`Infallible`](std::convert::Infallible), if nothing does.
    type Error: fmt::Display + Send + 'static;

    /// Before the first message; not at all, unless written.
    ///
    /// An error is the end of it, and of a start that waits for it. [`Context::next`] goes on with the work when whoever
    /// waits for the start has been told: OTP's `continue`.
    fn init(&mut self, cx: &mut Context<Self>) -> impl Future<Output = Result<(), Self::Error>> + Send {
        let _ = cx;
        ready(Ok(()))
    }

    /// Nothing has come for as long as [`Context::idle_after`] said: it stops, unless this is written.
    fn idle(&mut self, cx: &mut Context<Self>) -> impl Future<Output = Result<(), Self::Error>> + Send {
        cx.stop(Exit::Normal);
        ready(Ok(()))
    }

    /// Before the end, whatever led to it, but for a kill and the fault of a linked actor: after those nothing of it runs any
    /// more but its destructors. After a panic, its state is as the panic left it.
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
pub struct Context<A: Actor> {
    mailbox: Mailbox<Envelope<A>>,
    stop: Option<Exit>,
    idle_after: Option<Duration>,
    /// Answers of the message that stopped it: they wait for `terminate`.
    late: Vec<Box<dyn FnOnce() + Send>>,
}

impl<A: Actor> fmt::Debug for Context<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("mailbox", &self.mailbox)
            .field("stop", &self.stop)
            .finish_non_exhaustive()
    }
}

impl<A: Actor> Context<A> {
    /// Ends the actor when this message has been handled. The answer to it is sent after [`terminate`](Actor::terminate).
    pub fn stop(&mut self, exit: Exit) {
        self.stop.get_or_insert(exit);
    }

    /// Handles this next, before anything that waits: OTP's `continue`.
    pub fn next<X, I>(&mut self, message: X)
    where
        Envelope<A>: Accepts<X, I>,
    {
        self.mailbox.push_first(Envelope::wrap(message));
    }

    /// Calls [`idle`](Actor::idle) whenever nothing has come for so long; `None`: never, as at first.
    pub fn idle_after(&mut self, time: impl Into<Option<Duration>>) {
        self.idle_after = time.into();
    }

    /// Watches an actor, or anything else on the mesh: its end comes as a [`Down`] with this tag, through the system lane,
    /// exactly once, also if it has ended already.
    pub fn monitor<T, I>(&mut self, line: &Line, tag: T) -> Monitor
    where
        T: Send + 'static,
        Envelope<A>: Accepts<Down<T>, I>,
    {
        self.mailbox.monitor(line, move |news| Envelope::wrap(Down { tag, news }))
    }

    /// Undoes a monitor; see [`Mailbox::demonitor`].
    pub fn demonitor(&mut self, monitor: Monitor) -> bool {
        self.mailbox.demonitor(monitor)
    }

    /// Undoes a monitor, and takes its news out if it has come; see [`Mailbox::demonitor_flush`].
    pub fn demonitor_flush(&mut self, monitor: Monitor) -> bool {
        self.mailbox.demonitor_flush(monitor)
    }

    /// Links with an actor, or anything else on the mesh: a fault of either takes the other along.
    pub fn link(&mut self, line: &Line) {
        self.mailbox.link(line);
    }

    /// Undoes a link.
    pub fn unlink(&mut self, line: &Line) {
        self.mailbox.unlink(line);
    }

    /// The ends of linked actors come as messages from here on, and take nobody along: OTP's `trap_exit`.
    pub fn trap_links<I: 'static>(&mut self)
    where
        Envelope<A>: Accepts<Disconnect, I>,
    {
        self.mailbox.trap_links(Envelope::wrap);
    }

    /// A fault of a linked actor takes this one along again.
    pub fn untrap_links(&mut self) {
        self.mailbox.untrap_links();
    }

    /// Its own address, which does not keep it alive.
    pub fn address(&self) -> WeakAddress<Envelope<A>> {
        self.mailbox.address()
    }

    /// Its own address; `None` if nobody else has one any more.
    pub fn upgrade(&self) -> Option<Address<Envelope<A>>> {
        self.mailbox.upgrade()
    }

    /// The line of this incarnation.
    pub fn line(&self) -> Option<Line> {
        self.mailbox.line()
    }

    /// What people call it.
    pub fn name(&self) -> &ActorName {
        self.mailbox.name()
    }

    /// What the runtime's clock shows.
    pub fn now(&self) -> Instant {
        self.mailbox.shared().world.clock.now()
    }

    /// Until when the caller of the message that is being handled waits, if it is a call with a limit.
    pub fn call_deadline(&self) -> Option<Instant> {
        let call = frame::with(|frame| frame.call.clone()).flatten()?;
        call.deadline(&mut || self.now())
    }

    pub(crate) fn answer<T: Send + 'static>(&mut self, reply: Reply<T>, value: T) {
        if self.stop.is_some() {
            self.late.push(Box::new(move || reply.send(value)));
        } else {
            reply.send(value);
        }
    }
}

/// An actor's whole life.
pub(crate) async fn serve<A: Actor>(
    mut actor: A,
    mailbox: Mailbox<Envelope<A>>,
    started: impl FnOnce() + Send,
) -> Exit {
    let mut cx = Context { mailbox, stop: None, idle_after: None, late: Vec::new() };
    let mut exit = {
        let mut work = pin!(work(&mut actor, &mut cx, started));
        poll_fn(|cx| match catch(|| work.as_mut().poll(cx)) {
            Ok(poll) => poll,
            Err(panic) => Poll::Ready(Exit::Fault(Fault::panic(&panic))),
        })
        .await
    };
    // Whoever asks from here on, or drops a reply of this actor's, is told how it ends.
    cx.mailbox.shared().ending(&exit);
    frame::with(|frame| frame.ending = true);
    let failed = {
        let mut last_words = pin!(actor.terminate(&exit, &mut cx));
        poll_fn(|cx| match catch(|| last_words.as_mut().poll(cx)) {
            Ok(poll) => poll.map(|()| None),
            Err(panic) => Poll::Ready(Some(Exit::Fault(Fault::panic(&panic)))),
        })
        .await
    };
    if let Some(failed) = failed {
        exit = failed;
    }
    for answer in cx.late.drain(..) {
        answer();
    }
    exit
}

async fn work<A: Actor>(actor: &mut A, cx: &mut Context<A>, started: impl FnOnce() + Send) -> Exit {
    match try_work(actor, cx, started).await {
        Ok(exit) => exit,
        Err(error) => Exit::Fault(Fault::error(error)),
    }
}

async fn try_work<A: Actor>(
    actor: &mut A,
    cx: &mut Context<A>,
    started: impl FnOnce() + Send,
) -> Result<Exit, A::Error> {
    actor.init(cx).await?;
    started();
    loop {
        if let Some(exit) = &cx.stop {
            return Ok(exit.clone());
        }
        let mut overdue: Option<Overdue> = cx.idle_after.map(|after| cx.mailbox.overdue(after));
        let next = poll_fn(|task| match cx.mailbox.poll_receive(task) {
            Poll::Ready(next) => Poll::Ready(Some(next)),
            Poll::Pending => match &mut overdue {
                Some(overdue) => overdue.poll(task).map(|()| None),
                None => Poll::Pending,
            },
        })
        .await;
        match next {
            Some(Some(Envelope(Inside::Message(any)))) => A::Messages::dispatch(actor, any, cx).await?,
            Some(Some(Envelope(Inside::Look(look)))) => look(actor),
            Some(None) => return Ok(cx.mailbox.shared().asked_to_stop().unwrap_or(Exit::Normal)),
            None => actor.idle(cx).await?,
        }
    }
}
