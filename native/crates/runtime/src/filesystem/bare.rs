//! Without pivot_root (`--no-pivot`) the host's mounts stay in the container's namespace, out of reach: those of procfs and sysfs must go all
//! the same, as with one of them there the kernel lets a user namespace mount such a file system of its own, without our masks
//! (mount_too_revealing of fs/namespace.c). Also those that another mount hides.

use crate::cgroup::detect::unescape;
use crate::sys::{Calls, file, is};
use std::collections::BTreeSet;
use std::ffi::CString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Most mounts that are taken away, one a step; a namespace holds 100,000 (fs.mount-max), and few of them are of these kinds.
const STEPS_MAX: usize = 10_000;

/// One line of mountinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount {
    id: u64,
    point: PathBuf,
    kind: String,
}

/// Takes every procfs and sysfs away that is not in the container's root, `place` of the host. With `peers` the host would see it: its
/// mounts are made to listen only, before.
pub(super) fn unmount(calls: &dyn Calls, place: &Path, peers: bool) -> io::Result<()> {
    // /proc itself is among what goes. A thread may have a namespace of its own.
    let table = file::open("/proc/thread-self/mountinfo", libc::O_RDONLY)?;
    let read = || file::read_again(table.as_fd()).map(|text| parse(&text));
    if peers {
        for mount in read()?
            .iter()
            .filter(|mount| !mount.point.starts_with(place))
        {
            match calls.mount("", &mount.point.to_string_lossy(), "", libc::MS_SLAVE, "") {
                // What cannot be reached cannot be unmounted either before it can.
                Err(error) if is(&error, libc::EINVAL) || is(&error, libc::ENOENT) => {}
                other => other?,
            }
        }
    }
    // A user namespace may not unmount what it has inherited.
    let mut locked = BTreeSet::new();
    for _ in 0..STEPS_MAX {
        let mounts = read()?;
        let bare = mounts.iter().rev().find(|mount| {
            let wanted = matches!(mount.kind.as_str(), "proc" | "sysfs");
            wanted && !mount.point.starts_with(place) && !locked.contains(&mount.id)
        });
        let Some(bare) = bare else {
            return Ok(());
        };
        let top = found_at(&mounts, &bare.point)?;
        if top.id != bare.id && place.starts_with(&top.point) {
            return Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                format!(
                    "the {} on {} lies under the mount on {}, where the container's root is; unmount it before",
                    bare.kind,
                    bare.point.display(),
                    top.point.display()
                ),
            ));
        }
        let point = CString::new(top.point.as_os_str().as_bytes())?;
        match calls.unmount(&point, libc::MNT_DETACH) {
            Err(error) if is(&error, libc::EINVAL) => drop(locked.insert(bare.id)),
            other => other?,
        }
    }
    Err(io::Error::other(format!(
        "there are more than {STEPS_MAX} mounts of procfs and sysfs"
    )))
}

/// The mount that one comes to by a path, or by as much of it as there is: the last one that was put there or above.
fn found_at<'a>(mounts: &'a [Mount], point: &Path) -> io::Result<&'a Mount> {
    let mut path = point;
    loop {
        match file::open(&path.to_string_lossy(), libc::O_PATH | libc::O_NOFOLLOW) {
            Ok(at) => {
                let id = file::mount_id(at.as_fd())?;
                let found = mounts.iter().find(|mount| mount.id == id);
                return found.ok_or_else(|| io::Error::from_raw_os_error(libc::EAGAIN));
            }
            Err(error) => path = path.parent().ok_or(error)?,
        }
    }
}

fn parse(table: &str) -> Vec<Mount> {
    table
        .lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let mut fields = left.split(' ');
            Some(Mount {
                id: fields.next()?.parse().ok()?,
                point: unescape(fields.nth(3)?),
                kind: right.split(' ').next()?.to_owned(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_reads_what_matters_of_a_line() {
        let table = "24 27 0:6 / /dev rw - devtmpfs devtmpfs rw\n45 44 0:39 / /tmp/a\\040b/proc rw shared:7 - proc proc rw\nx\n7 x - y\n";
        let read = parse(table);
        assert_eq!(read.len(), 2);
        assert_eq!(
            read[1],
            Mount {
                id: 45,
                point: "/tmp/a b/proc".into(),
                kind: "proc".into()
            }
        );
    }

    #[test]
    fn found_at_is_the_mount_that_a_path_leads_to() {
        let table = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        let mounts = parse(&table);
        let proc = found_at(&mounts, Path::new("/proc")).expect("found");
        assert_eq!(
            (proc.kind.as_str(), proc.point.as_path()),
            ("proc", Path::new("/proc"))
        );
        // As much of it as there is.
        let same = found_at(&mounts, Path::new("/proc/none/at/all")).expect("found");
        assert_eq!(same, proc);
    }
}
