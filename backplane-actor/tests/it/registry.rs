//! One name, one owner. What begins with `s` and a number is that statement of OTP's.

use std::{
    collections::HashMap,
    hash::{Hash, Hasher},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use backplane::{Device, Exit, Line, LinkMode, Message, Runtime};
use backplane_actor::{
    Actor, Address, DuplicateRegistry, Envelope, Mailbox, NotRegistered, Options, RegisterError, Registry,
    System, TransferError, UnregisterError, WeakAddress,
};
use backplane_supervisor::{Intensity, RestartStrategy, Supervisor};

use crate::{
    random::Random,
    world::{Angry, Count, OnWake, World, poll},
};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn s40_a_name_has_at_most_one_owner_and_an_owner_at_most_one_name() {
    let names = Registry::one_name_each();
    let (a, b, dead) = (Device::new(), Device::new(), Device::new());
    let gone = dead.line();
    drop(dead);
    names.register("a", &a.line(), 1).unwrap();

    let taken = names.register("a", &b.line(), 2).unwrap_err();
    assert_eq!(taken.holder().map(|holder| (holder.owner, holder.value)), Some((a.line(), 1)));
    assert_eq!(taken.into_inner(), ("a", 2));
    let named = names.register("b", &a.line(), 3).unwrap_err();
    assert_eq!(named, RegisterError::Named { name: "b", value: 3 });
    let ended = names.register("b", &gone, 4).unwrap_err();
    assert_eq!(ended, RegisterError::Ended { name: "b", value: 4 });

    // N6: after unregister it may have another.
    assert_eq!(names.unregister("a"), Some(1));
    names.register("b", &a.line(), 5).unwrap();
    assert_eq!(names.names_of(&a.line()), ["b"]);
}

#[test]
fn the_waker_of_one_who_waits_for_a_name_harms_neither_who_takes_it_nor_who_waits_too() {
    let (names, owner) = (Registry::<&str, u32>::new(), Device::new());
    let (mut angry, mut calm) = (pin!(names.wait_for("name")), pin!(names.wait_for("name")));
    let heard = Arc::new(Count::default());
    let (panics, counts) = (Waker::from(Arc::new(Angry)), Waker::from(Arc::clone(&heard)));
    assert!(angry.as_mut().poll(&mut Context::from_waker(&panics)).is_pending());
    assert!(calm.as_mut().poll(&mut Context::from_waker(&counts)).is_pending());
    assert_eq!(names.register("name", &owner.line(), 1), Ok(()));
    assert_eq!(heard.get(), 1);
}

#[test]
fn s41_a_name_is_free_before_anybody_is_told_of_its_owners_end() {
    for _ in 0..1000 {
        let names: Registry<&str, u32> = Registry::new();
        let (mut watcher, owner, successor) = (Device::new(), Device::new(), Device::new());
        watcher.link(&owner, LinkMode::Monitor);
        names.register("name", &owner.line(), 1).unwrap();
        let got = Arc::new(AtomicBool::new(false));
        let ask = {
            let (names, got, successor) = (names.clone(), Arc::clone(&got), successor.line());
            move || got.store(names.register("name", &successor, 2).is_ok(), Ordering::SeqCst)
        };
        let waker = Waker::from(Arc::new(OnWake(ask)));
        assert!(watcher.poll_receive(&mut Context::from_waker(&waker)).is_pending());
        // The watcher's waker is run by the end itself.
        owner.disconnect(Exit::Normal);
        assert!(got.load(Ordering::SeqCst));
        assert!(matches!(watcher.try_receive(), Some(Message::Disconnect(_))));
    }
}

#[test]
fn s42_a_free_name_is_nobodys_and_can_be_given_up_by_nobody() {
    let names: Registry<&str, u32> = Registry::new();
    assert_eq!(names.lookup("nobody"), None);
    assert_eq!(names.unregister("nobody"), None);
    assert_eq!(names.unregister_from("nobody", &Device::new().line()), Err(UnregisterError::Free));
}

#[test]
fn s43_a_look_up_finds_the_holder_of_that_moment() {
    let names = Registry::new();
    let (a, b) = (Device::new(), Device::new());
    names.register("name", &a.line(), "a").unwrap();
    let found = names.lookup("name");
    drop(a);
    names.register("name", &b.line(), "b").unwrap();
    assert_eq!((found, names.lookup("name")), (Some("a"), Some("b")));
}

#[test]
fn s27_a_monitor_by_name_stays_with_who_had_the_name_when_it_was_made() {
    let names = Registry::new();
    let (mut watcher, first, second) = (Device::new(), Device::new(), Device::new());
    assert!(names.holder("name").is_none(), "nobody to watch: OTP's noproc");
    names.register("name", &first.line(), ()).unwrap();
    let holder = names.holder("name").unwrap();
    watcher.link(&holder.owner, LinkMode::Monitor);
    names.transfer("name", &first.line(), &second.line(), ()).unwrap();
    drop(second);
    assert!(watcher.try_receive().is_none());
    drop(first);
    let Some(Message::Disconnect(news)) = watcher.try_receive() else { panic!("not told") };
    assert_eq!(news.device, holder.owner.id());
}

#[test]
fn registries_know_nothing_of_each_other() {
    let (these, those, a) = (Registry::new(), Registry::new(), Device::new());
    these.register("name", &a.line(), 1).unwrap();
    assert_eq!(those.lookup("name"), None);
    those.register("name", &a.line(), 2).unwrap();
    assert_eq!(these.lookup("name"), Some(1));
}

#[test]
fn a_name_is_taken_only_from_who_has_it() {
    let names = Registry::new();
    let (a, b) = (Device::new(), Device::new());
    names.register("name", &a.line(), 1).unwrap();
    let refused = names.unregister_from("name", &b.line());
    assert!(matches!(refused, Err(UnregisterError::Taken(holder)) if holder.owner == a.line()));
    assert_eq!(names.unregister_from("name", &a.line()), Ok(1));
    assert_eq!(names.lookup("name"), None);
}

#[test]
fn a_transfer_is_one_step_and_says_why_not() {
    let names = Registry::one_name_each();
    let (a, b, c, dead) = (Device::new(), Device::new(), Device::new(), Device::new());
    let gone = dead.line();
    drop(dead);
    names.register("name", &a.line(), 1).unwrap();
    names.register("other", &c.line(), 9).unwrap();

    let taken = names.transfer("name", &b.line(), &b.line(), 2);
    assert!(matches!(taken, Err(TransferError::Taken { value: 2, holder }) if holder.value == 1));
    assert_eq!(names.transfer("name", &a.line(), &gone, 3), Err(TransferError::Ended { value: 3 }));
    assert_eq!(names.transfer("name", &a.line(), &c.line(), 4), Err(TransferError::Named { value: 4 }));
    assert_eq!(names.transfer("free", &a.line(), &b.line(), 5), Err(TransferError::Free { value: 5 }));

    assert_eq!(names.transfer("name", &a.line(), &b.line(), 6), Ok(1));
    assert_eq!(names.holder("name").map(|holder| (holder.owner, holder.value)), Some((b.line(), 6)));
    // Who gave its name away may have another.
    names.register("new", &a.line(), 7).unwrap();
    // To oneself, with another value.
    assert_eq!(names.transfer("name", &b.line(), &b.line(), 8), Ok(6));
    drop(b);
    assert_eq!(names.transfer("name", &gone, &a.line(), 9), Err(TransferError::Free { value: 9 }));
}

#[test]
fn who_waits_for_a_name_is_woken_by_its_registration_and_by_no_other() {
    let names = Registry::new();
    let (a, b) = (Device::new(), Device::new());
    let count = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&count));
    let cx = &mut Context::from_waker(&waker);
    let mut waiting = pin!(names.wait_for("name"));
    assert!(waiting.as_mut().poll(cx).is_pending());
    names.register("other", &b.line(), 0).unwrap();
    assert_eq!(count.get(), 0);
    names.register("name", &a.line(), 1).unwrap();
    assert_eq!(count.get(), 1);
    assert_eq!(waiting.as_mut().poll(cx), Poll::Ready(1));
}

