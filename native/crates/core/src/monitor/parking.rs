//! The monitor of a sandbox: it prepares what does not depend on the container, waits until the sandbox is used or discarded, then goes on
//! as the container's monitor.

use super::commands::answer;
use super::creation::{self, Given, Journal, Pipes, Place, Workshop, end, new_buffer};
use super::{Monitor, Start, doing};
use crate::records::{self, Message, Parked};
use shoal_protocol::calls::{Rootfs, Seccomp, Stdin};
use shoal_protocol::oci::{Memory, Process, Spec};
use shoal_protocol::packed;
use shoal_protocol::{Failure, FailureCode};
use shoal_runtime::caps::Masks;
use shoal_runtime::cgroup::{self, Driver, OomWatch, detect::Layout};
use shoal_runtime::own::{Inner, Own};
use shoal_runtime::plan::Plan;
use shoal_runtime::sandbox::{self, Sandbox};
use shoal_runtime::streams::Stdio;
use shoal_runtime::sys::memory::Pages;
use shoal_runtime::sys::{affinity, file, process, region, socket};
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
    place: Place,
    buffer: Pages,
    /// Of its group, which keeps it under its new name.
    oom: Option<OomWatch>,
}

/// Prepares a sandbox and waits. Gives the monitor of the container that it has become, and whether it is to be started; ends the
/// process when it is discarded.
pub(super) fn run(
    layout: &Layout,
    control: &OwnedFd,
    dir: OwnedFd,
) -> Result<(Monitor, Start), Failure> {
    let mut kept = prepare(layout, dir)?;
    // A core that is gone is seen as the end of the connection right below.
    let message = Message::Parked {
        nodev: !kept.driver.limits_devices(),
        pids: [
            i32::try_from(std::process::id()).unwrap_or(0),
            kept.sandbox.parked().pid,
        ],
    };
    drop(socket::send(control.as_fd(), &records::encode(&message)));
    let length = socket::next_length(control.as_fd()).unwrap_or(0);
    let mut bytes = vec![0u8; length.max(1)];
    let (length, fds) = socket::receive_with_fds(control.as_fd(), &mut bytes).unwrap_or_default();
    if length == 0 {
        kept.discard();
        process::exit_now(0);
    }
    affinity::home();
    let (word, own) = bytes[..length].split_at(1);
    // Init reads it at the same time.
    let told = kept.sandbox.tell(own);
    let journal = Journal::parse_own(own, &kept.record.template)?;
    let exec = fds.into_iter().next();
    let start = word == [records::USE_AND_START];
    let (monitor, hears) = kept.become_container(told, journal, exec, control, start)?;
    let start = match (start, hears) {
        (false, _) => Start::No,
        (true, true) => Start::Heard,
        (true, false) => Start::Told,
    };
    Ok((monitor, start))
}

/// The root that the core has made for the container. Fails when it could not, or is gone: then nobody makes one meanwhile.
fn receive_root(control: &OwnedFd) -> Result<OwnedFd, Failure> {
    creation::receive_root(control).ok_or_else(|| {
        Failure::new(
            FailureCode::System,
            "taking the container's root",
            "the core has none",
        )
    })
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
    let directory = doing("finding the sandbox's directory", path_of(&workshop.dir))?;
    if let Some(rootfs) = &record.root {
        root::prepare(rootfs)?;
    }
    let mut sandbox = sandbox::park(
        &record.template,
        &directory,
        record.root.as_ref(),
        &record.cgroup,
        driver.as_ref(),
        &[workshop.dir.as_fd()],
    )?;
    let sample = packed::pack(&sample());
    sandbox.rehearse(&sample)?;
    drop(Journal::parse_own(&sample, &record.template));
    let place = Place::prepare(&workshop.dir, sandbox.parked().pid)?;
    let oom = region::outside(|| driver.oom_watch(&record.cgroup));
    let buffer = new_buffer()?;
    Ok(Kept {
        workshop,
        driver,
        record,
        sandbox,
        place,
        buffer,
        oom,
    })
}

