//! The behaviour of the mesh, sentence by sentence. Nothing here waits on a clock.
#![cfg(not(backplane_loom))]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may as well say where")]

mod backlog;
mod ends;
mod links;
mod many;
mod model;
mod odd;
mod people;
mod runs;
mod support;
