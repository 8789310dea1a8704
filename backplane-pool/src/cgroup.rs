//! What a process's control groups leave it: the CPUs of its cpuset, and the time of its quota.
//!
//! Version 1, version 2, and both at once. Where a group says nothing, the one above it speaks.

use std::{
    num::NonZero,
    path::{Component, Path, PathBuf},
};

use crate::{
    cpus::{CpuSet, number},
    topology::{below, contents},
};

/// A hierarchy of groups that limits this process, and where in it the process is.
struct Place {
    /// Where the hierarchy is mounted.
    mount: PathBuf,
    /// The process's group, below the mount.
    group: PathBuf,
}

/// A line of `mountinfo`.
struct Mount {
    /// What of the hierarchy is mounted.
    root: PathBuf,
    /// Where.
    point: PathBuf,
    /// `cgroup2`, or the controllers of version 1.
    kind: Hierarchy,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Hierarchy {
    Unified,
    Controllers(Vec<Vec<u8>>),
}

impl Hierarchy {
    fn has(&self, controller: &str) -> bool {
        match self {
            Hierarchy::Unified => true,
            Hierarchy::Controllers(all) => all.iter().any(|has| has == controller.as_bytes()),
        }
    }
}

/// The CPUs that the cpusets of this process leave it; `None` if there is no cpuset.
pub(crate) fn cpuset(root: &Path) -> Option<CpuSet> {
    // What is in force before what was asked for; `noprefix` mounts, such as Android's, leave the prefix out.
    let files = ["cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus", "effective_cpus", "cpus"];
    let nearest = |place: Place| {
        place.up().find_map(|group| {
            let list = files.iter().find_map(|file| contents(&group.join(file)))?;
            // Empty says: whatever the one above has.
            CpuSet::from_list(&list).filter(|cpus| !cpus.is_empty())
        })
    };
    places(root, "cpuset").into_iter().filter_map(nearest).reduce(|all, cpus| all.intersection(&cpus))
}

/// As many CPUs' time as the quotas of this process amount to, rounded up; `None` if there is none.
pub(crate) fn quota(root: &Path) -> Option<NonZero<usize>> {
    let of_group = |group: PathBuf| {
        let (quota, period) = match contents(&group.join("cpu.max")) {
            Some(both) => {
                let mut both = both.trim_ascii().split(|byte| *byte == b' ').map(number);
                (both.next()??, both.next().unwrap_or(Some(100_000))?)
            }
            None => {
                let read = |file| number(contents(&group.join(file))?.trim_ascii());
                (read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?)
            }
        };
        (period > 0).then(|| NonZero::new(quota.div_ceil(period)).unwrap_or(NonZero::<usize>::MIN))
    };
    // Each group above has its say as well.
    places(root, "cpu").iter().flat_map(|place| place.up()).filter_map(of_group).min()
}

impl Place {
    /// The process's group and all above it, the nearest first.
    fn up(&self) -> impl Iterator<Item = PathBuf> + use<'_> {
        self.group.ancestors().map(|group| self.mount.join(group))
    }
}

/// Where the process is, in each hierarchy that has this controller.
fn places(root: &Path, controller: &str) -> Vec<Place> {
    let mounts = mounts(root, controller);
    let groups = contents(&root.join("proc/self/cgroup")).unwrap_or_default();
    let mut places = Vec::new();
    for line in groups.split(|byte| *byte == b'\n') {
        // `4:cpu,cpuacct:/some/group`, or `0::/some/group` for version 2; the group may contain colons.
        let mut fields = line.splitn(3, |byte| *byte == b':');
        let (Some(_), Some(controllers), Some(group)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let kind = match controllers {
            b"" => Hierarchy::Unified,
            some => Hierarchy::Controllers(some.split(|byte| *byte == b',').map(<[u8]>::to_vec).collect()),
        };
        if !kind.has(controller) {
            continue;
        }
        let same = |mount: &&Mount| match (&mount.kind, &kind) {
            (Hierarchy::Unified, Hierarchy::Unified) => true,
            (Hierarchy::Controllers(_), Hierarchy::Controllers(_)) => mount.kind.has(controller),
            _ => false,
        };
        let group = tame(&path(group));
        // A container may see no more than its own part of the hierarchy, under the name that it has outside. Other parts, which
        // are mounted once more, are others'; unless all are, for then this process sees them under names of their own.
        let within = |mount: &Mount| group.strip_prefix(&mount.root).ok().map(Path::to_owned);
        let is_within = mounts.iter().filter(same).any(|mount| within(mount).is_some());
        for mount in mounts.iter().filter(same) {
            if let Some(group) = within(mount).or_else(|| (!is_within).then(|| group.clone())) {
                places.push(Place { mount: below(root, &mount.point), group });
            }
        }
    }
    places
}

/// Where groups are mounted; where they usually are if that cannot be found out.
fn mounts(root: &Path, controller: &str) -> Vec<Mount> {
    let Some(lines) = contents(&root.join("proc/self/mountinfo")) else {
        let usual = |point: &str, kind| Mount {
            root: PathBuf::new(),
            point: Path::new("sys/fs/cgroup").join(point),
            kind,
        };
        let old = Hierarchy::Controllers(vec![controller.as_bytes().to_vec()]);
        return vec![
            usual("", Hierarchy::Unified),
            usual("unified", Hierarchy::Unified),
            usual(controller, old),
        ];
    };
    lines.split(|byte| *byte == b'\n').filter_map(mount).collect()
}

/// `30 25 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate`
fn mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let (root, point) = (fields.nth(3)?, fields.next()?);
    let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
    let (kind, options) = (rest.next()?, rest.nth(1)?);
    let kind = match kind {
        b"cgroup2" => Hierarchy::Unified,
        b"cgroup" => {
            Hierarchy::Controllers(options.split(|byte| *byte == b',').map(<[u8]>::to_vec).collect())
        }
        b"cpuset" => Hierarchy::Controllers(vec![b"cpuset".to_vec()]),
        _ => return None,
    };
    Some(Mount { root: tame(&path(&unescaped(root))), point: path(&unescaped(point)), kind })
}

/// A path as it came, on systems where paths are bytes.
#[cfg(unix)]
fn path(bytes: &[u8]) -> PathBuf {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    PathBuf::from(OsStr::from_bytes(bytes))
}

#[cfg(not(unix))]
fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(String::from_utf8_lossy(bytes).into_owned())
}

/// Without a root, and without a way out: a group above what this process may see is written `/../..`.
pub(crate) fn tame(path: &Path) -> PathBuf {
    let mut tame = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => tame.push(name),
            Component::ParentDir => drop(tame.pop()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    tame
}

/// `mountinfo` writes a space as `\040`, and other bytes that would confuse it likewise.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let octal = |digits: &[u8]| {
            digits.iter().try_fold(0_u32, |sum, digit| Some(sum * 8 + char::from(*digit).to_digit(8)?))
        };
        let code = (*first == b'\\').then(|| after.get(..3)).flatten().and_then(octal);
        match code.and_then(|code| u8::try_from(code).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}
