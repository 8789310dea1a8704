//! What a run has to say at its end, for people and for programs.

use std::{
    fmt::{self, Display, Write as _},
    io::{self, Write as _},
    sync::atomic::Ordering::Relaxed,
    time::Duration,
};

use backplane::FaultKind;
use clap::ValueEnum;
use serde_json::{Value, json};

use crate::{
    error::Error,
    job::Gauge,
    vitals::{Death, Vitals, peak_memory},
};

/// Who the report is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// People.
    #[default]
    Text,
    /// Programs: one JSON object on standard output.
    Json,
}

/// What every join reports.
#[derive(Debug)]
pub(crate) struct Report {
    /// The stages, and the messages of each.
    pub(crate) stages: Vec<(String, u64)>,
    /// Messages that were merged.
    pub(crate) messages: u64,
    /// What the table came to.
    pub(crate) gauge: Gauge,
    /// How long reading, joining and writing took together.
    pub(crate) took: Duration,
    /// Workers at a time.
    pub(crate) workers: usize,
    /// Workers that died, each of whom was started again.
    pub(crate) deaths: Vec<Death>,
    /// Successors that their supervisors started.
    pub(crate) restarted: u64,
    /// The ceiling, where it was asked for.
    pub(crate) ceiling: Option<Ceiling>,
    /// Further lines: a name for programs, a name and words for people, and a value.
    pub(crate) more: Vec<Line>,
    /// The last word.
    pub(crate) verdict: String,
    /// Whether all is as it should be, if that was checked.
    pub(crate) exact: Option<bool>,
}

/// A line of the report that only some joins have.
#[derive(Debug)]
pub(crate) struct Line {
    /// Its name for programs.
    pub(crate) field: &'static str,
    /// Its name for people.
    pub(crate) name: &'static str,
    /// What it says to people.
    pub(crate) words: String,
    /// What it says to programs.
    pub(crate) value: Value,
}

impl Line {
    /// A line that is a number.
    pub(crate) fn number(field: &'static str, name: &'static str, value: u64) -> Line {
        Line { field, name, words: count(value), value: value.into() }
    }

    /// How much was under way when most was: what the desks hold, however slow the sink is.
    pub(crate) fn in_flight(vitals: &Vitals) -> Line {
        let most = vitals.in_flight_peak.load(Relaxed);
        let words = format!("{} messages at most, read and not merged", count(most));
        Line { field: "in_flight_peak", name: "in flight", words, value: most.into() }
    }
}

/// The supervised join against the plain one.
#[derive(Debug)]
pub(crate) struct Ceiling {
    /// How long each supervised run took.
    pub(crate) supervised: Vec<Duration>,
    /// How long each plain run took.
    pub(crate) plain: Vec<Duration>,
}

impl Ceiling {
    /// The plain join's time by the supervised join's time: one is as fast.
    fn ratio(&self) -> f64 {
        median(&self.plain).as_secs_f64() / median(&self.supervised).as_secs_f64()
    }
}

/// The one in the middle.
pub(crate) fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

impl Report {
    /// Prints it on standard output. Whoever closed that does not want to know.
    pub(crate) fn print(&self, form: Form) -> Result<(), Error> {
        match form {
            Form::Text => print(self),
            Form::Json => print(self.json()),
        }
    }

    /// The report for programs.
    pub(crate) fn json(&self) -> Value {
        let seconds = self.took.as_secs_f64();
        let stages: serde_json::Map<String, Value> =
            self.stages.iter().map(|(name, messages)| (name.clone(), (*messages).into())).collect();
        let deaths: Vec<Value> = self.deaths.iter().map(death).collect();
        let mut report = json!({
            "exact": self.exact,
            "verdict": self.verdict,
            "messages": self.messages,
            "stages": stages,
            "joined": self.gauge.joined,
            "open_keys": { "peak": self.gauge.peak, "end": self.gauge.open },
            "duplicates": self.gauge.duplicates,
            "seconds": seconds,
            "aggregation_rate": self.messages as f64 / seconds,
            "correlation_rate": self.gauge.joined as f64 / seconds,
            "memory": { "table_peak_bytes": self.gauge.peak_bytes, "process_peak_bytes": peak_memory() },
            "workers": self.workers,
            "workers_lost": self.deaths.len(),
            "workers_restarted": self.restarted,
            "given_again": self.deaths.iter().filter(|death| death.given_again).count(),
            "deaths": deaths,
        });
        if let Some(ceiling) = &self.ceiling {
            let seconds =
                |times: &[Duration]| -> Vec<f64> { times.iter().map(Duration::as_secs_f64).collect() };
            report["ceiling"] = json!({
                "ratio": ceiling.ratio(),
                "plain_seconds": seconds(&ceiling.plain),
                "supervised_seconds": seconds(&ceiling.supervised),
            });
        }
        for line in &self.more {
            report[line.field] = line.value.clone();
        }
        report
    }
}

