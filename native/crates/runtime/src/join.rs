//! A further process in a running container (`exec`): one setns(2) for all namespaces by the container's pidfd, a second clone into its pid
//! namespace, then the same last steps as the first process.

use crate::caps::{self, Masks};
use crate::cgroup::Driver;
use crate::channel::{self, Listener, Report, START};
use crate::labels::Labels;
use crate::lookup::Unstartable;
use crate::namespaces::Namespaces;
use crate::plan;
use crate::program::{self, Program};
use crate::streams::{self, Stdio, Streams};
use crate::sys::{affinity, file, process, socket};
use crate::{attributes, console, devices, launch, rlimits, userns};
use shoal_protocol::oci;
use shoal_protocol::{Failure, FailureCode};
use shoal_seccomp::Program as Filter;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// Longest that entering a container may take: the kernel's part, without the program.
const JOIN_TIMEOUT_MS: i32 = 30_000;

/// What a further process needs.
pub struct Join<'a> {
    /// The container's first process, in the caller's pid namespace, and the descriptor that proves it is still the same.
    pub pid: i32,
    pub pidfd: BorrowedFd<'a>,
    /// The container's configuration: its namespaces, personality and oom score are the process's too.
    pub spec: &'a oci::Spec,
    pub process: &'a oci::Process,
    pub driver: &'a dyn Driver,
    /// The container's group; the driver may place the process below it.
    pub cgroup: &'a str,
    /// The container's id, by which its keyring is found.
    pub container_id: &'a str,
    pub stdio: &'a Stdio,
    /// Descriptors 3 to 3+N, which stay open in the program.
    pub preserve_fds: u32,
    pub seccomp: Option<&'a Filter>,
    /// The container's state, for the agent of a filter that notifies.
    pub state: Option<&'a oci::State>,
    pub no_new_keyring: bool,
    /// Further groups are the caller's (`plan::KEEP_GROUPS`).
    pub keep_groups: bool,
}

/// A process on its way to its program.
pub struct Joined {
    /// The caller's child.
    pub pid: i32,
    pub pidfd: OwnedFd,
    /// Ends when the program runs, or first says why it will not (`channel::next_report`).
    pub channel: OwnedFd,
}

/// What `begin` reads of a container's configuration: a small part of it, for who keeps it as long as the container runs.
pub fn remembered(spec: &oci::Spec) -> oci::Spec {
    let linux = &spec.linux;
    oci::Spec {
        process: oci::Process {
            oom_score_adj: spec.process.oom_score_adj,
            ..oci::Process::default()
        },
        linux: oci::Linux {
            namespaces: linux.namespaces.clone(),
            personality: linux.personality.clone(),
            memory_policy: linux.memory_policy.clone(),
            ..oci::Linux::default()
        },
        ..oci::Spec::default()
    }
}

/// Starts the process and waits until its program runs. A process that could not become its program is waited for here.
pub fn exec(join: &Join<'_>) -> Result<Joined, Unstartable> {
    let joined = begin(join).map_err(plain)?;
    let wanted = join.spec.linux.seccomp.as_ref();
    let listener = wanted.zip(join.state).map(|(seccomp, state)| Listener {
        pid: joined.pid,
        pidfd: joined.pidfd.as_fd(),
        path: &seccomp.listener_path,
        metadata: &seccomp.listener_metadata,
        state,
    });
    match channel::await_exec(joined.channel.as_fd(), listener.as_ref()) {
        Ok(()) => Ok(joined),
        Err(failed) => {
            drop(process::wait(joined.pid, 0));
            Err(failed)
        }
    }
}

/// Starts the process; whether its program runs is told by its channel. The caller has one thread.
pub fn begin(join: &Join<'_>) -> Result<Joined, Failure> {
    let mut born = Vec::new();
    let begun = enter(join, &mut born);
    if begun.is_err() {
        for pid in born {
            // It may have ended by itself; either way it is waited for.
            drop(process::signal(pid, libc::SIGKILL));
            drop(process::wait(pid, 0));
        }
    }
    begun
}

fn plain(failure: Failure) -> Unstartable {
    Unstartable {
        failure,
        exit_code: 1,
    }
}

fn doing<T>(what: &str, result: io::Result<T>) -> Result<T, Failure> {
    result.map_err(|error| Failure::io(what, &error))
}

/// What the new process is told by being a copy of its maker.
struct Orders<'a> {
    join: &'a Join<'a>,
    caps: Masks,
    /// `CLONE_NEW*` to enter.
    kinds: i32,
    /// The container's root, where no mount namespace brings it.
    root: Option<OwnedFd>,
    /// The host's /dev/null, for a container that has none.
    null: Option<OwnedFd>,
    labels: Labels,
    channel: OwnedFd,
}

