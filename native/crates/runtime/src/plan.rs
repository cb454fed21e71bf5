//! A configuration checked as a whole before anything is made: what passes here fails later only for the world's reasons.

use crate::caps::{self, Masks};
use crate::mount_options::{self, Options};
use crate::{cgroup, id, rlimits, sysctl, within};
use shoal_protocol::calls::Create;
use shoal_protocol::oci::Mount;
use shoal_protocol::{Failure, FailureCode};

/// Most layers that overlayfs stacks.
pub const LAYERS_MAX: usize = 500;
/// Most mounts of one container.
pub const MOUNTS_MAX: usize = 1024;
/// Longest host name the kernel takes.
pub const HOSTNAME_BYTES_MAX: usize = 64;

/// A mount with its options read and its destination split.
#[derive(Debug, Clone)]
pub struct PlannedMount {
    pub mount: Mount,
    pub options: Options,
    pub destination: Vec<String>,
}

/// Everything needed to make one container.
#[derive(Debug, Clone)]
pub struct Plan {
    pub create: Create,
    pub caps: Masks,
    /// `CLONE_NEW*` to clone with; the cgroup namespace is unshared later, once the process is in its group.
    pub namespaces: u64,
    pub new_cgroup_namespace: bool,
    /// (`CLONE_NEW*`, path) to join.
    pub joins: Vec<(i32, String)>,
    pub mounts: Vec<PlannedMount>,
}

impl Plan {
    /// Checks and reads a create call. Every refusal names field and value.
    pub fn new(create: Create) -> Result<Self, Failure> {
        id::check(&create.container_id)?;
        let spec = &create.spec;
        cgroup::check_path(&spec.linux.cgroups_path)?;
        check_process(&create)?;
        check_rootfs(&create)?;
        let (namespaces, new_cgroup_namespace, joins) = namespaces(&create)?;
        let owns = |kind: libc::c_int| namespaces & u64::from(kind.cast_unsigned()) != 0;
        sysctl::validate(
            &spec.linux.sysctl,
            owns(libc::CLONE_NEWNET),
            owns(libc::CLONE_NEWIPC),
        )?;
        if spec.mounts.len() > MOUNTS_MAX {
            return Err(Failure::invalid(
                "reading mounts",
                format!(
                    "{} mounts are over the limit of {MOUNTS_MAX}",
                    spec.mounts.len()
                ),
            ));
        }
        let mounts = spec
            .mounts
            .iter()
            .map(planned_mount)
            .collect::<Result<_, _>>()?;
        for path in spec
            .linux
            .masked_paths
            .iter()
            .chain(&spec.linux.readonly_paths)
        {
            within::components("reading linux.maskedPaths and linux.readonlyPaths", path)?;
        }
        let caps = caps::masks(&spec.process.capabilities)?;
        Ok(Self {
            caps,
            namespaces,
            new_cgroup_namespace,
            joins,
            mounts,
            create,
        })
    }

    /// Whether the container has a namespace of its own of this kind (`CLONE_NEW*`).
    pub fn owns(&self, kind: i32) -> bool {
        self.namespaces & u64::from(kind.cast_unsigned()) != 0
    }
}

fn check_process(create: &Create) -> Result<(), Failure> {
    let process = &create.spec.process;
    let doing = "reading process";
    if process.terminal {
        return Err(Failure::invalid(
            doing,
            "terminal is true; the core makes no terminals yet, set it to false",
        ));
    }
    if process.args.is_empty() {
        return Err(Failure::invalid(
            doing,
            "args is empty; give the command to run",
        ));
    }
    for text in process.args.iter().chain(&process.env) {
        if text.contains('\0') {
            return Err(Failure::invalid(
                doing,
                format!("{text:?} holds a NUL byte"),
            ));
        }
    }
    within::components(
        "reading process.cwd",
        if process.cwd.is_empty() {
            "/"
        } else {
            &process.cwd
        },
    )?;
    rlimits::validate(&process.rlimits)?;
    if let Some(score) = process
        .oom_score_adj
        .filter(|score| !(-1000..=1000).contains(score))
    {
        return Err(Failure::invalid(
            doing,
            format!("oomScoreAdj {score} is not in -1000..1000"),
        ));
    }
    let hostname = &create.spec.hostname;
    if hostname.len() > HOSTNAME_BYTES_MAX || hostname.contains('\0') {
        return Err(Failure::invalid(
            "reading hostname",
            format!("{hostname:?} is over {HOSTNAME_BYTES_MAX} bytes or holds a NUL byte"),
        ));
    }
    Ok(())
}

fn check_rootfs(create: &Create) -> Result<(), Failure> {
    let rootfs = &create.rootfs;
    if rootfs.layers.len() > LAYERS_MAX {
        return Err(Failure::invalid(
            "reading rootfs.layers",
            format!(
                "{} layers are over the limit of {LAYERS_MAX}",
                rootfs.layers.len()
            ),
        ));
    }
    for path in rootfs.layers.iter().chain([&rootfs.directory]) {
        if within::components("reading rootfs", path)?.is_empty() {
            return Err(Failure::invalid(
                "reading rootfs",
                format!("path {path:?} is the root of the host"),
            ));
        }
    }
    if let Some(log) = &create.log {
        within::components("reading log.path", &log.path)?;
        if log.max_files == 0 || log.max_size_bytes == Some(0) {
            return Err(Failure::invalid(
                "reading log",
                "maxFiles and maxSizeBytes must be at least 1",
            ));
        }
    }
    Ok(())
}

type Namespaces = (u64, bool, Vec<(i32, String)>);

