//! The log seam: how rows and what they were made of become one durable step, whoever keeps them.
//!
//! The state of a join is a fold of what its sink has merged. A [`Commit`] says what that was: for each stage and partition
//! of the source how far it has come (the *cut*), and in which order the batches since the commit before were merged. With
//! the epoch's rows it is one atomic step of a [`Log`]. After a death the same batches are merged again in the same order,
//! silently, and the open keys are what they were; a [`Snapshot`] of them bounds that work.
//!
//! Two logs are behind this: [`embedded`], in a folder, and Kafka (feature `kafka`).

pub(crate) mod code;
pub(crate) mod embedded;
pub(crate) mod frame;
pub(crate) mod segment;

use std::sync::Arc;

use crate::{
    error::Error,
    job::Share,
    log::code::{Malformed, Reader, Writer},
};

/// How far a partition has been read: what comes before it, and where reading goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark {
    /// Messages or lines before it.
    pub(crate) offset: u64,
    /// The byte it stands at, where the source has bytes.
    pub(crate) byte: u64,
}

/// A batch was merged: of this partition and stage, everything up to a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Merge {
    /// The source's partition.
    pub(crate) partition: u32,
    /// The stage.
    pub(crate) stage: u32,
    /// Where the batch ended.
    pub(crate) until: Mark,
}

/// Sums since the beginning of the job, over all lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Messages merged.
    pub(crate) messages: u64,
    /// Keys joined.
    pub(crate) joined: u64,
    /// Keys open.
    pub(crate) open: u64,
    /// Messages whose key had their stage.
    pub(crate) duplicates: u64,
    /// Lines that could not be read.
    pub(crate) rejected: u64,
    /// Rows written, of any kind.
    pub(crate) rows: u64,
}

impl Totals {
    /// The sum of two shards'.
    pub(crate) fn and(self, other: Totals) -> Totals {
        Totals {
            messages: self.messages + other.messages,
            joined: self.joined + other.joined,
            open: self.open + other.open,
            duplicates: self.duplicates + other.duplicates,
            rejected: self.rejected + other.rejected,
            rows: self.rows + other.rows,
        }
    }

    fn encode(&self, into: &mut Writer) {
        let Totals { messages, joined, open, duplicates, rejected, rows } = *self;
        [messages, joined, open, duplicates, rejected, rows].into_iter().for_each(|n| into.u64(n));
    }

    fn decode(from: &mut Reader<'_>) -> Result<Totals, Malformed> {
        Ok(Totals {
            messages: from.u64()?,
            joined: from.u64()?,
            open: from.u64()?,
            duplicates: from.u64()?,
            rejected: from.u64()?,
            rows: from.u64()?,
        })
    }
}

/// What a shard of the sink has taken in, and since when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Commit {
    /// The shard.
    pub(crate) shard: u32,
    /// Counted from one, for each shard.
    pub(crate) epoch: u64,
    /// When, in milliseconds since 1970.
    pub(crate) millis: u64,
    /// The shard's sums.
    pub(crate) totals: Totals,
    /// For each partition and stage, how far the shard has come: stage `s` of partition `p` is at `p * stages + s`.
    pub(crate) cut: Vec<Mark>,
    /// What was merged since the commit before, in order.
    pub(crate) merges: Vec<Merge>,
}

impl Mark {
    const BYTES: usize = 16;

    fn encode(self, into: &mut Writer) {
        into.u64(self.offset);
        into.u64(self.byte);
    }

    fn decode(from: &mut Reader<'_>) -> Result<Mark, Malformed> {
        Ok(Mark { offset: from.u64()?, byte: from.u64()? })
    }
}

impl Commit {
    /// Appends it.
    pub(crate) fn encode(&self, into: &mut Writer) {
        into.u32(self.shard);
        into.u64(self.epoch);
        into.u64(self.millis);
        self.totals.encode(into);
        into.u32(self.cut.len() as u32);
        self.cut.iter().for_each(|mark| mark.encode(into));
        into.u32(self.merges.len() as u32);
        for Merge { partition, stage, until } in &self.merges {
            into.u32(*partition);
            into.u32(*stage);
            until.encode(into);
        }
    }

