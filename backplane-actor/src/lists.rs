//! Many owners under one name: what duplicate registries and groups have in common.

use std::{
    collections::{BTreeMap, HashMap},
    error::Error,
    fmt,
};

use backplane::{DeviceId, Line};

use crate::{
    keyed::{Keyed, Seen},
    sync::Arc,
};

/// One of those who stand under a name.
///
/// ```
/// use backplane::Device;
/// use backplane_actor::Groups;
///
/// let (groups, ann) = (Groups::new(), Device::new());
/// groups.join("choir", &ann.line(), "alto").unwrap();
/// for member in groups.members("choir").iter() {
///     assert_eq!((member.owner, member.value), (ann.line(), "alto"));
/// }
/// # assert_eq!(groups.members("choir").len(), 1);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Member<V> {
    /// The device with whose end it leaves.
    pub owner: Line,
    /// What it brought.
    pub value: V,
}

/// By the order in which they came.
type List<V> = BTreeMap<u64, Arc<Member<V>>>;

/// Those who stood under a name at one moment, in the order in which they came. A clone costs a reference count.
///
/// ```
/// # use backplane::Device;
/// # use backplane_actor::Groups;
/// # let (groups, ann, bob) = (Groups::new(), Device::new(), Device::new());
/// # groups.join("choir", &ann.line(), "ann").unwrap();
/// # groups.join("choir", &bob.line(), "bob").unwrap();
/// let members = groups.members("choir");
/// let carl = Device::new();
/// groups.join("choir", &carl.line(), "carl").unwrap();
/// drop(bob);
/// // Who came later is not in it, and who has ended is passed over.
/// assert_eq!(members.values().collect::<Vec<_>>(), [&"ann"]);
/// assert_eq!(members.with_ended().count(), 2);
/// ```
pub struct Members<V> {
    list: Arc<List<V>>,
}

impl<V> Members<V> {
    fn new(list: &Arc<List<V>>) -> Members<V> {
        Members { list: Arc::clone(list) }
    }

    fn none() -> Members<V> {
        Members { list: Arc::default() }
    }

    /// Those who have not ended since.
    ///
    /// ```
    /// # use backplane::Device;
    /// # use backplane_actor::Groups;
    /// # let (groups, ann, bob) = (Groups::new(), Device::new(), Device::new());
    /// # groups.join("choir", &ann.line(), "ann").unwrap();
    /// # groups.join("choir", &bob.line(), "bob").unwrap();
    /// let members = groups.members("choir");
    /// drop(bob);
    /// assert!(members.iter().all(|member| member.owner == ann.line()));
    /// # assert_eq!(members.iter().count(), 1);
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Member<V>>> {
        self.with_ended().filter(|member| member.owner.is_alive())
    }

    /// All of them.
    ///
    /// ```
    /// # use backplane::Device;
    /// # use backplane_actor::Groups;
    /// # let (groups, ann, bob) = (Groups::new(), Device::new(), Device::new());
    /// # groups.join("choir", &ann.line(), "ann").unwrap();
    /// # groups.join("choir", &bob.line(), "bob").unwrap();
    /// let members = groups.members("choir");
    /// drop(bob);
    /// let all: Vec<_> = members.with_ended().map(|member| member.value).collect();
    /// assert_eq!(all, ["ann", "bob"]);
    /// ```
    pub fn with_ended(&self) -> impl Iterator<Item = &Arc<Member<V>>> {
        self.list.values()
    }

    /// What each of those who have not ended brought.
    ///
    /// ```
    /// # use backplane::Device;
    /// # use backplane_actor::Groups;
    /// # let (groups, ann, bob) = (Groups::new(), Device::new(), Device::new());
    /// # groups.join("choir", &ann.line(), "ann").unwrap();
    /// # groups.join("choir", &bob.line(), "bob").unwrap();
    /// let members = groups.members("choir");
    /// assert_eq!(members.values().copied().collect::<Vec<_>>().join(" and "), "ann and bob");
    /// ```
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|member| &member.value)
    }

    /// How many have not ended.
    ///
    /// ```
    /// # use backplane::Device;
    /// # use backplane_actor::Groups;
    /// # let (groups, ann, bob) = (Groups::new(), Device::new(), Device::new());
    /// # groups.join("choir", &ann.line(), "ann").unwrap();
    /// # groups.join("choir", &bob.line(), "bob").unwrap();
    /// let members = groups.members("choir");
    /// assert_eq!(members.len(), 2);
    /// drop(bob);
    /// assert_eq!(members.len(), 1);
    /// ```
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether all have ended.
    ///
    /// ```
    /// # use backplane::Device;
    /// # use backplane_actor::Groups;
    /// # let (groups, ann, bob) = (Groups::new(), Device::new(), Device::new());
    /// # groups.join("choir", &ann.line(), "ann").unwrap();
    /// # groups.join("choir", &bob.line(), "bob").unwrap();
    /// let members = groups.members("choir");
    /// assert!(!members.is_empty());
    /// drop((ann, bob));
    /// assert!(members.is_empty());
    /// ```
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

