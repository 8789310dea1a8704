//! What a lane's thread waits in: an io_uring of its own, or polling where io_uring is refused.
//!
//! Only compio's driver and its operations are used, on a loop of ours; tasks are the pool's. So a lane's tasks are
//! cancelled, counted and reported as any others, and a wake from another thread never waits for the lane.

use std::{
    cell::Cell,
    future::Future,
    io,
    num::NonZero,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::ThreadId,
    time::Duration,
};

use compio::{
    driver::{DriverType, ProactorBuilder},
    runtime::{Runtime, RuntimeBuilder},
};

use crate::resident::here;

/// The driver panics where the kernel refuses to wait. So many times in a row, it is not for want of memory just now, and the lane
/// goes on without its ring.
const PATIENCE: u32 = 16;

/// How a lane asks the kernel to read and to write.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use backplane_pool::{Driver, Lanes, Pool};
/// let pool = Pool::builder().workers(1).lanes(Lanes::new().polling()).build()?;
/// let driver = pool.lanes()[0].driver();
/// assert_ne!(driver, Driver::IoUring); // whatever the kernel allows
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Driver {
    /// It hands whole operations over, and hears when they are done: io_uring.
    IoUring,
    /// It hears when an operation would not block, and does it itself: epoll, kqueue and others.
    Polling,
    /// As io_uring, on Windows: completion ports.
    Iocp,
}

impl From<DriverType> for Driver {
    fn from(driver: DriverType) -> Driver {
        match driver {
            DriverType::IoUring => Driver::IoUring,
            DriverType::Poll => Driver::Polling,
            DriverType::IOCP => Driver::Iocp,
        }
    }
}

/// What [lanes](crate::Builder::lanes) are to be like.
///
/// ```
/// use backplane_pool::{Driver, Lanes, Pool};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = Pool::builder().workers(1).lanes(Lanes::new().polling()).build()?;
/// # #[cfg(unix)]
/// assert_eq!(pool.lanes()[0].driver(), Driver::Polling);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lanes {
    entries: u32,
    buffers: (u16, usize),
    polling: bool,
}

impl Lanes {
    /// With io_uring wherever the kernel allows it, and with polling elsewhere.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use backplane_pool::{Lanes, Pool};
    /// let pool = Pool::builder().workers(1).lanes(Lanes::new()).build()?;
    /// let lane = &pool.lanes()[0];
    /// assert_eq!(pool.block_on(lane.spawn(|| async { 6 * 7 }))?, 42);
    /// # Ok(())
    /// # }
    /// ```
    pub fn new() -> Lanes {
        Lanes { entries: 1024, buffers: (64, 8192), polling: false }
    }

    /// How many operations a lane collects until it must hand them over; the kernel holds twice as many that are done. 1024
    /// unless set. Where the kernel refuses so many (32,768 is its limit), lanes poll.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use backplane_pool::{Lanes, Pool};
    /// let pool = Pool::builder().workers(1).lanes(Lanes::new().entries(64)).build()?;
    /// assert_eq!(pool.lanes().len(), 1);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn entries(mut self, entries: u32) -> Lanes {
        self.entries = entries;
        self
    }

    /// How many buffers each lane lends to who reads without one of their own, by compio's `read_managed` and `read_multi`, and how
    /// many bytes each has. 64 of 8192 unless set.
    ///
    /// Whoever asks when all are lent is refused, with [`ResourceBusy`](io::ErrorKind::ResourceBusy), and may ask again. So there
    /// should be as many as connections of a lane can have something to read at a time. The number is rounded up to a power
    /// of two, of which 32,768 is the greatest, and a buffer has at least one byte. They are made when the first is asked for.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::io::Write;
    /// use backplane_pool::{Lanes, Pool};
    /// use compio::{io::AsyncReadMulti, net::UnixStream};
    /// use futures_lite::StreamExt;
    /// # #[cfg(unix)] {
    /// let pool = Pool::builder().workers(1).lanes(Lanes::new().buffers(256, 1024)).build()?;
    /// let (mut here, there) = std::os::unix::net::UnixStream::pair()?;
    /// let heard = pool.lanes()[0].spawn(|| async {
    ///     let mut there = UnixStream::from_std(there)?;
    ///     // Asked for once: from then on each piece comes by itself.
    ///     let mut comes = std::pin::pin!(there.read_multi(0));
    ///     let mut bytes = 0;
    ///     while let Some(piece) = comes.next().await {
    ///         bytes += piece?.len();
    ///     }
    ///     std::io::Result::Ok(bytes)
    /// });
    /// here.write_all(b"all ears")?;
    /// drop(here);
    /// assert_eq!(pool.block_on(heard)??, 8);
    /// # }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn buffers(mut self, count: u16, bytes: usize) -> Lanes {
        self.buffers = (count.clamp(1, 1 << 15), bytes.max(1));
        self
    }

    /// With polling, whatever the kernel allows.
    ///
    /// ```
    /// use backplane_pool::Lanes;
    /// assert_ne!(Lanes::new().polling(), Lanes::new());
    /// ```
    #[must_use]
    pub fn polling(mut self) -> Lanes {
        self.polling = true;
        self
    }
}

