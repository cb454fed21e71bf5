//! The system call filter of a configuration (config-linux.md "Seccomp"), before it is compiled.

use super::field::part;

part! {
    /// What happens to each system call; actions, operators and architectures are libseccomp's names (`SCMP_ACT_ERRNO`).
    pub struct Seccomp {
        pub default_action: String,
        /// EPERM when absent.
        pub default_errno_ret: Option<u32>,
        pub architectures: Vec<String>,
        pub flags: Vec<String>,
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

part! {
    /// A condition on one argument; all of a rule's conditions must hold.
    pub struct SyscallArg {
        /// 0..5
        pub index: u32,
        pub value: u64,
        /// The value to compare with under the mask `value`, for `SCMP_CMP_MASKED_EQ`.
        pub value_two: u64,
        pub op: String,
    }
}
