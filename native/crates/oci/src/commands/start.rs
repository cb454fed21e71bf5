//! `start`: releases the parked init of a created container.

use crate::args::Parsed;
use crate::container::{Container, status_word};
use crate::context::Context;
use crate::stop::Stop;
use crate::store::{Record, START_SOCKET};
use shoal_protocol::oci::Status;
use shoal_runtime::lookup::Unstartable;
use shoal_runtime::sys::process;
use shoal_runtime::{hooks, launch};
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
    launch::start_parked(container.home.dir(), START_SOCKET).map_err(unstartable)?;
    poststart(&container.record)?;
    Ok(0)
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
