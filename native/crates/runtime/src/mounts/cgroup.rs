//! The container's view of its own control groups: a mount of a cgroup namespace's root, or a bind of the group's directories.

use super::{Mounter, PlannedMount, complain};
use crate::proc;
use crate::sys::{Change, Draft, is, mount};
use crate::within::Kind;
use shoal_protocol::Failure;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

const ATTRIBUTES: u64 = mount::ATTR_NOSUID | mount::ATTR_NODEV | mount::ATTR_NOEXEC;

impl Mounter<'_> {
    /// Mounts the view, as the layout of the machine has it, whatever version the entry names.
    pub(super) fn cgroup(&mut self, planned: &PlannedMount) -> Result<(), Failure> {
        let doing = || format!("mounting control groups on {:?}", planned.mount.destination);
        let target = self.target(planned, Kind::Directory)?;
        let readonly = (planned.options.set | planned.options.set_recursive) & mount::ATTR_RDONLY;
        let act = || -> io::Result<()> {
            match &self.around.cgroups {
                None => {
                    let group = self.around.groups.first().map(std::path::PathBuf::as_path);
                    let tree = self.hierarchy("cgroup2", "", group, ATTRIBUTES | readonly)?;
                    self.protect(tree.as_fd(), readonly)?;
                    self.put(tree.as_fd(), target.fd.as_fd(), &planned.options)
                }
                Some(views) => self.hierarchies(views, target.fd.as_fd(), planned, readonly),
            }
        };
        act().map_err(|error| complain(doing(), &error))
    }

    /// A tmpfs with one directory for each hierarchy, and links for the controllers that share one.
    fn hierarchies(
        &self,
        views: &[(String, String)],
        target: BorrowedFd<'_>,
        planned: &PlannedMount,
        readonly: u64,
    ) -> io::Result<()> {
        let draft = Draft::new(self.calls, "tmpfs")?;
        draft.set("source", "tmpfs")?;
        draft.set("mode", "755")?;
        let tmpfs = draft.mount(ATTRIBUTES)?;
        self.put(tmpfs.as_fd(), target, &planned.options)?;
        for (name, controllers) in views {
            self.calls.make_dir_at(tmpfs.as_fd(), name, 0o755)?;
            let group = self.group_of(name);
            let tree = self.hierarchy("cgroup", controllers, group, ATTRIBUTES | readonly)?;
            self.calls.attach_at(tree.as_fd(), tmpfs.as_fd(), name)?;
            for alias in controllers.split(',') {
                // A named hierarchy (name=systemd) has no controller to link.
                if alias != name && !alias.contains('=') {
                    self.calls.symlink_at(name, tmpfs.as_fd(), alias)?;
                }
            }
        }
        self.protect(tmpfs.as_fd(), readonly)
    }

    /// What a copy of the host's mount does not have by itself, for all that is mounted there at once.
    fn protect(&self, tree: BorrowedFd<'_>, readonly: u64) -> io::Result<()> {
        let change = Change {
            set: ATTRIBUTES | readonly,
            ..Change::default()
        };
        self.calls.change_mount(tree, &change, true)
    }

    /// One hierarchy as the container may see it: of its cgroup namespace, or else its own group only, which is still to be protected.
    fn hierarchy(
        &self,
        kind: &str,
        controllers: &str,
        group: Option<&Path>,
        attributes: u64,
    ) -> io::Result<OwnedFd> {
        if self.owns(libc::CLONE_NEWCGROUP) || group.is_none() {
            match self.namespaced(kind, controllers, attributes) {
                Err(error) if group.is_none() => return Err(error),
                // Not allowed in this user namespace, or mounted elsewhere with other options.
                Err(_) => {}
                tree => return tree,
            }
        }
        let path = group
            .and_then(Path::to_str)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))?;
        match self.calls.clone_path(path, true) {
            // A container that may have no group is in its caller's, and sees that one, as with runc.
            Err(error) if is(&error, libc::ENOENT) && !self.owns(libc::CLONE_NEWCGROUP) => {
                let groups = proc::read("/proc/self/cgroup")?;
                let own = inherited(path, &self.around.group, &groups, controllers);
                self.calls.clone_path(&own.ok_or(error)?, true)
            }
            tree => tree,
        }
    }

    fn namespaced(&self, kind: &str, controllers: &str, attributes: u64) -> io::Result<OwnedFd> {
        let draft = Draft::new(self.calls, kind)?;
        draft.set("source", kind)?;
        for controller in controllers.split(',').filter(|name| !name.is_empty()) {
            match controller.split_once('=') {
                Some((key, value)) => draft.set(key, value)?,
                None => draft.flag(controller)?,
            }
        }
        if controllers.contains('=') {
            draft.flag("none")?;
        }
        draft.mount(attributes)
    }

    /// The container's group in the hierarchy that is mounted as `name`: mounts of hierarchies lie side by side,
    /// so that of all groups the one with this name nearest to the root is meant.
    fn group_of(&self, name: &str) -> Option<&Path> {
        let depth = |group: &Path| {
            group
                .iter()
                .position(|component| component.to_str() == Some(name))
        };
        self.around
            .groups
            .iter()
            .filter_map(|group| depth(group).map(|depth| (depth, group.as_path())))
            .min_by_key(|(depth, _)| *depth)
            .map(|(_, group)| group)
    }
}

/// The directory of this process's own group, by /proc/self/cgroup, in the hierarchy in which the container's would be `wanted`: its mount,
/// then `group`. `controllers` are the hierarchy's; none is the v2 one.
fn inherited(wanted: &str, group: &str, groups: &str, controllers: &str) -> Option<String> {
    let mount = wanted.strip_suffix(group.trim_end_matches('/'))?;
    let own = groups.lines().find_map(|line| {
        let (_, line) = line.split_once(':')?;
        let (names, path) = line.split_once(':')?;
        let same = names == controllers
            || (!names.is_empty() && names.split(',').eq(controllers.split(',')));
        same.then_some(path)
    })?;
    Some(format!("{mount}{}", own.trim_end_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inherited_is_found_by_the_hierarchys_controllers() {
        let groups = "9:name=systemd:/a\n4:memory:/up/here\n2:cpu,cpuacct:/\n0::/v2\n";
        for (wanted, controllers, own) in [
            (
                "/sys/fs/cgroup/memory/box",
                "memory",
                "/sys/fs/cgroup/memory/up/here",
            ),
            (
                "/sys/fs/cgroup/cpu,cpuacct/box",
                "cpu,cpuacct",
                "/sys/fs/cgroup/cpu,cpuacct",
            ),
            (
                "/sys/fs/cgroup/systemd/box",
                "name=systemd",
                "/sys/fs/cgroup/systemd/a",
            ),
            ("/sys/fs/cgroup/box", "", "/sys/fs/cgroup/v2"),
        ] {
            let found = inherited(wanted, "/box", groups, controllers);
            assert_eq!(found.as_deref(), Some(own));
        }
        assert_eq!(
            inherited("/sys/fs/cgroup/pids/box", "/box", groups, "pids"),
            None
        );
        assert_eq!(inherited("/sys/fs/cgroup/x", "/box", groups, ""), None);
    }
}
