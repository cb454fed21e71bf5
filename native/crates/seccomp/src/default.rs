//! The default profile: Docker's meaning (moby's profile of 2026) as our own tables, ordered by what the calls are about.
//!
//! What is not named here fails with EPERM, or with ENOSYS when it is newer than all of these. The dangerous calls come back with the
//! capability that they belong to.

use crate::arch::Arch;
use shoal_protocol::oci::{Seccomp, Syscall, SyscallArg};

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// Files by name, and directories.
const FILES: &str = "access chdir chmod chown chown32 creat faccessat faccessat2 fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat
    fstat fstat64 fstatat64 fstatfs fstatfs64 futimesat getcwd getdents getdents64 lchown lchown32 link linkat listmount lstat lstat64
    mkdir mkdirat mknod mknodat name_to_handle_at newfstatat open openat openat2 readlink readlinkat rename renameat renameat2 rmdir
    stat stat64 statfs statfs64 statmount statx symlink symlinkat truncate truncate64 umask unlink unlinkat utime utimensat
    utimensat_time64 utimes";
/// Extended attributes.
const ATTRIBUTES: &str = "fgetxattr flistxattr fremovexattr fsetxattr getxattr getxattrat lgetxattr listxattr listxattrat llistxattr
    lremovexattr lsetxattr removexattr removexattrat setxattr setxattrat";
/// Reading and writing what is open.
const DESCRIPTORS: &str = "_llseek close close_range copy_file_range dup dup2 dup3 fadvise64 fadvise64_64 fallocate fcntl fcntl64 fdatasync
    flock fsync ftruncate ftruncate64 ioctl lseek pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readv
    sendfile sendfile64 splice sync sync_file_range syncfs tee vmsplice write writev";
/// Waiting for descriptors, and being told of changes.
const EVENTS: &str = "_newselect epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old
    eventfd eventfd2 fanotify_mark inotify_add_watch inotify_init inotify_init1 inotify_rm_watch poll ppoll ppoll_time64 pselect6
    pselect6_time64 select";
/// Asynchronous input and output of old; io_uring is not here, as its work is done past every filter.
const AIO: &str =
    "io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit";
const MEMORY: &str = "brk cachestat madvise map_shadow_stack memfd_create memfd_secret mincore mlock mlock2 mlockall mmap mmap2 mprotect
    mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect process_mrelease remap_file_pages";
/// Processes and threads; clone is below, by its flags.
const PROCESSES: &str = "execve execveat exit exit_group fork futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake
    get_robust_list get_thread_area getcpu getpgid getpgrp getpid getppid getsid gettid membarrier pause pidfd_open prctl restart_syscall
    rseq set_robust_list set_thread_area set_tid_address setpgid setsid uretprobe vfork wait4 waitid waitpid";
const SIGNALS: &str = "kill pidfd_send_signal rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend
    rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack signalfd signalfd4 sigprocmask sigreturn tgkill tkill";
/// Clocks and timers; setting a clock belongs to CAP_SYS_TIME, which the kernel asks of adjtimex itself.
const TIME: &str = "adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
    clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep setitimer time timer_create timer_delete timer_getoverrun
    timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime
    timerfd_settime64 times";
/// Sockets; socket itself is below, by its family.
const SOCKETS: &str = "accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg recvmmsg_time64 recvmsg
    send sendmmsg sendmsg sendto setsockopt shutdown socketcall socketpair";
/// System V and POSIX queues, semaphores and shared memory: all in a namespace of their own.
const IPC: &str = "ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink
    msgctl msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt shmget";
const SCHEDULING: &str = "getpriority ioprio_get ioprio_set sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr
    sched_getparam sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam
    sched_setscheduler sched_yield setpriority";
/// Users, groups, capabilities and limits: what they allow is the kernel's to check.
const IDENTITY: &str = "capget capset getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getresgid getresgid32
    getresuid getresuid32 getrlimit getrusage getuid getuid32 prlimit64 setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups
    setgroups32 setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setuid setuid32 ugetrlimit";
/// What a program confines itself with, and what it asks of the machine.
const SYSTEM: &str = "getrandom landlock_add_rule landlock_create_ruleset landlock_restrict_self riscv_hwprobe seccomp sysinfo uname";

const ALWAYS: [&str; 14] = [
    FILES,
    ATTRIBUTES,
    DESCRIPTORS,
    EVENTS,
    AIO,
    MEMORY,
    PROCESSES,
    SIGNALS,
    TIME,
    SOCKETS,
    IPC,
    SCHEDULING,
    IDENTITY,
    SYSTEM,
];

