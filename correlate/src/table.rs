//! The open keys: found, added and evicted in constant time, in memory that follows their number both ways.
//!
//! Open addressing with linear probing, ordered by the upper bits of the hash: growing and shrinking walk the memory
//! from one end to the other. Eviction shifts its followers back, so that nothing is left behind where a key was.

use bytemuck::Pod;
use prefetch_index::prefetch_index;

use crate::places::Places;

/// What stands in one place of a [`Table`]. A place with nothing but zeros is free.
pub(crate) trait Slot: Pod {
    /// The hash it was added under.
    fn hash(&self) -> u64;
    /// Nothing stands here.
    fn is_free(&self) -> bool;
}

/// A set of slots, found by hash.
#[derive(Debug)]
pub(crate) struct Table<S> {
    slots: Places<S>,
    shift: u32,
    len: usize,
    peak: usize,
}

#[cfg(test)]
thread_local! {
    /// Places that were looked at to find keys.
    pub(crate) static LOOKED_AT: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// A table is never smaller than this.
const LEAST: usize = 1 << 6;

impl<S: Slot> Table<S> {
    /// Slots that the memory gives at once.
    const A_LINE: usize = if size_of::<S>() < 64 { 64 / size_of::<S>() } else { 1 };

    /// Nothing is open.
    pub(crate) fn new() -> Table<S> {
        Table::with_room_for(0)
    }

    /// Nothing is open, and there is room for so many keys. Whoever adds those of another table in its order needs it: they
    /// are sorted by hash, and all of them would come to the beginning of one that is too small, one behind the other.
    pub(crate) fn with_room_for(keys: usize) -> Table<S> {
        let size = (keys.saturating_mul(4) / 3 + 1).next_power_of_two().max(LEAST);
        Table { slots: Places::new(size), shift: 64 - size.trailing_zeros(), len: 0, peak: 0 }
    }

    /// How many keys are open.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// How many keys were open when most were.
    pub(crate) fn peak(&self) -> usize {
        self.peak
    }

    /// It is the successor of a table that had so many.
    pub(crate) fn had_a_peak_of(&mut self, peak: usize) {
        self.peak = self.peak.max(peak);
    }

    /// The memory it takes.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(self.slots.all())
    }

    /// The key will be looked for soon: asks the memory for its place and for what stands behind it, where a search goes on
    /// and an eviction begins. Waits for neither.
    #[inline]
    pub(crate) fn expect(&self, hash: u64) {
        let (slots, home) = (self.slots.all(), (hash >> self.shift) as usize);
        prefetch_index(slots, home);
        prefetch_index(slots, home + Self::A_LINE);
    }

    /// Where the key stands, or else where it would.
    #[inline]
    pub(crate) fn find(&self, hash: u64, is_it: impl Fn(&S) -> bool) -> Result<usize, usize> {
        let slots = self.slots.all();
        let mask = slots.len() - 1;
        let mut at = (hash >> self.shift) as usize;
        loop {
            #[cfg(test)]
            LOOKED_AT.set(LOOKED_AT.get() + 1);
            let slot = &slots[at];
            if slot.is_free() {
                return Err(at);
            }
            if is_it(slot) {
                return Ok(at);
            }
            at = (at + 1) & mask;
        }
    }

    /// What stands there.
    #[inline]
    pub(crate) fn get_mut(&mut self, at: usize) -> &mut S {
        &mut self.slots.all_mut()[at]
    }

    /// Adds a key where [`find`](Table::find) did not find it.
    #[inline]
    pub(crate) fn add(&mut self, at: usize, slot: S) {
        let slots = self.slots.all_mut();
        slots[at] = slot;
        let size = slots.len();
        self.len += 1;
        self.peak = self.peak.max(self.len);
        if self.len * 4 > size * 3 {
            self.resize(size * 2);
        }
    }

    /// Takes a key out.
    #[inline]
    pub(crate) fn evict(&mut self, at: usize) {
        let slots = self.slots.all_mut();
        let mask = slots.len() - 1;
        let (mut hole, mut next) = (at, at);
        loop {
            next = (next + 1) & mask;
            let follower = &slots[next];
            if follower.is_free() {
                break;
            }
            let home = (follower.hash() >> self.shift) as usize;
            if next.wrapping_sub(home) & mask >= next.wrapping_sub(hole) & mask {
                slots[hole] = *follower;
                hole = next;
            }
        }
        slots[hole] = S::zeroed();
        let size = slots.len();
        self.len -= 1;
        if self.len * 16 < size && size > LEAST {
            self.resize((size / 4).max(LEAST));
        }
    }

    /// All that is open, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &S> {
        self.slots.all().iter().filter(|slot| !slot.is_free())
    }

    /// All that is open, to be changed; the hash must stay.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut S> {
        self.slots.all_mut().iter_mut().filter(|slot| !slot.is_free())
    }

    #[cold]
    fn resize(&mut self, size: usize) {
        let before = std::mem::replace(&mut self.slots, Places::new(size));
        self.shift = 64 - size.trailing_zeros();
        let (slots, mask) = (self.slots.all_mut(), size - 1);
        for slot in before.all().iter().filter(|slot| !slot.is_free()) {
            let mut at = (slot.hash() >> self.shift) as usize;
            while !slots[at].is_free() {
                at = (at + 1) & mask;
            }
            slots[at] = *slot;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use bytemuck::Zeroable;

    use super::*;
    use crate::random::{Random, mix};

    #[derive(Clone, Copy, Pod, Zeroable)]
    #[repr(C)]
    struct Plain {
        hash: u64,
        key: u64,
        value: u64,
    }

    impl Slot for Plain {
        fn hash(&self) -> u64 {
            self.hash
        }

        fn is_free(&self) -> bool {
            self.key == 0
        }
    }

    fn agrees_with_a_hash_map(seed: u64, keys: u64, steps: usize, hash: impl Fn(u64) -> u64) {
        let (mut random, mut table, mut model) = (Random::new(seed), Table::<Plain>::new(), HashMap::new());
        for step in 0..steps as u64 {
            let key = 1 + random.below(keys);
            table.expect(hash(key));
            match table.find(hash(key), |slot| slot.key == key) {
                Ok(at) => {
                    assert_eq!(model.remove(&key), Some(table.get_mut(at).value));
                    table.evict(at);
                }
                Err(at) => {
                    assert_eq!(model.insert(key, step), None);
                    table.add(at, Plain { hash: hash(key), key, value: step });
                }
            }
            assert_eq!(table.len(), model.len());
        }
        let left: HashMap<u64, u64> = table.iter().map(|slot| (slot.key, slot.value)).collect();
        assert_eq!(left, model);
    }

    #[test]
    fn it_finds_what_a_hash_map_finds() {
        for seed in 0..20 {
            agrees_with_a_hash_map(seed, 10 + seed * 50, 5_000, mix);
        }
    }

    #[test]
    fn it_finds_the_same_when_all_keys_collide_or_wrap_round_the_end() {
        agrees_with_a_hash_map(1, 100, 5_000, |_| u64::MAX);
        agrees_with_a_hash_map(2, 100, 5_000, |key| if key % 2 == 0 { u64::MAX } else { 0 });
        agrees_with_a_hash_map(3, 40, 5_000, |key| u64::MAX << (key % 64));
    }

    #[test]
    fn it_finds_the_same_where_its_memory_is_the_systems() {
        agrees_with_a_hash_map(4, 600_000, 800_000, mix);
    }

    #[test]
    fn its_memory_follows_the_open_keys_up_and_down() {
        let mut table = Table::<Plain>::new();
        let small = table.bytes();
        for key in 1..=100_000 {
            let Err(at) = table.find(mix(key), |slot| slot.key == key) else { panic!("{key} was there") };
            table.add(at, Plain { hash: mix(key), key, value: 0 });
        }
        assert!(table.bytes() < 100_000 * size_of::<Plain>() * 3);
        for key in 1..=100_000 {
            let Ok(at) = table.find(mix(key), |slot| slot.key == key) else { panic!("{key} was not there") };
            table.evict(at);
        }
        assert_eq!((table.bytes(), table.len(), table.peak()), (small, 0, 100_000));
    }
}
