//! `spec`: a sample config.json.

use crate::args::Parsed;
use crate::context::absolute;
use crate::stop::Stop;
use serde::Serialize;
use serde_json::{Value, json};
use shoal_protocol::oci::VERSION;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

const SAMPLE: &str = include_str!("sample.json");
const FILE: &str = "config.json";

pub fn run(parsed: &Parsed) -> Result<u8, Stop> {
    let path = absolute(parsed.text("bundle").unwrap_or("."))?.join(FILE);
    let text = if parsed.on("rootless") {
        rootless(&sample(unified()), identity())?
    } else {
        sample(unified())
    };
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o666)
        .open(&path)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    match written {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(Stop::new(format!(
            "File {} exists. Remove it first",
            path.display()
        ))),
        Err(error) => Err(Stop::new(format!("writing {}: {error}", path.display()))),
        Ok(()) => Ok(0),
    }
}

fn unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

fn identity() -> (u32, u32) {
    // SAFETY: neither takes anything or can fail.
    unsafe { (libc::geteuid(), libc::getegid()) }
}

fn sample(unified: bool) -> String {
    let cgroup = if unified {
        ",\n\t\t\t{\n\t\t\t\t\"type\": \"cgroup\"\n\t\t\t}"
    } else {
        ""
    };
    SAMPLE
        .replace("@VERSION@", VERSION)
        .replace("@CGROUP@", cgroup)
}

/// Without a network of its own, with a user namespace of the caller alone, the host's /sys, and no limits.
fn rootless(sample: &str, (uid, gid): (u32, u32)) -> Result<String, Stop> {
    let broken = |error: serde_json::Error| Stop::new(format!("writing the sample: {error}"));
    let mut spec: Value = serde_json::from_str(sample).map_err(broken)?;
    let linux = &mut spec["linux"];
    linux["resources"].take();
    linux["uidMappings"] = json!([{"containerID": 0, "hostID": uid, "size": 1}]);
    linux["gidMappings"] = json!([{"containerID": 0, "hostID": gid, "size": 1}]);
    for namespace in linux["namespaces"].as_array_mut().into_iter().flatten() {
        if namespace["type"] == "network" {
            namespace["type"] = "user".into();
        }
    }
    for mount in spec["mounts"].as_array_mut().into_iter().flatten() {
        if mount["destination"] == "/sys" {
            *mount = json!({
                "destination": "/sys", "type": "none", "source": "/sys",
                "options": ["rbind", "nosuid", "noexec", "nodev", "ro"],
            });
        } else if let Some(options) = mount["options"].as_array_mut() {
            // Ids of the host that a single mapping cannot give.
            options.retain(|option| {
                !option
                    .as_str()
                    .is_some_and(|text| text.starts_with("gid=") || text.starts_with("uid="))
            });
        }
    }
    let mut text = Vec::new();
    let tabs = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    spec.serialize(&mut serde_json::Serializer::with_formatter(&mut text, tabs))
        .map_err(broken)?;
    String::from_utf8(text).map_err(|error| Stop::new(format!("writing the sample: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_protocol::oci::Spec;

    #[test]
    fn samples_are_configurations() {
        let plain = Spec::parse(sample(true).as_bytes()).expect("the sample");
        assert!(
            plain
                .linux
                .namespaces
                .iter()
                .any(|namespace| namespace.kind == "cgroup")
        );
        assert!(plain.process.terminal && plain.root.readonly && plain.process.no_new_privileges);
        assert_eq!(plain.linux.resources.devices.len(), 1);
        for hidden in [
            "/proc/kcore",
            "/proc/keys",
            "/proc/interrupts",
            "/sys/firmware",
            "/sys/devices/virtual/powercap",
        ] {
            assert!(
                plain.linux.masked_paths.iter().any(|path| path == hidden),
                "{hidden}"
            );
        }
        assert_eq!(plain.linux.readonly_paths.len(), 5);
        let plain = Spec::parse(sample(false).as_bytes()).expect("the sample");
        assert!(
            plain
                .linux
                .namespaces
                .iter()
                .any(|namespace| namespace.kind == "network")
        );

        let text = rootless(&sample(false), (1000, 1001)).expect("text");
        let own = Spec::parse(text.as_bytes()).expect("the rootless sample");
        assert_eq!(own.linux.uid_mappings[0].host_id, 1000);
        assert_eq!(own.linux.gid_mappings[0].host_id, 1001);
        let kinds: Vec<&str> = own
            .linux
            .namespaces
            .iter()
            .map(|namespace| namespace.kind.as_str())
            .collect();
        assert!(
            kinds.contains(&"user") && !kinds.contains(&"network"),
            "{kinds:?}"
        );
        assert!(own.linux.resources.devices.is_empty());
        let sys = own
            .mounts
            .iter()
            .find(|mount| mount.destination == "/sys")
            .expect("sys");
        assert_eq!((sys.kind.as_str(), sys.source.as_str()), ("none", "/sys"));
        assert!(sys.options.contains(&"rbind".to_owned()));
        assert!(!text.contains("gid=5"));
    }
}
