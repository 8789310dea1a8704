//! Restarts: when, how often, and when it is enough.

use crate::support::virtual_time::World;
use crate::{How, Log, SECOND, quiet, start, stop};
use allocation_counter::measure;
use backplane::{Device, Exit};
use backplane_supervisor::{
    Backoff, Budget, ChildSpec, ChildState, Event, Exceeded, Intensity, Restart, RestartChildError,
    RestartStrategy, RowState, StartChildError, Starting, Supervisor, TerminateChildError,
};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

const MANY: Intensity = Intensity { restarts: 100, period: SECOND };

#[test]
fn an_entry_exactly_one_period_old_still_counts() {
    for (later, goes_on) in [(0, false), (1, true)] {
        let (world, log) = (World::new(), Log::default());
        let intensity = Intensity { restarts: 1, period: 5 * SECOND };
        let tree = Supervisor::new(RestartStrategy::OneForOne).intensity(intensity).child(log.child("a"));
        let handle = start(&world, tree);
        log.end("a", How::Err);
        world.advance(5 * SECOND + std::time::Duration::from_nanos(later));
        log.end("a", How::Err);
        world.settle();
        assert_eq!(handle.line().is_alive(), goes_on);
    }
}

#[test]
fn a_supervisor_that_gives_up_ends_with_shutdown_and_its_parent_counts_it() {
    let (world, log) = (World::new(), Log::default());
    let inner = log.clone();
    let tree = Supervisor::new(RestartStrategy::OneForOne).child(ChildSpec::supervisor("s", move || {
        Supervisor::new(RestartStrategy::OneForOne)
            .intensity(Intensity { restarts: 0, period: SECOND })
            .child(inner.child("x"))
    }));
    let handle = start(&world, tree);
    log.end("x", How::Err);
    world.settle();
    let snapshot = handle.snapshot().unwrap();
    assert_eq!(
        (snapshot.children[0].restarts, snapshot.children[0].last_end.as_deref()),
        (1, Some("shutdown"))
    );
    log.end("x", How::Err);
    world.settle();
    assert!(!handle.line().is_alive(), "the root gives up in turn");
    assert_eq!(world.tasks(), 0);
}

#[test]
fn during_a_backoff_the_supervisor_answers_hears_other_ends_and_obeys_a_stop() {
    let (world, log) = (World::new(), Log::default());
    let tree = Supervisor::new(RestartStrategy::OneForOne)
        .intensity(MANY)
        .child(log.child("a").backoff(Backoff::exponential(10 * SECOND).cap(15 * SECOND)))
        .child(log.child("b"));
    let handle = start(&world, tree);
    log.take();
    log.end("a", How::Err);
    world.run();
    let rows = world.ask(handle.which_children());
    world.run();
    let rows = rows.lock().unwrap().take().unwrap().unwrap();
    assert_eq!((rows[1].id.as_deref(), rows[1].state), (Some("a"), RowState::Restarting));
    log.end("b", How::Err);
    world.run();
    assert_eq!(log.take(), "-a -b +b", "b is back at once, a waits");
    world.advance(9 * SECOND);
    assert_eq!(log.take(), "");
    world.advance(SECOND);
    assert_eq!(log.take(), "+a");
    // The second in a row would wait for twenty, but for the cap.
    log.end("a", How::Err);
    world.advance(14 * SECOND);
    assert_eq!(log.take(), "-a");
    world.advance(SECOND);
    assert_eq!(log.take(), "+a");
    log.end("a", How::Err);
    world.run();
    let stopped = world.ask(handle.stop(Exit::Shutdown));
    world.run();
    assert!(stopped.lock().unwrap().is_some(), "without waiting for the backoff");
}

#[test]
fn a_backoff_of_a_group_ends_the_group_first_and_starts_it_after() {
    let (world, log) = (World::new(), Log::default());
    let tree = Supervisor::new(RestartStrategy::OneForAll)
        .intensity(MANY)
        .child(log.child("a"))
        .child(log.child("b").backoff(Backoff::linear(10 * SECOND)))
        .child(log.child("c"));
    let handle = start(&world, tree);
    log.take();
    log.end("b", How::Err);
    world.advance(9 * SECOND);
    assert_eq!(log.take(), "-b -c -a");
    world.advance(SECOND);
    assert_eq!(log.take(), "+a +b +c");
    stop(&world, &handle);
}

