//! Calls that are given up, panicked on or answered at odd moments: each ends once, and leaves nothing behind.

use std::{
    collections::HashMap,
    convert::Infallible,
    future::{Future, IntoFuture, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use backplane::{Device, Exit, Runtime};
use backplane_actor::{
    Actor, Address, CallError, DEFAULT_CALL_TIME, Envelope, Mailbox, Next, Options, QueueOnRestart, Reply,
    StateMachine, System, Turn, run_machine,
    testing::{Probe, Seeded},
};

use backplane_supervisor::{Intensity, RestartStrategy, Supervisor};

use crate::{
    random::Random,
    support::{Log, SECOND, story},
    world::{Angry, Count, poll},
};

async fn sleep(runtime: &Seeded, time: Duration) {
    runtime.sleep_until(runtime.now() + time).await;
}

/// Sends it, and does not wait for the answer.
async fn begin<F: Future + Unpin>(call: &mut F) {
    poll_fn(|cx| {
        assert!(Pin::new(&mut *call).poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
}

// ---- 1. settled before it is sent ---------------------------------------------------------------------------------

#[test]
fn a_reply_dropped_before_the_call_is_sent_says_so_at_once() {
    story(|system, runtime| async move {
        let probe = Probe::<()>::new(&system);
        let address = probe.address().clone();
        let began = runtime.now();
        assert_eq!(
            address.ask(|reply: Reply<u32>| drop(reply)).within(SECOND).await,
            Err(CallError::NoReply)
        );
        assert_eq!(runtime.since(began), Duration::ZERO);
        assert_eq!(address.ask(|reply: Reply<u32>| drop(reply)).await, Err(CallError::NoReply));
    });
}

#[test]
fn an_answer_given_before_the_call_is_sent_is_its_answer() {
    story(|system, runtime| async move {
        let probe = Probe::<()>::new(&system);
        let began = runtime.now();
        assert_eq!(probe.address().ask(|reply| reply.send(7)).within(SECOND).await, Ok(7));
        assert_eq!(runtime.since(began), Duration::ZERO);
        assert_eq!(probe.address().ask(|reply| reply.send(8)).await, Ok(8));
    });
}

#[test]
fn a_call_whose_message_was_taken_back_before_it_was_sent_ends_at_once() {
    story(|system, runtime| async move {
        let probe = Probe::<Reply<u32>>::new(&system);
        let address = probe.address().clone();
        let mut call = address.ask(|reply| reply).within(SECOND);
        let message = call.take_refused();
        assert!(message.is_some());
        let began = runtime.now();
        assert_eq!(call.await, Err(CallError::NoReply));
        assert_eq!(runtime.since(began), Duration::ZERO);
        drop(message);
    });
}

// ---- 2. panics in drops -------------------------------------------------------------------------------------------

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("bomb");
        }
    }
}

enum Deed {
    AnswerWithBomb(Reply<Bomb>),
    Carry(Bomb, Reply<()>),
    Call(Address<Reply<u32>>, Reply<Result<u32, CallError>>),
}

async fn deeds(mut mailbox: Mailbox<Deed>) {
    while let Some(deed) = mailbox.receive().await {
        match deed {
            Deed::AnswerWithBomb(reply) => reply.send(Bomb),
            Deed::Carry(bomb, reply) => {
                std::mem::forget(bomb);
                reply.send(());
            }
            Deed::Call(whom, reply) => reply.send(whom.ask(|reply| reply).await),
        }
    }
}

#[test]
fn an_answer_that_panics_when_it_is_dropped_leaves_no_edge_behind() {
    story(|system, runtime| async move {
        let other = system.spawn(deeds);
        let friend = other.clone();
        let clock = runtime.clone();
        let actor = system.spawn(move |mut mailbox: Mailbox<Reply<u32>>| async move {
            let mut call = friend.ask(Deed::AnswerWithBomb);
            begin(&mut call).await;
            sleep(&clock, SECOND).await;
            assert!(catch_unwind(AssertUnwindSafe(|| drop(call))).is_err());
            while let Some(reply) = mailbox.receive().await {
                reply.send(7);
            }
        });
        sleep(&runtime, 2 * SECOND).await;
        // It waits for nobody any more.
        assert_eq!(other.ask(|reply| Deed::Call(actor.clone(), reply)).await, Ok(Ok(7)));
    });
}

#[test]
fn a_request_that_panics_when_it_is_dropped_leaves_no_edge_behind() {
    story(|system, runtime| async move {
        let (other, home) = system.prepare::<Deed>(Options::new().capacity(1));
        let (done, filled) = (other.clone(), other.clone());
        let mut fills = filled.ask(|reply| Deed::Carry(Bomb, reply));
        begin(&mut fills).await;
        let clock = runtime.clone();
        let actor = system.spawn(move |mut mailbox: Mailbox<Reply<u32>>| async move {
            let mut call = done.ask(|reply| Deed::Carry(Bomb, reply)).forever();
            begin(&mut call).await;
            sleep(&clock, SECOND).await;
            assert!(catch_unwind(AssertUnwindSafe(|| drop(call))).is_err());
            while let Some(reply) = mailbox.receive().await {
                reply.send(7);
            }
        });
        sleep(&runtime, 2 * SECOND).await;
        let task = runtime.spawn(async move {
            home.run(Device::new(), deeds).await;
        });
        runtime.detach(task);
        assert_eq!(fills.await, Ok(()));
        assert_eq!(other.ask(|reply| Deed::Call(actor.clone(), reply)).await, Ok(Ok(7)));
    });
}

// ---- 3. set aside ---------------------------------------------------------------------------------------------------

enum Mixed {
    Get(Reply<u32>),
    Word(u32),
}

#[test]
fn a_call_that_is_dropped_while_it_is_set_aside_is_not_handled() {
    story(|system, runtime| async move {
        let log = Log::default();
        let (inside, clock) = (log.clone(), runtime.clone());
        let address = system.spawn(move |mut mailbox: Mailbox<Mixed>| async move {
            let word = mailbox.receive_where(|message| matches!(message, Mixed::Word(1))).await;
            assert!(matches!(word, Ok(Some(Mixed::Word(1)))));
            sleep(&clock, 2 * SECOND).await;
            while let Some(message) = mailbox.receive().await {
                inside.say(match message {
                    Mixed::Get(reply) => {
                        reply.send(0);
                        "get".to_owned()
                    }
                    Mixed::Word(n) => n.to_string(),
                });
            }
        });
        let mut call = address.ask(Mixed::Get);
        begin(&mut call).await;
        address.try_cast(Mixed::Word(1)).map_err(drop).unwrap();
        address.try_cast(Mixed::Word(2)).map_err(drop).unwrap();
        sleep(&runtime, SECOND).await;
        drop(call);
        sleep(&runtime, 2 * SECOND).await;
        assert_eq!(log.all(), ["2"]);
    });
}

// ---- 4. whose time is inherited -------------------------------------------------------------------------------------

/// Answers after a second.
fn slow(runtime: &Seeded) -> impl FnOnce(Mailbox<Reply<u32>>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    let clock = runtime.clone();
    |mut mailbox| {
        Box::pin(async move {
            while let Some(reply) = mailbox.receive().await {
                sleep(&clock, SECOND).await;
                reply.send(7);
            }
        })
    }
}

struct Machine {
    slow: Address<Reply<u32>>,
    log: Log,
}

enum ToMachine {
    Ask,
    Open(Reply<()>),
}

impl StateMachine for Machine {
    type State = bool;
    type Message = ToMachine;
    type Name = ();
    type Content = ();
    type Error = Infallible;

    async fn handle(
        &mut self,
        open: &bool,
        event: backplane_actor::Event<Self>,
        turn: &mut Turn<'_, Self>,
    ) -> Result<Next<bool>, Infallible> {
        match event {
            backplane_actor::Event::Message(ToMachine::Open(reply)) => {
                reply.send(());
                return Ok(Next::To(true));
            }
            event if !open => turn.postpone(event),
            _ => self.log.say(format!("{:?}", self.slow.ask(|reply| reply).await)),
        }
        Ok(Next::Keep)
    }
}

#[test]
fn a_postponed_event_does_not_inherit_the_time_of_the_call_that_brought_it_back() {
    story(|system, runtime| async move {
        let log = Log::default();
        let machine = Machine { slow: system.spawn(slow(&runtime)), log: log.clone() };
        let address = system.spawn(|mailbox| run_machine(machine, false, mailbox));
        address.try_cast(ToMachine::Ask).map_err(drop).unwrap();
        assert_eq!(address.ask(ToMachine::Open).within(SECOND / 2).await, Ok(()));
        sleep(&runtime, 2 * SECOND).await;
        assert_eq!(log.all(), ["Ok(7)"]);
    });
}

#[test]
fn a_call_that_is_answered_binds_nobody_any_more() {
    story(|system, runtime| async move {
        let (log, slow) = (Log::default(), system.spawn(slow(&runtime)));
        let inside = log.clone();
        let address = system.spawn(move |mut mailbox: Mailbox<Reply<u32>>| async move {
            while let Some(reply) = mailbox.receive().await {
                reply.send(1);
                inside.say(format!("{:?}", slow.ask(|reply| reply).await));
            }
        });
        assert_eq!(address.ask(|reply| reply).within(SECOND / 2).await, Ok(1));
        sleep(&runtime, 2 * SECOND).await;
        assert_eq!(log.all(), ["Ok(7)"]);
    });
}

// ---- 5. the end ---------------------------------------------------------------------------------------------------

/// Copies may panic, or look at the mailbox that they wait in.
struct Odd {
    number: u32,
    copies: Arc<AtomicU32>,
    address: Option<Address<Odd>>,
}

impl Clone for Odd {
    fn clone(&self) -> Odd {
        if self.copies.fetch_add(1, Ordering::Relaxed) == 1 {
            if let Some(address) = &self.address {
                address.load();
            }
            panic!("no copy");
        }
        Odd { number: self.number, copies: Arc::clone(&self.copies), address: self.address.clone() }
    }
}

fn a_copy_that_panics(looks: bool) {
    story(|system, runtime| async move {
        let (log, lost) = (Log::default(), Log::default());
        let (inside, hook) = (log.clone(), lost.clone());
        let options = Options::new()
            .retry(2)
            .dead_letters(move |odd: Odd, cause| hook.say(format!("{} {cause:?}", odd.number)));
        let (address, spec) = system.child_process("fragile", options, move |mut mailbox: Mailbox<Odd>| {
            let inside = inside.clone();
            async move {
                while let Some(odd) = mailbox.receive().await {
                    inside.say(odd.number.to_string());
                    assert!(odd.number != 13, "thirteen");
                }
            }
        });
        let tree = Supervisor::new(RestartStrategy::OneForOne)
            .intensity(Intensity { restarts: 10, period: SECOND })
            .child(spec);
        let handle = tree.start(runtime.clone()).await.unwrap();
        let copies = Arc::new(AtomicU32::new(0));
        for number in [13, 2] {
            let own = looks.then(|| address.clone());
            let odd = Odd { number, copies: Arc::clone(&copies), address: own };
            address.try_cast(odd).map_err(drop).unwrap();
        }
        sleep(&runtime, SECOND).await;
        // What cannot be copied is not tried again.
        assert_eq!(log.all(), ["13", "13", "2"]);
        handle.stop(Exit::Shutdown).await.unwrap();
    });
}

#[test]
fn a_copy_that_panics_does_not_lose_what_it_was_copied_from() {
    a_copy_that_panics(false);
}

#[test]
fn a_copy_may_look_at_the_mailbox() {
    a_copy_that_panics(true);
}

#[test]
fn who_is_polled_after_the_restart_hears_of_the_end_all_the_same() {
    story(|system, runtime| async move {
        let (address, spec) =
            system.child_process("it", Options::new(), |mut mailbox: Mailbox<Reply<u32>>| async move {
                let mut held = Vec::new();
                while let Some(reply) = mailbox.receive().await {
                    held.push(reply);
                }
            });
        let tree = Supervisor::new(RestartStrategy::OneForOne).child(spec);
        let handle = tree.start(runtime.clone()).await.unwrap();
        let mut call = address.ask(|reply| reply);
        begin(&mut call).await;
        sleep(&runtime, SECOND / 2).await;
        let first = address.line();
        address.kill();
        sleep(&runtime, SECOND / 2).await;
        assert_ne!(address.line(), first);
        assert!(matches!(call.await, Err(CallError::Ended(_))));
        handle.stop(Exit::Shutdown).await.unwrap();
    });
}

#[test]
fn a_waker_that_panics_harms_nobody_else() {
    story(|system, runtime| async move {
        let lost = Log::default();
        let hook = lost.clone();
        let options = Options::new().dead_letters(move |reply: Reply<u32>, cause| {
            drop(reply);
            hook.say(format!("{cause:?}"));
        });
        let (address, home) = system.prepare(options);
        let (other, ends) = (address.clone(), address.clone());
        let mut angry = other.ask(|reply| reply).forever();
        let waker = Waker::from(Arc::new(Angry));
        assert!(Pin::new(&mut angry).poll(&mut Context::from_waker(&waker)).is_pending());
        let mut calm = address.ask(|reply| reply).forever();
        begin(&mut calm).await;
        let task = runtime.spawn(async move {
            let run = home.run(Device::new(), |mailbox: Mailbox<Reply<u32>>| async move { drop(mailbox) });
            let mut run = Box::pin(run);
            poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| run.as_mut().poll(cx))) {
                Ok(poll) => poll.map(drop),
                Err(_) => Poll::Ready(()),
            })
            .await;
        });
        runtime.detach(task);
        sleep(&runtime, SECOND).await;
        assert_eq!(ends.ended().await, Some(Exit::Normal));
        assert_eq!(calm.await, Err(CallError::Ended(Exit::Normal)));
        assert_eq!(lost.all(), ["Stopped", "Stopped"]);
    });
}

