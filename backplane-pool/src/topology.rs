//! Which CPUs a process may use, and which of them share their memory.

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::{self, Read},
    num::NonZero,
    path::{Path, PathBuf},
    thread,
};

use crate::{
    cgroup,
    cpus::{CpuSet, number},
    pin,
};

/// No file that we read is as long.
const LONGEST: u64 = 1 << 22;

/// CPUs that share their memory: they reach it at the same speed, and the memory of other nodes more slowly.
///
/// ```
/// # use backplane_pool::Topology;
/// let topology = Topology::from_nodes([(3, 0..4)]);
/// let node = &topology.nodes()[0];
/// assert_eq!((node.id(), node.cpus().len()), (3, 4));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    id: usize,
    cpus: CpuSet,
}

impl Node {
    /// The number that the system gives it. Numbers may be missing: nodes without CPUs are not listed.
    ///
    /// ```
    /// # use backplane_pool::Topology;
    /// let topology = Topology::from_nodes([(0, 0..2), (3, 2..4)]);
    /// assert_eq!(topology.nodes()[1].id(), 3);
    /// ```
    pub fn id(&self) -> usize {
        self.id
    }

    /// Those of its CPUs that this process may use; never none.
    ///
    /// ```
    /// # use backplane_pool::Topology;
    /// let topology = Topology::from_nodes([(0, 0..2), (3, 2..4)]);
    /// assert_eq!(topology.nodes()[1].cpus().to_string(), "2-3");
    /// ```
    pub fn cpus(&self) -> &CpuSet {
        &self.cpus
    }
}

/// The CPUs that a process may use, by the node that they belong to.
///
/// A picture of the moment in which it was taken: a CPU that is switched on later, or a mask that is widened, is not in it.
///
/// # What is read
///
/// All of it below a root that stands for `/`, so that a tree can be made up, or brought along from another machine.
///
/// | what | where |
/// |---|---|
/// | CPUs that are switched on | `sys/devices/system/cpu/online`; if that is not there, each `cpuN` whose `online` does not say `0` |
/// | nodes | `sys/devices/system/node/nodeN`: `cpulist`, or else `cpumap`; or else the `nodeN` in a CPU's own folder |
/// | the affinity mask | `proc/self/status`, of the process's first thread: a pool made by a pinned worker is not shut in with it |
/// | cpusets and quotas | `proc/self/cgroup` and `proc/self/mountinfo`, then the group's files, version 1 and 2 |
///
/// A CPU counts if all of them agree to it. A file that is missing, or that makes no sense, has no say. A CPU that no node
/// lists is counted with the first node; one that two nodes list, with the first of the two. Without any nodes, as in many
/// containers, all CPUs are one node, 0.
///
/// ```
/// use backplane_pool::Topology;
/// for node in Topology::system().nodes() {
///     println!("node {} has the CPUs {}", node.id(), node.cpus());
/// }
/// // Or as one would have it, for a pool on a part of the machine.
/// let part = Topology::from_nodes([(0, [0, 1])]);
/// assert_eq!((part.nodes().len(), part.parallelism()), (1, 2));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Disjoint, in ascending order of their numbers, each with at least one CPU.
    nodes: Vec<Node>,
    quota: Option<NonZero<usize>>,
}

impl Topology {
    /// What this process may use, as the running system says. Reads files, and is not meant for a loop.
    ///
    /// It never fails, and never is without CPUs: what cannot be found out, such as anything where there is no Linux, makes
    /// one node, 0, of the CPUs that [`thread::available_parallelism`] counts.
    ///
    /// ```
    /// use backplane_pool::Topology;
    /// let topology = Topology::system();
    /// assert!(topology.nodes().iter().all(|node| !node.cpus().is_empty()));
    /// assert!(topology.parallelism() >= 1);
    /// ```
    pub fn system() -> Topology {
        let root = Path::new("/");
        let allowed = pin::process_cpus().or_else(|| affinity(root));
        gather(root, allowed.as_ref()).unwrap_or_else(|_| {
            // What the kernel has said itself is worth more than files that contradict it.
            let counted = || (0..thread::available_parallelism().map_or(1, usize::from)).collect();
            let cpus = allowed.filter(|cpus| !cpus.is_empty()).unwrap_or_else(counted);
            Topology { nodes: vec![Node { id: 0, cpus }], quota: cgroup::quota(root) }
        })
    }

