//! Image layers: a tar, plain or compressed, becomes a directory that overlayfs can use as a lower layer.
//!
//! The layer is hashed while it is unpacked, so one pass both checks and writes it; it has its name only when all of it was right.

mod compression;
mod extract;
mod limits;
mod measured;
mod paths;
mod pax;
mod staging;
mod sys;
mod tar;

pub use limits::{ENTRIES_MAX, TAR_BYTES_MAX};

use extract::Tree;
use measured::Measured;
use serde::Deserialize;
use serde_json::{Value, json};
use shoal_protocol::{Failure, FailureCode};
use staging::Staging;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// What `unpack` is asked.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    archive: PathBuf,
    diff_id: Option<String>,
    destination: PathBuf,
}

/// Unpacks `{archive, diffId, destination}`: a tar, gzip or zstd (told from its bytes) into a directory that must not exist yet.
///
/// Answers `{diffId, bytes, files}` of the uncompressed tar. On failure the destination does not exist and nothing is left beside it:
/// `already-exists` when it is there, `not-found` without an archive, `invalid` for an archive that is broken, leaves the root, is over
/// a limit or has another digest than `diffId`, `full` for a full disk.
pub fn unpack(body: &Value) -> Result<Value, Failure> {
    let request = Request::deserialize(body)
        .map_err(|error| Failure::invalid("reading an unpack call", error.to_string()))?;
    let doing = format!(
        "unpacking {} into {}",
        request.archive.display(),
        request.destination.display()
    );
    if let Some(diff_id) = &request.diff_id
        && !is_digest(diff_id)
    {
        return Err(Failure::invalid(
            doing,
            format!("diffId {diff_id:?} is not sha256: and 64 hexadecimal digits"),
        ));
    }
    if !request.destination.is_absolute() {
        return Err(Failure::invalid(
            doing,
            "the destination is not an absolute path",
        ));
    }
    unpack_into(&request, &doing).map_err(|error| error.into_failure(&doing))
}

fn unpack_into(request: &Request, doing: &str) -> Result<Value, LayerError> {
    let archive = compression::open(&request.archive)?;
    let staging = Staging::new(&request.destination)?;
    let mut measured = Measured::new(archive);
    let tree = Tree::new(staging.open()?)?;
    let files = extract::extract(tree, &mut measured, request.diff_id.is_some())?;
    let (digest, bytes) = measured.finish()?;
    if let Some(wanted) = request.diff_id.as_ref().filter(|wanted| **wanted != digest) {
        return Err(LayerError::Broken(format!(
            "the tar has digest {digest}, but {wanted} was asked for: the archive is damaged or another one"
        )));
    }
    if let Err(failure) = staging.publish() {
        return Err(LayerError::Failure(Failure {
            doing: doing.to_owned(),
            ..failure
        }));
    }
    Ok(json!({ "diffId": digest, "bytes": bytes, "files": files }))
}

/// Reads a tar to its end and checks every header and path as unpacking does, writing nothing; the number of its entries.
/// `open_end`: it may end without the two zero blocks.
pub fn survey(source: &mut impl io::Read, open_end: bool) -> Result<u64, Failure> {
    let mut tar = tar::Tar::new(source, open_end);
    let mut entries = 0;
    let mut next = || -> Result<bool, LayerError> {
        let Some(entry) = tar.next()? else {
            return Ok(false);
        };
        paths::components(&entry.path, &entry.path)?;
        if entry.kind == tar::Kind::HardLink {
            paths::components(&entry.path, &entry.link)?;
        }
        Ok(true)
    };
    while next().map_err(|error| error.into_failure("reading an archive"))? {
        entries += 1;
    }
    Ok(entries)
}

/// Why a layer could not be unpacked.
#[derive(Debug)]
pub(crate) enum LayerError {
    /// The archive is not what it should be.
    Broken(String),
    /// The archive could not be read to its end, or not decompressed.
    Read(io::Error),
    /// The file system refused: what was being done with which entry.
    Write(String, io::Error),
    Failure(Failure),
}

impl LayerError {
    fn into_failure(self, doing: &str) -> Failure {
        match self {
            Self::Broken(message) => Failure::invalid(doing, message),
            Self::Read(error) if error.kind() == io::ErrorKind::UnexpectedEof => Failure::invalid(
                doing,
                "the archive is truncated: it ends in the middle; fetch or write it again",
            ),
            // Decompressors tell damage without an errno; a failing disk has one.
            Self::Read(error) if error.raw_os_error().is_none() => {
                Failure::invalid(doing, format!("the archive is damaged: {error}"))
            }
            Self::Read(error) => Failure {
                doing: format!("{doing}: reading the archive"),
                ..Failure::io("", &error)
            },
            Self::Write(what, error) => Failure {
                doing: format!("{doing}: {what}"),
                ..Failure::io("", &error)
            },
            Self::Failure(failure) => Failure {
                doing: doing.to_owned(),
                ..failure
            },
        }
    }

    /// The archive file itself cannot be used.
    fn of_archive(path: &Path, error: &io::Error) -> Self {
        let mut failure = Failure::io("", error);
        if error.kind() == io::ErrorKind::NotFound {
            failure.code = FailureCode::NotFound;
            failure.message = format!("there is no archive {}", path.display());
        }
        Self::Failure(failure)
    }
}

/// Bytes of a name in an archive, as they can be shown.
pub(crate) struct Shown<'a>(pub &'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", String::from_utf8_lossy(self.0))
    }
}

fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|digits| {
        digits.len() == 64
            && digits
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shared_fixture_is_read_whole() {
        let text = include_str!("../../../testdata/requests.json");
        let frames: Vec<serde_json::Value> = serde_json::from_str(text).expect("fixture");
        let frame = frames
            .iter()
            .find(|frame| frame["call"] == "unpack")
            .expect("frame");
        let request = Request::deserialize(frame).expect("request");
        assert_eq!(request.archive.to_str(), frame["archive"].as_str());
        assert_eq!(request.diff_id.as_deref(), frame["diffId"].as_str());
        assert_eq!(request.destination.to_str(), frame["destination"].as_str());
    }
}
