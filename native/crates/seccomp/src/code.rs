//! Classic BPF as far as filters need it: the instructions by name, and trees of jumps of any length.

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

pub type Code = Vec<sock_filter>;

pub fn plain(code: u16, k: u32) -> sock_filter {
    jump(code, k, 0, 0)
}

pub fn jump(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

/// `then` when the accumulator is `k`, what follows when not.
pub fn when_equal(k: u32, then: &Code, out: &mut Code) {
    match u8::try_from(then.len()) {
        Ok(over) => out.push(jump(JUMP_EQUAL, k, 0, over)),
        Err(_) => {
            out.push(jump(JUMP_EQUAL, k, 1, 0));
            out.push(plain(JUMP, length(then)));
        }
    }
    out.extend_from_slice(then);
}

/// `above` when the accumulator is at least `k`, else `below`; both end in a return.
pub fn split(k: u32, below: &Code, above: &Code) -> Code {
    let mut out = Code::with_capacity(below.len() + above.len() + 2);
    match u8::try_from(below.len()) {
        Ok(over) => out.push(jump(JUMP_AT_LEAST, k, over, 0)),
        Err(_) => {
            out.push(jump(JUMP_AT_LEAST, k, 0, 1));
            out.push(plain(JUMP, length(below)));
        }
    }
    out.extend_from_slice(below);
    out.extend_from_slice(above);
    out
}

fn length(code: &Code) -> u32 {
    u32::try_from(code.len()).expect("code is far below 2^32 instructions")
}
