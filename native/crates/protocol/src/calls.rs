//! Requests, answers and events of one connection between shoald and the core, typed.

use crate::Failure;
use crate::oci::{Process, Resources, Spec};
use crate::packed::{Packed, packed_whole};
use serde::{Deserialize, Serialize};

/// What every request has; the rest of the frame is read by the call it names.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Head {
    pub id: u64,
    pub call: CallName,
}

/// The calls, a closed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CallName {
    Hello,
    Create,
    Run,
    Start,
    Kill,
    Delete,
    State,
    List,
    Pids,
    Exec,
    ExecKill,
    Execs,
    Attach,
    Resize,
    Pause,
    Resume,
    Update,
    Stats,
    Logs,
    Network,
    NetworkDump,
    Resolver,
    Unpack,
    Diff,
    Export,
    Commit,
    Shutdown,
}

impl CallName {
    /// Whether a connection that begins with this call can become a stream.
    pub fn is_stream(self) -> bool {
        matches!(
            self,
            Self::Attach | Self::Exec | Self::Logs | Self::Unpack | Self::Diff | Self::Export
        )
    }
}

/// First frame of a connection.
#[derive(Debug, Deserialize)]
pub struct Hello {
    pub version: u32,
}

/// Body of create and run: everything that a container is made from; kept beside the container as its journal.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Create {
    pub container_id: String,
    pub spec: Spec,
    pub rootfs: Rootfs,
    pub log: Option<Log>,
    #[serde(default)]
    pub stdin: Stdin,
    /// Size of the terminal at the start, when `spec.process.terminal`.
    #[serde(default)]
    pub console_size: Option<ConsoleSize>,
    #[serde(default)]
    pub seccomp: Seccomp,
    #[serde(default)]
    pub health: Option<Healthcheck>,
}

/// What a program reads from: nothing, or what attached clients write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stdin {
    /// /dev/null.
    #[default]
    Closed,
    /// A pipe that stays open when a client goes.
    Open,
    /// A pipe that is closed when the first attached client's input ends (docker's StdinOnce).
    Once,
}

/// Character cells of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleSize {
    pub rows: u16,
    pub columns: u16,
}

/// Which system calls a container may make; what `spec.linux.seccomp` says counts when this is `unconfined`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Seccomp {
    /// Docker's default profile, by the container's capabilities.
    Default,
    #[default]
    Unconfined,
    /// The text of a profile in docker's format.
    Profile(String),
}

/// How the health of a container is found out; docker's words and meanings. A number of 0 is docker's default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Healthcheck {
    /// `["CMD", ARG...]`, `["CMD-SHELL", COMMAND]` or `["NONE"]`.
    pub test: Vec<String>,
    pub interval_ms: u64,
    pub timeout_ms: u64,
    pub start_period_ms: u64,
    pub start_interval_ms: u64,
    pub retries: u32,
}

/// An overlay root: unpacked layers, lowest first, and the directory that holds `upper` and `work`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rootfs {
    pub layers: Vec<String>,
    pub directory: String,
}

/// A json-file log; `max_files` counts the current file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Log {
    pub path: String,
    pub max_size_bytes: Option<u64>,
    pub max_files: u32,
    #[serde(default)]
    pub mode: LogMode,
    /// Room between the program and a slow disk in non-blocking mode, in bytes.
    #[serde(default = "buffer_bytes_default")]
    pub max_buffer_bytes: u64,
    /// Rotated files become `PATH.N.gz`.
    #[serde(default)]
    pub compress: bool,
}

packed_whole!(Rootfs { layers, directory });

packed_whole!(Log {
    path,
    max_size_bytes,
    max_files,
    mode,
    max_buffer_bytes,
    compress,
});

packed_whole!(Healthcheck {
    test,
    interval_ms,
    timeout_ms,
    start_period_ms,
    start_interval_ms,
    retries,
});

impl Packed for Stdin {
    fn write(&self, to: &mut Vec<u8>) {
        to.push(match self {
            Self::Closed => 0,
            Self::Open => 1,
            Self::Once => 2,
        });
    }
    fn read(from: &mut &[u8]) -> Option<Self> {
        match u8::read(from)? {
            0 => Some(Self::Closed),
            1 => Some(Self::Open),
            2 => Some(Self::Once),
            _ => None,
        }
    }
}

impl Packed for LogMode {
    fn write(&self, to: &mut Vec<u8>) {
        (*self == Self::NonBlocking).write(to);
    }
    fn read(from: &mut &[u8]) -> Option<Self> {
        Some(if bool::read(from)? {
            Self::NonBlocking
        } else {
            Self::Blocking
        })
    }
}

impl Packed for Seccomp {
    fn write(&self, to: &mut Vec<u8>) {
        match self {
            Self::Default => to.push(0),
            Self::Unconfined => to.push(1),
            Self::Profile(text) => {
                to.push(2);
                text.write(to);
            }
        }
    }
    fn read(from: &mut &[u8]) -> Option<Self> {
        match u8::read(from)? {
            0 => Some(Self::Default),
            1 => Some(Self::Unconfined),
            2 => String::read(from).map(Self::Profile),
            _ => None,
        }
    }
}

/// What a full log buffer does: the program waits, or records are dropped and counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogMode {
    #[default]
    Blocking,
    NonBlocking,
}

/// Docker's max-buffer-size.
fn buffer_bytes_default() -> u64 {
    1024 * 1024
}

/// Body of start, state, pids, execs, pause, resume and stats.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ById {
    pub container_id: String,
}

/// Body of kill.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kill {
    pub container_id: String,
    pub signal: String,
    pub all: bool,
}

