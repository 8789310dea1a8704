//! The owned half: link, receive, leave.

use std::{
    cell::{Cell, RefCell},
    fmt,
    future::{self, Future},
    task::{Context, Poll, Waker},
};

use crate::{
    exit::{Disconnect, Exit, Fault, FaultKind, Message},
    id::DeviceId,
    inbox::{Inbox, Shared},
    label::Label,
    line::{self, End, Line, Watching, sealed},
    link::{Link, LinkMode, OnFault, OnShutdown},
    queue::Queue,
    slot::{self, Batch, More, Notice, Remains, Slot},
    sync::Arc,
    table::{Bits, Entries, Entry, Table},
};

/// Devices that this one watches have its line, and tell it.
const TO_WATCHED: u8 = 1;
/// It has been given out, so that anybody may be leaving changes.
const TO_ALL: u8 = 2;

static DROPPED: Exit = Exit::Fault(Fault::bare(FaultKind::Dropped));

/// As much is done for news, or told to watchers, before others get their turn.
pub(crate) const TURN: u32 = 256;

/// A future's connection to the mesh: what it is linked with, and what it is told.
///
/// Owned by whoever runs the future. Dropping a device is a fault, of kind [`Dropped`](FaultKind::Dropped), so that
/// whatever happens to its owner, those who watch it hear of it. To leave in peace, [`disconnect`](Device::disconnect),
/// or let [`manage`](Device::manage) do it. Its watchers are told in the drop; what
/// [`disconnect`](Device::disconnect) says of a great many of them holds for it, too.
///
/// A device is `Send` and not `Sync`; others speak with it through its [`Line`].
///
/// ```
/// use backplane::{Device, LinkMode, Message};
/// let (mut a, b) = (Device::new(), Device::new());
/// a.link(&b, LinkMode::Monitor);
/// let id = b.id();
/// drop(b);
/// let Some(Message::Disconnect(news)) = a.try_receive() else { panic!("nobody told us") };
/// assert_eq!(news.device, id);
/// assert_eq!(news.exit.to_string(), "dropped");
/// ```
pub struct Device {
    slot: &'static Slot,
    generation: u32,
    open: bool,
    /// Who else can have its line.
    known: Cell<u8>,
    /// Whether `watch` returned news last: then it is the future's turn.
    pub(crate) futures_turn: bool,
    /// Which waker the slot holds; it means something only while the slot holds one.
    waker: (usize, usize),
    own: RefCell<Own>,
}

/// What only the owner looks at.
struct Own {
    table: Table<Backlog>,
}

impl Own {
    #[inline]
    fn backlog(&mut self) -> Option<&mut Backlog> {
        self.table.extra()
    }

    /// Whether there is something older to look at than what is in the slot, or something to give back.
    #[inline]
    fn is_behind(&self) -> bool {
        self.table.has_extra() && self.table.extra_of_many().is_none_or(Backlog::waits)
    }
}

/// What was taken from the slot, or is kept for later. Empty for most, most of the time.
#[derive(Default)]
struct Backlog {
    /// Looked at, and to be told; older than all that follows.
    ready: Queue<(Message, Bits)>,
    /// Not looked at yet.
    news: Queue<Notice>,
    /// Changes that came with this news, and are made once it has been looked at (invariant 4).
    changes: Option<Entries>,
    /// Handed over, and nobody there to take it.
    kept: Queue<(Message, Bits)>,
    inbox: Option<Arc<Shared>>,
    on_fault: OnFault,
    on_shutdown: OnShutdown,
}

impl Backlog {
    /// Whether there is something to look at.
    #[inline]
    fn waits(&self) -> bool {
        !self.ready.is_empty() || !self.news.is_empty() || self.changes.is_some()
    }

    /// Whether it would not be missed.
    fn is_idle(&self) -> bool {
        let policies = (self.on_fault, self.on_shutdown) == (OnFault::default(), OnShutdown::default());
        policies
            && self.inbox.is_none()
            && self.changes.is_none()
            && self.ready.is_empty()
            && self.news.is_empty()
            && self.kept.is_empty()
    }
}

impl Default for Device {
    fn default() -> Device {
        Device::new()
    }
}

impl Device {
    /// A new device, not linked with any.
    ///
    /// ```
    /// use backplane::Device;
    /// let device = Device::new();
    /// assert!(device.line().is_alive());
    /// ```
    #[inline]
    pub fn new() -> Device {
        let slot = slot::take();
        Device {
            slot,
            generation: slot.generation(),
            open: true,
            known: Cell::new(0),
            futures_turn: false,
            waker: (0, 0),
            own: RefCell::new(Own { table: Table::new() }),
        }
    }

    /// A new device with a name for people.
    ///
    /// ```
    /// use backplane::Device;
    /// let device = Device::labelled("listener");
    /// assert!(format!("{device:?}").contains("listener"));
    /// ```
    pub fn labelled(label: impl Into<Label>) -> Device {
        let device = Device::new();
        device.set_label(label);
        device
    }

