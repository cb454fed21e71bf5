//! A creation as a sandbox is told it: only what it does not have yet, in a form that monitor and init read while somebody waits.

use crate::caps::Masks;
use crate::filesystem::RootSource;
use crate::plan::{Input, Plan};
use crate::sandbox;
use shoal_protocol::Failure;
use shoal_protocol::calls::{Create, Healthcheck, Log, Rootfs, Seccomp, Stdin};
use shoal_protocol::oci::{Capabilities, Spec};
use shoal_protocol::packed::{self, Packed};

/// What the monitor of a sandbox is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Own {
    pub inner: Inner,
    pub log: Option<Log>,
    pub stdin: Stdin,
    pub seccomp: Seccomp,
    pub health: Option<Healthcheck>,
}

/// What init needs of it; group and log are its maker's. It comes first, so that init reads no further.
#[derive(Debug, Clone, PartialEq)]
pub struct Inner {
    pub container_id: String,
    /// The own part of the configuration (`sandbox::split`).
    pub spec: Spec,
    pub rootfs: Rootfs,
    /// The capabilities of the process, in place of their names; None when `spec` has those.
    pub caps: Option<Masks>,
}

impl Own {
    /// Of a call without its configuration, of which `spec` is the own part.
    pub fn new(create: &Create, mut spec: Spec, caps: Masks) -> Self {
        // A health check is run with the names.
        let named = create.health.is_some();
        if !named {
            spec.process.capabilities = Capabilities::default();
        }
        Self {
            inner: Inner {
                container_id: create.container_id.clone(),
                spec,
                rootfs: create.rootfs.clone(),
                caps: (!named).then_some(caps),
            },
            log: create.log.clone(),
            stdin: create.stdin,
            seccomp: create.seccomp.clone(),
            health: create.health.clone(),
        }
    }

    /// Reads what a sandbox of this core is told.
    pub fn read(bytes: &[u8]) -> Result<Self, Failure> {
        packed::unpack(bytes).ok_or_else(unreadable)
    }
}

impl Inner {
    /// The first part of the same bytes as a plan, in the group `cgroup`, for a sandbox of this template.
    pub(crate) fn plan(mut bytes: &[u8], template: &Spec, cgroup: String) -> Result<Plan, Failure> {
        let Self {
            container_id,
            spec,
            rootfs,
            caps,
        } = Packed::read(&mut bytes).ok_or_else(unreadable)?;
        let mut plan = Plan::new(Input {
            container_id,
            spec: sandbox::complete(spec, template),
            root: RootSource::Overlay(rootfs),
            cgroup,
        })?;
        if let Some(caps) = caps {
            plan.caps = caps;
        }
        Ok(plan)
    }
}

fn unreadable() -> Failure {
    Failure::invalid(
        "reading what is the container's own",
        "it is not what a core of this version writes",
    )
}

impl Packed for Masks {
    fn write(&self, to: &mut Vec<u8>) {
        for mask in [
            self.bounding,
            self.effective,
            self.permitted,
            self.inheritable,
            self.ambient,
        ] {
            mask.write(to);
        }
    }
    fn read(from: &mut &[u8]) -> Option<Self> {
        Some(Self {
            bounding: Packed::read(from)?,
            effective: Packed::read(from)?,
            permitted: Packed::read(from)?,
            inheritable: Packed::read(from)?,
            ambient: Packed::read(from)?,
        })
    }
}

impl Packed for Inner {
    fn write(&self, to: &mut Vec<u8>) {
        self.container_id.write(to);
        self.spec.write(to);
        self.rootfs.write(to);
        self.caps.write(to);
    }
    fn read(from: &mut &[u8]) -> Option<Self> {
        Some(Self {
            container_id: Packed::read(from)?,
            spec: Packed::read(from)?,
            rootfs: Packed::read(from)?,
            caps: Packed::read(from)?,
        })
    }
}

impl Packed for Own {
    fn write(&self, to: &mut Vec<u8>) {
        self.inner.write(to);
        self.log.write(to);
        self.stdin.write(to);
        self.seccomp.write(to);
        self.health.write(to);
    }
    fn read(from: &mut &[u8]) -> Option<Self> {
        Some(Self {
            inner: Packed::read(from)?,
            log: Packed::read(from)?,
            stdin: Packed::read(from)?,
            seccomp: Packed::read(from)?,
            health: Packed::read(from)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn own(health: bool) -> Own {
        let check = json!({"test": ["CMD", "x"], "intervalMs": 1, "timeoutMs": 1, "startPeriodMs": 0, "startIntervalMs": 0, "retries": 1});
        let create: Create = serde_json::from_value(json!({
            "containerId": "a",
            "spec": {"process": {"args": ["true"], "cwd": "/", "capabilities": {"bounding": ["CAP_KILL"]}}},
            "rootfs": {"layers": ["/l"], "directory": "/d/a"},
            "log": {"path": "/d/a.log", "maxSizeBytes": null, "maxFiles": 1},
            "seccomp": "default",
            "health": if health { check } else { json!(null) }
        }))
        .expect("a create call");
        let caps = crate::caps::masks(&create.spec.process.capabilities);
        Own::new(&create, create.spec.clone(), caps)
    }

    #[test]
    fn what_the_core_tells_is_what_the_monitor_reads_and_init_the_first_part_of_it() {
        for health in [false, true] {
            let own = own(health);
            let bytes = packed::pack(&own);
            assert_eq!(Own::read(&bytes).expect("an own part"), own);
            assert_eq!(Packed::read(&mut &bytes[..]), Some(own.inner.clone()));
            let template: Spec =
                serde_json::from_value(json!({"linux": {"namespaces": [{"type": "pid"}]}}))
                    .expect("a template");
            let plan = Inner::plan(&bytes, &template, "/g".into()).expect("a plan");
            assert_eq!((&*plan.container_id, &*plan.cgroup), ("a", "/g"));
            assert_eq!(plan.caps.bounding, 1 << 5);
            assert!(plan.makes(libc::CLONE_NEWPID));
            for end in 0..bytes.len() {
                assert!(Own::read(&bytes[..end]).is_err());
            }
        }
    }

    #[test]
    fn names_of_capabilities_are_told_only_to_who_runs_health_checks() {
        let (masked, named) = (own(false).inner, own(true).inner);
        assert_eq!(masked.spec.process.capabilities, Capabilities::default());
        assert_eq!(masked.caps.map(|caps| caps.bounding), Some(1 << 5));
        assert_eq!(named.spec.process.capabilities.bounding, ["CAP_KILL"]);
        assert_eq!(named.caps, None);
    }
}
