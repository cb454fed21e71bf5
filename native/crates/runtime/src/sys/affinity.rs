//! On which processors processes run.
//!
//! A start is the work of several processes, each of which wakes or forks the next one and then goes on with work of its own. A kernel
//! prefers to have the new one run where its maker does, as it believes that the maker is about to wait; some even pack everything on
//! one processor while the others sleep. So whoever goes on sends the next one away: for the moment of its waking only, as it takes back
//! all its processors by itself as soon as it runs, and a kernel moves nobody who runs without a reason.

use super::check;
use std::io;
use std::sync::OnceLock;

/// More processors than any kernel is built for; it takes what it has.
const MASK_BYTES: usize = 8192 / 8;

/// Where this process ran when it began; so do the processes that it forks.
static HOME: OnceLock<Mask> = OnceLock::new();

#[derive(Clone)]
struct Mask([u8; MASK_BYTES]);

impl Mask {
    fn of(pid: i32) -> io::Result<Self> {
        let mut mask = Self([0; MASK_BYTES]);
        // SAFETY: the kernel writes at most the bytes that are told.
        check(unsafe {
            libc::syscall(
                libc::SYS_sched_getaffinity,
                pid,
                MASK_BYTES,
                mask.0.as_mut_ptr(),
            )
        })?;
        Ok(mask)
    }

    fn set(&self, pid: i32) -> io::Result<()> {
        // SAFETY: the kernel reads at most the bytes that are told.
        check(unsafe {
            libc::syscall(
                libc::SYS_sched_setaffinity,
                pid,
                MASK_BYTES,
                self.0.as_ptr(),
            )
        })
        .map(drop)
    }

    fn without(mut self, cpu: usize) -> Option<Self> {
        *self.0.get_mut(cpu / 8)? &= !(1 << (cpu % 8));
        self.0.iter().any(|byte| *byte != 0).then_some(self)
    }

    fn only(&self, cpu: usize) -> Option<Self> {
        let mut one = Self([0; MASK_BYTES]);
        *one.0.get_mut(cpu / 8)? = self.0.get(cpu / 8)? & (1 << (cpu % 8));
        one.0.iter().any(|byte| *byte != 0).then_some(one)
    }
}

fn home_mask() -> Option<&'static Mask> {
    if HOME.get().is_none()
        && let Ok(mask) = Mask::of(0)
    {
        // The first one counts.
        drop(HOME.set(mask));
    }
    HOME.get()
}

/// Remembers where this process may run, for itself and those that it forks (`home`): before anybody sends it away.
pub fn remember_home() {
    home_mask();
}

/// Takes back all the processors that were remembered, whoever sent this process away.
pub fn home() {
    if let Some(mask) = HOME.get() {
        // A processor that is gone meanwhile is the kernel's to leave out.
        drop(mask.set(0));
    }
}

/// Sends a process of ours to processors that this thread does not run on; one that sleeps will be woken there. It takes them all back by
/// itself (`home`, `reset`). Left alone where there is only one, or it has just ended.
pub fn elsewhere(pid: i32) {
    if let (Some(home), Some(cpu)) = (home_mask(), here())
        && let Some(others) = home.clone().without(cpu)
    {
        drop(others.set(pid));
    }
}

/// Has a process of ours, which sleeps, be woken where this thread runs. As `elsewhere` otherwise.
pub fn beside(pid: i32) {
    if let (Some(home), Some(cpu)) = (home_mask(), here())
        && let Some(only) = home.only(cpu)
    {
        drop(only.set(pid));
    }
}

fn here() -> Option<usize> {
    // SAFETY: no arguments.
    usize::try_from(unsafe { libc::sched_getcpu() }).ok()
}

/// Lets this process run on every processor that its groups allow, whatever its maker was bound to. What the machine forbids stays.
pub fn reset() {
    drop(Mask([0xff; MASK_BYTES]).set(0));
}

/// sched_setaffinity(2) on this process.
pub fn set(cpus: &[usize]) -> io::Result<()> {
    let mut mask = Mask([0; MASK_BYTES]);
    for cpu in cpus {
        let byte = mask.0.get_mut(cpu / 8);
        *byte.ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))? |= 1 << (cpu % 8);
    }
    mask.set(0)
}
