//! Trees of many shapes, made up here, and what is read from each; and threads that stay where they were told to.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicUsize, Ordering},
};

use backplane_pool::{CpuSet, Topology, TopologyError};
use proptest::prelude::*;

/// A folder that stands for `/`; it ends with the test.
struct Tree(PathBuf);

impl Tree {
    fn new() -> Tree {
        static TREES: AtomicUsize = AtomicUsize::new(0);
        let name = format!("backplane-tree-{}-{}", process::id(), TREES.fetch_add(1, Ordering::Relaxed));
        let root = std::env::temp_dir().join(name);
        fs::create_dir_all(&root).expect("a folder for the tree");
        Tree(root)
    }

    fn file(&self, path: impl AsRef<Path>, contents: impl AsRef<[u8]>) -> &Tree {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().expect("it is below the root")).expect("its folder");
        fs::write(path, contents).expect("the file");
        self
    }

    fn folder(&self, path: &str) -> &Tree {
        fs::create_dir_all(self.0.join(path)).expect("the folder");
        self
    }

    fn online(&self, list: &str) -> &Tree {
        self.file("sys/devices/system/cpu/online", format!("{list}\n"))
    }

    fn node(&self, id: usize, list: &str) -> &Tree {
        self.file(format!("sys/devices/system/node/node{id}/cpulist"), format!("{list}\n"))
    }

    fn mask(&self, list: &str) -> &Tree {
        self.file("proc/self/status", format!("Name:\tpool\nCpus_allowed_list:\t{list}\nMems_allowed:\t1\n"))
    }

    fn group(&self, line: &str) -> &Tree {
        self.file("proc/self/cgroup", line)
    }

    fn mounts(&self, lines: &[&str]) -> &Tree {
        self.file("proc/self/mountinfo", lines.join("\n") + "\n")
    }

    fn read(&self) -> Result<Topology, TopologyError> {
        Topology::read(&self.0)
    }

    /// `0: 0-3; 1: 4-7`
    fn nodes(&self) -> String {
        let topology = self.read().expect("the tree says something");
        let nodes = topology.nodes().iter().map(|node| format!("{}: {}", node.id(), node.cpus()));
        nodes.collect::<Vec<_>>().join("; ")
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Two nodes of four CPUs each.
fn two_nodes() -> Tree {
    let tree = Tree::new();
    tree.online("0-7").node(0, "0-3").node(1, "4-7");
    tree
}

const UNIFIED: &str = "30 25 0:26 / /sys/fs/cgroup rw,nosuid,nodev shared:9 - cgroup2 cgroup2 rw,nsdelegate";

#[test]
fn a_machine_of_two_nodes_has_two() {
    assert_eq!(two_nodes().nodes(), "0: 0-3; 1: 4-7");
}

#[test]
fn a_kernel_that_knows_no_nodes_has_one() {
    let tree = Tree::new();
    assert_eq!(tree.online("0-15").nodes(), "0: 0-15");
}

#[test]
fn nodes_that_have_only_memory_are_not_listed() {
    let tree = Tree::new();
    tree.online("0-7").node(0, "").node(1, "0-7").node(2, "").node(3, "");
    assert_eq!(tree.nodes(), "1: 0-7");
}

#[test]
fn numbers_of_nodes_and_cpus_may_have_holes_and_be_interleaved() {
    let tree = Tree::new();
    tree.online("0-11,16-17").node(0, "0,2,4,6,8,10").node(8, "1,3,5,7,9,11").node(252, "16-17");
    assert_eq!(tree.nodes(), "0: 0,2,4,6,8,10; 8: 1,3,5,7,9,11; 252: 16-17");
}

#[test]
fn a_cpu_that_is_switched_off_does_not_count_though_its_node_lists_it() {
    let tree = Tree::new();
    tree.online("0,3-5").node(0, "0-3").node(1, "4-7").node(2, "8-11");
    assert_eq!(tree.nodes(), "0: 0,3; 1: 4-5");
}

#[test]
fn without_a_list_each_cpu_says_whether_it_is_on_and_the_first_need_not() {
    let tree = Tree::new();
    let cpus = "sys/devices/system/cpu";
    tree.folder(&format!("{cpus}/cpu0")).folder(&format!("{cpus}/cpufreq")).folder(&format!("{cpus}/cpu03"));
    tree.file(format!("{cpus}/cpu1/online"), "1\n").file(format!("{cpus}/cpu2/online"), "0\n");
    assert_eq!(tree.nodes(), "0: 0-1");
    // An empty list is none: this process runs on something.
    assert_eq!(tree.online("").nodes(), "0: 0-1");
}

#[test]
fn nodes_alone_are_enough() {
    let tree = Tree::new();
    tree.node(0, "0-1").node(1, "2-3");
    assert_eq!(tree.nodes(), "0: 0-1; 1: 2-3");
}

#[test]
fn a_map_says_the_same_as_a_list() {
    let tree = Tree::new();
    let node = |id: usize| format!("sys/devices/system/node/node{id}/cpumap");
    tree.online("0-99").file(node(0), "00000000,00000000,0000ffff,ffffffff\n");
    tree.file(node(1), "0000000f,ffffffff,ffff0000,00000000\n").file(node(2), "0\n");
    assert_eq!(tree.nodes(), "0: 0-47; 1: 48-99");
}

#[test]
fn a_map_of_one_long_word_is_read_as_well() {
    let tree = Tree::new();
    tree.file("sys/devices/system/node/node0/cpumap", "fF00000000000000001\n");
    assert_eq!(tree.nodes(), "0: 0,68-75");
}

#[test]
fn a_map_that_makes_no_sense_is_none() {
    let long = "1".to_owned() + &"0".repeat(1 << 14);
    for map in ["", ",", "g", "1,2", "1,0000000g", "0x1", "1,000000001", "00000001,", "1 2", "-1", &long] {
        let tree = two_nodes();
        tree.node(1, "?").file("sys/devices/system/node/node1/cpumap", map);
        assert_eq!(tree.nodes(), "0: 0-7", "{map:?}");
    }
    let tree = Tree::new();
    assert!(tree.file("sys/devices/system/node/node0/cpumap", long).read().is_err());
}

#[test]
fn a_list_that_makes_no_sense_gives_way_to_the_map() {
    for list in [
        "0-",
        "-3",
        "3-0",
        "0-3;4",
        "0,,1",
        "0-3-5",
        "x",
        "0-1\u{0}",
        "0x3",
        "99999999999999999999",
        "0-65536",
    ] {
        let tree = two_nodes();
        tree.node(1, list).file("sys/devices/system/node/node1/cpumap", "70\n");
        assert_eq!(tree.nodes(), "0: 0-3,7; 1: 4-6", "{list:?}");
    }
}

#[test]
fn a_node_that_says_nothing_of_use_is_asked_for_by_its_cpus() {
    let tree = two_nodes();
    tree.node(1, "?").file("sys/devices/system/node/node1/cpumap", "1,2");
    for cpu in [4, 5, 6] {
        tree.folder(&format!("sys/devices/system/cpu/cpu{cpu}/node1"));
    }
    // 7 is nobody's: the first node takes it.
    assert_eq!(tree.nodes(), "0: 0-3,7; 1: 4-6");
}

#[test]
fn cpus_of_no_node_join_the_first_that_has_any() {
    let tree = Tree::new();
    tree.online("0-5").node(0, "").node(2, "0-1").node(4, "2-3");
    assert_eq!(tree.nodes(), "2: 0-1,4-5; 4: 2-3");
}

#[test]
fn a_cpu_of_two_nodes_is_counted_once_with_the_first() {
    let tree = Tree::new();
    tree.online("0-5").node(3, "2-5").node(1, "0-3");
    assert_eq!(tree.nodes(), "1: 0-3; 3: 4-5");
}

#[test]
fn folders_and_files_that_only_look_like_nodes_are_none() {
    let tree = two_nodes();
    for name in ["node", "node01", "nodes", "node1x", "has_cpu", "node-1", "node99999999999999999999"] {
        tree.file(format!("sys/devices/system/node/{name}/cpulist"), "0-7");
    }
    tree.file("sys/devices/system/node/node5", "0-7").folder("sys/devices/system/node/node6/cpulist");
    assert_eq!(tree.nodes(), "0: 0-3; 1: 4-7");
}

#[test]
fn a_machine_of_eight_thousand_cpus_is_read_whole() {
    let tree = Tree::new();
    tree.online("0-8191");
    for node in 0..64 {
        tree.node(
            node,
            &format!("{}-{},{}-{}", node * 64, node * 64 + 63, 4096 + node * 64, 4159 + node * 64),
        );
    }
    tree.mask("1-8190");
    let topology = tree.read().unwrap();
    assert_eq!((topology.nodes().len(), topology.parallelism()), (64, 8190));
    assert_eq!(topology.nodes()[63].cpus().to_string(), "4032-4095,8128-8190");
    assert_eq!(topology.node_of(4096).map(|node| node.id()), Some(0));
    assert_eq!(topology.node_of(8191), None);
}

#[test]
fn the_mask_of_the_process_leaves_cpus_out_and_whole_nodes_with_them() {
    assert_eq!(two_nodes().mask("1,6-7").nodes(), "0: 1; 1: 6-7");
    assert_eq!(two_nodes().mask("5").nodes(), "1: 5");
    assert_eq!(two_nodes().mask("0-1023").nodes(), "0: 0-3; 1: 4-7");
    assert_eq!(two_nodes().mask("what").nodes(), "0: 0-3; 1: 4-7");
    let tree = two_nodes();
    tree.file("proc/self/status", "Cpus_allowed:\t00000000,00000018\n");
    assert_eq!(tree.nodes(), "0: 3; 1: 4");
}

#[test]
fn a_cpuset_of_version_two_is_honoured() {
    let tree = two_nodes();
    tree.mounts(&[UNIFIED]).group("0::/jobs/one:two\n");
    tree.file("sys/fs/cgroup/jobs/one:two/cpuset.cpus", "0-7\n");
    tree.file("sys/fs/cgroup/jobs/one:two/cpuset.cpus.effective", "2-5\n");
    tree.file("sys/fs/cgroup/cpuset.cpus.effective", "0-7\n");
    assert_eq!(tree.nodes(), "0: 2-3; 1: 4-5");
    assert_eq!(tree.mask("5-7").nodes(), "1: 5");
}

#[test]
fn a_group_without_a_cpuset_has_that_of_the_one_above() {
    let tree = two_nodes();
    tree.mounts(&[UNIFIED]).group("0::/jobs/one/two\n");
    tree.folder("sys/fs/cgroup/jobs/one/two");
    tree.file("sys/fs/cgroup/jobs/one/cpuset.cpus", "\n");
    tree.file("sys/fs/cgroup/jobs/cpuset.cpus.effective", "7\n");
    assert_eq!(tree.nodes(), "1: 7");
}

#[test]
fn a_container_that_sees_only_its_part_of_the_groups_finds_itself_there() {
    let tree = two_nodes();
    tree.mounts(&[
        "29 25 0:5 / /dev rw - devtmpfs udev rw",
        "30 25 0:26 /docker/ab\\040c /sys/fs/c\\040group ro,nosuid - cgroup2 cgroup ro",
    ]);
    tree.group("0::/docker/ab c/inner\n");
    tree.file("sys/fs/c group/inner/cpuset.cpus.effective", "6\n");
    tree.file("sys/fs/c group/cpuset.cpus.effective", "6-7\n");
    assert_eq!(tree.nodes(), "1: 6");
    // Seen from within a namespace, a group outside it begins with this.
    assert_eq!(tree.group("0::/../../elsewhere\n").nodes(), "1: 6-7");
    assert_eq!(tree.group("0::/inner (deleted)\n").nodes(), "1: 6-7");
}

#[test]
fn a_part_of_the_groups_that_is_mounted_once_more_is_for_those_who_are_in_it() {
    let tree = two_nodes();
    tree.mounts(&[UNIFIED, "31 25 0:26 /jobs /mnt/jobs rw - cgroup2 cgroup2 rw"]);
    tree.file("sys/fs/cgroup/jobs/cpuset.cpus.effective", "2-5\n");
    tree.file("mnt/jobs/cpuset.cpus.effective", "2-5\n").file("mnt/jobs/cpu.max", "100000 100000\n");
    assert_eq!(tree.group("0::/user\n").nodes(), "0: 0-3; 1: 4-7");
    assert_eq!(tree.read().unwrap().parallelism(), 8);
    assert_eq!(tree.group("0::/jobs/one\n").nodes(), "0: 2-3; 1: 4-5");
    assert_eq!(tree.read().unwrap().parallelism(), 1);
}

#[test]
fn a_path_of_a_made_up_tree_does_not_lead_out_of_it() {
    let tree = two_nodes();
    let outside = Tree::new();
    outside.file("cpuset.cpus.effective", "1\n");
    let way = format!("/../../../../../../../..{}", outside.0.display());
    tree.group(&format!("0::{way}\n")).mounts(&[&format!("30 25 0:26 / {way} rw - cgroup2 cgroup rw")]);
    assert_eq!(tree.nodes(), "0: 0-3; 1: 4-7");
}

#[test]
fn a_cpuset_of_version_one_is_honoured() {
    let tree = two_nodes();
    tree.mounts(&[
        "40 30 0:31 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct",
        "41 30 0:32 / /sys/fs/cgroup/cpuset rw,nosuid - cgroup cgroup rw,cpuset,clone_children",
    ]);
    tree.group("5:cpuset:/jobs\n4:cpu,cpuacct:/else\n1:name=systemd:/user.slice\n");
    tree.file("sys/fs/cgroup/cpuset/jobs/cpuset.cpus", "0,4-9\n");
    assert_eq!(tree.nodes(), "0: 0; 1: 4-7");
    tree.file("sys/fs/cgroup/cpuset/jobs/cpuset.effective_cpus", "4-5\n");
    assert_eq!(tree.nodes(), "1: 4-5");
}

#[test]
fn a_cpuset_whose_files_have_no_prefix_is_honoured() {
    let tree = two_nodes();
    tree.mounts(&["41 30 0:32 / /dev/cpuset rw - cgroup none rw,cpuset,noprefix"]);
    tree.group("2:cpuset:/foreground\n").file("dev/cpuset/foreground/cpus", "3-4");
    assert_eq!(tree.nodes(), "0: 3; 1: 4");
}

#[test]
fn both_versions_at_once_both_have_a_say() {
    let tree = two_nodes();
    tree.mounts(&[
        "41 30 0:32 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset",
        "42 30 0:33 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw",
    ]);
    tree.group("5:cpuset:/old\n0::/new\n");
    tree.file("sys/fs/cgroup/cpuset/old/cpuset.cpus", "0-5\n");
    tree.file("sys/fs/cgroup/unified/new/cpuset.cpus.effective", "3-7\n");
    assert_eq!(tree.nodes(), "0: 3; 1: 4-5");
}

#[test]
fn without_a_list_of_mounts_groups_are_looked_for_where_they_usually_are() {
    let old = two_nodes();
    old.group("5:cpuset:/jobs\n").file("sys/fs/cgroup/cpuset/jobs/cpuset.cpus", "1\n");
    assert_eq!(old.nodes(), "0: 1");
    let new = two_nodes();
    new.group("0::/jobs\n").file("sys/fs/cgroup/jobs/cpuset.cpus.effective", "2\n");
    assert_eq!(new.nodes(), "0: 2");
}

#[test]
fn a_quota_is_rounded_up_and_the_smallest_one_above_counts() {
    let parallelism = |tree: &Tree| tree.read().unwrap().parallelism();
    let tree = two_nodes();
    assert_eq!(parallelism(&tree), 8);
    tree.mounts(&[UNIFIED]).group("0::/jobs/one\n").file("sys/fs/cgroup/jobs/one/cpu.max", "max 100000\n");
    assert_eq!(parallelism(&tree), 8);
    tree.file("sys/fs/cgroup/jobs/cpu.max", "450000 100000\n");
    assert_eq!(parallelism(&tree), 5);
    tree.file("sys/fs/cgroup/jobs/one/cpu.max", "150000 100000\n");
    assert_eq!(parallelism(&tree), 2);
    for (max, expected) in
        [("1000 100000", 1), ("0 100000", 1), ("200000", 2), ("5 0", 5), ("9000000 100000", 5)]
    {
        tree.file("sys/fs/cgroup/jobs/one/cpu.max", max);
        assert_eq!(parallelism(&tree), expected, "{max}");
    }

    let old = two_nodes();
    old.mounts(&["40 30 0:31 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct"]);
    let jobs = "sys/fs/cgroup/cpu,cpuacct/jobs";
    old.group("4:cpu,cpuacct:/jobs\n").file(format!("{jobs}/cpu.cfs_period_us"), "50000\n");
    old.file(format!("{jobs}/cpu.cfs_quota_us"), "-1\n");
    assert_eq!(parallelism(&old), 8);
    old.file(format!("{jobs}/cpu.cfs_quota_us"), "150000\n");
    assert_eq!(parallelism(&old), 3);
}

#[test]
fn where_there_is_no_tree_the_error_says_so() {
    let nowhere = Tree::new();
    let error = nowhere.read().unwrap_err();
    assert!(error.to_string().starts_with("no CPUs can be read below "), "{error}");
    assert!(std::error::Error::source(&error).is_some());
    assert!(matches!(error, TopologyError::Unreadable(path, _) if path.ends_with("sys/devices/system/cpu")));
    let odd = Tree::new();
    odd.file("sys", "a file");
    assert!(matches!(odd.read(), Err(TopologyError::Unreadable(..))));
    let empty = Tree::new();
    empty.online("").node(0, "");
    assert!(matches!(empty.read(), Err(TopologyError::Unreadable(..))));
}

#[test]
fn where_no_cpu_is_allowed_the_error_says_so() {
    let tree = two_nodes();
    let error = tree.mask("8-15").read().unwrap_err();
    assert!(matches!(error, TopologyError::NoCpus));
    assert_eq!(error.to_string(), "no CPU may be used by this process");
}

#[test]
fn a_topology_of_ones_own_is_put_in_order() {
    let own = Topology::from_nodes([(7, vec![3, 9]), (2, vec![]), (1, vec![3, 1, 1]), (7, vec![4])]);
    let nodes: Vec<_> = own.nodes().iter().map(|node| (node.id(), node.cpus().to_string())).collect();
    assert_eq!(nodes, [(1, "1".to_owned()), (7, "3-4,9".to_owned())]);
    assert_eq!((own.cpus().to_string().as_str(), own.parallelism()), ("1,3-4,9", 4));
    assert!(Topology::from_nodes([(0, CpuSet::new())]).nodes().is_empty());
}

#[test]
fn the_running_system_has_cpus_and_none_twice() {
    let topology = Topology::system();
    let all: usize = topology.nodes().iter().map(|node| node.cpus().len()).sum();
    assert!(all > 0);
    assert_eq!(topology.cpus().len(), all);
    assert!((1..=all).contains(&topology.parallelism()));
}

#[cfg(target_os = "linux")]
mod linux {
    use std::{io, thread};

    use backplane_pool::{CpuSet, Topology, current_cpu, pin_current};

    #[test]
    fn the_running_system_allows_what_its_mask_allows() {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
        let mask: CpuSet = mask.parse().unwrap();
        assert_eq!(Topology::system().cpus().intersection(&mask), Topology::system().cpus());
    }

    #[test]
    fn a_pinned_thread_runs_there_and_does_not_see_less_of_the_system() {
        let topology = Topology::system();
        for cpu in topology.cpus() {
            let pinned = thread::spawn(move || {
                pin_current(&CpuSet::from_iter([cpu])).unwrap();
                // Those that it starts are where it is.
                let child = thread::spawn(current_cpu).join().unwrap();
                (current_cpu(), child, Topology::system())
            });
            assert_eq!(pinned.join().unwrap(), (Some(cpu), Some(cpu), topology.clone()));
        }
    }

    #[test]
    fn a_thread_that_cannot_be_pinned_runs_where_it_did() {
        thread::spawn(|| {
            let before = Topology::system();
            let error = |cpus: CpuSet| pin_current(&cpus).unwrap_err().kind();
            assert_eq!(error(CpuSet::new()), io::ErrorKind::InvalidInput);
            assert_eq!(error(CpuSet::from_iter([1023])), io::ErrorKind::InvalidInput);
            assert_eq!(error(CpuSet::from_iter([0, 1 << 20])), io::ErrorKind::Unsupported);
            assert_eq!(error(CpuSet::from_iter([usize::MAX])), io::ErrorKind::Unsupported);
            // One that is there is enough.
            let some = before.cpus().iter().next().unwrap();
            pin_current(&CpuSet::from_iter([some, 1023])).unwrap();
            assert_eq!(current_cpu(), Some(some));
        })
        .join()
        .unwrap();
    }
}

/// What may stand in a file: nothing at all, something like what belongs there, or anything.
fn anything() -> impl Strategy<Value = Option<Vec<u8>>> {
    prop_oneof![
        1 => Just(None),
        3 => "[0-9]{1,3}(-[0-9]{1,3})?(,[0-9]{1,3}(-[0-9]{1,3})?){0,4}\n?".prop_map(|text| Some(text.into_bytes())),
        1 => "[0-9a-f]{1,8}(,[0-9a-f]{8}){0,3}\n".prop_map(|text| Some(text.into_bytes())),
        2 => "[-,0-9a-fx:/ .\\\\\n]{0,40}".prop_map(|text| Some(text.into_bytes())),
        2 => proptest::collection::vec(any::<u8>(), 0..60).prop_map(Some),
    ]
}

/// Lines as the kernel writes them, with anything in the places where something may vary.
fn lines(of: &'static str) -> impl Strategy<Value = Option<Vec<u8>>> {
    let line = proptest::collection::vec(
        prop_oneof![Just(b"/".to_vec()), anything().prop_map(Option::unwrap_or_default)],
        of.matches('%').count(),
    );
    let lines = proptest::collection::vec(line, 0..3).prop_map(move |lines| {
        let mut text = Vec::new();
        for line in lines {
            let mut line = line.into_iter();
            for part in of.split_inclusive('%') {
                text.extend_from_slice(part.trim_end_matches('%').as_bytes());
                text.extend(part.ends_with('%').then(|| line.next()).flatten().unwrap_or_default());
            }
        }
        Some(text)
    });
    prop_oneof![lines, anything()]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_files_say_it_is_read_or_refused_and_never_a_panic(
        files in [
            ("sys/devices/system/cpu/online", anything().boxed()),
            ("sys/devices/system/cpu/cpu0/online", anything().boxed()),
            ("sys/devices/system/cpu/cpu1/online", anything().boxed()),
            ("sys/devices/system/cpu/cpu1/node2", anything().boxed()),
            ("sys/devices/system/node/online", anything().boxed()),
            ("sys/devices/system/node/node0/cpulist", anything().boxed()),
            ("sys/devices/system/node/node0/cpumap", anything().boxed()),
            ("sys/devices/system/node/node2/cpumap", anything().boxed()),
            ("sys/devices/system/node/node3/cpulist", anything().boxed()),
            ("proc/self/status", lines("Cpus_allowed:\t%\nCpus_allowed_list:\t%\n").boxed()),
            ("proc/self/cgroup", lines("0::%\n3:cpuset:%\n%:cpu,%:%\n").boxed()),
            ("proc/self/mountinfo", lines("1 2 0:3 % %sys/fs/cgroup rw %- cgroup2 x %\n1 2 0:3 %/ /sys/fs/cgroup - cgroup x cpuset,%\n").boxed()),
            ("sys/fs/cgroup/cpuset.cpus.effective", anything().boxed()),
            ("sys/fs/cgroup/cpuset.cpus", anything().boxed()),
            ("sys/fs/cgroup/cpu.max", lines("% %").boxed()),
        ].map(|(path, contents)| (Just(path), contents)),
    ) {
        let tree = Tree::new();
        for (path, contents) in &files {
            if let Some(contents) = contents {
                tree.file(path, contents);
            }
        }
        if let Ok(topology) = tree.read() {
            let sizes: usize = topology.nodes().iter().map(|node| node.cpus().len()).sum();
            prop_assert!(topology.nodes().iter().all(|node| !node.cpus().is_empty()));
            prop_assert!(topology.nodes().is_sorted_by(|one, next| one.id() < next.id()));
            prop_assert_eq!(topology.cpus().len(), sizes);
            prop_assert!((1..=sizes).contains(&topology.parallelism()));
        }
    }

    #[test]
    fn what_a_set_is_written_as_is_read_as_the_same_set(cpus in proptest::collection::btree_set(0_usize..300, 0..80)) {
        let set: CpuSet = cpus.iter().copied().collect();
        let again: CpuSet = set.to_string().parse().unwrap();
        prop_assert_eq!(&again, &set);
        // And as a map, in words of 32.
        let mut words = [0_u32; 10];
        cpus.iter().for_each(|cpu| words[9 - cpu / 32] |= 1 << (cpu % 32));
        let map = words.map(|word| format!("{word:08x}")).join(",");
        let tree = Tree::new();
        tree.online("0-300").file("proc/self/status", format!("Cpus_allowed:\t{map}\n"));
        // A mask of nothing is no mask.
        let expected = if set.is_empty() { (0..=300).collect() } else { set };
        prop_assert_eq!(tree.read().unwrap().cpus(), expected);
    }

    #[test]
    fn any_text_is_a_list_of_cpus_or_comes_back_in_the_error(text in "\\PC{0,30}") {
        if let Err(error) = text.parse::<CpuSet>() {
            prop_assert_eq!(error.text(), text);
        }
    }
}
