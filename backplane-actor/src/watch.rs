//! Whom an actor watches, and what becomes of the news.

use std::{collections::HashMap, fmt};

use backplane::{DeviceId, Disconnect, Line, LinkMode, OnFault};

use crate::mailbox::{Mailbox, Shared};

/// Turns news into a message.
pub(crate) type Make<M> = Box<dyn FnOnce(Disconnect) -> M + Send>;
/// The same, again and again.
type MakeEach<M> = Box<dyn FnMut(Disconnect) -> M + Send>;

/// All that one actor watches.
pub(crate) struct Watches<M> {
    numbers: u64,
    peers: HashMap<DeviceId, Peer<M>>,
    trap: Option<MakeEach<M>>,
}

impl<M> Default for Watches<M> {
    fn default() -> Watches<M> {
        Watches { numbers: 0, peers: HashMap::new(), trap: None }
    }
}

struct Peer<M> {
    monitors: Vec<(u64, Make<M>)>,
    linked: bool,
}

impl<M> Default for Peer<M> {
    fn default() -> Peer<M> {
        Peer { monitors: Vec::new(), linked: false }
    }
}

/// What is to be done about news.
pub(crate) struct Heard<M> {
    pub(crate) monitors: Vec<(u64, Make<M>)>,
    /// It is the end of someone linked, and not only of someone watched.
    pub(crate) linked: bool,
    /// What the ends of linked actors become, if they are wanted.
    pub(crate) trap: Option<MakeEach<M>>,
}

impl<M> Watches<M> {
    pub(crate) fn hear(&mut self, device: DeviceId) -> Heard<M> {
        let peer = self.peers.remove(&device);
        // Nobody here has asked for it, so that somebody else has made a link.
        let linked = peer.as_ref().is_none_or(|peer| peer.linked);
        let monitors = peer.map_or_else(Vec::new, |peer| peer.monitors);
        let trap = if linked { self.trap.take() } else { None };
        Heard { monitors, linked, trap }
    }

    pub(crate) fn trap_again(&mut self, trap: MakeEach<M>) {
        self.trap.get_or_insert(trap);
    }
}

/// A monitor, for whoever wants to undo it.
///
/// ```
/// # #[cfg(feature = "smol")] {
/// # use backplane::{Device, Disconnect, Exit, runtime::Smol};
/// # use backplane_actor::{Options, System};
/// # let system = System::new(Smol::global());
/// # let (_address, home) = system.prepare::<Disconnect>(Options::new());
/// let device = Device::new();
/// let friend = device.line();
/// let run = home.run(Device::new(), |mut mailbox| async move {
///     let (one, two) = (mailbox.monitor(&friend, |news| news), mailbox.monitor(&friend, |news| news));
///     assert_ne!(one, two);
///     assert!(mailbox.demonitor(one));
///     assert!(mailbox.demonitor(two));
/// });
/// assert_eq!(smol::block_on(run), Exit::Normal);
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Monitor {
    pub(crate) line: Line,
    number: u64,
}

/// Someone that an actor monitors has ended: OTP's `DOWN`, with a tag of the watcher's.
///
/// ```
/// # #[cfg(feature = "smol")] {
/// # use backplane::runtime::Smol;
/// use backplane::{Device, Exit};
/// use backplane_actor::{Down, Options, System};
///
/// let (_address, home) = System::new(Smol::global()).prepare::<Down<&str>>(Options::new());
/// let friend = Device::new();
/// let run = home.run(Device::new(), |mut mailbox| async move {
///     mailbox.monitor(&friend.line(), |news| Down { tag: "friend", news });
///     friend.disconnect(Exit::Shutdown);
///     let down = mailbox.receive().await.unwrap();
///     assert_eq!((down.tag, down.news.exit), ("friend", Exit::Shutdown));
/// });
/// assert_eq!(smol::block_on(run), Exit::Normal);
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Down<T> {
    /// What the watcher chose.
    pub tag: T,
    /// Who ended, and how.
    pub news: Disconnect,
}

impl<T: fmt::Debug> fmt::Display for Down<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.tag, self.news)
    }
}

