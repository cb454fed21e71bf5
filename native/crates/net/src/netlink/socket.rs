//! A rtnetlink socket. It belongs for life to the network namespace of the thread that opened it, and may be used from any thread.

use super::attributes::Attributes;
use super::constants as nl;
use super::message::{HEADER_BYTES, Message, aligned};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Most messages in one send.
pub const BATCH_MESSAGES_MAX: usize = 400;
/// Room for the kernel's answers before we read them; a whole batch that fails must fit.
const RECEIVE_BUFFER_BYTES: i32 = 4 * 1024 * 1024;
/// Longest datagram of a dump that we read at once; the kernel caps its own at 32 KiB.
const READ_BYTES: usize = 64 * 1024;
/// The kernel answers while it handles the send, so this only ends a wait that would never end.
const ANSWER_TIMEOUT_SECONDS: i64 = 5;
/// A dump that changed under the reader is read again at most this often.
const DUMP_ATTEMPTS_MAX: u32 = 20;

/// A refusal by the kernel, with its own words where it has some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetlinkError {
    pub errno: i32,
    pub text: Option<String>,
}

impl NetlinkError {
    fn from_io(error: &io::Error) -> Self {
        Self {
            errno: error.raw_os_error().unwrap_or(libc::EIO),
            text: Some(error.to_string()),
        }
    }
    pub fn is(&self, errno: i32) -> bool {
        self.errno == errno
    }
}

impl std::fmt::Display for NetlinkError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let error = io::Error::from_raw_os_error(self.errno);
        match &self.text {
            Some(text) => write!(formatter, "{text} ({error})"),
            None => write!(formatter, "{error}"),
        }
    }
}

/// One NETLINK_ROUTE socket.
pub struct RouteSocket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

/// One message of an answer: its type, and the bytes after the header.
struct Answer<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    body: &'a [u8],
}

