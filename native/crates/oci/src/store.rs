//! The state directory: one directory a container, its record, and the lock under which commands change it.
//!
//! `ROOT/ID/` is made by one mkdir, so that of two creators one wins. A container exists from the moment that `state.json` is there;
//! it is written beside and renamed, so that nobody reads half of it. A directory without it is the remains of a killed creator.

use crate::kept::{self, Groups};
use crate::resctrl::Assignment;
use serde::{Deserialize, Serialize};
use shoal_protocol::oci::{Hook, Spec, State, Status};
use shoal_protocol::{Failure, FailureCode};
use shoal_runtime::sys::file;
use shoal_runtime::{proc, sys};
use shoal_seccomp::Program;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longest container id, in bytes: what runc takes, and every file system.
pub const ID_BYTES_MAX: usize = 1024;
/// The record of a container.
pub const STATE_FILE: &str = "state.json";
/// The part of the configuration that a further process needs.
pub const EXEC_FILE: &str = "exec.json";
/// The compiled filter, for a further process.
pub const FILTER_FILE: &str = "seccomp.bpf";
/// At which init waits for `start`; gone once it is released.
pub const START_SOCKET: &str = "start.sock";
/// How long a command waits for another one on the same container.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
/// How often it looks; flock has no wait with a time limit.
const LOCK_POLL: Duration = Duration::from_millis(2);
/// File systems whose contents do not outlive a boot (statfs(2)).
const TMPFS_MAGIC: i64 = 0x0102_1994;
const RAMFS_MAGIC: i64 = 0x8584_58f6;

/// A process, told apart from a later one with its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    pub pid: i32,
    /// Field 22 of /proc/PID/stat.
    pub start_time: u64,
}

impl Identity {
    /// The identity of a process that is alive.
    pub fn of(pid: i32) -> Result<Self, Failure> {
        let start_time = proc::start_time(pid)
            .map_err(|error| Failure::io(format!("looking at process {pid}"), &error))?;
        Ok(Self { pid, start_time })
    }

    /// Whether this very process is still there and no zombie.
    pub fn is_alive(&self) -> bool {
        proc::is_alive(self.pid, self.start_time)
    }
}

/// What is kept of a container between commands.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    pub oci_version: String,
    pub id: String,
    /// Absolute.
    pub bundle: String,
    pub rootfs: String,
    /// RFC 3339 with nanoseconds.
    pub created: String,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// The container's first process; none while it is being made.
    pub init: Option<Identity>,
    /// Who makes the container.
    pub creator: Identity,
    /// The boot in which the processes live; none where the directory cannot outlive one.
    pub boot_id: Option<String>,
    /// The group's path below each hierarchy's mount; empty when the container has none.
    pub cgroup: String,
    /// Where groups are on this machine.
    pub groups: Groups,
    /// Whether every process of the container is under a filter.
    pub filtered: bool,
    /// Whether the end of init ends everything in the container.
    pub own_pid_namespace: bool,
    /// Where it is in resctrl (linux.intelRdt).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resctrl: Option<Assignment>,
    #[serde(default)]
    pub poststart: Vec<Hook>,
    #[serde(default)]
    pub poststop: Vec<Hook>,
}

impl Record {
    /// The state of the specification, as hooks get it.
    pub fn state(&self, status: Status) -> State {
        State {
            oci_version: self.oci_version.clone(),
            id: self.id.clone(),
            status,
            pid: match (status, self.init) {
                (Status::Stopped, _) | (_, None) => 0,
                (_, Some(init)) => init.pid,
            },
            bundle: self.bundle.clone(),
            annotations: self.annotations.clone(),
        }
    }

    /// Init, unless it is gone or of another boot.
    pub fn living_init(&self) -> Option<Identity> {
        let current = self.boot_id.is_none() || self.boot_id.as_deref() == proc::boot_id().ok();
        self.init.filter(|init| current && init.is_alive())
    }
}

/// The directory of all containers.
#[derive(Debug, Clone)]
pub struct Root {
    pub path: PathBuf,
}

/// One container's directory.
#[derive(Debug)]
pub struct Home {
    pub id: String,
    pub path: PathBuf,
    dir: OwnedFd,
}

