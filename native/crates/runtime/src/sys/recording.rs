//! A fake kernel for unit tests: it knows an image's files, answers as Linux does, and writes down every call that changes something.

use super::calls::{Calls, Change};
use super::file::{NO_SYMLINKS, Stat};
use super::mount;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

const PROC_SUPER_MAGIC: i64 = 0x9fa0;
const TMPFS_MAGIC: i64 = 0x0102_1994;
const LINKS_MAX: u32 = 40;

/// A file of the image or of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    Dir,
    File,
    Link(&'static str),
    Char(u32, u32),
}

/// The fake. The container's root is `/r` of the host; its paths are written as they are in the container, the host's as `host:/x`.
#[derive(Default)]
pub struct Recording {
    log: RefCell<Vec<String>>,
    files: RefCell<BTreeMap<String, Entry>>,
    /// Where a file system is mounted in the container, and its type.
    mounted: RefCell<Vec<(String, String)>>,
    names: RefCell<BTreeMap<RawFd, String>>,
    drafts: RefCell<BTreeMap<RawFd, Vec<String>>>,
    /// (beginning of a line of the log, errno): such a call is refused, and written down with a leading `!`.
    pub refuse: Vec<(&'static str, i32)>,
}

fn errno<T>(number: i32) -> io::Result<T> {
    Err(io::Error::from_raw_os_error(number))
}

impl Recording {
    /// A fake with these files: `/x` in the image, `host:/x` on the host.
    pub fn new(files: &[(&str, Entry)]) -> Self {
        let fake = Self::default();
        let mut known: BTreeMap<String, Entry> = files
            .iter()
            .map(|(path, entry)| ((*path).to_owned(), entry.clone()))
            .collect();
        known.insert("/".into(), Entry::Dir);
        known.insert("host:/r".into(), Entry::Dir);
        known
            .entry("host:/dev/null".into())
            .or_insert(Entry::Char(1, 3));
        *fake.files.borrow_mut() = known;
        fake
    }

    /// Everything that was done, in order.
    pub fn lines(&self) -> Vec<String> {
        self.log.borrow().clone()
    }

    fn say(&self, line: String) -> io::Result<()> {
        let refused = self
            .refuse
            .iter()
            .find(|(begin, _)| line.starts_with(begin))
            .map(|(_, errno)| *errno);
        let mark = if refused.is_some() { "!" } else { "" };
        self.log.borrow_mut().push(format!("{mark}{line}"));
        refused.map_or(Ok(()), errno)
    }

    fn give(&self, name: String) -> io::Result<OwnedFd> {
        let fd = OwnedFd::from(std::fs::File::open("/dev/null")?);
        self.names.borrow_mut().insert(fd.as_raw_fd(), name);
        Ok(fd)
    }

    fn name(&self, fd: BorrowedFd<'_>) -> String {
        self.names
            .borrow()
            .get(&fd.as_raw_fd())
            .cloned()
            .unwrap_or_else(|| "?".into())
    }

    fn entry(&self, name: &str) -> Option<Entry> {
        if let Some(path) = name.strip_prefix("copy(") {
            return self.entry(path.trim_end_matches(')'));
        }
        if name.starts_with("new(") && !name.contains(")/") {
            return Some(Entry::Dir);
        }
        self.files.borrow().get(name).cloned()
    }

    fn below(name: &str, part: &str) -> String {
        if part == "." || part.is_empty() {
            name.to_owned()
        } else if name == "/" {
            format!("/{part}")
        } else {
            format!("{name}/{part}")
        }
    }

    /// Walks a path from a directory as openat2 does; links are confined to the container's root.
    fn walk(&self, from: &str, path: &str, follow: bool, links: u32) -> io::Result<String> {
        let mut at = from.to_owned();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            if self.entry(&at) != Some(Entry::Dir) {
                return errno(libc::ENOTDIR);
            }
            if part == ".." {
                let above = at.rsplit_once('/').map_or("", |(above, _)| above);
                at = if above.is_empty() { "/" } else { above }.to_owned();
                continue;
            }
            let next = Self::below(&at, part);
            at = match self.entry(&next) {
                None => return errno(libc::ENOENT),
                Some(Entry::Link(_)) if !follow || links == 0 => return errno(libc::ELOOP),
                Some(Entry::Link(target)) => {
                    let base = if target.starts_with('/') { "/" } else { &at };
                    self.walk(base, target, follow, links - 1)?
                }
                Some(_) => next,
            };
        }
        Ok(at)
    }

