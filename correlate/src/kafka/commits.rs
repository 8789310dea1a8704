//! Commits and snapshots in a topic: for each partition of the source a partition of them.
//!
//! A message is a commit (`c` and the commit), a piece of a snapshot (`s`, the epoch, the piece's number, and the keys), or
//! a snapshot's end (`e`, the epoch, the number of pieces, and the commit it is after). With transactions that is all.
//!
//! Without them a process says first that the partition is its own (`o`, and a number that nobody else has). What it writes
//! then goes by that number (`b`, the number, and another message). What goes by another number than that of the last owner
//! before it was written too late, by one who had been taken for dead: it does not count, whoever reads it and whenever. A
//! commit is written before its rows (`d`, where the topics of the rows ended, and the commit). So the order of merges is
//! decided once; rows can be made again, and whoever comes next looks behind those ends for what is out already.

use std::time::Instant;

use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
};

use crate::{
    error::Error,
    kafka::{Cluster, PATIENCE, failed, group::Group},
    log::{
        Commit, Mark, Merge, Snapshot,
        code::{Malformed, Reader, Writer},
    },
};

/// Bytes of a snapshot in a message.
const PIECE: usize = 512 << 10;

/// A message of the topic.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Entry<'a> {
    /// An epoch was committed.
    Commit(Commit),
    /// A piece of the open keys after an epoch.
    Piece(u64, u32, &'a [u8]),
    /// The end of them.
    End(u32, Commit),
    /// The partition is another's from here on.
    Owner(u64),
    /// Written by an owner; of no account if it is none any more.
    By(u64, Box<Entry<'a>>),
    /// An epoch is committed; its rows come next, behind these places.
    Decided(Vec<Place>, Commit),
}

/// So far a partition of a topic of rows was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// Which of [`Topics::of_rows`](crate::kafka::Topics::of_rows).
    pub(crate) topic: u32,
    /// Its partition.
    pub(crate) partition: i32,
    /// The next offset.
    pub(crate) next: u64,
}

impl<'a> Entry<'a> {
    /// As bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Writer::default();
        match self {
            Entry::Commit(commit) => {
                bytes.0.push(b'c');
                commit.encode(&mut bytes);
            }
            Entry::Piece(epoch, number, keys) => {
                bytes.0.push(b's');
                bytes.u64(*epoch);
                bytes.u32(*number);
                bytes.0.extend_from_slice(keys);
            }
            Entry::End(pieces, after) => {
                bytes.0.push(b'e');
                bytes.u32(*pieces);
                after.encode(&mut bytes);
            }
            Entry::Owner(owner) => {
                bytes.0.push(b'o');
                bytes.u64(*owner);
            }
            Entry::By(owner, entry) => {
                bytes.0.push(b'b');
                bytes.u64(*owner);
                bytes.0.extend_from_slice(&entry.encode());
            }
            Entry::Decided(places, commit) => {
                bytes.0.push(b'd');
                bytes.u32(places.len() as u32);
                for Place { topic, partition, next } in places {
                    bytes.u32(*topic);
                    bytes.u32(*partition as u32);
                    bytes.u64(*next);
                }
                commit.encode(&mut bytes);
            }
        }
        bytes.0
    }

    /// From bytes.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Entry<'a>, Malformed> {
        let mut from = Reader(bytes);
        let entry = match from.u8()? {
            b'c' => Entry::Commit(Commit::decode(&mut from)?),
            b's' => return Ok(Entry::Piece(from.u64()?, from.u32()?, from.0)),
            b'e' => Entry::End(from.u32()?, Commit::decode(&mut from)?),
            b'o' => Entry::Owner(from.u64()?),
            b'b' => {
                let owner = from.u64()?;
                return match Entry::decode(from.0)? {
                    Entry::By(..) | Entry::Owner(_) => Err(Malformed),
                    entry => Ok(Entry::By(owner, Box::new(entry))),
                };
            }
            b'd' => {
                let place = |from: &mut Reader<'_>| {
                    Ok(Place { topic: from.u32()?, partition: from.u32()? as i32, next: from.u64()? })
                };
                Entry::Decided(from.list(16, place)?, Commit::decode(&mut from)?)
            }
            _ => return Err(Malformed),
        };
        from.end()?;
        Ok(entry)
    }
}