impl<V> Clone for Members<V> {
    fn clone(&self) -> Members<V> {
        Members { list: Arc::clone(&self.list) }
    }
}

impl<V: fmt::Debug> fmt::Debug for Members<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Who has ended stands under no name. Name and value come back.
///
/// ```
/// use backplane::Device;
/// use backplane_actor::Groups;
///
/// let (groups, ann) = (Groups::new(), Device::new());
/// let line = ann.line();
/// drop(ann);
/// let refused = groups.join("choir", &line, "alto").unwrap_err();
/// assert_eq!(refused.to_string(), "not put under \"choir\", for its owner has ended");
/// assert_eq!((refused.name, refused.value), ("choir", "alto"));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct OwnerEnded<K, V> {
    /// The name.
    pub name: K,
    /// What was to stand under it.
    pub value: V,
}

impl<K, V> OwnerEnded<K, V> {
    /// What was passed in.
    ///
    /// ```
    /// # use backplane::Device;
    /// # use backplane_actor::Groups;
    /// # let (groups, ann) = (Groups::new(), Device::new());
    /// # let line = ann.line();
    /// # drop(ann);
    /// let refused = groups.join("choir", &line, "alto").unwrap_err();
    /// assert_eq!(refused.into_inner(), ("choir", "alto"));
    /// ```
    pub fn into_inner(self) -> (K, V) {
        (self.name, self.value)
    }
}

impl<K: fmt::Debug, V> fmt::Display for OwnerEnded<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not put under {:?}, for its owner has ended", self.name)
    }
}

impl<K: fmt::Debug, V> fmt::Debug for OwnerEnded<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OwnerEnded({self})")
    }
}

impl<K: fmt::Debug, V> Error for OwnerEnded<K, V> {}

/// Who stands under which name; and who wants to know, under a number that means something to whoever keeps this.
pub(crate) struct Lists<K, V> {
    groups: Keyed<K, Group<V>>,
    owners: HashMap<DeviceId, Vec<Place<K>>>,
    members: usize,
    next: u64,
}

struct Group<V> {
    list: Arc<List<V>>,
    watchers: Vec<u64>,
}

/// Where an owner stands.
struct Place<K> {
    hash: u64,
    name: Arc<K>,
    number: u64,
}

/// Somebody who stands under a name no more. To be dropped when nothing is locked any more.
pub(crate) struct Left<K, V> {
    pub(crate) name: Arc<K>,
    pub(crate) member: Arc<Member<V>>,
    pub(crate) watchers: Vec<u64>,
}

impl<K, V> Lists<K, V> {
    pub(crate) fn new() -> Lists<K, V> {
        Lists { groups: Keyed::new(), owners: HashMap::new(), members: 0, next: 0 }
    }

    /// How many stand under names, those who have ended and were not taken out included.
    pub(crate) fn len(&self) -> usize {
        self.members
    }

    pub(crate) fn keyed(&self) -> &Keyed<K, impl Sized> {
        &self.groups
    }

    pub(crate) fn knows(&self, owner: DeviceId) -> bool {
        self.owners.contains_key(&owner)
    }

    /// Puts somebody under the name that was sought. Returns the name as it is kept, and `name` if it is not that one.
    pub(crate) fn join(&mut self, seen: &Seen<K>, name: K, member: Arc<Member<V>>) -> (Arc<K>, Option<K>) {
        let (owner, number) = (member.owner.id(), self.next);
        let (kept, spare) = self.name(seen, name);
        if let Some(group) = self.groups.find_mut(seen.hash, &kept) {
            // Copies the list, which runs nothing of the user's, if somebody looks at it at this moment.
            Arc::make_mut(&mut group.list).insert(number, member);
            let place = Place { hash: seen.hash, name: Arc::clone(&kept), number };
            self.owners.entry(owner).or_default().push(place);
            self.next += 1;
            self.members += 1;
        }
        (kept, spare)
    }

    /// The name as it is kept, from now on at the latest.
    fn name(&mut self, seen: &Seen<K>, name: K) -> (Arc<K>, Option<K>) {
        if let Some(kept) = seen.name() {
            return (Arc::clone(kept), Some(name));
        }
        let kept = Arc::new(name);
        self.groups.insert(
            seen.hash,
            Arc::clone(&kept),
            Group { list: Arc::default(), watchers: Vec::new() },
        );
        (kept, None)
    }

