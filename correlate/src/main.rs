//! The supervised streaming join: what can be asked of it. Everything else is in the files beside this one.

mod demo;
mod desk;
mod error;
mod job;
mod kills;
mod memory;
mod plain;
mod progress;
mod random;
mod report;
mod table;
mod topology;
mod vitals;

use std::process::ExitCode;

use clap::{Args, Parser};

use crate::{progress::say, report::Form};

/// Joins streams by key, although messages come in any order and workers die.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 110)]
struct Cli {
    #[command(flatten)]
    demo: demo::Demo,
}

/// Options of every join.
#[derive(Clone, Debug, Args)]
struct Common {
    /// Threads that drive the workers [default: one for each processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
    /// For whom the report at the end is
    #[arg(long, value_name = "FORM", value_enum, default_value_t)]
    report: Form,
    /// Show nothing on the way, only the report
    #[arg(long, short)]
    quiet: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.demo.run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(format!("correlate: {error}"));
            ExitCode::FAILURE
        }
    }
}
