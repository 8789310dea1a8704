//! The bounded queue and its system lane, from the receiver's side and from below.
//!
//! 1. **One lock at a time**, and nothing of the user's under it: no waker is woken and no message dropped there.
//! 2. **The receiver takes many at once.** What it has in hand counts as waiting until it is taken out of the hand;
//!    `taken` says how much that is, and only the receiver writes it.
//! 3. **Who waits for room has put the message down.** The receiver moves it into the queue as soon as there is room, so
//!    nobody overtakes, but who has the oldest dropped for it, and the order of one sender is kept.
//! 4. **The hand comes back.** A receiver that goes puts what it has not taken back, in front.
//! 5. **There is one receiver.** A mailbox that somebody keeps for longer than its incarnation is none any more: when it is
//!    asked for the next message or dropped, what it has, in hand or set aside, shares the lot of the queue that its incarnation
//!    left. It comes back in front, or as urgent where the next one has begun; where the queue was not kept, it is buried.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    future::{Future, poll_fn},
    mem,
    task::{Context, Poll, Waker},
    time::Duration,
};

use backplane::{DeviceId, Exit, Fault, Line, Message, catch};

use crate::{
    address::{Address, WeakAddress},
    calls::Calls,
    clock::Clock,
    frame::{CallState, Node},
    lane::{FIRST, Hand, Lane, Last},
    name::ActorName,
    observe,
    options::{DEFAULT_CAPACITY, DeadLetter, Options, Overdue, QueueOnRestart},
    sync::{Arc, AtomicU32, AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering, lock},
    watch::Watches,
};

/// Which messages come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Priority {
    /// In the order in which they were accepted.
    Normal,
    /// Before all normal ones, but not more than eight in a row while a normal one waits. It has places of its own, as
    /// many as the mailbox has for normal messages.
    Urgent,
}

/// So many urgent messages may pass one that is not.
const STREAK: u8 = 8;
/// So many messages are received in one poll, before others get their turn.
const TURN: u8 = u8::MAX;

/// A message, and the call that it asks, if it does.
pub(crate) struct Item<M> {
    pub(crate) message: M,
    pub(crate) call: Option<Arc<dyn CallState>>,
}

impl<M> Item<M> {
    /// It is a call, and nobody waits for it any more.
    fn is_over(&self) -> bool {
        self.call.as_ref().is_some_and(|call| call.is_over())
    }
}

/// What all actors of a system share.
pub(crate) struct World {
    pub(crate) clock: Arc<Clock>,
    pub(crate) dead: AtomicU64,
    pub(crate) numbers: AtomicU64,
}

/// Something waits that is not in the receiver's hand and comes first, or has to be looked at.
const SYSTEM: u32 = 1;
const URGENT: u32 = 2;
const WAITING: u32 = 4;
const STOP: u32 = 8;
const RETRY: u32 = 16;
const PAUSED: u32 = 32;
/// Somebody has a mailbox whose incarnation is over, or after which another one has begun; or had, and the reader is yet to
/// count anew.
const OUTLIVED: u32 = 64;

/// The capacity of a mailbox that has no bound.
const UNBOUNDED: u32 = u32::MAX;

/// In this order, so that `first` and `state` are more than a cache line apart: what senders write, the receiver need not
/// see for each message.
#[repr(C)]
pub(crate) struct Shared<M> {
    first: First,
    pub(crate) name: ActorName,
    pub(crate) world: Arc<World>,
    options: Option<Arc<Options<M>>>,
    state: Mutex<State<M>>,
}

/// What the receiver looks at for each message.
struct First {
    flags: AtomicU32,
    /// Room for so many messages of each lane; [`UNBOUNDED`] is none.
    capacity: u32,
    taken: AtomicU64,
    senders: AtomicUsize,
}

/// Whether messages are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// What is here will be handled, and then it ends.
    Draining,
    Closed,
}

struct State<M> {
    phase: Phase,
    /// Only one message is in hand at a time: somebody has asked for the oldest to be dropped.
    exact: bool,
    /// Somebody may make another incarnation.
    reopens: bool,
    /// Somebody has the mailbox of the incarnation that began last.
    is_read: bool,
    /// The number of that mailbox. They begin anew after 65,536 of them, until when nobody keeps one.
    reader: u16,
    normal: Lane<M>,
    waker: Option<Waker>,
    line: Option<Line>,
    rare: Option<Box<Rare<M>>>,
}

/// Under the number of the message.
type CallsInHand = VecDeque<(u64, Arc<dyn CallState>)>;

/// A mailbox that has outlived its incarnation.
struct Outlived {
    /// Its number.
    reader: u16,
    /// Which messages in its hand are calls.
    calls: CallsInHand,
    /// The end with which the queue went; what it has goes with it.
    doom: Option<Exit>,
}

struct Rare<M> {
    urgent: VecDeque<Item<M>>,
    /// With the number of the monitor that it comes from, if it does.
    system: VecDeque<(Option<u64>, M)>,
    /// That of the news that was received last.
    monitor: Option<u64>,
    waiting: [VecDeque<Waiter<M>>; 2],
    tickets: u64,
    /// So many normal messages were dropped for newer ones since the receiver last came.
    skipped: u64,
    /// Who waits for the end of this incarnation, by ticket.
    ends: BTreeMap<u64, Waker>,
    /// How the last incarnation ended, as soon as that is known.
    exit: Option<Exit>,
    /// How it was asked to end.
    stop: Option<Exit>,
    killed: bool,
    /// What is being handled, where it may be tried again, and how often it was.
    current: Option<(M, u32)>,
    /// What is to be tried again: what was died of, and what was set aside when somebody died of another one.
    retry: VecDeque<(M, u32)>,
    /// How often what was received last has been tried before.
    tries: u32,
    outlived: Vec<Outlived>,
    watches: Watches<M>,
    /// So many more have been handled than were taken out of the normal lane; it may be below zero, and wraps.
    handled_before: u64,
    busy: Duration,
    calls: Calls,
    /// Whom this actor has called and not heard from; a number tells one call from another.
    waits: Vec<(u64, Arc<dyn Node>)>,
}

impl<M> Default for Rare<M> {
    fn default() -> Rare<M> {
        Rare {
            urgent: VecDeque::new(),
            system: VecDeque::new(),
            monitor: None,
            waiting: [VecDeque::new(), VecDeque::new()],
            tickets: 0,
            skipped: 0,
            ends: BTreeMap::new(),
            exit: None,
            stop: None,
            killed: false,
            current: None,
            retry: VecDeque::new(),
            tries: 0,
            outlived: Vec::new(),
            watches: Watches::default(),
            handled_before: 0,
            busy: Duration::ZERO,
            calls: Calls::default(),
            waits: Vec::new(),
        }
    }
}

struct Waiter<M> {
    ticket: u64,
    item: Item<M>,
    waker: Waker,
}

/// Why a message was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Full,
    Closed,
}

/// What becomes of a message, and whose, when there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhenFull {
    Refuse,
    DropOldest,
    DropNewest,
}

impl<M> State<M> {
    /// Whether the incarnation that began last, and has not ended, is that of this device.
    fn is_of(&self, device: DeviceId) -> bool {
        self.line.is_some_and(|line| line.id() == device)
    }

    fn rare(&mut self) -> &mut Rare<M> {
        self.rare.get_or_insert_default()
    }

    #[inline(always)]
    fn put(&mut self, priority: Priority, item: Item<M>) {
        match priority {
            Priority::Normal => {
                let Item { message, call } = item;
                if let Some(call) = call {
                    let number = self.normal.end();
                    self.rare().calls.put(number, call);
                }
                self.normal.push_back(message);
            }
            Priority::Urgent => self.put_urgent(item),
        }
    }

    #[cold]
    fn put_urgent(&mut self, item: Item<M>) {
        let rare = self.rare();
        if let Some(call) = &item.call {
            rare.calls.put_other(call);
        }
        rare.urgent.push_back(item);
    }

    #[cold]
    fn take_oldest(&mut self, priority: Priority) -> Option<Item<M>> {
        match priority {
            Priority::Normal => {
                let number = self.normal.first();
                let message = self.normal.pop_front()?;
                let rare = self.rare();
                rare.skipped += 1;
                Some(Item { message, call: rare.calls.take(number) })
            }
            Priority::Urgent => self.rare().urgent.pop_front(),
        }
    }

    /// The numbers of those that were dropped have been passed; they were not handled.
    fn pass_skipped(&mut self) {
        if let Some(rare) = &mut self.rare {
            rare.handled_before = rare.handled_before.wrapping_sub(mem::take(&mut rare.skipped));
        }
    }

    /// Where there is one message, and nothing else to do, it needs no way through the hand.
    #[inline]
    fn take_only(&mut self, hand: &mut Hand<M>) -> Option<M> {
        if self.skipped() > 0 { None } else { self.normal.take_only(hand) }
    }

    /// There is nothing to receive, and may be later.
    #[inline]
    fn is_at_rest(&self) -> bool {
        self.phase == Phase::Open && self.normal.is_empty() && self.skipped() == 0
    }

    /// Takes out the call of this message, if it is one.
    #[inline]
    fn take_call(&mut self, number: u64) -> Option<Arc<dyn CallState>> {
        self.rare.as_mut().and_then(|rare| rare.calls.take(number))
    }

    /// Takes the next one out of the hand.
    #[inline]
    fn take_of_hand(&mut self, hand: &mut Hand<M>, taken: &AtomicU64) -> Option<Item<M>> {
        let number = hand.taken;
        let message = hand.take(taken)?;
        let call = self.take_call(number);
        hand.know_calls(self.rare.as_ref().map_or(u64::MAX, |rare| rare.calls.none_before(hand.taken)));
        Some(Item { message, call })
    }

