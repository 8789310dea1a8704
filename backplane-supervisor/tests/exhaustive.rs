//! Every supervisor of up to three children, every strategy, every restart type, every order of ends and of failing
//! starts: whatever happens, the machine keeps its promises.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

#[path = "../src/backoff.rs"]
mod backoff;
#[path = "../src/names.rs"]
mod names;
#[path = "../src/order.rs"]
mod order;
#[path = "../src/tree.rs"]
mod tree;

use order::Key;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tree::{
    Action, AutoShutdown, Child, Context, End, Ending, Intensity, Members, Named, Restart, RestartStrategy,
    State, Tree,
};

const PERIOD: Duration = Duration::from_secs(10);
const STRATEGIES: [RestartStrategy; 3] =
    [RestartStrategy::OneForOne, RestartStrategy::OneForAll, RestartStrategy::RestForOne];
const RESTARTS: [Restart; 3] = [Restart::Permanent, Restart::Transient, Restart::Temporary];
const ENDS: [End; 4] = [End::Normal, End::Shutdown, End::Fault, End::Killed];
/// Between two events: within the window, just within it, just out of it.
const GAPS: [Duration; 3] = [Duration::from_secs(4), PERIOD, Duration::from_nanos(10_000_000_001)];

struct Body {
    name: Arc<str>,
    at: usize,
}

impl Named for Body {
    fn name(&self) -> Option<&Arc<str>> {
        Some(&self.name)
    }
}

/// What a child is, by the plainest account: an independent one to hold the machine against.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Is {
    Running,
    Down,
    Retrying,
    Gone,
}

struct Case {
    strategy: RestartStrategy,
    restarts: Vec<Restart>,
    intensity: u32,
    gap: Duration,
    /// Which start attempts after the initial ones fail: one bit each.
    failing: u32,
    /// Which child ends, and how.
    ends: Vec<(usize, End)>,
}

struct Run<'a> {
    case: &'a Case,
    tree: Tree<Body>,
    keys: Vec<Key>,
    now: Instant,
    is: Vec<Is>,
    /// When a restart was due, by the plain account.
    counted: Vec<Instant>,
    attempts: u32,
    retries: Vec<usize>,
    gave_up: bool,
    finished: bool,
}

