//! What sending and receiving cost on one thread, without an executor: the instructions, and not the machine's noise.

use std::{
    pin::pin,
    task::{Context, Waker},
    time::Instant,
};

use backplane::{Device, runtime::Tokio};
use backplane_actor::{Mailbox, Options, System};

async fn count(mut mailbox: Mailbox<u64>) {
    let mut total = 0;
    while let Some(n) = mailbox.receive().await {
        total += n;
        std::hint::black_box(total);
    }
}

fn main() {
    let tokio = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let system = System::new(Tokio::new(tokio.handle().clone()));
    let (address, home) = system.prepare(Options::new());
    let mut process = pin!(home.run(Device::new(), count));
    let cx = &mut Context::from_waker(Waker::noop());
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel::<u64>();
    let mut raw = pin!(async move {
        let mut total = 0;
        while let Some(n) = receiver.recv().await {
            total += n;
            std::hint::black_box(total);
        }
    });
    const BATCH: u64 = 200;
    let (mut send, mut receive, mut raw_send, mut raw_receive) = (0, 0, 0, 0);
    for round in 0..20_000 {
        let t0 = Instant::now();
        for n in 0..BATCH {
            assert!(address.try_cast(n).is_ok());
        }
        let t1 = Instant::now();
        assert!(process.as_mut().poll(cx).is_pending());
        let t2 = Instant::now();
        for n in 0..BATCH {
            assert!(sender.send(n).is_ok());
        }
        let t3 = Instant::now();
        while let std::task::Poll::Ready(()) = raw.as_mut().poll(cx) {}
        let t4 = Instant::now();
        if round > 100 {
            send += (t1 - t0).as_nanos();
            receive += (t2 - t1).as_nanos();
            raw_send += (t3 - t2).as_nanos();
            raw_receive += (t4 - t3).as_nanos();
        }
    }
    let each = |sum: u128| sum as f64 / (19_900 * u128::from(BATCH)) as f64;
    println!("ours: send {:.1} ns, receive {:.1} ns", each(send), each(receive));
    println!("tokio mpsc: send {:.1} ns, receive {:.1} ns", each(raw_send), each(raw_receive));
}
