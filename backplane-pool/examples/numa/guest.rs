//! What the machine says about itself: where memory lies, how busy a CPU was. And what the first process of a guest owes it.

use std::{collections::BTreeMap, fs, io, os::unix::fs::FileExt};

use rustix::{mount, process, system};

use crate::work::Seen;

/// Linux puts pages together where it can: memory of two tasks would be on one node if it were on one such page.
const HUGE: usize = 1 << 21;

/// Whether this is the first process of a machine.
pub(crate) fn is_init() -> bool {
    process::getpid().is_init()
}

/// Mounts what an init mounts, if this is one.
pub(crate) fn enter() -> io::Result<()> {
    if is_init() {
        for (kind, folder) in [("proc", "/proc"), ("sysfs", "/sys")] {
            fs::create_dir_all(folder)?;
            mount::mount(kind, folder, kind, mount::MountFlags::empty(), None)?;
        }
    }
    Ok(())
}

/// Switches the machine off, if this is its first process.
pub(crate) fn leave() -> io::Result<()> {
    if is_init() {
        system::reboot(system::RebootCommand::PowerOff)?;
    }
    Ok(())
}

/// How many pages of this memory lie on each node; `None` if this user may not know.
///
/// Counts those that are inside of a large page which nobody else can have a part of.
fn pages_by_node(memory: &[u8]) -> Option<BTreeMap<usize, usize>> {
    let block = fs::read_to_string("/sys/devices/system/memory/block_size_bytes").ok()?;
    let block = u64::from_str_radix(block.trim(), 16).ok()?;
    let pagemap = fs::File::open("/proc/self/pagemap").ok()?;
    let size = rustix::param::page_size();
    let begin = memory.as_ptr().addr();
    let inside = begin.next_multiple_of(HUGE)..(begin + memory.len()) / HUGE * HUGE;
    let mut nodes = BTreeMap::new();
    for address in inside.step_by(size) {
        let mut entry = [0; 8];
        pagemap.read_exact_at(&mut entry, (address / size * 8) as u64).ok()?;
        let entry = u64::from_ne_bytes(entry);
        // Bit 63 says that it is in memory; the number of its frame is 0 for those who may not know.
        let frame = entry & ((1 << 55) - 1);
        if entry >> 63 == 0 || frame == 0 {
            return None;
        }
        *nodes.entry(node_of_block(frame * size as u64 / block)?).or_default() += 1;
    }
    Some(nodes)
}

fn node_of_block(block: u64) -> Option<usize> {
    let entries = fs::read_dir(format!("/sys/devices/system/memory/memory{block}")).ok()?;
    let mut names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.find_map(|name| name.strip_prefix("node")?.parse().ok())
}

/// Whether each task's memory lies on the node that `of` says for the task's own.
pub(crate) fn lies_on(all: &[Seen], of: impl Fn(usize) -> usize) {
    let mut pages = 0;
    for seen in all {
        let Some(nodes) = pages_by_node(&seen.memory) else {
            // Only the first process of a guest is sure to know.
            assert!(!is_init(), "where memory lies cannot be read");
            println!("this user may not know where memory lies");
            return;
        };
        assert!(nodes.keys().all(|node| *node == of(seen.node)), "memory of node {}: {nodes:?}", seen.node);
        pages += nodes.values().sum::<usize>();
    }
    assert!(pages > 0);
    println!("{pages} pages, all on the node of the CPUs that touched them first");
}

/// How busy each CPU has been since, in per cent.
pub(crate) fn busy_since(before: &BTreeMap<usize, (u64, u64)>) -> Vec<(usize, u64)> {
    let share = |(cpu, (busy, idle)): (usize, (u64, u64))| {
        let (busy_before, idle_before) = before.get(&cpu)?;
        let (busy, idle) = (busy - busy_before, idle.saturating_sub(*idle_before));
        Some((cpu, 100 * busy / (busy + idle).max(1)))
    };
    ticks().into_iter().filter_map(share).collect()
}

/// Ticks that each CPU was busy, and those that it was idle, since the machine began.
pub(crate) fn ticks() -> BTreeMap<usize, (u64, u64)> {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let of_cpu = |line: &str| {
        let (cpu, numbers) = line.strip_prefix("cpu")?.split_once(' ')?;
        let numbers: Vec<u64> = numbers.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        let idle = numbers.get(3)? + numbers.get(4)?;
        Some((cpu.parse().ok()?, (numbers.iter().take(8).sum::<u64>() - idle, idle)))
    };
    stat.lines().filter_map(of_cpu).collect()
}