// ---- 6. which call is which -----------------------------------------------------------------------------------------

/// A call that waits until then, or a cast.
#[derive(Debug)]
struct Ask {
    number: u32,
    until: Option<Instant>,
    deed: u64,
    reply: Option<Reply<u32>>,
}

/// Says until when whoever calls it has time, without a limit of its own.
async fn tells_the_time(mut mailbox: Mailbox<Reply<Option<Instant>>>) {
    while let Some(reply) = mailbox.receive().await {
        let deadline = reply.deadline();
        reply.send(deadline);
    }
}

/// Whatever is dropped, set aside, passed by or taken up again by a successor: each call ends once and in time, and what is
/// done for it has its time, and what is done for a cast has no limit.
fn calls_are_told_apart(seed: u64, capacity: usize) {
    let runtime = Seeded::new(seed);
    let system = System::new(runtime.clone());
    let log = Log::default();
    let (faults, handled) = (log.clone(), Arc::new(Mutex::new(HashMap::<u32, u32>::new())));
    let (counted, clock) = (Arc::clone(&handled), runtime.clone());
    let timer = system.spawn(tells_the_time);
    let options = Options::new().capacity(capacity);
    let (address, spec) = system.child_process("it", options, move |mut mailbox: Mailbox<Ask>| {
        let (faults, counted, timer, clock) =
            (faults.clone(), Arc::clone(&counted), timer.clone(), clock.clone());
        async move {
            let mut held = Vec::new();
            let mut wants = seed;
            loop {
                wants = wants.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let message = if wants >> 62 == 0 {
                    let odd = u32::from(wants >> 40 & 1 == 1);
                    let wanted = mailbox.receive_where(|ask| ask.number % 2 == odd);
                    let pause = clock.sleep_until(clock.now() + SECOND / 100);
                    match smol::future::or(async { Some(wanted.await) }, async {
                        pause.await;
                        None
                    })
                    .await
                    {
                        Some(Ok(message)) => message,
                        Some(Err(_)) | None => mailbox.receive().await,
                    }
                } else {
                    mailbox.receive().await
                };
                let Some(mut ask) = message else { break };
                *counted.lock().unwrap().entry(ask.number).or_default() += 1;
                match timer.ask(|reply| reply).forever().await {
                    Ok(time) if time == ask.until => {}
                    Err(CallError::TimedOut) if ask.until.is_some_and(|at| at <= clock.now()) => {}
                    time => faults.say(format!("{:?} in {ask:?}", time)),
                }
                match ask.deed % 8 {
                    0 => panic!("by request"),
                    1 => held.push(ask.reply.take()),
                    2 => drop(ask.reply.take()),
                    3 => {
                        let (reply, clock) = (ask.reply.take(), clock.clone());
                        let later = clock.clone();
                        let task = clock.spawn(async move {
                            sleep(&later, SECOND / 20).await;
                            if let Some(reply) = reply {
                                reply.send(ask.number);
                            }
                        });
                        clock.detach(task);
                    }
                    4 => sleep(&clock, SECOND / 50).await,
                    _ => {
                        if let Some(reply) = ask.reply.take() {
                            reply.send(ask.number);
                        }
                    }
                }
                if ask.deed % 16 == 5 {
                    for reply in held.drain(..).flatten() {
                        reply.send(0);
                    }
                }
            }
        }
    });
    let story = async {
        let tree = Supervisor::new(RestartStrategy::OneForOne)
            .intensity(Intensity { restarts: 100_000, period: SECOND })
            .child(spec);
        let handle = tree.start(runtime.clone()).await.unwrap();
        let mut ended = Vec::new();
        for caller in 0..4_u32 {
            let (address, clock, faults) = (address.clone(), runtime.clone(), log.clone());
            let done = system.spawn(move |mailbox: Mailbox<()>| async move {
                drop(mailbox);
                let mut random = Random(seed * 4 + u64::from(caller));
                for n in 0..60 {
                    let number = caller * 1000 + n;
                    let deed = random.below(64);
                    if random.below(4) == 0 {
                        sleep(&clock, SECOND / 200).await;
                    }
                    match random.below(8) {
                        0 | 1 => {
                            let cast = Ask { number, until: None, deed, reply: None };
                            drop(address.cast(cast).within(SECOND).await);
                        }
                        2 => drop(address.cast(Ask { number, until: None, deed, reply: None }).drop_oldest()),
                        which => {
                            let until = clock.now() + SECOND / 10 * (1 + random.below(5) as u32);
                            let call = address
                                .ask(|reply| Ask { number, until: Some(until), deed, reply: Some(reply) })
                                .until(until);
                            let call = if which == 3 { call.urgent() } else { call };
                            if which == 4 {
                                // Given up on the way.
                                let time = SECOND / 200 * random.below(10) as u32;
                                let answer = smol::future::or(async { Some(call.await) }, async {
                                    sleep(&clock, time).await;
                                    None
                                });
                                drop(answer.await);
                                continue;
                            }
                            let answer = call.await;
                            if clock.now() > until {
                                faults.say(format!("{number} is late: {answer:?}"));
                            }
                            match answer {
                                Ok(n) if n != number && n != 0 => faults.say(format!("{n} for {number}")),
                                Err(CallError::Gone | CallError::Cycle(_)) => {
                                    faults.say(format!("{answer:?}"))
                                }
                                _ => {}
                            }
                        }
                    }
                }
            });
            ended.push(done);
        }
        for done in ended {
            done.ended().await;
        }
        sleep(&runtime, 10 * SECOND).await;
        handle.stop(Exit::Shutdown).await.unwrap();
    };
    runtime.run(story);
    assert_eq!(log.all(), Vec::<String>::new(), "seed {seed}, capacity {capacity}");
    let handled = handled.lock().unwrap();
    assert!(handled.len() > 30, "{}", handled.len());
    assert!(handled.values().all(|times| *times == 1), "seed {seed}, capacity {capacity}");
}

