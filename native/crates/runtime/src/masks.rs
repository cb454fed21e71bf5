//! Paths that a container may not see (masked) or may not write (read-only).

use crate::sys::{file, mount};
use crate::{devices, within};
use shoal_protocol::Failure;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Covers each path: a directory by an empty read-only one, anything else by /dev/null. What is not there is left so.
pub fn mask(root: BorrowedFd<'_>, paths: &[String]) -> Result<(), Failure> {
    let mut cover = Cover::default();
    each(root, paths, "masking", |target| {
        let tree = if file::is_dir(target)? {
            cover.directory()?
        } else {
            cover.file()?
        };
        mount::attach(tree.as_fd(), target)
    })
}

/// Makes each path, with all below it, read-only. What is not there is left so.
pub fn make_readonly(root: BorrowedFd<'_>, paths: &[String]) -> Result<(), Failure> {
    each(root, paths, "making read-only", |target| {
        let tree = mount::clone_tree(target, true)?;
        mount::set_attributes(tree.as_fd(), mount::ATTR_RDONLY, 0, 0, true)?;
        mount::attach(tree.as_fd(), target)
    })
}

fn each(
    root: BorrowedFd<'_>,
    paths: &[String],
    what: &str,
    mut act: impl FnMut(BorrowedFd<'_>) -> io::Result<()>,
) -> Result<(), Failure> {
    for path in paths {
        let doing = format!("{what} {path}");
        let parts = within::components(&doing, path)?;
        let found = within::find(root, &parts).map_err(|error| Failure::io(&doing, &error))?;
        if let Some(target) = found {
            act(target.as_fd()).map_err(|error| Failure::io(&doing, &error))?;
        }
    }
    Ok(())
}

/// One empty directory and one /dev/null for all covers of a container.
#[derive(Default)]
struct Cover {
    empty: Option<OwnedFd>,
    null: Option<OwnedFd>,
}

impl Cover {
    fn directory(&mut self) -> io::Result<OwnedFd> {
        let fresh = || -> io::Result<OwnedFd> {
            let draft = mount::Draft::new("tmpfs")?;
            draft.set("source", "tmpfs")?;
            draft.set("size", "0")?;
            draft.set("nr_inodes", "1")?;
            draft.mount(
                mount::ATTR_RDONLY | mount::ATTR_NOSUID | mount::ATTR_NODEV | mount::ATTR_NOEXEC,
            )
        };
        if let Some(empty) = &self.empty {
            // Kernels before 6.15 do not copy a detached mount: each cover is then a tmpfs of its own.
            return mount::clone_tree(empty.as_fd(), false).or_else(|_| fresh());
        }
        let first = fresh()?;
        let copy = mount::clone_tree(first.as_fd(), false).or_else(|_| fresh())?;
        self.empty = Some(first);
        Ok(copy)
    }

    fn file(&mut self) -> io::Result<OwnedFd> {
        let null = match self.null.take() {
            Some(null) => null,
            None => devices::null(libc::O_PATH)?,
        };
        let tree = mount::clone_tree(null.as_fd(), false)?;
        mount::set_attributes(tree.as_fd(), mount::ATTR_RDONLY, 0, 0, false)?;
        self.null = Some(null);
        Ok(tree)
    }
}
