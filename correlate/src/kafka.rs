//! A Kafka cluster as the log: one process of several in a consumer group, and every message joined exactly once.
//!
//! ```text
//!   SOURCE            the messages; those of one key are all in one partition (the producer's key is the record's)
//!   SINK              joined rows, by key
//!   SINK-duplicates   what the embedded join writes into `duplicates.ndjson`
//!   SINK-rejects      and into `rejects.ndjson`
//!   SINK-commits      for each partition of the source its commits and snapshots: where a successor goes on
//! ```
//!
//! A shard of the sink is a partition of the source: its keys are there and nowhere else. An epoch of a shard is one
//! transaction: its rows, its commit, and the group's offset. The group's generation goes with it, so that a process that
//! was taken for dead cannot commit what another has taken over. Where there are no transactions, the commit comes first and
//! the rows after it, and whoever goes on after a death reads back which of them are out (`published.rs`).
//!
//! Whoever is given a partition reads its commits, up to the one that the group's offset is of; loads the snapshot; merges
//! again what came after it; and goes on. When partitions are given and taken the topology ends its epochs, and begins anew
//! with what the process has then.

mod commits;
mod group;
mod published;
mod source;
mod transactions;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    producer::BaseRecord,
};
use serde_json::json;

use crate::{
    Common, Done,
    durable::{self, Pace, on_signal},
    error::Error,
    job::{Gauge, Job},
    kills::Kills,
    log::{Log, Past, Totals},
    progress::{self, Length, say},
    report::{Line, Report, count},
    run::{Brokers, Shape, Transactions},
    text::InFiles,
    topology::{self, SIGN_OF_LIFE, Staff},
    vitals::Vitals,
};

/// How long a broker may take to answer before it is asked again, or the run ends.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Partitions whose commits are read at the same time.
const ABREAST: usize = 8;

/// A program that gets nowhere for so many rounds ends.
const ROUNDS: u64 = 1_000;

/// The client's own words, with what was being done.
pub(crate) fn failed(what: &str) -> impl Fn(KafkaError) -> Error + '_ {
    move |error| Error::Request(format!("Kafka: cannot {what}: {error}"))
}

/// A message; the client chooses the partition if nobody else does.
fn record<'a>(
    topic: &'a str,
    partition: Option<i32>,
    key: &'a [u8],
    payload: &'a [u8],
) -> BaseRecord<'a, [u8], [u8]> {
    let record = BaseRecord::to(topic).key(key).payload(payload);
    match partition {
        Some(partition) => record.partition(partition),
        None => record,
    }
}

/// The topics of a join.
#[derive(Clone, Debug)]
pub(crate) struct Topics {
    pub(crate) source: String,
    pub(crate) sink: String,
    pub(crate) duplicates: String,
    pub(crate) rejects: String,
    pub(crate) commits: String,
}

impl Topics {
    /// Those that rows go to.
    pub(crate) fn of_rows(&self) -> [&str; 3] {
        [&self.sink, &self.duplicates, &self.rejects]
    }
}

/// What a connection needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    pub(crate) topics: Topics,
    pub(crate) group: String,
    config: ClientConfig,
    set: Vec<(String, String)>,
}

