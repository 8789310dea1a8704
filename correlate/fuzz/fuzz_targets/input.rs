//! Any bytes as an input file.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| correlate_fuzz::input(bytes));
