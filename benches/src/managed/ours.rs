//! Ours.

use std::convert::Infallible;
use std::future::{Future, ready};
use std::pin::pin;
use std::task::{Context, Poll};

use backplane::Device;

use super::{idle_waker, never};

/// Polls one managed future so many times; it is never ready and nothing is told.
pub fn polls(times: u64) {
    let waker = idle_waker();
    let mut cx = Context::from_waker(&waker);
    let mut managed = pin!(Device::new().manage(never()));
    for _ in 0..times {
        assert!(managed.as_mut().poll(&mut cx).is_pending());
    }
}

/// So many devices each manage a future that is ready at once.
pub fn lives(times: u64) {
    let waker = idle_waker();
    let mut cx = Context::from_waker(&waker);
    for _ in 0..times {
        let mut managed = pin!(Device::new().manage(ready(Ok::<(), Infallible>(()))));
        assert!(matches!(managed.as_mut().poll(&mut cx), Poll::Ready(Ok(()))));
    }
}
