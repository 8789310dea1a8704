//! Who is linked: attach, detach and sweep in constant time, and never much of it at once.
//!
//! Two entries lie inline, up to [`LIST`] in a list, and any number in pages of open-addressed cells. A page that is
//! full is first swept, then doubled, and past [`PAGE`] cells split in two (extendible hashing: R. Fagin et al., 1979), so
//! that the longest single step moves one page, however many links there are.

use crate::{line::Line, link::OnFault};

/// As many are searched one by one.
const LIST: usize = 32;
/// Cells of the largest page.
const PAGE: usize = 1024;
/// Cells of the first page, the load at which pages are made being under a half.
const FIRST_PAGE: usize = 128;
/// The most that a page is made for beforehand, on the average, of the three quarters that it holds. Peers come to lie in a page by
/// the eight, so that of pages with so many one in five gets more than it holds; of those with three fifths hardly any does.
const SHARE: usize = PAGE * 11 / 16;
/// For so many more room is made at a time: a number that is absurd is no reason to run out of memory.
const ROOM: usize = 1 << 20;
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

    /// Whether somebody is there to hear of our end.
    #[inline]
    pub(crate) fn is_heard(&self) -> bool {
        self.bits.has(Bits::NOTIFY) && self.peer().is_alive()
    }

    /// Whether this change says of another entry who hears of our end.
    #[inline]
    pub(crate) fn overrules(&self, entry: &Entry) -> bool {
        self.peer() == entry.peer() && self.changes_notify()
    }

    /// Whether this change says who hears of our end.
    #[inline]
    pub(crate) fn changes_notify(&self) -> bool {
        self.bits.has(Bits::NOTIFY) || self.bits.has(Bits::UNNOTIFY)
    }

    /// Applies what `change` sets and clears. What it names of tag and policy counts; a link that begins has them from it.
    #[inline]
    pub(crate) fn apply(&mut self, change: &Entry) {
        if change.bits.has(Bits::WATCH) {
            self.name(change, !self.bits.has(Bits::WATCH) || change.bits.has(Bits::AFRESH));
        }
        self.bits = Bits(self.bits.0 & !(change.bits.0 >> 2 & 3) | change.bits.0 & 3);
    }

    /// Makes this pending change and then `later` one change.
    #[inline]
    pub(crate) fn then(&mut self, later: &Entry) {
        if later.bits == Bits::NOTIFY {
            self.bits = Bits(self.bits.0 & !Bits::UNNOTIFY.0 | Bits::NOTIFY.0);
            return;
        }
        let afresh =
            self.bits.has(Bits::UNWATCH) || self.bits.has(Bits::AFRESH) || later.bits.has(Bits::AFRESH);
        if later.bits.has(Bits::WATCH) {
            self.name(later, !self.bits.has(Bits::WATCH));
        }
        let set = (self.bits.0 & !(later.bits.0 >> 2) | later.bits.0) & 3;
        let cleared = ((self.bits.0 >> 2) & !later.bits.0 | (later.bits.0 >> 2)) & 3;
        let named = self.bits.0 & (Bits::POLICY | Bits::TAGGED.0);
        self.bits = Bits(set | cleared << 2 | named).with(Bits::AFRESH, afresh && set & 1 != 0);
    }

    /// Makes this pending change and then the end of watching one change.
    #[inline]
    pub(crate) fn then_unwatch(&mut self) {
        self.bits = Bits(self.bits.0 & !(Bits::WATCH.0 | Bits::AFRESH.0) | Bits::UNWATCH.0);
    }

    /// Takes from another the tag and the policy that it names; all, if it begins.
    #[inline]
    fn name(&mut self, other: &Entry, begins: bool) {
        if begins || other.bits.has(Bits::TAGGED) {
            self.tag = other.tag;
            self.bits = Bits(self.bits.0 & !Bits::TAGGED.0 | other.bits.0 & Bits::TAGGED.0);
        }
        if begins || other.bits.0 & Bits::POLICY != 0 {
            self.bits = Bits(self.bits.0 & !Bits::POLICY | other.bits.0 & Bits::POLICY);
        }
    }
}

