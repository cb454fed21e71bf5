//! Control groups v2: one directory, entered by clone3, limits in the unified files.

use super::files::{self, Files};
use super::{Driver, OomWatch, keyed, open_dir};
use crate::sys::{c_string, check, file};
use shoal_protocol::{Failure, oci::Resources};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

/// The v2 driver.
pub struct V2 {
    pub mount: PathBuf,
    pub files: Box<dyn Files>,
}

impl V2 {
    fn dir(&self, path: &str) -> PathBuf {
        self.mount.join(path.trim_start_matches('/'))
    }
}

/// The weight (1..10000) that stands for v1 shares (2..262144).
pub fn weight_of_shares(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

impl Driver for V2 {
    fn create(&self, path: &str, resources: &Resources) -> Result<(), Failure> {
        let mut enabled = String::from("+memory +pids +cpu");
        if resources.cpu.as_ref().is_some_and(|cpu| cpu.cpus.is_some()) {
            enabled.push_str(" +cpuset");
        }
        let dir = files::make_group(self.files.as_ref(), &self.mount, path, &mut |parent| {
            self.files
                .write(&parent.join("cgroup.subtree_control"), &enabled)
        })
        .map_err(|error| {
            Failure::io(
                format!("making cgroup {}", self.dir(path).display()),
                &error,
            )
        })?;
        for (name, value) in limits(resources) {
            match self.files.write(&dir.join(name), &value) {
                Err(error)
                    if name == "memory.swap.max" && error.kind() == io::ErrorKind::NotFound => {}
                other => other.map_err(|error| {
                    Failure::io(
                        format!("writing {value:?} to {}", dir.join(name).display()),
                        &error,
                    )
                })?,
            }
        }
        Ok(())
    }

    fn clone_target(&self, path: &str) -> Result<Option<OwnedFd>, Failure> {
        open_dir(&self.dir(path)).map(Some)
    }

    fn attach(&self, _path: &str, _pid: i32) -> Result<(), Failure> {
        Ok(())
    }

    fn directories(&self, path: &str) -> Vec<PathBuf> {
        vec![self.dir(path)]
    }

    fn oom_kills(&self, path: &str) -> u64 {
        self.files
            .read(&self.dir(path).join("memory.events"))
            .map_or(0, |text| keyed(&text, "oom_kill"))
    }

    fn oom_watch(&self, path: &str) -> Option<OomWatch> {
        let events = c_string(
            self.dir(path)
                .join("memory.events")
                .to_string_lossy()
                .as_bytes(),
        )
        .ok()?;
        let inotify = file::new_fd(
            // SAFETY: no pointers.
            unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) }.into(),
        )
        .ok()?;
        check(
            // SAFETY: the path is NUL-terminated and lives over the call.
            unsafe {
                libc::inotify_add_watch(inotify.as_raw_fd(), events.as_ptr(), libc::IN_MODIFY)
            }
            .into(),
        )
        .ok()?;
        Some(OomWatch {
            event: inotify,
            _held: None,
        })
    }

    fn views(&self, _resources: &Resources) -> Option<Vec<(String, String)>> {
        None
    }

    /// Device rules are eBPF programs here, which this driver does not load: the root is mounted nodev in their place.
    fn limits_devices(&self) -> bool {
        false
    }
}

fn limits(resources: &Resources) -> Vec<(&'static str, String)> {
    let or_max = |value: i64| {
        if value < 0 {
            "max".to_owned()
        } else {
            value.to_string()
        }
    };
    let mut files = Vec::new();
    if let Some(memory) = &resources.memory {
        if let Some(limit) = memory.limit {
            files.push(("memory.max", or_max(limit)));
        }
        if let Some(reservation) = memory.reservation {
            files.push(("memory.low", or_max(reservation)));
        }
        if let Some(swap) = memory.swap {
            // v2 counts swap alone, v1 (and the configuration) memory and swap together.
            let alone = if swap < 0 {
                -1
            } else {
                swap - memory.limit.unwrap_or(0).max(0)
            };
            files.push((
                "memory.swap.max",
                if swap < 0 {
                    "max".to_owned()
                } else {
                    alone.max(0).to_string()
                },
            ));
        }
    }
    if let Some(cpu) = &resources.cpu {
        if let Some(shares) = cpu.shares.filter(|shares| *shares > 0) {
            files.push(("cpu.weight", weight_of_shares(shares).to_string()));
        }
        if let Some(quota) = cpu.quota.filter(|quota| *quota != 0) {
            files.push((
                "cpu.max",
                format!(
                    "{} {}",
                    or_max(quota),
                    cpu.period.filter(|period| *period > 0).unwrap_or(100_000)
                ),
            ));
        }
        if let Some(cpus) = &cpu.cpus {
            files.push(("cpuset.cpus", cpus.clone()));
        }
    }
    if let Some(limit) = resources.pids.as_ref().and_then(|pids| pids.limit) {
        files.push((
            "pids.max",
            if limit > 0 {
                limit.to_string()
            } else {
                "max".to_owned()
            },
        ));
    }
    files
}

/// How the recording writes one line.
#[cfg(test)]
fn line(dir: &std::path::Path, name: &str, value: &str) -> String {
    format!("{}={value}", dir.join(name).display())
}

#[cfg(test)]
mod tests {
    use super::super::files::recording::Recording;
    use super::*;
    use shoal_protocol::oci::{Cpu, Memory, Pids};
    use std::path::Path;

    #[test]
    fn create_enables_controllers_above_and_writes_limits() {
        let recording = Recording::default();
        let driver = V2 {
            mount: "/c".into(),
            files: Box::new(recording.clone()),
        };
        let resources = Resources {
            memory: Some(Memory {
                limit: Some(100),
                reservation: None,
                swap: Some(150),
                ..Memory::default()
            }),
            cpu: Some(Cpu {
                shares: Some(1024),
                quota: Some(-1),
                period: None,
                cpus: None,
                ..Cpu::default()
            }),
            pids: Some(Pids { limit: Some(0) }),
            ..Resources::default()
        };
        driver.create("/p/a", &resources).expect("created");
        let dir = Path::new("/c/p/a");
        assert_eq!(
            recording.lines(),
            [
                line(
                    Path::new("/c"),
                    "cgroup.subtree_control",
                    "+memory +pids +cpu"
                ),
                "mkdir /c/p".to_owned(),
                line(
                    Path::new("/c/p"),
                    "cgroup.subtree_control",
                    "+memory +pids +cpu"
                ),
                "mkdir /c/p/a".to_owned(),
                line(dir, "memory.max", "100"),
                line(dir, "memory.swap.max", "50"),
                line(dir, "cpu.weight", "39"),
                line(dir, "cpu.max", "max 100000"),
                line(dir, "pids.max", "max"),
            ]
        );
    }

    #[test]
    fn weight_of_shares_spans_the_range() {
        assert_eq!([2, 1024, 262_144].map(weight_of_shares), [1, 39, 10_000]);
    }
}
