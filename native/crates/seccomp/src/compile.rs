//! A profile as one program: per architecture a binary search over ranges of numbers that are treated alike.

use crate::arch::{ARM_PRIVATE, Arch, Numbers, X32_BIT, multiplexed};
use crate::code::{
    ARCHITECTURE, Assembler, JUMP_AT_LEAST, JUMP_EQUAL, LOAD, NUMBER, RETURN, Target, plain,
};
use crate::conditions;
use crate::profile::{self, Condition, Profile, Rule};
use crate::program::{INSTRUCTIONS_MAX, Program};
use crate::words::{Operator, ret};
use shoal_protocol::Failure;
use shoal_protocol::oci::Seccomp;

const ENOSYS: u32 = 38;
/// A call whose number a tracer has struck out.
const STRUCK_OUT: u32 = u32::MAX;

/// Compiles a profile for this machine. Names that no architecture here has are left out, as libseccomp's callers do.
pub fn compile(profile: &Seccomp) -> Result<Program, Failure> {
    compile_for(profile, Arch::NATIVE)
}

/// Compiles a profile for a machine of architecture `native`, which is always covered; a call of one that is not listed kills its thread.
pub fn compile_for(profile: &Seccomp, native: Arch) -> Result<Program, Failure> {
    let profile = profile::read(profile, native)?;
    let mut compiler = Compiler {
        default: profile.default,
        code: Assembler::default(),
        blocks: Vec::new(),
    };
    // From the end: the architectures are asked for in the profile's order, the native one first.
    let mut next = Target::Return(ret::KILL_THREAD);
    let mut audits: Vec<u32> = profile
        .architectures
        .iter()
        .map(|arch| arch.audit())
        .collect();
    dedup(&mut audits);
    for audit in audits.into_iter().rev() {
        let search = compiler.tree(&ranges(&profile, audit));
        compiler.code.fall_into(search);
        let section = compiler.code.put(&[plain(LOAD, NUMBER)]);
        next = compiler.code.branch(JUMP_EQUAL, audit, section, next);
    }
    compiler.code.put(&[plain(LOAD, ARCHITECTURE)]);
    let instructions = compiler.code.finish();
    if instructions.len() > INSTRUCTIONS_MAX {
        return Err(Failure::invalid(
            "compiling linux.seccomp.syscalls",
            format!(
                "its conditions need {} instructions; the kernel takes at most {INSTRUCTIONS_MAX}",
                instructions.len()
            ),
        ));
    }
    Ok(Program {
        instructions,
        flags: profile.flags,
    })
}

/// Keeps the first of each.
fn dedup(audits: &mut Vec<u32>) {
    let mut seen = Vec::new();
    audits.retain(|audit| {
        let new = !seen.contains(audit);
        seen.push(*audit);
        new
    });
}

/// What happens to a call of some numbers.
#[derive(Debug, Clone, PartialEq)]
enum Treatment {
    Always(u32),
    /// The first alternative that holds; else the default action.
    When {
        alternatives: Vec<(Vec<Condition>, u32)>,
        is_32_bit: bool,
    },
}

/// From this number on, up to the next range's.
type Range = (u32, Treatment);

/// The ranges of everything that reports this AUDIT_ARCH: for x86_64 that is two architectures.
fn ranges(profile: &Profile<'_>, audit: u32) -> Vec<Range> {
    let member = |arch: Arch| profile.architectures.contains(&arch).then_some(arch);
    if audit != Arch::X86_64.audit() {
        let arch = profile
            .architectures
            .iter()
            .find(|arch| arch.audit() == audit);
        return arch.map_or_else(Vec::new, |arch| ranges_of(profile, *arch, 0, None));
    }
    let killed = || vec![(0, Treatment::Always(ret::KILL_THREAD))];
    let mut all =
        member(Arch::X86_64).map_or_else(killed, |arch| ranges_of(profile, arch, 0, Some(X32_BIT)));
    let x32 = match member(Arch::X32) {
        Some(arch) => ranges_of(profile, arch, X32_BIT, None),
        None => vec![
            (X32_BIT, Treatment::Always(ret::KILL_THREAD)),
            // A call that a tracer has struck out is not x32's, though it has the bit.
            (STRUCK_OUT, Treatment::Always(profile.default)),
        ],
    };
    for (start, treatment) in x32 {
        append(&mut all, start, treatment);
    }
    all
}

/// A rule about a number: with its place in the profile, and what the first argument must be where the call is reached through another.
type Entry<'a> = (u32, usize, Option<u64>, &'a Rule<'a>);

/// The ranges of one architecture, from number `first` up to below `end`.
fn ranges_of(profile: &Profile<'_>, arch: Arch, first: u32, end: Option<u32>) -> Vec<Range> {
    let mut entries: Vec<Entry<'_>> = Vec::new();
    for (order, rule) in profile.rules.iter().enumerate() {
        for name in rule.names {
            if let Some(number) = Numbers::of(name).and_then(|numbers| numbers.on(arch)) {
                entries.push((number, order, None, rule));
            }
            if let Some((through, call)) = multiplexed(arch, name)
                && let Some(number) = Numbers::of(through).and_then(|numbers| numbers.on(arch))
            {
                entries.push((number, order, Some(call), rule));
            }
        }
    }
    // Stable in the profile's order, which decides between rules of one call.
    entries.sort_by_key(|(number, order, ..)| (*number, *order));
    let newest = newest(profile, entries.iter().map(|(number, ..)| *number));
    // A call that is newer than everything the profile names was not known to its author: the program is told that
    // the kernel lacks it, and falls back, instead of EPERM, which it would take for an answer (runc does the same).
    let unnamed = |number: u32| match newest {
        Some(newest) if number > newest => Treatment::Always(ret::ERRNO | ENOSYS),
        _ => Treatment::Always(profile.default),
    };
    let mut all = vec![(first, unnamed(first))];
    let mut next_start = newest.map(|newest| newest + 1);
    for group in entries.chunk_by(|one, other| one.0 == other.0) {
        let number = group[0].0;
        if let Some(start) = next_start.filter(|start| *start <= number) {
            append(&mut all, start, unnamed(start));
            next_start = None;
        }
        append(&mut all, number, treatment(profile, arch, group));
        append(&mut all, number + 1, unnamed(number + 1));
    }
    if let Some(start) = next_start.filter(|start| end.is_none_or(|end| *start < end)) {
        append(&mut all, start, unnamed(start));
    }
    all
}

