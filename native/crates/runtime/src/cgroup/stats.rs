//! What a container uses, in the shape of the `data` of runc's `events --stats` (its types/events.go), which containerd reads.

use serde::Serialize;
use std::collections::BTreeMap;

/// Everything that the kernel counts for one container. Times are nanoseconds, sizes are bytes.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Stats {
    pub cpu: Cpu,
    pub cpuset: CpuSet,
    pub memory: Memory,
    pub pids: Pids,
    pub blkio: BlkIo,
    pub hugetlb: BTreeMap<String, HugeTlb>,
    /// Filled by who has put the container into resctrl.
    pub intel_rdt: serde_json::Map<String, serde_json::Value>,
    /// Always empty: networks are counted by their owner.
    pub network_interfaces: Vec<()>,
}

/// Time on processors.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Cpu {
    pub usage: CpuUsage,
    pub throttling: Throttling,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// Nanoseconds; the lists have one entry a processor (v1 only).
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct CpuUsage {
    #[serde(skip_serializing_if = "is_zero")]
    pub total: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_kernel: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_user: Vec<u64>,
    pub kernel: u64,
    pub user: u64,
}

/// How often and how long (nanoseconds) the quota held the container back.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Throttling {
    #[serde(skip_serializing_if = "is_zero")]
    pub periods: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub throttled_periods: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub throttled_time: u64,
}

/// Processors and memory nodes that may be used, and the v1 switches.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct CpuSet {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cpus: Vec<u16>,
    pub cpu_exclusive: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mems: Vec<u16>,
    pub mem_hardwall: u64,
    pub mem_exclusive: u64,
    pub memory_migrate: u64,
    pub memory_spread_page: u64,
    pub memory_spread_slab: u64,
    pub memory_pressure: u64,
    pub sched_load_balance: u64,
    pub sched_relax_domain_level: i64,
}

/// Bytes; `swap` is memory plus swap on both layouts.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Memory {
    /// Page cache.
    #[serde(skip_serializing_if = "is_zero")]
    pub cache: u64,
    pub usage: Amount,
    pub swap: Amount,
    pub kernel: Amount,
    #[serde(rename = "kernelTCP")]
    pub kernel_tcp: Amount,
    /// `memory.stat` as the kernel has it; Docker's usage is `usage` less `total_inactive_file` (v1) or `inactive_file` (v2).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub raw: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
    pub event_count: MemoryEvents,
}

/// One kind of memory: no limit is the largest number.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Amount {
    pub limit: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    /// The most that was ever used.
    #[serde(skip_serializing_if = "is_zero")]
    pub max: u64,
    /// How often the limit was met.
    pub failcnt: u64,
}

/// How often each boundary of memory was met.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct MemoryEvents {
    #[serde(skip_serializing_if = "is_zero")]
    pub low: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub high: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub max: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub oom: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub oom_kill: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub oom_group_kill: u64,
}

/// Tasks; limit 0 is none.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Pids {
    #[serde(skip_serializing_if = "is_zero")]
    pub current: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub limit: u64,
}

/// Block devices. Only filled where the container has a group of its own for them.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BlkIo {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_bytes_recursive: Vec<BlkIoEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_serviced_recursive: Vec<BlkIoEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// One counter of one device: `op` is Read, Write, Sync, Async, Discard or Total.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct BlkIoEntry {
    #[serde(skip_serializing_if = "is_zero")]
    pub major: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub minor: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub op: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub value: u64,
}

/// Huge pages of one size, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct HugeTlb {
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub max: u64,
    pub failcnt: u64,
}

/// How much of the time some or all tasks waited for something (PSI).
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Pressure {
    pub some: Waited,
    pub full: Waited,
}

/// Percent over 10, 60 and 300 seconds, and microseconds in all.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Waited {
    pub avg10: f64,
    pub avg60: f64,
    pub avg300: f64,
    pub total: u64,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for a reference"
)]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// `key N` lines.
pub fn table(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .filter_map(|line| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), value.trim().parse().ok()?))
        })
        .collect()
}

/// One number; `max` is the largest.
pub fn number(text: &str) -> u64 {
    match text.trim() {
        "max" => u64::MAX,
        digits => digits.parse().unwrap_or(0),
    }
}

/// Numbers with blanks between.
pub fn numbers(text: &str) -> Vec<u64> {
    text.split_whitespace()
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

/// Most processors and memory nodes that a list may name.
const LIST_MAX: usize = 8192;

/// A list like `0-3,7`.
pub fn list(text: &str) -> Vec<u16> {
    text.trim()
        .split(',')
        .filter_map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some(first.parse::<u16>().ok()?..=last.parse().ok()?)
        })
        .flatten()
        .take(LIST_MAX)
        .collect()
}

/// A `*.pressure` file.
pub fn pressure(text: &str) -> Option<Pressure> {
    let mut pressure = Pressure::default();
    for line in text.lines() {
        let mut fields = line.split(' ');
        let waited = match fields.next()? {
            "some" => &mut pressure.some,
            "full" => &mut pressure.full,
            _ => continue,
        };
        for field in fields {
            let (key, value) = field.split_once('=')?;
            match key {
                "avg10" => waited.avg10 = value.parse().ok()?,
                "avg60" => waited.avg60 = value.parse().ok()?,
                "avg300" => waited.avg300 = value.parse().ok()?,
                "total" => waited.total = value.parse().ok()?,
                _ => {}
            }
        }
    }
    Some(pressure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_take_what_the_kernel_writes() {
        assert_eq!(list("0-2,5\n"), [0, 1, 2, 5]);
        assert_eq!(list("\n"), [0u16; 0]);
        assert_eq!(number("max\n"), u64::MAX);
        assert_eq!(table("a 1\nb x\n"), BTreeMap::from([("a".into(), 1)]));
        let read = pressure(
            "some avg10=1.50 avg60=0.10 avg300=0.00 total=42\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n",
        )
        .expect("pressure");
        assert_eq!(
            (read.some.avg10, read.some.total, read.full.total),
            (1.5, 42, 7)
        );
    }

    #[test]
    fn stats_have_runcs_names() {
        let json = serde_json::to_value(Stats::default()).expect("json");
        assert_eq!(
            json["memory"]["usage"],
            serde_json::json!({"limit": 0, "failcnt": 0})
        );
        assert_eq!(
            json["cpu"]["usage"],
            serde_json::json!({"kernel": 0, "user": 0})
        );
        assert!(json["memory"].get("kernelTCP").is_some() && json["hugetlb"].is_object());
    }
}
