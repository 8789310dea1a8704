//! What the supervisors promise, a sentence a test, under virtual time.

#![allow(clippy::unwrap_used)]

mod support;

#[path = "it/dynamic.rs"]
mod dynamic;
#[cfg(all(feature = "serde", feature = "tracing"))]
#[path = "it/features.rs"]
mod features;
#[path = "it/odd_places.rs"]
mod odd_places;
#[path = "it/reports.rs"]
mod reports;
#[path = "it/restarts.rs"]
mod restarts;
#[path = "it/roots.rs"]
mod roots;
#[path = "it/shutdown.rs"]
mod shutdown;
#[path = "it/soak.rs"]
mod soak;
#[path = "it/starts.rs"]
mod starts;
#[path = "it/strangers.rs"]
mod strangers;

use backplane::{Device, Exit, Message};
use backplane_supervisor::{ChildSpec, Event, Report, Starting, Supervisor, SupervisorHandle};
use std::collections::HashMap;
use std::convert::Infallible;
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::virtual_time::World;

const SECOND: Duration = Duration::from_secs(1);

/// What happened, in order; and the way to end children.
#[derive(Clone, Default)]
struct Log {
    lines: Arc<Mutex<Vec<String>>>,
    senders: Arc<Mutex<HashMap<String, Arc<Mutex<Ending>>>>>,
}

#[derive(Default)]
struct Ending {
    how: Option<How>,
    waker: Option<std::task::Waker>,
}

#[derive(Clone, Copy, PartialEq)]
enum How {
    Ok,
    Err,
    Panic,
}

/// Written to the log when it is dropped.
struct Guard(Log, String);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.note(format!("-{}", self.1));
    }
}

impl Log {
    fn note(&self, line: impl Into<String>) {
        self.lines.lock().unwrap().push(line.into());
    }

    /// What has been written since the last time.
    fn take(&self) -> String {
        std::mem::take(&mut *self.lines.lock().unwrap()).join(" ")
    }

    fn hold(&self, name: &str) -> Guard {
        self.note(format!("+{name}"));
        Guard(self.clone(), name.to_owned())
    }

    async fn until_told(&self, name: &str) -> Result<(), String> {
        let ending = Arc::new(Mutex::new(Ending::default()));
        self.senders.lock().unwrap().insert(name.to_owned(), Arc::clone(&ending));
        let how = std::future::poll_fn(|cx| {
            let mut ending = ending.lock().unwrap();
            match ending.how.take() {
                Some(how) => std::task::Poll::Ready(how),
                None => {
                    ending.waker = Some(cx.waker().clone());
                    std::task::Poll::Pending
                }
            }
        })
        .await;
        match how {
            How::Ok => Ok(()),
            How::Err => Err(format!("{name} failed")),
            How::Panic => panic!("{name} panicked"),
        }
    }

    /// A child that holds something and ends when it is told to.
    fn child(&self, name: &str) -> ChildSpec {
        let (log, id) = (self.clone(), name.to_owned());
        ChildSpec::new(name, move |device| {
            let (log, id) = (log.clone(), id.clone());
            device
                .manage(async move {
                    let _guard = log.hold(&id);
                    log.until_told(&id).await
                })
                .describe()
        })
    }

    /// A child that says when it is started, after so long.
    fn slow_child(&self, world: &World, name: &str, delay: Duration) -> ChildSpec {
        let (log, id, world) = (self.clone(), name.to_owned(), world.clone());
        ChildSpec::starting(name, move |device, starting: Starting| {
            let (log, id, world) = (log.clone(), id.clone(), world.clone());
            device
                .manage(async move {
                    let _guard = log.hold(&id);
                    sleep(&world, delay).await;
                    drop(starting.done());
                    log.until_told(&id).await
                })
                .describe()
        })
    }

    /// A child that takes no notice of a request to stop.
    fn stubborn_child(&self, name: &str) -> ChildSpec {
        let (log, id) = (self.clone(), name.to_owned());
        ChildSpec::new(name, move |mut device: Device| {
            let (log, id) = (log.clone(), id.clone());
            async move {
                let _guard = log.hold(&id);
                loop {
                    if let Message::Disconnect(_) = device.receive().await {
                        break;
                    }
                }
            }
        })
    }

    fn end(&self, name: &str, how: How) {
        let ending = Arc::clone(&self.senders.lock().unwrap()[name]);
        let mut ending = ending.lock().unwrap();
        ending.how = Some(how);
        let waker = ending.waker.take();
        drop(ending);
        waker.into_iter().for_each(std::task::Waker::wake);
    }
}

async fn sleep(world: &World, time: Duration) {
    use backplane::Runtime;
    world.sleep_until(world.now() + time).await;
}

fn start(world: &World, tree: Supervisor) -> SupervisorHandle {
    world.block_on(tree.start(world.clone())).expect("it starts")
}

fn stop(world: &World, handle: &SupervisorHandle) -> backplane_supervisor::Stopped {
    world.block_on(handle.stop(Exit::Shutdown)).expect("it was there")
}

/// The panics of the tests are meant.
fn quiet() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let words = info.payload_as_str().unwrap_or_default();
            if !words.ends_with(" panicked") {
                loud(info);
            }
        }));
    });
}

fn words(report: &Report) -> String {
    let child = report.child.as_deref().unwrap_or("?");
    match &report.event {
        Event::Started => format!("started {child}#{}", report.incarnation),
        Event::Ended { exit, stopped } => {
            format!("{} {child}#{}: {exit}", if *stopped { "stopped" } else { "ended" }, report.incarnation)
        }
        event => format!("{child}: {event}"),
    }
}

fn forever() -> impl Future<Output = Result<(), Infallible>> {
    pending()
}
