//! Every interleaving of a few short stories. Run with `RUSTFLAGS="--cfg backplane_loom"`; without it there is nothing here.
#![cfg(backplane_loom)]

#[path = "loom/mailbox.rs"]
mod mailbox;
#[path = "loom/names.rs"]
mod names;
