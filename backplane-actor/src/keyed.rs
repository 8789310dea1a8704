//! Values by name, for whoever holds a lock: names are hashed, compared and dropped outside of it.
//!
//! A name is the user's, and so are its `Hash`, its `Eq` and its `Drop`. So a look-up hashes first; takes those names out
//! that share the hash, which is one or none, under the lock; compares them outside; and, where it means to change
//! something, comes back and goes on only if the names under that hash are still the same.

use std::{
    borrow::Borrow,
    collections::HashMap,
    hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState},
};

use crate::sync::Arc;

/// What is kept under a name.
pub(crate) type Named<K, T> = (Arc<K>, T);

/// Values by name.
pub(crate) struct Keyed<K, T> {
    buckets: HashMap<u64, Vec<Named<K, T>>, BuildHasherDefault<AsIs>>,
    len: usize,
}

/// The names under one hash, as they were under the lock, and which of them is the one that was sought.
pub(crate) struct Seen<K> {
    pub(crate) hash: u64,
    names: Few<Arc<K>>,
    at: Option<usize>,
}

/// Mostly one, or none.
pub(crate) struct Few<T> {
    first: Option<T>,
    rest: Vec<T>,
}

impl<T> Few<T> {
    pub(crate) fn into_iter(self) -> impl Iterator<Item = T> {
        self.first.into_iter().chain(self.rest)
    }

    fn iter(&self) -> impl Iterator<Item = &T> {
        self.first.iter().chain(&self.rest)
    }
}

impl<K> Seen<K> {
    /// Runs the user's `Eq`: without a lock.
    pub(crate) fn compare<Q>(hash: u64, names: Few<Arc<K>>, name: &Q) -> Seen<K>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let at = names.iter().position(|other| (**other).borrow() == name);
        Seen { hash, names, at }
    }

    /// The name itself, as it is kept.
    pub(crate) fn name(&self) -> Option<&Arc<K>> {
        self.names.iter().nth(self.at?)
    }
}

impl<K, T> Keyed<K, T> {
    pub(crate) fn new() -> Keyed<K, T> {
        Keyed { buckets: HashMap::default(), len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The names under a hash.
    pub(crate) fn names(&self, hash: u64) -> Few<Arc<K>> {
        self.peek(hash, |name, _| Arc::clone(name))
    }

    /// What `look` takes of each name under a hash. It must run nothing of the user's.
    pub(crate) fn peek<U>(&self, hash: u64, mut look: impl FnMut(&Arc<K>, &T) -> U) -> Few<U> {
        let mut entries = self.buckets.get(&hash).into_iter().flatten().map(|(name, kept)| look(name, kept));
        Few { first: entries.next(), rest: entries.collect() }
    }

    /// Whether the names under this hash are what they were. Only then what follows means anything.
    pub(crate) fn is_still(&self, seen: &Seen<K>) -> bool {
        let now = self.buckets.get(&seen.hash).into_iter().flatten().map(|(name, _)| Arc::as_ptr(name));
        now.eq(seen.names.iter().map(Arc::as_ptr))
    }

    /// What is kept under the name that was sought.
    pub(crate) fn get(&self, seen: &Seen<K>) -> Option<&T> {
        self.buckets.get(&seen.hash)?.get(seen.at?).map(|(_, kept)| kept)
    }

    /// Keeps something under a name that is not there.
    pub(crate) fn insert(&mut self, hash: u64, name: Arc<K>, kept: T) -> &mut T {
        self.len += 1;
        let bucket = self.buckets.entry(hash).or_insert_with(|| Vec::with_capacity(1));
        bucket.push((name, kept));
        let last = bucket.len() - 1;
        &mut bucket[last].1
    }

    /// Takes a name out, if it is there.
    pub(crate) fn remove(&mut self, hash: u64, name: &Arc<K>) -> Option<Named<K, T>> {
        let bucket = self.buckets.get_mut(&hash)?;
        let at = bucket.iter().position(|(other, _)| Arc::ptr_eq(other, name))?;
        let taken = bucket.remove(at);
        if bucket.is_empty() {
            self.buckets.remove(&hash);
        }
        self.len -= 1;
        Some(taken)
    }

    /// What is kept under a name that is kept elsewhere too.
    pub(crate) fn find_mut(&mut self, hash: u64, name: &Arc<K>) -> Option<&mut T> {
        let bucket = self.buckets.get_mut(&hash)?;
        bucket.iter_mut().find_map(|(other, kept)| Arc::ptr_eq(other, name).then_some(kept))
    }

    /// Takes out all that `goes`, to be dropped when nothing is locked any more.
    pub(crate) fn take_out(&mut self, mut goes: impl FnMut(&mut T) -> bool) -> Vec<Named<K, T>> {
        let mut gone = Vec::new();
        self.buckets.retain(|_, bucket| {
            let mut at = 0;
            while at < bucket.len() {
                if goes(&mut bucket[at].1) {
                    gone.push(bucket.swap_remove(at));
                } else {
                    at += 1;
                }
            }
            !bucket.is_empty()
        });
        self.len -= gone.len();
        gone
    }

    /// All of it, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Named<K, T>> {
        self.buckets.values().flatten()
    }
}

/// Hashes names; outside of any lock, for a name's `Hash` is the user's.
#[derive(Clone, Default)]
pub(crate) struct Hashing(RandomState);

impl Hashing {
    pub(crate) fn hash<Q: Hash + ?Sized>(&self, name: &Q) -> u64 {
        self.0.hash_one(name)
    }
}

/// For numbers that are hashes already.
#[derive(Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}
