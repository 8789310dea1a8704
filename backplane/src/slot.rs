//! Where a device's shared half lives, and is used again.
//!
//! Slots are made in chunks, never freed and always reused, so that a reference to one is `'static` and costs nothing to
//! copy. What tells the users of a slot apart is its generation.

use std::{cell::Cell, task::Waker};

use crate::{
    exit::Exit,
    id::DeviceId,
    label::Label,
    line::Line,
    queue::Queue,
    sync::{Arc, Mutex, MutexGuard, Word, lock},
    table::{Bits, Entry, Table},
};

/// News is waiting.
pub(crate) const NEWS: u64 = 1;
/// Changes of links, made from elsewhere, are waiting.
pub(crate) const CHANGES: u64 = 2;
/// Somebody waits for news: the state holds a waker.
pub(crate) const WAKER: u64 = 4;
/// The owner has been condemned: its drop is a kill.
const CONDEMNED: u64 = 8;
/// The state holds a label.
const LABEL: u64 = 16;
/// How often an entry that watched has been forgotten, or a change (invariant 6): all that is left of the lower half. It
/// may begin anew: who compares has seen it a moment ago.
const FORGOT: u64 = u32::MAX as u64 & !(FORGOT_ONE - 1);
const FORGOT_ONE: u64 = 32;
/// What is looked at when the slot is closed.
const FLAGS: u64 = NEWS | CHANGES | WAKER | CONDEMNED | LABEL;

/// A device's shared half. A cache-line pair of its own, for neighbours belong to strangers.
#[repr(align(128))]
pub(crate) struct Slot {
    /// Generation in the upper half, flags in the lower. Written under the lock of `state`, but for [`Slot::retire`].
    ///
    /// A generation goes up by two: `g` is open; `g + 1` is closed, and its watchers are being told; `g + 2` has told
    /// them all, and is open again as soon as somebody takes the slot.
    word: Word,
    index: u32,
    state: Mutex<State>,
}

#[cfg(not(backplane_loom))]
const _: () = assert!(size_of::<Slot>() == 128);

struct State {
    /// The oldest news; there is no more without it.
    first: Option<Notice>,
    /// A change of links; there are no more without it.
    change: Option<Entry>,
    more: Option<Box<More>>,
    waker: Option<Waker>,
    label: Option<Arc<Label>>,
}

/// What does not find room in a slot.
#[derive(Default)]
pub(crate) struct More {
    pub(crate) news: Queue<Notice>,
    pub(crate) changes: Table,
}

/// News on its way.
pub(crate) struct Notice {
    slot: &'static Slot,
    generation: u32,
    pub(crate) bits: Bits,
    /// With [`Bits::DECIDED`] the watcher's tag, with [`Bits::SHUTDOWN`] the id of who asks.
    pub(crate) tag: u64,
    pub(crate) exit: Exit,
}

impl Notice {
    #[inline]
    fn new(from: Line, bits: Bits, tag: u64, exit: &Exit) -> Notice {
        Notice { slot: from.slot, generation: from.generation, bits, tag, exit: exit.clone() }
    }

    #[inline]
    pub(crate) fn from(&self) -> Line {
        Line { slot: self.slot, generation: self.generation }
    }
}

/// All that waited in a slot, taken at once.
pub(crate) struct Batch {
    pub(crate) first: Option<Notice>,
    pub(crate) change: Option<Entry>,
    pub(crate) more: Option<Box<More>>,
}

/// A slot under its lock, of the generation that was asked for. While one exists, nothing of the user's runs and no other lock is
/// taken.
struct Open<'a> {
    slot: &'a Slot,
    word: u64,
    state: MutexGuard<'a, State>,
}

impl State {
    /// The change that waits for this peer.
    #[inline]
    fn change(&mut self, peer: Line) -> Option<&mut Entry> {
        // Without the inline one there are no others.
        let inline = self.change.as_ref()?.peer() == peer;
        if inline { self.change.as_mut() } else { self.change_of_more(peer) }
    }

    #[inline(never)]
    fn change_of_more(&mut self, peer: Line) -> Option<&mut Entry> {
        self.more.as_mut()?.changes.get_mut(peer)
    }

    /// Puts a change beside those that wait, the last one for each peer counting. Returns how much was forgotten for it.
    #[inline]
    fn change_later(&mut self, change: Entry) -> u64 {
        match &mut self.change {
            place @ None => *place = Some(change),
            Some(waiting) if waiting.peer() == change.peer() => waiting.then(&change),
            Some(_) => return self.change_beside(change),
        }
        0
    }