#[test]
fn calls_are_told_apart_whatever_happens_to_their_messages() {
    for seed in 0..60 {
        for capacity in [1, 2, 5, 100] {
            calls_are_told_apart(seed, capacity);
        }
    }
}

/// Held, set aside, urgent, waiting for a successor or for room: nobody waits longer than five seconds and a tick.
#[test]
fn nobody_waits_longer_than_its_time_whatever_becomes_of_its_message() {
    for seed in 0..100 {
        let runtime = Seeded::new(seed);
        let system = System::new(runtime.clone());
        let log = Log::default();
        let clock = runtime.clone();
        let (address, spec) =
            system.child_process("it", Options::new().capacity(3), move |mut mailbox: Mailbox<Mixed>| {
                let clock = clock.clone();
                async move {
                    let mut held = Vec::new();
                    for turn in 0.. {
                        let mut random = Random(seed * 1000 + turn);
                        if random.below(3) == 0 {
                            let wanted = mailbox.receive_where(|message| matches!(message, Mixed::Word(_)));
                            smol::future::or(async { drop(wanted.await) }, sleep(&clock, SECOND / 10)).await;
                        }
                        match mailbox.receive().await {
                            None => break,
                            Some(Mixed::Word(n)) => assert!(n % 3 != 0, "by request"),
                            Some(Mixed::Get(reply)) => held.push(reply),
                        }
                        sleep(&clock, SECOND / 10 * random.below(4) as u32).await;
                    }
                }
            });
        runtime.run(async {
            let tree = Supervisor::new(RestartStrategy::OneForOne)
                .intensity(Intensity { restarts: 100_000, period: SECOND })
                .child(spec);
            let handle = tree.start(runtime.clone()).await.unwrap();
            let mut callers = Vec::new();
            for caller in 0..6_u32 {
                let (address, clock, log) = (address.clone(), runtime.clone(), log.clone());
                callers.push(system.spawn(move |mailbox: Mailbox<()>| async move {
                    drop(mailbox);
                    let mut random = Random(seed * 6 + u64::from(caller));
                    for n in 0..20 {
                        sleep(&clock, SECOND / 10 * random.below(20) as u32).await;
                        let _ = address.cast(Mixed::Word(n)).drop_oldest();
                        let began = clock.now();
                        let call = address.ask(Mixed::Get);
                        let answer = if random.below(3) == 0 { call.urgent().await } else { call.await };
                        let took = clock.now() - began;
                        if took > DEFAULT_CALL_TIME + Duration::from_millis(1)
                            || answer == Err(CallError::TimedOut) && took < DEFAULT_CALL_TIME
                        {
                            log.say(format!("{answer:?} after {took:?}"));
                        }
                    }
                }));
            }
            for caller in callers {
                caller.ended().await;
            }
            handle.stop(Exit::Shutdown).await.unwrap();
        });
        assert_eq!(log.all(), Vec::<String>::new(), "seed {seed}");
    }
}

