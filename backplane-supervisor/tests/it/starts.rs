//! Starting: in order, in time, or not at all.

use crate::support::virtual_time::World;
use crate::{How, Log, SECOND, forever, quiet, start, stop};
use backplane::{Exit, Fault, FaultKind};
use backplane_supervisor::{
    AutoShutdown, ChildSpec, ChildState, Init, Restart, RestartStrategy, RowState, SpecError,
    StartChildError, StartError, Starting, Supervisor,
};

#[test]
fn a_sibling_waits_until_the_one_before_it_says_that_it_is_started() {
    let (world, log) = (World::new(), Log::default());
    let tree = Supervisor::new(RestartStrategy::OneForOne)
        .child(log.slow_child(&world, "slow", 3 * SECOND))
        .child(log.child("next"));
    let started = world.ask(tree.start(world.clone()));
    world.advance(2 * SECOND);
    assert_eq!(log.take(), "+slow");
    world.advance(SECOND);
    assert_eq!(log.take(), "+next");
    assert!(matches!(*started.lock().unwrap(), Some(Ok(_))));
}

#[test]
fn a_child_that_says_nothing_is_started_when_it_is_first_polled() {
    let (world, log) = (World::new(), Log::default());
    let never = ChildSpec::new("never", |device| device.manage(forever()));
    let handle =
        start(&world, Supervisor::new(RestartStrategy::OneForOne).child(never).child(log.child("next")));
    assert_eq!(log.take(), "+next");
    stop(&world, &handle);
}

#[test]
fn a_failed_initial_start_ends_the_others_in_reverse_and_names_the_child() {
    let (world, log) = (World::new(), Log::default());
    let bad = ChildSpec::starting("bad", |device, starting: Starting| {
        device.manage(async move {
            starting.fail("no such port");
            Err::<(), _>("no such port")
        })
    });
    let tree = Supervisor::new(RestartStrategy::OneForOne)
        .child(log.child("a"))
        .child(log.child("b"))
        .child(bad)
        .child(log.child("c"));
    let error = world.block_on(tree.start(world.clone())).unwrap_err();
    assert_eq!(error.to_string(), "child bad: failed: no such port");
    assert_eq!(log.take(), "+a +b -b -a");
    world.settle();
    assert_eq!(world.tasks(), 0);
}

#[test]
fn a_start_past_its_deadline_has_failed_and_is_killed() {
    let (world, log) = (World::new(), Log::default());
    let slow = log.slow_child(&world, "slow", 10 * SECOND).start_within(2 * SECOND);
    let error = world.block_on(Supervisor::new(RestartStrategy::OneForOne).child(slow).start(world.clone()));
    let StartError::Child { id, error } = error.unwrap_err() else { panic!() };
    assert_eq!((&*id, *error), ("slow", StartError::TimedOut(2 * SECOND)));
    assert_eq!(log.take(), "+slow -slow");
}

#[test]
fn a_panic_in_a_start_function_is_a_start_that_failed() {
    quiet();
    let world = World::new();
    let bad = ChildSpec::new("bad", |device| {
        assert!(device.line().id() != device.id(), "the start function panicked");
        device.manage(forever())
    });
    let error = world.block_on(Supervisor::new(RestartStrategy::OneForOne).child(bad).start(world.clone()));
    let StartError::Child { error, .. } = error.unwrap_err() else { panic!() };
    let StartError::StartFunction(fault) = *error else { panic!("{error}") };
    assert_eq!((fault.kind(), fault.message()), (FaultKind::Panic, Some("the start function panicked")));
}

#[test]
fn a_child_that_ends_before_it_is_started_has_failed_to_start() {
    let world = World::new();
    let early = ChildSpec::starting("early", |device, starting: Starting| {
        device.manage(async move {
            let _starting = starting;
            Ok::<_, String>(())
        })
    });
    let error = world.block_on(Supervisor::new(RestartStrategy::OneForOne).child(early).start(world.clone()));
    assert_eq!(error.unwrap_err().to_string(), "child early: ended before it was started: normal");
}

#[test]
fn a_child_that_drops_its_token_unused_has_failed_to_start() {
    let world = World::new();
    let silent = ChildSpec::starting("silent", |device, _| device.manage(forever()));
    let error =
        world.block_on(Supervisor::new(RestartStrategy::OneForOne).child(silent).start(world.clone()));
    let StartError::Child { error, .. } = error.unwrap_err() else { panic!() };
    assert_eq!(*error, StartError::Ended(Exit::Fault(Fault::killed())));
    assert_eq!(world.tasks(), 0);
}