    #[inline(never)]
    fn change_beside(&mut self, change: Entry) -> u64 {
        if let Some(waiting) = self.change_of_more(change.peer()) {
            waiting.then(&change);
            return 0;
        }
        let forgot = Cell::new(0);
        // A peer that has told everybody can tell nobody any more: no change concerns it (invariant 6).
        let spent = |old: &Entry| {
            let spent = old.peer().has_told();
            if spent {
                forgot.set(FORGOT_ONE);
            }
            spent
        };
        match &mut self.change {
            Some(old) if !spent(old) => {
                *self.more.get_or_insert_default().changes.entry(change.peer(), spent) = change;
            }
            place => *place = Some(change),
        }
        forgot.get()
    }

    /// Whether so many changes wait that the owner, if it waits itself, had better look at them.
    #[inline]
    fn is_crowded(&self) -> bool {
        self.more.as_ref().is_some_and(|more| more.changes.is_long())
    }
}

impl Open<'_> {
    #[inline]
    fn flag(&mut self, set: u64, clear: u64) {
        self.word = self.word & !clear | set;
        self.slot.word.set(self.word);
    }

    /// What a change that waits has to say to news of an end: nothing, which leaves it to the owner's table, the bits and
    /// the tag under which it is heard, or, with `None`, that it is not (invariant 4).
    #[inline]
    fn measure(&mut self, from: Line) -> Option<(Bits, u64)> {
        let undecided = (Bits::NONE, 0);
        if self.word & CHANGES == 0 {
            return Some(undecided);
        }
        let Some(change) = self.state.change(from) else { return Some(undecided) };
        if change.bits.has(Bits::UNWATCH) {
            return None;
        }
        if !change.bits.has(Bits::WATCH) {
            return Some(undecided);
        }
        let heard = (change.bits.with(Bits::DECIDED, true), change.tag);
        // What has been heard once is not heard again.
        change.then_unwatch();
        Some(heard)
    }

    /// Puts in news, lets go of the lock, and wakes whoever waits for it.
    #[inline(always)]
    fn deliver(mut self, from: Line, bits: Bits, tag: u64, exit: &Exit) {
        // Put together where it stays: each copy would wait for the stores of the one before.
        match &mut self.state.first {
            place @ None => *place = Some(Notice::new(from, bits, tag, exit)),
            Some(_) => self.push_more(from, bits, tag, exit),
        }
        let waker = if self.word & WAKER != 0 { self.state.waker.take() } else { None };
        self.flag(NEWS, WAKER);
        drop(self);
        if let Some(waker) = waker {
            wake(waker);
        }
    }

    #[inline(never)]
    fn push_more(&mut self, from: Line, bits: Bits, tag: u64, exit: &Exit) {
        self.state.more.get_or_insert_default().news.push(Notice::new(from, bits, tag, exit));
    }
}

/// The word when so much more has been forgotten.
#[inline]
fn forgotten(word: u64, more: u64) -> u64 {
    word & !FORGOT | (word + more) & FORGOT
}

#[inline(never)]
fn wake(waker: Waker) {
    crate::unwind::quietly(|| waker.wake());
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Slot({})", self.index)
    }
}

impl Slot {
    pub(crate) fn new(index: u32) -> Slot {
        Slot {
            word: Word::new(1 << 32),
            index,
            state: Mutex::new(State { first: None, change: None, more: None, waker: None, label: None }),
        }
    }

    #[inline]
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    #[inline]
    pub(crate) fn word(&self) -> u64 {
        self.word.get()
    }

    #[inline]
    pub(crate) fn generation(&self) -> u32 {
        (self.word() >> 32) as u32
    }

