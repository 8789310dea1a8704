//! The join of real input, from folder to folder.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use clap::Args;
use serde_json::{Value, json};

use crate::{
    Common, Done, durable,
    error::Error,
    job::{Gauge, Job},
    kills::Kills,
    log::{
        self,
        embedded::{About, Trial},
        segment::Frames,
    },
    output::{self, Files, Folder, MANIFEST},
    plain,
    progress::{self, Length, say},
    read::{Folder as Input, Manner, Partition, Source},
    record::{CsvKeys, Fields},
    report::{self, Ceiling, Line, Report, count},
    status::Seen,
    text::{InFiles, Left, MOST_STAGES, Open, each_record},
    topology,
    vitals::Vitals,
};

/// Batches that a desk holds: few, as they are large and a batch takes long.
const DESK: usize = 8;

/// Options that say what a record is.
#[derive(Clone, Debug, Args)]
pub(crate) struct Shape {
    /// The field that names a record's stage
    #[arg(long, value_name = "FIELD", default_value = "stage")]
    pub(crate) stage: String,
    /// The field that holds a record's key
    #[arg(long, value_name = "FIELD", default_value = "key")]
    pub(crate) key: String,
    /// What a key in a CSV file is
    #[arg(long, value_name = "TYPE", value_enum, default_value_t)]
    pub(crate) csv_keys: CsvKeys,
    /// A line of more bytes is broken
    #[arg(long, value_name = "BYTES", default_value_t = 16 << 20, value_parser = clap::value_parser!(u32).range(1..=1 << 30))]
    pub(crate) longest_line: u32,
}

impl Shape {
    /// Where stage and key are.
    pub(crate) fn fields(&self) -> Result<Fields, Error> {
        if self.stage == self.key {
            return Err(Error::Request(format!("`{}` cannot hold both the stage and the key", self.key)));
        }
        Ok(Fields { stage: self.stage.clone(), key: self.key.clone(), csv_keys: self.csv_keys })
    }
}

/// When Kafka's transactions are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
#[cfg_attr(not(feature = "kafka"), allow(dead_code))]
pub(crate) enum Transactions {
    /// Where the brokers have them.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never. All processes of a group have to go the same way.
    Never,
}

/// Options of a join on Kafka, which only programs have that are built with its feature.
#[derive(Clone, Debug, Args)]
#[cfg_attr(not(feature = "kafka"), allow(dead_code))]
pub(crate) struct Brokers {
    /// Brokers of a Kafka cluster: joins one topic into another, instead of folders
    #[arg(long, value_name = "HOST:PORT,..", conflicts_with_all = ["input", "output", "log", "compare", "verify", "distinct", "strict", "overwrite"])]
    pub(crate) brokers: Option<String>,
    /// The topic with the records, those of one key all in one partition
    #[arg(long, value_name = "TOPIC", requires = "brokers")]
    pub(crate) source: Option<String>,
    /// The topic for the joined rows; made if it is not there
    #[arg(long, value_name = "TOPIC", requires = "brokers")]
    pub(crate) sink: Option<String>,
    /// The consumer group: processes of one group share the partitions [default: correlate-SOURCE-SINK]
    #[arg(long, value_name = "NAME", requires = "brokers")]
    pub(crate) group: Option<String>,
    /// A setting of librdkafka, for all its clients: compression.type=zstd, security.protocol=ssl, sasl.mechanism=..
    #[arg(long, value_name = "NAME=VALUE", requires = "brokers")]
    pub(crate) set: Vec<String>,
    /// Whether an epoch is one transaction; without, its commit comes first, and after a death the sink is read back.
    /// `auto` asks the brokers
    #[arg(long, value_name = "WHEN", value_enum, default_value_t, requires = "brokers")]
    pub(crate) transactions: Transactions,
    /// Copies of each partition of the topics that are made
    #[arg(long, value_name = "N", default_value_t = 1, requires = "brokers")]
    pub(crate) replication: i32,
    /// End when what is in the source now is joined, instead of waiting for more
    #[arg(long, requires = "brokers")]
    pub(crate) until_end: bool,
}