    /// What the tree below `root` says, where `root` stands for `/`: it has folders `sys` and `proc`.
    ///
    /// # Errors
    ///
    /// [`Unreadable`](TopologyError::Unreadable) if there is neither a CPU nor a node to be read about,
    /// [`NoCpus`](TopologyError::NoCpus) if no CPU is allowed.
    ///
    /// ```
    /// use std::fs;
    /// use backplane_pool::{CpuSet, Topology};
    ///
    /// let root = std::env::temp_dir().join(format!("backplane-topology-{}", std::process::id()));
    /// let system = root.join("sys/devices/system");
    /// for (node, cpus) in [("node/node0", "0-1"), ("node/node1", "2-3"), ("node/node2", "")] {
    ///     fs::create_dir_all(system.join(node))?;
    ///     fs::write(system.join(node).join("cpulist"), cpus)?;
    /// }
    /// fs::create_dir_all(system.join("cpu"))?;
    /// fs::write(system.join("cpu/online"), "0-2")?;
    ///
    /// let topology = Topology::read(&root)?;
    /// assert_eq!(topology, Topology::from_nodes([(0, vec![0, 1]), (1, vec![2])]));
    /// # fs::remove_dir_all(root)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn read(root: &Path) -> Result<Topology, TopologyError> {
        gather(root, affinity(root).as_ref())
    }

    /// One of one's own: a part of what there is, or nodes where the system knows none.
    ///
    /// Nodes without CPUs are left out, two of the same number are one, and a CPU that is named twice stays where it was named
    /// first. Nothing is asked of the system: whether the CPUs are there shows when somebody is pinned to them.
    ///
    /// ```
    /// use backplane_pool::Topology;
    /// let topology = Topology::from_nodes([(1, 4..8), (0, 0..5), (2, 0..0)]);
    /// let nodes = topology.nodes();
    /// assert_eq!(nodes.iter().map(|node| (node.id(), node.cpus().len())).collect::<Vec<_>>(), [(0, 4), (1, 4)]);
    /// ```
    pub fn from_nodes<C: IntoIterator<Item = usize>>(
        nodes: impl IntoIterator<Item = (usize, C)>,
    ) -> Topology {
        let mut seen = CpuSet::new();
        let mut all = BTreeMap::<usize, CpuSet>::new();
        for (id, cpus) in nodes {
            let cpus: CpuSet = cpus.into_iter().filter(|cpu| seen.insert(*cpu)).collect();
            if !cpus.is_empty() {
                all.entry(id).or_default().extend(cpus);
            }
        }
        Topology { nodes: all.into_iter().map(|(id, cpus)| Node { id, cpus }).collect(), quota: None }
    }

    /// The nodes that have CPUs which the process may use, in ascending order. No CPU is in two of them.
    ///
    /// ```
    /// # use backplane_pool::Topology;
    /// let topology = Topology::from_nodes([(3, 2..4), (0, 0..2), (7, 0..0)]);
    /// let ids: Vec<_> = topology.nodes().iter().map(|node| node.id()).collect();
    /// assert_eq!(ids, [0, 3]); // the last one has no CPUs
    /// ```
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node that a CPU belongs to; `None` if the process may not use it.
    ///
    /// ```
    /// # use backplane_pool::Topology;
    /// let topology = Topology::from_nodes([(0, 0..2), (3, 2..4)]);
    /// assert_eq!(topology.node_of(2).map(|node| node.id()), Some(3));
    /// assert_eq!(topology.node_of(7), None);
    /// ```
    pub fn node_of(&self, cpu: usize) -> Option<&Node> {
        self.nodes.iter().find(|node| node.cpus.contains(cpu))
    }

    /// All CPUs that the process may use.
    ///
    /// ```
    /// # use backplane_pool::Topology;
    /// assert_eq!(Topology::from_nodes([(0, 0..2), (3, 2..4)]).cpus().to_string(), "0-3");
    /// ```
    pub fn cpus(&self) -> CpuSet {
        self.nodes.iter().flat_map(|node| node.cpus.iter()).collect()
    }

    /// How many threads can run at the same time: as many as there are CPUs, or fewer where a control group's quota says so.
    ///
    /// A container that may use 64 CPUs, and the time of one and a half, is told 2. Where a quota is not in whole CPUs it is
    /// rounded up.
    ///
    /// ```
    /// # use backplane_pool::Topology;
    /// assert_eq!(Topology::from_nodes([(0, 0..2), (1, 2..4)]).parallelism(), 4);
    /// ```
    pub fn parallelism(&self) -> usize {
        let cpus = self.nodes.iter().map(|node| node.cpus.len()).sum();
        self.quota.map_or(cpus, |quota| quota.get().min(cpus))
    }
}

/// Why a tree says nothing.
///
/// ```
/// use std::path::Path;
/// use backplane_pool::{Topology, TopologyError};
/// let error = Topology::read(Path::new("/no/such/tree")).unwrap_err();
/// let TopologyError::Unreadable(path, _) = &error else { panic!() };
/// assert!(path.starts_with("/no/such/tree/sys"));
/// assert!(error.to_string().starts_with("no CPUs can be read below /no/such/tree/sys"));
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum TopologyError {
    /// There is neither a CPU nor a node to be read about: the first thing that was looked for, and why it was not there.
    Unreadable(PathBuf, io::Error),
    /// There are CPUs, and this process may use none of them.
    NoCpus,
}