    /// It was set aside, and nobody asks for it any more: it ends with its incarnation.
    #[cold]
    fn put_news_back(&mut self, mut news: VecDeque<(Option<u64>, M)>) {
        let rare = self.rare();
        rare.handled_before = rare.handled_before.wrapping_sub(news.len() as u64);
        news.append(&mut rare.system);
        rare.system = news;
    }

    /// Takes back what the hand has left, and in front of that what was set aside.
    fn take_back(&mut self, hand: &mut Hand<M>, aside: VecDeque<Item<M>>) {
        let (first, end) = (hand.taken, self.normal.first());
        let more = self.normal.take_back(hand);
        if more > 0
            && let Some(rare) = &mut self.rare
        {
            rare.calls.renumber(first, end, more);
        }
        let mut number = self.normal.first();
        let mut messages = VecDeque::with_capacity(aside.len());
        for Item { message, call } in aside.into_iter().rev() {
            number -= 1;
            messages.push_front(message);
            if let Some(call) = call {
                self.rare().calls.put_in_front(number, call);
            }
        }
        self.normal.put_in_front(messages);
    }

    fn skipped(&self) -> u64 {
        self.rare.as_ref().map_or(0, |rare| rare.skipped)
    }

    /// How many normal ones wait, here or in the hand.
    #[inline]
    fn waiting(&self, taken: u64) -> usize {
        (self.normal.end() - taken - self.skipped()) as usize
    }

    fn waits_for_room(&self, priority: Priority) -> bool {
        self.rare.as_ref().is_some_and(|rare| !rare.waiting[priority as usize].is_empty())
    }
}

