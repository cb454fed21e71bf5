//! A profile read and checked: every word known, every rule as alternatives of conditions; a refusal names its field and value.

use crate::arch::{Arch, Listed};
use crate::words::{self, Operator, ret};
use shoal_protocol::Failure;
use shoal_protocol::oci::{Seccomp, Syscall, SyscallArg};

/// Arguments of a system call.
pub const ARGUMENTS_MAX: u32 = 6;
/// Longest name of a system call that is taken for one; the longest of Linux has 28 bytes.
const NAME_BYTES_MAX: usize = 64;
/// Most names times conditions over all rules: forty times what Docker's profile has, and more than a program of 4096 instructions can hold.
const CASES_MAX: usize = 20_000;

/// One comparison of one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Condition {
    /// 0..5
    pub argument: u32,
    pub operator: Operator,
    pub value: u64,
    /// What is compared with under the mask `value`, for MaskedEqual.
    pub second: u64,
}

/// One rule: what happens to these calls when one of the alternatives holds as a whole.
#[derive(Debug)]
pub struct Rule<'a> {
    pub names: &'a [String],
    pub action: u32,
    /// Empty: always.
    pub alternatives: Vec<Vec<Condition>>,
}

/// A checked profile.
#[derive(Debug)]
pub struct Profile<'a> {
    pub default: u32,
    /// The native one first; none twice.
    pub architectures: Vec<Arch>,
    pub rules: Vec<Rule<'a>>,
    /// SECCOMP_FILTER_FLAG_*
    pub flags: u32,
}

fn refuse(field: &str, why: impl Into<String>) -> Failure {
    Failure::invalid(format!("reading linux.seccomp.{field}"), why)
}

/// Reads a profile for a machine of architecture `native`.
pub fn read(from: &Seccomp, native: Arch) -> Result<Profile<'_>, Failure> {
    let default = words::action(&from.default_action, from.default_errno_ret)
        .map_err(|why| refuse("defaultAction", why))?;
    if default == ret::USER_NOTIF {
        // The listener is told of by system calls of the very process that would then wait for it (runc refuses it too).
        return Err(refuse(
            "defaultAction",
            "SCMP_ACT_NOTIFY would stop the container's own start; give it to single system calls",
        ));
    }
    let cases = |rule: &Syscall| rule.names.len().saturating_mul(rule.args.len().max(1));
    if from
        .syscalls
        .iter()
        .fold(0, |sum: usize, rule| sum.saturating_add(cases(rule)))
        > CASES_MAX
    {
        let why = format!("names and their conditions are over the limit of {CASES_MAX}");
        return Err(refuse("syscalls", why));
    }
    let rules = (0..)
        .zip(&from.syscalls)
        .map(|(at, rule)| read_rule(at, rule))
        .collect::<Result<Vec<_>, _>>()?;
    let notifies = rules.iter().any(|rule| rule.action == ret::USER_NOTIF);
    if notifies && from.listener_path.is_empty() {
        return Err(refuse(
            "listenerPath",
            "it is empty, and SCMP_ACT_NOTIFY needs a listener",
        ));
    }
    Ok(Profile {
        default,
        architectures: architectures(&from.architectures, native)?,
        rules,
        flags: flags(from, notifies)?,
    })
}

fn architectures(names: &[String], native: Arch) -> Result<Vec<Arch>, Failure> {
    let mut all = vec![native];
    for name in names {
        match Arch::named(name) {
            Some(Listed::Ours(arch)) if !all.contains(&arch) => all.push(arch),
            // A call of a foreign architecture is killed as any that is not listed; it cannot come here.
            Some(_) => {}
            None => {
                return Err(refuse(
                    "architectures",
                    format!("{name:?} is no architecture; write SCMP_ARCH_X86_64 and the like"),
                ));
            }
        }
    }
    Ok(all)
}

fn flags(from: &Seccomp, notifies: bool) -> Result<u32, Failure> {
    let mut all = if notifies { words::NEW_LISTENER } else { 0 };
    let Some(names) = &from.flags else {
        // As runc: without it, processes under a filter lose the speculation of store bypasses on older kernels.
        return Ok(all | words::SPEC_ALLOW);
    };
    for name in names {
        match words::FLAGS.iter().find(|(known, _)| known == name) {
            // One thread loads the filter, and exec leaves no other: there is nothing to synchronise. With a listener the kernel refuses both.
            Some((_, words::TSYNC)) => {}
            // The kernel refuses it without a listener, where it means nothing.
            Some((_, words::WAIT_KILLABLE_RECV)) if !notifies => {}
            Some((_, bit)) => all |= bit,
            None => {
                let known = words::FLAGS.map(|(name, _)| name).join(", ");
                return Err(refuse("flags", format!("{name:?} is none of {known}")));
            }
        }
    }
    Ok(all)
}

fn read_rule(at: usize, rule: &Syscall) -> Result<Rule<'_>, Failure> {
    let refuse_here = |field: &str, why: String| refuse(&format!("syscalls[{at}].{field}"), why);
    let action =
        words::action(&rule.action, rule.errno_ret).map_err(|why| refuse_here("action", why))?;
    if rule.names.is_empty() {
        return Err(refuse_here("names", "it is empty".to_owned()));
    }
    for name in &rule.names {
        if !is_name(name) {
            let why = format!("{name:?} cannot be a system call's name");
            return Err(refuse_here("names", why));
        }
        if action == ret::USER_NOTIF && name == "write" {
            // runc and crun refuse the same: the start itself tells its parent of the listener by write(2).
            let why = "SCMP_ACT_NOTIFY cannot be used for the write syscall".to_owned();
            return Err(refuse_here("names", why));
        }
    }
    let conditions = rule
        .args
        .iter()
        .map(|arg| read_condition(arg).map_err(|why| refuse_here("args", why)))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Rule {
        names: &rule.names,
        action,
        alternatives: alternatives(conditions),
    })
}

/// What is shaped like a name but is none here is another kernel's; what is not even that is a mistake or an attack.
fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(plain)
}

fn read_condition(arg: &SyscallArg) -> Result<Condition, String> {
    if arg.index >= ARGUMENTS_MAX {
        return Err(format!("index {} is not in 0..5", arg.index));
    }
    let operator = words::operator(&arg.op).ok_or_else(|| {
        let known = words::OPERATORS.join(", ");
        format!("op {:?} is none of {known}", arg.op)
    })?;
    Ok(Condition {
        argument: arg.index,
        operator,
        value: arg.value,
        second: arg.value_two,
    })
}

/// All must hold; but where two are about one argument, each alone is enough (what runc, and therefore every profile of old, takes it for).
fn alternatives(conditions: Vec<Condition>) -> Vec<Vec<Condition>> {
    let mut seen = [false; ARGUMENTS_MAX as usize];
    let twice = conditions
        .iter()
        .any(|condition| std::mem::replace(&mut seen[condition.argument as usize], true));
    let mut all = if twice {
        conditions.into_iter().map(|one| vec![one]).collect()
    } else {
        vec![conditions]
    };
    for alternative in &mut all {
        // No bit is compared: it always holds.
        let says = |one: &Condition| one.operator != Operator::MaskedEqual || one.value != 0;
        alternative.retain(says);
    }
    // Where nothing is left of one, it holds always, and the others add nothing.
    if all.iter().any(Vec::is_empty) {
        return Vec::new();
    }
    all
}
