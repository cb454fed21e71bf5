//! On which processors processes run.
//!
//! A start is the work of several processes, each of which wakes or forks the next one and then goes on with work of its own. A kernel
//! prefers to have the new one run where its maker does, as it believes that the maker is about to wait; some even pack everything on
//! one processor while the others sleep. So whoever goes on sends the next one away: for the moment of its waking only, as it takes back
//! all its processors by itself as soon as it runs, and a kernel moves nobody who runs without a reason. Where the processors have been busy
//! of late the kernel chooses: who is sent to a processor that somebody has for himself waits there for a whole slice.

use super::{check, file};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// More processors than any kernel is built for; it takes what it has.
const MASK_BYTES: usize = 8192 / 8;

/// Where this process ran when it began; so do the processes that it forks.
static HOME: OnceLock<Mask> = OnceLock::new();

/// What tells for how long the processors have had nothing to do (proc_uptime(5)); open for as long as the process lives.
static UPTIME: OnceLock<Option<OwnedFd>> = OnceLock::new();
const UPTIME_PATH: &str = "/proc/uptime";
/// What tells how many tasks run (proc_loadavg(5), fourth field).
const LOAD_PATH: &str = "/proc/loadavg";

/// Longer than most starts, so that one start is not the reason why the next one is made otherwise; the kernel counts in steps of 10 ms.
const LOOK_AFTER_MS: u64 = 100;

/// How things were when they were last looked at, for this process and those that it forks: the time (0: never) and the idle time until then, in
/// ms, and whether a processor's worth had been idle since the time before.
struct Looked {
    at_ms: AtomicU64,
    idle_ms: AtomicU64,
    room: AtomicBool,
}

static LOOKED: Looked = Looked {
    at_ms: AtomicU64::new(0),
    idle_ms: AtomicU64::new(0),
    room: AtomicBool::new(false),
};

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

    fn count(&self) -> u32 {
        self.0.iter().map(|byte| byte.count_ones()).sum()
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
    look();
}

/// Whether there is a processor to send somebody to: one had nothing to do of late, or, where that is not known, fewer tasks run than there are
/// processors, of which so many are ours.
fn has_room(home: &Mask, ours: u32) -> bool {
    if LOOKED.at_ms.load(Relaxed) == 0 {
        return some_sleep(home, ours);
    }
    look();
    LOOKED.room.load(Relaxed)
}

fn look() {
    let (now, then) = (now_ms(), LOOKED.at_ms.load(Relaxed));
    if then != 0 && now.saturating_sub(then) < LOOK_AFTER_MS {
        return;
    }
    let open = || file::open(UPTIME_PATH, libc::O_RDONLY).ok();
    let mut text = [0u8; 64];
    let read = UPTIME
        .get_or_init(open)
        .as_ref()
        .and_then(|uptime| file::read_from_start(uptime.as_fd(), &mut text).ok());
    let Some(idle) = idle_ms(&text[..read.unwrap_or(0)]) else {
        return;
    };
    let before = LOOKED.idle_ms.swap(idle, Relaxed);
    LOOKED.at_ms.store(now, Relaxed);
    let room = then != 0 && idle.saturating_sub(before) >= now.saturating_sub(then);
    LOOKED.room.store(room, Relaxed);
}

/// The second field, the sum over all processors.
fn idle_ms(uptime: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(uptime)
        .ok()?
        .split_whitespace()
        .nth(1)?;
    let (seconds, hundredths) = text.split_once('.')?;
    let (seconds, hundredths): (u64, u64) = (seconds.parse().ok()?, hundredths.parse().ok()?);
    Some(seconds * 1000 + hundredths * 10)
}

/// CLOCK_MONOTONIC, which is never 0.
fn now_ms() -> u64 {
    // SAFETY: timespec is plain data for which all zeroes is valid.
    let mut now: libc::timespec = unsafe { std::mem::zeroed() };
    // SAFETY: the timespec lives over the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    let part = |value: i64| u64::try_from(value).unwrap_or(0);
    (part(now.tv_sec) * 1000 + part(now.tv_nsec) / 1_000_000).max(1)
}

/// Whether fewer tasks run than there are processors, not counting so many of ours. This one does.
fn some_sleep(home: &Mask, ours: u32) -> bool {
    let mut text = [0u8; 64];
    let read = file::open(LOAD_PATH, libc::O_RDONLY)
        .and_then(|load| file::read_from_start(load.as_fd(), &mut text));
    let running = running(&text[..read.unwrap_or(0)]);
    running.is_some_and(|running| running < home.count() + ours)
}

fn running(load: &[u8]) -> Option<u32> {
    let (running, _) = std::str::from_utf8(load)
        .ok()?
        .split(' ')
        .nth(3)?
        .split_once('/')?;
    running.parse().ok()
}

/// Takes back all the processors that were remembered, whoever sent this process away.
pub fn home() {
    if let Some(mask) = HOME.get() {
        // A processor that is gone meanwhile is the kernel's to leave out.
        drop(mask.set(0));
    }
}

/// Sends a process of ours, which sleeps, to processors that this thread does not run on: it will be woken there. It takes them all back by
/// itself (`home`, `reset`). Left alone where there is no room elsewhere.
pub fn elsewhere(pid: i32) {
    send_away(pid, 0);
}

/// The same for a child that was just born, which waits here for a processor.
pub fn born_elsewhere(pid: i32) {
    send_away(pid, 1);
}

fn send_away(pid: i32, runs_too: u32) {
    if let (Some(home), Some(cpu)) = (home_mask(), here())
        && has_room(home, runs_too)
        && let Some(others) = home.clone().without(cpu)
    {
        drop(others.set(pid));
    }
}

/// Has a process of ours, which sleeps, be woken where this thread runs, which is about to wait.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_is_the_first_part_of_the_fourth_field() {
        assert_eq!(running(b"0.20 0.18 0.12 13/80 11206\n"), Some(13));
        for bad in [&b""[..], b"1 2 3", b"0.1 0.2 0.3 x/3 4", b"0.1 0.2 0.3 3 4"] {
            assert_eq!(running(bad), None);
        }
    }

    #[test]
    fn idle_time_is_the_second_field_in_hundredths() {
        assert_eq!(idle_ms(b"350735.47 234388.90\n"), Some(234_388_900));
        for bad in [&b""[..], b"350735.47\n", b"1.00 x.00", b"1.00 2"] {
            assert_eq!(idle_ms(bad), None);
        }
    }

    #[test]
    fn masks_are_without_one_or_only_one_and_never_empty() {
        let mut two = Mask([0; MASK_BYTES]);
        two.0[1] = 0b11;
        assert_eq!(two.count(), 2);
        let only = two.only(9).expect("in it");
        assert_eq!((only.0[1], only.count()), (0b10, 1));
        let without = two.clone().without(9).expect("another is left");
        assert_eq!((without.0[1], without.count()), (0b01, 1));
        assert!(only.without(9).is_none() && two.only(3).is_none());
        assert!(two.without(8 * MASK_BYTES).is_none());
    }
}
