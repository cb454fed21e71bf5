//! What the kernel has of one sandbox, in the words of the operations (NativeSandbox of src/wire/native.ts).

use crate::link::{self, Link};
use crate::peers;
use crate::pins::Pinned;
use crate::sandbox::{BRIDGE, SandboxError, VXLAN};
use serde::Serialize;

/// One sandbox. A bridge or VXLAN device that is down, or no port of the bridge, is told as absent, so that whoever compares adds it again and mends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    pub sandbox: String,
    pub bridge: Option<BridgeSnapshot>,
    pub vxlan: Option<VxlanSnapshot>,
    pub ports: Vec<String>,
    pub fdb: Vec<Forward>,
    pub neighbours: Vec<Neighbour>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BridgeSnapshot {
    pub address: String,
    pub mtu: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VxlanSnapshot {
    pub vni: u32,
    pub local: String,
    pub port: u16,
    pub mtu: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Forward {
    pub mac: String,
    pub remote: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Neighbour {
    pub address: String,
    pub mac: String,
}

/// Reads a sandbox back.
pub fn read(name: &str, sandbox: &mut Pinned) -> Result<Snapshot, SandboxError> {
    let socket = &mut sandbox.socket;
    let links = link::all(socket)?;
    let named = |wanted: &str| links.iter().find(|link| link.name == wanted);
    let mut snapshot = Snapshot {
        sandbox: name.to_owned(),
        bridge: None,
        vxlan: None,
        ports: Vec::new(),
        fdb: Vec::new(),
        neighbours: Vec::new(),
    };
    let Some(bridge) = named(BRIDGE) else {
        return Ok(snapshot);
    };
    let on_bridge = |link: &Link| link.up && link.master == Some(bridge.index);
    if let Some(address) = link::addresses(socket, bridge.index)?
        .first()
        .filter(|_| bridge.up)
    {
        snapshot.bridge = Some(BridgeSnapshot {
            address: address.to_string(),
            mtu: bridge.mtu,
        });
    }
    snapshot.ports = links
        .iter()
        .filter(|link| link.kind == "veth" && on_bridge(link))
        .map(|link| link.name.clone())
        .collect();
    snapshot.ports.sort();
    if let Some(device) = named(VXLAN) {
        if let Some(vxlan) = device.vxlan.filter(|_| on_bridge(device)) {
            snapshot.vxlan = Some(VxlanSnapshot {
                vni: vxlan.vni,
                local: vxlan.local.to_string(),
                port: vxlan.port,
                mtu: device.mtu,
            });
        }
        snapshot.fdb = peers::forwards(socket, device.index)?
            .into_iter()
            .map(|(mac, remote)| Forward {
                mac: mac.to_string(),
                remote: remote.to_string(),
            })
            .collect();
        snapshot.neighbours = peers::neighbours(socket, device.index)?
            .into_iter()
            .map(|(address, mac)| Neighbour {
                address: address.to_string(),
                mac: mac.to_string(),
            })
            .collect();
    }
    Ok(snapshot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_written_as_the_shared_fixture_has_it() {
        let text = include_str!("../../../testdata/replies.json");
        let frames: Vec<serde_json::Value> = serde_json::from_str(text).expect("fixture");
        let frame = frames
            .iter()
            .find(|frame| !frame["value"]["sandboxes"].is_null())
            .expect("frame");
        let (mac, remote) = ("02:42:0a:00:01:06".to_owned(), "192.168.0.3".to_owned());
        let whole = Snapshot {
            sandbox: "n1".into(),
            bridge: Some(BridgeSnapshot {
                address: "10.0.1.1/24".into(),
                mtu: 1450,
            }),
            vxlan: Some(VxlanSnapshot {
                vni: 4097,
                local: "192.168.0.2".into(),
                port: 4789,
                mtu: 1450,
            }),
            ports: vec!["v1".into()],
            fdb: vec![Forward {
                mac: mac.clone(),
                remote,
            }],
            neighbours: vec![Neighbour {
                address: "10.0.1.6".into(),
                mac,
            }],
        };
        let empty = Snapshot {
            sandbox: "n2".into(),
            bridge: None,
            vxlan: None,
            ports: vec![],
            fdb: vec![],
            neighbours: vec![],
        };
        let written = serde_json::to_value([whole, empty]).expect("plain data");
        assert_eq!(written, frame["value"]["sandboxes"]);
    }
}
