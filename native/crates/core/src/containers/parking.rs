//! Keeping the pool full, off the path of whoever waits for a container, and discarding what is in it.

use super::{Containers, complain, hear};
use crate::pool::{Order, Sandbox};
use crate::records::{self, Message};
use crate::zygote::Task;
use shoal_protocol::calls::Create;
use shoal_protocol::{Failure, FailureCode};
use shoal_runtime::sandbox;
use shoal_runtime::sys::socket;
use std::os::fd::AsFd;
use std::path::Path;
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
                while let Some(order) = this.pool.next() {
                    this.park(&order);
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
                    self.discard(vec![unwanted]);
                }
            }
            // Containers can still be made cold; why there is no pool for them is said once.
            Err(failure) if self.pool.failed(order) => complain(Err(failure)),
            Err(_) => {}
        }
    }

    fn make_sandbox(&self, order: &Order) -> Result<Sandbox, Failure> {
        let doing = "parking a sandbox";
        let (path, dir) = self.store.park(&order.template, &self.cgroup_parent)?;
        let made = || -> Result<Sandbox, Failure> {
            let (control, theirs) = socket::pair().map_err(|error| Failure::io(doing, &error))?;
            self.zygote
                .monitor(Task::Park, theirs.as_fd(), dir.as_fd())?;
            // From here the monitor alone holds the lock and the other end.
            drop(theirs);
            match hear(&control) {
                Ok(Message::Parked { nodev }) => Ok(Sandbox {
                    path: path.clone(),
                    control,
                    nodev,
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

    /// A sandbox for this creation, with its directory named and journaled as the creation's; None when it has to be made cold.
    pub(super) fn unpark(&self, create: &Create) -> Option<Sandbox> {
        if !self.pool.is_on()
            || Path::new(&create.spec.linux.cgroups_path).parent()
                != Some(Path::new(&self.cgroup_parent))
        {
            return None;
        }
        let template = sandbox::template(&create.spec)?;
        let mut left = Vec::new();
        let taken = self.pool.take(template, &mut left);
        self.discard(left);
        let mut taken = taken?;
        let journal = records::encode(create);
        // The monitor reads it while it is being written.
        let told = socket::send(taken.control.as_fd(), &journal)
            .map_err(|error| Failure::io("telling a sandbox its container", &error));
        let id = &create.container_id;
        match told.and_then(|()| self.store.begin_parked(&taken.path, id, &journal)) {
            Ok(path) => {
                taken.path = path;
                Some(taken)
            }
            Err(_) => {
                self.discard(vec![taken]);
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
