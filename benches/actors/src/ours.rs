//! backplane-actor's side.

use std::convert::Infallible;

use backplane::{
    Device,
    runtime::{Smol, Tokio},
};
use backplane_actor::{Actor, Address, Context, Handle, Mailbox, Options, Reply, System};

use crate::{Side, heap_of, side, timed};

enum Count {
    Add(u64),
    Get(Reply<u64>),
}

async fn count(mut mailbox: Mailbox<Count>) {
    let mut total = 0;
    while let Some(message) = mailbox.receive().await {
        match message {
            Count::Add(n) => total += n,
            Count::Get(reply) => reply.send(total),
        }
    }
}

struct Counter(u64);
struct Add(u64);
struct Get;

impl Actor for Counter {
    type Messages = (Add, Get);
    type Error = Infallible;
}

impl Handle<Add> for Counter {
    type Reply = ();

    async fn handle(&mut self, Add(n): Add, _: &mut Context<Self>) -> Result<(), Infallible> {
        self.0 += n;
        Ok(())
    }
}

impl Handle<Get> for Counter {
    type Reply = u64;

    async fn handle(&mut self, _: Get, _: &mut Context<Self>) -> Result<u64, Infallible> {
        Ok(self.0)
    }
}

fn system() -> System<Tokio> {
    System::new(Tokio::current().expect("in a runtime"))
}

pub(crate) fn tell(name: &'static str, senders: u32) -> Side {
    side(name, move |n| async move {
        let system = system();
        let address = system.spawn_with(Options::new().unbounded(), count);
        timed(async {
            let tasks: Vec<_> = (0..senders)
                .map(|_| {
                    let address = address.clone();
                    tokio::spawn(async move {
                        for i in 0..n / senders {
                            assert!(address.try_cast(Count::Add(u64::from(i))).is_ok());
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.expect("it ends");
            }
            address.ask(Count::Get).await.expect("it lives");
        })
        .await
    })
}

pub(crate) fn tell_bounded(name: &'static str) -> Side {
    side(name, move |n| async move {
        let address = system().spawn(count);
        timed(async {
            for i in 0..n {
                assert!(address.cast(Count::Add(u64::from(i))).await.is_ok());
            }
            address.ask(Count::Get).await.expect("it lives");
        })
        .await
    })
}

pub(crate) fn tell_handler(name: &'static str) -> Side {
    side(name, move |n| async move {
        let address = system().start_with(Options::new().unbounded(), Counter(0));
        timed(async {
            for i in 0..n {
                assert!(address.try_cast(Add(u64::from(i))).is_ok());
            }
            address.call(Get).await.expect("it lives");
        })
        .await
    })
}

pub(crate) fn tell_many(receivers: u32) -> Side {
    side("ours, process", move |n| async move {
        let system = system();
        let addresses: Vec<_> =
            (0..receivers).map(|_| system.spawn_with(Options::new().unbounded(), count)).collect();
        timed(async {
            for i in 0..n / receivers {
                for address in &addresses {
                    assert!(address.try_cast(Count::Add(u64::from(i))).is_ok());
                }
            }
            for address in &addresses {
                address.ask(Count::Get).await.expect("it lives");
            }
        })
        .await
    })
}

pub(crate) fn call(name: &'static str, forever: bool) -> Side {
    side(name, move |n| async move {
        let address = system().spawn_with(Options::new().unbounded(), count);
        timed(async {
            for _ in 0..n {
                let call = address.ask(Count::Get);
                let call = if forever { call.forever() } else { call };
                call.await.expect("it lives");
            }
        })
        .await
    })
}

pub(crate) fn call_handler() -> Side {
    side("ours, handlers", move |n| async move {
        let address = system().start_with(Options::new().unbounded(), Counter(0));
        timed(async {
            for _ in 0..n {
                address.call(Get).await.expect("it lives");
            }
        })
        .await
    })
}

pub(crate) fn spawn() -> Side {
    side("ours, process", move |n| async move {
        let system = system();
        timed(async {
            for _ in 0..n {
                let address = system.spawn(count);
                address.drain();
                address.ended().await;
            }
        })
        .await
    })
}

pub(crate) fn spawn_handler() -> Side {
    side("ours, handlers", move |n| async move {
        let system = system();
        timed(async {
            for _ in 0..n {
                let address = system.start(Counter(0));
                address.drain();
                address.ended().await;
            }
        })
        .await
    })
}

async fn panics(mut mailbox: Mailbox<()>) {
    if mailbox.receive().await.is_some() {
        panic!("out of beans");
    }
}

pub(crate) fn crash() -> Side {
    side("ours, process", move |n| async move {
        let system = system();
        let mut watcher = Device::new();
        timed(async {
            for _ in 0..n {
                let address = system.spawn(panics);
                watcher.link(&address.line().expect("it runs"), backplane::LinkMode::Monitor);
                assert!(address.try_cast(()).is_ok());
                watcher.receive().await;
            }
        })
        .await
    })
}

pub(crate) fn ring(size: u32) -> Side {
    side("ours, process", move |n| async move {
        let system = system();
        let (done, wait) = tokio::sync::oneshot::channel();
        let mut done = Some(done);
        let (first, home) = system.prepare::<u32>(Options::new().unbounded());
        let mut next = first.clone();
        for _ in 1..size {
            let to: Address<u32> = next;
            next =
                system.spawn_with(Options::new().unbounded(), move |mut mailbox: Mailbox<u32>| async move {
                    while let Some(left) = mailbox.receive().await {
                        let _ = to.try_cast(left.saturating_sub(1));
                    }
                });
        }
        let to = next;
        let run = home.run(Device::new(), |mut mailbox: Mailbox<u32>| async move {
            while let Some(left) = mailbox.receive().await {
                if left == 0 {
                    if let Some(done) = done.take() {
                        let _ = done.send(());
                    }
                    return;
                }
                let _ = to.try_cast(left - 1);
            }
        });
        tokio::spawn(run);
        timed(async {
            assert!(first.try_cast(n).is_ok());
            let _ = wait.await;
        })
        .await
    })
}

pub(crate) fn bytes(tokio: &tokio::runtime::Runtime) -> f64 {
    let system = System::new(Tokio::new(tokio.handle().clone()));
    heap_of(tokio, || system.spawn(count))
}

pub(crate) fn bytes_handler(tokio: &tokio::runtime::Runtime) -> f64 {
    let system = System::new(Tokio::new(tokio.handle().clone()));
    heap_of(tokio, || system.start(Counter(0)))
}

pub(crate) fn bytes_smol(tokio: &tokio::runtime::Runtime) -> f64 {
    let system = System::new(Smol::global());
    heap_of(tokio, || system.spawn(count))
}

pub(crate) fn bytes_handler_smol(tokio: &tokio::runtime::Runtime) -> f64 {
    let system = System::new(Smol::global());
    heap_of(tokio, || system.start(Counter(0)))
}
