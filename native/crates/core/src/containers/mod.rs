//! The containers of this core and the verbs on them. Making them, their ends and what a restart finds have files of their own.

mod creation;
mod exits;
mod live;
mod parking;
mod recovery;

use crate::hub::{self, Hub};
use crate::lanes::Lane;
use crate::pool::{Busy, Pool};
use crate::reaper::Reaper;
use crate::records::{self, Command, Message};
use crate::store::Store;
use crate::watcher::{Token, Watcher};
use crate::zygote::Zygote;
use shoal_net::NetHandler;
use shoal_protocol::calls::{Container, Event, Exit, Health, Status};
use shoal_protocol::{Failure, FailureCode};
use shoal_runtime::cgroup::{self, Driver};
use shoal_runtime::signals;
use shoal_runtime::sys::{file, socket};
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Longest that a monitor may take to answer; building a root is the longest thing it does.
const ANSWER_TIMEOUT_MS: u32 = 40_000;
/// Logs that may wait to be packed.
const PACKINGS_MAX: usize = 1024;
/// Longest that the end of the core waits for what deleted containers leave on disk.
const REMOVALS_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest from SIGKILL to the exit record.
const KILL_TIMEOUT_MS: u64 = 30_000;

/// Where a container is from the core's point of view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Creating,
    Here,
    Deleting,
}

struct Entry {
    phase: Phase,
    token: Token,
    status: Status,
    pid: i32,
    pid_start_time: u64,
    created_at_ms: u64,
    started_at_ms: Option<u64>,
    exit: Option<Exit>,
    health: Option<Health>,
    cgroup: String,
    directory: PathBuf,
}

/// All containers, and what is needed to make and end them.
pub struct Containers {
    pub store: Store,
    pub hub: Hub,
    pub watcher: Watcher,
    driver: Box<dyn Driver>,
    cgroup_parent: String,
    zygote: Zygote,
    pool: Arc<Pool>,
    /// Disconnected once the thread that fills the pool has ended.
    parking: Mutex<Option<Receiver<()>>>,
    reaper: Reaper,
    /// One thread that packs rotated logs.
    packing: Lane,
    net: OnceLock<NetHandler>,
    usual: shoal_runtime::usual::Usual,
    table: Mutex<HashMap<String, Entry>>,
    changed: Condvar,
}

impl Containers {
    /// No container yet; `recover` finds those that are there.
    pub fn new(
        store: Store,
        zygote: Zygote,
        driver: Box<dyn Driver>,
        cgroup_parent: String,
        pool: Pool,
    ) -> Result<Arc<Self>, Failure> {
        let pool = Arc::new(pool);
        let waited_for = Arc::clone(&pool);
        let reaper = Reaper::start(move || waited_for.is_quiet())
            .map_err(|error| Failure::io("starting the reaper", &error))?;
        let watcher =
            Watcher::new().map_err(|error| Failure::io("starting the watcher", &error))?;
        Ok(Arc::new(Self {
            store,
            hub: Hub::default(),
            watcher,
            driver,
            cgroup_parent,
            zygote,
            pool,
            parking: Mutex::default(),
            reaper,
            packing: Lane::new("packing", 1, PACKINGS_MAX),
            net: OnceLock::new(),
            usual: shoal_runtime::usual::Usual::default(),
            table: Mutex::new(HashMap::new()),
            changed: Condvar::new(),
        }))
    }

