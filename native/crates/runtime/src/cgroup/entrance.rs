//! A process that puts itself into its v1 groups, which costs none of the wait that being put there by another process does.
//!
//! A process id written to `cgroup.procs`, or that of another to `tasks`, takes the write side of the kernel's lock on thread groups: after
//! a pause one RCU grace period, 5 to 20 ms. A task that moves itself alone needs no such lock (kernel/cgroup/cgroup.c,
//! cgroup_procs_write_start); kernels that do not know this yet wait as before. docs/decisions/0008 has the figures.

use super::files::Files;
use crate::sys::file;
use shoal_protocol::Failure;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Where a v1 group lists threads, and takes them one by one. There is no such file in a v2 group.
const TASKS: &str = "tasks";
/// Means the writer.
const MYSELF: &[u8] = b"0";

/// Opens the entrances of those groups that are there. Whether a writer may enter is judged by who opened them.
pub(super) fn open(
    files: &dyn Files,
    dirs: impl Iterator<Item = PathBuf>,
) -> io::Result<Vec<OwnedFd>> {
    let mut entrances = Vec::new();
    for dir in dirs {
        match files.open(&dir.join(TASKS)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => entrances.push(other?),
        }
    }
    Ok(entrances)
}

/// Puts the calling process into the groups, in this order. It must have one thread: others would stay where they are.
pub(crate) fn enter(entrances: Vec<OwnedFd>) -> Result<(), Failure> {
    for entrance in entrances {
        file::write_all(entrance.as_fd(), MYSELF).map_err(|error| {
            // The path as the maker had it, as long as its /proc can be seen.
            let path = fs::read_link(file::proc_path(&entrance)).unwrap_or_default();
            let group = path.parent().unwrap_or(Path::new("")).display().to_string();
            super::not_entered(&format!("entering cgroup {group}"), &error)
        })?;
    }
    Ok(())
}
