//! A container's health: when its check runs, and what its results mean. Docker's rules, which hold on without shoald and core.

use super::Monitor;
use crate::records::Message;
use shoal_protocol::Failure;
use shoal_protocol::calls::{HealthResult, HealthStatus, Healthcheck, Status};
use shoal_protocol::oci::Process;
use shoal_runtime::sys::process;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Docker's defaults, in milliseconds.
const INTERVAL_MS: u64 = 30_000;
const TIMEOUT_MS: u64 = 30_000;
const START_INTERVAL_MS: u64 = 5_000;
const RETRIES: u32 = 3;
/// Results that are kept.
pub const RESULTS_MAX: usize = 5;
/// What a check that could not be finished is said to have ended with.
const UNFINISHED: i32 = -1;

/// The health check of one container.
pub(super) struct Health {
    process: Process,
    interval: Duration,
    timeout: Duration,
    start_period: Duration,
    start_interval: Duration,
    retries: u32,
    /// When the container's program began.
    began: Option<Instant>,
    status: HealthStatus,
    failing_streak: u32,
    results: VecDeque<HealthResult>,
    turn: Turn,
}

/// What the check is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Not started yet, or suspended while the container is paused.
    Off,
    Waits {
        until: Instant,
    },
    /// A check runs and is killed at `until`; `late` once that has been done.
    Runs {
        until: Instant,
        late: bool,
    },
    /// A check was running when the container was paused; its result does not count.
    Void,
}

/// What a health check executes; None for `NONE`.
fn arguments(check: &Healthcheck) -> Result<Option<Vec<String>>, Failure> {
    let task = "reading health.test";
    let refuse = |message: String| Err(Failure::invalid(task, message));
    match check.test.split_first() {
        None => Ok(None),
        Some((word, [])) if word == "NONE" => Ok(None),
        Some((word, rest)) if word == "CMD" && !rest.is_empty() => Ok(Some(rest.to_vec())),
        Some((word, [command])) if word == "CMD-SHELL" => {
            Ok(Some(vec!["/bin/sh".into(), "-c".into(), command.clone()]))
        }
        Some((word, rest)) => refuse(format!(
            "{word:?} with {} words after it is none of [\"CMD\", ARG...], [\"CMD-SHELL\", COMMAND] and [\"NONE\"]",
            rest.len()
        )),
    }
}

/// Whether a container with this check has a health at all.
pub fn is_checked(check: Option<&Healthcheck>) -> Result<bool, Failure> {
    Ok(check.map(arguments).transpose()?.flatten().is_some())
}

impl Health {
    /// The check of a container that runs `program`; None when there is none. It begins with the program.
    pub(super) fn new(check: &Healthcheck, program: &Process) -> Result<Option<Self>, Failure> {
        let Some(args) = arguments(check)? else {
            return Ok(None);
        };
        let or =
            |given: u64, usual: u64| Duration::from_millis(if given == 0 { usual } else { given });
        Ok(Some(Self {
            process: Process {
                terminal: false,
                console_size: None,
                args,
                ..program.clone()
            },
            interval: or(check.interval_ms, INTERVAL_MS),
            timeout: or(check.timeout_ms, TIMEOUT_MS),
            start_period: Duration::from_millis(check.start_period_ms),
            start_interval: or(check.start_interval_ms, START_INTERVAL_MS),
            retries: if check.retries == 0 {
                RETRIES
            } else {
                check.retries
            },
            began: None,
            status: HealthStatus::Starting,
            failing_streak: 0,
            results: VecDeque::new(),
            turn: Turn::Off,
        }))
    }

    /// The program runs.
    pub(super) fn begin(&mut self, now: Instant) {
        self.began = Some(now);
        self.wait(now);
    }

    /// Nothing is checked while the container is paused.
    pub(super) fn suspend(&mut self) {
        self.turn = match self.turn {
            Turn::Runs { .. } | Turn::Void => Turn::Void,
            Turn::Off | Turn::Waits { .. } => Turn::Off,
        };
    }

    /// The container is not paused any more.
    pub(super) fn resume(&mut self, now: Instant) {
        if self.turn == Turn::Off {
            self.wait(now);
        }
    }

