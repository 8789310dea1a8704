//! The join of files: records as text, carried through byte for byte.
//!
//! A batch is one piece of memory with many records in it. The table copies what it must keep into a [`Heap`], which is
//! compacted when half of it is dead: memory follows the open keys, and no record is boxed.

use std::{collections::HashSet, hash::BuildHasher, mem};

use bytemuck::{Pod, Zeroable};
use foldhash::quality::RandomState;
use serde_json::json;

use crate::{
    error::Error,
    job::{Gauge, Job, Routed, Share, Sheet, take_pages},
    log::{
        Mark, Rows,
        code::{Malformed, Reader, Writer},
    },
    output::Files,
    read::{Block, Broken, CsvRecord, Manner, Partition, Text as Lines, too_long},
    record::{Record, quote, write_key},
    table::{Slot, Table},
};

/// Bytes of rows that travel to the writer together.
const PAGE: usize = 1 << 16;

/// Bytes that may be dead before it is worth a compaction.
const DEAD: usize = 1 << 20;

/// Most stages a join has.
pub(crate) const MOST_STAGES: usize = 16;

/// The join of files.
#[derive(Debug)]
pub(crate) struct InFiles {
    stages: Vec<String>,
    /// For each stage, `,"stage":` as it stands in a row.
    labels: Vec<Vec<u8>>,
    /// `{"key":` as it stands in a row.
    opening: Vec<u8>,
    partitions: usize,
    shards: usize,
    strict: bool,
    distinct: bool,
    manner: Manner,
    hasher: RandomState,
    other_hasher: RandomState,
}

impl InFiles {
    /// A join of these stages into so many partitions.
    pub(crate) fn new(
        stages: Vec<String>,
        partitions: usize,
        manner: Manner,
        strict: bool,
        distinct: bool,
    ) -> Result<InFiles, Error> {
        let (key, n) = (&manner.fields.key, stages.len());
        if !(2..=MOST_STAGES).contains(&n) {
            let names = stages.join(", ");
            return Err(Error::Request(format!(
                "a join has 2 to {MOST_STAGES} stages, and these are {n}: {names} (name them with --stages, or the field \
                 that holds them with --stage)"
            )));
        }
        if stages.contains(key) {
            return Err(Error::Request(format!("a stage cannot have the name of the key's field, `{key}`")));
        }
        let labels = stages.iter().map(|stage| label(b',', stage)).collect();
        let opening = label(b'{', key);
        let (hasher, other_hasher) = (RandomState::default(), RandomState::default());
        let shards = 1;
        Ok(InFiles {
            stages,
            labels,
            opening,
            partitions,
            shards,
            strict,
            distinct,
            manner,
            hasher,
            other_hasher,
        })
    }

