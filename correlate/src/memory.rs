//! The main job: three streams that are made from a seed and joined in memory.
//!
//! A message is a customer's number, a stage and a payload; all streams together are shuffled, so that order tells
//! nothing, and cut into partitions. What should come out is known from the seed alone: [`check`] asks neither the
//! messages nor anything that was counted on the way.

use std::{mem, sync::Arc};

use bytemuck::{Pod, Zeroable};

use crate::{
    error::Error,
    job::{Gauge, Job, Routed, Share, Sheet, take_pages},
    log::{
        Mark, Rows,
        code::{Malformed, Reader, Writer},
    },
    random::{Random, mix},
    table::{Slot, Table},
};

/// Streams of the main job.
pub(crate) const STAGES: usize = 3;

/// Rows that travel to the writer together.
const PAGE: usize = 2048;

/// Bytes of a row in a log: the customer and the payloads.
pub(crate) const ROW: usize = 8 * (1 + STAGES);

/// Bytes of an open key in a snapshot.
const SAVED: usize = 3 * 8 + 2;

/// How many messages before its turn a message's place in the table is asked for. What comes from the memory within that
/// time costs nothing; what comes too early is gone again.
const AHEAD: usize = 16;

/// What a stream says about a customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// The key, counted from one.
    pub(crate) customer: u64,
    /// What it says.
    pub(crate) payload: u64,
    /// Which stream.
    pub(crate) stage: u8,
}

/// All streams' messages for customers 1 to `customers`, in an order that tells nothing.
pub(crate) fn messages(seed: u64, customers: u64) -> Vec<Message> {
    let mut messages = Vec::with_capacity(customers as usize * STAGES);
    for stage in 0..STAGES as u8 {
        messages.extend((1..=customers).map(|customer| Message {
            customer,
            payload: payload(seed, stage, customer),
            stage,
        }));
    }
    Random::new(seed).shuffle(&mut messages);
    messages
}

/// What a stream says about a customer, and would say again.
pub(crate) fn payload(seed: u64, stage: u8, customer: u64) -> u64 {
    mix(mix(seed ^ u64::from(stage)) ^ customer)
}

/// Scatters customers over the table and the output.
#[inline]
fn hash(customer: u64) -> u64 {
    let wide = u128::from(customer ^ 0x2d35_8dcc_aa6c_78a5) * 0x9e37_79b9_7f4a_7c15;
    (wide >> 64) as u64 ^ wide as u64
}

/// Which output partition a customer's row goes to.
#[inline]
pub(crate) fn place(customer: u64, partitions: usize) -> usize {
    // The lower half: the upper bits find the place in the table.
    (((hash(customer) & 0xffff_ffff) * partitions as u64) >> 32) as usize
}

/// A customer in whom all streams have met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) customer: u64,
    pub(crate) payloads: [u64; STAGES],
}

/// The join in memory.
#[derive(Clone, Debug)]
pub(crate) struct InMemory {
    stages: [String; STAGES],
    partitions: usize,
    batch: usize,
    shards: usize,
    /// For each output partition, the shard that its customers are in.
    owners: Vec<u8>,
}

impl InMemory {
    /// With so many output partitions, and about so many messages a batch.
    pub(crate) fn new(partitions: usize, batch: usize) -> InMemory {
        let owners = vec![0; partitions];
        InMemory { stages: ["A", "B", "C"].map(str::to_owned), partitions, batch, shards: 1, owners }
    }

    /// With so many sinks, each with its share of the output partitions; no more than there are.
    pub(crate) fn sharded(mut self, shards: usize) -> InMemory {
        self.shards = shards.clamp(1, self.partitions.min(256));
        self.owners = (0..self.partitions).map(|partition| (partition % self.shards) as u8).collect();
        self
    }

    /// For each output partition, the shard whose rows go there.
    pub(crate) fn owners(&self) -> Vec<usize> {
        self.owners.iter().map(|owner| usize::from(*owner)).collect()
    }

    /// A table for each shard.
    pub(crate) fn tables(&self) -> Vec<Open> {
        (0..self.shards).map(|_| self.table()).collect()
    }

    /// Sorts messages by stage and shard.
    pub(crate) fn sort(&self, messages: impl Iterator<Item = Message>, all: bool) -> Vec<Batch> {
        let room = self.batch * 5 / 4;
        let shards = 0..self.shards as u8;
        let mut batches: Vec<Batch> = shards
            .flat_map(|shard| {
                (0..STAGES as u8).map(move |stage| Batch { stage, shard, messages: Vec::with_capacity(room) })
            })
            .collect();
        if self.shards == 1 {
            for Message { customer, payload, stage } in messages {
                batches[usize::from(stage)].messages.push((customer, payload));
            }
        } else {
            for Message { customer, payload, stage } in messages {
                let shard = usize::from(self.owners[place(customer, self.partitions)]);
                batches[shard * STAGES + usize::from(stage)].messages.push((customer, payload));
            }
        }
        batches.retain(|batch| all || !batch.messages.is_empty());
        batches
    }