impl Lanes {
    /// Work that the kernel does for a ring can interrupt the thread wherever it is, or be deferred until that asks. The flag says
    /// that some waits, so that a turn that others have cut short asks for it as well.
    fn runtime(&self, deferred: bool) -> io::Result<Runtime> {
        let mut driver = ProactorBuilder::new();
        let (count, bytes) = self.buffers;
        // Beyond what any kernel gives, only that it is too many matters: polling would make room for them.
        driver.capacity(self.entries.min(1 << 16));
        driver
            .buffer_pool_size(NonZero::new(count).unwrap_or(NonZero::<u16>::MIN))
            .buffer_pool_buffer_len(bytes);
        driver.single_issuer(deferred).defer_taskrun(deferred).taskrun_flag(deferred);
        if self.polling {
            driver.driver_type(polling());
        }
        RuntimeBuilder::new().with_proactor(driver).build()
    }
}

impl Default for Lanes {
    fn default() -> Lanes {
        Lanes::new()
    }
}

/// A ring, on the thread that is to wait in it.
pub(crate) struct Ring {
    runtime: Runtime,
    /// Inside a turn of compio's own tasks, which cannot be begun again before it has ended.
    running: Cell<bool>,
}

impl Ring {
    /// With io_uring if that is wished for and the kernel allows it.
    pub(crate) fn new(lanes: &Lanes) -> io::Result<Ring> {
        Ring::open(lanes.polling, |deferred| lanes.runtime(deferred))
    }

    /// Asks for a ring whose work is deferred first, and for one that interrupts where that comes to polling unasked.
    fn open(polling: bool, make: impl Fn(bool) -> io::Result<Runtime>) -> io::Result<Ring> {
        let mut runtime = make(true)?;
        if !polling && Driver::from(runtime.driver_type()) == Driver::Polling {
            // A kernel before 6.1 cannot defer, but may well have io_uring.
            runtime = make(false)?;
        }
        Ok(Ring { runtime, running: Cell::new(false) })
    }

    pub(crate) fn driver(&self) -> Driver {
        self.runtime.driver_type().into()
    }

    /// Runs `future` to its end, and waits in the ring whenever it has nothing to do.
    pub(crate) fn block_on<F: Future>(&self, future: F) -> F::Output {
        let turn =
            |busy| if busy { self.runtime.poll_with(Some(Duration::ZERO)) } else { self.runtime.poll() };
        self.block_on_with(future, turn)
    }

