//! What this shows: a fault that runs down a chain of dependencies, and says at the end of it who began.
//!
//! A database, a cache that cannot work without it, and a server that cannot work without the cache. A logger only
//! listens, and is not taken along.

use std::future::pending;

use backplane::{Crash, Device, FaultKind, LinkMode, OnFault, catch_panic_locations};

type Forever = Result<(), std::convert::Infallible>;

fn main() {
    catch_panic_locations();
    let (database, cache, server, mut logger) = (
        Device::labelled("database"),
        Device::labelled("cache"),
        Device::labelled("server"),
        Device::labelled("logger"),
    );
    cache.link(&database, LinkMode::Monitor);
    server.link(&cache, LinkMode::Monitor);
    logger.link(&server, LinkMode::Monitor.on_fault(OnFault::HandOver));
    let database_id = database.id();

    let executor = smol::LocalExecutor::new();
    let server = executor.spawn(server.manage(pending::<Forever>()));
    let cache = executor.spawn(cache.manage(pending::<Forever>()));
    let database = executor.spawn(database.manage(async { panic!("disk on fire") as Forever }));

    let news = smol::block_on(executor.run(async {
        assert!(matches!(database.await, Err(Crash::Panic(_))));
        assert!(matches!(cache.await, Err(Crash::Cascade(_))));
        assert!(matches!(server.await, Err(Crash::Cascade(_))));
        logger.receive().await
    }));

    let backplane::Message::Disconnect(news) = news else { unreachable!("nobody asked anybody to stop") };
    let fault = news.exit.fault().expect("it did not end cleanly");
    let first = fault.first_cause().expect("it was taken along");
    assert_eq!((first.device, first.kind), (database_id, FaultKind::Panic));
    assert_eq!(fault.message(), Some("disk on fire"));
    println!("the logger hears of the server: {fault}");
}
