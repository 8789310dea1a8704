//! Bytes a child costs: what a supervisor of many keeps for each, beside the child's own task.

use allocation_counter::measure;
use backplane::runtime::Tokio;
use backplane::{Device, Exit, Runtime};
use backplane_supervisor::{ChildSpec, DynamicSupervisor, RestartStrategy, Supervisor};

const COUNT: usize = 100_000;

async fn child(device: Device) {
    drop(device.manage(std::future::pending::<Result<(), ()>>()).await);
}

fn main() {
    let Ok(tokio) = tokio::runtime::Builder::new_current_thread().enable_time().build() else {
        panic!("tokio starts")
    };
    let runtime = Tokio::new(tokio.handle().clone());

    // Slots of devices are never given back: they are made beforehand, and are the core's.
    let devices: Vec<Device> = (0..COUNT + 10).map(|_| Device::new()).collect();
    drop(devices);

    let mut tasks = Vec::with_capacity(COUNT);
    let bare = measure(|| {
        for _ in 0..COUNT {
            tasks.push(runtime.spawn(Box::pin(child(Device::new()))));
        }
        tokio.block_on(tokio::task::yield_now());
    });
    drop(tasks);
    tokio.block_on(async {
        for _ in 0..COUNT {
            tokio::task::yield_now().await;
        }
    });
    let bare = bare.bytes_current / COUNT as i64;

    let mut handle = None;
    let dynamic = measure(|| {
        handle = tokio.block_on(async {
            let plan = DynamicSupervisor::new(|device, _: u64| child(device));
            let handle = plan.start(runtime.clone()).await.ok()?;
            for n in 0..COUNT {
                drop(handle.start_child(n as u64).await);
            }
            Some(handle)
        });
    });
    if let Some(handle) = handle.take() {
        println!("list of a dynamic supervisor: {} bytes a child", handle.footprint() / COUNT);
        drop(tokio.block_on(handle.stop(Exit::Shutdown)));
    }

    let mut handle = None;
    let listed = measure(|| {
        handle = tokio.block_on(async {
            let specs = ChildSpec::new("child", child).replicas(COUNT);
            Supervisor::new(RestartStrategy::OneForOne).children(specs).start(runtime.clone()).await.ok()
        });
    });
    if let Some(handle) = handle.take() {
        drop(tokio.block_on(handle.stop(Exit::Shutdown)));
    }
    println!("bytes a child, of {COUNT}; growing vectors may be up to twice as large as what is in them");
    println!("  the task alone                {bare:>6}");
    for (name, all) in [("under a dynamic supervisor", dynamic), ("under a supervisor", listed)] {
        let all = all.bytes_current / COUNT as i64;
        println!("  {name:28} {all:>7}, the supervisor's part {:>5}", all - bare);
    }
}
