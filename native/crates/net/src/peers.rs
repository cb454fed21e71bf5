//! Containers of other nodes in a sandbox: where a MAC is (forwarding entries) and which MAC an address has (neighbours, answered by the VXLAN device's ARP proxy).

use crate::netlink::attributes::Attributes;
use crate::netlink::constants as nl;
use crate::netlink::message::{Message, neighbour_fixed};
use crate::netlink::socket::{NetlinkError, RouteSocket};
use crate::values::Mac;
use std::net::Ipv4Addr;

/// One change of a table of the VXLAN device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerChange {
    PutForward { mac: Mac, remote: Ipv4Addr },
    RemoveForward { mac: Mac, remote: Ipv4Addr },
    PutNeighbour { address: Ipv4Addr, mac: Mac },
    RemoveNeighbour { address: Ipv4Addr },
}

impl PeerChange {
    /// The request, on the VXLAN device of this index.
    pub fn message(self, vxlan: u32) -> Message {
        let replace = nl::NLM_F_CREATE | nl::NLM_F_REPLACE;
        let state = nl::NUD_PERMANENT | nl::NUD_NOARP;
        match self {
            Self::PutForward { mac, remote } => Message::new(
                nl::RTM_NEWNEIGH,
                replace,
                &neighbour_fixed(nl::AF_BRIDGE, vxlan, state, nl::NTF_SELF),
            )
            .attribute(nl::NDA_LLADDR, &mac.0)
            .attribute(nl::NDA_DST, &remote.octets()),
            Self::RemoveForward { mac, remote } => Message::new(
                nl::RTM_DELNEIGH,
                0,
                &neighbour_fixed(nl::AF_BRIDGE, vxlan, state, nl::NTF_SELF),
            )
            .attribute(nl::NDA_LLADDR, &mac.0)
            .attribute(nl::NDA_DST, &remote.octets()),
            Self::PutNeighbour { address, mac } => Message::new(
                nl::RTM_NEWNEIGH,
                replace,
                &neighbour_fixed(nl::AF_INET, vxlan, nl::NUD_PERMANENT, 0),
            )
            .attribute(nl::NDA_DST, &address.octets())
            .attribute(nl::NDA_LLADDR, &mac.0),
            Self::RemoveNeighbour { address } => Message::new(
                nl::RTM_DELNEIGH,
                0,
                &neighbour_fixed(nl::AF_INET, vxlan, 0, 0),
            )
            .attribute(nl::NDA_DST, &address.octets()),
        }
    }

    pub fn removes(self) -> bool {
        matches!(
            self,
            Self::RemoveForward { .. } | Self::RemoveNeighbour { .. }
        )
    }

    /// Whether this refusal of a removal says that there was nothing to remove.
    pub fn is_done(self, error: &NetlinkError) -> bool {
        self.removes() && error.is(libc::ENOENT)
    }
}

/// The static forwarding entries of the VXLAN device, sorted.
pub fn forwards(
    socket: &mut RouteSocket,
    vxlan: u32,
) -> Result<Vec<(Mac, Ipv4Addr)>, NetlinkError> {
    let bodies = socket.dump(&Message::new(
        nl::RTM_GETNEIGH,
        0,
        &neighbour_fixed(nl::AF_BRIDGE, 0, 0, 0),
    ))?;
    let mut found: Vec<_> = bodies
        .iter()
        .filter_map(|body| entry(body, nl::AF_BRIDGE, vxlan))
        // Entries without NTF_SELF are the bridge's own; one without a destination is the device's own.
        .filter(|entry| entry.flags & nl::NTF_SELF != 0)
        .filter_map(|entry| Some((entry.mac?, entry.destination?)))
        .filter(|(mac, _)| mac.0 != [0; 6])
        .collect();
    found.sort_unstable();
    Ok(found)
}

/// The static neighbours of the VXLAN device, sorted.
pub fn neighbours(
    socket: &mut RouteSocket,
    vxlan: u32,
) -> Result<Vec<(Ipv4Addr, Mac)>, NetlinkError> {
    let bodies = socket.dump(&Message::new(
        nl::RTM_GETNEIGH,
        0,
        &neighbour_fixed(nl::AF_INET, 0, 0, 0),
    ))?;
    let mut found: Vec<_> = bodies
        .iter()
        .filter_map(|body| entry(body, nl::AF_INET, vxlan))
        .filter_map(|entry| Some((entry.destination?, entry.mac?)))
        .collect();
    found.sort_unstable();
    Ok(found)
}

struct Entry {
    flags: u8,
    mac: Option<Mac>,
    destination: Option<Ipv4Addr>,
}

/// A permanent entry of one device and family; None for every other.
fn entry(body: &[u8], family: u8, index: u32) -> Option<Entry> {
    let (fixed, rest) = body.split_at_checked(12)?;
    let owner = u32::from_ne_bytes(fixed[4..8].try_into().ok()?);
    let state = u16::from_ne_bytes([fixed[8], fixed[9]]);
    if fixed[0] != family || owner != index || state & nl::NUD_PERMANENT == 0 {
        return None;
    }
    let attributes = Attributes::new(rest);
    Some(Entry {
        flags: fixed[10],
        mac: attributes
            .get(nl::NDA_LLADDR)
            .and_then(|bytes| bytes.try_into().ok())
            .map(Mac),
        destination: attributes.ipv4(nl::NDA_DST),
    })
}
