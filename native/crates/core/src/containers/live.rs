//! What can be done to a running container: attach, exec, terminal sizes, pause, limits and figures.

use super::{Containers, hear};
use crate::logs::compress;
use crate::logs::follow::Source;
use crate::records::{self, Attached, Command, Message, Wanted};
use crate::store;
use shoal_protocol::calls::{Attach, Create, Exec, ExecKill, ExecState, Resize, Status, Update};
use shoal_protocol::stats::Stats;
use shoal_protocol::{Failure, FailureCode};
use shoal_runtime::sys::{file, socket};
use shoal_runtime::{cgroup, signals};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

/// Longest body of an exec; its environment is most of it.
const EXEC_BYTES_MAX: usize = 4 * 1024 * 1024;

impl Containers {
    /// Hands a client's connection to the container's monitor, which answers request `request` on it.
    pub fn attach(
        &self,
        request: u64,
        attach: &Attach,
        client: BorrowedFd<'_>,
    ) -> Result<(), Failure> {
        let id = &attach.container_id;
        let wanted = Wanted {
            stdin: attach.stdin,
            stdout: attach.stdout,
            stderr: attach.stderr,
        };
        let command = Command::Attach {
            attached: Attached { request, wanted },
        };
        let doing = format!("attaching to container {id}");
        self.ask(&doing, id, &command, &[client]).map(drop)
    }

