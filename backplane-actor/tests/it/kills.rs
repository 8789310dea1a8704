//! Random casts, calls, kills and restarts: nothing is lost, nothing comes twice, and each sender's order is kept.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use backplane::{Exit, Runtime};
use backplane_actor::{Mailbox, Options, QueueOnRestart, System, testing::Seeded};
use backplane_supervisor::{Intensity, RestartStrategy, Supervisor};
use proptest::prelude::*;

use crate::{random::Random, support::SECOND};

#[derive(Clone, Copy, Debug)]
enum Act {
    Cast,
    TryCast,
    Urgent,
    DropOldest,
    Yield,
    Kill,
    Poison,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => Just(Act::Cast),
        4 => Just(Act::TryCast),
        2 => Just(Act::Urgent),
        1 => Just(Act::DropOldest),
        2 => Just(Act::Yield),
        1 => Just(Act::Kill),
        1 => Just(Act::Poison),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Message {
    sender: u8,
    urgent: bool,
    number: u32,
    kills: bool,
}

/// What became of each message that was accepted.
#[derive(Default)]
struct Book {
    handled: Vec<Message>,
    buried: Vec<Message>,
}

async fn pause(runtime: &Seeded) {
    runtime.sleep_until(runtime.now() + SECOND / 1000).await;
}

/// A mailbox that is given to somebody else at the end, who has it for longer than it is one.
struct Outlives(Option<Mailbox<Message>>, Seeded);

impl Drop for Outlives {
    fn drop(&mut self) {
        let (mut mailbox, clock) = (self.0.take(), self.1.clone());
        let task = self.1.spawn(async move {
            pause(&clock).await;
            // What it gave out here would be lost.
            let _ = mailbox.as_mut().and_then(Mailbox::try_receive);
            pause(&clock).await;
            drop(mailbox);
        });
        self.1.detach(task);
    }
}

/// Receives in any order, asks what it wants in a way that may panic, and may give its mailbox away.
async fn receive_anyhow(
    mailbox: Mailbox<Message>,
    mut random: Random,
    clock: Seeded,
    book: Arc<Mutex<Book>>,
) {
    let mut mailbox = Outlives(Some(mailbox), clock.clone());
    let own = random.below(2) == 0;
    let mut kept = if own { mailbox.0.take() } else { None };
    while let Some(mailbox) = kept.as_mut().or(mailbox.0.as_mut()) {
        let (odd, panics) = (random.below(2) as u32, random.below(6) == 0);
        let mut message = None;
        if random.below(2) == 0 {
            let wanted = mailbox.receive_where(|message| {
                assert!(!panics || message.number % 3 > 0, "at a message");
                message.number % 2 == odd
            });
            let late = async {
                pause(&clock).await;
                None
            };
            message = smol::future::or(async { wanted.await.ok().flatten() }, late).await;
        }
        if message.is_none() {
            message = mailbox.receive().await;
        }
        let Some(message) = message else { break };
        book.lock().unwrap().handled.push(message);
        assert!(!message.kills, "poison");
    }
}

async fn receive_in_order(mut mailbox: Mailbox<Message>, capacity: usize, book: Arc<Mutex<Book>>) {
    while let Some(message) = mailbox.receive().await {
        assert!(mailbox.len() <= 2 * capacity, "{} of {capacity}", mailbox.len());
        book.lock().unwrap().handled.push(message);
        assert!(!message.kills, "poison");
    }
}

fn tell(seed: u64, capacity: usize, drops: bool, in_order: bool, scripts: [Vec<Act>; 3]) {
    let runtime = Seeded::new(seed);
    let system = System::new(runtime.clone());
    let book = Arc::new(Mutex::new(Book::default()));
    let (handling, burying) = (Arc::clone(&book), Arc::clone(&book));
    let queue = if drops { QueueOnRestart::Drop } else { QueueOnRestart::Keep };
    let options =
        Options::new().capacity(capacity).queue_on_restart(queue).dead_letters(move |message: Message, _| {
            burying.lock().unwrap().buried.push(message);
        });
    let (clock, lives) = (runtime.clone(), AtomicU64::new(seed));
    let (address, spec) = system.child_process("it", options, move |mailbox: Mailbox<Message>| {
        let (clock, book) = (clock.clone(), Arc::clone(&handling));
        let random = Random(lives.fetch_add(1, Ordering::Relaxed));
        async move {
            if in_order {
                receive_in_order(mailbox, capacity, book).await;
            } else {
                receive_anyhow(mailbox, random, clock, book).await;
            }
        }
    });
    let accepted = Arc::new(Mutex::new(Vec::new()));
    let story = async {
        let tree = Supervisor::new(RestartStrategy::OneForOne)
            .intensity(Intensity { restarts: 1000, period: SECOND })
            .child(spec);
        let handle = tree.start(runtime.clone()).await.unwrap();
        let mut senders = Vec::new();
        for (sender, script) in scripts.into_iter().enumerate() {
            let (address, accepted, runtime_) = (address.clone(), Arc::clone(&accepted), runtime.clone());
            let (tell, done) = flag();
            senders.push((
                done,
                runtime.spawn(async move {
                    for (number, act) in script.into_iter().enumerate() {
                        let message = |urgent, kills| Message {
                            sender: sender as u8,
                            urgent,
                            number: number as u32,
                            kills,
                        };
                        let sent = match act {
                            Act::Cast => Some((message(false, false), None)),
                            Act::Poison => Some((message(false, true), None)),
                            Act::TryCast => {
                                let message = message(false, false);
                                Some((message, Some(address.try_cast(message).is_ok())))
                            }
                            Act::Urgent => {
                                let message = message(true, false);
                                Some((message, Some(address.cast(message).urgent().now().is_ok())))
                            }
                            Act::DropOldest => {
                                let message = message(false, false);
                                Some((message, Some(address.cast(message).drop_oldest().is_ok())))
                            }
                            Act::Yield => {
                                pause(&runtime_).await;
                                None
                            }
                            Act::Kill => {
                                address.kill();
                                None
                            }
                        };
                        if let Some((message, sent)) = sent {
                            let sent = match sent {
                                Some(sent) => sent,
                                None => address.cast(message).await.is_ok(),
                            };
                            if sent {
                                accepted.lock().unwrap().push(message);
                            }
                        }
                    }
                    tell.open();
                }),
            ));
        }
        for (done, task) in senders {
            done.wait(&runtime).await;
            drop(task);
        }
        address.drain();
        // Until it has ended for good, or never runs again.
        for _ in 0..10 {
            pause(&runtime).await;
        }
        handle.stop(Exit::Shutdown).await.unwrap();
        drop(handle);
        for _ in 0..10 {
            pause(&runtime).await;
        }
        let (load, handled) = (address.load(), book.lock().unwrap().handled.len() as u64);
        assert_eq!((load.normal, load.urgent, load.system, load.handled), (0, 0, 0, handled));
    };
    runtime.run(story);
    let book = book.lock().unwrap();
    let mut fates: HashMap<Message, u32> = HashMap::new();
    for message in book.handled.iter().chain(&book.buried) {
        *fates.entry(*message).or_default() += 1;
    }
    for message in accepted.lock().unwrap().iter() {
        assert_eq!(fates.remove(message), Some(1), "{message:?}");
    }
    assert!(fates.is_empty(), "never accepted: {fates:?}");
    if !in_order {
        return;
    }
    for sender in 0..3 {
        for urgent in [false, true] {
            let of = |message: &&Message| message.sender == sender && message.urgent == urgent;
            let numbers: Vec<u32> = book.handled.iter().filter(of).map(|message| message.number).collect();
            assert!(numbers.is_sorted(), "{numbers:?}");
        }
    }
}

/// A flag that a task sets at its end, looked at now and then.
#[derive(Clone, Default)]
struct Flag(Arc<Mutex<bool>>);

fn flag() -> (Flag, Flag) {
    let flag = Flag::default();
    (flag.clone(), flag)
}

impl Flag {
    fn open(&self) {
        *self.0.lock().unwrap() = true;
    }

    async fn wait(&self, runtime: &Seeded) {
        while !*self.0.lock().unwrap() {
            pause(runtime).await;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_and_nothing_comes_twice_and_senders_keep_their_order(
        seed in any::<u64>(),
        capacity in 1..6usize,
        drops in any::<bool>(),
        a in prop::collection::vec(act(), 0..20),
        b in prop::collection::vec(act(), 0..20),
        c in prop::collection::vec(act(), 0..20),
    ) {
        tell(seed, capacity, drops, true, [a, b, c]);
    }

    #[test]
    fn nothing_is_lost_and_nothing_comes_twice_in_whatever_order_it_is_received(
        seed in any::<u64>(),
        capacity in 1..6usize,
        drops in any::<bool>(),
        a in prop::collection::vec(act(), 0..20),
        b in prop::collection::vec(act(), 0..20),
        c in prop::collection::vec(act(), 0..20),
    ) {
        tell(seed, capacity, drops, false, [a, b, c]);
    }
}
