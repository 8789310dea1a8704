//! The same stories of actors on smol, on tokio, on the pool and its lanes, and on a thread for each future.

#![allow(clippy::unwrap_used)]

use std::{
    convert::Infallible,
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context as Task, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use backplane::{
    Exit, Runtime,
    runtime::{Smol, Tokio},
};
use backplane_actor::{Actor, CallError, Context, Handle, Mailbox, Options, Pending, Reply, System};
use backplane_pool::{Lanes, Pool};
use backplane_supervisor::{RestartStrategy, Supervisor};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Task::from_waker(&waker)) {
            return value;
        }
        thread::park();
    }
}

/// A thread for each future, and one that nobody cancels.
struct Threads;

impl Runtime for Threads {
    type Task = ();
    type Sleep = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

    fn spawn<F: Future<Output = ()> + Send + 'static>(&self, future: F) {
        thread::spawn(move || block_on(future));
    }

    fn detach(&self, (): ()) {}

    fn sleep_until(&self, deadline: Instant) -> Self::Sleep {
        Box::pin(async move {
            smol::Timer::at(deadline).await;
        })
    }

    fn now(&self) -> Instant {
        Instant::now()
    }
}

struct Counter(u64);
struct Add(u64);
struct Share(u64);

impl Actor for Counter {
    type Messages = (Add, Share);
    type Error = Infallible;
}

impl Handle<Add> for Counter {
    type Reply = ();

    async fn handle(&mut self, Add(n): Add, _: &mut Context<Self>) -> Result<(), Infallible> {
        self.0 += n;
        Ok(())
    }
}

impl Handle<Share> for Counter {
    type Reply = u64;

    async fn handle(&mut self, Share(among): Share, _: &mut Context<Self>) -> Result<u64, Infallible> {
        Ok(self.0 / among)
    }
}

/// Many senders to one small mailbox, and each waits for room.
async fn many_to_one<R: Runtime>(system: System<R>) {
    let counter = system.start_with(Options::new().capacity(4), Counter(0));
    let senders: Vec<_> = (0..4)
        .map(|_| {
            let counter = counter.clone();
            system.spawn(move |_: Mailbox<()>| async move {
                for n in 0..250 {
                    counter.cast(Add(n)).await.unwrap();
                }
            })
        })
        .collect();
    for sender in senders {
        assert_eq!(sender.ended().await, Some(Exit::Normal));
    }
    assert_eq!(counter.call(Share(1)).await, Ok(4 * 249 * 250 / 2));
}

/// It dies under a supervisor, is there again at the same address, and callers hear.
async fn dies_and_is_there_again<R: Runtime>(system: System<R>, runtime: R) {
    let (counter, spec) = system.child("counter", Options::new(), || Counter(12));
    let tree = Supervisor::new(RestartStrategy::OneForOne).child(spec);
    let handle = tree.start(runtime).await.unwrap();
    assert!(matches!(counter.call(Share(0)).await, Err(CallError::Ended(_))));
    assert_eq!(counter.call(Share(3)).await, Ok(4));
    handle.stop(Exit::Shutdown).await.unwrap();
}

/// Deadlines are those of the runtime's clock.
async fn too_late<R: Runtime>(system: System<R>) {
    let silent = system.spawn(|mut mailbox: Mailbox<Reply<()>>| async move {
        let mut held = Vec::new();
        while let Some(reply) = mailbox.receive().await {
            held.push(reply);
        }
    });
    let begin = system.runtime().now();
    let call = silent.ask(|reply| reply).within(Duration::from_millis(20));
    assert_eq!(call.await, Err(CallError::TimedOut));
    assert!(system.runtime().now() - begin >= Duration::from_millis(20));
}

async fn a_quorum<R: Runtime>(system: System<R>) {
    let counters: Vec<_> = (1..=5).map(|n| system.start(Counter(n))).collect();
    let mut pending = Pending::new();
    for (n, counter) in counters.iter().enumerate() {
        pending.add(n, counter.call(Share(1)));
    }
    assert_eq!(pending.quorum(3).await.unwrap().len(), 3);
}

async fn all<R: Runtime>(make: impl Fn() -> R) {
    many_to_one(System::new(make())).await;
    dies_and_is_there_again(System::new(make()), make()).await;
    too_late(System::new(make())).await;
    a_quorum(System::new(make())).await;
}

#[test]
fn on_smol() {
    smol::block_on(all(Smol::global));
}

#[test]
fn on_tokio_with_two_workers() {
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    tokio.block_on(all(|| Tokio::new(tokio.handle().clone())));
}

#[test]
fn on_tokio_with_one_thread() {
    let tokio = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    tokio.block_on(all(|| Tokio::new(tokio.handle().clone())));
}

#[test]
fn on_the_pool() {
    let pool = Pool::builder().workers(2).build().unwrap();
    pool.block_on(all(|| pool.handle()));
}

#[test]
fn on_the_lanes_of_a_pool() {
    let pool = Pool::builder().workers(2).lanes(Lanes::new()).build().unwrap();
    pool.block_on(all(|| pool.handle()));
}

#[test]
fn on_a_thread_for_each_future() {
    block_on(all(|| Threads));
}

#[test]
fn state_that_is_not_send_lives_on_a_local_executor() {
    let local = smol::LocalExecutor::new();
    let system = System::new(Smol::global());
    let (address, home) = system.prepare(Options::new());
    let run = home.run(backplane::Device::new(), |mut mailbox: Mailbox<Reply<u32>>| async move {
        let state = std::rc::Rc::new(5);
        while let Some(reply) = mailbox.receive().await {
            reply.send(*state);
        }
    });
    let task = local.spawn(run);
    let answer = smol::block_on(local.run(async { address.ask(|reply| reply).await }));
    assert_eq!(answer, Ok(5));
    drop(task);
}
