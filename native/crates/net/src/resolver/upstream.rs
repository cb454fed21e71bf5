//! One question that is asked of the host's name servers, one after the other, by the way it came: UDP or TCP.

use super::packet::{MESSAGE_BYTES_MAX, Query};
use super::poll::Interest;
use super::sockets;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// A question is given up after this long, below the 5 s after which libc asks again; the servers share it.
pub const ANSWER_TIME_MAX: Duration = Duration::from_secs(4);

/// Where the answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyTo {
    Datagram { socket: u64, peer: SocketAddr },
    Connection { token: u64 },
}

/// A question on its way.
pub struct Pending {
    pub container: String,
    pub query: Query,
    pub reply_to: ReplyTo,
    packet: Vec<u8>,
    servers: std::vec::IntoIter<SocketAddrV4>,
    time_each: Duration,
}

/// A question at one server.
pub struct Asked {
    pub pending: Pending,
    pub deadline: Instant,
    id: u16,
    socket: Socket,
}

enum Socket {
    Udp(UdpSocket),
    Tcp {
        stream: TcpStream,
        output: Vec<u8>,
        input: Vec<u8>,
    },
}

/// What came of looking at a socket that is ready.
#[derive(Debug)]
pub enum Progress {
    Wait,
    Answer(Vec<u8>),
    /// This server failed; the next may do.
    Failed,
}

impl Pending {
    pub fn new(
        container: String,
        query: Query,
        packet: &[u8],
        reply_to: ReplyTo,
        servers: Vec<SocketAddrV4>,
    ) -> Self {
        let time_each = ANSWER_TIME_MAX / u32::try_from(servers.len().max(1)).unwrap_or(u32::MAX);
        Self {
            container,
            query,
            reply_to,
            packet: packet.to_vec(),
            servers: servers.into_iter(),
            time_each,
        }
    }

    /// Asks the next server that can be sent to; None when no server is left.
    pub fn ask(mut self, now: Instant) -> Option<Asked> {
        while let Some(server) = self.servers.next() {
            if let Ok((id, socket)) = self.send(server) {
                return Some(Asked {
                    deadline: now + self.time_each,
                    pending: self,
                    id,
                    socket,
                });
            }
        }
        None
    }

    fn send(&self, server: SocketAddrV4) -> io::Result<(u16, Socket)> {
        let id = u16::from_ne_bytes(sockets::random_bytes()?);
        let message = self.query.forward(&self.packet, id);
        let socket = match self.reply_to {
            ReplyTo::Datagram { .. } => {
                let socket = sockets::udp_to(server)?;
                socket.send(&message)?;
                Socket::Udp(socket)
            }
            ReplyTo::Connection { .. } => Socket::Tcp {
                stream: sockets::tcp_to(server)?,
                output: framed(&message),
                input: Vec::new(),
            },
        };
        Ok((id, socket))
    }
}

impl Asked {
    pub fn interest(&self) -> Interest {
        match &self.socket {
            Socket::Tcp { output, .. } if !output.is_empty() => Interest::Write,
            _ => Interest::Read,
        }
    }

    /// Goes on when the socket is ready. `buffer` is room for one datagram.
    pub fn advance(&mut self, buffer: &mut [u8]) -> Progress {
        match self.try_advance(buffer) {
            Ok(Some(answer)) => Progress::Answer(answer),
            Ok(None) => Progress::Wait,
            Err(error)
                if error.kind() == io::ErrorKind::WouldBlock
                    || error.kind() == io::ErrorKind::Interrupted =>
            {
                Progress::Wait
            }
            Err(_) => Progress::Failed,
        }
    }

    fn try_advance(&mut self, buffer: &mut [u8]) -> io::Result<Option<Vec<u8>>> {
        match &mut self.socket {
            Socket::Udp(socket) => {
                let got = socket.recv(buffer)?;
                // One that does not match is a forgery or an echo; the true one may follow.
                Ok(self.pending.query.accept(&buffer[..got], self.id))
            }
            Socket::Tcp {
                stream,
                output,
                input,
            } => {
                while !output.is_empty() {
                    let sent = stream.write(output)?;
                    output.drain(..sent);
                    if output.is_empty() {
                        return Ok(None);
                    }
                }
                let got = stream.read(buffer)?;
                input.extend_from_slice(&buffer[..got]);
                match unframed(input) {
                    Some(message) => self
                        .pending
                        .query
                        .accept(message, self.id)
                        .map(Some)
                        .ok_or_else(|| io::ErrorKind::InvalidData.into()),
                    None if got == 0 => Err(io::ErrorKind::UnexpectedEof.into()),
                    None => Ok(None),
                }
            }
        }
    }
}

impl AsFd for Asked {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Udp(socket) => socket.as_fd(),
            Socket::Tcp { stream, .. } => stream.as_fd(),
        }
    }
}

/// A message with the length that goes before it on TCP.
pub fn framed(message: &[u8]) -> Vec<u8> {
    let message = &message[..message.len().min(MESSAGE_BYTES_MAX)];
    let length = u16::try_from(message.len()).expect("cut to the limit");
    let mut bytes = Vec::with_capacity(2 + message.len());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(message);
    bytes
}

/// The first whole message of a TCP stream.
pub fn unframed(stream: &[u8]) -> Option<&[u8]> {
    let header = stream.get(..2)?;
    stream.get(2..2 + usize::from(u16::from_be_bytes([header[0], header[1]])))
}
