//! The files of a container, from its own mount namespace to the pivot: planned as a whole, then built in the order that runtimes agree on.

mod bare;

use crate::labels::Modules;
use crate::mounts::{self, Mounter, Owners, PlannedMount, Surroundings};
use crate::sandbox::STAGED;
use crate::sys::{Calls, Change, mount};
use crate::within::{self, Kind};
use crate::{devices, masks, mount_options, root, sysctl};
use shoal_protocol::calls::Rootfs;
use shoal_protocol::oci::Spec;
use shoal_protocol::{Failure, FailureCode};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Where the root comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootSource {
    /// Unpacked layers under a writable one.
    Overlay(Rootfs),
    /// A directory of the host, by absolute path.
    Directory(PathBuf),
    /// A small file system in memory, mounted on this directory: the root of a sandbox until it has a container.
    Staging(PathBuf),
}

/// Everything about the files of a container, checked before anything is made.
#[derive(Debug, Clone)]
pub struct Plan {
    pub source: RootSource,
    pub mounts: Vec<PlannedMount>,
    /// What is made in /dev besides the default ones; None where the configuration binds a /dev of the host.
    devices: Option<Vec<devices::Node>>,
    masked: Vec<Vec<String>>,
    readonly_paths: Vec<Vec<String>>,
    readonly: bool,
    sysctl: BTreeMap<String, String>,
    /// (`MS_*`, recursive) of `linux.rootfsPropagation`.
    propagation: Option<(u64, bool)>,
    working_directory: Vec<String>,
    mount_label: String,
    /// `CLONE_NEW*` of the container's own namespaces, made or joined.
    owned: u64,
}

/// Trees of mounts that had to be opened outside the container's user namespace, by the mount's place in the list.
#[derive(Debug, Default)]
pub struct Sources(Vec<Option<OwnedFd>>);

impl Sources {
    /// The trees of all binds, in the order of the mounts.
    pub(crate) fn of_binds(plan: &Plan, trees: Vec<OwnedFd>) -> Self {
        let mut trees = trees.into_iter();
        let of = |planned: &PlannedMount| {
            if planned.options.bind {
                trees.next()
            } else {
                None
            }
        };
        Self(plan.mounts.iter().map(of).collect())
    }

    /// The descriptors' numbers, for who closes all others.
    pub fn fds(&self) -> impl Iterator<Item = i32> {
        self.0.iter().flatten().map(std::os::fd::AsRawFd::as_raw_fd)
    }
}

impl Plan {
    /// Checks mounts, devices, paths and kernel settings. `owned` are the container's own namespaces (`CLONE_NEW*`).
    pub fn new(spec: &Spec, source: RootSource, owned: u64) -> Result<Self, Failure> {
        root::validate(&source)?;
        sysctl::validate(&spec.linux.sysctl, owned)?;
        let place = match &source {
            RootSource::Directory(path) => Some(path.as_path()),
            RootSource::Overlay(_) | RootSource::Staging(_) => None,
        };
        let mounts = mounts::plan(spec, place)?;
        let bound_dev = mounts
            .iter()
            .any(|planned| planned.options.bind && planned.destination == ["dev"]);
        let nodes = devices::plan(&spec.linux.devices)?;
        if spec.linux.mount_label.contains(['\0', '\n']) {
            return Err(Failure::invalid(
                "reading linux.mountLabel",
                format!(
                    "{:?} holds a NUL byte or a line's end",
                    spec.linux.mount_label
                ),
            ));
        }
        let word = &spec.linux.rootfs_propagation;
        let propagation = match (word.as_str(), mount_options::propagation(word)) {
            ("", _) => None,
            (_, Some(known)) => Some(known),
            (other, None) => {
                return Err(Failure::invalid(
                    "reading linux.rootfsPropagation",
                    format!(
                        "{other:?} is not one of shared, slave, private, unbindable and these with a leading r"
                    ),
                ));
            }
        };
        Ok(Self {
            source,
            mounts,
            devices: if bound_dev { None } else { Some(nodes) },
            masked: hidden("reading linux.maskedPaths", &spec.linux.masked_paths)?,
            readonly_paths: hidden("reading linux.readonlyPaths", &spec.linux.readonly_paths)?,
            readonly: spec.root.readonly,
            sysctl: spec.linux.sysctl.clone(),
            propagation,
            working_directory: within::clean(&spec.process.cwd),
            mount_label: spec.linux.mount_label.clone(),
            owned,
        })
    }

