//! How a managed future ends, and what is heard of it.

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    future::{pending, poll_fn, ready},
    marker::PhantomPinned,
    pin::pin,
    rc::Rc,
    task::{Context, Poll},
};

use backplane::{Crash, Device, Exit, FaultKind, LinkMode, Message, OnFault, OnShutdown};

use crate::support::{Wakes, end, kind, now, poll};

type Never = Result<(), Infallible>;

/// A device and one that watches it.
fn watched() -> (Device, Device) {
    let (watcher, device) = (Device::new(), Device::new());
    watcher.link(&device, LinkMode::Monitor);
    (watcher, device)
}

#[test]
fn a_value_is_a_normal_end() {
    let (mut watcher, device) = watched();
    assert_eq!(now(device.manage(ready(Ok::<_, Infallible>(7)))).unwrap(), 7);
    assert_eq!(end(&mut watcher).exit, Exit::Normal);
}

#[test]
fn an_error_stays_with_the_owner_and_its_kind_travels() {
    /// Neither `Debug` nor `Display`.
    struct Mine(u8);
    let (mut watcher, device) = watched();
    let result = now(device.manage(async { Err::<(), _>(Mine(7)) }));
    assert!(matches!(result, Err(Crash::Error(Mine(7)))));
    let exit = end(&mut watcher).exit;
    assert_eq!((kind(&exit), exit.fault().unwrap().message()), (Some(FaultKind::Error), None));
}

#[test]
fn an_error_has_its_words_travel_where_it_is_asked_to() {
    let (mut watcher, device) = watched();
    let _ = now(device.manage(async { Err::<(), _>("no such counter") }).describe());
    assert_eq!(end(&mut watcher).exit.to_string(), "failed: no such counter");

    struct Mute;
    impl std::fmt::Display for Mute {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            panic!("no words for it")
        }
    }
    let (mut watcher, device) = watched();
    assert!(matches!(now(device.manage(async { Err::<(), _>(Mute) }).describe()), Err(Crash::Error(Mute))));
    assert_eq!(end(&mut watcher).exit.to_string(), "failed");
}

#[test]
fn a_panic_is_a_value_and_its_message_travels() {
    let (mut watcher, device) = watched();
    let what = String::from("beans");
    let result = now(device.manage(async { panic!("out of {what}") as Never }));
    let Err(Crash::Panic(panic)) = result else { panic!("it did not panic") };
    assert_eq!(panic.into_payload().downcast_ref::<String>().map(String::as_str), Some("out of beans"));
    let exit = end(&mut watcher).exit;
    assert_eq!((kind(&exit), exit.to_string().as_str()), (Some(FaultKind::Panic), "panicked: out of beans"));
}

#[test]
fn a_payload_that_is_not_words_stays_whole() {
    let (mut watcher, device) = watched();
    let result = now(device.manage(async { std::panic::panic_any(7u64) as Never }));
    let Err(Crash::Panic(panic)) = result else { panic!("it did not panic") };
    assert_eq!(panic.message(), None);
    assert_eq!(panic.into_payload().downcast_ref::<u64>(), Some(&7));
    assert_eq!(end(&mut watcher).exit.to_string(), "panicked");
}

#[test]
fn a_payload_that_panics_when_dropped_does_no_harm() {
    struct Bomb(u8);
    impl Drop for Bomb {
        fn drop(&mut self) {
            if self.0 > 0 {
                std::panic::panic_any(Bomb(self.0 - 1));
            }
        }
    }
    let (mut watcher, device) = watched();
    let result = now(device.manage(async { std::panic::panic_any(Bomb(3)) as Never }));
    assert!(matches!(result, Err(Crash::Panic(_))));
    drop(result);
    assert_eq!(kind(&end(&mut watcher).exit), Some(FaultKind::Panic));
}

