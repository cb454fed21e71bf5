//! Init's side of a sandbox: from parked to a container that waits for its start.

use crate::channel::{self, Report, START};
use crate::filesystem::{Filesystem, Sources};
use crate::init::{self, Orders};
use crate::labels::Labels;
use crate::lookup::Unstartable;
use crate::own::Inner;
use crate::plan::Plan;
use crate::sandbox::{Fill, NO_PROGRAM};
use crate::streams::{Stdio, Streams};
use crate::sys::{Kernel, affinity, file, process, socket};
use shoal_protocol::Failure;
use shoal_seccomp::Program as Filter;
use std::cell::Cell;
use std::os::fd::{AsFd, OwnedFd};

/// The channel has a high number from then on: descriptors close in their order at exec, and whoever waits for the program by a pipe of its own
/// is to be woken before the monitor, which only takes note.
const CHANNEL_FD: i32 = 48;

/// What comes with `Fill`.
struct Given {
    seccomp: Option<Filter>,
    /// None when the sandbox is parked in it.
    root: Option<OwnedFd>,
    streams: Streams,
    /// Closes when the program runs.
    exec: Option<OwnedFd>,
    volumes: Vec<OwnedFd>,
}

/// Waits for its container, becomes it and parks again; ends the process when nobody wants it. `null` is a stdin for programs without.
pub(crate) fn run(orders: &Orders<'_>, null: Option<&OwnedFd>) -> ! {
    let channel = orders.channel.as_fd();
    // Nobody changes them any more; it is one thing less to be done when somebody waits.
    let signals_are_reset = process::reset_signals().is_ok();
    let mut buffer = vec![0u8; socket::MESSAGE_BYTES_MAX];
    let mut hear = || match socket::receive(channel, &mut buffer) {
        Ok(length @ 1..) => Inner::plan(
            &buffer[..length],
            &orders.plan.spec,
            orders.plan.cgroup.clone(),
        ),
        // Nobody wants it.
        _ => process::exit_now(0),
    };
    // The rehearsal: what it finds is of no interest.
    drop(hear());
    // Done while the maker opens the root.
    let plan = hear();
    affinity::reset();
    let given = receive(orders, &mut buffer);
    drop(buffer);
    let made = plan.and_then(|plan| {
        let given = given?;
        build(&plan, orders, given.root, given.volumes)?;
        let stdio = Stdio::Fds(given.streams);
        Ok((plan, stdio, given.exec, given.seccomp))
    });
    let (plan, stdio, exec, seccomp) = match made {
        Ok(made) => made,
        Err(failure) => channel::give_up(
            channel,
            Unstartable {
                failure,
                exit_code: 1,
            },
        ),
    };
    channel::tell(channel, &Report::Ready);
    // Whoever hears of the start by a pipe of its own has it follow at once.
    let at_once = exec.is_some();
    if !at_once {
        channel::hear(channel, START);
    }
    let failed = init::start(
        &Orders {
            plan: &plan,
            around: orders.around,
            sources: Cell::default(),
            root: Cell::default(),
            network: Cell::default(),
            cloned: 0,
            joins: &[],
            stdio: &stdio,
            channel: match file::duplicate_above(channel, CHANNEL_FD) {
                Ok(channel) => channel,
                Err(_) => process::exit_now(1),
            },
            listener: None,
            cgroup: None,
            held: &[],
            preserve_fds: 0,
            state: None,
            seccomp: seccomp.as_ref(),
            no_pivot: false,
            new_keyring: orders.new_keyring,
            sandbox: false,
            at_once,
            signals_are_reset,
            // Labelled programs are made cold: `sandbox::template`.
            labels: &Labels::default(),
        },
        null,
        channel,
    );
    if let Some(exec) = exec {
        // Nobody may wait for it any more.
        drop(file::write(exec.as_fd(), NO_PROGRAM));
    }
    channel::give_up(channel, failed)
}

fn receive(orders: &Orders<'_>, bytes: &mut [u8]) -> Result<Given, Failure> {
    let doing = "taking the container's root";
    let (length, fds) = socket::receive_with_fds(orders.channel.as_fd(), bytes)
        .map_err(|error| Failure::io(doing, &error))?;
    let mut fds = fds.into_iter();
    let mut next = || {
        fds.next()
            .ok_or_else(|| Failure::invalid(doing, "a descriptor is missing"))
    };
    let Some(fill) = Fill::read(&bytes[..length]) else {
        // The maker gave up, and ends this process.
        process::exit_now(1);
    };
    Ok(Given {
        seccomp: fill.seccomp,
        root: if fill.root { Some(next()?) } else { None },
        streams: Streams {
            stdin: if fill.stdin { Some(next()?) } else { None },
            stdout: next()?,
            stderr: next()?,
        },
        exec: if fill.exec { Some(next()?) } else { None },
        volumes: fds.collect(),
    })
}

fn build(
    plan: &Plan,
    orders: &Orders<'_>,
    root: Option<OwnedFd>,
    volumes: Vec<OwnedFd>,
) -> Result<(), Failure> {
    init::set_names(plan)?;
    let sources = Sources::of_binds(&plan.files, volumes);
    let Some(root) = root else {
        let mut files = Filesystem::go_on(&Kernel, &plan.files, orders.around, sources)?;
        files.mount_others()?;
        return files.finish_others();
    };
    let staged = &orders.plan.files;
    let mut files =
        Filesystem::take_staged(&Kernel, &plan.files, staged, orders.around, root, sources)?;
    files.mount_others()?;
    files.finish_others()?;
    files.enter_over_staged()
}
