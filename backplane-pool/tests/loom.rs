//! Interleavings of what this crate makes of atomics itself: who sleeps, who is woken, and what runs next.
//!
//! `RUSTFLAGS="--cfg backplane_loom" cargo test --release -p backplane-pool --test loom`
//!
//! The queue of a model is a counter that orders nothing, so that all order there is comes from [`Idle`].

#![cfg(backplane_loom)]

use std::{
    sync::{Arc, atomic::Ordering},
    task::{Wake, Waker},
};

use backplane_pool::model::{Idle, Slot, Woken};
use loom::{
    sync::{Condvar, Mutex, atomic::AtomicUsize},
    thread,
};

/// Where a thread sleeps, as `block_on` does: a wake that comes first is kept.
struct Bed {
    woken: Mutex<bool>,
    changed: Condvar,
}

impl Bed {
    fn new() -> Arc<Bed> {
        Arc::new(Bed { woken: Mutex::new(false), changed: Condvar::new() })
    }

    fn sleep(&self) {
        let mut woken = self.woken.lock().unwrap();
        while !*woken {
            woken = self.changed.wait(woken).unwrap();
        }
        *woken = false;
    }
}

impl Wake for Bed {
    fn wake(self: Arc<Self>) {
        *self.woken.lock().unwrap() = true;
        self.changed.notify_one();
    }
}

/// A domain of which only the numbers are left: how much work waits for any worker.
struct Domain {
    idle: Idle,
    work: AtomicUsize,
}

impl Domain {
    fn new() -> Arc<Domain> {
        Arc::new(Domain { idle: Idle::new(), work: AtomicUsize::new(0) })
    }

    fn push(&self) {
        self.work.fetch_add(1, Ordering::Relaxed);
        self.idle.notify();
    }

    fn is_there_more(&self) -> bool {
        self.work.load(Ordering::Relaxed) > 0
    }

    fn pop(&self) -> bool {
        self.work.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |work| work.checked_sub(1)).is_ok()
    }

    /// What a worker does until it has run one task; in the order of `worker.rs`.
    fn run_one(&self, worker: usize, searches: &mut bool) {
        let bed = Bed::new();
        let waker = Waker::from(Arc::clone(&bed));
        loop {
            if self.pop() {
                if std::mem::take(searches) && self.idle.found() && self.is_there_more() {
                    self.idle.notify();
                }
                return;
            }
            if !std::mem::replace(searches, true) {
                self.idle.search();
            }
            if self.pop() {
                *searches = false;
                if self.idle.found() && self.is_there_more() {
                    self.idle.notify();
                }
                return;
            }
            *searches = false;
            self.idle.sleep(worker, &waker);
            if self.is_there_more() {
                // It stays the one on whom others have relied.
                *searches = true;
                if self.idle.leave(worker) == Woken::Itself {
                    self.idle.search();
                }
                continue;
            }
            bed.sleep();
            *searches = self.idle.leave(worker) == Woken::Notified;
        }
    }
}

#[test]
fn work_from_outside_wakes_a_worker_that_falls_asleep() {
    loom::model(|| {
        let domain = Domain::new();
        let there = Arc::clone(&domain);
        let worker = thread::spawn(move || there.run_one(0, &mut false));
        domain.push();
        worker.join().unwrap();
        assert_eq!(domain.work.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn two_pieces_of_work_from_two_sides_wake_a_worker_twice() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(|| {
        let domain = Domain::new();
        let (there, other) = (Arc::clone(&domain), Arc::clone(&domain));
        let worker = thread::spawn(move || {
            let mut searches = false;
            there.run_one(0, &mut searches);
            there.run_one(0, &mut searches);
        });
        let pusher = thread::spawn(move || other.push());
        domain.push();
        pusher.join().unwrap();
        worker.join().unwrap();
    });
}

#[test]
fn two_workers_get_one_piece_each_because_the_last_who_searches_passes_it_on() {
    let mut model = loom::model::Builder::new();
    // Four threads' worth of steps: all interleavings with up to two preemptions.
    model.preemption_bound = Some(2);
    model.check(|| {
        let domain = Domain::new();
        let workers: Vec<_> = (0..2)
            .map(|worker| {
                let there = Arc::clone(&domain);
                thread::spawn(move || there.run_one(worker, &mut false))
            })
            .collect();
        domain.push();
        domain.push();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    });
}

#[test]
fn work_for_one_worker_alone_reaches_it_however_it_falls_asleep() {
    loom::model(|| {
        let domain = Domain::new();
        let inbox = Arc::new(AtomicUsize::new(0));
        let (there, mine) = (Arc::clone(&domain), Arc::clone(&inbox));
        let worker = thread::spawn(move || {
            let bed = Bed::new();
            let waker = Waker::from(Arc::clone(&bed));
            while mine.load(Ordering::Relaxed) == 0 {
                there.idle.search();
                there.idle.sleep(0, &waker);
                if mine.load(Ordering::Relaxed) == 0 {
                    bed.sleep();
                }
                if there.idle.leave(0) == Woken::Notified {
                    there.idle.found();
                }
            }
        });
        inbox.store(1, Ordering::Relaxed);
        domain.idle.rouse(0);
        worker.join().unwrap();
    });
}

#[test]
fn what_runs_next_is_run_once_whether_its_worker_or_a_thief_takes_it() {
    loom::model(|| {
        let slot = Arc::new(Slot::new());
        let thiefs = Arc::clone(&slot);
        let thief = thread::spawn(move || thiefs.take());
        // The worker puts two, which pushes one out, and takes what is left.
        let mut seen = vec![slot.put(1), slot.put(2), slot.take()];
        seen.push(thief.join().unwrap());
        seen.push(slot.take());
        let mut seen: Vec<i32> = seen.into_iter().flatten().collect();
        seen.sort_unstable();
        assert_eq!(seen, [1, 2]);
    });
}

#[test]
fn a_worker_does_not_sleep_on_what_it_has_to_run_next() {
    // A wake on its own thread while it waits for events: it takes itself off the list, before anybody is sent to it.
    loom::model(|| {
        let domain = Domain::new();
        let there = Arc::clone(&domain);
        let outside = thread::spawn(move || there.push());
        let bed = Bed::new();
        let waker = Waker::from(Arc::clone(&bed));
        let slot = Slot::new();
        domain.idle.search();
        domain.idle.sleep(0, &waker);
        // An event: `stop_waiting`.
        slot.put(1);
        let mut searches = domain.idle.leave(0) == Woken::Notified;
        assert_eq!(slot.take(), Some(1));
        if std::mem::take(&mut searches) && domain.idle.found() && domain.is_there_more() {
            domain.idle.notify();
        }
        // What came from outside meanwhile is not lost on it.
        domain.run_one(0, &mut searches);
        outside.join().unwrap();
    });
}
