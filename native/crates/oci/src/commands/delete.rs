//! `delete`: removes what a container that has ended still holds; with `--force` it ends it first.

use super::ids;
use crate::args::Parsed;
use crate::container::{Container, status_word};
use crate::context::Context;
use crate::stop::Stop;
use crate::store::missing;
use shoal_protocol::oci::Status;
use shoal_protocol::{Failure, FailureCode};
use shoal_runtime::sys::process;
use shoal_runtime::{hooks, sys};
use std::os::fd::{AsFd, AsRawFd};

/// After how long a killed init is taken to be frozen.
const FROZEN_AFTER_MS: i32 = 500;
/// How long a killed init may take to be gone.
const KILL_TIMEOUT_MS: i32 = 10_000;

pub fn run(context: &Context<'_>, parsed: &Parsed) -> Result<u8, Stop> {
    let force = parsed.on("force");
    let mut last = Ok(0);
    for id in ids(context, parsed)? {
        if let Err(stop) = one(context, &id, force) {
            // The others are deleted all the same.
            if let Err(earlier) = std::mem::replace(&mut last, Err(stop)) {
                context.log.error(&earlier.message);
            }
        }
    }
    last
}

fn one(context: &Context<'_>, id: &str, force: bool) -> Result<(), Stop> {
    let container = match context.root.find(id) {
        Ok(_) => Container::find_locked(context, id),
        Err(failure) if failure.code == FailureCode::NotFound => {
            // A creator that was killed before it wrote the record leaves a directory; one that works on it holds the lock.
            if let Ok(home) = context.root.reserve(id) {
                home.remove()?;
            }
            Err(missing(id).into())
        }
        Err(failure) => return Err(failure.into()),
    };
    let container = match container {
        // Also one that another command has deleted while this one waited.
        Err(stop) if stop.message.ends_with("does not exist") && force => return Ok(()),
        other => other?,
    };
    match container.status() {
        Status::Stopped => {}
        // What a killed creator left is nobody's: there is no init to lose.
        Status::Creating => end(&container)?,
        _ if force => end(&container)?,
        status => {
            return Err(Stop::new(format!(
                "cannot delete container {id} that is not stopped: {}",
                status_word(status)
            )));
        }
    }
    remove(context, &container)
}

/// Kills init and waits until it is gone.
fn end(container: &Container) -> Result<(), Stop> {
    let Ok((_, pinned)) = container.pin_init() else {
        return Ok(());
    };
    let doing = |error: &std::io::Error| {
        Failure::io(
            format!("killing container {:?}", container.record.id),
            error,
        )
    };
    match process::signal_pidfd(pinned.as_fd(), libc::SIGKILL) {
        Err(error) if sys::is(&error, libc::ESRCH) => return Ok(()),
        other => other.map_err(|error| doing(&error))?,
    }
    // A frozen process dies only once it is thawed (v1).
    if let Some((driver, path)) = container.group()
        && driver.is_frozen(path)
    {
        driver.thaw(path)?;
    }
    let mut fds = [libc::pollfd {
        fd: pinned.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    }];
    let mut ended = process::poll(&mut fds, FROZEN_AFTER_MS).map_err(|error| doing(&error))?;
    if ended == 0 {
        // Frozen in a group that is not the container's: in its own it goes on, and ends. It may have ended meanwhile.
        if let (Some((driver, path)), Some(init)) = (container.group(), &container.record.init) {
            drop(driver.attach(path, init.pid));
        }
        ended = process::poll(&mut fds, KILL_TIMEOUT_MS).map_err(|error| doing(&error))?;
    }
    match ended {
        0 => Err(Stop::new("container init still running")),
        _ => Ok(()),
    }
}

/// Removes group and state of a container that has ended, and runs its poststop hooks.
pub fn remove(context: &Context<'_>, container: &Container) -> Result<(), Stop> {
    if let Some((driver, path)) = container.group() {
        driver.remove(path)?;
    }
    if let Some(resctrl) = &container.record.resctrl {
        resctrl.remove()?;
    }
    container.home.remove()?;
    let record = &container.record;
    // The container is gone already; a hook that fails changes nothing (runtime.md "Lifecycle", step 13).
    if let Err(failure) = hooks::run("poststop", &record.poststop, &record.state(Status::Stopped)) {
        context.log.warning(&failure.to_string());
    }
    Ok(())
}
