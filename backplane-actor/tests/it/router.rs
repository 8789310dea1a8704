//! Many workers behind one address.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    pin::pin,
    sync::{Arc, Mutex},
    task::Poll,
    time::Duration,
};

use backplane::{Exit, Runtime};
use backplane_actor::{
    Actor, Address, Context, DeadLetter, Envelope, Handle, Mailbox, Options, Overload, Reply, Router,
    RouterStats, Routing, Scaling, System, TryCastError,
};
use backplane_supervisor::Intensity;

use crate::{
    random::Random,
    world::{World, poll},
};

const MS: Duration = Duration::from_millis(1);

enum Job {
    /// Takes this long.
    Work(u64, Duration),
    Who(Reply<String>),
    Crash,
    Quit,
}

type Done = Arc<Mutex<Vec<(String, u64)>>>;
type Buried = Arc<Mutex<Vec<(u64, DeadLetter)>>>;

struct Story {
    world: World,
    system: System<World>,
    done: Done,
    buried: Buried,
}

impl Story {
    fn new() -> Story {
        let world = World::new();
        Story { system: System::new(world.clone()), world, done: Done::default(), buried: Buried::default() }
    }

    fn bury(&self) -> Options<Job> {
        let buried = Arc::clone(&self.buried);
        Options::new().dead_letters(move |job, cause| {
            if let Job::Work(number, _) = job {
                buried.lock().unwrap().push((number, cause));
            }
        })
    }

    fn router(&self) -> Router<Job> {
        let (world, done) = (self.world.clone(), Arc::clone(&self.done));
        let work = move |mut jobs: Mailbox<Job>| {
            let (world, done, me) = (world.clone(), Arc::clone(&done), jobs.name().to_string());
            async move {
                while let Some(job) = jobs.receive().await {
                    match job {
                        Job::Work(number, time) => {
                            world.sleep_until(world.now() + time).await;
                            done.lock().unwrap().push((me.clone(), number));
                        }
                        Job::Who(reply) => reply.send(me.clone()),
                        Job::Crash => panic!("odd job"),
                        Job::Quit => return,
                    }
                }
            }
        };
        Router::new(work)
            .mailbox(self.bury())
            .worker_mailbox(self.bury().capacity(1))
            .intensity(Intensity { restarts: 1000, period: Duration::from_secs(1) })
    }

    fn start(&self, router: Router<Job>) -> (Address<Job>, Arc<RouterStats>) {
        let stats = router.stats();
        let address = router.start(&self.system);
        self.world.run();
        (address, stats)
    }

    /// How many each worker has done.
    fn shares(&self) -> Vec<usize> {
        let mut shares: BTreeMap<String, usize> = BTreeMap::new();
        for (worker, _) in self.done.lock().unwrap().iter() {
            *shares.entry(worker.clone()).or_default() += 1;
        }
        shares.into_values().collect()
    }

    fn done(&self) -> Vec<u64> {
        let mut done: Vec<u64> = self.done.lock().unwrap().iter().map(|(_, number)| *number).collect();
        done.sort_unstable();
        done
    }

    fn buried(&self) -> Vec<(u64, DeadLetter)> {
        self.buried.lock().unwrap().clone()
    }
}

#[test]
fn workers_take_turns() {
    let story = Story::new();
    let (address, stats) = story.start(story.router().workers(3..=3));
    assert_eq!(stats.workers(), 3);
    for number in 0..9 {
        address.try_cast(Job::Work(number, Duration::ZERO)).unwrap();
        story.world.run();
    }
    assert_eq!(story.shares(), [3, 3, 3]);
    assert_eq!(stats.routed(), 9);
}

#[test]
fn whoever_has_least_to_do_gets_it() {
    let story = Story::new();
    let router = story.router().workers(2..=2).routing(Routing::least_loaded());
    let (address, _) = story.start(router);
    address.try_cast(Job::Work(0, 1000 * MS)).unwrap();
    story.world.run();
    for number in 1..6 {
        address.try_cast(Job::Work(number, MS)).unwrap();
        story.world.advance(2 * MS);
    }
    // All but the long one went to the other.
    assert_eq!(story.done(), [1, 2, 3, 4, 5]);
    assert_eq!(story.shares(), [5]);
}

