//! Children of one kind, added while it runs: one for each client, forgotten when it has gone.

use backplane::runtime::Smol;
use backplane::{Exit, Runtime};
use backplane_supervisor::{DynamicSupervisor, Restart, StartDynamicError};
use std::convert::Infallible;
use std::error::Error;
use std::time::Duration;

fn main() -> Result<(), Box<dyn Error>> {
    let runtime = Smol::global();
    let clock = runtime.clone();
    let clients = DynamicSupervisor::new(move |device, client: u32| {
        let clock = clock.clone();
        device.manage(async move {
            clock.sleep_until(clock.now() + Duration::from_millis(u64::from(client))).await;
            Ok::<_, Infallible>(())
        })
    })
    .restart(Restart::Temporary)
    .max_children(3);

    smol::block_on(async {
        let handle = clients.start(runtime).await?;
        let mut reports = handle.reports(100);
        for client in [10, 20, 60_000] {
            let child = handle.start_child(client).await?;
            println!("client {client} is served by device {}", child.ok_or("nothing started")?.line().id());
        }
        let refused = handle.start_child(40).await;
        assert_eq!(refused, Err(StartDynamicError::Full(40)));
        println!("client 40 has to wait: {}", StartDynamicError::Full(40));

        let mut gone = 0;
        while gone < 2 {
            let report = reports.next().await.ok_or("the supervisor ended")?;
            if let backplane_supervisor::Event::Ended { .. } = report.event {
                println!("{report}");
                gone += 1;
            }
        }
        assert_eq!(handle.count_children().await?.active, 1);
        let stopped = handle.stop(Exit::Shutdown).await?;
        println!("stopped: {}", stopped.exit);
        Ok(())
    })
}
