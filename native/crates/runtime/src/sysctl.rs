//! Kernel settings of the container's own namespaces, written through a private procfs that nothing in the image can shadow.

use crate::sys::{Calls, Draft, file, mount};
use shoal_protocol::Failure;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// statfs(2)'s type of procfs.
pub const PROC_SUPER_MAGIC: i64 = 0x9fa0;

/// Refuses settings that would reach beyond the namespaces which the container owns (`CLONE_NEW*`).
pub fn validate(settings: &BTreeMap<String, String>, owned: u64) -> Result<(), Failure> {
    let owns = |kind: libc::c_int| owned & u64::from(kind.cast_unsigned()) != 0;
    settings.iter().try_for_each(|(key, value)| {
        let refuse = |why: String| Err(Failure::invalid("reading linux.sysctl", why));
        if key.contains('\0') || value.contains('\0') {
            return refuse(format!("{key:?}={value:?} holds a NUL byte"));
        }
        // As sysctl(8): with a slash before the first dot, slashes part the names and dots are dots.
        let name = path(key).replace('/', ".");
        let clean = path(key)
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != "..");
        let needed = namespace_of(&name).filter(|_| clean);
        if name == "kernel.hostname" {
            return refuse(format!(
                "{key:?} is not allowed as it conflicts with the field hostname; name it there"
            ));
        }
        match needed {
            Some((kind, _)) if owns(kind) => Ok(()),
            Some((_, word)) => refuse(format!(
                "{key:?} needs {word} namespace of the container's own; add one, or leave the setting out"
            )),
            None => refuse(format!(
                "{key:?} is not a setting of the container's own namespaces; allowed are net.*, kernel.shm*, kernel.msg*, kernel.sem, fs.mqueue.* and kernel.domainname"
            )),
        }
    })
}

/// The namespace that a setting belongs to (sysctl's permissions in ipc/ipc_sysctl.c, net/sysctl_net.c, kernel/utsname_sysctl.c).
fn namespace_of(name: &str) -> Option<(libc::c_int, &'static str)> {
    const IPC: [&str; 10] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.msg_next_id",
        "kernel.sem",
        "kernel.sem_next_id",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    if name.starts_with("net.") {
        Some((libc::CLONE_NEWNET, "a network"))
    } else if IPC.contains(&name) || name == "kernel.shm_next_id" || name.starts_with("fs.mqueue.")
    {
        Some((libc::CLONE_NEWIPC, "an ipc"))
    } else if name == "kernel.domainname" {
        Some((libc::CLONE_NEWUTS, "a uts"))
    } else {
        None
    }
}

/// The path of a setting below /proc/sys.
fn path(key: &str) -> String {
    match (key.find('/'), key.find('.')) {
        // net/ipv4/conf/eth0.1/... keeps its dots; net.ipv4.conf.eth0/1.x has them exchanged.
        (Some(slash), dot) if dot.is_none_or(|dot| slash < dot) => key.to_owned(),
        (Some(_), _) => key
            .chars()
            .map(|letter| match letter {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect(),
        (None, _) => key.replace('.', "/"),
    }
}

/// A procfs of the current pid namespace that is mounted nowhere.
pub fn private_proc(calls: &dyn Calls) -> Result<OwnedFd, Failure> {
    Draft::new(calls, "proc")
        .and_then(|draft| draft.mount(mount::ATTR_NOSUID | mount::ATTR_NODEV | mount::ATTR_NOEXEC))
        .map_err(|error| Failure::io("mounting a private procfs", &error))
}

/// Writes the settings of the current namespaces.
pub fn apply(
    calls: &dyn Calls,
    proc_root: BorrowedFd<'_>,
    settings: &BTreeMap<String, String>,
) -> Result<(), Failure> {
    settings.iter().try_for_each(|(key, value)| {
        let resolve = file::NO_XDEV | file::NO_SYMLINKS;
        calls
            .open_at2(
                proc_root,
                &format!("sys/{}", path(key)),
                libc::O_WRONLY,
                resolve,
            )
            .and_then(|fd| {
                if calls.file_system(fd.as_fd())? != PROC_SUPER_MAGIC {
                    return Err(std::io::Error::from_raw_os_error(libc::EXDEV));
                }
                calls.write(fd.as_fd(), value.as_bytes())
            })
            .map_err(|error| Failure::io(format!("setting sysctl {key} to {value:?}"), &error))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validate_allows_own_namespaces_only() {
        let one = |key: &str| BTreeMap::from([(key.to_owned(), "1".to_owned())]);
        let (net, ipc, uts) = (libc::CLONE_NEWNET, libc::CLONE_NEWIPC, libc::CLONE_NEWUTS);
        for (key, owned, good) in [
            ("net.ipv4.ip_forward", net | ipc, true),
            ("net/ipv4/conf/eth0.1/forwarding", net, true),
            ("net.ipv4.ip_forward", ipc, false),
            ("kernel.shmmax", ipc, true),
            ("kernel.sem", net, false),
            ("fs.mqueue.msg_max", ipc, true),
            ("kernel.domainname", uts, true),
            ("kernel.hostname", ipc | uts, false),
            ("kernel.core_pattern", net | ipc | uts, false),
            ("kernel.msgfoo", ipc, false),
            ("vm.swappiness", net | ipc | uts, false),
            ("net..x", net, false),
            ("net/../kernel/core_pattern", net, false),
            ("net.ipv4/../../x", net, false),
            ("net", net, false),
        ] {
            let owned = u64::from(owned.cast_unsigned());
            let checked = validate(&one(key), owned);
            assert_eq!(checked.is_ok(), good, "{key}");
            if let Err(failure) = checked {
                assert!(failure.message.contains(key), "{failure}");
            }
        }
    }

    #[test]
    fn path_is_as_sysctl_reads_it() {
        for (key, want) in [
            ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
            ("net/ipv4/conf/eth0.1/x", "net/ipv4/conf/eth0.1/x"),
            ("net.ipv4.conf.eth0/1.x", "net/ipv4/conf/eth0.1/x"),
        ] {
            assert_eq!(path(key), want);
        }
    }
}
