//! The container's first process, from clone to exec: it builds the root around itself, parks until it is told to start, then becomes the program.
//!
//! It is a copy of a single-threaded process (the monitor, itself a fork of the zygote, or the command line), so that allocating here is safe.

use crate::channel::{self, HOOKED, MAPPED, Report, START};
use crate::filesystem::{Filesystem, Sources};
use crate::filling;
use crate::hooks::Prepared;
use crate::labels::Labels;
use crate::lookup::{self, Unstartable};
use crate::mounts::Surroundings;
use crate::namespaces::{self, NEWTIME};
use crate::plan::Plan;
use crate::program::{self, Program};
use crate::streams::{self, Stdio, Streams};
use crate::sys::{Kernel, affinity, process, socket};
use crate::{console, devices, home, hooks, userns};
use shoal_protocol::Failure;
use shoal_protocol::oci::{State, Status};
use shoal_seccomp::Program as Filter;
use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// A namespace to join, opened by the maker, which can reach its path.
pub(crate) struct Opened {
    pub kind: i32,
    pub path: String,
    pub fd: OwnedFd,
}

/// Everything that init is told by being a copy of its maker.
pub(crate) struct Orders<'a> {
    pub plan: &'a Plan,
    pub around: &'a Surroundings,
    /// Trees of mounts that the maker had to open; taken once.
    pub sources: Cell<Sources>,
    /// The container's root where somebody has made it already, attached nowhere.
    pub root: Cell<Option<OwnedFd>>,
    /// Through this comes the network namespace, where somebody makes it meanwhile.
    pub network: Cell<Option<OwnedFd>>,
    /// `CLONE_NEW*` of the namespaces that init is cloned into. The others it enters later.
    pub cloned: i32,
    pub joins: &'a [Opened],
    pub stdio: &'a Stdio,
    /// Init's end of the channel. It closes with init, or at exec.
    pub channel: OwnedFd,
    /// Where a later process comes to say start; without it the channel says so.
    pub listener: Option<OwnedFd>,
    /// A v2 group to start in.
    pub cgroup: Option<OwnedFd>,
    /// Descriptors that init only holds.
    pub held: &'a [BorrowedFd<'a>],
    pub preserve_fds: u32,
    pub state: Option<&'a State>,
    pub seccomp: Option<&'a Filter>,
    pub no_pivot: bool,
    pub new_keyring: bool,
    /// Init is made for a container that is told later.
    pub sandbox: bool,
    /// The start follows at once.
    pub at_once: bool,
    /// Every signal has its default effect, and none is blocked.
    pub signals_are_reset: bool,
    pub labels: &'a Labels,
}

fn doing<T>(what: &str, result: io::Result<T>) -> Result<T, Failure> {
    result.map_err(|error| Failure::io(what, &error))
}

fn plain(failure: Failure) -> Unstartable {
    Unstartable {
        failure,
        exit_code: 1,
    }
}

/// Runs as the process between maker and init: enters what holds only for children, clones init as its sibling, and ends.
pub(crate) fn run_between(orders: &Orders<'_>) -> ! {
    let channel = orders.channel.as_fd();
    let first = match process::own_pidfd() {
        Ok(first) => first,
        Err(error) => channel::give_up(
            channel,
            plain(Failure::io("pinning the process between", &error)),
        ),
    };
    match enter_and_clone(orders) {
        Ok(process::Side::Child) => {
            channel::await_told(first.as_fd());
            drop(first);
            run(orders)
        }
        Ok(process::Side::Parent(pid)) => {
            channel::tell(channel, &Report::Born { pid });
            process::exit_now(0)
        }
        Err(failure) => channel::give_up(channel, plain(failure)),
    }
}

