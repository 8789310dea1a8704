//! What the crate promises, a sentence a test.

#![allow(clippy::unwrap_used)]

mod groups;
mod random;
mod registry;
mod timer;
mod world;
