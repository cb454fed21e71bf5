//! A place to make containers in, and the few words that every test says to them.

use serde_json::{Value, json};
use shoal_protocol::Failure;
use shoal_protocol::oci::{self, State, Status};
use shoal_runtime::cgroup::{self, Driver, detect};
use shoal_runtime::join::{self, Join, Joined};
use shoal_runtime::launch::{self, Options, Park, Parked};
use shoal_runtime::lookup::Unstartable;
use shoal_runtime::plan::{Input, Plan, RootSource};
use shoal_runtime::signals;
use shoal_runtime::streams::{Stdio, Streams};
use shoal_runtime::sys::{file, process};
use shoal_seccomp::default::DOCKERS_CAPABILITIES as CAPS;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

const BUSYBOX: &str = "/usr/bin/busybox";
const APPLETS: [&str; 27] = [
    "sh", "cat", "ls", "id", "true", "false", "sleep", "env", "echo", "stat", "grep", "readlink",
    "touch", "mount", "hostname", "pwd", "stty", "tty", "test", "mkdir", "dd", "kill", "ps",
    "head", "wc", "seq", "cut",
];
pub fn possible() -> bool {
    process::effective_uid() == 0 && Path::new(BUSYBOX).exists()
}

/// A directory with a root in it, and a driver; gone with everything in it when dropped.
pub struct Place {
    pub dir: PathBuf,
    pub driver: Box<dyn Driver>,
    name: String,
}

impl Place {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "shoal-runtime-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let dir = std::env::temp_dir().join(&name);
        let bin = dir.join("root/bin");
        fs::create_dir_all(&bin).expect("root");
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).expect("mode");
        for below in ["etc", "tmp"] {
            fs::create_dir(dir.join("root").join(below)).expect("root");
        }
        fs::set_permissions(dir.join("root/tmp"), fs::Permissions::from_mode(0o1777))
            .expect("mode");
        fs::write(
            dir.join("root/etc/passwd"),
            "root:x:0:0:root:/root:/bin/sh\nseven:x:7:7::/home/seven:/bin/sh\n",
        )
        .expect("passwd");
        fs::copy(BUSYBOX, bin.join("busybox")).expect("busybox");
        for applet in APPLETS {
            symlink("busybox", bin.join(applet)).expect("applet");
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        Self {
            dir,
            driver: cgroup::driver(&detect::layout(&mounts)),
            name,
        }
    }

    pub fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// A configuration as `runc spec` makes it, running `args`.
    pub fn spec(&self, args: &[&str]) -> Value {
        json!({
            "ociVersion": "1.2.0",
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": args,
                "env": ["PATH=/bin"],
                "cwd": "/",
                "capabilities": {"bounding": CAPS, "effective": CAPS, "permitted": CAPS}
            },
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]}
            ],
            "linux": {
                "namespaces": (["mount", "pid", "network", "uts", "ipc", "cgroup"].map(|kind| json!({"type": kind}))),
                "maskedPaths": ["/proc/kcore"],
                "readonlyPaths": ["/proc/sys"]
            }
        })
    }

    pub fn plan(&self, id: &str, spec: &Value) -> Result<Plan, Failure> {
        Plan::new(Input {
            container_id: id.to_owned(),
            spec: serde_json::from_value(spec.clone()).expect("a configuration"),
            root: RootSource::Directory(self.root()),
            cgroup: format!("/{}/{id}", self.name),
        })
    }

    /// Makes a container whose streams are pipes of ours.
    pub fn create(&self, id: &str, spec: &Value) -> Result<Container<'_>, Failure> {
        self.create_in(id, spec, None)
    }

    /// As `create`, with a network namespace that comes through a socket.
    pub fn create_in(
        &self,
        id: &str,
        spec: &Value,
        network: Option<OwnedFd>,
    ) -> Result<Container<'_>, Failure> {
        let plan = self.plan(id, spec)?;
        let (stdout, write) = file::pipe().expect("pipe");
        let stderr = write.try_clone().expect("copy");
        let stdio = Stdio::Fds(Streams {
            stdin: None,
            stdout: write,
            stderr,
        });
        let options = Options {
            network,
            ..self.options(stdio, Park::Channel)
        };
        let parked = launch::create(&plan, &options)?;
        drop(options);
        Ok(Container {
            place: self,
            pid: parked.pid,
            parked: Some(parked),
            plan,
            stdout: Some(stdout),
        })
    }

    pub fn options<'a>(&'a self, stdio: Stdio, park: Park<'a>) -> Options<'a> {
        Options {
            driver: self.driver.as_ref(),
            stdio,
            preserve_fds: 0,
            park,
            state: Some(self.state()),
            seccomp: None,
            held: &[],
            no_pivot: false,
            no_new_keyring: false,
            meanwhile: &|_| Ok(()),
            root: None,
            network: None,
        }
    }

    pub fn state(&self) -> State {
        State {
            oci_version: "1.2.0".into(),
            id: "hooked".into(),
            status: Status::Creating,
            pid: 0,
            bundle: self.dir.display().to_string(),
            annotations: BTreeMap::new(),
        }
    }

    /// Runs a container to its end: exit code and what it wrote.
    pub fn run(&self, id: &str, spec: &Value) -> (i32, String) {
        let mut container = self.create(id, spec).expect("a container");
        container.start().expect("a start");
        container.end()
    }

    /// Runs a shell script in a container that `change` has altered; it must exit with 0.
    pub fn shell(&self, script: &str, change: impl FnOnce(&mut Value)) -> String {
        let mut spec = self.spec(&["sh", "-c", script]);
        change(&mut spec);
        let (code, text) = self.run("shell", &spec);
        assert_eq!(code, 0, "{script}: {text}");
        text
    }

    /// Control groups of this place that are still there.
    pub fn groups(&self) -> Vec<PathBuf> {
        self.driver
            .directories(&format!("/{}", self.name))
            .into_iter()
            .flat_map(|dir| fs::read_dir(dir).into_iter().flatten().flatten())
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.path())
            .collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What a failed test has left must not fail the next one.
        drop(cgroup::destroy(
            self.driver.as_ref(),
            &format!("/{}", self.name),
        ));
        drop(fs::remove_dir_all(&self.dir));
    }
}

