//! Making a container: namespaces, names, limits, the park, and what a failed creation leaves (nothing).

use super::Test;
use super::support::{Place, children, read_all};
use serde_json::json;
use shoal_runtime::launch::{self, Agent, Park};
use shoal_runtime::streams::{Stdio, Streams};
use shoal_runtime::sys::{file, process, socket};
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;

pub const TESTS: &[Test] = &[
    ("a_container_has_its_namespaces_names_and_root", names),
    ("kinds_that_are_not_named_are_the_makers", shared_kinds),
    ("namespaces_are_joined_by_path", joined_kinds),
    ("a_pid_namespace_is_joined_by_path", joined_pid),
    ("a_network_that_is_given_is_the_containers", given_network),
    ("a_time_namespace_has_its_offsets", time_offsets),
    ("a_parked_init_waits_at_its_socket", parked_at_socket),
    (
        "a_program_that_is_not_there_fails_create_at_a_socket",
        lookup_at_socket,
    ),
    ("a_failed_creation_leaves_nothing", failed_creation),
    ("attributes_are_set", attributes),
    ("home_comes_from_passwd", home),
    ("a_start_that_fails_tells_why", failed_start),
    ("no_pivot_moves_the_root", no_pivot),
    ("preserved_descriptors_reach_the_program", preserved),
    ("a_filter_is_loaded_last", filtered),
    ("a_filter_that_notifies_is_handed_to_its_agent", notified),
    ("a_parked_init_hides_itself_from_the_container", hidden),
    ("execs_share_the_containers_keyring", keyring),
];

fn names() {
    let place = Place::new();
    let text = place.shell(
        "hostname; cat /proc/sys/kernel/domainname; echo $$; ls /",
        |spec| {
            spec["hostname"] = json!("box");
            spec["domainname"] = json!("example");
        },
    );
    assert_eq!(text, "box\nexample\n1\nbin\ndev\netc\nproc\ntmp\n");
    assert!(place.groups().is_empty(), "{:?}", place.groups());
}

fn shared_kinds() {
    let place = Place::new();
    let text = place.shell(
        "for k in net uts ipc pid mnt; do readlink /proc/self/ns/$k; done",
        |spec| {
            spec["linux"]["namespaces"] = json!([{"type": "mount"}]);
        },
    );
    let ours = |kind: &str| {
        let link = fs::read_link(format!("/proc/self/ns/{kind}")).expect("link");
        link.to_string_lossy().into_owned()
    };
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[..4],
        [ours("net"), ours("uts"), ours("ipc"), ours("pid")]
    );
    assert_ne!(lines[4], ours("mnt"));
}

fn joined_kinds() {
    let place = Place::new();
    let mut first = place
        .create("first", &place.spec(&["sleep", "60"]))
        .expect("first");
    first.start().expect("started");
    let pid = first.pid;
    let text = place.shell(
        "for k in net uts ipc; do readlink /proc/self/ns/$k; done",
        |spec| {
            spec["linux"]["namespaces"] = json!([
                {"type": "mount"}, {"type": "pid"},
                {"type": "network", "path": format!("/proc/{pid}/ns/net")},
                {"type": "uts", "path": format!("/proc/{pid}/ns/uts")},
                {"type": "ipc", "path": format!("/proc/{pid}/ns/ipc")}
            ]);
        },
    );
    let theirs: Vec<String> = ["net", "uts", "ipc"]
        .iter()
        .map(|kind| {
            let link = fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("link");
            link.to_string_lossy().into_owned()
        })
        .collect();
    assert_eq!(text.lines().collect::<Vec<_>>(), theirs);
    let mut spec = place.spec(&["true"]);
    spec["linux"]["namespaces"] =
        json!([{"type": "mount"}, {"type": "network", "path": format!("/proc/{pid}/ns/uts")}]);
    let failure = place.create("wrong", &spec).err().expect("another kind");
    assert!(failure.doing.contains("network"), "{failure}");
}

