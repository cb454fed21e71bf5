//! Reading a json-file log: its files in order, its last records, and what one record says.

use shoal_runtime::sys::memory;
use std::fs::{self, File};
use std::io::{self, Seek};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Bytes read at once.
const BLOCK_BYTES: usize = 64 * 1024;
/// Longest record that is read: 16 KiB of which every byte is escaped, and what belongs to it.
const RECORD_BYTES_MAX: usize = 256 * 1024;
/// Missing numbers in a row after which there are no more files.
const GAPS_MAX: u32 = 2;
/// What stands between text and stream, and between stream and time. Neither can be part of escaped text.
const BEFORE_STREAM: &[u8] = b"\",\"stream\":\"";
const BEFORE_TIME: &[u8] = b"\",\"time\":\"";
const FIRST: &[u8] = b"{\"log\":\"";
/// Stream, time and what is between them are within so many bytes of a record's end.
const ENDING_BYTES_MAX: usize = 96;

/// `PATH.N`.
pub fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// `PATH.N.gz`.
pub fn compressed(path: &Path, number: u32) -> PathBuf {
    let mut name = numbered(path, number).into_os_string();
    name.push(".gz");
    name.into()
}

/// Tells a file from every other, whatever it is called now.
pub type Identity = (u64, u64);

fn identity(file: &File) -> io::Result<Identity> {
    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

/// One file of a log, with what has been read of it.
pub struct Part {
    file: File,
    pub identity: Identity,
    /// Where the next read begins.
    offset: u64,
    /// The beginning of a record that is not whole yet.
    held: Vec<u8>,
}

impl Part {
    fn new(file: File) -> io::Result<Self> {
        Ok(Self {
            identity: identity(&file)?,
            file,
            offset: 0,
            held: Vec::new(),
        })
    }

    /// Opens the file at `path`; None when there is none.
    pub fn open(path: &Path) -> io::Result<Option<Self>> {
        match File::open(path) {
            Ok(file) => Self::new(file).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Opens `PATH.N`, unpacked when it has been compressed.
    fn open_numbered(path: &Path, number: u32) -> io::Result<Option<Self>> {
        if let Some(part) = Self::open(&numbered(path, number))? {
            return Ok(Some(part));
        }
        let Some(packed) = Self::open(&compressed(path, number))? else {
            return Ok(None);
        };
        let directory = path.parent().unwrap_or(Path::new("/"));
        let mut plain = temporary(directory)?;
        let mut decoder = flate2::read::MultiGzDecoder::new(&packed.file);
        io::copy(&mut decoder, &mut plain)?;
        plain.rewind()?;
        Ok(Some(Self {
            identity: packed.identity,
            ..Self::new(plain)?
        }))
    }

    /// Calls `take` with every whole record that has not been read, without its newline; false from it ends the reading early.
    /// False when it was ended.
    pub fn read(&mut self, take: &mut dyn FnMut(&[u8]) -> io::Result<bool>) -> io::Result<bool> {
        if self.file.metadata()?.len() < self.offset {
            // Cut to nothing, which is how a log of one file rotates.
            (self.offset, self.held) = (0, Vec::new());
        }
        let mut block = vec![0u8; BLOCK_BYTES];
        loop {
            let length = self.file.read_at(&mut block, self.offset)?;
            if length == 0 {
                return Ok(true);
            }
            self.offset += length as u64;
            let mut rest = &block[..length];
            while let Some(at) = memory::find(b'\n', rest) {
                let go_on = if self.held.is_empty() {
                    take(&rest[..at])?
                } else {
                    self.held.extend_from_slice(&rest[..at]);
                    let record = std::mem::take(&mut self.held);
                    take(&record)?
                };
                if !go_on {
                    return Ok(false);
                }
                rest = &rest[at + 1..];
            }
            if self.held.len() + rest.len() <= RECORD_BYTES_MAX {
                self.held.extend_from_slice(rest);
            }
        }
    }

    /// Where the last `wanted` records begin, and how many there are from there on.
    fn last(&self, wanted: u64) -> io::Result<(u64, u64)> {
        let mut end = self.file.metadata()?.len();
        let mut found = 0;
        // The newline before the first wanted record is looked for; that of the last record is the first one met.
        let mut block = vec![0u8; BLOCK_BYTES];
        while end > 0 {
            let length = usize::try_from(end.min(BLOCK_BYTES as u64)).unwrap_or(BLOCK_BYTES);
            let begin = end - length as u64;
            let got = self.file.read_at(&mut block[..length], begin)?;
            let mut rest = &block[..got];
            while let Some(at) = memory::find_last(b'\n', rest) {
                if found == wanted {
                    return Ok((begin + at as u64 + 1, found));
                }
                found += 1;
                rest = &rest[..at];
            }
            end = begin;
        }
        Ok((0, found))
    }
}

fn temporary(directory: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    fs::OpenOptions::new()
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_TMPFILE)
        .open(directory)
}

/// The numbered files of a log, newest first, as they are found one after the other.
///
/// A rotation meanwhile renames from the highest number down: a file then only comes (again) under a higher number, and one number at a time
/// is missing.
struct Numbered<'a> {
    path: &'a Path,
    number: u32,
}

impl Numbered<'_> {
    fn next(&mut self) -> io::Result<Option<Part>> {
        for _ in 0..=GAPS_MAX {
            let part = Part::open_numbered(self.path, self.number)?;
            self.number += 1;
            if part.is_some() {
                return Ok(part);
            }
        }
        Ok(None)
    }
}

