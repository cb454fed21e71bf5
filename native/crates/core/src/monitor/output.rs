//! A container's output on its way from the pipes to the log.

use super::Monitor;
use crate::logs::framer::Framer;
use crate::logs::record::{Stream, Timestamp};
use shoal_runtime::devices;
use shoal_runtime::sys::{file, process};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Longest that output is waited for after the end, when somebody outside still holds the pipe.
const DRAIN_TIMEOUT_MS: u64 = 2_000;
/// Reads of one stream in a row, so that a program that never pauses does not starve commands.
const READS_IN_A_ROW: usize = 8;

/// One output stream of the container.
pub(super) struct Output {
    pub(super) stream: Stream,
    pub(super) pipe: File,
    pub(super) framer: Framer,
}

impl Monitor {
    /// Reads what is there; false at the end of the stream.
    pub(super) fn read_output(&mut self, index: usize) -> bool {
        let Self {
            outputs,
            log,
            buffer,
            ..
        } = self;
        let output = &mut outputs[index];
        for _ in 0..READS_IN_A_ROW {
            match output.pipe.read(buffer) {
                Ok(0) => return false,
                Ok(length) => {
                    let stream = output.stream;
                    output.framer.push(&buffer[..length], &mut |pieces| {
                        if let Some(log) = log {
                            log.write(stream, pieces, Timestamp::now());
                        }
                    });
                    if length < buffer.len() {
                        return true;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }

    pub(super) fn end_output(&mut self, index: usize) {
        let mut output = self.outputs.remove(index);
        let log = &mut self.log;
        output.framer.finish(&mut |pieces| {
            if let Some(log) = log {
                log.write(output.stream, pieces, Timestamp::now());
            }
        });
    }

    /// The last bytes: until every writer is gone, or 2 s when somebody outside the container holds the pipe.
    pub(super) fn drain(&mut self) {
        let deadline = Instant::now() + Duration::from_millis(DRAIN_TIMEOUT_MS);
        while !self.outputs.is_empty() {
            let mut fds: Vec<libc::pollfd> = self
                .outputs
                .iter()
                .map(|output| libc::pollfd {
                    fd: output.pipe.as_raw_fd(),
                    events: libc::POLLIN,
                    revents: 0,
                })
                .collect();
            let left = deadline
                .saturating_duration_since(Instant::now())
                .as_millis();
            let happened = process::poll(&mut fds, i32::try_from(left).unwrap_or(0));
            if !matches!(happened, Ok(1..)) {
                break;
            }
            for index in (0..fds.len())
                .rev()
                .filter(|index| fds[*index].revents != 0)
            {
                if !self.read_output(index) {
                    self.end_output(index);
                }
            }
        }
        while !self.outputs.is_empty() {
            self.end_output(0);
        }
    }
}

/// The two ends of an output stream; the reader is None when nobody wants the output.
pub(super) fn ends(wanted: bool) -> io::Result<(Option<OwnedFd>, OwnedFd)> {
    if !wanted {
        return Ok((None, devices::null(libc::O_WRONLY)?));
    }
    let (read, write) = file::pipe()?;
    file::set_nonblocking(read.as_fd())?;
    Ok((Some(read), write))
}
