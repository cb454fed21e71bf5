//! `shoal-core init`: the first process of a machine that is a pid namespace; it reaps, forwards signals and keeps the namespace alive.

use shoal_runtime::signals;
use shoal_runtime::sys::process;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// How long a command that ended stays down before it is started again.
const RESTART_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// What to run and whether to outlive it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Stay, reaping, after the command has ended, until SIGTERM or SIGINT.
    pub keep: bool,
    /// Start the command again when it ends without having been asked to.
    pub restart: bool,
    pub command: Vec<String>,
}

/// Runs the command; gives the exit code of this process.
pub fn run(options: &Options) -> i32 {
    match supervise(options) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("shoal-core init: running {:?}: {error}", options.command);
            match error.kind() {
                std::io::ErrorKind::NotFound => 127,
                _ => 126,
            }
        }
    }
}

fn supervise(options: &Options) -> std::io::Result<i32> {
    let handled = [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT];
    process::block_only(&handled)?;
    let arrived = process::signal_fd(&handled)?;
    let mut watched = Watched::Running(spawn(options)?);
    let mut stopping = false;
    loop {
        let mut fds = [libc::pollfd {
            fd: arrived.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        }];
        process::poll(&mut fds, -1)?;
        for signal in drain(arrived.as_raw_fd()) {
            if signal == libc::SIGCHLD {
                continue;
            }
            stopping = true;
            if let Watched::Running(pid) = watched {
                // It may have ended a moment ago.
                drop(process::signal(pid, signal));
            }
        }
        while let Ok((pid, status)) = process::wait(-1, libc::WNOHANG) {
            if pid == 0 {
                break;
            }
            if matches!(watched, Watched::Running(running) if running == pid) {
                watched = Watched::Ended(signals::exit_of(status).0);
            }
        }
        if matches!(watched, Watched::Ended(_)) && options.restart && !stopping {
            std::thread::sleep(RESTART_PAUSE);
            watched = Watched::Running(spawn(options)?);
            continue;
        }
        if let Watched::Ended(code) = watched
            && (stopping || !options.keep)
        {
            if options.keep {
                end_namespace();
            }
            return Ok(code);
        }
    }
}

fn spawn(options: &Options) -> std::io::Result<i32> {
    let mut command = Command::new(&options.command[0]);
    command.args(&options.command[1..]);
    // SAFETY: the closure makes system calls only, and this process has one thread.
    unsafe { command.pre_exec(process::reset_signals) };
    let child = command.spawn()?;
    Ok(i32::try_from(child.id()).unwrap_or(0))
}

enum Watched {
    Running(i32),
    Ended(i32),
}

/// Kills and reaps everything else in the pid namespace, if this process is the first of one.
fn end_namespace() {
    if std::process::id() != 1 {
        return;
    }
    // From pid 1, -1 means every other process of the namespace; there may be none.
    drop(process::signal(-1, libc::SIGKILL));
    while process::wait(-1, 0).is_ok() {}
}

fn drain(fd: i32) -> Vec<i32> {
    let mut found = Vec::new();
    loop {
        // SAFETY: signalfd_siginfo is plain data.
        let mut info: libc::signalfd_siginfo = unsafe { std::mem::zeroed() };
        let size = size_of::<libc::signalfd_siginfo>();
        // SAFETY: the struct is ours and writable for its size; the descriptor does not block.
        let got = unsafe { libc::read(fd, (&raw mut info).cast(), size) };
        if usize::try_from(got).ok() != Some(size) {
            return found;
        }
        found.push(info.ssi_signo.cast_signed());
    }
}
