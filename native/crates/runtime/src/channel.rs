//! The words between a container's maker and its first process, over one message socket. End of file after the start means that the
//! program is running.

use crate::lookup::Unstartable;
use crate::sys::{process, socket};
use serde::{Deserialize, Serialize};
use shoal_protocol::{Failure, FailureCode};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Longest report.
pub const REPORT_BYTES_MAX: usize = 16 * 1024;

/// What init tells its maker.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "init", rename_all = "lowercase")]
pub enum Report {
    /// The process that was cloned first has made init, and ends.
    Born { pid: i32 },
    /// Namespaces and mounts are there: time for the host's hooks, to be answered by `HOOKED`.
    Mounted,
    /// Everything but the start is done.
    Ready,
    /// Nothing more will happen; init ends with this code.
    Failed { failure: Failure, exit_code: i32 },
}

/// What the maker tells init: one byte each, in this order.
pub const MAPPED: &[u8] = b"m";
pub const ATTACHED: &[u8] = b"a";
pub const HOOKED: &[u8] = b"h";
pub const START: &[u8] = b"s";

/// Tells the maker; ends this process when there is none any more.
pub(crate) fn tell(channel: BorrowedFd<'_>, report: &Report) {
    let mut bytes = serde_json::to_vec(report).expect("a report is plain data");
    if let Report::Failed { failure, exit_code } = report
        && bytes.len() > REPORT_BYTES_MAX
    {
        // A value of the configuration can be longer than a message: what was being done is kept, the value is cut.
        let short = |text: &str| text.chars().take(REPORT_BYTES_MAX / 32).collect::<String>();
        let failure = Failure {
            message: short(&failure.message),
            doing: short(&failure.doing),
            ..failure.clone()
        };
        let exit_code = *exit_code;
        bytes = serde_json::to_vec(&Report::Failed { failure, exit_code })
            .expect("a report is plain data");
    }
    if socket::send(channel, &bytes).is_err() {
        process::exit_now(1);
    }
}

/// Waits for one word of the maker; ends this process when there is none any more.
pub(crate) fn hear(channel: BorrowedFd<'_>, word: &[u8]) {
    let mut buffer = [0u8; 8];
    match socket::receive(channel, &mut buffer) {
        Ok(length) if &buffer[..length] == word => {}
        _ => process::exit_now(1),
    }
}

/// Says why there will be no program, and ends this process.
pub(crate) fn give_up(channel: BorrowedFd<'_>, failed: Unstartable) -> ! {
    let Unstartable { failure, exit_code } = failed;
    tell(channel, &Report::Failed { failure, exit_code });
    process::exit_now(exit_code)
}

/// The next report; None at the end of the channel. Fails when none comes within `timeout_ms` (-1: never).
pub fn next_report(channel: BorrowedFd<'_>, timeout_ms: i32) -> io::Result<Option<Report>> {
    if timeout_ms >= 0 {
        let mut fds = [libc::pollfd {
            fd: channel.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        }];
        if process::poll(&mut fds, timeout_ms)? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    let mut buffer = vec![0u8; REPORT_BYTES_MAX];
    let length = socket::receive(channel, &mut buffer)?;
    Ok(serde_json::from_slice(&buffer[..length]).ok())
}

/// Waits until the program runs, or gives the reason why it never will.
pub(crate) fn await_exec(channel: BorrowedFd<'_>) -> Result<(), Unstartable> {
    match next_report(channel, -1) {
        Ok(None) => Ok(()),
        Ok(Some(Report::Failed { failure, exit_code })) => Err(Unstartable { failure, exit_code }),
        Ok(Some(other)) => Err(Unstartable {
            failure: Failure::new(
                FailureCode::System,
                "starting the program",
                format!("init said {other:?} out of turn"),
            ),
            exit_code: 1,
        }),
        Err(error) => Err(Unstartable {
            failure: Failure::io("starting the program", &error),
            exit_code: 1,
        }),
    }
}
