//! A task that keeps its worker is told of, by name, while it does.

use std::{
    sync::{Mutex, mpsc},
    time::Duration,
};

use backplane_pool::{Event, Pool};
use futures_lite::future::yield_now;

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
