//! Supervision trees for Rust futures, with the verdicts of Erlang/OTP.
//!
//! A [`Supervisor`] starts its children in order, starts them again when they fail, stops them in reverse, and gives up
//! when it is too much; then its own supervisor decides. Any future that runs under
//! [`Device::manage`](backplane::Device::manage) is a child: there is no trait to implement.
//!
//! ```
//! use backplane::Exit;
//! use backplane_supervisor::{ChildSpec, Intensity, RestartStrategy, Supervisor};
//! use std::{convert::Infallible, time::Duration};
//!
//! # #[cfg(feature = "smol")] {
//! use backplane::runtime::Smol;
//!
//! async fn count() -> Result<(), Infallible> {
//!     std::future::pending().await
//! }
//!
//! let counter = ChildSpec::new("counter", |device| device.manage(count()));
//! let tree = Supervisor::new(RestartStrategy::OneForOne)
//!     .intensity(Intensity { restarts: 3, period: Duration::from_secs(5) })
//!     .child(counter);
//!
//! smol::block_on(async {
//!     let handle = tree.start(Smol::global()).await?;
//!     println!("{}", handle.snapshot()?);
//!     let stopped = handle.stop(Exit::Shutdown).await?;
//!     assert!(stopped.killed.is_empty());
//!     Ok::<(), Box<dyn std::error::Error>>(())
//! })
//! # .unwrap();
//! # }
//! ```
//!
//! # What holds
//!
//! - The verdicts are OTP's, to the letter: restart types, strategies, intensity, shutdown, automatic shutdown, retries,
//!   answers to calls. Recorded traces of the real system are part of the tests.
//! - Starting is synchronous: the next sibling starts when the one before says that it is started, or, if it never will,
//!   when it is first polled.
//! - No two incarnations of a child overlap, and all that one held is dropped before its successor starts, as long as it
//!   is held by the future under `manage`.
//! - A kill is the drop of a task, and is heard through the same door as every other end. **A child that never yields
//!   cannot be killed in Rust**: it is [reported](Event::Stuck) by name, and a stop with a deadline goes on without it.
//! - A start function, a hook or a destructor that panics harms nobody but its own child.
//! - The supervisor never sleeps while it waits for a backoff, and a [snapshot](SupervisorHandle::snapshot) of the tree
//!   is had without waiting for anybody.
//!
//! # How OTP's words are said here
//!
//! | OTP | here |
//! |---|---|
//! | `normal`, and `{shutdown, Term}` | [`Exit::Normal`](backplane::Exit::Normal): no rule tells the two apart |
//! | `shutdown` | [`Exit::Shutdown`](backplane::Exit::Shutdown) |
//! | any other reason | [`Exit::Fault`](backplane::Exit::Fault), with its words |
//! | `init/1` | the closure of [`ChildSpec::supervisor`], called for every incarnation |
//! | `start_link` returning `{ok, Pid}`, `ignore`, `{error, Why}` | [`Starting::done`], [`ignore`](Starting::ignore), [`fail`](Starting::fail) |
//! | `simple_one_for_one` | [`DynamicSupervisor`] |
//! | trapping exits | [`Device::on_shutdown`](backplane::Device::on_shutdown), [`on_fault`](backplane::Device::on_fault) |
//! | SASL's reports | [`Report`], to [hooks](Supervisor::listen), [subscriptions](SupervisorHandle::reports) and `tracing` |
//!
//! # Features
//!
//! - `smol` (on by default), `tokio`: the core's adapters for the two runtimes. Any [`Runtime`](backplane::Runtime) will do.
//! - `signals`: [`Root::main`](Root) listens to Ctrl-C and SIGTERM.
//! - `tracing`: every report is an event with fields, too.
//! - `serde`: a [`Snapshot`] serialises.

mod backoff;
mod dynamic;
mod engine;
mod handle;
mod names;
mod order;
mod reply;
mod report;
mod ring;
mod root;
mod shared;
mod snapshot;
mod spec;
mod starting;
mod supervisor;
#[cfg(feature = "tracing")]
mod trace;
mod tree;

pub use backoff::Backoff;
pub use dynamic::DynamicSupervisor;
pub use handle::{
    ChildRef, Counts, DeleteChildError, DynamicHandle, Gone, KillChildError, Killed, RestartChildError, Row,
    RowState, StartChildError, StartDynamicError, Stopped, SupervisorHandle, TerminateChildError,
};
pub use report::{Event, Report, Reports};
pub use root::{Root, RootEnd};
pub use snapshot::{ChildSnapshot, ChildState, Snapshot};
pub use spec::{
    ChildId, ChildInfo, ChildKind, ChildSpec, Init, Shutdown, SpecError, StartError, check_child_specs,
};
pub use starting::{Pulse, Starting};
pub use supervisor::{Orphans, Supervisor};
pub use tree::{AutoShutdown, Budget, Exceeded, Intensity, Restart, RestartStrategy};
