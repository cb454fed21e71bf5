//! Applies operations in order, going on after a failure, and reads all sandboxes back.

use crate::link::{self, Vxlan};
use crate::namespace;
use crate::netlink::socket::{NetlinkError, RouteSocket};
use crate::operations::Operation;
use crate::peers::PeerChange;
use crate::pins::{self, Pinned, Pins};
use crate::sandbox::{self, Endpoint, SandboxError, VXLAN};
use crate::snapshot::{self, Snapshot};
use crate::values;
use serde::Deserialize;
use serde_json::Value;
use shoal_protocol::{Failure, FailureCode};
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// Most operations in one call.
pub const OPERATIONS_MAX: usize = 100_000;
/// A VNI is busy until the kernel has taken down a namespace that ended; it is asked again for this long.
const VNI_WAIT: Duration = Duration::from_secs(2);
const VNI_RETRY: Duration = Duration::from_millis(10);
/// VXLAN devices in the host's namespace whose names begin so are ours: left by a way of making them that could be cut off.
const ORPHAN_PREFIX: &str = "shx";
const VNI_MAX: u32 = (1 << 24) - 1;
/// Least MTU that IPv4 allows, and the most a link takes.
const MTU_RANGE: std::ops::RangeInclusive<u32> = 68..=65535;

/// The network namespace file of a container that is there.
pub type ContainerNamespace<'a> = &'a dyn Fn(&str) -> Option<PathBuf>;

/// All sandboxes of the node.
pub struct Networks {
    pins: Pins,
    host: RouteSocket,
    open: HashMap<String, Pinned>,
}

impl Networks {
    /// Adopts the sandboxes that are pinned in the directory. The calling thread's namespace is where tunnels end.
    pub fn new(directory: &Path) -> Result<Self, Failure> {
        let doing = || format!("preparing the sandbox directory {}", directory.display());
        let pins = Pins::prepare(directory).map_err(|error| Failure::io(doing(), &error))?;
        let host = RouteSocket::open().map_err(|error| {
            Failure::io("opening a netlink socket in the host's namespace", &error)
        })?;
        Ok(Self {
            pins,
            host,
            open: HashMap::new(),
        })
    }

    /// Applies operations and tells what became of each: None is success.
    pub fn apply(
        &mut self,
        values: &[Value],
        container: ContainerNamespace<'_>,
    ) -> Vec<Option<Failure>> {
        let operations: Vec<Result<Operation, Failure>> = values.iter().map(parse).collect();
        let mut failures = Vec::with_capacity(values.len());
        while failures.len() < operations.len() {
            let rest = &operations[failures.len()..];
            let run: Vec<&Operation> = peer_run(rest);
            if run.is_empty() {
                let outcome = match &rest[0] {
                    Ok(operation) => self.one(operation, container),
                    Err(failure) => Err(failure.clone()),
                };
                failures.push(outcome.err());
            } else {
                failures.append(&mut self.peers(&run));
            }
        }
        failures
    }

    /// Reads every sandbox back from the kernel.
    pub fn dump(&mut self) -> Result<Vec<Snapshot>, Failure> {
        let names = self
            .pins
            .names()
            .map_err(|error| Failure::io("listing the sandboxes", &error))?;
        let mut snapshots = Vec::with_capacity(names.len());
        for name in names {
            let doing = format!("reading sandbox {name:?}");
            if let Some(sandbox) = self.sandbox(&name, &doing)? {
                snapshots
                    .push(snapshot::read(&name, sandbox).map_err(|error| failure(&doing, error))?);
            }
        }
        Ok(snapshots)
    }

