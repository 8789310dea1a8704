//! Membership: which partitions are this process's, and when they are not any more.
//!
//! The group's consumer fetches nothing, its partitions are paused at once. It is there for the group's protocol, and for
//! the name and generation under which transactions are committed.

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, ConsumerGroupMetadata, Rebalance},
    error::{KafkaError, RDKafkaErrorCode},
};

use crate::{
    error::Error,
    kafka::{Cluster, PATIENCE, failed},
};

/// A place in the group.
#[derive(Clone)]
pub(crate) struct Group {
    consumer: Arc<BaseConsumer<Context>>,
    shared: Arc<Shared>,
    session: Duration,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// Partitions are about to be taken, or the program is to end.
    round_stop: Arc<AtomicBool>,
}

#[derive(Default)]
struct State {
    given: Option<Vec<i32>>,
    is_working: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Finishing(Arc<Shared>);

impl Drop for Finishing {
    fn drop(&mut self) {
        self.0.state().is_working = false;
        self.0.changed.notify_all();
    }
}

struct Context {
    topic: String,
    shared: Arc<Shared>,
}

impl ClientContext for Context {}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(_) = rebalance {
            return;
        }
        // What is taken away is given up when the last epoch of it is committed, or when it takes too long: then whoever
        // has it next wins, and our commits are refused.
        let shared = &self.shared;
        shared.round_stop.store(true, Relaxed);
        let mut state = shared.state();
        state.given = None;
        drop(shared.changed.wait_timeout_while(state, PATIENCE, |state| state.is_working));
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let Rebalance::Assign(list) = rebalance else { return };
        // Whatever is not paused is fetched in vain, and nothing worse.
        let _ = consumer.pause(list);
        let of_ours = list.elements_for_topic(&self.topic);
        let mut given: Vec<i32> = of_ours.iter().map(|element| element.partition()).collect();
        given.sort_unstable();
        self.shared.state().given = Some(given);
    }
}

/// The group knows us no more, or not as who we were.
pub(crate) fn is_taken(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{FencedInstanceId, IllegalGeneration, UnknownMemberId};
    error
        .rdkafka_error_code()
        .is_some_and(|code| [FencedInstanceId, IllegalGeneration, UnknownMemberId].contains(&code))
}

impl Group {
    /// Joins.
    pub(crate) fn join(cluster: &Cluster) -> Result<Group, Error> {
        let shared = Arc::new(Shared::default());
        let own = [
            ("group.id", &*cluster.group),
            ("enable.auto.commit", "false"),
            ("auto.offset.reset", "earliest"),
            ("partition.assignment.strategy", "range"),
            ("session.timeout.ms", "10000"),
            ("max.poll.interval.ms", "300000"),
        ];
        let context = Context { topic: cluster.topics.source.clone(), shared: Arc::clone(&shared) };
        let mut settings = cluster.settings(&own);
        let session = settings.get("session.timeout.ms").and_then(|ms| ms.parse().ok());
        let session = Duration::from_millis(session.unwrap_or(10_000));
        if settings.get("heartbeat.interval.ms").is_none() {
            // Whoever shortens the session does not mean to be given up between two of its heartbeats.
            settings.set("heartbeat.interval.ms", (session / 3).as_millis().to_string());
        }
        let consumer: BaseConsumer<Context> =
            settings.create_with_context(context).map_err(failed("make a consumer"))?;
        consumer.subscribe(&[&cluster.topics.source]).map_err(failed("subscribe to the source"))?;
        Ok(Group { consumer: Arc::new(consumer), shared, session })
    }

    /// Does what the group wants done.
    pub(crate) fn poll(&self, wait: Duration) {
        // Errors of a broker that is away pass; there are no messages.
        let _ = self.consumer.poll(wait);
    }

    /// Waits for partitions; a round begins with them. `None` if it is asked to stop.
    pub(crate) fn given(&self, stop: &AtomicBool) -> Result<Option<Vec<i32>>, Error> {
        while !stop.load(Relaxed) {
            self.poll(Duration::from_millis(50));
            let mut state = self.shared.state();
            if let Some(given) = state.given.clone().filter(|given| !given.is_empty()) {
                state.is_working = true;
                self.shared.round_stop.store(false, Relaxed);
                return Ok(Some(given));
            }
        }
        Ok(None)
    }

