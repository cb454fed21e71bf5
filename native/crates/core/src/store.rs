//! The core's directory: the journal of creations, the records of containers, and the remains of deleted ones.

use crate::pool::Root;
use crate::reaper;
use crate::records::{self, ExitRecord, Parked, State};
use shoal_protocol::calls::{Create, Rootfs};
use shoal_protocol::oci::Spec;
use shoal_protocol::{Failure, FailureCode};
use shoal_runtime::cgroup::{self, Driver};
use shoal_runtime::sys::file;
use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long a creation that somebody still works on is waited for before it is rolled back.
const LOCK_TIMEOUT_MS: u64 = 35_000;
const LOCK_RETRY_MS: u64 = 2;

/// EXEC_ROOT/core.
pub struct Store {
    pub root: PathBuf,
    /// Its lock keeps a second core away.
    dir: OwnedFd,
    deletions: AtomicU64,
}

/// How long a core that was killed may still hold its directory: a child that it was just making has the lock until it executes its program.
const FORMER_CORE_MAX: Duration = Duration::from_secs(1);
/// How often that is looked at.
const FORMER_CORE_LOOK: Duration = Duration::from_millis(5);

impl Store {
    /// Takes the directory (made with mode 0700 when missing) for this process alone.
    pub fn open(root: &Path) -> Result<Self, Failure> {
        let task = format!("taking the core's directory {}", root.display());
        let mut builder = fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder
            .recursive(true)
            .create(root)
            .map_err(|error| Failure::io(&task, &error))?;
        let lock = file::open(&root.to_string_lossy(), libc::O_RDONLY | libc::O_DIRECTORY)
            .map_err(|error| Failure::io(&task, &error))?;
        let deadline = Instant::now() + FORMER_CORE_MAX;
        while !file::try_lock(lock.as_fd()).map_err(|error| Failure::io(&task, &error))? {
            if Instant::now() < deadline {
                std::thread::sleep(FORMER_CORE_LOOK);
                continue;
            }
            return Err(Failure::new(
                FailureCode::Conflict,
                task,
                "another shoal-core serves it; stop that one or choose another --root",
            ));
        }
        Ok(Self {
            root: root.to_path_buf(),
            dir: lock,
            deletions: AtomicU64::new(0),
        })
    }

    /// Where a container's records are.
    pub fn container(&self, id: &str) -> PathBuf {
        self.root.join(id)
    }

    /// Where a creation's journal is.
    pub fn creating(&self, id: &str) -> PathBuf {
        self.root.join(format!("{}{id}", records::CREATING))
    }

    /// Begins a sandbox: a locked directory of a name that nobody else has, and its record. Its group will be beside those of containers,
    /// and so will its root be, if it is to have one.
    pub fn park(
        &self,
        template: &Spec,
        cgroup_parent: &str,
        root: Option<&Root>,
    ) -> Result<(PathBuf, OwnedFd, Parked), Failure> {
        // Unlike a counter, also told apart from those of another core under the same parent group.
        let name = format!(
            "{}{:016x}",
            records::PARKED,
            RandomState::new().build_hasher().finish()
        );
        let path = self.root.join(&name);
        let task = format!("beginning the sandbox {}", path.display());
        let record = Parked {
            template: template.clone(),
            cgroup: format!("{cgroup_parent}/{name}"),
            root: root.map(|root| Rootfs {
                layers: root.layers.clone(),
                directory: format!("{}/{name}", root.parent),
            }),
        };
        let act = || -> io::Result<OwnedFd> {
            fs::create_dir(&path)?;
            let dir = file::open(&path.to_string_lossy(), libc::O_RDONLY | libc::O_DIRECTORY)?;
            // Nobody else knows the name.
            file::try_lock(dir.as_fd())?;
            file::write_at(dir.as_fd(), records::PARKED_FILE, &records::encode(&record))?;
            Ok(dir)
        };
        let dir = act().map_err(|error| Failure::io(&task, &error))?;
        Ok((path, dir, record))
    }

