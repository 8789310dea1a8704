//! A partition on disk: frames in segments, each named by the number of messages before it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use crate::{
    error::Error,
    log::{
        Mark,
        frame::{BadFrame, BadHead, FRAME_HEAD, Frame, SEGMENT_HEAD, SegmentHead, VERSION},
    },
};

/// The end of a partition, or of what counts of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct End {
    /// Messages before it.
    pub(crate) messages: u64,
    /// The segment it is in.
    pub(crate) segment: u64,
    /// Bytes of that segment before it; none if there is no segment.
    pub(crate) bytes: u64,
}

/// Which partition of which log, and where.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The folder of its segments.
    pub(crate) dir: PathBuf,
    /// Source, sink or commits.
    pub(crate) kind: u32,
    /// Its number.
    pub(crate) partition: u32,
    /// The log's own number.
    pub(crate) log: u64,
}

impl Place {
    /// Where the segment is that begins there.
    pub(crate) fn segment(&self, first: u64) -> PathBuf {
        self.dir.join(format!("{first:020}.seg"))
    }

    /// The segments that are there, in order.
    pub(crate) fn segments(&self) -> Result<Vec<u64>, Error> {
        let mut firsts = Vec::new();
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(firsts),
            entries => entries.map_err(Error::file("read folder", &self.dir))?,
        };
        for entry in entries {
            let name = entry.map_err(Error::file("read folder", &self.dir))?.file_name();
            let name = name.to_string_lossy();
            firsts.extend(name.strip_suffix(".seg").and_then(|first| first.parse::<u64>().ok()));
        }
        firsts.sort_unstable();
        Ok(firsts)
    }

    /// Whether the segment is there in which an end is, as far as that end. Changes nothing.
    pub(crate) fn reaches(&self, end: End) -> Result<(), Error> {
        if end.bytes == 0 {
            return Ok(());
        }
        let path = self.segment(end.segment);
        let mut file = File::open(&path).map_err(Error::file("open", &path))?;
        let there = file.metadata().map_err(Error::file("read", &path))?.len();
        if there < end.bytes {
            let why = format!("it ends here, and {} bytes of it were committed", end.bytes);
            return Err(Error::Corrupt { path, offset: there, why });
        }
        let mut head = [0; SEGMENT_HEAD];
        file.read_exact(&mut head).map_err(Error::file("read", &path))?;
        self.check(end.segment, &head)
    }

    /// Whether the bytes begin a segment of this partition.
    pub(crate) fn check(&self, first: u64, bytes: &[u8]) -> Result<(), Error> {
        check_head(&self.segment(first), self.head(first), bytes)
    }

    fn head(&self, first: u64) -> SegmentHead {
        SegmentHead { kind: self.kind, partition: self.partition, log: self.log, first }
    }
}

/// Whether the bytes of a file begin with this head.
pub(crate) fn check_head(path: &Path, wanted: SegmentHead, bytes: &[u8]) -> Result<(), Error> {
    let why = match SegmentHead::decode(bytes) {
        Ok(head) if head == wanted => return Ok(()),
        Ok(_) => "its head is that of another file or log",
        Err(BadHead::Short) => "it is too short for the head of a file of a log",
        Err(BadHead::Foreign) => "it is no file of a log",
        Err(BadHead::Damaged) => "the checksum of its head is wrong",
        Err(BadHead::Version(version)) => return Err(other_version(path, version.into())),
    };
    Err(Error::Corrupt { path: path.to_owned(), offset: 0, why: why.to_owned() })
}

/// A file is of another version of the format.
pub(crate) fn other_version(path: &Path, theirs: u64) -> Error {
    Error::Request(format!(
        "{} is of version {theirs} of the log's format; this program reads and writes version {VERSION}: go on with the \
         program that wrote it, or name another folder",
        path.display()
    ))
}

/// Asks for names in a folder to be on disk.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), Error> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(Error::file("write", dir))
}

/// Writes a partition.
#[derive(Debug)]
pub(crate) struct Track {
    place: Place,
    file: Option<File>,
    end: End,
    /// A segment that is longer is followed by another.
    most: u64,
    dirty: bool,
    buffer: Vec<u8>,
}

