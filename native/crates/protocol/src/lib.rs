//! Frames between shoald and the native core: u32 big-endian length + UTF-8 JSON (src/wire/native.ts is the other half).

pub mod calls;
pub mod oci;
pub mod packed;
pub mod stats;

use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};

/// Version said in the first frame by both sides.
pub const VERSION: u32 = 1;
/// Longest frame either side accepts.
pub const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Kind of failure of a call; closed on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureCode {
    NotFound,
    AlreadyExists,
    Invalid,
    Conflict,
    Full,
    System,
}

/// A call that did not work: what was being done, on which value, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub code: FailureCode,
    pub errno: Option<i32>,
    pub message: String,
    pub doing: String,
}

impl Failure {
    /// A failure that the caller's value caused.
    pub fn invalid(doing: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(FailureCode::Invalid, doing, message)
    }

    /// A failure with a code and no errno.
    pub fn new(code: FailureCode, doing: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code,
            errno: None,
            message: message.into(),
            doing: doing.into(),
        }
    }

    /// A failed system call or file operation; ENOSPC and EDQUOT become `full`.
    pub fn io(doing: impl Into<String>, error: &io::Error) -> Self {
        const ENOSPC: i32 = 28;
        const EDQUOT: i32 = 122;
        let errno = error.raw_os_error();
        let code = match errno {
            Some(ENOSPC | EDQUOT) => FailureCode::Full,
            _ => FailureCode::System,
        };
        Self {
            code,
            errno,
            message: error.to_string(),
            doing: doing.into(),
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}: {}", self.doing, self.message)
    }
}

impl std::error::Error for Failure {}

/// Reads one whole frame; `None` when the peer closed between frames.
pub fn read_frame(from: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut header = [0u8; 4];
    let mut got = 0;
    while got < header.len() {
        match from.read(&mut header[got..]) {
            Ok(0) if got == 0 => return Ok(None),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => got += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let length = u32::from_be_bytes(header) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("frame of {length} bytes is over the limit of {FRAME_BYTES_MAX}"),
        ));
    }
    let mut body = vec![0u8; length];
    from.read_exact(&mut body)?;
    Ok(Some(body))
}

/// Writes one frame in one write call.
pub fn write_frame(to: &mut impl Write, body: &[u8]) -> io::Result<()> {
    let length = u32::try_from(body.len())
        .ok()
        .filter(|_| body.len() <= FRAME_BYTES_MAX)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "frame is over the limit"))?;
    let mut frame = Vec::with_capacity(4 + body.len());
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(body);
    to.write_all(&frame)?;
    to.flush()
}
