//! Putting a filter on the calling thread.

use crate::program::Program;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

const SECCOMP_SET_MODE_FILTER: libc::c_ulong = 1;

/// seccomp(2): from here on the filter judges every call of this thread, and for ever. Gives the listener's descriptor (close-on-exec)
/// when a rule notifies. Needs no_new_privs or CAP_SYS_ADMIN in the user namespace (EACCES). Allocates nothing.
pub fn load(program: &Program) -> io::Result<Option<OwnedFd>> {
    let filter = libc::sock_fprog {
        // The compiler makes no program of over 4096 instructions, nor does the cache give one.
        len: u16::try_from(program.instructions.len())
            .map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?,
        filter: program.instructions.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel reads `len` instructions at `filter`, which live over the call, and writes nothing.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            SECCOMP_SET_MODE_FILTER,
            libc::c_ulong::from(program.flags),
            &raw const filter,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    if !program.notifies() {
        return Ok(None);
    }
    let fd = i32::try_from(result).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: with NEW_LISTENER the kernel gives a new descriptor, which nobody else owns.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
}
