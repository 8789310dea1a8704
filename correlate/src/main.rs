//! The supervised streaming join: what can be asked of it. Everything else is in the files beside this one.

mod audit;
mod chart;
mod demo;
mod desk;
mod durable;
mod error;
mod generate;
mod job;
#[cfg(feature = "kafka")]
mod kafka;
mod kills;
mod log;
mod memory;
mod output;
mod places;
mod plain;
mod progress;
mod random;
mod read;
mod record;
mod report;
mod run;
mod status;
mod stream;
mod table;
#[cfg(test)]
mod targets;
mod text;
mod topology;
mod torture;
mod verify;
mod vitals;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::{progress::say, report::Form};

/// Joins streams by key, although their messages come in any order and the workers that join them die.
///
/// With no command: makes three streams of a million messages, shuffles them, joins them in memory while some of the
/// workers are killed, and checks the result against what it should be. Ends with 0 only if it is exactly right.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 110, args_conflicts_with_subcommands = true, after_long_help = LESSON)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    demo: demo::Demo,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Joins the files of a folder
    ///
    /// A record is a JSON object (a line of *.ndjson or *.ndjson.gz) or a line of *.csv below a header. One field names
    /// its stage, one holds its key, the rest is carried through as it came. When all stages have a key, a row is
    /// written: {"key":7,"A":{..},"B":{..}}.
    #[command(after_long_help = RUN)]
    Run(run::Run),
    /// Makes input to try `run` with
    Generate(generate::Generate),
    /// Checks an output of `run` against its input, or a log against its seed, in another way than it was made
    Verify(verify::Verify),
    /// Says how far a log is: offsets, lag, open keys, restarts, whether a process works on it or not
    Status(status::Status),
    /// Kills the main job on a log again and again, damages the log, and checks that nothing is lost or doubled
    Torture(torture::Torture),
}

const LESSON: &str = "\
Try it:
  correlate                                       join three million messages in memory, killing workers
  correlate --compare                             and measure a plain single-thread join beside it
  correlate generate --output in                  make three million messages on disk
  correlate run --input in --output out           join them
  correlate verify --input in --output out        check that, from scratch

Exit codes: 0 all is exactly right; 1 it is not, or could not be done; 2 the options make no sense; 3 it was asked to
stop (SIGTERM, Ctrl-C) before its end: what it had committed is kept, and the same command goes on.";

const RUN: &str = "\
What is in the output folder:
  part-00.ndjson ..    joined rows; a key's partition depends on the key alone
  incomplete.ndjson    keys that lack a stage, in the same form, with the stages they have
  duplicates.ndjson    messages whose key had one of their stage already, one a line
  rejects.ndjson       broken lines: file, line, why, text
  correlate.json       what was asked for and found; only a complete output has it

Keys are strings or integers of any length; 1 and \"1\" are different keys. CSV has no types: a CSV key that is
written like an integer is one, unless --csv-keys says otherwise. CSV values are carried as strings.

A stage may have more messages than memory holds, but the open keys must fit: those that some stages have and
others do not, yet. A message that comes after its key was joined is known as a duplicate at the end, unless all
stages come again: then there is a second row, except with --distinct.";

/// Options of every join.
#[derive(Clone, Debug, Args)]
struct Common {
    /// Threads that drive the workers [default: one for each processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
    /// Drive them with the NUMA-aware pool of backplane-pool instead of async-executor
    #[arg(long)]
    pool: bool,
    /// For whom the report at the end is
    #[arg(long, value_name = "FORM", value_enum, default_value_t)]
    report: Form,
    /// Show nothing on the way, only the report
    #[arg(long, short)]
    quiet: bool,
}

/// How a command ended that was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    /// All is right.
    Right,
    /// Something is not.
    Wrong,
    /// It was asked to stop, and what it had done is kept.
    Stopped,
}

impl From<bool> for Done {
    fn from(is_right: bool) -> Done {
        if is_right { Done::Right } else { Done::Wrong }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.command {
        None => cli.demo.run(),
        Some(Command::Run(run)) => run.run(),
        Some(Command::Generate(generate)) => generate.run().map(|()| Done::Right),
        Some(Command::Verify(verify)) => verify.run().map(Done::from),
        Some(Command::Torture(torture)) => torture.run().map(Done::from),
        Some(Command::Status(status)) => status.run().map(|()| Done::Right),
    };
    match done {
        Ok(Done::Right) => ExitCode::SUCCESS,
        Ok(Done::Wrong) => ExitCode::FAILURE,
        Ok(Done::Stopped) => ExitCode::from(3),
        Err(error) => {
            say(format!("correlate: {}", error));
            ExitCode::FAILURE
        }
    }
}
