//! Bind mounts: a copy of the host's mount, changed before it is visible in the container.

use super::{Mounter, PlannedMount, complain};
use crate::mount_options::Options;
use crate::sys::{self, Calls, Change};
use crate::sysctl::PROC_SUPER_MAGIC;
use crate::within::{self, Kind};
use shoal_protocol::{Failure, FailureCode, oci::IdMapping};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

impl Mounter<'_> {
    /// Binds the source, or its prepared tree, to the destination.
    pub(super) fn bind(
        &mut self,
        planned: &PlannedMount,
        prepared: Option<OwnedFd>,
    ) -> Result<(), Failure> {
        let doing = || {
            format!(
                "binding {:?} to {:?}",
                planned.mount.source, planned.mount.destination
            )
        };
        let options = &planned.options;
        let from_outside = prepared.is_some();
        let tree = match prepared {
            Some(tree) => tree,
            None => {
                let source = open_source(self.calls, planned)?;
                if options.copy_symlink && self.copy_symlink(planned, source.as_fd())? {
                    return Ok(());
                }
                self.calls
                    .clone_tree(source.as_fd(), options.recursive)
                    .map_err(|error| complain(doing(), &error))?
            }
        };
        let source = self
            .calls
            .stat(tree.as_fd())
            .map_err(|error| complain(doing(), &error))?;
        if planned.destination == ["proc"] {
            let kind = self.calls.file_system(tree.as_fd());
            if kind.map_err(|error| complain(doing(), &error))? != PROC_SUPER_MAGIC {
                return Err(Failure::invalid(
                    doing(),
                    "\"/proc\" cannot be mounted because it is not of type proc",
                ));
            }
        }
        let kind = if source.is_dir() {
            Kind::Directory
        } else {
            Kind::File
        };
        let target = self.target(planned, kind)?;
        let act = || -> io::Result<()> {
            if from_outside && options.propagation.is_empty() {
                // Made in the host's mount namespace, it would still tell the host of mounts in the container.
                let private = Change {
                    propagation: libc::MS_PRIVATE,
                    ..Change::default()
                };
                self.calls.change_mount(tree.as_fd(), &private, true)?;
            }
            change(self.calls, tree.as_fd(), options)?;
            self.put(tree.as_fd(), target.fd.as_fd(), options)
        };
        act().map_err(|error| {
            let differs = self
                .calls
                .stat(target.fd.as_fd())
                .is_ok_and(|target| target.is_dir() != source.is_dir());
            // move_mount(2) says EINVAL for what mount(2) has its own word for.
            let error = if differs && sys::is(&error, libc::EINVAL) {
                io::Error::from_raw_os_error(libc::ENOTDIR)
            } else {
                error
            };
            complain(doing(), &error)
        })
    }

    /// A source that is a link is made again as a link; false when it is none.
    fn copy_symlink(
        &mut self,
        planned: &PlannedMount,
        source: BorrowedFd<'_>,
    ) -> Result<bool, Failure> {
        let doing = || format!("copying the link to {:?}", planned.mount.destination);
        let act = || -> io::Result<bool> {
            if !self.calls.stat(source)?.is(libc::S_IFLNK) {
                return Ok(false);
            }
            let link = self.calls.read_link_at(source, "")?;
            let (name, above) = planned
                .destination
                .split_last()
                .ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
            let parent = within::make(self.calls, self.root, above, Kind::Directory)?;
            match self.calls.symlink_at(&link, parent.as_fd(), name) {
                Err(error) if sys::is(&error, libc::EEXIST) => {
                    let there = self.calls.read_link_at(parent.as_fd(), name)?;
                    if there == link { Ok(true) } else { Err(error) }
                }
                other => other.map(|()| true),
            }
        };
        act().map_err(|error| Failure::io(doing(), &error))
    }
}

/// Makes a user namespace with these user and group mappings.
pub type MakeOwners = fn(&[IdMapping], &[IdMapping]) -> Result<OwnedFd, Failure>;

/// The detached tree of a bind, made in the caller's user namespace, its owners mapped by a namespace that `owners` makes.
/// None where the caller may not make it: the container's first process then tries itself.
pub fn source_tree(
    calls: &dyn Calls,
    planned: &PlannedMount,
    mappings: Option<(&[IdMapping], &[IdMapping])>,
    owners: MakeOwners,
) -> Result<Option<OwnedFd>, Failure> {
    let source = match open_source(calls, planned) {
        // An earlier mount of the container may bring it, below its root.
        Err(failure) if mappings.is_none() && failure.code == FailureCode::Invalid => {
            return Ok(None);
        }
        other => other?,
    };
    let doing = || {
        format!(
            "binding {:?} to {:?}",
            planned.mount.source, planned.mount.destination
        )
    };
    let tree = match calls.clone_tree(source.as_fd(), planned.options.recursive) {
        Err(error) if sys::is(&error, libc::EPERM) && mappings.is_none() => return Ok(None),
        other => other.map_err(|error| complain(doing(), &error))?,
    };
    if let Some((uids, gids)) = mappings {
        let namespace = owners(uids, gids)?;
        let change = Change {
            owners: Some(namespace.as_fd()),
            ..Change::default()
        };
        let recursive = planned.options.idmap == Some(true);
        calls
            .change_mount(tree.as_fd(), &change, recursive)
            .map_err(|error| {
                let mut failure = complain(format!("{}, mapping its owners", doing()), &error);
                if sys::is(&error, libc::EINVAL) {
                    failure.message =
                        "its file system does not support idmapped mounts; leave idmap out".into();
                }
                failure
            })?;
    }
    Ok(Some(tree))
}

/// Opens the source of a bind (O_PATH) as the host sees it.
pub(super) fn open_source(calls: &dyn Calls, planned: &PlannedMount) -> Result<OwnedFd, Failure> {
    let source = &planned.mount.source;
    let options = &planned.options;
    let nofollow = if options.source_nofollow || options.copy_symlink {
        libc::O_NOFOLLOW
    } else {
        0
    };
    let opened = calls.open(source, libc::O_PATH | nofollow).and_then(|fd| {
        let link = options.copy_symlink && !calls.stat(fd.as_fd())?.is(libc::S_IFLNK);
        if link && !options.source_nofollow {
            // Only a link is wanted unfollowed.
            return calls.open(source, libc::O_PATH);
        }
        Ok(fd)
    });
    opened.map_err(|error| {
        let doing = format!("binding {source:?} to {:?}", planned.mount.destination);
        if error.kind() == io::ErrorKind::NotFound {
            Failure::invalid(doing, format!("bind source path does not exist: {source}"))
        } else {
            Failure::io(doing, &error)
        }
    })
}

/// The attributes that are asked for, on top of what the mount has: for itself, then for everything below.
pub(super) fn change(calls: &dyn Calls, tree: BorrowedFd<'_>, options: &Options) -> io::Result<()> {
    for (set, clear, recursive) in [
        (options.set, options.clear, false),
        (options.set_recursive, options.clear_recursive, true),
    ] {
        if (set, clear) != (0, 0) {
            let change = Change {
                set,
                clear,
                ..Change::default()
            };
            calls.change_mount(tree, &change, recursive)?;
        }
    }
    Ok(())
}
