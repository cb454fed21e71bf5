//! Paths that a container may not see (masked) or may not write (read-only).

use crate::sys::{Calls, Change, Draft, mount};
use crate::{devices, within};
use shoal_protocol::Failure;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Covers each path: a directory by an empty read-only one, anything else by /dev/null. What is not there is left so.
pub fn mask(calls: &dyn Calls, root: BorrowedFd<'_>, paths: &[Vec<String>]) -> Result<(), Failure> {
    let mut cover = Cover {
        calls,
        directory: None,
        file: None,
    };
    each(calls, root, paths, "masking", |target| {
        if calls.stat(target)?.is_dir() {
            cover.directory(target)
        } else {
            cover.file(target)
        }
    })
}

/// Makes each path, with all below it, read-only. What is not there is left so.
pub fn make_readonly(
    calls: &dyn Calls,
    root: BorrowedFd<'_>,
    paths: &[Vec<String>],
) -> Result<(), Failure> {
    each(calls, root, paths, "making read-only", |target| {
        let tree = calls.clone_tree(target, true)?;
        calls.change_mount(tree.as_fd(), &READ_ONLY, true)?;
        calls.attach(tree.as_fd(), target)
    })
}

const READ_ONLY: Change<'static> = Change {
    set: mount::ATTR_RDONLY,
    clear: 0,
    propagation: 0,
    owners: None,
};

fn each(
    calls: &dyn Calls,
    root: BorrowedFd<'_>,
    paths: &[Vec<String>],
    what: &str,
    mut act: impl FnMut(BorrowedFd<'_>) -> io::Result<()>,
) -> Result<(), Failure> {
    for parts in paths {
        let done = within::find(calls, root, parts)
            .and_then(|found| found.map_or(Ok(()), |target| act(target.as_fd())));
        done.map_err(|error| Failure::io(format!("{what} /{}", parts.join("/")), &error))?;
    }
    Ok(())
}

/// One empty directory and one /dev/null for all covers of a container, made when first needed. The first cover is itself, each other one a
/// copy of it: one that was only copied would have to be taken apart, for which the kernel waits for an RCU grace period.
struct Cover<'c> {
    calls: &'c dyn Calls,
    directory: Option<OwnedFd>,
    file: Option<OwnedFd>,
}

impl Cover<'_> {
    fn directory(&mut self, target: BorrowedFd<'_>) -> io::Result<()> {
        Self::put(self.calls, &mut self.directory, target, || {
            let draft = Draft::new(self.calls, "tmpfs")?;
            draft.set("source", "tmpfs")?;
            draft.set("size", "0")?;
            draft.set("nr_inodes", "1")?;
            draft.mount(
                mount::ATTR_RDONLY | mount::ATTR_NOSUID | mount::ATTR_NODEV | mount::ATTR_NOEXEC,
            )
        })
    }

    fn file(&mut self, target: BorrowedFd<'_>) -> io::Result<()> {
        Self::put(self.calls, &mut self.file, target, || {
            let null = devices::null_by(self.calls, libc::O_PATH)?;
            let tree = self.calls.clone_tree(null.as_fd(), false)?;
            self.calls.change_mount(tree.as_fd(), &READ_ONLY, false)?;
            Ok(tree)
        })
    }

    fn put(
        calls: &dyn Calls,
        held: &mut Option<OwnedFd>,
        target: BorrowedFd<'_>,
        fresh: impl Fn() -> io::Result<OwnedFd>,
    ) -> io::Result<()> {
        if let Some(first) = held {
            let copy = calls.clone_tree(first.as_fd(), false)?;
            return calls.attach(copy.as_fd(), target);
        }
        let first = fresh()?;
        calls.attach(first.as_fd(), target)?;
        *held = Some(first);
        Ok(())
    }
}
