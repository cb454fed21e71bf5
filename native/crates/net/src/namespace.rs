//! Doing a thing inside another network namespace. A namespace belongs to a thread, so each visit is a short thread of its own and no other thread ever leaves its own.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::thread;

/// A visit makes a few system calls; it needs no more stack.
const STACK_BYTES: usize = 128 * 1024;

/// Opens a namespace by its file (`/proc/PID/ns/net`, or a pin).
pub fn open(path: &Path) -> io::Result<OwnedFd> {
    Ok(File::open(path)?.into())
}

/// Runs `visit` on a thread inside the namespace. What it opens stays of that namespace.
pub fn inside<T: Send>(
    namespace: &(impl AsFd + Sync),
    visit: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    on_thread(|| {
        // SAFETY: no pointers; it moves only this thread.
        if unsafe { libc::setns(namespace.as_fd().as_raw_fd(), libc::CLONE_NEWNET) } < 0 {
            return Err(io::Error::last_os_error());
        }
        visit()
    })
}

/// Runs `visit` on a thread inside a new, empty namespace, which ends with the visit unless something holds it.
pub fn inside_new<T: Send>(visit: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    on_thread(|| {
        // SAFETY: no pointers; it moves only this thread.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } < 0 {
            return Err(io::Error::last_os_error());
        }
        visit()
    })
}

/// Switches IPv6 off for one interface, or for `all` and `default`, of the calling thread's namespace. A kernel without IPv6 is fine.
pub fn disable_ipv6(interface: &str) -> io::Result<()> {
    match std::fs::write(
        format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6"),
        "1",
    ) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn on_thread<T: Send>(run: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let visit = thread::Builder::new()
            .name("netns-visit".into())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, run)?;
        visit
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
