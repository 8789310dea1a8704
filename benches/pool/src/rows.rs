//! What is measured.

use std::{
    hint::black_box,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use async_channel::bounded;
use backplane_pool::{
    Lane, Lanes, Pool,
    compio::{
        BufResult,
        io::{AsyncReadMulti, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    },
};
use futures_lite::{StreamExt, future::yield_now};

use crate::{
    Effort, Row, THREADS, cpu,
    peers::{Bastion, Ours, Peer, Shared, Smol, Static, Stream, Tokio},
};

/// The same work for each.
macro_rules! row {
    ($rows:ident, $goal:expr, $name:expr, $unit:expr, $says:expr, $work:expr) => {
        $rows.push(Row {
            name: $name,
            says: $says,
            unit: $unit,
            goal: $goal,
            sides: vec![
                ("ours", Box::new(move || $work(Ours::new()))),
                ("async-executor", Box::new(move || $work(Shared::new()))),
                ("static", Box::new(move || $work(Static::new()))),
                ("smol", Box::new(move || $work(Smol::new()))),
                ("tokio", Box::new(move || $work(Tokio::new()))),
                ("bastion", Box::new(move || $work(Bastion::new()))),
            ],
        });
    };
}

/// All rows.
pub fn all(effort: Effort) -> Vec<Row> {
    let n = move |count: usize| (count / effort.scale).max(1);
    let mut rows = Vec::new();
    row!(rows, 2.0, "spawn", "ns", "a task spawns and joins, a hundred at a time", |p| spawn(p, n(300), 100));
    row!(rows, 2.0, "spawn-one", "ns", "a task spawns and joins, one at a time", |p| spawn(p, n(30_000), 1));
    row!(rows, 0.95, "outside", "ns", "a thread spawns; tasks join", |p| outside(p, n(20_000)));
    row!(rows, 3.0, "yield", "ns", "200 tasks yield", |p| yields(p, 200, n(200)));
    row!(rows, 1.5, "ping-pong-1", "ns", "a round trip between two tasks", |p| ping_pong(p, 1, n(20_000)));
    row!(rows, 1.5, "ping-pong-64", "ns", "the same, 64 pairs at a time", |p| ping_pong(p, 64, n(500)));
    row!(rows, 0.95, "fan-in", "ns", "64 tasks send to one", |p| fan_in(p, 64, n(500)));
    row!(rows, 0.95, "fan-out", "ns", "one task sends to 64", |p| fan_out(p, 64, n(500)));
    row!(rows, 0.95, "cpu", "ns", "2000 tasks compute for 10 µs each", |p| compute(p, n(2000)));
    row!(rows, 0.95, "timers", "ns of CPU", "1000 tasks sleep 1 to 10 ms, five times", |p| timers(
        p,
        n(1000)
    ));
    row!(rows, 0.95, "echo", "ns", "64 connections, 64 bytes there and back", |p| echo(p, 64, n(200)));
    row!(rows, 0.95, "echo-1", "ns", "one connection, 64 bytes there and back", |p| echo(p, 1, n(2000)));
    for (name, says, connections, each) in [
        ("lanes-echo", "the same as `echo`, ours on lanes", 64, n(200)),
        ("lanes-echo-1", "the same as `echo-1`, ours on lanes", 1, n(2000)),
    ] {
        row!(rows, 0.95, name, "ns", says, move |p| echo(p, connections, each));
        if let Some(row) = rows.last_mut() {
            row.sides[0].1 = Box::new(move || echo_on_lanes(connections, each));
        }
    }
    rows
}

fn per(time: Duration, count: usize) -> f64 {
    time.as_nanos() as f64 / count as f64
}

fn spawn<P: Peer>(peer: P, rounds: usize, at_a_time: usize) -> f64 {
    let spawner = peer.clone();
    let took = peer.block_on(async move {
        let start = Instant::now();
        let mut tasks = Vec::with_capacity(at_a_time);
        for round in 0..rounds {
            tasks.extend((0..at_a_time).map(|at| spawner.spawn(async move { at + round })));
            for task in tasks.drain(..) {
                black_box(task.await);
            }
        }
        start.elapsed()
    });
    per(took, rounds * at_a_time)
}

fn outside<P: Peer>(peer: P, count: usize) -> f64 {
    let left = Arc::new(AtomicUsize::new(count));
    let (done, all_done) = bounded::<()>(1);
    let start = Instant::now();
    for _ in 0..count {
        let (left, done) = (Arc::clone(&left), done.clone());
        peer.detach(async move {
            if left.fetch_sub(1, Ordering::AcqRel) == 1 {
                done.try_send(()).expect("nobody else sends");
            }
        });
    }
    all_done.recv_blocking().expect("the last one says so");
    per(start.elapsed(), count)
}

/// Starts so many tasks at once, and says how long it took until the last was done.
async fn together<P: Peer, F: Future<Output = ()> + Send + 'static>(
    peer: &P,
    count: usize,
    task: impl Fn(usize) -> F,
) -> Duration {
    let start = Instant::now();
    let tasks: Vec<_> = (0..count).map(|at| peer.spawn(task(at))).collect();
    for task in tasks {
        task.await;
    }
    start.elapsed()
}

fn yields<P: Peer>(peer: P, tasks: usize, each: usize) -> f64 {
    let spawner = peer.clone();
    let took = peer.block_on(async move {
        let yields = |_| async move {
            for _ in 0..each {
                yield_now().await;
            }
        };
        together(&spawner, tasks, yields).await
    });
    per(took, tasks * each)
}

fn ping_pong<P: Peer>(peer: P, pairs: usize, each: usize) -> f64 {
    let spawner = peer.clone();
    let took = peer.block_on(async move {
        let pair = |_| {
            let (ping, pinged) = bounded::<usize>(1);
            let (pong, ponged) = bounded::<usize>(1);
            let other = spawner.spawn(async move {
                while let Ok(n) = pinged.recv().await {
                    if pong.send(n).await.is_err() {
                        return;
                    }
                }
            });
            async move {
                for n in 0..each {
                    ping.send(n).await.expect("the other is there");
                    black_box(ponged.recv().await.expect("the other is there"));
                }
                drop(ping);
                other.await;
            }
        };
        together(&spawner, pairs, pair).await
    });
    per(took, pairs * each)
}

fn fan_in<P: Peer>(peer: P, producers: usize, each: usize) -> f64 {
    let spawner = peer.clone();
    let took = peer.block_on(async move {
        let start = Instant::now();
        let (send, receive) = bounded::<usize>(100);
        for _ in 0..producers {
            let send = send.clone();
            spawner.detach(async move {
                for n in 0..each {
                    send.send(n).await.expect("somebody receives");
                }
            });
        }
        drop(send);
        while let Ok(n) = receive.recv().await {
            black_box(n);
        }
        start.elapsed()
    });
    per(took, producers * each)
}

fn fan_out<P: Peer>(peer: P, consumers: usize, each: usize) -> f64 {
    let spawner = peer.clone();
    let took = peer.block_on(async move {
        let start = Instant::now();
        let mut sends = Vec::new();
        let mut tasks = Vec::new();
        for _ in 0..consumers {
            let (send, receive) = bounded::<usize>(16);
            sends.push(send);
            tasks.push(spawner.spawn(async move {
                while let Ok(n) = receive.recv().await {
                    black_box(n);
                }
            }));
        }
        for n in 0..each {
            for send in &sends {
                send.send(n).await.expect("somebody receives");
            }
        }
        drop(sends);
        for task in tasks {
            task.await;
        }
        start.elapsed()
    });
    per(took, consumers * each)
}

fn compute<P: Peer>(peer: P, tasks: usize) -> f64 {
    let spawner = peer.clone();
    let took = peer.block_on(async move {
        let work = |at| async move {
            let mut word = at as u64 | 1;
            for _ in 0..10_000 {
                word = black_box(word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
            }
        };
        together(&spawner, tasks, work).await
    });
    per(took, tasks)
}

fn timers<P: Peer>(peer: P, tasks: usize) -> f64 {
    let (spawner, before) = (peer.clone(), cpu());
    peer.block_on(async move {
        let sleeps = |at: usize| {
            let sleeper = spawner.clone();
            async move {
                for n in 0..5 {
                    sleeper.sleep(Duration::from_millis(1 + (at + n) as u64 % 10)).await;
                }
            }
        };
        together(&spawner, tasks, sleeps).await
    });
    per(cpu() - before, tasks * 5)
}

fn echo<P: Peer>(peer: P, connections: usize, each: usize) -> f64 {
    // A server once for each kind of peer.
    static SERVERS: Mutex<Vec<(&str, SocketAddr)>> = Mutex::new(Vec::new());
    let kind = std::any::type_name::<P>();
    let mut servers = SERVERS.lock().expect("nobody panics");
    let known = servers.iter().find(|(name, _)| *name == kind).map(|(_, address)| *address);
    let address = known.unwrap_or_else(|| {
        let address = peer.listen(|mut stream| async move {
            let mut buffer = [0; 64];
            while stream.read(&mut buffer).await.unwrap_or(false) {
                stream.write(&buffer).await.expect("the client listens");
            }
        });
        servers.push((kind, address));
        address
    });
    drop(servers);
    let spawner = peer.clone();
    let took = peer.block_on(async move {
        let client = |_| {
            let peer = spawner.clone();
            async move {
                let mut stream = peer.connect(address).await.expect("the server is there");
                let mut buffer = [7; 64];
                for _ in 0..each {
                    stream.write(&buffer).await.expect("the server is there");
                    assert!(stream.read(&mut buffer).await.expect("the server answers"));
                }
            }
        };
        together(&spawner, connections, client).await
    });
    per(took, connections * each)
}

/// Sockets, server and clients on lanes: their futures stay on one thread, and wait in its own io_uring. Both ends of a connection
/// are on one lane, and read what comes into the lane's buffers.
fn echo_on_lanes(connections: usize, each: usize) -> f64 {
    async fn serve(stream: TcpStream) {
        let (mut from, mut to) = (&stream, &stream);
        let mut comes = pin!(from.read_multi(0));
        while let Some(bytes) = comes.next().await {
            let BufResult(written, _) = to.write_all(bytes.expect("there are buffers")).await;
            written.expect("the client listens");
        }
    }

    static POOL: OnceLock<(Pool, Vec<SocketAddr>)> = OnceLock::new();
    let (pool, addresses) = POOL.get_or_init(|| {
        let pool = Pool::builder()
            .workers(THREADS)
            .lanes(Lanes::new().buffers(256, 1024))
            .build()
            .expect("it starts");
        // Each lane has a door of its own, so that it is no matter of luck where a connection is served.
        let listen = |lane: Lane| {
            let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("loopback listens");
            let address = listener.local_addr().expect("it has one");
            let handle = pool.handle();
            let accept = || async move {
                let listener = TcpListener::from_std(listener).expect("it can");
                while let Ok((stream, _)) = listener.accept().await {
                    stream.set_nodelay(true).expect("it can");
                    let Ok(task) = handle.spawn_here(serve(stream)) else { panic!("this is a lane") };
                    task.detach();
                }
            };
            lane.spawn(accept).detach();
            address
        };
        let addresses = pool.lanes().into_iter().map(listen).collect();
        (pool, addresses)
    });
    let lanes = pool.lanes();
    let start = Instant::now();
    let clients: Vec<_> = (0..connections)
        .map(|at| {
            let address = addresses[at % lanes.len()];
            lanes[at % lanes.len()].spawn(move || async move {
                let stream = TcpStream::connect(address).await.expect("the server is there");
                stream.set_nodelay(true).expect("it can");
                let (mut from, mut to, mut buffer) = (&stream, &stream, vec![7; 64]);
                let mut comes = pin!(from.read_multi(0));
                for _ in 0..each {
                    let BufResult(written, bytes) = to.write_all(buffer).await;
                    written.expect("the server is there");
                    let mut missing = bytes.len();
                    while missing > 0 {
                        let bytes =
                            comes.next().await.expect("the server answers").expect("there are buffers");
                        missing -= bytes.len();
                    }
                    buffer = bytes;
                }
            })
        })
        .collect();
    pool.block_on(async {
        for client in clients {
            client.await.expect("nobody panics here");
        }
    });
    per(start.elapsed(), connections * each)
}