    /// The messages, cut into partitions.
    pub(crate) fn partitions(&self, messages: &Arc<Vec<Message>>) -> Vec<Partition> {
        let bounds = |n| n * messages.len() / self.partitions;
        (0..self.partitions)
            .map(|n| Partition {
                messages: Arc::clone(messages),
                first: bounds(n),
                next: bounds(n),
                end: bounds(n + 1),
            })
            .collect()
    }

    /// Nothing is open, nothing is joined.
    pub(crate) fn table(&self) -> Open {
        Open {
            table: Table::new(),
            rows: (0..self.partitions).map(|_| Vec::new()).collect(),
            full: Vec::new(),
            joined: 0,
            duplicates: 0,
            peak_bytes: 0,
        }
    }

    /// No rows yet.
    pub(crate) fn output(&self) -> Output {
        Output { files: (0..self.partitions).map(|_| File::default()).collect() }
    }

    fn block<'a>(&self, partition: &'a Partition) -> &'a [Message] {
        let end = partition.end.min(partition.next + self.block_len());
        &partition.messages[partition.next..end]
    }

    /// How many messages are read at a time.
    pub(crate) fn block_len(&self) -> usize {
        self.batch * STAGES * self.shards
    }

    /// How often a reader, a stage, the sink and the writer will be asked to do something, for so many messages.
    pub(crate) fn turns(&self, messages: usize) -> (u64, u64, u64, u64) {
        let blocks = (messages / self.block_len()) as u64;
        (
            blocks,
            blocks * self.shards as u64,
            blocks * STAGES as u64,
            (messages / STAGES / PAGE + self.partitions) as u64,
        )
    }
}

/// A part of the messages, and how far it has been read.
#[derive(Debug)]
pub(crate) struct Partition {
    messages: Arc<Vec<Message>>,
    first: usize,
    next: usize,
    end: usize,
}

/// Messages of one stage: customers and payloads.
#[derive(Debug)]
pub(crate) struct Batch {
    stage: u8,
    shard: u8,
    messages: Vec<(u64, u64)>,
}

/// A customer of whom some streams have spoken: of three stages, one or two.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(32))]
struct Place {
    customer: u64,
    payloads: [u64; STAGES - 1],
    /// A bit for each stage that has spoken. No bit, no customer.
    seen: u32,
    /// The stage that spoke first.
    first: u32,
}

impl Slot for Place {
    fn hash(&self) -> u64 {
        hash(self.customer)
    }

    fn is_free(&self) -> bool {
        self.seen == 0
    }
}

/// The open customers, and the joined rows that are not handed over yet.
#[derive(Debug)]
pub(crate) struct Open {
    table: Table<Place>,
    rows: Vec<Vec<Row>>,
    full: Vec<Sheet<Vec<Row>>>,
    joined: u64,
    duplicates: u64,
    peak_bytes: usize,
}

impl Open {
    /// Takes in one message: in one step, or with a panic before it.
    #[inline]
    fn add(&mut self, stage: u8, customer: u64, payload: u64) {
        let bit = 1 << stage;
        match self.table.find(hash(customer), |place| place.customer == customer) {
            Err(at) => {
                self.table
                    .add(at, Place { customer, payloads: [payload, 0], seen: bit, first: stage.into() });
            }
            Ok(at) => {
                let place = self.table.get_mut(at);
                if place.seen & bit != 0 {
                    self.duplicates += 1;
                } else if place.seen.count_ones() as usize == STAGES - 1 {
                    let second = (place.seen & !(1 << place.first)).trailing_zeros();
                    let mut payloads = [payload; STAGES];
                    payloads[place.first as usize] = place.payloads[0];
                    payloads[second as usize] = place.payloads[1];
                    self.table.evict(at);
                    self.join(Row { customer, payloads });
                } else {
                    place.seen |= bit;
                    place.payloads[1] = payload;
                }
            }
        }
    }

    #[inline]
    fn join(&mut self, row: Row) {
        let file = place(row.customer, self.rows.len());
        let rows = &mut self.rows[file];
        rows.push(row);
        self.joined += 1;
        if rows.len() == PAGE {
            let page = mem::replace(rows, Vec::with_capacity(PAGE));
            self.full.push(Sheet { file, page });
        }
    }
}

