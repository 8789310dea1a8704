//! Frames: so many messages, where they stand in their partition, and a checksum over all of it.
//!
//! ```text
//!   segment   magic "corrlog\n" · version u32 · kind u32 · partition u32 · log u64 · first u64 · crc u32
//!   frame     mark u32 · bytes u32 · messages u32 · first u64 · crc u32 · bytes
//! ```
//!
//! All numbers are little-endian. `first` is how many messages of the partition come before: a frame that is missing is
//! noticed even where both its neighbours are sound.

use crate::log::code::{Reader, Writer};

/// What is written now; another version is refused.
pub(crate) const VERSION: u32 = 1;

/// The beginning of every segment.
const MAGIC: &[u8; 8] = b"corrlog\n";

/// Bytes of a segment's head.
pub(crate) const SEGMENT_HEAD: usize = 8 + 4 + 4 + 4 + 8 + 8 + 4;

/// The beginning of every frame.
pub(crate) const MARK: [u8; 4] = [0xf7, b'c', b'f', 0x1a];

/// Bytes of a frame's head.
pub(crate) const FRAME_HEAD: usize = 4 + 4 + 4 + 8 + 4;

/// No frame is longer.
pub(crate) const LONGEST: usize = 1 << 30;

/// What a segment is a part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHead {
    /// Source, sink, commits or snapshot.
    pub(crate) kind: u32,
    /// Of which partition.
    pub(crate) partition: u32,
    /// Of which log: parts of another do not belong here.
    pub(crate) log: u64,
    /// Messages before it.
    pub(crate) first: u64,
}

/// Why the head of a segment is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadHead {
    /// Not enough bytes.
    Short,
    /// Something else.
    Foreign,
    /// Another version of the format.
    Version(u32),
    /// The checksum says that it was changed.
    Damaged,
}

impl SegmentHead {
    /// As bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Writer(MAGIC.to_vec());
        bytes.u32(VERSION);
        bytes.u32(self.kind);
        bytes.u32(self.partition);
        bytes.u64(self.log);
        bytes.u64(self.first);
        let crc = crc32fast::hash(&bytes.0);
        bytes.u32(crc);
        bytes.0
    }

    /// From bytes.
    pub(crate) fn decode(bytes: &[u8]) -> Result<SegmentHead, BadHead> {
        let short = |_| BadHead::Short;
        let mut reader = Reader(bytes.get(..SEGMENT_HEAD).ok_or(BadHead::Short)?);
        if reader.take(8).map_err(short)? != MAGIC {
            return Err(BadHead::Foreign);
        }
        let version = reader.u32().map_err(short)?;
        let (kind, partition) = (reader.u32().map_err(short)?, reader.u32().map_err(short)?);
        let (log, first) = (reader.u64().map_err(short)?, reader.u64().map_err(short)?);
        let crc = reader.u32().map_err(short)?;
        let is_sound = crc == crc32fast::hash(&bytes[..SEGMENT_HEAD - 4]);
        match (is_sound, version) {
            (true, VERSION) => Ok(SegmentHead { kind, partition, log, first }),
            (true, other) => Err(BadHead::Version(other)),
            (false, _) => Err(BadHead::Damaged),
        }
    }
}

/// A frame, as it lies in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    /// Messages of the partition before it.
    pub(crate) first: u64,
    /// Messages in it.
    pub(crate) messages: u32,
    /// What they are.
    pub(crate) bytes: &'a [u8],
}

/// Why there is no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadFrame {
    /// The bytes end before the frame does.
    Short,
    /// No frame begins here.
    Unmarked,
    /// It claims to be longer than any frame is.
    TooLong(u32),
    /// The checksum says that it was changed.
    Damaged,
}

impl std::fmt::Display for BadFrame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BadFrame::Short => f.write_str("it is cut short"),
            BadFrame::Unmarked => f.write_str("no frame begins here"),
            BadFrame::TooLong(bytes) => write!(f, "it claims to have {bytes} bytes"),
            BadFrame::Damaged => f.write_str("its checksum is wrong"),
        }
    }
}

impl<'a> Frame<'a> {
    /// How many bytes it takes.
    pub(crate) fn len(&self) -> usize {
        FRAME_HEAD + self.bytes.len()
    }

