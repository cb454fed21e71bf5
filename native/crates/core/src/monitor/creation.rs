//! From a journal to a parked init: the steps by which a monitor makes its container, up to the commit.

use super::output::{self, Output};
use super::{Connection, Monitor, READ_BYTES, doing};
use crate::logs::file::LogFile;
use crate::logs::framer::Framer;
use crate::logs::record::Stream;
use crate::planning;
use crate::records::{self, Message, State};
use shoal_protocol::Failure;
use shoal_protocol::calls::{Create, Status};
use shoal_runtime::cgroup::{self, detect::Layout};
use shoal_runtime::launch::{self, Options, Park};
use shoal_runtime::plan::Plan;
use shoal_runtime::streams::{Stdio, Streams};
use shoal_runtime::sys::{file, process, socket};
use shoal_runtime::{proc, root};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

impl Monitor {
    pub(super) fn create(
        layout: &Layout,
        control: OwnedFd,
        dir: OwnedFd,
    ) -> Result<Self, (OwnedFd, Failure)> {
        match Self::build(layout, dir) {
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
                monitor.oom = monitor.driver.oom_watch(&monitor.plan.cgroup);
                Ok(monitor)
            }
            Err(failure) => Err((control, failure)),
        }
    }

    fn build(layout: &Layout, dir: OwnedFd) -> Result<Self, Failure> {
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
        let plan = planning::plan(&create)?;
        let driver = cgroup::driver(layout);
        root::prepare(&create.rootfs)?;
        let log = match &create.log {
            Some(log) => Some(doing(
                &format!("opening log {:?}", log.path),
                LogFile::open(log),
            )?),
            None => None,
        };
        let (stdout, stdout_write) = doing("making stdout", output::ends(log.is_some()))?;
        let (stderr, stderr_write) = doing("making stderr", output::ends(log.is_some()))?;
        let options = Options {
            driver: driver.as_ref(),
            stdio: Stdio::Fds(Streams {
                stdin: None,
                stdout: stdout_write,
                stderr: stderr_write,
            }),
            preserve_fds: 0,
            park: Park::Channel,
            state: None,
            seccomp: None,
            // The lock on `dir` stays until this process is gone or has become the program.
            held: &[dir.as_fd()],
            no_pivot: false,
            no_new_keyring: false,
        };
        let parked = launch::create(&plan, &options)?;
        drop(options);
        let created_at_ms = process::now_ms();
        let committed = commit(&plan, &dir, parked.pid, created_at_ms);
        let listener = committed.inspect_err(|_| {
            // It may have ended by itself; either way it is waited for.
            drop(process::signal(parked.pid, libc::SIGKILL));
            drop(process::wait(parked.pid, 0));
        })?;
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
            pid: parked.pid,
            pidfd: parked.pidfd,
            children,
            channel: parked.channel,
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

/// The point of no return: once the directory has its name, the container exists.
fn commit(plan: &Plan, dir: &OwnedFd, pid: i32, created_at_ms: u64) -> Result<OwnedFd, Failure> {
    let id = &plan.container_id;
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
