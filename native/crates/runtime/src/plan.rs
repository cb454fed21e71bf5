//! A configuration checked as a whole before anything is made: what passes here fails later only for the world's reasons.

use crate::caps::{self, Masks};
use crate::namespaces::{self, Namespaces};
use crate::{attributes, cgroup, filesystem, hooks, net_devices, rlimits, user, userns};

pub use crate::filesystem::RootSource;
use shoal_protocol::Failure;
use shoal_protocol::oci::{self, Spec};

/// Longest host name and domain name the kernel takes.
pub const HOSTNAME_BYTES_MAX: usize = 64;

/// crun's annotation by which the program keeps its caller's further groups: `1`.
pub const KEEP_GROUPS: &str = "run.oci.keep_original_groups";

/// Whether a configuration asks for its caller's groups.
pub fn keeps_groups(spec: &Spec) -> bool {
    spec.annotations
        .get(KEEP_GROUPS)
        .is_some_and(|value| value == "1")
}

/// What a plan is made of.
#[derive(Debug, Clone)]
pub struct Input {
    /// Checked by the caller: callers differ in what an id may be.
    pub container_id: String,
    pub spec: Spec,
    pub root: RootSource,
    /// The group, as an absolute path in every hierarchy.
    pub cgroup: String,
}

/// Everything needed to make one container.
#[derive(Debug, Clone)]
pub struct Plan {
    pub container_id: String,
    pub spec: Spec,
    /// The root, mounts, devices and what is hidden of them.
    pub files: filesystem::Plan,
    pub cgroup: String,
    pub caps: Masks,
    pub namespaces: Namespaces,
    /// Further groups are the caller's (`KEEP_GROUPS`). Only for a caller whose groups the container's owner has anyway: never set here.
    pub keep_groups: bool,
}

impl Plan {
    /// Checks and reads a configuration. Every refusal names field and value.
    pub fn new(input: Input) -> Result<Self, Failure> {
        let Input {
            container_id,
            spec,
            root,
            cgroup,
        } = input;
        cgroup::check_path(&cgroup)?;
        check_process(&spec.process)?;
        check_names(&spec)?;
        attributes::validate(&spec.process, spec.linux.personality.as_ref())?;
        hooks::validate(&spec.hooks)?;
        cgroup::check(&spec.linux.resources)?;
        check_unsupported(&spec)?;
        net_devices::validate(&spec.linux.net_devices)?;
        userns::validate("linux.uidMappings", &spec.linux.uid_mappings)?;
        userns::validate("linux.gidMappings", &spec.linux.gid_mappings)?;
        let namespaces = Namespaces::read(&spec.linux.namespaces)?;
        check_namespaces(&spec, &namespaces)?;
        let owned = namespaces.flags().cast_unsigned().into();
        let files = filesystem::Plan::new(&spec, root, owned)?;
        let caps = caps::masks(&spec.process.capabilities);
        Ok(Self {
            container_id,
            caps,
            namespaces,
            files,
            cgroup,
            keep_groups: false,
            spec,
        })
    }

    /// What of the configuration is not as it says, one line each, for the log. In runc's words where it has them.
    pub fn warnings(&self) -> Vec<String> {
        let mut lines = cgroup::warnings(&self.spec.linux.resources);
        lines.extend(caps::warnings(&self.spec.process.capabilities));
        lines.extend(self.files.warnings());
        lines
    }

    /// Whether the container has a namespace of its own of this kind (`CLONE_NEW*`) that is new.
    pub fn makes(&self, kind: i32) -> bool {
        self.namespaces.makes(kind)
    }
}

