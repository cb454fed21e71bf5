//! The container's first process, from clone to exec: it builds the root around itself, parks until it is told to start, then becomes the program.
//!
//! It is a copy of a single-threaded process (the monitor, itself a fork of the zygote), so that allocating here is safe.

use crate::lookup::{self, Unstartable};
use crate::mounts::{self, Surroundings};
use crate::plan::Plan;
use crate::sys::{self, file, mount, process, socket};
use crate::{caps, devices, masks, rlimits, root, sysctl, within};
use serde::{Deserialize, Serialize};
use shoal_protocol::Failure;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What init tells its monitor. After `start` the channel's end of file means that the program is running.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "init", rename_all = "lowercase")]
pub enum Report {
    /// Everything but the exec is done.
    Ready,
    /// Nothing more will happen; init ends with this code.
    Failed { failure: Failure, exit_code: i32 },
}

/// What the monitor tells init: one byte each.
pub const ATTACHED: &[u8] = b"a";
pub const START: &[u8] = b"s";

/// The three standard streams and the channel to the monitor.
pub struct Streams {
    pub channel: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

/// Runs as the new process; never returns. Its end of the channel closes with it, or at exec.
pub fn run(plan: &Plan, around: &Surroundings, streams: &Streams) -> ! {
    let channel = streams.channel.as_fd();
    let stdin = match setup(plan, around, channel) {
        Ok(stdin) => stdin,
        Err(failure) => fail(channel, failure, 1),
    };
    tell(channel, &Report::Ready);
    hear(channel, START);
    let failed = launch(plan, &stdin, streams);
    fail(channel, failed.failure, failed.exit_code)
}

fn tell(channel: BorrowedFd<'_>, report: &Report) {
    let bytes = serde_json::to_vec(report).expect("a report is plain data");
    if socket::send(channel, &bytes).is_err() {
        // The monitor is dead: nobody will ever start this container.
        process::exit_now(1);
    }
}

/// Waits for one word; ends the process when the monitor is gone.
fn hear(channel: BorrowedFd<'_>, word: &[u8]) {
    let mut buffer = [0u8; 8];
    match socket::receive(channel, &mut buffer) {
        Ok(length) if &buffer[..length] == word => {}
        _ => process::exit_now(1),
    }
}

fn fail(channel: BorrowedFd<'_>, failure: Failure, exit_code: i32) -> ! {
    tell(channel, &Report::Failed { failure, exit_code });
    process::exit_now(exit_code)
}

fn doing<T>(what: &str, result: io::Result<T>) -> Result<T, Failure> {
    result.map_err(|error| Failure::io(what, &error))
}

/// Everything that needs the host's view or full privilege; gives the descriptor that will be stdin.
fn setup(plan: &Plan, around: &Surroundings, channel: BorrowedFd<'_>) -> Result<OwnedFd, Failure> {
    let spec = &plan.create.spec;
    doing(
        "binding init to its monitor",
        process::die_with_parent(libc::SIGKILL),
    )?;
    doing(
        "hiding init from the container",
        process::set_dumpable(false),
    )?;
    doing("making a session", process::new_session())?;
    // Not having keys in the kernel, or the quota used up, leaves nothing of ours to inherit.
    drop(process::new_session_keyring());
    process::set_umask(0);
    for (kind, path) in &plan.joins {
        let joined = file::open(path, libc::O_RDONLY)
            .and_then(|fd| process::join_namespace(fd.as_fd(), *kind));
        doing(&format!("joining namespace {path:?}"), joined)?;
    }
    let slave = plan
        .mounts
        .iter()
        .any(|planned| planned.options.propagation == Some(libc::MS_SLAVE));
    let propagation = libc::MS_REC
        | if slave {
            libc::MS_SLAVE
        } else {
            libc::MS_PRIVATE
        };
    doing(
        "separating the mounts from the host's",
        mount::mount("", "/", "", propagation, ""),
    )?;
    let stdin = doing("opening /dev/null for stdin", devices::null(libc::O_RDONLY))?;

    let nodev = if around.nodev { mount::ATTR_NODEV } else { 0 };
    let root = root::mount_overlay(&plan.create.rootfs, nodev)?;
    let mut attached = false;
    for planned in &plan.mounts {
        if !attached && planned.mount.kind.starts_with("cgroup") {
            enter_cgroup(plan, channel)?;
            attached = true;
        }
        mounts::mount(root.as_fd(), planned, around)?;
        if planned.mount.kind == "tmpfs" && planned.destination == ["dev"] {
            let dev = doing(
                "opening /dev",
                within::make_real_directory(root.as_fd(), &planned.destination),
            )?;
            devices::fill(dev.as_fd(), around.nodev)?;
        }
    }
    if !attached {
        enter_cgroup(plan, channel)?;
    }
    if plan.owns(libc::CLONE_NEWNET) {
        doing("bringing lo up", process::loopback_up())?;
    }
    if !spec.linux.sysctl.is_empty() {
        let proc_root = sysctl::private_proc()?;
        sysctl::apply(proc_root.as_fd(), &spec.linux.sysctl)?;
    }
    if plan.owns(libc::CLONE_NEWUTS) && !spec.hostname.is_empty() {
        doing(
            &format!("setting hostname {:?}", spec.hostname),
            process::set_hostname(&spec.hostname),
        )?;
    }
    make_cwd(root.as_fd(), &spec.process.cwd)?;
    masks::make_readonly(root.as_fd(), &spec.linux.readonly_paths)?;
    masks::mask(root.as_fd(), &spec.linux.masked_paths)?;
    if spec.root.readonly {
        let set = mount::set_attributes(root.as_fd(), mount::ATTR_RDONLY, 0, 0, false);
        doing("making the root read-only", set)?;
    }
    doing("entering the root", process::change_dir_to(root.as_fd()))?;
    doing(
        "pivoting into the root",
        mount::pivot_into_working_directory(),
    )?;
    // The container's own /dev/null, where it has a real one, so that the program finds stdin by a path that it has.
    Ok(devices::null(libc::O_RDONLY).unwrap_or(stdin))
}

fn enter_cgroup(plan: &Plan, channel: BorrowedFd<'_>) -> Result<(), Failure> {
    hear(channel, ATTACHED);
    if plan.new_cgroup_namespace {
        doing(
            "making a cgroup namespace",
            process::unshare(libc::CLONE_NEWCGROUP),
        )?;
    }
    Ok(())
}

/// Docker makes a missing working directory, as root.
fn make_cwd(root: BorrowedFd<'_>, cwd: &str) -> Result<(), Failure> {
    let parts = within::components(
        "reading process.cwd",
        if cwd.is_empty() { "/" } else { cwd },
    )?;
    match within::make(root, &parts, within::Kind::Directory) {
        // On a read-only file system chdir will tell what is missing.
        Err(error) if !sys::is(&error, libc::EROFS) => Err(Failure::io(
            format!("making working directory {cwd:?}"),
            &error,
        )),
        _ => Ok(()),
    }
}

/// Becomes the program; returns only with the reason why not.
fn launch(plan: &Plan, stdin: &OwnedFd, streams: &Streams) -> Unstartable {
    let spec = &plan.create.spec;
    let prepared = prepare_identity(plan, streams).and_then(|()| prepare_streams(stdin, streams));
    if let Err(failure) = prepared {
        return Unstartable {
            failure,
            exit_code: 1,
        };
    }
    let name = &spec.process.args[0];
    let path = match lookup::find(name, &spec.process.env) {
        Ok(path) => path,
        Err(failed) => return failed,
    };
    let strings = |texts: &[String]| {
        texts
            .iter()
            .map(sys::c_string)
            .collect::<io::Result<Vec<CString>>>()
    };
    let (path, args, env) = match (
        sys::c_string(&path),
        strings(&spec.process.args),
        strings(&spec.process.env),
    ) {
        (Ok(path), Ok(args), Ok(env)) => (path, args, env),
        _ => return lookup::unstartable(name, &io::Error::from_raw_os_error(libc::EINVAL)),
    };
    lookup::unstartable(name, &process::exec(&path, &args, &env))
}

fn prepare_identity(plan: &Plan, streams: &Streams) -> Result<(), Failure> {
    let process_spec = &plan.create.spec.process;
    let user = &process_spec.user;
    rlimits::apply(&process_spec.rlimits)?;
    if user.uid != 0 {
        // So that the program can reopen /dev/stdout: these pipes are ours, made for this container.
        for stream in [&streams.stdout, &streams.stderr] {
            let (mode, _, _) = doing("looking at an output stream", file::stat(stream.as_fd()))?;
            if mode & libc::S_IFMT == libc::S_IFIFO {
                doing(
                    "giving an output stream to the user",
                    file::change_owner(stream.as_fd(), user.uid, user.gid),
                )?;
            }
        }
    }
    let cwd = if process_spec.cwd.is_empty() {
        "/"
    } else {
        &process_spec.cwd
    };
    doing(
        &format!("entering working directory {cwd:?}"),
        process::change_dir(cwd),
    )?;
    doing("dropping the bounding set", caps::drop_bounding(&plan.caps))?;
    doing(
        &format!("becoming user {}:{}", user.uid, user.gid),
        process::set_identity(user.uid, user.gid, &user.additional_gids),
    )?;
    doing("setting capabilities", caps::set(&plan.caps))?;
    if process_spec.no_new_privileges {
        doing("setting no_new_privs", process::no_new_privileges())?;
    }
    let dir = doing("reading the working directory", process::working_dir())?;
    if !dir.starts_with(b"/") {
        return Err(Failure::invalid(
            format!("entering working directory {cwd:?}"),
            "it is outside the container's root; choose another",
        ));
    }
    process::set_umask(0o022);
    Ok(())
}

fn prepare_streams(stdin: &OwnedFd, streams: &Streams) -> Result<(), Failure> {
    doing("setting stdin", process::duplicate_to(stdin.as_fd(), 0))?;
    doing(
        "setting stdout",
        process::duplicate_to(streams.stdout.as_fd(), 1),
    )?;
    doing(
        "setting stderr",
        process::duplicate_to(streams.stderr.as_fd(), 2),
    )?;
    doing("closing descriptors", process::close_on_exec_from(3))?;
    doing(
        "unbinding init from its monitor",
        process::die_with_parent(0),
    )?;
    doing("resetting signals", process::reset_signals())
}
