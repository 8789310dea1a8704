//! Which workers are killed on purpose, when, and how.
//!
//! A plan is made before the run and counted in a worker's turns (blocks, batches, pages), not in time: the same seed
//! kills at the same points of the work. A kill strikes in the middle of a turn, where it hurts.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Mutex, PoisonError},
};

use crate::{job::Share, random::Random};

/// How a worker is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// It panics.
    Panic,
    /// It returns an error.
    Error,
    /// Its future is dropped.
    Drop,
    /// It never comes back from a wait; not in a plan, as it costs the time until somebody notices.
    #[cfg(test)]
    Hang,
}

impl How {
    /// Each of them that a plan has.
    pub(crate) const ALL: [How; 3] = [How::Panic, How::Error, How::Drop];
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            How::Panic => "panic",
            How::Error => "error",
            How::Drop => "drop",
            #[cfg(test)]
            How::Hang => "hang",
        })
    }
}

/// One kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Strike {
    /// In which turn, counted from one over all lives of the worker.
    pub(crate) turn: u64,
    /// How much of that turn is done when it comes.
    pub(crate) share: Share,
    /// How.
    pub(crate) how: How,
}

/// The plan for a whole crew.
#[derive(Debug)]
pub(crate) struct Kills {
    workers: Vec<Mutex<Fate>>,
}

/// What is in store for one worker.
#[derive(Debug, Default)]
struct Fate {
    turns: u64,
    struck: u64,
    ahead: VecDeque<Strike>,
}

impl Kills {
    /// Spreads so many kills over workers of whom it is known how many turns they will have, roughly. A worker whose
    /// turns end before its kill comes is spared.
    pub(crate) fn seeded(seed: u64, kills: u64, turns: &[u64]) -> Kills {
        let mut random = Random::new(seed);
        let mut fates: Vec<Fate> = turns.iter().map(|_| Fate::default()).collect();
        let mut order: Vec<usize> = (0..turns.len()).collect();
        random.shuffle(&mut order);
        let order = order.into_iter().filter(|worker| turns[*worker] > 0);
        for (kill, worker) in (0..kills).zip(order.cycle()) {
            let turn = 1 + random.below(turns[worker]);
            let share = Share(random.below(257) as u16);
            // Rotates once more for each round, so that a worker does not always die the same death.
            let how = How::ALL[((kill + kill / turns.len() as u64) % 3) as usize];
            fates[worker].ahead.push_back(Strike { turn, share, how });
        }
        for fate in &mut fates {
            fate.ahead.make_contiguous().sort_by_key(|strike| strike.turn);
        }
        Kills { workers: fates.into_iter().map(Mutex::new).collect() }
    }

    /// These, for so many workers.
    #[cfg(test)]
    pub(crate) fn exactly(workers: usize, strikes: &[(usize, Strike)]) -> Kills {
        let mut fates: Vec<Fate> = (0..workers).map(|_| Fate::default()).collect();
        strikes.iter().for_each(|(worker, strike)| fates[*worker].ahead.push_back(*strike));
        Kills { workers: fates.into_iter().map(Mutex::new).collect() }
    }

    /// A worker begins a turn. Says whether this is the one.
    pub(crate) fn turn(&self, worker: usize) -> Option<Strike> {
        let mut fate = self.workers[worker].lock().unwrap_or_else(PoisonError::into_inner);
        fate.turns += 1;
        let due = fate.ahead.front()?.turn <= fate.turns;
        fate.struck += u64::from(due);
        if due { fate.ahead.pop_front() } else { None }
    }

    /// How many kills are still ahead of a worker.
    pub(crate) fn planned(&self, worker: usize) -> u64 {
        self.workers[worker].lock().unwrap_or_else(PoisonError::into_inner).ahead.len() as u64
    }

    /// How many of a worker's deaths were of our making.
    pub(crate) fn struck(&self, worker: usize) -> u64 {
        self.workers[worker].lock().unwrap_or_else(PoisonError::into_inner).struck
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kill_of_a_plan_comes_once() {
        let turns = [10, 20, 0, 30];
        let kills = Kills::seeded(3, 12, &turns);
        let mut seen = [0; 3];
        assert_eq!((0..4).map(|worker| kills.planned(worker)).sum::<u64>(), 12);
        for (worker, turns) in turns.into_iter().enumerate() {
            for strike in (0..turns + 12).filter_map(|_| kills.turn(worker)) {
                seen[strike.how as usize] += 1;
                assert!(strike.turn <= turns);
            }
        }
        assert_eq!(seen.iter().sum::<u64>(), 12);
        assert!(seen.iter().all(|n| *n > 0), "{seen:?}");
        assert_eq!((0..4).map(|worker| kills.struck(worker)).sum::<u64>(), 12);
        assert_eq!((0..4).map(|worker| kills.planned(worker)).sum::<u64>(), 0);
    }

    #[test]
    fn nobody_is_killed_who_has_no_turns() {
        let kills = Kills::seeded(3, 5, &[0, 0]);
        assert!((0..100).all(|_| kills.turn(0).is_none() && kills.turn(1).is_none()));
    }
}
