//! Where actors come from.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use backplane::{Device, Exit, Fault, Runtime, catch};
use backplane_supervisor::{ChildId, ChildSpec, Starting};
use pin_project_lite::pin_project;

use crate::{
    actor::{self, Actor},
    address::Address,
    clock::Clock,
    mailbox::{Mailbox, Reader, Shared, World},
    options::Options,
    protocol::Envelope,
    run::Run,
    start::gate,
    sync::{Arc, AtomicU64, Ordering},
};

/// A runtime, its clock and what actors share: starts actors, and is the only world they know. Clones are the same one.
///
/// Nothing is global: two systems in one process never meet, unless their actors are given each other's addresses.
///
/// ```
/// # #[cfg(feature = "smol")] {
/// use backplane::runtime::Smol;
/// use backplane_actor::{Options, System};
///
/// let (one, other) = (System::new(Smol::global()), System::new(Smol::global()));
/// let (address, home) = one.prepare::<u32>(Options::new());
/// address.try_cast(7).unwrap();
/// drop(home);
/// assert_eq!((one.dead_letters(), other.dead_letters()), (1, 0));
/// # }
/// ```
pub struct System<R> {
    runtime: Arc<R>,
    world: Arc<World>,
}

impl<R> Clone for System<R> {
    fn clone(&self) -> System<R> {
        System { runtime: Arc::clone(&self.runtime), world: Arc::clone(&self.world) }
    }
}

impl<R> fmt::Debug for System<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("System").field("clock", &self.world.clock).finish_non_exhaustive()
    }
}

/// What a process may return: an end, or something that says how it ended.
///
/// ```
/// use backplane::{Exit, Fault};
/// use backplane_actor::Outcome;
///
/// assert_eq!(().exit(), Exit::Normal);
/// assert_eq!(Exit::Shutdown.exit(), Exit::Shutdown);
/// assert_eq!(Ok::<u32, &str>(7).exit(), Exit::Normal);
/// assert_eq!(Err::<u32, _>("broken").exit(), Exit::Fault(Fault::error("broken")));
/// ```
pub trait Outcome {
    /// How it ended.
    fn exit(self) -> Exit;
}

impl Outcome for () {
    fn exit(self) -> Exit {
        Exit::Normal
    }
}

impl Outcome for Exit {
    fn exit(self) -> Exit {
        self
    }
}

impl<T, E: fmt::Display> Outcome for Result<T, E> {
    fn exit(self) -> Exit {
        match self {
            Ok(_) => Exit::Normal,
            Err(error) => Exit::Fault(Fault::error(error)),
        }
    }
}

impl<R: Runtime> System<R> {
    /// A system of actors on this runtime.
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// use backplane_actor::{Mailbox, Reply, System, testing::Seeded};
    ///
    /// let runtime = Seeded::new(1); // any runtime will do
    /// let system = System::new(runtime.clone());
    /// let yes = system.spawn(|mut mailbox: Mailbox<Reply<bool>>| async move {
    ///     while let Some(reply) = mailbox.receive().await {
    ///         reply.send(true);
    ///     }
    /// });
    /// assert_eq!(runtime.run(async { yes.ask(|reply| reply).await }), Ok(true));
    /// # }
    /// ```
    pub fn new(runtime: R) -> System<R> {
        let runtime = Arc::new(runtime);
        let world = World {
            clock: Clock::new(Arc::clone(&runtime)),
            dead: AtomicU64::new(0),
            numbers: AtomicU64::new(0),
        };
        System { runtime, world: Arc::new(world) }
    }

    /// The runtime.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// use backplane::Runtime;
    ///
    /// let began = system.runtime().now();
    /// assert!(system.runtime().now() >= began);
    /// # }
    /// ```
    pub fn runtime(&self) -> &Arc<R> {
        &self.runtime
    }

    /// How many messages were accepted and not handled, in all mailboxes of this system.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane_actor::Options;
    /// let (address, home) = system.prepare::<u32>(Options::new());
    /// address.try_cast(7).unwrap();
    /// drop(home); // nobody will read it
    /// assert_eq!(system.dead_letters(), 1);
    /// # }
    /// ```
    pub fn dead_letters(&self) -> u64 {
        self.world.dead.load(Ordering::Relaxed)
    }

