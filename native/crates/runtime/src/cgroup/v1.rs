//! Control groups v1 (and hybrid): one directory in each hierarchy that is needed, and in no other.

use super::detect::Hierarchy;
use super::devices::{self, List};
use super::files::Files;
use super::group::{self, Made, join};
use super::writes::{self, Write};
use super::{
    Access, Below, Driver, OomWatch, Stats, check, denied, enter, freeze, is_privileged, keyed,
    kill, limits_v1, stats_v1, v2,
};
use crate::sys::{file, is, process};
use shoal_protocol::{Failure, FailureCode, oci::Resources};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Always used; each further one costs about 60 us a container. cpuset, blkio, hugetlb, net_* and rdma are used when a limit
/// asks for them, perf_event never.
const ALWAYS: [&str; 6] = ["memory", "pids", "cpu", "cpuacct", "devices", "freezer"];

/// The v1 driver.
pub struct V1 {
    pub hierarchies: Vec<Hierarchy>,
    pub files: Box<dyn Files>,
    /// The v2 mount beside (hybrid): every container is in a group there too, which gives it one kill for all, and the
    /// controllers that are only there.
    pub unified: Option<v2::V2>,
}

impl V1 {
    fn hierarchy(&self, controller: &str) -> Option<&Hierarchy> {
        self.hierarchies
            .iter()
            .find(|hierarchy| hierarchy.has(controller))
    }

    fn directory(&self, controller: &str, path: &str) -> Option<PathBuf> {
        Some(join(&self.hierarchy(controller)?.mount, path))
    }

    /// Every hierarchy in which a container can have a directory.
    fn used(&self) -> impl Iterator<Item = &Hierarchy> {
        self.hierarchies.iter().filter(|hierarchy| {
            ALWAYS
                .iter()
                .chain(&limits_v1::CONTROLLERS)
                .any(|name| hierarchy.has(name))
        })
    }

    /// Those in which a container with these limits has one.
    fn wanted(&self, resources: &Resources) -> impl Iterator<Item = &Hierarchy> {
        self.used().filter(|hierarchy| {
            hierarchy.controllers.iter().any(|name| {
                ALWAYS.contains(&name.as_str()) || !limits_v1::writes(name, resources).is_empty()
            })
        })
    }