/// What an entry says: two bits that hold, two that a change takes away, and the policy of who watches.
///
/// As wide as the place it has in an entry: a byte is read back with what is beside it, which waits for the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bits(u32);

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
    const POLICY: u32 = 0b0011_0000;
    /// In news: an end that is to be heard, under this tag and policy, for a change that waited when it came said so.
    /// Else whether anybody here wants to hear it is in the owner's table.
    pub(crate) const DECIDED: Bits = Bits(64);
    /// In news: it is no end but a request to stop.
    pub(crate) const SHUTDOWN: Bits = Bits(128);
    /// In a change that watches: it names a tag.
    pub(crate) const TAGGED: Bits = Bits(256);
    /// In a change that watches: there was an end of watching before it.
    const AFRESH: Bits = Bits(512);

    #[inline]
    pub(crate) fn has(self, bit: Bits) -> bool {
        self.0 & bit.0 != 0
    }

    #[inline]
    fn both(self, other: Bits, bit: Bits) -> bool {
        self.0 & other.0 & bit.0 != 0
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

    #[inline]
    pub(crate) fn with_policy(self, policy: Option<OnFault>) -> Bits {
        let policy = match policy {
            None => 0,
            Some(OnFault::Cascade) => 1,
            Some(OnFault::Ignore) => 2,
            Some(OnFault::HandOver) => 3,
        };
        Bits(self.0 & !Self::POLICY | policy << 4)
    }

    /// The link's own policy, if it has one.
    #[inline]
    pub(crate) fn policy(self) -> Option<OnFault> {
        match (self.0 & Self::POLICY) >> 4 {
            1 => Some(OnFault::Cascade),
            2 => Some(OnFault::Ignore),
            3 => Some(OnFault::HandOver),
            _ => None,
        }
    }
}

/// Entries by peer; and whatever else its owner keeps, behind the same pointer, so that a device that has little is
/// looked at and dropped in few steps.
#[derive(Default)]
pub(crate) struct Table<X = ()> {
    /// Without the first there is no second, and with many there is neither.
    few: [Option<Entry>; 2],
    more: Rare<More<X>>,
}

/// What most do without; who does is dropped in two steps.
#[derive(Default)]
struct Rare<T>(Option<Box<T>>);

impl<T> Drop for Rare<T> {
    #[inline]
    fn drop(&mut self) {
        if let Some(there) = self.0.take() {
            let_go(there);
        }
    }
}

#[cold]
#[inline(never)]
fn let_go<T>(there: Box<T>) {
    drop(there);
}

#[derive(Default)]
struct More<X> {
    many: Option<Many>,
    extra: X,
}

enum Many {
    List(Vec<Entry>),
    Pages(Pages),
}

impl<X: Default> Table<X> {
    pub(crate) const fn new() -> Table<X> {
        Table { few: [None, None], more: Rare(None) }
    }

    #[inline]
    fn many(&self) -> Option<&Many> {
        self.more.0.as_ref()?.many.as_ref()
    }

    #[inline]
    fn many_mut(&mut self) -> Option<&mut Many> {
        self.more.0.as_mut()?.many.as_mut()
    }

    /// What else the owner keeps, if anything.
    #[inline]
    pub(crate) fn extra(&mut self) -> Option<&mut X> {
        Some(&mut self.more.0.as_mut()?.extra)
    }

    pub(crate) fn extra_or_default(&mut self) -> &mut X {
        &mut self.more.0.get_or_insert_default().extra
    }

    /// Gives back what else was kept, where it would not be missed.
    pub(crate) fn drop_extra_if(&mut self, idle: impl Fn(&X) -> bool) {
        if self.more.0.as_ref().is_some_and(|more| more.many.is_none() && idle(&more.extra)) {
            self.more.0 = None;
        }
    }

    #[inline]
    pub(crate) fn has_extra(&self) -> bool {
        self.more.0.is_some()
    }

