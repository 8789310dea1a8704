//! Files as partitions: read block by block, never as a whole, and each line known by its number.
//!
//! A block stays with its partition until it is handed on. What cannot be read as a line at all (too long, cut short) is
//! in the block as [`Broken`]; what can be read and makes no sense is found out later, by [`Record`](crate::record).

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Read, Seek, SeekFrom},
    mem,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use csv::ByteRecord;
use flate2::read::MultiGzDecoder;

use crate::{
    error::Error,
    log::Mark,
    record::{Fields, Header},
};

/// Bytes that are read at a time, and records of CSV.
const BLOCK: usize = 1 << 17;

/// Of a line that is too long, so much goes into the rejects.
const EXCERPT: usize = 1 << 10;

/// A file to be read.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Its name.
    pub(crate) name: String,
    /// Its length on disk.
    pub(crate) bytes: u64,
    form: Form,
    packed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Ndjson,
    Csv,
}

/// What a folder holds.
#[derive(Debug)]
pub(crate) struct Folder {
    /// Files to be read, by name.
    pub(crate) sources: Vec<Source>,
    /// Names of files that are not, by name.
    pub(crate) others: Vec<String>,
}

impl Folder {
    /// Looks into a folder. Files whose name begins with a dot, and folders, are passed over.
    pub(crate) fn open(dir: &Path) -> Result<Folder, Error> {
        let (mut sources, mut others) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(dir).map_err(Error::file("read folder", dir))? {
            let path = entry.map_err(Error::file("read folder", dir))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let about = fs::metadata(&path).map_err(Error::file("read", &path))?;
            if name.starts_with('.') || !about.is_file() {
                continue;
            }
            let (stem, packed) = name.strip_suffix(".gz").map_or((&*name, false), |stem| (stem, true));
            let form = match stem.rsplit_once('.') {
                Some((_, "ndjson")) => Form::Ndjson,
                Some((_, "csv")) => Form::Csv,
                _ => {
                    others.push(name);
                    continue;
                }
            };
            sources.push(Source { path, bytes: about.len(), form, packed, name });
        }
        sources.sort_by(|a, b| a.name.cmp(&b.name));
        others.sort();
        if sources.is_empty() {
            let dir = dir.display();
            return Err(Error::Request(format!(
                "{dir} holds no *.ndjson, *.ndjson.gz or *.csv file, so there is nothing to join"
            )));
        }
        Ok(Folder { sources, others })
    }
}

/// A line that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    /// Its number, counted from one.
    pub(crate) line: u64,
    /// What is wrong with it.
    pub(crate) why: String,
    /// The line, or the beginning of it.
    pub(crate) text: Vec<u8>,
}

/// Some lines or records, one after another.
#[derive(Debug)]
pub(crate) struct Block {
    /// What can be read.
    pub(crate) text: Text,
    /// What cannot.
    pub(crate) broken: Vec<Broken>,
}

/// The form of a block.
#[derive(Debug)]
pub(crate) enum Text {
    /// Whole lines, the first of this number.
    Lines { first: u64, bytes: Vec<u8> },
    /// Records below one header, and their text as it came.
    Csv { header: Arc<Header>, records: Vec<CsvRecord>, raw: Vec<u8> },
}

/// A record of CSV.
#[derive(Debug)]
pub(crate) struct CsvRecord {
    /// The number of its first line.
    pub(crate) line: u64,
    /// Where its text is in the block, without the end of its last line.
    pub(crate) raw: Range<usize>,
    /// Its fields.
    pub(crate) fields: ByteRecord,
}

/// How files are read.
#[derive(Clone, Debug)]
pub(crate) struct Manner {
    /// Where stage and key are.
    pub(crate) fields: Fields,
    /// A longer line is broken.
    pub(crate) longest: usize,
    /// Counts the bytes that came from the files.
    pub(crate) bytes: Arc<AtomicU64>,
    /// Counts the files that ended before they should.
    pub(crate) cut_short: Arc<AtomicU64>,
}

