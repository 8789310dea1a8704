//! What was taken out of the slot and not looked at yet comes before what its owner does next (invariant 4).

use backplane::{Device, LinkMode, Message};

fn tags(device: &mut Device) -> Vec<u64> {
    let mut tags = Vec::new();
    while let Some(message) = device.try_receive() {
        let Message::Disconnect(news) = message else { panic!("nobody asks anybody to stop") };
        tags.push(news.tag);
    }
    tags
}

/// News that had arrived when its link was undone stays queued, and `flush` takes it out.
#[test]
fn queued_news_outlives_an_unlink_until_it_is_flushed() {
    for taken_before in [false, true] {
        for flushes in [false, true] {
            let (mut a, b, c) = (Device::new(), Device::new(), Device::new());
            let to_b = b.line();
            a.link(&c, LinkMode::Monitor.tag(3));
            a.link(&b, LinkMode::Monitor.tag(2));
            drop(c);
            if taken_before {
                drop(b);
                // Both are taken out of the slot, and one is told.
                assert!(matches!(a.try_receive(), Some(Message::Disconnect(news)) if news.tag == 3));
            } else {
                assert_eq!(tags(&mut a), [3]);
                drop(b);
            }
            a.unlink(&to_b, LinkMode::Monitor);
            if flushes {
                assert_eq!(a.flush(&to_b), 1, "{taken_before}");
            }
            let left: &[u64] = if flushes { &[] } else { &[2] };
            assert_eq!(tags(&mut a), left, "{taken_before}");
        }
    }
}

/// A link that others made, and whose owner has it in its hands but not made yet, is undone by an unlink as any other.
#[test]
fn an_unlink_comes_after_changes_that_were_left_before_it() {
    let (mut a, b, c, gone) = (Device::new(), Device::new(), Device::new(), Device::new());
    a.link(&b, LinkMode::Monitor);
    a.link(&gone, LinkMode::Monitor);
    let (to_a, to_b) = (a.line(), b.line());
    to_a.link(&c.line(), LinkMode::Monitor.tag(3));
    to_a.link(&to_b, LinkMode::Peer);
    drop(gone);
    // All that waits is taken out of the slot; the changes are left for later.
    assert!(a.try_receive().is_some());
    a.unlink(&to_b, LinkMode::Peer);
    assert_eq!(a.try_receive(), None);
    assert!(format!("{a:?}").contains("links: 1"), "{a:?} and {c:?}");
    drop(b);
    drop(c);
    assert_eq!(tags(&mut a), [3]);
}

/// Nothing arrives when an unlink has returned, though the other was in the middle of telling, and though the same link,
/// made by a third, had not been looked at.
#[test]
fn nothing_arrives_after_an_unlink_in_the_middle_of_a_farewell() {
    use std::{
        future::Future,
        pin::pin,
        task::{Context, Poll, Waker},
    };
    let mut cx = Context::from_waker(Waker::noop());
    let b = Device::new();
    let to_b = b.line();
    let mut watchers: Vec<(Device, Device)> = (0..1000)
        .map(|_| {
            let (mut a, c, gone) = (Device::new(), Device::new(), Device::new());
            a.link(&gone, LinkMode::Monitor);
            a.link(&b, LinkMode::Monitor);
            a.line().link(&c.line(), LinkMode::Monitor);
            a.line().link(&to_b, LinkMode::Monitor);
            drop(gone);
            // Takes all that waits out of the slot.
            assert!(a.try_receive().is_some());
            (a, c)
        })
        .collect();
    let mut leaving = pin!(b.depart(backplane::Exit::Normal));
    assert!(leaving.as_mut().poll(&mut cx).is_pending());
    let mut queued = 0;
    for (a, _) in &mut watchers {
        a.unlink(&to_b, LinkMode::Monitor);
        queued += tags(a).len();
    }
    while leaving.as_mut().poll(&mut cx) == Poll::Pending {}
    let late: usize = watchers.iter_mut().map(|(a, _)| tags(a).len()).sum();
    assert!(queued > 0 && queued < 1000, "{queued}");
    assert_eq!(late, 0);
}
