//! The end of a container: its last output, its exit record on disk, and only then the telling.

use super::commands::answer;
use super::streams::Ready;
use super::{Monitor, poll_for};
use crate::records::{self, ExitRecord, Message};
use shoal_protocol::calls::Exit;
use shoal_protocol::{Failure, FailureCode};
use shoal_runtime::signals;
use shoal_runtime::sys::{file, process};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Longest that output is waited for after the end, when somebody outside still holds the pipe.
pub(super) const DRAIN_MAX: Duration = Duration::from_secs(2);
/// Longest that the monitor stays for attached clients that have not taken everything, once everybody has been told.
const LINGER_MAX: Duration = Duration::from_secs(30);

impl Monitor {
    pub(super) fn finish(&mut self, status: i32) -> ! {
        // What init said last is still in the channel.
        while self.channel.is_some() && self.start_failure.is_none() {
            self.hear_init();
        }
        self.streams.drain(DRAIN_MAX, &mut self.buffer);
        self.finish_execs();
        let lost_log_records = self.streams.finish_log();
        if self.streams.has_rotated() {
            self.tell(&Message::Rotated);
        }
        let (exit_code, signal) = signals::exit_of(status);
        let record = ExitRecord {
            exit: Exit {
                exit_code,
                exit_code_known: true,
                signal,
                oom_killed: self.driver.oom_kills(&self.container.cgroup) > 0,
                finished_at_ms: process::now_ms(),
            },
            started_at_ms: self.started_at_ms,
            lost_log_records,
        };
        let written = file::write_durable_at(
            self.dir.as_fd(),
            records::EXIT_FILE,
            &records::encode(&record),
        );
        // Its place was taken at the creation, so that a full disk does not come here. What does come is told with the exit,
        // which then lives in the core's memory alone: better than keeping it to ourselves.
        let unwritten = written.err().map(|error| {
            let id = &self.container.id;
            Failure::io(format!("writing the exit record of container {id}"), &error)
        });
        // Before the exit, as nobody knows yet whose it is.
        if let Some(starter) = &self.starter
            && starter.unannounced
        {
            answer(&starter.socket, &self.ready());
        }
        if record.exit.oom_killed && self.oom.is_some() {
            self.tell(&Message::Oom);
        }
        self.tell(&Message::Exit { record, unwritten });
        if let Some(starter) = self.starter.take() {
            let failure = self.start_failure.take().unwrap_or_else(|| {
                Failure::new(
                    FailureCode::System,
                    "starting the program",
                    "init ended before it became the program",
                )
            });
            answer(&starter.socket, &Message::Failed { failure });
        }
        self.linger();
        // Nobody waits for what the kernel still has to take down, but perhaps for the next container.
        process::give_way();
        process::exit_now(0)
    }

    /// Lets attached clients take what they have not taken; nobody else waits for this.
    fn linger(&mut self) {
        // Nobody is to find a monitor at work here any more.
        self.connections.clear();
        let deadline = Instant::now() + LINGER_MAX;
        loop {
            let mut fds = Vec::new();
            self.streams.watch(&mut fds);
            self.execs.watch(&mut fds);
            let left = deadline.saturating_duration_since(Instant::now());
            if fds.is_empty() || !matches!(poll_for(&mut fds, left), Ok(1..)) {
                return;
            }
            let ready = Ready(fds);
            self.streams.turn(&ready, &mut self.buffer, true);
            self.execs.turn_streams(&ready, &mut self.buffer);
        }
    }
}
