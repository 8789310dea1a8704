//! Sleeps: all of a pool's wait for one timer of async-io's, which is set to the first of them.
//!
//! A timer of async-io's each would cost a wake of its reactor each. Here those that are due together are woken together, and
//! where many are, not more often than every [`TOGETHER`].

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use async_io::Timer;
use slab::Slab;

/// By so much who is due may be late for the sake of company.
const TOGETHER: Duration = Duration::from_millis(1);

/// Who sleeps in a pool.
pub(crate) struct Sleeps {
    state: Mutex<State>,
    /// Rung by async-io.
    bell: Waker,
}

struct State {
    /// All are due after `rung`.
    sleepers: Sleepers,
    /// Who was due by then has been woken.
    rung: Option<Instant>,
    timer: Timer,
    /// What the timer is set to.
    armed: Option<Instant>,
}

/// Who waits for which moment, by the millisecond: hardly anybody is woken alone, so nobody need be in order within one.
struct Sleepers {
    start: Instant,
    /// None is empty.
    milliseconds: BTreeMap<u64, Slab<Sleeper>>,
}

struct Sleeper {
    deadline: Instant,
    waker: Waker,
}

impl Sleepers {
    fn new(start: Instant) -> Sleepers {
        Sleepers { start, milliseconds: BTreeMap::new() }
    }

    fn millisecond(&self, of: Instant) -> u64 {
        let since = of.saturating_duration_since(self.start);
        since.as_secs().saturating_mul(1000).saturating_add(since.subsec_millis().into())
    }

    /// Gives the sleeper's place in its millisecond.
    fn insert(&mut self, deadline: Instant, waker: Waker) -> usize {
        let millisecond = self.millisecond(deadline);
        self.milliseconds.entry(millisecond).or_default().insert(Sleeper { deadline, waker })
    }

    /// The waker of one who waits.
    fn waker(&mut self, deadline: Instant, at: usize) -> Option<&mut Waker> {
        let millisecond = self.millisecond(deadline);
        self.milliseconds.get_mut(&millisecond)?.get_mut(at).map(|sleeper| &mut sleeper.waker)
    }

    /// Takes one who waits.
    fn remove(&mut self, deadline: Instant, at: usize) -> Option<Sleeper> {
        let Entry::Occupied(mut sleepers) = self.milliseconds.entry(self.millisecond(deadline)) else {
            return None;
        };
        let sleeper = sleepers.get_mut().try_remove(at);
        if sleepers.get().is_empty() {
            sleepers.remove();
        }
        sleeper
    }

    /// Takes who is due; none of what it gives is empty.
    fn take_due(&mut self, now: Instant) -> Vec<Slab<Sleeper>> {
        let (this, mut due) = (self.millisecond(now), Vec::new());
        while let Some(mut first) = self.milliseconds.first_entry()
            && *first.key() <= this
        {
            let is_over = *first.key() < this;
            if is_over || first.get().iter().all(|(_, sleeper)| sleeper.deadline <= now) {
                due.push(first.remove());
                continue;
            }
            let sleepers = first.get_mut();
            let is_due = |(at, sleeper): (usize, &Sleeper)| (sleeper.deadline <= now).then_some(at);
            let places: Vec<usize> = sleepers.iter().filter_map(is_due).collect();
            if !places.is_empty() {
                due.push(places.into_iter().filter_map(|at| Some((at, sleepers.try_remove(at)?))).collect());
            }
            break;
        }
        due
    }

    /// When the first is due.
    fn first(&self) -> Option<Instant> {
        let (_, sleepers) = self.milliseconds.first_key_value()?;
        sleepers.iter().map(|(_, sleeper)| sleeper.deadline).min()
    }

    fn len(&self) -> usize {
        self.milliseconds.values().map(Slab::len).sum()
    }
}

struct Bell(Weak<Sleeps>);

impl Wake for Bell {
    fn wake(self: Arc<Bell>) {
        if let Some(sleeps) = self.0.upgrade() {
            sleeps.ring();
        }
    }
}