/// A file, and how far it has been read.
#[derive(Debug)]
pub(crate) struct Partition {
    source: Source,
    state: State,
    /// How fast it is read among others.
    pub(crate) pace: Pace,
    /// What has been read and not handed on.
    pub(crate) block: Option<Block>,
    /// Where that ends.
    mark: Mark,
    /// Whether its damage has been counted.
    is_counted: bool,
}

/// The byte of a mark behind which nothing can be read: without it the damage would be read again from there.
const BEHIND_DAMAGE: u64 = u64::MAX;

/// Spreads a file's blocks evenly over as many turns as the longest file has blocks.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    blocks: u64,
    turns: u64,
    turn: u64,
}

impl Pace {
    /// How many blocks are read in the next turn.
    pub(crate) fn next_turn(&mut self) -> u64 {
        if self.turn >= self.turns {
            return 1;
        }
        let until = |turn: u64| u128::from(turn) * u128::from(self.blocks) / u128::from(self.turns);
        let blocks = until(self.turn + 1) - until(self.turn);
        self.turn += 1;
        blocks as u64
    }
}

enum State {
    Closed,
    Lines(Lines),
    Csv(Box<Csv>),
    Ended,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            State::Closed => "closed",
            State::Lines(_) => "lines",
            State::Csv(_) => "records",
            State::Ended => "ended",
        })
    }
}

impl Partition {
    /// A file of which nothing has been read; it is opened when it is its turn.
    pub(crate) fn new(source: Source) -> Partition {
        let (state, mark) = (State::Closed, Mark::default());
        Partition { source, state, pace: Pace::default(), block: None, mark, is_counted: false }
    }

    /// Where the block ends that lies ready: lines before it, and bytes after the byte order mark.
    pub(crate) fn mark(&self) -> Mark {
        self.mark
    }

    /// Goes on at a mark. What is read from there comes in the same blocks as before.
    pub(crate) fn seek(&mut self, mark: Mark) {
        (self.state, self.mark, self.block) = (State::Closed, mark, None);
        let blocks = mark.byte.min(self.source.bytes.saturating_mul(6)) / BLOCK as u64;
        self.pace.turn =
            (blocks * self.pace.turns).checked_div(self.pace.blocks).unwrap_or(0).min(self.pace.turns);
    }

    /// Files that are read in step: at any time about the same part of each has been read, so that all end together.
    pub(crate) fn in_step(sources: &[Source]) -> Vec<Partition> {
        // Packed text is about so much longer; if it is more, the rest is read when the others are through.
        let blocks = |source: &Source| 1 + source.bytes * if source.packed { 6 } else { 1 } / BLOCK as u64;
        let turns = sources.iter().map(blocks).max().unwrap_or(1);
        let pace = |source| Pace { blocks: blocks(source), turns, turn: 0 };
        sources
            .iter()
            .map(|source| Partition { pace: pace(source), ..Partition::new(source.clone()) })
            .collect()
    }

    /// The file's name.
    pub(crate) fn name(&self) -> &str {
        &self.source.name
    }

    /// Sees to it that there is a block; `false` at the end.
    pub(crate) fn fill(&mut self, manner: &Manner) -> Result<bool, Error> {
        if self.block.is_some() {
            return Ok(true);
        }
        let failed = Error::file("read", &self.source.path);
        let block = match &mut self.state {
            State::Closed if self.mark.byte == BEHIND_DAMAGE => None,
            State::Closed => {
                self.state = open(&self.source, self.mark, manner).map_err(failed)?;
                return self.fill(manner);
            }
            State::Lines(lines) => {
                let block = lines.next(manner).map_err(failed)?;
                self.mark = lines.mark();
                block
            }
            State::Csv(records) => {
                let block = records.next(manner).map_err(failed)?;
                self.mark = records.mark();
                block
            }
            State::Ended => None,
        };
        if self.mark.byte == BEHIND_DAMAGE && !mem::replace(&mut self.is_counted, true) {
            manner.cut_short.fetch_add(1, Relaxed);
        }
        if block.is_none() {
            self.state = State::Ended;
        }
        self.block = block;
        Ok(self.block.is_some())
    }
}