/// Checks a process that is started in a container, its first or a later one. None at all (no args) is refused only where one is needed.
pub fn check_process(process: &oci::Process) -> Result<(), Failure> {
    let doing = "reading process";
    for text in process.args.iter().chain(&process.env) {
        if text.contains('\0') {
            return Err(Failure::invalid(
                doing,
                format!("{text:?} holds a NUL byte"),
            ));
        }
    }
    let cwd = &process.cwd;
    if !cwd.is_empty() && (!cwd.starts_with('/') || cwd.contains('\0')) {
        return Err(Failure::invalid(
            "reading process.cwd",
            format!("{cwd:?} is not an absolute path; begin it with /"),
        ));
    }
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
    let user = &process.user;
    for (field, id) in [("uid", user.uid), ("gid", user.gid)].into_iter().chain(
        user.additional_gids
            .iter()
            .map(|gid| ("additionalGids", *gid)),
    ) {
        // -1 means "as it is" to setresuid(2): the program would stay root.
        if id > user::ID_MAX {
            return Err(Failure::invalid(
                format!("reading process.user.{field}"),
                format!("{id} is over {}; it is nobody's", user::ID_MAX),
            ));
        }
    }
    if let Some(umask) = user.umask.filter(|umask| *umask > 0o777) {
        return Err(Failure::invalid(
            doing,
            format!("user.umask {umask} is over 511 (0777)"),
        ));
    }
    Ok(())
}

/// What the specification has and this runtime has not: refused, as a container without what it asked for would be another one.
fn check_unsupported(spec: &Spec) -> Result<(), Failure> {
    if let Some(policy) = &spec.linux.memory_policy {
        attributes::validate_memory_policy(policy)?;
    }
    Ok(())
}

fn check_names(spec: &Spec) -> Result<(), Failure> {
    for (field, value) in [
        ("hostname", &spec.hostname),
        ("domainname", &spec.domainname),
    ] {
        if value.len() > HOSTNAME_BYTES_MAX || value.contains('\0') {
            return Err(Failure::invalid(
                format!("reading {field}"),
                format!("{value:?} is over {HOSTNAME_BYTES_MAX} bytes or holds a NUL byte"),
            ));
        }
    }
    Ok(())
}

