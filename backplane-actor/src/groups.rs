//! Groups of owners, and who wants to hear of their comings and goings: OTP's `pg`, as a value.
//!
//! The groups have a device of their own, which monitors each member once, in however many groups it is. Nobody has to
//! run it: its waker is a bell, and whoever rings it (the thread on which a member ends) tells those who want to know.
//! Only one looks after the device at a time; whoever finds it gone leaves the work, and it is looked for again before
//! the device is put back.

use std::{
    borrow::Borrow,
    collections::{HashMap, VecDeque},
    fmt,
    future::{self, Future},
    hash::Hash,
    sync::{
        Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use backplane::{Device, Line, LinkMode, Message};

use crate::{
    address::{Address, TryCastError},
    call::{CallError, Reply},
    keyed::{Hashing, Seen},
    lists::{Left, Lists, Member, Members, OwnerEnded},
    mailbox::wake_all,
    protocol::Accepts,
    sync::{Arc, Mutex, lock},
};

/// Who is in which group, and who wants to know; a value, of which there may be many. Clones are the same groups.
///
/// As in a [`Registry`](crate::Registry), a member is none once its owner has ended, and nothing of `K` or `V` runs while a
/// lock is held. An owner may be in many groups, and in one group more than once: then it is counted, and sent to, as
/// often, and leaves as often, which is `pg`'s rule. A group exists as long as somebody is in it.
///
/// Nothing has to be run: who ends is taken out of its groups by the end itself, on the thread on which it happens.
///
/// ```
/// use backplane::{Device, Exit};
/// use backplane_actor::Groups;
///
/// let groups = Groups::new();
/// let (ann, bob) = (Device::new(), Device::new());
/// groups.join("choir", &ann.line(), "ann").unwrap();
/// groups.join("choir", &bob.line(), "bob").unwrap();
/// assert_eq!(groups.members("choir").values().collect::<Vec<_>>(), [&"ann", &"bob"]);
///
/// bob.disconnect(Exit::Normal);
/// assert_eq!(groups.members("choir").values().collect::<Vec<_>>(), [&"ann"]);
/// ```
pub struct Groups<K, V> {
    shared: Arc<Shared<K, V>>,
}

struct Shared<K, V> {
    hashing: Hashing,
    state: Mutex<State<K, V>>,
}

struct State<K, V> {
    lists: Lists<K, V>,
    /// Monitors the members. Absent while somebody looks after it.
    device: Option<Device>,
    bell: Option<Waker>,
    /// The bell was rung while the device was away.
    rung: bool,
    /// Links to be made and unmade, in this order.
    chores: VecDeque<Chore>,
    feeds: HashMap<u64, Feed<K, V>>,
    /// The feeds of those who want to know of all groups.
    everywhere: Vec<u64>,
    next_feed: u64,
}

enum Chore {
    Watch(Line),
    Unwatch(Line),
}

/// Groups, each with its members.
///
/// ```
/// use backplane_actor::AllMembers;
///
/// fn sizes(all: &AllMembers<&str, &str>) -> Vec<(String, usize)> {
///     all.iter().map(|(group, members)| (group.to_string(), members.len())).collect()
/// }
/// # use backplane::Device;
/// # use backplane_actor::Groups;
/// # let (groups, ann, bob) = (Groups::new(), Device::new(), Device::new());
/// # groups.join("choir", &ann.line(), "ann").unwrap();
/// # groups.join("choir", &bob.line(), "bob").unwrap();
/// assert_eq!(sizes(&groups.groups()), [("choir".to_owned(), 2)]);
/// ```
pub type AllMembers<K, V> = Vec<(Arc<K>, Members<V>)>;

/// What somebody has not heard yet.
struct Feed<K, V> {
    changes: VecDeque<Change<K, V>>,
    waker: Option<Waker>,
}

/// What happened in a group.
///
/// ```
/// use backplane::{Device, Exit};
/// use backplane_actor::{Change, Groups};
///
/// let (groups, ann) = (Groups::new(), Device::new());
/// let (_, mut changes) = groups.monitor("choir");
/// groups.join("choir", &ann.line(), "ann").unwrap();
/// ann.disconnect(Exit::Normal);
/// let mut said = Vec::new();
/// while let Some(change) = changes.try_receive() {
///     match change {
///         Change::Joined { member, .. } => said.push(format!("welcome, {}", member.value)),
///         Change::Left { member, .. } => said.push(format!("farewell, {}", member.value)),
///         _ => {}
///     }
/// }
/// assert_eq!(said, ["welcome, ann", "farewell, ann"]);
/// ```
#[non_exhaustive]
pub enum Change<K, V> {
    /// Somebody came.
    Joined {
        /// Where.
        group: Arc<K>,
        /// Who.
        member: Arc<Member<V>>,
    },
    /// Somebody left, or ended.
    Left {
        /// Where.
        group: Arc<K>,
        /// Who.
        member: Arc<Member<V>>,
    },
}

impl<K, V> Change<K, V> {
    /// In which group it happened.
    ///
    /// ```
    /// # use backplane::Device;
    /// # use backplane_actor::Groups;
    /// # let (groups, ann) = (Groups::new(), Device::new());
    /// let (_, mut changes) = groups.monitor("choir");
    /// groups.join("choir", &ann.line(), "ann").unwrap();
    /// assert_eq!(*changes.try_receive().unwrap().group(), "choir");
    /// ```
    pub fn group(&self) -> &K {
        match self {
            Change::Joined { group, .. } | Change::Left { group, .. } => group,
        }
    }

    /// To whom.
    ///
    /// ```
    /// # use backplane::Device;
    /// # use backplane_actor::Groups;
    /// # let (groups, ann) = (Groups::new(), Device::new());
    /// let (_, mut changes) = groups.monitor("choir");
    /// groups.join("choir", &ann.line(), "ann").unwrap();
    /// let change = changes.try_receive().unwrap();
    /// assert_eq!((change.member().owner, change.member().value), (ann.line(), "ann"));
    /// ```
    pub fn member(&self) -> &Member<V> {
        match self {
            Change::Joined { member, .. } | Change::Left { member, .. } => member,
        }
    }

    /// Whether somebody came.
    ///
    /// ```
    /// # use backplane::Device;
    /// # use backplane_actor::Groups;
    /// # let (groups, ann) = (Groups::new(), Device::new());
    /// let (_, mut changes) = groups.monitor("choir");
    /// groups.join("choir", &ann.line(), "ann").unwrap();
    /// assert!(changes.try_receive().unwrap().is_join());
    /// drop(ann);
    /// assert!(!changes.try_receive().unwrap().is_join());
    /// ```
    pub fn is_join(&self) -> bool {
        matches!(self, Change::Joined { .. })
    }
}

impl<K, V> Clone for Change<K, V> {
    fn clone(&self) -> Change<K, V> {
        match self {
            Change::Joined { group, member } => {
                Change::Joined { group: Arc::clone(group), member: Arc::clone(member) }
            }
            Change::Left { group, member } => {
                Change::Left { group: Arc::clone(group), member: Arc::clone(member) }
            }
        }
    }
}

impl<K, V> Clone for Groups<K, V> {
    fn clone(&self) -> Groups<K, V> {
        Groups { shared: Arc::clone(&self.shared) }
    }
}

impl<K: Send + Sync + 'static, V: Send + Sync + 'static> Default for Groups<K, V> {
    fn default() -> Groups<K, V> {
        Groups::new()
    }
}

impl<K: Send + Sync + 'static, V: Send + Sync + 'static> Groups<K, V> {
    /// No groups yet.
    ///
    /// ```
    /// use backplane_actor::Groups;
    ///
    /// let groups = Groups::<&str, u32>::new();
    /// assert!(groups.groups().is_empty());
    /// ```
    pub fn new() -> Groups<K, V> {
        let state = State {
            lists: Lists::new(),
            device: Some(Device::new()),
            bell: None,
            rung: false,
            chores: VecDeque::new(),
            feeds: HashMap::new(),
            everywhere: Vec::new(),
            next_feed: 0,
        };
        let shared = Arc::new(Shared { hashing: Hashing::default(), state: Mutex::new(state) });
        let bell = Waker::from(Arc::new(Bell(Arc::downgrade(&shared))));
        lock(&shared.state).bell = Some(bell);
        Groups { shared }
    }
}

impl<K: Hash + Eq, V> Groups<K, V> {
    /// Puts an owner into a group, behind all who are in it. Who wants to know is told.
    ///
    /// # Errors
    ///
    /// If the owner has ended. Group and value come back.
    ///
    /// ```
    /// use backplane::Device;
    /// use backplane_actor::Groups;
    ///
    /// let (groups, ann) = (Groups::new(), Device::new());
    /// let line = ann.line();
    /// groups.join("choir", &line, "alto").unwrap();
    /// groups.join("choir", &line, "alto").unwrap(); // counts twice
    /// assert_eq!(groups.members("choir").len(), 2);
    /// drop(ann);
    /// assert_eq!(groups.join("choir", &line, "alto").unwrap_err().into_inner(), ("choir", "alto"));
    /// ```
    pub fn join(&self, group: K, owner: &Line, value: V) -> Result<(), OwnerEnded<K, V>> {
        let hash = self.shared.hashing.hash(&group);
        if !owner.is_alive() {
            return Err(OwnerEnded { name: group, value });
        }
        let member = Arc::new(Member { owner: *owner, value });
        loop {
            let seen = self.seek::<K>(hash, &group);
            let mut state = lock(&self.shared.state);
            if !state.lists.keyed().is_still(&seen) {
                continue;
            }
            if !state.lists.knows(owner.id()) {
                state.chores.push_back(Chore::Watch(*owner));
            }
            let (group, spare) = state.lists.join(&seen, group, Arc::clone(&member));
            let watchers = state.lists.watchers(hash, &group).to_vec();
            let wakers = state.tell(&Change::Joined { group, member }, &watchers);
            drop(state);
            drop(spare);
            wake_all(wakers);
            self.shared.look_after();
            return Ok(());
        }
    }

    /// Takes an owner out of a group, once if it is in it more than once: the one that joined first. Who wants to know is
    /// told. What it brought comes back; `None` if it was not in it.
    ///
    /// ```
    /// use backplane::Device;
    /// use backplane_actor::Groups;
    ///
    /// let (groups, ann) = (Groups::new(), Device::new());
    /// groups.join("choir", &ann.line(), "alto").unwrap();
    /// assert_eq!(groups.leave("choir", &ann.line()).map(|member| member.value), Some("alto"));
    /// assert!(groups.leave("choir", &ann.line()).is_none());
    /// ```
    pub fn leave<Q>(&self, group: &Q, owner: &Line) -> Option<Arc<Member<V>>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let hash = self.shared.hashing.hash(group);
        loop {
            let seen = self.seek(hash, group);
            let mut state = lock(&self.shared.state);
            if !state.lists.keyed().is_still(&seen) {
                continue;
            }
            let left = state.lists.leave(&seen, owner.id(), 1).pop()?;
            if !state.lists.knows(owner.id()) {
                state.chores.push_back(Chore::Unwatch(*owner));
            }
            let member = Arc::clone(&left.member);
            let wakers = state.tell_left(&left);
            drop(state);
            wake_all(wakers);
            self.shared.look_after();
            return Some(member);
        }
    }

    /// Who is in a group, in the order in which they came.
    ///
    /// ```
    /// # use backplane::Device;
    /// # use backplane_actor::Groups;
    /// # let (groups, ann, bob) = (Groups::new(), Device::new(), Device::new());
    /// # groups.join("choir", &ann.line(), "ann").unwrap();
    /// # groups.join("choir", &bob.line(), "bob").unwrap();
    /// assert_eq!(groups.members("choir").values().collect::<Vec<_>>(), [&"ann", &"bob"]);
    /// assert!(groups.members("orchestra").is_empty());
    /// ```
    pub fn members<Q>(&self, group: &Q) -> Members<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.shared.with(group, |state, seen| state.lists.members(seen))
    }

    /// The groups that somebody is in, each with its members, in no order.
    ///
    /// ```
    /// # use backplane::Device;
    /// # use backplane_actor::Groups;
    /// # let (groups, ann, bob) = (Groups::new(), Device::new(), Device::new());
    /// # groups.join("choir", &ann.line(), "ann").unwrap();
    /// # groups.join("choir", &bob.line(), "bob").unwrap();
    /// groups.join("band", &ann.line(), "ann").unwrap();
    /// let mut names: Vec<_> = groups.groups().iter().map(|(group, _)| **group).collect();
    /// names.sort();
    /// assert_eq!(names, ["band", "choir"]);
    /// ```
    pub fn groups(&self) -> AllMembers<K, V> {
        let mut all = lock(&self.shared.state).lists.all();
        all.retain(|(_, members)| !members.is_empty());
        all
    }

    /// The groups that an owner is in, in the order in which it came there; as often as it is.
    ///
    /// ```
    /// # use backplane::Device;
    /// # use backplane_actor::Groups;
    /// # let (groups, ann, bob) = (Groups::new(), Device::new(), Device::new());
    /// # groups.join("choir", &ann.line(), "ann").unwrap();
    /// # groups.join("choir", &bob.line(), "bob").unwrap();
    /// groups.join("band", &ann.line(), "ann").unwrap();
    /// let of_ann: Vec<_> = groups.groups_of(&ann.line()).iter().map(|group| **group).collect();
    /// assert_eq!(of_ann, ["choir", "band"]);
    /// ```
    pub fn groups_of(&self, owner: &Line) -> Vec<Arc<K>> {
        if !owner.is_alive() {
            return Vec::new();
        }
        lock(&self.shared.state).lists.names_of(owner.id())
    }

    /// Who is in a group, and from then on who comes and who leaves: each of it once, in the order in which it happened, and
    /// none that is in the list.
    ///
    /// A member that has ended, but whose end has not been told here yet, is in the list too, though [`Members::iter`] leaves
    /// it out; its leaving will be told.
    ///
    /// ```
    /// # use std::{pin::pin, future::Future, task::{Context, Poll, Waker}};
    /// use backplane::Device;
    /// use backplane_actor::Groups;
    ///
    /// let (groups, ann) = (Groups::new(), Device::new());
    /// let (members, mut changes) = groups.monitor("choir");
    /// assert!(members.is_empty());
    /// groups.join("choir", &ann.line(), "ann").unwrap();
    /// drop(ann);
    /// # let cx = &mut Context::from_waker(Waker::noop());
    /// # let _ = "
    /// let (joined, left) = (changes.receive().await, changes.receive().await);
    /// # ";
    /// # let Poll::Ready(joined) = pin!(changes.receive()).poll(cx) else { panic!() };
    /// # let Poll::Ready(left) = pin!(changes.receive()).poll(cx) else { panic!() };
    /// assert!(joined.is_join() && joined.member().value == "ann");
    /// assert!(!left.is_join() && left.member().value == "ann");
    /// ```
    pub fn monitor(&self, group: K) -> (Members<V>, Changes<K, V>) {
        let hash = self.shared.hashing.hash(&group);
        loop {
            let seen = self.seek::<K>(hash, &group);
            let mut state = lock(&self.shared.state);
            if !state.lists.keyed().is_still(&seen) {
                continue;
            }
            let members = state.lists.members(&seen);
            let feed = state.open_feed();
            let (group, spare) = state.lists.watch(&seen, group, feed);
            drop(state);
            drop(spare);
            return (members, Changes { shared: Arc::clone(&self.shared), feed, of: Some((hash, group)) });
        }
    }

    /// The same for all groups, those that do not exist yet included.
    ///
    /// ```
    /// # use backplane::Device;
    /// # use backplane_actor::Groups;
    /// # let (groups, ann, bob) = (Groups::new(), Device::new(), Device::new());
    /// # groups.join("choir", &ann.line(), "ann").unwrap();
    /// # groups.join("choir", &bob.line(), "bob").unwrap();
    /// let (all, mut changes) = groups.monitor_all();
    /// assert_eq!(all.len(), 1); // the choir
    /// groups.join("band", &ann.line(), "ann").unwrap();
    /// assert_eq!(*changes.try_receive().unwrap().group(), "band");
    /// drop(bob);
    /// assert_eq!(changes.try_receive().unwrap().member().value, "bob");
    /// ```
    pub fn monitor_all(&self) -> (AllMembers<K, V>, Changes<K, V>) {
        let mut state = lock(&self.shared.state);
        let all = state.lists.all();
        let feed = state.open_feed();
        state.everywhere.push(feed);
        drop(state);
        (all, Changes { shared: Arc::clone(&self.shared), feed, of: None })
    }

    /// Does something for each member of a group, one after another, with no lock held; returns for how many.
    ///
    /// To send one message to all without a copy of what is in it, send each a clone of an `Arc`:
    ///
    /// ```
    /// use backplane::Device;
    /// use backplane_actor::Groups;
    /// use std::sync::{Arc, mpsc};
    ///
    /// let (groups, ann, bob) = (Groups::new(), Device::new(), Device::new());
    /// let (send, receive) = mpsc::channel();
    /// groups.join("choir", &ann.line(), send.clone()).unwrap();
    /// groups.join("choir", &bob.line(), send).unwrap();
    ///
    /// let score: Arc<[u8]> = Arc::new([0; 65_536]);
    /// assert_eq!(groups.dispatch("choir", |member| drop(member.value.send(Arc::clone(&score)))), 2);
    /// let (first, second) = (receive.recv().unwrap(), receive.recv().unwrap());
    /// assert!(Arc::ptr_eq(&first, &second));
    /// ```
    pub fn dispatch<Q>(&self, group: &Q, mut each: impl FnMut(&Member<V>)) -> usize
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.members(group).iter().map(|member| each(member)).count()
    }

    /// A hand on one group that gives work to its members in turn; Bastion's `Distributor`.
    ///
    /// ```
    /// # use backplane::Device;
    /// # use backplane_actor::Groups;
    /// # let (groups, ann, bob) = (Groups::new(), Device::new(), Device::new());
    /// # groups.join("choir", &ann.line(), "ann").unwrap();
    /// # groups.join("choir", &bob.line(), "bob").unwrap();
    /// let choir = groups.distributor("choir");
    /// let mut whose_turn = || choir.one().unwrap().value;
    /// assert_eq!((whose_turn(), whose_turn(), whose_turn()), ("ann", "bob", "ann"));
    /// ```
    pub fn distributor(&self, group: K) -> Distributor<K, V> {
        Distributor { groups: self.clone(), group: Arc::new(group), turn: Arc::new(AtomicU64::new(FIRST)) }
    }

    fn seek<Q>(&self, hash: u64, name: &Q) -> Seen<K>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        self.shared.seek(hash, name)
    }
}

