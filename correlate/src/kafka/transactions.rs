//! An epoch as a transaction.

use std::time::{Duration, Instant};

use rdkafka::{
    Offset, TopicPartitionList,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{DefaultProducerContext, Producer, ThreadedProducer},
};

use crate::{
    error::Error,
    job::Share,
    kafka::{
        Cluster, PATIENCE,
        commits::{Entry, alone, read_on_from, snapshot},
        failed,
        group::{Group, is_taken},
        record,
        source::Keys,
    },
    log::{Epoch, Log},
};

/// How long a transaction may be open. Whoever is killed in one holds up the readers of the sink for so long.
const OPEN: &str = "10000";

/// Commits epochs.
pub(crate) struct Transactions {
    producer: ThreadedProducer<DefaultProducerContext>,
    cluster: Cluster,
    group: Group,
    keys: Keys,
    /// The partitions of the source, by shard.
    given: Vec<i32>,
    is_open: bool,
}

impl Transactions {
    /// Under a name of its own: that it does not commit what is another's is seen to by the group's generation.
    pub(crate) fn new(
        cluster: &Cluster,
        group: &Group,
        keys: Keys,
        given: &[i32],
    ) -> Result<Transactions, Error> {
        let name = format!("{}-{}-{}", cluster.group, std::process::id(), crate::log::millis());
        let own = [
            ("transactional.id", &*name),
            ("transaction.timeout.ms", OPEN),
            ("linger.ms", "5"),
            ("compression.type", "lz4"),
            ("queue.buffering.max.messages", "1000000"),
        ];
        let producer: ThreadedProducer<DefaultProducerContext> =
            cluster.settings(&own).create().map_err(failed("make a producer"))?;
        patiently(|| producer.init_transactions(Duration::from_secs(10)))
            .map_err(failed("begin transactions"))?;
        Ok(Transactions {
            producer,
            cluster: cluster.clone(),
            group: group.clone(),
            keys,
            given: given.to_vec(),
            is_open: false,
        })
    }

    /// Whether the brokers know transactions at all.
    pub(crate) fn are_there(cluster: &Cluster) -> Result<bool, Error> {
        let name = format!("{}-{}-{}-asks", cluster.group, std::process::id(), crate::log::millis());
        let settings = cluster.settings(&[("transactional.id", &name), ("transaction.timeout.ms", OPEN)]);
        let producer: ThreadedProducer<DefaultProducerContext> =
            settings.create().map_err(failed("make a producer"))?;
        match patiently(|| producer.init_transactions(Duration::from_secs(10))) {
            Err(KafkaError::Transaction(error)) if error.code() == RDKafkaErrorCode::UnsupportedFeature => {
                Ok(false)
            }
            done => done.map(|()| true).map_err(failed("begin transactions")),
        }
    }

    fn send(
        &self,
        topic: &str,
        partition: Option<i32>,
        key: &[u8],
        payload: &[u8],
    ) -> Result<(), KafkaError> {
        let mut record = record(topic, partition, key, payload);
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again)) => {
                    record = again;
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    /// All of it, up to the commit.
    fn attempt(&mut self, epoch: &Epoch, share: Share) -> Result<(), KafkaError> {
        self.producer.begin_transaction()?;
        self.is_open = true;
        for rows in &epoch.rows[..share.of(epoch.rows.len())] {
            for row in self.keys.rows(rows) {
                let topic = self.cluster.topics.of_rows()[row.topic as usize];
                self.send(topic, None, &row.key, row.row)?;
            }
        }
        if share != Share::ALL {
            return Ok(());
        }
        let shard = epoch.commit.shard as usize;
        let partition = self.given[shard];
        let stages = epoch.commit.cut.len() / self.given.len();
        let commit = alone(&epoch.commit, stages);
        let commits = &self.cluster.topics.commits;
        self.send(commits, Some(partition), b"", &Entry::Commit(commit.clone()).encode())?;
        if let Some(keys) = &epoch.snapshot {
            for entry in snapshot(keys, &commit) {
                self.send(commits, Some(partition), b"", &entry.encode())?;
            }
        }
        let offset = read_on_from(&commit);
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(
            &self.cluster.topics.source,
            partition,
            Offset::Offset(offset as i64),
        )?;
        let Some(member) = self.group.metadata() else {
            return Err(KafkaError::ClientCreation("the group is gone".to_owned()));
        };
        patiently(|| self.producer.send_offsets_to_transaction(&offsets, &member, Duration::from_secs(10)))?;
        patiently(|| self.producer.commit_transaction(Duration::from_secs(10)))?;
        self.is_open = false;
        Ok(())
    }
}

/// Asks again as long as the client says that it may help: a broker that is away may come back.
fn patiently(mut ask: impl FnMut() -> Result<(), KafkaError>) -> Result<(), KafkaError> {
    let until = Instant::now() + PATIENCE;
    loop {
        match ask() {
            Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < until => {}
            Err(KafkaError::Flush(_)) if Instant::now() < until => {}
            done => return done,
        }
    }
}

impl Log for Transactions {
    fn commit(&mut self, epoch: &Epoch, share: Share) -> Result<(), Error> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.attempt(epoch, share) {
                Err(error) if is_taken(&error) => {
                    self.rewind()?;
                    return Err(Error::Taken);
                }
                // Its transaction was open for too long, as when a broker was away; whether it counts is in the commits.
                Err(KafkaError::Transaction(error)) if error.is_fatal() => {
                    self.is_open = false;
                    return Err(Error::Fenced(error.to_string()));
                }
                Err(KafkaError::Transaction(error))
                    if error.txn_requires_abort() && Instant::now() < until =>
                {
                    // None of it counts, and all of it is here.
                    self.rewind()?;
                }
                done => return done.map_err(failed("commit an epoch")),
            }
        }
    }

    fn rewind(&mut self) -> Result<(), Error> {
        if std::mem::take(&mut self.is_open) {
            match patiently(|| self.producer.abort_transaction(Duration::from_secs(10))) {
                Err(KafkaError::Transaction(error)) if error.is_fatal() => {
                    return Err(Error::Fenced(error.to_string()));
                }
                done => done.map_err(failed("take back an epoch"))?,
            }
        }
        Ok(())
    }
}
