//! The OCI command line: each claim of `features` is tried on a container, so that nothing is claimed that does not work here.

mod bundle;

use bundle::{Bundle, possible};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::net::UnixListener;

/// The document that `features` prints.
fn features(bundle: &Bundle) -> Value {
    serde_json::from_str(&bundle.ok(&["features"])).expect("features is JSON")
}

/// The words of a list of the document, at least one.
fn words(features: &Value, path: &str) -> Vec<String> {
    let list = features.pointer(path).and_then(Value::as_array);
    let words: Vec<String> = list
        .unwrap_or_else(|| panic!("{path} is a list"))
        .iter()
        .map(|word| word.as_str().expect("a word").to_owned())
        .collect();
    assert!(!words.is_empty(), "{path} is empty");
    words
}

/// A container of the bundle that must run `true`, but for one setting of its own.
fn runs(bundle: &mut Bundle, what: &str, set: impl FnOnce(&mut Value)) -> String {
    let whole = bundle.config.clone();
    set(&mut bundle.config);
    bundle.write();
    bundle.config = whole;
    let said = bundle.say(&["run", &bundle.id]);
    assert_eq!(said.code, 0, "{what}: {said:?}");
    said.out
}

/// The bounding set of this process, which no container's can exceed.
fn own_bounding_set() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("status");
    let line = status.lines().find(|line| line.starts_with("CapBnd"));
    let digits = line.and_then(|line| line.split_whitespace().nth(1));
    u64::from_str_radix(digits.expect("CapBnd"), 16).expect("hexadecimal")
}

#[test]
fn every_capability_that_is_claimed_can_be_given() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::script("grep CapBnd /proc/self/status");
    let features = features(&bundle);
    let (own, names) = (own_bounding_set(), words(&features, "/linux/capabilities"));
    assert_eq!(names.len(), 41, "as <linux/capability.h> has them");
    for (bit, name) in names.iter().enumerate() {
        let out = runs(&mut bundle, name, |config| {
            config["process"]["capabilities"] =
                json!({"bounding": [name], "permitted": [name], "effective": [name]});
        });
        let got = u64::from_str_radix(out.split_whitespace().nth(1).expect("a mask"), 16);
        assert_eq!(got, Ok(own & (1 << bit)), "{name}: {out}");
    }
    bundle.assert_nothing_left(&bundle.id);
}

#[test]
fn every_mount_option_that_is_claimed_is_taken() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::script("grep -q ' /mnt ' /proc/self/mountinfo");
    let source = bundle.dir.join("source");
    fs::create_dir_all(&source).expect("source");
    let names = words(&features(&bundle), "/mountOptions");
    for must in [
        "ro",
        "rro",
        "rnosymfollow",
        "idmap",
        "tmpcopyup",
        "lazytime",
    ] {
        assert!(names.iter().any(|name| name == must), "{must} is claimed");
    }
    for name in &names {
        runs(&mut bundle, name, |config| {
            let mounts = config["mounts"].as_array_mut().expect("mounts");
            let tmpfs = |options: Value| json!({"destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": options});
            match name.as_str() {
                // What changes a mount needs one; the rest of these are of binds only.
                "remount" => {
                    mounts.push(tmpfs(json!([])));
                    mounts.push(tmpfs(json!(["remount", "ro"])));
                }
                "tmpcopyup" | "size" => mounts.push(tmpfs(json!([name]))),
                _ => {
                    let mut mount = json!({"destination": "/mnt", "type": "bind", "source": source, "options": ["bind", name]});
                    if name.ends_with("idmap") {
                        let ids = json!([{"containerID": 0, "hostID": 1000, "size": 10}]);
                        mount["uidMappings"] = ids.clone();
                        mount["gidMappings"] = ids;
                    }
                    mounts.push(mount);
                }
            }
        });
        if !name.ends_with("bind") && !name.ends_with("idmap") && name != "copy-symlink" {
            runs(&mut bundle, &format!("{name} of a tmpfs"), |config| {
                let mounts = config["mounts"].as_array_mut().expect("mounts");
                if name == "remount" {
                    mounts.push(json!({"destination": "/mnt", "type": "tmpfs", "source": "tmpfs"}));
                }
                mounts.push(json!({"destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": [name]}));
            });
        }
    }
    bundle.assert_nothing_left(&bundle.id);
}

