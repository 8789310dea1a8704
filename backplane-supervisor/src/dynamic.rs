//! Children of one kind, added while it runs.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use backplane::{Device, Runtime};

use crate::backoff::Backoff;
use crate::engine::Of;
use crate::handle::{DynamicHandle, Gone, StartDynamicError};
use crate::report::Report;
use crate::shared::{Kind, Shared, StartRefusal, TreeOf};
use crate::spec::{ChildId, ChildInfo, ChildKind, Facts, Init, Job, Shutdown, SpecError, StartError, What};
use crate::starting::{Birth, Starting};
use crate::supervisor::{Greet, Orphans, Plan, Settings, begin, run, settings};
use crate::tree::{AutoShutdown, Budget, Intensity, Members, Named, Restart, RestartStrategy, Tree};

type RecipeFor<A> = Arc<dyn Fn(A, Birth<'_, OneKind<A>>) -> Job + Send + Sync>;

/// A supervisor whose children are all of one kind, each started with an argument: OTP's `simple_one_for_one`.
///
/// It starts without children. Starting, ending and removing one costs the same at ten and at a million. A child that ends
/// and is not started again is forgotten. At its end it stops all children at the same time.
///
/// ```
/// use backplane_supervisor::{DynamicSupervisor, Restart};
/// use std::convert::Infallible;
///
/// async fn serve(client: u32) -> Result<(), Infallible> {
///     println!("client {client}");
///     Ok(())
/// }
///
/// let clients = DynamicSupervisor::new(|device, client: u32| device.manage(serve(client)))
///     .restart(Restart::Temporary)
///     .max_children(10_000);
/// # drop(clients);
/// ```
pub struct DynamicSupervisor<A: Clone + Send + 'static> {
    id: ChildId,
    facts: Facts,
    recipe: RecipeFor<A>,
    max: Option<usize>,
    common: Settings,
    greet: Option<Greet<DynamicHandle<A>>>,
}

impl<A: Clone + Send + 'static> Clone for DynamicSupervisor<A> {
    fn clone(&self) -> DynamicSupervisor<A> {
        DynamicSupervisor {
            id: Arc::clone(&self.id),
            facts: self.facts,
            recipe: Arc::clone(&self.recipe),
            max: self.max,
            common: self.common.clone(),
            greet: self.greet.clone(),
        }
    }
}

