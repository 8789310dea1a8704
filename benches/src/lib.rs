//! Ours against the peers: what each side does, how it is timed, and how the table is made.
//!
//! `cargo bench -p backplane-benches` prints the table; the crate's README says what each row measures.

pub mod contest;
pub mod floors;
pub mod heap;
pub mod links;
pub mod managed;
pub mod mesh;
pub mod report;
pub mod rows;
pub mod tasks;
