//! The mounts of a configuration, checked before anything is made.

use super::{PROC_ALLOWED, id_maps};
use crate::mount_options::{self, Options};
use crate::sys::file;
use crate::{userns, within};
use shoal_protocol::Failure;
use shoal_protocol::oci::{IdMapping, Mount, Spec};
use std::os::fd::OwnedFd;
use std::path::Path;

/// Most mounts of one container; a mount namespace of the kernel holds 100,000.
pub const MOUNTS_MAX: usize = 4096;

/// A mount with its options read and its destination split.
#[derive(Debug, Clone)]
pub struct PlannedMount {
    pub mount: Mount,
    pub options: Options,
    pub destination: Vec<String>,
    /// By what its files' owners are seen, if they are mapped.
    pub owners: Option<Owners>,
}

/// Where the mappings of a mount's owners come from.
#[derive(Debug, Clone)]
pub enum Owners {
    /// The mount's own, or the container's: of users and of groups.
    Maps(Vec<IdMapping>, Vec<IdMapping>),
    /// The user namespace at this path, which the container joins.
    Of(String),
}

impl Owners {
    /// A user namespace that has them.
    pub fn namespace(&self) -> Result<OwnedFd, Failure> {
        match self {
            Self::Maps(uids, gids) => userns::namespace(uids, gids),
            Self::Of(path) => file::open(path, libc::O_RDONLY)
                .map_err(|error| Failure::io(format!("opening user namespace {path:?}"), &error)),
        }
    }
}

/// Reads the mounts; every refusal names the mount and what is wrong with it.
/// `root` is the root's directory on the host, where it has one: a destination may be written from there.
pub fn plan(spec: &Spec, root: Option<&Path>) -> Result<Vec<PlannedMount>, Failure> {
    if spec.mounts.len() > MOUNTS_MAX {
        return Err(Failure::invalid(
            "reading mounts",
            format!(
                "{} mounts are over the limit of {MOUNTS_MAX}",
                spec.mounts.len()
            ),
        ));
    }
    spec.mounts
        .iter()
        .map(|mount| planned(mount, spec, root))
        .collect()
}

fn planned(mount: &Mount, spec: &Spec, root: Option<&Path>) -> Result<PlannedMount, Failure> {
    let refuse = |why: String| {
        Err(Failure::invalid(
            format!("reading the mount on {:?}", mount.destination),
            why,
        ))
    };
    let destination = destination(&mount.destination, root)?;
    let mut options = mount_options::parse(&mount.destination, &mount.options)?;
    options.bind |= mount.kind == "bind";
    for text in [&mount.source, &mount.kind] {
        if text.contains('\0') {
            return refuse(format!("{text:?} holds a NUL byte"));
        }
    }
    if options.bind && !options.remount && !mount.source.starts_with('/') {
        return refuse(format!(
            "bind source {:?} is not an absolute path",
            mount.source
        ));
    }
    if !options.bind && !options.remount && mount.kind.is_empty() {
        return refuse("type is missing; name a file system, or bind".into());
    }
    check_proc(mount, &options, &destination)?;
    let mut mount = mount.clone();
    if let Some(text) = &options.id_maps {
        let container = (&spec.linux.uid_mappings[..], &spec.linux.gid_mappings[..]);
        match id_maps::read(text, container) {
            Ok(maps) => (mount.uid_mappings, mount.gid_mappings) = maps,
            Err(why) => return refuse(format!("option idmap: {why}")),
        }
    }
    let mapped = !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty();
    if mapped && (mount.uid_mappings.is_empty() || mount.gid_mappings.is_empty()) {
        return refuse("uidMappings and gidMappings must be given both or not at all".into());
    }
    if (mapped || options.idmap.is_some()) && !options.bind {
        return refuse("only bind mounts can have their owners mapped; leave idmap out".into());
    }
    let owners = if mapped {
        Some(Owners::Maps(
            mount.uid_mappings.clone(),
            mount.gid_mappings.clone(),
        ))
    } else if options.idmap.is_none() {
        None
    } else if !spec.linux.uid_mappings.is_empty() {
        Some(Owners::Maps(
            spec.linux.uid_mappings.clone(),
            spec.linux.gid_mappings.clone(),
        ))
    } else if let Some(path) = joined_user_namespace(spec) {
        Some(Owners::Of(path))
    } else {
        return refuse(
            "idmap needs uidMappings and gidMappings, of the mount or of the container".into(),
        );
    };
    Ok(PlannedMount {
        mount,
        options,
        destination,
        owners,
    })
}

fn joined_user_namespace(spec: &Spec) -> Option<String> {
    let mut users = spec
        .linux
        .namespaces
        .iter()
        .filter(|one| one.kind == "user");
    users.next()?.path.clone()
}

/// What of the mounts is ignored, for warnings: data that a bind cannot tell any file system.
pub fn warnings(mounts: &[PlannedMount]) -> Vec<String> {
    mounts
        .iter()
        .filter(|planned| planned.options.bind)
        .flat_map(|planned| {
            planned.options.data.iter().map(|(key, _)| {
                format!(
                    "the mount on {:?} is a bind: its option {key:?} has no meaning and is ignored",
                    planned.mount.destination
                )
            })
        })
        .collect()
}

