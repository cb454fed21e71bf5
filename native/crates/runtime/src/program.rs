//! The last steps of every process in a container, its first or a later one: from a finished surrounding to the program itself.

use crate::caps::{self, Masks};
use crate::channel::{self, Report};
use crate::hooks::Prepared;
use crate::labels::Labels;
use crate::lookup::{self, Unstartable};
use crate::streams::{self, Stdio};
use crate::sys::{self, Kernel, file, process};
use crate::{attributes, home, rlimits};
use shoal_protocol::{Failure, oci};
use shoal_seccomp::Program as Filter;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// The file mode creation mask of a program whose configuration names none.
const UMASK_DEFAULT: u32 = 0o022;

/// What a process becomes.
pub(crate) struct Program<'a> {
    pub process: &'a oci::Process,
    pub caps: Masks,
    pub personality: Option<&'a oci::Personality>,
    pub stdio: &'a Stdio,
    /// A stdin for streams that have none.
    pub null: Option<&'a OwnedFd>,
    pub preserve_fds: u32,
    /// Every signal has its default effect already, and none is blocked.
    pub signals_are_reset: bool,
    /// Limits are the maker's to set: in a user namespace nobody may raise them.
    pub limits_are_set: bool,
    pub seccomp: Option<&'a Filter>,
    /// Whom to tell of the filter's listener.
    pub channel: BorrowedFd<'a>,
    pub labels: &'a Labels,
    /// The name of the session keyring; None to keep the maker's.
    pub keyring: Option<&'a str>,
    pub memory_policy: Option<&'a oci::MemoryPolicy>,
    /// Further groups are those of its maker, and not the configuration's.
    pub keep_groups: bool,
}

fn doing<T>(what: &str, result: io::Result<T>) -> Result<T, Failure> {
    result.map_err(|error| Failure::io(what, &error))
}

/// A program that is only to be executed: all that privilege is needed for has been done.
pub(crate) struct Ready<'a> {
    name: &'a str,
    path: CString,
    args: Vec<CString>,
    env: Vec<CString>,
}

/// Becomes the program; returns only with the reason why not. `hooks` run last, with the program's own user, privilege and filter: they
/// are of the container's files.
pub(crate) fn become_program(program: &Program<'_>, hooks: Option<Prepared<'_>>) -> Unstartable {
    match prepare(program) {
        Ok(ready) => execute(program, &ready, hooks),
        Err(failed) => failed,
    }
}

/// Becomes the program's user, in its directory and with its streams, and looks the program up.
pub(crate) fn prepare<'a>(program: &Program<'a>) -> Result<Ready<'a>, Unstartable> {
    let process = program.process;
    let Some(name) = process.args.first() else {
        return Err(plain(Failure::invalid(
            "reading process.args",
            "it is empty; give the command to run",
        )));
    };
    assume(program).map_err(plain)?;
    let path = lookup::find(name, &process.env)?;
    let env = home::complete(&process.env, process.user.uid);
    let strings = |texts: &mut dyn Iterator<Item = &String>| {
        texts
            .map(sys::c_string)
            .collect::<io::Result<Vec<CString>>>()
    };
    match (
        sys::c_string(&path),
        strings(&mut process.args.iter()),
        strings(&mut env.iter()),
    ) {
        (Ok(path), Ok(args), Ok(env)) => Ok(Ready {
            name,
            path,
            args,
            env,
        }),
        _ => Err(lookup::unstartable(
            name,
            &io::Error::from_raw_os_error(libc::EINVAL),
        )),
    }
}

/// Gives up what the program is not to have, and becomes it; returns only with the reason why not.
pub(crate) fn execute(
    program: &Program<'_>,
    ready: &Ready<'_>,
    hooks: Option<Prepared<'_>>,
) -> Unstartable {
    let done = release(program)
        .and_then(|()| confine(program))
        .and_then(|()| hooks.map_or(Ok(()), Prepared::run));
    if let Err(failure) = done {
        return plain(failure);
    }
    lookup::refused(
        ready.name,
        &process::exec(&ready.path, &ready.args, &ready.env),
    )
}

