//! /etc/passwd, /etc/group and the user of an exec.

use crate::{is_one_line, parts};
use shoal_runtime::user::{self, ID_MAX};

/// A user that is found is a number that was asked for, or one that a line of the file gives to that very name; never a guess.
pub fn passwd(bytes: &[u8]) {
    let [text, passwd, group] = parts(bytes);
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    let found = match user::find(passwd, group, text) {
        Ok(found) => found,
        Err(failure) => return is_one_line(&failure),
    };
    assert!(found.uid <= ID_MAX && found.gid <= ID_MAX);
    assert!(found.home.starts_with('/'));
    let (name, _) = text.split_once(':').unwrap_or((text, ""));
    let name = if name.is_empty() { "0" } else { name };
    let begins =
        |line: &&[u8]| line.starts_with(name.as_bytes()) && line.get(name.len()) == Some(&b':');
    let told = passwd
        .split(|byte| *byte == b'\n')
        .filter(begins)
        .filter_map(|line| {
            std::str::from_utf8(line.split(|byte| *byte == b':').nth(2)?)
                .ok()?
                .parse()
                .ok()
        })
        .any(|uid: u32| uid == found.uid);
    assert!(
        told || name.parse() == Ok(found.uid),
        "{name:?} became {}",
        found.uid
    );
    for gid in &found.additional_gids {
        assert!(*gid <= ID_MAX && !text.contains(':'));
    }
}

/// A number is exactly what its digits say (CVE-2026-30892: crun read the rest as 0, root).
pub fn exec_user(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let plain = |part: &str| {
        let digits = part.bytes().all(|byte| byte.is_ascii_digit());
        let value = part.trim_start_matches('0');
        (digits && !part.is_empty() && value.len() <= 10)
            .then(|| {
                value
                    .bytes()
                    .fold(0u64, |sum, digit| sum * 10 + u64::from(digit - b'0'))
            })
            .filter(|value| *value < 0xffff_ffff)
    };
    let want = match text.split(':').collect::<Vec<_>>()[..] {
        [uid] => plain(uid).map(|uid| (uid, None)),
        [uid, gid] => plain(uid)
            .zip(plain(gid))
            .map(|(uid, gid)| (uid, Some(gid))),
        _ => None,
    };
    match user::ids(text) {
        Ok((uid, gid)) => assert_eq!(Some((uid.into(), gid.map(u64::from))), want),
        Err(failure) => {
            assert_eq!(want, None, "{failure}");
            is_one_line(&failure);
        }
    }
}
