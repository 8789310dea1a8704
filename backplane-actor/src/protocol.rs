//! Which messages an actor has, as a type: nothing is boxed, and nothing is left to chance.

use std::{fmt, future::Future, mem};

use backplane::{Exit, Fault};

use crate::{
    actor::{Actor, Handle, Kept, Served},
    call::Reply,
};

/// A mailbox of this type takes messages of type `X`.
///
/// Each type takes itself, and an actor's [`Envelope`] takes all that the actor lists. `I` says which it is; the compiler
/// finds it.
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
/// use backplane_actor::{Accepts, Address};
///
/// /// To whoever can be told this: a process, or an actor.
/// fn tell<M, I>(address: &Address<M>, n: u64) -> bool
/// where
///     M: Accepts<Add, I> + Send + 'static,
/// {
///     address.try_cast(Add(n)).is_ok()
/// }
/// assert!(tell(&system.start(Counter { total: 0 }), 2));
/// assert!(tell(&system.prepare::<Add>(backplane_actor::Options::new()).0, 2));
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "a mailbox of `{Self}` does not take `{X}`",
    note = "an actor takes what is in its list `type Messages = (..)`"
)]
pub trait Accepts<X, I>: Sized {
    /// In.
    fn wrap(x: X) -> Self;
    /// And out again, if it is one.
    fn unwrap(self) -> Option<X>;
    /// A look at it, if it is one.
    fn peek(&self) -> Option<&X>;
}

/// A mailbox of this type answers messages of type `X`, each with its type of reply.
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
/// use backplane_actor::{Address, Answers, CallError};
///
/// async fn add<M, I>(to: &Address<M>, n: u64) -> Result<u64, CallError>
/// where
///     M: Answers<Add, I, Reply = u64> + Send + 'static,
/// {
///     to.call(Add(n)).await
/// }
/// let counter = system.start(Counter { total: 1 });
/// assert_eq!(smol::block_on(add(&counter, 2)), Ok(3));
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "a mailbox of `{Self}` does not answer `{X}`",
    note = "an actor answers what is in its list `type Messages = (..)`; a process is asked with `Address::ask`"
)]
pub trait Answers<X, I>: Accepts<X, I> {
    /// What comes back.
    type Reply: Send + 'static;
    /// In, with the right to answer it.
    fn request(x: X, reply: Reply<Self::Reply>) -> Self;
}

/// Says that a type takes itself; see [`Accepts`].
///
/// ```
/// use backplane_actor::{Accepts, Itself};
///
/// let message = <u64 as Accepts<u64, Itself>>::wrap(3);
/// assert_eq!(Accepts::<u64, Itself>::unwrap(message), Some(3));
/// ```
#[derive(Debug)]
pub enum Itself {}

/// Says that a type takes the message at this place of an actor's list; see [`Accepts`].
///
/// ```
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
/// use backplane_actor::{Accepts, At, Envelope};
///
/// let message = <Envelope<Counter> as Accepts<Add, At<0>>>::wrap(Add(3));
/// assert!(matches!(Accepts::<Add, At<0>>::unwrap(message), Some(Add(3))));
/// ```
#[derive(Debug)]
pub enum At<const PLACE: usize> {}

impl<M> Accepts<M, Itself> for M {
    fn wrap(x: M) -> M {
        x
    }

    fn unwrap(self) -> Option<M> {
        Some(self)
    }

    fn peek(&self) -> Option<&M> {
        Some(self)
    }
}

/// A message to an actor, and the right to answer it if somebody waits.
pub struct Letter<X, R: Send + 'static> {
    pub(crate) message: X,
    pub(crate) reply: Option<Reply<R>>,
}

impl<X, R: Send + 'static> fmt::Debug for Letter<X, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Letter").field("is_call", &self.reply.is_some()).finish_non_exhaustive()
    }
}

/// Any message of an actor: what is in its mailbox.
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
/// use backplane_actor::{Accepts, Address, Envelope, Options};
///
/// struct Bank {
///     counter: Address<Envelope<Counter>>,
/// }
///
/// let options = Options::new().dead_letters(|lost: Envelope<Counter>, _| {
///     if let Some(Add(n)) = lost.unwrap() {
///         eprintln!("{n} was not counted");
///     }
/// });
/// let bank = Bank { counter: system.start_with(options, Counter { total: 0 }) };
/// assert_eq!(smol::block_on(bank.counter.call(Add(3))), Ok(3));
/// # }
/// ```
pub struct Envelope<A: Actor>(pub(crate) Inside<A>);