    /// Output files besides the partitions.
    pub(crate) const EXTRAS: [&'static str; 3] = ["incomplete.ndjson", "duplicates.ndjson", "rejects.ndjson"];

    /// With so many sinks, each with its share of the output partitions; no more than there are.
    pub(crate) fn sharded(mut self, shards: usize) -> InFiles {
        self.shards = shards.clamp(1, self.partitions.min(256));
        self
    }

    /// For each file that a log keeps, the shard whose rows go there: the partitions, and each shard's own extras.
    pub(crate) fn owners(&self) -> Vec<usize> {
        let extras = (0..self.shards).flat_map(|shard| [shard; Self::EXTRAS.len()]);
        (0..self.partitions).map(|partition| partition % self.shards).chain(extras).collect()
    }

    /// Which file of the output a sheet belongs to: the shards' extras end up together.
    pub(crate) fn file(&self, number: usize) -> usize {
        match number.checked_sub(self.partitions) {
            None => number,
            Some(extra) => self.partitions + extra % Self::EXTRAS.len(),
        }
    }

    fn incomplete(&self) -> usize {
        self.partitions
    }

    fn duplicates(&self, shard: usize) -> usize {
        self.partitions + shard * Self::EXTRAS.len() + 1
    }

    fn rejects(&self) -> usize {
        self.partitions + 2
    }

    /// A table for each shard.
    pub(crate) fn tables(&self) -> Vec<Open> {
        (0..self.shards).map(|shard| self.table(shard)).collect()
    }

    /// Nothing is open, nothing is joined.
    fn table(&self, shard: usize) -> Open {
        Open {
            shard,
            table: Table::new(),
            heap: Heap::default(),
            pages: (0..self.partitions + Self::EXTRAS.len() * self.shards).map(|_| Vec::new()).collect(),
            full: Vec::new(),
            finished: self.distinct.then(HashSet::new),
            counts: Counts::default(),
        }
    }

    fn number(&self, stage: &str) -> Option<usize> {
        self.stages.iter().position(|name| name == stage)
    }

    /// Appends a row, or what there is of one.
    fn write_row(&self, row: &mut Vec<u8>, key: &[u8], rests: &[Option<&[u8]>; MOST_STAGES]) {
        row.extend_from_slice(&self.opening);
        write_key(row, key);
        for (label, rest) in self.labels.iter().zip(rests) {
            if let Some(rest) = rest {
                row.extend_from_slice(label);
                row.extend_from_slice(rest);
            }
        }
        row.extend_from_slice(b"}\n");
    }

    /// The key of a row that was written by [`write_row`](InFiles::write_row).
    pub(crate) fn key_of_row(&self, row: &[u8]) -> Option<Vec<u8>> {
        let rest = row.strip_prefix(&*self.opening)?;
        if rest.first() != Some(&b'"') {
            let end = memchr::memchr(b',', rest)?;
            return Some([b"i", &rest[..end]].concat());
        }
        let mut texts = serde_json::Deserializer::from_slice(rest).into_iter::<String>();
        Some([b"s", texts.next()?.ok()?.as_bytes()].concat())
    }

    /// Marks open keys that are in the row, so that [`leave`](InFiles::leave) knows them for late duplicates.
    pub(crate) fn mark_late(&self, open: &mut Open, row: &[u8]) {
        let Some(key) = self.key_of_row(row) else { return };
        let Open { table, heap, .. } = open;
        let hash = self.hasher.hash_one(&*key);
        if let Ok(at) = table.find(hash, |place| place.hash == hash && heap.part(place.first).key == key) {
            table.get_mut(at).late = 1;
        }
    }

    /// Hands the open keys to `write`, page by page: keys that lack a stage, and messages that came after their key was
    /// joined.
    pub(crate) fn leave(
        &self,
        open: &mut Open,
        mut write: impl FnMut(Sheet<Vec<u8>>) -> Result<(), Error>,
    ) -> Result<Left, Error> {
        let mut left = Left::default();
        let mut pages = [(self.incomplete(), Vec::new()), (self.duplicates(0), Vec::new())];
        for place in open.table.iter() {
            let key = open.heap.part(place.first).key;
            let mut rests = [None; MOST_STAGES];
            for part in open.heap.chain(place.last) {
                rests[usize::from(part.stage)] = Some(part.rest);
                if place.late != 0 {
                    left.late += 1;
                    self.write_row(&mut pages[1].1, key, &mem::take(&mut rests));
                }
            }
            if place.late == 0 {
                left.keys += 1;
                left.messages += u64::from(place.seen.count_ones());
                self.write_row(&mut pages[0].1, key, &rests);
            }
            for (file, page) in &mut pages {
                if page.len() >= PAGE {
                    write(Sheet { file: *file, page: mem::take(page) })?;
                }
            }
        }
        for (file, page) in pages {
            write(Sheet { file, page })?;
        }
        Ok(left)
    }

    /// Sorts the records of a block: by the shards of their keys, or all into one. A batch for each stage, and with it what
    /// is rejected.
    pub(crate) fn sort(
        &self,
        block: &Block,
        name: &str,
        shard: Option<usize>,
    ) -> Result<Routed<Self>, Error> {
        let stages = 0..self.stages.len() as u8;
        let shards = shard.map_or(0..self.shards, |shard| shard..shard + 1);
        let mut sorted: Vec<Batch> = shards
            .clone()
            .flat_map(|shard| {
                let shard = shard as u8;
                stages.clone().map(move |stage| Batch { stage, shard, items: Vec::new(), bytes: Vec::new() })
            })
            .collect();
        let (mut rejects, mut rejected) = (Vec::new(), 0);
        each_record(block, &self.manner, |record| {
            let record = match record {
                Ok(record) => record,
                Err(broken) => {
                    rejected += 1;
                    return self.reject(&mut rejects, name, &broken);
                }
            };
            let Some(stage) = self.number(&record.read.stage) else {
                rejected += 1;
                let why = format!("stage `{}` is none of the stages", record.read.stage);
                return self.reject(&mut rejects, name, &record.broken(why));
            };
            let shard = match shards.len() {
                1 => 0,
                shards => place(&record.read.key, self.partitions) % shards,
            };
            let Batch { items, bytes, .. } = &mut sorted[shard * self.stages.len() + stage];
            bytes.extend_from_slice(&record.read.key);
            bytes.extend_from_slice(&record.read.rest);
            items.push(Item {
                hash: self.hasher.hash_one(&*record.read.key),
                key: record.read.key.len() as u32,
                rest: record.read.rest.len() as u32,
                end: bytes.len() as u32,
            });
            Ok(())
        })?;
        let file = self.rejects() + shard.unwrap_or(0) * Self::EXTRAS.len();
        let sheets = (rejected > 0).then_some(Sheet { file, page: rejects });
        Ok(Routed { batches: sorted, sheets: sheets.into_iter().collect(), rejected })
    }

    fn reject(&self, rejects: &mut Vec<u8>, file: &str, broken: &Broken) -> Result<(), Error> {
        let (line, why) = (broken.line, &broken.why);
        if self.strict {
            return Err(Error::Broken { file: file.to_owned(), line, why: why.clone() });
        }
        let mut about = json!({ "file": file, "line": line, "why": why });
        match std::str::from_utf8(&broken.text) {
            Ok(text) => about["text"] = text.into(),
            Err(_) => {
                about["hex"] = broken.text.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
            }
        }
        // Writing into memory does not fail.
        let _ = serde_json::to_writer(&mut *rejects, &about);
        rejects.push(b'\n');
        Ok(())
    }
}

/// What was left in a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Left {
    /// Keys that lack a stage.
    pub(crate) keys: u64,
    /// Their messages.
    pub(crate) messages: u64,
    /// Messages that came after their key was joined.
    pub(crate) late: u64,
}

