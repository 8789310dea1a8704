//! A pool of pinned threads that run futures, a queue domain for each NUMA node.

mod cgroup;
mod cpus;
mod pin;
mod topology;

pub use cpus::{CpuSet, ParseCpuSetError};
pub use pin::{current_cpu, pin_current};
pub use topology::{Node, Topology, TopologyError};