    /// The first controller of which a limit is asked that must be kept.
    fn asked(resources: &Resources) -> Option<&'static str> {
        limits_v1::CONTROLLERS.into_iter().find(|controller| {
            limits_v1::writes(controller, resources)
                .iter()
                .any(Write::is_required)
        })
    }

    /// Refuses limits that no hierarchy of the machine can keep; returns those that the v2 mount keeps.
    fn divide(&self, resources: &Resources) -> Result<Resources, Failure> {
        let beside = |controller: &str| {
            self.unified
                .as_ref()
                .is_some_and(|unified| unified.offers(controller))
        };
        for name in resources.unified.keys() {
            let controller = name.split('.').next().unwrap_or_default();
            if self.hierarchy(controller).is_some() || !beside(controller) {
                return Err(Failure::invalid(
                    "reading linux.resources.unified",
                    format!("invalid configuration: cannot use unified ({name}) on cgroup v1"),
                ));
            }
        }
        let mut part = Resources {
            unified: resources.unified.clone(),
            ..Resources::default()
        };
        for controller in limits_v1::CONTROLLERS {
            let writes = limits_v1::writes(controller, resources);
            let Some(write) = writes.iter().find(|write| write.is_required()) else {
                continue;
            };
            if self.hierarchy(controller).is_some() {
                continue;
            }
            match controller {
                "hugetlb" if beside("hugetlb") => {
                    part.hugepage_limits = resources.hugepage_limits.clone();
                }
                "rdma" if beside("rdma") => part.rdma = resources.rdma.clone(),
                "blkio" if beside("io") => part.block_io = resources.block_io.clone(),
                "memory" if beside("memory") => part.memory = resources.memory.clone(),
                "pids" if beside("pids") => part.pids = resources.pids.clone(),
                "cpu" | "cpuset" if beside("cpu") && beside("cpuset") => {
                    part.cpu = resources.cpu.clone();
                }
                _ => {
                    return Err(Failure::new(
                        FailureCode::System,
                        format!("setting linux.resources.{}", write.field),
                        format!(
                            "cannot set {controller} limit: container could not join or create cgroup: this machine has no {controller} hierarchy"
                        ),
                    ));
                }
            }
        }
        Ok(part)
    }

    fn build(
        &self,
        path: &str,
        resources: &Resources,
        part: &Resources,
        rules: &List,
        made: &mut Made,
    ) -> Result<(), Failure> {
        for hierarchy in self.wanted(resources) {
            self.make(hierarchy, path, resources, made)?;
            if hierarchy.has("devices") {
                self.allow_devices(&join(&hierarchy.mount, path), None, rules)?;
            }
        }
        match &self.unified {
            Some(unified) => unified.build(path, part, made).or_else(|failure| {
                // Nothing depends on the group there unless something was asked of it.
                let nothing = *part == Resources::default() && super::is_denied(&failure);
                if nothing { Ok(()) } else { Err(failure) }
            }),
            None => Ok(()),
        }
    }

    /// Makes the group in one hierarchy, with the limits of its controllers.
    fn make(
        &self,
        hierarchy: &Hierarchy,
        path: &str,
        resources: &Resources,
        made: &mut Made,
    ) -> Result<(), Failure> {
        let dir = group::make(self.files.as_ref(), &hierarchy.mount, path, made)?;
        if hierarchy.has("cpuset") {
            for dir in group::parents(&hierarchy.mount, path).iter().chain([&dir]) {
                self.inherit_cpuset(dir).map_err(|error| {
                    Failure::io(format!("preparing cpuset {}", dir.display()), &error)
                })?;
            }
        }
        for controller in &hierarchy.controllers {
            let writes = limits_v1::writes(controller, resources);
            writes::apply(self.files.as_ref(), &dir, &writes)?;
        }
        Ok(())
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

    /// Changes the device list of a group; `held` is None for a fresh one. What the group above may not do itself cannot be
    /// given: of the default devices that is passed over, of the configuration's it is an error.
    fn allow_devices(&self, dir: &Path, held: Option<&List>, wanted: &List) -> Result<(), Failure> {
        let change = devices::change(held, wanted);
        let deny = || self.write_devices(dir, "devices.deny", &change.deny, false);
        let allow = || self.write_devices(dir, "devices.allow", &change.allow, true);
        let written = if change.deny_first {
            deny().and_then(|()| allow())
        } else {
            allow().and_then(|()| deny())
        };
        match written {
            // In a user namespace nodes cannot be made at all, so that nothing is opened by this.
            Err(failure) if super::is_denied(&failure) && !is_privileged() => Ok(()),
            other => other,
        }
    }

    fn write_devices(
        &self,
        dir: &Path,
        name: &str,
        lines: &[String],
        above: bool,
    ) -> Result<(), Failure> {
        let mut rest = lines;
        while !rest.is_empty() {
            let Err((index, error)) = self.files.write_each(&dir.join(name), rest) else {
                return Ok(());
            };
            let line = &rest[index];
            if !(above && is(&error, libc::EPERM) && devices::is_default(line)) {
                return Err(Failure::io(
                    format!(
                        "setting linux.resources.devices: writing {line:?} to {}",
                        dir.join(name).display()
                    ),
                    &error,
                ));
            }
            rest = &rest[index + 1..];
        }
        Ok(())
    }

    /// The v2 group beside, where there is one.
    fn beside(&self, path: &str) -> Option<PathBuf> {
        self.unified
            .as_ref()
            .map(|unified| join(&unified.mount, path))
            .filter(|dir| self.files.read(&dir.join("cgroup.procs")).is_ok())
    }

    /// Where the group is frozen: its directory, and whether that is v1's.
    fn freezer(&self, path: &str) -> Result<(PathBuf, bool), Failure> {
        if let Some(dir) = self.directory("freezer", path) {
            return Ok((dir, true));
        }
        self.beside(path).map(|dir| (dir, false)).ok_or_else(|| {
            Failure::new(
                FailureCode::System,
                format!("freezing cgroup {path}"),
                "this machine has no freezer hierarchy",
            )
        })
    }
}

impl Driver for V1 {
    fn create_with(
        &self,
        path: &str,
        resources: &Resources,
        access: Access,
    ) -> Result<(), Failure> {
        check::check(resources)?;
        let part = self.divide(resources)?;
        let rules = List::new(&devices::rules(&resources.devices)?)?;
        let mut made = Made::default();
        self.build(path, resources, &part, &rules, &mut made)
            .or_else(|failure| {
                made.undo(self.files.as_ref());
                denied(access, Self::asked(resources), failure)
            })
    }

