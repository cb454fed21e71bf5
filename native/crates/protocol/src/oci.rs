//! The part of an OCI runtime-spec configuration that the core acts on; unknown fields are ignored, absent and null are alike.

use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

/// An OCI runtime-spec 1.x configuration (config.md).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    #[serde(deserialize_with = "null_default")]
    pub oci_version: String,
    #[serde(deserialize_with = "null_default")]
    pub process: Process,
    #[serde(deserialize_with = "null_default")]
    pub root: Root,
    #[serde(deserialize_with = "null_default")]
    pub hostname: String,
    #[serde(deserialize_with = "null_default")]
    pub mounts: Vec<Mount>,
    #[serde(deserialize_with = "null_default")]
    pub annotations: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_default")]
    pub linux: Linux,
}

/// What is executed, and as whom.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Process {
    #[serde(deserialize_with = "null_default")]
    pub terminal: bool,
    #[serde(deserialize_with = "null_default")]
    pub user: User,
    #[serde(deserialize_with = "null_default")]
    pub args: Vec<String>,
    #[serde(deserialize_with = "null_default")]
    pub env: Vec<String>,
    #[serde(deserialize_with = "null_default")]
    pub cwd: String,
    #[serde(deserialize_with = "null_default")]
    pub capabilities: Capabilities,
    #[serde(deserialize_with = "null_default")]
    pub rlimits: Vec<Rlimit>,
    #[serde(deserialize_with = "null_default")]
    pub no_new_privileges: bool,
    pub oom_score_adj: Option<i32>,
}

/// Numeric user and groups inside the container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct User {
    #[serde(deserialize_with = "null_default")]
    pub uid: u32,
    #[serde(deserialize_with = "null_default")]
    pub gid: u32,
    #[serde(deserialize_with = "null_default")]
    pub additional_gids: Vec<u32>,
}

/// The five capability sets, by name (`CAP_CHOWN`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Capabilities {
    #[serde(deserialize_with = "null_default")]
    pub bounding: Vec<String>,
    #[serde(deserialize_with = "null_default")]
    pub effective: Vec<String>,
    #[serde(deserialize_with = "null_default")]
    pub permitted: Vec<String>,
    #[serde(deserialize_with = "null_default")]
    pub inheritable: Vec<String>,
    #[serde(deserialize_with = "null_default")]
    pub ambient: Vec<String>,
}

/// One resource limit, `RLIMIT_NOFILE` style.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rlimit {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(deserialize_with = "limit")]
    pub hard: u64,
    #[serde(deserialize_with = "limit")]
    pub soft: u64,
}

/// The root's own options; where it comes from is told by `Rootfs`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Root {
    #[serde(deserialize_with = "null_default")]
    pub path: String,
    #[serde(deserialize_with = "null_default")]
    pub readonly: bool,
}

/// One mount, in the words of mount(8).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mount {
    pub destination: String,
    #[serde(rename = "type", deserialize_with = "null_default")]
    pub kind: String,
    #[serde(deserialize_with = "null_default")]
    pub source: String,
    #[serde(deserialize_with = "null_default")]
    pub options: Vec<String>,
}

/// The Linux part of the configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Linux {
    #[serde(deserialize_with = "null_default")]
    pub namespaces: Vec<Namespace>,
    #[serde(deserialize_with = "null_default")]
    pub resources: Resources,
    #[serde(deserialize_with = "null_default")]
    pub cgroups_path: String,
    #[serde(deserialize_with = "null_default")]
    pub masked_paths: Vec<String>,
    #[serde(deserialize_with = "null_default")]
    pub readonly_paths: Vec<String>,
    #[serde(deserialize_with = "null_default")]
    pub sysctl: BTreeMap<String, String>,
}

/// A namespace to make (no path) or to join.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Namespace {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub path: Option<String>,
}

/// Limits of the container's cgroup.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    pub memory: Option<Memory>,
    pub cpu: Option<Cpu>,
    pub pids: Option<Pids>,
}

/// Bytes; `swap` is memory plus swap, as Docker counts it; -1 is no limit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    pub limit: Option<i64>,
    pub reservation: Option<i64>,
    pub swap: Option<i64>,
}

/// Shares are v1's (2..262144); quota and period are microseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cpu {
    pub shares: Option<u64>,
    pub quota: Option<i64>,
    pub period: Option<u64>,
    pub cpus: Option<String>,
}

/// Most tasks; 0 or less is no limit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pids {
    pub limit: i64,
}

fn null_default<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

/// A resource limit: negative, or too large for a u64 (as JavaScript writes 2^64), means no limit.
fn limit<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    struct Limit;
    impl serde::de::Visitor<'_> for Limit {
        type Value = u64;
        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str("a whole number")
        }
        fn visit_u64<E>(self, value: u64) -> Result<u64, E> {
            Ok(value)
        }
        fn visit_i64<E>(self, value: i64) -> Result<u64, E> {
            Ok(u64::try_from(value).unwrap_or(u64::MAX))
        }
        fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<u64, E> {
            if !(0.0..9.2e18).contains(&value) {
                return Ok(u64::MAX);
            }
            Err(E::custom(format!("{value} is not a whole number")))
        }
    }
    from.deserialize_any(Limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spec_takes_null_absent_and_unknown_fields_alike() {
        let spec: Spec = serde_json::from_str(
            r#"{"ociVersion":"9.9.9-dev","zzz":1,"process":{"args":["a"],"env":null,"user":{"uid":7}},"mounts":[{"destination":"/x","options":null}],"linux":null}"#,
        )
        .expect("a lenient configuration");
        assert_eq!(spec.process.args, ["a"]);
        assert_eq!(spec.process.user.uid, 7);
        assert!(spec.mounts[0].options.is_empty());
        assert_eq!(spec.linux, Linux::default());
    }

    #[test]
    fn rlimit_takes_infinity_as_javascript_writes_it() {
        for (text, want) in [
            ("1024", 1024),
            ("-1", u64::MAX),
            ("18446744073709552000", u64::MAX),
        ] {
            let json = format!(r#"{{"type":"RLIMIT_CORE","hard":{text},"soft":1}}"#);
            let read: Rlimit = serde_json::from_str(&json).expect("a limit");
            assert_eq!(read.hard, want, "{text}");
        }
    }
}