/// What a partition's commits tell.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// Where the fold may begin.
    pub(crate) snapshot: Option<Snapshot>,
    /// The commits after it.
    pub(crate) commits: Vec<Commit>,
    /// Whose the partition is, if it was ever anybody's without transactions.
    pub(crate) owner: Option<u64>,
    /// The last of the commits was written before its rows, and those are behind these places, as far as they are out.
    pub(crate) doubt: Option<Vec<Place>>,
}

impl Told {
    fn epoch(&self) -> u64 {
        let last = self.commits.last().or(self.snapshot.as_ref().map(|snapshot| &snapshot.after));
        last.map_or(0, |last| last.epoch)
    }
}

/// In the topic a commit is about one partition; among so many given to a process it is a shard's.
pub(crate) fn spread(commit: Commit, shard: u32, given: usize, stages: usize) -> Commit {
    let mut cut = vec![Mark::default(); given * stages];
    for (stage, mark) in commit.cut.iter().take(stages).enumerate() {
        cut[shard as usize * stages + stage] = *mark;
    }
    let merges = commit.merges.into_iter().map(|merge| Merge { partition: shard, ..merge }).collect();
    Commit { shard, cut, merges, ..commit }
}

/// The reverse of [`spread`].
pub(crate) fn alone(commit: &Commit, stages: usize) -> Commit {
    let from = commit.shard as usize * stages;
    let cut = commit.cut[from..from + stages].to_vec();
    let merges = commit.merges.iter().map(|merge| Merge { partition: 0, ..*merge }).collect();
    Commit { shard: 0, cut, merges, ..commit.clone() }
}

/// A snapshot of the keys that are open after a commit, in messages.
pub(crate) fn snapshot<'a>(keys: &'a [u8], commit: &Commit) -> Vec<Entry<'a>> {
    let pieces = (0_u32..).zip(keys.chunks(PIECE));
    let mut entries: Vec<_> =
        pieces.map(|(number, piece)| Entry::Piece(commit.epoch, number, piece)).collect();
    let pieces = entries.len() as u32;
    entries.push(Entry::End(pieces, Commit { merges: Vec::new(), ..commit.clone() }));
    entries
}

/// Where a partition is read on from after a commit: its group's offset.
pub(crate) fn read_on_from(commit: &Commit) -> u64 {
    commit.cut.iter().map(|mark| mark.offset).min().unwrap_or(0)
}

/// Reads what is committed of a partition, up to the commit that the group's offset is of, and to where it became ours.
pub(crate) fn read(
    cluster: &Cluster,
    group: &Group,
    partition: i32,
    shard: u32,
    given: usize,
    stages: usize,
    owner: Option<u64>,
) -> Result<Told, Error> {
    let offset = group.offset(&cluster.topics.source, partition)?;
    let until = Instant::now() + PATIENCE;
    loop {
        let told = read_once(cluster, partition, shard, given, stages, owner)?;
        let last = told.commits.last().or(told.snapshot.as_ref().map(|snapshot| &snapshot.after));
        let from = shard as usize * stages;
        let cut = last.and_then(|last| last.cut[from..from + stages].iter().min()).map(|mark| mark.offset);
        // The transaction's markers are not in all partitions at the same moment.
        let is_ours = owner.is_none() || owner == told.owner;
        if is_ours && cut.unwrap_or(0) >= offset.unwrap_or(0) {
            return Ok(told);
        }
        if Instant::now() >= until {
            return Err(Error::Request(format!(
                "Kafka: the group is at {offset:?} of partition {partition} of {}, and {} only at {cut:?}: have messages of \
                 it been deleted?",
                cluster.topics.source, cluster.topics.commits
            )));
        }
    }
}

