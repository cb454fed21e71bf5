//! Further processes in the container: they are the monitor's children, so that their wait status is known for certain.

use super::commands::{answer, greeting};
use super::end::DRAIN_MAX;
use super::streams::{Ends, Ready, Sink, Streams, watch};
use super::{Monitor, doing};
use crate::records::{Attached, Message};
use shoal_protocol::calls::{Exec, ExecExit, ExecState, Status};
use shoal_protocol::oci::{self, Process};
use shoal_protocol::{Failure, FailureCode};
use shoal_runtime::channel::{self, Report};
use shoal_runtime::join::{self, Join};
use shoal_runtime::signals;
use shoal_runtime::streams::{Stdio, Streams as ProgramStreams};
use shoal_runtime::sys::{file, process, socket};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Most execs of one container at once: each needs up to five descriptors.
const RUNNING_MAX: usize = 128;
/// Ended ones that are kept to be asked about; the oldest is forgotten first.
const ENDED_MAX: usize = 256;
/// Longest name of an exec, in bytes.
const ID_BYTES_MAX: usize = 128;

/// Who waits for the start of an exec.
pub(super) struct Waiter {
    pub(super) connection: OwnedFd,
    /// The connection that becomes the exec's streams.
    pub(super) client: Option<(Attached, OwnedFd)>,
}

/// Why a process was started.
enum Purpose {
    /// Somebody asked by this name.
    Called {
        id: String,
        waiter: Option<Waiter>,
    },
    Probe,
}

/// A process whose end, output or clients are still waited for.
pub(super) struct Running {
    purpose: Purpose,
    pid: i32,
    pidfd: OwnedFd,
    /// Open until the program runs; its streams are taken over then.
    beginning: Option<Beginning>,
    pub(super) streams: Streams,
    started_at_ms: u64,
    failure: Option<Failure>,
    /// Once it has ended: until when its output is waited for.
    ended: Option<Instant>,
}

struct Beginning {
    channel: OwnedFd,
    ours: Ours,
}

/// Our ends of the streams of a process that is about to be started.
pub(super) enum Ours {
    Ends(Ends),
    /// Where the master of its terminal comes.
    Console(OwnedFd),
}

/// All execs of a container.
#[derive(Default)]
pub(super) struct Execs {
    running: Vec<Running>,
    ended: VecDeque<ExecState>,
}

impl Running {
    fn is_called(&self, wanted: &str) -> bool {
        matches!(&self.purpose, Purpose::Called { id, .. } if id == wanted)
    }

    fn is_done(&self) -> bool {
        self.ended.is_some() && self.streams.is_drained() && self.streams.is_unattended()
    }
}

impl Ours {
    /// The ends; of a terminal once the program runs, as it has sent the master before.
    pub(super) fn take(self) -> io::Result<Ends> {
        match self {
            Self::Ends(ends) => Ok(ends),
            Self::Console(socket) => {
                let mut word = [0u8; 64];
                let (_, fds) = socket::receive_with_fds(socket.as_fd(), &mut word)?;
                let master = fds.into_iter().next();
                Ok(Ends::Terminal(master.ok_or(io::ErrorKind::UnexpectedEof)?))
            }
        }
    }
}

impl Execs {
    /// Adds what has to be polled.
    pub(super) fn watch(&self, fds: &mut Vec<libc::pollfd>) {
        for exec in &self.running {
            match &exec.beginning {
                Some(beginning) => fds.push(watch(beginning.channel.as_raw_fd(), libc::POLLIN)),
                None => exec.streams.watch(fds),
            }
        }
    }