#[test]
fn a_fault_of_a_linked_device_cascades() {
    let (mut watcher, device) = watched();
    let other = Device::new();
    device.link(&other, LinkMode::Monitor.tag(3));
    let id = other.id();
    let mut managed = pin!(device.manage(pending::<Never>()));
    assert!(poll(managed.as_mut()).is_pending());
    drop(other);
    let Poll::Ready(Err(Crash::Cascade(news))) = poll(managed.as_mut()) else { panic!("it did not cascade") };
    assert_eq!((news.device, news.tag), (id, 3));
    assert_eq!(kind(&end(&mut watcher).exit), Some(FaultKind::Cascade(id)));
}

#[test]
fn a_clean_end_does_not_cascade() {
    for exit in [Exit::Normal, Exit::Shutdown] {
        let (a, b) = (Device::new(), Device::new());
        a.link(&b, LinkMode::Peer);
        let mut managed = pin!(a.manage(pending::<Never>()));
        b.disconnect(exit);
        assert!(poll(managed.as_mut()).is_pending());
    }
}

#[test]
fn a_request_to_stop_ends_it_with_shutdown() {
    let (mut watcher, device) = watched();
    let line = device.line();
    let mut managed = pin!(device.manage(pending::<Never>()));
    assert!(poll(managed.as_mut()).is_pending());
    line.shutdown(watcher.id());
    let Poll::Ready(Err(Crash::Shutdown(by))) = poll(managed.as_mut()) else { panic!("it did not stop") };
    assert_eq!(by, watcher.id());
    assert_eq!(end(&mut watcher).exit, Exit::Shutdown);
}

#[test]
fn news_that_was_there_first_comes_first() {
    let (device, other) = (Device::new(), Device::new());
    device.link(&other, LinkMode::Monitor);
    drop(other);
    let polled = Cell::new(false);
    let result = now(device.manage(async {
        polled.set(true);
        Ok::<_, Infallible>(())
    }));
    assert!(matches!(result, Err(Crash::Cascade(_))));
    assert!(!polled.get());
}

/// What is held by a managed future, and says when it goes.
struct Held<'a> {
    gone: &'a Cell<bool>,
    panics: bool,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.gone.set(true);
        if self.panics {
            panic!("even in its destructor");
        }
    }
}

/// Wakes are when others hear: then what the future held must be gone.
#[test]
fn the_future_is_dropped_before_anyone_hears() {
    for way in ["value", "error", "panic", "cascade", "shutdown", "drop"] {
        for panics in [false, true] {
            let gone = Cell::new(false);
            let (mut watcher, device) = watched();
            let (line, cause) = (device.line(), Device::new());
            device.link(&cause, LinkMode::Monitor);
            // The watcher waits; the wake comes while `manage` is in the middle of it.
            let (wakes, waker) = Wakes::new();
            assert!(watcher.poll_receive(&mut Context::from_waker(&waker)).is_pending());
            let held = Held { gone: &gone, panics };
            let (gone, wakes_now) = (&gone, || wakes.count());
            let managed = device.manage(poll_fn(move |_| {
                let _ = &held;
                assert_eq!((gone.get(), wakes_now()), (false, 0));
                match way {
                    "value" => Poll::Ready(Ok(())),
                    "error" => Poll::Ready(Err(7)),
                    "panic" => panic!("the first"),
                    _ => Poll::Pending,
                }
            }));
            let mut managed = Box::pin(managed);
            match way {
                "cascade" => {
                    assert!(poll(managed.as_mut()).is_pending());
                    drop(cause);
                }
                "shutdown" => {
                    assert!(poll(managed.as_mut()).is_pending());
                    line.shutdown(watcher.id());
                }
                _ => {}
            }
            let result = match way {
                "drop" => {
                    let caught = backplane::catch(|| drop(managed));
                    assert_eq!(caught.is_err(), panics, "whoever drops it sees the panic");
                    None
                }
                _ => match poll(managed.as_mut()) {
                    Poll::Ready(result) => Some(result),
                    Poll::Pending => panic!("{way} is not the end"),
                },
            };
            assert!(gone.get(), "{way}: what it held is still there");
            assert_eq!(wakes.count(), 1, "{way}: nobody was woken");
            let heard = end(&mut watcher).exit;
            // A panic in the destructor counts, unless there was a fault before.
            match (way, panics) {
                ("value", false) => assert!(matches!(result, Some(Ok(()))) && heard == Exit::Normal),
                ("shutdown", false) => {
                    assert!(matches!(result, Some(Err(Crash::Shutdown(_)))) && heard == Exit::Shutdown);
                }
                ("value" | "shutdown", true) => {
                    assert!(matches!(result, Some(Err(Crash::Panic(_)))), "{result:?}");
                    assert_eq!(heard.to_string(), "panicked: even in its destructor");
                }
                ("drop", true) => assert_eq!(heard.to_string(), "panicked: even in its destructor"),
                ("drop", false) => assert_eq!(kind(&heard), Some(FaultKind::Dropped)),
                ("error", _) => assert!(matches!(result, Some(Err(Crash::Error(7))))),
                ("panic", _) => assert_eq!(heard.to_string(), "panicked: the first"),
                ("cascade", _) => assert!(matches!(result, Some(Err(Crash::Cascade(_))))),
                _ => unreachable!(),
            }
        }
    }
}

