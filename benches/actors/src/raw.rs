//! The floors: a task and a channel, on tokio and on smol.

use crate::{Side, heap_of, side, timed};

enum Tokio {
    Add(u64),
    Get(tokio::sync::oneshot::Sender<u64>),
}

async fn tokio_count(mut receiver: tokio::sync::mpsc::UnboundedReceiver<Tokio>) {
    let mut total = 0;
    while let Some(message) = receiver.recv().await {
        match message {
            Tokio::Add(n) => total += n,
            Tokio::Get(reply) => drop(reply.send(total)),
        }
    }
}

fn tokio_counter() -> tokio::sync::mpsc::UnboundedSender<Tokio> {
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(tokio_count(receiver));
    sender
}

async fn tokio_get(sender: &tokio::sync::mpsc::UnboundedSender<Tokio>) {
    let (reply, answer) = tokio::sync::oneshot::channel();
    assert!(sender.send(Tokio::Get(reply)).is_ok());
    assert!(answer.await.is_ok());
}

pub(crate) fn tokio_tell(senders: u32) -> Side {
    side("raw tokio", move |n| async move {
        let sender = tokio_counter();
        timed(async {
            let tasks: Vec<_> = (0..senders)
                .map(|_| {
                    let sender = sender.clone();
                    tokio::spawn(async move {
                        for i in 0..n / senders {
                            assert!(sender.send(Tokio::Add(u64::from(i))).is_ok());
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.expect("it ends");
            }
            tokio_get(&sender).await;
        })
        .await
    })
}

pub(crate) fn tokio_tell_many(receivers: u32) -> Side {
    side("raw tokio", move |n| async move {
        let senders: Vec<_> = (0..receivers).map(|_| tokio_counter()).collect();
        timed(async {
            for i in 0..n / receivers {
                for sender in &senders {
                    assert!(sender.send(Tokio::Add(u64::from(i))).is_ok());
                }
            }
            for sender in &senders {
                tokio_get(sender).await;
            }
        })
        .await
    })
}

pub(crate) fn tokio_call() -> Side {
    side("raw tokio", move |n| async move {
        let sender = tokio_counter();
        timed(async {
            for _ in 0..n {
                tokio_get(&sender).await;
            }
        })
        .await
    })
}

pub(crate) fn tokio_spawn() -> Side {
    side("raw tokio", move |n| async move {
        timed(async {
            for _ in 0..n {
                let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
                let task = tokio::spawn(tokio_count(receiver));
                drop(sender);
                assert!(task.await.is_ok());
            }
        })
        .await
    })
}

pub(crate) fn tokio_crash() -> Side {
    side("raw tokio", move |n| async move {
        timed(async {
            for _ in 0..n {
                let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel::<()>();
                let task = tokio::spawn(async move {
                    if receiver.recv().await.is_some() {
                        panic!("out of beans");
                    }
                });
                assert!(sender.send(()).is_ok());
                assert!(task.await.is_err());
            }
        })
        .await
    })
}

pub(crate) fn tokio_ring(size: u32) -> Side {
    side("raw tokio", move |n| async move {
        let (done, wait) = tokio::sync::oneshot::channel();
        let (first, mut receiver) = tokio::sync::mpsc::unbounded_channel::<u32>();
        let mut next = first.clone();
        for _ in 1..size {
            let to = next;
            let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel::<u32>();
            tokio::spawn(async move {
                while let Some(left) = receiver.recv().await {
                    let _ = to.send(left.saturating_sub(1));
                }
            });
            next = sender;
        }
        let to = next;
        tokio::spawn(async move {
            while let Some(left) = receiver.recv().await {
                if left == 0 {
                    let _ = done.send(());
                    return;
                }
                let _ = to.send(left - 1);
            }
        });
        timed(async {
            assert!(first.send(n).is_ok());
            let _ = wait.await;
        })
        .await
    })
}

pub(crate) fn tokio_bytes(tokio: &tokio::runtime::Runtime) -> f64 {
    let _inside = tokio.enter();
    heap_of(tokio, tokio_counter)
}

enum Smol {
    Add(u64),
    Get(async_channel::Sender<u64>),
}

async fn smol_count(receiver: async_channel::Receiver<Smol>) {
    let mut total = 0;
    while let Ok(message) = receiver.recv().await {
        match message {
            Smol::Add(n) => total += n,
            Smol::Get(reply) => drop(reply.try_send(total)),
        }
    }
}

fn smol_counter() -> async_channel::Sender<Smol> {
    let (sender, receiver) = async_channel::unbounded();
    tokio::spawn(smol_count(receiver));
    sender
}

async fn smol_get(sender: &async_channel::Sender<Smol>) {
    let (reply, answer) = async_channel::bounded(1);
    assert!(sender.try_send(Smol::Get(reply)).is_ok());
    assert!(answer.recv().await.is_ok());
}

pub(crate) fn smol_tell(senders: u32) -> Side {
    side("raw async-channel", move |n| async move {
        let sender = smol_counter();
        timed(async {
            let tasks: Vec<_> = (0..senders)
                .map(|_| {
                    let sender = sender.clone();
                    tokio::spawn(async move {
                        for i in 0..n / senders {
                            assert!(sender.try_send(Smol::Add(u64::from(i))).is_ok());
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.expect("it ends");
            }
            smol_get(&sender).await;
        })
        .await
    })
}

pub(crate) fn smol_call() -> Side {
    side("raw async-channel", move |n| async move {
        let sender = smol_counter();
        timed(async {
            for _ in 0..n {
                smol_get(&sender).await;
            }
        })
        .await
    })
}

pub(crate) fn smol_spawn() -> Side {
    side("raw smol", move |n| async move {
        timed(async {
            for _ in 0..n {
                let (sender, receiver) = async_channel::unbounded();
                let task = smol::spawn(smol_count(receiver));
                drop(sender);
                task.await;
            }
        })
        .await
    })
}

pub(crate) fn smol_bytes(tokio: &tokio::runtime::Runtime) -> f64 {
    heap_of(tokio, || {
        let (sender, receiver) = async_channel::unbounded();
        smol::spawn(smol_count(receiver)).detach();
        sender
    })
}