impl<M: Send + 'static> Mailbox<M> {
    /// Watches an actor, or anything else on the mesh: when it ends, or if it has ended, what `make` makes of the news comes
    /// through the system lane, exactly once. Two monitors of the same give two messages; watching oneself gives none.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::{Device, Disconnect, Exit, runtime::Smol};
    /// # use backplane_actor::{Options, System};
    /// # let system = System::new(Smol::global());
    /// # let (_address, home) = system.prepare::<Disconnect>(Options::new());
    /// let device = Device::new();
    /// let friend = device.line();
    /// let run = home.run(Device::new(), |mut mailbox| async move {
    ///     mailbox.monitor(&friend, |news| news);
    ///     device.disconnect(Exit::Shutdown);
    ///     let news = mailbox.receive().await.unwrap();
    ///     assert_eq!((news.device, news.exit), (friend.id(), Exit::Shutdown));
    /// });
    /// assert_eq!(smol::block_on(run), Exit::Normal);
    /// # }
    /// ```
    pub fn monitor(&mut self, line: &Line, make: impl FnOnce(Disconnect) -> M + Send + 'static) -> Monitor {
        self.shared().monitor(line, make)
    }

    /// Undoes a monitor. No news of it comes after this but what is in the system lane already, which
    /// [`demonitor_flush`](Mailbox::demonitor_flush) takes out. Whether it was still on.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::{Device, Disconnect, Exit, runtime::Smol};
    /// # use backplane_actor::{Options, System};
    /// # let system = System::new(Smol::global());
    /// # let (_address, home) = system.prepare::<Disconnect>(Options::new());
    /// let device = Device::new();
    /// let friend = device.line();
    /// let run = home.run(Device::new(), |mut mailbox| async move {
    ///     let monitor = mailbox.monitor(&friend, |news| news);
    ///     assert!(mailbox.demonitor(monitor));
    ///     device.disconnect(Exit::Shutdown);
    /// #   smol::future::yield_now().await;
    ///     assert!(mailbox.try_receive().is_none());
    ///     assert!(!mailbox.demonitor(monitor)); // it was off
    /// });
    /// assert_eq!(smol::block_on(run), Exit::Normal);
    /// # }
    /// ```
    pub fn demonitor(&mut self, monitor: Monitor) -> bool {
        self.shared().demonitor(monitor)
    }

    /// Undoes a monitor, and takes its news out of the system lane if it has come. Whether it was still on.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::{Device, Disconnect, Exit, runtime::Smol};
    /// # use backplane_actor::{Options, System};
    /// # let system = System::new(Smol::global());
    /// # let (_address, home) = system.prepare::<Disconnect>(Options::new());
    /// let device = Device::new();
    /// let friend = device.line();
    /// let run = home.run(Device::new(), |mut mailbox| async move {
    ///     let monitor = mailbox.monitor(&friend, |news| news);
    ///     device.disconnect(Exit::Shutdown);
    ///     smol::future::yield_now().await;
    ///     assert_eq!(mailbox.len(), 1); // its news has come
    ///     assert!(!mailbox.demonitor_flush(monitor));
    ///     assert!(mailbox.is_empty());
    /// });
    /// assert_eq!(smol::block_on(run), Exit::Normal);
    /// # }
    /// ```
    pub fn demonitor_flush(&mut self, monitor: Monitor) -> bool {
        drop(self.reader().flush(monitor.number));
        self.shared().demonitor_flush(monitor)
    }

    /// Links with an actor, or anything else on the mesh: each hears of the other's end, and a fault takes it along, unless
    /// it [traps](Mailbox::trap_links).
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::{Device, Disconnect, Exit, runtime::Smol};
    /// # use backplane_actor::{Options, System};
    /// # let system = System::new(Smol::global());
    /// # let (_address, home) = system.prepare::<Disconnect>(Options::new());
    /// let device = Device::new();
    /// let friend = device.line();
    /// # use backplane::Fault;
    /// let run = home.run(Device::new(), |mut mailbox| async move {
    ///     mailbox.link(&friend);
    ///     device.disconnect(Exit::Fault(Fault::error("broken")));
    ///     mailbox.receive().await; // here it ends
    /// });
    /// let exit = smol::block_on(run);
    /// assert_eq!(exit.fault().and_then(Fault::first_cause).map(|cause| cause.device), Some(friend.id()));
    /// # }
    /// ```
    pub fn link(&mut self, line: &Line) {
        self.shared().link(line);
    }

    /// Undoes a link.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::{Device, Disconnect, Exit, runtime::Smol};
    /// # use backplane_actor::{Options, System};
    /// # let system = System::new(Smol::global());
    /// # let (_address, home) = system.prepare::<Disconnect>(Options::new());
    /// let device = Device::new();
    /// let friend = device.line();
    /// # use backplane::Fault;
    /// let run = home.run(Device::new(), |mut mailbox| async move {
    ///     mailbox.link(&friend);
    ///     mailbox.unlink(&friend);
    ///     device.disconnect(Exit::Fault(Fault::error("broken")));
    ///     smol::future::yield_now().await;
    /// });
    /// assert_eq!(smol::block_on(run), Exit::Normal);
    /// # }
    /// ```
    pub fn unlink(&mut self, line: &Line) {
        self.shared().unlink(line);
    }

    /// From here on the end of a linked actor, good or bad, becomes a message of the system lane, and takes nobody along:
    /// OTP's `trap_exit`. `None` of it again with [`untrap_links`](Mailbox::untrap_links).
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::{Device, Disconnect, Exit, runtime::Smol};
    /// # use backplane_actor::{Options, System};
    /// # let system = System::new(Smol::global());
    /// # let (_address, home) = system.prepare::<Disconnect>(Options::new());
    /// let device = Device::new();
    /// let friend = device.line();
    /// # use backplane::Fault;
    /// let run = home.run(Device::new(), |mut mailbox| async move {
    ///     mailbox.trap_links(|news| news);
    ///     mailbox.link(&friend);
    ///     device.disconnect(Exit::Fault(Fault::error("broken")));
    ///     let news = mailbox.receive().await.unwrap();
    ///     assert_eq!(news.exit.to_string(), "failed: broken");
    /// });
    /// assert_eq!(smol::block_on(run), Exit::Normal);
    /// # }
    /// ```
    pub fn trap_links(&mut self, make: impl FnMut(Disconnect) -> M + Send + 'static) {
        self.shared().trap_links(make);
    }

    /// A fault of a linked actor takes this one along again.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::{Device, Disconnect, Exit, runtime::Smol};
    /// # use backplane_actor::{Options, System};
    /// # let system = System::new(Smol::global());
    /// # let (_address, home) = system.prepare::<Disconnect>(Options::new());
    /// let device = Device::new();
    /// let friend = device.line();
    /// # use backplane::Fault;
    /// let run = home.run(Device::new(), |mut mailbox| async move {
    ///     mailbox.trap_links(|news| news);
    ///     mailbox.link(&friend);
    ///     mailbox.untrap_links();
    ///     device.disconnect(Exit::Fault(Fault::error("broken")));
    ///     mailbox.receive().await; // here it ends
    /// });
    /// assert!(smol::block_on(run).is_fault());
    /// # }
    /// ```
    pub fn untrap_links(&mut self) {
        self.shared().untrap_links();
    }
}

