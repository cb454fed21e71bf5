//! The three standard streams of a program, and which other descriptors it gets.

use crate::sys::{file, process};
use shoal_protocol::Failure;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// The first descriptor number after the standard streams.
pub const FIRST_FD: u32 = 3;
/// Magic number of the file system that anonymous pipes are on.
const PIPEFS_MAGIC: i64 = 0x5049_5045;

/// Where a program's standard streams go.
pub enum Stdio {
    /// They are its maker's.
    Inherit,
    Fds(Streams),
    /// A terminal of the container's own, whose master is sent over the socket (SCM_RIGHTS).
    Terminal {
        console_socket: OwnedFd,
    },
}

/// Descriptors made for one program.
pub struct Streams {
    /// None for the container's own /dev/null.
    pub stdin: Option<OwnedFd>,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

impl Stdio {
    /// Every descriptor that the new process needs of these.
    pub(crate) fn fds(&self) -> Vec<RawFd> {
        match self {
            Self::Inherit => Vec::new(),
            Self::Fds(streams) => streams
                .stdin
                .iter()
                .chain([&streams.stdout, &streams.stderr])
                .map(AsRawFd::as_raw_fd)
                .collect(),
            Self::Terminal { console_socket } => vec![console_socket.as_raw_fd()],
        }
    }
}

/// Refuses a `--preserve-fds` that names descriptors which are not open. To be called before the process opens anything.
pub fn check_preserved(count: u32) -> Result<(), Failure> {
    for number in FIRST_FD..FIRST_FD.saturating_add(count) {
        let open = i32::try_from(number).is_ok_and(process::is_open);
        if !open {
            return Err(Failure::invalid(
                "reading --preserve-fds",
                format!("{count} descriptors are asked for, but descriptor {number} is not open"),
            ));
        }
    }
    Ok(())
}

/// Puts the streams at 0, 1 and 2; `null` stands for a stdin that is not there.
pub(crate) fn put(stdio: &Stdio, null: Option<&OwnedFd>) -> Result<(), Failure> {
    let Stdio::Fds(streams) = stdio else {
        return Ok(());
    };
    let stdin = streams.stdin.as_ref().or(null);
    let sources = [stdin, Some(&streams.stdout), Some(&streams.stderr)];
    for ((number, source), name) in (0..).zip(sources).zip(["stdin", "stdout", "stderr"]) {
        let Some(source) = source else { continue };
        process::duplicate_to(source.as_fd(), number)
            .map_err(|error| Failure::io(format!("setting {name}"), &error))?;
    }
    Ok(())
}

/// Gives pipes and the container's own terminal at 0, 1 and 2 to the user, so that the program can open /dev/stdout again.
/// Nothing else is given away: a device node of the host would stay its user's for ever.
pub(crate) fn give(uid: u32, gid: u32, own_terminal: bool) -> Result<(), Failure> {
    for number in 0..=2 {
        // SAFETY: the standard streams are open for the life of the process and nobody else closes them here.
        let stream = unsafe { BorrowedFd::borrow_raw(number) };
        let given = give_one(stream, uid, gid, own_terminal);
        given.map_err(|error| {
            Failure::io(
                format!("giving standard stream {number} to user {uid}"),
                &error,
            )
        })?;
    }
    Ok(())
}

fn give_one(stream: BorrowedFd<'_>, uid: u32, gid: u32, own_terminal: bool) -> io::Result<()> {
    let Ok((mode, _, _)) = file::stat(stream) else {
        // Closed: there is nothing to give.
        return Ok(());
    };
    let pipe = mode & libc::S_IFMT == libc::S_IFIFO && file::file_system(stream)? == PIPEFS_MAGIC;
    let result = if pipe {
        file::change_owner(stream, uid, gid)
    } else if own_terminal && mode & libc::S_IFMT == libc::S_IFCHR {
        // A terminal's group is that of its devpts.
        file::change_owner(stream, uid, u32::MAX)
    } else {
        Ok(())
    };
    match result {
        // A pipe of somebody outside our user namespace stays theirs.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::EINVAL)) && pipe => {
            Ok(())
        }
        other => other,
    }
}

/// Leaves the program its standard streams and `preserved` descriptors after them; everything else closes at exec.
pub(crate) fn close_rest(preserved: u32) -> Result<(), Failure> {
    let first = FIRST_FD.saturating_add(preserved);
    let close = || -> io::Result<()> {
        process::close_on_exec_from(first)?;
        for number in FIRST_FD..first {
            process::keep_over_exec(i32::try_from(number).unwrap_or(i32::MAX))?;
        }
        Ok(())
    };
    close().map_err(|error| Failure::io("closing descriptors", &error))
}

/// Closes every descriptor above the standard streams but those in `kept`, of a process that is to use no other any more.
pub fn close_all_but(kept: &mut [RawFd]) {
    kept.sort_unstable();
    let mut first = FIRST_FD;
    for fd in kept.iter().filter_map(|fd| u32::try_from(*fd).ok()) {
        if fd > first {
            process::close_between(first, fd - 1);
        }
        first = first.max(fd + 1);
    }
    process::close_between(first, u32::MAX);
}
