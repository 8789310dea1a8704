//! Work stays on its node, and so does the memory that it touches first.
//!
//! Runs anywhere; `.ci/numa` makes it the first process of machines with several nodes, and says which.

mod guest;
mod work;

use std::{collections::BTreeSet, env};

use backplane_pool::{Pinning, Pool, Topology};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    guest::enter()?;
    let machine = Topology::system();
    let nodes: Vec<_> = machine.nodes().iter().map(|node| format!("{}:{}", node.id(), node.cpus())).collect();
    println!("nodes: {}", nodes.join(" "));
    let expected: Vec<String> = env::args().skip(1).collect();
    assert!(expected.is_empty() || expected == nodes, "they should be {expected:?}");

    let pool = Pool::builder().topology(machine.clone()).pinning(Pinning::Node).build()?;
    let before = guest::ticks();
    let all = work::run(&pool, &machine, &machine);
    for (cpu, share) in guest::busy_since(&before) {
        println!("CPU {cpu} was busy for {share} % of the time");
        // Elsewhere others have a say; and what the host is busy with, a guest takes for idle time.
        assert!(!guest::is_init() || share > 25);
    }
    let seen: BTreeSet<_> = all.iter().flat_map(|seen| &seen.cpus).copied().collect();
    let there = machine.cpus().into_iter().collect();
    assert!(if guest::is_init() { seen == there } else { seen.is_subset(&there) }, "{seen:?} of {there:?}");
    assert!(pool.counters().iter().all(|worker| worker.polls > 0 && worker.off_node_polls == 0));
    assert!(all.iter().all(|seen| seen.astray == 0), "a poll on another node");
    println!("{} polls, none on another node", all.iter().map(|seen| seen.polls).sum::<usize>());
    guest::lies_on(&all, |node| node);

    // And the same with a pool that has been lied to, so that we know what it would look like.
    let (ids, mut cpus): (Vec<_>, Vec<_>) =
        machine.nodes().iter().map(|node| (node.id(), node.cpus().clone())).unzip();
    cpus.rotate_left(1);
    let lie = Topology::from_nodes(ids.iter().copied().zip(cpus));
    let lied_to = Pool::builder().topology(lie.clone()).pinning(Pinning::Node).build()?;
    let all = work::run(&lied_to, &machine, &lie);
    let next = |node| ids[(ids.iter().position(|id| *id == node).expect("one of them") + 1) % ids.len()];
    assert!(ids.len() == 1 || all.iter().all(|seen| seen.astray == seen.polls), "a lie that came true");
    guest::lies_on(&all, next);

    println!("numa: all is where it belongs");
    Ok(guest::leave()?)
}
