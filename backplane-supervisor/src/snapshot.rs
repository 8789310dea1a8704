//! A tree as it is at one moment, as a value.

use std::fmt;
use std::time::Duration;

use backplane::DeviceId;

use crate::spec::{ChildId, ChildKind};

/// A supervisor and all that is below it, as they were when they were looked at.
///
/// Prints as text, a line a child, and serialises with the feature `serde`.
///
/// ```
/// use backplane_supervisor::{ChildSpec, RestartStrategy, Supervisor};
/// # #[cfg(feature = "smol")] {
/// use backplane::runtime::Smol;
/// # smol::block_on(async {
/// # let clock = backplane_supervisor::ChildSpec::new("clock", |device| {
/// #     device.manage(std::future::pending::<Result<(), ()>>())
/// # });
///
/// let inner = ChildSpec::supervisor("inner", move || {
///     Supervisor::new(RestartStrategy::OneForOne).child(clock.clone())
/// });
/// let tree = Supervisor::new(RestartStrategy::OneForOne).child(inner);
/// let snapshot = tree.start(Smol::global()).await?.snapshot()?;
/// let text = snapshot.to_string();
/// let lines: Vec<&str> = text.lines().collect();
/// assert_eq!(lines[0], "root");
/// assert!(lines[1].starts_with("  inner supervisor running"));
/// assert!(lines[2].starts_with("    clock worker running"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Snapshot {
    /// Its path: ids from the root down joined with `/`.
    pub path: String,
    /// The supervisor's device.
    #[cfg_attr(feature = "serde", serde(serialize_with = "as_text"))]
    pub device: DeviceId,
    /// Its children, in start order.
    pub children: Vec<ChildSnapshot>,
}

/// One child in a [`Snapshot`].
///
/// ```
/// use backplane_supervisor::{ChildState, RestartStrategy, Supervisor};
/// # #[cfg(feature = "smol")] {
/// use backplane::runtime::Smol;
/// # smol::block_on(async {
/// # let clock = backplane_supervisor::ChildSpec::new("clock", |device| {
/// #     device.manage(std::future::pending::<Result<(), ()>>())
/// # });
///
/// let tree = Supervisor::new(RestartStrategy::OneForOne).child(clock);
/// let handle = tree.start(Smol::global()).await?;
/// handle.terminate_child("clock").await?;
/// let clock = &handle.snapshot()?.children[0];
/// assert_eq!((clock.state, clock.uptime), (ChildState::Down, None));
/// assert_eq!((clock.incarnation, clock.restarts), (1, 0));
/// assert_eq!(clock.last_end.as_deref(), Some("shutdown"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ChildSnapshot {
    /// Its name, if it has one.
    pub id: Option<ChildId>,
    /// Worker or supervisor.
    pub kind: ChildKind,
    /// What it does.
    pub state: ChildState,
    /// The device of the incarnation that runs, or ran last.
    #[cfg_attr(feature = "serde", serde(serialize_with = "as_text_if_any"))]
    pub device: Option<DeviceId>,
    /// How many times it has been started or tried to.
    pub incarnation: u32,
    /// How many times it has been started again by its supervisor.
    pub restarts: u32,
    /// How long it has been running, in whole milliseconds. A child that says nothing of its start, and was started again while
    /// nobody listened, is counted from when that start was begun: nobody looks at the clock when it is first polled.
    pub uptime: Option<Duration>,
    /// How its last end was, in words.
    pub last_end: Option<String>,
    /// What is below it, if it is a supervisor that runs.
    pub below: Option<Box<Snapshot>>,
}

/// What a child does.
///
/// ```
/// use backplane_supervisor::{Backoff, ChildState, Event, RestartStrategy, Supervisor};
/// # use std::time::Duration;
/// # #[cfg(feature = "smol")] {
/// use backplane::runtime::Smol;
/// # smol::block_on(async {
/// # let clock = backplane_supervisor::ChildSpec::new("clock", |device| {
/// #     device.manage(std::future::pending::<Result<(), ()>>())
/// # });
///
/// let clock = clock.backoff(Backoff::linear(Duration::from_secs(60)));
/// let handle = Supervisor::new(RestartStrategy::OneForOne).child(clock).start(Smol::global()).await?;
/// let state = || handle.snapshot().map(|tree| tree.children[0].state);
/// assert_eq!(state()?, ChildState::Running);
///
/// let mut reports = handle.reports(100);
/// handle.kill_child("clock").await?;
/// while reports.next().await.is_some_and(|report| !matches!(report.event, Event::Backoff(_))) {}
/// assert_eq!(state()?, ChildState::Restarting);
/// handle.terminate_child("clock").await?;
/// assert_eq!(state()?, ChildState::Down);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub enum ChildState {
    /// Its start attempt is being made.
    Starting,
    /// It runs.
    Running,
    /// A restart failed or waits for its backoff.
    Restarting,
    /// It does not run and is not about to.
    Down,
}

impl fmt::Display for ChildState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ChildState::Starting => "starting",
            ChildState::Running => "running",
            ChildState::Restarting => "restarting",
            ChildState::Down => "down",
        })
    }
}

#[cfg(feature = "serde")]
fn as_text<S: serde::Serializer>(id: &DeviceId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

#[cfg(feature = "serde")]
fn as_text_if_any<S: serde::Serializer>(id: &Option<DeviceId>, serializer: S) -> Result<S::Ok, S::Error> {
    match id {
        Some(id) => serializer.collect_str(id),
        None => serializer.serialize_none(),
    }
}

impl Snapshot {
    fn write(&self, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
        for child in &self.children {
            let indent = 2 * depth;
            write!(f, "\n{:indent$}", "")?;
            match (&child.id, child.device) {
                (Some(id), _) => write!(f, "{id}")?,
                (None, Some(device)) => write!(f, "{device}")?,
                (None, None) => f.write_str("?")?,
            }
            write!(f, " {} {}", child.kind, child.state)?;
            if let Some(uptime) = child.uptime {
                write!(f, " {uptime:?}")?;
            }
            if child.restarts > 0 {
                write!(f, ", restarts {}", child.restarts)?;
            }
            if let Some(end) = &child.last_end {
                write!(f, ", last end: {end}")?;
            }
            if let Some(below) = &child.below {
                below.write(f, depth + 1)?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        self.write(f, 1)
    }
}
