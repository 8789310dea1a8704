//! Which messages of a mailbox are calls, and whose time is not counted yet.
//!
//! A call is here from when its message is accepted until the next message is received, and longer while it has no answer
//! and the clock has not seen it. So the clock finds all whose time it has to count, and whoever asks finds the one that is
//! being handled; and a call that is answered at once, as most are, is put in once and taken out once.

use std::{collections::VecDeque, mem};

use crate::{frame::CallState, sync::Arc};

pub(crate) struct Calls {
    /// Under the number of the message, in order.
    waiting: VecDeque<(u64, Arc<dyn CallState>)>,
    /// The clock has seen those with a smaller number.
    unseen: u64,
    /// The message that was received last.
    received: Option<Arc<dyn CallState>>,
    /// Those whose message is none of these.
    others: Vec<Arc<dyn CallState>>,
    /// With more than these, those that are not fresh any more are looked for.
    most: usize,
    /// The clock knows that there are some.
    known: bool,
}

/// So many lie in [`Calls::others`] before those that are not fresh any more are looked for.
const FEW: usize = 16;

impl Default for Calls {
    fn default() -> Calls {
        Calls {
            waiting: VecDeque::new(),
            unseen: 0,
            received: None,
            others: Vec::new(),
            most: FEW,
            known: false,
        }
    }
}

impl Calls {
    /// The message of this number is a call; it is the last one.
    pub(crate) fn put(&mut self, number: u64, call: Arc<dyn CallState>) {
        self.waiting.push_back((number, call));
    }

    /// The message of this number is a call; it is the first one.
    pub(crate) fn put_in_front(&mut self, number: u64, call: Arc<dyn CallState>) {
        self.waiting.push_front((number, call));
    }

    /// It has no number, or has been taken out; the clock is to see it, if its time is not counted yet.
    pub(crate) fn put_other(&mut self, call: &Arc<dyn CallState>) {
        if !call.is_fresh() {
            return;
        }
        if self.others.len() >= self.most {
            // Its caller holds it, or has left nothing of the user's in it that would be dropped here.
            self.others.retain(|call| call.is_fresh());
            self.most = FEW.max(2 * self.others.len());
        }
        self.others.push(Arc::clone(call));
    }

    /// There is one whose time begins. Whether the clock is to be told.
    pub(crate) fn begin(&mut self) -> bool {
        !mem::replace(&mut self.known, true)
    }

    /// Takes out the call of this message, if it is one.
    #[inline]
    pub(crate) fn take(&mut self, number: u64) -> Option<Arc<dyn CallState>> {
        match self.waiting.front() {
            Some((first, _)) if *first < number => self.take_from_among(number),
            Some((first, _)) if *first == number => self.waiting.pop_front().map(|(_, call)| call),
            _ => None,
        }
    }

    #[cold]
    fn take_from_among(&mut self, number: u64) -> Option<Arc<dyn CallState>> {
        let index = self.waiting.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        self.waiting.remove(index).map(|(_, call)| call)
    }

    /// How many messages from this number on are no calls.
    #[inline]
    pub(crate) fn none_before(&self, number: u64) -> u64 {
        match self.waiting.front() {
            None => u64::MAX,
            Some((first, _)) if *first >= number => first - number,
            // Somebody keeps what was received before.
            Some(_) => {
                let next = self.waiting.partition_point(|(other, _)| *other < number);
                self.waiting.get(next).map_or(u64::MAX, |(first, _)| first - number)
            }
        }
    }

    /// Messages with numbers from `first` to `end` have got others, so much greater.
    pub(crate) fn renumber(&mut self, first: u64, end: u64, more: u64) {
        for (number, _) in &mut self.waiting {
            if (first..end).contains(number) {
                *number += more;
            }
        }
    }

    /// Whoever has taken these messages is not the reader any more: of messages before this number, which are calls.
    pub(crate) fn take_before(&mut self, number: u64) -> VecDeque<(u64, Arc<dyn CallState>)> {
        let many = self.waiting.partition_point(|(other, _)| *other < number);
        let taken: VecDeque<_> = self.waiting.drain(..many).collect();
        taken.iter().for_each(|(_, call)| self.put_other(call));
        taken
    }

    /// It is what is being handled.
    #[inline]
    pub(crate) fn receive(&mut self, call: Arc<dyn CallState>) {
        self.received = Some(call);
    }

    /// What is being handled, unless it is answered already.
    pub(crate) fn received(&self) -> Option<&Arc<dyn CallState>> {
        self.received.as_ref().filter(|call| !call.is_answered())
    }

    /// What was received is not handled any more; for dropping without the lock.
    #[inline]
    pub(crate) fn retire(&mut self) -> Option<Arc<dyn CallState>> {
        let call = self.received.take()?;
        // Somebody will answer it later, maybe.
        self.put_other(&call);
        Some(call)
    }

    /// Shows those that the clock has not seen yet. `end` is the number of the next message.
    pub(crate) fn show(&mut self, end: u64, calls: &mut Vec<Arc<dyn CallState>>) {
        self.known = false;
        calls.append(&mut self.others);
        let seen = self.waiting.partition_point(|(number, _)| *number < self.unseen);
        calls.extend(self.waiting.range(seen..).map(|(_, call)| Arc::clone(call)));
        calls.extend(self.received.clone());
        self.unseen = end;
    }

    /// The clock has to be told again.
    pub(crate) fn forget_clock(&mut self) {
        self.known = false;
    }
}
