//! The devices and links that every container's /dev has.

use crate::sys::{file, is, mount};
use shoal_protocol::Failure;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// (name, major, minor), all character devices with mode 0666.
const NODES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];

/// Fills a fresh /dev. With `bind`, nodes are the host's, bound one by one (for a /dev that is mounted nodev).
pub fn fill(dev: BorrowedFd<'_>, bind: bool) -> Result<(), Failure> {
    for (name, major, minor) in NODES {
        let made = if bind {
            bind_node(dev, name, major, minor)
        } else {
            make_node(dev, name, major, minor)
        };
        made.map_err(|error| Failure::io(format!("making /dev/{name}"), &error))?;
    }
    for (name, target) in LINKS {
        match file::symlink_at(target, dev, name) {
            Err(error) if !is(&error, libc::EEXIST) => {
                return Err(Failure::io(
                    format!("linking /dev/{name} to {target}"),
                    &error,
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The host's /dev/null, proven to be it, for what reads and writes nothing.
pub fn null(flags: i32) -> io::Result<OwnedFd> {
    let fd = file::open("/dev/null", flags)?;
    prove(fd.as_fd(), 1, 3)?;
    Ok(fd)
}

fn prove(fd: BorrowedFd<'_>, major: u32, minor: u32) -> io::Result<()> {
    let (mode, found_major, found_minor) = file::stat(fd)?;
    let right =
        mode & libc::S_IFMT == libc::S_IFCHR && (found_major, found_minor) == (major, minor);
    if right {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::ENODEV))
    }
}

fn make_node(dev: BorrowedFd<'_>, name: &str, major: u32, minor: u32) -> io::Result<()> {
    match file::make_node_at(dev, name, libc::S_IFCHR | 0o666, (major, minor)) {
        Err(error) if is(&error, libc::EPERM) => bind_node(dev, name, major, minor),
        other => other,
    }
}

fn bind_node(dev: BorrowedFd<'_>, name: &str, major: u32, minor: u32) -> io::Result<()> {
    let host = file::open(&format!("/dev/{name}"), libc::O_PATH)?;
    prove(host.as_fd(), major, minor)?;
    drop(file::open_at(
        dev,
        name,
        libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_WRONLY,
        0o666,
    )?);
    let target = file::open_at(dev, name, libc::O_PATH | libc::O_NOFOLLOW, 0)?;
    let tree = mount::clone_tree(host.as_fd(), false)?;
    mount::attach(tree.as_fd(), target.as_fd())
}