#[test]
fn a_value_that_panics_when_dropped_is_kept_from_doing_harm() {
    struct Bad;
    impl Drop for Bad {
        fn drop(&mut self) {
            panic!("bad to the end");
        }
    }
    let gone = Cell::new(false);
    let held = Held { gone: &gone, panics: true };
    let mut value = Some(Bad);
    let (mut watcher, device) = watched();
    let result = now(device.manage(poll_fn(|_| {
        let _ = &held;
        Poll::Ready(Ok::<_, Infallible>(value.take().unwrap()))
    })));
    // What it held by reference is not dropped with it; so it is a value, which its owner must not drop.
    assert!(result.is_ok());
    std::mem::forget(result);
    std::mem::forget(held);
    assert_eq!(end(&mut watcher).exit, Exit::Normal);
}

#[test]
fn dropped_half_way_is_told_apart_from_a_panic_and_from_a_kill() {
    for (polled, condemned) in [(false, false), (true, false), (false, true), (true, true)] {
        let (mut watcher, device) = watched();
        let line = device.line();
        let mut managed = Box::pin(device.manage(pending::<Never>()));
        if polled {
            assert!(poll(managed.as_mut()).is_pending());
        }
        if condemned {
            line.condemn();
        }
        drop(managed);
        let expected = if condemned { FaultKind::Killed } else { FaultKind::Dropped };
        assert_eq!(kind(&end(&mut watcher).exit), Some(expected));
    }
    // Even where it is a panic of somebody else that drops it.
    let (mut watcher, device) = watched();
    let caught = backplane::catch(move || {
        let _managed = device.manage(pending::<Never>());
        panic!("somebody else");
    });
    assert!(caught.is_err());
    assert_eq!(kind(&end(&mut watcher).exit), Some(FaultKind::Dropped));
}

#[test]
fn a_destructor_that_panics_while_another_panic_drops_it_does_not_abort() {
    let gone = Cell::new(false);
    let (mut watcher, device) = watched();
    let caught = backplane::catch(|| {
        let held = Held { gone: &gone, panics: true };
        let _managed = device.manage(async move {
            let _held = held;
            pending::<Never>().await
        });
        panic!("somebody else");
    });
    assert_eq!(caught.unwrap_err().message(), Some("somebody else"));
    assert!(gone.get());
    assert_eq!(end(&mut watcher).exit.to_string(), "panicked: even in its destructor");
}

#[test]
fn any_future_can_be_managed() {
    // Neither `Unpin` nor `'static` nor `Send`, with a value and an error that are nothing but themselves.
    struct Plain;
    let local = Rc::new(RefCell::new(0));
    let borrowed = &local;
    let future = async move {
        let pinned = PhantomPinned;
        *borrowed.borrow_mut() += 1;
        let _ = &pinned;
        if borrowed.borrow().eq(&1) { Ok(Plain) } else { Err(Plain) }
    };
    assert!(matches!(now(Device::new().manage(future)), Ok(Plain)));
    assert_eq!(*local.borrow(), 1);
}

