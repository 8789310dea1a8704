//! The stories. Whoever includes this file says how to `tell` a story and how to `spawn` in it, and with its `Luggage`
//! what a future may carry: where it is not `Send`, no future of a story is.

use std::{
    convert::Infallible,
    future::pending,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

use backplane::{Crash, Device, DeviceId, Disconnect, Exit, FaultKind, LinkMode, Message, OnFault, Watched};
use backplane_tests::gate::Gate;

use super::{Luggage, spawn, tell};

/// The next news, which is of an end.
async fn end(device: &mut Device) -> Disconnect {
    match device.receive().await {
        Message::Disconnect(news) => news,
        Message::Shutdown(by) => panic!("{by} asks us to stop"),
    }
}

fn kind(news: &Disconnect) -> Option<FaultKind> {
    news.exit.fault().map(|fault| fault.kind())
}

/// A device that monitors another.
fn watching(other: &Device) -> Device {
    let watcher = Device::new();
    watcher.link(other, LinkMode::Monitor);
    watcher
}

/// Opens a gate when it is dropped.
struct Opens(Gate);

impl Drop for Opens {
    fn drop(&mut self) {
        self.0.open();
    }
}

#[test]
fn a_panic_reaches_its_monitor_with_its_words() {
    tell(|| async {
        let device = Device::labelled("barista");
        let mut watcher = watching(&device);
        let luggage = Luggage::default();
        let _task = spawn(async move {
            let result = device
                .manage(async move {
                    let _carried = luggage;
                    panic!("out of {}", "beans") as Result<(), Infallible>
                })
                .await;
            let Err(Crash::Panic(panic)) = result else { panic!("{result:?}") };
            assert_eq!(panic.message(), Some("out of beans"));
        });
        let news = end(&mut watcher).await;
        assert_eq!(news.exit.to_string(), "barista panicked: out of beans");
        assert_eq!(watcher.try_receive(), None);
    });
}

#[test]
fn an_error_stays_with_its_owner_and_its_words_travel() {
    #[derive(Debug, PartialEq)]
    struct Typed(u32);
    impl std::fmt::Display for Typed {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "number {}", self.0)
        }
    }
    tell(|| async {
        let device = Device::new();
        let mut watcher = watching(&device);
        let (kept, done) = (Arc::new(Mutex::new(None)), Gate::new());
        let (keeps, opens) = (Arc::clone(&kept), Opens(done.clone()));
        let luggage = Luggage::default();
        let _task = spawn(async move {
            let _opens = opens;
            let managed = device.manage(async move {
                let _carried = luggage;
                Err::<(), _>(Typed(7))
            });
            let crash = managed.describe().await.expect_err("it fails");
            *keeps.lock().unwrap() = crash.into_error();
        });
        let news = end(&mut watcher).await;
        assert_eq!(news.exit.fault().and_then(|fault| fault.message()), Some("number 7"));
        done.await;
        assert_eq!(*kept.lock().unwrap(), Some(Typed(7)));
    });
}

#[test]
fn a_clean_end_does_not_cascade() {
    tell(|| async {
        let (first, other) = (Device::new(), Device::new());
        first.link(&other, LinkMode::Peer);
        let (mut watches_first, mut watches_other) = (watching(&first), watching(&other));
        let gate = Gate::new();
        let (waits, luggage) = (gate.clone(), Luggage::default());
        let _stays = spawn(async move {
            let staying = other.manage(async move {
                let _carried = luggage;
                waits.await;
                Ok::<_, Infallible>(())
            });
            staying.await.expect("nothing took it along");
        });
        let luggage = Luggage::default();
        let _goes = spawn(async move {
            let going = first.manage(async move {
                let _carried = luggage;
                Ok::<_, Infallible>(())
            });
            going.await.expect("it ends well");
        });
        assert_eq!(end(&mut watches_first).await.exit, Exit::Normal);
        assert_eq!(watches_other.try_receive(), None);
        gate.open();
        assert_eq!(end(&mut watches_other).await.exit, Exit::Normal);
    });
}

#[test]
fn a_chain_of_three_cascades_with_the_first_cause() {
    tell(|| async {
        let (first, second, third) = (Device::labelled("first"), Device::new(), Device::new());
        second.link(&first, LinkMode::Monitor);
        third.link(&second, LinkMode::Monitor);
        let mut watcher = watching(&third);
        let (began, via) = (first.id(), second.id());
        let mut tasks = Vec::new();
        for device in [third, second] {
            let luggage = Luggage::default();
            tasks.push(spawn(async move {
                let waiting = device.manage(async move {
                    let _carried = luggage;
                    pending::<Result<(), Infallible>>().await
                });
                assert!(matches!(waiting.await, Err(Crash::Cascade(_))));
            }));
        }
        let luggage = Luggage::default();
        tasks.push(spawn(async move {
            let failing = first.manage(async move {
                let _carried = luggage;
                panic!("out of beans") as Result<(), Infallible>
            });
            assert!(failing.await.is_err());
        }));
        let news = end(&mut watcher).await;
        assert_eq!(kind(&news), Some(FaultKind::Cascade(via)));
        let fault = news.exit.fault().expect("a cascade is a fault");
        let cause = fault.first_cause().expect("a cascade has one");
        assert_eq!((cause.device, cause.kind), (began, FaultKind::Panic));
        assert_eq!(fault.message(), Some("out of beans"));
        assert_eq!(fault.label().map(|label| label.name()), Some("first"));
    });
}

