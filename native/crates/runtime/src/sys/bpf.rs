//! bpf(2), as far as device rules of control groups v2 need it: loading, attaching, and asking what is attached.

use super::check;
use super::file::new_fd;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// Commands, types and flags of <linux/bpf.h>.
const PROG_LOAD: i32 = 5;
const PROG_ATTACH: i32 = 8;
const PROG_DETACH: i32 = 9;
const PROG_GET_FD_BY_ID: i32 = 13;
const PROG_QUERY: i32 = 16;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 1 << 1;
const REPLACE: u32 = 1 << 2;
/// Most programs that the kernel attaches to one group (BPF_CGROUP_MAX_PROGS).
const ATTACHED_MAX: usize = 64;

/// One instruction, as the kernel reads it (`struct bpf_insn`).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    pub code: u8,
    /// Destination in the low four bits, source in the high ones.
    pub registers: u8,
    pub offset: i16,
    pub immediate: i32,
}

#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

#[repr(C)]
#[derive(Default)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
    replaced: u32,
}

#[repr(C)]
#[derive(Default)]
struct Query {
    target: u32,
    kind: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
}

#[repr(C)]
#[derive(Default)]
struct ById {
    id: u32,
    next: u32,
    flags: u32,
}

fn call<T>(command: i32, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the attributes are a plain struct of the command's layout, given with their own size; pointers inside them
    // are to buffers that every caller below keeps alive over the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    })
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// Loads a device program. EPERM is tried again with the memory lock limit raised: kernels before 5.11 charge it there.
pub fn load_device_program(program: &[Instruction]) -> io::Result<OwnedFd> {
    match load(program) {
        Err(error) if super::is(&error, libc::EPERM) && raise_memory_lock().is_ok() => {
            load(program)
        }
        other => other,
    }
}

fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    let license = c"Apache-2.0";
    let mut attributes = Load {
        kind: PROG_TYPE_CGROUP_DEVICE,
        count: u32::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        instructions: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        ..Load::default()
    };
    attributes.name[..13].copy_from_slice(b"shoal_devices");
    new_fd(call(PROG_LOAD, &mut attributes)?)
}

fn raise_memory_lock() -> io::Result<()> {
    let unlimited = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: the struct is ours.
    check(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const unlimited) }.into()).map(drop)
}

/// Attaches a device program to a group, beside others or in the place of `replaced`.
pub fn attach_device_program(
    group: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    replaced: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    call(
        PROG_ATTACH,
        &mut Attach {
            target: number(group),
            program: number(program),
            kind: CGROUP_DEVICE,
            flags: ALLOW_MULTI | if replaced.is_some() { REPLACE } else { 0 },
            replaced: replaced.map_or(0, number),
        },
    )
    .map(drop)
}

/// Takes a device program off a group.
pub fn detach_device_program(group: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    call(
        PROG_DETACH,
        &mut Attach {
            target: number(group),
            program: number(program),
            kind: CGROUP_DEVICE,
            ..Attach::default()
        },
    )
    .map(drop)
}

/// The device programs that are attached to a group itself.
pub fn device_programs(group: BorrowedFd<'_>) -> io::Result<Vec<OwnedFd>> {
    let mut ids = [0u32; ATTACHED_MAX];
    let mut query = Query {
        target: number(group),
        kind: CGROUP_DEVICE,
        ids: ids.as_mut_ptr() as u64,
        count: ATTACHED_MAX as u32,
        ..Query::default()
    };
    call(PROG_QUERY, &mut query)?;
    let count = usize::try_from(query.count).unwrap_or(0).min(ATTACHED_MAX);
    ids[..count]
        .iter()
        .map(|id| {
            let mut by_id = ById {
                id: *id,
                ..ById::default()
            };
            new_fd(call(PROG_GET_FD_BY_ID, &mut by_id)?)
        })
        .collect()
}
