//! Runs a scenario of FORMAT.md through the public API, under virtual time, and writes the trace.
//!
//! How OTP's terms are said in Rust:
//!
//! - `{shutdown, X}` is `Exit::Normal`: no rule of a supervisor tells the two apart. What X was is remembered here.
//! - A kill by anybody is a drop of the task; the runner tells the line first, as everyone who kills should.
//! - A worker that does not trap exits runs under `part_manage`; one that does reads its device itself.
//! - What a typed API cannot say (two templates, a significant dynamic child, an id asked of a dynamic supervisor, a pid of
//!   a static one) is answered by the runner, in OTP's words.

use super::book::{Book, ProcId};
use super::scenario::{
    Outcome, children, id_of, is_significant, is_simple, restart_of, shutdown_of, type_of,
};
use super::virtual_time::{TaskId, World};
use backplane::{Device, DeviceId, Exit, Fault, FaultKind, Line, LinkMode, Message, Runtime};
use backplane_supervisor::{
    AutoShutdown, ChildInfo, ChildKind, ChildRef, ChildSpec, ChildState, Counts, DeleteChildError,
    DynamicHandle, DynamicSupervisor, Event, Gone, Init, Intensity, Report, Restart, RestartChildError,
    RestartStrategy, Row, RowState, Shutdown, SpecError, StartChildError, StartDynamicError, StartError,
    Starting, Supervisor, SupervisorHandle, TerminateChildError, check_child_specs,
};
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// A dynamic child's argument: its name.
type Name = Arc<str>;

#[derive(Clone)]
enum Handle {
    Listed(SupervisorHandle),
    Dynamic(DynamicHandle<Name>),
}

impl Handle {
    fn line(&self) -> Line {
        match self {
            Handle::Listed(handle) => handle.line(),
            Handle::Dynamic(handle) => handle.line(),
        }
    }
}

/// What a worker is told by the script.
#[derive(Default)]
struct Orders {
    waiting: VecDeque<Order>,
    waker: Option<Waker>,
}

enum Order {
    /// End with this reason.
    End(Value),
    /// An exit signal from a stranger.
    Signal(Value),
}

type Desk = Arc<Mutex<Orders>>;

type Answer = Arc<Mutex<Option<Value>>>;

struct Hold {
    path: String,
    attempt: u64,
    calls: Vec<Value>,
}

/// All that the runner knows, in one place, so that it is written down in the order in which it happens.
struct Stage {
    world: World,
    book: Book,
    /// Hears of every process's end.
    recorder: Device,
    procs: HashMap<DeviceId, ProcId>,
    lines: HashMap<ProcId, Line>,
    handles: HashMap<ProcId, Handle>,
    tasks: HashMap<ProcId, TaskId>,
    desks: HashMap<ProcId, Desk>,
    refs: HashMap<ProcId, ChildRef>,
    /// Reasons that an `Exit` cannot say.
    own_reasons: HashMap<ProcId, Value>,
    reasons: HashMap<ProcId, Value>,
    last_attempt: HashMap<ProcId, ProcId>,
    /// Dynamic children that their supervisor was stopping, in its order.
    stopped: HashMap<ProcId, Vec<ProcId>>,
    /// Reports of children stopped together, until all are there: OTP gives them in the order of terms.
    together: Vec<(ProcId, Value, usize)>,
    /// Nobody listens: who has started is seen in other ways.
    unheard: bool,
    /// What went wrong in the runner itself.
    broken: Option<String>,
    hold: Option<Hold>,
    held: Vec<Answer>,
}

#[derive(Clone)]
struct Script(Arc<Mutex<Stage>>);

fn exit_of(reason: &Value) -> Exit {
    match reason.as_str() {
        Some("normal") => Exit::Normal,
        Some("shutdown") => Exit::Shutdown,
        Some("killed") => Exit::Fault(Fault::killed()),
        _ => match reason["error"].as_str() {
            Some(words) => Exit::Fault(Fault::error(words)),
            None => Exit::Normal,
        },
    }
}

fn reason_of(exit: &Exit) -> Value {
    match exit {
        Exit::Normal => json!("normal"),
        Exit::Shutdown => json!("shutdown"),
        Exit::Fault(fault) => match fault.kind() {
            FaultKind::Killed => json!("killed"),
            FaultKind::Gone => json!("noproc"),
            _ => {
                let words = fault.message().unwrap_or("?");
                match serde_json::from_str(words) {
                    Ok(Value::Object(term)) => Value::Object(term),
                    _ => json!({ "error": words }),
                }
            }
        },
    }
}

fn refusal(error: &SpecError) -> Value {
    match error {
        SpecError::DuplicateId(id) => json!({ "duplicate_child_name": **id }),
        SpecError::SignificantNeverShutsDown(_) => {
            json!({"bad_combination": [{"auto_shutdown": "never"}, {"significant": true}]})
        }
        SpecError::SignificantPermanent(_) => {
            json!({"bad_combination": [{"restart": "permanent"}, {"significant": true}]})
        }
        // OTP has no promises of progress.
        error => json!(error.to_string()),
    }
}

fn start_reason(error: &StartError) -> Value {
    match error {
        StartError::StartFunction(fault) => json!({ "raise": fault.message().unwrap_or("?") }),
        StartError::Ended(exit) => reason_of(exit),
        StartError::Failed(fault) => reason_of(&Exit::Fault(fault.clone())),
        StartError::Child { id, error } => {
            json!({"shutdown": {"failed_to_start_child": {"id": **id, "reason": start_reason(error)}}})
        }
        StartError::Spec(error) => json!({ "start_spec": refusal(error) }),
        error => json!({ "other": error.to_string() }),
    }
}

impl Script {
    fn lock(&self) -> MutexGuard<'_, Stage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- specs ---------------------------------------------------------------------------------------------------

