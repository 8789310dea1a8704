//! What may happen to a log's folder, from outside: each is told with file, byte and what to do, damages nothing, and the same
//! command goes on once it is mended.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use crate::{Folder, refused, report, said};

/// Many small epochs and segments.
const JOB: &str = "--log log --messages 8000 --kills 0 --quiet --epoch 1 --epoch-messages 200 --batch 64 --snapshot 1 --segment-bytes 4000 --report json";

impl Folder {
    /// A log of a job that ended between rows and commit, half-way: commits, and snapshots, and rows that do not count.
    fn half_done(name: &str) -> Folder {
        let folder = Folder::new(name);
        for _ in 0..20 {
            let dead = folder.correlate(&format!("{JOB} --die-in-epoch 30"));
            assert!(!matches!(dead.status.code(), Some(0..=3)), "{}", said(&dead.stderr));
            let are_there = |(dir, least)| folder.files(dir).len() >= least;
            if [("log/snapshots", 2), ("log/commits", 2), ("log/sink-05", 1)].into_iter().all(are_there) {
                return folder;
            }
        }
        panic!("there is no second snapshot after twenty lives");
    }

    /// All files below, and what is in them.
    fn everything(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let (mut files, mut dirs) = (BTreeMap::new(), vec![self.path("log")]);
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    dirs.push(path);
                } else {
                    let bytes = fs::read(&path).expect("a file");
                    files.insert(path, bytes);
                }
            }
        }
        files
    }

    /// The files of a folder, in the order of their names.
    fn files(&self, dir: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path(dir)).into_iter().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
        paths.retain(|path| path.extension().is_none_or(|end| end != "unfinished"));
        paths.sort();
        paths
    }

    /// The job comes to its end, and every message was joined once, in the eyes of `verify` too.
    #[track_caller]
    fn goes_on(&self) {
        let report = report(&self.correlate(JOB));
        assert_eq!(report["exact"], true, "{report}");
        refused(&self.correlate("verify --log log"), 0, "exact: 8,000 rows");
    }

    /// A script, as root of a mount namespace of its own; `None`, and loudly, where the system gives none.
    fn apart(&self, script: &str) -> Option<Output> {
        let run = |script: &str| {
            let mut unshare = Command::new("unshare");
            unshare.current_dir(&self.0).args(["--map-root-user", "--mount", "sh", "-c", script]);
            unshare.env("CORRELATE", env!("CARGO_BIN_EXE_correlate")).output()
        };
        let can = run("mkdir -p apart && mount -t tmpfs -o size=1m none apart")
            .is_ok_and(|can| can.status.success());
        if !can {
            eprintln!("NOT TESTED: this system gives no mount namespace (unshare --map-root-user --mount)");
            return None;
        }
        run(script).ok()
    }
}

fn crc(bytes: &[u8]) -> [u8; 4] {
    crc32fast::hash(bytes).to_le_bytes()
}

/// Where the frames of a segment begin.
fn frames(bytes: &[u8]) -> Vec<usize> {
    let (mut at, mut starts) = (40, Vec::new());
    while let Some(len) = bytes.get(at + 4..at + 8) {
        starts.push(at);
        at += 24 + u32::from_le_bytes(len.try_into().expect("four bytes")) as usize;
    }
    starts
}

fn name(path: &Path) -> String {
    path.file_name().expect("a name").to_string_lossy().into_owned()
}

#[test]
fn a_folder_that_may_not_be_written_is_refused_and_left_as_it_is() {
    let folder = Folder::half_done("log-read-only");
    let before = folder.everything();
    let refusal = |output: &Output| {
        refused(output, 1, "cannot make log/lock");
        refused(output, 1, "allow it, or name another folder");
    };
    // Permissions are nothing to root.
    let mode =
        |mode| fs::set_permissions(folder.path("log"), fs::Permissions::from_mode(mode)).expect("ours");
    fs::remove_file(folder.path("log/lock")).expect("it was there");
    mode(0o555);
    let is_root = fs::write(folder.path("log/probe"), "").is_ok();
    if !is_root {
        refusal(&folder.correlate(JOB));
    }
    mode(0o755);
    let _ = fs::remove_file(folder.path("log/probe"));
    fs::write(folder.path("log/lock"), "").expect("ours");
    let script = |words: &str| {
        format!("mount --bind log log && mount -o remount,bind,ro log && exec \"$CORRELATE\" {words}")
    };
    if let Some(output) = folder.apart(&script(JOB)) {
        refusal(&output);
        // Who only looks may look.
        let looked = folder.apart(&script("status --log log")).expect("as before");
        refused(&looked, 0, "restarts");
        let begun = folder.apart(&script("--log log/new --messages 10")).expect("as before");
        refused(&begun, 1, "cannot make folder log/new");
    }
    assert!(folder.everything() == before, "something was changed");
    folder.goes_on();
}

