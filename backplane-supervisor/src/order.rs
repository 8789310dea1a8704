//! Children in the order in which they were added, found by key in constant time.

use std::fmt;

/// Names one place in an [`Order`]; never used twice, so a key that outlives its value finds nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    index: u32,
    generation: u32,
}

impl Key {
    /// Where its value stands, as long as it does.
    pub(crate) fn index(self) -> u32 {
        self.index
    }

    /// The key as one number, which is how it travels as the tag of a link.
    pub(crate) fn to_bits(self) -> u64 {
        (u64::from(self.generation) << 32) | u64::from(self.index)
    }

    /// The key that [`to_bits`](Key::to_bits) made.
    pub(crate) fn from_bits(bits: u64) -> Key {
        Key { index: bits as u32, generation: (bits >> 32) as u32 }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index, self.generation)
    }
}

/// No index: the end of a chain.
const NONE: u32 = u32::MAX;

/// So many cells are made at a time, once there are so many: no push ever moves a million values.
const CHUNK: usize = 1 << 10;

/// A list whose values stay in the order in which they were pushed.
///
/// A slab threaded by indices: push, get, remove and the step to a neighbour cost the same at any length.
pub(crate) struct Order<T> {
    chunks: Vec<Vec<Cell<T>>>,
    made: u32,
    first: u32,
    last: u32,
    free: u32,
    len: usize,
}

struct Cell<T> {
    value: Option<T>,
    generation: u32,
    before: u32,
    /// The neighbour, or, in an empty cell, the next empty one.
    after: u32,
}

