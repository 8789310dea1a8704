//! Children in the order in which they were added, found by key in constant time.

use std::fmt;

/// Names one place in an [`Order`]; never used twice, so a key that outlives its value finds nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    index: u32,
    generation: u32,
}

impl Key {
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

/// A list whose values stay in the order in which they were pushed.
///
/// A slab threaded by indices: push, get, remove and the step to a neighbour cost the same at any length.
pub(crate) struct Order<T> {
    cells: Vec<Cell<T>>,
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
        Order { cells: Vec::new(), first: NONE, last: NONE, free: NONE, len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes set aside for the values and their threads.
    pub(crate) fn footprint(&self) -> usize {
        self.cells.capacity() * size_of::<Cell<T>>()
    }

    /// Adds a value behind all others.
    ///
    /// # Panics
    ///
    /// At four thousand million values.
    pub(crate) fn push(&mut self, value: T) -> Key {
        let index = if self.free != NONE {
            let index = self.free;
            self.free = self.cells[index as usize].after;
            index
        } else {
            let index = u32::try_from(self.cells.len()).ok().filter(|&index| index != NONE);
            let index = index.expect("fewer than u32::MAX children");
            self.cells.push(Cell { value: None, generation: 0, before: NONE, after: NONE });
            index
        };
        let before = self.last;
        let cell = &mut self.cells[index as usize];
        cell.value = Some(value);
        cell.before = before;
        cell.after = NONE;
        let key = Key { index, generation: cell.generation };
        match before {
            NONE => self.first = index,
            before => self.cells[before as usize].after = index,
        }
        self.last = index;
        self.len += 1;
        key
    }

    /// Takes a value out; its key finds nothing from now on.
    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let cell = self.cells.get_mut(key.index as usize).filter(|cell| cell.generation == key.generation)?;
        let value = cell.value.take()?;
        let (before, after) = (cell.before, cell.after);
        match before {
            NONE => self.first = after,
            before => self.cells[before as usize].after = after,
        }
        match after {
            NONE => self.last = before,
            after => self.cells[after as usize].before = before,
        }
        self.len -= 1;
        let cell = &mut self.cells[key.index as usize];
        // A cell whose generations are used up is never filled again.
        if let Some(generation) = cell.generation.checked_add(1) {
            cell.generation = generation;
            cell.after = self.free;
            self.free = key.index;
        }
        Some(value)
    }

    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        let cell = self.cells.get(key.index as usize)?;
        if cell.generation == key.generation { cell.value.as_ref() } else { None }
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let cell = self.cells.get_mut(key.index as usize)?;
        if cell.generation == key.generation { cell.value.as_mut() } else { None }
    }

    pub(crate) fn first(&self) -> Option<Key> {
        self.key_at(self.first)
    }

    pub(crate) fn last(&self) -> Option<Key> {
        self.key_at(self.last)
    }

    pub(crate) fn before(&self, key: Key) -> Option<Key> {
        self.get(key)?;
        self.key_at(self.cells[key.index as usize].before)
    }

    pub(crate) fn after(&self, key: Key) -> Option<Key> {
        self.get(key)?;
        self.key_at(self.cells[key.index as usize].after)
    }

    fn key_at(&self, index: u32) -> Option<Key> {
        self.cells.get(index as usize).map(|cell| Key { index, generation: cell.generation })
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
