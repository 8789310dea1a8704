//! What a join consists of, whatever its messages are made of. The topology and the plain join know only this.

use std::fmt;

use crate::{
    error::Error,
    log::{Mark, Rows, code::Malformed},
};

/// A kind of join: how its messages are read, sorted by stage, merged and written.
///
/// The steps are plain functions that wait for nothing. Those that change something (`fill`, `pass`, `merge`, `write`)
/// leave it whole at every point where a panic can come.
pub(crate) trait Job: Send + Sync + 'static {
    /// A part of the input, and how far it has been read.
    type Partition: Send + 'static;
    /// Messages of one stage.
    type Batch: Send + Sync + 'static;
    /// The open keys.
    type Table: Send + 'static;
    /// Rows of one output file.
    type Page: Send + Sync + 'static;
    /// All output files.
    type Output: Send + 'static;

    /// The stages' names; a stage's number is its place here.
    fn stages(&self) -> &[String];
    /// Over how many sinks the keys are spread.
    fn shards(&self) -> usize;

    /// It is a partition's turn: how many blocks are read before it is another's.
    fn blocks(&self, _partition: &mut Self::Partition) -> u64 {
        1
    }
    /// Sees to it that a block lies ready in the partition; `false` at its end.
    fn fill(&self, partition: &mut Self::Partition) -> Result<bool, Error>;
    /// Sorts the block's messages by stage and shard, and leaves the block. With `all` there is a batch for each of them,
    /// also where there are no messages.
    fn route(&self, partition: &Self::Partition, all: bool) -> Result<Routed<Self>, Error>;
    /// The block has been handed on.
    fn pass(&self, partition: &mut Self::Partition);
    /// Where the block that lies ready ends. Blocks that are read from a mark on end where they ended before.
    fn mark(&self, partition: &Self::Partition) -> Mark;
    /// Goes on reading at a mark.
    fn seek(&self, partition: &mut Self::Partition, mark: Mark);

    /// Which stage a batch is of.
    fn stage(&self, batch: &Self::Batch) -> usize;
    /// Which shard a batch is for.
    fn shard(&self, batch: &Self::Batch) -> usize;
    /// How many messages a batch holds.
    fn len(&self, batch: &Self::Batch) -> usize;

    /// Merges a batch into the table, from message `done` until message `until`. `done` moves with the table, message by
    /// message: whoever comes after a death half-way goes on where it stands.
    fn merge(&self, table: &mut Self::Table, batch: &Self::Batch, done: &mut usize, until: usize);
    /// Pages of joined rows that are full, or all there are.
    fn pages(&self, table: &mut Self::Table, all: bool) -> Vec<Sheet<Self::Page>>;
    /// What can be read off the table.
    fn gauge(&self, table: &Self::Table) -> Gauge;

    /// Writes down the open keys and the gauge.
    fn save(&self, table: &Self::Table) -> Vec<u8>;
    /// A table with the open keys and the gauge as they were written down. Nothing is begun in its pages.
    fn load(&self, saved: &[u8]) -> Result<Self::Table, Malformed>;
    /// The table is of this shard.
    fn own(&self, _table: &mut Self::Table, _shard: usize) {}
    /// A page as a log keeps it.
    fn rows(&self, sheet: &Sheet<Self::Page>) -> Rows;

    /// Writes a page, or the first part of it.
    fn write(&self, output: &mut Self::Output, sheet: &Sheet<Self::Page>, share: Share) -> Result<(), Error>;
    /// What has been written stays.
    fn keep(&self, output: &mut Self::Output);
    /// What has been written and not kept is gone again.
    fn rewind(&self, output: &mut Self::Output) -> Result<(), Error>;
}

