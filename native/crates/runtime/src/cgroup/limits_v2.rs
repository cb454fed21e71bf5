//! What a control group v2 is written for the limits of a configuration.

use super::convert::{io_weight, or_max, swap_alone, weight_of_shares};
use super::limits_v1;
use super::writes::Write;
use shoal_protocol::{
    Failure,
    oci::{BlockIo, Cpu, Memory, Resources, ThrottleDevice},
};
use std::collections::BTreeMap;

/// Every controller that a limit can need, in v2's names.
pub const CONTROLLERS: [&str; 7] = ["memory", "cpu", "cpuset", "pids", "io", "hugetlb", "rdma"];

/// What the group holds already, of which a part is written together with another part.
#[derive(Debug, Default)]
pub struct Held {
    /// `cpu.max`: quota and period.
    pub cpu_max: String,
    /// `memory.max`.
    pub memory_max: String,
}

/// The writes for one controller, in their order; none when nothing is asked of it.
pub fn writes(controller: &str, resources: &Resources, held: &Held) -> Result<Vec<Write>, Failure> {
    match controller {
        "memory" => resources
            .memory
            .as_ref()
            .map_or(Ok(Vec::new()), |asked| memory(asked, held)),
        "cpu" => Ok(resources
            .cpu
            .as_ref()
            .map_or_else(Vec::new, |asked| cpu(asked, held))),
        "cpuset" => Ok(limits_v1::writes("cpuset", resources)),
        "pids" => Ok(limits_v1::pids(resources)),
        "io" => Ok(resources.block_io.as_ref().map_or_else(Vec::new, io)),
        "hugetlb" => Ok(hugetlb(resources)),
        "rdma" => Ok(limits_v1::rdma(resources)),
        _ => Ok(Vec::new()),
    }
}

/// The first thing that is asked for and that v2 has no controller for.
pub fn unknown(resources: &Resources) -> Option<&'static str> {
    let cpu = resources.cpu.as_ref();
    let network = resources.network.as_ref();
    let asked = [
        (
            "cpu.realtimeRuntime",
            cpu.is_some_and(|cpu| cpu.realtime_runtime.is_some_and(|us| us != 0)),
        ),
        (
            "cpu.realtimePeriod",
            cpu.is_some_and(|cpu| cpu.realtime_period.is_some_and(|us| us != 0)),
        ),
        (
            "network.classID",
            network.is_some_and(|network| network.class_id.is_some_and(|class| class != 0)),
        ),
        (
            "network.priorities",
            network.is_some_and(|network| !network.priorities.is_empty()),
        ),
        (
            "memory.disableOOMKiller",
            resources
                .memory
                .as_ref()
                .is_some_and(|memory| memory.disable_oom_killer == Some(true)),
        ),
    ];
    asked
        .into_iter()
        .find(|(_, asked)| *asked)
        .map(|(field, _)| field)
}

fn memory(memory: &Memory, held: &Held) -> Result<Vec<Write>, Failure> {
    let mut writes = Vec::new();
    let limit = memory.limit.filter(|limit| *limit != 0);
    let against = limit.or_else(|| match held.memory_max.trim() {
        "max" => Some(-1),
        bytes => bytes.parse().ok(),
    });
    let asked = memory.swap.filter(|swap| *swap != 0);
    let swap = match asked {
        None => swap_alone(None, limit),
        Some(_) => swap_alone(asked, against),
    }
    .map_err(|why| Failure::invalid("reading linux.resources.memory.swap", why))?;
    if let Some(swap) = swap {
        // Without swap there is nothing to limit when none or all of it is asked for.
        writes.push(Write::new("memory.swap", "memory.swap.max", or_max(swap)).skip_if(swap <= 0));
    }
    if let Some(limit) = limit {
        writes.push(Write::new("memory.limit", "memory.max", or_max(limit)).skip_if(limit < 0));
    }
    if let Some(reservation) = memory.reservation.filter(|reservation| *reservation != 0) {
        writes.push(
            Write::new("memory.reservation", "memory.low", or_max(reservation))
                .skip_if(reservation < 0),
        );
    }
    Ok(writes)
}

