//! Where a monitor's log records go: straight to the file.

use super::file::LogFile;
use super::record::{Stream, Timestamp};
use shoal_protocol::calls::Log;
use std::io;

/// The log of one container, as its monitor holds it.
pub enum LogSink {
    File(LogFile),
}

impl LogSink {
    /// Opens the log for appending.
    pub fn open(log: &Log) -> io::Result<Self> {
        LogFile::open(log).map(Self::File)
    }

    /// Takes the records of these pieces.
    pub fn write(&mut self, stream: Stream, pieces: &[&[u8]], now: Timestamp) {
        match self {
            Self::File(file) => file.write(stream, pieces, now),
        }
    }

    /// Whether a file has been rotated away since this was asked last.
    pub fn has_rotated(&mut self) -> bool {
        match self {
            Self::File(file) => std::mem::take(&mut file.rotated),
        }
    }

    /// Everything is in the file, or lost; gives how many records were lost.
    pub fn finish(&mut self) -> u64 {
        match self {
            Self::File(file) => file.lost,
        }
    }
}
