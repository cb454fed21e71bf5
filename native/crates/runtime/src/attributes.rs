//! Scheduling and execution domain of a process: process.scheduler, process.ioPriority and linux.personality.

use crate::sys::{affinity, process};
use shoal_protocol::{Failure, oci};

/// Policies of sched(7) by the specification's names.
const POLICIES: [(&str, u32); 7] = [
    ("SCHED_OTHER", 0),
    ("SCHED_FIFO", 1),
    ("SCHED_RR", 2),
    ("SCHED_BATCH", 3),
    ("SCHED_ISO", 4),
    ("SCHED_IDLE", 5),
    ("SCHED_DEADLINE", 6),
];
/// Flags of sched_setattr(2).
const SCHEDULER_FLAGS: [(&str, u64); 7] = [
    ("SCHED_FLAG_RESET_ON_FORK", 0x01),
    ("SCHED_FLAG_RECLAIM", 0x02),
    ("SCHED_FLAG_DL_OVERRUN", 0x04),
    ("SCHED_FLAG_KEEP_POLICY", 0x08),
    ("SCHED_FLAG_KEEP_PARAMS", 0x10),
    ("SCHED_FLAG_UTIL_CLAMP_MIN", 0x20),
    ("SCHED_FLAG_UTIL_CLAMP_MAX", 0x40),
];
/// Classes of ioprio_set(2).
const IO_CLASSES: [(&str, i32); 3] = [
    ("IOPRIO_CLASS_RT", 1),
    ("IOPRIO_CLASS_BE", 2),
    ("IOPRIO_CLASS_IDLE", 3),
];
const IO_PRIORITY_MAX: i32 = 7;
const IO_CLASS_SHIFT: i32 = 13;
/// Execution domains of personality(2).
const PERSONALITIES: [(&str, u64); 2] = [("LINUX", 0), ("LINUX32", 0x0008)];

fn named<T: Copy>(table: &[(&str, T)], field: &str, word: &str) -> Result<T, Failure> {
    table
        .iter()
        .find(|(name, _)| *name == word)
        .map(|(_, value)| *value)
        .ok_or_else(|| {
            let known: Vec<&str> = table.iter().map(|(name, _)| *name).collect();
            Failure::invalid(
                format!("reading {field}"),
                format!("{word:?} is not one of {}", known.join(", ")),
            )
        })
}

/// Reads process.scheduler into what sched_setattr(2) takes.
fn scheduler(wanted: &oci::Scheduler) -> Result<process::SchedulerAttributes, Failure> {
    let field = "process.scheduler";
    let policy = named(&POLICIES, field, &wanted.policy)?;
    let flags = wanted
        .flags
        .iter()
        .map(|flag| named(&SCHEDULER_FLAGS, field, flag))
        .try_fold(0, |all, flag| flag.map(|flag| all | flag))?;
    let refuse = |message: String| Err(Failure::invalid(format!("reading {field}"), message));
    let priority = match u32::try_from(wanted.priority) {
        Ok(priority) => priority,
        Err(_) => return refuse(format!("priority {} is negative", wanted.priority)),
    };
    let real_time = matches!(policy, 1 | 2);
    if priority != 0 && !real_time {
        return refuse(format!(
            "priority {priority} goes with SCHED_FIFO and SCHED_RR only, not {}",
            wanted.policy
        ));
    }
    if !(-20..=19).contains(&wanted.nice) {
        return refuse(format!("nice {} is not in -20..19", wanted.nice));
    }
    if (wanted.runtime, wanted.deadline, wanted.period) != (0, 0, 0)
        && wanted.policy != "SCHED_DEADLINE"
    {
        return refuse(format!(
            "runtime, deadline and period go with SCHED_DEADLINE only, not {}",
            wanted.policy
        ));
    }
    Ok(process::SchedulerAttributes {
        policy,
        flags,
        nice: wanted.nice,
        priority,
        runtime: wanted.runtime,
        deadline: wanted.deadline,
        period: wanted.period,
    })
}

