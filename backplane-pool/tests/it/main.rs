//! What the pool does, in sentences.

mod topology;
