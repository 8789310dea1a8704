//! What a pool promises, a sentence each.

#![allow(clippy::unwrap_used)]

mod hogs;
#[cfg(feature = "uring")]
mod lanes;
mod nested;
mod nodes;
mod shutdown;
mod sleeps;
mod soak;
mod spawns;
mod support;
mod topology;
mod turns;