/// Options of `run`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Run {
    /// Folder with the input: each *.ndjson, *.ndjson.gz and *.csv file in it is a partition
    #[arg(long, short, value_name = "DIR", required_unless_present = "brokers")]
    input: Option<PathBuf>,
    /// Folder for the output; made if it is not there
    #[arg(long, short, value_name = "DIR", required_unless_present = "brokers")]
    output: Option<PathBuf>,
    #[command(flatten)]
    brokers: Brokers,
    /// The stages, 2 to 16 names; without this they are looked for, which reads the input twice
    #[arg(long, value_name = "NAME,NAME,..", value_delimiter = ',')]
    stages: Vec<String>,
    #[command(flatten)]
    shape: Shape,
    /// Partitions of the output
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u16).range(1..=1024))]
    partitions: u16,
    /// Files that are read abreast, block by block: streams that were written at the same time meet early, and few keys
    /// are open. With 1, files are read one after another, in the order of their names
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    abreast: u16,
    /// Replace an output that is there already
    #[arg(long)]
    overwrite: bool,
    /// Stop at the first broken line instead of setting it aside
    #[arg(long)]
    strict: bool,
    /// Remember every joined key (32 bytes each), so that duplicates are known however late they come
    #[arg(long)]
    distinct: bool,
    /// Sinks, each with its share of the keys
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    shards: u16,
    /// Folder for a durable log: what is killed goes on where it was, and every message is joined exactly once. The input
    /// must stay as it is
    #[arg(long, value_name = "DIR", conflicts_with_all = ["compare", "distinct"])]
    log: Option<PathBuf>,
    #[command(flatten)]
    pace: durable::Pace,
    /// Workers that are killed on the way, by panic, by error and by drop
    #[arg(long, value_name = "N", default_value_t = 0)]
    kills: u64,
    /// What the kills are made from
    #[arg(long, value_name = "N", default_value_t = 42)]
    seed: u64,
    /// Also measure a plain single-thread join of the same files, without runtime
    #[arg(long)]
    compare: bool,
    /// Verify the output when it is there, as `correlate verify` does
    #[arg(long)]
    verify: bool,
    #[command(flatten)]
    common: Common,
}

