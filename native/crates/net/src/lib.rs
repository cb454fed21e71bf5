//! The node's networks: sandboxes of bridge, VXLAN and veth by rtnetlink, and the resolver that containers ask at 127.0.0.11.

pub mod link;
pub mod namespace;
pub mod netlink;
pub mod networks;
pub mod operations;
pub mod peers;
pub mod pins;
pub mod resolver;
pub mod sandbox;
pub mod snapshot;
pub mod values;

use networks::{Networks, OPERATIONS_MAX};
use resolver::Resolver;
use serde_json::{Value, json};
use shoal_protocol::{Failure, FailureCode};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// Tells where a container's network namespace is (`/proc/PID/ns/net`); None when it has none.
pub type ContainerNetns = Box<dyn Fn(&str) -> Option<PathBuf> + Send + Sync>;

/// Where things are.
pub struct NetConfig {
    /// Holds one pin per sandbox; becomes a mount point of its own.
    pub netns_dir: PathBuf,
    /// Holds the resolver's tables, so that a restarted core answers at once.
    pub state_dir: PathBuf,
    pub container_netns: ContainerNetns,
}

/// The networks of one node. Calls may come from any thread.
pub struct NetHandler {
    networks: Mutex<Networks>,
    resolver: Resolver,
    container_netns: Arc<ContainerNetns>,
}

impl NetHandler {
    /// Adopts the sandboxes and resolver tables that an earlier core left, and answers DNS from then on.
    /// The calling thread must be in the host's network namespace: tunnels end there, and names are asked from there.
    pub fn new(config: NetConfig) -> Result<Self, Failure> {
        let container_netns = Arc::new(config.container_netns);
        let networks = Networks::new(&config.netns_dir)?;
        let resolver = Resolver::new(&config.state_dir, Arc::clone(&container_netns))?;
        Ok(Self {
            networks: Mutex::new(networks),
            resolver,
            container_netns,
        })
    }

    /// Applies `{ops}` in order, going on after failures; answers `{failures}`, one for each, null for success.
    pub fn network(&self, body: &Value) -> Result<Value, Failure> {
        let doing = "applying network operations";
        let operations = body
            .get("ops")
            .and_then(Value::as_array)
            .ok_or_else(|| Failure::invalid(doing, "`ops` is missing or is no list"))?;
        if operations.len() > OPERATIONS_MAX {
            let message = format!(
                "{} operations are over the limit of {OPERATIONS_MAX} in one call; send them in several",
                operations.len()
            );
            return Err(Failure::new(FailureCode::Invalid, doing, message));
        }
        // A panic in another call leaves the kernel as the authority: every operation looks before it acts.
        let mut networks = self.networks.lock().unwrap_or_else(PoisonError::into_inner);
        let failures = networks.apply(operations, &|id| (self.container_netns)(id));
        Ok(json!({ "failures": failures }))
    }

    /// Reads all sandboxes back from the kernel: `{sandboxes}`.
    pub fn network_dump(&self) -> Result<Value, Failure> {
        let mut networks = self.networks.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(json!({ "sandboxes": networks.dump()? }))
    }

    /// Applies `{zones, clients, removeZones, removeClients}`: upserts, then removals. An older revision of a zone is ignored.
    pub fn resolver(&self, body: &Value) -> Result<Value, Failure> {
        self.resolver.update(body)?;
        Ok(json!({}))
    }

    /// A container's namespace is there: when it is a client, its resolver listens from now on. A failure to listen is told by the
    /// next `resolver` call that names the client, and tried again by it.
    pub fn container_started(&self, id: &str) {
        self.resolver.container_started(id);
    }

    /// A container is gone: its sockets are closed and it is forgotten as a client.
    pub fn container_removed(&self, id: &str) {
        self.resolver.container_removed(id);
    }
}
