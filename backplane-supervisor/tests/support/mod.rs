//! What the tests and the example `otp_trace` have in common.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

pub mod book;
pub mod runner;
pub mod scenario;
pub mod virtual_time;
