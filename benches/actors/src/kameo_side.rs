//! kameo's side, as its documentation would have it.

use std::{convert::Infallible, ops::ControlFlow};

use kameo::{
    actor::{Actor, ActorId, ActorRef, Spawn, WeakActorRef},
    error::ActorStopReason,
    mailbox,
    message::{Context, Message},
};

use crate::{Side, heap_of, side, timed};

struct Counter(u64);
struct Add(u64);
struct Get;
struct Fail;

impl Actor for Counter {
    type Args = ();
    type Error = Infallible;

    async fn on_start((): (), _: ActorRef<Self>) -> Result<Self, Infallible> {
        Ok(Counter(0))
    }
}

impl Message<Add> for Counter {
    type Reply = ();

    async fn handle(&mut self, Add(n): Add, _: &mut Context<Self, ()>) {
        self.0 += n;
    }
}

impl Message<Get> for Counter {
    type Reply = u64;

    async fn handle(&mut self, _: Get, _: &mut Context<Self, u64>) -> u64 {
        self.0
    }
}

impl Message<Fail> for Counter {
    type Reply = ();

    async fn handle(&mut self, _: Fail, _: &mut Context<Self, ()>) {
        panic!("out of beans");
    }
}

fn counter() -> ActorRef<Counter> {
    Counter::spawn_with_mailbox((), mailbox::unbounded())
}

pub(crate) fn tell(senders: u32) -> Side {
    side("kameo", move |n| async move {
        let actor = counter();
        timed(async {
            let tasks: Vec<_> = (0..senders)
                .map(|_| {
                    let actor = actor.clone();
                    tokio::spawn(async move {
                        for i in 0..n / senders {
                            assert!(actor.tell(Add(u64::from(i))).await.is_ok());
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.expect("it ends");
            }
            assert!(actor.ask(Get).await.is_ok());
        })
        .await
    })
}

pub(crate) fn tell_many(receivers: u32) -> Side {
    side("kameo", move |n| async move {
        let actors: Vec<_> = (0..receivers).map(|_| counter()).collect();
        timed(async {
            for i in 0..n / receivers {
                for actor in &actors {
                    assert!(actor.tell(Add(u64::from(i))).await.is_ok());
                }
            }
            for actor in &actors {
                assert!(actor.ask(Get).await.is_ok());
            }
        })
        .await
    })
}

pub(crate) fn call() -> Side {
    side("kameo", move |n| async move {
        let actor = counter();
        timed(async {
            for _ in 0..n {
                assert!(actor.ask(Get).await.is_ok());
            }
        })
        .await
    })
}

pub(crate) fn spawn() -> Side {
    side("kameo", move |n| async move {
        timed(async {
            for _ in 0..n {
                let actor = counter();
                assert!(actor.stop_gracefully().await.is_ok());
                actor.wait_for_shutdown().await;
            }
        })
        .await
    })
}

struct Watcher(tokio::sync::mpsc::UnboundedSender<()>);

impl Actor for Watcher {
    type Args = tokio::sync::mpsc::UnboundedSender<()>;
    type Error = Infallible;

    async fn on_start(tell: Self::Args, _: ActorRef<Self>) -> Result<Self, Infallible> {
        Ok(Watcher(tell))
    }

    async fn on_link_died(
        &mut self,
        _: WeakActorRef<Self>,
        _: ActorId,
        _: ActorStopReason,
    ) -> Result<ControlFlow<ActorStopReason>, Infallible> {
        let _ = self.0.send(());
        Ok(ControlFlow::Continue(()))
    }
}

pub(crate) fn crash() -> Side {
    side("kameo", move |n| async move {
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let watcher = Watcher::spawn(tell);
        timed(async {
            for _ in 0..n {
                let actor = counter();
                actor.link(&watcher).await;
                assert!(actor.tell(Fail).await.is_ok());
                told.recv().await;
            }
        })
        .await
    })
}

struct Node {
    to: Option<ActorRef<Node>>,
    done: Option<tokio::sync::oneshot::Sender<()>>,
}

struct Token(u32);
struct To(ActorRef<Node>);

impl Actor for Node {
    type Args = Node;
    type Error = Infallible;

    async fn on_start(node: Node, _: ActorRef<Self>) -> Result<Self, Infallible> {
        Ok(node)
    }
}

impl Message<To> for Node {
    type Reply = ();

    async fn handle(&mut self, To(to): To, _: &mut Context<Self, ()>) {
        self.to = Some(to);
    }
}

impl Message<Token> for Node {
    type Reply = ();

    async fn handle(&mut self, Token(left): Token, _: &mut Context<Self, ()>) {
        if left == 0 {
            if let Some(done) = self.done.take() {
                let _ = done.send(());
            }
        } else if let Some(to) = &self.to {
            let _ = to.tell(Token(left - 1)).await;
        }
    }
}

pub(crate) fn ring(size: u32) -> Side {
    side("kameo", move |n| async move {
        let (done, wait) = tokio::sync::oneshot::channel();
        let node = Node { to: None, done: Some(done) };
        let first = Node::spawn_with_mailbox(node, mailbox::unbounded());
        let mut next = first.clone();
        for _ in 1..size {
            next = Node::spawn_with_mailbox(Node { to: Some(next), done: None }, mailbox::unbounded());
        }
        let last = next.clone();
        assert!(first.tell(To(next)).await.is_ok());
        let took = timed(async {
            assert!(first.tell(Token(n - n % size)).await.is_ok());
            let _ = wait.await;
        })
        .await;
        last.kill();
        took
    })
}

pub(crate) fn bytes(tokio: &tokio::runtime::Runtime) -> f64 {
    let _inside = tokio.enter();
    heap_of(tokio, counter)
}
