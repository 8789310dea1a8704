//! What a stranger would try.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use backplane::{Device, Exit, FaultKind};
use backplane_supervisor::{
    Backoff, Budget, ChildSpec, DynamicSupervisor, Event, Exceeded, Intensity, KillChildError, Restart,
    RestartStrategy, Root, RootEnd, Shutdown, SpecError, StartError, Starting, Supervisor, SupervisorHandle,
};

use crate::support::virtual_time::World;
use crate::{How, Log, SECOND, forever, quiet, start, stop};

#[test]
fn a_child_that_is_killed_is_started_again_as_after_a_crash() {
    let (world, log) = (World::new(), Log::default());
    let ends = log.clone();
    let tree = Supervisor::new(RestartStrategy::RestForOne)
        .child(log.child("a"))
        .child(log.child("b"))
        .child(log.child("c"))
        .listen(move |report| {
            if let Event::ChildTerminated(exit) = &report.event {
                assert_eq!(exit.fault().map(|fault| fault.kind()), Some(FaultKind::Killed));
                ends.note("killed");
            }
        });
    let handle = start(&world, tree);
    assert_eq!(world.block_on(handle.kill_child("b")), Ok(()));
    world.settle();
    assert_eq!(log.take(), "+a +b +c -b killed -c +b +c");
    assert_eq!(world.block_on(handle.kill_child("d")), Err(KillChildError::NotFound));
    assert_eq!(world.block_on(handle.terminate_child("b")), Ok(()));
    assert_eq!(world.block_on(handle.kill_child("b")), Ok(()), "nothing runs, so nothing happens");
    world.settle();
    assert_eq!(log.take(), "-b");
    // It counts: one more is one too many.
    assert_eq!(world.block_on(handle.kill_child("c")), Ok(()));
    world.settle();
    assert!(!handle.line().is_alive());
    assert!(matches!(world.block_on(handle.kill_child("c")), Err(KillChildError::Gone(_))));
    assert_eq!(world.tasks(), 0);
}

#[test]
fn a_dynamic_child_is_killed_in_this_incarnation_only() {
    let world = World::new();
    let plan = DynamicSupervisor::new(|device, ()| device.manage(forever()));
    let handle = world.block_on(plan.start(world.clone())).unwrap();
    let child = world.block_on(handle.start_child(())).unwrap().unwrap();
    for _ in 0..3 {
        // The second time it names what is gone.
        assert_eq!(world.block_on(handle.kill_child(child)), Ok(()));
        world.settle();
        assert!(!child.line().is_alive());
        assert_eq!(world.block_on(handle.count_children()).unwrap().active, 1);
    }
    let snapshot = handle.snapshot().unwrap();
    assert_eq!((snapshot.children[0].restarts, snapshot.children[0].incarnation), (1, 2));
    let other =
        world.block_on(DynamicSupervisor::new(|device, ()| device.manage(forever())).start(world.clone()));
    let stranger = world.block_on(other.unwrap().start_child(())).unwrap().unwrap();
    assert_eq!(world.block_on(handle.kill_child(stranger)), Err(KillChildError::NotFound));
}

#[test]
fn a_promise_of_progress_that_cannot_be_kept_is_refused_before_anything_starts() {
    let (world, log) = (World::new(), Log::default());
    let mute = ChildSpec::new("mute", |device| device.manage(forever())).progress_within(SECOND);
    let tree = Supervisor::new(RestartStrategy::OneForOne).child(log.child("a")).child(mute.clone());
    assert_eq!(tree.check(), Err(SpecError::CannotBeat("mute".into())));
    let refused = StartError::Spec(SpecError::CannotBeat("mute".into()));
    assert_eq!(world.block_on(tree.start(world.clone())).unwrap_err(), refused);
    let pool = DynamicSupervisor::new(|device, ()| device.manage(forever())).progress_within(SECOND);
    let refused = StartError::Spec(SpecError::CannotBeat("child".into()));
    assert_eq!(world.block_on(pool.start(world.clone())).unwrap_err(), refused);
    let handle = start(&world, Supervisor::new(RestartStrategy::OneForOne));
    assert!(world.block_on(handle.start_child(mute)).is_err());
    stop(&world, &handle);
    assert_eq!((log.take(), world.tasks()), (String::new(), 0));
}