#[test]
fn what_manage_returns_is_send_where_the_future_is() {
    fn is_send<T: Send>(_: &T) {}
    let managed = Device::new().manage(pending::<Never>());
    is_send(&managed);
    let part = Device::new().part_manage(pending::<Never>());
    is_send(&part);
    let mut device = Device::new();
    is_send(&device);
    is_send(&device.receive());
    let mut work = pin!(pending::<()>());
    is_send(&device.watch(work.as_mut()));
    is_send(&device.depart(Exit::Normal));
}

#[test]
fn part_manage_gives_the_device_back_with_its_links() {
    let (mut watcher, device) = watched();
    let other = Device::new();
    device.link(&other, LinkMode::Monitor);
    let (mut device, half) = now(device.part_manage(ready(Ok::<_, Infallible>("half")))).unwrap();
    assert_eq!(half, "half");
    assert_eq!(watcher.try_receive(), None);
    drop(other);
    assert_eq!(kind(&end(&mut device).exit), Some(FaultKind::Dropped));
    assert_eq!(now(device.manage(ready(Ok::<_, Infallible>("whole")))).unwrap(), "whole");
    assert_eq!(end(&mut watcher).exit, Exit::Normal);
}

#[test]
fn part_manage_ends_the_device_where_the_future_crashes() {
    let (mut watcher, device) = watched();
    let result = now(device.part_manage(async { Err::<(), _>(7) }).describe());
    assert!(matches!(result, Err(Crash::Error(7))));
    assert_eq!(end(&mut watcher).exit.to_string(), "failed: 7");
}

#[test]
fn polling_after_the_end_is_a_mistake_that_says_so() {
    let mut managed = pin!(Device::new().manage(ready(Ok::<_, Infallible>(()))));
    assert!(poll(managed.as_mut()).is_ready());
    let panic = backplane::catch(|| poll(managed.as_mut())).unwrap_err();
    assert_eq!(panic.message(), Some("polled after it had ended"));
}

#[test]
fn a_policy_of_the_link_outweighs_that_of_the_device() {
    // Ignored by the link.
    let (mut a, b) = (Device::new(), Device::new());
    a.link(&b, LinkMode::Monitor.on_fault(OnFault::Ignore));
    drop(b);
    let mut managed = pin!(a.manage(pending::<Never>()));
    assert!(poll(managed.as_mut()).is_pending());

    // Ignored by the device, but for one.
    let (b, c) = (Device::new(), Device::new());
    a = Device::new();
    a.on_fault(OnFault::Ignore);
    a.link(&b, LinkMode::Monitor);
    a.line().link(&c.line(), LinkMode::Monitor.on_fault(OnFault::Cascade));
    let mut managed = pin!(a.manage(pending::<Never>()));
    drop(b);
    assert!(poll(managed.as_mut()).is_pending());
    drop(c);
    assert!(poll(managed.as_mut()).is_ready());
}

#[test]
fn what_is_handed_over_is_in_the_inbox() {
    let (mut a, b, c) = (Device::new(), Device::new(), Device::new());
    a.on_fault(OnFault::HandOver);
    a.on_shutdown(OnShutdown::HandOver);
    a.link(&b, LinkMode::Monitor.tag(1));
    a.link(&c, LinkMode::Monitor.tag(2));
    let (line, mut inbox) = (a.line(), a.inbox());
    let mut managed = pin!(a.manage(async move {
        let mut tags = Vec::new();
        loop {
            match inbox.receive().await {
                Some(Message::Disconnect(news)) => tags.push(news.tag),
                Some(Message::Shutdown(_)) => return Ok::<_, Infallible>(tags),
                None => panic!("it is not over"),
            }
        }
    }));
    assert!(poll(managed.as_mut()).is_pending());
    b.disconnect(Exit::Normal);
    drop(c);
    assert!(poll(managed.as_mut()).is_pending());
    line.shutdown(line.id());
    assert!(matches!(poll(managed.as_mut()), Poll::Ready(Ok(tags)) if tags == [1, 2]));
}

