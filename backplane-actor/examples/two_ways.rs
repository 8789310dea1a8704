//! The same counter in both ways: a process over its mailbox, and an actor with a handler for each message.

use std::convert::Infallible;

use backplane::runtime::Smol;
use backplane_actor::{Actor, Context, Handle, Mailbox, Reply, System};

enum Count {
    Add(u64),
    Share(u64, Reply<u64>),
}

/// A process: the state is in its variables.
async fn count(mut mailbox: Mailbox<Count>) {
    let mut total = 0;
    while let Some(message) = mailbox.receive().await {
        match message {
            Count::Add(n) => total += n,
            Count::Share(among, reply) => reply.send(total / among),
        }
    }
}

/// An actor: the state is in its fields.
struct Counter {
    total: u64,
}

impl Actor for Counter {
    type Messages = (Add, Share);
    type Error = Infallible;
}

struct Add(u64);

impl Handle<Add> for Counter {
    type Reply = ();

    async fn handle(&mut self, Add(n): Add, _: &mut Context<Self>) -> Result<(), Infallible> {
        self.total += n;
        Ok(())
    }
}

struct Share(u64);

impl Handle<Share> for Counter {
    type Reply = u64;

    async fn handle(&mut self, Share(among): Share, _: &mut Context<Self>) -> Result<u64, Infallible> {
        Ok(self.total / among)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let system = System::new(Smol::global());
    smol::block_on(async {
        let process = system.spawn(count);
        process.cast(Count::Add(12)).await?;
        assert_eq!(process.ask(|reply| Count::Share(3, reply)).await?, 4);

        let actor = system.start(Counter { total: 0 });
        actor.cast(Add(12)).await?;
        assert_eq!(actor.call(Share(3)).await?, 4);

        // Among nobody: it panics, and whoever asked hears of it at once.
        let error = actor.call(Share(0)).await.expect_err("nobody can share among nobody");
        println!("{error}");
        assert!(error.to_string().contains("divide by zero"));
        Ok(())
    })
}
