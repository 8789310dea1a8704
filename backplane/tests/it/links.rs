//! Who hears of whom.

use backplane::{Device, Exit, Fault, FaultKind, LinkMode, Message};

use crate::support::{end, ends, kind};

use LinkMode::{Monitor, Notify, Peer};

/// Each way of making or unmaking a link from one to another.
type Way = fn(&Device, &Device, LinkMode);

const LINKS: [Way; 4] = [
    |a, b, mode| a.link(b, mode),
    |a, b, mode| a.link(&b.line(), mode),
    |a, b, mode| a.line().link(b, mode),
    |a, b, mode| a.line().link(&b.line(), mode),
];

const UNLINKS: [Way; 4] = [
    |a, b, mode| a.unlink(b, mode),
    |a, b, mode| a.unlink(&b.line(), mode),
    |a, b, mode| a.line().unlink(b, mode),
    |a, b, mode| a.line().unlink(&b.line(), mode),
];

/// The same link, seen from the other end.
fn reversed(mode: LinkMode) -> LinkMode {
    match mode {
        Monitor => Notify,
        Notify => Monitor,
        Peer => Peer,
    }
}

#[test]
fn a_monitor_hears_and_is_not_heard() {
    for link in LINKS {
        let (a, mut b) = (Device::new(), Device::new());
        link(&b, &a, Monitor);
        let id = a.id();
        a.disconnect(Exit::Normal);
        assert_eq!(ends(&mut b), [(id, Exit::Normal)]);

        let (mut a, b) = (Device::new(), Device::new());
        link(&b, &a, Monitor);
        b.disconnect(Exit::Normal);
        assert_eq!(a.try_receive(), None);
    }
}

#[test]
fn notify_is_monitor_from_the_other_end() {
    for link in LINKS {
        let (mut a, b) = (Device::new(), Device::new());
        link(&b, &a, Notify);
        let id = b.id();
        b.disconnect(Exit::Shutdown);
        assert_eq!(ends(&mut a), [(id, Exit::Shutdown)]);
    }
}

#[test]
fn peers_hear_of_each_other() {
    for link in LINKS {
        for first in [true, false] {
            let (a, b) = (Device::new(), Device::new());
            link(&a, &b, Peer);
            let (ending, mut other) = if first { (a, b) } else { (b, a) };
            let id = ending.id();
            ending.disconnect(Exit::Normal);
            assert_eq!(ends(&mut other), [(id, Exit::Normal)]);
        }
    }
}

#[test]
fn a_link_can_be_undone_by_any_handle_of_either_end() {
    for link in LINKS {
        for unlink in UNLINKS {
            for mode in [Monitor, Notify, Peer] {
                for other_end in [false, true] {
                    let (mut a, mut b) = (Device::new(), Device::new());
                    link(&a, &b, mode);
                    match other_end {
                        false => unlink(&a, &b, mode),
                        true => unlink(&b, &a, reversed(mode)),
                    }
                    let (c, d) = (Device::new(), Device::new());
                    // Each ends while the other is there to hear it.
                    let (line_a, line_b) = (a.line(), b.line());
                    std::mem::replace(&mut a, c).disconnect(Exit::Normal);
                    assert_eq!(b.try_receive(), None, "{mode:?}");
                    std::mem::replace(&mut b, d).disconnect(Exit::Normal);
                    assert!(!line_a.is_alive() && !line_b.is_alive());
                }
            }
        }
    }
}

#[test]
fn modes_add_and_subtract() {
    for link in LINKS {
        for unlink in UNLINKS {
            // Monitor and Notify is Peer; Peer less Notify is Monitor.
            let (mut a, b) = (Device::new(), Device::new());
            link(&a, &b, Monitor);
            link(&a, &b, Notify);
            unlink(&a, &b, Notify);
            b.disconnect(Exit::Normal);
            assert_eq!(ends(&mut a).len(), 1);

            let (a, mut b) = (Device::new(), Device::new());
            link(&a, &b, Peer);
            unlink(&a, &b, Monitor);
            a.disconnect(Exit::Normal);
            assert_eq!(ends(&mut b).len(), 1);
        }
    }
}

