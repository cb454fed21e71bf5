//! The containers of this core and the verbs on them.

use crate::hub::{self, Hub};
use crate::reaper::Reaper;
use crate::records::{self, Command, ExitRecord, Message};
use crate::store::{self, Store};
use crate::watcher::{Heard, Token, Watcher};
use crate::zygote::Zygote;
use shoal_net::NetHandler;
use shoal_protocol::calls::{Container, Create, Event, Exit, Status};
use shoal_protocol::{Failure, FailureCode};
use shoal_runtime::cgroup::{self, Driver};
use shoal_runtime::plan::Plan;
use shoal_runtime::sys::{file, process, socket};
use shoal_runtime::{proc, signals};
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Longest that a monitor may take to answer; building a root is the longest thing it does.
const ANSWER_TIMEOUT_MS: u32 = 40_000;
/// Longest from SIGKILL to the exit record.
const KILL_TIMEOUT_MS: u64 = 30_000;
/// How often a creation is begun again when zygote or monitor died under it.
const CREATE_ATTEMPTS_MAX: u32 = 3;
/// What a container is said to have ended with when nobody could know.
const UNKNOWN_EXIT_CODE: i32 = 137;

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
    reaper: Reaper,
    net: OnceLock<NetHandler>,
    table: Mutex<HashMap<String, Entry>>,
    changed: Condvar,
}

/// Why a creation did not come about.
enum Broken {
    /// Zygote or monitor was killed: nobody's fault, worth another try.
    Vanished,
    Failed(Failure),
}

impl Containers {
    /// No container yet; `recover` finds those that are there.
    pub fn new(
        store: Store,
        zygote: Zygote,
        driver: Box<dyn Driver>,
        cgroup_parent: String,
    ) -> Result<Arc<Self>, Failure> {
        let reaper = Reaper::start().map_err(|error| Failure::io("starting the reaper", &error))?;
        let watcher =
            Watcher::new().map_err(|error| Failure::io("starting the watcher", &error))?;
        Ok(Arc::new(Self {
            store,
            hub: Hub::default(),
            watcher,
            driver,
            cgroup_parent,
            zygote,
            reaper,
            net: OnceLock::new(),
            table: Mutex::new(HashMap::new()),
            changed: Condvar::new(),
        }))
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

    /// Makes a container up to the parked init; gives its pid.
    pub fn create(&self, mut create: Create) -> Result<i32, Failure> {
        if create.spec.linux.cgroups_path.is_empty() {
            create.spec.linux.cgroups_path =
                format!("{}/{}", self.cgroup_parent, create.container_id);
        }
        let create = Plan::new(create)?.create;
        let id = create.container_id.clone();
        self.reserve(&id, &create)?;
        let mut attempt = 1;
        let made = loop {
            match self.make(&create) {
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
            cgroup,
            directory,
        };
        table.insert(id.to_owned(), entry);
        Ok(())
    }

    fn make(&self, create: &Create) -> Result<(i32, u64, OwnedFd), Broken> {
        let id = &create.container_id;
        let doing = |error: std::io::Error| {
            Broken::Failed(Failure::io(format!("creating container {id}"), &error))
        };
        self.clear_stale_root(Path::new(&create.rootfs.directory))
            .map_err(doing)?;
        let path = self.store.creating(id);
        let outcome = self.attempt(create);
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
            .monitor(theirs.as_fd(), dir.as_fd())
            .map_err(Broken::Failed)?;
        // From here the monitor alone holds the lock and the other end.
        drop((theirs, dir));
        match hear(&control) {
            Ok(Message::Ready { pid, created_at_ms }) => Ok((pid, created_at_ms, control)),
            Ok(Message::Failed { failure }) => Err(Broken::Failed(failure)),
            Ok(_) | Err(_) => Err(Broken::Vanished),
        }
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
            if entry.status == Status::Running && !force {
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

    /// Removes the parent group, if no container is left in it.
    pub fn close(&self) {
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
        let dir = file::open(
            &self.store.container(id).to_string_lossy(),
            libc::O_PATH | libc::O_DIRECTORY,
        )?;
        let monitor = socket::connect(dir.as_fd(), records::MONITOR_SOCKET)?;
        socket::send(monitor.as_fd(), &records::encode(command))?;
        hear(&monitor)
    }

    /// What the watcher brings.
    pub fn heard(self: &Arc<Self>, token: Token, heard: Heard) {
        let id = self
            .lock()
            .iter()
            .find(|(_, entry)| entry.token == token)
            .map(|(id, _)| id.clone());
        let Some(id) = id else { return };
        match heard {
            Some(Message::Exit { record }) => self.exited(&id, token, record),
            Some(Message::Oom) => self.hub.tell(&Event::Oom { container_id: id }),
            Some(_) => {}
            None => self.lost_monitor(&id, token),
        }
    }

    /// Notes an exit once and tells it.
    fn exited(&self, id: &str, token: Token, record: ExitRecord) {
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
    fn take_over(&self, id: &str, token: Token) {
        let Ok((pid, pid_start_time, cgroup)) = self.with(id, |entry| {
            (entry.pid, entry.pid_start_time, entry.cgroup.clone())
        }) else {
            return;
        };
        self.kill_orphan(pid, pid_start_time, &cgroup);
        let record = unknown_exit();
        // What cannot be written is still told; a restart finds the container without monitor and comes here again.
        drop(store::write_exit(&self.store.container(id), &record));
        self.exited(id, token, record);
    }

    fn kill_orphan(&self, pid: i32, pid_start_time: u64, cgroup: &str) {
        let deadline = Instant::now() + Duration::from_millis(KILL_TIMEOUT_MS);
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

    /// Finds what an earlier core left: rolls back creations, finishes deletions, adopts containers. Before anything is served.
    pub fn recover(self: &Arc<Self>) -> Result<(), Failure> {
        let names = self.store.names()?;
        for name in names
            .iter()
            .filter(|name| name.starts_with(records::CREATING))
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

/// Says on stderr, which shoald keeps, what recovery could not do.
fn complain(done: Result<(), Failure>) {
    if let Err(failure) = done {
        eprintln!("shoal-core: {failure}");
    }
}

/// What is said of a container whose monitor was killed.
fn unknown_exit() -> ExitRecord {
    ExitRecord {
        exit: Exit {
            exit_code: UNKNOWN_EXIT_CODE,
            exit_code_known: false,
            signal: None,
            oom_killed: false,
            finished_at_ms: process::now_ms(),
        },
        started_at_ms: None,
        lost_log_records: 0,
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
    }
}

/// One message of a monitor; UnexpectedEof when it is gone.
fn hear(monitor: &OwnedFd) -> std::io::Result<Message> {
    socket::set_timeouts(monitor.as_fd(), ANSWER_TIMEOUT_MS)?;
    let mut buffer = vec![0u8; socket::MESSAGE_BYTES_MAX];
    let length = socket::receive(monitor.as_fd(), &mut buffer)?;
    if length == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    serde_json::from_slice(&buffer[..length])
        .map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error))
}