    /// Starts a process: an async function over its mailbox.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane::Exit;
    /// # use backplane_actor::Mailbox;
    /// let adds = system.spawn(|mut numbers: Mailbox<u8>| async move {
    ///     let mut sum = 0_u8;
    ///     while let Some(n) = numbers.receive().await {
    ///         sum = sum.checked_add(n).ok_or("too much")?;
    ///     }
    ///     Ok::<(), &str>(())
    /// });
    /// adds.try_cast(200).unwrap();
    /// adds.try_cast(100).unwrap();
    /// assert_eq!(smol::block_on(adds.ended()).unwrap().to_string(), "failed: too much");
    /// # }
    /// ```
    pub fn spawn<M, F>(&self, process: impl FnOnce(Mailbox<M>) -> F) -> Address<M>
    where
        M: Send + 'static,
        F: Future<Output: Outcome> + Send + 'static,
    {
        self.spawn_with(Options::new(), process)
    }

    /// Starts a process, with options.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane_actor::{Mailbox, Reply};
    /// # enum Count { Add(u64), Get(Reply<u64>) }
    /// # async fn count(mut mailbox: Mailbox<Count>) {
    /// #     let mut total = 0;
    /// #     while let Some(message) = mailbox.receive().await {
    /// #         match message {
    /// #             Count::Add(n) => total += n,
    /// #             Count::Get(reply) => reply.send(total),
    /// #         }
    /// #     }
    /// # }
    /// # use backplane_actor::Options;
    /// let counter = system.spawn_with(Options::new().label("counter").capacity(16), count);
    /// assert_eq!(counter.name().label(), Some("counter"));
    /// assert_eq!(smol::block_on(counter.ask(Count::Get)), Ok(0));
    /// # let _ = Count::Add(1);
    /// # }
    /// ```
    pub fn spawn_with<M, F>(&self, options: Options<M>, process: impl FnOnce(Mailbox<M>) -> F) -> Address<M>
    where
        M: Send + 'static,
        F: Future<Output: Outcome> + Send + 'static,
    {
        let (address, home) = self.prepare_one(options, false);
        self.launch(home.run(Device::new(), process));
        address
    }

    /// Starts an actor.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane_actor::{Actor, Context, Handle};
    /// # use std::convert::Infallible;
    /// # struct Counter { total: u64 }
    /// # impl Actor for Counter {
    /// #     type Messages = (Add,);
    /// #     type Error = Infallible;
    /// # }
    /// # struct Add(u64);
    /// # impl Handle<Add> for Counter {
    /// #     type Reply = u64;
    /// #     async fn handle(&mut self, Add(n): Add, _: &mut Context<Self>) -> Result<u64, Infallible> {
    /// #         self.total += n;
    /// #         Ok(self.total)
    /// #     }
    /// # }
    /// let counter = system.start(Counter { total: 2 });
    /// assert_eq!(smol::block_on(counter.call(Add(3))), Ok(5));
    /// # }
    /// ```
    pub fn start<A: Actor>(&self, actor: A) -> Address<Envelope<A>> {
        self.start_with(Options::new(), actor)
    }

    /// Starts an actor, with options.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane_actor::{Actor, Context, Handle};
    /// # use std::convert::Infallible;
    /// # struct Counter { total: u64 }
    /// # impl Actor for Counter {
    /// #     type Messages = (Add,);
    /// #     type Error = Infallible;
    /// # }
    /// # struct Add(u64);
    /// # impl Handle<Add> for Counter {
    /// #     type Reply = u64;
    /// #     async fn handle(&mut self, Add(n): Add, _: &mut Context<Self>) -> Result<u64, Infallible> {
    /// #         self.total += n;
    /// #         Ok(self.total)
    /// #     }
    /// # }
    /// # use backplane_actor::Options;
    /// let counter = system.start_with(Options::new().label("counter"), Counter { total: 2 });
    /// assert_eq!(counter.name().to_string(), "counter");
    /// assert_eq!(smol::block_on(counter.call(Add(3))), Ok(5));
    /// # }
    /// ```
    pub fn start_with<A: Actor>(&self, options: Options<Envelope<A>>, actor: A) -> Address<Envelope<A>> {
        let (address, home) = self.prepare_one(options, false);
        self.launch(home.run_reader(Device::new(), |reader| actor::serve(actor, reader, || {})));
        address
    }

