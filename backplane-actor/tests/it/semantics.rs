//! What else OTP says and no other test here does: the numbers are those of the statements in the semantics.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use backplane::{Device, Disconnect, Exit, FaultKind, Runtime};
use backplane_actor::{
    Actor, CallError, Context, Handle, Mailbox, Monitor, Options, Reply, System, testing::Seeded,
};

use crate::support::{Log, SECOND, story};

async fn pause(system: &System<Seeded>) {
    system.runtime().sleep_until(system.runtime().now() + SECOND / 100).await;
}

#[test]
fn demonitor_leaves_what_is_in_the_lane_and_flush_takes_it_out_29_30() {
    for flush in [false, true] {
        story(|system, _| async move {
            let target = Device::new();
            let (line, inside) = (target.line(), system.clone());
            let watcher = system.spawn(move |mut mailbox: Mailbox<&'static str>| async move {
                let on = mailbox.monitor(&line, |_| "down");
                inside.runtime().sleep_until(inside.runtime().now() + SECOND).await;
                assert_eq!(mailbox.len(), 1, "the news has been turned into a message");
                let was_on = if flush { mailbox.demonitor_flush(on) } else { mailbox.demonitor(on) };
                assert!(!was_on, "it had fired");
                assert_eq!(mailbox.try_receive(), (!flush).then_some("down"));
            });
            pause(&system).await;
            drop(target);
            assert_eq!(watcher.ended().await, Some(Exit::Normal));
        });
    }
}

enum Watch {
    Undo(Monitor, Reply<bool>),
    Down,
    Heard(Reply<u32>),
}

async fn watches(mut mailbox: Mailbox<Watch>) {
    let mut heard = 0;
    while let Some(message) = mailbox.receive().await {
        match message {
            Watch::Undo(monitor, reply) => reply.send(mailbox.demonitor(monitor)),
            Watch::Down => heard += 1,
            Watch::Heard(reply) => reply.send(heard),
        }
    }
}

#[test]
fn nobody_undoes_a_monitor_of_another_31() {
    story(|system, _| async move {
        let (target, made) = (Device::new(), Mutex::new(None));
        let watcher = system.spawn(|mut mailbox| {
            *made.lock().unwrap() = Some(mailbox.monitor(&target.line(), |_| Watch::Down));
            watches(mailbox)
        });
        let monitor = made.lock().unwrap().unwrap();
        let other = system.spawn(watches);
        assert_eq!(other.ask(|reply| Watch::Undo(monitor, reply)).await, Ok(false));
        drop(target);
        assert_eq!(watcher.ask(Watch::Heard).await, Ok(1));
    });
}

