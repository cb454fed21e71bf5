//! Reading what a container uses from control groups v1.

use super::files::Files;
use super::stats::{
    Amount, BlkIo, BlkIoEntry, CpuSet, CpuUsage, HugeTlb, Memory, Pids, Stats, Throttling, list,
    number, numbers, table,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Nanoseconds of one tick of the counters that are kept in USER_HZ (100 on every architecture that Linux has).
const TICK_NS: u64 = 10_000_000;

/// Reads every group that is there; `dir` gives a controller's, if it has one. What is missing stays zero.
pub fn read(files: &dyn Files, dir: &dyn Fn(&str) -> Option<PathBuf>) -> Stats {
    let mut stats = Stats::default();
    if let Some(dir) = dir("cpuacct") {
        stats.cpu.usage = usage(files, &dir);
    }
    if let Some(dir) = dir("cpu") {
        stats.cpu.throttling = throttling(files, &dir);
    }
    if let Some(dir) = dir("cpuset") {
        stats.cpuset = cpuset(files, &dir);
    }
    if let Some(dir) = dir("memory") {
        stats.memory = memory(files, &dir);
    }
    if let Some(dir) = dir("pids") {
        stats.pids = pids(files, &dir);
    }
    if let Some(dir) = dir("blkio") {
        stats.blkio = blkio(files, &dir);
    }
    if let Some(dir) = dir("hugetlb") {
        stats.hugetlb = hugetlb(files, &dir, "usage_in_bytes", "max_usage_in_bytes");
    }
    stats
}

fn text(files: &dyn Files, dir: &Path, name: &str) -> String {
    files.read(&dir.join(name)).unwrap_or_default()
}

fn usage(files: &dyn Files, dir: &Path) -> CpuUsage {
    let whole = |name: &str| number(&text(files, dir, name));
    let mut usage = CpuUsage {
        total: whole("cpuacct.usage"),
        percpu: numbers(&text(files, dir, "cpuacct.usage_percpu")),
        kernel: whole("cpuacct.usage_sys"),
        user: whole("cpuacct.usage_user"),
        ..CpuUsage::default()
    };
    if usage.kernel == 0 && usage.user == 0 {
        // Kernels before 4.8 count the two apart only in ticks.
        let ticks = table(&text(files, dir, "cpuacct.stat"));
        let of = |key: &str| ticks.get(key).map_or(0, |count| count * TICK_NS);
        (usage.user, usage.kernel) = (of("user"), of("system"));
    }
    for line in text(files, dir, "cpuacct.usage_all").lines().skip(1) {
        if let [_, user, kernel] = numbers(line)[..] {
            usage.percpu_user.push(user);
            usage.percpu_kernel.push(kernel);
        }
    }
    usage
}

fn throttling(files: &dyn Files, dir: &Path) -> Throttling {
    let read = table(&text(files, dir, "cpu.stat"));
    let of = |key: &str| read.get(key).copied().unwrap_or(0);
    Throttling {
        periods: of("nr_periods"),
        throttled_periods: of("nr_throttled"),
        throttled_time: of("throttled_time"),
    }
}

fn cpuset(files: &dyn Files, dir: &Path) -> CpuSet {
    let of = |name: &str| number(&text(files, dir, &format!("cpuset.{name}")));
    CpuSet {
        cpus: list(&text(files, dir, "cpuset.cpus")),
        cpu_exclusive: of("cpu_exclusive"),
        mems: list(&text(files, dir, "cpuset.mems")),
        mem_hardwall: of("mem_hardwall"),
        mem_exclusive: of("mem_exclusive"),
        memory_migrate: of("memory_migrate"),
        memory_spread_page: of("memory_spread_page"),
        memory_spread_slab: of("memory_spread_slab"),
        memory_pressure: of("memory_pressure"),
        sched_load_balance: of("sched_load_balance"),
        sched_relax_domain_level: text(files, dir, "cpuset.sched_relax_domain_level")
            .trim()
            .parse()
            .unwrap_or(0),
    }
}

fn memory(files: &dyn Files, dir: &Path) -> Memory {
    let amount = |kind: &str| {
        let of = |name: &str| number(&text(files, dir, &format!("memory.{kind}{name}")));
        Amount {
            limit: of("limit_in_bytes"),
            usage: of("usage_in_bytes"),
            max: of("max_usage_in_bytes"),
            failcnt: of("failcnt"),
        }
    };
    let raw = table(&text(files, dir, "memory.stat"));
    let mut memory = Memory {
        cache: raw.get("cache").copied().unwrap_or(0),
        usage: amount(""),
        swap: amount("memsw."),
        kernel: amount("kmem."),
        kernel_tcp: amount("kmem.tcp."),
        raw,
        ..Memory::default()
    };
    memory.event_count.oom_kill = super::keyed(&text(files, dir, "memory.oom_control"), "oom_kill");
    memory
}

fn pids(files: &dyn Files, dir: &Path) -> Pids {
    let limit = number(&text(files, dir, "pids.max"));
    Pids {
        current: number(&text(files, dir, "pids.current")),
        limit: if limit == u64::MAX { 0 } else { limit },
    }
}

fn blkio(files: &dyn Files, dir: &Path) -> BlkIo {
    // BFQ counts what it schedules, the throttle what passes it; with another scheduler only the second is not empty.
    let entries = |what: &str| {
        [
            format!("blkio.bfq.{what}_recursive"),
            format!("blkio.throttle.{what}_recursive"),
            format!("blkio.throttle.{what}"),
        ]
        .iter()
        .map(|name| blkio_entries(&text(files, dir, name)))
        .find(|entries| !entries.is_empty())
        .unwrap_or_default()
    };
    BlkIo {
        io_service_bytes_recursive: entries("io_service_bytes"),
        io_serviced_recursive: entries("io_serviced"),
        psi: None,
    }
}

/// `8:0 Read 123` lines; the last one, `Total 123`, is of no device.
fn blkio_entries(text: &str) -> Vec<BlkIoEntry> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let (major, minor) = fields.next()?.split_once(':')?;
            Some(BlkIoEntry {
                major: major.parse().ok()?,
                minor: minor.parse().ok()?,
                op: fields.next()?.to_owned(),
                value: fields.next()?.parse().ok()?,
            })
        })
        .collect()
}

