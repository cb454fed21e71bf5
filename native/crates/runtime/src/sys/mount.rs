//! The mount system calls of Linux 5.2 and later, by descriptor, and the few old ones that are still needed.

use super::file::new_fd;
use super::{c_string, check};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

/// Attributes of a mount (`MOUNT_ATTR_*`).
pub const ATTR_RDONLY: u64 = libc::MOUNT_ATTR_RDONLY;
pub const ATTR_NOSUID: u64 = libc::MOUNT_ATTR_NOSUID;
pub const ATTR_NODEV: u64 = libc::MOUNT_ATTR_NODEV;
pub const ATTR_NOEXEC: u64 = libc::MOUNT_ATTR_NOEXEC;
pub const ATTR_NOATIME: u64 = libc::MOUNT_ATTR_NOATIME;
pub const ATTR_STRICTATIME: u64 = libc::MOUNT_ATTR_STRICTATIME;
pub const ATTR_ATIME: u64 = libc::MOUNT_ATTR__ATIME;
pub const ATTR_NODIRATIME: u64 = libc::MOUNT_ATTR_NODIRATIME;
pub const ATTR_NOSYMFOLLOW: u64 = libc::MOUNT_ATTR_NOSYMFOLLOW;

// Commands of fsconfig(2), from <linux/mount.h>.
const FSCONFIG_SET_FLAG: u32 = 0;
const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_CMD_CREATE: u32 = 6;

fn config(
    fs: BorrowedFd<'_>,
    command: u32,
    key: Option<&CStr>,
    value: Option<&CStr>,
) -> io::Result<()> {
    // SAFETY: key and value are NUL-terminated, or null where the command takes none.
    check(unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            fs.as_raw_fd(),
            command,
            key.map_or(ptr::null(), CStr::as_ptr),
            value.map_or(ptr::null(), CStr::as_ptr),
            0,
        )
    })
    .map(drop)
}

/// Starts a file system of this type (fsopen(2)).
pub fn fs_open(kind: &str) -> io::Result<OwnedFd> {
    const FSOPEN_CLOEXEC: u32 = 1;
    let kind = c_string(kind)?;
    // SAFETY: kind is NUL-terminated and lives over the call.
    new_fd(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) })
}

/// Sets `key=value`, or a key that takes no value (fsconfig(2)).
pub fn fs_set(fs: BorrowedFd<'_>, key: &str, value: Option<&str>) -> io::Result<()> {
    let key = c_string(key)?;
    let value = value.map(c_string).transpose()?;
    let command = if value.is_some() {
        FSCONFIG_SET_STRING
    } else {
        FSCONFIG_SET_FLAG
    };
    config(fs, command, Some(&key), value.as_deref())
}

/// Makes the file system and a detached mount of it (fsconfig(2), fsmount(2)).
pub fn fs_mount(fs: BorrowedFd<'_>, attributes: u64) -> io::Result<OwnedFd> {
    const FSMOUNT_CLOEXEC: u32 = 1;
    config(fs, FSCONFIG_CMD_CREATE, None, None)?;
    // SAFETY: no pointers.
    new_fd(unsafe {
        libc::syscall(
            libc::SYS_fsmount,
            fs.as_raw_fd(),
            FSMOUNT_CLOEXEC,
            attributes,
        )
    })
}

/// What the kernel said about the last failure of a file system, if it said anything.
pub fn fs_complaint(fs: BorrowedFd<'_>) -> Option<String> {
    let mut buffer = [0u8; 512];
    // SAFETY: the buffer is writable for its length.
    let got = unsafe { libc::read(fs.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
    let got = usize::try_from(got).ok().filter(|got| *got > 2)?;
    Some(String::from_utf8_lossy(&buffer[2..got]).trim().to_owned())
}

/// A detached copy of the mount at an open file, with everything below when `recursive`.
pub fn clone_tree(of: BorrowedFd<'_>, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags =
        libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_EMPTY_PATH.cast_unsigned();
    if recursive {
        flags |= libc::AT_RECURSIVE.cast_unsigned();
    }
    // SAFETY: the empty path is a static C string.
    new_fd(unsafe { libc::syscall(libc::SYS_open_tree, of.as_raw_fd(), c"".as_ptr(), flags) })
}

/// As `clone_tree`, of the mount at a path of the host.
pub fn clone_path(path: &str, recursive: bool) -> io::Result<OwnedFd> {
    let path = c_string(path)?;
    let mut flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= libc::AT_RECURSIVE.cast_unsigned();
    }
    // SAFETY: the path is NUL-terminated and lives over the call.
    new_fd(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })
}

