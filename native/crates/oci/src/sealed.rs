//! Running from a copy of the binary that no container can write to (CVE-2019-5736).
//!
//! A process of the container can reach this program's file by /proc/PID/exe while it is on its way into the container, or by making it
//! execute itself, and overwrite it once it has ended. So the command first executes itself again from a detached, read-only mount of its
//! own file, or where mounts are forbidden from a sealed copy in memory.

use crate::context::Context;
use shoal_protocol::{Failure, FailureCode};
use shoal_runtime::sys::{c_string, file, mount};
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

const SELF: &str = "/proc/self/exe";
/// Set for the second execution, so that a protection that does not hold is an error and no endless loop.
const MARKER: &str = "_SHOAL_CORE_SEALED";
/// What a copy in memory must not allow any more.
const SEALS: i32 = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;

/// Returns once this process runs from a protected file; the process may have been executed again in between.
/// The caller has done nothing yet that a second execution would do again.
pub fn ensure() -> Result<(), Failure> {
    let doing = "protecting the runtime's own binary";
    let failed = |error: &io::Error| Failure::io(doing, error);
    let second = std::env::var_os(MARKER).is_some();
    if is_protected().map_err(|error| failed(&error))? {
        if second {
            // SAFETY: this process has one thread.
            unsafe { std::env::remove_var(MARKER) };
        }
        return Ok(());
    }
    if second {
        return Err(Failure::new(
            FailureCode::System,
            doing,
            "it can still be written to after it was executed again",
        ));
    }
    // SAFETY: this process has one thread.
    unsafe { std::env::set_var(MARKER, "1") };
    let error = match read_only_mount() {
        Ok(own) => execute(own.as_fd()),
        Err(error) => error,
    };
    // No privilege to mount, a kernel without detached mounts, or a file system that executes nothing.
    let copy = sealed_copy().map_err(|copying| {
        Failure::new(
            FailureCode::System,
            doing,
            format!("a read-only mount: {error}; a copy in memory: {copying}"),
        )
    })?;
    Err(failed(&execute(copy.as_fd())))
}

/// Says so in the debug log, in runc's words.
pub fn tell(context: &Context<'_>) {
    context
        .log
        .debug(|| format!("{} exeseal: using /proc/self/exe clone", context.name));
}

fn is_protected() -> io::Result<bool> {
    let own = file::open(SELF, libc::O_PATH)?;
    if file::is_read_only(own.as_fd())? {
        return Ok(true);
    }
    if std::env::var_os(MARKER).is_none() {
        return Ok(false);
    }
    let own = file::open(SELF, libc::O_RDONLY)?;
    // SAFETY: no pointers; a file that has no seals answers with an error.
    let seals = unsafe { libc::fcntl(own.as_raw_fd(), libc::F_GET_SEALS) };
    Ok(seals >= 0 && seals & SEALS == SEALS)
}

fn read_only_mount() -> io::Result<OwnedFd> {
    let own = file::open(SELF, libc::O_PATH)?;
    let tree = mount::clone_tree(own.as_fd(), false)?;
    let read_only = mount::Change {
        set: mount::ATTR_RDONLY,
        ..mount::Change::default()
    };
    mount::change(tree.as_fd(), &read_only, false)?;
    Ok(tree)
}

fn sealed_copy() -> io::Result<OwnedFd> {
    let mut own = std::fs::File::from(file::open(SELF, libc::O_RDONLY)?);
    // SAFETY: the name is NUL-terminated.
    let number = unsafe {
        libc::memfd_create(
            c"shoal-core".as_ptr(),
            libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING,
        )
    };
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made for us.
    let mut copy = unsafe { std::fs::File::from_raw_fd(number) };
    io::copy(&mut own, &mut copy)?;
    // SAFETY: no pointers.
    if unsafe { libc::fcntl(copy.as_raw_fd(), libc::F_ADD_SEALS, SEALS) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(copy.into())
}

/// Executes an open program with this process's own arguments and environment; returns only on failure.
fn execute(program: BorrowedFd<'_>) -> io::Error {
    let words = |texts: &mut dyn Iterator<Item = Vec<u8>>| -> io::Result<Vec<CString>> {
        texts.map(c_string).collect()
    };
    let bytes = |text: &OsStr| text.as_bytes().to_vec();
    let args = words(&mut std::env::args_os().map(|arg| bytes(&arg)));
    let env = words(
        &mut std::env::vars_os()
            .map(|(key, value)| [bytes(&key), b"=".to_vec(), bytes(&value)].concat()),
    );
    let (args, env) = match (args, env) {
        (Ok(args), Ok(env)) => (args, env),
        (Err(error), _) | (_, Err(error)) => return error,
    };
    let pointers = |of: &[CString]| -> Vec<*const libc::c_char> {
        of.iter()
            .map(|text| text.as_ptr())
            .chain([std::ptr::null()])
            .collect()
    };
    let (args, env) = (pointers(&args), pointers(&env));
    // SAFETY: both null-terminated arrays of C strings live over the call; the empty path with AT_EMPTY_PATH means the descriptor.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            args.as_ptr(),
            env.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}
