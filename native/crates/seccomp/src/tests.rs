//! The compiler against the plain evaluator, over profiles and calls that a seed makes.

mod containers_common;
mod libseccomp;

use crate::arch::{self, Arch};
use crate::default::default_profile;
use crate::oracle::{Call, check, judge, run};
use crate::words::{ACTIONS, OPERATORS};
use crate::{Program, compile_for};
use shoal_protocol::oci::{Seccomp, Syscall, SyscallArg};

/// Docker's 14 capabilities (spec B5).
pub const DOCKER_CAPABILITIES: u64 = 0xa804_25fb;
const KERNEL: (u32, u32) = (6, 18);

/// xorshift64*: enough to choose cases by.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() >> 33).expect("31 bits") % end
    }

    fn one_in(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// Values around which comparisons change their mind.
    fn value(&mut self) -> u64 {
        let near = [
            0,
            1,
            2,
            0x7fff_ffff,
            0x8000_0000,
            0xffff_ffff,
            1 << 32,
            (1 << 32) + 1,
            u64::MAX - 1,
            u64::MAX,
        ];
        match self.below(3) {
            0 => self.next(),
            1 => self.next() % 8,
            _ => self.pick(&near),
        }
    }
}

fn profile(random: &mut Random, names: &[&str]) -> Seccomp {
    let action = |random: &mut Random, errnos: bool| {
        let action = random.pick(&ACTIONS);
        let errno = matches!(action, "SCMP_ACT_ERRNO" | "SCMP_ACT_TRACE") && errnos;
        let errno = errno.then(|| u32::try_from(random.below(200)).expect("small"));
        (action.to_owned(), errno)
    };
    let mut syscalls = Vec::new();
    for _ in 0..random.below(40) {
        let (action, errno_ret) = action(random, true);
        let notify = action == "SCMP_ACT_NOTIFY";
        let args = match random.below(3) {
            0 => random.below(4),
            _ => 0,
        };
        let mut some: Vec<String> = (0..=random.below(12))
            .map(|_| random.pick(names).to_owned())
            .filter(|name| !notify || name != "write")
            .collect();
        if random.one_in(8) || some.is_empty() {
            some.push("not_of_this_kernel".to_owned());
        }
        syscalls.push(Syscall {
            names: some,
            action,
            errno_ret,
            args: (0..args)
                .map(|_| SyscallArg {
                    index: u32::try_from(random.below(6)).expect("small"),
                    value: random.value(),
                    value_two: random.value(),
                    op: random.pick(&OPERATORS).to_owned(),
                })
                .collect(),
        });
    }
    let (mut default_action, mut default_errno_ret) = action(random, true);
    if default_action == "SCMP_ACT_NOTIFY" {
        (default_action, default_errno_ret) = ("SCMP_ACT_ERRNO".to_owned(), None);
    }
    Seccomp {
        default_action,
        default_errno_ret,
        architectures: Arch::ALL
            .iter()
            .filter(|_| random.one_in(2))
            .map(|arch| arch.name().to_owned())
            .collect(),
        listener_path: "/agent".to_owned(),
        syscalls,
        ..Seccomp::default()
    }
}

/// A call that the profile may have an opinion on.
fn call(random: &mut Random, profile: &Seccomp, names: &[&str]) -> Call {
    let arch = random.pick(&Arch::ALL);
    let named = match random.below(4) {
        0 => Some(random.pick(names).to_owned()),
        1 => Some(random.pick(&["socketcall", "ipc"]).to_owned()),
        _ if profile.syscalls.is_empty() => None,
        _ => Some(profile.syscalls[random.below(profile.syscalls.len())].names[0].clone()),
    };
    let number = named
        .and_then(|name| arch::Numbers::of(&name))
        .and_then(|numbers| numbers.on(arch))
        .unwrap_or_else(|| u32::try_from(random.below(600)).expect("small"));
    let number = match random.below(12) {
        0 => number ^ arch::X32_BIT,
        1 => random.pick(&[u32::MAX, 0, 1 << 31, arch::X32_BIT, arch::ARM_PRIVATE, 999]),
        2 => number + 1,
        _ => number,
    };
    let values: Vec<u64> = profile
        .syscalls
        .iter()
        .flat_map(|rule| &rule.args)
        .flat_map(|arg| {
            [
                arg.value,
                arg.value_two & arg.value,
                arg.value.wrapping_add(1),
                arg.value.wrapping_sub(1),
            ]
        })
        .collect();
    let argument = |random: &mut Random| match random.below(3) {
        0 if !values.is_empty() => random.pick(&values),
        1 => random.next() % 25,
        _ => random.value(),
    };
    Call {
        arch: if random.one_in(40) {
            0xdead
        } else {
            arch.audit()
        },
        number,
        arguments: std::array::from_fn(|_| argument(random)),
    }
}

