//! Processes: cloning into namespaces, waiting, signals, identity and exec.

use super::file::new_fd;
use super::{c_string, check};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// Which side of a fork or clone this is.
pub enum Side<T> {
    Parent(T),
    Child,
}

/// From <linux/sched.h>; the C library's constant is too narrow.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// fork(2). The caller must have one thread only: the child may then allocate like any process.
pub fn fork() -> io::Result<Side<i32>> {
    // SAFETY: by contract the process has one thread, so no lock can be held by a thread that the child lacks.
    match check(unsafe { libc::fork() }.into())? {
        0 => Ok(Side::Child),
        pid => Ok(Side::Parent(i32::try_from(pid).expect("pids fit i32"))),
    }
}

/// How a process is cloned.
#[derive(Default)]
pub struct Clone<'a> {
    /// `CLONE_NEW*` of the namespaces that it starts in.
    pub namespaces: i32,
    /// A v2 group that it starts in, where the kernel and the group let it. Whoever needs it there looks afterwards.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// It becomes a child of the caller's parent (CLONE_PARENT).
    pub sibling: bool,
}

/// What clone3 says of a group that it cannot start a process in: before Linux 5.7, without a right to the group, or one that takes none.
const NOT_INTO: [i32; 5] = [
    libc::EINVAL,
    libc::EACCES,
    libc::EPERM,
    libc::EBUSY,
    libc::EOPNOTSUPP,
];

/// clone3(2) with fork semantics. One thread only, as `fork`. The pid is in the caller's pid namespace.
pub fn clone(how: &Clone<'_>) -> io::Result<Side<i32>> {
    match clone_into(how) {
        Err(error)
            if how.cgroup.is_some()
                && error
                    .raw_os_error()
                    .is_some_and(|errno| NOT_INTO.contains(&errno)) =>
        {
            clone_into(&Clone {
                cgroup: None,
                ..*how
            })
        }
        other => other,
    }
}

fn clone_into(how: &Clone<'_>) -> io::Result<Side<i32>> {
    // SAFETY: clone_args is plain data for which all zeroes is the documented default.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = how.namespaces.cast_unsigned().into();
    if how.sibling {
        // Its end is told as the caller's own would be: clone3 takes no other signal here.
        args.flags |= u64::from(libc::CLONE_PARENT.cast_unsigned());
    } else {
        args.exit_signal = libc::SIGCHLD.cast_unsigned().into();
    }
    if let Some(cgroup) = how.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd().cast_unsigned().into();
    }
    // SAFETY: no CLONE_VM and no new stack: the child goes on with a copy, as after fork; one thread by contract.
    match check(unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw const args,
            size_of::<libc::clone_args>(),
        )
    })? {
        0 => Ok(Side::Child),
        pid => Ok(Side::Parent(i32::try_from(pid).expect("pids fit i32"))),
    }
}

/// From now on the process runs when nobody else wants to, sched(7) SCHED_IDLE. Where that is refused it stays as it is.
pub fn give_way() {
    // SAFETY: sched_param is plain data that the call reads.
    unsafe {
        let param: libc::sched_param = std::mem::zeroed();
        libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const param);
    }
}

/// Ends the process at once, running nothing.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit takes no pointer and does not return.
    unsafe { libc::_exit(code) }
}

/// Waits for one child (pid) or any (-1): (pid, raw status); pid 0 when `flags` has WNOHANG and none is done.
pub fn wait(pid: i32, flags: i32) -> io::Result<(i32, i32)> {
    let mut status = 0;
    loop {
        // SAFETY: status is ours.
        match check(unsafe { libc::waitpid(pid, &raw mut status, flags) }.into()) {
            Ok(got) => return Ok((i32::try_from(got).unwrap_or(0), status)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A descriptor of a process, readable once it has ended.
pub fn pidfd(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    new_fd(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}

/// `pidfd` of the calling process itself.
pub fn own_pidfd() -> io::Result<OwnedFd> {
    // SAFETY: getpid takes nothing and cannot fail.
    pidfd(unsafe { libc::getpid() })
}

/// Signals the very process that a descriptor stands for.
pub fn signal_pidfd(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: the siginfo pointer may be null.
    check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    })
    .map(drop)
}

/// kill(2).
pub fn signal(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::kill(pid, signal) }.into()).map(drop)
}

/// setsid(2).
pub fn new_session() -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::setsid() }.into()).map(drop)
}

/// Orphans below this process become its children.
pub fn become_subreaper() -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }.into()).map(drop)
}

/// This process gets `signal` when its parent dies; 0 takes that back.
pub fn die_with_parent(signal: i32) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal, 0, 0, 0) }.into()).map(drop)
}

