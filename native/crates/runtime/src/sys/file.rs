//! Files by descriptor: opening beneath a directory, pipes, locks and durable writes.

use super::{c_string, check};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Resolution rules of openat2.
pub const IN_ROOT: u64 = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
pub const NO_SYMLINKS: u64 = libc::RESOLVE_NO_SYMLINKS;
pub const NO_XDEV: u64 = libc::RESOLVE_NO_XDEV;

fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    let fd = check(result)?;
    let fd = RawFd::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: the kernel has just made this descriptor for us and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(crate) fn new_fd(result: libc::c_long) -> io::Result<OwnedFd> {
    owned(result)
}

/// openat(2), always close-on-exec.
pub fn open_at(dir: BorrowedFd<'_>, path: &str, flags: i32, mode: u32) -> io::Result<OwnedFd> {
    let path = c_string(path)?;
    owned(
        // SAFETY: path is NUL-terminated and lives over the call.
        unsafe {
            libc::openat(
                dir.as_raw_fd(),
                path.as_ptr(),
                flags | libc::O_CLOEXEC,
                mode,
            )
        }
        .into(),
    )
}

/// open(2) from the working directory, always close-on-exec.
pub fn open(path: &str, flags: i32) -> io::Result<OwnedFd> {
    open_at(
        // SAFETY: AT_FDCWD is not a descriptor that anybody closes.
        unsafe { BorrowedFd::borrow_raw(libc::AT_FDCWD) },
        path,
        flags,
        0,
    )
}

/// How often a path is resolved anew when the kernel could not say where `..` led.
const RESOLVE_TRIES_MAX: u32 = 1000;

/// openat2(2) with resolution rules, always close-on-exec.
pub fn open_at2(dir: BorrowedFd<'_>, path: &str, flags: i32, resolve: u64) -> io::Result<OwnedFd> {
    let path = c_string(path)?;
    // SAFETY: open_how is plain data for which all zeroes is the documented default.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = u64::from((flags | libc::O_CLOEXEC).cast_unsigned());
    how.resolve = resolve;
    let open = || {
        // SAFETY: path and how live over the call and the size is how's own.
        owned(unsafe {
            libc::syscall(
                libc::SYS_openat2,
                dir.as_raw_fd(),
                path.as_ptr(),
                &raw const how,
                size_of::<libc::open_how>(),
            )
        })
    };
    ask_again(open)
}

/// Opens until the kernel knows: when something was renamed or mounted anywhere on the machine while `..` was resolved, openat2(2) wants to
/// be asked again.
fn ask_again<T>(mut open: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut tries = 1;
    loop {
        match open() {
            Err(error)
                if error.raw_os_error() == Some(libc::EAGAIN) && tries < RESOLVE_TRIES_MAX =>
            {
                tries += 1;
            }
            opened => return opened,
        }
    }
}

/// The id of the mount that an open file was found on, as mountinfo has it (statx(2), Linux 5.8).
pub fn mount_id(of: BorrowedFd<'_>) -> io::Result<u64> {
    // SAFETY: statx is plain data for which all zeroes is valid.
    let mut found: libc::statx = unsafe { std::mem::zeroed() };
    let (fd, what) = (of.as_raw_fd(), libc::STATX_MNT_ID);
    let flags = libc::AT_EMPTY_PATH;
    // SAFETY: path and buffer live over the call.
    let told = unsafe { libc::statx(fd, c"".as_ptr(), flags, what, &raw mut found) };
    check(told.into())?;
    Ok(found.stx_mnt_id)
}

/// All that a file of /proc holds now, read through a descriptor that was opened earlier.
pub fn read_again(of: BorrowedFd<'_>) -> io::Result<String> {
    let (mut bytes, mut piece) = (Vec::new(), [0u8; 16 * 1024]);
    // SAFETY: no pointers.
    check(unsafe { libc::lseek(of.as_raw_fd(), 0, libc::SEEK_SET) })?;
    loop {
        match read(of, &mut piece)? {
            0 => return Ok(String::from_utf8_lossy(&bytes).into_owned()),
            length => bytes.extend_from_slice(&piece[..length]),
        }
    }
}

/// mkdirat(2).
pub fn make_dir_at(dir: BorrowedFd<'_>, name: &str, mode: u32) -> io::Result<()> {
    let name = c_string(name)?;
    // SAFETY: name is NUL-terminated and lives over the call.
    check(unsafe { libc::mkdirat(dir.as_raw_fd(), name.as_ptr(), mode) }.into()).map(drop)
}

