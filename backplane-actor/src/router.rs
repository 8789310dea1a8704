//! Many workers behind one address.
//!
//! A router is a process: it has the mailbox that everybody knows, a queue of its own, and a supervisor whose children are
//! the workers. Each worker has a small mailbox, which outlives its incarnations, and at its door one message may wait for
//! room; so the router is woken when there is room, and the rest waits in the router's queue, where it can still expire or be
//! given to somebody else.

use std::{
    collections::VecDeque,
    fmt,
    future::{Future, poll_fn},
    hash::{DefaultHasher, Hash, Hasher},
    ops::RangeInclusive,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use backplane::{Device, Exit, Fault, Message, Runtime};
use backplane_supervisor::{
    ChildId, ChildSpec, Intensity, Restart, RestartStrategy, Supervisor, SupervisorHandle,
};

use crate::{
    actor::{self, Actor},
    address::Address,
    clock::{Clock, Deadline},
    mailbox::{Item, Mailbox, Priority, Refusal, Shared, WhenFull},
    options::{DeadLetter, Options},
    protocol::Envelope,
    sync::{Arc, AtomicU64, AtomicUsize, Ordering},
    system::{Outcome, System},
};

/// So many messages wait in a router, unless said otherwise.
///
/// ```
/// # #[cfg(feature = "testing")] {
/// # use backplane::Runtime;
/// # use backplane_actor::{System, testing::Seeded};
/// # let runtime = Seeded::new(1);
/// # let system = System::new(runtime.clone());
/// # use backplane_actor::{Mailbox, Overload, Router};
/// # use std::time::Duration;
/// # const SECOND: Duration = Duration::from_secs(1);
/// # let router = Router::new(|mut jobs: Mailbox<u32>| async move {
/// #     jobs.receive().await;
/// #     std::future::pending::<()>().await;
/// # });
/// # let stats = router.stats();
/// use backplane_actor::DEFAULT_QUEUE;
///
/// let crew = router.start(&system);
/// runtime.run(async {
///     for n in 0..3 * DEFAULT_QUEUE as u32 {
///         if crew.cast(n).within(SECOND).await.is_err() { break }
///     }
///     // And one more waits at the worker's door.
///     assert_eq!(stats.queued(), DEFAULT_QUEUE + 1);
/// });
/// # }
/// ```
pub const DEFAULT_QUEUE: usize = 1024;

/// Who gets a message.
///
/// ```
/// # #[cfg(feature = "smol")] {
/// use backplane_actor::{Mailbox, Router, Routing};
///
/// type Order = (&'static str, u32);
/// let router = Router::new(|mut orders: Mailbox<Order>| async move {
///     while let Some((_customer, _amount)) = orders.receive().await {}
/// });
/// // Each customer has a worker, and each worker some customers.
/// let router = router.workers(4..=4).routing(Routing::by_key(|(customer, _): &Order| *customer));
/// # assert!(format!("{router:?}").contains("Key"));
/// # }
/// ```
pub struct Routing<M>(Kind<M>);

enum Kind<M> {
    RoundRobin,
    LeastLoaded,
    Key(Arc<dyn Fn(&M) -> u64 + Send + Sync>),
    Broadcast(Arc<dyn Fn(&M) -> M + Send + Sync>),
}

impl<M> Clone for Routing<M> {
    fn clone(&self) -> Routing<M> {
        Routing(match &self.0 {
            Kind::RoundRobin => Kind::RoundRobin,
            Kind::LeastLoaded => Kind::LeastLoaded,
            Kind::Key(key) => Kind::Key(Arc::clone(key)),
            Kind::Broadcast(copy) => Kind::Broadcast(Arc::clone(copy)),
        })
    }
}

impl<M> Routing<M> {
    /// The workers take turns; one that has no room is passed over.
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # use backplane::Runtime;
    /// # use backplane_actor::{System, testing::Seeded};
    /// # let runtime = Seeded::new(1);
    /// # let system = System::new(runtime.clone());
    /// # use backplane_actor::{Mailbox, Pending, Reply, Router, Routing};
    /// # use std::{sync::{Arc, atomic::{AtomicU64, Ordering}}, time::Duration};
    /// # struct Job { key: u32, reply: Reply<u64> }
    /// # impl Job {
    /// #     fn who(key: u32) -> impl FnOnce(Reply<u64>) -> Job {
    /// #         move |reply| Job { key, reply }
    /// #     }
    /// # }
    /// # let (hired, clock) = (AtomicU64::new(0), runtime.clone());
    /// # let router = Router::new(move |mut jobs: Mailbox<Job>| {
    /// #     let (me, clock) = (hired.fetch_add(1, Ordering::Relaxed), clock.clone());
    /// #     async move {
    /// #         while let Some(job) = jobs.receive().await {
    /// #             clock.sleep_until(clock.now() + Duration::from_secs(1)).await;
    /// #             job.reply.send(me);
    /// #         }
    /// #     }
    /// # });
    /// let router = router.workers(2..=2).routing(Routing::round_robin());
    /// let crew = router.start(&system);
    /// let answers = runtime.run(async {
    ///     [crew.ask(Job::who(7)).await, crew.ask(Job::who(7)).await, crew.ask(Job::who(7)).await]
    /// });
    /// assert!(answers[0] != answers[1] && answers[0] == answers[2]);
    /// # }
    /// ```
    pub fn round_robin() -> Routing<M> {
        Routing(Kind::RoundRobin)
    }

    /// The worker that has least to do; of several, the one whose turn it is.
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # use backplane::Runtime;
    /// # use backplane_actor::{System, testing::Seeded};
    /// # let runtime = Seeded::new(1);
    /// # let system = System::new(runtime.clone());
    /// # use backplane_actor::{Mailbox, Pending, Reply, Router, Routing};
    /// # use std::{sync::{Arc, atomic::{AtomicU64, Ordering}}, time::Duration};
    /// # struct Job { key: u32, reply: Reply<u64> }
    /// # impl Job {
    /// #     fn who(key: u32) -> impl FnOnce(Reply<u64>) -> Job {
    /// #         move |reply| Job { key, reply }
    /// #     }
    /// # }
    /// # let (hired, clock) = (AtomicU64::new(0), runtime.clone());
    /// # let router = Router::new(move |mut jobs: Mailbox<Job>| {
    /// #     let (me, clock) = (hired.fetch_add(1, Ordering::Relaxed), clock.clone());
    /// #     async move {
    /// #         while let Some(job) = jobs.receive().await {
    /// #             clock.sleep_until(clock.now() + Duration::from_secs(1)).await;
    /// #             job.reply.send(me);
    /// #         }
    /// #     }
    /// # });
    /// let crew = router.workers(2..=2).routing(Routing::least_loaded()).start(&system);
    /// let answers = runtime.run(async {
    ///     let mut asked = Pending::new();
    ///     asked.add("first", crew.ask(Job::who(7)));
    ///     asked.add("second", crew.ask(Job::who(7)));
    ///     asked.all().await
    /// });
    /// assert_ne!(answers[0].1, answers[1].1); // while one was busy, the other was not
    /// # }
    /// ```
    pub fn least_loaded() -> Routing<M> {
        Routing(Kind::LeastLoaded)
    }

    /// All messages with the same key go to the same worker, in the order in which they came.
    ///
    /// A worker that is started again keeps its keys. When workers come or go, only the keys that go to the new ones, or
    /// came from the old ones, move (rendezvous hashing); of those, a message may be handled by the new worker while the
    /// old one is still at one that came before.
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # use backplane::Runtime;
    /// # use backplane_actor::{System, testing::Seeded};
    /// # let runtime = Seeded::new(1);
    /// # let system = System::new(runtime.clone());
    /// # use backplane_actor::{Mailbox, Pending, Reply, Router, Routing};
    /// # use std::{sync::{Arc, atomic::{AtomicU64, Ordering}}, time::Duration};
    /// # struct Job { key: u32, reply: Reply<u64> }
    /// # impl Job {
    /// #     fn who(key: u32) -> impl FnOnce(Reply<u64>) -> Job {
    /// #         move |reply| Job { key, reply }
    /// #     }
    /// # }
    /// # let (hired, clock) = (AtomicU64::new(0), runtime.clone());
    /// # let router = Router::new(move |mut jobs: Mailbox<Job>| {
    /// #     let (me, clock) = (hired.fetch_add(1, Ordering::Relaxed), clock.clone());
    /// #     async move {
    /// #         while let Some(job) = jobs.receive().await {
    /// #             clock.sleep_until(clock.now() + Duration::from_secs(1)).await;
    /// #             job.reply.send(me);
    /// #         }
    /// #     }
    /// # });
    /// let crew = router.workers(4..=4).routing(Routing::by_key(|job: &Job| job.key)).start(&system);
    /// runtime.run(async {
    ///     let always = crew.ask(Job::who(7)).await;
    ///     for _ in 0..9 {
    ///         assert_eq!(crew.ask(Job::who(7)).await, always);
    ///     }
    /// });
    /// # }
    /// ```
    pub fn by_key<K: Hash>(key: impl Fn(&M) -> K + Send + Sync + 'static) -> Routing<M> {
        Routing(Kind::Key(Arc::new(move |message| {
            let mut hasher = DefaultHasher::new();
            key(message).hash(&mut hasher);
            hasher.finish()
        })))
    }

    /// Each worker gets each message: a clone of it, which for what is shared is an `Arc`. What carries a
    /// [`Reply`](crate::Reply) cannot be cloned, and so not be broadcast.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane_actor::{Mailbox, Router};
    /// # use std::sync::mpsc;
    /// use backplane_actor::Routing;
    ///
    /// let (tell, told) = mpsc::channel();
    /// let router = Router::new(move |mut notes: Mailbox<&'static str>| {
    ///     let tell = tell.clone();
    ///     async move { while let Some(note) = notes.receive().await { tell.send(note).unwrap() } }
    /// });
    /// let choir = router.workers(2..=2).routing(Routing::broadcast()).start(&system);
    /// choir.try_cast("la").unwrap();
    /// assert_eq!((told.recv(), told.recv()), (Ok("la"), Ok("la")));
    /// # }
    /// ```
    pub fn broadcast() -> Routing<M>
    where
        M: Clone + 'static,
    {
        Routing(Kind::Broadcast(Arc::new(M::clone)))
    }
}

impl<M> fmt::Debug for Routing<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Kind::RoundRobin => "RoundRobin",
            Kind::LeastLoaded => "LeastLoaded",
            Kind::Key(_) => "Key",
            Kind::Broadcast(_) => "Broadcast",
        })
    }
}