impl fmt::Display for TopologyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TopologyError::Unreadable(path, error) => {
                write!(f, "no CPUs can be read below {}: {error}", path.display())
            }
            TopologyError::NoCpus => f.write_str("no CPU may be used by this process"),
        }
    }
}

impl std::error::Error for TopologyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            TopologyError::Unreadable(_, error) => Some(error),
            TopologyError::NoCpus => None,
        }
    }
}

/// What a tree says, to a process with this mask.
fn gather(root: &Path, allowed: Option<&CpuSet>) -> Result<Topology, TopologyError> {
    let system = root.join("sys/devices/system");
    let nodes = nodes(&system.join("node"));
    let mut usable = match online(&system.join("cpu")) {
        Some(online) => online,
        None => nodes.values().flat_map(CpuSet::iter).collect(),
    };
    if usable.is_empty() {
        let path = system.join("cpu");
        let error = fs::read_dir(&path).err().unwrap_or_else(|| io::ErrorKind::InvalidData.into());
        return Err(TopologyError::Unreadable(path, error));
    }
    for some in [allowed, cgroup::cpuset(root).as_ref()].into_iter().flatten() {
        usable = usable.intersection(some);
    }
    let mut claims: Vec<(usize, CpuSet)> =
        nodes.into_iter().map(|(id, cpus)| (id, usable.take(&cpus))).collect();
    // Not in any list: a CPU may know its node all the same.
    for cpu in usable.clone().iter() {
        if let Some(id) = numbered(&system.join("cpu").join(format!("cpu{cpu}")), "node").first() {
            claims.push((*id, usable.take(&CpuSet::from_iter([cpu]))));
        }
    }
    let first = claims.iter().filter(|(_, cpus)| !cpus.is_empty()).map(|(id, _)| *id).min();
    claims.push((first.unwrap_or(0), usable));
    let topology = Topology { quota: cgroup::quota(root), ..Topology::from_nodes(claims) };
    if topology.nodes.is_empty() { Err(TopologyError::NoCpus) } else { Ok(topology) }
}

/// The CPUs of each node that says something about them.
fn nodes(folder: &Path) -> BTreeMap<usize, CpuSet> {
    let cpus = |id: &usize| {
        let node = folder.join(format!("node{id}"));
        let list = contents(&node.join("cpulist")).and_then(|list| CpuSet::from_list(&list));
        list.or_else(|| CpuSet::from_map(&contents(&node.join("cpumap"))?))
    };
    numbered(folder, "node").iter().filter_map(|id| Some((*id, cpus(id)?))).collect()
}

/// The CPUs that are switched on, if anything says which.
fn online(folder: &Path) -> Option<CpuSet> {
    let list = contents(&folder.join("online")).and_then(|list| CpuSet::from_list(&list));
    list.filter(|cpus| !cpus.is_empty()).or_else(|| {
        let off = |cpu: &usize| {
            contents(&folder.join(format!("cpu{cpu}/online"))).is_some_and(|word| word.trim_ascii() == b"0")
        };
        let all: CpuSet = numbered(folder, "cpu").into_iter().filter(|cpu| !off(cpu)).collect();
        (!all.is_empty()).then_some(all)
    })
}

/// The mask of the process whose `proc/self` this is.
fn affinity(root: &Path) -> Option<CpuSet> {
    let status = contents(&root.join("proc/self/status"))?;
    let after = |key: &[u8]| status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(key));
    let list = after(b"Cpus_allowed_list:").and_then(CpuSet::from_list);
    let cpus = list.or_else(|| after(b"Cpus_allowed:").and_then(CpuSet::from_map));
    cpus.filter(|cpus| !cpus.is_empty())
}

/// The numbers of the entries called `name` and a number, in ascending order.
fn numbered(folder: &Path, name: &str) -> Vec<usize> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut numbers: Vec<usize> = entries
        .filter_map(|entry| {
            let entry = entry.file_name();
            let digits = entry.as_encoded_bytes().strip_prefix(name.as_bytes())?;
            // `cpu` alone is no CPU, and `cpu07` is none of the kernel's.
            number(digits).filter(|number| number.to_string().as_bytes() == digits)
        })
        .collect();
    numbers.sort_unstable();
    numbers
}

/// `path`, as if `root` were `/`; never outside it.
pub(crate) fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(cgroup::tame(path))
}

/// What is in a file; `None` if it is none, or too long to be what we look for.
pub(crate) fn contents(path: &Path) -> Option<Vec<u8>> {
    // A pipe would be waited for.
    if !fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    let read = fs::File::open(path).ok()?.take(LONGEST).read_to_end(&mut bytes).ok()?;
    (u64::try_from(read).ok()? < LONGEST).then_some(bytes)
}
