//! The pool against its peers: the same work, the same number of threads, in one run, interleaved. Medians are printed,
//! with the tenth and the ninetieth of a hundred.
//!
//! `cargo run --release` prints the table; words after `--` choose rows, and `--quick` shows only that everything runs.

mod peers;
mod rows;

use std::time::Duration;

use crate::peers::{Bastion, Ours, Peer, Shared, Smol, Static, Tokio};

/// So many threads for each.
pub const THREADS: usize = 2;

/// One contestant's way through a row: gives the time of one operation.
type Run = Box<dyn Fn() -> f64>;

/// A row of the table.
pub struct Row {
    name: &'static str,
    says: &'static str,
    /// In what one operation is counted: nanoseconds of the clock, or of CPU.
    unit: &'static str,
    /// What is wished for against async-executor.
    goal: f64,
    sides: Vec<(&'static str, Run)>,
}

/// How hard to try.
#[derive(Clone, Copy)]
pub struct Effort {
    rounds: usize,
    scale: usize,
}

fn main() {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, who] = &words[..]
        && flag == "--idle"
    {
        println!("{}", idle_here(who));
        return;
    }
    let quick = words.iter().any(|word| word == "--quick");
    words.retain(|word| word != "--quick");
    let effort = if quick { Effort { rounds: 1, scale: 50 } } else { Effort { rounds: 15, scale: 1 } };

    println!(
        "{THREADS} threads each; nanoseconds an operation: median (10 % to 90 %); in brackets theirs / ours.\n"
    );
    let rows = rows::all(effort);
    let names: Vec<&str> =
        rows.first().map(|row| row.sides.iter().map(|side| side.0).collect()).unwrap_or_default();
    println!("| row | {} | goal |", names.join(" | "));
    println!("|---|{}---|", "---|".repeat(names.len()));
    for row in rows
        .iter()
        .filter(|row| words.is_empty() || words.iter().any(|word| row.name.contains(word.as_str())))
    {
        measure(row, effort);
    }
    if words.is_empty() || words.iter().any(|word| "idle".contains(word.as_str())) {
        idle(&names, quick);
    }
}

fn measure(row: &Row, effort: Effort) {
    let mut took: Vec<Vec<f64>> = row.sides.iter().map(|_| Vec::new()).collect();
    // The first round warms up.
    for round in 0..=effort.rounds {
        for at in 0..row.sides.len() {
            // Nobody is always first.
            let at = (at + round) % row.sides.len();
            let time = row.sides[at].1();
            if round > 0 {
                took[at].push(time);
            }
        }
    }
    took.iter_mut().for_each(|times| times.sort_by(f64::total_cmp));
    let ours = at(&took[0], 0.5);
    let cells: Vec<String> = took
        .iter()
        .enumerate()
        .map(|(i, times)| {
            let ratio = if i == 0 { String::new() } else { format!(" [{:.2}]", at(times, 0.5) / ours) };
            format!("{:.0} ({:.0}-{:.0}){ratio}", at(times, 0.5), at(times, 0.1), at(times, 0.9))
        })
        .collect();
    let executor =
        took.get(1..3).into_iter().flatten().map(|times| at(times, 0.5)).fold(f64::INFINITY, f64::min);
    let tokio = at(&took[4], 0.5);
    let reached = executor / ours >= row.goal && tokio / ours >= 0.98;
    let verdict = if reached { "reached" } else { "**missed**" };
    println!(
        "| `{}`: {} ({}) | {} | {} {verdict} |",
        row.name,
        row.says,
        row.unit,
        cells.join(" | "),
        row.goal
    );
}

fn at(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}

/// What this process has used of its CPUs.
pub fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Each in a process of its own, one after the other: what it uses while it has nothing to do.
fn idle(names: &[&str], quick: bool) {
    let rounds = if quick { 1 } else { 3 };
    let program = std::env::current_exe().expect("this program is somewhere");
    let cells: Vec<String> = names
        .iter()
        .map(|who| {
            let mut used: Vec<f64> = (0..rounds)
                .map(|_| {
                    let output = std::process::Command::new(&program)
                        .args(["--idle", who])
                        .output()
                        .expect("it runs again");
                    String::from_utf8_lossy(&output.stdout).trim().parse().expect("it prints a number")
                })
                .collect();
            used.sort_by(f64::total_cmp);
            format!("{:.4}", at(&used, 0.5))
        })
        .collect();
    println!(
        "| `idle`: milliseconds of CPU in a second without work, after work | {} | under 0.05 |",
        cells.join(" | ")
    );
}

fn idle_here(who: &str) -> f64 {
    fn of<P: Peer>(peer: P) -> f64 {
        // Woken once, timers and all, and then left alone until it has calmed down.
        peer.block_on({
            let peer = peer.clone();
            async move {
                for _ in 0..10 {
                    peer.sleep(Duration::from_millis(1)).await;
                    peer.spawn(async {}).await;
                }
            }
        });
        std::thread::sleep(Duration::from_millis(500));
        let (before, second) = (cpu(), Duration::from_secs(2));
        std::thread::sleep(second);
        (cpu() - before).as_secs_f64() * 1e3 / second.as_secs_f64()
    }
    match who {
        "ours" => of(Ours::new()),
        "async-executor" => of(Shared::new()),
        "static" => of(Static::new()),
        "smol" => of(Smol::new()),
        "tokio" => of(Tokio::new()),
        _ => of(Bastion::new()),
    }
}
