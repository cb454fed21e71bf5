//! The environment of a program: what its configuration says, and HOME from the container's own /etc/passwd.

use crate::sys::file;
use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;

/// How much of /etc/passwd is read; later lines count as not there.
const PASSWD_BYTES_MAX: u64 = 1024 * 1024;
/// The home of a user that has none.
const HOME_DEFAULT: &str = "/";

/// An environment as the program gets it, as with runc: each name once, with the value given last, and a HOME that is not empty.
/// The container's root must be this process's.
pub(crate) fn complete(env: &[String], uid: u32) -> Vec<String> {
    let mut seen = HashSet::new();
    let mut kept: Vec<String> = env
        .iter()
        .rev()
        .filter(|entry| {
            seen.insert(
                entry
                    .split_once('=')
                    .map_or(entry.as_str(), |(name, _)| name),
            )
        })
        .filter(|entry| entry.as_str() != "HOME=")
        .cloned()
        .collect();
    kept.reverse();
    if !kept.iter().any(|entry| entry.starts_with("HOME=")) {
        let text = read_passwd().unwrap_or_default();
        let home = home_of(&text, uid).unwrap_or(HOME_DEFAULT);
        kept.push(format!("HOME={home}"));
    }
    kept
}

fn read_passwd() -> io::Result<String> {
    let root = file::open("/", libc::O_PATH | libc::O_DIRECTORY)?;
    // Not through /proc/self/fd, and not waiting for the writer of a pipe.
    let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY;
    let passwd = file::open_at2(root.as_fd(), "etc/passwd", flags, file::IN_ROOT)?;
    if file::stat(passwd.as_fd())?.0 & libc::S_IFMT != libc::S_IFREG {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut bytes = Vec::new();
    File::from(passwd)
        .take(PASSWD_BYTES_MAX)
        .read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The sixth field of the first line of this uid (passwd(5)).
fn home_of(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [_, _, id, _, _, home, ..] = fields[..] else {
            return None;
        };
        let good = id.parse() == Ok(uid) && home.starts_with('/') && !home.contains('\0');
        good.then_some(home)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn home_of_takes_the_first_line_that_is_whole() {
        let text = "# x\nroot:x:0:0:root:/root:/bin/sh\nshort:x:7\nbad:x:7:7::rel:\na:x:7:7::/home/a:/bin/sh\nb:x:7:7::/b:\n";
        assert_eq!(home_of(text, 0), Some("/root"));
        assert_eq!(home_of(text, 7), Some("/home/a"));
        assert_eq!(home_of(text, 8), None);
        assert_eq!(home_of("", 0), None);
    }

    #[test]
    fn complete_has_each_name_once_and_a_home() {
        let nobody = u32::MAX - 1;
        let of = |env: &[&str]| {
            let env: Vec<String> = env.iter().map(|entry| (*entry).to_owned()).collect();
            complete(&env, nobody)
        };
        assert_eq!(of(&[]), ["HOME=/"]);
        assert_eq!(of(&["HOME=/x", "A=1"]), ["HOME=/x", "A=1"]);
        assert_eq!(of(&["A=1", "B=2", "A="]), ["B=2", "A=", "HOME=/"]);
        assert_eq!(of(&["HOME=/x", "HOME="]), ["HOME=/"]);
        assert_eq!(of(&["odd", "A=b=c"]), ["odd", "A=b=c", "HOME=/"]);
    }
}
