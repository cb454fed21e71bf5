//! The mounts of a configuration, put onto a root by descriptor, in their order.

use crate::mount_options::Options;
use crate::plan::PlannedMount;
use crate::sys::{self, file, mount};
use crate::within::{self, Kind};
use shoal_protocol::Failure;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What the mounts depend on besides themselves.
pub struct Surroundings {
    /// v1 hierarchies as (directory, controllers) at /sys/fs/cgroup, or None for one v2 mount.
    pub cgroups: Option<Vec<(String, String)>>,
    /// No device rule limits the container: file systems that it can write are mounted nodev.
    pub nodev: bool,
}

/// Mounts one entry.
pub fn mount(
    root: BorrowedFd<'_>,
    planned: &PlannedMount,
    around: &Surroundings,
) -> Result<(), Failure> {
    let doing = || {
        format!(
            "mounting {} on {:?}",
            planned.mount.kind, planned.mount.destination
        )
    };
    if planned.options.bind {
        return bind(root, planned);
    }
    match planned.mount.kind.as_str() {
        "cgroup" | "cgroup2" => cgroup(root, planned, around),
        kind => {
            let target = real_target(root, planned)?;
            let mut options = planned.options.clone();
            if around.nodev && kind == "tmpfs" {
                options.set |= mount::ATTR_NODEV;
            }
            typed(kind, &planned.mount.source, &options)
                .and_then(|tree| put(tree.as_fd(), target.as_fd(), &options))
                .map_err(|error| complain(doing(), &error))
        }
    }
}

/// A mount point that is not reached through a symlink: an image that puts one at /proc or /dev is refused.
fn real_target(root: BorrowedFd<'_>, planned: &PlannedMount) -> Result<OwnedFd, Failure> {
    within::make_real_directory(root, &planned.destination).map_err(|error| {
        let doing = format!("opening the mount point {:?}", planned.mount.destination);
        if sys::is(&error, libc::ELOOP) || sys::is(&error, libc::ENOTDIR) {
            return Failure::invalid(doing, "it is a symlink or not a directory in the image; use an image that has a real directory there");
        }
        Failure::io(doing, &error)
    })
}

/// A detached file system of this type.
fn typed(kind: &str, source: &str, options: &Options) -> io::Result<OwnedFd> {
    let draft = mount::Draft::new(kind)?;
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
    draft.mount(options.set)
}

fn put(tree: BorrowedFd<'_>, target: BorrowedFd<'_>, options: &Options) -> io::Result<()> {
    let propagation = options.propagation.unwrap_or(0);
    if propagation != 0 {
        mount::set_attributes(tree, 0, 0, propagation, options.propagation_recursive)?;
    }
    mount::attach(tree, target)
}

fn bind(root: BorrowedFd<'_>, planned: &PlannedMount) -> Result<(), Failure> {
    let source = &planned.mount.source;
    let doing = || format!("binding {source:?} to {:?}", planned.mount.destination);
    let opened = file::open(source, libc::O_PATH).map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound {
            Failure::invalid(
                doing(),
                format!("bind source path does not exist: {source}"),
            )
        } else {
            Failure::io(doing(), &error)
        }
    })?;
    let options = &planned.options;
    let act = || -> io::Result<()> {
        let kind = if file::is_dir(opened.as_fd())? {
            Kind::Directory
        } else {
            Kind::File
        };
        let tree = mount::clone_tree(opened.as_fd(), options.recursive)?;
        if (options.set, options.clear) != (0, 0) {
            // Read-only holds for everything below too: a bind of /a must not leave /a/b writable.
            mount::set_attributes(
                tree.as_fd(),
                options.set,
                options.clear,
                0,
                options.recursive,
            )?;
        }
        let target = within::make(root, &planned.destination, kind)?;
        put(tree.as_fd(), target.as_fd(), options)
    };
    act().map_err(|error| complain(doing(), &error))
}

/// Read-only views of the container's own groups (it is in a cgroup namespace of its own).
fn cgroup(
    root: BorrowedFd<'_>,
    planned: &PlannedMount,
    around: &Surroundings,
) -> Result<(), Failure> {
    let doing = || format!("mounting control groups on {:?}", planned.mount.destination);
    let target = real_target(root, planned)?;
    let attributes = mount::ATTR_NOSUID | mount::ATTR_NODEV | mount::ATTR_NOEXEC;
    let readonly = planned.options.set & mount::ATTR_RDONLY;
    let act = || -> io::Result<()> {
        let Some(views) = &around.cgroups else {
            let tree = mount::Draft::new("cgroup2")?.mount(attributes | readonly)?;
            return mount::attach(tree.as_fd(), target.as_fd());
        };
        let draft = mount::Draft::new("tmpfs")?;
        draft.set("source", "tmpfs")?;
        draft.set("mode", "755")?;
        let tmpfs = draft.mount(attributes)?;
        mount::attach(tmpfs.as_fd(), target.as_fd())?;
        for (name, controllers) in views {
            file::make_dir_at(tmpfs.as_fd(), name, 0o755)?;
            let at = file::open_at(tmpfs.as_fd(), name, libc::O_PATH | libc::O_DIRECTORY, 0)?;
            let draft = mount::Draft::new("cgroup")?;
            draft.set("source", "cgroup")?;
            for controller in controllers.split(',') {
                draft.flag(controller)?;
            }
            let tree = draft.mount(attributes | readonly)?;
            mount::attach(tree.as_fd(), at.as_fd())?;
            for alias in controllers.split(',').filter(|alias| *alias != name) {
                file::symlink_at(name, tmpfs.as_fd(), alias)?;
            }
        }
        mount::set_attributes(tmpfs.as_fd(), readonly, 0, 0, false)
    };
    act().map_err(|error| complain(doing(), &error))
}

/// A value that the file system refuses is the caller's; anything else is the machine's.
fn complain(doing: String, error: &io::Error) -> Failure {
    let mut failure = Failure::io(doing, error);
    if error.kind() == io::ErrorKind::InvalidInput {
        failure.code = shoal_protocol::FailureCode::Invalid;
    }
    failure
}