/// What was written.
#[derive(Debug)]
pub(crate) struct Output {
    files: Vec<File>,
}

#[derive(Debug, Default)]
struct File {
    rows: Vec<Row>,
    kept: usize,
}

impl Job for InMemory {
    type Batch = Batch;
    type Output = Output;
    type Page = Vec<Row>;
    type Partition = Partition;
    type Table = Open;

    fn stages(&self) -> &[String] {
        &self.stages
    }

    fn shards(&self) -> usize {
        self.shards
    }

    fn fill(&self, partition: &mut Partition) -> Result<bool, Error> {
        Ok(partition.next < partition.end)
    }

    fn route(&self, partition: &Partition, all: bool) -> Result<Routed<Self>, Error> {
        let batches = self.sort(self.block(partition).iter().copied(), all);
        Ok(Routed { batches, sheets: Vec::new(), rejected: 0 })
    }

    fn pass(&self, partition: &mut Partition) {
        partition.next += self.block(partition).len();
    }

    fn mark(&self, partition: &Partition) -> Mark {
        let offset = partition.next + self.block(partition).len() - partition.first;
        Mark { offset: offset as u64, byte: 0 }
    }

    fn seek(&self, partition: &mut Partition, mark: Mark) {
        partition.next = (partition.first + mark.offset as usize).min(partition.end);
    }

    fn stage(&self, batch: &Batch) -> usize {
        batch.stage.into()
    }

    fn shard(&self, batch: &Batch) -> usize {
        batch.shard.into()
    }

    fn len(&self, batch: &Batch) -> usize {
        batch.messages.len()
    }

    fn merge(&self, open: &mut Open, batch: &Batch, done: &mut usize, until: usize) {
        let messages = &batch.messages[..until];
        for &(customer, _) in messages[*done..].iter().take(AHEAD) {
            open.table.expect(hash(customer));
        }
        while let Some(&(customer, payload)) = messages.get(*done) {
            if let Some(&(customer, _)) = messages.get(*done + AHEAD) {
                open.table.expect(hash(customer));
            }
            open.add(batch.stage, customer, payload);
            *done += 1;
        }
        open.peak_bytes = open.peak_bytes.max(open.table.bytes());
    }

    fn pages(&self, open: &mut Open, all: bool) -> Vec<Sheet<Vec<Row>>> {
        take_pages(&mut open.full, &mut open.rows, all)
    }

    fn gauge(&self, open: &Open) -> Gauge {
        Gauge {
            open: open.table.len() as u64,
            peak: open.table.peak() as u64,
            bytes: open.table.bytes() as u64,
            peak_bytes: open.peak_bytes as u64,
            joined: open.joined,
            duplicates: open.duplicates,
        }
    }

    fn save(&self, open: &Open) -> Vec<u8> {
        let mut saved = Writer(Vec::with_capacity(48 + open.table.len() * SAVED));
        [
            open.joined,
            open.duplicates,
            open.table.peak() as u64,
            open.peak_bytes as u64,
            open.table.len() as u64,
        ]
        .into_iter()
        .for_each(|n| saved.u64(n));
        for place in open.table.iter() {
            saved.u64(place.customer);
            place.payloads.iter().for_each(|payload| saved.u64(*payload));
            saved.0.extend_from_slice(&[place.seen as u8, place.first as u8]);
        }
        saved.0
    }

    fn load(&self, saved: &[u8]) -> Result<Open, Malformed> {
        let mut from = Reader(saved);
        let mut open = self.table();
        (open.joined, open.duplicates) = (from.u64()?, from.u64()?);
        let (peak, peak_bytes, len) = (from.u64()?, from.u64()?, from.u64()?);
        // A number that cannot be true is not believed.
        open.table = Table::with_room_for((len as usize).min(from.0.len() / SAVED));
        for _ in 0..len {
            let (customer, payloads) = (from.u64()?, [from.u64()?, from.u64()?]);
            let (seen, first) = (u32::from(from.u8()?), u32::from(from.u8()?));
            let is_open = (1..STAGES as u32).contains(&seen.count_ones()) && seen < 1 << STAGES;
            if !is_open || first as usize >= STAGES || seen & 1 << first == 0 {
                return Err(Malformed);
            }
            let Err(at) = open.table.find(hash(customer), |place| place.customer == customer) else {
                return Err(Malformed);
            };
            open.table.add(at, Place { customer, payloads, seen, first });
        }
        open.table.had_a_peak_of(peak as usize);
        open.peak_bytes = (peak_bytes as usize).max(open.table.bytes());
        from.end()?;
        Ok(open)
    }

