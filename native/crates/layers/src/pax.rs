//! PAX extended headers (POSIX pax, "pax Extended Header"): records that overrule the fields of the next entry.

use crate::limits::XATTRS_MAX;
use crate::sparse;
use crate::tar::Time;
use crate::{LayerError, Shown};

const XATTR: &str = "SCHILY.xattr.";
const SPARSE: &str = "GNU.sparse.";

/// What the records say; None where they say nothing.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Records {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub modified: Option<Time>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub sparse: Option<sparse::Records>,
}

/// Reads the records of one header into `records`. Keys that we do not know are passed over, as the format asks for.
pub fn read(mut bytes: &[u8], records: &mut Records) -> Result<(), LayerError> {
    while !bytes.is_empty() {
        let (key, value, rest) =
            record(bytes).ok_or_else(|| LayerError::Broken("a PAX header is malformed".into()))?;
        bytes = rest;
        let bad = || {
            LayerError::Broken(format!(
                "a PAX header says {key} is {}, which cannot be",
                Shown(value)
            ))
        };
        let text = || std::str::from_utf8(value).map_err(|_| bad());
        match key {
            "path" => records.path = Some(value.to_vec()),
            "linkpath" => records.link = Some(value.to_vec()),
            "size" => records.size = Some(text()?.parse().map_err(|_| bad())?),
            "uid" => records.uid = Some(text()?.parse().map_err(|_| bad())?),
            "gid" => records.gid = Some(text()?.parse().map_err(|_| bad())?),
            "mtime" => records.modified = Some(time(text()?).ok_or_else(bad)?),
            _ => {
                if let Some(key) = key.strip_prefix(SPARSE) {
                    let sparse = records.sparse.get_or_insert_default();
                    if !sparse.set(key, value)? {
                        return Err(bad());
                    }
                } else if let Some(name) = key.strip_prefix(XATTR) {
                    records.xattrs.retain(|(held, _)| held != name.as_bytes());
                    if records.xattrs.len() >= XATTRS_MAX {
                        return Err(LayerError::Broken(format!(
                            "a PAX header has more than {XATTRS_MAX} attributes"
                        )));
                    }
                    records
                        .xattrs
                        .push((name.as_bytes().to_vec(), value.to_vec()));
                }
            }
        }
    }
    Ok(())
}

/// The first record, `LENGTH KEY=VALUE\n`, and what follows it.
fn record(bytes: &[u8]) -> Option<(&str, &[u8], &[u8])> {
    let blank = bytes.iter().take(20).position(|byte| *byte == b' ')?;
    let digits = std::str::from_utf8(&bytes[..blank]).ok()?;
    let length: usize = digits
        .parse()
        .ok()
        .filter(|_| digits.bytes().all(|digit| digit.is_ascii_digit()))?;
    let body = bytes.get(blank + 1..length)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=')?;
    Some((
        std::str::from_utf8(&body[..equals]).ok()?,
        &body[equals + 1..],
        &bytes[length..],
    ))
}

/// Seconds with a fraction of any length; what is finer than a nanosecond is cut.
fn time(text: &str) -> Option<Time> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
    let nanoseconds = digits.fold(0u32, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    // A fraction of a negative time goes further down; the kernel wants it upwards.
    if whole.starts_with('-') && nanoseconds > 0 {
        return Some(Time {
            seconds: seconds.checked_sub(1)?,
            nanoseconds: 1_000_000_000 - nanoseconds,
        });
    }
    Some(Time {
        seconds,
        nanoseconds,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read() {
        let mut records = Records::default();
        read(b"15 path=a/b\xff c\n17 mtime=-1.5123\n9 size=7\n12 comment=\n27 SCHILY.xattr.user.x=\0\n\n\n", &mut records).unwrap();
        assert_eq!(records.path.as_deref(), Some(&b"a/b\xff c"[..]));
        assert_eq!(
            records.modified,
            Some(Time {
                seconds: -2,
                nanoseconds: 487_700_000
            })
        );
        assert_eq!(records.size, Some(7));
        assert_eq!(records.xattrs, [(b"user.x".to_vec(), b"\0\n\n".to_vec())]);
    }

    #[test]
    fn malformed_records_are_refused() {
        for bytes in [
            &b"path=x\n"[..],
            b"99 path=x\n",
            b"9 path=xy\n",
            b"5 a\n",
            b"0 a=b\n",
            b"-9 a=bcd\n",
            b"99999999999999999999 a=b\n",
            b"13 size=1e9x\n",
            b"13 mtime=1.x\n",
            b"9 uid=-1\n",
            b"22 GNU.sparse.major=x\n",
            b"23 GNU.sparse.map=1,,2\n",
        ] {
            assert!(
                read(bytes, &mut Records::default()).is_err(),
                "{}",
                String::from_utf8_lossy(bytes)
            );
        }
    }
}
