//! Device rules as a BPF program, for control groups v2: assembled by hand, run by the kernel at every open and mknod.

use super::devices::{EVERY_RIGHT, Kind, MAKE, READ, Rule, WRITE};
use crate::sys::bpf::{self, Instruction};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// The kernel's numbers of kinds and rights (<linux/bpf.h>, BPF_DEVCG_*).
const BLOCK: i32 = 1;
const CHAR: i32 = 2;
const KERNEL_MAKE: i32 = 1;
const KERNEL_READ: i32 = 2;
const KERNEL_WRITE: i32 = 4;

/// Operations: class, source and action (<linux/bpf_common.h>, <linux/bpf.h>).
const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xb7;
const MOVE_REGISTER: u8 = 0xbf;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP_UNEQUAL: u8 = 0x55;
const JUMP_EQUAL: u8 = 0x15;
const EXIT: u8 = 0x95;

/// Registers: the verdict, the context (then scratch), and what the program keeps.
const VERDICT: u8 = 0;
const CONTEXT: u8 = 1;
const SCRATCH: u8 = 1;
const KIND: u8 = 2;
/// The rights that are asked for and not yet given.
const RIGHTS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

fn instruction(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction {
        code,
        registers: to | from << 4,
        offset,
        immediate,
    }
}

fn verdict(allow: bool) -> [Instruction; 2] {
    [
        instruction(MOVE, VERDICT, 0, 0, allow.into()),
        instruction(EXIT, 0, 0, 0, 0),
    ]
}