/// What a router does when its queue is full.
///
/// ```
/// use backplane_actor::Overload;
///
/// assert_eq!(Overload::default(), Overload::Wait);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Overload {
    /// It takes nothing from its mailbox; so that fills up too, and senders wait, or are refused.
    #[default]
    Wait,
    /// What waits longest goes to the dead letters.
    DropOldest,
    /// What has just come goes to the dead letters.
    DropNewest,
}

/// When workers are added and taken away, one at a time.
///
/// Two thresholds and two times, so that it does not swing: what is to be done about a worker is what waits, in the queue and
/// with the workers, together with what they are at, a share for each worker.
///
/// ```
/// use backplane_actor::Scaling;
/// use std::time::Duration;
///
/// // Quick to come, slow to go.
/// let scaling = Scaling { up_after: Duration::from_millis(100), ..Scaling::default() };
/// assert_eq!((scaling.up_above, scaling.down_below), (4, 1));
/// assert_eq!(scaling.down_after, Duration::from_secs(10));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scaling {
    /// One more, when each has more than this to do ..
    pub up_above: usize,
    /// .. for so long.
    pub up_after: Duration,
    /// One less, when each has less than this to do ..
    pub down_below: usize,
    /// .. for so long. This is looked at as often, too.
    pub down_after: Duration,
}

impl Default for Scaling {
    /// Up above 4 for a second, down below 1 for ten.
    fn default() -> Scaling {
        Scaling {
            up_above: 4,
            up_after: Duration::from_secs(1),
            down_below: 1,
            down_after: Duration::from_secs(10),
        }
    }
}

/// What a router looks like from outside, as it was a moment ago.
///
/// ```
/// # #[cfg(feature = "testing")] {
/// # use backplane::Runtime;
/// # use backplane_actor::{System, testing::Seeded};
/// # let runtime = Seeded::new(1);
/// # let system = System::new(runtime.clone());
/// # use backplane_actor::{Mailbox, Reply, Router};
/// # let router = Router::new(|mut jobs: Mailbox<(u64, Reply<u64>)>| async move {
/// #     while let Some((n, reply)) = jobs.receive().await {
/// #         reply.send(n * n);
/// #     }
/// # });
/// let stats = router.stats();
/// let squares = router.workers(2..=2).start(&system);
/// runtime.run(async {
///     assert_eq!(squares.ask(|reply| (12, reply)).await, Ok(144));
///     assert_eq!((stats.workers(), stats.routed()), (2, 1));
///     assert_eq!((stats.queued(), stats.shed(), stats.expired()), (0, 0, 0));
/// });
/// # }
/// ```
#[derive(Debug, Default)]
pub struct RouterStats {
    workers: AtomicUsize,
    draining: AtomicUsize,
    queued: AtomicUsize,
    routed: AtomicU64,
    shed: AtomicU64,
    expired: AtomicU64,
}

impl RouterStats {
    /// How many workers there are to get messages.
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # use backplane::Runtime;
    /// # use backplane_actor::{System, testing::Seeded};
    /// # let runtime = Seeded::new(1);
    /// # let system = System::new(runtime.clone());
    /// # use backplane_actor::{Mailbox, Reply, Router};
    /// # let router = Router::new(|mut jobs: Mailbox<(u64, Reply<u64>)>| async move {
    /// #     while let Some((n, reply)) = jobs.receive().await {
    /// #         reply.send(n * n);
    /// #     }
    /// # });
    /// let stats = router.stats();
    /// assert_eq!(stats.workers(), 0); // not started
    /// let squares = router.workers(2..=2).start(&system);
    /// runtime.run(async {
    ///     assert_eq!(squares.ask(|reply| (12, reply)).await, Ok(144));
    ///     assert_eq!(stats.workers(), 2);
    /// });
    /// # }
    /// ```
    pub fn workers(&self) -> usize {
        self.workers.load(Ordering::Relaxed)
    }

