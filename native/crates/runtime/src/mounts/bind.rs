//! Bind mounts: a copy of the host's mount, changed before it is visible in the container.

use super::{Mounter, PlannedMount, complain};
use crate::mount_options::Options;
use crate::sys::{self, Calls, Change};
use crate::sysctl::PROC_SUPER_MAGIC;
use crate::within::{self, Kind};
use shoal_protocol::{Failure, FailureCode};
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
            self.change_bind(tree.as_fd(), options)?;
            self.put(tree.as_fd(), target.fd.as_fd(), options)
        };
        act().map_err(|error| {
            if sys::is(&error, libc::EPERM) && options.names_attributes() {
                return locked(planned);
            }
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

    /// The attributes of a bind. As with runc and crun, a bind that names any attribute has exactly those it names, whatever its source has
    /// (`-v /read-only:/x:rw`); one that names none keeps the source's.
    fn change_bind(&self, tree: BorrowedFd<'_>, options: &Options) -> io::Result<()> {
        let userns = self.owns(libc::CLONE_NEWUSER) && options.names_attributes();
        let before = if userns {
            self.calls.mount_flags(tree)?
        } else {
            0
        };
        let whole = exactly(options, userns);
        match change(self.calls, tree, &whole) {
            // A user namespace around us may have locked what was not even named: it stays.
            Err(error) if sys::is(&error, libc::EPERM) => change(self.calls, tree, options),
            other => other,
        }?;
        // A tree that comes from outside has no locks yet, and must not become more in the container than the host let it be.
        if userns && loosened(before, self.calls.mount_flags(tree)?) {
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
        Ok(())
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

/// The detached tree of a bind, made in the caller's user namespace, its owners mapped by `owners`.
/// None where the caller may not make it: the container's first process then tries itself.
pub fn source_tree(
    calls: &dyn Calls,
    planned: &PlannedMount,
    owners: Option<BorrowedFd<'_>>,
) -> Result<Option<OwnedFd>, Failure> {
    let source = match open_source(calls, planned) {
        // An earlier mount of the container may bring it, below its root.
        Err(failure) if owners.is_none() && failure.code == FailureCode::Invalid => {
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
        Err(error) if sys::is(&error, libc::EPERM) && owners.is_none() => return Ok(None),
        other => other.map_err(|error| complain(doing(), &error))?,
    };
    if owners.is_some() {
        let change = Change {
            owners,
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

/// Flags of a mount that stay set in a user namespace that it is passed on to, and those of access times, which stay as they are
/// (mount_namespaces(7), "Restrictions on mount namespaces").
const LOCKED: u64 = libc::ST_RDONLY | libc::ST_NOSUID | libc::ST_NODEV | libc::ST_NOEXEC;
const LOCKED_TIMES: u64 = libc::ST_NOATIME | libc::ST_NODIRATIME | libc::ST_RELATIME;

/// Whether a change took what would be locked away.
fn loosened(before: u64, after: u64) -> bool {
    before & !after & LOCKED != 0 || (before ^ after) & LOCKED_TIMES != 0
}

/// In runc's words.
fn locked(planned: &PlannedMount) -> Failure {
    Failure::invalid(
        format!(
            "unable to start container process: error during container init: error mounting {:?} to rootfs at {:?}",
            planned.mount.source, planned.mount.destination
        ),
        "operation not permitted: an attribute that the source has cannot be taken away in a user namespace; leave it out of options",
    )
}

/// Attributes that a bind has only when it names them.
const NAMED_ONLY: u64 = sys::mount::ATTR_RDONLY
    | sys::mount::ATTR_NOSUID
    | sys::mount::ATTR_NODEV
    | sys::mount::ATTR_NOEXEC
    | sys::mount::ATTR_NOSYMFOLLOW;

const KINDS_OF_TIMES: u64 = sys::mount::ATTR_NOATIME | sys::mount::ATTR_STRICTATIME;

/// The options with what they leave out cleared, if they name any attribute. In a user namespace what the kernel would lock there
/// (mount_namespaces(7)) is kept.
fn exactly(options: &Options, userns: bool) -> Options {
    let (set, mut clear) = (options.set, options.clear);
    if options.names_attributes() {
        let all = if userns {
            sys::mount::ATTR_NOSYMFOLLOW
        } else {
            NAMED_ONLY
        };
        clear |= all & !set;
        let times = (
            clear & sys::mount::ATTR_ATIME != 0,
            set & sys::mount::ATTR_NODIRATIME != 0,
        );
        match times {
            // Locked as it is, and not asked to be another kind.
            (false, false) if userns && set & KINDS_OF_TIMES == 0 => {
                clear &= !sys::mount::ATTR_NODIRATIME;
            }
            _ if userns => {}
            // `nodiratime` alone goes with relative times, and a time alone with those of directories, as for mount(2).
            (false, true) => clear |= sys::mount::ATTR_ATIME,
            (true, false) => clear |= sys::mount::ATTR_NODIRATIME,
            _ => {}
        }
    }
    Options {
        set,
        clear,
        ..options.clone()
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mount_options::parse;
    use crate::sys::mount as attr;

    fn of(options: &[&str], userns: bool) -> (u64, u64) {
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        let whole = exactly(&parse("/x", &options).expect("options"), userns);
        (whole.set, whole.clear)
    }

    #[test]
    fn exactly_clears_what_is_not_named_unless_nothing_is() {
        assert_eq!(
            of(&["rbind", "rprivate", "norelatime", "atime"], false),
            (0, 0)
        );
        assert_eq!(of(&["bind", "rw"], false), (0, NAMED_ONLY));
        assert_eq!(
            of(&["bind", "ro", "nosuid"], false),
            (
                attr::ATTR_RDONLY | attr::ATTR_NOSUID,
                attr::ATTR_NODEV | attr::ATTR_NOEXEC | attr::ATTR_NOSYMFOLLOW
            )
        );
        assert_eq!(
            of(&["bind", "ro"], true),
            (attr::ATTR_RDONLY, attr::ATTR_NOSYMFOLLOW)
        );
    }

    #[test]
    fn loosened_tells_what_a_user_namespace_keeps() {
        assert!(loosened(libc::ST_RDONLY | libc::ST_NODEV, libc::ST_NODEV));
        assert!(loosened(libc::ST_NOATIME, libc::ST_RELATIME));
        assert!(loosened(0, libc::ST_NODIRATIME));
        assert!(!loosened(
            libc::ST_NOEXEC,
            libc::ST_NOEXEC | libc::ST_RDONLY
        ));
    }

    #[test]
    fn exactly_leaves_access_times_alone_in_a_user_namespace_unless_a_kind_is_named() {
        assert_eq!(of(&["bind", "diratime"], true), (0, attr::ATTR_NOSYMFOLLOW));
        let (set, clear) = of(&["bind", "strictatime"], true);
        assert_eq!(set, attr::ATTR_STRICTATIME);
        assert_ne!(clear & attr::ATTR_ATIME, 0);
    }

    #[test]
    fn exactly_has_one_kind_of_access_times() {
        let (set, clear) = of(&["bind", "nodiratime"], false);
        assert_eq!(set, attr::ATTR_NODIRATIME);
        assert_eq!(clear, NAMED_ONLY | attr::ATTR_ATIME);
        let (set, clear) = of(&["bind", "strictatime"], false);
        assert_eq!(set, attr::ATTR_STRICTATIME);
        assert_eq!(clear, NAMED_ONLY | attr::ATTR_ATIME | attr::ATTR_NODIRATIME);
    }
}
