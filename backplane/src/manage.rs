//! `watch` reports, `manage` decides.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;

use crate::{
    device::{Device, Farewell, TURN},
    exit::{Crash, Exit, Fault, Message},
    link::{OnFault, OnShutdown},
    table::Bits,
    unwind::{Panic, catch},
};

/// What [`Device::watch`] saw first.
///
/// ```
/// use std::pin::pin;
/// use backplane::{Device, Watched};
/// # use futures_lite::future::block_on;
/// let mut device = Device::new();
/// let mut broken = pin!(async { if true { panic!("no disk") } });
/// let Watched::Panic(panic) = block_on(device.watch(broken.as_mut())) else { panic!() };
/// assert_eq!(panic.message(), Some("no disk"));
/// assert!(device.line().is_alive()); // the device stays open
/// ```
#[derive(Debug)]
pub enum Watched<T> {
    /// The device was told something. The future goes on when it is watched again.
    Message(Message),
    /// The future is done, with this.
    Value(T),
    /// The future panicked. It must not be polled again.
    Panic(Panic),
}

impl Device {
    /// Polls a future until it is done, panics, or there is news, whichever is first.
    ///
    /// For whoever decides for himself: all news is returned, whatever the policy of its link, and the device stays
    /// open. Fair in both directions: after news the future is polled before there is more, and before the future
    /// goes on there is news.
    ///
    /// Cancellation-safe: news is taken only when it is returned, and the future stays with the caller.
    ///
    /// ```
    /// # use std::{pin::pin, task::{Context, Poll, Waker}};
    /// use backplane::{Device, LinkMode, Message, Watched};
    /// let (mut a, b) = (Device::new(), Device::new());
    /// a.link(&b, LinkMode::Monitor);
    /// drop(b);
    /// let mut work = pin!(async { 42 });
    /// # let mut cx = Context::from_waker(Waker::noop());
    /// # macro_rules! awaited { ($future:expr) => { match pin!($future).poll(&mut cx) { Poll::Ready(x) => x, _ => panic!() } } }
    /// # let first = awaited!(a.watch(work.as_mut()));
    /// # let _ = "
    /// let first = a.watch(work.as_mut()).await;
    /// # ";
    /// assert!(matches!(first, Watched::Message(Message::Disconnect(_))));
    /// # let second = awaited!(a.watch(work.as_mut()));
    /// # let _ = "
    /// let second = a.watch(work.as_mut()).await;
    /// # ";
    /// assert!(matches!(second, Watched::Value(42)));
    /// ```
    pub fn watch<'a, F: Future>(&'a mut self, future: Pin<&'a mut F>) -> Watch<'a, F> {
        Watch { device: self, future }
    }

