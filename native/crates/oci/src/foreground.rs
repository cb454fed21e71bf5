//! Waiting for a program in the foreground: signals go on to it, its terminal is carried, what it leaves behind is reaped.

use crate::terminal::Terminal;
use shoal_protocol::Failure;
use shoal_runtime::signals;
use shoal_runtime::sys::{file, process};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Signals that are about this process and not about the program.
const OWN: [i32; 3] = [libc::SIGCHLD, libc::SIGPIPE, libc::SIGURG];
/// What cannot be waited for: not blockable, and the two that the C library keeps for itself.
const UNWATCHED: [i32; 4] = [libc::SIGKILL, libc::SIGSTOP, 32, 33];
const SIGNAL_MAX: i32 = 64;

/// Every signal held back, to be read from a descriptor.
pub struct Watch {
    signals: OwnedFd,
}

impl Watch {
    /// Holds signals back from now on; to be done before the program is made, so that none is lost.
    pub fn begin() -> Result<Self, Failure> {
        let watched: Vec<i32> = (1..=SIGNAL_MAX)
            .filter(|signal| !UNWATCHED.contains(signal))
            .collect();
        let begin = || -> io::Result<OwnedFd> {
            process::block_only(&watched)?;
            process::signal_fd(&watched)
        };
        begin()
            .map(|signals| Self { signals })
            .map_err(|error| Failure::io("watching signals", &error))
    }

    /// Waits until the child `pid` has ended; gives its exit code, 128+signal when one killed it.
    pub fn wait(
        &self,
        pid: i32,
        pidfd: BorrowedFd<'_>,
        mut terminal: Option<&mut Terminal>,
    ) -> Result<i32, Failure> {
        let doing = "waiting for the container's program";
        let failed = |error: io::Error| Failure::io(doing, &error);
        loop {
            if let Some(code) = reap(pid).map_err(failed)? {
                if let Some(terminal) = terminal {
                    terminal.drain();
                }
                return Ok(code);
            }
            let none = libc::pollfd {
                fd: -1,
                events: 0,
                revents: 0,
            };
            let [master, stdin] = terminal.as_deref().map_or([none; 2], Terminal::polled);
            let own = libc::pollfd {
                fd: self.signals.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            };
            let mut fds = [own, master, stdin];
            process::poll(&mut fds, -1).map_err(failed)?;
            if let Some(terminal) = terminal.as_deref_mut() {
                terminal.carry(&fds[1..]);
            }
            while let Some(signal) = self.next() {
                if signal == libc::SIGWINCH
                    && let Some(terminal) = terminal.as_deref()
                {
                    terminal.resize();
                } else if !OWN.contains(&signal) {
                    // It may have ended a moment ago.
                    drop(process::signal_pidfd(pidfd, signal));
                }
            }
        }
    }

    fn next(&self) -> Option<i32> {
        // SAFETY: signalfd_siginfo is plain data.
        let mut info: libc::signalfd_siginfo = unsafe { std::mem::zeroed() };
        let size = size_of::<libc::signalfd_siginfo>();
        // SAFETY: the struct is ours and writable for its size; the descriptor does not block.
        let got = unsafe { libc::read(self.signals.as_raw_fd(), (&raw mut info).cast(), size) };
        (usize::try_from(got).ok() == Some(size)).then(|| info.ssi_signo.cast_signed())
    }
}

/// Reaps every child that has ended; the exit code when `pid` is among them.
fn reap(pid: i32) -> io::Result<Option<i32>> {
    loop {
        let (ended, status) = process::wait(-1, libc::WNOHANG)?;
        if ended == 0 {
            return Ok(None);
        }
        if ended == pid {
            return Ok(Some(signals::exit_of(status).0));
        }
    }
}

/// Writes a process id so that it is read whole or not at all.
pub fn write_pid_file(path: &std::path::Path, pid: i32) -> Result<(), Failure> {
    let doing = || format!("writing --pid-file {}", path.display());
    let failed = |error: io::Error| Failure::io(doing(), &error);
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .ok_or_else(|| Failure::invalid(doing(), "it names no file"))?;
    let dir = path.parent().and_then(|dir| dir.to_str()).unwrap_or("/");
    let dir = file::open(dir, libc::O_RDONLY | libc::O_DIRECTORY).map_err(failed)?;
    let draft = format!(".{name}");
    let fd = file::open_at(
        dir.as_fd(),
        &draft,
        libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC | libc::O_NOFOLLOW,
        0o644,
    )
    .map_err(failed)?;
    io::Write::write_all(&mut std::fs::File::from(fd), pid.to_string().as_bytes())
        .map_err(failed)?;
    file::rename(dir.as_fd(), &draft, name).map_err(failed)
}
