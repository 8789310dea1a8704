//! Odd places: what a review found, and what it looked for.

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    future::{Future, pending, poll_fn},
    pin::pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Wake, Waker},
};

use backplane::{Device, Exit, FaultKind, Line, LinkMode, Message, OnFault, Watched};

use crate::support::{Wakes, end, ends, kind, now, poll};

type Never = Result<(), Infallible>;

#[test]
fn an_inbox_read_beside_manage_in_the_same_task_is_woken() {
    let (mut a, b) = (Device::new(), Device::new());
    a.on_fault(OnFault::HandOver);
    a.link(&b, LinkMode::Monitor);
    let mut inbox = a.inbox();
    // The reader is polled first, and has had its turn when the news is handed over.
    let mut both = pin!(futures_lite::future::or(async { inbox.receive().await.is_some() }, async {
        let _ = a.manage(pending::<Never>()).await;
        false
    }));
    let (wakes, waker) = Wakes::new();
    let mut cx = Context::from_waker(&waker);
    assert!(both.as_mut().poll(&mut cx).is_pending());
    drop(b);
    assert_eq!(wakes.count(), 1);
    let mut polled = both.as_mut().poll(&mut cx);
    if polled.is_pending() {
        assert_eq!(wakes.count(), 2, "the task sleeps though there is something in the inbox");
        polled = both.as_mut().poll(&mut cx);
    }
    assert_eq!(polled, Poll::Ready(true));
}

#[test]
fn a_policy_survives_the_way_back_from_part_manage() {
    let (a, b) = (Device::new(), Device::new());
    a.link(&b, LinkMode::Monitor.on_fault(OnFault::HandOver));
    drop(b);
    let (a, ()) = now(a.part_manage(async { Ok::<_, Infallible>(()) })).unwrap();
    // It is handed over again, and does not cascade.
    let (mut a, ()) = now(a.part_manage(async { Ok::<_, Infallible>(()) })).unwrap();
    assert_eq!(kind(&end(&mut a).exit), Some(FaultKind::Dropped));
}

#[test]
fn a_link_made_again_keeps_the_tag_and_the_policy_that_it_does_not_name() {
    type Again = fn(&Device, &Device);
    let agains: [Again; 4] = [
        |supervisor, child| child.link(supervisor, LinkMode::Peer),
        |supervisor, child| child.link(&supervisor.line(), LinkMode::Peer),
        |supervisor, child| child.line().link(&supervisor.line(), LinkMode::Peer),
        |supervisor, child| supervisor.line().link(child, LinkMode::Monitor),
    ];
    for again in agains {
        let (mut supervisor, child) = (Device::new(), Device::new());
        let mut inbox = supervisor.inbox();
        supervisor.link(&child, LinkMode::Monitor.tag(7).on_fault(OnFault::HandOver));
        again(&supervisor, &child);
        drop(child);
        assert!(poll(pin!(supervisor.manage(pending::<Never>()))).is_pending());
        assert!(matches!(inbox.try_receive(), Some(Message::Disconnect(news)) if news.tag == 7));
    }
    // A link that is new has what it names, and nothing of the one before.
    let (mut a, b) = (Device::new(), Device::new());
    a.link(&b, LinkMode::Peer.tag(7));
    a.line().unlink(&b.line(), LinkMode::Monitor);
    a.line().link(&b.line(), LinkMode::Monitor);
    drop(b);
    assert_eq!(end(&mut a).tag, 0);
}

#[test]
fn watch_looks_at_the_news_first_once_the_future_has_had_its_turn() {
    let mut a = Device::new();
    let (line, other) = (a.line(), Device::new().id());
    let ready = Cell::new(false);
    let mut work = pin!(poll_fn(|_| if ready.get() { Poll::Ready(()) } else { Poll::Pending }));
    line.shutdown(other);
    assert!(matches!(now(a.watch(work.as_mut())), Watched::Message(_)));
    assert!(poll(pin!(a.watch(work.as_mut()))).is_pending());
    line.shutdown(other);
    ready.set(true);
    assert!(matches!(now(a.watch(work.as_mut())), Watched::Message(_)));
    assert!(matches!(now(a.watch(work.as_mut())), Watched::Value(())));
}

#[test]
fn a_waker_that_panics_does_not_make_a_link_panic() {
    struct Bad;
    impl Wake for Bad {
        fn wake(self: Arc<Self>) {
            panic!("a waker should not");
        }
    }
    let (mut a, b) = (Device::new(), Device::new());
    let line = b.line();
    drop(b);
    let bad = Waker::from(Arc::new(Bad));
    assert!(a.poll_receive(&mut Context::from_waker(&bad)).is_pending());
    a.link(&line, LinkMode::Monitor);
    assert_eq!(kind(&end(&mut a).exit), Some(FaultKind::Gone));
}

/// Links and unlinks, asks to stop, makes and drops devices, all while it is woken.
struct Busy {
    devices: Mutex<Vec<Device>>,
    lines: Mutex<Vec<Line>>,
}

impl Wake for Busy {
    fn wake(self: Arc<Self>) {
        let lines = self.lines.lock().unwrap().clone();
        for x in &lines {
            for y in &lines {
                x.link(y, LinkMode::Peer);
                x.unlink(y, LinkMode::Notify);
                x.shutdown(y.id());
            }
        }
        let device = self.devices.lock().unwrap().pop();
        drop(device);
        drop(Device::new());
    }
}