    fn clone_target(&self, _path: &str) -> Result<Option<OwnedFd>, Failure> {
        Ok(None)
    }

    fn attach(&self, path: &str, pid: i32) -> Result<(), Failure> {
        let mut entered = self.hierarchies.is_empty();
        for dir in self.directories(path) {
            match enter(self.files.as_ref(), &dir, pid) {
                // It has no directory where no limit asked for one.
                Err(failure) if failure.errno == Some(libc::ENOENT) => {}
                other => {
                    other?;
                    entered = true;
                }
            }
        }
        if entered || !is_privileged() {
            return Ok(());
        }
        Err(Failure::new(
            FailureCode::NotFound,
            format!("adding pid {pid} to cgroup {path}"),
            "there is no such cgroup",
        ))
    }

    fn attach_below(&self, path: &str, below: &[Below], pid: i32) -> Result<(), Failure> {
        for controller in below.iter().flat_map(|below| &below.controllers) {
            let known = self.hierarchy(controller).is_some_and(|hierarchy| {
                self.files
                    .read(&join(&hierarchy.mount, path).join("cgroup.procs"))
                    .is_ok()
            });
            if !known {
                return Err(Failure::invalid(
                    "reading --cgroup",
                    format!("unknown controller {controller} in {below:?}"),
                ));
            }
        }
        let mut places: Vec<(PathBuf, bool)> = Vec::new();
        for hierarchy in self.used() {
            let own = join(&hierarchy.mount, path);
            let named = below.iter().find(|below| {
                below.controllers.is_empty()
                    || below.controllers.iter().any(|name| hierarchy.has(name))
            });
            places.push(match named {
                Some(below) => (own.join(below.path.trim_matches('/')), true),
                None => (own, false),
            });
        }
        if let Some(unified) = &self.unified {
            places.push((join(&unified.mount, path), false));
        }
        for (dir, named) in places {
            match enter(self.files.as_ref(), &dir, pid) {
                // A hierarchy in which the container has no group at all has none below either.
                Err(failure)
                    if failure.errno == Some(libc::ENOENT)
                        && (!named || !self.is_within_container(&dir, path)) => {}
                other => other?,
            }
        }
        Ok(())
    }

    fn update(&self, path: &str, resources: &Resources) -> Result<(), Failure> {
        check::check(resources)?;
        let part = self.divide(resources)?;
        for hierarchy in self.used() {
            let dir = join(&hierarchy.mount, path);
            for controller in &hierarchy.controllers {
                let writes = limits_v1::writes(controller, resources);
                if writes.is_empty() {
                    continue;
                }
                if self.files.read(&dir.join("cgroup.procs")).is_err() {
                    let pids = self.pids(path);
                    let mut made = Made::default();
                    self.make(hierarchy, path, &Resources::default(), &mut made)?;
                    for pid in pids {
                        match enter(self.files.as_ref(), &dir, pid) {
                            // It has ended meanwhile.
                            Err(failure) if failure.errno == Some(libc::ESRCH) => {}
                            other => other?,
                        }
                    }
                }
                writes::apply(self.files.as_ref(), &dir, &writes)?;
            }
        }
        if !resources.devices.is_empty()
            && let Some(dir) = self.directory("devices", path)
        {
            let wanted = List::new(&devices::rules(&resources.devices)?)?;
            let held = self
                .files
                .read(&dir.join("devices.list"))
                .unwrap_or_default();
            self.allow_devices(&dir, List::parse(&held).as_ref(), &wanted)?;
        }
        match &self.unified {
            Some(unified) if part != Resources::default() => unified.update(path, &part),
            _ => Ok(()),
        }
    }

    fn freeze(&self, path: &str) -> Result<(), Failure> {
        match self.freezer(path)? {
            (dir, true) => freeze::freeze_v1(self.files.as_ref(), &dir),
            (dir, false) => freeze::freeze_v2(self.files.as_ref(), &dir),
        }
    }

    fn thaw(&self, path: &str) -> Result<(), Failure> {
        match self.freezer(path)? {
            (dir, true) => freeze::thaw_v1(self.files.as_ref(), &dir),
            (dir, false) => freeze::thaw_v2(self.files.as_ref(), &dir),
        }
    }