impl RouteSocket {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open() -> io::Result<Self> {
        // SAFETY: no pointers.
        let fd = unsafe {
            libc::socket(
                libc::AF_NETLINK,
                libc::SOCK_RAW | libc::SOCK_CLOEXEC,
                libc::NETLINK_ROUTE,
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made for us.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        set_option(&fd, libc::SOL_NETLINK, nl::NETLINK_CAP_ACK, &1i32)?;
        set_option(&fd, libc::SOL_NETLINK, nl::NETLINK_EXT_ACK, &1i32)?;
        // FORCE goes over the system's limit; it needs CAP_NET_ADMIN, which everything here needs anyway.
        set_option(
            &fd,
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            &RECEIVE_BUFFER_BYTES,
        )?;
        let timeout = libc::timeval {
            tv_sec: ANSWER_TIMEOUT_SECONDS,
            tv_usec: 0,
        };
        set_option(&fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &timeout)?;
        Ok(Self {
            fd,
            sequence: 0,
            buffer: vec![0; READ_BYTES],
        })
    }

    /// Sends one request and waits for its acknowledgement.
    pub fn request(&mut self, message: &Message) -> Result<(), NetlinkError> {
        match self
            .batch(std::slice::from_ref(message))
            .map_err(|error| NetlinkError::from_io(&error))?
            .pop()
        {
            Some(Some(error)) => Err(error),
            _ => Ok(()),
        }
    }

    /// Sends requests in order, many in one send, and tells what became of each. The kernel goes on after one that fails.
    /// An error of the socket itself leaves it unknown which were applied; all our requests may be repeated.
    pub fn batch(&mut self, messages: &[Message]) -> io::Result<Vec<Option<NetlinkError>>> {
        let mut outcomes = Vec::with_capacity(messages.len());
        for chunk in messages.chunks(BATCH_MESSAGES_MAX) {
            let first = self.sequence.wrapping_add(1);
            let mut bytes = Vec::new();
            for (offset, message) in chunk.iter().enumerate() {
                self.sequence = self.sequence.wrapping_add(1);
                // Refusals are always answered, so one acknowledgement at the end tells that all were handled.
                let ack = if offset + 1 == chunk.len() {
                    nl::NLM_F_ACK
                } else {
                    0
                };
                message.write(&mut bytes, ack, self.sequence);
            }
            self.send(&bytes)?;
            let mut errors: Vec<Option<NetlinkError>> = vec![None; chunk.len()];
            let last = chunk.len() - 1;
            let mut done = false;
            while !done {
                self.receive(|answer| {
                    let offset = answer.sequence.wrapping_sub(first) as usize;
                    if answer.kind == nl::NLMSG_ERROR && offset <= last {
                        errors[offset] = refusal(&answer);
                        done |= offset == last;
                    }
                })?;
            }
            outcomes.append(&mut errors);
        }
        Ok(outcomes)
    }

    /// Reads one object: the body of the first answer.
    pub fn get(&mut self, message: &Message) -> Result<Vec<u8>, NetlinkError> {
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        let mut bytes = Vec::new();
        message.write(&mut bytes, 0, sequence);
        self.send(&bytes)
            .map_err(|error| NetlinkError::from_io(&error))?;
        let mut found = None;
        while found.is_none() {
            self.receive(|answer| {
                if answer.sequence == sequence && found.is_none() {
                    found = Some(match answer.kind {
                        nl::NLMSG_ERROR => Err(refusal(&answer).unwrap_or(NetlinkError {
                            errno: libc::ENODATA,
                            text: None,
                        })),
                        _ => Ok(answer.body.to_vec()),
                    });
                }
            })
            .map_err(|error| NetlinkError::from_io(&error))?;
        }
        found.expect("the loop ends with an answer")
    }

    /// Reads all objects of a kind. Read again from the start when the kernel says that they changed meanwhile.
    pub fn dump(&mut self, message: &Message) -> Result<Vec<Vec<u8>>, NetlinkError> {
        for _ in 0..DUMP_ATTEMPTS_MAX {
            self.sequence = self.sequence.wrapping_add(1);
            let sequence = self.sequence;
            let mut bytes = Vec::new();
            message.write(&mut bytes, nl::NLM_F_DUMP, sequence);
            self.send(&bytes)
                .map_err(|error| NetlinkError::from_io(&error))?;
            let mut objects = Vec::new();
            let mut interrupted = false;
            let mut outcome = None;
            while outcome.is_none() {
                self.receive(|answer| {
                    if answer.sequence != sequence {
                        return;
                    }
                    interrupted |= answer.flags & nl::NLM_F_DUMP_INTR != 0;
                    match answer.kind {
                        nl::NLMSG_DONE => outcome = Some(Ok(())),
                        nl::NLMSG_ERROR => outcome = Some(refusal(&answer).map_or(Ok(()), Err)),
                        _ => objects.push(answer.body.to_vec()),
                    }
                })
                .map_err(|error| NetlinkError::from_io(&error))?;
            }
            match outcome {
                Some(Err(error)) => return Err(error),
                _ if interrupted => {}
                _ => return Ok(objects),
            }
        }
        Err(NetlinkError {
            errno: libc::EAGAIN,
            text: Some(format!(
                "the list changed during each of {DUMP_ATTEMPTS_MAX} readings"
            )),
        })
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        loop {
            // SAFETY: pointer and length are of the same slice.
            let sent =
                unsafe { libc::send(self.fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
            if sent >= 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }

    /// Receives one datagram and hands each message in it to `each`.
    fn receive(&mut self, mut each: impl FnMut(Answer<'_>)) -> io::Result<()> {
        let got = loop {
            // SAFETY: the buffer is writable for its length. MSG_TRUNC makes the result the datagram's true length.
            let got = unsafe {
                libc::recv(
                    self.fd.as_raw_fd(),
                    self.buffer.as_mut_ptr().cast(),
                    self.buffer.len(),
                    libc::MSG_TRUNC,
                )
            };
            if got >= 0 {
                break usize::try_from(got).unwrap_or(0);
            }
            let error = io::Error::last_os_error();
            match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock => {
                    return Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        format!("the kernel did not answer within {ANSWER_TIMEOUT_SECONDS} s"),
                    ));
                }
                _ => return Err(error),
            }
        };
        let mut rest = self.buffer.get(..got).ok_or_else(|| {
            io::Error::other(format!(
                "an answer of {got} bytes is over the limit of {READ_BYTES}"
            ))
        })?;
        while rest.len() >= HEADER_BYTES {
            let length = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
            let Some(body) = rest.get(HEADER_BYTES..length) else {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the kernel's answer is cut short",
                ));
            };
            each(Answer {
                kind: u16::from_ne_bytes([rest[4], rest[5]]),
                flags: u16::from_ne_bytes([rest[6], rest[7]]),
                sequence: u32::from_ne_bytes([rest[8], rest[9], rest[10], rest[11]]),
                body,
            });
            rest = rest.get(aligned(length)..).unwrap_or(&[]);
        }
        Ok(())
    }
}

/// The error in an NLMSG_ERROR; None when it is an acknowledgement.
fn refusal(answer: &Answer<'_>) -> Option<NetlinkError> {
    let code = i32::from_ne_bytes(answer.body.get(..4)?.try_into().ok()?);
    if code == 0 {
        return None;
    }
    let text = (answer.flags & nl::NLM_F_ACK_TLVS != 0).then(|| {
        // After the code comes the header of our request, and the request itself unless the answer is capped.
        let own = answer.body.get(4..8).map_or(0, |bytes| {
            u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize
        });
        let skip = 4 + if answer.flags & nl::NLM_F_CAPPED != 0 {
            HEADER_BYTES
        } else {
            aligned(own)
        };
        Attributes::new(answer.body.get(skip..).unwrap_or(&[]))
            .string(nl::NLMSGERR_ATTR_MSG)
            .map(str::to_owned)
    });
    Some(NetlinkError {
        errno: -code,
        text: text.flatten(),
    })
}

fn set_option<T>(fd: &OwnedFd, level: i32, name: i32, value: &T) -> io::Result<()> {
    // SAFETY: the value lives over the call and the size is its own.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
