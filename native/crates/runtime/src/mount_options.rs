//! Mount options in the words of mount(8), told apart into attributes, propagation and file system data.

use crate::sys::mount as sys;
use shoal_protocol::Failure;

/// What a list of options means.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    pub set: u64,
    pub clear: u64,
    /// Attributes that hold for every mount below, as `rro`.
    pub set_recursive: u64,
    /// `MS_PRIVATE` or `MS_SLAVE`; None when not said.
    pub propagation: Option<u64>,
    pub propagation_recursive: bool,
    pub bind: bool,
    pub recursive: bool,
    /// What the file system itself is told: `size=64m`, `newinstance`.
    pub data: Vec<(String, Option<String>)>,
    /// `tmpcopyup`-like extensions are refused; this is Docker's hint for who removes the mount, without meaning here.
    pub create_source: bool,
}

impl Options {
    /// Whether a mount made with these may be written.
    pub fn readonly(&self) -> bool {
        (self.set | self.set_recursive) & sys::ATTR_RDONLY != 0
    }
}

/// Reads a mount's options; one that is not supported is refused by name.
pub fn parse(destination: &str, options: &[String]) -> Result<Options, Failure> {
    let mut read = Options::default();
    for option in options {
        if attribute(&mut read, option) {
            continue;
        }
        match option.as_str() {
            "bind" => read.bind = true,
            "rbind" => (read.bind, read.recursive) = (true, true),
            "defaults" | "async" | "rw" | "suid" | "dev" | "exec" | "atime" | "diratime" => {}
            "private" => read.propagation = Some(libc::MS_PRIVATE),
            "rprivate" => {
                (read.propagation, read.propagation_recursive) = (Some(libc::MS_PRIVATE), true)
            }
            "slave" => read.propagation = Some(libc::MS_SLAVE),
            "rslave" => {
                (read.propagation, read.propagation_recursive) = (Some(libc::MS_SLAVE), true)
            }
            "shared" | "rshared" | "unbindable" | "runbindable" | "remount" | "sync"
            | "dirsync" | "mand" | "tmpcopyup" | "idmap" | "ridmap" => {
                return Err(Failure::invalid(
                    format!("reading the options of the mount on {destination:?}"),
                    format!("option {option:?} is not supported; leave it out"),
                ));
            }
            other => read.data.push(match other.split_once('=') {
                Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                None => (other.to_owned(), None),
            }),
        }
    }
    if read.bind && !read.data.is_empty() {
        return Err(Failure::invalid(
            format!("reading the options of the mount on {destination:?}"),
            format!(
                "option {:?} has no meaning for a bind mount; leave it out",
                read.data[0].0
            ),
        ));
    }
    Ok(read)
}

fn attribute(read: &mut Options, option: &str) -> bool {
    let (set, clear) = match option {
        "ro" => (sys::ATTR_RDONLY, 0),
        "rro" => {
            read.set_recursive |= sys::ATTR_RDONLY;
            (sys::ATTR_RDONLY, 0)
        }
        "nosuid" => (sys::ATTR_NOSUID, 0),
        "nodev" => (sys::ATTR_NODEV, 0),
        "noexec" => (sys::ATTR_NOEXEC, 0),
        "noatime" => (sys::ATTR_NOATIME, sys::ATTR_ATIME),
        // relatime is the value 0 of the atime field, the kernel's default.
        "relatime" => (0, sys::ATTR_ATIME),
        "strictatime" => (sys::ATTR_STRICTATIME, sys::ATTR_ATIME),
        "nodiratime" => (sys::ATTR_NODIRATIME, 0),
        "nosymfollow" => (sys::ATTR_NOSYMFOLLOW, 0),
        _ => return false,
    };
    read.set = (read.set & !clear) | set;
    read.clear |= clear;
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(options: &[&str]) -> Result<Options, Failure> {
        parse(
            "/x",
            &options
                .iter()
                .map(|option| (*option).to_owned())
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn parse_tells_attributes_from_data() {
        let options = read(&[
            "nosuid",
            "strictatime",
            "mode=755",
            "size=65536k",
            "newinstance",
        ])
        .expect("options");
        assert_eq!(options.set, sys::ATTR_NOSUID | sys::ATTR_STRICTATIME);
        assert_eq!(
            options.data,
            [
                ("mode".into(), Some("755".into())),
                ("size".into(), Some("65536k".into())),
                ("newinstance".into(), None)
            ]
        );
    }

    #[test]
    fn parse_reads_binds() {
        let options = read(&["rbind", "ro", "rprivate"]).expect("options");
        assert!(
            options.bind
                && options.recursive
                && options.readonly()
                && options.propagation_recursive
        );
        for bad in [&["rshared"][..], &["rbind", "size=3"], &["sync"]] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }
}
