//! From a create call to the plan of its container: what the core asks of a configuration beyond what any runtime does.

use crate::monitor::is_checked;
use shoal_protocol::calls::{Create, LogMode};
use shoal_protocol::oci::ConsoleSize;
use shoal_protocol::{Failure, FailureCode};
use shoal_runtime::plan::{Input, Plan, RootSource};
use shoal_runtime::{id, namespaces, within};

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
