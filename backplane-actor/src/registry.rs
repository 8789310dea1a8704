//! One name, one owner; and a name is free as soon as its owner has ended.
//!
//! An entry keeps the [`Line`] of its owner and is nothing once that has ended, whoever has been told of it. So a
//! successor never finds the name taken by its predecessor, and nobody has to clean up: a dead entry is replaced by the
//! next owner of its name, or swept when the table would grow.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, HashMap},
    error::Error,
    fmt,
    future::{self, Future},
    hash::Hash,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
    time::Instant,
};

use backplane::{Device, DeviceId, Line, Runtime};

use crate::{
    actor::{self, Actor},
    address::{Address, WeakAddress},
    keyed::{Few, Hashing, Keyed, Seen},
    mailbox::wake_all,
    options::Options,
    protocol::Envelope,
    sync::{Arc, Mutex, lock},
    system::System,
};

/// Swept when there are so many entries, and then at twice what was left.
const SWEEP_AT: usize = 32;

/// Who owns names, and what is known by them; a value, of which there may be many. Clones are the same registry.
///
/// Names are of a type of their own, `K`. What is kept under one, `V`, is mostly an address; whoever asks gets a clone.
/// Nothing of `K` or `V` runs while a lock is held: neither `Hash` and `Eq` nor `Clone` and `Drop`, so that each may use the
/// registry itself.
///
/// A name has at most one owner. An owner may have many names, unless the registry is made with
/// [`one_name_each`](Registry::one_name_each), which is OTP's rule.
///
/// ```
/// use backplane::{Device, Exit};
/// use backplane_actor::Registry;
///
/// let names = Registry::new();
/// let clock = Device::new();
/// names.register("clock", &clock.line(), 12).unwrap();
/// assert_eq!(names.lookup("clock"), Some(12));
///
/// clock.disconnect(Exit::Normal);
/// assert_eq!(names.lookup("clock"), None);
/// let successor = Device::new();
/// names.register("clock", &successor.line(), 13).unwrap();
/// ```
pub struct Registry<K, V> {
    shared: Arc<Shared<K, V>>,
}

struct Shared<K, V> {
    hashing: Hashing,
    one_name_each: bool,
    state: Mutex<State<K, V>>,
}

struct State<K, V> {
    names: Keyed<K, Kept<V>>,
    /// What each owner is called.
    owners: HashMap<DeviceId, Vec<(u64, Arc<K>)>>,
    sweep_at: usize,
    /// By the hash of the name that they wait for.
    waiters: BTreeMap<(u64, u64), Waker>,
    next_waiter: u64,
}

struct Kept<V> {
    owner: Line,
    value: Arc<V>,
}

/// Whose a name is.
///
/// ```
/// use backplane::Device;
/// use backplane_actor::Registry;
///
/// let (names, clock) = (Registry::new(), Device::new());
/// names.register("clock", &clock.line(), 12).unwrap();
/// let holder = names.holder("clock").unwrap();
/// assert_eq!((holder.owner, holder.value), (clock.line(), 12));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder<V> {
    /// The device with which the entry ends.
    pub owner: Line,
    /// What is kept under the name.
    pub value: V,
}

impl<V> Clone for Kept<V> {
    fn clone(&self) -> Kept<V> {
        Kept { owner: self.owner, value: Arc::clone(&self.value) }
    }
}

impl<V: Clone> Kept<V> {
    /// Runs the user's `Clone`: without a lock.
    fn holder(&self) -> Holder<V> {
        Holder { owner: self.owner, value: (*self.value).clone() }
    }
}

impl<K, V> Clone for Registry<K, V> {
    fn clone(&self) -> Registry<K, V> {
        Registry { shared: Arc::clone(&self.shared) }
    }
}

impl<K, V> Default for Registry<K, V> {
    fn default() -> Registry<K, V> {
        Registry::new()
    }
}

impl<K, V> Registry<K, V> {
    /// A registry with no names in it. An owner may have any number of them.
    ///
    /// ```
    /// use backplane_actor::Registry;
    ///
    /// let names = Registry::<String, u32>::new();
    /// assert_eq!(names.lookup("clock"), None);
    /// ```
    pub fn new() -> Registry<K, V> {
        Registry::with(false)
    }

    /// A registry in which an owner has at most one name, as in OTP.
    ///
    /// ```
    /// use backplane::Device;
    /// use backplane_actor::{RegisterError, Registry};
    ///
    /// let (names, clock) = (Registry::one_name_each(), Device::new());
    /// names.register("clock", &clock.line(), ()).unwrap();
    /// let refused = names.register("watch", &clock.line(), ());
    /// assert!(matches!(refused, Err(RegisterError::Named { name: "watch", .. })));
    /// ```
    pub fn one_name_each() -> Registry<K, V> {
        Registry::with(true)
    }