    #[inline]
    fn open(&self, generation: u32) -> Option<Open<'_>> {
        let state = lock(&self.state);
        let word = self.word.get_locked();
        ((word >> 32) as u32 == generation).then_some(Open { slot: self, word, state })
    }

    /// Leaves a change of links for the owner; while its watchers are being told, for whoever tells them. `None` if they
    /// have been told; else the slot's word, for [`tell_gone`](Slot::tell_gone).
    #[inline]
    pub(crate) fn change(&self, generation: u32, change: Entry) -> Option<u64> {
        let Some(mut open) = self.open(generation) else { return self.change_late(generation, change) };
        let forgot = open.state.change_later(change);
        open.word = forgotten(open.word, forgot);
        let wakes = open.word & WAKER != 0 && open.state.is_crowded();
        let waker = if wakes { open.state.waker.take() } else { None };
        open.flag(CHANGES, if wakes { WAKER } else { 0 });
        let word = open.word;
        drop(open);
        if let Some(waker) = waker {
            wake(waker);
        }
        Some(word)
    }

    #[cold]
    fn change_late(&self, generation: u32, change: Entry) -> Option<u64> {
        if self.generation() != generation + 1 {
            return None;
        }
        let mut closing = self.open(generation + 1)?;
        // `retire` does not wait for the lock: it is stopped by the flag, or was here before.
        let flagged = closing.word | CHANGES;
        let stopped = self.word.change(closing.word, flagged);
        if stopped {
            closing.state.change_later(change);
        }
        stopped.then_some(flagged)
    }

    /// Tells of another's end; at once what a waiting change has to say to it, for the owner's table does not know of
    /// the change yet.
    #[inline]
    pub(crate) fn tell(&self, generation: u32, from: Line, exit: &Exit) {
        let Some(mut open) = self.open(generation) else { return };
        let Some((bits, tag)) = open.measure(from) else { return };
        open.deliver(from, bits, tag, exit);
    }

    /// The link that was being made is not made, for the other was gone: unless that has been heard, or the link undone,
    /// meanwhile, it is heard now. Where something was forgotten since the link began, which left `word`, that may be the
    /// entry that would tell, and it is heard: a link that is not done yet can come after all that was (invariant 6).
    #[cold]
    pub(crate) fn tell_gone(&self, generation: u32, link: Entry, word: u64, exit: &Exit) {
        let Some(mut open) = self.open(generation) else { return };
        let from = link.peer();
        let Some((mut bits, mut tag)) = open.measure(from) else { return };
        if (open.word ^ word) & FORGOT != 0 && !bits.has(Bits::DECIDED) {
            (bits, tag) = (link.bits.with(Bits::DECIDED, true), link.tag);
        }
        open.deliver(from, bits, tag, exit);
    }

    /// Whether the owner's table may forget entries that watch who has told everybody: not where news waits, which may be
    /// of them. Who finds one of them gone from here on knows that there is no entry to ask (invariant 6).
    #[cold]
    pub(crate) fn may_forget(&self) -> bool {
        let state = lock(&self.state);
        let word = self.word.get_locked();
        let may = word & NEWS == 0;
        if may {
            self.word.set(forgotten(word, FORGOT_ONE));
        }
        drop(state);
        may
    }

    /// Asks the owner to stop. A request that waits already is not put behind itself, unless it is the owner's own: those
    /// it may count.
    pub(crate) fn shutdown(&'static self, generation: u32, from: DeviceId) {
        let Some(mut open) = self.open(generation) else { return };
        let to = Line { slot: self, generation };
        let state = &mut *open.state;
        let last = match state.more.as_mut().and_then(|more| more.news.last()) {
            Some(last) => Some(last),
            None => state.first.as_ref(),
        };
        let waits = last.is_some_and(|last| last.bits.has(Bits::SHUTDOWN) && last.tag == from.as_u64());
        if waits && from != to.id() {
            return;
        }
        open.deliver(to, Bits::SHUTDOWN, from.as_u64(), &Exit::Shutdown);
    }

    pub(crate) fn condemn(&self, generation: u32) {
        if let Some(mut open) = self.open(generation) {
            open.flag(CONDEMNED, 0);
        }
    }

    pub(crate) fn label(&self, generation: u32) -> Option<Arc<Label>> {
        self.open(generation)?.state.label.clone()
    }

    pub(crate) fn set_label(&self, generation: u32, label: Arc<Label>) {
        let before = self.open(generation).and_then(|mut open| {
            open.flag(LABEL, 0);
            open.state.label.replace(label)
        });
        drop(before);
    }

    /// Takes the news, if there is one piece of it and nothing else to be looked at with it. The owner's, as the three that
    /// follow.
    #[inline]
    pub(crate) fn take_one(&self) -> Option<Notice> {
        let mut state = lock(&self.state);
        let word = self.word.get_locked();
        if word & (NEWS | CHANGES) != NEWS || state.more.is_some() {
            return None;
        }
        self.word.set(word & !NEWS);
        state.first.take()
    }

    /// Takes all that waits.
    #[inline(never)]
    pub(crate) fn take(&self) -> Batch {
        let mut state = lock(&self.state);
        self.word.set(self.word.get_locked() & !(NEWS | CHANGES));
        Batch { first: state.first.take(), change: state.change.take(), more: state.more.take() }
    }

    /// Waits for news: `waker` is told when there is some. False if there is some, or a change.
    #[inline]
    pub(crate) fn wait(&self, waker: Waker) -> bool {
        let mut state = lock(&self.state);
        let word = self.word.get_locked();
        if word & (NEWS | CHANGES) != 0 {
            drop(state);
            return false;
        }
        let before = state.waker.replace(waker);
        self.word.set(word | WAKER);
        drop(state);
        // It is the user's.
        drop(before);
        true
    }

    /// Takes the waker out, for the owner who has news for itself.
    pub(crate) fn take_waker(&self) -> Option<Waker> {
        let mut state = lock(&self.state);
        let word = self.word.get_locked() & !WAKER;
        self.word.set(word);
        state.waker.take()
    }

    /// Locks the slot of an open device for the last time.
    #[inline]
    pub(crate) fn closing(&'static self) -> Closing {
        let state = lock(&self.state);
        Closing { slot: self, word: self.word.get_locked(), state }
    }

    /// Closed to told, unless there are late changes: those come back, with the slot as it was.
    #[inline]
    pub(crate) fn retire(&'static self, generation: u32) -> Result<(), Batch> {
        let (closing, told) = (u64::from(generation + 1) << 32, u64::from(generation + 2) << 32);
        if self.word.change(closing, told) {
            self.give(generation);
            return Ok(());
        }
        let mut state = lock(&self.state);
        self.word.set(closing);
        Err(Batch { first: None, change: state.change.take(), more: state.more.take() })
    }

    /// Whether there is nothing in it at all, where nobody but the owner can reach it.
    #[inline]
    pub(crate) fn is_plain(&self, generation: u32) -> bool {
        self.word.get_locked() == u64::from(generation) << 32
    }

    /// Open to closed, where nobody but the owner can reach it.
    #[inline]
    pub(crate) fn close_unknown(&self, generation: u32) {
        self.word.set(u64::from(generation + 1) << 32);
    }

    /// Open or closed to told, where nobody can leave anything any more.
    #[inline]
    pub(crate) fn retire_unknown(&'static self, generation: u32) {
        self.word.set(u64::from(generation + 2) << 32);
        self.give(generation);
    }

    #[inline]
    fn give(&'static self, generation: u32) {
        // A name is never used twice: a slot whose generations are used up is not used any more.
        if generation < u32::MAX - 4 {
            slab::give(self);
        }
    }
}

