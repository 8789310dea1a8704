//! What a million timers cost: a place each in one heap, and one future for all of them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use backplane::runtime::Smol;
use backplane_actor::Timers;

const TIMERS: u64 = 1_000_000;

fn each(since: Instant, of: u64) -> u128 {
    since.elapsed().as_nanos() / u128::from(of)
}

fn main() {
    let timers = Timers::new(Smol::global());
    let fired = Arc::new(AtomicU64::new(0));

    let begin = Instant::now();
    let set: Vec<_> = (0..TIMERS)
        .map(|number| {
            let fired = Arc::clone(&fired);
            let delay = Duration::from_micros(number.wrapping_mul(7919) % 100_000);
            timers.after(delay, move || {
                fired.fetch_add(1, Ordering::Relaxed);
            })
        })
        .collect();
    println!("set:       {:>4} ns each", each(begin, TIMERS));

    let begin = Instant::now();
    let cancelled = set.iter().step_by(2).filter(|timer| timers.cancel(**timer).is_some()).count() as u64;
    println!("cancelled: {:>4} ns each", each(begin, cancelled));

    // All of them are due by now, or soon.
    let (run, begin) = (timers.run(), Instant::now());
    drop(timers);
    smol::block_on(run);
    println!("fired:     {:>4} ns each", each(begin, TIMERS - cancelled));
    assert_eq!(fired.load(Ordering::Relaxed), TIMERS - cancelled);
}