#[test]
fn a_request_to_stop_ends_a_managed_future() {
    tell(|| async {
        let device = Device::new();
        let mut watcher = watching(&device);
        let (line, me) = (device.line(), watcher.id());
        let (started, dropped) = (Gate::new(), Gate::new());
        let (starts, opens) = (started.clone(), Opens(dropped.clone()));
        let luggage = Luggage::default();
        let _task = spawn(async move {
            let waiting = device.manage(async move {
                let _carried = (luggage, opens);
                starts.open();
                pending::<Result<(), Infallible>>().await
            });
            assert!(matches!(waiting.await, Err(Crash::Shutdown(by)) if by == me));
        });
        started.await;
        line.shutdown(me);
        assert_eq!(end(&mut watcher).await.exit, Exit::Shutdown);
        assert!(dropped.is_open());
        assert!(!line.is_alive());
    });
}

/// Drops the task of a managed future, once before it has run and once while it runs.
fn a_dropped_task_is_heard_as(condemned: bool, as_what: FaultKind) {
    tell(move || async move {
        for runs in [false, true] {
            let device = Device::new();
            let mut watcher = watching(&device);
            let line = device.line();
            let (started, dropped) = (Gate::new(), Gate::new());
            let (starts, opens) = (started.clone(), Opens(dropped.clone()));
            let luggage = Luggage::default();
            // Managed out here: a task that has never run has not called `manage` either.
            let waiting = device.manage(async move {
                let _carried = (luggage, opens);
                starts.open();
                pending::<Result<(), Infallible>>().await
            });
            let task = spawn(async move { drop(waiting.await) });
            if runs {
                started.await;
            }
            if condemned {
                line.condemn();
            }
            drop(task);
            let news = end(&mut watcher).await;
            assert_eq!(kind(&news), Some(as_what));
            assert!(dropped.is_open(), "the future is dropped before anyone hears");
            assert_eq!(watcher.try_receive(), None);
        }
    });
}

#[test]
fn a_dropped_task_is_heard() {
    a_dropped_task_is_heard_as(false, FaultKind::Dropped);
}

#[test]
fn a_kill_is_the_drop_of_a_task() {
    a_dropped_task_is_heard_as(true, FaultKind::Killed);
}

#[test]
fn whatever_ends_it_the_future_is_dropped_before_anyone_hears() {
    /// Set as long as something is held that only one can have.
    struct Port(Arc<AtomicBool>);
    impl Port {
        fn bind(port: &Arc<AtomicBool>) -> Port {
            assert!(!port.swap(true, SeqCst), "the port is in use");
            Port(Arc::clone(port))
        }
    }
    impl Drop for Port {
        fn drop(&mut self) {
            self.0.store(false, SeqCst);
        }
    }
    #[derive(Clone, Copy)]
    enum Way {
        Value,
        Error,
        Panic,
        Request,
        Cascade,
    }
    tell(|| async {
        let port = Arc::new(AtomicBool::new(false));
        let ways = [Way::Value, Way::Error, Way::Panic, Way::Request, Way::Cascade];
        for way in ways.into_iter().cycle().take(50) {
            let (device, mut parent) = (Device::new(), Device::new());
            let other = Device::new();
            device.link(&other, LinkMode::Monitor);
            parent.link(&device, LinkMode::Monitor);
            let (line, bound, started) = (device.line(), Port::bind(&port), Gate::new());
            let (starts, luggage) = (started.clone(), Luggage::default());
            let _task = spawn(async move {
                let managed = device.manage(async move {
                    let _carried = (luggage, bound);
                    starts.open();
                    match way {
                        Way::Value => Ok(()),
                        Way::Error => Err("it fails"),
                        Way::Panic => panic!("it panics"),
                        Way::Request | Way::Cascade => pending().await,
                    }
                });
                drop(managed.await);
            });
            started.await;
            match way {
                Way::Request => line.shutdown(parent.id()),
                Way::Cascade => drop(other),
                Way::Value | Way::Error | Way::Panic => {}
            }
            end(&mut parent).await;
            // The successor's, in the next round, is bound as soon as this one's end is heard.
            assert!(!port.load(SeqCst));
        }
    });
}

