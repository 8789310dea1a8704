//! Times sides against each other, so that what disturbs one disturbs all.

use std::fmt;
use std::time::{Duration, Instant};

use crate::heap::Heap;

/// How much time a row may take.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// How long one batch should run. Well below a scheduler's slice, so that most are not interrupted, however busy the
    /// machine.
    pub batch: Duration,
    /// In so many processes a row is run, one after another.
    pub processes: usize,
    /// The most rounds in one process. Each round runs every side once.
    pub rounds: usize,
    /// How long a row may take, when its batches are longer than wished. It runs three rounds in one process at least.
    pub row: Duration,
    /// Whether to run what is known to take minutes.
    pub long: bool,
    /// Whether this only shows that everything runs.
    pub quick: bool,
}

impl Effort {
    /// For figures to be read.
    pub const FULL: Effort = Effort {
        batch: Duration::from_micros(300),
        processes: 9,
        rounds: 101,
        row: Duration::from_secs(9),
        long: false,
        quick: false,
    };

    /// For a smoke run: the figures mean little.
    pub const QUICK: Effort = Effort {
        batch: Duration::from_micros(200),
        processes: 1,
        rounds: 9,
        row: Duration::from_millis(200),
        long: false,
        quick: true,
    };
}

/// One contestant of a row.
pub struct Side {
    /// Whose work this is.
    pub who: &'static str,
    /// What we wish for, ours against this side.
    pub goal: Goal,
    /// Does the work so many times and says how long that took.
    pub batch: Box<dyn FnMut(u64) -> Duration>,
}

impl fmt::Debug for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Side").field("who", &self.who).field("goal", &self.goal).finish_non_exhaustive()
    }
}

impl Side {
    /// A side whose work is a plain function of how often; the whole call is timed.
    pub fn plain(who: &'static str, mut work: impl FnMut(u64) + 'static) -> Side {
        Side::timed(who, move |times| {
            let start = Instant::now();
            work(times);
            start.elapsed()
        })
    }

    /// A side that keeps its own time, because some of what it does is not the work.
    pub fn timed(who: &'static str, batch: impl FnMut(u64) -> Duration + 'static) -> Side {
        Side { who, goal: Goal::None, batch: Box::new(batch) }
    }

    /// The same side, with a goal for ours against it.
    #[must_use]
    pub fn goal(self, goal: Goal) -> Side {
        Side { goal, ..self }
    }
}

/// What ours should reach against one peer, or by itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// The row informs; nothing was promised.
    None,
    /// The peer takes at least `least` times as long, and `prototype` times is what a prototype of ours reached.
    Faster {
        /// The promise.
        least: f64,
        /// The mark to beat.
        prototype: f64,
    },
    /// Ours takes at most so many times what the peer takes.
    Within(f64),
    /// Ours stays below so many of the row's unit.
    Under(f64),
}

impl Goal {
    /// The verdict on `ours`, of which the peer, where there is one, takes `ratio` times as much.
    pub fn judge(self, ours: f64, ratio: Option<f64>) -> Option<Verdict> {
        let reached = match (self, ratio) {
            (Goal::None, _) | (Goal::Faster { .. } | Goal::Within(_), None) => return None,
            (Goal::Under(limit), _) => ours < limit,
            (Goal::Within(limit), Some(ratio)) => 1.0 <= limit * ratio,
            (Goal::Faster { least, prototype }, Some(ratio)) => {
                if ratio >= least && ratio < prototype {
                    return Some(Verdict::MetBelowPrototype);
                }
                ratio >= least
            }
        };
        Some(if reached { Verdict::Met } else { Verdict::NotMet })
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Goal::None => Ok(()),
            Goal::Faster { least, prototype } if least == prototype => write!(f, "≥ {least}×"),
            Goal::Faster { least, prototype } => write!(f, "≥ {least}× (prototype {prototype})"),
            Goal::Within(limit) => write!(f, "ours ≤ {limit} of it"),
            Goal::Under(limit) => write!(f, "< {limit}"),
        }
    }
}

/// Whether a goal was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Reached, and the prototype's mark with it where there is one.
    Met,
    /// Reached, but the prototype had been better.
    MetBelowPrototype,
    /// Missed.
    NotMet,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Met => "met",
            Verdict::MetBelowPrototype => "met, below the prototype",
            Verdict::NotMet => "**not met**",
        })
    }
}

/// What many measurements of one thing say together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// One in ten is below.
    pub p10: f64,
    /// Half are below.
    pub median: f64,
    /// One in ten is above.
    pub p90: f64,
    /// How many there were.
    pub samples: usize,
}

impl Spread {
    /// The same figure every time.
    pub fn exactly(value: f64) -> Spread {
        Spread { p10: value, median: value, p90: value, samples: 1 }
    }

    /// How many times as much the peer took as ours: in each round where both took part in it, so that what slowed both
    /// down is not in it; by the medians otherwise.
    pub fn of_ratios(ours: &[f64], theirs: &[f64]) -> Option<Spread> {
        if ours.len() == theirs.len() {
            return Spread::of(ours.iter().zip(theirs).map(|(ours, theirs)| theirs / ours).collect());
        }
        let [ours, theirs] = [ours, theirs].map(|samples| Spread::of(samples.to_vec()));
        Some(Spread::exactly(theirs?.median / ours?.median))
    }

