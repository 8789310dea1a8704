//! What the features add.

use std::fmt;
use std::sync::{Arc, Mutex};

use backplane_supervisor::{ChildSpec, RestartStrategy, Supervisor};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::support::virtual_time::World;
use crate::{How, Log, SECOND, quiet, start, stop};

/// Writes down what it is told of the supervisors, or panics.
struct Collector {
    lines: Arc<Mutex<Vec<String>>>,
    panics: bool,
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "device" {
            return;
        }
        let value = format!("{value:?}");
        self.0 += &format!(" {}={}", field.name(), value.trim_matches('"'));
    }
}

impl Subscriber for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "backplane_supervisor"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        if self.panics {
            panic!("the collector panicked");
        }
        let level = if *event.metadata().level() == Level::ERROR { "error" } else { "debug" };
        let mut line = Line(level.to_owned());
        event.record(&mut line);
        self.lines.lock().unwrap().push(line.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn nested(log: &Log) -> Supervisor {
    let inner = log.clone();
    Supervisor::new(RestartStrategy::OneForOne).child(ChildSpec::supervisor("s", move || {
        Supervisor::new(RestartStrategy::OneForOne).child(inner.child("x"))
    }))
}

#[test]
fn every_report_is_an_event_with_fields_once() {
    quiet();
    let lines = Arc::default();
    let collector = Collector { lines: Arc::clone(&lines), panics: false };
    tracing::subscriber::with_default(collector, || {
        let (world, log) = (World::new(), Log::default());
        let handle = start(&world, nested(&log));
        log.end("x", How::Panic);
        world.settle();
        // Whatever other threads have met for the first time just now, with nobody to hear of it, is heard of here.
        tracing::callsite::rebuild_interest_cache();
        world.advance(10 * SECOND);
        lines.lock().unwrap().clear();
        log.end("x", How::Panic);
        world.settle();
        let told = std::mem::take(&mut *lines.lock().unwrap());
        let ended = "supervisor=root/s child=x incarnation=2 reason=panicked: x panicked";
        assert_eq!(
            told,
            [
                format!("debug message=ended: panicked: x panicked {ended}"),
                format!("error message=terminated: panicked: x panicked {ended}"),
                "debug message=started supervisor=root/s child=x incarnation=3 reason=".to_owned(),
            ]
        );
        stop(&world, &handle);
    });
}

#[test]
fn a_collector_that_panics_does_no_harm() {
    quiet();
    let collector = Collector { lines: Arc::default(), panics: true };
    tracing::subscriber::with_default(collector, || {
        let (world, log) = (World::new(), Log::default());
        let handle = start(&world, nested(&log));
        log.end("x", How::Err);
        world.settle();
        assert_eq!(log.take(), "+x -x +x");
        stop(&world, &handle);
    });
}

#[test]
fn a_snapshot_is_a_document() {
    let (world, log) = (World::new(), Log::default());
    let handle = start(&world, nested(&log).child(log.child("a")));
    log.end("x", How::Err);
    world.advance(SECOND);
    let snapshot = handle.snapshot().unwrap();
    let document = serde_json::to_value(&snapshot).unwrap();
    let below = &snapshot.children[0].below.as_ref().unwrap();
    let expected = serde_json::json!({
        "path": "root",
        "device": snapshot.device.to_string(),
        "children": [
            {
                "id": "s", "kind": "Supervisor", "state": "Running",
                "device": below.device.to_string(),
                "incarnation": 1, "restarts": 0, "uptime": { "secs": 1, "nanos": 0 }, "last_end": null,
                "below": {
                    "path": "root/s",
                    "device": below.device.to_string(),
                    "children": [{
                        "id": "x", "kind": "Worker", "state": "Running",
                        "device": below.children[0].device.unwrap().to_string(),
                        "incarnation": 2, "restarts": 1, "uptime": { "secs": 1, "nanos": 0 },
                        "last_end": "failed: x failed", "below": null,
                    }],
                },
            },
            {
                "id": "a", "kind": "Worker", "state": "Running",
                "device": snapshot.children[1].device.unwrap().to_string(),
                "incarnation": 1, "restarts": 0, "uptime": { "secs": 1, "nanos": 0 }, "last_end": null,
                "below": null,
            },
        ],
    });
    assert_eq!(document, expected);
    stop(&world, &handle);
}
