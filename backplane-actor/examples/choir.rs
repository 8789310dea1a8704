//! Names and groups: a choir whose members come and go, one score for all of them, and someone who counts.

use std::{error::Error, sync::Arc};

use backplane::{Exit, runtime::Smol};
use backplane_actor::{Address, Change, Groups, Mailbox, Registry, System};

type Singer = Address<Arc<str>>;

fn main() -> Result<(), Box<dyn Error>> {
    let system = System::new(Smol::global());
    let (names, groups) = (Registry::<String, Singer>::new(), Groups::<&str, Singer>::new());
    let (present, mut changes) = groups.monitor("choir");
    assert!(present.is_empty());

    let (heard, counted) = smol::channel::unbounded();
    for name in ["Ann", "Bob", "Cleo"] {
        let heard = heard.clone();
        let singer = system.spawn(move |mut scores: Mailbox<Arc<str>>| async move {
            while let Some(score) = scores.receive().await {
                drop(heard.send((name, score)).await);
            }
        });
        names.register_actor(name.to_owned(), &singer)?;
        groups.join_actor("choir", &singer)?;
    }

    smol::block_on(async {
        let score: Arc<str> = "la, la".into();
        let told = groups.broadcast("choir", &score, |_, refused| println!("{refused}"));
        for _ in 0..told {
            let (name, sung) = counted.recv().await?;
            println!("{name} sings {sung}");
            assert!(Arc::ptr_eq(&sung, &score));
        }

        let bob = names.lookup("Bob").ok_or("nobody is called Bob")?;
        bob.stop(Exit::Normal);
        let mut here = 0;
        while let change = changes.receive().await
            && matches!(change, Change::Joined { .. })
        {
            here += 1;
        }
        println!("{here} came, and one has left; {} are here", groups.members("choir").len());
        assert!(names.lookup("Bob").is_none());
        // His name is free.
        names.register_actor(
            "Bob".to_owned(),
            &system.spawn(|_: Mailbox<Arc<str>>| std::future::pending::<()>()),
        )?;
        Ok(())
    })
}
