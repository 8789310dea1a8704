//! A first tree: a counter that is asked to divide by zero, restarted, and given up on when it is enough.

use backplane::runtime::Smol;
use backplane_supervisor::{ChildSpec, Intensity, RestartStrategy, Supervisor};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Counts what it has to share, and shares it among those who ask; the sixth time nobody asks.
async fn counter(asked: Arc<AtomicU32>) -> Result<(), Infallible> {
    let among = 5 - asked.fetch_add(1, Ordering::Relaxed) % 6;
    println!("  seven shared among {among} is {}", 7 / among);
    Ok(())
}

fn main() {
    // The default hook would print each panic; here the supervisor's reports are enough.
    std::panic::set_hook(Box::new(|_| {}));
    backplane::catch_panic_locations();

    let asked = Arc::new(AtomicU32::new(0));
    let counter = ChildSpec::new("counter", move |device| device.manage(counter(Arc::clone(&asked))));
    let logger =
        ChildSpec::new("logger", |device| device.manage(std::future::pending::<Result<(), Infallible>>()));

    let tree = Supervisor::new(RestartStrategy::RestForOne)
        .intensity(Intensity { restarts: 7, period: Duration::from_secs(5) })
        .child(logger)
        .child(counter)
        .listen(|report| println!("{report}"));

    smol::block_on(async {
        match tree.start(Smol::global()).await {
            Ok(handle) => {
                let mut reports = handle.reports(1000);
                while reports.next().await.is_some() {}
                assert!(!handle.line().is_alive());
                println!("seven restarts are tolerated, the eighth is not");
            }
            Err(error) => println!("{error}"),
        }
    });
}
