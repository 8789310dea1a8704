//! The embedded log: a folder, no server.
//!
//! ```text
//!   log.json               what the log is of; written once, and once more when its source is filled
//!   lock                   held by the one process that writes
//!   source-00/ ..          what is to be joined, where the job keeps that here
//!   sink-00/ ..            what was joined, a partition each
//!   commits/               one frame an epoch: the cut, the order of merges, and where each partition of the sink ends
//!   snapshots/EPOCH-SHARD  the open keys after an epoch
//! ```
//!
//! A commit appends the epoch's rows, has them on disk, then appends its one frame to `commits/` and has that on disk:
//! rows that no sound frame declares were never written, and are cut off by whoever opens the log next. What was declared
//! and is not there, or not sound, is an error with file and offset.
//!
//! The last frame of `commits/` may be torn, by a death or by damage: nothing tells the two apart. Then the epoch before is
//! the last, its rows are made again, and nothing is lost either way. Damage before it is told by the sound frames behind.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    error::Error,
    job::Share,
    log::{
        Commit, Epoch, Log, Mark, Past, Snapshot,
        code::{Malformed, Reader, Writer},
        frame::{BadFrame, FRAME_HEAD, Frame, SEGMENT_HEAD, SegmentHead, VERSION},
        millis,
        segment::{End, Place, Track, check_head, forget_before, other_version, sync_dir},
    },
};

/// What says that a folder is a log.
const ABOUT: &str = "log.json";

const SOURCE: u32 = 1;
const SINK: u32 = 2;
const COMMITS: u32 = 3;
const SNAPSHOT: u32 = 4;

/// How long a process may take to be gone.
const DYING: Duration = Duration::from_secs(1);

/// Bytes of a segment, unless said otherwise.
pub(crate) const SEGMENT: u64 = 64 << 20;

/// Bytes of a segment of commits.
const COMMIT_SEGMENT: u64 = 8 << 20;

/// Bytes of a snapshot's frame.
const PIECE: usize = 4 << 20;

/// Snapshots that are kept of each shard: should the newest be damaged, the one before will do.
const SNAPSHOTS: usize = 2;

/// A folder with a log in it, in the hands of this process.
#[derive(Debug)]
pub(crate) struct Folder {
    about: About,
    /// Bytes after which a segment is followed by another.
    most: u64,
    /// Held until the end.
    _lock: File,
}

/// What `log.json` says.
#[derive(Clone, Debug)]
pub(crate) struct About {
    /// Where it is.
    pub(crate) dir: PathBuf,
    /// The log's own number, in all its files.
    pub(crate) log: u64,
    /// What it is a log of.
    pub(crate) job: Value,
    /// Where the source's partitions end, once they are filled.
    pub(crate) filled: Option<Vec<End>>,
}

impl About {
    /// Reads it, and changes nothing.
    pub(crate) fn read(dir: &Path) -> Result<Option<About>, Error> {
        let path = dir.join(ABOUT);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(Error::file("read", &path))?,
        };
        let said: Value = serde_json::from_slice(&text).unwrap_or_default();
        let numbers = |end: &Value| {
            let [messages, segment, bytes] = [0, 1, 2].map(|n| end[n].as_u64());
            Some(End { messages: messages?, segment: segment?, bytes: bytes? })
        };
        let number = said["log"].as_str().and_then(|hex| u64::from_str_radix(hex, 16).ok());
        let (Some(format), Some(log)) = (said["format"].as_u64(), number) else {
            let why = "it is not what correlate writes".to_owned();
            return Err(Error::Corrupt { path, offset: 0, why });
        };
        if format != u64::from(VERSION) {
            return Err(other_version(&path, format));
        }
        let filled = said["filled"].as_array().and_then(|ends| ends.iter().map(numbers).collect());
        Ok(Some(About { dir: dir.to_owned(), log, job: said["job"].clone(), filled }))
    }

    fn write(&self) -> Result<(), Error> {
        let end = |end: &End| json!([end.messages, end.segment, end.bytes]);
        let filled: Option<Vec<Value>> = self.filled.as_ref().map(|ends| ends.iter().map(end).collect());
        let log = format!("{:016x}", self.log);
        let text =
            format!("{:#}\n", json!({ "format": VERSION, "log": log, "job": self.job, "filled": filled }));
        let (path, unfinished) = (self.dir.join(ABOUT), self.dir.join("log.json.unfinished"));
        let written = File::create(&unfinished).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
        written.map_err(Error::file("write", &unfinished))?;
        fs::rename(&unfinished, &path).map_err(Error::file("make", &path))?;
        sync_dir(&self.dir)
    }

    /// A partition of the source.
    pub(crate) fn source(&self, partition: usize) -> Place {
        self.place(format!("source-{partition:02}"), SOURCE, partition)
    }

    /// A partition of the sink.
    pub(crate) fn sink(&self, partition: usize) -> Place {
        self.place(format!("sink-{partition:02}"), SINK, partition)
    }

    fn commits(&self) -> Place {
        self.place("commits".to_owned(), COMMITS, 0)
    }

    fn place(&self, dir: String, kind: u32, partition: usize) -> Place {
        Place { dir: self.dir.join(dir), kind, partition: partition as u32, log: self.log }
    }

    fn snapshots(&self) -> PathBuf {
        self.dir.join("snapshots")
    }

    /// What was committed, in order; changes nothing, and may be asked while another process writes.
    pub(crate) fn entries(&self) -> Result<Entries, Error> {
        Entries::read(&self.commits())
    }
}