impl Track {
    /// Goes on at an end. What is behind it was never declared, and is removed; what is missing before it is an error.
    pub(crate) fn open(place: Place, end: End, most: u64) -> Result<Track, Error> {
        fs::create_dir_all(&place.dir).map_err(Error::file("make folder", &place.dir))?;
        let mut track = Track { place, file: None, end, most, dirty: false, buffer: Vec::new() };
        track.cut()?;
        Ok(track)
    }

    /// Removes what is behind the end.
    fn cut(&mut self) -> Result<(), Error> {
        let End { segment, bytes, .. } = self.end;
        self.file = None;
        self.place.reaches(self.end)?;
        for first in self.place.segments()? {
            if first > segment || bytes == 0 {
                let path = self.place.segment(first);
                fs::remove_file(&path).map_err(Error::file("remove", &path))?;
            }
        }
        if bytes == 0 {
            return Ok(());
        }
        let path = self.place.segment(segment);
        let mut file =
            OpenOptions::new().read(true).write(true).open(&path).map_err(Error::file("open", &path))?;
        let at_end = file.set_len(bytes).and_then(|()| file.seek(SeekFrom::Start(bytes)));
        at_end.map_err(Error::file("write", &path))?;
        self.file = Some(file);
        Ok(())
    }

    /// Where it ends.
    pub(crate) fn end(&self) -> End {
        self.end
    }

    /// Appends a frame. It is durable after the next [`sync`](Track::sync).
    pub(crate) fn append(&mut self, messages: u32, bytes: &[u8]) -> Result<(), Error> {
        if self.end.bytes >= self.most || self.file.is_none() {
            self.roll()?;
        }
        self.dirty = true;
        let frame = Frame { first: self.end.messages, messages, bytes };
        self.buffer.clear();
        frame.encode(&mut self.buffer);
        let (path, place) = (|place: &Place, end: End| place.segment(end.segment), &self.place);
        let Some(file) = &mut self.file else { unreachable!("a segment is open") };
        file.write_all(&self.buffer).map_err(|source| Error::file("write", path(place, self.end))(source))?;
        self.end.messages += u64::from(messages);
        self.end.bytes += self.buffer.len() as u64;
        Ok(())
    }

    /// Begins the next segment.
    fn roll(&mut self) -> Result<(), Error> {
        self.sync()?;
        let first = self.end.messages;
        let path = self.place.segment(first);
        let file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(&path);
        let mut file = file.map_err(Error::file("make", &path))?;
        file.write_all(&self.place.head(first).encode()).map_err(Error::file("write", &path))?;
        sync_dir(&self.place.dir)?;
        self.file = Some(file);
        self.end = End { messages: first, segment: first, bytes: SEGMENT_HEAD as u64 };
        self.dirty = true;
        Ok(())
    }

    /// Asks for all that was appended to be on disk.
    pub(crate) fn sync(&mut self) -> Result<(), Error> {
        if let (true, Some(file)) = (self.dirty, &self.file) {
            file.sync_data().map_err(|source| {
                let path = self.place.segment(self.end.segment);
                Error::File { verb: "write", path, source }
            })?;
        }
        self.dirty = false;
        Ok(())
    }

    /// Something was appended that may not be on disk.
    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// Goes back to an end that it had.
    pub(crate) fn rewind(&mut self, end: End) -> Result<(), Error> {
        if self.end != end {
            self.end = end;
            self.cut()?;
        }
        Ok(())
    }
}

/// Removes the segments of a partition that hold nothing from this message on, and never the last.
pub(crate) fn forget_before(place: &Place, message: u64, last: u64) -> Result<(), Error> {
    let firsts = place.segments()?;
    for pair in firsts.windows(2) {
        if pair[1] <= message && pair[0] < last {
            let path = place.segment(pair[0]);
            fs::remove_file(&path).map_err(Error::file("remove", &path))?;
        }
    }
    Ok(())
}

/// Reads a partition up to an end that was declared: what is not sound before it is damage.
#[derive(Debug)]
pub(crate) struct Frames {
    place: Place,
    end: End,
    segments: Vec<u64>,
    file: Option<BufReader<File>>,
    segment: u64,
    at: Mark,
}

