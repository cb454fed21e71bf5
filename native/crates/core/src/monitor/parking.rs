//! The monitor of a sandbox: it prepares what does not depend on the container, waits until the sandbox is used or discarded, then goes on
//! as the container's monitor.

use super::creation::{Commit, Journal, Pipes, Workshop, end};
use super::streams::Streams;
use super::{Monitor, doing};
use crate::records::{self, Message, Parked};
use shoal_protocol::Failure;
use shoal_protocol::calls::Create;
use shoal_protocol::oci::Resources;
use shoal_runtime::cgroup::{self, Driver, detect::Layout};
use shoal_runtime::sandbox::{self, Sandbox};
use shoal_runtime::sys::{file, process, socket};
use shoal_runtime::{launch, root};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// A sandbox and what is told of it on disk.
struct Kept {
    workshop: Workshop,
    /// Of the hierarchies whose groups can be renamed.
    driver: Box<dyn Driver>,
    record: Parked,
    sandbox: Sandbox,
}

/// Prepares a sandbox and waits. Gives the monitor of the container that it has become; ends the process when it is discarded.
pub(super) fn run(layout: &Layout, control: &OwnedFd, dir: OwnedFd) -> Result<Monitor, Failure> {
    let kept = prepare(layout, dir)?;
    // A core that is gone is seen as the end of the connection right below.
    drop(socket::send(
        control.as_fd(),
        &records::encode(&Message::Parked),
    ));
    let mut word = [0u8; 8];
    let length = socket::receive(control.as_fd(), &mut word).unwrap_or(0);
    if &word[..length] != records::USE {
        kept.discard();
        process::exit_now(0);
    }
    kept.become_container()
}

fn prepare(layout: &Layout, dir: OwnedFd) -> Result<Kept, Failure> {
    let workshop = Workshop::open(layout, dir)?;
    // In a v2 hierarchy beside v1, groups keep their names. A sandbox has none there: a container that needs one is made cold.
    let driver = cgroup::driver(&Layout {
        unified: None,
        ..layout.clone()
    });
    let record: Parked = serde_json::from_slice(&workshop.read(records::PARKED_FILE)?)
        .map_err(|error| Failure::invalid("reading the sandbox's record", error.to_string()))?;
    let place = doing("finding the sandbox's directory", path_of(&workshop.dir))?;
    let sandbox = sandbox::park(
        &record.template,
        &place,
        &record.cgroup,
        driver.as_ref(),
        &[workshop.dir.as_fd()],
    )?;
    Ok(Kept {
        workshop,
        driver,
        record,
        sandbox,
    })
}

fn path_of(dir: &OwnedFd) -> io::Result<PathBuf> {
    fs::read_link(file::proc_path(dir))
}

impl Kept {
    /// Nobody wants it: everything of it goes, its directory last.
    fn discard(self) {
        end(self.sandbox.parked());
        // What resists is found again by the core's next start, as the directory stays.
        if cgroup::destroy(self.driver.as_ref(), &self.record.cgroup).is_ok()
            && let Ok(path) = path_of(&self.workshop.dir)
        {
            drop(fs::remove_dir_all(path));
        }
    }

    /// Makes the container whose journal is now in the directory; where the sandbox turns out not to fit, from nothing.
    fn become_container(self) -> Result<Monitor, Failure> {
        let Self {
            workshop,
            driver,
            record,
            mut sandbox,
        } = self;
        let bytes = workshop.read(records::CREATE_FILE)?;
        // Init reads it at the same time.
        let told = sandbox.tell(&bytes);
        let journal = Journal::parse(&bytes)?;
        let filled =
            told.and_then(|()| fill(&workshop, driver.as_ref(), &record, &mut sandbox, &journal));
        match filled {
            Ok((streams, commit)) => {
                let finished = commit.finish(&workshop.dir);
                let (listener, created_at_ms) = finished.inspect_err(|_| end(sandbox.parked()))?;
                let parked = sandbox.into_parked();
                workshop.monitor(journal, parked, streams, listener, created_at_ms)
            }
            Err(_) => {
                // Whatever it was: making it cold works, or tells the reason in its own words.
                end(sandbox.parked());
                undo(&workshop, &record, &journal.create)?;
                workshop.build()
            }
        }
    }
}

/// Gives the sandbox what is this container's own, and waits until its init is ready to start.
fn fill(
    workshop: &Workshop,
    driver: &dyn Driver,
    record: &Parked,
    sandbox: &mut Sandbox,
    journal: &Journal,
) -> Result<(Streams, Commit), Failure> {
    let Journal {
        create,
        plan,
        seccomp,
        ..
    } = journal;
    root::prepare(&create.rootfs)?;
    let (pipes, stdio) = Pipes::open(create)?;
    sandbox.fill(plan, driver, stdio, seccomp.as_deref())?;
    // Init mounts meanwhile.
    rename_group(driver, &record.cgroup, &plan.cgroup)?;
    let resources = Resources {
        // As the template has them: they are written already.
        devices: Vec::new(),
        ..plan.spec.linux.resources.clone()
    };
    driver.update(&plan.cgroup, &resources)?;
    if let Some(score) = plan.spec.process.oom_score_adj {
        launch::set_oom_score(sandbox.parked().pid, score)?;
    }
    let commit = Commit::prepare(&workshop.dir, plan, sandbox.parked().pid)?;
    sandbox.await_ready()?;
    Ok((pipes.take()?, commit))
}

/// Gives a group its final name in every hierarchy; processes and settings stay. Only v1 can do this, and only within one parent.
fn rename_group(driver: &dyn Driver, from: &str, to: &str) -> Result<(), Failure> {
    for (from, to) in driver
        .directories(from)
        .into_iter()
        .zip(driver.directories(to))
    {
        match rename(&from, &to) {
            // The sandbox has no group in this hierarchy.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => doing(&format!("naming cgroup {}", to.display()), other)?,
        }
    }
    Ok(())
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        // A leftover group without processes is replaced, as by a cold creation.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_dir(to)?;
            fs::rename(from, to)
        }
        other => other,
    }
}

/// Takes back what `fill` may have done.
fn undo(workshop: &Workshop, record: &Parked, create: &Create) -> Result<(), Failure> {
    let driver = workshop.driver.as_ref();
    cgroup::destroy(driver, &record.cgroup)?;
    cgroup::destroy(driver, &create.spec.linux.cgroups_path)?;
    root::withdraw(&create.rootfs)
}