    /// Starts an actor, and waits until its [`init`](Actor::init) has returned.
    ///
    /// # Errors
    ///
    /// How it ended, if it did so before.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane_actor::{Actor, Context, Options};
    /// struct File(&'static str);
    ///
    /// impl Actor for File {
    ///     type Messages = ();
    ///     type Error = std::io::Error;
    ///
    ///     async fn init(&mut self, _: &mut Context<Self>) -> Result<(), std::io::Error> {
    ///         std::fs::read(self.0).map(drop)
    ///     }
    /// }
    /// let exit = smol::block_on(system.start_and_wait(Options::new(), File("/no/such/file"))).unwrap_err();
    /// assert!(exit.is_fault());
    /// # }
    /// ```
    pub async fn start_and_wait<A: Actor>(
        &self,
        options: Options<Envelope<A>>,
        actor: A,
    ) -> Result<Address<Envelope<A>>, Exit> {
        let (address, home) = self.prepare_one(options, false);
        let (started, starts) = gate();
        self.launch(
            home.run_reader(Device::new(), |reader| actor::serve(actor, reader, move || started.open())),
        );
        match starts.await {
            true => Ok(address),
            false => Err(address.ended().await.unwrap_or(Exit::Normal)),
        }
    }

    /// A child for a [supervisor](backplane_supervisor::Supervisor): an actor that is made anew for every incarnation, and
    /// the address that all of them have. It is started when its [`init`](Actor::init) has returned.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane::Exit;
    /// # use backplane_actor::{Actor, CallError, Context, Handle, Options};
    /// # struct Counter { total: u8 }
    /// # struct Add(u8);
    /// # impl Actor for Counter {
    /// #     type Messages = (Add,);
    /// #     type Error = &'static str;
    /// # }
    /// # impl Handle<Add> for Counter {
    /// #     type Reply = u8;
    /// #     async fn handle(&mut self, Add(n): Add, _: &mut Context<Self>) -> Result<u8, &'static str> {
    /// #         self.total = self.total.checked_add(n).ok_or("too much")?;
    /// #         Ok(self.total)
    /// #     }
    /// # }
    /// use backplane_supervisor::{RestartStrategy, Supervisor};
    ///
    /// let (counter, spec) = system.child("counter", Options::new(), || Counter { total: 0 });
    /// smol::block_on(async {
    ///     let tree = Supervisor::new(RestartStrategy::OneForOne).child(spec).start(Smol::global()).await.unwrap();
    ///     assert_eq!(counter.call(Add(200)).await, Ok(200));
    ///     assert!(matches!(counter.call(Add(100)).await, Err(CallError::Ended(Exit::Fault(_)))));
    ///     assert_eq!(counter.call(Add(1)).await, Ok(1)); // its successor, at the same address
    /// #   tree.stop(Exit::Shutdown).await.unwrap();
    /// });
    /// # }
    /// ```
    pub fn child<A: Actor>(
        &self,
        id: impl Into<ChildId>,
        options: Options<Envelope<A>>,
        make: impl Fn() -> A + Send + Sync + 'static,
    ) -> (Address<Envelope<A>>, ChildSpec) {
        let (address, home) = self.prepare(options);
        let spec = ChildSpec::starting(id, move |device, starting: Starting| {
            let actor = make();
            home.run_reader(device, |reader| actor::serve(actor, reader, move || drop(starting.done())))
        });
        (address, spec)
    }

