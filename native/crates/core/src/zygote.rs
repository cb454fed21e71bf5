//! The zygote: a small single-threaded process from which every monitor is forked.
//!
//! It is executed from a sealed copy of the binary, so that a container that reaches its own /proc/self/exe before exec can spoil nothing on disk.

use crate::monitor;
use shoal_protocol::Failure;
use shoal_runtime::cgroup::detect::{self, Layout};
use shoal_runtime::sys::{affinity, code, file, memory, process, region, socket};
use shoal_runtime::{proc, rlimits};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

/// The network namespace of this process.
const NETWORK: &str = "/proc/self/ns/net";

/// What a forked monitor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// A container, whose creation is in the directory; up to the parked init, or to the running program. It may get a network namespace
    /// that the zygote makes while the monitor does the rest.
    Create { start: bool, network: bool },
    /// A sandbox of the pool, which is to become a container later.
    Park,
}

impl Task {
    fn word(self) -> &'static [u8] {
        match self {
            Self::Create {
                start: false,
                network: false,
            } => b"m",
            Self::Create {
                start: true,
                network: false,
            } => b"r",
            Self::Create {
                start: false,
                network: true,
            } => b"mn",
            Self::Create {
                start: true,
                network: true,
            } => b"rn",
            Self::Park => b"p",
        }
    }

    fn read(word: &[u8]) -> Option<Self> {
        let create = |start| [false, true].map(|network| Self::Create { start, network });
        [create(false), create(true)]
            .concat()
            .into_iter()
            .chain([Self::Park])
            .find(|task| task.word() == word)
    }
}

/// The whole life of a zygote: reads requests from stdin, a message socket, until the core is gone.
pub fn run(open_files: Option<u64>) -> ! {
    let code = match serve(open_files) {
        Ok(()) => 0,
        Err(_) => 1,
    };
    process::exit_now(code)
}

fn serve(open_files: Option<u64>) -> io::Result<()> {
    if let Some(soft) = open_files {
        // Containers inherit the limit that the core was started with, not the one it needs for itself.
        rlimits::set_open_files(soft)?;
    }
    affinity::remember_home();
    process::new_session()?;
    process::set_name(c"shoal-zygote")?;
    process::change_dir("/")?;
    // The kernel reaps monitors, so that each costs one fork and nobody waits for it. They do not inherit this.
    process::ignore_signal(libc::SIGCHLD);
    let requests = RequestSocket::take()?;
    // SAFETY: a zygote has one thread. Where it cannot be done code is faulted in, as in any process.
    drop(unsafe { code::own() });
    let home = file::open(NETWORK, libc::O_RDONLY)?;
    // SAFETY: a zygote has one thread, and never starts another. Without memory for the region the heap serves.
    drop(unsafe { region::open() });
    crate::seccomp::warm();
    // Monitors are born with it; who cannot read it finds out why.
    drop(region::outside(proc::boot_id));
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo")?;
    let layout = region::outside(|| detect::layout(&mountinfo));
    drop(mountinfo);
    // Every monitor is born with what is left here, and copies the pages of it that it writes to.
    region::release();
    memory::give_back();
    let mut word = [0u8; 8];
    loop {
        let (length, fds) = socket::receive_with_fds(requests.as_fd(), &mut word)?;
        affinity::home();
        if length == 0 {
            return Ok(());
        }
        let mut fds = fds.into_iter();
        let (Some(control), Some(dir)) = (fds.next(), fds.next()) else {
            continue;
        };
        let Some(task) = Task::read(&word[..length]) else {
            continue;
        };
        let kept = Kept {
            requests: &requests,
            home: &home,
        };
        kept.fork_monitor(&layout, task, control, dir);
    }
}

/// The zygote's own descriptors, which no monitor keeps. They are never dropped, as `run` does not return.
struct Kept<'a> {
    requests: &'a OwnedFd,
    /// The network namespace that it lives in.
    home: &'a OwnedFd,
}

