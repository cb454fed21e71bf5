//! Layers as they lie on the disk, walked as one tree or as what one of them changes: always in the same order, parents first.
//!
//! Every step is by descriptor and name and follows no link, so that a program that still writes there can lead it nowhere.

use crate::limits::{DEPTH_MAX, PATH_BYTES_MAX};
use crate::{LayerError, Shown, sys};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const OPAQUE: &[u8] = b"trusted.overlay.opaque";
/// By these overlayfs finds the rest of a directory or file elsewhere, so that the layer alone does not say what it is.
const ELSEWHERE: [&[u8]; 2] = [b"trusted.overlay.redirect", b"trusted.overlay.metacopy"];

/// What is found at a path.
pub enum Found<'a> {
    /// Something by its name in its directory; of directories of several layers the uppermost.
    Entry {
        parent: BorrowedFd<'a>,
        name: &'a [u8],
        status: libc::stat,
    },
    /// The path is of the layers below, and gone.
    Whiteout,
    /// Nothing of the layers below shows in this directory.
    Opaque,
}

/// Takes what is found, with its path without a leading `/`; the root's is empty.
pub type Visit<'a> = dyn FnMut(&[u8], Found<'_>) -> Result<(), LayerError> + 'a;

/// Walks directories that lie on each other, the uppermost first. `alone`: what the only one says of layers below is visited too.
pub fn walk(layers: Vec<OwnedFd>, alone: bool, visit: &mut Visit<'_>) -> Result<(), LayerError> {
    let Some(top) = layers.first() else {
        return Err(LayerError::Broken("there is no layer".into()));
    };
    let failed = |error| LayerError::Write("reading the root".into(), error);
    let status = sys::status(top.as_fd(), b".")
        .map_err(failed)?
        .ok_or_else(|| failed(io::Error::from_raw_os_error(libc::ENOENT)))?;
    let root = Found::Entry {
        parent: top.as_fd(),
        name: b".",
        status,
    };
    visit(b"", root)?;
    let mut walker = Walker {
        alone,
        path: Vec::new(),
        visit,
    };
    walker.directory(&layers, 0)
}

struct Walker<'a, 'b> {
    alone: bool,
    path: Vec<u8>,
    visit: &'a mut Visit<'b>,
}

impl Walker<'_, '_> {
    fn directory(&mut self, layers: &[OwnedFd], depth: usize) -> Result<(), LayerError> {
        if depth > DEPTH_MAX {
            return Err(LayerError::Broken(format!(
                "{}… is more than {DEPTH_MAX} directories deep, the limit of one layer",
                Shown(&self.path[..self.path.len().min(64)])
            )));
        }
        // Of each name, the uppermost layer that has it.
        let mut names: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
        for (at, layer) in layers.iter().enumerate() {
            for name in read_names(layer).map_err(|error| self.reading(error))? {
                names.entry(name).or_insert(at);
            }
        }
        let before = self.path.len();
        for (name, at) in names {
            if before > 0 {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(&name);
            if self.path.len() > PATH_BYTES_MAX {
                return Err(LayerError::Broken(format!(
                    "{}… is longer than {PATH_BYTES_MAX} bytes",
                    Shown(&self.path[..64])
                )));
            }
            self.name(&layers[at..], &name, depth)?;
            self.path.truncate(before);
        }
        Ok(())
    }

    /// One name, which the first of these directories has.
    fn name(&mut self, layers: &[OwnedFd], name: &[u8], depth: usize) -> Result<(), LayerError> {
        let top = layers[0].as_fd();
        // Gone since it was listed: as if it had never been.
        let Some(status) = sys::status(top, name).map_err(|error| self.reading(error))? else {
            return Ok(());
        };
        if is_whiteout(&status) {
            return if self.alone {
                (self.visit)(&self.path, Found::Whiteout)
            } else {
                Ok(())
            };
        }
        self.check_whole(top, name, &status)?;
        let found = Found::Entry {
            parent: top,
            name,
            status,
        };
        (self.visit)(&self.path, found)?;
        if status.st_mode & libc::S_IFMT != libc::S_IFDIR {
            return Ok(());
        }
        let mut merged = Vec::new();
        for layer in layers {
            let Some(status) =
                sys::status(layer.as_fd(), name).map_err(|error| self.reading(error))?
            else {
                continue;
            };
            if status.st_mode & libc::S_IFMT != libc::S_IFDIR {
                break;
            }
            let opened = sys::open_child(layer.as_fd(), name, libc::O_DIRECTORY)
                .map_err(|error| self.reading(error))?;
            let opaque = sys::xattr(opened.as_fd(), b".", OPAQUE)
                .map_err(|error| self.reading(error))?
                .is_some_and(|value| value == b"y");
            if merged.is_empty() && opaque && self.alone {
                (self.visit)(&self.path, Found::Opaque)?;
            }
            merged.push(opened);
            if opaque {
                break;
            }
        }
        self.directory(&merged, depth + 1)
    }

    fn check_whole(
        &self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        status: &libc::stat,
    ) -> Result<(), LayerError> {
        if !matches!(status.st_mode & libc::S_IFMT, libc::S_IFDIR | libc::S_IFREG) {
            return Ok(());
        }
        for key in ELSEWHERE {
            if sys::xattr(parent, name, key)
                .map_err(|error| self.reading(error))?
                .is_some()
            {
                return Err(LayerError::Broken(format!(
                    "{} has the attribute {}: a part of it lies elsewhere, as overlayfs was mounted with redirect_dir or metacopy",
                    Shown(&self.path),
                    Shown(key)
                )));
            }
        }
        Ok(())
    }

    fn reading(&self, error: io::Error) -> LayerError {
        reading(&self.path, error)
    }
}

pub fn reading(path: &[u8], error: io::Error) -> LayerError {
    LayerError::Write(format!("reading {}", Shown(path)), error)
}

pub fn is_whiteout(status: &libc::stat) -> bool {
    status.st_mode & libc::S_IFMT == libc::S_IFCHR && status.st_rdev == 0
}

fn read_names(directory: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    // The link in /proc leads to just this directory.
    let path = format!("/proc/thread-self/fd/{}", directory.as_raw_fd());
    fs::read_dir(Path::new(&path))?
        .map(|entry| entry.map(|entry| entry.file_name().as_bytes().to_vec()))
        .collect()
}
