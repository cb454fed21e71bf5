//! System calls beneath a directory descriptor. No name here is ever resolved outside the tree it is of.

use crate::limits::XATTR_BYTES_MAX;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

/// The kernel gives up a safe resolution when a rename anywhere gets in its way; then it is asked again, at most this often.
const RESOLVE_ATTEMPTS_MAX: u32 = 128;
/// Longest target of a link, as in the kernel.
const LINK_BYTES_MAX: usize = 4096;
/// Longest list of attribute names, as in the kernel (XATTR_LIST_MAX).
const XATTR_LIST_BYTES_MAX: usize = 64 * 1024;
/// FS_IOC_GETFLAGS, FS_IOC_SETFLAGS and FS_TOPDIR_FL of linux/fs.h.
const FLAGS_GET: libc::Ioctl = libc::_IOR::<libc::c_long>(b'f' as u32, 1);
const FLAGS_SET: libc::Ioctl = libc::_IOW::<libc::c_long>(b'f' as u32, 2);
const FLAG_TOP_DIRECTORY: libc::c_int = 0x0002_0000;

/// Opens a path as if `root` were `/`: links, absolute ones too, and `..` stay beneath it.
pub fn open_in_root(root: BorrowedFd<'_>, path: &[u8], flags: i32) -> io::Result<OwnedFd> {
    let path = c_string(if path.is_empty() { b"." } else { path })?;
    // SAFETY: open_how is plain data.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = u64::from((flags | libc::O_CLOEXEC).cast_unsigned());
    how.resolve = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
    let mut attempts = 0;
    loop {
        // SAFETY: the path is NUL-terminated, the struct and its size are its own; both live over the call.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_openat2,
                root.as_raw_fd(),
                path.as_ptr(),
                &raw const how,
                size_of::<libc::open_how>(),
            )
        };
        match owned(fd) {
            Err(error)
                if error.raw_os_error() == Some(libc::EAGAIN)
                    && attempts < RESOLVE_ATTEMPTS_MAX =>
            {
                attempts += 1
            }
            other => return other,
        }
    }
}

/// Opens what is at a name for reading; a link is refused.
pub fn open_child(parent: BorrowedFd<'_>, name: &[u8], flags: i32) -> io::Result<OwnedFd> {
    let name = c_string(name)?;
    let flags = flags | libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    // SAFETY: the name is NUL-terminated and lives over the call.
    owned(unsafe { libc::openat(parent.as_raw_fd(), name.as_ptr(), flags) }.into())
}

