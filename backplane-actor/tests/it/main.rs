//! What the crate promises, a sentence a test.

#![allow(clippy::unwrap_used)]

mod groups;
mod kills;
mod processes;
mod random;
mod registry;
mod servers;
mod support;
mod world;