impl<M> Shared<M> {
    fn state(&self) -> MutexGuard<'_, State<M>> {
        lock(&self.state)
    }

    fn has_room(&self, state: &State<M>, priority: Priority) -> bool {
        let waiting = match priority {
            Priority::Normal => {
                if self.first.capacity == UNBOUNDED {
                    return true;
                }
                state.waiting(self.first.taken.load(Ordering::Acquire))
            }
            Priority::Urgent => state.rare.as_ref().map_or(0, |rare| rare.urgent.len()),
        };
        waiting < self.capacity()
    }

    /// Puts it in, or gives it back.
    #[inline]
    pub(crate) fn push(
        &self,
        priority: Priority,
        item: Item<M>,
        when_full: WhenFull,
    ) -> Result<(), (Refusal, Item<M>)> {
        self.push_and(priority, item, when_full, |_| ())
    }

    /// As [`push`](Shared::push), for a call whose time begins; `true` if the clock is to be told.
    pub(crate) fn push_fresh(&self, priority: Priority, item: Item<M>) -> Result<bool, (Refusal, Item<M>)> {
        let mut tell = false;
        self.push_and(priority, item, WhenFull::Refuse, |state| tell = state.rare().calls.begin())?;
        Ok(tell)
    }

    #[inline(always)]
    fn push_and(
        &self,
        priority: Priority,
        item: Item<M>,
        when_full: WhenFull,
        and: impl FnOnce(&mut State<M>),
    ) -> Result<(), (Refusal, Item<M>)> {
        let mut state = self.state();
        if state.phase != Phase::Open {
            drop(state);
            return Err((Refusal::Closed, item));
        }
        if !self.has_room(&state, priority) || state.waits_for_room(priority) {
            if when_full == WhenFull::Refuse {
                drop(state);
                return Err((Refusal::Full, item));
            }
            self.overflow(state, priority, item, when_full);
            return Ok(());
        }
        self.accept(&mut state, priority, item);
        and(&mut state);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            wake(waker);
        }
        Ok(())
    }

    #[inline(always)]
    fn accept(&self, state: &mut State<M>, priority: Priority, item: Item<M>) {
        if priority == Priority::Urgent {
            self.first.flags.fetch_or(URGENT, Ordering::Release);
        }
        state.put(priority, item);
    }

    /// One too many: the oldest goes, or this one.
    #[cold]
    fn overflow(
        &self,
        mut state: MutexGuard<'_, State<M>>,
        priority: Priority,
        item: Item<M>,
        when_full: WhenFull,
    ) {
        let (mut gone, mut waker) = (item, None);
        if when_full == WhenFull::DropOldest {
            state.exact = true;
            // If there is none, all there is is in hand: only without any capacity.
            if let Some(oldest) = state.take_oldest(priority) {
                self.accept(&mut state, priority, mem::replace(&mut gone, oldest));
                waker = state.waker.take();
            }
        }
        drop(state);
        self.bury(gone, DeadLetter::Overflow);
        if let Some(waker) = waker {
            wake(waker);
        }
    }

    /// Puts it down to wait for room; a ticket, unless it was accepted or refused at once.
    pub(crate) fn push_waiting(
        &self,
        priority: Priority,
        item: Item<M>,
        waker: Waker,
    ) -> Result<Option<u64>, Item<M>> {
        let mut state = self.state();
        if state.phase != Phase::Open {
            drop(state);
            drop(waker);
            return Err(item);
        }
        if self.has_room(&state, priority) && !state.waits_for_room(priority) {
            drop(state);
            // Room may be gone again; then we are told so, and come back.
            return match self.push(priority, item, WhenFull::Refuse) {
                Ok(()) => Ok(None),
                Err((Refusal::Closed, item)) => Err(item),
                Err((Refusal::Full, item)) => self.push_waiting(priority, item, waker),
            };
        }
        let rare = state.rare();
        rare.tickets += 1;
        let ticket = rare.tickets;
        rare.waiting[priority as usize].push_back(Waiter { ticket, item, waker });
        // Under the lock, so that the receiver, which looks at it there before it waits, cannot miss it.
        self.first.flags.fetch_or(WAITING, Ordering::Release);
        Ok(Some(ticket))
    }

    /// What became of a message that was put down: accepted, or given back for the mailbox is closed.
    pub(crate) fn poll_waiting(
        &self,
        priority: Priority,
        ticket: u64,
        cx: &Context<'_>,
    ) -> Poll<Result<(), Item<M>>> {
        let waker = cx.waker().clone();
        let mut state = self.state();
        let open = state.phase == Phase::Open;
        let waiting = &mut state.rare().waiting[priority as usize];
        let Some(index) = waiting.iter().position(|waiter| waiter.ticket == ticket) else {
            drop(state);
            return Poll::Ready(Ok(()));
        };
        if !open {
            let waiter = waiting.remove(index);
            drop(state);
            return match waiter {
                Some(waiter) => Poll::Ready(Err(waiter.item)),
                None => Poll::Ready(Ok(())),
            };
        }
        let before = waiting.get_mut(index).map(|waiter| mem::replace(&mut waiter.waker, waker));
        drop(state);
        drop(before);
        Poll::Pending
    }

    /// Takes it back, if it still waits for room.
    pub(crate) fn take_back(&self, priority: Priority, ticket: u64) -> Option<Item<M>> {
        let mut state = self.state();
        let waiting = &mut state.rare().waiting[priority as usize];
        let index = waiting.iter().position(|waiter| waiter.ticket == ticket)?;
        let waiter = waiting.remove(index);
        drop(state);
        waiter.map(|waiter| waiter.item)
    }

    /// Lets those in who wait for room, as long as there is some. Their wakers are to be told without the lock.
    fn admit(&self, state: &mut State<M>, wakers: &mut Vec<Waker>) {
        let mut left = false;
        for priority in [Priority::Urgent, Priority::Normal] {
            while state.waits_for_room(priority) && self.has_room(state, priority) {
                let Some(waiter) = state.rare().waiting[priority as usize].pop_front() else { break };
                self.accept(state, priority, waiter.item);
                wakers.push(waiter.waker);
            }
            left |= state.waits_for_room(priority);
        }
        if !left {
            self.first.flags.fetch_and(!WAITING, Ordering::Release);
        }
    }

    /// The system lane: it has no bound, and whoever is in it comes first. For news, timers and the like.
    pub(crate) fn push_system(&self, message: M, monitor: Option<u64>) -> Result<(), M> {
        let mut state = self.state();
        if state.phase == Phase::Closed {
            drop(state);
            return Err(message);
        }
        state.rare().system.push_back((monitor, message));
        self.first.flags.fetch_or(SYSTEM, Ordering::Release);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            wake(waker);
        }
        Ok(())
    }

    /// A message that nobody will handle.
    pub(crate) fn bury(&self, item: Item<M>, cause: DeadLetter) {
        let hears = item.call.is_some() && cause != DeadLetter::Overflow;
        let exit = if hears { self.exit() } else { None };
        self.bury_with(item, cause, exit.as_ref());
    }

    /// Its caller, if it is a call, hears of this end.
    fn bury_with(&self, item: Item<M>, cause: DeadLetter, exit: Option<&Exit>) {
        self.world.dead.fetch_add(1, Ordering::Relaxed);
        observe::buried(cause);
        let hook = self.options.as_ref().and_then(|options| options.dead_letters.as_ref());
        let Item { message, call } = item;
        if let Some(call) = &call {
            // A waker may panic, too.
            drop(catch(|| call.settle(exit)));
        }
        // A message may panic when it is dropped.
        drop(catch(move || match hook {
            Some(hook) => hook(message, cause),
            None => drop(message),
        }));
    }

    // ---- asked to end -------------------------------------------------------------------------------------------

    /// Asks for an end after the message that is being handled. False if nothing runs.
    pub(crate) fn stop(&self, exit: Exit) -> bool {
        let mut state = self.state();
        if state.phase == Phase::Closed || state.line.is_none() {
            return false;
        }
        let rare = state.rare();
        let before = rare.stop.take();
        let first = before.is_none();
        rare.stop = before.or(Some(exit));
        self.first.flags.fetch_or(STOP, Ordering::Release);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            wake(waker);
        }
        first
    }

    /// Accepts nothing more; what is here is handled, and then it ends.
    pub(crate) fn drain(&self) {
        let mut state = self.state();
        if state.phase != Phase::Open {
            return;
        }
        state.phase = Phase::Draining;
        let mut wakers: Vec<Waker> = state.waker.take().into_iter().collect();
        wakers.extend(refused(&state));
        drop(state);
        wake_all(wakers);
    }

    pub(crate) fn kill(&self) {
        let mut state = self.state();
        let Some(line) = state.line else { return };
        state.rare().killed = true;
        drop(state);
        line.condemn();
        // A device's request to itself is what `run` looks for.
        line.shutdown(line.id());
    }

    pub(crate) fn is_killed(&self) -> bool {
        self.state().rare.as_ref().is_some_and(|rare| rare.killed)
    }

    pub(crate) fn asked_to_stop(&self) -> Option<Exit> {
        if self.first.flags.load(Ordering::Acquire) & STOP == 0 {
            return None;
        }
        self.state().rare.as_ref().and_then(|rare| rare.stop.clone())
    }

    /// Handles nothing until it is resumed, but what the system says.
    pub(crate) fn pause(&self, paused: bool) {
        let mut state = self.state();
        let waker = state.waker.take();
        if paused {
            self.first.flags.fetch_or(PAUSED, Ordering::Release);
        } else {
            self.first.flags.fetch_and(!PAUSED, Ordering::Release);
        }
        drop(state);
        if let Some(waker) = waker {
            wake(waker);
        }
    }

    // ---- incarnations -------------------------------------------------------------------------------------------

    /// A new incarnation, with this line. The number of its mailbox.
    pub(crate) fn begin(&self, line: Line) -> u16 {
        let mut state = self.state();
        if mem::replace(&mut state.is_read, true) {
            self.outlive(&mut state);
        }
        state.reader = state.reader.wrapping_add(1);
        let reader = state.reader;
        state.line = Some(line);
        if state.reopens && state.phase == Phase::Closed {
            state.phase = Phase::Open;
        }
        let mut dropped = None;
        if let Some(rare) = &mut state.rare {
            rare.exit = None;
            rare.stop = None;
            rare.killed = false;
            dropped = Some(mem::take(&mut rare.watches));
        }
        self.first.flags.fetch_and(!STOP, Ordering::Release);
        drop(state);
        drop_over(dropped);
        reader
    }

    /// Somebody has kept the mailbox of an incarnation that is over, or after which the next one begins: what it has in hand is not
    /// waiting here any more, and comes back when it is asked for the next message or dropped.
    #[cold]
    fn outlive(&self, state: &mut State<M>) {
        state.pass_skipped();
        let (reader, first) = (state.reader, state.normal.first());
        let rare = state.rare();
        // Its caller has it still, or has left nothing of the user's in it that would be dropped here.
        drop(rare.calls.retire());
        let calls = rare.calls.take_before(first);
        rare.outlived.push(Outlived { reader, calls, doom: None });
        self.first.taken.store(first, Ordering::Release);
        self.first.flags.fetch_or(OUTLIVED, Ordering::Release);
    }

    /// Takes back what a mailbox has that has outlived its incarnation: in front, or as urgent where somebody has begun to read
    /// what came after that; or what it has is to be buried with the queue that is gone already.
    #[cold]
    fn take_over(&self, state: &mut State<M>, hand: &mut Hand<M>, aside: SetAside<M>) -> Back<M> {
        let reader = hand.reader;
        let rare = state.rare();
        let (mut calls, doom) = match rare.outlived.iter().position(|outlived| outlived.reader == reader) {
            Some(at) => {
                let outlived = rare.outlived.remove(at);
                (outlived.calls, outlived.doom)
            }
            None => Default::default(),
        };
        let SetAside { items: mut back, tried } = aside;
        let (mut number, nobody) = (hand.taken, AtomicU64::new(0));
        while let Some(message) = hand.take(&nobody) {
            while calls.front().is_some_and(|(other, _)| *other < number) {
                calls.pop_front();
            }
            let call = calls.pop_front_if(|(other, _)| *other == number).map(|(_, call)| call);
            back.push_back(Item { message, call });
            number += 1;
        }
        if back.is_empty() && tried.is_empty() {
            return Back { doom, ..Back::default() };
        }
        if doom.is_some() {
            // They were counted as handled when it was outlived.
            rare.handled_before = rare.handled_before.wrapping_sub(back.len() as u64);
            back.extend(tried.into_iter().map(|(message, _)| Item { message, call: None }));
            return Back { doom, buried: back, waker: None };
        }
        self.try_again(state, tried);
        if state.line.is_none() && !state.is_read {
            state.take_back(hand, back);
            state.pass_skipped();
            self.first.taken.store(state.normal.first(), Ordering::Release);
        } else if !back.is_empty() {
            let rare = state.rare();
            rare.handled_before = rare.handled_before.wrapping_sub(back.len() as u64);
            back.into_iter().for_each(|item| state.put_urgent(item));
            self.first.flags.fetch_or(URGENT, Ordering::Release);
        }
        Back { waker: state.waker.take(), ..Back::default() }
    }

    /// The reader goes, and what it has comes back in front. For dropping without the lock.
    fn resign(
        &self,
        state: &mut State<M>,
        hand: &mut Hand<M>,
        aside: VecDeque<Item<M>>,
    ) -> (Option<Waker>, Option<Arc<dyn CallState>>) {
        let waker = state.waker.take();
        state.take_back(hand, aside);
        let call = state.rare.as_mut().and_then(|rare| rare.calls.retire());
        state.pass_skipped();
        self.first.taken.store(state.normal.first(), Ordering::Release);
        state.is_read = false;
        (waker, call)
    }

    /// They have been tried, and were set aside when they were to be tried again.
    fn try_again(&self, state: &mut State<M>, tried: VecDeque<(M, u32)>) {
        if !tried.is_empty() {
            state.rare().retry.extend(tried);
            self.first.flags.fetch_or(RETRY, Ordering::Release);
        }
    }

    /// Notes how many wait, if a mailbox that has given back what it had may have said something else.
    fn count_anew(&self, state: &mut State<M>, hand: Option<&mut Hand<M>>) {
        if state.rare.as_ref().is_some_and(|rare| !rare.outlived.is_empty()) {
            return;
        }
        let taken = match hand {
            Some(hand) if !hand.is_empty() => hand.taken,
            hand => {
                state.pass_skipped();
                let first = state.normal.first();
                if let Some(hand) = hand {
                    hand.taken = first;
                }
                first
            }
        };
        self.first.taken.store(taken, Ordering::Release);
        self.first.flags.fetch_and(!OUTLIVED, Ordering::Release);
    }

    /// It is known how this incarnation ends, if it is still the one that began last; what it held is not yet dropped.
    pub(crate) fn ending(&self, me: DeviceId, exit: &Exit) {
        let state = self.state();
        let is_last = state.is_of(me);
        self.note_exit(state, is_last, exit);
    }

    fn note_exit(&self, mut state: MutexGuard<'_, State<M>>, is_last: bool, exit: &Exit) {
        let before = if is_last { state.rare().exit.replace(exit.clone()) } else { None };
        drop(state);
        drop(before);
    }

    /// All that this incarnation held has been dropped.
    pub(crate) fn ended(&self, me: DeviceId, exit: &Exit) {
        let policy = self.options.as_deref();
        let keeps = exit.is_fault() && policy.is_none_or(|policy| policy.queue == QueueOnRestart::Keep);
        let mut state = self.state();
        if !state.is_of(me) {
            // Another one has begun meanwhile, and has the mailbox.
            return;
        }
        let reopens = state.reopens && state.phase == Phase::Open;
        let (keep_queue, accept) = (reopens && keeps, reopens && exit.is_fault());
        if !accept {
            state.phase = Phase::Closed;
        }
        // An end of its own choice is no message's fault.
        let poisoned = exit.is_fault() && !state.rare().killed;
        let more = policy.and_then(|policy| policy.retry.as_ref()).map_or(0, |(times, _)| *times);
        let mut current = state.rare().current.take();
        if poisoned
            && keep_queue
            && let Some((message, tries)) = current.take_if(|(_, tries)| *tries < more)
        {
            self.first.flags.fetch_or(RETRY, Ordering::Release);
            state.rare().retry.push_front((message, tries + 1));
        }
        if mem::replace(&mut state.is_read, false) {
            // Somebody keeps its mailbox.
            self.outlive(&mut state);
            state.reader = state.reader.wrapping_add(1);
        }
        if !keep_queue {
            for outlived in &mut state.rare().outlived {
                outlived.doom.get_or_insert_with(|| exit.clone());
            }
        }
        let (left, wakers, watches) = self.close_up(&mut state, keep_queue, accept);
        drop(state);
        drop_over(watches);
        wake_all(wakers);
        // All are buried before anybody hears of the end.
        if let Some((message, _)) = current {
            if poisoned {
                self.bury(Item { message, call: None }, DeadLetter::KilledIt);
            } else {
                drop_over(message);
            }
        }
        let cause = if exit.is_fault() { DeadLetter::Died } else { DeadLetter::Stopped };
        for item in left {
            self.bury(item, cause);
        }
        let mut state = self.state();
        if !state.is_of(me) {
            return;
        }
        state.line = None;
        let ends = mem::take(&mut state.rare().ends);
        drop(state);
        wake_all(ends.into_values());
    }

    /// What is to be buried and who is to be woken, at the end of an incarnation.
    fn close_up(
        &self,
        state: &mut State<M>,
        keep_queue: bool,
        accept: bool,
    ) -> (Vec<Item<M>>, Vec<Waker>, Watches<M>) {
        let mut left = Vec::new();
        let mut wakers = Vec::new();
        let waker = state.waker.take();
        wakers.extend(waker);
        let rare = state.rare();
        let watches = mem::take(&mut rare.watches);
        // News is for who asked for it, and not for a successor.
        left.extend(rare.system.drain(..).map(|(_, message)| Item { message, call: None }));
        self.first.flags.fetch_and(!SYSTEM, Ordering::Release);
        if !keep_queue {
            self.empty(state, &mut left);
        }
        if accept {
            self.admit(state, &mut wakers);
        } else {
            wakers.extend(refused(state));
        }
        (left, wakers, watches)
    }

    /// Takes out all that would be handled.
    fn empty(&self, state: &mut State<M>, left: &mut Vec<Item<M>>) {
        let rare = state.rare();
        left.extend(rare.retry.drain(..).map(|(message, _)| Item { message, call: None }));
        left.extend(rare.urgent.drain(..));
        while let Some(item) = state.take_oldest(Priority::Normal) {
            left.push(item);
        }
        self.first.flags.fetch_and(!(URGENT | RETRY), Ordering::Release);
    }

    /// Nobody will make another incarnation.
    pub(crate) fn abandon(&self) {
        let mut state = self.state();
        state.reopens = false;
        if state.line.is_some() || state.phase == Phase::Closed {
            return;
        }
        state.phase = Phase::Closed;
        let (left, wakers, watches) = self.close_up(&mut state, false, false);
        drop(state);
        drop_over(watches);
        wake_all(wakers);
        for item in left {
            self.bury(item, DeadLetter::Died);
        }
    }

    /// Room for so many messages of each lane.
    pub(crate) fn capacity(&self) -> usize {
        match self.first.capacity {
            UNBOUNDED => usize::MAX,
            room => room as usize,
        }
    }

    pub(crate) fn line(&self) -> Option<Line> {
        self.state().line
    }

    /// How the last incarnation ended, or is about to; `None` while it runs or if it never did.
    pub(crate) fn exit(&self) -> Option<Exit> {
        self.state().rare.as_ref().and_then(|rare| rare.exit.clone())
    }

    pub(crate) fn is_open(&self) -> bool {
        self.state().phase == Phase::Open
    }

    /// Waits under this ticket, and takes one if it has none.
    pub(crate) fn poll_ended(&self, ticket: &mut Option<u64>, cx: &Context<'_>) -> Poll<Option<Exit>> {
        let waker = cx.waker().clone();
        let mut state = self.state();
        if state.line.is_none() && (state.phase == Phase::Closed || state.reopens) {
            let exit = state.rare.as_ref().and_then(|rare| rare.exit.clone());
            drop(state);
            return Poll::Ready(exit);
        }
        let rare = state.rare();
        let ticket = *ticket.get_or_insert_with(|| {
            rare.tickets += 1;
            rare.tickets
        });
        let before = rare.ends.insert(ticket, waker);
        drop(state);
        drop(before);
        Poll::Pending
    }

    /// Whoever had this ticket does not wait for an end any more.
    pub(crate) fn forget_end(&self, ticket: u64) {
        let before = self.state().rare.as_mut().and_then(|rare| rare.ends.remove(&ticket));
        drop(before);
    }

    /// Messages that wait, and one more if one is being handled: for who gives work to whoever has least.
    pub(crate) fn busy(&self) -> usize {
        let (normal, urgent, ..) = self.counts();
        // Who waits for messages has left a waker here.
        let waits = self.state().waker.is_some();
        normal + urgent + usize::from(!waits)
    }

    /// The call that is being handled.
    pub(crate) fn received_call(&self) -> Option<Arc<dyn CallState>> {
        self.state().rare.as_ref().and_then(|rare| rare.calls.received().cloned())
    }

    /// Messages that wait, and those handled so far.
    pub(crate) fn counts(&self) -> (usize, usize, usize, u64) {
        let state = self.state();
        let taken = self.first.taken.load(Ordering::Acquire);
        let normal = state.waiting(taken);
        let urgent = state.rare.as_ref().map_or(0, |rare| rare.urgent.len());
        let system = state.rare.as_ref().map_or(0, |rare| rare.system.len());
        let others = state.rare.as_ref().map_or(0, |rare| rare.handled_before);
        (normal, urgent, system, taken.wrapping_sub(FIRST).wrapping_add(others))
    }

    pub(crate) fn is_timed(&self) -> bool {
        self.options.as_ref().is_some_and(|options| options.timed)
    }

    /// How long its polls have taken, in all incarnations; `None` unless that is measured.
    pub(crate) fn busy_time(&self) -> Option<Duration> {
        self.is_timed().then(|| self.state().rare.as_ref().map_or(Duration::ZERO, |rare| rare.busy))
    }

    // ---- news ---------------------------------------------------------------------------------------------------

    /// Takes news of a monitor out of the system lane.
    pub(crate) fn flush(&self, monitor: u64) -> Option<M> {
        let mut state = self.state();
        let system = &mut state.rare().system;
        let index = system.iter().position(|(from, _)| *from == Some(monitor))?;
        system.remove(index).map(|(_, message)| message)
    }

    pub(crate) fn watches<T>(&self, f: impl FnOnce(&mut Watches<M>) -> T) -> T {
        f(&mut self.state().rare().watches)
    }

    // ---- handles ------------------------------------------------------------------------------------------------

    pub(crate) fn add_sender(&self) {
        self.first.senders.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add_sender_if_any(&self) -> bool {
        let add = |senders: usize| (senders > 0).then_some(senders + 1);
        self.first.senders.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
    }

    pub(crate) fn remove_sender(&self) {
        if self.first.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            let waker = self.state().waker.take();
            if let Some(waker) = waker {
                wake(waker);
            }
        }
    }
}