    /// Runs a future to its end, and ends with it: whatever happens to the future is a value here, and is heard by all
    /// who watch this device, exactly once.
    ///
    /// | the future | returns here | is heard as |
    /// |---|---|---|
    /// | returns `Ok(value)` | `Ok(value)` | [`Exit::Normal`] |
    /// | returns `Err(error)` | [`Crash::Error`] | a fault of kind [`Error`](crate::FaultKind::Error) |
    /// | panics | [`Crash::Panic`] | a fault of kind [`Panic`](crate::FaultKind::Panic), with its message |
    /// | is linked with a device that faults | [`Crash::Cascade`] | a fault of kind [`Cascade`](crate::FaultKind::Cascade) |
    /// | is asked to stop | [`Crash::Shutdown`] | [`Exit::Shutdown`] |
    /// | is dropped half-way, with this | | a fault of kind [`Dropped`](crate::FaultKind::Dropped) |
    ///
    /// The future and all it holds is dropped *before* anyone hears, so that a successor can have what it had. A panic in
    /// its destructor counts as a panic, unless there was a fault before. A clean end of a linked device is no fault.
    /// [`on_fault`](Device::on_fault) and [`on_shutdown`](Device::on_shutdown), and the policy of each
    /// [`Link`](crate::Link), say otherwise where that is wanted.
    ///
    /// The future need not be `Unpin`, `'static` or `Send`; what is returned is `Send` if the future and its results
    /// are. With `panic = "abort"` a panic ends the process, and nobody hears of anything: all else holds.
    ///
    /// ```
    /// # use std::{pin::pin, task::{Context, Poll, Waker}};
    /// use backplane::{Crash, Device, LinkMode, Message};
    ///
    /// #[derive(Debug)]
    /// struct Counter(u32);
    ///
    /// impl Counter {
    ///     async fn share(&self, among: u32) -> Result<u32, std::num::ParseIntError> {
    ///         Ok(self.0 / among) // among zero this panics
    ///     }
    /// }
    ///
    /// let (mut watcher, device) = (Device::new(), Device::new());
    /// watcher.link(&device, LinkMode::Monitor);
    /// let counter = Counter(7);
    /// let managed = device.manage(counter.share(0));
    /// # let mut cx = Context::from_waker(Waker::noop());
    /// # let Poll::Ready(result) = pin!(managed).poll(&mut cx) else { panic!() };
    /// # let _ = "
    /// let result = managed.await;
    /// # ";
    /// assert!(matches!(result, Err(Crash::Panic(_))));
    /// let Some(Message::Disconnect(news)) = watcher.try_receive() else { panic!("nobody told us") };
    /// assert_eq!(news.exit.to_string(), "panicked: attempt to divide by zero");
    /// ```
    pub fn manage<F, T, E>(self, future: F) -> Manage<F, T, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        Manage { run: Run::new(self, future, false), leaving: None }
    }

    /// As [`manage`](Device::manage), but gives the device back, open and with all its links, where the future returns
    /// `Ok`: a part of the work is done.
    ///
    /// ```
    /// # use std::{convert::Infallible, pin::pin, task::{Context, Poll, Waker}};
    /// use backplane::Device;
    /// let device = Device::new();
    /// let managed = device.part_manage(async { Ok::<_, Infallible>("half") });
    /// # let mut cx = Context::from_waker(Waker::noop());
    /// # let Poll::Ready(result) = pin!(managed).poll(&mut cx) else { panic!() };
    /// # let _ = "
    /// let result = managed.await;
    /// # ";
    /// let (device, half) = result.unwrap();
    /// assert!(device.line().is_alive());
    /// ```
    pub fn part_manage<F, T, E>(self, future: F) -> PartManage<F, T, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        PartManage { run: Run::new(self, future, true), leaving: None }
    }
}

/// A future that is watched for once; made by [`Device::watch`].
///
/// ```
/// use std::pin::pin;
/// use backplane::{Device, Watched};
/// let mut device = Device::new();
/// let mut work = pin!(async { 42 });
/// drop(device.watch(work.as_mut())); // given up: the future is with the caller still
/// let watched = futures_lite::future::block_on(device.watch(work.as_mut()));
/// assert!(matches!(watched, Watched::Value(42)));
/// ```
#[must_use = "futures do nothing unless polled"]
pub struct Watch<'a, F> {
    device: &'a mut Device,
    future: Pin<&'a mut F>,
}

impl<F: Future> Future for Watch<'_, F> {
    type Output = Watched<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Watched<F::Output>> {
        let Watch { device, future } = &mut *self;
        let mut poll_future = |cx: &mut Context<'_>| match catch(|| future.as_mut().poll(cx)) {
            Ok(poll) => poll.map(Watched::Value),
            Err(panic) => Poll::Ready(Watched::Panic(panic)),
        };
        let had_its_turn = std::mem::take(&mut device.futures_turn);
        if had_its_turn && let Poll::Ready(end) = poll_future(cx) {
            return Poll::Ready(end);
        }
        if let Poll::Ready(message) = device.poll_receive(cx) {
            device.futures_turn = true;
            return Poll::Ready(Watched::Message(message));
        }
        if had_its_turn { Poll::Pending } else { poll_future(cx) }
    }
}

