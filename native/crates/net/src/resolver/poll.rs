//! Waiting for many sockets at once: epoll, and an eventfd that ends the wait.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// What a socket is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    Read,
    Write,
    Both,
    /// Failures are told whatever else is waited for.
    Failure,
}

/// What a socket is ready for. A failed one is ready for both, so that the next call on it tells why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    pub token: u64,
    pub read: bool,
    pub write: bool,
}

/// Most sockets told at once.
const EVENTS_MAX: usize = 256;

/// A set of sockets, each with a token. A socket leaves the set when it is closed.
pub struct Poll {
    epoll: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Poll {
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers.
        let epoll = owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        Ok(Self {
            epoll,
            events: vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX],
        })
    }

    pub fn add(&self, socket: &impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, socket, token, interest)
    }

    pub fn change(&self, socket: &impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, socket, token, interest)
    }

    /// Waits until a socket is ready or the time is over; None waits for ever.
    pub fn wait(&mut self, time: Option<Duration>) -> io::Result<Vec<Ready>> {
        // Rounded up: a wait that ends just before its deadline would spin.
        let milliseconds = time.map_or(-1, |time| {
            i32::try_from(time.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
        });
        // SAFETY: the buffer is writable for EVENTS_MAX events.
        let count = unsafe {
            libc::epoll_wait(
                self.epoll.as_raw_fd(),
                self.events.as_mut_ptr(),
                EVENTS_MAX as i32,
                milliseconds,
            )
        };
        if count < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted {
                Ok(Vec::new())
            } else {
                Err(error)
            };
        }
        let failed = (libc::EPOLLERR | libc::EPOLLHUP) as u32;
        let ready = |event: &libc::epoll_event| {
            let flags = event.events;
            Ready {
                token: event.u64,
                read: flags & (libc::EPOLLIN as u32 | failed) != 0,
                write: flags & (libc::EPOLLOUT as u32 | failed) != 0,
            }
        };
        Ok(self.events[..usize::try_from(count).unwrap_or(0)]
            .iter()
            .map(ready)
            .collect())
    }

    fn control(
        &self,
        operation: i32,
        socket: &impl AsFd,
        token: u64,
        interest: Interest,
    ) -> io::Result<()> {
        let flags = match interest {
            Interest::Read => libc::EPOLLIN,
            Interest::Write => libc::EPOLLOUT,
            Interest::Both => libc::EPOLLIN | libc::EPOLLOUT,
            Interest::Failure => 0,
        };
        let mut event = libc::epoll_event {
            events: flags as u32,
            u64: token,
        };
        // SAFETY: the event lives over the call; the kernel copies it.
        let result = unsafe {
            libc::epoll_ctl(
                self.epoll.as_raw_fd(),
                operation,
                socket.as_fd().as_raw_fd(),
                &raw mut event,
            )
        };
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }
}

/// Ends a wait from another thread.
pub struct Waker {
    event: OwnedFd,
}

impl Waker {
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers.
        let event = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        Ok(Self {
            event: owned(event)?,
        })
    }

    pub fn wake(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: pointer and length are of the same array. It fails only when the counter is full, and then the wait ends anyway.
        unsafe { libc::write(self.event.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    pub fn clear(&self) {
        let mut count = [0u8; 8];
        // SAFETY: pointer and length are of the same array. It fails only when nobody has woken, which is as good.
        unsafe {
            libc::read(
                self.event.as_raw_fd(),
                count.as_mut_ptr().cast(),
                count.len(),
            )
        };
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.event.as_fd()
    }
}

fn owned(fd: i32) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