    /// What else the owner keeps, where there is room for it because there are many.
    #[inline]
    pub(crate) fn extra_of_many(&self) -> Option<&X> {
        self.more.0.as_ref().filter(|more| more.many.is_some()).map(|more| &more.extra)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn len(&self) -> usize {
        match self.many() {
            None => self.few.iter().flatten().count(),
            Some(Many::List(list)) => list.len(),
            Some(Many::Pages(pages)) => pages.len,
        }
    }

    /// All entries, if that is all there is.
    #[inline]
    pub(crate) fn few(&self) -> Option<&[Option<Entry>; 2]> {
        self.more.0.is_none().then_some(&self.few)
    }

    /// Whether going through it takes long enough for others to wait.
    #[inline]
    pub(crate) fn is_long(&self) -> bool {
        matches!(self.many(), Some(Many::Pages(_)))
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, peer: Line) -> Option<&mut Entry> {
        if self.many().is_none() {
            return self.few.iter_mut().flatten().find(|entry| entry.peer() == peer);
        }
        match self.many_mut()? {
            Many::List(list) => list.iter_mut().find(|entry| entry.peer() == peer),
            Many::Pages(pages) => pages.get_mut(peer),
        }
    }

    #[inline]
    pub(crate) fn get(&self, peer: Line) -> Option<&Entry> {
        match self.many() {
            None => self.few.iter().flatten().find(|entry| entry.peer() == peer),
            Some(Many::List(list)) => list.iter().find(|entry| entry.peer() == peer),
            Some(Many::Pages(pages)) => pages.get(peer),
        }
    }

    /// The entry of a peer; one that says nothing, if there was none. Where room is short, entries that are `spent` go
    /// first.
    #[inline]
    pub(crate) fn entry(&mut self, peer: Line, spent: impl Fn(&Entry) -> bool) -> &mut Entry {
        let at = if self.more.0.is_none() { self.place(peer) } else { 2 };
        if at == 2 {
            return self.entry_of_more(peer, spent);
        }
        self.few[at].get_or_insert(Entry::new(peer, Bits::NONE, 0))
    }

    /// Puts in what an entry of its peer has to say, if there is room for it inline. False if there is not, and where both
    /// watch.
    #[inline]
    pub(crate) fn put(&mut self, entry: Entry) -> bool {
        if self.has_extra() {
            return false;
        }
        match &mut self.few {
            [place @ None, _] => *place = Some(entry),
            [Some(first), place @ None] if first.peer() != entry.peer() => *place = Some(entry),
            [Some(first), None] if !first.bits.both(entry.bits, Bits::WATCH) => first.apply(&entry),
            _ => return false,
        }
        true
    }

    /// Makes a change that sets nothing, if its peer's is the only entry. False if it is not, and where there is more to be
    /// looked at, which may have come before (invariant 4).
    #[inline]
    pub(crate) fn cut(&mut self, change: Entry) -> bool {
        if self.has_extra() {
            return false;
        }
        match &mut self.few {
            [Some(only), None] if only.peer() == change.peer() => {
                only.apply(&change);
                if !only.bits.links() {
                    self.few[0] = None;
                }
                true
            }
            _ => false,
        }
    }

    /// Where the entry of a peer is among the few, or could be; two if there is no room for it.
    #[inline]
    fn place(&self, peer: Line) -> usize {
        match &self.few {
            [None, _] => 0,
            [Some(entry), _] if entry.peer() == peer => 0,
            [_, None] => 1,
            [_, Some(entry)] if entry.peer() == peer => 1,
            _ => 2,
        }
    }

    #[inline(never)]
    fn entry_of_more(&mut self, peer: Line, spent: impl Fn(&Entry) -> bool) -> &mut Entry {
        if self.many().is_none() {
            if self.place(peer) == 2 {
                // A third one: there is room if one of the two is spent.
                self.few = match self.few.map(|entry| entry.filter(|entry| !spent(entry))) {
                    [None, second] => [second, None],
                    both => both,
                };
            }
            let at = self.place(peer);
            if at < 2 {
                return self.few[at].get_or_insert(Entry::new(peer, Bits::NONE, 0));
            }
            let mut list = Vec::with_capacity(4);
            list.extend(self.few.iter_mut().filter_map(Option::take));
            self.more.0.get_or_insert_default().many = Some(Many::List(list));
        }
        self.many_mut().expect("it has just been made").entry(peer, spent)
    }

    #[inline]
    pub(crate) fn remove(&mut self, peer: Line) -> Option<Entry> {
        if self.many().is_some() {
            return self.remove_of_many(peer);
        }
        let [first, second] = &mut self.few;
        if first.as_ref()?.peer() == peer {
            return std::mem::replace(first, second.take());
        }
        if second.as_ref()?.peer() == peer { second.take() } else { None }
    }

    #[inline(never)]
    fn remove_of_many(&mut self, peer: Line) -> Option<Entry> {
        let (entry, left) = match self.many_mut()? {
            Many::List(list) => {
                let at = list.iter().position(|entry| entry.peer() == peer)?;
                (list.swap_remove(at), list.len())
            }
            Many::Pages(pages) => (pages.remove(peer)?, pages.len),
        };
        if left == 0
            && let Some(more) = &mut self.more.0
        {
            more.many = None;
        }
        Some(entry)
    }

    /// Makes room for so many more, where that is for more than a list holds.
    pub(crate) fn reserve(&mut self, more: usize) {
        let wanted = self.len() + more.min(ROOM);
        if wanted <= LIST || matches!(self.many(), Some(Many::Pages(pages)) if pages.have_room(wanted)) {
            return;
        }
        let mut pages = Pages::with_room(wanted);
        for entry in self.take_entries() {
            *pages.entry(entry.peer(), &|_| false) = entry;
        }
        self.more.0.get_or_insert_default().many = Some(Many::Pages(pages));
    }

    /// Takes all entries out.
    pub(crate) fn take_entries(&mut self) -> Entries {
        match self.more.0.as_mut().and_then(|more| more.many.take()) {
            None => Entries::Few(std::mem::take(&mut self.few).into_iter()),
            Some(Many::List(list)) => Entries::List(list.into_iter()),
            Some(Many::Pages(pages)) => Entries::Pages(pages.pages, Vec::new().into_iter()),
        }
    }
}

impl Many {
    #[inline]
    fn entry(&mut self, peer: Line, spent: impl Fn(&Entry) -> bool) -> &mut Entry {
        if let Many::List(list) = self {
            let at = match list.iter().position(|entry| entry.peer() == peer) {
                Some(at) => at,
                None => {
                    if list.len() == list.capacity() || list.len() >= LIST {
                        list.retain(|old| !spent(old));
                    }
                    list.push(Entry::new(peer, Bits::NONE, 0));
                    list.len() - 1
                }
            };
            if list.len() > LIST {
                let mut pages = Pages::new();
                for entry in list.drain(..) {
                    *pages.entry(entry.peer(), &spent) = entry;
                }
                *self = Many::Pages(pages);
            } else if let Many::List(list) = self {
                return &mut list[at];
            }
        }
        match self {
            Many::List(_) => unreachable!("it has just become pages"),
            Many::Pages(pages) => pages.entry(peer, &spent),
        }
    }
}

/// Takes a table apart, one entry at a time.
pub(crate) enum Entries {
    Few(std::array::IntoIter<Option<Entry>, 2>),
    List(std::vec::IntoIter<Entry>),
    Pages(Vec<Page>, std::vec::IntoIter<Option<Entry>>),
}

impl Entries {
    /// Looks at one more cell; most of a table that was longer once are empty. `None` after the last one.
    pub(crate) fn next_cell(&mut self) -> Option<Option<Entry>> {
        match self {
            Entries::Few(few) => few.next(),
            Entries::List(list) => list.next().map(Some),
            Entries::Pages(pages, cells) => match cells.next() {
                Some(cell) => Some(cell),
                None => {
                    *cells = pages.pop()?.cells.into_iter();
                    Some(None)
                }
            },
        }
    }
}

impl Iterator for Entries {
    type Item = Entry;

