//! How an actor's life is run, where something panics.

use std::{
    fmt,
    future::{Future, pending, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context as TaskContext, Poll, Waker},
    thread,
};

use backplane::{Device, Exit, Runtime};
use backplane_actor::{
    Actor, CallError, Context, Envelope, Handle, Mailbox, Options, Reply, System, WeakAddress,
    testing::Seeded,
};

use backplane_supervisor::{RestartStrategy, Supervisor};

use crate::support::{Log, SECOND, story};

/// How it ends its life.
#[derive(Clone, Copy, PartialEq)]
enum Last {
    Well,
    PanicsAtOnce,
    PanicsWhenDropped,
    PanicsLater,
}

/// Panics when it is dropped.
struct Thorn;

impl Drop for Thorn {
    fn drop(&mut self) {
        panic!("a thorn");
    }
}

struct Life {
    log: Log,
    last: Last,
    terminated: Arc<AtomicU32>,
    me: Option<WeakAddress<Envelope<Life>>>,
    drop_panics: bool,
    waits_in_terminate: bool,
}

impl Life {
    fn new(log: &Log, last: Last) -> Life {
        Life {
            log: log.clone(),
            last,
            terminated: Arc::default(),
            me: None,
            drop_panics: false,
            waits_in_terminate: false,
        }
    }

    fn thorny(mut self, drop_panics: bool) -> Life {
        self.drop_panics = drop_panics;
        self
    }

    fn waiting(mut self, waits: bool) -> Life {
        self.waits_in_terminate = waits;
        self
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let alive = self.me.as_ref().and_then(WeakAddress::upgrade).is_some_and(|me| me.line().is_some());
        self.log.say(format!("dropped{}", if alive { ", before it has ended" } else { "" }));
        if self.drop_panics {
            panic!("a state");
        }
    }
}

struct Ugly;

impl fmt::Display for Ugly {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("no words");
    }
}

enum Do {
    Panic,
    PanicLater,
    Fail,
    Thorn,
    HangWithThorn,
    /// Until it is polled again.
    HangUntil(&'static str),
    Nothing,
}

impl Actor for Life {
    type Messages = (Do, ThornIn);
    type Error = Ugly;

    async fn init(&mut self, cx: &mut Context<Self>) -> Result<(), Ugly> {
        self.me = Some(cx.address());
        Ok(())
    }