impl Orders<'_> {
    /// Whether a second process is needed: a pid namespace holds only for children of who enters it.
    fn between(&self) -> bool {
        self.kinds & libc::CLONE_NEWPID != 0
    }

    /// Whether limits are set by the caller, as nobody in a user namespace may raise them.
    fn limited_outside(&self) -> bool {
        self.kinds & libc::CLONE_NEWUSER != 0
    }
}

fn enter(join: &Join<'_>, born: &mut Vec<i32>) -> Result<Joined, Failure> {
    plan::check_process(join.process)?;
    attributes::validate(join.process, None)?;
    let (channel, theirs) = doing("making the process's channel", socket::pair())?;
    let kinds = kinds(join)?;
    let root = if kinds & libc::CLONE_NEWNS == 0 {
        let path = format!("/proc/{}/root", join.pid);
        Some(doing(
            "opening the container's root",
            file::open(&path, libc::O_PATH | libc::O_DIRECTORY),
        )?)
    } else {
        None
    };
    let null = match join.stdio {
        Stdio::Fds(Streams { stdin: None, .. }) => Some(doing(
            "opening /dev/null for stdin",
            devices::null(libc::O_RDONLY),
        )?),
        _ => None,
    };
    // Only v2 clones into a group.
    let cgroup = join.driver.join_target(join.cgroup, join.pid)?;
    let labels = launch::labels_of(join.process)?;
    let orders = Orders {
        join,
        caps: caps::masks(&join.process.capabilities),
        kinds,
        root,
        null,
        labels,
        channel: theirs,
    };
    let side = doing(
        "cloning a process for the container",
        process::clone(&process::Clone {
            cgroup: cgroup.as_ref().map(AsFd::as_fd),
            ..process::Clone::default()
        }),
    )?;
    let first = match side {
        process::Side::Parent(pid) => pid,
        process::Side::Child => run(&orders),
    };
    born.push(first);
    let (between, limited_outside) = (orders.between(), orders.limited_outside());
    drop(orders);
    settle(join, first, &channel)?;
    let pid = if between {
        let pid = await_born(first, &channel, born)?;
        born.clear();
        born.push(pid);
        pid
    } else {
        first
    };
    let pidfd = doing("pinning the process", process::pidfd(pid))?;
    if limited_outside {
        rlimits::apply_to(pid, &join.process.rlimits)?;
        // A process that has failed has closed its end; its report is still to be read.
        drop(socket::send(channel.as_fd(), START));
    }
    Ok(Joined {
        pid,
        pidfd,
        channel,
    })
}

/// The namespaces to enter: those that the container has for itself. Ours may not be entered again where they are the same.
fn kinds(join: &Join<'_>) -> Result<i32, Failure> {
    let mut kinds = Namespaces::read(&join.spec.linux.namespaces)?.flags();
    if kinds & libc::CLONE_NEWUSER != 0 {
        let look = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/user"));
        let same = look("self").and_then(|ours| Ok(ours == look(&join.pid.to_string())?));
        if doing("looking at the container's user namespace", same)? {
            kinds &= !libc::CLONE_NEWUSER;
        }
    }
    Ok(kinds)
}

/// What only the caller may do for the process, while it enters namespaces.
fn settle(join: &Join<'_>, pid: i32, channel: &OwnedFd) -> Result<(), Failure> {
    let score = join
        .process
        .oom_score_adj
        .or(join.spec.process.oom_score_adj);
    if let Some(score) = score {
        launch::set_oom_score(pid, score)?;
    }
    let entrances = join.driver.admit(join.cgroup, pid)?;
    // A process that has failed has closed its end; its report is still to be read.
    drop(channel::tell_attached(channel.as_fd(), &entrances));
    Ok(())
}

/// Hears of the second process; the first is waited for.
fn await_born(first: i32, channel: &OwnedFd, born: &mut Vec<i32>) -> Result<i32, Failure> {
    let report = channel::next_report(channel.as_fd(), JOIN_TIMEOUT_MS);
    if report.is_err() {
        drop(process::signal(first, libc::SIGKILL));
    }
    drop(process::wait(first, 0));
    born.clear();
    match doing("entering the container", report)? {
        Some(Report::Born { pid }) => {
            born.push(pid);
            Ok(pid)
        }
        Some(Report::Failed { failure, .. }) => Err(failure),
        _ => Err(Failure::new(
            FailureCode::System,
            "entering the container",
            "the process ended without a word; was it killed for memory?",
        )),
    }
}

