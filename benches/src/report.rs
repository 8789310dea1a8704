//! What was measured, as Markdown for people and as JSON for programs.

use std::fmt::Write as _;

use crate::contest::{Goal, Spread, Verdict};

/// What the figures of an outcome count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Time for one operation.
    Nanoseconds,
    /// Memory for one device.
    Bytes,
}

/// One line of the table: ours against one peer, or ours alone.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The row it belongs to.
    pub row: String,
    /// The row, in words.
    pub says: String,
    /// What is counted.
    pub unit: Unit,
    /// What ours measured.
    pub ours: Spread,
    /// Against whom, and what they measured.
    pub peer: Option<(String, Spread)>,
    /// What was wished for.
    pub goal: Goal,
}

impl Outcome {
    /// How many times as much the peer takes, by the medians.
    pub fn ratio(&self) -> Option<f64> {
        self.peer.as_ref().map(|(_, peer)| peer.median / self.ours.median)
    }

    /// Whether the goal was reached; `None` where there was none, or no peer to reach it against.
    pub fn verdict(&self) -> Option<Verdict> {
        self.goal.judge(self.ours.median, self.peer.as_ref().map(|(_, peer)| peer.median))
    }
}

/// The head of the Markdown table.
pub const MARKDOWN_HEAD: &str = "| row | one operation | ours | against | theirs | theirs / ours | goal | |\n\
                                 |---|---|---:|---|---:|---:|---|---|";

/// One line of the Markdown table.
pub fn markdown(outcome: &Outcome) -> String {
    let spread = |spread: &Spread| match outcome.unit {
        Unit::Nanoseconds => time_spread(spread),
        Unit::Bytes => format!("{} B", round(spread.median)),
    };
    let (who, theirs) = match &outcome.peer {
        Some((who, theirs)) => (who.as_str(), spread(theirs)),
        None => ("", String::new()),
    };
    let ratio = outcome.ratio().filter(|ratio| ratio.is_finite()).map(|ratio| round(ratio) + "×");
    format!(
        "| `{}` | {} | {} | {who} | {theirs} | {} | {} | {} |",
        outcome.row,
        outcome.says,
        spread(&outcome.ours),
        ratio.unwrap_or_default(),
        outcome.goal,
        outcome.verdict().map(|verdict| verdict.to_string()).unwrap_or_default(),
    )
}

/// The median, and between what and what eight in ten of the measurements lie.
fn time_spread(spread: &Spread) -> String {
    let (scale, unit) = match spread.median {
        ns if ns < 1e3 => (1.0, "ns"),
        ns if ns < 1e6 => (1e3, "µs"),
        ns if ns < 1e9 => (1e6, "ms"),
        _ => (1e9, "s"),
    };
    if spread.samples == 1 {
        return format!("{} {unit} (once)", round(spread.median / scale));
    }
    let [low, median, high] = [spread.p10, spread.median, spread.p90].map(|ns| round(ns / scale));
    format!("{median} {unit} ({low}..{high})")
}

/// Three digits, or all before the point.
fn round(value: f64) -> String {
    match value.abs() {
        size if size < 9.995 => format!("{value:.2}"),
        size if size < 99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// How many goals were met, and which were not.
pub fn summary(outcomes: &[Outcome]) -> String {
    let judged: Vec<_> = outcomes.iter().filter_map(|outcome| Some((outcome, outcome.verdict()?))).collect();
    let missed: Vec<_> = judged.iter().filter(|(_, verdict)| *verdict == Verdict::NotMet).collect();
    let mut text = format!("{} of {} goals met.", judged.len() - missed.len(), judged.len());
    for (outcome, _) in missed {
        let against = outcome.peer.as_ref().map(|(who, _)| format!(" against {who}")).unwrap_or_default();
        let _ = write!(text, "\nNot met: `{}`{against} (goal {}).", outcome.row, outcome.goal);
    }
    text
}

/// One outcome as a line of JSON. Times are nanoseconds for one operation, memory is bytes for one device.
pub fn json(outcome: &Outcome) -> String {
    let spread = |spread: &Spread| {
        format!(
            r#"{{"median":{},"p10":{},"p90":{},"samples":{}}}"#,
            spread.median, spread.p10, spread.p90, spread.samples
        )
    };
    let unit = match outcome.unit {
        Unit::Nanoseconds => "ns",
        Unit::Bytes => "bytes",
    };
    let mut text = format!(
        r#"{{"row":{},"says":{},"unit":"{unit}","ours":{}"#,
        quote(&outcome.row),
        quote(&outcome.says),
        spread(&outcome.ours)
    );
    if let Some((who, peer)) = &outcome.peer {
        let _ = write!(text, r#","against":{},"theirs":{}"#, quote(who), spread(peer));
    }
    if let Some(ratio) = outcome.ratio().filter(|ratio| ratio.is_finite()) {
        let _ = write!(text, r#","ratio":{ratio}"#);
    }
    if let Some(verdict) = outcome.verdict() {
        let met = verdict != Verdict::NotMet;
        let _ = write!(text, r#","goal":{},"met":{met}"#, quote(&outcome.goal.to_string()));
    }
    text.push('}');
    text
}

fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
