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
/// Calls are sent when the set is first polled; where one of them fails at once, those behind it at the next poll. Dropping
/// the set, or [`clear`](Pending::clear), cancels those that have not been handled. `K` says which is which.
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
///
/// ```
/// # #[cfg(feature = "smol")] {
/// use backplane_actor::{CallError, Pending};
/// use std::future::ready;
///
/// let mut pending = Pending::new();
/// pending.add("ann", ready(Ok(12)));
/// pending.add("bob", ready(Err(CallError::Gone)));
/// let missed = smol::block_on(pending.quorum(2)).unwrap_err();
/// assert_eq!(missed.answers, [("ann", 12)]);
/// assert_eq!(missed.errors, [("bob", CallError::Gone)]);
/// assert_eq!(missed.to_string(), "no quorum: 1 answered and 1 failed");
/// # }
/// ```
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
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane_actor::{CallError, Pending};
    /// # use std::future::Ready;
    /// let mut pending = Pending::<&str, Ready<Result<u64, CallError>>>::new();
    /// assert_eq!(smol::block_on(pending.next_answer()), None);
    /// # }
    /// ```
    pub fn new() -> Pending<K, F> {
        Pending { calls: Vec::new(), next: 0 }
    }

    /// Adds a call.
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
    /// # use backplane_actor::Pending;
    /// let counters = [system.spawn(count), system.spawn(count)];
    /// let mut pending = Pending::new();
    /// for (index, counter) in counters.iter().enumerate() {
    ///     pending.add(index, counter.ask(Count::Get));
    /// }
    /// assert_eq!(smol::block_on(pending.all()).len(), 2);
    /// # let _ = Count::Add(1);
    /// # }
    /// ```
    pub fn add(&mut self, key: K, call: F) {
        self.calls.push((key, call));
    }

    /// How many are open.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane_actor::Pending;
    /// # use std::future::ready;
    /// # let mut pending = Pending::new();
    /// pending.add("ann", ready(Ok(12)));
    /// pending.add("bob", ready(Ok(13)));
    /// assert_eq!(pending.len(), 2);
    /// # let answer =
    /// smol::block_on(pending.next_answer());
    /// # assert!(answer.is_some());
    /// assert_eq!(pending.len(), 1);
    /// # }
    /// ```
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// Whether none is.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane_actor::Pending;
    /// # use std::future::ready;
    /// # let mut pending = Pending::new();
    /// assert!(pending.is_empty());
    /// pending.add("ann", ready(Ok(12)));
    /// assert!(!pending.is_empty());
    /// # smol::block_on(pending.all());
    /// # }
    /// ```
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Cancels all that are open.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane::{Device, Exit};
    /// # use backplane_actor::{Options, Pending, Reply};
    /// let (address, home) = system.prepare::<Reply<u64>>(Options::new());
    /// let mut pending = Pending::new();
    /// pending.add((), address.ask(|reply| reply));
    /// let answer = smol::block_on(smol::future::poll_once(pending.next_answer()));
    /// assert!(answer.is_none() && address.load().normal == 1); // it is on its way
    /// pending.clear();
    /// let exit = smol::block_on(home.run(Device::new(), |mut mailbox| async move {
    ///     assert!(mailbox.try_receive().is_none()); // and is not handled any more
    /// }));
    /// assert_eq!(exit, Exit::Normal);
    /// # }
    /// ```
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
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane_actor::{CallError, Pending};
    /// # use std::future::ready;
    /// # let mut pending = Pending::new();
    /// pending.add("ann", ready(Ok(12)));
    /// pending.add("bob", ready(Err(CallError::Gone)));
    /// smol::block_on(async {
    ///     assert_eq!(pending.next_answer().await, Some(("ann", Ok(12))));
    ///     assert_eq!(pending.next_answer().await, Some(("bob", Err(CallError::Gone))));
    ///     assert_eq!(pending.next_answer().await, None);
    /// });
    /// # }
    /// ```
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
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane_actor::{CallError, Pending};
    /// # use std::future::ready;
    /// # let mut pending = Pending::new();
    /// pending.add("ann", ready(Ok(12)));
    /// pending.add("bob", ready(Err(CallError::Gone)));
    /// pending.add("carl", ready(Ok(12)));
    /// let mut answers = smol::block_on(pending.quorum(2)).unwrap();
    /// answers.sort();
    /// assert_eq!(answers, [("ann", 12), ("carl", 12)]);
    /// # }
    /// ```
    pub async fn quorum(mut self, n: usize) -> Result<Vec<(K, T)>, NoQuorum<K, T>> {
        let (mut answers, mut errors) = (Vec::with_capacity(n.min(self.calls.len())), Vec::new());
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
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane_actor::Pending;
    /// # use std::{future::pending as never, pin::Pin, future::Future, future::ready};
    /// # type Boxed = Pin<Box<dyn Future<Output = Result<u64, backplane_actor::CallError>>>>;
    /// # let (never, ready): (Boxed, Boxed) = (Box::pin(never()), Box::pin(ready(Ok(12))));
    /// let mut pending = Pending::new();
    /// pending.add("slow", never);
    /// pending.add("fast", ready);
    /// assert_eq!(smol::block_on(pending.first()), Ok(("fast", 12)));
    /// # }
    /// ```
    pub async fn first(self) -> Result<(K, T), NoQuorum<K, T>> {
        let mut answers = self.quorum(1).await?;
        match answers.pop() {
            Some(answer) => Ok(answer),
            None => Err(NoQuorum { answers, errors: Vec::new() }),
        }
    }

    /// All, as they come: answers and errors.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane_actor::{CallError, Pending};
    /// # use std::future::ready;
    /// # let mut pending = Pending::new();
    /// pending.add("ann", ready(Ok(12)));
    /// pending.add("bob", ready(Err(CallError::Gone)));
    /// let all = smol::block_on(pending.all());
    /// assert_eq!(all, [("ann", Ok(12)), ("bob", Err(CallError::Gone))]);
    /// # }
    /// ```
    pub async fn all(mut self) -> Vec<(K, Result<T, CallError>)> {
        let mut all = Vec::with_capacity(self.calls.len());
        while let Some(next) = self.next_answer().await {
            all.push(next);
        }
        all
    }
}