/// Reads process.ioPriority into the number that ioprio_set(2) takes.
fn io_priority(wanted: &oci::IoPriority) -> Result<i32, Failure> {
    let class = named(&IO_CLASSES, "process.ioPriority.class", &wanted.class)?;
    if !(0..=IO_PRIORITY_MAX).contains(&wanted.priority) {
        return Err(Failure::invalid(
            "reading process.ioPriority",
            format!(
                "priority {} is not in 0..{IO_PRIORITY_MAX}",
                wanted.priority
            ),
        ));
    }
    Ok(class << IO_CLASS_SHIFT | wanted.priority)
}

/// Reads linux.personality into the number that personality(2) takes.
fn personality(wanted: &oci::Personality) -> Result<u64, Failure> {
    if !wanted.flags.is_empty() {
        // As runc and crun: the specification defines no flag yet.
        return Err(Failure::invalid(
            "reading linux.personality.flags",
            format!("{:?}: there are no flags yet; leave it empty", wanted.flags),
        ));
    }
    named(&PERSONALITIES, "linux.personality.domain", &wanted.domain)
}

/// Most CPUs or nodes that a list may name, as the kernel's default sets hold.
const CPUS_MAX: usize = 1024;
/// Modes of set_mempolicy(2) by the specification's names.
const MEMORY_MODES: [(&str, i32); 7] = [
    ("MPOL_DEFAULT", 0),
    ("MPOL_PREFERRED", 1),
    ("MPOL_BIND", 2),
    ("MPOL_INTERLEAVE", 3),
    ("MPOL_LOCAL", 4),
    ("MPOL_PREFERRED_MANY", 5),
    ("MPOL_WEIGHTED_INTERLEAVE", 6),
];
/// Those that take no nodes: MPOL_DEFAULT and MPOL_LOCAL.
const MEMORY_MODES_NODELESS: [i32; 2] = [0, 4];
/// Flags of set_mempolicy(2).
const MEMORY_FLAGS: [(&str, i32); 3] = [
    ("MPOL_F_STATIC_NODES", 1 << 15),
    ("MPOL_F_RELATIVE_NODES", 1 << 14),
    ("MPOL_F_NUMA_BALANCING", 1 << 13),
];

/// Reads linux.memoryPolicy into the mode (with flags) and nodes that set_mempolicy(2) takes.
fn memory_policy(wanted: &oci::MemoryPolicy) -> Result<(i32, Vec<usize>), Failure> {
    let mode = named(
        &MEMORY_MODES,
        "linux.memoryPolicy.mode: invalid memory policy mode",
        &wanted.mode,
    )?;
    let flags = wanted
        .flags
        .iter()
        .map(|flag| {
            let field = "linux.memoryPolicy.flags: invalid memory policy flag";
            named(&MEMORY_FLAGS, field, flag)
        })
        .try_fold(0, |all, flag| flag.map(|flag| all | flag))?;
    let field = "linux.memoryPolicy.nodes: invalid memory policy node";
    let nodes = number_list(field, &wanted.nodes)?;
    if MEMORY_MODES_NODELESS.contains(&mode) && !nodes.is_empty() {
        return Err(Failure::invalid(
            "reading linux.memoryPolicy",
            format!(
                "{} mode requires 0 nodes but got {}",
                wanted.mode,
                nodes.len()
            ),
        ));
    }
    Ok((mode | flags, nodes))
}

/// The modes and the flags of linux.memoryPolicy that are understood, for `features`.
pub fn memory_policy_names() -> (Vec<&'static str>, Vec<&'static str>) {
    (
        MEMORY_MODES.map(|(name, _)| name).to_vec(),
        MEMORY_FLAGS.map(|(name, _)| name).to_vec(),
    )
}