    fn one(
        &mut self,
        operation: &Operation,
        container: ContainerNamespace<'_>,
    ) -> Result<(), Failure> {
        let doing = operation.doing();
        let name = operation.sandbox();
        if !pins::is_name(name) {
            return Err(Failure::invalid(
                doing,
                format!(
                    "{name:?} cannot name a sandbox (1 to {} letters, digits, `_`, `.`, `-`)",
                    pins::NAME_BYTES_MAX
                ),
            ));
        }
        if let Operation::SandboxAdd { .. } = operation {
            return self.add_sandbox(name, &doing);
        }
        if self.sandbox(name, &doing)?.is_none() {
            return match operation {
                // What pins nothing may still lie there as a file.
                Operation::SandboxRemove { .. } => self
                    .pins
                    .remove(name)
                    .map_err(|error| Failure::io(doing, &error)),
                _ if operation.removes() => Ok(()),
                _ => Err(Failure::new(
                    FailureCode::NotFound,
                    doing,
                    "there is no such sandbox; add it first",
                )),
            };
        }
        let sandbox = self.open.get_mut(name).expect("it was just opened");
        let invalid = |message: String| Failure::invalid(doing.clone(), message);
        let outcome = match operation {
            Operation::SandboxRemove { .. } => {
                sandbox::clear(sandbox).map_err(|error| failure(&doing, error))?;
                self.open.remove(name);
                return self
                    .pins
                    .remove(name)
                    .map_err(|error| Failure::io(doing, &error));
            }
            Operation::BridgeAdd { address, mtu, .. } => {
                let gateway = address.parse().map_err(invalid)?;
                sandbox::add_bridge(sandbox, gateway, checked_mtu(*mtu).map_err(invalid)?)
            }
            Operation::VxlanAdd {
                vni,
                local,
                port,
                mtu,
                ..
            } => {
                if *vni == 0 || *vni > VNI_MAX || *port == 0 {
                    return Err(invalid(format!(
                        "VNI {vni} or port {port} is out of range (1 to {VNI_MAX}, 1 to 65535)"
                    )));
                }
                let wanted = Vxlan {
                    vni: *vni,
                    local: values::ipv4(local).map_err(invalid)?,
                    port: *port,
                };
                let mtu = checked_mtu(*mtu).map_err(invalid)?;
                return self.add_vxlan(name, wanted, mtu, &doing);
            }
            Operation::EndpointAdd {
                port,
                container_id,
                name: interface,
                address,
                mac,
                mtu,
                ..
            } => {
                let endpoint = Endpoint {
                    port: values::interface_name(port).map_err(invalid)?,
                    name: values::interface_name(interface).map_err(invalid)?,
                    address: address.parse().map_err(invalid)?,
                    mac: mac.parse().map_err(invalid)?,
                    mtu: checked_mtu(*mtu).map_err(invalid)?,
                };
                let missing = || {
                    Failure::new(
                        FailureCode::NotFound,
                        doing.clone(),
                        format!(
                            "container {container_id} has no network namespace (it is not created, or it ended)"
                        ),
                    )
                };
                let path = container(container_id).ok_or_else(missing)?;
                match namespace::open(&path) {
                    Ok(namespace) => sandbox::add_endpoint(sandbox, &namespace, &endpoint),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing()),
                    Err(error) => Err(error.into()),
                }
            }
            Operation::EndpointRemove { port, .. } => {
                sandbox::remove_endpoint(sandbox, values::interface_name(port).map_err(invalid)?)
            }
            Operation::SandboxAdd { .. }
            | Operation::FdbPut { .. }
            | Operation::FdbRemove { .. }
            | Operation::NeighbourPut { .. }
            | Operation::NeighbourRemove { .. } => {
                unreachable!("added above, or applied in a run of peers")
            }
        };
        outcome.map_err(|error| failure(&doing, error))
    }

    fn add_sandbox(&mut self, name: &str, doing: &str) -> Result<(), Failure> {
        if self.sandbox(name, doing)?.is_none() {
            self.pins
                .create(name)
                .map_err(|error| Failure::io(doing, &error))?;
        }
        Ok(())
    }

    /// Adds the VXLAN device; when the VNI is taken, finds by whom, and takes it back from an orphan.
    fn add_vxlan(
        &mut self,
        name: &str,
        wanted: Vxlan,
        mtu: u32,
        doing: &str,
    ) -> Result<(), Failure> {
        let deadline = Instant::now() + VNI_WAIT;
        loop {
            let sandbox = self.open.get_mut(name).expect("the caller opened it");
            match sandbox::add_vxlan(&mut self.host, sandbox, wanted, mtu) {
                Err(SandboxError::Kernel(error)) if error.is(libc::EEXIST) => {
                    if self.remove_orphan(wanted, doing)? {
                        continue;
                    }
                    if let Some(holder) = self.holder(name, wanted, doing)? {
                        let message = format!(
                            "VNI {} on port {} is taken by {holder}; remove that first",
                            wanted.vni, wanted.port
                        );
                        return Err(Failure::new(FailureCode::Conflict, doing, message));
                    }
                    // Neither here nor in a sandbox: a namespace that has ended is still being taken down by the kernel.
                    if Instant::now() >= deadline {
                        let message = format!(
                            "VNI {} on port {} is still taken, after {} s, by a device in a network namespace that is not ours ({error})",
                            wanted.vni,
                            wanted.port,
                            VNI_WAIT.as_secs()
                        );
                        return Err(Failure::new(FailureCode::Conflict, doing, message));
                    }
                    thread::sleep(VNI_RETRY);
                }
                other => return other.map_err(|error| failure(doing, error)),
            }
        }
    }

    /// Removes a VXLAN device of ours in the host's namespace that holds the VNI.
    fn remove_orphan(&mut self, wanted: Vxlan, doing: &str) -> Result<bool, Failure> {
        let kernel = |error: NetlinkError| failure(doing, error.into());
        let links = link::all(&mut self.host).map_err(kernel)?;
        match links
            .iter()
            .find(|link| link.name.starts_with(ORPHAN_PREFIX) && holds(link.vxlan, wanted))
        {
            Some(orphan) => link::remove(&mut self.host, orphan.index)
                .map_err(kernel)
                .map(|()| true),
            None => Ok(false),
        }
    }

    /// Who holds the VNI: a device in the host's namespace, or another sandbox.
    fn holder(&mut self, own: &str, wanted: Vxlan, doing: &str) -> Result<Option<String>, Failure> {
        let kernel = |error: NetlinkError| failure(doing, error.into());
        let links = link::all(&mut self.host).map_err(kernel)?;
        if let Some(link) = links.iter().find(|link| holds(link.vxlan, wanted)) {
            return Ok(Some(format!("the device {} of the host", link.name)));
        }
        for name in self
            .pins
            .names()
            .map_err(|error| Failure::io(doing, &error))?
        {
            if name == own {
                continue;
            }
            if let Some(sandbox) = self.sandbox(&name, doing)?
                && link::find(&mut sandbox.socket, VXLAN)
                    .map_err(kernel)?
                    .is_some_and(|link| holds(link.vxlan, wanted))
            {
                return Ok(Some(format!("sandbox {name:?}")));
            }
        }
        Ok(None)
    }

    /// Applies changes of one sandbox's peers in batches.
    fn peers(&mut self, run: &[&Operation]) -> Vec<Option<Failure>> {
        let name = run[0].sandbox();
        let prepared = match self.sandbox(name, &run[0].doing()) {
            Ok(Some(sandbox)) => match link::find(&mut sandbox.socket, VXLAN) {
                Ok(device) => Ok(device.map(|device| (sandbox, device.index))),
                Err(error) => Err(failure(&run[0].doing(), error.into())),
            },
            Ok(None) => Ok(None),
            Err(failure) => Err(failure),
        };
        let (sandbox, vxlan) = match prepared {
            Ok(Some(prepared)) => prepared,
            Ok(None) => {
                let missing = |operation: &&Operation| {
                    (!operation.removes()).then(|| {
                        Failure::new(
                            FailureCode::NotFound,
                            operation.doing(),
                            format!("there is no such sandbox with a {VXLAN}; add it first"),
                        )
                    })
                };
                return run.iter().map(missing).collect();
            }
            Err(failure) => {
                return run
                    .iter()
                    .map(|operation| {
                        Some(Failure {
                            doing: operation.doing(),
                            ..failure.clone()
                        })
                    })
                    .collect();
            }
        };
        let changes: Vec<Result<PeerChange, String>> =
            run.iter().map(|operation| peer_change(operation)).collect();
        let messages: Vec<_> = changes
            .iter()
            .filter_map(|change| change.as_ref().ok())
            .map(|change| change.message(vxlan))
            .collect();
        let mut outcomes = match sandbox.socket.batch(&messages) {
            Ok(outcomes) => outcomes.into_iter(),
            Err(error) => {
                return run
                    .iter()
                    .map(|operation| Some(Failure::io(operation.doing(), &error)))
                    .collect();
            }
        };
        run.iter()
            .zip(&changes)
            .map(|(operation, change)| match change {
                Err(message) => Some(Failure::invalid(operation.doing(), message.clone())),
                Ok(change) => outcomes
                    .next()
                    .flatten()
                    .filter(|error| !change.is_done(error))
                    .map(|error| failure(&operation.doing(), error.into())),
            })
            .collect()
    }

    /// The sandbox, opened once and again when another namespace is pinned by its name. None when there is no pin.
    fn sandbox(&mut self, name: &str, doing: &str) -> Result<Option<&mut Pinned>, Failure> {
        let failed = |error: io::Error| Failure::io(doing, &error);
        if !pins::is_name(name) {
            return Ok(None);
        }
        let inode = self.pins.inode(name).map_err(failed)?;
        if self
            .open
            .get(name)
            .is_some_and(|sandbox| Some(sandbox.inode) != inode)
        {
            self.open.remove(name);
        }
        if !self.open.contains_key(name)
            && let Some(opened) = self.pins.open(name).map_err(failed)?
        {
            self.open.insert(name.to_owned(), opened);
        }
        Ok(self.open.get_mut(name))
    }
}