/// `{"name":` or `,"name":`.
fn label(before: u8, name: &str) -> Vec<u8> {
    let mut label = vec![before];
    quote(&mut label, name);
    label.push(b':');
    label
}

/// Which partition a key's row goes to: the same on every machine and in every run.
fn place(key: &[u8], partitions: usize) -> usize {
    let fnv = key.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    ((u128::from(crate::random::mix(fnv)) * partitions as u128) >> 64) as usize
}

/// Records of one stage, in one piece of memory.
#[derive(Debug)]
pub(crate) struct Batch {
    stage: u8,
    shard: u8,
    items: Vec<Item>,
    /// Of each record the key, then the rest.
    bytes: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Item {
    hash: u64,
    key: u32,
    rest: u32,
    end: u32,
}

/// Parts of records that are kept, each pointing at the one of the same key before it.
#[derive(Debug, Default)]
struct Heap {
    bytes: Vec<u8>,
    dead: usize,
}

/// A part, as it lies on the heap.
struct Part<'a> {
    before: u64,
    stage: u8,
    key: &'a [u8],
    rest: &'a [u8],
}

/// No part is before this one.
const FIRST: u64 = u64::MAX;

/// Bytes of a part besides its key and rest: what is before, stage, length of the key, length of the rest.
const HEAD: usize = 8 + 1 + 4 + 4;

impl Heap {
    fn push(&mut self, part: &Part<'_>) -> u64 {
        let at = self.bytes.len() as u64;
        self.bytes.extend_from_slice(&part.before.to_le_bytes());
        self.bytes.push(part.stage);
        self.bytes.extend_from_slice(&(part.key.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(&(part.rest.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(part.key);
        self.bytes.extend_from_slice(part.rest);
        at
    }

    fn part(&self, at: u64) -> Part<'_> {
        let bytes = &self.bytes[at as usize..];
        let number =
            |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize;
        let (key, rest) = (number(9), number(13));
        let before = bytes[..8].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
        let (key, rest) = bytes[HEAD..HEAD + key + rest].split_at(key);
        Part { before, stage: bytes[8], key, rest }
    }

    /// The parts of a key, the last first.
    fn chain(&self, last: u64) -> impl Iterator<Item = Part<'_>> {
        let mut next = last;
        std::iter::from_fn(move || {
            let part = (next != FIRST).then(|| self.part(next))?;
            next = part.before;
            Some(part)
        })
    }
}

/// A key that some stages have, but not all.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Place {
    hash: u64,
    /// The part that came first; it holds the key.
    first: u64,
    /// The part that came last.
    last: u64,
    /// A bit for each stage that is there. No bit, no key.
    seen: u32,
    /// The key has been joined before.
    late: u32,
}

impl Slot for Place {
    fn hash(&self) -> u64 {
        self.hash
    }