    fn with(one_name_each: bool) -> Registry<K, V> {
        let state = State {
            names: Keyed::new(),
            owners: HashMap::new(),
            sweep_at: SWEEP_AT,
            waiters: BTreeMap::new(),
            next_waiter: 0,
        };
        let shared = Shared { hashing: Hashing::default(), one_name_each, state: Mutex::new(state) };
        Registry { shared: Arc::new(shared) }
    }

    /// How many names have an owner. Looks at all of them.
    ///
    /// ```
    /// # use backplane::Device;
    /// # use backplane_actor::Registry;
    /// # let (names, clock) = (Registry::new(), Device::new());
    /// names.register("clock", &clock.line(), 12).unwrap();
    /// assert_eq!(names.len(), 1);
    /// drop(clock);
    /// assert_eq!(names.len(), 0);
    /// ```
    pub fn len(&self) -> usize {
        let state = lock(&self.shared.state);
        state.names.iter().filter(|(_, kept)| kept.owner.is_alive()).count()
    }

    /// Whether no name has an owner.
    ///
    /// ```
    /// # use backplane::Device;
    /// # use backplane_actor::Registry;
    /// # let (names, clock) = (Registry::new(), Device::new());
    /// names.register("clock", &clock.line(), 12).unwrap();
    /// assert!(!names.is_empty());
    /// drop(clock);
    /// assert!(names.is_empty());
    /// ```
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many entries there is memory for: those of the living, and of some who have ended since the table was last swept.
    ///
    /// ```
    /// # use backplane::Device;
    /// # use backplane_actor::Registry;
    /// # let (names, clock) = (Registry::new(), Device::new());
    /// names.register("clock", &clock.line(), 12).unwrap();
    /// drop(clock);
    /// assert_eq!((names.len(), names.entries()), (0, 1)); // until the table is swept
    /// ```
    pub fn entries(&self) -> usize {
        lock(&self.shared.state).names.len()
    }
}

impl<K: Hash + Eq, V: Clone> Registry<K, V> {
    /// Gives a name to an owner, who keeps it until it ends, [unregisters](Registry::unregister) or
    /// [transfers](Registry::transfer) it. Whoever waits for the name is told.
    ///
    /// Constant time, amortised.
    ///
    /// # Errors
    ///
    /// If the name has another owner, or the owner a name where it may have but one, or the owner has ended. Name and value
    /// come back.
    ///
    /// ```
    /// use backplane::Device;
    /// use backplane_actor::{RegisterError, Registry};
    ///
    /// let (names, clock, other) = (Registry::new(), Device::new(), Device::new());
    /// names.register("clock", &clock.line(), 12).unwrap();
    /// let refused = names.register("clock", &other.line(), 13).unwrap_err();
    /// assert_eq!(refused.into_inner(), ("clock", 13));
    /// drop(clock); // so the name is free
    /// names.register("clock", &other.line(), 13).unwrap();
    /// # let line = other.line();
    /// # drop(other);
    /// # assert!(matches!(names.register("clock", &line, 13), Err(RegisterError::Ended { .. })));
    /// ```
    pub fn register(&self, name: K, owner: &Line, value: V) -> Result<(), RegisterError<K, V>> {
        let hash = self.shared.hashing.hash(&name);
        loop {
            let seen = self.seek::<K>(hash, &name);
            let mut state = lock(&self.shared.state);
            if !state.names.is_still(&seen) {
                continue;
            }
            let refusal = match state.names.get(&seen) {
                _ if !owner.is_alive() => Some(Refusal::Ended),
                Some(kept) if kept.owner.is_alive() => Some(Refusal::Taken(kept.clone())),
                _ if self.shared.one_name_each && state.owners.contains_key(&owner.id()) => {
                    Some(Refusal::Named)
                }
                _ => None,
            };
            if let Some(refusal) = refusal {
                drop(state);
                return Err(refusal.with(name, value));
            }
            let replaced = seen.name().and_then(|name| state.take(hash, name));
            let swept = state.sweep();
            state.put(hash, Arc::new(name), Kept { owner: *owner, value: Arc::new(value) });
            let waiters = state.waiters_for(hash);
            drop(state);
            drop((replaced, swept));
            wake_all(waiters);
            return Ok(());
        }
    }

    /// What is kept under a name, if it has an owner that lives.
    ///
    /// ```
    /// # use backplane::Device;
    /// # use backplane_actor::Registry;
    /// # let (names, clock) = (Registry::new(), Device::new());
    /// names.register("clock", &clock.line(), 12).unwrap();
    /// assert_eq!(names.lookup("clock"), Some(12));
    /// drop(clock);
    /// assert_eq!(names.lookup("clock"), None);
    /// ```
    pub fn lookup<Q>(&self, name: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.find(name).map(|kept| (*kept.value).clone())
    }

