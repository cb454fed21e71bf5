//! A real core in a directory of its own, a root made of busybox, and a client for its socket.

#![allow(dead_code, reason = "each test file uses its part")]

pub mod client;

pub use client::Client;
use serde_json::{Value, json};
use shoal_protocol::{read_frame, write_frame};
use shoal_seccomp::default::DOCKERS_CAPABILITIES as CAPS;
use std::collections::VecDeque;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub const BUSYBOX: &str = "/usr/bin/busybox";

const APPLETS: [&str; 30] = [
    "sh", "cat", "echo", "sleep", "ls", "id", "hostname", "mount", "touch", "ps", "kill", "true",
    "false", "head", "dd", "yes", "mkdir", "stat", "readlink", "seq", "mknod", "grep", "wc", "pwd",
    "tr", "printf", "stty", "tty", "test", "rm",
];
static NEXT: AtomicU32 = AtomicU32::new(0);

/// The binary under test: the one that SHOAL_CORE names (`script/test` names the shipped one), else that of the tests' own profile.
pub fn binary() -> String {
    std::env::var("SHOAL_CORE").unwrap_or_else(|_| env!("CARGO_BIN_EXE_shoal-core").to_owned())
}

/// Whether real containers can be made here; says loudly when not.
pub fn possible() -> bool {
    // SAFETY: geteuid takes nothing and cannot fail.
    let root = unsafe { libc::geteuid() } == 0;
    let busybox = Path::new(BUSYBOX).exists();
    if !root || !busybox {
        eprintln!(
            "\n!!! SKIPPED: real containers need root (have: {root}) and {BUSYBOX} (have: {busybox}) !!!\n"
        );
    }
    root && busybox
}

/// A core with its directories; everything goes away with it.
pub struct Core {
    pub dir: PathBuf,
    pub name: String,
    pub child: Child,
    /// What the core's command line is put behind (`setpriv ...`, say); it must exec.
    prefix: Vec<String>,
    /// Mount points that the test itself made.
    own_mounts: Vec<PathBuf>,
}

/// Shell words that wait for `open_gate`.
pub const GATE: &str = "while [ ! -e /gates/go ]; do sleep 0.01; done;";
/// In the name of everything that a sandbox of the pool has.
pub const PARKED: &str = "/.parked-";
/// A file by which a test fills a disk; no container's.
pub const BALLAST: &str = ".ballast";

impl Core {
    pub fn start() -> Self {
        Self::start_as(&[], &[])
    }