#[test]
fn a_restart_that_waits_for_its_backoff_can_be_called_off() {
    let (world, log) = (World::new(), Log::default());
    let tree = Supervisor::new(RestartStrategy::OneForOne)
        .child(log.child("a").backoff(Backoff::linear(10 * SECOND)));
    let handle = start(&world, tree);
    log.end("a", How::Err);
    world.run();
    let refused = world.ask(handle.restart_child("a"));
    let called_off = world.ask(handle.terminate_child("a"));
    world.run();
    assert_eq!(refused.lock().unwrap().take(), Some(Err(RestartChildError::Restarting)));
    assert_eq!(called_off.lock().unwrap().take(), Some(Ok(())));
    world.advance(60 * SECOND);
    assert_eq!(log.take(), "+a -a");
    assert_eq!(handle.snapshot().unwrap().children[0].state, ChildState::Down);
}

#[test]
fn a_failed_restart_waits_for_its_backoff_too() {
    let (world, log) = (World::new(), Log::default());
    let (attempts, notes) = (Arc::new(Mutex::new(0)), log.clone());
    let flaky = ChildSpec::starting("flaky", move |device, starting: Starting| {
        *attempts.lock().unwrap() += 1;
        let attempt = *attempts.lock().unwrap();
        notes.note(format!("{attempt}"));
        device.manage(async move {
            if attempt > 1 {
                starting.fail("no");
            } else {
                drop(starting.done());
            }
            Err::<(), _>("down")
        })
    })
    .backoff(Backoff::linear(10 * SECOND));
    let tree = Supervisor::new(RestartStrategy::OneForOne)
        .intensity(Intensity { restarts: 3, period: 600 * SECOND })
        .child(flaky);
    let handle = start(&world, tree);
    for (seconds, seen) in [(9, "1"), (1, "2"), (19, ""), (1, "3"), (29, ""), (1, "4"), (39, "")] {
        world.advance(seconds * SECOND);
        assert_eq!(log.take(), seen);
    }
    assert!(handle.line().is_alive());
    world.advance(SECOND);
    assert!(!handle.line().is_alive(), "each try is counted once: the fourth is one too many");
}

#[test]
fn a_failed_restart_is_retried_through_the_inbox_until_it_is_enough() {
    let (world, log) = (World::new(), Log::default());
    let attempts = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&attempts);
    let flaky = ChildSpec::starting("flaky", move |device, starting: Starting| {
        let attempt = {
            let mut attempts = counted.lock().unwrap();
            *attempts += 1;
            *attempts
        };
        device.manage(async move {
            if attempt > 1 {
                starting.fail("no");
                return Err::<(), _>("no");
            }
            drop(starting.done());
            Err("down")
        })
    });
    let tree = Supervisor::new(RestartStrategy::OneForOne)
        .intensity(Intensity { restarts: 3, period: SECOND })
        .child(log.child("a"))
        .child(flaky);
    let handle = start(&world, tree);
    world.settle();
    assert_eq!(*attempts.lock().unwrap(), 1 + 3, "one restart and two retries");
    assert!(!handle.line().is_alive());
    assert_eq!(log.take(), "+a -a");
}

#[test]
fn a_child_that_breaks_its_promise_of_progress_is_killed_and_started_again() {
    let (world, log) = (World::new(), Log::default());
    let (runs, beats) = (log.clone(), world.clone());
    let hung = ChildSpec::starting("hung", move |device, starting: Starting| {
        let (log, world) = (runs.clone(), beats.clone());
        device.manage(async move {
            let _guard = log.hold("hung");
            let pulse = starting.done();
            for _ in 0..5 {
                crate::sleep(&world, 2 * SECOND).await;
                pulse.beat();
            }
            crate::forever().await
        })
    })
    .progress_within(3 * SECOND);
    let seen = log.clone();
    let tree = Supervisor::new(RestartStrategy::OneForOne).child(hung).listen(move |report| {
        if let Event::NoProgress(_) | Event::ChildTerminated(_) = report.event {
            seen.note(format!("({})", report.event));
        }
    });
    let handle = start(&world, tree);
    world.advance(12 * SECOND);
    assert_eq!(log.take(), "+hung", "it keeps its promise for ten seconds");
    world.advance(SECOND);
    assert_eq!(log.take(), "(no progress for 3s, killed) -hung (terminated: killed) +hung");
    stop(&world, &handle);
}

