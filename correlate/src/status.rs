//! What can be said of a log from outside, while another process works on it or when none does. Nothing is changed.

use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::{Value, json};

use crate::{
    error::Error,
    log::{
        Commit, Mark, Totals,
        embedded::{About, Entries, Entry},
        millis,
    },
    report::{self, Form, count},
};

/// Options of `status`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Status {
    /// Folder of the log
    #[arg(long, value_name = "DIR")]
    log: PathBuf,
    /// For whom it is said
    #[arg(long, value_name = "FORM", value_enum, default_value_t)]
    report: Form,
}

/// A log, seen from outside.
#[derive(Debug)]
pub(crate) struct Seen {
    about: About,
    entries: Entries,
    is_running: Option<bool>,
}

impl Status {
    /// Says it.
    pub(crate) fn run(&self) -> Result<(), Error> {
        let seen = Seen::of(&self.log)?;
        match self.report {
            Form::Text => report::print(seen.words()),
            Form::Json => report::print(seen.json()),
        }
    }
}

/// A point in the history of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    /// The program began.
    Start(u64),
    /// So many messages were merged by then.
    Merged(u64, u64),
}

impl Seen {
    /// Looks at a log.
    pub(crate) fn of(dir: &Path) -> Result<Seen, Error> {
        let Some(about) = About::read(dir)? else {
            return Err(Error::Request(format!("{} is no folder with a log", dir.display())));
        };
        let entries = about.entries()?;
        let is_running = File::open(dir.join("lock")).ok().and_then(|lock| match lock.try_lock_shared() {
            Ok(()) => Some(false),
            Err(TryLockError::WouldBlock) => Some(true),
            Err(TryLockError::Error(_)) => None,
        });
        Ok(Seen { about, entries, is_running })
    }

    /// The last commit of each shard.
    fn last(&self) -> Vec<&Commit> {
        let mut last: Vec<&Commit> = Vec::new();
        for (commit, _) in self.entries.epochs() {
            match last.iter_mut().find(|known| known.shard == commit.shard) {
                Some(known) => *known = commit,
                None => last.push(commit),
            }
        }
        last
    }

    /// The sums over all shards.
    pub(crate) fn totals(&self) -> Totals {
        self.last().into_iter().fold(Totals::default(), |sum, commit| sum.and(commit.totals))
    }

    /// Messages that are merged for good.
    pub(crate) fn messages(&self) -> u64 {
        self.totals().messages
    }

    /// For each partition of a source in the log, how far the slowest stage is, and how far it could be.
    fn partitions(&self) -> Vec<(u64, u64)> {
        let ends = self.about.filled.as_deref().unwrap_or_default();
        let last = self.last();
        let stages = last.first().map_or(1, |commit| commit.cut.len() / ends.len().max(1)).max(1);
        let done = |p: usize| {
            let marks = last
                .iter()
                .flat_map(|commit| commit.cut.get(p * stages..(p + 1) * stages).unwrap_or_default());
            marks.map(|mark: &Mark| mark.offset).min().unwrap_or(0)
        };
        ends.iter().enumerate().map(|(p, end)| (done(p), end.messages)).collect()
    }

    /// What happened when.
    pub(crate) fn history(&self) -> Vec<Point> {
        let mut merged: Vec<u64> = Vec::new();
        let points = self.entries.list.iter().map(|entry| match entry {
            Entry::Start { millis, .. } => Point::Start(*millis),
            Entry::Epoch { commit, .. } => {
                let shard = commit.shard as usize;
                merged.resize(merged.len().max(shard + 1), 0);
                merged[shard] = commit.totals.messages;
                Point::Merged(commit.millis, merged.iter().sum())
            }
        });
        points.collect()
    }

