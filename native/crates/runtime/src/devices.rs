//! The device nodes and links of a container's /dev: those of runtime-spec's "Default Devices", and those that the configuration names.

use crate::sys::{Calls, Kernel, is};
use crate::within::{self, Kind};
use shoal_protocol::{Failure, oci};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Most devices of one container.
pub const DEVICES_MAX: usize = 4096;

/// (path, major, minor), all character devices with mode 0666.
const DEFAULTS: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// A device to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Where it is, from the root.
    pub path: Vec<String>,
    /// `S_IFCHR`, `S_IFBLK` or `S_IFIFO`.
    pub kind: u32,
    pub major: u32,
    pub minor: u32,
    /// Permissions.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// Reads the configuration's devices.
pub fn plan(devices: &[oci::Device]) -> Result<Vec<Node>, Failure> {
    if devices.len() > DEVICES_MAX {
        return Err(Failure::invalid(
            "reading linux.devices",
            format!(
                "{} devices are over the limit of {DEVICES_MAX}",
                devices.len()
            ),
        ));
    }
    devices.iter().map(planned).collect()
}

/// These devices and the default ones that are not among them.
pub fn with_defaults(named: &[Node]) -> Vec<Node> {
    let mut nodes = named.to_vec();
    for (name, major, minor) in DEFAULTS {
        let path = vec!["dev".to_owned(), name.to_owned()];
        if nodes.iter().all(|node| node.path != path) {
            nodes.push(Node {
                path,
                kind: libc::S_IFCHR,
                major,
                minor,
                mode: 0o666,
                uid: 0,
                gid: 0,
            });
        }
    }
    nodes
}

fn planned(device: &oci::Device) -> Result<Node, Failure> {
    let doing = "reading linux.devices.path";
    let path = within::components(doing, &device.path)?;
    if path.is_empty() {
        return Err(Failure::invalid(
            doing,
            "it is the root; name a file below it",
        ));
    }
    let refuse = |field: &str, why: String| {
        Err(Failure::invalid(
            format!("reading linux.devices {:?}", device.path),
            format!("{field} {why}"),
        ))
    };
    let kind = match device.kind.as_str() {
        "c" | "u" => libc::S_IFCHR,
        "b" => libc::S_IFBLK,
        "p" => libc::S_IFIFO,
        other => return refuse("type", format!("{other:?} is not one of c, u, b and p")),
    };
    // A fifo has no number, whatever is written there.
    let number = |value: i64| match u32::try_from(value) {
        _ if kind == libc::S_IFIFO => Ok(0),
        Ok(number) => Ok(number),
        Err(_) => Err(value),
    };
    let (major, minor) = match (number(device.major), number(device.minor)) {
        (Ok(major), Ok(minor)) => (major, minor),
        (Err(value), _) => return refuse("major", format!("{value} is not a device number")),
        (_, Err(value)) => return refuse("minor", format!("{value} is not a device number")),
    };
    Ok(Node {
        path,
        kind,
        major,
        minor,
        mode: device.file_mode.unwrap_or(0o666) & 0o7777,
        uid: device.uid.unwrap_or(0),
        gid: device.gid.unwrap_or(0),
    })
}

/// Makes the nodes and links. With `bind`, nodes are the host's, bound one by one (for a /dev that is mounted nodev).
pub fn fill(
    calls: &dyn Calls,
    root: BorrowedFd<'_>,
    nodes: &[Node],
    bind: bool,
) -> Result<(), Failure> {
    let doing = |what: &str| format!("making {what}");
    let dev = within::make_real_directory(calls, root, &["dev".to_owned()])
        .map_err(|error| not_real(&doing("/dev"), &error))?;
    for node in nodes {
        make(calls, root, dev.as_fd(), node, bind)
            .map_err(|error| Failure::io(doing(&format!("/{}", node.path.join("/"))), &error))?;
    }
    for (name, target) in LINKS {
        link(calls, dev.as_fd(), name, target)?;
    }
    // Only where the kernel has it; asked of the host's procfs, as the container's may be masked or missing.
    if calls.open("/proc/kcore", libc::O_PATH).is_ok() {
        link(calls, dev.as_fd(), "core", "/proc/kcore")?;
    }
    Ok(())
}

/// The refusal of an image that has a link or a file where a directory of its own must be.
pub fn not_real(doing: &str, error: &io::Error) -> Failure {
    if is(error, libc::ELOOP) || is(error, libc::ENOTDIR) {
        return Failure::invalid(
            doing,
            "it must be mounted on ordinary directory, and is a symlink or a file in the image; use an image that has a real directory there",
        );
    }
    Failure::io(doing, error)
}

fn link(calls: &dyn Calls, dev: BorrowedFd<'_>, name: &str, target: &str) -> Result<(), Failure> {
    let made = match calls.symlink_at(target, dev, name) {
        // The image's own /dev/ptmx would open the host's terminals: ours replaces it. Others may stay.
        Err(error) if is(&error, libc::EEXIST) && name == "ptmx" => calls
            .unlink_at(dev, name)
            .and_then(|()| calls.symlink_at(target, dev, name)),
        Err(error) if is(&error, libc::EEXIST) => Ok(()),
        other => other,
    };
    made.map_err(|error| Failure::io(format!("linking /dev/{name} to {target}"), &error))
}

