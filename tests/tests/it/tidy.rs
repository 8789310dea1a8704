//! What no compiler checks: who imports whom, and what our files may say.

use std::{collections::BTreeSet, fmt::Write, path::Path};

use backplane_tests::{
    plan,
    workspace::{Crate, Import, Kind, SourceFile, Workspace},
};

/// Every direct dependency, and why. One that is not here needs a reason first: here, and in DESIGN.md.
///
/// What only tests and examples use is not listed, and `tests` and `benches` are free: nobody imports them.
const DEPENDENCIES: &[(&str, &[(&str, &str)])] = &[
    (
        "backplane",
        &[
            ("pin-project-lite", "pins the future inside `manage` without unsafe code of ours"),
            ("futures-core", "the trait `Stream`; feature `stream`"),
            ("smol", "an adapter for `Runtime`; feature `smol`"),
            ("tokio", "an adapter for `Runtime`; feature `tokio`"),
            ("loom", "explores interleavings; only under `--cfg backplane_loom`"),
        ],
    ),
    (
        "backplane-supervisor",
        &[
            ("backplane", "the mesh"),
            ("pin-project-lite", "pins a child's future without unsafe code of ours"),
            ("async-signal", "Ctrl-C and SIGTERM; feature `signals`"),
            ("futures-core", "the trait `Stream`, which signals are; feature `signals`"),
            ("serde", "a tree as a document; feature `serde`"),
            ("tracing", "what a tree tells, for whoever collects it; feature `tracing`"),
        ],
    ),
    (
        "backplane-pool",
        &[
            ("backplane", "the trait `Runtime`, and panics as values"),
            ("async-io", "events and timers, turned by idle workers"),
            ("async-task", "a task: one allocation, with a schedule function of our own"),
            ("blocking", "threads for what blocks"),
            ("concurrent-queue", "what others send to one worker"),
            ("crossbeam-deque", "queues that can be stolen from"),
            ("crossbeam-utils", "the slot of what runs next; padding"),
            ("pin-project-lite", "pins a task's future without unsafe code of ours"),
            ("rustix", "pins a thread, without unsafe code of ours"),
            ("slab", "the list of tasks"),
            ("compio", "lanes that wait in an io_uring; feature `uring`"),
            ("loom", "explores interleavings; only under `--cfg backplane_loom`"),
        ],
    ),
    (
        "backplane-actor",
        &[
            ("backplane", "the mesh"),
            ("backplane-supervisor", "who starts an actor again"),
            ("pin-project-lite", "pins an actor's future without unsafe code of ours"),
            ("tracing", "a span for each poll of an actor; feature `tracing`"),
            ("metrics", "figures for whoever records them; feature `metrics`"),
            ("loom", "explores interleavings; only under `--cfg backplane_loom`"),
        ],
    ),
    (
        "correlate",
        &[
            ("backplane", "the workers' ends"),
            ("backplane-supervisor", "supervision of the stages"),
            ("backplane-pool", "drives the workers, if asked to"),
            ("async-executor", "drives the workers"),
            ("futures-lite", "drives the workers"),
            ("clap", "options, and help that teaches"),
            ("indicatif", "the progress bar"),
            ("serde", "formats"),
            ("serde_json", "NDJSON, each record carried through as it came"),
            ("csv", "CSV"),
            ("flate2", "`.ndjson.gz`"),
            ("memchr", "finds lines"),
            ("foldhash", "finds keys"),
            (
                "prefetch-index",
                "asks the memory for a key's place before it is looked for, without unsafe code of ours",
            ),
            ("memmap2", "memory for a large table that asks the system for huge pages"),
            ("bytemuck", "a table's places in that memory, without unsafe code of ours"),
            ("crc32fast", "checksums of the log's frames"),
            ("signal-hook", "SIGTERM and Ctrl-C finish the epoch"),
            ("plotters", "the chart of throughput"),
            ("plotters-svg", "the chart as an SVG"),
            ("rdkafka", "Kafka; feature `kafka`"),
        ],
    ),
];

