//! What a worker waits in when it has nothing to do.

use std::{future::Future, io};

#[cfg(feature = "uring")]
use std::rc::Rc;

#[cfg(feature = "uring")]
use crate::ring::{Lanes, Ring};

/// What a builder was told.
#[derive(Clone, Debug, Default)]
pub(crate) enum Wish {
    #[default]
    AsyncIo,
    #[cfg(feature = "uring")]
    Lanes(Lanes),
}

impl Wish {
    /// On the worker's own thread, so that it lies near.
    pub(crate) fn make(&self) -> io::Result<Reactor> {
        match self {
            Wish::AsyncIo => Ok(Reactor::AsyncIo),
            #[cfg(feature = "uring")]
            Wish::Lanes(lanes) => Ring::new(lanes).map(|ring| Reactor::Ring(Rc::new(ring))),
        }
    }
}

/// The reactor of async-io, which all threads share, or a ring of the thread's own.
#[derive(Clone, Debug)]
pub(crate) enum Reactor {
    AsyncIo,
    #[cfg(feature = "uring")]
    Ring(Rc<Ring>),
}

impl Reactor {
    #[cfg(feature = "uring")]
    pub(crate) fn driver(&self) -> Option<crate::Driver> {
        match self {
            Reactor::AsyncIo => None,
            Reactor::Ring(ring) => Some(ring.driver()),
        }
    }

    /// Runs a future to its end, and turns whenever that has nothing to do.
    pub(crate) fn block_on<F: Future>(&self, future: F) -> F::Output {
        match self {
            Reactor::AsyncIo => async_io::block_on(future),
            #[cfg(feature = "uring")]
            Reactor::Ring(ring) => ring.block_on(future),
        }
    }
}
