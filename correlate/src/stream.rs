//! The main job with a log: the same three streams, in a folder, exactly once whatever is killed.

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Instant,
};

use serde_json::{Value, json};

use crate::{
    Done,
    audit::{Audit, audit},
    chart,
    demo::{DESK, Demo, Without},
    durable::{self, on_signal},
    error::Error,
    job::{Gauge, Job, Routed, as_its_join},
    log::{
        Mark,
        code::Writer,
        embedded::{About, Folder, Trial},
        segment::{Frames, Track},
    },
    memory::{self, Batch, InMemory, Message, Open, Row, STAGES},
    progress::{self, Length, say},
    report::{Line, Report, count},
    status::Seen,
    topology,
    vitals::Vitals,
};

/// Bytes of a message in a log: the customer, the payload, the stage.
const MESSAGE: usize = 17;

/// The join of streams that are in a log.
#[derive(Debug)]
pub(crate) struct InLog {
    /// The same join in memory: only where messages come from and rows go to is another.
    pub(crate) join: InMemory,
}

/// A partition of the source.
#[derive(Debug)]
pub(crate) struct Partition {
    frames: Frames,
    block: Vec<u8>,
    is_filled: bool,
    end: Mark,
}

impl InLog {
    /// All partitions of a filled source.
    pub(crate) fn partitions(&self, about: &About) -> Vec<Partition> {
        let ends = about.filled.iter().flatten().enumerate();
        ends.map(|(n, end)| Partition {
            frames: Frames::new(about.source(n), *end),
            block: Vec::new(),
            is_filled: false,
            end: Mark::default(),
        })
        .collect()
    }

    /// A block of messages as it lies in a frame.
    pub(crate) fn frame(messages: &[Message]) -> Vec<u8> {
        let mut bytes = Writer(Vec::with_capacity(messages.len() * MESSAGE));
        for Message { customer, payload, stage } in messages {
            bytes.u64(*customer);
            bytes.u64(*payload);
            bytes.0.push(*stage);
        }
        bytes.0
    }
}

fn message(bytes: &[u8]) -> Message {
    let number = |at: usize| {
        let mut number = [0; 8];
        number.copy_from_slice(&bytes[at..at + 8]);
        u64::from_le_bytes(number)
    };
    Message { customer: number(0), payload: number(8), stage: bytes[16] }
}

impl Job for InLog {
    type Batch = Batch;
    type Page = Vec<Row>;
    type Partition = Partition;
    type Table = Open;

    fn stages(&self) -> &[String] {
        self.join.stages()
    }

    fn shards(&self) -> usize {
        self.join.shards()
    }

    fn fill(&self, partition: &mut Partition) -> Result<bool, Error> {
        if partition.is_filled {
            return Ok(true);
        }
        let Some((first, messages)) = partition.frames.next(&mut partition.block)? else { return Ok(false) };
        let bytes = &partition.block;
        let are_messages = bytes.len() == messages as usize * MESSAGE
            && bytes
                .iter()
                .skip(MESSAGE - 1)
                .step_by(MESSAGE)
                .all(|stage| usize::from(*stage) < self.stages().len());
        if !are_messages {
            return Err(Error::Request(format!(
                "the frame at message {first} holds something else than messages"
            )));
        }
        (partition.is_filled, partition.end) = (true, partition.frames.mark());
        Ok(true)
    }

    fn route(&self, partition: &Partition, all: bool) -> Result<Routed<Self>, Error> {
        let batches = self.join.sort(partition.block.chunks_exact(MESSAGE).map(message), all);
        Ok(Routed { batches, sheets: Vec::new(), rejected: 0 })
    }

    fn pass(&self, partition: &mut Partition) {
        partition.is_filled = false;
    }

    fn mark(&self, partition: &Partition) -> Mark {
        partition.end
    }

    fn seek(&self, partition: &mut Partition, mark: Mark) {
        partition.frames.seek(mark);
        (partition.is_filled, partition.end) = (false, mark);
    }

    as_its_join!();
}

/// What a log of the main job is of.
fn about(messages: u64, seed: u64, partitions: u16, shards: usize) -> Value {
    json!({ "kind": "streams", "messages": messages, "seed": seed, "partitions": partitions, "shards": shards })
}

/// Fills the source, unless it is filled.
fn fill(folder: &mut Folder, join: &InMemory, demo: &Demo) -> Result<(), Error> {
    if folder.about().filled.is_some() {
        return Ok(());
    }
    let messages = memory::messages(demo.seed, demo.messages);
    let partitions = usize::from(demo.partitions);
    let bounds = |n: usize| n * messages.len() / partitions;
    let tracks = (0..partitions).map(|n| {
        let mut track = folder.fill(n)?;
        for block in messages[bounds(n)..bounds(n + 1)].chunks(join.block_len()) {
            track.append(block.len() as u32, &InLog::frame(block))?;
        }
        Ok(track)
    });
    let tracks = tracks.collect::<Result<Vec<Track>, Error>>()?;
    folder.filled(tracks)
}