/// What a job on a log leaves to the `join` it holds: all but where messages come from. Rows go into the log, with the epoch, and
/// there is no other output.
macro_rules! as_its_join {
    () => {
        type Output = ();

        fn stage(&self, batch: &Self::Batch) -> usize {
            self.join.stage(batch)
        }

        fn shard(&self, batch: &Self::Batch) -> usize {
            self.join.shard(batch)
        }

        fn len(&self, batch: &Self::Batch) -> usize {
            self.join.len(batch)
        }

        fn merge(&self, table: &mut Self::Table, batch: &Self::Batch, done: &mut usize, until: usize) {
            self.join.merge(table, batch, done, until);
        }

        fn pages(&self, table: &mut Self::Table, all: bool) -> Vec<$crate::job::Sheet<Self::Page>> {
            self.join.pages(table, all)
        }

        fn gauge(&self, table: &Self::Table) -> $crate::job::Gauge {
            self.join.gauge(table)
        }

        fn save(&self, table: &Self::Table) -> Vec<u8> {
            self.join.save(table)
        }

        fn load(&self, saved: &[u8]) -> Result<Self::Table, $crate::log::code::Malformed> {
            self.join.load(saved)
        }

        fn own(&self, table: &mut Self::Table, shard: usize) {
            self.join.own(table, shard);
        }

        fn rows(&self, sheet: &$crate::job::Sheet<Self::Page>) -> $crate::log::Rows {
            self.join.rows(sheet)
        }

        fn write(
            &self,
            (): &mut (),
            _: &$crate::job::Sheet<Self::Page>,
            _: $crate::job::Share,
        ) -> Result<(), $crate::error::Error> {
            Ok(())
        }

        fn keep(&self, (): &mut ()) {}

        fn rewind(&self, (): &mut ()) -> Result<(), $crate::error::Error> {
            Ok(())
        }
    };
}
pub(crate) use as_its_join;

/// A page, and the number of the file it belongs to.
#[derive(Debug)]
pub(crate) struct Sheet<P> {
    /// The file's number.
    pub(crate) file: usize,
    /// What goes into it.
    pub(crate) page: P,
}

/// The pages that are full and, with `all`, those that are begun.
pub(crate) fn take_pages<T>(
    full: &mut Vec<Sheet<Vec<T>>>,
    begun: &mut [Vec<T>],
    all: bool,
) -> Vec<Sheet<Vec<T>>> {
    let mut pages = std::mem::take(full);
    if all {
        let rest = begun.iter_mut().map(std::mem::take).enumerate();
        let rest = rest.filter(|(_, page)| !page.is_empty());
        pages.extend(rest.map(|(file, page)| Sheet { file, page }));
    }
    pages
}

/// A block's messages, sorted.
pub(crate) struct Routed<J: Job + ?Sized> {
    /// One batch for each stage and shard that has messages.
    pub(crate) batches: Vec<J::Batch>,
    /// What goes into the output past the table.
    pub(crate) sheets: Vec<Sheet<J::Page>>,
    /// How many lines could not be read.
    pub(crate) rejected: u64,
}

impl<J: Job> fmt::Debug for Routed<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routed")
            .field("batches", &self.batches.len())
            .field("rejected", &self.rejected)
            .finish()
    }
}

/// How much of a thing a worker gets done before it is killed, in parts of 256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share(pub(crate) u16);

impl Share {
    /// The whole.
    pub(crate) const ALL: Share = Share(256);

    /// This share of a length.
    pub(crate) fn of(self, len: usize) -> usize {
        (len as u128 * u128::from(self.0) / 256) as usize
    }
}

/// What can be read off a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Gauge {
    /// Keys that are open.
    pub(crate) open: u64,
    /// Keys that were open when most were.
    pub(crate) peak: u64,
    /// Bytes it takes.
    pub(crate) bytes: u64,
    /// Bytes it took when it took most.
    pub(crate) peak_bytes: u64,
    /// Keys that have been joined.
    pub(crate) joined: u64,
    /// Messages whose key already had one of their stage.
    pub(crate) duplicates: u64,
}

impl Gauge {
    /// Of two tables with different keys.
    pub(crate) fn and(self, other: Gauge) -> Gauge {
        Gauge {
            open: self.open + other.open,
            // They need not have had their peaks at the same time.
            peak: self.peak + other.peak,
            bytes: self.bytes + other.bytes,
            peak_bytes: self.peak_bytes + other.peak_bytes,
            joined: self.joined + other.joined,
            duplicates: self.duplicates + other.duplicates,
        }
    }
}
