//! Finding and making paths inside a container's root, always by descriptor, so that nothing in an image leads outside.

use crate::sys::{self, Calls, file};
use shoal_protocol::Failure;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Most dangling links that one path may lead through, as the kernel's own limit.
const LINKS_MAX: u32 = 40;

/// What a mount point must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Directory,
    File,
}

/// The components of an absolute path; `..` and NUL are refused rather than interpreted.
pub fn components(doing: &str, path: &str) -> Result<Vec<String>, Failure> {
    let count = check(|| doing.to_owned(), path)?;
    let mut parts = Vec::with_capacity(count);
    parts.extend(named(path).map(str::to_owned));
    Ok(parts)
}

/// Checks a path as `components` does; gives how many it has. What is being done is only asked for a refusal.
pub fn check(doing: impl Fn() -> String, path: &str) -> Result<usize, Failure> {
    let refuse = |why: &str| Err(Failure::invalid(doing(), format!("path {path:?} {why}")));
    if !path.starts_with('/') {
        return refuse("is not absolute; begin it with /");
    }
    if path.contains('\0') {
        return refuse("holds a NUL byte");
    }
    if named(path).any(|part| part == "..") {
        return refuse("holds `..`; write the path it means");
    }
    Ok(named(path).count())
}

/// The components that say where a path leads.
fn named(path: &str) -> impl Iterator<Item = &str> {
    path.split('/')
        .filter(|part| !part.is_empty() && *part != ".")
}

/// The components of a path as seen from `/`, with `.` and `..` taken for what they mean there; links are not looked at.
pub fn clean(path: &str) -> Vec<String> {
    behind_link(&[], path)
}

/// Opens what is there (O_PATH), following links inside the root only. None when nothing is.
pub fn find(
    calls: &dyn Calls,
    root: BorrowedFd<'_>,
    parts: &[String],
) -> io::Result<Option<OwnedFd>> {
    match calls.open_at2(root, &relative(parts), libc::O_PATH, file::IN_ROOT) {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if sys::is(&error, libc::ENOENT) || sys::is(&error, libc::ENOTDIR) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Opens a mount point (O_PATH), making it and the directories above it (0755, root's) where they are missing.
/// A link that leads to nothing (images have them at /etc/resolv.conf) is followed inside the root and its target made.
pub fn make(
    calls: &dyn Calls,
    root: BorrowedFd<'_>,
    parts: &[String],
    kind: Kind,
) -> io::Result<OwnedFd> {
    make_through(calls, root, parts, kind, LINKS_MAX)
}

/// As `make`; the second is whether it was there before.
pub fn make_or_find(
    calls: &dyn Calls,
    root: BorrowedFd<'_>,
    parts: &[String],
    kind: Kind,
) -> io::Result<(OwnedFd, bool)> {
    if let Some(found) = find(calls, root, parts)? {
        return Ok((found, true));
    }
    make_missing(calls, root, parts, kind, LINKS_MAX).map(|made| (made, false))
}

/// As `make_or_find`, but a link at the last component is itself the mount point.
pub fn make_nofollow(
    calls: &dyn Calls,
    root: BorrowedFd<'_>,
    parts: &[String],
    kind: Kind,
) -> io::Result<(OwnedFd, bool)> {
    let Some((name, above)) = parts.split_last() else {
        return Err(io::Error::from_raw_os_error(libc::ENOENT));
    };
    let parent = make(calls, root, above, Kind::Directory)?;
    match calls.open_at(parent.as_fd(), name, libc::O_PATH | libc::O_NOFOLLOW, 0) {
        Ok(found) => Ok((found, true)),
        Err(error) if sys::is(&error, libc::ENOENT) => {
            make_at(calls, parent.as_fd(), name, kind).map(|made| (made, false))
        }
        Err(error) => Err(error),
    }
}

fn make_through(
    calls: &dyn Calls,
    root: BorrowedFd<'_>,
    parts: &[String],
    kind: Kind,
    links: u32,
) -> io::Result<OwnedFd> {
    match find(calls, root, parts)? {
        Some(found) => Ok(found),
        None => make_missing(calls, root, parts, kind, links),
    }
}

fn make_missing(
    calls: &dyn Calls,
    root: BorrowedFd<'_>,
    parts: &[String],
    kind: Kind,
    links: u32,
) -> io::Result<OwnedFd> {
    let Some((name, above)) = parts.split_last() else {
        return Err(io::Error::from_raw_os_error(libc::ENOENT));
    };
    let parent = make_through(calls, root, above, Kind::Directory, links)?;
    match make_at(calls, parent.as_fd(), name, kind) {
        Err(error) if sys::is(&error, libc::EEXIST) => {
            if links == 0 {
                return Err(io::Error::from_raw_os_error(libc::ELOOP));
            }
            let target = calls.read_link_at(parent.as_fd(), name)?;
            make_through(calls, root, &behind_link(above, &target), kind, links - 1)
        }
        other => other,
    }
}

fn make_at(
    calls: &dyn Calls,
    parent: BorrowedFd<'_>,
    name: &str,
    kind: Kind,
) -> io::Result<OwnedFd> {
    match kind {
        Kind::Directory => {
            calls.make_dir_at(parent, name, 0o755)?;
            calls.open_at(
                parent,
                name,
                libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW,
                0,
            )
        }
        Kind::File => {
            let flags = libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_WRONLY;
            drop(calls.open_at(parent, name, flags, 0o755)?);
            calls.open_at(parent, name, libc::O_PATH | libc::O_NOFOLLOW, 0)
        }
    }
}

/// Where a link in `above` leads, never over the root: every lookup of the result is again confined to it.
fn behind_link(above: &[String], target: &str) -> Vec<String> {
    let mut parts = if target.starts_with('/') {
        Vec::new()
    } else {
        above.to_vec()
    };
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name.to_owned()),
        }
    }
    parts
}