    /// A child for a supervisor: a process that is started anew for every incarnation, and the address that all of them have.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane_actor::{Mailbox, Reply};
    /// # enum Count { Add(u64), Get(Reply<u64>) }
    /// # async fn count(mut mailbox: Mailbox<Count>) {
    /// #     let mut total = 0;
    /// #     while let Some(message) = mailbox.receive().await {
    /// #         match message {
    /// #             Count::Add(n) => total += n,
    /// #             Count::Get(reply) => reply.send(total),
    /// #         }
    /// #     }
    /// # }
    /// # use backplane::Exit;
    /// # use backplane_actor::Options;
    /// use backplane_supervisor::{RestartStrategy, Supervisor};
    ///
    /// let (counter, spec) = system.child_process("counter", Options::new(), count);
    /// counter.try_cast(Count::Add(2)).unwrap(); // accepted before anybody reads
    /// smol::block_on(async {
    ///     let tree = Supervisor::new(RestartStrategy::OneForOne).child(spec).start(Smol::global()).await.unwrap();
    ///     assert_eq!(counter.ask(Count::Get).await, Ok(2));
    ///     tree.stop(Exit::Shutdown).await.unwrap();
    /// });
    /// assert!(!counter.is_open());
    /// # }
    /// ```
    pub fn child_process<M, F>(
        &self,
        id: impl Into<ChildId>,
        options: Options<M>,
        process: impl Fn(Mailbox<M>) -> F + Send + Sync + 'static,
    ) -> (Address<M>, ChildSpec)
    where
        M: Send + 'static,
        F: Future<Output: Outcome> + Send + 'static,
    {
        let (address, home) = self.prepare(options);
        (address, ChildSpec::new(id, move |device| home.run(device, &process)))
    }

    /// A mailbox that outlives those who read it: its address, and the [`Home`] to start them from. For supervised actors,
    /// for those whose state is not `Send`, and for whoever wants the future and not a task.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane::{Device, Exit};
    /// # use backplane_actor::{Mailbox, Options};
    /// use std::{cell::Cell, rc::Rc};
    ///
    /// let (address, home) = system.prepare::<u32>(Options::new());
    /// address.try_cast(7).unwrap();
    /// address.drain();
    /// let sum = Rc::new(Cell::new(0)); // need not be `Send`, for this thread runs it
    /// let run = home.run(Device::new(), |mut mailbox| {
    ///     let sum = Rc::clone(&sum);
    ///     async move { while let Some(n) = mailbox.receive().await { sum.set(sum.get() + n) } }
    /// });
    /// assert_eq!(smol::block_on(run), Exit::Normal);
    /// assert_eq!(sum.get(), 7);
    /// # }
    /// ```
    pub fn prepare<M: Send + 'static>(&self, options: Options<M>) -> (Address<M>, Home<M>) {
        self.prepare_one(options, true)
    }

    #[cfg(feature = "testing")]
    pub(crate) fn world(&self) -> Arc<World> {
        Arc::clone(&self.world)
    }

    fn prepare_one<M: Send + 'static>(&self, options: Options<M>, reopens: bool) -> (Address<M>, Home<M>) {
        let shared = Shared::new(Arc::clone(&self.world), options, reopens);
        let home = Home { shared: Arc::clone(&shared), counts: reopens };
        if reopens {
            shared.add_sender();
        }
        (Address::counted(shared), home)
    }

    fn launch(&self, run: impl Future<Output = Exit> + Send + 'static) {
        let task = self.runtime.spawn(Task { run });
        self.runtime.detach(task);
    }
}

pin_project! {
    /// By hand, for an `async` block would hold the future twice.
    struct Task<F> {
        #[pin]
        run: F,
    }
}

impl<F: Future> Future for Task<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.project().run.poll(cx).map(drop)
    }
}

/// A mailbox that is there before and after those who read it, one after another.
///
/// While nobody does, messages are accepted as ever, unless the last reader ended well. When the home is dropped and nobody
/// reads, the mailbox is closed, and what waits there goes to the dead letters. Whoever waits for an answer hears how the last
/// reader ended; if there never was one, [`NoReply`](crate::CallError::NoReply), for nothing has ended.
///
/// ```
/// # #[cfg(feature = "smol")] {
/// # use backplane::runtime::Smol;
/// use backplane::Device;
/// use backplane_actor::{Options, System};
///
/// let (address, home) = System::new(Smol::global()).prepare::<u32>(Options::new());
/// address.try_cast(1).unwrap(); // before anybody reads ..
/// let fails = home.run(Device::new(), |_mailbox| async { Err::<(), _>("broken") });
/// assert!(smol::block_on(fails).is_fault());
/// assert_eq!(address.load().normal, 1); // .. and after a fault: for the next one
/// let ends = home.run(Device::new(), |_mailbox| async {});
/// assert!(!smol::block_on(ends).is_fault());
/// assert!(!address.is_open()); // until there is another one
/// # }
/// ```
pub struct Home<M> {
    shared: Arc<Shared<M>>,
    counts: bool,
}

