//! Who is linked: attach, detach and sweep in constant time, and never much of it at once.
//!
//! Two entries lie inline, up to [`LIST`] in a list, and any number in pages of open-addressed cells. A page that is
//! full is first swept, then doubled, and past [`PAGE`] cells split in two (extendible hashing: R. Fagin et al., 1979), so
//! that the longest single step moves one page, however many links there are.

use crate::line::Line;

/// As many are searched one by one.
const LIST: usize = 32;
/// Cells of the largest page.
const PAGE: usize = 1024;
/// Cells of the first page, the load at which pages are made being under a half.
const FIRST_PAGE: usize = 128;
/// A directory this deep is not doubled any more; pages grow instead.
const DEEPEST: u32 = 20;

/// What one device knows of its link with another, or is asked to change in it.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Kept apart so that the entry stays at 24 bytes.
    slot: &'static crate::slot::Slot,
    generation: u32,
    pub(crate) bits: Bits,
    /// The watcher's, if this end watches.
    pub(crate) tag: u64,
}

impl Entry {
    #[inline]
    pub(crate) fn new(peer: Line, bits: Bits, tag: u64) -> Entry {
        Entry { slot: peer.slot, generation: peer.generation, bits, tag }
    }

    #[inline]
    pub(crate) fn peer(&self) -> Line {
        Line { slot: self.slot, generation: self.generation }
    }

    /// Applies what `change` sets and clears. Its tag and policy count if it watches.
    #[inline]
    pub(crate) fn apply(&mut self, change: &Entry) {
        self.bits = self.bits.after(change.bits);
        if change.bits.has(Bits::WATCH) {
            self.tag = change.tag;
        }
    }

    /// Makes this pending change and then `later` one change.
    #[inline]
    pub(crate) fn then(&mut self, later: &Entry) {
        self.bits = self.bits.then(later.bits);
        if later.bits.has(Bits::WATCH) {
            self.tag = later.tag;
        }
    }
}

/// What an entry says: two bits that hold, two that a change takes away, and the policy of who watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bits(u8);

impl Bits {
    pub(crate) const NONE: Bits = Bits(0);
    /// We hear of its end.
    pub(crate) const WATCH: Bits = Bits(1);
    /// It hears of ours.
    pub(crate) const NOTIFY: Bits = Bits(2);
    /// In a change: we no longer hear.
    pub(crate) const UNWATCH: Bits = Bits(4);
    /// In a change: it no longer hears.
    pub(crate) const UNNOTIFY: Bits = Bits(8);
    const POLICY: u8 = 0b0011_0000;

    #[inline]
    pub(crate) fn has(self, bit: Bits) -> bool {
        self.0 & bit.0 != 0
    }

    #[inline]
    pub(crate) fn with(self, bit: Bits, on: bool) -> Bits {
        if on { Bits(self.0 | bit.0) } else { self }
    }

    /// Whether an entry with this says anything.
    #[inline]
    pub(crate) fn links(self) -> bool {
        self.0 & 3 != 0
    }

    /// Whether a change with this says who hears of our end.
    #[inline]
    pub(crate) fn changes_notify(self) -> bool {
        self.has(Bits::NOTIFY) || self.has(Bits::UNNOTIFY)
    }

    #[inline]
    pub(crate) fn with_policy(self, policy: u8) -> Bits {
        Bits(self.0 & !Self::POLICY | policy << 4)
    }

    #[inline]
    pub(crate) fn policy(self) -> u8 {
        (self.0 & Self::POLICY) >> 4
    }

    /// What holds after a change.
    #[inline]
    fn after(self, change: Bits) -> Bits {
        let held = (self.0 & !(change.0 >> 2) | change.0) & 3;
        let policy = if change.has(Bits::WATCH) { change.0 } else { self.0 } & Self::POLICY;
        Bits(held | policy)
    }

    /// One change that does what both do, in this order.
    #[inline]
    fn then(self, later: Bits) -> Bits {
        let set = (self.0 & !(later.0 >> 2) | later.0) & 3;
        let cleared = ((self.0 >> 2) & !later.0 | (later.0 >> 2)) & 3;
        let policy = if later.has(Bits::WATCH) { later.0 } else { self.0 } & Self::POLICY;
        Bits(set | cleared << 2 | policy)
    }
}

