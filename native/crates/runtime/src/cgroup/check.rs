//! The resources of a configuration checked as a whole, before any group is made.

use shoal_protocol::{Failure, oci::Resources};

/// Kernel limits of block weights and of swappiness.
const WEIGHT: std::ops::RangeInclusive<u16> = 10..=1000;
const SWAPPINESS_MAX: u64 = 100;
/// Most entries of one list: each is a write.
const ENTRIES_MAX: usize = 4096;

/// Refuses values that no layout could keep, naming the field.
pub fn check(resources: &Resources) -> Result<(), Failure> {
    let refuse = |field: &str, why: String| {
        Err(Failure::invalid(
            format!("reading linux.resources.{field}"),
            why,
        ))
    };
    if let Some(memory) = &resources.memory {
        for (field, value) in [
            ("memory.limit", memory.limit),
            ("memory.reservation", memory.reservation),
            ("memory.swap", memory.swap),
        ] {
            if value.is_some_and(|value| value < -1) {
                return refuse(
                    field,
                    format!("{} is no limit (-1 is none)", value.unwrap_or(0)),
                );
            }
        }
        if let Some(value) = memory.swappiness.filter(|value| *value > SWAPPINESS_MAX) {
            return refuse(
                "memory.swappiness",
                format!(
                    "invalid memory swappiness value: {value} (valid range is 0-{SWAPPINESS_MAX})"
                ),
            );
        }
        if let (Some(limit), Some(swap)) = (memory.limit, memory.swap)
            && limit > 0
            && swap > 0
            && swap < limit
        {
            return refuse(
                "memory.swap",
                format!("memory+swap limit {swap} should be >= memory limit {limit}"),
            );
        }
    }
    if let Some(cpu) = &resources.cpu {
        for (field, value) in [("cpu.cpus", &cpu.cpus), ("cpu.mems", &cpu.mems)] {
            let wrong = |text: &&String| {
                text.bytes()
                    .any(|letter| !(letter.is_ascii_digit() || b",- :/".contains(&letter)))
            };
            if let Some(text) = value.as_ref().filter(wrong) {
                return refuse(field, format!("{text:?} is no list like 0-3,7"));
            }
        }
        if let Some(idle) = cpu.idle.filter(|idle| !(0..=1).contains(idle)) {
            return refuse("cpu.idle", format!("{idle} is neither 0 nor 1"));
        }
    }
    if let Some(io) = &resources.block_io {
        let weights = io.weight.iter().chain(&io.leaf_weight).chain(
            io.weight_device
                .iter()
                .flat_map(|device| device.weight.iter().chain(&device.leaf_weight)),
        );
        for weight in weights {
            // 0 is unset, as runc has it.
            if *weight != 0 && !WEIGHT.contains(weight) {
                return refuse(
                    "blockIO",
                    format!("weight {weight} is not within 10 and 1000"),
                );
            }
        }
        let entries = io.weight_device.len()
            + io.throttle_read_bps_device.len()
            + io.throttle_write_bps_device.len()
            + io.throttle_read_iops_device.len()
            + io.throttle_write_iops_device.len();
        if entries > ENTRIES_MAX {
            return refuse(
                "blockIO",
                format!("{entries} devices are over the limit of {ENTRIES_MAX}"),
            );
        }
    }
    for (index, page) in resources.hugepage_limits.iter().enumerate() {
        if !is_page_size(&page.page_size) {
            return refuse(
                &format!("hugepageLimits[{index}].pageSize"),
                format!("{:?} is no size like 2MB", page.page_size),
            );
        }
    }
    if let Some(network) = &resources.network {
        for (index, priority) in network.priorities.iter().enumerate() {
            if priority.name.is_empty() || priority.name.contains([' ', '\n', '/']) {
                return refuse(
                    &format!("network.priorities[{index}].name"),
                    format!("{:?} is no interface name", priority.name),
                );
            }
        }
    }
    for name in resources.rdma.keys() {
        if name.is_empty() || name.contains([' ', '\n']) {
            return refuse("rdma", format!("{name:?} is no device name"));
        }
    }
    for (name, value) in &resources.unified {
        if name.contains('/') || name.contains('\0') || !name.contains('.') {
            return refuse(
                "unified",
                format!("unified resource {name:?} must be a file name (no slashes)"),
            );
        }
        if name.starts_with("cgroup.")
            && name != "cgroup.max.depth"
            && name != "cgroup.max.descendants"
        {
            return refuse(
                "unified",
                format!("{name:?} = {value:?} is how the runtime drives the group, not a limit"),
            );
        }
    }
    if resources.devices.is_empty() {
        return Ok(());
    }
    super::devices::rules(&resources.devices).map(drop)
}

