//! Our programs beside libseccomp's, call by call, where that library is installed.

use super::{Random, profile};
use crate::arch::{Arch, Numbers, multiplexed};
use crate::compile_for;
use crate::oracle::{Call, run};
use crate::profile::{self as checked, Condition};
use crate::words::{Operator, ret};
use shoal_protocol::oci::Seccomp;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::io::{Read, Seek};
use std::os::fd::AsRawFd;

/// struct scmp_arg_cmp of <seccomp.h>.
#[repr(C)]
struct Compare {
    argument: c_uint,
    operator: c_int,
    value: u64,
    second: u64,
}

/// The few functions of libseccomp.so.2 that a filter needs.
struct Library {
    init: unsafe extern "C" fn(u32) -> *mut c_void,
    arch_add: unsafe extern "C" fn(*mut c_void, u32) -> c_int,
    resolve: unsafe extern "C" fn(*const c_char) -> c_int,
    rule_add: unsafe extern "C" fn(*mut c_void, u32, c_int, c_uint, *const Compare) -> c_int,
    export: unsafe extern "C" fn(*const c_void, c_int) -> c_int,
    release: unsafe extern "C" fn(*mut c_void),
}

impl Library {
    fn open() -> Option<Self> {
        // SAFETY: loading the library runs no code but its own start, which asks nothing of us.
        let handle = unsafe { libc::dlopen(c"libseccomp.so.2".as_ptr(), libc::RTLD_NOW) };
        if handle.is_null() {
            return None;
        }
        let symbol = |name: &CStr| {
            // SAFETY: the handle is of the library that was just opened.
            let at = unsafe { libc::dlsym(handle, name.as_ptr()) };
            assert!(!at.is_null(), "{name:?}");
            at
        };
        // SAFETY: the types are those of <seccomp.h>.
        unsafe {
            Some(Self {
                init: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(u32) -> *mut c_void>(
                    symbol(c"seccomp_init"),
                ),
                arch_add: std::mem::transmute::<
                    *mut c_void,
                    unsafe extern "C" fn(*mut c_void, u32) -> c_int,
                >(symbol(c"seccomp_arch_add")),
                resolve: std::mem::transmute::<
                    *mut c_void,
                    unsafe extern "C" fn(*const c_char) -> c_int,
                >(symbol(c"seccomp_syscall_resolve_name")),
                rule_add: std::mem::transmute::<
                    *mut c_void,
                    unsafe extern "C" fn(*mut c_void, u32, c_int, c_uint, *const Compare) -> c_int,
                >(symbol(c"seccomp_rule_add_array")),
                export: std::mem::transmute::<
                    *mut c_void,
                    unsafe extern "C" fn(*const c_void, c_int) -> c_int,
                >(symbol(c"seccomp_export_bpf")),
                release: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void)>(
                    symbol(c"seccomp_release"),
                ),
            })
        }
    }

    /// The library's program for a profile, made in the way of runc. None: it refuses.
    fn compile(&self, from: &Seccomp) -> Option<Vec<libc::sock_filter>> {
        let read = checked::read(from, Arch::X86_64).expect("a valid profile");
        // SAFETY: every pointer handed over lives over its call; the context is released once.
        unsafe {
            let context = (self.init)(read.default);
            assert!(!context.is_null());
            for arch in &read.architectures[1..] {
                assert_eq!((self.arch_add)(context, arch.audit()), 0, "{arch:?}");
            }
            let mut taken = true;
            for rule in &read.rules {
                if rule.action == read.default {
                    continue;
                }
                for name in rule.names {
                    let name = std::ffi::CString::new(name.as_str()).expect("no NUL");
                    let number = (self.resolve)(name.as_ptr());
                    if number == -1 {
                        continue;
                    }
                    let none = [Vec::new()];
                    let alternatives = if rule.alternatives.is_empty() {
                        &none[..]
                    } else {
                        &rule.alternatives
                    };
                    for conditions in alternatives {
                        let compares: Vec<Compare> = conditions.iter().map(compare).collect();
                        let count = c_uint::try_from(compares.len()).expect("at most 6");
                        taken &=
                            (self.rule_add)(context, rule.action, number, count, compares.as_ptr())
                                == 0;
                    }
                }
            }
            let mut file = tempfile();
            taken &= (self.export)(context, file.as_raw_fd()) == 0;
            (self.release)(context);
            let mut bytes = Vec::new();
            file.rewind().expect("rewind");
            file.read_to_end(&mut bytes).expect("read");
            taken.then(|| instructions(&bytes))
        }
    }
}

