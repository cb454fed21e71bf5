//! The figures of `docker stats`: the group's counters, the network devices of the container, and the machine's processor time.

use shoal_protocol::stats::{Block, Cpu, Memory, Network, Pids, Stats};
use shoal_runtime::cgroup::stats::{BlkIoEntry, Stats as Group};
use shoal_runtime::sys::process;
use std::fs;

/// Columns of /proc/stat's first line that are time of their own: user, nice, system, idle, iowait, irq, softirq, steal (as docker counts).
const SYSTEM_COLUMNS: usize = 8;
const NS_PER_SECOND: u64 = 1_000_000_000;

/// All figures of a container whose first process is `pid`. What cannot be read is 0 or missing.
pub fn gather(group: &Group, pid: i32) -> Stats {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let machine = read("/proc/stat");
    Stats {
        read_at_ms: process::now_ms(),
        cpu: Cpu {
            total_ns: group.cpu.usage.total,
            user_ns: group.cpu.usage.user,
            system_ns: group.cpu.usage.kernel,
            throttled_ns: group.cpu.throttling.throttled_time,
            periods: group.cpu.throttling.periods,
            throttled_periods: group.cpu.throttling.throttled_periods,
        },
        system_cpu_ns: system_cpu_ns(&machine, process::clock_ticks()),
        online_cpus: online_cpus(&machine),
        memory: memory(group, memory_total(&read("/proc/meminfo"))),
        pids: Pids {
            current: group.pids.current,
            limit: (group.pids.limit != 0 && group.pids.limit != u64::MAX)
                .then_some(group.pids.limit),
        },
        block: block(group),
        networks: networks(&read(&format!("/proc/{pid}/net/dev"))),
    }
}

fn memory(group: &Group, machine_bytes: u64) -> Memory {
    let raw = &group.memory.raw;
    let inactive = raw
        .get("total_inactive_file")
        .or_else(|| raw.get("inactive_file"));
    let limit = group.memory.usage.limit;
    Memory {
        usage_bytes: group.memory.usage.usage,
        inactive_file_bytes: inactive.copied().unwrap_or(0),
        limit_bytes: if limit == 0 || (machine_bytes > 0 && limit > machine_bytes) {
            machine_bytes
        } else {
            limit
        },
    }
}

fn block(group: &Group) -> Block {
    let sum = |entries: &[BlkIoEntry], op: &str| -> u64 {
        let of_op = |entry: &&BlkIoEntry| entry.op.eq_ignore_ascii_case(op);
        entries.iter().filter(of_op).map(|entry| entry.value).sum()
    };
    let (bytes, operations) = (
        &group.blkio.io_service_bytes_recursive,
        &group.blkio.io_serviced_recursive,
    );
    Block {
        read_bytes: sum(bytes, "read"),
        write_bytes: sum(bytes, "write"),
        reads: sum(operations, "read"),
        writes: sum(operations, "write"),
    }
}

/// Nanoseconds of all processors together since the boot.
fn system_cpu_ns(stat: &str, ticks_per_second: u64) -> u64 {
    let total = stat
        .lines()
        .find_map(|line| line.strip_prefix("cpu "))
        .unwrap_or_default();
    let ticks: u64 = total
        .split_whitespace()
        .take(SYSTEM_COLUMNS)
        .filter_map(|text| text.parse::<u64>().ok())
        .sum();
    ticks.saturating_mul(NS_PER_SECOND / ticks_per_second.max(1))
}

fn online_cpus(stat: &str) -> u32 {
    let one = |line: &&str| {
        line.strip_prefix("cpu")
            .is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
    };
    u32::try_from(stat.lines().filter(one).count()).unwrap_or(u32::MAX)
}

fn memory_total(meminfo: &str) -> u64 {
    meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
        .unwrap_or(0)
        .saturating_mul(1024)
}

/// /proc/PID/net/dev without the loopback device.
fn networks(text: &str) -> Vec<Network> {
    text.lines()
        .filter_map(|line| {
            let (name, counters) = line.split_once(':')?;
            let counters: Vec<u64> = counters
                .split_whitespace()
                .filter_map(|text| text.parse().ok())
                .collect();
            // bytes packets errs drop fifo frame compressed multicast, then the same for sending.
            let [
                rx_bytes,
                rx_packets,
                rx_errors,
                rx_dropped,
                _,
                _,
                _,
                _,
                rest @ ..,
            ] = counters.as_slice()
            else {
                return None;
            };
            let [tx_bytes, tx_packets, tx_errors, tx_dropped, ..] = rest else {
                return None;
            };
            Some(Network {
                name: name.trim().to_owned(),
                rx_bytes: *rx_bytes,
                rx_packets: *rx_packets,
                rx_errors: *rx_errors,
                rx_dropped: *rx_dropped,
                tx_bytes: *tx_bytes,
                tx_packets: *tx_packets,
                tx_errors: *tx_errors,
                tx_dropped: *tx_dropped,
            })
        })
        .filter(|network| network.name != "lo")
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gather_reads_the_kernels_tables() {
        let stat = "cpu  1 2 3 4 5 6 7 8 900 900\ncpu0 1 2 3\ncpu1 1 2 3\nintr 5\n";
        assert_eq!(
            (system_cpu_ns(stat, 100), online_cpus(stat)),
            (360_000_000, 2)
        );
        assert_eq!(
            memory_total("MemTotal:       24 kB\nMemFree: 1 kB\n"),
            24_576
        );
        let dev = "Inter-|   Receive                                                |  Transmit\n face |bytes    packets errs drop fifo frame compressed multicast|bytes\n    lo:       1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0: 1500 10 1 2 0 0 0 0 700 7 3 4 0 0 0 0\n";
        let eth0 = Network {
            name: "eth0".into(),
            rx_bytes: 1500,
            rx_packets: 10,
            rx_errors: 1,
            rx_dropped: 2,
            tx_bytes: 700,
            tx_packets: 7,
            tx_errors: 3,
            tx_dropped: 4,
        };
        assert_eq!(networks(dev), [eth0]);
    }
}
