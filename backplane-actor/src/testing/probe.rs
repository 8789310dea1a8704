//! An actor that does nothing but expect.

use std::{fmt, future::poll_fn, panic::Location, task::Poll, time::Duration};

use backplane::{Device, Disconnect, Line, Runtime};

use crate::{
    address::Address,
    mailbox::{Mailbox, Reader, Shared},
    options::Options,
    system::System,
};

/// An actor in the hands of a test: its address goes to whoever is tested, and what arrives is expected, on the runtime's
/// clock.
///
/// ```
/// # use backplane::Runtime;
/// # use backplane_actor::{Mailbox, System, testing::{Probe, Seeded}};
/// # use std::time::Duration;
/// # const SECOND: Duration = Duration::from_secs(1);
/// # let runtime = Seeded::new(1);
/// # let system = System::new(runtime.clone());
/// let mut probe = Probe::<u32>::new(&system);
/// let address = probe.address().clone();
/// let twice = system.spawn(move |mut numbers: Mailbox<u32>| async move {
///     while let Some(n) = numbers.receive().await {
///         address.cast(2 * n).await.unwrap();
///     }
/// });
/// runtime.run(async {
///     twice.cast(21).await.unwrap();
///     assert_eq!(probe.expect(SECOND).await, 42);
/// });
/// ```
pub struct Probe<M: Send + 'static> {
    mailbox: Mailbox<M>,
    address: Address<M>,
    device: Device,
}

impl<M: Send + 'static> fmt::Debug for Probe<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probe").field("mailbox", &self.mailbox).finish_non_exhaustive()
    }
}

