//! Sleeps: all of a pool's wait for one timer of async-io's, which is set to the first of them.
//!
//! A timer of async-io's each would cost a wake of its reactor each. Here those that are due together are woken together, and
//! where many are, not more often than every [`TOGETHER`].

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use async_io::Timer;

/// By so much who is due may be late for the sake of company.
const TOGETHER: Duration = Duration::from_millis(1);

/// Who sleeps in a pool.
pub(crate) struct Sleeps {
    state: Mutex<State>,
    /// Rung by async-io.
    bell: Waker,
}

struct State {
    /// By when they are due, and a number of their own. All are due after `rung`.
    waiting: BTreeMap<(Instant, u64), Waker>,
    number: u64,
    /// Who was due by then has been woken.
    rung: Option<Instant>,
    timer: Timer,
    /// What the timer is set to.
    armed: Option<Instant>,
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
            let (waiting, timer) = (BTreeMap::new(), Timer::never());
            Sleeps { state: Mutex::new(State { waiting, number: 0, rung: None, timer, armed: None }), bell }
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

    /// Nothing, if it is due.
    fn insert(&self, deadline: Instant, waker: Waker) -> Option<(Instant, u64)> {
        let mut state = self.lock();
        if state.rung >= Some(deadline) {
            drop(state);
            drop(waker);
            return None;
        }
        state.number += 1;
        let key = (deadline, state.number);
        state.waiting.insert(key, waker);
        let due = state.armed.is_none_or(|armed| deadline < armed) && self.arm(&mut state, deadline);
        if due {
            let waker = state.waiting.remove(&key);
            drop(state);
            drop(waker);
            self.ring();
            return None;
        }
        Some(key)
    }

    /// `false` if it has been woken; else the waker is the one to wake.
    fn waits(&self, key: (Instant, u64), cx: &Context<'_>) -> bool {
        let mut waker = None;
        loop {
            let mut state = self.lock();
            if state.rung >= Some(key.0) {
                return false;
            }
            match state.waiting.get_mut(&key) {
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

    fn remove(&self, key: (Instant, u64)) {
        let waker = self.lock().waiting.remove(&key);
        drop(waker);
    }

    /// Wakes who is due.
    fn ring(&self) {
        loop {
            let (now, mut due) = (Instant::now(), Vec::new());
            let mut state = self.lock();
            while let Some(first) = state.waiting.first_entry()
                && first.key().0 <= now
            {
                due.push(first.remove());
            }
            state.rung = Some(now).max(state.rung);
            state.armed = None;
            let next = state.waiting.first_key_value().map(|(key, _)| key.0);
            let again = next.is_some_and(|next| {
                let next = if due.is_empty() { next } else { next.max(now + TOGETHER) };
                self.arm(&mut state, next)
            });
            drop(state);
            for waker in due {
                drop(backplane::catch(|| waker.wake()));
            }
            if !again {
                return;
            }
        }
    }
}

impl fmt::Debug for Sleeps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleeps").field("waiting", &self.lock().waiting.len()).finish_non_exhaustive()
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
    Waits((Instant, u64)),
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
            Stage::Fresh if let Some(key) = self.sleeps.insert(self.deadline, cx.waker().clone()) => {
                self.stage = Stage::Waits(key);
                Poll::Pending
            }
            Stage::Waits(key) if self.sleeps.waits(key, cx) => Poll::Pending,
            _ => {
                self.stage = Stage::Over;
                Poll::Ready(())
            }
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Stage::Waits(key) = self.stage {
            self.sleeps.remove(key);
        }
    }
}