    /// What of the configuration is ignored, one line each, for the log.
    pub fn warnings(&self) -> Vec<String> {
        mounts::warnings(&self.mounts)
    }

    /// Opens, in the caller's user and mount namespace, what the container's first process could not. Nothing is opened
    /// where neither a user namespace nor mapped owners are asked for.
    pub fn sources(&self, calls: &dyn Calls) -> Result<Sources, Failure> {
        let user = self.owns(libc::CLONE_NEWUSER);
        let mut trees = Vec::new();
        for planned in &self.mounts {
            let wanted = planned.options.bind && !planned.options.remount;
            // Below the root it is what earlier mounts have put there, which only the container's namespace has.
            let within = Path::new(&planned.mount.source).starts_with(root::place(&self.source));
            let outside = (user && !planned.options.copy_symlink) || planned.owners.is_some();
            let tree = if wanted && outside && !within {
                let owners = planned.owners.as_ref().map(Owners::namespace).transpose()?;
                mounts::source_tree(calls, planned, owners.as_ref().map(AsFd::as_fd))?
            } else {
                None
            };
            trees.push(tree);
        }
        Ok(Sources(trees))
    }

    fn owns(&self, kind: libc::c_int) -> bool {
        self.owned & u64::from(kind.cast_unsigned()) != 0
    }

    /// What the host's mounts become in the container's namespace, before anything else is done.
    fn host_propagation(&self) -> libc::c_ulong {
        let listens = self.mounts.iter().any(|planned| {
            let of = |(kind, _): &(u64, bool)| *kind == libc::MS_SLAVE || *kind == libc::MS_SHARED;
            planned.options.propagation.iter().any(of)
        });
        match self.propagation {
            // A volume that tells the host of the container's mounts stays a peer of the host's.
            Some((libc::MS_SHARED, _)) => 0,
            Some((libc::MS_SLAVE, _)) => libc::MS_SLAVE | libc::MS_REC,
            _ if listens => libc::MS_SLAVE | libc::MS_REC,
            _ => libc::MS_PRIVATE | libc::MS_REC,
        }
    }
}

/// Reads paths that are masked or read-only. One that is named twice is covered once.
fn hidden(doing: &str, paths: &[String]) -> Result<Vec<Vec<String>>, Failure> {
    let read = |path: &String| {
        let parts = within::components(doing, path)?;
        if parts.is_empty() {
            return Err(Failure::invalid(doing, format!("{path:?} is the root")));
        }
        Ok(parts)
    };
    let read = paths
        .iter()
        .map(read)
        .collect::<Result<Vec<_>, Failure>>()?;
    let mut seen = BTreeSet::new();
    let first: Vec<bool> = read.iter().map(|parts| seen.insert(parts)).collect();
    let named = read.into_iter().zip(first);
    Ok(named
        .filter_map(|(parts, first)| first.then_some(parts))
        .collect())
}

/// The files of a container while they are built, in its own mount namespace.
pub struct Filesystem<'a> {
    calls: &'a dyn Calls,
    plan: &'a Plan,
    around: &'a Surroundings,
    root: OwnedFd,
    sources: Sources,
    late_readonly: Vec<OwnedFd>,
    maker: Option<AskMaker<'a>>,
}

/// Gives the tree of the mount with this index, its owners mapped, as the caller's mount namespace has it: nobody in the container may
/// map owners, so that its maker does.
pub type AskMaker<'a> = &'a dyn Fn(usize) -> Result<OwnedFd, Failure>;

fn doing<T>(what: &str, result: io::Result<T>) -> Result<T, Failure> {
    result.map_err(|error| Failure::io(what, &error))
}

