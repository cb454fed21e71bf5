//! Our default profile beside the one that Debian's podman uses (containers/common, itself a branch of Docker's), where that is installed.

use super::DOCKER_CAPABILITIES;
use crate::arch::{Arch, Numbers};
use crate::default::{DOCKERS_CAPABILITIES, default_profile};
use serde_json::Value;
use std::collections::BTreeSet;

/// Allowed by us and not there: Docker has added them since (Debian's file is of early 2023), or has them in another place.
const ONLY_OURS: [(&str, &[&str]); 2] = [
    (
        "calls of Linux 5.16 to 6.13, newer than the file's list",
        &[
            "cachestat",
            "fchmodat2",
            "futex_requeue",
            "futex_wait",
            "futex_waitv",
            "futex_wake",
            "getxattrat",
            "listmount",
            "listxattrat",
            "map_shadow_stack",
            "mseal",
            "removexattrat",
            "setxattrat",
            "statmount",
            "uretprobe",
        ],
    ),
    (
        "Docker allows them, the other branch does not",
        &["io_pgetevents", "io_pgetevents_time64", "vmsplice"],
    ),
];
/// Allowed there and not by us: Docker never has, or has not any more.
const ONLY_THEIRS: [(&str, &[&str]); 5] = [
    (
        "podman leaves mounts and namespaces to the kernel's own checks; Docker asks for CAP_SYS_ADMIN",
        &[
            "clone",
            "clone3",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "pivot_root",
            "setns",
            "umount",
            "umount2",
            "unshare",
        ],
    ),
    (
        "Docker asks for CAP_SYS_NICE, SYS_PTRACE, SYS_BOOT and SYSLOG",
        &[
            "get_mempolicy",
            "mbind",
            "set_mempolicy",
            "pidfd_getfd",
            "reboot",
            "syslog",
        ],
    ),
    (
        "keys are not in a namespace: Docker allows them to nobody",
        &["keyctl"],
    ),
    (
        "Docker looks at the family; podman asks for CAP_AUDIT_WRITE, which these capabilities have",
        &["socket"],
    ),
    (
        "forms of 32-bit x86 that Docker never had",
        &["readdir", "sigaction", "signal", "sigpending", "sigsuspend"],
    ),
];

fn strings(value: &Value) -> Vec<&str> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

/// Names allowed without condition for Docker's capabilities on amd64, that x86_64 or x86 has.
fn theirs(profile: &Value) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for rule in profile["syscalls"].as_array().expect("rules") {
        let (includes, excludes) = (&rule["includes"], &rule["excludes"]);
        let any = |of: &Value, have: &[&str]| strings(of).iter().any(|one| have.contains(one));
        let applies = (strings(&includes["arches"]).is_empty()
            || any(&includes["arches"], &["amd64"]))
            && strings(&includes["caps"])
                .iter()
                .all(|one| DOCKERS_CAPABILITIES.contains(one))
            && !any(&excludes["arches"], &["amd64"])
            && !any(&excludes["caps"], &DOCKERS_CAPABILITIES);
        let plain = rule["args"].as_array().is_none_or(Vec::is_empty);
        if applies && plain && rule["action"] == "SCMP_ACT_ALLOW" {
            names.extend(strings(&rule["names"]).into_iter().map(str::to_owned));
        }
    }
    names.retain(|name| has(name));
    names
}

fn has(name: &str) -> bool {
    let on = |arch| Numbers::of(name).and_then(|numbers| numbers.on(arch));
    on(Arch::X86_64).or(on(Arch::X86)).is_some()
}

#[test]
fn default_profile_allows_what_podmans_does_but_for_listed_reasons() {
    let path = "/usr/share/containers/seccomp.json";
    let Ok(text) = std::fs::read(path) else {
        eprintln!(
            "SKIPPED: {path} is not installed (golang-github-containers-common), nothing is compared"
        );
        return;
    };
    let theirs = theirs(&serde_json::from_slice(&text).expect("a profile"));
    let profile = default_profile(DOCKER_CAPABILITIES, Arch::X86_64, (6, 18));
    let ours: BTreeSet<String> = profile
        .syscalls
        .into_iter()
        .filter(|rule| rule.args.is_empty() && rule.action == "SCMP_ACT_ALLOW")
        .flat_map(|rule| rule.names)
        .filter(|name| has(name))
        .collect();
    let listed = |lists: &[(&str, &[&str])]| -> BTreeSet<String> {
        lists
            .iter()
            .flat_map(|(_, names)| names.iter().map(|name| (*name).to_owned()))
            .collect()
    };
    let only = |one: &BTreeSet<String>, other: &BTreeSet<String>| {
        one.difference(other).cloned().collect::<BTreeSet<_>>()
    };
    assert_eq!(only(&ours, &theirs), listed(&ONLY_OURS), "only ours");
    assert_eq!(only(&theirs, &ours), listed(&ONLY_THEIRS), "only theirs");
    assert!(ours.len() > 300);
}