impl Folder {
    /// Takes hold of a log, or begins one. A log of another job is refused.
    pub(crate) fn open(dir: &Path, job: &Value) -> Result<Folder, Error> {
        fs::create_dir_all(dir).map_err(Error::file("make folder", dir))?;
        let is_empty = fs::read_dir(dir).map_err(Error::file("read folder", dir))?.all(|entry| {
            entry.is_ok_and(|entry| entry.file_name() == "lock" || entry.file_name() == "log.json.unfinished")
        });
        let about = About::read(dir)?;
        if about.is_none() && !is_empty {
            return Err(Error::Request(format!(
                "{} holds other things and no log: name another --log",
                dir.display()
            )));
        }
        let lock = lock(dir)?;
        let about = match about {
            Some(about) if about.job == *job => about,
            Some(about) => {
                let dir = dir.display();
                let (theirs, ours) = (&about.job, job);
                return Err(Error::Request(format!("{dir} is the log of {theirs}, not of {ours}")));
            }
            None => {
                let log = crate::random::mix(millis() ^ u64::from(std::process::id()) << 44);
                let about = About { dir: dir.to_owned(), log, job: job.clone(), filled: None };
                about.write()?;
                about
            }
        };
        Ok(Folder { about, most: SEGMENT, _lock: lock })
    }

    /// With segments of about so many bytes: what nobody needs any more is removed a segment at a time.
    pub(crate) fn in_segments_of(self, bytes: u64) -> Folder {
        Folder { most: bytes, ..self }
    }

    /// What it is.
    pub(crate) fn about(&self) -> &About {
        &self.about
    }

    /// Begins a partition of the source anew: one that was not filled to its end does not count.
    pub(crate) fn fill(&self, partition: usize) -> Result<Track, Error> {
        Track::open(self.about.source(partition), End::default(), self.most)
    }

    /// The source is complete, for good.
    pub(crate) fn filled(&mut self, mut tracks: Vec<Track>) -> Result<(), Error> {
        tracks.iter_mut().try_for_each(Track::sync)?;
        self.about.filled = Some(tracks.iter().map(Track::end).collect());
        self.about.write()
    }

    /// Opens what is written, with `owners[file]` the shard whose rows go into a file, and says what there is. A snapshot is
    /// only asked for where there is work for it.
    pub(crate) fn log(
        self,
        owners: Vec<usize>,
        stages: usize,
        trial: Trial,
    ) -> Result<(Embedded, Past), Error> {
        let about = self.about.clone();
        let shards = owners.iter().max().map_or(1, |most| most + 1);
        let mut entries = about.entries()?;
        let (mut past, mut kept) = (Past { snapshots: vec![None; shards], ..Past::default() }, Vec::new());
        let snapshots = SnapshotName::all(&about.snapshots())?;
        for shard in 0..shards {
            let last = entries.epochs().filter(|(commit, _)| commit.shard as usize == shard).last();
            let last = last.map_or(0, |(commit, _)| commit.epoch);
            let mut names: Vec<&SnapshotName> =
                snapshots.iter().filter(|name| name.shard as usize == shard).collect();
            names.sort_by_key(|name| name.epoch);
            if let Some(name) = names.last() {
                if name.epoch > last {
                    let (path, epoch) = (name.path(&about.snapshots()), name.epoch);
                    let why = format!(
                        "it is of epoch {epoch}, and the last in {} is {last}: those behind it are gone; without this file \
                         they are made again, if their source is there",
                        about.commits().dir.display()
                    );
                    return Err(Error::Corrupt { path, offset: 0, why });
                }
                let snapshot = read_snapshot(&about, name)?;
                kept.push((name.shard, name.epoch, snapshot.after.cut.clone()));
                past.snapshots[shard] = Some(snapshot);
            }
            // The one before is kept too, and with it what it would need.
            for name in names.iter().rev().skip(1).take(SNAPSHOTS - 1) {
                kept.push((name.shard, name.epoch, read_snapshot(&about, name)?.after.cut));
            }
        }
        let mut next: Vec<u64> =
            past.snapshots.iter().map(|s| s.as_ref().map_or(0, |s| s.after.epoch)).collect();
        let mut ends = vec![End::default(); owners.len()];
        for (commit, files) in entries.epochs() {
            for (file, end) in files {
                match ends.get_mut(*file as usize) {
                    Some(known) => *known = *end,
                    None => return Err(entries.odd("it is of a log with more files")),
                }
            }
            let Some(next) = next.get_mut(commit.shard as usize) else {
                return Err(entries.odd("it is of a log with more shards"));
            };
            if commit.epoch > *next {
                *next += 1;
                if commit.epoch != *next {
                    let (shard, epoch) = (commit.shard, *next);
                    return Err(entries.odd(&format!("epoch {epoch} of shard {shard} is missing")));
                }
                past.commits.push(commit.clone());
            }
        }
        // All of it is looked at before any of it is changed.
        for (file, end) in ends.iter().enumerate() {
            about.sink(file).reaches(*end)?;
        }
        about.commits().reaches(entries.end)?;
        remove_unfinished(&about.snapshots())?;
        let tracks = ends
            .iter()
            .enumerate()
            .map(|(file, end)| {
                let place = about.sink(file);
                let end = if trial.keeps_undeclared { physical_end(&place, *end)? } else { *end };
                Track::open(place, end, self.most)
            })
            .collect::<Result<Vec<Track>, Error>>()?;
        let ends = tracks.iter().map(Track::end).collect();
        let mut commits = Track::open(about.commits(), entries.end, self.most.min(COMMIT_SEGMENT))?;
        let starts = entries.starts + 1;
        let mut bytes = Writer::default();
        Entry::Start { number: starts, millis: millis() }.encode(&mut bytes);
        commits.append(1, &bytes.0)?;
        commits.sync()?;
        // They may be many, and nobody needs them any more.
        entries.list.clear();
        let log = Embedded {
            owners,
            stages,
            starts,
            tracks,
            ends,
            commits,
            kept,
            keeper: None,
            folder: self,
            trial,
            epochs: 0,
        };
        Ok((log, past))
    }
}