#[test]
fn who_comes_too_late_for_a_short_life_waits_for_the_next() {
    let names = Registry::new();
    let (a, b) = (Device::new(), Device::new());
    let mut waiting = pin!(names.wait_for("name"));
    assert!(poll(waiting.as_mut()).is_pending());
    names.register("name", &a.line(), 1).unwrap();
    drop(a);
    assert!(poll(waiting.as_mut()).is_pending());
    names.register("name", &b.line(), 2).unwrap();
    assert_eq!(poll(waiting.as_mut()), Poll::Ready(2));
}

#[test]
fn a_wait_ends_at_its_deadline_and_the_name_comes_back() {
    let world = World::new();
    let names: Registry<String, u32> = Registry::new();
    let deadline = world.now() + SECOND;
    let waited = world.block_on(names.wait_until("name".to_owned(), &world, deadline));
    assert_eq!(waited, Err(NotRegistered("name".to_owned())));
    assert_eq!(world.now(), deadline);

    let a = Device::new();
    {
        let mut waiting = pin!(names.wait_until("name".to_owned(), &world, world.now() + SECOND));
        assert!(poll(waiting.as_mut()).is_pending());
        names.register("name".to_owned(), &a.line(), 1).unwrap();
        assert_eq!(poll(waiting.as_mut()), Poll::Ready(Ok(1)));
    }
    // There already: found, however late it is.
    assert_eq!(world.block_on(names.wait_until("name".to_owned(), &world, deadline)), Ok(1));
}

