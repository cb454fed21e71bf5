//! Control groups v1 (and hybrid): one directory in each hierarchy that is needed, and in no other.

use super::detect::Hierarchy;
use super::devices::{self, List};
use super::files::Files;
use super::group::{self, Made, join};
use super::writes::{self, Write};
use super::{
    Access, Below, Driver, OomWatch, Stats, check, denied, enter, entrance, freeze, is_privileged,
    keyed, kill, limits_v1, stats_v1, v2,
};
use crate::sys::{file, is, process};
use shoal_protocol::{Failure, FailureCode, oci::Resources};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Always used; each further one costs about 60 us a container. cpuset, blkio, hugetlb, net_* and rdma are used when a limit
/// asks for them, perf_event never.
const ALWAYS: [&str; 6] = ["memory", "pids", "cpu", "cpuacct", "devices", "freezer"];

/// How often the processes of a container are looked for that have been forked while others were moved; one that is ending
/// stays where it is, so that there must be an end.
const GATHER_ROUNDS: u32 = 8;

/// The v1 driver.
pub struct V1 {
    pub hierarchies: Vec<Hierarchy>,
    pub files: Box<dyn Files>,
    /// The v2 mount beside (hybrid): a container that needs something which is only there is in a group there too.
    pub unified: Option<v2::V2>,
    /// Every container has a group there, and be it for its name only.
    pub named: bool,
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

