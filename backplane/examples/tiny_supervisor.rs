//! What this shows: a restart loop, written outside the crate and from the core alone.
//!
//! The supervisor is a managed future like any other. Its children's ends are handed over to its inbox instead of taking
//! it along, and each comes with the tag that says which child it was.

use std::{convert::Infallible, future::Future, pin::Pin};

use backplane::{Device, Line, LinkMode, Message, OnFault};

type Work = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;
type Start = fn(attempt: u32) -> Work;

/// Starts a child, which tells the supervisor how it ended.
fn start(children: &[Start], which: usize, attempt: u32, supervisor: Line) {
    let device = Device::labelled(format!("child {which}"));
    device.link(&supervisor, LinkMode::Notify.tag(which as u64).on_fault(OnFault::HandOver));
    smol::spawn(device.manage(children[which](attempt)).describe()).detach();
}

/// Restarts each child that faults; done when all have ended cleanly.
async fn supervise(mut device: Device, children: &'static [Start]) -> u32 {
    let (line, mut inbox) = (device.line(), device.inbox());
    let supervisor = device.manage(async move {
        let mut attempts = vec![1; children.len()];
        (0..children.len()).for_each(|which| start(children, which, 1, line));
        let mut running = children.len();
        while running > 0 {
            let Some(Message::Disconnect(news)) = inbox.receive().await else { continue };
            let which = news.tag as usize;
            println!("{}", news.exit);
            if news.exit.is_fault() {
                attempts[which] += 1;
                start(children, which, attempts[which], line);
            } else {
                running -= 1;
            }
        }
        Ok::<u32, Infallible>(attempts.iter().sum())
    });
    supervisor.await.expect("nobody stops it, and it does not panic")
}

fn main() {
    static CHILDREN: [Start; 2] = [
        |attempt| Box::pin(async move { if attempt < 3 { panic!("attempt {attempt}") } else { Ok(()) } }),
        |attempt| Box::pin(async move { if attempt < 2 { Err("not yet".into()) } else { Ok(()) } }),
    ];
    let starts = smol::block_on(supervise(Device::new(), &CHILDREN));
    assert_eq!(starts, 5);
    println!("two children, {starts} starts: all done");
}
