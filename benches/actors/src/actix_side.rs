//! actix's side: two arbiters, each with a thread of its own.

use std::{sync::mpsc, thread, time::Duration};

use actix::{Actor, ActorContext, Addr, Arbiter, Context, Handler, Message, System};

use crate::{Side, side, timed};

struct Counter(u64);

impl Actor for Counter {
    type Context = Context<Self>;
}

#[derive(Message)]
#[rtype(result = "()")]
struct Add(u64);

#[derive(Message)]
#[rtype(result = "u64")]
struct Get;

impl Handler<Add> for Counter {
    type Result = ();

    fn handle(&mut self, Add(n): Add, _: &mut Context<Self>) {
        self.0 += n;
    }
}

impl Handler<Get> for Counter {
    type Result = u64;

    fn handle(&mut self, _: Get, _: &mut Context<Self>) -> u64 {
        self.0
    }
}

/// Says when it has stopped.
struct Short(Option<tokio::sync::oneshot::Sender<()>>);

impl Actor for Short {
    type Context = Context<Self>;

    fn stopped(&mut self, _: &mut Context<Self>) {
        if let Some(stopped) = self.0.take() {
            let _ = stopped.send(());
        }
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Stop;

impl Handler<Stop> for Short {
    type Result = ();

    fn handle(&mut self, _: Stop, context: &mut Context<Self>) {
        context.stop();
    }
}

struct Node {
    to: Option<Addr<Node>>,
    done: Option<tokio::sync::oneshot::Sender<()>>,
}

impl Actor for Node {
    type Context = Context<Self>;
}

#[derive(Message)]
#[rtype(result = "()")]
struct To(Addr<Node>);

#[derive(Message)]
#[rtype(result = "()")]
struct Token(u32);

impl Handler<To> for Node {
    type Result = ();

    fn handle(&mut self, To(to): To, _: &mut Context<Self>) {
        self.to = Some(to);
    }
}

impl Handler<Token> for Node {
    type Result = ();

    fn handle(&mut self, Token(left): Token, _: &mut Context<Self>) {
        if let (0, Some(done)) = (left, self.done.take_if(|_| left == 0)) {
            let _ = done.send(());
        } else if let (1.., Some(to)) = (left, &self.to) {
            to.do_send(Token(left - 1));
        }
    }
}

/// Runs in an actix system of its own, in one arbiter, with counters in another.
fn in_actix<F>(counters: u32, run: impl FnOnce(Vec<Addr<Counter>>) -> F + Send + 'static) -> Duration
where
    F: Future<Output = Duration> + 'static,
{
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        System::new().block_on(async move {
            let arbiter = Arbiter::new();
            let addresses =
                (0..counters).map(|_| Counter::start_in_arbiter(&arbiter.handle(), |_| Counter(0))).collect();
            let took = run(addresses).await;
            let _ = tell.send(took);
            arbiter.stop();
        });
    });
    told.recv().expect("it measures")
}

pub(crate) fn tell(senders: u32) -> Side {
    side("actix", move |n| async move {
        tokio::task::block_in_place(|| {
            in_actix(1, move |addresses| async move {
                timed(async {
                    // Its senders take turns in one arbiter.
                    for _ in 0..senders {
                        for i in 0..n / senders {
                            addresses[0].do_send(Add(u64::from(i)));
                        }
                    }
                    assert!(addresses[0].send(Get).await.is_ok());
                })
                .await
            })
        })
    })
}

pub(crate) fn tell_many(receivers: u32) -> Side {
    side("actix", move |n| async move {
        tokio::task::block_in_place(|| {
            in_actix(receivers, move |addresses| async move {
                timed(async {
                    for i in 0..n / receivers {
                        for address in &addresses {
                            address.do_send(Add(u64::from(i)));
                        }
                    }
                    for address in &addresses {
                        assert!(address.send(Get).await.is_ok());
                    }
                })
                .await
            })
        })
    })
}

pub(crate) fn call() -> Side {
    side("actix", move |n| async move {
        tokio::task::block_in_place(|| {
            in_actix(1, move |addresses| async move {
                timed(async {
                    for _ in 0..n {
                        assert!(addresses[0].send(Get).await.is_ok());
                    }
                })
                .await
            })
        })
    })
}

/// All in one arbiter.
pub(crate) fn spawn() -> Side {
    side("actix, one thread", move |n| async move {
        tokio::task::block_in_place(|| {
            in_actix(0, move |_| {
                timed(async move {
                    for _ in 0..n {
                        let (stopped, hears) = tokio::sync::oneshot::channel();
                        Short(Some(stopped)).start().do_send(Stop);
                        assert!(hears.await.is_ok());
                    }
                })
            })
        })
    })
}

/// All in one arbiter.
pub(crate) fn ring(size: u32) -> Side {
    side("actix, one thread", move |n| async move {
        tokio::task::block_in_place(|| {
            in_actix(0, move |_| async move {
                let (done, wait) = tokio::sync::oneshot::channel();
                let first = Node { to: None, done: Some(done) }.start();
                let mut next = first.clone();
                for _ in 1..size {
                    next = Node { to: Some(next), done: None }.start();
                }
                assert!(first.send(To(next)).await.is_ok());
                timed(async {
                    first.do_send(Token(n - n % size));
                    assert!(wait.await.is_ok());
                })
                .await
            })
        })
    })
}

pub(crate) fn bytes(_: &tokio::runtime::Runtime) -> f64 {
    const MANY: usize = 1000;
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        System::new().block_on(async move {
            let many = || (0..MANY).map(|_| Counter(0).start()).collect::<Vec<_>>();
            let warm = many();
            assert!(warm[MANY - 1].send(Get).await.is_ok());
            let mut kept = Vec::with_capacity(MANY);
            let info = allocation_counter::measure(|| kept.extend(many()));
            assert!(kept[MANY - 1].send(Get).await.is_ok());
            // What its list of them took is none of theirs.
            let _ = tell.send((info.bytes_current as f64) / MANY as f64);
        });
    });
    told.recv().expect("it measures")
}
