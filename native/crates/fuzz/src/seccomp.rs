//! Profiles: parsed, compiled, checked as the kernel checks, and run beside the plain evaluator.

use crate::is_one_line;
use shoal_protocol::oci::{Seccomp, Syscall, SyscallArg, parse};
use shoal_seccomp::arch::{Numbers, names};
use shoal_seccomp::oracle::{Call, check, judge, run};
use shoal_seccomp::words::{ACTIONS, OPERATORS};
use shoal_seccomp::{Arch, compile_for};

/// Few rules and numbers: what they do to each other shows in a handful, and the plain evaluator is slow.
const RULES_MAX: usize = 12;
const NUMBERS_MAX: usize = 40;

/// A profile as text.
pub fn seccomp_json(bytes: &[u8]) {
    match parse::<Seccomp>("config.json", bytes) {
        Ok(profile) => compare(&profile, &[0, 1, 59, 0x4000_0001, u32::MAX], [0; 6]),
        Err(failure) => is_one_line(&failure),
    }
}

/// A profile made of the bytes, so that every input is a valid one.
pub fn seccomp_rules(bytes: &[u8]) {
    let mut from = Bytes(bytes);
    let arguments = std::array::from_fn(|_| from.wide());
    let (default_action, default_errno_ret) = from.action();
    let architectures = Arch::ALL
        .iter()
        .filter(|_| from.byte() % 2 == 0)
        .map(|arch| arch.name().to_owned())
        .collect();
    let known: Vec<&str> = names().collect();
    let mut profile = Seccomp {
        default_action,
        default_errno_ret,
        architectures,
        listener_path: "/agent".to_owned(),
        ..Seccomp::default()
    };
    let mut numbers = vec![u32::from(from.byte()) * 5, u32::MAX];
    while !from.0.is_empty() && profile.syscalls.len() < RULES_MAX {
        let (action, errno_ret) = from.action();
        let some: Vec<String> = (0..=from.byte() % 4)
            .map(|_| known[usize::from(from.byte()) * 2 % known.len()].to_owned())
            .collect();
        for name in &some {
            let of = |arch| Numbers::of(name).and_then(|numbers| numbers.on(arch));
            numbers.extend(
                Arch::ALL
                    .into_iter()
                    .filter_map(of)
                    .flat_map(|number| [number, number + 1]),
            );
        }
        let args = (0..from.byte() % 4)
            .map(|_| {
                let (which, op) = (from.byte(), from.byte());
                // Values meet the call's own arguments, give or take one.
                let value = match which % 3 {
                    0 => from.wide(),
                    1 => arguments[usize::from(which) % 6],
                    _ => arguments[usize::from(which) % 6].wrapping_add(1),
                };
                SyscallArg {
                    index: u32::from(which) % 6,
                    value,
                    value_two: if op % 2 == 0 {
                        arguments[usize::from(which) % 6]
                    } else {
                        from.wide()
                    },
                    op: OPERATORS[usize::from(op) % OPERATORS.len()].to_owned(),
                }
            })
            .collect();
        profile.syscalls.push(Syscall {
            names: some,
            action,
            errno_ret,
            args,
        });
    }
    numbers.sort_unstable();
    numbers.dedup();
    let step = numbers.len().div_ceil(NUMBERS_MAX);
    let some: Vec<u32> = numbers.into_iter().step_by(step).collect();
    compare(&profile, &some, arguments);
}

fn compare(profile: &Seccomp, numbers: &[u32], arguments: [u64; 6]) {
    for native in [Arch::X86_64, Arch::Aarch64] {
        let program = match compile_for(profile, native) {
            Ok(program) => program,
            Err(failure) => return is_one_line(&failure),
        };
        check(&program.instructions).expect("a program that the kernel takes");
        for arch in [Arch::X86_64, Arch::X86, Arch::Aarch64, Arch::Arm] {
            for number in numbers {
                let call = Call {
                    arch: arch.audit(),
                    number: *number,
                    arguments,
                };
                let (got, _) = run(&program.instructions, &call);
                assert_eq!(
                    got,
                    judge(profile, native, &call),
                    "{call:x?} of {profile:?}"
                );
            }
        }
    }
}

/// Bytes to choose by; zeroes when they are used up.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    /// A number around where upper and lower words meet.
    fn wide(&mut self) -> u64 {
        let (shape, low) = (self.byte(), u64::from(self.byte()));
        match shape % 4 {
            0 => low,
            1 => low << 32 | u64::from(self.byte()),
            2 => u64::MAX - low,
            _ => 0xffff_ffff - low % 2 + low / 2,
        }
    }

    fn action(&mut self) -> (String, Option<u32>) {
        let action = ACTIONS[usize::from(self.byte()) % ACTIONS.len()];
        let errno =
            matches!(action, "SCMP_ACT_ERRNO" | "SCMP_ACT_TRACE").then(|| u32::from(self.byte()));
        (action.to_owned(), errno)
    }
}