impl<K, V> Shared<K, V> {
    fn seek<Q>(&self, hash: u64, name: &Q) -> Seen<K>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let names = lock(&self.state).lists.keyed().names(hash);
        Seen::compare(hash, names, name)
    }

    fn with<Q, T>(&self, name: &Q, look: impl Fn(&State<K, V>, &Seen<K>) -> T) -> T
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let hash = self.hashing.hash(name);
        loop {
            let seen = self.seek(hash, name);
            let state = lock(&self.state);
            if state.lists.keyed().is_still(&seen) {
                return look(&state, &seen);
            }
        }
    }

    /// Makes the links that are to be made, and takes out those whose end has been told; unless somebody is at it, who will
    /// find what there is to do.
    fn look_after(&self) {
        let mut state = lock(&self.state);
        if state.chores.is_empty() && !state.rung {
            return;
        }
        let Some(device) = state.device.take() else { return };
        let mut care = Care { shared: self, device: Some(device) };
        loop {
            // Locked, here.
            let Some(device) = &mut care.device else { return };
            if let Some(chore) = state.chores.pop_front() {
                drop(state);
                match chore {
                    Chore::Watch(line) => device.link(&line, LinkMode::Monitor),
                    Chore::Unwatch(line) => device.unlink(&line, LinkMode::Monitor),
                }
                state = lock(&self.state);
                continue;
            }
            state.rung = false;
            let bell = state.bell.clone();
            drop(state);
            let mut cx = Context::from_waker(bell.as_ref().unwrap_or(Waker::noop()));
            let news = device.poll_receive(&mut cx);
            state = lock(&self.state);
            match news {
                Poll::Ready(Message::Disconnect(news)) => {
                    let left = state.lists.leave_all(news.device);
                    let mut wakers = Vec::new();
                    for left in &left {
                        wakers.append(&mut state.tell_left(left));
                    }
                    drop(state);
                    wake_all(wakers);
                    drop(left);
                    state = lock(&self.state);
                }
                Poll::Ready(Message::Shutdown(_)) => {}
                Poll::Pending if state.chores.is_empty() && !state.rung => {
                    state.device = care.device.take();
                    return;
                }
                Poll::Pending => {}
            }
        }
    }
}