/// The name that ps shows, cut to 15 bytes.
pub fn set_name(name: &std::ffi::CStr) -> io::Result<()> {
    // SAFETY: name is NUL-terminated.
    check(unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0) }.into()).map(drop)
}

/// Whether others of the same user may look into this process.
pub fn set_dumpable(dumpable: bool) -> io::Result<()> {
    check(
        // SAFETY: no pointers.
        unsafe {
            libc::prctl(
                libc::PR_SET_DUMPABLE,
                libc::c_ulong::from(dumpable),
                0,
                0,
                0,
            )
        }
        .into(),
    )
    .map(drop)
}

/// PR_SET_NO_NEW_PRIVS.
pub fn no_new_privileges() -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.into()).map(drop)
}

/// setns(2).
pub fn join_namespace(fd: BorrowedFd<'_>, kind: i32) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::setns(fd.as_raw_fd(), kind) }.into()).map(drop)
}

/// unshare(2).
pub fn unshare(flags: i32) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::unshare(flags) }.into()).map(drop)
}

/// sethostname(2).
pub fn set_hostname(name: &str) -> io::Result<()> {
    // SAFETY: pointer and length are of the same string.
    check(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }.into()).map(drop)
}

/// setdomainname(2).
pub fn set_domainname(name: &str) -> io::Result<()> {
    // SAFETY: pointer and length are of the same string.
    check(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) }.into()).map(drop)
}

/// What sched_setattr(2) sets; times are nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SchedulerAttributes {
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

/// sched_setattr(2) on this process.
pub fn set_scheduler(wanted: &SchedulerAttributes) -> io::Result<()> {
    /// struct sched_attr of <linux/sched/types.h>.
    #[repr(C)]
    struct Attributes {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime: u64,
        deadline: u64,
        period: u64,
        utilization_min: u32,
        utilization_max: u32,
    }
    let attributes = Attributes {
        size: u32::try_from(size_of::<Attributes>()).expect("a small struct"),
        policy: wanted.policy,
        flags: wanted.flags,
        nice: wanted.nice,
        priority: wanted.priority,
        runtime: wanted.runtime,
        deadline: wanted.deadline,
        period: wanted.period,
        utilization_min: 0,
        utilization_max: 0,
    };
    // SAFETY: the struct lives over the call and says its own size.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) }).map(drop)
}

/// ioprio_set(2) on this process.
pub fn set_io_priority(value: i32) -> io::Result<()> {
    const IOPRIO_WHO_PROCESS: i32 = 1;
    // SAFETY: no pointers.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, value) }).map(drop)
}

/// personality(2).
pub fn set_personality(domain: u64) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::personality(domain) }.into()).map(drop)
}

/// umask(2); gives the one before.
pub fn set_umask(mask: u32) -> u32 {
    // SAFETY: umask cannot fail and takes no pointer.
    unsafe { libc::umask(mask) }
}

/// Puts a descriptor at a fixed number that survives exec.
pub fn duplicate_to(fd: BorrowedFd<'_>, number: i32) -> io::Result<()> {
    if fd.as_raw_fd() == number {
        // SAFETY: no pointers; clears close-on-exec.
        return check(unsafe { libc::fcntl(number, libc::F_SETFD, 0) }.into()).map(drop);
    }
    // SAFETY: no pointers; `number` is one of the three standard streams, which no owner object stands for.
    check(unsafe { libc::dup2(fd.as_raw_fd(), number) }.into()).map(drop)
}

/// Marks every descriptor from `first` on close-on-exec.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    })
    .map(drop)
}

/// Closes the descriptors from `first` to `last`, whoever owns them: for a process that uses none of them any more.
pub(crate) fn close_between(first: u32, last: u32) {
    // SAFETY: by contract the descriptors are used by nobody in this process any more. It fails for a range upside down only.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
}

/// Whether a descriptor of this number is open.
pub fn is_open(number: i32) -> bool {
    // SAFETY: F_GETFD takes no pointer.
    unsafe { libc::fcntl(number, libc::F_GETFD) >= 0 }
}

/// Takes close-on-exec from a descriptor.
pub fn keep_over_exec(number: i32) -> io::Result<()> {
    // SAFETY: F_SETFD takes no pointer.
    check(unsafe { libc::fcntl(number, libc::F_SETFD, 0) }.into()).map(drop)
}

