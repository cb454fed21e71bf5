//! The container's root: an overlay over its layers, or a directory, mounted inside the container's own mount namespace.

use crate::filesystem::RootSource;
use crate::sys::{Calls, Change, Draft, is, mount};
use shoal_protocol::{Failure, calls::Rootfs};
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Most layers that overlayfs stacks.
pub const LAYERS_MAX: usize = 500;
/// Names below `Rootfs::directory`.
pub const UPPER: &str = "upper";
pub const WORK: &str = "work";
/// The only lower directory of a root without layers.
const EMPTY: &str = "empty";
/// In a sandbox: where the root to come is mounted.
pub(crate) const STAGE: &str = "/root";
/// Room for a few directories.
const STAGING_SIZE: &str = "64k";

/// Refuses a root that is the host's own, or whose paths are none.
pub fn validate(root: &RootSource) -> Result<(), Failure> {
    let check = |field: &str, path: &str| {
        if crate::within::check(|| format!("reading {field}"), path)? == 0 {
            return Err(Failure::invalid(
                format!("reading {field}"),
                format!("path {path:?} is the root of the host"),
            ));
        }
        Ok(())
    };
    let rootfs = match root {
        RootSource::Overlay(rootfs) => rootfs,
        RootSource::Directory(path) | RootSource::Staging(path) => {
            let text = path.to_str().ok_or_else(|| {
                Failure::invalid(
                    "reading root.path",
                    format!("{} is not UTF-8", path.display()),
                )
            })?;
            return check("root.path", text);
        }
    };
    if rootfs.layers.len() > LAYERS_MAX {
        return Err(Failure::invalid(
            "reading rootfs.layers",
            format!(
                "{} layers are over the limit of {LAYERS_MAX}",
                rootfs.layers.len()
            ),
        ));
    }
    rootfs
        .layers
        .iter()
        .chain([&rootfs.directory])
        .try_for_each(|path| check("rootfs", path))
}

/// Makes `upper` (which gives the container's `/` its mode: 0755 by the caller's umask) and `work`; the directory itself may be there, they may not.
pub fn prepare(rootfs: &Rootfs) -> Result<(), Failure> {
    let dir = Path::new(&rootfs.directory);
    let make = |path: &Path| {
        fs::create_dir(path)
            .map_err(|error| Failure::io(format!("making {}", path.display()), &error))
    };
    let mut private = fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(&mut private, 0o700);
    private.recursive(true).create(dir).map_err(|error| {
        Failure::io(format!("making rootfs.directory {}", dir.display()), &error)
    })?;
    make(&dir.join(UPPER))?;
    make(&dir.join(WORK))?;
    if rootfs.layers.is_empty() {
        make(&dir.join(EMPTY))?;
    }
    Ok(())
}

/// Mounts the root in the current mount namespace and gives it. `attributes` are `MOUNT_ATTR_*` added to its own. A `listening` root goes on
/// to hear of the host's mounts below its directory; every mount of this namespace has been made a slave for that.
pub fn mount(
    calls: &dyn Calls,
    source: &RootSource,
    attributes: u64,
    listening: bool,
) -> Result<OwnedFd, Failure> {
    match source {
        RootSource::Overlay(rootfs) => mount_overlay(calls, rootfs, attributes),
        RootSource::Directory(path) => mount_directory(calls, path, attributes, listening),
        RootSource::Staging(path) => mount_staging(calls, path),
    }
}

/// A mount of the root that is attached nowhere, for another mount namespace. Only of layers, on Linux 6.5 and later.
pub fn detached(
    calls: &dyn Calls,
    source: &RootSource,
    attributes: u64,
) -> Result<OwnedFd, Failure> {
    let doing = "making a detached root";
    let RootSource::Overlay(rootfs) = source else {
        return Err(Failure::invalid(doing, "it is not made of layers"));
    };
    let empty = format!("{}/{EMPTY}", rootfs.directory);
    overlay(calls, &lower(rootfs, &empty), &rootfs.directory, attributes)
        .map_err(|(error, _)| Failure::io(doing, &error))
}