/// A slot on its way from open to closed, for good; where there is nobody to tell, to told as well.
pub(crate) struct Closing {
    slot: &'static Slot,
    word: u64,
    state: MutexGuard<'static, State>,
}

impl Closing {
    /// Whether there is nothing in it but, perhaps, one piece of news and one change.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        self.word & (FLAGS & !(NEWS | CHANGES)) == 0
            && (self.word & (NEWS | CHANGES) == 0 || self.state.more.is_none())
    }

    /// Closes a slot that is plain. Returns whether there is nobody to tell, and the change.
    #[inline]
    pub(crate) fn close(mut self, watched: bool) -> (bool, Option<Entry>) {
        let mut change = None;
        if self.word & NEWS != 0 {
            // Nobody hears it. What it says is ours: it may be dropped under the lock.
            self.state.first = None;
        }
        if self.word & CHANGES != 0 {
            change = self.state.change.take().filter(Entry::changes_notify);
        }
        let told = !watched && !change.as_ref().is_some_and(Entry::is_heard);
        let Closing { slot, word, state } = self;
        let generation = (word >> 32) as u32;
        let next = if told { generation + 2 } else { generation + 1 };
        slot.word.set(u64::from(next) << 32);
        drop(state);
        if told {
            slot.give(generation);
        }
        (told, change)
    }

    /// Closes a slot and takes out what is in it, to be dropped when nothing is locked any more.
    #[inline(never)]
    pub(crate) fn take(self) -> Remains {
        let Closing { slot, word, mut state } = self;
        let remains = Remains {
            condemned: word & CONDEMNED != 0,
            first: state.first.take(),
            change: state.change.take(),
            more: state.more.take(),
            waker: state.waker.take(),
            label: state.label.take(),
        };
        let closed = (word & !u64::from(u32::MAX)) + (1 << 32);
        slot.word.set(closed);
        drop(state);
        remains
    }
}

/// What a slot held when its device ended.
pub(crate) struct Remains {
    pub(crate) condemned: bool,
    /// News that nobody hears.
    #[expect(dead_code, reason = "it is only dropped")]
    first: Option<Notice>,
    pub(crate) change: Option<Entry>,
    pub(crate) more: Option<Box<More>>,
    waker: Option<Waker>,
    pub(crate) label: Option<Arc<Label>>,
}

impl Drop for Remains {
    #[inline]
    fn drop(&mut self) {
        if let Some(waker) = self.waker.take() {
            crate::unwind::quietly(|| drop(waker));
        }
    }
}

