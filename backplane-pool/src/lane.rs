//! A lane: a worker that a future, once there, never leaves.

use std::{fmt, future::Future, panic::Location};

use backplane::{Crash, Device};

use crate::{
    pool::{Handle, Pool},
    ring::Driver,
    task::Task,
};

/// A worker that waits in an io_uring of its own, and a way to put futures there. Feature `uring`.
///
/// What is put on a lane stays on its thread: a connection's operations, its buffers and its future meet nobody else's
/// lock, and no completion has to travel. The sockets and files are [compio's](compio), which own their buffers while the
/// kernel has them, read and write many at once (`read_vectored`, `write_vectored`), and work on lanes only.
///
/// Whatever the reactor of async-io does, timers of a [`Runtime`](backplane::Runtime) with it, works on lanes as well; a
/// thread of async-io's then turns it. compio's own timers, `compio::time`, need none. Tasks are put on lanes
/// by the pool: those of `compio::runtime::spawn` run there too, but are in no report, and a panic in the destructor of one
/// that is dropped with its lane ends the process.
///
/// ```
/// use backplane_pool::{Lanes, Pool};
/// use compio::{io::{AsyncReadExt, AsyncWriteExt}, net::UnixStream};
/// # use compio::BufResult;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[cfg(unix)] {
/// let pool = Pool::builder().workers(1).lanes(Lanes::new()).build()?;
/// let said = pool.lanes()[0].spawn(|| async {
///     let (here, there) = std::os::unix::net::UnixStream::pair()?;
///     let (mut here, mut there) = (UnixStream::from_std(here)?, UnixStream::from_std(there)?);
///     let BufResult(sent, _) = here.write_vectored_all(["two parts, ", "one write"].map(Vec::from)).await;
///     sent?;
///     let BufResult(read, bytes) = there.read_exact(Vec::with_capacity(20)).await;
///     read.map(|()| bytes)
/// });
/// assert_eq!(pool.block_on(said)??, b"two parts, one write");
/// # }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Lane {
    pool: Handle,
    node: usize,
    /// Among the workers of the node.
    index: usize,
    driver: Driver,
}

impl Pool {
    /// The pool's lanes, worker for worker. None unless it was [built with](crate::Builder::lanes) them. Feature `uring`.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use backplane_pool::{Lanes, Pool};
    /// let pool = Pool::builder().workers(2).lanes(Lanes::new()).build()?;
    /// let workers: Vec<_> = pool.lanes().iter().map(|lane| lane.worker()).collect();
    /// assert_eq!(workers, [0, 1]);
    /// assert!(Pool::builder().workers(2).build()?.lanes().is_empty());
    /// # Ok(())
    /// # }
    /// ```
    pub fn lanes(&self) -> Vec<Lane> {
        self.handle().lanes()
    }
}

impl Handle {
    /// The pool's lanes, worker for worker: all of them, or those of this handle's node. Feature `uring`.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use backplane_pool::{Lanes, Pool, Topology};
    /// let two_nodes = Topology::from_nodes([(0, 0..1), (1, 1..2)]);
    /// let pool = Pool::builder().topology(two_nodes).lanes(Lanes::new()).build()?;
    /// let near = pool.on_node(1)?;
    /// assert_eq!((pool.handle().lanes().len(), near.lanes().len()), (2, 1));
    /// # Ok(())
    /// # }
    /// ```
    pub fn lanes(&self) -> Vec<Lane> {
        let drivers = self.drivers();
        let lane = |(node, index, driver)| Lane { pool: self.clone(), node, index, driver };
        drivers.into_iter().map(lane).collect()
    }
}