    fn is_free(&self) -> bool {
        self.seen == 0
    }
}

#[derive(Debug, Default)]
struct Counts {
    joined: u64,
    duplicates: u64,
    peak_bytes: usize,
}

/// The open keys, and the pages that are not handed over yet.
#[derive(Debug)]
pub(crate) struct Open {
    shard: usize,
    table: Table<Place>,
    heap: Heap,
    pages: Vec<Vec<u8>>,
    full: Vec<Sheet<Vec<u8>>>,
    /// Every key that was joined, by two hashes, if they are to be remembered.
    finished: Option<HashSet<(u64, u64)>>,
    counts: Counts,
}

impl Open {
    /// Takes in one record: in one step, or with a panic before it.
    fn add(&mut self, job: &InFiles, stage: u8, hash: u64, key: &[u8], rest: &[u8]) {
        let Open { table, heap, finished, .. } = self;
        let bit = 1 << stage;
        let found = table.find(hash, |place| place.hash == hash && heap.part(place.first).key == key);
        match found {
            Err(_)
                if finished
                    .as_ref()
                    .is_some_and(|keys| keys.contains(&(hash, job.other_hasher.hash_one(key)))) =>
            {
                self.duplicate(job, stage, key, rest);
            }
            Err(at) => {
                let first = heap.push(&Part { before: FIRST, stage, key, rest });
                table.add(at, Place { hash, first, last: first, seen: bit, late: 0 });
            }
            Ok(at) => {
                let place = table.get_mut(at);
                if place.seen & bit != 0 {
                    self.duplicate(job, stage, key, rest);
                } else if (place.seen | bit).count_ones() as usize == job.stages.len() {
                    self.join(job, at, stage, key, rest);
                } else {
                    place.last = heap.push(&Part { before: place.last, stage, key: &[], rest });
                    place.seen |= bit;
                }
            }
        }
    }

    fn duplicate(&mut self, job: &InFiles, stage: u8, key: &[u8], rest: &[u8]) {
        let mut rests = [None; MOST_STAGES];
        rests[usize::from(stage)] = Some(rest);
        self.counts.duplicates += 1;
        let file = job.duplicates(self.shard);
        job.write_row(&mut self.pages[file], key, &rests);
        self.turn_over(file);
    }

    fn join(&mut self, job: &InFiles, at: usize, stage: u8, key: &[u8], rest: &[u8]) {
        let mut rests = [None; MOST_STAGES];
        rests[usize::from(stage)] = Some(rest);
        let last = self.table.get_mut(at).last;
        for part in self.heap.chain(last) {
            rests[usize::from(part.stage)] = Some(part.rest);
        }
        let file = place(key, job.partitions);
        job.write_row(&mut self.pages[file], key, &rests);
        let dead: usize = self.heap.chain(last).map(|part| HEAD + part.key.len() + part.rest.len()).sum();
        self.heap.dead += dead;
        if let Some(finished) = &mut self.finished {
            finished.insert((self.table.get_mut(at).hash, job.other_hasher.hash_one(key)));
        }
        self.table.evict(at);
        self.counts.joined += 1;
        self.turn_over(file);
    }

    fn turn_over(&mut self, file: usize) {
        let page = &mut self.pages[file];
        if page.len() >= PAGE {
            let page = mem::replace(page, Vec::with_capacity(PAGE + PAGE / 8));
            self.full.push(Sheet { file, page });
        }
    }

