//! Signals for everything in a group, and the end of the group.

use super::files::Kernel;
use super::group::{pids, remove_tree};
use crate::sys::{is, process};
use shoal_protocol::Failure;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long the processes of a container may take to be gone after SIGKILL.
pub const REMOVE_TIMEOUT_MS: u64 = 10_000;
/// How often processes are looked for again while they fork faster than they are signalled.
const ROUNDS_MAX: u32 = 64;
/// First and longest pause between two attempts to remove a group that the kernel still calls busy.
const RETRY_MIN_US: u64 = 50;
const RETRY_MAX_US: u64 = 20_000;
/// Longest wait for the processes that were killed before they are looked for again.
const GONE_LOOK_MS: u128 = 200;

/// Sends a signal to every process of the groups; each is told apart from a reused pid by looking again once it is pinned.
/// With `still` the groups are frozen: no pid can be reused, and none is looked for again.
pub fn signal_all(dirs: &[PathBuf], signal: i32, still: bool) {
    for pid in pids(dirs) {
        let Ok(pinned) = process::pidfd(pid) else {
            continue;
        };
        if still || pids(dirs).binary_search(&pid).is_ok() {
            // A process that ended meanwhile is what was wanted, or nothing to signal.
            drop(process::signal_pidfd(pinned.as_fd(), signal));
        }
    }
}

/// Kills everything in the groups, again as long as something new is found there.
pub fn kill_rounds(dirs: &[PathBuf]) {
    for _ in 0..ROUNDS_MAX {
        let left = pids(dirs);
        if left.is_empty() {
            return;
        }
        signal_all(dirs, libc::SIGKILL, false);
        wait_gone(
            &left,
            Instant::now() + Duration::from_millis(REMOVE_TIMEOUT_MS),
        );
    }
}

/// Kills what is left in the groups and removes them. Succeeds when there are none.
pub fn destroy(dirs: &[PathBuf], kill: &dyn Fn()) -> Result<(), Failure> {
    let deadline = Instant::now() + Duration::from_millis(REMOVE_TIMEOUT_MS);
    let mut pause_us = RETRY_MIN_US;
    loop {
        let mut last = None;
        for dir in dirs {
            if let Err(error) = remove_tree(&Kernel, dir) {
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
        let left = pids(dirs);
        if !left.is_empty() {
            kill();
            wait_gone(&left, deadline);
        }
        // A dying process leaves its group a moment after it can be waited for; v1 has no event for that.
        std::thread::sleep(Duration::from_micros(pause_us));
        pause_us = (pause_us * 2).min(RETRY_MAX_US);
    }
}

/// Waits until the processes are gone, at most a moment each: one stuck in the kernel shows as EBUSY afterwards.
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
        let wait_ms = i32::try_from(left.as_millis().min(GONE_LOOK_MS)).unwrap_or(0);
        if process::poll(&mut fds, wait_ms).is_err() {
            return;
        }
    }
}
