//! What the seeded executor is for: orders that can be had again, and time that takes none.

use std::{
    convert::Infallible,
    future::pending,
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use backplane::{Crash, Device, Disconnect, FaultKind, LinkMode, Message, Runtime};
use backplane_tests::{gate::Gate, seeded::Seeded};

const HOUR: Duration = Duration::from_secs(3_600);

async fn end(device: &mut Device) -> Disconnect {
    match device.receive().await {
        Message::Disconnect(news) => news,
        Message::Shutdown(by) => panic!("{by} asks us to stop"),
    }
}

/// A ring of managed futures, one of which fails after an hour: who is taken along by whom.
fn ring(runtime: &Seeded) -> Vec<(u64, Option<FaultKind>)> {
    const AROUND: usize = 12;
    let mut watcher = Device::new();
    let devices: Vec<Device> = (0..AROUND).map(|_| Device::new()).collect();
    for (at, device) in devices.iter().enumerate() {
        device.link(&devices[(at + 1) % AROUND], LinkMode::Peer);
        watcher.link(device, LinkMode::Monitor.tag(at as u64));
    }
    runtime.run(async {
        for (at, device) in devices.into_iter().enumerate() {
            let alarm = runtime.sleep_until(runtime.now() + HOUR);
            runtime.detach(runtime.spawn(async move {
                let managed = device.manage(async move {
                    alarm.await;
                    if at == 0 { Err("an hour is over") } else { pending::<Result<Infallible, _>>().await }
                });
                drop(managed.await);
            }));
        }
        let mut heard = Vec::new();
        while heard.len() < AROUND {
            let news = end(&mut watcher).await;
            heard.push((news.tag, news.exit.fault().map(|fault| fault.kind())));
        }
        assert_eq!(watcher.try_receive(), None);
        heard
    })
}

#[test]
fn the_same_seed_tells_the_same_story_and_another_seed_another() {
    let who =
        |heard: Vec<(u64, Option<FaultKind>)>| heard.into_iter().map(|(tag, _)| tag).collect::<Vec<_>>();
    let mut stories = Vec::new();
    for seed in 0..20 {
        let (once, again) = (Seeded::new(seed), Seeded::new(seed));
        let heard = who(ring(&once));
        assert_eq!(heard, who(ring(&again)));
        assert_eq!(once.trace(), again.trace());
        stories.push(heard);
    }
    stories.sort();
    stories.dedup();
    assert!(stories.len() > 1, "the order follows from the seed");
}

#[test]
fn a_fault_goes_round_a_ring_whatever_the_order() {
    for seed in 0..300 {
        let mut heard = ring(&Seeded::new(seed));
        assert_eq!(heard[0], (0, Some(FaultKind::Error)), "seed {seed}");
        assert!(
            heard[1..].iter().all(|(_, kind)| matches!(kind, Some(FaultKind::Cascade(_)))),
            "seed {seed}"
        );
        heard.sort_by_key(|(tag, _)| *tag);
        assert!(heard.iter().map(|(tag, _)| *tag).eq(0..12), "seed {seed}: each once");
    }
}

#[test]
fn a_day_takes_no_time() {
    let real = Instant::now();
    let runtime = Seeded::new(1);
    let (began, mut device) = (runtime.now(), Device::new());
    // A worker that dies every hour, and somebody who starts it again.
    let deaths = runtime.run(async {
        let mut deaths = 0;
        while runtime.since(began) < 24 * HOUR {
            let worker = Device::new();
            device.link(&worker, LinkMode::Monitor);
            let alarm = runtime.sleep_until(runtime.now() + HOUR);
            let _task = runtime.spawn(async move {
                let working = worker.manage(async {
                    alarm.await;
                    panic!("tired") as Result<(), Infallible>
                });
                assert!(matches!(working.await, Err(Crash::Panic(_))));
            });
            assert!(end(&mut device).await.exit.is_fault());
            deaths += 1;
        }
        deaths
    });
    assert_eq!(deaths, 24);
    assert!(real.elapsed() < HOUR);
}

#[test]
fn a_story_in_which_everybody_waits_says_so() {
    let stuck = catch_unwind(AssertUnwindSafe(|| Seeded::new(1).run(Gate::new())));
    let words = *stuck.expect_err("it cannot end").downcast::<&str>().expect("words");
    assert_eq!(words, "everybody waits, and nothing will ever happen");
}

#[test]
fn what_is_left_when_a_story_ends_is_dropped_and_heard() {
    let runtime = Seeded::new(1);
    let (mut watcher, device) = (Device::new(), Device::new());
    watcher.link(&device, LinkMode::Monitor);
    runtime.run(async {
        runtime.detach(runtime.spawn(async move {
            drop(device.manage(pending::<Result<(), Infallible>>()).await);
        }));
    });
    let Some(Message::Disconnect(news)) = watcher.try_receive() else { panic!("nobody told us") };
    assert_eq!(news.exit.to_string(), "dropped");
}
