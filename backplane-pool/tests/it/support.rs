//! What the tests have in common.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread::{self, ThreadId},
};

use backplane_pool::{Pinning, Pool, Topology};

/// A pool of one node.
pub(crate) fn pool(workers: usize) -> Pool {
    Pool::builder().workers(workers).build().unwrap()
}

/// A pool of nodes that are made up, with two workers each.
pub(crate) fn two_nodes() -> Pool {
    let topology = Topology::from_nodes([(0, [0, 1]), (7, [2, 3])]);
    Pool::builder().topology(topology).pinning(Pinning::None).build().unwrap()
}

/// Counts drops, and says on which thread each was.
#[derive(Clone)]
pub(crate) struct Drops {
    count: Arc<AtomicUsize>,
    send: mpsc::Sender<(ThreadId, Option<String>)>,
}

/// Is dropped.
pub(crate) struct Dropped(Drops);

impl Drops {
    pub(crate) fn new() -> (Drops, mpsc::Receiver<(ThreadId, Option<String>)>) {
        let (send, receive) = mpsc::channel();
        (Drops { count: Arc::default(), send }, receive)
    }

    pub(crate) fn guard(&self) -> Dropped {
        Dropped(self.clone())
    }

    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.count.fetch_add(1, Ordering::SeqCst);
        let thread = thread::current();
        drop(self.0.send.send((thread.id(), thread.name().map(String::from))));
    }
}

/// Does something when it is dropped.
pub(crate) struct Then<F: FnOnce()>(Option<F>);

pub(crate) fn then<F: FnOnce()>(f: F) -> Then<F> {
    Then(Some(f))
}

impl<F: FnOnce()> Drop for Then<F> {
    fn drop(&mut self) {
        if let Some(f) = self.0.take() {
            f();
        }
    }
}