    fn child_spec(&self, parent: ProcId, child: &Value) -> ChildSpec {
        let path = format!("{}/{}", self.lock().book.procs[parent].path, id_of(child));
        let (script, node) = (self.clone(), child.clone());
        let spec = if self.is_silent(child) {
            ChildSpec::new(id_of(child), move |device| {
                script.clone().worker(&path, parent, &node["worker"], device, None)
            })
        } else if child["supervisor"].is_null() {
            ChildSpec::starting(id_of(child), move |device, starting| {
                script.clone().worker(&path, parent, &node["worker"], device, Some(starting))
            })
        } else {
            ChildSpec::supervisor(id_of(child), move || script.supervisor(&path, parent, &node["supervisor"]))
        };
        let spec = spec
            .restart(match restart_of(child) {
                "permanent" => Restart::Permanent,
                "transient" => Restart::Transient,
                _ => Restart::Temporary,
            })
            .kind(kind_of(child));
        // Left alone where the scenario says nothing, so that the defaults are put to the test.
        let spec = if child["shutdown"].is_null() { spec } else { spec.shutdown(shutdown(child)) };
        if is_significant(child) { spec.significant() } else { spec }
    }

    /// Where nobody listens, a worker that always starts at once says nothing of it, either: its first poll does.
    fn is_silent(&self, child: &Value) -> bool {
        let worker = &child["worker"];
        let fails = worker["start"].as_array().into_iter().flatten().any(|start| start != "ok");
        let starts = !fails && (worker["start_rest"].is_null() || worker["start_rest"] == "ok");
        self.lock().unheard && child["supervisor"].is_null() && starts && worker["start_delay_ms"].is_null()
    }

    /// The initialisation of a supervisor: called in its own task.
    fn supervisor(&self, path: &str, parent: ProcId, spec: &Value) -> Init {
        let proc = {
            let mut stage = self.lock();
            let proc = stage.book.attempt(path, Some(parent), is_simple(spec));
            stage.last_attempt.insert(parent, proc);
            stage.tasks.insert(proc, World::current_task());
            proc
        };
        self.attempt_made(proc);
        self.note(|stage| stage.book.init(proc));
        match self.init(proc, spec) {
            Ok(Plan::Listed(plan)) => plan.into(),
            Ok(Plan::Dynamic(plan)) => plan.into(),
            Err(why) => {
                self.lock().book.procs[proc].alive = false;
                why.map_or_else(Init::ignore, Init::fail)
            }
        }
    }

    /// What a supervisor is to be; or nothing; or a reason why it cannot be that a typed API has no words for.
    fn init(&self, proc: ProcId, spec: &Value) -> Result<Plan, Option<Value>> {
        let attempt = self.lock().book.procs[proc].attempt;
        match Outcome::of(&spec["init"], &Value::Null, attempt) {
            Outcome::Ok => {}
            Outcome::Ignore => return Err(None),
            failed => return Err(Some(failed.reason())),
        }
        let intensity = Intensity {
            restarts: spec["intensity"].as_u64().unwrap_or(1) as u32,
            period: Duration::from_secs(spec["period"].as_u64().unwrap_or(5)),
        };
        let script = self.clone();
        if is_simple(spec) {
            if let Some(auto) = spec["auto_shutdown"].as_str().filter(|auto| *auto != "never") {
                let why = [json!({ "auto_shutdown": auto }), json!({ "strategy": "simple_one_for_one" })];
                return Err(Some(json!({ "supervisor_data": { "bad_combination": why } })));
            }
            let [template] = children(spec) else {
                return Err(Some(json!({ "bad_start_spec": children(spec).len() })));
            };
            if is_significant(template) {
                let error = refusal(&SpecError::SignificantNeverShutsDown(Arc::from("")));
                return Err(Some(json!({ "start_spec": error })));
            }
            let plan = self.dynamic(proc, template).intensity(intensity);
            let plan = plan.greet(move |handle| script.greet(proc, Handle::Dynamic(handle.clone())));
            return Ok(Plan::Dynamic(plan));
        }
        let strategy = match spec["strategy"].as_str() {
            Some("one_for_all") => RestartStrategy::OneForAll,
            Some("rest_for_one") => RestartStrategy::RestForOne,
            _ => RestartStrategy::OneForOne,
        };
        let plan = Supervisor::new(strategy)
            .intensity(intensity)
            .auto_shutdown(auto_of(spec).unwrap_or(AutoShutdown::Never))
            .children(children(spec).iter().map(|child| self.child_spec(proc, child)))
            .greet(move |handle| script.greet(proc, Handle::Listed(handle.clone())));
        Ok(Plan::Listed(plan))
    }

    fn dynamic(&self, parent: ProcId, template: &Value) -> DynamicSupervisor<Name> {
        let above = self.lock().book.procs[parent].path.clone();
        let (script, node) = (self.clone(), template.clone());
        let path = move |name: &Name| format!("{above}/{name}");
        let plan = if self.is_silent(template) {
            DynamicSupervisor::new(move |device, name: Name| {
                script.clone().worker(&path(&name), parent, &node["worker"], device, None)
            })
        } else if template["supervisor"].is_null() {
            DynamicSupervisor::starting(move |device, starting, name: Name| {
                script.clone().worker(&path(&name), parent, &node["worker"], device, Some(starting))
            })
        } else {
            DynamicSupervisor::supervisors(move |name: Name| {
                script.supervisor(&path(&name), parent, &node["supervisor"])
            })
        };
        let plan =
            plan.child_id(id_of(template)).kind(kind_of(template)).restart(match restart_of(template) {
                "permanent" => Restart::Permanent,
                "transient" => Restart::Transient,
                _ => Restart::Temporary,
            });
        if template["shutdown"].is_null() { plan } else { plan.shutdown(shutdown(template)) }
    }

    /// A supervisor is about to start its children.
    fn greet(&self, proc: ProcId, handle: Handle) {
        let mut stage = self.lock();
        let line = handle.line();
        stage.recorder.link(&line, LinkMode::Monitor);
        stage.procs.insert(line.id(), proc);
        stage.lines.insert(proc, line);
        stage.handles.insert(proc, handle);
    }

