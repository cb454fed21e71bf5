//! Further processes in a running container.

use super::Test;
use super::support::{Place, children};
use serde_json::json;
use shoal_runtime::sys::process;
use std::fs;
use std::os::unix::fs::symlink;

pub const TESTS: &[Test] = &[
    ("an_exec_is_in_every_namespace_and_group", everywhere),
    ("an_exec_has_its_own_identity", identity),
    ("an_exec_of_what_is_not_there_tells_why", missing),
    ("an_exec_that_fails_at_once_is_waited_for", waited_for),
    ("an_exec_into_a_chroot_stays_inside", chrooted),
    ("an_exec_does_not_leak_or_escape_by_cwd", cwd),
    ("an_exec_into_a_dead_container_fails", dead),
];

fn everywhere() {
    let place = Place::new();
    let mut container = place
        .create("host", &place.spec(&["sleep", "60"]))
        .expect("created");
    container.start().expect("started");
    let script = "for k in mnt pid net uts ipc cgroup; do readlink /proc/self/ns/$k; done; ls /; ps | grep -c 'sleep 60'; ls /proc/self/fd | wc -l; grep PPid /proc/self/status";
    let (code, text) = container
        .exec(|process| process["args"] = json!(["sh", "-c", script]))
        .expect("a process");
    let mut wanted: Vec<String> = ["mnt", "pid", "net", "uts", "ipc", "cgroup"]
        .iter()
        .map(|kind| {
            let link = fs::read_link(format!("/proc/{}/ns/{kind}", container.pid)).expect("link");
            link.to_string_lossy().into_owned()
        })
        .collect();
    wanted.extend(["bin", "dev", "etc", "proc", "tmp"].map(str::to_owned));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..11], wanted);
    assert_ne!(lines[11], "0", "{text}");
    assert_eq!(lines[12], "4", "three streams and the directory: {text}");
    assert_eq!(code, 0);
    let group = fs::read_to_string(format!("/proc/{}/cgroup", container.pid)).expect("groups");
    let (_, text) = container
        .exec(|process| process["args"] = json!(["sleep", "0"]))
        .expect("a process");
    assert_eq!(text, "");
    let joined = container
        .exec_with(shoal_runtime::streams::Stdio::Inherit, |process| {
            process["args"] = json!(["sleep", "60"]);
        })
        .expect("a process");
    let theirs = fs::read_to_string(format!("/proc/{}/cgroup", joined.pid)).expect("groups");
    assert_eq!(theirs, group);
    process::signal(joined.pid, libc::SIGKILL).expect("killed");
    assert_eq!(process::wait(joined.pid, 0).expect("our child").1, 9);
}

fn identity() {
    let place = Place::new();
    let mut container = place
        .create("host", &place.spec(&["sleep", "60"]))
        .expect("created");
    container.start().expect("started");
    let (code, text) = container
        .exec(|process| {
            process["args"] = json!(["sh", "-c", "id -u; id -G; pwd; umask; echo $HOME $X; grep -E 'CapEff|CapAmb|NoNewPrivs' /proc/self/status; cat /proc/self/oom_score_adj; exit 5"]);
            process["user"] = json!({"uid": 7, "gid": 8, "additionalGids": [9], "umask": 0o027});
            process["cwd"] = json!("/tmp");
            process["env"] = json!(["PATH=/bin", "X=y"]);
            process["noNewPrivileges"] = json!(true);
            process["oomScoreAdj"] = json!(77);
            process["capabilities"] = json!({"bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"], "effective": ["CAP_KILL"], "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"]});
        })
        .expect("a process");
    assert_eq!(
        text,
        "7\n8 9\n/tmp\n0027\n/home/seven y\nCapEff:\t0000000000000020\nCapAmb:\t0000000000000020\nNoNewPrivs:\t1\n77\n"
    );
    assert_eq!(code, 5);
}

