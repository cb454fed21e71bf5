//! `exec`: a further process in a container.

use super::run::exit_byte;
use crate::adapted::Adapted;
use crate::args::Parsed;
use crate::bundle;
use crate::container::Container;
use crate::context::{Context, absolute};
use crate::create::{check_process, check_terminal, send_pidfd, stdio};
use crate::foreground::{Watch, write_pid_file};
use crate::sealed;
use crate::stop::Stop;
use crate::terminal::Terminal;
use shoal_protocol::Failure;
use shoal_protocol::oci::{self, Process, Spec, Status};
use shoal_runtime::cgroup::detect::Layout;
use shoal_runtime::cgroup::{Access, Below};
use shoal_runtime::join::{self, Join};
use shoal_runtime::sys::{file, process};
use shoal_runtime::{attributes, caps, plan, user};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// What runc ends with when the process could not be started.
const EXIT_FAILED: u8 = 255;

pub fn run(context: &Context<'_>, parsed: &Parsed) -> Result<u8, Stop> {
    sealed::ensure()?;
    sealed::tell(context);
    exec(context, parsed).map_err(|stop| Stop {
        message: format!("exec failed: {}", stop.message),
        exit_code: EXIT_FAILED,
        bare: false,
    })
}

fn exec(context: &Context<'_>, parsed: &Parsed) -> Result<u8, Stop> {
    let detach = parsed.on("detach");
    let path = |long: &str| -> Result<Option<PathBuf>, Stop> {
        parsed
            .text(long)
            .filter(|path| !path.is_empty())
            .map(absolute)
            .transpose()
    };
    let (console_socket, pidfd_socket, pid_file) = (
        path("console-socket")?,
        path("pidfd-socket")?,
        path("pid-file")?,
    );
    let container = Container::find(context, &parsed.operands[0])?;
    let (init, pidfd) = container
        .pin_init()
        .map_err(|_| Stop::new("cannot exec in a stopped container"))?;
    if !parsed.on("ignore-paused") && container.is_frozen() {
        return Err(Stop::new(
            "cannot exec in a paused container (use --ignore-paused to override)",
        ));
    }
    let (spec, seccomp) = container.home.for_exec(container.record.filtered)?;
    let mut wanted = match parsed.text("process").filter(|file| !file.is_empty()) {
        Some(file) => oci::parse::<Process>("--process", &bundle::read_given(Path::new(file))?)?,
        None => from_flags(parsed, &spec, || root_of(init.pid))?,
    };
    for warning in caps::warnings(&wanted.capabilities) {
        context.log.warning(&warning);
    }
    check_process(&wanted)?;
    check_terminal(wanted.terminal, detach, console_socket.as_deref())?;
    let asked = parsed.number("preserve-fds")?.unwrap_or(0);
    let preserve_fds = context.pass_descriptors(asked, &mut wanted.env)?;
    let below = parsed
        .all("cgroup")
        .map(Below::parse)
        .collect::<Result<Vec<_>, _>>()?;
    let mut driver = Adapted::of(&Layout::from(&container.record.groups), Access::Required);
    (driver.below, driver.init) = (below, Some(init.pid));
    if container.record.cgroup.is_empty() {
        driver.inner = None;
    }
    context
        .log
        .debug(|| format!("nsexec container setup: entering {}", container.record.id));
    if let Some(affinity) = &wanted.exec_cpu_affinity {
        let mask = attributes::cpu_mask("initial", &affinity.initial)?;
        context
            .log
            .debug(|| format!("nsexec container setup: affinity: {mask}"));
    }
    let (stdio, console) = stdio(wanted.terminal, detach, console_socket.as_deref())?;
    let watch = if detach { None } else { Some(Watch::begin()?) };
    if let Some(resctrl) = &container.record.resctrl {
        // What this process starts is where it is itself.
        resctrl.join(i32::try_from(std::process::id()).unwrap_or(0))?;
    }
    let joined = join::exec(&Join {
        pid: init.pid,
        pidfd: pidfd.as_fd(),
        spec: &spec,
        process: &wanted,
        driver: &driver,
        cgroup: &container.record.cgroup,
        stdio: &stdio,
        preserve_fds,
        seccomp: seccomp.as_ref(),
        container_id: &container.record.id,
        state: Some(&container.record.state(Status::Running)),
        no_new_keyring: false,
        keep_groups: plan::keeps_groups(&spec),
    })
    .map_err(super::start::unstartable)?;
    context.log.debug(|| {
        format!(
            "child process in init(): process {} is in the container",
            joined.pid
        )
    });
    context.log.debug(|| {
        format!(
            "setns_init: about to exec {:?} as process {}",
            wanted.args, joined.pid
        )
    });
    // Our copy of the socket's other end would keep a reader from seeing its end.
    drop(stdio);
    let finish = || -> Result<u8, Stop> {
        if let Some(path) = &pidfd_socket {
            send_pidfd(path, joined.pidfd.as_fd())?;
        }
        if let Some(path) = &pid_file {
            write_pid_file(path, joined.pid)?;
        }
        let Some(watch) = &watch else {
            return Ok(0);
        };
        let mut terminal = console
            .map(|console| Terminal::receive(console.as_fd()))
            .transpose()?;
        let code = watch.wait(joined.pid, joined.pidfd.as_fd(), terminal.as_mut())?;
        Ok(exit_byte(code))
    };
    finish().inspect_err(|_| {
        // It may have ended by itself; nobody is left to use it.
        drop(process::signal_pidfd(joined.pidfd.as_fd(), libc::SIGKILL));
    })
}

