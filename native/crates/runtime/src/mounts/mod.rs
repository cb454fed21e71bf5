//! The mounts of a configuration, put onto a root by descriptor, in their order.

mod bind;
mod cgroup;
mod copy_up;
mod id_maps;
mod planned;
mod typed;

pub use bind::source_tree;
pub use planned::{MOUNTS_MAX, Owners, PlannedMount, plan, warnings};

use crate::sys::{self, Calls, Change, file};
use crate::sysctl::PROC_SUPER_MAGIC;
use crate::within::{self, Kind};
use crate::{devices, mount_options::Options};
use shoal_protocol::Failure;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// What the mounts depend on besides themselves.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// v1 hierarchies as (directory, controllers) at /sys/fs/cgroup, or None for one v2 mount.
    pub cgroups: Option<Vec<(String, String)>>,
    /// The container's own group in each hierarchy, for a container that has no cgroup namespace.
    pub groups: Vec<PathBuf>,
    /// What all of them end with: the group below each hierarchy's mount.
    pub group: String,
    /// No device rule limits the container: file systems that it can write are mounted nodev.
    pub nodev: bool,
}

/// Directories whose identity programs rely on: an image that has a link there is refused.
const REAL: [&str; 3] = ["proc", "sys", "dev"];
/// The only files of /proc that something may be mounted on: lxcfs shows a container's own figures there (as runc allows).
pub(super) const PROC_ALLOWED: [&str; 11] = [
    "proc/cpuinfo",
    "proc/diskstats",
    "proc/meminfo",
    "proc/stat",
    "proc/swaps",
    "proc/uptime",
    "proc/loadavg",
    "proc/slabinfo",
    "proc/net/dev",
    "proc/sys/kernel/ns_last_pid",
    "proc/sys/crypto/fips_enabled",
];

/// Mounts onto one root.
pub struct Mounter<'a> {
    pub calls: &'a dyn Calls,
    pub root: BorrowedFd<'a>,
    pub around: &'a Surroundings,
    /// `CLONE_NEW*` of the container's own namespaces.
    pub owned: u64,
    /// SELinux's label of every file system that is made (`context=`); empty without.
    pub label: &'a str,
    /// File systems that become read-only once everything that is made in them is there.
    late_readonly: Vec<OwnedFd>,
    /// Which of `REAL` have been seen to be no links.
    seen: [bool; REAL.len()],
}

/// Where something is mounted.
struct Target {
    fd: OwnedFd,
    /// It was there before, and not made for the mount.
    existed: bool,
}

impl<'a> Mounter<'a> {
    /// A mounter that has mounted nothing yet.
    pub fn new(
        calls: &'a dyn Calls,
        root: BorrowedFd<'a>,
        around: &'a Surroundings,
        owned: u64,
    ) -> Self {
        Self {
            calls,
            root,
            around,
            owned,
            label: "",
            late_readonly: Vec::new(),
            seen: [false; REAL.len()],
        }
    }

    /// Mounts one entry; `source` is its tree where it had to be prepared outside the container's user namespace.
    pub fn mount(
        &mut self,
        planned: &PlannedMount,
        source: Option<OwnedFd>,
    ) -> Result<(), Failure> {
        if planned.options.remount {
            return self.remount(planned);
        }
        if planned.options.bind {
            return self.bind(planned, source);
        }
        match planned.mount.kind.as_str() {
            "cgroup" | "cgroup2" => self.cgroup(planned),
            _ => self.typed(planned),
        }
    }

    /// The file systems that become read-only when the container is built.
    pub fn into_late_readonly(self) -> Vec<OwnedFd> {
        self.late_readonly
    }

    fn owns(&self, kind: libc::c_int) -> bool {
        self.owned & u64::from(kind.cast_unsigned()) != 0
    }

