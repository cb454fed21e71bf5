//! Stopping and continuing every process of a group at once.

use super::files::Files;
use crate::sys::{file, process};
use shoal_protocol::{Failure, FailureCode};
use std::io::{self, Read, Seek};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the processes of a group may take to stop; one in an uninterruptible wait cannot.
const FREEZE_TIMEOUT_MS: u64 = 10_000;
/// v1 has no event: the first pause between two looks, doubled up to `LOOK_MAX_US`.
const LOOK_MIN_US: u64 = 10;
const LOOK_MAX_US: u64 = 5_000;
/// v1 can hang in FREEZING while new processes are forked; every so many looks it is thawed for a moment, which helps.
const LOOKS_BEFORE_THAW: u32 = 50;
const THAW_MS: u64 = 10;

/// Freezes by the v1 freezer; `FREEZING` is asked for again until it is `FROZEN`, or everything runs again and it is an error.
pub fn freeze_v1(files: &dyn Files, dir: &Path) -> Result<(), Failure> {
    let state = dir.join("freezer.state");
    let doing = || format!("freezing cgroup {}", dir.display());
    let failed = |error: &io::Error| Failure::io(doing(), error);
    let deadline = Instant::now() + Duration::from_millis(FREEZE_TIMEOUT_MS);
    let mut pause_us = LOOK_MIN_US;
    let mut looks = 0;
    while Instant::now() < deadline {
        looks += 1;
        if looks % LOOKS_BEFORE_THAW == 0 {
            files
                .write(&state, "THAWED")
                .map_err(|error| failed(&error))?;
            std::thread::sleep(Duration::from_millis(THAW_MS));
        }
        files
            .write(&state, "FROZEN")
            .map_err(|error| failed(&error))?;
        let read = files.read(&state).map_err(|error| failed(&error))?;
        match read.trim() {
            "FROZEN" => return Ok(()),
            "FREEZING" => {}
            other => {
                return Err(Failure::new(
                    FailureCode::System,
                    doing(),
                    format!("unexpected state {other:?}"),
                ));
            }
        }
        std::thread::sleep(Duration::from_micros(pause_us));
        pause_us = (pause_us * 2).min(LOOK_MAX_US);
    }
    files
        .write(&state, "THAWED")
        .map_err(|error| failed(&error))?;
    Err(unstoppable(doing()))
}

/// Continues what `freeze_v1` stopped.
pub fn thaw_v1(files: &dyn Files, dir: &Path) -> Result<(), Failure> {
    files
        .write(&dir.join("freezer.state"), "THAWED")
        .map_err(|error| Failure::io(format!("thawing cgroup {}", dir.display()), &error))
}

/// Whether the group itself is frozen or on its way (not only an ancestor).
pub fn is_frozen_v1(files: &dyn Files, dir: &Path) -> bool {
    match files.read(&dir.join("freezer.self_freezing")) {
        Ok(text) => text.trim() == "1",
        // Kernels before 3.8 do not tell them apart.
        Err(_) => files
            .read(&dir.join("freezer.state"))
            .is_ok_and(|text| text.trim() != "THAWED"),
    }
}

/// Freezes by `cgroup.freeze` and waits for the event that says so.
pub fn freeze_v2(files: &dyn Files, dir: &Path) -> Result<(), Failure> {
    let doing = || format!("freezing cgroup {}", dir.display());
    let failed = |error: io::Error| Failure::io(doing(), &error);
    let events =
        file::open(&dir.join("cgroup.events").to_string_lossy(), libc::O_RDONLY).map_err(failed)?;
    files
        .write(&dir.join("cgroup.freeze"), "1")
        .map_err(failed)?;
    let deadline = Instant::now() + Duration::from_millis(FREEZE_TIMEOUT_MS);
    let mut events = std::fs::File::from(events);
    loop {
        let mut text = String::new();
        events.rewind().map_err(failed)?;
        events.read_to_string(&mut text).map_err(failed)?;
        if super::keyed(&text, "frozen") == 1 {
            return Ok(());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            thaw_v2(files, dir)?;
            return Err(unstoppable(doing()));
        }
        let mut fds = [libc::pollfd {
            fd: events.as_raw_fd(),
            events: libc::POLLPRI,
            revents: 0,
        }];
        process::poll(
            &mut fds,
            i32::try_from(left.as_millis().max(1)).unwrap_or(i32::MAX),
        )
        .map_err(failed)?;
    }
}

/// Continues what `freeze_v2` stopped.
pub fn thaw_v2(files: &dyn Files, dir: &Path) -> Result<(), Failure> {
    files
        .write(&dir.join("cgroup.freeze"), "0")
        .map_err(|error| Failure::io(format!("thawing cgroup {}", dir.display()), &error))
}

/// Whether the group itself is frozen or on its way.
pub fn is_frozen_v2(files: &dyn Files, dir: &Path) -> bool {
    files
        .read(&dir.join("cgroup.freeze"))
        .is_ok_and(|text| text.trim() == "1")
}

fn unstoppable(doing: String) -> Failure {
    Failure::new(
        FailureCode::System,
        doing,
        format!("a process did not stop within {FREEZE_TIMEOUT_MS} ms; all run again"),
    )
}

#[cfg(test)]
mod tests {
    use super::super::files::recording::Recording;
    use super::*;

    #[test]
    fn is_frozen_looks_at_the_group_itself() {
        for (held, want) in [
            (vec![("freezer.self_freezing", "1\n")], true),
            (
                vec![
                    ("freezer.self_freezing", "0\n"),
                    ("freezer.state", "FROZEN\n"),
                ],
                false,
            ),
            (vec![("freezer.state", "FREEZING\n")], true),
            (vec![("freezer.state", "THAWED\n")], false),
            (vec![], false),
        ] {
            let recording = Recording {
                contents: held.clone(),
                ..Recording::default()
            };
            assert_eq!(
                is_frozen_v1(&recording, Path::new("/c/f/a")),
                want,
                "{held:?}"
            );
        }
    }

    #[test]
    fn freeze_refuses_a_state_that_the_kernel_does_not_know() {
        let recording = Recording {
            contents: vec![("freezer.state", "THAWED\n")],
            ..Recording::default()
        };
        assert!(freeze_v1(&recording, Path::new("/c/f/a")).is_err());
        assert_eq!(recording.lines(), ["/c/f/a/freezer.state=FROZEN"]);
    }
}
