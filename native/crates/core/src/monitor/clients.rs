//! The attached clients of one program: each gets a copy of its output, and their input is its stdin.

use crate::logs::record::Stream;
use crate::records::Wanted;
use shoal_runtime::sys::socket;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

/// A client of a container that takes nothing for this long is dropped. Until then the program waits for it, as with docker.
pub(super) const STALL_MAX: Duration = Duration::from_secs(300);
/// Bytes of docker's frame header: stream, three zeroes, length.
const HEADER_BYTES: usize = 8;

/// One attached connection.
pub(super) struct Client {
    socket: OwnedFd,
    wanted: Wanted,
    /// Not taken yet. Nothing is read from the program while there is some.
    pending: Vec<u8>,
    sent: usize,
    /// Since when nothing of `pending` was taken.
    stalled: Option<Instant>,
    /// It may still send: bytes for stdin, or nothing but its end.
    sending: bool,
    /// It takes no more output.
    deaf: bool,
    /// It goes once it has taken what is pending.
    leaving: bool,
}

impl Client {
    /// A client whose first bytes are `greeting`.
    pub(super) fn new(socket: OwnedFd, wanted: Wanted, greeting: Vec<u8>) -> Self {
        let mut client = Self {
            socket,
            wanted,
            pending: greeting,
            sent: 0,
            stalled: None,
            sending: true,
            deaf: false,
            leaving: false,
        };
        client.flush(Instant::now());
        client
    }

    pub(super) fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    pub(super) fn is_behind(&self) -> bool {
        !self.pending.is_empty()
    }

    pub(super) fn feeds_stdin(&self) -> bool {
        self.wanted.stdin && self.sending
    }

    /// It has said all that it will.
    pub(super) fn is_gone(&self) -> bool {
        (self.deaf && !self.feeds_stdin()) || (self.leaving && self.pending.is_empty())
    }

    /// Goes as soon as it has taken what is pending.
    pub(super) fn leave(&mut self) {
        self.leaving = true;
        self.sending = false;
    }

    /// What to poll it for; None while its input has to wait, which also hides that it hung up.
    pub(super) fn events(&self, stdin_is_full: bool) -> Option<i16> {
        let mut events = 0;
        if self.is_behind() {
            events |= libc::POLLOUT;
        }
        if self.feeds_stdin() && stdin_is_full {
            return (events != 0 && !self.deaf).then_some(events);
        }
        if self.sending {
            events |= libc::POLLIN;
        }
        Some(events)
    }

    /// When it will be dropped if it takes nothing until then.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.stalled.map(|since| since + STALL_MAX)
    }

    /// Hands a piece of output over; in a frame unless the program has a terminal.
    pub(super) fn give(&mut self, stream: Stream, bytes: &[u8], terminal: bool, now: Instant) {
        let wanted = terminal
            || match stream {
                Stream::Stdout => self.wanted.stdout,
                Stream::Stderr => self.wanted.stderr,
            };
        if self.deaf || self.leaving || !wanted {
            return;
        }
        if !terminal {
            self.pending.extend_from_slice(&header(stream, bytes.len()));
        }
        self.pending.extend_from_slice(bytes);
        self.flush(now);
    }

    /// Sends what it takes.
    pub(super) fn flush(&mut self, now: Instant) {
        while self.sent < self.pending.len() {
            match socket::send_some(self.socket.as_fd(), &self.pending[self.sent..]) {
                Ok(sent) => {
                    self.sent += sent;
                    self.stalled = None;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.stalled.get_or_insert(now);
                    return;
                }
                Err(_) => return self.hang_up(),
            }
        }
        self.pending = Vec::new();
        (self.sent, self.stalled) = (0, None);
    }

    /// It reads no more.
    pub(super) fn hang_up(&mut self) {
        self.deaf = true;
        self.pending = Vec::new();
        (self.sent, self.stalled) = (0, None);
    }

    /// What it sends: None when there is nothing now, nothing at its end.
    pub(super) fn receive<'a>(&mut self, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
        match socket::receive_some(self.socket.as_fd(), buffer) {
            Ok(0) => {
                self.sending = false;
                Some(&[])
            }
            Ok(length) => Some(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(_) => {
                self.sending = false;
                self.hang_up();
                Some(&[])
            }
        }
    }
}

/// Docker's header of `length` bytes of one stream.
fn header(stream: Stream, length: usize) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[0] = stream.number();
    let length = u32::try_from(length).expect("pieces are at most a read");
    header[4..].copy_from_slice(&length.to_be_bytes());
    header
}
