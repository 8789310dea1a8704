//! An epoch without a transaction: decided, published, and read back when there is doubt.
//!
//! 1. The commit is written, and with it how far the topics of the rows reach (`commits.rs` says how). When the brokers have
//!    it, it is decided what was merged in which order, and so what the rows are. If anything was written to the partition of
//!    the commits that is not ours, another has taken over, and nothing of the epoch is published.
//! 2. The rows are published, and it is waited until the brokers have them.
//! 3. A snapshot follows, if there is one, and the group's offset, under our name and generation.
//!
//! Whoever comes next, or the same one after an answer that did not come, makes the rows of the last commit again, reads
//! what is behind the places that it names, and publishes what is missing. Rows are counted: of two that are the same and one
//! that is there, one is missing. A client that sends by itself again what was not answered would double rows, and so it
//! does not: every doubt ends the round, and the next one reads back.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::DeliveryResult,
    producer::{Producer, ProducerContext, ThreadedProducer},
};

use crate::{
    error::Error,
    job::Share,
    kafka::{
        Cluster, PATIENCE,
        commits::{Entry, Place, alone, read_on_from, snapshot},
        failed,
        group::Group,
        record,
        source::{Keys, Row},
    },
    log::{Epoch, Log},
    progress::say,
};

/// The topic of the commits, counted after those of the rows.
const COMMITS: u32 = 3;

/// What the brokers have answered.
struct Answers {
    /// The topics of rows, and after them the one of the commits.
    topics: Vec<String>,
    heard: Mutex<Heard>,
}

#[derive(Default)]
struct Heard {
    /// What was refused, or was not answered.
    failed: Option<KafkaError>,
    /// The offset behind the last that was taken, for each topic and partition.
    next: BTreeMap<(u32, i32), u64>,
}

impl Answers {
    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Answers {}

impl ProducerContext for Answers {
    type DeliveryOpaque = ();

    fn delivery(&self, answer: &DeliveryResult<'_>, (): ()) {
        match answer {
            Ok(message) => {
                let topic = self.topics.iter().position(|topic| topic == message.topic());
                let at = (topic.unwrap_or_default() as u32, message.partition());
                let mut heard = self.heard();
                let next = heard.next.entry(at).or_default();
                *next = (*next).max(message.offset() as u64 + 1);
            }
            Err((error, _)) => drop(self.heard().failed.get_or_insert_with(|| error.clone())),
        }
    }
}

/// Publishes epochs.
pub(crate) struct Published {
    producer: ThreadedProducer<Answers>,
    cluster: Cluster,
    group: Group,
    keys: Keys,
    /// The partitions of the source, by shard.
    given: Vec<i32>,
    owner: u64,
    /// When the group was asked that has said last that the partitions are ours.
    proof: Instant,
    /// What the next message in each partition of the commits is to get as its offset.
    next: Vec<u64>,
    /// For each shard the epoch that is decided and not finished, and how far the topics reached before.
    decided: Vec<Option<(u64, Vec<Place>)>>,
}

impl Published {
    /// The partitions become ours, in the topic of the commits, whoever wrote there before.
    pub(crate) fn new(
        cluster: &Cluster,
        group: &Group,
        keys: Keys,
        given: &[i32],
    ) -> Result<Published, Error> {
        // What is not answered in half of the time that the group gives us is as good as lost.
        let timeout = (group.session() / 2).as_millis().to_string();
        let own = [
            ("acks", "all"),
            ("message.send.max.retries", "0"),
            ("max.in.flight.requests.per.connection", "1"),
            ("message.timeout.ms", &*timeout),
            ("linger.ms", "5"),
            ("compression.type", "lz4"),
            // What waits here for a sink that is slow must not wait until its time is over.
            ("queue.buffering.max.kbytes", "1024"),
        ];
        let topics = [cluster.topics.of_rows().as_slice(), &[&cluster.topics.commits]].concat();
        let topics = topics.into_iter().map(str::to_owned).collect();
        let answers = Answers { topics, heard: Mutex::default() };
        let producer: ThreadedProducer<Answers> =
            cluster.settings(&own).create_with_context(answers).map_err(failed("make a producer"))?;
        // Nobody else gets the same number: it is made of the process, the time, and what no one can know.
        let random = std::hash::BuildHasher::hash_one(
            &std::hash::RandomState::new(),
            (std::process::id(), crate::log::millis()),
        );
        let mut published = Published {
            producer,
            cluster: cluster.clone(),
            group: group.clone(),
            keys,
            given: given.to_vec(),
            owner: random,
            proof: Instant::now(),
            next: vec![0; given.len()],
            decided: vec![None; given.len()],
        };
        published.take_over()?;
        Ok(published)
    }