/// Body of delete.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Delete {
    pub container_id: String,
    pub force: bool,
}

/// Body of exec: a further process in a running container. With a stream attached the connection becomes that stream.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exec {
    pub container_id: String,
    /// The caller's name for it; unique in the container.
    pub exec_id: String,
    pub process: Process,
    pub console_size: Option<ConsoleSize>,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

impl Exec {
    /// Whether the caller's connection becomes the program's streams.
    pub fn attached(&self) -> bool {
        self.stdin || self.stdout || self.stderr
    }
}

/// Body of exec-kill.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecKill {
    pub container_id: String,
    pub exec_id: String,
    pub signal: String,
}

/// Body of attach; the connection becomes the container's streams.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attach {
    pub container_id: String,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

/// Body of resize; without `exec_id` the container's own terminal.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resize {
    pub container_id: String,
    pub exec_id: Option<String>,
    pub rows: u16,
    pub columns: u16,
}

/// Body of update: limits that are null stay as they are.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Update {
    pub container_id: String,
    pub resources: Resources,
}

/// Body of logs; the connection becomes docker's 8-byte frames, one a record.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Logs {
    pub container_id: String,
    pub stdout: bool,
    pub stderr: bool,
    /// On after the end of the file, until the container has ended.
    pub follow: bool,
    /// Records from the end, before any other filter; null: all.
    pub tail: Option<u64>,
    /// Decimal nanoseconds since the epoch: records at that time or later.
    pub since_ns: Option<String>,
    /// Decimal nanoseconds since the epoch: records up to that time.
    pub until_ns: Option<String>,
    /// Each record begins with its time (RFC 3339) and a space.
    pub timestamps: bool,
}

/// One exec as `execs` tells it; kept after its end until its container goes, the oldest ended ones first beyond a limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecState {
    pub exec_id: String,
    /// In the core's pid namespace; 0 once it has ended.
    pub pid: i32,
    pub started_at_ms: u64,
    /// None while it runs.
    pub exit: Option<ExecExit>,
}

/// How an exec ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecExit {
    /// 0..255; 128+signal when killed by one.
    pub exit_code: i32,
    pub signal: Option<String>,
    pub finished_at_ms: u64,
}

/// What a health check has found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    pub status: HealthStatus,
    /// Failures in a row.
    pub failing_streak: u32,
    /// The last ones, oldest first.
    pub results: Vec<HealthResult>,
}

/// Docker's three words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    Starting,
    Healthy,
    Unhealthy,
}

/// One run of a health check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthResult {
    pub started_at_ms: u64,
    pub ended_at_ms: u64,
    /// -1 when it took too long or could not be started.
    pub exit_code: i32,
    pub output: String,
}

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Created,
    Running,
    Paused,
    Stopped,
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exit {
    /// 0..255; 128+signal when killed by one.
    pub exit_code: i32,
    /// False when the monitor itself died and nobody could know.
    pub exit_code_known: bool,
    pub signal: Option<String>,
    pub oom_killed: bool,
    pub finished_at_ms: u64,
}

/// One container as state and list tell it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    pub container_id: String,
    pub status: Status,
    /// Init's pid in the core's pid namespace; 0 once stopped.
    pub pid: i32,
    pub created_at_ms: u64,
    pub started_at_ms: Option<u64>,
    pub exit: Option<Exit>,
    /// None without a health check.
    pub health: Option<Health>,
}

/// What the core says without being asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "event",
    rename_all = "kebab-case",
    rename_all_fields = "camelCase"
)]
pub enum Event {
    Exit {
        container_id: String,
        #[serde(flatten)]
        exit: Exit,
    },
    Oom {
        container_id: String,
    },
    /// `execs` has it too, for those who were away.
    ExecExit {
        container_id: String,
        exec_id: String,
        #[serde(flatten)]
        exit: ExecExit,
    },
    /// The status has changed; `state` has the results.
    Health {
        container_id: String,
        status: HealthStatus,
    },
}

/// The bytes of an answer to request `id`.
pub fn reply(id: u64, answer: &Result<serde_json::Value, Failure>) -> Vec<u8> {
    #[derive(Serialize)]
    struct Done<'a> {
        id: u64,
        ok: bool,
        value: &'a serde_json::Value,
    }
    #[derive(Serialize)]
    struct Failed<'a> {
        id: u64,
        ok: bool,
        #[serde(flatten)]
        failure: &'a Failure,
    }
    let bytes = match answer {
        Ok(value) => serde_json::to_vec(&Done {
            id,
            ok: true,
            value,
        }),
        Err(failure) => serde_json::to_vec(&Failed {
            id,
            ok: false,
            failure,
        }),
    };
    bytes.expect("answers are plain data with string keys")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_event_is_flat() {
        let event = Event::Exit {
            container_id: "a".into(),
            exit: Exit {
                exit_code: 137,
                exit_code_known: true,
                signal: Some("SIGKILL".into()),
                oom_killed: false,
                finished_at_ms: 5,
            },
        };
        assert_eq!(
            serde_json::to_value(&event).expect("json"),
            serde_json::json!({"event":"exit","containerId":"a","exitCode":137,"exitCodeKnown":true,"signal":"SIGKILL","oomKilled":false,"finishedAtMs":5})
        );
    }

    #[test]
    fn failed_reply_carries_every_field() {
        let bytes = reply(9, &Err(Failure::invalid("parsing id", "bad")));
        let value: serde_json::Value = serde_json::from_slice(&bytes).expect("json");
        assert_eq!(
            value,
            serde_json::json!({"id":9,"ok":false,"code":"invalid","errno":null,"message":"bad","doing":"parsing id"})
        );
    }
}
