//! What the tasks do: touch memory, compute, and talk to the next node.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use async_channel::{Receiver, Sender};
use backplane_pool::{Pool, Topology, current_cpu};
use futures_lite::future::{poll_once, yield_now};

/// What a task has seen.
pub(crate) struct Seen {
    pub(crate) node: usize,
    pub(crate) memory: Vec<u8>,
    pub(crate) polls: usize,
    /// Of those, on a CPU of another node.
    pub(crate) astray: usize,
    pub(crate) cpus: BTreeSet<usize>,
}

/// Touches memory first, then works, and talks across nodes.
async fn errand(machine: Topology, node: usize, inbox: Receiver<()>, next: Sender<()>, end: Instant) -> Seen {
    let mut seen = Seen { node, memory: vec![0; 6 << 20], polls: 0, astray: 0, cpus: BTreeSet::new() };
    let mut touched = 0;
    while touched < seen.memory.len() || Instant::now() < end {
        let cpu = current_cpu().expect("Linux tells");
        seen.polls += 1;
        seen.astray += usize::from(machine.node_of(cpu).is_none_or(|there| there.id() != node));
        seen.cpus.insert(cpu);
        // A little in each poll, for the next may be on another CPU.
        seen.memory[touched..].iter_mut().take(256 << 10).for_each(|byte| *byte = 1);
        touched = seen.memory.len().min(touched + (256 << 10));
        let slice = Instant::now();
        while slice.elapsed() < Duration::from_micros(100) {}
        // The next is on another node: what it wakes there must not come here. Nobody waits for anybody.
        let _ = next.try_send(());
        poll_once(inbox.recv()).await;
        yield_now().await;
    }
    seen
}

/// For a second: twice as many errands on each of `nodes` as it has CPUs, one after another linked into a ring.
pub(crate) fn run(pool: &Pool, machine: &Topology, nodes: &Topology) -> Vec<Seen> {
    let most = nodes.nodes().iter().map(|node| node.cpus().len()).max().unwrap_or(0);
    let round = || nodes.nodes().iter().map(|node| node.id());
    let places: Vec<usize> = (0..2 * most).flat_map(|_| round()).collect();
    let mut channels: Vec<_> = places.iter().map(|_| async_channel::unbounded()).collect();
    let (mut senders, inboxes): (Vec<_>, Vec<_>) = channels.drain(..).unzip();
    senders.rotate_left(1);
    let errands = places.into_iter().zip(inboxes.into_iter().zip(senders));
    let end = Instant::now() + Duration::from_secs(1);
    let tasks: Vec<_> = errands
        .map(|(node, (inbox, next))| pool.spawn_on(node, errand(machine.clone(), node, inbox, next, end)))
        .collect();
    tasks.into_iter().map(|task| pool.block_on(task.expect("the node is there")).expect("it ends")).collect()
}
