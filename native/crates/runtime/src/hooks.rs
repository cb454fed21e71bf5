//! Hooks of a configuration (config.md "POSIX-platform Hooks"): programs run one after the other with the container's state on stdin.

use crate::sys::process as sys;
use shoal_protocol::{Failure, FailureCode, oci};
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};

pub use shoal_protocol::oci::State;

/// How much of a failed hook's output is told.
const OUTPUT_BYTES_MAX: u64 = 2048;

/// Refuses what cannot be run, naming the field: a relative path, a timeout that is not positive.
pub fn validate(hooks: &oci::Hooks) -> Result<(), Failure> {
    for (name, list) in [
        ("prestart", &hooks.prestart),
        ("createRuntime", &hooks.create_runtime),
        ("createContainer", &hooks.create_container),
        ("startContainer", &hooks.start_container),
        ("poststart", &hooks.poststart),
        ("poststop", &hooks.poststop),
    ] {
        for (index, hook) in list.iter().enumerate() {
            let doing = || format!("reading hooks.{name}[{index}]");
            if !hook.path.starts_with('/') {
                return Err(Failure::invalid(
                    doing(),
                    format!("path {:?} is not absolute; begin it with /", hook.path),
                ));
            }
            if let Some(timeout) = hook.timeout.filter(|timeout| *timeout <= 0) {
                return Err(Failure::invalid(
                    doing(),
                    format!("timeout {timeout} is not greater than zero"),
                ));
            }
            let texts = hook.args.iter().chain(&hook.env).chain([&hook.path]);
            if let Some(text) = texts.into_iter().find(|text| text.contains('\0')) {
                return Err(Failure::invalid(
                    doing(),
                    format!("{text:?} holds a NUL byte"),
                ));
            }
        }
    }
    Ok(())
}

/// Runs `hooks` (all of kind `name`) in order, with `state` as JSON on stdin, until one fails; the failure says which and why.
/// The caller must have one thread, and no handler that takes children away.
pub fn run(name: &'static str, hooks: &[oci::Hook], state: &State) -> Result<(), Failure> {
    Prepared::new(name, hooks, state)?.run()
}

/// Hooks with everything open that they need, so that a filter which judges the rest need allow little more than a program's start.
pub(crate) struct Prepared<'a> {
    name: &'static str,
    hooks: Vec<(&'a oci::Hook, Files)>,
}

/// Files in memory, not pipes: a hook need not read its stdin, and one that leaves a daemon behind does not hold us.
struct Files {
    stdin: File,
    stdout: File,
    stderr: File,
    /// To read what it said.
    output: File,
}

impl<'a> Prepared<'a> {
    /// Opens what the hooks (all of kind `name`) need.
    pub(crate) fn new(
        name: &'static str,
        hooks: &'a [oci::Hook],
        state: &State,
    ) -> Result<Self, Failure> {
        let mut prepared = Vec::new();
        if !hooks.is_empty() {
            let json = serde_json::to_vec(state).expect("a state is plain data");
            for hook in hooks {
                let files = Files::new(&json)
                    .map_err(|error| Failure::io(format!("preparing {name} hooks"), &error))?;
                prepared.push((hook, files));
            }
        }
        Ok(Self {
            name,
            hooks: prepared,
        })
    }

    /// Runs them, as `run`.
    pub(crate) fn run(self) -> Result<(), Failure> {
        for (index, (hook, files)) in self.hooks.into_iter().enumerate() {
            let doing = format!("error running {} hook #{index}", self.name);
            run_one(hook, files)
                .unwrap_or_else(|error| Err(error.to_string()))
                .map_err(|reason| {
                    // The words are runc's, which callers look for.
                    let message = format!("{}: {reason}", hook.path);
                    Failure::new(FailureCode::System, &doing, message)
                })?;
        }
        Ok(())
    }
}

impl Files {
    fn new(state: &[u8]) -> io::Result<Self> {
        let mut stdin = memory_file(c"hook-state")?;
        stdin.write_all(state)?;
        stdin.seek(SeekFrom::Start(0))?;
        let output = memory_file(c"hook-output")?;
        Ok(Self {
            stdin,
            stdout: output.try_clone()?,
            stderr: output.try_clone()?,
            output,
        })
    }
}

fn run_one(hook: &oci::Hook, files: Files) -> io::Result<Result<(), String>> {
    let mut output = files.output;
    let mut command = Command::new(&hook.path);
    if let Some((first, rest)) = hook.args.split_first() {
        command.arg0(first).args(rest);
    }
    // As with runc and crun, a hook that names no environment has its maker's.
    if !hook.env.is_empty() {
        command.env_clear();
    }
    for entry in &hook.env {
        let (key, value) = entry.split_once('=').unwrap_or((entry, ""));
        if !key.is_empty() {
            command.env(key, value);
        }
    }
    let mut child = command
        .stdin(Stdio::from(files.stdin))
        .stdout(Stdio::from(files.stdout))
        .stderr(Stdio::from(files.stderr))
        .spawn()?;
    let pid = i32::try_from(child.id()).expect("pids fit i32");
    let mut late = false;
    if let Some(seconds) = hook.timeout {
        let pidfd = sys::pidfd(pid)?;
        late = !ended_within(&pidfd, seconds)?;
        if late {
            child.kill()?;
        }
    }
    let status = child.wait()?;
    if status.success() && !late {
        return Ok(Ok(()));
    }
    let mut said = String::new();
    output.seek(SeekFrom::Start(0))?;
    let mut bytes = Vec::new();
    output.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes)?;
    said.push_str(&String::from_utf8_lossy(&bytes).trim().replace('\n', "; "));
    let reason = match (late, status.code(), status.signal()) {
        (true, _, _) => format!(
            "it took longer than its timeout of {} s and was killed",
            hook.timeout.unwrap_or(0)
        ),
        (false, Some(code), _) => format!("exit status {code}"),
        (false, None, signal) => killed_by(signal.unwrap_or(0)),
    };
    Ok(Err(if said.is_empty() {
        reason
    } else {
        format!("{reason}: {said}")
    }))
}

