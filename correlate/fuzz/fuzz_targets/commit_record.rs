//! Any bytes as a record of a commit.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| correlate_fuzz::commit_record(bytes));