#[test]
fn the_first_thing_that_is_wrong_with_a_list_is_what_is_said() {
    let spec = |id: &str| ChildSpec::new(id, |device| device.manage(forever()));
    let world = World::new();
    let both = [spec("a"), spec("a"), spec("b").significant()];
    for (children, wrong) in [
        (both.to_vec(), SpecError::DuplicateId("a".into())),
        (both.iter().rev().cloned().collect(), SpecError::SignificantNeverShutsDown("b".into())),
    ] {
        let tree = Supervisor::new(RestartStrategy::OneForOne).children(children);
        assert_eq!(tree.check(), Err(wrong.clone()));
        assert_eq!(world.block_on(tree.start(world.clone())).unwrap_err(), StartError::Spec(wrong));
    }
}

#[test]
fn whoever_asks_to_stop_while_it_stops_hears_that_it_has() {
    let (world, log) = (World::new(), Log::default());
    let mule = log.stubborn_child("mule").shutdown(Shutdown::Timeout(SECOND));
    let handle = start(&world, Supervisor::new(RestartStrategy::OneForOne).child(mule));
    let first = world.ask(handle.stop(Exit::Shutdown));
    world.run();
    let second = world.ask(handle.stop(Exit::Normal));
    world.advance(2 * SECOND);
    let (first, second) = (first.lock().unwrap().take().unwrap(), second.lock().unwrap().take().unwrap());
    assert_eq!(first.as_ref().unwrap().killed.len(), 1);
    assert_eq!(first, second);
    assert!(world.block_on(handle.stop(Exit::Shutdown)).unwrap_err().exit().is_none());
}

#[test]
fn a_subscription_to_what_has_ended_is_over() {
    let (world, log) = (World::new(), Log::default());
    let handle = start(&world, Supervisor::new(RestartStrategy::OneForOne).child(log.child("a")));
    let mut narrow = handle.reports(0);
    log.end("a", How::Err);
    world.settle();
    assert!(narrow.try_next().is_some(), "room for one there is always");
    assert_eq!(narrow.lost(), 2);
    stop(&world, &handle);
    let mut late = handle.reports(8);
    assert_eq!(world.block_on(async move { late.next().await }), None);
    assert!(handle.snapshot().is_err());
    assert!(world.block_on(handle.count_children()).is_err());
    assert!(world.block_on(handle.start_child(log.child("b"))).is_err());
}

/// A waker that counts or panics.
struct Odd(AtomicUsize);

impl Wake for Odd {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
        panic!("the waker panicked");
    }
}

#[test]
fn a_waker_that_panics_harms_nobody() {
    quiet();
    let (world, log) = (World::new(), Log::default());
    let handle = start(&world, Supervisor::new(RestartStrategy::OneForOne).child(log.child("a")));
    let odd = Arc::new(Odd(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&odd));
    let mut counts = pin!(handle.count_children());
    assert!(counts.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    world.settle();
    assert_eq!(odd.0.load(Ordering::SeqCst), 1);
    assert!(matches!(counts.poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(_))));
    assert!(handle.line().is_alive());
    stop(&world, &handle);
}

#[test]
fn answers_that_nobody_waits_for_are_given_all_the_same() {
    let (world, log) = (World::new(), Log::default());
    let handle = start(&world, Supervisor::new(RestartStrategy::OneForOne));
    drop(handle.start_child(log.child("a")));
    drop(handle.start_child(log.child("b")));
    drop(handle.terminate_child("a"));
    drop(handle.which_children());
    world.settle();
    assert_eq!(log.take(), "+a +b -a");
    drop(handle.stop(Exit::Shutdown));
    world.settle();
    assert_eq!((log.take().as_str(), world.tasks()), ("-b", 0));
}

#[test]
fn times_beyond_all_clocks_are_no_panic() {
    quiet();
    let (world, log) = (World::new(), Log::default());
    let most = Duration::MAX;
    let inner = log.clone();
    let patient = ChildSpec::starting("patient", move |device, starting: Starting| {
        let log = inner.clone();
        device.manage(async move {
            let _pulse = starting.done();
            log.until_told("patient").await
        })
    })
    .start_within(most)
    .progress_within(most)
    .shutdown(Shutdown::Timeout(most))
    .budget(Budget {
        intensity: Intensity { restarts: u32::MAX, period: most },
        exceeded: Exceeded::LeaveDown,
    })
    .backoff(Backoff::exponential(most).jitter(f64::NAN, 7).reset_after(most));
    let tree = Supervisor::new(RestartStrategy::OneForOne)
        .intensity(Intensity { restarts: u32::MAX, period: most })
        .kill_grace(most)
        .child(patient);
    let root = world.ask(Root::new(tree).drain_within(most).run_with(world.clone(), {
        let world = world.clone();
        move || {
            let world = world.clone();
            async move { crate::sleep(&world, SECOND).await }
        }
    }));
    world.run();
    log.end("patient", How::Err);
    world.run();
    world.advance(3 * SECOND);
    assert!(matches!(*root.lock().unwrap(), Some(RootEnd::Drained(_))));
    assert_eq!(world.tasks(), 0);
}

