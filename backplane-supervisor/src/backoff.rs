//! How long to wait before a restart.

use std::time::{Duration, Instant};

/// How long a child waits before it is started again, growing with each restart in a row.
///
/// OTP restarts at once, always; so does [`Backoff::immediate`], which is the default. The wait never blocks the
/// supervisor: meanwhile it answers, hears of other ends, and obeys a stop.
///
/// ```
/// use backplane_supervisor::Backoff;
/// use std::time::Duration;
///
/// let backoff = Backoff::exponential(Duration::from_millis(100))
///     .cap(Duration::from_secs(1))
///     .reset_after(Duration::from_secs(60));
/// let waits: Vec<u128> = (1..=6).map(|strike| backoff.wait(strike).as_millis()).collect();
/// assert_eq!(waits, [100, 200, 400, 800, 1000, 1000]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    growth: Growth,
    cap: Duration,
    jitter: f64,
    seed: u64,
    reset_after: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Growth {
    Immediate,
    Linear(Duration),
    Exponential(Duration),
}

impl Backoff {
    fn new(growth: Growth) -> Backoff {
        Backoff { growth, cap: Duration::MAX, jitter: 0.0, seed: 0, reset_after: Duration::from_secs(60) }
    }

    /// No wait at all.
    ///
    /// ```
    /// use backplane_supervisor::Backoff;
    /// use std::time::Duration;
    ///
    /// assert_eq!(Backoff::immediate().wait(1_000), Duration::ZERO);
    /// assert_eq!(Backoff::default(), Backoff::immediate());
    /// ```
    pub fn immediate() -> Backoff {
        Backoff::new(Growth::Immediate)
    }

    /// `step` before the first restart in a row, twice `step` before the second, and so on.
    ///
    /// ```
    /// use backplane_supervisor::Backoff;
    /// use std::time::Duration;
    ///
    /// let backoff = Backoff::linear(Duration::from_millis(50));
    /// assert_eq!(backoff.wait(1), Duration::from_millis(50));
    /// assert_eq!(backoff.wait(4), Duration::from_millis(200));
    /// ```
    pub fn linear(step: Duration) -> Backoff {
        Backoff::new(Growth::Linear(step))
    }

    /// `first` before the first restart in a row, and twice as long before each one after it.
    ///
    /// ```
    /// use backplane_supervisor::Backoff;
    /// use std::time::Duration;
    ///
    /// let backoff = Backoff::exponential(Duration::from_millis(50));
    /// assert_eq!(backoff.wait(1), Duration::from_millis(50));
    /// assert_eq!(backoff.wait(4), Duration::from_millis(400));
    /// // Without a cap it grows beyond all measure.
    /// assert_eq!(backoff.wait(100), Duration::MAX);
    /// ```
    pub fn exponential(first: Duration) -> Backoff {
        Backoff::new(Growth::Exponential(first))
    }

    /// Never waits longer than `cap`.
    ///
    /// ```
    /// use backplane_supervisor::Backoff;
    /// use std::time::Duration;
    ///
    /// let backoff = Backoff::linear(Duration::from_secs(10)).cap(Duration::from_secs(15));
    /// assert_eq!(backoff.wait(1), Duration::from_secs(10));
    /// assert_eq!(backoff.wait(2), Duration::from_secs(15));
    /// ```
    #[must_use]
    pub fn cap(mut self, cap: Duration) -> Backoff {
        self.cap = cap;
        self
    }

    /// Shortens every wait by a random part of itself, at most `share` of it (from 0 to 1), so that children which
    /// failed together do not come back together. The same `seed` gives the same waits.
    ///
    /// ```
    /// use backplane::Exit;
    /// use backplane_supervisor::{Backoff, Event, RestartStrategy, Supervisor};
    /// # use std::time::Duration;
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// # smol::block_on(async {
    /// # let clock = backplane_supervisor::ChildSpec::new("clock", |device| {
    /// #     device.manage(std::future::pending::<Result<(), ()>>())
    /// # });
    ///
    /// let backoff = Backoff::linear(Duration::from_secs(60)).jitter(0.5, 7);
    /// let tree = Supervisor::new(RestartStrategy::OneForOne).child(clock.backoff(backoff));
    /// let handle = tree.start(Smol::global()).await?;
    /// let mut reports = handle.reports(100);
    /// handle.kill_child("clock").await?;
    /// while let Some(report) = reports.next().await {
    ///     if let Event::Backoff(wait) = report.event {
    ///         assert!((30..=60).contains(&wait.as_secs()));
    ///         handle.stop(Exit::Shutdown).await?; // a wait holds nobody up
    ///     }
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    #[must_use]
    pub fn jitter(mut self, share: f64, seed: u64) -> Backoff {
        self.jitter = share.clamp(0.0, 1.0);
        self.seed = seed;
        self
    }

    /// A child that has run this long has recovered: its next restart is the first in a row again. A minute, unless
    /// said otherwise.
    ///
    /// ```
    /// use backplane_supervisor::{Backoff, Event, Intensity, RestartStrategy, Supervisor};
    /// use std::time::Duration;
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// # smol::block_on(async {
    /// # let clock = backplane_supervisor::ChildSpec::new("clock", |device| {
    /// #     device.manage(std::future::pending::<Result<(), ()>>())
    /// # });
    ///
    /// // It has recovered as soon as it runs, so its waits do not grow.
    /// let backoff = Backoff::linear(Duration::from_millis(1)).reset_after(Duration::ZERO);
    /// let tree = Supervisor::new(RestartStrategy::OneForOne).child(clock.backoff(backoff));
    /// # let tree = tree.intensity(Intensity { restarts: 2, period: Duration::from_secs(5) });
    /// let handle = tree.start(Smol::global()).await?;
    /// let mut reports = handle.reports(100);
    /// for _ in 0..2 {
    ///     handle.kill_child("clock").await?;
    ///     while let Some(report) = reports.next().await {
    ///         match report.event {
    ///             Event::Backoff(wait) => assert_eq!(wait, Duration::from_millis(1)),
    ///             Event::Started => break,
    ///             _ => {}
    ///         }
    ///     }
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # }
    /// ```
    #[must_use]
    pub fn reset_after(mut self, stable: Duration) -> Backoff {
        self.reset_after = stable;
        self
    }

