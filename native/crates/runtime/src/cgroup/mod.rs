//! Control groups of a container: which layout the machine has, and one driver for each.

pub mod check;
pub mod convert;
pub mod detect;
pub mod devices;
pub mod ebpf;
pub(crate) mod entrance;
pub mod fast;
pub mod files;
pub mod freeze;
pub mod group;
pub mod kill;
pub mod limits_v1;
pub mod limits_v2;
pub mod paths;
pub mod stats;
mod stats_v1;
mod stats_v2;
pub mod v1;
pub mod v2;
pub mod writes;

pub use check::{check, warnings};
pub use kill::REMOVE_TIMEOUT_MS;
pub use stats::Stats;

use crate::sys::{file, is};
use detect::{Layout, Mode};
use files::{Files, Kernel};
use shoal_protocol::{Failure, oci::Resources};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// Whether a container may go without groups where the caller has no right to make them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The configuration names a group, so that it must be made.
    Required,
    /// It names none (rootless): without a right to make one, only limits that are asked for are an error.
    Optional,
}

/// Controllers of v1 (none is every one) and the path below the container's own group (`exec --cgroup`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Below {
    pub controllers: Vec<String>,
    pub path: String,
}

impl Below {
    /// Reads `path` or `controller,controller:path`.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let (controllers, path) = match text.split_once(':') {
            Some((controllers, path)) => (
                controllers.split(',').map(str::to_owned).collect(),
                path.to_owned(),
            ),
            None => (Vec::new(), text.to_owned()),
        };
        if path.split('/').any(|part| part == "..") || path.contains('\0') {
            return Err(Failure::invalid(
                "reading --cgroup",
                format!("bad sub cgroup path {path:?}: it leads out of the container's cgroup"),
            ));
        }
        Ok(Self { controllers, path })
    }
}

/// What a container needs of control groups; `path` is absolute from each hierarchy's mount (see `paths::resolve`).
pub trait Driver: Send + Sync {
    /// Makes the group with its limits and device rules. Fails when the group is there with processes in it, or frozen: it is
    /// somebody's then. A failure leaves nothing behind that this call made, so that the caller must not `remove` the path.
    fn create(&self, path: &str, resources: &Resources) -> Result<(), Failure> {
        self.create_with(path, resources, Access::Required)
    }
    /// As `create`, for callers that may have no right to control groups at all.
    fn create_with(&self, path: &str, resources: &Resources, access: Access)
    -> Result<(), Failure>;
    /// Whether a container with these limits is cloned into its group, which then has to be made first.
    fn clones_into(&self, resources: &Resources) -> bool;
    /// A descriptor to clone straight into, where the layout can (v2).
    fn clone_target(&self, path: &str) -> Result<Option<OwnedFd>, Failure>;
    /// A descriptor to clone into where a container is to have a group that keeps nothing of it but its name: the v2 mount beside v1,
    /// for callers that look there. Made by this call; `withdraw` takes it back, as long as nothing else of the group has been made.
    fn place(&self, _path: &str) -> Result<Option<OwnedFd>, Failure> {
        Ok(None)
    }
    /// Removes what `place` has made.
    fn withdraw(&self, _path: &str) {}
    /// As `clone_target`, for a further process of the container whose init is `init`: where groups have been made inside, so
    /// that the container's own takes no process any more (v2), it is the one that init is in.
    fn join_target(&self, path: &str, _init: i32) -> Result<Option<OwnedFd>, Failure> {
        self.clone_target(path)
    }
    /// Puts a process in; nothing to do for one that was cloned into `clone_target`.
    fn attach(&self, path: &str, pid: i32) -> Result<(), Failure>;
    /// As `attach`, for a process with one thread that waits for its maker's word: gives what it is to put itself in by, with
    /// `entrance::enter`, as that is quicker (v1). None when it is in.
    fn admit(&self, path: &str, pid: i32) -> Result<Vec<OwnedFd>, Failure> {
        self.attach(path, pid).map(|()| Vec::new())
    }
    /// Puts a process in groups below the container's own, and in its own where `below` says nothing.
    fn attach_below(&self, path: &str, below: &[Below], pid: i32) -> Result<(), Failure>;
    /// Changes limits of a group with processes in it; absent is unchanged. Where the container has no group for what is
    /// asked (v1), it gets one. Device rules are only changed when there are some, and then replace the former.
    fn update(&self, path: &str, resources: &Resources) -> Result<(), Failure>;
    /// Stops every process of the group. All run again when one could not be stopped.
    fn freeze(&self, path: &str) -> Result<(), Failure>;
    /// Lets them go on.
    fn thaw(&self, path: &str) -> Result<(), Failure>;
    /// Whether the group was stopped by `freeze`.
    fn is_frozen(&self, path: &str) -> bool;
    /// What the group uses; zero where there is no group.
    fn stats(&self, path: &str) -> Stats;
    /// Sends a signal to every process of the group and those below. After SIGKILL a frozen group runs again, so that it dies.
    fn kill_all(&self, path: &str, signal: i32) -> Result<(), Failure>;
    /// The directories of the group, one a hierarchy; some may not be there.
    fn directories(&self, path: &str) -> Vec<PathBuf>;
    /// How often the kernel has killed a process of the group for memory.
    fn oom_kills(&self, path: &str) -> u64;
    /// A descriptor that becomes readable when memory ran out; None where the kernel cannot tell.
    fn oom_watch(&self, path: &str) -> Option<OomWatch>;
    /// What is mounted in a container at /sys/fs/cgroup: (directory name, mount options), or None for a single v2 mount.
    fn views(&self, resources: &Resources) -> Option<Vec<(String, String)>>;
    /// Whether device access is limited by this driver.
    fn limits_devices(&self) -> bool;