    /// Gives the device a name for people, or another one.
    ///
    /// ```
    /// use backplane::Device;
    /// let device = Device::new();
    /// device.set_label("listener");
    /// assert_eq!(device.line().label().unwrap().name(), "listener");
    /// ```
    pub fn set_label(&self, label: impl Into<Label>) {
        self.slot.set_label(self.generation, Arc::new(label.into()));
    }

    /// Its name.
    ///
    /// ```
    /// use backplane::Device;
    /// let device = Device::new();
    /// assert_eq!(device.id(), device.line().id());
    /// ```
    #[inline]
    pub fn id(&self) -> DeviceId {
        DeviceId::new(self.slot.index(), self.generation)
    }

    /// Its address, to give to others.
    ///
    /// ```
    /// use backplane::Device;
    /// let line = Device::new().line(); // the device itself is dropped here
    /// assert!(!line.is_alive());
    /// ```
    #[inline]
    pub fn line(&self) -> Line {
        self.known(TO_ALL);
        Line { slot: self.slot, generation: self.generation }
    }

    /// Links with another device, given as it is or as its line. `a.link(&b, LinkMode::Monitor)`: a hears of b's end.
    ///
    /// There is one set of links, whoever made them: modes add to what is there. A link with a device that has ended is
    /// no error: who would hear of its end hears at once that it is [`Gone`](FaultKind::Gone). A link with itself is
    /// none. Constant time, amortised, however many links there are.
    ///
    /// ```
    /// use backplane::{Device, FaultKind, LinkMode, Message};
    /// let (mut a, b) = (Device::new(), Device::new());
    /// let line = b.line();
    /// drop(b);
    /// a.link(&line, LinkMode::Monitor);
    /// let Some(Message::Disconnect(news)) = a.try_receive() else { panic!() };
    /// assert_eq!(news.exit.fault().map(|fault| fault.kind()), Some(FaultKind::Gone));
    /// ```
    #[inline]
    pub fn link(&self, other: &impl End, link: impl Into<Link>) {
        line::link(self, other, link.into());
    }

    /// Takes away from the link with another device what `mode` says, whoever made it. Unlinking what is not linked does
    /// nothing. Constant time, amortised.
    ///
    /// Once this has returned, no news of that link arrives any more, not even of an end that happened before. News that
    /// had arrived already stays queued; [`flush`](Device::flush) takes it out.
    ///
    /// ```
    /// use backplane::{Device, LinkMode};
    /// let (mut a, b) = (Device::new(), Device::new());
    /// a.link(&b, LinkMode::Peer);
    /// b.unlink(&a, LinkMode::Notify); // undone from the other side
    /// drop(b);
    /// assert_eq!(a.try_receive(), None);
    /// ```
    #[inline]
    pub fn unlink(&self, other: &impl End, mode: LinkMode) {
        line::unlink(self, other, mode);
    }

    /// Makes room for so many more links, so that making them is not held up by moving those that are there. Worth it for who
    /// is about to link with a great many; nobody needs it. Room for a million (2²⁰) is the most that is made at a time, and it
    /// is given back with the last link.
    ///
    /// ```
    /// use backplane::{Device, LinkMode};
    /// let workers: Vec<Device> = (0..1_000).map(|_| Device::new()).collect();
    /// let mut hub = Device::new();
    /// hub.reserve(workers.len());
    /// workers.iter().for_each(|worker| hub.link(worker, LinkMode::Monitor));
    /// drop(workers);
    /// assert_eq!(std::iter::from_fn(|| hub.try_receive()).count(), 1_000);
    /// ```
    pub fn reserve(&mut self, links: usize) {
        self.own.get_mut().table.reserve(links);
    }

    /// Takes out queued news of another device's end, as OTP's `demonitor` with `flush`; returns how much there was.
    ///
    /// Looks through all that is queued here, which is not what an [`Inbox`] has been given.
    ///
    /// ```
    /// use backplane::{Device, LinkMode};
    /// let (mut a, b) = (Device::new(), Device::new());
    /// let line = b.line();
    /// a.link(&b, LinkMode::Monitor);
    /// drop(b);
    /// a.unlink(&line, LinkMode::Monitor);
    /// assert_eq!(a.flush(&line), 1); // it had arrived before the unlink
    /// assert_eq!(a.try_receive(), None);
    /// ```
    pub fn flush(&self, other: &impl End) -> usize {
        let id = other.address().id();
        let mut own = self.own.borrow_mut();
        self.sync(&mut own);
        let Some(backlog) = own.backlog() else { return 0 };
        let other = |(message, _): &(Message, Bits)| match message {
            Message::Disconnect(news) => news.device != id,
            Message::Shutdown(_) => true,
        };
        backlog.ready.retain(other) + backlog.kept.retain(other)
    }

