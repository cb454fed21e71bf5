//! The resolver that containers ask at 127.0.0.11:53: tables and sockets are managed here by any thread, questions are answered by one thread.

pub mod directory;
pub mod packet;
mod poll;
mod saved;
mod server;
mod sockets;
mod upstream;

use crate::ContainerNetns;
use crate::namespace;
use directory::{ClientMessage, Directory, ZoneMessage};
use saved::Saved;
use serde::Deserialize;
use serde_json::Value;
use server::{Command, Server};
use shoal_protocol::Failure;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What one `resolver` call brings.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Update {
    zones: Vec<ZoneMessage>,
    clients: Vec<ClientMessage>,
    remove_zones: Vec<String>,
    remove_clients: Vec<String>,
}

/// Tables, the sockets that are open, and the thread that answers.
pub struct Resolver {
    directory: Arc<Mutex<Directory>>,
    saved: Saved,
    server: Server,
    /// Container to the inode of the namespace that its sockets are in. Also the lock under which tables are saved.
    listening: Mutex<HashMap<String, u64>>,
    container_netns: Arc<ContainerNetns>,
}

impl Resolver {
    /// Reads the saved tables, starts the answering thread, and listens for the clients whose containers are there.
    pub fn new(state_dir: &Path, container_netns: Arc<ContainerNetns>) -> Result<Self, Failure> {
        let saved = Saved::new(state_dir).map_err(|error| {
            Failure::io(
                format!("preparing the resolver's directory {}", state_dir.display()),
                &error,
            )
        })?;
        let directory = saved.load().map_err(|error| {
            Failure::io(
                format!("reading the resolver's tables in {}", state_dir.display()),
                &error,
            )
        })?;
        let ids: Vec<String> = directory
            .clients()
            .map(|client| client.container_id.clone())
            .collect();
        let directory = Arc::new(Mutex::new(directory));
        let server = Server::start(Arc::clone(&directory))
            .map_err(|error| Failure::io("starting the resolver", &error))?;
        let resolver = Self {
            directory,
            saved,
            server,
            listening: Mutex::new(HashMap::new()),
            container_netns,
        };
        for id in ids {
            resolver.container_started(&id);
        }
        Ok(resolver)
    }

    /// Applies one call: upserts, then removals. Goes on after a wrong value and tells the first.
    pub fn update(&self, body: &Value) -> Result<(), Failure> {
        let update = Update::deserialize(body)
            .map_err(|error| Failure::invalid("reading a resolver update", error.to_string()))?;
        let mut failures: Vec<Failure> = Vec::new();
        let mut listening = lock(&self.listening);
        let ids: Vec<String> = update
            .clients
            .iter()
            .map(|client| client.container_id.clone())
            .collect();
        {
            let mut directory = lock(&self.directory);
            for zone in update.zones {
                let doing = format!(
                    "putting names of network {:?} ({})",
                    zone.network_name, zone.network_id
                );
                failures.extend(
                    directory
                        .put_zone(zone)
                        .err()
                        .map(|message| Failure::invalid(doing, message)),
                );
            }
            for client in update.clients {
                let doing = format!("putting DNS client {}", client.container_id);
                failures.extend(
                    directory
                        .put_client(client)
                        .err()
                        .map(|message| Failure::invalid(doing, message)),
                );
            }
            for id in &update.remove_zones {
                directory.remove_zone(id);
            }
            for id in &update.remove_clients {
                directory.remove_client(id);
            }
        }
        for id in &update.remove_clients {
            self.close(&mut listening, id);
        }
        failures.extend(self.save().err());
        for id in ids {
            failures.extend(self.listen(&mut listening, &id).err());
        }
        let more = failures.len().saturating_sub(1);
        match failures.into_iter().next() {
            None => Ok(()),
            Some(first) if more == 0 => Err(first),
            Some(first) => Err(Failure {
                message: format!("{} (and {more} more failures)", first.message),
                ..first
            }),
        }
    }

    /// Listens for a container when it is a client; the failure is told by the next update that names it.
    pub fn container_started(&self, id: &str) {
        let mut listening = lock(&self.listening);
        if let Err(failure) = self.listen(&mut listening, id) {
            eprintln!("shoal-core: resolver: {failure}; tried again when the client is put again");
        }
    }

    /// Closes a container's sockets and forgets it as a client.
    pub fn container_removed(&self, id: &str) {
        let mut listening = lock(&self.listening);
        self.close(&mut listening, id);
        if lock(&self.directory).remove_client(id)
            && let Err(failure) = self.save()
        {
            eprintln!(
                "shoal-core: resolver: {failure}; container {id} is forgotten again at the next change"
            );
        }
    }

    /// Opens the sockets in the namespace that the container has now, unless they are open there.
    fn listen(&self, listening: &mut HashMap<String, u64>, id: &str) -> Result<(), Failure> {
        if !lock(&self.directory).has_client(id) {
            return Ok(());
        }
        let Some(path) = (self.container_netns)(id) else {
            return Ok(());
        };
        let failed = |error: io::Error| {
            Failure::io(
                format!("listening at {} for container {id}", sockets::LISTEN),
                &error,
            )
        };
        let namespace = match namespace::open(&path) {
            // It ended between the two looks; whoever runs it will say so.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => {
                return Ok(());
            }
            other => File::from(other.map_err(failed)?),
        };
        let inode = namespace.metadata().map_err(failed)?.ino();
        if listening.get(id) == Some(&inode) {
            return Ok(());
        }
        let (udp, tcp) = sockets::listen(&namespace.into()).map_err(failed)?;
        self.server.tell(Command::Open {
            container: id.to_owned(),
            udp,
            tcp,
        });
        listening.insert(id.to_owned(), inode);
        Ok(())
    }

    fn close(&self, listening: &mut HashMap<String, u64>, id: &str) {
        if listening.remove(id).is_some() {
            self.server.tell(Command::Close {
                container: id.to_owned(),
            });
        }
    }

    /// The caller holds `listening`, so that an older table never overwrites a newer one.
    fn save(&self) -> Result<(), Failure> {
        let bytes = Saved::encode(&lock(&self.directory));
        self.saved
            .write(&bytes)
            .map_err(|error| Failure::io("saving the resolver's tables", &error))
    }
}

/// Locks; tables are whole between any two statements, so one that a panic left is as good.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shared_fixture_is_read_whole() {
        let text = include_str!("../../../../testdata/requests.json");
        let frames: Vec<serde_json::Value> = serde_json::from_str(text).expect("fixture");
        let frame = frames
            .iter()
            .find(|frame| frame["call"] == "resolver")
            .expect("frame");
        let update = Update::deserialize(frame).expect("update");
        let written = serde_json::json!({
            "id": frame["id"],
            "call": "resolver",
            "zones": update.zones,
            "clients": update.clients,
            "removeZones": update.remove_zones,
            "removeClients": update.remove_clients,
        });
        assert_eq!(&written, frame);
    }
}
