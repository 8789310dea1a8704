//! The shared half's face: link, unlink, ask to stop. And the invariants that all the rest leans on.
//!
//! 1. **One lock at a time.** Whoever holds the lock of a slot takes no other, wakes nobody, and runs or drops nothing
//!    of the user's.
//! 2. **The watcher's table is the truth.** A device hears of an end if, and only if, its own table says that it
//!    watches; hearing takes the entry away. So each link is heard once, whatever arrives twice, and not at all once
//!    it is undone, whatever arrives late.
//! 3. **Whoever watches will be told.** Linking writes the watcher's side first, then the other's; unlinking the other
//!    way round. So an entry that watches has its counterpart at the other side, or news of it is on its way, or the
//!    call that made it is about to find the other gone and to say so. Of two devices that the caller has in hand neither can
//!    end meanwhile: there a peer link is two entries, each written at once, and the first is completed again if somebody
//!    left a change in between.
//! 4. **Changes from elsewhere happen when they are left.** They wait in the slot, the last one for each peer counting.
//!    News that arrives behind a change is measured by that change; news that was there before it, by the table. The
//!    owner looks at both before each change of its own.
//! 5. **Closed is final.** A slot is closed under its lock, and its watchers are told outside of it. Changes that come
//!    meanwhile wait for whoever tells, who looks for them before the end: who links late is told as well.
//! 6. **Who has told everybody tells nobody any more.** A slot's generation goes up a second time when all its watchers
//!    have been told. From then on it is gone for who would link with it, and no entry about it, in any table, can matter
//!    once its news has been taken. So a table that is full forgets those first, and nothing grows with links that are
//!    gone. One thing only is left to be said of it, by who is in the middle of a link and finds it gone: that is heard if
//!    the entry that the link began with is still there. Who forgets such an entry counts it, in the word, and of links
//!    that had begun by then it is heard in any case.

use std::{fmt, hash, ptr};

use crate::{
    exit::{Exit, Fault, FaultKind},
    id::DeviceId,
    label::Label,
    link::{Link, LinkMode},
    slot::Slot,
    sync::Arc,
    table::{Bits, Entry},
};

/// The address of a [`Device`](crate::Device): 16 bytes, `Copy`, and good for ever. It does not keep the device alive, and can be asked
/// whether it is.
///
/// ```
/// use backplane::{Device, Exit};
/// let device = Device::new();
/// let line = device.line();
/// assert!(line.is_alive());
/// device.disconnect(Exit::Normal);
/// assert!(!line.is_alive());
/// ```
#[derive(Clone, Copy)]
pub struct Line {
    pub(crate) slot: &'static Slot,
    pub(crate) generation: u32,
}

impl Line {
    /// The name of the device.
    ///
    /// ```
    /// use backplane::Device;
    /// let device = Device::new();
    /// let line = device.line();
    /// let id = device.id();
    /// drop(device);
    /// assert_eq!(line.id(), id); // for good
    /// ```
    #[inline]
    pub fn id(&self) -> DeviceId {
        DeviceId::new(self.slot.index(), self.generation)
    }

    /// Whether the device has not ended. The answer may be out of date when it arrives, unless it is no.
    ///
    /// ```
    /// use backplane::Device;
    /// let device = Device::new();
    /// let line = device.line();
    /// assert!(line.is_alive());
    /// drop(device);
    /// assert!(!line.is_alive());
    /// ```
    #[inline]
    pub fn is_alive(&self) -> bool {
        self.slot.generation() == self.generation
    }

    /// What people call the device, if it has a label and has not ended.
    ///
    /// ```
    /// use backplane::Device;
    /// let device = Device::labelled("listener");
    /// let line = device.line();
    /// assert_eq!(line.label().unwrap().name(), "listener");
    /// drop(device);
    /// assert_eq!(line.label(), None);
    /// ```
    pub fn label(&self) -> Option<Arc<Label>> {
        self.slot.label(self.generation)
    }

    /// Links the device at this line with another; see [`Device::link`](crate::Device::link), which costs less to whoever has the device.
    ///
    /// ```
    /// use backplane::{Device, Exit, LinkMode, Message};
    /// let (mut a, b) = (Device::new(), Device::new());
    /// a.line().link(&b.line(), LinkMode::Monitor);
    /// b.disconnect(Exit::Normal);
    /// assert!(matches!(a.try_receive(), Some(Message::Disconnect(news)) if news.exit == Exit::Normal));
    /// ```
    pub fn link(&self, other: &impl End, link: impl Into<Link>) {
        self::link(self, other, link.into());
    }