/// `container "x" does not exist`, the words that podman and containerd look for.
pub fn missing(id: &str) -> Failure {
    Failure::new(
        FailureCode::NotFound,
        "looking the container up",
        format!("container {id:?} does not exist"),
    )
}

/// Refuses an id that is not `[A-Za-z0-9_+-][A-Za-z0-9_+.-]*`.
pub fn check_id(id: &str) -> Result<(), Failure> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'+' | b'-');
    let good = match id.as_bytes().split_first() {
        Some((first, rest)) => {
            id.len() <= ID_BYTES_MAX
                && allowed(*first)
                && rest.iter().all(|byte| allowed(*byte) || *byte == b'.')
        }
        None => false,
    };
    if good {
        return Ok(());
    }
    /// As much of a refused id as is worth showing.
    const SHOWN: usize = 80;
    let shown: String = id.chars().take(SHOWN).collect();
    Err(Failure::invalid(
        "checking the container id",
        format!(
            "invalid container ID format: {shown:?} is not [A-Za-z0-9_+-][A-Za-z0-9_+.-]* of at most {ID_BYTES_MAX} bytes"
        ),
    ))
}

impl Root {
    /// Makes the directory of a new container and locks it. Fails when the id is taken.
    pub fn reserve(&self, id: &str) -> Result<Home, Failure> {
        check_id(id)?;
        let taken = || {
            Failure::new(
                FailureCode::AlreadyExists,
                format!("creating container {id:?}"),
                "container with given ID already exists",
            )
        };
        let path = self.path.join(id);
        let doing = |error: &io::Error| {
            Failure::io(format!("making state directory {}", path.display()), error)
        };
        // Once more for a creator or remover that was killed, or came between two of the steps.
        for _ in 0..3 {
            match make_dir(&path, 0o711) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    std::fs::DirBuilder::new()
                        .recursive(true)
                        .mode(0o700)
                        .create(&self.path)
                        .map_err(|error| doing(&error))?;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    if path.join(STATE_FILE).exists() {
                        return Err(taken());
                    }
                }
                Err(error) => return Err(doing(&error)),
            }
            let dir = match open_dir(&path) {
                Ok(dir) => dir,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(doing(&error)),
            };
            if !file::try_lock(dir.as_fd()).map_err(|error| doing(&error))? {
                return Err(taken());
            }
            let home = Home {
                id: id.to_owned(),
                path: path.clone(),
                dir,
            };
            if home.is_removed() {
                continue;
            }
            if path.join(STATE_FILE).exists() {
                return Err(taken());
            }
            return Ok(home);
        }
        Err(taken())
    }

    /// The directory and record of a container.
    pub fn find(&self, id: &str) -> Result<(Home, Record), Failure> {
        check_id(id)?;
        let path = self.path.join(id);
        let dir = open_dir(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => missing(id),
            _ => Failure::io(
                format!("opening state directory {}", path.display()),
                &error,
            ),
        })?;
        let home = Home {
            id: id.to_owned(),
            path,
            dir,
        };
        let record = home.record()?;
        Ok((home, record))
    }

    /// As `find`, with the lock held.
    pub fn find_locked(&self, id: &str) -> Result<(Home, Record), Failure> {
        let (home, _) = self.find(id)?;
        home.lock()?;
        // What was read before the lock may have changed, or gone.
        let record = home.record()?;
        Ok((home, record))
    }

    /// Ids of everything in the directory, in order; none when it is not there and need not be.
    pub fn ids(&self, required: bool) -> Result<Vec<String>, Failure> {
        let entries = match std::fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !required => {
                return Ok(Vec::new());
            }
            Err(error) => {
                return Err(Failure::io(
                    format!("reading --root {}", self.path.display()),
                    &error,
                ));
            }
        };
        let mut ids: Vec<String> = entries
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|id| check_id(id).is_ok())
            .collect();
        ids.sort_unstable();
        Ok(ids)
    }
}

impl Home {
    /// The directory itself.
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// The id of this boot, where the directory can outlive one.
    pub fn boot_id(&self) -> Result<Option<String>, Failure> {
        let magic = file::file_system(self.dir())
            .map_err(|error| Failure::io(format!("looking at {}", self.path.display()), &error))?;
        if matches!(magic, TMPFS_MAGIC | RAMFS_MAGIC) {
            return Ok(None);
        }
        proc::boot_id()
            .map(|known| Some(known.to_owned()))
            .map_err(|error| Failure::io("reading the boot's id", &error))
    }