#[test]
fn of_an_incarnation_that_is_dropped_half_way_callers_hear_also_after_the_next_has_begun() {
    let system = System::new(Seeded::new(1));
    let (address, home) = system.prepare::<Reply<u32>>(Options::new());
    let hold = |mut mailbox: Mailbox<Reply<u32>>| async move {
        let mut held = Vec::new();
        while let Some(reply) = mailbox.receive().await {
            held.push(reply);
        }
    };
    let mut call = Box::pin(address.ask(|reply| reply).forever());
    assert!(poll(call.as_mut()).is_pending());
    let mut run = Box::pin(home.run(Device::new(), hold));
    assert!(poll(run.as_mut()).is_pending());
    drop(run);
    let mut next = Box::pin(home.run(Device::new(), hold));
    assert!(poll(next.as_mut()).is_pending());
    let answer = poll(call.as_mut());
    assert!(matches!(answer, Poll::Ready(Err(CallError::Ended(_)))), "{answer:?}");
}

#[test]
fn a_mailbox_that_outlives_its_incarnation_takes_no_message_from_the_next() {
    let system = System::new(Seeded::new(1));
    let (address, home) = system.prepare::<Mixed>(Options::new().capacity(4));
    let (tell, told) = std::sync::mpsc::channel();
    let mut run = Box::pin(home.run(Device::new(), |mut mailbox: Mailbox<Mixed>| async move {
        mailbox.receive().await;
        tell.send(mailbox).unwrap();
        assert!(system.dead_letters() > 0, "by request");
    }));
    let word = |n| address.try_cast(Mixed::Word(n)).map_err(drop).unwrap();
    word(0);
    word(1);
    let mut calls: Vec<_> = (0..2).map(|_| Box::pin(address.ask(Mixed::Get))).collect();
    for call in &mut calls {
        assert!(poll(call.as_mut()).is_pending());
    }
    assert!(poll(run.as_mut()).is_ready());
    let heard = Log::default();
    let log = heard.clone();
    let mut go_on = false;
    let mut next = Box::pin(home.run(Device::new(), move |mut mailbox: Mailbox<Mixed>| async move {
        while let Some(message) = mailbox.receive().await {
            match message {
                Mixed::Get(reply) => reply.send(7),
                Mixed::Word(n) => log.say(n.to_string()),
            }
            poll_fn(|_| if std::mem::replace(&mut go_on, true) { Poll::Ready(()) } else { Poll::Pending })
                .await;
        }
    }));
    assert!(poll(next.as_mut()).is_pending());
    drop(told.recv().unwrap());
    assert!(poll(next.as_mut()).is_pending());
    for call in &mut calls {
        assert_eq!(poll(call.as_mut()), Poll::Ready(Ok(7)));
    }
    for n in 2..6 {
        word(n);
    }
    assert!(poll(next.as_mut()).is_pending());
    assert_eq!(heard.all(), ["1", "2", "3", "4", "5"]);
}