/// What a reader had set aside when it went.
struct SetAside<M> {
    items: VecDeque<Item<M>>,
    /// Those that have been tried before, and how often.
    tried: VecDeque<(M, u32)>,
}

/// What there is to do, without the lock, after a mailbox has given back what it had.
struct Back<M> {
    /// Of whoever reads now.
    waker: Option<Waker>,
    buried: VecDeque<Item<M>>,
    doom: Option<Exit>,
}

impl<M> Default for Back<M> {
    fn default() -> Back<M> {
        Back { waker: None, buried: VecDeque::new(), doom: None }
    }
}

/// It is somebody else's, and a panic in it is none of whoever does what it is told of.
#[inline]
pub(crate) fn wake(waker: Waker) {
    drop(catch(|| waker.wake()));
}

/// One that panics is no reason for the others to wait.
pub(crate) fn wake_all(wakers: impl IntoIterator<Item = Waker>) {
    let mut wakers = wakers.into_iter();
    while catch(|| wakers.by_ref().for_each(Waker::wake)).is_err() {}
}

/// The wakers of all who wait for room: there will be none.
fn refused<M>(state: &State<M>) -> Vec<Waker> {
    let waiting = state.rare.iter().flat_map(|rare| rare.waiting.iter().flatten());
    waiting.map(|waiter| waiter.waker.clone()).collect()
}

impl<M: Send + 'static> Shared<M> {
    pub(crate) fn new(world: Arc<World>, options: Options<M>, reopens: bool) -> Arc<Shared<M>> {
        let number = world.numbers.fetch_add(1, Ordering::Relaxed);
        let name = ActorName {
            number: std::num::NonZeroU64::MIN.saturating_add(number),
            label: options.label.clone(),
        };
        Arc::new(Shared {
            first: First {
                flags: AtomicU32::new(0),
                capacity: options.capacity.map_or(UNBOUNDED, |room| room.try_into().unwrap_or(UNBOUNDED)),
                taken: AtomicU64::new(FIRST),
                senders: AtomicUsize::new(1),
            },
            state: Mutex::new(State {
                phase: Phase::Open,
                exact: false,
                reopens,
                is_read: false,
                reader: 0,
                normal: Lane::new(),
                waker: None,
                line: None,
                rare: None,
            }),
            name,
            world,
            options: options.is_special().then(|| Arc::new(options)),
        })
    }

    /// An idle actor's deadline; see [`Overdue`].
    pub(crate) fn overdue(&self, after: Duration) -> Overdue {
        Overdue::new(&self.world.clock, after)
    }

    pub(crate) fn address(self: &Arc<Shared<M>>) -> WeakAddress<M> {
        WeakAddress::new(Arc::clone(self))
    }

    pub(crate) fn node(self: &Arc<Shared<M>>) -> Arc<dyn Node> {
        Arc::clone(self) as Arc<dyn Node>
    }
}

