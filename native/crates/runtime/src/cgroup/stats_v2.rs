//! Reading what a container uses from control groups v2, in v1's terms where the two differ.

use super::files::Files;
use super::stats::{
    Amount, BlkIo, BlkIoEntry, Memory, MemoryEvents, Pids, Stats, list, number, pressure, table,
};
use super::stats_v1::hugetlb;
use std::path::Path;

/// Nanoseconds of a microsecond.
const US_NS: u64 = 1000;

/// Reads the group; what it has no controller for stays zero.
pub fn read(files: &dyn Files, dir: &Path) -> Stats {
    let text = |name: &str| files.read(&dir.join(name)).unwrap_or_default();
    let psi = |name: &str| {
        Some(text(name))
            .filter(|text| !text.is_empty())
            .and_then(|text| pressure(&text))
    };
    let mut stats = Stats::default();
    let cpu = table(&text("cpu.stat"));
    let of = |key: &str| cpu.get(key).copied().unwrap_or(0);
    stats.cpu.usage.total = of("usage_usec") * US_NS;
    stats.cpu.usage.user = of("user_usec") * US_NS;
    stats.cpu.usage.kernel = of("system_usec") * US_NS;
    stats.cpu.throttling.periods = of("nr_periods");
    stats.cpu.throttling.throttled_periods = of("nr_throttled");
    stats.cpu.throttling.throttled_time = of("throttled_usec") * US_NS;
    stats.cpu.psi = psi("cpu.pressure");
    stats.cpuset.cpus = list(&text("cpuset.cpus.effective"));
    stats.cpuset.mems = list(&text("cpuset.mems.effective"));
    stats.memory = memory(&text);
    stats.memory.psi = psi("memory.pressure");
    let limit = number(&text("pids.max"));
    stats.pids = Pids {
        current: number(&text("pids.current")),
        limit: if limit == u64::MAX { 0 } else { limit },
    };
    stats.blkio = io(&text("io.stat"));
    stats.blkio.psi = psi("io.pressure");
    stats.hugetlb = hugetlb(files, dir, "current", "peak");
    stats
}

fn memory(text: &dyn Fn(&str) -> String) -> Memory {
    let raw = table(&text("memory.stat"));
    let of = |key: &str| raw.get(key).copied().unwrap_or(0);
    let events = table(&text("memory.events"));
    let event = |key: &str| events.get(key).copied().unwrap_or(0);
    let usage = Amount {
        limit: number(&text("memory.max")),
        usage: number(&text("memory.current")),
        max: number(&text("memory.peak")),
        failcnt: event("max"),
    };
    // v1 counts memory and swap together.
    let swap = Amount {
        limit: usage.limit.saturating_add(number(&text("memory.swap.max"))),
        usage: usage.usage + number(&text("memory.swap.current")),
        max: number(&text("memory.swap.peak")),
        failcnt: 0,
    };
    Memory {
        cache: of("file"),
        kernel: Amount {
            usage: of("kernel"),
            ..Amount::default()
        },
        usage,
        swap,
        event_count: MemoryEvents {
            low: event("low"),
            high: event("high"),
            max: event("max"),
            oom: event("oom"),
            oom_kill: event("oom_kill"),
            oom_group_kill: event("oom_group_kill"),
        },
        raw,
        ..Memory::default()
    }
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6` lines.
fn io(text: &str) -> BlkIo {
    let mut read = BlkIo::default();
    for line in text.lines() {
        let mut fields = line.split_whitespace();
        let Some((major, minor)) = fields.next().and_then(|device| device.split_once(':')) else {
            continue;
        };
        let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else {
            continue;
        };
        for (key, value) in fields.filter_map(|field| field.split_once('=')) {
            let (op, list) = match key {
                "rbytes" => ("Read", &mut read.io_service_bytes_recursive),
                "wbytes" => ("Write", &mut read.io_service_bytes_recursive),
                "dbytes" => ("Discard", &mut read.io_service_bytes_recursive),
                "rios" => ("Read", &mut read.io_serviced_recursive),
                "wios" => ("Write", &mut read.io_serviced_recursive),
                "dios" => ("Discard", &mut read.io_serviced_recursive),
                _ => continue,
            };
            list.push(BlkIoEntry {
                major,
                minor,
                op: op.to_owned(),
                value: number(value),
            });
        }
    }
    read
}

#[cfg(test)]
mod tests {
    use super::super::files::recording::Recording;
    use super::*;

    #[test]
    fn read_says_v2s_figures_in_v1s_terms() {
        let recording = Recording {
            contents: vec![
                (
                    "cpu.stat",
                    "usage_usec 3\nuser_usec 2\nsystem_usec 1\nthrottled_usec 4\n",
                ),
                (
                    "cpu.pressure",
                    "some avg10=0.00 avg60=0.00 avg300=0.00 total=9\n",
                ),
                ("memory.current", "100\n"),
                ("memory.max", "max\n"),
                ("memory.swap.current", "20\n"),
                ("memory.stat", "file 30\nkernel 5\ninactive_file 7\n"),
                ("memory.events", "low 0\nhigh 0\nmax 6\noom 2\noom_kill 1\n"),
                ("pids.current", "4\n"),
                ("pids.max", "9\n"),
                (
                    "io.stat",
                    "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n",
                ),
                ("cpuset.cpus.effective", "0-1\n"),
            ],
            ..Recording::default()
        };
        let stats = read(&recording, Path::new("/c/a"));
        assert_eq!(
            (
                stats.cpu.usage.total,
                stats.cpu.usage.user,
                stats.cpu.throttling.throttled_time
            ),
            (3000, 2000, 4000)
        );
        assert_eq!(stats.cpu.psi.expect("pressure").some.total, 9);
        assert_eq!(
            (stats.memory.usage.usage, stats.memory.swap.usage),
            (100, 120)
        );
        assert_eq!(
            (stats.memory.usage.limit, stats.memory.swap.limit),
            (u64::MAX, u64::MAX)
        );
        assert_eq!(
            (stats.memory.cache, stats.memory.raw["inactive_file"]),
            (30, 7)
        );
        assert_eq!(
            (stats.memory.event_count.oom, stats.memory.usage.failcnt),
            (2, 6)
        );
        assert_eq!((stats.pids.current, stats.pids.limit), (4, 9));
        assert_eq!(stats.blkio.io_service_bytes_recursive[1].value, 2);
        assert_eq!(stats.blkio.io_serviced_recursive.len(), 3);
        assert_eq!(stats.cpuset.cpus, [0, 1]);
    }
}
