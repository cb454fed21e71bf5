//! Directories back into archives: what an upper directory changes, a whole root of several layers, and a new layer of an upper directory.

use crate::attributes::is_kept;
use crate::digest::Hashed;
use crate::limits::{COPY_BYTES, ENTRIES_MAX, TAR_BYTES_MAX};
use crate::tar::{Entry, Kind, Time};
use crate::tar_writer::{TarWriter, writing};
use crate::walk::{self, Found, reading};
use crate::{LayerError, Shown, sys};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Deserialize;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

/// As docker and gzip do.
const GZIP_LEVEL: u32 = 6;

/// How an archive is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Packing {
    #[default]
    None,
    Gzip,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// `sha256:…` and length of the archive as it was written.
    pub digest: String,
    pub size: u64,
    /// The same of the uncompressed tar.
    pub diff_id: String,
    pub bytes: u64,
    pub entries: u64,
}

/// Writes layers, the uppermost first, as one archive. `alone`: the only one with its whiteouts, else as one tree.
pub fn write(
    layers: Vec<OwnedFd>,
    alone: bool,
    packing: Packing,
    out: impl Write,
) -> Result<Written, LayerError> {
    let out = BufWriter::with_capacity(COPY_BYTES, out);
    match packing {
        Packing::None => {
            let (_, diff_id, bytes, entries) = tree(layers, alone, out)?;
            Ok(Written {
                digest: diff_id.clone(),
                size: bytes,
                diff_id,
                bytes,
                entries,
            })
        }
        Packing::Gzip => {
            let encoder = GzEncoder::new(Hashed::new(out), Compression::new(GZIP_LEVEL));
            let (encoder, diff_id, bytes, entries) =
                tree(layers, alone, BufWriter::with_capacity(COPY_BYTES, encoder))?;
            let encoder = encoder
                .into_inner()
                .map_err(|error| writing(error.into_error()))?;
            let mut out = encoder.finish().map_err(writing)?;
            out.flush().map_err(writing)?;
            let (_, digest, size) = out.into_parts();
            Ok(Written {
                digest,
                size,
                diff_id,
                bytes,
                entries,
            })
        }
    }
}

fn tree<W: Write>(
    layers: Vec<OwnedFd>,
    alone: bool,
    out: W,
) -> Result<(W, String, u64, u64), LayerError> {
    let mut archive = Archive {
        tar: TarWriter::new(out),
        alone,
        names: HashMap::new(),
        buffer: vec![0; COPY_BYTES],
    };
    walk::walk(layers, alone, &mut |path, found| archive.add(path, found))?;
    let entries = archive.tar.entries();
    let (out, diff_id, bytes) = archive.tar.finish()?;
    Ok((out, diff_id, bytes, entries))
}

struct Archive<W: Write> {
    tar: TarWriter<W>,
    alone: bool,
    /// First paths of files that have several, by device and inode.
    names: HashMap<(u64, u64), Vec<u8>>,
    buffer: Vec<u8>,
}

impl<W: Write> Archive<W> {
    fn add(&mut self, path: &[u8], found: Found<'_>) -> Result<(), LayerError> {
        if self.tar.entries() >= ENTRIES_MAX || self.tar.bytes() > TAR_BYTES_MAX {
            return Err(LayerError::Broken(format!(
                "at {} it is over the limit of one layer, {ENTRIES_MAX} entries or {TAR_BYTES_MAX} bytes",
                Shown(path)
            )));
        }
        match found {
            Found::Whiteout => {
                let at = path
                    .iter()
                    .rposition(|byte| *byte == b'/')
                    .map_or(0, |at| at + 1);
                self.tar
                    .entry(&marker([&path[..at], b".wh.", &path[at..]].concat()))
            }
            Found::Opaque => self.tar.entry(&marker([path, b"/.wh..wh..opq"].concat())),
            Found::Entry {
                parent,
                name,
                status,
            } => {
                if self.alone && name.starts_with(b".wh.") {
                    return Err(LayerError::Broken(format!(
                        "{} has a name that layers use for what is removed; rename it",
                        Shown(path)
                    )));
                }
                self.entry(path, parent, name, &status)
            }
        }
    }