pub(crate) enum Inside<A: Actor> {
    Message(<A::Messages as Protocol<A>>::Any),
    /// Somebody looks inside.
    Look(Box<dyn FnOnce(&mut A) + Send>),
    /// Nothing has come for too long. It is in no mailbox.
    Idle,
}

impl<A: Actor> fmt::Debug for Envelope<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Envelope(..)")
    }
}

impl<A: Actor> Envelope<A> {
    /// The message, if it is one of type `X`: for a [key](crate::Routing::by_key), or for
    /// [dead letters](crate::Options::dead_letters).
    ///
    /// ```
    /// use backplane_actor::{Actor, Context, Envelope, Handle};
    /// use std::convert::Infallible;
    ///
    /// struct Accounts;
    /// struct Pay(u32);
    /// struct Close;
    ///
    /// impl Actor for Accounts {
    ///     type Messages = (Pay, Close);
    ///     type Error = Infallible;
    /// }
    /// # impl Handle<Pay> for Accounts {
    /// #     type Reply = ();
    /// #     async fn handle(&mut self, _: Pay, _: &mut Context<Self>) -> Result<(), Infallible> { Ok(()) }
    /// # }
    /// # impl Handle<Close> for Accounts {
    /// #     type Reply = ();
    /// #     async fn handle(&mut self, _: Close, _: &mut Context<Self>) -> Result<(), Infallible> { Ok(()) }
    /// # }
    ///
    /// fn customer(message: &Envelope<Accounts>) -> Option<u32> {
    ///     message.get::<Pay, _>().map(|Pay(customer)| *customer)
    /// }
    /// # use backplane_actor::Accepts;
    /// # assert_eq!(customer(&Envelope::wrap(Pay(7))), Some(7));
    /// # assert_eq!(customer(&Envelope::wrap(Close)), None);
    /// ```
    pub fn get<X, I>(&self) -> Option<&X>
    where
        Envelope<A>: Accepts<X, I>,
    {
        Accepts::peek(self)
    }
}

/// A list of message types that an actor handles: a tuple of up to sixteen.
///
/// Not for implementing: the tuples are all there is.
///
/// ```
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
/// use backplane_actor::{At, Envelope, Protocol};
///
/// /// The list of an actor, by name: what is sent to it is one of these.
/// type MessagesOf<A> = <A as Actor>::Messages;
///
/// fn is_a_list_of<A: Actor, P: Protocol<A>>() {}
/// is_a_list_of::<Counter, (Add,)>();
/// is_a_list_of::<Counter, MessagesOf<Counter>>();
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no list of messages of `{A}`",
    note = "a list is a tuple, as `(Add, Get)`, and the actor implements `Handle` for each"
)]
pub trait Protocol<A: Actor>: 'static {
    /// One of them.
    type Any: Send + 'static;

    /// None of their replies, or one: of the message that is being handled.
    #[doc(hidden)]
    type Reply: Default + Send;

    /// An actor's life: it starts, handles what comes until it is time to end, and has its last words. If it has panicked
    /// before, it begins with these.
    #[doc(hidden)]
    fn live<S: FnOnce() + Send>(kept: Kept<A>, started: Option<S>) -> impl Future<Output = Exit> + Send
    where
        A: Actor<Messages = Self>;
}

/// A list with `X` at a place. Not for implementing.
pub trait Has<A: Actor + Handle<X>, X, const PLACE: usize>: Protocol<A> {
    /// In.
    fn put(letter: Letter<X, A::Reply>) -> Self::Any;
    /// Out, if it is that one.
    fn take(any: Self::Any) -> Option<X>;
    /// A look at it, if it is that one.
    fn peek(any: &Self::Any) -> Option<&X>;
}

impl<A, X, const PLACE: usize> Accepts<X, At<PLACE>> for Envelope<A>
where
    A: Actor + Handle<X>,
    A::Messages: Has<A, X, PLACE>,
{
    fn wrap(x: X) -> Envelope<A> {
        Envelope(Inside::Message(<A::Messages as Has<A, X, PLACE>>::put(Letter { message: x, reply: None })))
    }

    fn unwrap(self) -> Option<X> {
        match self.0 {
            Inside::Message(any) => <A::Messages as Has<A, X, PLACE>>::take(any),
            Inside::Look(_) | Inside::Idle => None,
        }
    }

    fn peek(&self) -> Option<&X> {
        match &self.0 {
            Inside::Message(any) => <A::Messages as Has<A, X, PLACE>>::peek(any),
            Inside::Look(_) | Inside::Idle => None,
        }
    }
}

