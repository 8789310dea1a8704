//! What a spawn gives: a task that is cancelled with its handle, and whose panic is a value.

use std::{
    cell::Cell,
    error::Error,
    fmt,
    future::Future,
    num::NonZeroU32,
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll, ready},
};

use async_task::FallibleTask;
use backplane::Panic;
use pin_project_lite::pin_project;

use crate::{
    domain::{DomainId, Polled, with_worker},
    registry::{Key, Site},
};

/// What a task's scheduler knows about it. It is part of each task's memory, and where that is small an allocator is quick with it:
/// glibc's hands up to 120 bytes from one thread to another without a lock.
#[derive(Debug)]
pub(crate) struct Meta {
    /// Where it is written down, if it was from the start, as a word; else zero, and [`Polled::LATER`] once it has had a turn.
    known: AtomicU64,
    pub(crate) site: Site,
    /// The one worker of the domain that may run it.
    pub(crate) pinned: Option<Pinned>,
    /// The domain where it is scheduled.
    pub(crate) home: DomainId,
}

impl Meta {
    pub(crate) fn new(key: Option<Key>, site: Site, pinned: Option<Pinned>, home: DomainId) -> Meta {
        Meta { known: key.map_or(0, Key::to_word).into(), site, pinned, home }
    }

    /// What is going to be polled, or dropped.
    #[inline]
    pub(crate) fn polled(&self) -> Polled {
        Polled::new(self.known.load(Ordering::Relaxed), self.site)
    }

    /// As [`polled`](Meta::polled), at the beginning of a poll.
    #[inline]
    pub(crate) fn begin_poll(&self) -> Polled {
        let polled = self.polled();
        if polled.is_first() {
            // Nobody else has the task now.
            self.known.store(Polled::LATER, Ordering::Relaxed);
        }
        polled
    }
}

const _: () =
    assert!(size_of::<Meta>() <= 32 && size_of::<Outcome<u64>>() <= 16, "every task has room for both");

/// A worker's place among those of its domain, in half a word whether there is one or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pinned(NonZeroU32);

impl Pinned {
    /// Nobody, if it is beyond all limits.
    pub(crate) fn to(worker: usize) -> Option<Pinned> {
        u32::try_from(worker).ok()?.checked_add(1).and_then(NonZeroU32::new).map(Pinned)
    }

    pub(crate) fn worker(self) -> usize {
        self.0.get() as usize - 1
    }
}

pub(crate) type Runnable = async_task::Runnable<Meta>;

/// A task of a pool.
///
/// Dropping it cancels the task: its future is dropped on a thread of its pool, at once or as soon as it is not running.
/// [`detach`](Task::detach) lets it run on. Awaiting it gives what the future returned, or how it ended without.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = backplane_pool::Pool::builder().workers(1).build()?;
/// let three = pool.spawn(async { 1 + 2 });
/// assert_eq!(pool.block_on(three)?, 3);
/// # Ok(())
/// # }
/// ```
#[must_use = "a task is cancelled when it is dropped; `detach` lets it run on"]
pub struct Task<T> {
    inner: Inner<T>,
}

enum Inner<T> {
    Pool(FallibleTask<Outcome<T>, Meta>),
    Blocking(FallibleTask<Outcome<T>>),
}

/// How a task ended without a value.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use backplane_pool::{JoinError, Pool};
/// let pool = Pool::builder().workers(1).build()?;
/// let zero = std::hint::black_box(0);
/// let broken = pool.spawn(async move { 1 / zero });
/// let error = pool.block_on(broken).unwrap_err();
/// assert_eq!(error.to_string(), "the task panicked: attempt to divide by zero");
///
/// let (handle, patient) = (pool.handle(), pool.spawn(std::future::pending::<()>()));
/// drop(pool);
/// assert!(matches!(handle.block_on(patient), Err(JoinError::Cancelled)));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum JoinError {
    /// It panicked.
    Panicked(Panic),
    /// It was dropped before it was done: its pool has shut down, or was about to when it was spawned.
    Cancelled,
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JoinError::Panicked(panic) => write!(f, "the task {panic}"),
            JoinError::Cancelled => f.write_str("the task was cancelled"),
        }
    }
}