    /// The number that what we write goes by.
    pub(crate) fn owner(&self) -> u64 {
        self.owner
    }

    fn take_over(&mut self) -> Result<(), Error> {
        let until = Instant::now() + PATIENCE;
        let entry = Entry::Owner(self.owner).encode();
        loop {
            for partition in &self.given {
                self.send(&self.cluster.topics.commits, Some(*partition), b"", &entry)?;
            }
            match self.answers() {
                // A broker that is away may come back; and it does no harm to say it twice.
                Err(Error::Fenced(_)) if Instant::now() < until => {}
                done => break done?,
            }
        }
        let heard = self.producer.context().heard();
        for (next, partition) in self.next.iter_mut().zip(&self.given) {
            *next = heard.next.get(&(COMMITS, *partition)).copied().unwrap_or_default();
        }
        drop(heard);
        // One who was taken for dead, and wakes up, must not take it from whoever has it now.
        self.claim()
    }

    fn claim(&mut self) -> Result<(), Error> {
        let asked = Instant::now();
        self.group.claim(&self.cluster.topics.source, &self.given)?;
        self.proof = asked;
        Ok(())
    }

    fn send(&self, topic: &str, partition: Option<i32>, key: &[u8], payload: &[u8]) -> Result<(), Error> {
        while !self.try_send(topic, partition, key, payload)? {}
        Ok(())
    }

    /// Says whether there was room for it in the client; when there is none it has waited a little.
    fn try_send(
        &self,
        topic: &str,
        partition: Option<i32>,
        key: &[u8],
        payload: &[u8],
    ) -> Result<bool, Error> {
        match self.producer.send(record(topic, partition, key, payload)) {
            Ok(()) => Ok(true),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                std::thread::sleep(Duration::from_millis(5));
                Ok(false)
            }
            Err((error, _)) => Err(failed("publish an epoch")(error)),
        }
    }

    /// Waits until all that was sent is answered.
    fn answers(&self) -> Result<(), Error> {
        let until = Instant::now() + PATIENCE;
        // Each message has its time, and is answered for by the client when that is over.
        while let Err(error) = self.producer.flush(Duration::from_secs(10)) {
            if Instant::now() >= until {
                return Err(failed("publish an epoch")(error));
            }
        }
        match self.producer.context().heard().failed.take() {
            None => Ok(()),
            Some(error) if will_not_mend(&error) => Err(failed("publish an epoch")(error)),
            Some(error) => Err(Error::Fenced(format!("the brokers did not answer for an epoch: {error}"))),
        }
    }

    /// Writes to the commits of a shard, waits for the answers, and makes sure that nobody else has written there.
    fn enter(&mut self, shard: usize, entries: Vec<Entry<'_>>) -> Result<(), Error> {
        let (partition, count) = (self.given[shard], entries.len() as u64);
        for entry in entries {
            let entry = Entry::By(self.owner, Box::new(entry)).encode();
            self.send(&self.cluster.topics.commits, Some(partition), b"", &entry)?;
        }
        self.answers()?;
        let is = self.producer.context().heard().next.get(&(COMMITS, partition)).copied();
        self.next[shard] += count;
        if is != Some(self.next[shard]) {
            return Err(Error::Fenced(format!("partition {partition} is another's by now")));
        }
        Ok(())
    }

