//! The same stories on every kind of executor, and what holds for every [`Runtime`](backplane::Runtime).

// `told.rs` is one text in each of these, and a module of its own in each: what it may assume differs.
#![allow(clippy::duplicate_mod)]

mod on_compio;
mod on_nodes;
mod on_one_thread;
mod on_seeds;
mod on_smol;
mod on_the_pool;
mod on_threads;
mod on_tokio;
mod runtimes;
mod seeds;
