//! Directories of groups: making one fresh, what is in it, and removing it with everything made inside.

use super::files::Files;
use crate::sys::is;
use shoal_protocol::{Failure, FailureCode};
use std::io;
use std::path::{Path, PathBuf};

/// How often the way to a group is made again when somebody removes it meanwhile.
const MAKE_ATTEMPTS: u32 = 8;

/// The directories that were made for a container, to be taken back when the rest cannot be done.
#[derive(Default)]
pub struct Made(Vec<PathBuf>);

impl Made {
    /// Removes them again; one that is used by now stays.
    pub fn undo(self, files: &dyn Files) {
        for dir in self.0.iter().rev() {
            // Another container may have come into a parent by now: its directory is then not ours any more.
            drop(files.remove_dir(dir));
        }
    }
}

/// The directory of the group `path` below a mount.
pub fn join(mount: &Path, path: &str) -> PathBuf {
    mount.join(path.trim_start_matches('/'))
}

/// Makes the group fresh, with its parents. A leftover without processes is replaced, so that no limit of a former container
/// stays; one with processes, or frozen, belongs to somebody and is an error that says so (in runc's words).
pub fn make(
    files: &dyn Files,
    mount: &Path,
    path: &str,
    made: &mut Made,
) -> Result<PathBuf, Failure> {
    let dir = join(mount, path);
    for _ in 1..MAKE_ATTEMPTS {
        match files.make_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                vacate(files, &dir)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_parents(files, mount, path, made)?;
            }
            Err(error) => return Err(unmade(&dir, &error)),
            Ok(()) => {
                made.0.push(dir.clone());
                return Ok(dir);
            }
        }
    }
    files
        .make_dir(&dir)
        .map_err(|error| unmade(&dir, &error))
        .map(|()| made.0.push(dir.clone()))?;
    Ok(dir)
}

fn make_parents(
    files: &dyn Files,
    mount: &Path,
    path: &str,
    made: &mut Made,
) -> Result<(), Failure> {
    for dir in parents(mount, path) {
        match files.make_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(unmade(&dir, &error)),
            Ok(()) => made.0.push(dir),
        }
    }
    Ok(())
}

/// The groups between a mount and a group, from the top, without either.
pub fn parents(mount: &Path, path: &str) -> Vec<PathBuf> {
    let mut dir = mount.to_path_buf();
    let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    parts.pop();
    parts
        .into_iter()
        .map(|part| {
            dir.push(part);
            dir.clone()
        })
        .collect()
}

/// Removes a leftover, when it is one.
fn vacate(files: &dyn Files, dir: &Path) -> Result<(), Failure> {
    let doing = format!(
        "unable to apply cgroup configuration: making cgroup {}",
        dir.display()
    );
    let held = |name: &str| files.read(&dir.join(name)).unwrap_or_default();
    if matches!(held("freezer.state").trim(), "FROZEN" | "FREEZING")
        || held("cgroup.freeze").trim() == "1"
    {
        return Err(Failure::new(
            FailureCode::Conflict,
            doing,
            "container's cgroup unexpectedly frozen",
        ));
    }
    let occupied = |count: usize| {
        Failure::new(
            FailureCode::Conflict,
            doing.clone(),
            format!("container's cgroup is not empty: {count} process(es) found"),
        )
    };
    let count = held("cgroup.procs").lines().count();
    if count > 0 {
        return Err(occupied(count));
    }
    match remove_tree(files, dir) {
        Err(error) if is(&error, libc::EBUSY) => Err(occupied(pids(&[dir.to_path_buf()]).len())),
        Err(error) => Err(Failure::io(doing, &error)),
        Ok(()) => Ok(()),
    }
}

/// A group that cannot be made, in words that runc's callers look for.
fn unmade(dir: &Path, error: &io::Error) -> Failure {
    let mut failure = Failure::io(
        format!(
            "unable to apply cgroup configuration: making cgroup {}",
            dir.display()
        ),
        error,
    );
    if is(error, libc::EACCES) {
        failure.message = "permission denied".into();
    }
    failure
}