    /// Every process of the group and those below, in the caller's pid namespace, sorted.
    fn pids(&self, path: &str) -> Vec<i32> {
        group::pids(&self.directories(path))
    }
    /// Kills what is left in the group and removes it, with the groups made inside; succeeds when there is no such group.
    /// Takes at most `REMOVE_TIMEOUT_MS`.
    fn remove(&self, path: &str) -> Result<(), Failure> {
        kill::destroy(&self.directories(path), &|| {
            // What cannot be killed shows as a group that stays busy, which is the error.
            drop(self.kill_all(path, libc::SIGKILL));
        })
    }
}

/// What `oom_watch` needs to keep open.
pub struct OomWatch {
    pub event: OwnedFd,
    pub(crate) _held: Option<OwnedFd>,
}

/// The driver for this machine.
pub fn driver(layout: &Layout) -> Box<dyn Driver> {
    of(layout, false)
}

/// As `driver`, for containers whose callers look for their group in the v2 mount of a hybrid machine too (runc makes one there).
pub fn driver_for_callers(layout: &Layout) -> Box<dyn Driver> {
    of(layout, true)
}

fn of(layout: &Layout, named: bool) -> Box<dyn Driver> {
    match (&layout.mode, &layout.unified) {
        (Mode::V2, Some(mount)) => Box::new(v2::V2 {
            mount: mount.clone(),
            files: Box::new(Kernel),
            duty: v2::Duty::Everything {
                devices: ebpf::available(),
            },
        }),
        (_, unified) => {
            let devices = layout
                .hierarchies
                .iter()
                .any(|hierarchy| hierarchy.has("devices"));
            Box::new(v1::V1 {
                hierarchies: layout.hierarchies.clone(),
                files: Box::new(Kernel),
                unified: unified.as_ref().map(|mount| v2::V2 {
                    mount: mount.clone(),
                    files: Box::new(Kernel),
                    duty: v2::Duty::BesideV1 {
                        devices: !devices && ebpf::available(),
                    },
                }),
                named,
            })
        }
    }
}

/// Refuses a path that could leave the hierarchy, naming it.
pub fn check_path(path: &str) -> Result<(), Failure> {
    paths::check(path).map(drop)
}

/// Every process of the group (and groups below it), in the caller's pid namespace.
pub fn pids(driver: &dyn Driver, path: &str) -> Vec<i32> {
    driver.pids(path)
}

/// Sends a signal to every process of the group once, without stopping the group for it.
pub fn signal_all(driver: &dyn Driver, path: &str, signal: i32) {
    kill::signal_all(&driver.directories(path), signal, false);
}

/// Kills what is left in the group and removes it. Succeeds when there is no such group.
pub fn destroy(driver: &dyn Driver, path: &str) -> Result<(), Failure> {
    driver.remove(path)
}

/// Whether a failure is that the caller has no right to make groups there.
fn is_denied(failure: &Failure) -> bool {
    matches!(
        failure.errno,
        Some(libc::EACCES | libc::EPERM | libc::EROFS)
    )
}

/// The end of a `create_with` that was denied.
fn denied(access: Access, asked: Option<&str>, failure: Failure) -> Result<(), Failure> {
    if access == Access::Required || !is_denied(&failure) {
        return Err(failure);
    }
    match asked {
        None => Ok(()),
        Some(controller) => Err(Failure {
            message: format!(
                "container could not join or create cgroup ({}: {}); rootless needs no limits + no cgrouppath when no permission is granted for cgroups",
                failure.doing, failure.message
            ),
            doing: format!("cannot set {controller} limit"),
            ..failure
        }),
    }
}

/// Whether this process is root on the machine, not only in a user namespace.
fn is_privileged() -> bool {
    // SAFETY: no pointers.
    let root = unsafe { libc::geteuid() } == 0;
    root && std::fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]))
}

/// `key N` in a flat-keyed file; 0 when absent.
fn keyed(text: &str, key: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(name, _)| *name == key)
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}

/// Puts a process in one group.
fn enter(files: &dyn Files, dir: &std::path::Path, pid: i32) -> Result<(), Failure> {
    files
        .write(&dir.join("cgroup.procs"), &pid.to_string())
        .map_err(|error| {
            not_entered(
                &format!("adding pid {pid} to cgroup {}", dir.display()),
                &error,
            )
        })
}

/// A group that does not take a process.
fn not_entered(doing: &str, error: &std::io::Error) -> Failure {
    let mut failure = Failure::io(doing, error);
    if is(error, libc::EINVAL) {
        failure.message =
            format!("{error} (a realtime process in a group without realtime runtime?)");
    }
    failure
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

    #[test]
    fn below_reads_what_exec_is_given() {
        let read = |text| Below::parse(text).map(|below| (below.controllers, below.path));
        assert_eq!(read("sub/a"), Ok((vec![], "sub/a".into())));
        assert_eq!(
            read("memory,pids:sub"),
            Ok((vec!["memory".into(), "pids".into()], "sub".into()))
        );
        assert!(read("../x").is_err() && read("memory:a/../..").is_err());
    }

    #[test]
    fn denied_lets_a_container_without_limits_go_on_and_names_a_limit() {
        let failure = Failure::io(
            "making cgroup /x",
            &std::io::Error::from_raw_os_error(libc::EACCES),
        );
        assert!(denied(Access::Optional, None, failure.clone()).is_ok());
        assert!(denied(Access::Required, None, failure.clone()).is_err());
        let said = denied(Access::Optional, Some("pids"), failure)
            .expect_err("a limit")
            .to_string();
        assert!(
            said.contains("cannot set pids limit: container could not join or create cgroup"),
            "{said}"
        );
    }
}