impl Cluster {
    fn new(brokers: &str, options: &Brokers) -> Result<Cluster, Error> {
        let missing = |name: &str| Error::Request(format!("--brokers needs --{name}, too"));
        let source = options.source.clone().ok_or_else(|| missing("source"))?;
        let sink = options.sink.clone().ok_or_else(|| missing("sink"))?;
        let group = options.group.clone().unwrap_or_else(|| format!("correlate-{source}-{sink}"));
        let topic = |name: &str| format!("{sink}-{name}");
        let topics = Topics {
            duplicates: topic("duplicates"),
            rejects: topic("rejects"),
            commits: topic("commits"),
            source,
            sink: sink.clone(),
        };
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers).set("isolation.level", "read_committed");
        let set = options.set.iter().map(|pair| {
            let pair = pair.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
            pair.ok_or_else(|| Error::Request("--set takes NAME=VALUE".to_owned()))
        });
        Ok(Cluster { topics, group, config, set: set.collect::<Result<_, _>>()? })
    }

    /// A client's settings: ours, and over them what was set by hand.
    pub(crate) fn settings(&self, own: &[(&str, &str)]) -> ClientConfig {
        let mut config = self.config.clone();
        for (name, value) in own {
            config.set(*name, *value);
        }
        for (name, value) in &self.set {
            config.set(name, value);
        }
        config
    }

    /// A consumer that belongs to no group: it reads what it is told to.
    pub(crate) fn reader(&self) -> Result<BaseConsumer, Error> {
        self.reading(&[]).create().map_err(failed("make a consumer"))
    }

    /// Its settings, and more.
    pub(crate) fn reading(&self, more: &[(&str, &str)]) -> ClientConfig {
        let own = [
            ("group.id", &*self.group),
            ("enable.auto.commit", "false"),
            ("enable.partition.eof", "true"),
            ("auto.offset.reset", "error"),
            ("queued.max.messages.kbytes", "16384"),
            ("fetch.wait.max.ms", "50"),
        ];
        self.settings(&[own.as_slice(), more].concat())
    }

    /// How many partitions a topic has.
    pub(crate) fn partitions(&self, consumer: &BaseConsumer, topic: &str) -> Result<i32, Error> {
        let about = consumer.fetch_metadata(Some(topic), PATIENCE).map_err(failed("ask the brokers"))?;
        match about.topics().first().map(|topic| topic.partitions().len()) {
            Some(n) if n > 0 => Ok(n as i32),
            _ => Err(Error::Request(format!("Kafka: there is no topic {topic}"))),
        }
    }

    /// The same of a topic that has just been made: the brokers hear of it one after another.
    fn partitions_soon(&self, consumer: &BaseConsumer, topic: &str) -> Result<i32, Error> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.partitions(consumer, topic) {
                Err(Error::Request(_)) if Instant::now() < until => thread::sleep(Duration::from_millis(20)),
                done => return done,
            }
        }
    }

    /// Makes the topics that are not there; the source must be.
    fn make_topics(&self, partitions: i32, replication: i32) -> Result<(), Error> {
        let admin: AdminClient<DefaultClientContext> =
            self.settings(&[]).create().map_err(failed("make an administrator"))?;
        let Topics { sink, duplicates, rejects, commits, .. } = &self.topics;
        let topics = [sink, duplicates, rejects, commits]
            .map(|name| NewTopic::new(name, partitions, TopicReplication::Fixed(replication)));
        let made = admin.create_topics(&topics, &AdminOptions::new().request_timeout(Some(PATIENCE)));
        for made in futures_lite::future::block_on(made).map_err(failed("make topics"))? {
            match made {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => {
                    return Err(Error::Request(format!("Kafka: cannot make topic {topic}: {code}")));
                }
            }
        }
        Ok(())
    }
}

