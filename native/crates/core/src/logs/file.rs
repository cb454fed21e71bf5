//! The writing end of a container's log: records appended to a file that is rotated by rename.

use super::compress::lock;
use super::framer::PIECE_BYTES_MAX;
use super::read::{compressed, numbered};
use super::record::{self, Stream, Timestamp};
use shoal_protocol::calls::Log;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};

/// An open log with its rotation.
pub struct LogFile {
    path: PathBuf,
    file: File,
    size: u64,
    size_max: Option<u64>,
    files_max: u32,
    compress: bool,
    /// A file has been rotated away since this was last looked at.
    pub rotated: bool,
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
            compress: log.compress,
            rotated: false,
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
        let ending = record::ending(stream, now);
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
            record::append_record(&mut record, piece, &ending);
            records += 1;
        }
        self.flush(&record, records);
        // Keep the buffer, not a burst's worth of it.
        record.clear();
        record.shrink_to(4 * PIECE_BYTES_MAX);
        self.record = record;
    }

    /// The descriptor, for a process that is to keep no other.
    pub(super) fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Nothing is written for now: the next record has a new buffer.
    pub fn rest(&mut self) {
        self.record = Vec::new();
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
        if self.size == 0 {
            return;
        }
        let rotated = if self.files_max < 2 {
            self.file.set_len(0)
        } else {
            // Held over the renames, so that a file is not compressed under a number that it has just lost.
            let _lock = self.compress.then(|| lock(&self.path));
            self.rename_all()
        };
        // When it failed: growing over the limit loses less than writing nothing; the next round tries again.
        self.rotated |= rotated.is_ok();
        self.size = 0;
    }

    fn rename_all(&mut self) -> io::Result<()> {
        // Missing ones are the normal case of a young log, in these and in the renames.
        let oldest = self.files_max - 1;
        drop(fs::remove_file(compressed(&self.path, oldest)));
        for number in (1..oldest).rev() {
            for name in [numbered, compressed] {
                drop(fs::rename(
                    name(&self.path, number),
                    name(&self.path, number + 1),
                ));
            }
        }
        fs::rename(&self.path, numbered(&self.path, 1))?;
        self.file = append(&self.path)?;
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_protocol::calls::LogMode;

    const NOON: Timestamp = Timestamp {
        seconds: 1_700_000_000,
        nanoseconds: 120_000_000,
    };

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
