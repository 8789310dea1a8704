//! One name, many owners; and something that is done for each.

use std::{borrow::Borrow, fmt, hash::Hash};

use backplane::Line;

use crate::{
    keyed::{Hashing, Seen},
    lists::{Left, Lists, Member, Members, OwnerEnded},
    sync::{Arc, Mutex, lock},
};

const SWEEP_AT: usize = 32;

/// Who stands under a name, which may be many; Elixir's `Registry` with duplicate keys. Clones are the same registry.
///
/// As in a [`Registry`](crate::Registry), an entry is nothing once its owner has ended, and nothing of `K` or `V` runs while
/// a lock is held. An owner may stand under many names, and under one name more than once. Who wants to hear of comings and
/// goings has [`Groups`](crate::Groups).
///
/// ```
/// use backplane::{Device, Exit};
/// use backplane_actor::DuplicateRegistry;
///
/// let topics = DuplicateRegistry::new();
/// let (ann, bob) = (Device::new(), Device::new());
/// topics.register("news", &ann.line(), "ann").unwrap();
/// topics.register("news", &bob.line(), "bob").unwrap();
///
/// let mut told = Vec::new();
/// assert_eq!(topics.dispatch("news", |member| told.push(member.value)), 2);
/// assert_eq!(told, ["ann", "bob"]);
///
/// ann.disconnect(Exit::Normal);
/// assert_eq!(topics.dispatch("news", |member| assert_eq!(member.value, "bob")), 1);
/// ```
pub struct DuplicateRegistry<K, V> {
    shared: Arc<Shared<K, V>>,
}

struct Shared<K, V> {
    hashing: Hashing,
    state: Mutex<State<K, V>>,
}

struct State<K, V> {
    lists: Lists<K, V>,
    sweep_at: usize,
}

impl<K, V> Clone for DuplicateRegistry<K, V> {
    fn clone(&self) -> DuplicateRegistry<K, V> {
        DuplicateRegistry { shared: Arc::clone(&self.shared) }
    }
}

impl<K, V> Default for DuplicateRegistry<K, V> {
    fn default() -> DuplicateRegistry<K, V> {
        DuplicateRegistry::new()
    }
}

impl<K, V> DuplicateRegistry<K, V> {
    /// A registry with no names in it.
    ///
    /// ```
    /// use backplane_actor::DuplicateRegistry;
    ///
    /// let topics = DuplicateRegistry::<&str, u32>::new();
    /// assert!(topics.lookup("news").is_empty());
    /// ```
    pub fn new() -> DuplicateRegistry<K, V> {
        let state = Mutex::new(State { lists: Lists::new(), sweep_at: SWEEP_AT });
        DuplicateRegistry { shared: Arc::new(Shared { hashing: Hashing::default(), state }) }
    }

    /// How many entries there is memory for: those of the living, and of some who have ended since the table was last swept.
    ///
    /// ```
    /// # use backplane::Device;
    /// # use backplane_actor::DuplicateRegistry;
    /// # let (topics, ann, bob) = (DuplicateRegistry::new(), Device::new(), Device::new());
    /// # topics.register("news", &ann.line(), "ann").unwrap();
    /// # topics.register("news", &bob.line(), "bob").unwrap();
    /// drop(bob);
    /// assert_eq!(topics.lookup("news").len(), 1);
    /// assert_eq!(topics.entries(), 2); // until the table is swept
    /// ```
    pub fn entries(&self) -> usize {
        lock(&self.shared.state).lists.len()
    }
}

impl<K: Hash + Eq, V> DuplicateRegistry<K, V> {
    /// Puts an owner under a name, behind all who stand there.
    ///
    /// # Errors
    ///
    /// If the owner has ended. Name and value come back.
    ///
    /// ```
    /// use backplane::Device;
    /// use backplane_actor::DuplicateRegistry;
    ///
    /// let (topics, ann) = (DuplicateRegistry::new(), Device::new());
    /// let line = ann.line();
    /// topics.register("news", &line, "ann").unwrap();
    /// topics.register("news", &line, "ann, again").unwrap();
    /// assert_eq!(topics.lookup("news").len(), 2);
    /// drop(ann);
    /// assert_eq!(topics.register("weather", &line, "ann").unwrap_err().into_inner(), ("weather", "ann"));
    /// ```
    pub fn register(&self, name: K, owner: &Line, value: V) -> Result<(), OwnerEnded<K, V>> {
        let hash = self.shared.hashing.hash(&name);
        if !owner.is_alive() {
            return Err(OwnerEnded { name, value });
        }
        let member = Arc::new(Member { owner: *owner, value });
        loop {
            let seen = self.seek::<K>(hash, &name);
            let mut state = lock(&self.shared.state);
            if !state.lists.keyed().is_still(&seen) {
                continue;
            }
            let swept = if state.lists.len() < state.sweep_at { Vec::new() } else { state.sweep() };
            // The sweep may have taken the name away.
            if !state.lists.keyed().is_still(&seen) {
                drop(state);
                drop(swept);
                continue;
            }
            let spare = state.lists.join(&seen, name, member);
            drop(state);
            drop((spare, swept));
            return Ok(());
        }
    }