    fn entry(
        &mut self,
        path: &[u8],
        parent: BorrowedFd<'_>,
        name: &[u8],
        status: &libc::stat,
    ) -> Result<(), LayerError> {
        let (major, minor) = (libc::major(status.st_rdev), libc::minor(status.st_rdev));
        let kind = match status.st_mode & libc::S_IFMT {
            libc::S_IFREG => Kind::File,
            libc::S_IFDIR => Kind::Directory,
            libc::S_IFLNK => Kind::SymbolicLink,
            libc::S_IFIFO => Kind::Fifo,
            libc::S_IFCHR => Kind::CharacterDevice { major, minor },
            libc::S_IFBLK => Kind::BlockDevice { major, minor },
            // A socket means nothing without the process that listens at it, and tar has none.
            _ => return Ok(()),
        };
        let mut entry = Entry {
            path: match (kind, path) {
                (_, b"") => b"./".to_vec(),
                (Kind::Directory, path) => [path, b"/"].concat(),
                (_, path) => path.to_vec(),
            },
            link: Vec::new(),
            kind,
            size: 0,
            mode: status.st_mode & 0o7777,
            uid: status.st_uid,
            gid: status.st_gid,
            modified: Time {
                seconds: status.st_mtime,
                nanoseconds: u32::try_from(status.st_mtime_nsec).unwrap_or(0),
            },
            xattrs: Vec::new(),
            sparse: None,
        };
        if kind != Kind::Directory && status.st_nlink > 1 {
            match self.names.get(&(status.st_dev, status.st_ino)) {
                Some(first) => {
                    entry.kind = Kind::HardLink;
                    entry.link.clone_from(first);
                    return self.tar.entry(&entry);
                }
                None => {
                    self.names
                        .insert((status.st_dev, status.st_ino), path.to_vec());
                }
            }
        }
        let failed = |error: io::Error| reading(path, error);
        entry.xattrs = xattrs(parent, name, kind).map_err(failed)?;
        match kind {
            Kind::SymbolicLink => {
                entry.link = sys::link_target(parent, name).map_err(failed)?;
                self.tar.entry(&entry)
            }
            Kind::File => {
                let file = open_file(parent, name, status).map_err(failed)?;
                entry.size = file.metadata().map_err(failed)?.len();
                self.file(path, &entry, file)
            }
            _ => self.tar.entry(&entry),
        }
    }

    /// The content, as long as the header says: of a file that shrinks meanwhile the rest is zeros, of one that grows it is left out.
    fn file(&mut self, path: &[u8], entry: &Entry, mut file: File) -> Result<(), LayerError> {
        self.tar.entry(entry)?;
        let mut left = entry.size;
        let mut ended = false;
        while left > 0 {
            let want = self
                .buffer
                .len()
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            let got = if ended {
                self.buffer[..want].fill(0);
                want
            } else {
                match file.read(&mut self.buffer[..want]) {
                    Ok(got) => got,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(reading(path, error)),
                }
            };
            ended |= got == 0;
            self.tar.content(&self.buffer[..got])?;
            left -= got as u64;
        }
        self.tar.pad(entry.size)
    }
}

/// An empty file that says something of the layers below, the same at every time.
fn marker(path: Vec<u8>) -> Entry {
    Entry {
        path,
        link: Vec::new(),
        kind: Kind::File,
        size: 0,
        mode: 0,
        uid: 0,
        gid: 0,
        modified: Time::default(),
        xattrs: Vec::new(),
        sparse: None,
    }
}

/// The attributes that are kept, by their names in order.
fn xattrs(parent: BorrowedFd<'_>, name: &[u8], kind: Kind) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut found = Vec::new();
    for key in sys::xattr_names(parent, name)? {
        if is_kept(&key, kind)
            && let Some(value) = sys::xattr(parent, name, &key)?
        {
            found.push((key, value));
        }
    }
    found.sort();
    Ok(found)
}

/// Opens the regular file that was found; nothing else that may be there by now, which could wait or be a device.
fn open_file(parent: BorrowedFd<'_>, name: &[u8], status: &libc::stat) -> io::Result<File> {
    let fd = sys::open_child(parent, name, libc::O_NONBLOCK | libc::O_NOCTTY)?;
    let file = File::from(fd);
    let found = file.metadata()?;
    if found.is_file() && found.ino() == status.st_ino {
        return Ok(file);
    }
    Err(io::Error::from_raw_os_error(libc::ESTALE))
}