    fn create(&self, name: &str, entry: Entry) -> io::Result<()> {
        let mut files = self.files.borrow_mut();
        if files.contains_key(name) {
            return errno(libc::EEXIST);
        }
        files.insert(name.to_owned(), entry);
        Ok(())
    }
}

impl Calls for Recording {
    fn fs_open(&self, kind: &str) -> io::Result<OwnedFd> {
        let fd = self.give(format!("draft({kind})"))?;
        self.drafts
            .borrow_mut()
            .insert(fd.as_raw_fd(), vec![kind.to_owned()]);
        Ok(fd)
    }

    fn fs_set(&self, fs: BorrowedFd<'_>, key: &str, value: Option<&str>) -> io::Result<()> {
        let text = value.map_or(key.to_owned(), |value| format!("{key}={value}"));
        if key != "source" {
            let mut drafts = self.drafts.borrow_mut();
            drafts.entry(fs.as_raw_fd()).or_default().push(text);
        }
        Ok(())
    }

    fn fs_mount(&self, fs: BorrowedFd<'_>, attributes: u64) -> io::Result<OwnedFd> {
        let draft = self
            .drafts
            .borrow_mut()
            .remove(&fs.as_raw_fd())
            .unwrap_or_default();
        let kind = draft.first().cloned().unwrap_or_default();
        self.say(format!("new {} {}", draft.join(","), words(attributes)))?;
        self.give(format!("new({kind})"))
    }

    fn fs_complaint(&self, _fs: BorrowedFd<'_>) -> Option<String> {
        None
    }

    fn clone_tree(&self, of: BorrowedFd<'_>, recursive: bool) -> io::Result<OwnedFd> {
        let name = self.name(of);
        let how = if recursive { " recursive" } else { "" };
        self.say(format!("copy {name}{how}"))?;
        // The copy of the directory that the root comes from is the container's root.
        self.give(if name == "host:/r" {
            "/".into()
        } else {
            format!("copy({name})")
        })
    }

    fn clone_path(&self, path: &str, recursive: bool) -> io::Result<OwnedFd> {
        let of = self.open(path, libc::O_PATH)?;
        self.clone_tree(of.as_fd(), recursive)
    }

    fn attach_at(&self, tree: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &str) -> io::Result<()> {
        let at = self.open_at(dir, name, libc::O_PATH, 0)?;
        self.attach(tree, at.as_fd())
    }

    fn attach(&self, tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
        let (tree, target) = (self.name(tree), self.name(target));
        self.say(format!("attach {tree} to {target}"))?;
        let kind = tree
            .strip_prefix("new(")
            .map(|kind| kind.trim_end_matches(')').to_owned());
        if let Some(kind) = kind {
            // What the image has below is hidden.
            let below = format!("{target}/");
            self.files
                .borrow_mut()
                .retain(|path, _| !path.starts_with(&below));
            if kind == "proc" {
                for name in ["sys", "kcore", "asound"] {
                    let entry = if name == "kcore" {
                        Entry::File
                    } else {
                        Entry::Dir
                    };
                    let path = Self::below(&target, name);
                    self.files.borrow_mut().insert(path, entry);
                }
            }
            self.mounted.borrow_mut().push((target, kind));
        }
        Ok(())
    }

    fn change_mount(
        &self,
        of: BorrowedFd<'_>,
        change: &Change<'_>,
        recursive: bool,
    ) -> io::Result<()> {
        let how = if recursive { " recursive" } else { "" };
        let mut text = format!("change {}{how}", self.name(of));
        if change.set != 0 {
            text += &format!(" +{}", words(change.set));
        }
        if change.clear != 0 {
            text += &format!(" -{}", words(change.clear));
        }
        if change.propagation != 0 {
            text += &format!(" {}", propagation(change.propagation));
        }
        if change.owners.is_some() {
            text += " mapped";
        }
        self.say(text)
    }