    /// What news of an end does under [`manage`](Device::manage), where the link does not say:
    /// [`OnFault::Cascade`] unless this is called.
    ///
    /// ```
    /// use std::convert::Infallible;
    /// use backplane::{Device, LinkMode, OnFault};
    /// let (mut a, b) = (Device::new(), Device::new());
    /// a.on_fault(OnFault::Ignore);
    /// a.link(&b, LinkMode::Monitor);
    /// drop(b); // a fault, and nothing to a
    /// let result = futures_lite::future::block_on(a.manage(async { Ok::<_, Infallible>("done") }));
    /// assert_eq!(result.unwrap(), "done");
    /// ```
    pub fn on_fault(&mut self, policy: OnFault) {
        self.own.get_mut().table.extra_or_default().on_fault = policy;
    }

    /// What a shutdown request does under [`manage`](Device::manage): [`OnShutdown::End`] unless this is called.
    ///
    /// ```
    /// use std::convert::Infallible;
    /// use backplane::{Device, Message, OnShutdown};
    /// let mut device = Device::new();
    /// device.on_shutdown(OnShutdown::HandOver);
    /// let mut inbox = device.inbox();
    /// device.line().shutdown(device.id());
    /// let managed = device.manage(async move { Ok::<_, Infallible>(inbox.receive().await) });
    /// let asked = futures_lite::future::block_on(managed).unwrap();
    /// assert!(matches!(asked, Some(Message::Shutdown(_))));
    /// ```
    pub fn on_shutdown(&mut self, policy: OnShutdown) {
        self.own.get_mut().table.extra_or_default().on_shutdown = policy;
    }

    /// Where [`manage`](Device::manage) puts what is handed over, for the managed future or anybody else to take. With
    /// it a supervisor is a managed future like any other; see the example `tiny_supervisor`.
    ///
    /// There is one inbox: asking again puts an end to the one before.
    ///
    /// ```
    /// # use std::{convert::Infallible, pin::pin, task::{Context, Poll, Waker}};
    /// use backplane::{Device, LinkMode, Message, OnFault};
    /// let (mut parent, child) = (Device::new(), Device::new());
    /// parent.link(&child, LinkMode::Monitor.on_fault(OnFault::HandOver));
    /// let mut inbox = parent.inbox();
    /// let mut managed = pin!(parent.manage(async move {
    ///     let message = inbox.receive().await;
    ///     Ok::<_, Infallible>(matches!(message, Some(Message::Disconnect(_))))
    /// }));
    /// # let mut cx = Context::from_waker(Waker::noop());
    /// drop(child); // does not take the parent along
    /// # let poll = managed.as_mut().poll(&mut cx);
    /// assert!(matches!(poll, Poll::Ready(Ok(true))));
    /// ```
    pub fn inbox(&mut self) -> Inbox {
        let shared = Arc::new(Shared::default());
        let backlog = self.own.get_mut().table.extra_or_default();
        if let Some(before) = backlog.inbox.replace(Arc::clone(&shared)) {
            before.close();
        }
        Inbox::new(shared)
    }

    /// The next news, if there is any. All news, whatever the policy of its link.
    ///
    /// ```
    /// use backplane::{Device, LinkMode};
    /// let (mut a, b) = (Device::new(), Device::new());
    /// a.link(&b, LinkMode::Monitor);
    /// assert_eq!(a.try_receive(), None);
    /// drop(b);
    /// assert!(a.try_receive().is_some());
    /// ```
    pub fn try_receive(&mut self) -> Option<Message> {
        let mut budget = u32::MAX;
        self.next_here(&mut budget).map(|(message, _)| message)
    }

    /// Waits for the next news. All news, whatever the policy of its link, in the order in which it came.
    ///
    /// Cancellation-safe: news is taken only when it is returned.
    ///
    /// ```
    /// # use std::{pin::pin, task::{Context, Poll, Waker}};
    /// use backplane::{Device, LinkMode};
    /// let (mut a, b) = (Device::new(), Device::new());
    /// a.link(&b, LinkMode::Monitor);
    /// drop(b);
    /// # let mut cx = Context::from_waker(Waker::noop());
    /// # let Poll::Ready(message) = pin!(a.receive()).poll(&mut cx) else { panic!() };
    /// # let _ = "
    /// let message = a.receive().await;
    /// # ";
    /// # let backplane::Message::Disconnect(news) = message else { panic!() };
    /// # assert!(news.exit.is_fault());
    /// ```
    pub fn receive(&mut self) -> impl Future<Output = Message> + Send {
        future::poll_fn(|cx| self.poll_receive(cx))
    }

    /// As [`receive`](Device::receive), for futures written by hand. The waker of the last call is the one that is told.
    ///
    /// ```
    /// use std::{future::poll_fn, task::Poll};
    /// use backplane::{Device, LinkMode};
    /// let (mut a, b) = (Device::new(), Device::new());
    /// a.link(&b, LinkMode::Monitor);
    /// drop(b);
    /// let news = poll_fn(|cx| a.poll_receive(cx));
    /// assert!(matches!(futures_lite::future::block_on(news), backplane::Message::Disconnect(_)));
    /// ```
    #[inline]
    pub fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Message> {
        // The usual cases, on the shortest way: one piece of news, or none. (Each copy of a message that has just been put
        // together waits for it.)
        if !self.own.get_mut().is_behind() {
            if self.slot.word() & slot::NEWS == 0 {
                if self.wait(cx.waker()) {
                    return Poll::Pending;
                }
            } else if let Some(notice) = self.slot.take_one()
                && let Some((message, _)) = self.own.get_mut().table.hear(notice)
            {
                return Poll::Ready(message);
            }
        }
        self.poll_receive_any(cx)
    }