impl Error for JoinError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            JoinError::Panicked(panic) => Some(panic),
            JoinError::Cancelled => None,
        }
    }
}

impl<T> Task<T> {
    pub(crate) fn new(task: async_task::Task<Outcome<T>, Meta>) -> Task<T> {
        Task { inner: Inner::Pool(task.fallible()) }
    }

    pub(crate) fn blocking(task: async_task::Task<Outcome<T>>) -> Task<T> {
        Task { inner: Inner::Blocking(task.fallible()) }
    }

    /// Lets the task run on without its handle. What it returns is dropped.
    ///
    /// ```
    /// # let pool = backplane_pool::Pool::builder().workers(1).build().unwrap();
    /// let (send, receive) = std::sync::mpsc::channel();
    /// pool.spawn(async move { send.send("ran on").unwrap() }).detach();
    /// assert_eq!(receive.recv(), Ok("ran on"));
    /// ```
    pub fn detach(self) {
        match self.inner {
            Inner::Pool(task) => task.detach(),
            Inner::Blocking(task) => task.detach(),
        }
    }

    /// Cancels the task and waits until its future is gone. `None` if it had not ended by itself.
    ///
    /// A future that is being polled is dropped after that poll. Giving up this wait does not give up the cancellation.
    ///
    /// ```
    /// # let pool = backplane_pool::Pool::builder().workers(1).build().unwrap();
    /// let task = pool.spawn(std::future::pending::<()>());
    /// assert!(pool.block_on(task.cancel()).is_none());
    /// ```
    pub async fn cancel(self) -> Option<Result<T, Panic>> {
        let outcome = match self.inner {
            Inner::Pool(task) => task.cancel().await,
            Inner::Blocking(task) => task.cancel().await,
        };
        outcome?.take()
    }

    /// Whether it has ended, or its cancellation is on its way.
    ///
    /// ```
    /// # let pool = backplane_pool::Pool::builder().workers(1).build().unwrap();
    /// let patient = pool.spawn(std::future::pending::<()>());
    /// let quick = pool.spawn(async { 1 + 2 });
    /// while !quick.is_finished() {} // it will be, whoever awaits it or not
    /// assert!(!patient.is_finished());
    /// ```
    pub fn is_finished(&self) -> bool {
        match &self.inner {
            Inner::Pool(task) => task.is_finished(),
            Inner::Blocking(task) => task.is_finished(),
        }
    }
}

impl<T> Future for Task<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let ended = match &mut self.inner {
            Inner::Pool(task) => Pin::new(task).poll(cx),
            Inner::Blocking(task) => Pin::new(task).poll(cx),
        };
        Poll::Ready(match ready!(ended).and_then(Outcome::take) {
            Some(Ok(value)) => Ok(value),
            Some(Err(panic)) => Err(JoinError::Panicked(panic)),
            None => Err(JoinError::Cancelled),
        })
    }
}

impl<T> fmt::Debug for Task<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").field("is_finished", &self.is_finished()).finish()
    }
}

/// What a task has come to. A value that panics when nobody takes it and it is dropped takes nobody along.
///
/// A panic is in a box: a task has room for its outcome from the start, and most come to a value.
pub(crate) struct Outcome<T>(Option<Result<T, Box<Panic>>>);

impl<T> Outcome<T> {
    pub(crate) fn new(ended: Result<T, Panic>) -> Outcome<T> {
        Outcome(Some(ended.map_err(Box::new)))
    }

    fn take(mut self) -> Option<Result<T, Panic>> {
        self.0.take().map(|ended| ended.map_err(|panic| *panic))
    }
}

impl<T> Drop for Outcome<T> {
    fn drop(&mut self) {
        if let Some(untaken) = self.0.take() {
            quietly(|| drop(untaken));
        }
    }
}

/// A closure that is called once, or never. A panic in its destructor takes nobody along.
pub(crate) struct Errand<F>(Option<F>);