/// What a log is put through, to see what comes of it; by default nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trial {
    /// Rows that no commit declares are not cut off: a guarantee less, and its loss has to be seen.
    pub(crate) keeps_undeclared: bool,
    /// The process ends in this epoch, or the first one after it that has rows: they are on disk, and their commit is not.
    pub(crate) dies_in: Option<u64>,
}

/// Keeps a second process off, until this one ends, however that is.
fn lock(dir: &Path) -> Result<File, Error> {
    let path = dir.join("lock");
    let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let lock = lock.map_err(Error::file("make", &path))?;
    // Who was killed while the disk had it is gone a moment later.
    let until = Instant::now() + DYING;
    while let Err(TryLockError::WouldBlock) = lock.try_lock() {
        if Instant::now() >= until {
            break;
        }
        thread::sleep(DYING / 50);
    }
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => {
            let dir = dir.display();
            Err(Error::Request(format!(
                "another process is working on the log in {dir}: wait for its end, or name another folder"
            )))
        }
        Err(TryLockError::Error(source)) => Err(Error::File { verb: "lock", path, source }),
    }
}

/// Where the sound frames end, declared or not.
fn physical_end(place: &Place, mut end: End) -> Result<End, Error> {
    let Some(last) = place.segments()?.last().copied() else { return Ok(end) };
    let path = place.segment(last);
    let bytes = fs::read(&path).map_err(Error::file("read", &path))?;
    if last > end.segment || end.bytes == 0 {
        end = End { messages: last, segment: last, bytes: SEGMENT_HEAD as u64 };
    }
    while let Some(Ok(frame)) = bytes.get(end.bytes as usize..).map(Frame::decode) {
        end.bytes += frame.len() as u64;
        end.messages += u64::from(frame.messages);
    }
    Ok(end)
}

// ---- commits

/// A frame of `commits/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// The program began, for the so many-th time.
    Start {
        /// Counted from one.
        number: u32,
        /// When.
        millis: u64,
    },
    /// An epoch.
    Epoch {
        /// What was taken in.
        commit: Commit,
        /// How many times the program had begun.
        starts: u32,
        /// Where the files of the commit's shard end.
        ends: Vec<(u32, End)>,
    },
}

impl Entry {
    /// Appends it.
    pub(crate) fn encode(&self, into: &mut Writer) {
        match self {
            Entry::Start { number, millis } => {
                into.0.push(0);
                into.u32(*number);
                into.u64(*millis);
            }
            Entry::Epoch { commit, starts, ends } => {
                into.0.push(1);
                into.u32(*starts);
                commit.encode(into);
                into.u32(ends.len() as u32);
                for (file, End { messages, segment, bytes }) in ends {
                    into.u32(*file);
                    [messages, segment, bytes].into_iter().for_each(|n| into.u64(*n));
                }
            }
        }
    }

    /// Reads it.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Entry, Malformed> {
        let mut from = Reader(bytes);
        let entry = match from.u8()? {
            0 => Entry::Start { number: from.u32()?, millis: from.u64()? },
            1 => Entry::Epoch {
                starts: from.u32()?,
                commit: Commit::decode(&mut from)?,
                ends: from.list(4 + 3 * 8, |from| {
                    let file = from.u32()?;
                    Ok((file, End { messages: from.u64()?, segment: from.u64()?, bytes: from.u64()? }))
                })?,
            },
            _ => return Err(Malformed),
        };
        from.end()?;
        Ok(entry)
    }
}

/// All that is in `commits/`.
#[derive(Debug)]
pub(crate) struct Entries {
    /// In order.
    pub(crate) list: Vec<Entry>,
    /// How many times the program has begun.
    pub(crate) starts: u32,
    /// Where they end.
    pub(crate) end: End,
    /// Bytes behind the end that are no frame: the last one was torn.
    pub(crate) torn: u64,
    path: PathBuf,
}

impl Entries {
    fn read(place: &Place) -> Result<Entries, Error> {
        let mut entries =
            Entries { list: Vec::new(), starts: 0, end: End::default(), torn: 0, path: place.dir.clone() };
        let segments = place.segments()?;
        let mut next = None;
        for (n, first) in segments.iter().copied().enumerate() {
            let is_last = n + 1 == segments.len();
            let path = place.segment(first);
            let bytes = fs::read(&path).map_err(Error::file("read", &path))?;
            if is_last && bytes.len() < SEGMENT_HEAD {
                // It was being made.
                entries.torn = bytes.len() as u64;
                break;
            }
            place.check(first, &bytes)?;
            if next.is_some_and(|next| next != first) {
                let why =
                    format!("it begins with entry {first} where {} should be", next.unwrap_or_default());
                return Err(Error::Corrupt { path, offset: 0, why });
            }
            let at = entries.read_segment(first, &path, &bytes, is_last)?;
            entries.end = End { messages: at.0, segment: first, bytes: at.1 as u64 };
            entries.path = path;
            next = Some(at.0);
        }
        Ok(entries)
    }

