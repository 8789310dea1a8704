//! Every row of the table that is timed: its name, what it says, and its sides.

use std::time::{Duration, Instant};

use crate::contest::{Effort, Goal, Side};
use crate::tasks::{self, Flavor};
use crate::{floors, links, managed, mesh};

/// Makes the sides of a row, for so much effort.
pub type MakeSides = Box<dyn Fn(&Effort) -> Vec<Side>>;

/// One row: a name to ask for it by, a sentence, and how to make its sides. The first side is ours.
pub struct Row {
    /// As `--only` knows it.
    pub name: String,
    /// One operation, in words.
    pub says: &'static str,
    /// Makes the sides, when the row is run.
    pub sides: MakeSides,
}

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Row").field("name", &self.name).finish_non_exhaustive()
    }
}

const PEER: &str = "async-backplane";

fn faster(least: f64) -> Goal {
    Goal::Faster { least, prototype: least }
}

fn row(name: impl Into<String>, says: &'static str, sides: impl Fn(&Effort) -> Vec<Side> + 'static) -> Row {
    Row { name: name.into(), says, sides: Box::new(sides) }
}

/// All rows, in the order of the table.
pub fn all() -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, says, ours, theirs, prototype) in links::WORKLOADS {
        rows.push(row(name, says, move |_| {
            let goal = Goal::Faster { least: 5.5, prototype };
            vec![Side::plain("ours", ours), Side::plain(PEER, theirs).goal(goal)]
        }));
    }

    for (name, says, ours, theirs) in links::BESIDE {
        rows.push(row(name, says, move |_| vec![Side::plain("ours", ours), Side::plain(PEER, theirs)]));
    }

    rows.push(star("star/1_000", "a star of 1,000, its whole life", 1_000, Goal::None));
    rows.push(star("star/100_000", "a star of 100,000, its whole life", 100_000, faster(80.0)));
    rows.push(star("star/1_000_000", "a star of 1,000,000, its whole life", 1_000_000, Goal::None));
    rows.push(row("ring/1_000", "a fault goes once round 1,000 managed futures", |_| {
        vec![many("ours", || mesh::ours::ring(1_000)), many(PEER, || mesh::theirs::ring(1_000))]
    }));
    rows.push(row("mesh/1_000", "1,000 devices, 499,500 peer links, built and taken down", |_| {
        vec![many("ours", || mesh::ours::mesh(1_000)), many(PEER, || mesh::theirs::mesh(1_000))]
    }));
    rows.push(row("clients", "a short-lived client monitors a long-lived device", |_| {
        // The end of the long-lived device is not timed: it comes once, and the peer's costs the square of its clients.
        let ours = Side::timed("ours", |times| {
            let server = backplane::Device::new();
            timed(|| mesh::ours::serve(&server, times))
        });
        let theirs = Side::timed(PEER, |times| {
            let server = async_backplane::Device::new();
            timed(|| mesh::theirs::serve(&server, times))
        });
        vec![ours, theirs]
    }));

    rows.push(row("manage/poll", "a poll inside manage, nothing told", |_| {
        vec![
            Side::plain("ours", managed::ours::polls),
            Side::plain(PEER, managed::theirs::polls),
            Side::plain("no manage at all", managed::bare_polls),
        ]
    }));
    rows.push(row("manage/life", "a device manages a future that is ready at once", |_| {
        vec![Side::plain("ours", managed::ours::lives), Side::plain(PEER, managed::theirs::lives)]
    }));

    rows.push(row("task/current_thread", "a monitored task: spawn, finish, be told; one thread", |_| {
        tasks::sides(Flavor::CurrentThread)
    }));
    rows.push(row("task/two_threads", "a monitored task: spawn, finish, be told; two threads", |_| {
        tasks::sides(Flavor::TwoThreads)
    }));
    rows.push(row("tasks/current_thread", "1,000 monitored tasks at once; one thread", |_| {
        tasks::sides_at_once(Flavor::CurrentThread)
    }));
    rows.push(row("tasks/two_threads", "1,000 monitored tasks at once; two threads", |_| {
        tasks::sides_at_once(Flavor::TwoThreads)
    }));

    rows.push(row("floor/mutex", "std's mutex, free, locked and unlocked", |_| {
        vec![Side::plain("ours", floors::mutex)]
    }));
    rows.push(row("floor/allocation", "128 bytes allocated and freed", |_| {
        vec![Side::plain("ours", floors::allocation)]
    }));
    rows
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// A side whose one operation is large, and takes no count.
fn many(who: &'static str, whole: impl Fn() + 'static) -> Side {
    Side::plain(who, move |times| (0..times).for_each(|_| whole()))
}

/// The peer's star costs the square of its leaves, so its large ones run only where there is patience for them.
fn star(name: &'static str, says: &'static str, leaves: usize, goal: Goal) -> Row {
    row(name, says, move |effort| {
        let patience = if effort.long {
            usize::MAX
        } else if effort.quick {
            1_000
        } else {
            100_000
        };
        let mut sides = vec![many("ours", move || mesh::ours::star(leaves))];
        if leaves <= patience {
            sides.push(many(PEER, move || mesh::theirs::star(leaves)).goal(goal));
        }
        sides
    })
}