    fn rows(&self, sheet: &Sheet<Vec<Row>>) -> Rows {
        let mut bytes = Writer(Vec::with_capacity(sheet.page.len() * ROW));
        for row in &sheet.page {
            bytes.u64(row.customer);
            row.payloads.iter().for_each(|payload| bytes.u64(*payload));
        }
        Rows { file: sheet.file, count: sheet.page.len() as u32, bytes: bytes.0 }
    }

    fn write(&self, output: &mut Output, sheet: &Sheet<Vec<Row>>, share: Share) -> Result<(), Error> {
        let rows = &sheet.page[..share.of(sheet.page.len())];
        output.files[sheet.file].rows.extend_from_slice(rows);
        Ok(())
    }

    fn keep(&self, output: &mut Output) {
        output.files.iter_mut().for_each(|file| file.kept = file.rows.len());
    }

    fn rewind(&self, output: &mut Output) -> Result<(), Error> {
        output.files.iter_mut().for_each(|file| file.rows.truncate(file.kept));
        Ok(())
    }
}

/// How an output differs from what the seed says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Messages that should be there, once, and are.
    pub(crate) right: u64,
    /// Messages that should be there and are not.
    pub(crate) lost: u64,
    /// Messages that are there once more than they should.
    pub(crate) doubled: u64,
    /// Messages that nobody sent.
    pub(crate) invented: u64,
    /// Rows that are in another output partition than their key's.
    pub(crate) misplaced: u64,
}

impl Verdict {
    /// Nothing differs.
    pub(crate) fn is_exact(&self) -> bool {
        let Verdict { right: _, lost, doubled, invented, misplaced } = *self;
        lost + doubled + invented + misplaced == 0
    }
}