#[test]
fn what_was_dropped_for_newer_ones_is_not_handled_and_urgent_ones_are() {
    let system = System::new(Seeded::new(1));
    let (address, home) = system.prepare::<u32>(Options::new().capacity(2));
    (0..5).for_each(|n| address.cast(n).drop_oldest().unwrap());
    for n in 10..12 {
        assert!(poll(Box::pin(address.cast(n).urgent().into_future()).as_mut()).is_ready());
    }
    address.drain();
    let run = home.run(Device::new(), |mut mailbox: Mailbox<u32>| async move {
        while mailbox.receive().await.is_some() {}
    });
    assert!(poll(Box::pin(run).as_mut()).is_ready());
    assert_eq!(address.load().handled, 4);
}

/// A process that gives its mailbox away, with what it has in hand, and ends in this way.
fn gives_away(home: &backplane_actor::Home<Mixed>, exit: Exit) -> (Exit, Mailbox<Mixed>) {
    let (tell, told) = std::sync::mpsc::channel();
    let run = home.run(Device::new(), |mut mailbox: Mailbox<Mixed>| async move {
        mailbox.receive().await;
        tell.send(mailbox).unwrap();
        exit
    });
    let mut run = Box::pin(run);
    let Poll::Ready(exit) = poll(run.as_mut()) else { panic!("it ends") };
    (exit, told.recv().unwrap())
}

/// A process that writes down what it is told, and answers seven.
fn answers(log: &Log) -> impl FnOnce(Mailbox<Mixed>) -> Pin<Box<dyn Future<Output = ()> + Send>> + use<> {
    let log = log.clone();
    |mut mailbox| {
        Box::pin(async move {
            while let Some(message) = mailbox.receive().await {
                match message {
                    Mixed::Get(reply) => {
                        log.say("get");
                        reply.send(7);
                    }
                    Mixed::Word(n) => log.say(n.to_string()),
                }
            }
        })
    }
}

#[test]
fn what_a_mailbox_has_in_hand_when_the_last_incarnation_is_over_is_buried_with_it() {
    let system = System::new(Seeded::new(1));
    let (address, home) = system.prepare::<Mixed>(Options::new().capacity(8));
    let word = |n| address.try_cast(Mixed::Word(n)).map_err(drop).unwrap();
    word(0);
    word(1);
    let mut call = Box::pin(address.ask(Mixed::Get));
    assert!(poll(call.as_mut()).is_pending());
    let (exit, kept) = gives_away(&home, Exit::Shutdown);
    assert_eq!(exit, Exit::Shutdown);
    assert!(poll(call.as_mut()).is_pending());
    assert_eq!(system.dead_letters(), 0);
    drop(kept);
    assert_eq!(poll(call.as_mut()), Poll::Ready(Err(CallError::Ended(Exit::Shutdown))));
    assert_eq!(system.dead_letters(), 2);
}

