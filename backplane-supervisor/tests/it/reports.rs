//! What a tree tells of itself.

use crate::support::virtual_time::World;
use crate::{How, Log, quiet, start, stop, words};
use allocation_counter::measure;
use backplane_supervisor::{Event, RestartStrategy, Supervisor};

#[test]
fn hooks_hear_of_everything_once_and_in_order() {
    quiet();
    let (world, log) = (World::new(), Log::default());
    let seen = Log::default();
    let hook = seen.clone();
    let tree = Supervisor::new(RestartStrategy::OneForAll)
        .child(log.child("a"))
        .child(log.child("b"))
        .listen(move |report| hook.note(words(report) + ";"));
    let handle = start(&world, tree);
    assert_eq!(seen.take(), "started a#1; started b#1;");
    log.end("a", How::Panic);
    world.settle();
    assert_eq!(
        seen.take(),
        "ended a#1: panicked: a panicked; a: terminated: panicked: a panicked; stopped b#1: shutdown; started a#2; \
         started b#2;"
    );
    stop(&world, &handle);
    assert_eq!(seen.take(), "stopped b#2: shutdown; stopped a#2: shutdown; ?: finished: shutdown;");
}

#[test]
fn a_hook_that_panics_does_no_harm() {
    quiet();
    let (world, log) = (World::new(), Log::default());
    let tree = Supervisor::new(RestartStrategy::OneForOne)
        .child(log.child("a"))
        .listen(|_| panic!("the hook panicked"));
    let handle = start(&world, tree);
    log.end("a", How::Err);
    world.settle();
    assert_eq!(log.take(), "+a -a +a");
    stop(&world, &handle);
    assert_eq!(world.tasks(), 0);
}

#[test]
fn a_subscription_hears_of_the_whole_tree_below_and_never_holds_it_up() {
    let (world, log) = (World::new(), Log::default());
    let inner = log.clone();
    let tree =
        Supervisor::new(RestartStrategy::OneForOne)
            .child(backplane_supervisor::ChildSpec::supervisor("s", move || {
                Supervisor::new(RestartStrategy::OneForOne).child(inner.child("x"))
            }));
    let handle = start(&world, tree);
    let mut reports = handle.reports(4);
    log.end("x", How::Err);
    world.settle();
    let first = reports.try_next().unwrap();
    assert_eq!((&*first.supervisor, first.child.as_deref()), ("root/s", Some("x")));
    assert!(matches!(first.event, Event::Ended { stopped: false, .. }));
    stop(&world, &handle);
    assert_eq!(reports.lost(), 2, "the oldest of those that nobody read");
    let mut last = None;
    while let Some(report) = world.block_on(next(&mut reports)) {
        last = Some(report);
    }
    assert!(matches!(last.unwrap().event, Event::Finished(_)));
}

/// Lends a subscription to a task.
fn next(
    reports: &mut backplane_supervisor::Reports,
) -> impl Future<Output = Option<backplane_supervisor::Report>> + use<> {
    let report = reports.try_next();
    async move { report }
}

#[test]
fn a_snapshot_prints_the_tree() {
    let (world, log) = (World::new(), Log::default());
    let inner = log.clone();
    let tree = Supervisor::new(RestartStrategy::OneForOne).name("app").child(log.child("a")).child(
        backplane_supervisor::ChildSpec::supervisor("s", move || {
            Supervisor::new(RestartStrategy::OneForOne).child(inner.child("x"))
        }),
    );
    let handle = start(&world, tree);
    log.end("x", How::Err);
    world.advance(crate::SECOND);
    let text = handle.snapshot().unwrap().to_string();
    let expected = "app\n  a worker running 1s\n  s supervisor running 1s\n    x worker running 1s, restarts 1, last end: \
                    failed: x failed";
    assert_eq!(text, expected);
    stop(&world, &handle);
}

#[test]
fn who_listened_and_went_leaves_nothing_behind() {
    let (world, log) = (World::new(), Log::default());
    let handle = start(&world, Supervisor::new(RestartStrategy::OneForOne).child(log.child("a")));
    let kept = measure(|| (0..10_000).for_each(|_| drop(handle.reports(10)))).bytes_current;
    assert!(kept < 10_000, "{kept} bytes are kept of 10,000 listeners");
    let mut reports = handle.reports(10);
    log.end("a", How::Err);
    let heard = world.block_on(async move { reports.next().await.is_some() });
    assert!(heard);
    stop(&world, &handle);
}
