//! The monitor of a sandbox: it prepares what does not depend on the container, waits until the sandbox is used or discarded, then goes on
//! as the container's monitor.

use super::creation::{self, Commit, Given, Journal, Pipes, Workshop, end};
use super::streams::{Sink, Streams};
use super::{Monitor, doing};
use crate::records::{self, Message, Parked};
use shoal_protocol::calls::{Create, Rootfs, Seccomp, Stdin};
use shoal_protocol::oci::{Capabilities, Memory, Process, Resources, Spec};
use shoal_protocol::{Failure, FailureCode};
use shoal_runtime::cgroup::{self, Driver, detect::Layout};
use shoal_runtime::sandbox::{self, Sandbox};
use shoal_runtime::streams::Stdio;
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

/// Prepares a sandbox and waits. Gives the monitor of the container that it has become, and whether it is to be started; ends the
/// process when it is discarded.
pub(super) fn run(
    layout: &Layout,
    control: &OwnedFd,
    dir: OwnedFd,
) -> Result<(Monitor, bool), Failure> {
    let mut kept = prepare(layout, dir)?;
    // A core that is gone is seen as the end of the connection right below.
    let message = Message::Parked {
        nodev: !kept.driver.limits_devices(),
    };
    drop(socket::send(control.as_fd(), &records::encode(&message)));
    let length = socket::next_length(control.as_fd()).unwrap_or(0);
    let mut bytes = vec![0u8; length.max(1)];
    let length = socket::receive(control.as_fd(), &mut bytes).unwrap_or(0);
    if length == 0 {
        kept.discard();
        process::exit_now(0);
    }
    // Init reads it at the same time.
    let told = kept.sandbox.tell(&bytes[..length]);
    let journal = Journal::parse(&bytes[..length]);
    let mut word = [0u8; 8];
    let length = socket::receive(control.as_fd(), &mut word).unwrap_or(0);
    let start = match &word[..length] {
        records::USE => false,
        records::USE_AND_START => true,
        _ => {
            kept.discard();
            process::exit_now(0);
        }
    };
    kept.become_container(told, journal?, control, start)
        .map(|monitor| (monitor, start))
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
    let mut sandbox = sandbox::park(
        &record.template,
        &place,
        &record.cgroup,
        driver.as_ref(),
        &[workshop.dir.as_fd()],
    )?;
    let sample = records::encode(&sample(&record.template));
    sandbox.rehearse(&sample)?;
    drop(Journal::parse(&sample));
    Ok(Kept {
        workshop,
        driver,
        record,
        sandbox,
    })
}

/// A creation of this template that nobody asked for. Reading one makes monitor and init fault in, while nobody waits, the code and the
/// memory that they read the real one with: that takes several times as long as the reading.
fn sample(template: &Spec) -> Create {
    let words = |list: &[&str]| {
        list.iter()
            .map(|word| (*word).to_owned())
            .collect::<Vec<_>>()
    };
    let capabilities = words(&["CAP_CHOWN", "CAP_KILL"]);
    let process = Process {
        args: words(&["/bin/sh"]),
        env: words(&["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]),
        cwd: "/".into(),
        capabilities: Capabilities {
            bounding: capabilities.clone(),
            effective: capabilities.clone(),
            permitted: capabilities,
            ..Capabilities::default()
        },
        ..Process::default()
    };
    let mut spec = Spec {
        process,
        hostname: "sandbox".into(),
        ..template.clone()
    };
    spec.linux.cgroups_path = "/sandbox".into();
    spec.linux.resources.memory = Some(Memory {
        limit: Some(1 << 30),
        ..Memory::default()
    });
    Create {
        container_id: "sandbox".into(),
        spec,
        rootfs: Rootfs {
            layers: words(&["/sandbox/layer"]),
            directory: "/sandbox/root".into(),
        },
        log: None,
        stdin: Stdin::Closed,
        console_size: None,
        seccomp: Seccomp::Default,
        health: None,
    }
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
    fn become_container(
        self,
        told: Result<(), Failure>,
        journal: Journal,
        control: &OwnedFd,
        start: bool,
    ) -> Result<Monitor, Failure> {
        let Self {
            workshop,
            driver,
            record,
            mut sandbox,
        } = self;
        let begun =
            told.and_then(|()| own(&workshop, driver.as_ref(), &record, &sandbox, &journal));
        // In any case, so that nobody else works on the root when it is taken back.
        let root = creation::receive_root(control);
        let filled = begun.and_then(|own| fill(&mut sandbox, root, own, &journal));
        match filled {
            Ok((streams, commit)) => {
                let finished = commit.finish(&workshop.dir);
                let committed = finished.inspect_err(|_| end(sandbox.parked()))?;
                let parked = sandbox.into_parked();
                workshop.monitor(journal, parked, streams, committed, start)
            }
            Err(_) => {
                // Whatever it was: making it cold works, or tells the reason in its own words.
                end(sandbox.parked());
                undo(&workshop, &record, &journal.create)?;
                workshop.build(Given::default(), start)
            }
        }
    }
}

/// What is a container's own, but its root.
struct Own {
    pipes: Pipes,
    sink: Sink,
    stdio: Stdio,
    volumes: Vec<OwnedFd>,
    commit: Commit,
}

/// Makes what is this container's own, while the core makes its root and init reads its configuration.
fn own(
    workshop: &Workshop,
    driver: &dyn Driver,
    record: &Parked,
    sandbox: &Sandbox,
    journal: &Journal,
) -> Result<Own, Failure> {
    let plan = &journal.plan;
    let (pipes, stdio) = Pipes::open(&journal.create)?;
    let sink = creation::open_sink(&journal.create)?;
    let volumes = sandbox::volumes(plan)?;
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
    Ok(Own {
        pipes,
        sink,
        stdio,
        volumes,
        commit,
    })
}

/// Gives init what is the container's own, and waits until it is ready to start.
fn fill(
    sandbox: &mut Sandbox,
    root: Option<OwnedFd>,
    own: Own,
    journal: &Journal,
) -> Result<(Streams, Commit), Failure> {
    let root = root.ok_or_else(|| {
        Failure::new(
            FailureCode::System,
            "taking the container's root",
            "the core has none",
        )
    })?;
    sandbox.fill(root, own.volumes, own.stdio, journal.seccomp.as_deref())?;
    sandbox.await_ready()?;
    Ok((own.pipes.take(own.sink)?, own.commit))
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
    match file::remove_at(workshop.dir.as_fd(), records::MONITOR_SOCKET) {
        // It had not come to the commit.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        removed => doing("taking the monitor's socket back", removed)?,
    }
    root::withdraw(&create.rootfs)
}
