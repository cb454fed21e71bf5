//! Which configurations a parked sandbox may become: none that asks for anything which has to be known when the sandbox is made.

use serde_json::{Value, json};
use shoal_protocol::oci::Spec;
use shoal_runtime::sandbox::split;

fn usual() -> Value {
    json!({
        "ociVersion": "1.2.0",
        "process": {"args": ["true"], "cwd": "/"},
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs"}
        ],
        "linux": {
            "namespaces": (["mount", "pid", "network", "uts", "ipc", "cgroup"].map(|kind| json!({"type": kind}))),
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"]
        }
    })
}

fn is_template(spec: &Value) -> bool {
    let spec: Spec = serde_json::from_value(spec.clone()).expect("a configuration");
    split(spec).is_some()
}

#[test]
fn what_must_be_known_early_is_made_cold() {
    assert!(is_template(&usual()));
    let maps = json!([{"containerID": 0, "hostID": 1000, "size": 10}]);
    let hook = json!([{"path": "/bin/true"}]);
    for (path, value) in [
        ("/process/terminal", json!(true)),
        ("/process/apparmorProfile", json!("docker-default")),
        (
            "/process/selinuxLabel",
            json!("system_u:system_r:container_t:s0"),
        ),
        (
            "/linux/mountLabel",
            json!("system_u:object_r:container_file_t:s0"),
        ),
        ("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"})),
        ("/linux/maskedPaths", json!(["/proc/kcore", "/etc/secret"])),
        ("/linux/maskedPaths", json!(["/proc/../etc/secret"])),
        ("/linux/readonlyPaths", json!(["/usr"])),
        ("/linux/rootfsPropagation", json!("rslave")),
        ("/linux/uidMappings", maps.clone()),
        ("/linux/gidMappings", maps),
        (
            "/linux/devices",
            json!([{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}]),
        ),
        ("/linux/resources", json!({"cpu": {"cpus": "0"}})),
        ("/linux/resources", json!({"cpu": {"mems": "0"}})),
        (
            "/linux/namespaces",
            json!([{"type": "mount"}, {"type": "pid"}]),
        ),
        (
            "/linux/namespaces/2",
            json!({"type": "network", "path": "/proc/1/ns/net"}),
        ),
        ("/linux/namespaces/5", json!({"type": "user"})),
        (
            "/mounts/0",
            json!({"destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"]}),
        ),
        (
            "/mounts/2",
            json!({"destination": "/sys/../etc", "type": "tmpfs"}),
        ),
        ("/hooks", json!({"createRuntime": hook})),
        ("/hooks", json!({"startContainer": hook})),
    ] {
        let mut spec = usual();
        let (above, name) = path.rsplit_once('/').expect("a path");
        match spec.pointer_mut(above).expect(path) {
            Value::Array(list) => list[name.parse::<usize>().expect(path)] = value,
            other => other[name] = value,
        }
        assert!(!is_template(&spec), "{path}: {spec}");
    }
}