/// Refuses a memory policy that cannot be, by name.
pub fn validate_memory_policy(wanted: &oci::MemoryPolicy) -> Result<(), Failure> {
    memory_policy(wanted).map(drop)
}

/// Sets the NUMA policy of this process (runtime-spec 1.3, "Memory Policy").
pub(crate) fn apply_memory_policy(wanted: &oci::MemoryPolicy) -> Result<(), Failure> {
    let (mode, nodes) = memory_policy(wanted)?;
    process::set_memory_policy(mode, &nodes).map_err(|error| {
        Failure::io(
            format!(
                "setting linux.memoryPolicy {} on nodes {:?}",
                wanted.mode, wanted.nodes
            ),
            &error,
        )
    })
}

fn cpu_list(field: &str, list: &str) -> Result<Vec<usize>, Failure> {
    number_list(&format!("process.execCPUAffinity.{field}"), list)
}

/// A list of process.execCPUAffinity as one number in hexadecimal, as runc's debug log has it; `0x0` for none.
pub fn cpu_mask(field: &str, list: &str) -> Result<String, Failure> {
    let mut words = [0u64; CPUS_MAX / 64];
    for cpu in cpu_list(field, list)? {
        words[cpu / 64] |= 1 << (cpu % 64);
    }
    let digits: String = words
        .iter()
        .rev()
        .map(|word| format!("{word:016x}"))
        .collect();
    let digits = digits.trim_start_matches('0');
    Ok(format!(
        "0x{}",
        if digits.is_empty() { "0" } else { digits }
    ))
}

/// Reads a list as cpuset(7) has it: `0-2,5`.
fn number_list(field: &str, list: &str) -> Result<Vec<usize>, Failure> {
    let refuse = || {
        Failure::invalid(
            format!("reading {field}"),
            format!("{list:?} is not a list such as 0-2,5"),
        )
    };
    let mut cpus = Vec::new();
    for part in list
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| {
            text.trim()
                .parse::<usize>()
                .ok()
                .filter(|cpu| *cpu < CPUS_MAX)
        };
        let (Some(first), Some(last)) = (number(first), number(last)) else {
            return Err(refuse());
        };
        if first > last {
            return Err(refuse());
        }
        cpus.extend(first..=last);
    }
    Ok(cpus)
}

/// Runs this process on these CPUs from now on; an empty list changes nothing.
pub(crate) fn apply_affinity(field: &str, list: &str) -> Result<(), Failure> {
    let cpus = cpu_list(field, list)?;
    if cpus.is_empty() {
        return Ok(());
    }
    affinity::set(&cpus).map_err(|error| {
        Failure::io(
            format!("setting process.execCPUAffinity.{field} to {list:?}"),
            &error,
        )
    })
}

/// Refuses values that cannot be, by name.
pub fn validate(process: &oci::Process, domain: Option<&oci::Personality>) -> Result<(), Failure> {
    process.scheduler.as_ref().map(scheduler).transpose()?;
    process.io_priority.as_ref().map(io_priority).transpose()?;
    domain.map(personality).transpose()?;
    if let Some(affinity) = &process.exec_cpu_affinity {
        cpu_list("initial", &affinity.initial)?;
        cpu_list("final", &affinity.last)?;
    }
    Ok(())
}

