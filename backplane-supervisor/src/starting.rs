//! How a child comes to life, and says so.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use backplane::{Device, DeviceId, Exit, Fault, catch};

use crate::engine::Engine;
use crate::handle::Killed;
use crate::order::Key;
use crate::report::Listeners;
use crate::shared::{Command, Kind, Shared};
use crate::snapshot::Snapshot;
use crate::spec::{Init, Job, StartError, What};

/// What a child's start has to know of the supervisor that makes it.
pub(crate) trait House: Send + Sync {
    /// The supervisor's name for devices.
    fn id(&self) -> DeviceId;
    /// The supervisor's name for people: ids from the root down, joined with `/`.
    fn path(&self) -> &Arc<str>;
    /// The same of a child that is a supervisor.
    fn path_of(&self, child: Key) -> Arc<str>;
    fn engine(&self) -> &Arc<dyn Engine>;
    fn listeners(&self) -> &Listeners;
    /// Puts it into the inbox.
    fn say(&self, child: DeviceId, said: Said);
    /// A child that is a supervisor can be asked for its own snapshot.
    fn adopt(&self, child: Key, house: Weak<dyn House>);
    fn snapshot(&self) -> Snapshot;
    /// Notes what a supervisor below had to kill while it ended.
    fn note_killed(&self, killed: Vec<Killed>);
}

/// What a child says of its start.
#[derive(Debug)]
pub(crate) enum Said {
    Started,
    Ignored,
    Failed(Box<StartError>),
    /// The token was dropped.
    Nothing,
}

/// The token with which a child says that it is started.
///
/// Until it is used the supervisor waits, and so do the siblings that come after. A child that drops it unused has failed
/// to start.
///
/// ```
/// use backplane_supervisor::{ChildSpec, Starting};
/// use std::net::TcpListener;
///
/// let spec = ChildSpec::starting("listener", |device, starting: Starting| {
///     device.manage(async move {
///         let listener = match TcpListener::bind(("127.0.0.1", 0)) {
///             Ok(listener) => listener,
///             Err(error) => {
///                 starting.fail(&error);
///                 return Err(error);
///             }
///         };
///         let _pulse = starting.done();
///         std::future::pending::<()>().await;
///         drop(listener);
///         Ok(())
///     })
/// });
/// # drop(spec);
/// ```
#[must_use = "a child that does not say that it is started is not"]
pub struct Starting {
    house: Option<Arc<dyn House>>,
    id: DeviceId,
    pulse: Pulse,
}

impl Starting {
    pub(crate) fn new(house: Arc<dyn House>, id: DeviceId) -> Starting {
        Starting { house: Some(house), id, pulse: Pulse(None) }
    }

    /// Who waits, until it has been told.
    pub(crate) fn house(&self) -> Option<&Arc<dyn House>> {
        self.house.as_ref()
    }

    /// The child is started. The next sibling is started now.
    pub fn done(mut self) -> Pulse {
        self.pulse.beat();
        self.say(Said::Started);
        self.pulse.clone()
    }

    /// There is nothing to do for this child, and that is fine: it is listed and not running. Its future should end now.
    pub fn ignore(mut self) {
        self.say(Said::Ignored);
    }

    /// The child cannot be started, for this reason. Its future should end now.
    pub fn fail(self, words: impl fmt::Display) {
        self.fail_with(StartError::Failed(Fault::error(words)));
    }

    pub(crate) fn fail_with(mut self, error: StartError) {
        self.say(Said::Failed(Box::new(error)));
    }

    /// The supervisor that waits.
    pub fn supervisor(&self) -> Option<DeviceId> {
        self.house.as_ref().map(|house| house.id())
    }

    fn say(&mut self, said: Said) {
        if let Some(house) = self.house.take() {
            house.say(self.id, said);
        }
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        self.say(Said::Nothing);
    }
}

impl fmt::Debug for Starting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Starting({})", self.id)
    }
}

/// The token with which a child shows that it makes progress; see [`ChildSpec::progress_within`](crate::ChildSpec::progress_within).
///
/// Where no such promise was made it does nothing.
#[derive(Clone)]
pub struct Pulse(Option<Arc<Beats>>);

