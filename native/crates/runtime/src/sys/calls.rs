//! The system calls by which a container's files are made, as a trait: the kernel behind it in earnest, a recording fake in unit tests.

use super::file::{self, Stat};
use super::mount;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

pub use super::mount::Change;

/// What root file system, mounts, devices, masks and sysctls ask of the kernel. Every descriptor is close-on-exec.
pub trait Calls {
    /// Begins a file system of a type (fsopen).
    fn fs_open(&self, kind: &str) -> io::Result<OwnedFd>;
    /// Sets a key, or a flag when there is no value (fsconfig).
    fn fs_set(&self, fs: BorrowedFd<'_>, key: &str, value: Option<&str>) -> io::Result<()>;
    /// Makes the file system and a detached mount of it with `MOUNT_ATTR_*` (fsconfig, fsmount).
    fn fs_mount(&self, fs: BorrowedFd<'_>, attributes: u64) -> io::Result<OwnedFd>;
    /// What the kernel said about the last failure of a file system, if it said anything.
    fn fs_complaint(&self, fs: BorrowedFd<'_>) -> Option<String>;
    /// A detached copy of the mount at an open file, with everything below when `recursive` (open_tree).
    fn clone_tree(&self, of: BorrowedFd<'_>, recursive: bool) -> io::Result<OwnedFd>;
    /// As `clone_tree`, of the mount at a path of the host.
    fn clone_path(&self, path: &str, recursive: bool) -> io::Result<OwnedFd>;
    /// Puts a detached mount onto one name in a directory of our own making (move_mount).
    fn attach_at(&self, tree: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &str) -> io::Result<()>;
    /// Puts a detached mount onto an open file (move_mount).
    fn attach(&self, tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()>;
    /// Changes attributes, propagation or owners of the mount at an open file (mount_setattr).
    fn change_mount(
        &self,
        of: BorrowedFd<'_>,
        change: &Change<'_>,
        recursive: bool,
    ) -> io::Result<()>;
    /// mount(2), for what the newer calls cannot do. `target` is a path of our own making.
    fn mount(
        &self,
        source: &str,
        target: &str,
        kind: &str,
        flags: libc::c_ulong,
        data: &str,
    ) -> io::Result<()>;
    /// open(2) by a path of the host.
    fn open(&self, path: &str, flags: i32) -> io::Result<OwnedFd>;
    /// openat(2) of one name in a directory.
    fn open_at(
        &self,
        dir: BorrowedFd<'_>,
        name: &str,
        flags: i32,
        mode: u32,
    ) -> io::Result<OwnedFd>;
    /// openat2(2) with resolution rules (`file::IN_ROOT` and others).
    fn open_at2(
        &self,
        dir: BorrowedFd<'_>,
        path: &str,
        flags: i32,
        resolve: u64,
    ) -> io::Result<OwnedFd>;
    /// mkdirat(2).
    fn make_dir_at(&self, dir: BorrowedFd<'_>, name: &str, mode: u32) -> io::Result<()>;
    /// mknodat(2) of a device or fifo; `mode` holds the type.
    fn make_node_at(
        &self,
        dir: BorrowedFd<'_>,
        name: &str,
        mode: u32,
        device: (u32, u32),
    ) -> io::Result<()>;
    /// symlinkat(2).
    fn symlink_at(&self, target: &str, dir: BorrowedFd<'_>, name: &str) -> io::Result<()>;
    /// readlinkat(2).
    fn read_link_at(&self, dir: BorrowedFd<'_>, name: &str) -> io::Result<String>;
    /// unlinkat(2) of what is not a directory.
    fn unlink_at(&self, dir: BorrowedFd<'_>, name: &str) -> io::Result<()>;
    /// fchownat(2) of one name, not through a link.
    fn change_owner_at(
        &self,
        dir: BorrowedFd<'_>,
        name: &str,
        uid: u32,
        gid: u32,
    ) -> io::Result<()>;
    /// fchmodat(2) of one name.
    fn change_mode_at(&self, dir: BorrowedFd<'_>, name: &str, mode: u32) -> io::Result<()>;
    /// fstat(2).
    fn stat(&self, fd: BorrowedFd<'_>) -> io::Result<Stat>;
    /// The magic number of the file system that a file is on (fstatfs).
    fn file_system(&self, fd: BorrowedFd<'_>) -> io::Result<i64>;
    /// Whether nothing can be written to the file system that a file is on (fstatvfs).
    fn is_read_only(&self, fd: BorrowedFd<'_>) -> io::Result<bool>;
    /// `ST_*` of the mount that a file is on (fstatvfs).
    fn mount_flags(&self, fd: BorrowedFd<'_>) -> io::Result<u64>;
    /// Writes all bytes.
    fn write(&self, fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()>;
    /// fchdir(2).
    fn change_dir(&self, to: BorrowedFd<'_>) -> io::Result<()>;
    /// pivot_root(".", "."): the old root is then mounted on top at ".".
    fn pivot_root_here(&self) -> io::Result<()>;
    /// umount2(2).
    fn unmount(&self, target: &CStr, flags: i32) -> io::Result<()>;
    /// chroot(".").
    fn change_root_here(&self) -> io::Result<()>;
    /// chdir("/").
    fn change_dir_to_root(&self) -> io::Result<()>;
}

/// The running kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct Kernel;

impl Calls for Kernel {
    fn fs_open(&self, kind: &str) -> io::Result<OwnedFd> {
        mount::fs_open(kind)
    }
    fn fs_set(&self, fs: BorrowedFd<'_>, key: &str, value: Option<&str>) -> io::Result<()> {
        mount::fs_set(fs, key, value)
    }
    fn fs_mount(&self, fs: BorrowedFd<'_>, attributes: u64) -> io::Result<OwnedFd> {
        mount::fs_mount(fs, attributes)
    }
    fn fs_complaint(&self, fs: BorrowedFd<'_>) -> Option<String> {
        mount::fs_complaint(fs)
    }
    fn clone_tree(&self, of: BorrowedFd<'_>, recursive: bool) -> io::Result<OwnedFd> {
        mount::clone_tree(of, recursive)
    }
    fn clone_path(&self, path: &str, recursive: bool) -> io::Result<OwnedFd> {
        mount::clone_path(path, recursive)
    }
    fn attach_at(&self, tree: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &str) -> io::Result<()> {
        mount::attach_at(tree, dir, name)
    }
    fn attach(&self, tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
        mount::attach(tree, target)
    }
    fn change_mount(
        &self,
        of: BorrowedFd<'_>,
        change: &Change<'_>,
        recursive: bool,
    ) -> io::Result<()> {
        mount::change(of, change, recursive)
    }
    fn mount(
        &self,
        source: &str,
        target: &str,
        kind: &str,
        flags: libc::c_ulong,
        data: &str,
    ) -> io::Result<()> {
        mount::mount(source, target, kind, flags, data)
    }
    fn open(&self, path: &str, flags: i32) -> io::Result<OwnedFd> {
        file::open(path, flags)
    }
    fn open_at(
        &self,
        dir: BorrowedFd<'_>,
        name: &str,
        flags: i32,
        mode: u32,
    ) -> io::Result<OwnedFd> {
        file::open_at(dir, name, flags, mode)
    }
    fn open_at2(
        &self,
        dir: BorrowedFd<'_>,
        path: &str,
        flags: i32,
        resolve: u64,
    ) -> io::Result<OwnedFd> {
        file::open_at2(dir, path, flags, resolve)
    }
    fn make_dir_at(&self, dir: BorrowedFd<'_>, name: &str, mode: u32) -> io::Result<()> {
        file::make_dir_at(dir, name, mode)
    }
    fn make_node_at(
        &self,
        dir: BorrowedFd<'_>,
        name: &str,
        mode: u32,
        device: (u32, u32),
    ) -> io::Result<()> {
        file::make_node_at(dir, name, mode, device)
    }
    fn symlink_at(&self, target: &str, dir: BorrowedFd<'_>, name: &str) -> io::Result<()> {
        file::symlink_at(target, dir, name)
    }
    fn read_link_at(&self, dir: BorrowedFd<'_>, name: &str) -> io::Result<String> {
        file::read_link_at(dir, name)
    }
    fn unlink_at(&self, dir: BorrowedFd<'_>, name: &str) -> io::Result<()> {
        file::remove_at(dir, name)
    }
    fn change_owner_at(
        &self,
        dir: BorrowedFd<'_>,
        name: &str,
        uid: u32,
        gid: u32,
    ) -> io::Result<()> {
        file::change_owner_at(dir, name, uid, gid)
    }
    fn change_mode_at(&self, dir: BorrowedFd<'_>, name: &str, mode: u32) -> io::Result<()> {
        file::change_mode_at(dir, name, mode)
    }
    fn stat(&self, fd: BorrowedFd<'_>) -> io::Result<Stat> {
        file::look(fd)
    }
    fn file_system(&self, fd: BorrowedFd<'_>) -> io::Result<i64> {
        file::file_system(fd)
    }
    fn is_read_only(&self, fd: BorrowedFd<'_>) -> io::Result<bool> {
        file::is_read_only(fd)
    }
    fn mount_flags(&self, fd: BorrowedFd<'_>) -> io::Result<u64> {
        file::mount_flags(fd)
    }
    fn write(&self, fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
        file::write_all(fd, bytes)
    }
    fn change_dir(&self, to: BorrowedFd<'_>) -> io::Result<()> {
        super::process::change_dir_to(to)
    }
    fn pivot_root_here(&self) -> io::Result<()> {
        mount::pivot_root_here()
    }
    fn unmount(&self, target: &CStr, flags: i32) -> io::Result<()> {
        mount::unmount(target, flags)
    }
    fn change_root_here(&self) -> io::Result<()> {
        mount::change_root_here()
    }
    fn change_dir_to_root(&self) -> io::Result<()> {
        super::process::change_dir("/")
    }
}

/// A file system being configured (fsopen), closed when dropped.
pub struct Draft<'c> {
    calls: &'c dyn Calls,
    fs: OwnedFd,
}

impl<'c> Draft<'c> {
    /// Starts a file system of this type.
    pub fn new(calls: &'c dyn Calls, kind: &str) -> io::Result<Self> {
        let fs = calls.fs_open(kind)?;
        Ok(Self { calls, fs })
    }

    /// Sets `key=value`.
    pub fn set(&self, key: &str, value: &str) -> io::Result<()> {
        self.calls.fs_set(self.fs.as_fd(), key, Some(value))
    }

    /// Sets a key that takes no value.
    pub fn flag(&self, key: &str) -> io::Result<()> {
        self.calls.fs_set(self.fs.as_fd(), key, None)
    }

    /// Makes the file system and a detached mount of it.
    pub fn mount(&self, attributes: u64) -> io::Result<OwnedFd> {
        self.calls.fs_mount(self.fs.as_fd(), attributes)
    }

    /// What the kernel said about the last failure, if it said anything.
    pub fn complaint(&self) -> Option<String> {
        self.calls.fs_complaint(self.fs.as_fd())
    }
}
