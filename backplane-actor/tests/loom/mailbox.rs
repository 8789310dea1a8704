//! Mailboxes and calls, from two sides at once.

use std::{
    future::{Future, pending, poll_fn, ready},
    pin::pin,
    task::{Context, Poll, Wake, Waker},
    time::Instant,
};

use backplane::{Device, Exit, Runtime};
use backplane_actor::{Address, CallError, Home, Mailbox, Options, Reply, System};
use loom::{sync::Arc as LoomArc, sync::Notify, thread};

/// Spawns nothing and never sleeps.
struct Nobody(Instant);

impl Runtime for Nobody {
    type Task = ();
    type Sleep = std::future::Pending<()>;

    fn spawn<F: Future<Output = ()> + Send + 'static>(&self, _: F) {}

    fn detach(&self, (): ()) {}

    fn sleep_until(&self, _: Instant) -> Self::Sleep {
        pending()
    }

    fn now(&self) -> Instant {
        self.0
    }
}

/// Wakes whoever blocks, through loom, so that a wake that is missing is a deadlock that loom finds.
struct Unblock(LoomArc<Notify>);

impl Wake for Unblock {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.notify();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let notify = LoomArc::new(Notify::new());
    let waker = Waker::from(std::sync::Arc::new(Unblock(LoomArc::clone(&notify))));
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return value;
        }
        notify.wait();
    }
}

fn model(story: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(story);
}

fn prepare<M: Send + 'static>(options: Options<M>) -> (Address<M>, Home<M>) {
    System::new(Nobody(Instant::now())).prepare(options)
}

/// Reads to the end, and says what it read.
async fn read(mut mailbox: Mailbox<u32>, all: std::sync::Arc<std::sync::Mutex<Vec<u32>>>) {
    while let Some(n) = mailbox.receive().await {
        all.lock().expect("nobody panics").push(n);
    }
}

fn heard() -> std::sync::Arc<std::sync::Mutex<Vec<u32>>> {
    std::sync::Arc::default()
}

#[test]
fn what_is_sent_is_received_and_no_wake_is_lost() {
    model(|| {
        let (address, home) = prepare(Options::new());
        let all = heard();
        let other = address.clone();
        let sending = thread::spawn(move || {
            other.try_cast(1).expect("there is room");
            other.try_cast(2).expect("there is room");
            other.drain();
        });
        block_on(home.run(Device::new(), |mailbox| read(mailbox, all.clone())));
        sending.join().expect("it does not panic");
        assert_eq!(*all.lock().expect("nobody panics"), [1, 2]);
        drop(address);
    });
}

#[test]
fn a_message_that_meets_the_end_is_received_or_given_back() {
    model(|| {
        let (address, home) = prepare(Options::new());
        let all = heard();
        let other = address.clone();
        let sending = thread::spawn(move || other.try_cast(1).is_ok());
        address.drain();
        block_on(home.run(Device::new(), |mailbox| read(mailbox, all.clone())));
        let accepted = sending.join().expect("it does not panic");
        assert_eq!(all.lock().expect("nobody panics").len(), usize::from(accepted));
    });
}

#[test]
fn who_waits_for_room_is_let_in() {
    model(|| {
        let (address, home) = prepare(Options::new().capacity(1));
        let all = heard();
        address.try_cast(1).expect("there is room");
        let other = address.clone();
        let sending = thread::spawn(move || {
            assert!(block_on(other.cast(2)).is_ok());
            other.drain();
        });
        block_on(home.run(Device::new(), |mailbox| read(mailbox, all.clone())));
        sending.join().expect("it does not panic");
        assert_eq!(*all.lock().expect("nobody panics"), [1, 2]);
    });
}

#[test]
fn urgent_and_normal_ones_all_arrive() {
    model(|| {
        let (address, home) = prepare(Options::new());
        let all = heard();
        let other = address.clone();
        let sending = thread::spawn(move || {
            other.try_cast(1).expect("there is room");
            assert!(other.cast(2).urgent().now().is_ok());
            other.drain();
        });
        block_on(home.run(Device::new(), |mailbox| read(mailbox, all.clone())));
        sending.join().expect("it does not panic");
        let mut all = all.lock().expect("nobody panics").clone();
        all.sort_unstable();
        assert_eq!(all, [1, 2]);
    });
}

#[test]
fn news_passes_through_the_system_lane_once() {
    model(|| {
        let (address, home) = prepare(Options::new());
        let target = Device::new();
        let line = target.line();
        let ending = thread::spawn(move || target.disconnect(Exit::Normal));
        let exit = block_on(home.run(Device::new(), |mut mailbox: Mailbox<u32>| async move {
            mailbox.monitor(&line, |_| 7);
            assert_eq!(mailbox.receive().await, Some(7));
            assert_eq!(mailbox.try_receive(), None);
        }));
        assert_eq!(exit, Exit::Normal);
        ending.join().expect("it does not panic");
        drop(address);
    });
}

#[test]
fn a_call_is_answered_or_hears_of_the_death() {
    model(|| {
        let (address, home) = prepare::<Reply<u32>>(Options::new());
        let run = home.run(Device::new(), |mut mailbox: Mailbox<Reply<u32>>| async move {
            if let Some(reply) = mailbox.receive().await {
                reply.send(3);
            }
        });
        drop(home);
        let living = thread::spawn(move || block_on(run));
        let answer = block_on(address.ask(|reply| reply).forever());
        assert_eq!(answer, Ok(3));
        living.join().expect("it does not panic");
    });
}

#[test]
fn a_call_against_a_kill_ends_at_once_with_a_typed_error() {
    model(|| {
        let (address, home) = prepare::<Reply<u32>>(Options::new());
        let run = home.run(Device::new(), |_mailbox| pending::<()>());
        drop(home);
        let killing = thread::spawn(move || drop(run));
        let answer = block_on(address.ask(|reply| reply).forever());
        assert!(matches!(answer, Err(CallError::Gone | CallError::Ended(_))), "{answer:?}");
        killing.join().expect("it does not panic");
    });
}

#[test]
fn of_a_caller_that_goes_and_an_answer_that_comes_nothing_is_left() {
    model(|| {
        let (address, home) = prepare::<Reply<std::sync::Arc<()>>>(Options::new());
        let value = std::sync::Arc::new(());
        let held = value.clone();
        let run = home.run(Device::new(), |mut mailbox: Mailbox<Reply<_>>| async move {
            if let Some(reply) = mailbox.receive().await {
                reply.send(held);
            }
        });
        drop(home);
        let mut call = address.ask(|reply| reply).forever();
        block_on(poll_fn(|cx| {
            let _ = std::pin::Pin::new(&mut call).poll(cx);
            Poll::Ready(())
        }));
        let answering = thread::spawn(move || {
            let mut run = pin!(run);
            let _ = run.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        });
        drop(call);
        answering.join().expect("it does not panic");
        assert_eq!(std::sync::Arc::strong_count(&value), 1);
        block_on(ready(()));
    });
}