fn compiled(profile: &Seccomp, native: Arch) -> Program {
    let program = compile_for(profile, native).expect("a valid profile");
    check(&program.instructions).expect("a program that the kernel takes");
    program
}

#[test]
fn compile_says_what_the_plain_evaluator_says() {
    let names: Vec<&str> = arch::names().collect();
    // Few names, so that rules meet on the same call.
    let few = [
        "read",
        "write",
        "socket",
        "accept",
        "shmget",
        "clone",
        "mkdir",
        "set_tls",
        "socketcall",
        "ipc",
        "clone3",
        "mseal",
    ];
    let (mut random, mut too_long) = (Random(0x5ea1), 0);
    for round in 0..1000 {
        let names = if round % 2 == 0 { &few[..] } else { &names[..] };
        let profile = profile(&mut random, names);
        let native = random.pick(&[Arch::X86_64, Arch::Aarch64, Arch::Riscv64]);
        let Ok(program) = compile_for(&profile, native) else {
            // Its conditions are over 4096 instructions.
            too_long += 1;
            continue;
        };
        check(&program.instructions).expect("a program that the kernel takes");
        for _ in 0..60 {
            let call = call(&mut random, &profile, names);
            let (got, _) = run(&program.instructions, &call);
            let want = judge(&profile, native, &call);
            assert_eq!(got, want, "round {round}, {call:x?}, {profile:?}");
        }
    }
    assert!(
        too_long < 100,
        "{too_long} profiles were too long to say anything"
    );
}

#[test]
fn a_rule_of_many_names_and_values_needs_long_jumps_and_stays_right() {
    let socket = |value| SyscallArg {
        index: 0,
        value,
        value_two: 0,
        op: "SCMP_CMP_EQ".to_owned(),
    };
    let odd = |value| SyscallArg {
        op: "SCMP_CMP_GT".to_owned(),
        ..socket(value)
    };
    let rule = |name: &str, args| Syscall {
        names: vec![name.to_owned()],
        action: "SCMP_ACT_ALLOW".to_owned(),
        args,
        ..Syscall::default()
    };
    let profile = Seccomp {
        default_action: "SCMP_ACT_ERRNO".to_owned(),
        syscalls: vec![
            rule("socket", (0..600).map(|value| socket(value * 2)).collect()),
            rule("mkdir", (1000..1070).rev().map(odd).collect()),
            rule("write", Vec::new()),
        ],
        ..Seccomp::default()
    };
    let program = compiled(&profile, Arch::X86_64);
    let mut random = Random(7);
    for number in [1, 41, 83, 84, 0, 500] {
        for _ in 0..3000 {
            let mut arguments = [0; 6];
            arguments[0] = random.next() % 1300;
            let call = Call {
                arch: Arch::X86_64.audit(),
                number,
                arguments,
            };
            let got = run(&program.instructions, &call).0;
            assert_eq!(got, judge(&profile, Arch::X86_64, &call), "{call:?}");
        }
    }
}

#[test]
fn the_default_profile_is_short_and_fast() {
    for (native, capabilities) in [
        (Arch::X86_64, DOCKER_CAPABILITIES),
        (Arch::X86_64, u64::MAX),
        (Arch::Aarch64, 0),
    ] {
        let profile = default_profile(capabilities, native, KERNEL);
        let program = compiled(&profile, native);
        let longest = (0..500)
            .map(|number| {
                let call = Call {
                    arch: native.audit(),
                    number,
                    arguments: [0; 6],
                };
                let (got, steps) = run(&program.instructions, &call);
                assert_eq!(got, judge(&profile, native, &call));
                steps
            })
            .max();
        assert!(
            program.instructions.len() < 1000,
            "{}",
            program.instructions.len()
        );
        assert!(longest < Some(50), "{longest:?}");
    }
}