impl<A, X, const PLACE: usize> Answers<X, At<PLACE>> for Envelope<A>
where
    A: Actor + Handle<X>,
    A::Messages: Has<A, X, PLACE>,
{
    type Reply = A::Reply;

    fn request(x: X, reply: Reply<A::Reply>) -> Envelope<A> {
        let letter = Letter { message: x, reply: Some(reply) };
        Envelope(Inside::Message(<A::Messages as Has<A, X, PLACE>>::put(letter)))
    }
}

// The whole life is here, and not one message of it: what is awaited in a future of its own would hold the message and the
// references again, in each idle actor. For the same reason it is no `async fn`, a turn is moved as a whole before it is
// handled, and the exit is no value of the block, which would have its place beside all that is in it.
macro_rules! live {
    ($Act:ty, $kept:ident, $started:ident, $message:ident, $reply:ident; $($one:pat => $letter:pat, $held:path),*) => {{
        let mut kept = $kept;
        async move {
            'work: {
                if kept.has_failed() {
                    break 'work;
                }
                let Served { actor, cx, .. } = kept.served();
                if let Err(error) = actor.init(cx).await {
                    kept.fail(error);
                    break 'work;
                }
                if let Some(started) = $started {
                    started();
                }
                loop {
                    let turn = kept.turn().await;
                    match turn {
                        $(Some(Envelope(Inside::Message($one))) => {
                            let $message = {
                                let turn = turn;
                                match turn {
                                    Some(Envelope(Inside::Message($letter))) => {
                                        if let Some(reply) = $reply {
                                            kept.served().reply = Some($held(reply));
                                        }
                                        $message
                                    }
                                    other => {
                                        // There is none. But for this, code to drop one would be here, and look at it in memory.
                                        mem::forget(other);
                                        continue;
                                    }
                                }
                            };
                            let Served { actor, cx, .. } = kept.served();
                            match <$Act as Handle<_>>::handle(actor, $message, cx).await {
                                Ok(answer) => {
                                    let Served { cx, reply, .. } = kept.served();
                                    // Of a cast there is none, and nothing is written.
                                    if let Some($held(_)) = reply
                                        && let Some($held(reply)) = reply.replace(Default::default())
                                    {
                                        cx.answer(reply, answer);
                                    }
                                }
                                Err(error) => {
                                    kept.fail(error);
                                    break 'work;
                                }
                            }
                        })*
                        Some(Envelope(Inside::Idle)) => {
                            drop(turn);
                            let Served { actor, cx, .. } = kept.served();
                            if let Err(error) = actor.idle(cx).await {
                                kept.fail(error);
                                break 'work;
                            }
                        }
                        None => {
                            drop(turn);
                            break 'work;
                        }
                        // An actor without messages has none.
                        Some(_) => kept.look(turn),
                    }
                }
            }
            let mut exit = kept.exit();
            let terminated = match kept.begins_last_words(&exit) {
                true => kept.last_words(&exit).await,
                // It panicked before there was a future to catch it in, or when that was dropped.
                false => Ok(()),
            };
            if let Err(panic) = terminated.and(kept.answer_late()) {
                exit = Exit::Fault(Fault::panic(&panic));
            }
            exit
        }
    }};
}

impl<A: Actor> Protocol<A> for () {
    type Any = std::convert::Infallible;
    type Reply = ();

    fn live<S: FnOnce() + Send>(kept: Kept<A>, started: Option<S>) -> impl Future<Output = Exit> + Send
    where
        A: Actor<Messages = Self>,
    {
        live!(A, kept, started, message, reply;)
    }
}

