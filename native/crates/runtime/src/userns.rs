//! User namespaces: mappings written by the maker, becoming root inside, namespaces that only carry a mapping; and clock offsets.

use crate::namespaces::Namespaces;
use crate::sys::{file, process, socket};
use shoal_protocol::oci::{IdMapping, TimeOffset, User};
use shoal_protocol::{Failure, FailureCode};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;

/// Most ranges of one mapping that the kernel takes (user_namespaces(7), Linux 4.15).
pub const MAPPINGS_MAX: usize = 340;

/// Refuses what the kernel would: no range, an empty one, one past the last id, ranges that overlap.
pub fn validate(field: &str, mappings: &[IdMapping]) -> Result<(), Failure> {
    let refuse = |message: String| Err(Failure::invalid(format!("reading {field}"), message));
    if mappings.len() > MAPPINGS_MAX {
        return refuse(format!(
            "{} ranges are over the limit of {MAPPINGS_MAX}",
            mappings.len()
        ));
    }
    for (index, mapping) in mappings.iter().enumerate() {
        let end = |start: u32| start.checked_add(mapping.size);
        if mapping.size == 0 {
            return refuse(format!("range {index} has size 0"));
        }
        if end(mapping.container_id).is_none() || end(mapping.host_id).is_none() {
            return refuse(format!(
                "range {index} ({}:{}:{}) ends after the last id",
                mapping.container_id, mapping.host_id, mapping.size
            ));
        }
        let overlap = |a: u32, a_size: u32, b: u32, b_size: u32| {
            u64::from(a) < u64::from(b) + u64::from(b_size)
                && u64::from(b) < u64::from(a) + u64::from(a_size)
        };
        for (other, before) in mappings[..index].iter().enumerate() {
            if overlap(
                mapping.container_id,
                mapping.size,
                before.container_id,
                before.size,
            ) || overlap(mapping.host_id, mapping.size, before.host_id, before.size)
            {
                return refuse(format!("ranges {other} and {index} overlap"));
            }
        }
    }
    Ok(())
}

/// The text of uid_map and gid_map.
fn lines(mappings: &[IdMapping]) -> String {
    mappings
        .iter()
        .map(|mapping| {
            format!(
                "{} {} {}\n",
                mapping.container_id, mapping.host_id, mapping.size
            )
        })
        .collect()
}

/// Maps the ids of the user namespace that `pid` has just made. Without privilege by newuidmap(1) and newgidmap(1), or, for one own id
/// only, by giving up setgroups(2).
pub fn write_maps(pid: i32, uids: &[IdMapping], gids: &[IdMapping]) -> Result<(), Failure> {
    write_map(pid, "uid", "newuidmap", uids)?;
    write_map(pid, "gid", "newgidmap", gids)
}

fn write_map(pid: i32, kind: &str, helper: &str, mappings: &[IdMapping]) -> Result<(), Failure> {
    let doing = format!("writing linux.{kind}Mappings");
    let write = |name: &str, text: &str| fs::write(format!("/proc/{pid}/{name}"), text);
    let refused = match write(&format!("{kind}_map"), &lines(mappings)) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => error,
        other => return other.map_err(|error| Failure::io(doing, &error)),
    };
    let helped = Command::new(helper)
        .arg(pid.to_string())
        .args(
            mappings
                .iter()
                .flat_map(|mapping| [mapping.container_id, mapping.host_id, mapping.size])
                .map(|number| number.to_string()),
        )
        .output();
    let words = match helped {
        Ok(output) if output.status.success() => return Ok(()),
        Ok(output) => String::from_utf8_lossy(&output.stderr)
            .trim()
            .replace('\n', "; "),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            "it is not installed, and without it a caller who is not root maps nothing but its own id, with size 1".to_owned()
        }
        Err(error) => error.to_string(),
    };
    if kind == "gid" && mappings.len() == 1 && mappings[0].size == 1 {
        // Without privilege a group can be mapped only by who gives up dropping groups (user_namespaces(7)).
        return write("setgroups", "deny")
            .and_then(|()| write("gid_map", &lines(mappings)))
            .map_err(|error| Failure::io(doing, &error));
    }
    Err(Failure::new(
        FailureCode::System,
        doing,
        format!("{refused}; {helper} said: {words}"),
    ))
}

/// Why a process could not be cloned into its namespaces (user_namespaces(7), clone(2)).
pub(crate) fn cloning_failed(kinds: &Namespaces, error: &io::Error) -> Failure {
    let mut failure = Failure::io("cloning init", error);
    match (kinds.has(libc::CLONE_NEWUSER), error.raw_os_error()) {
        (false, Some(libc::EPERM)) if process::effective_uid() != 0 => {
            "reading linux.namespaces".clone_into(&mut failure.doing);
            failure.message = format!(
                "rootless container requires user namespaces: add {{\"type\":\"user\"}}, linux.uidMappings and linux.gidMappings ({error})"
            );
        }
        (true, Some(libc::EPERM | libc::ENOSPC | libc::EUSERS)) => {
            // Not a disk that is full.
            failure.code = FailureCode::System;
            failure.message = format!(
                "the machine allows no user namespace, which linux.namespaces asks for; look at the sysctls user.max_user_namespaces and kernel.unprivileged_userns_clone ({error})"
            );
        }
        _ => {}
    }
    failure
}

