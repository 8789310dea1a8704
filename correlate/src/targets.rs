//! What may be fed any bytes: each of these takes some, and panics if they are not read as they should be. cargo-fuzz runs
//! them (`fuzz/`), and the tests below do the same with bytes of their own.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::json;

use crate::{
    error::Error,
    job::Share,
    log::{
        Commit, Epoch, Log, Mark, Merge, Rows, Totals,
        code::{Reader, Writer},
        embedded::{About, Entry, Folder, Trial, decode_snapshot},
        segment::Frames,
    },
    read::{Folder as Input, Manner, Partition, Source},
    record::{CsvKeys, Fields},
    text::each_record,
};

/// Epochs of the log that is edited.
const EPOCHS: u64 = 6;

/// A folder of this process and this use, empty.
fn folder(name: &str) -> PathBuf {
    let thread = std::thread::current().id();
    let dir = std::env::temp_dir().join(format!("correlate-{name}-{}-{thread:?}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    dir
}

/// An epoch with a row.
fn epoch(number: u64) -> Epoch {
    let until = Mark { offset: number * 10, byte: 0 };
    let commit = Commit {
        epoch: number,
        totals: Totals { messages: number * 10, ..Totals::default() },
        cut: vec![until],
        merges: vec![Merge { partition: 0, stage: 0, until }],
        ..Commit::default()
    };
    Epoch { commit, rows: vec![Rows { file: 0, count: 1, bytes: vec![number as u8; 30] }], snapshot: None }
}

fn opened(dir: &Path) -> Result<(impl Log, Vec<Commit>), Error> {
    let (log, past) = Folder::open(dir, &json!("fuzz"))?.log(vec![0], 1, Trial::default())?;
    Ok((log, past.commits))
}

/// Does to a file what the bytes say: three say where, one says what.
fn edit(file: &mut Vec<u8>, edits: &[u8]) {
    for edit in edits.chunks_exact(4).take(8) {
        let at = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % (file.len() + 1);
        let len = usize::from(edit[2]);
        match edit[3] % 5 {
            0 => file.truncate(at),
            1 => file.extend_from_slice(&edits[..len.min(edits.len())]),
            2 => drop(file.drain(at..(at + len).min(file.len()))),
            3 => drop(file.splice(at..at, std::iter::repeat_n(edit[2], len / 4 + 1))),
            _ => file.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << (len % 8)),
        }
    }
}

/// A log whose commits or rows were edited is opened: what is read was written, in order, from the first on, and the rest
/// is made again; or the damage is told, with a file that is there and a byte that is in it.
pub(crate) fn recovery(bytes: &[u8]) {
    let Some((which, edits)) = bytes.split_first() else { return };
    let dir = folder("fuzz-recovery");
    let (mut log, _) = opened(&dir).expect("a new log");
    (1..=EPOCHS).for_each(|number| log.commit(&epoch(number), Share::ALL).expect("committed"));
    drop(log);
    let about = About::read(&dir).expect("read").expect("there");
    let (commits, sink) = (dir.join("commits"), about.sink(0).segment(0));
    let path = if which % 2 == 0 { commits.join("00000000000000000000.seg") } else { sink };
    let sound = fs::read(&path).expect("there");
    let mut file = sound.clone();
    edit(&mut file, edits);
    fs::write(&path, &file).expect("written");
    let told = |error: Error| match error {
        Error::Corrupt { path, offset, .. } => {
            let there = fs::metadata(&path).map_or(0, |file| file.len());
            assert!(path.starts_with(&dir) && (offset <= there || path.is_dir()), "{path:?} at {offset}");
        }
        Error::Request(words) => assert!(words.contains("version"), "{words}"),
        Error::File { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {}
        error => panic!("{error}"),
    };
    match opened(&dir) {
        Err(error) => {
            told(error);
            assert!(fs::read(&path).expect("there") == file, "what is damaged was changed");
        }
        Ok((mut log, past)) => {
            let done = past.len() as u64;
            assert!(past.iter().eq((1..=done).map(|number| epoch(number).commit).collect::<Vec<_>>().iter()));
            // No more than the last is given up where the file is not shorter than it was.
            assert!(done + 1 >= EPOCHS || file.len() < sound.len(), "{done} epochs");
            (done + 1..=EPOCHS).for_each(|number| log.commit(&epoch(number), Share::ALL).expect("committed"));
            drop(log);
            let end = about.entries().expect("sound").ends(1)[0];
            let (mut frames, mut row, mut next) = (Frames::new(about.sink(0), end), Vec::new(), 1);
            loop {
                match frames.next(&mut row) {
                    Ok(Some(_)) => assert!(row == vec![next; 30], "{row:?} is no row {next}"),
                    Ok(None) => break assert_eq!(u64::from(next) - 1, EPOCHS),
                    Err(error) => break told(error),
                }
                next += 1;
            }
        }
    }
    let _ = fs::remove_dir_all(&dir);
}

/// Bytes that are an entry of the commits, or a commit, are no other's; and a snapshot is whole or none.
pub(crate) fn commit_record(bytes: &[u8]) {
    if let Ok(entry) = Entry::decode(bytes) {
        let mut again = Writer::default();
        entry.encode(&mut again);
        assert!(again.0 == bytes, "{entry:?}");
    }
    let mut rest = Reader(bytes);
    if let Ok(commit) = Commit::decode(&mut rest) {
        let mut again = Writer::default();
        commit.encode(&mut again);
        assert!(bytes == [&again.0, rest.0].concat(), "{commit:?}");
    }
    if let Ok(snapshot) = decode_snapshot(bytes) {
        assert!(snapshot.bytes.len() < bytes.len());
    }
}

/// What is read of a file.
struct Lines {
    /// Their numbers, and whether each is a record.
    lines: Vec<(u64, bool)>,
    /// How many of them come before the end of each block, and where that is.
    ends: Vec<(usize, Mark)>,
}

fn lines(source: &Source, from: Mark, manner: &Manner) -> Lines {
    let (mut partition, mut lines, mut ends) = (Partition::new(source.clone()), Vec::new(), Vec::new());
    partition.seek(from);
    while partition.fill(manner).expect("damage is a broken line, and no error") {
        let block = partition.block.take().expect("it was filled");
        let first = lines.len();
        let read = each_record(&block, manner, |found| {
            lines.push(match found {
                Ok(record) => (record.line, true),
                Err(broken) => (broken.line, false),
            });
            Ok(())
        });
        read.expect("nothing of ours fails");
        lines[first..].sort_unstable();
        ends.push((lines.len(), partition.mark()));
    }
    Lines { lines, ends }
}

/// A file is read, as lines, as CSV, or unpacked: every line that is not blank is a record or broken, once; and from any
/// mark on it is read as it was.
pub(crate) fn input(bytes: &[u8]) {
    let Some((form, text)) = bytes.split_first() else { return };
    let dir = folder("fuzz-input");
    fs::create_dir_all(&dir).expect("a folder");
    let (name, is_plain) =
        [("a.ndjson", true), ("a.csv", false), ("a.ndjson.gz", false), ("a.csv.gz", false)]
            [usize::from(form % 4)];
    fs::write(dir.join(name), text).expect("written");
    let source = Input::open(&dir).expect("a folder with a file").sources.remove(0);
    let fields = Fields { stage: "stage".to_owned(), key: "key".to_owned(), csv_keys: CsvKeys::default() };
    let longest = [16, 64, 1 << 20][usize::from(form / 4 % 3)];
    let manner = Manner { fields, longest, bytes: Default::default(), cut_short: Default::default() };
    let Lines { lines: all, ends } = lines(&source, Mark::default(), &manner);
    // A record of CSV may end with a carriage return, in the middle of a line.
    assert!(all.is_sorted_by_key(|(line, _)| *line), "a line comes too late: {all:?}");
    if is_plain {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let wanted = (1..).zip(text.split(|byte| *byte == b'\n'));
        // A line that is too long is broken, blank or not.
        let wanted = wanted.filter(|(_, line)| {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            line.len() > longest || !line.trim_ascii().is_empty()
        });
        let wanted: Vec<u64> = wanted.map(|(number, _)| number).collect();
        assert_eq!(all.iter().map(|(line, _)| *line).collect::<Vec<_>>(), wanted);
    }
    // What is read on from the end of each block is what came behind it.
    for (read, mark) in ends.iter().take(4) {
        assert_eq!(lines(&source, *mark, &manner).lines, all[*read..], "from {mark:?} on");
    }
    let _ = fs::remove_dir_all(&dir);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn some(random: &mut Random, most: u64) -> Vec<u8> {
        (0..random.below(most)).map(|_| random.next() as u8).collect()
    }

    #[test]
    fn a_log_with_any_edits_is_recovered_or_its_damage_is_told() {
        let mut random = Random::new(31);
        for _ in 0..120 {
            recovery(&some(&mut random, 14));
        }
    }

    #[test]
    fn any_bytes_are_one_record_or_none() {
        let mut random = Random::new(32);
        for number in 0..20_000 {
            let mut bytes = Writer::default();
            if number % 2 == 0 {
                bytes.0.push(1);
                bytes.u32(1);
            }
            epoch(number).commit.encode(&mut bytes);
            bytes.u32(0);
            edit(&mut bytes.0, &some(&mut random, 9));
            commit_record(&bytes.0);
        }
    }

    #[test]
    fn any_file_is_read_line_by_line_and_no_line_is_lost() {
        let mut random = Random::new(33);
        let pieces: [&[u8]; 12] = [
            b"\n",
            b"\r\n",
            b",",
            b"\"",
            b"{\"stage\":\"A\",\"key\":7}\n",
            b"stage,key\n",
            b"A,7,\"x\ny\"\n",
            b"\xef\xbb\xbf",
            b"   ",
            b"\xff",
            b"{\"key\":",
            b"\x1f\x8b\x08\x00",
        ];
        for _ in 0..3_000 {
            let mut bytes = vec![random.next() as u8];
            for _ in 0..random.below(30) {
                bytes.extend_from_slice(pieces[random.below(12) as usize]);
                if random.below(4) == 0 {
                    bytes.extend(some(&mut random, 80));
                }
            }
            input(&bytes);
        }
    }
}
