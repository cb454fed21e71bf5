//! Packing rotated files of a log, in the core: a monitor has neither the time nor the memory for it.

use super::read::{compressed, numbered};
use flate2::Compression;
use flate2::write::GzEncoder;
use shoal_runtime::sys::file;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Holds the numbers of a log's files still while it lives; None where that cannot be had.
pub fn lock(log: &Path) -> Option<OwnedFd> {
    let directory = log.parent()?.to_str()?;
    let directory = file::open(directory, libc::O_RDONLY | libc::O_DIRECTORY).ok()?;
    file::lock(directory.as_fd()).ok()?;
    Some(directory)
}

/// Packs every rotated file of a log that is not packed yet, at most `files_max` of them.
pub fn pack(log: &Path, files_max: u32) -> io::Result<()> {
    for _ in 0..files_max {
        let mut numbers = 1..files_max;
        let Some(number) = numbers.find(|number| numbered(log, *number).exists()) else {
            return Ok(());
        };
        pack_one(log, number, files_max)?;
    }
    Ok(())
}

fn pack_one(log: &Path, number: u32, files_max: u32) -> io::Result<()> {
    let mut plain = match File::open(numbered(log, number)) {
        // Rotated on, or away, a moment ago.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let inode = plain.metadata()?.ino();
    let mut unfinished = log.as_os_str().to_owned();
    unfinished.push(".packing");
    let target = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o640)
        .open(&unfinished)?;
    let mut encoder = GzEncoder::new(target, Compression::fast());
    let packed = io::copy(&mut plain, &mut encoder).and_then(|_| encoder.finish());
    if let Err(error) = packed {
        drop(fs::remove_file(&unfinished));
        return Err(error);
    }
    let _lock = lock(log);
    // Its number may have grown meanwhile.
    let now = (number..files_max).find(|now| {
        fs::metadata(numbered(log, *now)).is_ok_and(|metadata| metadata.ino() == inode)
    });
    match now {
        Some(now) => {
            fs::rename(&unfinished, compressed(log, now))?;
            fs::remove_file(numbered(log, now))
        }
        None => fs::remove_file(&unfinished),
    }
}