fn joined_pid() {
    let place = Place::new();
    let mut first = place
        .create("first", &place.spec(&["sleep", "60"]))
        .expect("first");
    first.start().expect("started");
    let path = format!("/proc/{}/ns/pid", first.pid);
    let text = place.shell(
        "echo $$; ps | grep -c 'sleep 60'; readlink /proc/self/ns/pid",
        |spec| {
            spec["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "pid", "path": path}]);
        },
    );
    let lines: Vec<&str> = text.lines().collect();
    assert_ne!(lines[0], "1", "{text}");
    assert_ne!(lines[1], "0", "{text}");
    let theirs = fs::read_link(path).expect("link");
    assert_eq!(lines[2], theirs.to_string_lossy());
    assert!(
        !children_but(first.pid),
        "the process in between is waited for"
    );
}

/// Whether there is a child that has ended besides a running one.
fn children_but(running: i32) -> bool {
    match process::wait(-1, libc::WNOHANG) {
        Ok((pid, _)) => pid != 0 && pid != running,
        Err(_) => false,
    }
}

/// One that comes through the socket is entered; when its maker goes without a word, init makes one, with lo up.
fn given_network() {
    let place = Place::new();
    let script = "readlink /proc/self/ns/net; grep -c : /proc/net/dev; grep -q 127.0.0.1 /proc/net/fib_trie && echo up";
    let spec = place.spec(&["sh", "-c", script]);
    let home = file::open("/proc/self/ns/net", libc::O_RDONLY).expect("ours");
    let link = || {
        let link = fs::read_link("/proc/self/ns/net").expect("link");
        link.to_string_lossy().into_owned()
    };
    let ours = link();
    process::unshare(libc::CLONE_NEWNET).expect("a network");
    process::loopback_up().expect("lo");
    let made = file::open("/proc/self/ns/net", libc::O_RDONLY).expect("the new one");
    let name = link();
    process::join_namespace(home.as_fd(), libc::CLONE_NEWNET).expect("home again");
    for given in [true, false] {
        let (giver, taker) = socket::pair().expect("sockets");
        if given {
            socket::send_with_fds(giver.as_fd(), b"n", &[made.as_fd()]).expect("given");
        }
        drop(giver);
        let mut container = place
            .create_in("given", &spec, Some(taker))
            .expect("a container");
        container.start().expect("a start");
        let (code, text) = container.end();
        assert_eq!(code, 0, "{text}");
        let (network, rest) = text.split_once('\n').expect("lines");
        assert_eq!(network == name, given, "{network} of {name}");
        assert_ne!(network, ours);
        assert_eq!(rest, "1\nup\n", "lo alone");
    }
}

fn time_offsets() {
    let place = Place::new();
    let text = place.shell(
        "cut -d. -f1 /proc/uptime; cat /proc/self/timens_offsets",
        |spec| {
            spec["linux"]["namespaces"]
                .as_array_mut()
                .expect("namespaces")
                .push(json!({"type": "time"}));
            spec["linux"]["timeOffsets"] =
                json!({"boottime": {"secs": 1_000_000}, "monotonic": {"secs": 5, "nanosecs": 7}});
        },
    );
    let uptime: u64 = text.lines().next().expect("line").parse().expect("number");
    assert!(uptime >= 1_000_000, "{text}");
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        words.contains("monotonic 5 7 boottime 1000000 0"),
        "{words}"
    );
}

fn parked_at_socket() {
    let place = Place::new();
    let state = place.dir.join("state");
    fs::create_dir(&state).expect("state");
    let dir =
        file::open(&state.to_string_lossy(), libc::O_RDONLY | libc::O_DIRECTORY).expect("dir");
    let (stdout, write) = file::pipe().expect("pipe");
    let stdio = Stdio::Fds(Streams {
        stdin: None,
        stderr: write.try_clone().expect("copy"),
        stdout: write,
    });
    let plan = place
        .plan("parked", &place.spec(&["sh", "-c", "echo started"]))
        .expect("plan");
    let park = Park::Socket {
        dir: dir.as_fd(),
        name: "start.sock",
    };
    let options = place.options(stdio, park);
    let parked = launch::create(&plan, &options).expect("created");
    drop(options);
    assert!(state.join("start.sock").exists());
    launch::start_parked(dir.as_fd(), "start.sock").expect("started");
    assert!(!state.join("start.sock").exists(), "started once");
    assert_eq!(read_all(stdout), "started\n");
    let (_, status) = process::wait(parked.pid, 0).expect("child");
    assert_eq!(status, 0);
    let again = launch::start_parked(dir.as_fd(), "start.sock").expect_err("no more");
    assert_eq!(again.failure.code, shoal_protocol::FailureCode::NotFound);
    drop(shoal_runtime::cgroup::destroy(
        place.driver.as_ref(),
        &plan.cgroup,
    ));
}