impl Run<'_> {
    fn at(&self, key: Key) -> usize {
        self.tree.get(key).map(|child| child.body.at).expect("the child is listed")
    }

    /// Whether one more restart, now, is too many: counted from scratch.
    fn is_too_many(&mut self) -> bool {
        self.counted.push(self.now);
        let recent = self.counted.iter().filter(|then| self.now.duration_since(**then) <= PERIOD).count();
        recent > self.case.intensity as usize
    }

    /// Runs the machine for one event and checks what it does on the way.
    fn drive(&mut self, must_give_up: bool, group: &[usize]) {
        let (mut stopped, mut started): (Vec<usize>, Vec<usize>) = (Vec::new(), Vec::new());
        let mut gave_up = false;
        while let Some(action) = self.tree.next() {
            assert!(!self.finished, "nothing comes after the end");
            match action {
                Action::Stop(key) => {
                    let at = self.at(key);
                    assert_eq!(self.is[at], Is::Running, "only what runs is stopped");
                    assert!(started.is_empty(), "all stops come before all starts");
                    self.is[at] = Is::Down;
                    stopped.push(at);
                    self.tree.stopped(key, End::Shutdown);
                }
                Action::Start(key) => {
                    let at = self.at(key);
                    assert_ne!(self.is[at], Is::Running, "no two incarnations overlap");
                    assert!(!gave_up, "who gives up starts nothing");
                    assert_ne!(
                        self.case.restarts[at],
                        Restart::Temporary,
                        "a temporary child is never started again"
                    );
                    started.push(at);
                    self.attempts += 1;
                    // Every other attempt is one that nobody need wait for, if nothing comes after it.
                    let quiet = self.tree.begin_attempt(key, self.attempts.is_multiple_of(2));
                    if self.case.failing >> (self.attempts - 1) & 1 == 1 && self.attempts <= 4 {
                        self.is[at] = Is::Retrying;
                        assert_eq!(self.tree.be_loud(), quiet, "who waits waits for something");
                        assert!(self.tree.failed(self.now, key).is_none());
                    } else {
                        self.is[at] = Is::Running;
                        // It is nobody's word where somebody waits.
                        self.tree.polled_quietly();
                        let runs = self.tree.get(key).is_some_and(|child| child.state == State::Running);
                        assert_eq!(runs, quiet);
                        if quiet {
                            assert!(!self.tree.be_loud() && self.tree.next().is_none(), "all is done");
                        } else {
                            self.tree.started(self.now, key);
                        }
                    }
                }
                Action::Retry(key) => {
                    let at = self.at(key);
                    assert_eq!(
                        (self.is[at], started.last()),
                        (Is::Retrying, Some(&at)),
                        "a retry is for what failed"
                    );
                    self.retries.push(at);
                }
                Action::GaveUp(_) => gave_up = true,
                Action::Forget => {
                    let Some(child) = self.tree.take_forgotten() else { panic!("a child is forgotten") };
                    assert_eq!(self.case.restarts[child.body.at], Restart::Temporary);
                    self.is[child.body.at] = Is::Gone;
                }
                Action::Finish(ending) => {
                    assert_eq!(ending, if gave_up { Ending::GaveUp } else { Ending::Asked });
                    assert!(!self.is.contains(&Is::Running), "nobody is left behind");
                    self.finished = true;
                }
                Action::Report(context, key) => {
                    assert!(context != Context::ShutdownError, "all ended as they were asked to");
                    self.at(key);
                }
                other => panic!("unexpected {:?}", std::mem::discriminant(&other)),
            }
        }
        assert_eq!(gave_up, must_give_up, "gives up exactly when it must");
        self.gave_up |= gave_up;
        assert!(stopped.is_sorted_by(|a, b| a > b), "stops go backwards: {stopped:?}");
        assert!(started.is_sorted(), "starts go forwards: {started:?}");
        if !gave_up && !self.finished {
            assert!(stopped.iter().chain(&started).all(|at| group.contains(at)), "nobody else is touched");
            // All of the group has been started, unless one failed: then those before it.
            let want: Vec<usize> = group.iter().copied().filter(|at| self.is[*at] != Is::Gone).collect();
            assert!(want.starts_with(&started), "{started:?} of {want:?}");
            let complete = started.last().is_none_or(|last| self.is[*last] != Is::Retrying);
            assert!(started.len() == want.len() || !complete, "{started:?} of {want:?}");
        }
        for (at, key) in self.keys.iter().enumerate() {
            let state = self.tree.get(*key).map(|child| child.state);
            let is = match state {
                None => Is::Gone,
                Some(State::Running) => Is::Running,
                Some(State::Restarting { .. }) => Is::Retrying,
                Some(_) => Is::Down,
            };
            // Whoever has ended for good need not be asked what it is.
            assert!(self.finished || is == self.is[at], "child {at}: {is:?}, and not {:?}", self.is[at]);
        }
    }

    fn group(&self, culprit: usize) -> Vec<usize> {
        let first = match self.case.strategy {
            RestartStrategy::OneForOne => return vec![culprit],
            RestartStrategy::OneForAll => 0,
            RestartStrategy::RestForOne => culprit,
        };
        (first..self.is.len()).filter(|at| self.is[*at] != Is::Gone).collect()
    }

    /// A restart is due: what is going to happen, by the plain account.
    fn restart(&mut self, culprit: usize) {
        let too_many = self.is_too_many();
        let group = self.group(culprit);
        self.is[culprit] = Is::Down;
        if !too_many && group.len() > 1 {
            for at in &group {
                if self.is[*at] == Is::Retrying {
                    self.is[*at] = Is::Down;
                }
            }
        }
        if too_many {
            // Who waits for a retry when the supervisor ends waits for ever.
            self.drive(true, &group);
        } else {
            self.drive(false, &group);
        }
    }

    fn settle(&mut self) {
        while let Some(at) = (!self.finished && !self.retries.is_empty()).then(|| self.retries.remove(0)) {
            self.tree.retry(self.now, self.keys[at]);
            if self.is[at] == Is::Retrying {
                self.restart(at);
            } else {
                self.drive(false, &[]);
            }
        }
    }

    fn end(&mut self, at: usize, end: End) {
        if self.finished || self.is[at] != Is::Running {
            return;
        }
        self.tree.ended(self.now, self.keys[at], end);
        let ordinary = matches!(end, End::Normal | End::Shutdown);
        match self.case.restarts[at] {
            Restart::Temporary => {
                self.is[at] = Is::Gone;
                self.drive_quietly(at);
            }
            Restart::Transient if ordinary => {
                self.is[at] = Is::Down;
                self.drive_quietly(at);
            }
            Restart::Permanent | Restart::Transient => self.restart(at),
        }
    }

    /// An end that leads to nothing.
    fn drive_quietly(&mut self, at: usize) {
        let before = self.is.clone();
        self.drive(false, &[]);
        assert_eq!(before, self.is, "the end of {at} touches nobody");
    }
}

