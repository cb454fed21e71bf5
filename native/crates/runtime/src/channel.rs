//! The words between a container's maker and its first process, over one message socket. End of file after the start means that the
//! program is running.

use crate::cgroup::entrance;
use crate::lookup::Unstartable;
use crate::sys::{process, socket};
use serde::{Deserialize, Serialize};
use shoal_protocol::oci::State;
use shoal_protocol::{Failure, FailureCode};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Longest report.
pub const REPORT_BYTES_MAX: usize = 16 * 1024;

/// Longest that a process that has failed waits for the end of the one between it and the maker, in ms: it has one message to send.
const TELL_TIMEOUT_MS: i32 = 10_000;

/// What init tells its maker.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "init", rename_all = "lowercase")]
pub enum Report {
    /// The process that was cloned first has made init, and ends.
    Born { pid: i32 },
    /// Namespaces and mounts are there: time for network devices and the host's hooks, to be answered by `HOOKED`.
    Mounted,
    /// The source of the mount with this index is wanted as init's mount namespace has it, its owners mapped; answered by `SOURCE`.
    Source { index: usize },
    /// Everything but the start is done.
    Ready,
    /// The filter is loaded and its listener has this number in init, to be taken and answered by `NOTIFIED`.
    Listening { number: i32 },
    /// Nothing more will happen; init ends with this code.
    Failed { failure: Failure, exit_code: i32 },
}

/// What the maker tells init: one byte each, in this order.
pub const MAPPED: &[u8] = b"m";
/// With descriptors: the process puts itself into its groups by them.
pub const ATTACHED: &[u8] = b"a";
/// With the descriptor of a detached tree.
pub const SOURCE: &[u8] = b"t";
pub const HOOKED: &[u8] = b"h";
pub const START: &[u8] = b"s";
pub const NOTIFIED: &[u8] = b"n";

/// Who answers what a seccomp filter notifies (linux.seccomp.listenerPath), and for which process.
pub struct Listener<'a> {
    pub pid: i32,
    pub pidfd: BorrowedFd<'a>,
    pub path: &'a str,
    pub metadata: &'a str,
    /// With pid and status as they are to be told.
    pub state: &'a State,
}

/// Tells the maker; ends this process when there is none any more.
pub(crate) fn tell(channel: BorrowedFd<'_>, report: &Report) {
    let mut bytes = encode(report);
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
        bytes = encode(&Report::Failed { failure, exit_code });
    }
    if socket::send(channel, &bytes).is_err() {
        process::exit_now(1);
    }
}

/// The bytes of a report.
pub(crate) fn encode(report: &Report) -> Vec<u8> {
    serde_json::to_vec(report).expect("a report is plain data")
}

/// Waits for one word of the maker; ends this process when there is none any more.
pub(crate) fn hear(channel: BorrowedFd<'_>, word: &[u8]) {
    let mut buffer = [0u8; 8];
    match socket::receive(channel, &mut buffer) {
        Ok(length) if &buffer[..length] == word => {}
        _ => process::exit_now(1),
    }
}

/// Waits for the maker's `ATTACHED`, and does what is left of it for this process to do: it puts itself into the groups that came with
/// the word (`cgroup::entrance`). Ends this process when there is no maker any more.
pub(crate) fn join_groups(channel: BorrowedFd<'_>) -> Result<(), Failure> {
    let mut buffer = [0u8; 8];
    match socket::receive_with_fds(channel, &mut buffer) {
        Ok((length, entrances)) if &buffer[..length] == ATTACHED => entrance::enter(entrances),
        _ => process::exit_now(1),
    }
}

/// Has the maker make the tree of a bind. Ends this process when there is no maker any more.
pub(crate) fn ask_source(channel: BorrowedFd<'_>, index: usize) -> Result<OwnedFd, Failure> {
    tell(channel, &Report::Source { index });
    let mut buffer = [0u8; 8];
    match socket::receive_with_fds(channel, &mut buffer) {
        Ok((length, mut trees)) if &buffer[..length] == SOURCE && !trees.is_empty() => {
            Ok(trees.swap_remove(0))
        }
        _ => process::exit_now(1),
    }
}

/// Says that the process is in its groups, or by what it is to put itself there.
pub(crate) fn tell_attached(channel: BorrowedFd<'_>, entrances: &[OwnedFd]) -> io::Result<()> {
    let fds: Vec<BorrowedFd<'_>> = entrances.iter().map(AsFd::as_fd).collect();
    socket::send_with_fds(channel, ATTACHED, &fds)
}

/// Waits until the process that made this one, and tells of it, has ended. What this one says of itself must come after that:
/// who hears first that it has failed would not know whom to wait for.
pub(crate) fn await_told(maker: BorrowedFd<'_>) {
    let mut fds = [libc::pollfd {
        fd: maker.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    }];
    // A maker that does not end is ended by whoever waits for its report.
    drop(process::poll(&mut fds, TELL_TIMEOUT_MS));
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
    // Mostly it is the end of the channel: the room for a long report would have to be faulted in.
    let length = socket::next_length(channel).unwrap_or(REPORT_BYTES_MAX);
    let mut buffer = vec![0u8; length.clamp(1, REPORT_BYTES_MAX)];
    let length = socket::receive(channel, &mut buffer)?;
    Ok(serde_json::from_slice(&buffer[..length]).ok())
}

/// Waits until the program runs, or gives the reason why it never will. A filter's listener is handed on, which kills the process where
/// that does not work: nobody would ever answer it.
pub fn await_exec(
    channel: BorrowedFd<'_>,
    listener: Option<&Listener<'_>>,
) -> Result<(), Unstartable> {
    let task = "starting the program";
    let plain = |failure| Unstartable {
        failure,
        exit_code: 1,
    };
    loop {
        match next_report(channel, -1) {
            Ok(None) => return Ok(()),
            Ok(Some(Report::Failed { failure, exit_code })) => {
                return Err(Unstartable { failure, exit_code });
            }
            Ok(Some(Report::Listening { number })) => {
                hand_on(channel, listener, number).map_err(plain)?;
            }
            Ok(Some(other)) => {
                return Err(plain(Failure::new(
                    FailureCode::System,
                    task,
                    format!("init said {other:?} out of turn"),
                )));
            }
            Err(error) => return Err(plain(Failure::io(task, &error))),
        }
    }
}

/// Gives the listener with this number in the process to its agent, and lets the process go on.
pub fn hand_on(
    channel: BorrowedFd<'_>,
    listener: Option<&Listener<'_>>,
    number: i32,
) -> Result<(), Failure> {
    let Some(listener) = listener else {
        // The process waits for our word, and ends with the channel.
        return Err(Failure::invalid(
            "reading linux.seccomp.listenerPath",
            "a filter that notifies needs one; name the agent's socket",
        ));
    };
    let forwarded = shoal_seccomp::notify::forward(
        listener.pidfd,
        number,
        listener.pid,
        listener.path,
        listener.metadata,
        listener.state,
    );
    if forwarded.is_err() {
        drop(process::signal_pidfd(listener.pidfd, libc::SIGKILL));
    }
    forwarded?;
    socket::send(channel, NOTIFIED)
        .map_err(|error| Failure::io("telling the process of its listener", &error))
}