    /// The wait before restart number `strike` in a row (from 1), before jitter.
    ///
    /// ```
    /// use backplane_supervisor::Backoff;
    /// use std::time::Duration;
    ///
    /// let backoff = Backoff::exponential(Duration::from_secs(1));
    /// assert_eq!(backoff.wait(3), Duration::from_secs(4));
    /// assert_eq!(backoff.wait(0), backoff.wait(1)); // there is no restart number zero
    /// ```
    pub fn wait(&self, strike: u32) -> Duration {
        let strike = strike.max(1);
        let wait = match self.growth {
            Growth::Immediate => Duration::ZERO,
            Growth::Linear(step) => step.saturating_mul(strike),
            // Doubled thirty times at once, which a factor has room for; what is nothing stays nothing.
            Growth::Exponential(first) => {
                let (mut wait, mut left) = (first, strike - 1);
                while left > 0 && wait != Duration::ZERO && wait != Duration::MAX {
                    let times = left.min(30);
                    (wait, left) = (wait.saturating_mul(1 << times), left - times);
                }
                wait
            }
        };
        wait.min(self.cap)
    }

    pub(crate) fn is_immediate(&self) -> bool {
        self.growth == Growth::Immediate
    }
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff::immediate()
    }
}

/// The restarts in a row of one child.
#[derive(Debug)]
pub(crate) struct Strikes {
    backoff: Backoff,
    strikes: u32,
    started: Option<Instant>,
    random: u64,
}

impl Strikes {
    /// `salt` makes children that share a seed draw different numbers.
    pub(crate) fn new(backoff: Backoff, salt: u64) -> Strikes {
        Strikes {
            backoff,
            strikes: 0,
            started: None,
            random: backoff.seed ^ salt.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        }
    }

    pub(crate) fn started(&mut self, now: Instant) {
        self.started = Some(now);
    }

    /// One more restart is due; how long to wait for it.
    pub(crate) fn strike(&mut self, now: Instant) -> Duration {
        let ran = self.started.take().map(|started| now.saturating_duration_since(started));
        if ran.is_some_and(|ran| ran >= self.backoff.reset_after) {
            self.strikes = 0;
        }
        self.strikes = self.strikes.saturating_add(1);
        let wait = self.backoff.wait(self.strikes);
        if self.backoff.jitter == 0.0 {
            return wait;
        }
        let share = self.backoff.jitter * self.draw();
        wait.saturating_sub(Duration::try_from_secs_f64(wait.as_secs_f64() * share).unwrap_or(Duration::ZERO))
    }

    /// A number from 0 to 1 (splitmix64).
    fn draw(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_stable_run_starts_the_row_afresh() {
        let backoff = Backoff::linear(SECOND).reset_after(10 * SECOND);
        let mut strikes = Strikes::new(backoff, 0);
        let start = Instant::now();
        strikes.started(start);
        assert_eq!(strikes.strike(start + 5 * SECOND), SECOND);
        strikes.started(start + 6 * SECOND);
        assert_eq!(strikes.strike(start + 7 * SECOND), 2 * SECOND);
        assert_eq!(strikes.strike(start + 99 * SECOND), 3 * SECOND, "a failed start is no stable run");
        strikes.started(start + 100 * SECOND);
        assert_eq!(strikes.strike(start + 110 * SECOND), SECOND);
    }

    #[test]
    fn jitter_shortens_and_is_repeatable() {
        let backoff = Backoff::linear(SECOND).jitter(0.5, 42);
        let start = Instant::now();
        let waits = |salt| {
            let mut strikes = Strikes::new(backoff.cap(SECOND), salt);
            (0..100).map(|_| strikes.strike(start)).collect::<Vec<_>>()
        };
        assert_eq!(waits(1), waits(1));
        assert_ne!(waits(1), waits(2));
        assert!(waits(1).iter().all(|wait| *wait >= SECOND / 2 && *wait <= SECOND));
    }

    #[test]
    fn what_begins_small_doubles_for_as_long() {
        let waits = Backoff::exponential(Duration::from_nanos(1));
        assert_eq!(waits.wait(33), 2 * waits.wait(32));
        assert_eq!(waits.wait(64), Duration::from_nanos(1 << 63));
        assert_eq!(waits.wait(70), Duration::from_nanos(1 << 63) * 64);
        assert_eq!(waits.wait(200), Duration::MAX);
        assert_eq!(Backoff::exponential(Duration::ZERO).wait(u32::MAX), Duration::ZERO);
    }

    #[test]
    fn no_strike_overflows() {
        assert_eq!(Backoff::exponential(SECOND).wait(u32::MAX), Duration::MAX);
        assert_eq!(Backoff::linear(Duration::MAX).wait(7), Duration::MAX);
        assert_eq!(Backoff::immediate().wait(7), Duration::ZERO);
    }
}
