//! Classic BPF as far as filters need it: the instructions by name, and an assembler that writes from the end, where every target of a jump is known.

use libc::sock_filter;

// <linux/bpf_common.h>
pub const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
pub const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
pub const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
pub const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
pub const JUMP_GREATER: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
pub const JUMP_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
pub const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// Offsets in struct seccomp_data, little-endian.
pub const NUMBER: u32 = 0;
pub const ARCHITECTURE: u32 = 4;
pub const ARGUMENTS: u32 = 16;

/// Farthest that a conditional jump reaches (u8), less what may have to be put in between for its own sake.
const NEAR: usize = 250;

pub fn plain(code: u16, k: u32) -> sock_filter {
    jump(code, k, 0, 0)
}

pub fn jump(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

/// Where a jump goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// To a return of this value; there may be several, the nearest is taken.
    Return(u32),
    /// To an instruction, counted from the end.
    At(usize),
}

/// A program, last instruction first.
#[derive(Debug, Default)]
pub struct Assembler {
    reversed: Vec<sock_filter>,
    /// (value, its latest return)
    returns: Vec<(u32, usize)>,
}

impl Assembler {
    /// Instructions so far.
    pub fn len(&self) -> usize {
        self.reversed.len()
    }

    /// Puts code, written forwards, before all there is.
    pub fn put(&mut self, code: &[sock_filter]) -> Target {
        self.reversed.extend(code.iter().rev());
        Target::At(self.len() - 1)
    }

    /// A jump on the accumulator, with targets behind it.
    pub fn branch(&mut self, code: u16, k: u32, yes: Target, no: Target) -> Target {
        let yes = self.near(yes);
        let no = self.near(no);
        // What `no` needed has moved `yes` by one at most.
        let over = |at: usize| u8::try_from(self.len() - 1 - at).expect("the target was made near");
        let instruction = jump(code, k, over(yes), over(no));
        self.put(&[instruction])
    }

    /// An instruction within reach that is the target or leads to it.
    fn near(&mut self, target: Target) -> usize {
        let wanted = match target {
            Target::At(at) => Some(at),
            Target::Return(value) => {
                let known = self.returns.iter().find(|(known, _)| *known == value);
                known.map(|(_, at)| *at)
            }
        };
        let here = self.len();
        match (wanted, target) {
            (Some(at), _) if here - at <= NEAR => return at,
            (_, Target::Return(value)) => {
                self.reversed.push(plain(RETURN, value));
                self.returns.retain(|(known, _)| *known != value);
                self.returns.push((value, here));
            }
            (_, Target::At(at)) => {
                let over =
                    u32::try_from(here - 1 - at).expect("code is far below 2^32 instructions");
                self.reversed.push(plain(JUMP, over));
            }
        }
        here
    }

    /// Makes the next instruction written before all there is fall into the target.
    pub fn fall_into(&mut self, target: Target) {
        if target == Target::At(self.len().wrapping_sub(1)) {
            return;
        }
        match target {
            Target::At(at) => {
                let over = u32::try_from(self.len() - 1 - at)
                    .expect("code is far below 2^32 instructions");
                self.reversed.push(plain(JUMP, over));
            }
            Target::Return(value) => self.reversed.push(plain(RETURN, value)),
        }
    }

    /// The program, first instruction first.
    pub fn finish(mut self) -> Vec<sock_filter> {
        self.reversed.reverse();
        self.reversed
    }
}