impl<T> Order<T> {
    pub(crate) fn new() -> Order<T> {
        Order { chunks: Vec::new(), made: 0, first: NONE, last: NONE, free: NONE, len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes set aside for the values and their threads.
    pub(crate) fn footprint(&self) -> usize {
        self.chunks.iter().map(Vec::capacity).sum::<usize>() * size_of::<Cell<T>>()
    }

    fn cell(&self, index: u32) -> Option<&Cell<T>> {
        self.chunks.get(index as usize / CHUNK)?.get(index as usize % CHUNK)
    }

    fn cell_mut(&mut self, index: u32) -> Option<&mut Cell<T>> {
        self.chunks.get_mut(index as usize / CHUNK)?.get_mut(index as usize % CHUNK)
    }

    /// Makes a cell behind all others.
    fn make_cell(&mut self, cell: Cell<T>) -> u32 {
        let index = self.made;
        assert!(index != NONE, "fewer than u32::MAX children");
        self.made += 1;
        match self.chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK => chunk.push(cell),
            _ => {
                // The first chunk grows as it is filled: most supervisors have a handful of children.
                let mut chunk = Vec::with_capacity(if self.chunks.is_empty() { 0 } else { CHUNK });
                chunk.push(cell);
                self.chunks.push(chunk);
            }
        }
        index
    }

    /// Adds a value behind all others.
    ///
    /// # Panics
    ///
    /// At four thousand million values.
    pub(crate) fn push(&mut self, value: T) -> Key {
        let (before, free) = (self.last, self.free);
        let (index, generation) = if let Some(cell) = self.cell_mut(free) {
            let (generation, next) = (cell.generation, cell.after);
            (cell.value, cell.before, cell.after) = (Some(value), before, NONE);
            self.free = next;
            (free, generation)
        } else {
            (self.make_cell(Cell { value: Some(value), generation: 0, before, after: NONE }), 0)
        };
        match self.cell_mut(before) {
            None => self.first = index,
            Some(cell) => cell.after = index,
        }
        self.last = index;
        self.len += 1;
        Key { index, generation }
    }

    /// Takes a value out; its key finds nothing from now on.
    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let cell = self.cell_mut(key.index).filter(|cell| cell.generation == key.generation)?;
        let value = cell.value.take()?;
        let (before, after) = (cell.before, cell.after);
        match self.cell_mut(before) {
            None => self.first = after,
            Some(cell) => cell.after = after,
        }
        match self.cell_mut(after) {
            None => self.last = before,
            Some(cell) => cell.before = before,
        }
        self.len -= 1;
        // A cell whose generations are used up is never filled again.
        let free = self.free;
        if let Some(cell) = self.cell_mut(key.index)
            && let Some(generation) = cell.generation.checked_add(1)
        {
            (cell.generation, cell.after) = (generation, free);
            self.free = key.index;
        }
        Some(value)
    }

    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        self.cell(key.index).filter(|cell| cell.generation == key.generation)?.value.as_ref()
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.cell_mut(key.index).filter(|cell| cell.generation == key.generation)?.value.as_mut()
    }

    /// What stands at this index now.
    pub(crate) fn at(&self, index: u32) -> Option<&T> {
        self.cell(index)?.value.as_ref()
    }

    /// The key of what stands at this index now.
    pub(crate) fn key_of(&self, index: u32) -> Option<Key> {
        self.cell(index)
            .filter(|cell| cell.value.is_some())
            .map(|cell| Key { index, generation: cell.generation })
    }

    pub(crate) fn first(&self) -> Option<Key> {
        self.key_at(self.first)
    }

    pub(crate) fn last(&self) -> Option<Key> {
        self.key_at(self.last)
    }

    pub(crate) fn before(&self, key: Key) -> Option<Key> {
        self.key_at(self.cell(key.index).filter(|cell| cell.generation == key.generation)?.before)
    }

    pub(crate) fn after(&self, key: Key) -> Option<Key> {
        self.key_at(self.cell(key.index).filter(|cell| cell.generation == key.generation)?.after)
    }

    fn key_at(&self, index: u32) -> Option<Key> {
        self.cell(index).map(|cell| Key { index, generation: cell.generation })
    }

    /// From first to last.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        let mut at = self.first();
        std::iter::from_fn(move || {
            let key = at?;
            at = self.after(key);
            Some((key, self.get(key)?))
        })
    }

    /// From last to first.
    pub(crate) fn iter_back(&self) -> impl Iterator<Item = (Key, &T)> {
        let mut at = self.last();
        std::iter::from_fn(move || {
            let key = at?;
            at = self.before(key);
            Some((key, self.get(key)?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_in_the_order_of_their_coming() {
        let mut order = Order::new();
        let keys: Vec<Key> = (0..5).map(|n| order.push(n)).collect();
        assert_eq!(order.remove(keys[2]), Some(2));
        assert_eq!(order.remove(keys[0]), Some(0));
        assert_eq!(order.remove(keys[4]), Some(4));
        order.push(7);
        assert_eq!(order.iter().map(|(_, n)| *n).collect::<Vec<_>>(), [1, 3, 7]);
        assert_eq!(order.iter_back().map(|(_, n)| *n).collect::<Vec<_>>(), [7, 3, 1]);
        assert_eq!(order.len(), 3);
    }

    #[test]
    fn many_values_fill_many_chunks() {
        let mut order = Order::new();
        let keys: Vec<Key> = (0..5 * CHUNK).map(|n| order.push(n)).collect();
        keys.iter().step_by(2).for_each(|key| assert!(order.remove(*key).is_some()));
        for n in 0..CHUNK {
            order.push(n);
        }
        let odd = (0..5 * CHUNK).filter(|n| n % 2 == 1);
        assert!(order.iter().map(|(_, n)| *n).eq(odd.chain(0..CHUNK)));
        assert_eq!(order.footprint(), 5 * CHUNK * size_of::<Cell<usize>>());
    }

    #[test]
    fn a_key_never_finds_another_value() {
        let mut order = Order::new();
        let old = order.push('a');
        order.remove(old);
        let new = order.push('b');
        assert_ne!(old, new);
        assert_eq!((order.get(old), order.after(old)), (None, None));
        assert_eq!(order.remove(old), None);
        assert_eq!(order.get(Key::from_bits(new.to_bits())), Some(&'b'));
    }
}
