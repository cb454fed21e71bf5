//! Network operations as they come in frames (NetworkOp of src/wire/native.ts).

use serde::Deserialize;

/// One step; all are idempotent.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(
    tag = "op",
    rename_all = "kebab-case",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum Operation {
    SandboxAdd {
        sandbox: String,
    },
    SandboxRemove {
        sandbox: String,
    },
    BridgeAdd {
        sandbox: String,
        address: String,
        mtu: u32,
    },
    VxlanAdd {
        sandbox: String,
        vni: u32,
        local: String,
        port: u16,
        mtu: u32,
    },
    EndpointAdd {
        sandbox: String,
        port: String,
        container_id: String,
        name: String,
        address: String,
        mac: String,
        mtu: u32,
    },
    EndpointRemove {
        sandbox: String,
        port: String,
    },
    FdbPut {
        sandbox: String,
        mac: String,
        remote: String,
    },
    FdbRemove {
        sandbox: String,
        mac: String,
        remote: String,
    },
    NeighbourPut {
        sandbox: String,
        address: String,
        mac: String,
    },
    NeighbourRemove {
        sandbox: String,
        address: String,
    },
}

impl Operation {
    /// The sandbox that it is about.
    pub fn sandbox(&self) -> &str {
        match self {
            Self::SandboxAdd { sandbox }
            | Self::SandboxRemove { sandbox }
            | Self::BridgeAdd { sandbox, .. }
            | Self::VxlanAdd { sandbox, .. }
            | Self::EndpointAdd { sandbox, .. }
            | Self::EndpointRemove { sandbox, .. }
            | Self::FdbPut { sandbox, .. }
            | Self::FdbRemove { sandbox, .. }
            | Self::NeighbourPut { sandbox, .. }
            | Self::NeighbourRemove { sandbox, .. } => sandbox,
        }
    }

    /// Whether it takes something away, so that a sandbox that is gone makes it done.
    pub fn removes(&self) -> bool {
        matches!(
            self,
            Self::SandboxRemove { .. }
                | Self::EndpointRemove { .. }
                | Self::FdbRemove { .. }
                | Self::NeighbourRemove { .. }
        )
    }

    /// What is being done, on which value, for failures.
    pub fn doing(&self) -> String {
        match self {
            Self::SandboxAdd { sandbox } => format!("adding sandbox {sandbox:?}"),
            Self::SandboxRemove { sandbox } => format!("removing sandbox {sandbox:?}"),
            Self::BridgeAdd {
                sandbox, address, ..
            } => format!("adding the bridge with {address} to sandbox {sandbox:?}"),
            Self::VxlanAdd {
                sandbox,
                vni,
                local,
                port,
                ..
            } => format!(
                "adding the VXLAN device of VNI {vni} ({local} port {port}) to sandbox {sandbox:?}"
            ),
            Self::EndpointAdd {
                sandbox,
                port,
                container_id,
                name,
                address,
                ..
            } => {
                format!(
                    "joining container {container_id} as {name} with {address} to sandbox {sandbox:?} by port {port:?}"
                )
            }
            Self::EndpointRemove { sandbox, port } => {
                format!("removing port {port:?} of sandbox {sandbox:?}")
            }
            Self::FdbPut {
                sandbox,
                mac,
                remote,
            } => format!("forwarding {mac} to {remote} in sandbox {sandbox:?}"),
            Self::FdbRemove {
                sandbox,
                mac,
                remote,
            } => format!("no longer forwarding {mac} to {remote} in sandbox {sandbox:?}"),
            Self::NeighbourPut {
                sandbox,
                address,
                mac,
            } => format!("answering that {address} is {mac} in sandbox {sandbox:?}"),
            Self::NeighbourRemove { sandbox, address } => {
                format!("no longer answering for {address} in sandbox {sandbox:?}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn frames_become_operations() {
        let value = json!({"op": "endpoint-add", "sandbox": "s", "port": "p", "containerId": "c", "name": "eth0", "address": "10.0.1.2/24", "mac": "02:42:0a:00:01:02", "mtu": 1450});
        let operation = Operation::deserialize(&value).unwrap();
        assert_eq!(operation.sandbox(), "s");
        assert!(!operation.removes());
        assert!(matches!(
            operation,
            Operation::EndpointAdd { mtu: 1450, .. }
        ));
        for bad in [
            json!({"op": "bridge-add", "sandbox": "s"}),
            json!({"op": "no-such", "sandbox": "s"}),
            json!({"sandbox": "s"}),
            json!({"op": "vxlan-add", "sandbox": "s", "vni": -1, "local": "", "port": 1, "mtu": 1}),
        ] {
            assert!(Operation::deserialize(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_operation_of_the_shared_fixture_is_read() {
        let text = include_str!("../../../testdata/requests.json");
        let frames: Vec<serde_json::Value> = serde_json::from_str(text).expect("fixture");
        let frame = frames
            .iter()
            .find(|frame| frame["call"] == "network")
            .expect("frame");
        let operations = frame["ops"].as_array().expect("ops");
        assert_eq!(operations.len(), 10, "one of each kind");
        for operation in operations {
            let read = Operation::deserialize(operation);
            assert!(read.is_ok(), "{operation}: {read:?}");
        }
    }
}
