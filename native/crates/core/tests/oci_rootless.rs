//! The OCI command line called by who is not root, and what else is of user namespaces: mappings, groups, and no pivot.

mod bundle;

use bundle::{Bundle, Said, possible, said};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};

/// Nobody's on this machine, so that no other test's processes count against its limits.
const USER: u32 = 47_011;
const FIRST_SUBID: u32 = 3_000_000;

/// A bundle that belongs to the user, with a copy of the binary that he may execute.
fn owned(script: &str) -> Bundle {
    let mut bundle = Bundle::script(script);
    let copy = bundle.dir.join("shoal-core");
    fs::copy(&bundle.binary, &copy).expect("the binary");
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).expect("its mode");
    bundle.binary = copy.display().to_string();
    for path in ["", "rootfs", "rootfs/etc", "rootfs/tmp"] {
        chown(bundle.dir.join(path), Some(USER), Some(USER)).expect("his");
    }
    let list = bundle.config["linux"]["namespaces"].as_array_mut();
    list.expect("a list").push(json!({"type": "user"}));
    map(&mut bundle.config, &[(0, USER, 1)]);
    bundle
}

fn map(config: &mut Value, ranges: &[(u32, u32, u32)]) {
    let ranges: Vec<Value> = ranges
        .iter()
        .map(|(inside, outside, size)| json!({"containerID": inside, "hostID": outside, "size": size}))
        .collect();
    config["linux"]["uidMappings"] = json!(ranges);
    config["linux"]["gidMappings"] = json!(ranges);
}

/// Runs a command of the bundle as the user, with ranges of his in /etc/subuid and /etc/subgid that only he sees.
fn as_user(bundle: &Bundle, path: &str, args: &[&str]) -> Said {
    let files = bundle.dir.join("etc");
    fs::create_dir_all(&files).expect("files");
    let put = |name: &str, text: String| fs::write(files.join(name), text).expect("a file");
    put(
        "passwd",
        format!("root:x:0:0::/:/bin/sh\nshoaler:x:{USER}:{USER}::/:/bin/sh\n"),
    );
    put("group", format!("root:x:0:\nshoaler:x:{USER}:\n"));
    put("subuid", format!("shoaler:{FIRST_SUBID}:65536\n"));
    put("subgid", format!("shoaler:{FIRST_SUBID}:65536\n"));
    let script = "set -e; for name in passwd group subuid subgid; do mount --bind \"etc/$name\" \"/etc/$name\"; done\n\
        user=$1; path=$2; shift 2; exec setpriv --reuid \"$user\" --regid \"$user\" --clear-groups env PATH=\"$path\" \"$@\"";
    let mut command = Command::new("unshare");
    command
        .args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            script,
            "sh",
        ])
        .args([&USER.to_string(), path, &bundle.binary, "--root"])
        .arg(bundle.root())
        .args(args)
        .current_dir(&bundle.dir);
    to_its_end(command, bundle)
}

/// Runs a command that may leave a container behind, which must not hold the output that is waited for.
fn to_its_end(mut command: Command, bundle: &Bundle) -> Said {
    let paths = [bundle.dir.join("said"), bundle.dir.join("complained")];
    let [out, err] = paths
        .each_ref()
        .map(|path| fs::File::create(path).expect("a file"));
    let status = command
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .status();
    let [out, err] = paths.map(|path| fs::read_to_string(path).expect("what was said"));
    let code = status.expect("it runs").code().unwrap_or(-1);
    Said { code, out, err }
}

/// The system's programs, or none of them.
const WITH_HELPERS: &str = "/usr/bin:/bin:/usr/sbin:/sbin";
const WITHOUT: &str = "/nowhere";

