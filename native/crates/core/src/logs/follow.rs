//! Sending a container's log to a client, as docker's frames, and going on while the container writes.

use super::read::{self, Part};
use crate::store;
use shoal_protocol::Failure;
use shoal_protocol::calls::Logs;
use shoal_runtime::sys::inotify::{ARRIVAL, CONTENT, DEPARTURE, Inotify};
use shoal_runtime::sys::process;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Bytes of frames that are sent at once.
const SEND_BYTES: usize = 64 * 1024;
/// A client that takes nothing for this long is dropped: it holds a thread.
const SEND_TIMEOUT: Duration = Duration::from_secs(300);

/// Where a container's log and its end are told.
pub struct Source {
    /// The file being written.
    pub log: PathBuf,
    /// The container's records: its exit record comes there when all of the log is written.
    pub records: PathBuf,
}

/// What of a log is wanted.
pub struct Query {
    stdout: bool,
    stderr: bool,
    follow: bool,
    tail: Option<u64>,
    since: Option<i128>,
    until: Option<i128>,
    timestamps: bool,
}

impl Query {
    /// Reads a logs call.
    pub fn new(logs: &Logs) -> Result<Self, Failure> {
        let time = |name: &str, text: &Option<String>| -> Result<Option<i128>, Failure> {
            let Some(text) = text else { return Ok(None) };
            text.parse().map(Some).map_err(|_| {
                Failure::invalid(
                    format!("reading logs.{name}"),
                    format!("{text:?} is no decimal number of nanoseconds"),
                )
            })
        };
        Ok(Self {
            stdout: logs.stdout,
            stderr: logs.stderr,
            follow: logs.follow,
            tail: logs.tail,
            since: time("sinceNs", &logs.since_ns)?,
            until: time("untilNs", &logs.until_ns)?,
            timestamps: logs.timestamps,
        })
    }
}

/// Sends the wanted records until there are no more: without `follow` those that are there, with it until the container has ended.
/// Fails when the client is gone or the log cannot be read.
pub fn send(source: &Source, query: &Query, client: &UnixStream) -> io::Result<()> {
    client.set_write_timeout(Some(SEND_TIMEOUT))?;
    let mut sender = Sender {
        query,
        client,
        frames: Vec::with_capacity(SEND_BYTES),
    };
    // Watched before the first read, so that nothing comes unseen between.
    let mut watch = match query.follow {
        true => Some(watch(source)?),
        false => None,
    };
    let mut parts = read::open_all(&source.log, query.tail)?.into_iter();
    let mut current = None;
    for mut part in parts.by_ref() {
        if !part.read(&mut |record| sender.take(record))? {
            return sender.flush();
        }
        current = Some(part);
    }
    let Some(watch) = &mut watch else {
        return sender.flush();
    };
    let mut ended = has_ended(source);
    loop {
        if !advance(source, watch, &mut current, &mut sender)? {
            return sender.flush();
        }
        sender.flush()?;
        if ended {
            return Ok(());
        }
        // Whatever was written before the end is read once more after it is known.
        ended = has_ended(source);
        if !ended && !wait(watch, query, client)? {
            return Ok(());
        }
    }
}

/// Everything that has been written since: of the current file, and of those begun since. False when the query wants no more.
fn advance(
    source: &Source,
    watch: &Inotify,
    current: &mut Option<Part>,
    sender: &mut Sender<'_>,
) -> io::Result<bool> {
    loop {
        let next = match current {
            // Looked for first: what is behind a successor is not written to any more.
            Some(part) => read::successor(&source.log, part.identity)?,
            None => Part::open(&source.log)?,
        };
        if let Some(part) = current
            && !part.read(&mut |record| sender.take(record))?
        {
            return Ok(false);
        }
        let Some(next) = next else { return Ok(true) };
        // The file may have been renamed again: a later event tells.
        drop(watch.add(&source.log, CONTENT | DEPARTURE));
        *current = Some(next);
    }
}

fn watch(source: &Source) -> io::Result<Inotify> {
    let watch = Inotify::new()?;
    watch.add(source.log.parent().unwrap_or(Path::new("/")), ARRIVAL)?;
    // Not there before the first record of an own file: its directory tells when it comes.
    drop(watch.add(&source.log, CONTENT | DEPARTURE));
    watch.add(&source.records, ARRIVAL | DEPARTURE)?;
    Ok(watch)
}

/// Whether the log is complete: the exit record comes after the last byte of it, and a deleted container writes no more.
fn has_ended(source: &Source) -> bool {
    store::read_exit(&source.records).is_some() || !source.records.exists()
}

/// Until something has happened; false when the client is gone or the query's time is over.
fn wait(watch: &mut Inotify, query: &Query, client: &UnixStream) -> io::Result<bool> {
    let timeout_ms = match query.until {
        None => -1,
        Some(until) => {
            let left = until - now();
            if left <= 0 {
                return Ok(false);
            }
            i32::try_from(left / 1_000_000 + 1).unwrap_or(i32::MAX)
        }
    };
    let polled = |fd: i32, events: i16| libc::pollfd {
        fd,
        events,
        revents: 0,
    };
    let mut fds = [
        polled(watch.as_fd().as_raw_fd(), libc::POLLIN),
        polled(client.as_raw_fd(), libc::POLLRDHUP),
    ];
    let happened = process::poll(&mut fds, timeout_ms)?;
    watch.drain();
    Ok(happened > 0 && fds[1].revents == 0)
}

fn now() -> i128 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    i128::try_from(since.unwrap_or_default().as_nanos()).unwrap_or(i128::MAX)
}

struct Sender<'a> {
    query: &'a Query,
    client: &'a UnixStream,
    frames: Vec<u8>,
}

impl Sender<'_> {
    /// Adds a record that is wanted; false when none that follows can be.
    fn take(&mut self, record: &[u8]) -> io::Result<bool> {
        // Half a line that a crash or a cut left is nobody's record.
        let Some(record) = read::parse(record) else {
            return Ok(true);
        };
        let query = self.query;
        if query.since.is_some() || query.until.is_some() {
            let Some(at) = read::nanoseconds(record.time) else {
                return Ok(true);
            };
            if query.until.is_some_and(|until| at > until) {
                return Ok(false);
            }
            if query.since.is_some_and(|since| at < since) {
                return Ok(true);
            }
        }
        if !(if record.stream == 1 {
            query.stdout
        } else {
            query.stderr
        }) {
            return Ok(true);
        }
        let header_at = self.frames.len();
        self.frames
            .extend_from_slice(&[record.stream, 0, 0, 0, 0, 0, 0, 0]);
        if query.timestamps {
            self.frames.extend_from_slice(record.time.as_bytes());
            self.frames.push(b' ');
        }
        read::unescape(&mut self.frames, record.text);
        let length = u32::try_from(self.frames.len() - header_at - 8).unwrap_or(u32::MAX);
        self.frames[header_at + 4..header_at + 8].copy_from_slice(&length.to_be_bytes());
        if self.frames.len() >= SEND_BYTES {
            self.flush()?;
        }
        Ok(true)
    }

    fn flush(&mut self) -> io::Result<()> {
        let sent = self.client.write_all(&self.frames);
        self.frames.clear();
        sent
    }
}