/// Entries by peer.
pub(crate) enum Table {
    Few([Option<Entry>; 2]),
    List(Vec<Entry>),
    Pages(Box<Pages>),
}

impl Table {
    pub(crate) const fn new() -> Table {
        Table::Few([None, None])
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Table::Few(few) => few.iter().flatten().count(),
            Table::List(list) => list.len(),
            Table::Pages(pages) => pages.len,
        }
    }

    /// Whether going through it takes long enough for others to wait.
    #[inline]
    pub(crate) fn is_long(&self) -> bool {
        matches!(self, Table::Pages(_))
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, peer: Line) -> Option<&mut Entry> {
        match self {
            Table::Few(few) => few.iter_mut().flatten().find(|entry| entry.peer() == peer),
            Table::List(list) => list.iter_mut().find(|entry| entry.peer() == peer),
            Table::Pages(pages) => pages.get_mut(peer),
        }
    }

    #[inline]
    pub(crate) fn get(&self, peer: Line) -> Option<&Entry> {
        match self {
            Table::Few(few) => few.iter().flatten().find(|entry| entry.peer() == peer),
            Table::List(list) => list.iter().find(|entry| entry.peer() == peer),
            Table::Pages(pages) => pages.get(peer),
        }
    }

    /// Puts in an entry whose peer is not there yet. Where room is short, entries that are `spent` go first.
    #[inline]
    pub(crate) fn insert(&mut self, entry: Entry, spent: impl Fn(&Entry) -> bool) {
        if let Table::Few(few) = self {
            for place in few.iter_mut() {
                if place.is_none() {
                    *place = Some(entry);
                    return;
                }
            }
        }
        self.insert_among_more(entry, spent);
    }

    #[inline(never)]
    fn insert_among_more(&mut self, entry: Entry, spent: impl Fn(&Entry) -> bool) {
        match self {
            Table::Few(few) => {
                for place in few.iter_mut() {
                    if place.as_ref().is_some_and(&spent) {
                        *place = Some(entry);
                        return;
                    }
                }
                let mut list = Vec::with_capacity(4);
                list.extend(few.iter_mut().filter_map(Option::take));
                list.push(entry);
                *self = Table::List(list);
            }
            Table::List(list) => {
                if list.len() == list.capacity() || list.len() >= LIST {
                    list.retain(|old| !spent(old));
                }
                if list.len() < LIST {
                    list.push(entry);
                } else {
                    let mut pages = Box::new(Pages::new());
                    for old in list.drain(..) {
                        pages.insert(old, &spent);
                    }
                    pages.insert(entry, &spent);
                    *self = Table::Pages(pages);
                }
            }
            Table::Pages(pages) => pages.insert(entry, &spent),
        }
    }

    #[inline]
    pub(crate) fn remove(&mut self, peer: Line) -> Option<Entry> {
        match self {
            Table::Few(few) => {
                few.iter_mut().find(|place| place.as_ref().is_some_and(|e| e.peer() == peer))?.take()
            }
            Table::List(list) => {
                let at = list.iter().position(|entry| entry.peer() == peer)?;
                Some(list.swap_remove(at))
            }
            Table::Pages(pages) => {
                let entry = pages.remove(peer)?;
                if pages.len == 0 {
                    *self = Table::new();
                }
                Some(entry)
            }
        }
    }
}

/// Takes a table apart, one entry at a time.
pub(crate) enum Entries {
    Few(std::array::IntoIter<Option<Entry>, 2>),
    List(std::vec::IntoIter<Entry>),
    Pages(Vec<Page>, std::vec::IntoIter<Option<Entry>>),
}

impl IntoIterator for Table {
    type Item = Entry;
    type IntoIter = Entries;

    #[inline]
    fn into_iter(self) -> Entries {
        match self {
            Table::Few(few) => Entries::Few(few.into_iter()),
            Table::List(list) => Entries::List(list.into_iter()),
            Table::Pages(pages) => Entries::Pages(pages.pages, Vec::new().into_iter()),
        }
    }
}

impl Iterator for Entries {
    type Item = Entry;

