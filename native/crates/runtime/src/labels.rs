//! Labels of the kernel's security modules: the AppArmor profile and SELinux label of a process, written where nothing of an image can redirect them (CVE-2025-52881).

use crate::sys::Calls;
use crate::sys::file;
use crate::sysctl::{self, PROC_SUPER_MAGIC};
use shoal_protocol::{Failure, oci};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// Longest label that fits a write to procfs: a page, less the word before and the end.
const LABEL_BYTES_MAX: usize = 4000;
/// The profile that is none.
const UNCONFINED: &str = "unconfined";
/// From <linux/magic.h>.
const SELINUX_MAGIC: i64 = 0xf97c_ff8c;

/// Which modules this machine runs, as its own files tell (not the container's).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Modules {
    pub apparmor: bool,
    pub selinux: bool,
}

impl Modules {
    /// Asks the host. To be called before the root is changed.
    pub fn of_host(calls: &dyn Calls) -> Self {
        let enabled = std::fs::read("/sys/module/apparmor/parameters/enabled");
        let selinux = calls
            .open("/sys/fs/selinux", libc::O_PATH | libc::O_DIRECTORY)
            .and_then(|fd| calls.file_system(fd.as_fd()));
        Self {
            apparmor: enabled.is_ok_and(|text| text.starts_with(b"Y")),
            selinux: selinux.is_ok_and(|magic| magic == SELINUX_MAGIC),
        }
    }
}

/// What a process is to be labelled with, checked; empty is nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels {
    apparmor: String,
    selinux: String,
}

impl Labels {
    /// Reads process.apparmorProfile and process.selinuxLabel. A label that no module would heed is refused: the container would run
    /// unconfined, which nobody asked for.
    pub fn read(process: &oci::Process, modules: Modules) -> Result<Self, Failure> {
        let (apparmor, selinux) = (&process.apparmor_profile, &process.selinux_label);
        let apparmor = match apparmor.as_str() {
            UNCONFINED if !modules.apparmor => "",
            other => other,
        };
        check(
            "process.apparmorProfile",
            apparmor,
            "AppArmor",
            modules.apparmor,
        )?;
        check("process.selinuxLabel", selinux, "SELinux", modules.selinux)?;
        Ok(Self {
            apparmor: apparmor.to_owned(),
            selinux: selinux.clone(),
        })
    }

    /// Whether there is nothing to apply.
    pub fn is_empty(&self) -> bool {
        self.apparmor.is_empty() && self.selinux.is_empty()
    }

    /// Asks for the labels, which take hold at exec; the SELinux label also for keys made from here on, so before the session keyring.
    /// The calling process must be privileged still and in its own pid namespace; it has one thread.
    pub fn apply(&self, calls: &dyn Calls) -> Result<(), Failure> {
        if self.is_empty() {
            return Ok(());
        }
        let proc_root = sysctl::private_proc(calls)?;
        for wish in self.wishes() {
            let written = match write(calls, proc_root.as_fd(), wish.attribute, &wish.text) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    wish.formerly.map_or(Err(error), |name| {
                        write(calls, proc_root.as_fd(), name, &wish.text)
                    })
                }
                other => other,
            };
            written.map_err(|error| Failure::io(format!("setting {}", wish.label), &error))?;
        }
        Ok(())
    }

    /// What is to be written, in this order.
    fn wishes(&self) -> Vec<Wish> {
        let mut all = Vec::new();
        if !self.selinux.is_empty() {
            all.extend(["exec", "keycreate"].map(|attribute| Wish {
                attribute,
                formerly: None,
                text: self.selinux.clone(),
                label: format!("process.selinuxLabel {:?}", self.selinux),
            }));
        }
        if !self.apparmor.is_empty() {
            all.push(Wish {
                attribute: "apparmor/exec",
                formerly: Some("exec"),
                text: format!("exec {}", self.apparmor),
                label: format!("process.apparmorProfile {:?}", self.apparmor),
            });
        }
        all
    }
}

/// One write to a file below /proc/PID/attr.
#[derive(Debug, PartialEq, Eq)]
struct Wish {
    attribute: &'static str,
    /// Where kernels without the first place have it (before 5.8).
    formerly: Option<&'static str>,
    text: String,
    /// Field and value, for a refusal.
    label: String,
}

/// Checks linux.mountLabel, which only SELinux heeds.
pub fn check_mount_label(label: &str, modules: Modules) -> Result<(), Failure> {
    check("linux.mountLabel", label, "SELinux", modules.selinux)
}

fn check(field: &str, label: &str, module: &str, enabled: bool) -> Result<(), Failure> {
    let refuse = |why: String| Err(Failure::invalid(format!("reading {field}"), why));
    if label.is_empty() {
        return Ok(());
    }
    if label.len() > LABEL_BYTES_MAX || label.contains(['\0', '\n']) {
        return refuse(format!(
            "{label:?} is over {LABEL_BYTES_MAX} bytes or holds a NUL byte or a line's end"
        ));
    }
    if !enabled {
        return refuse(format!(
            "{label:?} is given, and {module} is not enabled on this machine"
        ));
    }
    Ok(())
}