#[test]
fn a_thousand_monitors_are_told_once_each() {
    const TASKS: usize = 40;
    const EACH: usize = 25;
    tell(|| async {
        let hub = Device::new();
        let line = hub.line();
        let (linked, told) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let all_linked = Gate::new();
        let mut boss = Device::new();
        let mut tasks = Vec::new();
        for task in 0..TASKS {
            let device = Device::new();
            boss.link(&device, LinkMode::Monitor.tag(task as u64));
            let (linked, told, gate) = (Arc::clone(&linked), Arc::clone(&told), all_linked.clone());
            let luggage = Luggage::default();
            tasks.push(spawn(async move {
                let hearing = device.manage(async move {
                    let _carried = luggage;
                    let mut watchers = Vec::new();
                    for at in 0..EACH {
                        let watcher = Device::new();
                        // Half of them while others already wait, half against the end itself.
                        watcher.link(&line, LinkMode::Monitor.tag(at as u64));
                        watchers.push(watcher);
                        if linked.fetch_add(1, SeqCst) == TASKS * EACH / 2 {
                            gate.open();
                        }
                    }
                    for (at, watcher) in watchers.iter_mut().enumerate() {
                        let news = end(watcher).await;
                        assert_eq!((news.device, news.tag), (line.id(), at as u64));
                        let kind = kind(&news).expect("the hub does not end well");
                        assert!(matches!(kind, FaultKind::Dropped | FaultKind::Gone), "{kind}");
                        told.fetch_add(1, SeqCst);
                    }
                    assert!(watchers.iter_mut().all(|watcher| watcher.try_receive().is_none()));
                    Ok::<_, Infallible>(())
                });
                drop(hearing.await);
            }));
        }
        all_linked.await;
        drop(hub);
        for _ in 0..TASKS {
            let news = end(&mut boss).await;
            assert_eq!(news.exit, Exit::Normal, "task {}", news.tag);
        }
        assert_eq!(told.load(SeqCst), TASKS * EACH);
    });
}

#[test]
fn a_supervisor_written_outside_starts_its_child_again() {
    /// Starts a child, which watches its parent as the parent watches it.
    fn start(parent: &Device, attempt: u64) -> super::Task {
        let child = Device::new();
        parent.link(&child, LinkMode::Peer.tag(attempt));
        let luggage = Luggage::default();
        spawn(async move {
            let trying = child.manage(async move {
                let _carried = luggage;
                if attempt < 3 { panic!("attempt {attempt}") } else { Ok::<_, Infallible>(()) }
            });
            drop(trying.await);
        })
    }
    tell(|| async {
        let mut parent = Device::new();
        let mut words = Vec::new();
        let mut child = start(&parent, 1);
        let last = loop {
            let news = end(&mut parent).await;
            let Some(fault) = news.exit.fault() else { break news };
            words.extend(fault.message().map(String::from));
            child = start(&parent, news.tag + 1);
        };
        drop(child);
        assert_eq!((last.tag, last.exit), (3, Exit::Normal));
        assert_eq!(words, ["attempt 1", "attempt 2"]);
    });
}

#[test]
fn a_managed_future_takes_what_is_handed_over() {
    tell(|| async {
        let (mut parent, child) = (Device::new(), Device::new());
        let mut watcher = watching(&parent);
        parent.link(&child, LinkMode::Monitor.tag(7).on_fault(OnFault::HandOver));
        let mut inbox = parent.inbox();
        let (started, luggage) = (Gate::new(), Luggage::default());
        let starts = started.clone();
        let _task = spawn(async move {
            let hearing = parent.manage(async move {
                let _carried = luggage;
                starts.open();
                match inbox.receive().await {
                    Some(Message::Disconnect(news)) if news.tag == 7 => Ok(()),
                    other => Err(other),
                }
            });
            drop(hearing.await);
        });
        started.await;
        drop(child);
        assert_eq!(end(&mut watcher).await.exit, Exit::Normal);
    });
}

#[test]
fn whoever_watches_decides_for_himself() {
    tell(|| async {
        let (mut device, other) = (Device::new(), Device::new());
        device.link(&other, LinkMode::Monitor);
        let gate = Gate::new();
        let (waits, luggage) = (gate.clone(), Luggage::default());
        let _task = spawn(async move {
            let _carried = luggage;
            drop(other);
        });
        let mut work = pin!(async {
            waits.await;
            42
        });
        match device.watch(work.as_mut()).await {
            Watched::Message(Message::Disconnect(news)) => assert_eq!(kind(&news), Some(FaultKind::Dropped)),
            other => panic!("{other:?}"),
        }
        gate.open();
        let done = device.watch(work.as_mut()).await;
        assert!(matches!(done, Watched::Value(42)));
        assert!(device.line().is_alive());
    });
}

#[test]
fn a_link_that_a_third_has_undone_is_silent() {
    tell(|| async {
        let (mut device, other) = (Device::new(), Device::new());
        device.link(&other, LinkMode::Peer);
        let (from, to, undone) = (device.line(), other.line(), Gate::new());
        let (opens, luggage) = (undone.clone(), Luggage::default());
        let _task = spawn(async move {
            let _carried = luggage;
            from.unlink(&to, LinkMode::Peer);
            opens.open();
        });
        undone.await;
        drop(other);
        let last = Device::new();
        device.link(&last, LinkMode::Monitor);
        let last_id: DeviceId = last.id();
        drop(last);
        assert_eq!(end(&mut device).await.device, last_id, "what comes next is of another");
        assert_eq!(device.try_receive(), None);
    });
}