fn namespaces(create: &Create) -> Result<Namespaces, Failure> {
    let (mut flags, mut cgroup, mut joins) = (0u64, false, Vec::new());
    for namespace in &create.spec.linux.namespaces {
        let doing = || format!("reading linux.namespaces {:?}", namespace.kind);
        let flag = match namespace.kind.as_str() {
            "mount" => libc::CLONE_NEWNS,
            "pid" => libc::CLONE_NEWPID,
            "network" => libc::CLONE_NEWNET,
            "uts" => libc::CLONE_NEWUTS,
            "ipc" => libc::CLONE_NEWIPC,
            "cgroup" => libc::CLONE_NEWCGROUP,
            other => {
                return Err(Failure::invalid(
                    doing(),
                    format!("namespace type {other:?} is not supported"),
                ));
            }
        };
        let joinable = matches!(namespace.kind.as_str(), "network" | "uts" | "ipc");
        match namespace.path.as_deref().filter(|path| !path.is_empty()) {
            Some(path) if joinable => joins.push((flag, path.to_owned())),
            Some(path) => {
                return Err(Failure::invalid(
                    doing(),
                    format!("joining {path:?} is not supported; leave path out to get a new one"),
                ));
            }
            None if flag == libc::CLONE_NEWCGROUP => cgroup = true,
            None => flags |= u64::from(flag.cast_unsigned()),
        }
    }
    for (needed, name) in [(libc::CLONE_NEWNS, "mount"), (libc::CLONE_NEWPID, "pid")] {
        if flags & u64::from(needed.cast_unsigned()) == 0 {
            return Err(Failure::new(
                FailureCode::Invalid,
                "reading linux.namespaces",
                format!(
                    "a container needs a {name} namespace of its own; add {{\"type\":\"{name}\"}}"
                ),
            ));
        }
    }
    Ok((flags, cgroup, joins))
}

fn planned_mount(mount: &Mount) -> Result<PlannedMount, Failure> {
    let destination = within::components("reading mounts.destination", &mount.destination)?;
    if destination.is_empty() {
        return Err(Failure::invalid(
            "reading mounts.destination",
            "a mount on / would hide the root; choose another destination",
        ));
    }
    let mut options = mount_options::parse(&mount.destination, &mount.options)?;
    options.bind |= mount.kind == "bind";
    if options.bind && !mount.source.starts_with('/') {
        return Err(Failure::invalid(
            format!("reading the mount on {:?}", mount.destination),
            format!("bind source {:?} is not an absolute path", mount.source),
        ));
    }
    if !options.bind
        && !matches!(
            mount.kind.as_str(),
            "proc" | "tmpfs" | "devpts" | "mqueue" | "sysfs" | "cgroup" | "cgroup2"
        )
    {
        return Err(Failure::invalid(
            format!("reading the mount on {:?}", mount.destination),
            format!("file system type {:?} is not supported", mount.kind),
        ));
    }
    Ok(PlannedMount {
        mount: mount.clone(),
        options,
        destination,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn base() -> Value {
        json!({
            "containerId": "a",
            "spec": {
                "process": {"args": ["true"], "cwd": "/"},
                "linux": {"cgroupsPath": "/t/a", "namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "cgroup"}]}
            },
            "rootfs": {"layers": ["/l"], "directory": "/d"},
            "log": null
        })
    }

    fn plan(change: impl FnOnce(&mut Value)) -> Result<Plan, Failure> {
        let mut value = base();
        change(&mut value);
        Plan::new(serde_json::from_value(value).expect("a create call"))
    }

    #[test]
    fn new_reads_namespaces() {
        let plan = plan(|_| {}).expect("plan");
        assert!(
            plan.owns(libc::CLONE_NEWNS)
                && plan.owns(libc::CLONE_NEWPID)
                && plan.new_cgroup_namespace
        );
        assert!(!plan.owns(libc::CLONE_NEWNET));
    }

    #[test]
    fn new_refuses_bad_fields_by_name() {
        type Case = (fn(&mut Value), &'static str);
        let cases: [Case; 12] = [
            (|v| v["containerId"] = json!("../x"), "containerId"),
            (|v| v["spec"]["process"]["args"] = json!([]), "args"),
            (
                |v| v["spec"]["process"]["terminal"] = json!(true),
                "terminal",
            ),
            (|v| v["spec"]["process"]["cwd"] = json!("x"), "cwd"),
            (
                |v| v["spec"]["linux"]["cgroupsPath"] = json!("/../x"),
                "cgroupsPath",
            ),
            (
                |v| v["spec"]["linux"]["namespaces"] = json!([{"type": "pid"}]),
                "mount",
            ),
            (
                |v| v["spec"]["linux"]["namespaces"] = json!([{"type": "user"}]),
                "user",
            ),
            (
                |v| v["spec"]["mounts"] = json!([{"destination": "/a/../../b", "type": "tmpfs"}]),
                "destination",
            ),
            (
                |v| v["spec"]["mounts"] = json!([{"destination": "/a", "type": "nfs"}]),
                "nfs",
            ),
            (
                |v| {
                    v["spec"]["mounts"] =
                        json!([{"destination": "/a", "type": "bind", "source": "x"}])
                },
                "bind source",
            ),
            (
                |v| v["spec"]["linux"]["sysctl"] = json!({"kernel.core_pattern": "|x"}),
                "core_pattern",
            ),
            (|v| v["rootfs"]["directory"] = json!("/"), "rootfs"),
        ];
        for (change, word) in cases {
            let failure = plan(change).expect_err(word);
            assert!(
                failure.to_string().contains(word),
                "{failure} should name {word}"
            );
            assert_eq!(failure.code, FailureCode::Invalid);
        }
    }
}