    // ---- workers -------------------------------------------------------------------------------------------------

    /// A worker's start function: runs in the supervisor's task up to the future that it returns.
    fn worker(
        self,
        path: &str,
        parent: ProcId,
        behave: &Value,
        device: Device,
        starting: Option<Starting>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (proc, attempt) = {
            let mut stage = self.lock();
            let proc = stage.book.attempt(path, Some(parent), false);
            stage.last_attempt.insert(parent, proc);
            let line = device.line();
            stage.recorder.link(&line, LinkMode::Monitor);
            stage.procs.insert(line.id(), proc);
            stage.lines.insert(proc, line);
            (proc, stage.book.procs[proc].attempt)
        };
        self.attempt_made(proc);
        let outcome = Outcome::of(&behave["start"], &behave["start_rest"], attempt);
        if let Outcome::Raise(words) = &outcome {
            panic!("{words}");
        }
        let (script, behave) = (self, behave.clone());
        async move {
            if let Some(delay) = behave["start_delay_ms"].as_u64() {
                script.sleep(delay).await;
            }
            let failed = match outcome {
                Outcome::Ok => return script.work(proc, &behave, device, starting).await,
                Outcome::Ignore => {
                    starting.into_iter().for_each(Starting::ignore);
                    Ok(())
                }
                Outcome::Error(words) => {
                    starting.into_iter().for_each(|starting| starting.fail(&words));
                    Err(words)
                }
                Outcome::Crash(words) => {
                    let _ = device.manage(async { panic!("{words}") as Result<(), String> }).await;
                    return;
                }
                Outcome::Raise(_) => unreachable!("raised above"),
            };
            let _ = device.manage(async { failed }).describe().await;
        }
    }

    async fn sleep(&self, ms: u64) {
        let world = self.lock().world.clone();
        world.sleep_until(world.now() + Duration::from_millis(ms)).await;
    }

    async fn work(self, proc: ProcId, behave: &Value, mut device: Device, starting: Option<Starting>) {
        let supervisor = match &starting {
            Some(starting) => starting.supervisor(),
            None => {
                let stage = self.lock();
                stage.book.procs[proc].parent.and_then(|parent| Some(stage.lines.get(&parent)?.id()))
            }
        };
        if self.lock().unheard {
            self.note(|stage| stage.book.started(proc));
        }
        let done = move || drop(starting.map(Starting::done));
        let desk = Desk::default();
        {
            let mut stage = self.lock();
            stage.desks.insert(proc, Arc::clone(&desk));
            stage.tasks.insert(proc, World::current_task());
        }
        if behave["trap_exit"] != true {
            let waiting = async move {
                done();
                loop {
                    match order(&desk).await {
                        Order::Signal(reason) if reason == "normal" => {}
                        Order::End(reason) | Order::Signal(reason) => return Ok::<_, String>(reason),
                    }
                }
            };
            if let Ok((device, reason)) = device.part_manage(waiting).await {
                self.lock().own_reasons.insert(proc, reason.clone());
                device.disconnect(exit_of(&reason));
            }
            return;
        }
        done();
        let reason = loop {
            let signal = match next(&desk, &mut device).await {
                Next::Order(Order::End(reason)) => break reason,
                Next::Order(Order::Signal(reason)) => {
                    self.note(|stage| stage.book.exit_signal(proc, &reason, "other"));
                    continue;
                }
                Next::Message(Message::Shutdown(from)) if Some(from) == supervisor => json!("shutdown"),
                Next::Message(Message::Disconnect(news)) if Some(news.device) == supervisor => {
                    let mut stage = self.lock();
                    stage.hear_deaths();
                    let parent =
                        stage.procs.get(&news.device).and_then(|proc| stage.reasons.get(proc)).cloned();
                    parent.unwrap_or_else(|| reason_of(&news.exit))
                }
                Next::Message(_) => continue,
            };
            self.note(|stage| stage.book.exit_signal(proc, &signal, "parent"));
            if behave["on_shutdown"] != "ignore" {
                if let Some(delay) = behave["stop_delay_ms"].as_u64() {
                    self.sleep(delay).await;
                }
                break if behave["stop_reason"].is_null() { signal } else { behave["stop_reason"].clone() };
            }
        };
        self.lock().own_reasons.insert(proc, reason.clone());
        device.disconnect(exit_of(&reason));
    }

    // ---- writing down --------------------------------------------------------------------------------------------

    /// Writes something down, after the deaths that came before it.
    fn note(&self, what: impl FnOnce(&mut Stage)) {
        let mut stage = self.lock();
        stage.report_together();
        stage.see_started();
        stage.hear_deaths();
        what(&mut stage);
    }

