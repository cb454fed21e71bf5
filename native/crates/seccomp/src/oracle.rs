//! What filters are judged by: an interpreter of classic BPF that also checks what the kernel checks, and a plain evaluator of profiles that shares no code with the compiler.

use crate::arch::{Arch, Numbers, multiplexed};
use shoal_protocol::oci::{Seccomp, SyscallArg};

/// What the kernel shows a filter (struct seccomp_data).
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// AUDIT_ARCH_*
    pub arch: u32,
    pub number: u32,
    pub arguments: [u64; 6],
}

impl Call {
    fn word(&self, offset: u32) -> u32 {
        let mut data = [0u8; 64];
        data[0..4].copy_from_slice(&self.number.to_le_bytes());
        data[4..8].copy_from_slice(&self.arch.to_le_bytes());
        for (at, argument) in self.arguments.iter().enumerate() {
            data[16 + at * 8..24 + at * 8].copy_from_slice(&argument.to_le_bytes());
        }
        let at = offset as usize;
        u32::from_le_bytes([data[at], data[at + 1], data[at + 2], data[at + 3]])
    }
}

/// What the kernel's bpf_check_classic and seccomp_check_filter ask of a program; the failing instruction, if any.
pub fn check(code: &[libc::sock_filter]) -> Result<(), String> {
    if code.is_empty() || code.len() > 4096 {
        return Err(format!("{} instructions", code.len()));
    }
    for (at, one) in code.iter().enumerate() {
        let inside = |over: usize| at + 1 + over < code.len();
        let good = match one.code {
            0x20 => one.k < 64 && one.k % 4 == 0,
            0x54 => true,
            0x06 => true,
            0x05 => inside(one.k as usize),
            0x15 | 0x25 | 0x35 | 0x45 => inside(one.jt.into()) && inside(one.jf.into()),
            _ => false,
        };
        if !good {
            return Err(format!("instruction {at}: {one:?}"));
        }
    }
    match code.last() {
        Some(last) if last.code == 0x06 => Ok(()),
        _ => Err("the end is no return".to_owned()),
    }
}

/// Runs a checked program; the value it returns and the instructions that took.
pub fn run(code: &[libc::sock_filter], call: &Call) -> (u32, usize) {
    let (mut at, mut a, mut steps) = (0, 0u32, 0);
    loop {
        let one = code[at];
        steps += 1;
        at += 1;
        let over = |holds: bool| usize::from(if holds { one.jt } else { one.jf });
        match one.code {
            0x20 => a = call.word(one.k),
            0x54 => a &= one.k,
            0x06 => return (one.k, steps),
            0x05 => at += one.k as usize,
            0x15 => at += over(a == one.k),
            0x25 => at += over(a > one.k),
            0x35 => at += over(a >= one.k),
            0x45 => at += over(a & one.k != 0),
            other => unreachable!("check has refused {other:#x}"),
        }
    }
}

/// What a valid profile says of a call, worked out rule by rule.
pub fn judge(profile: &Seccomp, native: Arch, call: &Call) -> u32 {
    const KILL_THREAD: u32 = 0;
    let default = value(&profile.default_action, profile.default_errno_ret);
    let listed = |arch: Arch| {
        arch == native
            || profile
                .architectures
                .iter()
                .any(|name| name == arch.name() || (name == "SCMP_ARCH_NATIVE" && arch == native))
    };
    let x32 = call.number & 0x4000_0000 != 0;
    let reported: Vec<Arch> = Arch::ALL
        .into_iter()
        .filter(|arch| arch.audit() == call.arch && listed(*arch))
        .collect();
    if reported.is_empty() {
        return KILL_THREAD;
    }
    let arch = if call.arch == Arch::X86_64.audit() {
        let asked = if call.number & 0x8000_0000 != 0 || x32 {
            Arch::X32
        } else {
            Arch::X86_64
        };
        match (listed(asked), call.number) {
            (true, _) => asked,
            (false, u32::MAX) if asked == Arch::X32 => return default,
            (false, _) => return KILL_THREAD,
        }
    } else {
        reported[0]
    };
    verdict(profile, arch, call, default)
}

