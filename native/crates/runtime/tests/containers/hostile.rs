//! What containers, and bundles made for it, try with processes and terminals of ours (spec: native.md B5).

use super::Test;
use super::support::{Place, read_all};
use serde_json::{Value, json};
use shoal_runtime::channel::{self, Report};
use shoal_runtime::join::{self, Join};
use shoal_runtime::launch::{self, Park};
use shoal_runtime::streams::{Stdio, Streams};
use shoal_runtime::sys::{file, process, socket};
use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

pub const TESTS: &[Test] = &[
    ("an_exec_on_its_way_cannot_be_looked_into", looked_into),
    ("only_pipes_and_own_terminals_are_given_to_the_user", given),
    ("a_terminal_is_of_a_real_devpts_only", devpts),
    ("no_namespace_has_a_procfs_without_masks", procfs),
];

/// Longest that a process may take to say its first word.
const PATIENCE_MS: i32 = 20_000;

/// CVE-2016-9962: a further process is held by its filter's listener right before its program, in every namespace of the container and with
/// no more privilege than its processes: only that it is not dumpable is in their way.
fn looked_into() {
    let place = Place::new();
    let mut host = place
        .create("host", &place.spec(&["sleep", "60"]))
        .expect("created");
    host.start().expect("started");
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": "/nobody/listens",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]
    });
    let filter = shoal_seccomp::compile(&serde_json::from_value(profile).expect("a profile"))
        .expect("a filter");
    let mut wanted = host.plan.spec.process.clone();
    wanted.no_new_privileges = true;
    let pidfd = process::pidfd(host.pid).expect("pinned");
    let joined = join::begin(&Join {
        pid: host.pid,
        pidfd: pidfd.as_fd(),
        spec: &host.plan.spec,
        process: &wanted,
        driver: place.driver.as_ref(),
        cgroup: &host.plan.cgroup,
        container_id: &host.plan.container_id,
        stdio: &Stdio::Inherit,
        preserve_fds: 0,
        seccomp: Some(&filter),
        state: None,
        no_new_keyring: false,
        keep_groups: false,
    })
    .expect("on its way");
    let _ends = Ends(joined.pid);
    let report = channel::next_report(joined.channel.as_fd(), PATIENCE_MS).expect("a word");
    assert!(
        matches!(report, Some(Report::Listening { .. })),
        "{report:?}"
    );
    let status = fs::read_to_string(format!("/proc/{}/status", joined.pid)).expect("status");
    let inner = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))
        .and_then(|pids| pids.split_whitespace().next_back())
        .expect("its pid inside")
        .to_owned();
    let look = |what: &str| {
        let script = format!("{what} 2>&1");
        host.exec(|process| process["args"] = json!(["sh", "-c", script]))
            .expect("a process")
    };
    // The same look at a process that does not hide succeeds.
    assert_eq!(look("readlink /proc/1/exe"), (0, "/bin/busybox\n".into()));
    for what in [
        format!("readlink /proc/{inner}/exe"),
        format!("readlink /proc/{inner}/fd/0"),
        format!("ls /proc/{inner}/root/"),
        format!("ls /proc/{inner}/cwd/"),
        format!("cat /proc/{inner}/environ"),
        format!("cat /proc/{inner}/maps"),
    ] {
        let (_, text) = look(&what);
        let closed = text.is_empty() || text.contains("ermission denied");
        assert!(closed, "{what}: {text}");
    }
}

/// A child that is ended and waited for, whatever the test says: without, the container's end would wait for it.
struct Ends(i32);

impl Drop for Ends {
    fn drop(&mut self) {
        drop(process::signal(self.0, libc::SIGKILL));
        drop(process::wait(self.0, 0));
    }
}

fn make_node(path: &Path, mode: u32, device: u64) {
    let name = CString::new(path.to_str().expect("text")).expect("no NUL");
    // SAFETY: the path is NUL-terminated and lives over the call.
    let made = unsafe { libc::mknod(name.as_ptr(), mode, device) };
    assert_eq!(made, 0, "{}", path.display());
}

