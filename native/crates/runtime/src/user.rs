//! Which user and groups `NAME[:GROUP]` or `UID[:GID]` stands for: strictly read, and looked up in the container's own files by descriptor.
//!
//! What is no number and no name in these files is refused; nothing is ever taken for root because it could not be read (CVE-2026-30892).

use crate::sys::file::{self, IN_ROOT};
use shoal_protocol::Failure;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};

/// Highest user or group id. The next one, -1, means "leave as it is" to setresuid(2), so that the process would stay root.
pub const ID_MAX: u32 = u32::MAX - 1;
/// How much of /etc/passwd and /etc/group is read; later lines count as not there.
pub const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Most supplementary groups that Linux takes (NGROUPS_MAX).
const GROUPS_MAX: usize = 65_536;
/// The home of a user without a line of its own.
const HOME_DEFAULT: &str = "/";

/// A user and its groups, by number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    /// Groups that list the user as a member; none when a group was asked for.
    pub additional_gids: Vec<u32>,
    pub home: String,
}

fn refuse(text: &str, why: &str) -> Failure {
    Failure::invalid("reading the user", format!("{text:?} {why}"))
}

/// Reads `UID` or `UID:GID`, decimal numbers and nothing else, as runc's and crun's `exec --user` has it.
pub fn ids(text: &str) -> Result<(u32, Option<u32>), Failure> {
    let whole = |part: &str| {
        id(part).ok_or_else(|| {
            refuse(
                text,
                &format!("is not UID or UID:GID with numbers of 0 to {ID_MAX}"),
            )
        })
    };
    match text.split_once(':') {
        None => Ok((whole(text)?, None)),
        Some((user, group)) => Ok((whole(user)?, Some(whole(group)?))),
    }
}

/// A decimal number without sign, blank or surplus; `None` for anything else.
fn id(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits
        .then(|| text.parse().ok())
        .flatten()
        .filter(|id| *id <= ID_MAX)
}

/// Looks `NAME`, `UID`, `NAME:GROUP` and their mixtures up in /etc/passwd and /etc/group below `root` (empty: user 0). A missing file is an empty one.
pub fn look_up(root: BorrowedFd<'_>, text: &str) -> Result<User, Failure> {
    let read = |path: &str| {
        read_file(root, path)
            .map_err(|error| Failure::io(format!("reading /{path} of the container"), &error))
    };
    find(&read("etc/passwd")?, &read("etc/group")?, text)
}

/// A regular file below `root`, as far as it counts; links are followed inside only.
fn read_file(root: BorrowedFd<'_>, path: &str) -> io::Result<Vec<u8>> {
    // Not waiting for the writer of a pipe.
    let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY;
    let fd = match file::open_at2(root, path, flags, IN_ROOT) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => {
            return Ok(Vec::new());
        }
        other => other?,
    };
    if file::stat(fd.as_fd())?.0 & libc::S_IFMT != libc::S_IFREG {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not a file",
        ));
    }
    let mut bytes = Vec::new();
    File::from(fd)
        .take(FILE_BYTES_MAX)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The same on the files' bytes. A number needs no line; of several lines the first counts; a broken line is none.
pub fn find(passwd: &[u8], group: &[u8], text: &str) -> Result<User, Failure> {
    let (wanted, wanted_group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    if wanted_group.is_some_and(|group| group.is_empty() || group.contains(':')) {
        return Err(refuse(text, "is not USER or USER:GROUP"));
    }
    let wanted = if wanted.is_empty() { "0" } else { wanted };
    let number = id(wanted);
    let account = lines(passwd)
        .filter_map(account)
        .find(|account| account.name == wanted.as_bytes() || Some(account.uid) == number);
    let (uid, mut gid) = match (&account, number) {
        (Some(account), _) => (account.uid, account.gid),
        (None, Some(uid)) => (uid, 0),
        (None, None) => return Err(refuse(wanted, "is no user of the container's /etc/passwd")),
    };
    let mut additional_gids = Vec::new();
    if let Some(wanted) = wanted_group {
        let number = id(wanted);
        let known = lines(group)
            .filter_map(membership)
            .find(|group| group.name == wanted.as_bytes() || Some(group.gid) == number);
        gid = known
            .map(|group| group.gid)
            .or(number)
            .ok_or_else(|| refuse(wanted, "is no group of the container's /etc/group"))?;
    } else if let Some(account) = &account {
        additional_gids = lines(group)
            .filter_map(membership)
            .filter(|group| group.members().any(|member| member == account.name))
            .map(|group| group.gid)
            .take(GROUPS_MAX)
            .collect();
    }
    let home = account
        .and_then(|account| std::str::from_utf8(account.home).ok())
        .filter(|home| home.starts_with('/') && !home.contains('\0'))
        .unwrap_or(HOME_DEFAULT);
    Ok(User {
        uid,
        gid,
        additional_gids,
        home: home.to_owned(),
    })
}

/// A line of passwd(5).
struct Account<'a> {
    name: &'a [u8],
    uid: u32,
    gid: u32,
    home: &'a [u8],
}

/// A line of group(5).
struct Membership<'a> {
    name: &'a [u8],
    gid: u32,
    list: &'a [u8],
}

impl<'a> Membership<'a> {
    fn members(&self) -> impl Iterator<Item = &'a [u8]> {
        self.list.split(|byte| *byte == b',')
    }
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n')
}

