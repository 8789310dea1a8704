//! What the crate promises, a sentence a test.

#![allow(clippy::unwrap_used)]

mod groups;
mod kills;
mod processes;
mod random;
mod registry;
mod router;
mod semantics;
mod servers;
mod soak;
mod statem;
mod support;
mod timer;
mod world;