    /// What was given is not ours any more, though nobody has said so yet.
    pub(crate) fn forget(&self) {
        self.shared.state().given = None;
    }

    /// The round is over when this is dropped.
    pub(crate) fn finishing(&self) -> impl Drop + use<> {
        Finishing(Arc::clone(&self.shared))
    }

    /// What stops a round, whoever wants it: also the one who wants the program to stop.
    pub(crate) fn round_stop(&self, stop: &Arc<AtomicBool>) -> Arc<AtomicBool> {
        if stop.load(Relaxed) {
            self.shared.round_stop.store(true, Relaxed);
        }
        Arc::clone(&self.shared.round_stop)
    }

    /// Whether anybody wants the round to stop.
    pub(crate) fn is_asked_to_stop(&self, stop: &AtomicBool) -> bool {
        stop.load(Relaxed) || self.shared.round_stop.load(Relaxed)
    }

    /// The name and generation under which we commit.
    pub(crate) fn metadata(&self) -> Option<ConsumerGroupMetadata> {
        self.consumer.group_metadata()
    }

    /// The group's offset of a partition, once no transaction on it is open.
    pub(crate) fn offset(&self, topic: &str, partition: i32) -> Result<Option<u64>, Error> {
        let mut list = TopicPartitionList::new();
        list.add_partition(topic, partition);
        let list =
            self.consumer.committed_offsets(list, PATIENCE).map_err(failed("ask for the group's offsets"))?;
        let offset = list.find_partition(topic, partition).and_then(|element| element.offset().to_raw());
        Ok(offset.and_then(|offset| u64::try_from(offset).ok()))
    }

    /// Commits the group's offset of a partition, under the name and generation that it knows us by. Says whether the group
    /// has answered: then it will not give us up for as long as a session is.
    pub(crate) fn commit(&self, topic: &str, partition: i32, offset: u64) -> Result<bool, Error> {
        let mut list = TopicPartitionList::new();
        let done = list
            .add_partition_offset(topic, partition, Offset::Offset(offset as i64))
            .and_then(|()| self.consumer.commit(&list, CommitMode::Sync));
        match done {
            Err(error) if is_taken(&error) => Err(Error::Taken),
            // Where to go on is said by the commits; the offset is for people and for the generation, and comes again.
            done => Ok(done.is_ok()),
        }
    }

    /// Makes sure that the partitions are ours: whoever was taken for dead, and does not know, hears of it here.
    pub(crate) fn claim(&self, topic: &str, partitions: &[i32]) -> Result<(), Error> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.commit_again(topic, partitions) {
                Ok(()) => return Ok(()),
                Err(error) if is_taken(&error) => return Err(Error::Taken),
                // They are about to be given anew.
                Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::RebalanceInProgress) => {
                    return Err(Error::Taken);
                }
                // A broker that is away may come back.
                Err(_) if Instant::now() < until && !self.shared.round_stop.load(Relaxed) => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(_) if self.shared.round_stop.load(Relaxed) => return Err(Error::Taken),
                Err(error) => return Err(failed("claim partitions")(error)),
            }
        }
    }

    /// Commits what is committed.
    fn commit_again(&self, topic: &str, partitions: &[i32]) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition(topic, *partition);
        }
        let mut list = self.consumer.committed_offsets(list, PATIENCE / 6)?;
        for partition in partitions {
            let there = list.find_partition(topic, *partition).and_then(|there| there.offset().to_raw());
            let offset = there.filter(|offset| *offset >= 0).unwrap_or(0);
            list.set_partition_offset(topic, *partition, Offset::Offset(offset))?;
        }
        self.consumer.commit(&list, CommitMode::Sync)
    }

    /// How long the group waits for a sign of life.
    pub(crate) fn session(&self) -> Duration {
        self.session
    }

    /// Gives up its place, so that others need not wait for it.
    pub(crate) fn leave(self) {
        self.consumer.unsubscribe();
        let _ = self.consumer.poll(Duration::from_millis(200));
    }
}
