//! A tree from `main` to its end: Ctrl-C or SIGTERM drains it in order, a second one drops it. Without the feature
//! `signals`, and when run with nobody at the keyboard, a signal of our own comes after a moment.

use backplane::runtime::Smol;
use backplane::{Device, Message, OnShutdown, Runtime};
use backplane_supervisor::{ChildSpec, RestartStrategy, Root, Shutdown, Supervisor};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Finishes what it has begun before it stops.
async fn server(mut device: Device, clock: Smol) {
    device.on_shutdown(OnShutdown::HandOver);
    if let Message::Shutdown(_) = device.receive().await {
        println!("server: one request left to answer");
        clock.sleep_until(Instant::now() + Duration::from_millis(20)).await;
        println!("server: answered");
    }
    device.disconnect(backplane::Exit::Shutdown);
}

fn tree(runtime: &Smol) -> Supervisor {
    let clock = runtime.clone();
    Supervisor::new(RestartStrategy::RestForOne)
        .child(ChildSpec::new("database", |device| device.manage(std::future::pending::<Result<(), ()>>())))
        .child(
            ChildSpec::new("server", move |device| server(device, clock.clone()))
                .shutdown(Shutdown::Timeout(Duration::from_secs(10))),
        )
        .listen(|report| println!("{report}"))
}

fn main() -> ExitCode {
    let runtime = Smol::global();
    let root = Root::new(tree(&runtime)).drain_within(Duration::from_secs(15));
    #[cfg(feature = "signals")]
    if std::env::args().any(|argument| argument == "--wait") {
        println!("press Ctrl-C");
        return root.main(runtime);
    }
    let mut first = true;
    let clock = runtime.clone();
    let end = smol::block_on(root.run_with(runtime, move || {
        let wait =
            if std::mem::take(&mut first) { Duration::from_millis(50) } else { Duration::from_secs(3600) };
        clock.sleep_until(Instant::now() + wait)
    }));
    println!("{end}");
    end.into()
}
