//! Fault tolerance for futures.
