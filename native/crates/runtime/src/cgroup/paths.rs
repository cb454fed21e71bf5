//! Which group `linux.cgroupsPath` means, as an absolute path below every hierarchy's mount.

use super::detect;
use crate::proc;
use shoal_protocol::Failure;

const FIELD: &str = "reading linux.cgroupsPath";
/// Longest name of one group: a directory's (NAME_MAX).
const NAME_BYTES_MAX: usize = 255;
/// Longest path of a group, short enough for every file below it to be named (PATH_MAX is 4096).
const PATH_BYTES_MAX: usize = 3072;

/// The group of a container:
/// - `/a/b` is below the mount of every hierarchy;
/// - `a/b`, and the id when nothing is said, are below the root of the hierarchies on v1 and hybrid (as crun has it: only so
///   is the path one and the same in all of them, whoever asks later), and beside the caller's own group on v2 (as runc has
///   it: the caller's own holds the caller and can therefore not be given controllers);
/// - with `systemd`, `slice:prefix:name` is the directory that systemd would make for that unit; nothing said is
///   `system.slice:shoal:ID` for root and `user.slice:shoal:ID` for others.
///
/// Refused, with the field named: `..`, the root itself, names that a directory cannot have, and a broken slice.
pub fn resolve(cgroups_path: &str, systemd: bool, id: &str) -> Result<String, Failure> {
    // SAFETY: no pointers.
    let root = unsafe { libc::geteuid() } == 0;
    let own = proc::read("/proc/self/cgroup")
        .map_err(|error| Failure::io("reading /proc/self/cgroup", &error))?;
    resolve_as(cgroups_path, systemd, id, root, &own)
}

fn resolve_as(
    cgroups_path: &str,
    systemd: bool,
    id: &str,
    root: bool,
    own: &str,
) -> Result<String, Failure> {
    let path = if systemd {
        unit(cgroups_path, id, root)?
    } else if cgroups_path.starts_with('/') {
        cgroups_path.to_owned()
    } else {
        let below = if cgroups_path.is_empty() {
            id
        } else {
            cgroups_path
        };
        format!("{}/{below}", beside(own))
    };
    let parts = check(&path)?;
    Ok(parts
        .iter()
        .fold(String::new(), |path, part| path + "/" + part))
}

/// Refuses a path that is not absolute, could leave the hierarchy, or cannot be made.
pub fn check(path: &str) -> Result<Vec<String>, Failure> {
    let refuse = |why: &str| Err(Failure::invalid(FIELD, format!("path {path:?} {why}")));
    let parts = crate::within::components(FIELD, path)?;
    if parts.is_empty() {
        return refuse("is the root of the hierarchy; name a group of the container's own");
    }
    if path.len() > PATH_BYTES_MAX {
        return Err(Failure::invalid(
            FIELD,
            format!(
                "it has {} bytes, over the limit of {PATH_BYTES_MAX}",
                path.len()
            ),
        ));
    }
    if parts.iter().any(|part| part.len() > NAME_BYTES_MAX) {
        return refuse("has a name of more than 255 bytes");
    }
    if path.contains('\n') {
        return refuse("holds a line end, which the kernel refuses");
    }
    Ok(parts)
}

/// The group in which the caller's own lies, on pure v2; else the root.
fn beside(own: &str) -> &str {
    match detect::own_unified(own) {
        Some(path) if own.lines().count() == 1 => path.rsplit_once('/').map_or("", |(dir, _)| dir),
        _ => "",
    }
}

/// The directory of a systemd unit.
fn unit(cgroups_path: &str, id: &str, root: bool) -> Result<String, Failure> {
    let default = if root { "system.slice" } else { "user.slice" };
    let parts: Vec<&str> = cgroups_path.split(':').collect();
    let (slice, prefix, name) = match parts[..] {
        [""] => (default, "shoal", id),
        ["", prefix, name] => (default, prefix, name),
        [slice, prefix, name] => (slice, prefix, name),
        _ => {
            return Err(Failure::invalid(
                FIELD,
                format!(
                    "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {cgroups_path:?} instead"
                ),
            ));
        }
    };
    let scope = match (name, prefix) {
        ("", _) => {
            return Err(Failure::invalid(
                FIELD,
                format!("{cgroups_path:?} names no unit after its last `:`"),
            ));
        }
        (name, _) if name.ends_with(".slice") => expand(name)?
            .rsplit_once('/')
            .map_or_else(String::new, |(_, last)| last.to_owned()),
        (name, "") => format!("{name}.scope"),
        (name, prefix) => format!("{prefix}-{name}.scope"),
    };
    if scope.contains('/') {
        return Err(Failure::invalid(
            FIELD,
            format!("unit {scope:?} holds a `/`"),
        ));
    }
    Ok(format!("{}/{scope}", expand(slice)?))
}

