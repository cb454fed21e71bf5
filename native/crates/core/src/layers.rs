//! Archives that come and go over a connection of their own.
//!
//! To the core come the bytes of an archive until the client shuts its side; from it go pieces, each behind its u32 length, and a length
//! of 0. A frame with the result, or with the failure, is last in both.

use crate::hub::Peer;
use serde_json::{Value, json};
use shoal_protocol::calls;
use shoal_protocol::{Failure, FailureCode};
use shoal_runtime::sys::process;
use std::cell::Cell;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Archives under way at once on connections of their own.
const STREAMS_MAX: usize = 32;
/// Longest piece of an archive that is sent behind one length, in bytes.
const PIECE_BYTES_MAX: usize = 256 * 1024;
/// A client that takes nothing of its archive for this long is cut off; it may write to a slow disk or network.
const SEND_TIMEOUT: Duration = Duration::from_secs(300);
/// After a failure this much more of an archive is taken and thrown away, so that the client reads why instead of failing to write.
const LEFTOVER_BYTES_MAX: u64 = 1 << 30;
const LEFTOVER_TIMEOUT: Duration = Duration::from_secs(10);

static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

/// One of the archives under way.
struct Turn;

impl Turn {
    fn take() -> Result<Self, Failure> {
        if UNDER_WAY.fetch_add(1, Ordering::Relaxed) < STREAMS_MAX {
            return Ok(Self);
        }
        UNDER_WAY.fetch_sub(1, Ordering::Relaxed);
        Err(Failure::new(
            FailureCode::Full,
            "sending an archive",
            format!("{STREAMS_MAX} archives are under way; try again later"),
        ))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        UNDER_WAY.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Takes the archive of an `unpack` call from the connection. An error is one of before the answer; after it everything is told there.
pub fn unpack(peer: &Peer, id: u64, body: &Value, stream: &UnixStream) -> Result<(), Failure> {
    if !shoal_layers::is_streamed(body) {
        return Err(Failure::new(
            FailureCode::Conflict,
            "reading a request",
            "unpack with an archive file is called on a connection that said hello",
        ));
    }
    let _turn = Turn::take()?;
    let failed = |error: io::Error| Failure::io("preparing a stream", &error);
    let (stopped, stop) = io::pipe().map_err(failed)?;
    let stop = Mutex::new(Some(stop));
    let mut source = Stoppable {
        stream: stream.try_clone().map_err(failed)?,
        stopped: stopped.into(),
    };
    let ready = Cell::new(false);
    let answer = shoal_layers::unpack_stream(
        body,
        &mut source,
        &|| {
            peer.send(&calls::reply(id, &Ok(json!({}))));
            ready.set(true);
        },
        // Its end wakes the reader.
        &|| drop(stop.lock().unwrap_or_else(PoisonError::into_inner).take()),
    );
    if !ready.get() {
        return answer.map(drop);
    }
    peer.send(&calls::reply(id, &answer));
    if answer.is_err() {
        discard(stream);
    }
    Ok(())
}

/// Sends what `write` makes over the connection, then its answer. An error is one of before the first byte.
pub fn send(
    peer: &Peer,
    id: u64,
    stream: &UnixStream,
    write: impl FnOnce(&dyn Fn(), &mut dyn Write) -> Result<Value, Failure>,
) -> Result<(), Failure> {
    let _turn = Turn::take()?;
    stream
        .set_write_timeout(Some(SEND_TIMEOUT))
        .map_err(|error| Failure::io("preparing a stream", &error))?;
    let ready = Cell::new(false);
    let begin = || {
        peer.send(&calls::reply(id, &Ok(json!({}))));
        ready.set(true);
    };
    let answer = write(&begin, &mut Pieces(stream));
    if !ready.get() {
        return answer.map(drop);
    }
    // A client that has gone needs no end.
    let mut out = stream;
    if out.write_all(&0u32.to_be_bytes()).is_ok() {
        peer.send(&calls::reply(id, &answer));
    }
    Ok(())
}

/// Reads a connection until it ends or is not to be read any more.
struct Stoppable {
    stream: UnixStream,
    /// A pipe whose other end is closed to stop.
    stopped: OwnedFd,
}

impl Read for Stoppable {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let watched = |fd: &dyn AsRawFd| libc::pollfd {
            fd: fd.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let mut fds = [watched(&self.stream), watched(&self.stopped)];
        process::poll(&mut fds, -1)?;
        if fds[1].revents != 0 {
            return Ok(0);
        }
        self.stream.read(buffer)
    }
}

/// Writes pieces behind their lengths.
struct Pieces<'a>(&'a UnixStream);

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = &bytes[..bytes.len().min(PIECE_BYTES_MAX)];
        if piece.is_empty() {
            // A length of 0 would be the end.
            return Ok(0);
        }
        let length = u32::try_from(piece.len()).unwrap_or(0);
        self.0.write_all(&length.to_be_bytes())?;
        self.0.write_all(piece)?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes what a client still sends of an archive that is not wanted.
fn discard(stream: &UnixStream) {
    drop(stream.shutdown(Shutdown::Write));
    if stream.set_read_timeout(Some(LEFTOVER_TIMEOUT)).is_ok() {
        drop(io::copy(
            &mut stream.take(LEFTOVER_BYTES_MAX),
            &mut io::sink(),
        ));
    }
}
