//! Is an output right? An answer that owes nothing to the join.
//!
//! Both sides are read line by line, by code that is only here, and turned into entries: key, stage, a digest of the rest.
//! The entries are sorted and compared, key by key. No table, no batches, no counters of the run. What does not fit into
//! memory is done in several passes, each with its share of the keys.
//!
//! Right means:
//!
//! 1. Every message of the input is in the output once, in a row, in `incomplete.ndjson` or in `duplicates.ndjson`, with
//!    every byte of its rest, and nothing else is.
//! 2. A key that all stages have is in a row; a key that lacks one is in one line of `incomplete.ndjson`; a message is a
//!    duplicate only if there is another of its key and stage elsewhere.
//! 3. Every line of the input that is broken is in `rejects.ndjson`, and no other.

use std::{
    borrow::Cow,
    collections::BTreeSet,
    fmt,
    fs::File,
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use flate2::bufread::MultiGzDecoder;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Value, json, value::RawValue};

use crate::{
    audit::audit,
    error::Error,
    output::{self, MANIFEST},
    record::CsvKeys,
    report::{self, Form, count},
    run::Shape,
};

/// Options of `verify`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Verify {
    /// Folder with the input
    #[arg(long, short, value_name = "DIR", required_unless_present = "log")]
    input: Option<PathBuf>,
    /// Folder with the output
    #[arg(long, short, value_name = "DIR", required_unless_present = "log")]
    output: Option<PathBuf>,
    /// Folder with a log of the main job: its rows are compared with what its seed says
    #[arg(long, value_name = "DIR", conflicts_with_all = ["input", "output", "stages", "stage", "key"])]
    log: Option<PathBuf>,
    /// The stages [default: as the output's correlate.json says]
    #[arg(long, value_name = "NAME,NAME,..", value_delimiter = ',')]
    stages: Vec<String>,
    /// The field that names a record's stage [default: as the output says]
    #[arg(long, value_name = "FIELD")]
    stage: Option<String>,
    /// The field that holds a record's key [default: as the output says]
    #[arg(long, value_name = "FIELD")]
    key: Option<String>,
    /// For whom the verdict is
    #[arg(long, value_name = "FORM", value_enum, default_value_t)]
    report: Form,
}

impl Verify {
    /// Compares, prints a verdict, and says whether the output is right.
    pub(crate) fn run(&self) -> Result<bool, Error> {
        let (Some(input), Some(output)) = (&self.input, &self.output) else {
            let audit = audit(self.log.as_deref().unwrap_or(Path::new("")))?;
            match self.report {
                Form::Text => report::print(&audit)?,
                Form::Json => report::print(audit.json())?,
            }
            return Ok(audit.is_exact());
        };
        let (shape, mut stages) = manifest(output)?;
        let stage = self.stage.clone().unwrap_or(shape.stage);
        let key = self.key.clone().unwrap_or(shape.key);
        if !self.stages.is_empty() {
            stages.clone_from(&self.stages);
        }
        let verdict = verify(input, output, &Shape { stage, key, ..shape }, &stages)?;
        match self.report {
            Form::Text => report::print(&verdict)?,
            Form::Json => report::print(verdict.json())?,
        }
        Ok(verdict.is_exact())
    }
}

/// What a complete output says about itself.
fn manifest(output: &Path) -> Result<(Shape, Vec<String>), Error> {
    let path = output.join(MANIFEST);
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && output.is_dir() => {
            let words = format!("{} is no complete output: {MANIFEST} is not there", output.display());
            return Err(Error::Request(words));
        }
        file => file.map_err(Error::file("read", &path))?,
    };
    let text = io::read_to_string(file).map_err(Error::file("read", &path))?;
    let said: Value = serde_json::from_str(&text).unwrap_or_default();
    let shape = || {
        let text = |field: &str| Some(said[field].as_str()?.to_owned());
        let stages: Option<Vec<String>> =
            said["stages"].as_array()?.iter().map(|s| Some(s.as_str()?.to_owned())).collect();
        let csv_keys = CsvKeys::from_str(said["csv_keys"].as_str()?, true).ok()?;
        let longest_line = said["longest_line"].as_u64()?.try_into().ok()?;
        Some((Shape { stage: text("stage")?, key: text("key")?, csv_keys, longest_line }, stages?))
    };
    shape().ok_or_else(|| Error::Request(format!("{} is not what correlate writes", path.display())))
}