/// Puts the device back, whatever happens to whoever looks after it.
struct Care<'a, K, V> {
    shared: &'a Shared<K, V>,
    device: Option<Device>,
}

impl<K, V> Drop for Care<'_, K, V> {
    fn drop(&mut self) {
        if let Some(device) = self.device.take() {
            let mut state = lock(&self.shared.state);
            state.device = Some(device);
            // There may be more to do: the next one looks.
            state.rung = true;
        }
    }
}

/// Wakes whoever looks after the groups' device: whoever rings.
struct Bell<K, V>(Weak<Shared<K, V>>);

impl<K: Send + Sync + 'static, V: Send + Sync + 'static> Wake for Bell<K, V> {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(shared) = self.0.upgrade() {
            lock(&shared.state).rung = true;
            shared.look_after();
        }
    }
}

impl<K, V> State<K, V> {
    fn open_feed(&mut self) -> u64 {
        self.next_feed += 1;
        self.feeds.insert(self.next_feed, Feed { changes: VecDeque::new(), waker: None });
        self.next_feed
    }

    /// Tells all who want to know; they are to be woken when nothing is locked any more.
    fn tell(&mut self, change: &Change<K, V>, watchers: &[u64]) -> Vec<Waker> {
        let mut wakers = Vec::new();
        for watcher in watchers.iter().chain(&self.everywhere) {
            if let Some(feed) = self.feeds.get_mut(watcher) {
                feed.changes.push_back(change.clone());
                wakers.extend(feed.waker.take());
            }
        }
        wakers
    }

