//! The pure machine, held against what the real Erlang/OTP did, without a runtime.
//!
//! The world here is a toy: processes are entries in a list and time is a number. All decisions are `tree.rs`'s.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

#[path = "../src/backoff.rs"]
mod backoff;
#[path = "../src/names.rs"]
mod names;
#[path = "../src/order.rs"]
mod order;
#[path = "../src/tree.rs"]
mod tree;

// The doc examples and `use` lines in the files above are the crate's own.
#[path = "support/book.rs"]
mod book;
#[path = "support/scenario.rs"]
mod scenario;

use book::{Book, ProcId};
use order::Key;
use scenario::{Outcome, children, id_of, is_significant, is_simple, restart_of, shutdown_of, type_of};
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tree::{
    Action, AutoShutdown, Child, Context, End, Ending, Intensity, Members, Named, Refusal, Restart,
    RestartStrategy, State, Taken, Tree,
};

const NEVER: u64 = u64::MAX;

/// An enclosing timeout has struck while a child was being ended.
struct Cut;

enum Mail {
    Exit(ProcId, Value),
    Retry(Key),
    Call(Value, usize),
}

#[derive(Clone)]
struct Body {
    spec: Value,
    name: Arc<str>,
    proc: Option<ProcId>,
}

impl Named for Body {
    fn name(&self) -> Option<&Arc<str>> {
        Some(&self.name)
    }
}

struct Sup {
    tree: Tree<Body>,
    spec: Value,
    mailbox: VecDeque<Mail>,
    keys: HashMap<ProcId, Key>,
    /// Of the end or the failure that the tree has been told last.
    reason: Value,
    started: bool,
    start_error: Value,
}

struct World {
    book: Book,
    epoch: Instant,
    clock: u64,
    sups: HashMap<ProcId, Sup>,
    behave: HashMap<ProcId, Value>,
    reasons: HashMap<ProcId, Value>,
    /// Workers in their stop delay, and the reason they are going to end with.
    stopping: HashMap<ProcId, Value>,
    ready: VecDeque<ProcId>,
    hold: Option<(String, u64, Vec<Value>)>,
    held: Vec<Value>,
}

fn end_of(reason: &Value) -> End {
    match reason.as_str() {
        Some("normal") => End::Normal,
        Some("shutdown") => End::Shutdown,
        Some("killed") => End::Killed,
        _ if reason.get("shutdown").is_some() => End::Normal,
        _ => End::Fault,
    }
}

fn check(spec: &Value, auto: &str) -> Option<Value> {
    if !is_significant(spec) {
        return None;
    }
    if auto == "never" {
        return Some(json!({"bad_combination": [{"auto_shutdown": "never"}, {"significant": true}]}));
    }
    (restart_of(spec) == "permanent")
        .then(|| json!({"bad_combination": [{"restart": "permanent"}, {"significant": true}]}))
}

fn check_all(specs: &[Value], auto: &str) -> Option<Value> {
    let mut seen = std::collections::HashSet::new();
    specs.iter().find_map(|spec| {
        check(spec, auto)
            .or_else(|| (!seen.insert(id_of(spec))).then(|| json!({ "duplicate_child_name": id_of(spec) })))
    })
}

fn auto_of(spec: &Value) -> &str {
    spec["auto_shutdown"].as_str().unwrap_or("never")
}

fn child(spec: &Value, name: &str) -> Child<Body> {
    let restart = match restart_of(spec) {
        "permanent" => Restart::Permanent,
        "transient" => Restart::Transient,
        _ => Restart::Temporary,
    };
    let body = Body { spec: spec.clone(), name: Arc::from(name), proc: None };
    Child::new(restart, body)
        .significant(is_significant(spec))
        .brutal(shutdown_of(spec) == "brutal_kill")
        .supervisor(type_of(spec) == "supervisor")
}

fn tree_of(spec: &Value) -> Tree<Body> {
    let simple = is_simple(spec);
    let strategy = match spec["strategy"].as_str() {
        Some("one_for_all") => RestartStrategy::OneForAll,
        Some("rest_for_one") => RestartStrategy::RestForOne,
        _ => RestartStrategy::OneForOne,
    };
    let auto = match auto_of(spec) {
        "any_significant" => AutoShutdown::AnySignificant,
        "all_significant" => AutoShutdown::AllSignificant,
        _ => AutoShutdown::Never,
    };
    let intensity = Intensity {
        restarts: spec["intensity"].as_u64().unwrap_or(1) as u32,
        period: Duration::from_secs(spec["period"].as_u64().unwrap_or(5)),
    };
    let members = if simple { Members::OfOneKind } else { Members::Listed };
    let mut tree = Tree::new(members, strategy, intensity, auto);
    if !simple {
        for spec in children(spec) {
            assert!(tree.list(child(spec, id_of(spec))).is_ok());
        }
    }
    tree
}

