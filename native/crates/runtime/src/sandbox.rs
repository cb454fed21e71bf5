//! A first process that is made before there is a container for it: namespaces, groups, /proc, /dev and /sys of a template are prepared,
//! and what is the container's own (its root, its volumes, its names, its program) is given to it later, by descriptor.
//!
//! The host's mounts are left behind when a sandbox is parked: it neither pins them nor has an old view of them. Where it is known what
//! layers the container to come will have, its root is prepared too; that pins the file systems which layers and root are on.

use crate::cgroup::Driver;
use crate::channel::{self, Report};
use crate::filesystem::RootSource;
use crate::launch::{self, CREATE_TIMEOUT_MS, Options, Park, Parked};
use crate::mounts;
use crate::plan::{Input, Plan};
use crate::streams::{Stdio, Streams};
use crate::sys::{Kernel, socket};
use shoal_protocol::calls::Rootfs;
use shoal_protocol::oci::{self, Linux, Mount, Resources, Spec};
use shoal_protocol::{Failure, FailureCode};
use shoal_seccomp::Program as Filter;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// The directories whose whole tree of mounts is prepared and moved into the container's root.
pub(crate) const STAGED: [&str; 3] = ["proc", "sys", "dev"];
/// The kinds of namespaces that a template has: all that are new for every container, and need nothing of the host.
const KINDS: [&str; 6] = ["mount", "pid", "network", "uts", "ipc", "cgroup"];
/// What init says to whoever waits for the start when there will be no program.
pub(crate) const NO_PROGRAM: &[u8] = b"x";
/// With root and streams this many descriptors fit one message.
const VOLUMES_MAX: usize = socket::MESSAGE_FDS_MAX - 5;

/// A configuration in two: what a sandbox can be prepared with (its template), and what a container of that template has for its own.
/// None when the configuration asks for anything that has to be known from the beginning: such a container is made cold.
pub fn split(spec: Spec) -> Option<(Spec, Spec)> {
    let mut rest = spec;
    let (staged, others) = staged_mounts(std::mem::take(&mut rest.mounts))?;
    rest.mounts = others;
    let linux = &mut rest.linux;
    let template = Spec {
        mounts: staged,
        linux: Linux {
            namespaces: plain_namespaces(std::mem::take(&mut linux.namespaces))?,
            masked_paths: staged_paths(std::mem::take(&mut linux.masked_paths))?,
            readonly_paths: staged_paths(std::mem::take(&mut linux.readonly_paths))?,
            resources: Resources {
                devices: std::mem::take(&mut linux.resources.devices),
                ..Resources::default()
            },
            ..Linux::default()
        },
        ..Spec::default()
    };
    Some((template, own(rest)?))
}

/// What a container has for its own, of a configuration without what is the template's; None when it has more than that.
pub fn own(spec: Spec) -> Option<Spec> {
    let labelled =
        !spec.process.apparmor_profile.is_empty() || !spec.process.selinux_label.is_empty();
    let own_cpus = spec
        .linux
        .resources
        .cpu
        .as_ref()
        .is_some_and(|cpu| cpu.cpus.is_some() || cpu.mems.is_some());
    if labelled || own_cpus || spec.process.terminal || !are_own(&spec.mounts) {
        return None;
    }
    // Everything that is not given later, also what later versions of the types will have, stays in here.
    let mut rest = spec;
    let linux = &mut rest.linux;
    let own = Spec {
        oci_version: std::mem::take(&mut rest.oci_version),
        process: std::mem::take(&mut rest.process),
        root: std::mem::take(&mut rest.root),
        hostname: std::mem::take(&mut rest.hostname),
        domainname: std::mem::take(&mut rest.domainname),
        mounts: std::mem::take(&mut rest.mounts),
        linux: Linux {
            resources: Resources {
                memory: linux.resources.memory.take(),
                cpu: linux.resources.cpu.take(),
                pids: linux.resources.pids.take(),
                ..Resources::default()
            },
            cgroups_path: std::mem::take(&mut linux.cgroups_path),
            seccomp: linux.seccomp.take(),
            personality: linux.personality.take(),
            ..Linux::default()
        },
        ..Spec::default()
    };
    // Nothing that is done here depends on them.
    rest.annotations.clear();
    (rest == Spec::default()).then_some(own)
}

/// The configuration of a container whose own part came by itself: with the namespaces of its template, which both were checked with.
pub fn complete(own: Spec, template: &Spec) -> Spec {
    Spec {
        linux: Linux {
            namespaces: template.linux.namespaces.clone(),
            ..own.linux
        },
        ..own
    }
}