    fn tell_left(&mut self, left: &Left<K, V>) -> Vec<Waker> {
        let change = Change::Left { group: Arc::clone(&left.name), member: Arc::clone(&left.member) };
        self.tell(&change, &left.watchers)
    }
}

/// Comings and goings, as they happen; made by [`Groups::monitor`] and [`Groups::monitor_all`]. Dropped, it hears no more.
///
/// What is not taken waits, all of it.
///
/// ```
/// # use backplane::Device;
/// # use backplane_actor::Groups;
/// # let (groups, ann, bob) = (Groups::new(), Device::new(), Device::new());
/// # groups.join("choir", &ann.line(), "ann").unwrap();
/// # groups.join("choir", &bob.line(), "bob").unwrap();
/// let (members, mut changes) = groups.monitor("choir");
/// assert_eq!(members.len(), 2);
/// groups.leave("choir", &ann.line());
/// groups.join("choir", &ann.line(), "ann, again").unwrap();
/// assert_eq!(changes.try_receive().unwrap().member().value, "ann");
/// assert_eq!(changes.try_receive().unwrap().member().value, "ann, again");
/// ```
pub struct Changes<K, V> {
    shared: Arc<Shared<K, V>>,
    feed: u64,
    of: Option<(u64, Arc<K>)>,
}

