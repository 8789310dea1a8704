//! Messages in a row: in pieces, so that a long row is never copied, and what it took is given back when it is short again.
//!
//! 1. **A message is no larger than itself.** Which call asks it stands in [`Calls`](crate::calls::Calls), under the message's
//!    number: the many that are no calls pay nothing for the few that are.
//! 2. **Numbers go on.** Who takes the row takes its numbers, too, so that what was put in less what was taken out is what
//!    waits, wherever it is.
//! 3. **No piece of `full` is empty.**

use std::{collections::VecDeque, mem};

use crate::sync::{AtomicU64, Ordering};

/// So many empty pieces are kept for the next crowd.
const SPARE: usize = 4;

/// How many messages of this size are in a piece that is full: about a page of them, and in a mailbox with room for
/// [`DEFAULT_CAPACITY`](crate::DEFAULT_CAPACITY) small ones a few pieces.
const fn piece(size: usize) -> usize {
    match size {
        0..=16 => 256,
        17..=32 => 128,
        33..=64 => 64,
        65..=128 => 32,
        _ => 16,
    }
}

/// The number of the first message of all. There is room below: what a selective receive has passed over, and nobody else
/// has received, may go back in front.
pub(crate) const FIRST: u64 = 1 << 63;

/// The row that senders write to.
pub(crate) struct Lane<M> {
    /// What came last.
    tail: VecDeque<M>,
    /// The number of the first message.
    first: u64,
    more: Option<Box<More<M>>>,
}

/// What the receiver has taken of it, and not handled yet.
pub(crate) struct Hand<M> {
    /// What comes next.
    head: VecDeque<M>,
    /// The number of what comes next; as many have been taken.
    pub(crate) taken: u64,
    more: Option<Box<More<M>>>,
    /// Others are told of `taken` when it has none of these bits.
    lag: u8,
    /// How many urgent messages have been received in a row.
    pub(crate) streak: u8,
    /// How many messages have been received in this poll.
    pub(crate) turn: u8,
    /// There are no options that want to see each message.
    pub(crate) plain: bool,
    pub(crate) last: Last,
    /// So many of what comes next are no calls, at least.
    no_calls: u8,
    /// Which of the mailbox's readers has it.
    pub(crate) reader: u16,
}

/// What was received last.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Last {
    /// Nothing special, or nothing.
    Message,
    Call,
    /// News, a timer or the like, out of the system lane.
    News,
}

/// What few have.
struct More<M> {
    /// Before the tail, or after the head.
    full: VecDeque<VecDeque<M>>,
    /// How many messages that is.
    len: usize,
    /// Pieces for use; empty.
    spare: Vec<VecDeque<M>>,
}

impl<M> Default for More<M> {
    fn default() -> More<M> {
        More { full: VecDeque::new(), len: 0, spare: Vec::new() }
    }
}

impl<M> More<M> {
    fn keep(&mut self, piece: VecDeque<M>) {
        // The first ones are smaller while they grow; those are not worth it.
        if self.spare.len() < SPARE && piece.capacity() >= Lane::<M>::PIECE {
            self.spare.push(piece);
        }
    }
}

impl<M> Lane<M> {
    const PIECE: usize = piece(size_of::<M>());

    pub(crate) const fn new() -> Lane<M> {
        Lane { tail: VecDeque::new(), first: FIRST, more: None }
    }

    /// The number of the first one here.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// The number that the next message will have.
    #[inline]
    pub(crate) fn end(&self) -> u64 {
        self.first + self.len() as u64
    }

    /// How many are here, and not in the hand.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.tail.len() + self.more.as_ref().map_or(0, |more| more.len)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline(always)]
    pub(crate) fn push_back(&mut self, message: M) {
        if self.tail.len() == Self::PIECE {
            self.begin_piece();
        }
        self.tail.push_back(message);
    }

    #[cold]
    fn begin_piece(&mut self) {
        let more = self.more.get_or_insert_default();
        let fresh = more.spare.pop().unwrap_or_else(|| VecDeque::with_capacity(Self::PIECE));
        more.len += self.tail.len();
        more.full.push_back(mem::replace(&mut self.tail, fresh));
    }

    /// Takes the first one out past the hand. Its number is skipped.
    pub(crate) fn pop_front(&mut self) -> Option<M> {
        let more = self.more.as_deref_mut();
        let message = match more {
            Some(more) if more.len > 0 => {
                let piece = more.full.front_mut()?;
                let message = piece.pop_front();
                more.len -= usize::from(message.is_some());
                if piece.is_empty()
                    && let Some(piece) = more.full.pop_front()
                {
                    more.keep(piece);
                }
                message
            }
            _ => self.tail.pop_front(),
        };
        self.first += u64::from(message.is_some());
        message
    }

