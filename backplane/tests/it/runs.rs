//! Watching and receiving: fair, and safe to cancel.

use std::{
    future::{Future, pending, poll_fn},
    pin::pin,
    task::{Context, Poll, Waker},
};

use backplane::{Device, Exit, LinkMode, Message, Watched};

use crate::support::{Wakes, ends, now, poll};

#[test]
fn watch_returns_news_then_the_value() {
    let (mut a, b) = (Device::new(), Device::new());
    a.link(&b, LinkMode::Monitor);
    drop(b);
    let mut work = pin!(async { 42 });
    assert!(matches!(now(a.watch(work.as_mut())), Watched::Message(Message::Disconnect(_))));
    assert!(matches!(now(a.watch(work.as_mut())), Watched::Value(42)));
}

#[test]
fn watch_returns_a_panic_and_leaves_the_device_open() {
    let mut a = Device::new();
    let mut work = pin!(async { panic!("out of beans") });
    let Watched::Panic(panic) = now(a.watch::<_>(work.as_mut())) else { panic!("it did not panic") };
    assert_eq!(panic.message(), Some("out of beans"));
    assert!(a.line().is_alive());
}

#[test]
fn a_flood_of_news_does_not_starve_the_future() {
    let (mut a, line) = {
        let a = Device::new();
        let line = a.line();
        (a, line)
    };
    let (mut polls, mut news) = (0, 0);
    let mut work = pin!(poll_fn(|_| {
        polls += 1;
        if polls == 100 { Poll::Ready(()) } else { Poll::Pending }
    }));
    let other = Device::new().id();
    loop {
        // There is always more.
        line.shutdown(other);
        line.shutdown(line.id());
        match now(a.watch(work.as_mut())) {
            Watched::Message(_) => news += 1,
            Watched::Value(()) => break,
            Watched::Panic(panic) => panic.resume(),
        }
    }
    assert!((99..=101).contains(&news), "{news} news between 100 polls");
}

#[test]
fn a_future_that_is_always_busy_does_not_starve_the_news() {
    let (mut a, b) = (Device::new(), Device::new());
    a.link(&b, LinkMode::Monitor);
    let mut work = pin!(poll_fn(|cx: &mut Context<'_>| {
        cx.waker().wake_by_ref();
        Poll::<()>::Pending
    }));
    assert!(poll(pin!(a.watch(work.as_mut()))).is_pending());
    drop(b);
    assert!(matches!(now(a.watch(work.as_mut())), Watched::Message(_)));
}

#[test]
fn a_managed_future_is_polled_under_a_flood_of_news() {
    use backplane::OnFault;
    let mut a = Device::new();
    a.on_fault(OnFault::Ignore);
    let many: Vec<Device> = (0..10_000).map(|_| Device::new()).collect();
    for device in &many {
        a.link(device, LinkMode::Monitor);
    }
    drop(many);
    let mut polls = 0;
    let (wakes, waker) = Wakes::new();
    let mut cx = Context::from_waker(&waker);
    let mut managed = Box::pin(a.manage(poll_fn(|_| {
        polls += 1;
        // Long before ten thousand have been looked at.
        if polls == 3 { Poll::Ready(Ok::<_, ()>(())) } else { Poll::Pending }
    })));
    assert!(managed.as_mut().poll(&mut cx).is_pending());
    assert_eq!(wakes.count(), 1, "more news is a reason to come back");
    assert!(managed.as_mut().poll(&mut cx).is_pending());
    // The third time it is done, and its many links are taken apart with as much patience.
    while managed.as_mut().poll(&mut cx).is_pending() {}
    drop(managed);
    assert_eq!(polls, 3);
}

#[test]
fn a_cancelled_receive_loses_nothing() {
    let (mut a, b, c) = (Device::new(), Device::new(), Device::new());
    a.link(&b, LinkMode::Monitor);
    a.link(&c, LinkMode::Monitor);
    let ids = [b.id(), c.id()];
    for _ in 0..10 {
        assert!(poll(pin!(a.receive())).is_pending());
    }
    b.disconnect(Exit::Normal);
    drop(a.receive());
    {
        let mut work = pin!(pending::<()>());
        drop(a.watch(work.as_mut()));
    }
    c.disconnect(Exit::Normal);
    drop(a.receive());
    let heard: Vec<_> = ends(&mut a).into_iter().map(|(id, _)| id).collect();
    assert_eq!(heard, ids);
}

#[test]
fn whoever_waited_last_is_woken_once_for_a_burst() {
    let mut a = Device::new();
    let many: Vec<Device> = (0..100).map(|_| Device::new()).collect();
    for device in &many {
        a.link(device, LinkMode::Monitor);
    }
    let (first, first_waker) = Wakes::new();
    let (second, second_waker) = Wakes::new();
    assert!(a.poll_receive(&mut Context::from_waker(&first_waker)).is_pending());
    assert!(a.poll_receive(&mut Context::from_waker(&second_waker)).is_pending());
    drop(many);
    assert_eq!((first.count(), second.count()), (0, 1));
    assert_eq!(ends(&mut a).len(), 100);
}

#[test]
fn an_unlink_of_what_was_awaited_leaves_the_waiter_waiting() {
    let (mut a, b) = (Device::new(), Device::new());
    a.link(&b, LinkMode::Monitor);
    let (wakes, waker) = Wakes::new();
    assert!(a.poll_receive(&mut Context::from_waker(&waker)).is_pending());
    a.unlink(&b, LinkMode::Monitor);
    drop(b);
    assert_eq!(wakes.count(), 0);
    assert!(a.poll_receive(&mut Context::from_waker(&waker)).is_pending());
}

#[test]
fn a_link_to_the_dead_wakes_the_waiter() {
    let (mut a, b) = (Device::new(), Device::new());
    let line = b.line();
    drop(b);
    let (wakes, waker) = Wakes::new();
    assert!(a.poll_receive(&mut Context::from_waker(&waker)).is_pending());
    a.link(&line, LinkMode::Monitor);
    assert_eq!(wakes.count(), 1);
    assert!(a.poll_receive(&mut Context::from_waker(&waker)).is_ready());
}

#[test]
fn a_waker_that_panics_does_not_keep_the_news_from_the_others() {
    struct Bad;
    impl std::task::Wake for Bad {
        fn wake(self: std::sync::Arc<Self>) {
            panic!("a waker should not");
        }
    }
    let (mut a, mut b, c) = (Device::new(), Device::new(), Device::new());
    a.link(&c, LinkMode::Monitor);
    b.link(&c, LinkMode::Monitor);
    let bad = Waker::from(std::sync::Arc::new(Bad));
    assert!(a.poll_receive(&mut Context::from_waker(&bad)).is_pending());
    assert!(b.poll_receive(&mut Context::from_waker(&bad)).is_pending());
    c.disconnect(Exit::Normal);
    assert_eq!((ends(&mut a).len(), ends(&mut b).len()), (1, 1));
}

#[cfg(feature = "stream")]
#[test]
fn news_is_a_stream() {
    use futures_lite::StreamExt;
    let (mut a, b, c) = (Device::new(), Device::new(), Device::new());
    a.link(&b, LinkMode::Monitor);
    a.link(&c, LinkMode::Monitor);
    drop((b, c));
    let mut news = a.news();
    assert!(matches!(now(news.next()), Some(Message::Disconnect(_))));
    assert!(matches!(now(news.next()), Some(Message::Disconnect(_))));
    assert!(poll(pin!(news.next())).is_pending());
}
