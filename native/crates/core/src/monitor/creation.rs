//! From a journal to a parked init: the steps by which a monitor makes its container, up to the commit.

use super::execs::{self, Execs, Ours};
use super::health::Health;
use super::streams::{Sink, Streams};
use super::{Connection, Container, Monitor, READ_BYTES, doing};
use crate::logs::sink::LogSink;
use crate::planning;
use crate::records::{self, Message, State};
use crate::seccomp;
use shoal_protocol::Failure;
use shoal_protocol::calls::{Create, Status, Stdin};
use shoal_protocol::oci::Spec;
use shoal_runtime::Filter;
use shoal_runtime::caps::Masks;
use shoal_runtime::cgroup::{self, Driver, OomWatch, detect::Layout};
use shoal_runtime::channel;
use shoal_runtime::launch::{self, Options, Park, Parked};
use shoal_runtime::own::{Inner, Own};
use shoal_runtime::plan::Plan;
use shoal_runtime::streams::Stdio;
use shoal_runtime::sys::memory::Pages;
use shoal_runtime::sys::{file, process, region, socket};
use shoal_runtime::{join, proc, root, sandbox};
use std::borrow::Cow;
use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// What a monitor has before it has a container.
pub(super) struct Workshop {
    pub(super) driver: Box<dyn Driver>,
    /// The locked directory of the creation.
    pub(super) dir: OwnedFd,
    children: OwnedFd,
}

/// A container to be made, as its journal has it.
pub(super) struct Journal {
    /// Without its configuration, which is the plan's.
    pub(super) create: Create,
    pub(super) plan: Plan,
    pub(super) seccomp: Option<Cow<'static, Filter>>,
    health: Option<Health>,
}

/// The monitor's side of a program's streams, before the program is there.
pub(super) struct Pipes {
    /// The end of the first client's input is the program's.
    once: bool,
    ours: Ours,
}

/// What others make of a container while its monitor reads what it is to be.
#[derive(Default)]
pub(super) struct Given<'a> {
    /// Through this the zygote gives its network namespace.
    pub(super) network: Option<OwnedFd>,
    /// Through this the core gives its root.
    pub(super) control: Option<&'a OwnedFd>,
}

/// The root that the core has made for the container. None when it could not, or is gone: then nobody makes one meanwhile.
pub(super) fn receive_root(control: &OwnedFd) -> Option<OwnedFd> {
    socket::receive_fd(control.as_fd())
}

/// Opens the container's log. On a disk that has removed many files of late this takes as long as half of init's mounts.
pub(super) fn open_sink(create: &Create) -> Result<Sink, Failure> {
    let Some(log) = &create.log else {
        return Ok(Sink::Nowhere);
    };
    let opened = region::outside(|| LogSink::open(log).map(Box::new));
    doing(&format!("opening log {:?}", log.path), opened).map(Sink::Log)
}

impl Workshop {
    /// Makes this process a monitor.
    pub(super) fn open(layout: &Layout, dir: OwnedFd) -> Result<Self, Failure> {
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
        Ok(Self {
            driver: region::outside(|| cgroup::driver(layout)),
            dir,
            children,
        })
    }

    /// Makes the container from nothing, commits it, and starts its program if that is wanted.
    pub(super) fn build(self, given: Given<'_>, start: bool) -> Result<Monitor, Failure> {
        let journal = Journal::parse(&self.read(records::CREATE_FILE)?)?;
        let (pipes, stdio) = Pipes::open(&journal)?;
        // In any case, so that nobody else works on the root afterwards.
        let root = given.control.and_then(receive_root);
        if root.is_none() {
            // Where the core could make none this tells why.
            root::withdraw(&journal.create.rootfs)?;
            root::prepare(&journal.create.rootfs)?;
        }
        let prepared = Cell::new(None);
        let options = Options {
            driver: self.driver.as_ref(),
            stdio,
            preserve_fds: 0,
            park: if start { Park::AtOnce } else { Park::Channel },
            state: None,
            seccomp: journal.seccomp.as_deref(),
            // The lock on `dir` stays until this process is gone or has become the program.
            held: &[self.dir.as_fd()],
            no_pivot: false,
            no_new_keyring: false,
            meanwhile: &|pid| {
                let sink = open_sink(&journal.create)?;
                let place = Place::prepare(&self.dir, pid)?;
                let commit = place.commit(&self.dir, &journal.plan, pid)?;
                prepared.set(Some((sink, commit)));
                Ok(())
            },
            root,
            network: given.network,
        };
        let parked = launch::create(&journal.plan, &options)?;
        drop(options);
        let (sink, commit) = prepared
            .take()
            .expect("a creation that succeeds has prepared its commit");
        let streams = pipes.take(sink).inspect_err(|_| end(&parked))?;
        let committed = commit.finish(&self.dir).inspect_err(|_| end(&parked))?;
        let kept = (new_buffer()?, None);
        self.monitor(journal, parked, streams, committed, kept, start)
    }

