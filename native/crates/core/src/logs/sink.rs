//! Where a monitor's log records go: straight to the file, or to the process that writes it.

use super::beside::Beside;
use super::file::LogFile;
use super::record::{Stream, Timestamp};
use shoal_protocol::calls::{Log, LogMode};
use std::io;
use std::os::fd::RawFd;

/// The log of one container, as its monitor holds it.
pub enum LogSink {
    /// In blocking mode: a slow disk holds the program up.
    File(LogFile),
    Beside(Beside),
}

impl LogSink {
    /// Opens the log for appending.
    pub fn open(log: &Log) -> io::Result<Self> {
        match log.mode {
            LogMode::Blocking => LogFile::open(log).map(Self::File),
            LogMode::NonBlocking => Beside::open(log).map(Self::Beside),
        }
    }

    /// What to poll, and for what; `turn` is to be called when it happens.
    pub fn wanted(&self) -> Option<(RawFd, i16)> {
        match self {
            Self::File(_) => None,
            Self::Beside(beside) => beside.wanted(),
        }
    }

    /// Goes on after a poll.
    pub fn turn(&mut self) {
        match self {
            Self::File(_) => {}
            Self::Beside(beside) => beside.turn(),
        }
    }

    /// Takes the records of these pieces.
    pub fn write(&mut self, stream: Stream, pieces: &[&[u8]], now: Timestamp) {
        match self {
            Self::File(file) => file.write(stream, pieces, now),
            Self::Beside(beside) => beside.write(stream, pieces, now),
        }
    }

    /// Whether a file has been rotated away since this was asked last.
    pub fn has_rotated(&mut self) -> bool {
        match self {
            Self::File(file) => std::mem::take(&mut file.rotated),
            Self::Beside(beside) => std::mem::take(&mut beside.rotated),
        }
    }

    /// Nothing is written for now: what is kept only to be used again goes.
    pub fn rest(&mut self) {
        match self {
            Self::File(file) => file.rest(),
            Self::Beside(beside) => beside.rest(),
        }
    }

    /// Everything is in the file, or lost; gives how many records were lost.
    pub fn finish(&mut self) -> u64 {
        match self {
            Self::File(file) => file.lost,
            Self::Beside(beside) => beside.finish(),
        }
    }
}