#[test]
fn a_wait_that_was_broken_off_does_not_shorten_the_next() {
    let (world, log) = (World::new(), Log::default());
    let tree = Supervisor::new(RestartStrategy::OneForOne)
        .intensity(MANY)
        .child(log.child("a").backoff(Backoff::exponential(10 * SECOND)));
    let handle = start(&world, tree);
    log.end("a", How::Err);
    world.run();
    world.block_on(handle.terminate_child("a")).unwrap();
    world.block_on(handle.restart_child("a")).unwrap();
    world.advance(SECOND);
    log.take();
    log.end("a", How::Err);
    world.advance(19 * SECOND);
    assert_eq!(log.take(), "-a", "it waits for twenty now");
    world.advance(SECOND);
    assert_eq!(log.take(), "+a");
    stop(&world, &handle);
}

#[test]
fn what_was_promised_by_those_who_have_ended_is_not_kept_in_mind() {
    let world = World::new();
    let child = ChildSpec::starting("a", |device, starting: Starting| {
        device.manage(async move {
            let _pulse = starting.done();
            crate::forever().await
        })
    });
    let tree = Supervisor::new(RestartStrategy::OneForOne)
        .intensity(Intensity { restarts: 1_000, period: SECOND })
        .child(child.progress_within(1_000_000 * SECOND));
    let handle = start(&world, tree);
    let restart = |_| {
        world.kill(world.last_spawned());
        world.advance(SECOND);
    };
    (0..1_000).for_each(restart);
    let kept = measure(|| (0..10_000).for_each(restart)).bytes_current;
    assert_eq!(handle.snapshot().unwrap().children[0].restarts, 11_000);
    assert!(kept < 20_000, "{kept} bytes are kept of 10,000 restarts");
    stop(&world, &handle);
}

#[test]
fn a_child_can_have_a_budget_of_its_own() {
    for exceeded in [Exceeded::LeaveDown, Exceeded::GiveUp] {
        let (world, log) = (World::new(), Log::default());
        let budget = Budget { intensity: Intensity { restarts: 2, period: 60 * SECOND }, exceeded };
        let tree = Supervisor::new(RestartStrategy::OneForOne)
            .intensity(MANY)
            .child(log.child("a").budget(budget))
            .child(log.child("b"));
        let handle = start(&world, tree);
        for _ in 0..3 {
            log.end("a", How::Err);
            log.end("b", How::Err);
            world.settle();
        }
        let alive = handle.line().is_alive();
        assert_eq!(alive, exceeded == Exceeded::LeaveDown);
        if alive {
            let snapshot = handle.snapshot().unwrap();
            assert_eq!(snapshot.children[0].state, ChildState::Down);
            assert_eq!((snapshot.children[1].state, snapshot.children[1].restarts), (ChildState::Running, 3));
        }
    }
}

#[test]
fn replicas_are_many_from_one_spec_and_fail_alone() {
    let (world, log) = (World::new(), Log::default());
    let tree = Supervisor::new(RestartStrategy::OneForOne).children(log.child("w").replicas(3));
    let handle = start(&world, tree);
    assert_eq!(log.take(), "+w +w +w");
    let ids: Vec<String> = handle
        .snapshot()
        .unwrap()
        .children
        .iter()
        .map(|child| child.id.as_ref().unwrap().to_string())
        .collect();
    assert_eq!(ids, ["w-1", "w-2", "w-3"]);
    log.end("w", How::Err);
    world.settle();
    assert_eq!(log.take(), "-w +w");
    stop(&world, &handle);
}