impl<M: Send + 'static> Node for Shared<M> {
    fn name(&self) -> &ActorName {
        &self.name
    }

    fn begin_wait(&self, callee: Arc<dyn Node>) -> (u64, Option<Arc<dyn CallState>>) {
        let mut state = self.state();
        let rare = state.rare();
        let number = rare.waits.last().map_or(0, |(last, _)| last + 1);
        rare.waits.push((number, callee));
        (number, rare.calls.received().cloned())
    }

    fn end_wait(&self, number: u64) {
        let mut state = self.state();
        let gone = state.rare.as_mut().and_then(|rare| {
            let index = rare.waits.iter().position(|(other, _)| *other == number)?;
            Some(rare.waits.remove(index))
        });
        drop(state);
        drop(gone);
    }

    fn waits_for(&self) -> Vec<Arc<dyn Node>> {
        let state = self.state();
        let waits = state.rare.iter().flat_map(|rare| rare.waits.iter());
        waits.map(|(_, callee)| Arc::clone(callee)).collect()
    }

    fn hear(&self, me: DeviceId, message: Message) -> Option<Exit> {
        match message {
            Message::Shutdown(from) if from == me => self.is_killed().then(|| Exit::Fault(Fault::killed())),
            Message::Shutdown(_) => {
                self.stop(Exit::Shutdown);
                None
            }
            Message::Disconnect(news) => {
                let mut heard = self.watches(|watches| watches.hear(news.device));
                for (number, make) in heard.monitors {
                    let news = news.clone();
                    match catch(|| make(news)) {
                        Ok(message) => {
                            if let Err(message) = self.push_system(message, Some(number)) {
                                self.bury(Item { message, call: None }, DeadLetter::Stopped);
                            }
                        }
                        Err(panic) => return Some(Exit::Fault(Fault::panic(&panic))),
                    }
                }
                if !heard.linked {
                    return None;
                }
                match &mut heard.trap {
                    None => Fault::cascade(&news).map(Exit::Fault),
                    Some(trap) => {
                        let made = catch(|| trap(news));
                        if let Some(trap) = heard.trap.take() {
                            self.watches(|watches| watches.trap_again(trap));
                        }
                        match made {
                            Ok(message) => drop(self.push_system(message, None)),
                            Err(panic) => return Some(Exit::Fault(Fault::panic(&panic))),
                        }
                        None
                    }
                }
            }
        }
    }

    fn asked_to_stop(&self) -> Option<Exit> {
        Shared::asked_to_stop(self)
    }

    fn ending(&self, me: DeviceId, exit: &Exit) {
        Shared::ending(self, me, exit);
    }

    fn ended(&self, me: DeviceId, exit: &Exit) {
        Shared::ended(self, me, exit);
    }

    fn watch(&self) -> Option<Arc<Clock>> {
        self.is_timed().then(|| Arc::clone(&self.world.clock))
    }

    fn is_ending(&self) -> bool {
        self.exit().is_some()
    }

    fn show_calls(&self, calls: &mut Vec<Arc<dyn CallState>>) {
        let mut state = self.state();
        let end = state.normal.end();
        if let Some(rare) = &mut state.rare {
            rare.calls.show(end, calls);
        }
    }

    fn forget_clock(&self) {
        if let Some(rare) = &mut self.state().rare {
            rare.calls.forget_clock();
        }
    }

    fn was_busy(&self, time: Duration) {
        self.state().rare().busy += time;
    }

    #[cfg(feature = "metrics")]
    fn handled(&self) -> u64 {
        self.counts().3
    }
}

/// The receiver's end: what an actor reads.
///
/// Messages arrive in this order: news and timers of the system lane, urgent ones with a bound, normal ones; each lane in
/// the order in which its messages were accepted. When the mailbox is dropped, what it has not received stays for the next
/// incarnation, or goes to the dead letters.
///
/// ```
/// # #[cfg(feature = "smol")] {
/// # use backplane::runtime::Smol;
/// use backplane_actor::{Mailbox, Reply, System};
///
/// async fn longest(mut mailbox: Mailbox<(&'static str, Reply<&'static str>)>) {
///     let mut longest = "";
///     while let Some((word, reply)) = mailbox.receive().await {
///         if word.len() > longest.len() {
///             longest = word;
///         }
///         reply.send(longest);
///     }
/// }
/// let longest = System::new(Smol::global()).spawn(longest);
/// assert_eq!(smol::block_on(longest.ask(|reply| ("backplane", reply))), Ok("backplane"));
/// assert_eq!(smol::block_on(longest.ask(|reply| ("mesh", reply))), Ok("backplane"));
/// # }
/// ```
pub struct Mailbox<M>(Box<Reader<M>>);

/// Why a [selective receive](Mailbox::receive_where) gave up.
///
/// ```
/// # #[cfg(feature = "smol")] {
/// # use backplane::runtime::Smol;
/// # use backplane_actor::System;
/// # let system = System::new(Smol::global());
/// # use backplane::{Device, Exit};
/// # use backplane_actor::Options;
/// use backplane_actor::{DEFAULT_CAPACITY, TooManySetAside};
///
/// let (address, home) = system.prepare(Options::new());
/// for n in 0..DEFAULT_CAPACITY {
///     address.try_cast(n).unwrap();
/// }
/// let run = home.run(Device::new(), |mut mailbox| async move {
///     let refused = mailbox.receive_where(|_| false).await;
///     assert!(matches!(refused, Err(TooManySetAside { messages: DEFAULT_CAPACITY, .. })));
///     assert_eq!(mailbox.receive().await, Some(0)); // nothing is lost
/// });
/// assert_eq!(smol::block_on(run), Exit::Normal);
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TooManySetAside {
    /// So many messages are set aside, none of which was wanted.
    pub messages: usize,
}

impl fmt::Display for TooManySetAside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} messages are set aside, and none of them was waited for", self.messages)
    }
}

impl std::error::Error for TooManySetAside {}

/// In a box, so that it costs a word to move it into the futures that hold it.
/// What is in a [`Mailbox`], where it lies in something else.
pub(crate) struct Reader<M> {
    shared: Arc<Shared<M>>,
    hand: Hand<M>,
    own: Option<Box<Own<M>>>,
}

/// What comes before all that waits in the queue.
struct Own<M> {
    /// Passed over by a selective receive; older than all that is in the hand.
    saved: VecDeque<Aside<M>>,
    /// The actor's own messages to itself; they come first, and die with it.
    first: VecDeque<M>,
}

/// What was set aside.
enum Aside<M> {
    /// With how often it was tried before.
    Item(Item<M>, u32),
    /// With the number of the monitor that it comes from, if it does. It is for this incarnation only.
    News(Option<u64>, M),
}

impl<M> Aside<M> {
    fn message(&self) -> &M {
        match self {
            Aside::Item(Item { message, .. }, _) | Aside::News(_, message) => message,
        }
    }

    fn is_over(&self) -> bool {
        matches!(self, Aside::Item(item, _) if item.is_over())
    }

    /// And how often it was tried before.
    fn into_item(self) -> (Item<M>, u32) {
        match self {
            Aside::Item(item, tries) => (item, tries),
            Aside::News(_, message) => (Item { message, call: None }, 0),
        }
    }
}

impl<M> Default for Own<M> {
    fn default() -> Own<M> {
        Own { saved: VecDeque::new(), first: VecDeque::new() }
    }
}

/// What there is to do.
enum Next<M> {
    Message(M),
    /// Its caller has gone: it is not handled any more.
    Over(Item<M>),
    Nothing,
    End,
}

impl<M> Reader<M> {
    /// Takes from the message that was received last the call that it is, for who will have it handled later or elsewhere.
    pub(crate) fn take_call(&mut self) -> Option<Arc<dyn CallState>> {
        if mem::replace(&mut self.hand.last, Last::Message) != Last::Call {
            return None;
        }
        let mut state = self.shared.state();
        if self.hand.reader == state.reader { state.rare().calls.retire() } else { None }
    }

    /// The message that was received has been handled: it cannot be what kills the actor later.
    #[inline]
    pub(crate) fn handled(&self) {
        if self.hand.plain {
            return;
        }
        if self.shared.options.as_ref().is_some_and(|options| options.retry.is_some()) {
            let mut state = self.shared.state();
            if self.hand.reader != state.reader {
                return;
            }
            let rare = state.rare();
            rare.tries = 0;
            let before = rare.current.take();
            drop(state);
            drop(before);
        }
    }

    /// What was received last, for who will have it handled later.
    fn set_aside(&mut self, message: M) -> Aside<M> {
        let tries = self.tries();
        // It is not to be said of the next.
        self.handled();
        if self.hand.last == Last::News {
            self.hand.last = Last::Message;
            let monitor = self.shared.state().rare().monitor;
            return Aside::News(monitor, message);
        }
        Aside::Item(Item { message, call: self.take_call() }, tries)
    }

    /// How often what was received last has been tried before.
    #[cold]
    pub(crate) fn tries(&self) -> u32 {
        if self.shared.options.as_ref().is_none_or(|options| options.retry.is_none()) {
            return 0;
        }
        let state = self.shared.state();
        let rare = state.rare.as_ref().filter(|_| self.hand.reader == state.reader);
        rare.map_or(0, |rare| rare.current.as_ref().map_or(rare.tries, |(_, tries)| *tries))
    }

    fn is_outlived(&self) -> bool {
        self.shared.first.flags.load(Ordering::Acquire) & OUTLIVED != 0
            && self.hand.reader != self.shared.state().reader
    }

