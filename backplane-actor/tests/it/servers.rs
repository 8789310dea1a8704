//! Actors with handlers, against OTP's `gen_server`: the numbers are those of the statements in the semantics.

use std::{
    convert::Infallible,
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use backplane::{Device, Disconnect, Exit, FaultKind, Runtime};
use backplane_actor::{
    Actor, Address, CallError, Context, DeadLetter, Down, Envelope, Handle, Mailbox, Options, QueueOnRestart,
    Reply, testing::Seeded,
};
use backplane_supervisor::{Intensity, RestartStrategy, Supervisor};

use crate::support::{Log, SECOND, story};

/// Does what each message says, and logs it.
#[derive(Default)]
struct Server {
    log: Log,
    fails_in: Option<&'static str>,
    traps: bool,
}

impl Server {
    fn new(log: &Log) -> Server {
        Server { log: log.clone(), ..Server::default() }
    }

    fn may_fail(&self, at: &str) -> Result<(), String> {
        match self.fails_in {
            Some(place) if place == at => Err(format!("failed in {at}")),
            _ => Ok(()),
        }
    }
}

#[derive(Clone)]
struct Note(&'static str);
struct Echo(u32);
struct Later(Reply<u32>);
struct StopWith(Exit);
struct Panics;
struct Fails;
struct Hangs;
struct Watch(backplane::Line, &'static str);
struct LinkWith(backplane::Line);
struct IdleAfter(u64);
struct Continue;

impl Actor for Server {
    type Messages = (
        Note,
        Echo,
        Later,
        StopWith,
        Panics,
        Fails,
        Hangs,
        Watch,
        LinkWith,
        IdleAfter,
        Continue,
        Down<&'static str>,
        Disconnect,
    );
    type Error = String;

    async fn init(&mut self, cx: &mut Context<Self>) -> Result<(), String> {
        self.may_fail("init")?;
        if self.traps {
            cx.trap_links();
        }
        Ok(())
    }

    async fn terminate(&mut self, exit: &Exit, _: &mut Context<Self>) {
        self.log.say(format!("terminate: {exit}"));
        assert!(self.fails_in != Some("terminate"), "in terminate");
    }
}

macro_rules! handles {
    ($Message:ty => $Reply:ty, |$me:ident, $message:pat_param, $cx:pat_param| $body:expr) => {
        impl Handle<$Message> for Server {
            type Reply = $Reply;

            async fn handle(
                &mut self,
                $message: $Message,
                $cx: &mut Context<Self>,
            ) -> Result<$Reply, String> {
                let $me = self;
                $body
            }
        }
    };
}

handles!(Note => (), |me, Note(words), _| {
    me.log.say(words);
    Ok(())
});
handles!(Echo => u32, |_me, Echo(n), _| Ok(n));
handles!(Later => (), |_me, Later(reply), cx| {
    let address = cx.upgrade().ok_or("nobody there")?;
    // From a second message of its own.
    reply.send(7);
    drop(address);
    Ok(())
});
handles!(StopWith => u32, |me, StopWith(exit), cx| {
    cx.stop(exit);
    me.log.say("stopping");
    Ok(1)
});
handles!(Panics => u32, |_me, Panics, _| panic!("out of beans"));
handles!(Fails => u32, |me, Fails, _| {
    me.log.say("fails");
    Err("no beans".into())
});
handles!(Hangs => u32, |_me, Hangs, _| pending().await);
handles!(Watch => (), |_me, Watch(line, tag), cx| {
    cx.monitor(&line, tag);
    Ok(())
});
handles!(LinkWith => (), |_me, LinkWith(line), cx| {
    cx.link(&line);
    Ok(())
});
handles!(IdleAfter => (), |_me, IdleAfter(seconds), cx| {
    cx.idle_after(SECOND * seconds as u32);
    Ok(())
});
handles!(Continue => (), |_me, Continue, cx| {
    cx.next(Note("continued"));
    Ok(())
});
handles!(Down<&'static str> => (), |me, Down { tag, news }, _| {
    me.log.say(format!("down {tag}: {}", news.exit));
    Ok(())
});
handles!(Disconnect => (), |me, news, _| {
    me.log.say(format!("exit: {}", news.exit));
    Ok(())
});

fn ended(result: Result<u32, CallError>) -> Exit {
    match result {
        Err(CallError::Ended(exit)) => exit,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_monitor_gives_one_down_whatever_the_reason_and_two_monitors_give_two_24_25() {
    story(|system, _| async move {
        let log = Log::default();
        let server = system.start(Server::new(&log));
        let target = Device::new();
        server.call(Watch(target.line(), "a")).await.unwrap();
        server.call(Watch(target.line(), "b")).await.unwrap();
        target.disconnect(Exit::Normal);
        server.call(Echo(1)).await.unwrap();
        server.call(Echo(1)).await.unwrap();
        assert_eq!(log.all(), ["down a: normal", "down b: normal"]);
    });
}

#[test]
fn a_monitor_of_the_dead_says_so_at_once_26() {
    story(|system, _| async move {
        let log = Log::default();
        let server = system.start(Server::new(&log));
        let gone = Device::new().line();
        server.call(Watch(gone, "gone")).await.unwrap();
        server.call(Echo(1)).await.unwrap();
        assert_eq!(log.all(), ["down gone: gone"]);
    });
}

#[test]
fn a_monitor_of_oneself_is_none_28() {
    story(|system, _| async move {
        let log = Log::default();
        let server = system.start(Server::new(&log));
        let me = server.line().unwrap();
        server.call(Watch(me, "me")).await.unwrap();
        server.stop(Exit::Normal);
        server.ended().await;
        assert_eq!(log.all(), ["terminate: normal"]);
    });
}

#[test]
fn after_demonitor_no_down_comes_and_flush_takes_out_the_one_that_has_29_30() {
    story(|system, _| async move {
        let log = Log::default();
        let inside = log.clone();
        let (a, b) = (Device::new(), Device::new());
        let (line_a, line_b) = (a.line(), b.line());
        let address = system.spawn(|mut mailbox: Mailbox<&'static str>| async move {
            let on_a = mailbox.monitor(&line_a, |_| "down a");
            let on_b = mailbox.monitor(&line_b, |_| "down b");
            inside.say(format!("{}", mailbox.demonitor(on_a)));
            inside.say(format!("{}", mailbox.demonitor(on_a)));
            // Both have ended by then.
            let _ = mailbox.receive_where(|words| *words == "ended").await;
            // It has fired; whether its news has been turned into a message or not, none comes.
            mailbox.demonitor_flush(on_b);
            while let Some(words) = mailbox.receive().await {
                inside.say(words);
            }
        });
        address.cast("first").await.unwrap();
        system.runtime().sleep_until(system.runtime().now() + SECOND).await;
        drop((a, b));
        address.cast("ended").await.unwrap();
        address.drain();
        address.ended().await;
        // What a selective receive has passed over was received: only `flush` in the lane is meant.
        let all = log.all();
        assert_eq!(all[..2], ["true", "false"]);
        assert!(!all.contains(&"down a".to_owned()));
    });
}

#[test]
fn a_linked_fault_takes_it_along_without_terminate_unless_it_traps_10_60() {
    story(|system, _| async move {
        for traps in [false, true] {
            let log = Log::default();
            let server = system.start(Server { traps, ..Server::new(&log) });
            let other = Device::new();
            server.call(LinkWith(other.line())).await.unwrap();
            drop(other);
            let call = server.call(Echo(1)).await;
            if traps {
                assert_eq!(call, Ok(1));
                // The news may have come after the call: it is handled before this one.
                server.call(Echo(1)).await.unwrap();
                assert_eq!(log.all(), ["exit: dropped"]);
            } else {
                let exit = server.ended().await.unwrap();
                assert!(matches!(exit.fault().unwrap().kind(), FaultKind::Cascade(_)));
                assert!(log.all().is_empty(), "{:?}", log.all());
            }
        }
    });
}

#[test]
fn a_clean_end_of_the_linked_does_no_harm_9() {
    story(|system, _| async move {
        let log = Log::default();
        let server = system.start(Server::new(&log));
        let other = Device::new();
        server.call(LinkWith(other.line())).await.unwrap();
        other.disconnect(Exit::Normal);
        assert_eq!(server.call(Echo(3)).await, Ok(3));
    });
}

#[test]
fn a_call_to_the_dead_fails_at_once_45() {
    story(|system, _| async move {
        let server = system.start(Server::default());
        server.stop(Exit::Normal);
        server.ended().await;
        assert_eq!(server.call(Echo(1)).forever().await, Err(CallError::Gone));
    });
}

#[test]
fn a_call_waits_five_seconds_and_the_server_goes_on_46() {
    story(|system, runtime| async move {
        let begin = runtime.now();
        let server = system.start(Server::default());
        assert_eq!(server.call(Hangs).await, Err(CallError::TimedOut));
        assert_eq!(runtime.since(begin), 5 * SECOND);
        assert!(server.is_open());
    });
}

/// Asks another when it has been busy for a while.
struct Busy(Address<Envelope<Server>>, Seeded);

impl Actor for Busy {
    type Messages = (Hangs,);
    type Error = Infallible;
}

impl Handle<Hangs> for Busy {
    type Reply = Duration;

    async fn handle(&mut self, _: Hangs, _: &mut Context<Self>) -> Result<Duration, Infallible> {
        let begin = self.1.now();
        self.1.sleep_until(begin + 4 * SECOND).await;
        assert_eq!(self.0.call(Hangs).await, Err(CallError::TimedOut));
        Ok(self.1.since(begin))
    }
}

#[test]
fn the_time_that_a_call_has_left_is_inherited_and_does_not_begin_anew() {
    story(|system, runtime| async move {
        let begin = runtime.now();
        let hangs = system.start(Server::default());
        let busy = system.start(Busy(hangs, runtime.clone()));
        // Both have given up at the same moment, and whose word comes first is chance.
        let first = busy.call(Hangs).await;
        assert!(first == Err(CallError::TimedOut) || first == Ok(5 * SECOND), "{first:?}");
        assert_eq!(runtime.since(begin), 5 * SECOND);
        // It had inherited one second; of twenty it takes its own five.
        assert_eq!(busy.call(Hangs).within(20 * SECOND).await, Ok(9 * SECOND));
        assert_eq!(runtime.since(begin), 14 * SECOND);
    });
}

/// Always has something to say to itself.
struct Restless(u64);
struct Again;

impl Actor for Restless {
    type Messages = (Again,);
    type Error = Infallible;
}

impl Handle<Again> for Restless {
    type Reply = ();

    async fn handle(&mut self, Again: Again, cx: &mut Context<Self>) -> Result<(), Infallible> {
        self.0 += 1;
        cx.next(Again);
        Ok(())
    }
}

#[test]
fn an_actor_that_always_goes_on_with_itself_lets_others_run_and_can_be_killed() {
    story(|system, _| async move {
        let restless = system.start(Restless(0));
        restless.cast(Again).await.unwrap();
        let killer = restless.clone();
        system.spawn(move |_: Mailbox<()>| async move { killer.kill() });
        assert!(restless.ended().await.unwrap().is_fault());
    });
}

#[test]
fn a_call_whose_server_ends_first_ends_with_its_reason_47() {
    story(|system, _| async move {
        for (exit, line) in [(Exit::Normal, "normal"), (Exit::Shutdown, "shutdown")] {
            let server = system.start(Server::default());
            let stop = server.call(StopWith(exit)).await;
            assert_eq!(stop, Ok(1));
            assert_eq!(server.ended().await.unwrap().to_string(), line);
        }
        let server = system.start(Server::default());
        assert_eq!(ended(server.call(Panics).await).to_string(), "panicked: out of beans");
        let server = system.start(Server::default());
        assert_eq!(ended(server.call(Fails).await).to_string(), "failed: no beans");
    });
}

#[test]
fn requests_behind_a_stop_hear_of_the_end_47() {
    story(|system, _| async move {
        let server = system.start(Server::default());
        let mut pending = backplane_actor::Pending::new();
        server.try_cast(StopWith(Exit::Shutdown)).unwrap();
        pending.add(1, server.call(Echo(1)));
        pending.add(2, server.call(Echo(2)));
        for (_, result) in pending.all().await {
            assert!(matches!(result, Err(CallError::Ended(Exit::Shutdown) | CallError::Gone)), "{result:?}");
        }
    });
}

#[test]
fn an_answer_that_was_sent_before_the_end_wins_48() {
    story(|system, _| async move {
        let address = system.spawn(|mut mailbox: Mailbox<Reply<u32>>| async move {
            if let Some(reply) = mailbox.receive().await {
                reply.send(4);
                panic!("afterwards");
            }
        });
        assert_eq!(address.ask(|reply| reply).await, Ok(4));
    });
}

/// Calls the next of its kind when it is called.
struct Chain(Option<backplane_actor::Address<backplane_actor::Envelope<Chain>>>);
struct Next(backplane_actor::Address<backplane_actor::Envelope<Chain>>);
struct Go;

impl Actor for Chain {
    type Messages = (Next, Go);
    type Error = String;
}

impl Handle<Next> for Chain {
    type Reply = ();

    async fn handle(&mut self, Next(next): Next, _: &mut Context<Self>) -> Result<(), String> {
        self.0 = Some(next);
        Ok(())
    }
}

impl Handle<Go> for Chain {
    type Reply = Result<u32, CallError>;

    async fn handle(&mut self, _: Go, _: &mut Context<Self>) -> Result<Self::Reply, String> {
        Ok(match &self.0 {
            // In a box: it holds the future of another of its kind.
            Some(next) => {
                let answer: std::pin::Pin<Box<dyn Future<Output = _> + Send>> =
                    Box::pin(next.call(Go).forever());
                answer.await.and_then(|answer| answer.map(|n| n + 1))
            }
            None => Ok(0),
        })
    }
}

#[test]
fn a_call_to_oneself_is_a_cycle_of_one_49() {
    story(|system, _| async move {
        let actor = system.start_with(Options::new().label("narcissus"), Chain(None));
        actor.call(Next(actor.clone())).await.unwrap();
        let error = actor.call(Go).forever().await.unwrap().unwrap_err();
        assert_eq!(error.to_string(), "a cycle of calls: narcissus calls narcissus");
        actor.stop(Exit::Normal);
    });
}

#[test]
fn a_cycle_of_calls_is_answered_at_once_and_named() {
    story(|system, runtime| async move {
        let begin = runtime.now();
        let [a, b, c] =
            ["a", "b", "c"].map(|name| system.start_with(Options::new().label(name), Chain(None)));
        for (from, to) in [(&a, &b), (&b, &c), (&c, &a)] {
            from.call(Next(to.clone())).await.unwrap();
        }
        let error = a.call(Go).forever().await.unwrap().unwrap_err();
        assert_eq!(error.to_string(), "a cycle of calls: c calls a calls b calls c");
        assert_eq!(runtime.since(begin), std::time::Duration::ZERO);
        // A chain is none.
        c.stop(Exit::Normal);
        let end = system.start(Chain(None));
        b.call(Next(end)).await.unwrap();
        assert_eq!(a.call(Go).await, Ok(Ok(2)));
        a.stop(Exit::Normal);
    });
}

#[test]
fn a_deadline_is_inherited_along_a_chain_of_calls() {
    story(|system, runtime| async move {
        let (log, begin) = (Log::default(), runtime.now());
        let inside = log.clone();
        let end = system.spawn(move |mut mailbox: Mailbox<Reply<u32>>| async move {
            let mut held = Vec::new();
            while let Some(reply) = mailbox.receive().await {
                inside.say(format!("{:?}", reply.deadline().map(|at| at - begin)));
                held.push(reply);
            }
        });
        // It calls without any limit of its own.
        let middle = system.spawn(|mut mailbox: Mailbox<Reply<u32>>| async move {
            while let Some(reply) = mailbox.receive().await {
                let Ok(n) = end.ask(|reply| reply).forever().await else { continue };
                reply.send(n);
            }
        });
        let call = middle.ask(|reply| reply).within(2 * SECOND);
        assert_eq!(call.await, Err(CallError::TimedOut));
        assert_eq!(log.all(), ["Some(2s)"]);
    });
}

#[test]
fn an_answer_may_come_later_and_from_elsewhere_50() {
    story(|system, _| async move {
        let server = system.start(Server::default());
        assert_eq!(server.ask(Later).await, Ok(7));
    });
}

#[test]
fn a_caller_that_goes_does_no_harm_51() {
    story(|system, _| async move {
        let server = system.start(Server::default());
        drop(server.call(Echo(1)));
        assert!(server.call(Hangs).within(SECOND).await.is_err());
        assert!(server.is_open());
    });
}

#[test]
fn a_cast_to_the_dead_gives_the_message_back_52() {
    // OTP says ok and drops it; we say so.
    story(|system, _| async move {
        let server = system.start(Server::default());
        server.stop(Exit::Normal);
        server.ended().await;
        assert_eq!(server.cast(Echo(9)).await.unwrap_err().into_inner().0, 9);
    });
}

#[test]
fn messages_casts_and_calls_of_one_sender_are_handled_in_order_53() {
    story(|system, _| async move {
        let log = Log::default();
        let server = system.start(Server::new(&log));
        server.cast(Note("a")).await.unwrap();
        server.call(Note("b")).await.unwrap();
        server.cast(Note("c")).await.unwrap();
        server.call(Echo(1)).await.unwrap();
        assert_eq!(log.all(), ["a", "b", "c"]);
    });
}

#[test]
fn terminate_runs_before_the_answer_of_the_message_that_stops_55() {
    story(|system, _| async move {
        let log = Log::default();
        let server = system.start(Server::new(&log));
        assert_eq!(server.call(StopWith(Exit::Normal)).await, Ok(1));
        assert_eq!(log.all(), ["stopping", "terminate: normal"]);
    });
}

#[test]
fn a_start_that_waits_hears_how_init_failed_56() {
    story(|system, _| async move {
        let failing = Server { fails_in: Some("init"), ..Server::default() };
        let exit = system.start_and_wait(Options::new(), failing).await.unwrap_err();
        assert_eq!(exit.to_string(), "failed: failed in init");
        let server = system.start_and_wait(Options::new(), Server::default()).await.unwrap();
        assert_eq!(server.call(Echo(2)).await, Ok(2));
    });
}

#[test]
fn stop_calls_terminate_and_the_end_is_the_one_asked_for_58_59() {
    story(|system, _| async move {
        let log = Log::default();
        let server = system.start(Server::new(&log));
        assert!(server.stop(Exit::Shutdown));
        assert_eq!(server.ended().await, Some(Exit::Shutdown));
        assert_eq!(log.all(), ["terminate: shutdown"]);
        assert!(!server.stop(Exit::Normal));
    });
}

#[test]
fn terminate_is_called_after_a_panic_and_an_error_59() {
    story(|system, _| async move {
        let log = Log::default();
        let server = system.start(Server::new(&log));
        server.cast(Panics).await.unwrap();
        server.ended().await;
        let server = system.start(Server::new(&log));
        server.cast(Fails).await.unwrap();
        server.ended().await;
        assert_eq!(log.all(), ["terminate: panicked: out of beans", "fails", "terminate: failed: no beans"]);
    });
}

struct Owns(Log, &'static str);
struct HoldAndPanic;

impl Drop for Owns {
    fn drop(&mut self) {
        self.0.say(format!("{} is dropped", self.1));
    }
}

impl Actor for Owns {
    type Messages = (HoldAndPanic,);
    type Error = Infallible;

    async fn terminate(&mut self, exit: &Exit, _: &mut Context<Self>) {
        self.0.say(format!("{} terminates: {exit}", self.1));
    }
}

impl Handle<HoldAndPanic> for Owns {
    type Reply = ();

    async fn handle(&mut self, _: HoldAndPanic, _: &mut Context<Self>) -> Result<(), Infallible> {
        let system = backplane_actor::System::new(Seeded::new(1));
        let (address, home) = system.prepare(Options::new());
        // Of the same type, and in the hands of who panics.
        let other = home.run_actor(Device::new(), Owns(self.0.clone(), "the other"));
        // What is declared first is dropped last.
        let _own = Owns(self.0.clone(), "what the handler has");
        let _all = (address, home, other);
        panic!("out of beans");
    }
}

#[test]
fn who_is_dropped_by_a_panic_is_not_who_panics() {
    story(|system, _| async move {
        let log = Log::default();
        let server = system.start(Owns(log.clone(), "the one"));
        let lost = server.call(HoldAndPanic).await;
        assert!(
            matches!(lost, Err(CallError::Ended(Exit::Fault(fault))) if fault.to_string().contains("out of beans"))
        );
        server.ended().await;
        assert_eq!(
            log.all(),
            [
                "the other is dropped",
                "what the handler has is dropped",
                "the one terminates: panicked: out of beans",
                "the one is dropped",
            ]
        );
    });
}

#[test]
fn terminate_is_not_called_on_a_kill_60() {
    story(|system, _| async move {
        let log = Log::default();
        let server = system.start(Server::new(&log));
        server.cast(Hangs).await.unwrap();
        server.kill();
        assert_eq!(server.ended().await.unwrap().fault().unwrap().kind(), FaultKind::Killed);
        assert!(log.all().is_empty());
    });
}

#[test]
fn a_terminate_that_fails_is_how_it_ends_63() {
    story(|system, _| async move {
        let server = system.start(Server { fails_in: Some("terminate"), ..Server::default() });
        server.stop(Exit::Normal);
        assert_eq!(server.ended().await.unwrap().to_string(), "panicked: in terminate");
    });
}

#[test]
fn a_continue_runs_before_anything_in_the_mailbox_64() {
    story(|system, _| async move {
        let log = Log::default();
        let server = system.start(Server::new(&log));
        server.suspend();
        server.try_cast(Continue).unwrap();
        server.try_cast(Note("waited")).unwrap();
        server.resume();
        server.call(Echo(1)).await.unwrap();
        assert_eq!(log.all(), ["continued", "waited"]);
    });
}

#[test]
fn an_idle_actor_stops_and_any_message_puts_it_off_64() {
    story(|system, runtime| async move {
        let begin = runtime.now();
        let server = system.start(Server::default());
        server.call(IdleAfter(3)).await.unwrap();
        runtime.sleep_until(begin + 2 * SECOND).await;
        server.call(Echo(1)).await.unwrap();
        assert_eq!(server.ended().await, Some(Exit::Normal));
        assert_eq!(runtime.since(begin), 5 * SECOND);
    });
}

#[test]
fn somebody_looks_inside_and_puts_something_else_there_also_while_it_is_suspended() {
    story(|system, _| async move {
        let (log, other) = (Log::default(), Log::default());
        let server = system.start(Server::new(&log));
        server.suspend();
        server.try_cast(Note("noted")).unwrap();
        let put = other.clone();
        let before = server.inspect(move |server| std::mem::replace(&mut server.log, put)).await.unwrap();
        before.say("looked");
        server.resume();
        server.call(Echo(1)).await.unwrap();
        assert_eq!((log.all(), other.all()), (vec!["looked".to_owned()], vec!["noted".to_owned()]));
    });
}

// ---- under a supervisor ------------------------------------------------------------------------------------------

#[test]
fn an_address_survives_a_restart_and_the_queue_is_kept_or_dropped() {
    for queue in [QueueOnRestart::Keep, QueueOnRestart::Drop] {
        story(|system, runtime| async move {
            let (log, lost) = (Log::default(), Log::default());
            let (inside, hook) = (log.clone(), lost.clone());
            let options = Options::new()
                .queue_on_restart(queue)
                .dead_letters(move |_, cause: DeadLetter| hook.say(format!("{cause:?}")));
            let (server, spec) = system.child("server", options, move || Server::new(&inside));
            let tree = Supervisor::new(RestartStrategy::OneForOne).child(spec);
            let handle = tree.start(runtime.clone()).await.unwrap();
            let first = server.line().unwrap();
            server.suspend();
            server.try_cast(Panics).unwrap();
            server.try_cast(Note("after")).unwrap();
            server.resume();
            // Its successor answers at the same address.
            while server.line().is_none_or(|line| line == first) {
                runtime.sleep_until(runtime.now() + SECOND).await;
            }
            assert_eq!(server.call(Echo(5)).await, Ok(5));
            match queue {
                QueueOnRestart::Keep => {
                    assert_eq!(log.all(), ["terminate: panicked: out of beans", "after"]);
                    assert_eq!(lost.all(), Vec::<String>::new());
                }
                QueueOnRestart::Drop => {
                    assert_eq!(log.all(), ["terminate: panicked: out of beans"]);
                    assert_eq!(lost.all(), ["Died"]);
                }
            }
            handle.stop(Exit::Shutdown).await.unwrap();
            drop(handle);
            assert!(!server.is_open());
            assert_eq!(server.call(Echo(1)).await, Err(CallError::Gone));
        });
    }
}

#[test]
fn the_message_that_killed_it_is_tried_again_so_many_times_and_then_buried() {
    story(|system, runtime| async move {
        let (tries, lost) = (Arc::new(AtomicU32::new(0)), Log::default());
        let (counted, hook) = (Arc::clone(&tries), lost.clone());
        let options =
            Options::new().retry(2).dead_letters(move |n: u32, cause| hook.say(format!("{n} {cause:?}")));
        let (address, spec) = system.child_process("fragile", options, move |mut mailbox: Mailbox<u32>| {
            let counted = Arc::clone(&counted);
            async move {
                while let Some(n) = mailbox.receive().await {
                    if n == 13 {
                        counted.fetch_add(1, Ordering::Relaxed);
                        panic!("thirteen");
                    }
                }
            }
        });
        let tree = Supervisor::new(RestartStrategy::OneForOne)
            .intensity(Intensity { restarts: 10, period: SECOND })
            .child(spec);
        let handle = tree.start(runtime.clone()).await.unwrap();
        for n in [1, 13, 2] {
            address.try_cast(n).unwrap();
        }
        runtime.sleep_until(runtime.now() + SECOND).await;
        assert_eq!(tries.load(Ordering::Relaxed), 3);
        assert_eq!(lost.all(), ["13 KilledIt"]);
        assert_eq!(address.load().normal, 0);
        handle.stop(Exit::Shutdown).await.unwrap();
    });
}

#[test]
fn a_call_being_handled_hears_of_the_death_and_one_that_waits_is_answered_by_the_successor() {
    story(|system, runtime| async move {
        let (server, spec) = system.child("server", Options::new(), Server::default);
        let tree = Supervisor::new(RestartStrategy::OneForOne).child(spec);
        let handle = tree.start(runtime.clone()).await.unwrap();
        let mut pending = backplane_actor::Pending::new();
        pending.add("handled", server.call(Panics));
        pending.add("waiting", server.call(Echo(6)));
        let mut all = pending.all().await;
        all.sort_by_key(|(key, _)| *key);
        assert!(
            matches!(&all[0].1, Err(CallError::Ended(exit)) if exit.to_string() == "panicked: out of beans")
        );
        assert_eq!(all[1].1, Ok(6));
        handle.stop(Exit::Shutdown).await.unwrap();
    });
}

#[test]
fn a_child_is_started_when_its_init_has_returned() {
    story(|system, runtime| async move {
        let failing = || Server { fails_in: Some("init"), ..Server::default() };
        let (server, spec) = system.child("server", Options::new(), failing);
        let tree = Supervisor::new(RestartStrategy::OneForOne).child(spec);
        assert!(tree.start(runtime.clone()).await.is_err());
        assert_eq!(server.call(Echo(1)).await, Err(CallError::Gone));
    });
}

#[test]
fn a_supervisor_stops_it_with_terminate_98() {
    story(|system, runtime| async move {
        let log = Log::default();
        let inside = log.clone();
        let (_server, spec) = system.child("server", Options::new(), move || Server::new(&inside));
        let tree = Supervisor::new(RestartStrategy::OneForOne).child(spec);
        let handle = tree.start(runtime.clone()).await.unwrap();
        let stopped = handle.stop(Exit::Shutdown).await.unwrap();
        assert!(stopped.killed.is_empty());
        assert_eq!(log.all(), ["terminate: shutdown"]);
    });
}