impl Frames {
    /// From its first message that is kept to its end.
    pub(crate) fn new(place: Place, end: End) -> Frames {
        Frames { place, end, segments: Vec::new(), file: None, segment: 0, at: Mark::default() }
    }

    /// Where it stands.
    pub(crate) fn mark(&self) -> Mark {
        self.at
    }

    /// Goes on at a mark that [`mark`](Frames::mark) has given.
    pub(crate) fn seek(&mut self, mark: Mark) {
        self.at = mark;
        self.file = None;
    }

    /// The next frame's bytes, the number of messages before it and in it; `None` at the end.
    pub(crate) fn next(&mut self, into: &mut Vec<u8>) -> Result<Option<(u64, u32)>, Error> {
        into.clear();
        if self.at.offset >= self.end.messages {
            return Ok(None);
        }
        self.open()?;
        let path = || self.place.segment(self.segment);
        let Some(file) = &mut self.file else { unreachable!("a segment is open") };
        let begins = self.at.byte;
        let corrupt = |why: &dyn std::fmt::Display| Error::Corrupt {
            path: path(),
            offset: begins,
            why: why.to_string(),
        };
        let read = |file: &mut BufReader<File>, into: &mut [u8]| match file.read_exact(into) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(corrupt(&BadFrame::Short)),
            read => read.map_err(Error::file("read", path())),
        };
        into.resize(FRAME_HEAD, 0);
        read(file, into)?;
        let len = Frame::announced(into).map_err(|bad| corrupt(&bad))?;
        // What is announced is not believed before it is known to be there.
        let limit = if self.segment == self.end.segment { self.end.bytes } else { u64::MAX };
        let there = file.get_ref().metadata().map_err(Error::file("read", path()))?.len().min(limit);
        if begins + len as u64 > there {
            return Err(corrupt(&BadFrame::Short));
        }
        into.resize(len, 0);
        read(file, &mut into[FRAME_HEAD..])?;
        let frame = Frame::decode(into).map_err(|bad| corrupt(&bad))?;
        let (first, messages) = (frame.first, frame.messages);
        if first != self.at.offset {
            let wanted = self.at.offset;
            return Err(corrupt(&format_args!("message {first} is here where message {wanted} should be")));
        }
        into.drain(..FRAME_HEAD);
        self.at = Mark { offset: first + u64::from(messages), byte: begins + len as u64 };
        Ok(Some((first, messages)))
    }

    /// Opens the segment that holds the next message.
    fn open(&mut self) -> Result<(), Error> {
        let after = |segments: &[u64], segment| segments.iter().copied().find(|first| *first > segment);
        if self.file.is_some() && after(&self.segments, self.segment) != Some(self.at.offset) {
            return Ok(());
        }
        self.segments = self.place.segments()?;
        let Some(first) = self.segments.iter().copied().rfind(|first| *first <= self.at.offset) else {
            let (dir, message) = (self.place.dir.clone(), self.at.offset);
            let why = format!("no segment holds message {message}");
            return Err(Error::Corrupt { path: dir, offset: 0, why });
        };
        let path = self.place.segment(first);
        let mut file =
            BufReader::with_capacity(1 << 17, File::open(&path).map_err(Error::file("open", &path))?);
        let mut head = Vec::new();
        let head_is_read = file.by_ref().take(SEGMENT_HEAD as u64).read_to_end(&mut head);
        head_is_read.map_err(Error::file("read", &path))?;
        self.place.check(first, &head)?;
        if first == self.at.offset || self.at.byte < SEGMENT_HEAD as u64 {
            self.at.byte = SEGMENT_HEAD as u64;
            self.at.offset = self.at.offset.max(first);
            if first < self.at.offset {
                let why = format!("nothing says where message {} begins", self.at.offset);
                return Err(Error::Corrupt { path, offset: 0, why });
            }
        } else {
            file.seek(SeekFrom::Start(self.at.byte)).map_err(Error::file("read", &path))?;
        }
        (self.segment, self.file) = (first, Some(file));
        Ok(())
    }
}
