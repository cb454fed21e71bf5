//! A log in non-blocking mode: a process of its own writes the file, so that a disk that stands still holds up neither the program nor its
//! monitor. What finds no room in between is dropped and counted, the newest first, as docker's ring buffer does.

use super::file::LogFile;
use super::record::{Stream, Timestamp};
use shoal_protocol::calls::Log;
use shoal_runtime::streams::close_all_but;
use shoal_runtime::sys::{process, socket};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

/// Most bytes of one message to the writer; its lengths included.
const MESSAGE_BYTES_MAX: usize = socket::MESSAGE_BYTES_MAX;
/// Stream, seconds and nanoseconds.
const HEADER_BYTES: usize = 1 + 8 + 4;
/// The length before each piece.
const LENGTH_BYTES: usize = 4;
/// What the writer says of a message: records written or lost, records lost, and whether a file was rotated away.
const REPORT_BYTES: usize = 8 + 8 + 1;
/// Longest that the end of a container waits for a disk that stands still.
const FINISH_MAX: Duration = Duration::from_secs(5);

/// Records on their way: those of one moment and stream.
struct Message {
    bytes: Vec<u8>,
    records: u64,
    /// Of output alone.
    held: usize,
}

impl Message {
    fn new(stream: Stream, now: Timestamp) -> Self {
        let mut bytes = vec![stream.number()];
        bytes.extend_from_slice(&now.seconds.to_le_bytes());
        bytes.extend_from_slice(&now.nanoseconds.to_le_bytes());
        Self {
            bytes,
            records: 0,
            held: 0,
        }
    }

    fn has_room(&self, piece: &[u8]) -> bool {
        self.bytes.len() + LENGTH_BYTES + piece.len() <= MESSAGE_BYTES_MAX
    }

    fn add(&mut self, piece: &[u8]) {
        let length = u32::try_from(piece.len()).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(piece);
        self.records += 1;
        self.held += piece.len();
    }
}

/// The pieces of a message with their stream and time; None for what is not one.
fn read(message: &[u8]) -> Option<(Stream, Timestamp, Vec<&[u8]>)> {
    let (header, mut rest) = message.split_at_checked(HEADER_BYTES)?;
    let stream = [Stream::Stdout, Stream::Stderr]
        .into_iter()
        .find(|stream| stream.number() == header[0])?;
    let now = Timestamp {
        seconds: i64::from_le_bytes(header[1..9].try_into().ok()?),
        nanoseconds: u32::from_le_bytes(header[9..].try_into().ok()?),
    };
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let (length, after) = rest.split_at_checked(LENGTH_BYTES)?;
        let length = u32::from_le_bytes(length.try_into().ok()?);
        let (piece, after) = after.split_at_checked(usize::try_from(length).ok()?)?;
        pieces.push(piece);
        rest = after;
    }
    Some((stream, now, pieces))
}

/// The monitor's side.
pub struct Beside {
    log: Log,
    /// None when it ended by itself; the next record starts another.
    writer: Option<OwnedFd>,
    queue: VecDeque<Message>,
    /// Bytes of output in the queue.
    queued: usize,
    queued_max: usize,
    /// Records that the writer has and has not told of.
    sent: u64,
    lost: u64,
    pub(super) rotated: bool,
}

impl Beside {
    /// Opens the log and starts its writer. The caller has one thread.
    pub(super) fn open(log: &Log) -> io::Result<Self> {
        Ok(Self {
            log: log.clone(),
            writer: Some(start(log)?),
            queue: VecDeque::new(),
            queued: 0,
            queued_max: usize::try_from(log.max_buffer_bytes).unwrap_or(usize::MAX),
            sent: 0,
            lost: 0,
            rotated: false,
        })
    }

    /// What to poll, and for what.
    pub(super) fn wanted(&self) -> Option<(RawFd, i16)> {
        let out = if self.queue.is_empty() {
            0
        } else {
            libc::POLLOUT
        };
        let writer = self.writer.as_ref()?;
        Some((writer.as_raw_fd(), libc::POLLIN | out))
    }

    /// Goes on after a poll.
    pub(super) fn turn(&mut self) {
        self.hear();
        self.send();
    }

    /// Nothing is written for now: the queue keeps no room.
    pub(super) fn rest(&mut self) {
        self.queue.shrink_to_fit();
    }

    /// Takes the records of these pieces, or counts those for which there is no room. Never waits.
    pub(super) fn write(&mut self, stream: Stream, pieces: &[&[u8]], now: Timestamp) {
        let mut message = Message::new(stream, now);
        for piece in pieces {
            let held = self.queued + message.held;
            if held > 0 && held + piece.len() > self.queued_max {
                self.lost += 1;
                continue;
            }
            if !message.has_room(piece) {
                let full = std::mem::replace(&mut message, Message::new(stream, now));
                self.put(full);
            }
            message.add(piece);
        }
        if message.records > 0 {
            self.put(message);
        }
        if self.writer.is_none() {
            // When that fails too, what is queued waits for the next record.
            self.writer = start(&self.log).ok();
        }
        self.send();
    }

