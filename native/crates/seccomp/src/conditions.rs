//! Conditions on 64-bit arguments as instructions: the upper word decides first, the lower one only where that is undecided.

use crate::code::{
    AND, ARGUMENTS, JUMP_AT_LEAST, JUMP_EQUAL, JUMP_GREATER, LOAD, RETURN, jump, plain,
};
use crate::profile::Condition;
use crate::words::Operator;

/// Where a jump of a comparison goes, until its length is known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    /// The instruction after this one.
    Next,
    /// The condition holds: on to what follows the comparison.
    Holds,
    /// It does not: on to the next alternative.
    Fails,
}

/// A comparison's instruction; those that do not jump have `Next` twice.
struct Step {
    code: u16,
    k: u32,
    jt: To,
    jf: To,
}

/// Appends: return `action` when all conditions hold, else go on behind. At most 6 conditions of at most 6 instructions: every jump is short.
pub fn alternative(
    conditions: &[Condition],
    action: u32,
    is_32_bit: bool,
    out: &mut Vec<libc::sock_filter>,
) {
    let blocks: Vec<Vec<Step>> = conditions
        .iter()
        .map(|condition| comparison(condition, is_32_bit))
        .collect();
    let mut left: usize = blocks.iter().map(Vec::len).sum();
    for block in blocks {
        let length = block.len();
        for (at, step) in block.into_iter().enumerate() {
            let to = |to: To| {
                let over = match to {
                    To::Next => 0,
                    To::Holds => length - at - 1,
                    // Over the rest and the return.
                    To::Fails => left - at,
                };
                u8::try_from(over).expect("an alternative is shorter than a short jump")
            };
            let instruction = match step.code {
                LOAD | AND => plain(step.code, step.k),
                code => jump(code, step.k, to(step.jt), to(step.jf)),
            };
            out.push(instruction);
        }
        left -= length;
    }
    out.push(plain(RETURN, action));
}

/// Most values that one run of jumps tests, so that the first one still reaches the return.
pub const VALUES_MAX: usize = 250;

/// Appends: return `action` when the argument equals one of the values, whose upper words are alike; else go on behind. At most VALUES_MAX.
pub fn one_of(
    argument: u32,
    values: &[u64],
    action: u32,
    is_32_bit: bool,
    out: &mut Vec<libc::sock_filter>,
) {
    let low = ARGUMENTS + argument * 8;
    let short =
        |over: usize| u8::try_from(over).expect("a run of values is shorter than a short jump");
    if !is_32_bit {
        let (upper, _) = words(values[0]);
        out.push(plain(LOAD, low + 4));
        // Over the load, the tests and the return.
        out.push(jump(JUMP_EQUAL, upper, 0, short(values.len() + 2)));
    }
    out.push(plain(LOAD, low));
    for (left, value) in (0..values.len()).rev().zip(values) {
        let (_, lower) = words(*value);
        out.push(jump(JUMP_EQUAL, lower, short(left), u8::from(left == 0)));
    }
    out.push(plain(RETURN, action));
}

fn comparison(condition: &Condition, is_32_bit: bool) -> Vec<Step> {
    use To::{Fails, Holds, Next};
    let low = ARGUMENTS + condition.argument * 8;
    let (upper, lower) = words(condition.value);
    let step = |code, k, jt, jf| Step { code, k, jt, jf };
    let load = |offset| step(LOAD, offset, Next, Next);
    // (what decides on the upper word, what on the lower one)
    let (on_upper, on_lower) = match condition.operator {
        Operator::Equal => (
            vec![step(JUMP_EQUAL, upper, Next, Fails)],
            vec![step(JUMP_EQUAL, lower, Holds, Fails)],
        ),
        Operator::NotEqual => (
            vec![step(JUMP_EQUAL, upper, Next, Holds)],
            vec![step(JUMP_EQUAL, lower, Fails, Holds)],
        ),
        Operator::Greater => (
            vec![
                step(JUMP_GREATER, upper, Holds, Next),
                step(JUMP_EQUAL, upper, Next, Fails),
            ],
            vec![step(JUMP_GREATER, lower, Holds, Fails)],
        ),
        Operator::GreaterOrEqual => (
            vec![
                step(JUMP_GREATER, upper, Holds, Next),
                step(JUMP_EQUAL, upper, Next, Fails),
            ],
            vec![step(JUMP_AT_LEAST, lower, Holds, Fails)],
        ),
        Operator::Less => (
            vec![
                step(JUMP_GREATER, upper, Fails, Next),
                step(JUMP_EQUAL, upper, Next, Holds),
            ],
            vec![step(JUMP_AT_LEAST, lower, Fails, Holds)],
        ),
        Operator::LessOrEqual => (
            vec![
                step(JUMP_GREATER, upper, Fails, Next),
                step(JUMP_EQUAL, upper, Next, Holds),
            ],
            vec![step(JUMP_GREATER, lower, Fails, Holds)],
        ),
        Operator::MaskedEqual => {
            let (want_upper, want_lower) = words(condition.second & condition.value);
            (
                vec![
                    step(AND, upper, Next, Next),
                    step(JUMP_EQUAL, want_upper, Next, Fails),
                ],
                vec![
                    step(AND, lower, Next, Next),
                    step(JUMP_EQUAL, want_lower, Holds, Fails),
                ],
            )
        }
    };
    let mut steps = Vec::with_capacity(6);
    if !is_32_bit {
        steps.push(load(low + 4));
        steps.extend(on_upper);
    }
    steps.push(load(low));
    steps.extend(on_lower);
    steps
}

fn words(value: u64) -> (u32, u32) {
    #[expect(clippy::cast_possible_truncation, reason = "the lower word is wanted")]
    ((value >> 32) as u32, value as u32)
}
