//! ractor's side, as its documentation would have it.

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};

use crate::{Side, heap_of, side, timed};

enum Count {
    Add(u64),
    Get(RpcReplyPort<u64>),
    Fail,
}

struct Counter;

impl Actor for Counter {
    type Msg = Count;
    type State = u64;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Count>, (): ()) -> Result<u64, ActorProcessingErr> {
        Ok(0)
    }

    async fn handle(
        &self,
        _: ActorRef<Count>,
        message: Count,
        total: &mut u64,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Count::Add(n) => *total += n,
            Count::Get(reply) => {
                let _ = reply.send(*total);
            }
            Count::Fail => panic!("out of beans"),
        }
        Ok(())
    }
}

async fn counter() -> ActorRef<Count> {
    Counter::spawn(None, Counter, ()).await.expect("it starts").0
}

async fn get(actor: &ActorRef<Count>) {
    assert!(ractor::call!(actor, Count::Get).is_ok());
}

pub(crate) fn tell(senders: u32) -> Side {
    side("ractor", move |n| async move {
        let actor = counter().await;
        timed(async {
            let tasks: Vec<_> = (0..senders)
                .map(|_| {
                    let actor = actor.clone();
                    tokio::spawn(async move {
                        for i in 0..n / senders {
                            assert!(actor.cast(Count::Add(u64::from(i))).is_ok());
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.expect("it ends");
            }
            get(&actor).await;
            actor.stop(None);
        })
        .await
    })
}

pub(crate) fn tell_many(receivers: u32) -> Side {
    side("ractor", move |n| async move {
        let mut actors = Vec::new();
        for _ in 0..receivers {
            actors.push(counter().await);
        }
        timed(async {
            for i in 0..n / receivers {
                for actor in &actors {
                    assert!(actor.cast(Count::Add(u64::from(i))).is_ok());
                }
            }
            for actor in &actors {
                get(actor).await;
                actor.stop(None);
            }
        })
        .await
    })
}

pub(crate) fn call() -> Side {
    side("ractor", move |n| async move {
        let actor = counter().await;
        timed(async {
            for _ in 0..n {
                get(&actor).await;
            }
            actor.stop(None);
        })
        .await
    })
}

pub(crate) fn spawn() -> Side {
    side("ractor", move |n| async move {
        timed(async {
            for _ in 0..n {
                let (actor, task) = Counter::spawn(None, Counter, ()).await.expect("it starts");
                actor.stop(None);
                assert!(task.await.is_ok());
            }
        })
        .await
    })
}

struct Watcher;

impl Actor for Watcher {
    type Msg = ();
    type State = tokio::sync::mpsc::UnboundedSender<()>;
    type Arguments = tokio::sync::mpsc::UnboundedSender<()>;

    async fn pre_start(
        &self,
        _: ActorRef<()>,
        tell: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(tell)
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<()>,
        event: SupervisionEvent,
        tell: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        if let SupervisionEvent::ActorFailed(..) = event {
            let _ = tell.send(());
        }
        Ok(())
    }
}

pub(crate) fn crash() -> Side {
    side("ractor", move |n| async move {
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let (watcher, _) = Watcher::spawn(None, Watcher, tell).await.expect("it starts");
        let took = timed(async {
            for _ in 0..n {
                let (actor, _) =
                    Counter::spawn_linked(None, Counter, (), watcher.get_cell()).await.expect("it starts");
                assert!(actor.cast(Count::Fail).is_ok());
                told.recv().await;
            }
        })
        .await;
        watcher.stop(None);
        took
    })
}

struct Node;

enum Ring {
    To(ActorRef<Ring>),
    Token(u32),
}

struct State {
    to: Option<ActorRef<Ring>>,
    done: Option<tokio::sync::oneshot::Sender<()>>,
}

impl Actor for Node {
    type Msg = Ring;
    type State = State;
    type Arguments = State;

    async fn pre_start(&self, _: ActorRef<Ring>, state: State) -> Result<State, ActorProcessingErr> {
        Ok(state)
    }

    async fn handle(
        &self,
        me: ActorRef<Ring>,
        message: Ring,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Ring::To(to) => state.to = Some(to),
            Ring::Token(0) => {
                if let Some(done) = state.done.take() {
                    let _ = done.send(());
                }
                me.stop(None);
            }
            Ring::Token(left) => {
                if let Some(to) = &state.to {
                    let _ = to.cast(Ring::Token(left - 1));
                }
            }
        }
        Ok(())
    }
}

pub(crate) fn ring(size: u32) -> Side {
    side("ractor", move |n| async move {
        let (done, wait) = tokio::sync::oneshot::channel();
        let state = State { to: None, done: Some(done) };
        let (first, _) = Node::spawn(None, Node, state).await.expect("it starts");
        let mut all = vec![first.clone()];
        for _ in 1..size {
            let state = State { to: all.last().cloned(), done: None };
            all.push(Node::spawn(None, Node, state).await.expect("it starts").0);
        }
        assert!(all.last().is_some_and(|last| first.cast(Ring::To(last.clone())).is_ok()));
        let took = timed(async {
            assert!(first.cast(Ring::Token(n - n % size)).is_ok());
            let _ = wait.await;
        })
        .await;
        all.iter().for_each(|actor| actor.stop(None));
        took
    })
}

pub(crate) fn bytes(tokio: &tokio::runtime::Runtime) -> f64 {
    heap_of(tokio, || tokio.block_on(counter()))
}