#[test]
fn a_user_runs_a_container_with_his_own_id_alone() {
    if !possible() {
        return;
    }
    let mut bundle =
        owned("id -u; id -g; cat /proc/self/uid_map /proc/self/setgroups; touch /tmp/x");
    bundle.config["mounts"].as_array_mut().expect("mounts").push(
        json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]}),
    );
    fs::create_dir_all(bundle.dir.join("rootfs/sys/fs/cgroup")).expect("a mount point");
    bundle.write();
    let got = as_user(&bundle, WITHOUT, &["run", &bundle.id]);
    assert_eq!(got.code, 0, "{got:?}");
    let words: Vec<&str> = got.out.split_whitespace().collect();
    assert_eq!(words, ["0", "0", "0", &USER.to_string(), "1", "deny"]);
    let made = fs::metadata(bundle.dir.join("rootfs/tmp/x")).expect("made");
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&made), USER);
    bundle.assert_nothing_left(&bundle.id);
}

#[test]
fn a_users_container_lives_as_any_other() {
    if !possible() {
        return;
    }
    let bundle = owned("exec sleep 1000 </dev/null >/dev/null 2>&1");
    bundle.write();
    let id = bundle.id.as_str();
    for (args, out) in [
        (&["create", id][..], ""),
        (&["start", id], ""),
        (&["exec", id, "id", "-u"], "0\n"),
        (&["kill", id, "KILL"], ""),
    ] {
        let got = as_user(&bundle, WITHOUT, args);
        assert_eq!((got.code, got.out.as_str()), (0, out), "{args:?}: {got:?}");
    }
    bundle.wait_status(id, "stopped");
    assert_eq!(as_user(&bundle, WITHOUT, &["delete", id]).code, 0);
    bundle.assert_nothing_left(id);
}

#[test]
fn a_user_with_ranges_of_his_own_has_them_by_newuidmap() {
    if !possible() {
        return;
    }
    if !Path::new("/usr/bin/newuidmap").exists() {
        eprintln!("\n!!! SKIPPED: no newuidmap (Debian's package uidmap) !!!\n");
        return;
    }
    let mut bundle = owned("id -u; id -G; cat /proc/self/uid_map");
    map(
        &mut bundle.config,
        &[(0, USER, 1), (1, FIRST_SUBID, 65_536)],
    );
    bundle.config["process"]["user"] = json!({"uid": 5, "gid": 6, "additionalGids": [7]});
    bundle.write();
    let got = as_user(&bundle, WITH_HELPERS, &["run", &bundle.id]);
    assert_eq!(got.code, 0, "{got:?}");
    let words: Vec<&str> = got.out.split_whitespace().collect();
    let (user, first) = (USER.to_string(), FIRST_SUBID.to_string());
    assert_eq!(
        words,
        ["5", "6", "7", "0", &user, "1", "1", &first, "65536"]
    );
    bundle.assert_nothing_left(&bundle.id);
}

#[test]
fn what_a_user_may_not_is_refused_in_one_clear_line() {
    if !possible() {
        return;
    }
    type Case = (&'static str, &'static str, fn(&mut Value));
    let cases: [Case; 4] = [
        (WITHOUT, "newuidmap", |config| {
            map(config, &[(0, USER, 1), (1, FIRST_SUBID, 9)])
        }),
        (WITH_HELPERS, "newuidmap", |config| {
            map(config, &[(0, USER, 1), (1, 1, 9)])
        }),
        (WITHOUT, "linux.uidMappings", |config| {
            map(config, &[(0, 0, 1)])
        }),
        (
            WITHOUT,
            "rootless container requires user namespaces",
            |config| {
                config["linux"]["namespaces"] = json!([{"type": "pid"}, {"type": "mount"}]);
                config["linux"]["uidMappings"] = json!(null);
                config["linux"]["gidMappings"] = json!(null);
            },
        ),
    ];
    for (path, word, change) in cases {
        let mut bundle = owned("true");
        change(&mut bundle.config);
        bundle.write();
        let got = as_user(&bundle, path, &["run", &bundle.id]);
        assert_eq!(got.code, 1, "{word}: {got:?}");
        assert!(got.err.contains(word), "{word}: {got:?}");
        assert_eq!(got.err.trim().lines().count(), 1, "{got:?}");
        bundle.assert_nothing_left(&bundle.id);
    }
}

