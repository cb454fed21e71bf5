//! Making a container: the reserved id, the journal, and as many attempts as dying helpers cost.

use super::{ANSWER_TIMEOUT_MS, Containers, Entry, Phase, hear};
use crate::monitor::is_checked;
use crate::planning::{self, Checked, Config};
use crate::pool::Sandbox;
use crate::records::{self, Message};
use crate::watcher::Token;
use crate::zygote::Task;
use shoal_protocol::calls::{Create, Health, HealthStatus, Rootfs, Status};
use shoal_protocol::packed::Packed;
use shoal_protocol::{Failure, FailureCode};
use shoal_runtime::caps::Masks;
use shoal_runtime::namespaces::Namespaces;
use shoal_runtime::own::Own;
use shoal_runtime::plan::RootSource;
use shoal_runtime::sys::{Kernel, affinity, file, mount, process, socket};
use shoal_runtime::{cgroup, root};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// How often a creation is begun again when zygote or monitor died under it.
const CREATE_ATTEMPTS_MAX: u32 = 3;

/// What the monitor has said of a container that is there, and the connection to it.
struct Ready {
    pid: i32,
    pid_start_time: u64,
    created_at_ms: u64,
    /// When it was to be started, and has been.
    started_at_ms: Option<u64>,
    control: OwnedFd,
    /// Closes when the program runs, where that is not told: `started_at_ms` is None then.
    exec: Option<OwnedFd>,
}

/// Why a creation did not come about.
enum Broken {
    /// Zygote or monitor was killed: nobody's fault, worth another try.
    Vanished,
    Failed(Failure),
}

/// What is to be made.
pub(super) struct Job<'a> {
    /// Without its configuration, which is given to a sandbox or read again from the journal.
    pub create: &'a Create,
    pub cgroup: &'a str,
    pub namespaces: &'a Namespaces,
    pub caps: Masks,
    /// The call as bytes.
    pub journal: &'a [u8],
    /// It is to be started too.
    pub start: bool,
}

/// A container that is there and whose monitor nobody listens to yet.
struct Made {
    token: Token,
    pid: i32,
    started_at_ms: Option<u64>,
    control: OwnedFd,
    /// As in `Ready`.
    exec: Option<OwnedFd>,
}

impl Containers {
    /// Makes a container up to the parked init; gives its pid.
    pub fn create(&self, call: &[u8]) -> Result<i32, Failure> {
        let checked = planning::read("create", call, &self.cgroup_parent, &self.usual)?;
        let id = checked.create.container_id.clone();
        let made = self.bring_about(checked, false)?;
        self.listen_to(&id, made.token, made.control)?;
        Ok(made.pid)
    }

    /// Makes a container and starts it; gives its pid and when it was started. When it cannot be started nothing of it is left, though
    /// its end may have been told.
    pub fn run(&self, call: &[u8]) -> Result<(i32, u64), Failure> {
        let checked = planning::read("run", call, &self.cgroup_parent, &self.usual)?;
        let id = checked.create.container_id.clone();
        let made = self.bring_about(checked, true)?;
        let runs = |exec| await_exec(exec, &made.control);
        let started = match made.started_at_ms {
            Some(at) => Ok(at),
            None if made.exec.as_ref().is_some_and(runs) => {
                let now = process::now_ms();
                self.note_start(&id, now);
                Ok(now)
            }
            None => self.await_start(&id, &made),
        };
        self.net().container_started(&id);
        let listening = self.listen_to(&id, made.token, made.control);
        match started.and_then(|at| listening.map(|()| at)) {
            Ok(started_at_ms) => Ok((made.pid, started_at_ms)),
            Err(failure) => {
                // The reason is what matters; a container that resists is listed, and can be deleted again.
                drop(self.delete(&id, true));
                Err(failure)
            }
        }
    }

