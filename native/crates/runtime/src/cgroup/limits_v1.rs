//! What each control group v1 controller is written for the limits of a configuration.

use super::writes::Write;
use shoal_protocol::oci::{BlockIo, Cpu, Memory, Resources, ThrottleDevice};

/// Every controller that a limit can need; devices are driven apart.
pub const CONTROLLERS: [&str; 9] = [
    "memory", "cpu", "cpuset", "pids", "blkio", "hugetlb", "net_cls", "net_prio", "rdma",
];

/// The writes for one controller, in their order; none when nothing is asked of it.
pub fn writes(controller: &str, resources: &Resources) -> Vec<Write> {
    match controller {
        "memory" => resources.memory.as_ref().map_or_else(Vec::new, memory),
        "cpu" => resources.cpu.as_ref().map_or_else(Vec::new, cpu),
        "cpuset" => resources.cpu.as_ref().map_or_else(Vec::new, cpuset),
        "pids" => pids(resources),
        "blkio" => resources.block_io.as_ref().map_or_else(Vec::new, blkio),
        "hugetlb" => hugetlb(resources),
        "net_cls" => resources
            .network
            .as_ref()
            .and_then(|network| network.class_id.filter(|class| *class != 0))
            .map(|class| Write::new("network.classID", "net_cls.classid", class))
            .into_iter()
            .collect(),
        "net_prio" => resources.network.as_ref().map_or_else(Vec::new, |network| {
            let line = |priority: &shoal_protocol::oci::InterfacePriority| {
                Write::new(
                    "network.priorities",
                    "net_prio.ifpriomap",
                    format!("{} {}", priority.name, priority.priority),
                )
            };
            network.priorities.iter().map(line).collect()
        }),
        "rdma" => rdma(resources),
        _ => Vec::new(),
    }
}

fn memory(memory: &Memory) -> Vec<Write> {
    let mut writes = Vec::new();
    let limit = memory.limit.filter(|limit| *limit != 0);
    // Without a limit of memory there is none of memory and swap together, as runc and Docker have it.
    let swap = match (memory.swap.filter(|swap| *swap != 0), limit) {
        (None, Some(-1)) => Some(-1),
        (swap, _) => swap,
    };
    if let Some(limit) = limit {
        writes.push(Write::new("memory.limit", "memory.limit_in_bytes", limit).skip_if(limit < 0));
    }
    if let Some(swap) = swap {
        // Without swap accounting the kernel has nothing to limit by, and Docker always asks: runc and crun go on too.
        writes.push(Write::new("memory.swap", "memory.memsw.limit_in_bytes", swap).skip_if(true));
    }
    if let Some(reservation) = memory.reservation.filter(|reservation| *reservation != 0) {
        writes.push(
            Write::new(
                "memory.reservation",
                "memory.soft_limit_in_bytes",
                reservation,
            )
            .skip_if(reservation < 0),
        );
    }
    if let Some(tcp) = memory.kernel_tcp.filter(|tcp| *tcp != 0) {
        // Kernels are about to lose it; what they cannot count they cannot limit.
        writes.push(
            Write::new("memory.kernelTCP", "memory.kmem.tcp.limit_in_bytes", tcp).skip_if(true),
        );
    }
    if let Some(swappiness) = memory.swappiness {
        writes.push(Write::new(
            "memory.swappiness",
            "memory.swappiness",
            swappiness,
        ));
    }
    if memory.disable_oom_killer == Some(true) {
        writes.push(Write::new(
            "memory.disableOOMKiller",
            "memory.oom_control",
            1,
        ));
    }
    if memory.use_hierarchy == Some(true) {
        writes.push(Write::new("memory.useHierarchy", "memory.use_hierarchy", 1).skip_if(true));
    }
    writes
}

fn cpu(cpu: &Cpu) -> Vec<Write> {
    let mut writes = Vec::new();
    if let Some(shares) = cpu.shares.filter(|shares| *shares != 0) {
        writes.push(Write::new("cpu.shares", "cpu.shares", shares));
    }
    if let Some(period) = cpu.period.filter(|period| *period != 0) {
        writes.push(Write::new("cpu.period", "cpu.cfs_period_us", period));
    }
    if let Some(quota) = cpu.quota.filter(|quota| *quota != 0) {
        writes.push(Write::new("cpu.quota", "cpu.cfs_quota_us", quota).skip_if(quota < 0));
    }
    if let Some(burst) = cpu.burst {
        writes.push(Write::new("cpu.burst", "cpu.cfs_burst_us", burst).skip_if(burst == 0));
    }
    if let Some(period) = cpu.realtime_period.filter(|period| *period != 0) {
        writes.push(Write::new("cpu.realtimePeriod", "cpu.rt_period_us", period));
    }
    if let Some(runtime) = cpu.realtime_runtime.filter(|runtime| *runtime != 0) {
        writes.push(Write::new(
            "cpu.realtimeRuntime",
            "cpu.rt_runtime_us",
            runtime,
        ));
    }
    if let Some(idle) = cpu.idle {
        writes.push(Write::new("cpu.idle", "cpu.idle", idle).skip_if(idle == 0));
    }
    writes
}