    /// How many workers finish what they have, and then go.
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # use backplane::Runtime;
    /// # use backplane_actor::{System, testing::Seeded};
    /// # let runtime = Seeded::new(1);
    /// # let system = System::new(runtime.clone());
    /// # use backplane_actor::{Mailbox, Overload, Router};
    /// # use std::time::Duration;
    /// # const SECOND: Duration = Duration::from_secs(1);
    /// # let router = Router::new(|mut jobs: Mailbox<u32>| async move {
    /// #     jobs.receive().await;
    /// #     std::future::pending::<()>().await;
    /// # });
    /// # let stats = router.stats();
    /// let crew = router.workers(1..=1).start(&system);
    /// runtime.run(async {
    ///     crew.cast(1).await.unwrap();
    ///     runtime.sleep_until(runtime.now() + SECOND).await;
    ///     crew.drain();
    ///     runtime.sleep_until(runtime.now() + SECOND).await;
    ///     assert_eq!((stats.workers(), stats.draining()), (0, 1)); // it is still at it
    /// });
    /// # }
    /// ```
    pub fn draining(&self) -> usize {
        self.draining.load(Ordering::Relaxed)
    }

    /// How many messages wait in the router.
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # use backplane::Runtime;
    /// # use backplane_actor::{System, testing::Seeded};
    /// # let runtime = Seeded::new(1);
    /// # let system = System::new(runtime.clone());
    /// # use backplane_actor::{Mailbox, Overload, Router};
    /// # use std::time::Duration;
    /// # const SECOND: Duration = Duration::from_secs(1);
    /// # let router = Router::new(|mut jobs: Mailbox<u32>| async move {
    /// #     jobs.receive().await;
    /// #     std::future::pending::<()>().await;
    /// # });
    /// # let stats = router.stats();
    /// let crew = router.start(&system);
    /// runtime.run(async {
    ///     for n in 0..5 {
    ///         crew.cast(n).await.unwrap();
    ///     }
    ///     runtime.sleep_until(runtime.now() + SECOND).await;
    ///     // The worker is at one and has one in its mailbox.
    ///     assert_eq!((crew.load().normal, stats.queued()), (0, 3));
    /// });
    /// # }
    /// ```
    pub fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    /// How many messages workers have got.
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # use backplane::Runtime;
    /// # use backplane_actor::{System, testing::Seeded};
    /// # let runtime = Seeded::new(1);
    /// # let system = System::new(runtime.clone());
    /// # use backplane_actor::{Mailbox, Reply, Router};
    /// # let router = Router::new(|mut jobs: Mailbox<(u64, Reply<u64>)>| async move {
    /// #     while let Some((n, reply)) = jobs.receive().await {
    /// #         reply.send(n * n);
    /// #     }
    /// # });
    /// let stats = router.stats();
    /// let squares = router.start(&system);
    /// runtime.run(async {
    ///     for n in 1..=3 {
    ///         assert_eq!(squares.ask(|reply| (n, reply)).await, Ok(n * n));
    ///         assert_eq!(stats.routed(), n);
    ///     }
    /// });
    /// # }
    /// ```
    pub fn routed(&self) -> u64 {
        self.routed.load(Ordering::Relaxed)
    }

    /// How many were dropped because there was no room.
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # use backplane::Runtime;
    /// # use backplane_actor::{System, testing::Seeded};
    /// # let runtime = Seeded::new(1);
    /// # let system = System::new(runtime.clone());
    /// # use backplane_actor::{Mailbox, Overload, Router};
    /// # use std::time::Duration;
    /// # const SECOND: Duration = Duration::from_secs(1);
    /// # let router = Router::new(|mut jobs: Mailbox<u32>| async move {
    /// #     jobs.receive().await;
    /// #     std::future::pending::<()>().await;
    /// # });
    /// # let stats = router.stats();
    /// let crew = router.queue(1).overload(Overload::DropNewest).start(&system);
    /// runtime.run(async {
    ///     for n in 0..9 {
    ///         crew.cast(n).await.unwrap();
    ///         runtime.sleep_until(runtime.now() + SECOND).await;
    ///     }
    ///     // One in work, one in the worker's mailbox, one at its door, one in the queue.
    ///     assert_eq!((stats.shed(), system.dead_letters()), (5, 5));
    /// });
    /// # }
    /// ```
    pub fn shed(&self) -> u64 {
        self.shed.load(Ordering::Relaxed)
    }

    /// How many were dropped because they had waited for too long.
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # use backplane::Runtime;
    /// # use backplane_actor::{System, testing::Seeded};
    /// # let runtime = Seeded::new(1);
    /// # let system = System::new(runtime.clone());
    /// # use backplane_actor::{Mailbox, Overload, Router};
    /// # use std::time::Duration;
    /// # const SECOND: Duration = Duration::from_secs(1);
    /// # let router = Router::new(|mut jobs: Mailbox<u32>| async move {
    /// #     jobs.receive().await;
    /// #     std::future::pending::<()>().await;
    /// # });
    /// # let stats = router.stats();
    /// let crew = router.time_to_live(SECOND).start(&system);
    /// runtime.run(async {
    ///     for n in 0..5 {
    ///         crew.cast(n).await.unwrap();
    ///     }
    ///     runtime.sleep_until(runtime.now() + 2 * SECOND).await;
    ///     assert_eq!((stats.queued(), stats.expired()), (0, 3));
    /// });
    /// # }
    /// ```
    pub fn expired(&self) -> u64 {
        self.expired.load(Ordering::Relaxed)
    }
}

type Work<M> = Arc<dyn Fn(Mailbox<M>) -> Pin<Box<dyn Future<Output = Exit> + Send>> + Send + Sync>;

/// Supervised workers behind one address, how they share the work, and how many there are.
///
/// The address is one of `M`, as that of a single worker would be; who has it need not know. A request goes to a worker with
/// its [`Reply`](crate::Reply), which answers it.
///
/// ```
/// # #[cfg(feature = "smol")] {
/// use backplane::runtime::Smol;
/// use backplane_actor::{Mailbox, Reply, Router, Routing, System};
///
/// enum Job {
///     Square(u64, Reply<u64>),
/// }
///
/// let system = System::new(Smol::global());
/// let router = Router::new(|mut jobs: Mailbox<Job>| async move {
///     while let Some(Job::Square(n, reply)) = jobs.receive().await {
///         reply.send(n * n);
///     }
/// });
/// let squares = router.workers(4..=4).routing(Routing::least_loaded()).start(&system);
/// let squared = smol::block_on(squares.ask(|reply| Job::Square(12, reply)));
/// assert_eq!(squared.unwrap(), 144);
/// # }
/// ```
pub struct Router<M> {
    work: Work<M>,
    routing: Routing<M>,
    workers: RangeInclusive<usize>,
    scaling: Scaling,
    queue: usize,
    time_to_live: Option<Duration>,
    overload: Overload,
    intensity: Intensity,
    mailbox: Options<M>,
    worker: Options<M>,
    stats: Arc<RouterStats>,
}

impl<M> Clone for Router<M> {
    /// The same router, with the same statistics.
    fn clone(&self) -> Router<M> {
        Router {
            work: Arc::clone(&self.work),
            routing: self.routing.clone(),
            workers: self.workers.clone(),
            scaling: self.scaling,
            queue: self.queue,
            time_to_live: self.time_to_live,
            overload: self.overload,
            intensity: self.intensity,
            mailbox: self.mailbox.clone(),
            worker: self.worker.clone(),
            stats: Arc::clone(&self.stats),
        }
    }
}

