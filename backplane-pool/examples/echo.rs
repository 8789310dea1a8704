//! An echo server on the pool, hit by clients that check every byte, while its connections are killed.
//!
//! A killed connection is the drop of its task. Clients that lose theirs connect again, and in the end every message has come
//! back whole.

use std::{
    error::Error,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use async_io::{Async, Timer};
use backplane_pool::{Handle, Pool, Task};
use futures_lite::{AsyncReadExt, AsyncWriteExt};

const CLIENTS: usize = 50;
const MESSAGES: usize = 200;
const KILLS: usize = 40;

type Connections = Arc<Mutex<Vec<Task<()>>>>;

async fn serve(pool: Handle, listener: Async<TcpListener>, connections: Connections) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let connection = pool.spawn_named("connection", async move {
            let mut buffer = [0; 64];
            while stream.read_exact(&mut buffer).await.is_ok() && stream.write_all(&buffer).await.is_ok() {}
        });
        let mut connections = connections.lock().expect("nobody panics with it");
        connections.retain(|connection| !connection.is_finished());
        connections.push(connection);
    }
}

/// Sends until everything has come back, over as many connections as it takes.
async fn client(number: usize, to: SocketAddr, reconnects: Arc<AtomicUsize>) -> usize {
    let mut echoed = 0;
    while echoed < MESSAGES {
        let Ok(mut stream) = Async::<TcpStream>::connect(to).await else { continue };
        while echoed < MESSAGES {
            let message = [(number + echoed) as u8; 64];
            let mut answer = [0; 64];
            if stream.write_all(&message).await.is_err() || stream.read_exact(&mut answer).await.is_err() {
                reconnects.fetch_add(1, Ordering::Relaxed);
                break;
            }
            assert_eq!(answer, message, "an echo is what was said");
            echoed += 1;
            Timer::after(Duration::from_micros(500)).await;
        }
    }
    echoed
}

fn main() -> Result<(), Box<dyn Error>> {
    let pool = Pool::new()?;
    let listener = Async::<TcpListener>::bind(([127, 0, 0, 1], 0))?;
    let address = listener.get_ref().local_addr()?;
    let connections = Connections::default();
    let server = pool.spawn(serve(pool.handle(), listener, Arc::clone(&connections)));

    let (begin, reconnects) = (Instant::now(), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> =
        (0..CLIENTS).map(|number| pool.spawn(client(number, address, Arc::clone(&reconnects)))).collect();
    let killer = pool.spawn(async move {
        for kill in 0..KILLS {
            Timer::after(Duration::from_millis(2)).await;
            let mut connections = connections.lock().expect("nobody panics with it");
            if !connections.is_empty() {
                let at = kill * 7 % connections.len();
                drop(connections.swap_remove(at));
            }
        }
    });

    let mut echoed = 0;
    for client in clients {
        echoed += pool.block_on(client)?;
    }
    pool.block_on(killer)?;
    drop(server);
    let (took, lost) = (begin.elapsed(), reconnects.load(Ordering::Relaxed));
    println!("{echoed} messages echoed in {took:.2?}, over {lost} connections that were killed meanwhile");
    assert_eq!(echoed, CLIENTS * MESSAGES);
    for worker in pool.counters() {
        println!(
            "worker {}: {} polls, {} steals, {:.0?} asleep",
            worker.worker, worker.polls, worker.steals, worker.parked
        );
    }
    pool.shutdown(Duration::from_secs(1))
        .or_else(|unfinished| if unfinished.stuck.is_empty() { Ok(()) } else { Err(unfinished) })?;
    Ok(())
}