    /// Whose a name is, and what is kept under it.
    ///
    /// ```
    /// # use backplane::Device;
    /// # use backplane_actor::Registry;
    /// # let (names, clock) = (Registry::new(), Device::new());
    /// names.register("clock", &clock.line(), 12).unwrap();
    /// assert_eq!(names.holder("clock").unwrap().owner, clock.line());
    /// assert!(names.holder("watch").is_none());
    /// ```
    pub fn holder<Q>(&self, name: &Q) -> Option<Holder<V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.find(name).map(|kept| kept.holder())
    }

    /// Takes a name from whoever has it. What was kept comes back; `None` if the name was free.
    ///
    /// ```
    /// use backplane::Device;
    /// use backplane_actor::Registry;
    ///
    /// let (names, clock) = (Registry::new(), Device::new());
    /// names.register("clock", &clock.line(), 12).unwrap();
    /// assert_eq!(names.unregister("clock"), Some(12));
    /// assert_eq!(names.unregister("clock"), None);
    /// ```
    pub fn unregister<Q>(&self, name: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.take_from(name, None).ok()
    }

    /// Takes a name from this owner, and from nobody else: what an owner does that must not take the name from its successor.
    ///
    /// # Errors
    ///
    /// If the name is free, or another's.
    ///
    /// ```
    /// use backplane::Device;
    /// use backplane_actor::{Registry, UnregisterError};
    ///
    /// let (names, clock, other) = (Registry::new(), Device::new(), Device::new());
    /// names.register("clock", &clock.line(), 12).unwrap();
    /// let refused = names.unregister_from("clock", &other.line());
    /// assert!(matches!(refused, Err(UnregisterError::Taken(holder)) if holder.value == 12));
    /// assert_eq!(names.unregister_from("clock", &clock.line()), Ok(12));
    /// ```
    pub fn unregister_from<Q>(&self, name: &Q, owner: &Line) -> Result<V, UnregisterError<V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.take_from(name, Some(owner))
    }

    /// Gives the name of one owner to another, in one step: at no moment is it free. What was kept comes back.
    ///
    /// # Errors
    ///
    /// If the name is not `from`'s, or `to` has ended or, where it may have but one, has a name. Then nothing has changed,
    /// and the new value comes back.
    ///
    /// ```
    /// use backplane::Device;
    /// use backplane_actor::Registry;
    ///
    /// let (names, old, new) = (Registry::new(), Device::new(), Device::new());
    /// names.register("clock", &old.line(), 12).unwrap();
    /// assert_eq!(names.transfer("clock", &old.line(), &new.line(), 13), Ok(12));
    /// drop(old);
    /// assert_eq!(names.lookup("clock"), Some(13));
    /// ```
    pub fn transfer<Q>(&self, name: &Q, from: &Line, to: &Line, value: V) -> Result<V, TransferError<V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let hash = self.shared.hashing.hash(name);
        loop {
            let seen = self.seek(hash, name);
            let mut state = lock(&self.shared.state);
            if !state.names.is_still(&seen) {
                continue;
            }
            let elsewhere = to != from && state.owners.contains_key(&to.id());
            let refusal = match state.names.get(&seen) {
                Some(kept) if kept.owner.is_alive() && kept.owner != *from => {
                    Some(Refusal::Taken(kept.clone()))
                }
                Some(kept) if kept.owner.is_alive() && !to.is_alive() => Some(Refusal::Ended),
                Some(kept) if kept.owner.is_alive() && self.shared.one_name_each && elsewhere => {
                    Some(Refusal::Named)
                }
                Some(kept) if kept.owner.is_alive() => None,
                _ => Some(Refusal::Free),
            };
            let taken = match refusal {
                None => seen.name().and_then(|name| state.take(hash, name)),
                Some(_) => None,
            };
            if let Some((name, before)) = taken {
                state.put(hash, name, Kept { owner: *to, value: Arc::new(value) });
                drop(state);
                return Ok(Arc::unwrap_or_clone(before.value));
            }
            drop(state);
            return Err(refusal.unwrap_or(Refusal::Free).with_value(value));
        }
    }

    /// Waits until a name has an owner that lives; at once if it has one. The value of that owner is the output.
    ///
    /// Cancellation-safe: dropped, it waits no more and leaves nothing behind.
    ///
    /// ```
    /// # use std::{pin::pin, future::Future, task::{Context, Poll, Waker}};
    /// use backplane::Device;
    /// use backplane_actor::Registry;
    ///
    /// let (names, clock) = (Registry::new(), Device::new());
    /// let mut waiting = pin!(names.wait_for("clock"));
    /// # let cx = &mut Context::from_waker(Waker::noop());
    /// assert!(waiting.as_mut().poll(cx).is_pending());
    /// names.register("clock", &clock.line(), 12).unwrap();
    /// assert_eq!(waiting.as_mut().poll(cx), Poll::Ready(12));
    /// ```
    pub fn wait_for(&self, name: K) -> WaitFor<K, V> {
        let hash = self.shared.hashing.hash(&name);
        WaitFor { name, place: Place { registry: self.clone(), hash, number: None } }
    }

    /// As [`wait_for`](Registry::wait_for), until `deadline` on this runtime's clock. A name that has an owner is found even if
    /// the deadline is past.
    ///
    /// Cancellation-safe, too.
    ///
    /// # Errors
    ///
    /// If nobody has had the name by then; it comes back.
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # use backplane::Device;
    /// # use backplane_actor::Registry;
    /// # let (names, clock) = (Registry::new(), Device::new());
    /// names.register("clock", &clock.line(), 12).unwrap();
    /// # use backplane::Runtime;
    /// # use backplane_actor::testing::Seeded;
    /// # use std::time::Duration;
    /// use backplane_actor::NotRegistered;
    ///
    /// let runtime = Seeded::new(1);
    /// let noon = runtime.now() + Duration::from_secs(3600);
    /// runtime.run(async {
    ///     assert_eq!(names.wait_until("clock", &runtime, noon).await, Ok(12));
    ///     assert_eq!(names.wait_until("watch", &runtime, noon).await, Err(NotRegistered("watch")));
    /// });
    /// assert_eq!(runtime.now(), noon);
    /// # }
    /// ```
    pub async fn wait_until<R: Runtime>(
        &self,
        name: K,
        runtime: &R,
        deadline: Instant,
    ) -> Result<V, NotRegistered<K>> {
        let mut waiting = self.wait_for(name);
        let mut sleep = pin!(runtime.sleep_until(deadline));
        let found = future::poll_fn(|cx| match Pin::new(&mut waiting).poll(cx) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending => sleep.as_mut().poll(cx).map(|()| None),
        });
        match found.await {
            Some(value) => Ok(value),
            None => Err(NotRegistered(waiting.name)),
        }
    }

    /// What an owner is called. `K: Clone` may be a reference count.
    ///
    /// ```
    /// use backplane::Device;
    /// use backplane_actor::Registry;
    ///
    /// let (names, clock) = (Registry::new(), Device::new());
    /// names.register("clock", &clock.line(), ()).unwrap();
    /// names.register("watch", &clock.line(), ()).unwrap();
    /// assert_eq!(names.names_of(&clock.line()), ["clock", "watch"]);
    /// ```
    pub fn names_of(&self, owner: &Line) -> Vec<K>
    where
        K: Clone,
    {
        if !owner.is_alive() {
            return Vec::new();
        }
        let names = lock(&self.shared.state).owners.get(&owner.id()).cloned().unwrap_or_default();
        names.iter().map(|(_, name)| (**name).clone()).collect()
    }

    /// All names that have an owner, as they were at one moment, in no order.
    ///
    /// ```
    /// # use backplane::Device;
    /// # use backplane_actor::Registry;
    /// # let (names, clock) = (Registry::new(), Device::new());
    /// names.register("clock", &clock.line(), 12).unwrap();
    /// names.register("watch", &clock.line(), 13).unwrap();
    /// let mut all: Vec<_> = names.all().into_iter().map(|(name, holder)| (name, holder.value)).collect();
    /// all.sort();
    /// assert_eq!(all, [("clock", 12), ("watch", 13)]);
    /// ```
    pub fn all(&self) -> Vec<(K, Holder<V>)>
    where
        K: Clone,
    {
        let state = lock(&self.shared.state);
        let alive = state.names.iter().filter(|(_, kept)| kept.owner.is_alive());
        let all: Vec<_> = alive.map(|(name, kept)| (Arc::clone(name), kept.clone())).collect();
        drop(state);
        all.iter().map(|(name, kept)| ((**name).clone(), kept.holder())).collect()
    }

    fn find<Q>(&self, name: &Q) -> Option<Kept<V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let hash = self.shared.hashing.hash(name);
        let here: Few<_> =
            lock(&self.shared.state).names.peek(hash, |name, kept| (Arc::clone(name), kept.clone()));
        let mut here = here.into_iter();
        let (_, kept) = here.find(|(other, _)| (**other).borrow() == name)?;
        kept.owner.is_alive().then_some(kept)
    }

    fn take_from<Q>(&self, name: &Q, owner: Option<&Line>) -> Result<V, UnregisterError<V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let hash = self.shared.hashing.hash(name);
        loop {
            let seen = self.seek(hash, name);
            let mut state = lock(&self.shared.state);
            if !state.names.is_still(&seen) {
                continue;
            }
            let kept = state.names.get(&seen).filter(|kept| kept.owner.is_alive()).cloned();
            let taken = match &kept {
                Some(kept) if owner.is_none_or(|owner| kept.owner == *owner) => {
                    seen.name().and_then(|name| state.take(hash, name))
                }
                _ => None,
            };
            drop(state);
            return match (taken, kept) {
                (Some((_, mine)), kept) => {
                    drop(kept);
                    Ok(Arc::unwrap_or_clone(mine.value))
                }
                (None, Some(kept)) => Err(UnregisterError::Taken(kept.holder())),
                (None, None) => Err(UnregisterError::Free),
            };
        }
    }

    fn seek<Q>(&self, hash: u64, name: &Q) -> Seen<K>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let names = lock(&self.shared.state).names.names(hash);
        Seen::compare(hash, names, name)
    }
}

