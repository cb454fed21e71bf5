//! What a core finds at its start: creations to roll back, deletions to finish, containers to adopt.

use super::{Containers, Entry, Phase, complain, hear};
use crate::records::{self, Command, Message};
use crate::store;
use shoal_protocol::calls::{Create, Status};
use shoal_protocol::{Failure, FailureCode};
use shoal_runtime::proc;
use shoal_runtime::sys::{file, socket};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

impl Containers {
    /// Finds what an earlier core left: rolls back creations, finishes deletions, adopts containers. Before anything is served.
    pub fn recover(self: &Arc<Self>) -> Result<(), Failure> {
        let names = self.store.names()?;
        for name in names
            .iter()
            .filter(|name| name.starts_with(records::CREATING) || name.starts_with(records::PARKED))
        {
            // One that resists blocks its own id only, and is tried again when that is asked for.
            let rolled_back = self
                .store
                .roll_back(self.driver.as_ref(), &self.store.root.join(name));
            complain(rolled_back);
        }
        for name in names
            .iter()
            .filter(|name| name.starts_with(records::DELETING))
        {
            let remains = store::remains(&self.store.root.join(name));
            for path in &remains {
                // What cannot be removed is tried again at the next start.
                drop(crate::reaper::remove(path));
            }
        }
        // Read anew: a creation may have been committed while it was waited for.
        for id in self
            .store
            .names()?
            .into_iter()
            .filter(|name| !name.starts_with('.'))
        {
            complain(self.adopt(&id));
        }
        Ok(())
    }

    fn adopt(self: &Arc<Self>, id: &str) -> Result<(), Failure> {
        let dir = self.store.container(id);
        let (Some(create), Some(state)) = (
            store::read::<Create>(&dir, records::CREATE_FILE),
            store::read_state(&dir),
        ) else {
            return Err(Failure::new(
                FailureCode::System,
                format!("adopting {}", dir.display()),
                "its records are not readable; look at the disk, then remove the directory",
            ));
        };
        let exit = store::read_exit(&dir);
        let same_boot = proc::boot_id().is_ok_and(|boot| boot == state.boot_id);
        let token = self.watcher.token();
        let entry = Entry {
            phase: Phase::Here,
            token,
            status: if exit.is_some() {
                Status::Stopped
            } else {
                Status::Created
            },
            pid: if exit.is_some() || !same_boot {
                0
            } else {
                state.pid
            },
            pid_start_time: state.pid_start_time,
            created_at_ms: state.created_at_ms,
            started_at_ms: exit.as_ref().and_then(|record| record.started_at_ms),
            exit: exit.map(|record| record.exit),
            health: None,
            cgroup: create.spec.linux.cgroups_path,
            directory: PathBuf::from(create.rootfs.directory),
        };
        let stopped = entry.exit.is_some();
        self.lock().insert(id.to_owned(), entry);
        if stopped {
            return Ok(());
        }
        let subscribed = if same_boot { self.subscribe(id) } else { None };
        match subscribed {
            Some((monitor, status, started_at_ms)) => {
                if let Some(entry) = self.lock().get_mut(id) {
                    (entry.status, entry.started_at_ms) = (status, started_at_ms);
                }
                self.watcher
                    .add(token, monitor)
                    .map_err(|error| Failure::io(format!("watching container {id}"), &error))
            }
            // Ended meanwhile, or the monitor is dead.
            None => {
                match store::read_exit(&dir) {
                    Some(record) => self.exited(id, token, record),
                    None => self.take_over(id, token),
                }
                Ok(())
            }
        }
    }

    fn subscribe(&self, id: &str) -> Option<(OwnedFd, Status, Option<u64>)> {
        let dir = file::open(
            &self.store.container(id).to_string_lossy(),
            libc::O_PATH | libc::O_DIRECTORY,
        )
        .ok()?;
        let monitor = socket::connect(dir.as_fd(), records::MONITOR_SOCKET).ok()?;
        socket::send(monitor.as_fd(), &records::encode(&Command::Subscribe)).ok()?;
        match hear(&monitor).ok()? {
            Message::Status {
                status,
                started_at_ms,
            } => Some((monitor, status, started_at_ms)),
            _ => None,
        }
    }
}