/// Goes on with the join in a log, or begins it, and says how it ended.
pub(crate) fn run(demo: &Demo, dir: &Path) -> Result<Done, Error> {
    let stop = on_signal()?;
    let join = InMemory::new(demo.partitions.into(), demo.batch as usize).sharded(demo.shards.into());
    let (owners, shards) = (join.owners(), join.shards());
    let mut folder = demo.pace.open(dir, &about(demo.messages, demo.seed, demo.partitions, shards))?;
    let began = Instant::now();
    fill(&mut folder, &join, demo)?;
    if stop.load(Relaxed) {
        return Ok(Done::Stopped);
    }
    let (took, began) = (began.elapsed(), Instant::now());
    let job = Arc::new(InLog { join });
    let mut partitions = job.partitions(folder.about());
    let trial =
        Trial { keeps_undeclared: demo.without == Some(Without::Truncation), dies_in: demo.die_in_epoch };
    let (log, past) = folder.log(owners, STAGES, trial)?;
    let starts = log.starts();
    let resumed = durable::resume(&*job, &mut partitions, job.join.tables(), past)?;
    let (before, again, resuming) = (resumed.totals(), resumed.again, began.elapsed());
    let whole = demo.messages * STAGES as u64;
    if !demo.common.is_quiet() {
        let at = before.messages;
        say(format!(
            "{}: {} messages in the source (filled in {:.2} s)",
            dir.display(),
            count(whole),
            took.as_secs_f64()
        ));
        if starts > 1 {
            let (at, again, took) = (count(at), count(again), resuming.as_secs_f64());
            say(format!(
                "  start {starts}: goes on at {at} messages; {again} were merged again in {took:.2} s"
            ));
        }
    }
    let staff = demo.common.staff(usize::MAX, DESK);
    let kills = demo.plan(&job.join, whole - before.messages, &staff);
    let vitals = Arc::new(Vitals::default());
    let durable = demo.pace.durable(Box::new(log), resumed.last, Arc::clone(&stop));
    let outcome = progress::shown(demo.common.is_quiet(), Length::Messages(whole), &vitals, || {
        let vitals = Arc::clone(&vitals);
        topology::run(
            Arc::clone(&job),
            topology::Work { partitions, tables: resumed.tables, output: (), durable: Some(durable) },
            &staff,
            kills,
            vitals,
        )
    })?;
    let gauge = outcome.tables.iter().fold(Gauge::default(), |sum, table| sum.and(job.gauge(table)));
    drop(outcome.tables);
    let merged = vitals.merged.load(Relaxed);
    let audit = (merged == whole).then(|| audit(dir)).transpose()?;
    let mut more = vec![
        Line::in_flight(&vitals),
        Line::number("starts", "starts", starts.into()),
        Line {
            field: "resumed",
            name: "resumed",
            words: format!(
                "at {} messages; {} merged again in {:.2} s",
                count(before.messages),
                count(again),
                resuming.as_secs_f64()
            ),
            value: json!({ "at": before.messages, "merged_again": again, "seconds": resuming.as_secs_f64() }),
        },
    ];
    if let Some(audit) = &audit {
        more.push(Line::number("messages_lost", "messages lost", audit.lost));
        more.push(Line::number("messages_doubled", "messages doubled", audit.doubled));
    }
    if let Some(path) = &demo.chart {
        chart::draw(
            path,
            "Messages committed; each red line is a start after the first",
            &Seen::of(dir)?.history(),
        )?;
        let words = path.display().to_string();
        more.push(Line { field: "chart", name: "chart", value: words.clone().into(), words });
    }
    let stopped =
        || format!("stopped after {} of {} messages; the same command goes on", count(merged), count(whole));
    let staged = job.stages().iter().zip(&vitals.staged);
    let report = Report {
        stages: staged.map(|(name, n)| (name.clone(), n.load(Relaxed))).collect(),
        messages: merged - before.messages,
        gauge,
        took: outcome.took,
        workers: staff.roles(STAGES, shards).len(),
        deaths: vitals.deaths_from(0),
        restarted: vitals.restarted.load(Relaxed),
        ceiling: None,
        more,
        verdict: audit.as_ref().map_or_else(stopped, ToString::to_string),
        exact: audit.as_ref().map(Audit::is_exact),
    };
    report.print(demo.common.report)?;
    Ok(audit.map_or(Done::Stopped, |audit| Done::from(audit.is_exact())))
}