impl World {
    fn new() -> World {
        World {
            book: Book::default(),
            epoch: Instant::now(),
            clock: 0,
            sups: HashMap::new(),
            behave: HashMap::new(),
            reasons: HashMap::new(),
            stopping: HashMap::new(),
            ready: VecDeque::new(),
            hold: None,
            held: Vec::new(),
        }
    }

    fn now(&self) -> Instant {
        self.epoch + Duration::from_millis(self.clock)
    }

    fn sup(&mut self, sup: ProcId) -> &mut Sup {
        self.sups.get_mut(&sup).unwrap()
    }

    fn body(&mut self, sup: ProcId, key: Key) -> Body {
        self.sup(sup).tree.get(key).unwrap().body.clone()
    }

    // ---- starting ------------------------------------------------------------------------------------------------

    fn attempt(&mut self, sup: ProcId, key: Key) -> Outcome {
        let Body { spec, name, .. } = self.body(sup, key);
        let path = format!("{}/{}", self.book.procs[sup].path, name);
        let supervisor = &spec["supervisor"];
        let proc = self.book.attempt(&path, Some(sup), !supervisor.is_null() && is_simple(supervisor));
        self.attempt_made(sup, &path, self.book.procs[proc].attempt);
        let outcome = if supervisor.is_null() {
            let worker = &spec["worker"];
            let outcome = Outcome::of(&worker["start"], &worker["start_rest"], self.book.procs[proc].attempt);
            if !matches!(outcome, Outcome::Raise(_)) {
                self.clock += worker["start_delay_ms"].as_u64().unwrap_or(0);
            }
            self.behave.insert(proc, worker.clone());
            match outcome {
                Outcome::Ok => Ok(()),
                Outcome::Ignore => Err(None),
                failed => Err(Some(failed.reason())),
            }
        } else {
            self.boot(proc, supervisor)
        };
        match outcome {
            Ok(()) => {
                self.sup(sup).keys.insert(proc, key);
                self.sup(sup).tree.get_mut(key).unwrap().body.proc = Some(proc);
                if let Some(started) = self.sups.get_mut(&proc) {
                    started.started = true;
                }
                self.book.started(proc);
                Outcome::Ok
            }
            Err(None) => {
                self.book.ignored(proc);
                Outcome::Ignore
            }
            Err(Some(reason)) => {
                self.book.start_failed(proc, &reason);
                self.sup(sup).reason = reason.clone();
                Outcome::Error(reason.to_string())
            }
        }
    }

    fn boot(&mut self, proc: ProcId, spec: &Value) -> Result<(), Option<Value>> {
        self.book.init(proc);
        match Outcome::of(&spec["init"], &Value::Null, self.book.procs[proc].attempt) {
            Outcome::Ok => {}
            Outcome::Ignore => return Err(None),
            failed => return Err(Some(failed.reason())),
        }
        let (specs, auto, simple) = (children(spec), auto_of(spec), is_simple(spec));
        if simple && auto != "never" {
            let why = [json!({ "auto_shutdown": auto }), json!({ "strategy": "simple_one_for_one" })];
            return Err(Some(json!({ "supervisor_data": { "bad_combination": why } })));
        }
        if simple && specs.len() != 1 {
            return Err(Some(json!({ "bad_start_spec": specs.len() })));
        }
        if let Some(error) = check_all(specs, auto) {
            return Err(Some(json!({ "start_spec": error })));
        }
        let sup = Sup {
            tree: tree_of(spec),
            spec: spec.clone(),
            mailbox: VecDeque::new(),
            keys: HashMap::new(),
            reason: Value::Null,
            started: false,
            start_error: Value::Null,
        };
        self.sups.insert(proc, sup);
        self.sup(proc).tree.boot();
        match self.drive(proc, &json!("shutdown"), NEVER) {
            Ok(true) => Err(Some(self.sup(proc).start_error.clone())),
            _ => Ok(()),
        }
    }

