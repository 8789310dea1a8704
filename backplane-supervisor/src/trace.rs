//! Reports as `tracing` events.

use crate::report::{Event, Report};

/// Where they come from.
const TARGET: &str = "backplane_supervisor";

/// Whether anybody collects anything.
pub(crate) fn anybody() -> bool {
    tracing::level_filters::LevelFilter::current() != tracing::level_filters::LevelFilter::OFF
}

pub(crate) fn emit(report: &Report) {
    let supervisor = &*report.supervisor;
    let child = report.child.as_deref().unwrap_or_default();
    let incarnation = report.incarnation;
    let device = report.device.map(|device| device.to_string()).unwrap_or_default();
    let reason = match &report.event {
        Event::Ended { exit, .. }
        | Event::ChildTerminated(exit)
        | Event::ShutdownError { exit, .. }
        | Event::Finished(exit) => exit.to_string(),
        Event::StartFailed(error) | Event::StartError(error) => error.to_string(),
        _ => String::new(),
    };
    if report.event.is_error() {
        tracing::error!(target: TARGET, supervisor, child, device, incarnation, reason, "{}", report.event);
    } else {
        tracing::debug!(target: TARGET, supervisor, child, device, incarnation, reason, "{}", report.event);
    }
}
