//! Making a container: the reserved id, the journal, and as many attempts as dying helpers cost.

use super::{Containers, Entry, Phase, hear};
use crate::monitor::is_checked;
use crate::pool::Sandbox;
use crate::records::{self, Message};
use crate::zygote::Task;
use shoal_protocol::calls::{Create, Health, HealthStatus, Status};
use shoal_protocol::{Failure, FailureCode};
use shoal_runtime::cgroup;
use shoal_runtime::proc;
use shoal_runtime::sys::socket;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// How often a creation is begun again when zygote or monitor died under it.
const CREATE_ATTEMPTS_MAX: u32 = 3;

/// Why a creation did not come about.
enum Broken {
    /// Zygote or monitor was killed: nobody's fault, worth another try.
    Vanished,
    Failed(Failure),
}

impl Containers {
    /// Makes a container up to the parked init; gives its pid.
    pub fn create(&self, mut create: Create) -> Result<i32, Failure> {
        if create.spec.linux.cgroups_path.is_empty() {
            create.spec.linux.cgroups_path =
                format!("{}/{}", self.cgroup_parent, create.container_id);
        }
        crate::planning::plan(&create)?;
        let id = create.container_id.clone();
        self.reserve(&id, &create)?;
        let _busy = self.pool.busy();
        let mut attempt = 1;
        let made = loop {
            match self.make(&create, attempt == 1) {
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
            Ok((pid, created_at_ms, control)) => {
                let token = self.watcher.token();
                let entry = table.get_mut(&id).expect("reserved above");
                (entry.phase, entry.token, entry.pid, entry.created_at_ms) =
                    (Phase::Here, token, pid, created_at_ms);
                entry.pid_start_time = proc::start_time(pid).unwrap_or(0);
                drop(table);
                self.watcher
                    .add(token, control)
                    .map_err(|error| Failure::io(format!("watching container {id}"), &error))?;
                Ok(pid)
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

    fn make(&self, create: &Create, from_pool: bool) -> Result<(i32, u64, OwnedFd), Broken> {
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
            Some(sandbox) => go_on(sandbox),
            None => self.attempt(create),
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
                }
                Err(Broken::Vanished)
            }
        }
    }

    fn attempt(&self, create: &Create) -> Result<(i32, u64, OwnedFd), Broken> {
        let id = &create.container_id;
        let doing = |error: std::io::Error| {
            Broken::Failed(Failure::io(format!("creating container {id}"), &error))
        };
        let dir = self
            .store
            .begin(self.driver.as_ref(), create)
            .map_err(Broken::Failed)?;
        let (control, theirs) = socket::pair().map_err(doing)?;
        self.zygote
            .monitor(Task::Create, theirs.as_fd(), dir.as_fd())
            .map_err(Broken::Failed)?;
        // From here the monitor alone holds the lock and the other end.
        drop((theirs, dir));
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
fn go_on(sandbox: Sandbox) -> Result<(i32, u64, OwnedFd), Broken> {
    match socket::send(sandbox.control.as_fd(), records::USE) {
        Ok(()) => outcome(sandbox.control),
        Err(_) => Err(Broken::Vanished),
    }
}

/// The monitor's word on the creation.
fn outcome(control: OwnedFd) -> Result<(i32, u64, OwnedFd), Broken> {
    match hear(&control) {
        Ok(Message::Ready { pid, created_at_ms }) => Ok((pid, created_at_ms, control)),
        Ok(Message::Failed { failure }) => Err(Broken::Failed(failure)),
        Ok(_) | Err(_) => Err(Broken::Vanished),
    }
}