/// Puts a root that was made detached where one that is mounted here would be.
pub fn attach(calls: &dyn Calls, source: &RootSource, tree: BorrowedFd<'_>) -> Result<(), Failure> {
    let path = place(source).to_string_lossy();
    let act = || -> io::Result<()> {
        let target = calls.open(&path, libc::O_PATH | libc::O_DIRECTORY)?;
        calls.attach(tree, target.as_fd())
    };
    act().map_err(|error| Failure::io(format!("putting the root on {path:?}"), &error))
}

/// Takes back what `prepare` made, as far as it is there.
pub fn withdraw(rootfs: &Rootfs) -> Result<(), Failure> {
    for name in [UPPER, WORK, EMPTY] {
        let path = Path::new(&rootfs.directory).join(name);
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Failure::io(format!("removing {}", path.display()), &error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// A file system in memory with the place of the root to come.
fn mount_staging(calls: &dyn Calls, path: &Path) -> Result<OwnedFd, Failure> {
    let act = || -> io::Result<OwnedFd> {
        let target = calls.open(&path.to_string_lossy(), libc::O_PATH | libc::O_DIRECTORY)?;
        let draft = Draft::new(calls, "tmpfs")?;
        draft.set("source", "sandbox")?;
        draft.set("mode", "755")?;
        draft.set("size", STAGING_SIZE)?;
        let tree = draft.mount(mount::ATTR_NOSUID | mount::ATTR_NODEV | mount::ATTR_NOEXEC)?;
        calls.make_dir_at(tree.as_fd(), STAGE.trim_start_matches('/'), 0o700)?;
        calls.attach(tree.as_fd(), target.as_fd())?;
        Ok(tree)
    };
    act().map_err(|error| Failure::io("mounting the root of a sandbox", &error))
}

/// The kernel wants the highest first.
fn lower<'a>(rootfs: &'a Rootfs, empty: &'a str) -> Vec<&'a str> {
    if rootfs.layers.is_empty() {
        vec![empty]
    } else {
        rootfs.layers.iter().rev().map(String::as_str).collect()
    }
}

/// Makes the mount that holds the root private: else the root would appear on the host too, and pivot_root(2) refuses it.
pub fn separate_parent(calls: &dyn Calls, source: &RootSource) -> Result<(), Failure> {
    let mut path = place(source);
    loop {
        let text = path.to_str().unwrap_or("/");
        match calls.mount("", text, "", libc::MS_PRIVATE, "") {
            // Not a mount point: the one above is the one that is meant.
            Err(error) if is(&error, libc::EINVAL) => match path.parent() {
                Some(above) => path = above,
                None => return Err(Failure::io("separating the root from the host's", &error)),
            },
            other => {
                return other
                    .map_err(|error| Failure::io("separating the root from the host's", &error));
            }
        }
    }
}

/// Where the root is mounted.
pub fn place(source: &RootSource) -> &Path {
    match source {
        RootSource::Overlay(rootfs) => Path::new(&rootfs.directory),
        RootSource::Directory(path) | RootSource::Staging(path) => path,
    }
}

/// The directory bound onto itself, with what is mounted below it.
fn mount_directory(
    calls: &dyn Calls,
    path: &Path,
    attributes: u64,
    listening: bool,
) -> Result<OwnedFd, Failure> {
    let doing = || format!("mounting root.path {path:?}");
    let text = path
        .to_str()
        .ok_or_else(|| Failure::invalid(doing(), "it is not UTF-8; rename it"))?;
    let directory =
        calls
            .open(text, libc::O_PATH | libc::O_DIRECTORY)
            .map_err(|error| match error.raw_os_error() {
                Some(libc::ENOENT) => Failure::invalid(
                    doing(),
                    "there is no such directory; make the root file system there",
                ),
                Some(libc::ENOTDIR) => Failure::invalid(doing(), "it is not a directory"),
                _ => Failure::io(doing(), &error),
            })?;
    let act = || -> io::Result<OwnedFd> {
        let tree = calls.clone_tree(directory.as_fd(), true)?;
        let change = Change {
            set: attributes,
            // pivot_root(2) refuses a root that is shared, and nothing of ours may reach the host.
            propagation: if listening {
                libc::MS_SLAVE
            } else {
                libc::MS_PRIVATE
            },
            ..Change::default()
        };
        calls.change_mount(tree.as_fd(), &change, false)?;
        calls.attach(tree.as_fd(), directory.as_fd())?;
        Ok(tree)
    };
    act().map_err(|error| Failure::io(doing(), &error))
}

/// Mounts the overlay on `Rootfs::directory`.
fn mount_overlay(calls: &dyn Calls, rootfs: &Rootfs, attributes: u64) -> Result<OwnedFd, Failure> {
    let dir = &rootfs.directory;
    let empty = format!("{dir}/{EMPTY}");
    let layers = lower(rootfs, &empty);
    let doing = || format!("mounting an overlay of {} layers on {dir:?}", layers.len());
    match overlay(calls, &layers, dir, attributes) {
        Ok(root) => {
            let target = calls
                .open(dir, libc::O_PATH | libc::O_DIRECTORY)
                .map_err(|error| Failure::io(format!("opening {dir:?}"), &error))?;
            calls
                .attach(root.as_fd(), target.as_fd())
                .map_err(|error| Failure::io(doing(), &error))?;
            Ok(root)
        }
        // Before Linux 6.5 layers cannot be added one by one.
        Err((error, _)) if is(&error, libc::EINVAL) => {
            overlay_by_data(calls, &layers, dir, attributes)
                .map_err(|error| explained(calls, &layers, doing(), &error, None))
        }
        Err((error, complaint)) => Err(explained(calls, &layers, doing(), &error, complaint)),
    }
}

/// The failure of an overlay: looked for only now, a layer that is missing is named.
fn explained(
    calls: &dyn Calls,
    layers: &[&str],
    doing: String,
    error: &io::Error,
    complaint: Option<String>,
) -> Failure {
    for layer in layers {
        if calls.open(layer, libc::O_PATH | libc::O_DIRECTORY).is_err() {
            return Failure::invalid(
                "mounting the root",
                format!("layer {layer:?} is not a directory on this node; unpack it first"),
            );
        }
    }
    let mut failure = Failure::io(doing, error);
    if let Some(complaint) = complaint {
        failure.message = format!("{}: {complaint}", failure.message);
    }
    failure
}

fn overlay(
    calls: &dyn Calls,
    layers: &[&str],
    dir: &str,
    attributes: u64,
) -> Result<OwnedFd, (io::Error, Option<String>)> {
    let draft = Draft::new(calls, "overlay").map_err(|error| (error, None))?;
    let configure = || -> io::Result<()> {
        draft.set("source", "overlay")?;
        for layer in layers {
            draft.set("lowerdir+", layer)?;
        }
        draft.set("upperdir", &format!("{dir}/{UPPER}"))?;
        draft.set("workdir", &format!("{dir}/{WORK}"))
    };
    configure().map_err(|error| (error, draft.complaint()))?;
    let root = draft
        .mount(attributes)
        .map_err(|error| (error, draft.complaint()))?;
    expect_writable(calls, &root, dir).map_err(|error| (error, None))?;
    Ok(root)
}

/// An overlay that cannot make its directory in `work` (a full disk) comes up read-only, which is found out here by its reason.
fn expect_writable(calls: &dyn Calls, root: &OwnedFd, dir: &str) -> io::Result<()> {
    if !calls.is_read_only(root.as_fd())? {
        return Ok(());
    }
    let work = calls.open(&format!("{dir}/{WORK}"), libc::O_PATH | libc::O_DIRECTORY)?;
    calls.make_dir_at(work.as_fd(), "probe", 0o700)?;
    Err(io::Error::from_raw_os_error(libc::EROFS))
}

fn overlay_by_data(
    calls: &dyn Calls,
    layers: &[&str],
    dir: &str,
    attributes: u64,
) -> io::Result<OwnedFd> {
    let escaped = |path: &str| {
        path.replace('\\', "\\\\")
            .replace(':', "\\:")
            .replace(',', "\\,")
    };
    let lower: Vec<String> = layers.iter().map(|layer| escaped(layer)).collect();
    let data = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.join(":"),
        escaped(&format!("{dir}/{UPPER}")),
        escaped(&format!("{dir}/{WORK}"))
    );
    let flags = if attributes & mount::ATTR_NODEV != 0 {
        libc::MS_NODEV
    } else {
        0
    };
    calls.mount("overlay", dir, "overlay", flags, &data)?;
    let root = calls.open(dir, libc::O_PATH | libc::O_DIRECTORY)?;
    expect_writable(calls, &root, dir)?;
    Ok(root)
}