#[test]
fn a_folder_below_a_file_is_refused() {
    let folder = Folder::new("log-below-a-file");
    folder.file("file", "mine");
    refused(&folder.correlate("--log in/file --messages 10"), 1, "cannot make folder in/file");
    refused(&folder.correlate("--log in/file/log --messages 10"), 1, "cannot make folder in/file/log");
    assert_eq!(fs::read(folder.path("in/file")).expect("it is there"), b"mine");
}

#[test]
fn a_disk_may_be_full_for_any_file_of_a_log_and_the_same_command_goes_on_when_there_is_room() {
    let folder = Folder::new("log-full-anywhere");
    let job = "--log log --messages 20000 --kills 0 --quiet --report json";
    // Files may have so many kilobytes, and writing more is an error: which is too long first depends on the pace.
    let meet = |kilobytes: u32, pace: &str, part: &str| {
        let program = env!("CARGO_BIN_EXE_correlate");
        let script = format!("trap '' XFSZ; ulimit -f {kilobytes}; exec {program} {job} {pace}");
        let mut shell = Command::new("bash");
        let output = shell.current_dir(&folder.0).args(["-c", &script]).output().expect("bash starts");
        refused(&output, 1, &format!("cannot write log/{part}"));
        refused(&output, 1, "make room and start again");
    };
    let (seldom, often) = ("--epoch 3600000 --snapshot 3600000", "--epoch 1 --epoch-messages 400 --snapshot");
    meet(0, seldom, "log.json");
    meet(50, seldom, "source-");
    let dead = folder.correlate(&format!("{job} --die-in-epoch 1 {seldom}"));
    assert!(!matches!(dead.status.code(), Some(0..=3)), "{}", said(&dead.stderr));
    meet(20, seldom, "sink-");
    meet(40, &format!("{often} 3600000"), "commits/");
    // All others stay below that.
    meet(200, "--epoch 3600000 --epoch-messages 3000 --snapshot 1", "snapshots/");
    let report = report(&folder.correlate(job));
    assert_eq!(report["exact"], true, "{report}");
    refused(&folder.correlate("verify --log log"), 0, "exact: 20,000 rows");
}

#[test]
fn a_disk_that_is_really_full_stops_the_run_and_damages_nothing() {
    let folder = Folder::new("log-small-disk");
    // What fills it is not ours, and goes away.
    let script = format!(
        "mount -t tmpfs -o size=8m none apart && cd apart && \"$CORRELATE\" {JOB} --die-in-epoch 9; \
         cat /dev/zero > filler 2>&- ; rm -f ../full; \"$CORRELATE\" {JOB} 2> ../full; [ $? = 1 ] || exit 9; \
         rm filler; exec \"$CORRELATE\" {JOB}"
    );
    let Some(output) = folder.apart(&script) else { return };
    let words = fs::read_to_string(folder.path("full")).unwrap_or_default();
    assert!(words.contains("cannot") && words.contains("make room and start again"), "{words}");
    assert_eq!(report(&output)["exact"], true);
}

#[test]
fn a_second_process_is_refused_while_another_has_the_log_and_changes_nothing() {
    let folder = Folder::half_done("log-second");
    let lock = OpenOptions::new().write(true).open(folder.path("log/lock")).expect("it is there");
    lock.lock().expect("nobody else wants it");
    let before = folder.everything();
    let second = folder.correlate(JOB);
    refused(&second, 1, "another process is working on the log in log: wait for its end");
    refused(&folder.correlate("status --log log"), 0, "a process is working on it");
    assert!(folder.everything() == before, "something was changed");
    // Not only dropped: another test may be starting a process just now, which has a copy until it runs.
    lock.unlock().expect("it was locked");
    folder.goes_on();
}