/// A relative destination is from the root (runtime-spec "Mounts": deprecated, still to be taken), and one that begins with the root's
/// own path is taken as below it, as runc does.
fn destination(path: &str, root: Option<&Path>) -> Result<Vec<String>, Failure> {
    let doing = "reading mounts.destination";
    let mut parts = if path.starts_with('/') || path.is_empty() {
        within::components(doing, path)?
    } else {
        within::components(doing, &format!("/{path}"))?
    };
    let inner = root
        .map(Path::components)
        .map(|root| root.skip(1).map(|part| part.as_os_str()))
        .filter(|root| {
            let root: Vec<_> = root.clone().collect();
            parts.len() > root.len() && root.iter().zip(&parts).all(|(a, b)| *a == b.as_str())
        })
        .map_or(0, Iterator::count);
    parts.drain(..inner);
    if parts.is_empty() {
        return Err(Failure::invalid(
            doing,
            "a mount on / would hide the root; choose another destination",
        ));
    }
    Ok(parts)
}

/// /proc itself is procfs (a bind is looked at when its source is open); in it, few files may be covered.
fn check_proc(mount: &Mount, options: &Options, destination: &[String]) -> Result<(), Failure> {
    if destination[0] != "proc" || options.remount {
        return Ok(());
    }
    let path = destination.join("/");
    let good = if destination.len() == 1 {
        options.bind || mount.kind == "proc"
    } else {
        PROC_ALLOWED.contains(&path.as_str())
    };
    if good {
        return Ok(());
    }
    Err(Failure::invalid(
        format!("reading the mount on {:?}", mount.destination),
        format!(
            "\"/{path}\" cannot be mounted because it is {}",
            if destination.len() == 1 {
                "not of type proc"
            } else {
                "inside /proc"
            }
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn plan_of(mounts: Value) -> Result<Vec<PlannedMount>, Failure> {
        let spec = json!({"mounts": mounts});
        plan(
            &serde_json::from_value(spec).expect("spec"),
            Some(Path::new("/srv/root")),
        )
    }

    #[test]
    fn plan_takes_what_callers_write() {
        let planned = plan_of(json!([
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "data", "type": "none", "source": "/srv", "options": ["rbind"]},
            {"destination": "/proc/cpuinfo", "type": "bind", "source": "/srv/cpuinfo"},
            {"destination": "/tmp", "type": "overlay", "source": "overlay", "options": ["lowerdir=/a:/b"]},
            {"destination": "/dev", "options": ["remount", "ro"]},
            {"destination": "/srv/root/mnt/x", "type": "tmpfs"},
            {"destination": "/srv/rootx", "type": "tmpfs"},
        ]))
        .expect("plan");
        assert_eq!(planned[1].destination, ["data"]);
        assert!(planned[1].options.bind && planned[2].options.bind);
        assert_eq!(planned[3].options.data.len(), 1);
        assert_eq!(planned[5].destination, ["mnt", "x"]);
        assert_eq!(planned[6].destination, ["srv", "rootx"]);
    }

    #[test]
    fn plan_refuses_by_name() {
        let maps = json!([{"containerID": 0, "hostID": 1, "size": 1}]);
        for (mount, word) in [
            (json!({"destination": "/", "type": "tmpfs"}), "/ would hide"),
            (json!({"type": "tmpfs"}), "destination"),
            (
                json!({"destination": "/a/../../b", "type": "tmpfs"}),
                "/a/../../b",
            ),
            (json!({"destination": "/a\u{0}", "type": "tmpfs"}), "NUL"),
            (json!({"destination": "/a"}), "type is missing"),
            (
                json!({"destination": "/a", "type": "bind", "source": "x"}),
                "bind source \"x\"",
            ),
            (
                json!({"destination": "/a", "type": "bind", "source": "/x\u{0}"}),
                "NUL",
            ),
            (
                json!({"destination": "/proc", "type": "tmpfs"}),
                "not of type proc",
            ),
            (
                json!({"destination": "/proc/sysrq-trigger", "type": "bind", "source": "/x"}),
                "inside /proc",
            ),
            (
                json!({"destination": "//proc/./sys", "type": "tmpfs"}),
                "inside /proc",
            ),
            (
                json!({"destination": "/a", "type": "tmpfs", "options": ["idmap"]}),
                "idmap",
            ),
            (
                json!({"destination": "/a", "type": "bind", "source": "/x", "options": ["idmap"]}),
                "idmap needs",
            ),
            (
                json!({"destination": "/a", "type": "bind", "source": "/x", "uidMappings": maps}),
                "both",
            ),
        ] {
            let failure = plan_of(json!([mount])).expect_err(word);
            assert!(failure.to_string().contains(word), "{failure}");
        }
        let many = vec![json!({"destination": "/a", "type": "tmpfs"}); MOUNTS_MAX + 1];
        assert!(
            plan_of(json!(many))
                .expect_err("too many")
                .message
                .contains("4097")
        );
    }
}