impl<A: Clone + Send + 'static> DynamicSupervisor<A> {
    /// Workers that are started as soon as their future is polled for the first time.
    ///
    /// ```
    /// use backplane_supervisor::DynamicSupervisor;
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// # smol::block_on(async {
    ///
    /// let clients = DynamicSupervisor::new(|device, name: &'static str| {
    ///     device.manage(async move {
    ///         println!("serving {name}");
    ///         std::future::pending::<Result<(), ()>>().await
    ///     })
    /// });
    /// let handle = clients.start(Smol::global()).await?;
    /// handle.start_child("ann").await?;
    /// handle.start_child("bob").await?;
    /// assert_eq!(handle.count_children().await?.active, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    pub fn new<F>(start: impl Fn(Device, A) -> F + Send + Sync + 'static) -> DynamicSupervisor<A>
    where
        F: Future + Send + 'static,
    {
        let recipe = move |argument: A, birth: Birth<'_, OneKind<A>>| -> Job {
            birth.silent(|device| start(device, argument))
        };
        DynamicSupervisor::with(Facts::new(ChildKind::Worker), Arc::new(recipe))
    }

    /// Workers that say themselves when they are started; see [`ChildSpec::starting`](crate::ChildSpec::starting).
    ///
    /// ```
    /// use backplane_supervisor::{DynamicSupervisor, Starting};
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// # smol::block_on(async {
    ///
    /// let listeners = DynamicSupervisor::starting(|device, starting: Starting, port: u16| {
    ///     device.manage(async move {
    ///         if port == 0 {
    ///             starting.fail("no port");
    ///             return Err("no port");
    ///         }
    ///         let _pulse = starting.done();
    ///         std::future::pending::<Result<(), &str>>().await
    ///     })
    /// });
    /// let handle = listeners.start(Smol::global()).await?;
    /// assert_eq!(handle.start_child(0).await.unwrap_err().to_string(), "failed: no port");
    /// assert!(handle.start_child(8080).await?.is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    pub fn starting<F>(
        start: impl Fn(Device, Starting, A) -> F + Send + Sync + 'static,
    ) -> DynamicSupervisor<A>
    where
        F: Future + Send + 'static,
    {
        let recipe = move |argument: A, birth: Birth<'_, OneKind<A>>| -> Job {
            birth.speaking(|device, starting| start(device, starting, argument))
        };
        DynamicSupervisor::with(Facts::new(ChildKind::Worker).with_pulse(), Arc::new(recipe))
    }

    /// Supervisors, one for each argument.
    ///
    /// ```
    /// use backplane_supervisor::{ChildSpec, DynamicSupervisor, RestartStrategy, Supervisor};
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// # smol::block_on(async {
    ///
    /// let rooms = DynamicSupervisor::supervisors(|seats: usize| {
    ///     let seat = ChildSpec::new("seat", |device| device.manage(std::future::pending::<Result<(), ()>>()));
    ///     Supervisor::new(RestartStrategy::OneForAll).children(seat.replicas(seats))
    /// });
    /// let handle = rooms.start(Smol::global()).await?;
    /// handle.start_child(3).await?;
    /// let snapshot = handle.snapshot()?;
    /// let room = snapshot.children[0].below.as_ref().expect("it runs");
    /// assert_eq!(room.children.len(), 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    pub fn supervisors<I>(init: impl Fn(A) -> I + Send + Sync + 'static) -> DynamicSupervisor<A>
    where
        I: Into<Init>,
    {
        let init = Arc::new(init);
        let recipe = move |argument: A, birth: Birth<'_, OneKind<A>>| -> Job {
            let init = Arc::clone(&init);
            Box::pin(birth.cradle().found(move || init(argument).into()))
        };
        DynamicSupervisor::with(Facts::new(ChildKind::Supervisor), Arc::new(recipe))
    }

    fn with(facts: Facts, recipe: RecipeFor<A>) -> DynamicSupervisor<A> {
        DynamicSupervisor {
            id: ChildId::from("child"),
            facts,
            recipe,
            max: None,
            common: Settings::default(),
            greet: None,
        }
    }

    settings!();

    /// What the children's common spec is called: `child`, unless said otherwise.
    ///
    /// ```
    /// use backplane_supervisor::DynamicSupervisor;
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// # smol::block_on(async {
    /// # let clients = DynamicSupervisor::new(|device, _: u32| {
    /// #     device.manage(std::future::pending::<Result<(), ()>>())
    /// # });
    ///
    /// let handle = clients.child_id("client").start(Smol::global()).await?;
    /// assert_eq!(&*handle.get_child_spec().await?.id, "client");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    #[must_use]
    pub fn child_id(mut self, id: impl Into<ChildId>) -> DynamicSupervisor<A> {
        self.id = id.into();
        self
    }

    /// When a child is started again: [`Restart::Permanent`], unless said otherwise.
    ///
    /// ```
    /// use backplane_supervisor::{DynamicSupervisor, Restart};
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// # smol::block_on(async {
    /// # let clients = DynamicSupervisor::new(|device, _: u32| {
    /// #     device.manage(std::future::pending::<Result<(), ()>>())
    /// # });
    ///
    /// // A client that has gone is not to be had back.
    /// let handle = clients.restart(Restart::Temporary).start(Smol::global()).await?;
    /// assert_eq!(handle.get_child_spec().await?.restart, Restart::Temporary);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    #[must_use]
    pub fn restart(mut self, restart: Restart) -> DynamicSupervisor<A> {
        self.facts.restart = restart;
        self
    }

    /// How a child is stopped: workers get five seconds and supervisors all the time they need, unless said otherwise.
    ///
    /// ```
    /// use backplane_supervisor::{DynamicSupervisor, Shutdown};
    /// use std::time::Duration;
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// # smol::block_on(async {
    /// # let clients = DynamicSupervisor::new(|device, _: u32| {
    /// #     device.manage(std::future::pending::<Result<(), ()>>())
    /// # });
    ///
    /// let handle = clients.clone().start(Smol::global()).await?;
    /// assert_eq!(handle.get_child_spec().await?.shutdown, Shutdown::Timeout(Duration::from_secs(5)));
    /// let handle = clients.shutdown(Shutdown::BrutalKill).start(Smol::global()).await?;
    /// assert_eq!(handle.get_child_spec().await?.shutdown, Shutdown::BrutalKill);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    #[must_use]
    pub fn shutdown(mut self, shutdown: Shutdown) -> DynamicSupervisor<A> {
        self.facts.shutdown = Some(shutdown);
        self
    }

    /// Lists and counts the children as this kind, whatever they are.
    ///
    /// ```
    /// use backplane_supervisor::{ChildKind, DynamicSupervisor};
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// # smol::block_on(async {
    /// # let trees = DynamicSupervisor::new(|device, _: u32| {
    /// #     device.manage(std::future::pending::<Result<(), ()>>())
    /// # });
    ///
    /// // They run trees of somebody else's making.
    /// let handle = trees.kind(ChildKind::Supervisor).start(Smol::global()).await?;
    /// handle.start_child(7).await?;
    /// assert_eq!(handle.count_children().await?.supervisors, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    #[must_use]
    pub fn kind(mut self, kind: ChildKind) -> DynamicSupervisor<A> {
        self.facts.kind = kind;
        self
    }

    /// A start attempt that takes longer than this has failed, and its task is dropped.
    ///
    /// ```
    /// use backplane_supervisor::{DynamicSupervisor, StartDynamicError, StartError, Starting};
    /// use std::time::Duration;
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// # smol::block_on(async {
    ///
    /// let slow = DynamicSupervisor::starting(|device, starting: Starting, _: u32| {
    ///     device.manage(async move {
    ///         let _never_used = starting;
    ///         std::future::pending::<Result<(), ()>>().await
    ///     })
    /// });
    /// let limit = Duration::from_millis(1);
    /// let handle = slow.start_within(limit).start(Smol::global()).await?;
    /// let late = StartDynamicError::Failed(StartError::TimedOut(limit));
    /// assert_eq!(handle.start_child(7).await, Err(late));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    #[must_use]
    pub fn start_within(mut self, deadline: Duration) -> DynamicSupervisor<A> {
        self.facts.start_within = Some(deadline);
        self
    }

    /// Each child promises a [`beat`](crate::Pulse::beat) at least this often, which only one that is made by
    /// [`starting`](DynamicSupervisor::starting) can keep.
    ///
    /// ```
    /// use backplane_supervisor::{DynamicSupervisor, SpecError, StartError};
    /// use std::time::Duration;
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// # smol::block_on(async {
    ///
    /// // These children are given nothing to beat with.
    /// let mute = DynamicSupervisor::new(|device, _: u32| device.manage(std::future::pending::<Result<(), ()>>()));
    /// let refused = mute.progress_within(Duration::from_secs(30)).start(Smol::global()).await;
    /// assert_eq!(refused.unwrap_err(), StartError::Spec(SpecError::CannotBeat("child".into())));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    #[must_use]
    pub fn progress_within(mut self, deadline: Duration) -> DynamicSupervisor<A> {
        self.facts.progress_within = Some(deadline);
        self
    }

    /// How long to wait before a child is started again.
    ///
    /// ```
    /// use backplane::Exit;
    /// use backplane_supervisor::{Backoff, DynamicSupervisor, Event};
    /// use std::time::Duration;
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// # smol::block_on(async {
    /// # let clients = DynamicSupervisor::new(|device, _: u32| {
    /// #     device.manage(std::future::pending::<Result<(), ()>>())
    /// # });
    ///
    /// let clients = clients.backoff(Backoff::linear(Duration::from_secs(60)));
    /// let handle = clients.start(Smol::global()).await?;
    /// let child = handle.start_child(7).await?.expect("it runs");
    /// let mut reports = handle.reports(100);
    /// handle.kill_child(child).await?;
    /// while let Some(report) = reports.next().await {
    ///     if let Event::Backoff(wait) = report.event {
    ///         assert_eq!(wait, Duration::from_secs(60));
    ///         handle.stop(Exit::Shutdown).await?;
    ///     }
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> DynamicSupervisor<A> {
        self.facts.backoff = backoff;
        self
    }

    /// How often each child may be restarted, beside the supervisor's own [`Intensity`].
    ///
    /// ```
    /// use backplane_supervisor::{Budget, DynamicSupervisor, Event, Exceeded, Intensity, RowState};
    /// # use std::time::Duration;
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// # smol::block_on(async {
    /// # let clients = DynamicSupervisor::new(|device, _: u32| {
    /// #     device.manage(std::future::pending::<Result<(), ()>>())
    /// # });
    ///
    /// let none = Intensity { restarts: 0, period: Duration::from_secs(60) };
    /// let clients = clients.budget(Budget { intensity: none, exceeded: Exceeded::LeaveDown });
    /// let handle = clients.start(Smol::global()).await?;
    /// let (first, second) = (handle.start_child(1).await?, handle.start_child(2).await?);
    /// let mut reports = handle.reports(100);
    /// handle.kill_child(first.expect("it runs")).await?;
    /// while reports.next().await.is_some_and(|report| report.event != Event::LeftDown) {}
    /// let rows = handle.which_children().await?; // the newest first
    /// assert_eq!(rows[0].child(), second);
    /// assert_eq!(rows[1].state, RowState::Down);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    #[must_use]
    pub fn budget(mut self, budget: Budget) -> DynamicSupervisor<A> {
        self.facts.budget = Some(budget);
        self
    }

    /// Refuses to start more children than this.
    ///
    /// ```
    /// use backplane_supervisor::{DynamicSupervisor, StartDynamicError};
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// # smol::block_on(async {
    /// # let clients = DynamicSupervisor::new(|device, _: &str| {
    /// #     device.manage(std::future::pending::<Result<(), ()>>())
    /// # });
    ///
    /// let handle = clients.max_children(1).start(Smol::global()).await?;
    /// handle.start_child("ann").await?;
    /// assert_eq!(handle.start_child("bob").await, Err(StartDynamicError::Full("bob")));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    #[must_use]
    pub fn max_children(mut self, max: usize) -> DynamicSupervisor<A> {
        self.max = Some(max);
        self
    }

    /// Calls `greet` with the handle of each incarnation, before anything else.
    ///
    /// ```
    /// use backplane_supervisor::DynamicSupervisor;
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// # smol::block_on(async {
    /// # let clients = DynamicSupervisor::new(|device, _: u32| {
    /// #     device.manage(std::future::pending::<Result<(), ()>>())
    /// # });
    ///
    /// // Every incarnation begins with three children.
    /// let clients = clients.greet(|handle| (0..3).for_each(|n| drop(handle.start_child(n))));
    /// let handle = clients.start(Smol::global()).await?;
    /// assert_eq!(handle.count_children().await?.active, 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    #[must_use]
    pub fn greet(
        mut self,
        greet: impl Fn(&DynamicHandle<A>) + Send + Sync + 'static,
    ) -> DynamicSupervisor<A> {
        self.greet = Some(Arc::new(greet));
        self
    }

    /// Starts it as a root. Anybody who has its line may ask it to stop.
    ///
    /// # Errors
    ///
    /// If the children's common spec cannot be supervised. It has no children yet, so none can fail.
    ///
    /// ```
    /// use backplane::{Device, Exit, LinkMode, Message};
    /// use backplane_supervisor::DynamicSupervisor;
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// # smol::block_on(async {
    /// # let clients = DynamicSupervisor::new(|device, _: u32| {
    /// #     device.manage(std::future::pending::<Result<(), ()>>())
    /// # });
    ///
    /// let handle = clients.start(Smol::global()).await?;
    /// let mut anybody = Device::new();
    /// anybody.link(&handle.line(), LinkMode::Monitor);
    /// handle.line().shutdown(anybody.id());
    /// let Message::Disconnect(news) = anybody.receive().await else { panic!() };
    /// assert_eq!(news.exit, Exit::Shutdown);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    pub fn start<R: Runtime>(
        self,
        runtime: R,
    ) -> impl Future<Output = Result<DynamicHandle<A>, StartError>> + Send + use<R, A> {
        begin(Arc::new(Of(runtime)), None, self)
    }

    /// Starts it as a child of `parent`: they are linked, and only the parent's shutdown requests are obeyed.
    ///
    /// # Errors
    ///
    /// If the children's common spec cannot be supervised. It has no children yet, so none can fail.
    ///
    /// ```
    /// use backplane::{Device, Exit, Message};
    /// use backplane_supervisor::DynamicSupervisor;
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// # smol::block_on(async {
    /// # let clients = DynamicSupervisor::new(|device, _: u32| {
    /// #     device.manage(std::future::pending::<Result<(), ()>>())
    /// # });
    ///
    /// let mut parent = Device::new();
    /// let handle = clients.start_linked(Smol::global(), &parent).await?;
    /// handle.line().shutdown(Device::new().id()); // a stranger's request
    /// assert_eq!(handle.count_children().await?.active, 0); // it runs on
    /// handle.line().shutdown(parent.id());
    /// let Message::Disconnect(news) = parent.receive().await else { panic!() };
    /// assert_eq!(news.exit, Exit::Shutdown);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    pub fn start_linked<R: Runtime>(
        self,
        runtime: R,
        parent: &Device,
    ) -> impl Future<Output = Result<DynamicHandle<A>, StartError>> + Send + use<R, A> {
        begin(Arc::new(Of(runtime)), Some(parent.line()), self)
    }
}