/// Puts a detached mount onto one name in a directory that nobody else writes to; a link there is not followed.
pub fn attach_at(mount: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    const MOVE_MOUNT_F_EMPTY_PATH: u32 = 0x4;
    let name = c_string(name)?;
    // SAFETY: the empty path is a static C string, the name is NUL-terminated and lives over the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            dir.as_raw_fd(),
            name.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        )
    })
    .map(drop)
}

/// Puts a detached mount onto an open file.
pub fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    const MOVE_MOUNT_F_EMPTY_PATH: u32 = 0x4;
    const MOVE_MOUNT_T_EMPTY_PATH: u32 = 0x40;
    // SAFETY: both empty paths are static C strings.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            target.as_raw_fd(),
            c"".as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH,
        )
    })
    .map(drop)
}

/// What mount_setattr(2) changes of a mount; 0 and None leave things as they are.
#[derive(Debug, Clone, Copy, Default)]
pub struct Change<'a> {
    /// `MOUNT_ATTR_*` to set and to clear.
    pub set: u64,
    pub clear: u64,
    /// One of `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE` and `MS_UNBINDABLE`.
    pub propagation: u64,
    /// A user namespace by whose mapping the owners of files are seen.
    pub owners: Option<BorrowedFd<'a>>,
}

/// Changes the mount at an open file, and everything below when `recursive`.
pub fn change(of: BorrowedFd<'_>, change: &Change<'_>, recursive: bool) -> io::Result<()> {
    let owners = change
        .owners
        .map(|fd| {
            u64::try_from(fd.as_raw_fd()).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))
        })
        .transpose()?;
    let attributes = libc::mount_attr {
        attr_set: change.set
            | if owners.is_some() {
                libc::MOUNT_ATTR_IDMAP
            } else {
                0
            },
        attr_clr: change.clear,
        propagation: change.propagation,
        userns_fd: owners.unwrap_or(0),
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the struct lives over the call and the size is its own.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            of.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    })
    .map(drop)
}

/// mount(2), for types without fsopen's ways, overlay on kernels before 6.5, and for changing the propagation of `/`.
pub fn mount(
    source: &str,
    target: &str,
    kind: &str,
    flags: libc::c_ulong,
    data: &str,
) -> io::Result<()> {
    let (source, target, kind, data) = (
        c_string(source)?,
        c_string(target)?,
        c_string(kind)?,
        c_string(data)?,
    );
    check(
        // SAFETY: all strings are NUL-terminated and live over the call.
        unsafe {
            libc::mount(
                source.as_ptr(),
                target.as_ptr(),
                kind.as_ptr(),
                flags,
                data.as_ptr().cast(),
            )
        }
        .into(),
    )
    .map(drop)
}

/// pivot_root(2) onto the working directory; the old root is then mounted on top of it.
pub fn pivot_root_here() -> io::Result<()> {
    // SAFETY: static C strings.
    check(unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) }).map(drop)
}

/// umount2(2).
pub fn unmount(target: &CStr, flags: i32) -> io::Result<()> {
    // SAFETY: a C string that lives over the call.
    check(unsafe { libc::umount2(target.as_ptr(), flags) }.into()).map(drop)
}

/// chroot(2) to the working directory.
pub fn change_root_here() -> io::Result<()> {
    // SAFETY: static C string.
    check(unsafe { libc::chroot(c".".as_ptr()) }.into()).map(drop)
}