#[test]
fn strategy_and_intensity_can_change_while_it_runs() {
    let (world, log) = (World::new(), Log::default());
    let tree = Supervisor::new(RestartStrategy::OneForOne)
        .intensity(Intensity { restarts: 1, period: 60 * SECOND })
        .child(log.child("a"))
        .child(log.child("b"));
    let handle = start(&world, tree);
    log.end("a", How::Err);
    world.settle();
    assert_eq!(log.take(), "+a +b -a +a");
    world.block_on(handle.set_strategy(RestartStrategy::OneForAll)).unwrap();
    world.block_on(handle.set_intensity(Intensity { restarts: 2, period: 60 * SECOND })).unwrap();
    log.end("a", How::Err);
    world.settle();
    assert_eq!(log.take(), "-a -b +a +b");
    log.end("a", How::Err);
    world.settle();
    assert_eq!(log.take(), "-a -b");
    assert!(!handle.line().is_alive(), "what was noted before counts");
}

#[test]
fn calls_answer_as_otp_answers() {
    let (world, log) = (World::new(), Log::default());
    let handle = start(&world, Supervisor::new(RestartStrategy::OneForOne).child(log.child("a")));
    let line = world.block_on(handle.start_child(log.child("b"))).unwrap().unwrap();
    assert_eq!(
        world.block_on(handle.start_child(log.child("b"))),
        Err(StartChildError::AlreadyStarted(line))
    );
    assert_eq!(world.block_on(handle.restart_child("b")), Err(RestartChildError::Running));
    assert_eq!(world.block_on(handle.terminate_child("b")), Ok(()));
    assert_eq!(world.block_on(handle.terminate_child("b")), Ok(()), "it is listed still");
    assert_eq!(world.block_on(handle.start_child(log.child("b"))), Err(StartChildError::AlreadyPresent));
    assert!(world.block_on(handle.restart_child("b")).unwrap().is_some());
    world.block_on(handle.terminate_child("b")).unwrap();
    assert_eq!(world.block_on(handle.delete_child("b")), Ok(()));
    assert_eq!(world.block_on(handle.terminate_child("b")), Err(TerminateChildError::NotFound));
    let temporary = log.child("t").restart(Restart::Temporary);
    world.block_on(handle.start_child(temporary)).unwrap();
    world.block_on(handle.terminate_child("t")).unwrap();
    assert_eq!(world.block_on(handle.get_child_spec("t")).unwrap(), None);
    let counts = world.block_on(handle.count_children()).unwrap();
    assert_eq!((counts.specs, counts.active, counts.workers, counts.supervisors), (1, 1, 1, 0));
    stop(&world, &handle);
}

#[test]
fn a_panic_keeps_its_words_on_the_way_to_the_report() {
    quiet();
    let (world, log) = (World::new(), Log::default());
    let seen = log.clone();
    let tree = Supervisor::new(RestartStrategy::OneForOne).child(log.child("a")).listen(move |report| {
        if report.event.is_error() {
            seen.note(format!("[{report}]"));
        }
    });
    let handle = start(&world, tree);
    log.end("a", How::Panic);
    world.settle();
    assert_eq!(log.take(), "+a -a [root/a terminated: panicked: a panicked] +a");
    stop(&world, &handle);
}

/// Where each attempt fails at once there is always news; on one thread nobody else would ever have a turn.
#[test]
fn a_child_that_cannot_be_started_again_leaves_others_their_turn() {
    quiet();
    for heard in [false, true] {
        let (world, attempts) = (World::new(), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&attempts);
        let broken = ChildSpec::new("broken", move |device| {
            // Either its device ends there and then, or it panics.
            let device = match counted.fetch_add(1, Ordering::SeqCst) {
                0 | 10_001.. => device,
                attempt if attempt % 2 == 0 => panic!("it panicked"),
                _ => Device::new(),
            };
            device.manage(crate::forever())
        });
        let tree = Supervisor::new(RestartStrategy::OneForOne)
            .intensity(Intensity { restarts: u32::MAX, period: SECOND })
            .child(broken);
        let tree = if heard { tree.listen(|_| {}) } else { tree };
        let handle = start(&world, tree);
        world.kill(world.last_spawned());
        let seen = world.ask(async move { attempts.load(Ordering::SeqCst) });
        world.run();
        let seen = seen.lock().unwrap().take();
        assert!(seen.is_some_and(|seen| seen < 1_000), "{seen:?} attempts before another had a turn");
        assert_eq!(handle.snapshot().unwrap().children[0].state, ChildState::Running);
        stop(&world, &handle);
    }
}
