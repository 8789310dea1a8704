//! Is a log's sink right? An answer that owes nothing to the code that writes logs.
//!
//! The format is read anew here, from its description, with a checksum of its own; what the rows should be comes from the
//! seed. Only what commits declare counts, as for any reader of the log. Count, uniqueness, every payload, and the sums.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::{error::Error, memory, report::count};

const STAGES: usize = memory::STAGES;

/// How the rows of a log differ from what the seed says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Audit {
    /// Messages that should be there.
    pub(crate) wanted: u64,
    /// Rows that are there.
    pub(crate) rows: u64,
    /// Messages that are there once, with what they should say.
    pub(crate) right: u64,
    /// Messages that are not there.
    pub(crate) lost: u64,
    /// Messages that are there once more than they should.
    pub(crate) doubled: u64,
    /// Messages that nobody sent.
    pub(crate) invented: u64,
    /// Rows in another partition than their key's.
    pub(crate) misplaced: u64,
    /// For each stage the sum of its payloads is what it should be.
    pub(crate) sums: bool,
}

impl Audit {
    /// Nothing differs.
    pub(crate) fn is_exact(&self) -> bool {
        self.lost + self.doubled + self.invented + self.misplaced == 0 && self.sums
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        json!({
            "exact": self.is_exact(),
            "rows": self.rows,
            "messages_right": self.right,
            "messages_lost": self.lost,
            "messages_doubled": self.doubled,
            "messages_invented": self.invented,
            "rows_misplaced": self.misplaced,
            "sums_right": self.sums,
        })
    }
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Audit { rows, lost, doubled, invented, misplaced, .. } = self;
        if self.is_exact() {
            let (rows, right) = (count(*rows), count(self.right));
            return write!(
                f,
                "exact: {rows} rows in the log hold what the seed says, {right} messages, every one once"
            );
        }
        let sums = if self.sums { "right" } else { "wrong" };
        write!(
            f,
            "WRONG: {} messages right, {lost} lost, {doubled} doubled, {invented} invented, {misplaced} rows misplaced, \
             sums {sums}",
            self.right
        )
    }
}

/// What a log is of.
struct Streams {
    seed: u64,
    messages: u64,
    partitions: usize,
}

/// Reads what is committed in a log of the main job's streams.
pub(crate) fn audit(dir: &Path) -> Result<Audit, Error> {
    let about = dir.join("log.json");
    let text = fs::read(&about).map_err(Error::file("read", &about))?;
    let said: Value = serde_json::from_slice(&text).unwrap_or_default();
    let number = |field: &str| said["job"][field].as_u64();
    let streams = || {
        let partitions = usize::try_from(number("partitions")?).ok()?;
        Some(Streams { seed: number("seed")?, messages: number("messages")?, partitions })
    };
    let Some(streams) = streams() else {
        let about = about.display();
        return Err(Error::Request(format!("{about} is not about streams that are made from a seed")));
    };
    if said["format"].as_u64() != Some(FORMAT.into()) {
        return Err(other_version(&about, &said["format"]));
    }
    let Some(log) = said["log"].as_str().and_then(|hex| u64::from_str_radix(hex, 16).ok()) else {
        return Err(damaged(&about, 0, "it does not say which log it is"));
    };
    let mut ends = vec![(0, 0, 0); streams.partitions];
    let commits = segments(&dir.join("commits"))?;
    for (n, path) in commits.iter().enumerate() {
        let bytes = fs::read(path).map_err(Error::file("read", path))?;
        let is_last = n + 1 == commits.len();
        if is_last && bytes.len() < HEAD {
            // It was being made.
            break;
        }
        head(path, &bytes, log, 3, 0)?;
        let mut frames = Frames::of(&bytes);
        for (_, _, entry) in &mut frames {
            declared(entry, &mut ends);
        }
        // The last one may be torn. If there are more behind it, it is not the last.
        let is_torn = is_last && !Frames::are_in(&bytes[(frames.at + 1).min(bytes.len())..]);
        if frames.at < bytes.len() && !is_torn {
            return Err(damaged(path, frames.at, "no sound frame begins here"));
        }
    }
    let mut check = Check::new(&streams);
    for (partition, end) in ends.into_iter().enumerate() {
        check.partition(&dir.join(format!("sink-{partition:02}")), log, partition, end)?;
    }
    Ok(check.verdict())
}

/// The version that is read here.
const FORMAT: u32 = 1;

/// Bytes before a segment's first frame.
const HEAD: usize = 40;

