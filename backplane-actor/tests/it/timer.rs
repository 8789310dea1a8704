//! Timers, on a clock that the test turns. What begins with `s` and a number is that statement of OTP's.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{Arc, Mutex},
    task::{Context, Waker},
    time::Duration,
};

use backplane::Runtime;
use backplane_actor::{Address, Mailbox, Options, Registry, System, TimerId, Timers};

use crate::{
    random::Random,
    world::{Angry, Count, World, poll},
};

const SECOND: Duration = Duration::from_secs(1);

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u64>>>);

impl Log {
    fn note(&self, what: u64) -> impl FnOnce() + Send + 'static {
        let log = self.clone();
        move || log.0.lock().unwrap().push(what)
    }

    fn take(&self) -> Vec<u64> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

fn running() -> (World, Timers<World>, Log) {
    let world = World::new();
    let timers = Timers::new(world.clone());
    world.go(timers.run());
    world.run();
    (world, timers, Log::default())
}

#[test]
fn s39_t2_a_timer_that_is_cancelled_in_time_never_fires() {
    let (world, timers, log) = running();
    let timer = timers.after(5 * SECOND, log.note(1));
    world.advance(2 * SECOND);
    assert_eq!(timers.time_left(timer), Some(3 * SECOND));
    assert_eq!(timers.cancel(timer), Some(3 * SECOND));
    assert_eq!((timers.cancel(timer), timers.time_left(timer)), (None, None));
    world.advance(10 * SECOND);
    assert_eq!(log.take(), []);
}

#[test]
fn s39_t1_a_timer_that_has_fired_cannot_be_cancelled() {
    let (world, timers, log) = running();
    let timer = timers.after(5 * SECOND, log.note(1));
    world.advance(5 * SECOND);
    assert_eq!((timers.cancel(timer), timers.time_left(timer)), (None, None));
    assert_eq!(log.take(), [1]);
    // Nor is it confused with the one that has its place now.
    let other = timers.after(SECOND, log.note(2));
    assert_eq!(timers.cancel(timer), None);
    assert_eq!(timers.cancel(other), Some(SECOND));
}

#[test]
fn s39_t5_a_timer_outlives_whoever_set_it() {
    let (world, timers, log) = running();
    timers.after(SECOND, log.note(1));
    drop(timers);
    world.advance(SECOND);
    assert_eq!(log.take(), [1]);
    assert_eq!(world.alarms(), 0);
}

#[test]
fn timers_fire_in_the_order_of_their_moments_and_then_in_that_of_setting() {
    let (world, timers, log) = running();
    for (what, seconds) in [(1, 3), (2, 1), (3, 3), (4, 2), (5, 1), (6, 0)] {
        timers.after(seconds * SECOND, log.note(what));
    }
    world.advance(3 * SECOND);
    assert_eq!(log.take(), [6, 2, 5, 4, 1, 3]);
    assert!(timers.is_empty());
}

#[test]
fn an_earlier_deadline_wakes_the_future_and_a_later_one_does_not() {
    let world = World::new();
    let timers = Timers::new(world.clone());
    let mut run = pin!(timers.run());
    let count = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&count));
    let cx = &mut Context::from_waker(&waker);
    assert!(run.as_mut().poll(cx).is_pending());
    timers.after(5 * SECOND, || ());
    assert_eq!(count.get(), 1);
    assert!(run.as_mut().poll(cx).is_pending());
    timers.after(6 * SECOND, || ());
    assert_eq!(count.get(), 1);
    timers.after(4 * SECOND, || ());
    assert_eq!(count.get(), 2);
}

#[test]
fn the_waker_of_the_future_harms_nobody_who_sets_a_timer_or_runs_the_next_one() {
    let world = World::new();
    let timers = Timers::new(world.clone());
    let angry = Waker::from(Arc::new(Angry));
    let mut run = pin!(timers.run());
    assert!(run.as_mut().poll(&mut Context::from_waker(&angry)).is_pending());
    timers.after(5 * SECOND, || ());
    assert!(run.as_mut().poll(&mut Context::from_waker(&angry)).is_pending());
    let mut next = pin!(timers.run());
    assert!(next.as_mut().poll(&mut Context::from_waker(&angry)).is_pending());
    drop(timers);
}

#[test]
fn a_moment_that_is_past_is_now_and_one_beyond_the_clock_is_never() {
    let (world, timers, log) = running();
    timers.at(world.now().checked_sub(SECOND).unwrap_or(world.now()), log.note(1));
    let never = timers.after(Duration::MAX, log.note(2));
    world.advance(SECOND);
    assert_eq!(log.take(), [1]);
    assert!(timers.cancel(never).is_some_and(|left| left > 1_000_000 * SECOND));
}