impl<M> fmt::Debug for Router<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router")
            .field("routing", &self.routing)
            .field("workers", &self.workers)
            .field("scaling", &self.scaling)
            .field("queue", &self.queue)
            .field("time_to_live", &self.time_to_live)
            .field("overload", &self.overload)
            .finish_non_exhaustive()
    }
}

impl<M: Send + 'static> Router<M> {
    /// A router with one worker, and the rest as each method says. `work` is called for each incarnation of each worker.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane_actor::{Mailbox, Reply};
    /// use backplane_actor::Router;
    ///
    /// let squares = Router::new(|mut jobs: Mailbox<(u64, Reply<u64>)>| async move {
    ///     while let Some((n, reply)) = jobs.receive().await {
    ///         reply.send(n * n);
    ///     }
    /// });
    /// let squares = squares.start(&system);
    /// assert_eq!(smol::block_on(squares.ask(|reply| (12, reply))), Ok(144));
    /// # }
    /// ```
    pub fn new<F>(work: impl Fn(Mailbox<M>) -> F + Send + Sync + 'static) -> Router<M>
    where
        F: Future<Output: Outcome> + Send + 'static,
    {
        Router {
            work: Arc::new(move |mailbox| {
                let work = work(mailbox);
                Box::pin(async move { work.await.exit() })
            }),
            routing: Routing::round_robin(),
            workers: 1..=1,
            scaling: Scaling::default(),
            queue: DEFAULT_QUEUE,
            time_to_live: None,
            overload: Overload::Wait,
            intensity: Intensity { restarts: 10, period: Duration::from_secs(5) },
            mailbox: Options::new(),
            worker: Options::new().capacity(1),
            stats: Arc::default(),
        }
    }

    /// Who gets a message: [in turns](Routing::round_robin), unless said otherwise.
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # use backplane::Runtime;
    /// # use backplane_actor::{System, testing::Seeded};
    /// # let runtime = Seeded::new(1);
    /// # let system = System::new(runtime.clone());
    /// # use backplane_actor::{Mailbox, Pending, Reply, Router, Routing};
    /// # use std::{sync::{Arc, atomic::{AtomicU64, Ordering}}, time::Duration};
    /// # struct Job { key: u32, reply: Reply<u64> }
    /// # impl Job {
    /// #     fn who(key: u32) -> impl FnOnce(Reply<u64>) -> Job {
    /// #         move |reply| Job { key, reply }
    /// #     }
    /// # }
    /// # let (hired, clock) = (AtomicU64::new(0), runtime.clone());
    /// # let router = Router::new(move |mut jobs: Mailbox<Job>| {
    /// #     let (me, clock) = (hired.fetch_add(1, Ordering::Relaxed), clock.clone());
    /// #     async move {
    /// #         while let Some(job) = jobs.receive().await {
    /// #             clock.sleep_until(clock.now() + Duration::from_secs(1)).await;
    /// #             job.reply.send(me);
    /// #         }
    /// #     }
    /// # });
    /// let crew = router.workers(4..=4).routing(Routing::by_key(|job: &Job| job.key)).start(&system);
    /// runtime.run(async {
    ///     assert_eq!(crew.ask(Job::who(7)).await, crew.ask(Job::who(7)).await);
    /// });
    /// # }
    /// ```
    #[must_use]
    pub fn routing(mut self, routing: Routing<M>) -> Router<M> {
        self.routing = routing;
        self
    }

    /// So many workers at least, and at most; one at least.
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # use backplane::Runtime;
    /// # use backplane_actor::{System, testing::Seeded};
    /// # let runtime = Seeded::new(1);
    /// # let system = System::new(runtime.clone());
    /// # use backplane_actor::{Mailbox, Overload, Router};
    /// # use std::time::Duration;
    /// # const SECOND: Duration = Duration::from_secs(1);
    /// # let router = Router::new(|mut jobs: Mailbox<u32>| async move {
    /// #     jobs.receive().await;
    /// #     std::future::pending::<()>().await;
    /// # });
    /// # let stats = router.stats();
    /// let crew = router.workers(1..=3).start(&system);
    /// runtime.run(async {
    ///     for n in 0..100 {
    ///         crew.cast(n).await.unwrap();
    ///     }
    ///     runtime.sleep_until(runtime.now() + 10 * SECOND).await;
    ///     assert_eq!(stats.workers(), 3); // there was much to do
    /// });
    /// # }
    /// ```
    #[must_use]
    pub fn workers(mut self, workers: RangeInclusive<usize>) -> Router<M> {
        let least = (*workers.start()).max(1);
        self.workers = least..=(*workers.end()).max(least);
        self
    }

    /// When the number of workers changes, between the least and the most.
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # use backplane::Runtime;
    /// # use backplane_actor::{System, testing::Seeded};
    /// # let runtime = Seeded::new(1);
    /// # let system = System::new(runtime.clone());
    /// # use backplane_actor::{Mailbox, Overload, Router};
    /// # use std::time::Duration;
    /// # const SECOND: Duration = Duration::from_secs(1);
    /// # let router = Router::new(|mut jobs: Mailbox<u32>| async move {
    /// #     jobs.receive().await;
    /// #     std::future::pending::<()>().await;
    /// # });
    /// # let stats = router.stats();
    /// # use backplane_actor::Scaling;
    /// let patient = Scaling { up_after: 3600 * SECOND, ..Scaling::default() };
    /// let crew = router.workers(1..=2).scaling(patient).start(&system);
    /// runtime.run(async {
    ///     for n in 0..100 {
    ///         crew.cast(n).await.unwrap();
    ///     }
    ///     runtime.sleep_until(runtime.now() + 3500 * SECOND).await;
    ///     assert_eq!(stats.workers(), 1);
    ///     runtime.sleep_until(runtime.now() + 200 * SECOND).await;
    ///     assert_eq!(stats.workers(), 2);
    /// });
    /// # }
    /// ```
    #[must_use]
    pub fn scaling(mut self, scaling: Scaling) -> Router<M> {
        self.scaling = scaling;
        self
    }

    /// So many messages wait in the router at most, besides those in its mailbox and with the workers:
    /// [`DEFAULT_QUEUE`], unless said otherwise.
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # use backplane::Runtime;
    /// # use backplane_actor::{System, testing::Seeded};
    /// # let runtime = Seeded::new(1);
    /// # let system = System::new(runtime.clone());
    /// # use backplane_actor::{Mailbox, Overload, Router};
    /// # use std::time::Duration;
    /// # const SECOND: Duration = Duration::from_secs(1);
    /// # let router = Router::new(|mut jobs: Mailbox<u32>| async move {
    /// #     jobs.receive().await;
    /// #     std::future::pending::<()>().await;
    /// # });
    /// # let stats = router.stats();
    /// let crew = router.queue(2).start(&system);
    /// runtime.run(async {
    ///     for n in 0..9 {
    ///         crew.cast(n).await.unwrap();
    ///     }
    ///     runtime.sleep_until(runtime.now() + SECOND).await;
    ///     // One in work, one in the worker's mailbox, one at its door, two in the queue: the others wait outside.
    ///     assert_eq!(stats.queued(), 3);
    /// });
    /// # }
    /// ```
    #[must_use]
    pub fn queue(mut self, messages: usize) -> Router<M> {
        self.queue = messages.max(1);
        self
    }

    /// A message that has waited in the router's queue for so long goes to the dead letters. It counts from when the router
    /// took it out of its mailbox, until it is in a worker's.
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # use backplane::Runtime;
    /// # use backplane_actor::{System, testing::Seeded};
    /// # let runtime = Seeded::new(1);
    /// # let system = System::new(runtime.clone());
    /// # use backplane_actor::{Mailbox, Overload, Router};
    /// # use std::time::Duration;
    /// # const SECOND: Duration = Duration::from_secs(1);
    /// # let router = Router::new(|mut jobs: Mailbox<u32>| async move {
    /// #     jobs.receive().await;
    /// #     std::future::pending::<()>().await;
    /// # });
    /// # let stats = router.stats();
    /// let crew = router.time_to_live(60 * SECOND).start(&system);
    /// runtime.run(async {
    ///     for n in 0..5 {
    ///         crew.cast(n).await.unwrap();
    ///     }
    ///     runtime.sleep_until(runtime.now() + 59 * SECOND).await;
    ///     assert_eq!(stats.expired(), 0);
    ///     runtime.sleep_until(runtime.now() + 2 * SECOND).await;
    ///     assert_eq!((stats.expired(), system.dead_letters()), (3, 3));
    /// });
    /// # }
    /// ```
    #[must_use]
    pub fn time_to_live(mut self, time: Duration) -> Router<M> {
        self.time_to_live = Some(time);
        self
    }

    /// What happens when the queue is full.
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # use backplane::Runtime;
    /// # use backplane_actor::{System, testing::Seeded};
    /// # let runtime = Seeded::new(1);
    /// # let system = System::new(runtime.clone());
    /// # use backplane_actor::{Mailbox, Overload, Router};
    /// # use std::time::Duration;
    /// # const SECOND: Duration = Duration::from_secs(1);
    /// # let router = Router::new(|mut jobs: Mailbox<u32>| async move {
    /// #     jobs.receive().await;
    /// #     std::future::pending::<()>().await;
    /// # });
    /// # let stats = router.stats();
    /// let crew = router.queue(1).overload(Overload::DropOldest).start(&system);
    /// runtime.run(async {
    ///     for n in 0..9 {
    ///         crew.cast(n).await.unwrap(); // never waits for long
    ///         runtime.sleep_until(runtime.now() + SECOND).await;
    ///     }
    ///     assert_eq!((stats.shed(), crew.load().normal), (5, 0));
    /// });
    /// # }
    /// ```
    #[must_use]
    pub fn overload(mut self, overload: Overload) -> Router<M> {
        self.overload = overload;
        self
    }

    /// How often workers may be started again, all together; ten times in five seconds, unless said otherwise. When it is too
    /// much, the router ends with a fault.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane_actor::{Mailbox, Router};
    /// # use std::time::Duration;
    /// use backplane_supervisor::Intensity;
    ///
    /// let router = Router::new(|mut jobs: Mailbox<u32>| async move {
    ///     Err::<(), _>(format!("broken by {:?}", jobs.receive().await))
    /// });
    /// let never = Intensity { restarts: 0, period: Duration::from_secs(5) };
    /// let crew = router.intensity(never).start(&system);
    /// crew.try_cast(7).unwrap();
    /// assert!(smol::block_on(crew.ended()).unwrap().is_fault());
    /// # }
    /// ```
    #[must_use]
    pub fn intensity(mut self, intensity: Intensity) -> Router<M> {
        self.intensity = intensity;
        self
    }

    /// How the router's own mailbox is made. Its dead letters are those of the queue, too.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane_actor::{Mailbox, Reply, Router};
    /// # let router = Router::new(|mut jobs: Mailbox<(u64, Reply<u64>)>| async move {
    /// #     while let Some((n, reply)) = jobs.receive().await {
    /// #         reply.send(n * n);
    /// #     }
    /// # });
    /// # use backplane_actor::{Options, TryCastError};
    /// let squares = router.mailbox(Options::new().capacity(16).label("squares")).start(&system);
    /// assert_eq!(squares.name().label(), Some("squares"));
    /// # }
    /// ```
    #[must_use]
    pub fn mailbox(mut self, options: Options<M>) -> Router<M> {
        self.mailbox = options;
        self
    }

    /// How a worker's mailbox is made; it holds one message, unless said otherwise. The more it holds, the less can be
    /// taken back from a worker that is slow.
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # use backplane::Runtime;
    /// # use backplane_actor::{System, testing::Seeded};
    /// # let runtime = Seeded::new(1);
    /// # let system = System::new(runtime.clone());
    /// # use backplane_actor::{Mailbox, Overload, Router};
    /// # use std::time::Duration;
    /// # const SECOND: Duration = Duration::from_secs(1);
    /// # let router = Router::new(|mut jobs: Mailbox<u32>| async move {
    /// #     jobs.receive().await;
    /// #     std::future::pending::<()>().await;
    /// # });
    /// # let stats = router.stats();
    /// # use backplane_actor::Options;
    /// let crew = router.worker_mailbox(Options::new().capacity(3)).start(&system);
    /// runtime.run(async {
    ///     for n in 0..5 {
    ///         crew.cast(n).await.unwrap();
    ///     }
    ///     runtime.sleep_until(runtime.now() + SECOND).await;
    ///     assert_eq!(stats.queued(), 1); // the worker is at one, and has three
    /// });
    /// # }
    /// ```
    #[must_use]
    pub fn worker_mailbox(mut self, options: Options<M>) -> Router<M> {
        self.worker = options;
        self
    }

    /// What can be seen of it from outside.
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # use backplane::Runtime;
    /// # use backplane_actor::{System, testing::Seeded};
    /// # let runtime = Seeded::new(1);
    /// # let system = System::new(runtime.clone());
    /// # use backplane_actor::{Mailbox, Reply, Router};
    /// # let router = Router::new(|mut jobs: Mailbox<(u64, Reply<u64>)>| async move {
    /// #     while let Some((n, reply)) = jobs.receive().await {
    /// #         reply.send(n * n);
    /// #     }
    /// # });
    /// let stats = router.stats(); // before it is started, for that takes it
    /// let squares = router.start(&system);
    /// assert_eq!(runtime.run(async { squares.ask(|reply| (12, reply)).await }), Ok(144));
    /// assert_eq!(stats.routed(), 1);
    /// # }
    /// ```
    pub fn stats(&self) -> Arc<RouterStats> {
        Arc::clone(&self.stats)
    }

    /// Starts it.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane_actor::{Mailbox, Reply, Router};
    /// # let router = Router::new(|mut jobs: Mailbox<(u64, Reply<u64>)>| async move {
    /// #     while let Some((n, reply)) = jobs.receive().await {
    /// #         reply.send(n * n);
    /// #     }
    /// # });
    /// let squares = router.workers(4..=4).start(&system);
    /// assert_eq!(smol::block_on(squares.ask(|reply| (12, reply))), Ok(144));
    /// squares.drain();
    /// assert_eq!(smol::block_on(squares.ended()), Some(backplane::Exit::Normal));
    /// # }
    /// ```
    pub fn start<R: Runtime>(self, system: &System<R>) -> Address<M> {
        let inner = system.clone();
        system.spawn_with(self.mailbox.clone(), move |mailbox| route(self, inner, mailbox))
    }

    /// A child for a supervisor. What waits in its queue when it dies goes to the dead letters; what is in its mailbox stays.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane_actor::{Mailbox, Reply, Router};
    /// # let router = Router::new(|mut jobs: Mailbox<(u64, Reply<u64>)>| async move {
    /// #     while let Some((n, reply)) = jobs.receive().await {
    /// #         reply.send(n * n);
    /// #     }
    /// # });
    /// # use backplane::Exit;
    /// use backplane_supervisor::{RestartStrategy, Supervisor};
    ///
    /// let (squares, spec) = router.workers(4..=4).child("squares", &system);
    /// smol::block_on(async {
    ///     let tree = Supervisor::new(RestartStrategy::OneForOne).child(spec).start(Smol::global()).await.unwrap();
    ///     assert_eq!(squares.ask(|reply| (12, reply)).await, Ok(144));
    ///     tree.stop(Exit::Shutdown).await.unwrap();
    /// });
    /// # }
    /// ```
    pub fn child<R: Runtime>(self, id: impl Into<ChildId>, system: &System<R>) -> (Address<M>, ChildSpec) {
        let inner = system.clone();
        system.child_process(id, self.mailbox.clone(), move |mailbox| {
            route(self.clone(), inner.clone(), mailbox)
        })
    }
}