    #[inline]
    fn next(&mut self) -> Option<Entry> {
        loop {
            if let Some(entry) = self.next_cell()? {
                return Some(entry);
            }
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

/// In a page of so many cells there is room for so many entries, whatever their hashes.
fn cells_for(entries: usize) -> usize {
    entries / 3 * 4 + 4
}

/// Open-addressed cells, by further bits of the hash.
pub(crate) struct Page {
    depth: u32,
    len: usize,
    cells: Vec<Option<Entry>>,
}

/// So many peers that live side by side, and came at the same time, lie side by side: who made them one after another finds
/// the next one where the last one was.
const BLOCK: usize = 8;

/// Where a peer is looked for.
#[derive(Clone, Copy)]
struct Hash {
    /// Of where its neighbourhood is and when it lives. Both count in all bits: those who lived in one place one after another
    /// must not lie one after another here. (The steps are those of a finalizer by D. Stafford.)
    block: u64,
    /// Which of its neighbours it is.
    lane: usize,
}

#[inline]
fn hash(peer: Line) -> Hash {
    let place = std::ptr::from_ref(peer.slot).addr() / size_of::<crate::slot::Slot>();
    let mut hash = (place / BLOCK) as u64 ^ u64::from(peer.generation).rotate_left(32);
    hash = (hash ^ hash >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    hash = (hash ^ hash >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    hash ^= hash >> 31;
    // Turned by the hash: of those who live eight places from each other not all are in one lane.
    Hash { block: hash, lane: place.wrapping_add(hash as usize) % BLOCK }
}

impl Pages {
    fn new() -> Pages {
        Pages { len: 0, depth: 0, directory: vec![0], pages: vec![Page::new(0, FIRST_PAGE)] }
    }

    /// As few pages as so many entries are likely to be in without a split: who makes room beforehand does not want to be held
    /// up later. One page has no odds.
    fn with_room(entries: usize) -> Pages {
        let cells = cells_for(entries).next_power_of_two();
        let depth = if cells <= PAGE { 0 } else { (entries / SHARE).ilog2() + 1 }.min(DEEPEST);
        let directory: Vec<u32> = (0..1 << depth).collect();
        let pages = directory.iter().map(|_| Page::new(depth, cells.clamp(FIRST_PAGE, PAGE))).collect();
        Pages { len: 0, depth, directory, pages }
    }

    /// Whether it would not be larger if it had been made for so many.
    fn have_room(&self, entries: usize) -> bool {
        match &self.pages[..] {
            [only] => cells_for(entries) <= only.cells.len(),
            pages => entries < pages.len() * SHARE,
        }
    }

    #[inline]
    fn page(&self, hash: Hash) -> usize {
        // A shift by 64 is none at all where there is one page only.
        let place = hash.block.checked_shr(u64::BITS - self.depth).unwrap_or(0);
        self.directory[place as usize] as usize
    }

    fn get(&self, peer: Line) -> Option<&Entry> {
        let hash = hash(peer);
        let page = &self.pages[self.page(hash)];
        page.cells[page.cell(page.find(peer, hash).ok()?)].as_ref()
    }

    fn get_mut(&mut self, peer: Line) -> Option<&mut Entry> {
        let hash = hash(peer);
        let page = self.page(hash);
        let page = &mut self.pages[page];
        let at = page.cell(page.find(peer, hash).ok()?);
        page.cells[at].as_mut()
    }

    /// The entry of a peer; one that says nothing, if there was none.
    fn entry(&mut self, peer: Line, spent: &impl Fn(&Entry) -> bool) -> &mut Entry {
        let hash = hash(peer);
        let mut at = self.page(hash);
        let mut found = self.pages[at].find(peer, hash);
        if found.is_err() {
            if self.pages[at].is_full() {
                self.make_room(hash, spent);
                at = self.page(hash);
                found = self.pages[at].find(peer, hash);
            }
            self.len += usize::from(found.is_err());
            self.pages[at].len += usize::from(found.is_err());
        }
        let page = &mut self.pages[at];
        let at = page.cell(found.unwrap_or_else(|free| free));
        page.cells[at].get_or_insert(Entry::new(peer, Bits::NONE, 0))
    }

    /// Makes room in a page that is full.
    #[cold]
    #[inline(never)]
    fn make_room(&mut self, hash: Hash, spent: &impl Fn(&Entry) -> bool) {
        loop {
            let at = self.page(hash);
            let page = &mut self.pages[at];
            if !page.is_full() {
                return;
            }
            let (before, cells) = (page.len, page.cells.len());
            let left = before - page.cells.iter().flatten().filter(|old| spent(old)).count();
            if left > cells / 2 && cells >= PAGE && page.depth < DEEPEST {
                self.split(at);
                continue;
            }
            let cells = if left > cells / 2 { cells * 2 } else { cells };
            page.rebuild(cells, |old| left == before || !spent(old));
            self.len -= before - page.len;
        }
    }

    /// Makes two pages of one, by the next bit of the hash.
    fn split(&mut self, at: usize) {
        let page = &mut self.pages[at];
        page.depth += 1;
        let depth = page.depth;
        let mut other = Page::new(depth, page.cells.len());
        let goes = |entry: &Entry| hash(entry.peer()).block >> (u64::BITS - depth) & 1 == 1;
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
        let hash = hash(peer);
        let page = self.page(hash);
        let page = &mut self.pages[page];
        let at = page.find(peer, hash).ok()?;
        self.len -= 1;
        page.take(at)
    }
}

impl Page {
    fn new(depth: u32, cells: usize) -> Page {
        Page { depth, len: 0, cells: vec![None; cells] }
    }

    #[inline]
    fn is_full(&self) -> bool {
        self.len >= self.cells.len() / 4 * 3
    }

    /// Where the search for a peer begins. Places are counted lane by lane, so that whoever looks further does not look at the
    /// neighbours, each of which has its own way.
    #[inline]
    fn home(&self, hash: Hash) -> usize {
        let blocks = self.cells.len() / BLOCK;
        // Below the bits that a directory of the greatest depth uses.
        hash.lane * blocks + ((hash.block >> 20) as usize & (blocks - 1))
    }

    /// The cell of a place: the lanes lie side by side.
    #[inline]
    fn cell(&self, place: usize) -> usize {
        let cells = self.cells.len();
        ((place * BLOCK) & (cells - 1)) + (place >> (cells.trailing_zeros() - BLOCK.trailing_zeros()))
    }

    /// Where a peer is, or else the empty place where it would be.
    #[inline]
    fn find(&self, peer: Line, hash: Hash) -> Result<usize, usize> {
        let mut at = self.home(hash);
        // There is always an empty cell: a page is at most three quarters full.
        while let Some(entry) = &self.cells[self.cell(at)] {
            if entry.peer() == peer {
                return Ok(at);
            }
            at = (at + 1) & (self.cells.len() - 1);
        }
        Err(at)
    }

    fn put(&mut self, entry: Entry) {
        let (Ok(place) | Err(place)) = self.find(entry.peer(), hash(entry.peer()));
        let at = self.cell(place);
        self.cells[at] = Some(entry);
        self.len += 1;
    }

    /// Empties a place and moves up what probing would no longer find behind it.
    fn take(&mut self, at: usize) -> Option<Entry> {
        let mask = self.cells.len() - 1;
        let cell = self.cell(at);
        let taken = self.cells[cell].take();
        let (mut hole, mut next) = (at, at);
        loop {
            next = (next + 1) & mask;
            let from = self.cell(next);
            let Some(entry) = self.cells[from] else { break };
            let home = self.home(hash(entry.peer()));
            if next.wrapping_sub(home) & mask >= next.wrapping_sub(hole) & mask {
                let to = self.cell(hole);
                self.cells[to] = self.cells[from].take();
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
    fn an_end_of_watching_after_a_change_is_a_change_too() {
        let device = Device::new();
        for bits in 0..1024 {
            let change = Entry::new(device.line(), Bits(bits), 7);
            let (mut then, mut shortly) = (change, change);
            then.then(&Entry::new(device.line(), Bits::UNWATCH, 0));
            shortly.then_unwatch();
            let kept = Bits::POLICY | Bits::TAGGED.0 | Bits::AFRESH.0 | 15;
            assert_eq!((then.bits.0, then.tag), (shortly.bits.0 & kept, shortly.tag), "{bits}");
        }
    }

    #[test]
    fn a_change_after_a_change_is_both_changes() {
        let device = Device::new();
        let peer = device.line();
        // A change does not set and clear the same bit.
        let sound = |bits: &u32| bits & bits >> 2 & 3 == 0;
        let entry = |bits: u32, named: u32, tag: u64| {
            let policies = [None, Some(OnFault::Cascade), Some(OnFault::Ignore), Some(OnFault::HandOver)];
            let policy = if bits & 1 != 0 { policies[named as usize] } else { None };
            let tagged = bits & 1 != 0 && named & 1 != 0;
            let bits = Bits(bits).with_policy(policy).with(Bits::TAGGED, tagged);
            Entry::new(peer, bits, if tagged { tag } else { 0 })
        };
        for first in (0..16u32).filter(sound) {
            for later in (0..16u32).filter(sound) {
                for last in (0..16u32).filter(sound) {
                    for (held, named) in (0..4u32).flat_map(|held| (0..64u32).map(move |named| (held, named)))
                    {
                        let changes = [
                            entry(first, named & 3, 1),
                            entry(later, named >> 2 & 3, 2),
                            entry(last, named >> 4, 3),
                        ];
                        let mut one_by_one =
                            Entry::new(peer, Bits(held).with_policy(Some(OnFault::HandOver)), 9);
                        changes.iter().for_each(|change| one_by_one.apply(change));
                        let mut change = changes[0];
                        change.then(&changes[1]);
                        change.then(&changes[2]);
                        let mut at_once =
                            Entry::new(peer, Bits(held).with_policy(Some(OnFault::HandOver)), 9);
                        at_once.apply(&change);
                        assert_eq!(one_by_one.bits.0 & 3, at_once.bits.0 & 3);
                        if at_once.bits.has(Bits::WATCH) {
                            let said = |entry: Entry| (entry.tag, entry.bits.policy());
                            assert_eq!(said(one_by_one), said(at_once), "{held} {changes:?}");
                        }
                    }
                }
            }
        }
    }

    /// The same operations on a table and on a map from the standard library.
    #[test]
    fn a_table_is_a_map_at_every_size() {
        let devices: Vec<Device> = (0..5_000).map(|_| Device::new()).collect();
        let (mut table, mut map) = (Table::<()>::new(), HashMap::new());
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
                table.entry(peer, |_| false).tag = round;
            }
            assert_eq!(table.len(), map.len());
        }
        for device in &devices {
            let peer = device.line();
            assert_eq!(table.get(peer).map(|e| e.tag), map.get(&peer.id()).copied());
        }
        let mut left: Vec<_> = table.take_entries().map(|e| (e.peer().id(), e.tag)).collect();
        left.sort();
        let mut expected: Vec<_> = map.into_iter().collect();
        expected.sort();
        assert_eq!(left, expected);
    }

    #[test]
    fn room_that_was_made_is_enough_and_not_much_too_much() {
        let devices: Vec<Device> = (0..20_000).map(|_| Device::new()).collect();
        let cells = |table: &Table| match table.many() {
            Some(Many::Pages(pages)) => pages.pages.iter().map(|page| page.cells.len()).sum(),
            Some(Many::List(list)) => list.len(),
            None => 2,
        };
        for many in [0, 1, 2, 3, 32, 33, 90, 150, 300, 700, 765, 1_000, 3_000, 6_100, 12_000, 20_000] {
            let (mut made, mut grown) = (Table::<()>::new(), Table::<()>::new());
            for before in &devices[..many.min(3)] {
                made.entry(before.line(), |_| false).tag = 1;
            }
            made.reserve(many - many.min(3));
            let at_first = cells(&made);
            for device in &devices[..many] {
                made.entry(device.line(), |_| false).tag += 1;
                grown.entry(device.line(), |_| false);
            }
            // At worst one entry more was one too many, and then half of what is made is not needed yet.
            assert!(cells(&made) <= cells(&grown) * 2, "{} for {many}", cells(&made));
            let split = (cells(&made) - at_first) / PAGE;
            assert!(many < 33 || split <= many / PAGE / 4 + 1, "{split} pages were split for {many}");
            made.reserve(0);
            assert_eq!((made.len(), cells(&made) >= at_first), (many, true));
            let tags = devices[..many].iter().map(|device| made.get(device.line()).map(|entry| entry.tag));
            assert!(tags.enumerate().all(|(n, tag)| tag == Some(1 + u64::from(n < 3))));
        }
    }

    #[test]
    fn room_is_made_where_a_page_is_too_small_for_it() {
        let devices: Vec<Device> = (0..640).map(|_| Device::new()).collect();
        let mut table = Table::<()>::new();
        for device in &devices[..40] {
            table.entry(device.line(), |_| false);
        }
        table.reserve(600);
        let cells = |table: &Table| match table.many() {
            Some(Many::Pages(pages)) => pages.pages.iter().map(|page| page.cells.len()).sum(),
            _ => 0,
        };
        assert_eq!(cells(&table), PAGE);
        for device in &devices {
            table.entry(device.line(), |_| false);
        }
        assert_eq!((table.len(), cells(&table)), (640, PAGE), "nothing was moved");
    }

    /// Here peers end, too, and others come to live where they lived.
    #[test]
    fn a_table_that_is_swept_keeps_all_that_is_not_spent() {
        let mut devices: Vec<Device> = (0..3_000).map(|_| Device::new()).collect();
        let (mut table, mut map) = (Table::<()>::new(), HashMap::new());
        let is_spent = |tag: u64| tag % 4 == 1;
        let mut seed = 7u64;
        for round in 0..150_000u64 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = (seed >> 33) as usize % (1 + round as usize / 20).min(devices.len());
            let peer = devices[at].line();
            match (seed >> 20) % 10 {
                0..=2 => match (table.remove(peer), map.remove(&peer.id())) {
                    (Some(entry), Some((_, tag))) => assert_eq!(entry.tag, tag),
                    (None, Some((_, tag))) => assert!(is_spent(tag), "{tag} is gone"),
                    (entry, None) => assert!(entry.is_none(), "there was none"),
                },
                3 => devices[at] = Device::new(),
                _ => {
                    table.entry(peer, |old| is_spent(old.tag)).tag = round;
                    map.insert(peer.id(), (peer, round));
                }
            }
            assert!(table.len() <= map.len());
            if round % 5_000 == 0 {
                for (peer, tag) in map.values() {
                    match table.get(*peer) {
                        Some(entry) => assert_eq!(entry.tag, *tag),
                        None => assert!(is_spent(*tag), "{tag} is gone"),
                    }
                }
            }
        }
        assert!(table.is_long() && table.len() < map.len(), "it was swept");
        let len = table.len();
        assert!(table.take_entries().all(|entry| map.remove(&entry.peer().id()).is_some()));
        assert!(map.values().all(|(_, tag)| is_spent(*tag)), "the rest went as spent");
        assert!(len > 1_000);
    }

    #[test]
    fn what_is_spent_makes_room() {
        let devices: Vec<Device> = (0..100_000).map(|_| Device::new()).collect();
        let mut table = Table::<()>::new();
        for device in &devices {
            table.entry(device.line(), |_| true);
            assert!(table.get(device.line()).is_some());
        }
        assert!(table.len() < PAGE, "{} entries stayed", table.len());
    }
}