impl Run {
    /// Joins the input into the output, and says whether all is well.
    pub(crate) fn run(&self) -> Result<Done, Error> {
        if self.brokers.brokers.is_some() {
            #[cfg(feature = "kafka")]
            return crate::kafka::run(
                &self.brokers,
                &self.shape,
                &self.stages,
                &self.pace,
                &self.common,
                (self.kills, self.seed),
            );
            #[cfg(not(feature = "kafka"))]
            return Err(Error::Request(
                "this program was built without Kafka: cargo build --release -p correlate --features kafka"
                    .to_owned(),
            ));
        }
        let fields = self.shape.fields()?;
        let input = Input::open(self.input())?;
        if output::is_same(self.input(), self.output())? {
            return Err(Error::Request(
                "input and output are the same folder; the output would be read as input".to_owned(),
            ));
        }
        let folder = Folder::open(self.output(), self.overwrite)?;
        let bytes: u64 = input.sources.iter().map(|source| source.bytes).sum();
        let longest = self.shape.longest_line as usize;
        let vitals = Arc::new(Vitals::default());
        let manner = Manner { fields, longest, bytes: Arc::clone(&vitals.bytes), cut_short: Arc::default() };
        let stages = if self.stages.is_empty() {
            self.look_for_stages(&input.sources, &manner)?
        } else {
            self.stages.clone()
        };
        let repeated = stages.iter().enumerate().find(|(n, stage)| stages[..*n].contains(stage));
        if let Some((_, stage)) = repeated {
            return Err(Error::Request(format!("--stages names `{stage}` twice")));
        }
        let partitions: usize = self.partitions.into();
        let job = InFiles::new(stages, partitions, manner.clone(), self.strict, self.distinct)?;
        let job = Arc::new(job.sharded(self.shards.into()));
        let ceiling =
            self.compare.then(|| self.plain(&input.sources, job.stages(), &manner, &folder)).transpose()?;

        let names = output::names(partitions);
        let files = folder.files(&names)?;
        let staff = self.common.staff(self.abreast.into(), DESK);
        let kills = Kills::seeded(
            self.seed,
            self.kills,
            &turns(bytes, staff.readers, job.stages().len(), job.shards()),
        );
        let began = Instant::now();
        let mut sources = Partition::in_step(&input.sources);
        let mut resumed = None;
        let log = self.log.as_deref().map(|dir| self.open_log(dir, &job, &input.sources)).transpose()?;
        let (mut durable, mut tables, mut stop) = (None, job.tables(), None);
        if let Some((folder, wish)) = log {
            let (log, past) = folder.log(job.owners(), job.stages().len(), Trial::default())?;
            let starts = log.starts();
            let again = durable::resume(&*job, &mut sources, tables, past)?;
            resumed = Some((starts, again.totals(), again.again));
            tables = again.tables;
            durable = Some(self.pace.durable(Box::new(log), again.last, Arc::clone(&wish)));
            stop = Some(wish);
        }
        let outcome = progress::shown(self.common.is_quiet(), Length::Bytes(bytes), &vitals, || {
            let vitals = Arc::clone(&vitals);
            topology::run(
                Arc::clone(&job),
                topology::Work { partitions: sources, tables, output: files, durable },
                &staff,
                kills,
                vitals,
            )
        })?;
        let (mut tables, mut files) = (outcome.tables, outcome.output);
        if stop.is_some_and(|stop| stop.load(Relaxed)) {
            let merged = count(vitals.merged.load(Relaxed));
            report::print(format_args!("stopped after {merged} messages; the same command goes on"))?;
            return Ok(Done::Stopped);
        }
        if let Some(dir) = &self.log {
            unfold(&job, dir, &mut files)?;
        }
        let mut gauge = tables.iter().fold(Gauge::default(), |sum, table| sum.and(job.gauge(table)));
        let left = self.close(&job, &mut tables, &mut files, &names)?;
        gauge.duplicates += left.late;
        let took = began.elapsed();
        // The readers' count against the table's: whatever is wrong here, nothing is declared complete. `verify` asks more.
        let messages =
            if resumed.is_some() { vitals.merged.load(Relaxed) } else { vitals.read.load(Relaxed) };
        let found = gauge.joined * job.stages().len() as u64 + gauge.duplicates + left.messages;
        if messages != found {
            let (messages, found) = (count(messages), count(found));
            return Err(Error::Request(format!(
                "{messages} messages were read and {found} are in the output: a defect"
            )));
        }

        let stages: Vec<(String, u64)> = job
            .stages()
            .iter()
            .zip(&vitals.staged)
            .map(|(name, n)| (name.clone(), n.load(Relaxed)))
            .collect();
        let rejected = match &self.log {
            None => vitals.rejected.load(Relaxed),
            Some(dir) => Seen::of(dir)?.totals().rejected,
        };
        let cut_short = manner.cut_short.load(Relaxed);
        let mut more = vec![
            Line::number("files", "files read", input.sources.len() as u64),
            Line::number("incomplete_keys", "incomplete keys", left.keys),
            Line::number("duplicates", "duplicates", gauge.duplicates),
            Line::number("rejected_lines", "rejected lines", rejected),
            Line::in_flight(&vitals),
        ];
        if let Some((starts, before, again)) = resumed {
            let words = format!("at {} messages; {} merged again", count(before.messages), count(again));
            let value = json!({ "at": before.messages, "merged_again": again });
            more.push(Line::number("starts", "starts", starts.into()));
            more.push(Line { field: "resumed", name: "resumed", words, value });
        }
        if cut_short > 0 {
            more.push(Line::number("files_cut_short", "files cut short", cut_short));
        }
        if !input.others.is_empty() {
            let words = input.others.join(", ");
            more.push(Line {
                field: "not_read",
                name: "not read",
                words,
                value: input.others.clone().into(),
            });
        }
        let mut report = Report {
            messages,
            gauge,
            took,
            workers: staff.roles(stages.len(), job.shards()).len(),
            stages,
            deaths: vitals.deaths_from(0),
            restarted: vitals.restarted.load(Relaxed),
            ceiling: ceiling.map(|plain| Ceiling { supervised: vec![took], plain: vec![plain] }),
            more,
            verdict: String::new(),
            exact: None,
        };
        let manifest = json!({
            "format": 1,
            "stage": self.shape.stage,
            "key": self.shape.key,
            "csv_keys": format!("{:?}", self.shape.csv_keys).to_lowercase(),
            "longest_line": self.shape.longest_line,
            "stages": job.stages(),
            "partitions": self.partitions,
            "report": report.json(),
        });
        folder.finish(files, &manifest)?;
        report.verdict = format!("complete: {}", self.output().join(MANIFEST).display());
        if cut_short > 0 {
            say(format!("correlate: {cut_short} files could not be read to their ends; see rejects.ndjson"));
        }
        if self.verify {
            let verdict = crate::verify::verify(self.input(), self.output(), &self.shape, job.stages())?;
            report.exact = Some(verdict.is_exact());
            report.verdict = verdict.to_string();
        }
        report.print(self.common.report)?;
        Ok(Done::from(report.exact.unwrap_or(true)))
    }

