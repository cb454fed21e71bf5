//! Kernel settings of the container's own namespaces, written through a private procfs that nothing in the image can shadow.

use crate::sys::{file, mount};
use shoal_protocol::Failure;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const PROC_SUPER_MAGIC: i64 = 0x9fa0;

/// Refuses settings that would reach beyond the namespaces which the container owns.
pub fn validate(
    settings: &BTreeMap<String, String>,
    own_network: bool,
    own_ipc: bool,
) -> Result<(), Failure> {
    settings.keys().try_for_each(|key| {
        let clean = key.split(['.', '/']).all(|part| !part.is_empty());
        let ipc = key.starts_with("kernel.shm")
            || key.starts_with("kernel.msg")
            || key == "kernel.sem"
            || key.starts_with("fs.mqueue.");
        let allowed = clean && ((own_network && key.starts_with("net.")) || (own_ipc && ipc));
        if allowed {
            return Ok(());
        }
        Err(Failure::invalid(
            "reading linux.sysctl",
            format!("{key:?} is not a setting of the container's own namespaces; allowed are net.*, kernel.shm*, kernel.msg*, kernel.sem and fs.mqueue.*"),
        ))
    })
}

/// A procfs of the current pid namespace that is mounted nowhere.
pub fn private_proc() -> Result<OwnedFd, Failure> {
    mount::Draft::new("proc")
        .and_then(|draft| draft.mount(mount::ATTR_NOSUID | mount::ATTR_NODEV | mount::ATTR_NOEXEC))
        .map_err(|error| Failure::io("mounting a private procfs", &error))
}

/// Writes the settings of the current namespaces.
pub fn apply(
    proc_root: BorrowedFd<'_>,
    settings: &BTreeMap<String, String>,
) -> Result<(), Failure> {
    settings.iter().try_for_each(|(key, value)| {
        // As sysctl(8): a key with a slash keeps its dots (net/ipv4/conf/eth0.1/...).
        let path = if key.contains('/') {
            key.clone()
        } else {
            key.replace('.', "/")
        };
        let resolve = file::NO_XDEV | file::NO_SYMLINKS;
        file::open_at2(proc_root, &format!("sys/{path}"), libc::O_WRONLY, resolve)
            .and_then(|fd| {
                if file::file_system(fd.as_fd())? != PROC_SUPER_MAGIC {
                    return Err(std::io::Error::from_raw_os_error(libc::EXDEV));
                }
                File::from(fd).write_all(value.as_bytes())
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
        for (key, network, ipc, good) in [
            ("net.ipv4.ip_forward", true, true, true),
            ("net.ipv4.ip_forward", false, true, false),
            ("kernel.shmmax", true, true, true),
            ("kernel.sem", true, false, false),
            ("fs.mqueue.msg_max", true, true, true),
            ("kernel.core_pattern", true, true, false),
            ("vm.swappiness", true, true, false),
            ("net..x", true, true, false),
            ("net./x", true, true, false),
        ] {
            assert_eq!(validate(&one(key), network, ipc).is_ok(), good, "{key}");
        }
    }
}
