//! What happened in a run, brought into the canonical form of FORMAT.md, section 10.

use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};

/// A process in the sense of FORMAT.md: one start attempt at one path, which may have failed.
pub type ProcId = usize;

pub struct Proc {
    pub path: String,
    pub attempt: u32,
    /// The supervisor process that made the attempt.
    pub parent: Option<ProcId>,
    /// It is a supervisor whose children are of one kind.
    pub simple: bool,
    pub started: bool,
    pub alive: bool,
    /// When it died, in the numbers of the events.
    died: Option<u64>,
}

impl Proc {
    pub fn reference(&self) -> String {
        format!("{}#{}", self.path, self.attempt)
    }
}

struct Event {
    number: u64,
    name: &'static str,
    proc: ProcId,
    /// The event is about a process that exists; a failed attempt is not one.
    is_process: bool,
    fields: Map<String, Value>,
}

#[derive(Default)]
pub struct Book {
    pub procs: Vec<Proc>,
    /// The most recent process of each path that was started with success.
    pub current: HashMap<String, ProcId>,
    attempts: HashMap<String, u32>,
    events: Vec<Event>,
    number: u64,
}

impl Book {
    /// A start attempt begins.
    pub fn attempt(&mut self, path: &str, parent: Option<ProcId>, simple: bool) -> ProcId {
        let attempt = self.attempts.entry(path.to_owned()).or_insert(0);
        *attempt += 1;
        self.procs.push(Proc {
            path: path.to_owned(),
            attempt: *attempt,
            parent,
            simple,
            started: false,
            alive: false,
            died: None,
        });
        self.procs.len() - 1
    }

    fn push(&mut self, name: &'static str, proc: ProcId, is_process: bool, fields: Value) {
        self.number += 1;
        let fields = match fields {
            Value::Object(fields) => fields,
            _ => Map::new(),
        };
        self.events.push(Event { number: self.number, name, proc, is_process, fields });
    }

    pub fn init(&mut self, proc: ProcId) {
        self.procs[proc].alive = true;
        self.push("init", proc, true, Value::Null);
    }

    pub fn started(&mut self, proc: ProcId) {
        self.procs[proc].started = true;
        self.procs[proc].alive = true;
        let path = self.procs[proc].path.clone();
        self.current.insert(path, proc);
        self.push("started", proc, true, Value::Null);
    }

    pub fn start_failed(&mut self, proc: ProcId, reason: &Value) {
        self.procs[proc].alive = false;
        self.push("start_failed", proc, false, json!({ "reason": reason }));
    }

    pub fn ignored(&mut self, proc: ProcId) {
        self.procs[proc].alive = false;
        self.push("ignored", proc, false, Value::Null);
    }

    pub fn terminated(&mut self, proc: ProcId, reason: &Value) {
        self.procs[proc].alive = false;
        self.push("terminated", proc, true, json!({ "reason": reason }));
        self.procs[proc].died = Some(self.number);
    }

    pub fn exit_signal(&mut self, proc: ProcId, reason: &Value, from: &str) {
        self.push("exit_signal", proc, true, json!({ "reason": reason, "from": from }));
    }

    pub fn gave_up(&mut self, sup: ProcId, child: &str) {
        self.push("gave_up", sup, true, json!({ "child": child, "reason": "reached_max_restart_intensity" }));
    }

    pub fn report(&mut self, sup: ProcId, context: &str, child: Value, reason: &Value, count: Option<usize>) {
        let mut fields = json!({ "context": context, "child": child, "reason": reason });
        if let Some(count) = count {
            fields["count"] = json!(count);
        }
        self.push("report", sup, true, fields);
    }

    /// The process that the path names, if it is alive.
    pub fn live(&self, path: &str) -> Option<ProcId> {
        self.current.get(path).copied().filter(|proc| self.procs[*proc].alive)
    }

    /// The processes alive, by path and attempt.
    pub fn leaked(&self) -> Vec<String> {
        let mut alive: Vec<&Proc> = self.procs.iter().filter(|proc| proc.started && proc.alive).collect();
        alive.sort_by(|a, b| (&a.path, a.attempt).cmp(&(&b.path, b.attempt)));
        alive.into_iter().map(Proc::reference).collect()
    }

    /// The processes that a step ends or addresses.
    pub fn targets(&self, step: &Value) -> Vec<ProcId> {
        let deaths = step["deaths"].as_array().into_iter().flatten().map(|death| &death["path"]);
        deaths
            .chain([&step["path"], &step["pid_of"]])
            .filter_map(|path| self.current.get(path.as_str()?).copied())
            .collect()
    }

    /// The events since the last time, and those of orphans.
    pub fn take(&mut self, targets: &[ProcId]) -> (Vec<Value>, Vec<Value>) {
        let events = std::mem::take(&mut self.events);
        let (mut orphans, rest): (Vec<Event>, Vec<Event>) =
            events.into_iter().partition(|event| self.is_orphans(event));
        orphans.sort_by(|a, b| {
            let key = |event: &Event| {
                (self.procs[event.proc].path.clone(), self.procs[event.proc].attempt, event.number)
            };
            key(a).cmp(&key(b))
        });
        let mut shown = Vec::new();
        self.group(rest.iter().collect(), targets, "", &mut shown);
        (shown, orphans.iter().map(|event| self.show(event)).collect())
    }

    fn above(&self, proc: ProcId) -> impl Iterator<Item = &Proc> {
        let mut at = self.procs[proc].parent;
        std::iter::from_fn(move || {
            let proc = &self.procs[at?];
            at = proc.parent;
            Some(proc)
        })
    }

    fn is_orphans(&self, event: &Event) -> bool {
        self.above(event.proc).any(|up| up.died.is_some_and(|died| died < event.number))
    }

    /// Sorts what went on below supervisors that end all their children at the same time.
    fn group(&self, events: Vec<&Event>, targets: &[ProcId], under: &str, shown: &mut Vec<Value>) {
        let mut at = 0;
        while at < events.len() {
            let Some(pool) = self.pool_above(events[at], targets, under) else {
                shown.push(self.show(events[at]));
                at += 1;
                continue;
            };
            let run = events[at..]
                .iter()
                .take_while(|event| self.pool_above(event, targets, under) == Some(pool))
                .count();
            let mut parts: BTreeMap<&str, Vec<&Event>> = BTreeMap::new();
            for event in &events[at..at + run] {
                let below = &self.procs[event.proc].path[pool.len() + 1..];
                parts.entry(below.split('/').next().unwrap_or(below)).or_default().push(event);
            }
            for part in parts.into_values() {
                self.group(part, targets, pool, shown);
            }
            at += run;
        }
    }

    fn pool_above(&self, event: &Event, targets: &[ProcId], under: &str) -> Option<&str> {
        let may_move = matches!(event.name, "terminated" | "exit_signal" | "report" | "gave_up");
        if !may_move || (event.is_process && targets.contains(&event.proc)) {
            return None;
        }
        self.above(event.proc)
            .filter(|up| up.simple && up.path.len() > under.len())
            .map(|up| up.path.as_str())
            .last()
    }

    fn show(&self, event: &Event) -> Value {
        let who = if matches!(event.name, "report" | "gave_up") { "sup" } else { "proc" };
        let mut shown = Map::new();
        shown.insert("ev".to_owned(), json!(event.name));
        shown.insert(who.to_owned(), json!(self.procs[event.proc].reference()));
        shown.extend(event.fields.clone());
        Value::Object(shown)
    }
}