impl<A: Actor> Router<Envelope<A>> {
    /// A router whose workers are actors; `make` is called for each incarnation of each. Else as [`new`](Router::new).
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// use backplane_actor::{Actor, Context, Envelope, Handle, Router, Routing, System};
    /// use std::{collections::HashMap, convert::Infallible};
    ///
    /// #[derive(Default)]
    /// struct Accounts(HashMap<u32, u64>);
    /// struct Pay {
    ///     customer: u32,
    ///     cents: u64,
    /// }
    ///
    /// impl Actor for Accounts {
    ///     type Messages = (Pay,);
    ///     type Error = Infallible;
    /// }
    ///
    /// impl Handle<Pay> for Accounts {
    ///     type Reply = u64;
    ///
    ///     async fn handle(&mut self, pay: Pay, _: &mut Context<Self>) -> Result<u64, Infallible> {
    ///         let paid = self.0.entry(pay.customer).or_default();
    ///         *paid += pay.cents;
    ///         Ok(*paid)
    ///     }
    /// }
    ///
    /// smol::block_on(async {
    ///     let system = System::new(Smol::global());
    ///     let accounts = Router::actors(Accounts::default)
    ///         .workers(4..=4)
    ///         .routing(Routing::by_key(|message: &Envelope<Accounts>| message.get::<Pay, _>().map(|pay| pay.customer)))
    ///         .start(&system);
    ///     assert_eq!(accounts.call(Pay { customer: 7, cents: 100 }).await?, 100);
    ///     assert_eq!(accounts.call(Pay { customer: 7, cents: 50 }).await?, 150);
    ///     Ok::<(), Box<dyn std::error::Error>>(())
    /// })
    /// # .unwrap();
    /// # }
    /// ```
    pub fn actors(make: impl Fn() -> A + Send + Sync + 'static) -> Router<Envelope<A>> {
        Router::new(move |mailbox| actor::serve(make(), mailbox.into_reader(), || {}))
    }
}

