//! Workers behind one address: they share the work, crash, and are started again; each job is done or handed back.

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use backplane::runtime::Smol;
use backplane_actor::{Mailbox, Options, Reply, Router, Routing, System};
use backplane_supervisor::Intensity;

enum Job {
    Divide(u64, u64, Reply<u64>),
}

fn main() -> Result<(), Box<dyn Error>> {
    // They panic on purpose, and say so; here, nobody needs to see it.
    std::panic::set_hook(Box::new(|_| ()));
    let lost = Arc::new(AtomicU64::new(0));
    let options = {
        let lost = Arc::clone(&lost);
        Options::new().dead_letters(move |_, _| {
            lost.fetch_add(1, Ordering::SeqCst);
        })
    };
    let router = Router::new(|mut jobs: Mailbox<Job>| async move {
        while let Some(Job::Divide(a, b, reply)) = jobs.receive().await {
            // By zero: the worker panics, and its caller is told at once.
            reply.send(a / b);
        }
    })
    .workers(2..=4)
    .routing(Routing::least_loaded())
    .intensity(Intensity { restarts: 100, period: std::time::Duration::from_secs(1) })
    .worker_mailbox(options.clone().capacity(1))
    .mailbox(options);
    let stats = router.stats();

    let system = System::new(Smol::global());
    let crew = router.start(&system);
    smol::block_on(async {
        let (mut done, mut failed) = (0, 0);
        for n in 0..60 {
            match crew.ask(|reply| Job::Divide(100, n % 4, reply)).await {
                Ok(_) => done += 1,
                Err(_) => failed += 1,
            }
        }
        println!("{done} done, {failed} failed, {} workers", stats.workers());
        assert_eq!((done, failed), (45, 15));
        crew.drain();
        println!("the router ended: {:?}", crew.ended().await);
    });
    assert_eq!(lost.load(Ordering::SeqCst), 0);
    Ok(())
}
