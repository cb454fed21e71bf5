//! One thread that listens to all monitors.

use crate::records::Message;
use shoal_runtime::sys::socket;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

/// Tells one connection to a monitor from every other, also from one of the same container id later.
pub type Token = u64;

/// What a monitor's connection brought: a message, or None when it has closed.
pub type Heard = Option<Message>;

/// The connections being listened to.
pub struct Watcher {
    epoll: OwnedFd,
    state: Mutex<(Token, HashMap<Token, Arc<OwnedFd>>)>,
}

impl Watcher {
    /// An empty one; nothing is heard until `run` has a thread.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers.
        let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if epoll < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just made for us.
        let epoll = unsafe { OwnedFd::from_raw_fd(epoll) };
        Ok(Self {
            epoll,
            state: Mutex::new((0, HashMap::new())),
        })
    }

    /// A token for a connection that is about to be added.
    pub fn token(&self) -> Token {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 += 1;
        state.0
    }

    /// Listens to a monitor under `token`.
    pub fn add(&self, token: Token, socket: OwnedFd) -> io::Result<()> {
        let fd = socket.as_raw_fd();
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .1
            .insert(token, Arc::new(socket));
        let mut event = libc::epoll_event {
            events: libc::EPOLLIN.cast_unsigned(),
            u64: token,
        };
        // SAFETY: the event lives over the call.
        if unsafe {
            libc::epoll_ctl(
                self.epoll.as_raw_fd(),
                libc::EPOLL_CTL_ADD,
                fd,
                &raw mut event,
            )
        } < 0
        {
            let error = io::Error::last_os_error();
            self.remove(token);
            return Err(error);
        }
        Ok(())
    }

    fn remove(&self, token: Token) {
        // Closing the descriptor takes it out of the epoll set.
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .1
            .remove(&token);
    }

    /// Calls `hear` with every message, and once with None when a connection has closed. Never returns but by a failing epoll.
    pub fn run(&self, hear: &dyn Fn(Token, Heard)) -> io::Result<()> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 64];
        let mut buffer = vec![0u8; socket::MESSAGE_BYTES_MAX];
        loop {
            let room = i32::try_from(events.len()).unwrap_or(1);
            // SAFETY: the array has room for as many events as are asked for.
            let count =
                unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), events.as_mut_ptr(), room, -1) };
            if count < 0 {
                let error = io::Error::last_os_error();
                if error.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                return Err(error);
            }
            for event in &events[..usize::try_from(count).unwrap_or(0)] {
                let token = event.u64;
                let socket = self
                    .state
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .1
                    .get(&token)
                    .cloned();
                let Some(socket) = socket else { continue };
                let length = socket::receive(socket.as_fd(), &mut buffer).unwrap_or(0);
                if length == 0 {
                    self.remove(token);
                    hear(token, None);
                } else if let Ok(message) = serde_json::from_slice(&buffer[..length]) {
                    hear(token, Some(message));
                }
            }
        }
    }
}