impl Kept<'_> {
    /// Forks a monitor, which lives on when the zygote ends. A failed fork closes `control`, which tells the core.
    fn fork_monitor(&self, layout: &Layout, task: Task, control: OwnedFd, dir: OwnedFd) {
        let wanted = matches!(task, Task::Create { network: true, .. });
        let (giver, taker) = match wanted.then(socket::pair).transpose() {
            Ok(pair) => pair.unzip(),
            // Then init makes it.
            Err(_) => (None, None),
        };
        match process::fork() {
            Ok(process::Side::Child) => {
                process::default_signal(libc::SIGCHLD);
                for kept in [self.requests, self.home] {
                    // SAFETY: in this process the descriptor is used by nobody any more.
                    drop(unsafe { OwnedFd::from_raw_fd(kept.as_raw_fd()) });
                }
                drop(giver);
                monitor::run(layout, task, control, dir, taker);
            }
            Ok(process::Side::Parent(monitor)) => {
                if giver.is_some() {
                    affinity::born_elsewhere(monitor);
                }
                drop((control, dir, taker));
                if let Some(giver) = giver
                    && let Ok(network) = self.make_network()
                {
                    // A monitor that has ended needs none.
                    drop(socket::send_with_fds(
                        giver.as_fd(),
                        b"n",
                        &[network.as_fd()],
                    ));
                }
            }
            Err(_) => drop((control, dir)),
        }
    }

    /// Makes a network namespace with lo up, as the one that init would be cloned into. It takes a third of a start, and init none of it when
    /// it is made while the monitor reads and prepares.
    fn make_network(&self) -> io::Result<OwnedFd> {
        process::unshare(libc::CLONE_NEWNET)?;
        let made = process::loopback_up().and_then(|()| file::open(NETWORK, libc::O_RDONLY));
        if process::join_namespace(self.home.as_fd(), libc::CLONE_NEWNET).is_err() {
            // Nothing else may be born in a container's network. The core starts another zygote.
            process::exit_now(1);
        }
        made
    }
}

/// Stdin is the request socket; it moves to a number above the standard streams, which become /dev/null.
struct RequestSocket;

impl RequestSocket {
    fn take() -> io::Result<OwnedFd> {
        // SAFETY: stdin is open for the life of this process and this is its only user.
        let socket = unsafe { BorrowedFd::borrow_raw(0) }.try_clone_to_owned()?;
        let null = file::open("/dev/null", libc::O_RDWR)?;
        for number in 0..3 {
            process::duplicate_to(null.as_fd(), number)?;
        }
        Ok(socket)
    }
}

/// The core's end: one zygote at a time, replaced when it has died.
pub struct Zygote {
    binary: OwnedFd,
    open_files: u64,
    running: Mutex<Option<(Child, OwnedFd)>>,
}

impl Zygote {
    /// Seals a copy of this binary and starts the first zygote; containers get `open_files` as their soft limit.
    pub fn start(open_files: u64) -> Result<Self, Failure> {
        let binary = sealed_binary()
            .map_err(|error| Failure::io("sealing a copy of shoal-core in memory", &error))?;
        let zygote = Self {
            binary,
            open_files,
            running: Mutex::new(None),
        };
        *zygote.running.lock().expect("no holder panics") = Some(zygote.spawn()?);
        Ok(zygote)
    }

    /// Asks for a monitor on what is in `dir`, which speaks over `control`.
    pub fn monitor(
        &self,
        task: Task,
        control: BorrowedFd<'_>,
        dir: BorrowedFd<'_>,
    ) -> Result<(), Failure> {
        let mut running = self.running.lock().expect("no holder panics");
        if let Some((child, _)) = running.as_ref() {
            // The core goes on with the root.
            affinity::elsewhere(i32::try_from(child.id()).unwrap_or(-1));
        }
        if let Some((_, socket)) = running.as_ref()
            && socket::send_with_fds(socket.as_fd(), task.word(), &[control, dir]).is_ok()
        {
            return Ok(());
        }
        if let Some((mut child, socket)) = running.take() {
            drop(socket);
            // It is dead, or sees end of file and ends.
            drop(child.wait());
        }
        let (child, socket) = self.spawn()?;
        let sent = socket::send_with_fds(socket.as_fd(), task.word(), &[control, dir]);
        *running = Some((child, socket));
        sent.map_err(|error| Failure::io("asking the zygote for a monitor", &error))
    }

    fn spawn(&self) -> Result<(Child, OwnedFd), Failure> {
        let start = || -> io::Result<(Child, OwnedFd)> {
            let (ours, theirs) = socket::pair()?;
            let child = Command::new(file::proc_path(self.binary.as_fd()))
                .arg0("shoal-core")
                .arg("zygote")
                .arg(self.open_files.to_string())
                .stdin(Stdio::from(theirs))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()?;
            Ok((child, ours))
        };
        start().map_err(|error| Failure::io("starting the zygote", &error))
    }
}

fn sealed_binary() -> io::Result<OwnedFd> {
    const MFD_EXEC: libc::c_uint = 0x10;
    let create = |extra: libc::c_uint| {
        let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING | extra;
        // SAFETY: the name is a static C string.
        let fd = unsafe { libc::memfd_create(c"shoal-core".as_ptr(), flags) };
        if fd < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(fd)
        }
    };
    // Before Linux 6.3 there is no MFD_EXEC, and every memfd may be executed.
    let fd = create(MFD_EXEC).or_else(|_| create(0))?;
    // SAFETY: just made for us.
    let mut copy = unsafe { File::from_raw_fd(fd) };
    copy.write_all(&std::fs::read("/proc/self/exe")?)?;
    let seals = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
    // SAFETY: no pointers.
    if unsafe { libc::fcntl(copy.as_raw_fd(), libc::F_ADD_SEALS, seals) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(copy.into())
}
