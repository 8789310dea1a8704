//! The program from outside: what is typed, what is printed, what is on disk.

#[cfg(unix)]
#[path = "it/damage.rs"]
mod damage;
#[cfg(feature = "kafka")]
#[path = "it/kafka.rs"]
mod kafka;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;

/// A folder of a test's own, gone with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("in")).expect("a folder");
        Folder(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.0.join("in").join(name), bytes).expect("a file");
    }

    fn packed(&self, name: &str, bytes: &[u8]) -> Vec<u8> {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(bytes).expect("memory");
        let packed = packer.finish().expect("memory");
        self.file(name, &packed);
        packed
    }

    /// The program, in this folder.
    fn correlate(&self, words: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_correlate"));
        command.current_dir(&self.0).args(words.split_whitespace()).output().expect("it starts")
    }

    /// Joins `in` into `out`, successfully, and gives back the report.
    fn run(&self, options: &str) -> Value {
        report(&self.correlate(&format!("run --input in --output out --report json {options}")))
    }

    fn verify(&self) -> Output {
        self.correlate("verify --input in --output out")
    }

    /// The lines of an output file.
    fn lines(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.0.join("out").join(name)).expect("an output file");
        text.lines().map(str::to_owned).collect()
    }

    /// All rows, of all partitions, sorted.
    fn rows(&self) -> Vec<String> {
        let files = fs::read_dir(self.0.join("out")).expect("an output folder");
        let names = files.map(|file| file.expect("an entry").file_name().to_string_lossy().into_owned());
        let mut rows: Vec<String> =
            names.filter(|name| name.starts_with("part-")).flat_map(|name| self.lines(&name)).collect();
        rows.sort();
        rows
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn report(output: &Output) -> Value {
    assert!(output.status.success(), "{}{}", said(&output.stdout), said(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("a report in JSON")
}

/// It failed, and said this, and nothing of panics.
#[track_caller]
fn refused(output: &Output, code: i32, words: &str) {
    let all = said(&output.stdout) + &said(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{all}");
    assert!(all.contains(words), "{all}");
    assert!(!all.contains("panicked at"), "{all}");
}

/// A small random generator of the tests' own.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

// ---- the main job

#[test]
fn with_no_command_three_streams_are_joined_exactly_though_workers_die() {
    let folder = Folder::new("main-job");
    let report = report(&folder.correlate("--messages 30000 --report json"));
    assert_eq!(report["exact"], true);
    assert_eq!((&report["messages_lost"], &report["messages_doubled"]), (&0.into(), &0.into()));
    assert_eq!((&report["messages"], &report["joined"]), (&90_000.into(), &30_000.into()));
    assert!(report["workers_lost"].as_u64() >= Some(6), "{report}");
    let kinds: BTreeSet<&str> =
        report["deaths"].as_array().expect("deaths").iter().filter_map(|d| d["kind"].as_str()).collect();
    assert_eq!(kinds, BTreeSet::from(["Panic", "Error", "Dropped"]));
}

#[test]
fn the_main_job_says_in_plain_lines_what_happens_and_no_backtrace() {
    let output = Folder::new("plain-lines").correlate("--messages 30000 --seed 3");
    let (out, err) = (said(&output.stdout), said(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    assert!(err.contains("killed by the plan") && err.contains("messages merged"), "{err}");
    assert!(!err.contains("panicked at") && !err.contains("backtrace"), "{err}");
    for line in [
        "aggregation rate",
        "correlation rate",
        "at the peak",
        "memory",
        "restarted",
        "lost     0",
        "doubled  0",
    ] {
        assert!(out.contains(line), "{line}: {out}");
    }
    assert!(out.lines().last().is_some_and(|line| line.starts_with("exact")), "{out}");
}

#[test]
fn the_main_job_is_exact_for_any_seed_batch_partition_and_thread() {
    let folder = Folder::new("any");
    for (seed, options) in
        ["--threads 1", "--batch 1", "--partitions 1", "--partitions 100 --threads 5"].iter().enumerate()
    {
        let report = report(
            &folder.correlate(&format!("--messages 3000 --seed {seed} --kills 40 --report json {options}")),
        );
        assert_eq!(report["exact"], true, "{options}");
    }
}

#[test]
fn the_ceiling_is_measured_on_request() {
    let report = report(&Folder::new("ceiling").correlate("--messages 5000 --compare=3 --report json"));
    assert!(report["ceiling"]["ratio"].as_f64() > Some(0.0));
    assert_eq!(report["ceiling"]["plain_seconds"].as_array().map(Vec::len), Some(3));
}

// ---- real input

#[test]
fn what_is_generated_is_joined_and_verified_in_every_format() {
    let folder = Folder::new("formats");
    for format in ["ndjson", "ndjson.gz", "csv", "mixed"] {
        let made = folder.correlate(&format!(
            "generate --output in --messages 3000 --format {format} --missing 10 --duplicates 10 --broken 5 --overwrite"
        ));
        assert!(made.status.success(), "{}", said(&made.stderr));
        let report = folder.run("--kills 20 --overwrite");
        assert!(report["joined"].as_u64() > Some(2_500), "{report}");
        assert!(report["incomplete_keys"].as_u64() > Some(30), "{report}");
        assert!(report["duplicates"].as_u64() > Some(30), "{report}");
        let broken = format!("{} broken lines", report["rejected_lines"]);
        assert!(said(&made.stdout).contains(&broken), "{}{report}", said(&made.stdout));
        let verdict = folder.verify();
        assert!(verdict.status.success(), "{format}: {}", said(&verdict.stdout));
        fs::remove_dir_all(folder.path("in")).expect("it was there");
    }
}

#[test]
fn records_are_carried_through_as_they_came() {
    let folder = Folder::new("as-they-came");
    let rest = r#""big":123456789012345678901234567890,"float":1.10e+00,"text":"\u00e9é\/\n \ud83d\ude00","deep":{"a": [1, {}]}"#;
    folder.file("a.ndjson", format!(r#"{{"stage":"A","key":7,{rest}}}"#));
    folder.file("b.ndjson", r#"{ "z" : 1, "key" : 7, "stage" : "B" }"#);
    folder.run("");
    assert_eq!(folder.rows(), [format!(r#"{{"key":7,"A":{{{rest}}},"B":{{"z":1}}}}"#)]);
    assert!(folder.verify().status.success());
}

#[test]
fn integers_and_strings_are_different_keys_and_csv_meets_integers() {
    let folder = Folder::new("keys");
    folder.file("a.ndjson", "{\"stage\":\"A\",\"key\":1}\n{\"stage\":\"A\",\"key\":\"1\"}\n{\"stage\":\"A\",\"key\":\"\\u0078\\\"\"}\n");
    folder.file("b.csv", "amount,key,stage\n1.50,1,B\n\"a,b\",\"x\"\"\",B\n3,01,B\n");
    folder.run("");
    let rows = [r#"{"key":"x\"","A":{},"B":{"amount":"a,b"}}"#, r#"{"key":1,"A":{},"B":{"amount":"1.50"}}"#];
    assert_eq!(folder.rows(), rows);
    assert_eq!(folder.lines("incomplete.ndjson").len(), 2);
    assert!(folder.verify().status.success());
    folder.run("--csv-keys string --overwrite");
    let rows =
        [r#"{"key":"1","A":{},"B":{"amount":"1.50"}}"#, r#"{"key":"x\"","A":{},"B":{"amount":"a,b"}}"#];
    assert_eq!(folder.rows(), rows);
    assert!(folder.verify().status.success());
}

#[test]
fn fields_are_named_by_options_and_stages_keep_their_order() {
    let folder = Folder::new("fields");
    folder.file("a.ndjson", "{\"kind\":\"paid\",\"id\":1}\n{\"kind\":\"made\",\"id\":1,\"stage\":0}\n{\"kind\":\"lost\",\"id\":1}\n");
    let report = folder.run("--stage kind --key id --stages paid,made");
    assert_eq!(folder.rows(), [r#"{"id":1,"paid":{},"made":{"stage":0}}"#]);
    assert_eq!(report["rejected_lines"], 1);
    assert!(folder.lines("rejects.ndjson")[0].contains("stage `lost` is none of the stages"));
    assert!(folder.verify().status.success());
}

#[test]
fn two_to_sixteen_stages_are_joined_and_no_others() {
    let folder = Folder::new("stages");
    let lines = |stages: u32| -> String {
        (0..50)
            .flat_map(|key| {
                (0..stages).map(move |stage| format!("{{\"stage\":\"s{stage:02}\",\"key\":{key}}}\n"))
            })
            .collect()
    };
    for stages in [2, 3, 16] {
        folder.file("a.ndjson", lines(stages));
        assert_eq!(folder.run("--kills 9 --overwrite")["joined"], 50, "{stages}");
        assert!(folder.verify().status.success());
    }
    fs::remove_dir_all(folder.path("out")).expect("it was there");
    for (stages, words) in [(1, "2 to 16 stages"), (17, "more than 16 stages")] {
        folder.file("a.ndjson", lines(stages));
        refused(&folder.correlate("run -i in -o out"), 1, words);
        assert!(!folder.path("out").exists(), "nothing is left of a refusal");
    }
}

#[test]
fn broken_lines_are_set_aside_with_file_and_line() {
    let folder = Folder::new("broken");
    folder.file("a.ndjson", b"\xef\xbb\xbf{\"stage\":\"A\",\"key\":1}\r\n\r\n   \nnonsense\n{\"stage\":{\"x\":1},\"key\":1}\n\xff\xfe\n{\"stage\":\"B\",\"key\":1}");
    folder.file("b.csv", "\u{feff}key,stage,v\r\n2,A,\"two\r\nlines\"\r\n\r\n3,A\r\n,A,x\r\n2,B,y");
    folder.file("notes.txt", "not read");
    let report = folder.run("--kills 5");
    assert_eq!((&report["joined"], &report["rejected_lines"]), (&2.into(), &5.into()), "{report}");
    assert_eq!(report["not_read"][0], "notes.txt");
    let mut rejects: Vec<(String, u64, String)> = folder
        .lines("rejects.ndjson")
        .iter()
        .map(|line| serde_json::from_str(line).expect("a reject in JSON"))
        .map(|line: Value| {
            let set_aside = line["text"].as_str().or(line["hex"].as_str()).unwrap_or_default();
            (
                line["file"].as_str().unwrap_or_default().into(),
                line["line"].as_u64().unwrap_or_default(),
                set_aside.into(),
            )
        })
        .collect();
    rejects.sort();
    let wanted = [
        ("a.ndjson", 4, "nonsense"),
        ("a.ndjson", 5, "{\"stage\":{\"x\":1},\"key\":1}"),
        ("a.ndjson", 6, "fffe"),
        ("b.csv", 5, "3,A"),
        ("b.csv", 6, ",A,x"),
    ];
    assert_eq!(rejects, wanted.map(|(file, line, text)| (file.to_owned(), line, text.to_owned())));
    assert!(folder.verify().status.success());
}

#[test]
fn strictly_the_first_broken_line_stops_the_run() {
    let folder = Folder::new("strict");
    folder.file("a.ndjson", "{\"stage\":\"A\",\"key\":1}\n{\"stage\":\"B\",\"key\":1}\n\noops\n");
    refused(&folder.correlate("run -i in -o out --strict"), 1, "a.ndjson:4: no JSON object");
    assert!(!folder.path("out").exists());
}

#[test]
fn lines_that_are_too_long_are_set_aside_and_the_next_is_read() {
    let folder = Folder::new("long");
    for length in [1_001, 2_000, 200_000, 2_000_000] {
        let long = "x".repeat(length);
        folder.file(
            "a.ndjson",
            format!("{{\"stage\":\"A\",\"key\":1}}\n{long}\n{{\"stage\":\"B\",\"key\":1}}\n"),
        );
        let report = folder.run("--longest-line 1000 --overwrite");
        assert_eq!((&report["joined"], &report["rejected_lines"]), (&1.into(), &1.into()), "{length}");
        assert!(folder.lines("rejects.ndjson")[0].contains("longer than 1000 bytes"));
        assert!(folder.verify().status.success());
    }
    let fits = format!("{{\"stage\":\"B\",\"key\":1,\"x\":\"{}\"}}", "x".repeat(1_000 - 28));
    assert_eq!(fits.len(), 1_000);
    folder.file("a.ndjson", format!("{{\"stage\":\"A\",\"key\":1}}\r\n{fits}\r\n"));
    assert_eq!(folder.run("--longest-line 1000 --overwrite")["joined"], 1);
    assert!(folder.verify().status.success());
}

#[test]
fn lines_of_any_length_are_joined() {
    let folder = Folder::new("any-length");
    let text = "y".repeat(3_000_000);
    folder.file(
        "a.ndjson",
        format!(
            "{{\"stage\":\"A\",\"key\":1,\"t\":\"{text}\"}}\n{{\"stage\":\"B\",\"key\":1,\"t\":\"{text}\"}}\n"
        ),
    );
    folder.file("b.csv", format!("stage,key,t\nA,2,{text}\nB,2,{text}\n"));
    assert_eq!(folder.run("--kills 6")["joined"], 2);
    assert!(folder.rows().iter().all(|row| row.len() > 6_000_000));
    assert!(folder.verify().status.success());
}

#[test]
fn a_packed_file_that_is_cut_short_is_read_as_far_as_it_goes() {
    let folder = Folder::new("cut-short");
    let mut dice = Dice(7);
    let lines: String =
        (0..5_000).map(|_| format!("{{\"stage\":\"A\",\"key\":{}}}\n", dice.below(1 << 40))).collect();
    let packed = folder.packed("a.ndjson.gz", lines.as_bytes());
    folder.file("a.ndjson.gz", &packed[..packed.len() / 2]);
    folder.file("b.ndjson", "{\"stage\":\"B\",\"key\":1}\n");
    let output = folder.correlate("run -i in -o out --report json");
    let report = report(&output);
    assert_eq!((&report["files_cut_short"], &report["rejected_lines"]), (&1.into(), &1.into()));
    assert!(said(&output.stderr).contains("could not be read to their ends"));
    assert!(folder.lines("incomplete.ndjson").len() > 1_000);
    assert!(folder.lines("rejects.ndjson")[0].contains("the rest of the file cannot be read"));
    assert!(folder.verify().status.success(), "{}", said(&folder.verify().stdout));
    refused(
        &folder.correlate("run -i in -o out2 --strict --stages A,B"),
        1,
        "the rest of the file cannot be read",
    );
}

#[test]
fn packed_files_of_several_members_are_one_file() {
    let folder = Folder::new("members");
    let mut packed = folder.packed("a.ndjson.gz", b"{\"stage\":\"A\",\"key\":1}\n");
    packed.extend(folder.packed("a.ndjson.gz", b"{\"stage\":\"B\",\"key\":1}\n"));
    folder.file("a.ndjson.gz", packed);
    assert_eq!(folder.run("")["joined"], 1);
    assert!(folder.verify().status.success());
}

#[test]
fn duplicates_are_counted_and_kept_however_late_they_come() {
    let folder = Folder::new("duplicates");
    let (a, b) = ("{\"stage\":\"A\",\"key\":1}\n", "{\"stage\":\"B\",\"key\":1}\n");
    folder.file("a.ndjson", [a, a, b, a, b].concat());
    // Stages overtake each other, so that the key may be joined once or twice; no message is lost either way.
    let again = folder.run("");
    let number = |field: &str| again[field].as_u64().expect("a number");
    assert_eq!(2 * number("joined") + number("duplicates"), 5);
    assert!(folder.verify().status.success());
    let distinct = folder.run("--distinct --overwrite");
    assert_eq!((&distinct["joined"], &distinct["duplicates"]), (&1.into(), &3.into()));
    assert!(folder.verify().status.success());
    folder.file("a.ndjson", [a, b, a].concat());
    let late = folder.run("--overwrite");
    assert_eq!(
        (&late["joined"], &late["duplicates"], &late["incomplete_keys"]),
        (&1.into(), &1.into(), &0.into())
    );
    assert_eq!(folder.lines("duplicates.ndjson"), [r#"{"key":1,"A":{}}"#]);
    assert!(folder.verify().status.success());
}

#[test]
fn any_input_under_any_kills_is_joined_as_a_naive_join_joins_it() {
    let folder = Folder::new("naive");
    for seed in 1..=12 {
        let mut dice = Dice(seed * 0x9e37_79b9);
        fs::remove_dir_all(folder.path("in")).expect("it was there");
        fs::create_dir(folder.path("in")).expect("a folder");
        let (stages, keys) = (2 + dice.below(4), 1 + dice.below(3_000));
        let mut messages: Vec<(u64, u64)> =
            (0..keys).flat_map(|key| (0..stages).map(move |stage| (key, stage))).collect();
        messages.retain(|_| dice.below(15) > 0);
        for last in (1..messages.len()).rev() {
            messages.swap(last, dice.below(last as u64 + 1) as usize);
        }
        let mut naive: BTreeMap<u64, BTreeMap<u64, String>> = BTreeMap::new();
        for (n, part) in messages.chunks(1 + messages.len() / 5).enumerate() {
            let mut lines = String::new();
            for (key, stage) in part {
                let blanks = "z".repeat(dice.below(200) as usize);
                lines += &format!(
                    "{{\"x\":\"{blanks}\",\"stage\":\"s{stage}\",\"key\":{key},\"n\":{}}}\n",
                    dice.0
                );
                let rest = format!("{{\"x\":\"{blanks}\",\"n\":{}}}", dice.0);
                naive.entry(*key).or_default().insert(*stage, rest);
            }
            if n % 2 == 0 {
                folder.file(&format!("{n}.ndjson"), lines);
            } else {
                folder.packed(&format!("{n}.ndjson.gz"), lines.as_bytes());
            }
        }
        let row = |(key, rests): (&u64, &BTreeMap<u64, String>)| {
            let rests: String = rests.iter().map(|(stage, rest)| format!(",\"s{stage}\":{rest}")).collect();
            format!("{{\"key\":{key}{rests}}}")
        };
        let (whole, open): (Vec<_>, Vec<_>) =
            naive.iter().partition(|(_, rests)| rests.len() as u64 == stages);
        let (mut whole, mut open): (Vec<String>, Vec<String>) =
            (whole.into_iter().map(row).collect(), open.into_iter().map(row).collect());
        whole.sort();
        open.sort();
        folder.run(&format!(
            "--kills {} --seed {seed} --overwrite --threads {}",
            dice.below(40),
            1 + dice.below(3)
        ));
        let mut incomplete = folder.lines("incomplete.ndjson");
        incomplete.sort();
        assert!(folder.rows() == whole && incomplete == open, "seed {seed}");
        let verdict = folder.verify();
        assert!(verdict.status.success(), "seed {seed}: {}", said(&verdict.stdout));
    }
}

#[test]
fn memory_follows_the_open_keys_and_not_the_input() {
    let folder = Folder::new("memory");
    let text = "m".repeat(4_000);
    let lines: String = (0..8_000)
        .flat_map(|key| {
            ["A", "B"].map(|stage| format!("{{\"stage\":\"{stage}\",\"key\":{key},\"t\":\"{text}\"}}\n"))
        })
        .collect();
    folder.file("a.ndjson", &lines);
    let report = folder.run("--stages A,B");
    assert_eq!(report["joined"], 8_000);
    if let Some(peak) = report["memory"]["process_peak_bytes"].as_u64() {
        assert!(lines.len() > 60_000_000 && peak < 40_000_000, "{peak} bytes for {} of input", lines.len());
    }
    assert!(report["memory"]["table_peak_bytes"].as_u64() < Some(8_000_000), "{report}");
}

// ---- the folder

#[test]
fn an_old_output_is_not_mixed_with_a_new_one() {
    let folder = Folder::new("old");
    folder.file("a.ndjson", "{\"stage\":\"A\",\"key\":1}\n{\"stage\":\"B\",\"key\":1}\n");
    folder.run("--partitions 40");
    refused(&folder.correlate("run -i in -o out"), 1, "--overwrite");
    fs::write(folder.path("out/mine.txt"), "stays").expect("a file");
    folder.run("--overwrite --partitions 2");
    let mut names: Vec<String> = fs::read_dir(folder.path("out"))
        .expect("a folder")
        .map(|f| f.expect("a file").file_name().to_string_lossy().into())
        .collect();
    names.sort();
    let wanted = [
        "correlate.json",
        "duplicates.ndjson",
        "incomplete.ndjson",
        "mine.txt",
        "part-00.ndjson",
        "part-01.ndjson",
        "rejects.ndjson",
    ];
    assert_eq!(names, wanted);
}

#[test]
fn what_an_interrupted_run_left_is_no_output_and_in_nobodys_way() {
    let folder = Folder::new("interrupted");
    folder.file("a.ndjson", "{\"stage\":\"A\",\"key\":1}\n{\"stage\":\"B\",\"key\":1}\n");
    fs::create_dir_all(folder.path("out/unfinished")).expect("a folder");
    fs::write(folder.path("out/unfinished/part-00.ndjson"), "half a li").expect("a file");
    refused(&folder.verify(), 1, "no complete output");
    assert_eq!(folder.run("")["joined"], 1);
    assert!(!folder.path("out/unfinished").exists());
    assert!(folder.verify().status.success());
}

#[test]
fn a_second_process_is_kept_off_a_folder() {
    let folder = Folder::new("second");
    folder.file("a.ndjson", "{\"stage\":\"A\",\"key\":1}\n{\"stage\":\"B\",\"key\":1}\n");
    fs::create_dir_all(folder.path("out/unfinished")).expect("a folder");
    let lock = File::create(folder.path("out/unfinished/lock")).expect("a file");
    lock.lock().expect("nobody else wants it");
    refused(&folder.correlate("run -i in -o out"), 1, "another process");
    assert!(folder.path("out/unfinished/lock").exists(), "it is theirs");
    // Not only dropped: another test may be starting a process just now, which has a copy until it runs.
    lock.unlock().expect("it was locked");
    assert_eq!(folder.run("")["joined"], 1);
}

#[test]
fn folders_that_will_not_do_are_named() {
    let folder = Folder::new("folders");
    refused(&folder.correlate("run -i nowhere -o out"), 1, "cannot read folder nowhere");
    refused(&folder.correlate("run -i in -o out"), 1, "nothing to join");
    folder.file("a.ndjson", "{\"stage\":\"A\",\"key\":1}\n{\"stage\":\"B\",\"key\":1}\n");
    refused(&folder.correlate("run -i in -o in"), 1, "same folder");
    refused(&folder.correlate("run -i in -o in/a.ndjson/out"), 1, "cannot make folder");
    refused(&folder.correlate("run -i in -o out --stages A,A"), 1, "twice");
    refused(&folder.correlate("run -i in -o out --stages A,key"), 1, "the name of the key's field");
    refused(&folder.correlate("run -i in -o out --key stage"), 1, "both the stage and the key");
    refused(&folder.correlate("generate -o in/a.ndjson/x"), 1, "cannot make folder");
    refused(&folder.correlate("verify -i in -o nowhere"), 1, "cannot read nowhere");
    assert!(!folder.path("out").exists());
}

#[test]
fn options_that_make_no_sense_are_refused_with_another_code() {
    let folder = Folder::new("options");
    for words in [
        "run",
        "run -i in",
        "--kills many",
        "run -i in -o out --partitions 0",
        "--no-such",
        "--kills 3 run",
        "--messages 0",
    ] {
        refused(&folder.correlate(words), 2, "error: ");
    }
}

#[test]
fn help_teaches() {
    let folder = Folder::new("help");
    let help = said(&folder.correlate("--help").stdout);
    assert!(help.contains("correlate run --input in --output out") && help.contains("Exit codes"), "{help}");
    let help = said(&folder.correlate("run --help").stdout);
    assert!(help.contains("incomplete.ndjson") && help.contains("different keys"), "{help}");
}

/// Linux only, as are the limits.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error_and_leaves_no_output() {
    let folder = Folder::new("full-disk");
    let made = folder.correlate("generate -o in --messages 3000");
    assert!(made.status.success());
    // Files cannot grow beyond a few blocks, and writing more is an error instead of a signal.
    let script = format!(
        "trap '' XFSZ; ulimit -f 64; exec {} run -i in -o out --partitions 2",
        env!("CARGO_BIN_EXE_correlate")
    );
    let output = Command::new("sh").current_dir(&folder.0).arg("-c").arg(script).output().expect("it starts");
    refused(&output, 1, "cannot write out/unfinished/part-0");
    assert!(!folder.path("out").exists(), "nothing is left");
}

#[cfg(target_os = "linux")]
#[test]
fn a_report_that_cannot_be_written_is_an_error() {
    let full = File::options().write(true).open("/dev/full").expect("Linux has it");
    let mut command = Command::new(env!("CARGO_BIN_EXE_correlate"));
    let output = command
        .args(["--messages", "100", "-q"])
        .stdout(full)
        .stderr(Stdio::piped())
        .output()
        .expect("it starts");
    refused(&output, 1, "cannot write standard output");
}

#[test]
fn a_reader_who_has_read_enough_is_no_error() {
    for words in [&["--messages", "1000"][..], &["--help"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_correlate"));
        let mut child =
            command.args(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        drop(child.stdout.take());
        drop(child.stderr.take());
        assert!(child.wait().expect("it ends").success(), "{words:?}");
    }
}

// ---- the controls: what verify is worth

/// Joins a small input, spoils the output, and lets it be verified.
fn spoiled(name: &str, spoil: impl Fn(&Folder)) -> Output {
    let folder = Folder::new(name);
    let options =
        "--output in --messages 500 --partitions 3 --missing 20 --duplicates 20 --broken 20 --keys string";
    assert!(folder.correlate(&format!("generate {options}")).status.success());
    folder.run("--partitions 1");
    assert!(folder.verify().status.success());
    spoil(&folder);
    folder.verify()
}

fn edit(folder: &Folder, name: &str, edit: impl Fn(&mut Vec<String>)) {
    let mut lines = folder.lines(name);
    edit(&mut lines);
    fs::write(
        folder.path("out").join(name),
        lines.iter().map(|line| format!("{line}\n")).collect::<String>(),
    )
    .expect("a file");
}

#[test]
fn control_verify_sees_a_row_that_is_missing() {
    refused(
        &spoiled("lost-row", |folder| edit(folder, "part-00.ndjson", |rows| drop(rows.pop()))),
        1,
        "3 messages of",
    );
}

#[test]
fn control_verify_sees_a_row_that_is_there_twice() {
    let output =
        spoiled("double-row", |folder| edit(folder, "part-00.ndjson", |rows| rows.push(rows[7].clone())));
    refused(&output, 1, "3 doubled or changed");
}

#[test]
fn control_verify_sees_a_changed_byte() {
    let spoil = |folder: &Folder| {
        edit(folder, "part-00.ndjson", |rows| {
            let at = rows[9].rfind("amount\":").expect("each has one") + 8;
            let digit = if &rows[9][at..=at] == "1" { "2" } else { "1" };
            rows[9].replace_range(at..=at, digit);
        });
    };
    refused(&spoiled("changed-byte", spoil), 1, "1 messages of");
}

#[test]
fn control_verify_sees_what_is_in_the_wrong_file() {
    let spoil = |folder: &Folder| {
        let row = folder.lines("part-00.ndjson").pop().expect("there are rows");
        edit(folder, "part-00.ndjson", |rows| drop(rows.pop()));
        edit(folder, "incomplete.ndjson", |rows| rows.push(row.clone()));
    };
    refused(&spoiled("wrong-file", spoil), 1, "not joined");
    let spoil = |folder: &Folder| {
        let row = folder.lines("incomplete.ndjson").pop().expect("there are some");
        edit(folder, "incomplete.ndjson", |rows| drop(rows.pop()));
        edit(folder, "part-00.ndjson", |rows| rows.push(row.clone()));
    };
    refused(&spoiled("wrong-file-2", spoil), 1, "lacks a stage");
    let spoil = |folder: &Folder| {
        let row = folder.lines("incomplete.ndjson").pop().expect("there are some");
        edit(folder, "incomplete.ndjson", |rows| drop(rows.pop()));
        edit(folder, "duplicates.ndjson", |rows| rows.push(row.clone()));
    };
    refused(&spoiled("wrong-file-3", spoil), 1, "of what is this a duplicate");
}

#[test]
fn control_verify_sees_rejects_that_are_missing_or_made_up() {
    refused(
        &spoiled("reject", |folder| edit(folder, "rejects.ndjson", |lines| drop(lines.pop()))),
        1,
        "not in the rejects",
    );
    let made_up = |lines: &mut Vec<String>| {
        lines.push(r#"{"file":"input-00.ndjson","line":99999,"why":"?"}"#.to_owned())
    };
    refused(&spoiled("reject-2", |folder| edit(folder, "rejects.ndjson", made_up)), 1, "is not broken");
}

#[test]
fn control_verify_sees_torn_lines_and_missing_marks() {
    refused(
        &spoiled("torn", |folder| edit(folder, "part-00.ndjson", |rows| rows[0].truncate(20))),
        1,
        "not what correlate writes",
    );
    let spoil = |folder: &Folder| fs::remove_file(folder.path("out/correlate.json")).expect("it was there");
    refused(&spoiled("mark", spoil), 1, "no complete output");
}

// ---- a log

impl Folder {
    /// The program, to be killed.
    fn begin(&self, words: &str) -> std::process::Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_correlate"));
        command
            .current_dir(&self.0)
            .args(words.split_whitespace())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.spawn().expect("it starts")
    }

    /// Waits until the log says that so many epochs are committed.
    fn committed(&self, epochs: u64) {
        self.committed_by(0, epochs);
    }

    /// As [`Folder::committed`], after so many restarts: what was committed before is no sign of a start.
    fn committed_by(&self, restarts: u64, epochs: u64) {
        loop {
            let status = self.correlate("status --log log --report json");
            let said: Value = serde_json::from_slice(&status.stdout).unwrap_or_default();
            let at_least = |field: &str, least| said[field].as_u64().is_some_and(|so_many| so_many >= least);
            if at_least("restarts", restarts) && at_least("epochs", epochs) {
                break;
            }
            std::thread::yield_now();
        }
    }

    /// The last segment of a part of the log.
    fn segment(&self, part: &str) -> PathBuf {
        let files = fs::read_dir(self.path("log").join(part)).expect("a folder of segments");
        files.map(|file| file.expect("an entry").path()).max().expect("a segment")
    }
}

#[test]
fn a_job_that_is_killed_goes_on_and_every_message_is_joined_once() {
    let folder = Folder::new("log-kill");
    let job = "--log log --messages 60000 --epoch 1 --epoch-messages 3000 --snapshot 20 --kills 6 --shards 2";
    for (restarts, epochs) in [(0, 1), (1, 8), (2, 14)] {
        let mut child = folder.begin(job);
        folder.committed_by(restarts, epochs);
        child.kill().and_then(|()| child.wait()).expect("it dies");
    }
    let report = report(&folder.correlate(&format!("{job} --report json --chart chart.svg")));
    assert_eq!((&report["exact"], &report["starts"]), (&true.into(), &4.into()), "{report}");
    let verdict = folder.correlate("verify --log log");
    assert!(said(&verdict.stdout).starts_with("exact: 60,000 rows"), "{}", said(&verdict.stdout));
    let chart = fs::read_to_string(folder.path("chart.svg")).expect("a chart");
    assert!(chart.starts_with("<svg") && chart.contains("million messages/s"));
    let status: Value =
        serde_json::from_slice(&folder.correlate("status --log log --report json").stdout).expect("JSON");
    assert_eq!(
        (&status["restarts"], &status["lag"], &status["running"]),
        (&3.into(), &0.into(), &false.into())
    );
}

#[test]
fn the_short_form_of_the_kill_matrix_finds_nothing_lost_or_doubled() {
    let folder = Folder::new("torture");
    let torture = "torture --log log --kills 12 --messages 60000 --life 60 --report json --seed 5";
    let report = report(&folder.correlate(torture));
    assert_eq!((&report["exact"], &report["kills"]), (&true.into(), &12.into()), "{report}");
}

#[test]
fn a_death_between_the_rows_of_an_epoch_and_its_commit_is_made_good_and_the_control_shows_that_it_has_to_be()
{
    for (name, more) in [("dies", ""), ("dies-control", " --without truncation")] {
        let folder = Folder::new(name);
        let job =
            format!("--log log --messages 30000 --epoch 1 --epoch-messages 4000 --kills 0 --quiet{more}");
        for epoch in [1, 3] {
            let dead = folder.correlate(&format!("{job} --die-in-epoch {epoch}"));
            assert!(!matches!(dead.status.code(), Some(0..=3)), "{:?}", dead.status);
        }
        let verdict = said(&folder.correlate(&job).stdout);
        assert!(verdict.contains(if more.is_empty() { "exact" } else { "doubled" }), "{verdict}");
        let verified = folder.correlate("verify --log log").status.success();
        assert_eq!(verified, more.is_empty(), "{verdict}");
    }
}

#[test]
fn control_without_truncation_the_same_matrix_finds_what_is_doubled() {
    let folder = Folder::new("torture-control");
    let torture = "torture --log log --kills 2 --messages 60000 --without truncation";
    let output = folder.correlate(torture);
    refused(&output, 1, "WRONG");
    assert!(said(&output.stdout).contains("doubled"), "{}", said(&output.stdout));
}

#[test]
fn damage_of_a_log_is_told_with_file_and_byte_and_changes_nothing() {
    let folder = Folder::new("log-damage");
    let job = "--log log --messages 20000 --epoch 1 --epoch-messages 2000 --quiet --kills 0";
    report(&folder.correlate(&format!("{job} --report json")));
    for part in ["commits", "sink-03"] {
        let path = folder.segment(part);
        let sound = fs::read(&path).expect("a segment");
        let mut flipped = sound.clone();
        flipped[200] ^= 4;
        fs::write(&path, &flipped).expect("written");
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let again =
            if part == "commits" { folder.correlate(job) } else { folder.correlate("verify --log log") };
        let words = if part == "commits" {
            format!("{name} is damaged at byte ")
        } else {
            format!("sink-03/{name} is damaged at byte ")
        };
        refused(&again, 1, &words);
        assert_eq!(fs::read(&path).expect("a segment"), flipped, "nothing is changed");
        fs::write(&path, &sound).expect("written");
    }
    report(&folder.correlate(&format!("{job} --report json")));
}

#[test]
fn rows_that_were_committed_and_are_gone_are_missed() {
    let folder = Folder::new("log-short");
    let job = "--log log --messages 5000 --quiet --kills 0";
    report(&folder.correlate(&format!("{job} --report json")));
    let path = folder.segment("sink-07");
    let len = fs::metadata(&path).expect("a segment").len();
    fs::OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(len - 1)).expect("cut");
    refused(&folder.correlate(job), 1, &format!("is damaged at byte {}", len - 1));
    refused(&folder.correlate("verify --log log"), 1, "sink-07/00000000000000000000.seg is damaged at byte ");
}

#[test]
fn a_second_process_another_job_another_version_and_other_files_are_refused() {
    let folder = Folder::new("log-refused");
    let job = "--log log --messages 400000 --epoch 1 --epoch-messages 3000 --quiet";
    let mut child = folder.begin(job);
    folder.committed(1);
    // It stands still, and holds what it has.
    let stopped = Command::new("kill").args(["-STOP", &child.id().to_string()]).status();
    assert!(stopped.is_ok_and(|status| status.success()));
    let second = folder.correlate(job);
    child.kill().and_then(|()| child.wait()).expect("it dies");
    refused(&second, 1, "another process is working on the log");
    refused(&folder.correlate("--log log --messages 5 --quiet"), 1, "is the log of");
    let about = fs::read_to_string(folder.path("log/log.json")).expect("it says what it is");
    fs::write(folder.path("log/log.json"), about.replace("\"format\": 1", "\"format\": 7")).expect("written");
    refused(&folder.correlate(job), 1, "version 7");
    refused(&folder.correlate("status --log log"), 1, "version 7");
    refused(&folder.correlate("--log in --messages 5").pipe(), 0, "exact");
    folder.file("other.txt", "something");
    fs::remove_file(folder.path("in/log.json")).expect("it was there");
    refused(&folder.correlate("--log in --messages 5"), 1, "holds other things and no log");
    refused(&folder.correlate("status --log nowhere"), 1, "no folder with a log");
    refused(&folder.correlate("--log /proc/none --messages 5"), 1, "cannot make folder");
}

/// So that what went well can be looked at in the same words.
trait Pipe {
    fn pipe(self) -> Self;
}

impl Pipe for Output {
    fn pipe(self) -> Output {
        self
    }
}

#[test]
fn a_full_disk_stops_the_run_and_the_log_goes_on_when_there_is_room() {
    let folder = Folder::new("log-full");
    let job = "--log log --messages 100000 --epoch 5 --kills 0 --quiet";
    let mut child = folder.begin(&format!("{job} --epoch-messages 2000"));
    folder.committed(1);
    child.kill().and_then(|()| child.wait()).expect("it dies");
    // No file may have more than 150 kB: the system refuses the rest, as a full disk does.
    let script = format!("trap '' XFSZ; ulimit -f 150; exec {} {job}", env!("CARGO_BIN_EXE_correlate"));
    let mut shell = Command::new("bash");
    let output = shell.current_dir(&folder.0).args(["-c", &script]).output().expect("bash starts");
    refused(&output, 1, "cannot write");
    let report = report(&folder.correlate(&format!("{job} --report json")));
    assert_eq!(report["exact"], true, "{report}");
}

#[test]
fn asked_to_stop_it_commits_what_it_has_and_goes_on_later() {
    let folder = Folder::new("log-stop");
    let job = "--log log --messages 400000 --epoch 5 --epoch-messages 5000 --quiet --kills 3";
    let mut child = folder.begin(job);
    folder.committed(2);
    let asked = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
    assert!(asked.is_ok_and(|status| status.success()));
    let code = child.wait().expect("it ends").code();
    // It may have been through before it was asked.
    assert!(code == Some(3) || code == Some(0), "{code:?}");
    let report = report(&folder.correlate(&format!("{job} --report json")));
    assert_eq!((&report["exact"], &report["resumed"]["merged_again"].is_u64()), (&true.into(), &true));
}

#[test]
fn a_join_of_files_that_is_killed_goes_on_whatever_their_form() {
    let folder = Folder::new("log-files");
    let made = folder.correlate(
        "generate --output in --messages 20000 --format mixed --missing 5 --duplicates 5 --broken 2 --overwrite",
    );
    assert!(made.status.success(), "{}", said(&made.stderr));
    let run =
        "run --input in --output out --log log --stages A,B,C --epoch 1 --epoch-messages 2000 --snapshot 10";
    for (restarts, epochs) in [(0, 1), (1, 5), (2, 11)] {
        let mut child = folder.begin(&format!("{run} --kills 4"));
        folder.committed_by(restarts, epochs);
        child.kill().and_then(|()| child.wait()).expect("it dies");
    }
    let report = report(&folder.correlate(&format!("{run} --kills 5 --shards 1 --report json --verify")));
    assert_eq!((&report["exact"], &report["starts"]), (&true.into(), &4.into()), "{report}");
}

#[test]
fn a_packed_file_that_is_cut_short_is_rejected_once_though_the_run_is_killed_after_it() {
    let folder = Folder::new("log-cut-short");
    let made = folder.correlate("generate --output in --messages 20000 --overwrite");
    assert!(made.status.success(), "{}", said(&made.stderr));
    let mut dice = Dice(9);
    for (name, header, line) in [
        ("a.ndjson.gz", "", r#"{"stage":"A","key":"K"}"#.to_owned() + "\n"),
        ("b.csv.gz", "stage,key\n", "A,K\n".to_owned()),
    ] {
        let lines = (0..200).map(|_| line.replace('K', &format!("x{}", dice.below(1 << 40))));
        let packed = folder.packed(name, (header.to_owned() + &lines.collect::<String>()).as_bytes());
        folder.file(name, &packed[..packed.len() / 2]);
    }
    let run = "run --input in --output out --log log --stages A,B,C --epoch 1 --epoch-messages 2000 --kills 0 --abreast 1";
    let mut child = folder.begin(run);
    folder.committed(8);
    child.kill().and_then(|()| child.wait()).expect("it dies");
    let report = report(&folder.correlate(&format!("{run} --report json --verify")));
    assert_eq!((&report["exact"], &report["starts"]), (&true.into(), &2.into()), "{report}");
    assert_eq!((&report["rejected_lines"], &report["files_cut_short"]), (&2.into(), &2.into()), "{report}");
    assert_eq!(folder.lines("rejects.ndjson").len(), 2);
}