    #[inline]
    fn next(&mut self) -> Option<Entry> {
        match self {
            Entries::Few(few) => few.find_map(|entry| entry),
            Entries::List(list) => list.next(),
            Entries::Pages(pages, cells) => loop {
                if let Some(entry) = cells.find_map(|cell| cell) {
                    return Some(entry);
                }
                *cells = pages.pop()?.cells.into_iter();
            },
        }
    }
}

/// A directory of pages, by the upper bits of the hash.
pub(crate) struct Pages {
    len: usize,
    depth: u32,
    /// Two to the power of `depth` indices into `pages`.
    directory: Vec<u32>,
    pages: Vec<Page>,
}

/// Open-addressed cells, by further bits of the hash.
pub(crate) struct Page {
    depth: u32,
    len: usize,
    cells: Vec<Option<Entry>>,
}

/// Multiplicative hashing (Knuth, vol. 3, 6.4) of where the peer lives and when.
#[inline]
fn hash(peer: Line) -> u64 {
    let place = std::ptr::from_ref(peer.slot).addr() as u64 / size_of::<crate::slot::Slot>() as u64;
    (place ^ u64::from(peer.generation) << 31).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

impl Pages {
    fn new() -> Pages {
        Pages { len: 0, depth: 0, directory: vec![0], pages: vec![Page::new(0, FIRST_PAGE)] }
    }

    #[inline]
    fn page(&self, hash: u64) -> usize {
        // A shift by 64 is none at all where there is one page only.
        let place = hash.checked_shr(u64::BITS - self.depth).unwrap_or(0);
        self.directory[place as usize] as usize
    }

    fn get(&self, peer: Line) -> Option<&Entry> {
        let page = &self.pages[self.page(hash(peer))];
        page.cells[page.find(peer)?].as_ref()
    }

    fn get_mut(&mut self, peer: Line) -> Option<&mut Entry> {
        let page = self.page(hash(peer));
        let page = &mut self.pages[page];
        let at = page.find(peer)?;
        page.cells[at].as_mut()
    }

    fn insert(&mut self, entry: Entry, spent: &impl Fn(&Entry) -> bool) {
        let hash = hash(entry.peer());
        loop {
            let at = self.page(hash);
            let page = &mut self.pages[at];
            if page.len < page.cells.len() / 4 * 3 {
                page.put(entry);
                self.len += 1;
                return;
            }
            let before = page.len;
            page.rebuild(page.cells.len(), |old| !spent(old));
            self.len -= before - page.len;
            if page.len <= page.cells.len() / 2 {
                continue;
            }
            if page.cells.len() < PAGE || page.depth >= DEEPEST {
                page.rebuild(page.cells.len() * 2, |_| true);
            } else {
                self.split(at);
            }
        }
    }

    /// Makes two pages of one, by the next bit of the hash.
    fn split(&mut self, at: usize) {
        let page = &mut self.pages[at];
        page.depth += 1;
        let depth = page.depth;
        let mut other = Page::new(depth, page.cells.len());
        let goes = |entry: &Entry| hash(entry.peer()) >> (u64::BITS - depth) & 1 == 1;
        for entry in page.cells.iter().flatten().filter(|entry| goes(entry)) {
            other.put(*entry);
        }
        page.rebuild(page.cells.len(), |entry| !goes(entry));

        if depth > self.depth {
            self.directory = self.directory.iter().flat_map(|&page| [page, page]).collect();
            self.depth = depth;
        }
        let new = self.pages.len() as u32;
        self.pages.push(other);
        for (place, page) in self.directory.iter_mut().enumerate() {
            if *page as usize == at && place >> (self.depth - depth) & 1 == 1 {
                *page = new;
            }
        }
    }

    fn remove(&mut self, peer: Line) -> Option<Entry> {
        let page = self.page(hash(peer));
        let page = &mut self.pages[page];
        let at = page.find(peer)?;
        self.len -= 1;
        page.take(at)
    }
}

impl Page {
    fn new(depth: u32, cells: usize) -> Page {
        Page { depth, len: 0, cells: vec![None; cells] }
    }

    #[inline]
    fn home(&self, peer: Line) -> usize {
        // Below the bits that a directory of the greatest depth uses.
        (hash(peer) >> 20) as usize & (self.cells.len() - 1)
    }

    #[inline]
    fn find(&self, peer: Line) -> Option<usize> {
        let mut at = self.home(peer);
        loop {
            // There is always an empty cell: a page is at most three quarters full.
            if self.cells[at].as_ref()?.peer() == peer {
                return Some(at);
            }
            at = (at + 1) & (self.cells.len() - 1);
        }
    }

    fn put(&mut self, entry: Entry) {
        let mut at = self.home(entry.peer());
        while self.cells[at].is_some() {
            at = (at + 1) & (self.cells.len() - 1);
        }
        self.cells[at] = Some(entry);
        self.len += 1;
    }

    /// Empties a cell and moves up what probing would no longer find behind it.
    fn take(&mut self, at: usize) -> Option<Entry> {
        let mask = self.cells.len() - 1;
        let taken = self.cells[at].take();
        let (mut hole, mut next) = (at, at);
        loop {
            next = (next + 1) & mask;
            let Some(entry) = self.cells[next] else { break };
            let home = self.home(entry.peer());
            if next.wrapping_sub(home) & mask >= next.wrapping_sub(hole) & mask {
                self.cells[hole] = self.cells[next].take();
                hole = next;
            }
        }
        self.len -= 1;
        taken
    }

    fn rebuild(&mut self, cells: usize, keep: impl Fn(&Entry) -> bool) {
        let old = std::mem::replace(&mut self.cells, vec![None; cells]);
        self.len = 0;
        for entry in old.into_iter().flatten().filter(|entry| keep(entry)) {
            self.put(entry);
        }
    }
}

#[cfg(all(test, not(backplane_loom)))]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::Device;

    #[test]
    fn an_entry_is_24_bytes_and_so_is_its_option() {
        assert_eq!((size_of::<Entry>(), size_of::<Option<Entry>>()), (24, 24));
    }

    #[test]
    fn a_change_after_a_change_is_both_changes() {
        for first in 0..16u8 {
            for later in 0..16u8 {
                for held in 0..4u8 {
                    // A change does not set and clear the same bit.
                    if first & first >> 2 & 3 != 0 || later & later >> 2 & 3 != 0 {
                        continue;
                    }
                    let (held, first, later) = (Bits(held), Bits(first), Bits(later));
                    assert_eq!(held.after(first).after(later).0, held.after(first.then(later)).0);
                }
            }
        }
    }

    /// The same operations on a table and on a map from the standard library.
    #[test]
    fn a_table_is_a_map_at_every_size() {
        let devices: Vec<Device> = (0..5_000).map(|_| Device::new()).collect();
        let (mut table, mut map) = (Table::new(), HashMap::new());
        let mut seed = 42u64;
        for round in 0..200_000u64 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Grows through all sizes, then shrinks to nothing.
            let reach = if round < 100_000 { 1 + round as usize / 20 } else { 5_000 };
            let peer = devices[(seed >> 33) as usize % reach].line();
            let removes = if round < 100_000 { 3 } else { 9 };
            if (seed >> 20) % 10 < removes {
                assert_eq!(table.remove(peer).map(|e| e.tag), map.remove(&peer.id()));
            } else if let Some(entry) = table.get_mut(peer) {
                assert_eq!(Some(entry.tag), map.insert(peer.id(), round));
                entry.tag = round;
            } else {
                assert_eq!(map.insert(peer.id(), round), None);
                table.insert(Entry::new(peer, Bits::WATCH, round), |_| false);
            }
            assert_eq!(table.len(), map.len());
        }
        for device in &devices {
            let peer = device.line();
            assert_eq!(table.get(peer).map(|e| e.tag), map.get(&peer.id()).copied());
        }
        let mut left: Vec<_> = table.into_iter().map(|e| (e.peer().id(), e.tag)).collect();
        left.sort();
        let mut expected: Vec<_> = map.into_iter().collect();
        expected.sort();
        assert_eq!(left, expected);
    }

    #[test]
    fn what_is_spent_makes_room() {
        let devices: Vec<Device> = (0..100_000).map(|_| Device::new()).collect();
        let mut table = Table::new();
        for device in &devices {
            // All but the last hundred are spent.
            let newest = devices[99_999].id().as_u64() & 0xffff_ffff;
            let _ = newest;
            table.insert(Entry::new(device.line(), Bits::WATCH, 0), |_| true);
        }
        assert!(table.len() < PAGE, "{} entries stayed", table.len());
    }
}
