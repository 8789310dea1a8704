//! What it costs to be managed: the polls, and the life of a future that is done at once.

use std::sync::Arc;
use std::task::{Wake, Waker};

pub mod ours;
pub mod theirs;

/// A waker that is counted, as an executor's is, and wakes nobody.
pub fn idle_waker() -> Waker {
    struct Idle;
    impl Wake for Idle {
        fn wake(self: Arc<Self>) {}
    }
    Waker::from(Arc::new(Idle))
}

/// The polls of a future of the same kind that nobody manages: the floor.
pub fn bare_polls(times: u64) {
    let waker = idle_waker();
    let mut cx = std::task::Context::from_waker(&waker);
    let mut bare = std::pin::pin!(never());
    for _ in 0..times {
        assert!(Future::poll(bare.as_mut(), &mut cx).is_pending());
    }
}

/// A future that can be polled for ever, and whose poll the optimiser cannot remove.
pub fn never() -> impl Future<Output = Result<(), std::convert::Infallible>> {
    let mut polls: u64 = 0;
    std::future::poll_fn(move |_| {
        polls = std::hint::black_box(polls + 1);
        std::task::Poll::Pending
    })
}