#[test]
fn a_key_sticks_to_its_worker_also_when_that_is_started_again() {
    let story = Story::new();
    let by_number = Routing::by_key(|job: &Job| match job {
        Job::Work(number, _) => number % 10,
        _ => 3,
    });
    let (address, _) = story.start(story.router().workers(4..=4).routing(by_number));
    let cast = |number| {
        address.try_cast(Job::Work(number, MS)).unwrap();
    };
    (0..100).for_each(cast);
    story.world.advance(1000 * MS);
    address.try_cast(Job::Crash).unwrap();
    (100..200).for_each(cast);
    story.world.advance(1000 * MS);
    let mut whose: HashMap<u64, &str> = HashMap::new();
    let mut last: HashMap<u64, u64> = HashMap::new();
    let done = story.done.lock().unwrap();
    for (worker, number) in done.iter() {
        assert_eq!(*whose.entry(number % 10).or_insert(worker), worker);
        // And in order.
        assert!(last.insert(number % 10, *number).is_none_or(|before| before < *number));
    }
    assert_eq!(done.len(), 200);
    assert!(whose.into_values().collect::<HashSet<_>>().len() > 1);
}

/// Who handles an order, and how many it has handled.
#[derive(Default)]
struct Desk(u32);
#[derive(Clone, Copy)]
struct Order(u64);
struct Fire;

impl Actor for Desk {
    type Messages = (Order, Fire);
    type Error = &'static str;
}

impl Handle<Order> for Desk {
    type Reply = (String, u32);

    async fn handle(&mut self, _: Order, cx: &mut Context<Self>) -> Result<(String, u32), &'static str> {
        self.0 += 1;
        Ok((cx.name().to_string(), self.0))
    }
}

impl Handle<Fire> for Desk {
    type Reply = ();

    async fn handle(&mut self, Fire: Fire, _: &mut Context<Self>) -> Result<(), &'static str> {
        Err("fired")
    }
}

#[test]
fn actors_are_workers_too_and_a_key_is_found_in_their_messages() {
    let story = Story::new();
    let by_order = Routing::by_key(|message: &Envelope<Desk>| message.get::<Order, _>().map(|order| order.0));
    let desks = Router::actors(Desk::default).workers(4..=4).routing(by_order).start(&story.system);
    let ask = |number| {
        let desks = desks.clone();
        story.world.block_on(async move { desks.call(Order(number)).await.unwrap() })
    };
    let whose: Vec<String> = (0..20).map(|number| ask(number).0).collect();
    assert!(whose.iter().collect::<HashSet<_>>().len() > 1);
    let before = ask(7).1;
    for (number, desk) in whose.iter().enumerate() {
        assert_eq!(&ask(number as u64).0, desk);
    }
    assert!(ask(7).1 > before);
    // All that have no order to go by are of one key: one desk forgets what it has counted, and is there again.
    desks.try_cast(Fire).unwrap();
    story.world.run();
    let counts: Vec<u32> = (0..20).map(|number| ask(number).1).collect();
    assert!(counts.contains(&1), "{counts:?}");
    assert_eq!((0..20).map(|number| ask(number).0).collect::<Vec<_>>(), whose);
}

#[test]
fn a_broadcast_reaches_each_worker_and_shares_what_it_carries() {
    let story = Story::new();
    let heard: Arc<Mutex<Vec<Arc<str>>>> = Arc::default();
    let router = {
        let heard = Arc::clone(&heard);
        Router::new(move |mut mailbox: Mailbox<Arc<str>>| {
            let heard = Arc::clone(&heard);
            async move {
                while let Some(words) = mailbox.receive().await {
                    heard.lock().unwrap().push(words);
                }
            }
        })
    };
    let address = router.workers(3..=3).routing(Routing::broadcast()).start(&story.system);
    let words: Arc<str> = "all hands".into();
    for _ in 0..5 {
        address.try_cast(Arc::clone(&words)).unwrap();
    }
    story.world.run();
    assert_eq!(heard.lock().unwrap().len(), 15);
    assert!(heard.lock().unwrap().iter().all(|one| Arc::ptr_eq(one, &words)));
}

