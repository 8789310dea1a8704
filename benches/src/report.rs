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
    /// How many times as much the peer takes.
    pub ratio: Option<Spread>,
    /// What was wished for.
    pub goal: Goal,
}

impl Outcome {
    /// Whether the goal was reached; `None` where there was none, or no peer to reach it against.
    pub fn verdict(&self) -> Option<Verdict> {
        self.goal.judge(self.ours.median, self.ratio.map(|ratio| ratio.median))
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
    let ratio = outcome.ratio.filter(|ratio| ratio.median.is_finite()).map(|ratio| match ratio.samples {
        1 => format!("{}×", round(ratio.median)),
        _ => format!("{}× ({}..{})", round(ratio.median), round(ratio.p10), round(ratio.p90)),
    });
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
    if let Some(ratio) = outcome.ratio.filter(|ratio| ratio.median.is_finite()) {
        let _ = write!(text, r#","ratio":{}"#, spread(&ratio));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome() -> Outcome {
        let exactly = |median| Spread { p10: median, median, p90: median, samples: 3 };
        Outcome {
            row: "row".to_owned(),
            says: "what \"it\" does".to_owned(),
            unit: Unit::Nanoseconds,
            ours: exactly(20.0),
            peer: Some(("them".to_owned(), exactly(1500.0))),
            ratio: Some(exactly(75.0)),
            goal: Goal::Faster { least: 5.5, prototype: 80.0 },
        }
    }

    #[test]
    fn a_line_of_markdown_has_a_cell_for_each_of_the_head() {
        let line = markdown(&outcome());
        assert_eq!(
            line,
            "| `row` | what \"it\" does | 20.0 ns (20.0..20.0) | them | 1.50 µs (1.50..1.50) | 75.0× (75.0..75.0) | \
             ≥ 5.5× (prototype 80) | met, below the prototype |"
        );
        let head = MARKDOWN_HEAD.lines().next().map(|head| head.matches('|').count());
        assert_eq!(head, Some(line.matches('|').count()));
    }

    #[test]
    fn json_keeps_quotes_apart() {
        let line = json(&outcome());
        assert!(line.contains(r#""says":"what \"it\" does""#), "{line}");
        assert!(line.contains(r#""ratio":{"median":75"#) && line.contains(r#""met":true"#), "{line}");
    }

    #[test]
    fn the_summary_names_what_was_missed() {
        let missed = Outcome { goal: Goal::Faster { least: 100.0, prototype: 100.0 }, ..outcome() };
        let text = summary(&[outcome(), missed]);
        assert_eq!(text, "1 of 2 goals met.\nNot met: `row` against them (goal ≥ 100×).");
    }
}