/// The mounts of the staged trees and the others, both in order; None when they cannot be told apart.
fn staged_mounts(mounts: Vec<Mount>) -> Option<(Vec<Mount>, Vec<Mount>)> {
    let (mut staged, mut others, mut trees) = (Vec::new(), Vec::new(), Vec::new());
    for mount in mounts {
        let Some((name, whole)) = first(&mount.destination) else {
            others.push(mount);
            continue;
        };
        let climbs = mount.destination.contains("..");
        let early = !whole && !trees.contains(&name);
        if climbs || early || is_bind(&mount) || is_remount(&mount) {
            return None;
        }
        trees.push(name);
        staged.push(mount);
    }
    (trees.len() >= STAGED.len()).then_some((staged, others))
}

/// Whether these mounts can be made when the trees have been moved into the root.
fn are_own(mounts: &[Mount]) -> bool {
    let later = |mount: &Mount| {
        !is_remount(mount)
            && !mount.destination.contains("..")
            && !mount.kind.starts_with("cgroup")
            && first(&mount.destination).is_none()
    };
    let volumes = mounts.iter().filter(|mount| is_bind(mount)).count();
    volumes <= VOLUMES_MAX && mounts.iter().all(later)
}

fn is_bind(mount: &Mount) -> bool {
    let is = |option: &String| matches!(option.as_str(), "bind" | "rbind");
    mount.kind == "bind" || mount.options.iter().any(is)
}

fn is_remount(mount: &Mount) -> bool {
    mount.options.iter().any(|option| option == "remount")
}

/// The staged tree that a path is in, and whether it is its top.
fn first(path: &str) -> Option<(&'static str, bool)> {
    let mut parts = path.split('/').filter(|part| !matches!(*part, "" | "."));
    let name = parts.next()?;
    let known = STAGED.into_iter().find(|staged| *staged == name)?;
    Some((known, parts.next().is_none()))
}

fn staged_paths(paths: Vec<String>) -> Option<Vec<String>> {
    let staged = paths
        .iter()
        .all(|path| first(path).is_some() && !path.contains(".."));
    staged.then_some(paths)
}

fn plain_namespaces(list: Vec<oci::Namespace>) -> Option<Vec<oci::Namespace>> {
    let new = |namespace: &oci::Namespace| namespace.path.as_deref().unwrap_or_default().is_empty();
    let all = KINDS
        .iter()
        .all(|kind| list.iter().any(|namespace| namespace.kind == *kind));
    (all && list.len() == KINDS.len() && list.iter().all(new)).then_some(list)
}

/// The message that brings root, streams and volumes: whether there are a root, a stdin and somebody to hear of the start, and the filter.
pub(crate) struct Fill {
    /// Without one the sandbox was parked in it.
    pub root: bool,
    pub stdin: bool,
    /// Whoever waits for the program hears of it by a pipe.
    pub exec: bool,
    pub seccomp: Option<Filter>,
}

/// First byte of a `Fill`; the next ones say whether there is a root, a stdin, a pipe for the start and a filter.
const FILL: u8 = b'f';

impl Fill {
    fn bytes(root: bool, stdin: bool, exec: bool, seccomp: Option<&Filter>) -> Vec<u8> {
        let has = [root, stdin, exec, seccomp.is_some()].map(u8::from);
        let mut bytes = vec![FILL];
        bytes.extend(has);
        if let Some(filter) = seccomp {
            bytes.extend(filter.flags.to_ne_bytes());
            for step in &filter.instructions {
                bytes.extend(step.code.to_ne_bytes());
                bytes.extend([step.jt, step.jf]);
                bytes.extend(step.k.to_ne_bytes());
            }
        }
        bytes
    }

    /// None for anything that `bytes` does not make.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let ([FILL, has @ ..], rest) = bytes.split_first_chunk::<5>()? else {
            return None;
        };
        if has.iter().any(|flag| *flag > 1) {
            return None;
        }
        let [root, stdin, exec, filtered] = has.map(|flag| flag == 1);
        let seccomp = if filtered {
            let (flags, steps) = rest.split_first_chunk::<4>()?;
            let step = |at: &[u8; 8]| libc::sock_filter {
                code: u16::from_ne_bytes([at[0], at[1]]),
                jt: at[2],
                jf: at[3],
                k: u32::from_ne_bytes([at[4], at[5], at[6], at[7]]),
            };
            let (steps, left) = steps.as_chunks::<8>();
            if !left.is_empty() {
                return None;
            }
            Some(Filter {
                flags: u32::from_ne_bytes(*flags),
                instructions: steps.iter().map(step).collect(),
            })
        } else if rest.is_empty() {
            None
        } else {
            return None;
        };
        Some(Self {
            root,
            stdin,
            exec,
            seccomp,
        })
    }
}

/// Reads the message that fills a sandbox and writes what was read; None where it is refused. For the fuzzer: nothing that is taken may
/// be written otherwise.
pub fn refilled(bytes: &[u8]) -> Option<Vec<u8>> {
    let Fill {
        root,
        stdin,
        exec,
        seccomp,
    } = Fill::read(bytes)?;
    Some(Fill::bytes(root, stdin, exec, seccomp.as_ref()))
}

/// A parked first process that waits for its container.
pub struct Sandbox {
    parked: Parked,
    channel: OwnedFd,
}