fn tempfile() -> std::fs::File {
    // SAFETY: the name is NUL-terminated; the new descriptor is nobody else's.
    unsafe {
        let fd = libc::memfd_create(c"filter".as_ptr(), libc::MFD_CLOEXEC);
        assert!(fd >= 0);
        std::os::fd::FromRawFd::from_raw_fd(fd)
    }
}

fn instructions(bytes: &[u8]) -> Vec<libc::sock_filter> {
    let one = |from: &[u8]| libc::sock_filter {
        code: u16::from_le_bytes([from[0], from[1]]),
        jt: from[2],
        jf: from[3],
        k: u32::from_le_bytes([from[4], from[5], from[6], from[7]]),
    };
    bytes.chunks_exact(8).map(one).collect()
}

fn compare(condition: &Condition) -> Compare {
    Compare {
        argument: condition.argument,
        // enum scmp_compare
        operator: match condition.operator {
            Operator::NotEqual => 1,
            Operator::Less => 2,
            Operator::LessOrEqual => 3,
            Operator::Equal => 4,
            Operator::GreaterOrEqual => 5,
            Operator::Greater => 6,
            Operator::MaskedEqual => 7,
        },
        value: condition.value,
        second: condition.second,
    }
}

/// What the two may differ in: several outcomes for one call by conditions are ordered by libseccomp's tree, by us as the profile has
/// them; and conditions behind socketcall and ipc, where we are stricter.
fn comparable(profile: &mut Seccomp) {
    let (action, errno) = match profile.default_action.as_str() {
        "SCMP_ACT_ERRNO" => ("SCMP_ACT_LOG", None),
        _ => ("SCMP_ACT_ERRNO", Some(99)),
    };
    for rule in &mut profile.syscalls {
        if !rule.args.is_empty() {
            (rule.action, rule.errno_ret) = (action.to_owned(), errno);
            rule.names
                .retain(|name| multiplexed(Arch::X86, name).is_none());
            rule.names.push("mkdir".to_owned());
        }
    }
    // SCMP_ACT_NOTIFY and TSYNC are the caller's there.
    profile
        .syscalls
        .retain(|rule| rule.action != "SCMP_ACT_NOTIFY");
    profile
        .architectures
        .retain(|name| name == "SCMP_ARCH_X86" || name == "SCMP_ARCH_AARCH64");
}

#[test]
fn compile_says_what_libseccomp_says() {
    let Some(library) = Library::open() else {
        eprintln!("SKIPPED: libseccomp.so.2 is not installed, nothing is compared");
        return;
    };
    // Old names only: the library's table is as old as the machine's packages.
    let names = [
        "read", "write", "socket", "accept", "shmget", "clone", "mkdir", "ptrace", "kill", "bind",
        "ioctl", "prctl", "msgget",
    ];
    let mut random = Random(0xd1f);
    let (mut compared, mut refused) = (0, 0);
    for round in 0..600 {
        let mut profile = profile(&mut random, &names);
        comparable(&mut profile);
        let Ok(ours) = compile_for(&profile, Arch::X86_64) else {
            continue;
        };
        let Some(theirs) = library.compile(&profile) else {
            refused += 1;
            continue;
        };
        let newest = |arch| {
            names
                .iter()
                .filter_map(|name| Numbers::of(name)?.on(arch))
                .max()
        };
        let values: Vec<u64> = profile
            .syscalls
            .iter()
            .flat_map(|rule| &rule.args)
            .flat_map(|arg| {
                [
                    arg.value,
                    arg.value_two & arg.value,
                    arg.value.wrapping_add(1),
                    arg.value.wrapping_sub(1),
                ]
            })
            .collect();
        for _ in 0..100 {
            let arch = random.pick(&[Arch::X86_64, Arch::X86]);
            let name = random.pick(&names);
            let number = Numbers::of(name)
                .and_then(|numbers| numbers.on(arch))
                .unwrap_or(102);
            let argument = |random: &mut Random| {
                let value = if values.is_empty() || random.one_in(3) {
                    random.next() % 25
                } else {
                    random.pick(&values)
                };
                // What a 32-bit program can say.
                if arch.is_32_bit() {
                    value & 0xffff_ffff
                } else {
                    value
                }
            };
            let call = Call {
                arch: arch.audit(),
                number,
                arguments: std::array::from_fn(|_| argument(&mut random)),
            };
            let (mine, _) = run(&ours.instructions, &call);
            if mine == ret::ERRNO | 38 && newest(arch).is_some() {
                // Newer than what this profile names: runc adds that to the library's program.
                continue;
            }
            let (want, _) = run(&theirs, &call);
            assert_eq!(mine, want, "round {round}: {call:x?} of {profile:?}");
            compared += 1;
        }
    }
    assert!(
        compared > 20_000,
        "{compared} calls compared, {refused} profiles refused"
    );
}