    /// Waits for the lock; fails when another command holds it for long.
    pub fn lock(&self) -> Result<(), Failure> {
        let deadline = Instant::now() + LOCK_TIMEOUT;
        let doing = format!("locking container {:?}", self.id);
        loop {
            if file::try_lock(self.dir()).map_err(|error| Failure::io(&doing, &error))? {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Failure::new(
                    FailureCode::Conflict,
                    doing,
                    "another command is working on it",
                ));
            }
            std::thread::sleep(LOCK_POLL);
        }
    }

    /// Gives the lock up, for this process and for whoever has inherited the descriptor.
    pub fn unlock(&self) {
        // It can fail only for a descriptor that is none.
        drop(file::unlock(self.dir()));
    }

    /// The record as it is now.
    pub fn record(&self) -> Result<Record, Failure> {
        let bytes = match file::read_at(self.dir(), STATE_FILE) {
            Ok(bytes) => bytes,
            Err(error) if sys::is(&error, libc::ENOENT) => return Err(missing(&self.id)),
            Err(error) => {
                return Err(Failure::io(
                    format!("reading {}", self.path.join(STATE_FILE).display()),
                    &error,
                ));
            }
        };
        serde_json::from_slice(&bytes).map_err(|error| {
            Failure::invalid(
                format!("reading {}", self.path.join(STATE_FILE).display()),
                error.to_string(),
            )
        })
    }

    /// Writes the record so that it is seen whole or not at all.
    pub fn write(&self, record: &Record) -> Result<(), Failure> {
        const DRAFT: &str = ".state.json.new";
        let bytes = serde_json::to_vec(record).expect("a record is plain data");
        file::write_at(self.dir(), DRAFT, &bytes)
            .and_then(|()| file::rename(self.dir(), DRAFT, STATE_FILE))
            .map_err(|error| {
                Failure::io(
                    format!("writing {}", self.path.join(STATE_FILE).display()),
                    &error,
                )
            })
    }

    /// Keeps what a further process needs, as the bundle may be changed or gone later.
    pub fn write_for_exec(&self, spec: &Spec, filter: Option<&Program>) -> Result<(), Failure> {
        let bytes =
            serde_json::to_vec(&kept::for_exec(spec)).expect("a configuration is plain data");
        self.keep(EXEC_FILE, &bytes)?;
        match filter {
            Some(filter) => self.keep(FILTER_FILE, &kept::filter_bytes(filter)),
            None => Ok(()),
        }
    }

    fn keep(&self, name: &str, bytes: &[u8]) -> Result<(), Failure> {
        file::write_at(self.dir(), name, bytes).map_err(|error| {
            Failure::io(
                format!("writing {}", self.path.join(name).display()),
                &error,
            )
        })
    }

    /// What `write_for_exec` kept. A filter that cannot be read is an error: nothing runs without it.
    pub fn for_exec(&self, filtered: bool) -> Result<(Spec, Option<Program>), Failure> {
        let read = |name: &str| {
            file::read_at(self.dir(), name).map_err(|error| {
                Failure::io(
                    format!("reading {}", self.path.join(name).display()),
                    &error,
                )
            })
        };
        let spec = Spec::parse(&read(EXEC_FILE)?)?;
        if !filtered {
            return Ok((spec, None));
        }
        let filter = kept::filter(&read(FILTER_FILE)?).ok_or_else(|| {
            Failure::invalid(
                format!("reading {}", self.path.join(FILTER_FILE).display()),
                "it is no filter of this version",
            )
        })?;
        Ok((spec, Some(filter)))
    }

    /// Whether the container is still there.
    pub fn exists(&self) -> bool {
        self.path.join(STATE_FILE).exists() && !self.is_removed()
    }

    /// Whether the container still waits for `start`.
    pub fn is_parked(&self) -> bool {
        self.path.join(START_SOCKET).exists()
    }

    /// Removes the directory; the record goes first, so that the container is gone whole.
    pub fn remove(&self) -> Result<(), Failure> {
        let doing = |error: &io::Error| {
            Failure::io(
                format!("removing state directory {}", self.path.display()),
                error,
            )
        };
        for name in [STATE_FILE, EXEC_FILE, FILTER_FILE] {
            match std::fs::remove_file(self.path.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(doing(&error)),
                _ => {}
            }
        }
        match std::fs::remove_dir(&self.path) {
            Err(error) if sys::is(&error, libc::ENOTEMPTY) => {}
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(doing(&error)),
            _ => return Ok(()),
        }
        match std::fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(doing(&error)),
            _ => Ok(()),
        }
    }

    fn is_removed(&self) -> bool {
        let now = std::fs::metadata(&self.path);
        let ours = std::fs::metadata(file::proc_path(&self.dir));
        match (now, ours) {
            (Ok(now), Ok(ours)) => (now.dev(), now.ino()) != (ours.dev(), ours.ino()),
            _ => true,
        }
    }
}

fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    std::fs::DirBuilder::new().mode(mode).create(path)
}

fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    let path = path
        .to_str()
        .ok_or_else(|| io::Error::from_raw_os_error(libc::EILSEQ))?;
    file::open(path, libc::O_RDONLY | libc::O_DIRECTORY)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scratch(Root);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("shoal-store-{name}-{}", std::process::id()));
            drop(std::fs::remove_dir_all(&path));
            Self(Root { path })
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            drop(std::fs::remove_dir_all(&self.0.path));
        }
    }

    fn record(id: &str) -> Record {
        let creator = Identity::of(i32::try_from(std::process::id()).expect("pid")).expect("self");
        Record {
            oci_version: "1.2.1".into(),
            id: id.into(),
            bundle: "/b".into(),
            rootfs: "/b/rootfs".into(),
            created: "now".into(),
            annotations: BTreeMap::new(),
            init: Some(creator),
            creator,
            boot_id: None,
            cgroup: String::new(),
            groups: Groups::from(&shoal_runtime::cgroup::detect::layout("")),
            filtered: false,
            own_pid_namespace: true,
            resctrl: None,
            poststart: Vec::new(),
            poststop: Vec::new(),
        }
    }

    #[test]
    fn ids_are_names_and_no_paths() {
        for good in ["a", "web.1", "_x", "+", "-a", &"x".repeat(ID_BYTES_MAX)] {
            check_id(good).expect(good);
        }
        for bad in [
            "",
            ".",
            "..",
            ".a",
            "a/b",
            "a b",
            "ä",
            "a\n",
            &"x".repeat(ID_BYTES_MAX + 1),
        ] {
            assert!(check_id(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_id_is_reserved_once_and_found_when_it_has_a_record() {
        let scratch = Scratch::new("once");
        let root = &scratch.0;
        assert!(root.ids(false).expect("absent").is_empty());
        assert!(root.ids(true).is_err());
        let home = root.reserve("a").expect("reserved");
        assert!(
            root.reserve("a")
                .is_err_and(|failure| failure.code == FailureCode::AlreadyExists)
        );
        assert!(
            root.find("a")
                .is_err_and(|failure| failure.message == "container \"a\" does not exist")
        );
        home.write(&record("a")).expect("written");
        drop(home);
        let (home, found) = root.find_locked("a").expect("found");
        assert!(found.living_init().is_some());
        assert_eq!(root.ids(true).expect("ids"), ["a"]);
        assert!(
            root.reserve("a")
                .is_err_and(|failure| failure.code == FailureCode::AlreadyExists)
        );
        home.remove().expect("removed");
        assert!(root.find("a").is_err());
    }

    #[test]
    fn the_remains_of_a_killed_creator_are_taken_over() {
        let scratch = Scratch::new("remains");
        drop(scratch.0.reserve("a").expect("reserved"));
        let home = scratch.0.reserve("a").expect("taken over");
        home.remove().expect("removed");
    }

    #[test]
    fn a_process_of_another_start_time_or_boot_is_not_init() {
        let mut other = record("a");
        other.init = other.init.map(|init| Identity {
            start_time: init.start_time + 1,
            ..init
        });
        assert!(other.living_init().is_none());
        let mut elsewhere = record("a");
        elsewhere.boot_id = Some("another boot".into());
        assert!(elsewhere.living_init().is_none());
    }
}