#[test]
fn a_mailbox_that_outlives_its_incarnation_gives_back_what_it_has_and_no_room_is_lost() {
    for receives in [false, true] {
        let system = System::new(Seeded::new(1));
        let (address, home) = system.prepare::<Mixed>(Options::new().capacity(10));
        let word = |n| address.try_cast(Mixed::Word(n)).map_err(drop);
        let call = || {
            let mut call = Box::pin(address.ask(Mixed::Get));
            assert!(poll(call.as_mut()).is_pending());
            call
        };
        // A mailbox of ten gives out five at a time.
        word(0).unwrap();
        let (mut answered, given_up) = (call(), call());
        (1..5).for_each(|n| word(n).unwrap());
        let mut next_ones = call();
        let (exit, mut kept) = gives_away(&home, Exit::Fault(backplane::Fault::error("by request")));
        assert!(exit.is_fault());
        let heard = Log::default();
        let mut next = Box::pin(home.run(Device::new(), answers(&heard)));
        assert_eq!(address.load().normal, 3);
        assert!(poll(next.as_mut()).is_pending());
        assert_eq!(heard.all(), ["3", "4", "get"]);
        assert_eq!(poll(next_ones.as_mut()), Poll::Ready(Ok(7)));
        drop(given_up);
        if receives {
            assert!(matches!(poll(Box::pin(kept.receive()).as_mut()), Poll::Ready(None)));
            assert!(kept.try_receive().is_none());
        }
        drop(kept);
        assert!(poll(next.as_mut()).is_pending());
        assert_eq!(heard.all(), ["3", "4", "get", "get", "1", "2"]);
        assert_eq!(poll(answered.as_mut()), Poll::Ready(Ok(7)));
        assert_eq!(address.load().handled, 8);
        (7..17).for_each(|n| word(n).unwrap());
        assert!(word(17).is_err());
        assert!(poll(next.as_mut()).is_pending());
        assert_eq!(heard.all().len(), 16);
        assert_eq!((address.load().handled, address.load().normal), (18, 0));
        assert_eq!(system.dead_letters(), 0);
    }
}

/// How somebody asks a mailbox that is none any more.
#[derive(Clone, Copy, Debug)]
enum Asked {
    Not,
    Tries,
    Receives,
    Selects,
}

impl Asked {
    fn ask(self, mailbox: &mut Mailbox<Mixed>) {
        match self {
            Asked::Not => {}
            Asked::Tries => assert!(mailbox.try_receive().is_none()),
            Asked::Receives => {
                assert!(matches!(poll(Box::pin(mailbox.receive()).as_mut()), Poll::Ready(None)))
            }
            Asked::Selects => {
                let all = mailbox.receive_where(|_| true);
                assert!(matches!(poll(Box::pin(all).as_mut()), Poll::Ready(Ok(None))));
            }
        }
    }
}

/// It has set some aside, has others in hand, and what waits behind these goes its way when the incarnation ends.
fn what_is_kept_shares_the_lot_of_the_queue(
    dies: bool,
    queue: QueueOnRestart,
    has_begun: bool,
    asked: Asked,
) {
    let system = System::new(Seeded::new(1));
    let (heard, lost) = (Log::default(), Log::default());
    let hook = lost.clone();
    let options = Options::new().capacity(10).queue_on_restart(queue);
    let options = options.dead_letters(move |message, cause| match message {
        Mixed::Get(reply) => {
            drop(reply);
            hook.say(format!("get {cause:?}"));
        }
        Mixed::Word(n) => hook.say(format!("{n} {cause:?}")),
    });
    let (address, home) = system.prepare::<Mixed>(options);
    let word = |n| address.try_cast(Mixed::Word(n)).map_err(drop).unwrap();
    word(0);
    let mut call = Box::pin(address.ask(Mixed::Get));
    assert!(poll(call.as_mut()).is_pending());
    (1..5).for_each(word);
    let end = if dies { Exit::Fault(backplane::Fault::error("by request")) } else { Exit::Shutdown };
    let (tell, told) = std::sync::mpsc::channel();
    let returns = end.clone();
    let first = home.run(Device::new(), |mut mailbox: Mailbox<Mixed>| async move {
        let second = mailbox.receive_where(|message| matches!(message, Mixed::Word(1))).await;
        assert!(matches!(second, Ok(Some(Mixed::Word(1)))));
        tell.send(mailbox).unwrap();
        returns
    });
    assert_eq!(poll(Box::pin(first).as_mut()), Poll::Ready(end.clone()));
    let mut kept = told.recv().unwrap();
    let begin = || {
        let mut next = Box::pin(home.run(Device::new(), answers(&heard)));
        assert!(poll(next.as_mut()).is_pending());
        next
    };
    let mut next = has_begun.then(begin);
    asked.ask(&mut kept);
    drop(kept);
    let mut next = next.take().unwrap_or_else(begin);
    assert!(poll(next.as_mut()).is_pending());
    if dies && queue == QueueOnRestart::Keep {
        let in_order = ["0", "get", "2", "3", "4"];
        let behind = ["4", "0", "get", "2", "3"];
        assert_eq!(heard.all(), if has_begun { behind } else { in_order });
        assert_eq!(lost.all(), Vec::<String>::new());
        assert_eq!(poll(call.as_mut()), Poll::Ready(Ok(7)));
    } else {
        let cause = if dies { "Died" } else { "Stopped" };
        assert_eq!(heard.all(), Vec::<String>::new());
        assert_eq!(lost.all(), ["4", "0", "get", "2", "3"].map(|what| format!("{what} {cause}")));
        assert_eq!(poll(call.as_mut()), Poll::Ready(Err(CallError::Ended(end))));
    }
    assert_eq!((address.load().handled, address.load().normal), (1 + heard.all().len() as u64, 0));
    (10..20).for_each(word);
    assert!(address.try_cast(Mixed::Word(20)).is_err());
}