/// One container; killed and forgotten when dropped.
pub struct Container<'a> {
    place: &'a Place,
    pub pid: i32,
    pub parked: Option<Parked>,
    pub plan: Plan,
    stdout: Option<OwnedFd>,
}

impl Container<'_> {
    pub fn start(&mut self) -> Result<(), Unstartable> {
        self.parked.take().expect("not started yet").start()
    }

    /// Waits for the end: exit code and what was written.
    pub fn end(&mut self) -> (i32, String) {
        let text = read_all(self.stdout.take().expect("stdout"));
        let (_, status) = process::wait(self.pid, 0).expect("a child");
        self.pid = 0;
        (signals::exit_of(status).0, text)
    }

    /// Runs a further process: exit code and what it wrote.
    pub fn exec(&self, change: impl FnOnce(&mut Value)) -> Result<(i32, String), Unstartable> {
        let (stdout, write) = file::pipe().expect("pipe");
        let stderr = write.try_clone().expect("copy");
        let joined = self.exec_with(
            Stdio::Fds(Streams {
                stdin: None,
                stdout: write,
                stderr,
            }),
            change,
        )?;
        let text = read_all(stdout);
        let (_, status) = process::wait(joined.pid, 0).expect("a child");
        Ok((signals::exit_of(status).0, text))
    }

    /// Starts a further process whose configuration is the container's, changed.
    pub fn exec_with(
        &self,
        stdio: Stdio,
        change: impl FnOnce(&mut Value),
    ) -> Result<Joined, Unstartable> {
        let mut value = serde_json::to_value(&self.plan.spec.process).expect("plain data");
        change(&mut value);
        let wanted: oci::Process = serde_json::from_value(value).expect("a process");
        let pidfd = process::pidfd(self.pid).expect("a container");
        join::exec(&Join {
            pid: self.pid,
            pidfd: pidfd.as_fd(),
            spec: &self.plan.spec,
            process: &wanted,
            driver: self.place.driver.as_ref(),
            cgroup: &self.plan.cgroup,
            container_id: &self.plan.container_id,
            stdio: &stdio,
            preserve_fds: 0,
            seccomp: None,
            state: None,
            no_new_keyring: false,
            keep_groups: false,
        })
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        if self.pid > 0 {
            drop(process::signal(self.pid, libc::SIGKILL));
            drop(process::wait(self.pid, 0));
        }
        drop(cgroup::destroy(
            self.place.driver.as_ref(),
            &self.plan.cgroup,
        ));
    }
}

pub fn read_all(fd: OwnedFd) -> String {
    let mut bytes = Vec::new();
    // A terminal's end is EIO.
    drop(File::from(fd).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Children of this process that nobody has waited for.
pub fn children() -> bool {
    process::wait(-1, libc::WNOHANG).is_ok()
}
