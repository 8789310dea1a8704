//! One program for all that concerns more than one crate.

mod actors;
mod soak;
mod stories;
mod tidy;