    /// Moves what is alive together, once half is dead.
    fn compact(&mut self) {
        let live = self.heap.bytes.len() - self.heap.dead;
        if self.heap.dead < live + DEAD {
            return;
        }
        let before = mem::take(&mut self.heap);
        self.heap.bytes.reserve(live + live / 2);
        let mut places = [0; MOST_STAGES];
        for place in self.table.iter_mut() {
            let mut n = 0;
            let mut at = place.last;
            while at != FIRST {
                places[n] = at;
                n += 1;
                at = before.part(at).before;
            }
            place.last = FIRST;
            for at in places[..n].iter().rev() {
                let part = before.part(*at);
                place.last = self.heap.push(&Part { before: place.last, ..part });
                if part.before == FIRST {
                    place.first = place.last;
                }
            }
        }
    }

    fn bytes(&self) -> usize {
        let finished =
            self.finished.as_ref().map_or(0, |keys| keys.capacity() * (size_of::<(u64, u64)>() + 1));
        self.table.bytes() + self.heap.bytes.capacity() + finished
    }
}

impl Job for InFiles {
    type Batch = Batch;
    type Output = Files;
    type Page = Vec<u8>;
    type Partition = Partition;
    type Table = Open;

    fn stages(&self) -> &[String] {
        &self.stages
    }

    fn shards(&self) -> usize {
        self.shards
    }

    fn blocks(&self, partition: &mut Partition) -> u64 {
        partition.pace.next_turn()
    }

    fn fill(&self, partition: &mut Partition) -> Result<bool, Error> {
        partition.fill(&self.manner)
    }

    fn route(&self, partition: &Partition, all: bool) -> Result<Routed<Self>, Error> {
        let Some(block) = &partition.block else { unreachable!("only what is filled is routed") };
        let mut routed = self.sort(block, partition.name(), None)?;
        routed.batches.retain(|batch| all || !batch.items.is_empty());
        Ok(routed)
    }

    fn pass(&self, partition: &mut Partition) {
        partition.block = None;
    }

    fn mark(&self, partition: &Partition) -> Mark {
        partition.mark()
    }

    fn seek(&self, partition: &mut Partition, mark: Mark) {
        partition.seek(mark);
    }

    fn stage(&self, batch: &Batch) -> usize {
        batch.stage.into()
    }

    fn shard(&self, batch: &Batch) -> usize {
        batch.shard.into()
    }

    fn len(&self, batch: &Batch) -> usize {
        batch.items.len()
    }

    fn merge(&self, open: &mut Open, batch: &Batch, done: &mut usize, until: usize) {
        for item in &batch.items[*done..until] {
            let end = item.end as usize;
            let middle = end - item.rest as usize;
            let (key, rest) = (&batch.bytes[middle - item.key as usize..middle], &batch.bytes[middle..end]);
            open.add(self, batch.stage, item.hash, key, rest);
            *done += 1;
        }
        open.counts.peak_bytes = open.counts.peak_bytes.max(open.bytes());
        open.compact();
    }

    fn pages(&self, open: &mut Open, all: bool) -> Vec<Sheet<Vec<u8>>> {
        take_pages(&mut open.full, &mut open.pages, all)
    }

    fn gauge(&self, open: &Open) -> Gauge {
        Gauge {
            open: open.table.len() as u64,
            peak: open.table.peak() as u64,
            bytes: open.bytes() as u64,
            peak_bytes: open.counts.peak_bytes as u64,
            joined: open.counts.joined,
            duplicates: open.counts.duplicates,
        }
    }

    fn save(&self, open: &Open) -> Vec<u8> {
        let mut saved = Writer::default();
        let Counts { joined, duplicates, peak_bytes } = open.counts;
        [joined, duplicates, open.table.peak() as u64, peak_bytes as u64, open.table.len() as u64]
            .into_iter()
            .for_each(|n| saved.u64(n));
        for place in open.table.iter() {
            saved.bytes(open.heap.part(place.first).key);
            saved.u32(place.seen.count_ones());
            let mut parts: Vec<Part<'_>> = open.heap.chain(place.last).collect();
            parts.reverse();
            for part in parts {
                saved.0.push(part.stage);
                saved.bytes(part.rest);
            }
        }
        saved.0
    }

