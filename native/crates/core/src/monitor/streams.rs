//! The streams of one program: its output to a sink and to the attached clients, their input to its stdin.

use super::clients::Client;
use crate::logs::framer::Framer;
use crate::logs::record::{Stream, Timestamp};
use crate::logs::sink::LogSink;
use crate::records::Wanted;
use shoal_protocol::calls::ConsoleSize;
use shoal_runtime::sys::{file, process};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

/// Reads of one stream in a row, so that a program that never pauses does not starve commands.
const READS_IN_A_ROW: usize = 8;
/// Most clients attached to one program.
pub(super) const CLIENTS_MAX: usize = 64;
/// What of a health check's output is kept, in bytes; docker's figure.
const CAPTURE_BYTES_MAX: usize = 4096;

/// Where a program's output goes besides its clients.
pub(super) enum Sink {
    Nowhere,
    Log(Box<LogSink>),
    /// The beginning of it, and whether there was more.
    Capture(Vec<u8>, bool),
}

/// Our ends of a program's streams.
pub(super) enum Ends {
    Pipes {
        stdin: Option<OwnedFd>,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
    Terminal(OwnedFd),
}

struct Output {
    stream: Stream,
    from: File,
    framer: Framer,
}

struct Input {
    to: File,
    pending: Vec<u8>,
    /// Closes once `pending` is written.
    ending: bool,
}

/// A program's streams while somebody may still write to or read from it.
pub(super) struct Streams {
    terminal: Option<OwnedFd>,
    outputs: Vec<Output>,
    input: Option<Input>,
    /// The end of a client's input is the end of stdin.
    once: bool,
    clients: Vec<Client>,
    pub(super) sink: Sink,
}

/// What poll has said, by descriptor. Descriptors opened after the poll are not in it.
pub(super) struct Ready(pub(super) Vec<libc::pollfd>);

impl Ready {
    /// What happened on a descriptor; nothing when it was not watched.
    pub(super) fn of(&self, fd: RawFd) -> i16 {
        self.0
            .iter()
            .find(|polled| polled.fd == fd)
            .map_or(0, |polled| polled.revents)
    }
}

pub(super) fn watch(fd: RawFd, events: i16) -> libc::pollfd {
    libc::pollfd {
        fd,
        events,
        revents: 0,
    }
}

impl Streams {
    /// Streams that have no ends yet.
    pub(super) fn new(once: bool, sink: Sink) -> Self {
        Self {
            terminal: None,
            outputs: Vec::new(),
            input: None,
            once,
            clients: Vec::new(),
            sink,
        }
    }

    /// Takes the program's other ends over.
    pub(super) fn open(&mut self, ends: Ends) -> io::Result<()> {
        let output = |stream, from: OwnedFd| -> io::Result<Output> {
            file::set_nonblocking(from.as_fd())?;
            Ok(Output {
                stream,
                from: File::from(from),
                framer: Framer::default(),
            })
        };
        let input = |to: OwnedFd| -> io::Result<Input> {
            file::set_nonblocking(to.as_fd())?;
            Ok(Input {
                to: File::from(to),
                pending: Vec::new(),
                ending: false,
            })
        };
        match ends {
            Ends::Terminal(master) => {
                self.terminal = Some(master.try_clone()?);
                self.outputs = vec![output(Stream::Stdout, master.try_clone()?)?];
                self.input = Some(input(master)?);
            }
            Ends::Pipes {
                stdin,
                stdout,
                stderr,
            } => {
                self.outputs = vec![
                    output(Stream::Stdout, stdout)?,
                    output(Stream::Stderr, stderr)?,
                ];
                self.input = stdin.map(input).transpose()?;
            }
        }
        Ok(())
    }

    pub(super) fn has_terminal(&self) -> bool {
        self.terminal.is_some()
    }

    /// Changes the size of the terminal; the kernel tells the programs in its foreground. False without a terminal.
    pub(super) fn resize(&self, size: ConsoleSize) -> io::Result<bool> {
        let Some(master) = &self.terminal else {
            return Ok(false);
        };
        process::set_terminal_size(master.as_fd(), size.rows, size.columns)?;
        Ok(true)
    }

