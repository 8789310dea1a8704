//! Stopping: in order, in time, and what could not be stopped.

use crate::support::virtual_time::World;
use crate::{How, Log, SECOND, start, stop};
use backplane::{Device, Exit};
use backplane_supervisor::{ChildSpec, Event, Intensity, Orphans, RestartStrategy, Shutdown, Supervisor};
use std::sync::{Arc, Mutex};

#[test]
fn children_end_in_reverse_start_order_depth_first() {
    let (world, log) = (World::new(), Log::default());
    let inner = log.clone();
    let tree = Supervisor::new(RestartStrategy::OneForOne)
        .child(log.child("a"))
        .child(ChildSpec::supervisor("s", move || {
            Supervisor::new(RestartStrategy::OneForOne).child(inner.child("x")).child(inner.child("y"))
        }))
        .child(log.child("b"));
    let handle = start(&world, tree);
    assert_eq!(log.take(), "+a +x +y +b");
    let stopped = stop(&world, &handle);
    assert_eq!(log.take(), "-b -y -x -a");
    assert_eq!((stopped.exit, stopped.killed.len()), (Exit::Shutdown, 0));
    assert_eq!(world.tasks(), 0);
}

#[test]
fn the_result_of_a_stop_names_who_had_to_be_killed_and_how_long_it_took() {
    let (world, log) = (World::new(), Log::default());
    let inner = log.clone();
    let tree = Supervisor::new(RestartStrategy::OneForOne)
        .child(log.stubborn_child("a").shutdown(Shutdown::Timeout(3 * SECOND)))
        .child(ChildSpec::supervisor("s", move || {
            Supervisor::new(RestartStrategy::OneForOne)
                .child(inner.stubborn_child("x").shutdown(Shutdown::Timeout(2 * SECOND)))
                .child(inner.child("y"))
        }));
    let handle = start(&world, tree);
    let stopped = stop(&world, &handle);
    let killed: Vec<String> = stopped.killed.iter().map(ToString::to_string).collect();
    assert_eq!(killed, ["root/s/x had to be killed after 2s", "root/a had to be killed after 3s"]);
}

#[test]
fn a_brutal_kill_asks_nobody_and_is_no_news() {
    let (world, log) = (World::new(), Log::default());
    let tree = Supervisor::new(RestartStrategy::OneForOne)
        .child(log.stubborn_child("a").shutdown(Shutdown::BrutalKill));
    let handle = start(&world, tree);
    assert_eq!(stop(&world, &handle).killed, []);
    assert_eq!(log.take(), "+a -a");
}

/// A child whose device outlives its task stands for one that never yields: nothing can end it from outside.
fn undying(shelf: &Arc<Mutex<Vec<Device>>>, name: &str) -> ChildSpec {
    let shelf = Arc::clone(shelf);
    ChildSpec::new(name, move |device| {
        shelf.lock().unwrap().push(device);
        std::future::pending::<()>()
    })
    .shutdown(Shutdown::Timeout(2 * SECOND))
}

#[test]
fn who_was_killed_when_a_supervisor_below_gave_up_is_not_in_the_result_of_a_later_stop() {
    let (world, log) = (World::new(), Log::default());
    let (inner, incarnations) = (log.clone(), Arc::new(Mutex::new(0)));
    let below = ChildSpec::supervisor("s", move || {
        *incarnations.lock().unwrap() += 1;
        let (mule, docile) = (inner.stubborn_child("mule"), inner.child("mule"));
        let mule = if *incarnations.lock().unwrap() < 3 { mule } else { docile };
        Supervisor::new(RestartStrategy::OneForOne)
            .intensity(Intensity { restarts: 0, period: SECOND })
            .child(mule.shutdown(Shutdown::Timeout(SECOND)))
            .child(inner.child("x"))
    });
    let tree = Supervisor::new(RestartStrategy::OneForOne).child(below);
    let handle = start(&world, tree);
    for _ in 0..2 {
        log.end("x", How::Err);
        world.advance(10 * SECOND);
    }
    assert_eq!(log.take(), "+mule +x -x -mule +mule +x -x -mule +mule +x");
    assert_eq!(stop(&world, &handle).killed, []);
}

#[test]
fn a_child_that_cannot_be_killed_is_named_and_holds_up_no_stop() {
    let (world, log, shelf) = (World::new(), Log::default(), Arc::default());
    let stuck = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&stuck);
    let tree = Supervisor::new(RestartStrategy::OneForOne)
        .kill_grace(4 * SECOND)
        .listen(move |report| {
            if let Event::Stuck { after } = report.event {
                seen.lock().unwrap().push((report.child.clone().unwrap().to_string(), after));
            }
        })
        .child(log.child("a"))
        .child(undying(&shelf, "undying"));
    let handle = start(&world, tree);
    let stopped = stop(&world, &handle);
    assert_eq!(stopped.killed.len(), 1);
    assert!(stopped.killed[0].stuck);
    assert_eq!((stopped.killed[0].path.as_str(), stopped.killed[0].took), ("root/undying", 6 * SECOND));
    assert_eq!(*stuck.lock().unwrap(), [("undying".to_owned(), 6 * SECOND)]);
    assert_eq!(log.take(), "+a -a");
}