impl<A: Clone + Send + 'static> fmt::Debug for DynamicSupervisor<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamicSupervisor")
            .field("facts", &self.facts)
            .field("max_children", &self.max)
            .field("intensity", &self.common.intensity)
            .finish_non_exhaustive()
    }
}

impl<A: Clone + Send + 'static> From<DynamicSupervisor<A>> for Init {
    fn from(plan: DynamicSupervisor<A>) -> Init {
        Init(What::Run(Box::new(move |cradle| -> Job { Box::pin(run(plan, cradle)) })))
    }
}

/// The kind of supervisor whose children are of one kind.
pub(crate) struct OneKind<A: Clone + Send + 'static> {
    id: ChildId,
    facts: Facts,
    recipe: RecipeFor<A>,
    max: Option<usize>,
}

/// An argument, which has no name.
pub(crate) struct Argument<A>(A);

impl<A> Named for Argument<A> {
    fn name(&self) -> Option<&Arc<str>> {
        None
    }
}

impl<A: Clone + Send + 'static> Kind for OneKind<A> {
    type Add = A;
    type Seed = Argument<A>;
    type Loan = Argument<A>;
    type StartError = StartDynamicError<A>;

    const MEMBERS: Members = Members::OfOneKind;

    fn facts<'a>(&'a self, _: &'a Argument<A>) -> Option<&'a Facts> {
        Some(&self.facts)
    }

    fn admit(&self, add: A, listed: usize, _: AutoShutdown) -> Result<Argument<A>, StartDynamicError<A>> {
        match self.max {
            Some(max) if listed >= max => Err(StartDynamicError::Full(add)),
            _ => Ok(Argument(add)),
        }
    }

    fn refuse(refusal: StartRefusal) -> StartDynamicError<A> {
        match refusal {
            StartRefusal::Failed(error) => StartDynamicError::Failed(error),
            // Children without names do not take each other's.
            StartRefusal::AlreadyStarted(_) | StartRefusal::AlreadyPresent => {
                StartDynamicError::Gone(Gone(None))
            }
        }
    }

    fn lend(seed: &mut Option<Argument<A>>) -> Option<Argument<A>> {
        seed.take()
    }

    fn give_back(seed: &mut Option<Argument<A>>, loan: Argument<A>) -> Option<Argument<A>> {
        *seed = Some(loan);
        None
    }

    fn job(&self, loan: &Argument<A>, birth: Birth<'_, OneKind<A>>) -> Job {
        (self.recipe)(loan.0.clone(), birth)
    }

    fn set_max(&mut self, max: Option<usize>) {
        self.max = max;
    }

    fn info(&self, _: &ChildId, _: &dyn Fn(&str) -> Option<ChildInfo>) -> Option<ChildInfo> {
        Some(self.facts.info(&self.id))
    }
}

impl<A: Clone + Send + 'static> Plan for DynamicSupervisor<A> {
    type Kind = OneKind<A>;
    type Handle = DynamicHandle<A>;

    fn settings(&self) -> &Settings {
        &self.common
    }

    fn handle(shared: Arc<Shared<OneKind<A>>>) -> DynamicHandle<A> {
        DynamicHandle { shared }
    }

    fn greeting(&self) -> Option<Greet<DynamicHandle<A>>> {
        self.greet.clone()
    }

    fn open(self) -> Result<(OneKind<A>, TreeOf<OneKind<A>>), SpecError> {
        self.facts.check(&self.id)?;
        let kind = OneKind { id: self.id, facts: self.facts, recipe: self.recipe, max: self.max };
        let strategy = RestartStrategy::OneForOne;
        let tree = Tree::new(Members::OfOneKind, strategy, self.common.intensity, AutoShutdown::Never);
        Ok((kind, tree))
    }
}
