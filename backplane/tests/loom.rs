//! Every interleaving of a few short stories. Run with `RUSTFLAGS="--cfg backplane_loom"`; without it there is nothing here.
//!
//! `.ci/mutants` breaks the order that each model guards, and sees the model go red.
#![cfg(backplane_loom)]

use std::{
    convert::Infallible,
    future::{Future, pending},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use backplane::{Crash, Device, Exit, FaultKind, LinkMode, Message};
use loom::thread;

/// How many ends the device has heard of, and of what kinds.
fn heard(device: &mut Device) -> Vec<Option<FaultKind>> {
    let mut kinds = Vec::new();
    while let Some(message) = device.try_receive() {
        let Message::Disconnect(news) = message else { panic!("nobody asks anybody to stop") };
        kinds.push(news.exit.fault().map(|fault| fault.kind()));
    }
    kinds
}

/// A link that races with the end is heard once: as it was, or as gone.
#[test]
fn a_link_against_an_end_is_heard_once() {
    loom::model(|| {
        let (mut a, b) = (Device::new(), Device::new());
        let line = b.line();
        let ending = thread::spawn(move || b.disconnect(Exit::Normal));
        a.link(&line, LinkMode::Monitor);
        ending.join().expect("it does not panic");
        let heard = heard(&mut a);
        assert!(heard == [None] || heard == [Some(FaultKind::Gone)], "{heard:?}");
    });
}

/// The same where somebody watched before, so that there is a time in which watchers are told.
#[test]
fn a_link_against_an_end_that_others_watch_is_heard_once() {
    loom::model(|| {
        let (mut a, b, mut other) = (Device::new(), Device::new(), Device::new());
        other.link(&b, LinkMode::Monitor);
        let line = b.line();
        let ending = thread::spawn(move || b.disconnect(Exit::Normal));
        a.link(&line, LinkMode::Monitor);
        ending.join().expect("it does not panic");
        let heard_here = heard(&mut a);
        assert!(heard_here == [None] || heard_here == [Some(FaultKind::Gone)], "{heard_here:?}");
        assert_eq!(heard(&mut other), [None]);
    });
}

/// The same where the link is made by a third, through lines.
#[test]
fn a_link_by_a_third_against_an_end_is_heard_once() {
    loom::model(|| {
        let (mut a, b) = (Device::new(), Device::new());
        let (from, to) = (a.line(), b.line());
        let linking = thread::spawn(move || from.link(&to, LinkMode::Monitor));
        b.disconnect(Exit::Normal);
        linking.join().expect("it does not panic");
        let heard = heard(&mut a);
        assert!(heard == [None] || heard == [Some(FaultKind::Gone)], "{heard:?}");
    });
}

/// A link made by its owner is heard as it ended, whatever a third does meanwhile; the third's link is the same, or, if
/// it came after the news, one more.
#[test]
fn a_link_made_twice_is_heard_as_it_ended() {
    loom::model(|| {
        let (mut a, b) = (Device::new(), Device::new());
        let (from, to) = (a.line(), b.line());
        let linking = thread::spawn(move || from.link(&to, LinkMode::Monitor));
        a.link(&to, LinkMode::Monitor);
        b.disconnect(Exit::Normal);
        linking.join().expect("it does not panic");
        let heard = heard(&mut a);
        let third = heard.get(1).copied().flatten();
        assert!(heard[0].is_none() && heard.len() <= 2, "{heard:?}");
        assert!(third.is_none_or(|kind| kind == FaultKind::Gone), "{heard:?}");
    });
}

/// Two devices link as peers, each from its own side, at the same time: one link, and each end is heard.
#[test]
fn crossed_peer_links_are_one_link() {
    loom::model(|| {
        let (mut a, b) = (Device::new(), Device::new());
        let (to_a, to_b) = (a.line(), b.line());
        let other = thread::spawn(move || {
            b.link(&to_a, LinkMode::Peer);
            b
        });
        a.link(&to_b, LinkMode::Peer);
        let b = other.join().expect("it does not panic");
        assert_eq!(a.try_receive(), None);
        b.disconnect(Exit::Normal);
        assert_eq!(heard(&mut a), [None]);
    });
}

/// A third links two as peers while one of them ends: the other hears once.
#[test]
fn a_peer_link_by_a_third_against_an_end_is_heard_once() {
    loom::model(|| {
        let (mut a, b) = (Device::new(), Device::new());
        let (from, to) = (b.line(), a.line());
        let linking = thread::spawn(move || from.link(&to, LinkMode::Peer));
        b.disconnect(Exit::Normal);
        linking.join().expect("it does not panic");
        let heard = heard(&mut a);
        assert!(heard == [None] || heard == [Some(FaultKind::Gone)], "{heard:?}");
    });
}

/// Two peers end at once: neither waits for the other, and a third who watches both hears of both.
#[test]
fn two_peers_that_end_at_once_are_both_heard() {
    loom::model(|| {
        let (mut watcher, a, b) = (Device::new(), Device::new(), Device::new());
        a.link(&b, LinkMode::Peer);
        watcher.link(&a, LinkMode::Monitor);
        watcher.link(&b, LinkMode::Monitor);
        let other = thread::spawn(move || a.disconnect(Exit::Normal));
        b.disconnect(Exit::Shutdown);
        other.join().expect("it does not panic");
        assert_eq!(heard(&mut watcher).len(), 2);
    });
}

/// When unlink has returned, nothing of the link arrives, though the other is ending at that very time.
#[test]
fn nothing_arrives_after_an_unlink() {
    loom::model(|| {
        let (mut a, b) = (Device::new(), Device::new());
        a.link(&b, LinkMode::Monitor);
        let to_b = b.line();
        let ending = thread::spawn(move || b.disconnect(Exit::Normal));
        a.unlink(&to_b, LinkMode::Monitor);
        let queued = heard(&mut a).len();
        ending.join().expect("it does not panic");
        let late = heard(&mut a).len();
        assert!(queued <= 1 && late == 0, "{queued} queued, {late} late");
    });
}

/// The same where a third unlinks.
#[test]
fn nothing_arrives_after_a_remote_unlink() {
    loom::model(|| {
        let (mut a, b) = (Device::new(), Device::new());
        a.link(&b, LinkMode::Monitor);
        let (from, to) = (a.line(), b.line());
        let ending = thread::spawn(move || b.disconnect(Exit::Normal));
        from.unlink(&to, LinkMode::Monitor);
        let queued = heard(&mut a).len();
        ending.join().expect("it does not panic");
        let late = heard(&mut a).len();
        assert!(queued <= 1 && late == 0, "{queued} queued, {late} late");
    });
}

/// A link and an unlink of the same, from two sides at once: whoever watches in the end is told.
#[test]
fn a_link_against_an_unlink_leaves_no_watcher_untold() {
    loom::model(|| {
        let (mut a, b) = (Device::new(), Device::new());
        let (to_a, to_b) = (a.line(), b.line());
        let other = thread::spawn(move || {
            b.unlink(&to_a, LinkMode::Notify);
            b
        });
        a.link(&to_b, LinkMode::Monitor);
        let b = other.join().expect("it does not panic");
        // Whether the link is there now is for the race to say; `flush` looks at what the other side has said.
        a.flush(&to_b);
        let watches = format!("{a:?}").contains("links: 1");
        b.disconnect(Exit::Normal);
        assert_eq!(heard(&mut a).len(), usize::from(watches));
    });
}

/// The same where a third links and another third unlinks.
#[test]
fn thirds_that_link_and_unlink_leave_no_watcher_untold() {
    loom::model(|| {
        let (mut a, b) = (Device::new(), Device::new());
        let (to_a, to_b) = (a.line(), b.line());
        let linking = thread::spawn(move || to_a.link(&to_b, LinkMode::Monitor));
        to_b.unlink(&to_a, LinkMode::Notify);
        linking.join().expect("it does not panic");
        a.flush(&to_b);
        let watches = format!("{a:?}").contains("links: 1");
        b.disconnect(Exit::Normal);
        assert_eq!(heard(&mut a).len(), usize::from(watches));
    });
}

/// A third unlinks two peers while who owns both links them: whoever watches in the end is told.
#[test]
fn a_link_of_two_at_hand_against_an_unlink_leaves_no_watcher_untold() {
    loom::model(|| {
        let (a, mut b) = (Device::new(), Device::new());
        let (to_a, to_b) = (a.line(), b.line());
        let unlinking = thread::spawn(move || to_a.unlink(&to_b, LinkMode::Peer));
        a.link(&b, LinkMode::Peer);
        unlinking.join().expect("it does not panic");
        b.flush(&a);
        // What is there is the whole of its half or nothing: each is left, or made, in one go.
        let watches = format!("{b:?}").contains("links: 1");
        a.disconnect(Exit::Normal);
        assert_eq!(heard(&mut b).len(), usize::from(watches));
    });
}

/// Whatever a third does to the two meanwhile, and whichever way round: who watches in the end is told, once; and by who links
/// nothing is undone.
#[test]
fn a_link_of_two_at_hand_against_whatever_leaves_no_watcher_untold() {
    let modes = [LinkMode::Monitor, LinkMode::Notify, LinkMode::Peer];
    for case in 0..48 {
        let (unlinks, crosswise, linked, first_ends) =
            (case & 1 != 0, case & 2 != 0, case & 4 != 0, case & 8 != 0);
        let mode = modes[case >> 4];
        loom::model(move || {
            let (a, b) = (Device::new(), Device::new());
            let (to_a, to_b) = (a.line(), b.line());
            if linked {
                a.link(&b, LinkMode::Peer);
            }
            let (from, to) = if crosswise { (to_b, to_a) } else { (to_a, to_b) };
            let third = thread::spawn(move || match unlinks {
                true => from.unlink(&to, mode),
                false => from.link(&to, mode),
            });
            a.link(&b, LinkMode::Peer);
            third.join().expect("it does not panic");
            let (ends, mut stays) = if first_ends { (a, b) } else { (b, a) };
            let ended = ends.line();
            ends.disconnect(Exit::Normal);
            let heard = heard(&mut stays);
            assert!(heard == [None] || unlinks && heard.is_empty(), "{heard:?}");
            // What is left then would be an end that is not heard of.
            stays.unlink(&ended, LinkMode::Notify);
            assert!(format!("{stays:?}").contains("links: 0"), "{stays:?} heard {heard:?}");
        });
    }
}

/// Undone and made again by its owner while the other ends: one link, heard once.
#[test]
fn a_link_made_again_by_its_owner_against_an_end_is_heard_once() {
    loom::model(|| {
        let (mut a, b) = (Device::new(), Device::new());
        let to_b = b.line();
        a.link(&b, LinkMode::Monitor);
        let ending = thread::spawn(move || b.disconnect(Exit::Normal));
        a.unlink(&to_b, LinkMode::Monitor);
        let before = heard(&mut a);
        a.link(&to_b, LinkMode::Monitor);
        ending.join().expect("it does not panic");
        let after = heard(&mut a);
        assert!(before.len() <= 1 && after.len() == 1, "{before:?}, then {after:?}");
    });
}

/// The same through lines.
#[test]
fn a_link_made_again_through_lines_against_an_end_is_heard_once() {
    loom::model(|| {
        let (mut a, b) = (Device::new(), Device::new());
        let (to_a, to_b) = (a.line(), b.line());
        a.link(&b, LinkMode::Monitor);
        let ending = thread::spawn(move || b.disconnect(Exit::Normal));
        to_a.unlink(&to_b, LinkMode::Monitor);
        let before = heard(&mut a);
        to_a.link(&to_b, LinkMode::Monitor);
        ending.join().expect("it does not panic");
        let after = heard(&mut a);
        assert!(before.len() <= 1 && after.len() == 1, "{before:?}, then {after:?}");
    });
}

/// A third makes a link and finds the other gone, while the watcher's table is full and forgets.
#[test]
fn a_full_table_does_not_forget_a_link_that_is_being_made() {
    loom::model(|| {
        let (mut a, b, c, d) = (Device::new(), Device::new(), Device::new(), Device::new());
        let (to_a, to_b, to_d) = (a.line(), b.line(), d.line());
        a.link(&c, LinkMode::Monitor);
        drop(b);
        let linking = thread::spawn(move || to_a.link(&to_b, LinkMode::Monitor));
        // Looks at what the third has left, and makes room for one more; twice, for there are two to forget.
        a.link(&to_d, LinkMode::Monitor);
        a.unlink(&to_d, LinkMode::Monitor);
        a.link(&d, LinkMode::Monitor);
        linking.join().expect("it does not panic");
        assert_eq!(heard(&mut a), [Some(FaultKind::Gone)]);
        drop((c, d));
    });
}

/// A table that is full forgets whom nobody needs to hear of any more, and nobody else.
#[test]
fn a_full_table_does_not_forget_news_on_its_way() {
    loom::model(|| {
        let (mut a, b, c, d) = (Device::new(), Device::new(), Device::new(), Device::new());
        a.link(&b, LinkMode::Monitor);
        a.link(&c, LinkMode::Monitor);
        let ending = thread::spawn(move || b.disconnect(Exit::Normal));
        // A third one does not fit beside the two.
        a.link(&d, LinkMode::Monitor);
        ending.join().expect("it does not panic");
        drop((c, d));
        assert_eq!(heard(&mut a).len(), 3);
    });
}

/// A line of the generation before does not reach the device that has its slot now.
#[test]
fn a_late_line_does_not_reach_the_next_device() {
    loom::model(|| {
        let (mut a, b) = (Device::new(), Device::new());
        let (from, to) = (a.line(), b.line());
        let linking = thread::spawn(move || to.link(&from, LinkMode::Notify));
        b.disconnect(Exit::Normal);
        let c = Device::new();
        linking.join().expect("it does not panic");
        c.disconnect_quietly_if(|c| c.try_receive().is_none());
        let heard = heard(&mut a);
        assert!(heard == [None] || heard == [Some(FaultKind::Gone)], "{heard:?}");
    });
}

trait Quietly {
    fn disconnect_quietly_if(self, sound: impl FnOnce(&mut Device) -> bool);
}

impl Quietly for Device {
    fn disconnect_quietly_if(mut self, sound: impl FnOnce(&mut Device) -> bool) {
        assert!(sound(&mut self), "the next device heard what was meant for the one before");
        self.disconnect(Exit::Shutdown);
    }
}

/// Counts its wakes.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Whoever waits for news is woken for it, or had it before it began to wait.
#[test]
fn news_wakes_whoever_waits() {
    loom::model(|| {
        let (mut a, b) = (Device::new(), Device::new());
        a.link(&b, LinkMode::Monitor);
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut cx = Context::from_waker(&waker);
        let ending = thread::spawn(move || b.disconnect(Exit::Normal));
        let first = a.poll_receive(&mut cx);
        // Another waker takes the place of the first.
        let second = Arc::new(Count::default());
        let again = first.is_pending().then(|| {
            let waker = Waker::from(Arc::clone(&second));
            a.poll_receive(&mut Context::from_waker(&waker))
        });
        ending.join().expect("it does not panic");
        let waits = first.is_pending() && again.is_some_and(|again| again.is_pending());
        if waits {
            assert_eq!(second.0.load(Ordering::SeqCst), 1, "nobody woke the one who waits");
            assert!(a.poll_receive(&mut cx).is_ready());
        }
    });
}

/// One that waits for news ends on a way of its own: a link or an unlink that races with that is heard as ever.
#[test]
fn an_end_of_one_who_waits_is_heard_once() {
    for case in 0..12 {
        let (unlinks, by_lines, watched) = (case & 1 != 0, case & 2 != 0, case >> 2);
        loom::model(move || {
            let (mut a, mut b, mut other) = (Device::new(), Device::new(), Device::new());
            let (to_a, to_b) = (a.line(), b.line());
            match watched {
                0 => {}
                1 => other.link(&b, LinkMode::Monitor),
                // As a change that waits.
                _ => other.line().link(&to_b, LinkMode::Monitor),
            }
            if unlinks {
                a.link(&b, LinkMode::Monitor);
            }
            assert!(b.poll_receive(&mut Context::from_waker(Waker::noop())).is_pending());
            let ending = thread::spawn(move || b.disconnect(Exit::Normal));
            match (unlinks, by_lines) {
                (true, true) => to_a.unlink(&to_b, LinkMode::Monitor),
                (true, false) => a.unlink(&to_b, LinkMode::Monitor),
                (false, true) => to_a.link(&to_b, LinkMode::Monitor),
                (false, false) => a.link(&to_b, LinkMode::Monitor),
            }
            let queued = heard(&mut a);
            ending.join().expect("it does not panic");
            let late = heard(&mut a);
            let all: Vec<_> = queued.iter().chain(&late).copied().collect();
            let once = all == [None] || all == [Some(FaultKind::Gone)];
            assert!(
                if unlinks { queued.len() <= 1 && late.is_empty() } else { once },
                "{queued:?}, {late:?}"
            );
            assert_eq!(heard(&mut other).len(), usize::from(watched > 0));
        });
    }
}

/// A managed future is woken by a fault that comes while it is polled.
#[test]
fn a_managed_future_hears_while_it_is_polled() {
    loom::model(|| {
        let (a, b) = (Device::new(), Device::new());
        a.link(&b, LinkMode::Monitor);
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut cx = Context::from_waker(&waker);
        let mut managed = pin!(a.manage(pending::<Result<(), Infallible>>()));
        let ending = thread::spawn(move || drop(b));
        let mut poll = managed.as_mut().poll(&mut cx);
        ending.join().expect("it does not panic");
        if poll.is_pending() {
            assert!(count.0.load(Ordering::SeqCst) >= 1, "nobody woke it");
            poll = managed.as_mut().poll(&mut cx);
        }
        assert!(matches!(poll, Poll::Ready(Err(Crash::Cascade(_)))));
    });
}

/// Makes the device's slot say that something was forgotten: of two changes that wait, the first is of one who has told
/// everybody. Returns whom it watches from then on.
fn forgets(a: &mut Device) -> Device {
    let (gone, other) = (Device::new(), Device::new());
    a.line().link(&gone.line(), LinkMode::Monitor);
    drop(gone);
    a.line().link(&other.line(), LinkMode::Monitor);
    assert_eq!(heard(a), [Some(FaultKind::Dropped)]);
    other
}

/// A third makes a link and finds the other gone, while what it has left is forgotten for another's change.
#[test]
fn a_crowded_slot_does_not_forget_a_link_that_is_being_made() {
    loom::model(|| {
        let (mut a, b, d) = (Device::new(), Device::new(), Device::new());
        let (to_a, to_b, to_d) = (a.line(), b.line(), d.line());
        drop(b);
        let linking = thread::spawn(move || to_a.link(&to_b, LinkMode::Monitor));
        to_a.link(&to_d, LinkMode::Monitor);
        linking.join().expect("it does not panic");
        assert_eq!(heard(&mut a), [Some(FaultKind::Gone)]);
        drop(d);
        assert_eq!(heard(&mut a), [Some(FaultKind::Dropped)]);
    });
}

/// A link by a third that is heard as the other ends is not heard once more as gone, though something else was forgotten
/// long before. (The other tells because of a link that was undone while it ended.)
#[test]
fn what_was_forgotten_before_a_link_is_not_of_it() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(5);
    model.check(|| {
        let (mut a, b) = (Device::new(), Device::new());
        let other = forgets(&mut a);
        let (to_a, to_b) = (a.line(), b.line());
        a.link(&b, LinkMode::Monitor);
        let ending = thread::spawn(move || b.disconnect(Exit::Normal));
        a.unlink(&to_b, LinkMode::Monitor);
        heard(&mut a);
        let linking = thread::spawn(move || to_a.link(&to_b, LinkMode::Monitor));
        let mut after = heard(&mut a);
        ending.join().expect("it does not panic");
        linking.join().expect("it does not panic");
        after.extend(heard(&mut a));
        assert!(after == [None] || after == [Some(FaultKind::Gone)], "{after:?}");
        drop(other);
    });
}

/// A device whose line nobody was given ends while one that it watches tells it: its slot is sound for the next, whichever
/// of the two began the link, and whoever watches whom.
#[test]
fn an_end_of_an_unknown_device_against_news_leaves_its_slot_sound() {
    let (peer, here, there) = (LinkMode::Peer, LinkMode::Monitor, LinkMode::Notify);
    for (begins_here, mode) in [(true, here), (false, there), (true, peer), (false, peer)] {
        for watched in [true, false] {
            loom::model(move || {
                let (mut watcher, a, b) = (Device::new(), Device::new(), Device::new());
                let before = a.id();
                match begins_here {
                    true => a.link(&b, mode),
                    false => b.link(&a, mode),
                }
                if watched {
                    watcher.link(&a, LinkMode::Monitor);
                }
                let telling = thread::spawn(move || b.disconnect(Exit::Normal));
                a.disconnect(Exit::Shutdown);
                // In the slot that has just become free.
                let next = Device::new();
                telling.join().expect("it does not panic");
                assert!(next.id() != before, "a name was used twice");
                assert!(next.line().is_alive());
                next.disconnect_quietly_if(|next| next.try_receive().is_none());
                assert_eq!(heard(&mut watcher).len(), usize::from(watched));
            });
        }
    }
}
