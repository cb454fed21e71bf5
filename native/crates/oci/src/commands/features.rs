//! `features`: what this runtime supports, as features.md of the runtime specification has it.

use super::print;
use crate::help;
use crate::stop::Stop;
use shoal_protocol::oci::{
    CgroupFeatures, Enabled, Features, IntelRdtFeatures, LinuxFeatures, MemoryPolicyFeatures,
    MountExtensions, SeccompFeatures, VERSION, VERSION_MIN,
};
use shoal_runtime::{attributes, mount_options, namespaces, plan};
use shoal_seccomp::words as seccomp;
use std::collections::BTreeMap;

pub fn run() -> Result<u8, Stop> {
    let mut text = serde_json::to_string_pretty(&features())
        .map_err(|error| Stop::new(format!("writing the features: {error}")))?;
    text.push('\n');
    print(&text)
}

fn features() -> Features {
    let words = |words: &[&str]| {
        words
            .iter()
            .map(|word| (*word).to_owned())
            .collect::<Vec<_>>()
    };
    let flags = seccomp::FLAGS.map(|(name, _)| name);
    let yes = Enabled { enabled: true };
    let (modes, mode_flags) = attributes::memory_policy_names();
    let mut kinds = namespaces::KINDS.map(|(name, _)| name);
    kinds.sort_unstable();
    Features {
        oci_version_min: VERSION_MIN.to_owned(),
        oci_version_max: VERSION.to_owned(),
        hooks: words(&[
            "prestart",
            "createRuntime",
            "createContainer",
            "startContainer",
            "poststart",
            "poststop",
        ]),
        mount_options: words(&mount_options::names()),
        linux: LinuxFeatures {
            namespaces: words(&kinds),
            capabilities: shoal_runtime::caps::NAMES
                .iter()
                .map(|name| format!("CAP_{name}"))
                .collect(),
            cgroup: CgroupFeatures {
                v1: true,
                v2: true,
                // By the path that systemd would give the group; systemd itself is not asked.
                systemd: true,
                systemd_user: false,
                rdma: true,
            },
            seccomp: SeccompFeatures {
                enabled: true,
                actions: words(&seccomp::ACTIONS),
                operators: words(&seccomp::OPERATORS),
                archs: words(&shoal_seccomp::arch::known()),
                known_flags: words(&flags),
                supported_flags: words(&flags),
            },
            apparmor: yes,
            selinux: yes,
            memory_policy: MemoryPolicyFeatures {
                modes: words(&modes),
                flags: words(&mode_flags),
            },
            mount_extensions: MountExtensions { idmap: yes },
            net_devices: yes,
            intel_rdt: IntelRdtFeatures {
                enabled: true,
                schemata: true,
                monitoring: true,
            },
        },
        annotations: BTreeMap::from([
            (
                "io.shoal.commit".to_owned(),
                help::COMMIT.unwrap_or("unknown").to_owned(),
            ),
            (
                "io.shoal.version".to_owned(),
                env!("CARGO_PKG_VERSION").to_owned(),
            ),
            // Callers of runc and crun look here before they offer checkpoints.
            (
                "org.opencontainers.runc.checkpoint.enabled".to_owned(),
                "false".to_owned(),
            ),
            (
                "run.oci.crun.checkpoint.enabled".to_owned(),
                "false".to_owned(),
            ),
        ]),
        potentially_unsafe_config_annotations: vec![plan::KEEP_GROUPS.to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_have_the_names_of_the_specification() {
        let value = serde_json::to_value(features()).expect("json");
        assert_eq!(value["ociVersionMin"], "1.0.0");
        assert_eq!(value["linux"]["seccomp"]["enabled"], true);
        assert!(
            value["linux"]["capabilities"]
                .as_array()
                .is_some_and(|names| names.contains(&"CAP_SYS_ADMIN".into()))
        );
    }
}
