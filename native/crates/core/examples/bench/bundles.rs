//! OCI bundles for the peers and ours alike: what `runc spec` writes, with Docker's options where the name says so.

use serde_json::{Map, Value, json};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

const BUSYBOX: &str = "/usr/bin/busybox";
/// Docker's default profile in Docker's own form, from Debian's golang-github-containers-common.
const SECCOMP: &str = "/usr/share/containers/seccomp.json";

/// Docker's 14.
pub const CAPS: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// Where `make_rootfs` puts it.
pub fn rootfs(dir: &Path) -> PathBuf {
    dir.join("rootfs")
}

/// A root of one static busybox.
pub fn make_rootfs(dir: &Path) -> Result<(), String> {
    let root = rootfs(dir);
    let make = || -> std::io::Result<()> {
        for name in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
            fs::create_dir_all(root.join(name))?;
        }
        fs::copy(BUSYBOX, root.join("bin/busybox"))?;
        for applet in ["true", "sleep", "sh"] {
            symlink("busybox", root.join("bin").join(applet))?;
        }
        Ok(())
    };
    make().map_err(|error| format!("making {}: {error}", root.display()))
}

/// Writes the bundles `base`, `dockerlike`, `sleep` and `dockerlike-sleep` below `dir` and gives the directory of one by name.
pub fn make(dir: &Path) -> Result<(), String> {
    let base = base_spec(dir)?;
    let docker = dockerlike(base.clone())?;
    for (name, spec) in [("base", base), ("dockerlike", docker)] {
        write(dir, name, &spec)?;
        let mut sleeping = spec;
        sleeping["process"]["args"] = json!(["/bin/sleep", "1d"]);
        let name = if name == "base" {
            "sleep".to_owned()
        } else {
            format!("{name}-sleep")
        };
        write(dir, &name, &sleeping)?;
    }
    Ok(())
}

fn write(dir: &Path, name: &str, spec: &Value) -> Result<(), String> {
    let bundle = dir.join(name);
    let act = || -> std::io::Result<()> {
        fs::create_dir_all(&bundle)?;
        fs::write(bundle.join("config.json"), serde_json::to_vec_pretty(spec)?)
    };
    act().map_err(|error| format!("writing the bundle {}: {error}", bundle.display()))
}

fn base_spec(dir: &Path) -> Result<Value, String> {
    let at = dir.join("spec");
    fs::create_dir_all(&at).map_err(|error| format!("{}: {error}", at.display()))?;
    let done = Command::new("runc").arg("spec").arg("-b").arg(&at).status();
    if !done.is_ok_and(|status| status.success()) {
        return Err("`runc spec` failed: is Debian's runc installed?".into());
    }
    let mut spec = read(&at.join("config.json"))?;
    spec["process"]["terminal"] = json!(false);
    spec["process"]["args"] = json!(["/bin/true"]);
    spec["root"]["path"] = json!(rootfs(dir));
    Ok(spec)
}

fn dockerlike(mut spec: Value) -> Result<Value, String> {
    for kind in ["bounding", "effective", "permitted"] {
        spec["process"]["capabilities"][kind] = json!(CAPS);
    }
    if let Some(sets) = spec["process"]["capabilities"].as_object_mut() {
        sets.remove("ambient");
    }
    spec["process"]["noNewPrivileges"] = json!(false);
    spec["root"]["readonly"] = json!(false);
    spec["linux"]["seccomp"] = seccomp()?;
    let mut devices = vec![json!({"allow": false, "access": "rwm"})];
    for (major, minor) in [(1, 5), (1, 3), (1, 9), (1, 8), (5, 0), (5, 1)] {
        devices.push(
            json!({"allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm"}),
        );
    }
    spec["linux"]["resources"]["devices"] = Value::Array(devices);
    if let Some(masked) = spec["linux"]["maskedPaths"].as_array_mut() {
        masked.push(json!("/sys/devices/virtual/powercap"));
    }
    Ok(spec)
}

/// Docker's profile for its default capabilities on this architecture, as dockerd writes it into a config.json.
fn seccomp() -> Result<Value, String> {
    let profile = read(Path::new(SECCOMP))?;
    let mut out = Map::new();
    out.insert("defaultAction".into(), profile["defaultAction"].clone());
    if let Some(errno) = profile.get("defaultErrnoRet") {
        out.insert("defaultErrnoRet".into(), errno.clone());
    }
    out.insert("architectures".into(), architectures());
    let rules = profile["syscalls"].as_array().cloned().unwrap_or_default();
    let kept: Vec<Value> = rules
        .iter()
        .filter(|rule| applies(rule))
        .map(plain)
        .collect();
    out.insert("syscalls".into(), Value::Array(kept));
    Ok(Value::Object(out))
}

fn architectures() -> Value {
    if cfg!(target_arch = "x86_64") {
        json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"])
    } else {
        json!(["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"])
    }
}

fn applies(rule: &Value) -> bool {
    let arch = if cfg!(target_arch = "x86_64") {
        "amd64"
    } else {
        "arm64"
    };
    let names = |of: &str, list: &str| -> Vec<String> {
        let found = rule[of][list].as_array().cloned().unwrap_or_default();
        found
            .iter()
            .filter_map(|name| Some(name.as_str()?.to_owned()))
            .collect()
    };
    let has = |cap: &String| CAPS.contains(&cap.as_str());
    let included = names("includes", "arches");
    (included.is_empty() || included.iter().any(|name| name == arch))
        && names("includes", "caps").iter().all(has)
        && !names("excludes", "arches").iter().any(|name| name == arch)
        && !names("excludes", "caps").iter().any(has)
}

/// A rule in the runtime-spec's words.
fn plain(rule: &Value) -> Value {
    let mut out = Map::new();
    for key in ["names", "action", "args"] {
        if let Some(value) = rule.get(key).filter(|value| !value.is_null()) {
            out.insert(key.into(), value.clone());
        }
    }
    if rule["action"] == "SCMP_ACT_ERRNO"
        && let Some(errno) = rule.get("errnoRet")
    {
        out.insert("errnoRet".into(), errno.clone());
    }
    Value::Object(out)
}

fn read(path: &Path) -> Result<Value, String> {
    let text = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))
}