/// Blocks or unblocks signals; gives nothing back.
fn change_mask(how: i32, signals: &[i32]) -> io::Result<()> {
    // SAFETY: sigset_t is plain data that sigemptyset initialises.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is ours; signal numbers are valid constants.
    unsafe {
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
    }
    // SAFETY: the set lives over the call; the old mask is not asked for.
    check(unsafe { libc::sigprocmask(how, &raw const set, std::ptr::null_mut()) }.into()).map(drop)
}

/// Exactly these signals are blocked from now on.
pub fn block_only(signals: &[i32]) -> io::Result<()> {
    change_mask(libc::SIG_SETMASK, signals)
}

/// A descriptor that tells blocked signals.
pub fn signal_fd(signals: &[i32]) -> io::Result<OwnedFd> {
    // SAFETY: as in change_mask.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is ours.
    unsafe {
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
    }
    new_fd(
        // SAFETY: the set lives over the call.
        unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) }
            .into(),
    )
}

/// Sets a signal to be ignored.
pub fn ignore_signal(signal: i32) {
    // SAFETY: SIG_IGN runs no code of ours.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Lets HUP, INT, QUIT and TERM end this process also as the first of its pid namespace, where their default action does nothing
/// (pid_namespaces(7)). Undone by `reset_signals`.
pub fn end_on_signals() {
    extern "C" fn end(signal: libc::c_int) {
        exit_now(128 + signal);
    }
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM] {
        // SAFETY: the handler only calls _exit(2), which is safe in one (signal-safety(7)).
        unsafe { libc::signal(signal, end as *const () as libc::sighandler_t) };
    }
}

/// Sets a signal back to its default action.
pub fn default_signal(signal: i32) {
    // SAFETY: SIG_DFL runs no code of ours.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// Every signal back to its default action, nothing blocked: what a fresh program expects.
pub fn reset_signals() -> io::Result<()> {
    /// The kernel's struct sigaction, all zeroes: SIG_DFL, no flags, no mask.
    #[repr(C)]
    struct Default([u64; 4]);
    for signal in 1..=64 {
        let action = Default([0; 4]);
        // SAFETY: SIG_DFL runs no code of ours. The raw call is used as the C library refuses its own signals 32 and 33,
        // which a parent may have left ignored; KILL and STOP answer EINVAL, which changes nothing.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                &raw const action,
                std::ptr::null_mut::<u8>(),
                8,
            )
        };
    }
    block_only(&[])
}

/// geteuid(2).
pub fn effective_uid() -> u32 {
    // SAFETY: no pointers; it cannot fail.
    unsafe { libc::geteuid() }
}

/// setresgid(2) and setresuid(2), for this (only) thread; other groups and capabilities stay as the kernel leaves them.
pub fn set_ids(uid: u32, gid: u32) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::setresgid(gid, gid, gid) }.into())?;
    // SAFETY: no pointers.
    check(unsafe { libc::setresuid(uid, uid, uid) }.into()).map(drop)
}

/// setgroups(2) (not with None), setresgid(2), setresuid(2), for this (only) thread. Permitted capabilities are held over the change.
pub fn set_identity(uid: u32, gid: u32, groups: Option<&[u32]>) -> io::Result<()> {
    if let Some(groups) = groups {
        // SAFETY: pointer and length are of the same slice.
        match check(unsafe { libc::setgroups(groups.len(), groups.as_ptr()) }.into()) {
            // A user namespace may forbid to drop groups (user_namespaces(7)): then there are none to give either.
            Err(error) if groups.is_empty() && super::is(&error, libc::EPERM) => {}
            other => drop(other?),
        }
    }
    // SAFETY: no pointers.
    check(unsafe { libc::setresgid(gid, gid, gid) }.into())?;
    // SAFETY: no pointers.
    check(unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0) }.into())?;
    // SAFETY: no pointers.
    check(unsafe { libc::setresuid(uid, uid, uid) }.into())?;
    // SAFETY: no pointers.
    check(unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, 0, 0, 0, 0) }.into()).map(drop)
}

/// chdir(2).
pub fn change_dir(path: &str) -> io::Result<()> {
    let path = c_string(path)?;
    // SAFETY: path is NUL-terminated.
    check(unsafe { libc::chdir(path.as_ptr()) }.into()).map(drop)
}

/// fchdir(2).
pub fn change_dir_to(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::fchdir(fd.as_raw_fd()) }.into()).map(drop)
}

/// Makes the working directory the root of this process (chroot(2)) and enters it.
pub fn change_root_to_working_directory() -> io::Result<()> {
    // SAFETY: static C string.
    check(unsafe { libc::chroot(c".".as_ptr()) }.into())?;
    // SAFETY: static C string.
    check(unsafe { libc::chdir(c"/".as_ptr()) }.into()).map(drop)
}

