//! Many links, many threads, and what is left of them: nothing.

use std::{
    collections::HashSet,
    convert::Infallible,
    future::{Future, pending},
    hint,
    pin::pin,
    sync::{
        Barrier,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    task::Context,
    thread,
};

use allocation_counter::measure;
use backplane::{Device, Exit, Line, LinkMode, Message};

use crate::support::{Wakes, ends, kind};

#[test]
fn a_million_links_on_one_device_are_all_heard() {
    const MANY: usize = 1_000_000;
    let hub = Device::new();
    let mut watchers: Vec<Device> = (0..MANY).map(|_| Device::new()).collect();
    for (i, watcher) in watchers.iter().enumerate() {
        match i % 2 {
            0 => watcher.link(&hub.line(), LinkMode::Peer),
            _ => hub.link(watcher, LinkMode::Peer),
        }
    }
    hub.disconnect(Exit::Normal);
    for watcher in &mut watchers {
        assert_eq!(ends(watcher).len(), 1);
    }
}

#[test]
fn room_for_more_links_than_there_can_be_is_not_made() {
    let (mut hub, worker) = (Device::new(), Device::new());
    let made = measure(|| hub.reserve(usize::MAX));
    assert!(made.bytes_max < 100 << 20, "{} bytes", made.bytes_max);
    let again = measure(|| hub.reserve(usize::MAX));
    assert_eq!(again.count_total, 0, "there is room");
    hub.link(&worker, LinkMode::Monitor);
    hub.reserve(usize::MAX);
    drop(worker);
    assert_eq!(ends(&mut hub).len(), 1);
}

#[test]
fn a_device_that_watches_a_million_hears_of_each_once() {
    const MANY: usize = 1_000_000;
    let mut hub = Device::new();
    let mut others: Vec<Option<Device>> = (0..MANY).map(|_| Some(Device::new())).collect();
    for (i, other) in others.iter().flatten().enumerate() {
        match i % 2 {
            0 => hub.link(&other.line(), LinkMode::Monitor.tag(i as u64)),
            _ => other.link(&hub.line(), LinkMode::Notify.tag(i as u64)),
        }
    }
    for other in &mut others {
        drop(other.take());
    }
    let mut heard = vec![false; MANY];
    while let Some(Message::Disconnect(news)) = hub.try_receive() {
        assert!(!std::mem::replace(&mut heard[news.tag as usize], true), "heard twice");
    }
    assert!(heard.into_iter().all(|heard| heard));
}

#[test]
fn a_large_fan_out_lets_others_run() {
    let watchers: Vec<Device> = (0..10_000).map(|_| Device::new()).collect();
    for leave in ["manage", "depart"] {
        let hub = Device::new();
        for watcher in &watchers {
            watcher.link(&hub.line(), LinkMode::Monitor);
        }
        let (wakes, waker) = Wakes::new();
        let mut cx = Context::from_waker(&waker);
        let mut polls = 1;
        let ready = |future: &mut dyn FnMut(&mut Context<'_>) -> bool, cx: &mut Context<'_>| {
            let mut polls = 1;
            while !future(cx) {
                polls += 1;
            }
            polls
        };
        if leave == "manage" {
            let mut managed = pin!(hub.manage(async { Ok::<_, Infallible>(()) }));
            polls = polls.max(ready(&mut |cx| managed.as_mut().poll(cx).is_ready(), &mut cx));
        } else {
            let mut departing = pin!(hub.depart(Exit::Normal));
            polls = polls.max(ready(&mut |cx| departing.as_mut().poll(cx).is_ready(), &mut cx));
        }
        assert!(polls >= 10_000 / 256, "{leave} told them all in {polls} polls");
        assert!(wakes.count() >= polls - 1, "{leave} was not woken to go on");
    }
}

#[test]
fn a_fan_out_that_is_dropped_half_way_is_finished() {
    let mut watchers: Vec<Device> = (0..10_000).map(|_| Device::new()).collect();
    let hub = Device::new();
    for watcher in &watchers {
        watcher.link(&hub.line(), LinkMode::Monitor);
    }
    {
        let mut departing = pin!(hub.depart(Exit::Normal));
        let (_, waker) = Wakes::new();
        assert!(departing.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    for watcher in &mut watchers {
        assert_eq!(ends(watcher).len(), 1);
    }
}

#[test]
fn who_links_in_the_middle_of_a_fan_out_is_told_how_it_ended() {
    let mut watchers: Vec<Device> = (0..10_000).map(|_| Device::new()).collect();
    let hub = Device::new();
    let line = hub.line();
    for watcher in &watchers {
        watcher.link(&line, LinkMode::Monitor);
    }
    let mut late = Device::new();
    let departing = hub.depart(Exit::Normal);
    let mut departing = Box::pin(departing);
    let (_, waker) = Wakes::new();
    let mut cx = Context::from_waker(&waker);
    assert!(departing.as_mut().poll(&mut cx).is_pending());
    late.link(&line, LinkMode::Monitor);
    // And somebody who was going to be told does not want to be.
    watchers[0].unlink(&line, LinkMode::Monitor);
    let told_before = ends(&mut watchers[0]).len();
    while departing.as_mut().poll(&mut cx).is_pending() {}
    assert_eq!(ends(&mut late), [(line.id(), Exit::Normal)]);
    assert_eq!(ends(&mut watchers[0]).len(), 0);
    assert!(told_before <= 1);
    late.link(&line, LinkMode::Monitor);
    assert_eq!(kind(&ends(&mut late)[0].1), Some(backplane::FaultKind::Gone));
}

/// Bytes that are kept after `f`, on this thread.
fn kept(f: impl FnOnce()) -> i64 {
    measure(f).bytes_current
}

#[test]
fn nothing_is_left_of_a_mesh() {
    // The first round fills what is kept for reuse.
    for round in 0..3 {
        let left = kept(|| {
            let devices: Vec<Device> = (0..2_000).map(|_| Device::new()).collect();
            for (i, device) in devices.iter().enumerate() {
                for step in 1..40 {
                    let other = &devices[(i + step * step) % devices.len()];
                    match step % 3 {
                        0 => device.link(other, LinkMode::Peer),
                        1 => device.link(&other.line(), LinkMode::Peer),
                        _ => device.line().link(&other.line(), LinkMode::Monitor),
                    }
                }
            }
            for device in devices {
                device.set_label("a name, too");
                drop(device.manage(pending::<Result<(), Infallible>>()));
            }
        });
        if round > 0 {
            assert_eq!(left, 0, "bytes left in round {round}");
        }
    }
}

#[test]
fn short_lived_clients_leave_nothing_on_a_long_lived_device() {
    type Client = fn(&Device);
    let clients: [(&str, Client); 5] = [
        ("monitors", |server| {
            Device::new().link(&server.line(), LinkMode::Monitor);
        }),
        ("peers", |server| {
            let client = Device::new();
            client.link(&server.line(), LinkMode::Peer);
            client.unlink(&server.line(), LinkMode::Monitor);
            client.line().unlink(server, LinkMode::Notify);
        }),
        ("monitors through lines", |server| {
            let client = Device::new();
            client.line().link(&server.line(), LinkMode::Monitor);
        }),
        ("is monitored and let go, through lines", |server| {
            let client = Device::new();
            server.line().link(&client.line(), LinkMode::Monitor);
            server.line().unlink(&client.line(), LinkMode::Monitor);
        }),
        ("is monitored and let go by a device", |server| {
            let client = Device::new();
            server.link(&client, LinkMode::Peer);
            server.unlink(&client.line(), LinkMode::Peer);
        }),
    ];
    for (what, client) in clients {
        let mut server = Device::new();
        for _ in 0..1_000 {
            client(&server);
        }
        let left = kept(|| {
            for _ in 0..100_000 {
                client(&server);
            }
        });
        assert!(left.abs() < 4_096, "a client that {what} leaves {left} bytes in 100,000");
        assert_eq!(server.try_receive(), None, "{what}");
    }
}

#[test]
fn link_churn_between_two_does_not_grow() {
    let (a, b) = (Device::new(), Device::new());
    let churn = || {
        for _ in 0..1_000 {
            a.link(&b.line(), LinkMode::Peer);
            a.line().unlink(&b.line(), LinkMode::Notify);
            b.line().link(&a.line(), LinkMode::Peer);
            a.unlink(&b, LinkMode::Peer);
        }
    };
    churn();
    assert_eq!(kept(churn), 0);
}

#[test]
fn a_peer_link_and_an_end_allocate_nothing() {
    let once = || {
        let (mut a, b) = (Device::new(), Device::new());
        a.link(&b.line(), LinkMode::Peer);
        drop(b);
        assert_eq!(ends(&mut a).len(), 1);
    };
    once();
    // The list that `ends` makes is all there is.
    assert!(measure(once).count_total <= 1);
}

/// Ten million monitors from several threads, of devices that end meanwhile: each is told exactly once.
///
/// In a debug build a tenth of it; the full count runs with `--release`.
#[test]
fn ten_million_monitors_are_each_told_once() {
    const THREADS: usize = 4;
    const ROUNDS: usize = if cfg!(debug_assertions) { 25_000 } else { 250_000 };
    const TARGETS: usize = 10;
    // Each thread owns devices that end at any time, and monitors those of the others.
    let told = AtomicU64::new(0);
    let late = AtomicU64::new(0);
    let barrier = Barrier::new(THREADS);
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..THREADS).map(|_| mpsc::channel::<Vec<Line>>()).unzip();
    thread::scope(|scope| {
        for (me, receiver) in receivers.into_iter().enumerate() {
            let next = senders[(me + 1) % THREADS].clone();
            let (told, late, barrier) = (&told, &late, &barrier);
            scope.spawn(move || {
                barrier.wait();
                let mut watcher = Device::new();
                let mut expected = 0u64;
                let mut seed = me as u64 + 1;
                for _ in 0..ROUNDS {
                    let targets: Vec<Device> = (0..TARGETS).map(|_| Device::new()).collect();
                    let lines = targets.iter().map(Device::line).collect();
                    // Some of them end before, some while, some after the neighbour links.
                    next.send(lines).expect("the neighbour listens");
                    for (i, line) in receiver.recv().expect("the neighbour speaks").into_iter().enumerate() {
                        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        match (seed >> 40) % 4 {
                            0 => watcher.line().link(&line, LinkMode::Monitor),
                            1 => line.link(&watcher, LinkMode::Notify),
                            _ => watcher.link(&line, LinkMode::Monitor),
                        }
                        if (seed >> 50).is_multiple_of(8) && i > 0 {
                            // Undone: it may have been told, and is not told after this.
                            watcher.unlink(&line, LinkMode::Monitor);
                            let was_told = watcher.flush(&line);
                            assert!(was_told <= 1, "told twice");
                            continue;
                        }
                        expected += 1;
                    }
                    drop(targets);
                }
                drop(next);
                // The neighbour's last ones may still be ending.
                barrier.wait();
                let mut seen = std::collections::HashSet::new();
                while let Some(message) = watcher.try_receive() {
                    let Message::Disconnect(news) = message else { panic!("nobody asks to stop") };
                    assert!(seen.insert(news.device), "{} told twice", news.device);
                }
                assert_eq!(seen.len() as u64, expected, "told");
                told.fetch_add(expected, Ordering::Relaxed);
                barrier.wait();
                late.fetch_add(ends(&mut watcher).len() as u64, Ordering::Relaxed);
            });
        }
    });
    assert_eq!(late.into_inner(), 0);
    let all = (THREADS * ROUNDS * TARGETS) as u64;
    assert!(told.into_inner() > all * 8 / 10);
}

/// A device that nobody has a line of ends without a lock, but not while one that it watches may be telling it something.
#[test]
fn ends_that_cross_leave_their_slots_to_the_next() {
    const ROUNDS: u64 = 100;
    const PAIRS: u64 = 1_000;
    // Counts the pairs of which the other thread may end its half, and has.
    let (go, gone) = (AtomicU64::new(0), AtomicU64::new(0));
    let until = |counter: &AtomicU64, count| {
        let mut spins = 0_u32;
        while counter.load(Ordering::Acquire) < count {
            spins += 1;
            if spins.is_multiple_of(256) { thread::yield_now() } else { hint::spin_loop() }
        }
    };
    let (send, receive) = mpsc::channel::<Vec<Device>>();
    thread::scope(|scope| {
        scope.spawn(|| {
            for (n, watched) in receive.into_iter().flatten().enumerate() {
                until(&go, n as u64 + 1);
                drop(watched);
                gone.store(n as u64 + 1, Ordering::Release);
            }
        });
        let mut seen = HashSet::new();
        for round in 0..ROUNDS {
            let mut new = |_| {
                let mut device = Device::new();
                assert!(seen.insert(device.id()), "{} is used again", device.id());
                assert_eq!(device.try_receive(), None);
                device
            };
            let watchers: Vec<Device> = (0..PAIRS).map(&mut new).collect();
            let watched: Vec<Device> = (0..PAIRS).map(&mut new).collect();
            for (watcher, watched) in watchers.iter().zip(&watched) {
                // Either way the first hears of the second.
                match round % 2 {
                    0 => watcher.link(watched, LinkMode::Monitor),
                    _ => watched.link(watcher, LinkMode::Notify),
                }
            }
            send.send(watched).expect("the other receives");
            for (n, watcher) in watchers.into_iter().enumerate() {
                let pair = round * PAIRS + n as u64;
                go.store(pair + 1, Ordering::Release);
                // Each time a little later than the time before.
                (0..pair % 128).for_each(|_| hint::spin_loop());
                drop(watcher);
                until(&gone, pair + 1);
            }
        }
        drop(send);
    });
}