impl<'a> Filesystem<'a> {
    /// Cuts the mount namespace off from the host's and mounts the root: the one that is `given`, attached nowhere yet, or one of its own making.
    pub fn begin(
        calls: &'a dyn Calls,
        plan: &'a Plan,
        around: &'a Surroundings,
        sources: Sources,
        given: Option<OwnedFd>,
    ) -> Result<Self, Failure> {
        let propagation = plan.host_propagation();
        if !plan.owns(libc::CLONE_NEWNS) {
            // The mounts are the maker's, whose propagation is not ours to change.
        } else if propagation == 0 {
            root::separate_parent(calls, &plan.source)?;
        } else {
            doing(
                "separating the mounts from the host's",
                calls.mount("", "/", "", propagation, ""),
            )?;
        }
        let nodev = if around.nodev { mount::ATTR_NODEV } else { 0 };
        let listening = matches!(plan.propagation, Some((libc::MS_SLAVE, _)));
        let root = match given {
            Some(given) => {
                root::attach(calls, &plan.source, given.as_fd())?;
                given
            }
            None => root::mount(calls, &plan.source, nodev, listening)?,
        };
        Ok(Self {
            calls,
            plan,
            around,
            root,
            sources,
            late_readonly: Vec::new(),
            maker: None,
        })
    }

    /// Who makes the trees that `Plan::sources` could not make yet. It is asked after `enter_cgroup` only, when it listens.
    pub fn ask(&mut self, maker: AskMaker<'a>) {
        self.maker = Some(maker);
    }

    /// Mounts everything and fills /dev. `enter_network` is called once, before a sysfs is mounted, which shows the network of who mounts it, or at
    /// the end; so is `enter_cgroup`, before control groups are mounted.
    pub fn mount_all(
        &mut self,
        enter_network: &mut dyn FnMut() -> Result<(), Failure>,
        enter_cgroup: &mut dyn FnMut() -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let (mut networked, mut entered) = (false, false);
        let mut filled = self.plan.devices.is_none();
        let mut sources = std::mem::take(&mut self.sources.0).into_iter();
        let mut mounter = Mounter::new(self.calls, self.root.as_fd(), self.around, self.plan.owned);
        // On a machine without SELinux a label is nobody's: runc and crun leave it out too.
        if !self.plan.mount_label.is_empty() && Modules::of_host(self.calls).selinux {
            mounter.label = &self.plan.mount_label;
        }
        let last_dev = self
            .plan
            .mounts
            .iter()
            .rposition(|planned| planned.destination == ["dev"]);
        for (index, planned) in self.plan.mounts.iter().enumerate() {
            if !networked && planned.mount.kind == "sysfs" {
                enter_network()?;
                networked = true;
            }
            if !entered && planned.mount.kind.starts_with("cgroup") {
                enter_cgroup()?;
                entered = true;
            }
            let mut source = sources.next().flatten();
            if let (None, Some(_), Some(ask)) = (&source, &planned.owners, self.maker) {
                // It hears us only then.
                if !entered {
                    enter_cgroup()?;
                    entered = true;
                }
                source = Some(ask(index)?);
            }
            mounter.mount(planned, source)?;
            if !filled && Some(index) == last_dev {
                self.fill_devices()?;
                filled = true;
            }
        }
        self.late_readonly = mounter.into_late_readonly();
        if !filled {
            self.fill_devices()?;
        }
        if !networked {
            enter_network()?;
        }
        if !entered {
            enter_cgroup()?;
        }
        Ok(())
    }

    fn fill_devices(&self) -> Result<(), Failure> {
        let nodes = devices::with_defaults(self.plan.devices.as_deref().unwrap_or_default());
        devices::fill(self.calls, self.root.as_fd(), &nodes, self.around.nodev)
    }

    /// In a sandbox: puts the container's root, a detached mount, below the staged root and moves the trees of `staged` into it.
    pub(crate) fn take_staged(
        calls: &'a dyn Calls,
        plan: &'a Plan,
        staged: &Plan,
        around: &'a Surroundings,
        root: OwnedFd,
        sources: Sources,
    ) -> Result<Self, Failure> {
        let directory = libc::O_PATH | libc::O_DIRECTORY;
        let place = doing(
            "opening the root's place",
            calls.open(root::STAGE, directory),
        )?;
        let attached = calls.attach(root.as_fd(), place.as_fd());
        doing("putting the root in its place", attached)?;
        for name in staged.mounts.iter().filter_map(staged_top) {
            let task = || format!("moving /{name} into the root");
            let from = doing(&task(), calls.open(&format!("/{name}"), directory))?;
            let to = within::make_real_directory(calls, root.as_fd(), &[name.to_owned()])
                .map_err(|error| devices::not_real(&task(), &error))?;
            doing(&task(), calls.attach(from.as_fd(), to.as_fd()))?;
        }
        Ok(Self {
            calls,
            plan,
            around,
            root,
            sources,
            late_readonly: Vec::new(),
            maker: None,
        })
    }