impl<K, V> Changes<K, V> {
    /// Waits for the next change.
    ///
    /// Cancellation-safe: a change is taken only when it is returned.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::Device;
    /// # use backplane_actor::Groups;
    /// # let (groups, ann, bob) = (Groups::new(), Device::new(), Device::new());
    /// # groups.join("choir", &ann.line(), "ann").unwrap();
    /// # groups.join("choir", &bob.line(), "bob").unwrap();
    /// let (_, mut changes) = groups.monitor("choir");
    /// let singer = std::thread::spawn(move || drop(bob)); // from wherever it comes
    /// let change = smol::block_on(changes.receive());
    /// assert!(!change.is_join() && change.member().value == "bob");
    /// # singer.join().unwrap();
    /// # }
    /// ```
    pub fn receive(&mut self) -> impl Future<Output = Change<K, V>> {
        future::poll_fn(|cx| self.poll_receive(cx))
    }

    /// The next change, if there is one.
    ///
    /// ```
    /// # use backplane::Device;
    /// # use backplane_actor::Groups;
    /// # let (groups, ann, bob) = (Groups::new(), Device::new(), Device::new());
    /// # groups.join("choir", &ann.line(), "ann").unwrap();
    /// # groups.join("choir", &bob.line(), "bob").unwrap();
    /// let (_, mut changes) = groups.monitor("choir");
    /// assert!(changes.try_receive().is_none());
    /// drop(bob);
    /// assert_eq!(changes.try_receive().unwrap().member().value, "bob");
    /// ```
    pub fn try_receive(&mut self) -> Option<Change<K, V>> {
        let mut state = lock(&self.shared.state);
        state.feeds.get_mut(&self.feed)?.changes.pop_front()
    }