/// What a link says.
pub fn link_target(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<Vec<u8>> {
    let name = c_string(name)?;
    let mut target = vec![0; LINK_BYTES_MAX];
    // SAFETY: the name is NUL-terminated and the buffer writable for its length; both live over the call.
    let got = unsafe {
        libc::readlinkat(
            parent.as_raw_fd(),
            name.as_ptr(),
            target.as_mut_ptr().cast(),
            target.len(),
        )
    };
    target.truncate(length(got)?);
    Ok(target)
}

/// Names of the extended attributes of what is at a name, a link not followed; none where the file system has none.
pub fn xattr_names(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    let path = path_of(parent, name)?;
    let mut names = vec![0u8; XATTR_LIST_BYTES_MAX];
    // SAFETY: the path is NUL-terminated and the buffer writable for its length; both live over the call.
    let got = unsafe { libc::llistxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    match length(got) {
        Ok(got) => Ok(names[..got]
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty())
            .map(<[u8]>::to_vec)
            .collect()),
        Err(error) if error.raw_os_error() == Some(libc::ENOTSUP) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// The value of an extended attribute of what is at a name, a link not followed; None where it has none of that name.
pub fn xattr(parent: BorrowedFd<'_>, name: &[u8], key: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let (path, key) = (path_of(parent, name)?, c_string(key)?);
    let mut value = vec![0u8; XATTR_BYTES_MAX];
    // SAFETY: both strings are NUL-terminated and the buffer is writable for its length; all live over the call.
    let got = unsafe {
        libc::lgetxattr(
            path.as_ptr(),
            key.as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    };
    match length(got) {
        Ok(got) => {
            value.truncate(got);
            Ok(Some(value))
        }
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENODATA | libc::ENOTSUP)) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Opens a directory by its path from outside the tree; a link at its end is refused.
pub fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    use std::os::unix::ffi::OsStrExt;
    let path = c_string(path.as_os_str().as_bytes())?;
    // SAFETY: the path is NUL-terminated and lives over the call.
    owned(
        unsafe {
            libc::open(
                path.as_ptr(),
                libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC,
            )
        }
        .into(),
    )
}

/// Creates a file that must not exist, for writing; its mode is cut by the umask.
pub fn create_file(parent: BorrowedFd<'_>, name: &[u8], mode: u32) -> io::Result<OwnedFd> {
    let name = c_string(name)?;
    let flags = libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    // SAFETY: the name is NUL-terminated and lives over the call.
    owned(unsafe { libc::openat(parent.as_raw_fd(), name.as_ptr(), flags, mode) }.into())
}

pub fn make_directory(parent: BorrowedFd<'_>, name: &[u8], mode: u32) -> io::Result<()> {
    let name = c_string(name)?;
    // SAFETY: the name is NUL-terminated and lives over the call.
    check(unsafe { libc::mkdirat(parent.as_raw_fd(), name.as_ptr(), mode) })
}

pub fn make_link(parent: BorrowedFd<'_>, name: &[u8], target: &[u8]) -> io::Result<()> {
    let (name, target) = (c_string(name)?, c_string(target)?);
    // SAFETY: both strings are NUL-terminated and live over the call.
    check(unsafe { libc::symlinkat(target.as_ptr(), parent.as_raw_fd(), name.as_ptr()) })
}

/// Another name for what is at `from`; a link there is not followed.
pub fn hard_link(
    from_parent: BorrowedFd<'_>,
    from: &[u8],
    parent: BorrowedFd<'_>,
    name: &[u8],
) -> io::Result<()> {
    let (from, name) = (c_string(from)?, c_string(name)?);
    // SAFETY: both strings are NUL-terminated and live over the call.
    check(unsafe {
        libc::linkat(
            from_parent.as_raw_fd(),
            from.as_ptr(),
            parent.as_raw_fd(),
            name.as_ptr(),
            0,
        )
    })
}

/// Makes a device node or FIFO; `mode` holds its type.
pub fn make_node(
    parent: BorrowedFd<'_>,
    name: &[u8],
    mode: u32,
    major: u32,
    minor: u32,
) -> io::Result<()> {
    let name = c_string(name)?;
    // SAFETY: the name is NUL-terminated and lives over the call.
    check(unsafe {
        libc::mknodat(
            parent.as_raw_fd(),
            name.as_ptr(),
            mode,
            libc::makedev(major, minor),
        )
    })
}

/// What is at a name, a link not followed; None when nothing is.
pub fn status(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<libc::stat>> {
    let name = c_string(name)?;
    // SAFETY: stat is plain data.
    let mut found: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: the name is NUL-terminated and the struct is writable; both live over the call.
    match check(unsafe {
        libc::fstatat(
            parent.as_raw_fd(),
            name.as_ptr(),
            &raw mut found,
            libc::AT_SYMLINK_NOFOLLOW,
        )
    }) {
        Ok(()) => Ok(Some(found)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

pub fn remove_file(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    let name = c_string(name)?;
    // SAFETY: the name is NUL-terminated and lives over the call.
    check(unsafe { libc::unlinkat(parent.as_raw_fd(), name.as_ptr(), 0) })
}

/// Sets the owner of what is at a name, a link not followed.
pub fn set_owner(parent: BorrowedFd<'_>, name: &[u8], uid: u32, gid: u32) -> io::Result<()> {
    let name = c_string(name)?;
    // SAFETY: the name is NUL-terminated and lives over the call.
    check(unsafe {
        libc::fchownat(
            parent.as_raw_fd(),
            name.as_ptr(),
            uid,
            gid,
            libc::AT_SYMLINK_NOFOLLOW,
        )
    })
}

/// Sets the mode of what is at a name, which must be no link.
pub fn set_mode(parent: BorrowedFd<'_>, name: &[u8], mode: u32) -> io::Result<()> {
    let name = c_string(name)?;
    // SAFETY: the name is NUL-terminated and lives over the call.
    check(unsafe { libc::fchmodat(parent.as_raw_fd(), name.as_ptr(), mode, 0) })
}

/// Sets when what is at a name was read and changed, a link not followed.
pub fn set_time(
    parent: BorrowedFd<'_>,
    name: &[u8],
    seconds: i64,
    nanoseconds: u32,
) -> io::Result<()> {
    let name = c_string(name)?;
    let time = libc::timespec {
        tv_sec: seconds,
        tv_nsec: i64::from(nanoseconds),
    };
    let times = [time, time];
    // SAFETY: the name is NUL-terminated; it and the two times live over the call.
    check(unsafe {
        libc::utimensat(
            parent.as_raw_fd(),
            name.as_ptr(),
            times.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
        )
    })
}

/// Sets the owner of an open file.
pub fn set_owner_of(file: BorrowedFd<'_>, uid: u32, gid: u32) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::fchown(file.as_raw_fd(), uid, gid) })
}

/// Sets the mode of an open file.
pub fn set_mode_of(file: BorrowedFd<'_>, mode: u32) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::fchmod(file.as_raw_fd(), mode) })
}

/// Sets when an open file was read and changed.
pub fn set_time_of(file: BorrowedFd<'_>, seconds: i64, nanoseconds: u32) -> io::Result<()> {
    let time = libc::timespec {
        tv_sec: seconds,
        tv_nsec: i64::from(nanoseconds),
    };
    let times = [time, time];
    // SAFETY: the two times live over the call.
    check(unsafe { libc::futimens(file.as_raw_fd(), times.as_ptr()) })
}

/// Sets an extended attribute of an open file.
pub fn set_xattr_of(file: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<()> {
    let key = c_string(key)?;
    // SAFETY: the key is NUL-terminated, pointer and length of the value are of the same slice; both live over the call.
    check(unsafe {
        libc::fsetxattr(
            file.as_raw_fd(),
            key.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    })
}

/// Takes from a directory the access list that what is made in it would get.
pub fn remove_default_access(directory: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the key is NUL-terminated.
    match check(unsafe {
        libc::fremovexattr(directory.as_raw_fd(), c"system.posix_acl_default".as_ptr())
    }) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENODATA | libc::ENOTSUP)) => Ok(()),
        other => other,
    }
}

/// Has ext4 put every directory that is made in this one where there is most room, instead of beside it (chattr(1), T). Other file systems refuse.
pub fn spread_children(directory: BorrowedFd<'_>) -> io::Result<()> {
    let mut flags: libc::c_int = 0;
    // SAFETY: the request writes one int (ioctl_iflags(2)), which lives over the call.
    check(unsafe { libc::ioctl(directory.as_raw_fd(), FLAGS_GET, &raw mut flags) })?;
    if flags & FLAG_TOP_DIRECTORY != 0 {
        return Ok(());
    }
    flags |= FLAG_TOP_DIRECTORY;
    // SAFETY: the request reads one int, which lives over the call.
    check(unsafe { libc::ioctl(directory.as_raw_fd(), FLAGS_SET, &raw const flags) })
}

/// User and group of what this process makes.
pub fn effective_ids() -> (u32, u32) {
    // SAFETY: no pointers, and they cannot fail.
    unsafe { (libc::geteuid(), libc::getegid()) }
}

/// Gives this thread a umask of its own, of 0; false where the kernel does not let it have one.
pub fn clear_thread_umask() -> bool {
    // SAFETY: no pointers. What was shared (umask, working directory, root) this thread from now on has for itself.
    if unsafe { libc::unshare(libc::CLONE_FS) } != 0 {
        return false;
    }
    // SAFETY: no pointers, and it cannot fail.
    unsafe { libc::umask(0) };
    true
}

/// Sets an extended attribute of what is at a name, a link not followed.
pub fn set_xattr(parent: BorrowedFd<'_>, name: &[u8], key: &[u8], value: &[u8]) -> io::Result<()> {
    let path = path_of(parent, name)?;
    let key = c_string(key)?;
    // SAFETY: both strings are NUL-terminated, pointer and length of the value are of the same slice; all live over the call.
    check(unsafe {
        libc::lsetxattr(
            path.as_ptr(),
            key.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    })
}

/// Writes everything of the file system that holds the descriptor to its disk.
pub fn sync_file_system(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::syncfs(fd.as_raw_fd()) })
}

/// Renames within one directory; fails with EEXIST when the new name is taken.
pub fn rename_new(parent: BorrowedFd<'_>, from: &[u8], to: &[u8]) -> io::Result<()> {
    let (from, to) = (c_string(from)?, c_string(to)?);
    // SAFETY: both strings are NUL-terminated and live over the call.
    check(unsafe {
        libc::renameat2(
            parent.as_raw_fd(),
            from.as_ptr(),
            parent.as_raw_fd(),
            to.as_ptr(),
            libc::RENAME_NOREPLACE,
        )
    })
}

/// A name in a directory as a path, for calls that take no directory descriptor on every kernel: the link in /proc leads to just that directory.
fn path_of(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<CString> {
    c_string(
        &[
            format!("/proc/thread-self/fd/{}/", parent.as_raw_fd()).as_bytes(),
            name,
        ]
        .concat(),
    )
}

fn length(got: isize) -> io::Result<usize> {
    usize::try_from(got).map_err(|_| io::Error::last_os_error())
}

fn c_string(bytes: &[u8]) -> io::Result<CString> {
    CString::new(bytes).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made for us, and descriptors fit an int.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