#[test]
fn what_a_mailbox_has_that_is_kept_for_longer_than_its_incarnation_shares_the_lot_of_the_queue() {
    for dies in [false, true] {
        for queue in [QueueOnRestart::Keep, QueueOnRestart::Drop] {
            for has_begun in [false, true] {
                for asked in [Asked::Not, Asked::Tries, Asked::Receives, Asked::Selects] {
                    let told = catch_unwind(|| {
                        what_is_kept_shares_the_lot_of_the_queue(dies, queue, has_begun, asked);
                    });
                    assert!(told.is_ok(), "{dies} {queue:?} {has_begun} {asked:?}");
                }
            }
        }
    }
}

/// While both run.
#[test]
fn a_mailbox_that_is_none_any_more_gives_nothing_out_that_it_has_set_aside() {
    for asked in [Asked::Tries, Asked::Receives, Asked::Selects] {
        let system = System::new(Seeded::new(1));
        let (address, home) = system.prepare::<Mixed>(Options::new().capacity(2));
        address.try_cast(Mixed::Word(0)).map_err(drop).unwrap();
        address.try_cast(Mixed::Word(1)).map_err(drop).unwrap();
        let mut first = Box::pin(home.run(Device::new(), |mut mailbox: Mailbox<Mixed>| async move {
            let second = mailbox.receive_where(|message| matches!(message, Mixed::Word(1))).await;
            assert!(matches!(second, Ok(Some(Mixed::Word(1)))));
            let mut polled = false;
            poll_fn(|_| if std::mem::replace(&mut polled, true) { Poll::Ready(()) } else { Poll::Pending })
                .await;
            asked.ask(&mut mailbox);
        }));
        assert!(poll(first.as_mut()).is_pending());
        let mut next = Box::pin(home.run(Device::new(), |mut mailbox: Mailbox<Mixed>| async move {
            assert!(matches!(mailbox.receive().await, Some(Mixed::Word(0))));
        }));
        assert!(poll(next.as_mut()).is_pending());
        assert_eq!(poll(first.as_mut()), Poll::Ready(Exit::Normal));
        assert_eq!(poll(next.as_mut()), Poll::Ready(Exit::Normal));
        assert_eq!((system.dead_letters(), address.load().handled), (0, 2));
    }
}

#[test]
fn a_receivers_waker_that_panics_takes_no_callers_time_limit_away() {
    let runtime = Seeded::new(1);
    let system = System::new(runtime.clone());
    let (address, home) = system.prepare::<Reply<u32>>(Options::new());
    let mut run = Box::pin(home.run(Device::new(), |mut mailbox: Mailbox<Reply<u32>>| async move {
        let mut held = Vec::new();
        while let Some(r) = mailbox.receive().await {
            held.push(r);
        }
    }));
    let waker = Waker::from(Arc::new(Angry));
    assert!(run.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    let mut first = Box::pin(address.ask(|reply| reply));
    assert!(poll(first.as_mut()).is_pending());
    drop(first);
    let answer = runtime.run(async {
        smol::future::or(async { Some(address.ask(|reply| reply).await) }, async {
            sleep(&runtime, 60 * SECOND).await;
            None
        })
        .await
    });
    assert_eq!(answer, Some(Err(CallError::TimedOut)));
}

/// Whether one runs or is yet to come, the mailbox lives, and nobody has ended of this call.
#[test]
fn the_caller_of_a_request_that_was_dropped_for_a_newer_message_is_told_of_no_end() {
    let system = System::new(Seeded::new(1));
    let (address, home) = system.prepare::<Mixed>(Options::new().capacity(1));
    let overflows = || {
        let mut call = Box::pin(address.ask(Mixed::Get));
        assert!(poll(call.as_mut()).is_pending());
        address.cast(Mixed::Word(1)).drop_oldest().map_err(drop).unwrap();
        assert_eq!(poll(call.as_mut()), Poll::Ready(Err(CallError::NoReply)));
    };
    overflows();
    let run = home.run(Device::new(), |mut mailbox: Mailbox<Mixed>| async move {
        while mailbox.receive().await.is_some() {}
    });
    let mut run = Box::pin(run);
    assert!(poll(run.as_mut()).is_pending());
    overflows();
    assert!(poll(run.as_mut()).is_pending());
    drop(run);
    overflows();
    assert_eq!((system.dead_letters(), address.load().handled), (3, 2));
}

fn with_waker<F: Future + ?Sized>(future: Pin<&mut F>, waker: &Waker) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(waker))
}

#[test]
fn the_waker_of_one_who_waits_for_room_harms_neither_the_receiver_nor_who_waits_behind() {
    for drains in [false, true] {
        let system = System::new(Seeded::new(1));
        let (address, home) = system.prepare::<u32>(Options::new().capacity(2));
        (0..2).for_each(|n| address.try_cast(n).unwrap());
        let heard = Arc::new(Count::default());
        let (angry, heard_by) = (Waker::from(Arc::new(Angry)), Waker::from(Arc::clone(&heard)));
        let mut first = Box::pin(address.cast(2).into_future());
        let mut second = Box::pin(address.cast(3).into_future());
        assert!(with_waker(first.as_mut(), &angry).is_pending());
        assert!(with_waker(second.as_mut(), &heard_by).is_pending());
        if drains {
            address.drain();
        } else {
            let mut run = Box::pin(home.run(Device::new(), |mut mailbox: Mailbox<u32>| async move {
                for n in 0..4 {
                    assert_eq!(mailbox.receive().await, Some(n));
                }
            }));
            assert_eq!(poll(run.as_mut()), Poll::Ready(Exit::Normal));
            assert!(poll(first.as_mut()).is_ready());
        }
        assert_eq!(heard.get(), 1);
    }
}