impl<K, V> State<K, V> {
    fn put(&mut self, hash: u64, name: Arc<K>, kept: Kept<V>) {
        self.owners.entry(kept.owner.id()).or_default().push((hash, Arc::clone(&name)));
        self.names.insert(hash, name, kept);
    }

    fn take(&mut self, hash: u64, name: &Arc<K>) -> Option<(Arc<K>, Kept<V>)> {
        let (name, kept) = self.names.remove(hash, name)?;
        let owner = kept.owner.id();
        if let Some(names) = self.owners.get_mut(&owner) {
            names.retain(|(_, other)| !Arc::ptr_eq(other, &name));
            if names.is_empty() {
                self.owners.remove(&owner);
            }
        }
        Some((name, kept))
    }

    /// Takes out the entries of those who have ended, if there are twice as many entries as the last time.
    fn sweep(&mut self) -> Vec<(Arc<K>, Kept<V>)> {
        if self.names.len() < self.sweep_at {
            return Vec::new();
        }
        let swept = self.names.take_out(|kept| !kept.owner.is_alive());
        for (_, kept) in &swept {
            // All its names go with it. What they held in common is still held by what is returned.
            self.owners.remove(&kept.owner.id());
        }
        self.sweep_at = SWEEP_AT.max(self.names.len() * 2);
        swept
    }