/// Writes one of this process's attributes in one write, as the kernel takes them. `self` is a link, so it is not used.
fn write(calls: &dyn Calls, proc_root: BorrowedFd<'_>, name: &str, text: &str) -> io::Result<()> {
    let path = format!("{}/attr/{name}", std::process::id());
    let resolve = file::NO_XDEV | file::NO_SYMLINKS;
    let fd = calls.open_at2(proc_root, &path, libc::O_WRONLY, resolve)?;
    if calls.file_system(fd.as_fd())? != PROC_SUPER_MAGIC {
        return Err(io::Error::from_raw_os_error(libc::EXDEV));
    }
    calls.write(fd.as_fd(), text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{Kernel, process};

    const NONE: Modules = Modules {
        apparmor: false,
        selinux: false,
    };
    const BOTH: Modules = Modules {
        apparmor: true,
        selinux: true,
    };

    fn process(apparmor: &str, selinux: &str) -> oci::Process {
        oci::Process {
            apparmor_profile: apparmor.to_owned(),
            selinux_label: selinux.to_owned(),
            ..oci::Process::default()
        }
    }

    #[test]
    fn read_refuses_a_label_that_nothing_would_heed() {
        for (apparmor, selinux, word) in [
            (
                "docker-default",
                "",
                "process.apparmorProfile: \"docker-default\"",
            ),
            (
                "",
                "system_u:system_r:container_t:s0",
                "process.selinuxLabel",
            ),
        ] {
            let process = process(apparmor, selinux);
            let told = Labels::read(&process, NONE).expect_err(word).to_string();
            assert!(
                told.contains(word) && told.contains("not enabled"),
                "{told}"
            );
            Labels::read(&process, BOTH).expect("a label");
        }
        for apparmor in ["", UNCONFINED] {
            let labels = Labels::read(&process(apparmor, ""), NONE).expect("nothing to do");
            assert!(labels.is_empty());
        }
        for bad in ["a\nb", "a\0", &"x".repeat(5000)] {
            Labels::read(&process(bad, ""), BOTH).expect_err("a bad profile");
            Labels::read(&process("", bad), BOTH).expect_err("a bad label");
            check_mount_label(bad, BOTH).expect_err("a bad label");
        }
        check_mount_label("", NONE).expect("none");
        check_mount_label("a_t", NONE).expect_err("not enabled");
    }

    #[test]
    fn wishes_are_what_the_modules_read() {
        let labels = Labels::read(&process("docker-default", "a:b:c:s0"), BOTH).expect("labels");
        let written: Vec<_> = labels
            .wishes()
            .into_iter()
            .map(|wish| (wish.attribute, wish.text))
            .collect();
        assert_eq!(
            written,
            [
                ("exec", "a:b:c:s0".to_owned()),
                ("keycreate", "a:b:c:s0".to_owned()),
                ("apparmor/exec", "exec docker-default".to_owned()),
            ]
        );
        let unconfined = Labels::read(&process(UNCONFINED, ""), BOTH).expect("labels");
        assert_eq!(unconfined.wishes()[0].text, "exec unconfined");
    }

    /// CVE-2025-52881: a path that leads over a link, or to a file that is not procfs's.
    #[test]
    fn a_label_is_written_to_a_bare_procfs_only() {
        let dir = std::env::temp_dir().join(format!("shoal-labels-{}", std::process::id()));
        let attributes = dir.join(format!("{}/attr", std::process::id()));
        std::fs::create_dir_all(&attributes).expect("directories");
        std::fs::write(attributes.join("exec"), "as it was").expect("a file");
        // In earnest an attribute of procfs, of another process.
        let comm = "/proc/self/comm";
        std::os::unix::fs::symlink(comm, attributes.join("keycreate")).expect("a link");
        let before = std::fs::read(comm).expect("comm");
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        let root = file::open(dir.to_str().expect("text"), flags).expect("the directory");
        let told = ["exec", "keycreate"].map(|name| {
            let written = write(&Kernel, root.as_fd(), name, "led astray");
            written.err().and_then(|error| error.raw_os_error())
        });
        let left = std::fs::read(attributes.join("exec")).expect("the file");
        std::fs::remove_dir_all(&dir).expect("cleaning up");
        assert_eq!(std::fs::read(comm).expect("comm"), before);
        assert_eq!(left, b"as it was");
        assert_eq!(told, [Some(libc::EXDEV), Some(libc::ELOOP)]);
    }

    /// A kernel without the module must make the start fail, not run the program unlabelled; one with it does not know this label.
    #[test]
    fn apply_fails_where_the_kernel_does_not_take_the_label() {
        // SAFETY: geteuid takes nothing and cannot fail.
        if unsafe { libc::geteuid() } != 0 {
            eprintln!("SKIPPED: mounting a private procfs needs root");
            return;
        }
        for (apparmor, selinux) in [("no-such-profile", ""), ("", "no_such_label")] {
            let labels = Labels::read(&process(apparmor, selinux), BOTH).expect("labels");
            // A thread of its own may write attributes of itself only; a fork has one thread, whose number is the process's.
            let pid = match process::fork().expect("fork") {
                process::Side::Child => {
                    let told = labels.apply(&Kernel);
                    let named = told.is_err_and(|failure| {
                        failure.doing.contains("no") && failure.doing.contains("process.")
                    });
                    process::exit_now(i32::from(!named));
                }
                process::Side::Parent(pid) => pid,
            };
            let (_, status) = process::wait(pid, 0).expect("wait");
            assert_eq!(status, 0, "{apparmor}{selinux}");
        }
    }
}
