//! What a container uses at one moment: the figures that `docker stats` is made of. Counters count from the container's start.

use serde::{Deserialize, Serialize};

/// The answer of `stats`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    pub read_at_ms: u64,
    pub cpu: Cpu,
    /// Time of all processors of the machine together, idle or not, in nanoseconds: what `cpu.totalNs` is a part of.
    pub system_cpu_ns: u64,
    pub online_cpus: u32,
    pub memory: Memory,
    pub pids: Pids,
    pub block: Block,
    /// Devices of the container's own network namespace, without `lo`.
    pub networks: Vec<Network>,
}

/// Processor time, in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cpu {
    pub total_ns: u64,
    pub user_ns: u64,
    pub system_ns: u64,
    pub throttled_ns: u64,
    pub periods: u64,
    pub throttled_periods: u64,
}

/// Memory, in bytes. What docker shows as used is `usage_bytes` less `inactive_file_bytes`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Memory {
    pub usage_bytes: u64,
    pub inactive_file_bytes: u64,
    /// The container's limit, or the machine's memory where that is less.
    pub limit_bytes: u64,
}

/// Tasks; no limit is None.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pids {
    pub current: u64,
    pub limit: Option<u64>,
}

/// Bytes and operations of all block devices.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Block {
    pub read_bytes: u64,
    pub write_bytes: u64,
    pub reads: u64,
    pub writes: u64,
}

/// One network device, seen from inside.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Network {
    pub name: String,
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub rx_errors: u64,
    pub rx_dropped: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub tx_errors: u64,
    pub tx_dropped: u64,
}