    /// Appends it.
    pub(crate) fn encode(&self, into: &mut Vec<u8>) {
        let start = into.len();
        into.extend_from_slice(&MARK);
        into.extend_from_slice(&(self.bytes.len() as u32).to_le_bytes());
        into.extend_from_slice(&self.messages.to_le_bytes());
        into.extend_from_slice(&self.first.to_le_bytes());
        let mut crc = crc32fast::Hasher::new();
        crc.update(&into[start..]);
        crc.update(self.bytes);
        into.extend_from_slice(&crc.finalize().to_le_bytes());
        into.extend_from_slice(self.bytes);
    }

    /// How many bytes the frame takes whose head this is, if it can be one.
    pub(crate) fn announced(head: &[u8]) -> Result<usize, BadFrame> {
        let mut reader = Reader(head);
        let mark = reader.take(4).map_err(|_| BadFrame::Short)?;
        let bytes = reader.u32().map_err(|_| BadFrame::Short)?;
        if mark != MARK {
            return Err(BadFrame::Unmarked);
        }
        if bytes as usize > LONGEST {
            return Err(BadFrame::TooLong(bytes));
        }
        Ok(FRAME_HEAD + bytes as usize)
    }

    /// The frame at the beginning of these bytes.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Frame<'a>, BadFrame> {
        let len = Frame::announced(bytes)?;
        let whole = bytes.get(..len).ok_or(BadFrame::Short)?;
        let (head, bytes) = whole.split_at(FRAME_HEAD);
        let short = |_| BadFrame::Short;
        let mut reader = Reader(&head[8..]);
        let messages = reader.u32().map_err(short)?;
        let first = reader.u64().map_err(short)?;
        let wanted = reader.u32().map_err(short)?;
        let mut crc = crc32fast::Hasher::new();
        crc.update(&head[..FRAME_HEAD - 4]);
        crc.update(bytes);
        if crc.finalize() != wanted {
            return Err(BadFrame::Damaged);
        }
        Ok(Frame { first, messages, bytes })
    }

    /// Whether a sound frame begins anywhere in these bytes: then what is before it is no torn tail.
    pub(crate) fn is_any_in(bytes: &[u8]) -> bool {
        memchr::memmem::find_iter(bytes, &MARK).any(|at| Frame::decode(&bytes[at..]).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn frames(random: &mut Random, n: u64) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut ends, mut first) = (Vec::new(), Vec::new(), 0);
        for _ in 0..n {
            let payload: Vec<u8> = (0..random.below(40)).map(|_| random.next() as u8).collect();
            Frame { first, messages: 3, bytes: &payload }.encode(&mut bytes);
            ends.push(bytes.len());
            first += 3;
        }
        (bytes, ends)
    }

    #[test]
    fn what_is_written_is_read() {
        let head = SegmentHead { kind: 2, partition: 11, log: 77, first: u64::MAX };
        assert_eq!(SegmentHead::decode(&head.encode()), Ok(head));
        let mut bytes = Vec::new();
        Frame { first: 5, messages: 2, bytes: b"ab" }.encode(&mut bytes);
        assert_eq!(Frame::decode(&bytes), Ok(Frame { first: 5, messages: 2, bytes: b"ab" }));
    }

    #[test]
    fn another_version_is_known_for_one() {
        let mut bytes = SegmentHead { kind: 1, partition: 0, log: 1, first: 0 }.encode();
        bytes[8] = 9;
        let crc = crc32fast::hash(&bytes[..SEGMENT_HEAD - 4]);
        bytes[SEGMENT_HEAD - 4..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(SegmentHead::decode(&bytes), Err(BadHead::Version(9)));
    }

    #[test]
    fn no_flipped_bit_goes_unnoticed() {
        let (bytes, ends) = frames(&mut Random::new(1), 1);
        let head = SegmentHead { kind: 1, partition: 2, log: 3, first: 4 }.encode();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Frame::decode(&flipped).is_err(), "bit {bit} of {}", ends[0]);
        }
        for bit in 0..head.len() * 8 {
            let mut flipped = head.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHead::decode(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn any_bytes_are_read_without_a_panic() {
        let mut random = Random::new(9);
        for _ in 0..20_000 {
            let mut bytes: Vec<u8> = (0..random.below(80)).map(|_| random.next() as u8).collect();
            if random.below(2) == 0 && bytes.len() >= 4 {
                bytes[..4].copy_from_slice(&MARK);
            }
            assert!(Frame::decode(&bytes).is_err());
            let _ = (SegmentHead::decode(&bytes), Frame::is_any_in(&bytes));
        }
    }
}
