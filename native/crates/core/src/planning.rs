//! From a create call to the plan of its container: what the core asks of a configuration beyond what any runtime does.

use crate::monitor::is_checked;
use crate::records;
use shoal_protocol::calls::{Create, LogMode};
use shoal_protocol::oci::{ConsoleSize, Spec};
use shoal_protocol::{Failure, FailureCode};
use shoal_runtime::caps::Masks;
use shoal_runtime::namespaces::Namespaces;
use shoal_runtime::plan::{Input, Plan, RootSource};
use shoal_runtime::usual::{Usual, Usually};
use shoal_runtime::{id, namespaces, within};
use std::borrow::Cow;
use std::sync::Arc;

/// A create call that has been checked as a whole.
pub struct Checked<'a> {
    /// Without its configuration.
    pub create: Create,
    pub cgroup: String,
    pub namespaces: Namespaces,
    pub caps: Masks,
    /// The call as it is kept: as it came, but with its group.
    pub journal: Cow<'a, [u8]>,
    pub config: Config,
}

/// The configuration of a call.
pub enum Config {
    /// `verbatim`: the journal is what it was read from.
    Whole { spec: Box<Spec>, verbatim: bool },
    /// As `sandbox::split` parts it. Without the names of capabilities.
    Split { template: Arc<Spec>, own: Box<Spec> },
}

/// Reads and checks a create call (or run, by its `name`). One without a group gets its own in `cgroup_parent`.
pub fn read<'a>(
    name: &str,
    call: &'a [u8],
    cgroup_parent: &str,
    usual: &Usual,
) -> Result<Checked<'a>, Failure> {
    let Some(read) = usual.read(call, plan) else {
        return read_whole(name, call, cgroup_parent);
    };
    let Usually {
        create,
        cgroup,
        namespaces,
        caps,
        template,
        own,
    } = read;
    Ok(Checked {
        create,
        cgroup,
        namespaces,
        caps,
        journal: Cow::Borrowed(call),
        config: Config::Split {
            template,
            own: Box::new(own),
        },
    })
}

/// The same for a call that is like no other.
fn read_whole<'a>(name: &str, call: &'a [u8], cgroup_parent: &str) -> Result<Checked<'a>, Failure> {
    let mut create: Create = crate::serve::parse(name, call)?;
    let mut journal = Cow::Borrowed(call);
    if create.spec.linux.cgroups_path.is_empty() {
        create.spec.linux.cgroups_path = format!("{cgroup_parent}/{}", create.container_id);
        journal = records::encode(&create).into();
    }
    let plan = plan(&mut create)?;
    Ok(Checked {
        create,
        cgroup: plan.cgroup,
        namespaces: plan.namespaces,
        caps: plan.caps,
        config: Config::Whole {
            spec: Box::new(plan.spec),
            verbatim: matches!(journal, Cow::Borrowed(_)),
        },
        journal,
    })
}

/// Checks and reads a create call, whose configuration is the plan's afterwards. Every refusal names field and value.
pub fn plan(create: &mut Create) -> Result<Plan, Failure> {
    id::check(&create.container_id)?;
    check_process(create)?;
    check_log(create)?;
    is_checked(create.health.as_ref())?;
    let mut spec = std::mem::take(&mut create.spec);
    if spec.linux.intel_rdt.is_some() {
        return Err(Failure::invalid(
            "reading linux.intelRdt",
            "the resident core gives containers no class of service; leave it out, or use the command line",
        ));
    }
    let cgroup = spec.linux.cgroups_path.clone();
    if let Some(size) = create.console_size {
        spec.process.console_size = Some(ConsoleSize {
            height: size.rows,
            width: size.columns,
        });
    }
    let plan = Plan::new(Input {
        container_id: create.container_id.clone(),
        spec,
        root: RootSource::Overlay(create.rootfs.clone()),
        cgroup,
    })?;
    for kind in [libc::CLONE_NEWNS, libc::CLONE_NEWPID] {
        let name = namespaces::name(kind);
        if !plan.makes(kind) {
            return Err(Failure::new(
                FailureCode::Invalid,
                "reading linux.namespaces",
                format!(
                    "a container needs a {name} namespace of its own; add {{\"type\":\"{name}\"}}"
                ),
            ));
        }
    }
    Ok(plan)
}

fn check_process(create: &Create) -> Result<(), Failure> {
    let process = &create.spec.process;
    let refuse = |message: &str| Err(Failure::invalid("reading process", message));
    if process.args.is_empty() {
        return refuse("args is empty; give the command to run");
    }
    Ok(())
}

fn check_log(create: &Create) -> Result<(), Failure> {
    let Some(log) = &create.log else {
        return Ok(());
    };
    within::components("reading log.path", &log.path)?;
    if log.max_files == 0 || log.max_size_bytes == Some(0) {
        return Err(Failure::invalid(
            "reading log",
            "maxFiles and maxSizeBytes must be at least 1",
        ));
    }
    if log.mode == LogMode::NonBlocking && log.max_buffer_bytes == 0 {
        return Err(Failure::invalid(
            "reading log.maxBufferBytes",
            "0 holds nothing; give at least 1, or mode blocking",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(change: impl FnOnce(&mut Value)) -> Result<Plan, Failure> {
        let mut value = json!({
            "containerId": "a",
            "spec": {
                "process": {"args": ["true"], "cwd": "/"},
                "linux": {"cgroupsPath": "/t/a", "namespaces": [{"type": "mount"}, {"type": "pid"}]}
            },
            "rootfs": {"layers": ["/l"], "directory": "/d"},
            "log": null
        });
        change(&mut value);
        plan(&mut serde_json::from_value(value).expect("a create call"))
    }

    #[test]
    fn plan_refuses_bad_fields_by_name() {
        read(|_| {}).expect("a good call");
        type Case = (fn(&mut Value), &'static str);
        let cases: [Case; 7] = [
            (|v| v["containerId"] = json!("../x"), "containerId"),
            (|v| v["spec"]["process"]["args"] = json!([]), "args"),
            (
                |v| v["health"] = json!({"test": ["CMD"], "intervalMs": 0, "timeoutMs": 0, "startPeriodMs": 0, "startIntervalMs": 0, "retries": 0}),
                "health.test",
            ),
            (
                |v| v["log"] = json!({"path": "/x", "maxSizeBytes": null, "maxFiles": 1, "mode": "non-blocking", "maxBufferBytes": 0}),
                "log.maxBufferBytes",
            ),
            (
                |v| v["spec"]["linux"]["namespaces"] = json!([{"type": "pid"}]),
                "mount",
            ),
            (|v| v["rootfs"]["directory"] = json!("/"), "rootfs"),
            (
                |v| v["log"] = json!({"path": "x", "maxSizeBytes": null, "maxFiles": 1}),
                "log.path",
            ),
        ];
        for (change, word) in cases {
            let failure = read(change).expect_err(word);
            assert!(
                failure.to_string().contains(word),
                "{failure} should name {word}"
            );
            assert_eq!(failure.code, FailureCode::Invalid);
        }
    }
}
