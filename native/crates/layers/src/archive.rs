//! The calls that make archives of directories: `diff`, `export`, and `commit`, whose archive becomes a layer at once.

use crate::diff::{self, Packing, Written};
use crate::extract::{self, Devices, Tree};
use crate::staging::Staging;
use crate::{LayerError, pipeline, sys};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use shoal_protocol::Failure;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Diff {
    upper: PathBuf,
    #[serde(default)]
    compression: Packing,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Export {
    layers: Vec<PathBuf>,
    upper: Option<PathBuf>,
    #[serde(default)]
    compression: Packing,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Commit {
    upper: PathBuf,
    destination: PathBuf,
}

/// Most layers of one root, as overlayfs takes them.
const LAYERS_MAX: usize = 500;

/// Writes `{upper, compression}`, an upper directory of overlayfs, as a layer: whiteouts and opaque directories as `.wh.` files (OCI
/// image-spec), the same bytes for the same tree. `ready` is called before the first byte.
///
/// Answers `{digest, size, diffId, bytes, files}`: of the archive as written, and of its tar. `not-found` without the directory,
/// `invalid` for what no layer can say: names that begin with `.wh.`, parts that lie elsewhere (redirect_dir, metacopy), limits.
pub fn diff(body: &Value, ready: &dyn Fn(), out: &mut dyn Write) -> Result<Value, Failure> {
    let request: Diff = read("diff", body)?;
    let doing = format!("packing the changes in {}", request.upper.display());
    (|| {
        let upper = vec![open(&request.upper)?];
        ready();
        diff::write(upper, true, request.compression, out)
    })()
    .map(|written| answer(&written))
    .map_err(|error: LayerError| error.into_failure(&doing))
}

/// Writes `{layers, upper, compression}`, layers from the lowest on and an upper directory or none, as the one tree that they show.
/// Answers and fails as `diff` does.
pub fn export(body: &Value, ready: &dyn Fn(), out: &mut dyn Write) -> Result<Value, Failure> {
    let request: Export = read("export", body)?;
    let mut paths = request.layers;
    paths.extend(request.upper);
    let doing = match paths.last() {
        Some(top) => format!("exporting {} layers up to {}", paths.len(), top.display()),
        None => "exporting a root".into(),
    };
    if paths.is_empty() {
        return Err(Failure::invalid(
            doing,
            "there is neither a layer nor an upper directory",
        ));
    }
    if paths.len() > LAYERS_MAX {
        return Err(Failure::invalid(
            doing,
            format!("more than {LAYERS_MAX} layers"),
        ));
    }
    (|| {
        let layers = paths
            .iter()
            .rev()
            .map(|path| open(path))
            .collect::<Result<_, _>>()?;
        ready();
        diff::write(layers, false, request.compression, out)
    })()
    .map(|written| answer(&written))
    .map_err(|error: LayerError| error.into_failure(&doing))
}

/// Makes of `{upper, destination}` a layer: the directory gets what `diff` would write, whole or not at all.
/// Answers `{diffId, bytes, files}`; fails as `diff` and `unpack` do.
pub fn commit(body: &Value) -> Result<Value, Failure> {
    let request: Commit = read("commit", body)?;
    let doing = format!(
        "committing {} to {}",
        request.upper.display(),
        request.destination.display()
    );
    if !request.destination.is_absolute() {
        return Err(Failure::invalid(
            doing,
            "the destination is not an absolute path",
        ));
    }
    committed(&request).map_err(|error| error.into_failure(&doing))
}

fn committed(request: &Commit) -> Result<Value, LayerError> {
    let upper = open(&request.upper)?;
    let staging = Staging::new(&request.destination)?;
    let root = staging.open()?;
    let failed = |error| LayerError::Write("making a pipe".into(), error);
    let (source, sink) = io::pipe().map_err(failed)?;
    let (written, unpacked) = thread::scope(|scope| {
        let writing = thread::Builder::new()
            .name("layer-diff".into())
            .spawn_scoped(scope, move || {
                diff::write(vec![upper], true, Packing::None, sink)
            })
            .map_err(|error| LayerError::Write("starting a thread".into(), error))?;
        let unpacked = pipeline::run(
            source,
            |stream| extract::extract(Tree::new(root)?, stream, false, Devices::Make),
            &|| {},
        );
        let written = writing
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok::<_, LayerError>((written, unpacked))
    })?;
    let (written, (files, measures)) = match (written, unpacked) {
        (Ok(written), Ok(unpacked)) => (written, unpacked),
        // Each side's end ends the other: of two errors the one that is not about the pipe is the reason.
        (Err(LayerError::Write(_, error)), Err(reason))
            if error.kind() == io::ErrorKind::BrokenPipe =>
        {
            return Err(reason);
        }
        (Err(reason), _) | (Ok(_), Err(reason)) => return Err(reason),
    };
    if written.diff_id != measures.diff_id {
        return Err(LayerError::Broken(format!(
            "{} was written, but {} was read",
            written.diff_id, measures.diff_id
        )));
    }
    staging.publish().map_err(LayerError::Failure)?;
    Ok(json!({ "diffId": measures.diff_id, "bytes": measures.bytes, "files": files }))
}

fn read<T: DeserializeOwned>(call: &str, body: &Value) -> Result<T, Failure> {
    T::deserialize(body)
        .map_err(|error| Failure::invalid(format!("reading the call {call}"), error.to_string()))
}

fn open(path: &Path) -> Result<std::os::fd::OwnedFd, LayerError> {
    sys::open_directory(path).map_err(|error| LayerError::of_directory(path, &error))
}

fn answer(written: &Written) -> Value {
    json!({
        "digest": written.digest,
        "size": written.size,
        "diffId": written.diff_id,
        "bytes": written.bytes,
        "files": written.entries,
    })
}