/// For whoever reads the mailbox; as those of the same names there.
impl<M: Send + 'static> Shared<M> {
    pub(crate) fn monitor(
        &self,
        line: &Line,
        make: impl FnOnce(Disconnect) -> M + Send + 'static,
    ) -> Monitor {
        let make: Make<M> = Box::new(make);
        let me = self.line();
        let number = self.watches(|watches| {
            watches.numbers += 1;
            if me.is_some_and(|me| me != *line) {
                watches.peers.entry(line.id()).or_default().monitors.push((watches.numbers, make));
            }
            watches.numbers
        });
        if let Some(me) = me {
            me.link(line, LinkMode::Monitor);
        }
        Monitor { line: *line, number }
    }

    pub(crate) fn demonitor(&self, monitor: Monitor) -> bool {
        let id = monitor.line.id();
        let (gone, last) = self.watches(|watches| {
            let Some(peer) = watches.peers.get_mut(&id) else { return (None, false) };
            let index = peer.monitors.iter().position(|(number, _)| *number == monitor.number);
            let gone = index.map(|index| peer.monitors.remove(index));
            let last = peer.monitors.is_empty() && !peer.linked;
            if last {
                watches.peers.remove(&id);
            }
            (gone, last)
        });
        if last && let Some(me) = self.line() {
            me.unlink(&monitor.line, LinkMode::Monitor);
        }
        gone.is_some()
    }

    pub(crate) fn demonitor_flush(&self, monitor: Monitor) -> bool {
        let on = self.demonitor(monitor);
        drop(self.flush(monitor.number));
        on
    }

    pub(crate) fn link(&self, line: &Line) {
        let Some(me) = self.line().filter(|me| me != line) else { return };
        self.watches(|watches| watches.peers.entry(line.id()).or_default().linked = true);
        me.link(line, LinkMode::Peer.on_fault(OnFault::HandOver));
    }

    pub(crate) fn unlink(&self, line: &Line) {
        let Some(me) = self.line() else { return };
        let monitored = self.watches(|watches| {
            let Some(peer) = watches.peers.get_mut(&line.id()) else { return false };
            peer.linked = false;
            let monitored = !peer.monitors.is_empty();
            if !monitored {
                watches.peers.remove(&line.id());
            }
            monitored
        });
        me.unlink(line, if monitored { LinkMode::Notify } else { LinkMode::Peer });
    }

    pub(crate) fn trap_links(&self, make: impl FnMut(Disconnect) -> M + Send + 'static) {
        let make: MakeEach<M> = Box::new(make);
        let before = self.watches(|watches| watches.trap.replace(make));
        drop(before);
    }

    pub(crate) fn untrap_links(&self) {
        let before = self.watches(|watches| watches.trap.take());
        drop(before);
    }
}