/// crun's bug: a host's /dev/null as a stream of a container's user 7 was user 7's from then on.
fn given() {
    let place = Place::new();
    // Nodes of our own stand for the host's.
    let (null, fifo) = (place.dir.join("null"), place.dir.join("fifo"));
    make_node(&null, libc::S_IFCHR | 0o666, libc::makedev(1, 3));
    make_node(&fifo, libc::S_IFIFO | 0o666, 0);
    let mut spec = place.spec(&["sh", "-c", "stat -L -c %u /proc/self/fd/2 >&2"]);
    spec["process"]["user"] = json!({"uid": 7, "gid": 7});
    let plan = place.plan("given", &spec).expect("plan");
    let open = |path: &Path| -> OwnedFd {
        let both = File::options().read(true).write(true).open(path);
        both.expect("a node").into()
    };
    let (stderr, write) = file::pipe().expect("pipe");
    let stdio = Stdio::Fds(Streams {
        stdin: Some(open(&null)),
        stdout: open(&fifo),
        stderr: write,
    });
    let options = place.options(stdio, Park::Channel);
    let parked = launch::create(&plan, &options).expect("created");
    drop(options);
    let pid = parked.pid;
    parked.start().expect("started");
    let told = read_all(stderr);
    process::wait(pid, 0).expect("child");
    drop(shoal_runtime::cgroup::destroy(
        place.driver.as_ref(),
        &plan.cgroup,
    ));
    let owner = |path: &Path| fs::metadata(path).expect("a node").uid();
    assert_eq!((owner(&null), owner(&fifo)), (0, 0));
    assert_eq!(told, "7\n", "a pipe that was made for it is its own");
}

/// CVE-2025-52565: an image's /dev/pts that is a directory with a ptmx of its own, or a link to the host's.
fn devpts() {
    let place = Place::new();
    let attempt = |pts: &dyn Fn(&Path), more: Option<Value>| {
        let dev = place.dir.join("dev");
        fs::create_dir(&dev).expect("dev");
        pts(&dev.join("pts"));
        let mut spec = place.spec(&["true"]);
        spec["process"]["terminal"] = json!(true);
        let bound =
            json!({"destination": "/dev", "type": "bind", "source": dev, "options": ["bind"]});
        spec["mounts"] =
            Value::from_iter([spec["mounts"][0].clone(), bound].into_iter().chain(more));
        let plan = place.plan("tty", &spec).expect("plan");
        let (_ours, console_socket) = socket::pair().expect("pair");
        let options = place.options(Stdio::Terminal { console_socket }, Park::Channel);
        let made = launch::create(&plan, &options);
        drop(options);
        let failure = made.map(|parked| {
            drop(process::signal(parked.pid, libc::SIGKILL));
            drop(process::wait(parked.pid, 0));
            drop(shoal_runtime::cgroup::destroy(
                place.driver.as_ref(),
                &plan.cgroup,
            ));
        });
        fs::remove_dir_all(&dev).expect("clean");
        failure.expect_err("no terminal").to_string()
    };
    // The kernel takes the terminals that lie beside a ptmx, wherever it is.
    let directory = |pts: &Path| {
        fs::create_dir_all(pts.join("pts")).expect("pts");
        make_node(
            &pts.join("ptmx"),
            libc::S_IFCHR | 0o666,
            libc::makedev(5, 2),
        );
    };
    let hosts = json!({"destination": "/dev/pts/pts", "type": "bind", "source": "/dev/pts", "options": ["bind"]});
    let told = attempt(&directory, Some(hosts));
    assert!(told.contains("not a devpts"), "{told}");
    let told = attempt(&|pts| symlink("/dev/pts", pts).expect("link"), None);
    assert!(told.contains("opening /dev/pts"), "{told}");
}

/// With a whole procfs anywhere in the mount namespace, also under its root, the kernel would let a user namespace of the container mount
/// one of its own, without our masks.
fn procfs() {
    let place = Place::new();
    let script = "mkdir /tmp/proc; busybox unshare -Urmpf busybox mount -t proc proc /tmp/proc 2>&1; busybox unshare -Ur echo a user namespace";
    for no_pivot in [false, true] {
        let plan = place
            .plan("procfs", &place.spec(&["sh", "-c", script]))
            .expect("plan");
        let (stdout, write) = file::pipe().expect("pipe");
        let stdio = Stdio::Fds(Streams {
            stdin: None,
            stderr: write.try_clone().expect("copy"),
            stdout: write,
        });
        let mut options = place.options(stdio, Park::Channel);
        options.no_pivot = no_pivot;
        let parked = launch::create(&plan, &options).expect("created");
        drop(options);
        let pid = parked.pid;
        parked.start().expect("started");
        let text = read_all(stdout);
        process::wait(pid, 0).expect("child");
        drop(shoal_runtime::cgroup::destroy(
            place.driver.as_ref(),
            &plan.cgroup,
        ));
        fs::remove_dir(place.root().join("tmp/proc")).expect("made by the script");
        let refused = text.contains("ermission denied") || text.contains("not permitted");
        assert!(
            refused && text.ends_with("a user namespace\n"),
            "no pivot {no_pivot}: {text}"
        );
    }
}
