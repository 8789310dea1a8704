//! Partitions of the source, and the join of what is in them.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
};

use crate::{
    error::Error,
    job::{Job, Routed, as_its_join},
    kafka::{Cluster, PATIENCE, commits::Told, failed},
    log::{Commit, Mark, Rows},
    read::{Block, Broken, Text},
    text::{Batch, InFiles, Open},
};

/// Messages and bytes of a block, at most.
const BLOCK: usize = 2_048;
const BYTES: usize = 1 << 20;

/// More messages that are missing between two are not written as empty lines.
const GAP: u64 = 4_096;

/// A message: its offset, whether it has a key, and what it says.
type Taken = (u64, bool, Vec<u8>);

/// How often, and how long, the brokers are asked where a partition ends.
const LAG: Duration = Duration::from_secs(1);

/// How long a reader waits before it lets others have a look at the time.
const TICK: Duration = Duration::from_millis(20);

/// The join of a source's partitions; each is a shard.
pub(crate) struct InKafka {
    join: Arc<InFiles>,
    cluster: Arc<Cluster>,
    shards: usize,
    until_end: bool,
    /// Messages that are there and not read, in all partitions of this process.
    lag: Arc<AtomicU64>,
}

/// A partition that was given.
pub(crate) struct Partition {
    shard: usize,
    number: i32,
    name: String,
    cluster: Arc<Cluster>,
    consumer: Option<BaseConsumer>,
    /// The next offset.
    next: u64,
    /// Where blocks ended before that are read again.
    ends: Vec<u64>,
    /// Where it ended when the run began, if that is where the run ends.
    until: Option<u64>,
    first: u64,
    block: Option<Block>,
    /// A message that is not in a block yet: many are missing before it.
    held: Option<Taken>,
    heard: Instant,
    /// Where it ended when the brokers were asked, and when that was.
    high: u64,
    asked: Instant,
    /// Its share of the lag.
    behind: u64,
    lag: Arc<AtomicU64>,
}

/// The keys of rows, and where rows go.
#[derive(Clone)]
pub(crate) struct Keys {
    join: Arc<InFiles>,
    partitions: usize,
}

impl Keys {
    /// The rows of a file, each with its topic and its key.
    pub(crate) fn rows<'a>(&self, rows: &'a Rows) -> impl Iterator<Item = Row<'a>> {
        let (file, topic) = (rows.file, self.topic(rows.file));
        let lines = rows.bytes.split(|byte| *byte == b'\n').filter(|row| !row.is_empty());
        lines.map(move |row| Row { topic, key: self.key(file, row), row })
    }

    fn topic(&self, file: usize) -> u32 {
        match self.join.file(file).checked_sub(self.partitions) {
            Some(2) => 2,
            Some(1) => 1,
            _ => 0,
        }
    }

    /// As it is written in JSON; a rejected line has none.
    fn key(&self, file: usize, row: &[u8]) -> Vec<u8> {
        let mut json = Vec::new();
        let is_row = self.join.file(file) != self.partitions + 2;
        if let Some(key) = self.join.key_of_row(row).filter(|_| is_row) {
            crate::record::write_key(&mut json, &key);
        }
        json
    }
}

/// A row on its way.
pub(crate) struct Row<'a> {
    /// Which of [`Topics::of_rows`](crate::kafka::Topics::of_rows).
    pub(crate) topic: u32,
    pub(crate) key: Vec<u8>,
    pub(crate) row: &'a [u8],
}

impl InKafka {
    /// Of so many partitions.
    pub(crate) fn new(join: InFiles, cluster: &Arc<Cluster>, given: &[i32], until_end: bool) -> InKafka {
        InKafka {
            join: Arc::new(join),
            cluster: Arc::clone(cluster),
            shards: given.len(),
            until_end,
            lag: Arc::default(),
        }
    }

    /// What is needed to write rows.
    pub(crate) fn keys(&self) -> Keys {
        Keys { join: Arc::clone(&self.join), partitions: self.shards }
    }

