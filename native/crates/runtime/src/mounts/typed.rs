//! Mounts of a file system type: the usual ones by fsopen(2) into a descriptor, every other one of the kernel by mount(2).

use super::{Mounter, PlannedMount, bind, complain, copy_up};
use crate::mount_options::Options;
use crate::sys::{self, Draft, file, mount};
use crate::within::{self, Kind};
use shoal_protocol::Failure;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Types whose options are the same for fsopen as for mount(2).
const BY_DESCRIPTOR: [&str; 6] = ["proc", "tmpfs", "devpts", "mqueue", "sysfs", "ramfs"];

/// (attribute of a mount, the same for mount(2)).
const ATTRIBUTES: [(u64, libc::c_ulong); 6] = [
    (mount::ATTR_RDONLY, libc::MS_RDONLY),
    (mount::ATTR_NOSUID, libc::MS_NOSUID),
    (mount::ATTR_NODEV, libc::MS_NODEV),
    (mount::ATTR_NOEXEC, libc::MS_NOEXEC),
    (mount::ATTR_NODIRATIME, libc::MS_NODIRATIME),
    (mount::ATTR_NOSYMFOLLOW, MS_NOSYMFOLLOW),
];
/// Of <linux/mount.h>; libc leaves it out.
const MS_NOSYMFOLLOW: libc::c_ulong = 256;

/// Flags of the file system that every type takes by name.
const NAMED_FLAGS: [(libc::c_ulong, &str); 4] = [
    (libc::MS_SYNCHRONOUS, "sync"),
    (libc::MS_DIRSYNC, "dirsync"),
    (libc::MS_MANDLOCK, "mand"),
    (1 << 25, "lazytime"),
];

/// The flags of mount(2) that mean the same.
pub(super) fn flags(options: &Options) -> libc::c_ulong {
    let set = options.set | options.set_recursive;
    let mut flags = options.flags;
    for (attribute, flag) in ATTRIBUTES {
        if set & attribute != 0 {
            flags |= flag;
        }
    }
    match set & mount::ATTR_ATIME {
        mount::ATTR_NOATIME => flags | libc::MS_NOATIME,
        mount::ATTR_STRICTATIME => flags | libc::MS_STRICTATIME,
        _ if options.clear & mount::ATTR_ATIME != 0 => flags | libc::MS_RELATIME,
        _ => flags,
    }
}

/// The data string of mount(2).
pub(super) fn data(options: &Options) -> String {
    let texts: Vec<String> = options
        .data
        .iter()
        .map(|(key, value)| match value {
            Some(value) => format!("{key}={value}"),
            None => key.clone(),
        })
        .collect();
    texts.join(",")
}

impl Mounter<'_> {
    /// Mounts a file system of the entry's type.
    pub(super) fn typed(&mut self, planned: &PlannedMount) -> Result<(), Failure> {
        let kind = planned.mount.kind.as_str();
        let doing = || format!("mounting {kind} on {:?}", planned.mount.destination);
        let target = self.target(planned, Kind::Directory)?;
        let mut options = planned.options.clone();
        options.set |= options.set_recursive;
        let labelled = !matches!(kind, "proc" | "sysfs") && !options.has_data("context");
        if labelled && !self.label.is_empty() {
            options
                .data
                .push(("context".into(), Some(self.label.to_owned())));
        }
        if !BY_DESCRIPTOR.contains(&kind) {
            return self
                .classic(planned, &options, target.fd.as_fd())
                .map_err(|error| {
                    if sys::is(&error, libc::ENODEV) {
                        return Failure::invalid(
                            doing(),
                            format!("file system type {kind:?} is not known to this kernel"),
                        );
                    }
                    complain(doing(), &error)
                });
        }
        let late = kind == "tmpfs" && options.set & mount::ATTR_RDONLY != 0;
        if kind == "tmpfs" {
            // What is made in it must be written first.
            options.set &= !mount::ATTR_RDONLY;
            if self.around.nodev {
                options.set |= mount::ATTR_NODEV;
            }
        }
        let mut act = || -> io::Result<OwnedFd> {
            let was = if kind == "tmpfs" && target.existed {
                Some(self.calls.stat(target.fd.as_fd())?)
            } else {
                None
            };
            if let Some(was) = was.filter(|_| !options.has_data("mode")) {
                // As the image has it; a mount point of our own making leaves the kernel's 1777.
                let mode = format!("{:o}", was.mode & 0o7777);
                options.data.push(("mode".into(), Some(mode)));
            }
            let tree = self.draft(kind, &planned.mount.source, &mut options)?;
            if options.copy_up && was.is_some() {
                copy_up::copy(target.fd.as_fd(), tree.as_fd())?;
            }
            self.put(tree.as_fd(), target.fd.as_fd(), &options)?;
            Ok(tree)
        };
        let tree = act().map_err(|error| complain(doing(), &error))?;
        if late {
            self.late_readonly.push(tree);
        }
        Ok(())
    }

    /// A detached file system of this type, or of the host's where a user namespace may not make one.
    fn draft(&self, kind: &str, source: &str, options: &mut Options) -> io::Result<OwnedFd> {
        match self.fresh(kind, source, options) {
            Err(error) if sys::is(&error, libc::EPERM) => {
                let host = match kind {
                    // Another user namespace owns the network namespace.
                    "sysfs" => "/sys",
                    // Another user namespace owns the ipc namespace.
                    "mqueue" => "/dev/mqueue",
                    _ => return Err(error),
                };
                let host = self.calls.open(host, libc::O_PATH | libc::O_DIRECTORY)?;
                let tree = self.calls.clone_tree(host.as_fd(), true)?;
                bind::change(self.calls, tree.as_fd(), options)?;
                Ok(tree)
            }
            // The group of terminals (gid=5) may not be mapped.
            Err(error)
                if kind == "devpts"
                    && error.kind() == io::ErrorKind::InvalidInput
                    && options.has_data("gid")
                    && self.owns(libc::CLONE_NEWUSER) =>
            {
                options.data.retain(|(key, _)| key != "gid");
                self.fresh(kind, source, options)
            }
            other => other,
        }
    }

    fn fresh(&self, kind: &str, source: &str, options: &Options) -> io::Result<OwnedFd> {
        let draft = Draft::new(self.calls, kind)?;
        draft.set("source", if source.is_empty() { kind } else { source })?;
        for (key, value) in &options.data {
            let set = match value {
                Some(value) => draft.set(key, value),
                None => draft.flag(key),
            };
            set.map_err(|error| match draft.complaint() {
                Some(complaint) => io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("option {key}: {complaint}"),
                ),
                None => error,
            })?;
        }
        for (flag, name) in NAMED_FLAGS {
            if options.flags & flag != 0 {
                draft.flag(name)?;
            }
        }
        draft.mount(options.set)
    }

    /// mount(2) onto the open mount point, by its descriptor's name in the host's /proc.
    fn classic(
        &self,
        planned: &PlannedMount,
        options: &Options,
        target: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let kind = planned.mount.kind.as_str();
        let source = if planned.mount.source.is_empty() {
            kind
        } else {
            &planned.mount.source
        };
        let mut flags = flags(options);
        if self.around.nodev {
            flags |= libc::MS_NODEV;
        }
        self.calls.mount(
            source,
            &file::proc_path(target),
            kind,
            flags,
            &data(options),
        )?;
        if options.propagation.is_empty() {
            return Ok(());
        }
        let mounted = within::find(self.calls, self.root, &planned.destination)?
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))?;
        self.propagate(mounted.as_fd(), options)
    }
}