fn open(source: &Source, from: Mark, manner: &Manner) -> io::Result<State> {
    Ok(match source.form {
        Form::Ndjson => State::Lines(Lines::new(input(source, from.byte, manner)?, from)),
        Form::Csv if from == Mark::default() => {
            State::Csv(Box::new(Csv::new(input(source, 0, manner)?, manner)))
        }
        Form::Csv => {
            // The header is where it was.
            let quiet = Manner { bytes: Arc::default(), cut_short: Arc::default(), ..manner.clone() };
            let header = Csv::new(input(source, 0, &quiet)?, manner).header(&quiet)?;
            let rest = Csv::new(input(source, from.byte, manner)?, manner);
            State::Csv(Box::new(Csv { header, base: from.byte, line: from.offset + 1, ..rest }))
        }
    })
}

/// A file's text from a byte on; a byte order mark is no part of it.
fn input(source: &Source, from: u64, manner: &Manner) -> io::Result<WithoutMark> {
    let mut file = File::open(&source.path)?;
    if from > 0 && !source.packed {
        let mut start = Vec::new();
        Read::by_ref(&mut file).take(MARK.len() as u64).read_to_end(&mut start)?;
        let mark = if start == MARK { MARK.len() as u64 } else { 0 };
        file.seek(SeekFrom::Start(from + mark))?;
        manner.bytes.fetch_add(from + mark, Relaxed);
        let input = Box::new(Counted { file, bytes: Arc::clone(&manner.bytes) });
        return Ok(WithoutMark { input, start: Vec::new(), begun: true });
    }
    let input = Counted { file, bytes: Arc::clone(&manner.bytes) };
    let input: Box<dyn Read + Send> = if source.packed {
        Box::new(MultiGzDecoder::new(io::BufReader::new(input)))
    } else {
        Box::new(input)
    };
    let mut input = WithoutMark { input, start: Vec::new(), begun: false };
    // What is packed can only be unpacked from its beginning.
    io::copy(&mut Read::by_ref(&mut input).take(from), &mut io::sink())?;
    Ok(input)
}

/// Says whether an error is about what is in the file, rather than about the file.
fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::InvalidInput | ErrorKind::UnexpectedEof)
}

/// Counts what is read.
struct Counted {
    file: File,
    bytes: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(into)?;
        self.bytes.fetch_add(n as u64, Relaxed);
        Ok(n)
    }
}

/// The byte order mark.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// Leaves out a byte order mark at the start.
struct WithoutMark {
    input: Box<dyn Read + Send>,
    start: Vec<u8>,
    begun: bool,
}

impl Read for WithoutMark {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while !self.begun {
            let mut byte = [0; 1];
            match self.input.read(&mut byte) {
                Ok(0) => self.begun = true,
                Ok(_) => self.start.push(byte[0]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            self.begun |= !MARK.starts_with(&self.start);
            if self.start == MARK {
                self.start.clear();
                self.begun = true;
            }
        }
        if self.start.is_empty() {
            return self.input.read(into);
        }
        let n = self.start.len().min(into.len());
        into[..n].copy_from_slice(&self.start[..n]);
        self.start.drain(..n);
        Ok(n)
    }
}

/// A file of lines.
///
/// A block is as many whole lines as fit into [`BLOCK`], or else one line: where it ends depends on where it begins and on
/// nothing else.
struct Lines {
    input: WithoutMark,
    /// What comes after the last block and has been read.
    carry: Vec<u8>,
    /// The next line's number.
    line: u64,
    /// The byte at which it begins.
    byte: u64,
    ended: bool,
    /// Why the rest of the file cannot be read.
    damage: Option<io::Error>,
    /// That has been said.
    is_damaged: bool,
}

impl Lines {
    fn new(input: WithoutMark, from: Mark) -> Lines {
        let (line, byte) = (from.offset + 1, from.byte);
        Lines { input, carry: Vec::new(), line, byte, ended: false, damage: None, is_damaged: false }
    }