/// Compares an output with what the seed says, and with nothing else: every customer, every stage, every payload, once.
pub(crate) fn check(output: &Output, seed: u64, customers: u64) -> Verdict {
    let mut verdict = Verdict::default();
    let mut seen = vec![0_u8; customers as usize];
    for (file, rows) in output.files.iter().map(|file| &file.rows).enumerate() {
        for row in rows {
            verdict.misplaced += u64::from(place(row.customer, output.files.len()) != file);
            for (stage, found) in row.payloads.into_iter().enumerate() {
                let seen = row.customer.checked_sub(1).and_then(|at| seen.get_mut(at as usize));
                match seen {
                    Some(seen) if payload(seed, stage as u8, row.customer) == found => {
                        let bit = 1 << stage;
                        verdict.doubled += u64::from(*seen & bit != 0);
                        *seen |= bit;
                    }
                    _ => verdict.invented += 1,
                }
            }
        }
    }
    verdict.right = seen.iter().map(|seen| u64::from(seen.count_ones())).sum();
    verdict.lost = customers * STAGES as u64 - verdict.right;
    verdict
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::{
        kills::Kills,
        plain, table,
        topology::{self, Staff},
        vitals::Vitals,
    };

    /// The output of the plain join.
    fn plainly(messages: Vec<Message>) -> Output {
        let job = InMemory::new(12, 64);
        let (mut table, mut output) = ([job.table()], job.output());
        let partitions = job.partitions(&Arc::new(messages));
        plain::join(&job, partitions, 64, &mut table, |sheet| job.write(&mut output, &sheet, Share::ALL))
            .expect("no files");
        output
    }

    #[test]
    fn the_plain_join_is_exact() {
        let verdict = check(&plainly(messages(7, 5_000)), 7, 5_000);
        assert_eq!(verdict, Verdict { right: 15_000, ..Verdict::default() });
    }

    #[test]
    fn the_check_sees_a_lost_message() {
        let mut messages = messages(7, 1_000);
        messages.pop();
        let verdict = check(&plainly(messages), 7, 1_000);
        assert_eq!((verdict.lost, verdict.is_exact()), (3, false), "its whole row is missing");
    }

    #[test]
    fn the_check_sees_a_doubled_row() {
        let mut output = plainly(messages(7, 1_000));
        let row = output.files[3].rows[0];
        output.files[3].rows.push(row);
        let verdict = check(&output, 7, 1_000);
        assert_eq!((verdict.doubled, verdict.is_exact()), (3, false));
    }

    #[test]
    fn the_check_sees_a_changed_payload_and_a_misplaced_row() {
        let mut output = plainly(messages(7, 1_000));
        output.files[3].rows[0].payloads[1] ^= 1;
        let row = output.files[4].rows.pop().expect("there are some");
        output.files[5].rows.push(row);
        let verdict = check(&output, 7, 1_000);
        assert_eq!((verdict.invented, verdict.lost, verdict.misplaced, verdict.is_exact()), (1, 1, 1, false));
    }

    #[test]
    fn streams_are_the_same_for_the_same_seed_only() {
        assert_eq!(messages(1, 100), messages(1, 100));
        assert_ne!(messages(1, 100), messages(2, 100));
    }

    #[test]
    fn a_snapshot_is_loaded_in_a_time_that_grows_with_its_keys_and_no_faster() {
        let job = InMemory::new(12, 64);
        let mut open = job.table();
        (1..=100_000).for_each(|customer| open.add(0, customer, 7));
        let saved = job.save(&open);
        let before = table::LOOKED_AT.get();
        let loaded = job.load(&saved).expect("it was written so");
        let looked_at = table::LOOKED_AT.get() - before;
        assert!(looked_at < 1_000_000, "{looked_at} places for 100,000 keys");
        assert_eq!(loaded.table.len(), 100_000);
    }

    /// Joins under kills, and says what came out: customers in rows, and the table.
    fn under_kills(messages: Vec<Message>, seed: u64, kills: u64) -> (Vec<Row>, Gauge) {
        let mut random = Random::new(seed);
        let job = InMemory::new(1 + random.below(12) as usize, 1 + random.below(64) as usize);
        let job = Arc::new(job.sharded(1 + random.below(4) as usize));
        let staff = Staff {
            threads: 1 + random.below(3) as usize,
            pool: random.below(2) == 0,
            readers: 1 + random.below(3) as usize,
            abreast: 1 + random.below(12) as usize,
            desk: 1 + random.below(9) as usize,
            patience: topology::SIGN_OF_LIFE,
        };
        let (blocks, _, _, pages) = job.turns(messages.len());
        let mut turns = vec![1 + blocks / 4; staff.readers];
        turns.extend([blocks; STAGES]);
        turns.extend(vec![blocks * 3; job.shards()]);
        turns.push(pages);
        let kills = Kills::seeded(seed, kills, &turns);
        let partitions = job.partitions(&Arc::new(messages));
        let vitals = Arc::new(Vitals::default());
        let outcome = topology::run(
            Arc::clone(&job),
            topology::Work { partitions, tables: job.tables(), output: job.output(), durable: None },
            &staff,
            kills,
            vitals,
        );
        let outcome = outcome.expect("nothing is fatal in memory");
        let rows = outcome.output.files.into_iter().flat_map(|file| file.rows).collect();
        (rows, outcome.tables.iter().fold(Gauge::default(), |sum, table| sum.and(job.gauge(table))))
    }

    #[test]
    fn under_random_kills_it_joins_what_a_naive_join_joins() {
        for seed in 0..60 {
            let mut random = Random::new(seed);
            let mut messages = messages(seed, 1 + random.below(3_000));
            messages.retain(|_| random.below(20) > 0);
            let mut naive: HashMap<u64, [Option<u64>; STAGES]> = HashMap::new();
            for message in &messages {
                naive.entry(message.customer).or_default()[usize::from(message.stage)] =
                    Some(message.payload);
            }
            let whole = |(customer, payloads): (&u64, &[Option<u64>; STAGES])| {
                let [Some(a), Some(b), Some(c)] = *payloads else { return None };
                Some(Row { customer: *customer, payloads: [a, b, c] })
            };
            let mut wanted: Vec<Row> = naive.iter().filter_map(whole).collect();
            let (mut rows, gauge) = under_kills(messages, seed, random.below(40));
            wanted.sort_by_key(|row| row.customer);
            rows.sort_by_key(|row| row.customer);
            assert!(rows == wanted, "seed {seed}");
            assert_eq!(gauge.open as usize, naive.len() - wanted.len(), "seed {seed}");
            assert_eq!(gauge.joined as usize, wanted.len(), "seed {seed}");
        }
    }

    #[test]
    fn duplicates_are_counted_once_whoever_dies() {
        for seed in 0..20 {
            let mut random = Random::new(seed);
            let twice = |message: Message| [message, message];
            // Stage C is missing, so that every second message of A and B meets an open key.
            let messages = messages(seed, 500).into_iter().filter(|message| message.stage < 2);
            let (rows, gauge) = under_kills(messages.flat_map(twice).collect(), seed, random.below(30));
            assert_eq!((rows.len(), gauge.open, gauge.duplicates), (0, 500, 1_000), "seed {seed}");
        }
    }
}