    /// The mount point of an entry, made where it is missing.
    fn target(&mut self, planned: &PlannedMount, kind: Kind) -> Result<Target, Failure> {
        let doing = || format!("opening the mount point {:?}", planned.mount.destination);
        let parts = &planned.destination;
        let strict = matches!(planned.mount.kind.as_str(), "proc" | "sysfs")
            && !planned.options.bind
            || parts.len() == 1 && REAL.contains(&parts[0].as_str());
        let target = if strict {
            let real = within::make_real_directory(self.calls, self.root, parts)
                .map_err(|error| devices::not_real(&doing(), &error))?;
            // What is mounted onto a real directory is one.
            let index = REAL.iter().position(|real| [*real] == parts[..]);
            if let Some(seen) = index.and_then(|index| self.seen.get_mut(index)) {
                *seen = true;
            }
            Target {
                fd: real,
                existed: true,
            }
        } else {
            self.expect_real(planned)?;
            let made = if planned.options.target_nofollow {
                within::make_nofollow(self.calls, self.root, parts, kind)
            } else {
                within::make_or_find(self.calls, self.root, parts, kind)
            };
            let (fd, existed) = made.map_err(|error| Failure::io(doing(), &error))?;
            Target { fd, existed }
        };
        self.guard_proc(planned, target.fd.as_fd())?;
        Ok(target)
    }

    /// /proc, /sys and /dev above a mount point are no links.
    fn expect_real(&mut self, planned: &PlannedMount) -> Result<(), Failure> {
        let first = &planned.destination[0];
        let Some(index) = REAL.iter().position(|real| real == first) else {
            return Ok(());
        };
        if self.seen[index] {
            return Ok(());
        }
        let opened = self.calls.open_at2(
            self.root,
            first,
            libc::O_PATH | libc::O_DIRECTORY,
            libc::RESOLVE_BENEATH | file::NO_SYMLINKS,
        );
        match opened {
            Err(error) if !sys::is(&error, libc::ENOENT) => Err(devices::not_real(
                &format!(
                    "opening /{first} for the mount on {:?}",
                    planned.mount.destination
                ),
                &error,
            )),
            _ => {
                self.seen[index] = true;
                Ok(())
            }
        }
    }

    /// Whatever the path says: nothing goes over procfs but what `PROC_ALLOWED` names (CVE-2019-19921, CVE-2025-52881).
    fn guard_proc(&self, planned: &PlannedMount, target: BorrowedFd<'_>) -> Result<(), Failure> {
        let on_proc = self.calls.file_system(target).map_err(|error| {
            Failure::io(
                format!("looking at the mount point {:?}", planned.mount.destination),
                &error,
            )
        })? == PROC_SUPER_MAGIC;
        let path = planned.destination.join("/");
        if !on_proc || path == "proc" || PROC_ALLOWED.contains(&path.as_str()) {
            return Ok(());
        }
        Err(Failure::invalid(
            format!("mounting on {:?}", planned.mount.destination),
            "it leads into /proc, where nothing may be mounted; choose another destination",
        ))
    }

    /// Propagation, then the mount becomes visible.
    fn put(
        &self,
        tree: BorrowedFd<'_>,
        target: BorrowedFd<'_>,
        options: &Options,
    ) -> io::Result<()> {
        self.propagate(tree, options)?;
        self.calls.attach(tree, target)
    }

    fn propagate(&self, tree: BorrowedFd<'_>, options: &Options) -> io::Result<()> {
        options
            .propagation
            .iter()
            .try_for_each(|(kind, recursive)| {
                let change = Change {
                    propagation: *kind,
                    ..Change::default()
                };
                self.calls.change_mount(tree, &change, *recursive)
            })
    }

    /// Changes what is mounted at the destination already.
    fn remount(&mut self, planned: &PlannedMount) -> Result<(), Failure> {
        let doing = || format!("remounting {:?}", planned.mount.destination);
        let options = &planned.options;
        let act = || -> io::Result<()> {
            let target = within::find(self.calls, self.root, &planned.destination)?
                .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))?;
            if options.bind || (options.data.is_empty() && options.flags == 0) {
                bind::change(self.calls, target.as_fd(), options)?;
            } else {
                let flags = libc::MS_REMOUNT | typed::flags(options);
                self.calls.mount(
                    &planned.mount.source,
                    &file::proc_path(&target),
                    &planned.mount.kind,
                    flags,
                    &typed::data(options),
                )?;
            }
            self.propagate(target.as_fd(), options)
        };
        act().map_err(|error| complain(doing(), &error))
    }
}

/// A value that the file system refuses is the caller's; anything else is the machine's.
fn complain(doing: String, error: &io::Error) -> Failure {
    let mut failure = Failure::io(doing, error);
    if error.kind() == io::ErrorKind::InvalidInput {
        failure.code = shoal_protocol::FailureCode::Invalid;
    }
    if error.raw_os_error() == Some(libc::ENOTDIR) {
        failure.message = "not a directory: Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the expected type".into();
    }
    failure
}
