//! What a pool has to tell while it runs.

use std::{fmt, time::Duration};

use crate::registry::TaskName;

/// Something that whoever runs a pool would want to know of.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::{sync::mpsc, time::Duration};
/// use backplane_pool::{Event, Pool};
/// let (tell, told) = mpsc::channel();
/// let pool = Pool::builder()
///     .workers(1)
///     .hog_threshold(Duration::from_millis(1))
///     .on_event(move |event| drop(tell.send(event.clone())))
///     .build()?;
/// // It keeps its worker until that has been told of.
/// let (first, told) = pool.block_on(pool.spawn(async move { (told.recv(), told) }))?;
/// assert!(matches!(first?, Event::Hog(_)));
/// assert!(matches!(told.recv()?, Event::HogEnded(_)));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A task has been in one poll for longer than the [threshold](crate::Builder::hog_threshold), and still is. Told
    /// once for each such poll, while it lasts.
    Hog(Hog),
    /// The poll that was told of as a [`Hog`](Event::Hog) is over.
    HogEnded(Hog),
}

/// A task that keeps its worker to itself.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::{sync::mpsc, time::Duration};
/// use backplane_pool::{Event, Pool};
/// let (tell, told) = mpsc::channel();
/// let pool = Pool::builder()
///     .workers(1)
///     .hog_threshold(Duration::from_millis(1))
///     .on_event(move |event| drop(tell.send(event.clone())))
///     .build()?;
/// // It keeps its worker until that has been told of.
/// let busy = pool.spawn_named("busy", async move { told.recv() });
/// let Event::Hog(hog) = pool.block_on(busy)?? else { panic!() };
/// assert_eq!(hog.task.as_ref().map(|task| task.name()), Some("busy"));
/// assert!(hog.lasted >= Duration::from_millis(1));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hog {
    /// The task; `None` if it was gone before it could be asked for its name.
    pub task: Option<TaskName>,
    /// Its worker, from zero, over all nodes.
    pub worker: usize,
    /// The node that the worker works for.
    pub node: usize,
    /// For how long it has been seen in this one poll. The poll itself may have begun up to a look earlier.
    pub lasted: Duration,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (hog, verb) = match self {
            Event::Hog(hog) => (hog, "keeps"),
            Event::HogEnded(hog) => (hog, "has let go of"),
        };
        match &hog.task {
            Some(task) => write!(f, "{task}")?,
            None => f.write_str("a task")?,
        }
        let Hog { worker, node, lasted, .. } = hog;
        write!(f, " {verb} worker {worker} of node {node} after {lasted:?}")
    }
}