    /// Gives back all that it has received of others and not given out: it is none any more, or is about to be dropped.
    #[cold]
    fn give_back(&mut self) {
        let Reader { shared, hand, own, .. } = self;
        let saved = own.as_mut().map(|own| mem::take(&mut own.saved)).unwrap_or_default();
        let (mut items, mut tried, mut news) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
        for aside in saved {
            match aside {
                Aside::Item(item, 0) => items.push_back(item),
                Aside::Item(Item { message, .. }, tries) => tried.push_back((message, tries)),
                Aside::News(monitor, message) => news.push_back((monitor, message)),
            }
        }
        let mut state = shared.state();
        let (mut waker, mut call, mut back) = (None, None, Back::default());
        if hand.reader == state.reader {
            (waker, call) = shared.resign(&mut state, hand, items);
            shared.try_again(&mut state, tried);
        } else {
            hand.last = Last::Message;
            back = shared.take_over(&mut state, hand, SetAside { items, tried });
        }
        if shared.first.flags.load(Ordering::Acquire) & OUTLIVED != 0 && !state.is_read {
            shared.count_anew(&mut state, None);
        }
        let Back { waker: reader, buried, doom } = back;
        let mut left = Vec::from(buried);
        if !news.is_empty() && hand.reader == state.reader && state.line.is_some() {
            state.put_news_back(news);
            shared.first.flags.fetch_or(SYSTEM, Ordering::Release);
        } else {
            left.extend(news.into_iter().map(|(_, message)| Item { message, call: None }));
        }
        if state.phase == Phase::Closed && state.line.is_none() {
            // It has outlived the last incarnation: nobody else comes for what it had.
            shared.empty(&mut state, &mut left);
        }
        drop(state);
        drop((waker, call));
        if !left.is_empty() {
            let exit = doom.or_else(|| shared.exit());
            let died = exit.as_ref().is_some_and(Exit::is_fault);
            let cause = if died { DeadLetter::Died } else { DeadLetter::Stopped };
            left.into_iter().for_each(|item| shared.bury_with(item, cause, exit.as_ref()));
        }
        wake_all(reader);
    }

    /// Takes news of a monitor out of what was set aside.
    pub(crate) fn flush(&mut self, monitor: u64) -> Option<M> {
        let saved = &mut self.own.as_mut()?.saved;
        let is_it = |aside: &Aside<M>| matches!(aside, Aside::News(from, _) if *from == Some(monitor));
        let index = saved.iter().position(is_it)?;
        saved.remove(index).map(|aside| aside.into_item().0.message)
    }

    /// It is known how the incarnation ends whose mailbox this is.
    pub(crate) fn ending(&self, exit: &Exit) {
        let state = self.shared.state();
        let is_last = self.hand.reader == state.reader;
        self.shared.note_exit(state, is_last, exit);
    }

    /// The call that was received last, if it has no answer yet.
    pub(crate) fn call(&self) -> Option<Arc<dyn CallState>> {
        if self.hand.last != Last::Call {
            return None;
        }
        let state = self.shared.state();
        let rare = state.rare.as_ref().filter(|_| self.hand.reader == state.reader)?;
        rare.calls.received().cloned()
    }
}

