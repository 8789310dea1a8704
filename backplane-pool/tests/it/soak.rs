//! Tasks that are spawned, woken, cancelled and made to panic at random, while every single one is counted.
//!
//! `BACKPLANE_SOAK_SECONDS=600 cargo test --release -p backplane-pool --test it soak` does it for ten minutes. Then memory
//! must not grow after the first tenth, either; a run of a second, with other tests beside it, cannot tell.

use std::{
    future::pending,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use backplane_pool::{Handle, JoinError, Pinning, Pool, Topology};
use futures_lite::future::{or, yield_now};

/// Who was spawned, and who is gone.
#[derive(Default)]
struct Book {
    born: AtomicU64,
    gone: AtomicU64,
}

/// Is counted when it is made, before its task is, and when its task's future is dropped.
struct Present(Arc<Book>);

impl Present {
    fn new(book: &Arc<Book>) -> Present {
        book.born.fetch_add(1, Ordering::Relaxed);
        Present(Arc::clone(book))
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.0.gone.fetch_add(1, Ordering::Relaxed);
    }
}

fn next(word: &mut u64) -> u64 {
    *word ^= *word << 13;
    *word ^= *word >> 7;
    *word ^= *word << 17;
    *word >> 16
}

type Life = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One random life, with children.
fn life(present: Present, pool: Handle, mut word: u64, depth: u32) -> Life {
    Box::pin(async move {
        let another = || Present::new(&present.0);
        let (send, receive) = async_channel::bounded::<()>(2);
        for _ in 0..next(&mut word) % 6 {
            match next(&mut word) % 7 {
                0 => yield_now().await,
                1 => drop(async_io::Timer::after(Duration::from_micros(next(&mut word) % 300)).await),
                2 if depth > 0 => {
                    let child = pool.spawn(life(another(), pool.clone(), next(&mut word) | 1, depth - 1));
                    match next(&mut word) % 3 {
                        0 => drop(child.await),
                        1 => drop(child.cancel().await),
                        _ => child.detach(),
                    }
                }
                3 => {
                    let (send, present) = (send.clone(), another());
                    let wakes = async move { drop((send.send(()).await, present)) };
                    pool.spawn(wakes).detach();
                    or(async { receive.recv().await.unwrap_or(()) }, yield_now()).await;
                }
                4 => {
                    let present = another();
                    let panics = async move {
                        let _present = present;
                        std::panic::resume_unwind(Box::new("on purpose"))
                    };
                    let ended: Result<(), _> = pool.spawn(panics).await;
                    assert!(matches!(ended, Err(JoinError::Panicked(_) | JoinError::Cancelled)));
                }
                5 => {
                    let present = another();
                    let local = || async move {
                        yield_now().await;
                        drop(present);
                    };
                    drop(pool.spawn_local(local).await);
                }
                _ => {
                    let present = another();
                    let waits = async move {
                        pending::<Present>().await;
                        drop(present)
                    };
                    drop(pool.spawn(waits).cancel().await);
                }
            }
        }
    })
}

fn resident() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    statm.split(' ').nth(1)?.parse::<u64>().ok().map(|pages| pages * 4096)
}

#[test]
fn no_task_is_lost_and_memory_stays_flat() {
    let seconds = std::env::var("BACKPLANE_SOAK_SECONDS").map_or(1, |word| word.parse().unwrap());
    let topology = Topology::from_nodes([(0, [0, 1]), (1, [2, 3])]);
    let pool = Pool::builder().topology(topology).pinning(Pinning::None).build().unwrap();
    let book = Arc::new(Book::default());
    let (begin, all) = (Instant::now(), Duration::from_secs(seconds));
    let (mut word, mut settled) = (0x9e37_79b9_7f4a_7c15, None);
    while begin.elapsed() < all {
        let lives: Vec<_> = (0..200)
            .map(|_| pool.spawn(life(Present::new(&book), pool.handle(), next(&mut word) | 1, 3)))
            .collect();
        for (at, life) in lives.into_iter().enumerate() {
            if at % 10 == 0 {
                drop(pool.block_on(life.cancel()));
            } else {
                pool.block_on(life).unwrap();
            }
        }
        if settled.is_none() && begin.elapsed() > all / 10 {
            settled = resident();
        }
    }
    pool.shutdown(Duration::from_secs(60)).unwrap();
    let (born, gone) = (book.born.load(Ordering::Relaxed), book.gone.load(Ordering::Relaxed));
    println!("{born} tasks came and {gone} went in {:.0?}", begin.elapsed());
    assert_eq!(born, gone, "no task is lost, and none is there twice");
    if let (Some(before), Some(after), true) = (settled, resident(), seconds >= 10) {
        println!("resident memory: {} KiB after a tenth, {} KiB at the end", before / 1024, after / 1024);
        assert!(after < before + before / 2 + (8 << 20), "memory grows");
    }
}
