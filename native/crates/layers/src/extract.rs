//! Writes the entries of a layer beneath a directory, whatever the archive says.
//!
//! Every parent is resolved by the kernel with the tree as its root, and every last component is made anew without following a link.
//! So neither `..`, nor a link of the archive, nor a hard link, nor an entry that replaces another can touch anything outside.

use crate::limits::{COPY_BYTES, DEPTH_MAX, ENTRIES_MAX, XATTR_BYTES_MAX};
use crate::paths::{self, Marker};
use crate::tar::{Entry, Kind, Tar, Time};
use crate::{LayerError, Shown, sys};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// How overlayfs says that nothing of the layers below shows in a directory.
const OPAQUE: (&[u8], &[u8]) = (b"trusted.overlay.opaque", b"y");
/// Of a directory that the archive implies without an entry for it.
const IMPLIED_MODE: u32 = 0o755;

/// Unpacks all entries and tells how many there were. The stream is left right after the archive's end.
pub fn extract(mut tree: Tree, source: &mut impl Read, open_end: bool) -> Result<u64, LayerError> {
    let mut tar = Tar::new(source, open_end);
    let mut buffer = vec![0; COPY_BYTES];
    let mut entries = 0;
    while let Some(entry) = tar.next()? {
        entries += 1;
        if entries > ENTRIES_MAX {
            return Err(LayerError::Broken(format!(
                "it has more than {ENTRIES_MAX} entries, the limit of one layer"
            )));
        }
        let parts = paths::components(&entry.path, &entry.path)?;
        match paths::marker(&parts) {
            Marker::Ignored => {}
            Marker::Opaque => tree.opaque(&entry, &parts[..parts.len() - 1])?,
            Marker::Whiteout(name) => tree.whiteout(&entry, &parts[..parts.len() - 1], name)?,
            Marker::None => tree.add(&entry, &parts, &mut |file| {
                loop {
                    let count = tar.read_content(&mut buffer)?;
                    if count == 0 {
                        return Ok(());
                    }
                    file.write_all(&buffer[..count])
                        .map_err(|error| writing(&entry, error))?;
                }
            })?,
        }
    }
    tree.finish()?;
    Ok(entries)
}

/// Writes the content of the entry at hand.
type Content<'a> = &'a mut dyn FnMut(&mut File) -> Result<(), LayerError>;

/// The tree that is being made.
pub struct Tree {
    root: OwnedFd,
    /// The parent of the last entry, as most entries have the same as the one before.
    last: Option<(Vec<u8>, OwnedFd)>,
    /// Directories get their times last, as every entry in them changes it.
    times: Vec<(Vec<u8>, Time)>,
    /// How long the path of the root is, as the kernel tells it.
    root_path_bytes: Option<usize>,
}

impl Tree {
    /// An empty directory becomes the tree's root, as if by an entry that is not there.
    pub fn new(root: OwnedFd) -> Result<Self, LayerError> {
        sys::set_mode(root.as_fd(), b".", IMPLIED_MODE)
            .map_err(|error| LayerError::Write("setting the mode of the root".into(), error))?;
        Ok(Self {
            root,
            last: None,
            times: Vec::new(),
            root_path_bytes: None,
        })
    }