    /// As [`receive`](Changes::receive), for futures written by hand. The waker of the last call is the one that is told.
    ///
    /// ```
    /// # use backplane::Device;
    /// # use backplane_actor::Groups;
    /// # let (groups, ann, bob) = (Groups::new(), Device::new(), Device::new());
    /// # groups.join("choir", &ann.line(), "ann").unwrap();
    /// # groups.join("choir", &bob.line(), "bob").unwrap();
    /// # use std::task::{Context, Poll, Waker};
    /// let (_, mut changes) = groups.monitor("choir");
    /// let cx = &mut Context::from_waker(Waker::noop());
    /// assert!(changes.poll_receive(cx).is_pending());
    /// drop(bob); // wakes
    /// let Poll::Ready(change) = changes.poll_receive(cx) else { panic!("nobody left") };
    /// assert_eq!(change.member().value, "bob");
    /// ```
    pub fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Change<K, V>> {
        let mut waker = Some(cx.waker().clone());
        let mut state = lock(&self.shared.state);
        let poll = match state.feeds.get_mut(&self.feed) {
            Some(feed) => match feed.changes.pop_front() {
                Some(change) => Poll::Ready(change),
                None => {
                    std::mem::swap(&mut feed.waker, &mut waker);
                    Poll::Pending
                }
            },
            None => Poll::Pending,
        };
        drop(state);
        drop(waker);
        poll
    }
}

impl<K, V> Drop for Changes<K, V> {
    fn drop(&mut self) {
        let mut state = lock(&self.shared.state);
        let feed = state.feeds.remove(&self.feed);
        match &self.of {
            Some((hash, name)) => state.lists.unwatch(*hash, name, self.feed),
            None => state.everywhere.retain(|other| *other != self.feed),
        }
        drop(state);
        drop(feed);
    }
}

/// No member has had a turn yet.
const FIRST: u64 = u64::MAX;

/// Gives work to the members of a group; made by [`Groups::distributor`]. Clones take turns together.
///
/// ```
/// use backplane::Device;
/// use backplane_actor::Groups;
///
/// let (groups, ann, bob) = (Groups::new(), Device::new(), Device::new());
/// let choir = groups.distributor("choir");
/// assert!(choir.one().is_none());
/// groups.join("choir", &ann.line(), "ann").unwrap();
/// groups.join("choir", &bob.line(), "bob").unwrap();
/// let turns: Vec<_> = (0..3).filter_map(|_| choir.one()).map(|member| member.value).collect();
/// assert_eq!(turns, ["ann", "bob", "ann"]);
/// assert_eq!(choir.everyone().len(), 2);
/// ```
pub struct Distributor<K, V> {
    groups: Groups<K, V>,
    group: Arc<K>,
    /// Who had the last turn.
    turn: Arc<AtomicU64>,
}

impl<K: Hash + Eq, V> Distributor<K, V> {
    /// Whose turn it is: the members that live, one after another, round and round. `None` if there is none.
    ///
    /// ```
    /// # use backplane::Device;
    /// # use backplane_actor::Groups;
    /// # let (groups, ann, bob) = (Groups::new(), Device::new(), Device::new());
    /// # groups.join("choir", &ann.line(), "ann").unwrap();
    /// # groups.join("choir", &bob.line(), "bob").unwrap();
    /// let choir = groups.distributor("choir");
    /// assert_eq!(choir.one().unwrap().value, "ann");
    /// drop(bob); // whose turn it would be
    /// assert_eq!(choir.one().unwrap().value, "ann");
    /// drop(ann);
    /// assert!(choir.one().is_none());
    /// ```
    pub fn one(&self) -> Option<Arc<Member<V>>> {
        self.groups.shared.with(&*self.group, |state, seen| {
            // Under the lock: two that ask at once get two.
            let last = self.turn.load(Ordering::Relaxed);
            let (number, member) = state.lists.after(seen, (last != FIRST).then_some(last))?;
            self.turn.store(number, Ordering::Relaxed);
            Some(member)
        })
    }

    /// All members.
    ///
    /// ```
    /// # use backplane::Device;
    /// # use backplane_actor::Groups;
    /// # let (groups, ann, bob) = (Groups::new(), Device::new(), Device::new());
    /// # groups.join("choir", &ann.line(), "ann").unwrap();
    /// # groups.join("choir", &bob.line(), "bob").unwrap();
    /// let choir = groups.distributor("choir");
    /// assert_eq!(choir.everyone().values().collect::<Vec<_>>(), [&"ann", &"bob"]);
    /// ```
    pub fn everyone(&self) -> Members<V> {
        self.groups.members(&*self.group)
    }