    /// Whether the slot holds this waker now, and nothing else that is to be looked at.
    #[inline]
    fn wait(&mut self, waker: &Waker) -> bool {
        if self.holds(waker) {
            return true;
        }
        let waker = waker.clone();
        // The clone is what the slot holds, and what tells it from others as long as it does.
        let key = key(&waker);
        let waits = self.slot.wait(waker);
        if waits {
            self.waker = key;
        }
        waits
    }

    #[inline(never)]
    fn poll_receive_any(&mut self, cx: &mut Context<'_>) -> Poll<Message> {
        let mut budget = TURN;
        self.poll_next(cx, &mut budget).map(|(message, _)| message)
    }

    /// The news that is here, if it is the only one and nothing comes before it.
    #[inline]
    fn take_one(&mut self) -> Option<Notice> {
        if self.own.get_mut().is_behind() || self.slot.word() & slot::NEWS == 0 {
            return None;
        }
        self.slot.take_one()
    }

    /// News as a stream that does not end.
    ///
    /// ```
    /// use backplane::{Device, LinkMode};
    /// use futures_lite::StreamExt;
    /// let (mut a, b) = (Device::new(), Device::new());
    /// a.link(&b, LinkMode::Monitor);
    /// drop(b);
    /// assert!(futures_lite::future::block_on(a.news().next()).is_some());
    /// ```
    #[cfg(feature = "stream")]
    pub fn news(&mut self) -> News<'_> {
        News { device: self }
    }

    /// Leaves the mesh: every watcher hears `exit`, once. What was queued is dropped.
    ///
    /// Watchers are told before this returns, each in constant time and under its own lock only. With a great many of
    /// them, [`depart`](Device::depart) lets others run in between, and so does [`manage`](Device::manage).
    ///
    /// ```
    /// use backplane::{Device, Exit, LinkMode, Message};
    /// let (mut a, b) = (Device::new(), Device::new());
    /// a.link(&b, LinkMode::Monitor);
    /// b.disconnect(Exit::Normal);
    /// let Some(Message::Disconnect(news)) = a.try_receive() else { panic!("nobody told us") };
    /// assert_eq!(news.exit, Exit::Normal);
    /// ```
    #[inline]
    pub fn disconnect(mut self, exit: Exit) {
        if let Some(many) = self.close(&exit, false) {
            drop(many);
        }
    }

    /// As [`disconnect`](Device::disconnect), but yields to the executor after every 256 watchers.
    ///
    /// The device has ended when this is first polled. Dropped half-way, it tells the rest at once; never polled, it is
    /// the device that is dropped.
    ///
    /// ```
    /// use backplane::{Device, Exit, LinkMode};
    /// let hub = Device::new();
    /// let mut watchers: Vec<Device> = (0..1_000).map(|_| Device::new()).collect();
    /// watchers.iter().for_each(|watcher| watcher.link(&hub, LinkMode::Monitor));
    /// futures_lite::future::block_on(hub.depart(Exit::Normal));
    /// assert!(watchers.iter_mut().all(|watcher| watcher.try_receive().is_some()));
    /// ```
    pub async fn depart(mut self, exit: Exit) {
        if let Some(mut farewell) = self.close(&exit, false) {
            future::poll_fn(|cx| farewell.poll(cx)).await;
        }
    }

    /// The next news that is here, with what its link says. `budget` counts what is looked at.
    #[inline]
    pub(crate) fn next_here(&mut self, budget: &mut u32) -> Option<(Message, Bits)> {
        if *budget > 0
            && let Some(notice) = self.take_one()
        {
            *budget -= 1;
            if let Some(next) = self.own.get_mut().table.hear(notice) {
                return Some(next);
            }
        }
        let (own, slot) = (self.own.get_mut(), self.slot);
        if !own.is_behind() && slot.word() & slot::NEWS == 0 {
            return None;
        }
        own.next_of_many(slot, budget)
    }

    /// Whether there is nothing to hear.
    #[inline]
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.slot.word() & slot::NEWS == 0 && !self.own.get_mut().is_behind()
    }

    /// Whether there is no news in the slot, and this waker is.
    #[inline]
    pub(crate) fn holds(&self, waker: &Waker) -> bool {
        self.slot.word() & (slot::NEWS | slot::WAKER) == slot::WAKER && self.waker == key(waker)
    }

    /// As [`next_here`](Device::next_here), or the waker is told when there is some; it is told at once when the budget
    /// is used up.
    #[inline]
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>, budget: &mut u32) -> Poll<(Message, Bits)> {
        loop {
            if let Some(next) = self.next_here(budget) {
                return Poll::Ready(next);
            }
            if *budget == 0 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if self.wait(cx.waker()) {
                return Poll::Pending;
            }
            *budget -= 1;
            let batch = self.slot.take();
            if let Some(next) = self.own.get_mut().take_in(self.slot, batch, true) {
                return Poll::Ready(next);
            }
        }
    }

    /// What to do with news under `manage`.
    pub(crate) fn policy(&mut self, bits: Bits) -> OnFault {
        let own = self.own.get_mut().backlog();
        bits.policy().unwrap_or_else(|| own.map(|own| own.on_fault).unwrap_or_default())
    }

    pub(crate) fn shutdown_policy(&mut self) -> OnShutdown {
        self.own.get_mut().backlog().map(|own| own.on_shutdown).unwrap_or_default()
    }

    /// Says who else has its line from here on.
    #[inline]
    fn known(&self, to: u8) {
        self.known.set(self.known.get() | to);
    }

    /// Puts news where it can be taken: in the inbox if there is one, else, with `keep`, where it waits for
    /// [`recall`](Device::recall).
    pub(crate) fn hand_over(&mut self, message: Message, bits: Bits, keep: bool) {
        let backlog = self.own.get_mut().table.extra_or_default();
        match &backlog.inbox {
            Some(inbox) => inbox.put(message),
            None if keep => backlog.kept.push((message, bits)),
            None => {}
        }
    }

    /// What was handed over to nobody comes first again.
    pub(crate) fn recall(&mut self) {
        if let Some(backlog) = self.own.get_mut().backlog()
            && !backlog.kept.is_empty()
        {
            let mut all = std::mem::take(&mut backlog.kept);
            while let Some(next) = backlog.ready.pop() {
                all.push(next);
            }
            backlog.ready = all;
        }
    }

    /// Ends the device, which was perhaps just dropped. Few watchers are told here and now; what is returned tells
    /// many, at the latest when it is dropped.
    #[inline(always)]
    pub(crate) fn close(&mut self, exit: &Exit, dropped: bool) -> Option<Box<Farewell>> {
        self.open = false;
        let (slot, generation) = (self.slot, self.generation);
        let few = self.own.get_mut().table.few();
        // Nobody but we can touch the slot.
        let unknown = self.known.get() == 0 && slot.is_plain(generation);
        let watched = few.is_none_or(is_watched);
        if unknown && !watched {
            slot.retire_unknown(generation);
            return None;
        }
        self.close_known(exit, dropped, unknown, watched)
    }

    /// As [`close`](Device::close), for a device of which somebody knows.
    #[inline(never)]
    fn close_known(
        &mut self,
        exit: &Exit,
        dropped: bool,
        unknown: bool,
        watched: bool,
    ) -> Option<Box<Farewell>> {
        let (slot, generation, known) = (self.slot, self.generation, self.known.get());
        let Some(few) = self.own.get_mut().table.few() else { return self.close_any(exit, dropped) };
        let mut change = None;
        if unknown {
            slot.close_unknown(generation);
        } else {
            let closing = slot.closing();
            if !closing.is_plain() {
                let remains = closing.take();
                return self.say_goodbye(exit, dropped, remains);
            }
            let told;
            (told, change) = closing.close(watched);
            if told {
                return None;
            }
        }
        let me = Line { slot, generation };
        if watched {
            for entry in few.iter().flatten().filter(|entry| entry.is_heard()) {
                if change.as_ref().is_none_or(|change| !change.overrules(entry)) {
                    entry.peer().tell(me, exit);
                }
            }
        }
        if known & TO_ALL == 0 {
            slot.retire_unknown(generation);
            return None;
        }
        if let Some(change) = change.filter(Entry::is_heard) {
            change.peer().tell(me, exit);
        }
        if let Err(late) = slot.retire(generation) {
            drop(Farewell::late(me, exit.clone(), late));
        }
        None
    }

    /// As [`close`](Device::close), for a device with more than a few links.
    #[inline(never)]
    fn close_any(&mut self, exit: &Exit, dropped: bool) -> Option<Box<Farewell>> {
        let inbox = self.own.get_mut().leave_backlog();
        let remains = self.slot.closing().take();
        if let Some(inbox) = inbox {
            inbox.close();
        }
        self.say_goodbye(exit, dropped, remains)
    }

    /// Tells what was found in the slot, too.
    #[inline(never)]
    fn say_goodbye(&mut self, exit: &Exit, dropped: bool, mut remains: Remains) -> Option<Box<Farewell>> {
        let mut exit = match dropped && remains.condemned {
            true => Exit::Fault(Fault::bare(FaultKind::Killed)),
            false => exit.clone(),
        };
        if let (Exit::Fault(fault), Some(label)) = (&mut exit, remains.label.take()) {
            *fault = std::mem::replace(fault, Fault::bare(FaultKind::Gone)).named(label);
        }
        let me = Line { slot: self.slot, generation: self.generation };
        if remains.more.is_none()
            && let Some(few) = self.own.get_mut().table.few()
        {
            // As most do whose task waits for news: there is little to tell, and nothing is to be kept for it.
            tell_few(me, few, remains.change.take(), &exit);
            return None;
        }
        let table = &mut self.own.get_mut().table;
        let later = remains.more.take().map_or_else(Table::new, |more| more.changes);
        let many = table.is_long() || later.is_long();
        let entries = table.take_entries();
        let farewell = Farewell { me, exit, entries, change: remains.change.take(), later, done: false };
        many.then(|| Box::new(farewell))
    }

    /// Looks at all news that is here, and then makes the changes that others left, so that a change of ours comes after
    /// what came before it (invariant 4).
    #[inline]
    fn sync(&self, own: &mut Own) {
        if own.is_behind() || self.slot.word() & (slot::NEWS | slot::CHANGES) != 0 {
            self.sync_all(own, true);
        }
    }

    /// `forget` says whether entries that are spent may go.
    #[inline(never)]
    fn sync_all(&self, own: &mut Own, forget: bool) {
        loop {
            own.work_off(self.slot, forget);
            if self.slot.word() & (slot::NEWS | slot::CHANGES) == 0 {
                return;
            }
            let batch = self.slot.take();
            if let Some(next) = own.take_in(self.slot, batch, forget) {
                own.table.extra_or_default().ready.push(next);
            }
        }
    }
}