pub(crate) struct Beats {
    engine: Arc<dyn Engine>,
    epoch: Instant,
    /// In nanoseconds after `epoch`.
    last: AtomicU64,
}

impl Pulse {
    pub(crate) fn new(engine: Option<&Arc<dyn Engine>>) -> Pulse {
        Pulse(engine.map(|engine| {
            Arc::new(Beats { engine: Arc::clone(engine), epoch: engine.now(), last: AtomicU64::new(0) })
        }))
    }

    /// Progress has been made.
    pub fn beat(&self) {
        if let Some(beats) = &self.0 {
            let since = beats.engine.now().saturating_duration_since(beats.epoch);
            beats.last.store(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }

    pub(crate) fn last(&self) -> Option<Instant> {
        let beats = self.0.as_ref()?;
        Some(beats.epoch + Duration::from_nanos(beats.last.load(Ordering::Relaxed)))
    }
}

impl fmt::Debug for Pulse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Pulse" } else { "Pulse(nobody listens)" })
    }
}

pin_project_lite::pin_project! {
    /// A child's job: its future, whose value is nobody's. Says first that it is started, if nobody else will.
    ///
    /// By hand, for as an `async` block it would hold the future twice.
    pub(crate) struct Life<K: Kind, F> {
        polled: Option<Arc<Shared<K>>>,
        #[pin]
        future: F,
    }
}

impl<K: Kind, F: Future> Future for Life<K, F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if let Some(shared) = this.polled.take() {
            shared.put(Command::Polled);
        }
        this.future.poll(cx).map(drop)
    }
}

/// All that a new incarnation is given.
pub(crate) struct Birth<K: Kind> {
    pub(crate) device: Device,
    pub(crate) shared: Arc<Shared<K>>,
    pub(crate) key: Key,
    pub(crate) pulse: Pulse,
}

impl<K: Kind> Birth<K> {
    /// The job of a worker that says nothing.
    pub(crate) fn silent<F>(self, start: impl FnOnce(Device) -> F) -> Job
    where
        F: Future + Send + 'static,
    {
        let future = start(self.device);
        Box::pin(Life { polled: Some(self.shared), future })
    }

    /// The job of a worker that says when it is started.
    pub(crate) fn speaking<F>(self, start: impl FnOnce(Device, Starting) -> F) -> Job
    where
        F: Future + Send + 'static,
    {
        let cradle = self.cradle();
        let future = start(cradle.device, cradle.starting);
        Box::pin(Life::<K, F> { polled: None, future })
    }

    /// What a supervisor needs of it.
    pub(crate) fn cradle(self) -> Cradle {
        let house: Arc<dyn House> = self.shared;
        let starting = Starting { house: Some(Arc::clone(&house)), id: self.device.id(), pulse: self.pulse };
        Cradle { device: self.device, starting, house, key: self.key }
    }
}

/// The same, whatever kind the supervisor above is of.
pub(crate) struct Cradle {
    pub(crate) device: Device,
    pub(crate) starting: Starting,
    pub(crate) house: Arc<dyn House>,
    pub(crate) key: Key,
}

impl Cradle {
    /// Becomes the supervisor that `init` says.
    pub(crate) async fn found(self, init: impl FnOnce() -> Init) {
        match catch(init) {
            Ok(Init(What::Run(run))) => run(self).await,
            Ok(Init(What::Ignore)) => {
                let Cradle { device, starting, .. } = self;
                starting.ignore();
                device.disconnect(Exit::Normal);
            }
            Ok(Init(What::Fail(fault))) => {
                let Cradle { device, starting, .. } = self;
                starting.fail_with(StartError::Failed(fault.clone()));
                device.disconnect(Exit::Fault(fault));
            }
            Err(panic) => {
                let Cradle { device, starting, .. } = self;
                let exit = Exit::Fault(Fault::panic(&panic));
                starting.fail_with(StartError::Ended(exit.clone()));
                device.disconnect(exit);
            }
        }
    }
}
