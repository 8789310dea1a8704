//! State behind a mailbox: typed actors on the mesh.
//!
//! There are two ways to write one. A *process* is an async function over its [`Mailbox`]:
//!
//! ```
//! # #[cfg(feature = "smol")] {
//! use backplane::runtime::Smol;
//! use backplane_actor::{Mailbox, Reply, System};
//!
//! enum Count {
//!     Add(u64),
//!     Get(Reply<u64>),
//! }
//!
//! async fn count(mut mailbox: Mailbox<Count>) {
//!     let mut total = 0;
//!     while let Some(message) = mailbox.receive().await {
//!         match message {
//!             Count::Add(n) => total += n,
//!             Count::Get(reply) => reply.send(total),
//!         }
//!     }
//! }
//!
//! smol::block_on(async {
//!     let system = System::new(Smol::global());
//!     let counter = system.spawn(count);
//!     counter.cast(Count::Add(2)).await?;
//!     assert_eq!(counter.ask(Count::Get).await?, 2);
//!     Ok::<(), Box<dyn std::error::Error>>(())
//! })
//! # .unwrap();
//! # }
//! ```
//!
//! And an [`Actor`] has its state in its fields and a [`Handle`] for each type of message, each with its own type of reply:
//!
//! ```
//! # #[cfg(feature = "smol")] {
//! use backplane::runtime::Smol;
//! use backplane_actor::{Actor, Context, Handle, System};
//! use std::convert::Infallible;
//!
//! struct Counter {
//!     total: u64,
//! }
//!
//! impl Actor for Counter {
//!     type Messages = (Add,);
//!     type Error = Infallible;
//! }
//!
//! struct Add(u64);
//!
//! impl Handle<Add> for Counter {
//!     type Reply = u64;
//!
//!     async fn handle(&mut self, Add(n): Add, _: &mut Context<Self>) -> Result<u64, Infallible> {
//!         self.total += n;
//!         Ok(self.total)
//!     }
//! }
//!
//! smol::block_on(async {
//!     let system = System::new(Smol::global());
//!     let counter = system.start(Counter { total: 0 });
//!     counter.cast(Add(2)).await?;
//!     assert_eq!(counter.call(Add(3)).await?, 5);
//!     Ok::<(), Box<dyn std::error::Error>>(())
//! })
//! # .unwrap();
//! # }
//! ```
//!
//! Both have the same mailboxes, addresses, and ends, and both go under a supervisor: [`System::child`],
//! [`System::child_process`].
//!
//! # What holds
//!
//! - **Mailboxes are bounded**, unless said otherwise, and when one is full the sender chooses: [`Cast`]. What is refused
//!   comes back. News, timers and requests to stop pass in a lane of their own.
//! - **Order**: what one sender sends in one lane arrives in that order. The lanes overtake each other: news of an end may
//!   pass what the dead had sent before, unlike in OTP.
//! - **Accepted is handled or handed back**: also across a panic, a message ends in a handler, with its successor, or with
//!   the [dead letters](Options::dead_letters) and their [count](System::dead_letters). Only the one of which an actor dies
//!   is gone with it, unless it is [retried](Options::retry).
//! - **A call ends**: with the answer, or at once with a [`CallError`] that says why: the actor had ended, ended before it
//!   answered, gave no answer; the time was up; it would be a cycle. No answer is late, and who does not wait any more is
//!   not served.
//! - **An address survives restarts**, and a [`WeakAddress`] keeps nobody alive.
//! - **An end has an order**: what the actor held is dropped, its queue is kept or buried, its callers hear, its watchers
//!   hear.
//! - **A cast allocates nothing** and a call once, in the steady state.
//! - Time and tasks come from the [`Runtime`](backplane::Runtime) alone, so that a virtual clock drives all of it.
//!
//! # State that cannot be sent
//!
//! What only one thread may touch is held by a process whose future a local executor runs; its address is as any other:
//!
//! ```
//! # #[cfg(feature = "smol")] {
//! use backplane::{Device, runtime::Smol};
//! use backplane_actor::{Mailbox, Options, Reply, System};
//! use std::{cell::RefCell, rc::Rc};
//!
//! let (counter, home) = System::new(Smol::global()).prepare(Options::new());
//! let total = Rc::new(RefCell::new(0));
//! let process = home.run(Device::new(), |mut mailbox: Mailbox<(u64, Reply<u64>)>| async move {
//!     while let Some((n, reply)) = mailbox.receive().await {
//!         *total.borrow_mut() += n;
//!         reply.send(*total.borrow());
//!     }
//! });
//! let local = smol::LocalExecutor::new();
//! local.spawn(process).detach();
//! let answer = smol::block_on(local.run(counter.ask(|reply| (2, reply))));
//! assert_eq!(answer, Ok(2));
//! # }
//! ```
//!
//! An [`Actor`] is `Send`, and what it holds need not be: a wrapper that keeps it to one thread, such as that of the crate
//! `send_wrapper`, makes the actor one that [`Home::run_actor`] and a local executor run.
//!
//! ```
//! # #[cfg(feature = "smol")] {
//! use backplane::{Device, runtime::Smol};
//! use backplane_actor::{Actor, Context, Envelope, Handle, Options, System};
//! use send_wrapper::SendWrapper;
//! use std::{cell::RefCell, convert::Infallible, rc::Rc};
//!
//! struct Counter(SendWrapper<Rc<RefCell<u64>>>);
//! struct Add(u64);
//!
//! impl Actor for Counter {
//!     type Messages = (Add,);
//!     type Error = Infallible;
//! }
//!
//! impl Handle<Add> for Counter {
//!     type Reply = u64;
//!
//!     async fn handle(&mut self, Add(n): Add, _: &mut Context<Self>) -> Result<u64, Infallible> {
//!         *self.0.borrow_mut() += n;
//!         Ok(*self.0.borrow())
//!     }
//! }
//!
//! let total = Rc::new(RefCell::new(0));
//! let counter = Counter(SendWrapper::new(Rc::clone(&total)));
//! let (address, home) = System::new(Smol::global()).prepare::<Envelope<Counter>>(Options::new());
//! let local = smol::LocalExecutor::new();
//! local.spawn(home.run_actor(Device::new(), counter)).detach();
//! assert_eq!(smol::block_on(local.run(address.call(Add(2)))), Ok(2));
//! assert_eq!(*total.borrow(), 2);
//! # }
//! ```
//!
//! # How OTP's words are said here
//!
//! | OTP | here |
//! |---|---|
//! | `gen_server:call`, `cast` | [`Address::call`], [`Address::cast`]; a process is asked with [`Address::ask`] |
//! | `{noreply, State}` and `reply/2` later | the message carries its [`Reply`] |
//! | `{continue, Term}` | [`Context::next`] |
//! | a timeout in a return value | [`Context::idle_after`] |
//! | `handle_info`, `DOWN` | [`Handle`] of a [`Down`] with the tag that the watcher chose |
//! | `trap_exit` | [`Context::trap_links`] |
//! | `{stop, Reason, Reply, State}` | [`Context::stop`], and the answer; it is sent after `terminate` |
//! | `sys:suspend`, `resume`, `get_state`, `replace_state` | [`Address::suspend`], [`resume`](Address::resume), [`inspect`](Address::inspect) |
//! | selective receive | [`Mailbox::receive_where`] |
//! | `gen_server:send_request` and its collections | [`Pending`] |
//!
//! What differs on purpose: a cast to the dead gives the message back (OTP says `ok`); a request whose caller has gone is
//! not handled (OTP handles it); a request to stop always runs `terminate`, as if the actor trapped exits.
//!
//! # Features
//!
//! - `smol` (on by default), `tokio`: the core's adapters for the two runtimes. Any [`Runtime`](backplane::Runtime) will do.
//! - `tracing`: each poll of an actor is in a span of its own, `actor`, with its name, at level debug.
//! - `metrics`: for the recorder of the `metrics` crate: `backplane_actor_started_total`, `backplane_actor_ended_total` (by
//!   `exit`), `backplane_actor_handled_total`, `backplane_actor_dead_letters_total` (by `cause`), and for actors that are
//!   [timed](Options::timed) the histogram `backplane_actor_busy_seconds`, a value a poll. Those with a
//!   [label](Options::label) have it as `actor`.
//! - `testing`: a kit for your own tests, with virtual time, seeds, and an actor that expects.

