//! Many calls at once.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll},
};

use crate::call::CallError;

/// A set of calls, or of any futures that answer like one: the first, so many, a quorum, all. OTP's `reqids`.
///
/// Calls are sent when the set is first polled. Dropping the set, or [`clear`](Pending::clear), cancels those that have
/// not been handled. `K` says which is which.
///
/// ```
/// # #[cfg(feature = "smol")] {
/// use backplane::runtime::Smol;
/// use backplane_actor::{Mailbox, Pending, Reply, System};
///
/// async fn double(mut mailbox: Mailbox<(u64, Reply<u64>)>) {
///     while let Some((n, reply)) = mailbox.receive().await {
///         reply.send(2 * n);
///     }
/// }
///
/// let system = System::new(Smol::global());
/// let doubles: Vec<_> = (0..5).map(|_| system.spawn(double)).collect();
/// smol::block_on(async {
///     let mut pending = Pending::new();
///     for (n, address) in doubles.iter().enumerate() {
///         pending.add(n, address.ask(|reply| (n as u64, reply)));
///     }
///     let three = pending.quorum(3).await.unwrap();
///     assert!(three.iter().all(|(n, twice)| *twice == 2 * *n as u64));
/// });
/// # }
/// ```
pub struct Pending<K, F> {
    calls: Vec<(K, F)>,
    /// Where to go on, so that no call is always asked first.
    next: usize,
}

/// A quorum that cannot be reached any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoQuorum<K, T> {
    /// Those that answered.
    pub answers: Vec<(K, T)>,
    /// Those that failed.
    pub errors: Vec<(K, CallError)>,
}

impl<K: fmt::Debug, T: fmt::Debug> std::error::Error for NoQuorum<K, T> {}

impl<K, T> fmt::Display for NoQuorum<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no quorum: {} answered and {} failed", self.answers.len(), self.errors.len())
    }
}

impl<K, F> Default for Pending<K, F> {
    fn default() -> Pending<K, F> {
        Pending::new()
    }
}

impl<K, F> fmt::Debug for Pending<K, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("calls", &self.calls.len()).finish()
    }
}

impl<K, F> Pending<K, F> {
    /// No calls yet.
    pub fn new() -> Pending<K, F> {
        Pending { calls: Vec::new(), next: 0 }
    }

    /// Adds a call.
    pub fn add(&mut self, key: K, call: F) {
        self.calls.push((key, call));
    }

    /// How many are open.
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Cancels all that are open.
    pub fn clear(&mut self) {
        self.calls.clear();
    }
}

impl<K, T, F> Pending<K, F>
where
    F: Future<Output = Result<T, CallError>> + Unpin,
{
    /// The next that is answered, or fails; `None` when none is open. Each poll looks at all that are open.
    ///
    /// Cancellation-safe: an answer is taken only when it is returned.
    pub fn next_answer(&mut self) -> impl Future<Output = Option<(K, Result<T, CallError>)>> {
        poll_fn(|cx| self.poll_next(cx))
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<(K, Result<T, CallError>)>> {
        let len = self.calls.len();
        if len == 0 {
            return Poll::Ready(None);
        }
        let mut ready = None;
        // All of them, so that all are sent; the first that is ready is returned.
        for step in 0..len {
            let index = (self.next + step) % len;
            if let Poll::Ready(result) = Pin::new(&mut self.calls[index].1).poll(cx) {
                ready = Some((index, result));
                break;
            }
        }
        match ready {
            None => Poll::Pending,
            Some((index, result)) => {
                let (key, call) = self.calls.swap_remove(index);
                drop(call);
                self.next = index;
                Poll::Ready(Some((key, result)))
            }
        }
    }

    /// The first `n` that are answered. The others are cancelled.
    ///
    /// # Errors
    ///
    /// As soon as so many have failed that `n` cannot be reached, what there is.
    pub async fn quorum(mut self, n: usize) -> Result<Vec<(K, T)>, NoQuorum<K, T>> {
        let (mut answers, mut errors) = (Vec::with_capacity(n), Vec::new());
        while answers.len() < n {
            if answers.len() + self.calls.len() < n {
                return Err(NoQuorum { answers, errors });
            }
            match self.next_answer().await {
                Some((key, Ok(value))) => answers.push((key, value)),
                Some((key, Err(error))) => errors.push((key, error)),
                None => return Err(NoQuorum { answers, errors }),
            }
        }
        Ok(answers)
    }

    /// The first that is answered; as a quorum of one.
    ///
    /// # Errors
    ///
    /// If none is.
    pub async fn first(self) -> Result<(K, T), NoQuorum<K, T>> {
        let mut answers = self.quorum(1).await?;
        match answers.pop() {
            Some(answer) => Ok(answer),
            None => Err(NoQuorum { answers, errors: Vec::new() }),
        }
    }

    /// All, as they come: answers and errors.
    pub async fn all(mut self) -> Vec<(K, Result<T, CallError>)> {
        let mut all = Vec::with_capacity(self.calls.len());
        while let Some(next) = self.next_answer().await {
            all.push(next);
        }
        all
    }
}