/// What each of our crates must not import, in any kind, tests included.
const NEVER: &[(&str, &[&str])] = &[
    ("backplane", &["backplane-supervisor", "backplane-actor", "backplane-pool", "correlate"]),
    ("backplane-supervisor", &["backplane-actor", "backplane-pool", "correlate"]),
    ("backplane-actor", &["backplane-pool", "correlate"]),
    ("backplane-pool", &["backplane-supervisor", "backplane-actor", "correlate"]),
];

/// They import everything, and nothing imports them.
const FREE: [&str; 2] = ["backplane-tests", "backplane-benches"];

/// Collects what is wrong, so that one run shows all of it.
#[derive(Default)]
struct Faults(String);

impl Faults {
    fn add(&mut self, fault: impl std::fmt::Display) {
        writeln!(self.0, "  {fault}").expect("a string takes all");
    }

    #[track_caller]
    fn none(self) {
        assert!(self.0.is_empty(), "\n{}", self.0);
    }
}

fn ours(workspace: &Workspace) -> impl Iterator<Item = &Crate> {
    workspace.crates.iter().filter(|member| !FREE.contains(&member.name.as_str()))
}

fn not_for_tests(member: &Crate) -> impl Iterator<Item = &Import> {
    member.imports.iter().filter(|import| import.kind != Kind::Dev)
}

/// Rust source; not this file, which names what it looks for.
fn rust() -> Vec<SourceFile> {
    let mut files = Workspace::read().files(&[".rs"]);
    files.retain(|file| file.path != "tests/tests/it/tidy.rs");
    files
}

/// Files with words in them: all but `Cargo.lock`, which cargo writes, and data.
fn written() -> Vec<SourceFile> {
    let mut files = rust();
    files.extend(Workspace::read().files(&[".toml", ".md", ".sh", ".gitignore"]));
    files.extend(Workspace::read().files(&["run", "mutants", "budgets", "numa"]));
    files
}

#[test]
fn every_direct_dependency_has_a_reason() {
    let mut faults = Faults::default();
    for member in ours(&Workspace::read()) {
        let name = &member.name;
        let Some((_, allowed)) = DEPENDENCIES.iter().find(|(crate_name, _)| crate_name == name) else {
            faults.add(format_args!("{name} is not in the list of dependencies"));
            continue;
        };
        for import in not_for_tests(member) {
            if !allowed.iter().any(|(allowed, _)| *allowed == import.name) {
                faults
                    .add(format_args!("{name} imports {}, for no reason that is written down", import.name));
            }
        }
    }
    faults.none();
}

#[test]
fn the_core_has_at_most_six_direct_dependencies_and_one_that_is_not_optional() {
    let workspace = Workspace::read();
    let core = workspace.get("backplane").expect("the core is there");
    let all: BTreeSet<&str> = not_for_tests(core).map(|import| &*import.name).collect();
    assert!(all.len() <= 6, "{all:?}");
    let always = not_for_tests(core).filter(|import| !import.optional && import.target.is_none());
    assert_eq!(always.map(|import| &*import.name).collect::<Vec<_>>(), ["pin-project-lite"]);
    assert!(core.default_features.is_empty(), "an executor must be asked for: {:?}", core.default_features);
}

#[test]
fn no_crate_imports_what_stands_above_it() {
    let mut faults = Faults::default();
    for member in ours(&Workspace::read()) {
        let never = NEVER.iter().find(|(name, _)| *name == member.name).map_or(&[][..], |(_, never)| never);
        for import in &member.imports {
            if never.contains(&import.name.as_str()) || FREE.contains(&import.name.as_str()) {
                faults.add(format_args!("{} imports {}", member.name, import.name));
            }
        }
    }
    faults.none();
}

