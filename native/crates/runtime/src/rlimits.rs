//! Resource limits of the process, clamped to ours where the machine forbids more.

use crate::sys::{check, is};
use shoal_protocol::{Failure, oci::Rlimit};
use std::io;

const KINDS: [(&str, u32); 16] = [
    ("RLIMIT_CPU", libc::RLIMIT_CPU),
    ("RLIMIT_FSIZE", libc::RLIMIT_FSIZE),
    ("RLIMIT_DATA", libc::RLIMIT_DATA),
    ("RLIMIT_STACK", libc::RLIMIT_STACK),
    ("RLIMIT_CORE", libc::RLIMIT_CORE),
    ("RLIMIT_RSS", libc::RLIMIT_RSS),
    ("RLIMIT_NPROC", libc::RLIMIT_NPROC),
    ("RLIMIT_NOFILE", libc::RLIMIT_NOFILE),
    ("RLIMIT_MEMLOCK", libc::RLIMIT_MEMLOCK),
    ("RLIMIT_AS", libc::RLIMIT_AS),
    ("RLIMIT_LOCKS", libc::RLIMIT_LOCKS),
    ("RLIMIT_SIGPENDING", libc::RLIMIT_SIGPENDING),
    ("RLIMIT_MSGQUEUE", libc::RLIMIT_MSGQUEUE),
    ("RLIMIT_NICE", libc::RLIMIT_NICE),
    ("RLIMIT_RTPRIO", libc::RLIMIT_RTPRIO),
    ("RLIMIT_RTTIME", libc::RLIMIT_RTTIME),
];

/// Refuses unknown kinds and soft limits above hard ones, naming them.
pub fn validate(limits: &[Rlimit]) -> Result<(), Failure> {
    limits.iter().try_for_each(|limit| {
        kind(limit)?;
        if limit.soft > limit.hard {
            return Err(Failure::invalid(
                format!("reading process.rlimits {}", limit.kind),
                format!(
                    "soft limit {} is above hard limit {}; lower it",
                    limit.soft, limit.hard
                ),
            ));
        }
        Ok(())
    })
}

/// Sets the limits on this process. Without CAP_SYS_RESOURCE a limit above ours becomes ours.
pub fn apply(limits: &[Rlimit]) -> Result<(), Failure> {
    apply_to(0, limits)
}

/// Sets the limits on a process (0: this one), as `apply`: for one in a user namespace, which may not raise its own.
pub fn apply_to(pid: i32, limits: &[Rlimit]) -> Result<(), Failure> {
    limits.iter().try_for_each(|limit| {
        let kind = kind(limit)?;
        set_clamped(pid, kind, limit.soft, limit.hard).map_err(|error| {
            Failure::io(
                format!("setting {} to {}:{}", limit.kind, limit.soft, limit.hard),
                &error,
            )
        })
    })
}

/// Soft limit of open files, before `raise_open_files`.
pub fn open_files() -> io::Result<u64> {
    get(0, libc::RLIMIT_NOFILE).map(|limit| limit.rlim_cur)
}

/// As many open files as the hard limit allows.
pub fn raise_open_files() -> io::Result<()> {
    let hard = get(0, libc::RLIMIT_NOFILE)?.rlim_max;
    set_clamped(0, libc::RLIMIT_NOFILE, hard, hard)
}

/// Sets the soft limit of open files, leaving the hard one.
pub fn set_open_files(soft: u64) -> io::Result<()> {
    let hard = get(0, libc::RLIMIT_NOFILE)?.rlim_max;
    set_clamped(0, libc::RLIMIT_NOFILE, soft.min(hard), hard)
}

fn get(pid: i32, kind: u32) -> io::Result<libc::rlimit64> {
    let mut ours = libc::rlimit64 {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the struct is ours; nothing is set.
    check(unsafe { libc::prlimit64(pid, kind, std::ptr::null(), &raw mut ours) }.into())?;
    Ok(ours)
}

fn kind(limit: &Rlimit) -> Result<u32, Failure> {
    KINDS
        .iter()
        .find(|(name, _)| *name == limit.kind)
        .map(|(_, kind)| *kind)
        .ok_or_else(|| {
            Failure::invalid(
                "reading process.rlimits",
                format!(
                    "{:?} is not a limit; use a name of getrlimit(2)",
                    limit.kind
                ),
            )
        })
}

fn set_clamped(pid: i32, kind: u32, soft: u64, hard: u64) -> io::Result<()> {
    let set = |soft: u64, hard: u64| {
        let value = libc::rlimit64 {
            rlim_cur: soft,
            rlim_max: hard,
        };
        // SAFETY: the struct lives over the call; the old value is not asked for.
        check(unsafe { libc::prlimit64(pid, kind, &raw const value, std::ptr::null_mut()) }.into())
            .map(drop)
    };
    match set(soft, hard) {
        Err(error) if is(&error, libc::EPERM) => {
            let ours = get(pid, kind)?;
            set(soft.min(ours.rlim_max), hard.min(ours.rlim_max))
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(kind: &str, soft: u64, hard: u64) -> Rlimit {
        Rlimit {
            kind: kind.into(),
            soft,
            hard,
        }
    }

    #[test]
    fn validate_names_what_is_wrong() {
        assert!(validate(&[limit("RLIMIT_NOFILE", 1, 2)]).is_ok());
        assert!(
            validate(&[limit("RLIMIT_X", 1, 2)])
                .expect_err("kind")
                .message
                .contains("RLIMIT_X")
        );
        assert!(validate(&[limit("RLIMIT_CORE", 3, 2)]).is_err());
    }
}
