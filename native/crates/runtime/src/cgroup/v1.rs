//! Control groups v1 (and hybrid): one directory in each hierarchy that is needed, and in no other.

use super::detect::Hierarchy;
use super::files::{self, Files};
use super::{Driver, OomWatch, keyed};
use crate::sys::{self, file, process};
use shoal_protocol::{Failure, oci::Resources};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Always used; each further one costs about 60 us a container. blkio, hugetlb, net_* and perf_event are left alone.
const CONTROLLERS: [&str; 6] = ["memory", "pids", "cpu", "cpuacct", "devices", "freezer"];

/// Docker's default: nodes may be made, and these used.
const DEVICES: [&str; 11] = [
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:1 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
];

/// The v1 driver.
pub struct V1 {
    pub hierarchies: Vec<Hierarchy>,
    pub files: Box<dyn Files>,
}

impl V1 {
    fn used(&self) -> impl Iterator<Item = &Hierarchy> {
        self.hierarchies.iter().filter(|hierarchy| {
            hierarchy
                .controllers
                .iter()
                .any(|name| CONTROLLERS.contains(&name.as_str()) || name == "cpuset")
        })
    }

    fn directory(&self, controller: &str, path: &str) -> Option<PathBuf> {
        let hierarchy = self
            .hierarchies
            .iter()
            .find(|hierarchy| hierarchy.controllers.iter().any(|name| name == controller))?;
        Some(join(&hierarchy.mount, path))
    }

    /// Whether a container with these limits has a directory in this hierarchy.
    fn wanted(hierarchy: &Hierarchy, cpuset: bool) -> bool {
        hierarchy
            .controllers
            .iter()
            .any(|name| CONTROLLERS.contains(&name.as_str()) || (cpuset && name == "cpuset"))
    }

    /// A group's cpuset is empty until it is given its parent's, and takes no process while it is.
    fn inherit_cpuset(&self, dir: &Path) -> io::Result<()> {
        let Some(parent) = dir.parent() else {
            return Ok(());
        };
        for name in ["cpuset.cpus", "cpuset.mems"] {
            if self.files.read(&dir.join(name))?.trim().is_empty() {
                let value = self.files.read(&parent.join(name))?;
                self.files.write(&dir.join(name), value.trim())?;
            }
        }
        Ok(())
    }

