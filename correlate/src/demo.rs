//! The main job's course: make, join, check against the seed, report.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};

use crate::{
    Done, durable,
    error::Error,
    job::{Gauge, Job, Share},
    kills::Kills,
    memory::{self, InMemory, STAGES, Verdict},
    plain,
    progress::{self, Length, say},
    report::{Ceiling, Form, Line, Report, count},
    stream,
    topology::{self, SIGN_OF_LIFE, Staff},
    vitals::Vitals,
};

/// Batches that a desk holds. Half of it is what a sleeping thread is woken for.
pub(crate) const DESK: usize = 64;

/// Options of the main job.
#[derive(Clone, Debug, Args)]
pub(crate) struct Demo {
    /// Messages in each of the three streams
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=1 << 32))]
    pub(crate) messages: u64,
    /// Workers that are killed on the way, by panic, by error and by drop
    #[arg(long, value_name = "N", default_value_t = 12)]
    kills: u64,
    /// What the streams, their order and the kills are made from
    #[arg(long, value_name = "N", default_value_t = 42)]
    pub(crate) seed: u64,
    /// Partitions of the input, and of the output
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) partitions: u16,
    /// Messages that travel together, about
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub(crate) batch: u32,
    /// Sinks, each with its share of the keys
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) shards: u16,
    /// Folder for a durable log: what is killed goes on where it was, and every message is joined exactly once
    #[arg(long, value_name = "DIR", conflicts_with = "compare")]
    pub(crate) log: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) pace: durable::Pace,
    /// Draw throughput over time as an SVG, with the restarts marked; needs --log
    #[arg(long, value_name = "FILE", requires = "log")]
    pub(crate) chart: Option<PathBuf>,
    /// Leave out one of the guarantees, to see that its loss is noticed
    #[arg(long, value_name = "GUARANTEE", value_enum, requires = "log", hide = true)]
    pub(crate) without: Option<Without>,
    /// End this process at once in its so many-th epoch, when the rows are on disk and the commit is not
    #[arg(long, value_name = "N", requires = "log", hide = true)]
    pub(crate) die_in_epoch: Option<u64>,
    /// Also measure a plain single-thread join of the same messages, without runtime, in turn with this one
    #[arg(long, value_name = "ROUNDS", num_args = 0..=1, default_missing_value = "3", require_equals = true)]
    compare: Option<u32>,
    #[command(flatten)]
    pub(crate) common: crate::Common,
}

/// What can be left out of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Without {
    /// Rows that no commit declares stay
    Truncation,
}

impl Demo {
    /// Makes three streams, joins them, and says whether the result is exactly right.
    pub(crate) fn run(&self) -> Result<Done, Error> {
        if let Some(dir) = &self.log {
            return stream::run(self, dir);
        }
        let began = Instant::now();
        let messages = Arc::new(memory::messages(self.seed, self.messages));
        if !self.common.is_quiet() {
            let (streams, partitions) = (count(self.messages), self.partitions);
            let took = began.elapsed().as_secs_f64();
            say(format!(
                "3 streams of {streams} messages made and shuffled over {partitions} partitions in {took:.2} s"
            ));
        }
        let job =
            Arc::new(InMemory::new(self.partitions.into(), self.batch as usize).sharded(self.shards.into()));
        let staff = self.common.staff(usize::MAX, DESK);
        let mut ceiling = Ceiling { supervised: Vec::new(), plain: Vec::new() };
        let mut rounds = self.compare.map_or(1, |rounds| rounds.max(1));
        let mut report = loop {
            if self.compare.is_some() {
                ceiling.plain.push(self.plain(&job, &messages, &staff)?);
            }
            let report = self.supervised(&job, &messages, &staff)?;
            ceiling.supervised.push(report.took);
            rounds -= 1;
            if rounds == 0 || report.exact != Some(true) {
                break report;
            }
        };
        report.ceiling = self.compare.map(|_| ceiling);
        report.print(self.common.report)?;
        Ok(Done::from(report.exact == Some(true)))
    }