/// mknodat(2).
pub fn make_node_at(
    dir: BorrowedFd<'_>,
    name: &str,
    mode: u32,
    device: (u32, u32),
) -> io::Result<()> {
    let name = c_string(name)?;
    let device = libc::makedev(device.0, device.1);
    // SAFETY: name is NUL-terminated and lives over the call.
    check(unsafe { libc::mknodat(dir.as_raw_fd(), name.as_ptr(), mode, device) }.into()).map(drop)
}

/// symlinkat(2).
pub fn symlink_at(target: &str, dir: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let (target, name) = (c_string(target)?, c_string(name)?);
    // SAFETY: both strings are NUL-terminated and live over the call.
    check(unsafe { libc::symlinkat(target.as_ptr(), dir.as_raw_fd(), name.as_ptr()) }.into())
        .map(drop)
}

/// readlinkat(2).
pub fn read_link_at(dir: BorrowedFd<'_>, name: &str) -> io::Result<String> {
    let name = c_string(name)?;
    let mut buffer = vec![0u8; 4096];
    // SAFETY: the buffer is writable for the length that is given.
    let length = check(unsafe {
        libc::readlinkat(
            dir.as_raw_fd(),
            name.as_ptr(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
        )
    } as libc::c_long)?;
    buffer.truncate(usize::try_from(length).unwrap_or(0));
    String::from_utf8(buffer).map_err(|_| io::Error::from_raw_os_error(libc::EILSEQ))
}

/// What kind of file a descriptor is: mode, major and minor.
pub fn stat(fd: BorrowedFd<'_>) -> io::Result<(u32, u32, u32)> {
    // SAFETY: stat is plain data that fstat fills.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to our own struct.
    check(unsafe { libc::fstat(fd.as_raw_fd(), &raw mut stat) }.into())?;
    Ok((
        stat.st_mode,
        libc::major(stat.st_rdev),
        libc::minor(stat.st_rdev),
    ))
}

/// What fstat(2) tells of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Type and permissions.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Of a device node.
    pub major: u32,
    pub minor: u32,
    /// Which file system it is on.
    pub device: u64,
    pub inode: u64,
}

impl Stat {
    /// Whether it is of this type (`S_IFDIR`, ...).
    pub fn is(&self, kind: u32) -> bool {
        self.mode & libc::S_IFMT == kind
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.is(libc::S_IFDIR)
    }
}

/// fstat(2).
pub fn look(fd: BorrowedFd<'_>) -> io::Result<Stat> {
    // SAFETY: stat is plain data that fstat fills.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to our own struct.
    check(unsafe { libc::fstat(fd.as_raw_fd(), &raw mut stat) }.into())?;
    Ok(Stat {
        mode: stat.st_mode,
        uid: stat.st_uid,
        gid: stat.st_gid,
        major: libc::major(stat.st_rdev),
        minor: libc::minor(stat.st_rdev),
        device: stat.st_dev,
        inode: stat.st_ino,
    })
}

/// fchownat(2), not through a link.
pub fn change_owner_at(dir: BorrowedFd<'_>, name: &str, uid: u32, gid: u32) -> io::Result<()> {
    let name = c_string(name)?;
    // SAFETY: name is NUL-terminated and lives over the call.
    check(
        unsafe {
            libc::fchownat(
                dir.as_raw_fd(),
                name.as_ptr(),
                uid,
                gid,
                libc::AT_SYMLINK_NOFOLLOW,
            )
        }
        .into(),
    )
    .map(drop)
}

/// fchmodat(2); only for names that are known not to be links.
pub fn change_mode_at(dir: BorrowedFd<'_>, name: &str, mode: u32) -> io::Result<()> {
    let name = c_string(name)?;
    // SAFETY: name is NUL-terminated and lives over the call.
    check(unsafe { libc::fchmodat(dir.as_raw_fd(), name.as_ptr(), mode, 0) }.into()).map(drop)
}

/// Writes all bytes in as few calls as the kernel takes.
pub fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        // SAFETY: the buffer is readable for its length.
        let wrote = check(
            unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) }
                as libc::c_long,
        );
        match wrote {
            Ok(wrote) => bytes = &bytes[usize::try_from(wrote).unwrap_or(0).min(bytes.len())..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether a descriptor is of a directory.
pub fn is_dir(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(stat(fd)?.0 & libc::S_IFMT == libc::S_IFDIR)
}

/// The magic number of the file system that a descriptor is on.
pub fn file_system(fd: BorrowedFd<'_>) -> io::Result<i64> {
    // SAFETY: statfs is plain data that fstatfs fills.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to our own struct.
    check(unsafe { libc::fstatfs(fd.as_raw_fd(), &raw mut stat) }.into())?;
    Ok(stat.f_type)
}

/// Whether nothing can be written to the file system that a descriptor is on.
pub fn is_read_only(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(mount_flags(fd)? & libc::ST_RDONLY != 0)
}

/// `ST_*` of the mount that a descriptor is on (statvfs(3)); read-only is also what a read-only file system makes of it.
pub fn mount_flags(fd: BorrowedFd<'_>) -> io::Result<u64> {
    // SAFETY: statvfs is plain data that fstatvfs fills.
    let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to our own struct.
    check(unsafe { libc::fstatvfs(fd.as_raw_fd(), &raw mut stat) }.into())?;
    Ok(stat.f_flag)
}

/// A close-on-exec pipe: (read end, write end).
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: the array has room for the two descriptors.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }.into())?;
    // SAFETY: both were just made for us.
    Ok(unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) })
}