    /// Adds one entry, in place of what an earlier one has put there; a directory joins an earlier one.
    fn add(
        &mut self,
        entry: &Entry,
        parts: &[&[u8]],
        content: Content<'_>,
    ) -> Result<(), LayerError> {
        let Some((&name, above)) = parts.split_last() else {
            if entry.kind != Kind::Directory {
                return Err(LayerError::Broken(format!(
                    "entry {} would replace the root",
                    Shown(&entry.path)
                )));
            }
            let root = self
                .root
                .try_clone()
                .map_err(|error| writing(entry, error))?;
            self.times.push((Vec::new(), entry.modified));
            return set_metadata(root.as_fd(), b".", entry);
        };
        let failed = |error: io::Error| writing(entry, error);
        let parent = self.parent(entry, above)?;
        let parent = parent.as_fd();
        let mut covers_lower = false;
        if let Some(found) = sys::status(parent, name).map_err(failed)? {
            let is = |kind: u32| found.st_mode & libc::S_IFMT == kind;
            let joins = is(libc::S_IFDIR) && entry.kind == Kind::Directory;
            // The layer takes a name away and gives a directory back: what was below must not show through it.
            covers_lower = is(libc::S_IFCHR) && found.st_rdev == 0 && entry.kind == Kind::Directory;
            if is(libc::S_IFDIR) && !joins {
                remove_tree(parent, name).map_err(failed)?;
                self.last = None;
            } else if !joins {
                sys::remove_file(parent, name).map_err(failed)?;
                // A link that others were resolved by may be gone.
                self.last = None;
            }
        }
        match entry.kind {
            Kind::File => {
                let mut file = File::from(sys::create_file(parent, name).map_err(failed)?);
                content(&mut file)?;
            }
            Kind::Directory => {
                match sys::make_directory(parent, name, IMPLIED_MODE) {
                    Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
                    other => other.map_err(failed)?,
                }
                if covers_lower {
                    sys::set_xattr(parent, name, OPAQUE.0, OPAQUE.1).map_err(failed)?;
                }
                self.times.push((parts.join(&b'/'), entry.modified));
            }
            Kind::SymbolicLink => sys::make_link(parent, name, &entry.link).map_err(failed)?,
            Kind::HardLink => return self.hard_link(entry, parent, name),
            Kind::Fifo => {
                sys::make_node(parent, name, libc::S_IFIFO | 0o600, 0, 0).map_err(failed)?
            }
            Kind::CharacterDevice { major, minor } => {
                sys::make_node(parent, name, libc::S_IFCHR | 0o600, major, minor).map_err(failed)?
            }
            Kind::BlockDevice { major, minor } => {
                sys::make_node(parent, name, libc::S_IFBLK | 0o600, major, minor).map_err(failed)?
            }
        }
        set_metadata(parent, name, entry)?;
        if entry.kind != Kind::Directory {
            sys::set_time(
                parent,
                name,
                entry.modified.seconds,
                entry.modified.nanoseconds,
            )
            .map_err(failed)?;
        }
        Ok(())
    }

    /// A second name for an earlier entry, which has its own metadata.
    fn hard_link(
        &mut self,
        entry: &Entry,
        parent: BorrowedFd<'_>,
        name: &[u8],
    ) -> Result<(), LayerError> {
        let target = paths::components(&entry.path, &entry.link)?;
        let missing = || {
            LayerError::Broken(format!(
                "entry {} is a hard link to {}, which no earlier entry of the layer made",
                Shown(&entry.path),
                Shown(&entry.link)
            ))
        };
        let Some((&target_name, above)) = target.split_last() else {
            return Err(LayerError::Broken(format!(
                "entry {} is a hard link to the root",
                Shown(&entry.path)
            )));
        };
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        let target_parent = match sys::open_in_root(self.root.as_fd(), &above.join(&b'/'), flags) {
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP)
                ) =>
            {
                return Err(missing());
            }
            other => other.map_err(|error| writing(entry, error))?,
        };
        match sys::hard_link(target_parent.as_fd(), target_name, parent, name) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Err(missing()),
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                Err(LayerError::Broken(format!(
                    "entry {} is a hard link to the directory {}",
                    Shown(&entry.path),
                    Shown(&entry.link)
                )))
            }
            other => other.map_err(|error| writing(entry, error)),
        }
    }

    /// Says that a name of the layers below is gone.
    fn whiteout(&mut self, entry: &Entry, above: &[&[u8]], name: &[u8]) -> Result<(), LayerError> {
        if matches!(name, b"" | b"." | b"..") {
            return Err(LayerError::Broken(format!(
                "entry {} is a whiteout of no name",
                Shown(&entry.path)
            )));
        }
        let parent = self.parent(entry, above)?;
        let failed = |error: io::Error| writing(entry, error);
        match sys::status(parent.as_fd(), name).map_err(failed)? {
            None => sys::make_node(parent.as_fd(), name, libc::S_IFCHR, 0, 0).map_err(failed),
            // The layer puts a new one in its place; a directory must not join the one below.
            Some(found) if found.st_mode & libc::S_IFMT == libc::S_IFDIR => {
                sys::set_xattr(parent.as_fd(), name, OPAQUE.0, OPAQUE.1).map_err(failed)
            }
            Some(_) => Ok(()),
        }
    }

    /// Says that nothing of the layers below shows in a directory.
    fn opaque(&mut self, entry: &Entry, directory: &[&[u8]]) -> Result<(), LayerError> {
        let parent = self.parent(entry, directory)?;
        sys::set_xattr(parent.as_fd(), b".", OPAQUE.0, OPAQUE.1)
            .map_err(|error| writing(entry, error))
    }

    /// Opens the directory that an entry is in, making what is missing of it.
    fn parent(&mut self, entry: &Entry, above: &[&[u8]]) -> Result<OwnedFd, LayerError> {
        let path = above.join(&b'/');
        let failed = |error: io::Error| writing(entry, error);
        if let Some((held, parent)) = &self.last
            && *held == path
        {
            return parent.try_clone().map_err(failed);
        }
        let opened = self
            .open_or_make(above)
            .map_err(|error| match error.raw_os_error() {
                Some(libc::ENOTDIR | libc::ELOOP | libc::EEXIST) => LayerError::Broken(format!(
                    "entry {}: what it is in is no directory",
                    Shown(&entry.path)
                )),
                _ => failed(error),
            })?;
        self.check_depth(entry, opened.as_fd())?;
        self.last = Some((path, opened.try_clone().map_err(failed)?));
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

    /// Gives directories their times.
    fn finish(self) -> Result<(), LayerError> {
        for (path, time) in &self.times {
            let (above, name) = match path.iter().rposition(|byte| *byte == b'/') {
                Some(at) => (&path[..at], &path[at + 1..]),
                None if path.is_empty() => (&b""[..], &b"."[..]),
                None => (&b""[..], &path[..]),
            };
            let failed = |error: io::Error| {
                LayerError::Write(format!("setting the time of {}", Shown(path)), error)
            };
            match sys::open_in_root(self.root.as_fd(), above, libc::O_PATH | libc::O_DIRECTORY)
                .and_then(|parent| {
                    sys::set_time(parent.as_fd(), name, time.seconds, time.nanoseconds)
                }) {
                // A later entry replaced it, or what it was in.
                Err(error)
                    if matches!(
                        error.raw_os_error(),
                        Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP)
                    ) => {}
                other => other.map_err(failed)?,
            }
        }
        Ok(())
    }
}

