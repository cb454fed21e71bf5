//! What a runtime tells about a container (runtime.md "State"), to callers and to hooks.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where a container is in its life. `Paused` is runc's and crun's addition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

/// The state of one container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    pub oci_version: String,
    pub id: String,
    pub status: Status,
    /// Init's pid as the host sees it; left out (as 0) once it has stopped.
    #[serde(default, skip_serializing_if = "super::field::is_default")]
    pub pid: i32,
    /// Absolute path of the bundle.
    pub bundle: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_has_the_names_of_the_specification() {
        let state = State {
            oci_version: "1.2.1".into(),
            id: "a".into(),
            status: Status::Created,
            pid: 5,
            bundle: "/b".into(),
            annotations: BTreeMap::new(),
        };
        assert_eq!(
            serde_json::to_string(&state).expect("json"),
            r#"{"ociVersion":"1.2.1","id":"a","status":"created","pid":5,"bundle":"/b"}"#
        );
    }
}