impl<F> Errand<F> {
    pub(crate) fn new(f: F) -> Errand<F> {
        Errand(Some(f))
    }

    pub(crate) fn run<T>(mut self) -> Outcome<T>
    where
        F: FnOnce() -> T,
    {
        Outcome(self.0.take().map(|f| backplane::catch(f).map_err(Box::new)))
    }
}

impl<F> Drop for Errand<F> {
    fn drop(&mut self) {
        if let Some(never_called) = self.0.take() {
            quietly(|| drop(never_called));
        }
    }
}

/// What has happened on this thread since its worker last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Since {
    /// A task's future has gone: where it was written down, as a word; one, if nowhere; zero, if none has gone.
    ended: u64,
    /// A panic was nobody's: that of a destructor.
    pub(crate) lost: bool,
}

impl Since {
    #[inline]
    pub(crate) fn has_ended(self) -> bool {
        self.ended > 0
    }

    /// Where the one that has gone was written down.
    #[inline]
    pub(crate) fn key(self) -> Option<Key> {
        Key::from_word(self.ended)
    }
}

thread_local! {
    static SINCE: Cell<Since> = const { Cell::new(Since { ended: 0, lost: false }) };
    /// What is dropped here is no task.
    static UNTOLD: Cell<bool> = const { Cell::new(false) };
}

/// What has happened since this was last asked. Whoever ran or dropped a task on this thread asks.
#[inline]
pub(crate) fn since() -> Since {
    SINCE.take()
}

/// Drops what may hold the future of a task that was never registered: nobody has to be told of that one's end. A panic in its
/// destructor is nobody's.
pub(crate) fn drop_untold<T>(untold: T) {
    let (before, outer) = (since(), UNTOLD.replace(true));
    drop(backplane::catch(|| drop(untold)));
    UNTOLD.set(outer);
    SINCE.set(before);
}

/// While it is there, what is dropped on this thread are tasks again: a destructor that blocks runs others meanwhile.
pub(crate) struct Told {
    untold: bool,
}

impl Told {
    pub(crate) fn new() -> Told {
        Told { untold: UNTOLD.replace(false) }
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        UNTOLD.set(self.untold);
    }
}

/// Lets a panic be nobody's: async-task would end the process rather than drop with one.
fn quietly(f: impl FnOnce()) {
    if backplane::catch(f).is_err() {
        SINCE.set(Since { lost: true, ..SINCE.get() });
    }
}

pin_project! {
    /// A task's future: a panic in it, or in its destructor, is a value.
    pub(crate) struct Job<F> {
        #[pin]
        future: Option<F>,
        key: Option<Key>,
    }

    impl<F> PinnedDrop for Job<F> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            let mut future = this.future;
            if future.is_some() {
                quietly(|| future.set(None));
            }
            SINCE.set(Since { ended: this.key.map_or(1, Key::to_word), ..SINCE.get() });
            // Before its awaiter hears of it: who then asks how many are left is not told of this one.
            if !UNTOLD.get() {
                let key = *this.key;
                with_worker(|local| local.gone(key));
            }
        }
    }
}

impl<F> Job<F> {
    pub(crate) fn new(future: F, key: Option<Key>) -> Job<F> {
        Job { future: Some(future), key }
    }
}

impl<F: Future> Future for Job<F> {
    type Output = Outcome<F::Output>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut future = this.future;
        let polled = backplane::catch(|| {
            let Some(running) = future.as_mut().as_pin_mut() else { return Poll::Pending };
            let value = ready!(running.poll(cx));
            future.set(None);
            Poll::Ready(value)
        });
        match polled {
            Ok(Poll::Pending) => {
                // It waits, so it is written down.
                if this.key.is_none() {
                    *this.key = with_worker(|local| local.write_down(cx.waker())).flatten();
                }
                Poll::Pending
            }
            Ok(Poll::Ready(value)) => Poll::Ready(Outcome::new(Ok(value))),
            Err(panic) => {
                // The first panic is the one to tell of.
                quietly(|| future.set(None));
                Poll::Ready(Outcome::new(Err(panic)))
            }
        }
    }
}