    /// Hears what becomes of a start that the monitor was told with the creation.
    fn await_start(&self, id: &str, made: &Made) -> Result<u64, Failure> {
        loop {
            match hear(&made.control) {
                Ok(Message::Started { started_at_ms }) => {
                    self.note_start(id, started_at_ms);
                    return Ok(started_at_ms);
                }
                Ok(Message::Failed { failure }) => return Err(failure),
                // It comes before the reason of a failure. Without one the program has come and gone.
                Ok(Message::Exit { record, .. }) => {
                    let started = record.started_at_ms;
                    self.exited(id, made.token, record);
                    if let Some(at) = started {
                        return Ok(at);
                    }
                }
                Ok(_) => {}
                Err(_) => {
                    return Err(Failure::new(
                        FailureCode::System,
                        format!("starting container {id}"),
                        "its monitor was killed",
                    ));
                }
            }
        }
    }

    fn note_start(&self, id: &str, started_at_ms: u64) {
        if let Some(entry) = self.lock().get_mut(id) {
            (entry.status, entry.started_at_ms) = (Status::Running, Some(started_at_ms));
        }
    }

    fn listen_to(&self, id: &str, token: Token, control: OwnedFd) -> Result<(), Failure> {
        self.watcher
            .add(token, control)
            .map_err(|error| Failure::io(format!("watching container {id}"), &error))
    }

    /// Makes a container and notes it; its monitor has been told to start it, or not.
    fn bring_about(&self, checked: Checked<'_>, start: bool) -> Result<Made, Failure> {
        let create = &checked.create;
        let job = Job {
            create,
            cgroup: &checked.cgroup,
            namespaces: &checked.namespaces,
            caps: checked.caps,
            journal: &checked.journal,
            start,
        };
        let mut config = Some(checked.config);
        let id = create.container_id.clone();
        self.reserve(&id, create, job.cgroup)?;
        let mut attempt = 1;
        let made = loop {
            match self.make(&job, config.take()) {
                Err(Broken::Vanished) if attempt < CREATE_ATTEMPTS_MAX => attempt += 1,
                Err(Broken::Vanished) => {
                    break Err(Failure::new(
                        FailureCode::System,
                        format!("creating container {id}"),
                        format!("its monitor was killed {attempt} times"),
                    ));
                }
                Err(Broken::Failed(failure)) => break Err(failure),
                Ok(made) => break Ok(made),
            }
        };
        let mut table = self.lock();
        match made {
            Ok(ready) => {
                let token = self.watcher.token();
                let entry = table.get_mut(&id).expect("reserved above");
                (entry.phase, entry.token) = (Phase::Here, token);
                (entry.pid, entry.pid_start_time) = (ready.pid, ready.pid_start_time);
                entry.created_at_ms = ready.created_at_ms;
                if let Some(at) = ready.started_at_ms {
                    (entry.status, entry.started_at_ms) = (Status::Running, Some(at));
                }
                Ok(Made {
                    token,
                    pid: ready.pid,
                    started_at_ms: ready.started_at_ms,
                    control: ready.control,
                    exec: ready.exec,
                })
            }
            Err(failure) => {
                table.remove(&id);
                Err(failure)
            }
        }
    }

    fn reserve(&self, id: &str, create: &Create, cgroup: &str) -> Result<(), Failure> {
        let doing = format!("creating container {id}");
        let mut table = self.lock();
        if table.contains_key(id) {
            return Err(Failure::new(
                FailureCode::AlreadyExists,
                doing,
                "the id is taken until that container is deleted",
            ));
        }
        let directory = PathBuf::from(&create.rootfs.directory);
        let cgroup = cgroup.to_owned();
        if let Some((other, _)) = table
            .iter()
            .find(|(_, entry)| entry.directory == directory || entry.cgroup == cgroup)
        {
            return Err(Failure::new(
                FailureCode::Conflict,
                doing,
                format!(
                    "rootfs.directory or linux.cgroupsPath is already used by container {other}; give each its own"
                ),
            ));
        }
        let entry = Entry {
            phase: Phase::Creating,
            token: 0,
            status: Status::Created,
            pid: 0,
            pid_start_time: 0,
            created_at_ms: 0,
            started_at_ms: None,
            exit: None,
            health: is_checked(create.health.as_ref())?.then(|| Health {
                status: HealthStatus::Starting,
                failing_streak: 0,
                results: Vec::new(),
            }),
            cgroup,
            directory,
        };
        table.insert(id.to_owned(), entry);
        Ok(())
    }

