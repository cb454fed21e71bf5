//! One monitor a container: it makes the container, owns its output, knows its real wait status and outlives the core.
//!
//! A fork of the zygote without exec: one thread, memory shared with its siblings, nobody's child.

use crate::logfile::{Framer, LogFile, Stream, Timestamp};
use crate::records::{self, Command, ExitRecord, Message, State};
use shoal_protocol::calls::{Create, Exit, Status};
use shoal_protocol::{Failure, FailureCode};
use shoal_runtime::cgroup::{self, Driver, OomWatch, detect::Layout};
use shoal_runtime::init::{self, Report, Streams};
use shoal_runtime::mounts::Surroundings;
use shoal_runtime::plan::Plan;
use shoal_runtime::sys::{file, process, socket};
use shoal_runtime::{devices, proc, root, signals};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Longest that building a container's root may take.
const CREATE_TIMEOUT_MS: i32 = 30_000;
/// Longest that output is waited for after the end, when somebody outside still holds the pipe.
const DRAIN_TIMEOUT_MS: u64 = 2_000;
/// Most connections at once; the core needs one for events and one a command.
const CONNECTIONS_MAX: usize = 16;
/// A reader that takes nothing for this long loses its connection.
const SEND_TIMEOUT_MS: u32 = 1_000;
/// Small, as every monitor keeps one; also the longest word of init.
const READ_BYTES: usize = 16 * 1024;
/// Reads of one stream in a row, so that a program that never pauses does not starve commands.
const READS_IN_A_ROW: usize = 8;