impl<F> fmt::Debug for Watch<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("device", &self.device).finish_non_exhaustive()
    }
}

pin_project! {
    /// A device and a future, up to the end of the future.
    struct Run<F, T, E> where F: Future<Output = Result<T, E>> {
        // Open until the future has ended, or given back then.
        device: Option<Device>,
        // Dropped in its place before the device closes.
        #[pin]
        future: Option<F>,
        describe: Option<fn(&E) -> String>,
        // Whether the device may come back.
        keeps: bool,
    }

    impl<F, T, E> PinnedDrop for Run<F, T, E> where F: Future<Output = Result<T, E>> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if this.future.is_none() {
                return;
            }
            let dropped = catch(|| this.future.set(None));
            match dropped {
                Ok(()) => *this.device = None,
                Err(panic) => {
                    let farewell =
                        this.device.as_mut().map(|device| device.close(&Exit::Fault(Fault::panic(&panic)), false));
                    drop(farewell);
                    // Whoever drops us sees the panic that he would see without us, unless that would be one too many.
                    if !std::thread::panicking() {
                        panic.resume();
                    }
                }
            }
        }
    }
}

/// How a run ended: what its owner gets, and what its watchers hear.
type End<T, E> = (Result<T, Crash<E>>, Exit);

impl<F, T, E> Run<F, T, E>
where
    F: Future<Output = Result<T, E>>,
{
    fn new(device: Device, future: F, keeps: bool) -> Run<F, T, E> {
        Run { device: Some(device), future: Some(future), describe: None, keeps }
    }

    /// First the news, then the future; at its end the future is dropped, and the device still open.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End<T, E>> {
        let mut this = self.project();
        let (Some(device), Some(future)) = (this.device.as_mut(), this.future.as_mut().as_pin_mut()) else {
            panic!("polled after it had ended");
        };
        // Who waits already is woken by whatever comes from here on.
        let quiet = device.is_quiet();
        let waits = quiet && device.holds(cx.waker());
        let mut turn = Turn { budget: TURN, keeps: *this.keeps };
        let crash = if quiet { None } else { turn.hear(device) };
        let mut result = match crash {
            Some(crash) => Err(crash),
            None => match catch(|| future.poll(cx)) {
                Ok(Poll::Ready(result)) => result.map_err(Crash::Error),
                Ok(Poll::Pending) if waits => return Poll::Pending,
                // Only who waits needs to be woken for news.
                Ok(Poll::Pending) => Err(ready!(turn.poll_hear(device, cx))),
                Err(panic) => Err(Crash::Panic(panic)),
            },
        };
        let mut exit = match &result {
            Ok(_) => Exit::Normal,
            Err(Crash::Error(error)) => {
                let words = this.describe.and_then(|describe| catch(|| describe(error)).ok());
                Exit::Fault(words.map_or_else(Fault::silent_error, Fault::error))
            }
            Err(crash) => crash.exit(),
        };
        if let Err(panic) = catch(|| this.future.set(None))
            && !exit.is_fault()
        {
            exit = Exit::Fault(Fault::panic(&panic));
            // The value is the user's as well: its destructor may panic, too.
            let value = std::mem::replace(&mut result, Err(Crash::Panic(panic)));
            let _ = catch(|| drop(value));
        }
        Poll::Ready((result, exit))
    }

    /// Ends the device, in its place, with `result` when everybody has been told.
    fn leave<R>(
        self: Pin<&mut Self>,
        exit: &Exit,
        result: R,
        leaving: &mut Option<Box<Leaving<R>>>,
        cx: &mut Context<'_>,
    ) -> Poll<R> {
        let Some(farewell) = self.project().device.as_mut().and_then(|device| device.close(exit, false))
        else {
            return Poll::Ready(result);
        };
        *leaving = Some(Box::new(Leaving { farewell: *farewell, result: Some(result) }));
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// What a managed future hears in one poll.
struct Turn {
    /// So much of it, before others get their turn.
    budget: u32,
    /// Whether what is handed over to nobody is kept.
    keeps: bool,
}

impl Turn {
    /// Hears what is here; what puts an end to the future is returned.
    fn hear<E>(&mut self, device: &mut Device) -> Option<Crash<E>> {
        while let Some((message, bits)) = device.next_here(&mut self.budget) {
            if let Some(crash) = self.decide(device, message, bits) {
                return Some(crash);
            }
        }
        None
    }

    /// Hears what has come since, and waits for more.
    fn poll_hear<E>(&mut self, device: &mut Device, cx: &mut Context<'_>) -> Poll<Crash<E>> {
        loop {
            let (message, bits) = ready!(device.poll_next(cx, &mut self.budget));
            if let Some(crash) = self.decide(device, message, bits) {
                return Poll::Ready(crash);
            }
        }
    }

    fn decide<E>(&self, device: &mut Device, message: Message, bits: Bits) -> Option<Crash<E>> {
        match message {
            Message::Shutdown(by) => match device.shutdown_policy() {
                OnShutdown::End => return Some(Crash::Shutdown(by)),
                OnShutdown::HandOver => device.hand_over(message, bits, self.keeps),
            },
            Message::Disconnect(news) => match device.policy(bits) {
                OnFault::Cascade if news.exit.is_fault() => return Some(Crash::Cascade(news)),
                OnFault::Cascade | OnFault::Ignore => {}
                OnFault::HandOver => device.hand_over(Message::Disconnect(news), bits, self.keeps),
            },
        }
        None
    }
}

/// A result that waits until everybody has been told.
struct Leaving<R> {
    farewell: Farewell,
    result: Option<R>,
}

impl<R> Leaving<R> {
    fn poll(leaving: &mut Option<Box<Leaving<R>>>, cx: &mut Context<'_>) -> Poll<Option<R>> {
        let Some(left) = leaving else { return Poll::Ready(None) };
        ready!(left.farewell.poll(cx));
        let result = left.result.take();
        *leaving = None;
        Poll::Ready(result)
    }
}

pin_project! {
    /// A managed future; made by [`Device::manage`].
    ///
    /// Dropped half-way it drops the future first, and is then heard as [`Dropped`](crate::FaultKind::Dropped), or as
    /// [`Killed`](crate::FaultKind::Killed) if its device was [condemned](crate::Line::condemn). Dropped when the future has
    /// ended and its watchers are being told, it tells the rest at once, of the end as it was; only the result is lost.
    ///
    /// ```
    /// use backplane::{Device, FaultKind, LinkMode, Message};
    /// let (mut watcher, device) = (Device::new(), Device::new());
    /// watcher.link(&device, LinkMode::Monitor);
    /// drop(device.manage(std::future::pending::<Result<(), ()>>()));
    /// let Some(Message::Disconnect(news)) = watcher.try_receive() else { panic!() };
    /// assert_eq!(news.exit.fault().map(|fault| fault.kind()), Some(FaultKind::Dropped));
    /// ```
    #[must_use = "futures do nothing unless polled"]
    pub struct Manage<F, T, E> where F: Future<Output = Result<T, E>> {
        #[pin]
        run: Run<F, T, E>,
        leaving: Option<Box<Leaving<Result<T, Crash<E>>>>>,
    }
}

pin_project! {
    /// A managed future that gives its device back; made by [`Device::part_manage`]. Dropped half-way it is as
    /// [`Manage`].
    ///
    /// ```
    /// use backplane::{Device, FaultKind, LinkMode, Message};
    /// let (mut watcher, device) = (Device::new(), Device::new());
    /// watcher.link(&device, LinkMode::Monitor);
    /// device.line().condemn();
    /// drop(device.part_manage(std::future::pending::<Result<(), ()>>()));
    /// let Some(Message::Disconnect(news)) = watcher.try_receive() else { panic!() };
    /// assert_eq!(news.exit.fault().map(|fault| fault.kind()), Some(FaultKind::Killed));
    /// ```
    #[must_use = "futures do nothing unless polled"]
    pub struct PartManage<F, T, E> where F: Future<Output = Result<T, E>> {
        #[pin]
        run: Run<F, T, E>,
        leaving: Option<Box<Leaving<Crash<E>>>>,
    }
}

impl<F, T, E> Future for Manage<F, T, E>
where
    F: Future<Output = Result<T, E>>,
{
    type Output = Result<T, Crash<E>>;

    /// # Panics
    ///
    /// If it has returned before.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Some(result) = ready!(Leaving::poll(this.leaving, cx)) {
            return Poll::Ready(result);
        }
        let (result, exit) = ready!(this.run.as_mut().poll(cx));
        this.run.leave(&exit, result, this.leaving, cx)
    }
}