    // ---- doing what the tree says --------------------------------------------------------------------------------

    /// Whether that ended the supervisor.
    fn drive(&mut self, sup: ProcId, asked: &Value, deadline: u64) -> Result<bool, Cut> {
        while let Some(action) = self.sup(sup).tree.next() {
            match action {
                Action::Start(key) => {
                    let now = self.now();
                    match self.attempt(sup, key) {
                        Outcome::Ok => self.sup(sup).tree.started(now, key),
                        Outcome::Ignore => drop(self.sup(sup).tree.ignored(key)),
                        _ => drop(self.sup(sup).tree.failed(now, key)),
                    }
                }
                Action::Stop(key) => {
                    let reason = self.make_end(sup, key, deadline)?;
                    self.sup(sup).reason = reason.clone();
                    self.sup(sup).tree.stopped(key, end_of(&reason));
                }
                Action::StopTogether => self.stop_together(sup, deadline)?,
                Action::Booted | Action::Forget | Action::LeftDown(_) => {}
                Action::Retry(key) => {
                    self.sup(sup).mailbox.push_back(Mail::Retry(key));
                    self.ready.push_back(sup);
                }
                Action::RetryAfter(..) => panic!("OTP has no backoff"),
                Action::Report(context, key) => {
                    let context = match context {
                        Context::ChildTerminated => "child_terminated",
                        Context::StartError => "start_error",
                        Context::ShutdownError => "shutdown_error",
                    };
                    let (name, reason) = (self.body(sup, key).name, self.sup(sup).reason.clone());
                    if context == "start_error" {
                        self.sup(sup).start_error = reason.clone();
                    }
                    self.book.report(sup, context, json!(*name), &reason, None);
                }
                Action::GaveUp(key) => {
                    let name = self.body(sup, key).name;
                    self.book.gave_up(sup, &name);
                }
                Action::Finish(Ending::FailedToStart(key)) => {
                    let (name, reason) = (self.body(sup, key).name, self.sup(sup).start_error.clone());
                    let error =
                        json!({"shutdown": {"failed_to_start_child": {"id": *name, "reason": reason}}});
                    self.sup(sup).start_error = error;
                    return Ok(true);
                }
                Action::Finish(ending) => {
                    let reason = if ending == Ending::Asked { asked.clone() } else { json!("shutdown") };
                    self.die(sup, &reason, true);
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn make_end(&mut self, sup: ProcId, key: Key, deadline: u64) -> Result<Value, Cut> {
        let Body { spec, proc, .. } = self.body(sup, key);
        let proc = proc.unwrap();
        let shutdown = shutdown_of(&spec);
        if !self.book.procs[proc].alive {
            return Ok(self.reasons[&proc].clone());
        }
        if shutdown == "brutal_kill" {
            self.die(proc, &json!("killed"), true);
            return Ok(json!("killed"));
        }
        let limit = shutdown.as_u64().map_or(NEVER, |limit| self.clock + limit);
        if self.sups.contains_key(&proc) {
            if self.finish(proc, &json!("shutdown"), limit.min(deadline)).is_err() {
                if limit > deadline {
                    return Err(Cut);
                }
                self.clock = limit;
                self.die(proc, &json!("killed"), true);
            }
            return Ok(self.reasons[&proc].clone());
        }
        let worker = self.behave[&proc].clone();
        if worker["trap_exit"] != true {
            self.die(proc, &json!("shutdown"), false);
            return Ok(json!("shutdown"));
        }
        self.book.exit_signal(proc, &json!("shutdown"), "parent");
        let ignores = worker["on_shutdown"] == "ignore";
        let mut ends =
            if ignores { NEVER } else { self.clock + worker["stop_delay_ms"].as_u64().unwrap_or(0) };
        let mut why =
            if worker["stop_reason"].is_null() { json!("shutdown") } else { worker["stop_reason"].clone() };
        if ends > limit {
            (ends, why) = (limit, json!("killed"));
        }
        if ends > deadline {
            self.stopping.insert(proc, why);
            return Err(Cut);
        }
        if ends < NEVER {
            self.clock = self.clock.max(ends);
        }
        self.die(proc, &why, false);
        Ok(why)
    }

    fn stop_together(&mut self, sup: ProcId, deadline: u64) -> Result<(), Cut> {
        let begin = self.clock;
        let mut last = begin;
        let mut odd: Vec<(Value, usize)> = Vec::new();
        let running: Vec<Key> = self
            .sup(sup)
            .tree
            .iter()
            .filter(|(_, child)| child.state == State::Running)
            .map(|(key, _)| key)
            .collect();
        for key in running {
            self.clock = begin;
            let reason = self.make_end(sup, key, deadline)?;
            last = last.max(self.clock);
            if self.sup(sup).tree.is_unexpected(key, end_of(&reason)) {
                match odd.iter_mut().find(|(known, _)| *known == reason) {
                    Some((_, count)) => *count += 1,
                    None => odd.push((reason.clone(), 1)),
                }
            }
            self.sup(sup).tree.stopped(key, end_of(&reason));
        }
        self.clock = last;
        odd.sort_by_key(|(reason, _)| (reason.is_object(), reason.to_string()));
        for (reason, count) in odd {
            self.book.report(sup, "shutdown_error", Value::Null, &reason, Some(count));
        }
        Ok(())
    }

    fn finish(&mut self, sup: ProcId, reason: &Value, deadline: u64) -> Result<(), Cut> {
        self.sup(sup).tree.shut_down();
        self.drive(sup, reason, deadline).map(drop)
    }

    // ---- deaths --------------------------------------------------------------------------------------------------

    fn die(&mut self, proc: ProcId, reason: &Value, tell: bool) {
        if !self.book.procs[proc].alive {
            return;
        }
        self.reasons.insert(proc, reason.clone());
        self.book.terminated(proc, reason);
        if tell
            && let Some(parent) = self.book.procs[proc].parent
            && self.book.procs[parent].alive
        {
            self.sup(parent).mailbox.push_back(Mail::Exit(proc, reason.clone()));
            self.ready.push_back(parent);
        }
        if let Some(sup) = self.sups.get_mut(&proc) {
            for mail in sup.mailbox.drain(..) {
                if let Mail::Call(_, place) = mail {
                    self.held[place] = json!({ "exit": reason });
                }
            }
            let left: Vec<ProcId> = sup
                .tree
                .iter()
                .filter(|(_, child)| child.state == State::Running)
                .filter_map(|(_, child)| child.body.proc)
                .filter(|proc| self.book.procs[*proc].alive)
                .collect();
            for child in left {
                self.orphan(child, reason);
            }
        }
    }

    fn orphan(&mut self, proc: ProcId, reason: &Value) {
        if self.sups.contains_key(&proc) {
            let _ = self.finish(proc, reason, NEVER);
        } else if self.behave[&proc]["trap_exit"] != true {
            self.die(proc, reason, false);
        } else if let Some(why) = self.stopping.remove(&proc) {
            self.die(proc, &why, false);
        } else {
            self.book.exit_signal(proc, reason, "parent");
            let worker = self.behave[&proc].clone();
            if worker["on_shutdown"] != "ignore" {
                let why = if worker["stop_reason"].is_null() {
                    reason.clone()
                } else {
                    worker["stop_reason"].clone()
                };
                self.die(proc, &why, false);
            }
        }
    }

    // ---- mailboxes -----------------------------------------------------------------------------------------------

    fn settle(&mut self) {
        let mut turns = 0;
        while let Some(sup) = self.ready.pop_front() {
            turns += 1;
            assert!(turns < 20_000, "does not settle");
            if !self.book.procs[sup].alive || !self.sup(sup).started {
                continue;
            }
            let now = self.now();
            match self.sup(sup).mailbox.pop_front() {
                Some(Mail::Exit(proc, reason)) => {
                    let at = self.sup(sup);
                    let key = at.keys.remove(&proc);
                    if let Some(key) = key
                        && at.tree.get(key).is_some_and(|child| child.body.proc == Some(proc))
                    {
                        at.reason = reason.clone();
                        at.tree.ended(now, key, end_of(&reason));
                        let _ = self.drive(sup, &Value::Null, NEVER);
                    }
                }
                Some(Mail::Retry(key)) => {
                    self.sup(sup).tree.retry(now, key);
                    let _ = self.drive(sup, &Value::Null, NEVER);
                }
                Some(Mail::Call(step, place)) => self.held[place] = self.call(sup, &step),
                None => {}
            }
            if self.sups.get(&sup).is_some_and(|sup| !sup.mailbox.is_empty()) {
                self.ready.push_back(sup);
            }
        }
    }

    fn attempt_made(&mut self, sup: ProcId, path: &str, attempt: u32) {
        if !self.hold.as_ref().is_some_and(|(at, number, _)| at == path && *number == u64::from(attempt)) {
            return;
        }
        let (_, _, calls) = self.hold.take().unwrap();
        for step in calls {
            let place = self.held.len();
            self.held.push(json!({ "exit": "noproc" }));
            let proc = step["path"].as_str().and_then(|path| self.book.live(path));
            if !self.sup(sup).started {
                self.held[place] = json!("refused");
            } else if step["op"] == "crash" {
                self.held[place] = match proc {
                    None => json!("no_process"),
                    Some(proc) if self.book.procs[proc].parent != Some(sup) => json!("refused"),
                    Some(proc) => {
                        let reason =
                            if step["reason"] == "kill" { json!("killed") } else { step["reason"].clone() };
                        self.die(proc, &reason, true);
                        json!("ok")
                    }
                };
            } else if self.book.current.get(step["sup"].as_str().unwrap()) != Some(&sup) {
                self.held[place] = json!("refused");
            } else {
                self.sup(sup).mailbox.push_back(Mail::Call(step, place));
                self.ready.push_back(sup);
            }
        }
    }

    // ---- calls ---------------------------------------------------------------------------------------------------

    fn reference(&self, proc: Option<ProcId>) -> Value {
        proc.map_or(Value::Null, |proc| json!(self.book.procs[proc].reference()))
    }

    fn after_start(&mut self, sup: ProcId, key: Key) -> Value {
        self.sup(sup).reason = Value::Null;
        let _ = self.drive(sup, &Value::Null, NEVER);
        let failed = self.sup(sup).reason.clone();
        if !failed.is_null() {
            return json!({ "error": { "start": failed } });
        }
        let running = self
            .sup(sup)
            .tree
            .get(key)
            .filter(|child| child.state == State::Running)
            .and_then(|c| c.body.proc);
        json!({ "ok": self.reference(running) })
    }

    fn call(&mut self, sup: ProcId, step: &Value) -> Value {
        let simple = is_simple(&self.sup(sup).spec);
        let spec = self.sup(sup).spec.clone();
        match step["op"].as_str().unwrap() {
            "start_child" => {
                let new = if simple {
                    child(&children(&spec)[0], step["name"].as_str().unwrap())
                } else {
                    if let Some(error) = check(&step["child"], auto_of(&spec)) {
                        return json!({ "error": error });
                    }
                    child(&step["child"], id_of(&step["child"]))
                };
                match self.sup(sup).tree.add(new) {
                    Ok(key) => self.after_start(sup, key),
                    Err((_, Taken::Present)) => json!({ "error": "already_present" }),
                    Err((_, Taken::Running(key))) => {
                        let proc = self.body(sup, key).proc;
                        json!({ "error": { "already_started": self.reference(proc) } })
                    }
                }
            }
            "which_children" => self.rows(sup),
            "count_children" => self.counts(sup),
            "get_childspec" => {
                let specs: Vec<Value> = if simple {
                    children(&spec).to_vec()
                } else {
                    self.sup(sup).tree.iter().map(|(_, child)| child.body.spec.clone()).collect()
                };
                match specs.iter().find(|spec| spec["id"] == step["id"]) {
                    None => json!({ "error": "not_found" }),
                    Some(spec) => json!({ "ok": {
                        "id": id_of(spec), "type": type_of(spec), "restart": restart_of(spec),
                        "significant": is_significant(spec), "shutdown": shutdown_of(spec),
                    } }),
                }
            }
            "terminate_child" if !step["pid_of"].is_null() => {
                let proc = self.book.current[step["pid_of"].as_str().unwrap()];
                let key =
                    self.sup(sup).tree.iter().find(|(_, c)| c.body.proc == Some(proc)).map(|(key, _)| key);
                match key.filter(|_| simple) {
                    None if simple && !self.book.procs[proc].alive => json!("ok"),
                    None => json!({ "error": "not_found" }),
                    Some(key) => {
                        self.sup(sup).tree.terminate(key);
                        let _ = self.drive(sup, &Value::Null, NEVER);
                        json!("ok")
                    }
                }
            }
            _ if simple => json!({ "error": "simple_one_for_one" }),
            op => {
                let Some(key) = self.sup(sup).tree.find(step["id"].as_str().unwrap()) else {
                    return json!({ "error": "not_found" });
                };
                let refused = |refusal| match refusal {
                    Refusal::Running => json!({ "error": "running" }),
                    Refusal::Restarting => json!({ "error": "restarting" }),
                    Refusal::NotFound => json!({ "error": "not_found" }),
                };
                match op {
                    "terminate_child" => {
                        self.sup(sup).tree.terminate(key);
                        let _ = self.drive(sup, &Value::Null, NEVER);
                        json!("ok")
                    }
                    "delete_child" => self.sup(sup).tree.delete(key).map_or_else(refused, |_| json!("ok")),
                    "restart_child" => match self.sup(sup).tree.restart_child(key) {
                        Err(refusal) => refused(refusal),
                        Ok(()) => self.after_start(sup, key),
                    },
                    op => panic!("unknown op {op}"),
                }
            }
        }
    }

    fn rows(&mut self, sup: ProcId) -> Value {
        let simple = is_simple(&self.sup(sup).spec);
        let children: Vec<(State, Body, bool)> = self
            .sup(sup)
            .tree
            .iter_back()
            .map(|(_, c)| (c.state, c.body.clone(), c.is_supervisor()))
            .collect();
        let mut rows: Vec<(Option<ProcId>, Value)> = Vec::new();
        for (state, body, supervisor) in children {
            let running = body.proc.filter(|_| state == State::Running);
            let child = match state {
                State::Running => self.reference(running),
                State::Restarting { .. } => json!("restarting"),
                _ => json!("undefined"),
            };
            let id = if simple { Value::Null } else { json!(*body.name) };
            let kind = if supervisor { "supervisor" } else { "worker" };
            rows.push((running, json!({ "id": id, "child": child, "type": kind })));
        }
        if simple {
            rows.sort_by_key(|(proc, _)| {
                proc.map(|proc| (self.book.procs[proc].path.clone(), self.book.procs[proc].attempt))
                    .unwrap_or_default()
            });
        }
        Value::Array(rows.into_iter().map(|(_, row)| row).collect())
    }

    fn running(&mut self, sup: ProcId) -> Vec<ProcId> {
        let children = self.sup(sup).tree.iter().filter(|(_, child)| child.state == State::Running);
        children.filter_map(|(_, child)| child.body.proc).collect()
    }

    fn counts(&mut self, sup: ProcId) -> Value {
        let simple = is_simple(&self.sup(sup).spec);
        let running = self.running(sup);
        let active = running.into_iter().filter(|proc| self.book.procs[*proc].alive).count();
        let tally = self.sup(sup).tree.tally();
        json!({
            "specs": if simple { 1 } else { tally.listed }, "active": active,
            "supervisors": tally.supervisors, "workers": tally.listed - tally.supervisors,
        })
    }

    fn tree(&mut self, sup: ProcId) -> Value {
        let mut rows = self.rows(sup);
        for proc in self.running(sup) {
            if self.sups.contains_key(&proc) && self.book.procs[proc].alive {
                let (reference, sub) = (self.reference(Some(proc)), self.tree(proc));
                let row = rows.as_array_mut().unwrap().iter_mut().find(|row| row["child"] == reference);
                row.unwrap()["sub"] = sub;
            }
        }
        json!({ "sup": self.reference(Some(sup)), "count": self.counts(sup), "children": rows })
    }

    // ---- steps ---------------------------------------------------------------------------------------------------

    fn end_self(&mut self, proc: ProcId, reason: &Value) {
        if reason == "kill" {
            self.die(proc, &json!("killed"), true);
        } else if self.sups.contains_key(&proc) {
            let _ = self.finish(proc, reason, NEVER);
        } else {
            self.die(proc, reason, true);
        }
    }

    fn step(&mut self, step: &Value, tick: u64) -> Value {
        let live = |world: &World, path: &Value| path.as_str().and_then(|path| world.book.live(path));
        match step["op"].as_str().unwrap() {
            "crash" | "stop" => {
                let Some(proc) = live(self, &step["path"]) else { return json!("no_process") };
                let reason = if step["reason"].is_null() { json!("normal") } else { step["reason"].clone() };
                self.end_self(proc, &reason);
                json!("ok")
            }
            "signal" => {
                let Some(proc) = live(self, &step["path"]) else { return json!("no_process") };
                let reason = &step["reason"];
                if reason == "kill" {
                    self.die(proc, &json!("killed"), true);
                } else if !self.sups.contains_key(&proc) {
                    if self.behave[&proc]["trap_exit"] == true {
                        self.book.exit_signal(proc, reason, "other");
                    } else if reason != "normal" {
                        self.die(proc, reason, true);
                    }
                }
                json!("ok")
            }
            "sleep" => {
                self.clock += step["ticks"].as_u64().unwrap() * tick;
                json!("ok")
            }
            "stop_tree" => {
                let Some(root) = self.book.live("root") else { return json!("no_process") };
                let _ = self.finish(root, &json!("shutdown"), NEVER);
                json!("ok")
            }
            "check_childspecs" => {
                let auto = step["auto_shutdown"].as_str().unwrap_or("unknown");
                match check_all(step["specs"].as_array().unwrap(), auto) {
                    None => json!("ok"),
                    Some(error) => json!({ "error": error }),
                }
            }
            "crash_many" => {
                let deaths = step["deaths"].as_array().unwrap();
                let procs: Option<Vec<ProcId>> =
                    deaths.iter().map(|death| live(self, &death["path"])).collect();
                let Some(procs) = procs.filter(|_| live(self, &step["sup"]).is_some()) else {
                    return json!("no_process");
                };
                for (proc, death) in procs.into_iter().zip(deaths) {
                    self.end_self(proc, &death["reason"]);
                }
                json!("ok")
            }
            "crash_with_calls" => {
                let Some(proc) = live(self, &step["path"]) else { return json!("no_process") };
                let hold = &step["hold"];
                self.held.clear();
                self.hold = Some((
                    hold["path"].as_str().unwrap().to_owned(),
                    hold["attempt"].as_u64().unwrap(),
                    step["calls"].as_array().unwrap().clone(),
                ));
                self.end_self(proc, &step["reason"]);
                self.settle();
                match self.hold.take() {
                    Some(_) => json!("not_held"),
                    None => Value::Array(std::mem::take(&mut self.held)),
                }
            }
            _ => {
                let sup = step["sup"].as_str().unwrap();
                if let Some(pid_of) = step["pid_of"].as_str()
                    && self.book.current.contains_key(sup)
                    && !self.book.current.contains_key(pid_of)
                {
                    return json!("no_process");
                }
                match self.book.live(sup) {
                    Some(sup) => self.call(sup, step),
                    None => json!({ "exit": "noproc" }),
                }
            }
        }
    }
}

fn run(scenario: &Value) -> Value {
    let mut world = World::new();
    let root = world.book.attempt("root", None, is_simple(&scenario["root"]));
    let result = match world.boot(root, &scenario["root"]) {
        Ok(()) => {
            world.sup(root).started = true;
            world.book.started(root);
            json!({ "ok": "root#1" })
        }
        Err(None) => {
            world.book.ignored(root);
            json!("ignore")
        }
        Err(Some(reason)) => {
            world.book.start_failed(root, &reason);
            json!({ "error": reason })
        }
    };
    world.settle();
    let (events, orphans) = world.book.take(&[]);
    let start = json!({ "result": result, "events": events, "orphans": orphans });
    let tick = scenario["tick_ms"].as_u64().unwrap_or(100);
    let mut steps = Vec::new();
    for step in scenario["steps"].as_array().into_iter().flatten() {
        let targets = world.book.targets(step);
        let result = world.step(step, tick);
        world.settle();
        let (events, orphans) = world.book.take(&targets);
        steps.push(json!({ "op": step["op"], "result": result, "events": events, "orphans": orphans }));
    }
    let last = if world.book.procs[root].alive { world.tree(root) } else { Value::Null };
    let result = world.step(&json!({ "op": "stop_tree" }), tick);
    world.settle();
    let (events, orphans) = world.book.take(&[]);
    json!({
        "format": "otp-trace/1", "name": scenario["name"], "start": start, "steps": steps, "final": last,
        "shutdown": { "result": result, "events": events, "orphans": orphans }, "leaked": world.book.leaked(),
    })
}

#[test]
fn the_tree_decides_as_otp_decided() {
    let recorded = scenario::recorded();
    assert!(recorded.len() > 150, "the recorded scenarios are here");
    let mut wrong = Vec::new();
    for (scenario, trace) in &recorded {
        if let Some(difference) = scenario::difference(trace, &run(scenario)) {
            wrong.push(format!("{}: {difference}", scenario["name"]));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ\n{}", wrong.len(), recorded.len(), wrong.join("\n"));
}
