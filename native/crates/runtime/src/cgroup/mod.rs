//! Control groups of a container: which layout the machine has, and one driver for each.

pub mod detect;
pub mod files;
pub mod v1;
pub mod v2;

use crate::sys::{file, is, process};
use crate::within;
use detect::{Layout, Mode};
use files::{Files, Kernel};
use shoal_protocol::{Failure, oci::Resources};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long the processes of a container may take to be gone after SIGKILL.
pub const REMOVE_TIMEOUT_MS: u64 = 10_000;

/// What a container needs of control groups; `path` is absolute from each hierarchy's mount.
pub trait Driver: Send + Sync {
    /// Makes the group with its limits. The group must not be there with processes in it.
    fn create(&self, path: &str, resources: &Resources) -> Result<(), Failure>;
    /// A descriptor to clone straight into, where the layout can (v2).
    fn clone_target(&self, path: &str) -> Result<Option<OwnedFd>, Failure>;
    /// Puts a process in (v1; nothing to do where `clone_target` gave a descriptor).
    fn attach(&self, path: &str, pid: i32) -> Result<(), Failure>;
    /// The directories of the group, one a hierarchy.
    fn directories(&self, path: &str) -> Vec<PathBuf>;
    /// How often the kernel has killed a process of the group for memory.
    fn oom_kills(&self, path: &str) -> u64;
    /// A descriptor that becomes readable when memory ran out; None where the kernel cannot tell.
    fn oom_watch(&self, path: &str) -> Option<OomWatch>;
    /// What is mounted in a container at /sys/fs/cgroup: (directory name, mount options), or None for a single v2 mount.
    fn views(&self, resources: &Resources) -> Option<Vec<(String, String)>>;
    /// Whether device access is limited by this driver.
    fn limits_devices(&self) -> bool;
}

/// What `oom_watch` needs to keep open.
pub struct OomWatch {
    pub event: OwnedFd,
    pub(crate) _held: Option<OwnedFd>,
}

/// The driver for this machine.
pub fn driver(layout: &Layout) -> Box<dyn Driver> {
    driver_with(layout, Box::new(Kernel))
}

fn driver_with(layout: &Layout, files: Box<dyn Files>) -> Box<dyn Driver> {
    match (&layout.mode, &layout.unified) {
        (Mode::V2, Some(mount)) => Box::new(v2::V2 {
            mount: mount.clone(),
            files,
        }),
        _ => Box::new(v1::V1 {
            hierarchies: layout.hierarchies.clone(),
            files,
        }),
    }
}

/// Refuses a path that could leave the hierarchy, naming it.
pub fn check_path(path: &str) -> Result<(), Failure> {
    let parts = within::components("reading linux.cgroupsPath", path)?;
    if parts.is_empty() {
        return Err(Failure::invalid(
            "reading linux.cgroupsPath",
            "it is the root of the hierarchy; name a group of the container's own",
        ));
    }
    Ok(())
}

/// Every process of the group (and groups below it), in the caller's pid namespace.
pub fn pids(driver: &dyn Driver, path: &str) -> Vec<i32> {
    let mut found = Vec::new();
    for dir in driver.directories(path) {
        collect(&dir, &mut found);
    }
    found.sort_unstable();
    found.dedup();
    found
}

fn collect(dir: &std::path::Path, found: &mut Vec<i32>) {
    if let Ok(text) = std::fs::read_to_string(dir.join("cgroup.procs")) {
        found.extend(
            text.lines()
                .filter_map(|line| line.parse::<i32>().ok())
                .filter(|pid| *pid > 0),
        );
    }
    for below in subgroups(dir) {
        collect(&below, found);
    }
}

fn subgroups(dir: &std::path::Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Sends a signal to every process of the group; each is told apart from a reused pid by looking again once it is pinned.
pub fn signal_all(driver: &dyn Driver, path: &str, signal: i32) {
    for pid in pids(driver, path) {
        let Ok(pinned) = process::pidfd(pid) else {
            continue;
        };
        if pids(driver, path).binary_search(&pid).is_ok() {
            // A process that ended meanwhile is what was wanted, or nothing to signal.
            drop(process::signal_pidfd(pinned.as_fd(), signal));
        }
    }
}

/// Kills what is left in the group and removes it. Succeeds when there is no such group.
pub fn destroy(driver: &dyn Driver, path: &str) -> Result<(), Failure> {
    let deadline = Instant::now() + Duration::from_millis(REMOVE_TIMEOUT_MS);
    let mut pause_ms = 1;
    loop {
        let left = pids(driver, path);
        if !left.is_empty() {
            signal_all(driver, path, libc::SIGKILL);
            wait_gone(&left, deadline);
        }
        let mut last = None;
        for dir in driver.directories(path) {
            if let Err(error) = remove_tree(&dir) {
                last = Some((dir, error));
            }
        }
        let Some((dir, error)) = last else {
            return Ok(());
        };
        if !is(&error, libc::EBUSY) || Instant::now() > deadline {
            return Err(Failure::io(
                format!("removing cgroup {}", dir.display()),
                &error,
            ));
        }
        // A dying process leaves its group a moment after it can be waited for; v1 has no event for that.
        std::thread::sleep(Duration::from_millis(pause_ms));
        pause_ms = (pause_ms * 2).min(50);
    }
}

fn wait_gone(pids: &[i32], deadline: Instant) {
    for pid in pids {
        let Ok(pinned) = process::pidfd(*pid) else {
            continue;
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let mut fds = [libc::pollfd {
            fd: pinned.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        }];
        // Bounded by the deadline: a process stuck in the kernel shows as EBUSY afterwards.
        if process::poll(
            &mut fds,
            i32::try_from(left.as_millis().min(200)).unwrap_or(200),
        )
        .is_err()
        {
            return;
        }
    }
}

fn remove_tree(dir: &std::path::Path) -> std::io::Result<()> {
    match std::fs::remove_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) if is(&error, libc::EBUSY) => {
            for below in subgroups(dir) {
                remove_tree(&below)?;
            }
            match std::fs::remove_dir(dir) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                other => other,
            }
        }
        other => other,
    }
}

/// `key N` in a flat-keyed file; 0 when absent.
fn keyed(text: &str, key: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(name, _)| *name == key)
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}

fn open_dir(dir: &std::path::Path) -> Result<OwnedFd, Failure> {
    file::open(&dir.to_string_lossy(), libc::O_PATH | libc::O_DIRECTORY)
        .map_err(|error| Failure::io(format!("opening cgroup {}", dir.display()), &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_path_refuses_escapes() {
        assert!(check_path("/shoal/a").is_ok());
        for bad in ["", "a", "/", "/a/../..", "//"] {
            assert!(check_path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn keyed_reads_the_kernels_tables() {
        let text = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        assert_eq!((keyed(text, "oom_kill"), keyed(text, "nope")), (3, 0));
    }
}