#[test]
fn the_core_spawns_sleeps_and_reads_a_clock_nowhere_but_in_the_adapters() {
    never_in_code(
        |path| path.starts_with("backplane/src/") && path != "backplane/src/runtime.rs",
        &["Instant::now", "SystemTime", "thread::spawn", "thread::sleep", "park(", "smol::", "tokio::"],
    );
}

#[test]
fn a_supervisor_decides_without_looking_at_a_clock() {
    never_in_code(
        |path| path == "backplane-supervisor/src/tree.rs",
        &["Instant::now", "SystemTime", "async"],
    );
}

#[test]
fn locks_are_named_in_one_file() {
    // `unwind.rs` has the one for a payload, which two threads never want at once: loom has nothing to find there.
    let names_none = |path: &str| {
        path.starts_with("backplane/src/")
            && !["sync.rs", "unwind.rs"].iter().any(|file| path.ends_with(file))
    };
    never_in_code(names_none, &["std::sync", "sync::Mutex", "RwLock", "Condvar", "sync::atomic"]);
}

#[test]
fn every_crate_inherits_lints_version_edition_licence_and_the_one_rust_version() {
    let workspace = Workspace::read();
    let mut faults = Faults::default();
    let msrv = workspace.crates.first().and_then(|member| member.rust_version.clone());
    assert!(msrv.is_some(), "there is a `rust-version`");
    for member in &workspace.crates {
        let manifest = std::fs::read_to_string(member.folder.join("Cargo.toml")).expect("each has one");
        for line in
            ["version", "edition", "rust-version", "license"].map(|key| format!("{key}.workspace = true"))
        {
            if !manifest.lines().any(|has| has == line) {
                faults.add(format_args!("{}: no `{line}`", member.name));
            }
        }
        if !manifest.contains("[lints]\nworkspace = true") {
            faults.add(format_args!("{}: lints are not inherited", member.name));
        }
        if member.rust_version != msrv {
            faults.add(format_args!("{}: another `rust-version`", member.name));
        }
    }
    let version = msrv.unwrap_or_default();
    let readme = std::fs::read_to_string(workspace.root.join("README.md")).expect("it is there");
    if !readme.contains(&format!("Rust {version}")) {
        faults.add(format_args!("README.md does not say `Rust {version}`"));
    }
    faults.none();
}

#[test]
fn what_the_house_needs_is_there_and_what_cargo_locked_is_kept() {
    let root = Workspace::read().root;
    let mut faults = Faults::default();
    for file in [
        ".ci/run",
        ".gitignore",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "Cargo.lock",
        "DESIGN.md",
        "LICENSE-APACHE",
        "LICENSE-MIT",
        "README.md",
        "clippy.toml",
        "deny.toml",
        "rustfmt.toml",
    ] {
        if !root.join(file).is_file() {
            faults.add(format_args!("{file} is missing"));
        }
    }
    let ignored = std::fs::read_to_string(root.join(".gitignore")).unwrap_or_default();
    if ignored.contains("Cargo.lock") {
        faults.add("Cargo.lock is ignored");
    }
    faults.none();
}

#[test]
fn the_documents_know_every_crate() {
    let workspace = Workspace::read();
    let mut faults = Faults::default();
    for document in ["README.md", "ARCHITECTURE.md"] {
        let text = std::fs::read_to_string(workspace.root.join(document)).expect("it is there");
        for member in &workspace.crates {
            let folder = member.folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if ![&member.name, folder].iter().any(|name| text.contains(&format!("`{name}`"))) {
                faults.add(format_args!("{document} does not speak of `{folder}`"));
            }
        }
    }
    let design = std::fs::read_to_string(workspace.root.join("DESIGN.md")).expect("it is there");
    for member in ours(&workspace) {
        for import in not_for_tests(member).filter(|import| !design.contains(&format!("`{}`", import.name))) {
            faults.add(format_args!("DESIGN.md does not say why {} imports `{}`", member.name, import.name));
        }
    }
    faults.none();
}

