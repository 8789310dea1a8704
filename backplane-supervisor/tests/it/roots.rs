//! A tree from `main` to its end.

use crate::support::virtual_time::World;
use crate::{How, Log, SECOND};
use backplane::Exit;
use backplane_supervisor::{Intensity, RestartStrategy, Root, RootEnd, Shutdown, Supervisor};
use std::sync::{Arc, Mutex};

/// Runs a root whose signals come at these moments, in seconds, while `script` goes on.
fn run(world: &World, tree: Supervisor, signals: &[u32], script: impl FnOnce()) -> RootEnd {
    let begin = backplane::Runtime::now(world);
    let mut signals: Vec<_> = signals.iter().rev().map(|second| begin + *second * SECOND).collect();
    let clock = world.clone();
    let root = Root::new(tree).drain_within(10 * SECOND);
    let end = Arc::new(Mutex::new(None));
    let (place, runtime) = (Arc::clone(&end), world.clone());
    let task = world.spawned(move |_| async move {
        let ended = root
            .run_with(runtime, move || {
                let clock = clock.clone();
                while signals.last().is_some_and(|at| *at <= backplane::Runtime::now(&clock)) {
                    signals.pop();
                }
                let at = signals.last().copied();
                async move {
                    match at {
                        Some(at) => backplane::Runtime::sleep_until(&clock, at).await,
                        None => std::future::pending().await,
                    }
                }
            })
            .await;
        *place.lock().unwrap() = Some(ended);
    });
    world.run();
    script();
    world.settle();
    drop(task);
    world.settle();
    assert_eq!(world.tasks(), 0);
    end.lock().unwrap().take().expect("it has ended")
}

#[test]
fn the_first_signal_drains_the_tree_in_order() {
    let (world, log) = (World::new(), Log::default());
    let tree = Supervisor::new(RestartStrategy::OneForOne).child(log.child("a")).child(log.child("b"));
    let end = run(&world, tree, &[5], || {});
    assert!(matches!(&end, RootEnd::Drained(stopped) if stopped.killed.is_empty()));
    assert_eq!((log.take().as_str(), end.exit_code()), ("+a +b -b -a", 0));
}

#[test]
fn the_second_signal_drops_what_is_left() {
    let (world, log) = (World::new(), Log::default());
    let mule = log.stubborn_child("mule").shutdown(Shutdown::Infinity);
    let end = run(
        &world,
        Supervisor::new(RestartStrategy::OneForOne).child(log.child("a")).child(mule),
        &[5, 7],
        || {},
    );
    assert_eq!((&end, end.exit_code()), (&RootEnd::Aborted, 130));
}

#[test]
fn a_drain_has_a_deadline() {
    let (world, log) = (World::new(), Log::default());
    let mule = log.stubborn_child("mule").shutdown(Shutdown::Infinity);
    let end = run(&world, Supervisor::new(RestartStrategy::OneForOne).child(mule), &[5], || {});
    assert_eq!((&end, end.exit_code()), (&RootEnd::TooSlow, 124));
}

#[test]
fn a_tree_that_gives_up_or_cannot_start_says_so_to_the_shell() {
    let (world, log) = (World::new(), Log::default());
    let tree =
        Supervisor::new(RestartStrategy::OneForOne).intensity(Intensity { restarts: 0, period: SECOND });
    let end = run(&world, tree.child(log.child("a")), &[], || log.end("a", How::Err));
    assert_eq!((&end, end.exit_code()), (&RootEnd::GaveUp, 1));
    let twice = Supervisor::new(RestartStrategy::OneForOne).child(log.child("a")).child(log.child("a"));
    let end = run(&world, twice, &[], || {});
    assert!(matches!(end, RootEnd::FailedToStart(_)));
    assert_eq!(RootEnd::Ended(Exit::Normal).exit_code(), 0);
}

#[test]
fn a_signal_during_a_slow_start_is_obeyed_after_it() {
    let (world, log) = (World::new(), Log::default());
    let tree = Supervisor::new(RestartStrategy::OneForOne).child(log.child("a")).child(log.slow_child(
        &world,
        "slow",
        8 * SECOND,
    ));
    let end = run(&world, tree, &[3], || {});
    assert!(matches!(end, RootEnd::Drained(_)));
    assert_eq!(log.take(), "+a +slow -slow -a");
}