    fn mount(
        &self,
        source: &str,
        target: &str,
        kind: &str,
        flags: libc::c_ulong,
        data: &str,
    ) -> io::Result<()> {
        let target = target
            .strip_prefix("/proc/self/fd/")
            .and_then(|number| number.parse::<RawFd>().ok())
            .and_then(|fd| self.names.borrow().get(&fd).cloned())
            .unwrap_or_else(|| target.to_owned());
        let how = match flags {
            0 => String::new(),
            flags => format!(" {}", propagation(flags)),
        };
        self.say(format!("mount {source:?} {target} {kind:?}{how} {data:?}"))
    }

    fn open(&self, path: &str, flags: i32) -> io::Result<OwnedFd> {
        let name = format!("host:{path}");
        match self.entry(&name) {
            None => errno(libc::ENOENT),
            Some(entry) if flags & libc::O_DIRECTORY != 0 && entry != Entry::Dir => {
                errno(libc::ENOTDIR)
            }
            Some(_) => self.give(name),
        }
    }

    fn open_at(
        &self,
        dir: BorrowedFd<'_>,
        name: &str,
        flags: i32,
        _mode: u32,
    ) -> io::Result<OwnedFd> {
        let path = Self::below(&self.name(dir), name);
        if flags & libc::O_CREAT != 0 {
            self.say(format!("create {path}"))?;
            self.create(&path, Entry::File)?;
        }
        match self.entry(&path) {
            None => errno(libc::ENOENT),
            Some(Entry::Link(_)) if flags & libc::O_PATH == 0 => errno(libc::ELOOP),
            Some(_) => self.give(path),
        }
    }

    fn open_at2(
        &self,
        dir: BorrowedFd<'_>,
        path: &str,
        flags: i32,
        resolve: u64,
    ) -> io::Result<OwnedFd> {
        let from = self.name(dir);
        if from.starts_with("new(proc)") {
            return self.give(format!("{from}/{path}"));
        }
        let found = self.walk(&from, path, resolve & NO_SYMLINKS == 0, LINKS_MAX)?;
        if flags & libc::O_DIRECTORY != 0 && self.entry(&found) != Some(Entry::Dir) {
            return errno(libc::ENOTDIR);
        }
        self.give(found)
    }

    fn make_dir_at(&self, dir: BorrowedFd<'_>, name: &str, mode: u32) -> io::Result<()> {
        let path = Self::below(&self.name(dir), name);
        self.say(format!("mkdir {path} {mode:o}"))?;
        self.create(&path, Entry::Dir)
    }

    fn make_node_at(
        &self,
        dir: BorrowedFd<'_>,
        name: &str,
        mode: u32,
        device: (u32, u32),
    ) -> io::Result<()> {
        let path = Self::below(&self.name(dir), name);
        self.say(format!("mknod {path} {mode:o} {}:{}", device.0, device.1))?;
        self.create(&path, Entry::Char(device.0, device.1))
    }

    fn symlink_at(&self, target: &str, dir: BorrowedFd<'_>, name: &str) -> io::Result<()> {
        let path = Self::below(&self.name(dir), name);
        self.say(format!("symlink {path} {target}"))?;
        self.create(&path, Entry::Link("made"))
    }

    fn read_link_at(&self, dir: BorrowedFd<'_>, name: &str) -> io::Result<String> {
        match self.entry(&Self::below(&self.name(dir), name)) {
            Some(Entry::Link(target)) => Ok(target.to_owned()),
            Some(_) => errno(libc::EINVAL),
            None => errno(libc::ENOENT),
        }
    }

    fn unlink_at(&self, dir: BorrowedFd<'_>, name: &str) -> io::Result<()> {
        let path = Self::below(&self.name(dir), name);
        self.say(format!("unlink {path}"))?;
        self.files.borrow_mut().remove(&path);
        Ok(())
    }

    fn change_owner_at(
        &self,
        dir: BorrowedFd<'_>,
        name: &str,
        uid: u32,
        gid: u32,
    ) -> io::Result<()> {
        let path = Self::below(&self.name(dir), name);
        self.say(format!("chown {path} {uid}:{gid}"))
    }

