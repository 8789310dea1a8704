//! Casts, calls, kills and restarts for so many seconds (one, if no number is given): every accepted message is accounted for.

use std::{
    env,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use backplane::{Exit, runtime::Smol};
use backplane_actor::{Mailbox, Options, Reply, System};
use backplane_supervisor::{Intensity, RestartStrategy, Supervisor};

enum Work {
    Do,
    Fail,
    Ask(Reply<()>),
}

#[derive(Default)]
struct Book {
    accepted: AtomicU64,
    begun: AtomicU64,
    buried: AtomicU64,
    answered: AtomicU64,
    not_answered: AtomicU64,
}

/// Resident memory in KiB, where the system says it.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let seconds = env::args().nth(1).map_or(Ok(1), |seconds| seconds.parse())?;
    std::panic::set_hook(Box::new(|_| {}));
    let (system, book) = (System::new(Smol::global()), Arc::new(Book::default()));
    let mut tree = Supervisor::new(RestartStrategy::OneForOne)
        .intensity(Intensity { restarts: u32::MAX, period: Duration::from_secs(1) });
    let mut addresses = Vec::new();
    for index in 0..16 {
        let (begun, buried) = (Arc::clone(&book), Arc::clone(&book));
        let options = Options::new().capacity(64).dead_letters(move |_: Work, _| {
            buried.buried.fetch_add(1, Relaxed);
        });
        let (address, spec) =
            system.child_process(format!("worker {index}"), options, move |mut mailbox: Mailbox<Work>| {
                let book = Arc::clone(&begun);
                async move {
                    while let Some(work) = mailbox.receive().await {
                        book.begun.fetch_add(1, Relaxed);
                        match work {
                            Work::Do => {}
                            Work::Fail => panic!("as asked"),
                            Work::Ask(reply) => reply.send(()),
                        }
                    }
                }
            });
        tree = tree.child(spec);
        addresses.push(address);
    }
    smol::block_on(async {
        let handle = tree.start(Smol::global()).await?;
        let (end, mut random, mut memory) = (Instant::now() + Duration::from_secs(seconds), 1_u64, None);
        while Instant::now() < end {
            for _ in 0..1000 {
                random =
                    random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let address = &addresses[(random >> 33) as usize % addresses.len()];
                let accepted = match (random >> 40) % 1000 {
                    0 => {
                        address.kill();
                        false
                    }
                    1 => address.try_cast(Work::Fail).is_ok(),
                    2..100 => {
                        let answer = address.ask(Work::Ask).await;
                        let count = if answer.is_ok() { &book.answered } else { &book.not_answered };
                        count.fetch_add(1, Relaxed);
                        false
                    }
                    _ => address.cast(Work::Do).await.is_ok(),
                };
                book.accepted.fetch_add(u64::from(accepted), Relaxed);
            }
            memory = memory.or_else(resident);
        }
        handle.stop(Exit::Shutdown).await?;
        let [accepted, begun, buried, answered, not_answered] =
            [&book.accepted, &book.begun, &book.buried, &book.answered, &book.not_answered]
                .map(|count| count.load(Relaxed));
        println!("{accepted} casts accepted; {answered} calls answered, {not_answered} told of an end");
        println!("{begun} messages handled, {buried} buried");
        // A call that was told of an end was handled up to there, or buried, or never accepted.
        let (all, known) = (accepted + answered, begun + buried);
        assert!((all..=all + not_answered).contains(&known), "{all} accepted, {known} accounted for");
        println!("memory: {memory:?} KiB after the first rounds, {:?} KiB at the end", resident());
        Ok::<(), Box<dyn std::error::Error>>(())
    })?;
    drop(addresses);
    Ok(())
}