    /// One attempt. Without `config` it is made cold: whatever killed the first may have killed all that was parked.
    fn make(&self, job: &Job<'_>, config: Option<Config>) -> Result<Ready, Broken> {
        let Job { create, start, .. } = *job;
        let id = &create.container_id;
        let doing = |error: std::io::Error| {
            Broken::Failed(Failure::io(format!("creating container {id}"), &error))
        };
        self.clear_stale_root(Path::new(&create.rootfs.directory))
            .map_err(doing)?;
        let path = self.store.creating(id);
        let outcome = match config.and_then(|config| self.unpark(job, config)) {
            Some((sandbox, own)) => go_on(sandbox, &own, start),
            None => self.attempt(job),
        };
        match outcome {
            Ok(made) => Ok(made),
            // The reason is told even when cleaning up fails: what stays is rolled back by the next attempt or start.
            Err(Broken::Failed(failure)) => {
                drop(self.store.roll_back(self.driver.as_ref(), &path));
                Err(Broken::Failed(failure))
            }
            Err(Broken::Vanished) => {
                self.store
                    .roll_back(self.driver.as_ref(), &path)
                    .map_err(Broken::Failed)?;
                // It died after committing: the container is there, and dead.
                if self.store.container(id).exists() {
                    self.bury(job).map_err(Broken::Failed)?;
                    if start {
                        // The program may have run: once is enough.
                        return Err(Broken::Failed(Failure::new(
                            FailureCode::System,
                            format!("starting container {id}"),
                            "its monitor was killed",
                        )));
                    }
                }
                Err(Broken::Vanished)
            }
        }
    }

    fn attempt(&self, job: &Job<'_>) -> Result<Ready, Broken> {
        let Job { create, start, .. } = *job;
        let id = &create.container_id;
        let doing = |error: std::io::Error| {
            Broken::Failed(Failure::io(format!("creating container {id}"), &error))
        };
        let dir = self
            .store
            .begin(self.driver.as_ref(), create, job.journal)
            .map_err(Broken::Failed)?;
        let (control, theirs) = socket::pair().map_err(doing)?;
        let kinds = job.namespaces;
        // What a user namespace is to own can only be made in it.
        let ours = !kinds.has(libc::CLONE_NEWUSER);
        let task = Task::Create {
            start,
            network: ours && kinds.makes(libc::CLONE_NEWNET),
        };
        self.zygote
            .monitor(task, theirs.as_fd(), dir.as_fd())
            .map_err(Broken::Failed)?;
        // From here the monitor alone holds the lock and the other end.
        drop((theirs, dir));
        let wanted = ours && kinds.makes(libc::CLONE_NEWNS);
        // A monitor that has failed already has said why, which is read right below.
        drop(give_root(
            control.as_fd(),
            &create.rootfs,
            wanted,
            !self.driver.limits_devices(),
        ));
        outcome(control)
    }

    /// A directory that no container here uses can only be from before the core's own directory was lost (a reboot).
    fn clear_stale_root(&self, directory: &Path) -> std::io::Result<()> {
        if directory.join(shoal_runtime::root::UPPER).exists() {
            crate::reaper::remove(directory)?;
        }
        Ok(())
    }

    fn bury(&self, job: &Job<'_>) -> Result<(), Failure> {
        let create = job.create;
        cgroup::destroy(self.driver.as_ref(), job.cgroup)?;
        let directory = Path::new(&create.rootfs.directory);
        let left = self.store.retire(&create.container_id, directory)?;
        self.reaper.remove(left);
        Ok(())
    }
}

