//! The system call filter of a configuration (config-linux.md "Seccomp"), before it is compiled.

use super::field::{Field, part, wrapping};
use serde::{Deserialize, Deserializer, Serialize};

part! {
    /// What happens to each system call; actions, operators and architectures are libseccomp's names (`SCMP_ACT_ERRNO`).
    pub struct Seccomp {
        pub default_action: String,
        /// EPERM when absent.
        pub default_errno_ret: Option<u32>,
        pub architectures: Vec<String>,
        /// runc chooses flags of its own only when there are none, not when the list is empty.
        pub flags: Option<Vec<String>>,
        /// Socket that gets the notify descriptor.
        pub listener_path: String,
        pub listener_metadata: String,
        pub syscalls: Vec<Syscall>,
    }
}

part! {
    /// One rule for several system calls.
    pub struct Syscall {
        pub names: Vec<String>,
        pub action: String,
        pub errno_ret: Option<u32>,
        pub args: Vec<SyscallArg>,
    }
}

/// A condition on one argument; all of a rule's conditions must hold. A negative value is its two's complement.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SyscallArg {
    /// 0..5
    pub index: u32,
    #[serde(deserialize_with = "wrapping")]
    pub value: u64,
    /// The value to compare with under the mask `value`, for `SCMP_CMP_MASKED_EQ`.
    #[serde(deserialize_with = "wrapping")]
    pub value_two: u64,
    pub op: String,
}

crate::packed::packed!(SyscallArg {
    index,
    value,
    value_two,
    op
});

impl Field for SyscallArg {
    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::deserialize(from)
    }
}