/// Makes reads and writes of a descriptor return EAGAIN in place of waiting.
pub fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: F_GETFL and F_SETFL take no pointer.
    let flags = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) }.into())?;
    let flags = i32::try_from(flags).unwrap_or(0) | libc::O_NONBLOCK;
    // SAFETY: as above.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags) }.into()).map(drop)
}

/// A file in memory with these bytes (memfd_create(2)), to be handed to another process. Its offset is at the end.
pub fn memory_file(name: &std::ffi::CStr, bytes: &[u8]) -> io::Result<OwnedFd> {
    // SAFETY: the name is NUL-terminated and lives over the call.
    let fd = owned(unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) }.into())?;
    let mut file = File::from(fd);
    file.write_all(bytes)?;
    Ok(file.into())
}

/// fchown(2).
pub fn change_owner(fd: BorrowedFd<'_>, uid: u32, gid: u32) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::fchown(fd.as_raw_fd(), uid, gid) }.into()).map(drop)
}

/// Takes the exclusive lock of an open file; `Ok(false)` when somebody else holds it.
pub fn try_lock(fd: BorrowedFd<'_>) -> io::Result<bool> {
    // SAFETY: no pointers.
    match check(unsafe { libc::flock(fd.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }.into()) {
        Ok(_) => Ok(true),
        Err(error) if super::is(&error, libc::EWOULDBLOCK) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Takes the lock of an open file or directory (flock(2)), waiting for whoever has it.
pub fn lock(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::flock(fd.as_raw_fd(), libc::LOCK_EX) }.into()).map(drop)
}

/// Gives the lock up for every copy of this open file, also those in other processes.
pub fn unlock(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::flock(fd.as_raw_fd(), libc::LOCK_UN) }.into()).map(drop)
}

/// Renames a path; EEXIST when the new one is taken.
pub fn rename_path_new(from: &str, to: &str) -> io::Result<()> {
    let (from, to) = (c_string(from)?, c_string(to)?);
    let here = libc::AT_FDCWD;
    check(
        // SAFETY: both paths are NUL-terminated and live over the call.
        unsafe {
            libc::renameat2(
                here,
                from.as_ptr(),
                here,
                to.as_ptr(),
                libc::RENAME_NOREPLACE,
            )
        }
        .into(),
    )
    .map(drop)
}

/// renameat2(2) that refuses to replace: EEXIST when `to` is there.
pub fn rename_new(dir: BorrowedFd<'_>, from: &str, to: &str) -> io::Result<()> {
    let (from, to) = (c_string(from)?, c_string(to)?);
    check(
        // SAFETY: both names are NUL-terminated and live over the call.
        unsafe {
            libc::renameat2(
                dir.as_raw_fd(),
                from.as_ptr(),
                dir.as_raw_fd(),
                to.as_ptr(),
                libc::RENAME_NOREPLACE,
            )
        }
        .into(),
    )
    .map(drop)
}

/// renameat(2) within one directory.
pub fn rename(dir: BorrowedFd<'_>, from: &str, to: &str) -> io::Result<()> {
    let (from, to) = (c_string(from)?, c_string(to)?);
    check(
        // SAFETY: both names are NUL-terminated and live over the call.
        unsafe { libc::renameat(dir.as_raw_fd(), from.as_ptr(), dir.as_raw_fd(), to.as_ptr()) }
            .into(),
    )
    .map(drop)
}

/// unlinkat(2) of what is not a directory.
pub fn remove_at(dir: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let name = c_string(name)?;
    // SAFETY: name is NUL-terminated and lives over the call.
    check(unsafe { libc::unlinkat(dir.as_raw_fd(), name.as_ptr(), 0) }.into()).map(drop)
}

/// write(2) of all bytes at once; fewer is EIO.
pub(crate) fn write(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
    // SAFETY: pointer and length are of the same slice.
    let written = unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
    match check(written as libc::c_long)? {
        count if usize::try_from(count) == Ok(bytes.len()) => Ok(()),
        _ => Err(io::Error::from_raw_os_error(libc::EIO)),
    }
}

/// read(2), once.
pub(crate) fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the buffer is writable for its length.
    let got = unsafe { libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
    check(got as libc::c_long).map(|got| usize::try_from(got).unwrap_or(0))
}