#[test]
fn a_waker_may_do_what_it_likes_with_the_mesh() {
    for many in [2, 5, 40] {
        let mut devices: Vec<Device> = (0..many).map(|_| Device::new()).collect();
        let lines = devices.iter().map(Device::line).take(8).collect();
        for x in &devices {
            for y in &devices {
                x.link(y, LinkMode::Peer);
            }
        }
        let kept = devices.split_off(many / 2);
        let busy = Arc::new(Busy { devices: Mutex::new(kept), lines: Mutex::new(lines) });
        let waker = Waker::from(Arc::clone(&busy));
        let mut cx = Context::from_waker(&waker);
        for device in devices.iter_mut().chain(busy.devices.lock().unwrap().iter_mut()) {
            assert!(device.poll_receive(&mut cx).is_pending());
        }
        drop(devices);
        busy.lines.lock().unwrap().clear();
        drop(std::mem::take(&mut *busy.devices.lock().unwrap()));
    }
}

thread_local! {
    static LEFT: RefCell<Vec<Device>> = const { RefCell::new(Vec::new()) };
    static LAST: MakesDevices = const { MakesDevices };
}

/// Makes and links devices in its destructor.
struct MakesDevices;

impl Drop for MakesDevices {
    fn drop(&mut self) {
        let devices: Vec<Device> = (0..300).map(|_| Device::new()).collect();
        for pair in devices.windows(2) {
            pair[0].link(&pair[1], LinkMode::Peer);
        }
    }
}

#[test]
fn devices_in_thread_locals_end_with_their_thread() {
    let mut watcher = Device::new();
    let line = watcher.line();
    for early in [true, false] {
        for _ in 0..10 {
            std::thread::spawn(move || {
                if early {
                    LAST.with(|_| ());
                }
                let devices =
                    (0..200).map(|_| Device::new()).inspect(|device| line.link(device, LinkMode::Monitor));
                LEFT.with(|left| left.borrow_mut().extend(devices));
                LAST.with(|_| ());
            })
            .join()
            .unwrap();
            assert_eq!(ends(&mut watcher).len(), 200);
        }
    }
}

#[test]
fn a_destructor_that_ends_and_links_its_own_peers_harms_nobody() {
    struct Takes(Vec<Device>, Line);
    impl Drop for Takes {
        fn drop(&mut self) {
            while let Some(device) = self.0.pop() {
                device.link(&self.1, LinkMode::Peer);
                drop(device);
            }
        }
    }
    let (mut watcher, device) = (Device::new(), Device::new());
    watcher.link(&device, LinkMode::Monitor);
    let peers: Vec<Device> = (0..20).map(|_| Device::new()).collect();
    for peer in &peers {
        device.link(peer, LinkMode::Peer);
    }
    let takes = Takes(peers, device.line());
    let result = now(device.manage(async move {
        let _takes = &takes;
        Ok::<_, Infallible>(())
    }));
    // They faulted, but when the future was done.
    assert!(result.is_ok());
    assert_eq!(end(&mut watcher).exit, Exit::Normal);
}

#[test]
fn what_is_handed_over_to_nobody_under_manage_is_not_kept() {
    let mut a = Device::new();
    a.on_shutdown(backplane::OnShutdown::HandOver);
    let (line, other) = (a.line(), Device::new().id());
    let mut managed = pin!(a.manage(pending::<Never>()));
    assert!(poll(managed.as_mut()).is_pending());
    let grown = allocation_counter::measure(|| {
        for _ in 0..10_000 {
            line.shutdown(other);
            assert!(poll(managed.as_mut()).is_pending());
        }
    });
    assert_eq!(grown.bytes_current, 0);
}

#[test]
fn nobody_can_speak_for_another() {
    // There is no way to hand a device news: what it hears of is what has ended, under the id of what has ended.
    let (mut watcher, liar, victim) = (Device::new(), Device::new(), Device::new());
    watcher.link(&liar, LinkMode::Monitor);
    watcher.link(&victim, LinkMode::Monitor);
    let liars_id = liar.id();
    // A request to stop may be made in any name, and says nothing of an end.
    watcher.line().shutdown(victim.id());
    liar.disconnect(Exit::Normal);
    assert_eq!(watcher.try_receive(), Some(Message::Shutdown(victim.id())));
    assert_eq!(end(&mut watcher).device, liars_id);
    assert_eq!(watcher.try_receive(), None);
    assert!(victim.line().is_alive());
}

#[test]
fn a_crowd_of_changes_wakes_a_device_that_waits() {
    let (mut server, clients) = (Device::new(), (0..1_000).map(|_| Device::new()).collect::<Vec<_>>());
    let (wakes, waker) = Wakes::new();
    let mut cx = Context::from_waker(&waker);
    let line = server.line();
    assert!(server.poll_receive(&mut cx).is_pending());
    for client in &clients {
        line.link(&client.line(), LinkMode::Monitor);
        line.unlink(&client.line(), LinkMode::Monitor);
    }
    assert_eq!(wakes.count(), 1, "it is woken once to look at them");
    // Having looked, it has nothing left of them.
    for _ in 0..100 {
        assert!(server.poll_receive(&mut cx).is_pending());
    }
    drop(clients);
    assert_eq!(server.try_receive(), None);
}