/// A runtime that is shared.
struct SharedRuntime<R>(Arc<R>);

impl<R: Runtime> Runtime for SharedRuntime<R> {
    type Task = R::Task;
    type Sleep = R::Sleep;

    fn spawn<F: Future<Output = ()> + Send + 'static>(&self, future: F) -> R::Task {
        self.0.spawn(future)
    }

    fn detach(&self, task: R::Task) {
        self.0.detach(task);
    }

    fn sleep_until(&self, deadline: Instant) -> R::Sleep {
        self.0.sleep_until(deadline)
    }

    fn now(&self) -> Instant {
        self.0.now()
    }

    fn now_inside(&self) -> Instant {
        self.0.now_inside()
    }
}

/// A message in the router's hands.
struct Queued<M> {
    item: Item<M>,
    since: Instant,
}

struct Worker<M> {
    number: u64,
    id: ChildId,
    address: Address<M>,
    /// Under which the router waits for its end.
    end: Option<u64>,
    /// One message that waits for room in its mailbox.
    door: Option<(u64, Instant)>,
    /// What is for this worker and no other.
    backlog: VecDeque<Queued<M>>,
    draining: bool,
}

impl<M: Send + 'static> Worker<M> {
    fn shared(&self) -> &Arc<Shared<M>> {
        self.address.shared()
    }

    fn load(&self) -> usize {
        self.shared().busy() + usize::from(self.door.is_some()) + self.backlog.len()
    }

    /// Gives it a message, or lets one wait at its door; or the message comes back.
    fn offer(&mut self, queued: Queued<M>, cx: &Context<'_>) -> Result<(), Queued<M>> {
        if self.door.is_some() {
            return Err(queued);
        }
        let since = queued.since;
        let item = match self.shared().push(Priority::Normal, queued.item, WhenFull::Refuse) {
            Ok(()) => return Ok(()),
            Err((Refusal::Closed, item)) => return Err(Queued { item, since }),
            Err((Refusal::Full, item)) => item,
        };
        match self.shared().push_waiting(Priority::Normal, item, cx.waker().clone()) {
            Ok(ticket) => {
                self.door = ticket.map(|ticket| (ticket, since));
                Ok(())
            }
            Err(item) => Err(Queued { item, since }),
        }
    }

    /// What has not got in, to be given to somebody else.
    fn take_back(&mut self) -> impl Iterator<Item = Queued<M>> + use<M> {
        let door = self.door.take().and_then(|(ticket, since)| {
            let item = self.shared().take_back(Priority::Normal, ticket)?;
            Some(Queued { item, since })
        });
        door.into_iter().chain(std::mem::take(&mut self.backlog))
    }
}

/// Decides how many there should be.
#[derive(Default)]
struct Scaler {
    over: Option<Instant>,
    under: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Up,
    Down,
}

impl Scaler {
    /// Whether to take a step now; and else, when to look again.
    fn look(
        &mut self,
        now: Instant,
        rule: &Scaling,
        bounds: &RangeInclusive<usize>,
        workers: usize,
        load: usize,
    ) -> Result<Step, Option<Instant>> {
        if workers < *bounds.start() {
            return Ok(Step::Up);
        }
        let over = load > rule.up_above.saturating_mul(workers) && workers < *bounds.end();
        let under = load < rule.down_below.saturating_mul(workers) && workers > *bounds.start();
        self.over = over.then(|| self.over.unwrap_or(now));
        self.under = under.then(|| self.under.unwrap_or(now));
        let up = self.over.map(|since| since + rule.up_after);
        let down = self.under.map(|since| since + rule.down_after);
        if up.is_some_and(|at| at <= now) {
            *self = Scaler::default();
            return Ok(Step::Up);
        }
        if down.is_some_and(|at| at <= now) {
            *self = Scaler::default();
            return Ok(Step::Down);
        }
        // Nobody says when workers have less to do.
        let again = (workers > *bounds.start()).then(|| now + rule.down_after);
        Err([up, down, again].into_iter().flatten().min())
    }
}

/// What the router cannot do while it is polled.
enum Chore {
    Hire,
    Dismiss(ChildId),
    End(Exit),
}