#[test]
fn an_interval_does_not_drift_and_says_what_it_missed() {
    let (world, timers, _) = running();
    let begin = world.now();
    let ticks = Arc::new(Mutex::new(Vec::new()));
    let task = {
        let ticks = Arc::clone(&ticks);
        timers.every(SECOND, move |tick| {
            ticks.lock().unwrap().push((tick.due.duration_since(begin).as_millis(), tick.missed));
            ControlFlow::Continue(())
        })
    };
    world.advance(2 * SECOND);
    assert_eq!(*ticks.lock().unwrap(), [(1000, 0), (2000, 0)]);
    ticks.lock().unwrap().clear();

    // Nobody runs them for a while.
    let mut other = Box::pin(timers.run());
    assert!(poll(other.as_mut()).is_pending());
    drop(other);
    world.advance(Duration::from_millis(3_300));
    assert_eq!(*ticks.lock().unwrap(), []);
    world.go(timers.run());
    world.advance(Duration::from_millis(1_000));
    assert_eq!(*ticks.lock().unwrap(), [(5000, 2), (6000, 0)]);
    assert_eq!(timers.time_left(task), Some(Duration::from_millis(700)));
    assert_eq!(timers.cancel(task), Some(Duration::from_millis(700)));
    world.advance(5 * SECOND);
    assert_eq!(ticks.lock().unwrap().len(), 2);
}