/// Joins what is in the source, until it is asked to stop, or until what is there now is joined.
pub(crate) fn run(
    options: &Brokers,
    shape: &Shape,
    stages: &[String],
    pace: &Pace,
    common: &Common,
    kills: (u64, u64),
) -> Result<Done, Error> {
    let Some(brokers) = &options.brokers else { unreachable!("only with brokers") };
    if stages.is_empty() {
        return Err(Error::Request("with --brokers the stages have to be named: --stages A,B,C".to_owned()));
    }
    let cluster = Arc::new(Cluster::new(brokers, options)?);
    let stop = on_signal()?;
    let reader = cluster.reader()?;
    let partitions = cluster.partitions(&reader, &cluster.topics.source)?;
    cluster.make_topics(partitions, options.replication)?;
    if cluster.partitions_soon(&reader, &cluster.topics.commits)? != partitions {
        let Topics { source, commits, .. } = &cluster.topics;
        return Err(Error::Request(format!(
            "Kafka: {commits} has not as many partitions as {source}; a source's partitions cannot be added to"
        )));
    }
    drop(reader);
    let way = match options.transactions {
        Transactions::Always => Way::Transactions,
        Transactions::Never => Way::ReadBack,
        Transactions::Auto if transactions::Transactions::are_there(&cluster)? => Way::Transactions,
        Transactions::Auto => Way::ReadBack,
    };
    if !common.is_quiet() {
        say(format!("  {}", way.guarantee()));
    }
    let group = group::Group::join(&cluster)?;
    let began = Instant::now();
    let (mut sum, mut rounds, vitals) = (Totals::default(), 0_u64, Arc::new(Vitals::default()));
    let mut gauge = Gauge::default();
    let mut again = 0;
    while !stop.load(Relaxed) {
        let Some(given) = group.given(&stop)? else { break };
        rounds += 1;
        if !common.is_quiet() {
            say(format!(
                "  {:7.3} s  given {} of {partitions} partitions: {given:?}",
                began.elapsed().as_secs_f64(),
                given.len()
            ));
        }
        let run = Round {
            cluster: &cluster,
            way,
            options,
            shape,
            stages,
            pace,
            common,
            kills,
            group: &group,
            stop: &stop,
        };
        let vitals_of_round = if rounds == 1 { Arc::clone(&vitals) } else { Arc::default() };
        let done = thread::scope(|scope| {
            let working = scope.spawn(|| {
                let _finished = group.finishing();
                match run.run(&given, &vitals_of_round) {
                    // It will be given partitions again, and goes on from what is committed.
                    Err(Error::Taken) => {
                        group.forget();
                        Ok(Ended::default())
                    }
                    Err(Error::Fenced(words)) if rounds < ROUNDS => {
                        say(format!("correlate: {words}; it goes on with another"));
                        Ok(Ended::default())
                    }
                    done => done,
                }
            });
            // The group wants to be asked, whoever works.
            while !working.is_finished() {
                group.round_stop(&stop);
                group.poll(Duration::from_millis(50));
            }
            working.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        again += done.again;
        sum = sum.and(done.totals);
        gauge = done.gauge;
        if done.is_through {
            break;
        }
    }
    group.leave();
    let stopped = stop.load(Relaxed);
    let report = Report {
        stages: stages.iter().map(|stage| (stage.clone(), 0)).collect(),
        messages: sum.messages,
        gauge,
        took: began.elapsed(),
        workers: 0,
        deaths: vitals.deaths_from(0),
        restarted: vitals.restarted.load(Relaxed),
        ceiling: None,
        more: vec![
            Line::number("rounds", "rounds", rounds),
            Line::number("merged_again", "merged again", again),
            Line::number("duplicates", "duplicates", gauge.duplicates),
            Line {
                field: "transactions",
                name: "guarantee",
                words: way.guarantee().to_owned(),
                value: json!(way == Way::Transactions),
            },
            Line { field: "group", name: "group", words: cluster.group.clone(), value: json!(cluster.group) },
        ],
        verdict: if stopped {
            "stopped; whoever is in the group goes on"
        } else {
            "all that was there is joined"
        }
        .to_owned(),
        exact: None,
    };
    report.print(common.report)?;
    // A stream has no end: to be stopped is how it ends.
    Ok(Done::Right)
}

/// How an epoch's rows and its commit become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// The brokers see to it.
    Transactions,
    /// The commit decides, and the sink is read back for rows that are missing.
    ReadBack,
}

impl Way {
    /// What holds, in a line.
    fn guarantee(self) -> &'static str {
        match self {
            Way::Transactions => {
                "with transactions: exactly once for readers of what is committed, whoever is killed, process or broker"
            }
            Way::ReadBack => {
                "without transactions: exactly once when a process or a broker is killed; one that hangs while it publishes, \
                 and goes on after another has read the sink back, doubles rows"
            }
        }
    }
}

/// What becomes of the partitions that were given, until they are taken.
struct Round<'a> {
    cluster: &'a Arc<Cluster>,
    way: Way,
    options: &'a Brokers,
    shape: &'a Shape,
    stages: &'a [String],
    pace: &'a Pace,
    common: &'a Common,
    kills: (u64, u64),
    group: &'a group::Group,
    stop: &'a Arc<AtomicBool>,
}

/// What came of a round.
#[derive(Default)]
struct Ended {
    totals: Totals,
    gauge: Gauge,
    again: u64,
    is_through: bool,
}

