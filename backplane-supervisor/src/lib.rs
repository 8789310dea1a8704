//! Supervision trees for Rust futures, with the verdicts of Erlang/OTP.

mod backoff;
mod dynamic;
mod engine;
mod handle;
mod order;
mod reply;
mod report;
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
    ChildRef, Counts, DeleteChildError, DynamicHandle, Gone, Killed, RestartChildError, Row, RowState, StartChildError,
    StartDynamicError, Stopped, SupervisorHandle, TerminateChildError,
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