#[test]
fn no_time_at_all_is_a_time_like_any_other() {
    let world = World::new();
    let never = ChildSpec::starting("never", |device, starting: Starting| {
        device.manage(async move {
            let _starting = starting;
            forever().await
        })
    });
    let tree = Supervisor::new(RestartStrategy::OneForOne).child(never.start_within(Duration::ZERO));
    let error = world.block_on(tree.start(world.clone())).unwrap_err();
    assert_eq!(error.to_string(), "child never: not started within 0ns");
    // A period of nothing: only restarts at the same instant count together.
    let log = Log::default();
    let tree = Supervisor::new(RestartStrategy::OneForOne)
        .intensity(Intensity { restarts: 1, period: Duration::ZERO })
        .child(log.child("a"));
    let handle = start(&world, tree);
    for _ in 0..5 {
        log.end("a", How::Err);
        world.advance(SECOND);
    }
    assert!(handle.line().is_alive());
    log.end("a", How::Err);
    world.settle();
    log.end("a", How::Err);
    world.settle();
    assert!(!handle.line().is_alive());
}

#[test]
fn hooks_and_start_functions_may_call_the_supervisor_that_runs_them() {
    let (world, log) = (World::new(), Log::default());
    let place: Arc<Mutex<Option<SupervisorHandle>>> = Arc::default();
    let (greeted, hook, within, seen) = (place.clone(), place.clone(), place.clone(), log.clone());
    let child = ChildSpec::new("a", move |device: Device| {
        let handle = within.lock().unwrap().clone().unwrap();
        assert_eq!(handle.snapshot().unwrap().children.len(), 1);
        drop(handle.count_children());
        // Behind what it is doing: itself.
        drop(handle.terminate_child("a"));
        device.manage(forever())
    });
    let tree = Supervisor::new(RestartStrategy::OneForOne)
        .greet(move |handle| {
            drop(handle.which_children());
            *greeted.lock().unwrap() = Some(handle.clone());
        })
        .listen(move |report| {
            let handle = hook.lock().unwrap().clone().unwrap();
            let state = handle.snapshot().map(|snapshot| snapshot.children[0].state.to_string());
            seen.note(format!("{}:{}", report.event, state.unwrap()));
            drop((handle.count_children(), handle.reports(1), handle.footprint()));
            if report.event == Event::Started && report.incarnation == 1 {
                drop(handle.restart_child("a"));
            }
        })
        .child(child);
    let handle = start(&world, tree);
    world.settle();
    let told = log.take();
    assert!(told.starts_with("started:starting stopped: shutdown:"), "{told}");
    assert!(handle.line().is_alive());
    let hung_up = place.lock().unwrap().take();
    drop(hung_up);
    drop(handle.stop(Exit::Shutdown));
    drop(handle);
}

#[test]
fn a_large_intensity_keeps_no_restart_longer_than_it_counts() {
    let (world, log) = (World::new(), Log::default());
    let tree = Supervisor::new(RestartStrategy::OneForOne)
        .intensity(Intensity { restarts: 2, period: 5 * SECOND })
        .child(log.child("a").restart(Restart::Transient));
    let handle = start(&world, tree);
    let crash = || {
        log.end("a", How::Err);
        world.settle();
        handle.line().is_alive()
    };
    assert!(crash());
    world.advance(6 * SECOND);
    // The one before is too old by now, and noting this one forgets it, as in OTP: a longer period does not bring it back.
    assert!(crash());
    let longer = Intensity { restarts: 2, period: 60 * SECOND };
    assert_eq!(world.block_on(handle.set_intensity(longer)), Ok(()));
    assert!(crash());
    assert!(!crash());
}