impl Drop for Device {
    #[inline]
    fn drop(&mut self) {
        if self.open
            && let Some(many) = self.close(&DROPPED, true)
        {
            drop(many);
        }
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Device");
        debug.field("id", &format_args!("{}", self.id()));
        if let Some(label) = self.slot.label(self.generation) {
            debug.field("label", &format_args!("{label}"));
        }
        if let Ok(own) = self.own.try_borrow() {
            debug.field("links", &own.table.len());
        }
        debug.field("news", &(self.slot.word() & slot::NEWS != 0)).finish_non_exhaustive()
    }
}

impl End for Device {}

impl sealed::End for Device {
    const OWNED: bool = true;

    #[inline]
    fn is_settled(&self) -> bool {
        self.slot.word() & slot::CHANGES == 0
    }

    #[inline]
    fn address(&self) -> Line {
        Line { slot: self.slot, generation: self.generation }
    }

    #[inline]
    fn watch(&self, link: Entry) -> Watching {
        self.known(TO_WATCHED);
        if self.put(link) { Watching::Now(0) } else { self.watch_more(link) }
    }

    #[inline]
    fn change(&self, change: Entry) -> Option<u64> {
        if change.bits.has(Bits::WATCH) {
            self.known(TO_WATCHED);
        }
        let made = if change.bits.links() { self.put(change) } else { self.cut(change) };
        if !made {
            self.change_more(change);
        }
        Some(0)
    }