    /// Starts a further process; `client`, when there is one, becomes its streams and gets the answer. Gives its pid.
    pub fn exec(&self, exec: &Exec, client: Option<(u64, BorrowedFd<'_>)>) -> Result<i32, Failure> {
        let id = &exec.container_id;
        let doing = format!("starting exec {:?} in container {id}", exec.exec_id);
        let body = records::encode(exec);
        if body.len() > EXEC_BYTES_MAX {
            return Err(Failure::invalid(
                doing,
                format!(
                    "{} bytes are over the limit of {EXEC_BYTES_MAX}",
                    body.len()
                ),
            ));
        }
        let body =
            file::memory_file(c"exec", &body).map_err(|error| Failure::io(&doing, &error))?;
        let wanted = Wanted {
            stdin: exec.stdin,
            stdout: exec.stdout,
            stderr: exec.stderr,
        };
        let attached = client.map(|(request, _)| Attached { request, wanted });
        let fds: Vec<BorrowedFd<'_>> = std::iter::once(body.as_fd())
            .chain(client.map(|(_, fd)| fd))
            .collect();
        match self.ask(&doing, id, &Command::Exec { attached }, &fds)? {
            Message::ExecStarted { pid } => Ok(pid),
            other => Err(unexpected(doing, &other)),
        }
    }

    /// The execs of a container: those that run, and those that have ended and are still known.
    pub fn execs(&self, id: &str) -> Result<Vec<ExecState>, Failure> {
        let doing = format!("listing the execs of container {id}");
        match self.ask(&doing, id, &Command::Execs, &[])? {
            Message::Execs { execs } => Ok(execs),
            other => Err(unexpected(doing, &other)),
        }
    }

    /// Signals an exec by name or number.
    pub fn kill_exec(&self, kill: &ExecKill) -> Result<(), Failure> {
        let exec = kill.exec_id.clone();
        let doing = format!("signalling exec {exec} with {:?}", kill.signal);
        let signal = signals::number(&kill.signal)
            .ok_or_else(|| Failure::invalid(&doing, format!("Invalid signal: {}", kill.signal)))?;
        let command = Command::KillExec { exec, signal };
        self.ask(&doing, &kill.container_id, &command, &[])
            .map(drop)
    }

    /// Gives a terminal another size.
    pub fn resize(&self, resize: Resize) -> Result<(), Failure> {
        let doing = format!("resizing container {}", resize.container_id);
        let command = Command::Resize {
            exec: resize.exec_id,
            size: shoal_protocol::calls::ConsoleSize {
                rows: resize.rows,
                columns: resize.columns,
            },
        };
        self.ask(&doing, &resize.container_id, &command, &[])
            .map(drop)
    }

    /// Freezes every process of a container.
    pub fn pause(&self, id: &str) -> Result<(), Failure> {
        let doing = format!("pausing container {id}");
        self.ask(&doing, id, &Command::Pause, &[])?;
        self.change(id, Status::Running, Status::Paused);
        Ok(())
    }

    /// Lets a frozen container go on.
    pub fn resume(&self, id: &str) -> Result<(), Failure> {
        let doing = format!("resuming container {id}");
        self.ask(&doing, id, &Command::Resume, &[])?;
        self.change(id, Status::Paused, Status::Running);
        Ok(())
    }

    /// Whoever asks next is told the new status, whether or not the monitor's word on it has been heard.
    fn change(&self, id: &str, from: Status, to: Status) {
        let mut table = self.lock();
        if let Some(entry) = table.get_mut(id).filter(|entry| entry.status == from) {
            entry.status = to;
        }
    }

    /// Changes the limits of a container that has not ended; what is not given stays as it is.
    pub fn update(&self, update: &Update) -> Result<(), Failure> {
        let id = &update.container_id;
        let doing = format!("updating container {id}");
        cgroup::check(&update.resources)?;
        let (status, path) = self.with(id, |entry| (entry.status, entry.cgroup.clone()))?;
        if status == Status::Stopped {
            return Err(not_running(doing, id));
        }
        self.driver.update(&path, &update.resources)
    }

    /// What a running container uses.
    pub fn stats(&self, id: &str) -> Result<Stats, Failure> {
        let (status, path, pid) =
            self.with(id, |entry| (entry.status, entry.cgroup.clone(), entry.pid))?;
        if status == Status::Stopped {
            return Err(not_running(format!("measuring container {id}"), id));
        }
        Ok(crate::stats::gather(&self.driver.stats(&path), pid))
    }

    /// Where the log of a container is read.
    pub fn log_source(&self, id: &str) -> Result<Source, Failure> {
        self.with(id, |_| ())?;
        let records = self.store.container(id);
        let create = store::read::<Create>(&records, records::CREATE_FILE);
        let log = create.and_then(|create| create.log).ok_or_else(|| {
            Failure::new(
                FailureCode::Conflict,
                format!("reading the log of container {id}"),
                "configured logging driver does not support reading",
            )
        })?;
        Ok(Source {
            log: PathBuf::from(log.path),
            records,
        })
    }

    /// Packs what has been rotated away, if that is wanted, without anybody waiting for it.
    pub(super) fn pack_log(&self, id: &str) {
        let create = store::read::<Create>(&self.store.container(id), records::CREATE_FILE);
        let Some(log) = create
            .and_then(|create| create.log)
            .filter(|log| log.compress)
        else {
            return;
        };
        // A full lane, or a full disk, leaves files as they are until the next rotation.
        self.packing.push(Box::new(move || {
            drop(compress::pack(Path::new(&log.path), log.max_files));
        }));
    }

    /// Asks the monitor of a container that has not ended.
    fn ask(
        &self,
        doing: &str,
        id: &str,
        command: &Command,
        fds: &[BorrowedFd<'_>],
    ) -> Result<Message, Failure> {
        if self.with(id, |entry| entry.status)? == Status::Stopped {
            return Err(not_running(doing.to_owned(), id));
        }
        let say = || -> std::io::Result<Message> {
            let monitor = self.reach(id)?;
            socket::send_with_fds(monitor.as_fd(), &records::encode(command), fds)?;
            hear(&monitor)
        };
        match say() {
            Ok(Message::Failed { failure }) => Err(failure),
            Ok(message) => Ok(message),
            // The monitor is gone, and with it the container.
            Err(_) => Err(not_running(doing.to_owned(), id)),
        }
    }
}

fn not_running(doing: String, id: &str) -> Failure {
    Failure::new(
        FailureCode::Conflict,
        doing,
        format!("Container {id} is not running"),
    )
}

fn unexpected(doing: String, message: &Message) -> Failure {
    Failure::new(
        FailureCode::System,
        doing,
        format!("its monitor answered {message:?}"),
    )
}