impl<M: Send + 'static> Reader<M> {
    pub(crate) fn new(shared: Arc<Shared<M>>, reader: u16) -> Reader<M> {
        let taken = shared.first.taken.load(Ordering::Acquire);
        let plain = shared.options.is_none();
        Reader { hand: Hand::new(shared.capacity(), taken, plain, reader), shared, own: None }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared<M>> {
        &self.shared
    }

    /// The next message; if there is none, `waker` is told when there is.
    #[inline]
    fn next(&mut self, waker: Option<&Waker>, at_once: bool) -> Poll<Option<M>> {
        let Reader { shared, hand, .. } = &mut *self;
        // Of calls the mailbox keeps account.
        if hand.last == Last::Message
            && !hand.may_be_call()
            && shared.first.flags.load(Ordering::Acquire) == 0
            && let Some(message) = hand.take(&shared.first.taken)
        {
            if at_once {
                received(shared, hand, &message);
            }
            return Poll::Ready(Some(message));
        }
        next_under_lock(self, waker, at_once)
    }

    /// The next of those in hand, if there is nothing special about it or about what was before.
    #[inline(always)]
    fn next_of_many(&mut self) -> Option<M> {
        let Reader { shared, hand, own } = self;
        if hand.turn == TURN
            || !hand.plain
            || hand.last != Last::Message
            || own.is_some()
            || shared.first.flags.load(Ordering::Acquire) != 0
        {
            return None;
        }
        let message = hand.take_message(&shared.first.taken)?;
        hand.turn += 1;
        Some(message)
    }

    /// Notes what is handled from here on.
    #[inline]
    fn deliver(&self, message: &M) {
        deliver(&self.shared, &self.hand, message);
    }

    /// Notes what is handled from here on, which has been set aside before, and so often tried before that.
    #[cold]
    pub(crate) fn deliver_own(&mut self, item: Item<M>, tries: u32) -> M {
        let Item { message, call } = item;
        let Reader { shared, hand, .. } = self;
        let is_call = call.is_some();
        if hand.last == Last::Call || is_call || tries > 0 {
            let mut state = shared.state();
            if hand.reader != state.reader {
                drop(state);
                return message;
            }
            let rare = state.rare();
            rare.tries = tries;
            let before = rare.calls.retire();
            if let Some(call) = call {
                rare.calls.receive(call);
            }
            drop(state);
            drop(before);
        }
        hand.last = if is_call { Last::Call } else { Last::Message };
        self.deliver(&message);
        message
    }

    /// What comes before all that waits in the queue.
    #[cold]
    fn next_of_own(&mut self) -> Option<(Item<M>, u32)> {
        if self.is_outlived() {
            self.give_back();
        }
        if self.shared.first.flags.load(Ordering::Acquire) & (STOP | PAUSED) != 0 {
            return None;
        }
        let own = self.own.as_mut()?;
        let item = match own.first.pop_front() {
            Some(message) => Some((Item { message, call: None }, 0)),
            None => loop {
                match own.saved.pop_front() {
                    // Its caller has gone meanwhile.
                    Some(aside) if aside.is_over() => drop_over(aside),
                    aside => break aside.map(Aside::into_item),
                }
            },
        };
        if own.first.is_empty() && own.saved.is_empty() {
            self.own = None;
        }
        item
    }

    pub(crate) fn try_receive(&mut self) -> Option<M> {
        self.handled();
        if self.own.is_some()
            && let Some((item, tries)) = self.next_of_own()
        {
            return Some(self.deliver_own(item, tries));
        }
        let message = match self.next(None, false) {
            Poll::Ready(message) => message?,
            Poll::Pending => return None,
        };
        self.deliver(&message);
        Some(message)
    }

    #[inline]
    pub(crate) fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Option<M>> {
        if let Some(message) = self.next_of_many() {
            return Poll::Ready(Some(message));
        }
        self.handled();
        if self.hand.turn == TURN {
            self.hand.turn = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.own.is_some()
            && let Some((item, tries)) = self.next_of_own()
        {
            self.hand.turn += 1;
            return Poll::Ready(Some(self.deliver_own(item, tries)));
        }
        self.next(Some(cx.waker()), true)
    }

    pub(crate) fn receive_where(
        &mut self,
        mut wanted: impl FnMut(&M) -> bool,
    ) -> impl Future<Output = Result<Option<M>, TooManySetAside>> {
        let most = self.most_set_aside();
        let mut seen = 0;
        poll_fn(move |cx| {
            self.handled();
            if self.own.is_some() && self.is_outlived() {
                self.give_back();
                seen = 0;
            }
            while let Some(aside) = self.own.as_ref().and_then(|own| own.saved.get(seen)) {
                let over = aside.is_over();
                if !over && !wanted(aside.message()) {
                    seen += 1;
                    continue;
                }
                match self.own.as_mut().and_then(|own| own.saved.remove(seen)) {
                    Some(aside) if over => drop_over(aside),
                    Some(aside) => {
                        let (item, tries) = aside.into_item();
                        return Poll::Ready(Ok(Some(self.deliver_own(item, tries))));
                    }
                    None => {}
                }
            }
            while seen < most {
                match self.next(Some(cx.waker()), false) {
                    Poll::Ready(Some(message)) => {
                        if let Some(message) = self.show(message, &mut wanted) {
                            self.deliver(&message);
                            return Poll::Ready(Ok(Some(message)));
                        }
                        seen = self.own.as_ref().map_or(0, |own| own.saved.len());
                    }
                    Poll::Ready(None) => return Poll::Ready(Ok(None)),
                    Poll::Pending => return Poll::Pending,
                }
            }
            Poll::Ready(Err(TooManySetAside { messages: seen }))
        })
    }

    /// Gives it back if it is wanted.
    fn show(&mut self, message: M, wanted: impl FnOnce(&M) -> bool) -> Option<M> {
        let mut shown = Shown { message: Some(message), reader: self };
        shown.message.take_if(|message| wanted(message))
    }

    /// So many messages may have left the queue without being handled.
    pub(crate) fn most_set_aside(&self) -> usize {
        self.shared.capacity().max(DEFAULT_CAPACITY)
    }

    /// A message of the actor's to itself: it comes before all that waits.
    pub(crate) fn push_first(&mut self, message: M) {
        self.own.get_or_insert_default().first.push_back(message);
    }
}

impl<M: Send + 'static> Mailbox<M> {
    pub(crate) fn new(reader: Reader<M>) -> Mailbox<M> {
        Mailbox(Box::new(reader))
    }

    pub(crate) fn shared(&self) -> &Arc<Shared<M>> {
        &self.0.shared
    }

    /// For who has a place for it.
    pub(crate) fn into_reader(self) -> Reader<M> {
        *self.0
    }

    pub(crate) fn reader(&mut self) -> &mut Reader<M> {
        &mut self.0
    }

    pub(crate) fn most_set_aside(&self) -> usize {
        self.0.most_set_aside()
    }

    /// The next message, if there is one.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::{Device, Exit, runtime::Smol};
    /// # use backplane_actor::{Options, System};
    /// # let system = System::new(Smol::global());
    /// let (address, home) = system.prepare::<u32>(Options::new());
    /// address.try_cast(7).unwrap();
    /// let run = home.run(Device::new(), |mut mailbox| async move {
    ///     assert_eq!(mailbox.try_receive(), Some(7));
    ///     assert_eq!(mailbox.try_receive(), None);
    /// });
    /// assert_eq!(smol::block_on(run), Exit::Normal);
    /// # }
    /// ```
    pub fn try_receive(&mut self) -> Option<M> {
        self.0.try_receive()
    }

    /// Waits for the next message. `None` when it is time to end: somebody has asked for it, the queue has been drained, or
    /// nobody has an address any more and all messages have been received.
    ///
    /// Cancellation-safe: a message is taken only when it is returned.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::{Device, Exit, runtime::Smol};
    /// # use backplane_actor::{Options, System};
    /// # let system = System::new(Smol::global());
    /// let (address, home) = system.prepare::<u32>(Options::new());
    /// address.try_cast(7).unwrap();
    /// address.drain();
    /// let run = home.run(Device::new(), |mut mailbox| async move {
    ///     assert_eq!(mailbox.receive().await, Some(7));
    ///     assert_eq!(mailbox.receive().await, None); // it is time to end
    /// });
    /// assert_eq!(smol::block_on(run), Exit::Normal);
    /// # }
    /// ```
    pub fn receive(&mut self) -> impl Future<Output = Option<M>> {
        poll_fn(|cx| self.poll_receive(cx))
    }

    /// As [`receive`](Mailbox::receive), for futures written by hand.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::{Device, Exit, runtime::Smol};
    /// # use backplane_actor::{Options, System};
    /// # let system = System::new(Smol::global());
    /// let (address, home) = system.prepare::<u32>(Options::new());
    /// use std::{future::poll_fn, task::Poll};
    ///
    /// address.try_cast(7).unwrap();
    /// let run = home.run(Device::new(), |mut mailbox| async move {
    ///     let next = poll_fn(|cx| match mailbox.poll_receive(cx) {
    ///         Poll::Ready(message) => Poll::Ready(message),
    ///         Poll::Pending => Poll::Ready(None), // here, something else could be polled
    ///     });
    ///     assert_eq!(next.await, Some(7));
    /// });
    /// assert_eq!(smol::block_on(run), Exit::Normal);
    /// # }
    /// ```
    #[inline]
    pub fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Option<M>> {
        self.0.poll_receive(cx)
    }

    /// Waits for the next message that `wanted` says yes to; the others stay, in their order. Erlang's selective receive.
    ///
    /// What it passes over has left its place in the queue, so that what is wanted has room to come. It is set aside, as many
    /// messages as the mailbox has room for, and at least [`DEFAULT_CAPACITY`](crate::DEFAULT_CAPACITY); without a bound only
    /// where the mailbox has none.
    ///
    /// `wanted` sees each message that waits once in this receive. One at which it panics is not received: it stays, as the
    /// others do, and if that is the end of the process, it waits for the successor with them. Cancellation-safe.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// use backplane_actor::{Mailbox, System, TooManySetAside};
    ///
    /// let process = System::new(Smol::global()).spawn(|mut mailbox: Mailbox<u32>| async move {
    ///     let even = mailbox.receive_where(|n| n % 2 == 0).await?;
    ///     assert_eq!((even, mailbox.receive().await), (Some(2), Some(1)));
    ///     Ok::<(), TooManySetAside>(())
    /// });
    /// process.try_cast(1).unwrap();
    /// process.try_cast(2).unwrap();
    /// assert_eq!(smol::block_on(process.ended()), Some(backplane::Exit::Normal));
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// So many are set aside, and none of them is wanted. They stay where they are: [`receive`](Mailbox::receive) gives the
    /// oldest. In Erlang the mailbox would grow until the memory is full.
    pub fn receive_where(
        &mut self,
        wanted: impl FnMut(&M) -> bool,
    ) -> impl Future<Output = Result<Option<M>, TooManySetAside>> {
        self.0.receive_where(wanted)
    }

    /// How many messages wait.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::{Device, Exit, runtime::Smol};
    /// # use backplane_actor::{Options, System};
    /// # let system = System::new(Smol::global());
    /// let (address, home) = system.prepare::<u32>(Options::new());
    /// address.try_cast(1).unwrap();
    /// address.cast(2).urgent().now().unwrap();
    /// let run = home.run(Device::new(), |mut mailbox| async move {
    ///     assert_eq!(mailbox.len(), 2);
    ///     mailbox.receive().await;
    ///     assert_eq!(mailbox.len(), 1);
    /// });
    /// assert_eq!(smol::block_on(run), Exit::Normal);
    /// # }
    /// ```
    pub fn len(&self) -> usize {
        let (normal, urgent, system, _) = self.0.shared.counts();
        normal + urgent + system + self.0.own.as_ref().map_or(0, |own| own.saved.len())
    }

    /// Whether none waits.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::{Device, Exit, runtime::Smol};
    /// # use backplane_actor::{Options, System};
    /// # let system = System::new(Smol::global());
    /// let (address, home) = system.prepare::<u32>(Options::new());
    /// address.try_cast(7).unwrap();
    /// let run = home.run(Device::new(), |mut mailbox| async move {
    ///     assert!(!mailbox.is_empty());
    ///     mailbox.receive().await;
    ///     assert!(mailbox.is_empty());
    /// });
    /// assert_eq!(smol::block_on(run), Exit::Normal);
    /// # }
    /// ```
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The actor's own address, which does not keep it alive.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::{Device, Exit, runtime::Smol};
    /// # use backplane_actor::{Options, System};
    /// # let system = System::new(Smol::global());
    /// let (address, home) = system.prepare::<u32>(Options::new());
    /// let run = home.run(Device::new(), |mailbox| async move {
    ///     let me = mailbox.address();
    ///     assert!(me.upgrade().is_some_and(|me| me.try_cast(7).is_ok()));
    ///     assert_eq!(mailbox.len(), 1);
    /// });
    /// assert_eq!(smol::block_on(run), Exit::Normal);
    /// # }
    /// ```
    pub fn address(&self) -> WeakAddress<M> {
        self.shared().address()
    }

    /// The actor's own address; `None` if nobody else has one any more.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::{Device, Exit, runtime::Smol};
    /// # use backplane_actor::{Options, System};
    /// # let system = System::new(Smol::global());
    /// let (address, home) = system.prepare::<u32>(Options::new());
    /// let same = address.clone();
    /// let run = home.run(Device::new(), |mailbox| async move {
    ///     assert_eq!(mailbox.upgrade(), Some(same));
    /// });
    /// assert_eq!(smol::block_on(run), Exit::Normal);
    /// # }
    /// ```
    pub fn upgrade(&self) -> Option<Address<M>> {
        self.address().upgrade()
    }

    /// What people call this actor.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane::{Device, Exit};
    /// # use backplane_actor::Options;
    /// let (_address, home) = system.prepare::<u32>(Options::new().label("counter"));
    /// let run = home.run(Device::new(), |mailbox| async move {
    ///     assert_eq!(mailbox.name().to_string(), "counter");
    /// });
    /// assert_eq!(smol::block_on(run), Exit::Normal);
    /// # }
    /// ```
    pub fn name(&self) -> &ActorName {
        &self.0.shared.name
    }

    /// The line of this incarnation: what others link with and monitor.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::{Device, Exit, runtime::Smol};
    /// # use backplane_actor::{Options, System};
    /// # let system = System::new(Smol::global());
    /// let (address, home) = system.prepare::<u32>(Options::new());
    /// let device = Device::new();
    /// let line = device.line();
    /// let run = home.run(device, |mailbox| async move {
    ///     assert_eq!(mailbox.line(), Some(line));
    /// });
    /// assert_eq!(smol::block_on(run), Exit::Normal);
    /// # }
    /// ```
    pub fn line(&self) -> Option<Line> {
        self.0.shared.line()
    }

    /// Asks this actor to stop after the message it is handling; [`receive`](Mailbox::receive) returns `None` from here on.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::{Device, Exit, runtime::Smol};
    /// # use backplane_actor::{Options, System};
    /// # let system = System::new(Smol::global());
    /// let (address, home) = system.prepare::<u32>(Options::new());
    /// address.try_cast(7).unwrap();
    /// let run = home.run(Device::new(), |mut mailbox| async move {
    ///     mailbox.stop(Exit::Shutdown);
    ///     assert_eq!(mailbox.receive().await, None);
    /// });
    /// assert_eq!(smol::block_on(run), Exit::Shutdown);
    /// assert_eq!(system.dead_letters(), 1);
    /// # }
    /// ```
    pub fn stop(&mut self, exit: Exit) {
        self.0.shared.stop(exit);
    }
}

