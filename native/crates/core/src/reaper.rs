//! Removes what deleted containers leave on disk, off the path of any caller.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Most removals that wait; a caller beyond that waits too.
const WAITING_MAX: usize = 4096;
/// As long as no more wait, each is put off while somebody waits for a container, by at most `DEFERRALS_MAX` times `DEFERRAL`.
const DEFERRED_MAX: usize = 16;
const DEFERRALS_MAX: u32 = 25;
const DEFERRAL: Duration = Duration::from_millis(8);

/// A thread that removes directory trees in order.
pub struct Reaper {
    queue: SyncSender<Vec<PathBuf>>,
    waiting: Arc<Waiting>,
}

/// How many removals have been asked for and not been done.
#[derive(Default)]
struct Waiting {
    count: Mutex<usize>,
    less: Condvar,
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, usize> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reaper {
    /// Starts the thread. Where there is time it waits until `is_quiet`: removing competes with making for processors and for the disk.
    pub fn start(is_quiet: impl Fn() -> bool + Send + 'static) -> io::Result<Self> {
        let (queue, jobs) = sync_channel::<Vec<PathBuf>>(WAITING_MAX);
        let waiting = Arc::<Waiting>::default();
        let left = Arc::clone(&waiting);
        std::thread::Builder::new()
            .name("reaper".into())
            .spawn(move || {
                for job in jobs {
                    for _ in 0..DEFERRALS_MAX {
                        if is_quiet() || *left.lock() > DEFERRED_MAX {
                            break;
                        }
                        std::thread::sleep(DEFERRAL);
                    }
                    for path in job {
                        // What cannot be removed now is found again by the next start's scan.
                        drop(remove(&path));
                    }
                    *left.lock() -= 1;
                    left.less.notify_all();
                }
            })?;
        Ok(Self { queue, waiting })
    }

    /// Removes these trees in this order, some time soon. The last one is the journal that finds the others again.
    pub fn remove(&self, paths: Vec<PathBuf>) {
        *self.waiting.lock() += 1;
        // The thread lives as long as the process.
        drop(self.queue.send(paths));
    }

    /// Waits until all has been removed that was asked for, at most this long; whether it has.
    pub fn finish(&self, limit: Duration) -> bool {
        let (count, _) = self
            .waiting
            .less
            .wait_timeout_while(self.waiting.lock(), limit, |count| *count > 0)
            .unwrap_or_else(PoisonError::into_inner);
        *count == 0
    }
}

/// Removes a tree that may be gone already.
pub fn remove(path: &std::path::Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
