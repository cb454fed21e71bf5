//! `kill`: a signal to a container's first process, or to every process of it.

use super::ids;
use crate::args::Parsed;
use crate::container::Container;
use crate::context::Context;
use crate::stop::Stop;
use shoal_protocol::Failure;
use shoal_runtime::signals;
use shoal_runtime::sys::{self, process};
use std::os::fd::AsFd;

pub fn run(context: &Context<'_>, parsed: &Parsed) -> Result<u8, Stop> {
    let (mut targets, mut word) = (parsed.clone(), "SIGTERM".to_owned());
    if targets.operands.len() > 1 {
        word = targets.operands.remove(1);
    }
    let signal = number(&word)?;
    for id in ids(context, &targets)? {
        let container = Container::find(context, &id)?;
        one(&container, signal, parsed.on("all"))?;
    }
    Ok(0)
}

/// A signal by name or number; 0 asks whether init is there.
fn number(word: &str) -> Result<i32, Stop> {
    if word == "0" {
        return Ok(0);
    }
    signals::number(word).ok_or_else(|| Stop::new(format!("unknown signal {word:?}")))
}

fn one(container: &Container, signal: i32, all: bool) -> Result<(), Stop> {
    let kill = signal == libc::SIGKILL;
    let shared = !container.record.own_pid_namespace;
    let pinned = match container.pin_init() {
        Ok((_, pinned)) => pinned,
        // Without a pid namespace of its own, a container's processes outlive its first.
        Err(_) if all || (kill && shared && has_processes(container)) => {
            return everyone(container, signal);
        }
        Err(stop) => return Err(stop),
    };
    if all || (kill && shared) {
        everyone(container, signal)?;
    }
    match process::signal_pidfd(pinned.as_fd(), signal) {
        Err(error) if sys::is(&error, libc::ESRCH) => {
            if all || (kill && shared) {
                return Ok(());
            }
            return Err(Stop::new("container not running"));
        }
        other => other.map_err(|error| {
            Failure::io(
                format!("signalling container {:?}", container.record.id),
                &error,
            )
        })?,
    }
    if kill { thaw(container) } else { Ok(()) }
}

fn has_processes(container: &Container) -> bool {
    container
        .group()
        .is_some_and(|(driver, path)| !driver.pids(path).is_empty())
}

fn everyone(container: &Container, signal: i32) -> Result<(), Stop> {
    if let Some((driver, path)) = container.group() {
        driver.kill_all(path, signal)?;
    }
    Ok(())
}

/// A frozen process of v1 dies only once it is thawed.
fn thaw(container: &Container) -> Result<(), Stop> {
    if let Some((driver, path)) = container.group()
        && driver.is_frozen(path)
    {
        driver.thaw(path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_takes_names_numbers_and_zero() {
        for (word, want) in [
            ("0", Some(0)),
            ("KILL", Some(9)),
            ("sigterm", Some(15)),
            ("64", Some(64)),
            ("nope", None),
            ("-1", None),
            ("", None),
        ] {
            assert_eq!(number(word).ok(), want, "{word}");
        }
    }
}