#[test]
fn every_namespace_hook_and_memory_policy_that_is_claimed_works() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::script("ls -l /proc/self/ns");
    let features = features(&bundle);
    for kind in words(&features, "/linux/namespaces") {
        let link = match kind.as_str() {
            "mount" => "mnt",
            "network" => "net",
            other => other,
        };
        let host = fs::read_link(format!("/proc/self/ns/{link}")).expect("a namespace");
        let out = runs(&mut bundle, &kind, |config| {
            let mut list = json!([{"type": "pid"}, {"type": "mount"}]);
            if kind == "user" {
                for field in ["uidMappings", "gidMappings"] {
                    config["linux"][field] =
                        json!([{"containerID": 0, "hostID": 0, "size": 65536}]);
                }
            }
            if kind != "pid" && kind != "mount" {
                list.as_array_mut()
                    .expect("a list")
                    .push(json!({"type": kind}));
            }
            config["linux"]["namespaces"] = list;
        });
        assert!(
            out.contains(&format!("{link}:[")) && !out.contains(&*host.to_string_lossy()),
            "{kind}: {out}"
        );
    }
    for hook in words(&features, "/hooks") {
        let mark = bundle.dir.join(format!("hook-{hook}"));
        // The container's own begin in its root, and find the host's program only while that is still to be seen.
        let inside = hook == "startContainer";
        let file = if inside {
            bundle.dir.join("rootfs/tmp/hook")
        } else {
            mark
        };
        let touched = if inside {
            "/tmp/hook".into()
        } else {
            file.clone()
        };
        let program = if inside {
            "/bin/busybox"
        } else {
            "/usr/bin/busybox"
        };
        runs(&mut bundle, &hook, |config| {
            config["hooks"] =
                json!({hook.as_str(): [{"path": program, "args": ["touch", touched]}]});
        });
        assert!(file.exists(), "{hook} has run");
    }
    let nodes = |mode: &str| match mode {
        "MPOL_DEFAULT" | "MPOL_LOCAL" => "",
        _ => "0",
    };
    for mode in words(&features, "/linux/memoryPolicy/modes") {
        runs(&mut bundle, &mode, |config| {
            config["linux"]["memoryPolicy"] = json!({"mode": mode, "nodes": nodes(&mode)});
        });
    }
    for flag in words(&features, "/linux/memoryPolicy/flags") {
        runs(&mut bundle, &flag, |config| {
            config["linux"]["memoryPolicy"] =
                json!({"mode": "MPOL_BIND", "nodes": "0", "flags": [flag]});
        });
    }
    bundle.assert_nothing_left(&bundle.id);
}

#[test]
fn every_word_of_seccomp_that_is_claimed_is_compiled_and_loaded() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::script("true");
    let features = features(&bundle);
    let agent = bundle.dir.join("agent.sock");
    // Connections wait in its queue: nobody needs to answer for a call that is never made.
    let listening = UnixListener::bind(&agent).expect("the agent's socket");
    let mut filter = |what: &str, section: Value| {
        runs(&mut bundle, what, |config| {
            config["linux"]["seccomp"] = section;
        });
    };
    for action in words(&features, "/linux/seccomp/actions") {
        let mut section = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["swapon"], "action": action}]});
        if action == "SCMP_ACT_NOTIFY" {
            section["listenerPath"] = json!(agent);
        }
        filter(&action, section);
    }
    for operator in words(&features, "/linux/seccomp/operators") {
        let arg = json!({"index": 0, "value": 7, "valueTwo": 7, "op": operator});
        filter(
            &operator,
            json!({"defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["swapon"], "action": "SCMP_ACT_ERRNO", "args": [arg]}]}),
        );
    }
    for arch in words(&features, "/linux/seccomp/archs") {
        filter(
            &arch,
            json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_NATIVE", arch],
                "syscalls": [{"names": ["swapon"], "action": "SCMP_ACT_ERRNO"}]}),
        );
    }
    let supported = words(&features, "/linux/seccomp/supportedFlags");
    for flag in words(&features, "/linux/seccomp/knownFlags") {
        assert!(supported.contains(&flag), "{flag} is supported too");
        // WAIT_KILLABLE_RECV is of a filter with a listener only (seccomp(2)).
        let action = match flag.as_str() {
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => "SCMP_ACT_NOTIFY",
            _ => "SCMP_ACT_ERRNO",
        };
        filter(
            &flag,
            json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": [flag], "listenerPath": agent,
                "syscalls": [{"names": ["swapon"], "action": action}]}),
        );
    }
    drop(listening);
    bundle.assert_nothing_left(&bundle.id);
}

#[test]
fn what_is_claimed_of_control_groups_and_annotations_is_so() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::script("true");
    let features = features(&bundle);
    let groups = &features["linux"]["cgroup"];
    assert_eq!(
        (&groups["v1"], &groups["v2"], &groups["systemd"]),
        (&json!(true), &json!(true), &json!(true))
    );
    // A group by systemd's path; systemd itself is asked for nothing, and its user instances have no paths of their own.
    assert_eq!(groups["systemdUser"], json!(false));
    bundle.config["linux"]["cgroupsPath"] = json!(format!("system.slice:gaps:{}", bundle.id));
    bundle.write();
    bundle.ok(&["--systemd-cgroup", "run", &bundle.id]);
    for (name, value) in features["annotations"].as_object().expect("annotations") {
        if name.ends_with("checkpoint.enabled") {
            assert_eq!(value, "false", "{name}");
            assert_ne!(bundle.say(&["checkpoint", &bundle.id]).code, 0);
        }
    }
    assert_eq!(features["ociVersionMin"], "1.0.0");
    bundle.assert_nothing_left(&bundle.id);
}