    /// Takes an owner from under a name, as often as it stands there; returns how often that was.
    ///
    /// ```
    /// # use backplane::Device;
    /// # use backplane_actor::DuplicateRegistry;
    /// # let (topics, ann, bob) = (DuplicateRegistry::new(), Device::new(), Device::new());
    /// # topics.register("news", &ann.line(), "ann").unwrap();
    /// # topics.register("news", &bob.line(), "bob").unwrap();
    /// topics.register("news", &ann.line(), "ann, again").unwrap();
    /// assert_eq!(topics.unregister("news", &ann.line()), 2);
    /// assert_eq!(topics.lookup("news").values().collect::<Vec<_>>(), [&"bob"]);
    /// assert_eq!(topics.unregister("news", &ann.line()), 0);
    /// ```
    pub fn unregister<Q>(&self, name: &Q, owner: &Line) -> usize
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let hash = self.shared.hashing.hash(name);
        loop {
            let seen = self.seek(hash, name);
            let mut state = lock(&self.shared.state);
            if state.lists.keyed().is_still(&seen) {
                let left = state.lists.leave(&seen, owner.id(), usize::MAX);
                drop(state);
                return left.len();
            }
        }
    }

    /// Who stands under a name, in the order in which they came.
    ///
    /// ```
    /// # use backplane::Device;
    /// # use backplane_actor::DuplicateRegistry;
    /// # let (topics, ann, bob) = (DuplicateRegistry::new(), Device::new(), Device::new());
    /// # topics.register("news", &ann.line(), "ann").unwrap();
    /// # topics.register("news", &bob.line(), "bob").unwrap();
    /// assert_eq!(topics.lookup("news").values().collect::<Vec<_>>(), [&"ann", &"bob"]);
    /// drop(ann);
    /// assert_eq!(topics.lookup("news").values().collect::<Vec<_>>(), [&"bob"]);
    /// assert!(topics.lookup("weather").is_empty());
    /// ```
    pub fn lookup<Q>(&self, name: &Q) -> Members<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let hash = self.shared.hashing.hash(name);
        loop {
            let seen = self.seek(hash, name);
            let state = lock(&self.shared.state);
            if state.lists.keyed().is_still(&seen) {
                return state.lists.members(&seen);
            }
        }
    }

    /// Does something for each who stands under a name, one after another, with no lock held; returns for how many.
    ///
    /// Who comes meanwhile is not among them, and who ends is left out from then on.
    ///
    /// ```
    /// # use backplane::Device;
    /// # use backplane_actor::DuplicateRegistry;
    /// # let (topics, ann, bob) = (DuplicateRegistry::new(), Device::new(), Device::new());
    /// # topics.register("news", &ann.line(), "ann").unwrap();
    /// # topics.register("news", &bob.line(), "bob").unwrap();
    /// let mut told = Vec::new();
    /// let count = topics.dispatch("news", |member| {
    ///     told.push(member.value);
    ///     topics.unregister("news", &member.owner); // nothing is locked here
    /// });
    /// assert_eq!((count, told), (2, vec!["ann", "bob"]));
    /// assert!(topics.lookup("news").is_empty());
    /// ```
    pub fn dispatch<Q>(&self, name: &Q, mut each: impl FnMut(&Member<V>)) -> usize
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.lookup(name).iter().map(|member| each(member)).count()
    }

    /// Under which names an owner stands, in the order in which it came there; as often as it does.
    ///
    /// ```
    /// # use backplane::Device;
    /// # use backplane_actor::DuplicateRegistry;
    /// # let (topics, ann, bob) = (DuplicateRegistry::new(), Device::new(), Device::new());
    /// # topics.register("news", &ann.line(), "ann").unwrap();
    /// # topics.register("news", &bob.line(), "bob").unwrap();
    /// topics.register("weather", &ann.line(), "ann").unwrap();
    /// assert_eq!(topics.names_of(&ann.line()), ["news", "weather"]);
    /// assert_eq!(topics.names_of(&bob.line()), ["news"]);
    /// ```
    pub fn names_of(&self, owner: &Line) -> Vec<K>
    where
        K: Clone,
    {
        if !owner.is_alive() {
            return Vec::new();
        }
        let names = lock(&self.shared.state).lists.names_of(owner.id());
        names.iter().map(|name| (**name).clone()).collect()
    }

    fn seek<Q>(&self, hash: u64, name: &Q) -> Seen<K>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let names = lock(&self.shared.state).lists.keyed().names(hash);
        Seen::compare(hash, names, name)
    }
}

impl<K, V> State<K, V> {
    fn sweep(&mut self) -> Vec<Vec<Left<K, V>>> {
        let swept = self.lists.sweep();
        self.sweep_at = SWEEP_AT.max(self.lists.len() * 2);
        swept
    }
}

impl<K, V> fmt::Debug for DuplicateRegistry<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DuplicateRegistry").field("entries", &self.entries()).finish_non_exhaustive()
    }
}