#[test]
fn a_call_is_answered_by_a_worker_and_a_worker_that_crashes_is_started_again() {
    let story = Story::new();
    let (address, stats) = story.start(story.router().workers(2..=2));
    for _ in 0..10 {
        address.try_cast(Job::Crash).unwrap();
        story.world.run();
        let who = story.world.block_on(address.ask(Job::Who)).unwrap();
        assert!(!who.is_empty());
    }
    assert_eq!(stats.workers(), 2);
}

#[test]
fn a_worker_that_ends_well_is_replaced() {
    let story = Story::new();
    let (address, stats) = story.start(story.router().workers(2..=2));
    let mut known = HashSet::new();
    for _ in 0..10 {
        address.try_cast(Job::Quit).unwrap();
        story.world.run();
        assert_eq!(stats.workers(), 2);
        known.insert(story.world.block_on(address.ask(Job::Who)).unwrap());
    }
    assert!(known.len() > 2);
}

#[test]
fn when_too_many_workers_fail_the_router_fails() {
    let story = Story::new();
    let few = Intensity { restarts: 2, period: Duration::from_secs(5) };
    let (address, _) = story.start(story.router().intensity(few));
    for _ in 0..4 {
        drop(address.try_cast(Job::Crash));
        story.world.run();
    }
    let exit = story.world.block_on(address.ended()).unwrap();
    assert!(exit.to_string().contains("too many workers failed"), "{exit}");
}

#[test]
fn workers_come_when_there_is_much_to_do_and_go_when_there_is_little_and_nothing_is_lost() {
    let story = Story::new();
    let scaling = Scaling { up_above: 3, up_after: 100 * MS, down_below: 1, down_after: 500 * MS };
    let (address, stats) = story.start(story.router().workers(1..=4).scaling(scaling));
    for number in 0..100 {
        address.try_cast(Job::Work(number, 50 * MS)).unwrap();
    }
    // Not at once.
    story.world.advance(90 * MS);
    assert_eq!(stats.workers(), 1);
    story.world.advance(20 * MS);
    assert_eq!(stats.workers(), 2);
    story.world.advance(1000 * MS);
    assert_eq!(stats.workers(), 4);
    // All is done soon, and they are not sent away at once either.
    story.world.advance(800 * MS);
    assert_eq!((story.done().len(), stats.workers()), (100, 4));
    story.world.advance(5000 * MS);
    assert_eq!((stats.workers(), stats.draining()), (1, 0));
    assert_eq!(story.done(), (0..100).collect::<Vec<_>>());
    assert_eq!(story.buried(), []);
}

#[test]
fn a_load_between_the_two_bounds_changes_nothing() {
    let story = Story::new();
    let scaling = Scaling { up_above: 4, up_after: 50 * MS, down_below: 1, down_after: 50 * MS };
    let (address, stats) = story.start(story.router().workers(1..=4).scaling(scaling));
    for number in 0..200 {
        // One comes as fast as one is done, so two or three are always there.
        address.try_cast(Job::Work(number, 10 * MS)).unwrap();
        if number >= 2 {
            story.world.advance(10 * MS);
        }
        assert_eq!(stats.workers(), 1);
    }
}

#[test]
fn what_has_waited_for_too_long_goes_to_the_dead_letters() {
    let story = Story::new();
    let (address, stats) = story.start(story.router().time_to_live(100 * MS));
    for number in 0..6 {
        address.try_cast(Job::Work(number, 80 * MS)).unwrap();
    }
    story.world.advance(1000 * MS);
    // One was being done, one was in its mailbox, and one got in in time.
    assert_eq!(story.done(), [0, 1, 2]);
    assert_eq!(story.buried(), [3, 4, 5].map(|number| (number, DeadLetter::Expired)));
    assert_eq!((stats.expired(), stats.queued()), (3, 0));
}

