//! A thread that looks at the workers now and then, and sleeps while they do.
//!
//! It sees what a worker cannot: that it has been in one poll for too long. What waits behind such a poll is given to others,
//! and the task is told of by name. While every worker sleeps, so does this thread.

use std::{
    fmt,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    domain::{Domain, House, Remote},
    event::{Event, Hog},
    registry::TaskName,
};

/// The longest time between two looks.
const LOOK: Duration = Duration::from_millis(10);
/// So many looks at a house asleep, and the watch sleeps as well.
const QUIET: u32 = 2;

/// Wakes the watch.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    /// The watch sleeps until somebody calls.
    asleep: AtomicBool,
    state: Mutex<Call>,
    called: Condvar,
}

#[derive(Debug, Default)]
struct Call {
    awake: bool,
    over: bool,
}

impl Alarm {
    /// A worker has work again.
    #[inline]
    pub(crate) fn somebody_is_awake(&self) {
        if self.asleep.load(Ordering::SeqCst) {
            self.call(|call| call.awake = true);
        }
    }

    /// The last worker has ended.
    pub(crate) fn end(&self) {
        self.call(|call| call.over = true);
    }

    #[cold]
    fn call(&self, say: impl FnOnce(&mut Call)) {
        self.asleep.store(false, Ordering::SeqCst);
        say(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.called.notify_one();
    }

    /// Waits for so long, or until the end, which is `true`.
    fn wait(&self, time: Duration) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.called.wait_timeout_while(state, time, |call| !call.over);
        waited.unwrap_or_else(PoisonError::into_inner).0.over
    }

    /// Waits until somebody is awake, as `is_anybody` would say, or until the end.
    fn sleep(&self, is_anybody: impl FnOnce() -> bool) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).awake = false;
        self.asleep.store(true, Ordering::SeqCst);
        if !is_anybody() {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let waited = self.called.wait_while(state, |call| !call.awake && !call.over);
            drop(waited);
        }
        self.asleep.store(false, Ordering::SeqCst);
    }
}

/// Somebody who hears of events.
pub(crate) type Listener = Arc<dyn Fn(&Event) + Send + Sync>;

/// What is watched: a domain's workers and the names of their tasks.
pub(crate) struct Watched {
    pub(crate) domain: Arc<Domain>,
    /// The number of the domain's first worker.
    pub(crate) first: usize,
}

pub(crate) struct Watch {
    pub(crate) house: Arc<House>,
    pub(crate) domains: Vec<Watched>,
    pub(crate) threshold: Duration,
    pub(crate) listener: Option<Listener>,
}

/// What a worker was seen in.
struct Seen {
    polls: u64,
    since: Instant,
    told: Option<Hog>,
}

impl Watch {
    /// Looks until the pool has ended.
    pub(crate) fn run(self) {
        let look = (self.threshold / 4).clamp(Duration::from_millis(1), LOOK);
        let start = Instant::now();
        let unseen = |_: &Arc<Remote>| Seen { polls: u64::MAX, since: start, told: None };
        let mut seen: Vec<Vec<Seen>> = self
            .domains
            .iter()
            .map(|watched| watched.domain.remotes().iter().map(unseen).collect())
            .collect();
        let mut quiet = 0;
        while !self.house.alarm.wait(look) {
            let now = Instant::now();
            for (watched, seen) in self.domains.iter().zip(&mut seen) {
                self.look(now, watched, seen);
            }
            quiet = if self.is_anybody_awake() { 0 } else { quiet + 1 };
            if quiet >= QUIET {
                quiet = 0;
                self.house.alarm.sleep(|| self.is_anybody_awake());
            }
        }
    }

    fn is_anybody_awake(&self) -> bool {
        let awake = |remote: &Arc<Remote>| remote.awake.load(Ordering::SeqCst);
        self.domains.iter().any(|watched| watched.domain.remotes().iter().any(awake))
    }

    fn look(&self, now: Instant, watched: &Watched, seen: &mut [Seen]) {
        let mut somebody_is_stuck = false;
        for (at, (remote, seen)) in watched.domain.remotes().iter().zip(seen).enumerate() {
            let polls = progress(remote);
            let awake = remote.awake.load(Ordering::SeqCst);
            if !awake || polls != seen.polls {
                remote.stuck.store(false, Ordering::Relaxed);
                if let Some(hog) = seen.told.take() {
                    self.tell(Event::HogEnded(Hog { lasted: now - seen.since, ..hog }));
                }
                *seen = Seen { polls, since: now, told: None };
                continue;
            }
            remote.stuck.store(true, Ordering::Relaxed);
            somebody_is_stuck = true;
            let lasted = now - seen.since;
            let is_task = !remote.in_hook.load(Ordering::Relaxed) || !remote.innermost().is_none();
            if lasted >= self.threshold && seen.told.is_none() && is_task {
                let task = name(watched, remote, polls);
                let hog = Hog { task, worker: watched.first + at, node: watched.domain.node, lasted };
                self.tell(Event::Hog(hog.clone()));
                seen.told = Some(hog);
            }
        }
        if somebody_is_stuck {
            watched.domain.idle.notify();
        }
    }

