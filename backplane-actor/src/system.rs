//! Where actors come from.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use backplane::{Device, Exit, Fault, Runtime};
use backplane_supervisor::{ChildId, ChildSpec, Starting};
use pin_project_lite::pin_project;

use crate::{
    actor::{self, Actor},
    address::Address,
    clock::Clock,
    mailbox::{Mailbox, Shared, World},
    options::Options,
    protocol::Envelope,
    run::Run,
    start::gate,
    sync::{Arc, AtomicU64, Ordering},
};

/// A runtime, its clock and what actors share: starts actors, and is the only world they know. Clones are the same one.
///
/// Nothing is global: two systems in one process never meet, unless their actors are given each other's addresses.
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
    pub fn runtime(&self) -> &Arc<R> {
        &self.runtime
    }

    /// How many messages were accepted and not handled, in all mailboxes of this system.
    pub fn dead_letters(&self) -> u64 {
        self.world.dead.load(Ordering::Relaxed)
    }

    /// Starts a process: an async function over its mailbox.
    pub fn spawn<M, F>(&self, process: impl FnOnce(Mailbox<M>) -> F) -> Address<M>
    where
        M: Send + 'static,
        F: Future<Output: Outcome> + Send + 'static,
    {
        self.spawn_with(Options::new(), process)
    }

    /// Starts a process, with options.
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
    pub fn start<A: Actor>(&self, actor: A) -> Address<Envelope<A>> {
        self.start_with(Options::new(), actor)
    }

    /// Starts an actor, with options.
    pub fn start_with<A: Actor>(&self, options: Options<Envelope<A>>, actor: A) -> Address<Envelope<A>> {
        self.spawn_with(options, |mailbox| actor::serve(actor, mailbox, || {}))
    }

    /// Starts an actor, and waits until its [`init`](Actor::init) has returned.
    ///
    /// # Errors
    ///
    /// How it ended, if it did so before.
    pub async fn start_and_wait<A: Actor>(
        &self,
        options: Options<Envelope<A>>,
        actor: A,
    ) -> Result<Address<Envelope<A>>, Exit> {
        let (address, home) = self.prepare_one(options, false);
        let (started, starts) = gate();
        self.launch(home.run(Device::new(), |mailbox| actor::serve(actor, mailbox, move || started.open())));
        match starts.await {
            true => Ok(address),
            false => Err(address.ended().await.unwrap_or(Exit::Normal)),
        }
    }

    /// A child for a [supervisor](backplane_supervisor::Supervisor): an actor that is made anew for every incarnation, and
    /// the address that all of them have. It is started when its [`init`](Actor::init) has returned.
    pub fn child<A: Actor>(
        &self,
        id: impl Into<ChildId>,
        options: Options<Envelope<A>>,
        make: impl Fn() -> A + Send + Sync + 'static,
    ) -> (Address<Envelope<A>>, ChildSpec) {
        let (address, home) = self.prepare(options);
        let spec = ChildSpec::starting(id, move |device, starting: Starting| {
            let actor = make();
            home.run(device, |mailbox| actor::serve(actor, mailbox, move || drop(starting.done())))
        });
        (address, spec)
    }

    /// A child for a supervisor: a process that is started anew for every incarnation, and the address that all of them have.
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
/// reads, the mailbox is closed.
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
    /// One at a time: an incarnation that begins while another runs takes its messages away.
    pub fn run<F>(&self, device: Device, process: impl FnOnce(Mailbox<M>) -> F) -> Run<M, F>
    where
        F: Future<Output: Outcome>,
    {
        if let Some(label) = self.shared.name.label() {
            device.set_label(label.to_owned());
        }
        self.shared.begin(device.line());
        let future = process(Mailbox::new(Arc::clone(&self.shared)));
        Run::new(Arc::clone(&self.shared), device, future)
    }
}

impl<A: Actor> Home<Envelope<A>> {
    /// A new incarnation of an actor; as [`run`](Home::run).
    pub fn run_actor(
        &self,
        device: Device,
        actor: A,
    ) -> Run<Envelope<A>, impl Future<Output: Outcome> + Send + use<A>> {
        self.run(device, |mailbox| actor::serve(actor, mailbox, || {}))
    }
}
