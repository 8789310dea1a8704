//! Actors that are started, asked, killed, renamed and put into groups at random, while every single message is counted.
//!
//! `BACKPLANE_SOAK_SECONDS=600 cargo test --release -p backplane-tests --test it soak -- --test-threads 1` does it for ten
//! minutes on each runtime. Then memory must not grow after the first tenth, either; a run of a second, with other tests
//! beside it, cannot tell.

#![allow(clippy::unwrap_used)]

use std::{
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use backplane::{
    Exit, Line, Runtime,
    runtime::{Smol, Tokio},
};
use backplane_actor::{Address, Groups, Mailbox, Options, Registry, Reply, System};
use backplane_pool::{Pinning, Pool};
use backplane_supervisor::{Intensity, RestartStrategy, Supervisor};
use smol::future::yield_now;

/// How a message is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Cast,
    /// A call that waits however long it takes.
    Call,
    /// A call that its caller may leave.
    Hasty,
}

/// What becomes of a message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It was dropped, and nobody was told.
    Lost,
    Handled,
    Buried,
    Refused,
}

#[derive(Default)]
struct Book {
    made: [AtomicU64; 3],
    fates: [[AtomicU64; 4]; 3],
    accepted: AtomicU64,
    answered: AtomicU64,
    failed: AtomicU64,
    started: AtomicU64,
    renamed: AtomicU64,
    kills: AtomicU64,
    joins: AtomicU64,
}

impl Book {
    fn made(&self, kind: Kind) -> u64 {
        self.made[kind as usize].load(Relaxed)
    }

    fn fate(&self, kind: Kind, fate: Fate) -> u64 {
        self.fates[kind as usize][fate as usize].load(Relaxed)
    }

    fn open(&self) -> u64 {
        let gone: u64 = self.fates.iter().flatten().map(|fate| fate.load(Relaxed)).sum();
        self.made.iter().map(|made| made.load(Relaxed)).sum::<u64>() - gone
    }
}

fn count(count: &AtomicU64) {
    count.fetch_add(1, Relaxed);
}

/// In every message, and in the book when it is made and when it is dropped.
struct Token {
    book: Arc<Book>,
    kind: Kind,
    fate: Fate,
}

impl Token {
    fn new(book: &Arc<Book>, kind: Kind) -> Token {
        count(&book.made[kind as usize]);
        Token { book: Arc::clone(book), kind, fate: Fate::Lost }
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        count(&self.book.fates[self.kind as usize][self.fate as usize]);
    }
}

enum Work {
    Do,
    /// Takes some polls, and may be killed in between.
    Long(u64),
    Fail,
    Answer(Reply<()>),
    /// Is answered by somebody else, who may be too late.
    AnswerElsewhere(Reply<()>),
}

struct Letter(Token, Work);

impl Letter {
    fn is(mut self, fate: Fate) {
        self.0.fate = fate;
    }
}

fn next(word: &mut u64) -> u64 {
    *word ^= *word << 13;
    *word ^= *word >> 7;
    *word ^= *word << 17;
    *word >> 16
}

async fn works(mut mailbox: Mailbox<Letter>) {
    while let Some(Letter(mut token, work)) = mailbox.receive().await {
        token.fate = Fate::Handled;
        match work {
            Work::Do => {}
            Work::Long(polls) => {
                for _ in 0..polls {
                    yield_now().await;
                }
            }
            Work::Fail => std::panic::resume_unwind(Box::new("on purpose")),
            Work::Answer(reply) => reply.send(()),
            Work::AnswerElsewhere(reply) => {
                smol::spawn(async move {
                    yield_now().await;
                    reply.send(());
                })
                .detach();
            }
        }
    }
}

/// Hears of the end of each actor that was started.
enum Watched {
    Begins(Line),
    Ended,
    Say(Reply<u64>),
}

async fn watches(mut mailbox: Mailbox<Watched>) {
    let mut ended = 0;
    while let Some(message) = mailbox.receive().await {
        match message {
            Watched::Begins(line) => drop(mailbox.monitor(&line, |_| Watched::Ended)),
            Watched::Ended => ended += 1,
            Watched::Say(reply) => reply.send(ended),
        }
    }
}

const NAMES: u64 = 64;
const GROUPS: u64 = 8;
const FREE: usize = 48;

struct World<R> {
    system: System<R>,
    book: Arc<Book>,
    names: Registry<u64, Address<Letter>>,
    groups: Groups<u64, Address<Letter>>,
    supervised: Vec<Address<Letter>>,
    free: Mutex<Vec<Address<Letter>>>,
    watcher: Address<Watched>,
}

fn options() -> Options<Letter> {
    Options::new().capacity(16).dead_letters(|letter: Letter, _| letter.is(Fate::Buried))
}

impl<R: Runtime> World<R> {
    fn token(&self, kind: Kind) -> Token {
        Token::new(&self.book, kind)
    }