    /// In a sandbox that is parked in the container's root, which has the staged trees already.
    pub(crate) fn go_on(
        calls: &'a dyn Calls,
        plan: &'a Plan,
        around: &'a Surroundings,
        sources: Sources,
    ) -> Result<Self, Failure> {
        let directory = libc::O_PATH | libc::O_DIRECTORY;
        let root = doing("opening the root", calls.open("/", directory))?;
        Ok(Self {
            calls,
            plan,
            around,
            root,
            sources,
            late_readonly: Vec::new(),
            maker: None,
        })
    }

    /// After `take_staged` or `go_on`: mounts what is in no staged tree.
    pub(crate) fn mount_others(&mut self) -> Result<(), Failure> {
        let sources = std::mem::take(&mut self.sources.0);
        let mut mounter = Mounter::new(self.calls, self.root.as_fd(), self.around, self.plan.owned);
        for (planned, source) in self.plan.mounts.iter().zip(sources) {
            if !is_staged(planned) {
                mounter.mount(planned, source)?;
            }
        }
        self.late_readonly = mounter.into_late_readonly();
        Ok(())
    }

    /// The root, for what is looked up or run in it before the pivot.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Puts a terminal onto /dev/console, by its descriptor and onto a file that is no link (CVE-2025-52565).
    pub fn bind_console(&self, terminal: BorrowedFd<'_>) -> Result<(), Failure> {
        let act = || -> io::Result<()> {
            let dev = within::make_real_directory(self.calls, self.root.as_fd(), &["dev".into()])?;
            let flags = libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_WRONLY;
            match self.calls.open_at(dev.as_fd(), "console", flags, 0o600) {
                Err(error) if !crate::sys::is(&error, libc::EEXIST) => return Err(error),
                made => drop(made),
            }
            let target =
                self.calls
                    .open_at(dev.as_fd(), "console", libc::O_PATH | libc::O_NOFOLLOW, 0)?;
            if self.calls.stat(target.as_fd())?.is(libc::S_IFLNK) {
                return Err(io::Error::from_raw_os_error(libc::ELOOP));
            }
            let tree = self.calls.clone_tree(terminal, false)?;
            self.calls.attach(tree.as_fd(), target.as_fd())
        };
        doing("binding the terminal to /dev/console", act())
    }

    /// The working directory, kernel settings, and what may not be seen or written.
    pub fn finish(&mut self) -> Result<(), Failure> {
        self.make_working_directory()?;
        if !self.plan.sysctl.is_empty() {
            let proc_root = sysctl::private_proc(self.calls)?;
            sysctl::apply(self.calls, proc_root.as_fd(), &self.plan.sysctl)?;
        }
        masks::make_readonly(self.calls, self.root.as_fd(), &self.plan.readonly_paths)?;
        masks::mask(self.calls, self.root.as_fd(), &self.plan.masked)?;
        self.protect()
    }

    /// After `take_staged` or `go_on`, whose trees have been finished: the working directory, and what may not be written.
    pub(crate) fn finish_others(&mut self) -> Result<(), Failure> {
        self.make_working_directory()?;
        self.protect()
    }

    fn protect(&mut self) -> Result<(), Failure> {
        let readonly = Change {
            set: mount::ATTR_RDONLY,
            ..Change::default()
        };
        for tree in std::mem::take(&mut self.late_readonly) {
            let made = self.calls.change_mount(tree.as_fd(), &readonly, false);
            doing("making a tmpfs read-only", made)?;
        }
        if self.plan.readonly {
            let made = self.calls.change_mount(self.root.as_fd(), &readonly, false);
            doing("making the root read-only", made)?;
        }
        Ok(())
    }

