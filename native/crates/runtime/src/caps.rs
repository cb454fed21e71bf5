//! Capabilities: names to masks, and setting exactly the sets that the configuration names.

use crate::sys::check;
use serde::{Deserialize, Serialize};
use shoal_protocol::oci::Capabilities;
use std::io;

/// By number, from <linux/capability.h>.
pub const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What the names begin with, or do not.
const PREFIX: &str = "CAP_";

/// The sets as bit masks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Masks {
    pub bounding: u64,
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
    pub ambient: u64,
}

/// Reads the names. One that does not exist is left out, as runc and crun do: a configuration for a newer kernel must still run.
pub fn masks(sets: &Capabilities) -> Masks {
    let mask = |names: &[String]| {
        names
            .iter()
            .filter_map(|name| bit(name))
            .fold(0, |mask, bit| mask | (1 << bit))
    };
    let bounding = mask(&sets.bounding);
    // Most configurations name the same in several sets.
    let other = |names: &Vec<String>| {
        if *names == sets.bounding {
            bounding
        } else {
            mask(names)
        }
    };
    Masks {
        bounding,
        effective: other(&sets.effective),
        permitted: other(&sets.permitted),
        inheritable: other(&sets.inheritable),
        ambient: other(&sets.ambient),
    }
}

/// The names in any of the sets that do not exist, each once, for a warning.
pub fn unknown(sets: &Capabilities) -> Vec<String> {
    let all = [
        &sets.bounding,
        &sets.effective,
        &sets.permitted,
        &sets.inheritable,
        &sets.ambient,
    ];
    let mut names: Vec<String> = all
        .into_iter()
        .flatten()
        .filter(|name| bit(name).is_none())
        .cloned()
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// What of the sets will not be as it says: names that do not exist, and ambient ones that are not inheritable or permitted
/// (capabilities(7)). For the log, in runc's words.
pub fn warnings(sets: &Capabilities) -> Vec<String> {
    let mut lines = Vec::new();
    let unknown = unknown(sets);
    if !unknown.is_empty() {
        lines.push(format!(
            "ignoring unknown or unavailable capabilities: [{}]",
            unknown.join(" ")
        ));
    }
    let masks = masks(sets);
    let lost = masks.ambient & !(masks.inheritable & masks.permitted);
    lines.extend((0..NAMES.len()).filter(|bit| lost & (1 << bit) != 0).map(|bit| {
        format!(
            "can't raise ambient capability CAP_{}: it is not both permitted and inheritable",
            NAMES[bit]
        )
    }));
    lines
}

/// The number of a capability, by its name with or without `CAP_`.
fn bit(name: &str) -> Option<usize> {
    let short = match name.split_at_checked(PREFIX.len()) {
        Some((prefix, short)) if prefix.eq_ignore_ascii_case(PREFIX) => short,
        _ => name,
    };
    NAMES
        .iter()
        .position(|known| known.eq_ignore_ascii_case(short))
}

/// Drops from the bounding set what is not in it. Must be done while SETPCAP is still held.
pub fn drop_bounding(masks: &Masks) -> io::Result<()> {
    for bit in 0..64 {
        if masks.bounding & (1 << bit) != 0 {
            continue;
        }
        // SAFETY: no pointers.
        match check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, bit, 0, 0, 0) }.into()) {
            Ok(_) => {}
            // Past the last capability that this kernel knows.
            Err(error) if crate::sys::is(&error, libc::EINVAL) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Version 3 of <linux/capability.h>, for this thread.
static HEADER: Header = Header {
    version: 0x2008_0522,
    pid: 0,
};

fn held() -> io::Result<[Data; 2]> {
    let mut held = [Data::default(); 2];
    // SAFETY: version 3 reads a header and fills two data structs, which are ours.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw const HEADER, held.as_mut_ptr()) })?;
    Ok(held)
}

fn hold(data: [Data; 2]) -> io::Result<()> {
    // SAFETY: version 3 reads a header and two data structs, which are ours.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const HEADER, data.as_ptr()) }).map(drop)
}

/// Makes everything that is permitted effective again, as after a change of user: for the last privileged steps.
pub(crate) fn raise() -> io::Result<()> {
    hold(held()?.map(|data| Data {
        effective: data.permitted,
        ..data
    }))
}

/// Sets effective, permitted, inheritable and ambient to exactly these, less what this process may not hold.
pub fn set(masks: &Masks) -> io::Result<()> {
    let held = held()?;
    let ours = u64::from(held[0].permitted) | u64::from(held[1].permitted) << 32;
    let permitted = masks.permitted & ours;
    let effective = masks.effective & permitted;
    let half =
        |mask: u64, index: u32| u32::try_from(mask >> (32 * index) & 0xffff_ffff).expect("32 bits");
    hold([0, 1].map(|index| Data {
        effective: half(effective, index),
        permitted: half(permitted, index),
        inheritable: half(masks.inheritable & ours, index),
    }))?;
    check(
        // SAFETY: no pointers.
        unsafe {
            libc::prctl(
                libc::PR_CAP_AMBIENT,
                libc::PR_CAP_AMBIENT_CLEAR_ALL,
                0,
                0,
                0,
            )
        }
        .into(),
    )?;
    for bit in (0..NAMES.len())
        .filter(|bit| masks.ambient & masks.inheritable & permitted & (1 << bit) != 0)
    {
        check(
            // SAFETY: no pointers.
            unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, bit, 0, 0) }
                .into(),
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_seccomp::default::DOCKERS_CAPABILITIES;

    #[test]
    fn masks_of_dockers_fourteen_is_known() {
        let read = masks(&Capabilities {
            bounding: DOCKERS_CAPABILITIES.map(str::to_owned).to_vec(),
            ..Capabilities::default()
        });
        assert_eq!(read.bounding, 0xa804_25fb);
    }

    #[test]
    fn masks_leaves_unknown_names_out_and_unknown_tells_them() {
        let sets = Capabilities {
            permitted: vec!["CAP_NOPE".into(), "cap_kill".into()],
            effective: vec!["CAP_NOPE".into()],
            ..Capabilities::default()
        };
        assert_eq!(masks(&sets).permitted, 1 << 5);
        assert_eq!(masks(&sets).effective, 0);
        assert_eq!(unknown(&sets), ["CAP_NOPE"]);
    }

    #[test]
    fn warnings_tell_what_will_not_be_held() {
        let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let sets = Capabilities {
            permitted: named(&["CAP_KILL", "CAP_CHOWN", "CAP_NOPE"]),
            inheritable: named(&["CAP_KILL"]),
            ambient: named(&["CAP_KILL", "CAP_CHOWN"]),
            ..Capabilities::default()
        };
        let lines = warnings(&sets);
        assert_eq!(
            lines[0],
            "ignoring unknown or unavailable capabilities: [CAP_NOPE]"
        );
        assert!(
            lines.len() == 2 && lines[1].starts_with("can't raise ambient capability CAP_CHOWN: "),
            "{lines:?}"
        );
        assert!(warnings(&Capabilities::default()).is_empty());
    }
}