#[test]
fn what_is_dropped_for_a_newer_message_is_buried_though_the_receivers_waker_panics() {
    let system = System::new(Seeded::new(1));
    let (address, home) = system.prepare::<u32>(Options::new().capacity(1));
    let mut run = Box::pin(home.run(Device::new(), |mut mailbox: Mailbox<u32>| async move {
        while mailbox.receive().await.is_some() {}
    }));
    address.suspend();
    address.try_cast(1).unwrap();
    assert!(with_waker(run.as_mut(), &Waker::from(Arc::new(Angry))).is_pending());
    address.cast(2).drop_oldest().unwrap();
    assert_eq!((system.dead_letters(), address.load().normal), (1, 1));
}

#[test]
fn the_waker_of_a_caller_harms_neither_who_answers_nor_who_takes_its_right_to() {
    for answers in [true, false] {
        let system = System::new(Seeded::new(1));
        let (address, home) = system.prepare::<Reply<u32>>(Options::new());
        let mut run = Box::pin(home.run(Device::new(), |mut mailbox: Mailbox<Reply<u32>>| async move {
            while let Some(reply) = mailbox.receive().await {
                if answers {
                    reply.send(7);
                }
            }
        }));
        let waker = Waker::from(Arc::new(Angry));
        let mut angry = Box::pin(address.ask(|reply| reply).forever());
        assert!(with_waker(angry.as_mut(), &waker).is_pending());
        let mut calm = Box::pin(address.ask(|reply| reply).forever());
        assert!(poll(calm.as_mut()).is_pending());
        assert!(poll(run.as_mut()).is_pending());
        let told = if answers { Ok(7) } else { Err(CallError::NoReply) };
        assert_eq!(poll(angry.as_mut()), Poll::Ready(told.clone()));
        assert_eq!(poll(calm.as_mut()), Poll::Ready(told));
    }
}

#[test]
fn the_waker_of_a_receiver_harms_nobody_who_sends_to_it_or_says_something_of_it() {
    type Say = fn(&Address<u32>);
    let says: [(&str, Say); 7] = [
        ("casts", |it| it.try_cast(1).unwrap()),
        ("is urgent", |it| assert!(poll(Box::pin(it.cast(1).urgent().into_future()).as_mut()).is_ready())),
        ("drops the oldest", |it| it.cast(1).drop_oldest().unwrap()),
        ("stops", |it| assert!(it.stop(Exit::Shutdown))),
        ("drains", |it| it.drain()),
        ("suspends", |it| it.suspend()),
        ("resumes", |it| it.resume()),
    ];
    for (what, say) in says {
        let system = System::new(Seeded::new(1));
        let (address, home) = system.prepare::<u32>(Options::new());
        let mut run = Box::pin(home.run(Device::new(), |mut mailbox: Mailbox<u32>| async move {
            mailbox.receive().await;
        }));
        assert!(with_waker(run.as_mut(), &Waker::from(Arc::new(Angry))).is_pending());
        assert!(catch_unwind(AssertUnwindSafe(|| say(&address))).is_ok(), "{what}");
        let goes_on = what == "suspends" || what == "resumes";
        assert_eq!(poll(run.as_mut()).is_pending(), goes_on, "{what}");
    }
    let system = System::new(Seeded::new(1));
    let (address, home) = system.prepare::<u32>(Options::new());
    let mut run = Box::pin(home.run(Device::new(), |mut mailbox: Mailbox<u32>| async move {
        assert_eq!(mailbox.receive().await, None);
    }));
    assert!(with_waker(run.as_mut(), &Waker::from(Arc::new(Angry))).is_pending());
    drop(home);
    // The last address.
    drop(address);
    assert_eq!(poll(run.as_mut()), Poll::Ready(Exit::Normal));
}

struct Cell(u32);

impl Actor for Cell {
    type Messages = ();
    type Error = Infallible;
}

#[test]
fn nobody_looks_inside_for_a_caller_that_has_gone() {
    let system = System::new(Seeded::new(1));
    let (address, home) = system.prepare::<Envelope<Cell>>(Options::new());
    let mut gone = Box::pin(address.inspect(|cell| cell.0 += 1));
    let mut stays = Box::pin(address.inspect(|cell| cell.0));
    assert!(poll(gone.as_mut()).is_pending() && poll(stays.as_mut()).is_pending());
    drop(gone);
    let mut run = Box::pin(home.run_actor(Device::new(), Cell(0)));
    assert!(poll(run.as_mut()).is_pending());
    assert_eq!(poll(stays.as_mut()), Poll::Ready(Ok(0)));
}

#[test]
fn the_waker_of_who_waits_for_a_start_does_not_end_it() {
    let runtime = Seeded::new(1);
    let system = System::new(runtime.clone());
    let mut start = Box::pin(system.start_and_wait(Options::new(), Cell(3)));
    assert!(with_waker(start.as_mut(), &Waker::from(Arc::new(Angry))).is_pending());
    runtime.run(async {
        sleep(&runtime, SECOND).await;
        let Poll::Ready(Ok(cell)) = poll(start.as_mut()) else { panic!("it has started") };
        assert_eq!(cell.inspect(|cell| cell.0).await, Ok(3));
    });
}