    fn hear_gone(&self, link: Entry, _: u64) {
        let peer = link.peer();
        let mut own = self.own.borrow_mut();
        self.sync_all(&mut own, false);
        // Without its entry it has been heard, or the link undone, meanwhile.
        let Some(entry) = own.table.remove(peer).filter(|entry| entry.bits.has(Bits::WATCH)) else { return };
        let news = Message::Disconnect(Disconnect { device: peer.id(), exit: line::gone(), tag: entry.tag });
        own.table.extra_or_default().ready.push((news, entry.bits));
        drop(own);
        if self.slot.word() & slot::WAKER != 0
            && let Some(waker) = self.slot.take_waker()
        {
            crate::unwind::quietly(|| waker.wake());
        }
    }
}

impl Device {
    /// Changes the table, if nothing waits to be looked at before.
    #[inline]
    fn at_once(&self, make: impl FnOnce(&mut Table<Backlog>) -> bool) -> bool {
        let Ok(mut own) = self.own.try_borrow_mut() else { return false };
        let nothing_waits = self.slot.word() & (slot::NEWS | slot::CHANGES) == 0;
        nothing_waits && make(&mut own.table)
    }

    /// Makes a change, if that is a matter of a moment.
    #[inline]
    fn put(&self, change: Entry) -> bool {
        self.at_once(|table| table.put(change))
    }

    /// As [`put`](Device::put), for a change that sets nothing.
    #[inline(never)]
    fn cut(&self, change: Entry) -> bool {
        self.at_once(|table| table.cut(change))
    }

    #[inline(never)]
    fn watch_more(&self, link: Entry) -> Watching {
        let mut own = self.own.borrow_mut();
        loop {
            self.sync(&mut own);
            let entry = own.table.entry(link.peer(), spent(self.slot, true));
            let mut before = entry.bits.has(Bits::WATCH);
            if before && link.peer().has_told() {
                if self.slot.word() & slot::NEWS != 0 {
                    continue;
                }
                // Left over from a link that was undone elsewhere: no news of it can come (invariant 6).
                (entry.bits, before) = (Bits::NONE, false);
            }
            entry.apply(&link);
            return if before { Watching::Before } else { Watching::Now(0) };
        }
    }

