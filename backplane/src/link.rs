//! What a link says: who hears of whom, under which tag, and what a fault does.

use std::fmt;

use crate::{
    line::Line,
    table::{Bits, Entry},
};

/// Who hears of whose end. `a.link(&b, mode)` is read from left to right.
///
/// Modes add when a link is made and subtract when it is unmade: `Monitor` and then `Notify` is `Peer`, and `Peer`
/// less `Notify` is `Monitor`. Linking twice is one link.
///
/// ```
/// use backplane::{Device, LinkMode};
/// for (mode, a_hears, b_hears) in [
///     (LinkMode::Monitor, true, false),
///     (LinkMode::Notify, false, true),
///     (LinkMode::Peer, true, true),
/// ] {
///     let (mut a, b) = (Device::new(), Device::new());
///     a.link(&b, mode);
///     drop(b);
///     assert_eq!(a.try_receive().is_some(), a_hears);
///
///     let (a, mut b) = (Device::new(), Device::new());
///     a.link(&b, mode);
///     drop(a);
///     assert_eq!(b.try_receive().is_some(), b_hears);
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkMode {
    /// `a` hears of `b`'s end.
    Monitor,
    /// `b` hears of `a`'s end.
    Notify,
    /// Each hears of the other's end.
    Peer,
}

impl LinkMode {
    /// This mode, with a tag that comes back in the news; see [`Link::tag`].
    ///
    /// ```
    /// use backplane::{Link, LinkMode};
    /// assert_eq!(LinkMode::Monitor.tag(7), Link::from(LinkMode::Monitor).tag(7));
    /// ```
    pub fn tag(self, tag: u64) -> Link {
        Link::from(self).tag(tag)
    }

    /// This mode, with a policy of its own; see [`Link::on_fault`].
    ///
    /// ```
    /// use backplane::{Link, LinkMode, OnFault};
    /// let link = LinkMode::Monitor.on_fault(OnFault::Ignore);
    /// assert_eq!(link, Link::from(LinkMode::Monitor).on_fault(OnFault::Ignore));
    /// ```
    pub fn on_fault(self, policy: OnFault) -> Link {
        Link::from(self).on_fault(policy)
    }

    /// The left hears of the right.
    pub(crate) fn monitors(self) -> bool {
        matches!(self, LinkMode::Monitor | LinkMode::Peer)
    }

    /// The right hears of the left.
    pub(crate) fn notifies(self) -> bool {
        matches!(self, LinkMode::Notify | LinkMode::Peer)
    }
}

/// A [`LinkMode`] and what goes with it: whoever hears through this link hears with its tag and its policy.
///
/// ```
/// use backplane::{Device, Exit, LinkMode, Message};
/// let (mut supervisor, child) = (Device::new(), Device::new());
/// supervisor.link(&child, LinkMode::Monitor.tag(7));
/// child.disconnect(Exit::Normal);
/// let Some(Message::Disconnect(news)) = supervisor.try_receive() else { panic!() };
/// assert_eq!(news.tag, 7);
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Link {
    pub(crate) mode: LinkMode,
    /// What the entry of whoever hears through this link says.
    bits: Bits,
    tag: u64,
}

impl Link {
    /// A number that comes back with the news, in [`Disconnect::tag`](crate::Disconnect::tag), so that the watcher finds
    /// what it keeps about the other in constant time; zero if nobody names one. Of a peer link both ends hear with it;
    /// for two tags, make the two directions one by one.
    ///
    /// Whoever links may name it, for the other end too: who makes a link with `Notify` chooses for whom it notifies. Where a
    /// link is made again, the last tag that was named counts.
    ///
    /// ```
    /// use backplane::{Link, LinkMode};
    /// let link = Link::from(LinkMode::Peer).tag(7);
    /// assert_ne!(link, Link::from(LinkMode::Peer)); // which names none
    /// ```
    #[must_use]
    pub fn tag(self, tag: u64) -> Link {
        Link { tag, bits: self.bits.with(Bits::TAGGED, true), ..self }
    }