fn cpu(cpu: &Cpu, held: &Held) -> Vec<Write> {
    let mut writes = Vec::new();
    if let Some(idle) = cpu.idle {
        writes.push(Write::new("cpu.idle", "cpu.idle", idle).skip_if(idle == 0));
    }
    // The kernel refuses a weight for an idle group.
    let idle = cpu.idle == Some(1);
    if let Some(shares) = cpu.shares.filter(|shares| *shares != 0 && !idle) {
        writes.push(Write::new(
            "cpu.shares",
            "cpu.weight",
            weight_of_shares(shares),
        ));
    }
    let quota = cpu.quota.filter(|quota| *quota != 0);
    let period = cpu.period.filter(|period| *period != 0);
    if quota.is_some() || period.is_some() {
        let mut before = held.cpu_max.split_whitespace();
        let (quota_before, period_before) = (before.next(), before.next());
        let limited = quota.is_some_and(|quota| quota > 0);
        let quota = quota.map_or_else(|| quota_before.unwrap_or("max").to_owned(), or_max);
        let period = period.map_or_else(
            || period_before.unwrap_or("100000").to_owned(),
            |us| us.to_string(),
        );
        writes.push(
            Write::new("cpu.quota", "cpu.max", format!("{quota} {period}")).skip_if(!limited),
        );
    }
    if let Some(burst) = cpu.burst {
        writes.push(Write::new("cpu.burst", "cpu.max.burst", burst).skip_if(burst == 0));
    }
    writes
}

fn io(io: &BlockIo) -> Vec<Write> {
    let mut writes = Vec::new();
    let asked = |weight: &Option<u16>| weight.filter(|weight| *weight != 0);
    if let Some(weight) = asked(&io.weight) {
        // BFQ takes v1's range as it is; the cost model of io.weight has its own.
        writes.push(
            Write::new("blockIO.weight", "io.bfq.weight", weight)
                .or("io.weight", format!("default {}", io_weight(weight))),
        );
    }
    for device in &io.weight_device {
        if let Some(weight) = asked(&device.weight) {
            let line = |weight: u64| format!("{}:{} {weight}", device.major, device.minor);
            writes.push(
                Write::new("blockIO.weightDevice", "io.bfq.weight", line(weight.into()))
                    .or("io.weight", line(io_weight(weight))),
            );
        }
    }
    // All rates of one device go in one line.
    let mut lines: BTreeMap<(i64, i64), String> = BTreeMap::new();
    let rates: [(&str, &[ThrottleDevice]); 4] = [
        ("rbps", &io.throttle_read_bps_device),
        ("wbps", &io.throttle_write_bps_device),
        ("riops", &io.throttle_read_iops_device),
        ("wiops", &io.throttle_write_iops_device),
    ];
    for (key, devices) in rates {
        for device in devices {
            let rate = match device.rate {
                0 => "max".to_owned(),
                rate => rate.to_string(),
            };
            let line = lines.entry((device.major, device.minor)).or_default();
            line.push_str(&format!(" {key}={rate}"));
        }
    }
    writes.extend(lines.into_iter().map(|((major, minor), line)| {
        Write::new(
            "blockIO.throttle",
            "io.max",
            format!("{major}:{minor}{line}"),
        )
    }));
    writes
}

