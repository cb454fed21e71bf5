//! Mount options in the words of mount(8) and of runtime-spec's table, told apart into attributes, propagation and file system data.

use crate::sys::mount as sys;
use shoal_protocol::Failure;

/// What a list of options means.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// `MOUNT_ATTR_*` of the mount itself. What is not named stays as the source of a bind has it.
    pub set: u64,
    pub clear: u64,
    /// Attributes that hold for every mount below too, as `rro`.
    pub set_recursive: u64,
    pub clear_recursive: u64,
    /// `MS_*` of the file system, for those that know more than attributes (`sync`, `dirsync`, ...).
    pub flags: libc::c_ulong,
    /// (`MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE` or `MS_UNBINDABLE`, recursive), in their order.
    pub propagation: Vec<(u64, bool)>,
    pub bind: bool,
    pub recursive: bool,
    /// Change what is mounted at the destination already.
    pub remount: bool,
    /// A tmpfs begins with what the image has at its destination.
    pub copy_up: bool,
    /// Owners are seen by the mappings; recursive or not.
    pub idmap: Option<bool>,
    /// The mappings themselves, as crun has them: `idmap=uids=0-1000-10#10-2000-5;gids=@0-0-10` (see `id_maps`).
    pub id_maps: Option<String>,
    /// A source that is a link becomes a link in the container (crun).
    pub copy_symlink: bool,
    /// The last component of the source is not followed (crun).
    pub source_nofollow: bool,
    /// The last component of the destination is not followed (crun).
    pub target_nofollow: bool,
    /// What the file system itself is told: `size=64m`, `newinstance`. A bind has none to tell, and ignores it.
    pub data: Vec<(String, Option<String>)>,
}

impl Options {
    /// Whether the mount itself is made read-only.
    pub fn readonly(&self) -> bool {
        (self.set | self.set_recursive) & sys::ATTR_RDONLY != 0
    }

    /// Whether any attribute of the mount itself is asked for, to be set or cleared.
    pub fn names_attributes(&self) -> bool {
        (self.set, self.clear) != (0, 0)
    }

    /// Whether a key is among the data.
    pub fn has_data(&self, key: &str) -> bool {
        self.data.iter().any(|(known, _)| known == key)
    }
}

#[derive(Clone, Copy)]
enum Meaning {
    Nothing,
    Set(u64),
    Clear(u64),
    SetAll(u64),
    ClearAll(u64),
    /// A value of the field of access times, which holds one value at a time.
    Atime(u64),
    AtimeAll(u64),
    /// Takes an earlier `noatime` back, and leaves the times of a bind's source as they are.
    Unatime,
    Flag(libc::c_ulong),
    Unflag(libc::c_ulong),
    Propagation(u64, bool),
    Bind(bool),
    Remount,
    CopyUp,
    Idmap(bool),
    CopySymlink,
    SourceNofollow,
    TargetNofollow,
}

use Meaning as M;

