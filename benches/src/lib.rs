//! Ours against the peers.
