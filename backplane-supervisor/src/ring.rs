//! How a supervisor hears that a child which says nothing is polled for the first time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::Waker;

use backplane::{DeviceId, Line};

use crate::engine::quietly;
use crate::report::Listeners;

/// There has been no attempt yet.
const UNUSED: u8 = 0;
/// The supervisor waits in its task.
const AWAITED: u8 = 1;
/// It waits, and is woken by news only.
const BELL: u8 = 2;
/// Nobody waits.
const QUIET: u8 = 3;
/// The child has been polled.
const POLLED: u8 = 4;
/// It has been polled, nobody waited, and somebody is to be told.
const RUNG: u8 = 5;

/// What a start attempt and the child's first poll have in common: one word and a waker, so that neither needs a lock.
///
/// A child rings once at most. A ring that has been rung is used again; one that has not, and is still in a child's hands, is
/// left to it: a poll that comes late, when its attempt has failed, says nothing of the next one.
pub(crate) struct Ring {
    state: AtomicU8,
    /// The supervisor's.
    waker: Waker,
    line: Line,
    /// In whose name the bell is rung.
    first_poll: DeviceId,
    listeners: Listeners,
}

impl Ring {
    pub(crate) fn new(waker: Waker, line: Line, first_poll: DeviceId, listeners: Listeners) -> Arc<Ring> {
        Arc::new(Ring { state: AtomicU8::new(UNUSED), waker, line, first_poll, listeners })
    }

    /// Another one for the same supervisor.
    pub(crate) fn another(&self) -> Arc<Ring> {
        Ring::new(self.waker.clone(), self.line, self.first_poll, self.listeners.clone())
    }

    /// Whether nobody else can ring it any more; `hands` hold it, the supervisor's own.
    pub(crate) fn is_free(self: &Arc<Ring>, hands: usize) -> bool {
        matches!(self.state.load(Ordering::Acquire), UNUSED | POLLED | RUNG)
            || Arc::strong_count(self) <= hands
    }

    /// A start attempt begins.
    pub(crate) fn begin(&self, quiet: bool) {
        self.state.store(if quiet { QUIET } else { AWAITED }, Ordering::Release);
    }

    /// From now on the supervisor waits, if there is something to wait for.
    pub(crate) fn be_awaited(&self) {
        self.change(QUIET, AWAITED);
    }

    /// The supervisor waits, by this waker.
    pub(crate) fn wait_by(&self, waker: &Waker) {
        if !self.waker.will_wake(waker) {
            self.change(AWAITED, BELL);
        }
    }

    fn change(&self, from: u8, to: u8) {
        let _ = self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Whether the child has been polled.
    pub(crate) fn was_polled(&self) -> bool {
        self.state.load(Ordering::Acquire) >= POLLED
    }

    /// Whether it has been polled, and nobody is to be told of it.
    pub(crate) fn was_polled_quietly(&self) -> bool {
        self.state.load(Ordering::Acquire) == POLLED
    }

    /// The child is polled for the first time, which is all that it will say. Where nobody waits for it, nobody is woken; but who
    /// has come to listen since is to be told, which is the supervisor's.
    pub(crate) fn polled(&self) {
        let told = self.state.load(Ordering::Acquire) == QUIET && self.listeners.anybody();
        match self.state.swap(if told { RUNG } else { POLLED }, Ordering::AcqRel) {
            AWAITED => quietly(|| self.waker.wake_by_ref()),
            QUIET if !told => {}
            _ => self.line.shutdown(self.first_poll),
        }
    }
}
