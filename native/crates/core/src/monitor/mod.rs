//! One monitor a container: it makes the container, owns its output, knows its real wait status and outlives the core.
//!
//! A fork of the zygote without exec: one thread, memory shared with its siblings, nobody's child.

mod creation;
mod output;
mod parking;

use self::creation::Workshop;
use self::output::Output;
use crate::logs::file::LogFile;
use crate::records::{self, Command, ExitRecord, Message};
use crate::zygote::Task;
use shoal_protocol::calls::{Exit, Status};
use shoal_protocol::{Failure, FailureCode};
use shoal_runtime::cgroup::{self, Driver, OomWatch, detect::Layout};
use shoal_runtime::channel::{self, Report};
use shoal_runtime::plan::Plan;
use shoal_runtime::signals;
use shoal_runtime::sys::{file, process, socket};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Most connections at once; the core needs one for events and one a command.
const CONNECTIONS_MAX: usize = 16;
/// A reader that takes nothing for this long loses its connection.
const SEND_TIMEOUT_MS: u32 = 1_000;
/// Small, as every monitor keeps one; also the longest word of init.
const READ_BYTES: usize = 16 * 1024;

/// The whole life of a monitor; `dir` is the locked directory of the creation, or of the sandbox that one may come to.
pub fn run(layout: &Layout, task: Task, control: OwnedFd, dir: OwnedFd) -> ! {
    let made = match task {
        Task::Create => Workshop::open(layout, dir).and_then(Workshop::build),
        Task::Park => parking::run(layout, &control, dir),
    };
    match made {
        Ok(mut monitor) => {
            monitor.announce(control);
            monitor.serve()
        }
        Err(failure) => {
            // When the core is gone too, the next one rolls this creation back.
            drop(socket::send(
                control.as_fd(),
                &records::encode(&Message::Failed { failure }),
            ));
            process::exit_now(1)
        }
    }
}

struct Connection {
    socket: OwnedFd,
    subscribed: bool,
}

struct Monitor {
    plan: Plan,
    driver: Box<dyn Driver>,
    dir: OwnedFd,
    pid: i32,
    pidfd: OwnedFd,
    children: OwnedFd,
    /// Init's end of the channel is open until exec; None afterwards.
    channel: Option<OwnedFd>,
    listener: OwnedFd,
    connections: Vec<Connection>,
    outputs: Vec<Output>,
    log: Option<LogFile>,
    oom: Option<OomWatch>,
    status: Status,
    created_at_ms: u64,
    started_at_ms: Option<u64>,
    /// Who waits for the answer of `start`.
    starter: Option<OwnedFd>,
    start_failure: Option<Failure>,
    buffer: Vec<u8>,
}

fn doing<T>(what: &str, result: io::Result<T>) -> Result<T, Failure> {
    result.map_err(|error| Failure::io(what, &error))
}

impl Monitor {
    /// Until the container has ended and that is on disk and told.
    fn serve(mut self) -> ! {
        loop {
            if let Err(error) = self.turn() {
                // poll itself failed: without it nothing can be watched. The core sees the connection close and takes over.
                drop(error);
                process::exit_now(1);
            }
        }
    }

    fn turn(&mut self) -> io::Result<()> {
        let watch = |fd: i32| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        };
        let absent = -1;
        let mut fds = vec![
            watch(self.children.as_raw_fd()),
            watch(self.channel.as_ref().map_or(absent, AsRawFd::as_raw_fd)),
            watch(if self.connections.len() < CONNECTIONS_MAX {
                self.listener.as_raw_fd()
            } else {
                absent
            }),
            watch(
                self.oom
                    .as_ref()
                    .map_or(absent, |oom| oom.event.as_raw_fd()),
            ),
        ];
        let outputs_at = fds.len();
        fds.extend(
            self.outputs
                .iter()
                .map(|output| watch(output.pipe.as_raw_fd())),
        );
        let connections_at = fds.len();
        fds.extend(
            self.connections
                .iter()
                .map(|connection| watch(connection.socket.as_raw_fd())),
        );
        process::poll(&mut fds, -1)?;
        let ready = |index: usize| fds[index].revents != 0;

