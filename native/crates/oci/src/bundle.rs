//! A bundle: its directory and its configuration.

use crate::context::absolute;
use crate::stop::Stop;
use shoal_protocol::oci::Spec;
use shoal_runtime::filesystem;
use std::io::Read;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// Longest config.json that is read.
pub const CONFIG_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// The configuration's name in a bundle.
const CONFIG: &str = "config.json";

/// A bundle that has been read; nothing in it has been checked but its types.
pub struct Bundle {
    /// Absolute.
    pub path: String,
    pub spec: Spec,
    /// Absolute; the specification's root.path against the bundle.
    pub rootfs: PathBuf,
}

impl Bundle {
    /// Reads the bundle in `dir` (default: the working directory), or the configuration `config` against it.
    pub fn read(dir: Option<&str>, config: Option<&str>) -> Result<Self, Stop> {
        let path = absolute(dir.filter(|dir| !dir.is_empty()).unwrap_or("."))?;
        if !path.is_dir() {
            return Err(Stop::new(format!(
                "opening --bundle {}: no such directory",
                path.display()
            )));
        }
        let file = path.join(config.unwrap_or(CONFIG));
        let bytes = read(&file)?;
        let mut spec = Spec::parse(&bytes)?;
        if spec.root.path.is_empty() {
            return Err(Stop::new(
                "reading config.json: root.path is missing; name the directory of the container's root",
            ));
        }
        let rootfs = absolute(&path.join(&spec.root.path).to_string_lossy())?;
        filesystem::resolve_sources(&mut spec, &path)?;
        Ok(Self {
            path: path.display().to_string(),
            spec,
            rootfs,
        })
    }
}

/// A whole configuration file, if it is no longer than the limit.
pub fn read(path: &Path) -> Result<Vec<u8>, Stop> {
    read_as(path, |kind| kind.is_file())
}

/// As `read`, for a file that the caller itself names: it may be a pipe (`--process <(...)`).
pub fn read_given(path: &Path) -> Result<Vec<u8>, Stop> {
    read_as(path, |kind| kind.is_file() || kind.is_fifo())
}

fn read_as(path: &Path, good: impl Fn(std::fs::FileType) -> bool) -> Result<Vec<u8>, Stop> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => Stop::new(format!(
            "JSON specification file {} not found",
            path.display()
        )),
        _ => Stop::new(format!("reading {}: {error}", path.display())),
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    if !good(meta.file_type()) {
        return Err(Stop::new(format!(
            "reading {}: it is no regular file",
            path.display()
        )));
    }
    let mut bytes =
        Vec::with_capacity(usize::try_from(meta.len().min(CONFIG_BYTES_MAX)).unwrap_or(0) + 1);
    file.take(CONFIG_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > CONFIG_BYTES_MAX {
        return Err(Stop::new(format!(
            "reading {}: it is over the limit of {CONFIG_BYTES_MAX} bytes",
            path.display()
        )));
    }
    Ok(bytes)
}
