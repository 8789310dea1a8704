//! Who is compared: how each spawns, sleeps and opens a socket.

use std::{
    future::{Future, pending},
    io,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use async_executor::{Executor, StaticExecutor};
use async_io::{Async, Timer};
use backplane::Runtime;
use backplane_pool::{Handle, Pool, give_way};

use crate::THREADS;

/// What a row asks of an executor.
pub trait Peer: Clone + Send + Sync + 'static {
    /// Spawns; what it gives is awaited.
    fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> impl Future<Output = T> + Send + 'static;

    /// Spawns, and forgets.
    fn detach(&self, future: impl Future<Output = ()> + Send + 'static);

    /// Waits, by the timer that people use with it.
    fn sleep(&self, time: Duration) -> impl Future<Output = ()> + Send + 'static {
        async move {
            Timer::after(time).await;
        }
    }

    /// Runs the future as a task, and waits for it on this thread.
    fn block_on<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> T {
        futures_lite::future::block_on(self.spawn(future))
    }

    /// Its kind of socket.
    type Stream: Stream;

    /// Listens, and gives the streams that come to tasks of this.
    fn listen<F: Future<Output = ()> + Send + 'static>(
        &self,
        serve: impl Fn(Self::Stream) -> F + Send + 'static,
    ) -> SocketAddr;

    /// Connects.
    fn connect(&self, to: SocketAddr) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

/// A connection.
pub trait Stream: Send + 'static {
    /// Reads until the buffer is full; `false` at the end.
    fn read(&mut self, buffer: &mut [u8]) -> impl Future<Output = io::Result<bool>> + Send;
    /// Writes all of it.
    fn write(&mut self, buffer: &[u8]) -> impl Future<Output = io::Result<()>> + Send;
}

impl Stream for Async<std::net::TcpStream> {
    /// By `read_with`: what implements `AsyncRead` asks the kernel once more for each wait, because it takes the event before for news.
    async fn read(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        let mut full = 0;
        while full < buffer.len() {
            match self.read_with(|mut stream| io::Read::read(&mut stream, &mut buffer[full..])).await? {
                0 => return Ok(false),
                more => full += more,
            }
        }
        Ok(true)
    }

    async fn write(&mut self, buffer: &[u8]) -> io::Result<()> {
        futures_lite::AsyncWriteExt::write_all(self, buffer).await
    }
}

impl Stream for tokio::net::TcpStream {
    async fn read(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        match tokio::io::AsyncReadExt::read_exact(self, buffer).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn write(&mut self, buffer: &[u8]) -> io::Result<()> {
        tokio::io::AsyncWriteExt::write_all(self, buffer).await
    }
}

/// What those have in common that live with async-io.
macro_rules! with_async_io {
    () => {
        with_async_io!(Async<std::net::TcpStream>, |stream| stream);
    };
    ($stream:ty, $make:expr) => {
        type Stream = $stream;

        fn listen<F: Future<Output = ()> + Send + 'static>(
            &self,
            serve: impl Fn(Self::Stream) -> F + Send + 'static,
        ) -> SocketAddr {
            let listener =
                Async::<std::net::TcpListener>::bind(([127, 0, 0, 1], 0)).expect("loopback listens");
            let address = listener.get_ref().local_addr().expect("it has one");
            let peer = self.clone();
            self.detach(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    stream.get_ref().set_nodelay(true).expect("it can");
                    peer.detach(serve(($make)(stream)));
                }
            });
            address
        }

        async fn connect(&self, to: SocketAddr) -> io::Result<Self::Stream> {
            let stream = Async::<std::net::TcpStream>::connect(to).await?;
            stream.get_ref().set_nodelay(true)?;
            Ok(($make)(stream))
        }
    };
}

/// A connection of ours on async-io that lets others run before it waits. Elsewhere it would have to yield whether there are any
/// others or not: that makes the others on async-io 8 % faster with 64 connections, and tokio no faster.
pub struct Polite(Async<std::net::TcpStream>);

impl Stream for Polite {
    async fn read(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        let mut full = 0;
        while full < buffer.len() {
            let mut polite = true;
            let more = loop {
                match io::Read::read(&mut self.0.get_ref(), &mut buffer[full..]) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        let gave = std::mem::take(&mut polite) && give_way().await;
                        if !gave {
                            self.0.readable().await?;
                        }
                    }
                    read => break read?,
                }
            };
            match more {
                0 => return Ok(false),
                more => full += more,
            }
        }
        Ok(true)
    }

    async fn write(&mut self, buffer: &[u8]) -> io::Result<()> {
        self.0.write(buffer).await
    }
}

/// Our pool.
#[derive(Clone)]
pub struct Ours(Handle);

impl Ours {
    /// One for the whole process.
    pub fn new() -> Ours {
        static POOL: OnceLock<Pool> = OnceLock::new();
        Ours(POOL.get_or_init(|| Pool::builder().workers(THREADS).build().expect("it starts")).handle())
    }
}