    /// Messages that are there and not read.
    pub(crate) fn lag(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.lag)
    }

    /// A table for each.
    pub(crate) fn tables(&self) -> Vec<Open> {
        self.join.tables()
    }

    /// A partition, to be read from where its commits say.
    pub(crate) fn partition(&self, shard: usize, number: i32, told: &Told) -> Result<Partition, Error> {
        let topic = &self.cluster.topics.source;
        let consumer = self.cluster.reader()?;
        let (low, high) =
            consumer.fetch_watermarks(topic, number, PATIENCE).map_err(failed("ask for the source's end"))?;
        let stages = self.join.stages().len();
        let own = |commit: &Commit| commit.cut[shard * stages..(shard + 1) * stages].to_vec();
        let mut ends: BTreeSet<u64> = BTreeSet::new();
        ends.extend(told.snapshot.iter().flat_map(|snapshot| own(&snapshot.after)).map(|mark| mark.offset));
        ends.extend(told.commits.iter().flat_map(|commit| &commit.merges).map(|merge| merge.until.offset));
        let from = told.snapshot.as_ref().and_then(|snapshot| own(&snapshot.after).into_iter().min());
        let is_new = told.snapshot.is_none() && told.commits.is_empty();
        if from.unwrap_or_default().offset < low as u64 && !is_new {
            return Err(Error::Request(format!(
                "Kafka: partition {number} of {topic} begins at {low}, and the join goes on at {}: its retention is too short",
                from.unwrap_or_default().offset
            )));
        }
        Ok(Partition {
            shard,
            number,
            name: format!("{topic}[{number}]"),
            cluster: Arc::clone(&self.cluster),
            consumer: Some(consumer),
            next: 0,
            ends: ends.into_iter().collect(),
            until: self.until_end.then_some(high as u64),
            first: 0,
            block: None,
            held: None,
            heard: Instant::now(),
            high: high as u64,
            asked: Instant::now(),
            behind: 0,
            lag: self.lag(),
        })
    }
}

impl Partition {
    /// Where it ends for this run, if it does.
    pub(crate) fn until(&self) -> Option<u64> {
        self.until
    }

    fn assign(&mut self) -> Result<(), Error> {
        let consumer = match self.consumer.take() {
            Some(consumer) => consumer,
            None => self.cluster.reader()?,
        };
        let mut list = TopicPartitionList::new();
        let from = if self.next == 0 { Offset::Beginning } else { Offset::Offset(self.next as i64) };
        let what = failed("read the source");
        list.add_partition_offset(&self.cluster.topics.source, self.number, from).map_err(&what)?;
        consumer.assign(&list).map_err(&what)?;
        (self.consumer, self.heard) = (Some(consumer), Instant::now());
        Ok(())
    }

    /// How far the consumer is, whether there were messages or not.
    fn position(&self, consumer: &BaseConsumer) -> u64 {
        let position = consumer.position().ok();
        let of_ours =
            position.as_ref().and_then(|list| list.find_partition(&self.cluster.topics.source, self.number));
        let at = of_ours.and_then(|of_ours| of_ours.offset().to_raw());
        at.and_then(|at| u64::try_from(at).ok()).unwrap_or(self.next)
    }

    /// For people: how far behind it is.
    fn tell_lag(&mut self) {
        if self.asked.elapsed() >= LAG {
            let high = self.consumer.as_ref().and_then(|consumer| {
                consumer.fetch_watermarks(&self.cluster.topics.source, self.number, LAG).ok()
            });
            self.high = high.and_then(|(_, high)| u64::try_from(high).ok()).unwrap_or(self.high);
            self.asked = Instant::now();
        }
        let behind = self.high.saturating_sub(self.next);
        // Others may read this sum, and nothing is decided by it.
        self.lag.fetch_add(behind.wrapping_sub(self.behind), Relaxed);
        self.behind = behind;
    }

