//! Keeping the pool full, off the path of whoever waits for a container, and discarding what is in it.

use super::creation::Job;
use super::{Containers, complain, hear};
use crate::planning::Config;
use crate::pool::{Order, Root, Sandbox, Warm, Work};
use crate::records::Message;
use crate::zygote::Task;
use shoal_protocol::{Failure, FailureCode};
use shoal_runtime::own::Own;
use shoal_runtime::sandbox;
use shoal_runtime::sys::{file, socket};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

/// Longest that the end of the core waits for a sandbox that is being made.
const PARKING_TIMEOUT: Duration = Duration::from_secs(2);

impl Containers {
    /// Starts the thread that makes sandboxes for the life of the core.
    pub fn keep_parked(self: &Arc<Self>) -> Result<(), Failure> {
        if !self.pool.is_on() {
            return Ok(());
        }
        let this = Arc::clone(self);
        let (ends, ended) = channel();
        let spawned = std::thread::Builder::new()
            .name("pool".into())
            .spawn(move || {
                // Dropped when the thread is done, which is all that it says.
                let _ends: Sender<()> = ends;
                while let Some(work) = this.pool.next() {
                    match work {
                        Work::Make(order) => this.park(&order),
                        Work::Discard(sandboxes) => this.discard(sandboxes),
                    }
                }
            });
        spawned.map_err(|error| Failure::io("starting the pool's thread", &error))?;
        *self.parking_ended() = Some(ended);
        Ok(())
    }

    /// Ends the pool: what is in it, and what is being made for it.
    pub(super) fn close_pool(&self) {
        self.discard(self.pool.close());
        if let Some(ended) = self.parking_ended().take() {
            // Nothing is ever sent: this waits for the thread's end. What it leaves beyond the limit is rolled back by the next start.
            let _ = ended.recv_timeout(PARKING_TIMEOUT);
        }
    }

    fn parking_ended(&self) -> MutexGuard<'_, Option<Receiver<()>>> {
        self.parking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn park(&self, order: &Order) {
        match self.make_sandbox(order) {
            Ok(sandbox) => {
                if let Err(unwanted) = self.pool.add(order, sandbox) {
                    self.discard(vec![*unwanted]);
                }
            }
            // Containers can still be made cold; why there is no pool for them is said once.
            Err(failure) if self.pool.failed(order) => complain(Err(failure)),
            Err(_) => {}
        }
    }

    fn make_sandbox(&self, order: &Order) -> Result<Sandbox, Failure> {
        let doing = "parking a sandbox";
        let identify = || -> Result<_, Failure> {
            let identities = order.root.as_ref().map(Root::identify).transpose();
            identities.map_err(|error| Failure::io("looking at the layers of a sandbox", &error))
        };
        let identities = identify()?;
        let root = order.root.as_ref();
        let (path, dir, record) = self
            .store
            .park(&order.template, &self.cgroup_parent, root)?;
        let warm = |identities| {
            Some(Warm {
                root: order.root.clone()?,
                identities,
                directory: record.root.as_ref()?.directory.clone(),
            })
        };
        let made = || -> Result<Sandbox, Failure> {
            let (control, theirs) = socket::pair().map_err(|error| Failure::io(doing, &error))?;
            self.zygote
                .monitor(Task::Park, theirs.as_fd(), dir.as_fd())?;
            // From here the monitor alone holds the lock and the other end.
            drop(theirs);
            match hear(&control) {
                // Of layers that were exchanged meanwhile it is not known which it has.
                Ok(Message::Parked { .. }) if identify()? != identities => Err(Failure::new(
                    FailureCode::Conflict,
                    doing,
                    "its layers have changed",
                )),
                Ok(Message::Parked { nodev, pids }) => Ok(Sandbox {
                    pids,
                    path: path.clone(),
                    control,
                    nodev,
                    warm: identities.and_then(warm),
                }),
                Ok(Message::Failed { failure }) => Err(failure),
                Ok(_) | Err(_) => Err(Failure::new(
                    FailureCode::System,
                    doing,
                    "its monitor was killed",
                )),
            }
        };
        let sandbox = made();
        drop(dir);
        sandbox.inspect_err(|_| {
            // What stays is rolled back by the next start.
            drop(self.store.roll_back(self.driver.as_ref(), &path));
        })
    }

    /// A sandbox for this creation, with its directories named and journaled as the creation's, and what its monitor is to be told; None
    /// when it has to be made cold.
    pub(super) fn unpark(&self, job: &Job<'_>, config: Config) -> Option<(Sandbox, Own)> {
        let create = job.create;
        let parent = Path::new(job.cgroup).parent();
        if !self.pool.is_on() || parent != Some(Path::new(&self.cgroup_parent)) {
            return None;
        }
        let (template, own) = match config {
            Config::Split { template, own } => (template, *own),
            Config::Whole { spec, verbatim } => {
                let (template, own) = sandbox::split(*spec)?;
                let template = Arc::new(template);
                // A health check is run with the names of capabilities, which are not noted.
                if verbatim && create.health.is_none() {
                    self.usual.note(job.journal, &template, job.caps);
                }
                (template, own)
            }
        };
        let root = Root::of(&create.rootfs);
        let mut left = Vec::new();
        let taken = self.pool.take(template, root.as_ref(), &mut left);
        self.discard(left);
        let mut taken = taken?;
        let begin = || -> Result<PathBuf, Failure> {
            let id = &create.container_id;
            let path = self.store.begin_parked(&taken.path, id, job.journal)?;
            match &taken.warm {
                // From here its directory is found by the journal.
                Some(warm) => warm.give(&create.rootfs.directory).map(|()| path),
                None => Ok(path),
            }
        };
        match begin() {
            Ok(path) => {
                taken.path = path;
                Some((taken, Own::new(create, own, job.caps)))
            }
            Err(_) => {
                let begun = self.store.creating(&create.container_id);
                self.discard(vec![taken]);
                // With the name of the creation already, where it came so far.
                drop(self.store.roll_back(self.driver.as_ref(), &begun));
                None
            }
        }
    }

    /// Ends sandboxes and what they have. Their monitors do that by themselves; this waits for them.
    pub(super) fn discard(&self, sandboxes: Vec<Sandbox>) {
        let paths: Vec<_> = sandboxes.into_iter().map(|sandbox| sandbox.path).collect();
        for path in paths {
            // What stays is rolled back by the next start.
            drop(self.store.roll_back(self.driver.as_ref(), &path));
        }
    }
}

impl Warm {
    /// Makes the directory of the root that of the container, if the root is still of the layers that are there now.
    fn give(&self, directory: &str) -> Result<(), Failure> {
        let doing = |error: io::Error| Failure::io("giving a container its root", &error);
        if self.root.identify().map_err(doing)? != self.identities {
            return Err(Failure::new(
                FailureCode::Conflict,
                "giving a container its root",
                "its layers have changed",
            ));
        }
        file::rename_path_new(&self.directory, directory).map_err(doing)
    }
}
