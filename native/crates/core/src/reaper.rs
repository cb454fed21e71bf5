//! Removes what deleted containers leave on disk, off the path of any caller.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, sync_channel};

/// Most removals that wait; a caller beyond that waits too.
const WAITING_MAX: usize = 4096;

/// A thread that removes directory trees in order.
pub struct Reaper {
    queue: SyncSender<Vec<PathBuf>>,
}

impl Reaper {
    /// Starts the thread.
    pub fn start() -> io::Result<Self> {
        let (queue, jobs) = sync_channel::<Vec<PathBuf>>(WAITING_MAX);
        std::thread::Builder::new()
            .name("reaper".into())
            .spawn(move || {
                for job in jobs {
                    for path in job {
                        // What cannot be removed now is found again by the next start's scan.
                        drop(remove(&path));
                    }
                }
            })?;
        Ok(Self { queue })
    }

    /// Removes these trees in this order, some time soon. The last one is the journal that finds the others again.
    pub fn remove(&self, paths: Vec<PathBuf>) {
        // The thread lives as long as the process.
        drop(self.queue.send(paths));
    }
}

/// Removes a tree that may be gone already.
pub fn remove(path: &std::path::Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
