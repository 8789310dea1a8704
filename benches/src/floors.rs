//! What the machine itself charges: against these a figure of ours can be judged.

use std::hint::black_box;
use std::sync::Mutex;

/// A lock of the standard library, free, taken and given back.
pub fn mutex(times: u64) {
    let lock = Mutex::new(0_u64);
    for _ in 0..times {
        let mut held = lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *held = black_box(*held + 1);
    }
}

/// A block of 128 bytes, allocated and freed.
pub fn allocation(times: u64) {
    for _ in 0..times {
        drop(black_box(Box::new([0_u8; 128])));
    }
}
