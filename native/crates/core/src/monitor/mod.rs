//! One monitor a container: it makes the container, owns its output, knows its real wait status and outlives the core.
//!
//! A fork of the zygote without exec: one thread, memory shared with its siblings. It outlives the zygote, which never waits for it.

mod clients;
mod commands;
mod creation;
mod end;
mod execs;
mod health;
mod parking;
mod streams;

use self::creation::{Given, Workshop};
use self::execs::Execs;
use self::health::Health;
pub use self::health::{RESULTS_MAX as HEALTH_RESULTS_MAX, is_checked};
use self::streams::{Ready, Streams, watch};
use crate::records::{self, Message};
use crate::zygote::Task;
use shoal_protocol::Failure;
use shoal_protocol::calls::Status;
use shoal_protocol::oci::Spec;
use shoal_runtime::cgroup::{Driver, OomWatch, detect::Layout};
use shoal_runtime::channel::{self, Report};
use shoal_runtime::sys::memory::{self, Pages};
use shoal_runtime::sys::{affinity, process, region, socket};
use shoal_seccomp::Program as Filter;
use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Most connections at once; the core needs one for events and one a command.
const CONNECTIONS_MAX: usize = 16;
/// A reader that takes nothing for this long loses its connection.
const SEND_TIMEOUT_MS: u32 = 1_000;
/// Bytes of output read at once. What no program has written costs no memory.
const READ_BYTES: usize = 64 * 1024;
/// A monitor that nothing has happened to for this long gives back what it does not need. Shorter lives do not pay for it.
const REST_AFTER: Duration = Duration::from_millis(20);

