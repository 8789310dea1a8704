//! Children of one kind.

use crate::support::virtual_time::World;
use crate::{How, Log, SECOND, quiet};
use allocation_counter::measure;
use backplane::{Device, Exit, Runtime};
use backplane_supervisor::{
    ChildRef, DynamicHandle, DynamicSupervisor, Intensity, Restart, Shutdown, StartDynamicError, Starting,
    TerminateChildError,
};
use std::sync::{Arc, Mutex};

/// Children that fail after so many seconds.
fn mayflies(world: &World) -> DynamicSupervisor<u64> {
    let world = world.clone();
    DynamicSupervisor::new(move |device, seconds: u64| {
        let world = world.clone();
        device.manage(async move {
            world.sleep_until(world.now() + seconds as u32 * SECOND).await;
            Err::<(), _>("old age")
        })
    })
    .intensity(Intensity { restarts: 1000, period: SECOND })
}

fn start(world: &World, plan: DynamicSupervisor<u64>) -> DynamicHandle<u64> {
    world.block_on(plan.start(world.clone())).unwrap()
}

fn add(world: &World, handle: &DynamicHandle<u64>, seconds: u64) -> ChildRef {
    let answer = world.ask(handle.start_child(seconds));
    world.run();
    answer.lock().unwrap().take().unwrap().unwrap().unwrap()
}

fn active(world: &World, handle: &DynamicHandle<u64>) -> (usize, usize) {
    let answer = world.ask(handle.count_children());
    world.run();
    let counts = answer.lock().unwrap().take().unwrap().unwrap();
    (counts.active, counts.workers)
}

#[test]
fn there_are_no_more_children_than_there_may_be() {
    let world = World::new();
    let handle = start(&world, mayflies(&world).restart(Restart::Temporary).max_children(2));
    add(&world, &handle, 5);
    add(&world, &handle, 60);
    let refused = world.ask(handle.start_child(7));
    world.run();
    assert_eq!(refused.lock().unwrap().take(), Some(Err(StartDynamicError::Full(7))));
    world.advance(5 * SECOND);
    add(&world, &handle, 60);
    assert_eq!(active(&world, &handle), (2, 2));
}

#[test]
fn a_restart_uses_the_same_argument_and_a_reference_means_one_incarnation() {
    let world = World::new();
    let handle = start(&world, mayflies(&world));
    let first = add(&world, &handle, 3);
    world.advance(4 * SECOND);
    assert!(!first.line().is_alive());
    assert_eq!(active(&world, &handle), (1, 1));
    // The incarnation is gone already, which is fine; the child is not touched.
    assert_eq!(ask(&world, handle.terminate_child(first)), Ok(()));
    assert_eq!(active(&world, &handle), (1, 1));
    // The child, in whichever incarnation.
    assert_eq!(ask(&world, handle.remove_child(first)), Ok(()));
    assert_eq!(active(&world, &handle), (0, 0));
    assert_eq!(ask(&world, handle.remove_child(first)), Err(TerminateChildError::NotFound));
    let other = start(&world, mayflies(&world));
    let stranger = add(&world, &other, 60);
    assert_eq!(ask(&world, handle.terminate_child(stranger)), Err(TerminateChildError::NotFound));
}

fn ask<T: Send + 'static>(world: &World, call: impl Future<Output = T> + Send + 'static) -> T {
    let answer = world.ask(call);
    world.run();
    let answer = answer.lock().unwrap().take();
    answer.unwrap()
}

#[test]
fn children_that_have_ended_leave_nothing_behind() {
    let world = World::new();
    let handle = start(&world, mayflies(&world).restart(Restart::Temporary));
    for _ in 0..100 {
        for _ in 0..10 {
            add(&world, &handle, 1);
        }
        world.advance(2 * SECOND);
    }
    assert_eq!(active(&world, &handle), (0, 0));
    assert!(handle.footprint() < 16 * 300, "room for the ten at a time: {}", handle.footprint());
    assert_eq!(world.tasks(), 1);
}

#[test]
fn all_end_at_the_same_time_and_are_given_the_same_time() {
    let world = World::new();
    let plan = DynamicSupervisor::new(|mut device: backplane::Device, _: u64| async move {
        loop {
            drop(device.receive().await);
        }
    })
    .shutdown(Shutdown::Timeout(7 * SECOND));
    let handle = start(&world, plan);
    for n in 0..5 {
        add(&world, &handle, n);
    }
    let begin = world.now();
    let stopped = world.block_on(handle.stop(Exit::Shutdown)).unwrap();
    assert_eq!(world.now() - begin, 7 * SECOND);
    assert_eq!(stopped.killed.len(), 5);
    assert!(stopped.killed.iter().all(|killed| killed.took == 7 * SECOND && !killed.stuck));
    assert_eq!(world.tasks(), 0);
}