#[test]
fn an_interval_ends_when_it_says_so_or_is_cancelled_in_the_middle_of_a_tick() {
    let (world, timers, log) = running();
    let mut left = 3;
    let count = log.clone();
    timers.every(SECOND, move |_| {
        count.note(left)();
        left -= 1;
        if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    world.advance(10 * SECOND);
    assert_eq!(log.take(), [3, 2, 1]);

    let own: Arc<Mutex<Option<TimerId>>> = Arc::default();
    let timer = {
        let (timers, own, log) = (timers.clone(), Arc::clone(&own), log.clone());
        timers.clone().every(SECOND, move |_| {
            log.note(9)();
            let me = own.lock().unwrap().unwrap();
            assert_eq!((timers.cancel(me), timers.cancel(me)), (Some(SECOND), None));
            ControlFlow::Continue(())
        })
    };
    *own.lock().unwrap() = Some(timer);
    world.advance(10 * SECOND);
    assert_eq!(log.take(), [9]);
    assert!(timers.is_empty());
}

#[test]
fn a_timer_may_set_and_cancel_others() {
    let (world, timers, log) = running();
    let victim = timers.after(SECOND, log.note(1));
    let early = {
        let (timers, log) = (timers.clone(), log.clone());
        move || {
            assert!(timers.cancel(victim).is_some());
            timers.after(Duration::ZERO, log.note(2));
        }
    };
    timers.after(SECOND / 2, early);
    world.advance(SECOND);
    assert_eq!(log.take(), [2]);
}

#[test]
fn a_timer_that_panics_takes_no_other_along() {
    let world = World::new();
    let timers = Timers::new(world.clone());
    let log = Log::default();
    timers.after(SECOND, || panic!("odd timer"));
    timers.after(SECOND, log.note(1));
    world.advance(SECOND);
    let mut run = pin!(timers.run());
    assert!(catch_unwind(AssertUnwindSafe(|| poll(run.as_mut()))).is_err());
    assert_eq!(log.take(), []);
    // As a supervisor would.
    world.go(timers.run());
    world.run();
    assert_eq!(log.take(), [1]);
    assert!(timers.is_empty());
}

#[test]
fn of_two_that_run_the_later_one_goes_on_alone() {
    let world = World::new();
    let timers = Timers::new(world.clone());
    let log = Log::default();
    let (mut first, mut second) = (pin!(timers.run()), pin!(timers.run()));
    let count = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&count));
    assert!(first.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    assert!(poll(second.as_mut()).is_pending());
    assert_eq!(count.get(), 1);
    assert!(poll(first.as_mut()).is_ready());
    timers.after(Duration::ZERO, log.note(1));
    assert!(poll(second.as_mut()).is_pending());
    assert_eq!(log.take(), [1]);
}

#[test]
fn running_ends_when_nobody_can_set_a_timer_any_more_and_none_waits() {
    let world = World::new();
    let timers = Timers::new(world.clone());
    let mut run = pin!(timers.run());
    let other = timers.clone();
    timers.after(SECOND, || ());
    drop(timers);
    assert!(poll(run.as_mut()).is_pending());
    drop(other);
    assert!(poll(run.as_mut()).is_pending());
    world.advance(SECOND);
    assert!(poll(run.as_mut()).is_ready());
}

#[test]
fn a_million_timers_are_one_alarm_and_others_get_their_turn() {
    let (world, timers, log) = running();
    let fired = Arc::new(Count::default());
    for number in 0..1_000_000_u64 {
        let fired = Arc::clone(&fired);
        let delay = Duration::from_millis(1_000 + number.wrapping_mul(7919) % 1000);
        timers.after(delay, move || std::task::Wake::wake(fired));
    }
    world.run();
    assert_eq!((timers.len(), world.alarms()), (1_000_000, 1));
    timers.after(Duration::ZERO, log.note(1));
    world.run();
    assert_eq!(log.take(), [1]);
    world.advance(2 * SECOND);
    assert_eq!((fired.get(), timers.len(), world.alarms()), (1_000_000, 0, 0));
}

/// Against a sorted map: the same ones fire, in the same order, whatever is cancelled.
#[test]
fn timers_are_a_sorted_map_of_moments() {
    for seed in 0..200 {
        let mut random = Random(seed);
        let (world, timers, log) = running();
        let begin = world.now();
        let mut model: BTreeMap<(u64, u64), TimerId> = BTreeMap::new();
        for number in 0..300 {
            let here = world.now().duration_since(begin).as_millis() as u64;
            match random.below(4) {
                0 | 1 => {
                    let delay = random.below(50);
                    let timer = timers.after(Duration::from_millis(delay), log.note(number));
                    model.insert((here + delay, number), timer);
                }
                2 => {
                    let place = random.below(model.len().max(1) as u64) as usize;
                    if let Some((&key, &timer)) = model.iter().nth(place) {
                        model.remove(&key);
                        assert_eq!(
                            timers.cancel(timer),
                            Some(Duration::from_millis(key.0 - here)),
                            "seed {seed}"
                        );
                    }
                }
                _ => {
                    let step = random.below(30);
                    world.advance(Duration::from_millis(step));
                    let later = model.split_off(&(here + step + 1, 0));
                    let due: Vec<u64> = model.keys().map(|(_, number)| *number).collect();
                    model = later;
                    assert_eq!(log.take(), due, "seed {seed}");
                }
            }
            world.run();
            let here = world.now().duration_since(begin).as_millis() as u64;
            // Those with no delay have fired.
            let later = model.split_off(&(here + 1, 0));
            assert_eq!(
                log.take(),
                model.keys().map(|(_, number)| *number).collect::<Vec<_>>(),
                "seed {seed}"
            );
            model = later;
            assert_eq!(timers.len(), model.len(), "seed {seed}");
        }
    }
}

fn listener(world: &World, log: &Log) -> Address<u64> {
    let (system, log) = (System::new(world.clone()), log.clone());
    system.spawn_with(Options::new().capacity(1), move |mut mailbox: Mailbox<u64>| async move {
        while let Some(number) = mailbox.receive().await {
            log.note(number)();
        }
    })
}

#[test]
fn s39_t3_a_message_may_carry_the_timer_that_sent_it() {
    let (world, timers, _) = running();
    let log = Arc::new(Mutex::new(Vec::new()));
    let (system, heard) = (System::new(world.clone()), Arc::clone(&log));
    let to = system.spawn(|mut mailbox: Mailbox<TimerId>| async move {
        while let Some(timer) = mailbox.receive().await {
            heard.lock().unwrap().push(timer);
        }
    });
    let first = timers.send_after_with(&to, SECOND, |timer| timer);
    let second = timers.send_after_with(&to, SECOND, |timer| timer);
    assert!(timers.cancel(first).is_some());
    let third = timers.send_after_with(&to, 2 * SECOND, |timer| timer);
    world.advance(2 * SECOND);
    assert_eq!(*log.lock().unwrap(), [second, third]);
    assert!(first != second && second != third && first != third);
}

#[test]
fn s39_t4_a_timer_to_whoever_has_ended_does_no_harm_and_an_interval_ends_with_it() {
    let (world, timers, log) = running();
    let to = listener(&world, &log);
    timers.send_after(&to, SECOND, 7);
    timers.send_interval(&to, SECOND, |tick| tick.missed);
    world.advance(2 * SECOND);
    assert_eq!(log.take(), [7, 0, 0]);
    timers.send_after(&to, SECOND, 8);
    to.kill();
    world.advance(5 * SECOND);
    assert_eq!(log.take(), []);
    assert!(timers.is_empty());
}

#[test]
fn a_timer_passes_a_mailbox_that_is_full() {
    let (world, timers, log) = running();
    let to = listener(&world, &log);
    to.suspend();
    to.try_cast(1).unwrap();
    assert!(to.try_cast(2).is_err());
    timers.send_after(&to, SECOND, 3);
    timers.send_after(&to, SECOND, 4);
    world.advance(SECOND);
    to.resume();
    world.run();
    let mut all = log.take();
    all.sort_unstable();
    assert_eq!(all, [1, 3, 4]);
}

#[test]
fn s39_t6_a_timer_to_a_name_looks_the_name_up_when_it_fires() {
    let (world, timers, log) = running();
    let names = Registry::new();
    let (first, second) = (listener(&world, &Log::default()), listener(&world, &log));
    names.register_actor("name", &first).unwrap();
    {
        let names = names.clone();
        timers.after(SECOND, move || {
            let to: Address<u64> = names.lookup("name").unwrap();
            to.try_cast(5).unwrap();
        });
    }
    names.unregister("name");
    names.register_actor("name", &second).unwrap();
    world.advance(SECOND);
    assert_eq!(log.take(), [5]);
}
