//! A bundle with a busybox root, and the command line to run it by; everything goes away with it.

#![allow(dead_code, reason = "each test file uses its part")]

use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const BUSYBOX: &str = "/usr/bin/busybox";
const APPLETS: [&str; 22] = [
    "sh", "cat", "echo", "sleep", "ls", "id", "true", "false", "env", "stty", "tty", "readlink",
    "pwd", "kill", "trap", "touch", "mkdir", "hostname", "ps", "grep", "mount", "stat",
];
static NEXT: AtomicU32 = AtomicU32::new(0);
/// Longest that a test waits for something to become true.
const PATIENCE: Duration = Duration::from_secs(20);

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

/// One bundle and a state directory of its own.
pub struct Bundle {
    pub dir: PathBuf,
    /// The prefix of the ids to be used, unique on the machine.
    pub id: String,
    pub config: Value,
    /// The runtime that its commands are of.
    pub binary: String,
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Bundle {
    pub fn new() -> Self {
        let id = format!(
            "shoci-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let dir = std::env::temp_dir().join(&id);
        for sub in [
            "rootfs/bin",
            "rootfs/proc",
            "rootfs/dev",
            "rootfs/sys",
            "rootfs/tmp",
            "rootfs/etc",
        ] {
            fs::create_dir_all(dir.join(sub)).expect("bundle");
        }
        fs::copy(BUSYBOX, dir.join("rootfs/bin/busybox")).expect("busybox");
        for applet in APPLETS {
            symlink("busybox", dir.join("rootfs/bin").join(applet)).expect("applet");
        }
        let config = json!({
            "ociVersion": "1.2.0",
            "process": {
                "args": ["sleep", "1000"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0},
                "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]},
            },
            "root": {"path": "rootfs"},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666", "mode=0620"]},
            ],
            "linux": {
                "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}, {"type": "network"}],
                "maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/sys"],
            },
        });
        Self {
            dir,
            id,
            config,
            binary: binary(),
        }
    }

    /// A bundle whose program is a shell script.
    pub fn script(text: &str) -> Self {
        let mut bundle = Self::new();
        bundle.config["process"]["args"] = json!(["sh", "-c", text]);
        bundle
    }

    pub fn root(&self) -> PathBuf {
        self.dir.join("state")
    }

    pub fn write(&self) {
        let text = serde_json::to_vec(&self.config).expect("json");
        fs::write(self.dir.join("config.json"), text).expect("config.json");
    }

    /// The command line with `--root`, in the bundle.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .current_dir(&self.dir)
            .arg("--root")
            .arg(self.root())
            .args(args)
            .stdin(Stdio::null())
            .env_remove("LISTEN_FDS");
        command
    }

    /// Runs a command to its end. What it starts and leaves must not hold its output.
    pub fn say(&self, args: &[&str]) -> Said {
        said(self.command(args).output().expect("the command runs"))
    }

    /// As `say`, with the output in files, for commands that leave a container behind.
    pub fn leave(&self, args: &[&str]) -> Said {
        let (out, err) = (self.dir.join("out"), self.dir.join("err"));
        let file = |path: &Path| Stdio::from(fs::File::create(path).expect("file"));
        let status = self
            .command(args)
            .stdout(file(&out))
            .stderr(file(&err))
            .status()
            .expect("the command runs");
        Said {
            code: status.code().unwrap_or(-1),
            out: fs::read_to_string(out).expect("out"),
            err: fs::read_to_string(err).expect("err"),
        }
    }

    pub fn spawn(&self, args: &[&str]) -> Child {
        self.command(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command starts")
    }

    /// A command that must work.
    pub fn ok(&self, args: &[&str]) -> String {
        let said = self.say(args);
        assert_eq!(said.code, 0, "{args:?}: {said:?}");
        said.out
    }

    /// The container's state, or None when it does not exist.
    pub fn state(&self, id: &str) -> Option<Value> {
        let said = self.say(&["state", id]);
        if said.code != 0 {
            assert!(said.err.contains("does not exist"), "{said:?}");
            return None;
        }
        Some(serde_json::from_str(&said.out).expect("state is JSON"))
    }

    pub fn status(&self, id: &str) -> String {
        self.state(id).map_or("gone".to_owned(), |state| {
            state["status"].as_str().unwrap_or("?").to_owned()
        })
    }

    pub fn wait_status(&self, id: &str, status: &str) {
        eventually(&format!("{id} is {status}"), || self.status(id) == status);
    }

    /// Nothing is left of a container but the bundle: no state, group, mount or process.
    pub fn assert_nothing_left(&self, id: &str) {
        assert!(!self.root().join(id).exists(), "state of {id} is left");
        assert_eq!(groups(id), Vec::<PathBuf>::new(), "groups of {id} are left");
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        let dir = self.dir.display().to_string();
        assert!(!mounts.contains(&dir), "mounts below {dir} are left");
        eventually(&format!("no process in {dir}"), || {
            processes_in(&self.dir).is_empty()
        });
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        for id in fs::read_dir(self.root()).into_iter().flatten().flatten() {
            let id = id.file_name().to_string_lossy().into_owned();
            if !id.starts_with('.') {
                drop(
                    self.command(&["delete", "--force", &id])
                        .stderr(Stdio::null())
                        .status(),
                );
            }
        }
        drop(fs::remove_dir_all(&self.dir));
    }
}

pub fn said(output: Output) -> Said {
    Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Waits until something outside becomes true; the kernel and other processes give no event for it.
pub fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !check() {
        assert!(Instant::now() < deadline, "it never happened: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Every control group of this name, in every hierarchy.
pub fn groups(id: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/sys/fs/cgroup")
        .into_iter()
        .flatten()
        .flatten()
    {
        let path = entry.path().join(id);
        if path.is_dir() {
            found.push(path);
        }
    }
    found
}

/// Processes whose root is below this directory.
fn processes_in(dir: &Path) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("proc").flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else {
            continue;
        };
        // The link of a process in another mount namespace shows the path there; its working directory and root count.
        for link in ["root", "cwd"] {
            if fs::read_link(entry.path().join(link)).is_ok_and(|path| path.starts_with(dir)) {
                found.push(pid);
            }
        }
    }
    found
}
