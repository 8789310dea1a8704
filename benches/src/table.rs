//! The table: every row, ours and the peers in turns, and whether the goals are met.
//!
//! A row runs in several processes, one after another, all sides in each: where a process has its stack, its heap and
//! its thread-locals is chance, and can cost a tight loop half its speed for as long as the process lives.

use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use backplane_benches::contest::{Effort, Goal, Side, Spread, measure};
use backplane_benches::heap::Heap;
use backplane_benches::report::{MARKDOWN_HEAD, Outcome, Unit, json, markdown, summary};
use backplane_benches::rows::{self, Row};

const HELP: &str = "\
Ours against the peers, as a Markdown table.

Usage: cargo bench -p backplane-benches -- [OPTIONS]

Options:
  --only ROW   run only the rows whose name contains ROW (may be given more than once)
  --quick      show that every row runs; the figures mean little
  --long       also run what takes the peer minutes (its star of 1,000,000)
  --fresh      in a heap that nothing else uses, instead of one that has been used
  --json       one JSON object a line instead of the table
  --list       name the rows and what each measures
  --help       this

The exit code is 0 whether or not the goals are met.";

struct Options {
    effort: Effort,
    fresh: bool,
    only: Vec<String>,
    json: bool,
    list: bool,
    /// Asked by this program of itself: the samples of one row, taken in this process.
    samples: Option<String>,
}

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(complaint) => {
            eprintln!("{complaint}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    let wanted =
        |name: &str| options.only.is_empty() || options.only.iter().any(|part| name.contains(part.as_str()));
    let mut rows: Vec<Row> = rows::all();
    if let Some(name) = &options.samples {
        rows.retain(|row| row.name == *name);
        return take_samples(&rows, &options);
    }
    rows.retain(|row| wanted(&row.name));
    let memory: Vec<_> = MEMORY.into_iter().filter(|row| wanted(row.name)).collect();
    if rows.is_empty() && memory.is_empty() {
        eprintln!("no row has that in its name; --list names them");
        return ExitCode::from(2);
    }
    if options.list {
        rows.iter().for_each(|row| println!("{:34} {}", row.name, row.says));
        memory.iter().for_each(|row| println!("{:34} {}", row.name, row.says));
        return ExitCode::SUCCESS;
    }

    if !options.json {
        println!("{}\n\n{MARKDOWN_HEAD}", setting());
    }
    let timed = rows.iter().map(|row| (row.name.as_str(), time(row, &options)));
    let weighed = memory.iter().map(|row| (row.name, weigh(row).map(|outcome| vec![outcome])));
    let mut outcomes = Vec::new();
    for (name, measured) in timed.chain(weighed) {
        match measured {
            Ok(measured) => {
                for outcome in &measured {
                    println!("{}", if options.json { json(outcome) } else { markdown(outcome) });
                }
                outcomes.extend(measured);
            }
            Err(complaint) => eprintln!("{name}: {complaint}"),
        }
    }
    if !options.json {
        println!("\n{}", summary(&outcomes));
    }
    ExitCode::SUCCESS
}

/// `None` when help was asked for.
fn parse(mut args: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
    let mut options = Options {
        effort: Effort::FULL,
        fresh: false,
        only: Vec::new(),
        json: false,
        list: false,
        samples: None,
    };
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--only" => options.only.push(args.next().ok_or("--only wants the name of a row")?),
            "--quick" => options.effort = Effort { long: options.effort.long, ..Effort::QUICK },
            "--long" => options.effort.long = true,
            "--fresh" => options.fresh = true,
            "--json" => options.json = true,
            "--list" => options.list = true,
            "--samples" => options.samples = args.next(),
            "--help" | "-h" => return Ok(None),
            // Cargo says this to every benchmark.
            "--bench" => {}
            other => return Err(format!("there is no option {other}")),
        }
    }
    Ok(Some(options))
}

/// Where this was measured, in a line.
fn setting() -> String {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let model = std::fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        })
        .unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    format!("{model}, {cpus} CPUs. Medians, with the tenth and the ninetieth percentile.")
}

