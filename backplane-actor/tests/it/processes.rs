//! Mailboxes, as processes and their senders see them.

use std::{
    future::{Future, IntoFuture},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use backplane::{Device, Exit, FaultKind, LinkMode, Message};
use backplane_actor::{
    CallError, CastError, Closed, DeadLetter, Mailbox, Options, Pending, QueueOnRestart, Reply, System,
    TryCastError,
    testing::{Probe, Seeded},
};

use crate::support::{Log, SECOND, story};

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[derive(Debug)]
enum Say {
    Word(u32),
    Sum(Reply<u32>),
}

impl PartialEq<u32> for Say {
    fn eq(&self, other: &u32) -> bool {
        matches!(self, Say::Word(n) if n == other)
    }
}

async fn sum(mut mailbox: Mailbox<SumUp>) {
    let mut sum = 0;
    while let Some(message) = mailbox.receive().await {
        match message {
            SumUp::Add(n) => sum += n,
            SumUp::Get(reply) => reply.send(sum),
        }
    }
}

enum SumUp {
    Add(u32),
    Get(Reply<u32>),
}

#[test]
fn a_process_is_an_async_function_over_its_mailbox() {
    story(|system, _| async move {
        let address = system.spawn(sum);
        for n in 1..=10 {
            address.cast(SumUp::Add(n)).await.unwrap();
        }
        assert_eq!(address.ask(SumUp::Get).await, Ok(55));
    });
}

#[test]
fn a_full_mailbox_gives_back_what_it_refuses_and_a_closed_one_too() {
    story(|system, _| async move {
        let mut probe = Probe::<u32>::with(&system, Options::new().capacity(2));
        let address = probe.address().clone();
        address.try_cast(1).unwrap();
        address.try_cast(2).unwrap();
        assert!(matches!(address.try_cast(3), Err(TryCastError::Full(3))));
        assert!(matches!(address.cast(3).within(SECOND).await, Err(CastError::TimedOut(3))));
        assert_eq!(probe.expect(SECOND).await, 1);
        address.try_cast(4).unwrap();
        address.drain();
        assert!(matches!(address.try_cast(5), Err(TryCastError::Closed(5))));
        assert!(matches!(address.cast(5).await, Err(CastError::Closed(5))));
        assert!(matches!(address.cast(5).drop_oldest(), Err(Closed(5))));
        // What was accepted before is still there.
        assert_eq!(probe.expect(SECOND).await, 2);
        assert_eq!(probe.expect(SECOND).await, 4);
    });
}

#[test]
fn who_waits_for_room_is_let_in_in_order_and_nobody_overtakes() {
    story(|system, runtime| async move {
        let mut probe = Probe::<u32>::with(&system, Options::new().capacity(1));
        let address = probe.address().clone();
        address.try_cast(0).unwrap();
        let mut tasks = Vec::new();
        let (done, order) = (Log::default(), Log::default());
        for n in 1..=3 {
            let (address, done, order) = (address.clone(), done.clone(), order.clone());
            tasks.push(backplane::Runtime::spawn(&runtime, async move {
                let cast = address.cast(n);
                order.say(n.to_string());
                cast.await.unwrap();
                done.say(n.to_string());
            }));
        }
        // Until all have put theirs down.
        backplane::Runtime::sleep_until(&runtime, backplane::Runtime::now(&runtime) + SECOND).await;
        assert!(matches!(address.try_cast(9), Err(TryCastError::Full(9))));
        assert_eq!(probe.expect(SECOND).await, 0);
        let mut came = Vec::new();
        for _ in 0..3 {
            came.push(probe.expect(SECOND).await.to_string());
        }
        assert_eq!(came, order.all());
        backplane::Runtime::sleep_until(&runtime, backplane::Runtime::now(&runtime) + SECOND).await;
        assert_eq!(done.all().len(), 3);
        drop(tasks);
    });
}

#[test]
fn a_cast_that_is_dropped_while_it_waits_was_never_accepted() {
    story(|system, _| async move {
        let mut probe = Probe::<u32>::with(&system, Options::new().capacity(1));
        let address = probe.address().clone();
        address.try_cast(0).unwrap();
        let mut cast = Box::pin(address.cast(1));
        std::future::poll_fn(|cx| {
            assert!(cast.as_mut().poll(cx).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
        drop(cast);
        assert_eq!(probe.expect(SECOND).await, 0);
        probe.expect_nothing(SECOND).await;
    });
}

#[test]
fn the_sender_may_have_the_oldest_dropped_or_the_newest_and_the_hook_gets_them() {
    story(|system, _| async move {
        let lost = Log::default();
        let hook = lost.clone();
        let options =
            Options::new().capacity(2).dead_letters(move |n: u32, cause| hook.say(format!("{n}: {cause:?}")));
        let mut probe = Probe::with(&system, options);
        let address = probe.address().clone();
        for n in 0..4 {
            address.cast(n).drop_oldest().unwrap();
        }
        address.cast(9).drop_newest().unwrap();
        assert_eq!(lost.all(), ["0: Overflow", "1: Overflow", "9: Overflow"]);
        assert_eq!(probe.expect(SECOND).await, 2);
        assert_eq!(probe.expect(SECOND).await, 3);
        assert_eq!(system.dead_letters(), 3);
    });
}

#[test]
fn urgent_messages_pass_others_but_not_more_than_eight_in_a_row() {
    story(|system, _| async move {
        let mut probe = Probe::<u32>::new(&system);
        let address = probe.address().clone();
        address.try_cast(1).unwrap();
        address.try_cast(2).unwrap();
        for n in 100..120 {
            address.cast(n).urgent().now().unwrap();
        }
        let mut came = Vec::new();
        for _ in 0..22 {
            came.push(probe.expect(SECOND).await);
        }
        let place = |n| came.iter().position(|m| *m == n).unwrap();
        assert_eq!((place(1), place(2)), (8, 17));
        assert!((100..119).all(|n| place(n) < place(n + 1)));
    });
}

#[test]
fn urgent_messages_have_places_of_their_own() {
    story(|system, _| async move {
        let mut probe = Probe::<u32>::with(&system, Options::new().capacity(1));
        probe.address().try_cast(1).unwrap();
        probe.address().cast(2).urgent().now().unwrap();
        assert_eq!(probe.expect(SECOND).await, 2);
    });
}

#[test]
fn a_call_that_is_dropped_is_not_handled() {
    story(|system, _| async move {
        let mut probe = Probe::<Say>::new(&system);
        let address = probe.address().clone();
        let mut call = address.ask(Say::Sum);
        std::future::poll_fn(|cx| {
            assert!(std::pin::Pin::new(&mut call).poll(cx).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
        drop(call);
        address.cast(Say::Word(1)).await.unwrap();
        assert_eq!(probe.expect(SECOND).await, 1);
    });
}

#[test]
fn an_answer_is_never_late() {
    story(|system, runtime| async move {
        let mut probe = Probe::<Say>::new(&system);
        let address = probe.address().clone();
        let caller = system.spawn(move |_: Mailbox<()>| async move {
            assert_eq!(address.ask(Say::Sum).within(SECOND).await, Err(CallError::TimedOut));
        });
        let Say::Sum(reply) = probe.expect(SECOND).await else { panic!() };
        let two = backplane::Runtime::now(&runtime) + 2 * SECOND;
        backplane::Runtime::sleep_until(&runtime, two).await;
        assert!(reply.is_over());
        assert_eq!(reply.try_send(7), Err(7));
        assert_eq!(caller.ended().await, Some(Exit::Normal));
    });
}

#[test]
fn a_reply_that_is_dropped_says_so_at_once() {
    story(|system, _| async move {
        let address = system.spawn(|mut mailbox: Mailbox<Reply<u32>>| async move {
            while let Some(reply) = mailbox.receive().await {
                drop(reply);
            }
        });
        assert_eq!(address.ask(|reply| reply).forever().await, Err::<u32, _>(CallError::NoReply));
    });
}

#[test]
fn a_reply_may_be_sent_later_and_from_elsewhere() {
    story(|system, runtime| async move {
        let elsewhere = runtime.clone();
        let address = system.spawn(|mut mailbox: Mailbox<Reply<u32>>| async move {
            while let Some(reply) = mailbox.receive().await {
                let task = backplane::Runtime::spawn(&elsewhere, async move { reply.send(5) });
                backplane::Runtime::detach(&elsewhere, task);
            }
        });
        assert_eq!(address.ask(|reply| reply).await, Ok(5));
    });
}

#[test]
fn a_call_waits_for_room_and_gives_the_message_back_if_there_was_none() {
    story(|system, _| async move {
        let probe = Probe::<Say>::with(&system, Options::new().capacity(1));
        let address = probe.address().clone();
        address.try_cast(Say::Word(1)).unwrap();
        let mut call = address.ask(Say::Sum).within(SECOND);
        assert_eq!((&mut call).await, Err(CallError::Full));
        assert!(matches!(call.take_refused(), Some(Say::Sum(_))));
    });
}

#[test]
fn what_was_accepted_is_handled_or_buried_also_across_a_panic() {
    story(|system, _| async move {
        let (handled, lost) = (Log::default(), Log::default());
        let (log, hook) = (handled.clone(), lost.clone());
        let options = Options::new().dead_letters(move |n: u32, cause| hook.say(format!("{n} {cause:?}")));
        let address = system.spawn_with(options, |mut mailbox| async move {
            while let Some(n) = mailbox.receive().await {
                assert!(n != 2, "two");
                log.say(n.to_string());
            }
        });
        for n in 1..=4 {
            address.try_cast(n).unwrap();
        }
        let exit = address.ended().await.unwrap();
        assert_eq!(exit.to_string(), "panicked: two");
        assert_eq!(handled.all(), ["1"]);
        assert_eq!(lost.all(), ["3 Died", "4 Died"]);
        assert!(matches!(address.try_cast(5), Err(TryCastError::Closed(5))));
    });
}

#[test]
fn drained_it_handles_what_is_there_and_stopped_it_does_not() {
    for drain in [true, false] {
        story(|system, _| async move {
            let (handled, lost) = (Log::default(), Log::default());
            let (log, hook) = (handled.clone(), lost.clone());
            let options =
                Options::new().dead_letters(move |n: u32, cause| hook.say(format!("{n} {cause:?}")));
            let address = system.spawn_with(options, |mut mailbox| async move {
                while let Some(n) = mailbox.receive().await {
                    log.say(n.to_string());
                }
            });
            address.try_cast(1).unwrap();
            address.try_cast(2).unwrap();
            if drain {
                address.drain();
            } else {
                address.stop(Exit::Shutdown);
            }
            let exit = address.ended().await.unwrap();
            match drain {
                true => assert_eq!((exit, handled.all().len(), lost.all().len()), (Exit::Normal, 2, 0)),
                false => assert_eq!(
                    (exit, handled.all().len(), lost.all()),
                    (Exit::Shutdown, 0, vec!["1 Stopped".into(), "2 Stopped".into()])
                ),
            }
        });
    }
}

#[test]
fn a_kill_ends_it_in_the_middle_and_callers_hear_of_it() {
    story(|system, _| async move {
        let mut watcher = Device::new();
        let held = Arc::new(());
        let inside = Arc::clone(&held);
        let address = system.spawn(|mut mailbox: Mailbox<Reply<()>>| async move {
            let _reply = mailbox.receive().await;
            let _held = inside;
            std::future::pending::<()>().await;
        });
        watcher.link(&address.line().unwrap(), LinkMode::Monitor);
        let (calling, killing) = (address.clone(), address.clone());
        let killer = system.spawn(move |_: Mailbox<()>| async move {
            killing.kill();
        });
        let Err(CallError::Ended(exit)) = calling.ask(|reply| reply).await else { panic!() };
        assert_eq!(exit.fault().unwrap().kind(), FaultKind::Killed);
        assert_eq!(Arc::strong_count(&held), 1);
        let Message::Disconnect(news) = watcher.receive().await else { panic!() };
        assert_eq!(news.exit.fault().unwrap().kind(), FaultKind::Killed);
        drop(killer);
    });
}

#[test]
fn it_ends_when_nobody_can_reach_it_any_more_and_weak_addresses_do_not_count() {
    story(|system, _| async move {
        let log = Log::default();
        let inside = log.clone();
        let address = system.spawn(|mut mailbox: Mailbox<u32>| async move {
            while let Some(n) = mailbox.receive().await {
                inside.say(n.to_string());
            }
            inside.say("end");
        });
        let (weak, line) = (address.downgrade(), address.line().unwrap());
        assert!(weak.upgrade().is_some());
        address.try_cast(1).unwrap();
        drop(address);
        Probe::<()>::new(&system).expect_end(&line, SECOND).await;
        assert!(weak.upgrade().is_none());
        assert_eq!(log.all(), ["1", "end"]);
    });
}

#[test]
fn the_system_lane_passes_a_full_mailbox() {
    story(|system, _| async move {
        #[derive(Debug, PartialEq)]
        enum M {
            User,
            Down,
        }
        let first = Log::default();
        let inside = first.clone();
        let target = Device::new();
        let line = target.line();
        let address = system.spawn_with(Options::new().capacity(2), |mut mailbox: Mailbox<M>| async move {
            mailbox.monitor(&line, |_| M::Down);
            // It ends before we look at the first message.
            let _ = mailbox.receive_where(|message| matches!(message, M::Down)).await;
            while let Some(message) = mailbox.receive().await {
                inside.say(format!("{message:?}"));
            }
        });
        address.try_cast(M::User).unwrap();
        address.try_cast(M::User).unwrap();
        target.disconnect(Exit::Normal);
        address.drain();
        address.ended().await;
        assert_eq!(first.all(), ["User", "User"]);
    });
}

#[test]
fn the_first_of_many_calls_a_quorum_and_all_of_them() {
    story(|system, _| async move {
        let answering = |n: u32| {
            system.spawn(move |mut mailbox: Mailbox<Reply<u32>>| async move {
                while let Some(reply) = mailbox.receive().await {
                    assert!(n != 0, "zero");
                    reply.send(n);
                }
            })
        };
        let addresses = [answering(0), answering(1), answering(2), answering(3)];
        let mut pending = Pending::new();
        for (n, address) in addresses.iter().enumerate() {
            pending.add(n, address.ask(|reply| reply));
        }
        let all = pending.all().await;
        assert_eq!(all.len(), 4);
        let mut pending = Pending::new();
        for (n, address) in addresses.iter().enumerate() {
            pending.add(n, address.ask(|reply| reply));
        }
        let three = pending.quorum(3).await.unwrap();
        assert!(three.iter().all(|(n, answer)| *n as u32 == *answer));
        let mut pending = Pending::new();
        for (n, address) in addresses.iter().enumerate() {
            pending.add(n, address.ask(|reply| reply));
        }
        let short = pending.quorum(4).await.unwrap_err();
        assert_eq!(short.errors, [(0, CallError::Gone)]);
    });
}

#[test]
fn suspended_it_handles_nothing_until_it_is_resumed() {
    story(|system, _| async move {
        let mut probe = Probe::<u32>::new(&system);
        let address = probe.address().clone();
        address.suspend();
        address.try_cast(1).unwrap();
        probe.expect_nothing(SECOND).await;
        assert_eq!(address.load().normal, 1);
        address.resume();
        assert_eq!(probe.expect(SECOND).await, 1);
        assert_eq!((address.load().normal, address.load().handled), (0, 1));
    });
}

#[test]
fn a_selective_receive_takes_the_oldest_that_matches_and_leaves_the_rest_in_order_38() {
    story(|system, _| async move {
        let log = Log::default();
        let inside = log.clone();
        let address = system.spawn(|mut mailbox: Mailbox<u32>| async move {
            let even = mailbox.receive_where(|n| n % 2 == 0).await.unwrap().unwrap();
            inside.say(even.to_string());
            while let Some(n) = mailbox.receive().await {
                inside.say(n.to_string());
            }
        });
        for n in [1, 3, 4, 5, 6] {
            address.try_cast(n).unwrap();
        }
        address.drain();
        address.ended().await;
        assert_eq!(log.all(), ["4", "1", "3", "5", "6"]);
    });
}

#[test]
fn a_selective_receive_sets_aside_as_many_as_there_is_room_for_and_then_says_so() {
    story(|system, _| async move {
        let heard = Log::default();
        let inside = heard.clone();
        let options = Options::new().capacity(2000);
        let address = system.spawn_with(options, |mut mailbox: Mailbox<u32>| async move {
            for _ in 0..2 {
                let Err(full) = mailbox.receive_where(|n| *n == 7000).await else { panic!("not there") };
                inside.say(full.to_string());
            }
            // Nothing is lost, and the order stays.
            for n in 0..6000 {
                assert_eq!(mailbox.receive().await, Some(n));
            }
            assert_eq!(mailbox.receive_where(|n| *n == 7000).await, Ok(Some(7000)));
        });
        for n in 0..6000 {
            address.cast(n).await.unwrap();
        }
        address.cast(7000).await.unwrap();
        assert_eq!(address.ended().await, Some(Exit::Normal));
        let words = "2000 messages are set aside, and none of them was waited for";
        assert_eq!(heard.all(), [words, words]);
    });
}

/// The second of these is what it panics at, once fresh out of the queue and once out of what was set aside before.
#[test]
fn a_message_that_a_selective_receive_panics_at_is_not_received_and_shares_the_lot_of_the_others() {
    for (aside, queue, fate) in [
        (false, QueueOnRestart::Keep, None),
        (true, QueueOnRestart::Keep, None),
        (false, QueueOnRestart::Drop, Some(DeadLetter::Died)),
        (true, QueueOnRestart::Drop, Some(DeadLetter::Died)),
    ] {
        let system = System::new(Seeded::new(1));
        let lost = Log::default();
        let hook = lost.clone();
        let options = Options::new().queue_on_restart(queue).dead_letters(move |say: Say, cause| {
            let what = match say {
                Say::Word(n) => n.to_string(),
                Say::Sum(_) => "sum".to_owned(),
            };
            hook.say(format!("{what} {cause:?}"));
        });
        let (address, home) = system.prepare(options);
        address.try_cast(Say::Word(1)).unwrap();
        let mut call = pin!(address.ask(Say::Sum).forever());
        assert!(poll(call.as_mut()).is_pending());
        address.try_cast(Say::Word(2)).unwrap();
        let mut run = pin!(home.run(Device::new(), |mut mailbox: Mailbox<Say>| async move {
            if aside {
                assert_eq!(mailbox.receive_where(|say| *say == 2).await.unwrap().unwrap(), 2);
            }
            let _ = mailbox.receive_where(|say| *say != 1 && panic!("at the sum")).await;
        }));
        let Poll::Ready(exit) = poll(run.as_mut()) else { panic!("it ends") };
        assert_eq!(exit.to_string(), "panicked: at the sum");
        let waits: &[_] = if aside { &["1", "sum"] } else { &["1", "sum", "2"] };
        if let Some(cause) = fate {
            assert_eq!(lost.all(), waits.iter().map(|what| format!("{what} {cause:?}")).collect::<Vec<_>>());
            assert_eq!(poll(call.as_mut()), Poll::Ready(Err(CallError::Ended(exit))));
            continue;
        }
        assert!(lost.all().is_empty());
        assert!(poll(call.as_mut()).is_pending());
        assert_eq!(address.load().normal, waits.len());
        let mut next = pin!(home.run(Device::new(), |mut mailbox: Mailbox<Say>| async move {
            assert_eq!(mailbox.receive().await.unwrap(), 1);
            let Some(Say::Sum(reply)) = mailbox.receive().await else { panic!("not the sum") };
            reply.send(3);
        }));
        assert_eq!(poll(next.as_mut()), Poll::Ready(Exit::Normal));
        assert_eq!(poll(call.as_mut()), Poll::Ready(Ok(3)));
    }
}

#[test]
fn a_process_that_catches_the_panic_of_a_selective_receive_has_the_message_still() {
    let system = System::new(Seeded::new(1));
    let (address, home) = system.prepare::<u32>(Options::new());
    (1..=3).for_each(|n| address.try_cast(n).unwrap());
    let mut run = pin!(home.run(Device::new(), |mut mailbox: Mailbox<u32>| async move {
        {
            let mut wanted = pin!(mailbox.receive_where(|n| *n == 2 && panic!("at two")));
            assert!(catch_unwind(AssertUnwindSafe(|| poll(wanted.as_mut()))).is_err());
        }
        for n in 1..=3 {
            assert_eq!(mailbox.receive().await, Some(n));
        }
    }));
    assert_eq!(poll(run.as_mut()), Poll::Ready(Exit::Normal));
}

#[test]
fn a_wait_for_an_end_that_is_given_up_leaves_nothing_behind() {
    struct Quiet;
    impl Wake for Quiet {
        fn wake(self: Arc<Self>) {}
    }
    let system = System::new(Seeded::new(1));
    let (address, home) = system.prepare::<()>(Options::new());
    let run = home.run(Device::new(), |_mailbox| std::future::pending::<()>());
    let quiet: Vec<_> = (0..100).map(|_| Arc::new(Quiet)).collect();
    for each in &quiet {
        let waker = Waker::from(Arc::clone(each));
        let mut end = pin!(address.ended());
        assert!(end.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    assert!(quiet.iter().all(|each| Arc::strong_count(each) == 1));
    drop(run);
}

#[test]
fn whoever_hears_of_an_end_finds_all_that_waited_buried() {
    struct Look(Arc<Mutex<Option<u64>>>, System<Seeded>);
    impl Wake for Look {
        fn wake(self: Arc<Self>) {
            *self.0.lock().unwrap() = Some(self.1.dead_letters());
        }
    }
    let (system, seen) = (System::new(Seeded::new(1)), Arc::new(Mutex::new(None)));
    let (address, home) = system.prepare::<u32>(Options::new());
    let run = home.run(Device::new(), |_mailbox| std::future::pending::<()>());
    (0..3).for_each(|n| address.try_cast(n).unwrap());
    drop(home);
    let look = Waker::from(Arc::new(Look(Arc::clone(&seen), system)));
    let mut end = pin!(address.ended());
    assert!(end.as_mut().poll(&mut Context::from_waker(&look)).is_pending());
    drop(run);
    assert_eq!(*seen.lock().unwrap(), Some(3));
}

#[test]
fn nobody_can_be_stopped_between_two_incarnations() {
    let runtime = Seeded::new(1);
    let system = System::new(runtime.clone());
    let (address, home) = system.prepare::<u32>(Options::new());
    assert!(!address.stop(Exit::Shutdown));
    address.try_cast(5).unwrap();
    let run = home.run(Device::new(), |mut mailbox| async move {
        assert_eq!(mailbox.receive().await, Some(5));
    });
    assert_eq!(runtime.run(run), Exit::Normal);
}

#[test]
fn what_is_set_aside_waits_too_while_its_actor_is_suspended() {
    let runtime = Seeded::new(1);
    let system = System::new(runtime.clone());
    let (address, home) = system.prepare::<u32>(Options::new());
    (1..=3).for_each(|n| address.try_cast(n).unwrap());
    let run = home.run(Device::new(), |mut mailbox| async move {
        assert_eq!(mailbox.receive_where(|n| *n == 2).await, Ok(Some(2)));
        let me = mailbox.upgrade().unwrap();
        me.suspend();
        assert_eq!(mailbox.try_receive(), None);
        me.resume();
        assert_eq!((mailbox.try_receive(), mailbox.try_receive()), (Some(1), Some(3)));
    });
    assert_eq!(runtime.run(run), Exit::Normal);
}

#[test]
fn a_request_that_came_back_cannot_be_answered() {
    let runtime = Seeded::new(1);
    let system = System::new(runtime.clone());
    let refused = |call: &mut backplane_actor::Call<'_, Reply<u32>, u32>| {
        let reply = call.take_refused().expect("it has come back");
        assert!(reply.is_over());
        assert_eq!(reply.try_send(1), Err(1));
    };
    let (address, home) = system.prepare::<Reply<u32>>(Options::new().capacity(1));
    let mut first = pin!(address.ask(|reply| reply));
    assert!(poll(first.as_mut()).is_pending());
    let mut full = address.ask(|reply| reply).within(SECOND);
    assert_eq!(runtime.run(&mut full), Err(CallError::Full));
    refused(&mut full);
    drop(home);
    let mut gone = address.ask(|reply| reply);
    assert_eq!(runtime.run(&mut gone), Err(CallError::Gone));
    refused(&mut gone);
}

#[test]
fn a_quorum_of_more_than_there_can_be_is_none() {
    let mut pending = Pending::new();
    pending.add(1, std::future::ready(Ok::<_, CallError>(1)));
    let failed = Seeded::new(1).run(pending.quorum(usize::MAX)).unwrap_err();
    assert!(failed.answers.is_empty());
}

#[test]
fn the_cause_of_a_dead_letter_has_words() {
    assert_eq!(DeadLetter::KilledIt.to_string(), "the actor died of it");
    assert_eq!(Duration::from_secs(5), backplane_actor::DEFAULT_CALL_TIME);
}

#[derive(Debug, PartialEq)]
enum Heard {
    Word(u32),
    Down,
}

#[test]
fn news_that_is_set_aside_is_for_no_successor() {
    for queue in [QueueOnRestart::Keep, QueueOnRestart::Drop] {
        let system = System::new(Seeded::new(1));
        let lost = Log::default();
        let hook = lost.clone();
        let options = Options::new()
            .queue_on_restart(queue)
            .dead_letters(move |heard: Heard, cause| hook.say(format!("{heard:?} {cause:?}")));
        let (address, home) = system.prepare(options);
        (1..=2).for_each(|n| address.try_cast(Heard::Word(n)).unwrap());
        let target = Device::new();
        let line = target.line();
        let mut run = pin!(home.run(Device::new(), |mut mailbox: Mailbox<Heard>| async move {
            mailbox.monitor(&line, |_| Heard::Down);
            drop(target);
            std::future::poll_fn(|_| if mailbox.len() == 3 { Poll::Ready(()) } else { Poll::Pending }).await;
            assert_eq!(
                mailbox.receive_where(|heard| *heard == Heard::Word(2)).await,
                Ok(Some(Heard::Word(2)))
            );
            Err::<(), _>("by request")
        }));
        assert!(poll(run.as_mut()).is_pending());
        assert!(poll(run.as_mut()).is_ready());
        let kept = queue == QueueOnRestart::Keep;
        let buried: &[_] = if kept { &["Down Died"] } else { &["Down Died", "Word(1) Died"] };
        assert_eq!(lost.all(), buried);
        let mut next = pin!(home.run(Device::new(), |mut mailbox: Mailbox<Heard>| async move {
            assert_eq!(mailbox.try_receive(), kept.then_some(Heard::Word(1)));
            assert_eq!(mailbox.try_receive(), None);
        }));
        assert_eq!(poll(next.as_mut()), Poll::Ready(Exit::Normal));
    }
}

#[test]
fn news_that_is_set_aside_keeps_its_place_and_a_flush_takes_it_out() {
    for flush in [false, true] {
        let system = System::new(Seeded::new(1));
        let (address, home) = system.prepare(Options::new());
        (1..=3).for_each(|n| address.try_cast(Heard::Word(n)).unwrap());
        let target = Device::new();
        let line = target.line();
        let mut run = pin!(home.run(Device::new(), |mut mailbox: Mailbox<Heard>| async move {
            let monitor = mailbox.monitor(&line, |_| Heard::Down);
            drop(target);
            std::future::poll_fn(|_| if mailbox.len() == 4 { Poll::Ready(()) } else { Poll::Pending }).await;
            assert_eq!(
                mailbox.receive_where(|heard| *heard == Heard::Word(2)).await,
                Ok(Some(Heard::Word(2)))
            );
            if flush {
                assert!(!mailbox.demonitor_flush(monitor));
            } else {
                assert_eq!(mailbox.try_receive(), Some(Heard::Down));
            }
            assert_eq!(mailbox.try_receive(), Some(Heard::Word(1)));
            assert_eq!(mailbox.try_receive(), Some(Heard::Word(3)));
            assert_eq!(mailbox.try_receive(), None);
        }));
        assert!(poll(run.as_mut()).is_pending());
        assert_eq!(poll(run.as_mut()), Poll::Ready(Exit::Normal));
    }
}

#[test]
fn what_was_urgent_and_set_aside_is_not_handled_until_it_is() {
    let system = System::new(Seeded::new(1));
    let (address, home) = system.prepare::<u32>(Options::new());
    assert!(poll(pin!(address.cast(1).urgent().into_future())).is_ready());
    let mut run = pin!(home.run(Device::new(), |mut mailbox: Mailbox<u32>| async move {
        let _ = poll(pin!(mailbox.receive_where(|n| *n == 2)));
        drop(mailbox);
        Err::<(), _>("by request")
    }));
    assert!(poll(run.as_mut()).is_ready());
    assert_eq!((address.load().normal, address.load().handled), (1, 0));
    let mut next = pin!(home.run(Device::new(), |mut mailbox: Mailbox<u32>| async move {
        assert_eq!((mailbox.try_receive(), mailbox.try_receive()), (Some(1), None));
    }));
    assert_eq!(poll(next.as_mut()), Poll::Ready(Exit::Normal));
    assert_eq!((address.load().normal, address.load().handled), (0, 1));
}