/// The container's root, where its users are looked up.
fn root_of(pid: i32) -> Result<OwnedFd, Failure> {
    let path = format!("/proc/{pid}/root");
    file::open(&path, libc::O_PATH | libc::O_DIRECTORY)
        .map_err(|error| Failure::io("opening the container's root", &error))
}

/// The container's own process with what the flags change of it. `root` is asked for where a user is given by name.
fn from_flags(
    parsed: &Parsed,
    spec: &Spec,
    root: impl Fn() -> Result<OwnedFd, Failure>,
) -> Result<Process, Stop> {
    let mut process = spec.process.clone();
    if parsed.operands.len() < 2 {
        return Err(Stop::new("exec args cannot be empty"));
    }
    process.args = parsed.operands[1..].to_vec();
    process.terminal = parsed.on("tty");
    for (flag, field) in [
        ("cwd", &mut process.cwd),
        ("apparmor", &mut process.apparmor_profile),
        ("process-label", &mut process.selinux_label),
    ] {
        if let Some(value) = parsed.text(flag).filter(|value| !value.is_empty()) {
            value.clone_into(field);
        }
    }
    process.env.extend(parsed.all("env").map(str::to_owned));
    if let Some(set) = parsed.text("no-new-privs") {
        process.no_new_privileges = set == "true";
    }
    let sets = &mut process.capabilities;
    for name in parsed.all("cap") {
        for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
            set.push(name.to_owned());
        }
        // Ambient ones must be inheritable, which --cap does not make them.
        if !sets.inheritable.is_empty() {
            sets.ambient.push(name.to_owned());
        }
    }
    if let Some(user) = parsed.text("user").filter(|user| !user.is_empty()) {
        let ids = user::ids(user);
        if let Ok((uid, gid)) = ids {
            process.user.uid = uid;
            if let Some(gid) = gid {
                process.user.gid = gid;
            }
        } else {
            // No name is nobody, and not root.
            if user.starts_with(':') {
                ids?;
            }
            let found = user::look_up(root()?.as_fd(), user)?;
            (process.user.uid, process.user.gid) = (found.uid, found.gid);
            process.user.additional_gids = found.additional_gids;
        }
    }
    for gid in parsed.all("additional-gids") {
        for one in gid.split(',') {
            process.user.additional_gids.push(group_of(one)?);
        }
    }
    Ok(process)
}

/// One id, as strictly read as the user's.
fn group_of(text: &str) -> Result<u32, Stop> {
    user::ids(text)
        .ok()
        .filter(|_| !text.contains(':'))
        .map(|(gid, _)| gid)
        .ok_or_else(|| {
            Stop::new(format!(
                "invalid value {text:?} for --additional-gids: it is not a number of 0 to {}",
                user::ID_MAX
            ))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{args, table};

    fn read(line: &str) -> Result<Process, Stop> {
        let spec: Spec = Spec::parse(
            br#"{"ociVersion":"1.2.0","process":{"args":["init"],"env":["A=1"],"cwd":"/","terminal":true,"user":{"uid":5,"gid":6}}}"#,
        )?;
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let flags = table::find("exec").expect("exec").flags;
        let root = || root_of(i32::try_from(std::process::id()).expect("a pid"));
        from_flags(&args::parse(flags, &words, true)?, &spec, root)
    }

    #[test]
    fn from_flags_changes_what_is_asked() {
        let got = read("-e B=2 --user 7 --cap CAP_KILL -g 8 -g 9 --cwd /x --no-new-privs id ls -l")
            .expect("flags");
        assert_eq!(got.args, ["ls", "-l"]);
        assert_eq!(got.env, ["A=1", "B=2"]);
        assert_eq!((got.user.uid, got.user.gid), (7, 6));
        assert_eq!(got.user.additional_gids, [8, 9]);
        assert!(!got.terminal && got.no_new_privileges);
        assert_eq!(got.cwd, "/x");
        assert_eq!(got.capabilities.bounding, ["CAP_KILL"]);
        assert!(got.capabilities.ambient.is_empty());
        assert_eq!(read("--user 7:8 id ls").expect("flags").user.gid, 8);
        let root = read("--user root id ls").expect("the test's own root has one");
        assert_eq!((root.user.uid, root.user.gid), (0, 0));
    }

    #[test]
    fn from_flags_refuses_users_that_are_not_there() {
        for line in [
            "--user nobody-at-all id ls",
            "--user 7: id ls",
            "--user :7 id ls",
            "--user -1 id ls",
            "--user 4294967295 id ls",
            "-g x id ls",
            "-g 7:8 id ls",
            "-g 4294967295 id ls",
            "id",
        ] {
            assert!(read(line).is_err(), "{line}");
        }
    }
}
