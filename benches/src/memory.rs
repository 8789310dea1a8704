//! Counts the bytes of one side of one row: `memory ROW ours|theirs` prints bytes for one device.
//!
//! A program of its own, because an allocator that counts taxes whoever allocates; and one process for each figure,
//! because what ours keeps for reuse is kept by the process. The bytes are those asked of the allocator.

use std::future::Future;
use std::hint::black_box;
use std::process::ExitCode;
use std::task::Context;

use allocation_counter::measure;
use backplane_benches::managed::{idle_waker, never};
use backplane_benches::mesh;

/// How many devices share the fixed cost of the first.
const DEVICES: u64 = 100_000;

/// How many leaves a star has: fewer, because the peer's time is the square of them.
const LEAVES: u64 = 10_000;

/// So many operations go before those that are counted, so that what is kept for reuse is there.
const BEFORE: u64 = 1_000;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let bytes = match args[..] {
        [row, "ours"] => ours(row),
        [row, "theirs"] => theirs(row),
        _ => None,
    };
    let Some(bytes) = bytes else {
        eprintln!("usage: memory memory/(idle|managed|leaf|client|churn) (ours|theirs)");
        return ExitCode::from(2);
    };
    println!("{bytes}");
    ExitCode::SUCCESS
}

fn ours(row: &str) -> Option<f64> {
    use backplane::{Device, LinkMode};

    let hub = Device::new();
    Some(match row {
        "memory/idle" => held_each(DEVICES, Device::new),
        "memory/managed" => beside_the_future(|| Device::new().manage(never())),
        "memory/leaf" => held_each(LEAVES, || {
            let leaf = Device::new();
            leaf.link(&hub, LinkMode::Monitor);
            leaf
        }),
        "memory/client" => left_each(|times| mesh::ours::serve(&hub, times)),
        "memory/churn" => {
            let (client, line) = (Device::new(), hub.line());
            left_each(|times| {
                for _ in 0..times {
                    client.link(&line, LinkMode::Monitor);
                    client.unlink(&line, LinkMode::Monitor);
                }
            })
        }
        _ => return None,
    })
}

fn theirs(row: &str) -> Option<f64> {
    use async_backplane::{Device, LinkMode};

    let hub = Device::new();
    Some(match row {
        "memory/idle" => held_each(DEVICES, Device::new),
        "memory/managed" => beside_the_future(|| Device::new().manage(never())),
        "memory/leaf" => held_each(LEAVES, || {
            let leaf = Device::new();
            leaf.link(&hub, LinkMode::Monitor);
            leaf
        }),
        "memory/client" => left_each(|times| mesh::theirs::serve(&hub, times)),
        "memory/churn" => {
            let (client, line) = (Device::new(), hub.line());
            left_each(|times| {
                for _ in 0..times {
                    client.link_line(line.clone(), LinkMode::Monitor).expect("the hub lives");
                    client.unlink_line(&line, LinkMode::Monitor);
                }
            })
        }
        _ => return None,
    })
}

/// How many bytes more are held after `work`, for each of `count`.
fn kept_each(count: u64, work: impl FnOnce()) -> f64 {
    measure(work).bytes_current as f64 / count as f64
}

/// What all of what `make` makes hold while they live, each with the place it stands in.
fn held_each<T>(count: u64, mut make: impl FnMut() -> T) -> f64 {
    let mut held = Vec::new();
    let bytes = kept_each(count, || {
        held.reserve_exact(count as usize);
        held.extend((0..count).map(|_| make()));
    });
    drop(black_box(held));
    bytes
}

/// What a managed device costs beside the future it manages, in a box of its own as an executor would keep it. It is
/// polled once, as one that waits has been.
fn beside_the_future<F: Future>(mut manage: impl FnMut() -> F) -> f64 {
    let waker = idle_waker();
    let mut cx = Context::from_waker(&waker);
    let held = held_each(DEVICES, || {
        let mut managed = Box::pin(manage());
        assert!(managed.as_mut().poll(&mut cx).is_pending());
        managed
    });
    held - size_of_val(&never()) as f64 - size_of::<usize>() as f64
}

/// What stays behind of each of many operations, when as many have gone before as it takes to be warm.
fn left_each(mut work: impl FnMut(u64)) -> f64 {
    work(BEFORE);
    kept_each(DEVICES, || work(DEVICES))
}
