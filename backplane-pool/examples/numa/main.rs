//! Work stays on its node, and so does the memory that it touches first.
//!
//! Runs anywhere; `.ci/numa` makes it the first process of machines with several nodes, and says what they must look
//! like.

mod guest;

use std::{env, thread};

use backplane_pool::{Topology, current_cpu, pin_current};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    guest::enter()?;
    let expected: Vec<String> = env::args().skip(1).collect();
    let topology = Topology::system();
    let seen: Vec<String> =
        topology.nodes().iter().map(|node| format!("{}:{}", node.id(), node.cpus())).collect();
    println!("nodes: {}", seen.join(" "));
    assert!(expected.is_empty() || expected == seen, "they should be {expected:?}");

    let before = guest::ticks();
    let threads: Vec<_> = topology
        .nodes()
        .iter()
        .flat_map(|node| {
            node.cpus().iter().map(move |_| {
                let node = node.clone();
                thread::spawn(move || {
                    pin_current(node.cpus()).unwrap();
                    let mut memory = vec![0; 6 << 20];
                    memory.fill(1_u8);
                    let mut x = 1_u64;
                    for i in 0..10_000_000_u64 {
                        x = std::hint::black_box(x.wrapping_mul(i | 1));
                    }
                    (node.id(), current_cpu(), memory)
                })
            })
        })
        .collect();
    for t in threads {
        let (n, cpu, memory) = t.join().unwrap();
        println!("{n} {cpu:?} {:?}", guest::pages_by_node(&memory));
    }
    println!("{:?} {:?}", before, guest::ticks());
    println!("numa: all is where it belongs");
    guest::leave()?;
    Ok(())
}
