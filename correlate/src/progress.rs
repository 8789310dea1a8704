//! Lets people see that a run goes on: a bar on a terminal, plain lines elsewhere. Both on standard error, which may be
//! closed for all we care.

use std::{
    io::{self, IsTerminal, Write},
    sync::{
        atomic::Ordering::Relaxed,
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

/// Deaths that are told one by one; the report counts them all.
const TOLD: usize = 40;

/// Says a line on standard error, if anyone listens.
pub(crate) fn say(words: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "{words}");
}

/// How far a run has come.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Length {
    /// Of so many messages.
    Messages(u64),
    /// Of so many bytes.
    Bytes(u64),
}

impl Length {
    fn whole(self) -> u64 {
        match self {
            Length::Messages(whole) | Length::Bytes(whole) => whole.max(1),
        }
    }

    fn done(self, vitals: &Vitals) -> u64 {
        match self {
            Length::Messages(_) => vitals.merged.load(Relaxed),
            Length::Bytes(_) => vitals.bytes.load(Relaxed),
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
}

impl Screen {
    fn new(length: Length) -> Screen {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(length.whole()), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{bar:24} {percent:>3} %  {wide_msg}");
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        let began = Instant::now();
        Screen { length, began, bar, told: 0, last_line: began, last_quarter: 0 }
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
        let done = self.length.done(vitals).min(self.length.whole());
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.set_message(numbers(vitals));
            return;
        }
        let quarter = done * 4 / self.length.whole();
        if quarter > self.last_quarter || self.last_line.elapsed() >= SILENCE {
            self.last_quarter = quarter;
            self.last_line = Instant::now();
            let percent = done * 100 / self.length.whole();
            let at = self.began.elapsed().as_secs_f64();
            self.line(format!("{at:7.3} s  {percent:3} %  {}", numbers(vitals)));
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
