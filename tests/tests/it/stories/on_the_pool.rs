//! Our own pool, four times: with one worker, with two nodes of two that share nothing, and with lanes of both kinds.

#[path = "told.rs"]
mod told;

use std::{cell::RefCell, future::Future, sync::Arc};

use backplane_pool::{Handle, Lanes, Pinning, Pool, Topology};

type Luggage = Arc<()>;
type Task = backplane_pool::Task<()>;

thread_local! {
    /// The pool of the story that this thread tells; a story's tasks are on it already.
    static POOL: RefCell<Option<Handle>> = const { RefCell::new(None) };
}

fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Task {
    POOL.with_borrow(|pool| pool.as_ref().map(|pool| pool.spawn(future))).expect("a story is told")
}

fn tell<F: Future<Output = ()>>(story: impl Fn() -> F) {
    let one = Pool::builder().workers(1);
    let nodes = Topology::from_nodes([(0, [0, 1]), (1, [2, 3])]);
    let two_nodes = Pool::builder().topology(nodes).pinning(Pinning::None);
    let lanes = [Lanes::new(), Lanes::new().polling()].map(|lanes| Pool::builder().workers(2).lanes(lanes));
    for pool in [one, two_nodes].into_iter().chain(lanes) {
        let pool = pool.build().expect("the pool starts");
        POOL.set(Some(pool.handle()));
        pool.block_on(story());
        POOL.set(None);
    }
}
