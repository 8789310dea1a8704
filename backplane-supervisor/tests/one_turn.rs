//! A restart that nobody hears of is one turn of the supervisor's; and whoever comes in between waits as ever.
//!
//! By itself, for where `tracing` events are collected somebody hears of every restart.

#![allow(clippy::unwrap_used)]

mod support;

use std::future::pending;
use std::time::Duration;

use backplane::Exit;
use backplane_supervisor::{
    ChildSnapshot, ChildSpec, ChildState, Event, Intensity, RestartStrategy, Supervisor, SupervisorHandle,
};
use support::virtual_time::World;

const SECOND: Duration = Duration::from_secs(1);

/// A supervisor whose one child has ended, up to the moment when its successor is spawned and not polled yet.
fn up_to_the_first_poll() -> (World, SupervisorHandle) {
    let world = World::new();
    let spec = ChildSpec::new("a", |device| device.manage(pending::<Result<(), ()>>()));
    let tree = Supervisor::new(RestartStrategy::OneForOne)
        .intensity(Intensity { restarts: 100, period: SECOND })
        .child(spec);
    let handle = world.block_on(tree.start(world.clone())).unwrap();
    let child = world.last_spawned();
    world.kill(child);
    while world.last_spawned() == child {
        assert!(world.step());
    }
    assert_eq!((only(&handle).state, only(&handle).incarnation), (ChildState::Starting, 2));
    (world, handle)
}

fn only(handle: &SupervisorHandle) -> ChildSnapshot {
    handle.snapshot().unwrap().children[0].clone()
}

fn stop(world: &World, handle: &SupervisorHandle) {
    world.block_on(handle.stop(Exit::Shutdown)).unwrap();
    assert_eq!(world.tasks(), 0);
}

#[test]
fn a_restart_that_nobody_waits_for_is_one_turn_of_the_supervisor() {
    let (world, handle) = up_to_the_first_poll();
    let polls = world.polls();
    world.advance(SECOND);
    assert_eq!(world.polls() - polls, 1, "the child's alone");
    let child = only(&handle);
    assert_eq!((child.state, child.incarnation, child.uptime), (ChildState::Running, 2, Some(SECOND)));
    world.kill(world.last_spawned());
    world.settle();
    assert_eq!((only(&handle).state, only(&handle).incarnation), (ChildState::Running, 3));
    stop(&world, &handle);
}

#[test]
fn what_comes_before_the_first_poll_waits_for_it() {
    let (world, handle) = up_to_the_first_poll();
    let child = world.last_spawned();
    let count = world.ask(handle.count_children());
    world.run_all_but(child);
    assert!(count.lock().unwrap().is_none());
    assert_eq!(only(&handle).state, ChildState::Starting);
    world.run_task(child);
    world.run();
    assert_eq!(count.lock().unwrap().take().unwrap().unwrap().active, 1);
    stop(&world, &handle);
}

#[test]
fn a_successor_that_is_dropped_before_its_first_poll_has_failed_to_start_and_is_started_again() {
    let (world, handle) = up_to_the_first_poll();
    world.kill(world.last_spawned());
    world.settle();
    let child = only(&handle);
    assert_eq!((child.state, child.incarnation, child.restarts), (ChildState::Running, 3, 2));
    stop(&world, &handle);
}

#[test]
fn who_comes_to_listen_before_the_first_poll_hears_of_it() {
    let (world, handle) = up_to_the_first_poll();
    let mut reports = handle.reports(10);
    let first = world.block_on(async move { reports.next().await.map(|report| report.event) });
    assert_eq!(first, Some(Event::Started));
    assert_eq!(only(&handle).state, ChildState::Running);
    stop(&world, &handle);
}

#[test]
fn a_stop_before_the_first_poll_waits_for_it() {
    let (world, handle) = up_to_the_first_poll();
    let child = world.last_spawned();
    let stopped = world.ask(handle.stop(Exit::Shutdown));
    world.run_all_but(child);
    assert!(stopped.lock().unwrap().is_none(), "as in OTP a stop waits for the start");
    world.run_task(child);
    world.settle();
    assert!(stopped.lock().unwrap().take().unwrap().is_ok());
    assert_eq!(world.tasks(), 0);
}