/// Every option that the kernel is told otherwise than as data, in the order of the alphabet, by which it is searched (and `features` lists them).
const TABLE: [(&str, Meaning); 67] = [
    ("acl", M::Flag(libc::MS_POSIXACL)),
    ("async", M::Unflag(libc::MS_SYNCHRONOUS)),
    ("atime", M::Unatime),
    ("bind", M::Bind(false)),
    ("copy-symlink", M::CopySymlink),
    ("defaults", M::Nothing),
    ("dest-nofollow", M::TargetNofollow),
    ("dev", M::Clear(sys::ATTR_NODEV)),
    ("diratime", M::Clear(sys::ATTR_NODIRATIME)),
    ("dirsync", M::Flag(libc::MS_DIRSYNC)),
    ("exec", M::Clear(sys::ATTR_NOEXEC)),
    ("idmap", M::Idmap(false)),
    ("iversion", M::Flag(libc::MS_I_VERSION)),
    ("lazytime", M::Flag(MS_LAZYTIME)),
    ("loud", M::Unflag(libc::MS_SILENT)),
    ("mand", M::Flag(libc::MS_MANDLOCK)),
    ("noacl", M::Unflag(libc::MS_POSIXACL)),
    ("noatime", M::Atime(sys::ATTR_NOATIME)),
    ("nodev", M::Set(sys::ATTR_NODEV)),
    ("nodiratime", M::Set(sys::ATTR_NODIRATIME)),
    ("noexec", M::Set(sys::ATTR_NOEXEC)),
    ("noiversion", M::Unflag(libc::MS_I_VERSION)),
    ("nolazytime", M::Unflag(MS_LAZYTIME)),
    ("nomand", M::Unflag(libc::MS_MANDLOCK)),
    // The kernel updates access times relatively unless told otherwise: there is nothing else to go back to.
    ("norelatime", M::Nothing),
    ("nostrictatime", M::Nothing),
    ("nosuid", M::Set(sys::ATTR_NOSUID)),
    ("nosymfollow", M::Set(sys::ATTR_NOSYMFOLLOW)),
    ("private", M::Propagation(libc::MS_PRIVATE, false)),
    ("ratime", M::AtimeAll(0)),
    ("rbind", M::Bind(true)),
    ("rdev", M::ClearAll(sys::ATTR_NODEV)),
    ("rdiratime", M::ClearAll(sys::ATTR_NODIRATIME)),
    ("relatime", M::Atime(0)),
    ("remount", M::Remount),
    ("rexec", M::ClearAll(sys::ATTR_NOEXEC)),
    ("ridmap", M::Idmap(true)),
    ("rnoatime", M::AtimeAll(sys::ATTR_NOATIME)),
    ("rnodev", M::SetAll(sys::ATTR_NODEV)),
    ("rnodiratime", M::SetAll(sys::ATTR_NODIRATIME)),
    ("rnoexec", M::SetAll(sys::ATTR_NOEXEC)),
    ("rnorelatime", M::AtimeAll(0)),
    ("rnostrictatime", M::AtimeAll(0)),
    ("rnosuid", M::SetAll(sys::ATTR_NOSUID)),
    ("rnosymfollow", M::SetAll(sys::ATTR_NOSYMFOLLOW)),
    ("ro", M::Set(sys::ATTR_RDONLY)),
    ("rprivate", M::Propagation(libc::MS_PRIVATE, true)),
    ("rrelatime", M::AtimeAll(0)),
    ("rro", M::SetAll(sys::ATTR_RDONLY)),
    ("rrw", M::ClearAll(sys::ATTR_RDONLY)),
    ("rshared", M::Propagation(libc::MS_SHARED, true)),
    ("rslave", M::Propagation(libc::MS_SLAVE, true)),
    ("rstrictatime", M::AtimeAll(sys::ATTR_STRICTATIME)),
    ("rsuid", M::ClearAll(sys::ATTR_NOSUID)),
    ("rsymfollow", M::ClearAll(sys::ATTR_NOSYMFOLLOW)),
    ("runbindable", M::Propagation(libc::MS_UNBINDABLE, true)),
    ("rw", M::Clear(sys::ATTR_RDONLY)),
    ("shared", M::Propagation(libc::MS_SHARED, false)),
    ("silent", M::Flag(libc::MS_SILENT)),
    ("slave", M::Propagation(libc::MS_SLAVE, false)),
    ("src-nofollow", M::SourceNofollow),
    ("strictatime", M::Atime(sys::ATTR_STRICTATIME)),
    ("suid", M::Clear(sys::ATTR_NOSUID)),
    ("symfollow", M::Clear(sys::ATTR_NOSYMFOLLOW)),
    ("sync", M::Flag(libc::MS_SYNCHRONOUS)),
    ("tmpcopyup", M::CopyUp),
    ("unbindable", M::Propagation(libc::MS_UNBINDABLE, false)),
];

/// Written by fstab(5)'s tools and by Docker's; none of them is for the kernel.
const FOR_TOOLS: [&str; 5] = ["auto", "noauto", "nofail", "_netdev", "nouser"];

/// `MS_LAZYTIME` of <linux/mount.h>, which libc leaves out.
const MS_LAZYTIME: libc::c_ulong = 1 << 25;

/// The names of all options that are understood, for `features`.
pub fn names() -> Vec<&'static str> {
    TABLE.iter().map(|(name, _)| *name).collect()
}

/// What `rootfsPropagation` says: (`MS_*`, recursive); None for a word that is no propagation.
pub fn propagation(word: &str) -> Option<(u64, bool)> {
    match meaning(word)? {
        M::Propagation(kind, recursive) => Some((kind, recursive)),
        _ => None,
    }
}

fn meaning(option: &str) -> Option<Meaning> {
    match TABLE.binary_search_by(|(name, _)| (*name).cmp(option)) {
        Ok(at) => Some(TABLE[at].1),
        Err(_) => FOR_TOOLS.contains(&option).then_some(M::Nothing),
    }
}