    /// When the output of an ended one is not waited for any more.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let waited = |exec: &&Running| !exec.streams.is_drained();
        self.running
            .iter()
            .filter(waited)
            .filter_map(|exec| exec.ended)
            .min()
    }

    /// Moves what is there; an exec waits for its client for ever, as nobody else gets its output.
    pub(super) fn turn_streams(&mut self, ready: &Ready, buffer: &mut [u8]) {
        for exec in &mut self.running {
            exec.streams.turn(ready, buffer, false);
        }
        self.settle();
    }

    /// Clients of those that have ended leave when there is no more output, or when it has been waited for long enough.
    fn settle(&mut self) {
        let now = Instant::now();
        for exec in &mut self.running {
            if let Some(until) = exec.ended
                && (now >= until || exec.streams.is_drained())
            {
                exec.streams.finish();
            }
        }
        self.running.retain(|exec| !exec.is_done());
    }

    /// One that has not ended.
    pub(super) fn running(&self, id: &str) -> Result<&Running, Failure> {
        let found = self.running.iter().find(|exec| exec.is_called(id));
        found.filter(|exec| exec.ended.is_none()).ok_or_else(|| {
            let task = format!("looking for exec {id}");
            if self.knows(id) {
                Failure::new(FailureCode::Conflict, task, "it has ended")
            } else {
                Failure::new(
                    FailureCode::NotFound,
                    task,
                    format!("No such exec instance: {id}"),
                )
            }
        })
    }

    fn knows(&self, id: &str) -> bool {
        self.running.iter().any(|exec| exec.is_called(id))
            || self.ended.iter().any(|exec| exec.exec_id == id)
    }

    /// Signals one.
    pub(super) fn kill(&self, id: &str, signal: i32) -> Result<(), Failure> {
        let exec = self.running(id)?;
        doing(
            &format!("signalling exec {id} with {}", signals::name(signal)),
            process::signal_pidfd(exec.pidfd.as_fd(), signal),
        )
    }

    /// Ends a health check's process, if one runs.
    pub(super) fn kill_probe(&self) {
        for exec in &self.running {
            if matches!(exec.purpose, Purpose::Probe) {
                // It may have ended by itself.
                drop(process::signal_pidfd(exec.pidfd.as_fd(), libc::SIGKILL));
            }
        }
    }

    /// Those that run and those that have ended, oldest end first.
    pub(super) fn list(&self) -> Vec<ExecState> {
        let running = self.running.iter().filter(|exec| exec.ended.is_none());
        let running = running.filter_map(|exec| match &exec.purpose {
            Purpose::Called { id, .. } => Some(ExecState {
                exec_id: id.clone(),
                pid: exec.pid,
                started_at_ms: exec.started_at_ms,
                exit: None,
            }),
            Purpose::Probe => None,
        });
        self.ended.iter().cloned().chain(running).collect()
    }

    fn keep(&mut self, state: ExecState) {
        if self.ended.len() >= ENDED_MAX {
            self.ended.pop_front();
        }
        self.ended.push_back(state);
    }
}

impl Monitor {
    /// Starts a process that somebody asked for; the waiter hears of it later.
    pub(super) fn begin_exec(&mut self, exec: Exec, waiter: Waiter) -> Result<(), Failure> {
        let container = &self.container.id;
        let task = format!("starting exec {:?} in container {container}", exec.exec_id);
        let refuse = |code, message: String| Err(Failure::new(code, &task, message));
        match self.status {
            Status::Running => {}
            Status::Paused => {
                return refuse(
                    FailureCode::Conflict,
                    format!("Container {container} is paused, unpause the container before exec"),
                );
            }
            Status::Created | Status::Stopped => {
                return refuse(
                    FailureCode::Conflict,
                    format!("Container {container} is not running"),
                );
            }
        }
        if exec.exec_id.is_empty() || exec.exec_id.len() > ID_BYTES_MAX {
            return refuse(
                FailureCode::Invalid,
                format!("execId must have 1 to {ID_BYTES_MAX} bytes"),
            );
        }
        if self.execs.knows(&exec.exec_id) {
            return refuse(FailureCode::AlreadyExists, "the execId is taken".into());
        }
        if self.execs.running.len() >= RUNNING_MAX {
            return refuse(
                FailureCode::Full,
                format!("{RUNNING_MAX} execs are running in it already"),
            );
        }
        let mut process = exec.process;
        process.console_size = exec.console_size.map(|size| oci::ConsoleSize {
            height: size.rows,
            width: size.columns,
        });
        let purpose = Purpose::Called {
            id: exec.exec_id,
            waiter: Some(waiter),
        };
        self.begin_process(&process, exec.stdin, purpose, Sink::Nowhere)
    }

    /// Starts a health check's process; what it writes is kept.
    pub(super) fn begin_probe(&mut self, process: &Process) -> Result<(), Failure> {
        self.begin_process(
            process,
            false,
            Purpose::Probe,
            Sink::Capture(Vec::new(), false),
        )
    }

    fn begin_process(
        &mut self,
        process: &Process,
        stdin: bool,
        purpose: Purpose,
        sink: Sink,
    ) -> Result<(), Failure> {
        let task = "starting a process in a container";
        let (stdio, ours) = doing(task, make_streams(process.terminal, stdin))?;
        let joined = join::begin(&Join {
            pid: self.pid,
            pidfd: self.pidfd.as_fd(),
            spec: &self.container.spec,
            process,
            driver: self.driver.as_ref(),
            cgroup: &self.container.cgroup,
            stdio: &stdio,
            preserve_fds: 0,
            seccomp: self.seccomp.as_deref(),
            container_id: &self.container.id,
            // Nobody here listens for what a filter notifies.
            state: None,
            no_new_keyring: false,
            keep_groups: false,
        })?;
        self.execs.running.push(Running {
            purpose,
            pid: joined.pid,
            pidfd: joined.pidfd,
            beginning: Some(Beginning {
                channel: joined.channel,
                ours,
            }),
            streams: Streams::new(true, sink),
            started_at_ms: process::now_ms(),
            failure: None,
            ended: None,
        });
        Ok(())
    }