    fn waiters_for(&mut self, hash: u64) -> Vec<Waker> {
        let mut wakers = Vec::new();
        while let Some((&key, _)) = self.waiters.range((hash, 0)..=(hash, u64::MAX)).next() {
            wakers.extend(self.waiters.remove(&key));
        }
        wakers
    }
}

impl<K: Hash + Eq, M> Registry<K, Address<M>> {
    /// Gives a name to the incarnation of an actor that runs; it is free when that ends, so a successor takes the name itself,
    /// in its `init`.
    ///
    /// The registry has an address then, so the actor does not end because nobody else has one. Where it should, keep
    /// [`WeakAddress`]es, with [`register_weak`](Registry::register_weak).
    ///
    /// # Errors
    ///
    /// As [`register`](Registry::register).
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
    /// # use backplane_actor::Registry;
    /// let names = Registry::new();
    /// let counter = system.spawn(count);
    /// names.register_actor("counter", &counter).unwrap();
    /// drop(counter);
    /// let counter = names.lookup("counter").unwrap(); // which the registry has kept alive
    /// assert_eq!(smol::block_on(counter.ask(Count::Get)), Ok(0));
    /// # let _ = Count::Add(1);
    /// # }
    /// ```
    pub fn register_actor(&self, name: K, actor: &Address<M>) -> Result<(), RegisterError<K, Address<M>>> {
        match actor.line() {
            Some(line) => self.register(name, &line, actor.clone()),
            None => Err(RegisterError::Ended { name, value: actor.clone() }),
        }
    }
}

impl<K: Hash + Eq, M> Registry<K, WeakAddress<M>> {
    /// Gives a name to the incarnation of an actor that runs, and does not keep its mailbox alive.
    ///
    /// # Errors
    ///
    /// As [`register`](Registry::register).
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
    /// # use backplane_actor::Registry;
    /// let names = Registry::new();
    /// let counter = system.spawn(count);
    /// names.register_weak("counter", &counter).unwrap();
    /// let weak = names.lookup("counter").unwrap();
    /// assert_eq!(weak.upgrade(), Some(counter.clone()));
    /// drop(counter);
    /// assert!(weak.upgrade().is_none());
    /// # let _ = (Count::Add(1), Count::Get);
    /// # }
    /// ```
    pub fn register_weak(&self, name: K, actor: &Address<M>) -> Result<(), RegisterError<K, WeakAddress<M>>> {
        match actor.line() {
            Some(line) => self.register(name, &line, actor.downgrade()),
            None => Err(RegisterError::Ended { name, value: actor.downgrade() }),
        }
    }
}

