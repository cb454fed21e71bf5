//! The maker's side of a container's first process: clone, groups, hooks of the host, and the start.

use crate::cgroup::Driver;
use crate::channel::{self, HOOKED, Listener, MAPPED, Report, SOURCE, START};
use crate::init::{self, Opened, Orders};
use crate::labels::{Labels, Modules};
use crate::lookup::Unstartable;
use crate::mounts::Surroundings;
use crate::net_devices::{self, Moved};
use crate::plan::Plan;
use crate::streams::Stdio;
use crate::sys::{Kernel, affinity, file, process, socket};
use crate::{hooks, inner_sources, namespaces, rlimits, userns};
use shoal_protocol::oci::{Process, State, Status};
use shoal_protocol::{Failure, FailureCode};
use shoal_seccomp::Program as Filter;
use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Longest that building a container's root may take, without the host's hooks.
pub const CREATE_TIMEOUT_MS: i32 = 30_000;

/// How a parked init learns that it may go on.
pub enum Park<'a> {
    /// Whoever made it says so; init ends when its maker does.
    Channel,
    /// A later process says so by a socket of this name in `dir` (`start_parked`). Init outlives its maker.
    /// A program that is not there fails the creation already.
    Socket { dir: BorrowedFd<'a>, name: &'a str },
    /// As `Channel`, and its maker says so as soon as it has heard that init is ready, which goes on meanwhile as far as nothing is lost: what
    /// fails then is a start that fails.
    AtOnce,
    /// There is no container yet: its maker tells the rest later (`sandbox`). Ends with its maker.
    Sandbox,
}

/// What a creation needs besides its plan.
pub struct Options<'a> {
    pub driver: &'a dyn Driver,
    pub stdio: Stdio,
    /// Descriptors 3 to 3+N, which stay open in the program. The caller has seen that they are (`streams::check_preserved`).
    pub preserve_fds: u32,
    pub park: Park<'a>,
    /// What hooks get on stdin; pid and status are filled in. Without it no hook runs.
    pub state: Option<State>,
    pub seccomp: Option<&'a Filter>,
    /// Descriptors that init holds until it is the program (a lock, say).
    pub held: &'a [BorrowedFd<'a>],
    pub no_pivot: bool,
    pub no_new_keyring: bool,
    /// What the maker does of its own while init (the pid) mounts; its failure is the creation's.
    pub meanwhile: &'a dyn Fn(i32) -> Result<(), Failure>,
    /// The container's root, where somebody has made it already (`root::detached`). Only for a container that makes its mount namespace and
    /// has no user namespace.
    pub root: Option<OwnedFd>,
    /// A socket through which somebody gives the container's network namespace, with lo up, while all else is made. When nothing comes init makes
    /// one. It is left alone when the container makes none, or has a user namespace, which must own it.
    pub network: Option<OwnedFd>,
}

/// A container whose init waits for the start.
pub struct Parked {
    /// In the maker's pid namespace.
    pub pid: i32,
    pub pidfd: OwnedFd,
    /// Without `Park::Socket`: takes `channel::START`, then gives the reason of a failed start or end of file.
    pub channel: Option<OwnedFd>,
}

impl Parked {
    /// Starts the program and waits until it runs. Only with `Park::Channel`.
    pub fn start(self) -> Result<(), Unstartable> {
        self.start_with(None)
    }

    /// As `start`, for a filter that notifies.
    pub fn start_with(mut self, agent: Option<&Agent<'_>>) -> Result<(), Unstartable> {
        let channel = self.channel.take().ok_or_else(|| Unstartable {
            failure: Failure::new(
                FailureCode::Conflict,
                "starting the program",
                "it waits for a start by socket",
            ),
            exit_code: 1,
        })?;
        let listener = agent.map(|agent| Listener {
            pid: self.pid,
            pidfd: self.pidfd.as_fd(),
            path: agent.path,
            metadata: agent.metadata,
            state: agent.state,
        });
        say_start(channel, listener.as_ref())
    }
}

/// Who answers what the filter notifies: linux.seccomp.listenerPath and listenerMetadata, and the container's state.
pub struct Agent<'a> {
    pub path: &'a str,
    pub metadata: &'a str,
    pub state: &'a State,
}

