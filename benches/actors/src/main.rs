//! Actors against the peers and against raw channels: one process, in turns, medians over rounds.
//!
//! `cargo run --release` runs all; an argument says how many rounds, another which rows. All sides but raw smol run on one
//! tokio runtime with two worker threads; actix brings its own, with a thread for each arbiter. Mailboxes are unbounded, as
//! ractor knows no others, but for the rows that say otherwise.

mod actix_side;
mod hydra_side;
mod kameo_side;
mod ours;
mod ractor_side;
mod raw;

use std::{
    env,
    future::Future,
    pin::Pin,
    time::{Duration, Instant},
};

/// What a side measures: nanoseconds for each of so many.
pub type Measured = Pin<Box<dyn Future<Output = Duration> + Send>>;

/// What measures the bytes of an idle actor.
type Bytes = fn(&tokio::runtime::Runtime) -> f64;

/// One side of one row.
pub struct Side {
    name: &'static str,
    run: Box<dyn Fn(u32) -> Measured>,
}

/// A side that runs on tokio.
pub fn side<F>(name: &'static str, run: impl Fn(u32) -> F + 'static) -> Side
where
    F: Future<Output = Duration> + Send + 'static,
{
    Side { name, run: Box::new(move |n| Box::pin(run(n))) }
}

/// The same on a runtime of one thread, as actix has it within an arbiter.
fn on_one_thread(name: &'static str, of: Side) -> Side {
    side(name, move |n| {
        let run = (of.run)(n);
        async move {
            tokio::task::block_in_place(|| {
                let thread = std::thread::spawn(|| {
                    let tokio = tokio::runtime::Builder::new_current_thread().enable_time().build();
                    let tokio = tokio.expect("a runtime");
                    tokio.block_on(tokio.spawn(run)).expect("it runs to its end")
                });
                thread.join().expect("it measures")
            })
        }
    })
}

struct Row {
    name: &'static str,
    count: u32,
    sides: Vec<Side>,
}

fn rows() -> Vec<Row> {
    vec![
        Row {
            name: "tell 1:1",
            count: 200_000,
            sides: vec![
                ours::tell("ours, process", 1),
                ours::tell_bounded("ours, bounded"),
                ours::tell_handler("ours, handlers"),
                raw::tokio_tell(1),
                raw::smol_tell(1),
                kameo_side::tell(1),
                ractor_side::tell(1),
                actix_side::tell(1),
                hydra_side::tell(1),
            ],
        },
        Row {
            name: "tell 4:1",
            count: 200_000,
            sides: vec![
                ours::tell("ours, process", 4),
                raw::tokio_tell(4),
                raw::smol_tell(4),
                kameo_side::tell(4),
                ractor_side::tell(4),
                actix_side::tell(4),
                hydra_side::tell(4),
            ],
        },
        Row {
            name: "tell 1:16",
            count: 200_000,
            sides: vec![
                ours::tell_many(16),
                raw::tokio_tell_many(16),
                kameo_side::tell_many(16),
                ractor_side::tell_many(16),
                actix_side::tell_many(16),
                hydra_side::tell_many(16),
            ],
        },
        Row {
            name: "call",
            count: 50_000,
            sides: vec![
                ours::call("ours, process", false),
                ours::call("ours, no deadline", true),
                ours::call_handler(),
                raw::tokio_call(),
                raw::smol_call(),
                kameo_side::call(),
                ractor_side::call(),
                actix_side::call(),
                hydra_side::call(),
            ],
        },
        Row {
            name: "spawn and stop",
            count: 20_000,
            sides: vec![
                ours::spawn(),
                ours::spawn_handler(),
                raw::tokio_spawn(),
                raw::smol_spawn(),
                kameo_side::spawn(),
                ractor_side::spawn(),
                on_one_thread("ours, one thread", ours::spawn_handler()),
                actix_side::spawn(),
                hydra_side::spawn(),
            ],
        },
        Row {
            name: "crash to news",
            count: 10_000,
            sides: vec![
                ours::crash(),
                raw::tokio_crash(),
                kameo_side::crash(),
                ractor_side::crash(),
                hydra_side::crash(),
            ],
        },
        Row {
            name: "ring of 100",
            count: 100_000,
            sides: vec![
                ours::ring(100),
                raw::tokio_ring(100),
                kameo_side::ring(100),
                ractor_side::ring(100),
                on_one_thread("ours, one thread", ours::ring(100)),
                actix_side::ring(100),
                hydra_side::ring(100),
            ],
        },
    ]
}