    fn is_frozen(&self, path: &str) -> bool {
        match self.freezer(path) {
            Ok((dir, true)) => freeze::is_frozen_v1(self.files.as_ref(), &dir),
            Ok((dir, false)) => freeze::is_frozen_v2(self.files.as_ref(), &dir),
            Err(_) => false,
        }
    }

    fn stats(&self, path: &str) -> Stats {
        let mut stats = stats_v1::read(self.files.as_ref(), &|controller| {
            self.directory(controller, path)
        });
        if let Some(dir) = self.beside(path)
            && self.hierarchy("hugetlb").is_none()
        {
            stats.hugetlb = stats_v1::hugetlb(self.files.as_ref(), &dir, "current", "peak");
        }
        stats
    }

    fn kill_all(&self, path: &str, signal: i32) -> Result<(), Failure> {
        let dirs = self.directories(path);
        let was_frozen = self.is_frozen(path);
        // Frozen, nothing forks away from under the signals and no pid is reused; a group that cannot be frozen is signalled all the same.
        let still = was_frozen || self.freeze(path).is_ok();
        kill::signal_all(&dirs, signal, still);
        if still && (!was_frozen || signal == libc::SIGKILL) {
            self.thaw(path)?;
        }
        if signal == libc::SIGKILL {
            kill::kill_rounds(&dirs);
        }
        Ok(())
    }

    fn directories(&self, path: &str) -> Vec<PathBuf> {
        self.used()
            .map(|hierarchy| &hierarchy.mount)
            .chain(self.unified.as_ref().map(|unified| &unified.mount))
            .map(|mount| join(mount, path))
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
        Some(
            self.wanted(resources)
                .filter_map(|hierarchy| {
                    let name = hierarchy.mount.file_name()?.to_string_lossy().into_owned();
                    Some((name, hierarchy.controllers.join(",")))
                })
                .collect(),
        )
    }

    fn limits_devices(&self) -> bool {
        self.hierarchy("devices").is_some()
            || self.unified.as_ref().is_some_and(v2::V2::limits_devices)
    }
}