    /// Gives something to one member: to the one whose turn it is, or, if that gives it back, to the next, until each has
    /// been asked.
    ///
    /// # Errors
    ///
    /// If nobody took it; it comes back.
    ///
    /// ```
    /// use backplane::Device;
    /// use backplane_actor::Groups;
    ///
    /// let (groups, ann, bob) = (Groups::new(), Device::new(), Device::new());
    /// groups.join("choir", &ann.line(), "ann").unwrap();
    /// groups.join("choir", &bob.line(), "bob").unwrap();
    /// let choir = groups.distributor("choir");
    /// // Ann is hoarse.
    /// let sung = choir.give_one("solo", |member, part| if member.value == "ann" { Err(part) } else { Ok(part) });
    /// assert_eq!(sung, Ok("solo"));
    /// assert_eq!(choir.give_one("solo", |_, part| Err::<(), _>(part)), Err("solo"));
    /// ```
    pub fn give_one<M, T>(
        &self,
        what: M,
        mut give: impl FnMut(&Member<V>, M) -> Result<T, M>,
    ) -> Result<T, M> {
        let mut what = what;
        for _ in 0..self.everyone().len() {
            let Some(member) = self.one() else { break };
            match give(&member, what) {
                Ok(taken) => return Ok(taken),
                Err(back) => what = back,
            }
        }
        Err(what)
    }
}

impl<K: Hash + Eq, M: Send + 'static> Groups<K, Address<M>> {
    /// Puts the incarnation of an actor that runs into a group; see [`join`](Groups::join).
    ///
    /// # Errors
    ///
    /// If none runs. Group and address come back.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane_actor::{Groups, Options};
    /// let (choir, (singer, home)) = (Groups::new(), system.prepare::<&str>(Options::new()));
    /// assert!(choir.join_actor("choir", &singer).is_err()); // none runs
    /// let run = home.run(backplane::Device::new(), |_mailbox| async {});
    /// choir.join_actor("choir", &singer).unwrap();
    /// assert_eq!(choir.members("choir").values().collect::<Vec<_>>(), [&singer]);
    /// drop(run);
    /// assert!(choir.members("choir").is_empty());
    /// # }
    /// ```
    pub fn join_actor(&self, group: K, actor: &Address<M>) -> Result<(), OwnerEnded<K, Address<M>>> {
        match actor.line() {
            Some(line) => self.join(group, &line, actor.clone()),
            None => Err(OwnerEnded { name: group, value: actor.clone() }),
        }
    }

    /// Sends one message to all members that have room, without a copy of what is in it; returns to how many. `refused` gets
    /// what the others do not take.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// use backplane_actor::{Groups, Mailbox, System};
    /// use std::sync::Arc;
    ///
    /// let (system, choir) = (System::new(Smol::global()), Groups::new());
    /// for _ in 0..3 {
    ///     let singer = system.spawn(|mut scores: Mailbox<Arc<str>>| async move {
    ///         while let Some(_score) = scores.receive().await {}
    ///     });
    ///     choir.join_actor("choir", &singer).unwrap();
    /// }
    /// let score: Arc<str> = "la".into();
    /// assert_eq!(choir.broadcast("choir", &score, |_, refused| panic!("{refused}")), 3);
    /// # }
    /// ```
    pub fn broadcast<Q, P, I>(
        &self,
        group: &Q,
        message: &Arc<P>,
        mut refused: impl FnMut(&Member<Address<M>>, TryCastError<Arc<P>>),
    ) -> usize
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
        P: ?Sized,
        M: Accepts<Arc<P>, I>,
    {
        let mut told = 0;
        self.dispatch(group, |member| match member.value.try_cast(Arc::clone(message)) {
            Ok(()) => told += 1,
            Err(error) => refused(member, error),
        });
        told
    }
}

