//! Local sockets that carry whole messages and descriptors, and unix paths longer than sun_path.

use super::file::{self, new_fd};
use super::{c_string, check};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Longest message between the core's own processes.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Most descriptors in one message.
pub const MESSAGE_FDS_MAX: usize = 64;

/// A connected pair of message sockets.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    check(
        // SAFETY: the array has room for the two descriptors.
        unsafe {
            libc::socketpair(
                libc::AF_UNIX,
                libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC,
                0,
                ends.as_mut_ptr(),
            )
        }
        .into(),
    )?;
    // SAFETY: both were just made for us.
    Ok(unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) })
}

/// Sends one message; never raises SIGPIPE.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
    loop {
        // SAFETY: pointer and length are of the same slice.
        let sent = unsafe {
            libc::send(
                socket.as_raw_fd(),
                bytes.as_ptr().cast(),
                bytes.len(),
                libc::MSG_NOSIGNAL,
            )
        };
        match check(sent as libc::c_long) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Receives one message; empty when the peer has closed.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    take(socket, buffer, 0)
}

/// Waits for a message and tells its length without taking it; 0 when the peer has closed.
pub fn next_length(socket: BorrowedFd<'_>) -> io::Result<usize> {
    take(socket, &mut [], libc::MSG_PEEK | libc::MSG_TRUNC)
}