    fn limits(&self, dir: &Path, controller: &str, resources: &Resources) -> Result<(), Failure> {
        let write = |name: &str, value: &str| {
            self.files
                .write(&dir.join(name), value)
                .map_err(|error| failed(&dir.join(name), value, &error))
        };
        match controller {
            "memory" => {
                let Some(memory) = &resources.memory else {
                    return Ok(());
                };
                if let Some(limit) = memory.limit {
                    write("memory.limit_in_bytes", &limit.to_string())?;
                }
                if let Some(reservation) = memory.reservation {
                    write("memory.soft_limit_in_bytes", &reservation.to_string())?;
                }
                if let Some(swap) = memory.swap {
                    match self
                        .files
                        .write(&dir.join("memory.memsw.limit_in_bytes"), &swap.to_string())
                    {
                        // The kernel was started without swap accounting: there is nothing to limit by.
                        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                        Err(error) => {
                            return Err(failed(
                                &dir.join("memory.memsw.limit_in_bytes"),
                                &swap.to_string(),
                                &error,
                            ));
                        }
                        Ok(()) => {}
                    }
                }
            }
            "cpu" => {
                let Some(cpu) = &resources.cpu else {
                    return Ok(());
                };
                if let Some(shares) = cpu.shares.filter(|shares| *shares > 0) {
                    write("cpu.shares", &shares.to_string())?;
                }
                if let Some(period) = cpu.period.filter(|period| *period > 0) {
                    write("cpu.cfs_period_us", &period.to_string())?;
                }
                if let Some(quota) = cpu.quota.filter(|quota| *quota != 0) {
                    write("cpu.cfs_quota_us", &quota.to_string())?;
                }
            }
            "cpuset" => {
                if let Some(cpus) = resources.cpu.as_ref().and_then(|cpu| cpu.cpus.as_ref()) {
                    write("cpuset.cpus", cpus)?;
                }
            }
            "pids" => {
                let limit = resources.pids.as_ref().and_then(|pids| pids.limit);
                if let Some(limit) = limit.filter(|limit| *limit > 0) {
                    write("pids.max", &limit.to_string())?;
                }
            }
            "devices" => {
                write("devices.deny", "a")?;
                for rule in DEVICES {
                    write("devices.allow", rule)?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Driver for V1 {
    fn create(&self, path: &str, resources: &Resources) -> Result<(), Failure> {
        let cpuset = wants_cpuset(resources);
        for hierarchy in self
            .hierarchies
            .iter()
            .filter(|hierarchy| Self::wanted(hierarchy, cpuset))
        {
            let of_cpuset = hierarchy.controllers.iter().any(|name| name == "cpuset");
            let made =
                files::make_group(self.files.as_ref(), &hierarchy.mount, path, &mut |parent| {
                    if of_cpuset && parent != hierarchy.mount {
                        self.inherit_cpuset(parent)
                    } else {
                        Ok(())
                    }
                });
            let dir = made.map_err(|error| {
                Failure::io(
                    format!("making cgroup {}", join(&hierarchy.mount, path).display()),
                    &error,
                )
            })?;
            if of_cpuset {
                self.inherit_cpuset(&dir).map_err(|error| {
                    Failure::io(format!("preparing cpuset {}", dir.display()), &error)
                })?;
            }
            for controller in &hierarchy.controllers {
                self.limits(&dir, controller, resources)?;
            }
        }
        Ok(())
    }

    fn clone_target(&self, _path: &str) -> Result<Option<OwnedFd>, Failure> {
        Ok(None)
    }

    fn attach(&self, path: &str, pid: i32) -> Result<(), Failure> {
        for hierarchy in self.used() {
            let file = join(&hierarchy.mount, path).join("cgroup.procs");
            match self.files.write(&file, &pid.to_string()) {
                // cpuset has no directory unless a limit asked for one.
                Err(error)
                    if error.kind() == io::ErrorKind::NotFound
                        && hierarchy.controllers.iter().all(|name| name == "cpuset") => {}
                other => other.map_err(|error| failed(&file, &pid.to_string(), &error))?,
            }
        }
        Ok(())
    }

    fn directories(&self, path: &str) -> Vec<PathBuf> {
        self.used()
            .map(|hierarchy| join(&hierarchy.mount, path))
            .collect()
    }

    fn oom_kills(&self, path: &str) -> u64 {
        self.directory("memory", path)
            .and_then(|dir| self.files.read(&dir.join("memory.oom_control")).ok())
            .map_or(0, |text| keyed(&text, "oom_kill"))
    }

    fn oom_watch(&self, path: &str) -> Option<OomWatch> {
        let dir = self.directory("memory", path)?;
        let control = file::open(
            &dir.join("memory.oom_control").to_string_lossy(),
            libc::O_RDONLY,
        )
        .ok()?;
        let event = process::event_fd().ok()?;
        let line = format!("{} {}", event.as_raw_fd(), control.as_raw_fd());
        self.files
            .write(&dir.join("cgroup.event_control"), &line)
            .ok()?;
        Some(OomWatch {
            event,
            _held: Some(control),
        })
    }

    fn views(&self, resources: &Resources) -> Option<Vec<(String, String)>> {
        let cpuset = wants_cpuset(resources);
        let wanted = self
            .hierarchies
            .iter()
            .filter(|hierarchy| Self::wanted(hierarchy, cpuset));
        Some(
            wanted
                .filter_map(|hierarchy| {
                    let name = hierarchy.mount.file_name()?.to_string_lossy().into_owned();
                    Some((name, hierarchy.controllers.join(",")))
                })
                .collect(),
        )
    }

    fn limits_devices(&self) -> bool {
        self.directory("devices", "/").is_some()
    }
}

fn wants_cpuset(resources: &Resources) -> bool {
    resources.cpu.as_ref().is_some_and(|cpu| cpu.cpus.is_some())
}

fn join(mount: &Path, path: &str) -> PathBuf {
    mount.join(path.trim_start_matches('/'))
}

fn failed(file: &Path, value: &str, error: &io::Error) -> Failure {
    let mut failure = Failure::io(format!("writing {value:?} to {}", file.display()), error);
    if sys::is(error, libc::EINVAL) {
        failure.code = shoal_protocol::FailureCode::Invalid;
    }
    failure
}

#[cfg(test)]
mod tests {
    use super::super::files::recording::Recording;
    use super::*;
    use shoal_protocol::oci::{Cpu, Memory, Pids};

    fn driver(recording: &Recording) -> V1 {
        let hierarchy = |name: &str| Hierarchy {
            mount: format!("/c/{name}").into(),
            controllers: name.split(',').map(str::to_owned).collect(),
        };
        V1 {
            hierarchies: ["memory", "pids", "cpu,cpuacct", "cpuset", "blkio"]
                .map(hierarchy)
                .into(),
            files: Box::new(recording.clone()),
        }
    }

    #[test]
    fn create_makes_only_what_is_needed_and_writes_limits() {
        let recording = Recording::default();
        let resources = Resources {
            memory: Some(Memory {
                limit: Some(64),
                reservation: None,
                swap: Some(128),
                ..Memory::default()
            }),
            cpu: Some(Cpu {
                shares: Some(512),
                quota: Some(50_000),
                period: Some(100_000),
                cpus: None,
                ..Cpu::default()
            }),
            pids: Some(Pids { limit: Some(7) }),
            ..Resources::default()
        };
        driver(&recording)
            .create("/shoal/a", &resources)
            .expect("created");
        assert_eq!(
            recording.lines(),
            [
                "mkdir /c/memory/shoal",
                "mkdir /c/memory/shoal/a",
                "/c/memory/shoal/a/memory.limit_in_bytes=64",
                "/c/memory/shoal/a/memory.memsw.limit_in_bytes=128",
                "mkdir /c/pids/shoal",
                "mkdir /c/pids/shoal/a",
                "/c/pids/shoal/a/pids.max=7",
                "mkdir /c/cpu,cpuacct/shoal",
                "mkdir /c/cpu,cpuacct/shoal/a",
                "/c/cpu,cpuacct/shoal/a/cpu.shares=512",
                "/c/cpu,cpuacct/shoal/a/cpu.cfs_period_us=100000",
                "/c/cpu,cpuacct/shoal/a/cpu.cfs_quota_us=50000",
            ]
        );
    }

    #[test]
    fn create_goes_on_without_swap_accounting_and_replaces_a_leftover() {
        let recording = Recording {
            missing: vec!["memory.memsw.limit_in_bytes"],
            ..Recording::default()
        };
        let resources = Resources {
            memory: Some(Memory {
                limit: Some(64),
                reservation: None,
                swap: Some(64),
                ..Memory::default()
            }),
            ..Resources::default()
        };
        let driver = driver(&recording);
        driver.create("/a", &resources).expect("no memsw");
        driver.create("/a", &resources).expect("leftover");
        assert!(recording.lines().contains(&"rmdir /c/memory/a".to_owned()));
    }

    #[test]
    fn create_inherits_a_cpuset_before_it_narrows_it() {
        let recording = Recording {
            contents: vec![("cpuset.cpus", ""), ("cpuset.mems", "0")],
            ..Recording::default()
        };
        let resources = Resources {
            cpu: Some(Cpu {
                cpus: Some("1".into()),
                ..Cpu::default()
            }),
            ..Resources::default()
        };
        driver(&recording)
            .create("/a", &resources)
            .expect("created");
        let lines = recording.lines();
        let inherit = lines
            .iter()
            .position(|line| line == "/c/cpuset/a/cpuset.cpus=");
        let narrow = lines
            .iter()
            .position(|line| line == "/c/cpuset/a/cpuset.cpus=1");
        assert!(inherit.is_some() && inherit < narrow, "{lines:?}");
    }
}
