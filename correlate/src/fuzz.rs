//! The root of `fuzz/`: the parts of the program that read what others wrote, and what cargo-fuzz calls. No part of the
//! program itself.

#![allow(dead_code, unused_imports, unused_macros, reason = "only what reads is used here")]

mod error;
mod job;
mod log;
mod output;
mod places;
mod random;
mod read;
mod record;
mod table;
mod targets;
mod text;

/// Opens a log that was edited.
pub fn recovery(bytes: &[u8]) {
    targets::recovery(bytes);
}

/// Reads a commit, an entry of the commits, a snapshot.
pub fn commit_record(bytes: &[u8]) {
    targets::commit_record(bytes);
}

/// Reads an input file.
pub fn input(bytes: &[u8]) {
    targets::input(bytes);
}