#[test]
fn linking_twice_is_one_link() {
    for first in LINKS {
        for second in LINKS {
            let (mut a, b) = (Device::new(), Device::new());
            first(&a, &b, Peer);
            second(&b, &a, Peer);
            b.disconnect(Exit::Normal);
            assert_eq!(ends(&mut a).len(), 1);
        }
    }
}

#[test]
fn linking_with_the_dead_says_gone_at_once() {
    let dead = || {
        let device = Device::new();
        let line = device.line();
        device.disconnect(Exit::Normal);
        line
    };
    let mut a = Device::new();
    for mode in [Monitor, Peer] {
        let (b, c) = (dead(), dead());
        a.link(&b, mode);
        a.line().link(&c, mode);
        for line in [b, c] {
            let news = end(&mut a);
            assert_eq!((news.device, kind(&news.exit)), (line.id(), Some(FaultKind::Gone)));
        }
        // And from the other end, where it is a notification of the dead.
        for line in [b, c] {
            line.link(&a, reversed(mode));
            assert_eq!(kind(&end(&mut a).exit), Some(FaultKind::Gone));
            line.link(&a.line(), reversed(mode));
            assert_eq!(kind(&end(&mut a).exit), Some(FaultKind::Gone));
        }
    }
    // Who is to be told, and not to hear, hears nothing.
    a.link(&dead(), Notify);
    a.line().link(&dead(), Notify);
    dead().link(&dead(), Peer);
    assert_eq!(a.try_receive(), None);
}

#[test]
fn linking_with_oneself_is_no_link() {
    for link in LINKS {
        let mut a = Device::new();
        link(&a, &a, Peer);
        assert_eq!(a.try_receive(), None);
    }
}

#[test]
fn unlinking_what_is_not_linked_does_nothing() {
    for unlink in UNLINKS {
        let (mut a, b) = (Device::new(), Device::new());
        unlink(&a, &b, Peer);
        a.link(&b, Monitor);
        unlink(&a, &b, Notify);
        b.disconnect(Exit::Normal);
        assert_eq!(ends(&mut a).len(), 1);
    }
}

#[test]
fn queued_news_stays_after_an_unlink_and_goes_with_a_flush() {
    for unlink in UNLINKS {
        let (mut a, b, c) = (Device::new(), Device::new(), Device::new());
        a.link(&b, Monitor);
        a.link(&c, Monitor);
        let (b_line, c_id) = (b.line(), c.id());
        let standin = Device::new();
        b.disconnect(Exit::Normal);
        c.disconnect(Exit::Normal);
        // The handle of the dead is gone; its line is not.
        match UNLINKS.iter().position(|way| std::ptr::fn_addr_eq(*way, unlink)) {
            Some(0 | 1) => a.unlink(&b_line, Monitor),
            _ => a.line().unlink(&b_line, Monitor),
        }
        drop(standin);
        assert_eq!(a.flush(&b_line), 1);
        assert_eq!(a.flush(&b_line), 0);
        assert_eq!(ends(&mut a).iter().map(|(id, _)| *id).collect::<Vec<_>>(), [c_id]);
    }
    let (mut a, b) = (Device::new(), Device::new());
    a.link(&b, Monitor);
    let line = b.line();
    b.disconnect(Exit::Normal);
    a.unlink(&line, Monitor);
    assert_eq!(ends(&mut a), [(line.id(), Exit::Normal)]);
}

#[test]
fn a_link_made_again_after_an_unlink_is_a_link() {
    for link in LINKS {
        for unlink in UNLINKS {
            let (mut a, b) = (Device::new(), Device::new());
            link(&a, &b, Monitor);
            unlink(&a, &b, Monitor);
            link(&a, &b, Monitor);
            b.disconnect(Exit::Normal);
            assert_eq!(ends(&mut a).len(), 1);
        }
    }
}