fn plain(failure: Failure) -> Unstartable {
    Unstartable {
        failure,
        exit_code: 1,
    }
}

/// Becomes the user, with all that needs privilege done before.
fn assume(program: &Program<'_>) -> Result<(), Failure> {
    let process = program.process;
    let user = &process.user;
    attributes::apply(process, program.personality)?;
    if let Some(policy) = program.memory_policy {
        attributes::apply_memory_policy(policy)?;
    }
    program.labels.apply(&Kernel)?;
    if let Some(name) = program.keyring {
        // Not having keys in the kernel, or the quota used up, leaves nothing of ours to inherit.
        drop(process::join_session_keyring(name));
    }
    if !program.limits_are_set {
        rlimits::apply(&process.rlimits)?;
    }
    streams::put(program.stdio, program.null)?;
    let terminal = matches!(program.stdio, Stdio::Terminal { .. });
    if user.uid != 0 {
        streams::give(user.uid, user.gid, terminal)?;
    }
    let cwd = if process.cwd.is_empty() {
        "/"
    } else {
        &process.cwd
    };
    let entering = format!("entering working directory {cwd:?}");
    // Root may enter what the user may not, and the other way round (a user's own directory on a network file system).
    let entered = match process::change_dir(cwd) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => false,
        other => {
            doing(&entering, other)?;
            true
        }
    };
    doing(
        "dropping the bounding set",
        caps::drop_bounding(&program.caps),
    )?;
    let groups = (!program.keep_groups).then_some(&user.additional_gids[..]);
    doing(
        &format!("becoming user {}:{}", user.uid, user.gid),
        process::set_identity(user.uid, user.gid, groups),
    )?;
    if !entered {
        doing(&entering, process::change_dir(cwd))?;
    }
    let dir = doing("reading the working directory", process::working_dir())?;
    if !dir.starts_with(b"/") {
        return Err(Failure::invalid(
            entering,
            "it is outside the container's root; choose another",
        ));
    }
    process::set_umask(user.umask.unwrap_or(UMASK_DEFAULT));
    Ok(())
}

/// Lets go of everything that was only for the way here.
fn release(program: &Program<'_>) -> Result<(), Failure> {
    streams::close_rest(program.preserve_fds)?;
    doing(
        "unbinding the process from its maker",
        process::die_with_parent(0),
    )?;
    if program.signals_are_reset {
        return Ok(());
    }
    doing("resetting signals", process::reset_signals())
}

/// Gives up privilege. A filter comes as late as it can, so that it need allow little of ours: after everything with no_new_privs, else while
/// CAP_SYS_ADMIN is still there, with only capset(2) and prctl(2) left to do.
fn confine(program: &Program<'_>) -> Result<(), Failure> {
    let filter = || {
        let Some(filter) = program.seccomp else {
            return Ok(());
        };
        match doing("loading linux.seccomp", shoal_seccomp::load(filter))? {
            Some(listener) => tell_of(&listener, program.channel),
            None => Ok(()),
        }
    };
    let set_caps = || doing("setting capabilities", caps::set(&program.caps));
    if program.process.no_new_privileges {
        set_caps()?;
        doing("setting no_new_privs", process::no_new_privileges())?;
        return filter();
    }
    if program.seccomp.is_some() {
        doing("setting capabilities", caps::raise())?;
        filter()?;
    }
    set_caps()
}

/// Lets the maker take the filter's listener, before exec closes it. Only read(2) and write(2) from here: the filter judges already.
fn tell_of(listener: &OwnedFd, channel: BorrowedFd<'_>) -> Result<(), Failure> {
    let number = listener.as_raw_fd();
    let report = channel::encode(&Report::Listening { number });
    let mut answer = [0u8; 8];
    let told = file::write(channel, &report).and_then(|()| file::read(channel, &mut answer));
    match doing("telling of the filter's listener", told)? {
        0 => process::exit_now(1),
        _ => Ok(()),
    }
}