#[test]
fn nobody_takes_the_place_of_a_child_that_cannot_be_killed_while_it_lives() {
    let (world, log, shelf) = (World::new(), Log::default(), Arc::<Mutex<Vec<Device>>>::default());
    let tree = Supervisor::new(RestartStrategy::OneForAll)
        .kill_grace(SECOND)
        .child(log.child("a"))
        .child(undying(&shelf, "undying"));
    let handle = start(&world, tree.clone());
    log.end("a", How::Err);
    world.advance(60 * SECOND);
    assert_eq!(log.take(), "+a -a", "the group waits");
    shelf.lock().unwrap().clear();
    world.settle();
    assert_eq!(log.take(), "+a", "and goes on once it is gone");
    assert_eq!(shelf.lock().unwrap().len(), 1);
    // A stop is obeyed all the same.
    log.end("a", How::Err);
    world.advance(60 * SECOND);
    let stopped = stop(&world, &handle);
    assert_eq!(stopped.exit, Exit::Shutdown);
    assert_eq!(log.take(), "-a");
}

#[test]
fn all_that_an_incarnation_held_is_dropped_before_its_successor_starts() {
    let (world, log) = (World::new(), Log::default());
    let handle = start(&world, Supervisor::new(RestartStrategy::OneForOne).child(log.child("port")));
    log.end("port", How::Err);
    world.settle();
    assert_eq!(log.take(), "+port -port +port");
    stop(&world, &handle);
}

#[test]
fn children_of_a_dropped_supervisor_end_by_their_links_or_with_it() {
    for orphans in [Orphans::Told, Orphans::Dropped] {
        let (world, log) = (World::new(), Log::default());
        let inner = log.clone();
        let tree = Supervisor::new(RestartStrategy::OneForOne).orphans(orphans).child(log.child("a")).child(
            ChildSpec::supervisor("s", move || {
                Supervisor::new(RestartStrategy::OneForOne).child(inner.child("x")).child(inner.child("y"))
            }),
        );
        let starting = world.ask(tree.start(world.clone()));
        world.step();
        let root = world.last_spawned();
        world.run();
        assert!(starting.lock().unwrap().is_some());
        log.take();
        world.kill(root);
        world.settle();
        let mut gone: Vec<String> = log.take().split(' ').map(str::to_owned).collect();
        gone.sort();
        assert_eq!((gone.join(" "), world.tasks()), ("-a -x -y".to_owned(), 0));
    }
}

#[test]
fn a_stop_says_how_the_supervisor_ends_and_its_parent_decides() {
    let (world, log) = (World::new(), Log::default());
    let inner = log.clone();
    let handles = Arc::new(Mutex::new(Vec::new()));
    let shelf = Arc::clone(&handles);
    let tree = Supervisor::new(RestartStrategy::OneForOne).child(
        ChildSpec::supervisor("s", move || {
            let shelf = Arc::clone(&shelf);
            Supervisor::new(RestartStrategy::OneForOne)
                .child(inner.child("x"))
                .greet(move |handle| shelf.lock().unwrap().push(handle.clone()))
        })
        .restart(backplane_supervisor::Restart::Transient),
    );
    let root = start(&world, tree);
    let s = handles.lock().unwrap()[0].clone();
    let fault = backplane::Fault::error("bye");
    assert_eq!(world.block_on(s.stop(Exit::Fault(fault.clone()))).unwrap().exit, Exit::Fault(fault));
    world.settle();
    assert_eq!(log.take(), "+x -x +x", "a fault starts it again");
    let s = handles.lock().unwrap()[1].clone();
    stop(&world, &s);
    world.settle();
    assert_eq!(log.take(), "-x", "an ordinary end does not");
    assert!(world.block_on(s.which_children()).is_err(), "who is gone does not answer");
    stop(&world, &root);
}

#[test]
fn a_sibling_that_ends_meanwhile_takes_no_time_from_whoever_is_being_stopped() {
    let (world, log) = (World::new(), Log::default());
    let mule = log.stubborn_child("mule").shutdown(Shutdown::Timeout(3 * SECOND));
    let tree =
        Supervisor::new(RestartStrategy::OneForOne).child(log.child("a")).child(log.child("b")).child(mule);
    let handle = start(&world, tree);
    let stopped = world.ask(handle.stop(Exit::Shutdown));
    world.advance(SECOND);
    log.end("a", crate::How::Err);
    world.advance(SECOND);
    assert_eq!(log.take(), "+a +b +mule -a");
    world.advance(SECOND);
    let stopped = stopped.lock().unwrap().take().unwrap().unwrap();
    assert_eq!(stopped.killed.len(), 1);
    assert_eq!(stopped.killed[0].took, 3 * SECOND);
    assert_eq!((log.take().as_str(), world.tasks()), ("-mule -b", 0));
}
