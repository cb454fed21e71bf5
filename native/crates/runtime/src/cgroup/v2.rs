//! Control groups v2: one directory, entered by clone3, limits in the unified files, device rules as a BPF program.

use super::files::Files;
use super::group::{self, Made, join};
use super::limits_v2::{self, Held};
use super::writes::{self, Write};
use super::{
    Access, Below, Driver, OomWatch, Stats, check, denied, detect, devices, ebpf, enter, freeze,
    is_privileged, keyed, kill, open_dir, stats_v2,
};
use crate::sys::{c_string, check as check_call, file, is};
use shoal_protocol::{Failure, FailureCode, oci::Resources};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The group below a caller's own into which it goes when it stands in the way of controllers for the groups beside.
const LEAF: &str = "shoal-self";

/// What the mount is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duty {
    /// All: every controller that is there is given to the container, as runc does.
    Everything { devices: bool },
    /// What the v1 hierarchies cannot do (hybrid): only the controllers that are asked for.
    BesideV1 { devices: bool },
}

/// The v2 driver.
pub struct V2 {
    pub mount: PathBuf,
    pub files: Box<dyn Files>,
    pub duty: Duty,
}

impl V2 {
    fn dir(&self, path: &str) -> PathBuf {
        join(&self.mount, path)
    }

    fn words(&self, file: &Path) -> Vec<String> {
        self.files
            .read(file)
            .unwrap_or_default()
            .split_whitespace()
            .map(str::to_owned)
            .collect()
    }

    /// Whether the mount has the controller.
    pub(super) fn offers(&self, controller: &str) -> bool {
        self.words(&self.mount.join("cgroup.controllers"))
            .iter()
            .any(|name| name == controller)
    }

    pub(super) fn limits_devices(&self) -> bool {
        let (Duty::Everything { devices } | Duty::BesideV1 { devices }) = self.duty;
        devices
    }

    /// Controllers of which a limit is asked that must be kept, each with its field.
    fn asked(resources: &Resources) -> Result<Vec<(String, String)>, Failure> {
        let mut asked = Vec::new();
        for controller in limits_v2::CONTROLLERS {
            let writes = limits_v2::writes(controller, resources, &Held::default()).or_else(
                // What only a held value can tell is judged when it is known.
                |failure| {
                    if failure.code == FailureCode::Invalid {
                        Ok(Vec::new())
                    } else {
                        Err(failure)
                    }
                },
            )?;
            if let Some(write) = writes.iter().find(|write| write.is_required()) {
                asked.push((controller.to_owned(), write.field.clone().into_owned()));
            }
        }
        for name in resources.unified.keys() {
            let controller = name.split('.').next().unwrap_or_default();
            if controller != "cgroup" {
                asked.push((controller.to_owned(), format!("unified.{name}")));
            }
        }
        Ok(asked)
    }

    /// Makes the group with its limits; `made` says what is to be taken back when it fails.
    pub(super) fn build(
        &self,
        path: &str,
        resources: &Resources,
        made: &mut Made,
    ) -> Result<(), Failure> {
        let dir = group::make(self.files.as_ref(), &self.mount, path, made)?;
        self.enable(path, &dir, &Self::asked(resources)?)?;
        self.limit(&dir, resources, &Held::default())?;
        if self.limits_devices() {
            let rules = devices::rules(&resources.devices)?;
            if !ebpf::allows_everything(&rules) {
                self.install(&dir, &rules)?;
            }
        }
        Ok(())
    }

    fn install(&self, dir: &Path, rules: &[devices::Rule]) -> Result<(), Failure> {
        let group = file::open(&dir.to_string_lossy(), libc::O_RDONLY | libc::O_DIRECTORY);
        match group.and_then(|group| ebpf::install(group.as_fd(), rules)) {
            // In a user namespace nodes cannot be made at all, so that nothing is opened by this.
            Err(error) if is(&error, libc::EPERM) && !is_privileged() => Ok(()),
            other => other.map_err(|error| {
                Failure::io(
                    format!(
                        "setting linux.resources.devices: attaching the device program to {}",
                        dir.display()
                    ),
                    &error,
                )
            }),
        }
    }

