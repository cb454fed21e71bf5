//! Which namespaces a container makes, which it joins, and which it shares with its maker (config-linux.md "Namespaces").

use shoal_protocol::{Failure, oci};

/// `CLONE_NEWTIME` of <linux/sched.h>; unshare(2), setns(2) and clone3(2) take it.
pub const NEWTIME: i32 = 0x80;

/// Every kind that the specification has: its name there and its flag.
pub const KINDS: [(&str, i32); 8] = [
    ("mount", libc::CLONE_NEWNS),
    ("pid", libc::CLONE_NEWPID),
    ("network", libc::CLONE_NEWNET),
    ("uts", libc::CLONE_NEWUTS),
    ("ipc", libc::CLONE_NEWIPC),
    ("cgroup", libc::CLONE_NEWCGROUP),
    ("user", libc::CLONE_NEWUSER),
    ("time", NEWTIME),
];

/// A namespace that is there already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    pub kind: i32,
    pub path: String,
}

/// The namespaces of one container. A kind that is neither new nor joined is the maker's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// `CLONE_NEW*` flags of the new ones.
    pub new: i32,
    pub joins: Vec<Join>,
}

impl Namespaces {
    /// Reads the list; a kind that is unknown or named twice, and a path that is not absolute, is refused by name.
    pub fn read(list: &[oci::Namespace]) -> Result<Self, Failure> {
        let mut read = Self::default();
        for namespace in list {
            let doing = || format!("reading linux.namespaces {:?}", namespace.kind);
            let kind = flag(&namespace.kind).ok_or_else(|| {
                Failure::invalid(
                    doing(),
                    format!("namespace type {:?} does not exist", namespace.kind),
                )
            })?;
            if read.has(kind) {
                return Err(Failure::invalid(doing(), "it is named twice"));
            }
            match namespace.path.as_deref().filter(|path| !path.is_empty()) {
                None => read.new |= kind,
                Some(path) if path.starts_with('/') && !path.contains('\0') => {
                    read.joins.push(Join {
                        kind,
                        path: path.to_owned(),
                    });
                }
                Some(path) => {
                    return Err(Failure::invalid(
                        doing(),
                        format!("path {path:?} is not absolute or holds a NUL byte"),
                    ));
                }
            }
        }
        Ok(read)
    }

    /// Whether one of this kind is made.
    pub fn makes(&self, kind: i32) -> bool {
        self.new & kind != 0
    }

    /// Whether one of this kind is joined.
    pub fn joins(&self, kind: i32) -> bool {
        self.joins.iter().any(|join| join.kind == kind)
    }

    /// Whether the container is in another one of this kind than its maker (as far as its configuration tells).
    pub fn has(&self, kind: i32) -> bool {
        self.makes(kind) || self.joins(kind)
    }

    /// All kinds that the container has for itself, as flags for setns(2).
    pub fn flags(&self) -> i32 {
        self.joins
            .iter()
            .fold(self.new, |all, join| all | join.kind)
    }

    /// Whether a process between maker and init is needed: pid and time namespaces hold only for children of who enters them, and
    /// a user namespace that was joined must own what is made next.
    pub fn need_two_steps(&self) -> bool {
        self.makes(NEWTIME)
            || self.joins(libc::CLONE_NEWPID)
            || self.joins(libc::CLONE_NEWUSER)
            || (self.makes(libc::CLONE_NEWUSER) && !self.joins.is_empty())
    }
}

/// The flag of a kind by the specification's name.
pub fn flag(name: &str) -> Option<i32> {
    KINDS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, flag)| *flag)
}

/// The specification's name of a kind.
pub fn name(kind: i32) -> &'static str {
    KINDS
        .iter()
        .find(|(_, flag)| *flag == kind)
        .map_or("unknown", |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[(&str, Option<&str>)]) -> Vec<oci::Namespace> {
        entries
            .iter()
            .map(|(kind, path)| oci::Namespace {
                kind: (*kind).into(),
                path: path.map(Into::into),
            })
            .collect()
    }

    #[test]
    fn read_tells_new_joined_and_shared_apart() {
        let read = Namespaces::read(&list(&[
            ("mount", None),
            ("pid", Some("")),
            ("network", Some("/proc/1/ns/net")),
        ]))
        .expect("namespaces");
        assert!(read.makes(libc::CLONE_NEWNS) && read.makes(libc::CLONE_NEWPID));
        assert!(read.joins(libc::CLONE_NEWNET) && !read.makes(libc::CLONE_NEWNET));
        assert!(!read.has(libc::CLONE_NEWUTS) && !read.need_two_steps());
    }

    #[test]
    fn need_two_steps_where_a_child_must_come_after_a_join() {
        for (entries, two) in [
            (vec![("user", None), ("pid", None)], false),
            (vec![("user", None), ("network", Some("/n"))], true),
            (vec![("user", Some("/u"))], true),
            (vec![("pid", Some("/p"))], true),
            (vec![("time", None)], true),
            (vec![("time", Some("/t"))], false),
        ] {
            let read = Namespaces::read(&list(&entries)).expect("namespaces");
            assert_eq!(read.need_two_steps(), two, "{entries:?}");
        }
    }

    #[test]
    fn read_refuses_by_name() {
        for (entries, word) in [
            (vec![("nope", None)], "nope"),
            (vec![("pid", None), ("pid", Some("/p"))], "twice"),
            (vec![("pid", Some("p"))], "\"p\""),
        ] {
            let failure = Namespaces::read(&list(&entries)).expect_err(word);
            assert!(failure.to_string().contains(word), "{failure}");
        }
    }
}