    /// A record in the directory.
    pub(super) fn read(&self, name: &str) -> Result<Vec<u8>, Failure> {
        doing(
            &format!("reading {name} of the creation"),
            file::read_at(self.dir.as_fd(), name),
        )
    }

    /// The monitor of a container that has been committed, whose program starts now if that is wanted. Nothing of it lies in the region, where
    /// plan and journal end here.
    pub(super) fn monitor(
        self,
        journal: Journal,
        parked: Parked,
        streams: Streams,
        committed: Committed,
        (buffer, oom): (Pages, Option<OomWatch>),
        start: bool,
    ) -> Result<Monitor, Failure> {
        // First of all, as somebody waits for the program; what is left to be done here is done while init becomes it.
        if start && let Some(channel) = &parked.channel {
            // Init that has ended is found so, and told as the failure of the start.
            drop(socket::send(channel.as_fd(), channel::START));
        }
        let Journal { plan, .. } = journal;
        let container = region::outside(|| Container {
            id: plan.container_id.clone(),
            cgroup: plan.cgroup.clone(),
            spec: join::remembered(&plan.spec),
        });
        Ok(Monitor {
            container,
            driver: self.driver,
            dir: self.dir,
            pid: parked.pid,
            pidfd: parked.pidfd,
            children: self.children,
            channel: parked.channel,
            listener: committed.listener,
            connections: Vec::new(),
            streams,
            execs: Execs::default(),
            health: journal.health,
            seccomp: journal.seccomp,
            oom,
            status: Status::Created,
            pid_start_time: committed.pid_start_time,
            created_at_ms: committed.created_at_ms,
            started_at_ms: None,
            starter: None,
            start_failure: None,
            buffer,
            at_rest: false,
        })
    }
}

/// Where output is read into.
pub(super) fn new_buffer() -> Result<Pages, Failure> {
    doing("taking memory for a buffer", Pages::new(READ_BYTES))
}

impl Journal {
    /// Reads create.json.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Failure> {
        let create: Create = serde_json::from_slice(bytes).map_err(|error| {
            Failure::invalid("reading the creation's journal", error.to_string())
        })?;
        Self::of(create, None)
    }

    /// Reads what a sandbox of this template is told of its container.
    pub(super) fn parse_own(bytes: &[u8], template: &Spec) -> Result<Self, Failure> {
        let own = Own::read(bytes)?;
        let Inner {
            container_id,
            spec,
            rootfs,
            caps,
        } = own.inner;
        let create = Create {
            container_id,
            spec: sandbox::complete(spec, template),
            rootfs,
            log: own.log,
            stdin: own.stdin,
            // Containers with a terminal are made cold.
            console_size: None,
            seccomp: own.seccomp,
            health: own.health,
        };
        Self::of(create, caps)
    }

    fn of(mut create: Create, caps: Option<Masks>) -> Result<Self, Failure> {
        let mut plan = planning::plan(&mut create)?;
        if let Some(caps) = caps {
            plan.caps = caps;
        }
        let health = match &create.health {
            Some(check) => region::outside(|| Health::new(check, &plan.spec.process))?,
            None => None,
        };
        let filter = seccomp::filter(&create, &plan)?;
        Ok(Self {
            seccomp: region::outside(|| filter.clone()),
            create,
            plan,
            health,
        })
    }
}