/// Like `make` for a directory, but no component may be a symlink: for the places whose identity matters (/proc, /sys, /dev).
pub fn make_real_directory(
    calls: &dyn Calls,
    root: BorrowedFd<'_>,
    parts: &[String],
) -> io::Result<OwnedFd> {
    let open = |path: &str| {
        calls.open_at2(
            root,
            path,
            libc::O_PATH | libc::O_DIRECTORY,
            libc::RESOLVE_BENEATH | file::NO_SYMLINKS,
        )
    };
    match open(&relative(parts)) {
        Err(error) if sys::is(&error, libc::ENOENT) => {
            let Some((name, above)) = parts.split_last() else {
                return Err(error);
            };
            let parent = make_real_directory(calls, root, above)?;
            calls.make_dir_at(parent.as_fd(), name, 0o755)?;
            open(&relative(parts))
        }
        other => other,
    }
}

fn relative(parts: &[String]) -> String {
    if parts.is_empty() {
        ".".to_owned()
    } else {
        parts.join("/")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn components_refuses_what_leaves() {
        assert_eq!(components("x", "//a/./b/").expect("parts"), ["a", "b"]);
        for bad in ["", "a", "/a/../b", "/..", "/a\0"] {
            assert!(components("x", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn make_stays_inside_the_root_through_links() {
        let dir = std::env::temp_dir().join(format!("shoal-within-{}", std::process::id()));
        let root_path = dir.join("root");
        std::fs::create_dir_all(root_path.join("real")).expect("dirs");
        std::fs::create_dir_all(dir.join("outside")).expect("dirs");
        symlink(dir.join("outside"), root_path.join("away")).expect("link");
        symlink("../../../../outside", root_path.join("up")).expect("link");
        symlink("/real", root_path.join("inside")).expect("link");
        let root = file::open(
            root_path.to_str().expect("utf-8"),
            libc::O_PATH | libc::O_DIRECTORY,
        )
        .expect("root");
        let parts = |path: &str| components("x", path).expect("parts");
        drop(
            make(
                &sys::Kernel,
                root.as_fd(),
                &parts("/inside/new/deep"),
                Kind::Directory,
            )
            .expect("through an inner link"),
        );
        assert!(root_path.join("real/new/deep").is_dir());
        // What a dangling link names is made inside the root; nothing appears outside.
        drop(
            make(
                &sys::Kernel,
                root.as_fd(),
                &parts("/away/x"),
                Kind::Directory,
            )
            .expect("inside"),
        );
        drop(make(&sys::Kernel, root.as_fd(), &parts("/up/x"), Kind::File).expect("inside"));
        assert!(root_path.join("outside/x").is_file());
        symlink("loop-b", root_path.join("loop-a")).expect("link");
        symlink("loop-a", root_path.join("loop-b")).expect("link");
        assert!(
            make(
                &sys::Kernel,
                root.as_fd(),
                &parts("/loop-a/x"),
                Kind::Directory
            )
            .is_err()
        );
        assert_eq!(
            std::fs::read_dir(dir.join("outside"))
                .expect("list")
                .count(),
            0
        );
        let error =
            make_real_directory(&sys::Kernel, root.as_fd(), &parts("/inside")).expect_err("a link");
        assert!(
            sys::is(&error, libc::ELOOP) || sys::is(&error, libc::ENOTDIR),
            "{error}"
        );
        std::fs::remove_dir_all(&dir).expect("clean");
    }
}
