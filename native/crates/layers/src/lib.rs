//! Image layers: a tar, plain or compressed, becomes a directory that overlayfs can use as a lower layer.

use serde_json::Value;
use shoal_protocol::Failure;

/// Unpacks `{archive, diffId, destination}`.
pub fn unpack(body: &Value) -> Result<Value, Failure> {
    Err(Failure::invalid("unpacking", format!("being written: {body}")))
}