    /// Takes in a segment's entries; says how many there are by now, and where they end.
    fn read_segment(
        &mut self,
        first: u64,
        path: &Path,
        bytes: &[u8],
        is_last: bool,
    ) -> Result<(u64, usize), Error> {
        let (mut at, mut next) = (SEGMENT_HEAD, first);
        while at < bytes.len() {
            let corrupt = |why: &dyn std::fmt::Display| Error::Corrupt {
                path: path.to_owned(),
                offset: at as u64,
                why: why.to_string(),
            };
            let frame = match Frame::decode(&bytes[at..]) {
                Ok(frame) => frame,
                Err(_) if is_last && !Frame::is_any_in(&bytes[at + 1..]) => {
                    self.torn = (bytes.len() - at) as u64;
                    break;
                }
                Err(bad) => return Err(corrupt(&bad)),
            };
            if frame.first != next {
                return Err(corrupt(&format_args!("entry {} is here where {next} should be", frame.first)));
            }
            let entry = Entry::decode(frame.bytes)
                .map_err(|Malformed| corrupt(&"its checksum is right, and it is no entry"))?;
            self.starts = match &entry {
                Entry::Start { number, .. } => *number,
                Entry::Epoch { starts, .. } => *starts,
            };
            self.list.push(entry);
            (at, next) = (at + frame.len(), next + 1);
        }
        Ok((next, at))
    }

    /// The epochs among them.
    pub(crate) fn epochs(&self) -> impl Iterator<Item = (&Commit, &[(u32, End)])> {
        self.list.iter().filter_map(|entry| match entry {
            Entry::Epoch { commit, ends, .. } => Some((commit, &**ends)),
            Entry::Start { .. } => None,
        })
    }

    /// Where each of so many files ends for good.
    pub(crate) fn ends(&self, files: usize) -> Vec<End> {
        let mut ends = vec![End::default(); files];
        for (file, end) in self.epochs().flat_map(|(_, ends)| ends) {
            if let Some(known) = ends.get_mut(*file as usize) {
                *known = *end;
            }
        }
        ends
    }

    fn odd(&self, why: &str) -> Error {
        Error::Corrupt { path: self.path.clone(), offset: 0, why: why.to_owned() }
    }
}

// ---- snapshots

#[derive(Clone, Copy, Debug)]
struct SnapshotName {
    epoch: u64,
    shard: u32,
}

impl SnapshotName {
    fn path(self, dir: &Path) -> PathBuf {
        dir.join(format!("{:020}-{}", self.epoch, self.shard))
    }

    /// Those that are there.
    fn all(dir: &Path) -> Result<Vec<SnapshotName>, Error> {
        let mut names = Vec::new();
        let entries = match fs::read_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(names),
            entries => entries.map_err(Error::file("read folder", dir))?,
        };
        for entry in entries {
            let name = entry.map_err(Error::file("read folder", dir))?.file_name();
            let name = name.to_string_lossy();
            let parts = name.split_once('-').map(|(epoch, shard)| (epoch.parse(), shard.parse()));
            if let Some((Ok(epoch), Ok(shard))) = parts {
                names.push(SnapshotName { epoch, shard });
            }
        }
        Ok(names)
    }
}

/// Removes what is left of snapshots whose writer died.
fn remove_unfinished(dir: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.map_err(Error::file("read folder", dir))?.path();
        if path.extension().is_some_and(|end| end == "unfinished") {
            fs::remove_file(&path).map_err(Error::file("remove", &path))?;
        }
    }
    Ok(())
}

fn write_snapshot(about: &About, after: &Commit, bytes: &[u8]) -> Result<(), Error> {
    let dir = about.snapshots();
    fs::create_dir_all(&dir).map_err(Error::file("make folder", &dir))?;
    let name = SnapshotName { epoch: after.epoch, shard: after.shard };
    let path = name.path(&dir);
    let unfinished = path.with_extension("unfinished");
    let head = SegmentHead { kind: SNAPSHOT, partition: after.shard, log: about.log, first: after.epoch };
    let (mut said, mut buffer) = (Writer::default(), head.encode());
    after.encode(&mut said);
    Frame { first: 0, messages: 1, bytes: &said.0 }.encode(&mut buffer);
    let written = File::create(&unfinished).and_then(|mut file| {
        let mut pieces = 1;
        for piece in bytes.chunks(PIECE) {
            Frame { first: pieces, messages: 1, bytes: piece }.encode(&mut buffer);
            pieces += 1;
            file.write_all(&buffer)?;
            buffer.clear();
        }
        // An end that says how much there was.
        Frame { first: pieces, messages: 0, bytes: &(bytes.len() as u64).to_le_bytes() }.encode(&mut buffer);
        file.write_all(&buffer)?;
        file.sync_data()
    });
    written.map_err(Error::file("write", &unfinished))?;
    fs::rename(&unfinished, &path).map_err(Error::file("make", &path))?;
    sync_dir(&dir)
}