fn enter_and_clone(orders: &Orders<'_>) -> Result<process::Side<i32>, Failure> {
    doing(
        "hiding init from the container",
        process::set_dumpable(false),
    )?;
    let kinds = &orders.plan.namespaces;
    join(orders, |kind| {
        !matches!(kind, libc::CLONE_NEWNS | libc::CLONE_NEWCGROUP)
    })?;
    let mut new = orders.cloned;
    if kinds.makes(NEWTIME) {
        new &= !NEWTIME;
        doing("making a time namespace", process::unshare(NEWTIME))?;
        userns::set_time_offsets(&orders.plan.spec.linux.time_offsets)?;
    }
    process::clone(&process::Clone {
        namespaces: new,
        cgroup: orders.cgroup.as_ref().map(AsFd::as_fd),
        sibling: true,
    })
    .map_err(|error| userns::cloning_failed(kinds, &error))
}

/// Joins the wanted kinds. The host's privilege may be needed for some, that of a joined user namespace for others.
fn join(orders: &Orders<'_>, wanted: impl Fn(i32) -> bool) -> Result<(), Failure> {
    let enter = |opened: &Opened| {
        doing(
            &format!(
                "joining {} namespace {:?}",
                namespaces::name(opened.kind),
                opened.path
            ),
            process::join_namespace(opened.fd.as_fd(), opened.kind),
        )
    };
    let is_user = |opened: &&Opened| opened.kind == libc::CLONE_NEWUSER;
    let user = orders
        .joins
        .iter()
        .find(is_user)
        .filter(|_| wanted(libc::CLONE_NEWUSER));
    let mut later = Vec::new();
    for opened in orders
        .joins
        .iter()
        .filter(|opened| wanted(opened.kind) && !is_user(opened))
    {
        match enter(opened) {
            Err(failure) if user.is_some() && failure.errno == Some(libc::EPERM) => {
                later.push(opened);
            }
            other => other?,
        }
    }
    user.map_or(Ok(()), enter)?;
    later.into_iter().try_for_each(enter)
}

/// Runs as the new process; never returns.
pub(crate) fn run(orders: &Orders<'_>) -> ! {
    let channel = orders.channel.as_fd();
    close_others(orders);
    let null = match setup(orders) {
        Ok(null) => null,
        Err(failure) => channel::give_up(channel, plain(failure)),
    };
    if orders.listener.is_some()
        && let Err(failed) = look_up(orders.plan)
    {
        channel::give_up(channel, failed);
    }
    if orders.listener.is_some()
        && let Err(error) = process::die_with_parent(0)
    {
        // Its maker ends before the start.
        channel::give_up(
            channel,
            plain(Failure::io("unbinding init from its maker", &error)),
        );
    }
    if orders.listener.is_some() {
        // Whoever stops a container before its start need not kill it, as with runc; from when it is told to be there.
        process::end_on_signals();
    }
    channel::tell(channel, &Report::Ready);
    if orders.sandbox {
        filling::run(orders, null.as_ref());
    }
    let starter = if orders.at_once { None } else { park(orders) };
    let starter = starter.as_ref().map_or(channel, AsFd::as_fd);
    let failed = start(orders, null.as_ref(), starter);
    channel::give_up(starter, failed)
}

/// Forgets everything of the maker's that is not init's.
fn close_others(orders: &Orders<'_>) {
    let mut kept: Vec<RawFd> = orders.stdio.fds();
    kept.push(orders.channel.as_raw_fd());
    kept.extend(orders.listener.iter().map(AsRawFd::as_raw_fd));
    kept.extend(orders.held.iter().map(AsRawFd::as_raw_fd));
    for given in [&orders.root, &orders.network] {
        let fd = given.take();
        kept.extend(fd.iter().map(AsRawFd::as_raw_fd));
        given.set(fd);
    }
    kept.extend(orders.joins.iter().map(|opened| opened.fd.as_raw_fd()));
    kept.extend(
        (0..orders.preserve_fds)
            .filter_map(|index| RawFd::try_from(streams::FIRST_FD + index).ok()),
    );
    let sources = orders.sources.take();
    kept.extend(sources.fds());
    orders.sources.set(sources);
    streams::close_all_but(&mut kept);
}

