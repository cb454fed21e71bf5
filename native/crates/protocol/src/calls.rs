//! Requests, answers and events of one connection between shoald and the core, typed.

use crate::{Failure, oci::Spec};
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
    Start,
    Kill,
    Delete,
    State,
    List,
    Pids,
    Network,
    NetworkDump,
    Resolver,
    Unpack,
    Shutdown,
}

/// First frame of a connection.
#[derive(Debug, Deserialize)]
pub struct Hello {
    pub version: u32,
}

/// Everything that a container is made from; kept beside the container as its journal.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Create {
    pub container_id: String,
    pub spec: Spec,
    pub rootfs: Rootfs,
    pub log: Option<Log>,
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
}

/// Body of start, state and pids.
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

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Created,
    Running,
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
}

/// What the core says without being asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "event",
    rename_all = "lowercase",
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