    /// The hook of the whole tree. What it does wrong must not be lost: a panic in a hook is nobody's.
    fn hook(&self, report: &Report) {
        let heard = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.hear(report)));
        if let Err(panic) = heard {
            let words = panic.downcast_ref::<String>().cloned();
            let words = words.or_else(|| panic.downcast_ref::<&str>().map(|words| (*words).to_owned()));
            self.lock().broken = Some(words.unwrap_or_default());
        }
    }

    fn hear(&self, report: &Report) {
        if let Event::ShutdownError { exit, count: Some(count) } = &report.event {
            return self.hear_together(report, exit, *count);
        }
        self.note(|stage| {
            let sup = stage.procs[&report.supervisor_device];
            let last = stage.last_attempt.get(&sup).copied();
            let proc = report.device.and_then(|device| stage.procs.get(&device).copied());
            let name = |stage: &Stage, proc: Option<ProcId>| match (&report.child, proc) {
                (Some(child), _) => child.to_string(),
                (None, Some(proc)) => {
                    let path = &stage.book.procs[proc].path;
                    path[path.rfind('/').map_or(0, |at| at + 1)..].to_owned()
                }
                (None, None) => "?".to_owned(),
            };
            match &report.event {
                Event::Started => {
                    let proc = last.unwrap();
                    stage.book.started(proc);
                }
                Event::Ignored => stage.book.ignored(last.unwrap()),
                Event::StartFailed(error) => stage.book.start_failed(last.unwrap(), &start_reason(error)),
                Event::StartError(error) => {
                    let name = name(stage, last);
                    stage.book.report(sup, "start_error", json!(name), &start_reason(error), None);
                }
                Event::Ended { stopped: true, .. } => stage.stopped.entry(sup).or_default().extend(proc),
                Event::ChildTerminated(_) => {
                    let (name, reason) = (name(stage, proc), stage.reasons[&proc.unwrap()].clone());
                    stage.book.report(sup, "child_terminated", json!(name), &reason, None);
                }
                Event::ShutdownError { count: None, .. } => {
                    let (name, reason) = (name(stage, proc), stage.reasons[&proc.unwrap()].clone());
                    stage.book.report(sup, "shutdown_error", json!(name), &reason, None);
                }
                Event::GaveUp => {
                    let name = name(stage, proc);
                    stage.book.gave_up(sup, &name);
                }
                _ => {}
            }
        });
    }

    /// One exit can stand for several of OTP's reasons: {shutdown, X} and normal.
    fn hear_together(&self, report: &Report, exit: &Exit, count: usize) {
        let mut stage = self.lock();
        stage.hear_deaths();
        let sup = stage.procs[&report.supervisor_device];
        let mut reasons: Vec<(Value, usize)> = Vec::new();
        for proc in stage.stopped.get(&sup).into_iter().flatten() {
            let reason = &stage.reasons[proc];
            if exit_of(reason) == *exit {
                match reasons.iter_mut().find(|(known, _)| known == reason) {
                    Some((_, count)) => *count += 1,
                    None => reasons.push((reason.clone(), 1)),
                }
            }
        }
        assert_eq!(reasons.iter().map(|(_, count)| count).sum::<usize>(), count, "all are counted");
        stage.together.extend(reasons.into_iter().map(|(reason, count)| (sup, reason, count)));
    }

    // ---- holding a start attempt up ------------------------------------------------------------------------------

    fn attempt_made(&self, proc: ProcId) {
        let mut stage = self.lock();
        let (path, attempt) =
            (stage.book.procs[proc].path.clone(), u64::from(stage.book.procs[proc].attempt));
        let Some(hold) = stage.hold.take_if(|hold| hold.path == path && hold.attempt == attempt) else {
            return;
        };
        let Some(sup) = stage.book.procs[proc].parent else { return };
        drop(stage);
        for call in hold.calls {
            let answer = self.held_call(sup, &call);
            self.lock().held.push(answer);
        }
    }

    fn held_call(&self, sup: ProcId, call: &Value) -> Answer {
        let now = |value| Arc::new(Mutex::new(Some(value)));
        let mut stage = self.lock();
        stage.see_started();
        stage.hear_deaths();
        if !stage.book.procs[sup].started {
            return now(json!("refused"));
        }
        if call["op"] == "crash" {
            let proc = stage.book.live(call["path"].as_str().unwrap());
            return match proc {
                None => now(json!("no_process")),
                Some(proc) if stage.book.procs[proc].parent != Some(sup) => now(json!("refused")),
                Some(proc) => {
                    drop(stage);
                    self.end(proc, &call["reason"]);
                    now(json!("ok"))
                }
            };
        }
        if stage.book.current.get(call["sup"].as_str().unwrap()) != Some(&sup) {
            return now(json!("refused"));
        }
        drop(stage);
        self.call(sup, call)
    }

    // ---- ending processes ----------------------------------------------------------------------------------------

    /// Ends a worker with a reason, or any process by a kill, and returns when it is dead.
    fn end(&self, proc: ProcId, reason: &Value) {
        if reason == "kill" {
            return self.kill(proc);
        }
        let (desk, task, world) = {
            let stage = self.lock();
            (stage.desks.get(&proc).cloned(), stage.tasks.get(&proc).copied(), stage.world.clone())
        };
        if let (Some(desk), Some(task)) = (desk, task) {
            give(&desk, Order::End(reason.clone()));
            world.run_task(task);
        }
        self.note(|_| {});
    }

    fn kill(&self, proc: ProcId) {
        let (line, task, world) = {
            let stage = self.lock();
            (stage.lines[&proc], stage.tasks.get(&proc).copied(), stage.world.clone())
        };
        line.condemn();
        if let Some(task) = task {
            world.kill(task);
        }
        self.note(|_| {});
    }

    // ---- calls ---------------------------------------------------------------------------------------------------

    /// Puts a call into the supervisor's inbox, now; the answer comes when it comes.
    fn call(&self, sup: ProcId, step: &Value) -> Answer {
        let handle = self.lock().handles[&sup].clone();
        let script = self.clone();
        let id = step["id"].as_str().unwrap_or_default();
        let answer: Pin<Box<dyn Future<Output = Value> + Send>> =
            match (&handle, step["op"].as_str().unwrap()) {
                (Handle::Listed(handle), "start_child") => {
                    let answer = handle.start_child(self.child_spec(sup, &step["child"]));
                    Box::pin(async move {
                        match answer.await {
                            Ok(line) => json!({ "ok": script.reference(line) }),
                            Err(StartChildError::AlreadyStarted(line)) => {
                                json!({ "error": { "already_started": script.reference(Some(line)) } })
                            }
                            Err(StartChildError::AlreadyPresent) => json!({ "error": "already_present" }),
                            Err(StartChildError::Refused(error)) => json!({ "error": refusal(&error) }),
                            Err(StartChildError::Failed(error)) => {
                                json!({ "error": { "start": start_reason(&error) } })
                            }
                            Err(StartChildError::Gone(gone)) => exit(&gone),
                        }
                    })
                }
                (Handle::Dynamic(handle), "start_child") => {
                    let answer = handle.start_child(Name::from(step["name"].as_str().unwrap()));
                    Box::pin(async move {
                        match answer.await {
                            Ok(child) => json!({ "ok": script.reference(child.map(|child| child.line())) }),
                            Err(StartDynamicError::Failed(error)) => {
                                json!({ "error": { "start": start_reason(&error) } })
                            }
                            Err(StartDynamicError::Full(_)) => json!({ "error": "full" }),
                            Err(StartDynamicError::Gone(gone)) => exit(&gone),
                        }
                    })
                }
                (_, "which_children") => {
                    let simple = matches!(handle, Handle::Dynamic(_));
                    let answer = which(&handle);
                    Box::pin(async move {
                        match answer.await {
                            Ok(rows) => script.rows(rows, simple),
                            Err(gone) => exit(&gone),
                        }
                    })
                }
                (_, "count_children") => {
                    let answer = count(&handle);
                    Box::pin(async move {
                        match answer.await {
                            Ok(counts) => counted(counts),
                            Err(gone) => exit(&gone),
                        }
                    })
                }
                (Handle::Listed(handle), "get_childspec") => {
                    let answer = handle.get_child_spec(id);
                    Box::pin(async move {
                        match answer.await {
                            Ok(Some(info)) => told(&info),
                            Ok(None) => json!({ "error": "not_found" }),
                            Err(gone) => exit(&gone),
                        }
                    })
                }
                (Handle::Dynamic(handle), "get_childspec") => {
                    let (answer, id) = (handle.get_child_spec(), id.to_owned());
                    Box::pin(async move {
                        match answer.await {
                            Ok(info) if *info.id == *id => told(&info),
                            Ok(_) => json!({ "error": "not_found" }),
                            Err(gone) => exit(&gone),
                        }
                    })
                }
                (Handle::Listed(handle), "terminate_child") => {
                    // To a supervisor of listed children a pid is only an unknown id.
                    let answer =
                        handle.terminate_child(if step["pid_of"].is_null() { id } else { "<0.1.0>" });
                    Box::pin(async move { terminated(answer.await) })
                }
                (Handle::Dynamic(handle), "terminate_child") if !step["pid_of"].is_null() => {
                    let child = {
                        let stage = self.lock();
                        let proc = stage.book.current[step["pid_of"].as_str().unwrap()];
                        stage.refs.get(&proc).copied()
                    };
                    match child {
                        Some(child) => {
                            let answer = handle.terminate_child(child);
                            Box::pin(async move { terminated(answer.await) })
                        }
                        // A child of a static supervisor: a stranger.
                        None => {
                            let proc = self.lock().book.current[step["pid_of"].as_str().unwrap()];
                            let alive = self.lock().book.procs[proc].alive;
                            let answer = handle.count_children();
                            Box::pin(async move {
                                match answer.await {
                                    Ok(_) if alive => json!({ "error": "not_found" }),
                                    Ok(_) => json!("ok"),
                                    Err(gone) => exit(&gone),
                                }
                            })
                        }
                    }
                }
                (Handle::Dynamic(handle), _) => {
                    let answer = handle.count_children();
                    Box::pin(async move {
                        match answer.await {
                            Ok(_) => json!({ "error": "simple_one_for_one" }),
                            Err(gone) => exit(&gone),
                        }
                    })
                }
                (Handle::Listed(handle), "restart_child") => {
                    let answer = handle.restart_child(id);
                    Box::pin(async move {
                        match answer.await {
                            Ok(line) => json!({ "ok": script.reference(line) }),
                            Err(RestartChildError::Running) => json!({ "error": "running" }),
                            Err(RestartChildError::Restarting) => json!({ "error": "restarting" }),
                            Err(RestartChildError::NotFound) => json!({ "error": "not_found" }),
                            Err(RestartChildError::Failed(error)) => {
                                json!({ "error": { "start": start_reason(&error) } })
                            }
                            Err(RestartChildError::Gone(gone)) => exit(&gone),
                        }
                    })
                }
                (Handle::Listed(handle), "delete_child") => {
                    let answer = handle.delete_child(id);
                    Box::pin(async move {
                        match answer.await {
                            Ok(()) => json!("ok"),
                            Err(DeleteChildError::Running) => json!({ "error": "running" }),
                            Err(DeleteChildError::Restarting) => json!({ "error": "restarting" }),
                            Err(DeleteChildError::NotFound) => json!({ "error": "not_found" }),
                            Err(DeleteChildError::Gone(gone)) => exit(&gone),
                        }
                    })
                }
                (_, op) => panic!("unknown op {op}"),
            };
        let world = self.lock().world.clone();
        world.ask(answer)
    }

    fn reference(&self, line: Option<Line>) -> Value {
        let stage = self.lock();
        line.map_or(Value::Null, |line| json!(stage.book.procs[stage.procs[&line.id()]].reference()))
    }

    fn rows(&self, rows: Vec<Row>, simple: bool) -> Value {
        let stage = self.lock();
        let mut shown: Vec<(Option<(&str, u32)>, Value)> = Vec::new();
        for row in &rows {
            let proc = match row.state {
                RowState::Running(line) => Some(&stage.book.procs[stage.procs[&line.id()]]),
                RowState::Restarting | RowState::Down => None,
            };
            let child = match (proc, row.state) {
                (Some(proc), _) => json!(proc.reference()),
                (None, RowState::Restarting) => json!("restarting"),
                (None, _) => json!("undefined"),
            };
            let place = proc.map(|proc| (proc.path.as_str(), proc.attempt));
            let id = row.id.as_deref();
            shown.push((place, json!({ "id": id, "child": child, "type": row.kind.to_string() })));
        }
        if simple {
            shown.sort_by_key(|(place, _)| *place);
        }
        shown.into_iter().map(|(_, row)| row).collect()
    }

    /// Which child reference names which process by now.
    fn learn_refs(&self) {
        let pools: Vec<DynamicHandle<Name>> = {
            let stage = self.lock();
            let live = stage.handles.iter().filter(|(proc, _)| stage.book.procs[**proc].alive);
            live.filter_map(|(_, handle)| match handle {
                Handle::Dynamic(handle) => Some(handle.clone()),
                Handle::Listed(_) => None,
            })
            .collect()
        };
        for handle in pools {
            let world = self.lock().world.clone();
            let answer = world.ask(handle.which_children());
            world.settle();
            let rows = answer.lock().unwrap().take();
            let mut stage = self.lock();
            for child in rows.into_iter().flatten().flatten().filter_map(|row| row.child()) {
                if let Some(proc) = stage.procs.get(&child.line().id()).copied() {
                    stage.refs.insert(proc, child);
                }
            }
        }
    }

    fn tree(&self, sup: ProcId) -> Value {
        let (handle, world) = {
            let stage = self.lock();
            (stage.handles[&sup].clone(), stage.world.clone())
        };
        let (rows, counts) = (world.ask(which(&handle)), world.ask(count(&handle)));
        world.settle();
        let rows = rows.lock().unwrap().take().unwrap().unwrap();
        let counts = counts.lock().unwrap().take().unwrap().unwrap();
        let mut below = HashMap::new();
        for row in &rows {
            if let RowState::Running(line) = row.state {
                let (proc, reference) = {
                    let stage = self.lock();
                    let proc = stage.procs[&line.id()];
                    (proc, stage.book.procs[proc].reference())
                };
                let is_supervisor = self.lock().handles.contains_key(&proc);
                if is_supervisor && line.is_alive() {
                    below.insert(reference, self.tree(proc));
                }
            }
        }
        let mut shown = self.rows(rows, matches!(handle, Handle::Dynamic(_)));
        for row in shown.as_array_mut().unwrap() {
            if let Some(sub) = row["child"].as_str().and_then(|child| below.remove(child)) {
                row["sub"] = sub;
            }
        }
        let reference = self.lock().book.procs[sup].reference();
        json!({ "sup": reference, "count": counted(counts), "children": shown })
    }

    // ---- steps ---------------------------------------------------------------------------------------------------

    fn settle(&self) {
        let world = self.lock().world.clone();
        world.settle();
        self.note(|stage| stage.stopped.clear());
        if let Some(words) = self.lock().broken.take() {
            panic!("the runner's hook: {words}");
        }
    }

    fn step(&self, step: &Value, tick: u64, holder: &Device) -> Value {
        let live = |path: &Value| path.as_str().and_then(|path| self.lock().book.live(path));
        match step["op"].as_str().unwrap() {
            "crash" | "stop" => {
                let Some(proc) = live(&step["path"]) else { return json!("no_process") };
                let reason = if step["reason"].is_null() { json!("normal") } else { step["reason"].clone() };
                let handle = self.lock().handles.get(&proc).cloned();
                match handle.filter(|_| reason != "kill") {
                    None => self.end(proc, &reason),
                    Some(handle) => {
                        let world = self.lock().world.clone();
                        self.lock().own_reasons.insert(proc, reason.clone());
                        let stopped = match handle {
                            Handle::Listed(handle) => world.ask(handle.stop(exit_of(&reason))),
                            Handle::Dynamic(handle) => world.ask(handle.stop(exit_of(&reason))),
                        };
                        self.settle();
                        assert!(matches!(*stopped.lock().unwrap(), Some(Ok(_))), "a stop is answered");
                    }
                }
                json!("ok")
            }
            "signal" => {
                let Some(proc) = live(&step["path"]) else { return json!("no_process") };
                let (reason, stranger) = (&step["reason"], Device::new());
                let desk = self.lock().desks.get(&proc).cloned();
                if reason == "kill" {
                    self.kill(proc);
                } else if let Some(desk) = desk {
                    give(&desk, Order::Signal(reason.clone()));
                } else {
                    let line = self.lock().lines[&proc];
                    line.shutdown(stranger.id());
                }
                json!("ok")
            }
            "sleep" => {
                let world = self.lock().world.clone();
                world.advance(Duration::from_millis(step["ticks"].as_u64().unwrap() * tick));
                json!("ok")
            }
            "stop_tree" => {
                let Some(root) = self.lock().book.live("root") else { return json!("no_process") };
                let line = self.lock().lines[&root];
                line.shutdown(holder.id());
                json!("ok")
            }
            "check_childspecs" => {
                let specs: Vec<ChildSpec> =
                    step["specs"].as_array().unwrap().iter().map(|child| self.child_spec(0, child)).collect();
                match check_child_specs(&specs, auto_of(step)) {
                    Ok(()) => json!("ok"),
                    Err(error) => json!({ "error": refusal(&error) }),
                }
            }
            "crash_many" => {
                let deaths = step["deaths"].as_array().unwrap();
                let procs: Option<Vec<ProcId>> = deaths.iter().map(|death| live(&death["path"])).collect();
                let Some(procs) = procs.filter(|_| live(&step["sup"]).is_some()) else {
                    return json!("no_process");
                };
                // The executor runs the dying only, so the supervisor stands still.
                for (proc, death) in procs.into_iter().zip(deaths) {
                    self.end(proc, &death["reason"]);
                }
                json!("ok")
            }
            "crash_with_calls" => {
                let Some(proc) = live(&step["path"]) else { return json!("no_process") };
                {
                    let mut stage = self.lock();
                    stage.held.clear();
                    stage.hold = Some(Hold {
                        path: step["hold"]["path"].as_str().unwrap().to_owned(),
                        attempt: step["hold"]["attempt"].as_u64().unwrap(),
                        calls: step["calls"].as_array().unwrap().clone(),
                    });
                }
                self.end(proc, &step["reason"]);
                self.settle();
                let mut stage = self.lock();
                if stage.hold.take().is_some() {
                    return json!("not_held");
                }
                let answers = std::mem::take(&mut stage.held);
                answers.iter().map(|answer| answer.lock().unwrap().take().unwrap_or_else(gone)).collect()
            }
            _ => {
                let path = step["sup"].as_str().unwrap();
                let sup = self.lock().book.current.get(path).copied();
                let Some(sup) = sup else { return gone() };
                if let Some(pid_of) = step["pid_of"].as_str()
                    && !self.lock().book.current.contains_key(pid_of)
                {
                    return json!("no_process");
                }
                let answer = self.call(sup, step);
                self.settle();
                answer.lock().unwrap().take().expect("a call is answered")
            }
        }
    }
}

