//! Supervision trees.
mod backoff;
mod order;
mod tree;
pub use backoff::Backoff;
pub use tree::{AutoShutdown, Budget, Exceeded, Intensity, Restart, RestartStrategy};
