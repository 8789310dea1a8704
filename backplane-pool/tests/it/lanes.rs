//! Lanes, with io_uring where the kernel allows it, and always with polling as well.

use std::{
    convert::Infallible,
    future::pending,
    io,
    os::unix::net::UnixStream as StdStream,
    pin::pin,
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

use backplane::{Device, Exit, FaultKind, LinkMode, Message, Runtime};
use backplane_pool::{
    Driver, JoinError, Lane, Lanes, Pinning, Pool, Topology,
    compio::{
        BufResult,
        io::{AsyncRead, AsyncReadExt, AsyncReadMulti, AsyncWriteExt},
        net::UnixStream,
    },
};
use futures_lite::{FutureExt, StreamExt, future};

/// A story told on two lanes of each kind.
fn tell(story: impl Fn(&Pool, Lane, Lane)) {
    for lanes in [Lanes::new(), Lanes::new().polling()] {
        let pool = Pool::builder().workers(2).pinning(Pinning::None).lanes(lanes).build().expect("it starts");
        let [one, two] = pool.lanes().try_into().expect("two workers are two lanes");
        story(&pool, one, two);
    }
}

/// One end for the lane, and one for a thread that blocks.
fn pair() -> (StdStream, StdStream) {
    StdStream::pair().expect("two sockets")
}

async fn echo(stream: StdStream) -> io::Result<()> {
    let mut stream = UnixStream::from_std(stream)?;
    let mut buffer = Vec::with_capacity(64);
    loop {
        let BufResult(read, bytes) = stream.read(buffer).await;
        if read? == 0 {
            return Ok(());
        }
        let BufResult(sent, bytes) = stream.write_all(bytes).await;
        sent?;
        buffer = bytes;
        buffer.clear();
    }
}

fn says(mut stream: &StdStream, words: &[u8]) -> bool {
    use io::{Read, Write};
    let mut back = vec![0; words.len()];
    stream.write_all(words).and_then(|()| stream.read_exact(&mut back)).is_ok() && back == words
}

/// The other side is gone; also if it went with something unread.
fn is_closed(mut stream: &StdStream) -> bool {
    match io::Read::read(&mut stream, &mut [0]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
    }
}

fn fault(watcher: &mut Device) -> Option<FaultKind> {
    match watcher.try_receive()? {
        Message::Disconnect(news) => news.exit.fault().map(|fault| fault.kind()),
        Message::Shutdown(_) => None,
    }
}

#[test]
fn a_future_on_a_lane_need_not_be_send_and_never_leaves_it() {
    tell(|pool, one, two| {
        let on = |lane: &Lane| {
            lane.spawn(|| async {
                let (here, shared) = (thread::current().id(), Rc::new(()));
                for _ in 0..100 {
                    future::yield_now().await;
                    assert_eq!(thread::current().id(), here);
                }
                (here, Rc::strong_count(&shared))
            })
        };
        let (first, again, other) = (on(&one), on(&one), on(&two));
        let all = async { (first.await, again.await, other.await) };
        let (first, again, other) = pool.block_on(all);
        let (first, again, other) = (first.unwrap(), again.unwrap(), other.unwrap());
        assert_eq!((first, first.1), (again, 1));
        assert_ne!(first.0, other.0);
        assert_eq!((one.worker(), two.worker()), (0, 1));
    });
}

#[test]
fn a_pool_without_lanes_has_none_and_one_with_two_nodes_has_them_by_node() {
    assert!(Pool::builder().workers(1).build().unwrap().lanes().is_empty());
    let nodes = Topology::from_nodes([(0, [0]), (4, [1])]);
    let pool = Pool::builder().topology(nodes).pinning(Pinning::None).workers_per_node(2).lanes(Lanes::new());
    let pool = pool.build().unwrap();
    let places = |lanes: Vec<Lane>| lanes.iter().map(|lane| (lane.worker(), lane.node())).collect::<Vec<_>>();
    assert_eq!(places(pool.lanes()), [(0, 0), (1, 0), (2, 4), (3, 4)]);
    assert_eq!(places(pool.on_node(4).unwrap().lanes()), [(2, 4), (3, 4)]);
    let there = pool.lanes()[3].clone();
    let handle = pool.handle();
    assert_eq!(pool.block_on(there.spawn(move || async move { handle.current_node() })).unwrap(), Some(4));
}

#[cfg(target_os = "linux")]
#[test]
fn a_ring_that_the_kernel_refuses_is_replaced_by_polling() {
    let build = |lanes| Pool::builder().workers(1).lanes(lanes).build().unwrap();
    assert_eq!(build(Lanes::new().polling()).lanes()[0].driver(), Driver::Polling);
    // More than any kernel gives.
    let pool = build(Lanes::new().entries(1 << 20));
    let lane = &pool.lanes()[0];
    assert_eq!(lane.driver(), Driver::Polling);
    let (here, there) = pair();
    let task = lane.spawn(|| echo(here));
    assert!(says(&there, b"all the same"));
    drop(there);
    assert!(pool.block_on(task).unwrap().is_ok());
}

#[test]
fn lanes_of_any_size_are_built_and_do_more_than_they_hold() {
    let sizes = [0, 2, u32::MAX].map(|entries| Lanes::new().entries(entries));
    for lanes in sizes.clone().into_iter().chain(sizes.map(Lanes::polling)) {
        let pool = Pool::builder().workers(1).pinning(Pinning::None).lanes(lanes).build().unwrap();
        let (mut peers, mut reads) = (Vec::new(), Vec::new());
        for at in 0..100_u8 {
            let (here, there) = pair();
            peers.push((there, at));
            reads.push(pool.lanes()[0].spawn(move || async move {
                let BufResult(read, bytes) = UnixStream::from_std(here)?.read_exact(vec![0; 3]).await;
                read.map(|()| bytes == [at; 3])
            }));
        }
        for (peer, at) in &mut peers {
            io::Write::write_all(peer, &[*at; 3]).unwrap();
        }
        assert!(reads.into_iter().all(|read| pool.block_on(read).unwrap().unwrap()));
    }
}

#[test]
fn many_buffers_are_written_at_once_and_read_at_once() {
    tell(|pool, one, two| {
        let (here, there) = pair();
        let sent = one.spawn(|| async {
            let mut stream = UnixStream::from_std(here)?;
            let parts: Vec<Vec<u8>> = (0..100_u8).map(|part| vec![part; 1000]).collect();
            let BufResult(sent, parts) = stream.write_vectored_all(parts).await;
            sent.map(|()| parts.len())
        });
        let read = two.spawn(|| async {
            let mut stream = UnixStream::from_std(there)?;
            // Cut otherwise than they were written.
            let parts: Vec<Vec<u8>> = (0..50).map(|_| Vec::with_capacity(2000)).collect();
            let BufResult(read, parts) = stream.read_vectored_exact(parts).await;
            read.map(|()| parts)
        });
        assert_eq!(pool.block_on(sent).unwrap().unwrap(), 100);
        let expected: Vec<Vec<u8>> =
            (0..50).map(|part| [[2 * part; 1000], [2 * part + 1; 1000]].concat()).collect();
        assert!(pool.block_on(read).unwrap().unwrap() == expected);
    });
}

#[test]
fn who_has_no_buffer_is_lent_one_of_the_lane_s() {
    for lanes in [Lanes::new(), Lanes::new().polling()] {
        let lanes = lanes.buffers(32, 16);
        let pool = Pool::builder().workers(1).pinning(Pinning::None).lanes(lanes).build().expect("it starts");
        let (here, mut there) = pair();
        let words: Vec<u8> = (0..200).collect();
        io::Write::write_all(&mut there, &words).unwrap();
        drop(there);
        let heard = pool.lanes()[0].spawn(|| async {
            let mut stream = UnixStream::from_std(here)?;
            let mut comes = pin!(stream.read_multi(0));
            let mut pieces = Vec::new();
            while let Some(piece) = comes.next().await {
                pieces.push(piece?.to_vec());
            }
            io::Result::Ok(pieces)
        });
        let pieces = pool.block_on(heard).unwrap().unwrap();
        assert_eq!(pieces.concat(), words);
        assert_eq!(pieces.iter().map(Vec::len).max(), Some(16));
    }
    assert_eq!(Lanes::new().buffers(0, 0), Lanes::new().buffers(1, 1));
    assert_eq!(Lanes::new().buffers(u16::MAX, 1), Lanes::new().buffers(1 << 15, 1));
}

#[test]
fn whoever_is_linked_hears_how_a_connection_ends_and_the_lane_goes_on() {
    tell(|pool, one, _| {
        let mut watcher = Device::new();
        let connection = || {
            let device = Device::new();
            watcher.link(&device, LinkMode::Monitor);
            device
        };
        let ((a, a_peer), (b, b_peer), (c, c_peer)) = (pair(), pair(), pair());
        let ends = one.manage(connection(), || echo(a));
        let panics = one.manage(connection(), || async {
            let mut stream = UnixStream::from_std(b)?;
            drop(stream.read(Vec::with_capacity(8)).await);
            panic!("at the first word") as io::Result<()>
        });
        let cancelled = one.manage(connection(), || echo(c));
        let at_once =
            one.manage(connection(), || -> future::Pending<Result<(), Infallible>> { panic!("no") });
        assert!(says(&a_peer, b"a") && says(&c_peer, b"c"));

        assert!(pool.block_on(at_once).unwrap().is_err());
        assert_eq!(fault(&mut watcher), Some(FaultKind::Panic));
        io::Write::write_all(&mut &b_peer, b"b").unwrap();
        assert!(pool.block_on(panics).unwrap().is_err());
        assert_eq!(fault(&mut watcher), Some(FaultKind::Panic));
        assert!(is_closed(&b_peer));
        // While the kernel has its buffer.
        assert!(pool.block_on(cancelled.cancel()).is_none());
        assert_eq!(fault(&mut watcher), Some(FaultKind::Dropped));
        assert!(is_closed(&c_peer));
        assert!(says(&a_peer, b"still here"));
        drop(a_peer);
        assert!(pool.block_on(ends).unwrap().is_ok());
        assert!(
            matches!(watcher.try_receive(), Some(Message::Disconnect(news)) if news.exit == Exit::Normal)
        );
    });
}

#[test]
fn a_pool_that_is_dropped_drops_its_connections_on_their_lanes() {
    struct Home(thread::ThreadId);
    impl Drop for Home {
        fn drop(&mut self) {
            assert_eq!(thread::current().id(), self.0);
        }
    }
    for lanes in [Lanes::new(), Lanes::new().polling()] {
        let pool = Pool::builder().workers(2).lanes(lanes).build().unwrap();
        let mut watcher = Device::new();
        let mut peers = Vec::new();
        for at in 0..20 {
            let ((here, there), device) = (pair(), Device::new());
            watcher.link(&device, LinkMode::Monitor);
            let connection = || async {
                let _home = Home(thread::current().id());
                echo(here).await
            };
            pool.lanes()[at % 2].manage(device, connection).detach();
            assert!(says(&there, b"hello"));
            peers.push(there);
        }
        drop(pool);
        assert!(peers.iter().all(is_closed));
        for _ in 0..20 {
            assert_eq!(fault(&mut watcher), Some(FaultKind::Dropped));
        }
        assert!(watcher.try_receive().is_none());
    }
}

#[test]
fn no_wake_from_another_thread_is_lost() {
    tell(|pool, one, two| {
        // A lane and a thread, and two lanes: each waits for the other, again and again.
        let (ping, pings) = async_channel::bounded::<u32>(1);
        let (pong, pongs) = async_channel::bounded::<u32>(1);
        let answers = |pings: async_channel::Receiver<u32>, pong: async_channel::Sender<u32>| {
            move || async move {
                while let Ok(number) = pings.recv().await {
                    if pong.send(number + 1).await.is_err() {
                        break;
                    }
                }
            }
        };
        let task = one.spawn(answers(pings.clone(), pong.clone()));
        let rounds = |ping: async_channel::Sender<u32>, pongs: async_channel::Receiver<u32>| async move {
            for round in 0..2000 {
                ping.send(round).await.unwrap();
                assert_eq!(pongs.recv().await, Ok(round + 1));
            }
        };
        pool.block_on(rounds(ping.clone(), pongs.clone()));
        pool.block_on(two.spawn(move || rounds(ping, pongs))).unwrap();
        drop(pings);
        pool.block_on(task).unwrap();
    });
}

#[test]
fn a_task_that_blocks_on_a_lane_lets_its_operations_be_done() {
    tell(|pool, one, _| {
        let ((here, there), handle) = (pair(), pool.handle());
        let lane = one.clone();
        let blocks = one.spawn(|| async move {
            let read = lane.spawn(|| async {
                let mut stream = UnixStream::from_std(here)?;
                stream.read_exact(Vec::with_capacity(5)).await.0
            });
            handle.block_on(read)
        });
        io::Write::write_all(&mut &there, b"hello").unwrap();
        assert!(pool.block_on(blocks).unwrap().unwrap().is_ok());
    });
}

#[test]
fn a_task_that_is_always_ready_does_not_starve_a_connection() {
    tell(|pool, one, _| {
        let (here, there) = pair();
        let greedy = one.spawn(|| async {
            loop {
                future::yield_now().await;
            }
        });
        let task = one.spawn(|| echo(here));
        assert!((0..100_u8).all(|at| says(&there, &[at; 10])));
        drop(there);
        assert!(pool.block_on(task).unwrap().is_ok());
        assert!(!greedy.is_finished());
    });
}

#[test]
fn both_kinds_of_timers_work_on_a_lane_and_so_do_tasks_of_compios_own() {
    tell(|pool, one, _| {
        let handle = pool.handle();
        let all = one.spawn(|| async move {
            let before = Instant::now();
            handle.sleep_until(before + Duration::from_millis(2)).await;
            backplane_pool::compio::time::sleep(Duration::from_millis(2)).await;
            let theirs = backplane_pool::compio::runtime::spawn(async { Rc::new(5) }).await;
            (before.elapsed(), theirs.is_ok_and(|five| *five == 5))
        });
        let (took, five) = pool.block_on(all).unwrap();
        assert!(took >= Duration::from_millis(4) && five);
    });
}

#[test]
fn a_panic_is_a_value_to_whoever_awaits_it_even_from_a_destructor() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("late");
        }
    }
    tell(|pool, one, _| {
        let task = one.spawn(|| async { panic!("plain") });
        assert!(
            matches!(pool.block_on(task), Err(JoinError::Panicked(panic)) if panic.message() == Some("plain"))
        );
        let (held, holds) = async_channel::bounded(1);
        let task = one.spawn(|| async move {
            let _bomb = Bomb;
            held.send(()).await.unwrap();
            pending::<()>().or(pending()).await;
        });
        pool.block_on(holds.recv()).unwrap();
        assert!(pool.block_on(task.cancel()).is_none_or(|ended| ended.is_err()));
        assert!(pool.block_on(one.spawn(|| async { true })).unwrap());
    });
}

#[test]
fn the_least_stack_is_enough_for_a_lane() {
    for lanes in [Lanes::new(), Lanes::new().polling()] {
        let pool = Pool::builder().workers(1).pinning(Pinning::None).lanes(lanes).stack_size(0);
        let pool = pool.build().unwrap();
        let (here, there) = pair();
        let task = pool.lanes()[0].spawn(|| echo(here));
        assert!(says(&there, b"in a small room"));
        drop(there);
        assert!(pool.block_on(task).unwrap().is_ok());
        let panics = pool.lanes()[0].spawn(|| async { panic!("there, too") });
        assert!(pool.block_on(panics).map(|(): ()| ()).is_err());
    }
}