#[test]
fn a_caller_may_keep_his_groups_by_cruns_annotation() {
    if !possible() {
        return;
    }
    for (value, groups) in [("1", "0 4711 4712"), ("0", "0 50")] {
        let mut bundle = Bundle::script("exec sleep 1000 </dev/null >/dev/null 2>&1");
        bundle.config["annotations"] = json!({"run.oci.keep_original_groups": value});
        bundle.config["process"]["user"] = json!({"uid": 0, "gid": 0, "additionalGids": [50]});
        bundle.write();
        let id = bundle.id.as_str();
        let with_groups = |args: &[&str]| {
            let plain = bundle.command(args);
            let mut command = Command::new("setpriv");
            command
                .args(["--groups", "4711,4712"])
                .arg(plain.get_program())
                .args(plain.get_args())
                .current_dir(&bundle.dir);
            to_its_end(command, &bundle)
        };
        assert_eq!(with_groups(&["create", id]).code, 0);
        bundle.ok(&["start", id]);
        let pid = bundle.state(id).expect("a state")["pid"].to_string();
        bundle::eventually("the program runs", || {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "sleep")
        });
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
        let line = status.lines().find(|line| line.starts_with("Groups:"));
        let mut want: Vec<&str> = groups.split(' ').collect();
        // The program's own group is no further one.
        want.remove(0);
        let got: Vec<&str> = line.expect("Groups").split_whitespace().skip(1).collect();
        assert_eq!(got, want, "{value}");
        let exec = with_groups(&["exec", id, "id", "-G"]);
        assert_eq!(exec.out.trim(), groups, "{exec:?}");
        bundle.ok(&["delete", "--force", id]);
        bundle.assert_nothing_left(id);
    }
}

/// Runs a container without pivot_root behind a script of the host, in mounts of their own.
fn without_pivot(bundle: &Bundle, before: &str, after: &str) -> Said {
    bundle.write();
    let script = format!("set -e; {before}\nset +e; \"$@\"; code=$?; {after}\nexit $code");
    let plain = bundle.command(&["run", "--no-pivot", &bundle.id]);
    let output = Command::new("unshare")
        .args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            &script,
            "sh",
        ])
        .arg(plain.get_program())
        .args(plain.get_args())
        .current_dir(&bundle.dir)
        .stdin(Stdio::null())
        .output();
    said(output.expect("unshare runs"))
}

#[test]
fn without_a_pivot_no_procfs_of_the_host_is_left_to_be_copied() {
    if !possible() {
        return;
    }
    let hidden = "mkdir -p deep/a deep/b; mount -t proc proc deep/a; mount -t tmpfs none deep/a; mount -t proc proc deep/b; mount -t tmpfs none deep";
    for before in ["true", hidden] {
        let mut bundle = Bundle::script(
            "busybox unshare -Urmpf busybox mount -t proc none /proc && echo bare; busybox cat /proc/sys/kernel/ostype",
        );
        let capabilities = json!(["CAP_SYS_ADMIN", "CAP_SETUID", "CAP_SETGID", "CAP_SETFCAP"]);
        for set in ["bounding", "permitted", "effective"] {
            bundle.config["process"]["capabilities"][set] = capabilities.clone();
        }
        let got = without_pivot(&bundle, before, "true");
        assert_eq!(got.out.trim(), "Linux", "{before}: {got:?}");
        assert!(
            got.err.contains("ermission denied") || got.err.contains("not permitted"),
            "{got:?}"
        );
        bundle.assert_nothing_left(&bundle.id);
    }
}

#[test]
fn without_a_pivot_the_host_keeps_its_procfs_whatever_is_shared() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::script("true");
    bundle.config["linux"]["rootfsPropagation"] = json!("rshared");
    let got = without_pivot(
        &bundle,
        "mount --make-rshared /",
        "test -e /proc/self/status && test -e /sys/kernel && echo kept",
    );
    assert_eq!((got.code, got.out.trim()), (0, "kept"), "{got:?}");
    bundle.assert_nothing_left(&bundle.id);
}