    /// What a fault of the other does to whoever hears of it under [`manage`](crate::Device::manage); if nobody names a
    /// policy, that of its device counts. As with tags: whoever links may name it, and the last one that was named counts.
    ///
    /// ```
    /// use std::convert::Infallible;
    /// use backplane::{Device, Link, LinkMode, OnFault};
    /// let (a, b) = (Device::new(), Device::new());
    /// a.link(&b, Link::from(LinkMode::Monitor).on_fault(OnFault::Ignore));
    /// drop(b);
    /// let result = futures_lite::future::block_on(a.manage(async { Ok::<_, Infallible>(1) }));
    /// assert_eq!(result.unwrap(), 1);
    /// ```
    #[must_use]
    pub fn on_fault(self, policy: OnFault) -> Link {
        Link { bits: self.bits.with_policy(Some(policy)), ..self }
    }

    /// The entry of whoever hears through this link.
    #[inline]
    pub(crate) fn watching(&self, peer: Line) -> Entry {
        Entry::new(peer, self.bits, self.tag)
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("mode", &self.mode)
            .field("tag", &self.bits.has(Bits::TAGGED).then_some(self.tag))
            .field("on_fault", &self.bits.policy())
            .finish()
    }
}

impl From<LinkMode> for Link {
    #[inline]
    fn from(mode: LinkMode) -> Link {
        Link { mode, bits: Bits::WATCH, tag: 0 }
    }
}

/// What news of another's end does to a future that runs under [`manage`](crate::Device::manage).
///
/// [`receive`](crate::Device::receive) and [`watch`](crate::Device::watch) return all news, whatever the policy: who
/// asks decides.
///
/// ```
/// use backplane::{Crash, Device, LinkMode, OnFault};
/// # use futures_lite::future::{block_on, yield_now};
/// let work = |policy| {
///     let (mut a, b) = (Device::new(), Device::new());
///     a.link(&b, LinkMode::Monitor);
///     a.on_fault(policy);
///     drop(b); // a fault
///     block_on(a.manage(async {
///         yield_now().await;
///         Ok::<_, ()>("done")
///     }))
/// };
/// assert!(matches!(work(OnFault::Cascade), Err(Crash::Cascade(_))));
/// assert!(matches!(work(OnFault::Ignore), Ok("done")));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnFault {
    /// A fault ends the future too; a clean end is no fault and is passed over. Links in the sense of Erlang.
    #[default]
    Cascade,
    /// Nothing: the news is passed over.
    Ignore,
    /// The news, of a clean end as well, goes to the device's [`Inbox`](crate::Inbox). Without one, it waits for
    /// [`receive`](crate::Device::receive) after a [`part_manage`](crate::Device::part_manage), and under `manage`, after
    /// which nobody can receive, it is passed over. Trapping exits, in the sense of Erlang.
    HandOver,
}

/// What a shutdown request does to a future that runs under [`manage`](crate::Device::manage).
///
/// ```
/// use backplane::{Crash, Device, OnShutdown};
/// # use futures_lite::future::{block_on, yield_now};
/// let work = |policy| {
///     let mut device = Device::new();
///     device.on_shutdown(policy);
///     let mut inbox = device.inbox();
///     device.line().shutdown(Device::new().id());
///     block_on(device.manage(async move {
///         inbox.receive().await;
///         Ok::<_, ()>("put away")
///     }))
/// };
/// assert!(matches!(work(OnShutdown::End), Err(Crash::Shutdown(_))));
/// assert!(matches!(work(OnShutdown::HandOver), Ok("put away")));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnShutdown {
    /// The future is dropped and its device ends with [`Exit::Shutdown`](crate::Exit::Shutdown).
    #[default]
    End,
    /// The request goes where [`OnFault::HandOver`] puts news, and the future decides when to end.
    HandOver,
}