/// How an output differs from what its input asks for.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    messages: u64,
    rows: u64,
    incomplete: u64,
    duplicates: u64,
    rejects: u64,
    joined_again: u64,
    lost: u64,
    surplus: u64,
    other: u64,
    first: Vec<String>,
}

/// Differences that are told one by one.
const TOLD: usize = 20;

impl Verdict {
    /// Nothing differs.
    pub(crate) fn is_exact(&self) -> bool {
        self.lost + self.surplus + self.other == 0
    }

    fn tell(&mut self, words: impl FnOnce() -> String) {
        if self.first.len() < TOLD {
            self.first.push(words());
        }
    }

    fn differs(&mut self, words: impl FnOnce() -> String) {
        self.other += 1;
        self.tell(words);
    }

    fn json(&self) -> Value {
        json!({
            "exact": self.is_exact(),
            "messages": self.messages,
            "joined": self.rows,
            "incomplete_keys": self.incomplete,
            "duplicate_messages": self.duplicates,
            "rejected_lines": self.rejects,
            "rows_for_a_key_joined_before": self.joined_again,
            "messages_lost": self.lost,
            "messages_doubled_or_changed": self.surplus,
            "other_differences": self.other,
            "first_differences": self.first,
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for words in &self.first {
            writeln!(f, "  {words}")?;
        }
        let told = self.first.len() as u64;
        let all = self.lost + self.surplus + self.other;
        if all > told {
            writeln!(f, "  and {} more", count(all - told))?;
        }
        let [messages, rows, incomplete, duplicates, rejects] =
            [self.messages, self.rows, self.incomplete, self.duplicates, self.rejects].map(count);
        if self.joined_again > 0 {
            let again = count(self.joined_again);
            writeln!(
                f,
                "  note: {again} rows are for a key that was joined before, as all its messages came again"
            )?;
        }
        if self.is_exact() {
            return write!(
                f,
                "exact: {messages} messages, each once: in {rows} joined rows, {incomplete} incomplete keys and \
                 {duplicates} duplicates; {rejects} broken lines, all in the rejects"
            );
        }
        let [lost, surplus, other] = [self.lost, self.surplus, self.other].map(count);
        write!(
            f,
            "WRONG: {lost} messages of {messages} lost, {surplus} doubled or changed, {other} other differences"
        )
    }
}

/// Where a line is: a file, by number, and a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Whence {
    file: u32,
    line: u64,
}

/// A message, or a message's place in an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    key: u128,
    stage: u8,
    rest: u128,
    kind: Kind,
    whence: Whence,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Input,
    Row,
    Incomplete,
    Duplicate,
}

/// Compares an output with its input.
pub(crate) fn verify(
    input: &Path,
    output: &Path,
    shape: &Shape,
    stages: &[String],
) -> Result<Verdict, Error> {
    let side = |dir: &Path, wanted: fn(&str) -> bool| -> Result<Vec<PathBuf>, Error> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(Error::file("read folder", dir))? {
            let path = entry.map_err(Error::file("read folder", dir))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_file() && wanted(&name) {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    };
    let inputs = side(input, |name| {
        let stem = name.strip_suffix(".gz").unwrap_or(name);
        !name.starts_with('.') && (stem.ends_with(".ndjson") || stem.ends_with(".csv"))
    })?;
    let outputs: Vec<PathBuf> = output::outputs(output)?
        .into_iter()
        .filter(|path| path.extension().is_some_and(|end| end == "ndjson"))
        .collect();
    let bytes: u64 =
        inputs.iter().chain(&outputs).map(|path| path.metadata().map_or(0, |about| about.len())).sum();
    // An entry takes about as much memory as a short line takes on disk; sorted, both sides are there at once.
    let passes = u128::from(1 + bytes / (1 << 29));
    let comparison = Comparison { inputs: &inputs, outputs: &outputs, shape, stages, passes };
    let mut verdict = Verdict::default();
    for pass in 0..passes {
        comparison.pass(pass, &mut verdict)?;
    }
    Ok(verdict)
}

struct Comparison<'a> {
    inputs: &'a [PathBuf],
    outputs: &'a [PathBuf],
    shape: &'a Shape,
    stages: &'a [String],
    passes: u128,
}