fn missing() {
    let place = Place::new();
    let mut container = place
        .create("host", &place.spec(&["sleep", "60"]))
        .expect("created");
    container.start().expect("started");
    for (args, code, word) in [
        (json!(["nope"]), 127, "executable file not found in $PATH"),
        (json!(["/etc/passwd"]), 126, "permission denied"),
        (json!([]), 1, "process.args"),
    ] {
        let failed = container
            .exec(|process| process["args"] = args)
            .expect_err("no program");
        assert_eq!(failed.exit_code, code, "{}", failed.failure);
        assert!(
            failed.failure.to_string().contains(word),
            "{}",
            failed.failure
        );
    }
    let failed = container
        .exec(|process| process["cwd"] = json!("/nope"))
        .expect_err("no directory");
    assert!(
        failed.failure.to_string().contains("/nope"),
        "{}",
        failed.failure
    );
}

/// The process may have failed before the one that made it has told of it: who is not waited for keeps the container from ending.
fn waited_for() {
    let place = Place::new();
    let mut container = place
        .create("host", &place.spec(&["sleep", "60"]))
        .expect("created");
    container.start().expect("started");
    let me = std::process::id();
    for _ in 0..200 {
        let failed = container
            .exec(|process| process["args"] = json!(["/no/such"]))
            .expect_err("no program");
        assert_eq!(failed.exit_code, 127, "{}", failed.failure);
        let left = fs::read_to_string(format!("/proc/{me}/task/{me}/children")).expect("children");
        assert_eq!(left.trim(), container.pid.to_string());
    }
}

fn chrooted() {
    let place = Place::new();
    let mut spec = place.spec(&["sleep", "60"]);
    spec["linux"] = json!({"namespaces": [{"type": "pid"}]});
    spec["mounts"] = json!([]);
    fs::create_dir_all(place.root().join("dev")).expect("dev");
    let mut container = place.create("host", &spec).expect("created");
    let guard = Unmount(place.root());
    container.start().expect("started");
    let (_, text) = container
        .exec(|process| process["args"] = json!(["sh", "-c", "ls /; ls /../.."]))
        .expect("a process");
    drop(container);
    drop(guard);
    assert_eq!(text, "bin\ndev\netc\ntmp\n".repeat(2));
}

/// Takes away what a container without a mount namespace has mounted in ours.
struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let path = std::ffi::CString::new(self.0.to_string_lossy().as_bytes()).expect("path");
        // SAFETY: the path is NUL-terminated.
        unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
    }
}

/// CVE-2024-21626: a working directory by way of a descriptor of the host.
fn cwd() {
    let place = Place::new();
    for number in 3..20 {
        symlink(
            format!("/proc/self/fd/{number}"),
            place.root().join(format!("tmp/fd{number}")),
        )
        .expect("link");
    }
    let mut container = place
        .create("host", &place.spec(&["sleep", "60"]))
        .expect("created");
    container.start().expect("started");
    // A directory of the host for a forgetful exec to be led by.
    let _host = fs::File::open("/").expect("the host's root");
    for number in 3..20 {
        for cwd in [
            format!("/proc/self/fd/{number}"),
            format!("/tmp/fd{number}"),
        ] {
            let got = container.exec(|process| {
                process["args"] = json!(["sh", "-c", "ls -la . ..; pwd"]);
                process["cwd"] = json!(cwd);
            });
            if let Ok((_, text)) = got {
                panic!("{cwd} was entered: {text}");
            }
        }
    }
    drop(container);
    assert!(!children());
}

fn dead() {
    let place = Place::new();
    let mut container = place
        .create("host", &place.spec(&["true"]))
        .expect("created");
    container.start().expect("started");
    let pidfd = process::pidfd(container.pid).expect("pinned");
    let mut fds = [libc::pollfd {
        fd: std::os::fd::AsRawFd::as_raw_fd(&pidfd),
        events: libc::POLLIN,
        revents: 0,
    }];
    process::poll(&mut fds, 10_000).expect("ended");
    let failed = container.exec(|_| {}).expect_err("nobody there");
    assert_ne!(failed.exit_code, 0);
    container.end();
    assert!(!children());
}