/// Waits for the start; gives whom to answer when that is not the channel.
fn park(orders: &Orders<'_>) -> Option<OwnedFd> {
    let Some(listener) = &orders.listener else {
        channel::hear(orders.channel.as_fd(), START);
        return None;
    };
    loop {
        let Ok(starter) = socket::accept(listener.as_fd()) else {
            process::exit_now(1);
        };
        let mut word = [0u8; 8];
        // Whoever connects and goes has not started anything.
        if let Ok(length) = socket::receive(starter.as_fd(), &mut word)
            && &word[..length] == START
        {
            return Some(starter);
        }
    }
}

/// Everything that needs the host's view or full privilege; gives a stdin for a program that has none.
fn setup(orders: &Orders<'_>) -> Result<Option<OwnedFd>, Failure> {
    let plan = orders.plan;
    let spec = &plan.spec;
    if plan.makes(libc::CLONE_NEWUSER) {
        channel::hear(orders.channel.as_fd(), MAPPED);
    }
    if plan.namespaces.has(libc::CLONE_NEWUSER) {
        userns::become_root(&spec.process.user)?;
    }
    doing(
        "binding init to its maker",
        process::die_with_parent(libc::SIGKILL),
    )?;
    doing(
        "hiding init from the container",
        process::set_dumpable(false),
    )?;
    doing("making a session", process::new_session())?;
    process::set_umask(0);
    let between = plan.namespaces.need_two_steps();
    join(orders, |kind| match kind {
        libc::CLONE_NEWCGROUP => false,
        libc::CLONE_NEWNS => true,
        _ => !between,
    })?;
    // A sandbox does not know yet.
    let wanted = orders.sandbox || matches!(orders.stdio, Stdio::Fds(Streams { stdin: None, .. }));
    let stdin = wanted
        .then(|| doing("opening /dev/null for stdin", devices::null(libc::O_RDONLY)))
        .transpose()?;
    files(orders)?;
    // The container's own /dev/null, where it has a real one, so that the program finds stdin by a path that it has.
    Ok(stdin.map(|stdin| devices::null(libc::O_RDONLY).unwrap_or(stdin)))
}

/// Builds the root and enters it.
fn files(orders: &Orders<'_>) -> Result<(), Failure> {
    let plan = orders.plan;
    let sources = orders.sources.take();
    let root = orders.root.take();
    let mut files = Filesystem::begin(&Kernel, &plan.files, orders.around, sources, root)?;
    let ask = |index| channel::ask_source(orders.channel.as_fd(), index);
    files.ask(&ask);
    files.mount_all(&mut || enter_network(orders), &mut || enter_cgroup(orders))?;
    set_names(plan)?;
    if let Stdio::Terminal { console_socket } = orders.stdio {
        let size = plan.spec.process.console_size.as_ref();
        let slave = console::open(files.root(), size, console_socket.as_fd())?;
        files.bind_console(slave.as_fd())?;
    }
    run_creation_hooks(orders, files.root())?;
    files.finish()?;
    files.enter(orders.no_pivot)
}

pub(crate) fn set_names(plan: &Plan) -> Result<(), Failure> {
    let spec = &plan.spec;
    if !spec.hostname.is_empty() {
        doing(
            &format!("setting hostname {:?}", spec.hostname),
            process::set_hostname(&spec.hostname),
        )?;
    }
    if !spec.domainname.is_empty() {
        doing(
            &format!("setting domainname {:?}", spec.domainname),
            process::set_domainname(&spec.domainname),
        )?;
    }
    Ok(())
}

/// Enters the network namespace that somebody has made, or makes one; lo is up then.
fn enter_network(orders: &Orders<'_>) -> Result<(), Failure> {
    if !orders.plan.makes(libc::CLONE_NEWNET) {
        return Ok(());
    }
    if let Some(giver) = orders.network.take() {
        if let Some(network) = socket::receive_fd(giver.as_fd()) {
            return doing(
                "entering the network namespace",
                process::join_namespace(network.as_fd(), libc::CLONE_NEWNET),
            );
        }
        doing(
            "making a network namespace",
            process::unshare(libc::CLONE_NEWNET),
        )?;
    }
    doing("bringing lo up", process::loopback_up())
}