    /// Reads a block: up to where one ended before, or as much as there is.
    fn read(&mut self) -> Result<(), Error> {
        let limit = self.ends.get(self.ends.partition_point(|end| *end <= self.next)).copied();
        let mut lines = Lines::default();
        let began = Instant::now();
        let mut count = 0;
        self.first = self.next;
        if let Some(held) = self.held.take() {
            lines.add(&mut self.next, &mut self.first, held);
            count += 1;
        }
        let Some(consumer) = &self.consumer else { unreachable!("it is assigned") };
        while limit.is_some_and(|limit| self.next < limit)
            || limit.is_none() && count < BLOCK && lines.bytes.len() < BYTES
        {
            let wait = if limit.is_some() { TICK } else { TICK.saturating_sub(began.elapsed()) };
            let message = match consumer.poll(wait) {
                Some(Ok(message)) => message,
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    // What is not there for readers of what is committed (markers, aborted messages) counts as read.
                    let at = self.position(consumer);
                    match limit {
                        None if count == 0 => {
                            (self.next, self.first) = (self.next.max(at), self.next.max(at))
                        }
                        None => {}
                        Some(limit) if at >= limit => {}
                        Some(_) => {
                            let words = format!("Kafka: {} ends before what was merged of it", self.name);
                            return Err(Error::Request(words));
                        }
                    }
                    self.heard = Instant::now();
                    break;
                }
                // A broker that is away may come back; one that says that it never will is believed.
                Some(Err(error)) if is_final(&error) => return Err(failed("read the source")(error)),
                Some(Err(_)) | None if limit.is_none() => break,
                Some(Err(_)) | None if self.heard.elapsed() < PATIENCE => continue,
                Some(Err(error)) => return Err(failed("read the source")(error)),
                None => return Err(Error::Request(format!("Kafka: nothing is heard of {}", self.name))),
            };
            self.heard = Instant::now();
            let payload = message.payload().unwrap_or_default().to_vec();
            let taken = (message.offset() as u64, message.key().is_some(), payload);
            if taken.0 < self.next {
                continue;
            }
            if taken.0 - self.next > GAP && count > 0 {
                self.held = Some(taken);
                break;
            }
            lines.add(&mut self.next, &mut self.first, taken);
            count += 1;
        }
        if let (Some(limit), None) = (limit, &self.held) {
            self.next = self.next.max(limit);
        }
        let Lines { bytes, broken } = lines;
        self.block = Some(Block { text: Text::Lines { first: self.first, bytes }, broken });
        Ok(())
    }
}

/// Messages as lines.
#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
    broken: Vec<Broken>,
}

impl Lines {
    /// Lines are numbered as messages are: those that are missing are empty lines, or, before the first, are passed over.
    fn add(&mut self, next: &mut u64, first: &mut u64, (offset, has_key, payload): Taken) {
        let Lines { bytes, broken } = self;
        if offset - *next > GAP {
            (*first, *next) = (offset, offset);
        }
        bytes.resize(bytes.len() + (offset - *next) as usize, b'\n');
        if has_key {
            // Between the parts of JSON a new line is as good as a blank, and elsewhere it is none.
            bytes.extend(payload.iter().map(|byte| if *byte == b'\n' { b' ' } else { *byte }));
        } else {
            let why = "it has no key, and nothing says that its partition is that of its key".to_owned();
            broken.push(Broken { line: offset, why, text: payload });
        }
        bytes.push(b'\n');
        *next = offset + 1;
    }
}

fn is_final(error: &KafkaError) -> bool {
    use rdkafka::error::RDKafkaErrorCode::{
        AutoOffsetReset, OffsetOutOfRange, SaslAuthenticationFailed, TopicAuthorizationFailed,
        UnknownTopicOrPartition,
    };
    let fatal = [
        AutoOffsetReset,
        OffsetOutOfRange,
        SaslAuthenticationFailed,
        TopicAuthorizationFailed,
        UnknownTopicOrPartition,
    ];
    error.rdkafka_error_code().is_some_and(|code| fatal.contains(&code))
}

impl Job for InKafka {
    type Batch = Batch;
    type Page = Vec<u8>;
    type Partition = Partition;
    type Table = Open;

    fn stages(&self) -> &[String] {
        self.join.stages()
    }

    fn shards(&self) -> usize {
        self.shards
    }

    fn fill(&self, partition: &mut Partition) -> Result<bool, Error> {
        if partition.block.is_some() {
            return Ok(true);
        }
        if partition.until.is_some_and(|until| partition.next >= until) {
            return Ok(false);
        }
        if partition.consumer.is_none() {
            partition.assign()?;
        }
        partition.read()?;
        Ok(true)
    }

    fn route(&self, partition: &Partition, _all: bool) -> Result<Routed<Self>, Error> {
        let Some(block) = &partition.block else { unreachable!("only what is filled is routed") };
        let Routed { batches, sheets, rejected } =
            self.join.sort(block, &partition.name, Some(partition.shard))?;
        Ok(Routed { batches, sheets, rejected })
    }

    fn pass(&self, partition: &mut Partition) {
        partition.tell_lag();
        partition.block = None;
    }

    fn mark(&self, partition: &Partition) -> Mark {
        Mark { offset: partition.next, byte: 0 }
    }

    fn seek(&self, partition: &mut Partition, mark: Mark) {
        (partition.next, partition.block, partition.held) = (mark.offset, None, None);
        // Fetched anew from there; the client is made with the first block.
        partition.consumer = None;
    }

    as_its_join!();
}