    /// Reads it.
    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Commit, Malformed> {
        Ok(Commit {
            shard: from.u32()?,
            epoch: from.u64()?,
            millis: from.u64()?,
            totals: Totals::decode(from)?,
            cut: from.list(Mark::BYTES, Mark::decode)?,
            merges: from.list(8 + Mark::BYTES, |from| {
                Ok(Merge { partition: from.u32()?, stage: from.u32()?, until: Mark::decode(from)? })
            })?,
        })
    }
}

/// Rows for one file of the output.
#[derive(Clone, Debug)]
pub(crate) struct Rows {
    /// The file's number.
    pub(crate) file: usize,
    /// How many.
    pub(crate) count: u32,
    /// As they are kept.
    pub(crate) bytes: Vec<u8>,
}

/// What becomes durable in one step.
#[derive(Debug)]
pub(crate) struct Epoch {
    /// What was taken in.
    pub(crate) commit: Commit,
    /// What came out.
    pub(crate) rows: Vec<Rows>,
    /// The open keys after it, now and then.
    pub(crate) snapshot: Option<Arc<Vec<u8>>>,
}

/// The open keys of a shard, as they were after an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// After which; it has no merges.
    pub(crate) after: Commit,
    /// The keys, as their job writes them.
    pub(crate) bytes: Vec<u8>,
}

/// What a log knows of the time before.
#[derive(Debug, Default)]
pub(crate) struct Past {
    /// For each shard, where the fold may begin.
    pub(crate) snapshots: Vec<Option<Snapshot>>,
    /// The commits after those, of all shards, in their order.
    pub(crate) commits: Vec<Commit>,
    /// Shards and epochs of commits whose rows are wanted again: it is not known whether all of them are out.
    pub(crate) wanted: Vec<(u32, u64)>,
}

/// Keeps rows and what they were made of: the two together or neither.
pub(crate) trait Log: Send {
    /// Makes an epoch durable, in one atomic step. A death before the step leaves nothing that would be read; `share` is
    /// how much of the rows is written before a planned one, which is then no commit.
    fn commit(&mut self, epoch: &Epoch, share: Share) -> Result<(), Error>;

    /// Takes back what was written of an epoch that was not committed.
    fn rewind(&mut self) -> Result<(), Error>;
}

/// Milliseconds since 1970: for people, nothing is decided by them.
pub(crate) fn millis() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn commit(random: &mut Random) -> Commit {
        let mark = |random: &mut Random| Mark { offset: random.next(), byte: random.next() };
        Commit {
            shard: random.next() as u32,
            epoch: random.next(),
            millis: random.next(),
            totals: Totals { messages: random.next(), open: random.next(), ..Totals::default() },
            cut: (0..random.below(9)).map(|_| mark(random)).collect(),
            merges: (0..random.below(9))
                .map(|n| Merge { partition: n as u32, stage: random.next() as u32, until: mark(random) })
                .collect(),
        }
    }

    #[test]
    fn a_commit_is_read_as_it_was_written() {
        let mut random = Random::new(4);
        for _ in 0..200 {
            let (commit, mut bytes) = (commit(&mut random), Writer::default());
            commit.encode(&mut bytes);
            let mut reader = Reader(&bytes.0);
            assert_eq!(Commit::decode(&mut reader), Ok(commit));
            assert_eq!(reader.end(), Ok(()));
        }
    }

    #[test]
    fn any_bytes_are_no_commit_or_one_and_never_a_panic() {
        let mut random = Random::new(5);
        for _ in 0..20_000 {
            let mut bytes = Writer::default();
            commit(&mut random).encode(&mut bytes);
            for _ in 0..random.below(4) {
                let at = random.below(bytes.0.len() as u64) as usize;
                bytes.0[at] = random.next() as u8;
            }
            bytes.0.truncate(random.below(bytes.0.len() as u64 + 1) as usize);
            let _ = Commit::decode(&mut Reader(&bytes.0));
        }
    }
}
