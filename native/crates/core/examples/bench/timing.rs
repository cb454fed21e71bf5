//! Running one command and knowing exactly how long it took and what it cost.

use std::ffi::CString;
use std::io;
use std::time::{Duration, Instant};

/// One timed command, or a sequence of them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Took {
    pub wall_us: f64,
    /// User and system time of the process and of what it has waited for.
    pub cpu_us: f64,
}

impl Took {
    /// One after the other.
    pub fn and(self, next: Self) -> Self {
        Self {
            wall_us: self.wall_us + next.wall_us,
            cpu_us: self.cpu_us + next.cpu_us,
        }
    }
}

/// Spawns a command (found by PATH) with /dev/null as its streams, waits for it, and refuses a code other than 0.
pub fn command(words: &[&str]) -> Result<Took, String> {
    let failed = |why: String| format!("{}: {why}", words.join(" "));
    let args: Vec<CString> = words
        .iter()
        .map(|word| CString::new(*word).map_err(|_| failed("a NUL byte".into())))
        .collect::<Result<_, _>>()?;
    let began = Instant::now();
    let pid = spawn(&args).map_err(|error| failed(error.to_string()))?;
    let (status, cpu_us) = wait(pid).map_err(|error| failed(error.to_string()))?;
    let wall_us = micros(began.elapsed());
    if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0 {
        return Ok(Took { wall_us, cpu_us });
    }
    Err(failed(complaint(words, status)))
}

/// What a failing command says when it is run once more with ears.
fn complaint(words: &[&str], status: i32) -> String {
    let again = std::process::Command::new(words[0])
        .args(&words[1..])
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .output();
    let said = again.map_or_else(
        |error| error.to_string(),
        |output| String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    );
    format!("ended with status {status:#x}; again it says: {said}")
}

fn spawn(args: &[CString]) -> io::Result<i32> {
    unsafe extern "C" {
        static environ: *const *mut libc::c_char;
    }
    let mut pointers: Vec<*mut libc::c_char> =
        args.iter().map(|arg| arg.as_ptr().cast_mut()).collect();
    pointers.push(std::ptr::null_mut());
    let mut pid = 0;
    // SAFETY: plain data, initialised by posix_spawn_file_actions_init right below.
    let mut actions: libc::posix_spawn_file_actions_t = unsafe { std::mem::zeroed() };
    // SAFETY: actions are initialised before use and destroyed after it; path, arguments and environment are NUL-terminated and
    // live over the call; the bench has one thread when it spawns, so that nobody changes the environment meanwhile.
    let error = unsafe {
        libc::posix_spawn_file_actions_init(&raw mut actions);
        for number in 0..3 {
            libc::posix_spawn_file_actions_addopen(
                &raw mut actions,
                number,
                c"/dev/null".as_ptr(),
                libc::O_RDWR,
                0,
            );
        }
        let error = libc::posix_spawnp(
            &raw mut pid,
            pointers[0],
            &raw const actions,
            std::ptr::null(),
            pointers.as_ptr(),
            environ,
        );
        libc::posix_spawn_file_actions_destroy(&raw mut actions);
        error
    };
    if error == 0 {
        Ok(pid)
    } else {
        Err(io::Error::from_raw_os_error(error))
    }
}

fn wait(pid: i32) -> io::Result<(i32, f64)> {
    let mut status = 0;
    // SAFETY: rusage is plain data.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both out-pointers are ours.
        if unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) } == pid {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    let of = |time: libc::timeval| time.tv_sec as f64 * 1e6 + time.tv_usec as f64;
    Ok((status, of(usage.ru_utime) + of(usage.ru_stime)))
}

/// Waits, unmeasured, until a process that was re-parented to this one has ended; others may have taken it already.
pub fn reap(pid: i32) {
    // A process that is not ours (any more) has nothing to wait for.
    drop(wait(pid));
}

/// Microseconds.
pub fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