fn take(socket: BorrowedFd<'_>, buffer: &mut [u8], flags: libc::c_int) -> io::Result<usize> {
    let mut reset = false;
    loop {
        // SAFETY: the buffer is writable for its length.
        let got = unsafe {
            libc::recv(
                socket.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                flags,
            )
        };
        match check(got as libc::c_long) {
            Ok(got) => return Ok(usize::try_from(got).unwrap_or(0)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // A peer that closed without having read all says so once, before what it had sent.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset && !reset => reset = true,
            Err(error) => return Err(error),
        }
    }
}

/// Sends what a stream socket takes at once, without waiting; WouldBlock when that is nothing.
pub fn send_some(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    loop {
        // SAFETY: pointer and length are of the same slice.
        let sent = unsafe {
            libc::send(
                socket.as_raw_fd(),
                bytes.as_ptr().cast(),
                bytes.len(),
                libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT,
            )
        };
        match check(sent as libc::c_long) {
            Ok(sent) => return Ok(usize::try_from(sent).unwrap_or(0)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Receives what there is of a stream socket, without waiting; nothing at its end, WouldBlock when there is nothing yet.
pub fn receive_some(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        // SAFETY: the buffer is writable for its length.
        let got = unsafe {
            libc::recv(
                socket.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                libc::MSG_DONTWAIT,
            )
        };
        match check(got as libc::c_long) {
            Ok(got) => return Ok(usize::try_from(got).unwrap_or(0)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Room for control data, aligned as the kernel wants it.
#[repr(C, align(8))]
struct Control([u8; 288]);

/// Sends one message with descriptors.
pub fn send_with_fds(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    assert!(
        fds.len() <= MESSAGE_FDS_MAX,
        "a message carries at most {MESSAGE_FDS_MAX} descriptors"
    );
    let mut control = Control([0; 288]);
    let mut vector = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: msghdr is plain data.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    let payload = u32::try_from(size_of_val(fds)).expect("few descriptors");
    if !fds.is_empty() {
        message.msg_control = control.0.as_mut_ptr().cast();
        // SAFETY: CMSG_SPACE only computes; 64 descriptors need 272 of the 288 bytes.
        message.msg_controllen = unsafe { libc::CMSG_SPACE(payload) } as _;
        // SAFETY: msg_control points at an aligned buffer with room for one header and the payload.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(payload) as _;
            let data = libc::CMSG_DATA(header).cast::<i32>();
            for (index, fd) in fds.iter().enumerate() {
                data.add(index).write_unaligned(fd.as_raw_fd());
            }
        }
    }
    loop {
        // SAFETY: the message and all that it points to live over the call.
        match check(unsafe {
            libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL)
        } as libc::c_long)
        {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The first descriptor of the next message; None when it brings none, or the peer has closed.
pub fn receive_fd(socket: BorrowedFd<'_>) -> Option<OwnedFd> {
    let mut word = [0u8; 8];
    let (_, fds) = receive_with_fds(socket, &mut word).ok()?;
    fds.into_iter().next()
}

/// Receives one message and its descriptors, all close-on-exec; no bytes when the peer has closed.
pub fn receive_with_fds(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut control = Control([0; 288]);
    let mut vector = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: msghdr is plain data.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len() as _;
    let got = loop {
        // SAFETY: the message and all that it points to live over the call and are writable.
        match check(unsafe {
            libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC)
        } as libc::c_long)
        {
            Ok(got) => break usize::try_from(got).unwrap_or(0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    };
    let mut fds = Vec::new();
    // SAFETY: the kernel filled the control buffer; the macros walk inside msg_controllen.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let bytes = (*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                let data = libc::CMSG_DATA(header).cast::<i32>();
                for index in 0..bytes / size_of::<i32>() {
                    fds.push(OwnedFd::from_raw_fd(data.add(index).read_unaligned()));
                }
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    Ok((got, fds))
}

/// `name` beneath an open directory as a socket address: by way of /proc/self/fd, so that the depth of the directory does not count.
fn address(dir: BorrowedFd<'_>, name: &str) -> io::Result<(libc::sockaddr_un, libc::socklen_t)> {
    let path = c_string(format!("{}/{name}", file::proc_path(dir)))?;
    // SAFETY: sockaddr_un is plain data.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    let bytes = path.as_bytes_with_nul();
    if bytes.len() > address.sun_path.len() {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    for (to, from) in address.sun_path.iter_mut().zip(bytes) {
        *to = from.cast_signed();
    }
    Ok((address, size_of::<libc::sockaddr_un>() as libc::socklen_t))
}

/// Listens for message connections at `name` in a directory; the caller's umask gives the mode.
pub fn listen(dir: BorrowedFd<'_>, name: &str, kind: i32, backlog: i32) -> io::Result<OwnedFd> {
    let (address, length) = address(dir, name)?;
    // SAFETY: no pointers.
    let socket =
        new_fd(unsafe { libc::socket(libc::AF_UNIX, kind | libc::SOCK_CLOEXEC, 0) }.into())?;
    // SAFETY: the address lives over the call and the length is its own.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) }.into())?;
    // SAFETY: no pointers.
    check(unsafe { libc::listen(socket.as_raw_fd(), backlog) }.into())?;
    Ok(socket)
}

/// Connects to a message socket at `name` in a directory.
pub fn connect(dir: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    let (address, length) = address(dir, name)?;
    let socket = new_fd(
        // SAFETY: no pointers.
        unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0) }.into(),
    )?;
    loop {
        match check(
            // SAFETY: the address lives over the call and the length is its own.
            unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length) }
                .into(),
        ) {
            Ok(_) => return Ok(socket),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Accepts one connection.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    new_fd(
        // SAFETY: the peer's address is not asked for.
        unsafe {
            libc::accept4(
                listener.as_raw_fd(),
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                libc::SOCK_CLOEXEC,
            )
        }
        .into(),
    )
}

/// Receiving (and sending) fails with EAGAIN after this long.
pub fn set_timeouts(socket: BorrowedFd<'_>, timeout_ms: u32) -> io::Result<()> {
    let time = libc::timeval {
        tv_sec: i64::from(timeout_ms / 1000),
        tv_usec: i64::from(timeout_ms % 1000) * 1000,
    };
    for option in [libc::SO_RCVTIMEO, libc::SO_SNDTIMEO] {
        check(
            // SAFETY: the timeval lives over the call and the size is its own.
            unsafe {
                libc::setsockopt(
                    socket.as_raw_fd(),
                    libc::SOL_SOCKET,
                    option,
                    (&raw const time).cast(),
                    size_of::<libc::timeval>() as libc::socklen_t,
                )
            }
            .into(),
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn receive_gives_the_last_words_of_a_peer_that_closed_without_listening() {
        let (ours, theirs) = pair().expect("pair");
        send(ours.as_fd(), b"unread").expect("sent");
        send(theirs.as_fd(), b"last words").expect("sent");
        drop(theirs);
        let mut buffer = [0u8; 32];
        assert_eq!(next_length(ours.as_fd()).expect("peeked"), 10);
        let length = receive(ours.as_fd(), &mut buffer).expect("received");
        assert_eq!(&buffer[..length], b"last words");
        assert_eq!(next_length(ours.as_fd()).expect("closed"), 0);
        assert_eq!(receive(ours.as_fd(), &mut buffer).expect("closed"), 0);
    }
}
