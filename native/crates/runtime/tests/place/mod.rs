//! A directory with an image, built and entered in a thread with namespaces of its own.

#![allow(dead_code, reason = "each test file uses its part")]

use serde_json::{Value, json};
use shoal_protocol::{Failure, oci::Spec};
use shoal_runtime::filesystem::{Filesystem, Plan, RootSource};
use shoal_runtime::mounts::Surroundings;
use shoal_runtime::sys::{Kernel, process};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

pub const OWNED: i32 = libc::CLONE_NEWNS
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP;

/// Whether mounts can be made here at all.
pub fn possible() -> bool {
    let root = process::effective_uid() == 0;
    if !root {
        eprintln!("skipped: real mounts need root");
    }
    root
}

/// A directory with an image (`root`) and volumes, removed when dropped.
pub struct Place {
    pub dir: PathBuf,
}

impl Place {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("shoal-files-{}-{number}", std::process::id()));
        for name in ["root/dev", "root/proc", "root/sys", "root/etc", "volume"] {
            fs::create_dir_all(dir.join(name)).expect("directories");
        }
        Self { dir }
    }

    pub fn image(&self, path: &str) -> PathBuf {
        self.dir.join("root").join(path)
    }

    pub fn path(&self, name: &str) -> String {
        self.dir.join(name).to_string_lossy().into_owned()
    }

    /// Builds the files of `spec` in namespaces of their own, enters them and runs `look` there.
    pub fn inside<T: Send>(
        &self,
        spec: Value,
        look: impl FnOnce() -> T + Send,
    ) -> Result<T, Failure> {
        self.inside_of(spec, OWNED, &Surroundings::default(), || {}, look)
    }

    pub fn inside_of<T: Send>(
        &self,
        spec: Value,
        owned: i32,
        around: &Surroundings,
        before: impl FnOnce() + Send,
        look: impl FnOnce() -> T + Send,
    ) -> Result<T, Failure> {
        let spec: Spec = serde_json::from_value(spec).expect("a configuration");
        let source = RootSource::Directory(self.dir.join("root"));
        let plan = Plan::new(&spec, source, owned.cast_unsigned().into())?;
        let host = mount_points("/proc/self/mountinfo");
        let looked = std::thread::scope(|scope| {
            let built = scope.spawn(|| {
                process::unshare(OWNED).expect("namespaces of the thread's own");
                process::set_umask(0);
                before();
                let sources = plan.sources(&Kernel)?;
                let mut files = Filesystem::begin(&Kernel, &plan, around, sources, None)?;
                files.mount_all(&mut || Ok(()), &mut || Ok(()))?;
                files.finish()?;
                files.enter(false)?;
                Ok(look())
            });
            built.join().expect("no panic inside")
        });
        let prefix = self.dir.to_string_lossy().into_owned();
        let leaked = |point: &&String| point.starts_with(&prefix) && !host.contains(point);
        let now = mount_points("/proc/self/mountinfo");
        assert_eq!(now.iter().find(leaked), None, "nothing reaches the host");
        looked
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.dir).expect("clean");
    }
}

pub fn mount_points(file: &str) -> Vec<String> {
    let text = fs::read_to_string(file).expect("mountinfo");
    text.lines()
        .filter_map(|line| line.split(' ').nth(4).map(str::to_owned))
        .collect()
}

/// The topmost mount on a path, as mountinfo has it: (mount options, optional fields, type, file system's options).
pub fn mounted(point: &str) -> (String, String, String, String) {
    let text = fs::read_to_string("/proc/thread-self/mountinfo").expect("mountinfo");
    let line = text
        .lines()
        .rev()
        .find(|line| line.split(' ').nth(4) == Some(point))
        .unwrap_or_else(|| panic!("{point} is no mount point in\n{text}"));
    let (left, right) = line.split_once(" - ").expect("two halves");
    let left: Vec<&str> = left.split(' ').collect();
    let right: Vec<&str> = right.split(' ').collect();
    (
        left[5].to_owned(),
        left[6..].join(" "),
        right[0].to_owned(),
        right[2].to_owned(),
    )
}

pub fn proc_mount() -> Value {
    json!({"destination": "/proc", "type": "proc", "source": "proc"})
}

pub fn with_proc(mut mounts: Vec<Value>) -> Value {
    mounts.insert(0, proc_mount());
    json!({"mounts": mounts})
}

pub fn run(program: &str, args: &[&str]) {
    let status = Command::new(program).args(args).status().expect(program);
    assert!(status.success(), "{program} {args:?}");
}

/// `mount -t tmpfs` in the thread's namespace.
pub fn mount_tmpfs(at: &str, options: &str) {
    run("mount", &["-t", "tmpfs", "-o", options, "tmpfs", at]);
}