/// The operations at the front that change peers of the same sandbox.
fn peer_run(operations: &[Result<Operation, Failure>]) -> Vec<&Operation> {
    let mut run: Vec<&Operation> = Vec::new();
    for operation in operations {
        match operation {
            Ok(
                next @ (Operation::FdbPut { .. }
                | Operation::FdbRemove { .. }
                | Operation::NeighbourPut { .. }
                | Operation::NeighbourRemove { .. }),
            ) if run
                .first()
                .is_none_or(|first| first.sandbox() == next.sandbox()) =>
            {
                run.push(next)
            }
            _ => break,
        }
    }
    run
}

fn peer_change(operation: &Operation) -> Result<PeerChange, String> {
    Ok(match operation {
        Operation::FdbPut { mac, remote, .. } => PeerChange::PutForward {
            mac: mac.parse()?,
            remote: values::ipv4(remote)?,
        },
        Operation::FdbRemove { mac, remote, .. } => PeerChange::RemoveForward {
            mac: mac.parse()?,
            remote: values::ipv4(remote)?,
        },
        Operation::NeighbourPut { address, mac, .. } => PeerChange::PutNeighbour {
            address: values::ipv4(address)?,
            mac: mac.parse()?,
        },
        Operation::NeighbourRemove { address, .. } => PeerChange::RemoveNeighbour {
            address: values::ipv4(address)?,
        },
        _ => unreachable!("a run holds changes of peers only"),
    })
}

