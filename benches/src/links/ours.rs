//! Ours. Each function does its workload so many times.

use std::hint::black_box;

use backplane::{Device, Exit, Fault, LinkMode};

use super::repeat;

/// Ends the life of `value`, where the optimiser cannot see it.
fn gone<T>(value: T) {
    drop(black_box(value));
}

/// The fault of an error without words, as the peer's is.
fn error() -> Exit {
    Exit::Fault(Fault::silent_error())
}

/// A device comes and goes.
pub fn create_destroy(times: u64) {
    repeat(times, || {
        gone(Device::new());
    });
}

/// One monitors the other, device to device; the watcher goes first, and the news finds nobody.
pub fn device_monitor_drop(times: u64) {
    repeat(times, || {
        let a = Device::new();
        let b = Device::new();
        a.link(&b, LinkMode::Monitor);
        gone(a);
        gone(b);
    });
}

/// One monitors the other, device to line; the watcher goes first, and the news finds nobody.
pub fn line_monitor_drop(times: u64) {
    repeat(times, || {
        let a = Device::new();
        let b = Device::new();
        a.link(&b.line(), LinkMode::Monitor);
        gone(a);
        gone(b);
    });
}

/// One monitors the other, device to device; the watched goes first, by drop.
pub fn device_monitor_drop_notify(times: u64) {
    repeat(times, || {
        let a = Device::new();
        let b = Device::new();
        a.link(&b, LinkMode::Monitor);
        gone(b);
        gone(a);
    });
}

/// One monitors the other, device to device; the watched goes first, with an error.
pub fn device_monitor_error_notify(times: u64) {
    repeat(times, || {
        let a = Device::new();
        let b = Device::new();
        a.link(&b, LinkMode::Monitor);
        b.disconnect(error());
        gone(a);
    });
}

/// One monitors the other, device to line; the watched goes first, by drop.
pub fn line_monitor_drop_notify(times: u64) {
    repeat(times, || {
        let a = Device::new();
        let b = Device::new();
        a.link(&b.line(), LinkMode::Monitor);
        gone(b);
        gone(a);
    });
}

/// One monitors the other, device to line; the watched goes first, with an error.
pub fn line_monitor_error_notify(times: u64) {
    repeat(times, || {
        let a = Device::new();
        let b = Device::new();
        a.link(&b.line(), LinkMode::Monitor);
        b.disconnect(error());
        gone(a);
    });
}

/// Each hears of the other, device to device; one goes by drop, then the other.
pub fn device_peer_drop_notify(times: u64) {
    repeat(times, || {
        let a = Device::new();
        let b = Device::new();
        a.link(&b, LinkMode::Peer);
        gone(a);
        gone(b);
    });
}

/// Each hears of the other, device to device; one goes with an error, then the other by drop.
pub fn device_peer_error_notify(times: u64) {
    repeat(times, || {
        let a = Device::new();
        let b = Device::new();
        a.link(&b, LinkMode::Peer);
        b.disconnect(error());
        gone(a);
    });
}

/// Each hears of the other, device to line; one goes by drop, then the other.
pub fn line_peer_drop_notify(times: u64) {
    repeat(times, || {
        let a = Device::new();
        let b = Device::new();
        a.link(&b.line(), LinkMode::Peer);
        gone(a);
        gone(b);
    });
}

/// Each hears of the other, device to line; one goes with an error, then the other by drop.
pub fn line_peer_error_notify(times: u64) {
    repeat(times, || {
        let a = Device::new();
        let b = Device::new();
        a.link(&b.line(), LinkMode::Peer);
        b.disconnect(error());
        gone(a);
    });
}

/// A line of a living device is taken and given up.
pub fn take_line(times: u64) {
    let device = Device::new();
    repeat(times, || gone(device.line()));
}

/// One monitors the other, line to line; the watcher goes first, and the news finds nobody.
pub fn lines_monitor_drop(times: u64) {
    repeat(times, || {
        let a = Device::new();
        let b = Device::new();
        let line = a.line();
        line.link(&b.line(), LinkMode::Monitor);
        gone(line);
        gone(a);
        gone(b);
    });
}

/// One monitors the other, line to line; the watched goes first, by drop.
pub fn lines_monitor_drop_notify(times: u64) {
    repeat(times, || {
        let a = Device::new();
        let b = Device::new();
        let line = a.line();
        line.link(&b.line(), LinkMode::Monitor);
        gone(line);
        gone(b);
        gone(a);
    });
}

/// One monitors the other, line to line; the watched goes first, with an error.
pub fn lines_monitor_error_notify(times: u64) {
    repeat(times, || {
        let a = Device::new();
        let b = Device::new();
        let line = a.line();
        line.link(&b.line(), LinkMode::Monitor);
        gone(line);
        b.disconnect(error());
        gone(a);
    });
}

/// Each hears of the other, line to line; one goes by drop, then the other.
pub fn lines_peer_drop_notify(times: u64) {
    repeat(times, || {
        let a = Device::new();
        let b = Device::new();
        let line = a.line();
        line.link(&b.line(), LinkMode::Peer);
        gone(line);
        gone(b);
        gone(a);
    });
}

/// Each hears of the other, line to line; one goes with an error, then the other by drop.
pub fn lines_peer_error_notify(times: u64) {
    repeat(times, || {
        let a = Device::new();
        let b = Device::new();
        let line = a.line();
        line.link(&b.line(), LinkMode::Peer);
        gone(line);
        b.disconnect(error());
        gone(a);
    });
}

/// One monitors the other, device to device; the watched goes by drop, and the watcher reads the news.
pub fn told(times: u64) {
    repeat(times, || {
        let mut a = Device::new();
        let b = Device::new();
        a.link(&b, LinkMode::Monitor);
        gone(b);
        assert!(black_box(a.try_receive()).is_some());
        gone(a);
    });
}

/// Two devices live on; a link between them is made and unmade.
pub fn link_unlink(times: u64) {
    let (a, b) = (Device::new(), Device::new());
    repeat(times, || {
        a.link(&b, LinkMode::Monitor);
        black_box(&b);
        a.unlink(&b, LinkMode::Monitor);
    });
}
