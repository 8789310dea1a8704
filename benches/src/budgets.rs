//! Instruction budgets: counts what each hot operation executes, and compares with `budgets.toml`.
//!
//! Time is noise on a shared machine; instructions are not. Each operation runs under callgrind twice, `n` times and
//! eleven times `n`, and the difference, divided by ten `n`, is what one operation takes without its program's start.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::thread;

use backplane_benches::{links, managed, mesh, tasks};

const HELP: &str = "\
Instructions of each hot operation, against the budgets in benches/budgets.toml.

Usage: cargo run --release -p backplane-benches --bin budgets -- [OPTIONS]

Options:
  --only OP   only the operations whose name contains OP
  --peer      also count async-backplane's (for the task: bare tokio's), and print the ratio
  --update    write what was counted as the new budgets
  --help      this

Exit code: 0 within budget, 1 over it, 2 for a wrong call or a failed count, 77 where nothing could be checked:
valgrind is not installed, the build is not optimised, or the budgets are another compiler's.";

/// An operation is over its budget when it takes so much more ..
const TOLERANCE: f64 = 0.03;

/// .. and so many instructions more: three in a hundred of ten is nothing.
const SLACK: f64 = 2.0;

const OVER: u8 = 1;
const WRONG: u8 = 2;
/// As elsewhere: neither good nor bad.
const UNCHECKED: u8 = 77;

/// One hot operation.
struct Operation {
    name: &'static str,
    ours: fn(u64),
    theirs: fn(u64),
    /// How often it runs in the shorter of its two runs.
    times: u64,
}

fn operations() -> Vec<Operation> {
    fn often<const SIZE: usize>(whole: fn(usize), times: u64) {
        (0..times).for_each(|_| whole(SIZE));
    }

    let mut all: Vec<Operation> = Vec::new();
    let mut add = |name, ours, theirs, times| all.push(Operation { name, ours, theirs, times });
    for (name, _, ours, theirs, _) in links::WORKLOADS {
        add(name, ours, theirs, 500);
    }
    for (name, _, ours, theirs) in links::BESIDE {
        add(name, ours, theirs, 500);
    }
    add("clients", mesh::ours::clients, mesh::theirs::clients, 500);
    add("manage/poll", managed::ours::polls, managed::theirs::polls, 1000);
    add("manage/life", managed::ours::lives, managed::theirs::lives, 500);
    // Here the peer is tokio's bare task.
    add("task/current_thread", tasks::lives, tasks::bare_lives, 500);
    add("star/1_000", |n| often::<1_000>(mesh::ours::star, n), |n| often::<1_000>(mesh::theirs::star, n), 2);
    add("ring/100", |n| often::<100>(mesh::ours::ring, n), |n| often::<100>(mesh::theirs::ring, n), 5);
    add("mesh/100", |n| often::<100>(mesh::ours::mesh, n), |n| often::<100>(mesh::theirs::mesh, n), 2);
    all
}

#[derive(Default)]
struct Options {
    only: Option<String>,
    peer: bool,
    update: bool,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, name, who, times] = &args[..]
        && flag == "--run"
    {
        return run_once(name, who, times);
    }
    let mut options = Options::default();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--only" => options.only = args.next(),
            "--peer" => options.peer = true,
            "--update" => options.update = true,
            "--help" | "-h" => {
                println!("{HELP}");
                return ExitCode::SUCCESS;
            }
            other => return complain(&format!("there is no option {other}\n\n{HELP}"), WRONG),
        }
    }
    check(&options).unwrap_or_else(|(complaint, code)| complain(&complaint, code))
}

fn complain(complaint: &str, code: u8) -> ExitCode {
    eprintln!("{complaint}");
    ExitCode::from(code)
}

/// What the counted program does: one operation, so many times.
fn run_once(name: &str, who: &str, times: &str) -> ExitCode {
    let Some(operation) = operations().into_iter().find(|operation| operation.name == name) else {
        return complain("no such operation", WRONG);
    };
    let Ok(times) = times.parse() else {
        return complain("how many times?", WRONG);
    };
    match who {
        "ours" => (operation.ours)(times),
        _ => (operation.theirs)(times),
    }
    ExitCode::SUCCESS
}

