//! What this shows: a service of tokio tasks that somebody wrote without us, made fault tolerant from outside.
//!
//! The tasks are not changed: `manage` wraps what is spawned. A line from the accept loop to each connection says that
//! the connections end with it, and a connection that panics ends alone.

use std::{future::Future, io};

use backplane::{Device, LinkMode, Message, OnFault};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::mpsc,
};

/// The service as it was: echoes, and falls over a zero byte.
async fn connection(mut stream: DuplexStream) -> io::Result<()> {
    let mut byte = [0];
    while stream.read(&mut byte).await? > 0 {
        let share = 100 / byte[0];
        stream.write_all(&[share]).await?;
    }
    Ok(())
}

/// What is new: each connection under a device, linked with the accept loop.
fn spawn(accept: &Device, future: impl Future<Output = io::Result<()>> + Send + 'static) {
    let device = Device::labelled("connection");
    // We hear of its end, and go on; it hears of ours, and ends.
    device.link(accept, LinkMode::Notify.on_fault(OnFault::HandOver));
    device.link(accept, LinkMode::Monitor);
    tokio::spawn(device.manage(future).describe());
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let mut accept = Device::labelled("accept loop");
    let (dial, mut listener) = mpsc::channel(8);
    let mut clients = Vec::new();
    for _ in 0..3 {
        let (ours, theirs) = duplex(64);
        dial.send(theirs).await.expect("somebody listens");
        clients.push(ours);
    }
    while let Ok(stream) = listener.try_recv() {
        spawn(&accept, connection(stream));
    }

    // The second client breaks its connection; the others do not notice.
    clients[1].write_all(&[0]).await?;
    let Message::Disconnect(news) = accept.receive().await else { unreachable!("nobody asks us to stop") };
    println!("one connection is lost: {}", news.exit);
    clients[0].write_all(&[7]).await?;
    assert_eq!(clients[0].read_u8().await?, 14);
    println!("another goes on");

    // The accept loop is dropped without a word: the rest end with it, and their clients see the end of the stream.
    drop(accept);
    assert_eq!(clients[0].read(&mut [0]).await?, 0);
    assert_eq!(clients[2].read(&mut [0]).await?, 0);
    println!("without the accept loop there are no connections");
    Ok(())
}
