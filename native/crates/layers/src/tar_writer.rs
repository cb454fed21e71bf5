//! Writing tar: ustar where it holds an entry, and PAX records for what it does not.

use crate::digest::Hashed;
use crate::tar::{BLOCK_BYTES, Entry, Kind, Time};
use crate::{LayerError, Shown};
use std::io::{self, Write};

/// Largest values of ustar's octal fields.
const ID_MAX: u32 = 0o7_777_777;
const SIZE_MAX: u64 = 0o77_777_777_777;
const NAME_BYTES: usize = 100;
const PREFIX_BYTES: usize = 155;

/// Writes entries, hashed and counted.
pub struct TarWriter<W: Write> {
    out: Hashed<W>,
    entries: u64,
}

impl<W: Write> TarWriter<W> {
    pub fn new(out: W) -> Self {
        Self {
            out: Hashed::new(out),
            entries: 0,
        }
    }

    /// How many entries there are so far.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// How many bytes there are so far.
    pub fn bytes(&self) -> u64 {
        self.out.bytes()
    }

    /// One entry without content, or the head of one with content: then `content` follows, as long as the entry's size, and `pad`.
    pub fn entry(&mut self, entry: &Entry) -> Result<(), LayerError> {
        let mut records = Vec::new();
        let mut header = [0; BLOCK_BYTES];
        if let Some((prefix, name)) = split(&entry.path) {
            header[345..345 + prefix.len()].copy_from_slice(prefix);
            header[..name.len()].copy_from_slice(name);
        } else {
            record(&mut records, b"path", &entry.path);
            header[..NAME_BYTES].copy_from_slice(&entry.path[..NAME_BYTES]);
        }
        if entry.link.len() <= NAME_BYTES {
            header[157..157 + entry.link.len()].copy_from_slice(&entry.link);
        } else {
            record(&mut records, b"linkpath", &entry.link);
            header[157..257].copy_from_slice(&entry.link[..NAME_BYTES]);
        }
        for (at, key, id) in [(108, b"uid", entry.uid), (116, b"gid", entry.gid)] {
            if id > ID_MAX {
                record(&mut records, key, id.to_string().as_bytes());
            } else {
                octal(&mut header[at..at + 8], u64::from(id));
            }
        }
        if entry.size > SIZE_MAX {
            record(&mut records, b"size", entry.size.to_string().as_bytes());
        } else {
            octal(&mut header[124..136], entry.size);
        }
        let seconds = u64::try_from(entry.modified.seconds)
            .ok()
            .filter(|seconds| *seconds <= SIZE_MAX);
        if seconds.is_none() || entry.modified.nanoseconds > 0 {
            record(&mut records, b"mtime", decimal(entry.modified).as_bytes());
        }
        octal(&mut header[136..148], seconds.unwrap_or(0));
        for (key, value) in &entry.xattrs {
            if key.contains(&b'=') || std::str::from_utf8(key).is_err() {
                return Err(LayerError::Broken(format!(
                    "{}: its attribute {} has a name that no archive can hold; remove the attribute",
                    Shown(&entry.path),
                    Shown(key)
                )));
            }
            record(&mut records, &[b"SCHILY.xattr.", &key[..]].concat(), value);
        }
        octal(&mut header[100..108], u64::from(entry.mode));
        let (flag, major, minor) = match entry.kind {
            Kind::File => (b'0', 0, 0),
            Kind::HardLink => (b'1', 0, 0),
            Kind::SymbolicLink => (b'2', 0, 0),
            Kind::CharacterDevice { major, minor } => (b'3', major, minor),
            Kind::BlockDevice { major, minor } => (b'4', major, minor),
            Kind::Directory => (b'5', 0, 0),
            Kind::Fifo => (b'6', 0, 0),
        };
        header[156] = flag;
        octal(&mut header[329..337], u64::from(major));
        octal(&mut header[337..345], u64::from(minor));
        if !records.is_empty() {
            self.records(&records)?;
        }
        self.header(&mut header)?;
        self.entries += 1;
        Ok(())
    }

    /// Some of the content of the entry at hand.
    pub fn content(&mut self, bytes: &[u8]) -> Result<(), LayerError> {
        self.out.write_all(bytes).map_err(writing)
    }

    /// Fills the last block of `size` bytes of content.
    pub fn pad(&mut self, size: u64) -> Result<(), LayerError> {
        let rest = size.next_multiple_of(BLOCK_BYTES as u64) - size;
        let rest = usize::try_from(rest).unwrap_or(0);
        self.content(&[0; BLOCK_BYTES][..rest])
    }

    /// Ends the archive; answers what it was written to, its digest and its length.
    pub fn finish(mut self) -> Result<(W, String, u64), LayerError> {
        self.content(&[0; 2 * BLOCK_BYTES])?;
        self.out.flush().map_err(writing)?;
        Ok(self.out.into_parts())
    }

