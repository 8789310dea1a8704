//! State behind a mailbox: typed actors on the mesh.

mod duplicates;
mod groups;
mod keyed;
mod lists;
mod registry;
mod router;
mod statem;
mod sync;
mod timer;

pub use duplicates::DuplicateRegistry;
pub use groups::{AllMembers, Change, Changes, Distributor, Groups};
pub use lists::{Member, Members, OwnerEnded};
pub use registry::{Holder, NotRegistered, RegisterError, Registry, TransferError, UnregisterError, WaitFor};
pub use timer::{Tick, TimerId, Timers};
