//! The resolver's tables on disk, so that a restarted core answers before anybody tells it anything.

use super::directory::{ClientMessage, Directory, ZoneMessage};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

const FILE: &str = "resolver.json";
const VERSION: u32 = 1;

/// Where the tables are kept.
pub struct Saved {
    directory: PathBuf,
}

#[derive(Serialize)]
struct Written<'a> {
    version: u32,
    zones: Vec<&'a ZoneMessage>,
    clients: Vec<&'a ClientMessage>,
}

#[derive(Deserialize)]
struct Read {
    version: u32,
    zones: Vec<ZoneMessage>,
    clients: Vec<ClientMessage>,
}

impl Saved {
    pub fn new(directory: &Path) -> io::Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
        Ok(Self {
            directory: directory.to_owned(),
        })
    }

    /// The saved tables. A file that cannot be understood is set aside and told on stderr: what it held is sent again by the agent.
    pub fn load(&self) -> io::Result<Directory> {
        let path = self.directory.join(FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Directory::default());
            }
            Err(error) => return Err(error),
        };
        match decode(&bytes) {
            Ok(directory) => Ok(directory),
            Err(why) => {
                let aside = self.directory.join(format!("{FILE}.unreadable"));
                fs::rename(&path, &aside)?;
                eprintln!(
                    "shoal-core: resolver: {} is unreadable ({why}); it is now {} and names come back with the agent",
                    path.display(),
                    aside.display()
                );
                Ok(Directory::default())
            }
        }
    }

    /// The tables as bytes.
    pub fn encode(directory: &Directory) -> Vec<u8> {
        let written = Written {
            version: VERSION,
            zones: directory.zones().collect(),
            clients: directory.clients().collect(),
        };
        serde_json::to_vec(&written).expect("tables are strings and numbers")
    }

    /// Replaces the file in one step. Not synced: it need not outlive the containers, which a power cut ends.
    pub fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let fresh = self.directory.join(format!("{FILE}.new"));
        fs::write(&fresh, bytes)?;
        fs::rename(&fresh, self.directory.join(FILE))
    }
}

fn decode(bytes: &[u8]) -> Result<Directory, String> {
    let read: Read = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if read.version != VERSION {
        return Err(format!("version {} instead of {VERSION}", read.version));
    }
    let mut directory = Directory::default();
    for zone in read.zones {
        directory.put_zone(zone)?;
    }
    for client in read.clients {
        directory.put_client(client)?;
    }
    Ok(directory)
}
