//! From a journal to a parked init: the steps by which a monitor makes its container, up to the commit.

use super::output::{self, Output};
use super::{Connection, Monitor, READ_BYTES, doing};
use crate::logfile::{Framer, LogFile, Stream};
use crate::records::{self, Message, State};
use shoal_protocol::calls::{Create, Status};
use shoal_protocol::{Failure, FailureCode};
use shoal_runtime::cgroup::{self, detect::Layout};
use shoal_runtime::init::{self, Report, Streams};
use shoal_runtime::mounts::Surroundings;
use shoal_runtime::plan::Plan;
use shoal_runtime::sys::{file, process, socket};
use shoal_runtime::{proc, root};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Longest that building a container's root may take.
const CREATE_TIMEOUT_MS: i32 = 30_000;

impl Monitor {
    pub(super) fn create(
        layout: &Layout,
        control: OwnedFd,
        dir: OwnedFd,
    ) -> Result<Self, (OwnedFd, Failure)> {
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
        let (stdout, stdout_write) = doing("making stdout", output::ends(log.is_some()))?;
        let (stderr, stderr_write) = doing("making stderr", output::ends(log.is_some()))?;

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
        // A disk that fills up later must not keep the exit from being written.
        file::reserve_durable_at(
            dir.as_fd(),
            records::EXIT_FILE,
            records::EXIT_RECORD_BYTES_MAX,
        )?;
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
