//! Random casts, calls, kills and restarts: nothing is lost, nothing comes twice, and each sender's order is kept.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use backplane::{Exit, Runtime};
use backplane_actor::{Mailbox, Options, System, testing::Seeded};
use backplane_supervisor::{Intensity, RestartStrategy, Supervisor};
use proptest::prelude::*;

use crate::support::SECOND;

#[derive(Clone, Copy, Debug)]
enum Act {
    Cast,
    TryCast,
    Urgent,
    Yield,
    Kill,
    Poison,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => Just(Act::Cast),
        4 => Just(Act::TryCast),
        2 => Just(Act::Urgent),
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

fn tell(seed: u64, capacity: usize, scripts: [Vec<Act>; 3]) {
    let runtime = Seeded::new(seed);
    let system = System::new(runtime.clone());
    let book = Arc::new(Mutex::new(Book::default()));
    let (handling, burying) = (Arc::clone(&book), Arc::clone(&book));
    let options = Options::new().capacity(capacity).dead_letters(move |message: Message, _| {
        burying.lock().unwrap().buried.push(message);
    });
    let (address, spec) = system.child_process("it", options, move |mut mailbox: Mailbox<Message>| {
        let handling = Arc::clone(&handling);
        async move {
            while let Some(message) = mailbox.receive().await {
                assert!(mailbox.len() <= 2 * capacity, "{} of {capacity}", mailbox.len());
                handling.lock().unwrap().handled.push(message);
                assert!(!message.kills, "poison");
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
        drop((handle, address));
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
        a in prop::collection::vec(act(), 0..20),
        b in prop::collection::vec(act(), 0..20),
        c in prop::collection::vec(act(), 0..20),
    ) {
        tell(seed, capacity, [a, b, c]);
    }
}