/// A creation of this template that nobody asked for. Reading one makes monitor and init fault in, while nobody waits, the code and the
/// memory that they read the real one with: that takes several times as long as the reading.
fn sample() -> Own {
    let words = |list: &[&str]| {
        list.iter()
            .map(|word| (*word).to_owned())
            .collect::<Vec<_>>()
    };
    let process = Process {
        args: words(&["/bin/sh"]),
        env: words(&["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]),
        cwd: "/".into(),
        ..Process::default()
    };
    let mut spec = Spec {
        process,
        hostname: "sandbox".into(),
        ..Spec::default()
    };
    spec.linux.cgroups_path = "/sandbox".into();
    spec.linux.resources.memory = Some(Memory {
        limit: Some(1 << 30),
        ..Memory::default()
    });
    Own {
        inner: Inner {
            container_id: "sandbox".into(),
            spec,
            rootfs: Rootfs {
                layers: words(&["/sandbox/layer"]),
                directory: "/sandbox/root".into(),
            },
            caps: Some(Masks::default()),
        },
        log: None,
        stdin: Stdin::Closed,
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
        if self.workshop.read(records::CREATE_FILE).is_ok() {
            // A creation has begun, of which other directories may be named by now: whoever rolls it back knows them.
            return;
        }
        if let Some(root) = &self.record.root {
            // What resists is found again by the core's next start, as the directory stays.
            if fs::remove_dir_all(&root.directory).is_err() {
                return;
            }
        }
        if cgroup::destroy(self.driver.as_ref(), &self.record.cgroup).is_ok()
            && let Ok(path) = path_of(&self.workshop.dir)
        {
            drop(fs::remove_dir_all(path));
        }
    }

    /// Makes the container whose journal is now in the directory; where the sandbox turns out not to fit, from nothing. Tells whether it
    /// has `exec` and whoever waits hears by that of its program.
    fn become_container(
        self,
        told: Result<(), Failure>,
        journal: Journal,
        exec: Option<OwnedFd>,
        control: &OwnedFd,
        start: bool,
    ) -> Result<(Monitor, bool), Failure> {
        let Self {
            workshop,
            driver,
            record,
            mut sandbox,
            place,
            buffer,
            oom,
        } = self;
        let hears = exec.is_some();
        let pid = sandbox.parked().pid;
        let settle = || settle(driver.as_ref(), &record.cgroup, pid, &journal.plan);
        let parts = told.and_then(|()| Parts::make(&journal, exec));
        let given = if record.root.is_some() {
            // The rest is done while init builds the container.
            parts
                .and_then(|parts| give(&mut sandbox, None, parts, &journal))
                .and_then(|given| settle().map(|()| given))
        } else {
            let settled = parts.and_then(|parts| settle().map(|()| parts));
            // In any case, so that nobody else works on the root when it is taken back.
            let root = receive_root(control);
            settled.and_then(|parts| give(&mut sandbox, Some(root?), parts, &journal))
        };
        let filled = given.and_then(|pipes| {
            let sink = creation::open_sink(&journal.create)?;
            let commit = place.commit(&workshop.dir, &journal.plan, pid)?;
            sandbox.await_ready()?;
            Ok((pipes.take(sink)?, commit))
        });
        match filled {
            Ok((streams, commit)) => {
                let finished = commit.finish(&workshop.dir);
                let committed = finished.inspect_err(|_| end(sandbox.parked()))?;
                let parked = sandbox.into_parked();
                let ready = committed.ready(parked.pid);
                let kept = (buffer, oom);
                let monitor = workshop.monitor(journal, parked, streams, committed, kept, start)?;
                if start && hears {
                    // Whoever waits takes note of it while init becomes the program.
                    answer(control, &ready);
                }
                Ok((monitor, hears))
            }
            Err(_) => {
                // Whatever it was: making it cold works, or tells the reason in its own words.
                end(sandbox.parked());
                undo(&workshop, &record, &journal)?;
                Ok((workshop.build(Given::default(), start)?, false))
            }
        }
    }
}

/// What a container's program gets of its own, but its root.
struct Parts {
    pipes: Pipes,
    stdio: Stdio,
    volumes: Vec<OwnedFd>,
    exec: Option<OwnedFd>,
}

impl Parts {
    fn make(journal: &Journal, exec: Option<OwnedFd>) -> Result<Self, Failure> {
        let (pipes, stdio) = Pipes::open(journal)?;
        Ok(Self {
            exec,
            pipes,
            stdio,
            volumes: sandbox::volumes(&journal.plan)?,
        })
    }
}

/// Gives the sandbox's group (`from`) the container's name and limits, and init (`pid`) its score.
fn settle(driver: &dyn Driver, from: &str, pid: i32, plan: &Plan) -> Result<(), Failure> {
    rename_group(driver, from, &plan.cgroup)?;
    // Devices are the template's: they are written already.
    driver.update(&plan.cgroup, &plan.spec.linux.resources)?;
    match plan.spec.process.oom_score_adj {
        Some(score) => launch::set_oom_score(pid, score),
        None => Ok(()),
    }
}

/// Gives init what is the container's own.
fn give(
    sandbox: &mut Sandbox,
    root: Option<OwnedFd>,
    parts: Parts,
    journal: &Journal,
) -> Result<Pipes, Failure> {
    let filter = journal.seccomp.as_deref();
    sandbox.fill(root, parts.volumes, parts.stdio, parts.exec, filter)?;
    Ok(parts.pipes)
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
fn undo(workshop: &Workshop, record: &Parked, journal: &Journal) -> Result<(), Failure> {
    let driver = workshop.driver.as_ref();
    cgroup::destroy(driver, &record.cgroup)?;
    cgroup::destroy(driver, &journal.plan.cgroup)?;
    match file::remove_at(workshop.dir.as_fd(), records::MONITOR_SOCKET) {
        // It had not come to the commit.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        removed => doing("taking the monitor's socket back", removed)?,
    }
    root::withdraw(&journal.create.rootfs)
}