/// The program that allows a request when, for each right in it, the last rule that speaks of it allows. Rules are looked
/// at from the last to the first; what none speaks of is denied.
pub fn assemble(rules: &[Rule]) -> Vec<Instruction> {
    // struct bpf_cgroup_dev_ctx: access_type (rights << 16 | kind), major, minor.
    let mut program = vec![
        instruction(LOAD_WORD, KIND, CONTEXT, 0, 0),
        instruction(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        instruction(LOAD_WORD, MINOR, CONTEXT, 8, 0),
        instruction(MOVE_REGISTER, RIGHTS, KIND, 0, 0),
        instruction(SHIFT_RIGHT, RIGHTS, 0, 0, 16),
        instruction(AND, KIND, 0, 0, 0xffff),
    ];
    for rule in rules.iter().rev() {
        let Some(devices) = rule.devices else {
            // Nothing before this one matters, and the kernel refuses what can never run.
            program.extend(verdict(rule.allow));
            return program;
        };
        let mut block = Vec::new();
        if rule.allow {
            block.push(instruction(AND, RIGHTS, 0, 0, !rights(rule.rights)));
            block.push(instruction(JUMP_UNEQUAL, RIGHTS, 0, 2, 0));
        } else {
            block.push(instruction(MOVE_REGISTER, SCRATCH, RIGHTS, 0, 0));
            block.push(instruction(AND, SCRATCH, 0, 0, rights(rule.rights)));
            block.push(instruction(JUMP_EQUAL, SCRATCH, 0, 2, 0));
        }
        block.extend(verdict(rule.allow));
        let kind = match devices.kind {
            Kind::Block => BLOCK,
            Kind::Char => CHAR,
        };
        let tests: Vec<(u8, i32)> = [
            Some((KIND, kind)),
            devices.major.map(|number| (MAJOR, number.cast_signed())),
            devices.minor.map(|number| (MINOR, number.cast_signed())),
        ]
        .into_iter()
        .flatten()
        .collect();
        for (index, (register, value)) in tests.iter().enumerate() {
            // At most 2 tests and 5 instructions are skipped.
            let skipped = (tests.len() - index - 1 + block.len()) as i16;
            program.push(instruction(JUMP_UNEQUAL, *register, 0, skipped, *value));
        }
        program.extend(block);
    }
    program.extend(verdict(false));
    program
}

fn rights(rights: u8) -> i32 {
    [
        (READ, KERNEL_READ),
        (WRITE, KERNEL_WRITE),
        (MAKE, KERNEL_MAKE),
    ]
    .into_iter()
    .filter(|(right, _)| rights & right != 0)
    .fold(0, |bits, (_, bit)| bits | bit)
}

/// Whether the rules forbid nothing, so that no program is needed.
pub fn allows_everything(rules: &[Rule]) -> bool {
    let last = rules.iter().rposition(|rule| !rule.allow);
    let open = rules
        .iter()
        .rposition(|rule| rule.allow && rule.devices.is_none() && rule.rights == EVERY_RIGHT);
    open > last
}

/// Puts the program in the place of the one the group has, or on a group that has none. Others that were attached by
/// hand stay only until the next change: after it the group has this one alone.
pub fn install(group: BorrowedFd<'_>, rules: &[Rule]) -> io::Result<()> {
    let program = bpf::load_device_program(&assemble(rules))?;
    // Asking needs a right (CAP_BPF) that attaching in a group of one's own may not: then nothing of ours is known there.
    let held = bpf::device_programs(group).unwrap_or_default();
    if let [one] = &held[..] {
        match bpf::attach_device_program(group, program.as_fd(), Some(one.as_fd())) {
            // Kernels before 5.6 cannot replace; the order below is closed on its own.
            Err(error) if crate::sys::is(&error, libc::EINVAL) => {}
            other => return other,
        }
    }
    // Every attached program must allow: with the new one before the old ones go, nothing is ever open that must not be.
    bpf::attach_device_program(group, program.as_fd(), None)?;
    for old in held {
        bpf::detach_device_program(group, old.as_fd())?;
    }
    Ok(())
}

/// Whether this process may load device programs.
pub fn available() -> bool {
    bpf::load_device_program(&verdict(true)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::super::devices::{rules, tests::rule};
    use super::*;
    use shoal_protocol::oci::DeviceRule;

    /// Runs a program on one request: an interpreter of just the operations above.
    fn run(program: &[Instruction], kind: i32, bits: i32, major: u32, minor: u32) -> bool {
        let context = [(bits << 16 | kind).cast_unsigned(), major, minor];
        let mut registers = [0u64; 11];
        let mut at = 0;
        for _ in 0..program.len() {
            let now = program[at];
            let (to, from) = (
                usize::from(now.registers & 15),
                usize::from(now.registers >> 4),
            );
            let immediate = i64::from(now.immediate).cast_unsigned();
            let mut jump = false;
            match now.code {
                LOAD_WORD => {
                    registers[to] = context[usize::try_from(now.offset / 4).expect("a word")].into()
                }
                MOVE => registers[to] = immediate,
                MOVE_REGISTER => registers[to] = registers[from],
                AND => registers[to] &= immediate,
                SHIFT_RIGHT => registers[to] >>= immediate,
                JUMP_UNEQUAL => jump = registers[to] != immediate,
                JUMP_EQUAL => jump = registers[to] == immediate,
                EXIT => return registers[0] == 1,
                other => panic!("an operation {other:#x} that no program of ours has"),
            }
            at += 1;
            if jump {
                at += usize::try_from(now.offset).expect("forward only");
            }
        }
        panic!("the program does not end");
    }

    /// What the rules mean, said in the plainest way.
    fn meant(rules: &[Rule], kind: Kind, asked: u8, major: u32, minor: u32) -> bool {
        [READ, WRITE, MAKE]
            .into_iter()
            .filter(|right| asked & right != 0)
            .all(|right| {
                rules
                    .iter()
                    .rev()
                    .find(|rule| {
                        rule.rights & right != 0
                            && rule.devices.is_none_or(|devices| {
                                devices.kind == kind
                                    && devices.major.is_none_or(|number| number == major)
                                    && devices.minor.is_none_or(|number| number == minor)
                            })
                    })
                    .is_some_and(|rule| rule.allow)
            })
    }

    fn sets() -> Vec<Vec<DeviceRule>> {
        let deny = rule(false, "a", (-1, -1), "rwm");
        vec![
            vec![],
            vec![deny.clone()],
            vec![rule(true, "a", (-1, -1), "rwm")],
            vec![
                rule(true, "a", (-1, -1), "rwm"),
                rule(false, "b", (8, -1), "w"),
            ],
            vec![deny.clone(), rule(true, "c", (10, 229), "rw")],
            vec![
                rule(true, "c", (5, -1), "rwm"),
                rule(false, "c", (5, 4), "w"),
            ],
            vec![
                rule(true, "b", (8, 0), "r"),
                rule(true, "b", (8, 0), "w"),
                rule(false, "b", (-1, 0), "m"),
            ],
            vec![rule(true, "c", (10, 229), "rw"), deny],
        ]
    }

    #[test]
    fn assemble_means_what_the_rules_mean() {
        let mut checked = 0;
        for configured in sets() {
            let rules = rules(&configured).expect("rules");
            let program = assemble(&rules);
            for kind in [Kind::Char, Kind::Block] {
                let number = if kind == Kind::Char { CHAR } else { BLOCK };
                for asked in 1..=EVERY_RIGHT {
                    for major in [1, 5, 7, 8, 10, 136, 4095] {
                        for minor in [0, 3, 4, 9, 229, 0xf_ffff] {
                            assert_eq!(
                                run(&program, number, rights(asked), major, minor),
                                meant(&rules, kind, asked, major, minor),
                                "{configured:?}: {kind:?} {major}:{minor} {asked:#b}"
                            );
                            checked += 1;
                        }
                    }
                }
            }
        }
        assert_eq!(checked, sets().len() * 2 * 7 * 7 * 6);
    }

    #[test]
    fn allows_everything_only_when_nothing_is_forbidden_after() {
        let all: Vec<bool> = sets()
            .iter()
            .map(|configured| allows_everything(&rules(configured).expect("rules")))
            .collect();
        assert_eq!(all, [false, false, true, false, false, false, false, false]);
    }
}
