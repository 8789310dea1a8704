//! What messages cost in memory: nothing for a cast, one allocation for a call.

#![allow(clippy::unwrap_used)]

use std::{
    cell::RefCell,
    convert::Infallible,
    pin::{Pin, pin},
    task::{Context as Task, Poll, Waker},
    time::Duration,
};

use allocation_counter::measure;
use backplane::{Device, Runtime};
use backplane_actor::{Actor, Context, Handle, Mailbox, Options, Reply, System, testing::Seeded};

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

/// So many allocations in `rounds`, after as many that do not count.
fn allocations(rounds: u64, mut round: impl FnMut()) -> u64 {
    (0..rounds).for_each(|_| round());
    measure(|| (0..rounds).for_each(|_| round())).count_total
}

fn poll<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Task::from_waker(Waker::noop()))
}

#[test]
fn a_cast_allocates_nothing_and_a_call_once_in_a_process() {
    let system = System::new(Seeded::new(1));
    let (address, home) = system.prepare(Options::new());
    let mut process = pin!(home.run(Device::new(), count));
    let casts = allocations(1000, || {
        address.try_cast(Count::Add(1)).unwrap();
        assert!(poll(pin!(address.cast(Count::Add(1)))).is_ready());
        assert!(poll(process.as_mut()).is_pending());
    });
    assert_eq!(casts, 0);
    let calls = allocations(1000, || {
        let mut call = address.ask(Count::Get);
        assert!(poll(Pin::new(&mut call)).is_pending());
        assert!(poll(process.as_mut()).is_pending());
        assert!(poll(Pin::new(&mut call)).is_ready());
    });
    assert_eq!(calls, 1000);
}

#[test]
fn a_cast_allocates_nothing_and_a_call_once_in_an_actor_with_handlers() {
    // The one that its own address is for, as an executor would have it.
    let runtime = Seeded::new(1);
    let system = System::new(runtime.clone());
    let (address, home) = system.prepare(Options::new());
    let mut actor = pin!(home.run_actor(Device::new(), Counter(0)));
    let casts = allocations(1000, || {
        address.try_cast(Add(1)).unwrap();
        assert!(poll(actor.as_mut()).is_pending());
    });
    assert_eq!(casts, 0);
    let calls = allocations(1000, || {
        let mut call = address.call(Get);
        assert!(poll(Pin::new(&mut call)).is_pending());
        assert!(poll(actor.as_mut()).is_pending());
        assert!(poll(Pin::new(&mut call)).is_ready());
    });
    assert_eq!(calls, 1000);
}

#[test]
fn a_call_that_took_long_leaves_nothing_with_the_clock() {
    let (runtime, pause) = (Seeded::new(1), Duration::from_millis(10));
    let (system, clock) = (System::new(runtime.clone()), runtime.clone());
    let slow = system.spawn(move |mut mailbox: Mailbox<Reply<()>>| async move {
        while let Some(reply) = mailbox.receive().await {
            clock.sleep_until(clock.now() + pause).await;
            reply.send(());
        }
    });
    // In less than five seconds of its time.
    let calls = async {
        for _ in 0..400 {
            assert_eq!(slow.ask(|reply| reply).await, Ok(()));
        }
    };
    let info = measure(|| runtime.run(calls));
    assert!(info.count_current < 100, "{info:?}");
}

#[test]
fn an_actor_that_has_answered_later_keeps_nothing_of_those_calls() {
    for forever in [true, false] {
        let runtime = Seeded::new(1);
        let system = System::new(runtime.clone());
        let (address, home) = system.prepare::<Option<Reply<[u8; 1024]>>>(Options::new().unbounded());
        let held = &RefCell::new(Vec::with_capacity(2000));
        let mut process = pin!(home.run(Device::new(), |mut mailbox| async move {
            while let Some(message) = mailbox.receive().await {
                match message {
                    Some(reply) => held.borrow_mut().push(reply),
                    None => held.borrow_mut().drain(..).for_each(|reply: Reply<_>| reply.send([0; 1024])),
                }
            }
        }));
        let mut calls = Vec::with_capacity(1000);
        let mut crowd = || {
            for _ in 0..1000 {
                let call = address.ask(Some);
                let mut call = if forever { call.forever() } else { call.within(Duration::from_secs(60)) };
                assert!(poll(Pin::new(&mut call)).is_pending());
                calls.push(call);
            }
            address.try_cast(None).unwrap();
            // In one turn it does not take them all.
            (0..8).for_each(|_| assert!(poll(process.as_mut()).is_pending()));
            for mut call in calls.drain(..) {
                assert!(poll(Pin::new(&mut call)).is_ready());
            }
        };
        let kept = measure(&mut crowd).bytes_current;
        assert!(kept < 200_000, "{kept} bytes are kept of 1000 answers of 1024 bytes");
    }
}