    pub(super) fn turn_execs(&mut self, ready: &Ready) {
        for index in 0..self.execs.running.len() {
            let beginning = self.execs.running[index].beginning.as_ref();
            let said = beginning.map_or(0, |one| ready.of(one.channel.as_raw_fd()));
            if said != 0 {
                self.hear_exec(index);
            }
        }
        self.execs.turn_streams(ready, &mut self.buffer);
    }

    /// A process says why it will not become its program, or has become it.
    fn hear_exec(&mut self, index: usize) {
        let exec = &mut self.execs.running[index];
        let Some(beginning) = exec.beginning.take() else {
            return;
        };
        let report = channel::next_report(beginning.channel.as_fd(), -1);
        if let Ok(Some(Report::Failed { failure, .. })) = report {
            exec.failure = Some(failure);
        } else if let Err(error) = beginning
            .ours
            .take()
            .and_then(|ends| exec.streams.open(ends))
        {
            exec.failure = Some(Failure::io("taking an exec's streams over", &error));
            // Nobody could talk to it.
            drop(process::signal_pidfd(exec.pidfd.as_fd(), libc::SIGKILL));
        }
        let Purpose::Called { waiter, .. } = &mut exec.purpose else {
            return;
        };
        let Some(Waiter { connection, client }) = waiter.take() else {
            return;
        };
        if let Some(failure) = &exec.failure {
            let failure = failure.clone();
            return answer(&connection, &Message::Failed { failure });
        }
        let pid = exec.pid;
        if let Some((attached, socket)) = client {
            let greeting = greeting(attached.request, serde_json::json!({"pid": pid}));
            let refused = exec.streams.attach(socket, attached.wanted, greeting);
            debug_assert!(refused.is_ok(), "the first client of an exec has room");
        }
        answer(&connection, &Message::ExecStarted { pid });
    }

    /// A child other than init has ended.
    pub(super) fn exec_ended(&mut self, pid: i32, status: i32) {
        let mut running = self.execs.running.iter();
        let Some(index) = running.position(|exec| exec.pid == pid && exec.ended.is_none()) else {
            // An orphan of the container whose parent was outside.
            return;
        };
        // Its last word, or the end of its channel, has not been heard when it was quick.
        self.hear_exec(index);
        let exec = &mut self.execs.running[index];
        exec.ended = Some(Instant::now() + DRAIN_MAX);
        let started_at_ms = exec.started_at_ms;
        let failure = exec.failure.take();
        match &exec.purpose {
            Purpose::Probe => {
                exec.streams.drain(Duration::ZERO, &mut self.buffer);
                let output = exec.streams.captured();
                let exec = self.execs.running.remove(index);
                drop(exec);
                let result = match failure {
                    Some(failure) => Err(failure),
                    None => Ok((signals::exit_of(status).0, output)),
                };
                self.probe_ended(started_at_ms, result);
            }
            Purpose::Called { .. } if failure.is_some() => {
                // It never ran: whoever asked has been told, and there is nothing to keep.
                self.execs.running.remove(index);
            }
            Purpose::Called { id, .. } => {
                let (exit_code, signal) = signals::exit_of(status);
                let exit = ExecExit {
                    exit_code,
                    signal,
                    finished_at_ms: process::now_ms(),
                };
                let exec_id = id.clone();
                self.execs.keep(ExecState {
                    exec_id: exec_id.clone(),
                    pid: 0,
                    started_at_ms,
                    exit: Some(exit.clone()),
                });
                self.tell(&Message::ExecExit { exec_id, exit });
                // Its output may have ended before it did.
                self.execs.settle();
            }
        }
    }

    /// The container has ended, and with it all of these.
    pub(super) fn finish_execs(&mut self) {
        for exec in &mut self.execs.running {
            exec.streams.drain(Duration::ZERO, &mut self.buffer);
        }
        self.execs
            .running
            .retain(|exec| !exec.streams.is_unattended());
    }
}

/// The streams of a process and our ends of them.
pub(super) fn make_streams(terminal: bool, stdin: bool) -> io::Result<(Stdio, Ours)> {
    if terminal {
        let (ours, console_socket) = socket::pair()?;
        return Ok((Stdio::Terminal { console_socket }, Ours::Console(ours)));
    }
    let (theirs, ours) = pipes(stdin)?;
    Ok((Stdio::Fds(theirs), Ours::Ends(ours)))
}

/// Pipes for a program, and our ends of them.
fn pipes(stdin: bool) -> io::Result<(ProgramStreams, Ends)> {
    let (stdin_read, stdin_write) = match stdin.then(file::pipe).transpose()? {
        Some((read, write)) => (Some(read), Some(write)),
        None => (None, None),
    };
    let (stdout, stdout_write) = file::pipe()?;
    let (stderr, stderr_write) = file::pipe()?;
    let theirs = ProgramStreams {
        stdin: stdin_read,
        stdout: stdout_write,
        stderr: stderr_write,
    };
    let ours = Ends::Pipes {
        stdin: stdin_write,
        stdout,
        stderr,
    };
    Ok((theirs, ours))
}