    /// Adds a client, which is sent `greeting` first; gives it back when there are too many.
    pub(super) fn attach(
        &mut self,
        socket: OwnedFd,
        mut wanted: Wanted,
        greeting: Vec<u8>,
    ) -> Result<(), OwnedFd> {
        if self.clients.len() >= CLIENTS_MAX {
            return Err(socket);
        }
        wanted.stdin &= self.input.is_some();
        self.clients.push(Client::new(socket, wanted, greeting));
        Ok(())
    }

    /// Nobody is attached any more.
    pub(super) fn is_unattended(&self) -> bool {
        self.clients.is_empty()
    }

    /// No output comes any more.
    pub(super) fn is_drained(&self) -> bool {
        self.outputs.is_empty()
    }

    fn is_held_up(&self) -> bool {
        self.clients.iter().any(Client::is_behind)
    }

    fn log_wanted(&self) -> Option<(RawFd, i16)> {
        match &self.sink {
            Sink::Log(log) => log.wanted(),
            Sink::Nowhere | Sink::Capture(..) => None,
        }
    }

    fn stdin_is_full(&self) -> bool {
        self.input
            .as_ref()
            .is_some_and(|input| !input.pending.is_empty())
    }

    /// Adds what has to be polled.
    pub(super) fn watch(&self, fds: &mut Vec<libc::pollfd>) {
        // An output that waits for a client is not watched at all: poll would tell its end over and over.
        if !self.is_held_up() {
            fds.extend(
                self.outputs
                    .iter()
                    .map(|output| watch(output.from.as_raw_fd(), libc::POLLIN)),
            );
        }
        fds.extend(self.log_wanted().map(|(fd, events)| watch(fd, events)));
        if let Some(input) = &self.input
            && self.stdin_is_full()
        {
            fds.push(watch(input.to.as_raw_fd(), libc::POLLOUT));
        }
        let full = self.stdin_is_full();
        fds.extend(
            self.clients
                .iter()
                .filter_map(|client| Some(watch(client.fd(), client.events(full)?))),
        );
    }

    /// When the slowest client will be dropped.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.clients.iter().filter_map(Client::deadline).min()
    }

    /// Moves what is there in every direction. Clients that are stalled too long are dropped when `impatient`.
    pub(super) fn turn(&mut self, ready: &Ready, buffer: &mut [u8], impatient: bool) {
        let now = Instant::now();
        if let Some((fd, _)) = self.log_wanted()
            && ready.of(fd) != 0
            && let Sink::Log(log) = &mut self.sink
        {
            log.turn();
        }
        if let Some(input) = &self.input
            && ready.of(input.to.as_raw_fd()) != 0
        {
            self.feed();
        }
        for index in 0..self.clients.len() {
            self.serve(index, ready, buffer, now);
        }
        for index in (0..self.outputs.len()).rev() {
            if ready.of(self.outputs[index].from.as_raw_fd()) != 0
                && !self.read(index, buffer, false)
            {
                self.end(index);
            }
        }
        self.clients.retain(|client| {
            let late = impatient && client.deadline().is_some_and(|deadline| now >= deadline);
            !late && !client.is_gone()
        });
    }

    fn serve(&mut self, index: usize, ready: &Ready, buffer: &mut [u8], now: Instant) {
        let client = &mut self.clients[index];
        let happened = ready.of(client.fd());
        if happened & libc::POLLOUT != 0 {
            client.flush(now);
        }
        if happened & (libc::POLLIN | libc::POLLHUP | libc::POLLERR) == 0 {
            return;
        }
        if happened & (libc::POLLHUP | libc::POLLERR) != 0 {
            client.hang_up();
        }
        let wanted = client.feeds_stdin();
        match client.receive(buffer) {
            None => {}
            Some([]) if wanted => self.end_of_client_input(index),
            Some(bytes) if wanted => {
                if let Some(input) = &mut self.input {
                    input.pending.extend_from_slice(bytes);
                    self.feed();
                }
            }
            // Not asked for.
            Some(_) => {}
        }
    }

    /// As docker does: with `once` stdin ends too; without, a client that pipes into a program that others use is done.
    fn end_of_client_input(&mut self, index: usize) {
        if self.terminal.is_some() {
            return;
        }
        if !self.once {
            self.clients[index].leave();
            return;
        }
        if let Some(input) = &mut self.input {
            input.ending = true;
            self.feed();
        }
    }