    #[inline(never)]
    fn change_more(&self, change: Entry) {
        let mut own = self.own.borrow_mut();
        self.sync(&mut own);
        if change.bits.has(Bits::WATCH)
            && change.peer().has_told()
            && self.slot.word() & slot::NEWS == 0
            && let Some(entry) = own.table.get_mut(change.peer())
        {
            // Left over from a link that was undone elsewhere (invariant 6): this is a new one.
            entry.bits = Bits::NONE;
        }
        own.table.change(change, spent(self.slot, true));
    }
}

/// Tells of an end, of a slot that is closed, those that a few entries say, and a change that had not reached them.
///
/// By itself, so that those who have nobody waiting lose nothing by it.
#[inline(never)]
fn tell_few(me: Line, few: &[Option<Entry>; 2], change: Option<Entry>, exit: &Exit) {
    let change = change.filter(Entry::changes_notify);
    for entry in few.iter().flatten().filter(|entry| entry.is_heard()) {
        if change.as_ref().is_none_or(|change| !change.overrules(entry)) {
            entry.peer().tell(me, exit);
        }
    }
    if let Some(change) = change.filter(Entry::is_heard) {
        change.peer().tell(me, exit);
    }
    if let Err(late) = me.slot.retire(me.generation) {
        drop(Farewell::late(me, exit.clone(), late));
    }
}

/// Whether somebody is there to hear of an end.
#[inline]
fn is_watched(few: &[Option<Entry>; 2]) -> bool {
    match few {
        [None, _] => false,
        [Some(only), None] => only.is_heard(),
        [Some(first), Some(second)] => first.is_heard() || second.is_heard(),
    }
}

/// Which entries of an owner's table can be forgotten, if any: those about devices that have told everybody, unless news of
/// it may be waiting. The first must be seen before the other (invariant 6).
fn spent(slot: &'static Slot, forget: bool) -> impl Fn(&Entry) -> bool {
    move |entry| forget && entry.peer().has_told() && (!entry.bits.has(Bits::WATCH) || slot.may_forget())
}

/// What tells one waker from another, as long as both live.
#[inline]
fn key(waker: &Waker) -> (usize, usize) {
    (waker.data().addr(), std::ptr::from_ref(waker.vtable()).addr())
}

impl Own {
    /// The next of what was taken before, or is taken now.
    #[inline(never)]
    fn next_of_many(&mut self, slot: &'static Slot, budget: &mut u32) -> Option<(Message, Bits)> {
        while *budget > 0 {
            *budget -= 1;
            if let Some(next) = self.next(slot, budget) {
                return Some(next);
            }
            if *budget == 0 {
                break;
            }
            if slot.word() & slot::NEWS == 0 {
                self.table.drop_extra_if(Backlog::is_idle);
                break;
            }
            if let Some(next) = self.take_in(slot, slot.take(), true) {
                return Some(next);
            }
        }
        None
    }

    /// The next of what was taken before.
    fn next(&mut self, slot: &'static Slot, budget: &mut u32) -> Option<(Message, Bits)> {
        if let Some(next) = self.backlog()?.ready.pop() {
            return Some(next);
        }
        while *budget > 0
            && let Some(notice) = self.backlog()?.news.pop()
        {
            *budget -= 1;
            if let Some(next) = self.table.hear(notice) {
                return Some(next);
            }
        }
        while *budget > 0
            && let Some(changes) = &mut self.backlog()?.changes
        {
            *budget -= 1;
            match changes.next() {
                Some(change) => self.table.change(change, spent(slot, true)),
                None => self.backlog()?.changes = None,
            }
        }
        None
    }

    /// Makes the changes that are left, for an end in which no news counts any more. The inbox is to be closed after it.
    #[cold]
    fn leave_backlog(&mut self) -> Option<Arc<Shared>> {
        let Backlog { changes, inbox, .. } = std::mem::take(self.backlog()?);
        for change in changes.into_iter().flatten() {
            self.table.change(change, |_| false);
        }
        inbox
    }

    /// Looks at a batch, when there is nothing older to look at. What is long is left for later.
    #[inline]
    fn take_in(&mut self, slot: &'static Slot, batch: Batch, forget: bool) -> Option<(Message, Bits)> {
        let Batch { first, change, more } = batch;
        let next = first.and_then(|notice| self.table.hear(notice));
        match (more, change) {
            (None, Some(change)) => self.table.change(change, spent(slot, forget)),
            (None, None) => {}
            (Some(mut more), change) => {
                if let Some(change) = change {
                    *more.changes.entry(change.peer(), |_| false) = change;
                }
                let More { news, mut changes } = *more;
                let backlog = self.table.extra_or_default();
                backlog.news = news;
                backlog.changes = (!changes.is_empty()).then(|| changes.take_entries());
            }
        }
        next
    }