    /// Somebody waits for a container as long as this lives: making sandboxes has time.
    pub fn busy(&self) -> Busy<'_> {
        self.pool.busy()
    }

    /// The network half, made after the containers it asks about.
    pub fn set_net(&self, net: NetHandler) {
        assert!(self.net.set(net).is_ok(), "the network handler is set once");
        // The network half asks back for each namespace, so that the table must not be locked here.
        let running: Vec<String> = self
            .lock()
            .iter()
            .filter(|(_, entry)| entry.status != Status::Stopped)
            .map(|(id, _)| id.clone())
            .collect();
        for id in running {
            self.net().container_started(&id);
        }
    }

    /// The network half.
    pub fn net(&self) -> &NetHandler {
        self.net
            .get()
            .expect("set before the first connection is served")
    }

    /// The network namespace of a container that has processes.
    pub fn network_namespace(&self, id: &str) -> Option<PathBuf> {
        let table = self.lock();
        let entry = table.get(id)?;
        (entry.pid > 0).then(|| PathBuf::from(format!("/proc/{}/ns/net", entry.pid)))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the parked init become the program; returns once it has.
    pub fn start(&self, id: &str) -> Result<(), Failure> {
        let doing = format!("starting container {id}");
        let status = self.with(id, |entry| entry.status)?;
        if status != Status::Created {
            return Err(Failure::new(
                FailureCode::Conflict,
                doing,
                "it has been started already; delete it and create another",
            ));
        }
        self.net().container_started(id);
        match self.command(id, &Command::Start) {
            Ok(Message::Started { started_at_ms }) => {
                // Its end may have been heard of first.
                if let Some(entry) = self
                    .lock()
                    .get_mut(id)
                    .filter(|entry| entry.status == Status::Created)
                {
                    (entry.status, entry.started_at_ms) = (Status::Running, Some(started_at_ms));
                }
                Ok(())
            }
            Ok(Message::Failed { failure }) => {
                if failure.code != FailureCode::Conflict {
                    self.wait_exit(id, KILL_TIMEOUT_MS);
                }
                Err(failure)
            }
            Ok(_) | Err(_) => {
                self.wait_exit(id, KILL_TIMEOUT_MS);
                Err(Failure::new(
                    FailureCode::Conflict,
                    doing,
                    "it has ended before it could be started",
                ))
            }
        }
    }

    /// Sends a signal by name or number.
    pub fn kill(&self, id: &str, signal: &str, all: bool) -> Result<(), Failure> {
        let doing = format!("signalling container {id} with {signal:?}");
        let number = signals::number(signal)
            .ok_or_else(|| Failure::invalid(&doing, format!("Invalid signal: {signal}")))?;
        let not_running = || {
            Failure::new(
                FailureCode::Conflict,
                &doing,
                format!("container {id} is not running"),
            )
        };
        if self.with(id, |entry| entry.status)? == Status::Stopped {
            return Err(not_running());
        }
        match self.command(
            id,
            &Command::Kill {
                signal: number,
                all,
            },
        ) {
            Ok(Message::Done) => Ok(()),
            Ok(Message::Failed { failure }) if failure.errno == Some(libc::ESRCH) => {
                Err(not_running())
            }
            Ok(Message::Failed { failure }) => Err(failure),
            // The monitor goes only when the container has.
            Ok(_) | Err(_) => Err(not_running()),
        }
    }

    /// Ends what is left and gives the id free. `force` kills a running container; a created one is always ended.
    pub fn delete(&self, id: &str, force: bool) -> Result<(), Failure> {
        let doing = format!("deleting container {id}");
        let (status, cgroup, directory) = {
            let mut table = self.lock();
            let entry = visible(&mut table, id)?;
            if entry.phase == Phase::Deleting {
                return Err(Failure::new(
                    FailureCode::Conflict,
                    doing,
                    "it is being deleted already",
                ));
            }
            if matches!(entry.status, Status::Running | Status::Paused) && !force {
                return Err(Failure::new(
                    FailureCode::Conflict,
                    doing,
                    "it is running; stop it first or use force",
                ));
            }
            entry.phase = Phase::Deleting;
            (entry.status, entry.cgroup.clone(), entry.directory.clone())
        };
        let deleted = self.end(id, status).and_then(|()| {
            cgroup::destroy(self.driver.as_ref(), &cgroup)?;
            self.store.retire(id, &directory)
        });
        let mut table = self.lock();
        match deleted {
            Ok(left) => {
                table.remove(id);
                drop(table);
                self.reaper.remove(left);
                self.net().container_removed(id);
                Ok(())
            }
            Err(failure) => {
                if let Some(entry) = table.get_mut(id) {
                    entry.phase = Phase::Here;
                }
                Err(failure)
            }
        }
    }

    fn end(&self, id: &str, status: Status) -> Result<(), Failure> {
        if status == Status::Stopped {
            return Ok(());
        }
        // A monitor that is gone has left a record, or will be taken over: either way the exit comes.
        drop(self.command(
            id,
            &Command::Kill {
                signal: libc::SIGKILL,
                all: true,
            },
        ));
        if self.wait_exit(id, KILL_TIMEOUT_MS) {
            return Ok(());
        }
        Err(Failure::new(
            FailureCode::System,
            format!("killing container {id}"),
            format!(
                "its processes are still there {KILL_TIMEOUT_MS} ms after SIGKILL; one of them hangs in the kernel"
            ),
        ))
    }

    /// One container.
    pub fn state(&self, id: &str) -> Result<Container, Failure> {
        self.with(id, |entry| tell(id, entry))
    }

    /// Every container that is there.
    pub fn list(&self) -> Vec<Container> {
        let table = self.lock();
        let mut all: Vec<Container> = table
            .iter()
            .filter(|(_, entry)| entry.phase != Phase::Creating)
            .map(|(id, entry)| tell(id, entry))
            .collect();
        all.sort_by(|a, b| a.container_id.cmp(&b.container_id));
        all
    }

    /// Its processes, in the core's pid namespace.
    pub fn pids(&self, id: &str) -> Result<Vec<i32>, Failure> {
        let path = self.with(id, |entry| entry.cgroup.clone())?;
        Ok(cgroup::pids(self.driver.as_ref(), &path))
    }

    /// Ends the pool, and removes the parent group if no container is left in it.
    pub fn close(&self) {
        self.close_pool();
        // What is not removed by then is found again by the next start's scan.
        self.reaper.finish(REMOVALS_TIMEOUT);
        for dir in self.driver.directories(&self.cgroup_parent) {
            // Not empty, or not ours to remove: then it stays.
            drop(std::fs::remove_dir(dir));
        }
    }

    /// Exit events of all containers that have ended and not been deleted.
    pub fn outstanding(&self) -> Vec<Vec<u8>> {
        let table = self.lock();
        table
            .iter()
            .filter_map(|(id, entry)| {
                Some(hub::encode(&Event::Exit {
                    container_id: id.clone(),
                    exit: entry.exit.clone()?,
                }))
            })
            .collect()
    }

    fn with<T>(&self, id: &str, look: impl FnOnce(&Entry) -> T) -> Result<T, Failure> {
        let mut table = self.lock();
        visible(&mut table, id).map(|entry| look(entry))
    }

    /// Waits until the exit is in the table; false when it does not come.
    fn wait_exit(&self, id: &str, timeout_ms: u64) -> bool {
        let deadline = Instant::now() + Duration::from_millis(timeout_ms);
        let mut table = self.lock();
        while table.get(id).is_some_and(|entry| entry.exit.is_none()) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            table = self
                .changed
                .wait_timeout(table, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        true
    }

    /// Asks the container's monitor over a connection of its own.
    fn command(&self, id: &str, command: &Command) -> std::io::Result<Message> {
        let monitor = self.reach(id)?;
        socket::send(monitor.as_fd(), &records::encode(command))?;
        hear(&monitor)
    }

    fn reach(&self, id: &str) -> std::io::Result<OwnedFd> {
        let dir = file::open(
            &self.store.container(id).to_string_lossy(),
            libc::O_PATH | libc::O_DIRECTORY,
        )?;
        socket::connect(dir.as_fd(), records::MONITOR_SOCKET)
    }
}

/// Says on stderr, which shoald keeps, what could not be done and nobody waits for.
fn complain(done: Result<(), Failure>) {
    if let Err(failure) = done {
        eprintln!("shoal-core: {failure}");
    }
}

fn visible<'a>(table: &'a mut HashMap<String, Entry>, id: &str) -> Result<&'a mut Entry, Failure> {
    match table.get_mut(id) {
        Some(entry) if entry.phase != Phase::Creating => Ok(entry),
        _ => Err(Failure::new(
            FailureCode::NotFound,
            format!("looking for container {id}"),
            format!("No such container: {id}"),
        )),
    }
}

fn tell(id: &str, entry: &Entry) -> Container {
    Container {
        container_id: id.to_owned(),
        status: entry.status,
        pid: entry.pid,
        created_at_ms: entry.created_at_ms,
        started_at_ms: entry.started_at_ms,
        exit: entry.exit.clone(),
        health: entry.health.clone(),
    }
}

/// One message of a monitor; UnexpectedEof when it is gone.
fn hear(monitor: &OwnedFd) -> std::io::Result<Message> {
    socket::set_timeouts(monitor.as_fd(), ANSWER_TIMEOUT_MS)?;
    let length = socket::next_length(monitor.as_fd())?;
    let mut buffer = vec![0u8; length.max(1)];
    let length = socket::receive(monitor.as_fd(), &mut buffer)?;
    if length == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    serde_json::from_slice(&buffer[..length])
        .map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error))
}