impl Comparison<'_> {
    fn pass(&self, pass: u128, verdict: &mut Verdict) -> Result<(), Error> {
        let (mut expected, mut broken) = (Vec::new(), BTreeSet::new());
        for (file, path) in (0..).zip(self.inputs) {
            self.read_input(path, &mut |line, entry| match entry {
                Some((key, stage, rest)) if key % self.passes == pass => {
                    expected.push(Entry {
                        key,
                        stage,
                        rest,
                        kind: Kind::Input,
                        whence: Whence { file, line },
                    });
                }
                Some(_) => {}
                None => drop(broken.insert(Whence { file, line })),
            })?;
        }
        let mut found = Vec::new();
        for (file, path) in (0..).zip(self.outputs) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let kind = match &*name {
                "rejects.ndjson" => {
                    if pass == 0 {
                        self.compare_rejects(path, &broken, verdict)?;
                    }
                    continue;
                }
                "incomplete.ndjson" => Kind::Incomplete,
                "duplicates.ndjson" => Kind::Duplicate,
                _ => Kind::Row,
            };
            self.read_output(file, path, kind, pass, &mut found, verdict)?;
        }
        expected.sort_unstable();
        found.sort_unstable();
        verdict.messages += expected.len() as u64;
        let (mut expected, mut found) = (&expected[..], &found[..]);
        while let Some(key) = expected.first().into_iter().chain(found.first()).map(|entry| entry.key).min() {
            let (asked, later) = expected.split_at(expected.partition_point(|entry| entry.key == key));
            let (given, more) = found.split_at(found.partition_point(|entry| entry.key == key));
            (expected, found) = (later, more);
            self.compare_key(asked, given, verdict);
        }
        Ok(())
    }

    /// All there is about one key, on both sides.
    fn compare_key(&self, asked: &[Entry], given: &[Entry], verdict: &mut Verdict) {
        let place = |entry: &Entry| {
            let files = if entry.kind == Kind::Input { self.inputs } else { self.outputs };
            let name = files[entry.whence.file as usize].file_name().unwrap_or_default().to_string_lossy();
            format!("{name}:{}", entry.whence.line)
        };
        let stage = |entry: &Entry| &self.stages[usize::from(entry.stage)];

        // 1. The same messages on both sides.
        let what = |entry: &Entry| (entry.stage, entry.rest);
        let (mut left, mut right) = (asked.iter().peekable(), given.iter().peekable());
        loop {
            match (left.peek(), right.peek()) {
                (None, None) => break,
                (Some(a), Some(b)) if what(a) == what(b) => {
                    left.next();
                    right.next();
                }
                (Some(a), b) if b.is_none_or(|b| what(a) < what(b)) => {
                    verdict.lost += 1;
                    verdict.tell(|| {
                        format!("lost: {}, of stage {}, is nowhere in the output", place(a), stage(a))
                    });
                    left.next();
                }
                (_, Some(b)) => {
                    verdict.surplus += 1;
                    let words = "is not in the input, or not that often";
                    verdict.tell(|| format!("doubled or changed: {}, field {}, {words}", place(b), stage(b)));
                    right.next();
                }
                (Some(_), None) => unreachable!("nothing is less than nothing"),
            }
        }

        // 2. Each where it belongs.
        let has = |entries: &[Entry], n: usize| entries.iter().any(|entry| usize::from(entry.stage) == n);
        let is_complete = (0..self.stages.len()).all(|n| has(asked, n));
        let of =
            |kind: Kind| -> Vec<Entry> { given.iter().filter(|entry| entry.kind == kind).copied().collect() };
        let (rows, open, duplicates) = (of(Kind::Row), of(Kind::Incomplete), of(Kind::Duplicate));
        let times = rows.iter().filter(|entry| entry.stage == 0).count() as u64;
        verdict.rows += times;
        verdict.joined_again += times.saturating_sub(1);
        verdict.incomplete += u64::from(!open.is_empty());
        verdict.duplicates += duplicates.len() as u64;
        if let (true, Some(first), true) = (is_complete, asked.first(), rows.is_empty()) {
            verdict.differs(|| format!("not joined: the key of {}, which all stages have", place(first)));
        }
        if let (true, Some(first)) = (is_complete, open.first()) {
            verdict.differs(|| format!("{}: all stages have this key", place(first)));
        }
        if let Some(first) = open.first()
            && open.iter().any(|entry| entry.whence != first.whence)
        {
            verdict.differs(|| format!("{}: this key is in another line as well", place(first)));
        }
        for duplicate in &duplicates {
            if !has(&rows, duplicate.stage.into()) && !has(&open, duplicate.stage.into()) {
                verdict.differs(|| format!("{}: of what is this a duplicate?", place(duplicate)));
            }
        }
    }

    fn compare_rejects(
        &self,
        path: &Path,
        broken: &BTreeSet<Whence>,
        verdict: &mut Verdict,
    ) -> Result<(), Error> {
        let name = |whence: &Whence| {
            let name = self.inputs[whence.file as usize].file_name().unwrap_or_default().to_string_lossy();
            format!("{name}:{}", whence.line)
        };
        let mut missing: BTreeSet<String> = broken.iter().map(name).collect();
        each_line(path, u64::MAX, &mut |number, line| {
            verdict.rejects += 1;
            let said: Value = line.and_then(|line| serde_json::from_slice(line).ok()).unwrap_or_default();
            let place = format!("{}:{}", said["file"].as_str().unwrap_or("?"), said["line"]);
            if !missing.remove(&place) {
                verdict
                    .differs(|| format!("rejects.ndjson:{number}: {place} is not broken, or is here twice"));
            }
        })
        .map_err(Error::file("read", path))?;
        for place in missing {
            verdict.differs(|| format!("{place}: broken, and not in the rejects"));
        }
        Ok(())
    }

    fn read_output(
        &self,
        file: u32,
        path: &Path,
        kind: Kind,
        pass: u128,
        found: &mut Vec<Entry>,
        verdict: &mut Verdict,
    ) -> Result<(), Error> {
        each_line(path, u64::MAX, &mut |number, line| {
            let whence = Whence { file, line: number };
            let Some((key, fields)) = line.and_then(|line| self.row(line)) else {
                if pass == 0 {
                    let name = path.file_name().unwrap_or_default().to_string_lossy();
                    verdict.differs(|| format!("{name}:{number}: not what correlate writes"));
                }
                return;
            };
            if kind == Kind::Row && fields.len() != self.stages.len() && pass == 0 {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                verdict.differs(|| format!("{name}:{number}: a row that lacks a stage"));
            }
            if key % self.passes == pass {
                found.extend(fields.into_iter().map(|(stage, rest)| Entry {
                    key,
                    stage,
                    rest,
                    kind,
                    whence,
                }));
            }
        })
        .map_err(Error::file("read", path))
    }

    /// A line of an output: its key, and a digest for each stage.
    fn row(&self, line: &[u8]) -> Option<(u128, Vec<(u8, u128)>)> {
        let fields: Pairs<'_> = serde_json::from_slice(line).ok()?;
        let (mut key, mut stages) = (None, Vec::new());
        for (name, value) in &fields.0 {
            let name = string(name)?;
            if *name == *self.shape.key && key.is_none() {
                key = Some(digest(&key_of(value)?));
            } else {
                let stage = self.stages.iter().position(|stage| **stage == *name)? as u8;
                let rest: Pairs<'_> = serde_json::from_str(value).ok()?;
                stages.push((stage, digest(&rest.0)));
            }
        }
        Some((key?, stages)).filter(|(_, stages)| !stages.is_empty())
    }

    /// Calls `each` with every line of an input file: a message, or none where the line is broken.
    fn read_input(
        &self,
        path: &Path,
        each: &mut dyn FnMut(u64, Option<(u128, u8, u128)>),
    ) -> Result<(), Error> {
        let name = path.to_string_lossy();
        let longest = u64::from(self.shape.longest_line);
        let read = if name.strip_suffix(".gz").unwrap_or(&name).ends_with(".csv") {
            self.read_csv(path, each)
        } else {
            each_line(path, longest, &mut |number, line| match line {
                None => each(number, None),
                Some(line) if line.trim_ascii().is_empty() => {}
                Some(line) => each(number, self.message(line)),
            })
        };
        read.map_err(Error::file("read", path))
    }

    fn message(&self, line: &[u8]) -> Option<(u128, u8, u128)> {
        let fields: Pairs<'_> = serde_json::from_slice(line).ok()?;
        let (mut keys, mut stages, mut rest) = (Vec::new(), Vec::new(), Vec::new());
        for (name, value) in fields.0 {
            match string(name) {
                Some(text) if *text == *self.shape.key => keys.push(value),
                Some(text) if *text == *self.shape.stage => stages.push(value),
                _ => rest.push((name, value)),
            }
        }
        let ([key], [stage]) = (&keys[..], &stages[..]) else { return None };
        let stage = match key_of(stage)? {
            Key::Integer(text) | Key::String(text) => self.stage(&text)?,
        };
        Some((digest(&key_of(key)?), stage, digest(&rest)))
    }

    fn stage(&self, name: &str) -> Option<u8> {
        self.stages.iter().position(|stage| stage == name).map(|n| n as u8)
    }

    fn read_csv(&self, path: &Path, each: &mut dyn FnMut(u64, Option<(u128, u8, u128)>)) -> io::Result<()> {
        let longest = self.shape.longest_line as usize;
        let mut header: Option<Option<csv::StringRecord>> = None;
        each_csv_record(
            path,
            longest.saturating_mul(4) + (1 << 19),
            &mut |line, text| match (&header, text) {
                (_, None) => each(line, None),
                (None, Some(text)) => header = Some(csv_fields(text)),
                (Some(_), Some(text)) if text.len() > longest => each(line, None),
                (Some(header), Some(text)) => {
                    let message = header
                        .as_ref()
                        .zip(csv_fields(text))
                        .and_then(|(header, record)| self.csv_message(header, &record));
                    each(line, message);
                }
            },
        )
    }

    fn csv_message(
        &self,
        header: &csv::StringRecord,
        record: &csv::StringRecord,
    ) -> Option<(u128, u8, u128)> {
        let (mut keys, mut stages, mut rest) = (Vec::new(), Vec::new(), Vec::new());
        for (name, value) in header.iter().zip(record) {
            match name {
                name if name == self.shape.key => keys.push(value),
                name if name == self.shape.stage => stages.push(value),
                name => rest.push((Value::from(name).to_string(), Value::from(value).to_string())),
            }
        }
        let ([key], [stage]) = (&keys[..], &stages[..]) else { return None };
        if key.is_empty() || stage.is_empty() || header.len() != record.len() {
            return None;
        }
        let typed = || key_of(key).filter(|typed| matches!(typed, Key::Integer(_)));
        let key = match self.shape.csv_keys {
            CsvKeys::Auto => typed().unwrap_or(Key::String((*key).into())),
            CsvKeys::String => Key::String((*key).into()),
            CsvKeys::Integer => typed()?,
        };
        let rest: Vec<(&str, &str)> = rest.iter().map(|(name, value)| (&**name, &**value)).collect();
        Some((digest(&key), self.stage(stage)?, digest(&rest)))
    }
}