    /// Takes out what this owner has put under the name that was sought, the oldest first, at most so much of it.
    pub(crate) fn leave(&mut self, seen: &Seen<K>, owner: DeviceId, at_most: usize) -> Vec<Left<K, V>> {
        let Some(name) = seen.name() else { return Vec::new() };
        let Some(places) = self.owners.get_mut(&owner) else { return Vec::new() };
        let mut taken = Vec::new();
        places.retain(|place| {
            let goes = taken.len() < at_most && Arc::ptr_eq(&place.name, name);
            if goes {
                taken.push(place.number);
            }
            !goes
        });
        if places.is_empty() {
            self.owners.remove(&owner);
        }
        let left = taken.into_iter().filter_map(|number| self.take(seen.hash, name, number));
        left.collect()
    }

    /// Takes out an owner from under all names.
    pub(crate) fn leave_all(&mut self, owner: DeviceId) -> Vec<Left<K, V>> {
        let places = self.owners.remove(&owner).unwrap_or_default();
        let left =
            places.iter().filter_map(|place| self.take(place.hash, &place.name, place.number)).collect();
        // The names are kept by what is returned.
        drop(places);
        left
    }

    fn take(&mut self, hash: u64, name: &Arc<K>, number: u64) -> Option<Left<K, V>> {
        let group = self.groups.find_mut(hash, name)?;
        let member = Arc::make_mut(&mut group.list).remove(&number)?;
        let watchers = group.watchers.clone();
        self.members -= 1;
        self.forget_if_idle(hash, name);
        Some(Left { name: Arc::clone(name), member, watchers })
    }

    fn forget_if_idle(&mut self, hash: u64, name: &Arc<K>) {
        if self
            .groups
            .find_mut(hash, name)
            .is_some_and(|group| group.list.is_empty() && group.watchers.is_empty())
        {
            // Its list is empty, and its name is kept by whoever calls.
            self.groups.remove(hash, name);
        }
    }

    /// Takes out all who have ended.
    pub(crate) fn sweep(&mut self) -> Vec<Vec<Left<K, V>>> {
        let ended = |list: &List<V>| {
            let ended = list.values().filter(|member| !member.owner.is_alive());
            ended.map(|member| member.owner.id()).collect::<Vec<_>>()
        };
        let ended: Vec<DeviceId> = self.groups.iter().flat_map(|(_, group)| ended(&group.list)).collect();
        ended.into_iter().map(|owner| self.leave_all(owner)).collect()
    }

    pub(crate) fn members(&self, seen: &Seen<K>) -> Members<V> {
        self.groups.get(seen).map_or_else(Members::none, |group| Members::new(&group.list))
    }

    /// The next one that lives, after number `last`, round and round.
    pub(crate) fn after(&self, seen: &Seen<K>, last: Option<u64>) -> Option<(u64, Arc<Member<V>>)> {
        let list = &self.groups.get(seen)?.list;
        let from = last.map_or(0, |last| last + 1);
        let mut round = list.range(from..).chain(list.range(..from));
        round
            .find(|(_, member)| member.owner.is_alive())
            .map(|(&number, member)| (number, Arc::clone(member)))
    }

    /// Where an owner stands, as often as it does.
    pub(crate) fn names_of(&self, owner: DeviceId) -> Vec<Arc<K>> {
        self.owners.get(&owner).into_iter().flatten().map(|place| Arc::clone(&place.name)).collect()
    }

    /// The names under which somebody stands, each with those who do.
    pub(crate) fn all(&self) -> Vec<(Arc<K>, Members<V>)> {
        let groups = self.groups.iter().filter(|(_, group)| !group.list.is_empty());
        groups.map(|(name, group)| (Arc::clone(name), Members::new(&group.list))).collect()
    }

    /// Who wants to know of this name.
    pub(crate) fn watchers(&mut self, hash: u64, name: &Arc<K>) -> &[u64] {
        self.groups.find_mut(hash, name).map_or(&[], |group| &group.watchers)
    }

    /// From now on `watcher` wants to know of the name that was sought. Returns what [`join`](Lists::join) does.
    pub(crate) fn watch(&mut self, seen: &Seen<K>, name: K, watcher: u64) -> (Arc<K>, Option<K>) {
        let (kept, spare) = self.name(seen, name);
        if let Some(group) = self.groups.find_mut(seen.hash, &kept) {
            group.watchers.push(watcher);
        }
        (kept, spare)
    }

    /// And from now on no more.
    pub(crate) fn unwatch(&mut self, hash: u64, name: &Arc<K>, watcher: u64) {
        if let Some(group) = self.groups.find_mut(hash, name) {
            group.watchers.retain(|other| *other != watcher);
        }
        self.forget_if_idle(hash, name);
    }
}