    /// When something has to be done.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.turn {
            Turn::Waits { until } | Turn::Runs { until, late: false } => Some(until),
            Turn::Off | Turn::Void | Turn::Runs { late: true, .. } => None,
        }
    }

    fn wait(&mut self, now: Instant) {
        self.turn = Turn::Waits {
            until: now + self.pause(now),
        };
    }

    /// How long to wait for the next check: shorter while the container starts, and never past the end of its start period.
    fn pause(&self, now: Instant) -> Duration {
        let elapsed = self.began.map_or(Duration::ZERO, |began| now - began);
        let left = self.start_period.saturating_sub(elapsed);
        if left.is_zero() || self.status != HealthStatus::Starting {
            return self.interval;
        }
        self.start_interval.min(left)
    }

    /// Takes a result in; whether the status has changed.
    fn record(&mut self, result: HealthResult, began_ago: Duration) {
        let healthy = result.exit_code == 0;
        if self.results.len() >= RESULTS_MAX {
            self.results.pop_front();
        }
        self.results.push_back(result);
        if healthy {
            (self.failing_streak, self.status) = (0, HealthStatus::Healthy);
            return;
        }
        // A container that is starting may fail until its start period is over.
        if self.status == HealthStatus::Starting && began_ago < self.start_period {
            return;
        }
        self.failing_streak = self.failing_streak.saturating_add(1);
        if self.failing_streak >= self.retries {
            self.status = HealthStatus::Unhealthy;
        }
    }

    fn message(&self, result: Option<&HealthResult>) -> Message {
        Message::Health {
            status: self.status,
            failing_streak: self.failing_streak,
            result: result.cloned(),
        }
    }

    /// All that is known, for somebody who has heard nothing yet.
    pub(super) fn messages(&self) -> Vec<Message> {
        if self.results.is_empty() {
            return vec![self.message(None)];
        }
        let results = self.results.iter();
        results.map(|result| self.message(Some(result))).collect()
    }
}

impl Monitor {
    /// Begins a check that is due, and ends one that takes too long.
    pub(super) fn check_health(&mut self) {
        let now = Instant::now();
        let Some(health) = &mut self.health else {
            return;
        };
        match health.turn {
            Turn::Waits { until } if now >= until => {
                health.turn = Turn::Runs {
                    until: now + health.timeout,
                    late: false,
                };
                let process = health.process.clone();
                let started_at_ms = process::now_ms();
                if let Err(failure) = self.begin_probe(&process) {
                    self.probe_ended(started_at_ms, Err(failure));
                }
            }
            Turn::Runs { until, late: false } if now >= until => {
                health.turn = Turn::Runs { until, late: true };
                self.execs.kill_probe();
            }
            _ => {}
        }
    }

    /// A check has ended with its exit code and output, or could not be started.
    pub(super) fn probe_ended(
        &mut self,
        started_at_ms: u64,
        result: Result<(i32, String), Failure>,
    ) {
        let now = Instant::now();
        let Some(health) = &mut self.health else {
            return;
        };
        let before = std::mem::replace(&mut health.turn, Turn::Off);
        if self.status == Status::Running {
            health.wait(now);
        }
        if before == Turn::Void {
            return;
        }
        let (exit_code, output) = match result {
            Ok((_, output)) if matches!(before, Turn::Runs { late: true, .. }) => {
                let limit = go_duration(health.timeout);
                let text = if output.is_empty() {
                    format!("Health check exceeded timeout ({limit})")
                } else {
                    format!("Health check exceeded timeout ({limit}): {output}")
                };
                (UNFINISHED, text)
            }
            Ok(ended) => ended,
            Err(failure) => (UNFINISHED, failure.to_string()),
        };
        let ended_at_ms = process::now_ms();
        let result = HealthResult {
            started_at_ms,
            ended_at_ms,
            exit_code,
            output,
        };
        let ran = Duration::from_millis(ended_at_ms.saturating_sub(started_at_ms));
        let began_ago = health
            .began
            .map_or(Duration::ZERO, |began| (now - began).saturating_sub(ran));
        health.record(result, began_ago);
        let message = health.message(health.results.back());
        self.tell(&message);
    }
}

/// As Go prints a duration: `1m30s`, `500ms`.
fn go_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    if ms < 1000 {
        return format!("{ms}ms");
    }
    let (hours, minutes, rest) = (ms / 3_600_000, ms / 60_000 % 60, ms % 60_000);
    let mut seconds = format!("{}", rest / 1000);
    if rest % 1000 != 0 {
        let digits = format!(".{:03}", rest % 1000);
        seconds.push_str(digits.trim_end_matches('0'));
    }
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}
