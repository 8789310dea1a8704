//! A restart that nobody hears of is one turn of the supervisor's; and whoever comes in between waits as ever.
//!
//! By itself, for where `tracing` events are collected somebody hears of every restart.

#![allow(clippy::unwrap_used)]

mod support;

use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use backplane::{Device, Exit, Runtime};
use backplane_supervisor::{
    ChildSnapshot, ChildSpec, ChildState, Event, Intensity, RestartStrategy, Supervisor, SupervisorHandle,
};
use support::virtual_time::{Sleep, Task, World};

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

type Hook = Box<dyn FnOnce() + Send>;

/// A world in which something happens while a task is about to be polled: on many threads it can.
#[derive(Clone)]
struct Interrupted {
    world: World,
    hook: Arc<Mutex<Option<Hook>>>,
}

impl Runtime for Interrupted {
    type Task = Task;
    type Sleep = Sleep;

    fn spawn<F: Future<Output = ()> + Send + 'static>(&self, future: F) -> Task {
        let hook = Arc::clone(&self.hook);
        self.world.spawn(async move {
            let hook = hook.lock().unwrap().take();
            if let Some(hook) = hook {
                hook();
            }
            future.await;
        })
    }

    fn detach(&self, task: Task) {
        self.world.detach(task);
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        self.world.sleep_until(deadline)
    }

    fn now(&self) -> Instant {
        self.world.now()
    }
}

/// A child's device is dropped, and its successor begun, between the beginning of its first poll and what that says.
fn a_first_poll_that_is_overtaken(by_listener_too: bool) {
    let world = World::new();
    let runtime = Interrupted { world: world.clone(), hook: Arc::default() };
    let given_away: Arc<Mutex<Option<Device>>> = Arc::default();
    let place = Arc::clone(&given_away);
    let spec = ChildSpec::new("a", move |device| {
        *place.lock().unwrap() = Some(device);
        pending::<()>()
    });
    let tree = Supervisor::new(RestartStrategy::OneForOne)
        .intensity(Intensity { restarts: 100, period: SECOND })
        .child(spec);
    let handle = world.block_on(tree.start(runtime.clone())).unwrap();
    let replace = |world: &World, device: &Mutex<Option<Device>>| {
        let child = world.last_spawned();
        let device = device.lock().unwrap().take();
        drop(device);
        while world.last_spawned() == child {
            assert!(world.step());
        }
    };
    replace(&world, &given_away);
    let second = world.last_spawned();
    assert_eq!((only(&handle).state, only(&handle).incarnation), (ChildState::Starting, 2));
    let ear = Arc::new(Mutex::new(None));
    let (inner, device, listening, listener) =
        (world.clone(), Arc::clone(&given_away), handle.clone(), Arc::clone(&ear));
    *runtime.hook.lock().unwrap() = Some(Box::new(move || {
        if by_listener_too {
            *listener.lock().unwrap() = Some(listening.reports(10));
        }
        replace(&inner, &device);
    }));
    world.run_task(second);
    assert!(runtime.hook.lock().unwrap().is_none(), "the first poll was overtaken");
    let third = world.last_spawned();
    world.run_all_but(third);
    assert_eq!((only(&handle).state, only(&handle).incarnation), (ChildState::Starting, 3));
    world.run_task(third);
    world.run();
    assert_eq!((only(&handle).state, only(&handle).incarnation), (ChildState::Running, 3));
    stop(&world, &handle);
}

#[test]
fn a_first_poll_that_comes_late_does_not_start_the_successor() {
    a_first_poll_that_is_overtaken(false);
}

#[test]
fn a_first_poll_that_comes_late_does_not_start_the_successor_that_is_waited_for() {
    a_first_poll_that_is_overtaken(true);
}