#[test]
fn every_name_of_the_default_profile_is_a_call_of_some_architecture_or_a_known_other() {
    // Of architectures whose tables are not here, or never numbered where profiles name them.
    let others = ["getsid", "fstatat64"];
    for native in Arch::ALL {
        for rule in default_profile(u64::MAX, native, KERNEL).syscalls {
            for name in rule.names {
                assert!(
                    arch::Numbers::of(&name).is_some() || others.contains(&name.as_str()),
                    "{name}"
                );
            }
        }
    }
}

#[test]
fn refusals_name_field_and_value() {
    let rule = |change: fn(&mut Syscall)| {
        let mut rule = Syscall {
            names: vec!["read".to_owned()],
            action: "SCMP_ACT_ALLOW".to_owned(),
            ..Syscall::default()
        };
        change(&mut rule);
        Seccomp {
            default_action: "SCMP_ACT_ERRNO".to_owned(),
            syscalls: vec![rule],
            ..Seccomp::default()
        }
    };
    let whole = |change: fn(&mut Seccomp)| {
        let mut profile = rule(|_| {});
        change(&mut profile);
        profile
    };
    let arg = |index, op: &str| SyscallArg {
        index,
        op: op.to_owned(),
        ..SyscallArg::default()
    };
    let cases = [
        (
            whole(|p| p.default_action = "SCMP_ACT_MAYBE".into()),
            "defaultAction: action \"SCMP_ACT_MAYBE\"",
        ),
        (
            whole(|p| p.default_action = String::new()),
            "defaultAction: action \"\"",
        ),
        (
            whole(|p| p.default_action = "SCMP_ACT_NOTIFY".into()),
            "defaultAction: SCMP_ACT_NOTIFY",
        ),
        (whole(|p| p.default_errno_ret = Some(4096)), "errno 4096"),
        (
            whole(|p| p.architectures = vec!["amd64".into()]),
            "architectures: \"amd64\"",
        ),
        (whole(|p| p.flags = Some(vec!["X".into()])), "flags: \"X\""),
        (
            rule(|r| r.names = vec!["../x".into()]),
            "syscalls[0].names: \"../x\"",
        ),
        (
            rule(|r| r.names = vec![String::new()]),
            "syscalls[0].names: \"\"",
        ),
        (
            rule(|r| r.names = Vec::new()),
            "syscalls[0].names: it is empty",
        ),
        (
            rule(|r| r.names = vec!["a".repeat(65)]),
            "syscalls[0].names",
        ),
        (
            rule(|r| r.names = vec!["read".into(); 20_001]),
            "over the limit of 20000",
        ),
        (
            rule(|r| r.action = "allow".into()),
            "syscalls[0].action: action \"allow\"",
        ),
        (
            rule(|r| r.errno_ret = Some(1)),
            "syscalls[0].action: action \"SCMP_ACT_ALLOW\" takes no errno",
        ),
        (
            rule(|r| r.action = "SCMP_ACT_NOTIFY".into()),
            "listenerPath",
        ),
        (
            rule(|r| (r.action, r.names) = ("SCMP_ACT_NOTIFY".into(), vec!["write".into()])),
            "syscalls[0].names: SCMP_ACT_NOTIFY",
        ),
    ];
    let args = [
        (arg(6, "SCMP_CMP_EQ"), "index 6"),
        (arg(0, "=="), "op \"==\""),
    ]
    .map(|(arg, word)| {
        let mut profile = rule(|_| {});
        profile.syscalls[0].args = vec![arg];
        (profile, word)
    });
    for (profile, word) in cases.into_iter().chain(args) {
        let told = crate::compile(&profile).expect_err(word).to_string();
        assert!(
            told.starts_with("reading linux.seccomp") && told.contains(word),
            "{told:?} should hold {word:?}"
        );
        assert_eq!(told.lines().count(), 1);
    }
    let mut long = rule(|_| {});
    long.syscalls[0].args = (0..1000)
        .map(|value| SyscallArg {
            value: value << 33,
            ..arg(0, "SCMP_CMP_LT")
        })
        .collect();
    let told = crate::compile(&long).expect_err("too long").to_string();
    assert!(told.contains("at most 4096"), "{told}");
}
