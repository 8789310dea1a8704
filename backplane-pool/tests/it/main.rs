//! What a pool promises, a sentence each.

#![allow(clippy::unwrap_used)]

mod hogs;
mod nested;
mod nodes;
mod shutdown;
mod spawns;
mod support;
mod topology;
mod turns;