    /// Makes a sandbox's directory that of a creation, with the journal in it; gives its path. The sandbox's monitor holds the lock.
    pub fn begin_parked(
        &self,
        parked: &Path,
        id: &str,
        journal: &[u8],
    ) -> Result<PathBuf, Failure> {
        let path = self.creating(id);
        let task = format!("beginning the creation of {}", path.display());
        let act = || -> io::Result<()> {
            // A leftover of an earlier attempt makes the rename fail, and the cold way knows what to do with it.
            let dir = file::open(
                &parked.to_string_lossy(),
                libc::O_RDONLY | libc::O_DIRECTORY,
            )?;
            file::write_at(dir.as_fd(), records::CREATE_FILE, journal)?;
            let root = self.dir.as_fd();
            let name = |path: &Path| {
                path.file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned()
            };
            file::rename_new(root, &name(parked), &name(&path))
        };
        act().map_err(|error| Failure::io(&task, &error))?;
        Ok(path)
    }

    /// Begins a creation: its locked directory with the journal in it. What an earlier attempt left is rolled back first.
    pub fn begin(
        &self,
        driver: &dyn Driver,
        create: &Create,
        journal: &[u8],
    ) -> Result<OwnedFd, Failure> {
        let path = self.creating(&create.container_id);
        let task = format!("beginning the creation of {}", path.display());
        let doing = |error: io::Error| Failure::io(&task, &error);
        if path.exists() {
            self.roll_back(driver, &path)?;
        }
        fs::create_dir(&path).map_err(doing)?;
        let dir = file::open(&path.to_string_lossy(), libc::O_RDONLY | libc::O_DIRECTORY)
            .map_err(doing)?;
        if !file::try_lock(dir.as_fd()).map_err(doing)? {
            return Err(Failure::new(
                FailureCode::Conflict,
                &task,
                "somebody else works on it",
            ));
        }
        file::write_at(dir.as_fd(), records::CREATE_FILE, journal).map_err(doing)?;
        Ok(dir)
    }

    /// Undoes a creation that was not committed: waits until nobody works on it, then removes processes, groups and files.
    pub fn roll_back(&self, driver: &dyn Driver, path: &Path) -> Result<(), Failure> {
        let task = format!("rolling back {}", path.display());
        let doing = |error: io::Error| Failure::io(&task, &error);
        let dir = match file::open(&path.to_string_lossy(), libc::O_RDONLY | libc::O_DIRECTORY) {
            // It was committed, or rolled back, meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(doing)?,
        };
        let deadline = Instant::now() + Duration::from_millis(LOCK_TIMEOUT_MS);
        while !file::try_lock(dir.as_fd()).map_err(doing)? {
            if Instant::now() > deadline {
                return Err(Failure::new(
                    FailureCode::Conflict,
                    &task,
                    format!("a monitor has held it for {LOCK_TIMEOUT_MS} ms; kill it"),
                ));
            }
            std::thread::sleep(Duration::from_millis(LOCK_RETRY_MS));
        }
        // The monitor may have committed while we waited: then the directory has another name and is no leftover.
        if !path.exists() {
            return Ok(());
        }
        if let Some(parked) = read::<Parked>(path, records::PARKED_FILE) {
            cgroup::destroy(driver, &parked.cgroup)?;
            if let Some(root) = parked.root {
                reaper::remove(Path::new(&root.directory)).map_err(doing)?;
            }
        }
        // Without a readable journal nothing else had been begun.
        if let Some(create) = read::<Create>(path, records::CREATE_FILE) {
            cgroup::destroy(driver, &create.spec.linux.cgroups_path)?;
            reaper::remove(Path::new(&create.rootfs.directory)).map_err(doing)?;
        }
        reaper::remove(path).map_err(doing)
    }

    /// Gives a container's id and root directory free at once; returns what is left to remove, the journal last.
    pub fn retire(&self, id: &str, directory: &Path) -> Result<Vec<PathBuf>, Failure> {
        let number = loop {
            let number = self.deletions.fetch_add(1, Ordering::Relaxed);
            if !self.retired(number, id).exists() && !trash(directory, number).exists() {
                break number;
            }
        };
        let task = format!("retiring container {id}");
        let journal = self.retired(number, id);
        fs::rename(self.container(id), &journal).map_err(|error| Failure::io(&task, &error))?;
        let trash = trash(directory, number);
        match fs::rename(directory, &trash) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                // It cannot be moved away (a mount point, say): then the caller waits for its removal.
                reaper::remove(directory).map_err(|error| Failure::io(&task, &error))?;
            }
            _ => {}
        }
        // From now on another container may use `directory`: the journal must not name it any more.
        fs::rename(
            journal.join(records::CREATE_FILE),
            journal.join(records::RETIRED_FILE),
        )
        .map_err(|error| Failure::io(&task, &error))?;
        Ok(vec![trash, journal])
    }

    fn retired(&self, number: u64, id: &str) -> PathBuf {
        self.root
            .join(format!("{}{number}-{id}", records::DELETING))
    }

    /// Every name in the directory.
    pub fn names(&self) -> Result<Vec<String>, Failure> {
        let task = || format!("scanning {}", self.root.display());
        let entries = fs::read_dir(&self.root).map_err(|error| Failure::io(task(), &error))?;
        Ok(entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect())
    }
}