    /// Moves so many at most into the hand, which is empty. What is not moved stays in order.
    #[inline]
    pub(crate) fn hand_over(&mut self, hand: &mut Hand<M>, limit: usize) {
        debug_assert!(hand.is_empty(), "what is in hand comes first");
        hand.taken = self.first;
        if self.len() > limit {
            self.hand_over_some(hand, limit);
            return;
        }
        self.first = self.end();
        mem::swap(&mut hand.head, &mut self.tail);
        if self.more.is_some() || hand.more.is_some() {
            // Empty pieces go back and forth in this way as well.
            mem::swap(&mut hand.more, &mut self.more);
            if let Some(more) = &mut hand.more
                && let Some(first) = more.full.pop_front()
            {
                more.len -= first.len();
                let last = mem::replace(&mut hand.head, first);
                if last.is_empty() {
                    more.keep(last);
                } else {
                    more.len += last.len();
                    more.full.push_back(last);
                }
            }
        }
    }

    /// Takes the only one there is: as if it had been handed over, and taken out of the hand, which is empty.
    #[inline]
    pub(crate) fn take_only(&mut self, hand: &mut Hand<M>) -> Option<M> {
        if self.tail.len() != 1 || self.len() != 1 {
            return None;
        }
        let message = self.tail.pop_front()?;
        self.first += 1;
        hand.taken = self.first;
        Some(message)
    }

    /// Out of the first piece only.
    #[cold]
    fn hand_over_some(&mut self, hand: &mut Hand<M>, limit: usize) {
        let more = self.more.as_deref_mut();
        match more {
            Some(more) if more.len > 0 => {
                let whole = more.full.front().is_some_and(|piece| piece.len() <= limit);
                if whole && let Some(piece) = more.full.pop_front() {
                    more.keep(mem::replace(&mut hand.head, piece));
                } else if let Some(piece) = more.full.front_mut() {
                    hand.head.extend(piece.drain(..limit));
                }
                more.len -= hand.head.len();
            }
            _ => hand.head.extend(self.tail.drain(..limit)),
        }
        self.first += hand.head.len() as u64;
    }

    /// Takes back what the hand has left, in front. Their numbers are so much greater from here on: what was taken out past the
    /// hand has left a gap.
    pub(crate) fn take_back(&mut self, hand: &mut Hand<M>) -> u64 {
        if hand.is_empty() {
            return 0;
        }
        let head = mem::take(&mut hand.head);
        let left = hand.more.take().unwrap_or_default();
        let more = self.more.get_or_insert_default();
        let len = head.len() + left.len;
        more.len += len;
        self.first -= len as u64;
        for piece in left.full.into_iter().rev().chain([head]) {
            if !piece.is_empty() {
                more.full.push_front(piece);
            }
        }
        self.first - hand.taken
    }

    /// Puts these in front; they take the numbers before the first.
    pub(crate) fn put_in_front(&mut self, messages: VecDeque<M>) {
        if messages.is_empty() {
            return;
        }
        let more = self.more.get_or_insert_default();
        more.len += messages.len();
        self.first -= messages.len() as u64;
        more.full.push_front(messages);
    }
}

impl<M> Hand<M> {
    /// An empty one, for a mailbox of this capacity from which so many have been taken before.
    pub(crate) fn new(capacity: usize, taken: u64, plain: bool, reader: u16) -> Hand<M> {
        let lag: u8 = 1 << (capacity / 64).clamp(1, 32).ilog2();
        Hand {
            head: VecDeque::new(),
            taken,
            more: None,
            lag: lag - 1,
            streak: 0,
            turn: 0,
            plain,
            last: Last::Message,
            no_calls: 0,
            reader,
        }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.head.is_empty() && self.more.as_ref().is_none_or(|more| more.len == 0)
    }

    /// So many of what comes next are no calls.
    #[inline]
    pub(crate) fn know_calls(&mut self, none: u64) {
        self.no_calls = none.min(u64::from(u8::MAX)) as u8;
    }

    /// Whether what comes next may be a call.
    #[inline(always)]
    pub(crate) fn may_be_call(&self) -> bool {
        self.no_calls == 0
    }

    /// Takes the next one out of the head, if it is no call. As [`take`](Hand::take).
    #[inline(always)]
    pub(crate) fn take_message(&mut self, taken: &AtomicU64) -> Option<M> {
        if self.may_be_call() {
            return None;
        }
        let message = self.head.pop_front()?;
        self.took_one(taken);
        Some(message)
    }

    #[inline(always)]
    fn took_one(&mut self, taken: &AtomicU64) {
        self.taken += 1;
        self.no_calls = self.no_calls.saturating_sub(1);
        if self.head.is_empty() || self.taken & u64::from(self.lag) == 0 {
            taken.store(self.taken, Ordering::Release);
        }
    }

    /// Takes the next one out; senders see the room at once, or, in a large mailbox, a few messages later.
    #[inline]
    pub(crate) fn take(&mut self, taken: &AtomicU64) -> Option<M> {
        let message = match self.head.pop_front() {
            Some(message) => message,
            None if self.is_empty() => return None,
            None => self.take_piece()?,
        };
        self.took_one(taken);
        Some(message)
    }

    #[inline(never)]
    fn take_piece(&mut self) -> Option<M> {
        let more = self.more.as_mut()?;
        let piece = more.full.pop_front()?;
        more.len -= piece.len();
        more.keep(mem::replace(&mut self.head, piece));
        self.head.pop_front()
    }
}