    #[allow(clippy::manual_async_fn)]
    fn terminate(&mut self, exit: &Exit, _: &mut Context<Self>) -> impl Future<Output = ()> + Send {
        self.log.say(format!("terminate: {exit}"));
        // It is to fail, and not to go on for ever.
        let last = if self.terminated.fetch_add(1, Ordering::Relaxed) == 0 { self.last } else { Last::Well };
        if last == Last::PanicsAtOnce {
            panic!("at once");
        }
        let waits = self.waits_in_terminate;
        Words {
            thorn: (last == Last::PanicsWhenDropped).then(|| Thorn),
            later: last == Last::PanicsLater,
            waits,
        }
    }
}

struct Words {
    thorn: Option<Thorn>,
    later: bool,
    waits: bool,
}

impl Future for Words {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<()> {
        assert!(!self.later, "later");
        let _ = &self.thorn;
        if self.waits { Poll::Pending } else { Poll::Ready(()) }
    }
}

async fn once() {
    let mut first = true;
    poll_fn(|cx| {
        cx.waker().wake_by_ref();
        if std::mem::take(&mut first) { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
}

impl Handle<Do> for Life {
    type Reply = ();

    async fn handle(&mut self, what: Do, _: &mut Context<Self>) -> Result<(), Ugly> {
        match what {
            Do::Panic => panic!("out of beans"),
            Do::PanicLater => {
                for _ in 0..3 {
                    once().await;
                }
                panic!("out of beans");
            }
            Do::Fail => return Err(Ugly),
            Do::Thorn => drop(Thorn),
            Do::HangWithThorn => {
                let _thorn = Thorn;
                pending::<()>().await;
            }
            Do::HangUntil(how) => {
                once().await;
                assert!(how != "panics");
                if how == "fails" {
                    return Err(Ugly);
                }
            }
            Do::Nothing => {}
        }
        Ok(())
    }
}

struct ThornIn(#[allow(dead_code)] Thorn);

impl Handle<ThornIn> for Life {
    type Reply = ();

    async fn handle(&mut self, _: ThornIn, _: &mut Context<Self>) -> Result<(), Ugly> {
        Ok(())
    }
}

fn poll<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut TaskContext::from_waker(Waker::noop()))
}

fn exit_after(
    system: &System<Seeded>,
    last: Last,
    what: Option<Do>,
) -> impl Future<Output = (Exit, Vec<String>)> {
    let log = Log::default();
    let life = system.start(Life::new(&log, last));
    async move {
        match what {
            Some(what) => drop(life.call(what).await),
            None => drop(life.stop(Exit::Shutdown)),
        }
        (life.ended().await.unwrap(), log.all())
    }
}

#[test]
fn terminate_runs_once_though_it_panics_before_it_has_a_future() {
    story(|system, _| async move {
        let (exit, log) = exit_after(&system, Last::PanicsAtOnce, None).await;
        assert_eq!(log, ["terminate: shutdown", "dropped, before it has ended"]);
        assert_eq!(exit.to_string(), "panicked: at once");
        let (exit, log) = exit_after(&system, Last::PanicsAtOnce, Some(Do::Panic)).await;
        assert_eq!(log, ["terminate: panicked: out of beans", "dropped, before it has ended"]);
        assert_eq!(exit.to_string(), "panicked: at once");
    });
}

#[test]
fn terminate_runs_once_though_its_future_panics_when_it_is_dropped() {
    story(|system, _| async move {
        let (exit, log) = exit_after(&system, Last::PanicsWhenDropped, None).await;
        assert_eq!(log, ["terminate: shutdown", "dropped, before it has ended"]);
        assert_eq!(exit.to_string(), "panicked: a thorn");
        let (exit, log) = exit_after(&system, Last::PanicsWhenDropped, Some(Do::Panic)).await;
        assert_eq!(log, ["terminate: panicked: out of beans", "dropped, before it has ended"]);
        assert_eq!(exit.to_string(), "panicked: a thorn");
    });
}

#[test]
fn terminate_runs_once_though_it_panics_when_polled() {
    story(|system, _| async move {
        let (exit, log) = exit_after(&system, Last::PanicsLater, Some(Do::PanicLater)).await;
        assert_eq!(log, ["terminate: panicked: out of beans", "dropped, before it has ended"]);
        assert_eq!(exit.to_string(), "panicked: later");
    });
}

#[test]
fn whatever_panics_is_followed_by_terminate() {
    story(|system, _| async move {
        for (what, words) in [
            (Do::Panic, "terminate: panicked: out of beans"),
            (Do::PanicLater, "terminate: panicked: out of beans"),
            (Do::Thorn, "terminate: panicked: a thorn"),
        ] {
            let (_, log) = exit_after(&system, Last::Well, Some(what)).await;
            assert_eq!(log, [words, "dropped, before it has ended"]);
        }
        let (exit, log) = exit_after(&system, Last::Well, Some(Do::Fail)).await;
        assert!(exit.is_fault());
        assert_eq!(log.len(), 2, "{log:?}");
        let log = Log::default();
        let life = system.start(Life::new(&log, Last::Well));
        let lost = life.call(ThornIn(Thorn)).await;
        assert!(
            matches!(&lost, Err(CallError::Ended(exit)) if exit.to_string() == "panicked: a thorn"),
            "{lost:?}"
        );
        assert_eq!(log.all().len(), 2);
    });
}

/// What the handler holds panics when it is dropped, and the state goes all the same before anybody hears of the end.
#[test]
fn a_kill_that_panics_drops_the_state_before_the_end_is_told() {
    story(|system, runtime| async move {
        for drop_panics in [false, true] {
            let log = Log::default();
            let life = system.start(Life::new(&log, Last::Well).thorny(drop_panics));
            let mut call = pin!(life.call(Do::HangWithThorn));
            assert!(poll(call.as_mut()).is_pending());
            runtime.sleep_until(runtime.now() + SECOND).await;
            life.kill();
            let lost = call.await;
            assert_eq!(log.all(), ["dropped, before it has ended"]);
            assert!(matches!(&lost, Err(CallError::Ended(exit)) if exit.is_fault()), "{lost:?}");
        }
    });
}

#[test]
fn a_run_that_is_dropped_and_panics_drops_the_state_before_the_end_is_told() {
    for drop_panics in [false, true] {
        let system = System::new(Seeded::new(1));
        let log = Log::default();
        let (address, home) = system.prepare(Options::new());
        let mut run =
            Box::pin(home.run_actor(Device::new(), Life::new(&log, Last::Well).thorny(drop_panics)));
        let mut call = pin!(address.call(Do::HangWithThorn));
        assert!(poll(call.as_mut()).is_pending());
        assert!(poll(run.as_mut()).is_pending());
        assert!(catch_unwind(AssertUnwindSafe(|| drop(run))).is_ok());
        assert_eq!(log.all(), ["dropped, before it has ended"]);
        let lost = poll(call);
        assert!(matches!(&lost, Poll::Ready(Err(CallError::Ended(_)))), "{lost:?}");
    }
}

/// Does something while the thread panics.
struct Meanwhile<F: FnMut()>(F);

impl<F: FnMut()> Drop for Meanwhile<F> {
    fn drop(&mut self) {
        assert!(thread::panicking());
        (self.0)();
    }
}

fn while_panicking(f: impl FnMut()) {
    let caught = catch_unwind(AssertUnwindSafe(|| {
        let _meanwhile = Meanwhile(f);
        panic!("the outer one");
    }));
    assert!(caught.is_err());
}

#[test]
fn a_life_within_a_panic_is_as_any_other() {
    while_panicking(|| {
        story(|system, _| async move {
            for (what, words, end) in [
                (Some(Do::Panic), "panicked: out of beans", "panicked: out of beans"),
                (Some(Do::PanicLater), "panicked: out of beans", "panicked: out of beans"),
                (None, "shutdown", "shutdown"),
            ] {
                let (exit, log) = exit_after(&system, Last::Well, what).await;
                assert_eq!(log, [format!("terminate: {words}").as_str(), "dropped, before it has ended"]);
                assert_eq!(exit.to_string(), end);
            }
            let (exit, log) = exit_after(&system, Last::PanicsLater, Some(Do::Panic)).await;
            assert_eq!((exit.to_string().as_str(), log.len()), ("panicked: later", 2));
            let log = Log::default();
            let life = system.start(Life::new(&log, Last::Well).thorny(true));
            assert_eq!(life.call(Do::Nothing).await, Ok(()));
            life.stop(Exit::Normal);
            assert_eq!(life.ended().await.unwrap().to_string(), "panicked: a state");
            assert_eq!(log.all().len(), 2);
        });
    });
}

#[test]
fn one_that_is_dropped_within_a_panic_does_not_terminate() {
    for waits_in_terminate in [false, true] {
        let system = System::new(Seeded::new(1));
        let log = Log::default();
        let (address, home) = system.prepare(Options::new());
        let life = Life::new(&log, Last::Well).waiting(waits_in_terminate);
        let mut run = Some(Box::pin(home.run_actor(Device::new(), life)));
        let mut call = pin!(address.call(if waits_in_terminate { Do::Panic } else { Do::HangWithThorn }));
        if waits_in_terminate {
            assert!(poll(call.as_mut()).is_pending());
        }
        assert!(poll(run.as_mut().unwrap().as_mut()).is_pending());
        while_panicking(|| drop(run.take()));
        let words = log.all();
        assert_eq!(words.last().unwrap(), "dropped, before it has ended");
        assert_eq!(words.len(), 1 + usize::from(waits_in_terminate), "{words:?}");
    }
}

struct Outer {
    log: Log,
    inner: Option<Pin<Box<dyn Future<Output = Exit> + Send>>>,
}
struct Poll1(bool);

impl Actor for Outer {
    type Messages = (Poll1,);
    type Error = Ugly;

    async fn terminate(&mut self, exit: &Exit, _: &mut Context<Self>) {
        self.log.say(format!("outer: {exit}"));
    }
}

impl Handle<Poll1> for Outer {
    type Reply = bool;

    async fn handle(&mut self, Poll1(panics): Poll1, _: &mut Context<Self>) -> Result<bool, Ugly> {
        let mut inner = self.inner.take().unwrap();
        let ready = poll(inner.as_mut()).is_ready();
        if panics {
            let _inner = inner;
            panic!("outer");
        }
        if !ready {
            self.inner = Some(inner);
        }
        Ok(ready)
    }
}

#[test]
fn of_two_polled_one_inside_the_other_each_has_its_own_last_words() {
    story(|system, _| async move {
        for panics in [false, true] {
            let log = Log::default();
            let (address, home) = system.prepare(Options::new());
            let run = home.run_actor(Device::new(), Life::new(&log, Last::Well));
            let outer = system.start(Outer { log: log.clone(), inner: Some(Box::pin(run)) });
            let mut call = pin!(address.call(Do::PanicLater));
            assert!(poll(call.as_mut()).is_pending());
            if panics {
                assert!(outer.call(Poll1(true)).await.is_err());
                assert_eq!(log.all(), ["dropped, before it has ended", "outer: panicked: outer"]);
            } else {
                while outer.call(Poll1(false)).await == Ok(false) {}
                assert_eq!(log.all(), ["terminate: panicked: out of beans", "dropped, before it has ended"]);
                outer.stop(Exit::Shutdown);
                assert_eq!(outer.ended().await, Some(Exit::Shutdown));
                assert_eq!(log.all().len(), 3);
            }
            assert!(matches!(call.await, Err(CallError::Ended(_))));
        }
    });
}

#[test]
fn a_run_may_be_polled_by_one_thread_after_the_other() {
    let system = System::new(Seeded::new(1));
    let log = Log::default();
    let (address, home) = system.prepare(Options::new());
    let mut run = Box::pin(home.run_actor(Device::new(), Life::new(&log, Last::Well)));
    let mut call = pin!(address.call(Do::PanicLater));
    assert!(poll(call.as_mut()).is_pending());
    let exit = loop {
        let (back, polled) = thread::spawn(move || {
            let polled = poll(run.as_mut());
            (run, polled)
        })
        .join()
        .unwrap();
        run = back;
        if let Poll::Ready(exit) = polled {
            break exit;
        }
    };
    assert_eq!(exit.to_string(), "panicked: out of beans");
    assert_eq!(log.all(), ["terminate: panicked: out of beans", "dropped, before it has ended"]);
    assert!(matches!(poll(call), Poll::Ready(Err(CallError::Ended(_)))));
}

/// Its `init` fails, and its last words take long.
struct Slow(Seeded, Log);

impl Actor for Slow {
    type Messages = ();
    type Error = &'static str;

    async fn init(&mut self, _: &mut Context<Self>) -> Result<(), &'static str> {
        Err("no beans")
    }

    async fn terminate(&mut self, exit: &Exit, _: &mut Context<Self>) {
        self.0.sleep_until(self.0.now() + 10 * SECOND).await;
        self.1.say(format!("terminate: {exit}"));
    }
}

#[test]
fn a_supervisor_lets_who_fails_to_start_have_its_last_words() {
    story(|system, runtime| async move {
        let log = Log::default();
        let (inside, clock) = (log.clone(), runtime.clone());
        let make = move || Slow(clock.clone(), inside.clone());
        let (_address, spec) = system.child("slow", Options::new(), make);
        let tree = Supervisor::new(RestartStrategy::OneForOne).child(spec.start_within(60 * SECOND));
        let failed = tree.start(runtime.clone()).await.unwrap_err().to_string();
        assert_eq!(log.all(), ["terminate: failed: no beans"], "{failed}");
        assert!(failed.contains("no beans"), "{failed}");
    });
}

/// Panics when it is dropped, if it is told to.
struct Copied(Arc<AtomicU32>);

impl Drop for Copied {
    fn drop(&mut self) {
        // The first of the two is the message.
        if self.0.fetch_sub(1, Ordering::Relaxed) == 1 {
            panic!("a copy");
        }
    }
}

#[test]
fn what_a_process_returns_may_panic_and_is_how_it_ends() {
    let system = System::new(Seeded::new(1));
    let (_address, home) = system.prepare::<u32>(Options::new());
    let mut run = Box::pin(home.run(Device::new(), |_| async { Err::<(), _>(Ugly) }));
    assert_eq!(poll(run.as_mut()).map(|exit| exit.to_string()), Poll::Ready("panicked: no words".to_owned()));
    let mut run = Box::pin(home.run(Device::new(), |_| async { Ok::<_, Ugly>(Thorn) }));
    assert_eq!(poll(run.as_mut()).map(|exit| exit.to_string()), Poll::Ready("panicked: a thorn".to_owned()));
}

#[test]
fn destructors_that_panic_at_the_end_keep_nobody_from_hearing_of_it() {
    for copies in [true, false] {
        let system = System::new(Seeded::new(1));
        let target = Device::new();
        let line = target.line();
        let options = Options::new().capacity(2).retry_where(1, |message: &Copied| {
            message.0.fetch_add(1, Ordering::Relaxed);
            Some(Copied(Arc::clone(&message.0)))
        });
        let (address, home) = system.prepare::<Copied>(options);
        let count = Arc::new(AtomicU32::new(1 + u32::from(!copies)));
        address.try_cast(Copied(count)).map_err(drop).unwrap();
        let mut run = Box::pin(home.run(Device::new(), |mut mailbox| async move {
            if copies {
                drop(mailbox.receive().await);
            } else {
                let thorn = Thorn;
                mailbox.monitor(&line, move |_| {
                    let _ = &thorn;
                    unreachable!("it lives")
                });
            }
        }));
        let mut end = pin!(address.ended());
        assert!(poll(end.as_mut()).is_pending());
        assert!(matches!(poll(run.as_mut()), Poll::Ready(Exit::Normal)));
        assert_eq!(poll(end), Poll::Ready(Some(Exit::Normal)));
        assert_eq!(system.dead_letters(), u64::from(!copies));
    }
}

#[test]
fn a_process_that_panics_before_it_has_a_future_has_ended_of_that() {
    let system = System::new(Seeded::new(1));
    let (address, home) = system.prepare::<Reply<u32>>(Options::new());
    let mut call = Box::pin(address.ask(|reply| reply).forever());
    assert!(poll(call.as_mut()).is_pending());
    let makes = |_: Mailbox<Reply<u32>>| -> std::future::Ready<()> { panic!("no future") };
    let caught = catch_unwind(AssertUnwindSafe(|| drop(home.run(Device::new(), makes)))).unwrap_err();
    assert_eq!(caught.downcast_ref(), Some(&"no future"));
    assert_eq!(address.line(), None);
    let Poll::Ready(Some(exit)) = poll(Box::pin(address.ended()).as_mut()) else { panic!("it has ended") };
    assert_eq!(exit.to_string(), "panicked: no future");
    // A successor would be given the request.
    assert!(poll(call.as_mut()).is_pending());
    drop(home);
    assert_eq!(poll(call.as_mut()), Poll::Ready(Err(CallError::Ended(exit))));
    assert_eq!(system.dead_letters(), 1);
}

#[test]
fn callers_of_a_child_whose_process_panics_before_it_has_a_future_are_told_when_it_is_given_up() {
    story(|system, runtime| async move {
        let makes = |_: Mailbox<Reply<u32>>| -> std::future::Ready<()> { panic!("no future") };
        let (address, spec) = system.child_process("it", Options::new(), makes);
        let mut call = Box::pin(address.ask(|reply| reply).forever());
        assert!(poll(call.as_mut()).is_pending());
        let tree = Supervisor::new(RestartStrategy::OneForOne).child(spec);
        let failed = tree.start(runtime.clone()).await.unwrap_err().to_string();
        assert!(failed.contains("no future"), "{failed}");
        let lost = call.await;
        assert!(
            matches!(&lost, Err(CallError::Ended(exit)) if exit.to_string() == "panicked: no future"),
            "{lost:?}"
        );
    });
}

#[test]
fn what_is_tried_again_and_set_aside_makes_no_other_message_older() {
    let system = System::new(Seeded::new(1));
    let log = Log::default();
    let hook = log.clone();
    let options =
        Options::new().retry(1).dead_letters(move |n: u32, cause| hook.say(format!("{n} {cause:?}")));
    let (address, home) = system.prepare::<u32>(options);
    address.try_cast(1).unwrap();
    let dies = |mut mailbox: Mailbox<u32>| async move {
        mailbox.receive().await;
        Err::<(), _>("broken")
    };
    assert!(poll(Box::pin(home.run(Device::new(), dies)).as_mut()).is_ready());
    address.try_cast(2).unwrap();
    // It is given the first again, wants the second first, and dies of that.
    let wants = |mut mailbox: Mailbox<u32>| async move {
        assert_eq!(mailbox.receive_where(|n| *n == 2).await, Ok(Some(2)));
        Err::<(), _>("broken")
    };
    assert!(poll(Box::pin(home.run(Device::new(), wants)).as_mut()).is_ready());
    assert_eq!(log.all(), Vec::<String>::new());
    let mut last = Box::pin(home.run(Device::new(), |mut mailbox: Mailbox<u32>| async move {
        let all = [mailbox.try_receive(), mailbox.try_receive(), mailbox.try_receive()];
        assert_eq!(all, [Some(2), Some(1), None]);
    }));
    assert_eq!(poll(last.as_mut()), Poll::Ready(Exit::Normal));
}

/// It dies of the one that it had set aside, at once or after it has died of another one.
#[test]
fn what_is_tried_again_and_set_aside_is_tried_no_more_often_for_it() {
    for late in [false, true] {
        let system = System::new(Seeded::new(1));
        let log = Log::default();
        let hook = log.clone();
        let options =
            Options::new().retry(2).dead_letters(move |n: u32, cause| hook.say(format!("{n} {cause:?}")));
        let (address, home) = system.prepare::<u32>(options);
        let lives = |wants: &'static [u32]| {
            let mut run = Box::pin(home.run(Device::new(), move |mut mailbox: Mailbox<u32>| async move {
                for wanted in wants {
                    assert_eq!(mailbox.receive_where(|n| n == wanted).await, Ok(Some(*wanted)));
                }
                Err::<(), _>("broken")
            }));
            assert_eq!(poll(run.as_mut()).map(|exit| exit.to_string()), Poll::Ready("failed: broken".into()));
        };
        address.try_cast(1).unwrap();
        lives(&[1]);
        address.try_cast(2).unwrap();
        if late {
            // It is set aside twice, and goes to a successor each time.
            lives(&[2]);
            lives(&[2]);
        }
        lives(&[2, 1]);
        assert_eq!(log.all(), Vec::<String>::new(), "it is tried a second time");
        lives(&[1]);
        assert_eq!(log.all(), ["1 KilledIt"]);
    }
}

/// The earlier of two ends in each way that there is.
#[test]
fn an_incarnation_that_ends_after_the_next_has_begun_is_not_the_end_of_that() {
    for way in ["well", "panics", "dropped", "fails"] {
        let system = System::new(Seeded::new(1));
        let log = Log::default();
        let (address, home) = system.prepare(Options::new());
        let mut first = Box::pin(home.run_actor(Device::new(), Life::new(&log, Last::Well)));
        let mut held = Box::pin(address.call(Do::HangUntil(way)));
        assert!(poll(held.as_mut()).is_pending());
        assert!(poll(first.as_mut()).is_pending());
        let mut next = Box::pin(home.run_actor(Device::new(), Life::new(&log, Last::Well)));
        assert!(poll(next.as_mut()).is_pending());
        let line = address.line();
        let mut waits = Box::pin(address.call(Do::Nothing));
        assert!(poll(waits.as_mut()).is_pending());
        let mut end = pin!(address.ended());
        assert!(poll(end.as_mut()).is_pending());
        if way == "dropped" {
            drop(first);
        } else {
            assert!(poll(first.as_mut()).is_ready());
        }
        let told = poll(held.as_mut());
        match way {
            "well" => assert_eq!(told, Poll::Ready(Ok(()))),
            _ => assert!(matches!(told, Poll::Ready(Err(CallError::Ended(_)))), "{told:?}"),
        }
        assert!(address.is_open() && address.line() == line && line.is_some());
        assert!(poll(end.as_mut()).is_pending());
        assert!(poll(next.as_mut()).is_pending());
        assert_eq!(poll(waits.as_mut()), Poll::Ready(Ok(())));
        address.stop(Exit::Shutdown);
        assert_eq!(poll(next.as_mut()), Poll::Ready(Exit::Shutdown));
        assert_eq!(poll(end.as_mut()), Poll::Ready(Some(Exit::Shutdown)));
        let (last, number) = (log.all().pop().unwrap(), log.all().len());
        assert_eq!(last, "dropped, before it has ended");
        assert_eq!(number, if way == "dropped" { 3 } else { 4 }, "{way}");
        assert_eq!(system.dead_letters(), 0);
    }
}

#[test]
fn callers_of_a_home_that_is_dropped_before_anybody_ran_there_are_told_of_no_end() {
    let system = System::new(Seeded::new(1));
    let (address, home) = system.prepare::<Reply<u32>>(Options::new().capacity(1));
    let mut waits = Box::pin(address.ask(|reply| reply).forever());
    let mut for_room = Box::pin(address.ask(|reply| reply).forever());
    assert!(poll(waits.as_mut()).is_pending());
    assert!(poll(for_room.as_mut()).is_pending());
    drop(home);
    assert_eq!(poll(waits.as_mut()), Poll::Ready(Err(CallError::NoReply)));
    assert_eq!(poll(for_room.as_mut()), Poll::Ready(Err(CallError::Gone)));
    assert_eq!(poll(Box::pin(address.ended()).as_mut()), Poll::Ready(None));
    assert_eq!(system.dead_letters(), 1);
}
