//! What is executed in a container, and as whom (config.md "Process").

use super::field::{limit, part};
use serde::{Deserialize, Serialize};

part! {
    /// The container's program with everything that it starts with.
    pub struct Process {
        pub terminal: bool,
        /// The size of the terminal, when there is one.
        pub console_size: Option<ConsoleSize>,
        pub user: User,
        pub args: Vec<String>,
        pub env: Vec<String>,
        pub cwd: String,
        pub capabilities: Capabilities,
        pub rlimits: Vec<Rlimit>,
        pub no_new_privileges: bool,
        pub apparmor_profile: String,
        pub selinux_label: String,
        pub oom_score_adj: Option<i32>,
        pub scheduler: Option<Scheduler>,
        pub io_priority: Option<IoPriority>,
        #[serde(rename = "execCPUAffinity")]
        pub exec_cpu_affinity: Option<CpuAffinity>,
    }
}

part! {
    /// Size of a terminal in characters.
    pub struct ConsoleSize {
        pub height: u16,
        pub width: u16,
    }
}

part! {
    /// Numeric user and groups inside the container.
    pub struct User {
        pub uid: u32,
        pub gid: u32,
        /// File mode creation mask; 0022 when absent.
        pub umask: Option<u32>,
        pub additional_gids: Vec<u32>,
    }
}

part! {
    /// The five capability sets, by name (`CAP_CHOWN`).
    pub struct Capabilities {
        pub bounding: Vec<String>,
        pub effective: Vec<String>,
        pub permitted: Vec<String>,
        pub inheritable: Vec<String>,
        pub ambient: Vec<String>,
    }
}

/// One resource limit, `RLIMIT_NOFILE` style; `u64::MAX` is no limit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rlimit {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(deserialize_with = "limit")]
    pub hard: u64,
    #[serde(deserialize_with = "limit")]
    pub soft: u64,
}

crate::packed::packed!(Rlimit { kind, hard, soft });

impl super::field::Field for Rlimit {
    fn read<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::deserialize(from)
    }
}

part! {
    /// CPU scheduling, as sched_setattr(2) takes it; runtime, deadline and period are nanoseconds.
    pub struct Scheduler {
        pub policy: String,
        pub nice: i32,
        pub priority: i32,
        pub flags: Vec<String>,
        pub runtime: u64,
        pub deadline: u64,
        pub period: u64,
    }
}

part! {
    /// I/O scheduling, as ioprio_set(2) takes it.
    pub struct IoPriority {
        pub class: String,
        pub priority: i32,
    }
}

part! {
    /// CPUs of an exec'd process before (`initial`) and after (`final`) it is in the container's cgroup, as a list (`0-2,5`).
    pub struct CpuAffinity {
        pub initial: String,
        #[serde(rename = "final")]
        pub last: String,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rlimit_takes_infinity_as_javascript_writes_it() {
        for (text, want) in [
            ("1024", 1024),
            ("-1", u64::MAX),
            ("18446744073709552000", u64::MAX),
            ("18446744073709551615", u64::MAX),
        ] {
            let json = format!(r#"{{"type":"RLIMIT_CORE","hard":{text},"soft":1}}"#);
            let read: Rlimit = serde_json::from_str(&json).expect("a limit");
            assert_eq!(read.hard, want, "{text}");
        }
    }
}