fn read_snapshot(about: &About, name: &SnapshotName) -> Result<Snapshot, Error> {
    let path = name.path(&about.snapshots());
    let mut bytes = Vec::new();
    File::open(&path)
        .and_then(|mut file| file.read_to_end(&mut bytes))
        .map_err(Error::file("read", &path))?;
    let head = SegmentHead { kind: SNAPSHOT, partition: name.shard, log: about.log, first: name.epoch };
    check_head(&path, head, &bytes)?;
    decode_snapshot(&bytes).map_err(|(offset, why)| {
        let why = format!("{why}; without this file the snapshot before it is used, if there is one");
        Error::Corrupt { path, offset: offset as u64, why }
    })
}

/// What is behind the head of a snapshot.
pub(crate) fn decode_snapshot(bytes: &[u8]) -> Result<Snapshot, (usize, String)> {
    let (mut at, mut pieces, mut after, mut keys) = (SEGMENT_HEAD, 0, None, Vec::new());
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        let frame = Frame::decode(rest).map_err(|bad: BadFrame| (at, bad.to_string()))?;
        if frame.first != pieces {
            return Err((at, format!("piece {} is here where {pieces} should be", frame.first)));
        }
        match (pieces, frame.messages) {
            (0, 1) => {
                let commit = Commit::decode(&mut Reader(frame.bytes));
                after =
                    Some(commit.map_err(|Malformed| (at, "it does not say after which epoch".to_owned()))?);
            }
            (_, 1) => keys.extend_from_slice(frame.bytes),
            _ => {
                let is_whole =
                    frame.bytes == (keys.len() as u64).to_le_bytes() && at + frame.len() == bytes.len();
                return match after {
                    Some(after) if is_whole => Ok(Snapshot { after, bytes: keys }),
                    _ => Err((at, "its end does not fit".to_owned())),
                };
            }
        }
        (at, pieces) = (at + frame.len(), pieces + 1);
    }
}

// ---- the log

/// Writes epochs into a folder.
#[derive(Debug)]
pub(crate) struct Embedded {
    folder: Folder,
    /// The shard whose rows go into a file.
    owners: Vec<usize>,
    stages: usize,
    /// How many times the program has begun.
    starts: u32,
    tracks: Vec<Track>,
    /// Where they end for good.
    ends: Vec<End>,
    commits: Track,
    /// Snapshots that are there: shard, epoch and cut.
    kept: Vec<(u32, u64, Vec<Mark>)>,
    /// Writes a snapshot, as that may take longer than an epoch.
    keeper: Option<JoinHandle<Result<Commit, Error>>>,
    trial: Trial,
    /// Epochs in this life.
    epochs: u64,
}

impl Embedded {
    /// How many times the program has begun.
    pub(crate) fn starts(&self) -> u32 {
        self.starts
    }

    /// A snapshot has been written: what nobody needs with it goes.
    fn tidy(&mut self) -> Result<(), Error> {
        let Some(keeper) = self.keeper.take_if(|keeper| keeper.is_finished()) else { return Ok(()) };
        let Ok(written) = keeper.join() else { return Ok(()) };
        let after = written?;
        self.kept.push((after.shard, after.epoch, after.cut));
        let about = self.folder.about().clone();
        let mut needed: Vec<(u64, &[Mark])> = Vec::new();
        let shards = self.owners.iter().max().map_or(1, |most| most + 1);
        self.kept.sort_by_key(|(shard, epoch, _)| (*shard, std::cmp::Reverse(*epoch)));
        let (mut seen, mut superfluous) = (vec![0; shards], Vec::new());
        self.kept.retain(|(shard, epoch, _)| {
            seen[*shard as usize] += 1;
            let is_needed = seen[*shard as usize] <= SNAPSHOTS;
            if !is_needed {
                superfluous.push(SnapshotName { epoch: *epoch, shard: *shard });
            }
            is_needed
        });
        for name in superfluous {
            let path = name.path(&about.snapshots());
            fs::remove_file(&path).map_err(Error::file("remove", &path))?;
        }
        // Only with two of each shard is anything known to be superfluous.
        if seen.iter().any(|seen| *seen < SNAPSHOTS) {
            return Ok(());
        }
        for shard in 0..shards {
            let oldest = self.kept.iter().rfind(|(of, ..)| *of as usize == shard);
            needed.extend(oldest.map(|(_, epoch, cut)| (*epoch, &**cut)));
        }
        self.forget(&about, &needed)
    }

    /// Removes segments of the source and of the commits that no snapshot needs.
    fn forget(&self, about: &About, needed: &[(u64, &[Mark])]) -> Result<(), Error> {
        for (partition, end) in about.filled.iter().flatten().enumerate() {
            let from = partition * self.stages;
            let marks =
                needed.iter().flat_map(|(_, cut)| cut.get(from..from + self.stages).unwrap_or_default());
            let needed = marks.map(|mark| mark.offset).min().unwrap_or(0);
            forget_before(&about.source(partition), needed, end.segment)?;
        }
        let place = about.commits();
        let firsts = place.segments()?;
        for pair in firsts.windows(2) {
            let path = place.segment(pair[0]);
            let bytes = fs::read(&path).map_err(Error::file("read", &path))?;
            let mut sound = SEGMENT_HEAD;
            let is_superfluous = frames(&bytes).all(|frame| {
                sound += frame.len();
                match Entry::decode(frame.bytes) {
                    Ok(Entry::Epoch { commit, .. }) => {
                        needed.get(commit.shard as usize).is_some_and(|(epoch, _)| commit.epoch < *epoch)
                    }
                    Ok(Entry::Start { .. }) => true,
                    Err(Malformed) => false,
                }
            });
            // Of one that is damaged nobody knows what was in it: the next start has to say so.
            if !is_superfluous || sound != bytes.len() {
                break;
            }
            fs::remove_file(&path).map_err(Error::file("remove", &path))?;
        }
        Ok(())
    }
}

