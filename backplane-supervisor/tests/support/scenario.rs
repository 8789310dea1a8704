//! The fields of a scenario (FORMAT.md, section 3) with their defaults.

use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// What a start attempt comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Ok,
    Ignore,
    Error(String),
    Crash(String),
    Raise(String),
}

impl Outcome {
    fn read(value: &Value) -> Outcome {
        match value.as_str() {
            Some("ok") => return Outcome::Ok,
            Some("ignore") => return Outcome::Ignore,
            _ => {}
        }
        let words = |name| value[name].as_str().map(str::to_owned);
        if let Some(words) = words("error") {
            Outcome::Error(words)
        } else if let Some(words) = words("crash") {
            Outcome::Crash(words)
        } else if let Some(words) = words("raise") {
            Outcome::Raise(words)
        } else {
            panic!("unknown outcome {value}")
        }
    }

    /// Of attempt number `attempt` of a worker or of a supervisor's own initialisation.
    pub fn of(starts: &Value, rest: &Value, attempt: u32) -> Outcome {
        match starts.get(attempt as usize - 1) {
            Some(outcome) => Outcome::read(outcome),
            None if rest.is_null() => Outcome::Ok,
            None => Outcome::read(rest),
        }
    }

    /// The reason that a trace gives for a failed start.
    pub fn reason(&self) -> Value {
        match self {
            Outcome::Error(words) | Outcome::Crash(words) => json!({ "error": words }),
            Outcome::Raise(words) => json!({ "raise": words }),
            Outcome::Ok | Outcome::Ignore => json!("normal"),
        }
    }
}

pub fn is_simple(supervisor: &Value) -> bool {
    supervisor["strategy"] == "simple_one_for_one"
}

pub fn children(supervisor: &Value) -> &[Value] {
    supervisor["children"].as_array().map_or(&[], Vec::as_slice)
}

pub fn id_of(child: &Value) -> &str {
    child["id"].as_str().expect("a child has an id")
}

pub fn restart_of(child: &Value) -> &str {
    child["restart"].as_str().unwrap_or("permanent")
}

pub fn is_significant(child: &Value) -> bool {
    child["significant"] == true
}

/// The declared type.
pub fn type_of(child: &Value) -> &str {
    child["type"].as_str().unwrap_or(if child["supervisor"].is_null() { "worker" } else { "supervisor" })
}

pub fn shutdown_of(child: &Value) -> Value {
    match (&child["shutdown"], type_of(child)) {
        (Value::Null, "worker") => json!(5000),
        (Value::Null, _) => json!("infinity"),
        (given, _) => given.clone(),
    }
}

pub fn read(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The recorded scenarios that a statically typed supervisor can be asked to run, each with OTP's trace; the newest
/// release's, where they differ.
pub fn recorded() -> Vec<(Value, Value)> {
    let otp = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/otp");
    let mut files: Vec<PathBuf> = std::fs::read_dir(otp.join("scenarios"))
        .expect("recorded scenarios")
        .map(|entry| entry.expect("a file").path())
        .collect();
    files.sort();
    let mut recorded = Vec::new();
    for file in files {
        let scenario = read(&file);
        let tags = scenario["tags"].as_array().map_or(&[][..], Vec::as_slice);
        if tags.iter().any(|tag| tag == "untyped" || tag == "otp_bug") {
            continue;
        }
        let name = file.file_name().expect("a file name");
        let newer = otp.join("newer").join(name);
        let trace = if newer.exists() { newer } else { otp.join("traces").join(name) };
        recorded.push((scenario, read(&trace)));
    }
    recorded
}

/// Where two values differ first, and how.
pub fn difference(expected: &Value, actual: &Value) -> Option<String> {
    fn walk(at: &str, expected: &Value, actual: &Value) -> Option<String> {
        match (expected, actual) {
            (Value::Object(a), Value::Object(b)) => {
                let keys = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key)));
                for key in keys {
                    let (x, y) = (a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null));
                    if let Some(found) = walk(&format!("{at}.{key}"), x, y) {
                        return Some(found);
                    }
                }
                None
            }
            (Value::Array(a), Value::Array(b)) => {
                for n in 0..a.len().max(b.len()) {
                    let end = json!("(end)");
                    let (x, y) = (a.get(n).unwrap_or(&end), b.get(n).unwrap_or(&end));
                    if let Some(found) = walk(&format!("{at}[{n}]"), x, y) {
                        return Some(found);
                    }
                }
                None
            }
            (a, b) if a == b => None,
            (a, b) => Some(format!("at {at}\n   expected: {a}\n   actual:   {b}")),
        }
    }
    walk("", expected, actual)
}
