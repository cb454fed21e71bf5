//! A terminal of the container's own: opened in its devpts by descriptor, so that no path of the image is trusted (CVE-2025-52565), its
//! master sent to whoever listens on the console socket.

use crate::sys::{file, process, socket};
use shoal_protocol::{Failure, oci::ConsoleSize};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Magic number of devpts (<linux/magic.h>).
const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;
/// Device of every ptmx.
const PTMX: (u32, u32) = (5, 2);
/// Resolution of the few paths below the root that must be what they seem.
const STRICT: u64 = libc::RESOLVE_BENEATH | file::NO_SYMLINKS | libc::RESOLVE_NO_MAGICLINKS;
/// The word that goes with the master's descriptor, as runc sends it: the name under which it was opened.
const MASTER_NAME: &[u8] = b"/dev/ptmx";

/// Opens a terminal in the devpts at /dev/pts below `root`, sends its master over `socket`, and makes it the controlling terminal of this
/// session and its standard streams. Gives the slave.
pub(crate) fn open(
    root: BorrowedFd<'_>,
    size: Option<&ConsoleSize>,
    socket: BorrowedFd<'_>,
) -> Result<OwnedFd, Failure> {
    let io =
        |what: &str, error: io::Error| Failure::io(format!("{what} for process.terminal"), &error);
    let pts = file::open_at2(root, "dev/pts", libc::O_PATH | libc::O_DIRECTORY, STRICT)
        .map_err(|error| io("opening /dev/pts", error))?;
    let kind = file::file_system(pts.as_fd()).map_err(|error| io("looking at /dev/pts", error))?;
    if kind != DEVPTS_SUPER_MAGIC {
        return Err(Failure::invalid(
            "opening /dev/pts for process.terminal",
            "it is not a devpts; add one to mounts",
        ));
    }
    let act = || -> io::Result<(OwnedFd, OwnedFd)> {
        let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_NOFOLLOW;
        let master = file::open_at(pts.as_fd(), "ptmx", flags, 0)?;
        let (mode, major, minor) = file::stat(master.as_fd())?;
        if mode & libc::S_IFMT != libc::S_IFCHR || (major, minor) != PTMX {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        let slave = process::terminal_peer(master.as_fd())?;
        if let Some(size) = size.filter(|size| (size.height, size.width) != (0, 0)) {
            process::set_terminal_size(master.as_fd(), size.height, size.width)?;
        }
        process::set_controlling_terminal(slave.as_fd())?;
        for number in 0..=2 {
            process::duplicate_to(slave.as_fd(), number)?;
        }
        Ok((master, slave))
    };
    let (master, slave) = act().map_err(|error| io("making a terminal", error))?;
    socket::send_with_fds(socket, MASTER_NAME, &[master.as_fd()])
        .map_err(|error| io("sending the master to the console socket", error))?;
    Ok(slave)
}
