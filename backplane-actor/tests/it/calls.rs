//! Calls that are given up, panicked on or answered at odd moments: each ends once, and leaves nothing behind.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use backplane::{Device, Exit, Runtime};
use backplane_actor::{
    Address, CallError, Mailbox, Next, Options, Reply, StateMachine, Turn, run_machine,
    testing::{Probe, Seeded},
};

use backplane_supervisor::{Intensity, RestartStrategy, Supervisor};

use crate::support::{Log, SECOND, story};

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
        assert_eq!(address.ask(|reply: Reply<u32>| drop(reply)).within(SECOND).await, Err(CallError::NoReply));
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
        let (address, spec) = system.child_process("it", Options::new(), |mut mailbox: Mailbox<Reply<u32>>| async move {
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

struct Angry;

impl Wake for Angry {
    fn wake(self: Arc<Self>) {
        panic!("angry");
    }
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
