//! Has the disk take what is unpacked while more is unpacked, so that little is left to wait for at the end.

use crate::{LayerError, sys};
use std::os::fd::{AsFd, OwnedFd};
use std::panic::resume_unwind;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, Builder};

/// After so many bytes of content what there is goes to the disk: enough for long writes, and the end waits for little more than this.
const DUE_BYTES: u64 = 64 << 20;

/// How much was written since the disk was last asked to take it.
pub struct Progress {
    due: SyncSender<()>,
    bytes: u64,
}

impl Progress {
    /// So many more bytes were written to files.
    pub fn wrote(&mut self, bytes: u64) {
        self.bytes += bytes;
        // While the disk is still busy with the last ones, the next bytes ask again.
        if self.bytes >= DUE_BYTES && self.due.try_send(()).is_ok() {
            self.bytes = 0;
        }
    }
}

/// Runs `work` beside a thread that syncs the file system of `root` whenever enough was written.
///
/// The kernel tells each failed write once, to whoever syncs first (syncfs(2)), so one that this thread is told fails the work.
pub fn beside<T>(
    root: OwnedFd,
    work: impl FnOnce(&mut Progress) -> Result<T, LayerError>,
) -> Result<T, LayerError> {
    let (due, is_due) = sync_channel(1);
    thread::scope(|scope| {
        let syncing = Builder::new()
            .name("layer-sync".into())
            .spawn_scoped(scope, move || {
                is_due
                    .iter()
                    .try_for_each(|()| sys::sync_file_system(root.as_fd()))
            })
            .map_err(|error| LayerError::Write("starting a thread".into(), error))?;
        let mut progress = Progress { due, bytes: 0 };
        let done = work(&mut progress);
        drop(progress);
        let synced = syncing.join().unwrap_or_else(|panic| resume_unwind(panic));
        let value = done?;
        synced.map_err(|error| LayerError::Write("writing to the disk".into(), error))?;
        Ok(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_is_asked_once_for_so_many_bytes_and_never_waited_for() {
        let (due, is_due) = sync_channel(1);
        let mut progress = Progress { due, bytes: 0 };
        progress.wrote(DUE_BYTES - 1);
        assert!(is_due.try_recv().is_err());
        progress.wrote(1);
        progress.wrote(DUE_BYTES);
        progress.wrote(DUE_BYTES);
        assert!(is_due.try_recv().is_ok());
        assert!(is_due.try_recv().is_err(), "one at a time");
        progress.wrote(1);
        assert!(
            is_due.try_recv().is_ok(),
            "what had to wait is not forgotten"
        );
    }

    #[test]
    fn a_disk_that_fails_fails_the_work() {
        // A descriptor that is of no file that can be synced: syncfs answers EBADF for O_PATH.
        let root = std::fs::File::from(
            sys::open_in_root(
                sys::open_directory(std::path::Path::new("/"))
                    .unwrap()
                    .as_fd(),
                b".",
                libc::O_PATH,
            )
            .unwrap(),
        );
        let failed = beside(root.into(), |progress| {
            progress.wrote(DUE_BYTES);
            Ok(())
        });
        assert!(matches!(failed, Err(LayerError::Write(_, _))), "{failed:?}");
    }
}
