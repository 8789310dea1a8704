//! A pool of pinned threads that run futures, a queue domain for each NUMA node.

mod builder;
mod cgroup;
mod counters;
mod cpus;
mod domain;
mod event;
#[allow(unreachable_pub)] // Loom reaches it.
mod idle;
#[cfg(feature = "uring")]
mod lane;
mod pin;
mod pool;
mod reactor;
mod registry;
mod resident;
#[cfg(feature = "uring")]
mod ring;
mod runtime;
#[allow(unreachable_pub)] // Loom reaches it.
mod slot;
mod sync;
mod task;
mod topology;
mod watch;
mod worker;

pub use builder::{BuildError, Builder, Pinning, WorkerInfo};
/// What sockets and files on lanes are made of: the version that lanes work with. Feature `uring`.
#[cfg(feature = "uring")]
pub use compio;
pub use counters::WorkerCounters;
pub use cpus::{CpuSet, ParseCpuSetError};
pub use event::{Event, Hog};
#[cfg(feature = "uring")]
pub use lane::Lane;
pub use pin::{current_cpu, pin_current};
pub use pool::{Handle, NoSuchNode, Pool, Unfinished};
pub use registry::TaskName;
#[cfg(feature = "uring")]
pub use ring::{Driver, Lanes};
pub use runtime::Sleep;
pub use task::{JoinError, Task};
pub use topology::{Node, Topology, TopologyError};

/// The parts that loom looks at.
#[cfg(backplane_loom)]
#[doc(hidden)]
pub mod model {
    pub use crate::{
        idle::{Idle, Woken},
        slot::Slot,
    };
}