impl<K: Hash + Eq, M: Send + 'static> Distributor<K, Address<M>> {
    /// Sends to one member: to the one whose turn it is, or, if that has no room, to the next.
    ///
    /// # Errors
    ///
    /// The message, if nobody has room.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane::Device;
    /// # use backplane_actor::{Groups, Options};
    /// # let choir = Groups::new();
    /// # let (ann, at_ann) = system.prepare::<&str>(Options::new().capacity(1));
    /// # let (bob, at_bob) = system.prepare::<&str>(Options::new().capacity(1));
    /// # let _ann = at_ann.run(Device::new(), |_mailbox| async {});
    /// # let _bob = at_bob.run(Device::new(), |_mailbox| async {});
    /// # choir.join_actor("choir", &ann).unwrap();
    /// # choir.join_actor("choir", &bob).unwrap();
    /// let choir = choir.distributor("choir");
    /// for song in ["one", "two"] {
    ///     choir.tell_one(song).unwrap();
    /// }
    /// assert_eq!((ann.load().normal, bob.load().normal), (1, 1));
    /// assert_eq!(choir.tell_one("three"), Err("three")); // each has room for one
    /// # }
    /// ```
    pub fn tell_one<X, I>(&self, message: X) -> Result<(), X>
    where
        M: Accepts<X, I>,
    {
        self.give_one(message, |member, message| {
            member.value.try_cast(message).map_err(TryCastError::into_inner)
        })
    }

    /// Sends one message to all members; see [`Groups::broadcast`].
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane::Device;
    /// # use backplane_actor::{Groups, Options};
    /// # use std::sync::Arc;
    /// # let choir = Groups::new();
    /// # let (ann, at_ann) = system.prepare::<Arc<str>>(Options::new().capacity(1));
    /// # let (bob, at_bob) = system.prepare::<Arc<str>>(Options::new().capacity(1));
    /// # let _ann = at_ann.run(Device::new(), |_mailbox| async {});
    /// # let _bob = at_bob.run(Device::new(), |_mailbox| async {});
    /// # choir.join_actor("choir", &ann).unwrap();
    /// # choir.join_actor("choir", &bob).unwrap();
    /// let choir = choir.distributor("choir");
    /// let song: Arc<str> = "la".into();
    /// assert_eq!(choir.tell_everyone(&song, |_, _| unreachable!("both have room")), 2);
    /// let mut refused = 0;
    /// assert_eq!(choir.tell_everyone(&song, |_, _| refused += 1), 0);
    /// assert_eq!(refused, 2);
    /// # }
    /// ```
    pub fn tell_everyone<P, I>(
        &self,
        message: &Arc<P>,
        refused: impl FnMut(&Member<Address<M>>, TryCastError<Arc<P>>),
    ) -> usize
    where
        P: ?Sized,
        M: Accepts<Arc<P>, I>,
    {
        self.groups.broadcast(&*self.group, message, refused)
    }

    /// Asks the member whose turn it is; `None` if there is none.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// use backplane::runtime::Smol;
    /// use backplane_actor::{Groups, Mailbox, Reply, System};
    ///
    /// let (system, choir) = (System::new(Smol::global()), Groups::new());
    /// for note in ["do", "re"] {
    ///     let singer = system.spawn(move |mut asked: Mailbox<Reply<&str>>| async move {
    ///         while let Some(reply) = asked.receive().await {
    ///             reply.send(note);
    ///         }
    ///     });
    ///     choir.join_actor("choir", &singer).unwrap();
    /// }
    /// let choir = choir.distributor("choir");
    /// smol::block_on(async {
    ///     assert_eq!(choir.ask_one(|reply| reply).await, Some(Ok("do")));
    ///     assert_eq!(choir.ask_one(|reply| reply).await, Some(Ok("re")));
    ///     assert_eq!(choir.ask_everyone(|reply| reply).await, [Ok("do"), Ok("re")]);
    /// });
    /// # }
    /// ```
    pub async fn ask_one<T, X, I>(&self, make: impl FnOnce(Reply<T>) -> X) -> Option<Result<T, CallError>>
    where
        T: Send + 'static,
        M: Accepts<X, I>,
    {
        let member = self.one()?;
        Some(member.value.ask(make).await)
    }

    /// Asks all members at once, and waits for all answers; in the order in which the members came.
    ///
    /// ```
    /// # #[cfg(feature = "smol")] {
    /// # use backplane::runtime::Smol;
    /// # use backplane_actor::System;
    /// # let system = System::new(Smol::global());
    /// # use backplane_actor::{CallError, Groups, Mailbox, Reply};
    /// # let choir = Groups::new();
    /// # let mut all = Vec::new();
    /// for note in [Some("do"), None] {
    ///     let singer = system.spawn(move |mut asked: Mailbox<Reply<&str>>| async move {
    ///         while let Some(reply) = asked.receive().await {
    ///             if let Some(note) = note { reply.send(note) }
    ///         }
    ///     });
    ///     choir.join_actor("choir", &singer).unwrap();
    /// #   all.push(singer);
    /// }
    /// let choir = choir.distributor("choir");
    /// smol::block_on(async {
    ///     assert_eq!(choir.ask_everyone(|reply| reply).await, [Ok("do"), Err(CallError::NoReply)]);
    /// });
    /// # }
    /// ```
    pub async fn ask_everyone<T, X, I>(
        &self,
        mut make: impl FnMut(Reply<T>) -> X,
    ) -> Vec<Result<T, CallError>>
    where
        T: Send + 'static,
        M: Accepts<X, I>,
    {
        let members = self.everyone();
        let mut asked: Vec<_> =
            members.iter().map(|member| (Box::pin(member.value.ask(&mut make)), None)).collect();
        future::poll_fn(|cx| {
            let mut all = true;
            for (call, answer) in asked.iter_mut().filter(|(_, answer)| answer.is_none()) {
                match call.as_mut().poll(cx) {
                    Poll::Ready(ready) => *answer = Some(ready),
                    Poll::Pending => all = false,
                }
            }
            if all { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        asked.into_iter().filter_map(|(_, answer)| answer).collect()
    }
}

impl<K, V> Clone for Distributor<K, V> {
    fn clone(&self) -> Distributor<K, V> {
        Distributor {
            groups: self.groups.clone(),
            group: Arc::clone(&self.group),
            turn: Arc::clone(&self.turn),
        }
    }
}

impl<K, V> fmt::Debug for Groups<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members = lock(&self.shared.state).lists.len();
        f.debug_struct("Groups").field("members", &members).finish_non_exhaustive()
    }
}

impl<K: fmt::Debug, V> fmt::Debug for Change<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.is_join() { "Joined" } else { "Left" };
        f.debug_struct(what).field("group", self.group()).field("owner", &self.member().owner).finish()
    }
}

impl<K, V> fmt::Debug for Changes<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes").finish_non_exhaustive()
    }
}

impl<K: fmt::Debug, V> fmt::Debug for Distributor<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Distributor").field("group", &self.group).finish_non_exhaustive()
    }
}
