//! What others see of an actor: how long it is busy, its figures. Its spans are in `spans.rs`.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use backplane::{Exit, Runtime};
use backplane_actor::{
    Mailbox, Options, System,
    testing::{Seeded, Sleep, Task},
};
use metrics::{
    Counter, CounterFn, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, SharedString, Unit,
};

/// A clock that goes on by a millisecond whenever somebody reads it.
#[derive(Clone)]
struct Ticking(Seeded, Arc<AtomicU64>);

impl Runtime for Ticking {
    type Task = Task;
    type Sleep = Sleep;

    fn spawn<F: Future<Output = ()> + Send + 'static>(&self, future: F) -> Task {
        self.0.spawn(future)
    }

    fn detach(&self, task: Task) {
        self.0.detach(task);
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        self.0.sleep_until(deadline)
    }

    fn now(&self) -> Instant {
        self.0.now() + Duration::from_millis(self.1.fetch_add(1, Relaxed))
    }
}

fn ticking() -> (Seeded, Arc<AtomicU64>, System<Ticking>) {
    let (seeded, reads) = (Seeded::new(1), Arc::new(AtomicU64::new(0)));
    (seeded.clone(), Arc::clone(&reads), System::new(Ticking(seeded, reads)))
}

async fn takes(mut mailbox: Mailbox<u32>) {
    while let Some(n) = mailbox.receive().await {
        assert!(n < 10, "too much");
    }
}

/// One poll, three messages, and the end.
fn life(seeded: &Seeded, system: &System<Ticking>, options: Options<u32>) -> Option<Duration> {
    let address = system.spawn_with(options, takes);
    (0..3).for_each(|n| address.try_cast(n).unwrap());
    address.drain();
    let ended = address.clone();
    assert_eq!(seeded.run(async move { ended.ended().await }), Some(Exit::Normal));
    address.load().busy
}

#[test]
fn a_timed_actor_says_how_long_it_was_busy_and_no_other_reads_a_clock() {
    let (seeded, reads, system) = ticking();
    let before = reads.load(Relaxed);
    assert_eq!(life(&seeded, &system, Options::new()), None);
    assert_eq!(reads.load(Relaxed), before);
    assert_eq!(life(&seeded, &system, Options::new().timed()), Some(Duration::from_millis(1)));
    assert_eq!(reads.load(Relaxed), before + 2);
}

/// Adds up all that it is told, by name and labels.
#[derive(Clone, Default)]
struct Figures(Arc<Mutex<BTreeMap<String, u64>>>);

struct Figure(Figures, String);

impl Figure {
    fn of(figures: &Figures, key: &Key) -> Arc<Figure> {
        let labels = key.labels().map(|label| format!(" {}={}", label.key(), label.value()));
        Arc::new(Figure(figures.clone(), format!("{}{}", key.name(), labels.collect::<String>())))
    }

    fn add(&self, n: u64) {
        *self.0.0.lock().unwrap().entry(self.1.clone()).or_default() += n;
    }
}

impl CounterFn for Figure {
    fn increment(&self, n: u64) {
        self.add(n);
    }

    fn absolute(&self, _: u64) {}
}

impl HistogramFn for Figure {
    fn record(&self, seconds: f64) {
        self.add((seconds * 1000.0).round() as u64);
    }
}

impl metrics::Recorder for Figures {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(Figure::of(self, key))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Figure::of(self, key))
    }
}

#[test]
fn a_recorder_gets_the_figures_of_starts_messages_ends_and_dead_letters() {
    let figures = Figures::default();
    metrics::with_local_recorder(&figures, || {
        let (seeded, _, system) = ticking();
        life(&seeded, &system, Options::new().label("sum").timed());
        let dies = system.spawn(takes);
        dies.try_cast(10).unwrap();
        dies.try_cast(1).unwrap();
        assert!(seeded.run(async move { dies.ended().await }).unwrap().is_fault());
    });
    let all: Vec<_> = figures.0.lock().unwrap().iter().map(|(name, n)| format!("{name}: {n}")).collect();
    assert_eq!(
        all,
        [
            "backplane_actor_busy_seconds actor=sum: 1",
            "backplane_actor_dead_letters_total cause=died: 1",
            "backplane_actor_ended_total actor=sum exit=normal: 1",
            "backplane_actor_ended_total exit=fault: 1",
            "backplane_actor_handled_total: 1",
            "backplane_actor_handled_total actor=sum: 3",
            "backplane_actor_started_total: 1",
            "backplane_actor_started_total actor=sum: 1",
        ]
    );
}