    /// The kills that were asked for, spread over so many messages.
    pub(crate) fn plan(&self, job: &InMemory, messages: u64, staff: &Staff) -> Kills {
        let (reader, stage, sink, writer) = job.turns(messages as usize);
        let mut turns = vec![reader / staff.readers as u64 / 4; staff.readers];
        turns.extend([stage; STAGES]);
        turns.extend(vec![sink; job.shards()]);
        // A log's writer has few turns, each for a whole epoch.
        turns.push(if self.log.is_some() { 2 } else { writer });
        Kills::seeded(self.seed, self.kills, &turns)
    }

    fn supervised(
        &self,
        job: &Arc<InMemory>,
        messages: &Arc<Vec<memory::Message>>,
        staff: &Staff,
    ) -> Result<Report, Error> {
        let vitals = Arc::new(Vitals::default());
        let kills = self.plan(job, messages.len() as u64, staff);
        let length = Length::Messages(messages.len() as u64);
        let outcome = progress::shown(self.common.is_quiet(), length, &vitals, || {
            let (partitions, tables, output) = (job.partitions(messages), job.tables(), job.output());
            topology::run(
                Arc::clone(job),
                topology::Work { partitions, tables, output, durable: None },
                staff,
                kills,
                Arc::clone(&vitals),
            )
        })?;
        let gauge = outcome.tables.iter().fold(Gauge::default(), |sum, table| sum.and(job.gauge(table)));
        let verdict = memory::check(&outcome.output, self.seed, self.messages);
        let exact = verdict.is_exact();
        let mut more = vec![
            Line::number("messages_lost", "messages lost", verdict.lost),
            Line::number("messages_doubled", "messages doubled", verdict.doubled),
            Line::in_flight(&vitals),
        ];
        if verdict.invented + verdict.misplaced > 0 {
            more.push(Line::number("messages_invented", "messages invented", verdict.invented));
            more.push(Line::number("rows_misplaced", "rows misplaced", verdict.misplaced));
        }
        let stages = job.stages().iter().zip(&vitals.staged);
        Ok(Report {
            stages: stages
                .map(|(name, n)| (name.clone(), n.load(std::sync::atomic::Ordering::Relaxed)))
                .collect(),
            messages: vitals.merged.load(std::sync::atomic::Ordering::Relaxed),
            gauge,
            took: outcome.took,
            workers: staff.roles(STAGES, job.shards()).len(),
            deaths: vitals.deaths_from(0),
            restarted: vitals.restarted.load(std::sync::atomic::Ordering::Relaxed),
            ceiling: None,
            more,
            verdict: words(&verdict),
            exact: Some(exact),
        })
    }

    fn plain(
        &self,
        job: &InMemory,
        messages: &Arc<Vec<memory::Message>>,
        staff: &Staff,
    ) -> Result<Duration, Error> {
        // The ceiling is one thread with one table, whatever the join is spread over.
        let job = &job.clone().sharded(1);
        let (mut table, mut output) = ([job.table()], job.output());
        let began = Instant::now();
        plain::join(job, job.partitions(messages), staff.abreast, &mut table, |sheet| {
            job.write(&mut output, &sheet, Share::ALL)
        })?;
        let took = began.elapsed();
        if !memory::check(&output, self.seed, self.messages).is_exact() {
            return Err(Error::Request("the plain join is wrong, so it is no ceiling".to_owned()));
        }
        Ok(took)
    }
}

impl Form {
    fn is_json(self) -> bool {
        self == Form::Json
    }
}

impl crate::Common {
    /// Nothing is shown on the way.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet || self.report.is_json()
    }

    /// The crew that was asked for.
    pub(crate) fn staff(&self, abreast: usize, desk: usize) -> Staff {
        let threads = self.threads.map_or_else(
            || std::thread::available_parallelism().map_or(1, |threads| threads.get()),
            usize::from,
        );
        Staff {
            threads,
            pool: self.pool,
            readers: threads.clamp(2, 8),
            abreast,
            desk,
            patience: SIGN_OF_LIFE,
        }
    }
}

fn words(verdict: &Verdict) -> String {
    if verdict.is_exact() {
        return "exact: the output holds what the seed says, every message once".to_owned();
    }
    let Verdict { right, lost, doubled, invented, misplaced } = verdict;
    format!(
        "WRONG: {right} messages right, {lost} lost, {doubled} doubled, {invented} invented, {misplaced} rows misplaced"
    )
}
