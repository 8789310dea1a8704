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

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use backplane::{Device, Message};

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often a first poll has woken the waker, and whether it has rung the bell.
    fn polled(heard: bool, before: impl FnOnce(&Ring)) -> (usize, bool) {
        let (mut supervisor, first_poll, count) = (Device::new(), Device::new(), Arc::new(Count::default()));
        let own: Vec<crate::report::Listener> = if heard { vec![Arc::new(|_| {})] } else { Vec::new() };
        let waker = Waker::from(Arc::clone(&count));
        let ring = Ring::new(waker, supervisor.line(), first_poll.id(), Listeners::new(own, None));
        before(&ring);
        assert!(!ring.was_polled());
        ring.polled();
        assert!(ring.was_polled());
        let rung = supervisor.try_receive();
        assert!(rung.is_none() || rung == Some(Message::Shutdown(first_poll.id())));
        (count.0.load(Ordering::Relaxed), rung.is_some())
    }

    #[test]
    fn a_first_poll_wakes_who_waits_and_nobody_else() {
        for heard in [false, true] {
            assert_eq!(polled(heard, |ring| ring.begin(false)), (1, false), "the supervisor waits");
            let by_another = |ring: &Ring| {
                ring.begin(false);
                ring.wait_by(&ring.waker.clone());
                ring.wait_by(Waker::noop());
            };
            assert_eq!(polled(heard, by_another), (0, true), "it waits in another task than it began in");
            let late = |ring: &Ring| {
                ring.begin(true);
                ring.be_awaited();
            };
            assert_eq!(polled(heard, late), (1, false), "it waits in the end");
            assert_eq!(polled(heard, |ring| ring.begin(true)), (0, heard), "nobody waits");
        }
    }

    #[test]
    fn a_ring_is_used_again_once_nobody_can_ring_it() {
        let listeners = Listeners::new(Vec::new(), None);
        let device = Device::new();
        let ring = Ring::new(Waker::noop().clone(), device.line(), device.id(), listeners);
        ring.begin(true);
        let childs = Arc::clone(&ring);
        assert!(!ring.is_free(1), "it may still be rung");
        childs.polled();
        assert!(ring.is_free(1), "it rings once");
        ring.begin(false);
        assert!(!ring.is_free(1));
        drop(childs);
        assert!(ring.is_free(1), "there is nobody to ring it");
        assert!(!ring.another().was_polled());
    }
}
