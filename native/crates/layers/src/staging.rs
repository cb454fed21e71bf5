//! A directory that gets its name only when it is whole.

use crate::{LayerError, Shown, sys};
use shoal_protocol::{Failure, FailureCode};
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Between the destination's name and a number, while it is being made.
const MARK: &str = ".unpacking-";

static NEXT: AtomicU64 = AtomicU64::new(0);
/// Directories that this process is filling now; any other with the mark was left by one that was killed.
static ACTIVE: Mutex<Option<HashSet<PathBuf>>> = Mutex::new(None);

/// A directory beside its destination. It is removed when it is dropped before it was published.
pub struct Staging {
    parent: PathBuf,
    name: OsString,
    working: PathBuf,
    published: bool,
}

impl Staging {
    /// Makes the directory, after removing what a killed process has left of the same destination.
    pub fn new(destination: &Path) -> Result<Self, LayerError> {
        let (Some(parent), Some(name)) = (destination.parent(), destination.file_name()) else {
            return Err(LayerError::Broken(format!(
                "the destination {} has no name",
                destination.display()
            )));
        };
        if fs::symlink_metadata(destination).is_ok() {
            return Err(taken(destination));
        }
        let failed = |what: String| move |error: io::Error| LayerError::Write(what, error);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)
            .map_err(failed(format!("making {}", parent.display())))?;
        spread_layers(parent);
        let mut active = active();
        let active = active.get_or_insert_default();
        remove_left(parent, name, active)
            .map_err(failed("removing what an earlier unpacking left".into()))?;
        let mut working_name = name.to_owned();
        working_name.push(format!(
            "{MARK}{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        ));
        let working = parent.join(working_name);
        fs::DirBuilder::new()
            .mode(0o755)
            .create(&working)
            .map_err(failed(format!("making {}", working.display())))?;
        active.insert(working.clone());
        Ok(Self {
            parent: parent.to_owned(),
            name: name.to_owned(),
            working,
            published: false,
        })
    }

    pub fn open(&self) -> Result<OwnedFd, LayerError> {
        sys::open_directory(&self.working).map_err(|error| {
            LayerError::Write(format!("opening {}", self.working.display()), error)
        })
    }

    /// Puts everything on the disk and gives the directory its name.
    pub fn publish(mut self) -> Result<(), Failure> {
        let parent = sys::open_directory(&self.parent).map_err(|error| Failure::io("", &error))?;
        let working =
            sys::open_directory(&self.working).map_err(|error| Failure::io("", &error))?;
        sys::sync_file_system(working.as_fd()).map_err(|error| Failure::io("", &error))?;
        let from = self
            .working
            .file_name()
            .expect("it was made with a name")
            .as_bytes();
        if let Err(error) = sys::rename_new(parent.as_fd(), from, self.name.as_bytes()) {
            return Err(match error.raw_os_error() {
                Some(libc::EEXIST) => Failure::new(
                    FailureCode::AlreadyExists,
                    "",
                    format!("{} appeared meanwhile", Shown(self.name.as_bytes())),
                ),
                _ => Failure::io("", &error),
            });
        }
        active().get_or_insert_default().remove(&self.working);
        self.published = true;
        fs::File::from(parent).sync_all().map_err(|error| {
            // Whether the name is on the disk is unknown: without it, nobody relies on it.
            self.working = self.parent.join(&self.name);
            self.published = false;
            Failure::io("", &error)
        })
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.published {
            return;
        }
        if let Err(error) = fs::remove_dir_all(&self.working) {
            eprintln!(
                "shoal-core: layers: cannot remove {}: {error}; the next unpacking of this layer tries again",
                self.working.display()
            );
        }
        active().get_or_insert_default().remove(&self.working);
    }
}

/// Layers have nothing to do with each other. Beside each other, ext4 would make the files of each where those of the last were:
/// two at once wait for the same bitmaps, and without a journal every new file passes over all that were removed in the last minutes.
/// Only a hint, so a file system that does not take it is as well.
fn spread_layers(parent: &Path) {
    drop(sys::open_directory(parent).and_then(|parent| sys::spread_children(parent.as_fd())));
}

fn active() -> MutexGuard<'static, Option<HashSet<PathBuf>>> {
    ACTIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn taken(destination: &Path) -> LayerError {
    LayerError::Failure(Failure::new(
        FailureCode::AlreadyExists,
        "",
        format!("{} exists already", destination.display()),
    ))
}

fn remove_left(parent: &Path, name: &OsStr, active: &HashSet<PathBuf>) -> io::Result<()> {
    let mut prefix = name.as_bytes().to_vec();
    prefix.extend_from_slice(MARK.as_bytes());
    for entry in fs::read_dir(parent)? {
        let path = entry?.path();
        if path
            .file_name()
            .is_some_and(|name| name.as_bytes().starts_with(&prefix))
            && !active.contains(&path)
        {
            fs::remove_dir_all(&path)?;
        }
    }
    Ok(())
}