macro_rules! protocol {
    ($Any:ident $Reply:ident: $($X:ident $R:ident $place:literal),+) => {
        #[doc(hidden)]
        #[allow(missing_debug_implementations, reason = "nobody sees it")]
        pub enum $Any<$($X, $R: Send + 'static),+> {
            $($X(Letter<$X, $R>)),+
        }

        #[doc(hidden)]
        #[derive(Default)]
        #[allow(missing_debug_implementations, reason = "nobody sees it")]
        pub enum $Reply<$($R: Send + 'static),+> {
            #[default]
            None,
            $($X(Reply<$R>)),+
        }

        impl<Act, $($X),+> Protocol<Act> for ($($X,)+)
        where
            Act: Actor $(+ Handle<$X>)+,
            $($X: Send + 'static),+
        {
            type Any = $Any<$($X, <Act as Handle<$X>>::Reply),+>;
            type Reply = $Reply<$(<Act as Handle<$X>>::Reply),+>;

            #[allow(clippy::manual_async_fn, reason = "see `live!`")]
            fn live<S: FnOnce() + Send>(kept: Kept<Act>, started: Option<S>) -> impl Future<Output = Exit> + Send
            where
                Act: Actor<Messages = Self>,
            {
                live!(Act, kept, started, message, reply;
                    $($Any::$X(_) => $Any::$X(Letter { message, reply }), $Reply::$X),+)
            }
        }

        protocol!(@each $Any [$($X $place),+] [$($X),+]);
    };
    (@each $Any:ident [$($X:ident $place:literal),+] $all:tt) => {
        $(protocol!(@has $Any $X $place $all);)+
    };
    (@has $Any:ident $This:ident $place:literal [$($X:ident),+]) => {
        impl<Act, $($X),+> Has<Act, $This, $place> for ($($X,)+)
        where
            Act: Actor $(+ Handle<$X>)+,
            $($X: Send + 'static),+
        {
            fn put(letter: Letter<$This, <Act as Handle<$This>>::Reply>) -> Self::Any {
                $Any::$This(letter)
            }

            #[allow(unreachable_patterns, reason = "where there is but one")]
            fn take(any: Self::Any) -> Option<$This> {
                match any {
                    $Any::$This(letter) => Some(letter.message),
                    _ => None,
                }
            }

            #[allow(unreachable_patterns, reason = "where there is but one")]
            fn peek(any: &Self::Any) -> Option<&$This> {
                match any {
                    $Any::$This(letter) => Some(&letter.message),
                    _ => None,
                }
            }
        }
    };
}

protocol!(Any1 Reply1: A1 R1 0);
protocol!(Any2 Reply2: A1 R1 0, A2 R2 1);
protocol!(Any3 Reply3: A1 R1 0, A2 R2 1, A3 R3 2);
protocol!(Any4 Reply4: A1 R1 0, A2 R2 1, A3 R3 2, A4 R4 3);
protocol!(Any5 Reply5: A1 R1 0, A2 R2 1, A3 R3 2, A4 R4 3, A5 R5 4);
protocol!(Any6 Reply6: A1 R1 0, A2 R2 1, A3 R3 2, A4 R4 3, A5 R5 4, A6 R6 5);
protocol!(Any7 Reply7: A1 R1 0, A2 R2 1, A3 R3 2, A4 R4 3, A5 R5 4, A6 R6 5, A7 R7 6);
protocol!(Any8 Reply8: A1 R1 0, A2 R2 1, A3 R3 2, A4 R4 3, A5 R5 4, A6 R6 5, A7 R7 6, A8 R8 7);
protocol!(Any9 Reply9: A1 R1 0, A2 R2 1, A3 R3 2, A4 R4 3, A5 R5 4, A6 R6 5, A7 R7 6, A8 R8 7, A9 R9 8);
protocol!(Any10 Reply10: A1 R1 0, A2 R2 1, A3 R3 2, A4 R4 3, A5 R5 4, A6 R6 5, A7 R7 6, A8 R8 7, A9 R9 8, A10 R10 9);
protocol!(Any11 Reply11: A1 R1 0, A2 R2 1, A3 R3 2, A4 R4 3, A5 R5 4, A6 R6 5, A7 R7 6, A8 R8 7, A9 R9 8, A10 R10 9, A11 R11 10);
protocol!(Any12 Reply12: A1 R1 0, A2 R2 1, A3 R3 2, A4 R4 3, A5 R5 4, A6 R6 5, A7 R7 6, A8 R8 7, A9 R9 8, A10 R10 9, A11 R11 10, A12 R12 11);
protocol!(Any13 Reply13: A1 R1 0, A2 R2 1, A3 R3 2, A4 R4 3, A5 R5 4, A6 R6 5, A7 R7 6, A8 R8 7, A9 R9 8, A10 R10 9, A11 R11 10, A12 R12 11, A13 R13 12);
protocol!(Any14 Reply14: A1 R1 0, A2 R2 1, A3 R3 2, A4 R4 3, A5 R5 4, A6 R6 5, A7 R7 6, A8 R8 7, A9 R9 8, A10 R10 9, A11 R11 10, A12 R12 11, A13 R13 12, A14 R14 13);
protocol!(Any15 Reply15: A1 R1 0, A2 R2 1, A3 R3 2, A4 R4 3, A5 R5 4, A6 R6 5, A7 R7 6, A8 R8 7, A9 R9 8, A10 R10 9, A11 R11 10, A12 R12 11, A13 R13 12, A14 R14 13, A15 R15 14);
protocol!(Any16 Reply16: A1 R1 0, A2 R2 1, A3 R3 2, A4 R4 3, A5 R5 4, A6 R6 5, A7 R7 6, A8 R8 7, A9 R9 8, A10 R10 9, A11 R11 10, A12 R12 11, A13 R13 12, A14 R14 13, A15 R15 14, A16 R16 15);