fn damaged(path: &Path, offset: usize, why: &str) -> Error {
    Error::Corrupt { path: path.to_owned(), offset: offset as u64, why: why.to_owned() }
}

fn other_version(path: &Path, version: &dyn fmt::Display) -> Error {
    Error::Request(format!("{} is of version {version}; version {FORMAT} is read here", path.display()))
}

/// A segment says what it is: of this log, of this kind and partition, and beginning where its name says.
fn head(path: &Path, bytes: &[u8], log: u64, kind: u32, partition: usize) -> Result<(), Error> {
    let sound = |bytes: &[u8]| (u32_at(bytes, 36) == Some(Crc::new().of(&[&bytes[..36]]))).then_some(());
    let said = bytes.get(..HEAD).filter(|head| head[..8] == *b"corrlog\n").and_then(|head| {
        sound(head)?;
        Some((u32_at(head, 8)?, u32_at(head, 12)?, u32_at(head, 16)?, u64_at(head, 20)?, u64_at(head, 28)?))
    });
    let first = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok()).unwrap_or(u64::MAX);
    match said {
        Some((FORMAT, ..)) if said == Some((FORMAT, kind, partition as u32, log, first)) => Ok(()),
        Some((FORMAT, ..)) => Err(damaged(path, 0, "its head is that of another file or log")),
        Some((version, ..)) => Err(other_version(path, &version)),
        None => Err(damaged(path, 0, "it does not begin with a sound head")),
    }
}

fn segments(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut paths = Vec::new();
    if !dir.exists() {
        return Ok(paths);
    }
    for entry in fs::read_dir(dir).map_err(Error::file("read folder", dir))? {
        paths.push(entry.map_err(Error::file("read folder", dir))?.path());
    }
    paths.retain(|path| path.extension().is_some_and(|end| end == "seg"));
    paths.sort();
    Ok(paths)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// The beginning of every frame.
const MARK: [u8; 4] = [0xf7, 0x63, 0x66, 0x1a];

/// The frames of a segment: first message, messages, bytes. Ends before the first that is not sound.
struct Frames<'a> {
    bytes: &'a [u8],
    at: usize,
    crc: Crc,
}

