//! Lets people see that a run goes on: a bar on a terminal, plain lines elsewhere. Both on standard error, which may be
//! closed for all we care.

use std::{
    collections::VecDeque,
    io::{self, IsTerminal, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{report::count, vitals::Vitals};

/// Between two looks at the numbers.
const LOOK: Duration = Duration::from_millis(50);

/// Between two plain lines, at most.
const SILENCE: Duration = Duration::from_secs(5);

/// What a rate is of.
const LATELY: Duration = Duration::from_secs(3);

/// Deaths that are told one by one; the report counts them all.
const TOLD: usize = 40;

/// Says a line on standard error, if anyone listens.
pub(crate) fn say(words: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "{words}");
}

/// How far a run has come.
#[derive(Clone, Debug)]
pub(crate) enum Length {
    /// Of so many messages.
    Messages(u64),
    /// Of so many bytes.
    Bytes(u64),
    /// Of a stream that has no end; so many messages are there and not read.
    #[cfg_attr(not(feature = "kafka"), allow(dead_code))]
    Stream(Arc<AtomicU64>),
}

impl Length {
    /// The whole, if there is one.
    fn whole(&self) -> Option<u64> {
        match self {
            Length::Messages(whole) | Length::Bytes(whole) => Some((*whole).max(1)),
            Length::Stream(_) => None,
        }
    }

    fn done(&self, vitals: &Vitals) -> u64 {
        let done = match self {
            Length::Messages(_) | Length::Stream(_) => vitals.merged.load(Relaxed),
            Length::Bytes(_) => vitals.bytes.load(Relaxed),
        };
        self.whole().map_or(done, |whole| done.min(whole))
    }

    /// What is still to be done.
    fn lag(&self, done: u64) -> String {
        match self {
            Length::Messages(whole) => format!("lag {}", count(whole.saturating_sub(done))),
            Length::Bytes(whole) => format!("lag {} MB", count(whole.saturating_sub(done) / 1_000_000)),
            Length::Stream(lag) => format!("lag {}", count(lag.load(Relaxed))),
        }
    }
}

/// Does `work` and shows how far it has come.
pub(crate) fn shown<T>(quiet: bool, length: Length, vitals: &Vitals, work: impl FnOnce() -> T) -> T {
    if quiet {
        return work();
    }
    thread::scope(|scope| {
        // Dropped when the work is done or panics: that ends the thread.
        let (_done, until) = mpsc::channel::<()>();
        scope.spawn(move || {
            let mut screen = Screen::new(length);
            while let Err(RecvTimeoutError::Timeout) = until.recv_timeout(LOOK) {
                screen.show(vitals);
            }
            screen.finish(vitals);
        });
        work()
    })
}

struct Screen {
    length: Length,
    began: Instant,
    bar: Option<ProgressBar>,
    told: usize,
    last_line: Instant,
    last_quarter: u64,
    speed: Speed,
}

/// How fast it goes: looks at a count, those of the last seconds.
#[derive(Debug, Default)]
struct Speed(VecDeque<(Instant, u64)>);

impl Speed {
    /// The count now; says how many there were a second since the oldest look that is remembered.
    fn look(&mut self, now: Instant, count: u64) -> u64 {
        while self.0.len() > 1 && self.0.front().is_some_and(|(at, _)| now.duration_since(*at) > LATELY) {
            self.0.pop_front();
        }
        self.0.push_back((now, count));
        let Some((at, before)) = self.0.front() else { return 0 };
        let seconds = now.duration_since(*at).as_secs_f64();
        if seconds > 0.0 { (count.saturating_sub(*before) as f64 / seconds) as u64 } else { 0 }
    }
}

impl Screen {
    fn new(length: Length) -> Screen {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(length.whole(), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template(match length.whole() {
                Some(_) => "{bar:24} {percent:>3} %  {wide_msg}",
                None => "{spinner} {wide_msg}",
            });
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        let began = Instant::now();
        Screen { length, began, bar, told: 0, last_line: began, last_quarter: 0, speed: Speed::default() }
    }

    fn show(&mut self, vitals: &Vitals) {
        for death in vitals.deaths_from(self.told) {
            self.told += 1;
            if self.told <= TOLD {
                let given_again = if death.given_again { "; what it had taken is given again" } else { "" };
                let at = death.at.as_secs_f64();
                self.line(format!("{at:7.3} s  {}{given_again}", death.words));
            }
        }
        let done = self.length.done(vitals);
        let rate = self.speed.look(Instant::now(), vitals.merged.load(Relaxed));
        let words = format!("{}, {} messages/s, {}", numbers(vitals), count(rate), self.length.lag(done));
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.set_message(words);
            return;
        }
        let part = |of: u64| {
            self.length.whole().map(|whole| (u128::from(done) * u128::from(of) / u128::from(whole)) as u64)
        };
        let quarter = part(4).unwrap_or(0);
        if quarter > self.last_quarter || self.last_line.elapsed() >= SILENCE {
            let percent = part(100).map_or_else(String::new, |percent| format!("{percent:3} %  "));
            self.last_quarter = quarter;
            self.last_line = Instant::now();
            let at = self.began.elapsed().as_secs_f64();
            self.line(format!("{at:7.3} s  {percent}{words}"));
        }
    }

    fn finish(&mut self, vitals: &Vitals) {
        self.show(vitals);
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn line(&self, words: String) {
        match &self.bar {
            Some(bar) => bar.println(words),
            None => say(words),
        }
    }
}

fn numbers(vitals: &Vitals) -> String {
    let merged = count(vitals.merged.load(Relaxed));
    let joined = count(vitals.joined.load(Relaxed));
    let open = count(vitals.open.load(Relaxed));
    format!("{merged} messages merged, {joined} keys joined, {open} open")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_of_the_last_seconds() {
        let (mut speed, began) = (Speed::default(), Instant::now());
        let at = |millis| began + Duration::from_millis(millis);
        assert_eq!(speed.look(at(0), 500), 0);
        assert_eq!(speed.look(at(1_000), 1_500), 1_000);
        assert_eq!(speed.look(at(2_000), 1_500), 500);
        // What was long ago counts no more, and what begins again is no speed.
        assert_eq!(speed.look(at(4_500), 2_000), 200);
        assert_eq!(speed.look(at(5_000), 0), 0);
    }

    #[test]
    fn lag_is_what_is_still_to_be_done() {
        assert_eq!(Length::Messages(3_000).lag(1_000), "lag 2,000");
        assert_eq!(Length::Bytes(9_000_000).lag(9_000_001), "lag 0 MB");
    }
}