#[test]
fn news_comes_in_the_order_in_which_it_was_sent() {
    let mut a = Device::new();
    let others: Vec<Device> = (0..1_000).map(|_| Device::new()).collect();
    let ids: Vec<_> = others.iter().map(Device::id).collect();
    for (i, other) in others.iter().enumerate() {
        match i % 3 {
            0 => a.link(other, Monitor),
            1 => a.line().link(&other.line(), Monitor),
            _ => other.link(&a.line(), Notify),
        }
    }
    for other in others {
        // What one device sends arrives in order: first the request, then its end.
        a.line().shutdown(other.id());
        other.disconnect(Exit::Normal);
    }
    for id in ids {
        assert_eq!(a.try_receive(), Some(Message::Shutdown(id)));
        assert_eq!(end(&mut a).device, id);
    }
    assert_eq!(a.try_receive(), None);
}

#[test]
fn a_tag_comes_back_and_the_last_one_counts() {
    for (i, link) in LINKS.iter().enumerate() {
        let (mut a, b) = (Device::new(), Device::new());
        a.link(&b, Monitor.tag(1));
        match i {
            0 => a.link(&b, Monitor.tag(2)),
            1 => a.line().link(&b.line(), Monitor.tag(2)),
            2 => b.link(&a.line(), Notify.tag(2)),
            _ => b.line().link(&a, Notify.tag(2)),
        }
        link(&b, &a, Monitor);
        drop(b);
        assert_eq!(end(&mut a).tag, 2);
    }
}

#[test]
fn the_two_directions_of_a_pair_have_tags_of_their_own() {
    let (mut a, b) = (Device::new(), Device::new());
    b.link(&a.line(), Notify.tag(7));
    b.link(&a.line(), Monitor.tag(8));
    drop(b);
    assert_eq!(end(&mut a).tag, 7);

    let (a, mut b) = (Device::new(), Device::new());
    b.link(&a.line(), Notify.tag(7));
    b.link(&a.line(), Monitor.tag(8));
    drop(a);
    assert_eq!(end(&mut b).tag, 8);
}

#[test]
fn a_line_does_not_keep_its_device_alive_and_knows_it() {
    let device = Device::new();
    let line = device.line();
    assert!(line.is_alive());
    assert_eq!(line.id(), device.id());
    drop(device);
    assert!(!line.is_alive());
    // Nor does it come to mean another one.
    let others: Vec<Device> = (0..1_000).map(|_| Device::new()).collect();
    assert!(!line.is_alive());
    assert!(others.iter().all(|other| other.line() != line && other.id() != line.id()));
}

#[test]
fn ids_are_never_reused() {
    let mut seen = std::collections::HashSet::new();
    for _ in 0..1_000 {
        let some: Vec<Device> = (0..100).map(|_| Device::new()).collect();
        assert!(some.iter().all(|device| seen.insert(device.id())));
    }
}

#[test]
fn a_dropped_device_is_a_fault_and_a_condemned_one_is_killed() {
    for (condemned, expected) in [(false, FaultKind::Dropped), (true, FaultKind::Killed)] {
        let (mut a, b) = (Device::new(), Device::new());
        a.link(&b, Monitor);
        if condemned {
            b.line().condemn();
        }
        drop(b);
        assert_eq!(kind(&end(&mut a).exit), Some(expected));
    }
    // Who leaves with a word is not killed.
    let (mut a, b) = (Device::new(), Device::new());
    a.link(&b, Monitor);
    b.line().condemn();
    b.disconnect(Exit::Normal);
    assert_eq!(end(&mut a).exit, Exit::Normal);
}

#[test]
fn a_request_to_stop_is_told_once_while_it_waits() {
    let (mut a, b) = (Device::new(), Device::new());
    for _ in 0..1_000 {
        a.line().shutdown(b.id());
    }
    assert_eq!(a.try_receive(), Some(Message::Shutdown(b.id())));
    assert_eq!(a.try_receive(), None);
    a.line().shutdown(b.id());
    a.line().shutdown(a.id());
    a.line().shutdown(a.id());
    assert_eq!(std::iter::from_fn(|| a.try_receive()).count(), 3);
}

#[test]
fn a_fault_given_is_the_fault_heard() {
    let (mut a, b) = (Device::new(), Device::new());
    a.link(&b, Monitor);
    b.disconnect(Exit::Fault(Fault::error("disk full")));
    assert_eq!(end(&mut a).exit, Exit::Fault(Fault::error("disk full")));
}