    /// What happened, where other jobs were before this one: it goes on counting where they ended, and its first start
    /// follows no kill.
    pub(crate) fn after(&self, others: &[Point]) -> Vec<Point> {
        let before = others.iter().rev().find_map(|point| match *point {
            Point::Merged(_, messages) => Some(messages),
            Point::Start(_) => None,
        });
        let mut own = self.history();
        let Some(before) = before else { return own };
        let first = own.first().and_then(|point| match *point {
            Point::Start(at) => Some(Point::Merged(at, 0)),
            Point::Merged(..) => None,
        });
        if let (Some(first), Some(begins)) = (own.first_mut(), first) {
            *first = begins;
        }
        own.iter_mut().for_each(|point| {
            if let Point::Merged(_, messages) = point {
                *messages += before;
            }
        });
        own
    }

    /// Messages a second in the last ten seconds before the last commit.
    fn rate(&self) -> Option<f64> {
        let merged: Vec<(u64, u64)> = self
            .history()
            .into_iter()
            .filter_map(|point| match point {
                Point::Merged(at, messages) => Some((at, messages)),
                Point::Start(_) => None,
            })
            .collect();
        let (end, all) = *merged.last()?;
        let (start, before) = *merged.iter().find(|(at, _)| at + 10_000 >= end)?;
        (end > start).then(|| (all - before) as f64 * 1000.0 / (end - start) as f64)
    }

    fn json(&self) -> Value {
        let Totals { messages, joined, open, duplicates, rejected, rows } = self.totals();
        let partitions = self.partitions();
        let lag: u64 = partitions.iter().map(|(done, end)| end - done).sum();
        json!({
            "log": self.about.dir.display().to_string(),
            "job": self.about.job,
            "running": self.is_running,
            "filled": self.about.filled.is_some(),
            "messages": messages,
            "joined": joined,
            "open_keys": open,
            "duplicates": duplicates,
            "rejected": rejected,
            "rows": rows,
            "lag": self.about.filled.as_ref().map(|_| lag),
            "partitions": partitions.iter().map(|(done, end)| json!({ "offset": done, "end": end, "lag": end - done })).collect::<Vec<_>>(),
            "starts": self.entries.starts,
            "restarts": self.entries.starts.saturating_sub(1),
            "torn_bytes": self.entries.torn,
            "epochs": self.last().iter().map(|commit| commit.epoch).sum::<u64>(),
            "last_commit_millis": self.last().iter().map(|commit| commit.millis).max(),
            "rate": self.rate(),
        })
    }

    fn words(&self) -> String {
        let Totals { messages, joined, open, .. } = self.totals();
        let running = match self.is_running {
            Some(true) => "a process is working on it",
            Some(false) => "no process is working on it",
            None => "whether a process is working on it cannot be told",
        };
        let mut lines = vec![format!("{}: {running}", self.about.dir.display())];
        let mut line = |name: &str, words: String| lines.push(format!("  {name:<18}{words}"));
        line(
            "messages",
            format!("{} merged, {} keys joined, {} open", count(messages), count(joined), count(open)),
        );
        let partitions = self.partitions();
        if self.about.filled.is_some() {
            let lag: u64 = partitions.iter().map(|(done, end)| end - done).sum();
            line("lag", format!("{} messages in {} partitions", count(lag), partitions.len()));
            for (n, (done, end)) in partitions.iter().enumerate() {
                line("", format!("partition {n:>3}  offset {:>12} of {:>12}", count(*done), count(*end)));
            }
        }
        if let Some(rate) = self.rate() {
            line(
                "rate",
                format!("{} messages/s in the last seconds before the last commit", count(rate as u64)),
            );
        }
        let last = self.last();
        if let Some(at) = last.iter().map(|commit| commit.millis).max() {
            let ago = millis().saturating_sub(at) as f64 / 1000.0;
            let epochs = count(last.iter().map(|commit| commit.epoch).sum());
            line("commits", format!("{epochs}, the last {ago:.1} s ago"));
        }
        line("restarts", count(self.entries.starts.saturating_sub(1).into()));
        if self.entries.torn > 0 {
            line("torn tail", format!("{} bytes of a commit that was never made", self.entries.torn));
        }
        lines.join("\n")
    }
}