#[test]
fn what_the_documents_point_at_is_there() {
    let workspace = Workspace::read();
    let mut faults = Faults::default();
    for document in workspace.files(&[".md"]) {
        let path = workspace.root.join(&document.path);
        for (place, line) in document.lines() {
            for rest in line.split("](").skip(1) {
                let target = rest.split([')', '#']).next().unwrap_or_default();
                let elsewhere = target.is_empty() || target.contains("://");
                if !elsewhere && !path.with_file_name(target).exists() {
                    faults.add(format_args!("{place}: {target} is not there"));
                }
            }
        }
    }
    faults.none();
}

#[test]
fn every_source_file_begins_by_saying_what_it_is() {
    let mut faults = Faults::default();
    for file in rust().iter().filter(|file| !file.text.starts_with("//! ")) {
        faults.add(format_args!("{}:1 does not begin with `//! `", file.path));
    }
    faults.none();
}

#[test]
fn nothing_of_ours_is_unsafe_or_unfinished() {
    never_in_code(|_| true, &["unsafe", "todo!", "unimplemented!", "dbg!"]);
    let mut faults = Faults::default();
    let manifest = std::fs::read_to_string(Workspace::read().root.join("Cargo.toml")).expect("it is there");
    if !manifest.contains("unsafe_code = \"forbid\"") {
        faults.add("Cargo.toml does not forbid unsafe code");
    }
    faults.none();
}

#[test]
fn every_example_in_the_docs_runs() {
    let fences = ["ignore", "no_run", "compile_only"];
    let mut faults = Faults::default();
    for file in Workspace::read().files(&[".rs", ".md"]) {
        for (place, line) in file.lines() {
            let line = line.trim_start_matches(['/', '!', ' ', '*']);
            if let Some(fence) = line.strip_prefix("```")
                && fence.split([',', ' ']).any(|word| fences.contains(&word))
            {
                faults.add(format_args!("{place}: an example that does not run"));
            }
        }
    }
    faults.none();
}

#[test]
fn no_test_waits_for_time_to_pass() {
    never_in_code(
        |path| path.contains("/tests/") || path.starts_with("tests/") || path.starts_with("backplane"),
        &["thread::sleep"],
    );
}

#[test]
fn no_file_knows_the_machine_it_was_written_on() {
    let homes = ["root", "home", "work", "Users", "tmp"].map(|folder| format!("/{folder}/"));
    let hosts = ["crates.io", "pypi.org", "npmjs.org", "proxy.golang.org", "deb.debian.org", "maven.org"];
    let mut faults = Faults::default();
    for file in written() {
        for (place, line) in file.lines() {
            for home in &homes {
                // `a/home/b` may be a path in the project; `/home/b` is one on a machine.
                let absolute = |at: usize| {
                    let before = line[..at].chars().next_back();
                    !before.is_some_and(|c| c.is_alphanumeric() || "._-}/*<>{".contains(c))
                };
                if line.match_indices(home.as_str()).any(|(at, _)| absolute(at)) {
                    faults.add(format_args!("{place}: a path of a machine: {home}"));
                }
            }
            for host in hosts.iter().filter(|host| line.contains(*host)) {
                faults.add(format_args!("{place}: the host of a registry: {host}"));
            }
        }
    }
    faults.none();
}

#[test]
fn lines_end_where_their_words_do_and_files_with_a_line() {
    let mut faults = Faults::default();
    for file in written() {
        for (place, line) in file.lines() {
            if line.ends_with([' ', '\t', '\r']) {
                faults.add(format_args!("{place}: white space at the end"));
            }
            if line.contains('\t') {
                faults.add(format_args!("{place}: a tab"));
            }
        }
        if !file.text.ends_with('\n') || file.text.ends_with("\n\n") {
            faults.add(format_args!("{}: does not end with one line break", file.path));
        }
    }
    faults.none();
}

