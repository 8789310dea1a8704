//! Nodes, and what is given to one.

use std::{
    collections::BTreeSet,
    future::pending,
    io::ErrorKind,
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use backplane_pool::{BuildError, CpuSet, Pinning, Pool, Topology, current_cpu, pin_current};
use futures_lite::future::yield_now;

use crate::support::{pool, then, two_nodes};

#[test]
fn a_task_on_a_node_stays_there_whoever_wakes_it_and_so_do_its_children() {
    let pool = two_nodes();
    for node in [0, 7] {
        let (send, receive) = async_channel::bounded::<()>(1);
        let handle = pool.handle();
        let task = pool.spawn_on(node, async move {
            let mut seen = BTreeSet::new();
            while receive.recv().await.is_ok() {
                seen.insert(handle.current_node());
                let child = handle.clone();
                seen.insert(handle.spawn(async move { child.current_node() }).await.unwrap());
            }
            seen
        });
        let task = task.unwrap();
        for waker in [0, 7, 0, 7] {
            for _ in 0..20 {
                let send = send.clone();
                pool.block_on(pool.spawn_on(waker, async move { send.send(()).await }).unwrap())
                    .unwrap()
                    .unwrap();
            }
            send.send_blocking(()).unwrap();
        }
        drop(send);
        assert_eq!(pool.block_on(task).unwrap(), BTreeSet::from([Some(node)]));
    }
}

#[test]
fn work_is_not_stolen_from_another_node() {
    let pool = two_nodes();
    let near = pool.on_node(7).unwrap();
    let handle = near.clone();
    let nodes = near.spawn(async move {
        let tasks: Vec<_> = (0..500)
            .map(|_| {
                let here = handle.clone();
                handle.spawn(async move {
                    yield_now().await;
                    here.current_node()
                })
            })
            .collect();
        let mut nodes = BTreeSet::new();
        for task in tasks {
            nodes.insert(task.await.unwrap());
        }
        nodes
    });
    assert_eq!(pool.block_on(nodes).unwrap(), BTreeSet::from([Some(7)]));
    let counters = pool.counters();
    assert_eq!(
        counters.iter().map(|worker| (worker.worker, worker.node)).collect::<Vec<_>>(),
        [(0, 0), (1, 0), (2, 7), (3, 7)]
    );
    assert!(counters[..2].iter().all(|worker| worker.polls == 0), "{counters:?}");
}

#[test]
fn what_comes_from_outside_goes_to_every_node_in_turn() {
    let pool = two_nodes();
    let nodes: BTreeSet<_> = (0..8)
        .map(|_| {
            let handle = pool.handle();
            pool.block_on(pool.spawn(async move { handle.current_node() })).unwrap()
        })
        .collect();
    assert_eq!(nodes, BTreeSet::from([Some(0), Some(7)]));
    assert_eq!(pool.current_node(), None);
}

#[test]
fn a_node_that_is_not_there_is_an_error() {
    let pool = two_nodes();
    assert_eq!(
        pool.spawn_on(1, pending::<()>()).unwrap_err().to_string(),
        "the pool has no workers on node 1"
    );
    assert_eq!(pool.nodes().collect::<Vec<_>>(), [0, 7]);
    assert_eq!(pool.on_node(7).unwrap().node(), Some(7));
    assert_eq!(pool.node(), None);
}

#[test]
fn workers_are_pinned_before_their_first_task_and_told_of() {
    let cpus = Topology::system().cpus();
    let cpu = cpus.iter().next().unwrap();
    let starts = Arc::new(Mutex::new(Vec::new()));
    let stops = Arc::new(Mutex::new(Vec::new()));
    let (started, stopped) = (Arc::clone(&starts), Arc::clone(&stops));
    let pool = Pool::builder()
        .topology(Topology::from_nodes([(3, [cpu])]))
        .pinning(Pinning::Cpu)
        .workers_per_node(2)
        .on_start(move |info| started.lock().unwrap().push((info.worker, info.node, current_cpu())))
        .on_stop(move |info| stopped.lock().unwrap().push(info.worker))
        .build()
        .unwrap();
    for _ in 0..20 {
        let on = pool.block_on(pool.spawn(async { current_cpu() })).unwrap();
        assert!(on.is_none_or(|on| on == cpu));
    }
    assert_eq!(pool.counters().iter().map(|worker| worker.off_node_polls).sum::<u64>(), 0);
    drop(pool);
    let mut starts = starts.lock().unwrap().clone();
    starts.sort_unstable();
    assert_eq!(starts.iter().map(|(worker, node, _)| (*worker, *node)).collect::<Vec<_>>(), [(0, 3), (1, 3)]);
    assert!(starts.iter().all(|(_, _, on)| on.is_none_or(|on| on == cpu)));
    let mut stops = stops.lock().unwrap().clone();
    stops.sort_unstable();
    assert_eq!(stops, [0, 1]);
}

#[test]
fn polls_on_a_cpu_of_another_node_are_counted() {
    // A node that says it is where no CPU is, so that every poll is off it.
    let topology = Topology::from_nodes([(0, [100_000])]);
    let pool = Pool::builder().topology(topology).pinning(Pinning::None).build().unwrap();
    pool.block_on(pool.spawn(async {})).unwrap();
    pool.block_on(async {
        // Counted at the end of the worker's turn.
        while pool.counters()[0].off_node_polls == 0 && current_cpu().is_some() {
            yield_now().await;
        }
    });
}

#[test]
fn a_pool_that_cannot_be_is_an_error_and_leaves_no_thread() {
    assert!(matches!(Pool::builder().workers(0).build(), Err(BuildError::NoWorkers)));
    let nowhere = Topology::from_nodes([] as [(usize, [usize; 0]); 0]);
    assert!(matches!(Pool::builder().topology(nowhere).build(), Err(BuildError::NoWorkers)));
    if cfg!(target_os = "linux") {
        let here = Topology::system().cpus().iter().next().unwrap();
        let topology = Topology::from_nodes([(0, here), (1, 1000)].map(|(node, cpu)| (node, [cpu])));
        let (stops, stopped) = mpsc::channel();
        let stops = Mutex::new(stops);
        let build = Pool::builder()
            .topology(topology.clone())
            .pinning(Pinning::Node)
            .on_start(move |info| stops.lock().unwrap().send(info.worker).unwrap())
            .build();
        assert!(matches!(build, Err(BuildError::Pin { node: 1, .. })));
        assert!(stopped.recv().is_err(), "none has begun");
        // The default is a wish.
        let pool = Pool::builder().topology(topology).build().unwrap();
        assert_eq!(pool.counters().len(), 2);
    }
}

#[test]
fn what_no_system_can_give_is_an_error_at_once() {
    let topology = || Pool::builder().topology(Topology::from_nodes([(0, 0..1), (1, 1..5)]));
    for builder in [topology().workers(usize::MAX), topology().workers_per_node(1 << 23)] {
        assert!(matches!(builder.build(), Err(BuildError::TooManyWorkers { .. })));
    }
    let named = topology().thread_name("a\0b").build();
    assert!(matches!(named, Err(BuildError::Thread(error)) if error.kind() == ErrorKind::InvalidInput));
}

#[test]
fn a_stack_of_any_size_is_there_or_an_error() {
    let build = |bytes| Pool::builder().workers(2).pinning(Pinning::None).stack_size(bytes).build();
    for bytes in [usize::MAX, usize::MAX - (1 << 16), isize::MAX as usize, usize::MAX / 8] {
        let Err(BuildError::Thread(error)) = build(bytes) else { panic!("{bytes}") };
        // The system is not asked for what nobody has.
        assert!(error.raw_os_error().is_none() || bytes < isize::MAX as usize, "{error}");
    }
    for bytes in [0, 1, 4096] {
        let pool = build(bytes).unwrap();
        let handle = pool.handle();
        let works = async move {
            async_io::Timer::after(Duration::ZERO).await;
            let inner = handle.spawn_local(|| async { format!("{:?}", current_cpu()).len() });
            handle.block_on(inner).unwrap() > 0
        };
        assert!(pool.block_on(pool.spawn(works)).unwrap());
        let panics = pool.spawn(async { panic!("on a small stack") });
        assert!(pool.block_on(panics).map(|(): ()| ()).is_err());
        pool.shutdown(Duration::from_secs(60)).unwrap();
    }
}

#[test]
fn a_hook_that_panics_when_it_is_dropped_takes_no_worker_along() {
    let (built, wait) = mpsc::channel::<()>();
    let (wait, bomb) = (Mutex::new(wait), then(|| panic!("a destructor")));
    let pool = Pool::builder().workers(1).on_start(move |_| {
        let _bomb = &bomb;
        // Until the worker is the last who has the hook.
        let _ = wait.lock().unwrap().recv();
    });
    let pool = pool.build().unwrap();
    drop(built);
    assert_eq!(pool.block_on(pool.spawn(async { 1 })).unwrap(), 1);
}

#[test]
fn workers_are_dealt_to_nodes_in_turn_as_long_as_cpus_last() {
    let topology = Topology::from_nodes([(0, 0..1), (1, 1..5)]);
    let on = |workers: usize| {
        let pool = Pool::builder().topology(topology.clone()).pinning(Pinning::None).workers(workers);
        let pool = pool.build().unwrap();
        let counters = pool.counters();
        [0, 1].map(|node| counters.iter().filter(|worker| worker.node == node).count())
    };
    assert_eq!(on(1), [1, 0]);
    assert_eq!(on(2), [1, 1]);
    assert_eq!(on(5), [1, 4]);
    assert_eq!(on(7), [2, 5]);
    assert!(!CpuSet::from_iter([1]).is_empty());
    assert_eq!(pool(3).counters().len(), 3);
}

/// Where this thread may run.
#[cfg(target_os = "linux")]
fn mask() -> CpuSet {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    list.unwrap().trim().parse().unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn a_pool_made_by_a_pinned_thread_is_not_shut_in_with_it() {
    let all = Topology::system().cpus();
    let first = CpuSet::from_iter(all.iter().take(1));
    let make = move || {
        pin_current(&first).unwrap();
        let one_node = || Pool::builder().topology(Topology::from_nodes([(0, all.clone())])).workers(1);
        let (node, none) = (one_node().pinning(Pinning::Node), one_node().pinning(Pinning::None));
        for builder in [one_node(), node, none] {
            let pool = builder.build().unwrap();
            assert_eq!(pool.block_on(pool.spawn(async { mask() })).unwrap(), all);
        }
        assert_eq!(mask(), first, "and whoever made it stays where it is");
    };
    std::thread::spawn(make).join().unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn what_a_pinned_worker_has_run_elsewhere_is_not_shut_in_with_it() {
    let all = Topology::system().cpus();
    let first = Topology::from_nodes([(0, all.iter().take(1))]);
    let pool = Pool::builder().topology(first).pinning(Pinning::Cpu).build().unwrap();
    let handle = pool.handle();
    let there = pool.spawn(async move { handle.spawn_blocking(mask).await.unwrap() });
    assert_eq!(pool.block_on(there).unwrap(), all);
}

#[cfg(target_os = "linux")]
#[test]
fn a_worker_that_is_to_have_one_cpu_has_one_though_its_node_has_more() {
    let all = Topology::system().cpus();
    let (says, starts) = mpsc::channel();
    let pool = Pool::builder()
        .topology(Topology::from_nodes([(0, all.clone())]))
        .pinning(Pinning::Cpu)
        .workers(all.len() + 1)
        .on_start(move |info| says.send((info.worker, mask())).unwrap());
    let pool = pool.build().unwrap();
    let mut masks: Vec<_> = starts.iter().take(all.len() + 1).collect();
    masks.sort_unstable_by_key(|(worker, _)| *worker);
    let in_turn = all.iter().chain(all.iter().take(1)).map(|cpu| CpuSet::from_iter([cpu]));
    assert!(masks.into_iter().map(|(_, mask)| mask).eq(in_turn));
    drop(pool);
}
