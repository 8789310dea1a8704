//! The server: who accepts, who answers, and who starts acceptors again.

use std::{
    collections::HashMap,
    io,
    net::TcpListener as StdListener,
    sync::{Arc, Mutex},
};

use backplane::{Device, Line, LinkMode, Message};
use backplane_pool::{
    Handle, Task,
    compio::{
        BufResult,
        io::{AsyncRead, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    },
};

/// An acceptor or a connection that can be killed.
pub(crate) struct Running {
    pub(crate) accepts: bool,
    line: Line,
    task: Task<()>,
}

impl Running {
    /// Its future is dropped, with its socket; whoever watches hears of it.
    pub(crate) fn kill(self) {
        self.line.condemn();
        drop(self.task);
    }
}

pub(crate) type All = Arc<Mutex<Vec<Running>>>;

/// Answers each `GET /path` with its path, head and body in one write.
async fn answer(mut stream: TcpStream) -> io::Result<()> {
    let mut asked = Vec::new();
    loop {
        asked.reserve(1024);
        let BufResult(read, bytes) = stream.read(asked).await;
        if read? == 0 {
            return Ok(());
        }
        asked = bytes;
        while let Some(end) = asked.windows(4).position(|end| end == b"\r\n\r\n") {
            let request: Vec<u8> = asked.drain(..end + 4).collect();
            let path = request.split(|byte| *byte == b' ').nth(1).unwrap_or_default().to_vec();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", path.len());
            stream.write_vectored_all([head.into_bytes(), path]).await.0?;
        }
        if asked.len() > 1 << 16 {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}

/// Gives each connection a device, and a task on the lane that has accepted it.
async fn accept(listener: StdListener, pool: Handle, all: All) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        let device = Device::new();
        let line = device.line();
        let connection = async { drop(device.manage(answer(stream)).await) };
        let task = pool.spawn_here(connection).map_err(|_| io::Error::other("only on a lane"))?;
        let mut all = all.lock().expect("nobody panics with it");
        all.retain(|running| running.line.is_alive());
        all.push(Running { accepts: false, line, task });
    }
}

/// Starts an acceptor on each lane, and another one whenever one has ended.
pub(crate) async fn keep(listener: StdListener, pool: Handle, all: All) -> io::Result<()> {
    let (mut keeper, mut lanes, mut missing) = (Device::new(), HashMap::new(), pool.lanes());
    loop {
        for lane in missing.drain(..) {
            let (device, listener) = (Device::new(), listener.try_clone()?);
            keeper.link(&device, LinkMode::Monitor);
            let (line, (pool, theirs)) = (device.line(), (pool.clone(), all.clone()));
            let task =
                lane.spawn(move || async { drop(device.manage(accept(listener, pool, theirs)).await) });
            lanes.insert(line.id(), lane);
            all.lock().expect("nobody panics with it").push(Running { accepts: true, line, task });
        }
        if let Message::Disconnect(news) = keeper.receive().await {
            missing.extend(lanes.remove(&news.device));
        }
    }
}