/// Takes a free slot, open.
#[inline]
pub(crate) fn take() -> &'static Slot {
    slab::take()
}

#[cfg(not(backplane_loom))]
mod slab {
    //! Free slots: a small store for each thread, which trades with a common one by the batch.

    use std::cell::Cell;

    use super::{Mutex, Slot, lock};

    /// So many change hands at a time.
    const BATCH: usize = 64;
    const ROOM: usize = 2 * BATCH;
    /// In the place of a length: the thread is ending, and its store is closed.
    const CLOSED: usize = usize::MAX;

    struct Common {
        free: Vec<&'static Slot>,
        made: u32,
    }

    static COMMON: Mutex<Common> = Mutex::new(Common { free: Vec::new(), made: 0 });

    struct Store {
        len: Cell<usize>,
        slots: [Cell<Option<&'static Slot>>; ROOM],
    }

    thread_local! {
        /// Has no destructor, so that nothing is checked on the way to it.
        static STORE: Store = const { Store { len: Cell::new(0), slots: [const { Cell::new(None) }; ROOM] } };
        /// Has one, which empties the store. Touched whenever the store was empty.
        static CLOSER: Closer = const { Closer };
    }

    struct Closer;

    impl Drop for Closer {
        fn drop(&mut self) {
            STORE.with(|store| {
                let len = store.len.replace(CLOSED);
                lock(&COMMON).free.extend(store.slots[..len].iter().filter_map(Cell::take));
            });
        }
    }

    #[inline]
    pub(super) fn take() -> &'static Slot {
        STORE.with(|store| {
            let below = store.len.get().wrapping_sub(1);
            if let Some(slot) = store.slots.get(below)
                && let Some(slot) = slot.get()
            {
                store.len.set(below);
                return slot;
            }
            refill(store)
        })
    }

    #[inline]
    pub(super) fn give(slot: &'static Slot) {
        STORE.with(|store| {
            let len = store.len.get();
            match store.slots.get(len) {
                Some(place) if len > 0 => {
                    place.set(Some(slot));
                    store.len.set(len + 1);
                }
                _ => spill(store, slot),
            }
        });
    }

    /// For a store that is empty, or closed.
    #[cold]
    #[inline(never)]
    fn refill(store: &Store) -> &'static Slot {
        let open = CLOSER.try_with(|_| ()).is_ok();
        let mut common = lock(&COMMON);
        if common.free.is_empty() {
            let first = common.made;
            // Past four thousand million devices alive at once there is no memory left to say so in.
            common.made = first.checked_add(BATCH as u32).expect("fewer devices than the memory holds");
            let chunk: Vec<Slot> = (first..first + BATCH as u32).map(Slot::new).collect();
            common.free.extend(chunk.leak().iter().rev());
        }
        let slot = common.free.pop().expect("there is a chunk at least");
        if open {
            let from = common.free.len().saturating_sub(BATCH);
            let len = common.free.len() - from;
            for (place, slot) in store.slots.iter().zip(common.free.drain(from..)) {
                place.set(Some(slot));
            }
            store.len.set(len);
        }
        slot
    }

    /// For a store that is empty, full, or closed.
    #[cold]
    #[inline(never)]
    fn spill(store: &Store, slot: &'static Slot) {
        let open = CLOSER.try_with(|_| ()).is_ok();
        if !open {
            lock(&COMMON).free.push(slot);
            return;
        }
        let mut len = store.len.get();
        if len == ROOM {
            // The oldest go: the newest are in the cache.
            lock(&COMMON).free.extend(store.slots[..BATCH].iter().filter_map(Cell::take));
            for i in BATCH..ROOM {
                store.slots[i - BATCH].swap(&store.slots[i]);
            }
            len = ROOM - BATCH;
        }
        store.slots[len].set(Some(slot));
        store.len.set(len + 1);
    }
}

#[cfg(backplane_loom)]
mod slab {
    //! Free slots, for a model: reused at once, so that a late line meets the next generation.

    use super::{Mutex, Slot, lock};

    loom::lazy_static! {
        static ref FREE: Mutex<(Vec<&'static Slot>, u32)> = Mutex::new((Vec::new(), 0));
    }

    pub(super) fn take() -> &'static Slot {
        let mut free = lock(&*FREE);
        if let Some(slot) = free.0.pop() {
            return slot;
        }
        free.1 += 1;
        Box::leak(Box::new(Slot::new(free.1)))
    }

    pub(super) fn give(slot: &'static Slot) {
        lock(&*FREE).0.push(slot);
    }
}