    fn load(&self, saved: &[u8]) -> Result<Open, Malformed> {
        let mut from = Reader(saved);
        // Its shard is not among what was written: whoever loads it knows.
        let mut open = self.table(0);
        let (joined, duplicates) = (from.u64()?, from.u64()?);
        let (peak, peak_bytes, len) = (from.u64()?, from.u64()?, from.u64()?);
        for _ in 0..len {
            let key = from.bytes()?;
            let hash = self.hasher.hash_one(key);
            let is_first =
                |open: &Open, place: &Place| place.hash == hash && open.heap.part(place.first).key == key;
            let Err(at) = open.table.find(hash, |place| is_first(&open, place)) else {
                return Err(Malformed);
            };
            let (mut place, parts) = (Place { hash, ..Place::zeroed() }, from.u32()?);
            place.last = FIRST;
            for n in 0..parts {
                let (stage, rest) = (from.u8()?, from.bytes()?);
                let bit = 1_u32.checked_shl(stage.into()).ok_or(Malformed)?;
                if usize::from(stage) >= self.stages.len() || place.seen & bit != 0 {
                    return Err(Malformed);
                }
                let key = if n == 0 { key } else { &[] };
                place.last = open.heap.push(&Part { before: place.last, stage, key, rest });
                if n == 0 {
                    place.first = place.last;
                }
                place.seen |= bit;
            }
            if !(1..self.stages.len() as u32).contains(&place.seen.count_ones()) {
                return Err(Malformed);
            }
            open.table.add(at, place);
        }
        open.table.had_a_peak_of(peak as usize);
        let peak_bytes = (peak_bytes as usize).max(open.bytes());
        open.counts = Counts { joined, duplicates, peak_bytes };
        from.end()?;
        Ok(open)
    }

    fn own(&self, open: &mut Open, shard: usize) {
        open.shard = shard;
    }

    fn rows(&self, sheet: &Sheet<Vec<u8>>) -> Rows {
        let count = memchr::memchr_iter(b'\n', &sheet.page).count() as u32;
        Rows { file: sheet.file, count, bytes: sheet.page.clone() }
    }

    fn write(&self, files: &mut Files, sheet: &Sheet<Vec<u8>>, share: Share) -> Result<(), Error> {
        files.write(self.file(sheet.file), &sheet.page[..share.of(sheet.page.len())])
    }

    fn keep(&self, files: &mut Files) {
        files.keep();
    }

    fn rewind(&self, files: &mut Files) -> Result<(), Error> {
        files.rewind()
    }
}

/// A record and the line it was read from.
pub(crate) struct Found<'a> {
    /// The record.
    pub(crate) read: &'a Record,
    /// Its number, counted from one.
    pub(crate) line: u64,
    text: &'a [u8],
}

impl Found<'_> {
    /// Itself, or its line with what is wrong with it.
    fn unless(self, outcome: Result<(), String>) -> Result<Self, Broken> {
        match outcome {
            Ok(()) => Ok(self),
            Err(why) => Err(self.broken(why)),
        }
    }

    /// The line, set aside.
    fn broken(&self, why: String) -> Broken {
        Broken { line: self.line, why, text: self.text.to_vec() }
    }
}

/// Calls `each` with every record of a block, or with what is wrong with its line. Lines with nothing but blanks are no
/// records.
pub(crate) fn each_record(
    block: &Block,
    manner: &Manner,
    mut each: impl FnMut(Result<Found<'_>, Broken>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut record = Record::default();
    match &block.text {
        Lines::Lines { first, bytes } => {
            let lines = bytes.strip_suffix(b"\n").unwrap_or(bytes).split(|byte| *byte == b'\n');
            for (number, line) in (*first..).zip(lines) {
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                if line.len() > manner.longest {
                    each(Err(too_long(number, manner.longest, line)))?;
                } else if !line.trim_ascii().is_empty() {
                    let outcome = record.read_json(line, &manner.fields);
                    each(Found { read: &record, line: number, text: line }.unless(outcome))?;
                }
            }
        }
        Lines::Csv { header, records, raw } => {
            for CsvRecord { line, raw: place, fields } in records {
                let text = &raw[place.clone()];
                if text.len() > manner.longest {
                    each(Err(too_long(*line, manner.longest, text)))?;
                } else {
                    let outcome = record.read_csv(fields, header, &manner.fields);
                    each(Found { read: &record, line: *line, text }.unless(outcome))?;
                }
            }
        }
    }
    block.broken.iter().try_for_each(|broken| each(Err(broken.clone())))
}