/// `a-b.slice` lies in `a.slice` (systemd.slice(5)); `-.slice` is the root.
fn expand(slice: &str) -> Result<String, Failure> {
    let invalid = || {
        Failure::invalid(
            FIELD,
            format!("invalid slice name {slice:?}: it must be like a-b.slice"),
        )
    };
    let stem = slice
        .strip_suffix(".slice")
        .filter(|stem| !stem.is_empty() && !stem.contains('/'))
        .ok_or_else(invalid)?;
    if stem == "-" {
        return Ok(String::new());
    }
    let mut path = String::new();
    let mut prefix = String::new();
    for part in stem.split('-') {
        if part.is_empty() {
            return Err(invalid());
        }
        prefix.push_str(part);
        path = format!("{path}/{prefix}.slice");
        prefix.push('-');
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "4:memory:/own\n0::/own\n";
    const V2: &str = "0::/user.slice/session\n";

    #[test]
    fn resolve_reads_absolute_relative_and_absent_paths() {
        for (path, own, want) in [
            ("/shoal/a", V1, "/shoal/a"),
            ("/shoal/a", V2, "/shoal/a"),
            ("//shoal/./a/", V1, "/shoal/a"),
            ("x/y", V1, "/x/y"),
            ("", V1, "/id"),
            ("", V2, "/user.slice/id"),
            ("x/y", V2, "/user.slice/x/y"),
            ("", "0::/\n", "/id"),
        ] {
            assert_eq!(
                resolve_as(path, false, "id", true, own).expect(path),
                want,
                "{path}"
            );
        }
    }

    #[test]
    fn resolve_translates_systemd_units() {
        for (path, root, want) in [
            ("", true, "/system.slice/shoal-id.scope"),
            ("", false, "/user.slice/shoal-id.scope"),
            (
                "system.slice:docker:1234",
                true,
                "/system.slice/docker-1234.scope",
            ),
            (
                "a-b-c.slice:p:n",
                true,
                "/a.slice/a-b.slice/a-b-c.slice/p-n.scope",
            ),
            ("-.slice:p:n", true, "/p-n.scope"),
            (":p:n", true, "/system.slice/p-n.scope"),
            ("m.slice::n", true, "/m.slice/n.scope"),
            ("m.slice:p:m-n.slice", true, "/m.slice/m-n.slice"),
        ] {
            assert_eq!(
                resolve_as(path, true, "id", root, V1).expect(path),
                want,
                "{path}"
            );
        }
    }

    #[test]
    fn resolve_refuses_what_could_leave_the_hierarchy_or_is_no_unit() {
        let long = format!("/{}", "a".repeat(256));
        let deep = "/a".repeat(2000);
        for bad in [
            "/",
            "..",
            "/a/../..",
            "a/../../b",
            "/a\nb",
            "a\0b",
            &long,
            &deep,
        ] {
            let refused = resolve_as(bad, false, "id", true, V1).expect_err(bad);
            assert!(
                refused.to_string().contains("linux.cgroupsPath"),
                "{refused}"
            );
        }
        for bad in [
            "/a/b",
            "a:b",
            "a:b:c",
            "a--b.slice:p:n",
            ".slice:p:n",
            "a/b.slice:p:n",
            "a.slice:p:",
            "a.slice:../p:n",
            "a.slice:p:../../n",
        ] {
            let refused = resolve_as(bad, true, "id", true, V1).expect_err(bad);
            assert!(
                refused.to_string().contains("linux.cgroupsPath"),
                "{refused}"
            );
        }
    }
}