/// Runs as the new process; never returns.
fn run(orders: &Orders<'_>) -> ! {
    let channel = orders.channel.as_fd();
    let mut kept: Vec<RawFd> = orders.join.stdio.fds();
    kept.extend([orders.channel.as_raw_fd(), orders.join.pidfd.as_raw_fd()]);
    kept.extend(
        orders
            .root
            .iter()
            .chain(&orders.null)
            .map(AsRawFd::as_raw_fd),
    );
    kept.extend(
        (0..orders.join.preserve_fds)
            .filter_map(|index| RawFd::try_from(streams::FIRST_FD + index).ok()),
    );
    streams::close_all_but(&mut kept);
    let first = match orders.between().then(process::own_pidfd).transpose() {
        Ok(first) => first,
        Err(error) => channel::give_up(
            channel,
            plain(Failure::io("pinning the process between", &error)),
        ),
    };
    match go_in(orders) {
        Ok(process::Side::Parent(pid)) => {
            channel::tell(channel, &Report::Born { pid });
            process::exit_now(0)
        }
        Ok(process::Side::Child) => {
            let failed = become_program(orders);
            if let Some(first) = &first {
                channel::await_told(first.as_fd());
            }
            channel::give_up(channel, failed)
        }
        Err(failure) => channel::give_up(channel, plain(failure)),
    }
}

/// Enters the namespaces; the child goes on as the program, and the parent, where there is one, has only to end.
fn go_in(orders: &Orders<'_>) -> Result<process::Side<i32>, Failure> {
    let affinity = orders.join.process.exec_cpu_affinity.as_ref();
    // Without one it has the CPUs of its groups, and not those that its maker happens to be bound to.
    affinity::reset();
    if let Some(affinity) = affinity {
        attributes::apply_affinity("initial", &affinity.initial)?;
    }
    doing(
        "binding the process to its maker",
        process::die_with_parent(libc::SIGKILL),
    )?;
    // From here the container may see this process, and its memory and descriptors are the host's (CVE-2016-9962).
    doing(
        "hiding the process from the container",
        process::set_dumpable(false),
    )?;
    let pid = orders.join.pid;
    doing(
        &format!("entering the namespaces of process {pid}"),
        process::join_namespace(orders.join.pidfd, orders.kinds),
    )?;
    if let Some(root) = &orders.root {
        doing(
            "entering the container's root",
            process::change_dir_to(root.as_fd())
                .and_then(|()| process::change_root_to_working_directory()),
        )?;
    }
    channel::join_groups(orders.channel.as_fd())?;
    if let Some(affinity) = affinity {
        attributes::apply_affinity("final", &affinity.last)?;
    }
    if !orders.between() {
        return Ok(process::Side::Child);
    }
    doing(
        "cloning the process into the container",
        process::clone(&process::Clone {
            sibling: true,
            ..process::Clone::default()
        }),
    )
}

fn become_program(orders: &Orders<'_>) -> Unstartable {
    let null = match surround(orders) {
        Ok(null) => null,
        Err(failure) => return plain(failure),
    };
    let join = orders.join;
    let program = Program {
        process: join.process,
        caps: orders.caps,
        personality: join.spec.linux.personality.as_ref(),
        stdio: join.stdio,
        null: null.as_ref().or(orders.null.as_ref()),
        preserve_fds: join.preserve_fds,
        signals_are_reset: false,
        limits_are_set: orders.limited_outside(),
        seccomp: join.seccomp,
        channel: orders.channel.as_fd(),
        labels: &orders.labels,
        keyring: (!join.no_new_keyring).then_some(join.container_id),
        memory_policy: join.spec.linux.memory_policy.as_ref(),
        keep_groups: join.keep_groups,
    };
    program::become_program(&program, None)
}

/// What comes between the namespaces and the program; gives a stdin for programs that have none, if the container can.
fn surround(orders: &Orders<'_>) -> Result<Option<OwnedFd>, Failure> {
    let join = orders.join;
    doing(
        "binding the process to its maker",
        process::die_with_parent(libc::SIGKILL),
    )?;
    if orders.limited_outside() {
        channel::hear(orders.channel.as_fd(), START);
        userns::become_root(&join.process.user)?;
        doing(
            "hiding the process from the container",
            process::set_dumpable(false),
        )?;
    }
    doing("making a session", process::new_session())?;
    if let Stdio::Terminal { console_socket } = join.stdio {
        let root = doing(
            "opening the container's root",
            file::open("/", libc::O_PATH | libc::O_DIRECTORY),
        )?;
        let size = join.process.console_size.as_ref();
        console::open(root.as_fd(), size, console_socket.as_fd())?;
    }
    // The container's own, where it has a real one, so that the program finds stdin by a path that it has.
    Ok(orders
        .null
        .as_ref()
        .and_then(|_| devices::null(libc::O_RDONLY).ok()))
}