impl<'a> Frames<'a> {
    fn of(bytes: &'a [u8]) -> Frames<'a> {
        Frames { bytes, at: HEAD, crc: Crc::new() }
    }

    /// Whether a sound frame is anywhere in the bytes.
    fn are_in(bytes: &'a [u8]) -> bool {
        let mut frames = Frames { bytes, at: 0, crc: Crc::new() };
        (0..bytes.len()).any(|at| {
            frames.at = at;
            bytes[at..].starts_with(&MARK) && frames.next().is_some()
        })
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = (u64, u32, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let head = self.bytes.get(self.at..self.at + 24)?;
        let (len, messages, first) = (u32_at(head, 4)? as usize, u32_at(head, 8)?, u64_at(head, 12)?);
        let body = self.bytes.get(self.at + 24..self.at + 24 + len)?;
        if head[..4] != MARK || self.crc.of(&[&head[..20], body]) != u32_at(head, 20)? {
            return None;
        }
        self.at += 24 + len;
        Some((first, messages, body))
    }
}

/// The checksum of Ethernet, PNG and zip, eight bytes at a time.
struct Crc([[u32; 256]; 8]);

impl Crc {
    fn new() -> Crc {
        let mut tables = [[0; 256]; 8];
        for (n, crc) in tables[0].iter_mut().enumerate() {
            let bit = |crc: u32, _| if crc & 1 == 1 { 0xedb8_8320 ^ (crc >> 1) } else { crc >> 1 };
            *crc = (0..8).fold(n as u32, bit);
        }
        for n in 0..256 {
            for table in 1..8 {
                let before = tables[table - 1][n];
                tables[table][n] = tables[0][(before & 0xff) as usize] ^ (before >> 8);
            }
        }
        Crc(tables)
    }

    fn of(&self, parts: &[&[u8]]) -> u32 {
        let Crc(tables) = self;
        let mut crc = u32::MAX;
        for part in parts {
            let (eights, rest) = part.as_chunks::<8>();
            for eight in eights {
                let n = u64::from_le_bytes(*eight) ^ u64::from(crc);
                crc = (0..8).fold(0, |crc, byte| crc ^ tables[7 - byte][(n >> (8 * byte)) as usize & 0xff]);
            }
            for byte in rest {
                crc = tables[0][((crc ^ u32::from(*byte)) & 0xff) as usize] ^ (crc >> 8);
            }
        }
        !crc
    }
}

/// Notes where an entry of `commits/` says that partitions end: messages, segment, bytes.
fn declared(entry: &[u8], ends: &mut [(u64, u64, u64)]) -> Option<()> {
    if *entry.first()? != 1 {
        return None;
    }
    // Kind, starts, shard, epoch, milliseconds and six sums; then the cut, the merges, and the ends.
    let mut at = 1 + 4 + 4 + 8 + 8 + 6 * 8;
    at += 4 + u32_at(entry, at)? as usize * 16;
    at += 4 + u32_at(entry, at)? as usize * 24;
    let files = u32_at(entry, at)? as usize;
    for file in entry.get(at + 4..)?.chunks_exact(28).take(files) {
        let end = ends.get_mut(u32_at(file, 0)? as usize)?;
        *end = (u64_at(file, 4)?, u64_at(file, 12)?, u64_at(file, 20)?);
    }
    Some(())
}

/// What has been seen.
struct Check<'a> {
    streams: &'a Streams,
    seen: Vec<u8>,
    sums: [u64; STAGES],
    audit: Audit,
}

impl Check<'_> {
    fn new(streams: &Streams) -> Check<'_> {
        let seen = vec![0; streams.messages as usize];
        let wanted = streams.messages * STAGES as u64;
        Check { streams, seen, sums: [0; STAGES], audit: Audit { wanted, ..Audit::default() } }
    }

    fn partition(&mut self, dir: &Path, log: u64, number: usize, end: (u64, u64, u64)) -> Result<(), Error> {
        let (messages, segment, bytes) = end;
        let mut next = 0;
        for path in segments(dir)? {
            let first = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok()).unwrap_or(u64::MAX);
            if first > segment || bytes == 0 {
                continue;
            }
            let mut text = fs::read(&path).map_err(Error::file("read", &path))?;
            if first == segment {
                text.truncate(bytes as usize);
            }
            head(&path, &text, log, 2, number)?;
            let mut frames = Frames::of(&text);
            loop {
                let at = frames.at;
                let Some((first, rows, body)) = frames.next() else { break };
                if first != next {
                    return Err(damaged(
                        &path,
                        at,
                        &format!("row {first} is here where row {next} should be"),
                    ));
                }
                next += u64::from(rows);
                body.chunks_exact(memory::ROW).for_each(|row| self.row(row, number));
            }
            if frames.at < text.len() {
                return Err(damaged(&path, frames.at, "no sound frame begins here"));
            }
            if first == segment && text.len() < bytes as usize {
                let why = format!("it ends here, and {bytes} bytes of it were committed");
                return Err(damaged(&path, text.len(), &why));
            }
        }
        if next != messages {
            let why = format!("{messages} rows were committed, and {next} of them are here");
            return Err(damaged(dir, 0, &why));
        }
        Ok(())
    }

    fn row(&mut self, row: &[u8], partition: usize) {
        let customer = u64_at(row, 0).unwrap_or_default();
        self.audit.rows += 1;
        self.audit.misplaced += u64::from(memory::place(customer, self.streams.partitions) != partition);
        for stage in 0..STAGES {
            let payload = u64_at(row, 8 + 8 * stage).unwrap_or_default();
            self.sums[stage] = self.sums[stage].wrapping_add(payload);
            let seen = customer.checked_sub(1).and_then(|at| self.seen.get_mut(at as usize));
            match seen {
                Some(seen) if memory::payload(self.streams.seed, stage as u8, customer) == payload => {
                    let bit = 1 << stage;
                    self.audit.doubled += u64::from(*seen & bit != 0);
                    *seen |= bit;
                }
                _ => self.audit.invented += 1,
            }
        }
    }

    fn verdict(mut self) -> Audit {
        let Streams { seed, messages, .. } = *self.streams;
        self.audit.right = self.seen.iter().map(|seen| u64::from(seen.count_ones())).sum();
        self.audit.lost = self.audit.wanted - self.audit.right;
        self.audit.sums = (0..STAGES).all(|stage| {
            let payloads = (1..=messages).map(|customer| memory::payload(seed, stage as u8, customer));
            payloads.fold(0, u64::wrapping_add) == self.sums[stage]
        });
        self.audit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_one_of_the_log() {
        let crc = Crc::new();
        for bytes in [&b""[..], b"123456789", b"a", &[0; 100], &[0xff; 77]] {
            assert_eq!(crc.of(&[bytes]), crc32fast::hash(bytes));
        }
        assert_eq!(crc.of(&[b"1234567", b"89"]), 0xcbf4_3926);
    }
}