/// Has a sandbox become the container whose journal is in its directory.
fn go_on(sandbox: Sandbox, own: &Own, start: bool) -> Result<Ready, Broken> {
    let word = if start {
        records::USE_AND_START
    } else {
        records::USE
    };
    let mut message = vec![word];
    own.write(&mut message);
    let control = sandbox.control.as_fd();
    let mut exec = None;
    let mut used = || -> io::Result<()> {
        let mut theirs = None;
        if start {
            let (ours, end) = file::pipe()?;
            (exec, theirs) = (Some(ours), Some(end));
        }
        let fds: Vec<_> = theirs.iter().map(AsFd::as_fd).collect();
        // This thread is about to wait; the two have as much to do as each other.
        let [monitor, init] = sandbox.pids;
        affinity::beside(monitor);
        affinity::elsewhere(init);
        socket::send_with_fds(control, &message, &fds)?;
        if sandbox.warm.is_some() {
            return Ok(());
        }
        // The root is made here, as the monitor has as much to do meanwhile.
        give_root(control, &own.inner.rootfs, true, sandbox.nodev)
    };
    if used().is_err() {
        return Err(Broken::Vanished);
    }
    let ready = outcome(sandbox.control)?;
    Ok(Ready { exec, ..ready })
}

/// Waits until init, which has been told to start, runs the program: that closes its end of `exec`. False when it says that it cannot, or
/// when its monitor has ended: with a monitor that was killed init ends too, maybe without having run anything.
fn await_exec(exec: &OwnedFd, monitor: &OwnedFd) -> bool {
    let watch = |fd: &OwnedFd, events| libc::pollfd {
        fd: fd.as_raw_fd(),
        events,
        revents: 0,
    };
    // What the monitor says meanwhile is no reason to wake up.
    let mut fds = [watch(exec, libc::POLLIN), watch(monitor, 0)];
    let timeout_ms = i32::try_from(ANSWER_TIMEOUT_MS).unwrap_or(i32::MAX);
    let woken = process::poll(&mut fds, timeout_ms);
    woken.is_ok() && fds[0].revents == libc::POLLHUP && !has_ended(monitor)
}

/// Whether the monitor at the other end has.
fn has_ended(monitor: &OwnedFd) -> bool {
    let mut fds = [libc::pollfd {
        fd: monitor.as_raw_fd(),
        events: 0,
        revents: 0,
    }];
    !process::poll(&mut fds, 0).is_ok_and(|ended| ended == 0)
}

/// Makes the root of a container, if it is `wanted`, and gives it to the monitor. One who gets none makes it itself, or finds out why nobody can.
fn give_root(
    control: BorrowedFd<'_>,
    rootfs: &Rootfs,
    wanted: bool,
    nodev: bool,
) -> std::io::Result<()> {
    let make = || {
        root::prepare(rootfs).and_then(|()| {
            let nodev = if nodev { mount::ATTR_NODEV } else { 0 };
            let source = RootSource::Overlay(rootfs.clone());
            root::detached(&Kernel, &source, nodev)
        })
    };
    let root = wanted.then(make).and_then(Result::ok);
    let fds: Vec<_> = root.iter().map(AsFd::as_fd).collect();
    socket::send_with_fds(control, records::ROOT, &fds)
}

/// The monitor's word on the creation.
fn outcome(control: OwnedFd) -> Result<Ready, Broken> {
    match hear(&control) {
        Ok(Message::Ready {
            pid,
            pid_start_time,
            created_at_ms,
        }) => Ok(Ready {
            pid,
            pid_start_time,
            created_at_ms,
            started_at_ms: None,
            control,
            exec: None,
        }),
        Ok(Message::Running {
            pid,
            pid_start_time,
            created_at_ms,
            started_at_ms,
        }) => Ok(Ready {
            pid,
            pid_start_time,
            created_at_ms,
            started_at_ms: Some(started_at_ms),
            control,
            exec: None,
        }),
        Ok(Message::Failed { failure }) => Err(Broken::Failed(failure)),
        Ok(_) | Err(_) => Err(Broken::Vanished),
    }
}
