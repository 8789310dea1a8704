//! What people read.

use std::{convert::Infallible, future::pending};

use backplane::{Crash, Device, Exit, Fault, Label, LinkMode};

use crate::support::{end, now};

#[test]
fn a_label_is_seen_by_all_and_ends_with_its_device() {
    let device = Device::labelled(Label::new("worker").note("partition", "7"));
    let line = device.line();
    assert_eq!(line.label().unwrap().name(), "worker");
    device.set_label("waiter");
    assert_eq!(line.label().unwrap().name(), "waiter");
    drop(device);
    assert_eq!(line.label(), None);
    // Nor does the next device in that place have it.
    let next: Vec<Device> = (0..1_000).map(|_| Device::new()).collect();
    assert!(next.iter().all(|device| device.line().label().is_none()));
}

#[test]
fn a_fault_says_whose_it_is() {
    let mut watcher = Device::new();
    let device = Device::labelled("worker 3");
    watcher.link(&device, LinkMode::Monitor);
    let _ = now(device.manage(async { panic!("out of beans") as Result<(), Infallible> }));
    let exit = end(&mut watcher).exit;
    assert_eq!(exit.to_string(), "worker 3 panicked: out of beans");
    assert_eq!(exit.fault().and_then(|fault| fault.label()).map(Label::name), Some("worker 3"));
}

#[test]
fn a_cascade_says_whose_the_first_fault_was() {
    let (a, b, mut c) = (Device::labelled("a"), Device::labelled("b"), Device::new());
    b.link(&a, LinkMode::Monitor);
    c.link(&b, LinkMode::Monitor);
    let (a_id, managed) = (a.id(), b.manage(pending::<Result<(), Infallible>>()));
    drop(a);
    assert!(matches!(now(managed), Err(Crash::Cascade(_))));
    assert_eq!(end(&mut c).exit.to_string(), format!("taken down by device {a_id}, after a dropped"));
}

#[test]
fn debug_output_can_be_read() {
    let device = Device::labelled("worker");
    let id = device.id();
    let other = Device::new();
    device.link(&other, LinkMode::Monitor);
    assert_eq!(
        format!("{device:?}"),
        format!("Device {{ id: {id}, label: worker, links: 1, news: false, .. }}")
    );
    let line = device.line();
    assert_eq!(format!("{line:?}"), format!("Line({id} worker)"));
    drop(device);
    assert_eq!(format!("{line:?}"), format!("Line({id}, ended)"));
    assert_eq!(format!("{id:?}"), format!("DeviceId({id})"));
    assert_eq!(format!("{:?}", Exit::Fault(Fault::error("no"))), "Fault(Fault(failed: no))");
}

#[test]
fn an_id_and_its_option_are_8_bytes_and_a_line_16() {
    use backplane::{DeviceId, Line};
    assert_eq!((size_of::<DeviceId>(), size_of::<Option<DeviceId>>(), size_of::<Line>()), (8, 8, 16));
}

#[test]
fn a_fault_without_words_costs_no_memory() {
    assert_eq!(size_of::<Exit>(), 24);
}

#[test]
fn faults_and_crashes_are_errors_that_go_anywhere() {
    fn anywhere<E: std::error::Error + Send + Sync + 'static>(error: E) -> String {
        error.to_string()
    }
    assert_eq!(anywhere(Fault::error("no")), "failed: no");
    let crash: Crash<std::io::Error> = Crash::Error(std::io::Error::other("disk"));
    assert_eq!(anywhere(crash), "disk");
}
