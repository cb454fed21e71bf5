//! What the core asks of a monitor, one message each.

use super::execs::Waiter;
use super::{Monitor, Starter, doing};
use crate::records::{self, Attached, Command, Message};
use shoal_protocol::calls::{self, ConsoleSize, Exec, Status};
use shoal_protocol::{Failure, FailureCode};
use shoal_runtime::channel;
use shoal_runtime::sys::{process, socket};
use shoal_runtime::{cgroup, signals};
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

/// Longest command; what may be longer comes in a file of its own.
const COMMAND_BYTES_MAX: usize = 4096;

/// A core that does not listen any more will read the record on disk.
pub(super) fn answer(socket: &OwnedFd, message: &Message) {
    drop(socket::send(socket.as_fd(), &records::encode(message)));
}

impl Monitor {
    /// Reads one command of a connection and answers it, or will.
    // Not a part of its caller, which waits with its frame on the stack.
    #[inline(never)]
    pub(super) fn command(&mut self, index: usize) {
        let mut buffer = [0u8; COMMAND_BYTES_MAX];
        let socket = self.connections[index].socket.as_fd();
        let (length, fds) = socket::receive_with_fds(socket, &mut buffer).unwrap_or_default();
        let Ok(command) = serde_json::from_slice::<Command>(&buffer[..length]) else {
            // End of file, or not one of ours.
            self.connections[index].closed = true;
            return;
        };
        let reply = match self.obey(index, command, fds) {
            Ok(Some(reply)) => reply,
            // The answer comes later, or has been given.
            Ok(None) => return,
            Err(failure) => Message::Failed { failure },
        };
        answer(&self.connections[index].socket, &reply);
    }

    fn obey(
        &mut self,
        index: usize,
        command: Command,
        fds: Vec<OwnedFd>,
    ) -> Result<Option<Message>, Failure> {
        let mut fds = fds.into_iter();
        let done = |()| Some(Message::Done);
        match command {
            Command::Subscribe => {
                self.subscribe(index);
                Ok(None)
            }
            Command::Start => self.begin_start(index).map(|()| None),
            Command::Kill { signal, all } => self.kill(signal, all).map(done),
            Command::Pause => self.pause().map(done),
            Command::Resume => self.resume().map(done),
            Command::Attach { attached } => self.attach(attached, fds.next()).map(done),
            Command::Resize { exec, size } => self.resize(exec.as_deref(), size).map(done),
            Command::Exec { attached } => {
                let exec = read_exec(fds.next())?;
                let connection = self.connections[index].socket.try_clone();
                let waiter = Waiter {
                    connection: doing("answering an exec", connection)?,
                    client: attached.zip(fds.next()),
                };
                self.begin_exec(exec, waiter).map(|()| None)
            }
            Command::Execs => Ok(Some(Message::Execs {
                execs: self.execs.list(),
            })),
            Command::KillExec { exec, signal } => self.execs.kill(&exec, signal).map(done),
        }
    }

    /// From now on the connection is told everything; what health checks have found is told again.
    fn subscribe(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        connection.subscribed = true;
        answer(
            &connection.socket,
            &Message::Status {
                status: self.status,
                started_at_ms: self.started_at_ms,
            },
        );
        for message in self.health.iter().flat_map(|health| health.messages()) {
            answer(&connection.socket, &message);
        }
    }

    /// For a container whose init has been told to start already: `control` is told what comes of it, unless it `hears` that by itself.
    pub(super) fn await_start(&mut self, control: &OwnedFd, hears: bool) {
        self.starter = control.try_clone().ok().map(|socket| Starter {
            socket,
            unannounced: !hears,
            hears,
        });
    }

    fn begin_start(&mut self, index: usize) -> Result<(), Failure> {
        let id = &self.container.id;
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
        let socket = doing(&task, self.connections[index].socket.try_clone())?;
        self.starter = Some(Starter {
            socket,
            unannounced: false,
            hears: false,
        });
        Ok(())
    }