struct Crew<M: Send + 'static> {
    router: Router<M>,
    clock: Arc<Clock>,
    mailbox: Mailbox<M>,
    workers: Vec<Worker<M>>,
    queue: VecDeque<Queued<M>>,
    turn: usize,
    next: u64,
    scaler: Scaler,
    alarm: Option<(Instant, Deadline)>,
    /// Nothing more will come.
    closing: bool,
    cause: DeadLetter,
}

impl<M: Send + 'static> Drop for Crew<M> {
    fn drop(&mut self) {
        let mut left: Vec<Queued<M>> = self.workers.iter_mut().flat_map(Worker::take_back).collect();
        left.extend(self.queue.drain(..));
        for queued in left {
            self.mailbox.shared().bury(queued.item, self.cause);
        }
        self.router.stats.queued.store(0, Ordering::Relaxed);
    }
}

async fn route<M: Send + 'static, R: Runtime>(
    router: Router<M>,
    system: System<R>,
    mailbox: Mailbox<M>,
) -> Exit {
    // When this is dropped, the tree ends.
    let mut device = Device::new();
    let tree = Supervisor::new(RestartStrategy::OneForOne).intensity(router.intensity).name("router");
    let started = tree.start_linked(SharedRuntime(Arc::clone(system.runtime())), &device).await;
    let tree = match started {
        Ok(tree) => tree,
        Err(error) => return Exit::Fault(Fault::error(error)),
    };
    let clock = Arc::clone(&mailbox.shared().world.clock);
    let mut crew = Crew {
        router,
        clock,
        mailbox,
        workers: Vec::new(),
        queue: VecDeque::new(),
        turn: 0,
        next: 0,
        scaler: Scaler::default(),
        alarm: None,
        closing: false,
        cause: DeadLetter::Died,
    };
    let exit = loop {
        match poll_fn(|cx| crew.poll(&mut device, cx)).await {
            Chore::Hire => {
                if let Err(exit) = hire(&mut crew, &system, &tree).await {
                    break exit;
                }
            }
            Chore::Dismiss(id) => dismiss(&tree, &id).await,
            Chore::End(exit) => break exit,
        }
    };
    if !exit.is_fault() {
        crew.cause = DeadLetter::Stopped;
        // Workers are given the time that their specs give them.
        drop(tree.stop(Exit::Shutdown).await);
    }
    exit
}

async fn hire<M: Send + 'static, R: Runtime>(
    crew: &mut Crew<M>,
    system: &System<R>,
    tree: &SupervisorHandle,
) -> Result<(), Exit> {
    let number = crew.next;
    crew.next += 1;
    let id: ChildId = format!("worker-{number}").into();
    let work = Arc::clone(&crew.router.work);
    let options = crew.router.worker.clone();
    let (address, spec) = system.child_process(Arc::clone(&id), options, move |mailbox| work(mailbox));
    // One that ends well has been told to, or has had enough; whether there is to be another one is the router's business.
    match tree.start_child(spec.restart(Restart::Transient)).await {
        Ok(_) => {
            let worker = Worker {
                number,
                id,
                address,
                end: None,
                door: None,
                backlog: VecDeque::new(),
                draining: false,
            };
            crew.workers.push(worker);
            Ok(())
        }
        Err(error) => Err(Exit::Fault(Fault::error(error))),
    }
}

async fn dismiss(tree: &SupervisorHandle, id: &ChildId) {
    // Both fail only where there is nothing left to do.
    drop(tree.terminate_child(id).await);
    drop(tree.delete_child(id).await);
}