#[test]
fn files_of_another_version_are_refused_each_by_name_and_left_as_they_are() {
    let folder = Folder::half_done("log-versions");
    // The source comes last: when it is read, the job has begun.
    for dir in ["sink-05", "commits", "snapshots", "source-04"] {
        let path = &folder.files(&format!("log/{dir}")).pop().expect("there are some");
        let ours = fs::read(path).expect("a file");
        let mut theirs = ours.clone();
        theirs[8] = 2;
        let sum = crc(&theirs[..36]);
        theirs[36..40].copy_from_slice(&sum);
        fs::write(path, &theirs).expect("written");
        let before = folder.everything();
        let words = format!("{} is of version 2 of the log's format", name(path));
        let output = folder.correlate(JOB);
        refused(&output, 1, &words);
        refused(&output, 1, "go on with the program that wrote it");
        assert!(dir == "source-04" || folder.everything() == before, "something was changed");
        if ["sink-05", "commits"].contains(&dir) {
            let words = format!("{} is of version 2", name(path));
            refused(&folder.correlate("verify --log log"), 1, &words);
        }
        assert!(fs::read(path).expect("a file") == theirs, "it was changed");
        fs::write(path, ours).expect("written");
    }
    folder.goes_on();
}

/// Of a file's frame number `n`: a byte of its mark, length, count, place, checksum, and payload.
fn spots(bytes: &[u8], n: usize) -> (usize, [usize; 6]) {
    let at = frames(bytes)[n];
    (at, [at, at + 4, at + 8, at + 12, at + 20, at + 24])
}

#[test]
fn a_flipped_bit_anywhere_is_told_with_file_and_byte_and_left_as_it_is() {
    let folder = Folder::half_done("log-flips");
    let flipped = |path: &Path, at: usize, words: &str| {
        let sound = fs::read(path).expect("a file");
        let mut flipped = sound.clone();
        flipped[at] ^= 4;
        fs::write(path, &flipped).expect("written");
        let output = folder.correlate(words);
        assert!(fs::read(path).expect("a file") == flipped, "it was changed");
        fs::write(path, &sound).expect("written");
        output
    };
    let told = |output: &Output, path: &Path, at: usize| {
        refused(output, 1, &format!("{} is damaged at byte {at}: ", name(path)));
        refused(output, 1, "put it back from a copy, or begin anew in another folder");
    };
    // Of commits the last may be torn, so one with others behind it; of a snapshot any.
    for dir in ["log/commits", "log/snapshots"] {
        let path = folder.files(dir).into_iter().rev().nth(1).expect("there are two");
        let bytes = fs::read(&path).expect("a file");
        let (at, spots) = spots(&bytes, 0);
        for spot in spots {
            told(&flipped(&path, spot, JOB), &path, at);
        }
        told(&flipped(&path, 20, JOB), &path, 0);
    }
    // What is read on the way, so that commits may be made before it: a partition of the source.
    let path = folder.files("log/source-02").pop().expect("there are some");
    let bytes = fs::read(&path).expect("a file");
    let (at, spots) = spots(&bytes, 0);
    for spot in [spots[1], spots[4], spots[5]] {
        told(&flipped(&path, spot, JOB), &path, at);
    }
    folder.goes_on();
}

#[test]
fn verify_finds_a_flipped_bit_in_the_rows_wherever_it_is() {
    let folder = Folder::new("log-flipped-rows");
    report(&folder.correlate(JOB));
    for (dir, which) in [("log/sink-00", 0), ("log/sink-07", 1), ("log/sink-11", usize::MAX)] {
        let files = folder.files(dir);
        let path = &files[which.min(files.len() - 1)];
        let sound = fs::read(path).expect("a file");
        let starts = frames(&sound);
        let (at, spots) = spots(&sound, starts.len() / 2);
        for (spot, at) in spots.map(|spot| (spot, at)).into_iter().chain([(3, 0), (8, 0), (33, 0), (37, 0)]) {
            let mut flipped = sound.clone();
            flipped[spot] ^= 0x10;
            fs::write(path, &flipped).expect("written");
            let words = format!("{} is damaged at byte {at}: ", name(path));
            refused(&folder.correlate("verify --log log"), 1, &words);
        }
        // Shorter by a byte, and gone.
        fs::write(path, &sound[..sound.len() - 1]).expect("written");
        refused(&folder.correlate("verify --log log"), 1, &format!("{} is damaged at byte ", name(path)));
        fs::remove_file(path).expect("it was there");
        refused(&folder.correlate("verify --log log"), 1, "is damaged at byte ");
        fs::write(path, &sound).expect("written");
    }
    // Commits are read too: one with others behind it is damaged, and only the last may be torn.
    let path = folder.files("log/commits").into_iter().rev().nth(1).expect("there are two");
    let sound = fs::read(&path).expect("a file");
    let (at, spots) = spots(&sound, 0);
    for spot in spots {
        let mut flipped = sound.clone();
        flipped[spot] ^= 0x10;
        fs::write(&path, &flipped).expect("written");
        let words = format!("{} is damaged at byte {at}: ", name(&path));
        refused(&folder.correlate("verify --log log"), 1, &words);
    }
    fs::write(&path, &sound).expect("written");
    folder.goes_on();
}