fn read_once(
    cluster: &Cluster,
    partition: i32,
    shard: u32,
    given: usize,
    stages: usize,
    ours: Option<u64>,
) -> Result<Told, Error> {
    let topic = &cluster.topics.commits;
    let consumer: BaseConsumer = cluster.reader()?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Beginning).map_err(failed("read the commits"))?;
    consumer.assign(&list).map_err(failed("read the commits"))?;
    let (mut told, mut keys, mut pieces) = (Told::default(), Vec::new(), 0);
    let began = Instant::now();
    loop {
        let message = match consumer.poll(PATIENCE / 10) {
            Some(Ok(message)) => message,
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(told),
            // A broker that is away may come back.
            Some(Err(_)) | None if began.elapsed() < PATIENCE => continue,
            Some(Err(error)) => return Err(failed("read the commits")(error)),
            None => return Err(Error::Request(format!("Kafka: nothing is heard of {topic}"))),
        };
        let odd = || {
            let offset = message.offset();
            Error::Request(format!(
                "Kafka: message {offset} of {topic}, partition {partition}, is not one of ours"
            ))
        };
        let entry = Entry::decode(message.payload().unwrap_or_default()).map_err(|Malformed| odd())?;
        let (entry, is_alone) = match entry {
            Entry::By(owner, entry) if told.owner == Some(owner) => (*entry, true),
            Entry::By(..) => continue,
            entry => (entry, false),
        };
        match entry {
            Entry::Owner(owner) if ours.is_some() && told.owner == ours && ours != Some(owner) => {
                return Err(Error::Fenced(format!("partition {partition} of {topic} is another's by now")));
            }
            Entry::Owner(owner) => {
                // What another had begun to write down stays unfinished.
                (told.owner, keys, pieces) = (Some(owner), Vec::new(), 0);
            }
            Entry::Commit(commit) | Entry::Decided(_, commit)
                if commit.epoch != told.epoch() + 1 || commit.cut.len() != stages =>
            {
                return Err(odd());
            }
            Entry::Commit(commit) => {
                told.commits.push(spread(commit, shard, given, stages));
                told.doubt = None;
            }
            Entry::Decided(places, commit) => {
                told.commits.push(spread(commit, shard, given, stages));
                told.doubt = Some(places);
            }
            Entry::Piece(_, number, piece) => {
                if number == 0 {
                    (keys, pieces) = (Vec::new(), 0);
                }
                if number == pieces {
                    keys.extend_from_slice(piece);
                    pieces += 1;
                } else if !is_alone {
                    return Err(odd());
                }
            }
            // Without a transaction a piece may be missing: then there is one snapshot less.
            Entry::End(wanted, _) if is_alone && wanted != pieces => {}
            Entry::End(wanted, after) => {
                if wanted != pieces || after.cut.len() != stages {
                    return Err(odd());
                }
                told.commits.retain(|commit| commit.epoch > after.epoch);
                if told.commits.is_empty() {
                    told.doubt = None;
                }
                let after = spread(after, shard, given, stages);
                told.snapshot = Some(Snapshot { after, bytes: std::mem::take(&mut keys) });
            }
            Entry::By(..) => unreachable!("it has been opened"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_as_they_were_written() {
        let commit = Commit { epoch: 7, cut: vec![Mark { offset: 3, byte: 0 }; 3], ..Commit::default() };
        let place = Place { topic: 1, partition: 2, next: 3 };
        let by = |entry: Entry<'static>| Entry::By(11, Box::new(entry));
        for entry in [
            Entry::Commit(commit.clone()),
            Entry::Piece(7, 1, b"keys"),
            Entry::End(2, commit.clone()),
            Entry::Owner(11),
            by(Entry::Piece(7, 1, b"keys")),
            by(Entry::Decided(vec![place; 3], commit)),
        ] {
            assert_eq!(Entry::decode(&entry.encode()), Ok(entry));
        }
        assert_eq!(Entry::decode(&by(by(Entry::Owner(1))).encode()), Err(Malformed));
        assert_eq!(Entry::decode(b"?"), Err(Malformed));
    }

    #[test]
    fn a_partition_alone_and_among_others_are_the_same() {
        let cut: Vec<Mark> = (0..3).map(|n| Mark { offset: n, byte: 0 }).collect();
        let merges = vec![Merge { partition: 0, stage: 1, until: Mark { offset: 9, byte: 0 } }];
        let commit = Commit { epoch: 7, cut, merges, ..Commit::default() };
        let among = spread(commit.clone(), 2, 4, 3);
        assert_eq!((among.cut.len(), among.cut[7].offset, among.merges[0].partition), (12, 1, 2));
        assert_eq!(alone(&among, 3), commit);
    }
}