    /// A core behind `prefix`, with a tmpfs on each directory of `small` (`core`, `containers`) with these mount options.
    pub fn start_as(prefix: &[&str], small: &[(&str, &str)]) -> Self {
        let name = format!(
            "shct-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let dir = PathBuf::from("/tmp").join(&name);
        fs::create_dir_all(dir.join("containers")).expect("directories");
        make_layer(&dir.join("layer"));
        let mut own_mounts = Vec::new();
        for (below, options) in small {
            let at = dir.join(below);
            fs::create_dir_all(&at).expect("mount point");
            assert!(mount_tmpfs(&at, options), "a tmpfs on {}", at.display());
            own_mounts.push(at);
        }
        let prefix: Vec<String> = prefix.iter().map(|word| (*word).to_owned()).collect();
        let child = spawn(&prefix, &dir, &name, pool_of(&own_mounts));
        let core = Self {
            dir,
            name,
            child,
            prefix,
            own_mounts,
        };
        core.wait_up();
        core
    }

    fn wait_up(&self) {
        let until = Instant::now() + Duration::from_secs(20);
        while UnixStream::connect(self.socket()).is_err() {
            assert!(Instant::now() < until, "the core does not listen");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.join("core.sock")
    }

    /// kill -9 of the core alone.
    pub fn kill(&mut self) {
        self.child.kill().expect("a core to kill");
        self.child.wait().expect("its end");
    }

    pub fn restart(&mut self) {
        let pool = pool_of(&self.own_mounts);
        self.child = spawn(&self.prefix, &self.dir, &self.name, pool);
        self.wait_up();
    }

    pub fn client(&self) -> Client {
        let mut client = Client::connect(&self.socket());
        client.ok(json!({"call": "hello", "version": 1}));
        client
    }

    pub fn cgroup(&self, id: &str) -> String {
        format!("/{}/{id}", self.name)
    }

    /// The directory of one controller's group, wherever this machine has it.
    pub fn cgroup_file(&self, controller: &str, id: &str, file: &str) -> PathBuf {
        PathBuf::from(format!(
            "/sys/fs/cgroup/{controller}{}/{file}",
            self.cgroup(id)
        ))
    }

    pub fn log_path(&self, id: &str) -> PathBuf {
        self.dir.join("containers").join(format!("{id}.log"))
    }

    /// A create call as shoald sends it, running `args`.
    pub fn create(&self, id: &str, args: &[&str]) -> Value {
        json!({
            "call": "create",
            "containerId": id,
            "spec": {
                "ociVersion": "1.2.0",
                "process": {
                    "terminal": false,
                    "user": {"uid": 0, "gid": 0, "additionalGids": []},
                    "args": args,
                    "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"],
                    "cwd": "/",
                    "capabilities": {"bounding": CAPS, "effective": CAPS, "permitted": CAPS, "inheritable": [], "ambient": []},
                    "rlimits": [],
                    "noNewPrivileges": false,
                    "oomScoreAdj": null
                },
                "root": {"path": "rootfs", "readonly": false},
                "hostname": "box",
                "mounts": [
                    {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
                    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
                    {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
                    {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
                    {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro", "nosuid", "noexec", "nodev"]},
                    {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
                    {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=67108864"]}
                ],
                "annotations": {},
                "linux": {
                    "namespaces": (["mount", "pid", "network", "uts", "ipc", "cgroup"].map(|kind| json!({"type": kind, "path": null}))),
                    "resources": {"memory": null, "cpu": null, "pids": null},
                    "cgroupsPath": self.cgroup(id),
                    "maskedPaths": ["/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"],
                    "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
                    "sysctl": {}
                }
            },
            "rootfs": {"layers": [self.dir.join("layer")], "directory": self.dir.join("containers").join(id)},
            "log": {"path": self.log_path(id), "maxSizeBytes": null, "maxFiles": 1}
        })
    }

    /// Lets a create call's program see the files that `open_gate` makes, in /gates.
    pub fn with_gates(&self, mut create: Value) -> Value {
        let gates = self.dir.join("gates");
        fs::create_dir_all(&gates).expect("gates");
        let mounts = create["spec"]["mounts"].as_array_mut().expect("mounts");
        mounts.push(json!({"destination": "/gates", "type": "bind", "source": gates, "options": ["rbind", "ro"]}));
        create
    }

    /// Lets a program go on that waits by `GATE`.
    pub fn open_gate(&self) {
        fs::write(self.dir.join("gates/go"), "").expect("gate");
    }

    /// An exec call as shoald sends it, of `args` as root.
    pub fn exec(&self, id: &str, exec: &str, args: &[&str]) -> Value {
        let process = self.create(id, args)["spec"]["process"].clone();
        json!({"call": "exec", "containerId": id, "execId": exec, "process": process, "consoleSize": null, "stdin": false, "stdout": true, "stderr": true})
    }

    /// The text that a container has written, both streams as they came.
    pub fn log_text(&self, id: &str) -> String {
        let lines = fs::read_to_string(self.log_path(id)).unwrap_or_default();
        lines
            .lines()
            .map(|line| {
                serde_json::from_str::<Value>(line).expect("a log line is JSON")["log"]
                    .as_str()
                    .expect("log")
                    .to_owned()
            })
            .collect()
    }

    /// What is still there of containers: records, groups, root directories, processes. Sandboxes of the pool belong to the core.
    pub fn leftovers(&self) -> Vec<String> {
        let mut found = self.everything();
        found.retain(|what| !what.contains(PARKED));
        found
    }

    /// `leftovers`, and what the pool has.
    pub fn everything(&self) -> Vec<String> {
        let mut found = Vec::new();
        let list = |dir: &Path| -> Vec<PathBuf> {
            fs::read_dir(dir)
                .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
                .unwrap_or_default()
        };
        for path in list(&self.dir.join("core")) {
            if path
                .file_name()
                .is_some_and(|name| name != ".net" && name != BALLAST)
            {
                found.push(path.display().to_string());
            }
        }
        for path in list(&self.dir.join("containers")) {
            if path.is_dir() {
                found.push(path.display().to_string());
            }
        }
        for hierarchy in list(Path::new("/sys/fs/cgroup")) {
            for path in list(&hierarchy.join(&self.name)) {
                if path.is_dir() {
                    found.push(path.display().to_string());
                }
            }
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        found.extend(
            mounts
                .lines()
                .filter(|line| line.contains(&self.name) && !line.contains("/netns"))
                .filter(|line| {
                    let at = line.split(' ').nth(4).map(PathBuf::from);
                    at.is_none_or(|at| !self.own_mounts.contains(&at))
                })
                .map(str::to_owned),
        );
        found.extend(
            self.processes()
                .into_iter()
                .map(|(pid, at)| format!("process {pid} at {}", at.display())),
        );
        found
    }

    /// Waits until nothing is left of any container.
    pub fn expect_clean(&self) {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            let left = self.leftovers();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < until, "left behind: {left:#?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Pids of monitors (and parked inits) that have this core's directory open.
    pub fn monitors(&self) -> Vec<i32> {
        let used = |at: &PathBuf| !at.to_string_lossy().contains(PARKED);
        let all = self.processes().into_iter();
        all.filter(|(_, at)| used(at)).map(|(pid, _)| pid).collect()
    }

    /// Pids of the pool's monitors and inits.
    pub fn parked(&self) -> Vec<i32> {
        let parked = |at: &PathBuf| at.to_string_lossy().contains(PARKED);
        let all = self.processes().into_iter();
        all.filter(|(_, at)| parked(at))
            .map(|(pid, _)| pid)
            .collect()
    }

    /// Processes that have a directory of this core's open, and which.
    fn processes(&self) -> Vec<(i32, PathBuf)> {
        let prefix = self.dir.join("core");
        let place = |pid: i32| {
            let fds = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
            fds.flatten()
                .filter_map(|fd| fs::read_link(fd.path()).ok())
                .find(|to| to.starts_with(&prefix) && *to != prefix)
        };
        processes(|pid| comm(pid) != "shoal-core")
            .into_iter()
            .filter_map(|pid| Some((pid, place(pid)?)))
            .collect()
    }

    /// The zygote of this core; None while a dead one has not been replaced.
    pub fn zygote(&self) -> Option<i32> {
        let parent = self.child.id().to_string();
        let found = processes(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let after = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
            let mut fields = after.split(' ');
            let state = fields.next();
            comm(pid) == "shoal-zygote" && state != Some("Z") && fields.next() == Some(&parent)
        });
        found.first().copied()
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_some()) {
            self.restart();
        }
        let mut client = self.client();
        for container in client.ok(json!({"call": "list"}))["containers"]
            .as_array()
            .cloned()
            .unwrap_or_default()
        {
            client.call(
                json!({"call": "delete", "containerId": container["containerId"], "force": true}),
            );
        }
        // Ends the pool too; its answer may be cut off by its end.
        drop(client.try_call(json!({"call": "shutdown"})));
        drop(self.child.wait());
        // Pins of network namespaces and the groups of this test.
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        for line in mounts.lines().filter(|line| line.contains(&self.name)) {
            if let Some(at) = line.split(' ').nth(4) {
                drop(Command::new("umount").arg("-l").arg(at).status());
            }
        }
        for hierarchy in fs::read_dir("/sys/fs/cgroup")
            .into_iter()
            .flatten()
            .flatten()
        {
            drop(fs::remove_dir(hierarchy.path().join(&self.name)));
        }
        drop(fs::remove_dir_all(&self.dir));
    }
}

fn comm(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm"))
        .unwrap_or_default()
        .trim()
        .to_owned()
}

fn processes(wanted: impl Fn(i32) -> bool) -> Vec<i32> {
    let all = fs::read_dir("/proc").expect("/proc");
    all.flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| wanted(*pid))
        .collect()
}

/// Mounts a tmpfs, or gives the one that is there other options (`remount,...`).
pub fn mount_tmpfs(at: &Path, options: &str) -> bool {
    let status = Command::new("mount")
        .args(["-t", "tmpfs", "-o", options, "tmpfs"])
        .arg(at)
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

/// Sandboxes that a core of a test keeps. None on a small disk, whose last inodes a test counts.
fn pool_of(own_mounts: &[PathBuf]) -> u64 {
    rounds("SHOAL_POOL", if own_mounts.is_empty() { 2 } else { 0 })
}

fn spawn(prefix: &[String], dir: &Path, name: &str, pool: u64) -> Child {
    let binary = binary();
    let words: Vec<&String> = prefix.iter().chain([&binary]).collect();
    Command::new(words[0])
        .args(&words[1..])
        .arg("serve")
        .arg("--root")
        .arg(dir.join("core"))
        .arg("--socket")
        .arg(dir.join("core.sock"))
        .arg("--cgroup-parent")
        .arg(format!("/{name}"))
        .arg("--pool")
        .arg(pool.to_string())
        .stdin(Stdio::null())
        .spawn()
        .expect("shoal-core starts")
}

pub fn make_layer(layer: &Path) {
    for dir in ["bin", "etc", "root", "proc", "dev", "sys", "tmp"] {
        fs::create_dir_all(layer.join(dir)).expect("layer directory");
    }
    fs::copy(BUSYBOX, layer.join("bin/busybox")).expect("busybox");
    for applet in APPLETS {
        std::os::unix::fs::symlink("busybox", layer.join("bin").join(applet)).expect("applet");
    }
    fs::write(layer.join("etc/plain"), "not a program\n").expect("file");
}

/// Waits for what must come about.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < limit, "it did not come about: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// How often a test does something: the variable's number, or the usual one.
pub fn rounds(variable: &str, usual: u64) -> u64 {
    let text = std::env::var(variable).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(usual)
}
