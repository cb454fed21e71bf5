//! What the flags before the command say, for every command.

use crate::args::Parsed;
use crate::log::Log;
use crate::resctrl::{self, Assignment};
use crate::stop::Stop;
use crate::store::Root;
use shoal_protocol::Failure;
use shoal_protocol::oci::{IntelRdt, Seccomp};
use shoal_runtime::cgroup::detect::{self, Layout};
use shoal_runtime::proc;
use shoal_runtime::streams::FIRST_FD;
use shoal_runtime::sys::process;
use shoal_seccomp::Program;
use shoal_seccomp::cache::compile_on_disk;
use std::path::{Path, PathBuf};

/// Where containers' states are, when `--root` does not say.
const ROOT: &str = "/run/shoal-core";

/// The command's surroundings.
pub struct Context<'a> {
    /// The name that the program was called by.
    pub name: &'a str,
    pub root: Root,
    /// Whether the caller named the root.
    pub root_given: bool,
    pub log: &'a Log,
    /// Whether linux.cgroupsPath is systemd's `slice:prefix:name`.
    pub systemd: bool,
    /// Whether the container goes without control groups.
    pub cgroups_disabled: bool,
    /// Descriptors from 3 on that were open when the program was started.
    pub inherited: u32,
    /// What control groups forbid is ignored where no limit depends on it.
    pub rootless: bool,
}

impl<'a> Context<'a> {
    /// Reads the global flags; what they say wrongly is told with flag and value.
    pub fn new(name: &'a str, global: &Parsed, log: &'a Log, inherited: u32) -> Result<Self, Stop> {
        let given = global.text("root").filter(|path| !path.is_empty());
        let root = match given {
            Some(path) => absolute(path)?,
            None => default_root(),
        };
        if root == Path::new("/") {
            return Err(Stop::new("--root must not be the root of the file system"));
        }
        let (mut systemd, mut cgroups_disabled) = (global.on("systemd-cgroup"), false);
        match global.text("cgroup-manager") {
            None | Some("" | "cgroupfs") => {}
            Some("systemd") => systemd = true,
            Some("disabled") => cgroups_disabled = true,
            Some(other) => {
                return Err(Stop::new(format!(
                    "invalid --cgroup-manager {other:?}: it is cgroupfs, systemd or disabled"
                )));
            }
        }
        let rootless = match global.text("rootless").unwrap_or("auto") {
            "" | "auto" => !is_root(),
            "true" | "1" | "t" => true,
            "false" | "0" | "f" => false,
            other => {
                return Err(Stop::new(format!(
                    "invalid --rootless {other:?}: it is true, false or auto"
                )));
            }
        };
        Ok(Self {
            name,
            root: Root { path: root },
            root_given: given.is_some(),
            log,
            systemd,
            cgroups_disabled,
            inherited,
            rootless,
        })
    }

    /// How many descriptors from 3 on the program gets: those of socket activation, which `env` is told of, and `asked` more.
    pub fn pass_descriptors(&self, asked: u32, env: &mut Vec<String>) -> Result<u32, Stop> {
        let mut passed = 0;
        if let Some(count) = activated() {
            env.push(format!("LISTEN_FDS={count}"));
            env.push("LISTEN_PID=1".to_owned());
            passed = count.min(self.inherited);
        }
        let all = passed.saturating_add(asked);
        if asked > 0 && all > self.inherited {
            return Err(Stop::new(format!(
                "invalid value {asked} for --preserve-fds: descriptor {} is not open",
                FIRST_FD + self.inherited
            )));
        }
        Ok(all)
    }

    /// The compiled filter of a configuration, from the cache in the state directory where it can be.
    pub fn filter(&self, profile: Option<&Seccomp>) -> Result<Option<Program>, Failure> {
        let cache = self.root.path.join(".cache/seccomp");
        profile
            .map(|profile| compile_on_disk(&cache, profile))
            .transpose()
    }

    /// The machine's layout of control groups.
    pub fn layout(&self) -> Result<Layout, Failure> {
        Ok(detect::layout(&mounts()?))
    }

    /// Where a new container will be in resctrl, if it asks for that.
    pub fn resctrl(
        &self,
        id: &str,
        wanted: Option<&IntelRdt>,
    ) -> Result<Option<Assignment>, Failure> {
        wanted
            .map(|wanted| Assignment::plan(resctrl::mount_point(&mounts()?), id, wanted))
            .transpose()
    }
}

fn mounts() -> Result<String, Failure> {
    proc::read("/proc/self/mountinfo")
        .map_err(|error| Failure::io("reading /proc/self/mountinfo", &error))
}

/// Descriptors of socket activation (sd_listen_fds(3)), when they are meant for this process or for nobody by name.
fn activated() -> Option<u32> {
    let count: u32 = std::env::var("LISTEN_FDS").ok()?.parse().ok()?;
    let ours = match std::env::var("LISTEN_PID") {
        Ok(pid) => pid.parse() == Ok(std::process::id()),
        Err(_) => true,
    };
    (count > 0 && ours).then_some(count)
}

/// How many descriptors from 3 on are open, without a gap.
pub fn inherited() -> u32 {
    (FIRST_FD..)
        .take_while(|number| i32::try_from(*number).is_ok_and(process::is_open))
        .count()
        .try_into()
        .unwrap_or(0)
}

/// Whether this process has root's user id.
pub fn is_root() -> bool {
    // SAFETY: geteuid takes nothing and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

fn default_root() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(dir) if !is_root() && !dir.is_empty() => PathBuf::from(dir).join("shoal-core"),
        _ => PathBuf::from(ROOT),
    }
}

/// A path from the working directory, without `.` and `..`.
pub fn absolute(path: &str) -> Result<PathBuf, Stop> {
    let whole = std::path::absolute(path)
        .map_err(|error| Stop::new(format!("making path {path:?} absolute: {error}")))?;
    let mut clean = PathBuf::from("/");
    for part in whole.components() {
        match part {
            std::path::Component::Normal(part) => clean.push(part),
            std::path::Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    Ok(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_cleans_paths() {
        for (path, want) in [("/a/../b/./c/", "/b/c"), ("/..", "/"), ("/", "/")] {
            assert_eq!(absolute(path).expect(path), PathBuf::from(want));
        }
        let here = std::env::current_dir().expect("cwd");
        assert_eq!(absolute("x").expect("relative"), here.join("x"));
    }
}