impl Round<'_> {
    /// What the commits of each partition tell.
    fn read(
        &self,
        given: &[i32],
        published: Option<&published::Published>,
    ) -> Result<Vec<commits::Told>, Error> {
        let (owner, stages) = (published.map(published::Published::owner), self.stages.len());
        let read = |(shard, partition): (u32, &i32)| {
            commits::read(self.cluster, self.group, *partition, shard, given.len(), stages, owner)
        };
        // A client takes half a second until it hears the first word, and the first word of several comes at once.
        let mut all_told = Vec::new();
        for (first, few) in (0..).step_by(ABREAST).zip(given.chunks(ABREAST)) {
            let few_told: Result<Vec<_>, Error> = thread::scope(|scope| {
                let reading: Vec<_> = (first..).zip(few).map(|one| scope.spawn(move || read(one))).collect();
                let told = reading
                    .into_iter()
                    .map(|reading| reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
                told.collect()
            });
            all_told.extend(few_told?);
        }
        Ok(all_told)
    }

    fn run(&self, given: &[i32], vitals: &Arc<Vitals>) -> Result<Ended, Error> {
        let fields = self.shape.fields()?;
        let longest = self.shape.longest_line as usize;
        let manner =
            crate::read::Manner { fields, longest, bytes: Arc::default(), cut_short: Arc::default() };
        let join =
            InFiles::new(self.stages.to_vec(), given.len(), manner, false, false)?.sharded(given.len());
        let job = Arc::new(source::InKafka::new(join, self.cluster, given, self.options.until_end));
        // Whoever was at work on an epoch is fenced off before anything is read of it.
        let publisher = || published::Published::new(self.cluster, self.group, job.keys(), given);
        let (transactions, mut published) = match self.way {
            Way::Transactions => {
                let log = transactions::Transactions::new(self.cluster, self.group, job.keys(), given)?;
                (Some(log), None)
            }
            Way::ReadBack => (None, Some(publisher()?)),
        };
        let mut all_told = self.read(given, published.as_ref())?;
        if published.is_none() && all_told.iter().any(|told| told.doubt.is_some()) {
            // The last to work here had no transactions, and may have left rows that are not out.
            published = Some(publisher()?);
            all_told = self.read(given, published.as_ref())?;
        }
        let mut past = Past::default();
        let (mut partitions, mut doubts) = (Vec::new(), Vec::new());
        for (shard, told) in all_told.into_iter().enumerate() {
            partitions.push(job.partition(shard, given[shard], &told)?);
            if told.doubt.is_some() {
                past.wanted.extend(told.commits.last().map(|commit| (commit.shard, commit.epoch)));
            }
            doubts.push(told.doubt);
            past.snapshots.push(told.snapshot);
            past.commits.extend(told.commits);
        }
        let resumed = durable::resume(&*job, &mut partitions, job.tables(), past)?;
        if let Some(published) = &mut published {
            published.finish(&resumed.wanted, &doubts)?;
        }
        let log: Box<dyn Log> = match (transactions, published) {
            (Some(transactions), _) => Box::new(transactions),
            (None, Some(published)) => Box::new(published),
            (None, None) => unreachable!("one of them was made"),
        };
        let (before, again) = (resumed.totals(), resumed.again);
        let round_stop = self.group.round_stop(self.stop);
        let durable = self.pace.durable(log, resumed.last, round_stop);
        let Staff { threads, pool, .. } = self.common.staff(usize::MAX, 8);
        let readers = threads.clamp(2, 8).min(given.len().max(1));
        // A reader may wait for its broker, and holds up its thread.
        let staff = Staff {
            threads: threads + readers,
            pool,
            readers,
            abreast: usize::MAX,
            desk: 16,
            patience: SIGN_OF_LIFE,
        };
        let (kills, seed) = self.kills;
        let mut turns = vec![200; readers + self.stages.len() + given.len()];
        turns.push(4);
        let kills = Kills::seeded(seed, kills, &turns);
        let ends: Option<u64> = partitions.iter().map(source::Partition::until).sum();
        let length = ends.map_or_else(|| Length::Stream(job.lag()), Length::Messages);
        let outcome = progress::shown(self.common.is_quiet(), length, vitals, || {
            topology::run(
                Arc::clone(&job),
                topology::Work { partitions, tables: resumed.tables, output: (), durable: Some(durable) },
                &staff,
                kills,
                Arc::clone(vitals),
            )
        })?;
        let gauge = outcome.tables.iter().fold(Gauge::default(), |sum, table| sum.and(job.gauge(table)));
        let messages = vitals.merged.load(Relaxed).saturating_sub(before.messages);
        if !self.common.is_quiet() {
            say(format!(
                "           {} messages merged, {} merged again first",
                count(messages),
                count(again)
            ));
        }
        let is_through = self.options.until_end && !self.group.is_asked_to_stop(self.stop);
        Ok(Ended { totals: Totals { messages, ..Totals::default() }, gauge, again, is_through })
    }
}