impl<F, T, E> Future for PartManage<F, T, E>
where
    F: Future<Output = Result<T, E>>,
{
    type Output = Result<(Device, T), Crash<E>>;

    /// # Panics
    ///
    /// If it has returned before.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Some(crash) = ready!(Leaving::poll(this.leaving, cx)) {
            return Poll::Ready(Err(crash));
        }
        let (result, exit) = ready!(this.run.as_mut().poll(cx));
        match result {
            Ok(value) => {
                let Some(mut device) = this.run.project().device.take() else {
                    panic!("polled after it had ended")
                };
                device.recall();
                Poll::Ready(Ok((device, value)))
            }
            Err(crash) => this.run.leave(&exit, crash, this.leaving, cx).map(Err),
        }
    }
}

impl<F, T, E> Manage<F, T, E>
where
    F: Future<Output = Result<T, E>>,
    E: fmt::Display,
{
    /// Lets an error's words travel: watchers find them in [`Fault::message`].
    ///
    /// Not done unasked, for an error need not have any: `manage` asks nothing of its type.
    ///
    /// ```
    /// # use std::{pin::pin, task::{Context, Poll, Waker}};
    /// use backplane::{Device, LinkMode, Message};
    /// let (mut watcher, device) = (Device::new(), Device::new());
    /// watcher.link(&device, LinkMode::Monitor);
    /// let mut managed = pin!(device.manage(async { Err::<(), _>("no such counter") }).describe());
    /// # let mut cx = Context::from_waker(Waker::noop());
    /// # assert!(managed.as_mut().poll(&mut cx).is_ready());
    /// # let _ = "
    /// managed.await;
    /// # ";
    /// let Some(Message::Disconnect(news)) = watcher.try_receive() else { panic!() };
    /// assert_eq!(news.exit.fault().and_then(|fault| fault.message()), Some("no such counter"));
    /// ```
    pub fn describe(mut self) -> Self {
        self.run.describe = Some(E::to_string);
        self
    }
}

impl<F, T, E> PartManage<F, T, E>
where
    F: Future<Output = Result<T, E>>,
    E: fmt::Display,
{
    /// Lets an error's words travel; see [`Manage::describe`].
    ///
    /// ```
    /// use backplane::{Device, LinkMode, Message};
    /// let (mut watcher, device) = (Device::new(), Device::new());
    /// watcher.link(&device, LinkMode::Monitor);
    /// let managed = device.part_manage(async { Err::<(), _>("no such counter") }).describe();
    /// assert!(futures_lite::future::block_on(managed).is_err());
    /// let Some(Message::Disconnect(news)) = watcher.try_receive() else { panic!() };
    /// assert_eq!(news.exit.to_string(), "failed: no such counter");
    /// ```
    pub fn describe(mut self) -> Self {
        self.run.describe = Some(E::to_string);
        self
    }
}

impl<F, T, E> fmt::Debug for Manage<F, T, E>
where
    F: Future<Output = Result<T, E>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manage").field("device", &self.run.device).finish_non_exhaustive()
    }
}

impl<F, T, E> fmt::Debug for PartManage<F, T, E>
where
    F: Future<Output = Result<T, E>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartManage").field("device", &self.run.device).finish_non_exhaustive()
    }
}
