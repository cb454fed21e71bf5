//! A container's log in docker's json-file format: one object a line, pieces of at most 16 KiB, rotated by rename.

use shoal_protocol::calls::Log;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Longest piece of one record, in bytes of the program's output; docker's figure.
pub const PIECE_BYTES_MAX: usize = 16 * 1024;

/// Which stream a record is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// An open log with its rotation.
pub struct LogFile {
    path: PathBuf,
    file: File,
    size: u64,
    size_max: Option<u64>,
    files_max: u32,
    /// Records that could not be written (a full disk), for the exit record.
    pub lost: u64,
    record: Vec<u8>,
}

impl LogFile {
    /// Opens the log for appending, making it (mode 0640) when it is not there.
    pub fn open(log: &Log) -> io::Result<Self> {
        let path = PathBuf::from(&log.path);
        let file = append(&path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            path,
            file,
            size,
            size_max: log.max_size_bytes,
            files_max: log.max_files,
            lost: 0,
            record: Vec::new(),
        })
    }

    /// Writes the records of these pieces in as few writes as rotation allows. A failed write is counted, not retried:
    /// the container must not stop because its log's disk is full.
    pub fn write(&mut self, stream: Stream, pieces: &[&[u8]], now: Timestamp) {
        let mut record = std::mem::take(&mut self.record);
        record.clear();
        let mut records = 0;
        for piece in pieces {
            if self
                .size_max
                .is_some_and(|most| self.size + record.len() as u64 >= most)
            {
                self.flush(&record, records);
                record.clear();
                records = 0;
                self.rotate();
            }
            append_record(&mut record, piece, stream, now);
            records += 1;
        }
        self.flush(&record, records);
        // Keep the buffer, not a burst's worth of it.
        record.clear();
        record.shrink_to(4 * PIECE_BYTES_MAX);
        self.record = record;
    }

    fn flush(&mut self, bytes: &[u8], records: u64) {
        if bytes.is_empty() {
            return;
        }
        match self.file.write_all(bytes) {
            Ok(()) => self.size += bytes.len() as u64,
            Err(_) => {
                self.lost += records;
                // Half a record would spoil the next one's line too.
                drop(self.file.set_len(self.size));
            }
        }
    }

    /// `log.N-2` becomes `log.N-1` and so on; the oldest goes. A step that fails leaves that file where it is.
    fn rotate(&mut self) {
        let numbered = |number: u32| -> PathBuf {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{number}"));
            name.into()
        };
        if self.size == 0 {
            return;
        }
        let rotated = if self.files_max < 2 {
            self.file.set_len(0)
        } else {
            for number in (1..self.files_max - 1).rev() {
                // Missing ones are the normal case of a young log.
                drop(fs::rename(numbered(number), numbered(number + 1)));
            }
            fs::rename(&self.path, numbered(1))
                .and_then(|()| append(&self.path))
                .map(|file| self.file = file)
        };
        // When it failed: growing over the limit loses less than writing nothing; the next round tries again.
        drop(rotated);
        self.size = 0;
    }
}

fn append(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
}

/// Seconds and nanoseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timestamp {
    pub seconds: i64,
    pub nanoseconds: u32,
}

impl Timestamp {
    /// The clock's.
    pub fn now() -> Self {
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            nanoseconds: since.subsec_nanos(),
        }
    }

    /// RFC 3339 with as many digits as are needed, as Go's RFC3339Nano.
    pub fn rfc3339(self) -> String {
        let days = self.seconds.div_euclid(86_400);
        let second = self.seconds.rem_euclid(86_400);
        let (year, month, day) = civil(days);
        let mut text = format!(
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}",
            second / 3600,
            second / 60 % 60,
            second % 60
        );
        if self.nanoseconds > 0 {
            let digits = format!(".{:09}", self.nanoseconds);
            text.push_str(digits.trim_end_matches('0'));
        }
        text.push('Z');
        text
    }
}