    fn records(&mut self, records: &[u8]) -> Result<(), LayerError> {
        let mut header = [0; BLOCK_BYTES];
        header[..11].copy_from_slice(b"PaxHeaders/");
        octal(&mut header[100..108], 0o644);
        octal(&mut header[108..116], 0);
        octal(&mut header[116..124], 0);
        octal(&mut header[124..136], records.len() as u64);
        octal(&mut header[136..148], 0);
        header[156] = b'x';
        self.header(&mut header)?;
        self.content(records)?;
        self.pad(records.len() as u64)
    }

    fn header(&mut self, header: &mut [u8; BLOCK_BYTES]) -> Result<(), LayerError> {
        header[257..265].copy_from_slice(b"ustar\x0000");
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.content(&header[..])
    }
}

pub fn writing(error: io::Error) -> LayerError {
    LayerError::Write("writing the archive".into(), error)
}

/// Prefix and name as ustar has them; None when it has no room for the path.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.len() <= NAME_BYTES {
        return Some((&[], path));
    }
    // The slash between them is not stored, and the name is not empty: a directory's own slash is no place to cut.
    let from = path.len().checked_sub(NAME_BYTES + 1)?;
    let to = PREFIX_BYTES.min(path.len().checked_sub(2)?);
    let at = (from..=to).find(|at| path[*at] == b'/' && *at > 0)?;
    Some((&path[..at], &path[at + 1..]))
}

/// Digits, filled up with zeros, and a NUL.
fn octal(field: &mut [u8], value: u64) {
    let width = field.len() - 1;
    let digits = format!("{value:0width$o}");
    field[..width].copy_from_slice(&digits.as_bytes()[digits.len() - width..]);
}

/// `LENGTH KEY=VALUE\n`, where the length counts itself.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// Seconds with as many digits after the point as there are.
fn decimal(time: Time) -> String {
    let (sign, whole, fraction) = match time {
        // PAX counts the fraction away from zero, the kernel upwards.
        Time {
            seconds,
            nanoseconds,
        } if seconds < 0 && nanoseconds > 0 => (
            "-",
            (seconds + 1).unsigned_abs(),
            1_000_000_000 - nanoseconds,
        ),
        Time {
            seconds,
            nanoseconds,
        } => (
            if seconds < 0 { "-" } else { "" },
            seconds.unsigned_abs(),
            nanoseconds,
        ),
    };
    let text = format!("{sign}{whole}.{fraction:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::Tar;

    fn entry(path: &[u8]) -> Entry {
        Entry {
            path: path.to_vec(),
            link: Vec::new(),
            kind: Kind::File,
            size: 0,
            mode: 0o644,
            uid: 0,
            gid: 0,
            modified: Time::default(),
            xattrs: Vec::new(),
            sparse: None,
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let long = "directory/".repeat(12) + "name";
        let longer = "directory/".repeat(40) + "name";
        let one = "x".repeat(101);
        let mut entries: Vec<Entry> = [
            &b"a"[..],
            b"\xff\xfe",
            long.as_bytes(),
            longer.as_bytes(),
            one.as_bytes(),
        ]
        .into_iter()
        .map(entry)
        .collect();
        for (seconds, nanoseconds) in [
            (-1, 500_000_000),
            (-7, 0),
            (1, 1),
            (i64::from(u32::MAX) * 100, 120_000_000),
            (0, 0),
        ] {
            let mut next = entry(b"time");
            next.modified = Time {
                seconds,
                nanoseconds,
            };
            entries.push(next);
        }
        for length in [100, 101, 4000] {
            let mut next = entry(b"link");
            next.kind = Kind::SymbolicLink;
            next.link = vec![b'l'; length];
            entries.push(next);
        }
        let mut next = entry(b"all/");
        next.kind = Kind::Directory;
        next.mode = 0o7777;
        (next.uid, next.gid) = (u32::MAX - 1, ID_MAX + 1);
        next.xattrs = vec![(b"user.x".to_vec(), b"\0\n=\xff".to_vec())];
        entries.push(next);
        let mut next = entry(b"device");
        next.kind = Kind::BlockDevice {
            major: 8,
            minor: 1_048_575,
        };
        entries.push(next);
        let mut writer = TarWriter::new(Vec::new());
        for entry in &entries {
            writer.entry(entry).unwrap();
        }
        let (bytes, _, length) = writer.finish().unwrap();
        assert_eq!(bytes.len() as u64, length);
        let mut tar = Tar::new(&bytes[..], false);
        for entry in &entries {
            assert_eq!(tar.next().unwrap().as_ref(), Some(entry));
        }
        assert!(tar.next().unwrap().is_none());
    }
}