    fn change_mode_at(&self, dir: BorrowedFd<'_>, name: &str, mode: u32) -> io::Result<()> {
        let path = Self::below(&self.name(dir), name);
        self.say(format!("chmod {path} {mode:o}"))
    }

    fn stat(&self, fd: BorrowedFd<'_>) -> io::Result<Stat> {
        let (mode, major, minor) = match self.entry(&self.name(fd)) {
            Some(Entry::Dir) => (libc::S_IFDIR | 0o755, 0, 0),
            Some(Entry::File) => (libc::S_IFREG | 0o644, 0, 0),
            Some(Entry::Link(_)) => (libc::S_IFLNK | 0o777, 0, 0),
            Some(Entry::Char(major, minor)) => (libc::S_IFCHR | 0o666, major, minor),
            None => return errno(libc::EBADF),
        };
        Ok(Stat {
            mode,
            uid: 0,
            gid: 0,
            major,
            minor,
            device: 1,
            inode: 1,
        })
    }

    fn file_system(&self, fd: BorrowedFd<'_>) -> io::Result<i64> {
        let name = self.name(fd);
        let proc_itself = name.starts_with("new(proc)") || name.contains("host:/proc");
        let on_proc = self
            .mounted
            .borrow()
            .iter()
            .filter(|(at, _)| name == *at || name.starts_with(&format!("{at}/")))
            .max_by_key(|(at, _)| at.len())
            .is_some_and(|(_, kind)| kind == "proc");
        Ok(if proc_itself || on_proc {
            PROC_SUPER_MAGIC
        } else {
            TMPFS_MAGIC
        })
    }

    fn is_read_only(&self, _fd: BorrowedFd<'_>) -> io::Result<bool> {
        Ok(false)
    }

    fn mount_flags(&self, _fd: BorrowedFd<'_>) -> io::Result<u64> {
        Ok(0)
    }

    fn write(&self, fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
        let text = String::from_utf8_lossy(bytes).into_owned();
        self.say(format!("write {} {text:?}", self.name(fd)))
    }

    fn change_dir(&self, to: BorrowedFd<'_>) -> io::Result<()> {
        self.say(format!("chdir {}", self.name(to)))
    }

    fn pivot_root_here(&self) -> io::Result<()> {
        self.say("pivot".into())
    }

    fn unmount(&self, target: &CStr, _flags: i32) -> io::Result<()> {
        self.say(format!("unmount {}", target.to_string_lossy()))
    }

    fn change_root_here(&self) -> io::Result<()> {
        self.say("chroot".into())
    }

    fn change_dir_to_root(&self) -> io::Result<()> {
        self.say("chdir to /".into())
    }
}

/// Attributes by name.
fn words(attributes: u64) -> String {
    const NAMES: [(u64, &str); 7] = [
        (mount::ATTR_RDONLY, "ro"),
        (mount::ATTR_NOSUID, "nosuid"),
        (mount::ATTR_NODEV, "nodev"),
        (mount::ATTR_NOEXEC, "noexec"),
        (mount::ATTR_NOATIME, "noatime"),
        (mount::ATTR_STRICTATIME, "strictatime"),
        (mount::ATTR_NOSYMFOLLOW, "nosymfollow"),
    ];
    let words: Vec<&str> = NAMES
        .iter()
        .filter(|(bit, _)| attributes & bit != 0)
        .map(|(_, name)| *name)
        .collect();
    words.join(",")
}

/// Propagation and the flags of mount(2) that tests look at, by name.
fn propagation(flags: u64) -> String {
    const NAMES: [(u64, &str); 9] = [
        (libc::MS_REC, "recursive"),
        (libc::MS_PRIVATE, "private"),
        (libc::MS_SLAVE, "slave"),
        (libc::MS_SHARED, "shared"),
        (libc::MS_UNBINDABLE, "unbindable"),
        (libc::MS_RDONLY, "ro"),
        (libc::MS_NOSUID, "nosuid"),
        (libc::MS_NODEV, "nodev"),
        (libc::MS_SYNCHRONOUS, "sync"),
    ];
    let words: Vec<&str> = NAMES
        .iter()
        .filter(|(bit, _)| flags & bit != 0)
        .map(|(_, name)| *name)
        .collect();
    words.join(",")
}