    /// Every hierarchy that keeps a limit; in the others a container has a directory only where somebody asked for it.
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
        match self.needed_beside(part) {
            Some(unified) => unified.build(path, part, made).or_else(|failure| {
                // Nothing depends on the group there unless something was asked of it.
                let nothing = *part == Resources::default() && super::is_denied(&failure);
                if nothing { Ok(()) } else { Err(failure) }
            }),
            None => Ok(()),
        }
    }

    /// The v2 mount, if a container has a group there: for limits that v1 does not keep (`part`), for device rules, or to be frozen.
    fn needed_beside(&self, part: &Resources) -> Option<&v2::V2> {
        self.unified.as_ref().filter(|unified| {
            *part != Resources::default()
                || unified.limits_devices()
                || self.hierarchy("freezer").is_none()
        })
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
            .filter(|dir| self.files.exists(&dir.join("cgroup.procs")))
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

    fn clones_into(&self, resources: &Resources) -> bool {
        // What cannot be divided is refused by the creation.
        self.divide(resources)
            .is_ok_and(|part| self.needed_beside(&part).is_some())
    }

    fn clone_target(&self, path: &str) -> Result<Option<OwnedFd>, Failure> {
        Ok(self.unified.as_ref().and_then(|unified| {
            // A container that needs nothing of v2 has no group there.
            super::open_dir(&join(&unified.mount, path)).ok()
        }))
    }

    fn place(&self, path: &str) -> Result<Option<OwnedFd>, Failure> {
        let Some(unified) = self.unified.as_ref().filter(|_| self.named) else {
            return Ok(None);
        };
        let mut made = Made::default();
        match group::make(self.files.as_ref(), &unified.mount, path, &mut made) {
            Ok(dir) => super::open_dir(&dir).map(Some),
            // It is only a name.
            Err(failure) if super::is_denied(&failure) => {
                made.undo(self.files.as_ref());
                Ok(None)
            }
            Err(failure) => {
                made.undo(self.files.as_ref());
                Err(failure)
            }
        }
    }

    fn withdraw(&self, path: &str) {
        if let Some(unified) = &self.unified {
            // Somebody else's by now, if it cannot be removed.
            drop(group::remove_tree(
                self.files.as_ref(),
                &join(&unified.mount, path),
            ));
        }
    }

    fn admit(&self, path: &str, pid: i32) -> Result<Vec<OwnedFd>, Failure> {
        // Frozen, a process would not come to the groups after that one.
        let (freezers, others): (Vec<_>, Vec<_>) = self
            .hierarchies
            .iter()
            .partition(|hierarchy| hierarchy.has("freezer"));
        let dirs = others
            .into_iter()
            .chain(freezers)
            .map(|hierarchy| join(&hierarchy.mount, path));
        match entrance::open(self.files.as_ref(), dirs) {
            Ok(entrances) if !entrances.is_empty() => {
                if let Some(unified) = self
                    .unified
                    .as_ref()
                    .filter(|_| self.beside(path).is_some())
                {
                    // It was cloned into the group there where that could be done.
                    unified.attach(path, pid)?;
                }
                Ok(entrances)
            }
            // Without a right to them, or without any, it is as without entrances, and the words are those of `attach`.
            _ => self.attach(path, pid).map(|()| Vec::new()),
        }
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
            if self.hierarchy(controller).is_none() {
                return Err(Failure::invalid(
                    "reading --cgroup",
                    format!("unknown controller {controller}: it has no hierarchy here"),
                ));
            }
        }
        let mut places: Vec<(PathBuf, bool)> = Vec::new();
        for hierarchy in &self.hierarchies {
            let own = join(&hierarchy.mount, path);
            let exact = below
                .iter()
                .find(|below| below.controllers.iter().any(|name| hierarchy.has(name)));
            let named = exact.or_else(|| below.iter().find(|below| below.controllers.is_empty()));
            let Some(named) = named else {
                places.push((own, false));
                continue;
            };
            let here = self.enlist(hierarchy, path, exact.is_some())?;
            places.push((own.join(named.path.trim_matches('/')), here));
        }
        if let Some(unified) = &self.unified {
            let own = join(&unified.mount, path);
            places.push(
                match below.iter().find(|below| below.controllers.is_empty()) {
                    Some(named) => {
                        let here = self.enlist_beside(unified, path)?;
                        (own.join(named.path.trim_matches('/')), here)
                    }
                    None => (own, false),
                },
            );
        }
        for (dir, needed) in places {
            match enter(self.files.as_ref(), &dir, pid) {
                // A hierarchy in which the container has no group at all has none below either.
                Err(failure) if failure.errno == Some(libc::ENOENT) && !needed => {}
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
                self.enlist(hierarchy, path, true)?;
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
            Some(unified) if part != Resources::default() => {
                self.enlist_beside(unified, path)?;
                unified.update(path, &part)
            }
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
        self.hierarchies
            .iter()
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
    /// Gives a container a group in one more hierarchy, with all of its processes; whether it has one there then. Without a
    /// right to make it, that is an error where it is `required`.
    fn enlist(&self, hierarchy: &Hierarchy, path: &str, required: bool) -> Result<bool, Failure> {
        let dir = join(&hierarchy.mount, path);
        if self.files.exists(&dir.join("cgroup.procs")) {
            return Ok(true);
        }
        let mut made = Made::default();
        let enlisted = self
            .make(hierarchy, path, &Resources::default(), &mut made)
            .and_then(|()| self.gather(&dir, path));
        match enlisted {
            Ok(()) => Ok(true),
            Err(failure) => {
                made.undo(self.files.as_ref());
                if required || !super::is_denied(&failure) {
                    return Err(failure);
                }
                Ok(false)
            }
        }
    }

    /// As `enlist`, in the v2 mount beside.
    fn enlist_beside(&self, unified: &v2::V2, path: &str) -> Result<bool, Failure> {
        if self.beside(path).is_some() {
            return Ok(true);
        }
        let mut made = Made::default();
        let enlisted = unified
            .build(path, &Resources::default(), &mut made)
            .and_then(|()| self.gather(&join(&unified.mount, path), path));
        enlisted
            .map(|()| true)
            .inspect_err(|_| made.undo(self.files.as_ref()))
    }

    /// Puts a container's processes into one more group: until none is elsewhere, as they may fork meanwhile.
    fn gather(&self, dir: &Path, path: &str) -> Result<(), Failure> {
        for _ in 0..GATHER_ROUNDS {
            let here = group::pids(&[dir.to_path_buf()]);
            let mut all = self.pids(path);
            all.retain(|pid| !here.contains(pid));
            if all.is_empty() {
                break;
            }
            for pid in all {
                match enter(self.files.as_ref(), dir, pid) {
                    // It has ended meanwhile.
                    Err(failure) if failure.errno == Some(libc::ESRCH) => {}
                    other => other?,
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