impl<R: Runtime> System<R> {
    /// Starts an actor under a name, which it has before its [`init`](Actor::init) runs.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// use backplane_actor::{Actor, Options, Registry, System};
    ///
    /// struct Clock;
    /// impl Actor for Clock {
    ///     type Messages = ();
    ///     type Error = std::convert::Infallible;
    /// }
    ///
    /// let (system, names) = (System::new(Smol::global()), Registry::new());
    /// let clock = system.start_named(&names, "clock", Options::new(), Clock).unwrap();
    /// assert_eq!(names.lookup("clock"), Some(clock.clone()));
    /// let again = system.start_named(&names, "clock", Options::new(), Clock).unwrap_err();
    /// assert_eq!(again.holder.value, clock);
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If the name has another owner: it, the name and the actor come back, and nothing has been started.
    pub fn start_named<K, A>(
        &self,
        names: &Registry<K, Address<Envelope<A>>>,
        name: K,
        options: Options<Envelope<A>>,
        actor: A,
    ) -> Result<Address<Envelope<A>>, AlreadyStarted<K, A>>
    where
        K: Hash + Eq,
        A: Actor,
    {
        let (address, home) = self.prepare(options);
        let device = Device::new();
        match names.register(name, &device.line(), address.clone()) {
            Ok(()) => {}
            Err(RegisterError::Taken { name, holder, .. }) => {
                return Err(AlreadyStarted { name, actor, holder });
            }
            // A device that has just been made lives, and has no name.
            Err(error) => unreachable!("{}", error.words()),
        }
        let run = home.run_reader(device, |reader| actor::serve(actor, reader, || {}));
        drop(home);
        let task = self.runtime().spawn(async move { drop(run.await) });
        self.runtime().detach(task);
        Ok(address)
    }
}

/// The name has an owner; made by [`System::start_named`]. OTP's `already_started`.
///
/// ```
/// # #[cfg(feature = "smol")] {
/// # use backplane::runtime::Smol;
/// # use backplane_actor::System;
/// # let system = System::new(Smol::global());
/// # use backplane_actor::{Actor, Options, Registry};
/// # #[derive(Debug, PartialEq)]
/// # struct Clock(u32);
/// # impl Actor for Clock {
/// #     type Messages = ();
/// #     type Error = std::convert::Infallible;
/// # }
/// let names = Registry::new();
/// let first = system.start_named(&names, "clock", Options::new(), Clock(12)).unwrap();
/// let refused = system.start_named(&names, "clock", Options::new(), Clock(13)).unwrap_err();
/// assert_eq!((refused.name, refused.actor), ("clock", Clock(13)));
/// assert_eq!(refused.holder.value, first); // most want this one then
/// # }
/// ```
pub struct AlreadyStarted<K, A: Actor> {
    /// The name.
    pub name: K,
    /// What was to be started.
    pub actor: A,
    /// Whose the name is.
    pub holder: Holder<Address<Envelope<A>>>,
}

impl<K: fmt::Debug, A: Actor> fmt::Display for AlreadyStarted<K, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is taken by {}", self.name, self.holder.owner.id())
    }
}

impl<K: fmt::Debug, A: Actor> fmt::Debug for AlreadyStarted<K, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlreadyStarted({self})")
    }
}

impl<K: fmt::Debug, A: Actor> Error for AlreadyStarted<K, A> {}

/// Why a name is not given. Turned into an error, which runs the user's `Clone`, when nothing is locked any more.
enum Refusal<V> {
    Taken(Kept<V>),
    Named,
    Ended,
    Free,
}

impl<V: Clone> Refusal<V> {
    fn with<K>(self, name: K, value: V) -> RegisterError<K, V> {
        match self {
            Refusal::Taken(kept) => RegisterError::Taken { name, value, holder: kept.holder() },
            Refusal::Named => RegisterError::Named { name, value },
            Refusal::Ended | Refusal::Free => RegisterError::Ended { name, value },
        }
    }

    fn with_value(self, value: V) -> TransferError<V> {
        match self {
            Refusal::Taken(kept) => TransferError::Taken { value, holder: kept.holder() },
            Refusal::Named => TransferError::Named { value },
            Refusal::Ended => TransferError::Ended { value },
            Refusal::Free => TransferError::Free { value },
        }
    }
}

/// Waits for a name to have an owner; made by [`Registry::wait_for`].
///
/// ```
/// # #[cfg(feature = "smol")] {
/// use backplane::Device;
/// use backplane_actor::Registry;
///
/// let names = Registry::new();
/// let waiting = names.wait_for("clock");
/// let starts = std::thread::spawn({
///     let (names, clock) = (names.clone(), Device::new());
///     move || {
///         names.register("clock", &clock.line(), 12).unwrap();
///         clock
///     }
/// });
/// assert_eq!(smol::block_on(waiting), 12);
/// # drop(starts.join());
/// # }
/// ```
#[must_use = "futures do nothing unless they are awaited"]
pub struct WaitFor<K, V> {
    name: K,
    place: Place<K, V>,
}

/// A place among the waiters.
struct Place<K, V> {
    registry: Registry<K, V>,
    hash: u64,
    /// Under which number it stands there, or stood.
    number: Option<u64>,
}

