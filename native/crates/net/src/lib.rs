//! The node's networks.

use serde_json::Value;
use shoal_protocol::Failure;
use std::path::PathBuf;

pub struct NetConfig {
    pub netns_dir: PathBuf,
    pub state_dir: PathBuf,
    pub container_netns: Box<dyn Fn(&str) -> Option<PathBuf> + Send + Sync>,
}

pub struct NetHandler {
    #[allow(dead_code)]
    config: NetConfig,
}

impl NetHandler {
    pub fn new(config: NetConfig) -> Result<Self, Failure> {
        Ok(Self { config })
    }
    pub fn network(&self, _body: &Value) -> Result<Value, Failure> {
        Err(Failure::invalid("network", "being written"))
    }
    pub fn network_dump(&self) -> Result<Value, Failure> {
        Err(Failure::invalid("network", "being written"))
    }
    pub fn resolver(&self, _body: &Value) -> Result<Value, Failure> {
        Err(Failure::invalid("network", "being written"))
    }
    pub fn container_started(&self, _id: &str) {}
    pub fn container_removed(&self, _id: &str) {}
}