/// The sound frames at the beginning of a segment.
fn frames(bytes: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    let mut rest = bytes.get(SEGMENT_HEAD..).unwrap_or_default();
    std::iter::from_fn(move || {
        let frame = Frame::decode(rest).ok()?;
        rest = &rest[FRAME_HEAD + frame.bytes.len()..];
        Some(frame)
    })
}

impl Log for Embedded {
    fn commit(&mut self, epoch: &Epoch, share: Share) -> Result<(), Error> {
        self.tidy()?;
        let some = share.of(epoch.rows.len());
        for rows in &epoch.rows[..some] {
            self.tracks[rows.file].append(rows.count, &rows.bytes)?;
        }
        if share != Share::ALL {
            return Ok(());
        }
        // Side by side: the disk has its say on all of them at once.
        thread::scope(|scope| {
            let mut dirty: Vec<&mut Track> =
                self.tracks.iter_mut().filter(|track| track.is_dirty()).collect();
            let last = dirty.pop();
            let others: Vec<_> = dirty
                .into_iter()
                .map(|track| thread::Builder::new().spawn_scoped(scope, || track.sync()))
                .collect();
            let synced = last.map_or(Ok(()), Track::sync);
            let others = others.into_iter().map(|thread| match thread.map(thread::ScopedJoinHandle::join) {
                Ok(Ok(synced)) => synced,
                // Asked again below.
                Ok(Err(_)) | Err(_) => Ok(()),
            });
            others.fold(synced, Result::and)
        })?;
        self.tracks.iter_mut().try_for_each(Track::sync)?;
        self.epochs += 1;
        if self.trial.dies_in.is_some_and(|dies_in| dies_in <= self.epochs) && !epoch.rows.is_empty() {
            // As with `kill -9`, nothing is dropped and nothing flushed.
            std::process::abort();
        }
        let shard = epoch.commit.shard as usize;
        let own = self.owners.iter().enumerate().filter(|(_, owner)| **owner == shard);
        let ends = own.map(|(file, _)| (file as u32, self.tracks[file].end())).collect();
        let entry = Entry::Epoch { commit: epoch.commit.clone(), starts: self.starts, ends };
        let mut bytes = Writer::default();
        entry.encode(&mut bytes);
        self.commits.append(1, &bytes.0)?;
        self.commits.sync()?;
        for (end, track) in self.ends.iter_mut().zip(&self.tracks) {
            *end = track.end();
        }
        if let (Some(keys), None) = (&epoch.snapshot, &self.keeper) {
            let (about, keys) = (self.folder.about().clone(), Arc::clone(keys));
            let after = Commit { merges: Vec::new(), ..epoch.commit.clone() };
            let keep = move || write_snapshot(&about, &after, &keys).map(|()| after);
            // Without a thread there is no snapshot this time, and the next start takes longer.
            self.keeper = thread::Builder::new().name("snapshot".to_owned()).spawn(keep).ok();
        }
        Ok(())
    }

    fn rewind(&mut self) -> Result<(), Error> {
        for (track, end) in self.tracks.iter_mut().zip(&self.ends) {
            track.rewind(*end)?;
        }
        Ok(())
    }
}