/// Calls that come with a capability (its number in <linux/capability.h>).
const WITH_CAPABILITY: [(u32, &str); 14] = [
    (2, "open_by_handle_at"),                                    // DAC_READ_SEARCH
    (16, "delete_module finit_module init_module"),              // SYS_MODULE
    (17, "ioperm iopl"),                                         // SYS_RAWIO
    (18, "chroot"),                                              // SYS_CHROOT
    (
        19, // SYS_PTRACE
        "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
    ),
    (20, "acct"), // SYS_PACCT
    (
        SYS_ADMIN,
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr lsm_list_modules
        lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns
        syslog umount umount2 unshare",
    ),
    (22, "reboot"), // SYS_BOOT
    (
        23, // SYS_NICE
        "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    ),
    (25, "clock_settime clock_settime64 settimeofday stime"), // SYS_TIME
    (26, "vhangup"),                                          // SYS_TTY_CONFIG
    (34, "syslog"),                                           // SYSLOG
    (38, "perf_event_open"), // PERFMON
    (39, "bpf"), // BPF
];
const SYS_ADMIN: u32 = 21;

/// Calls that only some architectures have, or need.
const ON_ARCH: [(&[Arch], &str); 4] = [
    (
        &[Arch::Aarch64, Arch::Arm],
        "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2",
    ),
    (&[Arch::X86_64, Arch::X32], "arch_prctl"),
    (&[Arch::X86_64, Arch::X32, Arch::X86], "modify_ldt"),
    (&[Arch::Riscv64], "riscv_flush_icache"),
];

/// The capabilities that Docker gives a container which asks for nothing; its profile is made for them.
pub const DOCKERS_CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// From this kernel on, ptrace cannot be used to step over a filter.
const PTRACE_KERNEL: (u32, u32) = (4, 8);
const PTRACE: &str = "process_vm_readv process_vm_writev ptrace";

/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET: a clone with any of them needs SYS_ADMIN.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;

/// Families below this one are all allowed (12 is DECnet).
const FAMILY_FIRST_REFUSED: u64 = 12;
/// The allowed families above it. Not here, as they have had holes or reach past the container: DECnet 12, econet 19, ATM switched
/// circuits 20, IrDA 23, WANPIPE 25, mISDN 34, CAIF 37, the kernel's cryptography 38, vsock 40.
const FAMILIES: [u64; 25] = [
    13, 14, 15, 16, 17, 18, 21, 22, 24, 26, 27, 28, 29, 30, 31, 32, 33, 35, 36, 39, 41, 42, 43, 44,
    45,
];
/// Linux, 32-bit Linux, both with ADDR_NO_RANDOMIZE off and UNAME26 on, and the question what is set.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// The profile for a container whose bounding set is `capabilities` (bit n: capability n), on a kernel of this version.
pub fn default_profile(capabilities: u64, arch: Arch, kernel: (u32, u32)) -> Seccomp {
    let has = |capability: u32| capabilities & (1 << capability) != 0;
    let mut allowed: Vec<&str> = ALWAYS.to_vec();
    allowed.extend(
        WITH_CAPABILITY
            .iter()
            .filter(|(capability, _)| has(*capability))
            .map(|(_, names)| *names),
    );
    allowed.extend(
        ON_ARCH
            .iter()
            .filter(|(on, _)| on.contains(&arch))
            .map(|(_, names)| *names),
    );
    if kernel >= PTRACE_KERNEL {
        allowed.push(PTRACE);
    }
    let mut names: Vec<String> = allowed
        .iter()
        .flat_map(|names| names.split_ascii_whitespace())
        .map(str::to_owned)
        .collect();
    names.sort_unstable();
    names.dedup();

    let mut syscalls = vec![Syscall {
        names,
        ..allow(&[], None)
    }];
    syscalls.push(allow(
        &["socket"],
        Some(("SCMP_CMP_LT", FAMILY_FIRST_REFUSED, 0)),
    ));
    syscalls.extend(FAMILIES.map(|family| allow(&["socket"], Some(("SCMP_CMP_EQ", family, 0)))));
    syscalls
        .extend(PERSONALITIES.map(|kind| allow(&["personality"], Some(("SCMP_CMP_EQ", kind, 0)))));
    if !has(SYS_ADMIN) {
        syscalls.push(allow(
            &["clone"],
            Some(("SCMP_CMP_MASKED_EQ", CLONE_NAMESPACES, 0)),
        ));
        // Its flags are behind a pointer; the C library falls back to clone on ENOSYS only.
        syscalls.push(Syscall {
            names: vec!["clone3".to_owned()],
            action: "SCMP_ACT_ERRNO".to_owned(),
            errno_ret: Some(ENOSYS),
            args: Vec::new(),
        });
    }
    Seccomp {
        default_action: "SCMP_ACT_ERRNO".to_owned(),
        default_errno_ret: Some(EPERM),
        architectures: [arch]
            .iter()
            .chain(arch.companions())
            .map(|arch| arch.name().to_owned())
            .collect(),
        syscalls,
        ..Seccomp::default()
    }
}

fn allow(names: &[&str], condition: Option<(&str, u64, u64)>) -> Syscall {
    let args = condition.map(|(op, value, value_two)| SyscallArg {
        index: 0,
        value,
        value_two,
        op: op.to_owned(),
    });
    Syscall {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        action: "SCMP_ACT_ALLOW".to_owned(),
        errno_ret: None,
        args: args.into_iter().collect(),
    }
}
