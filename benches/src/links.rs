//! The seventeen workloads of async-backplane's own benchmark, written anew, ours beside theirs.
//!
//! Their names say whose links: `device_..` links a device to a device, `line_..` one through its line; in the part
//! `line/` both ends are lines. `drop`: the watching side goes first, so the news finds nobody. `drop_notify`: the
//! watched side goes first, so the news is delivered (`device/` peers excepted, where each side watches the other).
//! `error_notify`: the watched side says why. In no row is the news read; every row pays for creating its two devices.

pub mod ours;
pub mod theirs;

/// One workload on both sides: its name, what it says, ours, theirs, and the ratio a prototype of ours reached.
pub type Workload = (&'static str, &'static str, fn(u64), fn(u64), f64);

/// All of them, in the order of the peer's two files.
pub const WORKLOADS: [Workload; 17] = [
    ("device/create_destroy", "a device comes and goes", ours::create_destroy, theirs::create_destroy, 6.9),
    (
        "device/device_monitor_drop",
        "device monitors device; watcher gone first",
        ours::device_monitor_drop,
        theirs::device_monitor_drop,
        10.7,
    ),
    (
        "device/line_monitor_drop",
        "device monitors line; watcher gone first",
        ours::line_monitor_drop,
        theirs::line_monitor_drop,
        5.5,
    ),
    (
        "device/device_monitor_drop_notify",
        "device monitors device; told of a drop",
        ours::device_monitor_drop_notify,
        theirs::device_monitor_drop_notify,
        7.2,
    ),
    (
        "device/device_monitor_error_notify",
        "device monitors device; told of an error",
        ours::device_monitor_error_notify,
        theirs::device_monitor_error_notify,
        7.2,
    ),
    (
        "device/line_monitor_drop_notify",
        "device monitors line; told of a drop",
        ours::line_monitor_drop_notify,
        theirs::line_monitor_drop_notify,
        5.5,
    ),
    (
        "device/line_monitor_error_notify",
        "device monitors line; told of an error",
        ours::line_monitor_error_notify,
        theirs::line_monitor_error_notify,
        5.5,
    ),
    (
        "device/device_peer_drop_notify",
        "peers, device to device; told of a drop",
        ours::device_peer_drop_notify,
        theirs::device_peer_drop_notify,
        5.9,
    ),
    (
        "device/device_peer_error_notify",
        "peers, device to device; told of an error",
        ours::device_peer_error_notify,
        theirs::device_peer_error_notify,
        5.9,
    ),
    (
        "device/line_peer_drop_notify",
        "peers, device to line; told of a drop",
        ours::line_peer_drop_notify,
        theirs::line_peer_drop_notify,
        5.5,
    ),
    (
        "device/line_peer_error_notify",
        "peers, device to line; told of an error",
        ours::line_peer_error_notify,
        theirs::line_peer_error_notify,
        5.5,
    ),
    ("line/create_destroy", "a line is taken and given up", ours::take_line, theirs::take_line, 10.7),
    (
        "line/line_monitor_drop",
        "line monitors line; watcher gone first",
        ours::lines_monitor_drop,
        theirs::lines_monitor_drop,
        5.5,
    ),
    (
        "line/line_monitor_drop_notify",
        "line monitors line; told of a drop",
        ours::lines_monitor_drop_notify,
        theirs::lines_monitor_drop_notify,
        5.5,
    ),
    (
        "line/line_monitor_error_notify",
        "line monitors line; told of an error",
        ours::lines_monitor_error_notify,
        theirs::lines_monitor_error_notify,
        5.5,
    ),
    (
        "line/line_peer_drop_notify",
        "peers, line to line; told of a drop",
        ours::lines_peer_drop_notify,
        theirs::lines_peer_drop_notify,
        5.5,
    ),
    (
        "line/line_peer_error_notify",
        "peers, line to line; told of an error",
        ours::lines_peer_error_notify,
        theirs::lines_peer_error_notify,
        5.5,
    ),
];

/// What the peer's benchmark leaves out: the name, what it says, ours, theirs.
pub type Beside = (&'static str, &'static str, fn(u64), fn(u64));

/// All of those.
pub const BESIDE: [Beside; 2] = [
    ("link/told", "device monitors device; told of a drop, and the news is read", ours::told, theirs::told),
    (
        "link/unlink",
        "a link between two living devices made and unmade",
        ours::link_unlink,
        theirs::link_unlink,
    ),
];

/// Does `once` so many times.
#[inline]
pub(crate) fn repeat(times: u64, mut once: impl FnMut()) {
    for _ in 0..times {
        once();
    }
}