/// The signal with its meaning in words, by which a filter's kill is known.
fn killed_by(signal: i32) -> String {
    // SAFETY: strsignal(3) gives a text of the C library's that lives as long as nobody asks again; there is one thread.
    let words = unsafe {
        let text = libc::strsignal(signal);
        if text.is_null() {
            String::new()
        } else {
            CStr::from_ptr(text).to_string_lossy().to_lowercase()
        }
    };
    format!("killed by signal {signal} ({words})")
}

fn ended_within(pidfd: &OwnedFd, seconds: i64) -> io::Result<bool> {
    let mut fds = [libc::pollfd {
        fd: pidfd.as_fd().as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    }];
    let timeout_ms = i32::try_from(seconds.saturating_mul(1000)).unwrap_or(i32::MAX);
    Ok(sys::poll(&mut fds, timeout_ms)? > 0)
}

fn memory_file(name: &CStr) -> io::Result<File> {
    // SAFETY: the name is NUL-terminated.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made for us.
    Ok(unsafe { File::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::time::{Duration, Instant};

    fn hook(script: &str) -> oci::Hook {
        oci::Hook {
            path: "/bin/sh".into(),
            args: vec!["sh".into(), "-c".into(), script.into()],
            env: vec!["ONLY=this".into()],
            timeout: None,
        }
    }

    fn state() -> State {
        State {
            oci_version: "1.2.0".into(),
            id: "a".into(),
            status: oci::Status::Creating,
            pid: 7,
            bundle: "/b".into(),
            annotations: BTreeMap::new(),
        }
    }

    #[test]
    fn run_gives_state_and_exactly_the_environment() {
        let path = std::env::temp_dir().join(format!("shoal-hook-{}", std::process::id()));
        let script = format!("{{ cat; echo; /usr/bin/env; }} > {}", path.display());
        run("prestart", &[hook(&script)], &state()).expect("a hook that works");
        let text = std::fs::read_to_string(&path).expect("written");
        assert!(text.contains(r#""status":"creating","pid":7"#), "{text}");
        assert!(
            text.contains("ONLY=this") && !text.contains("HOME="),
            "{text}"
        );
        std::fs::remove_file(path).expect("clean");
    }

    #[test]
    fn run_stops_at_the_first_failure_and_tells_its_words() {
        let failure = run(
            "poststop",
            &[
                hook("true"),
                hook("echo why >&2; exit 3"),
                hook("kill -9 1"),
            ],
            &state(),
        )
        .expect_err("the second fails");
        assert_eq!(
            failure.to_string(),
            "error running poststop hook #1: /bin/sh: exit status 3: why"
        );
    }

    #[test]
    fn run_kills_a_hook_that_is_late_and_leaves_its_daemon() {
        let mut slow = hook("exec sleep 60");
        slow.timeout = Some(1);
        let before = Instant::now();
        let failure = run("prestart", &[slow], &state()).expect_err("late");
        assert!(failure.message.contains("timeout of 1 s"), "{failure}");
        assert!(before.elapsed() < Duration::from_secs(30));
        run("prestart", &[hook("sleep 1 &")], &state()).expect("not held by a daemon");
    }

    #[test]
    fn run_gives_the_makers_environment_where_the_hook_names_none() {
        let mut plain = hook("test -n \"$PATH\" && /usr/bin/env | grep -q ^CARGO_PKG_NAME=");
        plain.env = Vec::new();
        run("prestart", &[plain], &state()).expect("cargo's own variable is there");
    }

    #[test]
    fn run_tells_the_signal_in_words() {
        let failure = run("prestart", &[hook("kill -SYS $$")], &state()).expect_err("killed");
        assert!(
            failure
                .message
                .ends_with("killed by signal 31 (bad system call)"),
            "{failure}"
        );
    }

    #[test]
    fn validate_names_the_hook() {
        let mut hooks = oci::Hooks {
            poststart: vec![hook("true"), hook("true")],
            ..oci::Hooks::default()
        };
        validate(&hooks).expect("good hooks");
        hooks.poststart[1].path = "sh".into();
        let failure = validate(&hooks).expect_err("relative");
        assert!(failure.doing.contains("hooks.poststart[1]"), "{failure}");
        hooks.poststart[1].path = "/bin/sh".into();
        hooks.poststart[1].timeout = Some(0);
        assert!(validate(&hooks).is_err());
    }
}