fn lookup_at_socket() {
    let place = Place::new();
    let dir = file::open(
        &place.dir.to_string_lossy(),
        libc::O_RDONLY | libc::O_DIRECTORY,
    )
    .expect("dir");
    let plan = place.plan("lost", &place.spec(&["nope"])).expect("plan");
    let park = Park::Socket {
        dir: dir.as_fd(),
        name: "start.sock",
    };
    let failure = launch::create(&plan, &place.options(Stdio::Inherit, park))
        .err()
        .expect("no such program");
    assert_eq!(
        failure.message,
        "exec: \"nope\": executable file not found in $PATH"
    );
    assert!(!place.dir.join("start.sock").exists());
    assert!(place.groups().is_empty() && !children());
}

fn failed_creation() {
    let place = Place::new();
    for (change, word) in [
        (
            json!([{"destination": "/x", "type": "bind", "source": "/nope"}]),
            "/nope",
        ),
        (
            json!([{"destination": "/proc", "type": "proc", "source": "proc"}, {"destination": "/x", "type": "tmpfs", "source": "tmpfs", "options": ["zzz=1"]}]),
            "zzz",
        ),
    ] {
        let mut spec = place.spec(&["true"]);
        spec["mounts"] = change;
        let failure = place.create("failed", &spec).err().expect(word);
        assert!(failure.to_string().contains(word), "{failure}");
        assert!(place.groups().is_empty() && !children());
    }
}