/// Year, month and day of a day number since 1970-01-01, by eras of 400 years that begin on a 1st of March.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

fn append_record(to: &mut Vec<u8>, piece: &[u8], stream: Stream, now: Timestamp) {
    to.extend_from_slice(b"{\"log\":\"");
    escape(to, piece);
    to.extend_from_slice(b"\",\"stream\":\"");
    to.extend_from_slice(stream.name().as_bytes());
    to.extend_from_slice(b"\",\"time\":\"");
    to.extend_from_slice(now.rfc3339().as_bytes());
    to.extend_from_slice(b"\"}\n");
}

/// JSON text as docker's encoder writes it: HTML signs and line separators as \u, bytes that are not UTF-8 as U+FFFD.
fn escape(to: &mut Vec<u8>, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        let text = chunk.valid();
        let mut plain = 0;
        for (index, character) in text.char_indices() {
            let escaped: Option<&[u8]> = match character {
                '"' => Some(b"\\\""),
                '\\' => Some(b"\\\\"),
                '\n' => Some(b"\\n"),
                '\r' => Some(b"\\r"),
                '\t' => Some(b"\\t"),
                '<' => Some(b"\\u003c"),
                '>' => Some(b"\\u003e"),
                '&' => Some(b"\\u0026"),
                '\u{2028}' => Some(b"\\u2028"),
                '\u{2029}' => Some(b"\\u2029"),
                _ if u32::from(character) < 0x20 => None,
                _ => continue,
            };
            to.extend_from_slice(&text.as_bytes()[plain..index]);
            match escaped {
                Some(escaped) => to.extend_from_slice(escaped),
                None => to.extend_from_slice(format!("\\u{:04x}", u32::from(character)).as_bytes()),
            }
            plain = index + character.len_utf8();
        }
        to.extend_from_slice(&text.as_bytes()[plain..]);
        for _ in chunk.invalid() {
            to.extend_from_slice(b"\\ufffd");
        }
    }
}

/// Cuts one stream into records: a line each, or 16 KiB pieces of a longer line.
#[derive(Default)]
pub struct Framer {
    held: Vec<u8>,
}

impl Framer {
    /// Adds output; calls `write` with every piece that is complete.
    pub fn push(&mut self, bytes: &[u8], write: &mut dyn FnMut(&[&[u8]])) {
        self.held.extend_from_slice(bytes);
        let mut pieces: Vec<&[u8]> = Vec::new();
        let mut rest: &[u8] = &self.held;
        loop {
            let window = &rest[..rest.len().min(PIECE_BYTES_MAX)];
            let cut = match window.iter().position(|byte| *byte == b'\n') {
                Some(at) => at + 1,
                None if rest.len() >= PIECE_BYTES_MAX => whole_characters(window),
                None => break,
            };
            pieces.push(&rest[..cut]);
            rest = &rest[cut..];
        }
        if !pieces.is_empty() {
            write(&pieces);
        }
        let used = self.held.len() - rest.len();
        self.held.drain(..used);
    }

    /// The stream has ended: what is held is the last record, without a newline.
    pub fn finish(&mut self, write: &mut dyn FnMut(&[&[u8]])) {
        if !self.held.is_empty() {
            write(&[&self.held]);
            self.held = Vec::new();
        }
    }
}