fn death(death: &Death) -> Value {
    json!({
        "worker": death.name,
        "kind": format!("{:?}", death.kind),
        "exit": death.words,
        "at_seconds": death.at.as_secs_f64(),
        "given_again": death.given_again,
    })
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.took.as_secs_f64();
        let stages: Vec<String> =
            self.stages.iter().map(|(name, n)| format!("{name} {}", count(*n))).collect();
        writeln!(
            f,
            "{} keys joined, of {} messages ({}), in {seconds:.2} s",
            count(self.gauge.joined),
            count(self.messages),
            stages.join(", "),
        )?;
        let mut line = |name: &str, words: &dyn Display| writeln!(f, "  {name:<18}{words}");
        line("aggregation rate", &format!("{} messages/s", count((self.messages as f64 / seconds) as u64)))?;
        line("correlation rate", &format!("{} keys/s", count((self.gauge.joined as f64 / seconds) as u64)))?;
        let (peak, open) = (count(self.gauge.peak), count(self.gauge.open));
        line("open keys", &format!("{peak} at the peak, {open} at the end"))?;
        let process =
            peak_memory().map_or_else(String::new, |bytes| format!(", process {}", bytes_of(bytes)));
        line("memory", &format!("table {} at its peak{process}", bytes_of(self.gauge.peak_bytes)))?;
        line("workers", &self.crew())?;
        for more in &self.more {
            line(more.name, &more.words)?;
        }
        if let Some(ceiling) = &self.ceiling {
            line("of the ceiling", ceiling)?;
        }
        write!(f, "{}", self.verdict)
    }
}

impl Report {
    fn crew(&self) -> String {
        let mut words = self.workers.to_string();
        if self.deaths.is_empty() {
            return words + ", none lost";
        }
        let of = |kind: FaultKind| self.deaths.iter().filter(|death| death.kind == kind).count();
        let (panics, errors, drops) = (of(FaultKind::Panic), of(FaultKind::Error), of(FaultKind::Dropped));
        let again = self.deaths.iter().filter(|death| death.given_again).count();
        let (lost, restarted) = (self.deaths.len(), self.restarted);
        let _ = write!(words, "; {lost} lost ({panics} by panic, {errors} by error, {drops} by drop)");
        let _ = write!(words, ", {restarted} restarted, {again} times given again what was taken");
        words
    }
}

impl Display for Ceiling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (plain, supervised) = (median(&self.plain).as_secs_f64(), median(&self.supervised).as_secs_f64());
        let ratio = self.ratio();
        write!(f, "{ratio:.2}: a plain single-thread join takes {plain:.3} s, this one {supervised:.3} s")?;
        match self.plain.len() {
            1 => Ok(()),
            rounds => write!(f, " (medians of {rounds} rounds)"),
        }
    }
}

/// Prints on standard output. A closed pipe is no error: whoever reads has read enough.
pub(crate) fn print(words: impl Display) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{words}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::File { verb: "write", path: "standard output".into(), source: error })
        }
        _ => Ok(()),
    }
}

/// A number as people read it: `1,000,000`.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut words = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            words.push(',');
        }
        words.push(digit);
    }
    words
}

/// A number of bytes as people read it.
pub(crate) fn bytes_of(n: u64) -> String {
    match n {
        0..10_000 => format!("{n} bytes"),
        10_000..10_000_000 => format!("{} kB", count(n / 1_000)),
        _ => format!("{} MB", count(n / 1_000_000)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn a_median_is_the_one_in_the_middle() {
        assert_eq!(median(&[3, 1, 2].map(Duration::from_secs)), Duration::from_secs(2));
    }
}
