//! Ours.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::hint::black_box;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use backplane::{Crash, Device, LinkMode, Message};

/// The whole life of a star: `leaves` devices monitor one hub, the hub goes, every leaf reads the news and goes.
pub fn star(leaves: usize) {
    let hub = Device::new();
    let mut around: Vec<Device> = Vec::with_capacity(leaves);
    for _ in 0..leaves {
        let leaf = Device::new();
        leaf.link(&hub, LinkMode::Monitor);
        around.push(leaf);
    }
    drop(black_box(hub));
    let told = around.iter_mut().filter_map(Device::try_receive).filter(is_end).count();
    assert_eq!(told, leaves, "every leaf hears of the hub's end");
}

fn is_end(message: &Message) -> bool {
    matches!(message, Message::Disconnect(_))
}

/// Once round a ring: each of `size` managed futures monitors the one before; one goes, and the fault takes all down.
pub fn ring(size: usize) {
    let devices: Vec<Device> = (0..size).map(|_| Device::new()).collect();
    for (index, device) in devices.iter().enumerate() {
        device.link(&devices[(index + size - 1) % size], LinkMode::Monitor);
    }
    let mut devices = devices.into_iter();
    let first = devices.next();
    let mut managed: Vec<Pin<Box<_>>> =
        devices.map(|device| Box::pin(device.manage(pending::<Result<(), Infallible>>()))).collect();
    let mut cx = Context::from_waker(Waker::noop());
    for future in &mut managed {
        assert!(future.as_mut().poll(&mut cx).is_pending(), "nothing has happened yet");
    }
    drop(black_box(first));
    for mut future in managed {
        let ended = future.as_mut().poll(&mut cx);
        assert!(matches!(ended, Poll::Ready(Err(Crash::Cascade(_)))), "the fault arrives");
    }
}

/// A mesh is built, each of `size` devices a peer of every other, and taken down one by one.
pub fn mesh(size: usize) {
    let devices: Vec<Device> = (0..size).map(|_| Device::new()).collect();
    for (index, device) in devices.iter().enumerate() {
        for other in &devices[index + 1..] {
            device.link(other, LinkMode::Peer);
        }
    }
    drop(black_box(devices));
}

/// So many clients, one after another, monitor one device, which never ends.
pub fn clients(times: u64) {
    let server = Device::new();
    serve(&server, times);
    std::mem::forget(server);
}

/// So many clients, one after another, monitor one device, which lives on.
pub fn serve(server: &Device, times: u64) {
    let line = server.line();
    for _ in 0..times {
        let client = Device::new();
        client.link(&line, LinkMode::Monitor);
        drop(black_box(client));
    }
}