#[test]
fn a_snapshot_that_is_damaged_may_be_removed_and_the_one_before_will_do() {
    let folder = Folder::half_done("log-snapshot-gone");
    let newest = folder.files("log/snapshots").pop().expect("there are some");
    let mut bytes = fs::read(&newest).expect("a file");
    bytes.truncate(bytes.len() - 3);
    fs::write(&newest, bytes).expect("written");
    refused(&folder.correlate(JOB), 1, "without this file the snapshot before it is used");
    fs::remove_file(&newest).expect("it was there");
    folder.goes_on();
}

#[test]
fn a_last_commit_that_is_torn_is_made_again_wherever_it_is_torn() {
    let folder = Folder::half_done("log-torn");
    // Without the snapshot that may be of the last commit.
    let path = folder.files("log/commits").pop().expect("there are some");
    let sound = fs::read(&path).expect("a file");
    let last = *frames(&sound).last().expect("there are some");
    let before = folder.everything();
    let step = ((sound.len() - last) / 6).max(1);
    for end in (last..sound.len()).step_by(step) {
        fs::write(&path, &sound[..end]).expect("written");
        let status = folder.correlate("status --log log");
        refused(&status, 0, if end == last { "commits" } else { "torn tail" });
        let report = report(&folder.correlate(JOB));
        assert_eq!(report["exact"], true, "cut at {end}: {report}");
        // As it was before, for the next cut.
        fs::remove_dir_all(folder.path("log")).expect("it was there");
        for (path, bytes) in &before {
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, bytes).expect("written");
        }
    }
    folder.goes_on();
}

#[test]
fn commits_that_are_gone_though_a_snapshot_knows_of_them_are_missed() {
    let folder = Folder::half_done("log-commits-gone");
    let snapshot = folder.files("log/snapshots").pop().expect("there are some");
    let commits = folder.files("log/commits");
    for path in &commits[1..] {
        fs::remove_file(path).expect("it was there");
    }
    OpenOptions::new().write(true).open(&commits[0]).and_then(|file| file.set_len(40)).expect("cut");
    let before = folder.everything();
    let output = folder.correlate(JOB);
    refused(&output, 1, &format!("{} is damaged at byte 0: it is of epoch ", name(&snapshot)));
    refused(&output, 1, "log/commits");
    assert!(folder.everything() == before, "something was changed");
}

#[test]
fn what_no_snapshot_needs_is_removed_from_source_and_commits_and_a_restart_is_exact() {
    let folder = Folder::half_done("log-retention");
    let first = |part: &str| {
        let path = folder.files(&format!("log/{part}")).remove(0);
        name(&path).trim_end_matches(".seg").parse::<u64>().expect("a number")
    };
    for _ in 0..20 {
        if first("commits") > 0 && (0..12).all(|part| first(&format!("source-{part:02}")) > 0) {
            break;
        }
        folder.correlate(&format!("{JOB} --die-in-epoch 25"));
    }
    assert!(first("commits") > 0, "commits stay for ever");
    assert!((0..12).all(|part| first(&format!("source-{part:02}")) > 0), "the source stays for ever");
    assert_eq!(first("sink-00"), 0, "no row goes");
    assert!(folder.files("log/snapshots").len() <= 3, "two, and one that came last");
    let status = said(&folder.correlate("status --log log").stdout);
    assert!(!status.contains("lag               0 messages"), "it is not through: {status}");
    folder.goes_on();
    let unfinished = |path: &&PathBuf| path.extension().is_some_and(|end| end == "unfinished");
    assert_eq!(folder.everything().keys().find(unfinished), None, "what a death left goes too");
}