#[test]
fn a_wait_that_is_dropped_leaves_nothing_behind() {
    let names: Registry<u32, ()> = Registry::new();
    let count = Arc::new(Count::default());
    for name in 0..1000 {
        let waker = Waker::from(Arc::clone(&count));
        let mut waiting = pin!(names.wait_for(name));
        assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    assert_eq!(Arc::strong_count(&count), 1);
}

#[test]
fn nothing_grows_with_names_that_are_gone() {
    let (names, topics) = (Registry::new(), DuplicateRegistry::new());
    let long = Device::new();
    names.register(u64::MAX, &long.line(), 0).unwrap();
    for name in 0..100_000 {
        let short = Device::new();
        names.register(name, &short.line(), name).unwrap();
        topics.register(name, &short.line(), name).unwrap();
    }
    assert!(names.entries() < 100, "{}", names.entries());
    assert!(topics.entries() < 100, "{}", topics.entries());
    assert_eq!((names.len(), names.lookup(&u64::MAX)), (1, Some(0)));
}

/// A name and a value whose every trait uses the registry that they stand in.
struct Meddler {
    number: u32,
    names: Registry<Meddler, Meddler>,
}

thread_local! {
    static DEPTH: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

static MEDDLED: AtomicUsize = AtomicUsize::new(0);

impl Meddler {
    fn meddle(&self) {
        DEPTH.with(|depth| {
            if depth.get() == 0 {
                depth.set(1);
                MEDDLED.fetch_add(1, Ordering::SeqCst);
                let found = self.names.lookup(&Meddler { number: 1, names: self.names.clone() });
                drop(found);
                depth.set(0);
            }
        });
    }
}

impl Hash for Meddler {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.meddle();
        // All the same: each is compared with each.
        0.hash(state);
    }
}

impl PartialEq for Meddler {
    fn eq(&self, other: &Meddler) -> bool {
        self.meddle();
        self.number == other.number
    }
}

impl Eq for Meddler {}

impl Clone for Meddler {
    fn clone(&self) -> Meddler {
        self.meddle();
        Meddler { number: self.number, names: self.names.clone() }
    }
}

impl Drop for Meddler {
    fn drop(&mut self) {
        self.meddle();
    }
}

#[test]
fn nothing_of_the_users_runs_while_something_is_locked() {
    let names: Registry<Meddler, Meddler> = Registry::new();
    let meddler = |number| Meddler { number, names: names.clone() };
    let (a, b) = (Device::new(), Device::new());
    for number in 0..4 {
        names.register(meddler(number), &a.line(), meddler(number)).ok().unwrap();
    }
    assert!(names.register(meddler(2), &b.line(), meddler(9)).is_err());
    assert_eq!(names.lookup(&meddler(3)).map(|found| found.number), Some(3));
    assert_eq!(names.holder(&meddler(3)).map(|found| found.value.number), Some(3));
    assert!(names.transfer(&meddler(1), &a.line(), &b.line(), meddler(7)).is_ok());
    assert!(names.unregister(&meddler(0)).is_some());
    assert_eq!(names.names_of(&a.line()).len(), 2);
    drop(a);
    let mut waiting = pin!(names.wait_for(meddler(2)));
    assert!(poll(waiting.as_mut()).is_pending());
    // Replaces the dead, and sweeps them.
    for number in 2..100 {
        names.register(meddler(number), &b.line(), meddler(number)).ok().unwrap();
    }
    assert!(poll(waiting.as_mut()).is_ready());
    assert_eq!(names.all().len(), 99);
    assert!(MEDDLED.load(Ordering::SeqCst) > 1000);
}

/// Against a map: every answer is what the map says.
#[test]
fn a_registry_is_a_map_of_names_to_the_living() {
    for seed in 0..200 {
        let mut random = Random(seed);
        let one_name_each = seed % 2 == 0;
        let names: Registry<u64, u64> =
            if one_name_each { Registry::one_name_each() } else { Registry::new() };
        let mut model: HashMap<u64, (Line, u64)> = HashMap::new();
        let mut devices: Vec<Device> = (0..6).map(|_| Device::new()).collect();
        for value in 0..300 {
            let (name, who) = (random.below(5), random.below(6) as usize);
            let line = devices[who].line();
            let named = |model: &HashMap<u64, (Line, u64)>| model.values().any(|(owner, _)| *owner == line);
            match random.below(7) {
                0..=2 => {
                    let expected = if let Some((owner, held)) = model.get(&name) {
                        Err((Some((*owner, *held)), name, value))
                    } else if one_name_each && named(&model) {
                        Err((None, name, value))
                    } else {
                        model.insert(name, (line, value));
                        Ok(())
                    };
                    let got = names.register(name, &line, value).map_err(|error| {
                        let holder = error.holder().map(|holder| (holder.owner, holder.value));
                        let (name, value) = error.into_inner();
                        (holder, name, value)
                    });
                    assert_eq!(got, expected, "seed {seed}");
                }
                3 => {
                    assert_eq!(names.unregister(&name), model.remove(&name).map(|(_, v)| v), "seed {seed}");
                }
                4 => {
                    let to = devices[random.below(6) as usize].line();
                    let other = to != line && model.values().any(|(owner, _)| *owner == to);
                    let mine = model.get(&name).is_some_and(|(owner, _)| *owner == line);
                    let moved = mine && !(one_name_each && other);
                    let before = model.get(&name).map(|(_, value)| *value);
                    if moved {
                        model.insert(name, (to, value));
                    }
                    let got = names.transfer(&name, &line, &to, value).ok();
                    assert_eq!(got, before.filter(|_| moved), "seed {seed}");
                }
                5 => {
                    model.retain(|_, (owner, _)| *owner != line);
                    devices[who] = Device::new();
                }
                _ => {}
            }
            let all: HashMap<u64, (Line, u64)> =
                names.all().into_iter().map(|(name, holder)| (name, (holder.owner, holder.value))).collect();
            assert_eq!(all, model, "seed {seed}");
            for name in 0..5 {
                assert_eq!(names.lookup(&name), model.get(&name).map(|(_, value)| *value), "seed {seed}");
            }
            for device in &devices {
                let mut theirs = names.names_of(&device.line());
                theirs.sort_unstable();
                let mut expected: Vec<u64> = model
                    .iter()
                    .filter(|(_, (owner, _))| *owner == device.line())
                    .map(|(name, _)| *name)
                    .collect();
                expected.sort_unstable();
                assert_eq!(theirs, expected, "seed {seed}");
            }
        }
    }
}

#[test]
fn of_many_who_want_a_name_at_once_one_gets_it() {
    for _ in 0..50 {
        let names: Registry<u32, usize> = Registry::new();
        let won = AtomicUsize::new(0);
        let devices: Vec<Device> = (0..4).map(|_| Device::new()).collect();
        std::thread::scope(|scope| {
            for (who, device) in devices.iter().enumerate() {
                let (names, won, line) = (&names, &won, device.line());
                scope.spawn(move || {
                    for name in 0..20 {
                        if names.register(name, &line, who).is_ok() {
                            won.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                });
            }
        });
        assert_eq!(won.load(Ordering::SeqCst), 20);
    }
}

#[test]
fn under_a_duplicate_name_each_is_told_who_lives_in_the_order_of_coming() {
    let topics = DuplicateRegistry::new();
    let (a, b, c) = (Device::new(), Device::new(), Device::new());
    for (value, device) in [&a, &b, &c, &b].into_iter().enumerate() {
        topics.register("news", &device.line(), value).unwrap();
    }
    let told = || {
        let mut told = Vec::new();
        topics.dispatch("news", |member| told.push(member.value));
        told
    };
    assert_eq!(told(), [0, 1, 2, 3]);
    assert_eq!(topics.names_of(&b.line()), ["news", "news"]);
    assert_eq!(topics.unregister("news", &b.line()), 2);
    assert_eq!(topics.unregister("news", &b.line()), 0);
    assert_eq!(told(), [0, 2]);
    let line = a.line();
    drop(a);
    assert_eq!(told(), [2]);
    let refused = topics.register("news", &line, 9).unwrap_err();
    assert_eq!(refused.into_inner(), ("news", 9));
}

#[test]
fn a_dispatch_may_change_the_registry_that_it_goes_through() {
    let topics = DuplicateRegistry::new();
    let devices: Vec<Device> = (0..3).map(|_| Device::new()).collect();
    for device in &devices {
        topics.register("news", &device.line(), device.line()).unwrap();
    }
    let told = topics.dispatch("news", |member| {
        topics.unregister("news", &member.value);
        topics.register("news", &member.value, member.value).unwrap();
    });
    assert_eq!((told, topics.lookup("news").len()), (3, 3));
}

/// Asks for its own name while it starts.
struct Named {
    names: Registry<&'static str, Address<Envelope<Named>>>,
    found: Arc<AtomicBool>,
    fails: bool,
}

impl Actor for Named {
    type Messages = ();
    type Error = &'static str;

    async fn init(&mut self, cx: &mut backplane_actor::Context<Self>) -> Result<(), &'static str> {
        self.found.store(self.names.lookup("name") == cx.upgrade(), Ordering::SeqCst);
        if self.fails { Err("no") } else { Ok(()) }
    }
}

#[test]
fn s44_a_server_has_its_name_before_its_init_runs_and_not_after_a_failed_one() {
    let world = World::new();
    let (system, names) = (System::new(world.clone()), Registry::new());
    let found = Arc::new(AtomicBool::new(false));
    let named = |fails| Named { names: names.clone(), found: Arc::clone(&found), fails };
    let failed = system.start_named(&names, "name", Options::new(), named(true)).unwrap();
    assert!(names.lookup("name").is_some());
    world.run();
    assert!(found.load(Ordering::SeqCst));
    assert!(!failed.is_open());
    assert!(names.lookup("name").is_none());

    let holder = system.start_named(&names, "name", Options::new(), named(false)).unwrap();
    let taken = system.start_named(&names, "name", Options::new(), named(true)).unwrap_err();
    assert_eq!((taken.name, taken.holder.value), ("name", holder));
    assert!(taken.actor.fails);
}

#[test]
fn s41_a_supervised_actor_never_finds_its_name_taken_by_its_predecessor() {
    let world = World::new();
    let (system, names) = (System::new(world.clone()), Registry::<&str, Line>::new());
    let starts = Arc::new(AtomicUsize::new(0));
    let (address, spec) = {
        let (names, starts) = (names.clone(), Arc::clone(&starts));
        system.child_process("named", Options::new(), move |mut mailbox: Mailbox<()>| {
            let line = mailbox.line().unwrap();
            let registered = names.register("name", &line, line);
            let starts = Arc::clone(&starts);
            async move {
                registered.unwrap();
                starts.fetch_add(1, Ordering::SeqCst);
                mailbox.receive().await.unwrap();
                Err::<(), _>("and again")
            }
        })
    };
    let intensity = Intensity { restarts: 10_000, period: SECOND };
    let tree = Supervisor::new(RestartStrategy::OneForOne).intensity(intensity).child(spec);
    let handle = world.block_on(tree.start(world.clone())).unwrap();
    for round in 1..=1000 {
        world.run();
        assert_eq!(starts.load(Ordering::SeqCst), round);
        assert_eq!(names.lookup("name"), address.line());
        address.try_cast(()).unwrap();
    }
    drop(handle);
}

#[test]
fn a_name_given_to_a_weak_address_keeps_nobody_alive() {
    let world = World::new();
    let (system, names) = (System::new(world.clone()), Registry::<&str, WeakAddress<()>>::new());
    let address =
        system.spawn(|mut mailbox: Mailbox<()>| async move { while mailbox.receive().await.is_some() {} });
    names.register_weak("name", &address).unwrap();
    world.run();
    assert!(names.lookup("name").unwrap().upgrade().is_some());
    drop(address);
    world.run();
    assert!(names.lookup("name").is_none());
}
