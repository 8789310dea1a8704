//! Where a thread may run.

use std::io;

use crate::topology::CpuSet;

/// Lets this thread run on these CPUs only.
///
/// # Errors
///
/// What the system says: none of them is there, or none is allowed.
pub fn pin_current(cpus: &CpuSet) -> io::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    for cpu in cpus.iter() {
        set.set(cpu);
    }
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}
