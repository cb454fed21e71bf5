//! Network namespaces for tests: made with a prefix of their own, removed with all that was pinned.

#![allow(dead_code, reason = "each test file uses a part of it")]

use serde_json::{Value, json};
use shoal_net::{NetConfig, NetHandler, namespace};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// One test's namespaces and directories.
pub struct World {
    prefix: String,
    namespaces: Vec<String>,
    directory: PathBuf,
}

/// Whether real namespaces can be made; says loudly that a test is skipped when not.
pub fn can_run(test: &str) -> bool {
    // SAFETY: no pointers.
    let root = unsafe { libc::geteuid() } == 0;
    let tools =
        Command::new("ip").arg("-V").output().is_ok() && Path::new("/usr/bin/busybox").exists();
    if !root || !tools {
        eprintln!("\n!!! SKIPPED {test}: it needs root, iproute2 and /usr/bin/busybox !!!\n");
    }
    root && tools
}

impl World {
    pub fn new() -> Self {
        let prefix = format!(
            "shnt-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let directory = std::env::temp_dir().join(&prefix);
        fs::create_dir_all(&directory).unwrap();
        Self {
            prefix,
            namespaces: Vec::new(),
            directory,
        }
    }

    /// Adds a namespace and gives its file.
    pub fn namespace(&mut self, name: &str) -> PathBuf {
        let full = format!("{}-{name}", self.prefix);
        run("ip", &["netns", "add", &full]);
        self.namespaces.push(full.clone());
        Path::new("/run/netns").join(full)
    }

    /// Two hosts, `h1` and `h2`, with 10.77.0.1 and 10.77.0.2 on a cable between them.
    pub fn two_hosts(&mut self) -> (PathBuf, PathBuf) {
        let hosts = (self.namespace("h1"), self.namespace("h2"));
        let (one, two) = (format!("{}-h1", self.prefix), format!("{}-h2", self.prefix));
        run(
            "ip",
            &[
                "-n", &one, "link", "add", "cable", "type", "veth", "peer", "name", "cable",
                "netns", &two,
            ],
        );
        for (host, address) in [(&one, "10.77.0.1/24"), (&two, "10.77.0.2/24")] {
            run("ip", &["-n", host, "addr", "add", address, "dev", "cable"]);
            run("ip", &["-n", host, "link", "set", "cable", "up"]);
            run("ip", &["-n", host, "link", "set", "lo", "up"]);
        }
        hosts
    }

    pub fn full_name(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    pub fn directory(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The handler of a host, as a core that runs there has it. Containers are the world's namespaces.
    pub fn handler(&self, host: &Path, name: &str) -> NetHandler {
        let prefix = self.prefix.clone();
        let config = NetConfig {
            netns_dir: self.directory(&format!("{name}-netns")),
            state_dir: self.directory(&format!("{name}-state")),
            container_netns: Box::new(move |id| {
                Some(Path::new("/run/netns").join(format!("{prefix}-{id}")))
                    .filter(|path| path.exists())
            }),
        };
        inside(host, || NetHandler::new(config).map_err(io::Error::other))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for entry in fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten()
        {
            if entry.file_name().to_string_lossy().ends_with("-netns") {
                for pin in fs::read_dir(entry.path()).into_iter().flatten().flatten() {
                    let _ = Command::new("umount").arg("-l").arg(pin.path()).output();
                }
                let _ = Command::new("umount").arg("-l").arg(entry.path()).output();
            }
        }
        for namespace in &self.namespaces {
            let _ = Command::new("ip")
                .args(["netns", "del", namespace])
                .output();
        }
        fs::remove_dir_all(&self.directory).expect("a test removes what it made");
    }
}

/// Runs a thing inside a namespace and expects it to work.
pub fn inside<T: Send>(path: &Path, visit: impl FnOnce() -> io::Result<T> + Send) -> T {
    namespace::inside(&namespace::open(path).unwrap(), visit).unwrap()
}

pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs busybox inside a namespace.
pub fn busybox(path: &Path, arguments: &[&str]) -> Output {
    inside(path, || {
        Command::new("/usr/bin/busybox").args(arguments).output()
    })
}

/// Whether one ping is answered.
pub fn pings(from: &Path, to: &str, payload: &str) -> bool {
    busybox(from, &["ping", "-c", "1", "-W", "2", "-s", payload, to])
        .status
        .success()
}

/// Applies operations and gives the failures.
pub fn apply(handler: &NetHandler, operations: Value) -> Vec<Value> {
    let count = operations.as_array().unwrap().len();
    let answer = handler.network(&json!({ "ops": operations })).unwrap();
    let failures = answer["failures"].as_array().unwrap().clone();
    assert_eq!(failures.len(), count);
    failures
}

/// Applies operations that must all work.
pub fn apply_all(handler: &NetHandler, operations: Value) {
    for (index, failure) in apply(handler, operations.clone()).iter().enumerate() {
        assert!(failure.is_null(), "{}: {failure}", operations[index]);
    }
}