mod actor;
mod address;
mod call;
mod calls;
mod clock;
mod duplicates;
mod frame;
mod groups;
mod keyed;
mod lane;
mod lists;
mod mailbox;
mod name;
mod observe;
mod options;
mod pending;
mod protocol;
mod registry;
mod router;
mod run;
mod start;
mod statem;
mod sync;
mod system;
#[cfg(feature = "testing")]
pub mod testing;
mod timer;
mod watch;

pub use actor::{Actor, Context, Handle};
pub use address::{Address, Cast, CastError, Closed, Load, TryCastError, WeakAddress};
pub use call::{Call, CallError, DEFAULT_CALL_TIME, Reply};
pub use duplicates::DuplicateRegistry;
pub use groups::{AllMembers, Change, Changes, Distributor, Groups};
pub use lists::{Member, Members, OwnerEnded};
pub use mailbox::{Mailbox, TooManySetAside};
pub use name::ActorName;
pub use options::{DEFAULT_CAPACITY, DeadLetter, Options, QueueOnRestart};
pub use pending::{NoQuorum, Pending};
pub use protocol::{Accepts, Answers, At, Envelope, Has, Itself, Letter, Protocol};
pub use registry::{
    AlreadyStarted, Holder, NotRegistered, RegisterError, Registry, TransferError, UnregisterError, WaitFor,
};
pub use router::{DEFAULT_QUEUE, Overload, Router, RouterStats, Routing, Scaling};
pub use run::Run;
pub use statem::{Entering, Event, Next, StateMachine, Turn, When, run_machine};
pub use system::{Home, Outcome, System};
pub use timer::{Tick, TimerId, Timers};
pub use watch::{Down, Monitor};

/// The blocks of Rust in the README are tests.
#[cfg(all(doctest, feature = "smol"))]
#[doc = include_str!("../README.md")]
mod readme {}