    /// As [`block_on`](Ring::block_on), where one turn of the ring, which waits unless it is busy, is this.
    fn block_on_with<F: Future>(&self, future: F, turn: impl Fn(bool)) -> F::Output {
        self.runtime.enter(|| {
            let bell =
                Arc::new(Bell { rung: AtomicBool::new(false), owner: here(), driver: self.runtime.waker() });
            let waker = Waker::from(bell.clone());
            let mut cx = Context::from_waker(&waker);
            let mut future = pin!(future);
            let mut refusals = 0;
            loop {
                bell.rung.store(false, Ordering::SeqCst);
                if let Poll::Ready(value) = future.as_mut().poll(&mut cx) {
                    return value;
                }
                // Such as compio's own `spawn` has started; not if it is one of them that blocks.
                let more = !self.running.replace(true) && {
                    let more = self.runtime.run();
                    self.running.set(false);
                    more
                };
                let busy = more || bell.rung.load(Ordering::SeqCst);
                let turned = backplane::catch(|| turn(busy));
                refusals = if turned.is_ok() { 0 } else { refusals + 1 };
                if refusals >= PATIENCE {
                    // What is under way in the ring does not end any more. But tasks wake each other, can be cancelled, and are dropped
                    // with their pool, which a lane that was gone would keep waiting.
                    return async_io::block_on(future);
                }
            }
        })
    }
}

#[cfg(not(windows))]
fn polling() -> DriverType {
    DriverType::Poll
}

#[cfg(windows)]
fn polling() -> DriverType {
    DriverType::IOCP
}

/// Wakes the thread of a ring. From the thread itself it need not: it looks before it waits.
struct Bell {
    rung: AtomicBool,
    owner: ThreadId,
    driver: Waker,
}

impl Wake for Bell {
    fn wake(self: Arc<Bell>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Bell>) {
        // Who rang before has woken the driver, or was the thread itself, which then does not wait.
        if !self.rung.swap(true, Ordering::SeqCst) && here() != self.owner {
            self.driver.wake_by_ref();
        }
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("driver", &self.driver()).finish_non_exhaustive()
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::{io::Write, net::Shutdown, os::unix::net::UnixStream as StdStream};

    use compio::{
        BufResult,
        io::{AsyncReadExt, AsyncWriteExt},
        net::UnixStream,
    };

    use super::*;

    /// As a kernel before 6.1: what asks for deferred work is refused, which compio answers with polling.
    fn old_kernel(lanes: &Lanes, deferred: bool) -> io::Result<Runtime> {
        if deferred { lanes.clone().polling().runtime(false) } else { lanes.runtime(false) }
    }

    #[test]
    fn where_the_kernel_lets_a_lane_wait_no_more_its_tasks_go_on() {
        let ring = Ring::new(&Lanes::new()).unwrap();
        let (send, receive) = async_channel::bounded(1);
        let tells = std::thread::spawn(move || (0..100).try_for_each(|word| send.send_blocking(word)));
        let words = async {
            let mut words = 0;
            while receive.recv().await.is_ok() {
                words += 1;
            }
            words
        };
        assert_eq!(ring.block_on_with(words, |_| panic!("no memory")), 100);
        assert!(tells.join().unwrap().is_ok());
    }

    #[test]
    fn where_the_kernel_cannot_defer_a_lane_has_a_ring_all_the_same_and_waits_in_it() {
        let lanes = Lanes::new();
        let ring = Ring::open(false, |deferred| old_kernel(&lanes, deferred)).unwrap();
        // Whatever this kernel gives without being asked to defer: io_uring, unless it refuses all of it.
        let plain = Driver::from(lanes.runtime(false).unwrap().driver_type());
        assert_eq!(ring.driver(), plain);
        let (here, there) = StdStream::pair().unwrap();
        let answers = std::thread::spawn(move || {
            let (mut from, mut to) = (&there, &there);
            let copied = io::copy(&mut from, &mut to);
            to.flush().and_then(|()| there.shutdown(Shutdown::Write)).and(copied)
        });
        let back = ring.block_on(async {
            let mut here = UnixStream::from_std(here)?;
            for word in ["there", "and", "back"] {
                let BufResult(sent, bytes) = here.write_all(word.as_bytes()).await;
                sent?;
                let BufResult(read, back) = here.read_exact(Vec::with_capacity(bytes.len())).await;
                read?;
                assert_eq!(back, bytes);
            }
            here.close().await
        });
        back.unwrap();
        assert_eq!(answers.join().unwrap().unwrap(), 12);
    }
}