impl<M: Send + 'static> Crew<M> {
    fn poll(&mut self, device: &mut Device, cx: &mut Context<'_>) -> Poll<Chore> {
        while let Poll::Ready(message) = device.poll_receive(cx) {
            if let Message::Disconnect(news) = message {
                // The supervisor has given up.
                let exit = match news.exit {
                    Exit::Fault(fault) => Exit::Fault(fault),
                    _ => Exit::Fault(Fault::error("too many workers failed")),
                };
                return Poll::Ready(Chore::End(exit));
            }
        }
        loop {
            let now = self.clock.now();
            self.look_at_doors(cx);
            self.expire(now);
            self.dispatch(cx);
            if let Some(chore) = self.receive(now, cx) {
                return Poll::Ready(chore);
            }
            if let Some(chore) = self.look_at_workers(cx) {
                return Poll::Ready(chore);
            }
            let scaled = self.scale(now);
            self.show();
            let again = match scaled {
                Ok(chore) => return Poll::Ready(chore),
                Err(again) => again,
            };
            let expiry = self.router.time_to_live.and_then(|time| Some(self.oldest()? + time));
            let Some(at) = again.into_iter().chain(expiry).min() else { return Poll::Pending };
            if self.alarm.as_ref().is_none_or(|(until, _)| *until != at) {
                self.alarm = Some((at, Deadline::new(Arc::clone(&self.clock), at)));
            }
            if let Some((_, alarm)) = &mut self.alarm
                && alarm.poll(cx).is_pending()
            {
                return Poll::Pending;
            }
            self.alarm = None;
        }
    }

    /// Who was at a door may be in, or out.
    fn look_at_doors(&mut self, cx: &Context<'_>) {
        for worker in &mut self.workers {
            let Some((ticket, since)) = worker.door else { continue };
            match worker.address.shared().poll_waiting(Priority::Normal, ticket, cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => worker.door = None,
                Poll::Ready(Err(item)) => {
                    worker.door = None;
                    self.queue.push_front(Queued { item, since });
                }
            }
        }
    }

    /// When what waits longest came.
    fn oldest(&self) -> Option<Instant> {
        let workers = self.workers.iter().flat_map(|worker| {
            let door = worker.door.map(|(_, since)| since);
            door.into_iter().chain(worker.backlog.front().map(|queued| queued.since))
        });
        workers.chain(self.queue.front().map(|queued| queued.since)).min()
    }

    /// What has waited for too long goes.
    fn expire(&mut self, now: Instant) {
        let Some(time) = self.router.time_to_live else { return };
        let old = |since: Instant| since + time <= now;
        let mut expired = Vec::new();
        for worker in &mut self.workers {
            if let Some((ticket, since)) = worker.door
                && old(since)
            {
                worker.door = None;
                expired.extend(worker.shared().take_back(Priority::Normal, ticket));
            }
            while worker.backlog.front().is_some_and(|queued| old(queued.since)) {
                expired.extend(worker.backlog.pop_front().map(|queued| queued.item));
            }
        }
        while self.queue.front().is_some_and(|queued| old(queued.since)) {
            expired.extend(self.queue.pop_front().map(|queued| queued.item));
        }
        self.router.stats.expired.fetch_add(expired.len() as u64, Ordering::Relaxed);
        for item in expired {
            self.mailbox.shared().bury(item, DeadLetter::Expired);
        }
    }

    /// Gives out as much as the workers take.
    fn dispatch(&mut self, cx: &Context<'_>) {
        for worker in &mut self.workers {
            while let Some(queued) = worker.backlog.pop_front() {
                if let Err(queued) = worker.offer(queued, cx) {
                    worker.backlog.push_front(queued);
                    break;
                }
            }
        }
        while let Some(queued) = self.queue.pop_front() {
            if let Err(queued) = self.give(queued, cx) {
                self.queue.push_front(queued);
                break;
            }
            self.router.stats.routed.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn give(&mut self, queued: Queued<M>, cx: &Context<'_>) -> Result<(), Queued<M>> {
        let active: Vec<usize> = (0..self.workers.len())
            .filter(|&index| !self.workers[index].draining && self.workers[index].address.is_open())
            .collect();
        // As long as the crew is not complete, nobody can tell who should get it.
        if active.len() < *self.router.workers.start() {
            return Err(queued);
        }
        match &self.router.routing.0 {
            Kind::RoundRobin => {
                let from = self.turn;
                self.offer_in_order(
                    active.iter().cycle().skip(from % active.len()).take(active.len()).copied(),
                    queued,
                    cx,
                )
            }
            Kind::LeastLoaded => {
                let from = self.turn % active.len();
                let mut order: Vec<usize> =
                    active.iter().cycle().skip(from).take(active.len()).copied().collect();
                order.sort_by_key(|&index| self.workers[index].load());
                self.offer_in_order(order.into_iter(), queued, cx)
            }
            Kind::Key(key) => {
                let hash = key(&queued.item.message);
                let best = active.into_iter().max_by_key(|&index| score(hash, self.workers[index].number));
                let Some(worker) = best.and_then(|index| self.workers.get_mut(index)) else {
                    return Err(queued);
                };
                if worker.backlog.is_empty() {
                    if let Err(queued) = worker.offer(queued, cx) {
                        worker.backlog.push_back(queued);
                    }
                } else {
                    worker.backlog.push_back(queued);
                }
                Ok(())
            }
            Kind::Broadcast(copy) => {
                let copy = Arc::clone(copy);
                for index in active {
                    let message = copy(&queued.item.message);
                    let worker = &mut self.workers[index];
                    worker
                        .backlog
                        .push_back(Queued { item: Item { message, call: None }, since: queued.since });
                    while let Some(queued) = worker.backlog.pop_front() {
                        if let Err(queued) = worker.offer(queued, cx) {
                            worker.backlog.push_front(queued);
                            break;
                        }
                    }
                }
                Ok(())
            }
        }
    }

    fn offer_in_order(
        &mut self,
        order: impl Iterator<Item = usize>,
        queued: Queued<M>,
        cx: &Context<'_>,
    ) -> Result<(), Queued<M>> {
        let mut queued = queued;
        for index in order {
            match self.workers[index].offer(queued, cx) {
                Ok(()) => {
                    self.turn = self.turn.wrapping_add(1);
                    return Ok(());
                }
                Err(back) => queued = back,
            }
        }
        Err(queued)
    }

    /// How many wait here; at the doors, too.
    fn waiting(&self) -> usize {
        let workers =
            self.workers.iter().map(|worker| worker.backlog.len() + usize::from(worker.door.is_some()));
        self.queue.len() + workers.sum::<usize>()
    }

    fn in_queue(&self) -> usize {
        self.queue.len() + self.workers.iter().map(|worker| worker.backlog.len()).sum::<usize>()
    }

    fn is_full(&self) -> bool {
        self.in_queue() >= self.router.queue
    }

    fn pop_oldest(&mut self) -> Option<Queued<M>> {
        let backlogs =
            self.workers.iter_mut().map(|worker| &mut worker.backlog).filter(|list| !list.is_empty());
        let oldest = backlogs.min_by_key(|backlog| backlog.front().map(|queued| queued.since));
        let list = match oldest {
            Some(backlog) if self.queue.front().is_none_or(|own| backlog[0].since < own.since) => backlog,
            _ => &mut self.queue,
        };
        list.pop_front()
    }

    /// Takes in as much as there is room for.
    fn receive(&mut self, now: Instant, cx: &mut Context<'_>) -> Option<Chore> {
        while !self.closing {
            if self.is_full() && self.router.overload == Overload::Wait {
                // Whoever asks for an end is heard nevertheless.
                return self.mailbox.shared().asked_to_stop().map(Chore::End);
            }
            match self.mailbox.poll_receive(cx) {
                Poll::Pending => return None,
                Poll::Ready(Some(message)) => {
                    let call = self.mailbox.reader().take_call();
                    let queued = Queued { item: Item { message, call }, since: now };
                    if self.is_full() && self.router.overload == Overload::DropNewest {
                        self.shed(queued.item);
                        continue;
                    }
                    self.queue.push_back(queued);
                    self.dispatch(cx);
                    while self.in_queue() > self.router.queue
                        && let Some(oldest) = self.pop_oldest()
                    {
                        self.shed(oldest.item);
                    }
                }
                Poll::Ready(None) => {
                    if let Some(exit) = self.mailbox.shared().asked_to_stop() {
                        return Some(Chore::End(exit));
                    }
                    self.closing = true;
                }
            }
        }
        // The queue is finished first, then the workers finish what they have.
        if self.waiting() == 0 {
            for worker in &mut self.workers {
                worker.draining = true;
            }
            if self.workers.is_empty() {
                return Some(Chore::End(Exit::Normal));
            }
        }
        None
    }

    fn shed(&self, item: Item<M>) {
        self.router.stats.shed.fetch_add(1, Ordering::Relaxed);
        self.mailbox.shared().bury(item, DeadLetter::Overflow);
    }

    /// Those who go have what they have; those who have gone leave the list.
    fn look_at_workers(&mut self, cx: &Context<'_>) -> Option<Chore> {
        let mut index = 0;
        while let Some(worker) = self.workers.get_mut(index) {
            if worker.draining {
                worker.address.drain();
            }
            let ended = worker.address.shared().poll_ended(&mut worker.end, cx).is_ready();
            if ended && (worker.draining || !worker.address.is_open()) {
                let mut worker = self.workers.remove(index);
                for queued in worker.take_back().collect::<Vec<_>>().into_iter().rev() {
                    self.queue.push_front(queued);
                }
                return Some(Chore::Dismiss(worker.id));
            }
            index += 1;
        }
        None
    }

    fn scale(&mut self, now: Instant) -> Result<Chore, Option<Instant>> {
        if self.closing && self.waiting() == 0 {
            return Err(None);
        }
        let active = self.workers.iter().filter(|worker| !worker.draining);
        let (count, load) = active.fold((0, 0), |(count, load), worker| (count + 1, load + worker.load()));
        let load = load + self.queue.len();
        match self.scaler.look(now, &self.router.scaling, &self.router.workers, count, load)? {
            Step::Up => Ok(Chore::Hire),
            Step::Down => {
                // The one that came last goes.
                if let Some(worker) = self.workers.iter_mut().rev().find(|worker| !worker.draining) {
                    worker.draining = true;
                    let back: Vec<_> = worker.take_back().collect();
                    worker.address.drain();
                    for queued in back.into_iter().rev() {
                        self.queue.push_front(queued);
                    }
                }
                // Looked at again at once, to give out what has come back.
                Err(Some(now))
            }
        }
    }

    fn show(&self) {
        let draining = self.workers.iter().filter(|worker| worker.draining).count();
        let stats = &self.router.stats;
        stats.workers.store(self.workers.len() - draining, Ordering::Relaxed);
        stats.draining.store(draining, Ordering::Relaxed);
        stats.queued.store(self.waiting(), Ordering::Relaxed);
    }
}

/// Which worker a key likes best: each likes each as much as any other would, and always the same.
fn score(key: u64, worker: u64) -> u64 {
    let mixed = key ^ worker.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ mixed >> 31
}
