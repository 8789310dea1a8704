//! What this shows: one story on two executors, through the `Runtime` seam.
//!
//! A worker is watched by its owner, who gives it until a deadline and then drops its task: a kill, heard through the
//! same door as every other end.

use std::{convert::Infallible, future::pending, sync::Arc, time::Duration};

use backplane::{
    Device, Exit, FaultKind, LinkMode, Message, Watched,
    runtime::{Runtime, Smol, Tokio},
};

async fn kill_after<R: Runtime>(runtime: R, patience: Duration) -> Exit {
    let (mut owner, worker) = (Device::new(), Device::new());
    owner.link(&worker, LinkMode::Monitor);
    let line = worker.line();
    let task = runtime.spawn(async move {
        let _ = worker.manage(pending::<Result<(), Infallible>>()).await;
    });

    let mut deadline = Box::pin(runtime.sleep_until(runtime.now() + patience));
    let mut task = Some(task);
    loop {
        match owner.watch(deadline.as_mut()).await {
            Watched::Value(()) => {
                line.condemn();
                drop(task.take());
                deadline = Box::pin(runtime.sleep_until(runtime.now() + Duration::from_secs(60)));
            }
            Watched::Message(Message::Disconnect(news)) => return news.exit,
            Watched::Message(Message::Shutdown(_)) => {}
            Watched::Panic(panic) => panic.resume(),
        }
    }
}

fn main() {
    let patience = Duration::from_millis(10);

    let executor = Arc::new(smol::Executor::new());
    let runtime = Smol::new(Arc::clone(&executor));
    let on_smol = smol::block_on(executor.run(kill_after(runtime, patience)));

    let tokio = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a tokio runtime");
    let runtime = Tokio::new(tokio.handle().clone());
    let on_tokio = tokio.block_on(kill_after(runtime, patience));

    for (name, exit) in [("smol", on_smol), ("tokio", on_tokio)] {
        assert_eq!(exit.fault().map(|fault| fault.kind()), Some(FaultKind::Killed));
        println!("on {name} the worker was {exit}");
    }
}