fn hugetlb(resources: &Resources) -> Vec<Write> {
    let mut writes = Vec::new();
    for page in &resources.hugepage_limits {
        let file = |kind: &str| format!("hugetlb.{}{kind}.max", page.page_size);
        let limit = page.limit.min(i64::MAX.cast_unsigned());
        writes.push(Write::new("hugepageLimits", file(""), limit));
        writes.push(Write::new("hugepageLimits", file(".rsvd"), limit).skip_if(true));
    }
    writes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(json: &str, held: &Held) -> Vec<String> {
        let resources: Resources = serde_json::from_str(json).expect(json);
        CONTROLLERS
            .iter()
            .flat_map(|controller| writes(controller, &resources, held).expect(json))
            .map(|write| {
                let skip = if write.is_required() { "" } else { "?" };
                let other = write
                    .other
                    .map_or(String::new(), |(file, value)| format!("|{file}={value}"));
                format!("{}{skip}={}{other}", write.file, write.value)
            })
            .collect()
    }

    #[test]
    fn writes_of_every_resource_of_the_specification() {
        for (json, want) in [
            ("{}", vec![]),
            (
                r#"{"memory":{"limit":100,"swap":150,"reservation":50,"swappiness":60,"kernel":3}}"#,
                vec!["memory.swap.max=50", "memory.max=100", "memory.low=50"],
            ),
            (
                r#"{"memory":{"limit":-1}}"#,
                vec!["memory.swap.max?=max", "memory.max?=max"],
            ),
            (
                r#"{"cpu":{"shares":1024,"quota":-1,"cpus":"0-1","mems":"0"}}"#,
                vec![
                    "cpu.weight=100",
                    "cpu.max?=max 100000",
                    "cpuset.cpus=0-1",
                    "cpuset.mems=0",
                ],
            ),
            (
                r#"{"cpu":{"shares":1024,"idle":1,"quota":5000,"period":50000,"burst":10}}"#,
                vec!["cpu.idle=1", "cpu.max=5000 50000", "cpu.max.burst=10"],
            ),
            (r#"{"pids":{"limit":0}}"#, vec!["pids.max=1"]),
            (
                r#"{"blockIO":{"weight":750,"weightDevice":[{"major":8,"minor":0,"weight":10}],
                    "throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1}],"throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":0},{"major":7,"minor":0,"rate":4}]}}"#,
                vec![
                    "io.bfq.weight=750|io.weight=default 7475",
                    "io.bfq.weight=8:0 10|io.weight=8:0 1",
                    "io.max=7:0 wiops=4",
                    "io.max=8:0 rbps=1 wiops=max",
                ],
            ),
            (
                r#"{"hugepageLimits":[{"pageSize":"2MB","limit":9}]}"#,
                vec!["hugetlb.2MB.max=9", "hugetlb.2MB.rsvd.max?=9"],
            ),
            (
                r#"{"rdma":{"mlx5_1":{"hcaHandles":3}}}"#,
                vec!["rdma.max=mlx5_1 hca_handle=3"],
            ),
        ] {
            assert_eq!(lines(json, &Held::default()), want, "{json}");
        }
    }

    #[test]
    fn writes_keep_the_other_half_that_an_update_does_not_speak_of() {
        let held = Held {
            cpu_max: "5000 50000\n".into(),
            memory_max: "100\n".into(),
        };
        assert_eq!(
            lines(r#"{"cpu":{"period":70000}}"#, &held),
            ["cpu.max?=5000 70000"]
        );
        assert_eq!(
            lines(r#"{"cpu":{"quota":6000}}"#, &held),
            ["cpu.max=6000 50000"]
        );
        assert_eq!(
            lines(r#"{"memory":{"swap":130}}"#, &held),
            ["memory.swap.max=30"]
        );
        let low: Resources = serde_json::from_str(r#"{"memory":{"swap":70}}"#).expect("json");
        assert!(writes("memory", &low, &held).is_err());
    }

    #[test]
    fn unknown_names_what_v2_has_no_controller_for() {
        for (json, want) in [
            (
                r#"{"cpu":{"realtimeRuntime":5}}"#,
                Some("cpu.realtimeRuntime"),
            ),
            (r#"{"network":{"classID":5}}"#, Some("network.classID")),
            (
                r#"{"memory":{"disableOOMKiller":true}}"#,
                Some("memory.disableOOMKiller"),
            ),
            (
                r#"{"network":{"classID":0},"memory":{"disableOOMKiller":false}}"#,
                None,
            ),
        ] {
            let resources: Resources = serde_json::from_str(json).expect(json);
            assert_eq!(unknown(&resources), want, "{json}");
        }
    }
}