/// Starts the container whose init parked at the socket `name` in `dir`, and waits until the program runs. The name is gone afterwards.
/// NotFound when there is no such socket, Conflict when nobody listens at it.
pub fn start_parked(dir: BorrowedFd<'_>, name: &str) -> Result<(), Unstartable> {
    start_parked_with(dir, name, None)
}

/// As `start_parked`, for the process (pid and pidfd) of a filter that notifies.
pub fn start_parked_with(
    dir: BorrowedFd<'_>,
    name: &str,
    agent: Option<(i32, BorrowedFd<'_>, &Agent<'_>)>,
) -> Result<(), Unstartable> {
    let connected = socket::connect(dir, name).map_err(|error| {
        let mut failure = Failure::io("reaching the container's init", &error);
        match error.raw_os_error() {
            Some(libc::ENOENT) => failure.code = FailureCode::NotFound,
            Some(libc::ECONNREFUSED) => failure.code = FailureCode::Conflict,
            _ => {}
        }
        Unstartable {
            failure,
            exit_code: 1,
        }
    })?;
    let listener = agent.map(|(pid, pidfd, agent)| Listener {
        pid,
        pidfd,
        path: agent.path,
        metadata: agent.metadata,
        state: agent.state,
    });
    let outcome = say_start(connected, listener.as_ref());
    // Whatever came of it, init waits no more.
    drop(file::remove_at(dir, name));
    outcome
}

fn say_start(channel: OwnedFd, listener: Option<&Listener<'_>>) -> Result<(), Unstartable> {
    socket::send(channel.as_fd(), START).map_err(|error| Unstartable {
        failure: Failure::io("starting the program", &error),
        exit_code: 1,
    })?;
    channel::await_exec(channel.as_fd(), listener)
}

/// What a creation has made so far and takes back when it fails.
#[derive(Default)]
struct Made {
    children: Vec<i32>,
    group: bool,
    /// A group that is only a name has been made (`Driver::place`).
    place: bool,
    socket: bool,
    /// The host's network devices that are in the container.
    moved: Option<Moved>,
}

/// Makes the container up to its parked init. On failure nothing of it is left: init is gone and waited for, its group and its socket are
/// removed. The caller has one thread, and its children are its own to wait for.
pub fn create(plan: &Plan, options: &Options<'_>) -> Result<Parked, Failure> {
    let mut made = Made::default();
    let parked = make(plan, options, &mut made);
    if parked.is_err() {
        for pid in made.children {
            // It may have ended by itself; either way it is waited for.
            drop(process::signal(pid, libc::SIGKILL));
            drop(process::wait(pid, 0));
        }
        if let Some(moved) = made.moved {
            moved.back();
        }
        if made.group {
            // The first failure is the one to tell.
            drop(options.driver.remove(&plan.cgroup));
        } else if made.place {
            options.driver.withdraw(&plan.cgroup);
        }
        if let Park::Socket { dir, name } = &options.park
            && made.socket
        {
            drop(file::remove_at(*dir, name));
        }
    }
    parked
}

fn doing<T>(what: &str, result: io::Result<T>) -> Result<T, Failure> {
    result.map_err(|error| Failure::io(what, &error))
}