impl<M> fmt::Debug for Home<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Home({})", self.shared.name)
    }
}

impl<M> Drop for Home<M> {
    fn drop(&mut self) {
        if self.counts {
            self.shared.abandon();
            self.shared.remove_sender();
        }
    }
}

impl<M: Send + 'static> Home<M> {
    /// A new incarnation: `process` over the mailbox, present in the mesh as `device`. The future is to be run by whoever
    /// calls this; it is `Send` if that of `process` is.
    ///
    /// One at a time: an incarnation that begins while another runs takes its messages away. The mailbox of the earlier one, as
    /// any that somebody has kept for longer than its incarnation, gives back what it has, in hand or set aside, when it is asked
    /// for the next message or dropped: to the next one, or, if the queue was not [kept](crate::QueueOnRestart) when the
    /// incarnation ended, to the dead letters. How the earlier one ends is told by its device, and to those whose calls it has
    /// received.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane::{Device, Exit};
    /// # use backplane_actor::Options;
    /// let (address, home) = system.prepare::<u32>(Options::new());
    /// address.try_cast(7).unwrap();
    /// let run = home.run(Device::new(), |mut mailbox| async move {
    ///     assert_eq!(mailbox.receive().await, Some(7));
    ///     Exit::Shutdown
    /// });
    /// assert_eq!(smol::block_on(run), Exit::Shutdown);
    /// # }
    /// ```
    pub fn run<F>(&self, device: Device, process: impl FnOnce(Mailbox<M>) -> F) -> Run<M, F>
    where
        F: Future<Output: Outcome>,
    {
        self.run_reader(device, |reader| process(Mailbox::new(reader)))
    }

    /// For who has a place for what is in a mailbox.
    pub(crate) fn run_reader<F>(&self, device: Device, process: impl FnOnce(Reader<M>) -> F) -> Run<M, F>
    where
        F: Future<Output: Outcome>,
    {
        if let Some(label) = self.shared.name.label() {
            device.set_label(label.to_owned());
        }
        let reader = self.shared.begin(device.line());
        match catch(|| process(Reader::new(Arc::clone(&self.shared), reader))) {
            Ok(future) => Run::new(self.shared.node(), device, future),
            Err(panic) => {
                // It has ended before it was one; the device says so to those who watch.
                let exit = Exit::Fault(Fault::panic(&panic));
                self.shared.ending(device.id(), &exit);
                self.shared.ended(device.id(), &exit);
                device.disconnect(exit);
                panic.resume()
            }
        }
    }
}

impl<A: Actor> Home<Envelope<A>> {
    /// A new incarnation of an actor; as [`run`](Home::run).
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane_actor::{Actor, Context, Handle};
    /// # use std::convert::Infallible;
    /// # struct Counter { total: u64 }
    /// # impl Actor for Counter {
    /// #     type Messages = (Add,);
    /// #     type Error = Infallible;
    /// # }
    /// # struct Add(u64);
    /// # impl Handle<Add> for Counter {
    /// #     type Reply = u64;
    /// #     async fn handle(&mut self, Add(n): Add, _: &mut Context<Self>) -> Result<u64, Infallible> {
    /// #         self.total += n;
    /// #         Ok(self.total)
    /// #     }
    /// # }
    /// # use backplane::{Device, Exit};
    /// # use backplane_actor::Options;
    /// let (counter, home) = system.prepare(Options::new());
    /// counter.try_cast(Add(2)).unwrap();
    /// counter.drain();
    /// let run = home.run_actor(Device::new(), Counter { total: 0 });
    /// assert_eq!(smol::block_on(run), Exit::Normal);
    /// assert_eq!(counter.load().handled, 1);
    /// # }
    /// ```
    pub fn run_actor(
        &self,
        device: Device,
        actor: A,
    ) -> Run<Envelope<A>, impl Future<Output: Outcome> + Send + use<A>> {
        self.run_reader(device, |reader| actor::serve(actor, reader, || {}))
    }
}