    /// Gives the group its controllers from the top down. One that cannot be had is an error only when it was asked for.
    fn enable(&self, path: &str, dir: &Path, asked: &[(String, String)]) -> Result<(), Failure> {
        if asked.is_empty() && matches!(self.duty, Duty::BesideV1 { .. }) {
            return Ok(());
        }
        let needed = match self.duty {
            Duty::Everything { .. } => self.words(&self.mount.join("cgroup.controllers")),
            Duty::BesideV1 { .. } => asked.iter().map(|(name, _)| name.clone()).collect(),
        };
        self.leave_invalid(dir, asked)?;
        let held = dir.join("cgroup.controllers");
        let has = |held: &[String], name: &String| held.contains(name);
        let have = self.words(&held);
        let missing: Vec<&String> = needed.iter().filter(|name| !has(&have, name)).collect();
        let mut why = None;
        if !missing.is_empty() {
            let above = group::parents(&self.mount, path);
            for parent in std::iter::once(&self.mount).chain(&above) {
                if let Err(error) = self.delegate(parent, &missing) {
                    why = Some((parent.clone(), error));
                }
            }
        }
        if asked.iter().all(|(name, _)| has(&have, name)) {
            return Ok(());
        }
        let have = self.words(&held);
        let Some((controller, field)) = asked.iter().find(|(name, _)| !has(&have, name)) else {
            return Ok(());
        };
        let doing = format!("setting linux.resources.{field}");
        Err(match why {
            Some((parent, error)) => {
                let mut failure = Failure::io(doing, &error);
                failure.message = format!(
                    "controller {controller:?} not available in {}: enabling it in {}: {error}{}",
                    dir.display(),
                    parent.display(),
                    if is(&error, libc::EBUSY) {
                        " (it holds processes itself; name a group beside them in cgroupsPath)"
                    } else {
                        ""
                    }
                );
                failure
            }
            None => Failure::new(
                FailureCode::System,
                doing,
                format!(
                    "controller {controller:?} not available in {}",
                    dir.display()
                ),
            ),
        })
    }

    /// Lets the groups below have controllers: all in one write, or else each that can be had.
    fn delegate(&self, parent: &Path, controllers: &[&String]) -> io::Result<()> {
        let control = parent.join("cgroup.subtree_control");
        let all: Vec<String> = controllers.iter().map(|name| format!("+{name}")).collect();
        let mut done = self.files.write(&control, &all.join(" "));
        if done.as_ref().is_err_and(|error| is(error, libc::EBUSY)) && self.step_aside(parent) {
            done = self.files.write(&control, &all.join(" "));
        }
        match done {
            Err(error) if all.len() > 1 && !is(&error, libc::EACCES) => {
                let mut last = Ok(());
                for one in &all {
                    if let Err(error) = self.files.write(&control, one) {
                        last = Err(error);
                    }
                }
                last
            }
            other => other,
        }
    }

    /// A group with processes of its own gives no controllers to those below. When the only one in it is the caller, it goes
    /// into a leaf beside.
    fn step_aside(&self, parent: &Path) -> bool {
        let own = std::process::id().to_string();
        let leaf = parent.join(LEAF);
        let alone = self.words(&parent.join("cgroup.procs")) == [own.clone()];
        let made = |made: io::Result<()>| match made {
            Err(error) => error.kind() == io::ErrorKind::AlreadyExists,
            Ok(()) => true,
        };
        alone
            && made(self.files.make_dir(&leaf))
            && self.files.write(&leaf.join("cgroup.procs"), &own).is_ok()
    }

