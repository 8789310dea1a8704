//! Where a thread may run: the one place that asks the system for it.

use std::{cell::Cell, io};

use crate::cpus::CpuSet;

/// Lets this thread, and those that it starts from now on, run on these CPUs only.
///
/// Memory follows: a page is placed on the node of the thread that touches it first.
///
/// # Errors
///
/// - `InvalidInput` if `cpus` is empty, or if none of them is there or allowed. Those that are not, beside some that are,
///   are left out by the system.
/// - [`Unsupported`](io::ErrorKind::Unsupported) on systems other than Linux, and for CPUs above 1023.
///
/// The thread then runs where it could before.
///
/// ```
/// use backplane_pool::{Topology, pin_current};
/// let topology = Topology::system();
/// let node = &topology.nodes()[0];
/// std::thread::scope(|threads| {
///     threads.spawn(|| match pin_current(node.cpus()) {
///         Ok(()) => println!("pinned to CPUs {}", node.cpus()),
///         Err(error) => println!("runs anywhere: {error}"),
///     });
/// });
/// ```
pub fn pin_current(cpus: &CpuSet) -> io::Result<()> {
    if cpus.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a thread needs a CPU to run on"));
    }
    system::pin(cpus)
}

/// The CPU that this thread was on a moment ago, where the system can tell.
///
/// ```
/// use backplane_pool::{Topology, current_cpu};
/// let topology = Topology::system();
/// match current_cpu() {
///     Some(cpu) => println!("on CPU {cpu}, of node {:?}", topology.node_of(cpu).map(|node| node.id())),
///     None => println!("somewhere"),
/// }
/// # #[cfg(target_os = "linux")]
/// assert!(current_cpu().is_some()); // on Linux it can be told
/// ```
pub fn current_cpu() -> Option<usize> {
    system::current_cpu()
}

/// The mask of this process's first thread, where the system can tell.
pub(crate) fn process_cpus() -> Option<CpuSet> {
    system::process_cpus()
}

/// The mask of this thread, where the system can tell.
pub(crate) fn thread_cpus() -> Option<CpuSet> {
    system::thread_cpus()
}

/// Lets this thread run wherever the process may: the kernel gives each the mask of the one that started it, and that may have
/// been pinned. A wish, which costs nothing when it is made again.
pub(crate) fn unpin_once() {
    thread_local! {
        static UNPINNED: Cell<bool> = const { Cell::new(false) };
    }
    if !UNPINNED.replace(true)
        && let Some(all) = process_cpus()
        && thread_cpus().is_some_and(|here| here != all)
    {
        let _ = pin_current(&all);
    }
}

#[cfg(target_os = "linux")]
mod system {
    use std::{io, process};

    use rustix::thread::{self, Pid};

    use crate::cpus::CpuSet;

    pub(super) fn pin(cpus: &CpuSet) -> io::Result<()> {
        let mut set = thread::CpuSet::new();
        for cpu in cpus.iter() {
            // The set would panic.
            if cpu >= thread::CpuSet::MAX_CPU {
                return Err(io::Error::new(io::ErrorKind::Unsupported, format!("CPU {cpu} is out of reach")));
            }
            set.set(cpu);
        }
        Ok(thread::sched_setaffinity(None, &set)?)
    }

    pub(super) fn current_cpu() -> Option<usize> {
        Some(thread::sched_getcpu())
    }

    pub(super) fn process_cpus() -> Option<CpuSet> {
        cpus_of(Some(Pid::from_raw(i32::try_from(process::id()).ok()?)?))
    }

    pub(super) fn thread_cpus() -> Option<CpuSet> {
        cpus_of(None)
    }

    fn cpus_of(thread: Option<Pid>) -> Option<CpuSet> {
        // Refused where the kernel's masks are longer than ours.
        let set = thread::sched_getaffinity(thread).ok()?;
        Some((0..thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect())
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::io;

    use crate::cpus::CpuSet;

    pub(super) fn pin(_: &CpuSet) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "threads are pinned on Linux only"))
    }

    pub(super) fn current_cpu() -> Option<usize> {
        None
    }

    pub(super) fn process_cpus() -> Option<CpuSet> {
        None
    }

    pub(super) fn thread_cpus() -> Option<CpuSet> {
        None
    }
}