    fn input(&self) -> &Path {
        self.input.as_deref().unwrap_or(Path::new(""))
    }

    fn output(&self) -> &Path {
        self.output.as_deref().unwrap_or(Path::new(""))
    }

    /// Takes hold of the log of this very join, or begins it.
    fn open_log(
        &self,
        dir: &Path,
        job: &InFiles,
        sources: &[Source],
    ) -> Result<(log::embedded::Folder, Arc<AtomicBool>), Error> {
        let wish = durable::on_signal()?;
        let files: Vec<Value> = sources.iter().map(|source| json!([source.name, source.bytes])).collect();
        let about = json!({
            "kind": "files",
            "files": files,
            "stages": job.stages(),
            "stage": self.shape.stage,
            "key": self.shape.key,
            "csv_keys": format!("{:?}", self.shape.csv_keys).to_lowercase(),
            "longest_line": self.shape.longest_line,
            "partitions": self.partitions,
            "shards": job.shards(),
        });
        Ok((self.pace.open(dir, &about)?, wish))
    }

    /// Reads all input for the names of its stages.
    fn look_for_stages(&self, sources: &[Source], manner: &Manner) -> Result<Vec<String>, Error> {
        if !self.common.is_quiet() {
            say("looking for the stages (naming them with --stages saves this)");
        }
        let manner = Manner { bytes: Arc::default(), cut_short: Arc::default(), ..manner.clone() };
        let mut stages = BTreeMap::new();
        for source in sources {
            let mut partition = Partition::new(source.clone());
            while partition.fill(&manner)? {
                let Some(block) = partition.block.take() else { break };
                each_record(&block, &manner, |record| {
                    if let Ok(record) = record {
                        match stages.get_mut(&record.read.stage) {
                            Some(n) => *n += 1,
                            None => drop(stages.insert(record.read.stage.clone(), 1_u64)),
                        }
                    }
                    Ok(())
                })?;
                if stages.len() > MOST_STAGES {
                    let names: Vec<&str> = stages.keys().map(String::as_str).collect();
                    let (names, field) = (names.join(", "), &self.shape.stage);
                    return Err(Error::Request(format!(
                        "field `{field}` names more than {MOST_STAGES} stages ({names}, ..): is it the right field? \
                         --stage names another, and --stages the stages that count"
                    )));
                }
            }
        }
        if !self.common.is_quiet() {
            let stages: Vec<String> =
                stages.iter().map(|(name, n)| format!("{name} {}", count(*n))).collect();
            say(format!("stages: {}", stages.join(", ")));
        }
        Ok(stages.into_keys().collect())
    }