    fn somebody(&self, word: &mut u64) -> Address<Letter> {
        let found = match next(word) % 4 {
            0 => None,
            1 => self.names.lookup(&(next(word) % NAMES)),
            2 => self.groups.distributor(next(word) % GROUPS).one().map(|member| member.value.clone()),
            _ => {
                let free = self.free.lock().unwrap();
                let index = next(word) as usize;
                (!free.is_empty()).then(|| free[index % free.len()].clone())
            }
        };
        found.unwrap_or_else(|| self.supervised[next(word) as usize % self.supervised.len()].clone())
    }

    async fn cast(&self, to: &Address<Letter>, work: Work) {
        match to.cast(Letter(self.token(Kind::Cast), work)).await {
            Ok(()) => count(&self.book.accepted),
            Err(error) => error.into_inner().is(Fate::Refused),
        }
    }

    fn try_cast(&self, to: &Address<Letter>, work: Work) {
        match to.try_cast(Letter(self.token(Kind::Cast), work)) {
            Ok(()) => count(&self.book.accepted),
            Err(error) => error.into_inner().is(Fate::Refused),
        }
    }

    async fn ask(&self, to: &Address<Letter>, work: fn(Reply<()>) -> Work) {
        let mut call = to.ask(|reply| Letter(self.token(Kind::Call), work(reply))).forever();
        let answer = (&mut call).await;
        count(if answer.is_ok() { &self.book.answered } else { &self.book.failed });
        if let Some(letter) = call.take_refused() {
            letter.is(Fate::Refused);
        }
    }

    async fn start(&self, word: &mut u64) {
        let one = self.system.spawn_with(options(), works);
        count(&self.book.started);
        if let Some(line) = one.line() {
            self.watcher.cast(Watched::Begins(line)).await.unwrap();
        }
        drop(self.names.register_actor(next(word) % NAMES, &one));
        drop(self.groups.join_actor(next(word) % GROUPS, &one));
        let leaves = {
            let mut free = self.free.lock().unwrap();
            free.push(one);
            let index = next(word) as usize % free.len();
            (free.len() > FREE).then(|| free.swap_remove(index))
        };
        if let Some(leaves) = leaves {
            match next(word) % 4 {
                0 => leaves.kill(),
                1 => drop(leaves.stop(Exit::Shutdown)),
                2 => self.try_cast(&leaves, Work::Fail),
                _ => {}
            }
            leaves.drain();
            leaves.ended().await;
        }
    }

    /// Gives somebody another name, or somebody's name to another.
    fn rename(&self, word: &mut u64) {
        let (name, other) = (next(word) % NAMES, next(word) % NAMES);
        let Some(holder) = self.names.holder(&name) else { return };
        if next(word).is_multiple_of(2) {
            let to = self.somebody(word);
            if let Some(line) = to.line() {
                drop(self.names.transfer(&name, &holder.owner, &line, to));
            }
        } else if let Ok(address) = self.names.unregister_from(&name, &holder.owner) {
            drop(self.names.register(other, &holder.owner, address));
        }
        count(&self.book.renamed);
    }

    async fn something(&self, word: &mut u64) {
        let one = self.somebody(word);
        match next(word) % 64 {
            0 => {
                count(&self.book.kills);
                one.kill();
            }
            1 => {
                // In the middle of its work, more likely than not.
                self.cast(&one, Work::Long(100)).await;
                yield_now().await;
                count(&self.book.kills);
                one.kill();
            }
            2 => self.try_cast(&one, Work::Fail),
            3 => self.start(word).await,
            4..8 => self.rename(word),
            8 => {
                drop(self.groups.join_actor(next(word) % GROUPS, &one));
                count(&self.book.joins);
            }
            9 => {
                if let Some(line) = one.line() {
                    drop(self.groups.leave(&(next(word) % GROUPS), &line));
                }
            }
            10 => {
                let group = next(word) % GROUPS;
                self.groups.dispatch(&group, |member| self.try_cast(&member.value, Work::Do));
            }
            11 => {
                one.suspend();
                yield_now().await;
                one.resume();
            }
            12..20 => self.ask(&one, Work::Answer).await,
            20..24 => self.ask(&one, Work::AnswerElsewhere).await,
            24..28 => {
                let call = one.ask(|reply| Letter(self.token(Kind::Hasty), Work::Answer(reply)));
                drop(call.within(Duration::from_micros(next(word) % 200)).await);
            }
            28 => {
                let call = one.ask(|reply| Letter(self.token(Kind::Hasty), Work::Answer(reply)));
                let mut call = pin!(call);
                std::future::poll_fn(|cx| {
                    drop(call.as_mut().poll(cx));
                    std::task::Poll::Ready(())
                })
                .await;
            }
            29 => self.cast(&one, Work::Long(next(word) % 8)).await,
            30..40 => self.try_cast(&one, Work::Do),
            _ => self.cast(&one, Work::Do).await,
        }
    }
}

fn resident() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    statm.split(' ').nth(1)?.parse::<u64>().ok().map(|pages| pages * 4096)
}