impl Stage {
    fn report_together(&mut self) {
        let mut reports = std::mem::take(&mut self.together);
        reports.sort_by_key(|(_, reason, _)| (reason.is_object(), reason.to_string()));
        for (sup, reason, count) in reports {
            self.book.report(sup, "shutdown_error", Value::Null, &reason, Some(count));
        }
    }

    /// Where nobody listens, a supervisor that has started is seen in the snapshot of the one above.
    fn see_started(&mut self) {
        if !self.unheard {
            return;
        }
        let snapshots = self.handles.values().filter_map(|handle| match handle {
            Handle::Listed(handle) => handle.snapshot().ok(),
            Handle::Dynamic(handle) => handle.snapshot().ok(),
        });
        let running = snapshots.flat_map(|snapshot| snapshot.children);
        let running = running.filter(|child| child.state == ChildState::Running);
        let known = running.filter_map(|child| self.procs.get(&child.device?).copied());
        let new = |proc: &ProcId| !self.book.procs[*proc].started && self.handles.contains_key(proc);
        let mut started: Vec<ProcId> = known.filter(new).collect();
        // Those below first, as they start.
        started.sort_by_key(|proc| std::cmp::Reverse(*proc));
        started.into_iter().for_each(|proc| self.book.started(proc));
    }

