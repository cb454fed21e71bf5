//! Writes the entries of a layer beneath a directory, whatever the archive says.
//!
//! Every parent is resolved by the kernel with the tree as its root, and every last component is made anew without following a link.
//! So neither `..`, nor a link of the archive, nor a hard link, nor an entry that replaces another can touch anything outside.

use crate::attributes::{OPAQUE, has_access_list, set_xattrs};
use crate::limits::ENTRIES_MAX;
use crate::parents::{IMPLIED_MODE, Parents, writing};
use crate::paths::{self, Marker};
use crate::tar::{Entry, Kind, Tar, Time};
use crate::writeback::{self, Progress};
use crate::{LayerError, Shown, sys};
use std::fs::{self, File};
use std::io::{self, BufRead, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What is done with entries that are device nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Devices {
    /// The layer is refused.
    #[default]
    Refuse,
    /// They are left out.
    Skip,
    /// They are made; which of them a container may open, its device rules say.
    Make,
}

/// Unpacks all entries and tells how many there were. The stream is left right after the archive's end.
pub fn extract(
    tree: Tree,
    source: &mut impl BufRead,
    open_end: bool,
    devices: Devices,
) -> Result<u64, LayerError> {
    let root = tree
        .parents
        .root()
        .try_clone_to_owned()
        .map_err(|error| LayerError::Write("opening the root".into(), error))?;
    writeback::beside(root, |progress| {
        extract_all(tree, source, open_end, devices, progress)
    })
}

fn extract_all(
    mut tree: Tree,
    source: &mut impl BufRead,
    open_end: bool,
    devices: Devices,
    progress: &mut Progress,
) -> Result<u64, LayerError> {
    let mut tar = Tar::new(source, open_end);
    let mut entries = 0;
    while let Some(entry) = tar.next()? {
        entries += 1;
        if entries > ENTRIES_MAX {
            return Err(LayerError::Broken(format!(
                "it has more than {ENTRIES_MAX} entries, the limit of one layer"
            )));
        }
        if matches!(
            entry.kind,
            Kind::CharacterDevice { .. } | Kind::BlockDevice { .. }
        ) {
            match devices {
                Devices::Make => {}
                Devices::Skip => continue,
                Devices::Refuse => {
                    return Err(LayerError::Broken(format!(
                        "entry {} is a device node, which is not allowed here",
                        Shown(&entry.path)
                    )));
                }
            }
        }
        let parts = paths::components(&entry.path, &entry.path)?;
        match paths::marker(&parts) {
            Marker::Ignored => {}
            Marker::Opaque => tree.opaque(&entry, &parts[..parts.len() - 1])?,
            Marker::Whiteout(name) => tree.whiteout(&entry, &parts[..parts.len() - 1], name)?,
            Marker::None => tree.add(&entry, &parts, &mut |file| {
                write_content(&mut tar, &entry, file, progress)
            })?,
        }
    }
    tree.finish()?;
    Ok(entries)
}

/// Writes the content of the entry at hand right from where it was uncompressed.
fn write_content(
    tar: &mut Tar<&mut impl BufRead>,
    entry: &Entry,
    file: &mut File,
    progress: &mut Progress,
) -> Result<(), LayerError> {
    let failed = |error: io::Error| writing(entry, error);
    let Some(sparse) = &entry.sparse else {
        loop {
            let there = tar.content(u64::MAX)?;
            if there.is_empty() {
                return Ok(());
            }
            file.write_all(there).map_err(failed)?;
            let count = there.len();
            tar.used(count);
            progress.wrote(count as u64);
        }
    };
    for part in &sparse.parts {
        let mut done = 0;
        while done < part.length {
            let there = tar.content(part.length - done)?;
            file.write_all_at(there, part.offset + done)
                .map_err(failed)?;
            let count = there.len();
            tar.used(count);
            progress.wrote(count as u64);
            done += count as u64;
        }
    }
    file.set_len(sparse.size).map_err(failed)
}

/// Writes the content of the entry at hand.
type Content<'a> = &'a mut dyn FnMut(&mut File) -> Result<(), LayerError>;

/// The tree that is being made.
pub struct Tree {
    parents: Parents,
    /// Directories get their times last, as every entry in them changes it.
    times: Vec<(Vec<u8>, Time)>,
    created: Created,
}

/// What the kernel gives a new file without being asked, as far as it is known.
struct Created {
    uid: u32,
    gid: u32,
    /// The thread has no umask, and no directory of the tree hands on a group or an access list.
    plain: bool,
}

impl Tree {
    /// An empty directory becomes the tree's root, as if by an entry that is not there.
    pub fn new(root: OwnedFd) -> Result<Self, LayerError> {
        let failed = |what: &str| {
            let what = what.to_owned();
            move |error| LayerError::Write(what, error)
        };
        sys::set_mode(root.as_fd(), b".", IMPLIED_MODE)
            .map_err(failed("setting the mode of the root"))?;
        sys::remove_default_access(root.as_fd())
            .map_err(failed("removing the default access list of the root"))?;
        let (uid, gid) = sys::effective_ids();
        let found = sys::status(root.as_fd(), b".").map_err(failed("reading the root"))?;
        let plain = sys::clear_thread_umask()
            && found.is_some_and(|found| found.st_uid == uid && found.st_gid == gid);
        Ok(Self {
            parents: Parents::new(root),
            times: Vec::new(),
            created: Created { uid, gid, plain },
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
                .parents
                .root()
                .try_clone_to_owned()
                .map_err(|error| writing(entry, error))?;
            self.times.push((Vec::new(), entry.modified));
            return self.set_metadata(root.as_fd(), b".", entry, None);
        };
        let failed = |error: io::Error| writing(entry, error);
        let parent = self.parents.of(entry, above)?;
        let parent = parent.as_fd();
        let permissions = entry.mode & 0o777;
        let mut made_mode = Some(permissions);
        match entry.kind {
            Kind::File => {
                let fd = self.make(entry, parent, name, || {
                    sys::create_file(parent, name, permissions)
                })?;
                let mut file = File::from(fd);
                content(&mut file)?;
                return self.finish_file(&file, entry);
            }
            Kind::HardLink => return self.hard_link(entry, parent, name),
            Kind::Directory => {
                let made = self.directory(entry, parent, name)?;
                made_mode = made.then_some(IMPLIED_MODE);
                self.times.push((parts.join(&b'/'), entry.modified));
            }
            Kind::SymbolicLink => self.make(entry, parent, name, || {
                sys::make_link(parent, name, &entry.link)
            })?,
            Kind::Fifo => self.make(entry, parent, name, || {
                sys::make_node(parent, name, libc::S_IFIFO | permissions, 0, 0)
            })?,
            Kind::CharacterDevice { major, minor } => self.make(entry, parent, name, || {
                sys::make_node(parent, name, libc::S_IFCHR | permissions, major, minor)
            })?,
            Kind::BlockDevice { major, minor } => self.make(entry, parent, name, || {
                sys::make_node(parent, name, libc::S_IFBLK | permissions, major, minor)
            })?,
        }
        self.set_metadata(parent, name, entry, made_mode)?;
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

    /// Makes what must not be there, after removing what an earlier entry has put there.
    fn make<T>(
        &mut self,
        entry: &Entry,
        parent: BorrowedFd<'_>,
        name: &[u8],
        attempt: impl Fn() -> io::Result<T>,
    ) -> Result<T, LayerError> {
        let failed = |error: io::Error| writing(entry, error);
        match attempt() {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
                self.clear(parent, name).map_err(failed)?;
                attempt().map_err(failed)
            }
            other => other.map_err(failed),
        }
    }

    /// Removes what an earlier entry has put at a name.
    fn clear(&mut self, parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
        // A link that others were resolved by may be gone.
        self.parents.forget();
        match sys::status(parent, name)? {
            Some(found) if is(&found, libc::S_IFDIR) => remove_tree(parent, name),
            Some(_) => sys::remove_file(parent, name),
            None => Ok(()),
        }
    }

    /// Makes a directory (true), or joins the one that is there.
    fn directory(
        &mut self,
        entry: &Entry,
        parent: BorrowedFd<'_>,
        name: &[u8],
    ) -> Result<bool, LayerError> {
        let failed = |error: io::Error| writing(entry, error);
        match sys::make_directory(parent, name, IMPLIED_MODE) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
            other => return other.map(|()| true).map_err(failed),
        }
        let Some(found) = sys::status(parent, name).map_err(failed)? else {
            return Err(failed(io::Error::from_raw_os_error(libc::ENOENT)));
        };
        if is(&found, libc::S_IFDIR) {
            return Ok(false);
        }
        self.make(entry, parent, name, || {
            sys::make_directory(parent, name, IMPLIED_MODE)
        })?;
        // The layer takes a name away and gives a directory back: what was below must not show through it.
        if is(&found, libc::S_IFCHR) && found.st_rdev == 0 {
            sys::set_xattr(parent, name, OPAQUE.0, OPAQUE.1).map_err(failed)?;
        }
        Ok(true)
    }

    /// Owner, attributes, mode and times of a file that was made with the permissions of its entry.
    fn finish_file(&self, file: &File, entry: &Entry) -> Result<(), LayerError> {
        let failed = |error: io::Error| writing(entry, error);
        let fd = file.as_fd();
        let chowned = !self.has_owner(entry);
        if chowned {
            sys::set_owner_of(fd, entry.uid, entry.gid).map_err(failed)?;
        }
        set_xattrs(entry, |key, value| sys::set_xattr_of(fd, key, value))?;
        if !self.created.plain || entry.mode > 0o777 || has_access_list(entry) {
            sys::set_mode_of(fd, entry.mode).map_err(failed)?;
        }
        sys::set_time_of(fd, entry.modified.seconds, entry.modified.nanoseconds).map_err(failed)
    }

    /// Whether a new file already belongs to the entry's owner.
    fn has_owner(&self, entry: &Entry) -> bool {
        self.created.plain && entry.uid == self.created.uid && entry.gid == self.created.gid
    }

    /// Owner, attributes and mode, in this order: a change of the owner takes set-id bits and capabilities away.
    /// `made_mode`: with which mode it was made just now; None when it was there.
    fn set_metadata(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        entry: &Entry,
        made_mode: Option<u32>,
    ) -> Result<(), LayerError> {
        let failed = |error: io::Error| writing(entry, error);
        if !(made_mode.is_some() && self.has_owner(entry)) {
            sys::set_owner(parent, name, entry.uid, entry.gid).map_err(failed)?;
        }
        set_xattrs(entry, |key, value| sys::set_xattr(parent, name, key, value))?;
        let has_mode =
            self.created.plain && made_mode == Some(entry.mode) && !has_access_list(entry);
        if entry.kind != Kind::SymbolicLink && !has_mode {
            sys::set_mode(parent, name, entry.mode).map_err(failed)?;
        }
        // With the mount option grpid, too, a new file would have the directory's group.
        if entry.kind == Kind::Directory
            && (entry.gid != self.created.gid
                || entry.mode & libc::S_ISGID != 0
                || has_access_list(entry))
        {
            self.created.plain = false;
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
        let target_parent = match sys::open_in_root(self.parents.root(), &above.join(&b'/'), flags)
        {
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
        let link = || sys::hard_link(target_parent.as_fd(), target_name, parent, name);
        let linked = match link() {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
                self.clear(parent, name)
                    .map_err(|error| writing(entry, error))?;
                link()
            }
            other => other,
        };
        match linked {
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
        let parent = self.parents.of(entry, above)?;
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
        let parent = self.parents.of(entry, directory)?;
        sys::set_xattr(parent.as_fd(), b".", OPAQUE.0, OPAQUE.1)
            .map_err(|error| writing(entry, error))
    }

    /// Gives directories their times.
    fn finish(self) -> Result<(), LayerError> {
        let mut last: Option<(&[u8], OwnedFd)> = None;
        for (path, time) in &self.times {
            let (above, name) = match path.iter().rposition(|byte| *byte == b'/') {
                Some(at) => (&path[..at], &path[at + 1..]),
                None if path.is_empty() => (&b""[..], &b"."[..]),
                None => (&b""[..], &path[..]),
            };
            let mut set = || {
                let held = last.take().filter(|(held, _)| *held == above);
                let parent = match held {
                    Some((_, parent)) => parent,
                    None => sys::open_in_root(
                        self.parents.root(),
                        above,
                        libc::O_PATH | libc::O_DIRECTORY,
                    )?,
                };
                let set = sys::set_time(parent.as_fd(), name, time.seconds, time.nanoseconds);
                last = Some((above, parent));
                set
            };
            match set() {
                // A later entry replaced it, or what it was in.
                Err(error)
                    if matches!(
                        error.raw_os_error(),
                        Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP)
                    ) => {}
                other => other.map_err(|error| {
                    LayerError::Write(format!("setting the time of {}", Shown(path)), error)
                })?,
            }
        }
        Ok(())
    }
}

fn is(found: &libc::stat, kind: u32) -> bool {
    found.st_mode & libc::S_IFMT == kind
}

fn remove_tree(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    let directory = format!("/proc/thread-self/fd/{}", parent.as_raw_fd());
    // It does not follow links, neither at its start nor within.
    fs::remove_dir_all(Path::new(&directory).join(std::ffi::OsStr::from_bytes(name)))
}