/// The whole life of a monitor; `dir` is the locked directory of the creation, or of the sandbox that one may come to. Through `network` comes
/// the container's network namespace, where the zygote makes it.
pub fn run(
    layout: &Layout,
    task: Task,
    control: OwnedFd,
    dir: OwnedFd,
    network: Option<OwnedFd>,
) -> ! {
    match make(layout, task, &control, dir, network) {
        Ok((mut monitor, start)) => {
            if start != Start::No {
                monitor.await_start(&control, start == Start::Heard);
            }
            monitor.announce(control, start == Start::No);
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

/// Makes the monitor, and all that it needs only for this in a region; also tells whether the program is to be started.
// Not a part of its caller, whose frame stays on the stack.
#[inline(never)]
fn make(
    layout: &Layout,
    task: Task,
    control: &OwnedFd,
    dir: OwnedFd,
    network: Option<OwnedFd>,
) -> Result<(Box<Monitor>, Start), Failure> {
    // SAFETY: a fork of the zygote, which has one thread; no monitor ever starts another. Without memory for the region the heap serves.
    drop(unsafe { region::open() });
    let made = match task {
        Task::Create { start, .. } => Workshop::open(layout, dir)
            .and_then(|workshop| {
                let given = Given {
                    network,
                    control: Some(control),
                };
                workshop.build(given, start)
            })
            .map(|monitor| (monitor, if start { Start::Told } else { Start::No })),
        Task::Park => parking::run(layout, control, dir),
    };
    region::close();
    made.map(|(monitor, start)| (Box::new(monitor), start))
}

/// Whether a container is to be started as soon as it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    No,
    /// The core is told when it runs.
    Told,
    /// The core hears by itself when it runs.
    Heard,
}

struct Connection {
    socket: OwnedFd,
    subscribed: bool,
    /// It is taken out of the list when nobody goes through that any more.
    closed: bool,
}

/// What a monitor remembers of the plan.
struct Container {
    id: String,
    cgroup: String,
    /// As further processes need it (`join::remembered`).
    spec: Spec,
}

/// Who waits until the program runs.
struct Starter {
    socket: OwnedFd,
    /// The core, which has not heard of the container yet: it is woken only once.
    unannounced: bool,
    /// It hears by itself of a program that runs, and is told only when there is none.
    hears: bool,
}

struct Monitor {
    container: Container,
    driver: Box<dyn Driver>,
    dir: OwnedFd,
    pid: i32,
    pidfd: OwnedFd,
    children: OwnedFd,
    /// Init's end of the channel is open until exec; None afterwards.
    channel: Option<OwnedFd>,
    listener: OwnedFd,
    connections: Vec<Connection>,
    streams: Streams,
    execs: Execs,
    /// None without a health check.
    health: Option<Health>,
    seccomp: Option<Cow<'static, Filter>>,
    oom: Option<OomWatch>,
    status: Status,
    pid_start_time: u64,
    created_at_ms: u64,
    started_at_ms: Option<u64>,
    /// Who waits for the answer of `start`.
    starter: Option<Starter>,
    start_failure: Option<Failure>,
    buffer: Pages,
    /// It has given back what it does not need.
    at_rest: bool,
}

fn doing<T>(what: &str, result: io::Result<T>) -> Result<T, Failure> {
    result.map_err(|error| Failure::io(what, &error))
}

/// poll(2) for at most this long, rounded up.
fn poll_for(fds: &mut [libc::pollfd], longest: Duration) -> io::Result<usize> {
    let ms = longest.as_micros().div_ceil(1000);
    process::poll(fds, i32::try_from(ms).unwrap_or(i32::MAX))
}

impl Monitor {
    /// Until the container has ended and that is on disk and told.
    fn serve(&mut self) -> ! {
        loop {
            if let Err(error) = self.turn() {
                // poll itself failed: without it nothing can be watched. The core sees the connection close and takes over.
                drop(error);
                process::exit_now(1);
            }
        }
    }

    fn turn(&mut self) -> io::Result<()> {
        let mut fds = vec![watch(self.children.as_raw_fd(), libc::POLLIN)];
        fds.extend(
            [
                self.channel.as_ref(),
                self.oom.as_ref().map(|oom| &oom.event),
            ]
            .into_iter()
            .flatten()
            .map(|fd| watch(fd.as_raw_fd(), libc::POLLIN)),
        );
        if self.connections.len() < CONNECTIONS_MAX {
            fds.push(watch(self.listener.as_raw_fd(), libc::POLLIN));
        }
        fds.extend(
            self.connections
                .iter()
                .map(|connection| watch(connection.socket.as_raw_fd(), libc::POLLIN)),
        );
        self.streams.watch(&mut fds);
        self.execs.watch(&mut fds);
        let left = |at: Instant| at.saturating_duration_since(Instant::now());
        let rest = (!self.at_rest).then_some(REST_AFTER);
        let happened = match self.deadline().map(left).into_iter().chain(rest).min() {
            Some(longest) => poll_for(&mut fds, longest)?,
            None => process::poll(&mut fds, -1)?,
        };
        if happened > 0 {
            self.at_rest = false;
        } else if !self.at_rest {
            self.rest();
        }
        let ready = Ready(fds);

        self.streams.turn(&ready, &mut self.buffer, true);
        if self.streams.has_rotated() {
            self.tell(&Message::Rotated);
        }
        self.turn_execs(&ready);
        if let Some(channel) = &self.channel
            && ready.of(channel.as_raw_fd()) != 0
        {
            self.hear_init();
        }
        if let Some(oom) = &self.oom
            && ready.of(oom.event.as_raw_fd()) != 0
        {
            self.out_of_memory();
        }
        for index in 0..self.connections.len() {
            if ready.of(self.connections[index].socket.as_raw_fd()) != 0 {
                self.command(index);
            }
        }
        self.connections.retain(|connection| !connection.closed);
        // What is opened from here on was not polled, and is not asked about before the next turn.
        if ready.of(self.listener.as_raw_fd()) != 0
            && let Ok(socket) = socket::accept(self.listener.as_fd())
        {
            drop(socket::set_timeouts(socket.as_fd(), SEND_TIMEOUT_MS));
            self.connections.push(Connection {
                socket,
                subscribed: false,
                closed: false,
            });
        }
        if ready.of(self.children.as_raw_fd()) != 0 {
            self.reap();
        }
        self.check_health();
        Ok(())
    }

    /// When something has to be done though nothing happens.
    fn deadline(&self) -> Option<Instant> {
        let health = self.health.as_ref().and_then(Health::deadline);
        [self.streams.deadline(), self.execs.deadline(), health]
            .into_iter()
            .flatten()
            .min()
    }

    /// Nothing happens: there is a monitor for every container, for as long as it runs.
    fn rest(&mut self) {
        self.at_rest = true;
        affinity::home();
        region::release();
        self.buffer.give_back();
        self.streams.rest();
        memory::give_back();
    }

    /// Init failed to start the program, or has become it.
    fn hear_init(&mut self) {
        let Some(channel) = &self.channel else {
            return;
        };
        if let Ok(Some(Report::Failed { failure, .. })) = channel::next_report(channel.as_fd(), -1)
        {
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
            let word = if starter.unannounced {
                Message::Running {
                    pid: self.pid,
                    pid_start_time: self.pid_start_time,
                    created_at_ms: self.created_at_ms,
                    started_at_ms,
                }
            } else {
                Message::Started { started_at_ms }
            };
            if !starter.hears {
                commands::answer(&starter.socket, &word);
            }
            if let Some(health) = &mut self.health {
                health.begin(Instant::now());
            }
        }
    }

    fn out_of_memory(&mut self) {
        let Some(oom) = &self.oom else { return };
        let mut drained = [0u8; 1024];
        let Ok(fd) = oom.event.try_clone() else {
            return;
        };
        let read = File::from(fd).read(&mut drained);
        // v1 also fires when the group is removed, v2 on every change of the counters.
        if read.is_ok() && self.driver.oom_kills(&self.container.cgroup) > 0 {
            self.tell(&Message::Oom);
            self.oom = None;
        }
    }

    /// Takes every ended child; ends the monitor once init is among them.
    fn reap(&mut self) {
        let mut drained = [0u8; 1024];
        if let Ok(fd) = self.children.try_clone() {
            // Only empties the descriptor; waitpid knows more than it.
            drop(File::from(fd).read(&mut drained));
        }
        let mut ended = None;
        while let Ok((pid, status)) = process::wait(-1, libc::WNOHANG) {
            if pid == 0 {
                break;
            }
            if pid == self.pid {
                ended = Some(status);
            } else {
                self.exec_ended(pid, status);
            }
        }
        // Last, as the kernel ends every other process of the container before its init.
        if let Some(status) = ended {
            self.finish(status);
        }
    }

    fn tell(&mut self, message: &Message) {
        let bytes = records::encode(message);
        for connection in &mut self.connections {
            if connection.subscribed && !connection.closed {
                connection.closed = socket::send(connection.socket.as_fd(), &bytes).is_err();
            }
        }
    }
}
