//! Groups of tests on the machine's own kernel, and shells in them; everything goes away with them.

use shoal_protocol::oci::Resources;
use shoal_runtime::cgroup::detect::{self, Layout, Mode};
use shoal_runtime::cgroup::files::Kernel;
use shoal_runtime::cgroup::{Driver, driver, v2};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

pub const BUSYBOX: &str = "/usr/bin/busybox";

/// A group of one test, removed with everything in it when the test ends, however it ends.
pub struct Group {
    pub driver: Box<dyn Driver>,
    pub path: String,
    pub parent: String,
}

impl Drop for Group {
    fn drop(&mut self) {
        let removed = self.driver.remove(&self.path);
        let parents = self.driver.directories(&self.parent);
        for dir in &parents {
            // It holds the groups of tests that still run until the last one.
            drop(std::fs::remove_dir(dir));
        }
        if !std::thread::panicking() {
            removed.expect("the group is removed");
        }
    }
}

impl Group {
    pub fn new(driver: Box<dyn Driver>, name: &str) -> Self {
        let parent = format!("/shoal-test-{}", std::process::id());
        Self {
            driver,
            path: format!("{parent}/{name}"),
            parent,
        }
    }

    pub fn create(&self, json: &str) {
        self.driver
            .create(&self.path, &resources(json))
            .expect("created");
    }

    /// A file of the group, from the hierarchy that has it.
    pub fn read(&self, name: &str) -> String {
        self.driver
            .directories(&self.path)
            .iter()
            .find_map(|dir| std::fs::read_to_string(dir.join(name)).ok())
            .unwrap_or_else(|| panic!("no {name} in {:?}", self.driver.directories(&self.path)))
            .trim()
            .to_owned()
    }

    /// A shell that does what it is told line by line, already in the group.
    pub fn shell(&self) -> Shell {
        let shell = Shell::new();
        self.driver
            .attach(&self.path, shell.pid())
            .expect("attached");
        shell
    }
}

pub fn resources(json: &str) -> Resources {
    serde_json::from_str(json).expect(json)
}

/// A process that is ours: killed and reaped at the end of the test.
pub struct Shell {
    pub child: Child,
    pub out: BufReader<std::process::ChildStdout>,
}

impl Drop for Shell {
    fn drop(&mut self) {
        // It may have been killed by the test already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Shell {
    pub fn new() -> Self {
        let mut child = Command::new(BUSYBOX)
            .arg("sh")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        let out = BufReader::new(child.stdout.take().expect("its output"));
        Self { child, out }
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid")
    }

    pub fn tell(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().expect("its input");
        writeln!(stdin, "{line}").expect("told");
    }

    /// Runs a command and gives the one line that it says.
    pub fn ask(&mut self, line: &str) -> String {
        self.tell(line);
        let mut answer = String::new();
        self.out.read_line(&mut answer).expect("an answer");
        answer.trim().to_owned()
    }
}

pub fn layout() -> Option<Layout> {
    // SAFETY: no pointers.
    if unsafe { libc::geteuid() } != 0 {
        eprintln!("SKIPPED: control groups need root");
        return None;
    }
    let text = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let layout = detect::layout(&text);
    if layout.hierarchies.is_empty() && layout.unified.is_none() {
        eprintln!("SKIPPED: no control groups are mounted");
        return None;
    }
    Some(layout)
}

pub fn group(name: &str) -> Option<Group> {
    Some(Group::new(driver(&layout()?), name))
}

/// The v2 driver on this machine's v2 mount, even where v1 has the controllers.
pub fn unified(name: &str, devices: bool) -> Option<Group> {
    let layout = layout()?;
    let Some(mount) = layout.unified else {
        eprintln!("SKIPPED: no v2 mount");
        return None;
    };
    let driver = v2::V2 {
        mount,
        files: Box::new(Kernel),
        duty: v2::Duty::Everything { devices },
    };
    Some(Group::new(Box::new(driver), name))
}

pub fn is_v1() -> bool {
    layout().is_some_and(|layout| layout.mode != Mode::V2)
}

/// Every group of this process's tests that is left, anywhere.
pub fn gone(group: &Group) -> bool {
    group
        .driver
        .directories(&group.path)
        .iter()
        .all(|dir| !dir.exists())
}