/// The files of a log, oldest first, at the last `tail` records (None: at their beginning).
pub fn open_all(path: &Path, tail: Option<u64>) -> io::Result<Vec<Part>> {
    let mut parts: Vec<Part> = Vec::new();
    let mut wanted = tail;
    let mut numbered = Numbered { path, number: 1 };
    let mut next = match Part::open(path)? {
        Some(part) => Some(part),
        None => numbered.next()?,
    };
    while let Some(mut part) = next {
        if !parts.iter().any(|known| known.identity == part.identity) {
            if let Some(wanted) = &mut wanted {
                let (offset, found) = part.last(*wanted)?;
                part.offset = offset;
                *wanted -= found;
            }
            parts.push(part);
        }
        if wanted == Some(0) {
            break;
        }
        next = numbered.next()?;
    }
    parts.reverse();
    Ok(parts)
}

/// The file that was begun when `current` was rotated away; None while that is the one being written.
pub fn successor(path: &Path, current: Identity) -> io::Result<Option<Part>> {
    let Some(newest) = Part::open(path)? else {
        return Ok(None);
    };
    if newest.identity == current {
        return Ok(None);
    }
    let mut next = newest;
    let mut numbered = Numbered { path, number: 1 };
    // Several rotations may have come between.
    while let Some(part) = numbered.next()? {
        if part.identity == current {
            break;
        }
        next = part;
    }
    // When it has been removed meanwhile, the oldest that is left comes next.
    Ok(Some(next))
}

/// What one record says; `text` is still escaped.
pub struct Record<'a> {
    pub text: &'a [u8],
    /// 1 for stdout, 2 for stderr.
    pub stream: u8,
    pub time: &'a str,
}

/// Takes a record apart; None when it is not one of ours.
pub fn parse(record: &[u8]) -> Option<Record<'_>> {
    let inside = record.strip_prefix(FIRST)?.strip_suffix(b"\"}")?;
    let from = inside.len().saturating_sub(ENDING_BYTES_MAX);
    let find = |what: &[u8], within: &[u8]| within.windows(what.len()).rposition(|at| at == what);
    let stream_at = from + find(BEFORE_STREAM, &inside[from..])?;
    let ending = &inside[stream_at + BEFORE_STREAM.len()..];
    let time_at = find(BEFORE_TIME, ending)?;
    Some(Record {
        text: &inside[..stream_at],
        stream: match &ending[..time_at] {
            b"stdout" => 1,
            b"stderr" => 2,
            _ => return None,
        },
        time: std::str::from_utf8(&ending[time_at + BEFORE_TIME.len()..]).ok()?,
    })
}

/// Appends what escaped text stands for.
pub fn unescape(to: &mut Vec<u8>, mut text: &[u8]) {
    while let Some(at) = memory::find(b'\\', text) {
        to.extend_from_slice(&text[..at]);
        let (kind, rest) = match text[at + 1..].split_first() {
            Some((kind, rest)) => (*kind, rest),
            None => return,
        };
        text = rest;
        match kind {
            b'n' => to.push(b'\n'),
            b'r' => to.push(b'\r'),
            b't' => to.push(b'\t'),
            b'b' => to.push(8),
            b'f' => to.push(12),
            b'u' => {
                let digits = rest
                    .get(..4)
                    .and_then(|four| std::str::from_utf8(four).ok());
                let Some(unit) = digits.and_then(|four| u32::from_str_radix(four, 16).ok()) else {
                    continue;
                };
                text = &rest[4..];
                let character = char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER);
                to.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
            other => to.push(other),
        }
    }
    to.extend_from_slice(text);
}

