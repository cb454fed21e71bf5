//! Sandboxes as files: each network namespace is pinned by a bind mount at DIRECTORY/NAME, so that it outlives the core.

use crate::namespace;
use crate::netlink::socket::RouteSocket;
use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Longest name of a sandbox.
pub const NAME_BYTES_MAX: usize = 64;

/// The directory of pins.
pub struct Pins {
    directory: PathBuf,
}

/// A pinned namespace, opened.
pub struct Pinned {
    pub namespace: OwnedFd,
    pub socket: RouteSocket,
    /// Tells this namespace from another that may be pinned by the same name later.
    pub inode: u64,
}

impl Pins {
    /// Makes the directory a private mount, where it is not one, and clears files that pin nothing (left by a reboot or by a crash before the mount).
    pub fn prepare(directory: &Path) -> io::Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
        let directory = directory.canonicalize()?;
        let path = c_path(&directory)?;
        if !is_mount_point(&directory)? {
            mount(&path, &path, libc::MS_BIND)?;
        }
        // Private: a pin that other mount namespaces received as a copy would keep a removed sandbox alive.
        mount(c"none", &path, libc::MS_PRIVATE)?;
        let pins = Self { directory };
        for name in pins.entries()? {
            if !is_pin(&pins.path(&name))? {
                remove_file(&pins.path(&name))?;
            }
        }
        Ok(pins)
    }

    /// Names of all pinned sandboxes, sorted.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for name in self.entries()? {
            if is_pin(&self.path(&name))? {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// The namespace that the pin holds now; None when there is no pin.
    pub fn inode(&self, name: &str) -> io::Result<Option<u64>> {
        let path = self.path(name);
        if !is_pin(&path)? {
            return Ok(None);
        }
        Ok(Some(fs::metadata(&path)?.ino()))
    }

    /// Opens a pinned sandbox; None when there is no such pin.
    pub fn open(&self, name: &str) -> io::Result<Option<Pinned>> {
        if self.inode(name)?.is_none() {
            return Ok(None);
        }
        let namespace = fs::File::open(self.path(name))?;
        let inode = namespace.metadata()?.ino();
        let namespace = OwnedFd::from(namespace);
        let socket = namespace::inside(&namespace, RouteSocket::open)?;
        Ok(Some(Pinned {
            namespace,
            socket,
            inode,
        }))
    }

    /// Makes a new namespace, without IPv6, and pins it. Replaces a file that pins nothing.
    pub fn create(&self, name: &str) -> io::Result<()> {
        let path = self.path(name);
        fs::OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .open(&path)?;
        let target = c_path(&path)?;
        namespace::inside_new(|| {
            for interface in ["all", "default"] {
                namespace::disable_ipv6(interface)?;
            }
            // thread-self: the process's other threads are in another namespace.
            mount(c"/proc/thread-self/ns/net", &target, libc::MS_BIND)
        })
    }

    /// Takes the pin away; nothing to do when there is none.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        let path = self.path(name);
        let target = c_path(&path)?;
        while is_pin(&path)? {
            // SAFETY: the path is NUL-terminated and lives over the call.
            if unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW) }
                < 0
            {
                return Err(io::Error::last_os_error());
            }
        }
        remove_file(&path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn entries(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            // What is not a name of ours was put there by somebody else and is left alone.
            if let Ok(name) = entry.file_name().into_string()
                && is_name(&name)
                && !entry.file_type()?.is_dir()
            {
                names.push(name);
            }
        }
        Ok(names)
    }
}

/// Whether a name may be a sandbox's: letters, digits, `_`, `.` and `-`, not beginning with `.` or `-`.
pub fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && plain(name.as_bytes()[0])
        && name
            .bytes()
            .all(|byte| plain(byte) || byte == b'.' || byte == b'-')
}

/// Whether the file is a mounted namespace. A missing file is none.
fn is_pin(path: &Path) -> io::Result<bool> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    // SAFETY: statfs is plain data.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open and the struct is writable.
    if unsafe { libc::fstatfs(file.as_fd().as_raw_fd(), &raw mut stat) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(stat.f_type == libc::NSFS_MAGIC)
}

/// Whether something is mounted at the path, by the list of this process's mounts.
fn is_mount_point(path: &Path) -> io::Result<bool> {
    let wanted = path.as_os_str().as_bytes();
    let list = fs::read("/proc/thread-self/mountinfo")?;
    Ok(list
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .any(|target| unescape(target) == wanted))
}

/// mountinfo writes blanks and backslashes as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        match after {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..] if byte == b'\\' => {
                plain.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                rest = tail;
            }
            _ => {
                plain.push(byte);
                rest = after;
            }
        }
    }
    plain
}

fn mount(source: &CStr, target: &CStr, flags: libc::c_ulong) -> io::Result<()> {
    // SAFETY: both paths are NUL-terminated and live over the call; bind and propagation take no type and no data.
    let result = unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            std::ptr::null(),
            flags,
            std::ptr::null(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the path holds a NUL byte"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_the_directory_are_none() {
        for (name, good) in [
            ("ov-001000", true),
            ("a.b_c-d", true),
            ("", false),
            (".", false),
            ("..", false),
            ("-x", false),
            ("a/b", false),
            ("a b", false),
            (&"x".repeat(65), false),
        ] {
            assert_eq!(is_name(name), good, "{name:?}");
        }
    }

    #[test]
    fn mountinfo_escapes_are_undone() {
        for (field, plain) in [
            ("/a\\040b", "/a b"),
            ("/a\\134b", "/a\\b"),
            ("/a\\0", "/a\\0"),
            ("", ""),
        ] {
            assert_eq!(unescape(field.as_bytes()), plain.as_bytes(), "{field}");
        }
    }
}
