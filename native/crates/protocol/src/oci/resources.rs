//! Limits of a container's control group (config-linux.md "Control groups"); absent means unchanged.

use super::field::part;
use std::collections::BTreeMap;

part! {
    /// Every controller's limits.
    pub struct Resources {
        pub devices: Vec<DeviceRule>,
        pub memory: Option<Memory>,
        pub cpu: Option<Cpu>,
        pub pids: Option<Pids>,
        #[serde(rename = "blockIO")]
        pub block_io: Option<BlockIo>,
        pub hugepage_limits: Vec<HugepageLimit>,
        pub network: Option<Network>,
        /// By the device's name.
        pub rdma: BTreeMap<String, Rdma>,
        /// Files of a v2 group by name, written as they are.
        pub unified: BTreeMap<String, String>,
    }
}

part! {
    /// Access to devices that is given or taken; an absent or negative number is every number.
    pub struct DeviceRule {
        pub allow: bool,
        /// `a` (all, also when empty), `c` or `b`.
        #[serde(rename = "type")]
        pub kind: String,
        pub major: Option<i64>,
        pub minor: Option<i64>,
        /// Of `r`, `w` and `m` (mknod).
        pub access: String,
    }
}

part! {
    /// Bytes; `swap` is memory plus swap, as Docker counts it; -1 is no limit.
    pub struct Memory {
        pub limit: Option<i64>,
        pub reservation: Option<i64>,
        pub swap: Option<i64>,
        pub kernel: Option<i64>,
        #[serde(rename = "kernelTCP")]
        pub kernel_tcp: Option<i64>,
        /// 0..100
        pub swappiness: Option<u64>,
        #[serde(rename = "disableOOMKiller")]
        pub disable_oom_killer: Option<bool>,
        pub use_hierarchy: Option<bool>,
        /// Refuse a limit below what is used now.
        pub check_before_update: Option<bool>,
    }
}

part! {
    /// Shares are v1's (2..262144); quota, burst, period and the realtime fields are microseconds.
    pub struct Cpu {
        pub shares: Option<u64>,
        pub quota: Option<i64>,
        pub burst: Option<u64>,
        pub period: Option<u64>,
        pub realtime_runtime: Option<i64>,
        pub realtime_period: Option<u64>,
        pub cpus: Option<String>,
        pub mems: Option<String>,
        /// 1 is SCHED_IDLE for the group.
        pub idle: Option<i64>,
    }
}

part! {
    /// Most tasks; -1 is no limit.
    pub struct Pids {
        pub limit: Option<i64>,
    }
}

part! {
    /// Shares (10..1000) and rates of block devices.
    pub struct BlockIo {
        pub weight: Option<u16>,
        pub leaf_weight: Option<u16>,
        pub weight_device: Vec<WeightDevice>,
        pub throttle_read_bps_device: Vec<ThrottleDevice>,
        pub throttle_write_bps_device: Vec<ThrottleDevice>,
        #[serde(rename = "throttleReadIOPSDevice")]
        pub throttle_read_iops_device: Vec<ThrottleDevice>,
        #[serde(rename = "throttleWriteIOPSDevice")]
        pub throttle_write_iops_device: Vec<ThrottleDevice>,
    }
}

part! {
    /// The share of one block device.
    pub struct WeightDevice {
        pub major: i64,
        pub minor: i64,
        pub weight: Option<u16>,
        pub leaf_weight: Option<u16>,
    }
}

part! {
    /// A rate of one block device: bytes or operations a second; 0 is no limit.
    pub struct ThrottleDevice {
        pub major: i64,
        pub minor: i64,
        pub rate: u64,
    }
}

part! {
    /// Bytes of huge pages of one size (`2MB`, `1GB`).
    pub struct HugepageLimit {
        /// runc reads names of fields in any case, and callers write this one so.
        #[serde(alias = "pagesize")]
        pub page_size: String,
        pub limit: u64,
    }
}

part! {
    /// Marks on network packets (v1).
    pub struct Network {
        #[serde(rename = "classID")]
        pub class_id: Option<u32>,
        pub priorities: Vec<InterfacePriority>,
    }
}

part! {
    /// Priority of one interface's packets.
    pub struct InterfacePriority {
        pub name: String,
        pub priority: u32,
    }
}

part! {
    /// Handles and objects of one RDMA device.
    pub struct Rdma {
        pub hca_handles: Option<u32>,
        pub hca_objects: Option<u32>,
    }
}
