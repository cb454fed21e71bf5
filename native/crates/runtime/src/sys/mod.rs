//! Thin, safe words for the system calls that a container is made of; each returns the kernel's error untouched.

pub mod affinity;
pub mod bpf;
mod calls;
pub mod code;
pub mod file;
pub mod inotify;
pub mod memory;
pub mod mount;
pub mod process;
#[cfg(test)]
pub mod recording;
pub mod region;
pub mod socket;

pub use calls::{Calls, Change, Draft, Kernel};

use std::ffi::CString;
use std::io;

/// The result of a raw system call, or errno.
pub(crate) fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// A C string; a NUL inside is EINVAL, as the kernel could not be told such a name.
pub fn c_string(text: impl AsRef<[u8]>) -> io::Result<CString> {
    CString::new(text.as_ref()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// Whether an error has this errno.
pub fn is(error: &io::Error, errno: i32) -> bool {
    error.raw_os_error() == Some(errno)
}