fn check(options: &Options) -> Result<ExitCode, (String, u8)> {
    if cfg!(debug_assertions) {
        return Err(("NOT CHECKED: budgets are for `cargo run --release`.".into(), UNCHECKED));
    }
    if Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().is_err() {
        return Err(("NOT CHECKED: valgrind is not installed.".into(), UNCHECKED));
    }
    let wanted = |name: &str| options.only.as_ref().is_none_or(|part| name.contains(part.as_str()));
    let operations: Vec<Operation> =
        operations().into_iter().filter(|operation| wanted(operation.name)).collect();
    let compiler = compiler();
    let mut budgets = Budgets::read().map_err(|complaint| (complaint, WRONG))?;

    let counted = count_all(&operations, options.peer).map_err(|complaint| (complaint, WRONG))?;
    let mut over = 0;
    println!(
        "| operation | instructions | budget | change |{}",
        if options.peer { " theirs | theirs / ours |" } else { "" }
    );
    println!("|---|---:|---:|---:|{}", if options.peer { "---:|---:|" } else { "" });
    for (operation, count) in operations.iter().zip(&counted) {
        let budget = budgets.of.get(operation.name).copied();
        let mut line = format!("| `{}` | {:.1} |", operation.name, count.ours);
        match budget {
            Some(budget) => {
                let change = 100.0 * (count.ours - budget) / budget;
                let broken = count.ours > budget * (1.0 + TOLERANCE) && count.ours > budget + SLACK;
                over += usize::from(broken);
                let mark = if broken { " **over**" } else { "" };
                let _ = write!(line, " {budget:.1} | {change:+.1} %{mark} |");
            }
            None => {
                over += 1;
                line.push_str(" | **no budget** |");
            }
        }
        if let Some(theirs) = count.theirs {
            let _ = write!(line, " {theirs:.1} | {:.2} |", theirs / count.ours);
        }
        println!("{line}");
    }

    if options.update {
        budgets.compiler = compiler;
        budgets
            .of
            .extend(operations.iter().zip(&counted).map(|(op, count)| (op.name.to_owned(), count.ours)));
        budgets.write().map_err(|complaint| (complaint, WRONG))?;
        println!("\nThe budgets are what was counted.");
        return Ok(ExitCode::SUCCESS);
    }
    if budgets.compiler != compiler {
        let complaint = format!(
            "NOT CHECKED: the budgets were counted with {}, this is {compiler}. After a look at the changes above, \
             run again with --update.",
            budgets.compiler
        );
        return Err((complaint, UNCHECKED));
    }
    if over > 0 {
        let complaint =
            format!("{over} of {} operations are over budget, or have none (see --help).", operations.len());
        return Err((complaint, OVER));
    }
    println!("\nAll {} operations are within budget.", operations.len());
    Ok(ExitCode::SUCCESS)
}

/// What was counted for one operation.
#[derive(Clone, Copy, Default)]
struct Count {
    ours: f64,
    theirs: Option<f64>,
}

/// Counts everything asked for, as many at a time as there are processors.
fn count_all(operations: &[Operation], peer: bool) -> Result<Vec<Count>, String> {
    let sides: &[&str] = if peer { &["ours", "theirs"] } else { &["ours"] };
    let jobs = (0..operations.len()).flat_map(|index| sides.iter().map(move |side| (index, *side)));
    let jobs: Mutex<Vec<(usize, &str)>> = Mutex::new(jobs.rev().collect());
    let take = || jobs.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop();
    let work = || {
        let mut done = Vec::new();
        while let Some((index, side)) = take() {
            done.push((index, side, count(&operations[index], side)?));
        }
        Ok::<_, String>(done)
    };

    let workers = thread::available_parallelism().map_or(1, usize::from);
    let mut counts = vec![Count::default(); operations.len()];
    thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            for (index, side, instructions) in worker.join().map_err(|_| "a counting thread panicked")?? {
                match side {
                    "ours" => counts[index].ours = instructions,
                    _ => counts[index].theirs = Some(instructions),
                }
            }
        }
        Ok(counts)
    })
}

fn count(operation: &Operation, side: &str) -> Result<f64, String> {
    let (few, many) = (operation.times, 11 * operation.times);
    let difference = total(operation.name, side, many)?.saturating_sub(total(operation.name, side, few)?);
    Ok(difference as f64 / (many - few) as f64)
}

/// All instructions of a run of this very program that does one operation so many times.
fn total(name: &str, side: &str, times: u64) -> Result<u64, String> {
    let program = std::env::current_exe().map_err(|error| format!("who am I? {error}"))?;
    let ran = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(["--run", name, side, &times.to_string()])
        .stdout(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run valgrind: {error}"))?;
    let text = String::from_utf8_lossy(&ran.stderr);
    let collected = text.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    match collected {
        Some(instructions) if ran.status.success() => Ok(instructions),
        _ => Err(format!("counting {name} failed:\n{text}")),
    }
}

/// The compiler that cargo uses here, and for what machine: other ones make other code.
fn compiler() -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let said = Command::new(rustc).arg("--version").output().map(|ran| ran.stdout).unwrap_or_default();
    format!("{} for {}", String::from_utf8_lossy(&said).trim(), std::env::consts::ARCH)
}

/// The file of budgets: TOML, of which this reads no more than it writes.
#[derive(Default)]
struct Budgets {
    compiler: String,
    of: BTreeMap<String, f64>,
}

impl Budgets {
    fn path() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("budgets.toml")
    }

    fn read() -> Result<Budgets, String> {
        let text = match std::fs::read_to_string(Budgets::path()) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Budgets::default()),
            Err(error) => return Err(format!("cannot read budgets.toml: {error}")),
        };
        let mut budgets = Budgets::default();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', '[']) {
                continue;
            }
            let broken = || format!("budgets.toml, line {}: not `\"operation\" = instructions`", number + 1);
            let (key, value) = line.split_once(" = ").ok_or_else(broken)?;
            if key == "compiler" {
                budgets.compiler = value.trim_matches('"').to_owned();
            } else {
                let instructions = value.parse().map_err(|_| broken())?;
                budgets.of.insert(key.trim_matches('"').to_owned(), instructions);
            }
        }
        Ok(budgets)
    }

    fn write(&self) -> Result<(), String> {
        let mut text = String::from(
            "# Instructions of one operation, as callgrind counts them. Written by\n\
             # cargo run --release -p backplane-benches --bin budgets -- --update\n\n",
        );
        let _ = writeln!(text, "compiler = \"{}\"\n\n[instructions]", self.compiler);
        for (name, instructions) in &self.of {
            let _ = writeln!(text, "\"{name}\" = {instructions:.1}");
        }
        std::fs::write(Budgets::path(), text).map_err(|error| format!("cannot write budgets.toml: {error}"))
    }
}