    /// Docker makes a missing working directory, as root.
    fn make_working_directory(&self) -> Result<(), Failure> {
        let parts = &self.plan.working_directory;
        if parts.is_empty() {
            return Ok(());
        }
        match within::make(self.calls, self.root.as_fd(), parts, Kind::Directory) {
            // On a read-only file system chdir will tell what is missing.
            Err(error) if !crate::sys::is(&error, libc::EROFS) => Err(Failure::io(
                format!("making working directory \"/{}\"", parts.join("/")),
                &error,
            )),
            _ => Ok(()),
        }
    }

    /// Makes the root the process's `/` and working directory, and leaves no way back to the host's files.
    /// Without a pivot (a host whose root is an initramfs) the root is moved over the host's instead.
    pub fn enter(self, no_pivot: bool) -> Result<(), Failure> {
        doing(
            "entering the root",
            self.calls.change_dir(self.root.as_fd()),
        )?;
        if no_pivot {
            self.move_over()?;
        } else if !self.plan.owns(libc::CLONE_NEWNS) {
            let changed = self
                .calls
                .change_root_here()
                .and_then(|()| self.calls.change_dir_to_root());
            return doing("changing the root", changed);
        } else {
            doing("pivoting into the root", self.pivot())?;
        }
        let Some((kind, recursive)) = self.plan.propagation else {
            return Ok(());
        };
        let flags = kind | if recursive { libc::MS_REC } else { 0 };
        doing(
            "setting linux.rootfsPropagation",
            self.calls.mount("", "/", "", flags, ""),
        )
    }

    fn pivot(&self) -> io::Result<()> {
        self.calls.pivot_root_here()?;
        if self.plan.host_propagation() == 0 {
            // The host's mounts are still its peers: it must not see them go.
            self.calls
                .mount("", ".", "", libc::MS_SLAVE | libc::MS_REC, "")?;
        }
        self.calls.unmount(c".", libc::MNT_DETACH)?;
        self.calls.change_dir_to_root()
    }

    /// After `take_staged`: the root goes over the staged one, an empty file system of the sandbox's own. Unmounting that instead would
    /// wait for an RCU grace period of the kernel.
    pub(crate) fn enter_over_staged(self) -> Result<(), Failure> {
        let act = || -> io::Result<()> {
            let staged = self.calls.open("/", libc::O_PATH | libc::O_DIRECTORY)?;
            self.calls.change_dir(self.root.as_fd())?;
            self.calls.attach(self.root.as_fd(), staged.as_fd())?;
            self.calls.change_root_here()?;
            self.calls.change_dir_to_root()
        };
        doing("entering the root", act())
    }

    fn move_over(&self) -> Result<(), Failure> {
        let act = || -> io::Result<()> {
            let host = self.calls.open("/", libc::O_PATH | libc::O_DIRECTORY)?;
            let place = std::fs::canonicalize(root::place(&self.plan.source))?;
            bare::unmount(self.calls, &place, self.plan.host_propagation() == 0)?;
            self.calls.attach(self.root.as_fd(), host.as_fd())?;
            self.calls.change_root_here()?;
            self.calls.change_dir_to_root()
        };
        doing("moving the root over the host's", act())
    }
}

/// Whether a mount is in a tree that a sandbox prepares.
fn is_staged(planned: &PlannedMount) -> bool {
    STAGED.contains(&planned.destination[0].as_str())
}

/// The name of the staged tree that this mount is the top of.
fn staged_top(planned: &PlannedMount) -> Option<&str> {
    let [name] = &planned.destination[..] else {
        return None;
    };
    is_staged(planned).then_some(name)
}

/// Makes the sources of binds that are relative to the bundle absolute, as runtime-spec has them ("Mounts", `source`).
pub fn resolve_sources(spec: &mut Spec, bundle: &std::path::Path) -> Result<(), Failure> {
    for entry in &mut spec.mounts {
        let bind = entry.kind == "bind"
            || entry
                .options
                .iter()
                .any(|option| option == "bind" || option == "rbind");
        if bind && !entry.source.is_empty() && !entry.source.starts_with('/') {
            entry.source = bundle
                .join(&entry.source)
                .into_os_string()
                .into_string()
                .map_err(|path| {
                    Failure::new(
                        FailureCode::Invalid,
                        format!("reading the mount on {:?}", entry.destination),
                        format!("source {path:?} is not UTF-8"),
                    )
                })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
