//! A task that keeps its worker is told of, by name, while it does.

use std::{
    sync::{Mutex, mpsc},
    time::Duration,
};

use backplane_pool::{Builder, Event, Hog, Pinning, Pool, Topology};
use futures_lite::future::yield_now;

use crate::support::then;

#[test]
fn a_hog_is_named_while_it_hogs_and_when_it_lets_go() {
    let (tell, told) = mpsc::channel();
    let tell = Mutex::new(tell);
    let threshold = Duration::from_millis(8);
    let pool = Pool::builder()
        .workers(1)
        .hog_threshold(threshold)
        .on_event(move |event| drop(tell.lock().unwrap().send(event.clone())))
        .build()
        .unwrap();
    let (let_go, wait) = mpsc::channel::<()>();
    let task = pool.spawn_named("greedy", async move { wait.recv().unwrap() });
    let Ok(Event::Hog(hog)) = told.recv() else { panic!() };
    assert_eq!(hog.task.as_ref().map(|task| task.name()), Some("greedy"));
    assert!(hog.task.as_ref().is_some_and(|task| task.spawned_at().file().ends_with("hogs.rs")));
    assert!(hog.lasted >= threshold);
    assert_eq!((hog.worker, hog.node), (0, pool.nodes().next().unwrap()));
    let_go.send(()).unwrap();
    pool.block_on(task).unwrap();
    let Ok(Event::HogEnded(ended)) = told.recv() else { panic!() };
    assert_eq!(ended.task, hog.task);
    assert!(ended.lasted >= hog.lasted);
    assert!(Event::Hog(ended).to_string().starts_with("greedy ("));
}

#[test]
fn a_hog_that_nobody_named_is_known_by_its_type_and_place_in_its_first_poll_and_in_later_ones() {
    async fn glutton(wait: mpsc::Receiver<()>, yields: usize) {
        for _ in 0..yields {
            yield_now().await;
        }
        wait.recv().unwrap();
    }
    let (tell, told) = mpsc::channel();
    let tell = Mutex::new(tell);
    let pool = Pool::builder()
        .workers(1)
        .hog_threshold(Duration::from_millis(8))
        .on_event(move |event| drop(tell.lock().unwrap().send(event.clone())))
        .build()
        .unwrap();
    for yields in [0, 3] {
        let (let_go, wait) = mpsc::channel::<()>();
        let task = pool.spawn(glutton(wait, yields));
        let Ok(Event::Hog(hog)) = told.recv() else { panic!() };
        let name = hog.task.unwrap();
        assert!(name.name().contains("::glutton"), "{name}");
        assert!(name.spawned_at().file().ends_with("hogs.rs"));
        let_go.send(()).unwrap();
        pool.block_on(task).unwrap();
        assert!(matches!(told.recv(), Ok(Event::HogEnded(_))));
    }
}

#[test]
fn a_task_that_takes_long_in_many_short_polls_is_no_hog_and_a_listener_may_panic() {
    let (tell, told) = mpsc::channel();
    let tell = Mutex::new(tell);
    let pool = Pool::builder()
        .workers(1)
        .hog_threshold(Duration::from_secs(1))
        .on_event(move |event| {
            tell.lock().unwrap().send(event.clone()).unwrap();
            panic!("the listener");
        })
        .build()
        .unwrap();
    let task = pool.spawn(async {
        for _ in 0..20_000 {
            yield_now().await;
        }
    });
    pool.block_on(task).unwrap();
    drop(pool);
    assert!(told.recv().is_err(), "nobody was told of");
}

#[test]
fn a_listener_that_panics_hears_of_the_next_event_as_well() {
    let (tell, told) = mpsc::channel();
    let tell = Mutex::new(tell);
    let pool = Pool::builder()
        .workers(1)
        .hog_threshold(Duration::from_millis(4))
        .on_event(move |event| {
            drop(tell.lock().map(|tell| tell.send(event.clone())));
            panic!("the listener");
        })
        .build()
        .unwrap();
    let (let_go, wait) = mpsc::channel::<()>();
    let task = pool.spawn(async move { wait.recv().unwrap() });
    assert!(matches!(told.recv(), Ok(Event::Hog(_))));
    let_go.send(()).unwrap();
    pool.block_on(task).unwrap();
    // The lock is poisoned by then: what counts is that the watch still runs, and ends.
    drop(pool);
}

/// A pool that tells of hogs soon, and what it tells.
fn strict(builder: Builder) -> (Pool, mpsc::Receiver<Event>) {
    let (tell, told) = mpsc::channel();
    let tells = move |event: &Event| drop(tell.send(event.clone()));
    let pool = builder.hog_threshold(Duration::from_millis(1)).on_event(tells).build();
    (pool.unwrap(), told)
}

/// Where others have the machine, a short poll may have been one, and have ended.
fn next_hog(told: &mpsc::Receiver<Event>) -> Option<Hog> {
    told.iter().find_map(|event| if let Event::Hog(hog) = event { Some(hog) } else { None })
}

#[test]
fn a_hook_that_takes_long_is_no_hog() {
    let (let_go, wait) = mpsc::channel::<()>();
    let (says, starts) = mpsc::channel();
    let wait = Mutex::new(wait);
    let nodes = Pool::builder().topology(Topology::from_nodes([(0, [0]), (7, [1])])).pinning(Pinning::None);
    let (pool, told) = strict(nodes.on_start(move |info| {
        if info.worker == 0 {
            says.send(()).unwrap();
            let _ = wait.lock().unwrap().recv();
        }
    }));
    starts.recv().unwrap();
    // Whoever is told of first: the hook has been there for longer.
    let hog = pool.spawn_on(7, async move { told.recv() }).unwrap();
    let event = pool.block_on(hog).unwrap().unwrap();
    drop(let_go);
    assert!(matches!(&event, Event::Hog(hog) if hog.worker == 1), "{event}");
}

#[test]
fn a_hog_is_told_of_while_its_pool_is_dropped() {
    let (pool, told) = strict(Pool::builder().workers(1));
    let (handle, (says, runs)) = (pool.handle(), mpsc::channel());
    let hog = async move {
        says.send(()).unwrap();
        // Until tasks are dropped, which is when this one begins once more: from here on it blocks in its destructor.
        while !handle.spawn(async {}).is_finished() {
            yield_now().await;
        }
    };
    let (tell, hears) = mpsc::channel();
    let lasts = then(move || {
        tell.send(next_hog(&told)).unwrap();
    });
    pool.spawn_named("lasts", async move {
        let _lasts = lasts;
        hog.await;
    })
    .detach();
    runs.recv().unwrap();
    drop(pool);
    let hog = hears.recv().unwrap().expect("it is told of");
    assert_eq!(hog.task.as_ref().map(|task| task.name()), Some("lasts"));
}

#[test]
fn what_a_task_that_hogs_blocks_on_has_its_name_whatever_has_run_meanwhile() {
    let (pool, told) = strict(Pool::builder().workers(1));
    let handle = pool.handle();
    let blocks = async move {
        handle.block_on(async {
            handle.spawn(async {}).await.unwrap();
            next_hog(&told)
        })
    };
    let hog = pool.block_on(pool.spawn_named("blocks", blocks)).unwrap().unwrap();
    assert_eq!(hog.task.as_ref().map(|task| task.name()), Some("blocks"));
}