/// The host's /dev/null, proven to be it, for what reads and writes nothing.
pub fn null(flags: i32) -> io::Result<OwnedFd> {
    null_by(&Kernel, flags)
}

/// As `null`, by these calls.
pub(crate) fn null_by(calls: &dyn Calls, flags: i32) -> io::Result<OwnedFd> {
    let fd = calls.open("/dev/null", flags)?;
    prove(calls, fd.as_fd(), libc::S_IFCHR, 1, 3)?;
    Ok(fd)
}

fn prove(
    calls: &dyn Calls,
    fd: BorrowedFd<'_>,
    kind: u32,
    major: u32,
    minor: u32,
) -> io::Result<()> {
    let found = calls.stat(fd)?;
    let right = found.is(kind) && (found.major, found.minor) == (major, minor);
    if right {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::ENODEV))
    }
}

fn make(
    calls: &dyn Calls,
    root: BorrowedFd<'_>,
    dev: BorrowedFd<'_>,
    node: &Node,
    bind: bool,
) -> io::Result<()> {
    let Some((name, above)) = node.path.split_last() else {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    };
    if above == ["dev"] {
        return make_in(calls, dev, name, node, bind);
    }
    let parent = within::make(calls, root, above, Kind::Directory)?;
    make_in(calls, parent.as_fd(), name, node, bind)
}

fn make_in(
    calls: &dyn Calls,
    parent: BorrowedFd<'_>,
    name: &str,
    node: &Node,
    bind: bool,
) -> io::Result<()> {
    if bind && node.kind != libc::S_IFIFO {
        return bind_node(calls, parent, name, node);
    }
    match calls.make_node_at(
        parent,
        name,
        node.kind | node.mode,
        (node.major, node.minor),
    ) {
        // Not allowed in a user namespace.
        Err(error) if is(&error, libc::EPERM) && node.kind != libc::S_IFIFO => {
            bind_node(calls, parent, name, node)
        }
        // The image's own, or one that is named twice: good when it is that device.
        Err(error) if is(&error, libc::EEXIST) => {
            let there = calls.open_at(parent, name, libc::O_PATH | libc::O_NOFOLLOW, 0)?;
            let found = calls.stat(there.as_fd())?;
            let device = (found.major, found.minor) == (node.major, node.minor);
            if found.is(node.kind) && (device || node.kind == libc::S_IFIFO) {
                Ok(())
            } else {
                Err(error)
            }
        }
        Err(error) => Err(error),
        Ok(()) if (node.uid, node.gid) != (0, 0) => {
            calls.change_owner_at(parent, name, node.uid, node.gid)
        }
        Ok(()) => Ok(()),
    }
}

/// The host's device of the same path, proven to be the one that was asked for, over an empty file.
fn bind_node(calls: &dyn Calls, parent: BorrowedFd<'_>, name: &str, node: &Node) -> io::Result<()> {
    let host = calls.open(&format!("/{}", node.path.join("/")), libc::O_PATH)?;
    prove(calls, host.as_fd(), node.kind, node.major, node.minor)?;
    let flags = libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_WRONLY;
    match calls.open_at(parent, name, flags, 0o666) {
        Err(error) if !is(&error, libc::EEXIST) => return Err(error),
        made => drop(made),
    }
    let target = calls.open_at(parent, name, libc::O_PATH | libc::O_NOFOLLOW, 0)?;
    if calls.stat(target.as_fd())?.is(libc::S_IFLNK) {
        return Err(io::Error::from_raw_os_error(libc::ELOOP));
    }
    let tree = calls.clone_tree(host.as_fd(), false)?;
    calls.attach(tree.as_fd(), target.as_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(path: &str, kind: &str, major: i64, minor: i64) -> oci::Device {
        oci::Device {
            path: path.into(),
            kind: kind.into(),
            major,
            minor,
            ..oci::Device::default()
        }
    }

    #[test]
    fn the_defaults_that_are_not_named_are_added() {
        let own = oci::Device {
            file_mode: Some(0o600),
            uid: Some(7),
            ..device("/dev/null", "c", 1, 3)
        };
        let planned = plan(&[own, device("/dev/fuse", "c", 10, 229)]).expect("nodes");
        let nodes = with_defaults(&planned);
        assert_eq!(nodes.len(), 7);
        assert_eq!((nodes[0].mode, nodes[0].uid), (0o600, 7));
        assert_eq!(nodes[1].path, ["dev", "fuse"]);
        let names = nodes.iter().filter(|node| node.path == ["dev", "null"]);
        assert_eq!(names.count(), 1);
    }

    #[test]
    fn plan_refuses_what_is_no_device() {
        for (bad, word) in [
            (device("", "c", 1, 1), "path"),
            (device("/", "c", 1, 1), "path"),
            (device("/dev/../x", "c", 1, 1), "/dev/../x"),
            (device("/dev/x", "q", 1, 1), "\"q\""),
            (device("/dev/x", "c", -1, 1), "major -1"),
            (device("/dev/x", "b", 1, 1 << 40), "minor"),
        ] {
            let failure = plan(&[bad]).expect_err(word);
            assert!(failure.to_string().contains(word), "{failure}");
        }
        plan(&[device("/run/pipe", "p", -1, -1)]).expect("a fifo has no number");
    }
}