/// A whole small file beneath a directory.
pub fn read_at(dir: BorrowedFd<'_>, name: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::from(open_at(dir, name, libc::O_RDONLY, 0)?).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Writes a new file that nobody reads yet, without forcing it to disk.
pub fn write_at(dir: BorrowedFd<'_>, name: &str, bytes: &[u8]) -> io::Result<()> {
    let fd = open_at(
        dir,
        name,
        libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC,
        0o600,
    )?;
    File::from(fd).write_all(bytes)
}

/// Takes the space for a later `write_durable_at` of at most `bytes` to a file that is not there yet.
pub fn reserve_durable_at(dir: BorrowedFd<'_>, name: &str, bytes: usize) -> io::Result<()> {
    write_at(dir, &draft_of(name), &vec![0; bytes])
}

/// Writes a file so that after a crash it is there whole or not at all, and returns once it is on disk.
/// Within what `reserve_durable_at` has taken, a full disk does not matter.
pub fn write_durable_at(dir: BorrowedFd<'_>, name: &str, bytes: &[u8]) -> io::Result<()> {
    let draft = draft_of(name);
    // Not truncated before: that would give back the reserved space.
    let mut file = File::from(open_at(dir, &draft, libc::O_WRONLY | libc::O_CREAT, 0o600)?);
    file.write_all(bytes)?;
    file.set_len(bytes.len() as u64)?;
    file.sync_all()?;
    rename(dir, &draft, name)?;
    File::from(open_at(dir, ".", libc::O_RDONLY | libc::O_DIRECTORY, 0)?).sync_all()
}

fn draft_of(name: &str) -> String {
    format!(".{name}.new")
}

/// A path by which this process (and its threads) can name an open file.
pub fn proc_path(fd: impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

/// Reads from the beginning of a file, wherever its offset is (pread(2)); gives how many bytes.
pub fn read_from_start(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    let read = check(
        // SAFETY: the buffer is writable for its length.
        unsafe { libc::pread(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) }
            as libc::c_long,
    )?;
    Ok(usize::try_from(read).unwrap_or(0))
}

/// A second descriptor of the same file, close-on-exec, with the lowest free number that is not below `least` (fcntl(2), F_DUPFD_CLOEXEC).
pub fn duplicate_above(fd: BorrowedFd<'_>, least: i32) -> io::Result<OwnedFd> {
    // SAFETY: the command takes a number and gives a new descriptor.
    new_fd(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, least) }.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::recording::Recording;
    use crate::sys::{Calls, is};

    /// A fake kernel that does not know where `..` leads for so many times.
    fn opened_after(refusals: u32) -> (io::Result<()>, u32) {
        let mut asked = 0;
        let outcome = ask_again(|| {
            asked += 1;
            let mut fake = Recording::new(&[]);
            if asked <= refusals {
                fake.refuse.push(("mkdir", libc::EAGAIN));
            }
            let root = Calls::open(&fake, "/r", libc::O_PATH)?;
            fake.make_dir_at(root.as_fd(), "x", 0o755)
        });
        (outcome, asked)
    }

    #[test]
    fn a_path_is_asked_for_again_when_the_kernel_could_not_say_and_not_for_ever() {
        let (outcome, asked) = opened_after(0);
        assert!(outcome.is_ok() && asked == 1);
        let (outcome, asked) = opened_after(RESOLVE_TRIES_MAX - 1);
        assert!(outcome.is_ok() && asked == RESOLVE_TRIES_MAX, "{outcome:?}");
        let (outcome, asked) = opened_after(u32::MAX);
        assert!(outcome.is_err_and(|error| is(&error, libc::EAGAIN)));
        assert_eq!(asked, RESOLVE_TRIES_MAX);
        let other =
            ask_again(|| -> io::Result<()> { Err(io::Error::from_raw_os_error(libc::ELOOP)) });
        assert!(other.is_err_and(|error| is(&error, libc::ELOOP)));
    }

    #[test]
    fn a_file_of_proc_is_read_again_from_its_start() {
        let table = open("/proc/self/mountinfo", libc::O_RDONLY).expect("mountinfo");
        let first = read_again(table.as_fd()).expect("read");
        assert!(first.contains(" / ") && !first.is_empty());
        assert!(!read_again(table.as_fd()).expect("again").is_empty());
        let proc = open("/proc", libc::O_PATH).expect("/proc");
        let id = mount_id(proc.as_fd()).expect("an id").to_string();
        let line = first
            .lines()
            .find(|line| line.split(' ').next() == Some(&id));
        assert!(
            line.is_some_and(|line| line.contains(" /proc ")),
            "{id}: {first}"
        );
    }
}
