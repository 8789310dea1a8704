//! Names and groups against ends.

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use backplane::{Device, Exit, LinkMode};
use backplane_actor::{Groups, Registry};
use loom::thread;

struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Who has heard of the owner's end gets the name, and who gets it keeps it.
#[test]
fn a_successor_that_has_heard_of_the_end_gets_the_name() {
    loom::model(|| {
        let names: Registry<u32, u32> = Registry::new();
        let (mut heir, owner) = (Device::new(), Device::new());
        heir.link(&owner, LinkMode::Monitor);
        names.register(1, &owner.line(), 1).expect("it is free");
        let ending = thread::spawn(move || owner.disconnect(Exit::Normal));
        let early = names.register(1, &heir.line(), 2).is_ok();
        if heir.try_receive().is_some() {
            assert_eq!(names.register(1, &heir.line(), 3).is_err(), early);
            assert_eq!(names.lookup(&1), Some(if early { 2 } else { 3 }));
        }
        ending.join().expect("it does not panic");
        assert_eq!(names.register(1, &heir.line(), 4).is_ok(), names.lookup(&1) == Some(4));
        assert_eq!(names.entries(), 1);
    });
}

/// Two heirs of one name: one gets it, and the other is told who.
#[test]
fn of_two_heirs_one_gets_the_name() {
    loom::model(|| {
        let names: Registry<u32, u32> = Registry::new();
        let (old, first, second) = (Device::new(), Device::new(), Device::new());
        names.register(1, &old.line(), 0).expect("it is free");
        drop(old);
        let other = {
            let (names, line) = (names.clone(), second.line());
            thread::spawn(move || {
                names.register(1, &line, 2).map_err(|error| error.holder().map(|h| h.value))
            })
        };
        let mine = names.register(1, &first.line(), 1).map_err(|error| error.holder().map(|h| h.value));
        let theirs = other.join().expect("it does not panic");
        assert!(
            (mine, theirs) == (Ok(()), Err(Some(1))) || (mine, theirs) == (Err(Some(2)), Ok(())),
            "{mine:?} {theirs:?}"
        );
    });
}

/// A wait that races with the registration ends, or is woken.
#[test]
fn a_wait_against_a_registration_is_told() {
    loom::model(|| {
        let names: Registry<u32, u32> = Registry::new();
        let owner = Device::new();
        let registering = {
            let (names, line) = (names.clone(), owner.line());
            thread::spawn(move || names.register(1, &line, 1).expect("it is free"))
        };
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&count));
        let cx = &mut Context::from_waker(&waker);
        let mut waiting = pin!(names.wait_for(1));
        if waiting.as_mut().poll(cx).is_pending() {
            registering.join().expect("it does not panic");
            assert_eq!(count.0.load(Ordering::SeqCst), 1);
            assert_eq!(waiting.as_mut().poll(cx), Poll::Ready(1));
        } else {
            registering.join().expect("it does not panic");
        }
        assert_eq!(Arc::strong_count(&count), 2, "nothing of it is left");
    });
}

/// A member that ends while it joins, and while somebody else joins: it is heard to come and to go, once.
#[test]
fn an_end_against_joins_is_heard_once() {
    let mut model = loom::model::Builder::new();
    // All of them take a minute, and are passed too.
    model.preemption_bound = Some(3);
    model.check(|| {
        let groups: Groups<u32, u32> = Groups::new();
        let (a, b) = (Device::new(), Device::new());
        let (_, mut changes) = groups.monitor(1);
        groups.join(1, &a.line(), 1).expect("it lives");
        let ending = thread::spawn(move || a.disconnect(Exit::Normal));
        groups.join(1, &b.line(), 2).expect("it lives");
        drop(b);
        ending.join().expect("it does not panic");
        let mut heard = Vec::new();
        while let Some(change) = changes.try_receive() {
            heard.push((change.is_join(), change.member().value));
        }
        assert_eq!(heard[0], (true, 1));
        heard.sort_unstable();
        assert_eq!(heard, [(false, 1), (false, 2), (true, 1), (true, 2)]);
    });
}

/// One that joins while its own end comes: it was refused, or it came and went.
#[test]
fn a_join_against_the_members_end_is_undone() {
    loom::model(|| {
        let groups: Groups<u32, u32> = Groups::new();
        let (_, mut changes) = groups.monitor(1);
        let a = Device::new();
        let line = a.line();
        let ending = thread::spawn(move || a.disconnect(Exit::Normal));
        let joined = groups.join(1, &line, 1).is_ok();
        ending.join().expect("it does not panic");
        let mut heard = Vec::new();
        while let Some(change) = changes.try_receive() {
            heard.push(change.is_join());
        }
        assert_eq!(heard, if joined { vec![true, false] } else { vec![] });
        assert!(groups.members(&1).is_empty());
    });
}