fn run(case: &Case) {
    let intensity = Intensity { restarts: case.intensity, period: PERIOD };
    let mut tree = Tree::new(Members::Listed, case.strategy, intensity, AutoShutdown::Never);
    let keys: Vec<Key> = (0..case.restarts.len())
        .map(|at| {
            tree.list(Child::new(case.restarts[at], Body { name: Arc::from(at.to_string()), at }))
                .ok()
                .unwrap()
        })
        .collect();
    let now = Instant::now();
    tree.boot();
    for key in &keys {
        assert!(matches!(tree.next(), Some(Action::Start(started)) if started == *key));
        assert!(!tree.begin_attempt(*key, true), "something comes after it");
        tree.started(now, *key);
    }
    assert!(matches!(tree.next(), Some(Action::Booted)));
    assert!(tree.next().is_none());
    let is = vec![Is::Running; keys.len()];
    let mut run = Run {
        case,
        tree,
        keys,
        now,
        is,
        counted: Vec::new(),
        attempts: 0,
        retries: Vec::new(),
        gave_up: false,
        finished: false,
    };
    for (at, end) in &case.ends {
        run.end(*at, *end);
        run.settle();
        run.now += case.gap;
    }
    if !run.finished {
        run.tree.shut_down();
        run.drive(false, &[]);
        assert!(run.finished, "a stop ends it");
    }
    assert!(run.tree.next().is_none());
}

/// All sequences of `length` choices out of `choices`.
fn sequences<T: Copy>(choices: &[T], length: usize) -> Vec<Vec<T>> {
    (0..length).fold(vec![Vec::new()], |shorter, _| {
        shorter
            .iter()
            .flat_map(|sequence| {
                choices.iter().map(move |choice| {
                    let mut longer = sequence.clone();
                    longer.push(*choice);
                    longer
                })
            })
            .collect()
    })
}

#[test]
fn every_small_supervisor_keeps_its_promises() {
    let mut cases = 0u64;
    for count in 1..=3usize {
        let ends: Vec<(usize, End)> = match count {
            // With three children, one ordinary and one other end each: the rest is covered with two.
            3 => (0..count).flat_map(|at| [(at, End::Normal), (at, End::Fault)]).collect(),
            _ => (0..count).flat_map(|at| ENDS.map(|end| (at, end))).collect(),
        };
        for ends in sequences(&ends, 3) {
            for restarts in sequences(&RESTARTS, count) {
                for strategy in STRATEGIES {
                    for intensity in 0..=2 {
                        for (n, gap) in GAPS.into_iter().enumerate() {
                            // Failing starts where time stands nearly still: they are counted like any restart.
                            for failing in if n == 0 { 0..8 } else { 0..1 } {
                                let (restarts, ends) = (restarts.clone(), ends.clone());
                                run(&Case { strategy, restarts, intensity, gap, failing, ends });
                                cases += 1;
                            }
                        }
                    }
                }
            }
        }
    }
    assert!(cases > 500_000, "{cases} cases");
}
