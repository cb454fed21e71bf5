//! Architectures: their names in profiles, their numbers in the kernel, and which system calls they have.

use crate::syscalls::{NO, SYSCALLS};

/// An architecture whose system call table this crate has; all are little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Arch {
    X86_64,
    X86,
    X32,
    Aarch64,
    Arm,
    Riscv64,
    Loongarch64,
}

/// x32 shares x86_64's number in the kernel; its calls have this bit.
pub const X32_BIT: u32 = 0x4000_0000;
/// From here arm has calls of its own, far above the others.
pub const ARM_PRIVATE: u32 = 0x000f_0000;

/// What a profile's name of an architecture stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listed {
    Ours(Arch),
    /// Known, and never reported by a kernel that this binary runs on.
    Foreign,
}

/// Names of architectures that a filter may list and that no kernel we run on can ever report (other tables, other byte order).
const FOREIGN: [&str; 16] = [
    "SCMP_ARCH_M68K",
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PARISC",
    "SCMP_ARCH_PARISC64",
    "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_SH",
    "SCMP_ARCH_SHEB",
];

/// Every name that a profile may list, in the order of the alphabet, for `features`.
pub fn known() -> Vec<&'static str> {
    let mut names: Vec<&str> = Arch::ALL
        .map(Arch::name)
        .into_iter()
        .chain(FOREIGN)
        .collect();
    names.sort_unstable();
    names
}

impl Arch {
    /// In the order of the table's columns.
    pub const ALL: [Self; 7] = [
        Self::X86_64,
        Self::X86,
        Self::X32,
        Self::Aarch64,
        Self::Arm,
        Self::Riscv64,
        Self::Loongarch64,
    ];

    /// What this binary is compiled for.
    pub const NATIVE: Self = if cfg!(target_arch = "aarch64") {
        Self::Aarch64
    } else if cfg!(target_arch = "riscv64") {
        Self::Riscv64
    } else if cfg!(target_arch = "loongarch64") {
        Self::Loongarch64
    } else {
        Self::X86_64
    };

    /// The name in a profile.
    pub fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "SCMP_ARCH_X86_64",
            Self::X86 => "SCMP_ARCH_X86",
            Self::X32 => "SCMP_ARCH_X32",
            Self::Aarch64 => "SCMP_ARCH_AARCH64",
            Self::Arm => "SCMP_ARCH_ARM",
            Self::Riscv64 => "SCMP_ARCH_RISCV64",
            Self::Loongarch64 => "SCMP_ARCH_LOONGARCH64",
        }
    }

    /// The architecture of a profile's name; `None` when there is no such name.
    pub fn named(name: &str) -> Option<Listed> {
        match Self::ALL.into_iter().find(|arch| arch.name() == name) {
            Some(arch) => Some(Listed::Ours(arch)),
            None if name == "SCMP_ARCH_NATIVE" => Some(Listed::Ours(Self::NATIVE)),
            None if FOREIGN.contains(&name) => Some(Listed::Foreign),
            None => None,
        }
    }

    /// AUDIT_ARCH_* of <linux/audit.h>, which the kernel puts into seccomp_data.
    pub fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
            Self::Riscv64 => 0xc000_00f3,
            Self::Loongarch64 => 0xc000_0102,
        }
    }

    /// Arguments have 32 bits. Not on x32: the kernel takes whole registers there.
    pub fn is_32_bit(self) -> bool {
        matches!(self, Self::X86 | Self::Arm)
    }

    /// The architectures that a process of this one may switch to (and a default profile therefore covers).
    pub fn companions(self) -> &'static [Self] {
        match self {
            Self::X86_64 => &[Self::X86, Self::X32],
            Self::Aarch64 => &[Self::Arm],
            _ => &[],
        }
    }

    const fn column(self) -> usize {
        self as usize
    }
}

/// The numbers of one system call name.
#[derive(Debug, Clone, Copy)]
pub struct Numbers(&'static [u32; Arch::ALL.len()]);

impl Numbers {
    /// Those of a name; `None` when no architecture has such a call.
    pub fn of(name: &str) -> Option<Self> {
        let at = SYSCALLS.binary_search_by(|(known, _)| (*known).cmp(name));
        at.ok().map(|at| Self(&SYSCALLS[at].1))
    }

    /// The number on one architecture (x32's with its bit).
    pub fn on(self, arch: Arch) -> Option<u32> {
        Some(self.0[arch.column()]).filter(|number| *number != NO)
    }
}

/// Every name this crate knows, sorted.
pub fn names() -> impl Iterator<Item = &'static str> {
    SYSCALLS.iter().map(|(name, _)| *name)
}

/// On x86 these calls are also reached through socketcall(2) or ipc(2): the name of that, and the first argument that asks for it.
pub fn multiplexed(arch: Arch, name: &str) -> Option<(&'static str, u64)> {
    if arch != Arch::X86 {
        return None;
    }
    /// <linux/net.h> SYS_*, from 1 on.
    const SOCKET: [&str; 20] = [
        "socket",
        "bind",
        "connect",
        "listen",
        "accept",
        "getsockname",
        "getpeername",
        "socketpair",
        "send",
        "recv",
        "sendto",
        "recvfrom",
        "shutdown",
        "setsockopt",
        "getsockopt",
        "sendmsg",
        "recvmsg",
        "accept4",
        "recvmmsg",
        "sendmmsg",
    ];
    /// <linux/ipc.h>.
    const IPC: [(&str, u64); 12] = [
        ("semop", 1),
        ("semget", 2),
        ("semctl", 3),
        ("semtimedop", 4),
        ("msgsnd", 11),
        ("msgrcv", 12),
        ("msgget", 13),
        ("msgctl", 14),
        ("shmat", 21),
        ("shmdt", 22),
        ("shmget", 23),
        ("shmctl", 24),
    ];
    if let Some(at) = SOCKET.iter().position(|known| *known == name) {
        return Some(("socketcall", at as u64 + 1));
    }
    IPC.iter()
        .find(|(known, _)| *known == name)
        .map(|(_, call)| ("ipc", *call))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_knows_the_libraries_numbers() {
        assert!(names().zip(names().skip(1)).all(|(one, next)| one < next));
        let on = |name, arch| Numbers::of(name).expect(name).on(arch);
        #[cfg(target_arch = "x86_64")]
        for (name, number) in [
            ("read", libc::SYS_read),
            ("clone3", libc::SYS_clone3),
            ("openat2", libc::SYS_openat2),
            ("seccomp", libc::SYS_seccomp),
            ("mseal", libc::SYS_mseal),
        ] {
            assert_eq!(
                on(name, Arch::X86_64).map(i64::from),
                Some(number),
                "{name}"
            );
        }
        assert_eq!(on("socketcall", Arch::X86), Some(102));
        assert_eq!(on("socketcall", Arch::X86_64), None);
        assert_eq!(on("rt_sigaction", Arch::X32), Some(X32_BIT | 512));
        assert_eq!(on("set_tls", Arch::Arm), Some(ARM_PRIVATE | 5));
        assert!(Numbers::of("nosuchcall").is_none());
    }

    #[test]
    fn named_reads_its_own_names_and_tells_foreign_from_wrong_ones() {
        for arch in Arch::ALL {
            assert_eq!(Arch::named(arch.name()), Some(Listed::Ours(arch)));
        }
        assert_eq!(Arch::named("SCMP_ARCH_S390X"), Some(Listed::Foreign));
        assert_eq!(Arch::named("amd64"), None);
    }
}
