//! Where a panic was, for who has asked. Alone in its process, for the panic hook is everybody's.
#![cfg(not(backplane_loom))]

use std::{
    convert::Infallible,
    future::Future,
    pin::pin,
    sync::atomic::{AtomicUsize, Ordering},
    task::{Context, Poll, Waker},
};

use backplane::{Crash, Device, LinkMode, Message, PanicLocation};

/// The location that the owner of the future finds, and the one that a watcher is told.
fn locations<F: Future<Output = Result<(), Infallible>>>(
    future: F,
) -> (Option<PanicLocation>, Option<PanicLocation>) {
    let (mut watcher, device) = (Device::new(), Device::new());
    watcher.link(&device, LinkMode::Monitor);
    let poll = pin!(device.manage(future)).poll(&mut Context::from_waker(Waker::noop()));
    let Poll::Ready(Err(Crash::Panic(panic))) = poll else { panic!("it did not panic") };
    let Some(Message::Disconnect(news)) = watcher.try_receive() else { panic!("nobody told us") };
    (panic.location().cloned(), news.exit.fault().and_then(|fault| fault.location()).cloned())
}

#[test]
fn a_location_travels_where_it_was_asked_for_and_the_hook_before_is_still_called() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    std::panic::set_hook(Box::new(|_| {
        CALLS.fetch_add(1, Ordering::SeqCst);
    }));
    let boom = || async { panic!("boom") };

    // Nobody has asked: nothing is known, and the hook is the one that was set.
    assert_eq!(locations(boom()), (None, None));
    assert_eq!(CALLS.load(Ordering::SeqCst), 1);

    backplane::catch_panic_locations();
    backplane::catch_panic_locations();
    let (owner, watcher) = locations(boom());
    let at = owner.expect("it was asked for");
    assert_eq!(at.file.rsplit(['/', '\\']).next(), Some("locations.rs"));
    assert_eq!(watcher, Some(at));
    assert_eq!(CALLS.load(Ordering::SeqCst), 2, "once more, though it was asked for twice");

    // A panic that somebody else caught does not lend its place to one that no hook was told of.
    let resumed = locations(async {
        let _ = std::panic::catch_unwind(|| panic!("caught"));
        std::panic::resume_unwind(Box::new("thrown"))
    });
    assert_eq!(resumed, (None, None));

    // What is resumed keeps its place.
    let (outer, _) = locations(async {
        let inner = Device::new().manage(async { panic!("inside") as Result<(), Infallible> }).await;
        let Err(Crash::Panic(panic)) = inner else { unreachable!("it panics") };
        panic.resume()
    });
    assert!(outer.is_some());
}
