//! What OTP did, we do: every recorded scenario through the public API, compared with the trace of the real system,
//! reports and exit signals included.
//!
//! Scenarios with the tags `untyped` (a statically typed API cannot express them) and `otp_bug` are left out. Where OTP
//! releases differ the newest counts. Beyond that the list of differences is empty.

#![allow(clippy::unwrap_used)]

mod support;

use serde_json::Value;
use support::{runner, scenario};

/// Runs all and compares.
fn differences(run: fn(&Value) -> Value, of_otp: fn(&Value) -> Value) {
    let recorded = scenario::recorded();
    assert!(recorded.len() > 150, "the recorded scenarios are here");
    let mut wrong = Vec::new();
    for (scenario, trace) in &recorded {
        let ran = std::panic::catch_unwind(|| run(scenario));
        let difference = match ran {
            Ok(ours) => scenario::difference(&of_otp(trace), &ours),
            Err(panic) => {
                let words = panic.downcast_ref::<String>().cloned();
                Some(
                    words.or_else(|| panic.downcast_ref::<&str>().map(|s| s.to_string())).unwrap_or_default(),
                )
            }
        };
        if let Some(difference) = difference {
            wrong.push(format!("{}: {difference}", scenario["name"]));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ\n{}", wrong.len(), recorded.len(), wrong.join("\n"));
}

#[test]
fn every_recorded_scenario_leaves_the_trace_that_otp_left() {
    differences(runner::run, Value::clone);
}

#[test]
fn every_recorded_scenario_leaves_the_trace_that_otp_left_where_nobody_listens() {
    differences(runner::run_unheard, runner::told_by_others);
}