    fn mark(&self) -> Mark {
        let byte = if self.is_damaged { BEHIND_DAMAGE } else { self.byte };
        Mark { offset: self.line - 1, byte }
    }

    fn next(&mut self, manner: &Manner) -> io::Result<Option<Block>> {
        let (mut bytes, mut broken, first) = (mem::take(&mut self.carry), Vec::new(), self.line);
        // Bytes that are known to have no line's end among them.
        let mut searched = 0;
        let whole = loop {
            if bytes.len() < BLOCK && !self.ended {
                self.more(&mut bytes)?;
                continue;
            }
            let block = bytes.len().min(BLOCK);
            if let Some(at) = memchr::memrchr(b'\n', &bytes[..block]).filter(|_| searched == 0) {
                break at + 1;
            }
            if let Some(at) = memchr::memchr(b'\n', &bytes[searched..]) {
                let end = searched + at;
                let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
                if line.len() > manner.longest {
                    broken.push(too_long(self.line, manner.longest, line));
                    bytes.drain(..=end);
                    (self.carry, self.byte, self.line) = (bytes, self.byte + end as u64 + 1, self.line + 1);
                    return Ok(Some(Block { text: Text::Lines { first, bytes: Vec::new() }, broken }));
                }
                break end + 1;
            }
            searched = bytes.len();
            if self.ended {
                break 0;
            }
            if bytes.len() > manner.longest + 1 {
                // Nothing but one line, and too much of it.
                broken.push(too_long(self.line, manner.longest, &bytes));
                self.skip_line(&mut bytes)?;
                self.line += 1;
                self.carry = bytes;
                return Ok(Some(Block { text: Text::Lines { first, bytes: Vec::new() }, broken }));
            }
            self.more(&mut bytes)?;
        };
        if self.ended && whole == 0 {
            // No line's end any more: the last line, or the part of it that can be read.
            self.byte += bytes.len() as u64;
            if let Some(error) = self.damage.take() {
                self.is_damaged = true;
                let why = format!("the rest of the file cannot be read: {error}");
                broken.push(Broken { line: self.line, why, text: excerpt(&bytes) });
                bytes.clear();
            }
            self.line += u64::from(!bytes.is_empty() || !broken.is_empty());
        } else {
            self.carry.extend_from_slice(&bytes[whole..]);
            bytes.truncate(whole);
            self.byte += whole as u64;
            self.line += newlines(&bytes);
        }
        let some = !bytes.is_empty() || !broken.is_empty();
        Ok(some.then_some(Block { text: Text::Lines { first, bytes }, broken }))
    }

