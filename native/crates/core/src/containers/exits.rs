//! How the ends of containers become known: from a monitor, from its record, or by ending what a dead monitor left.

use super::{Containers, KILL_TIMEOUT_MS, complain};
use crate::monitor::HEALTH_RESULTS_MAX;
use crate::records::{ExitRecord, Message};
use crate::store;
use crate::watcher::{Heard, Token};
use shoal_protocol::Failure;
use shoal_protocol::calls::{Event, Exit, Health, HealthResult, HealthStatus, Status};
use shoal_runtime::sys::process;
use shoal_runtime::{cgroup, proc};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a container is said to have ended with when nobody could know.
const UNKNOWN_EXIT_CODE: i32 = 137;

impl Containers {
    /// What the watcher brings.
    pub fn heard(self: &Arc<Self>, token: Token, heard: Heard) {
        let id = self
            .lock()
            .iter()
            .find(|(_, entry)| entry.token == token)
            .map(|(id, _)| id.clone());
        let Some(id) = id else { return };
        match heard {
            Some(Message::Exit { record, unwritten }) => {
                complain(unwritten.map_or(Ok(()), Err));
                self.exited(&id, token, record);
            }
            Some(Message::Oom) => self.hub.tell(&Event::Oom { container_id: id }),
            Some(Message::Rotated) => self.pack_log(&id),
            Some(Message::Changed { status }) => {
                let mut table = self.lock();
                // Its end may have been noted first.
                let entry = table.get_mut(&id).filter(|entry| entry.exit.is_none());
                if let Some(entry) = entry {
                    entry.status = status;
                }
            }
            Some(Message::ExecExit { exec_id, exit }) => self.hub.tell(&Event::ExecExit {
                container_id: id,
                exec_id,
                exit,
            }),
            Some(Message::Health {
                status,
                failing_streak,
                result,
            }) => self.checked(id, status, failing_streak, result),
            Some(_) => {}
            None => self.lost_monitor(&id, token),
        }
    }

    /// Notes what a health check has found, and tells a change of the status.
    fn checked(
        &self,
        id: String,
        status: HealthStatus,
        failing_streak: u32,
        result: Option<HealthResult>,
    ) {
        let mut table = self.lock();
        let Some(entry) = table.get_mut(&id) else {
            return;
        };
        let before = entry.health.take();
        let told = before.as_ref().map(|health| health.status);
        let mut results = before.map_or_else(Vec::new, |health| health.results);
        results.extend(result);
        results.drain(..results.len().saturating_sub(HEALTH_RESULTS_MAX));
        entry.health = Some(Health {
            status,
            failing_streak,
            results,
        });
        drop(table);
        // A core that has just adopted the container repeats what is known; nothing has changed by that.
        if told.is_some_and(|told| told != status) {
            self.hub.tell(&Event::Health {
                container_id: id,
                status,
            });
        }
    }

    /// Notes an exit once and tells it.
    pub(super) fn exited(&self, id: &str, token: Token, record: ExitRecord) {
        let mut table = self.lock();
        let Some(entry) = table
            .get_mut(id)
            .filter(|entry| entry.token == token && entry.exit.is_none())
        else {
            return;
        };
        entry.status = Status::Stopped;
        entry.pid = 0;
        entry.started_at_ms = record.started_at_ms.or(entry.started_at_ms);
        entry.exit = Some(record.exit.clone());
        drop(table);
        self.changed.notify_all();
        self.hub.tell(&Event::Exit {
            container_id: id.to_owned(),
            exit: record.exit,
        });
    }

    /// The connection to a monitor closed: it has finished, or it was killed and the container is ended in its place.
    fn lost_monitor(self: &Arc<Self>, id: &str, token: Token) {
        let known = self.lock().get(id).is_none_or(|entry| entry.exit.is_some());
        if known {
            return;
        }
        if let Some(record) = store::read_exit(&self.store.container(id)) {
            self.exited(id, token, record);
            return;
        }
        let (this, name) = (Arc::clone(self), id.to_owned());
        let taken = std::thread::Builder::new()
            .name("takeover".into())
            .spawn(move || this.take_over(&name, token));
        if taken.is_err() {
            self.take_over(id, token);
        }
    }

    /// Nobody can know the exit code of a container whose monitor died; it is ended and said to be unknown.
    pub(super) fn take_over(&self, id: &str, token: Token) {
        let Ok((pid, pid_start_time, cgroup)) = self.with(id, |entry| {
            (entry.pid, entry.pid_start_time, entry.cgroup.clone())
        }) else {
            return;
        };
        self.kill_orphan(pid, pid_start_time, &cgroup);
        // What we have killed is not counted: the kernel counts its own.
        let record = unknown_exit(self.driver.oom_kills(&cgroup) > 0);
        // What cannot be written is still told; a restart finds the container without monitor and comes here again.
        let written = store::write_exit(&self.store.container(id), &record);
        complain(written.map_err(|error| {
            Failure::io(format!("writing the exit record of container {id}"), &error)
        }));
        self.exited(id, token, record);
    }

    fn kill_orphan(&self, pid: i32, pid_start_time: u64, cgroup: &str) {
        let deadline = Instant::now() + Duration::from_millis(KILL_TIMEOUT_MS);
        // What is frozen does not die. A group that is gone or cannot be thawed shows below.
        drop(self.driver.thaw(cgroup));
        while Instant::now() < deadline {
            let alive = pid > 0 && proc::is_alive(pid, pid_start_time);
            if alive {
                // It may end by itself at any moment.
                drop(process::signal(pid, libc::SIGKILL));
            }
            cgroup::signal_all(self.driver.as_ref(), cgroup, libc::SIGKILL);
            if !alive && cgroup::pids(self.driver.as_ref(), cgroup).is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// What is said of a container whose monitor was killed.
fn unknown_exit(oom_killed: bool) -> ExitRecord {
    ExitRecord {
        exit: Exit {
            exit_code: UNKNOWN_EXIT_CODE,
            exit_code_known: false,
            signal: None,
            oom_killed,
            finished_at_ms: process::now_ms(),
        },
        started_at_ms: None,
        lost_log_records: 0,
    }
}