/// Becomes root of the user namespace that this process is in, or the process's own user where root is not mapped.
pub(crate) fn become_root(user: &User) -> Result<(), Failure> {
    let become_id = |uid: u32, gid: u32| process::set_ids(uid, gid);
    match become_id(0, 0) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => become_id(user.uid, user.gid)
            .map_err(|_| {
                Failure::invalid(
                    "reading linux.uidMappings",
                    format!(
                        "neither root nor {}:{} of the container is mapped",
                        user.uid, user.gid
                    ),
                )
            }),
        other => other.map_err(|error| Failure::io("becoming root of the user namespace", &error)),
    }
}

/// A user namespace with these mappings in which nothing runs: what an idmapped mount is made with. One thread only.
pub fn namespace(uids: &[IdMapping], gids: &[IdMapping]) -> Result<OwnedFd, Failure> {
    let doing = "making a user namespace for mappings";
    let io = |error: io::Error| Failure::io(doing, &error);
    let (ours, theirs) = socket::pair().map_err(io)?;
    let pid = match process::clone(&process::Clone {
        namespaces: libc::CLONE_NEWUSER,
        ..process::Clone::default()
    })
    .map_err(io)?
    {
        process::Side::Parent(pid) => pid,
        process::Side::Child => {
            // Only copies of our own ends: the parent's end of file is to end this process.
            process::close_between(3, theirs_below(&theirs));
            process::close_between(theirs_above(&theirs), u32::MAX);
            drop(socket::receive(theirs.as_fd(), &mut [0u8; 1]));
            process::exit_now(0)
        }
    };
    drop(theirs);
    let opened = write_maps(pid, uids, gids)
        .and_then(|()| file::open(&format!("/proc/{pid}/ns/user"), libc::O_RDONLY).map_err(io));
    drop(ours);
    drop(process::wait(pid, 0));
    opened
}

fn number_of(fd: &OwnedFd) -> u32 {
    use std::os::fd::AsRawFd;
    fd.as_raw_fd().cast_unsigned()
}

fn theirs_below(fd: &OwnedFd) -> u32 {
    number_of(fd).saturating_sub(1)
}

fn theirs_above(fd: &OwnedFd) -> u32 {
    number_of(fd) + 1
}

/// Sets the clocks of the time namespace that this process has unshared and not entered (time_namespaces(7)).
pub(crate) fn set_time_offsets(offsets: &BTreeMap<String, TimeOffset>) -> Result<(), Failure> {
    if offsets.is_empty() {
        return Ok(());
    }
    let text: String = offsets
        .iter()
        .map(|(clock, offset)| format!("{clock} {} {}\n", offset.secs, offset.nanosecs))
        .collect();
    fs::write("/proc/self/timens_offsets", &text).map_err(|error| {
        Failure::io(
            format!(
                "setting linux.timeOffsets {}",
                text.trim().replace('\n', ", ")
            ),
            &error,
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(container_id: u32, host_id: u32, size: u32) -> IdMapping {
        IdMapping {
            container_id,
            host_id,
            size,
        }
    }

    #[test]
    fn validate_names_ranges_that_cannot_be() {
        validate("x", &[mapping(0, 1000, 10), mapping(10, 5000, 1)]).expect("good");
        for (bad, word) in [
            (vec![mapping(0, 0, 0)], "size 0"),
            (vec![mapping(0, u32::MAX, 2)], "last id"),
            (vec![mapping(0, 1000, 10), mapping(9, 5000, 1)], "overlap"),
            (vec![mapping(0, 1000, 10), mapping(10, 1009, 1)], "overlap"),
        ] {
            let failure = validate("linux.uidMappings", &bad).expect_err(word);
            assert!(failure.message.contains(word), "{failure}");
        }
    }

    #[test]
    fn lines_are_what_the_kernel_reads() {
        assert_eq!(
            lines(&[mapping(0, 1000, 10), mapping(10, 5000, 1)]),
            "0 1000 10\n10 5000 1\n"
        );
    }

    #[test]
    fn namespace_carries_its_mapping() {
        if process::effective_uid() != 0 {
            eprintln!("skipped: not root");
            return;
        }
        let made = namespace(&[mapping(0, 1000, 10)], &[mapping(0, 2000, 10)]).expect("made");
        let theirs = fs::read_link(file::proc_path(&made)).expect("link");
        assert_ne!(theirs, fs::read_link("/proc/self/ns/user").expect("link"));
    }
}