impl<M: Send + 'static> Probe<M> {
    /// A probe in this system.
    ///
    /// ```
    /// # use backplane::Runtime;
    /// # use backplane_actor::{System, testing::Seeded};
    /// # let runtime = Seeded::new(1);
    /// # let system = System::new(runtime.clone());
    /// use backplane_actor::testing::Probe;
    ///
    /// let mut probe = Probe::<u32>::new(&system);
    /// probe.address().try_cast(7).unwrap();
    /// assert_eq!(runtime.run(probe.receive_within(std::time::Duration::ZERO)), Some(7));
    /// ```
    pub fn new<R: Runtime>(system: &System<R>) -> Probe<M> {
        Probe::with(system, Options::new())
    }

    /// A probe with options, as a mailbox for one message.
    ///
    /// ```
    /// # use backplane::Runtime;
    /// # use backplane_actor::{System, testing::Seeded};
    /// # let runtime = Seeded::new(1);
    /// # let system = System::new(runtime.clone());
    /// # use backplane_actor::{Options, TryCastError, testing::Probe};
    /// // To see what a sender does when there is no room.
    /// let probe = Probe::<u32>::with(&system, Options::new().capacity(1));
    /// probe.address().try_cast(1).unwrap();
    /// assert_eq!(probe.address().try_cast(2), Err(TryCastError::Full(2)));
    /// # drop(runtime);
    /// ```
    pub fn with<R: Runtime>(system: &System<R>, options: Options<M>) -> Probe<M> {
        let shared = Shared::new(system.world(), options, false);
        let device = Device::new();
        let reader = shared.begin(device.line());
        let address = Address::counted(shared);
        Probe { mailbox: Mailbox::new(Reader::new(address.shared().clone(), reader)), address, device }
    }

    /// Where it is reached.
    ///
    /// ```
    /// # use backplane::Runtime;
    /// # use backplane_actor::{Mailbox, System, testing::{Probe, Seeded}};
    /// # use std::time::Duration;
    /// # const SECOND: Duration = Duration::from_secs(1);
    /// # let runtime = Seeded::new(1);
    /// # let system = System::new(runtime.clone());
    /// let mut probe = Probe::<u32>::new(&system);
    /// probe.address().try_cast(7).unwrap();
    /// assert_eq!(runtime.run(probe.expect(SECOND)), 7);
    /// ```
    pub fn address(&self) -> &Address<M> {
        &self.address
    }

    /// Its line.
    ///
    /// ```
    /// # use backplane::Runtime;
    /// # use backplane_actor::{Mailbox, System, testing::{Probe, Seeded}};
    /// # use std::time::Duration;
    /// # const SECOND: Duration = Duration::from_secs(1);
    /// # let runtime = Seeded::new(1);
    /// # let system = System::new(runtime.clone());
    /// let mut probe = Probe::<u32>::new(&system);
    /// assert_eq!(probe.address().line(), Some(probe.line()));
    /// assert!(probe.line().is_alive());
    /// drop(probe);
    /// ```
    pub fn line(&self) -> Line {
        self.device.line()
    }

    /// The next message, if it comes within this time.
    ///
    /// ```
    /// # use backplane::Runtime;
    /// # use backplane_actor::{Mailbox, System, testing::{Probe, Seeded}};
    /// # use std::time::Duration;
    /// # const SECOND: Duration = Duration::from_secs(1);
    /// # let runtime = Seeded::new(1);
    /// # let system = System::new(runtime.clone());
    /// let mut probe = Probe::<u32>::new(&system);
    /// let before = runtime.now();
    /// assert_eq!(runtime.run(probe.receive_within(60 * SECOND)), None);
    /// assert_eq!(runtime.since(before), 60 * SECOND); // of the virtual clock
    /// ```
    pub async fn receive_within(&mut self, time: Duration) -> Option<M> {
        let mut overdue = self.mailbox.shared().overdue(time);
        let mailbox = &mut self.mailbox;
        poll_fn(|cx| match mailbox.poll_receive(cx) {
            Poll::Ready(message) => Poll::Ready(message),
            Poll::Pending => overdue.poll(cx).map(|()| None),
        })
        .await
    }

    /// The next message.
    ///
    /// # Panics
    ///
    /// If none comes within this time, in the name of whoever called this.
    ///
    /// ```
    /// # use backplane::Runtime;
    /// # use backplane_actor::{Mailbox, System, testing::{Probe, Seeded}};
    /// # use std::time::Duration;
    /// # const SECOND: Duration = Duration::from_secs(1);
    /// # let runtime = Seeded::new(1);
    /// # let system = System::new(runtime.clone());
    /// let mut probe = Probe::<u32>::new(&system);
    /// let address = probe.address().clone();
    /// let later = async {
    ///     runtime.sleep_until(runtime.now() + 9 * SECOND).await;
    ///     address.try_cast(7).unwrap();
    /// };
    /// let (n, ()) = runtime.run(smol::future::zip(probe.expect(10 * SECOND), later));
    /// assert_eq!(n, 7);
    /// ```
    #[track_caller]
    pub fn expect(&mut self, within: Duration) -> impl Future<Output = M> {
        let caller = Location::caller();
        async move {
            match self.receive_within(within).await {
                Some(message) => message,
                None => panic!("nothing came within {within:?}, as was expected at {caller}"),
            }
        }
    }

    /// The next message that `wanted` says yes to; those before it are dropped.
    ///
    /// # Panics
    ///
    /// If none comes within this time, counted anew after each message.
    ///
    /// ```
    /// # use backplane::Runtime;
    /// # use backplane_actor::{Mailbox, System, testing::{Probe, Seeded}};
    /// # use std::time::Duration;
    /// # const SECOND: Duration = Duration::from_secs(1);
    /// # let runtime = Seeded::new(1);
    /// # let system = System::new(runtime.clone());
    /// let mut probe = Probe::<u32>::new(&system);
    /// for n in [1, 2, 30, 4] {
    ///     probe.address().try_cast(n).unwrap();
    /// }
    /// assert_eq!(runtime.run(probe.expect_where(SECOND, |n| *n > 9)), 30);
    /// assert_eq!(runtime.run(probe.expect(SECOND)), 4);
    /// ```
    #[track_caller]
    pub fn expect_where(
        &mut self,
        within: Duration,
        mut wanted: impl FnMut(&M) -> bool,
    ) -> impl Future<Output = M> {
        let caller = Location::caller();
        async move {
            loop {
                match self.receive_within(within).await {
                    Some(message) if wanted(&message) => return message,
                    Some(_) => {}
                    None => panic!("nothing of the kind came within {within:?}, as was expected at {caller}"),
                }
            }
        }
    }

    /// Nothing.
    ///
    /// # Panics
    ///
    /// If something comes within this time.
    ///
    /// ```
    /// # use backplane::Runtime;
    /// # use backplane_actor::{Mailbox, System, testing::{Probe, Seeded}};
    /// # use std::time::Duration;
    /// # const SECOND: Duration = Duration::from_secs(1);
    /// # let runtime = Seeded::new(1);
    /// # let system = System::new(runtime.clone());
    /// let mut probe = Probe::<u32>::new(&system);
    /// runtime.run(probe.expect_nothing(60 * SECOND)); // which takes no time
    /// probe.address().try_cast(7).unwrap();
    /// let unexpected = probe.expect_nothing(60 * SECOND);
    /// assert!(backplane::catch(|| runtime.run(unexpected)).is_err());
    /// ```
    #[track_caller]
    pub fn expect_nothing(&mut self, within: Duration) -> impl Future<Output = ()> {
        let caller = Location::caller();
        async move {
            if self.receive_within(within).await.is_some() {
                panic!("something came, where nothing was expected at {caller}");
            }
        }
    }

    /// The end of somebody on the mesh, who may have ended already.
    ///
    /// # Panics
    ///
    /// If it does not end within this time.
    ///
    /// ```
    /// # use backplane::Runtime;
    /// # use backplane_actor::{Mailbox, System, testing::{Probe, Seeded}};
    /// # use std::time::Duration;
    /// # const SECOND: Duration = Duration::from_secs(1);
    /// # let runtime = Seeded::new(1);
    /// # let system = System::new(runtime.clone());
    /// let mut probe = Probe::<u32>::new(&system);
    /// # use backplane::{Device, Exit};
    /// let friend = Device::new();
    /// let line = friend.line();
    /// let later = async {
    ///     runtime.sleep_until(runtime.now() + 9 * SECOND).await;
    ///     friend.disconnect(Exit::Shutdown);
    /// };
    /// let (news, ()) = runtime.run(smol::future::zip(probe.expect_end(&line, 10 * SECOND), later));
    /// assert_eq!(news.exit, Exit::Shutdown);
    /// ```
    #[track_caller]
    pub fn expect_end(&mut self, of: &Line, within: Duration) -> impl Future<Output = Disconnect> {
        let caller = Location::caller();
        self.device.link(of, backplane::LinkMode::Monitor);
        let id = of.id();
        async move {
            let mut overdue = self.mailbox.shared().overdue(within);
            let device = &mut self.device;
            poll_fn(|cx| {
                while let Poll::Ready(message) = device.poll_receive(cx) {
                    if let backplane::Message::Disconnect(news) = message
                        && news.device == id
                    {
                        return Poll::Ready(news);
                    }
                }
                assert!(
                    overdue.poll(cx).is_pending(),
                    "it did not end within {within:?}, as was expected at {caller}"
                );
                Poll::Pending
            })
            .await
        }
    }
}