fn attributes() {
    let place = Place::new();
    let text = place.shell(
        "cut -d' ' -f19 /proc/self/stat; umask; id -G; grep -E 'CapBnd|NoNewPrivs|oom' /proc/self/status; cat /proc/self/oom_score_adj",
        |spec| {
            let process = &mut spec["process"];
            process["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 5});
            process["ioPriority"] = json!({"class": "IOPRIO_CLASS_IDLE", "priority": 0});
            process["user"] = json!({"uid": 7, "gid": 8, "umask": 0o077, "additionalGids": [9, 10]});
            process["noNewPrivileges"] = json!(true);
            process["oomScoreAdj"] = json!(321);
            spec["linux"]["personality"] = json!({"domain": "LINUX"});
        },
    );
    assert_eq!(
        text,
        "5\n0077\n8 9 10\nCapBnd:\t00000000a80425fb\nNoNewPrivs:\t1\n321\n"
    );
}

fn home() {
    let place = Place::new();
    for (uid, home) in [(0, "/root"), (7, "/home/seven"), (9, "/")] {
        let text = place.shell("echo $HOME", |spec| {
            spec["process"]["user"] = json!({"uid": uid});
        });
        assert_eq!(text.trim(), home);
    }
}

fn failed_start() {
    let place = Place::new();
    for (args, code) in [
        (json!(["nope"]), 127),
        (json!(["/etc/passwd"]), 126),
        (json!([]), 1),
    ] {
        let mut spec = place.spec(&[]);
        spec["process"]["args"] = args;
        let mut container = place.create("failing", &spec).expect("created");
        let failed = container.start().expect_err("no program");
        assert_eq!(failed.exit_code, code, "{}", failed.failure);
        assert_eq!(container.end().0, code);
    }
}

fn no_pivot() {
    let place = Place::new();
    let plan = place
        .plan("moved", &place.spec(&["sh", "-c", "ls /; ls /.."]))
        .expect("plan");
    let (stdout, write) = file::pipe().expect("pipe");
    let stdio = Stdio::Fds(Streams {
        stdin: None,
        stderr: write.try_clone().expect("copy"),
        stdout: write,
    });
    let mut options = place.options(stdio, Park::Channel);
    options.no_pivot = true;
    let parked = launch::create(&plan, &options).expect("created");
    drop(options);
    let pid = parked.pid;
    parked.start().expect("started");
    assert_eq!(read_all(stdout), "bin\ndev\netc\nproc\ntmp\n".repeat(2));
    process::wait(pid, 0).expect("child");
    drop(shoal_runtime::cgroup::destroy(
        place.driver.as_ref(),
        &plan.cgroup,
    ));
}

fn preserved() {
    let place = Place::new();
    let plan = place
        .plan(
            "kept",
            &place.spec(&["sh", "-c", "echo through >&3; ls /proc/$$/fd; true"]),
        )
        .expect("plan");
    let (stdout, write) = file::pipe().expect("pipe");
    // Whatever has number 3 here is moved away and comes back.
    // SAFETY: plain descriptors of this process with one thread.
    let (saved, made) = unsafe {
        let saved = libc::fcntl(3, libc::F_DUPFD_CLOEXEC, 100);
        (
            saved,
            libc::dup2(std::os::fd::AsRawFd::as_raw_fd(&write), 3),
        )
    };
    assert_eq!(made, 3);
    let stdio = Stdio::Fds(Streams {
        stdin: None,
        stderr: write.try_clone().expect("copy"),
        stdout: write.try_clone().expect("copy"),
    });
    let mut options = place.options(stdio, Park::Channel);
    options.preserve_fds = 1;
    let parked = launch::create(&plan, &options).expect("created");
    drop((options, write));
    // SAFETY: as above.
    unsafe {
        if saved >= 0 {
            libc::dup2(saved, 3);
            libc::close(saved);
        } else {
            libc::close(3);
        }
    }
    let pid = parked.pid;
    parked.start().expect("started");
    let text = read_all(stdout);
    assert!(text.starts_with("through\n0\n1\n2\n3\n"), "{text}");
    assert!(!text.contains("\n4\n"), "{text}");
    process::wait(pid, 0).expect("child");
    drop(shoal_runtime::cgroup::destroy(
        place.driver.as_ref(),
        &plan.cgroup,
    ));
}

/// A filter that allows next to nothing of what the runtime itself does on its way.
fn filtered() {
    let place = Place::new();
    let forbidden = [
        "setgroups",
        "setresuid",
        "setresgid",
        "chdir",
        "fcntl",
        "dup2",
        "setsid",
        "close_range",
        "rt_sigaction",
        "rt_sigprocmask",
        "umask",
        "recvfrom",
        "accept4",
        "sethostname",
        "mount",
        "openat2",
        "setns",
        "unshare",
    ];
    let filter = shoal_seccomp::compile(
        &serde_json::from_value(json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": forbidden, "action": "SCMP_ACT_KILL_PROCESS"}]
        }))
        .expect("a profile"),
    )
    .expect("a filter");
    for (uid, no_new_privileges) in [(0, false), (0, true), (7, false), (7, true)] {
        // `true` of a static busybox calls none of them but rt_sigaction and prctl.
        let mut spec = place.spec(&["/bin/true"]);
        spec["process"]["user"] = json!({"uid": uid});
        spec["process"]["noNewPrivileges"] = json!(no_new_privileges);
        let plan = place.plan("filtered", &spec).expect("plan");
        let mut options = place.options(Stdio::Inherit, Park::Channel);
        options.seccomp = Some(&filter);
        let parked = launch::create(&plan, &options).expect("created");
        let pid = parked.pid;
        parked.start().expect("started");
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        if !status.contains("State:\tZ") {
            assert!(status.contains("Seccomp:\t2"), "{status}");
        }
        let (_, status) = process::wait(pid, 0).expect("child");
        assert_eq!(status, 0, "uid {uid}, no_new_privs {no_new_privileges}");
        drop(shoal_runtime::cgroup::destroy(
            place.driver.as_ref(),
            &plan.cgroup,
        ));
    }
}