#[test]
fn an_inbox_outside_is_woken_and_ends_with_its_device() {
    let (mut a, b) = (Device::new(), Device::new());
    a.on_fault(OnFault::HandOver);
    a.link(&b, LinkMode::Monitor);
    let mut inbox = a.inbox();
    let mut managed = Box::pin(a.manage(pending::<Never>()));
    let (wakes, waker) = Wakes::new();
    let mut cx = Context::from_waker(&waker);
    assert!(inbox.poll_receive(&mut cx).is_pending());
    drop(b);
    assert!(poll(managed.as_mut()).is_pending());
    assert_eq!(wakes.count(), 1);
    assert!(matches!(inbox.poll_receive(&mut cx), Poll::Ready(Some(_))));
    assert!(inbox.poll_receive(&mut cx).is_pending());
    drop(managed);
    assert_eq!(wakes.count(), 2);
    assert_eq!(inbox.poll_receive(&mut cx), Poll::Ready(None));
}

#[test]
fn what_is_handed_over_to_nobody_waits_for_the_device_to_come_back() {
    let (mut a, b) = (Device::new(), Device::new());
    a.on_fault(OnFault::HandOver);
    a.link(&b, LinkMode::Monitor);
    let (line, id) = (a.line(), b.id());
    let done = Cell::new(false);
    let mut part = pin!(a.part_manage(poll_fn(|_| match done.get() {
        true => Poll::Ready(Ok::<_, Infallible>(())),
        false => Poll::Pending,
    })));
    assert!(poll(part.as_mut()).is_pending());
    drop(b);
    assert!(poll(part.as_mut()).is_pending());
    done.set(true);
    let Poll::Ready(Ok((mut a, ()))) = poll(part.as_mut()) else { panic!("it is done") };
    line.shutdown(id);
    assert_eq!(end(&mut a).device, id);
    assert_eq!(a.try_receive(), Some(Message::Shutdown(id)));
}

#[test]
fn a_cascade_runs_through_a_chain_and_keeps_the_first_words() {
    let devices: Vec<Device> = (0..5).map(|_| Device::new()).collect();
    let mut last = Device::new();
    let ids: Vec<_> = devices.iter().map(Device::id).collect();
    for pair in devices.windows(2) {
        pair[1].link(&pair[0], LinkMode::Monitor);
    }
    last.link(&devices[4], LinkMode::Monitor);
    let mut chain: Vec<_> = devices
        .into_iter()
        .enumerate()
        .map(|(i, device)| {
            Box::pin(device.manage(async move {
                match i {
                    0 => panic!("out of beans"),
                    _ => pending::<Never>().await,
                }
            }))
        })
        .collect();
    for managed in &mut chain {
        assert!(poll(managed.as_mut()).is_ready());
    }
    let exit = end(&mut last).exit;
    let fault = exit.fault().unwrap();
    assert_eq!(fault.kind(), FaultKind::Cascade(ids[3]));
    assert_eq!(fault.message(), Some("out of beans"));
    let first = fault.first_cause().unwrap();
    assert_eq!((first.device, first.kind), (ids[0], FaultKind::Panic));
}

#[test]
fn a_managed_future_in_a_managed_future_is_two_ends() {
    let (mut watcher, outer) = watched();
    let inner = Device::new();
    watcher.link(&inner, LinkMode::Monitor);
    let result = now(outer.manage(async move {
        let inner = inner.manage(async { panic!("inside") as Never }).await;
        match inner {
            Err(Crash::Panic(panic)) => Err(panic.message().unwrap().to_owned()),
            _ => Ok(()),
        }
    }));
    assert!(matches!(result, Err(Crash::Error(words)) if words == "inside"));
    assert_eq!(kind(&end(&mut watcher).exit), Some(FaultKind::Panic));
    assert_eq!(kind(&end(&mut watcher).exit), Some(FaultKind::Error));
}