/// Makes a sandbox of a template in the group `cgroup`. `place` is a directory of its own, which `held` may lock; nothing appears in it
/// on the host. With `root` (prepared, `root::prepare`) it is parked in the root of the container to come. Only where groups can be
/// renamed later (v1).
pub fn park(
    template: &Spec,
    place: &Path,
    root: Option<&Rootfs>,
    cgroup: &str,
    driver: &dyn Driver,
    held: &[BorrowedFd<'_>],
) -> Result<Sandbox, Failure> {
    let doing = "parking a sandbox";
    if driver.views(&template.linux.resources).is_none() {
        return Err(Failure::new(
            FailureCode::Conflict,
            doing,
            "groups cannot be renamed on control groups v2; use --pool 0",
        ));
    }
    let plan = Plan::new(Input {
        container_id: "sandbox".into(),
        spec: template.clone(),
        root: match root {
            Some(rootfs) => RootSource::Overlay(rootfs.clone()),
            None => RootSource::Staging(place.to_path_buf()),
        },
        cgroup: cgroup.to_owned(),
    })?;
    let options = Options {
        driver,
        stdio: Stdio::Inherit,
        preserve_fds: 0,
        park: Park::Sandbox,
        state: None,
        seccomp: None,
        held,
        no_pivot: false,
        no_new_keyring: false,
        meanwhile: &|_| Ok(()),
        root: None,
        network: None,
    };
    let mut parked = launch::create(&plan, &options)?;
    let channel = parked.channel.take().ok_or_else(|| {
        Failure::new(
            FailureCode::System,
            doing,
            "there is no channel to its init",
        )
    })?;
    Ok(Sandbox { parked, channel })
}

/// Opens a container's volumes as the host sees them now, detached, in the order of its mounts.
pub fn volumes(plan: &Plan) -> Result<Vec<OwnedFd>, Failure> {
    plan.files
        .mounts
        .iter()
        .filter(|of| of.options.bind)
        .map(|planned| {
            let volume = mounts::source_tree(&Kernel, planned, None)?;
            volume.ok_or_else(|| {
                Failure::new(
                    FailureCode::System,
                    "opening a volume",
                    format!("{:?} may not be bound", planned.mount.source),
                )
            })
        })
        .collect()
}

impl Sandbox {
    /// Has init read a container that is nobody's, while there is time: code and memory that the real one needs are then there.
    pub fn rehearse(&mut self, own: &[u8]) -> Result<(), Failure> {
        socket::send(self.channel.as_fd(), own)
            .map_err(|error| Failure::io("rehearsing with init", &error))
    }

    /// Tells init what is the container's own: a packed `Own`.
    pub fn tell(&mut self, own: &[u8]) -> Result<(), Failure> {
        socket::send(self.channel.as_fd(), own)
            .map_err(|error| Failure::io("telling init its container", &error))
    }

    /// Gives root (`root::detached`; None for the one that it is parked in), volumes and streams to init, which builds the container
    /// from then on. `exec` is the end of a pipe that closes when the program runs, after a byte (`NO_PROGRAM`) when it never will.
    pub fn fill(
        &mut self,
        root: Option<OwnedFd>,
        volumes: Vec<OwnedFd>,
        stdio: Stdio,
        exec: Option<OwnedFd>,
        seccomp: Option<&Filter>,
    ) -> Result<(), Failure> {
        let Stdio::Fds(Streams {
            stdin,
            stdout,
            stderr,
        }) = stdio
        else {
            return Err(Failure::invalid(
                "filling a sandbox",
                "its streams are not pipes",
            ));
        };
        let fill = Fill::bytes(root.is_some(), stdin.is_some(), exec.is_some(), seccomp);
        let fds: Vec<BorrowedFd<'_>> = root
            .iter()
            .chain(&stdin)
            .chain([&stdout, &stderr])
            .chain(&exec)
            .chain(&volumes)
            .map(AsFd::as_fd)
            .collect();
        socket::send_with_fds(self.channel.as_fd(), &fill, &fds)
            .map_err(|error| Failure::io("giving init its root", &error))
    }

    /// Waits until init has built the container.
    pub fn await_ready(&mut self) -> Result<(), Failure> {
        let task = "building the container";
        match channel::next_report(self.channel.as_fd(), CREATE_TIMEOUT_MS) {
            Ok(Some(Report::Ready)) => Ok(()),
            Ok(Some(Report::Failed { failure, .. })) => Err(failure),
            Ok(_) => Err(Failure::new(
                FailureCode::System,
                task,
                "init ended without a word; was it killed for memory?",
            )),
            Err(error) => Err(Failure::io(task, &error)),
        }
    }

    /// Init, as long as it is the sandbox's.
    pub fn parked(&self) -> &Parked {
        &self.parked
    }

    /// The container that it has become.
    pub fn into_parked(self) -> Parked {
        Parked {
            channel: Some(self.channel),
            ..self.parked
        }
    }
}