/// Every process of the directories' groups and of those below, in the caller's pid namespace.
pub fn pids(dirs: &[PathBuf]) -> Vec<i32> {
    let mut found = Vec::new();
    for dir in dirs {
        collect(dir, &mut found);
    }
    found.sort_unstable();
    found.dedup();
    found
}

fn collect(dir: &Path, found: &mut Vec<i32>) {
    let text = match std::fs::read_to_string(dir.join("cgroup.procs")) {
        // A threaded v2 group lists its processes in the threaded domain above, but its threads here.
        Err(error) if is(&error, libc::EOPNOTSUPP) => {
            std::fs::read_to_string(dir.join("cgroup.threads"))
        }
        other => other,
    };
    let Ok(text) = text else {
        return;
    };
    found.extend(
        text.lines()
            .filter_map(|line| line.parse::<i32>().ok())
            .filter(|pid| *pid > 0),
    );
    for below in subgroups(dir) {
        collect(&below, found);
    }
}

fn subgroups(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Removes a group and those made inside it; one that is gone already is fine, one with processes is EBUSY.
pub fn remove_tree(files: &dyn Files, dir: &Path) -> io::Result<()> {
    let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    match files.remove_dir(dir) {
        Err(error) if gone(&error) => Ok(()),
        Err(error) if is(&error, libc::EBUSY) => {
            for below in subgroups(dir) {
                remove_tree(files, &below)?;
            }
            match files.remove_dir(dir) {
                Err(error) if gone(&error) => Ok(()),
                other => other,
            }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::super::files::recording::Recording;
    use super::*;

    #[test]
    fn make_makes_parents_only_when_they_are_missing() {
        let recording = Recording::default();
        let mut made = Made::default();
        for path in ["/p/q/a", "/p/q/b"] {
            make(&recording, Path::new("/c/m"), path, &mut made).expect(path);
        }
        assert_eq!(
            recording.lines(),
            [
                "mkdir /c/m/p",
                "mkdir /c/m/p/q",
                "mkdir /c/m/p/q/a",
                "mkdir /c/m/p/q/b"
            ]
        );
        recording.forget();
        made.undo(&recording);
        assert_eq!(
            recording.lines(),
            [
                "rmdir /c/m/p/q/b",
                "rmdir /c/m/p/q/a",
                "rmdir /c/m/p/q",
                "rmdir /c/m/p"
            ]
        );
    }

    #[test]
    fn make_replaces_a_leftover_and_refuses_what_is_somebodys() {
        let mount = Path::new("/c/m");
        let leftover = Recording::default();
        for _ in 0..2 {
            make(&leftover, mount, "/a", &mut Made::default()).expect("made");
        }
        assert_eq!(
            leftover.lines(),
            ["mkdir /c/m/a", "rmdir /c/m/a", "mkdir /c/m/a"]
        );
        for (held, want) in [
            (
                ("cgroup.procs", "1\n2\n"),
                "container's cgroup is not empty: 2 process(es)",
            ),
            (
                ("freezer.state", "FROZEN\n"),
                "container's cgroup unexpectedly frozen",
            ),
            (
                ("cgroup.freeze", "1\n"),
                "container's cgroup unexpectedly frozen",
            ),
        ] {
            let taken = Recording {
                contents: vec![held],
                ..Recording::default()
            };
            taken.dirs.lock().expect("dirs").insert("/c/m/a".into());
            let refused = make(&taken, mount, "/a", &mut Made::default()).expect_err(want);
            assert!(refused.to_string().contains(want), "{refused}");
            assert!(
                taken.lines().is_empty(),
                "nothing of somebody else's is touched"
            );
        }
    }

    #[test]
    fn make_says_permission_denied_as_runc_does() {
        let recording = Recording::default();
        recording.refuse_once("a", libc::EACCES);
        let refused = make(&recording, Path::new("/c/m"), "/a", &mut Made::default())
            .expect_err("no permission");
        assert_eq!(refused.errno, Some(libc::EACCES));
        assert_eq!(
            refused.to_string(),
            "unable to apply cgroup configuration: making cgroup /c/m/a: permission denied"
        );
    }
}