/// Reads a mount's options, the later ones over the earlier; what is in no table is the file system's own.
pub fn parse(destination: &str, options: &[String]) -> Result<Options, Failure> {
    let mut read = Options::default();
    for option in options {
        if option.contains('\0') {
            return Err(Failure::invalid(
                format!("reading the options of the mount on {destination:?}"),
                format!("option {option:?} holds a NUL byte"),
            ));
        }
        match meaning(option) {
            Some(meaning) => apply(&mut read, meaning),
            None if option.is_empty() => {}
            None if option.starts_with("idmap=") || option.starts_with("ridmap=") => {
                read.idmap = Some(option.starts_with('r'));
                let (_, text) = option.split_once('=').unwrap_or_default();
                read.id_maps = Some(text.to_owned());
            }
            None => read.data.push(match option.split_once('=') {
                Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                None => (option.clone(), None),
            }),
        }
    }
    Ok(read)
}

fn apply(read: &mut Options, meaning: Meaning) {
    match meaning {
        M::Nothing => {}
        M::Set(bits) => change(&mut read.set, &mut read.clear, bits, 0),
        M::Clear(bits) => change(&mut read.set, &mut read.clear, 0, bits),
        M::Atime(value) => change(&mut read.set, &mut read.clear, value, sys::ATTR_ATIME),
        M::Unatime => {
            if read.set & sys::ATTR_ATIME == sys::ATTR_NOATIME {
                read.set &= !sys::ATTR_ATIME;
            }
        }
        M::SetAll(bits) => change(&mut read.set_recursive, &mut read.clear_recursive, bits, 0),
        M::ClearAll(bits) => change(&mut read.set_recursive, &mut read.clear_recursive, 0, bits),
        M::AtimeAll(value) => change(
            &mut read.set_recursive,
            &mut read.clear_recursive,
            value,
            sys::ATTR_ATIME,
        ),
        M::Flag(flag) => read.flags |= flag,
        M::Unflag(flag) => read.flags &= !flag,
        M::Propagation(kind, recursive) => read.propagation.push((kind, recursive)),
        M::Bind(recursive) => {
            read.bind = true;
            read.recursive |= recursive;
        }
        M::Remount => read.remount = true,
        M::CopyUp => read.copy_up = true,
        M::Idmap(recursive) => read.idmap = Some(recursive),
        M::CopySymlink => read.copy_symlink = true,
        M::SourceNofollow => read.source_nofollow = true,
        M::TargetNofollow => read.target_nofollow = true,
    }
}

/// The field of access times must be cleared to be set; every other bit is either set or cleared.
fn change(set: &mut u64, clear: &mut u64, on: u64, off: u64) {
    *set = (*set & !off) | on;
    *clear = (*clear & !(on & !sys::ATTR_ATIME)) | off;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(options: &[&str]) -> Result<Options, Failure> {
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        parse("/x", &options)
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
        let options = read(&["rbind", "ro", "rprivate", "rslave", "sync"]).expect("options");
        assert!(options.bind && options.recursive && options.readonly());
        assert_eq!(
            options.propagation,
            [(libc::MS_PRIVATE, true), (libc::MS_SLAVE, true)]
        );
        assert_eq!(options.set_recursive, 0, "ro is of the mount itself");
        let options = read(&["rbind", "size=3"]).expect("what crun and runc 1.1 take");
        assert!(options.has_data("size"));
        assert!(read(&["a\0b"]).is_err());
    }

    #[test]
    fn the_later_option_wins() {
        let options = read(&["ro", "rw", "noexec", "suid", "nosuid"]).expect("options");
        assert_eq!(options.set, sys::ATTR_NOEXEC | sys::ATTR_NOSUID);
        assert_eq!(options.clear, sys::ATTR_RDONLY);
        let options = read(&["noatime", "strictatime"]).expect("options");
        assert_eq!(options.set, sys::ATTR_STRICTATIME);
        assert_eq!(options.clear, sys::ATTR_ATIME);
        let options = read(&["rnoatime", "rro", "rrw"]).expect("options");
        assert_eq!(options.set_recursive, sys::ATTR_NOATIME);
        assert_eq!(options.clear_recursive, sys::ATTR_ATIME | sys::ATTR_RDONLY);
    }

    #[test]
    fn every_option_is_found_in_the_table() {
        assert!(TABLE.is_sorted_by(|(one, _), (next, _)| one < next));
        for name in names().into_iter().chain(FOR_TOOLS) {
            assert!(meaning(name).is_some(), "{name}");
        }
        for name in ["", "zz", "_", "siz", "ro "] {
            assert!(meaning(name).is_none(), "{name}");
        }
    }

    #[test]
    fn propagation_knows_its_eight_words_only() {
        assert_eq!(propagation("rshared"), Some((libc::MS_SHARED, true)));
        for word in ["", "ro", "sharedd"] {
            assert_eq!(propagation(word), None, "{word}");
        }
    }
}