#[test]
fn an_answer_comes_once_and_not_when_its_call_is_over_at_its_arrival_32_33() {
    story(|system, _| async move {
        let replies = Arc::new(Mutex::new(Vec::new()));
        let keeping = Arc::clone(&replies);
        let keeper = system.spawn(move |mut mailbox: Mailbox<Reply<u32>>| async move {
            while let Some(reply) = mailbox.receive().await {
                keeping.lock().unwrap().push(reply);
            }
        });
        // It was wanted when it was asked for, and is not when it comes.
        assert_eq!(keeper.ask(|reply| reply).within(SECOND).await, Err(CallError::TimedOut));
        let late = replies.lock().unwrap().pop().unwrap();
        assert!(late.is_over());
        assert_eq!(late.try_send(1), Err(1));
        // One that is wanted comes, whoever sends it.
        let mut call = keeper.ask(|reply| reply);
        std::future::poll_fn(|cx| {
            assert!(std::pin::Pin::new(&mut call).poll(cx).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
        pause(&system).await;
        let answer = replies.lock().unwrap().pop().unwrap();
        assert_eq!(answer.try_send(2), Ok(()));
        assert_eq!(call.await, Ok(2));
    });
}

#[test]
fn what_is_sent_after_a_kill_is_never_seen_by_who_is_killed_34() {
    story(|system, _| async move {
        let log = Log::default();
        let inside = log.clone();
        let buried = Arc::new(AtomicUsize::new(0));
        let burying = Arc::clone(&buried);
        let options = Options::new().dead_letters(move |words, _| {
            assert_eq!(words, "after");
            burying.fetch_add(1, Relaxed);
        });
        let address = system.spawn_with(options, move |mut mailbox: Mailbox<&'static str>| async move {
            while let Some(words) = mailbox.receive().await {
                inside.say(words);
            }
        });
        address.cast("before").await.unwrap();
        pause(&system).await;
        address.kill();
        let accepted = usize::from(address.cast("after").await.is_ok());
        address.ended().await;
        pause(&system).await;
        assert_eq!(log.all(), ["before"]);
        assert_eq!(buried.load(Relaxed), accepted);
    });
}

#[test]
fn a_death_is_heard_by_each_monitor_in_order_and_by_the_link_once_36() {
    story(|system, _| async move {
        let target = Device::new();
        let line = target.line();
        let watcher = system.spawn(move |mut mailbox: Mailbox<u32>| async move {
            mailbox.trap_links(|_| 0);
            mailbox.monitor(&line, |_| 1);
            mailbox.link(&line);
            mailbox.monitor(&line, |_| 2);
            let mut heard = Vec::new();
            while heard.len() < 3 {
                heard.push(mailbox.receive().await.unwrap());
            }
            // Whether the link's comes first is promised by nobody.
            heard.retain(|&from| from != 0);
            assert_eq!(heard, [1, 2]);
            assert_eq!(mailbox.try_receive(), None);
        });
        pause(&system).await;
        drop(target);
        assert_eq!(watcher.ended().await, Some(Exit::Normal));
    });
}

#[test]
fn of_two_who_end_together_each_is_heard_of_once_in_whatever_order_37() {
    story(|system, _| async move {
        let first = Device::new();
        let line = first.line();
        let second = system.spawn(move |mut mailbox: Mailbox<()>| async move {
            mailbox.link(&line);
            while let Some(()) = mailbox.receive().await {}
        });
        let lines = [line, second.line().unwrap()];
        let observer = system.spawn(move |mut mailbox: Mailbox<Disconnect>| async move {
            for line in &lines {
                mailbox.monitor(line, |news| news);
            }
            let mut heard = Vec::new();
            while heard.len() < 2 {
                heard.push(mailbox.receive().await.unwrap().device);
            }
            assert!(lines.iter().all(|line| heard.contains(&line.id())));
            assert_eq!(mailbox.try_receive(), None);
        });
        pause(&system).await;
        drop(first);
        assert_eq!(observer.ended().await, Some(Exit::Normal));
    });
}

#[derive(Clone)]
struct Server {
    log: Log,
    traps: bool,
    fails: bool,
}

struct Early(bool);
struct Link(backplane::Line);

impl Actor for Server {
    type Messages = (Early, Link, Disconnect);
    type Error = &'static str;

    async fn init(&mut self, cx: &mut Context<Self>) -> Result<(), &'static str> {
        if self.traps {
            cx.trap_links();
        }
        if self.fails { Err("in init") } else { Ok(()) }
    }

    async fn terminate(&mut self, exit: &Exit, _: &mut Context<Self>) {
        self.log.say(format!("terminate: {exit}"));
    }
}

impl Handle<Early> for Server {
    type Reply = &'static str;

    async fn handle(
        &mut self,
        Early(good): Early,
        _: &mut Context<Self>,
    ) -> Result<&'static str, &'static str> {
        let value = if good { Ok("thrown") } else { Err("no good") };
        let value = value?;
        Ok(value)
    }
}

impl Handle<Link> for Server {
    type Reply = ();

    async fn handle(&mut self, Link(line): Link, cx: &mut Context<Self>) -> Result<(), &'static str> {
        cx.link(&line);
        Ok(())
    }
}

impl Handle<Disconnect> for Server {
    type Reply = ();

    async fn handle(&mut self, news: Disconnect, _: &mut Context<Self>) -> Result<(), &'static str> {
        self.log.say(format!("exit: {}", news.exit));
        Ok(())
    }
}