    /// A group below a threaded one takes processes only once it is threaded too, and then no controller of whole processes.
    fn leave_invalid(&self, dir: &Path, asked: &[(String, String)]) -> Result<(), Failure> {
        let kind = self
            .files
            .read(&dir.join("cgroup.type"))
            .unwrap_or_default();
        if kind.trim() != "domain invalid" {
            return Ok(());
        }
        const DOMAIN: [&str; 4] = ["memory", "io", "hugetlb", "rdma"];
        if let Some((controller, field)) = asked
            .iter()
            .find(|(name, _)| DOMAIN.contains(&name.as_str()))
        {
            return Err(Failure::new(
                FailureCode::Conflict,
                format!("setting linux.resources.{field}"),
                format!(
                    "cannot enter cgroupv2 {:?} with domain controllers ({controller}) -- it is in an invalid state, because the group above is threaded",
                    dir.display()
                ),
            ));
        }
        self.files
            .write(&dir.join("cgroup.type"), "threaded")
            .map_err(|error| {
                Failure::io(format!("making cgroup {} threaded", dir.display()), &error)
            })
    }

    fn limit(&self, dir: &Path, resources: &Resources, held: &Held) -> Result<(), Failure> {
        for controller in limits_v2::CONTROLLERS {
            let writes = limits_v2::writes(controller, resources, held)?;
            writes::apply(self.files.as_ref(), dir, &writes)?;
        }
        // Last, so that they overrule what was converted.
        let unified: Vec<Write> = resources
            .unified
            .iter()
            .map(|(name, value)| Write::new(format!("unified.{name}"), name.clone(), value))
            .collect();
        writes::apply(self.files.as_ref(), dir, &unified)
    }

    /// Refuses limits below what is used now, when the configuration asks for that (the kernel would kill).
    fn check_usage(&self, dir: &Path, resources: &Resources) -> Result<(), Failure> {
        let Some(memory) = resources
            .memory
            .as_ref()
            .filter(|memory| memory.check_before_update == Some(true))
        else {
            return Ok(());
        };
        let used = |name: &str| -> i64 {
            self.files
                .read(&dir.join(name))
                .ok()
                .and_then(|text| text.trim().parse().ok())
                .unwrap_or(0)
        };
        let current = used("memory.current");
        let both = current + used("memory.swap.current");
        let refuse = |what: &str, limit: i64, used: i64| {
            Err(Failure::invalid(
                format!(
                    "setting linux.resources.memory.{}",
                    if what == "memory" { "limit" } else { "swap" }
                ),
                format!("rejecting {what} limit {limit}, because it's less than usage {used}"),
            ))
        };
        match (memory.limit, memory.swap) {
            (_, Some(swap)) if swap > 0 && swap < both => refuse("memory+swap", swap, both),
            (Some(limit), _) if limit > 0 && limit < current => refuse("memory", limit, current),
            _ => Ok(()),
        }
    }
}

impl Driver for V2 {
    fn create_with(
        &self,
        path: &str,
        resources: &Resources,
        access: Access,
    ) -> Result<(), Failure> {
        check::check(resources)?;
        refuse_unknown(resources)?;
        let mut made = Made::default();
        self.build(path, resources, &mut made).or_else(|failure| {
            made.undo(self.files.as_ref());
            let asked = Self::asked(resources)?;
            denied(
                access,
                asked.first().map(|(name, _)| name.as_str()),
                failure,
            )
        })
    }

    fn clones_into(&self, _resources: &Resources) -> bool {
        true
    }

    fn clone_target(&self, path: &str) -> Result<Option<OwnedFd>, Failure> {
        match open_dir(&self.dir(path)) {
            Err(failure) if failure.errno == Some(libc::ENOENT) && !is_privileged() => Ok(None),
            other => other.map(Some),
        }
    }

    fn join_target(&self, path: &str, init: i32) -> Result<Option<OwnedFd>, Failure> {
        let given = self.words(&self.dir(path).join("cgroup.subtree_control"));
        if given.is_empty() {
            return self.clone_target(path);
        }
        let text = std::fs::read_to_string(format!("/proc/{init}/cgroup"))
            .map_err(|error| Failure::io(format!("reading /proc/{init}/cgroup"), &error))?;
        match detect::own_unified(&text) {
            // Init's own group, if it is the container's or below it: nobody else's.
            Some(of_init) if Path::new(of_init).starts_with(path) => self.clone_target(of_init),
            _ => self.clone_target(path),
        }
    }