fn median(values: &mut [f64]) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
    (at(0.5), at(0.1), at(0.9))
}

fn main() {
    std::panic::set_hook(Box::new(|_| {}));
    let mut arguments = env::args().skip(1);
    let rounds: usize = arguments.next().and_then(|rounds| rounds.parse().ok()).unwrap_or(9);
    let only: Option<String> = arguments.next();
    let sides: Option<String> = arguments.next();
    let tokio = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .expect("a runtime");
    for mut row in rows() {
        if let Some(sides) = &sides {
            row.sides.retain(|side| sides.split(',').any(|some| side.name.starts_with(some)));
        }
        if row.sides.is_empty() {
            continue;
        }
        if only.as_ref().is_some_and(|only| !row.name.starts_with(only.as_str())) {
            continue;
        }
        let mut measured: Vec<Vec<f64>> = row.sides.iter().map(|_| Vec::new()).collect();
        for round in 0..=rounds {
            for step in 0..row.sides.len() {
                let index = (step + round) % row.sides.len();
                let run = (row.sides[index].run)(row.count);
                let took = tokio.block_on(tokio.spawn(run)).expect("it runs to its end");
                if round > 0 {
                    measured[index].push(took.as_nanos() as f64 / f64::from(row.count));
                }
            }
        }
        println!("{}", row.name);
        let ours = median(&mut measured[0]).0;
        for (side, values) in row.sides.iter().zip(&mut measured) {
            let (mid, low, high) = median(values);
            println!("  {:<22} {mid:>9.1} ns  ({low:.1}..{high:.1})  {:>5.2}", side.name, mid / ours);
        }
    }
    if only.is_none_or(|only| "bytes".starts_with(only.as_str())) {
        println!("bytes of an idle actor");
        let bytes: [(&str, Bytes); 10] = [
            ("ours, process", ours::bytes),
            ("ours, handlers", ours::bytes_handler),
            ("ours on smol, process", ours::bytes_smol),
            ("ours on smol, handlers", ours::bytes_handler_smol),
            ("raw tokio", raw::tokio_bytes),
            ("raw smol", raw::smol_bytes),
            ("kameo", kameo_side::bytes),
            ("ractor", ractor_side::bytes),
            ("actix", actix_side::bytes),
            ("hydra", hydra_side::bytes),
        ];
        for (name, measure) in bytes {
            println!("  {name:<22} {:>9.0} B", measure(&tokio));
        }
    }
}

/// How long it takes.
pub async fn timed<F: Future>(future: F) -> Duration {
    let begin = Instant::now();
    future.await;
    begin.elapsed()
}

/// Heap of so many, each, once they wait. What is in thread-local stores is not seen. They stay until the process ends, so
/// that nobody who comes later finds a place that is free, and paid for by another.
pub fn heap_of<T>(tokio: &tokio::runtime::Runtime, make: impl Fn() -> T) -> f64 {
    const MANY: usize = 1000;
    let mut all: Vec<T> = (0..MANY).map(|_| make()).collect();
    tokio.block_on(async { tokio::time::sleep(Duration::from_millis(100)).await });
    all.reserve(MANY);
    let info = allocation_counter::measure(|| all.extend((0..MANY).map(|_| make())));
    tokio.block_on(async { tokio::time::sleep(Duration::from_millis(100)).await });
    std::mem::forget(all);
    info.bytes_current as f64 / MANY as f64
}
