//! A pool of pinned threads that run futures, a queue domain for each NUMA node.

mod pin;
mod topology;

pub use pin::pin_current;
pub use topology::{CpuSet, Node, Topology, TopologyError};
