//! A million random ends.

use crate::support::virtual_time::World;
use crate::{SECOND, quiet};
use backplane::{Device, Exit, Line, Message};
use backplane_supervisor::{
    AutoShutdown, Backoff, ChildSpec, DynamicHandle, DynamicSupervisor, Intensity, Restart, RestartStrategy,
    Shutdown, Starting, Supervisor,
};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

/// In a debug build a taste of it.
const ENDS: usize = if cfg!(debug_assertions) { 20_000 } else { 1_000_000 };

struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }
}

#[derive(Default)]
struct Field {
    /// Running workers: how to end each.
    strings: Mutex<Vec<Arc<String_>>>,
    lines: Mutex<Vec<Line>>,
    held: AtomicUsize,
    started: AtomicUsize,
    pools: Mutex<Vec<DynamicHandle<u64>>>,
}

#[derive(Default)]
struct String_ {
    pulled: Mutex<(Option<u64>, Option<Waker>)>,
}

/// Counts what incarnations hold.
struct Held(Arc<Field>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A worker that ends when its string is pulled: well, badly, or with a panic; some do not stop when asked.
async fn work(field: Arc<Field>, mut device: Device, starting: Option<Starting>, nature: u64) {
    field.held.fetch_add(1, Ordering::SeqCst);
    let held = Held(Arc::clone(&field));
    field.lines.lock().unwrap().push(device.line());
    let begun = field.started.fetch_add(1, Ordering::SeqCst);
    if let Some(starting) = starting {
        if (begun as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32 & 255 == 7 {
            return starting.fail("unlucky");
        }
        if begun % 301 == 300 {
            starting.ignore();
            return device.disconnect(Exit::Normal);
        }
        drop(starting.done());
    }
    let string = Arc::new(String_::default());
    field.strings.lock().unwrap().push(Arc::clone(&string));
    let pulled = async move {
        let _held = held;
        let how = std::future::poll_fn(|cx| {
            let mut pulled = string.pulled.lock().unwrap();
            match pulled.0.take() {
                Some(how) => Poll::Ready(how),
                None => {
                    pulled.1 = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await;
        match how {
            0 => Ok(()),
            1 => panic!("it panicked"),
            _ => Err("bad luck"),
        }
    };
    if nature % 11 == 10 {
        // Takes no notice of requests; hears of its supervisor's end.
        let mut pulled = std::pin::pin!(pulled);
        loop {
            match device.watch(pulled.as_mut()).await {
                backplane::Watched::Message(Message::Shutdown(_)) => {}
                backplane::Watched::Message(Message::Disconnect(_)) => return,
                backplane::Watched::Value(Ok(())) => return device.disconnect(Exit::Normal),
                _ => return,
            }
        }
    }
    drop(device.manage(pulled).await);
}

fn restart(nature: u64) -> Restart {
    match nature % 5 {
        0..=2 => Restart::Permanent,
        3 => Restart::Transient,
        _ => Restart::Temporary,
    }
}

fn tree(field: &Arc<Field>, random: &mut Random, depth: u32) -> Supervisor {
    let strategy = match random.next(3) {
        0 => RestartStrategy::OneForOne,
        1 => RestartStrategy::OneForAll,
        _ => RestartStrategy::RestForOne,
    };
    let restarts = if depth == 0 { 3_000 } else { random.next(5) as u32 };
    let mut plan = Supervisor::new(strategy).intensity(Intensity { restarts, period: SECOND });
    let auto = random.next(4) == 0 && depth > 0;
    if auto {
        plan = plan.auto_shutdown(AutoShutdown::AnySignificant);
    }
    for n in 0..2 + random.next(4) {
        let nature = random.next(1 << 20);
        let field = Arc::clone(field);
        let id = format!("c{n}");
        let child = match random.next(if depth < 3 { 6 } else { 3 }) {
            0 => ChildSpec::new(id, move |device| work(Arc::clone(&field), device, None, nature)),
            1 | 2 => ChildSpec::starting(id, move |device, starting| {
                work(Arc::clone(&field), device, Some(starting), nature)
            }),
            3 => ChildSpec::supervisor(id, move || pool(&field, nature)),
            _ => {
                let seed = random.next(u64::MAX);
                ChildSpec::supervisor(id, move || tree(&field, &mut Random(seed), depth + 1))
            }
        };
        let child = child.restart(if depth == 0 { Restart::Permanent } else { restart(nature) });
        let child = if nature % 11 == 10 { child.shutdown(Shutdown::Timeout(SECOND)) } else { child };
        let child = if nature.is_multiple_of(7) {
            child.backoff(Backoff::linear(SECOND / 10).cap(SECOND))
        } else {
            child
        };
        let significant = auto && restart(nature) != Restart::Permanent && random.next(2) == 0;
        plan = plan.child(if significant { child.significant() } else { child });
    }
    plan
}

fn pool(field: &Arc<Field>, nature: u64) -> DynamicSupervisor<u64> {
    let (workers, greeter) = (Arc::clone(field), Arc::clone(field));
    DynamicSupervisor::starting(move |device, starting, nature: u64| {
        work(Arc::clone(&workers), device, Some(starting), nature)
    })
    .restart(restart(nature))
    .shutdown(Shutdown::Timeout(SECOND))
    .intensity(Intensity { restarts: 3, period: SECOND })
    .greet(move |handle| {
        greeter.pools.lock().unwrap().push(handle.clone());
        for n in 0..3 {
            drop(handle.start_child(nature + n));
        }
    })
}

#[test]
fn a_million_random_ends_on_random_trees_leak_nothing() {
    quiet();
    let mut seed = 0;
    let mut ends = 0;
    while ends < ENDS {
        seed += 1;
        ends += one_tree(seed, (ENDS - ends).min(ENDS / 50));
    }
    assert!(seed > 10, "{seed} trees");
}

fn one_tree(seed: u64, most: usize) -> usize {
    let world = World::seeded(seed);
    let mut random = Random(seed);
    let field = Arc::new(Field::default());
    let plan = tree(&field, &mut random, 0);
    // Where nobody listens restarts go another way; both are gone, and changed over from one to the other.
    let plan = if seed.is_multiple_of(3) { plan.listen(|_| {}) } else { plan };
    let mut reports = None;
    let starting = world.ask(plan.start(world.clone()));
    world.settle();
    // An unlucky child in the initial list is reason enough not to start; then there is nothing to see.
    let mut ends = 0;
    let started = starting.lock().unwrap().take().unwrap();
    if let Ok(handle) = started {
        let mut idle = 0;
        while ends < most && idle < 50 {
            let string = {
                let mut strings = field.strings.lock().unwrap();
                let len = strings.len() as u64;
                if len == 0 { None } else { Some(strings.swap_remove(random.next(len) as usize)) }
            };
            match string {
                Some(string) => {
                    let waker = {
                        let mut pulled = string.pulled.lock().unwrap();
                        pulled.0 = Some(random.next(6));
                        pulled.1.take()
                    };
                    // A string without a waker belongs to one that has ended already.
                    ends += usize::from(Arc::strong_count(&string) > 1);
                    waker.into_iter().for_each(Waker::wake);
                }
                None => {
                    idle += 1;
                    let pools = field.pools.lock().unwrap();
                    pools.iter().for_each(|pool| drop(pool.start_child(0)));
                }
            }
            match random.next(8) {
                0 => world.advance(SECOND / 10),
                1 => world.settle(),
                2 => drop(handle.snapshot()),
                4 if random.next(20) == 0 => reports = (seed % 3 == 1).then(|| handle.reports(4)),
                5 if random.next(20) == 0 => reports = None,
                3 => {
                    field.pools.lock().unwrap().retain(|pool| pool.line().is_alive());
                    let pools = field.pools.lock().unwrap();
                    if let Some(pool) = pools.first() {
                        drop(pool.start_child(random.next(100)));
                    }
                }
                _ => {
                    world.step();
                }
            }
            if !handle.line().is_alive() {
                break;
            }
        }
        drop(reports);
        world.settle();
        drop(world.ask(handle.stop(Exit::Shutdown)));
        world.settle();
        assert!(!handle.line().is_alive());
    }
    field.pools.lock().unwrap().clear();
    assert_eq!(world.tasks(), 0, "tree {seed}: no task is left");
    assert_eq!(field.held.load(Ordering::SeqCst), 0, "tree {seed}: nothing is held");
    assert!(
        field.lines.lock().unwrap().iter().all(|line| !line.is_alive()),
        "tree {seed}: no device is left"
    );
    assert_eq!(Arc::strong_count(&field), 1, "tree {seed}: no start function is left");
    ends.max(1)
}
