//! `events`: statistics at an interval, and that memory ran out.

use super::print;
use crate::args::Parsed;
use crate::container::Container;
use crate::context::Context;
use crate::stop::Stop;
use serde::Serialize;
use shoal_protocol::Failure;
use shoal_runtime::cgroup::Driver;
use shoal_runtime::sys::process;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_secs(5);

#[derive(Serialize)]
struct Event<'a, T> {
    #[serde(rename = "type")]
    kind: &'a str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<T>,
}

pub fn run(context: &Context<'_>, parsed: &Parsed) -> Result<u8, Stop> {
    let interval = match parsed.text("interval") {
        None => INTERVAL,
        Some(text) => duration(text)
            .filter(|interval| !interval.is_zero())
            .ok_or_else(|| {
                Stop::new(format!(
                    "invalid value {text:?} for --interval: it is a duration above 0 such as 5s"
                ))
            })?,
    };
    let container = Container::find(context, &parsed.operands[0])?;
    let id = &container.record.id;
    let Ok(init) = container.living_init() else {
        return Err(Stop::new(format!("container with id {id} is not running")));
    };
    let Some((driver, path)) = container.group() else {
        return Err(Stop::new(format!(
            "container {id:?} has no control group to measure"
        )));
    };
    if parsed.on("stats") {
        return statistics(driver, path, &container);
    }
    let pinned = process::pidfd(init.pid)
        .map_err(|error| Failure::io(format!("watching container {id:?}"), &error))?;
    let memory = driver.oom_watch(path);
    let mut seen = driver.oom_kills(path);
    let mut next = Instant::now() + interval;
    loop {
        let entry = |fd: i32| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        };
        let mut fds = [
            entry(pinned.as_raw_fd()),
            entry(memory.as_ref().map_or(-1, |watch| watch.event.as_raw_fd())),
        ];
        let left = next.saturating_duration_since(Instant::now()).as_millis();
        process::poll(&mut fds, i32::try_from(left).unwrap_or(i32::MAX))
            .map_err(|error| Failure::io(format!("watching container {id:?}"), &error))?;
        if fds[1].revents != 0 {
            drain(fds[1].fd);
            let now = driver.oom_kills(path);
            // v1 also tells that the group is gone.
            if now > seen || container.record.living_init().is_some() {
                line(&Event::<()> {
                    kind: "oom",
                    id,
                    data: None,
                })?;
            }
            seen = now;
        }
        if fds[0].revents != 0 {
            return Ok(0);
        }
        if Instant::now() >= next {
            next += interval;
            if let Err(stop) = statistics(driver, path, &container) {
                context.log.warning(&stop.message);
            }
        }
    }
}

fn statistics(driver: &dyn Driver, path: &str, container: &Container) -> Result<u8, Stop> {
    let mut stats = driver.stats(path);
    if let Some(resctrl) = &container.record.resctrl {
        stats.intel_rdt = resctrl.stats();
    }
    line(&Event {
        kind: "stats",
        id: &container.record.id,
        data: Some(stats),
    })
}

fn line<T: Serialize>(event: &Event<'_, T>) -> Result<u8, Stop> {
    let mut text = serde_json::to_string(event)
        .map_err(|error| Stop::new(format!("writing an event: {error}")))?;
    text.push('\n');
    print(&text)
}

/// Takes the events that are there, so that the descriptor is quiet until the next one.
fn drain(fd: i32) {
    let mut buffer = [0u8; 4096];
    // SAFETY: the buffer is writable for its length; the descriptor does not block, and what it holds does not matter.
    unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) };
}

/// `5s`, `200ms`, `1m30s`, as Go writes durations.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut whole = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let (number, after) = rest.split_at(digits);
        let letters = after
            .find(|letter: char| letter.is_ascii_digit() || letter == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
        whole = whole.checked_add(part)?;
        rest = after;
    }
    (!text.is_empty()).then_some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_reads_gos() {
        for (text, want) in [
            ("5s", Some(5000)),
            ("200ms", Some(200)),
            ("1m30s", Some(90_000)),
            ("0.5h", Some(1_800_000)),
            ("", None),
            ("5", None),
            ("x", None),
            ("5y", None),
            ("-1s", None),
        ] {
            assert_eq!(duration(text).map(|at| at.as_millis()), want, "{text}");
        }
    }
}