fn notified() {
    let place = Place::new();
    let path = place.dir.join("agent.sock");
    let agent = UnixListener::bind(&path).expect("agent");
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": path,
        "listenerMetadata": "about it",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}]
    });
    let filter = shoal_seccomp::compile(&serde_json::from_value(profile.clone()).expect("profile"))
        .expect("a filter");
    for no_new_privileges in [false, true] {
        let mut spec = place.spec(&["mkdir", "/tmp/x"]);
        spec["process"]["noNewPrivileges"] = json!(no_new_privileges);
        spec["linux"]["seccomp"] = profile.clone();
        let plan = place.plan("notified", &spec).expect("plan");
        let mut options = place.options(Stdio::Inherit, Park::Channel);
        options.seccomp = Some(&filter);
        let parked = launch::create(&plan, &options).expect("created");
        let pid = parked.pid;
        let state = place.state();
        let wanted = Agent {
            path: path.to_str().expect("path"),
            metadata: "about it",
            state: &state,
        };
        parked.start_with(Some(&wanted)).expect("started");
        let (heard, _) = agent.accept().expect("a word");
        let mut buffer = [0u8; 4096];
        let (length, fds) =
            socket::receive_with_fds(heard.as_fd(), &mut buffer).expect("the listener");
        let told: serde_json::Value = serde_json::from_slice(&buffer[..length]).expect("JSON");
        assert_eq!(told["metadata"], "about it");
        assert_eq!(told["pid"], pid);
        assert_eq!(told["fds"], json!(["seccompFd"]));
        assert_eq!(fds.len(), 1);
        // Without a listener the call is not there any more.
        drop(fds);
        let (_, status) = process::wait(pid, 0).expect("child");
        assert_eq!(status, 1 << 8, "mkdir fails");
        drop(shoal_runtime::cgroup::destroy(
            place.driver.as_ref(),
            &plan.cgroup,
        ));
    }
}

/// CVE-2016-9962, CVE-2019-5736: what a container can reach of a process of ours in its own pid namespace.
fn hidden() {
    let place = Place::new();
    let mut first = place
        .create("first", &place.spec(&["sleep", "60"]))
        .expect("first");
    first.start().expect("started");
    let mut spec = place.spec(&["true"]);
    spec["linux"]["namespaces"] = json!([
        {"type": "mount"}, {"type": "pid", "path": format!("/proc/{}/ns/pid", first.pid)}
    ]);
    let parked = place.create("parked", &spec).expect("parked");
    let status = fs::read_to_string(format!("/proc/{}/status", parked.pid)).expect("status");
    let inner = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))
        .and_then(|pids| pids.split_whitespace().next_back())
        .expect("its pid inside")
        .to_owned();
    for what in [
        format!("readlink /proc/{inner}/fd/0"),
        format!("echo > /proc/{inner}/fd/1"),
        format!("ls /proc/{inner}/root/"),
        format!("ls /proc/{inner}/cwd/"),
        format!("readlink /proc/{inner}/exe"),
        format!("cat /proc/{inner}/environ"),
        format!("cat /proc/{inner}/maps"),
    ] {
        let (code, text) = first
            .exec(|process| process["args"] = json!(["sh", "-c", what]))
            .expect("a process");
        assert!(
            code != 0 && (text.contains("ermission denied") || text.is_empty()),
            "{what}: {text}"
        );
    }
}

fn keyring() {
    let place = Place::new();
    let mut container = place
        .create("keys", &place.spec(&["sleep", "60"]))
        .expect("created");
    container.start().expect("started");
    let list = || {
        container
            .exec(|process| process["args"] = json!(["cat", "/proc/keys"]))
            .expect("a process")
            .1
    };
    let (first, second) = (list(), list());
    let ring = |text: &str| -> Vec<String> {
        text.lines()
            .filter(|line| line.contains("_ses.keys"))
            .map(|line| line.split(' ').next().unwrap_or_default().to_owned())
            .collect()
    };
    assert_eq!(ring(&first).len(), 1, "{first}");
    assert_eq!(ring(&first), ring(&second));
}