/// Waits for what is certain to come.
async fn until(what: &str, mut is: impl AsyncFnMut() -> bool) {
    let late = Instant::now() + Duration::from_secs(30);
    while !is().await {
        assert!(Instant::now() < late, "{what}");
        yield_now().await;
    }
}

async fn soak<R: Runtime + Clone>(runtime: R) {
    let seconds = std::env::var("BACKPLANE_SOAK_SECONDS").map_or(1, |word| word.parse().unwrap());
    let (system, book) = (System::new(runtime.clone()), Arc::new(Book::default()));
    let mut tree = Supervisor::new(RestartStrategy::OneForOne)
        .intensity(Intensity { restarts: u32::MAX, period: Duration::from_secs(1) });
    let mut supervised = Vec::new();
    for index in 0..16 {
        let (address, spec) = system.child_process(format!("worker {index}"), options(), works);
        tree = tree.child(spec);
        supervised.push(address);
    }
    let tree = tree.start(runtime.clone()).await.unwrap();
    let world = Arc::new(World {
        watcher: system.spawn(watches),
        system,
        book: Arc::clone(&book),
        names: Registry::new(),
        groups: Groups::new(),
        supervised,
        free: Mutex::default(),
    });
    let (begin, all) = (Instant::now(), Duration::from_secs(seconds));
    let (tell, told) = smol::channel::unbounded();
    for index in 0..4 {
        let (world, tell) = (Arc::clone(&world), tell.clone());
        let churn = runtime.spawn(async move {
            let mut word = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(2 * index + 1);
            let mut settled = None;
            while begin.elapsed() < all {
                for _ in 0..100 {
                    world.something(&mut word).await;
                }
                if settled.is_none() && begin.elapsed() > all / 10 {
                    settled = resident();
                }
            }
            tell.send(settled).await.unwrap();
        });
        runtime.detach(churn);
    }
    let mut settled = None;
    for _ in 0..4 {
        settled = settled.max(told.recv().await.unwrap());
    }
    let after = resident();
    tree.stop(Exit::Shutdown).await.unwrap();
    let left = std::mem::take(&mut *world.free.lock().unwrap());
    for one in left {
        one.drain();
        one.ended().await;
    }
    let (started, made) = (book.started.load(Relaxed), |kind| book.made(kind));
    until("each end is heard of", async || world.watcher.ask(Watched::Say).await.unwrap() >= started).await;
    until("no message is anywhere any more", async || book.open() == 0).await;
    let [casts, calls, hasty] = [Kind::Cast, Kind::Call, Kind::Hasty].map(made);
    let fates = |kind| [Fate::Handled, Fate::Buried, Fate::Refused].map(|fate| book.fate(kind, fate));
    println!(
        "{casts} casts, {:?} handled, buried, refused; {calls} calls, {:?}; {hasty} hasty ones, {:?}",
        fates(Kind::Cast),
        fates(Kind::Call),
        fates(Kind::Hasty)
    );
    println!(
        "{} calls answered, {} told why not; {started} actors started, {} kills, {} names changed, {} joins in {:.0?}",
        book.answered.load(Relaxed),
        book.failed.load(Relaxed),
        book.kills.load(Relaxed),
        book.renamed.load(Relaxed),
        book.joins.load(Relaxed),
        begin.elapsed()
    );
    assert_eq!(world.watcher.ask(Watched::Say).await, Ok(started), "each end is heard of once");
    assert_eq!(book.fate(Kind::Cast, Fate::Lost), 0, "casts that vanished");
    assert_eq!(book.fate(Kind::Call, Fate::Lost), 0, "calls that vanished");
    let [handled, buried, _] = fates(Kind::Cast);
    assert_eq!(book.accepted.load(Relaxed), handled + buried, "what was accepted was handled or buried");
    let all_buried: u64 =
        [Kind::Cast, Kind::Call, Kind::Hasty].map(|kind| book.fate(kind, Fate::Buried)).iter().sum();
    assert_eq!(world.system.dead_letters(), all_buried, "the system counts its dead letters");
    assert!(world.names.is_empty(), "the dead have no names");
    assert!((0..GROUPS).all(|group| world.groups.members(&group).is_empty()), "and are in no group");
    if let (Some(before), Some(after), true) = (settled, after, seconds >= 10) {
        println!("resident memory: {} KiB after a tenth, {} KiB at the end", before / 1024, after / 1024);
        assert!(after < before + before / 4 + (8 << 20), "memory grows");
    }
}

#[test]
fn every_message_is_accounted_for_and_memory_stays_flat_on_tokio() {
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    tokio.block_on(soak(Tokio::new(tokio.handle().clone())));
}

#[test]
fn every_message_is_accounted_for_and_memory_stays_flat_on_smol() {
    smol::block_on(soak(Smol::global()));
}

#[test]
fn every_message_is_accounted_for_and_memory_stays_flat_on_the_pool() {
    let pool = Pool::builder().workers(2).pinning(Pinning::None).build().unwrap();
    smol::block_on(soak(pool.handle()));
}
