//! What the crate promises, a sentence a test.

#![allow(clippy::unwrap_used)]

mod calls;
mod clock;
mod groups;
mod kills;
mod lives;
#[cfg(all(feature = "metrics", feature = "tracing"))]
mod observed;
mod processes;
mod random;
mod registry;
mod router;
mod semantics;
mod servers;
mod statem;
mod support;
mod timer;
mod world;
