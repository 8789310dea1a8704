//! State machines. The scenarios beginning with `o` were played to OTP 25's `gen_statem`, and this is what it did.

use std::{
    collections::HashMap,
    convert::Infallible,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use backplane::{Device, Exit};
use backplane_actor::{
    Address, CallError, DEFAULT_CAPACITY, DeadLetter, Entering, Event, Next, Options, Reply, StateMachine,
    System, Turn, run_machine,
};

use crate::{
    random::Random,
    world::{World, poll},
};

const MS: Duration = Duration::from_millis(1);

type Log = Arc<Mutex<Vec<String>>>;

/// Does what each message says, once, and notes it down.
#[derive(Default)]
struct Scripted {
    log: Log,
    done: HashMap<&'static str, ()>,
    on_enter: HashMap<char, Vec<Action>>,
}

#[derive(Clone)]
enum Action {
    Postpone,
    Insert(Step),
    State(u64, &'static str),
    Event(u64, &'static str),
    Named(&'static str, u64, &'static str),
    UpdateState(&'static str),
    UpdateNamed(&'static str, &'static str),
    CancelState,
}

use Action::{CancelState, Insert, Named, Postpone, State, UpdateNamed, UpdateState};

#[derive(Clone)]
struct Step {
    tag: &'static str,
    next: Next<char>,
    actions: Vec<Action>,
}

enum Message {
    Do(Step),
    OnEnter(char, Vec<Action>),
}

fn step(tag: &'static str, next: Next<char>, actions: &[Action]) -> Step {
    Step { tag, next, actions: actions.to_vec() }
}

fn only(tag: &'static str) -> Step {
    step(tag, Next::Keep, &[])
}

impl Scripted {
    fn say(&self, words: String) {
        self.log.lock().unwrap().push(words);
    }

    fn set(actions: &[Action], entering: &mut Entering<'_, Scripted>) {
        for action in actions.iter().cloned() {
            match action {
                State(ms, content) => entering.state_timeout(MS * ms as u32, only(content)),
                Action::Event(ms, content) => entering.event_timeout(MS * ms as u32, only(content)),
                Named(name, ms, content) => entering.timeout(name, MS * ms as u32, only(content)),
                UpdateState(content) => entering.update_state_timeout(only(content)),
                UpdateNamed(name, content) => entering.update_timeout(name, only(content)),
                CancelState => entering.cancel_state_timeout(),
                Postpone | Insert(_) => {}
            }
        }
    }
}

impl StateMachine for Scripted {
    type State = char;
    type Message = Message;
    type Content = Step;
    type Name = &'static str;
    type Error = Infallible;

    async fn enter(
        &mut self,
        from: Option<&char>,
        state: &char,
        entering: &mut Entering<'_, Self>,
    ) -> Result<(), Infallible> {
        self.say(format!("{{enter,{},{state}}}", from.unwrap_or(state)));
        let actions = self.on_enter.get(state).cloned().unwrap_or_default();
        Scripted::set(&actions, entering);
        Ok(())
    }

    async fn handle(
        &mut self,
        state: &char,
        event: Event<Self>,
        turn: &mut Turn<'_, Self>,
    ) -> Result<Next<char>, Infallible> {
        let (kind, step) = match &event {
            Event::Message(Message::OnEnter(state, actions)) => {
                self.on_enter.insert(*state, actions.clone());
                return Ok(Next::Keep);
            }
            Event::Message(Message::Do(step)) => ("cast".to_owned(), step.clone()),
            Event::Internal(step) => ("internal".to_owned(), step.clone()),
            Event::StateTimeout(step) => ("state_timeout".to_owned(), step.clone()),
            Event::EventTimeout(step) => ("timeout".to_owned(), step.clone()),
            Event::Timeout(name, step) => (format!("{{timeout,{name}}}"), step.clone()),
            _ => unreachable!("there are no others"),
        };
        self.say(format!("{{{state},{kind},{}}}", step.tag));
        if self.done.insert(step.tag, ()).is_some() {
            return Ok(Next::Keep);
        }
        for action in &step.actions {
            if let Insert(step) = action {
                turn.insert(Event::Internal(step.clone()));
            }
        }
        Scripted::set(&step.actions, turn);
        if step.actions.iter().any(|action| matches!(action, Postpone)) {
            turn.postpone(event);
        }
        Ok(step.next)
    }
}

/// All messages are there when the machine begins to look.
#[track_caller]
fn plays(messages: Vec<Message>, expected: &str) {
    let world = World::new();
    let system = System::new(world.clone());
    let log = Log::default();
    let machine = Scripted { log: Arc::clone(&log), ..Scripted::default() };
    let address = system.spawn(|mailbox| run_machine(machine, 'a', mailbox));
    address.suspend();
    for message in messages {
        address.try_cast(message).unwrap();
    }
    address.resume();
    world.advance(120 * MS);
    assert_eq!(log.lock().unwrap().join(","), expected);
}

#[track_caller]
fn does(steps: Vec<Step>, expected: &str) {
    plays(steps.into_iter().map(Message::Do).collect(), expected);
}

#[test]
fn o1_inserted_events_come_first_then_postponed_ones_then_timeouts_of_no_time_then_messages() {
    does(
        vec![
            step("e1", Next::Keep, &[Postpone]),
            step("e2", Next::Keep, &[Postpone]),
            step(
                "e3",
                Next::To('b'),
                &[
                    Insert(only("i1")),
                    Insert(only("i2")),
                    State(0, "st"),
                    Action::Event(0, "et"),
                    Named("n", 0, "nt"),
                ],
            ),
            only("e4"),
        ],
        "{enter,a,a},{a,cast,e1},{a,cast,e2},{a,cast,e3},{enter,a,b},{b,internal,i1},{b,internal,i2},\
         {b,cast,e1},{b,cast,e2},{b,state_timeout,st},{b,{timeout,n},nt},{b,cast,e4}",
    );
}

#[test]
fn o2_timeouts_of_no_time_come_in_the_order_of_setting_and_cancel_an_event_timeout() {
    does(
        vec![step(
            "e1",
            Next::Keep,
            &[Named("n", 0, "nt"), State(0, "st"), Action::Event(0, "et"), Named("k", 0, "kt")],
        )],
        "{enter,a,a},{a,cast,e1},{a,{timeout,n},nt},{a,state_timeout,st},{a,{timeout,k},kt}",
    );
    does(
        vec![step("e1", Next::Keep, &[Action::Event(0, "et"), Named("n", 0, "nt"), State(0, "st")])],
        "{enter,a,a},{a,cast,e1},{a,timeout,et},{a,{timeout,n},nt},{a,state_timeout,st}",
    );
}

#[test]
fn o3_a_change_of_state_cancels_a_state_timeout_even_of_no_time() {
    does(
        vec![
            step("e0", Next::Keep, &[Postpone]),
            step(
                "e1",
                Next::To('b'),
                &[State(0, "st"), Named("n", 0, "nt"), Insert(step("go", Next::To('c'), &[]))],
            ),
        ],
        "{enter,a,a},{a,cast,e0},{a,cast,e1},{enter,a,b},{b,internal,go},{enter,b,c},{c,cast,e0},{c,{timeout,n},nt}",
    );
}

#[test]
fn o4_an_update_of_a_timeout_that_does_not_run_is_over_at_once() {
    does(
        vec![step("e1", Next::Keep, &[UpdateState("st"), UpdateNamed("n", "nt")])],
        "{enter,a,a},{a,cast,e1},{a,state_timeout,st},{a,{timeout,n},nt}",
    );
}

#[test]
fn o5_a_repeated_state_is_entered_again_and_is_no_change() {
    does(
        vec![
            step("e1", Next::Keep, &[Postpone]),
            step("e2", Next::Keep, &[State(50, "st")]),
            step("e3", Next::Repeat, &[]),
            only("e4"),
        ],
        "{enter,a,a},{a,cast,e1},{a,cast,e2},{a,cast,e3},{enter,a,a},{a,cast,e4},{a,state_timeout,st}",
    );
}

#[test]
fn o6_an_event_that_changes_the_state_may_be_postponed_and_comes_again_there() {
    does(
        vec![step("e0", Next::Keep, &[Postpone]), step("e1", Next::To('b'), &[Postpone]), only("e2")],
        "{enter,a,a},{a,cast,e0},{a,cast,e1},{enter,a,b},{b,cast,e0},{b,cast,e1},{b,cast,e2}",
    );
}

#[test]
fn o7_what_is_said_while_entering_comes_after_what_was_said_before() {
    plays(
        vec![
            Message::OnEnter('b', vec![State(20, "entered")]),
            Message::Do(step("e1", Next::To('b'), &[State(0, "st")])),
            Message::Do(only("e2")),
        ],
        "{enter,a,a},{a,cast,e1},{enter,a,b},{b,cast,e2},{b,state_timeout,entered}",
    );
}

#[test]
fn o8_a_timeout_that_is_set_again_has_a_new_place() {
    does(
        vec![step("e1", Next::Keep, &[Named("n", 0, "nt"), Named("k", 0, "kt"), Named("n", 0, "again")])],
        "{enter,a,a},{a,cast,e1},{a,{timeout,k},kt},{a,{timeout,n},again}",
    );
}

#[test]
fn o9_a_timeout_can_be_updated_and_cancelled() {
    does(
        vec![
            step("e1", Next::Keep, &[State(30, "st")]),
            step("e2", Next::Keep, &[UpdateState("new")]),
            step("e3", Next::Keep, &[CancelState]),
            step("e4", Next::Keep, &[UpdateState("zero")]),
        ],
        "{enter,a,a},{a,cast,e1},{a,cast,e2},{a,cast,e3},{a,cast,e4},{a,state_timeout,zero}",
    );
}

#[test]
fn o10_what_has_come_back_waits_for_an_inserted_event_that_changes_the_state_again() {
    does(
        vec![
            step("e1", Next::Keep, &[Postpone]),
            step("e2", Next::To('b'), &[Insert(step("e3", Next::To('c'), &[]))]),
            only("e4"),
        ],
        "{enter,a,a},{a,cast,e1},{a,cast,e2},{enter,a,b},{b,internal,e3},{enter,b,c},{c,cast,e1},{c,cast,e4}",
    );
}

#[test]
fn o11_an_inserted_event_can_be_postponed() {
    does(
        vec![
            step("e1", Next::Keep, &[Postpone]),
            step("e2", Next::To('b'), &[Insert(step("e3", Next::Keep, &[Postpone]))]),
            step("e4", Next::To('c'), &[]),
        ],
        "{enter,a,a},{a,cast,e1},{a,cast,e2},{enter,a,b},{b,internal,e3},{b,cast,e1},{b,cast,e4},{enter,b,c},\
         {c,internal,e3}",
    );
}

#[test]
fn o12_an_inserted_event_cancels_an_event_timeout_of_no_time() {
    does(
        vec![step("e1", Next::Keep, &[Action::Event(0, "et"), Insert(only("i"))])],
        "{enter,a,a},{a,cast,e1},{a,internal,i}",
    );
}

#[test]
fn o13_the_same_state_is_no_change() {
    does(
        vec![step("e1", Next::To('a'), &[State(20, "st")]), step("e2", Next::To('a'), &[Postpone])],
        "{enter,a,a},{a,cast,e1},{a,cast,e2},{a,state_timeout,st}",
    );
}

#[test]
fn o14_any_event_cancels_an_event_timeout() {
    does(
        vec![step("e1", Next::Keep, &[Action::Event(20, "et")]), only("e2")],
        "{enter,a,a},{a,cast,e1},{a,cast,e2}",
    );
}

#[test]
fn o16_inserted_events_keep_their_order_and_what_they_insert_comes_before_the_rest() {
    does(
        vec![step(
            "e1",
            Next::Keep,
            &[Insert(only("i1")), Insert(step("i2", Next::Keep, &[Insert(only("i3"))])), Insert(only("i4"))],
        )],
        "{enter,a,a},{a,cast,e1},{a,internal,i1},{a,internal,i2},{a,internal,i3},{a,internal,i4}",
    );
}

enum Order {
    Switch,
    Ask(Reply<u32>),
    /// Kept, and answered at the next switch.
    Later(Reply<u32>),
    Panic,
    Stop,
}

/// Answers when it is on.
#[derive(Default)]
struct Lamp {
    waiting: Vec<Reply<u32>>,
    ended: Log,
}

impl StateMachine for Lamp {
    type State = bool;
    type Message = Order;
    type Content = ();
    type Name = ();
    type Error = String;

    async fn handle(
        &mut self,
        on: &bool,
        event: Event<Self>,
        turn: &mut Turn<'_, Self>,
    ) -> Result<Next<bool>, String> {
        match (*on, event) {
            (on, Event::Message(Order::Switch)) => {
                self.waiting.drain(..).for_each(|reply| reply.send(2));
                return Ok(Next::To(!on));
            }
            (true, Event::Message(Order::Ask(reply))) => reply.send(1),
            (false, event @ Event::Message(Order::Ask(_))) => turn.postpone(event),
            (_, Event::Message(Order::Later(reply))) => self.waiting.push(reply),
            (_, Event::Message(Order::Panic)) => panic!("odd order"),
            (_, Event::Message(Order::Stop)) => return Ok(Next::Stop(Exit::Normal)),
            _ => {}
        }
        Ok(Next::Keep)
    }

    async fn terminate(&mut self, exit: &Exit, on: &bool) {
        self.ended.lock().unwrap().push(format!("{on}: {exit}"));
    }
}

fn lamp(options: Options<Order>) -> (World, Address<Order>, Log) {
    let world = World::new();
    let (system, ended) = (System::new(world.clone()), Log::default());
    let lamp = Lamp { ended: Arc::clone(&ended), ..Lamp::default() };
    let address = system.spawn_with(options, |mailbox| run_machine(lamp, false, mailbox));
    world.run();
    (world, address, ended)
}

#[test]
fn a_call_is_answered_from_a_later_state() {
    let (world, lamp, _) = lamp(Options::new());
    let (mut ask, mut later) = (pin!(lamp.ask(Order::Ask)), pin!(lamp.ask(Order::Later)));
    assert!(poll(ask.as_mut()).is_pending() && poll(later.as_mut()).is_pending());
    world.run();
    assert!(poll(ask.as_mut()).is_pending() && poll(later.as_mut()).is_pending());
    lamp.try_cast(Order::Switch).unwrap();
    world.run();
    assert!(matches!(poll(ask.as_mut()), Poll::Ready(Ok(1))));
    assert!(matches!(poll(later.as_mut()), Poll::Ready(Ok(2))));
}

#[test]
fn what_is_postponed_at_the_end_goes_to_the_dead_letters_and_its_callers_are_told() {
    for (order, cause, words) in [
        (Order::Stop, DeadLetter::Stopped, "false: normal"),
        (Order::Panic, DeadLetter::Died, "false: panicked: odd order"),
    ] {
        let buried = Arc::new(Mutex::new(Vec::new()));
        let options = {
            let buried = Arc::clone(&buried);
            Options::new().dead_letters(move |_, cause| buried.lock().unwrap().push(cause))
        };
        let (world, lamp, ended) = lamp(options);
        let mut ask = pin!(lamp.ask(Order::Ask));
        assert!(poll(ask.as_mut()).is_pending());
        world.run();
        lamp.try_cast(order).unwrap();
        world.run();
        assert!(matches!(poll(ask.as_mut()), Poll::Ready(Err(CallError::Ended(_)))));
        assert_eq!(*buried.lock().unwrap(), [cause]);
        assert_eq!(*ended.lock().unwrap(), [words]);
    }
}

#[test]
fn a_machine_that_postpones_more_than_there_is_room_for_ends_and_nothing_is_lost() {
    let buried = Arc::new(AtomicUsize::new(0));
    let options = {
        let buried = Arc::clone(&buried);
        Options::new().capacity(1).dead_letters(move |_, cause| {
            assert_eq!(cause, DeadLetter::Died);
            buried.fetch_add(1, Ordering::SeqCst);
        })
    };
    let (world, lamp, ended) = lamp(options);
    let mut asks: Vec<_> = (0..=DEFAULT_CAPACITY).map(|_| Box::pin(lamp.ask(Order::Ask))).collect();
    for ask in &mut asks {
        assert!(ended.lock().unwrap().is_empty());
        assert!(poll(ask.as_mut()).is_pending());
        world.run();
    }
    assert_eq!(*ended.lock().unwrap(), ["false: failed: 1025 events are postponed"]);
    assert_eq!(buried.load(Ordering::SeqCst), 1025);
    for ask in &mut asks {
        assert!(matches!(poll(ask.as_mut()), Poll::Ready(Err(CallError::Ended(_)))));
    }
}

#[test]
fn a_machine_that_is_asked_to_stop_stops_in_the_middle_of_its_own_events() {
    struct Busy;
    impl StateMachine for Busy {
        type State = ();
        type Message = ();
        type Content = ();
        type Name = ();
        type Error = Infallible;
        async fn handle(
            &mut self,
            _: &(),
            event: Event<Self>,
            turn: &mut Turn<'_, Self>,
        ) -> Result<Next<()>, Infallible> {
            let again = if let Event::Message(()) = event { Event::Internal(()) } else { event };
            turn.insert(again);
            Ok(Next::Keep)
        }
    }
    let world = World::new();
    let system = System::new(world.clone());
    let busy = system.spawn(|mailbox| run_machine(Busy, (), mailbox));
    busy.try_cast(()).unwrap();
    let stops = busy.clone();
    // It lets others have their turn: else this would never run.
    world.go(async move {
        stops.stop(Exit::Shutdown);
    });
    world.run();
    assert_eq!(world.block_on(busy.ended()), Some(Exit::Shutdown));
}

/// Against a model: whatever is postponed comes back in order, once, and nothing is lost.
#[test]
fn each_message_is_handled_once_or_postponed_and_in_order_after_each_change() {
    struct Sorter {
        handled: Arc<Mutex<Vec<u64>>>,
        postponed: Arc<AtomicUsize>,
    }
    impl StateMachine for Sorter {
        type State = u64;
        type Message = u64;
        type Content = ();
        type Name = ();
        type Error = Infallible;
        async fn handle(
            &mut self,
            state: &u64,
            event: Event<Self>,
            turn: &mut Turn<'_, Self>,
        ) -> Result<Next<u64>, Infallible> {
            let Event::Message(number) = event else { return Ok(Next::Keep) };
            // Of three kinds, one is for each state, and every tenth changes it.
            if number.is_multiple_of(10) {
                return Ok(Next::To((state + 1) % 3));
            }
            if number % 3 == *state {
                self.handled.lock().unwrap().push(number);
            } else {
                self.postponed.fetch_add(1, Ordering::SeqCst);
                turn.postpone(Event::Message(number));
            }
            Ok(Next::Keep)
        }
    }
    for seed in 0..50 {
        let mut random = Random(seed);
        let world = World::new();
        let system = System::new(world.clone());
        let sorter = Sorter { handled: Arc::default(), postponed: Arc::default() };
        let handled = Arc::clone(&sorter.handled);
        let address = system.spawn(|mailbox| run_machine(sorter, 0, mailbox));
        let (mut state, mut expected, mut waiting) = (0, Vec::new(), Vec::new());
        for _ in 0..200 {
            let number = random.below(1000);
            address.try_cast(number).unwrap();
            if random.below(5) == 0 {
                world.run();
            }
            waiting.push(number);
            if number.is_multiple_of(10) {
                waiting.pop();
                state = (state + 1) % 3;
            }
            waiting.retain(|number| {
                let now = number % 3 == state;
                expected.extend(now.then_some(*number));
                !now
            });
        }
        world.run();
        assert_eq!(*handled.lock().unwrap(), expected, "seed {seed}");
    }
}

enum Note {
    Open,
    Close,
    /// It opens, and shuts before anything else is handled.
    Flash,
    Ask(u32, Reply<u32>),
    Mark(u32),
    /// Whatever it says is postponed without the right to answer.
    Split(Option<Reply<u32>>),
    /// Receives the next itself, and postpones itself.
    Take(Reply<u32>),
    Poison,
    /// It is postponed, and all is over.
    Spoil,
}

type Deadline = Option<std::time::Instant>;

/// While it is shut, it postpones all but `Open`.
struct Desk {
    log: Log,
    held: Arc<Mutex<Vec<Reply<u32>>>>,
    timer: Option<Address<Reply<Deadline>>>,
}

impl Desk {
    fn say(&self, words: impl Into<String>) {
        self.log.lock().unwrap().push(words.into());
    }
}

impl StateMachine for Desk {
    type State = bool;
    type Message = Note;
    type Content = ();
    type Name = ();
    type Error = &'static str;

    async fn handle(
        &mut self,
        open: &bool,
        event: Event<Self>,
        turn: &mut Turn<'_, Self>,
    ) -> Result<Next<bool>, &'static str> {
        match event {
            Event::Message(Note::Open) => return Ok(Next::To(true)),
            Event::Message(Note::Close) => return Ok(Next::To(false)),
            Event::Message(Note::Flash) => {
                turn.insert(Event::Message(Note::Close));
                return Ok(Next::To(true));
            }
            Event::Message(Note::Spoil) => {
                turn.postpone(Event::Message(Note::Spoil));
                turn.insert(Event::Message(Note::Close));
                return Err("spoilt");
            }
            Event::Message(Note::Poison) if *open => return Err("poison"),
            Event::Message(Note::Ask(n, reply)) if *open => {
                self.say(format!("ask {n}"));
                if let Some(timer) = &self.timer {
                    let deadline = timer.ask(|reply| reply).forever().await;
                    assert_eq!(deadline, Ok(reply.deadline()));
                }
                reply.send(n);
            }
            Event::Message(Note::Mark(n)) if *open => self.say(format!("mark {n}")),
            Event::Message(Note::Split(reply)) if *open => {
                self.say(if reply.is_some() { "whole" } else { "half" });
            }
            Event::Message(Note::Split(reply)) => {
                self.held.lock().unwrap().extend(reply);
                turn.postpone(Event::Message(Note::Split(None)));
                turn.postpone(Event::Message(Note::Mark(9)));
            }
            Event::Message(Note::Take(reply)) if *open => {
                self.say("taken");
                reply.send(0);
            }
            Event::Message(Note::Take(reply)) => {
                let other = turn.mailbox().try_receive().map(Event::Message);
                turn.postpone(Event::Message(Note::Take(reply)));
                other.into_iter().for_each(|other| turn.postpone(other));
            }
            event => turn.postpone(event),
        }
        Ok(Next::Keep)
    }
}

struct Office {
    world: World,
    log: Log,
    held: Arc<Mutex<Vec<Reply<u32>>>>,
    lost: Log,
    desk: Address<Note>,
}

fn office(options: Options<Note>) -> Office {
    let world = World::new();
    let system = System::new(world.clone());
    let (log, lost, held) = (Log::default(), Log::default(), Arc::default());
    let timer = system.spawn(|mut mailbox: backplane_actor::Mailbox<Reply<Deadline>>| async move {
        while let Some(reply) = mailbox.receive().await {
            let deadline = reply.deadline();
            reply.send(deadline);
        }
    });
    let desk = Desk { log: Arc::clone(&log), held: Arc::clone(&held), timer: Some(timer) };
    let hook = Arc::clone(&lost);
    let options = options.dead_letters(move |note, cause| {
        let what = match note {
            Note::Poison => "poison",
            Note::Spoil => "spoil",
            Note::Close => "close",
            _ => "another",
        };
        hook.lock().unwrap().push(format!("{what}: {cause:?}"));
    });
    let desk = system.spawn_with(options, |mailbox| run_machine(desk, false, mailbox));
    world.run();
    Office { world, log, held, lost, desk }
}

impl Office {
    fn says(&self, note: Note) -> Vec<String> {
        self.desk.try_cast(note).map_err(drop).unwrap();
        self.world.run();
        self.log.lock().unwrap().clone()
    }
}

#[test]
fn a_postponed_call_is_not_handled_when_its_caller_has_gone() {
    let office = office(Options::new());
    let mut dropped = Box::pin(office.desk.ask(|reply| Note::Ask(1, reply)));
    let mut late = pin!(office.desk.ask(|reply| Note::Ask(2, reply)).within(MS));
    let mut late_by_default = pin!(office.desk.ask(|reply| Note::Ask(3, reply)));
    let mut patient = pin!(office.desk.ask(|reply| Note::Ask(4, reply)).within(MS * 60_000));
    for ask in [dropped.as_mut(), late.as_mut(), late_by_default.as_mut(), patient.as_mut()] {
        assert!(poll(ask).is_pending());
    }
    assert!(office.says(Note::Mark(1)).is_empty());
    office.world.advance(MS * 6000);
    drop(dropped);
    assert_eq!(poll(late), Poll::Ready(Err(CallError::TimedOut)));
    assert_eq!(poll(late_by_default), Poll::Ready(Err(CallError::TimedOut)));
    assert_eq!(office.says(Note::Open), ["ask 4", "mark 1"]);
    assert_eq!(poll(patient), Poll::Ready(Ok(4)));
    // As of any call whose caller has gone, there is no more to say.
    assert!(office.lost.lock().unwrap().is_empty());
}

#[test]
fn a_call_that_is_postponed_again_is_the_same_call() {
    let office = office(Options::new());
    let mut gone = Box::pin(office.desk.ask(|reply| Note::Ask(1, reply)));
    let mut patient = pin!(office.desk.ask(|reply| Note::Ask(2, reply)));
    assert!(poll(gone.as_mut()).is_pending() && poll(patient.as_mut()).is_pending());
    for n in 1..3 {
        assert!(office.says(Note::Mark(n)).is_empty());
        assert!(office.says(Note::Flash).is_empty());
    }
    drop(gone);
    assert_eq!(office.says(Note::Open), ["ask 2", "mark 1", "mark 2"]);
    assert_eq!(poll(patient), Poll::Ready(Ok(2)));
}

/// What a handler makes of a call is not lost with the caller, as far as anybody can tell them apart.
#[test]
fn what_is_postponed_is_no_call_when_the_reply_is_elsewhere_and_answered_or_it_is_of_another_kind() {
    let office = office(Options::new());
    let mut split = pin!(office.desk.ask(|reply| Note::Split(Some(reply))));
    assert!(poll(split.as_mut()).is_pending());
    office.world.run();
    for reply in office.held.lock().unwrap().drain(..) {
        reply.send(5);
    }
    assert_eq!(poll(split), Poll::Ready(Ok(5)));
    assert_eq!(office.says(Note::Open), ["half", "mark 9"]);
    office.says(Note::Close);
    let mut split = Box::pin(office.desk.ask(|reply| Note::Split(Some(reply))));
    assert!(poll(split.as_mut()).is_pending());
    office.world.run();
    drop(split);
    assert_eq!(office.says(Note::Open)[2..], ["mark 9"]);
}

#[test]
fn postponed_calls_without_callers_take_no_room() {
    let office = office(Options::new().capacity(1));
    for n in 0..2 * DEFAULT_CAPACITY as u32 {
        let mut ask = Box::pin(office.desk.ask(|reply| Note::Ask(n, reply)));
        assert!(poll(ask.as_mut()).is_pending());
        office.world.run();
    }
    assert_eq!(office.says(Note::Mark(1)).len(), 0);
    assert_eq!(office.says(Note::Open), ["mark 1"]);
    assert!(office.desk.is_open());
}

#[test]
fn a_machine_that_receives_by_itself_postpones_each_message_with_its_own_caller() {
    for gone in [0, 1] {
        let office = office(Options::new());
        office.desk.suspend();
        let mut take = Some(Box::pin(office.desk.ask(Note::Take)));
        let mut ask = Some(Box::pin(office.desk.ask(|reply| Note::Ask(1, reply)).forever()));
        assert!(poll(take.as_mut().unwrap().as_mut()).is_pending());
        assert!(poll(ask.as_mut().unwrap().as_mut()).is_pending());
        office.desk.resume();
        office.world.run();
        drop(if gone == 0 { take.take() } else { ask.take() });
        let said = office.says(Note::Open);
        if let Some(mut ask) = ask {
            assert_eq!(said, ["ask 1"]);
            assert_eq!(poll(ask.as_mut()), Poll::Ready(Ok(1)));
        }
        if let Some(mut take) = take {
            assert_eq!(said[0], "taken");
            assert_eq!(poll(take.as_mut()), Poll::Ready(Ok(0)));
        }
    }
}

fn copied(note: &Note) -> Option<Note> {
    match note {
        Note::Open => Some(Note::Open),
        Note::Poison => Some(Note::Poison),
        Note::Spoil => Some(Note::Spoil),
        _ => None,
    }
}

#[test]
fn what_a_machine_dies_of_is_the_postponed_message_that_it_handles_and_not_the_one_before() {
    let office = office(Options::new().retry_where(0, copied));
    office.says(Note::Mark(1));
    office.says(Note::Poison);
    assert!(office.lost.lock().unwrap().is_empty());
    office.says(Note::Open);
    assert!(matches!(office.world.block_on(office.desk.ended()), Some(exit) if exit.is_fault()));
    assert_eq!(*office.lost.lock().unwrap(), ["poison: KilledIt"]);
}

#[test]
fn what_a_machine_has_postponed_or_inserted_when_it_fails_is_buried_once() {
    let office = office(Options::new().retry_where(0, copied));
    office.says(Note::Spoil);
    assert!(matches!(office.world.block_on(office.desk.ended()), Some(exit) if exit.is_fault()));
    assert_eq!(*office.lost.lock().unwrap(), ["spoil: Died", "close: Died"]);
}

#[test]
fn what_a_machine_is_given_again_and_postpones_is_tried_no_more_often_for_it() {
    let world = World::new();
    let lost = Log::default();
    let hook = Arc::clone(&lost);
    let options = Options::new().retry_where(1, copied).dead_letters(move |note, cause| {
        let what = if matches!(note, Note::Poison) { "poison" } else { "another" };
        hook.lock().unwrap().push(format!("{what}: {cause:?}"));
    });
    let (desk, home) = System::new(world).prepare(options);
    desk.try_cast(Note::Poison).map_err(drop).unwrap();
    for buried in [&[] as &[_], &["poison: KilledIt"]] {
        // It is postponed before it kills.
        desk.try_cast(Note::Open).map_err(drop).unwrap();
        let machine = Desk { log: Log::default(), held: Arc::default(), timer: None };
        let mut run = pin!(home.run(Device::new(), |mailbox| run_machine(machine, false, mailbox)));
        assert!(matches!(poll(run.as_mut()), Poll::Ready(exit) if exit.is_fault()));
        assert_eq!(*lost.lock().unwrap(), buried);
    }
}