/// Sets them on this process, while it is still privileged.
pub(crate) fn apply(
    process: &oci::Process,
    domain: Option<&oci::Personality>,
) -> Result<(), Failure> {
    if let Some(wanted) = &process.scheduler {
        process::set_scheduler(&scheduler(wanted)?).map_err(|error| {
            let doing = format!("setting process.scheduler {:?}", wanted.policy);
            let mut failure = Failure::io(doing, &error);
            if wanted.policy == "SCHED_DEADLINE" && error.raw_os_error() == Some(libc::EPERM) {
                // sched(7): a deadline holds only for a thread that may run everywhere.
                failure.message.push_str(
                    "; this process scheduler can't be used together with AllowedCPUs (linux.resources.cpu.cpus)",
                );
            }
            failure
        })?;
    }
    if let Some(wanted) = &process.io_priority {
        process::set_io_priority(io_priority(wanted)?).map_err(|error| {
            Failure::io(
                format!("setting process.ioPriority {:?}", wanted.class),
                &error,
            )
        })?;
    }
    if let Some(wanted) = domain {
        process::set_personality(personality(wanted)?).map_err(|error| {
            Failure::io(
                format!("setting linux.personality {:?}", wanted.domain),
                &error,
            )
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_priority_is_class_and_level() {
        let wanted = |class: &str, priority| oci::IoPriority {
            class: class.into(),
            priority,
        };
        assert_eq!(
            io_priority(&wanted("IOPRIO_CLASS_BE", 4)).expect("value"),
            2 << 13 | 4
        );
        for bad in [wanted("IOPRIO_CLASS_X", 0), wanted("IOPRIO_CLASS_RT", 8)] {
            assert!(io_priority(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn scheduler_refuses_what_does_not_go_together() {
        let wanted = |policy: &str| oci::Scheduler {
            policy: policy.into(),
            ..oci::Scheduler::default()
        };
        assert_eq!(scheduler(&wanted("SCHED_BATCH")).expect("value").policy, 3);
        let mut fifo = wanted("SCHED_FIFO");
        fifo.priority = 10;
        assert_eq!(scheduler(&fifo).expect("value").priority, 10);
        fifo.policy = "SCHED_OTHER".into();
        assert!(scheduler(&fifo).is_err());
        let mut nice = wanted("SCHED_OTHER");
        nice.nice = 20;
        assert!(scheduler(&nice).is_err());
        let mut deadline = wanted("SCHED_BATCH");
        deadline.runtime = 1;
        assert!(scheduler(&deadline).is_err());
        assert!(scheduler(&wanted("SCHED_NOPE")).is_err());
    }

    #[test]
    fn cpu_list_reads_ranges_and_refuses_the_rest() {
        assert_eq!(cpu_list("initial", " 0-2, 5").expect("cpus"), [0, 1, 2, 5]);
        assert_eq!(cpu_list("initial", "").expect("none"), [] as [usize; 0]);
        for bad in ["a", "2-1", "-1", "1-", "9999999", "0-99999999999"] {
            assert!(cpu_list("final", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn cpu_mask_is_one_number() {
        for (list, want) in [
            ("", "0x0"),
            ("0", "0x1"),
            ("0-1", "0x3"),
            ("1,64", "0x10000000000000002"),
        ] {
            assert_eq!(cpu_mask("initial", list).expect(list), want);
        }
    }

    #[test]
    fn memory_policy_refuses_nodes_where_there_are_none() {
        let wanted = |mode: &str, nodes: &str| oci::MemoryPolicy {
            mode: mode.into(),
            nodes: nodes.into(),
            flags: Vec::new(),
        };
        assert_eq!(
            memory_policy(&wanted("MPOL_BIND", "0-1")).expect("policy"),
            (2, vec![0, 1])
        );
        for (mode, nodes, words) in [
            ("MPOL_DEFAULT", "0-7", "mode requires 0 nodes but got 8"),
            ("MPOL_BIND", "0-9876543210", "invalid memory policy node"),
            ("", "0", "invalid memory policy mode"),
        ] {
            let failure = memory_policy(&wanted(mode, nodes)).expect_err(mode);
            assert!(failure.to_string().contains(words), "{failure}");
        }
    }

    #[test]
    fn personality_knows_two_domains() {
        let wanted = |domain: &str| oci::Personality {
            domain: domain.into(),
            flags: Vec::new(),
        };
        assert_eq!(personality(&wanted("LINUX32")).expect("value"), 8);
        assert!(personality(&wanted("BSD")).is_err());
    }
}