    fn hear_deaths(&mut self) {
        while let Some(message) = self.recorder.try_receive() {
            let Message::Disconnect(news) = message else { continue };
            let Some(proc) = self.procs.get(&news.device).copied() else { continue };
            let reason = match (&news.exit, self.own_reasons.get(&proc)) {
                (Exit::Fault(fault), _) if fault.kind() == FaultKind::Killed => json!("killed"),
                (_, Some(reason)) => reason.clone(),
                (Exit::Fault(fault), None) => match fault.kind() {
                    FaultKind::Cascade(from) => {
                        let parent = self.procs.get(&from).and_then(|parent| self.reasons.get(parent));
                        parent.cloned().unwrap_or_else(|| reason_of(&news.exit))
                    }
                    _ => reason_of(&news.exit),
                },
                (exit, None) => reason_of(exit),
            };
            self.reasons.insert(proc, reason.clone());
            if self.book.procs[proc].started && self.book.procs[proc].alive {
                self.book.terminated(proc, &reason);
            }
        }
    }
}

enum Plan {
    Listed(Supervisor),
    Dynamic(DynamicSupervisor<Name>),
}

fn auto_of(spec: &Value) -> Option<AutoShutdown> {
    Some(match spec["auto_shutdown"].as_str()? {
        "any_significant" => AutoShutdown::AnySignificant,
        "all_significant" => AutoShutdown::AllSignificant,
        _ => AutoShutdown::Never,
    })
}

