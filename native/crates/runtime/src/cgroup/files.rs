//! The few file operations that control groups are driven by, so that a test can record them.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

/// Operations on cgroupfs.
pub trait Files: Send + Sync {
    /// Makes one directory; AlreadyExists is an error.
    fn make_dir(&self, path: &Path) -> io::Result<()>;
    /// Removes one empty group.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Writes a control file in one call; it must be there.
    fn write(&self, path: &Path, value: &str) -> io::Result<()>;
    /// Reads a control file.
    fn read(&self, path: &Path) -> io::Result<String>;
}

/// The real thing.
pub struct Kernel;

impl Files for Kernel {
    fn make_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }
    fn write(&self, path: &Path, value: &str) -> io::Result<()> {
        fs::OpenOptions::new()
            .write(true)
            .open(path)?
            .write_all(value.as_bytes())
    }
    fn read(&self, path: &Path) -> io::Result<String> {
        fs::read_to_string(path)
    }
}

/// Makes the group `path` below `mount`, with its parents; `each` runs on every parent that was made or found.
/// A leftover group without processes is replaced, so that no limit of a former container stays.
pub fn make_group(
    files: &dyn Files,
    mount: &Path,
    path: &str,
    each: &mut dyn FnMut(&Path) -> io::Result<()>,
) -> io::Result<std::path::PathBuf> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let mut dir = mount.to_path_buf();
    let exists = |error: &io::Error| error.kind() == io::ErrorKind::AlreadyExists;
    for (index, part) in parts.iter().enumerate() {
        each(&dir)?;
        dir.push(part);
        let last = index + 1 == parts.len();
        match files.make_dir(&dir) {
            Err(error) if exists(&error) && last => {
                files.remove_dir(&dir)?;
                files.make_dir(&dir)?;
            }
            Err(error) if exists(&error) => {}
            other => other?,
        }
    }
    Ok(dir)
}

#[cfg(test)]
pub(crate) mod recording {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::PathBuf;
    use std::sync::{Arc, Mutex};

    /// Remembers directories and every write, in order; the files named in `missing` are not there.
    #[derive(Default, Clone)]
    pub struct Recording {
        pub log: Arc<Mutex<Vec<String>>>,
        pub dirs: Arc<Mutex<BTreeSet<PathBuf>>>,
        pub missing: Vec<&'static str>,
        pub contents: Vec<(&'static str, &'static str)>,
    }

    impl Recording {
        pub fn lines(&self) -> Vec<String> {
            self.log.lock().expect("log").clone()
        }
        fn say(&self, line: String) {
            self.log.lock().expect("log").push(line);
        }
    }

    impl Files for Recording {
        fn make_dir(&self, path: &Path) -> io::Result<()> {
            if !self.dirs.lock().expect("dirs").insert(path.to_path_buf()) {
                return Err(io::Error::from_raw_os_error(libc::EEXIST));
            }
            self.say(format!("mkdir {}", path.display()));
            Ok(())
        }
        fn remove_dir(&self, path: &Path) -> io::Result<()> {
            self.dirs.lock().expect("dirs").remove(path);
            self.say(format!("rmdir {}", path.display()));
            Ok(())
        }
        fn write(&self, path: &Path, value: &str) -> io::Result<()> {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if self.missing.iter().any(|missing| *missing == name) {
                return Err(io::Error::from_raw_os_error(libc::ENOENT));
            }
            self.say(format!("{}={value}", path.display()));
            Ok(())
        }
        fn read(&self, path: &Path) -> io::Result<String> {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            self.contents
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, text)| (*text).to_owned())
                .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))
        }
    }
}