    /// Sums up `samples`; `None` when there are none.
    pub fn of(mut samples: Vec<f64>) -> Option<Spread> {
        samples.sort_by(f64::total_cmp);
        let last = samples.len().checked_sub(1)?;
        let at = |part: usize| samples[(last * part + 50) / 100];
        Some(Spread { p10: at(10), median: at(50), p90: at(90), samples: samples.len() })
    }
}

/// Runs the sides in turns, every round in the other direction, in this process; returns each one's nanoseconds for one
/// operation, batch by batch.
///
/// A side of which a single operation takes more than ten seconds runs that once.
pub fn measure(sides: &mut [Side], effort: &Effort, heap: &mut Heap) -> Vec<Vec<f64>> {
    struct Lane {
        times: u64,
        samples: Vec<f64>,
        once: bool,
    }

    let mut round = Duration::ZERO;
    let mut lanes: Vec<Lane> = Vec::with_capacity(sides.len());
    for side in &mut *sides {
        let (times, took) = calibrate(&mut side.batch, effort.batch);
        let once = took > Duration::from_secs(10);
        let samples = if once { vec![per_op(took, times)] } else { Vec::with_capacity(effort.rounds) };
        if !once {
            round += took;
        }
        lanes.push(Lane { times, samples, once });
    }

    let affordable = effort.row.as_nanos() / effort.processes as u128 / round.as_nanos().max(1);
    let rounds = usize::try_from(affordable).unwrap_or(usize::MAX).clamp(3, effort.rounds.max(3));
    let mut order: Vec<usize> = (0..lanes.len()).collect();
    for _ in 0..rounds {
        for &index in &order {
            let lane = &mut lanes[index];
            if !lane.once {
                heap.stir();
                lane.samples.push(per_op((sides[index].batch)(lane.times), lane.times));
            }
        }
        // Whoever goes first meets the caches and predictions of another; so nobody always does.
        order.reverse();
    }
    lanes.into_iter().map(|lane| lane.samples).collect()
}

/// How often the work must be done for a batch to take about `wish`, and how long such a batch took.
fn calibrate(batch: &mut dyn FnMut(u64) -> Duration, wish: Duration) -> (u64, Duration) {
    let mut times: u64 = 1;
    let mut warm = false;
    loop {
        let took = batch(times);
        if took >= wish / 2 {
            // What took long only because it was the first gets a second look, unless that is dear.
            if warm || took > Duration::from_secs(1) {
                return (times, took);
            }
            warm = true;
            continue;
        }
        let grow = (wish.as_secs_f64() / took.as_secs_f64().max(1e-9)).clamp(1.2, 10.0);
        times = (times as f64 * grow).ceil() as u64;
    }
}

fn per_op(took: Duration, times: u64) -> f64 {
    took.as_nanos() as f64 / times as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_the_median_with_the_tenth_and_the_ninetieth_percentile() {
        let spread = Spread::of((0..=100).rev().map(f64::from).collect());
        assert_eq!(spread, Some(Spread { p10: 10.0, median: 50.0, p90: 90.0, samples: 101 }));
        assert_eq!(Spread::of(vec![7.0]).map(|spread| (spread.p10, spread.p90)), Some((7.0, 7.0)));
        assert_eq!(Spread::of(Vec::new()), None);
    }

    #[test]
    fn a_goal_is_judged_by_the_ratio_it_names() {
        let goal = Goal::Faster { least: 5.0, prototype: 7.0 };
        assert_eq!(goal.judge(1.0, Some(4.9)), Some(Verdict::NotMet));
        assert_eq!(goal.judge(1.0, Some(5.0)), Some(Verdict::MetBelowPrototype));
        assert_eq!(goal.judge(1.0, Some(7.0)), Some(Verdict::Met));
        assert_eq!(goal.judge(1.0, None), None);
        assert_eq!(Goal::Within(1.25).judge(1.0, Some(0.8)), Some(Verdict::Met));
        assert_eq!(Goal::Within(1.25).judge(1.0, Some(0.79)), Some(Verdict::NotMet));
        assert_eq!(Goal::Under(340.0).judge(340.0, None), Some(Verdict::NotMet));
        assert_eq!(Goal::None.judge(1.0, Some(1.0)), None);
    }

    #[test]
    fn what_slows_both_sides_down_is_not_in_the_ratio() {
        let ratio = Spread::of_ratios(&[10.0, 20.0, 20.0], &[60.0, 120.0, 120.0]);
        assert_eq!(ratio.map(|ratio| (ratio.p10, ratio.median, ratio.p90)), Some((6.0, 6.0, 6.0)));
        assert_eq!(Spread::of_ratios(&[10.0, 20.0, 20.0], &[300.0]), Some(Spread::exactly(15.0)));
    }

    /// On a clock of its own: a side says how long it took, and nobody waits.
    #[test]
    fn sides_run_in_turns_and_are_measured_for_one_operation() {
        let clocked = |ns: u64| Side::timed("clocked", move |times| Duration::from_nanos(ns * times));
        let effort = Effort { rounds: 5, ..Effort::FULL };
        let samples = measure(&mut [clocked(100), clocked(250)], &effort, &mut Heap::fresh());
        assert_eq!(samples, [[100.0; 5], [250.0; 5]]);
    }

    #[test]
    fn a_side_that_takes_very_long_runs_once() {
        let mut ran = 0;
        let slow = Side::timed("slow", move |_| {
            ran += 1;
            assert_eq!(ran, 1);
            Duration::from_secs(11)
        });
        assert_eq!(measure(&mut [slow], &Effort::FULL, &mut Heap::fresh()), [[11e9]]);
    }
}
