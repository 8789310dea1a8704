//! What others see of an actor's polls: how long they take, spans of `tracing`, figures for `metrics`.
//!
//! Without the features nothing of it is there, and without [`Options::timed`](crate::Options::timed) no clock is read.

use backplane::Exit;

use crate::{
    clock::Clock,
    frame::{self, Frame, Node},
    name::ActorName,
    options::DeadLetter,
};

/// In each incarnation; of no size without the features.
pub(crate) struct Observer {
    #[cfg(feature = "tracing")]
    span: tracing::Span,
    #[cfg(feature = "metrics")]
    meters: Meters,
}

#[cfg(feature = "metrics")]
struct Meters {
    handled: metrics::Counter,
    busy: metrics::Histogram,
    /// So many had been handled when we last looked.
    seen: u64,
}

impl Observer {
    pub(crate) fn new(node: &dyn Node) -> Observer {
        #[cfg(feature = "metrics")]
        let meters = {
            let labels = labels(node.name());
            metrics::counter!("backplane_actor_started_total", labels.clone()).increment(1);
            Meters {
                handled: metrics::counter!("backplane_actor_handled_total", labels.clone()),
                busy: metrics::histogram!("backplane_actor_busy_seconds", labels),
                seen: node.handled(),
            }
        };
        let _ = node;
        Observer {
            #[cfg(feature = "tracing")]
            span: span(node.name()),
            #[cfg(feature = "metrics")]
            meters,
        }
    }

    /// Runs one poll in its frame, which must not unwind.
    #[inline]
    pub(crate) fn poll<T>(&mut self, frame: &mut Option<Box<Frame>>, poll: impl FnOnce() -> T) -> T {
        #[cfg(feature = "tracing")]
        let _inside = self.span.enter();
        let value = match frame.as_ref().and_then(|frame| frame.node.watch()) {
            None => frame::within(frame, poll),
            Some(clock) => self.timed(&clock, frame, poll),
        };
        #[cfg(feature = "metrics")]
        if let Some(frame) = frame {
            let handled = frame.node.handled();
            self.meters.handled.increment(handled.saturating_sub(self.meters.seen));
            self.meters.seen = handled;
        }
        value
    }

    #[cold]
    fn timed<T>(&self, clock: &Clock, frame: &mut Option<Box<Frame>>, poll: impl FnOnce() -> T) -> T {
        let began = clock.now();
        let value = frame::within(frame, poll);
        let busy = clock.now().saturating_duration_since(began);
        if let Some(frame) = frame {
            frame.node.was_busy(busy);
        }
        #[cfg(feature = "metrics")]
        self.meters.busy.record(busy.as_secs_f64());
        value
    }
}

#[cfg(feature = "tracing")]
fn span(name: &ActorName) -> tracing::Span {
    // It goes on when whoever has started it does not: no child of that span, but what follows from it.
    let span = tracing::debug_span!(target: "backplane_actor", parent: None, "actor", %name);
    span.follows_from(tracing::Span::current());
    span
}

/// Only what people have named: a number for each actor would be a time series for each.
#[cfg(feature = "metrics")]
fn labels(name: &ActorName) -> Vec<metrics::Label> {
    name.label().map(|label| metrics::Label::new("actor", label.to_owned())).into_iter().collect()
}

pub(crate) fn ended(name: &ActorName, exit: &Exit) {
    #[cfg(feature = "metrics")]
    {
        let mut labels = labels(name);
        let how = match exit {
            Exit::Normal => "normal",
            Exit::Shutdown => "shutdown",
            Exit::Fault(_) => "fault",
        };
        labels.push(metrics::Label::from_static_parts("exit", how));
        metrics::counter!("backplane_actor_ended_total", labels).increment(1);
    }
    let _ = (name, exit);
}

pub(crate) fn buried(cause: DeadLetter) {
    #[cfg(feature = "metrics")]
    {
        let cause = match cause {
            DeadLetter::Overflow => "overflow",
            DeadLetter::KilledIt => "killed it",
            DeadLetter::Expired => "expired",
            DeadLetter::Died => "died",
            DeadLetter::Stopped => "stopped",
        };
        metrics::counter!("backplane_actor_dead_letters_total", "cause" => cause).increment(1);
    }
    let _ = cause;
}