#[test]
fn an_example_is_a_short_program_that_says_what_it_shows() {
    let workspace = Workspace::read();
    let mut faults = Faults::default();
    for example in workspace.crates.iter().flat_map(|member| &member.examples) {
        let text = std::fs::read_to_string(&example.path).expect("cargo has seen it");
        let name = &example.name;
        let lines = text.lines().count();
        if lines > 100 {
            faults.add(format_args!("{name} has {lines} lines; about 80 are enough"));
        }
        let shown: Vec<&str> = text.lines().map_while(|line| line.strip_prefix("//! ")).collect();
        let begins = shown.first().and_then(|line| line.chars().next()).is_some_and(char::is_uppercase);
        if !begins || !shown.last().is_some_and(|line| line.ends_with(['.', ':'])) {
            faults.add(format_args!("{name} does not begin with a sentence"));
        }
    }
    faults.none();
}

#[test]
fn the_gate_runs_every_example_every_shape_and_every_model() {
    let workspace = Workspace::read();
    let gate = std::fs::read_to_string(workspace.root.join(".ci/run")).expect("it is there");
    for part in ["shapes", "examples", "loom"] {
        assert!(gate.contains(&format!("plan {part} |")), "the gate does not ask for {part}");
    }
    let mut faults = Faults::default();
    let planned = plan::examples(&workspace);
    for member in &workspace.crates {
        let shown = std::fs::read_dir(member.folder.join("examples")).into_iter().flatten().flatten();
        for path in shown.map(|entry| entry.path()) {
            let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
            let line = format!("--package {} --example {name}", member.name);
            if is_program(&path)
                && !planned.iter().any(|has| *has == line || has.starts_with(&(line.clone() + " ")))
            {
                faults.add(format_args!("{} is not run", path.display()));
            }
        }
    }
    if !plan::shapes(&workspace).iter().any(|line| line.contains("--features tokio")) {
        faults.add("a feature is not checked alone");
    }
    for member in &workspace.crates {
        let models = member.folder.join("tests/loom.rs").exists();
        if models && !plan::loom(&workspace).iter().any(|line| line.contains(&format!("{} ", member.name))) {
            faults.add(format_args!("the models of {} are not run", member.name));
        }
    }
    faults.none();
}

#[test]
fn every_section_of_the_gate_is_in_its_list() {
    let gate = std::fs::read_to_string(Workspace::read().root.join(".ci/run")).expect("it is there");
    let listed = gate.split_once("sections=(").and_then(|(_, rest)| rest.split_once(')')).expect("a list").0;
    let listed: BTreeSet<&str> = listed.split_whitespace().collect();
    let helpers = BTreeSet::from(["main", "plan", "quick_release", "within", "skip"]);
    let functions: BTreeSet<&str> = gate.lines().filter_map(|line| line.strip_suffix("() {")).collect();
    assert_eq!(functions.difference(&helpers).copied().collect::<BTreeSet<_>>(), listed);
}

fn is_program(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "rs") || path.join("main.rs").exists()
}

/// Comments may speak of these words; code must not contain them.
#[track_caller]
fn never_in_code(concerns: impl Fn(&str) -> bool, words: &[&str]) {
    let mut faults = Faults::default();
    for file in rust().iter().filter(|file| concerns(&file.path)) {
        for (place, code) in file.code() {
            for word in words.iter().filter(|word| has_word(code, word)) {
                faults.add(format_args!("{place}: `{word}`"));
            }
        }
    }
    faults.none();
}

/// Whether `word` stands in `code`, and not as a part of a longer name.
fn has_word(code: &str, word: &str) -> bool {
    let in_name = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    code.match_indices(word).any(|(at, _)| {
        let (before, after) = (&code[..at], &code[at + word.len()..]);
        let begins_a_name = in_name(word.chars().next_back()) && in_name(after.chars().next());
        !in_name(before.chars().next_back()) && !begins_a_name
    })
}