    /// Looks at all that was taken before.
    fn work_off(&mut self, slot: &'static Slot, forget: bool) {
        while let Some(notice) = self.backlog().and_then(|backlog| backlog.news.pop()) {
            if let Some(next) = self.table.hear(notice) {
                self.table.extra_or_default().ready.push(next);
            }
        }
        for change in self.backlog().and_then(|backlog| backlog.changes.take()).into_iter().flatten() {
            self.table.change(change, spent(slot, forget));
        }
    }
}

impl<X: Default> Table<X> {
    /// Applies a change, and keeps no entry that says nothing.
    #[inline]
    fn change(&mut self, change: Entry, spent: impl Fn(&Entry) -> bool) {
        if change.bits.links() {
            // It sets something; so there is something afterwards.
            self.entry(change.peer(), spent).apply(&change);
        } else if let Some(entry) = self.get_mut(change.peer()) {
            entry.apply(&change);
            if !entry.bits.links() {
                self.remove(change.peer());
            }
        }
    }

    /// Whether news is to be told, and how. An end that is heard takes its entry away (invariant 2).
    #[inline(always)]
    fn hear(&mut self, notice: Notice) -> Option<(Message, Bits)> {
        if notice.bits.has(Bits::SHUTDOWN) {
            return Some((Message::Shutdown(DeviceId::from_u64(notice.tag)), Bits::NONE));
        }
        let entry = self.remove(notice.from()).filter(|entry| entry.bits.has(Bits::WATCH));
        let Entry { bits, tag, .. } = match entry {
            Some(entry) if !notice.bits.has(Bits::DECIDED) => entry,
            None if !notice.bits.has(Bits::DECIDED) => return None,
            entry => {
                // Of who is gone, an entry can only be left over.
                let gone = notice.exit.fault().is_some_and(|fault| fault.kind() == FaultKind::Gone);
                let mut entry = entry.filter(|_| !gone).unwrap_or(Entry::new(notice.from(), Bits::NONE, 0));
                entry.apply(&Entry::new(notice.from(), notice.bits, notice.tag));
                entry
            }
        };
        let news = Disconnect { device: notice.from().id(), exit: notice.exit, tag };
        Some((Message::Disconnect(news), bits))
    }
}

/// A device that has ended and whose watchers are being told. Dropped, it tells the rest at once.
pub(crate) struct Farewell {
    me: Line,
    exit: Exit,
    /// First the table's entries, then those of `later`.
    entries: Entries,
    /// Changes that had not reached the table: they count.
    change: Option<Entry>,
    later: Table,
    /// Everybody has been told, those who came late as well.
    done: bool,
}

impl Farewell {
    /// For those who linked while the others were told.
    #[cold]
    fn late(me: Line, exit: Exit, late: Batch) -> Farewell {
        let mut farewell = Farewell {
            me,
            exit,
            entries: Table::<()>::new().take_entries(),
            change: None,
            later: Table::new(),
            done: false,
        };
        farewell.put_late(late);
        farewell
    }

    fn put_late(&mut self, late: Batch) {
        self.change = late.change;
        self.later = late.more.map_or_else(Table::new, |more| more.changes);
    }

    /// Looks at one cell, and tells whoever it says is to be told. False after the last one; then the slot is another's.
    fn step(&mut self) -> bool {
        if let Some(cell) = self.entries.next_cell() {
            let Some(entry) = cell else { return true };
            let later = self.later.get(entry.peer());
            if !self.change.iter().chain(later).any(|change| change.overrules(&entry)) {
                self.tell(&entry);
            }
        } else if let Some(change) = self.change.take() {
            self.tell(&change);
        } else if !self.later.is_empty() {
            self.entries = self.later.take_entries();
        } else if !self.done {
            match self.me.slot.retire(self.me.generation) {
                Ok(()) => self.done = true,
                Err(late) => self.put_late(late),
            }
        }
        !self.done
    }

    fn tell(&self, entry: &Entry) {
        if entry.is_heard() {
            entry.peer().tell(self.me, &self.exit);
        }
    }

    /// Tells some, then lets others run.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..TURN {
            if !self.step() {
                return Poll::Ready(());
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Farewell {
    fn drop(&mut self) {
        while self.step() {}
    }
}

/// News as a stream that does not end; made by [`Device::news`].
///
/// ```
/// use backplane::{Device, LinkMode};
/// use futures_lite::{StreamExt, future};
/// let (mut a, b) = (Device::new(), Device::new());
/// let id = b.id();
/// a.link(&b, LinkMode::Monitor);
/// drop(b);
/// let ended = a.news().filter_map(|message| match message {
///     backplane::Message::Disconnect(news) => Some(news.device),
///     backplane::Message::Shutdown(_) => None,
/// });
/// assert_eq!(future::block_on(ended.take(1).collect::<Vec<_>>()), [id]);
/// ```
#[cfg(feature = "stream")]
#[derive(Debug)]
pub struct News<'a> {
    device: &'a mut Device,
}

#[cfg(feature = "stream")]
impl futures_core::Stream for News<'_> {
    type Item = Message;

    fn poll_next(mut self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        self.device.poll_receive(cx).map(Some)
    }
}