/// What the remains of `.deleting-N-ID` are: the trash of its root directory, and that directory itself if the core died between the two renames.
pub fn remains(journal: &Path) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    let name = journal
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let number = name
        .strip_prefix(records::DELETING)
        .and_then(|rest| rest.split_once('-'))
        .and_then(|(number, _)| number.parse().ok());
    let begun = read::<Create>(journal, records::CREATE_FILE);
    let done = read::<Create>(journal, records::RETIRED_FILE);
    let moved = begun.is_none();
    if let (Some(number), Some(create)) = (number, begun.or(done)) {
        let directory = PathBuf::from(create.rootfs.directory);
        let trash = trash(&directory, number);
        if !moved && !trash.exists() {
            paths.push(directory);
        }
        paths.push(trash);
    }
    paths.push(journal.to_path_buf());
    paths
}

fn trash(directory: &Path, number: u64) -> PathBuf {
    let mut name = directory.as_os_str().to_owned();
    name.push(format!(".deleted-{number}"));
    name.into()
}

/// A record of a container; None when it is not there or not whole.
pub fn read<T: serde::de::DeserializeOwned>(dir: &Path, name: &str) -> Option<T> {
    serde_json::from_slice(&fs::read(dir.join(name)).ok()?).ok()
}

/// The two records that tell what became of a container.
pub fn read_exit(dir: &Path) -> Option<ExitRecord> {
    read(dir, records::EXIT_FILE)
}

/// Who ran it.
pub fn read_state(dir: &Path) -> Option<State> {
    read(dir, records::STATE_FILE)
}

/// Writes an exit record durably on behalf of a monitor that died.
pub fn write_exit(dir: &Path, record: &ExitRecord) -> io::Result<()> {
    let dir = file::open(&dir.to_string_lossy(), libc::O_RDONLY | libc::O_DIRECTORY)?;
    file::write_durable_at(dir.as_fd(), records::EXIT_FILE, &records::encode(record))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A deletion stopped at each of its steps: what a later start may remove.
    #[test]
    fn remains_never_names_a_directory_that_has_been_given_free() {
        let dir = std::env::temp_dir().join(format!("shoal-store-{}", std::process::id()));
        let journal = dir.join(format!("{}7-a", records::DELETING));
        let root = dir.join("root");
        fs::create_dir_all(&journal).expect("dir");
        fs::create_dir_all(&root).expect("dir");
        let create = serde_json::json!({"containerId": "a", "spec": {}, "rootfs": {"layers": [], "directory": root}, "log": null});
        fs::write(journal.join(records::CREATE_FILE), create.to_string()).expect("journal");
        let trash = dir.join("root.deleted-7");
        // Died before the root was moved away.
        assert_eq!(
            remains(&journal),
            [root.clone(), trash.clone(), journal.clone()]
        );
        // Died after it was moved; somebody may have made a new one since.
        fs::rename(&root, &trash).expect("moved");
        fs::create_dir(&root).expect("a new one");
        assert_eq!(remains(&journal), [trash.clone(), journal.clone()]);
        // Died after the trash was removed.
        fs::rename(
            journal.join(records::CREATE_FILE),
            journal.join(records::RETIRED_FILE),
        )
        .expect("marked");
        fs::remove_dir_all(&trash).expect("removed");
        assert_eq!(remains(&journal), [trash, journal.clone()]);
        fs::remove_dir_all(&dir).expect("clean");
    }

    #[test]
    fn open_refuses_a_second_holder() {
        let dir = std::env::temp_dir().join(format!("shoal-store-lock-{}", std::process::id()));
        let first = Store::open(&dir).expect("first");
        assert!(Store::open(&dir).is_err());
        drop(first);
        assert!(Store::open(&dir).is_ok());
        fs::remove_dir_all(&dir).expect("clean");
    }
}