/// What is in the configuration and has no effect, in words for a log.
pub fn warnings(resources: &Resources) -> Vec<String> {
    let mut said = Vec::new();
    if let Some(memory) = &resources.memory {
        if memory.kernel.is_some() {
            said.push("linux.resources.memory.kernel: kernel memory settings are ignored and will be removed".into());
        }
        if memory.use_hierarchy == Some(false) {
            said.push("linux.resources.memory.useHierarchy: false is ignored; kernels since 5.11 always account hierarchically".into());
        }
    }
    said
}

fn is_page_size(text: &str) -> bool {
    ["KB", "MB", "GB"].iter().any(|unit| {
        text.strip_suffix(unit).is_some_and(|digits| {
            !digits.is_empty()
                && !digits.starts_with('0')
                && digits.bytes().all(|digit| digit.is_ascii_digit())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_names_the_field_of_a_value_that_nothing_could_keep() {
        for (json, field) in [
            (r#"{"memory":{"limit":-2}}"#, "memory.limit"),
            (r#"{"memory":{"swappiness":101}}"#, "memory.swappiness"),
            (r#"{"memory":{"limit":10,"swap":5}}"#, "memory.swap"),
            (r#"{"cpu":{"cpus":"0;1"}}"#, "cpu.cpus"),
            (r#"{"cpu":{"mems":"0\n1"}}"#, "cpu.mems"),
            (r#"{"cpu":{"idle":2}}"#, "cpu.idle"),
            (r#"{"blockIO":{"weight":1001}}"#, "blockIO"),
            (
                r#"{"blockIO":{"weightDevice":[{"major":1,"minor":1,"weight":9}]}}"#,
                "blockIO",
            ),
            (
                r#"{"hugepageLimits":[{"pageSize":"../x","limit":1}]}"#,
                "hugepageLimits[0].pageSize",
            ),
            (
                r#"{"hugepageLimits":[{"pageSize":"MB","limit":1}]}"#,
                "hugepageLimits[0].pageSize",
            ),
            (
                r#"{"network":{"priorities":[{"name":"a b","priority":1}]}}"#,
                "network.priorities[0].name",
            ),
            (r#"{"rdma":{"a b":{"hcaHandles":1}}}"#, "rdma"),
            (r#"{"unified":{"../memory.max":"1"}}"#, "unified"),
            (r#"{"unified":{"cgroup.procs":"1"}}"#, "unified"),
            (
                r#"{"devices":[{"allow":true,"type":"x","access":"r"}]}"#,
                "devices[0].type",
            ),
        ] {
            let resources: Resources = serde_json::from_str(json).expect(json);
            let refused = check(&resources).expect_err(json);
            assert!(
                refused
                    .to_string()
                    .contains(&format!("linux.resources.{field}")),
                "{json}: {refused}"
            );
        }
    }

    #[test]
    fn check_takes_what_runc_takes() {
        for json in [
            "{}",
            r#"{"memory":{"limit":-1,"swap":-1,"swappiness":0,"kernel":5}}"#,
            r#"{"memory":{"limit":33554432,"reservation":25165824}}"#,
            r#"{"cpu":{"cpus":"0-1,3","mems":"0","idle":1,"shares":0,"quota":-1}}"#,
            r#"{"blockIO":{"weight":0,"leafWeight":10}}"#,
            r#"{"hugepageLimits":[{"pageSize":"2MB","limit":9223372036854772000}]}"#,
            r#"{"unified":{"memory.max":"1","hugetlb.2MB.max":"0"}}"#,
            r#"{"devices":[{"allow":false},{"allow":true,"type":"c","major":1,"minor":3,"access":"rwm"}]}"#,
        ] {
            let resources: Resources = serde_json::from_str(json).expect(json);
            check(&resources).expect(json);
        }
        let kernel: Resources =
            serde_json::from_str(r#"{"memory":{"kernel":5,"useHierarchy":false}}"#).expect("json");
        assert_eq!(warnings(&kernel).len(), 2);
    }
}