fn kind_of(child: &Value) -> ChildKind {
    if type_of(child) == "supervisor" { ChildKind::Supervisor } else { ChildKind::Worker }
}

fn shutdown(child: &Value) -> Shutdown {
    match shutdown_of(child) {
        Value::Number(ms) => Shutdown::Timeout(Duration::from_millis(ms.as_u64().unwrap())),
        text if text == "infinity" => Shutdown::Infinity,
        _ => Shutdown::BrutalKill,
    }
}

/// The call failed, for the supervisor had ended or did so before it came to answer.
fn exit(gone: &Gone) -> Value {
    gone.exit().map_or_else(self::gone, |exit| json!({ "exit": reason_of(exit) }))
}

fn gone() -> Value {
    json!({ "exit": "noproc" })
}

fn which(handle: &Handle) -> Pin<Box<dyn Future<Output = Result<Vec<Row>, Gone>> + Send>> {
    match handle {
        Handle::Listed(handle) => Box::pin(handle.which_children()),
        Handle::Dynamic(handle) => Box::pin(handle.which_children()),
    }
}

fn count(handle: &Handle) -> Pin<Box<dyn Future<Output = Result<Counts, Gone>> + Send>> {
    match handle {
        Handle::Listed(handle) => Box::pin(handle.count_children()),
        Handle::Dynamic(handle) => Box::pin(handle.count_children()),
    }
}

fn counted(counts: Counts) -> Value {
    json!({
        "specs": counts.specs, "active": counts.active, "supervisors": counts.supervisors, "workers": counts.workers,
    })
}

fn told(info: &ChildInfo) -> Value {
    let shutdown = match info.shutdown {
        Shutdown::BrutalKill => json!("brutal_kill"),
        Shutdown::Timeout(timeout) => json!(timeout.as_millis() as u64),
        Shutdown::Infinity => json!("infinity"),
    };
    let restart = match info.restart {
        Restart::Permanent => "permanent",
        Restart::Transient => "transient",
        Restart::Temporary => "temporary",
    };
    json!({ "ok": {
        "id": &*info.id, "type": info.kind.to_string(), "restart": restart,
        "significant": info.significant, "shutdown": shutdown,
    } })
}

fn terminated(answer: Result<(), TerminateChildError>) -> Value {
    match answer {
        Ok(()) => json!("ok"),
        Err(TerminateChildError::NotFound) => json!({ "error": "not_found" }),
        Err(TerminateChildError::Gone(gone)) => exit(&gone),
    }
}

fn give(desk: &Desk, order: Order) {
    let mut orders = desk.lock().unwrap();
    orders.waiting.push_back(order);
    let waker = orders.waker.take();
    drop(orders);
    if let Some(waker) = waker {
        waker.wake();
    }
}