    fn attach(&self, path: &str, pid: i32) -> Result<(), Failure> {
        // Writing what is already so would wait for every processor (an RCU grace period).
        let there = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))
            .is_ok_and(|text| detect::own_unified(&text) == Some(path));
        if there {
            return Ok(());
        }
        match enter(self.files.as_ref(), &self.dir(path), pid) {
            Err(failure) if failure.errno == Some(libc::ENOENT) && !is_privileged() => Ok(()),
            other => other,
        }
    }

    fn attach_below(&self, path: &str, below: &[Below], pid: i32) -> Result<(), Failure> {
        let mut dir = self.dir(path);
        match below {
            [] => {}
            [one] if one.controllers.is_empty() => dir.push(one.path.trim_matches('/')),
            _ => {
                return Err(Failure::invalid(
                    "reading --cgroup",
                    "on control groups v2 it is given once, as a path without controllers",
                ));
            }
        }
        enter(self.files.as_ref(), &dir, pid)
    }

    fn update(&self, path: &str, resources: &Resources) -> Result<(), Failure> {
        check::check(resources)?;
        refuse_unknown(resources)?;
        let dir = self.dir(path);
        self.check_usage(&dir, resources)?;
        let held = |name: &str| self.files.read(&dir.join(name)).unwrap_or_default();
        self.enable(path, &dir, &Self::asked(resources)?)?;
        self.limit(
            &dir,
            resources,
            &Held {
                cpu_max: held("cpu.max"),
                memory_max: held("memory.max"),
            },
        )?;
        if self.limits_devices() && !resources.devices.is_empty() {
            self.install(&dir, &devices::rules(&resources.devices)?)?;
        }
        Ok(())
    }

    fn freeze(&self, path: &str) -> Result<(), Failure> {
        freeze::freeze_v2(self.files.as_ref(), &self.dir(path))
    }

    fn thaw(&self, path: &str) -> Result<(), Failure> {
        freeze::thaw_v2(self.files.as_ref(), &self.dir(path))
    }

    fn is_frozen(&self, path: &str) -> bool {
        freeze::is_frozen_v2(self.files.as_ref(), &self.dir(path))
    }

    fn stats(&self, path: &str) -> Stats {
        stats_v2::read(self.files.as_ref(), &self.dir(path))
    }

    fn kill_all(&self, path: &str, signal: i32) -> Result<(), Failure> {
        let dir = self.dir(path);
        if signal == libc::SIGKILL {
            // Reaches what is frozen too, and what forks meanwhile (5.14).
            match self.files.write(&dir.join("cgroup.kill"), "1") {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // A threaded group has no kill of its own.
                Err(error) if is(&error, libc::EOPNOTSUPP) => {}
                Err(error) => {
                    return Err(Failure::io(
                        format!("killing cgroup {}", dir.display()),
                        &error,
                    ));
                }
            }
        }
        let was_frozen = self.is_frozen(path);
        let still = was_frozen || self.freeze(path).is_ok();
        let dirs = [dir];
        kill::signal_all(&dirs, signal, still);
        if still && !was_frozen {
            self.thaw(path)?;
        }
        if signal == libc::SIGKILL {
            kill::kill_rounds(&dirs);
        }
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
        check_call(
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

    fn limits_devices(&self) -> bool {
        V2::limits_devices(self)
    }
}

fn refuse_unknown(resources: &Resources) -> Result<(), Failure> {
    match limits_v2::unknown(resources) {
        None => Ok(()),
        Some(field) => Err(Failure::new(
            FailureCode::Invalid,
            format!("setting linux.resources.{field}"),
            "control groups v2 have no controller for it",
        )),
    }
}

#[cfg(test)]
mod tests;
