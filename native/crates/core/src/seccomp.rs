//! Which filter a container gets: docker's default profile, an own one in docker's format, or what the configuration says.

use serde::Deserialize;
use shoal_protocol::Failure;
use shoal_protocol::calls::{self, Create};
use shoal_protocol::oci::{Seccomp, Syscall};
use shoal_runtime::plan::Plan;
use shoal_runtime::sys::region;
use shoal_runtime::{Filter, caps};
use shoal_seccomp::default::default_profile;
use shoal_seccomp::{Arch, compile};
use std::borrow::Cow;
use std::sync::OnceLock;

/// Docker's 14 capabilities: the bounding set that most containers have.
const USUAL_BOUNDING: u64 = 0xa804_25fb;

/// The filter for that set, compiled in the zygote, so that every monitor is born with it.
static USUAL: OnceLock<Option<Filter>> = OnceLock::new();

/// Compiles what most containers will ask for. One that cannot be compiled is refused when it is asked for.
pub fn warm() {
    let compiled = World::of(USUAL_BOUNDING).and_then(World::default_filter);
    let usual = region::outside(|| compiled.as_ref().ok().cloned());
    USUAL.get_or_init(|| usual);
}

/// The filter of a container; None when it may make every call. The usual one is the same memory for every monitor.
pub fn filter(create: &Create, plan: &Plan) -> Result<Option<Cow<'static, Filter>>, Failure> {
    let bounding = plan.caps.bounding;
    let own = match &create.seccomp {
        calls::Seccomp::Default => match USUAL.get() {
            Some(Some(filter)) if bounding == USUAL_BOUNDING => {
                return Ok(Some(Cow::Borrowed(filter)));
            }
            _ => World::of(bounding)?.default_filter().map(Some),
        },
        calls::Seccomp::Unconfined => plan.spec.linux.seccomp.as_ref().map(compile).transpose(),
        calls::Seccomp::Profile(text) => compile(&World::of(bounding)?.choose(text)?).map(Some),
    };
    Ok(own?.map(Cow::Owned))
}

/// What the rules of a profile depend on.
struct World {
    bounding: u64,
    arch: Arch,
    kernel: (u32, u32),
}

/// Docker's profile: OCI's with rules that hold only in some worlds (profiles/seccomp/seccomp.go).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    #[serde(flatten)]
    profile: Seccomp,
    #[serde(default)]
    arch_map: Option<Vec<Architectures>>,
    #[serde(default)]
    syscalls: Option<Vec<Rule>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Architectures {
    architecture: String,
    #[serde(default)]
    sub_architectures: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Rule {
    #[serde(flatten)]
    rule: Syscall,
    /// The one name of old profiles.
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    includes: Option<Condition>,
    #[serde(default)]
    excludes: Option<Condition>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    #[serde(default)]
    caps: Option<Vec<String>>,
    /// Go's names: amd64.
    #[serde(default)]
    arches: Option<Vec<String>>,
    #[serde(default)]
    min_kernel: Option<String>,
}

impl World {
    fn of(bounding: u64) -> Result<Self, Failure> {
        let task = "reading the kernel's version";
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")
            .map_err(|error| Failure::io(task, &error))?;
        Ok(Self {
            bounding,
            arch: Arch::NATIVE,
            kernel: version(&release)
                .ok_or_else(|| Failure::invalid(task, format!("{release:?} is no version")))?,
        })
    }

    fn default_filter(self) -> Result<Filter, Failure> {
        compile(&default_profile(self.bounding, self.arch, self.kernel))
    }

    /// The rules of docker's profile that hold here.
    fn choose(&self, text: &str) -> Result<Seccomp, Failure> {
        let task = "reading seccomp.profile";
        let read: Profile = serde_json::from_slice(text.as_bytes())
            .map_err(|error| Failure::invalid(task, error.to_string()))?;
        let mut profile = read.profile;
        let own = self.arch.name();
        let mapped = read.arch_map.unwrap_or_default().into_iter();
        if let Some(found) = mapped.into_iter().find(|entry| entry.architecture == own) {
            if !profile.architectures.is_empty() {
                return Err(Failure::invalid(
                    task,
                    "both architectures and archMap are given; leave one out",
                ));
            }
            profile.architectures = vec![found.architecture];
            profile
                .architectures
                .extend(found.sub_architectures.unwrap_or_default());
        }
        for rule in read.syscalls.unwrap_or_default() {
            let included = rule
                .includes
                .map_or(Ok(true), |condition| self.meets(&condition, true))?;
            let excluded = rule
                .excludes
                .map_or(Ok(false), |condition| self.meets(&condition, false))?;
            let mut chosen = rule.rule;
            chosen.names.extend(rule.name);
            if included && !excluded {
                profile.syscalls.push(chosen);
            }
        }
        Ok(profile)
    }

    /// Whether all (or, for an exclusion, any) of what a condition names holds.
    fn meets(&self, condition: &Condition, all: bool) -> Result<bool, Failure> {
        let mut found = Vec::new();
        for name in condition.caps.iter().flatten() {
            let bare = name.strip_prefix("CAP_").unwrap_or(name);
            let number = caps::NAMES.iter().position(|known| *known == bare);
            found.push(number.is_some_and(|number| self.bounding & (1 << number) != 0));
        }
        if let Some(arches) = condition.arches.as_ref().filter(|list| !list.is_empty()) {
            found.push(arches.iter().any(|name| name == go_name(self.arch)));
        }
        if let Some(kernel) = &condition.min_kernel {
            let wanted = version(kernel).ok_or_else(|| {
                Failure::invalid(
                    "reading seccomp.profile",
                    format!("minKernel {kernel:?} is no version"),
                )
            })?;
            found.push(self.kernel >= wanted);
        }
        Ok(if all {
            found.iter().all(|holds| *holds)
        } else {
            found.iter().any(|holds| *holds)
        })
    }
}

/// The first two numbers of a version.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text
        .split(|character: char| !character.is_ascii_digit())
        .map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn go_name(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "amd64",
        Arch::X86 => "386",
        Arch::X32 => "x32",
        Arch::Aarch64 => "arm64",
        Arch::Arm => "arm",
        Arch::Riscv64 => "riscv64",
        Arch::Loongarch64 => "loong64",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choose_takes_the_rules_that_hold_in_this_world() {
        let world = World {
            bounding: 1 << 13,
            arch: Arch::X86_64,
            kernel: (5, 10),
        };
        let text = r#"{
            "defaultAction": "SCMP_ACT_ERRNO",
            "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
            "syscalls": [
                {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
                {"name": "socket", "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_NET_RAW"]}},
                {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
                {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"], "arches": ["s390"]}},
                {"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "excludes": {"arches": ["amd64"]}},
                {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
                {"names": ["openat2"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "5.11"}}
            ]
        }"#;
        let chosen = world.choose(text).expect("a profile");
        let names: Vec<&str> = chosen
            .syscalls
            .iter()
            .flat_map(|rule| rule.names.iter().map(String::as_str))
            .collect();
        assert_eq!(names, ["read", "socket", "clone", "ptrace"]);
        assert_eq!(chosen.architectures, ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]);
        assert!(world.choose("{").is_err());
        assert_eq!(version("6.18.3-shoal"), Some((6, 18)));
    }
}