/// Nothing in it is pinned.
impl<K, V> Unpin for WaitFor<K, V> {}

impl<K: Hash + Eq, V: Clone> Future for WaitFor<K, V> {
    type Output = V;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<V> {
        let WaitFor { name, place } = &mut *self;
        let mut waker = Some(cx.waker().clone());
        loop {
            if let Some(kept) = place.registry.find(name) {
                place.leave();
                return Poll::Ready((*kept.value).clone());
            }
            let seen = place.registry.seek(place.hash, name);
            let mut state = lock(&place.registry.shared.state);
            // Whoever comes from here on finds the waker.
            let taken = state.names.get(&seen).is_some_and(|kept| kept.owner.is_alive());
            if taken || !state.names.is_still(&seen) {
                continue;
            }
            let number = *place.number.get_or_insert_with(|| {
                state.next_waiter += 1;
                state.next_waiter
            });
            let before = waker.take().and_then(|waker| state.waiters.insert((place.hash, number), waker));
            drop(state);
            drop(before);
            return Poll::Pending;
        }
    }
}

impl<K, V> Place<K, V> {
    fn leave(&mut self) {
        if let Some(number) = self.number.take() {
            let waker = lock(&self.registry.shared.state).waiters.remove(&(self.hash, number));
            drop(waker);
        }
    }
}

impl<K, V> Drop for Place<K, V> {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Why [`Registry::register`] did not give a name. Name and value come back.
///
/// ```
/// use backplane::Device;
/// use backplane_actor::{RegisterError, Registry};
///
/// let (names, clock, other) = (Registry::one_name_each(), Device::new(), Device::new());
/// names.register("clock", &clock.line(), 12).unwrap();
/// match names.register("clock", &other.line(), 13) {
///     Err(RegisterError::Taken { value, holder, .. }) => assert_eq!((value, holder.value), (13, 12)),
///     other => panic!("{other:?}"),
/// }
/// let refused = names.register("watch", &clock.line(), 14);
/// assert!(matches!(refused, Err(RegisterError::Named { name: "watch", value: 14 })));
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegisterError<K, V> {
    /// It has an owner.
    Taken {
        /// The name.
        name: K,
        /// What was to be kept under it.
        value: V,
        /// Whose it is.
        holder: Holder<V>,
    },
    /// The owner has a name, and may have but one.
    Named {
        /// The name.
        name: K,
        /// What was to be kept under it.
        value: V,
    },
    /// The owner has ended.
    Ended {
        /// The name.
        name: K,
        /// What was to be kept under it.
        value: V,
    },
}

impl<K, V> RegisterError<K, V> {
    /// What was passed in.
    ///
    /// ```
    /// # use backplane::Device;
    /// # use backplane_actor::Registry;
    /// # let (names, clock) = (Registry::new(), Device::new());
    /// names.register("clock", &clock.line(), 12).unwrap();
    /// let refused = names.register("clock", &Device::new().line(), 13).unwrap_err();
    /// assert_eq!(refused.into_inner(), ("clock", 13));
    /// ```
    pub fn into_inner(self) -> (K, V) {
        match self {
            RegisterError::Taken { name, value, .. }
            | RegisterError::Named { name, value }
            | RegisterError::Ended { name, value } => (name, value),
        }
    }

    /// Why, without the name.
    fn words(&self) -> &'static str {
        match self {
            RegisterError::Taken { .. } => "the name is taken",
            RegisterError::Named { .. } => "it has a name",
            RegisterError::Ended { .. } => "it has ended",
        }
    }

    /// Whose the name is, if that is why.
    ///
    /// ```
    /// # use backplane::Device;
    /// # use backplane_actor::Registry;
    /// # let (names, clock) = (Registry::new(), Device::new());
    /// names.register("clock", &clock.line(), 12).unwrap();
    /// let other = Device::new();
    /// let refused = names.register("clock", &other.line(), 13).unwrap_err();
    /// assert_eq!(refused.holder().map(|holder| holder.value), Some(12));
    /// ```
    pub fn holder(&self) -> Option<&Holder<V>> {
        match self {
            RegisterError::Taken { holder, .. } => Some(holder),
            RegisterError::Named { .. } | RegisterError::Ended { .. } => None,
        }
    }
}

impl<K: fmt::Debug, V> fmt::Display for RegisterError<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RegisterError::Taken { name, holder, .. } => {
                write!(f, "{name:?} is taken by {}", holder.owner.id())
            }
            RegisterError::Named { name, .. } => write!(f, "not named {name:?}, for it has a name"),
            RegisterError::Ended { name, .. } => write!(f, "not named {name:?}, for it has ended"),
        }
    }
}

impl<K: fmt::Debug, V> fmt::Debug for RegisterError<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RegisterError({self})")
    }
}