    /// Takes away from the link what `mode` says; see [`Device::unlink`](crate::Device::unlink).
    ///
    /// ```
    /// use backplane::{Device, LinkMode};
    /// let (mut a, b) = (Device::new(), Device::new());
    /// a.link(&b, LinkMode::Monitor);
    /// a.line().unlink(&b.line(), LinkMode::Monitor);
    /// drop(b);
    /// assert_eq!(a.try_receive(), None);
    /// ```
    pub fn unlink(&self, other: &impl End, mode: LinkMode) {
        self::unlink(self, other, mode);
    }

    /// Asks the device to stop, in the name of `from`. It need not be linked.
    ///
    /// A future under [`manage`](crate::Device::manage) is dropped then and its device ends with [`Exit::Shutdown`],
    /// unless its device [decides for itself](crate::Device::on_shutdown); who [receives](crate::Device::receive) gets
    /// [`Message::Shutdown`](crate::Message::Shutdown). Asking after the end has no effect, nor has asking again while the
    /// same request waits as the last news there is. A device's requests to itself are each told.
    ///
    /// ```
    /// use backplane::{Device, Message};
    /// let mut device = Device::new();
    /// let me = Device::new().id();
    /// device.line().shutdown(me);
    /// assert_eq!(device.try_receive(), Some(Message::Shutdown(me)));
    /// ```
    pub fn shutdown(&self, from: DeviceId) {
        self.slot.shutdown(self.generation, from);
    }

    /// Says that a drop of the device, from here on, is a kill: it is told as [`FaultKind::Killed`] instead of
    /// [`FaultKind::Dropped`]. Drops nothing itself: that is for whoever owns the task.
    ///
    /// ```
    /// use backplane::{Device, FaultKind, LinkMode, Message};
    /// let (mut parent, child) = (Device::new(), Device::new());
    /// parent.link(&child, LinkMode::Monitor);
    /// child.line().condemn();
    /// drop(child);
    /// let Some(Message::Disconnect(news)) = parent.try_receive() else { panic!() };
    /// assert_eq!(news.exit.fault().map(|fault| fault.kind()), Some(FaultKind::Killed));
    /// ```
    pub fn condemn(&self) {
        self.slot.condemn(self.generation);
    }

    /// Whether the device has ended and all who watched it have been told (invariant 6).
    #[inline]
    pub(crate) fn has_told(&self) -> bool {
        self.slot.generation() > self.generation + 1
    }

    #[inline]
    pub(crate) fn tell(&self, from: Line, exit: &Exit) {
        self.slot.tell(self.generation, from, exit);
    }
}

impl PartialEq for Line {
    #[inline]
    fn eq(&self, other: &Line) -> bool {
        ptr::eq(self.slot, other.slot) && self.generation == other.generation
    }
}

impl Eq for Line {}

impl hash::Hash for Line {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.id().hash(state);
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Line({}", self.id())?;
        if let Some(label) = self.label() {
            write!(f, " {label}")?;
        }
        if !self.is_alive() {
            f.write_str(", ended")?;
        }
        f.write_str(")")
    }
}

/// What can be linked: a [`Device`](crate::Device) or its [`Line`].
///
/// Where the device itself is at hand, giving it instead of its line saves a lock. Sealed: these two are all there is.
///
/// ```
/// use backplane::{Device, End, LinkMode};
/// fn watch(watcher: &Device, watched: &impl End) {
///     watcher.link(watched, LinkMode::Monitor);
/// }
/// let (mut a, b, c) = (Device::new(), Device::new(), Device::new());
/// watch(&a, &b);
/// watch(&a, &c.line());
/// drop((b, c));
/// assert!(a.try_receive().is_some() && a.try_receive().is_some());
/// ```
pub trait End: sealed::End {}

impl End for Line {}

pub(crate) mod sealed {
    use super::{Entry, Line, Watching};

    /// Its methods are ours: it can be named nowhere else.
    pub trait End {
        /// Whether the caller owns it: it does not end meanwhile, and nobody else writes into its table.
        const OWNED: bool;

