//! Which CPUs there are, and which of them share their memory.

use std::{collections::BTreeSet, fmt, path::Path, thread};

/// CPUs by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuSet(BTreeSet<usize>);

impl CpuSet {
    /// In ascending order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().copied()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<usize> for CpuSet {
    fn from_iter<I: IntoIterator<Item = usize>>(cpus: I) -> CpuSet {
        CpuSet(cpus.into_iter().collect())
    }
}

/// CPUs that share their memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    id: usize,
    cpus: CpuSet,
}

impl Node {
    /// Its number.
    pub fn id(&self) -> usize {
        self.id
    }

    /// Those of its CPUs that this process may use.
    pub fn cpus(&self) -> &CpuSet {
        &self.cpus
    }
}

/// The nodes that have CPUs which this process may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    nodes: Vec<Node>,
}

/// Why a tree could not be read.
#[derive(Debug)]
#[non_exhaustive]
pub struct TopologyError;

impl fmt::Display for TopologyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not read yet")
    }
}

impl std::error::Error for TopologyError {}

impl Topology {
    /// What this process may use.
    pub fn system() -> Topology {
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        Topology::from_nodes([(0, (0..cpus).collect())])
    }

    /// What a tree says.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn read(_root: &Path) -> Result<Topology, TopologyError> {
        Err(TopologyError)
    }

    /// One of one's own.
    pub fn from_nodes(nodes: impl IntoIterator<Item = (usize, Vec<usize>)>) -> Topology {
        let nodes = nodes.into_iter().map(|(id, cpus)| Node { id, cpus: cpus.into_iter().collect() });
        Topology { nodes: nodes.filter(|node| !node.cpus.is_empty()).collect() }
    }

    /// All of them, in ascending order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }
}