    /// How far the topics of the rows reach, as far as we know: nothing that is sent from now on comes before it.
    fn places(&self) -> Vec<Place> {
        let heard = self.producer.context().heard();
        let of_rows = heard.next.iter().filter(|((topic, _), _)| *topic < COMMITS);
        of_rows
            .map(|((topic, partition), next)| Place { topic: *topic, partition: *partition, next: *next })
            .collect()
    }

    fn publish(&mut self, rows: &[Row<'_>]) -> Result<(), Error> {
        for row in rows {
            loop {
                // The group's word is good for a session. A row is sent in the first quarter of that, and expires in two more.
                if self.proof.elapsed() >= self.group.session() / 4 {
                    self.claim()?;
                }
                let topic = self.cluster.topics.of_rows()[row.topic as usize];
                if self.try_send(topic, None, &row.key, row.row)? {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Leaves those rows that are not behind these places yet.
    fn read_back(&self, rows: &mut Vec<Row<'_>>, places: &[Place]) -> Result<(), Error> {
        for (number, topic) in (0_u32..).zip(self.cluster.topics.of_rows()) {
            let mut wanted: HashMap<&[u8], u64> = HashMap::new();
            for row in rows.iter().filter(|row| row.topic == number) {
                *wanted.entry(row.row).or_default() += 1;
            }
            if wanted.is_empty() {
                continue;
            }
            let mut there: HashMap<Vec<u8>, u64> = HashMap::new();
            let of_topic = places.iter().filter(|place| place.topic == number);
            let from = of_topic.map(|place| (place.partition, place.next)).collect();
            self.cluster.read_through(topic, &from, |row| {
                if let Some(left) = wanted.get_mut(row).filter(|left| **left > 0) {
                    *left -= 1;
                    *there.entry(row.to_vec()).or_default() += 1;
                }
            })?;
            rows.retain(|row| match there.get_mut(row.row) {
                Some(left) if row.topic == number && *left > 0 => {
                    *left -= 1;
                    false
                }
                _ => true,
            });
        }
        Ok(())
    }

    /// Publishes what is missing of epochs that were decided by whoever was here before; then, from here on, all is ours.
    pub(crate) fn finish(&mut self, wanted: &[Epoch], doubts: &[Option<Vec<Place>>]) -> Result<(), Error> {
        for epoch in wanted {
            let places = doubts[epoch.commit.shard as usize].as_deref().unwrap_or_default();
            let mut rows: Vec<Row<'_>> = epoch.rows.iter().flat_map(|rows| self.keys.rows(rows)).collect();
            let all = rows.len();
            self.read_back(&mut rows, places)?;
            self.publish(&rows)?;
            self.answers()?;
            if !rows.is_empty() {
                let missing = rows.len();
                say(format!(
                    "  {missing} of the {all} rows of epoch {} were missing, and are published",
                    epoch.commit.epoch
                ));
            }
        }
        // Behind all that is there now: what was published by others, and long ago, is not looked for again.
        let consumer = self.cluster.reader()?;
        for (number, topic) in (0_u32..).zip(self.cluster.topics.of_rows()) {
            for partition in 0..self.cluster.partitions(&consumer, topic)? {
                let (_, high) = consumer
                    .fetch_watermarks(topic, partition, PATIENCE)
                    .map_err(failed("ask for the sink's end"))?;
                let mut heard = self.producer.context().heard();
                let next = heard.next.entry((number, partition)).or_default();
                *next = (*next).max(high as u64);
            }
        }
        Ok(())
    }
}

/// To ask again would get the same answer.
fn will_not_mend(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{
        ClusterAuthorizationFailed, InvalidMessageSize, InvalidRequiredAcks, MessageSizeTooLarge,
        PolicyViolation, SaslAuthenticationFailed, TopicAuthorizationFailed, UnknownPartition, UnknownTopic,
        UnsupportedFeature, UnsupportedForMessageFormat,
    };
    matches!(
        error.rdkafka_error_code(),
        Some(
            ClusterAuthorizationFailed
                | InvalidMessageSize
                | InvalidRequiredAcks
                | MessageSizeTooLarge
                | PolicyViolation
                | SaslAuthenticationFailed
                | TopicAuthorizationFailed
                | UnknownPartition
                | UnknownTopic
                | UnsupportedFeature
                | UnsupportedForMessageFormat
        )
    )
}

impl Log for Published {
    fn commit(&mut self, epoch: &Epoch, share: Share) -> Result<(), Error> {
        let shard = epoch.commit.shard as usize;
        let (partition, stages) = (self.given[shard], epoch.commit.cut.len() / self.given.len());
        let commit = alone(&epoch.commit, stages);
        let rows = &epoch.rows[..share.of(epoch.rows.len())];
        let mut rows: Vec<Row<'_>> = rows.iter().flat_map(|rows| self.keys.rows(rows)).collect();
        match self.decided[shard].clone().filter(|(epoch, _)| *epoch == commit.epoch) {
            None => {
                let places = self.places();
                self.enter(shard, vec![Entry::Decided(places.clone(), commit.clone())])?;
                self.decided[shard] = Some((commit.epoch, places));
            }
            // Whoever was at it has died: what is out is out.
            Some((_, places)) => {
                self.answers()?;
                self.read_back(&mut rows, &places)?;
            }
        }
        self.publish(&rows)?;
        if share != Share::ALL {
            return Ok(());
        }
        self.answers()?;
        if let Some(keys) = &epoch.snapshot {
            self.enter(shard, snapshot(keys, &commit))?;
        }
        self.decided[shard] = None;
        let offset = read_on_from(&commit);
        let asked = Instant::now();
        let done = self.group.commit(&self.cluster.topics.source, partition, offset);
        if let Ok(true) = done {
            self.proof = asked;
        }
        if let Err(Error::Taken) = done {
            let epoch = commit.epoch;
            say(format!(
                "correlate: the group had given us up when epoch {epoch} of partition {partition} was published; if another \
                 has read the sink back before, rows of it are there twice"
            ));
        }
        done.map(|_| ())
    }

    fn rewind(&mut self) -> Result<(), Error> {
        // Nothing can be taken back; what is missing is found out by whoever goes on.
        Ok(())
    }
}

impl Cluster {
    /// Hands each message of a topic to `each`, from these offsets on, or from the beginning, to the end.
    fn read_through(
        &self,
        topic: &str,
        from: &HashMap<i32, u64>,
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), Error> {
        let what = failed("read the sink back");
        // Also what no transaction vouches for; and what is older than the topic keeps is not to be had.
        let own = [("isolation.level", "read_uncommitted"), ("auto.offset.reset", "earliest")];
        let consumer: BaseConsumer = self.reading(&own).create().map_err(&what)?;
        let partitions = self.partitions(&consumer, topic)?;
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions {
            let from = from.get(&partition).map_or(Offset::Beginning, |from| Offset::Offset(*from as i64));
            list.add_partition_offset(topic, partition, from).map_err(&what)?;
        }
        consumer.assign(&list).map_err(&what)?;
        let mut open: Vec<i32> = (0..partitions).collect();
        let mut heard = Instant::now();
        while !open.is_empty() {
            match consumer.poll(PATIENCE / 10) {
                Some(Ok(message)) => each(message.payload().unwrap_or_default()),
                Some(Err(KafkaError::PartitionEOF(partition))) => open.retain(|open| *open != partition),
                // A broker that is away may come back.
                Some(Err(_)) | None if heard.elapsed() < PATIENCE => continue,
                Some(Err(error)) => return Err(what(error)),
                None => return Err(Error::Request(format!("Kafka: nothing is heard of {topic}"))),
            }
            heard = Instant::now();
        }
        Ok(())
    }
}