/// An object's names and values, as they are written.
struct Pairs<'a>(Vec<(&'a str, &'a str)>);

impl<'de> Deserialize<'de> for Pairs<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = Pairs<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Pairs<'de>, M::Error> {
                let mut pairs = Vec::new();
                while let Some((name, value)) = map.next_entry::<&RawValue, &RawValue>()? {
                    pairs.push((name.get(), value.get()));
                }
                Ok(Pairs(pairs))
            }
        }

        deserializer.deserialize_map(Collect)
    }
}

/// A key: the digits, or the text.
#[derive(Hash)]
enum Key<'a> {
    Integer(Cow<'a, str>),
    String(Cow<'a, str>),
}

fn key_of(value: &str) -> Option<Key<'_>> {
    if value.starts_with('"') {
        return Some(Key::String(string(value)?));
    }
    let is_integer = value.strip_prefix('-').unwrap_or(value).bytes().all(|byte| byte.is_ascii_digit());
    // Whatever is all digits and JSON is an integer.
    let is_integer = is_integer && serde_json::from_str::<&RawValue>(value).is_ok();
    is_integer.then(|| Key::Integer(if value == "-0" { "0".into() } else { value.into() }))
}

/// What a JSON string says.
fn string(raw: &str) -> Option<Cow<'_, str>> {
    if raw.contains('\\') {
        return serde_json::from_str::<String>(raw).ok().map(Cow::Owned);
    }
    Some(raw.strip_prefix('"')?.strip_suffix('"')?.into())
}