impl<K: fmt::Debug, V> Error for RegisterError<K, V> {}

/// Why [`Registry::transfer`] left a name where it was. The new value comes back.
///
/// ```
/// use backplane::Device;
/// use backplane_actor::{Registry, TransferError};
///
/// let (names, old, new) = (Registry::new(), Device::new(), Device::new());
/// let refused = names.transfer("clock", &old.line(), &new.line(), 13);
/// assert_eq!(refused, Err(TransferError::Free { value: 13 }));
/// names.register("clock", &new.line(), 12).unwrap();
/// match names.transfer("clock", &old.line(), &new.line(), 13) {
///     Err(TransferError::Taken { value, holder }) => assert_eq!((value, holder.owner), (13, new.line())),
///     other => panic!("{other:?}"),
/// }
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransferError<V> {
    /// It is another's.
    Taken {
        /// What was to be kept under it.
        value: V,
        /// Whose it is.
        holder: Holder<V>,
    },
    /// Whoever should get it has a name, and may have but one.
    Named {
        /// What was to be kept under it.
        value: V,
    },
    /// Whoever should get it has ended.
    Ended {
        /// What was to be kept under it.
        value: V,
    },
    /// It is nobody's.
    Free {
        /// What was to be kept under it.
        value: V,
    },
}

impl<V> TransferError<V> {
    /// What was passed in.
    ///
    /// ```
    /// # use backplane::Device;
    /// # use backplane_actor::Registry;
    /// # let (names, clock) = (Registry::new(), Device::new());
    /// names.register("clock", &clock.line(), 12).unwrap();
    /// let (other, third) = (Device::new(), Device::new());
    /// let refused = names.transfer("clock", &other.line(), &third.line(), 13).unwrap_err();
    /// assert_eq!(refused.into_inner(), 13);
    /// ```
    pub fn into_inner(self) -> V {
        match self {
            TransferError::Taken { value, .. }
            | TransferError::Named { value }
            | TransferError::Ended { value }
            | TransferError::Free { value } => value,
        }
    }
}

impl<V> fmt::Display for TransferError<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TransferError::Taken { holder, .. } => write!(f, "the name is {}'s", holder.owner.id()),
            TransferError::Named { .. } => f.write_str("whoever should get the name has one"),
            TransferError::Ended { .. } => f.write_str("whoever should get the name has ended"),
            TransferError::Free { .. } => f.write_str("the name is nobody's"),
        }
    }
}

impl<V> fmt::Debug for TransferError<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TransferError({self})")
    }
}

impl<V> Error for TransferError<V> {}

/// Why [`Registry::unregister_from`] took no name.
///
/// ```
/// use backplane::Device;
/// use backplane_actor::{Registry, UnregisterError};
///
/// let (names, clock, other) = (Registry::new(), Device::new(), Device::new());
/// assert_eq!(names.unregister_from("clock", &other.line()), Err(UnregisterError::Free));
/// names.register("clock", &clock.line(), 12).unwrap();
/// match names.unregister_from("clock", &other.line()) {
///     Err(UnregisterError::Taken(holder)) => assert_eq!(holder.owner, clock.line()),
///     other => panic!("{other:?}"),
/// }
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnregisterError<V> {
    /// It is another's.
    Taken(Holder<V>),
    /// It is nobody's.
    Free,
}

impl<V> fmt::Display for UnregisterError<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UnregisterError::Taken(holder) => write!(f, "the name is {}'s", holder.owner.id()),
            UnregisterError::Free => f.write_str("the name is nobody's"),
        }
    }
}

impl<V> fmt::Debug for UnregisterError<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UnregisterError({self})")
    }
}

impl<V> Error for UnregisterError<V> {}

/// Nobody had the name in time; made by [`Registry::wait_until`].
///
/// ```
/// # #[cfg(feature = "testing")] {
/// use backplane::Runtime;
/// use backplane_actor::{NotRegistered, Registry, testing::Seeded};
///
/// let (runtime, names) = (Seeded::new(1), Registry::<&str, u32>::new());
/// let refused = runtime.run(names.wait_until("clock", &runtime, runtime.now())).unwrap_err();
/// assert_eq!(refused.to_string(), "nobody was named \"clock\" in time");
/// let NotRegistered(name) = refused;
/// assert_eq!(name, "clock");
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotRegistered<K>(
    /// The name.
    pub K,
);

impl<K: fmt::Debug> fmt::Display for NotRegistered<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nobody was named {:?} in time", self.0)
    }
}

impl<K: fmt::Debug> Error for NotRegistered<K> {}

impl<K, V> fmt::Debug for Registry<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("entries", &self.entries()).finish_non_exhaustive()
    }
}

impl<K: fmt::Debug, V> fmt::Debug for WaitFor<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitFor").field("name", &self.name).finish_non_exhaustive()
    }
}
