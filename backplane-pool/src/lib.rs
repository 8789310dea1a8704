//! A pool of pinned threads that run futures, a queue domain for each NUMA node.
//!
//! A [`Pool`] runs smol's world: tasks are async-task's, sockets and timers async-io's, which idle workers turn. It is a
//! [`Runtime`](backplane::Runtime), so that supervisors and actors run on it, and a [handle to a node](Handle::on_node) is one
//! on which a whole subtree stays.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use backplane_pool::{JoinError, Pool};
//! let pool = Pool::builder().workers(2).build()?;
//! let handle = pool.handle();
//! let task = pool.spawn(async move {
//!     let children: Vec<_> = (0u64..10).map(|n| handle.spawn(async move { 100 / n })).collect();
//!     let mut ended = Vec::new();
//!     for child in children {
//!         ended.push(child.await);
//!     }
//!     ended
//! });
//! let ended = pool.block_on(task)?;
//! assert!(matches!(&ended[0], Err(JoinError::Panicked(panic)) if panic.message() == Some("attempt to divide by zero")));
//! assert_eq!(ended[1..].iter().flatten().sum::<u64>(), 281);
//! pool.shutdown(std::time::Duration::from_secs(1))?;
//! # Ok(())
//! # }
//! ```
//!
//! # What holds
//!
//! - A task is polled on its node and nowhere else, whoever wakes it. What it spawns is on that node, unless told otherwise.
//! - A task is dropped on a thread of its pool, whether it ends, is cancelled, or the pool does.
//! - A panic is a value to whoever awaits the task. It never takes a worker along, and neither does that of a destructor.
//! - Whatever is ready is polled: tasks that ask for turn after turn, tasks that wake each other, spawns from outside, and
//!   events do not starve one another. Only a poll that does not return keeps its worker, and is [told of](Event::Hog).
//! - No wake is lost. An idle pool uses no CPU.
//!
//! # Features
//!
//! - `uring`: workers that wait in an io_uring of their own, as lanes, with the sockets and files of compio.
//!
//! # Threads
//!
//! async-io has a thread of its own in every process, for when nobody else turns its reactor. While a pool is there it
//! sleeps; nothing waits for it.

mod builder;
mod cgroup;
mod counters;
mod cpus;
mod domain;
mod event;
mod give_way;
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
mod sleep;
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
pub use give_way::{GiveWay, give_way};
#[cfg(feature = "uring")]
pub use lane::Lane;
pub use pin::{current_cpu, pin_current};
pub use pool::{Handle, NoSuchNode, Pool, Unfinished};
pub use registry::TaskName;
#[cfg(feature = "uring")]
pub use ring::{Driver, Lanes};
pub use sleep::Sleep;
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
