//! Faults in odd places.

use crate::support::virtual_time::World;
use crate::{How, Log, SECOND, quiet, start, stop};
use backplane::{Exit, FaultKind};
use backplane_supervisor::{
    Backoff, ChildSpec, DynamicSupervisor, Event, Intensity, RestartStrategy, StartError, Starting,
    Supervisor,
};
use std::sync::{Arc, Mutex};

struct Bomb(&'static str);

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("{} panicked", self.0);
        }
    }
}

#[test]
fn a_panic_in_a_childs_destructor_is_its_fault_and_nobody_elses() {
    quiet();
    let (world, log) = (World::new(), Log::default());
    let seen = log.clone();
    let bomb = ChildSpec::new("bomb", |device| {
        device.manage(async {
            let _bomb = Bomb("the destructor");
            crate::forever().await
        })
    });
    let tree =
        Supervisor::new(RestartStrategy::OneForOne).child(log.child("a")).child(bomb).listen(move |report| {
            if let Event::ShutdownError { exit, .. } = &report.event {
                seen.note(format!("[{exit}]"));
            }
        });
    let handle = start(&world, tree);
    stop(&world, &handle);
    assert_eq!(log.take(), "+a [panicked: the destructor panicked] -a");
    assert_eq!(world.tasks(), 0);
}

#[test]
fn a_panic_in_what_a_start_function_holds_does_no_harm() {
    quiet();
    let world = World::new();
    let bomb = Arc::new(Mutex::new(Some(Bomb("the capture"))));
    let child = ChildSpec::new("a", move |device| {
        let _keep = &bomb;
        device.manage(crate::forever())
    });
    let handle = start(&world, Supervisor::new(RestartStrategy::OneForOne).child(child));
    stop(&world, &handle);
    drop(handle);
    assert_eq!(world.tasks(), 0);
}

#[test]
fn an_argument_whose_copy_panics_is_a_start_that_failed() {
    quiet();
    #[derive(Debug)]
    struct Fussy;
    impl Clone for Fussy {
        fn clone(&self) -> Fussy {
            panic!("the copy panicked")
        }
    }
    let world = World::new();
    let plan = DynamicSupervisor::new(|device, _: Fussy| device.manage(crate::forever()));
    let handle = world.block_on(plan.start(world.clone())).unwrap();
    let error = world.block_on(handle.start_child(Fussy)).unwrap_err();
    let backplane_supervisor::StartDynamicError::Failed(StartError::StartFunction(fault)) = error else {
        panic!()
    };
    assert_eq!(fault.kind(), FaultKind::Panic);
    assert_eq!(world.block_on(handle.count_children()).unwrap().workers, 0);
}

#[test]
fn a_stop_during_a_restart_of_the_group_comes_after_it() {
    let (world, log) = (World::new(), Log::default());
    let tree = Supervisor::new(RestartStrategy::OneForAll).child(log.child("a")).child(log.slow_child(
        &world,
        "slow",
        5 * SECOND,
    ));
    let starting = world.ask(tree.start(world.clone()));
    world.settle();
    let handle = starting.lock().unwrap().take().unwrap().unwrap();
    log.take();
    log.end("a", How::Err);
    world.run();
    let stopped = world.ask(handle.stop(Exit::Shutdown));
    world.advance(4 * SECOND);
    assert!(stopped.lock().unwrap().is_none());
    world.advance(SECOND);
    assert!(stopped.lock().unwrap().is_some());
    assert_eq!(log.take(), "-a -slow +a +slow -slow -a");
    assert_eq!(world.tasks(), 0);
}

/// A tree in which all is going on at once: nested and dynamic supervisors, slow starts, a flaky child, a backoff, a
/// stubborn child.
fn busy_tree(world: &World, log: &Log, lines: &Arc<Mutex<Vec<backplane::Line>>>) -> Supervisor {
    let track = {
        let lines = Arc::clone(lines);
        move |device: &backplane::Device| lines.lock().unwrap().push(device.line())
    };
    let flaky_track = track.clone();
    let count = Arc::new(Mutex::new(0));
    let flaky = ChildSpec::starting("flaky", move |device, starting: Starting| {
        flaky_track(&device);
        let mut count = count.lock().unwrap();
        *count += 1;
        let odd = *count % 2 == 0;
        device.manage(async move {
            if odd {
                starting.fail("odd");
                return Err::<(), _>("odd");
            }
            drop(starting.done());
            Err("even")
        })
    });
    let tracked_world = world.clone();
    let pool_track = track.clone();
    let pool = ChildSpec::supervisor("pool", move || {
        let (world, track) = (tracked_world.clone(), pool_track.clone());
        DynamicSupervisor::new(move |device, seconds: u32| {
            track(&device);
            let world = world.clone();
            device.manage(async move {
                crate::sleep(&world, seconds * SECOND).await;
                Err::<(), _>("old age")
            })
        })
        .intensity(Intensity { restarts: 3, period: SECOND })
        .greet(|handle| {
            for seconds in 0..3 {
                drop(handle.start_child(seconds));
            }
        })
    });
    let (inner_log, inner_world) = (log.clone(), world.clone());
    let nested =
        ChildSpec::supervisor("nested", move || {
            Supervisor::new(RestartStrategy::RestForOne)
                .child(inner_log.child("x"))
                .child(inner_log.slow_child(&inner_world, "y", SECOND))
        });
    Supervisor::new(RestartStrategy::OneForAll)
        .intensity(Intensity { restarts: 6, period: 60 * SECOND })
        .child(log.child("a"))
        .child(nested)
        .child(pool)
        .child(log.stubborn_child("mule").shutdown(backplane_supervisor::Shutdown::Timeout(SECOND)))
        .child(flaky.backoff(Backoff::linear(SECOND)))
}

#[test]
fn a_supervisor_dropped_at_any_of_its_await_points_leaves_nothing_behind() {
    quiet();
    let mut ended_by_itself = false;
    for polls in 0.. {
        let (world, log, lines) = (World::new(), Log::default(), Arc::default());
        let tree = busy_tree(&world, &log, &lines);
        let starting = world.ask(tree.start(world.clone()));
        world.step();
        let root = world.last_spawned();
        // So many polls of any task, time passing where nothing else helps; then the root is dropped.
        let mut left = polls;
        while left > 0 && (world.step() || world.tick()) {
            left -= 1;
        }
        world.kill(root);
        world.settle();
        assert_eq!(world.tasks(), 0, "after {polls} polls");
        assert!(lines.lock().unwrap().iter().all(|line| !line.is_alive()), "after {polls} polls");
        let held = log.take();
        assert_eq!(held.matches('+').count(), held.matches('-').count(), "after {polls} polls: {held}");
        drop(starting);
        if left > 0 {
            ended_by_itself = true;
            break;
        }
    }
    assert!(ended_by_itself, "it gives up in the end, and then there is no await point left");
}
