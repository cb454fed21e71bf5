//! The Linux part of a configuration (config-linux.md).

use super::field::part;
use super::{IdMapping, Resources, Seccomp};
use std::collections::BTreeMap;

part! {
    /// Namespaces, limits and kernel settings of a container.
    pub struct Linux {
        pub namespaces: Vec<Namespace>,
        pub uid_mappings: Vec<IdMapping>,
        pub gid_mappings: Vec<IdMapping>,
        /// By clock: `boottime`, `monotonic`.
        pub time_offsets: BTreeMap<String, TimeOffset>,
        pub devices: Vec<Device>,
        /// By the interface's name on the host.
        pub net_devices: BTreeMap<String, NetDevice>,
        pub resources: Resources,
        pub cgroups_path: String,
        pub rootfs_propagation: String,
        pub masked_paths: Vec<String>,
        pub readonly_paths: Vec<String>,
        pub mount_label: String,
        pub sysctl: BTreeMap<String, String>,
        pub seccomp: Option<Seccomp>,
        pub intel_rdt: Option<IntelRdt>,
        pub memory_policy: Option<MemoryPolicy>,
        pub personality: Option<Personality>,
    }
}

part! {
    /// A namespace to make (no path) or to join.
    pub struct Namespace {
        #[serde(rename = "type")]
        pub kind: String,
        pub path: Option<String>,
    }
}

part! {
    /// How far a clock of a time namespace is from the host's.
    pub struct TimeOffset {
        pub secs: i64,
        pub nanosecs: u32,
    }
}

part! {
    /// A device node; type is `c`, `b`, `u` (unbuffered character) or `p` (fifo).
    pub struct Device {
        pub path: String,
        #[serde(rename = "type")]
        pub kind: String,
        pub major: i64,
        pub minor: i64,
        pub file_mode: Option<u32>,
        pub uid: Option<u32>,
        pub gid: Option<u32>,
    }
}

part! {
    /// A network interface of the host that moves into the container.
    pub struct NetDevice {
        /// Its name in the container; the host's when empty.
        pub name: String,
    }
}

part! {
    /// Intel's (and others') cache and memory bandwidth allocation.
    pub struct IntelRdt {
        #[serde(rename = "closID")]
        pub clos_id: String,
        pub schemata: Vec<String>,
        #[serde(rename = "l3CacheSchema")]
        pub l3_cache_schema: String,
        pub mem_bw_schema: String,
        #[serde(rename = "enableCMT")]
        pub enable_cmt: bool,
        #[serde(rename = "enableMBM")]
        pub enable_mbm: bool,
        pub enable_monitoring: bool,
    }
}

part! {
    /// NUMA policy, as set_mempolicy(2) takes it; `nodes` is a list (`0-3,7`).
    pub struct MemoryPolicy {
        pub mode: String,
        pub nodes: String,
        pub flags: Vec<String>,
    }
}

part! {
    /// Execution domain, as personality(2) takes it: `LINUX` or `LINUX32`.
    pub struct Personality {
        pub domain: String,
        pub flags: Vec<String>,
    }
}
