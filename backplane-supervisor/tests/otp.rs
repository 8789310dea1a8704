//! What OTP did, we do: every recorded scenario through the public API, compared with the trace of the real system,
//! reports and exit signals included.
//!
//! Scenarios with the tags `untyped` (a statically typed API cannot express them) and `otp_bug` are left out. Where OTP
//! releases differ the newest counts. Beyond that the list of differences is empty.

#![allow(clippy::unwrap_used)]

mod support;

use support::{runner, scenario};

#[test]
fn every_recorded_scenario_leaves_the_trace_that_otp_left() {
    std::panic::set_hook(Box::new(|_| {}));
    let recorded = scenario::recorded();
    assert!(recorded.len() > 150, "the recorded scenarios are here");
    let mut wrong = Vec::new();
    for (scenario, trace) in &recorded {
        let ran = std::panic::catch_unwind(|| runner::run(scenario));
        let difference = match ran {
            Ok(ours) => scenario::difference(trace, &ours),
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
    let _ = std::panic::take_hook();
    assert!(wrong.is_empty(), "{} of {} differ\n{}", wrong.len(), recorded.len(), wrong.join("\n"));
}