    /// Reads some more; notices the end, and what is as good as the end.
    fn more(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        let before = bytes.len();
        bytes.resize(before + BLOCK, 0);
        let read = loop {
            match self.input.read(&mut bytes[before..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        bytes.truncate(before + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(n) => self.ended = n == 0,
            Err(error) if is_damage(&error) => (self.ended, self.damage) = (true, Some(error)),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Leaves what comes after the line's end.
    fn skip_line(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        loop {
            self.byte += bytes.len() as u64;
            bytes.clear();
            self.more(bytes)?;
            if let Some(at) = memchr::memchr(b'\n', bytes) {
                self.byte += at as u64 + 1;
                bytes.drain(..=at);
                return Ok(());
            }
            if self.ended {
                self.byte += bytes.len() as u64;
                bytes.clear();
                return Ok(());
            }
        }
    }
}

fn excerpt(text: &[u8]) -> Vec<u8> {
    text[..text.len().min(EXCERPT)].to_vec()
}

/// What is said of a line that is too long.
pub(crate) fn too_long(line: u64, longest: usize, text: &[u8]) -> Broken {
    Broken { line, why: format!("longer than {longest} bytes (--longest-line)"), text: excerpt(text) }
}

/// A file of records.
struct Csv {
    reader: csv::Reader<Remembered>,
    header: Option<Arc<Header>>,
    /// The number of the line at which the reader stands.
    line: u64,
    /// Bytes before those that the reader has had.
    base: u64,
    ended: bool,
    /// That the rest of the file cannot be read has been said.
    is_damaged: bool,
}

/// Remembers what was read and is not in a block yet; refuses to remember more than any record of the longest size takes.
struct Remembered {
    input: WithoutMark,
    most: usize,
    bytes: Vec<u8>,
    /// Bytes that came before those.
    before: u64,
}

impl Read for Remembered {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.bytes.len() > self.most {
            let words = "a record that does not end; is a quote not closed?";
            return Err(io::Error::new(ErrorKind::InvalidData, words));
        }
        let n = self.input.read(into)?;
        self.bytes.extend_from_slice(&into[..n]);
        Ok(n)
    }
}

impl Csv {
    fn new(input: WithoutMark, manner: &Manner) -> Csv {
        // A block, and a record with all its quotes and commas.
        let most = manner.longest * 4 + BLOCK * 4;
        let input = Remembered { input, most, bytes: Vec::new(), before: 0 };
        let mut builder = csv::ReaderBuilder::new();
        let builder = builder.has_headers(false).flexible(true).buffer_capacity(BLOCK / 2);
        Csv {
            reader: builder.from_reader(input),
            header: None,
            line: 1,
            base: 0,
            ended: false,
            is_damaged: false,
        }
    }

    /// The header alone.
    fn header(mut self, manner: &Manner) -> io::Result<Option<Arc<Header>>> {
        let mut fields = ByteRecord::new();
        self.reader.read_byte_record(&mut fields)?;
        Ok(Some(Arc::new(Header::new(&fields, &manner.fields))))
    }

    fn mark(&self) -> Mark {
        let byte = if self.is_damaged { BEHIND_DAMAGE } else { self.base + self.reader.position().byte() };
        Mark { offset: self.line - 1, byte }
    }

    fn next(&mut self, manner: &Manner) -> io::Result<Option<Block>> {
        let (mut records, mut broken) = (Vec::new(), Vec::new());
        let start = self.reader.position().byte();
        let mut at = start;
        while (at - start < BLOCK as u64 || records.is_empty()) && !self.ended {
            let mut fields = ByteRecord::new();
            let outcome = self.reader.read_byte_record(&mut fields);
            let end = self.reader.position().byte();
            let remembered = self.reader.get_ref();
            let raw =
                &remembered.bytes[(at - remembered.before) as usize..(end - remembered.before) as usize];
            // The reader passes over empty lines before it reads a record.
            let blank = raw.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            let line = self.line + newlines(&raw[..blank]);
            self.line += newlines(raw);
            let ending = raw[blank..].iter().rev().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            let from = (at - start) as usize;
            let raw = from + blank..from + raw.len() - ending;
            at = end;
            match outcome {
                Ok(false) => self.ended = true,
                Ok(true) => match &self.header {
                    None => self.header = Some(Arc::new(Header::new(&fields, &manner.fields))),
                    Some(_) => records.push(CsvRecord { line, raw, fields }),
                },
                Err(error) => {
                    (self.ended, self.is_damaged) = (true, true);
                    let error = match error.into_kind() {
                        csv::ErrorKind::Io(error) if !is_damage(&error) => return Err(error),
                        csv::ErrorKind::Io(error) => error.to_string(),
                        other => format!("{other:?}"),
                    };
                    let why = format!("the rest of the file cannot be read: {error}");
                    broken.push(Broken { line, why, text: excerpt(&remembered.bytes[raw.start..]) });
                }
            }
        }
        let remembered = self.reader.get_mut();
        let taken = (at - remembered.before) as usize;
        let rest = remembered.bytes.split_off(taken);
        let raw = mem::replace(&mut remembered.bytes, rest);
        remembered.before = at;
        let some = !records.is_empty() || !broken.is_empty();
        // Damage before the header is whole: there is none.
        let header = || Arc::new(Header::new(&ByteRecord::new(), &manner.fields));
        let header = self.header.get_or_insert_with(header);
        Ok(some.then(|| Block { text: Text::Csv { header: Arc::clone(header), records, raw }, broken }))
    }
}

fn newlines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{random::Random, record::CsvKeys};

    #[test]
    fn files_of_any_length_are_read_in_step() {
        let lengths = [1_000, 999, 10, 1];
        let mut paces = lengths.map(|blocks| Pace { blocks, turns: 1_000, turn: 0 });
        let mut read = [0; 4];
        for turn in 1..=1_000 {
            for (read, pace) in read.iter_mut().zip(&mut paces) {
                *read += pace.next_turn();
            }
            for (read, length) in read.iter().zip(lengths) {
                assert!(
                    *read <= length * turn / 1_000 + 1 && *read + 1 >= length * turn / 1_000,
                    "turn {turn}"
                );
            }
        }
        assert_eq!(read, lengths);
        assert!(paces.iter_mut().all(|pace| pace.next_turn() == 1), "what is longer than it seemed goes on");
    }

    /// The blocks of a file from a mark on, and where each ends.
    fn blocks(source: &Source, from: Mark, manner: &Manner) -> Vec<(String, Mark)> {
        let mut partition = Partition::new(source.clone());
        partition.seek(from);
        let mut blocks = Vec::new();
        while partition.fill(manner).expect("a file that can be read") {
            let block = partition.block.take().expect("it was filled");
            let text = match &block.text {
                Text::Lines { first, bytes } => format!("{first} {}", String::from_utf8_lossy(bytes)),
                Text::Csv { records, raw, .. } => {
                    let records: Vec<_> =
                        records.iter().map(|record| (record.line, &raw[record.raw.clone()])).collect();
                    format!("{records:?}")
                }
            };
            blocks.push((format!("{text} {:?}", block.broken), partition.mark()));
        }
        blocks
    }

    #[test]
    fn whatever_a_file_holds_it_is_read_on_from_any_mark_as_it_was_read_before() {
        use std::io::Write;
        let mut random = Random::new(21);
        let dir = std::env::temp_dir().join(format!("correlate-read-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a folder");
        for round in 0..16 {
            // From rubbish to lines that are longer than a block; with and without a mark, a header, an end.
            let longest = [3, 60, 5_000, 200_000, 400_000][random.below(5) as usize];
            let mut text = if random.below(2) == 0 { MARK.to_vec() } else { Vec::new() };
            text.extend_from_slice(b"stage,key,x\n");
            while text.len() < 700_000 && (text.len() < 200_000 || random.below(200) > 0) {
                let len = 1 + random.below(longest) as usize;
                match random.below(4) {
                    0 => text.extend((0..len.min(300)).map(|_| random.next() as u8)),
                    1 => text.extend_from_slice(br#"{"stage":"A","key":7}"#),
                    2 => text.extend_from_slice(b"A,7,\"quoted, and\ntwo lines\""),
                    _ => text.resize(text.len() + len, b'x'),
                }
                text.extend_from_slice(if random.below(5) == 0 { b"\r\n" } else { b"\n" });
            }
            for (form, packed) in [(Form::Ndjson, false), (Form::Ndjson, true), (Form::Csv, false)] {
                let path = dir.join("file");
                if packed {
                    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                    packer.write_all(&text).expect("memory");
                    fs::write(&path, packer.finish().expect("memory")).expect("written");
                } else {
                    fs::write(&path, &text).expect("written");
                }
                let bytes = text.len() as u64;
                let source = Source { path, name: "file".to_owned(), bytes, form, packed };
                let fields =
                    Fields { stage: "stage".to_owned(), key: "key".to_owned(), csv_keys: CsvKeys::Auto };
                let longest = [100, 150_000, 1 << 20][random.below(3) as usize];
                let manner = Manner { fields, longest, bytes: Arc::default(), cut_short: Arc::default() };
                let all = blocks(&source, Mark::default(), &manner);
                for (n, (_, mark)) in all.iter().enumerate() {
                    let rest = blocks(&source, *mark, &manner);
                    assert!(
                        rest == all[n + 1..],
                        "round {round}, {form:?}, packed {packed}, from block {}",
                        n + 1
                    );
                }
            }
        }
        let _ = fs::remove_dir_all(&dir);
    }
}