/// The whole life of a monitor; `dir` is the locked directory of the creation.
pub fn run(layout: &Layout, control: OwnedFd, dir: OwnedFd) -> ! {
    match Monitor::create(layout, control, dir) {
        Ok(monitor) => monitor.serve(),
        Err((control, failure)) => {
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

/// One output stream of the container.
struct Output {
    stream: Stream,
    pipe: File,
    framer: Framer,
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
    fn create(layout: &Layout, control: OwnedFd, dir: OwnedFd) -> Result<Self, (OwnedFd, Failure)> {
        let mut born = None;
        match Self::build(layout, &control, dir, &mut born) {
            Ok(mut monitor) => {
                let ready = Message::Ready {
                    pid: monitor.pid,
                    created_at_ms: monitor.created_at_ms,
                };
                drop(socket::send(control.as_fd(), &records::encode(&ready)));
                monitor.connections.push(Connection {
                    socket: control,
                    subscribed: true,
                });
                monitor.oom = monitor
                    .driver
                    .oom_watch(&monitor.plan.create.spec.linux.cgroups_path);
                Ok(monitor)
            }
            Err(failure) => {
                if let Some(pid) = born {
                    // It may have ended by itself; either way it is waited for.
                    drop(process::signal(pid, libc::SIGKILL));
                    drop(process::wait(pid, 0));
                }
                Err((control, failure))
            }
        }
    }

    fn build(
        layout: &Layout,
        control: &OwnedFd,
        dir: OwnedFd,
        born: &mut Option<i32>,
    ) -> Result<Self, Failure> {
        let setup = || -> io::Result<OwnedFd> {
            process::new_session()?;
            process::set_umask(0o022);
            process::set_name(c"shoal-mon")?;
            process::become_subreaper()?;
            for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGPIPE] {
                process::ignore_signal(signal);
            }
            process::block_only(&[libc::SIGCHLD])?;
            process::signal_fd(&[libc::SIGCHLD])
        };
        let children = doing("starting a monitor", setup())?;
        let bytes = doing(
            "reading the creation's journal",
            file::read_at(dir.as_fd(), records::CREATE_FILE),
        )?;
        let create: Create = serde_json::from_slice(&bytes).map_err(|error| {
            Failure::invalid("reading the creation's journal", error.to_string())
        })?;
        let plan = Plan::new(create)?;
        let driver = cgroup::driver(layout);
        root::prepare(&plan.create.rootfs)?;
        let log = match &plan.create.log {
            Some(log) => Some(doing(
                &format!("opening log {:?}", log.path),
                LogFile::open(log),
            )?),
            None => None,
        };
        let (channel, theirs) = doing("making init's channel", socket::pair())?;
        let (stdout, stdout_write) = doing("making stdout", output(log.is_some()))?;
        let (stderr, stderr_write) = doing("making stderr", output(log.is_some()))?;

        let resources = plan.create.spec.linux.resources.clone();
        let path = plan.create.spec.linux.cgroups_path.clone();
        let around = Surroundings {
            cgroups: driver.views(&resources),
            nodev: !driver.limits_devices(),
        };
        // Only v2 clones into its group and needs it first; with v1 groups are made while init mounts.
        let unified = layout.mode == shoal_runtime::cgroup::detect::Mode::V2;
        let target = if unified {
            driver.create(&path, &resources)?;
            driver.clone_target(&path)?
        } else {
            None
        };
        let side = doing(
            "cloning init",
            process::clone_into(plan.namespaces, target.as_ref().map(AsFd::as_fd)),
        )?;
        let pid = match side {
            process::Side::Parent(pid) => pid,
            process::Side::Child => {
                // Our copies of the monitor's ends; the lock on `dir` stays until this process is gone or has become the program.
                close(control);
                drop((channel, stdout, stderr, children, target, log));
                init::run(
                    &plan,
                    &around,
                    &Streams {
                        channel: theirs,
                        stdout: stdout_write,
                        stderr: stderr_write,
                    },
                )
            }
        };
        *born = Some(pid);
        drop((theirs, stdout_write, stderr_write));
        let pidfd = doing("pinning init", process::pidfd(pid))?;
        let limited = || -> Result<(), Failure> {
            if !unified {
                driver.create(&path, &resources)?;
            }
            driver.attach(&path, pid)?;
            match plan.create.spec.process.oom_score_adj {
                Some(score) => set_oom_score(pid, score),
                None => Ok(()),
            }
        };
        if let Err(failure) = limited() {
            // Init that has ended meanwhile cannot be attached: its own word tells why.
            return Err(early_failure(&channel).unwrap_or(failure));
        }
        // Init that has already failed has closed its end; its report is still to be read.
        drop(socket::send(channel.as_fd(), init::ATTACHED));
        wait_ready(&channel)?;
        let created_at_ms = process::now_ms();
        let listener = commit(&plan, &dir, pid, created_at_ms)?;
        let outputs = [(Stream::Stdout, stdout), (Stream::Stderr, stderr)]
            .into_iter()
            .filter_map(|(stream, pipe)| {
                Some(Output {
                    stream,
                    pipe: File::from(pipe?),
                    framer: Framer::default(),
                })
            })
            .collect();
        Ok(Self {
            plan,
            driver,
            dir,
            pid,
            pidfd,
            children,
            channel: Some(channel),
            listener,
            connections: Vec::new(),
            outputs,
            log,
            oom: None,
            status: Status::Created,
            created_at_ms,
            started_at_ms: None,
            starter: None,
            start_failure: None,
            buffer: vec![0; READ_BYTES],
        })
    }

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

    /// Reads what is there; false at the end of the stream.
    fn read_output(&mut self, index: usize) -> bool {
        let Self {
            outputs,
            log,
            buffer,
            ..
        } = self;
        let output = &mut outputs[index];
        for _ in 0..READS_IN_A_ROW {
            match output.pipe.read(buffer) {
                Ok(0) => return false,
                Ok(length) => {
                    let stream = output.stream;
                    output.framer.push(&buffer[..length], &mut |pieces| {
                        if let Some(log) = log {
                            log.write(stream, pieces, Timestamp::now());
                        }
                    });
                    if length < buffer.len() {
                        return true;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }

    fn end_output(&mut self, index: usize) {
        let mut output = self.outputs.remove(index);
        let log = &mut self.log;
        output.framer.finish(&mut |pieces| {
            if let Some(log) = log {
                log.write(output.stream, pieces, Timestamp::now());
            }
        });
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
        let path = &self.plan.create.spec.linux.cgroups_path;
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
        let id = &self.plan.create.container_id;
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
        doing(&task, socket::send(channel.as_fd(), init::START))?;
        self.starter = Some(doing(&task, self.connections[index].socket.try_clone())?);
        Ok(())
    }

    fn kill(&self, signal: i32, all: bool) -> Result<(), Failure> {
        // Killing init kills its whole pid namespace.
        if all && signal != libc::SIGKILL {
            cgroup::signal_all(
                self.driver.as_ref(),
                &self.plan.create.spec.linux.cgroups_path,
                signal,
            );
            return Ok(());
        }
        let task = format!(
            "signalling container {} with {}",
            self.plan.create.container_id,
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
                oom_killed: self
                    .driver
                    .oom_kills(&self.plan.create.spec.linux.cgroups_path)
                    > 0,
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
        // On a full disk the record lives in the core's memory alone: better than keeping the exit to ourselves.
        drop(written);
        if record.exit.oom_killed && self.oom.is_some() {
            self.tell(&Message::Oom);
        }
        self.tell(&Message::Exit { record });
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

    /// The last bytes: until every writer is gone, or 2 s when somebody outside the container holds the pipe.
    fn drain(&mut self) {
        let deadline = Instant::now() + Duration::from_millis(DRAIN_TIMEOUT_MS);
        while !self.outputs.is_empty() {
            let mut fds: Vec<libc::pollfd> = self
                .outputs
                .iter()
                .map(|output| libc::pollfd {
                    fd: output.pipe.as_raw_fd(),
                    events: libc::POLLIN,
                    revents: 0,
                })
                .collect();
            let left = deadline
                .saturating_duration_since(Instant::now())
                .as_millis();
            let happened = process::poll(&mut fds, i32::try_from(left).unwrap_or(0));
            if !matches!(happened, Ok(1..)) {
                break;
            }
            for index in (0..fds.len())
                .rev()
                .filter(|index| fds[*index].revents != 0)
            {
                if !self.read_output(index) {
                    self.end_output(index);
                }
            }
        }
        while !self.outputs.is_empty() {
            self.end_output(0);
        }
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

/// The two ends of an output stream; the reader is None when nobody wants the output.
fn output(wanted: bool) -> io::Result<(Option<OwnedFd>, OwnedFd)> {
    if !wanted {
        return Ok((None, devices::null(libc::O_WRONLY)?));
    }
    let (read, write) = file::pipe()?;
    file::set_nonblocking(read.as_fd())?;
    Ok((Some(read), write))
}

/// Closes a descriptor that another frame of this (cloned) process owns and will never use.
fn close(fd: &OwnedFd) {
    // SAFETY: the only caller is the child of a clone that never returns to the owner.
    unsafe { libc::close(fd.as_raw_fd()) };
}

/// A score below ours needs CAP_SYS_RESOURCE; where the machine forbids it, ours stays.
fn set_oom_score(pid: i32, score: i32) -> Result<(), Failure> {
    match std::fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string()) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        other => doing(&format!("setting oom_score_adj to {score}"), other),
    }
}

/// What init has said already, if that is a failure.
fn early_failure(channel: &OwnedFd) -> Option<Failure> {
    let mut fds = [libc::pollfd {
        fd: channel.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    }];
    if process::poll(&mut fds, 0).ok()? == 0 {
        return None;
    }
    wait_ready(channel).err()
}

fn wait_ready(channel: &OwnedFd) -> Result<(), Failure> {
    let task = "building the container";
    let mut fds = [libc::pollfd {
        fd: channel.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    }];
    if doing(task, process::poll(&mut fds, CREATE_TIMEOUT_MS))? == 0 {
        return Err(Failure::new(
            FailureCode::System,
            task,
            format!("it took longer than {CREATE_TIMEOUT_MS} ms; look at the mounts' sources"),
        ));
    }
    let mut buffer = [0u8; READ_BYTES];
    let length = doing(task, socket::receive(channel.as_fd(), &mut buffer))?;
    match serde_json::from_slice(&buffer[..length]) {
        Ok(Report::Ready) => Ok(()),
        Ok(Report::Failed { failure, .. }) => Err(failure),
        Err(_) => Err(Failure::new(
            FailureCode::System,
            task,
            "init ended without a word; was it killed for memory?",
        )),
    }
}

/// The point of no return: once the directory has its name, the container exists.
fn commit(plan: &Plan, dir: &OwnedFd, pid: i32, created_at_ms: u64) -> Result<OwnedFd, Failure> {
    let id = &plan.create.container_id;
    let task = format!("committing container {id}");
    let act = || -> io::Result<OwnedFd> {
        let state = State {
            container_id: id.clone(),
            pid,
            pid_start_time: proc::start_time(pid)?,
            monitor_pid: i32::try_from(std::process::id()).unwrap_or(0),
            boot_id: proc::boot_id()?,
            created_at_ms,
        };
        file::write_at(dir.as_fd(), records::STATE_FILE, &records::encode(&state))?;
        // ROOT is 0700; nobody else reaches the socket.
        let listener = socket::listen(
            dir.as_fd(),
            records::MONITOR_SOCKET,
            libc::SOCK_SEQPACKET,
            16,
        )?;
        let parent = file::open_at(dir.as_fd(), "..", libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
        file::rename_new(parent.as_fd(), &format!("{}{id}", records::CREATING), id)?;
        file::unlock(dir.as_fd())?;
        Ok(listener)
    };
    doing(&task, act())
}
