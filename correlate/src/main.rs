//! The supervised streaming join.
fn main() {}