    /// A listener that panics is not asked to stop listening.
    fn tell(&self, event: Event) {
        if let Some(listener) = &self.listener {
            drop(backplane::catch(|| listener(&event)));
        }
    }
}

/// The name of the task that a worker polls, if it still polls it afterwards.
fn name(watched: &Watched, remote: &Remote, polls: u64) -> Option<TaskName> {
    let name = watched.domain.name_of(remote.innermost())?;
    (progress(remote) == polls).then_some(name)
}

/// Changes with every poll, and with every task that is dropped.
fn progress(remote: &Remote) -> u64 {
    remote.counters.polls.get().wrapping_add(remote.counters.ended.get())
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("threshold", &self.threshold).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{panic::Location, sync::mpsc};

    use crossbeam_deque::Worker;

    use super::*;
    use crate::{cpus::CpuSet, domain::Polled, reactor::Reactor, registry::Site};

    const THRESHOLD: Duration = Duration::from_millis(100);

    /// A worker without a thread, and its watch, at whose clock it is always the time that the test says.
    struct Scene {
        watch: Watch,
        watched: Watched,
        seen: Vec<Seen>,
        start: Instant,
        told: mpsc::Receiver<Event>,
    }

    impl Scene {
        fn new() -> Scene {
            let house = Arc::new(House::new(Alarm::default()));
            let domain = Domain::new(0, 7, CpuSet::new(), Arc::clone(&house), 1);
            let remote = Remote::new(Worker::new_fifo().stealer(), &Reactor::AsyncIo);
            domain.workers_have_started(Box::new([Arc::new(remote)]));
            let (tell, told) = mpsc::channel();
            let listener: Listener = Arc::new(move |event: &Event| drop(tell.send(event.clone())));
            let watch = Watch { house, domains: vec![], threshold: THRESHOLD, listener: Some(listener) };
            let (watched, start) = (Watched { domain, first: 3 }, Instant::now());
            let seen = vec![Seen { polls: u64::MAX, since: start, told: None }];
            let mut scene = Scene { watch, watched, seen, start, told };
            scene.look(0);
            scene
        }

        fn remote(&self) -> &Remote {
            &self.watched.domain.remotes()[0]
        }

        /// What is told at a look after so many thresholds.
        fn look(&mut self, thresholds: u32) -> Option<Event> {
            self.watch.look(self.start + THRESHOLD * thresholds, &self.watched, &mut self.seen);
            self.told.try_recv().ok()
        }

        fn polls_a_task(&self) {
            let site = Site::of::<Scene>(Location::caller());
            self.watch.house.know(site);
            self.remote().polls(Polled::new(0, site));
        }
    }

    #[test]
    fn a_worker_is_stuck_as_long_as_it_is_in_one_poll_and_no_longer() {
        let mut scene = Scene::new();
        let is_stuck = |scene: &Scene| scene.remote().stuck.load(Ordering::Relaxed);
        assert!(!is_stuck(&scene));
        scene.polls_a_task();
        assert!(matches!(scene.look(1), Some(Event::Hog(hog)) if hog.lasted == THRESHOLD && hog.worker == 3));
        assert!(is_stuck(&scene));
        assert_eq!(scene.look(2), None, "told once");
        scene.remote().counters.polls.add(1);
        assert!(matches!(scene.look(3), Some(Event::HogEnded(hog)) if hog.lasted == THRESHOLD * 3));
        assert!(!is_stuck(&scene));
        // Nor when it sleeps, however long.
        assert!(scene.look(4).is_some() && is_stuck(&scene));
        scene.remote().awake.store(false, Ordering::SeqCst);
        assert!(matches!(scene.look(5), Some(Event::HogEnded(_))));
        assert!(!is_stuck(&scene));
        assert_eq!(scene.look(6), None);
        assert!(!is_stuck(&scene));
    }

    #[test]
    fn a_hook_is_no_hog_but_a_task_that_runs_while_it_blocks_is_one() {
        let mut scene = Scene::new();
        scene.remote().in_hook.store(true, Ordering::Relaxed);
        assert_eq!(scene.look(1), None);
        scene.remote().blocks();
        assert_eq!(scene.look(2), None, "nobody is in a poll");
        scene.polls_a_task();
        assert!(matches!(scene.look(3), Some(Event::Hog(hog)) if hog.task.is_some()));
    }

    #[test]
    fn many_drops_in_a_row_are_no_hog() {
        let mut scene = Scene::new();
        for look in 1..5 {
            scene.polls_a_task();
            scene.remote().counters.ended.add_after(1);
            assert_eq!(scene.look(look), None);
        }
        assert!(
            matches!(scene.look(5), Some(Event::Hog(hog)) if hog.lasted == THRESHOLD),
            "but a long one is"
        );
    }
}