fn cpuset(cpu: &Cpu) -> Vec<Write> {
    let list = |text: &Option<String>, field, file| {
        text.as_ref()
            .filter(|text| !text.is_empty())
            .map(|text| Write::new(field, file, text))
    };
    [
        list(&cpu.cpus, "cpu.cpus", "cpuset.cpus"),
        list(&cpu.mems, "cpu.mems", "cpuset.mems"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Most tasks, alike on both layouts. Less than 0 is no limit; 0 is one task, as with runc since 1.4: the kernel would let none start.
pub fn pids(resources: &Resources) -> Vec<Write> {
    let limit = resources.pids.as_ref().and_then(|pids| pids.limit);
    limit
        .map(|limit| {
            let value = if limit >= 0 {
                limit.max(1).to_string()
            } else {
                "max".to_owned()
            };
            Write::new("pids.limit", "pids.max", value).skip_if(limit < 0)
        })
        .into_iter()
        .collect()
}

fn blkio(io: &BlockIo) -> Vec<Write> {
    let mut writes = Vec::new();
    let asked = |weight: &Option<u16>| weight.filter(|weight| *weight != 0);
    if let Some(weight) = asked(&io.weight) {
        writes.push(
            Write::new("blockIO.weight", "blkio.weight", weight).or("blkio.bfq.weight", weight),
        );
    }
    if let Some(weight) = asked(&io.leaf_weight) {
        writes.push(Write::new(
            "blockIO.leafWeight",
            "blkio.leaf_weight",
            weight,
        ));
    }
    for device in &io.weight_device {
        let line = |weight| format!("{}:{} {weight}", device.major, device.minor);
        if let Some(weight) = asked(&device.weight) {
            writes.push(
                Write::new("blockIO.weightDevice", "blkio.weight_device", line(weight))
                    .or("blkio.bfq.weight_device", line(weight)),
            );
        }
        if let Some(weight) = asked(&device.leaf_weight) {
            writes.push(Write::new(
                "blockIO.weightDevice",
                "blkio.leaf_weight_device",
                line(weight),
            ));
        }
    }
    for (field, file, devices) in throttles(io) {
        for device in devices {
            writes.push(Write::new(
                format!("blockIO.{field}"),
                file,
                format!("{}:{} {}", device.major, device.minor, device.rate),
            ));
        }
    }
    writes
}

fn throttles(io: &BlockIo) -> [(&'static str, &'static str, &[ThrottleDevice]); 4] {
    [
        (
            "throttleReadBpsDevice",
            "blkio.throttle.read_bps_device",
            &io.throttle_read_bps_device,
        ),
        (
            "throttleWriteBpsDevice",
            "blkio.throttle.write_bps_device",
            &io.throttle_write_bps_device,
        ),
        (
            "throttleReadIOPSDevice",
            "blkio.throttle.read_iops_device",
            &io.throttle_read_iops_device,
        ),
        (
            "throttleWriteIOPSDevice",
            "blkio.throttle.write_iops_device",
            &io.throttle_write_iops_device,
        ),
    ]
}

fn hugetlb(resources: &Resources) -> Vec<Write> {
    let mut writes = Vec::new();
    for page in &resources.hugepage_limits {
        let file = |kind: &str| format!("hugetlb.{}{kind}.limit_in_bytes", page.page_size);
        // More than the kernel can count is no limit.
        let limit = page.limit.min(i64::MAX.cast_unsigned());
        writes.push(Write::new("hugepageLimits", file(""), limit));
        // Reservations are limited too where the kernel (5.7) counts them.
        writes.push(Write::new("hugepageLimits", file(".rsvd"), limit).skip_if(true));
    }
    writes
}

/// Handles and objects of RDMA devices, alike on both layouts.
pub fn rdma(resources: &Resources) -> Vec<Write> {
    resources
        .rdma
        .iter()
        .filter_map(|(device, limit)| {
            let part =
                |name: &str, value: Option<u32>| value.map(|value| format!(" {name}={value}"));
            let handles = part("hca_handle", limit.hca_handles);
            let objects = part("hca_object", limit.hca_objects);
            (handles.is_some() || objects.is_some()).then(|| {
                Write::new(
                    format!("rdma.{device}"),
                    "rdma.max",
                    format!(
                        "{device}{}{}",
                        handles.unwrap_or_default(),
                        objects.unwrap_or_default()
                    ),
                )
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(json: &str) -> Vec<String> {
        let resources: Resources = serde_json::from_str(json).expect(json);
        CONTROLLERS
            .iter()
            .flat_map(|controller| writes(controller, &resources))
            .map(|write| {
                let skip = if write.is_required() { "" } else { "?" };
                format!("{}{skip}={}", write.file, write.value)
            })
            .collect()
    }

    #[test]
    fn writes_of_every_resource_of_the_specification() {
        for (json, want) in [
            ("{}", vec![]),
            (
                r#"{"memory":{"limit":64,"swap":128,"reservation":32,"kernel":9,"kernelTCP":8,"swappiness":7,"disableOOMKiller":true,"useHierarchy":true}}"#,
                vec![
                    "memory.limit_in_bytes=64",
                    "memory.memsw.limit_in_bytes?=128",
                    "memory.soft_limit_in_bytes=32",
                    "memory.kmem.tcp.limit_in_bytes?=8",
                    "memory.swappiness=7",
                    "memory.oom_control=1",
                    "memory.use_hierarchy?=1",
                ],
            ),
            (
                r#"{"memory":{"limit":-1}}"#,
                vec![
                    "memory.limit_in_bytes?=-1",
                    "memory.memsw.limit_in_bytes?=-1",
                ],
            ),
            (
                r#"{"memory":{"limit":0,"swap":0,"disableOOMKiller":false}}"#,
                vec![],
            ),
            (
                r#"{"cpu":{"shares":512,"quota":50000,"burst":10,"period":100000,"realtimeRuntime":5,"realtimePeriod":6,"idle":1,"cpus":"0","mems":"0"}}"#,
                vec![
                    "cpu.shares=512",
                    "cpu.cfs_period_us=100000",
                    "cpu.cfs_quota_us=50000",
                    "cpu.cfs_burst_us=10",
                    "cpu.rt_period_us=6",
                    "cpu.rt_runtime_us=5",
                    "cpu.idle=1",
                    "cpuset.cpus=0",
                    "cpuset.mems=0",
                ],
            ),
            (
                r#"{"cpu":{"quota":-1,"shares":0,"cpus":""}}"#,
                vec!["cpu.cfs_quota_us?=-1"],
            ),
            (r#"{"pids":{"limit":7}}"#, vec!["pids.max=7"]),
            (r#"{"pids":{"limit":-1}}"#, vec!["pids.max?=max"]),
            (r#"{"pids":{"limit":0}}"#, vec!["pids.max=1"]),
            (
                r#"{"blockIO":{"weight":500,"leafWeight":300,"weightDevice":[{"major":8,"minor":0,"weight":400,"leafWeight":200}],
                    "throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1}],"throttleWriteBpsDevice":[{"major":8,"minor":0,"rate":2}],
                    "throttleReadIOPSDevice":[{"major":8,"minor":0,"rate":3}],"throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":4}]}}"#,
                vec![
                    "blkio.weight=500",
                    "blkio.leaf_weight=300",
                    "blkio.weight_device=8:0 400",
                    "blkio.leaf_weight_device=8:0 200",
                    "blkio.throttle.read_bps_device=8:0 1",
                    "blkio.throttle.write_bps_device=8:0 2",
                    "blkio.throttle.read_iops_device=8:0 3",
                    "blkio.throttle.write_iops_device=8:0 4",
                ],
            ),
            (
                r#"{"hugepageLimits":[{"pageSize":"2MB","limit":9}]}"#,
                vec![
                    "hugetlb.2MB.limit_in_bytes=9",
                    "hugetlb.2MB.rsvd.limit_in_bytes?=9",
                ],
            ),
            (
                r#"{"network":{"classID":1048577,"priorities":[{"name":"eth0","priority":500}]}}"#,
                vec!["net_cls.classid=1048577", "net_prio.ifpriomap=eth0 500"],
            ),
            (
                r#"{"rdma":{"mlx5_1":{"hcaHandles":3,"hcaObjects":10000},"mlx4_0":{"hcaObjects":1},"none":{}}}"#,
                vec![
                    "rdma.max=mlx4_0 hca_object=1",
                    "rdma.max=mlx5_1 hca_handle=3 hca_object=10000",
                ],
            ),
        ] {
            assert_eq!(lines(json), want, "{json}");
        }
    }
}
