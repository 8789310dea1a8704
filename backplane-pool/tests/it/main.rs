//! What the pool does, in sentences.

#[cfg(feature = "uring")]
mod lanes;
mod topology;