/// What makes no sense together: settings of namespaces that the container does not have for itself.
fn check_namespaces(spec: &Spec, namespaces: &Namespaces) -> Result<(), Failure> {
    let linux = &spec.linux;
    let needs = |kind: i32, field: &str, used: bool| {
        if !used || namespaces.has(kind) {
            return Ok(());
        }
        let name = namespaces::name(kind);
        Err(Failure::invalid(
            format!("reading {field}"),
            format!(
                "it needs a {name} namespace of the container's own; add {{\"type\":\"{name}\"}} to linux.namespaces"
            ),
        ))
    };
    needs(libc::CLONE_NEWUTS, "hostname", !spec.hostname.is_empty())?;
    needs(
        libc::CLONE_NEWUTS,
        "domainname",
        !spec.domainname.is_empty(),
    )?;
    needs(
        libc::CLONE_NEWNS,
        "linux.maskedPaths",
        !linux.masked_paths.is_empty(),
    )?;
    needs(
        libc::CLONE_NEWNS,
        "linux.readonlyPaths",
        !linux.readonly_paths.is_empty(),
    )?;
    needs(
        libc::CLONE_NEWNS,
        "linux.rootfsPropagation",
        !linux.rootfs_propagation.is_empty(),
    )?;
    if !linux.net_devices.is_empty() && !namespaces.has(libc::CLONE_NEWNET) {
        return Err(Failure::invalid(
            "reading linux.netDevices",
            "unable to move network devices without a NET namespace; add {\"type\":\"network\"} to linux.namespaces",
        ));
    }
    let mapped = !linux.uid_mappings.is_empty() || !linux.gid_mappings.is_empty();
    needs(libc::CLONE_NEWUSER, "linux.uidMappings", mapped)?;
    if namespaces.makes(libc::CLONE_NEWUSER)
        && (linux.uid_mappings.is_empty() || linux.gid_mappings.is_empty())
    {
        return Err(Failure::invalid(
            "reading linux.uidMappings",
            "a new user namespace needs linux.uidMappings and linux.gidMappings",
        ));
    }
    needs(
        namespaces::NEWTIME,
        "linux.timeOffsets",
        !linux.time_offsets.is_empty(),
    )?;
    if namespaces.joins(namespaces::NEWTIME) && !linux.time_offsets.is_empty() {
        return Err(Failure::invalid(
            "reading linux.timeOffsets",
            "offsets of a time namespace that is joined by path cannot be changed; leave them out",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use shoal_protocol::FailureCode;

    fn base() -> Value {
        json!({
            "process": {"args": ["true"], "cwd": "/"},
            "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "cgroup"}]}
        })
    }

    fn plan(change: impl FnOnce(&mut Value)) -> Result<Plan, Failure> {
        let mut value = base();
        change(&mut value);
        Plan::new(Input {
            container_id: "a".into(),
            cgroup: value["cgroup"].as_str().unwrap_or("/t/a").to_owned(),
            root: RootSource::Directory(value["rootfs"].as_str().unwrap_or("/d").into()),
            spec: serde_json::from_value(value).expect("a configuration"),
        })
    }

    #[test]
    fn new_reads_namespaces() {
        let plan = plan(|_| {}).expect("plan");
        assert!(plan.makes(libc::CLONE_NEWNS) && plan.makes(libc::CLONE_NEWPID));
        assert!(plan.makes(libc::CLONE_NEWCGROUP) && !plan.makes(libc::CLONE_NEWNET));
    }

    #[test]
    fn new_refuses_bad_fields_by_name() {
        type Case = (fn(&mut Value), &'static str);
        let cases: [Case; 22] = [
            (|v| v["process"]["args"] = json!(["a\u{0}"]), "NUL"),
            (|v| v["process"]["cwd"] = json!("x"), "cwd"),
            (|v| v["process"]["oomScoreAdj"] = json!(1001), "1001"),
            (|v| v["process"]["user"] = json!({"umask": 4096}), "umask"),
            (
                |v| v["process"]["user"] = json!({"uid": u32::MAX}),
                "user.uid",
            ),
            (
                |v| v["process"]["user"] = json!({"gid": u32::MAX}),
                "user.gid",
            ),
            (
                |v| v["process"]["user"] = json!({"additionalGids": [1, u32::MAX]}),
                "additionalGids",
            ),
            (
                |v| v["linux"]["netDevices"] = json!({"eth0": {}}),
                "netDevices",
            ),
            (|v| v["cgroup"] = json!("/../x"), "cgroupsPath"),
            (
                |v| v["linux"]["namespaces"] = json!([{"type": "none"}]),
                "none",
            ),
            (
                |v| v["linux"]["namespaces"] = json!([{"type": "user"}]),
                "uidMappings",
            ),
            (
                |v| v["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 1, "size": 1}]),
                "user namespace",
            ),
            (|v| v["hostname"] = json!("x"), "uts"),
            (|v| v["domainname"] = json!("x".repeat(65)), "domainname"),
            (
                |v| {
                    v["linux"] = json!({"maskedPaths": ["/x"]});
                },
                "mount namespace",
            ),
            (
                |v| v["linux"]["rootfsPropagation"] = json!("around"),
                "around",
            ),
            (
                |v| v["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1}}),
                "time namespace",
            ),
            (
                |v| v["mounts"] = json!([{"destination": "/a/../../b", "type": "tmpfs"}]),
                "destination",
            ),
            (
                |v| v["mounts"] = json!([{"destination": "/a"}]),
                "type is missing",
            ),
            (
                |v| v["mounts"] = json!([{"destination": "/a", "type": "bind", "source": "x"}]),
                "bind source",
            ),
            (
                |v| v["linux"]["sysctl"] = json!({"kernel.core_pattern": "|x"}),
                "core_pattern",
            ),
            (|v| v["rootfs"] = json!("/"), "root.path"),
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