fn poll_order(desk: &Desk, cx: &mut Context<'_>) -> Poll<Order> {
    let mut orders = desk.lock().unwrap();
    match orders.waiting.pop_front() {
        Some(order) => Poll::Ready(order),
        None => {
            orders.waker = Some(cx.waker().clone());
            Poll::Pending
        }
    }
}

async fn order(desk: &Desk) -> Order {
    poll_fn(|cx| poll_order(desk, cx)).await
}

enum Next {
    Order(Order),
    Message(Message),
}

async fn next(desk: &Desk, device: &mut Device) -> Next {
    poll_fn(|cx| {
        if let Poll::Ready(order) = poll_order(desk, cx) {
            return Poll::Ready(Next::Order(order));
        }
        device.poll_receive(cx).map(Next::Message)
    })
    .await
}

/// The trace of a scenario.
pub fn run(scenario: &Value) -> Value {
    run_with(scenario, false)
}

/// The same where nobody listens, so that supervisors do in one turn what nobody hears of. What only a listener can know is
/// not in it; see [`told_by_others`].
#[allow(dead_code)]
pub fn run_unheard(scenario: &Value) -> Value {
    told_by_others(&run_with(scenario, true))
}

/// What of a trace can be known without a listener.
#[allow(dead_code)]
pub fn told_by_others(trace: &Value) -> Value {
    let mut trace = trace.clone();
    let (start, shutdown) = (trace["start"].take(), trace["shutdown"].take());
    let steps = trace["steps"].take();
    let known = |mut part: Value| {
        for list in ["events", "orphans"] {
            if let Some(events) = part[list].as_array_mut() {
                events.retain(|event| {
                    matches!(event["ev"].as_str(), Some("init" | "started" | "terminated" | "exit_signal"))
                });
            }
        }
        part
    };
    trace["start"] = known(start);
    trace["shutdown"] = known(shutdown);
    trace["steps"] = steps.as_array().into_iter().flatten().cloned().map(known).collect();
    trace
}

fn run_with(scenario: &Value, unheard: bool) -> Value {
    let world = World::new();
    let script = Script(Arc::new(Mutex::new(Stage {
        world: world.clone(),
        book: Book::default(),
        recorder: Device::new(),
        procs: HashMap::new(),
        lines: HashMap::new(),
        handles: HashMap::new(),
        tasks: HashMap::new(),
        desks: HashMap::new(),
        refs: HashMap::new(),
        own_reasons: HashMap::new(),
        reasons: HashMap::new(),
        last_attempt: HashMap::new(),
        stopped: HashMap::new(),
        together: Vec::new(),
        unheard,
        broken: None,
        hold: None,
        held: Vec::new(),
    })));
    let holder = Device::new();
    let spec = &scenario["root"];
    let root = script.lock().book.attempt("root", None, is_simple(spec));
    script.note(|stage| stage.book.init(root));
    let hook = script.clone();
    let started = match script.init(root, spec) {
        Ok(Plan::Listed(plan)) => {
            let plan = if unheard { plan } else { plan.listen(move |report| hook.hook(report)) };
            Some(start(&script, root, plan.start_linked(world.clone(), &holder)))
        }
        Ok(Plan::Dynamic(plan)) => {
            let plan = if unheard { plan } else { plan.listen(move |report| hook.hook(report)) };
            Some(start(&script, root, plan.start_linked(world.clone(), &holder)))
        }
        Err(None) => None,
        Err(Some(reason)) => Some(Err(reason)),
    };
    let result = match started {
        None => {
            script.note(|stage| stage.book.ignored(root));
            json!("ignore")
        }
        Some(Err(reason)) => {
            script.note(|stage| stage.book.start_failed(root, &reason));
            json!({ "error": reason })
        }
        Some(Ok(())) => json!({ "ok": "root#1" }),
    };
    script.settle();
    let (events, orphans) = script.lock().book.take(&[]);
    let start = json!({ "result": result, "events": events, "orphans": orphans });
    let tick = scenario["tick_ms"].as_u64().unwrap_or(100);
    let mut steps = Vec::new();
    for step in scenario["steps"].as_array().into_iter().flatten() {
        let targets = script.lock().book.targets(step);
        let result = script.step(step, tick, &holder);
        script.settle();
        let (events, orphans) = script.lock().book.take(&targets);
        steps.push(json!({ "op": step["op"], "result": result, "events": events, "orphans": orphans }));
        script.learn_refs();
    }
    let alive = script.lock().book.procs[root].alive;
    let last = if alive { script.tree(root) } else { Value::Null };
    let result = script.step(&json!({ "op": "stop_tree" }), tick, &holder);
    script.settle();
    let (events, orphans) = script.lock().book.take(&[]);
    let leaked = script.lock().book.leaked();
    // Whoever is left in the book is left in the world, and nobody else.
    assert_eq!(world.tasks(), leaked.len(), "tasks left in {}", scenario["name"]);
    json!({
        "format": "otp-trace/1", "name": scenario["name"], "start": start, "steps": steps, "final": last,
        "shutdown": { "result": result, "events": events, "orphans": orphans }, "leaked": leaked,
    })
}

fn start<H: Send + 'static>(
    script: &Script,
    root: ProcId,
    starting: impl Future<Output = Result<H, StartError>> + Send + 'static,
) -> Result<(), Value> {
    let world = script.lock().world.clone();
    let marked = script.clone();
    let answer = world.ask(async move {
        let result = starting.await;
        if result.is_ok() {
            marked.note(|stage| stage.book.started(root));
        }
        result.map(drop)
    });
    // The first poll spawns the supervisor's task.
    world.step();
    script.lock().tasks.insert(root, world.last_spawned());
    world.settle();
    let answer = answer.lock().unwrap().take().expect("a start is answered");
    answer.map_err(|error| start_reason(&error))
}