/// Two hashes in one number: nothing else in the input has it.
fn digest(what: &impl Hash) -> u128 {
    let half = |salt: u64| {
        let mut hasher = DefaultHasher::new();
        salt.hash(&mut hasher);
        what.hash(&mut hasher);
        hasher.finish()
    };
    u128::from(half(0x5eed)) << 64 | u128::from(half(0xf00d))
}

fn open(path: &Path) -> io::Result<Box<dyn BufRead>> {
    let mut file: Box<dyn BufRead> = Box::new(BufReader::with_capacity(1 << 16, File::open(path)?));
    if path.extension().is_some_and(|end| end == "gz") {
        file = Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(file)));
    }
    if let Ok(start) = file.fill_buf()
        && start.starts_with(b"\xef\xbb\xbf")
    {
        file.consume(3);
    }
    Ok(file)
}

fn is_damage(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof)
}

/// Calls `each` with every line, without its end; with none where it is too long, or where the rest cannot be read.
fn each_line(path: &Path, longest: u64, each: &mut dyn FnMut(u64, Option<&[u8]>)) -> io::Result<()> {
    let (mut file, mut line) = (open(path)?, Vec::new());
    for number in 1.. {
        line.clear();
        let end = longest.saturating_add(2);
        match (&mut file).take(end).read_until(b'\n', &mut line) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if is_damage(&error) => {
                each(number, None);
                break;
            }
            Err(error) => return Err(error),
        }
        let is_whole = line.last() == Some(&b'\n');
        if !is_whole && line.len() as u64 == end {
            match file.skip_until(b'\n') {
                Err(error) if !is_damage(&error) => return Err(error),
                _ => each(number, None),
            }
            continue;
        }
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        each(number, Some(text).filter(|text| text.len() as u64 <= longest));
    }
    Ok(())
}