fn verdict(profile: &Seccomp, arch: Arch, call: &Call, default: u32) -> u32 {
    let on_arch = |name: &str| Numbers::of(name).and_then(|numbers| numbers.on(arch));
    let (mut first, mut newest) = (None, None);
    for rule in &profile.syscalls {
        let action = value(&rule.action, rule.errno_ret);
        for name in &rule.names {
            let through = multiplexed(arch, name)
                .and_then(|(through, asked)| Some((on_arch(through)?, asked)));
            for number in on_arch(name)
                .into_iter()
                .chain(through.map(|(number, _)| number))
            {
                let private = arch == Arch::Arm && number >= 0xf_0000;
                if !private && newest.is_none_or(|newest| newest < number) {
                    newest = Some(number);
                }
            }
            if action == default {
                continue;
            }
            if on_arch(name) == Some(call.number) {
                if always(&rule.args) {
                    return action;
                }
                if first.is_none() && args_hold(&rule.args, arch, call) {
                    first = Some(action);
                }
            }
            if let Some((number, asked)) = through
                && number == call.number
                && first.is_none()
                && low(call.arguments[0]) == asked
                && (always(&rule.args)
                    || !matches!(
                        action & 0xffff_0000,
                        0x7ff0_0000 | 0x7ffc_0000 | 0x7fff_0000
                    ))
            {
                first = Some(action);
            }
        }
    }
    // An unconditional rule behind a conditional one wins, so that the search above went on.
    if let Some(action) = first {
        return action;
    }
    let denies = !matches!(
        default & 0xffff_0000,
        0x7ff0_0000 | 0x7ffc_0000 | 0x7fff_0000
    );
    let named = profile
        .syscalls
        .iter()
        .flat_map(|rule| &rule.names)
        .any(|name| on_arch(name) == Some(call.number));
    match newest {
        Some(newest) if denies && call.number > newest && !named => 0x0005_0000 | 38,
        _ => default,
    }
}

/// No condition, or only ones that compare no bit; one of them is enough where two are about one argument.
fn always(args: &[SyscallArg]) -> bool {
    let empty = |arg: &SyscallArg| arg.op == "SCMP_CMP_MASKED_EQ" && arg.value == 0;
    if doubled(args) {
        args.iter().any(empty)
    } else {
        args.iter().all(empty)
    }
}

fn doubled(args: &[SyscallArg]) -> bool {
    (0..6).any(|index| args.iter().filter(|arg| arg.index == index).count() > 1)
}

fn args_hold(args: &[SyscallArg], arch: Arch, call: &Call) -> bool {
    let mut each = args.iter().map(|arg| holds(arg, arch, call));
    if doubled(args) {
        each.any(|one| one)
    } else {
        each.all(|one| one)
    }
}

fn low(value: u64) -> u64 {
    value & 0xffff_ffff
}

fn holds(arg: &SyscallArg, arch: Arch, call: &Call) -> bool {
    let narrow = |value: u64| {
        if matches!(arch, Arch::X86 | Arch::Arm) {
            low(value)
        } else {
            value
        }
    };
    let have = narrow(call.arguments[arg.index as usize]);
    let (want, second) = (narrow(arg.value), narrow(arg.value_two));
    match arg.op.as_str() {
        "SCMP_CMP_EQ" => have == want,
        "SCMP_CMP_NE" => have != want,
        "SCMP_CMP_LT" => have < want,
        "SCMP_CMP_LE" => have <= want,
        "SCMP_CMP_GT" => have > want,
        "SCMP_CMP_GE" => have >= want,
        "SCMP_CMP_MASKED_EQ" => have & want == second & want,
        other => unreachable!("{other} is no operator"),
    }
}

fn value(action: &str, errno: Option<u32>) -> u32 {
    match action {
        "SCMP_ACT_ALLOW" => 0x7fff_0000,
        "SCMP_ACT_LOG" => 0x7ffc_0000,
        "SCMP_ACT_TRACE" => 0x7ff0_0000 | errno.unwrap_or(1),
        "SCMP_ACT_NOTIFY" => 0x7fc0_0000,
        "SCMP_ACT_ERRNO" => 0x0005_0000 | errno.unwrap_or(1),
        "SCMP_ACT_TRAP" => 0x0003_0000,
        "SCMP_ACT_KILL_PROCESS" => 0x8000_0000,
        _ => 0,
    }
}
