//! What a scenario of supervision leads to: prints the trace of each given scenario file, one JSON object a line.
//!
//! The form of both is FORMAT.md's, that of the recorded traces in `tests/otp`.
//! `cargo run -q --release -p backplane-supervisor --example otp_trace -- SCENARIO.json...`

use std::path::Path;
use std::process::ExitCode;

#[path = "../tests/support/mod.rs"]
mod support;

fn main() -> ExitCode {
    // Start functions that panic are part of the scenarios; what they say is in the traces.
    std::panic::set_hook(Box::new(|_| {}));
    let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/otp/scenarios/held_simple.json");
    let mut files: Vec<_> = std::env::args_os().skip(1).collect();
    if files.is_empty() {
        files.push(recorded.into());
    }
    let mut failed = false;
    for file in files {
        let ran =
            std::panic::catch_unwind(|| support::runner::run(&support::scenario::read(Path::new(&file))));
        match ran {
            Ok(trace) => println!("{trace}"),
            Err(panic) => {
                let words = panic.downcast_ref::<String>().map(String::as_str);
                let words = words.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("panicked");
                eprintln!("{}: {words}", Path::new(&file).display());
                failed = true;
            }
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
