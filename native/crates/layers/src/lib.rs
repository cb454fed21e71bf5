//! Image layers: a tar, plain or compressed, becomes a directory that overlayfs can use as a lower layer.
//!
//! The layer is hashed while it is unpacked, so one pass both checks and writes it; it has its name only when all of it was right.

mod archive;
mod attributes;
mod compression;
mod diff;
mod digest;
mod extract;
mod limits;
mod parents;
mod paths;
mod pax;
mod pipeline;
mod sparse;
mod staging;
mod sys;
mod tar;
mod tar_writer;
mod walk;
mod writeback;

pub use archive::{commit, diff, export};
pub use limits::{ENTRIES_MAX, TAR_BYTES_MAX};

use digest::is_digest;
use extract::{Devices, Tree};
use pipeline::Measures;
use serde::Deserialize;
use serde_json::{Value, json};
use shoal_protocol::{Failure, FailureCode};
use staging::Staging;
use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// What `unpack` is asked.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    /// None: it comes as a stream.
    archive: Option<PathBuf>,
    /// Of the archive as it lies there.
    #[serde(default)]
    digest: Option<String>,
    /// Of the uncompressed tar.
    diff_id: Option<String>,
    destination: PathBuf,
    #[serde(default)]
    devices: Devices,
}

/// Unpacks `{archive, digest, diffId, destination, devices}`: a tar, gzip or zstd (told from its bytes) into a directory that must not exist yet.
///
/// Answers `{digest, diffId, bytes, files}`: of the archive, and the others of the uncompressed tar. On failure the destination does not exist and nothing is left beside it:
/// `already-exists` when it is there, `not-found` without an archive, `invalid` for an archive that is broken, leaves the root, is over
/// a limit or has another digest than `diffId`, `full` for a full disk.
pub fn unpack(body: &Value) -> Result<Value, Failure> {
    let (request, doing) = read_request(body)?;
    let Some(archive) = &request.archive else {
        return Err(Failure::invalid(
            doing,
            "archive is null; an archive that is sent along is the only request of its connection",
        ));
    };
    compression::open(archive)
        .and_then(|source| unpack_into(&request, source, &|| {}, &doing))
        .map_err(|error| error.into_failure(&doing))
}

/// The same of an archive that comes as a stream. `ready` is called when everything but the archive is there, `give_up` when no more of it is wanted.
pub fn unpack_stream(
    body: &Value,
    source: &mut (dyn Read + Send),
    ready: &dyn Fn(),
    give_up: &(dyn Fn() + Sync),
) -> Result<Value, Failure> {
    let (request, doing) = read_request(body)?;
    let failed = |error: LayerError| error.into_failure(&doing);
    if fs::symlink_metadata(&request.destination).is_ok() {
        return Err(failed(staging::taken(&request.destination)));
    }
    ready();
    unpack_into(&request, source, give_up, &doing).map_err(failed)
}

/// Whether an `unpack` call has its archive sent along.
pub fn is_streamed(body: &Value) -> bool {
    body.get("archive").is_none_or(Value::is_null)
}

fn read_request(body: &Value) -> Result<(Request, String), Failure> {
    let request = Request::deserialize(body)
        .map_err(|error| Failure::invalid("reading an unpack call", error.to_string()))?;
    let archive = match &request.archive {
        Some(archive) => archive.display().to_string(),
        None => "a stream".to_owned(),
    };
    let doing = format!("unpacking {archive} into {}", request.destination.display());
    for (field, digest) in [("digest", &request.digest), ("diffId", &request.diff_id)] {
        if let Some(digest) = digest
            && !is_digest(digest)
        {
            return Err(Failure::invalid(
                doing,
                format!("{field} {digest:?} is not sha256: and 64 hexadecimal digits"),
            ));
        }
    }
    if !request.destination.is_absolute() {
        return Err(Failure::invalid(
            doing,
            "the destination is not an absolute path",
        ));
    }
    Ok((request, doing))
}

fn unpack_into(
    request: &Request,
    source: impl io::Read + Send,
    give_up: &(dyn Fn() + Sync),
    doing: &str,
) -> Result<Value, LayerError> {
    let staging = Staging::new(&request.destination)?;
    let root = staging.open()?;
    let open_end = request.diff_id.is_some();
    let (files, measures) = pipeline::run(
        source,
        |stream| extract::extract(Tree::new(root)?, stream, open_end, request.devices),
        give_up,
    )?;
    let Measures {
        digest,
        diff_id,
        bytes,
    } = measures;
    for (what, wanted, found) in [
        ("archive", &request.digest, &digest),
        ("tar", &request.diff_id, &diff_id),
    ] {
        if let Some(wanted) = wanted.as_ref().filter(|wanted| *wanted != found) {
            return Err(LayerError::Broken(format!(
                "the {what} has digest {found}, but {wanted} was asked for: the archive is damaged or another one"
            )));
        }
    }
    if let Err(failure) = staging.publish() {
        return Err(LayerError::Failure(Failure {
            doing: doing.to_owned(),
            ..failure
        }));
    }
    Ok(json!({ "digest": digest, "diffId": diff_id, "bytes": bytes, "files": files }))
}

/// Reads a tar to its end and checks every header and path as unpacking does, writing nothing; the number of its entries.
/// `open_end`: it may end without the two zero blocks.
pub fn survey(source: &mut impl io::Read, open_end: bool) -> Result<u64, Failure> {
    let mut tar = tar::Tar::new(io::BufReader::new(source), open_end);
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

/// Undoes the compression of an archive, of at most `bytes_max` bytes of it.
pub fn decompress(archive: &[u8], bytes_max: u64) -> Result<Vec<u8>, Failure> {
    let read = || -> Result<Vec<u8>, LayerError> {
        let mut archive = compression::Archive::new(archive)?;
        let mut bytes = Vec::new();
        archive
            .decoder()
            .take(bytes_max)
            .read_to_end(&mut bytes)
            .map_err(LayerError::Read)?;
        Ok(bytes)
    };
    read().map_err(|error| error.into_failure("reading an archive"))
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

    /// A directory that was to be read cannot be.
    fn of_directory(path: &Path, error: &io::Error) -> Self {
        let mut failure = Failure::io("", error);
        match error.raw_os_error() {
            Some(libc::ENOENT) => {
                failure.code = FailureCode::NotFound;
                failure.message = format!("there is no directory {}", path.display());
            }
            Some(libc::ENOTDIR | libc::ELOOP) => {
                failure.code = FailureCode::Invalid;
                failure.message = format!("{} is no directory", path.display());
            }
            _ => {}
        }
        Self::Failure(failure)
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
        assert_eq!(
            request.archive.as_deref().and_then(Path::to_str),
            frame["archive"].as_str()
        );
        assert_eq!(request.diff_id.as_deref(), frame["diffId"].as_str());
        assert_eq!(request.destination.to_str(), frame["destination"].as_str());
    }
}