impl V1 {
    /// Whether the container has a group in the hierarchy that a directory is of.
    fn is_within_container(&self, dir: &Path, path: &str) -> bool {
        self.used().any(|hierarchy| {
            let own = join(&hierarchy.mount, path);
            dir.starts_with(&own) && self.files.read(&own.join("cgroup.procs")).is_ok()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::files::recording::Recording;
    use super::*;

    fn driver_of(recording: &Recording, names: &[&str]) -> V1 {
        V1 {
            hierarchies: names
                .iter()
                .map(|name| Hierarchy {
                    mount: format!("/c/{name}").into(),
                    controllers: name.split(',').map(str::to_owned).collect(),
                })
                .collect(),
            files: Box::new(recording.clone()),
            unified: None,
        }
    }

    fn driver(recording: &Recording) -> V1 {
        driver_of(
            recording,
            &["memory", "pids", "cpu,cpuacct", "cpuset", "blkio"],
        )
    }

    fn hybrid(recording: &Recording) -> V1 {
        V1 {
            unified: Some(v2::V2 {
                mount: "/c/unified".into(),
                files: Box::new(recording.clone()),
                duty: v2::Duty::BesideV1 { devices: false },
            }),
            ..driver_of(recording, &["memory"])
        }
    }

    fn resources(json: &str) -> Resources {
        serde_json::from_str(json).expect(json)
    }

    #[test]
    fn create_makes_only_what_is_needed_and_writes_limits() {
        let recording = Recording::default();
        driver(&recording)
            .create(
                "/shoal/a",
                &resources(
                    r#"{"memory":{"limit":64,"swap":128},"cpu":{"shares":512,"quota":50000,"period":100000},"pids":{"limit":7}}"#,
                ),
            )
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
    fn create_writes_the_default_devices_behind_a_closed_door() {
        let recording = Recording::default();
        driver_of(&recording, &["devices"])
            .create("/a", &Resources::default())
            .expect("created");
        let lines = recording.lines();
        assert_eq!(
            lines[..3],
            [
                "mkdir /c/devices/a",
                "/c/devices/a/devices.deny=a",
                "/c/devices/a/devices.allow=c *:* m"
            ]
        );
        assert_eq!(lines.len(), 13, "{lines:?}");
    }

    #[test]
    fn create_passes_over_default_devices_that_the_group_above_may_not_use_and_no_others() {
        let recording = Recording::default();
        recording.refuse_once("devices.deny", libc::ENOENT);
        let driver = driver_of(&recording, &["devices"]);
        assert!(driver.create("/a", &Resources::default()).is_err());
        recording.refuse_once("devices.allow", libc::EPERM);
        driver
            .create("/a", &Resources::default())
            .expect("defaults");
        let asked = resources(
            r#"{"devices":[{"allow":true,"type":"c","major":10,"minor":229,"access":"rw"}]}"#,
        );
        recording.refuse_once("devices.allow", libc::EPERM);
        let refused = driver.create("/b", &asked).expect_err("asked for");
        assert!(refused.to_string().contains("c 10:229 rw"), "{refused}");
    }

    #[test]
    fn create_goes_on_without_swap_accounting_and_replaces_a_leftover() {
        let recording = Recording {
            missing: vec!["memory.memsw.limit_in_bytes"],
            ..Recording::default()
        };
        let limits = resources(r#"{"memory":{"limit":64,"swap":64}}"#);
        let driver = driver(&recording);
        driver.create("/a", &limits).expect("no memsw");
        driver.create("/a", &limits).expect("leftover");
        assert!(recording.lines().contains(&"rmdir /c/memory/a".to_owned()));
    }

    #[test]
    fn create_inherits_a_cpuset_before_it_narrows_it() {
        let recording = Recording {
            contents: vec![("cpuset.cpus", ""), ("cpuset.mems", "0")],
            ..Recording::default()
        };
        driver(&recording)
            .create("/p/a", &resources(r#"{"cpu":{"cpus":"1"}}"#))
            .expect("created");
        let lines = recording.lines();
        let at = |wanted: &str| lines.iter().position(|line| line == wanted).expect(wanted);
        assert!(at("/c/cpuset/p/cpuset.cpus=") < at("/c/cpuset/p/a/cpuset.cpus="));
        assert!(at("/c/cpuset/p/a/cpuset.cpus=") < at("/c/cpuset/p/a/cpuset.cpus=1"));
    }

    #[test]
    fn create_that_fails_takes_back_what_it_made() {
        let recording = Recording::default();
        recording.refuse_once("pids.max", libc::EIO);
        let limits = resources(r#"{"pids":{"limit":7}}"#);
        driver(&recording)
            .create("/p/a", &limits)
            .expect_err("a limit that cannot be set");
        assert!(recording.dirs.lock().expect("dirs").is_empty());
    }

    #[test]
    fn create_names_a_limit_whose_controller_the_machine_lacks() {
        let recording = Recording::default();
        let driver = driver(&recording);
        for (json, field) in [
            (r#"{"network":{"classID":5}}"#, "network.classID"),
            (
                r#"{"hugepageLimits":[{"pageSize":"2MB","limit":1}]}"#,
                "hugepageLimits",
            ),
            (r#"{"rdma":{"mlx":{"hcaHandles":1}}}"#, "rdma.mlx"),
            (
                r#"{"unified":{"memory.min":"1"}}"#,
                "unified: invalid configuration",
            ),
        ] {
            let refused = driver.create("/a", &resources(json)).expect_err(json);
            assert!(refused.to_string().contains(field), "{refused}");
        }
        assert!(
            recording.lines().is_empty(),
            "refused before anything is made"
        );
    }

    #[test]
    fn create_without_a_right_is_only_an_error_when_something_was_asked() {
        let recording = Recording::default();
        let driver = driver(&recording);
        recording.refuse_once("a", libc::EACCES);
        driver
            .create_with("/a", &Resources::default(), Access::Optional)
            .expect("no limits");
        recording.refuse_once("a", libc::EACCES);
        let limits = resources(r#"{"pids":{"limit":7}}"#);
        let refused = driver
            .create_with("/a", &limits, Access::Optional)
            .expect_err("a limit");
        assert!(
            refused.to_string().starts_with("cannot set pids limit"),
            "{refused}"
        );
        recording.refuse_once("a", libc::EACCES);
        let refused = driver
            .create("/a", &Resources::default())
            .expect_err("a path");
        assert!(
            refused.to_string().ends_with("permission denied"),
            "{refused}"
        );
    }

    #[test]
    fn hybrid_uses_the_v2_mount_for_what_only_it_has() {
        let recording = Recording {
            contents: vec![
                ("/c/unified/cgroup.controllers", "hugetlb\n"),
                ("/c/unified/a/cgroup.controllers", "hugetlb\n"),
            ],
            ..Recording::default()
        };
        let driver = hybrid(&recording);
        let limits = resources(
            r#"{"memory":{"limit":5},"hugepageLimits":[{"pageSize":"2MB","limit":9}],"unified":{"hugetlb.1GB.max":"0"}}"#,
        );
        driver.create("/a", &limits).expect("created");
        assert_eq!(
            recording.lines(),
            [
                "mkdir /c/memory/a",
                "/c/memory/a/memory.limit_in_bytes=5",
                "mkdir /c/unified/a",
                "/c/unified/a/hugetlb.2MB.max=9",
                "/c/unified/a/hugetlb.2MB.rsvd.max=9",
                "/c/unified/a/hugetlb.1GB.max=0",
            ]
        );
        let refused = driver
            .create("/b", &resources(r#"{"unified":{"memory.min":"1"}}"#))
            .expect_err("memory is v1's");
        assert!(
            refused.to_string().contains("invalid configuration"),
            "{refused}"
        );
        recording.forget();
        driver.attach("/a", 7).expect("attached");
        assert_eq!(
            recording.lines(),
            ["/c/memory/a/cgroup.procs=7", "/c/unified/a/cgroup.procs=7"]
        );
    }

    #[test]
    fn update_writes_what_is_asked_and_moves_nothing_where_the_group_is() {
        let recording = Recording {
            contents: vec![("cgroup.procs", "")],
            ..Recording::default()
        };
        driver(&recording)
            .update(
                "/a",
                &resources(r#"{"memory":{"limit":9},"pids":{"limit":-1}}"#),
            )
            .expect("updated");
        assert_eq!(
            recording.lines(),
            [
                "/c/memory/a/memory.limit_in_bytes=9",
                "/c/pids/a/pids.max=max"
            ]
        );
    }

    #[test]
    fn update_raises_and_lowers_memory_and_swap_in_the_order_the_kernel_takes() {
        let recording = Recording {
            contents: vec![("cgroup.procs", "")],
            ..Recording::default()
        };
        recording.refuse_once("memory.limit_in_bytes", libc::EINVAL);
        driver_of(&recording, &["memory"])
            .update("/a", &resources(r#"{"memory":{"limit":60,"swap":80}}"#))
            .expect("raised");
        assert_eq!(
            recording.lines(),
            [
                "/c/memory/a/memory.memsw.limit_in_bytes=80",
                "/c/memory/a/memory.limit_in_bytes=60"
            ]
        );
    }

    #[test]
    fn update_of_devices_changes_only_the_difference() {
        let recording = Recording {
            contents: vec![
                ("cgroup.procs", ""),
                (
                    "devices.list",
                    "c *:* m\nb *:* m\nc 1:3 rwm\nc 1:5 rwm\nc 1:7 rwm\nc 1:8 rwm\nc 1:9 rwm\nc 5:0 rwm\nc 5:1 rwm\nc 5:2 rwm\nc 136:* rwm\nc 10:200 rwm\n",
                ),
            ],
            ..Recording::default()
        };
        driver_of(&recording, &["devices"])
            .update(
                "/a",
                &resources(
                    r#"{"devices":[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":10,"minor":229,"access":"rw"}]}"#,
                ),
            )
            .expect("updated");
        assert_eq!(
            recording.lines(),
            [
                "/c/devices/a/devices.allow=c 10:229 rw",
                "/c/devices/a/devices.deny=c 10:200 rwm"
            ]
        );
    }

    #[test]
    fn attach_below_puts_a_process_where_each_controller_says() {
        let recording = Recording {
            contents: vec![("cgroup.procs", "")],
            ..Recording::default()
        };
        let driver = driver_of(&recording, &["memory", "pids", "cpu,cpuacct"]);
        let below = ["memory:m", "cpuacct:c/d"].map(|text| Below::parse(text).expect(text));
        driver.attach_below("/a", &below, 7).expect("attached");
        assert_eq!(
            recording.lines(),
            [
                "/c/memory/a/m/cgroup.procs=7",
                "/c/pids/a/cgroup.procs=7",
                "/c/cpu,cpuacct/a/c/d/cgroup.procs=7"
            ]
        );
        let unknown = [Below::parse("nope:x").expect("read")];
        assert!(driver.attach_below("/a", &unknown, 7).is_err());
    }
}
