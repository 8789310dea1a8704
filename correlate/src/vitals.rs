//! What a run tells about itself while it goes on: numbers that its workers add to and anyone may read.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use backplane::FaultKind;

use crate::job::Gauge;

/// A worker's end that was a fault.
#[derive(Clone, Debug)]
pub(crate) struct Death {
    /// Whose.
    pub(crate) name: String,
    /// How.
    pub(crate) kind: FaultKind,
    /// In the fault's own words.
    pub(crate) words: String,
    /// When, from the start of the run.
    pub(crate) at: Duration,
    /// Whether something it had taken was given again.
    pub(crate) given_again: bool,
}

/// A run's numbers. They are for people; nothing is decided by them.
#[derive(Debug, Default)]
pub(crate) struct Vitals {
    /// Messages that were read and are on their way.
    pub(crate) read: AtomicU64,
    /// Lines that could not be read.
    pub(crate) rejected: AtomicU64,
    /// Messages of each stage that went to the sink.
    pub(crate) staged: [AtomicU64; 16],
    /// Messages that were merged, in all lives of a log.
    pub(crate) merged: AtomicU64,
    /// The most that were read and not merged at one time.
    pub(crate) in_flight_peak: AtomicU64,
    /// Keys that were joined.
    pub(crate) joined: AtomicU64,
    /// Keys that are open.
    pub(crate) open: AtomicU64,
    /// Workers that died.
    deaths: Mutex<Vec<Death>>,
    /// Successors that were started.
    pub(crate) restarted: AtomicU64,
    /// Bytes of input that were read, where input has bytes.
    pub(crate) bytes: Arc<AtomicU64>,
}

impl Vitals {
    /// A worker has died.
    pub(crate) fn died(&self, death: Death) {
        self.deaths.lock().unwrap_or_else(PoisonError::into_inner).push(death);
    }

    /// How a worker of this name died the last time.
    pub(crate) fn last_words(&self, name: &str) -> Option<String> {
        let deaths = self.deaths.lock().unwrap_or_else(PoisonError::into_inner);
        deaths.iter().rev().find(|death| death.name == name).map(|death| death.words.clone())
    }

    /// The deaths from the one with this number on.
    pub(crate) fn deaths_from(&self, first: usize) -> Vec<Death> {
        self.deaths.lock().unwrap_or_else(PoisonError::into_inner).iter().skip(first).cloned().collect()
    }

    /// A sink's table, before and after a batch of so many messages.
    pub(crate) fn merged(&self, messages: u64, before: Gauge, after: Gauge) {
        self.merged.fetch_add(messages, Relaxed);
        self.joined.fetch_add(after.joined.wrapping_sub(before.joined), Relaxed);
        self.open.fetch_add(after.open.wrapping_sub(before.open), Relaxed);
    }
}

/// The most memory this process has had at one time, where the system tells.
pub(crate) fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
