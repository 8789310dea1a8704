//! In a process of its own: a span that another thread meets for the first time, with nobody to hear of it, in the moment in
//! which somebody begins to listen here, may be taken for one that nobody wants, and stay so.

#![cfg(feature = "tracing")]
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};

use backplane_actor::{Mailbox, System, testing::Seeded};
use tracing::span::{Attributes, Id, Record};

/// Writes down which spans begin, and who is in them.
struct Spans(Arc<Mutex<Vec<&'static str>>>);

impl Spans {
    fn say(&self, what: &'static str) {
        self.0.lock().unwrap().push(what);
    }
}

impl tracing::Subscriber for Spans {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "backplane_actor"
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        self.say(attributes.metadata().name());
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &tracing::Event<'_>) {
        self.say("said");
    }

    fn enter(&self, _: &Id) {
        self.say("in");
    }

    fn exit(&self, _: &Id) {
        self.say("out");
    }
}

#[test]
fn each_poll_is_in_the_span_of_its_actor() {
    let log = Arc::default();
    tracing::subscriber::with_default(Spans(Arc::clone(&log)), || {
        let seeded = Seeded::new(1);
        let system = System::new(seeded.clone());
        let address = system.spawn(|_: Mailbox<()>| async {
            tracing::info!(target: "backplane_actor", "here");
        });
        seeded.run(async move { address.ended().await });
    });
    assert_eq!(*log.lock().unwrap(), ["actor", "in", "said", "out"]);
}