fn account(line: &[u8]) -> Option<Account<'_>> {
    let mut fields = line.split(|byte| *byte == b':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    let (_, uid, gid, _) = (
        fields.next()?,
        fields.next()?,
        fields.next()?,
        fields.next()?,
    );
    Some(Account {
        name,
        uid: number(uid)?,
        gid: number(gid)?,
        home: fields.next().unwrap_or_default(),
    })
}

fn membership(line: &[u8]) -> Option<Membership<'_>> {
    let mut fields = line.split(|byte| *byte == b':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    let (_, gid) = (fields.next()?, fields.next()?);
    Some(Membership {
        name,
        gid: number(gid)?,
        list: fields.next().unwrap_or_default(),
    })
}

fn number(field: &[u8]) -> Option<u32> {
    std::str::from_utf8(field).ok().and_then(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    const PASSWD: &[u8] = b"# c\nroot:x:0:0:root:/root:/bin/sh\nbroken:x:1\nempty:x::5::/:\nminus:x:-1:0::/:\nweb:x:33:34:W:/srv/web:/bin/sh\nweb:x:0:0::/:\n1001:x:7:8::relative:\n:x:0:0::/:\nbig:x:4294967295:0::/:\nb\xffd:x:9:9::/\xff:\n";
    const GROUP: &[u8] =
        b"root:x:0:\nwww:x:34:web\nstaff:x:50:a,web,b\nadm:x:51:webb\nbad:x:x:web\n";

    fn found(text: &str) -> (u32, u32, Vec<u32>, String) {
        let user = find(PASSWD, GROUP, text).expect(text);
        (user.uid, user.gid, user.additional_gids, user.home)
    }

    #[test]
    fn find_knows_names_and_numbers_with_their_groups() {
        let home = |home: &str| home.to_owned();
        assert_eq!(found(""), (0, 0, vec![], home("/root")));
        assert_eq!(found("web"), (33, 34, vec![34, 50], home("/srv/web")));
        assert_eq!(found("33"), (33, 34, vec![34, 50], home("/srv/web")));
        assert_eq!(found("web:staff"), (33, 50, vec![], home("/srv/web")));
        assert_eq!(found("web:7777"), (33, 7777, vec![], home("/srv/web")));
        assert_eq!(found("12345"), (12345, 0, vec![], home("/")));
        assert_eq!(found("12345:50"), (12345, 50, vec![], home("/")));
        // A name of digits is a name first.
        assert_eq!(found("1001"), (7, 8, vec![], home("/")));
        assert_eq!(found(":staff"), (0, 50, vec![], home("/root")));
    }

    #[test]
    fn find_refuses_what_it_does_not_know_and_never_makes_it_root() {
        for text in [
            "nobody",
            "web:",
            "web:nogroup",
            "web:a:b",
            "-1",
            "+0",
            " 0",
            "0 ",
            "0x0",
            "4294967295",
            "4294967296",
            "99999999999999999999",
            "broken",
            "empty",
            "minus",
            "big",
            "0:-1",
            "web:bad",
            "web\n",
            "web\0",
        ] {
            let told = find(PASSWD, GROUP, text).expect_err(text).to_string();
            assert!(told.starts_with("reading the user: \""), "{told}");
            assert_eq!(told.lines().count(), 1);
        }
    }

    #[test]
    fn ids_are_numbers_and_nothing_else() {
        assert_eq!(ids("0").expect("root"), (0, None));
        assert_eq!(ids("1000:1001").expect("both"), (1000, Some(1001)));
        assert_eq!(ids("4294967294").expect("the highest"), (ID_MAX, None));
        for text in [
            "",
            ":",
            "0:",
            ":0",
            "root",
            "1:2:3",
            "-1",
            "4294967295",
            "1 ",
            "0x1",
            "١",
        ] {
            ids(text).expect_err(text);
        }
    }

    #[test]
    fn look_up_stays_inside_the_root() {
        let root = std::env::temp_dir().join(format!("shoal-user-{}", std::process::id()));
        let etc = root.join("etc");
        std::fs::create_dir_all(&etc).expect("directories");
        let open = |path: &Path| {
            file::open(
                path.to_str().expect("text"),
                libc::O_PATH | libc::O_DIRECTORY,
            )
            .expect("root")
        };
        let look = |text: &str| look_up(open(&root).as_fd(), text);
        // No files at all: numbers only.
        let missing = (look("7").map(|user| user.uid), look("root").is_err());
        // The host's file is not looked at, through an absolute link or by climbing.
        symlink("/etc/passwd", etc.join("passwd")).expect("a link");
        symlink("../../../../../../../../etc/group", etc.join("group")).expect("a link");
        let links = (look("root").is_err(), look("0:root").is_err());
        for name in ["passwd", "group"] {
            std::fs::remove_file(etc.join(name)).expect("remove");
        }
        let fifo =
            std::ffi::CString::new(etc.join("passwd").to_str().expect("text")).expect("no NUL");
        // SAFETY: the path is NUL-terminated.
        assert_eq!(unsafe { libc::mkfifo(fifo.as_ptr(), 0o600) }, 0);
        let pipe = look("7");
        std::fs::remove_dir_all(&root).expect("cleaning up");
        assert_eq!(missing, (Ok(7), true));
        assert_eq!(links, (true, true));
        assert!(pipe.is_err(), "{pipe:?}");
    }
}
