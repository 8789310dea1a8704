//! State behind a mailbox: typed actors on the mesh.

mod actor;
mod address;
mod call;
mod clock;
mod duplicates;
mod frame;
mod groups;
mod keyed;
mod lists;
mod mailbox;
mod name;
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
pub use mailbox::{Mailbox, Priority};
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