        /// Whether no change from elsewhere waits at it, which only who owns it can say.
        fn is_settled(&self) -> bool;

        /// Its address, for the other end's table only.
        fn address(&self) -> Line;

        /// Begins to watch, on this side.
        fn watch(&self, link: Entry) -> Watching;

        /// Changes an entry, on this side. `None` if this end is closed; else what to tell `hear_gone`.
        fn change(&self, change: Entry) -> Option<u64>;

        /// The link that `watch` or `change` began is not made, for the other was gone.
        fn hear_gone(&self, link: Entry, begun: u64);
    }
}

/// What became of an attempt to watch.
#[derive(Debug, PartialEq, Eq)]
pub enum Watching {
    /// This end is closed.
    Closed,
    /// It watched before.
    Before,
    /// It watches now; with what to tell `hear_gone`.
    Now(u64),
}

impl sealed::End for Line {
    const OWNED: bool = false;

    fn is_settled(&self) -> bool {
        false
    }

    #[inline]
    fn address(&self) -> Line {
        *self
    }

    #[inline]
    fn watch(&self, link: Entry) -> Watching {
        match self.slot.change(self.generation, link) {
            Some(begun) => Watching::Now(begun),
            None => Watching::Closed,
        }
    }

    #[inline]
    fn change(&self, change: Entry) -> Option<u64> {
        self.slot.change(self.generation, change)
    }

    #[cold]
    fn hear_gone(&self, link: Entry, begun: u64) {
        self.slot.tell_gone(self.generation, link, begun, &gone());
    }
}

pub(crate) fn gone() -> Exit {
    Exit::Fault(Fault::bare(FaultKind::Gone))
}

/// Each direction: the watcher first, then the watched (invariant 3).
#[inline(always)]
pub(crate) fn link<X: End, Y: End>(x: &X, y: &Y, link: Link) {
    let (a, b) = (x.address(), y.address());
    if a == b {
        return;
    }
    let (mut monitors, notifies) = (link.mode.monitors(), link.mode.notifies());
    if X::OWNED && Y::OWNED && monitors && notifies {
        return link_owned(x, y, link);
    }
    let mut begins = None;
    if monitors {
        match x.watch(link.watching(b)) {
            Watching::Now(begun) => begins = Some(begun),
            // The other side may not know yet: whoever linked them before may not be done.
            Watching::Before => {}
            // It hears nothing any more, but may still be heard to be gone.
            Watching::Closed => monitors = false,
        }
    }
    if !monitors && !notifies {
        return;
    }
    let mut change = link.watching(a);
    if !notifies {
        change.bits = Bits::NONE;
    }
    change.bits = change.bits.with(Bits::NOTIFY, monitors);
    let Some(begun) = y.change(change) else {
        if let Some(begun) = begins {
            x.hear_gone(link.watching(b), begun);
        }
        return;
    };
    if notifies && x.change(Entry::new(b, Bits::NOTIFY, 0)).is_none() {
        y.hear_gone(link.watching(a), begun);
    }
}

/// As [`link`], of two that the caller owns, so that neither ends in between: each gets its whole entry at once.
#[inline(never)]
fn link_owned(x: &impl End, y: &impl End, link: Link) {
    let both = |peer| {
        let mut entry = link.watching(peer);
        entry.bits = entry.bits.with(Bits::NOTIFY, true);
        entry
    };
    let (a, b) = (x.address(), y.address());
    x.watch(both(b));
    y.change(both(a));
    // A change that somebody left in between came before the last step of this.
    if !x.is_settled() {
        x.change(Entry::new(b, Bits::NOTIFY, 0));
    }
}

/// Each direction: the watched first, then the watcher (invariant 3).
#[inline]
pub(crate) fn unlink(x: &impl End, y: &impl End, mode: LinkMode) {
    let (a, b) = (x.address(), y.address());
    if a == b {
        return;
    }
    let (monitors, notifies) = (mode.monitors(), mode.notifies());
    if notifies {
        x.change(Entry::new(b, Bits::UNNOTIFY, 0));
    }
    let change = Bits::NONE.with(Bits::UNNOTIFY, monitors).with(Bits::UNWATCH, notifies);
    y.change(Entry::new(a, change, 0));
    if monitors {
        x.change(Entry::new(b, Bits::UNWATCH, 0));
    }
}
