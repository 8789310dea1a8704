//! A door as a state machine: its code opens it, it closes by itself, and who wants to walk through waits until it is open.

use std::{convert::Infallible, error::Error, time::Duration};

use backplane::runtime::Smol;
use backplane_actor::{Entering, Event, Next, Reply, StateMachine, System, Turn, run_machine};

struct Door {
    code: [u8; 3],
    entered: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Locked,
    Open,
}

enum Message {
    Button(u8),
    Walk(&'static str, Reply<String>),
}

impl StateMachine for Door {
    type State = State;
    type Message = Message;
    type Content = ();
    type Name = ();
    type Error = Infallible;

    async fn enter(
        &mut self,
        from: Option<&State>,
        state: &State,
        entering: &mut Entering<'_, Self>,
    ) -> Result<(), Infallible> {
        println!("{from:?} -> {state:?}");
        self.entered.clear();
        if *state == State::Open {
            entering.state_timeout(Duration::from_millis(50), ());
        }
        Ok(())
    }

    async fn handle(
        &mut self,
        state: &State,
        event: Event<Self>,
        turn: &mut Turn<'_, Self>,
    ) -> Result<Next<State>, Infallible> {
        Ok(match (state, event) {
            (State::Locked, Event::Message(Message::Button(button))) => {
                self.entered.push(button);
                // Who hesitates begins again.
                turn.event_timeout(Duration::from_secs(5), ());
                if self.entered.ends_with(&self.code) { Next::To(State::Open) } else { Next::Keep }
            }
            (State::Locked, Event::EventTimeout(())) => Next::Repeat,
            (State::Locked, event @ Event::Message(Message::Walk(..))) => {
                turn.postpone(event);
                Next::Keep
            }
            (State::Open, Event::Message(Message::Walk(who, reply))) => {
                reply.send(format!("{who} is in"));
                Next::Keep
            }
            (State::Open, Event::StateTimeout(())) => Next::To(State::Locked),
            _ => Next::Keep,
        })
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let system = System::new(Smol::global());
    let door = Door { code: [1, 2, 3], entered: Vec::new() };
    let door = system.spawn(|mailbox| run_machine(door, State::Locked, mailbox));
    smol::block_on(async {
        let mut ann = Box::pin(door.ask(|reply| Message::Walk("Ann", reply)));
        assert!(smol::future::poll_once(&mut ann).await.is_none());
        for button in [9, 1, 2, 3] {
            door.cast(Message::Button(button)).await?;
        }
        println!("{}", ann.await?);
        Ok(())
    })
}
