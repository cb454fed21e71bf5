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

/// A file system being configured (fsopen).
pub struct Draft(OwnedFd);

impl Draft {
    /// Starts a file system of this type.
    pub fn new(kind: &str) -> io::Result<Self> {
        const FSOPEN_CLOEXEC: u32 = 1;
        let kind = c_string(kind)?;
        // SAFETY: kind is NUL-terminated and lives over the call.
        new_fd(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) }).map(Self)
    }

    /// Sets `key=value`.
    pub fn set(&self, key: &str, value: &str) -> io::Result<()> {
        self.configure(FSCONFIG_SET_STRING, key, Some(value))
    }

    /// Sets a key that takes no value.
    pub fn flag(&self, key: &str) -> io::Result<()> {
        self.configure(FSCONFIG_SET_FLAG, key, None)
    }

    fn configure(&self, command: u32, key: &str, value: Option<&str>) -> io::Result<()> {
        use std::os::fd::AsFd;
        let key = c_string(key)?;
        let value = value.map(c_string).transpose()?;
        config(self.0.as_fd(), command, Some(&key), value.as_deref())
    }

    /// Makes the file system and a detached mount of it.
    pub fn mount(self, attributes: u64) -> io::Result<OwnedFd> {
        use std::os::fd::AsFd;
        const FSMOUNT_CLOEXEC: u32 = 1;
        config(self.0.as_fd(), FSCONFIG_CMD_CREATE, None, None)?;
        // SAFETY: no pointers.
        new_fd(unsafe {
            libc::syscall(
                libc::SYS_fsmount,
                self.0.as_raw_fd(),
                FSMOUNT_CLOEXEC,
                attributes,
            )
        })
    }

    /// What the kernel said about the last failure, if it said anything.
    pub fn complaint(&self) -> Option<String> {
        let mut buffer = [0u8; 512];
        // SAFETY: the buffer is writable for its length.
        let got =
            unsafe { libc::read(self.0.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
        let got = usize::try_from(got).ok().filter(|got| *got > 2)?;
        Some(String::from_utf8_lossy(&buffer[2..got]).trim().to_owned())
    }
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

/// Changes attributes and propagation (0: unchanged) of the mount at an open file.
pub fn set_attributes(
    of: BorrowedFd<'_>,
    set: u64,
    clear: u64,
    propagation: u64,
    recursive: bool,
) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: set,
        attr_clr: clear,
        propagation,
        userns_fd: 0,
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

/// mount(2), for overlay on kernels before 6.5 and for changing the propagation of `/`.
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

/// Makes the working directory the root and drops the old root, leaving no way back.
pub fn pivot_into_working_directory() -> io::Result<()> {
    // SAFETY: static C strings.
    check(unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) })?;
    // SAFETY: static C string; the old root is mounted on top of the new one at ".".
    check(unsafe { libc::umount2(c".".as_ptr(), libc::MNT_DETACH) }.into())?;
    // SAFETY: static C string.
    check(unsafe { libc::chdir(c"/".as_ptr()) }.into()).map(drop)
}

/// Moves the mount at the working directory onto `/` and makes it the root, for roots that cannot be pivoted from (initramfs).
pub fn move_working_directory_to_root() -> io::Result<()> {
    check(
        // SAFETY: static C strings; MS_MOVE reads neither type nor data.
        unsafe {
            libc::mount(
                c".".as_ptr(),
                c"/".as_ptr(),
                ptr::null(),
                libc::MS_MOVE,
                ptr::null(),
            )
        }
        .into(),
    )?;
    super::process::change_root_to_working_directory()
}
