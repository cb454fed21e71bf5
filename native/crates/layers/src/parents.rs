//! The directories that entries are in: resolved by the kernel with the tree as its root, made where they are missing, and kept open.

use crate::limits::DEPTH_MAX;
use crate::tar::Entry;
use crate::{LayerError, Shown, sys};
use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;

/// Of a directory that the archive implies without an entry for it.
pub const IMPLIED_MODE: u32 = 0o755;
/// Most directories kept open; the entries of a directory come near each other.
const OPEN_PARENTS_MAX: usize = 16;

/// The tree's root and the parents of the last entries.
pub struct Parents {
    root: OwnedFd,
    /// The latest first, by their paths: forgotten when a name that they were resolved by may have changed.
    open: VecDeque<(Vec<u8>, Rc<OwnedFd>)>,
    /// How long the path of the root is, as the kernel tells it.
    root_path_bytes: Option<usize>,
}

impl Parents {
    pub fn new(root: OwnedFd) -> Self {
        Self {
            root,
            open: VecDeque::new(),
            root_path_bytes: None,
        }
    }

    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// A name that some were resolved by may be gone.
    pub fn forget(&mut self) {
        self.open.clear();
    }

    /// Opens the directory that an entry is in, making what is missing of it.
    pub fn of(&mut self, entry: &Entry, above: &[&[u8]]) -> Result<Rc<OwnedFd>, LayerError> {
        let same = |held: &(Vec<u8>, _)| is_joined(&held.0, above);
        if let Some(at) = self.open.iter().position(same) {
            if at > 0
                && let Some(held) = self.open.remove(at)
            {
                self.open.push_front(held);
            }
            return Ok(Rc::clone(&self.open[0].1));
        }
        let opened = self
            .open_or_make(above)
            .map_err(|error| match error.raw_os_error() {
                Some(libc::ENOTDIR | libc::ELOOP | libc::EEXIST) => LayerError::Broken(format!(
                    "entry {}: what it is in is no directory",
                    Shown(&entry.path)
                )),
                _ => writing(entry, error),
            })?;
        self.check_depth(entry, opened.as_fd())?;
        let opened = Rc::new(opened);
        self.open.truncate(OPEN_PARENTS_MAX - 1);
        self.open
            .push_front((above.join(&b'/'), Rc::clone(&opened)));
        Ok(opened)
    }

    fn open_or_make(&self, parts: &[&[u8]]) -> io::Result<OwnedFd> {
        let open = |parts: &[&[u8]]| {
            sys::open_in_root(
                self.root.as_fd(),
                &parts.join(&b'/'),
                libc::O_RDONLY | libc::O_DIRECTORY,
            )
        };
        // The longest front that is there; a dangling link is not, and making a directory in its place then fails.
        let mut there = parts.len();
        let mut opened = loop {
            match open(&parts[..there]) {
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) && there > 0 => there -= 1,
                other => break other?,
            }
        };
        for count in there..parts.len() {
            sys::make_directory(opened.as_fd(), parts[count], IMPLIED_MODE)?;
            // Whatever the process's umask is.
            sys::set_mode(opened.as_fd(), parts[count], IMPLIED_MODE)?;
            opened = open(&parts[..=count])?;
        }
        Ok(opened)
    }

    /// Links make a path deeper than it looks, so the kernel is asked where the directory truly is.
    fn check_depth(&mut self, entry: &Entry, directory: BorrowedFd<'_>) -> Result<(), LayerError> {
        let too_deep = || {
            LayerError::Broken(format!(
                "entry {} is more than {DEPTH_MAX} directories deep",
                Shown(&entry.path[..entry.path.len().min(64)])
            ))
        };
        let path_of =
            |fd: BorrowedFd<'_>| fs::read_link(format!("/proc/thread-self/fd/{}", fd.as_raw_fd()));
        let root_bytes = match self.root_path_bytes {
            Some(bytes) => bytes,
            None => {
                let bytes = path_of(self.root.as_fd())
                    .map_err(|error| writing(entry, error))?
                    .as_os_str()
                    .len();
                *self.root_path_bytes.insert(bytes)
            }
        };
        match path_of(directory) {
            Ok(path) => {
                let beneath = path.as_os_str().as_bytes().get(root_bytes..).unwrap_or(&[]);
                if beneath.iter().filter(|byte| **byte == b'/').count() > DEPTH_MAX {
                    Err(too_deep())
                } else {
                    Ok(())
                }
            }
            Err(error) if error.raw_os_error() == Some(libc::ENAMETOOLONG) => Err(too_deep()),
            Err(error) => Err(writing(entry, error)),
        }
    }
}

/// Whether a path is these parts with `/` between them.
fn is_joined(path: &[u8], parts: &[&[u8]]) -> bool {
    let mut rest = path;
    for (at, part) in parts.iter().enumerate() {
        if at > 0 {
            let Some(after) = rest.strip_prefix(b"/") else {
                return false;
            };
            rest = after;
        }
        let Some(after) = rest.strip_prefix(*part) else {
            return false;
        };
        rest = after;
    }
    rest.is_empty()
}

pub fn writing(entry: &Entry, error: io::Error) -> LayerError {
    LayerError::Write(format!("writing entry {}", Shown(&entry.path)), error)
}