/// The fields of one record, if they are UTF-8.
fn csv_fields(text: &[u8]) -> Option<csv::StringRecord> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text);
    reader.records().next()?.ok()
}

/// Calls `each` with every record of a CSV file and its first line; with none where the rest cannot be read.
fn each_csv_record(path: &Path, longest: usize, each: &mut dyn FnMut(u64, Option<&[u8]>)) -> io::Result<()> {
    enum At {
        Start,
        Plain,
        Quoted,
        Closing,
    }
    let (mut file, mut record, mut at) = (open(path)?, Vec::new(), At::Start);
    let (mut line, mut first) = (1, 1);
    loop {
        let bytes = match file.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if !is_damage(&error) => return Err(error),
            Ok(bytes) if record.len() <= longest => bytes,
            _ => {
                each(if record.is_empty() { line } else { first }, None);
                return Ok(());
            }
        };
        if bytes.is_empty() {
            break;
        }
        for byte in bytes {
            let ends = matches!(byte, b'\r' | b'\n') && !matches!(at, At::Quoted);
            if ends && !record.is_empty() {
                each(first, Some(&record));
                record.clear();
            } else if !ends {
                if record.is_empty() {
                    first = line;
                }
                record.push(*byte);
            }
            line += u64::from(*byte == b'\n');
            at = match (at, byte) {
                _ if ends => At::Start,
                (At::Start, b'"') | (At::Closing, b'"') => At::Quoted,
                (At::Quoted, b'"') => At::Closing,
                (At::Quoted, _) => At::Quoted,
                (_, b',') => At::Start,
                _ => At::Plain,
            };
        }
        let n = bytes.len();
        file.consume(n);
    }
    if !record.is_empty() {
        each(first, Some(&record));
    }
    Ok(())
}