fn parse(value: &Value) -> Result<Operation, Failure> {
    Operation::deserialize(value).map_err(|error| {
        let kind = value
            .get("op")
            .and_then(Value::as_str)
            .unwrap_or("without an `op`");
        Failure::invalid(
            format!("reading a network operation {kind}"),
            error.to_string(),
        )
    })
}

fn checked_mtu(mtu: u32) -> Result<u32, String> {
    if MTU_RANGE.contains(&mtu) {
        Ok(mtu)
    } else {
        Err(format!(
            "MTU {mtu} is out of range ({} to {})",
            MTU_RANGE.start(),
            MTU_RANGE.end()
        ))
    }
}

/// Whether a device keeps another with these settings from being made: the kernel wants VNI and port unique per namespace of the tunnel.
fn holds(device: Option<Vxlan>, wanted: Vxlan) -> bool {
    device.is_some_and(|device| device.vni == wanted.vni && device.port == wanted.port)
}

fn failure(doing: &str, error: SandboxError) -> Failure {
    match error {
        SandboxError::Io(error) => Failure::io(doing, &error),
        SandboxError::Missing(message) => Failure::new(FailureCode::NotFound, doing, message),
        SandboxError::Conflict(message) => Failure::new(FailureCode::Conflict, doing, message),
        SandboxError::Kernel(error) => {
            let code = match error.errno {
                libc::ENODEV | libc::ENOENT | libc::ESRCH => FailureCode::NotFound,
                libc::EEXIST => FailureCode::AlreadyExists,
                libc::EBUSY => FailureCode::Conflict,
                libc::EINVAL | libc::ERANGE => FailureCode::Invalid,
                libc::ENOSPC | libc::ENOBUFS | libc::ENOMEM => FailureCode::Full,
                _ => FailureCode::System,
            };
            Failure {
                code,
                errno: Some(error.errno),
                message: error.to_string(),
                doing: doing.to_owned(),
            }
        }
    }
}