    fn feed(&mut self) {
        let Some(input) = &mut self.input else { return };
        let mut written = 0;
        while written < input.pending.len() {
            match input.to.write(&input.pending[written..]) {
                Ok(length) => written += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    // The program reads no more.
                    self.input = None;
                    return;
                }
            }
        }
        if written < input.pending.len() {
            input.pending.drain(..written);
            return;
        }
        input.pending = Vec::new();
        if input.ending {
            self.input = None;
        }
    }

    /// Reads what is there; false at the end of the stream. `all`: whether or not a client is behind.
    fn read(&mut self, index: usize, buffer: &mut [u8], all: bool) -> bool {
        for _ in 0..READS_IN_A_ROW {
            if !all && self.is_held_up() {
                return true;
            }
            match self.outputs[index].from.read(buffer) {
                Ok(0) => return false,
                Ok(length) => {
                    self.put(index, &buffer[..length]);
                    if length < buffer.len() && !all {
                        return true;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A terminal's master says EIO once nobody has the other side open.
                Err(_) => return false,
            }
        }
        true
    }

    fn put(&mut self, index: usize, bytes: &[u8]) {
        let Self {
            outputs,
            sink,
            clients,
            terminal,
            ..
        } = self;
        let output = &mut outputs[index];
        match sink {
            Sink::Nowhere => {}
            Sink::Log(log) => output.framer.push(bytes, &mut |pieces| {
                log.write(output.stream, pieces, Timestamp::now());
            }),
            Sink::Capture(kept, more) => {
                let room = CAPTURE_BYTES_MAX - kept.len();
                kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
                *more |= bytes.len() > room;
            }
        }
        let now = Instant::now();
        for client in clients {
            client.give(output.stream, bytes, terminal.is_some(), now);
        }
    }

    fn end(&mut self, index: usize) {
        let mut output = self.outputs.remove(index);
        if let Sink::Log(log) = &mut self.sink {
            output.framer.finish(&mut |pieces| {
                log.write(output.stream, pieces, Timestamp::now());
            });
        }
    }

    /// The last bytes of an ended program: until every writer is gone, or `timeout` when somebody else holds the pipe.
    /// Slow clients are not waited for; what they have not taken stays pending.
    pub(super) fn drain(&mut self, timeout: Duration, buffer: &mut [u8]) {
        let deadline = Instant::now() + timeout;
        while !self.outputs.is_empty() {
            let mut fds: Vec<libc::pollfd> = self
                .outputs
                .iter()
                .map(|output| watch(output.from.as_raw_fd(), libc::POLLIN))
                .collect();
            let left = deadline.saturating_duration_since(Instant::now());
            if !matches!(super::poll_for(&mut fds, left), Ok(1..)) {
                break;
            }
            for index in (0..fds.len())
                .rev()
                .filter(|index| fds[*index].revents != 0)
            {
                if !self.read(index, buffer, true) {
                    self.end(index);
                }
            }
        }
        self.finish();
    }

    /// What a capturing sink holds, with docker's mark when there was more.
    pub(super) fn captured(&mut self) -> String {
        let Sink::Capture(kept, more) = &mut self.sink else {
            return String::new();
        };
        let mut text = String::from_utf8_lossy(kept).into_owned();
        if *more {
            text.push_str("...");
        }
        text
    }

    /// Nothing is moved for now: buffers are made again when something is.
    pub(super) fn rest(&mut self) {
        if let Sink::Log(log) = &mut self.sink {
            log.rest();
        }
    }

    /// Whether a file of the log has been rotated away since this was asked last.
    pub(super) fn has_rotated(&mut self) -> bool {
        match &mut self.sink {
            Sink::Log(log) => log.has_rotated(),
            Sink::Nowhere | Sink::Capture(..) => false,
        }
    }

    /// The log is complete; gives how many records of it were lost.
    pub(super) fn finish_log(&mut self) -> u64 {
        match &mut self.sink {
            Sink::Log(log) => log.finish(),
            _ => 0,
        }
    }

    /// Nothing more is read: what is held of a line is written, and clients leave once they have what is pending.
    pub(super) fn finish(&mut self) {
        while !self.outputs.is_empty() {
            self.end(self.outputs.len() - 1);
        }
        self.input = None;
        for client in &mut self.clients {
            client.leave();
        }
        self.clients.retain(|client| !client.is_gone());
    }
}