/// Where to cut a full piece so that no character of up to 4 bytes is cut in two.
fn whole_characters(piece: &[u8]) -> usize {
    let tail = piece.len().saturating_sub(3);
    for at in (tail..piece.len()).rev() {
        let width = match piece[at] {
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            0x80..=0xbf => continue,
            _ => 1,
        };
        return if at + width > piece.len() {
            at
        } else {
            piece.len()
        };
    }
    piece.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_protocol::calls::LogMode;

    const NOON: Timestamp = Timestamp {
        seconds: 1_700_000_000,
        nanoseconds: 120_000_000,
    };

    fn frame(parts: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut framer = Framer::default();
        let mut got = Vec::new();
        let mut write = |pieces: &[&[u8]]| got.extend(pieces.iter().map(|piece| piece.to_vec()));
        for part in parts {
            framer.push(part, &mut write);
        }
        framer.finish(&mut write);
        got
    }

    #[test]
    fn framer_gives_lines_and_pieces_and_loses_nothing() {
        assert_eq!(
            frame(&[b"a\nb", b"c\n", b"tail"]),
            [b"a\n".to_vec(), b"bc\n".to_vec(), b"tail".to_vec()]
        );
        let long = vec![b'x'; PIECE_BYTES_MAX * 2 + 5];
        let pieces = frame(&[&long, b"\n"]);
        assert_eq!(
            pieces.iter().map(Vec::len).collect::<Vec<_>>(),
            [PIECE_BYTES_MAX, PIECE_BYTES_MAX, 6]
        );
        let mut euro = vec![b'x'; PIECE_BYTES_MAX - 1];
        euro.extend_from_slice("€\n".as_bytes());
        let pieces = frame(&[&euro]);
        assert_eq!(pieces[0].len(), PIECE_BYTES_MAX - 1);
        assert_eq!(pieces.concat(), euro);
    }

    #[test]
    fn record_is_as_docker_writes_it() {
        let mut to = Vec::new();
        append_record(
            &mut to,
            b"a\"b\\<&>\t\x01\xff\xe2\x82\xac\n",
            Stream::Stderr,
            NOON,
        );
        assert_eq!(
            String::from_utf8(to).expect("utf-8"),
            "{\"log\":\"a\\\"b\\\\\\u003c\\u0026\\u003e\\t\\u0001\\ufffd€\\n\",\"stream\":\"stderr\",\"time\":\"2023-11-14T22:13:20.12Z\"}\n"
        );
    }

    #[test]
    fn rfc3339_knows_the_calendar() {
        for (seconds, nanoseconds, want) in [
            (0, 0, "1970-01-01T00:00:00Z"),
            (951_782_400, 1, "2000-02-29T00:00:00.000000001Z"),
            (4_107_542_399, 500_000_000, "2100-02-28T23:59:59.5Z"),
        ] {
            assert_eq!(
                Timestamp {
                    seconds,
                    nanoseconds
                }
                .rfc3339(),
                want
            );
        }
    }

    #[test]
    fn write_rotates_by_rename_and_keeps_at_most_max_files() {
        let dir = std::env::temp_dir().join(format!("shoal-log-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("dir");
        let path = dir.join("json.log");
        let log = Log {
            path: path.display().to_string(),
            max_size_bytes: Some(150),
            max_files: 3,
            mode: LogMode::Blocking,
            max_buffer_bytes: 0,
            compress: false,
        };
        let mut file = LogFile::open(&log).expect("open");
        for number in 0..20 {
            file.write(
                Stream::Stdout,
                &[format!("line {number}\n").as_bytes()],
                NOON,
            );
        }
        assert_eq!(file.lost, 0);
        let mut names: Vec<String> = fs::read_dir(&dir)
            .expect("list")
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        assert_eq!(names, ["json.log", "json.log.1", "json.log.2"]);
        let all = ["json.log.2", "json.log.1", "json.log"]
            .map(|name| fs::read_to_string(dir.join(name)).expect("read"))
            .concat();
        let last = all.lines().last().expect("lines");
        assert!(last.contains("line 19"), "{last}");
        let numbers: Vec<usize> = all
            .lines()
            .map(|line| {
                line.split_once("line ")
                    .and_then(|(_, rest)| rest.split_once('\\'))
                    .expect("a line")
                    .0
                    .parse()
                    .expect("n")
            })
            .collect();
        assert!(
            numbers.windows(2).all(|pair| pair[1] == pair[0] + 1),
            "{numbers:?}"
        );
        fs::remove_dir_all(&dir).expect("clean");
    }
}
