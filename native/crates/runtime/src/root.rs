//! The container's root: an overlay over its layers, mounted inside the container's own mount namespace.

use crate::sys::{file, is, mount};
use shoal_protocol::{Failure, calls::Rootfs};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Names below `Rootfs::directory`.
pub const UPPER: &str = "upper";
pub const WORK: &str = "work";
/// The only lower directory of a root without layers.
const EMPTY: &str = "empty";

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

/// Mounts the overlay on `Rootfs::directory` (in the current mount namespace) and gives its root.
pub fn mount_overlay(rootfs: &Rootfs, attributes: u64) -> Result<OwnedFd, Failure> {
    let dir = &rootfs.directory;
    let empty = format!("{dir}/{EMPTY}");
    let layers: Vec<&str> = if rootfs.layers.is_empty() {
        vec![&empty]
    } else {
        // The kernel wants the highest first.
        rootfs.layers.iter().rev().map(String::as_str).collect()
    };
    for layer in &layers {
        if !Path::new(layer).is_dir() {
            return Err(Failure::invalid(
                "mounting the root",
                format!("layer {layer:?} is not a directory on this node; unpack it first"),
            ));
        }
    }
    let doing = || format!("mounting an overlay of {} layers on {dir:?}", layers.len());
    match overlay(&layers, dir, attributes) {
        Ok(root) => {
            let target = file::open(dir, libc::O_PATH | libc::O_DIRECTORY)
                .map_err(|error| Failure::io(format!("opening {dir:?}"), &error))?;
            mount::attach(root.as_fd(), target.as_fd())
                .map_err(|error| Failure::io(doing(), &error))?;
            Ok(root)
        }
        // Before Linux 6.5 layers cannot be added one by one.
        Err((error, _)) if is(&error, libc::EINVAL) => {
            overlay_by_data(&layers, dir, attributes).map_err(|error| Failure::io(doing(), &error))
        }
        Err((error, complaint)) => {
            let mut failure = Failure::io(doing(), &error);
            if let Some(complaint) = complaint {
                failure.message = format!("{}: {complaint}", failure.message);
            }
            Err(failure)
        }
    }
}

fn overlay(
    layers: &[&str],
    dir: &str,
    attributes: u64,
) -> Result<OwnedFd, (io::Error, Option<String>)> {
    let draft = mount::Draft::new("overlay").map_err(|error| (error, None))?;
    let configure = || -> io::Result<()> {
        draft.set("source", "overlay")?;
        for layer in layers {
            draft.set("lowerdir+", layer)?;
        }
        draft.set("upperdir", &format!("{dir}/{UPPER}"))?;
        draft.set("workdir", &format!("{dir}/{WORK}"))
    };
    configure().map_err(|error| (error, draft.complaint()))?;
    let root = draft.mount(attributes).map_err(|error| (error, None))?;
    expect_writable(&root, dir).map_err(|error| (error, None))?;
    Ok(root)
}

/// An overlay that cannot make its directory in `work` (a full disk) comes up read-only, which is found out here by its reason.
fn expect_writable(root: &OwnedFd, dir: &str) -> io::Result<()> {
    if !file::is_read_only(root.as_fd())? {
        return Ok(());
    }
    fs::create_dir(Path::new(dir).join(WORK).join("probe"))?;
    Err(io::Error::from_raw_os_error(libc::EROFS))
}

fn overlay_by_data(layers: &[&str], dir: &str, attributes: u64) -> io::Result<OwnedFd> {
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
    mount::mount("overlay", dir, "overlay", flags, &data)?;
    let root = file::open(dir, libc::O_PATH | libc::O_DIRECTORY)?;
    expect_writable(&root, dir)?;
    Ok(root)
}