impl Sleeps {
    pub(crate) fn new() -> Arc<Sleeps> {
        Arc::new_cyclic(|sleeps| {
            let bell = Waker::from(Arc::new(Bell(sleeps.clone())));
            let (sleepers, timer) = (Sleepers::new(Instant::now()), Timer::never());
            Sleeps { state: Mutex::new(State { sleepers, rung: None, timer, armed: None }), bell }
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the timer; `true` if it is time already, and nobody will ring.
    fn arm(&self, state: &mut State, at: Instant) -> bool {
        state.armed = Some(at);
        state.timer.set_at(at);
        Pin::new(&mut state.timer).poll(&mut Context::from_waker(&self.bell)).is_ready()
    }

    /// The place of who waits; nothing, if it is due.
    fn insert(&self, deadline: Instant, waker: Waker) -> Option<usize> {
        let mut state = self.lock();
        if state.rung >= Some(deadline) {
            drop(state);
            drop(waker);
            return None;
        }
        let at = state.sleepers.insert(deadline, waker);
        let due = state.armed.is_none_or(|armed| deadline < armed) && self.arm(&mut state, deadline);
        if due {
            let sleeper = state.sleepers.remove(deadline, at);
            drop(state);
            drop(sleeper);
            self.ring();
            return None;
        }
        Some(at)
    }

    /// `false` if it has been woken; else the waker is the one to wake.
    fn waits(&self, deadline: Instant, at: usize, cx: &Context<'_>) -> bool {
        let mut waker = None;
        loop {
            let mut state = self.lock();
            // Who has been woken has no place: it may be another's by now.
            if state.rung >= Some(deadline) {
                return false;
            }
            match state.sleepers.waker(deadline, at) {
                None => return false,
                Some(place) if place.will_wake(cx.waker()) => return true,
                Some(place) => {
                    if let Some(waker) = waker.take() {
                        let before = std::mem::replace(place, waker);
                        drop(state);
                        drop(before);
                        return true;
                    }
                }
            }
            drop(state);
            waker = Some(cx.waker().clone());
        }
    }

    fn remove(&self, deadline: Instant, at: usize) {
        let mut state = self.lock();
        let sleeper = if state.rung < Some(deadline) { state.sleepers.remove(deadline, at) } else { None };
        drop(state);
        drop(sleeper);
    }

    /// Wakes who is due.
    fn ring(&self) {
        while self.ring_at(Instant::now()) {}
    }

    /// Wakes who is due by then; `true` if it is time for the next already, and nobody will ring.
    fn ring_at(&self, now: Instant) -> bool {
        let mut state = self.lock();
        let due = state.sleepers.take_due(now);
        state.rung = Some(now).max(state.rung);
        state.armed = None;
        let again = state.sleepers.first().is_some_and(|next| {
            let next = if due.is_empty() { next } else { next.max(now + TOGETHER) };
            self.arm(&mut state, next)
        });
        drop(state);
        for (_, sleeper) in due.into_iter().flatten() {
            drop(backplane::catch(|| sleeper.waker.wake()));
        }
        again
    }
}

impl fmt::Debug for Sleeps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleeps").field("waiting", &self.lock().sleepers.len()).finish_non_exhaustive()
    }
}

/// Waits for a moment. Made by [`sleep_until`](backplane::Runtime::sleep_until) of a pool.
///
/// It is never early. Where many wait, those that are due within a millisecond are woken together; one that is due alone,
/// and a millisecond after the last one, is woken at its time.
///
/// Dropped, nobody is woken. It can be awaited anywhere, also after its pool has ended.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use backplane::Runtime;
/// # let pool = backplane_pool::Pool::builder().workers(1).build()?;
/// let deadline = pool.now() + Duration::from_millis(1);
/// pool.block_on(pool.sleep_until(deadline));
/// assert!(pool.now() >= deadline);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a sleep does nothing unless it is awaited"]
pub struct Sleep {
    sleeps: Arc<Sleeps>,
    deadline: Instant,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Fresh,
    /// At this place.
    Waits(usize),
    Over,
}

impl Sleep {
    pub(crate) fn new(sleeps: &Arc<Sleeps>, deadline: Instant) -> Sleep {
        Sleep { sleeps: Arc::clone(sleeps), deadline, stage: Stage::Fresh }
    }
}

impl Future for Sleep {
    type Output = ();

