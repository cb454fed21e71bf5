//! What is kept on disk of a container, and what core, monitor and zygote say to each other.

use serde::{Deserialize, Serialize};
use shoal_protocol::Failure;
use shoal_protocol::calls::{
    ConsoleSize, ExecExit, ExecState, Exit, HealthResult, HealthStatus, Rootfs, Status,
};
use shoal_protocol::oci::Spec;

/// The create call as it came: the journal of a creation, and what delete needs to know.
pub const CREATE_FILE: &str = "create.json";
/// What the journal of a deleted container is called once its root directory has been given free.
pub const RETIRED_FILE: &str = "retired.json";
/// `State`, written before the directory gets its final name.
pub const STATE_FILE: &str = "state.json";
/// `ExitRecord`, durable before anybody is told.
pub const EXIT_FILE: &str = "exit.json";
/// No exit record is longer; this much is set aside for it on disk when a container is made.
pub const EXIT_RECORD_BYTES_MAX: usize = 512;
/// Where a monitor listens.
pub const MONITOR_SOCKET: &str = "mon.sock";
/// A directory of this prefix is a creation under way (or its leftover); no container id can begin with a dot.
pub const CREATING: &str = ".creating-";
/// A directory of this prefix is a sandbox of the pool; once it is used it becomes a creation under way.
pub const PARKED: &str = ".parked-";
/// `Parked`: what a sandbox was made of, and its group until it is used.
pub const PARKED_FILE: &str = "parked.json";
/// A directory of this prefix belongs to a deleted container whose remains are being removed.
pub const DELETING: &str = ".deleting-";

/// Who runs a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    pub container_id: String,
    pub pid: i32,
    pub pid_start_time: u64,
    pub monitor_pid: i32,
    pub boot_id: String,
    pub created_at_ms: u64,
}

/// How a container ended, with what only its monitor knew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExitRecord {
    #[serde(flatten)]
    pub exit: Exit,
    pub started_at_ms: Option<u64>,
    /// Log records that could not be written.
    pub lost_log_records: u64,
}

/// What a sandbox of the pool is made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Parked {
    pub template: Spec,
    /// Its group, which is renamed when it is used.
    pub cgroup: String,
    /// The root that it is parked in, whose directory is renamed when it is used.
    #[serde(default)]
    pub root: Option<Rootfs>,
}

/// First byte of the core's message to the monitor of a sandbox: its directory is now a creation's, which it is to go on with. A packed
/// `shoal_runtime::own::Own` follows
/// in the same message, and then, for a sandbox without a root, `ROOT` in another.
pub const USE: u8 = b'u';
/// The same, and the program is to be started. With the end of a pipe that init closes by becoming the program: the monitor says `Ready`
/// then before it starts init, and nothing of the start unless it fails. Where it cannot hand the pipe on, it says `Running`.
pub const USE_AND_START: u8 = b's';
/// With the detached root of the container; without it the root could not be had.
pub const ROOT: &[u8] = b"t";

/// Core to monitor, one message each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "lowercase")]
pub enum Command {
    Start,
    Kill {
        signal: i32,
        all: bool,
    },
    /// Answers `Status`; this connection is told everything from now on.
    Subscribe,
    Pause,
    Resume,
    /// With the client's connection, which is the monitor's from `Done` on.
    Attach {
        attached: Attached,
    },
    /// Without `exec` the container's own terminal.
    Resize {
        exec: Option<String>,
        size: ConsoleSize,
    },
    /// With a file that holds the call, and the client's connection when one is attached. Answers `ExecStarted`.
    Exec {
        attached: Option<Attached>,
    },
    Execs,
    KillExec {
        exec: String,
        signal: i32,
    },
}

/// A client whose connection becomes a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// The id of its request, which the monitor answers on that connection.
    pub request: u64,
    pub wanted: Wanted,
}

/// Which streams a client asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

/// Monitor to core.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "monitor",
    rename_all = "lowercase",
    rename_all_fields = "camelCase"
)]
pub enum Message {
    /// A sandbox is ready; its root has to be mounted `nodev` where no group limits devices.
    Parked {
        nodev: bool,
        /// The monitor and its init.
        pids: [i32; 2],
    },
    /// The creation is committed.
    Ready {
        pid: i32,
        pid_start_time: u64,
        created_at_ms: u64,
    },
    /// The program runs.
    Started {
        started_at_ms: u64,
    },
    /// `Ready` and `Started` of a container that was to be started at once: whoever waits is woken once.
    Running {
        pid: i32,
        pid_start_time: u64,
        created_at_ms: u64,
        started_at_ms: u64,
    },
    Done,
    Failed {
        failure: Failure,
    },
    Status {
        status: Status,
        started_at_ms: Option<u64>,
    },
    Exit {
        record: ExitRecord,
        /// Why the record is not on disk; None when it is.
        unwritten: Option<Failure>,
    },
    Oom,
    /// A file of the log has got a number.
    Rotated,
    /// Paused, or running again.
    Changed {
        status: Status,
    },
    ExecStarted {
        pid: i32,
    },
    ExecExit {
        exec_id: String,
        exit: ExecExit,
    },
    Execs {
        execs: Vec<ExecState>,
    },
    /// One result, or the status only before the first.
    Health {
        status: HealthStatus,
        failing_streak: u32,
        result: Option<HealthResult>,
    },
}

/// The bytes of a record or message.
pub fn encode(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("records are plain data with string keys")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_record_survives_the_way_to_disk() {
        let record = ExitRecord {
            exit: Exit {
                exit_code: 3,
                exit_code_known: true,
                signal: None,
                oom_killed: false,
                finished_at_ms: 9,
            },
            started_at_ms: Some(4),
            lost_log_records: 0,
        };
        let back: Message = serde_json::from_slice(&encode(&Message::Exit {
            record: record.clone(),
            unwritten: None,
        }))
        .expect("json");
        let unwritten = None;
        assert_eq!(back, Message::Exit { record, unwritten });
    }
    #[test]
    fn the_longest_exit_record_fits_what_is_set_aside() {
        let record = ExitRecord {
            exit: Exit {
                exit_code: i32::MIN,
                exit_code_known: false,
                signal: Some("SIGRTMAX-15".into()),
                oom_killed: false,
                finished_at_ms: u64::MAX,
            },
            started_at_ms: Some(u64::MAX),
            lost_log_records: u64::MAX,
        };
        assert!(encode(&record).len() <= EXIT_RECORD_BYTES_MAX);
    }
}
