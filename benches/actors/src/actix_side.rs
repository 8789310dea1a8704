//! actix's side: two arbiters, each with a thread of its own.

use std::{sync::mpsc, thread, time::Duration};

use actix::{Actor, Addr, Arbiter, Context, Handler, Message, System};

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
