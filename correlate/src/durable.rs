//! From what a log knows to where a run goes on: the open keys as they were, and each partition where it was.
//!
//! What was merged since the last snapshot is merged again, batch by batch in the order of the commits. The rows of it are
//! in the log already, and are dropped; but for those of which the log does not know. Order matters where messages come twice:
//! which of them was joined, and which set aside, is decided by who came first.

use std::{
    collections::{HashMap, VecDeque},
    path::Path,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use clap::Args;
use serde_json::Value;

use crate::{
    error::Error,
    job::Job,
    log::{
        Commit, Epoch, Log, Mark, Merge, Past, Rows, Snapshot, Totals,
        embedded::{Folder, SEGMENT},
    },
    topology::Durable,
};

/// Options of every run with a log.
#[derive(Clone, Debug, Args)]
pub(crate) struct Pace {
    /// Commit after so many milliseconds,
    #[arg(long, value_name = "MS", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    epoch: u64,
    /// or after so many messages in a sink, whatever comes first
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    epoch_messages: u64,
    /// Write the open keys down every so many milliseconds: what was merged since is merged again after a restart
    #[arg(long, value_name = "MS", default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    snapshot: u64,
    /// Bytes of a segment of a log in a folder, about: what nobody needs any more is removed a segment at a time
    #[arg(long, value_name = "BYTES", default_value_t = SEGMENT, value_parser = clap::value_parser!(u64).range(1..=1 << 40))]
    segment_bytes: u64,
}

impl Pace {
    /// Takes hold of a log in a folder, or begins one.
    pub(crate) fn open(&self, dir: &Path, job: &Value) -> Result<Folder, Error> {
        Ok(Folder::open(dir, job)?.in_segments_of(self.segment_bytes))
    }

    /// With this log, from these commits on.
    pub(crate) fn durable(&self, log: Box<dyn Log>, last: Vec<Commit>, stop: Arc<AtomicBool>) -> Durable {
        Durable {
            log,
            last,
            epoch: Duration::from_millis(self.epoch),
            messages: self.epoch_messages,
            snapshot: Duration::from_millis(self.snapshot),
            stop,
        }
    }
}

/// The wish of whoever started the program that it end: Ctrl-C, or SIGTERM.
pub(crate) fn on_signal() -> Result<Arc<AtomicBool>, Error> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        // Whoever asks twice means it.
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
            .map_err(|error| Error::Request(format!("cannot listen to signals: {error}")))?;
    }
    Ok(stop)
}

/// Where a run goes on.
#[derive(Debug)]
pub(crate) struct Resumed<T> {
    /// The open keys of each shard.
    pub(crate) tables: Vec<T>,
    /// The last commit of each shard, with no merges.
    pub(crate) last: Vec<Commit>,
    /// Messages that were merged again.
    pub(crate) again: u64,
    /// The epochs whose rows were wanted, with them.
    #[cfg_attr(not(feature = "kafka"), allow(dead_code))]
    pub(crate) wanted: Vec<Epoch>,
}

impl<T> Resumed<T> {
    /// The sums over all shards.
    pub(crate) fn totals(&self) -> Totals {
        self.last.iter().fold(Totals::default(), |sum, commit| sum.and(commit.totals))
    }
}

/// Batches, where each ends, and what goes with it past the table.
type Queue<J> = VecDeque<(Mark, <J as Job>::Batch, Vec<Rows>)>;