#[inline(never)]
fn next_under_lock<M>(reader: &mut Reader<M>, waker: Option<&Waker>, at_once: bool) -> Poll<Option<M>> {
    loop {
        let Reader { shared, hand, .. } = &mut *reader;
        // Who has received nothing yet in this poll was woken because something is there, as a rule, and then needs no waker.
        let mut ours = if hand.turn == 0 { None } else { waker.cloned() };
        let mut state = shared.state();
        if hand.reader != state.reader {
            drop(state);
            reader.give_back();
            return Poll::Ready(None);
        }
        let before = match mem::replace(&mut hand.last, Last::Message) {
            Last::Call => state.rare().calls.retire(),
            Last::Message | Last::News => None,
        };
        let easy = hand.is_empty() && shared.first.flags.load(Ordering::Acquire) == 0;
        // As a rule there is one message, or none.
        if easy && let Some(message) = state.take_only(hand) {
            shared.first.taken.store(hand.taken, Ordering::Release);
            hand.streak = 0;
            if let Some(call) = state.take_call(hand.taken - 1) {
                if call.is_over() {
                    drop(state);
                    drop((before, ours));
                    drop_over(Item { message, call: Some(call) });
                    continue;
                }
                hand.last = Last::Call;
                state.rare().calls.receive(call);
            }
            drop(state);
            drop((before, ours));
            if at_once {
                received(shared, hand, &message);
            }
            return Poll::Ready(Some(message));
        }
        if easy && ours.is_some() && state.is_at_rest() && shared.first.senders.load(Ordering::Acquire) > 0 {
            mem::swap(&mut state.waker, &mut ours);
            drop(state);
            drop((before, ours));
            if at_once {
                hand.turn = 0;
            }
            return Poll::Pending;
        }
        return match next_of_all(shared, state, hand, waker, ours, before) {
            Next::Message(message) => {
                if at_once {
                    received(shared, hand, &message);
                }
                Poll::Ready(Some(message))
            }
            Next::End => Poll::Ready(None),
            Next::Nothing => {
                if at_once {
                    hand.turn = 0;
                }
                Poll::Pending
            }
            Next::Over(item) => {
                drop_over(item);
                continue;
            }
        };
    }
}

/// It is received in this poll.
#[inline]
fn received<M>(shared: &Shared<M>, hand: &mut Hand<M>, message: &M) {
    hand.turn += 1;
    deliver(shared, hand, message);
}

/// It is received.
#[inline]
fn deliver<M>(shared: &Shared<M>, hand: &Hand<M>, message: &M) {
    if !hand.plain
        && let Some(options) = &shared.options
    {
        note(shared, hand, options, message);
    }
}

#[cold]
fn note<M>(shared: &Shared<M>, hand: &Hand<M>, options: &Options<M>, message: &M) {
    if let Some((_, copy)) = &options.retry {
        let copied = if hand.last == Last::Call { None } else { catch(|| copy(message)).ok().flatten() };
        let mut state = shared.state();
        if hand.reader != state.reader {
            return;
        }
        let rare = state.rare();
        let tries = mem::take(&mut rare.tries);
        let before = mem::replace(&mut rare.current, copied.map(|message| (message, tries)));
        drop(state);
        drop(before);
    }
}

/// Nobody waits for it any more. It is the user's, and may panic when it is dropped.
#[cold]
pub(crate) fn drop_over<T>(item: T) {
    drop(catch(|| drop(item)));
}

#[inline(never)]
fn next_of_all<'a, M>(
    shared: &'a Shared<M>,
    mut state: MutexGuard<'a, State<M>>,
    hand: &mut Hand<M>,
    waker: Option<&Waker>,
    mut ours: Option<Waker>,
    before: Option<Arc<dyn CallState>>,
) -> Next<M> {
    let mut before = Some(before);
    loop {
        let mut next = choose(shared, &mut state, hand);
        let mut admitted = None;
        if shared.first.flags.load(Ordering::Acquire) & WAITING != 0 {
            // All that has been taken has left its place.
            shared.first.taken.store(hand.taken, Ordering::Release);
            let mut wakers = Vec::new();
            shared.admit(&mut state, &mut wakers);
            if !wakers.is_empty() && matches!(next, Next::Nothing) {
                next = choose(shared, &mut state, hand);
            }
            admitted = Some(wakers);
        }
        let done = match next {
            Next::Nothing if ours.is_some() => {
                mem::swap(&mut state.waker, &mut ours);
                true
            }
            Next::Nothing => waker.is_none(),
            Next::Message(_) | Next::Over(_) | Next::End => true,
        };
        drop(state);
        drop(before.take());
        if let Some(wakers) = admitted {
            wake_all(wakers);
        }
        if done {
            return next;
        }
        ours = waker.cloned();
        state = shared.state();
    }
}

#[inline]
fn choose<M>(shared: &Shared<M>, state: &mut State<M>, hand: &mut Hand<M>) -> Next<M> {
    let flags = shared.first.flags.load(Ordering::Acquire);
    if flags != 0
        && let Some(next) = choose_special(shared, state, hand, flags)
    {
        return next;
    }
    hand.streak = 0;
    if hand.is_empty() && (!state.normal.is_empty() || state.skipped() > 0) {
        hand_over(shared, state, hand);
    }
    match state.take_of_hand(hand, &shared.first.taken) {
        Some(item) => receive(state, hand, item),
        None if state.phase != Phase::Open || shared.first.senders.load(Ordering::Acquire) == 0 => Next::End,
        None => Next::Nothing,
    }
}

/// Notes which call is handled from here on.
#[inline(always)]
fn receive<M>(state: &mut State<M>, hand: &mut Hand<M>, item: Item<M>) -> Next<M> {
    let Item { message, call } = item;
    if let Some(call) = call {
        if call.is_over() {
            return Next::Over(Item { message, call: Some(call) });
        }
        hand.last = Last::Call;
        state.rare().calls.receive(call);
    }
    Next::Message(message)
}

#[inline(never)]
fn hand_over<M>(shared: &Shared<M>, state: &mut State<M>, hand: &mut Hand<M>) {
    let limit = if state.exact { 1 } else { (shared.capacity() / 2).max(1) };
    state.normal.hand_over(hand, limit);
    if state.skipped() > 0 {
        state.pass_skipped();
        shared.first.taken.store(hand.taken, Ordering::Release);
    }
}

/// What comes before messages, or keeps them waiting.
#[cold]
fn choose_special<M>(
    shared: &Shared<M>,
    state: &mut State<M>,
    hand: &mut Hand<M>,
    flags: u32,
) -> Option<Next<M>> {
    if flags & OUTLIVED != 0 {
        shared.count_anew(state, Some(hand));
    }
    if flags & STOP != 0 {
        return Some(Next::End);
    }
    if flags & SYSTEM != 0 {
        let rare = state.rare();
        let item = rare.system.pop_front();
        if rare.system.is_empty() {
            shared.first.flags.fetch_and(!SYSTEM, Ordering::Release);
        }
        if let Some((monitor, message)) = item {
            rare.handled_before = rare.handled_before.wrapping_add(1);
            rare.monitor = monitor;
            hand.last = Last::News;
            return Some(Next::Message(message));
        }
    }
    if flags & PAUSED != 0 {
        return Some(Next::Nothing);
    }
    if flags & RETRY != 0 {
        let rare = state.rare();
        let next = rare.retry.pop_front();
        if rare.retry.is_empty() {
            shared.first.flags.fetch_and(!RETRY, Ordering::Release);
        }
        if let Some((message, tries)) = next {
            rare.tries = tries;
            return Some(Next::Message(message));
        }
    }
    let normal = !hand.is_empty() || !state.normal.is_empty();
    if flags & URGENT != 0 && (hand.streak < STREAK || !normal) {
        let rare = state.rare();
        let item = rare.urgent.pop_front();
        if rare.urgent.is_empty() {
            shared.first.flags.fetch_and(!URGENT, Ordering::Release);
        }
        if let Some(item) = item {
            hand.streak += 1;
            rare.handled_before = rare.handled_before.wrapping_add(1);
            return Some(receive(state, hand, item));
        }
    }
    None
}

/// A message that somebody looks at. Unless it is taken out, it is set aside; also if who looks at it panics.
struct Shown<'a, M> {
    message: Option<M>,
    reader: &'a mut Reader<M>,
}

impl<M> Drop for Shown<'_, M> {
    fn drop(&mut self) {
        if let Some(message) = self.message.take() {
            let aside = self.reader.set_aside(message);
            self.reader.own.get_or_insert_default().saved.push_back(aside);
        }
    }
}

impl<M> Drop for Reader<M> {
    fn drop(&mut self) {
        let Reader { shared, hand, own } = self;
        let mut state = shared.state();
        // As a rule it has set nothing aside, and is the only one.
        let easy = own.is_none() && hand.reader == state.reader;
        if easy && shared.first.flags.load(Ordering::Acquire) & OUTLIVED == 0 {
            let gone = shared.resign(&mut state, hand, VecDeque::new());
            drop(state);
            drop(gone);
            return;
        }
        drop(state);
        self.give_back();
    }
}

impl<M> fmt::Debug for Mailbox<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl<M> fmt::Debug for Reader<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (normal, urgent, system, handled) = self.shared.counts();
        f.debug_struct("Mailbox")
            .field("actor", &format_args!("{}", self.shared.name))
            .field("normal", &normal)
            .field("urgent", &urgent)
            .field("system", &system)
            .field("handled", &handled)
            .finish()
    }
}

#[cfg(all(test, not(backplane_loom)))]
mod tests {
    use super::*;
    use crate::{System, testing::Seeded};

    #[test]
    fn when_all_has_come_back_from_who_outlived_its_incarnation_nothing_is_special() {
        let system = System::new(Seeded::new(1));
        let shared = Shared::<u32>::new(system.world(), Options::new(), true);
        let device = backplane::Device::new();
        let flags = || shared.first.flags.load(Ordering::Acquire);
        for asks in [false, true] {
            let begin = || Reader::new(Arc::clone(&shared), shared.begin(device.line()));
            let (mut old, mut new) = (begin(), begin());
            assert_eq!(flags(), OUTLIVED);
            if asks {
                assert_eq!(old.try_receive(), None);
            }
            drop(old);
            assert_eq!(new.try_receive(), None);
            assert_eq!(flags(), 0);
            // And where the next one went before.
            let (old, new) = (new, begin());
            drop(new);
            assert_eq!(flags(), OUTLIVED);
            drop(old);
            assert_eq!(flags(), 0);
        }
    }
}