#[test]
fn under_overload_the_oldest_or_the_newest_goes_or_senders_wait() {
    for (overload, dropped) in [(Overload::DropOldest, vec![3, 4]), (Overload::DropNewest, vec![8, 9])] {
        let story = Story::new();
        let (address, stats) = story.start(story.router().queue(5).overload(overload));
        for number in 0..10 {
            address.try_cast(Job::Work(number, 10 * MS)).unwrap();
            story.world.run();
        }
        let expected: Vec<_> = dropped.iter().map(|number| (*number, DeadLetter::Overflow)).collect();
        assert_eq!((story.buried(), stats.shed()), (expected, 2), "{overload:?}");
        story.world.advance(1000 * MS);
        assert_eq!(story.done().len(), 8);
    }

    let story = Story::new();
    let mailbox = story.bury().capacity(2);
    let (address, _) = story.start(story.router().queue(1).mailbox(mailbox));
    let mut sent = 0;
    let refused = loop {
        match address.try_cast(Job::Work(sent, 10 * MS)) {
            Ok(()) => sent += 1,
            Err(refused) => break refused,
        }
        story.world.run();
        assert!(sent < 20);
    };
    assert!(matches!(refused, TryCastError::Full(Job::Work(..))));
    let mut waits = pin!(async { address.cast(Job::Work(sent, 10 * MS)).await.is_ok() });
    assert!(poll(waits.as_mut()).is_pending());
    story.world.advance(15 * MS);
    assert_eq!(poll(waits.as_mut()), Poll::Ready(true));
    story.world.advance(1000 * MS);
    assert_eq!((story.done().len() as u64, story.buried()), (sent + 1, vec![]));
}

#[test]
fn a_router_that_is_drained_finishes_what_it_has_accepted() {
    let story = Story::new();
    let (address, _) = story.start(story.router().workers(2..=2));
    for number in 0..20 {
        address.try_cast(Job::Work(number, 10 * MS)).unwrap();
    }
    address.drain();
    assert!(address.try_cast(Job::Work(99, MS)).is_err());
    story.world.advance(1000 * MS);
    assert_eq!(story.world.block_on(address.ended()), Some(Exit::Normal));
    assert_eq!((story.done().len(), story.buried().len()), (20, 0));
}

#[test]
fn a_router_that_is_stopped_hands_back_what_nobody_has_begun() {
    let story = Story::new();
    let (address, _) = story.start(story.router().workers(2..=2));
    for number in 0..20 {
        address.try_cast(Job::Work(number, 10 * MS)).unwrap();
    }
    story.world.advance(15 * MS);
    address.stop(Exit::Shutdown);
    story.world.advance(10_000 * MS);
    assert_eq!(story.world.block_on(address.ended()), Some(Exit::Shutdown));
    let mut all = story.done();
    all.extend(story.buried().iter().map(|(number, _)| *number));
    all.sort_unstable();
    assert_eq!(all, (0..20).collect::<Vec<_>>());
}

/// Whatever crashes, quits, scales, expires or is shed: each message is done, handed back, or was the one being handled.
#[test]
fn nothing_is_lost_and_nothing_is_done_twice() {
    for seed in 0..60 {
        let mut random = Random(seed);
        let story = Story::new();
        let routing = match seed % 3 {
            0 => Routing::round_robin(),
            1 => Routing::least_loaded(),
            _ => Routing::by_key(|job: &Job| if let Job::Work(number, _) = job { number % 7 } else { 0 }),
        };
        let overload = [Overload::DropOldest, Overload::DropNewest, Overload::Wait][seed as usize / 3 % 3];
        let scaling = Scaling { up_above: 2, up_after: 5 * MS, down_below: 1, down_after: 20 * MS };
        let mut router =
            story.router().workers(1..=4).scaling(scaling).routing(routing).overload(overload).queue(8);
        if seed % 2 == 0 {
            router = router.time_to_live(30 * MS);
        }
        let (address, stats) = story.start(router);
        let mut accepted = Vec::new();
        for number in 0..300 {
            match random.below(20) {
                0 => drop(address.try_cast(Job::Crash)),
                1 => drop(address.try_cast(Job::Quit)),
                2..=5 => story.world.advance(random.below(40) as u32 * MS),
                _ => {
                    if address.try_cast(Job::Work(number, random.below(8) as u32 * MS)).is_ok() {
                        accepted.push(number);
                    }
                    if random.below(3) == 0 {
                        story.world.run();
                    }
                }
            }
        }
        story.world.advance(1000 * MS);
        assert_eq!(stats.queued(), 0, "seed {seed}");
        address.drain();
        story.world.advance(60_000 * MS);
        let mut all = story.done();
        all.extend(story.buried().iter().map(|(number, _)| *number));
        all.sort_unstable();
        assert_eq!(all, accepted, "seed {seed}");
        assert!(
            story.world.block_on(address.ended()).is_some_and(|exit| exit == Exit::Normal),
            "seed {seed}"
        );
    }
}