fn server(log: &Log) -> Server {
    Server { log: log.clone(), traps: false, fails: false }
}

#[test]
fn what_a_handler_returns_early_is_its_answer_or_its_end_with_terminate_54() {
    story(|system, _| async move {
        let log = Log::default();
        let server = system.start(server(&log));
        assert_eq!(server.call(Early(true)).await, Ok("thrown"));
        assert!(matches!(server.call(Early(false)).await, Err(CallError::Ended(_))));
        assert_eq!(log.all(), ["terminate: failed: no good"]);
    });
}

#[test]
fn who_is_linked_with_a_server_whose_init_fails_goes_along_unless_it_traps_57() {
    for traps in [false, true] {
        story(|system, _| async move {
            let inside = system.clone();
            let starter = system.spawn(move |mut mailbox: Mailbox<Exit>| async move {
                if traps {
                    mailbox.trap_links(|news| news.exit);
                }
                let failing = Server { fails: true, ..server(&Log::default()) };
                let started = inside.start(failing);
                if let Some(line) = started.line() {
                    mailbox.link(&line);
                }
                if let Some(exit) = mailbox.receive().await {
                    assert!(exit.is_fault());
                }
            });
            let exit = starter.ended().await.unwrap();
            match exit.fault().map(|fault| fault.kind()) {
                None => assert!(traps),
                Some(FaultKind::Cascade(_)) => assert!(!traps),
                other => panic!("{other:?}"),
            }
        });
    }
}

#[test]
fn a_server_that_traps_gets_the_ends_of_others_as_messages_and_goes_on_61() {
    story(|system, _| async move {
        let log = Log::default();
        let server = system.start(Server { traps: true, ..server(&log) });
        for exit in [Exit::Normal, Exit::Shutdown] {
            let other = Device::new();
            server.call(Link(other.line())).await.unwrap();
            other.disconnect(exit);
            pause(&system).await;
        }
        assert_eq!(server.call(Early(true)).await, Ok("thrown"));
        assert_eq!(log.all(), ["exit: normal", "exit: shutdown"]);
    });
}

#[test]
fn a_parent_that_ends_well_leaves_a_server_alive_that_does_not_trap_62() {
    story(|system, _| async move {
        let log = Log::default();
        let child = system.start(server(&log));
        let line = child.line().unwrap();
        let parent = system.spawn(move |mut mailbox: Mailbox<Infallible>| async move {
            mailbox.link(&line);
        });
        assert_eq!(parent.ended().await, Some(Exit::Normal));
        pause(&system).await;
        assert_eq!(child.call(Early(true)).await, Ok("thrown"));
        assert!(log.all().is_empty());
    });
}

#[test]
fn never_more_than_the_capacity_is_accepted_and_waits() {
    for capacity in [1, 2, 3, 7, 64, 129] {
        story(|system, runtime| async move {
            let (accepted, received) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let receiving = Arc::clone(&received);
            let inside = system.clone();
            let options = Options::new().capacity(capacity);
            let address = system.spawn_with(options, move |mut mailbox: Mailbox<usize>| async move {
                while let Some(n) = mailbox.receive().await {
                    receiving.fetch_add(1, Relaxed);
                    if n % 5 == 0 {
                        pause(&inside).await;
                    }
                }
            });
            let senders: Vec<_> = (0..3)
                .map(|_| {
                    let (address, accepted, received, inside) =
                        (address.clone(), Arc::clone(&accepted), Arc::clone(&received), system.clone());
                    system.spawn(move |_: Mailbox<()>| async move {
                        for n in 0..3 * capacity {
                            if address.try_cast(n).is_ok() {
                                let all = accepted.fetch_add(1, Relaxed) + 1;
                                let wait = all - received.load(Relaxed);
                                assert!(wait <= capacity, "{wait} of {capacity}");
                            } else {
                                assert!(address.load().normal <= capacity);
                                pause(&inside).await;
                            }
                        }
                    })
                })
                .collect();
            for sender in senders {
                assert_eq!(sender.ended().await, Some(Exit::Normal));
            }
            drop(runtime);
        });
    }
}
