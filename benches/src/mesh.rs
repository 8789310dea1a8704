//! Many devices: stars, rings, meshes, and clients that come and go.

pub mod ours;
pub mod theirs;