/// Huge pages of every size that the machine has.
pub fn hugetlb(
    files: &dyn Files,
    dir: &Path,
    usage: &str,
    most: &str,
) -> BTreeMap<String, HugeTlb> {
    sizes()
        .into_iter()
        .filter_map(|size| {
            let of = |name: &str| number(&text(files, dir, &format!("hugetlb.{size}.{name}")));
            files
                .read(&dir.join(format!("hugetlb.{size}.{usage}")))
                .ok()?;
            let failcnt = match usage {
                "current" => {
                    super::keyed(&text(files, dir, &format!("hugetlb.{size}.events")), "max")
                }
                _ => of("failcnt"),
            };
            let read = HugeTlb {
                usage: of(usage),
                max: of(most),
                failcnt,
            };
            Some((size, read))
        })
        .collect()
}

/// `2MB`, `1GB`: the names that the kernel's files have.
fn sizes() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/sys/kernel/mm/hugepages") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let kib: u64 = name
                .to_str()?
                .strip_prefix("hugepages-")?
                .strip_suffix("kB")?
                .parse()
                .ok()?;
            Some(match kib {
                kib if kib >= 1 << 20 => format!("{}GB", kib >> 20),
                kib if kib >= 1 << 10 => format!("{}MB", kib >> 10),
                kib => format!("{kib}KB"),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::files::recording::Recording;
    use super::*;

    #[test]
    fn read_takes_every_figure_and_leaves_absent_groups_out() {
        let recording = Recording {
            contents: vec![
                ("cpuacct.usage", "300\n"),
                ("cpuacct.usage_percpu", "100 200 \n"),
                ("cpuacct.usage_sys", "120\n"),
                ("cpuacct.usage_user", "180\n"),
                ("cpuacct.usage_all", "cpu user system\n0 80 20\n1 100 100\n"),
                (
                    "cpu.stat",
                    "nr_periods 5\nnr_throttled 2\nthrottled_time 77\n",
                ),
                ("memory.usage_in_bytes", "4096\n"),
                ("memory.limit_in_bytes", "9223372036854771712\n"),
                ("memory.max_usage_in_bytes", "8192\n"),
                ("memory.failcnt", "3\n"),
                ("memory.stat", "cache 10\ntotal_inactive_file 4\n"),
                (
                    "memory.oom_control",
                    "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
                ),
                ("pids.current", "2\n"),
                ("pids.max", "max\n"),
                (
                    "blkio.throttle.io_serviced_recursive",
                    "8:0 Read 5\n8:0 Total 5\nTotal 5\n",
                ),
            ],
            ..Recording::default()
        };
        let stats = read(&recording, &|name| {
            (name != "cpuset").then(|| PathBuf::from("/c").join(name))
        });
        assert_eq!(stats.cpu.usage.percpu_kernel, [20, 100]);
        assert_eq!(
            (
                stats.cpu.usage.total,
                stats.cpu.usage.kernel,
                stats.cpu.usage.user
            ),
            (300, 120, 180)
        );
        assert_eq!(stats.cpu.throttling.throttled_time, 77);
        assert_eq!(
            (
                stats.memory.usage.usage,
                stats.memory.usage.max,
                stats.memory.usage.failcnt
            ),
            (4096, 8192, 3)
        );
        assert_eq!(
            (stats.memory.cache, stats.memory.raw["total_inactive_file"]),
            (10, 4)
        );
        assert_eq!(stats.memory.event_count.oom_kill, 1);
        assert_eq!((stats.pids.current, stats.pids.limit), (2, 0));
        assert_eq!(stats.blkio.io_serviced_recursive.len(), 2);
        assert_eq!(stats.cpuset, CpuSet::default());
        assert!(stats.cpu.psi.is_none());
    }
}
