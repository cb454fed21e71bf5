//! A compiled filter: the instructions as the kernel takes them, and the flags to load it with.

use crate::words;

/// Longest program the kernel takes (BPF_MAXINSNS of <linux/bpf_common.h>).
pub const INSTRUCTIONS_MAX: usize = 4096;

/// One filter, ready to load.
#[derive(Debug, Clone)]
pub struct Program {
    pub instructions: Vec<libc::sock_filter>,
    /// SECCOMP_FILTER_FLAG_*, with NEW_LISTENER when a rule notifies.
    pub flags: u32,
}

impl Program {
    /// Whether loading gives a descriptor that somebody must listen on.
    pub fn notifies(&self) -> bool {
        self.flags & words::NEW_LISTENER != 0
    }
}

impl PartialEq for Program {
    fn eq(&self, other: &Self) -> bool {
        let plain = |one: &libc::sock_filter| (one.code, one.jt, one.jf, one.k);
        self.flags == other.flags
            && self.instructions.len() == other.instructions.len()
            && self
                .instructions
                .iter()
                .map(plain)
                .eq(other.instructions.iter().map(plain))
    }
}

impl Eq for Program {}
