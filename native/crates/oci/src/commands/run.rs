//! `create` and `run`: a container from a bundle.

use super::delete::remove;
use super::start::{poststart, unstartable};
use crate::args::Parsed;
use crate::container::Container;
use crate::context::Context;
use crate::create::{self, Made, Request};
use crate::foreground::Watch;
use crate::sealed;
use crate::stop::Stop;
use crate::terminal::Terminal;
use shoal_protocol::Failure;
use shoal_protocol::oci::Status;
use shoal_runtime::launch::Agent;
use shoal_runtime::lookup::REFUSED;
use shoal_runtime::sys::process;
use std::os::fd::AsFd;

/// `create`: up to the parked init.
pub fn create(context: &Context<'_>, parsed: &Parsed) -> Result<u8, Stop> {
    sealed::ensure()?;
    sealed::tell(context);
    let request = Request::read(parsed, true)?;
    create::make(context, &request).map_err(|stop| failed(context, "create", stop))?;
    Ok(0)
}

/// `run`: creates, starts, and unless detached waits and removes.
pub fn run(context: &Context<'_>, parsed: &Parsed) -> Result<u8, Stop> {
    sealed::ensure()?;
    sealed::tell(context);
    run_sealed(context, parsed).map_err(|stop| failed(context, "run", stop))
}

fn run_sealed(context: &Context<'_>, parsed: &Parsed) -> Result<u8, Stop> {
    let request = Request::read(parsed, false)?;
    let watch = if request.detach {
        None
    } else {
        if !parsed.on("no-subreaper") {
            process::become_subreaper()
                .map_err(|error| Failure::io("becoming a subreaper", &error))?;
        }
        Some(Watch::begin()?)
    };
    let Made {
        home,
        record,
        parked,
        console,
        notifying,
    } = create::make(context, &request)?;
    let container = Container::new(home, record);
    let (pid, kept) = (parked.pid, parsed.on("keep"));
    let go = || -> Result<u8, Stop> {
        let pidfd = parked
            .pidfd
            .try_clone()
            .map_err(|error| Failure::io("keeping init's descriptor", &error))?;
        let mut terminal = console
            .map(|console| Terminal::receive(console.as_fd()))
            .transpose()?;
        let state = container.record.state(Status::Created);
        let agent = notifying.as_ref().map(|seccomp| Agent {
            path: &seccomp.listener_path,
            metadata: &seccomp.listener_metadata,
            state: &state,
        });
        parked.start_with(agent.as_ref()).map_err(|failed| {
            // runc's init has nobody left to tell but the program's standard error, where scripts look for this one line.
            if failed.failure.doing.starts_with(REFUSED) {
                return Stop::bare(failed.failure.to_string());
            }
            unstartable(failed)
        })?;
        context
            .log
            .debug(|| "init: closing the pipe to signal completion: the program runs".to_owned());
        container.home.unlock();
        poststart(&container.record)?;
        match &watch {
            Some(watch) => Ok(exit_byte(watch.wait(
                pid,
                pidfd.as_fd(),
                terminal.as_mut(),
            )?)),
            None => Ok(0),
        }
    };
    let gone = go();
    match &gone {
        Ok(_) if request.detach || kept => return gone,
        Ok(_) => {}
        Err(_) => {
            // By its descriptor's word: a child that has been waited for leaves a number that may be another's.
            if container.record.living_init().is_some() {
                drop(process::signal(pid, libc::SIGKILL));
            }
            drop(process::wait(pid, 0));
        }
    }
    container.home.lock()?;
    // Another command may have deleted it meanwhile.
    if container.home.exists() {
        remove(context, &container)?;
    }
    gone
}

/// An exit code as a process can have it.
pub fn exit_byte(code: i32) -> u8 {
    u8::try_from(code & 0xff).unwrap_or(u8::MAX)
}

fn failed(context: &Context<'_>, command: &str, stop: Stop) -> Stop {
    if stop.bare {
        return stop;
    }
    Stop {
        message: format!("{} {command} failed: {}", context.name, stop.message),
        ..stop
    }
}
