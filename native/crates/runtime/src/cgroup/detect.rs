//! Reads from mountinfo which control group layout the machine has.

use std::path::PathBuf;

/// As the systemd project names them; hybrid is driven as v1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    V1,
    Hybrid,
    V2,
}

impl Mode {
    /// The word of the frame contract.
    pub fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::Hybrid => "hybrid",
            Self::V2 => "v2",
        }
    }
}

/// One v1 hierarchy: its mount and the controllers on it; one without any has its name in their place (`name=systemd`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    pub mount: PathBuf,
    pub controllers: Vec<String>,
}

impl Hierarchy {
    /// Whether the controller is on it.
    pub fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }
}

/// Every hierarchy that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    pub mode: Mode,
    pub hierarchies: Vec<Hierarchy>,
    pub unified: Option<PathBuf>,
}

const CONTROLLERS: [&str; 14] = [
    "cpu",
    "cpuacct",
    "cpuset",
    "memory",
    "devices",
    "freezer",
    "blkio",
    "pids",
    "hugetlb",
    "net_cls",
    "net_prio",
    "perf_event",
    "rdma",
    "misc",
];

/// The layout that a /proc/self/mountinfo shows.
pub fn layout(mountinfo: &str) -> Layout {
    let mut hierarchies: Vec<Hierarchy> = Vec::new();
    let mut named: Vec<Hierarchy> = Vec::new();
    let mut unified = None;
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let Some(mount) = left.split(' ').nth(4).map(unescape) else {
            continue;
        };
        let mut fields = right.split(' ');
        let (kind, options) = (fields.next(), fields.nth(1).unwrap_or(""));
        match kind {
            Some("cgroup2") => prefer(&mut unified, mount),
            Some("cgroup") => {
                let controllers = among(options, |option| CONTROLLERS.contains(&option));
                if controllers.is_empty() {
                    let names = among(options, |option| option.starts_with("name="));
                    note(&mut named, mount, names);
                } else {
                    note(&mut hierarchies, mount, controllers);
                }
            }
            _ => {}
        }
    }
    let mode = match (hierarchies.is_empty(), &unified) {
        (true, Some(_)) => Mode::V2,
        (false, Some(_)) => Mode::Hybrid,
        _ => Mode::V1,
    };
    // By themselves they make no machine one of v1.
    if !hierarchies.is_empty() {
        hierarchies.extend(named);
    }
    Layout {
        mode,
        hierarchies,
        unified,
    }
}

fn among(options: &str, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    options
        .split(',')
        .filter(|option| wanted(option))
        .map(str::to_owned)
        .collect()
}

/// Takes a mount of a hierarchy down, or of one that is known already the usual one.
fn note(hierarchies: &mut Vec<Hierarchy>, mount: PathBuf, controllers: Vec<String>) {
    if controllers.is_empty() {
        return;
    }
    match hierarchies
        .iter_mut()
        .find(|known| known.controllers == controllers)
    {
        Some(known) if usual(&mount) && !usual(&known.mount) => known.mount = mount,
        Some(_) => {}
        None => hierarchies.push(Hierarchy { mount, controllers }),
    }
}

/// The path of the v2 group in the text of a /proc/PID/cgroup.
pub fn own_unified(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::"))
}

fn prefer(held: &mut Option<PathBuf>, mount: PathBuf) {
    if held
        .as_ref()
        .is_none_or(|known| usual(&mount) && !usual(known))
    {
        *held = Some(mount);
    }
}

fn usual(mount: &std::path::Path) -> bool {
    mount.starts_with("/sys/fs/cgroup")
}

/// mountinfo writes space, tab, newline and backslash in octal.
pub(crate) fn unescape(field: &str) -> PathBuf {
    PathBuf::from(
        field
            .replace("\\040", " ")
            .replace("\\011", "\t")
            .replace("\\012", "\n")
            .replace("\\134", "\\"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_tells_the_three_apart() {
        let v1 = "30 25 0:26 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n\
                  31 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                  32 25 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n";
        let unified = "33 25 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let read = layout(v1);
        assert_eq!(read.mode, Mode::V1);
        assert_eq!(read.hierarchies.len(), 3);
        assert_eq!(read.hierarchies[1].controllers, ["cpu", "cpuacct"]);
        assert_eq!(read.hierarchies[2].controllers, ["name=systemd"]);
        let named = v1.lines().last().expect("a line");
        assert_eq!(layout(&format!("{named}\n{unified}")).mode, Mode::V2);
        assert_eq!(layout(&format!("{v1}{unified}")).mode, Mode::Hybrid);
        let only = layout(unified);
        assert_eq!(
            (only.mode, only.unified),
            (Mode::V2, Some("/sys/fs/cgroup/unified".into()))
        );
    }

    #[test]
    fn layout_prefers_the_usual_mount_of_a_hierarchy() {
        let read = layout(
            "1 1 0:1 / /tmp/odd rw - cgroup cgroup rw,memory\n2 1 0:1 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
        );
        assert_eq!(
            read.hierarchies[0].mount,
            PathBuf::from("/sys/fs/cgroup/memory")
        );
    }
}