        let outputs: Vec<usize> = (outputs_at..connections_at)
            .filter(|index| ready(*index))
            .map(|index| index - outputs_at)
            .collect();
        for index in outputs.into_iter().rev() {
            if !self.read_output(index) {
                self.end_output(index);
            }
        }
        if ready(1) {
            self.hear_init();
        }
        if ready(3) {
            self.out_of_memory();
        }
        let connections: Vec<usize> = (connections_at..fds.len())
            .filter(|index| ready(*index))
            .map(|index| index - connections_at)
            .collect();
        for index in connections.into_iter().rev() {
            self.command(index);
        }
        if ready(2)
            && let Ok(socket) = socket::accept(self.listener.as_fd())
        {
            drop(socket::set_timeouts(socket.as_fd(), SEND_TIMEOUT_MS));
            self.connections.push(Connection {
                socket,
                subscribed: false,
            });
        }
        if ready(0) {
            self.reap();
        }
        Ok(())
    }

    /// Init failed to start the program, or has become it.
    fn hear_init(&mut self) {
        let Some(channel) = &self.channel else {
            return;
        };
        let length = socket::receive(channel.as_fd(), &mut self.buffer).unwrap_or(0);
        if let Ok(Report::Failed { failure, .. }) = serde_json::from_slice(&self.buffer[..length]) {
            // The answer waits for the exit record: who hears of the failure finds the container stopped.
            self.start_failure = Some(failure);
            return;
        }
        self.channel = None;
        if self.start_failure.is_some() {
            return;
        }
        if let Some(starter) = self.starter.take() {
            let started_at_ms = process::now_ms();
            (self.status, self.started_at_ms) = (Status::Running, Some(started_at_ms));
            answer(&starter, &Message::Started { started_at_ms });
        }
    }

    fn out_of_memory(&mut self) {
        let Some(oom) = &self.oom else { return };
        let mut drained = [0u8; 1024];
        let Ok(fd) = oom.event.try_clone() else {
            return;
        };
        let read = File::from(fd).read(&mut drained);
        let path = &self.plan.cgroup;
        // v1 also fires when the group is removed, v2 on every change of the counters.
        if read.is_ok() && self.driver.oom_kills(path) > 0 {
            self.tell(&Message::Oom);
            self.oom = None;
        }
    }

    fn command(&mut self, index: usize) {
        let mut buffer = [0u8; 4096];
        let length =
            socket::receive(self.connections[index].socket.as_fd(), &mut buffer).unwrap_or(0);
        let Ok(command) = serde_json::from_slice::<Command>(&buffer[..length]) else {
            // End of file, or not one of ours.
            self.connections.remove(index);
            return;
        };
        let reply = match command {
            Command::Subscribe => {
                self.connections[index].subscribed = true;
                Message::Status {
                    status: self.status,
                    started_at_ms: self.started_at_ms,
                }
            }
            Command::Kill { signal, all } => match self.kill(signal, all) {
                Ok(()) => Message::Done,
                Err(failure) => Message::Failed { failure },
            },
            Command::Start => match self.begin_start(index) {
                Ok(()) => return,
                Err(failure) => Message::Failed { failure },
            },
        };
        answer(&self.connections[index].socket, &reply);
    }

    fn begin_start(&mut self, index: usize) -> Result<(), Failure> {
        let id = &self.plan.container_id;
        let task = format!("starting container {id}");
        if self.status != Status::Created || self.starter.is_some() {
            return Err(Failure::new(
                FailureCode::Conflict,
                task,
                "it has been started already",
            ));
        }
        let Some(channel) = &self.channel else {
            return Err(Failure::new(
                FailureCode::Conflict,
                task,
                "its init has ended",
            ));
        };
        doing(&task, socket::send(channel.as_fd(), channel::START))?;
        self.starter = Some(doing(&task, self.connections[index].socket.try_clone())?);
        Ok(())
    }

    fn kill(&self, signal: i32, all: bool) -> Result<(), Failure> {
        // Killing init kills its whole pid namespace.
        if all && signal != libc::SIGKILL {
            cgroup::signal_all(self.driver.as_ref(), &self.plan.cgroup, signal);
            return Ok(());
        }
        let task = format!(
            "signalling container {} with {}",
            self.plan.container_id,
            signals::name(signal)
        );
        doing(&task, process::signal_pidfd(self.pidfd.as_fd(), signal))
    }

    /// Takes every ended child; ends the monitor once init is among them.
    fn reap(&mut self) {
        let mut drained = [0u8; 1024];
        if let Ok(fd) = self.children.try_clone() {
            // Only empties the descriptor; waitpid knows more than it.
            drop(File::from(fd).read(&mut drained));
        }
        while let Ok((pid, status)) = process::wait(-1, libc::WNOHANG) {
            if pid == 0 {
                return;
            }
            if pid == self.pid {
                self.finish(status);
            }
        }
    }

    fn finish(&mut self, status: i32) -> ! {
        // What init said last is still in the channel.
        while self.channel.is_some() && self.start_failure.is_none() {
            self.hear_init();
        }
        self.drain();
        let (exit_code, signal) = signals::exit_of(status);
        let record = ExitRecord {
            exit: Exit {
                exit_code,
                exit_code_known: true,
                signal,
                oom_killed: self.driver.oom_kills(&self.plan.cgroup) > 0,
                finished_at_ms: process::now_ms(),
            },
            started_at_ms: self.started_at_ms,
            lost_log_records: self.log.as_ref().map_or(0, |log| log.lost),
        };
        let written = file::write_durable_at(
            self.dir.as_fd(),
            records::EXIT_FILE,
            &records::encode(&record),
        );
        // Its place was taken at the creation, so that a full disk does not come here. What does come is told with the exit,
        // which then lives in the core's memory alone: better than keeping it to ourselves.
        let unwritten = written.err().map(|error| {
            let id = &self.plan.container_id;
            Failure::io(format!("writing the exit record of container {id}"), &error)
        });
        if record.exit.oom_killed && self.oom.is_some() {
            self.tell(&Message::Oom);
        }
        self.tell(&Message::Exit { record, unwritten });
        if let Some(starter) = self.starter.take() {
            let failure = self.start_failure.take().unwrap_or_else(|| {
                Failure::new(
                    FailureCode::System,
                    "starting the program",
                    "init ended before it became the program",
                )
            });
            answer(&starter, &Message::Failed { failure });
        }
        process::exit_now(0)
    }

    fn tell(&mut self, message: &Message) {
        let bytes = records::encode(message);
        self.connections.retain(|connection| {
            !connection.subscribed || socket::send(connection.socket.as_fd(), &bytes).is_ok()
        });
    }
}

/// A core that does not listen any more will read the record on disk.
fn answer(socket: &OwnedFd, message: &Message) {
    drop(socket::send(socket.as_fd(), &records::encode(message)));
}