    /// Writes what is left in the table.
    fn close(
        &self,
        job: &InFiles,
        tables: &mut [Open],
        files: &mut Files,
        names: &[String],
    ) -> Result<Left, Error> {
        let mut sum = Left::default();
        for (shard, table) in tables.iter_mut().enumerate() {
            if job.gauge(table).open > 0 {
                let parts = names.iter().enumerate().take(self.partitions.into());
                for (part, name) in parts.filter(|(part, _)| job.owners()[*part] == shard) {
                    mark_late(job, table, files.read(part)?, &self.output().join(name))?;
                }
            }
            let left = job.leave(table, |sheet| files.write(sheet.file, &sheet.page))?;
            sum.keys += left.keys;
            sum.messages += left.messages;
            sum.late += left.late;
        }
        Ok(sum)
    }

    /// How long the ceiling takes, into files that are removed again.
    fn plain(
        &self,
        sources: &[Source],
        stages: &[String],
        manner: &Manner,
        folder: &Folder,
    ) -> Result<Duration, Error> {
        let manner = Manner { bytes: Arc::default(), cut_short: Arc::default(), ..manner.clone() };
        let job = InFiles::new(stages.to_vec(), self.partitions.into(), manner, self.strict, self.distinct)?;
        let names: Vec<String> =
            output::names(self.partitions.into()).iter().map(|name| format!("plain-{name}")).collect();
        let (mut tables, mut files) = (job.tables(), folder.files(&names)?);
        let (sources, abreast) = (Partition::in_step(sources), self.abreast.into());
        let began = Instant::now();
        plain::join(&job, sources, abreast, &mut tables, |sheet| files.write(sheet.file, &sheet.page))?;
        self.close(&job, &mut tables, &mut files, &names)?;
        let took = began.elapsed();
        files.remove()?;
        Ok(took)
    }
}

/// Copies what was committed into the files of the output.
fn unfold(job: &InFiles, dir: &Path, files: &mut Files) -> Result<(), Error> {
    let Some(about) = About::read(dir)? else { return Ok(()) };
    let mut rows = Vec::new();
    for (file, end) in about.entries()?.ends(job.owners().len()).into_iter().enumerate() {
        let mut frames = Frames::new(about.sink(file), end);
        while frames.next(&mut rows)?.is_some() {
            files.write(job.file(file), &rows)?;
        }
    }
    files.keep();
    Ok(())
}

/// Finds open keys that are in a part already: their messages came after the key was joined.
fn mark_late(job: &InFiles, table: &mut Open, part: std::fs::File, path: &Path) -> Result<(), Error> {
    let (mut part, mut row) = (BufReader::with_capacity(1 << 16, part), Vec::new());
    while part.read_until(b'\n', &mut row).map_err(Error::file("read", path))? > 0 {
        job.mark_late(table, &row);
        row.clear();
    }
    Ok(())
}

/// How many turns the workers will have for so many bytes, roughly and rather fewer.
fn turns(bytes: u64, readers: usize, stages: usize, shards: usize) -> Vec<u64> {
    let blocks = bytes / (1 << 17) + 1;
    let mut turns = vec![(blocks / readers as u64 / 2).max(1); readers];
    turns.extend(vec![blocks; stages]);
    turns.extend(vec![blocks * stages as u64; shards]);
    turns.push(blocks);
    turns
}