/// The working directory as the kernel tells it, `(unreachable)...` when it is outside the root.
pub fn working_dir() -> io::Result<Vec<u8>> {
    let mut buffer = vec![0u8; 4096];
    // SAFETY: the buffer is writable for its length. The raw call is used as libc's hides "(unreachable)".
    let length =
        check(unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) })?;
    buffer.truncate(usize::try_from(length).unwrap_or(1).saturating_sub(1));
    Ok(buffer)
}

/// Joins the session keyring `_ses.NAME`, or makes it, so that processes of one container share their keys and see no others'
/// (keyctl(2), KEYCTL_JOIN_SESSION_KEYRING). Our user may search it, which is how a later process finds it.
pub fn join_session_keyring(name: &str) -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    const KEYCTL_SETPERM: libc::c_long = 5;
    /// The possessor may do everything, its user look, read, search and link (<linux/key.h>).
    const PERMISSIONS: libc::c_long =
        0x3f00_0000 | 0x0001_0000 | 0x0002_0000 | 0x0008_0000 | 0x0010_0000;
    let name = c_string(format!("_ses.{name}"))?;
    // SAFETY: name is NUL-terminated and lives over the call.
    let ring = check(unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr())
    })?;
    // SAFETY: no pointers.
    check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_SETPERM, ring, PERMISSIONS) }).map(drop)
}

/// set_mempolicy(2) for this process: nodes up to 1023.
pub fn set_memory_policy(mode: i32, nodes: &[usize]) -> io::Result<()> {
    const NODES_MAX: usize = 1024;
    const BITS: usize = u64::BITS as usize;
    let mut mask = [0u64; NODES_MAX / BITS];
    for node in nodes {
        let word = mask
            .get_mut(node / BITS)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
        *word |= 1 << (node % BITS);
    }
    let pointer = if nodes.is_empty() {
        std::ptr::null()
    } else {
        mask.as_ptr()
    };
    let bits = if nodes.is_empty() { 0 } else { NODES_MAX };
    // SAFETY: the mask has the bits that are told (the kernel reads one less than it is told), or is null with none.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, pointer, bits) }).map(drop)
}

/// execve(2); returns only on failure.
pub fn exec(path: &CString, args: &[CString], env: &[CString]) -> io::Error {
    let pointers = |of: &[CString]| -> Vec<*const libc::c_char> {
        of.iter()
            .map(|text| text.as_ptr())
            .chain(std::iter::once(std::ptr::null()))
            .collect()
    };
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: path and both null-terminated arrays of C strings live over the call.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Brings the loopback device of the current network namespace up.
pub fn loopback_up() -> io::Result<()> {
    let socket = new_fd(
        // SAFETY: no pointers.
        unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) }.into(),
    )?;
    // SAFETY: ifreq is plain data.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags =
        libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or(0);
    // SAFETY: the request lives over the call and is what SIOCSIFFLAGS reads.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) }.into())
        .map(drop)
}

/// Milliseconds since the epoch.
pub fn now_ms() -> u64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Ticks a second of the times in /proc (sysconf(3), _SC_CLK_TCK).
pub fn clock_ticks() -> u64 {
    // SAFETY: no pointers.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).unwrap_or(100)
}

/// poll(2) on (descriptor, events); gives what happened on each. -1 waits for ever.
pub fn poll(fds: &mut [libc::pollfd], timeout_ms: i32) -> io::Result<usize> {
    loop {
        match check(
            // SAFETY: pointer and length are of the same slice.
            unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, timeout_ms) }.into(),
        ) {
            Ok(count) => return Ok(usize::try_from(count).unwrap_or(0)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// An eventfd.
pub fn event_fd() -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    new_fd(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) }.into())
}

/// The other end of a fresh pseudoterminal (its lock taken off), by ioctl and not by name (ioctl_tty(2), TIOCGPTPEER).
pub fn terminal_peer(master: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let unlocked: libc::c_int = 0;
    check(
        // SAFETY: TIOCSPTLCK reads one int.
        unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) }.into(),
    )?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes flags and gives a new descriptor.
    new_fd(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) }.into())
}

/// Sets the size of a terminal, in characters.
pub fn set_terminal_size(terminal: BorrowedFd<'_>, height: u16, width: u16) -> io::Result<()> {
    let size = libc::winsize {
        ws_row: height,
        ws_col: width,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCSWINSZ reads one winsize, which lives over the call.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) }.into())
        .map(drop)
}

/// Makes a terminal the controlling one of this session.
pub fn set_controlling_terminal(terminal: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes a number.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) }.into()).map(drop)
}