fn make(plan: &Plan, options: &Options<'_>, made: &mut Made) -> Result<Parked, Failure> {
    let driver = options.driver;
    let resources = &plan.spec.linux.resources;
    let around = Surroundings {
        cgroups: driver.views(resources),
        groups: driver.directories(&plan.cgroup),
        group: plan.cgroup.clone(),
        nodev: !driver.limits_devices(),
    };
    let sources = plan.files.sources(&Kernel)?;
    let labels = labels_of(&plan.spec.process)?;
    let joins = open_joins(plan)?;
    let kinds = &plan.namespaces;
    let network = options
        .network
        .as_ref()
        .filter(|_| kinds.makes(libc::CLONE_NEWNET) && !kinds.has(libc::CLONE_NEWUSER));
    let later = network.map_or(0, |_| libc::CLONE_NEWNET);
    // Init closes its own when they have served: the program's directory must not be found through them.
    let own = |given: Option<&OwnedFd>| {
        let copy = given.map(OwnedFd::try_clone).transpose();
        doing("giving init what was made for it", copy).map(Cell::new)
    };
    let listener = match &options.park {
        Park::Channel | Park::AtOnce | Park::Sandbox => None,
        Park::Socket { dir, name } => {
            let listening = socket::listen(*dir, name, libc::SOCK_SEQPACKET, 1);
            let listener = doing("making the socket for the start", listening)?;
            made.socket = true;
            Some(listener)
        }
    };
    // Only v2 clones into its group and needs it first; groups of v1 are made while init mounts.
    let cgroup = if driver.clones_into(resources) {
        driver.create(&plan.cgroup, resources)?;
        made.group = true;
        driver.clone_target(&plan.cgroup)?
    } else {
        let place = driver.place(&plan.cgroup)?;
        made.place = place.is_some();
        place
    };
    let (channel, theirs) = doing("making init's channel", socket::pair())?;
    let orders = Orders {
        plan,
        around: &around,
        sources: Cell::new(sources),
        root: own(options.root.as_ref())?,
        network: own(network)?,
        cloned: kinds.new & !libc::CLONE_NEWCGROUP & !later,
        joins: &joins,
        stdio: &options.stdio,
        channel: theirs,
        listener,
        cgroup,
        held: options.held,
        preserve_fds: options.preserve_fds,
        state: options.state.as_ref(),
        seccomp: options.seccomp,
        no_pivot: options.no_pivot,
        new_keyring: !options.no_new_keyring,
        sandbox: matches!(options.park, Park::Sandbox),
        at_once: matches!(options.park, Park::AtOnce),
        signals_are_reset: false,
        labels: &labels,
    };
    let pid = clone_init(orders, &channel, &mut made.children)?;
    let pidfd = doing("pinning init", process::pidfd(pid))?;
    if let Err(failure) = settle(plan, options, pid, &channel, &mut made.group) {
        // Init that has ended meanwhile cannot be attached: its own word tells why.
        return Err(early_failure(&channel).unwrap_or(failure));
    }
    (options.meanwhile)(pid)?;
    await_ready(plan, options, pid, &channel, &mut made.moved)?;
    if plan.namespaces.has(libc::CLONE_NEWUSER) {
        rlimits::apply_to(pid, &plan.spec.process.rlimits)?;
    }
    Ok(Parked {
        pid,
        pidfd,
        channel: (!matches!(options.park, Park::Socket { .. })).then_some(channel),
    })
}

/// The checked labels of a process; the machine is asked about its modules only where one is wanted.
pub(crate) fn labels_of(process: &Process) -> Result<Labels, Failure> {
    if process.apparmor_profile.is_empty() && process.selinux_label.is_empty() {
        return Ok(Labels::default());
    }
    Labels::read(process, Modules::of_host(&Kernel))
}

fn open_joins(plan: &Plan) -> Result<Vec<Opened>, Failure> {
    plan.namespaces
        .joins
        .iter()
        .map(|join| {
            let kind = namespaces::name(join.kind);
            let fd = doing(
                &format!("opening {kind} namespace {:?}", join.path),
                file::open(&join.path, libc::O_RDONLY),
            )?;
            Ok(Opened {
                kind: join.kind,
                path: join.path.clone(),
                fd,
            })
        })
        .collect()
}

/// Clones init, by a process in between where the namespaces need one; gives its pid.
fn clone_init(orders: Orders<'_>, channel: &OwnedFd, born: &mut Vec<i32>) -> Result<i32, Failure> {
    let kinds = &orders.plan.namespaces;
    let between = kinds.need_two_steps();
    let side = process::clone(&process::Clone {
        namespaces: if between { 0 } else { orders.cloned },
        cgroup: orders.cgroup.as_ref().map(AsFd::as_fd).filter(|_| !between),
        sibling: false,
    })
    .map_err(|error| userns::cloning_failed(kinds, &error))?;
    let first = match side {
        process::Side::Parent(pid) => {
            // Its maker goes on with the groups.
            affinity::born_elsewhere(pid);
            pid
        }
        process::Side::Child if between => init::run_between(&orders),
        process::Side::Child => init::run(&orders),
    };
    drop(orders);
    if !between {
        born.push(first);
        return Ok(first);
    }
    let report = channel::next_report(channel.as_fd(), CREATE_TIMEOUT_MS);
    // It ends right after its report; a late one is ended.
    if report.is_err() {
        drop(process::signal(first, libc::SIGKILL));
    }
    drop(process::wait(first, 0));
    match doing("cloning init", report)? {
        Some(Report::Born { pid }) => {
            born.push(pid);
            Ok(pid)
        }
        Some(Report::Failed { failure, .. }) => Err(failure),
        _ => Err(wordless()),
    }
}