#[test]
fn the_cost_of_a_child_does_not_depend_on_how_many_there_are() {
    // Counted in polls of tasks, not in time: starting, ending and removing one is a fixed number of them.
    let cost = |already: usize| {
        let world = World::new();
        let handle = start(&world, mayflies(&world).restart(Restart::Temporary));
        let answers: Vec<_> = (0..already).map(|_| world.ask(handle.start_child(1 << 30))).collect();
        world.run();
        assert!(answers.iter().all(|answer| matches!(*answer.lock().unwrap(), Some(Ok(Some(_))))));
        let before = world.polls();
        let child = add(&world, &handle, 1 << 30);
        assert_eq!(ask(&world, handle.terminate_child(child)), Ok(()));
        add(&world, &handle, 1);
        world.advance(2 * SECOND);
        world.polls() - before
    };
    assert_eq!(cost(10), cost(10_000));
}

/// One that could not be killed, and whose start has failed, may end at last while the others are being stopped.
#[test]
fn the_late_end_of_one_is_not_taken_for_another_s() {
    let (world, log) = (World::new(), Log::default());
    let shelf: Arc<Mutex<Vec<Device>>> = Arc::default();
    let (place, inner, clock) = (Arc::clone(&shelf), log.clone(), world.clone());
    let plan = DynamicSupervisor::starting(move |mut device, starting: Starting, slow: bool| {
        let (place, log, world) = (Arc::clone(&place), inner.clone(), clock.clone());
        async move {
            if slow {
                drop(starting.done());
                device.receive().await;
                crate::sleep(&world, 3 * SECOND).await;
                log.note("put away");
                device.disconnect(Exit::Shutdown);
            } else if log.senders.lock().unwrap().contains_key("stuck") {
                place.lock().unwrap().push(device);
                let _never_used = starting;
                std::future::pending::<()>().await;
            } else {
                drop(starting.done());
                drop(device.manage(async move { log.until_told("stuck").await }).await);
            }
        }
    });
    let plan = plan.restart(Restart::Permanent).start_within(SECOND).shutdown(Shutdown::Timeout(10 * SECOND));
    let handle = world.block_on(plan.start(world.clone())).unwrap();
    world.block_on(handle.start_child(false)).unwrap();
    world.block_on(handle.start_child(true)).unwrap();
    log.end("stuck", How::Err);
    world.advance(10 * SECOND);
    let stopped = world.ask(handle.stop(Exit::Shutdown));
    world.advance(SECOND);
    let stuck = std::mem::take(&mut *shelf.lock().unwrap());
    assert_eq!(stuck.len(), 1);
    drop(stuck);
    world.run();
    assert!(stopped.lock().unwrap().is_none(), "the other one is not done");
    world.advance(2 * SECOND);
    assert_eq!(log.take(), "put away");
    assert!(stopped.lock().unwrap().take().unwrap().is_ok());
    assert_eq!(world.tasks(), 0);
}

/// Those who come and go, end by themselves, are started again, or cannot be started leave nothing behind, heard or unheard.
#[test]
fn nothing_grows_with_children_that_have_been() {
    quiet();
    for heard in [false, true] {
        let world = World::new();
        let plan = DynamicSupervisor::new(|device, how: u8| {
            assert!(how != 1, "it panicked");
            device.manage(std::future::pending::<Result<(), ()>>())
        });
        let plan = plan.restart(Restart::Permanent).intensity(Intensity { restarts: 3, period: SECOND });
        let plan = if heard { plan.listen(|_| {}) } else { plan };
        let handle = world.block_on(plan.start(world.clone())).unwrap();
        let round = |n: u32| {
            world.advance(SECOND);
            let child = world.block_on(handle.start_child(0)).unwrap().unwrap();
            let task = world.last_spawned();
            if n.is_multiple_of(2) {
                world.kill(task);
                world.settle();
                let row = world.block_on(handle.which_children()).unwrap().pop().unwrap();
                assert_ne!(row.child(), Some(child), "it was started again");
                world.block_on(handle.terminate_child(row.child().unwrap())).unwrap();
            } else {
                world.block_on(handle.terminate_child(child)).unwrap();
            }
            assert!(world.block_on(handle.start_child(1)).is_err());
            drop(handle.reports(1));
            assert!(handle.snapshot().unwrap().children.is_empty());
        };
        (0..1_000).for_each(round);
        let kept = measure(|| (0..5_000).for_each(round)).bytes_current;
        assert!(kept < 5_000, "{kept} bytes are kept, heard: {heard}");
        world.block_on(handle.stop(Exit::Shutdown)).unwrap();
        assert_eq!(world.tasks(), 0);
    }
}
