//! The few file operations that control groups are driven by, so that a test can record them.

use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

/// Operations on cgroupfs.
pub trait Files: Send + Sync {
    /// Makes one directory; AlreadyExists is an error.
    fn make_dir(&self, path: &Path) -> io::Result<()>;
    /// Removes one empty group.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Writes a control file in one call; it must be there.
    fn write(&self, path: &Path, value: &str) -> io::Result<()>;
    /// Writes several values to one control file, each in a call of its own, through one descriptor; the index of the one
    /// that failed comes with the error.
    fn write_each(&self, path: &Path, values: &[String]) -> Result<(), (usize, io::Error)>;
    /// Opens a control file for writing.
    fn open(&self, path: &Path) -> io::Result<OwnedFd>;
    /// Whether a file is there.
    fn exists(&self, path: &Path) -> bool;
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
        whole(&mut open(path)?, value)
    }
    fn write_each(&self, path: &Path, values: &[String]) -> Result<(), (usize, io::Error)> {
        let mut file = open(path).map_err(|error| (0, error))?;
        for (index, value) in values.iter().enumerate() {
            whole(&mut file, value).map_err(|error| (index, error))?;
        }
        Ok(())
    }
    fn open(&self, path: &Path) -> io::Result<OwnedFd> {
        open(path).map(OwnedFd::from)
    }
    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }
    fn read(&self, path: &Path) -> io::Result<String> {
        fs::read_to_string(path)
    }
}

fn open(path: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new().write(true).open(path)
}

/// A control file takes a value in one call or not at all: a second one would be another value.
fn whole(file: &mut fs::File, value: &str) -> io::Result<()> {
    loop {
        match file.write(value.as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(count) if count < value.len() => {
                return Err(io::Error::from_raw_os_error(libc::EINVAL));
            }
            other => return other.map(drop),
        }
    }
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
        /// File or directory names with the errno of their next uses, each used up once.
        pub refusals: Arc<Mutex<Vec<(String, i32)>>>,
        pub missing: Vec<&'static str>,
        /// What files hold, by name or, for one group only, by whole path.
        pub contents: Vec<(&'static str, &'static str)>,
    }

    impl Recording {
        pub fn lines(&self) -> Vec<String> {
            self.log.lock().expect("log").clone()
        }
        pub fn forget(&self) {
            self.log.lock().expect("log").clear();
        }
        /// The next use of a file (or mkdir of a directory) of this name fails.
        pub fn refuse_once(&self, name: &str, errno: i32) {
            self.refusals
                .lock()
                .expect("refusals")
                .push((name.to_owned(), errno));
        }
        fn say(&self, line: String) {
            self.log.lock().expect("log").push(line);
        }
        fn refused(&self, path: &Path) -> io::Result<()> {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let mut refusals = self.refusals.lock().expect("refusals");
            let whole = path.to_string_lossy();
            match refusals
                .iter()
                .position(|(refused, _)| *refused == name || *refused == whole)
            {
                Some(index) => Err(io::Error::from_raw_os_error(refusals.remove(index).1)),
                None if self.missing.iter().any(|missing| *missing == name) => {
                    Err(io::Error::from_raw_os_error(libc::ENOENT))
                }
                None => Ok(()),
            }
        }
    }

    impl Files for Recording {
        fn make_dir(&self, path: &Path) -> io::Result<()> {
            self.refused(path)?;
            let mut dirs = self.dirs.lock().expect("dirs");
            // The mounts themselves are two levels deep at most and always there.
            let parent = path.parent().unwrap_or(Path::new("/"));
            if parent.components().count() > 3 && !dirs.contains(parent) {
                return Err(io::Error::from_raw_os_error(libc::ENOENT));
            }
            if !dirs.insert(path.to_path_buf()) {
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
            self.refused(path)?;
            self.say(format!("{}={value}", path.display()));
            Ok(())
        }
        fn write_each(&self, path: &Path, values: &[String]) -> Result<(), (usize, io::Error)> {
            for (index, value) in values.iter().enumerate() {
                self.write(path, value).map_err(|error| (index, error))?;
            }
            Ok(())
        }
        fn open(&self, path: &Path) -> io::Result<OwnedFd> {
            self.refused(path)?;
            let parent = path.parent().unwrap_or(Path::new("/"));
            if !self.dirs.lock().expect("dirs").contains(parent) {
                return Err(io::Error::from_raw_os_error(libc::ENOENT));
            }
            self.say(format!("open {}", path.display()));
            fs::File::open("/dev/null").map(OwnedFd::from)
        }
        fn exists(&self, path: &Path) -> bool {
            self.read(path).is_ok()
        }
        fn read(&self, path: &Path) -> io::Result<String> {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let whole = path.to_string_lossy();
            let held = |wanted: &str| self.contents.iter().find(|(known, _)| *known == wanted);
            held(&whole)
                .or_else(|| held(&name))
                .map(|(_, text)| (*text).to_owned())
                .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))
        }
    }
}
