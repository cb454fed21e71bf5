//! Handing a filter's listener to the agent that answers it (runtime-spec, "The Container Process State").
//!
//! The process under the filter does nothing for that but to tell its descriptor's number: the parent, whom no filter stops, takes the
//! descriptor out of it and sends it on.

use serde::Serialize;
use shoal_protocol::Failure;
use shoal_protocol::oci::State;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// The one name of `fds`.
const SECCOMP_FD: &str = "seccompFd";

/// What the agent is told.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessState<'a> {
    oci_version: &'a str,
    fds: [&'static str; 1],
    pid: i32,
    #[serde(skip_serializing_if = "str::is_empty")]
    metadata: &'a str,
    state: &'a State,
}

/// Takes descriptor `number` out of the process `pidfd` (pid `pid` here) and sends it to the socket `listener_path`.
/// `metadata` is linux.seccomp.listenerMetadata. Needs the right to trace that process.
pub fn forward(
    pidfd: BorrowedFd<'_>,
    number: i32,
    pid: i32,
    listener_path: &str,
    metadata: &str,
    state: &State,
) -> Result<(), Failure> {
    let doing =
        || format!("handing the seccomp listener to linux.seccomp.listenerPath {listener_path:?}");
    let unreachable = || {
        format!(
            "failed to connect with seccomp agent at linux.seccomp.listenerPath {listener_path:?}"
        )
    };
    let listener = take(pidfd, number).map_err(|error| Failure::io(doing(), &error))?;
    let told = ProcessState {
        oci_version: &state.oci_version,
        fds: [SECCOMP_FD],
        pid,
        metadata,
        state,
    };
    let text = serde_json::to_vec(&told).expect("the state is plain data");
    let socket =
        UnixStream::connect(listener_path).map_err(|error| Failure::io(unreachable(), &error))?;
    send(&socket, &text, listener.as_fd()).map_err(|error| Failure::io(doing(), &error))
}

/// pidfd_getfd(2); the copy is close-on-exec.
fn take(pidfd: BorrowedFd<'_>, number: i32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: the kernel gave a new descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// One message with one descriptor; what does not fit at once follows without it.
fn send(mut socket: &UnixStream, text: &[u8], fd: BorrowedFd<'_>) -> io::Result<()> {
    let sent = send_with(socket, text, fd)?;
    io::Write::write_all(&mut socket, &text[sent..])
}

fn send_with(socket: &UnixStream, text: &[u8], fd: BorrowedFd<'_>) -> io::Result<usize> {
    /// Room for one descriptor's control message, aligned as cmsghdr wants it.
    #[repr(C, align(8))]
    struct Control([u8; 24]);
    let mut control = Control([0; 24]);
    let mut parts = [IoSlice::new(text)];
    // SAFETY: msghdr is plain data for which all zeroes mean nothing.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = parts.as_mut_ptr().cast();
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len();
    // SAFETY: the control buffer is large and aligned enough for one header and one descriptor.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(4) as usize;
        libc::CMSG_DATA(header)
            .cast::<i32>()
            .write_unaligned(fd.as_raw_fd());
    }
    // SAFETY: the message's buffers live over the call.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}
