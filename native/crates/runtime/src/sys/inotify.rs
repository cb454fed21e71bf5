//! Being told of changes to files (inotify(7)).

use super::file::new_fd;
use super::{c_string, check};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The directory got a new name, made or moved there.
pub const ARRIVAL: u32 = libc::IN_CREATE | libc::IN_MOVED_TO;
/// The thing itself was moved or removed.
pub const DEPARTURE: u32 = libc::IN_MOVE_SELF | libc::IN_DELETE_SELF;
/// The file's contents changed.
pub const CONTENT: u32 = libc::IN_MODIFY;
/// Room for the events of one read; what does not fit comes with the next.
const EVENT_BYTES: usize = 4096;

/// A set of watches. Readable when something has happened; what, is looked up in the files.
pub struct Inotify {
    file: File,
}

impl Inotify {
    /// An empty set, non-blocking.
    pub fn new() -> io::Result<Self> {
        let flags = libc::IN_CLOEXEC | libc::IN_NONBLOCK;
        // SAFETY: no pointers.
        let fd: OwnedFd = new_fd(unsafe { libc::inotify_init1(flags) }.into())?;
        Ok(Self { file: fd.into() })
    }

    /// Watches what is at `path` now.
    pub fn add(&self, path: &Path, mask: u32) -> io::Result<()> {
        let path = c_string(path.as_os_str().as_bytes())?;
        // SAFETY: path is NUL-terminated and lives over the call.
        let watch = unsafe { libc::inotify_add_watch(self.file.as_raw_fd(), path.as_ptr(), mask) };
        check(watch.into()).map(drop)
    }

    /// Takes all events that are there.
    pub fn drain(&mut self) {
        let mut events = [0u8; EVENT_BYTES];
        while matches!(self.file.read(&mut events), Ok(1..)) {}
    }
}

impl AsFd for Inotify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