fn enter_cgroup(orders: &Orders<'_>) -> Result<(), Failure> {
    channel::join_groups(orders.channel.as_fd())?;
    // Here the maker has done what it does to this process from outside.
    affinity::reset();
    if orders.plan.makes(libc::CLONE_NEWCGROUP) {
        doing(
            "making a cgroup namespace",
            process::unshare(libc::CLONE_NEWCGROUP),
        )?;
    }
    join(orders, |kind| kind == libc::CLONE_NEWCGROUP)
}

/// The host's hooks are run by the maker, those of the container's namespaces here, while the host's programs can still be reached.
fn run_creation_hooks(orders: &Orders<'_>, root: BorrowedFd<'_>) -> Result<(), Failure> {
    let wanted = &orders.plan.spec.hooks;
    let devices = &orders.plan.spec.linux.net_devices;
    if !wanted.prestart.is_empty() || !wanted.create_runtime.is_empty() || !devices.is_empty() {
        channel::tell(orders.channel.as_fd(), &Report::Mounted);
        channel::hear(orders.channel.as_fd(), HOOKED);
    }
    let Some(state) = orders.state else {
        return Ok(());
    };
    if wanted.create_container.is_empty() {
        return Ok(());
    }
    // Where runc has them begin, so that a hook can say `./lib` for the container's /lib.
    doing(
        "entering the container's root",
        process::change_dir_to(root),
    )?;
    let state = inside(state, Status::Creating);
    hooks::run("createContainer", &wanted.create_container, &state)
}

/// The state as the container sees it: its own pid namespace has another pid for init.
fn inside(state: &State, status: Status) -> State {
    State {
        status,
        pid: i32::try_from(std::process::id()).unwrap_or(0),
        ..state.clone()
    }
}

/// Whether the program is there at all, so that a creation that could never be started fails.
fn look_up(plan: &Plan) -> Result<(), Unstartable> {
    let process = &plan.spec.process;
    match process.args.first() {
        // A configuration without a process can be created; only its start fails.
        None => Ok(()),
        Some(name) => lookup::find(name, &process.env).map(drop),
    }
}

/// Becomes the program; returns only with the reason why not.
pub(crate) fn start(
    orders: &Orders<'_>,
    null: Option<&OwnedFd>,
    channel: BorrowedFd<'_>,
) -> Unstartable {
    let plan = orders.plan;
    let spec = &plan.spec;
    // Where a hook names no environment it has the program's, as with runc, on which hooks have come to rely.
    let mut wanted = spec.hooks.start_container.clone();
    for hook in wanted.iter_mut().filter(|hook| hook.env.is_empty()) {
        hook.env = home::complete(&spec.process.env, spec.process.user.uid);
    }
    let hooks = match orders.state.filter(|_| !wanted.is_empty()) {
        None => None,
        Some(state) => {
            match Prepared::new("startContainer", &wanted, &inside(state, Status::Created)) {
                Ok(hooks) => Some(hooks),
                Err(failure) => return plain(failure),
            }
        }
    };
    let program = Program {
        process: &spec.process,
        caps: plan.caps,
        personality: spec.linux.personality.as_ref(),
        stdio: orders.stdio,
        null,
        preserve_fds: orders.preserve_fds,
        signals_are_reset: orders.signals_are_reset,
        limits_are_set: plan.namespaces.has(libc::CLONE_NEWUSER),
        seccomp: orders.seccomp,
        channel,
        labels: orders.labels,
        keyring: orders.new_keyring.then_some(&plan.container_id),
        memory_policy: spec.linux.memory_policy.as_ref(),
        keep_groups: plan.keep_groups,
    };
    let ready = match program::prepare(&program) {
        Ok(ready) => ready,
        Err(failed) => return failed,
    };
    if orders.at_once {
        // Until here it was done while the maker commits. Who waits longer for its start keeps the host's privilege, and fails at the start only.
        channel::hear(channel, START);
    }
    program::execute(&program, &ready, hooks)
}
