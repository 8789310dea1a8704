//! Which child has which name: a table of places, for the names themselves stand with the children.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use crate::order::Key;

/// An empty cell.
const EMPTY: u32 = u32::MAX;

/// Finds a key by a name that only the caller can look up: open addressing, at most four fifths full, a key's index in
/// each cell, and beside it a byte of the name's hash: a name is fetched only where that agrees. Six to twelve bytes a name, where
/// a map that holds the names again takes three times as much.
#[derive(Default)]
pub(crate) struct Names {
    cells: Vec<u32>,
    marks: Vec<u8>,
    len: usize,
    /// Drawn with the first cells.
    seed: u64,
}

impl Names {
    /// Bytes set aside.
    pub(crate) fn footprint(&self) -> usize {
        self.cells.capacity() * size_of::<u32>() + self.marks.capacity()
    }

    /// Makes room for so many more, so that they come without another move.
    pub(crate) fn reserve<'a>(&mut self, more: usize, name_of: impl Fn(u32) -> Option<&'a str>) {
        let wanted = (self.len + more).saturating_mul(5) / 4 + 1;
        if wanted <= self.cells.len() {
            return;
        }
        if self.cells.is_empty() {
            self.seed = RandomState::new().hash_one(wanted);
        }
        let cells = wanted.next_power_of_two().max(8);
        let old = std::mem::replace(&mut self.cells, vec![EMPTY; cells]);
        self.marks = vec![0; cells];
        for index in old.into_iter().filter(|index| *index != EMPTY) {
            if let Some(name) = name_of(index) {
                let hash = self.hash(name);
                let at = self.place(hash, |_| false);
                (self.cells[at], self.marks[at]) = (index, mark(hash));
            }
        }
    }

    /// The index that has this name.
    pub(crate) fn find<'a>(&self, name: &str, name_of: impl Fn(u32) -> Option<&'a str>) -> Option<u32> {
        if self.cells.is_empty() {
            return None;
        }
        let at = self.place(self.hash(name), |index| name_of(index) == Some(name));
        Some(self.cells[at]).filter(|index| *index != EMPTY)
    }

    /// Where a name can be noted, unless another child has it: then that one's index.
    pub(crate) fn vacancy<'a>(
        &mut self,
        name: &str,
        name_of: impl Fn(u32) -> Option<&'a str>,
    ) -> Result<Vacancy, u32> {
        self.reserve(1, &name_of);
        let hash = self.hash(name);
        let at = self.place(hash, |index| name_of(index) == Some(name));
        if self.cells[at] != EMPTY { Err(self.cells[at]) } else { Ok(Vacancy { at, mark: mark(hash) }) }
    }

    /// Notes that the child at `key` has the name for which the vacancy was found, just before.
    pub(crate) fn fill(&mut self, vacancy: Vacancy, key: Key) {
        (self.cells[vacancy.at], self.marks[vacancy.at]) = (key.index(), vacancy.mark);
        self.len += 1;
    }

    /// Forgets the child at `key`, whose name this is.
    pub(crate) fn remove<'a>(&mut self, name: &str, key: Key, name_of: impl Fn(u32) -> Option<&'a str>) {
        if self.cells.is_empty() {
            return;
        }
        let mut hole = self.place(self.hash(name), |index| index == key.index());
        if self.cells[hole] == EMPTY {
            return;
        }
        self.len -= 1;
        // Whoever stands behind the hole, and would have stood in it, moves up.
        let mask = self.cells.len() - 1;
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let index = self.cells[at];
            let Some(name) = (index != EMPTY).then(|| name_of(index)).flatten() else { break };
            let home = self.hash(name) as usize & mask;
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(hole) & mask {
                (self.cells[hole], self.marks[hole]) = (index, self.marks[at]);
                hole = at;
            }
        }
        self.cells[hole] = EMPTY;
    }

    /// Eight bytes at a time, each folded in by a long multiplication. The names are the program's own, and there may be a million
    /// of them: a seed that nobody knows is enough, and a hash that is proof against who chooses them takes three times as long.
    fn hash(&self, name: &str) -> u64 {
        let fold = |word: u64| {
            let product = u128::from(word) * u128::from(0x9E37_79B9_7F4A_7C15_u64);
            product as u64 ^ (product >> 64) as u64
        };
        let (words, rest) = name.as_bytes().as_chunks::<8>();
        let hash = words.iter().fold(self.seed, |hash, word| fold(hash ^ u64::from_le_bytes(*word)));
        let last = rest.iter().fold(1, |last, byte| last << 8 | u64::from(*byte));
        fold(fold(hash ^ last) ^ self.seed)
    }

    /// The first cell from the home of a name with this hash on that is the one looked for, or empty.
    fn place(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> usize {
        let mask = self.cells.len() - 1;
        let mut at = hash as usize & mask;
        while self.cells[at] != EMPTY && !(self.marks[at] == mark(hash) && is_it(self.cells[at])) {
            at = (at + 1) & mask;
        }
        at
    }
}

/// An empty cell, and what it is to be marked with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Vacancy {
    at: usize,
    mark: u8,
}

/// Of a hash what its home does not say.
fn mark(hash: u64) -> u8 {
    (hash >> 56) as u8
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::order::Order;

    #[test]
    fn a_name_is_found_until_it_is_removed_whoever_came_and_went_meanwhile() {
        let (mut names, mut order, mut known) = (Names::default(), Order::new(), HashMap::new());
        let mut random = 1u64;
        for _ in 0..20_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let name = format!("child-{}", (random >> 33) % 300);
            if let Some(key) = known.remove(&name) {
                let name_of = |index| order.at(index).map(String::as_str);
                names.remove(&name, key, name_of);
                order.remove(key);
                assert_eq!(names.find(&name, |index| order.at(index).map(String::as_str)), None);
            } else {
                let vacancy = names.vacancy(&name, |index| order.at(index).map(String::as_str));
                let key = order.push(name.clone());
                vacancy.map(|vacancy| names.fill(vacancy, key)).expect("nobody has it");
                known.insert(name, key);
            }
            if random >> 60 == 0 {
                for (name, key) in &known {
                    let found = names.find(name, |index| order.at(index).map(String::as_str));
                    assert_eq!(found, Some(key.index()));
                    let again = names.vacancy(name, |index| order.at(index).map(String::as_str));
                    assert_eq!(again, Err(key.index()));
                }
            }
        }
        assert!(known.len() > 50 && names.footprint() <= 5 * 512);
    }
}