/// Runs a row in process after process, and sums up.
fn time(row: &Row, options: &Options) -> Result<Vec<Outcome>, String> {
    let start = Instant::now();
    let mut samples: Vec<Vec<f64>> = Vec::new();
    for process in 0..options.effort.processes {
        if process > 0 && start.elapsed() > options.effort.row {
            break;
        }
        let taken = sample_elsewhere(row, options)?;
        samples.resize(taken.len(), Vec::new());
        samples.iter_mut().zip(taken).for_each(|(all, more)| all.extend(more));
    }

    let (ours, theirs) = samples.split_first().ok_or("no samples")?;
    let alone = Outcome {
        row: row.name.clone(),
        says: row.says.to_owned(),
        unit: Unit::Nanoseconds,
        ours: Spread::of(ours.clone()).ok_or("no samples of ours")?,
        peer: None,
        ratio: None,
        goal: Goal::None,
    };
    if theirs.is_empty() {
        return Ok(vec![alone]);
    }
    let against = |(side, theirs): (Side, &Vec<f64>)| Outcome {
        peer: Spread::of(theirs.clone()).map(|spread| (side.who.to_owned(), spread)),
        ratio: Spread::of_ratios(ours, theirs),
        goal: side.goal,
        ..alone.clone()
    };
    Ok((row.sides)(&options.effort).into_iter().skip(1).zip(theirs).map(against).collect())
}

/// Has another process of this program take samples of a row: for each side, batch by batch.
fn sample_elsewhere(row: &Row, options: &Options) -> Result<Vec<Vec<f64>>, String> {
    let me = std::env::current_exe().map_err(|error| format!("who am I? {error}"))?;
    let effort =
        [(options.effort.quick, "--quick"), (options.effort.long, "--long"), (options.fresh, "--fresh")];
    let ran = Command::new(me)
        .args(["--samples", &row.name])
        .args(effort.iter().filter(|(on, _)| *on).map(|(_, flag)| flag))
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot run another process: {error}"))?;
    let text = String::from_utf8_lossy(&ran.stdout);
    let side = |line: &str| line.split_whitespace().map(str::parse).collect::<Result<Vec<f64>, _>>();
    text.lines().map(side).collect::<Result<_, _>>().map_err(|_| format!("another process said {text:?}"))
}

/// What that other process does.
fn take_samples(rows: &[Row], options: &Options) -> ExitCode {
    let mut heap = if options.fresh { Heap::fresh() } else { Heap::used() };
    for row in rows {
        for side in measure(&mut (row.sides)(&options.effort), &options.effort, &mut heap) {
            println!("{}", side.iter().map(f64::to_string).collect::<Vec<_>>().join(" "));
        }
    }
    ExitCode::SUCCESS
}

/// A row about bytes: counted once, in a process of its own for each side, because the figure is exact.
struct MemoryRow {
    name: &'static str,
    says: &'static str,
    goal: Goal,
}

const MEMORY: [MemoryRow; 5] = [
    MemoryRow { name: "memory/idle", says: "an idle device, with what it lives in", goal: Goal::None },
    MemoryRow {
        name: "memory/managed",
        says: "a managed device beside its future",
        goal: Goal::Under(340.0),
    },
    MemoryRow { name: "memory/leaf", says: "a device that monitors a hub, and its link", goal: Goal::None },
    MemoryRow {
        name: "memory/client",
        says: "left behind by a short-lived client of a long-lived device",
        goal: Goal::Under(1.0),
    },
    MemoryRow {
        name: "memory/churn",
        says: "left behind by a link made and unmade on a long-lived device",
        goal: Goal::Under(1.0),
    },
];

fn weigh(row: &MemoryRow) -> Result<Outcome, String> {
    let side = |who: &str| {
        let ran = Command::new(env!("CARGO_BIN_EXE_memory"))
            .args([row.name, who])
            .stderr(Stdio::inherit())
            .output()
            .map_err(|error| format!("cannot run the counting program: {error}"))?;
        let text = String::from_utf8_lossy(&ran.stdout);
        let bytes: f64 = text.trim().parse().map_err(|_| format!("the counting program said {text:?}"))?;
        Ok::<_, String>(Spread::exactly(bytes))
    };
    let (ours, theirs) = (side("ours")?, side("theirs")?);
    Ok(Outcome {
        row: row.name.to_owned(),
        says: row.says.to_owned(),
        unit: Unit::Bytes,
        ours,
        ratio: Some(Spread::exactly(theirs.median / ours.median)),
        peer: Some(("async-backplane".to_owned(), theirs)),
        goal: row.goal,
    })
}