/// The highest number that the profile names; `None` where an unknown call shall not be told as missing.
fn newest(profile: &Profile<'_>, numbers: impl Iterator<Item = u32>) -> Option<u32> {
    if matches!(
        profile.default & ret::ACTION,
        ret::ALLOW | ret::LOG | ret::TRACE
    ) {
        return None;
    }
    // arm's private calls are not new: they have always been far above.
    numbers
        .filter(|number| *number < ARM_PRIVATE || *number >= X32_BIT)
        .max()
}

fn treatment(profile: &Profile<'_>, arch: Arch, group: &[Entry<'_>]) -> Treatment {
    let mut alternatives = Vec::new();
    for (_, _, call, rule) in group {
        // What says the default says nothing (libseccomp refuses such rules, its callers skip them).
        if rule.action == profile.default {
            continue;
        }
        match call {
            None if rule.alternatives.is_empty() => return Treatment::Always(rule.action),
            None => alternatives.extend(
                rule.alternatives
                    .iter()
                    .map(|conditions| (conditions.clone(), rule.action)),
            ),
            // The arguments are behind a pointer that no filter can follow. Where the rule forbids, all is forbidden;
            // where it allows some, nothing is allowed this way (libseccomp would allow all of it).
            Some(call) => {
                let allows = rule.action >= ret::TRACE && rule.action < ret::KILL_PROCESS;
                if rule.alternatives.is_empty() || !allows {
                    alternatives.push((vec![equal(0, *call)], rule.action));
                }
            }
        }
    }
    if alternatives.is_empty() {
        return Treatment::Always(profile.default);
    }
    Treatment::When {
        alternatives,
        is_32_bit: arch.is_32_bit(),
    }
}

fn equal(argument: u32, value: u64) -> Condition {
    Condition {
        argument,
        operator: Operator::Equal,
        value,
        second: 0,
    }
}

/// Appends a range, over what was said of the same start, and joined with the one before when alike.
fn append(all: &mut Vec<Range>, start: u32, treatment: Treatment) {
    if all.last().is_some_and(|(last, _)| *last == start) {
        all.pop();
    }
    if all.last().is_none_or(|(_, before)| *before != treatment) {
        all.push((start, treatment));
    }
}

/// A program under way.
struct Compiler {
    default: u32,
    code: Assembler,
    /// Conditions that are already written: x86_64 and x32 have theirs in common.
    blocks: Vec<(Treatment, Target)>,
}

impl Compiler {
    /// Binary search: the accumulator holds the number.
    fn tree(&mut self, ranges: &[Range]) -> Target {
        match ranges {
            [] => Target::Return(self.default),
            [(_, treatment)] => self.leaf(treatment),
            _ => {
                let (below, above) = ranges.split_at(ranges.len() / 2);
                let start = above[0].0;
                let (above, below) = (self.tree(above), self.tree(below));
                self.code.branch(JUMP_AT_LEAST, start, above, below)
            }
        }
    }

    fn leaf(&mut self, treatment: &Treatment) -> Target {
        let (alternatives, is_32_bit) = match treatment {
            Treatment::Always(action) => return Target::Return(*action),
            Treatment::When {
                alternatives,
                is_32_bit,
            } => (alternatives, *is_32_bit),
        };
        if let Some((_, written)) = self.blocks.iter().find(|(known, _)| known == treatment) {
            return *written;
        }
        let mut code = Vec::new();
        // Tests of one argument for equality with one outcome, as profiles have them for socket families, share their loads.
        for run in alternatives.chunk_by(same_test) {
            let (conditions, action) = &run[0];
            if run.len() == 1 {
                conditions::alternative(conditions, *action, is_32_bit, &mut code);
                continue;
            }
            let values: Vec<u64> = run.iter().map(|(one, _)| one[0].value).collect();
            for values in values.chunks(conditions::VALUES_MAX) {
                let argument = conditions[0].argument;
                conditions::one_of(argument, values, *action, is_32_bit, &mut code);
            }
        }
        code.push(plain(RETURN, self.default));
        let written = self.code.put(&code);
        self.blocks.push((treatment.clone(), written));
        written
    }
}

/// Whether two alternatives differ only in the lower word that one argument must equal.
fn same_test(one: &(Vec<Condition>, u32), other: &(Vec<Condition>, u32)) -> bool {
    match (one.0.as_slice(), other.0.as_slice()) {
        ([first], [second]) => {
            one.1 == other.1
                && first.operator == Operator::Equal
                && second.operator == Operator::Equal
                && first.argument == second.argument
                && first.value >> 32 == second.value >> 32
        }
        _ => false,
    }
}