    fn put(&mut self, message: Message) {
        self.queued += message.held;
        self.queue.push_back(message);
    }

    fn send(&mut self) {
        while let (Some(writer), Some(message)) = (&self.writer, self.queue.front()) {
            match socket::send_some(writer.as_fd(), &message.bytes) {
                Ok(_) => {
                    self.sent += message.records;
                    self.queued -= message.held;
                    self.queue.pop_front();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.hear(),
            }
        }
    }

    fn hear(&mut self) {
        let mut report = [0u8; REPORT_BYTES];
        while let Some(writer) = &self.writer {
            match socket::receive_some(writer.as_fd(), &mut report) {
                Ok(REPORT_BYTES) => {
                    let number = |at: usize| {
                        report[at..at + 8]
                            .iter()
                            .rev()
                            .fold(0, |all, byte| all << 8 | u64::from(*byte))
                    };
                    self.sent = self.sent.saturating_sub(number(0));
                    self.lost += number(8);
                    self.rotated |= report[16] != 0;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // It has been killed; what it had of us may not be in the file.
                _ => {
                    self.lost += std::mem::take(&mut self.sent);
                    self.writer = None;
                }
            }
        }
    }

    /// Waits until the writer has everything on its way to the disk, for a while; gives how many records were lost.
    pub(super) fn finish(&mut self) -> u64 {
        let deadline = Instant::now() + FINISH_MAX;
        self.turn();
        while let Some((fd, events)) = self.wanted()
            && (self.sent > 0 || !self.queue.is_empty())
        {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut fds = [libc::pollfd {
                fd,
                events,
                revents: 0,
            }];
            let ms = i32::try_from(left.as_millis()).unwrap_or(i32::MAX);
            if !matches!(process::poll(&mut fds, ms), Ok(1..)) {
                break;
            }
            self.turn();
        }
        let never_sent: u64 = self.queue.drain(..).map(|message| message.records).sum();
        self.writer = None;
        self.lost += never_sent + std::mem::take(&mut self.sent);
        self.lost
    }
}

/// Opens the log and forks its writer, which ends when our side of the socket does.
fn start(log: &Log) -> io::Result<OwnedFd> {
    let file = LogFile::open(log)?;
    let (ours, theirs) = socket::pair()?;
    match process::fork()? {
        process::Side::Parent(_) => Ok(ours),
        process::Side::Child => {
            // The ends of the program's pipes above all, which must close with the monitor.
            close_all_but(&mut [theirs.as_raw_fd(), file.fd()]);
            // Only for people who look at ps.
            drop(process::set_name(c"shoal-log"));
            serve(&theirs, file)
        }
    }
}

fn serve(monitor: &OwnedFd, mut file: LogFile) -> ! {
    let mut buffer = vec![0u8; MESSAGE_BYTES_MAX];
    loop {
        let length = socket::receive(monitor.as_fd(), &mut buffer).unwrap_or(0);
        let Some((stream, now, pieces)) = read(&buffer[..length]) else {
            process::exit_now(0);
        };
        let before = file.lost;
        file.write(stream, &pieces, now);
        let mut report = [0u8; REPORT_BYTES];
        let records = u64::try_from(pieces.len()).unwrap_or(u64::MAX);
        report[..8].copy_from_slice(&records.to_le_bytes());
        report[8..16].copy_from_slice(&(file.lost - before).to_le_bytes());
        report[16] = u8::from(std::mem::take(&mut file.rotated));
        // A monitor that is gone hears nothing; the rest of what it sent is written all the same.
        drop(socket::send(monitor.as_fd(), &report));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp {
        seconds: -1,
        nanoseconds: 999_999_999,
    };

    #[test]
    fn read_gives_what_a_message_was_made_of() {
        let mut message = Message::new(Stream::Stderr, NOW);
        for piece in [&b"one\n"[..], b"", &[0xff; 300]] {
            assert!(message.has_room(piece));
            message.add(piece);
        }
        assert_eq!((message.records, message.held), (3, 304));
        let (stream, now, pieces) = read(&message.bytes).expect("a message");
        assert_eq!((stream, now), (Stream::Stderr, NOW));
        assert_eq!(pieces, [&b"one\n"[..], b"", &[0xff; 300]]);
        assert!(!message.has_room(&vec![0; MESSAGE_BYTES_MAX]));
    }

    #[test]
    fn read_refuses_what_is_no_message() {
        let mut good = Message::new(Stream::Stdout, NOW);
        good.add(b"abc");
        let whole = good.bytes;
        for cut in (0..whole.len()).filter(|cut| *cut != HEADER_BYTES) {
            assert!(read(&whole[..cut]).is_none(), "{cut} bytes");
        }
        let mut stream = whole.clone();
        stream[0] = 7;
        assert!(read(&stream).is_none());
    }
}