impl Pipes {
    /// Opens the pipes, or the way to the terminal, whose other ends are for the program.
    pub(super) fn open(journal: &Journal) -> Result<(Self, Stdio), Failure> {
        let Journal { create, plan, .. } = journal;
        let stdin = create.stdin != Stdin::Closed;
        let made = execs::make_streams(plan.spec.process.terminal, stdin);
        let (stdio, ours) = doing("making the standard streams", made)?;
        let once = create.stdin == Stdin::Once;
        Ok((Self { once, ours }, stdio))
    }

    /// The streams of a program that has been made.
    pub(super) fn take(self, sink: Sink) -> Result<Streams, Failure> {
        let mut streams = Streams::new(self.once, sink);
        let opened = self.ours.take();
        let opened = region::outside(|| opened.and_then(|ends| streams.open(ends)));
        doing("taking the standard streams over", opened)?;
        Ok(streams)
    }
}

/// Ends an init that will not become a container; it may have ended by itself, and either way is waited for.
pub(super) fn end(parked: &Parked) {
    drop(process::signal(parked.pid, libc::SIGKILL));
    drop(process::wait(parked.pid, 0));
}

impl Monitor {
    /// What the core is told when the container is there.
    pub(super) fn ready(&self) -> Message {
        Message::Ready {
            pid: self.pid,
            pid_start_time: self.pid_start_time,
            created_at_ms: self.created_at_ms,
        }
    }

    /// Keeps the connection to the core, and tells it that the container is there if it is to know now.
    pub(super) fn announce(&mut self, control: OwnedFd, now: bool) {
        if now {
            drop(socket::send(
                control.as_fd(),
                &records::encode(&self.ready()),
            ));
        }
        self.connections.push(Connection {
            socket: control,
            subscribed: true,
            closed: false,
        });
        if self.oom.is_none() {
            self.oom = self.driver.oom_watch(&self.container.cgroup);
        }
    }
}

/// What a container's records need that does not depend on which container it is.
pub(super) struct Place {
    listener: OwnedFd,
    pid_start_time: u64,
}

/// Everything of a container's records but their final name.
pub(super) struct Commit {
    id: String,
    committed: Committed,
}

/// What is known of a container once it is there.
pub(super) struct Committed {
    listener: OwnedFd,
    pid_start_time: u64,
    created_at_ms: u64,
}

impl Place {
    /// Takes what the end of the container of this init will need, and the place where its monitor listens.
    pub(super) fn prepare(dir: &OwnedFd, pid: i32) -> Result<Self, Failure> {
        let act = || -> io::Result<Self> {
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
            Ok(Self {
                listener,
                pid_start_time: proc::start_time(pid)?,
            })
        };
        doing("preparing the records of a container", act())
    }

    /// Writes the records of the container.
    pub(super) fn commit(self, dir: &OwnedFd, plan: &Plan, pid: i32) -> Result<Commit, Failure> {
        let Self {
            listener,
            pid_start_time,
        } = self;
        let id = plan.container_id.clone();
        let created_at_ms = process::now_ms();
        let act = || -> io::Result<()> {
            let state = State {
                container_id: id.clone(),
                pid,
                pid_start_time,
                monitor_pid: i32::try_from(std::process::id()).unwrap_or(0),
                boot_id: proc::boot_id()?.to_owned(),
                created_at_ms,
            };
            file::write_at(dir.as_fd(), records::STATE_FILE, &records::encode(&state))
        };
        doing(&format!("committing container {id}"), act())?;
        Ok(Commit {
            id,
            committed: Committed {
                listener,
                pid_start_time,
                created_at_ms,
            },
        })
    }
}

impl Committed {
    /// What the core is told when the container of this init is there.
    pub(super) fn ready(&self, pid: i32) -> Message {
        Message::Ready {
            pid,
            pid_start_time: self.pid_start_time,
            created_at_ms: self.created_at_ms,
        }
    }
}

impl Commit {
    /// The point of no return: once the directory has its name, the container exists.
    pub(super) fn finish(self, dir: &OwnedFd) -> Result<Committed, Failure> {
        let id = &self.id;
        let act = || -> io::Result<()> {
            let parent = file::open_at(dir.as_fd(), "..", libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
            file::rename_new(parent.as_fd(), &format!("{}{id}", records::CREATING), id)?;
            file::unlock(dir.as_fd())
        };
        doing(&format!("committing container {id}"), act())?;
        Ok(self.committed)
    }
}
