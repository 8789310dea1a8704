//! Stories across crates and executors.