#[test]
fn a_list_that_cannot_be_supervised_is_refused_before_anything_starts() {
    let (world, log) = (World::new(), Log::default());
    let twice = Supervisor::new(RestartStrategy::OneForOne).child(log.child("a")).child(log.child("a"));
    assert_eq!(twice.check(), Err(SpecError::DuplicateId("a".into())));
    let error = world.block_on(twice.start(world.clone())).unwrap_err();
    assert_eq!(error, StartError::Spec(SpecError::DuplicateId("a".into())));
    let permanent = Supervisor::new(RestartStrategy::OneForOne)
        .auto_shutdown(AutoShutdown::AnySignificant)
        .child(log.child("a").significant());
    assert_eq!(permanent.check(), Err(SpecError::SignificantPermanent("a".into())));
    let never = Supervisor::new(RestartStrategy::OneForOne)
        .child(log.child("a").restart(Restart::Transient).significant());
    assert_eq!(never.check(), Err(SpecError::SignificantNeverShutsDown("a".into())));
    assert_eq!(log.take(), "");
}

#[test]
fn a_supervisor_may_have_nothing_to_do() {
    let world = World::new();
    let idle = ChildSpec::supervisor("idle", Init::ignore);
    let handle = start(&world, Supervisor::new(RestartStrategy::OneForOne).child(idle));
    let rows = world.block_on(handle.which_children()).unwrap();
    assert_eq!((rows.len(), rows[0].state), (1, RowState::Down));
}

#[test]
fn the_tree_can_be_looked_at_while_a_start_is_slow() {
    let (world, log) = (World::new(), Log::default());
    let inner_log = log.clone();
    let inner_world = world.clone();
    let inner = ChildSpec::supervisor("inner", move || {
        Supervisor::new(RestartStrategy::OneForOne).child(inner_log.slow_child(
            &inner_world,
            "deep",
            9 * SECOND,
        ))
    });
    let handle = start(&world, Supervisor::new(RestartStrategy::OneForOne).child(log.child("a")));
    let added = world.ask(handle.start_child(inner));
    world.advance(SECOND);
    assert!(added.lock().unwrap().is_none());
    let snapshot = handle.snapshot().unwrap();
    assert_eq!(snapshot.children[1].state, ChildState::Starting);
    let below = snapshot.children[1].below.as_ref().unwrap();
    assert_eq!((below.path.as_str(), below.children[0].state), ("root/inner", ChildState::Starting));
    world.advance(9 * SECOND);
    assert!(matches!(*added.lock().unwrap(), Some(Ok(Some(_)))));
    stop(&world, &handle);
    assert!(handle.snapshot().is_err());
}

#[test]
fn a_stop_waits_for_a_slow_start_unless_it_may_interrupt() {
    for (interruptible, waits) in [(false, 9), (true, 0)] {
        let (world, log) = (World::new(), Log::default());
        let tree = Supervisor::new(RestartStrategy::OneForOne);
        let tree = if interruptible { tree.interruptible_starts() } else { tree };
        let handle = start(&world, tree.child(log.child("a")));
        let added = world.ask(handle.start_child(log.slow_child(&world, "slow", 9 * SECOND)));
        world.run();
        let stopped = world.ask(handle.stop(Exit::Shutdown));
        world.advance((waits * SECOND).saturating_sub(SECOND / 2));
        assert_eq!(stopped.lock().unwrap().is_some(), interruptible);
        world.advance(SECOND);
        assert!(stopped.lock().unwrap().is_some());
        assert_eq!(world.tasks(), 0);
        match added.lock().unwrap().take().unwrap() {
            Ok(line) => assert!(!interruptible && line.is_some()),
            Err(error) => assert_eq!(error, StartChildError::Failed(StartError::Interrupted)),
        };
    }
}

#[test]
fn dropping_the_start_of_a_tree_drops_the_tree() {
    let (world, log) = (World::new(), Log::default());
    let tree = Supervisor::new(RestartStrategy::OneForOne).child(log.child("a")).child(log.slow_child(
        &world,
        "slow",
        9 * SECOND,
    ));
    let starting = world.spawned(async move |world: World| drop(tree.start(world).await));
    world.run();
    assert_eq!(log.take(), "+a +slow");
    drop(starting);
    world.settle();
    assert_eq!(world.tasks(), 0);
    let mut gone: Vec<String> = log.take().split(' ').map(str::to_owned).collect();
    gone.sort();
    assert_eq!(gone, ["-a", "-slow"]);
}

#[test]
fn a_plan_can_be_started_again_and_again() {
    let (world, log) = (World::new(), Log::default());
    let tree = Supervisor::new(RestartStrategy::OneForOne).child(log.child("a"));
    for _ in 0..3 {
        let handle = start(&world, tree.clone());
        stop(&world, &handle);
    }
    assert_eq!(log.take(), "+a -a +a -a +a -a");
    let _ = How::Ok;
}