impl Lane {
    /// The number of its worker, over all nodes.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use backplane_pool::{Lanes, Pool, Topology};
    /// # let two_nodes = Topology::from_nodes([(0, 0..1), (1, 1..2)]);
    /// let pool = Pool::builder().topology(two_nodes).workers_per_node(2).lanes(Lanes::new()).build()?;
    /// let workers: Vec<_> = pool.on_node(1)?.lanes().iter().map(|lane| lane.worker()).collect();
    /// assert_eq!(workers, [2, 3]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn worker(&self) -> usize {
        self.pool.number_of(self.node, self.index)
    }

    /// The number of its node.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use backplane_pool::{Lanes, Pool, Topology};
    /// let two_nodes = Topology::from_nodes([(0, 0..1), (3, 1..2)]);
    /// let pool = Pool::builder().topology(two_nodes).lanes(Lanes::new()).build()?;
    /// let nodes: Vec<_> = pool.lanes().iter().map(|lane| lane.node()).collect();
    /// assert_eq!(nodes, [0, 3]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn node(&self) -> usize {
        self.pool.node_at(self.node)
    }

    /// How it asks the kernel: with io_uring, or otherwise where io_uring is refused.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use backplane_pool::{Driver, Lanes, Pool};
    /// let pool = Pool::builder().workers(1).lanes(Lanes::new()).build()?;
    /// match pool.lanes()[0].driver() {
    ///     Driver::IoUring => println!("whole operations are handed over"),
    ///     refused => println!("no io_uring here: {refused:?}"),
    /// }
    /// let polling = Pool::builder().workers(1).lanes(Lanes::new().polling()).build()?;
    /// assert_ne!(polling.lanes()[0].driver(), Driver::IoUring);
    /// # Ok(())
    /// # }
    /// ```
    pub fn driver(&self) -> Driver {
        self.driver
    }

    /// Makes a future on the lane, and runs it there. It need not be `Send`; only the closure, and what the future returns, are
    /// sent. As all tasks it is cancelled with its handle, and its panic is a value.
    ///
    /// From outside, the lane is woken for it, which costs some 20 µs. A listener that accepts on the lane saves that.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::{cell::Cell, rc::Rc};
    /// use backplane_pool::{Lanes, Pool};
    /// let pool = Pool::builder().workers(2).lanes(Lanes::new()).build()?;
    /// let task = pool.lanes()[1].spawn(|| async {
    ///     let count = Rc::new(Cell::new(1));
    ///     futures_lite::future::yield_now().await;
    ///     count.set(count.get() + 1); // on the same thread
    ///     (count.get(), std::thread::current().name().map(String::from))
    /// });
    /// assert_eq!(pool.block_on(task)?, (2, Some("pool-1".into())));
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn spawn<M, F>(&self, make: M) -> Task<F::Output>
    where
        M: FnOnce() -> F + Send + 'static,
        F: Future + 'static,
        F::Output: Send + 'static,
    {
        self.pool.spawn_at(self.node, self.index, Location::caller(), make)
    }

    /// Makes a future on the lane, and [manages](Device::manage) it there, under this device: whoever is linked to the device
    /// hears of the end, whichever it is. A task that is cancelled, or whose lane ends, is heard of as dropped.
    ///
    /// The closure is the future's first part: its panic is the future's.
    ///
    /// ```
    /// # use std::convert::Infallible;
    /// use backplane::{Device, LinkMode};
    /// use backplane_pool::{Lanes, Pool};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = Pool::builder().workers(1).lanes(Lanes::new()).build()?;
    /// let (mut watcher, connection) = (Device::new(), Device::new());
    /// watcher.link(&connection, LinkMode::Monitor);
    /// let task = pool.lanes()[0].manage(connection, || async { panic!("reset") as Result<(), Infallible> });
    /// assert!(pool.block_on(task)?.is_err());
    /// assert!(watcher.try_receive().is_some());
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn manage<M, F, T, E>(&self, device: Device, make: M) -> Task<Result<T, Crash<E>>>
    where
        M: FnOnce() -> F + Send + 'static,
        F: Future<Output = Result<T, E>> + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        self.pool
            .spawn_at(self.node, self.index, Location::caller(), || device.manage(async { make().await }))
    }
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane")
            .field("worker", &self.worker())
            .field("node", &self.node())
            .field("driver", &self.driver)
            .finish()
    }
}