/// Owner, attributes and mode, in this order: a change of the owner takes set-id bits and capabilities away.
fn set_metadata(parent: BorrowedFd<'_>, name: &[u8], entry: &Entry) -> Result<(), LayerError> {
    let failed = |error: io::Error| writing(entry, error);
    sys::set_owner(parent, name, entry.uid, entry.gid).map_err(failed)?;
    for (key, value) in &entry.xattrs {
        if !is_kept(key, entry.kind) {
            continue;
        }
        if value.len() > XATTR_BYTES_MAX {
            return Err(LayerError::Broken(format!(
                "entry {}: its attribute {} is longer than {XATTR_BYTES_MAX} bytes",
                Shown(&entry.path),
                Shown(key)
            )));
        }
        match sys::set_xattr(parent, name, key, value) {
            // The file system has none of them. A capability that is lost would be a program that does not work, so that one is told.
            Err(error) if error.raw_os_error() == Some(libc::ENOTSUP) && key != CAPABILITY => {}
            other => other.map_err(|error| {
                LayerError::Write(
                    format!("setting attribute {} of {}", Shown(key), Shown(&entry.path)),
                    error,
                )
            })?,
        }
    }
    if entry.kind != Kind::SymbolicLink {
        sys::set_mode(parent, name, entry.mode).map_err(failed)?;
    }
    Ok(())
}

const CAPABILITY: &[u8] = b"security.capability";

/// Attributes that mean the same on every machine. Above all none of overlayfs's own, by which a layer could lead it astray.
fn is_kept(key: &[u8], kind: Kind) -> bool {
    let on_user_data = matches!(kind, Kind::File | Kind::Directory);
    match key {
        CAPABILITY => kind == Kind::File,
        b"system.posix_acl_access" | b"system.posix_acl_default" => kind != Kind::SymbolicLink,
        _ => on_user_data && key.starts_with(b"user.") && !key.starts_with(b"user.overlay."),
    }
}

fn remove_tree(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    let directory = format!("/proc/thread-self/fd/{}", parent.as_raw_fd());
    // It does not follow links, neither at its start nor within.
    fs::remove_dir_all(Path::new(&directory).join(std::ffi::OsStr::from_bytes(name)))
}

fn writing(entry: &Entry, error: io::Error) -> LayerError {
    LayerError::Write(format!("writing entry {}", Shown(&entry.path)), error)
}