impl Drop for Embedded {
    /// The lock is given up after the last write.
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        log::{Merge, Rows, Totals, segment::Frames},
        random::Random,
    };

    /// A folder of a test's own, gone with it.
    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Dir {
            let dir = std::env::temp_dir().join(format!("correlate-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&dir);
            Dir(dir)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn epoch(number: u64) -> Epoch {
        let until = Mark { offset: number * 10, byte: 0 };
        let commit = Commit {
            epoch: number,
            totals: Totals { messages: number * 10, ..Totals::default() },
            cut: vec![until],
            merges: vec![Merge { partition: 0, stage: 0, until }],
            ..Commit::default()
        };
        let rows = (0..2).map(|file| Rows { file, count: 1, bytes: vec![number as u8; 30] }).collect();
        Epoch { commit, rows, snapshot: None }
    }

    fn filled(dir: &Dir, epochs: u64) {
        let (mut log, past) = Folder::open(&dir.0, &json!("test"))
            .expect("opened")
            .log(vec![0; 2], 1, Trial::default())
            .expect("a log");
        assert_eq!(past.commits, []);
        (1..=epochs).for_each(|number| log.commit(&epoch(number), Share::ALL).expect("committed"));
    }

    fn opened(dir: &Dir) -> Result<(Embedded, Past), Error> {
        Folder::open(&dir.0, &json!("test"))?.log(vec![0; 2], 1, Trial::default())
    }

    #[test]
    fn what_was_committed_is_there_and_what_was_not_is_gone() {
        let dir = Dir::new("log-commit");
        filled(&dir, 5);
        let (mut log, past) = opened(&dir).expect("it is sound");
        assert_eq!(past.commits, (1..=5).map(|number| epoch(number).commit).collect::<Vec<_>>());
        log.commit(&epoch(6), Share(128)).expect("half of it");
        drop(log);
        let (mut log, past) = opened(&dir).expect("it is sound");
        assert_eq!((past.commits.len(), log.starts()), (5, 3));
        log.commit(&epoch(6), Share(256)).expect("all of it");
        log.commit(&epoch(7), Share(128)).expect("half of it");
        log.rewind().expect("taken back");
        log.commit(&epoch(7), Share::ALL).expect("all of it");
        drop(log);
        assert_rows(&dir, 7);
    }

    /// Both files have a row of each epoch.
    fn assert_rows(dir: &Dir, epochs: u8) {
        let about = About::read(&dir.0).expect("read").expect("there");
        for (file, end) in about.entries().expect("sound").ends(2).into_iter().enumerate() {
            let (mut frames, mut bytes, mut rows) =
                (Frames::new(about.sink(file), end), Vec::new(), Vec::new());
            while frames.next(&mut bytes).expect("sound").is_some() {
                rows.push(bytes[0]);
            }
            assert_eq!(rows, (1..=epochs).collect::<Vec<_>>(), "file {file}");
        }
    }

    #[test]
    fn at_whatever_byte_the_commits_are_torn_the_whole_ones_count_and_the_others_are_made_again() {
        let dir = Dir::new("log-torn");
        filled(&dir, 3);
        let about = About::read(&dir.0).expect("read").expect("there");
        let paths = [about.commits(), about.sink(0), about.sink(1)].map(|place| place.segment(0));
        let sound = paths.clone().map(|path| fs::read(path).expect("there"));
        let mut ends = vec![SEGMENT_HEAD];
        frames(&sound[0]).for_each(|frame| ends.push(ends[ends.len() - 1] + frame.len()));
        for cut in 0..=sound[0].len() {
            fs::write(&paths[0], &sound[0][..cut]).expect("written");
            let whole = ends.iter().rposition(|end| *end <= cut);
            let torn = cut - whole.map_or(0, |whole| ends[whole]);
            assert_eq!(about.entries().expect("sound as far as it goes").torn, torn as u64, "cut at {cut}");
            // To go on takes a disk its time, so it is not done everywhere.
            if torn > 1 && cut % 16 != 0 {
                continue;
            }
            let (mut log, past) = opened(&dir).expect("sound as far as it goes");
            // The first frame says that the program began.
            let epochs = whole.unwrap_or(0).saturating_sub(1) as u64;
            let wanted: Vec<Commit> = (1..=epochs).map(|number| epoch(number).commit).collect();
            assert_eq!(past.commits, wanted, "cut at {cut}");
            (epochs + 1..=4).for_each(|number| log.commit(&epoch(number), Share::ALL).expect("committed"));
            drop(log);
            assert_rows(&dir, 4);
            for (path, bytes) in paths.iter().zip(&sound) {
                fs::write(path, bytes).expect("written");
            }
        }
    }

    #[test]
    fn a_segment_of_commits_that_is_damaged_is_not_removed() {
        let dir = Dir::new("log-retention-damage");
        let folder = || Folder::open(&dir.0, &json!("test")).expect("opened").in_segments_of(1);
        let (mut log, _) = folder().log(vec![0; 2], 1, Trial::default()).expect("a log");
        let keep = |log: &mut Embedded, number: u64| {
            let snapshot = number.is_multiple_of(2).then(|| Arc::new(vec![7; 50]));
            log.commit(&Epoch { snapshot, ..epoch(number) }, Share::ALL).expect("committed");
            while log.keeper.as_ref().is_some_and(|keeper| !keeper.is_finished()) {
                thread::yield_now();
            }
        };
        (1..=2).for_each(|number| keep(&mut log, number));
        let path = About::read(&dir.0).expect("read").expect("there").commits().segment(1);
        let mut bytes = fs::read(&path).expect("the first epoch has one of its own");
        bytes[SEGMENT_HEAD + 30] ^= 1;
        fs::write(&path, bytes).expect("written");
        (3..=9).for_each(|number| keep(&mut log, number));
        drop(log);
        let refused = folder().log(vec![0; 2], 1, Trial::default());
        let Err(Error::Corrupt { path: told, offset, .. }) = refused else { panic!("{refused:?}") };
        assert_eq!((told, offset), (path, SEGMENT_HEAD as u64));
    }

    #[test]
    fn segments_that_no_snapshot_needs_go_and_the_log_goes_on() {
        let dir = Dir::new("log-retention");
        let mut folder = Folder::open(&dir.0, &json!("test")).expect("opened");
        let place = || About::read(&dir.0).expect("read").expect("there").source(0);
        let mut track = Track::open(place(), End::default(), 256).expect("a track");
        (0..20).for_each(|n| track.append(10, &[n; 100]).expect("appended"));
        folder.filled(vec![track]).expect("filled");
        let end = folder.about().filled.as_ref().expect("filled")[0];
        let before = place().segments().expect("there").len();
        let (mut log, _) = folder.log(vec![0; 2], 1, Trial::default()).expect("a log");
        for number in 1..=13 {
            let snapshot = (number % 4 == 0).then(|| Arc::new(vec![7; 50]));
            log.commit(&Epoch { snapshot, ..epoch(number) }, Share::ALL).expect("committed");
            while log.keeper.as_ref().is_some_and(|keeper| !keeper.is_finished()) {
                thread::yield_now();
            }
        }
        drop(log);
        // Two snapshots stay, after the epochs 8 and 12; the older one goes on at message 80.
        let firsts = place().segments().expect("there");
        assert!(firsts[0] > 0 && firsts[0] <= 80 && firsts[1] > 80, "{firsts:?}");
        assert!(firsts.len() < before, "{firsts:?} of {before}");
        let (_log, past) = opened(&dir).expect("it is sound");
        assert_eq!(past.snapshots[0].as_ref().map(|snapshot| snapshot.after.epoch), Some(12));
        assert_eq!(past.commits, [epoch(13).commit]);
        let (mut frames, mut bytes, mut read) = (Frames::new(place(), end), Vec::new(), 0);
        frames.seek(Mark { offset: firsts[0], byte: SEGMENT_HEAD as u64 });
        while let Some((_, messages)) = frames.next(&mut bytes).expect("sound") {
            read += u64::from(messages);
        }
        assert_eq!(read, 200 - firsts[0]);
    }

    #[test]
    fn whatever_happens_to_the_commits_nothing_is_silently_skipped() {
        let dir = Dir::new("log-fuzz");
        filled(&dir, 8);
        let about = About::read(&dir.0).expect("read").expect("there");
        let path = about.commits().segment(0);
        let (sound, all) = (fs::read(&path).expect("there"), about.entries().expect("sound").list);
        let mut random = Random::new(11);
        for _ in 0..3_000 {
            let mut bytes = sound.clone();
            match random.below(4) {
                0 => bytes.truncate(random.below(bytes.len() as u64 + 1) as usize),
                1 => bytes.extend((0..random.below(60)).map(|_| random.next() as u8)),
                2 => {
                    let (from, to) = (random.below(bytes.len() as u64), random.below(bytes.len() as u64));
                    bytes.drain(from.min(to) as usize..from.max(to) as usize);
                }
                _ => {
                    let at = random.below(bytes.len() as u64) as usize;
                    bytes[at] ^= 1 << random.below(8);
                }
            }
            fs::write(&path, &bytes).expect("written");
            match about.entries() {
                // What is read was written, in order, from the first on; what is left out is said to be torn.
                Ok(read) => {
                    assert!(all.starts_with(&read.list));
                    assert!(read.list.len() == all.len() || read.torn > 0 || bytes.len() < sound.len());
                    let lost = all.len() - read.list.len();
                    // Of a tail that is there no more than the last is doubted.
                    assert!(lost <= 1 || bytes.len() < sound.len(), "{lost} entries");
                }
                Err(Error::Corrupt { path: told, offset, .. }) => {
                    assert!(told == path && offset <= bytes.len() as u64);
                }
                Err(Error::Request(words)) => assert!(words.contains("version"), "{words}"),
                Err(error) => panic!("{error}"),
            }
        }
    }

    #[test]
    fn any_bytes_of_a_partition_are_read_as_they_were_or_told_to_be_damaged() {
        let dir = Dir::new("frames-fuzz");
        filled(&dir, 8);
        let about = About::read(&dir.0).expect("read").expect("there");
        let end = about.entries().expect("sound").ends(2)[1];
        let path = about.sink(1).segment(0);
        let sound = fs::read(&path).expect("there");
        let mut random = Random::new(12);
        for _ in 0..3_000 {
            let mut bytes = sound.clone();
            let at = random.below(bytes.len() as u64) as usize;
            match random.below(3) {
                0 => bytes.truncate(at),
                1 => bytes[at] = random.next() as u8,
                _ => bytes.splice(at..at, [random.next() as u8]).for_each(drop),
            }
            fs::write(&path, &bytes).expect("written");
            let (mut frames, mut into, mut next) = (Frames::new(about.sink(1), end), Vec::new(), 1);
            let read = loop {
                match frames.next(&mut into) {
                    Ok(None) => break Ok(()),
                    Ok(Some(_)) => {
                        assert_eq!(into, vec![next; 30]);
                        next += 1;
                    }
                    Err(error) => break Err(error),
                }
            };
            match read {
                Ok(()) => assert!(bytes == sound || bytes.starts_with(&sound), "the whole is there"),
                Err(Error::Corrupt { .. } | Error::Request(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    #[test]
    fn a_snapshot_is_read_as_it_was_or_not_at_all() {
        let dir = Dir::new("snapshot-fuzz");
        filled(&dir, 1);
        let about = About::read(&dir.0).expect("read").expect("there");
        let keys: Vec<u8> = (0..200).collect();
        write_snapshot(&about, &epoch(1).commit, &keys).expect("written");
        let name = SnapshotName { epoch: 1, shard: 0 };
        assert_eq!(read_snapshot(&about, &name).expect("sound").bytes, keys);
        let sound = fs::read(name.path(&about.snapshots())).expect("there");
        for at in 0..sound.len() {
            let mut flipped = sound.clone();
            flipped[at] ^= 1 << (at % 8);
            for bytes in [&sound[..at], &flipped] {
                fs::write(name.path(&about.snapshots()), bytes).expect("written");
                match read_snapshot(&about, &name) {
                    Err(Error::Corrupt { offset, .. }) => assert!(offset <= at as u64, "{offset} for {at}"),
                    read => panic!("{at}: {read:?}"),
                }
            }
        }
    }
}
