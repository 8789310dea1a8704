//! An actor that does nothing but expect.

use std::{fmt, future::poll_fn, panic::Location, task::Poll, time::Duration};

use backplane::{Device, Disconnect, Line, Runtime};

use crate::{
    address::Address,
    mailbox::{Mailbox, Shared},
    options::Options,
    system::System,
};

/// An actor in the hands of a test: its address goes to whoever is tested, and what arrives is expected, on the runtime's
/// clock.
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
    pub fn new<R: Runtime>(system: &System<R>) -> Probe<M> {
        Probe::with(system, Options::new())
    }

    /// A probe with options, as a mailbox for one message.
    pub fn with<R: Runtime>(system: &System<R>, options: Options<M>) -> Probe<M> {
        let shared = Shared::new(system.world(), options, false);
        let device = Device::new();
        shared.begin(device.line());
        let address = Address::counted(shared);
        Probe { mailbox: Mailbox::new(address.shared().clone()), address, device }
    }

    /// Where it is reached.
    pub fn address(&self) -> &Address<M> {
        &self.address
    }

    /// Its line.
    pub fn line(&self) -> Line {
        self.device.line()
    }

    /// The next message, if it comes within this time.
    pub async fn receive_within(&mut self, time: Duration) -> Option<M> {
        let mut overdue = self.mailbox.overdue(time);
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
    #[track_caller]
    pub fn expect_end(&mut self, of: &Line, within: Duration) -> impl Future<Output = Disconnect> {
        let caller = Location::caller();
        self.device.link(of, backplane::LinkMode::Monitor);
        let id = of.id();
        async move {
            let mut overdue = self.mailbox.overdue(within);
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
