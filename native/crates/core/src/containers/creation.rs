//! Making a container: the reserved id, the journal, and as many attempts as dying helpers cost.

use super::{Containers, Entry, Phase, hear};
use crate::monitor::is_checked;
use crate::pool::Sandbox;
use crate::records::{self, Message};
use crate::watcher::Token;
use crate::zygote::Task;
use shoal_protocol::calls::{Create, Health, HealthStatus, Status};
use shoal_protocol::{Failure, FailureCode};
use shoal_runtime::namespaces::Namespaces;
use shoal_runtime::plan::RootSource;
use shoal_runtime::sys::{Kernel, mount, socket};
use shoal_runtime::{cgroup, root};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// How often a creation is begun again when zygote or monitor died under it.
const CREATE_ATTEMPTS_MAX: u32 = 3;

/// What the monitor has said of a container that is there, and the connection to it.
struct Ready {
    pid: i32,
    pid_start_time: u64,
    created_at_ms: u64,
    control: OwnedFd,
}

/// Why a creation did not come about.
enum Broken {
    /// Zygote or monitor was killed: nobody's fault, worth another try.
    Vanished,
    Failed(Failure),
}

/// A container that is there and whose monitor nobody listens to yet.
struct Made {
    token: Token,
    pid: i32,
    control: OwnedFd,
}

impl Containers {
    /// Makes a container up to the parked init; gives its pid.
    pub fn create(&self, create: Create) -> Result<i32, Failure> {
        let id = create.container_id.clone();
        let made = self.bring_about(create, false)?;
        self.listen_to(&id, made.token, made.control)?;
        Ok(made.pid)
    }

    /// Makes a container and starts it; gives its pid and when it was started. When it cannot be started nothing of it is left, though
    /// its end may have been told.
    pub fn run(&self, create: Create) -> Result<(i32, u64), Failure> {
        let id = create.container_id.clone();
        let made = self.bring_about(create, true)?;
        let started = self.await_start(&id, &made);
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
                    let mut table = self.lock();
                    if let Some(entry) = table.get_mut(id) {
                        (entry.status, entry.started_at_ms) =
                            (Status::Running, Some(started_at_ms));
                    }
                    return Ok(started_at_ms);
                }
                Ok(Message::Failed { failure }) => return Err(failure),
                // It comes before the reason.
                Ok(Message::Exit { record, .. }) => self.exited(id, made.token, record),
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

    fn listen_to(&self, id: &str, token: Token, control: OwnedFd) -> Result<(), Failure> {
        self.watcher
            .add(token, control)
            .map_err(|error| Failure::io(format!("watching container {id}"), &error))
    }

    /// Makes a container and notes it; its monitor has been told to start it, or not.
    fn bring_about(&self, mut create: Create, start: bool) -> Result<Made, Failure> {
        if create.spec.linux.cgroups_path.is_empty() {
            create.spec.linux.cgroups_path =
                format!("{}/{}", self.cgroup_parent, create.container_id);
        }
        crate::planning::plan(&create)?;
        let id = create.container_id.clone();
        self.reserve(&id, &create)?;
        let mut attempt = 1;
        let made = loop {
            match self.make(&create, attempt == 1, start) {
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
                Ok(Made {
                    token,
                    pid: ready.pid,
                    control: ready.control,
                })
            }
            Err(failure) => {
                table.remove(&id);
                Err(failure)
            }
        }
    }

    fn reserve(&self, id: &str, create: &Create) -> Result<(), Failure> {
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
        let cgroup = create.spec.linux.cgroups_path.clone();
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

    fn make(&self, create: &Create, from_pool: bool, start: bool) -> Result<Ready, Broken> {
        let id = &create.container_id;
        let doing = |error: std::io::Error| {
            Broken::Failed(Failure::io(format!("creating container {id}"), &error))
        };
        self.clear_stale_root(Path::new(&create.rootfs.directory))
            .map_err(doing)?;
        let path = self.store.creating(id);
        // A second attempt is cold: whatever killed the first may have killed all that was parked.
        let parked = if from_pool { self.unpark(create) } else { None };
        let outcome = match parked {
            Some(sandbox) => go_on(sandbox, create, start),
            None => self.attempt(create, start),
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
                    self.bury(id, create).map_err(Broken::Failed)?;
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

    fn attempt(&self, create: &Create, start: bool) -> Result<Ready, Broken> {
        let id = &create.container_id;
        let doing = |error: std::io::Error| {
            Broken::Failed(Failure::io(format!("creating container {id}"), &error))
        };
        let dir = self
            .store
            .begin(self.driver.as_ref(), create)
            .map_err(Broken::Failed)?;
        let (control, theirs) = socket::pair().map_err(doing)?;
        let kinds = Namespaces::read(&create.spec.linux.namespaces).map_err(Broken::Failed)?;
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
            create,
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

    fn bury(&self, id: &str, create: &Create) -> Result<(), Failure> {
        cgroup::destroy(self.driver.as_ref(), &create.spec.linux.cgroups_path)?;
        let left = self.store.retire(id, Path::new(&create.rootfs.directory))?;
        self.reaper.remove(left);
        Ok(())
    }
}

/// Has a sandbox become the container whose journal is in its directory.
fn go_on(sandbox: Sandbox, create: &Create, start: bool) -> Result<Ready, Broken> {
    let word = if start {
        records::USE_AND_START
    } else {
        records::USE
    };
    let control = sandbox.control.as_fd();
    // The root is made here, as the monitor has as much to do meanwhile.
    let used =
        socket::send(control, word).and_then(|()| give_root(control, create, true, sandbox.nodev));
    match used {
        Ok(()) => outcome(sandbox.control),
        Err(_) => Err(Broken::Vanished),
    }
}

/// Makes the root of a container, if it is `wanted`, and gives it to the monitor. One who gets none makes it itself, or finds out why nobody can.
fn give_root(
    control: BorrowedFd<'_>,
    create: &Create,
    wanted: bool,
    nodev: bool,
) -> std::io::Result<()> {
    let make = || {
        root::prepare(&create.rootfs).and_then(|()| {
            let nodev = if nodev { mount::ATTR_NODEV } else { 0 };
            let source = RootSource::Overlay(create.rootfs.clone());
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
            control,
        }),
        Ok(Message::Failed { failure }) => Err(Broken::Failed(failure)),
        Ok(_) | Err(_) => Err(Broken::Vanished),
    }
}
