//! One program for all that concerns more than one crate.

mod stories;
mod tidy;
