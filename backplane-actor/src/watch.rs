//! Whom an actor watches, and what becomes of the news.

use std::{collections::HashMap, fmt};

use backplane::{DeviceId, Disconnect, Line, LinkMode, OnFault};

use crate::mailbox::Mailbox;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Monitor {
    pub(crate) line: Line,
    number: u64,
}

/// Someone that an actor monitors has ended: OTP's `DOWN`, with a tag of the watcher's.
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
    pub fn monitor(&mut self, line: &Line, make: impl FnOnce(Disconnect) -> M + Send + 'static) -> Monitor {
        let make: Make<M> = Box::new(make);
        let me = self.line();
        let number = self.shared().watches(|watches| {
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

    /// Undoes a monitor. No news of it comes after this but what is in the system lane already, which
    /// [`demonitor_flush`](Mailbox::demonitor_flush) takes out. Whether it was still on.
    pub fn demonitor(&mut self, monitor: Monitor) -> bool {
        let id = monitor.line.id();
        let (gone, last) = self.shared().watches(|watches| {
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

    /// Undoes a monitor, and takes its news out of the system lane if it has come. Whether it was still on.
    pub fn demonitor_flush(&mut self, monitor: Monitor) -> bool {
        let on = self.demonitor(monitor);
        drop(self.shared().flush(monitor.number));
        on
    }

    /// Links with an actor, or anything else on the mesh: each hears of the other's end, and a fault takes it along, unless
    /// it [traps](Mailbox::trap_links).
    pub fn link(&mut self, line: &Line) {
        let Some(me) = self.line().filter(|me| me != line) else { return };
        self.shared().watches(|watches| watches.peers.entry(line.id()).or_default().linked = true);
        me.link(line, LinkMode::Peer.on_fault(OnFault::HandOver));
    }

    /// Undoes a link.
    pub fn unlink(&mut self, line: &Line) {
        let Some(me) = self.line() else { return };
        let monitored = self.shared().watches(|watches| {
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

    /// From here on the end of a linked actor, good or bad, becomes a message of the system lane, and takes nobody along:
    /// OTP's `trap_exit`. `None` of it again with [`untrap_links`](Mailbox::untrap_links).
    pub fn trap_links(&mut self, make: impl FnMut(Disconnect) -> M + Send + 'static) {
        let make: MakeEach<M> = Box::new(make);
        let before = self.shared().watches(|watches| watches.trap.replace(make));
        drop(before);
    }

    /// A fault of a linked actor takes this one along again.
    pub fn untrap_links(&mut self) {
        let before = self.shared().watches(|watches| watches.trap.take());
        drop(before);
    }
}