    /// Ready again whenever it is polled after its end.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.stage {
            Stage::Fresh if let Some(at) = self.sleeps.insert(self.deadline, cx.waker().clone()) => {
                self.stage = Stage::Waits(at);
                Poll::Pending
            }
            Stage::Waits(at) if self.sleeps.waits(self.deadline, at, cx) => Poll::Pending,
            _ => {
                self.stage = Stage::Over;
                Poll::Ready(())
            }
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Stage::Waits(at) = self.stage {
            self.sleeps.remove(self.deadline, at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    struct Heard(AtomicUsize);

    impl Wake for Heard {
        fn wake(self: Arc<Heard>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Against a list of those who wait: who is taken is due, who is due is taken, and nobody twice.
    #[test]
    fn who_is_due_is_taken_and_nobody_else() {
        let (mut word, start) = (1_u64, Instant::now());
        let mut random = |below: u64| {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            word % below
        };
        let mut sleepers = Sleepers::new(start);
        let mut wait: Vec<(Instant, usize, Arc<Heard>)> = Vec::new();
        let mut now = start;
        for _ in 0..20_000 {
            match random(8) {
                0..=3 => {
                    let deadline = now + Duration::from_micros(100 * (1 + random(50)));
                    let heard = Arc::new(Heard(AtomicUsize::new(0)));
                    let at = sleepers.insert(deadline, heard.clone().into());
                    wait.push((deadline, at, heard));
                }
                4 if !wait.is_empty() => {
                    let (deadline, at, heard) = wait.swap_remove(random(wait.len() as u64) as usize);
                    assert!(
                        sleepers
                            .waker(deadline, at)
                            .is_some_and(|waker| waker.will_wake(&heard.clone().into()))
                    );
                    drop(sleepers.remove(deadline, at));
                    assert_eq!(Arc::strong_count(&heard), 1);
                }
                5..=6 => {
                    now += Duration::from_micros(100 * random(15));
                    let due = sleepers.take_due(now);
                    assert!(due.iter().all(|sleepers| !sleepers.is_empty()));
                    due.into_iter().flatten().for_each(|(_, sleeper)| sleeper.waker.wake());
                    wait.retain(|(deadline, _, heard)| {
                        assert_eq!(heard.0.load(Ordering::Relaxed), usize::from(*deadline <= now));
                        *deadline > now
                    });
                }
                _ => {}
            }
            assert_eq!(sleepers.first(), wait.iter().map(|(deadline, ..)| *deadline).min());
            assert_eq!(sleepers.len(), wait.len());
        }
        assert!(sleepers.milliseconds.values().all(|sleepers| !sleepers.is_empty()));
    }

    #[test]
    fn those_who_are_due_within_a_millisecond_are_woken_together_and_one_alone_at_its_time() {
        // So late that async-io does not ring meanwhile.
        let (sleeps, start) = (Sleeps::new(), Instant::now() + Duration::from_secs(3600));
        let at = |micros| start + Duration::from_micros(micros);
        let sleepers = [0, 100, 900, 1000, 5000].map(|micros| {
            let heard = Arc::new(Heard(AtomicUsize::new(0)));
            assert!(sleeps.insert(at(micros), heard.clone().into()).is_some());
            heard
        });
        let rings = |micros| {
            assert!(!sleeps.ring_at(at(micros)));
            let heard = sleepers.each_ref().map(|heard| heard.0.load(Ordering::Relaxed));
            (heard, sleeps.lock().armed)
        };
        assert_eq!(sleeps.lock().armed, Some(start));
        assert_eq!(rings(0), ([1, 0, 0, 0, 0], Some(at(1000))));
        assert_eq!(rings(1000), ([1, 1, 1, 1, 0], Some(at(5000))));
        // Rung too early, it wakes nobody, and the next one need not be late for company.
        assert_eq!(rings(4900), ([1, 1, 1, 1, 0], Some(at(5000))));
        assert_eq!(rings(5000), ([1; 5], None));
    }

    #[test]
    fn the_end_of_time_and_the_time_before_the_start_are_moments_like_others() {
        let start = Instant::now() + Duration::from_secs(1);
        let mut sleepers = Sleepers::new(start);
        let late = start + Duration::from_secs(1 << 40);
        let at = sleepers.insert(late, Waker::noop().clone());
        let early = start - Duration::from_millis(500);
        sleepers.insert(early, Waker::noop().clone());
        assert_eq!(sleepers.first(), Some(early));
        assert!(sleepers.take_due(start - Duration::from_millis(501)).is_empty());
        assert_eq!(sleepers.take_due(start - Duration::from_millis(500)).len(), 1);
        assert!(sleepers.take_due(late - Duration::from_nanos(1)).is_empty());
        assert!(sleepers.remove(late, at).is_some());
        assert_eq!((sleepers.first(), sleepers.len()), (None, 0));
    }
}