/// Nanoseconds since the epoch of a time as our records have it (`2023-11-14T22:13:20.12Z`).
pub fn nanoseconds(time: &str) -> Option<i128> {
    let number = |from: usize, to: usize| time.get(from..to)?.parse::<i64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let fraction = match time.get(19..)?.strip_suffix('Z')? {
        "" => 0,
        rest => {
            let digits = rest.strip_prefix('.')?;
            let value: i128 = digits.parse().ok().filter(|_| digits.len() <= 9)?;
            value * 10i128.pow(9 - u32::try_from(digits.len()).ok()?)
        }
    };
    // Days by years that begin in March, so that the leap day is the last one.
    let (year, month) = if month <= 2 {
        (year - 1, month + 9)
    } else {
        (year, month - 3)
    };
    let days = 365 * year + year.div_euclid(4) - year.div_euclid(100)
        + year.div_euclid(400)
        + (153 * month + 2) / 5
        + day
        - 1
        - 719_468;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    Some(i128::from(seconds) * 1_000_000_000 + fraction)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::record::{self, Stream, Timestamp};
    use std::io::Write;

    fn directory(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("shoal-read-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("dir");
        dir
    }

    fn records(numbers: std::ops::Range<u32>) -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in numbers {
            let at = Timestamp {
                seconds: i64::from(number),
                nanoseconds: 5,
            };
            let ending = record::ending(Stream::Stderr, at);
            record::append_record(&mut bytes, format!("n {number}\n").as_bytes(), &ending);
        }
        bytes
    }

    fn texts(parts: Vec<Part>) -> Vec<String> {
        let mut all = Vec::new();
        for mut part in parts {
            let mut take = |line: &[u8]| {
                let mut text = Vec::new();
                unescape(&mut text, parse(line).expect("a record").text);
                all.push(String::from_utf8(text).expect("utf-8"));
                Ok(true)
            };
            assert!(part.read(&mut take).expect("read"));
        }
        all
    }

    #[test]
    fn tail_counts_records_over_all_files_also_compressed_ones() {
        let dir = directory("tail");
        let path = dir.join("log");
        let mut packed = flate2::write::GzEncoder::new(
            File::create(compressed(&path, 2)).expect("file"),
            flate2::Compression::fast(),
        );
        packed.write_all(&records(0..3000)).expect("packed");
        packed.finish().expect("packed");
        fs::write(numbered(&path, 1), records(3000..6000)).expect("file");
        // The last one is being written.
        let mut newest = records(6000..9000);
        newest.extend_from_slice(b"{\"log\":\"half");
        fs::write(&path, newest).expect("file");
        let all: Vec<String> = (0..9000).map(|number| format!("n {number}\n")).collect();
        assert_eq!(texts(open_all(&path, None).expect("open")), all);
        for tail in [0, 1, 2999, 3000, 3001, 6000, 6001, 9000, 10_000] {
            let want = &all[9000usize.saturating_sub(tail)..];
            let got = texts(open_all(&path, Some(tail as u64)).expect("open"));
            assert!(got == want, "tail {tail}: {} records", got.len());
        }
        fs::remove_dir_all(&dir).expect("clean");
    }

    #[test]
    fn successor_follows_a_file_through_rotations() {
        let dir = directory("next");
        let path = dir.join("log");
        fs::write(&path, records(0..1)).expect("file");
        let first = Part::open(&path).expect("open").expect("there").identity;
        assert!(successor(&path, first).expect("look").is_none());
        fs::rename(&path, numbered(&path, 1)).expect("rotated");
        assert!(successor(&path, first).expect("look").is_none());
        fs::write(&path, records(1..2)).expect("file");
        fs::rename(numbered(&path, 1), numbered(&path, 2)).expect("rotated");
        fs::rename(&path, numbered(&path, 1)).expect("rotated");
        fs::write(&path, records(2..3)).expect("file");
        let second = successor(&path, first).expect("look").expect("there");
        let third = successor(&path, second.identity)
            .expect("look")
            .expect("there");
        let got = texts(vec![second, third]);
        assert_eq!(got, ["n 1\n", "n 2\n"]);
        fs::remove_dir_all(&dir).expect("clean");
    }

    #[test]
    fn what_was_written_is_read_back() {
        let text = "a\"b\\,\"stream\":\"x <&>\t\u{1}\u{2028}€\r\n";
        let at = Timestamp {
            seconds: 951_782_400,
            nanoseconds: 120_000_000,
        };
        let mut bytes = Vec::new();
        record::append_record(
            &mut bytes,
            text.as_bytes(),
            &record::ending(Stream::Stdout, at),
        );
        let record = parse(bytes.strip_suffix(b"\n").expect("a line")).expect("a record");
        assert_eq!((record.stream, record.time), (1, "2000-02-29T00:00:00.12Z"));
        assert_eq!(nanoseconds(record.time), Some(951_782_400_120_000_000));
        assert_eq!(nanoseconds("1969-12-31T23:59:59Z"), Some(-1_000_000_000));
        let mut back = Vec::new();
        unescape(&mut back, record.text);
        assert_eq!(String::from_utf8(back).expect("utf-8"), text);
        for broken in [
            &b"{}"[..],
            b"",
            b"{\"log\":\"x\"}",
            b"x\",\"stream\":\"stdout\",\"time\":\"\"}",
        ] {
            assert!(parse(broken).is_none());
        }
    }
}