    fn kill(&mut self, signal: i32, all: bool) -> Result<(), Failure> {
        let task = format!(
            "signalling container {} with {}",
            self.container.id,
            signals::name(signal)
        );
        // Killing init kills its whole pid namespace.
        if all && signal != libc::SIGKILL {
            cgroup::signal_all(self.driver.as_ref(), &self.container.cgroup, signal);
        } else {
            doing(&task, process::signal_pidfd(self.pidfd.as_fd(), signal))?;
        }
        // Nothing takes a signal while it is frozen.
        if self.status == Status::Paused {
            self.resume()?;
        }
        Ok(())
    }

    fn pause(&mut self) -> Result<(), Failure> {
        self.check_status("pausing", Status::Running, "is not running")?;
        self.driver.freeze(&self.container.cgroup)?;
        if let Some(health) = &mut self.health {
            health.suspend();
            self.execs.kill_probe();
        }
        self.change(Status::Paused);
        Ok(())
    }

    fn resume(&mut self) -> Result<(), Failure> {
        self.check_status("resuming", Status::Paused, "is not paused")?;
        self.driver.thaw(&self.container.cgroup)?;
        if let Some(health) = &mut self.health {
            health.resume(Instant::now());
        }
        self.change(Status::Running);
        Ok(())
    }

    fn check_status(&self, doing: &str, wanted: Status, message: &str) -> Result<(), Failure> {
        if self.status == wanted {
            return Ok(());
        }
        let id = &self.container.id;
        Err(Failure::new(
            FailureCode::Conflict,
            format!("{doing} container {id}"),
            format!("Container {id} {message}"),
        ))
    }

    fn change(&mut self, status: Status) {
        self.status = status;
        self.tell(&Message::Changed { status });
    }

    fn attach(&mut self, attached: Attached, client: Option<OwnedFd>) -> Result<(), Failure> {
        let task = format!("attaching to container {}", self.container.id);
        let client = client.ok_or_else(|| Failure::invalid(&task, "no connection came with it"))?;
        let value = serde_json::json!({"terminal": self.streams.has_terminal()});
        let greeting = greeting(attached.request, value);
        let refused = self.streams.attach(client, attached.wanted, greeting);
        refused.map_err(|_| {
            Failure::new(
                FailureCode::Full,
                task,
                "too many clients are attached to it",
            )
        })
    }

    fn resize(&mut self, exec: Option<&str>, size: ConsoleSize) -> Result<(), Failure> {
        let id = &self.container.id;
        let (task, resized) = match exec {
            Some(exec) => (
                format!("resizing exec {exec} of container {id}"),
                self.execs.running(exec)?.streams.resize(size),
            ),
            None => (
                format!("resizing container {id}"),
                self.streams.resize(size),
            ),
        };
        if doing(&task, resized)? {
            return Ok(());
        }
        Err(Failure::new(
            FailureCode::Conflict,
            task,
            "it has no terminal",
        ))
    }
}

/// The answer of a call whose connection becomes a stream, as a whole frame.
pub(super) fn greeting(request: u64, value: serde_json::Value) -> Vec<u8> {
    let body = calls::reply(request, &Ok(value));
    let mut frame = Vec::with_capacity(4 + body.len());
    shoal_protocol::write_frame(&mut frame, &body).expect("a short frame into memory");
    frame
}

/// An exec call is as long as its environment, which no message holds: it comes in a file.
fn read_exec(body: Option<OwnedFd>) -> Result<Exec, Failure> {
    let task = "reading an exec";
    let body = body.ok_or_else(|| Failure::invalid(task, "no body came with it"))?;
    let mut text = Vec::new();
    let mut file = File::from(body);
    doing(
        task,
        file.rewind().and_then(|()| file.read_to_end(&mut text)),
    )?;
    serde_json::from_slice(&text).map_err(|error| Failure::invalid(task, error.to_string()))
}