/// What only the maker may do for init: ids, score and groups.
fn settle(
    plan: &Plan,
    options: &Options<'_>,
    pid: i32,
    channel: &OwnedFd,
    has_group: &mut bool,
) -> Result<(), Failure> {
    if let Some(score) = plan.spec.process.oom_score_adj {
        set_oom_score(pid, score)?;
    }
    if plan.makes(libc::CLONE_NEWUSER) {
        let linux = &plan.spec.linux;
        userns::write_maps(pid, &linux.uid_mappings, &linux.gid_mappings)?;
        doing(
            "telling init its ids",
            socket::send(channel.as_fd(), MAPPED),
        )?;
    }
    let driver = options.driver;
    if !*has_group {
        driver.create(&plan.cgroup, &plan.spec.linux.resources)?;
        *has_group = true;
    }
    let entrances = driver.admit(&plan.cgroup, pid)?;
    // Init that has already failed has closed its end; its report is still to be read.
    drop(channel::tell_attached(channel.as_fd(), &entrances));
    Ok(())
}

/// Sets how likely the kernel is to kill a process for memory. A score below ours needs CAP_SYS_RESOURCE; where the machine forbids it,
/// ours stays.
pub fn set_oom_score(pid: i32, score: i32) -> Result<(), Failure> {
    match std::fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string()) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        other => doing(&format!("setting process.oomScoreAdj to {score}"), other),
    }
}

/// What init has said already, if that is a failure.
fn early_failure(channel: &OwnedFd) -> Option<Failure> {
    let mut fds = [libc::pollfd {
        fd: channel.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    }];
    if process::poll(&mut fds, 0).ok()? == 0 {
        return None;
    }
    match channel::next_report(channel.as_fd(), -1) {
        Ok(Some(Report::Failed { failure, .. })) => Some(failure),
        _ => None,
    }
}

fn wordless() -> Failure {
    Failure::new(
        FailureCode::System,
        "building the container",
        "init ended without a word; was it killed for memory?",
    )
}

fn await_ready(
    plan: &Plan,
    options: &Options<'_>,
    pid: i32,
    channel: &OwnedFd,
    moved: &mut Option<Moved>,
) -> Result<(), Failure> {
    let task = "building the container";
    loop {
        let report = channel::next_report(channel.as_fd(), CREATE_TIMEOUT_MS);
        match report {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                return Err(Failure::new(
                    FailureCode::System,
                    task,
                    format!(
                        "it took longer than {CREATE_TIMEOUT_MS} ms; look at the mounts' sources"
                    ),
                ));
            }
            Err(error) => return Err(Failure::io(task, &error)),
            Ok(Some(Report::Ready)) => return Ok(()),
            Ok(Some(Report::Failed { failure, .. })) => return Err(failure),
            Ok(Some(Report::Mounted)) => {
                let devices = &plan.spec.linux.net_devices;
                if !devices.is_empty() {
                    *moved = Some(net_devices::move_in(pid, devices)?);
                }
                run_host_hooks(plan, options, pid)?;
                doing(task, socket::send(channel.as_fd(), HOOKED))?;
            }
            Ok(Some(Report::Source { index })) => {
                let tree = inner_sources::tree(&plan.files, index, pid)?;
                doing(
                    task,
                    socket::send_with_fds(channel.as_fd(), SOURCE, &[tree.as_fd()]),
                )?;
            }
            Ok(Some(Report::Born { .. } | Report::Listening { .. }) | None) => {
                return Err(wordless());
            }
        }
    }
}

fn run_host_hooks(plan: &Plan, options: &Options<'_>, pid: i32) -> Result<(), Failure> {
    let Some(state) = &options.state else {
        return Ok(());
    };
    let state = State {
        status: Status::Creating,
        pid,
        ..state.clone()
    };
    let wanted = &plan.spec.hooks;
    // Of the time when they ran after `create` (config.md "Prestart").
    let created = State {
        status: Status::Created,
        ..state.clone()
    };
    hooks::run("prestart", &wanted.prestart, &created)?;
    hooks::run("createRuntime", &wanted.create_runtime, &state)
}
