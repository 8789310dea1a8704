//! Restarts that wait: a child whose database is down is tried again later and later, while its sibling works on.

use backplane::runtime::Smol;
use backplane::{Exit, Runtime};
use backplane_supervisor::{Backoff, ChildSpec, Event, Intensity, RestartStrategy, Starting, Supervisor};
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

fn main() -> Result<(), Box<dyn Error>> {
    let runtime = Smol::global();
    let attempts = Arc::new(AtomicU32::new(0));
    let client = ChildSpec::starting("client", move |device, starting: Starting| {
        let attempt = attempts.fetch_add(1, Ordering::Relaxed);
        device.manage(async move {
            match attempt {
                0 => drop(starting.done()),
                1..=3 => starting.fail("connection refused"),
                _ => {
                    drop(starting.done());
                    std::future::pending::<()>().await;
                }
            }
            Err::<(), _>("connection lost")
        })
    })
    .backoff(Backoff::exponential(Duration::from_millis(10)).cap(Duration::from_secs(1)).jitter(0.1, 42));
    let clock = runtime.clone();
    let worker = ChildSpec::new("worker", move |device| {
        let clock = clock.clone();
        device.manage(async move {
            loop {
                clock.sleep_until(clock.now() + Duration::from_millis(8)).await;
                println!("          the worker works");
            }
            #[allow(unreachable_code)]
            Ok::<(), std::convert::Infallible>(())
        })
    });

    let begin = Instant::now();
    let tree = Supervisor::new(RestartStrategy::OneForOne)
        .intensity(Intensity { restarts: 10, period: Duration::from_secs(60) })
        .child(worker)
        .child(client)
        .listen(move |report| println!("{:>6.1?}  {report}", begin.elapsed()));
    smol::block_on(async {
        let handle = tree.start(runtime).await?;
        let mut reports = handle.reports(100);
        while let Some(report) = reports.next().await {
            if report.event == Event::Started && report.incarnation == 5 {
                break;
            }
        }
        println!("{}", handle.snapshot()?);
        handle.stop(Exit::Shutdown).await?;
        Ok(())
    })
}