/// Merges again what is in no snapshot, and leaves the partitions where they are to be read on.
pub(crate) fn resume<J: Job>(
    job: &J,
    partitions: &mut [J::Partition],
    fresh: Vec<J::Table>,
    past: Past,
) -> Result<Resumed<J::Table>, Error> {
    let (stages, mut again) = (job.stages().len(), 0);
    let marks = partitions.len() * stages;
    let (mut tables, mut last) = (Vec::new(), Vec::new());
    let mut snapshots = past.snapshots.into_iter();
    for (shard, fresh) in fresh.into_iter().enumerate() {
        let (table, after) = match snapshots.next().flatten() {
            None => (
                fresh,
                Commit { shard: shard as u32, cut: vec![Mark::default(); marks], ..Commit::default() },
            ),
            Some(Snapshot { after, bytes }) => {
                let table = job.load(&bytes).map_err(|_| {
                    let epoch = after.epoch;
                    Error::Request(format!(
                        "the snapshot of shard {shard} after epoch {epoch} is sound, and holds no keys of this join"
                    ))
                })?;
                (table, Commit { merges: Vec::new(), ..after })
            }
        };
        if after.cut.len() != marks {
            return Err(unlike(
                shard,
                after.epoch,
                "it is of a source with another number of partitions or stages",
            ));
        }
        tables.push(table);
        job.own(&mut tables[shard], shard);
        last.push(after);
    }
    let from: Vec<Vec<Mark>> = last.iter().map(|commit: &Commit| commit.cut.clone()).collect();
    seek(job, partitions, &last, stages);
    // Batches that were sorted and are not to be merged yet: stages and shards are not all equally far.
    let mut ahead: HashMap<(usize, usize), Queue<J>> = HashMap::new();
    let mut wanted = Vec::new();
    for commit in past.commits {
        let (shard, epoch) = (commit.shard as usize, commit.epoch);
        let is_wanted = past.wanted.contains(&(commit.shard, epoch));
        let mut rows: Vec<Rows> = Vec::new();
        let Some(table) = tables.get_mut(shard) else {
            return Err(unlike(shard, epoch, "there are not so many shards"));
        };
        for Merge { partition, stage, until } in &commit.merges {
            let (p, s) = (*partition as usize, *stage as usize);
            if p >= partitions.len() || s >= stages {
                return Err(unlike(shard, epoch, "it is of a source with more partitions or stages"));
            }
            let at = p * stages + s;
            let (mark, batch, past) = loop {
                if let Some(next) = ahead.get_mut(&(shard, at)).and_then(VecDeque::pop_front) {
                    break next;
                }
                if !job.fill(&mut partitions[p])? {
                    return Err(unlike(
                        shard,
                        epoch,
                        &format!("partition {p} ends before what was merged of it"),
                    ));
                }
                let (routed, mark) = (job.route(&partitions[p], true)?, job.mark(&partitions[p]));
                job.pass(&mut partitions[p]);
                // The first of them carries what goes past the table, as it did.
                let mut past: Vec<Rows> = routed.sheets.iter().map(|sheet| job.rows(sheet)).collect();
                for batch in routed.batches {
                    let (shard, at) = (job.shard(&batch), p * stages + job.stage(&batch));
                    let past = std::mem::take(&mut past);
                    if from[shard][at] < mark {
                        ahead.entry((shard, at)).or_default().push_back((mark, batch, past));
                    }
                }
            };
            if mark != *until {
                let (is, was) = (mark.offset, until.offset);
                return Err(unlike(
                    shard,
                    epoch,
                    &format!("a block of partition {p} ends after {is} messages, and ended after {was}"),
                ));
            }
            job.merge(table, &batch, &mut 0, job.len(&batch));
            let pages = job.pages(table, true);
            if is_wanted {
                rows.extend(past);
                rows.extend(pages.iter().map(|sheet| job.rows(sheet)));
            }
            again += job.len(&batch) as u64;
            last[shard].cut[at] = mark;
        }
        if last[shard].cut != commit.cut {
            return Err(unlike(shard, epoch, "what was merged does not lead to its cut"));
        }
        let gauge = job.gauge(table);
        let Totals { joined, open, duplicates, .. } = commit.totals;
        if (gauge.joined, gauge.open, gauge.duplicates) != (joined, open, duplicates) {
            let (now, then) = (gauge.joined, joined);
            return Err(unlike(
                shard,
                epoch,
                &format!("merged again, {now} keys are joined where {then} were: is the source what it was?"),
            ));
        }
        if is_wanted {
            let now: u64 = rows.iter().map(|rows| u64::from(rows.count)).sum();
            let (before, then) = (last[shard].totals.rows, commit.totals.rows);
            if before + now != then {
                let words = format!("{now} rows come of it, where {} came", then.saturating_sub(before));
                return Err(unlike(shard, epoch, &words));
            }
            wanted.push(Epoch { commit: commit.clone(), rows, snapshot: None });
        }
        last[shard] = Commit { merges: Vec::new(), ..commit };
    }
    seek(job, partitions, &last, stages);
    Ok(Resumed { tables, last, again, wanted })
}

/// Each partition is read from where the first of those goes on who have read it.
fn seek<J: Job>(job: &J, partitions: &mut [J::Partition], last: &[Commit], stages: usize) {
    for (p, partition) in partitions.iter_mut().enumerate() {
        let marks = last.iter().flat_map(|commit| &commit.cut[p * stages..(p + 1) * stages]);
        job.seek(partition, marks.min().copied().unwrap_or_default());
    }
}

/// What the log says and what the source is do not go together.
fn unlike(shard: usize, epoch: u64, why: &str) -> Error {
    Error::Request(format!("epoch {epoch} of shard {shard} cannot be made again: {why}"))
}
