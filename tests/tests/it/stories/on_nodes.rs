//! A supervision tree, or a part of it, on one node of the pool.

use std::{
    collections::BTreeSet,
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use backplane::{Device, Exit, Runtime};
use backplane_pool::{Handle, Pinning, Pool, Topology};
use backplane_supervisor::{
    ChildSpec, DynamicSupervisor, Intensity, Restart, RestartStrategy, Shutdown, Starting, Supervisor,
};
use backplane_tests::gate::Gate;

fn two_nodes() -> Pool {
    let nodes = Topology::from_nodes([(0, [0, 1]), (1, [2, 3])]);
    Pool::builder().topology(nodes).pinning(Pinning::None).build().expect("the pool starts")
}

type Seen = Arc<Mutex<BTreeSet<Option<usize>>>>;

fn saw(seen: &Seen, handle: &Handle) {
    seen.lock().expect("nobody panics with it").insert(handle.current_node());
}

/// A child that fails twice, and says each time on which node it runs; the third opens the gate.
fn flaky(name: &'static str, handle: Handle, seen: &Seen, gate: &Gate) -> ChildSpec {
    let (seen, gate, runs) = (Arc::clone(seen), gate.clone(), Arc::new(AtomicUsize::new(0)));
    ChildSpec::starting(name, move |device, starting: Starting| {
        let run = runs.fetch_add(1, Ordering::SeqCst);
        let (seen, gate, handle) = (Arc::clone(&seen), gate.clone(), handle.clone());
        device.manage(async move {
            drop(starting.done());
            saw(&seen, &handle);
            handle.sleep_until(handle.now() + Duration::from_millis(1)).await;
            saw(&seen, &handle);
            if run < 2 {
                return Err::<(), _>(());
            }
            gate.open();
            pending().await
        })
    })
}

const OFTEN: Intensity = Intensity { restarts: 20, period: Duration::from_secs(60) };

#[test]
fn a_tree_that_is_given_a_node_stays_there_with_all_its_children_and_their_successors() {
    let pool = two_nodes();
    for node in [1, 0] {
        let near = pool.on_node(node).expect("it has workers");
        let (seen, gate, below) = (Seen::default(), Gate::new(), Gate::new());
        let (deep_seen, deep_near, deep_gate) = (Arc::clone(&seen), near.clone(), below.clone());
        let branch = ChildSpec::supervisor("branch", move || {
            Supervisor::new(RestartStrategy::OneForAll).intensity(OFTEN).child(flaky(
                "leaf",
                deep_near.clone(),
                &deep_seen,
                &deep_gate,
            ))
        });
        let tree = Supervisor::new(RestartStrategy::OneForOne)
            .intensity(OFTEN)
            .child(flaky("twig", near.clone(), &seen, &gate))
            .child(branch);
        // From a thread that is on no node.
        pool.block_on(async {
            let handle = tree.start(near.clone()).await.expect("it starts");
            gate.await;
            below.await;
            handle.stop(Exit::Shutdown).await.expect("it stops");
        });
        assert_eq!(*seen.lock().expect("nobody panics with it"), BTreeSet::from([Some(node)]));
    }
}

/// The same as `backplane-supervisor/tests/runtimes.rs` tells on other runtimes.
#[test]
fn a_tree_with_a_failing_a_stubborn_and_many_dynamic_children_runs_on_the_pool() {
    let pool = two_nodes();
    let handle = pool.handle();
    let (seen, gate) = (Seen::default(), Gate::new());
    let mule = ChildSpec::new("mule", |mut device: Device| async move {
        loop {
            drop(device.receive().await);
        }
    })
    .shutdown(Shutdown::Timeout(Duration::from_millis(20)));
    let many = ChildSpec::supervisor("many", || {
        DynamicSupervisor::new(|device, n: u32| {
            device.manage(async move { if n == 0 { Err::<(), _>(()) } else { pending().await } })
        })
        .restart(Restart::Temporary)
        .greet(|handle| (0..100).for_each(|n| drop(handle.start_child(n))))
    });
    let tree = Supervisor::new(RestartStrategy::OneForOne)
        .intensity(OFTEN)
        .child(flaky("flaky", handle.clone(), &seen, &gate))
        .child(mule)
        .child(many);
    let run = async move {
        let tree = tree.start(handle).await.expect("it starts");
        gate.await;
        assert_eq!(tree.count_children().await.expect("it answers").specs, 3);
        let stopped = tree.stop(Exit::Shutdown).await.expect("it stops");
        assert_eq!(stopped.killed.len(), 1, "{:?}", stopped.killed);
        assert_eq!(stopped.killed[0].path, "root/mule");
    };
    // Told on one of its own threads, where all that is spawned begins.
    pool.block_on(pool.spawn(run)).expect("the story ends well");
    pool.shutdown(Duration::from_secs(60)).expect("nothing of the tree is left");
}
