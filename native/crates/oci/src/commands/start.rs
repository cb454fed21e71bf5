//! `start`: releases the parked init of a created container.

use crate::args::Parsed;
use crate::container::{Container, status_word};
use crate::context::Context;
use crate::stop::Stop;
use crate::store::{Record, START_SOCKET};
use shoal_protocol::Failure;
use shoal_protocol::oci::Status;
use shoal_runtime::launch::Agent;
use shoal_runtime::lookup::Unstartable;
use shoal_runtime::sys::process;
use shoal_runtime::{hooks, launch};
use shoal_seccomp::Program;
use std::os::fd::AsFd;

pub fn run(context: &Context<'_>, parsed: &Parsed) -> Result<u8, Stop> {
    let container = Container::find_locked(context, &parsed.operands[0])?;
    match container.status() {
        Status::Created => {}
        Status::Stopped => return Err(Stop::new("cannot start a container that has stopped")),
        Status::Running => return Err(Stop::new("cannot start an already running container")),
        status => {
            return Err(Stop::new(format!(
                "cannot start a container in the {} state",
                status_word(status)
            )));
        }
    }
    release(&container)?;
    poststart(&container.record)?;
    Ok(0)
}

/// Lets init become the program. A filter that notifies needs its agent told.
fn release(container: &Container) -> Result<(), Stop> {
    let kept = match container.record.filtered {
        true => Some(container.home.for_exec(true)?),
        false => None,
    };
    let seccomp = kept.as_ref().and_then(|(spec, filter)| {
        let notifies = filter.as_ref().is_some_and(Program::notifies);
        spec.linux.seccomp.as_ref().filter(|_| notifies)
    });
    let state = container.record.state(Status::Created);
    let agent = seccomp.map(|seccomp| Agent {
        path: &seccomp.listener_path,
        metadata: &seccomp.listener_metadata,
        state: &state,
    });
    let init = container
        .living_init()
        .map_err(|_| Stop::new("cannot start a container that has stopped"))?;
    let pidfd = process::pidfd(init.pid)
        .map_err(|error| Failure::io("reaching the container's init", &error))?;
    let agent = agent.as_ref().map(|agent| (init.pid, pidfd.as_fd(), agent));
    launch::start_parked_with(container.home.dir(), START_SOCKET, agent).map_err(unstartable)
}

/// A program that could not be started: the message for the user; the exit code stays an ordinary failure's, as runc's does.
pub fn unstartable(failed: Unstartable) -> Stop {
    Stop::new(format!(
        "unable to start container process: {}",
        failed.failure
    ))
}

/// Runs the poststart hooks; one that fails ends the container (runtime.md "Lifecycle", step 9).
pub fn poststart(record: &Record) -> Result<(), Stop> {
    let Err(failure) = hooks::run(
        "poststart",
        &record.poststart,
        &record.state(Status::Running),
    ) else {
        return Ok(());
    };
    if let Some(init) = record.init
        && let Ok(pinned) = process::pidfd(init.pid)
        && init.is_alive()
    {
        // It may have ended by itself.
        drop(process::signal_pidfd(pinned.as_fd(), libc::SIGKILL));
    }
    Err(failure.into())
}