impl Peer for Ours {
    fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> impl Future<Output = T> + Send + 'static {
        let task = self.0.spawn(future);
        async move { task.await.expect("nobody panics here") }
    }

    fn detach(&self, future: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(future).detach();
    }

    fn sleep(&self, time: Duration) -> impl Future<Output = ()> + Send + 'static {
        self.0.sleep_until(Instant::now() + time)
    }

    with_async_io!(Polite, Polite);
}

/// async-executor's `Executor`, run by threads as smol runs its own.
#[derive(Clone)]
pub struct Shared(Arc<Executor<'static>>);

impl Shared {
    /// One for the whole process.
    pub fn new() -> Shared {
        static EXECUTOR: OnceLock<Arc<Executor<'static>>> = OnceLock::new();
        Shared(Arc::clone(EXECUTOR.get_or_init(|| {
            let executor = Arc::new(Executor::new());
            for _ in 0..THREADS {
                let executor = Arc::clone(&executor);
                std::thread::spawn(move || async_io::block_on(executor.run(pending::<()>())));
            }
            executor
        })))
    }
}

impl Peer for Shared {
    fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> impl Future<Output = T> + Send + 'static {
        self.0.spawn(future)
    }

    fn detach(&self, future: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(future).detach();
    }

    with_async_io!();
}

/// async-executor's `StaticExecutor`, which keeps no list of its tasks.
#[derive(Clone)]
pub struct Static(&'static StaticExecutor);

impl Static {
    /// One for the whole process.
    pub fn new() -> Static {
        static EXECUTOR: StaticExecutor = StaticExecutor::new();
        static THREADS_RUN: OnceLock<()> = OnceLock::new();
        THREADS_RUN.get_or_init(|| {
            for _ in 0..THREADS {
                std::thread::spawn(|| async_io::block_on(EXECUTOR.run(pending::<()>())));
            }
        });
        Static(&EXECUTOR)
    }
}

impl Peer for Static {
    fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> impl Future<Output = T> + Send + 'static {
        self.0.spawn(future)
    }

    fn detach(&self, future: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(future).detach();
    }

    with_async_io!();
}

/// smol's global executor; `SMOL_THREADS` must say how many threads.
#[derive(Clone)]
pub struct Smol;

impl Smol {
    /// The one there is.
    pub fn new() -> Smol {
        let threads = std::env::var("SMOL_THREADS");
        assert_eq!(threads.as_deref(), Ok(THREADS.to_string().as_str()), "set SMOL_THREADS={THREADS}");
        Smol
    }
}

impl Peer for Smol {
    fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> impl Future<Output = T> + Send + 'static {
        smol::spawn(future)
    }

    fn detach(&self, future: impl Future<Output = ()> + Send + 'static) {
        smol::spawn(future).detach();
    }

    with_async_io!();
}

/// tokio's multi-threaded runtime.
#[derive(Clone)]
pub struct Tokio(tokio::runtime::Handle);

impl Tokio {
    /// One for the whole process.
    pub fn new() -> Tokio {
        static TOKIO: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
        let tokio = TOKIO.get_or_init(|| {
            let tokio =
                tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build();
            tokio.expect("it starts")
        });
        Tokio(tokio.handle().clone())
    }
}

impl Peer for Tokio {
    fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> impl Future<Output = T> + Send + 'static {
        let task = self.0.spawn(future);
        async move { task.await.expect("nobody panics here") }
    }

    fn detach(&self, future: impl Future<Output = ()> + Send + 'static) {
        drop(self.0.spawn(future));
    }

    fn sleep(&self, time: Duration) -> impl Future<Output = ()> + Send + 'static {
        let until = Instant::now() + time;
        async move { tokio::time::sleep_until(until.into()).await }
    }

    type Stream = tokio::net::TcpStream;

    fn listen<F: Future<Output = ()> + Send + 'static>(
        &self,
        serve: impl Fn(Self::Stream) -> F + Send + 'static,
    ) -> SocketAddr {
        let _inside = self.0.enter();
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("loopback listens");
        listener.set_nonblocking(true).expect("it can");
        let address = listener.local_addr().expect("it has one");
        let listener = tokio::net::TcpListener::from_std(listener).expect("tokio takes it");
        let peer = self.clone();
        self.detach(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).expect("it can");
                peer.detach(serve(stream));
            }
        });
        address
    }

    async fn connect(&self, to: SocketAddr) -> io::Result<Self::Stream> {
        let stream = tokio::net::TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// bastion-executor, with as many threads as it takes.
#[derive(Clone)]
pub struct Bastion;

impl Bastion {
    /// The one there is.
    pub fn new() -> Bastion {
        Bastion
    }
}

impl Peer for Bastion {
    fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> impl Future<Output = T> + Send + 'static {
        let task = bastion_executor::pool::spawn(future, lightproc::proc_stack::ProcStack::default());
        async move { task.await.expect("nobody panics here") }
    }

    fn detach(&self, future: impl Future<Output = ()> + Send + 'static) {
        // Its tasks run on without their handles.
        drop(bastion_executor::pool::spawn(future, lightproc::proc_stack::ProcStack::default()));
    }

    with_async_io!();
}
