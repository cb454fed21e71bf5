//! Links and their addresses as the kernel tells them.

use crate::netlink::attributes::Attributes;
use crate::netlink::constants as nl;
use crate::netlink::message::{Message, address_fixed, link_fixed};
use crate::netlink::socket::{NetlinkError, RouteSocket};
use crate::values::{Cidr, Mac};
use std::net::Ipv4Addr;

/// A link, the part of it that we set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    pub up: bool,
    pub mtu: u32,
    pub mac: Option<Mac>,
    /// Index of the bridge that it is a port of.
    pub master: Option<u32>,
    /// Index of the link at its other end, in that end's namespace.
    pub peer: Option<u32>,
    /// `veth`, `bridge`, `vxlan`; empty for hardware.
    pub kind: String,
    pub vxlan: Option<Vxlan>,
}

/// What makes a VXLAN device the one that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vxlan {
    pub vni: u32,
    pub local: Ipv4Addr,
    pub port: u16,
}

/// The link of this name; None when there is none.
pub fn find(socket: &mut RouteSocket, name: &str) -> Result<Option<Link>, NetlinkError> {
    let request = Message::new(nl::RTM_GETLINK, 0, &link_fixed(nl::AF_UNSPEC, 0, 0, 0))
        .string(nl::IFLA_IFNAME, name);
    match socket.get(&request) {
        Ok(body) => Ok(parse(&body)),
        Err(error) if error.is(libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

/// All links of the namespace.
pub fn all(socket: &mut RouteSocket) -> Result<Vec<Link>, NetlinkError> {
    let bodies = socket.dump(&Message::new(
        nl::RTM_GETLINK,
        0,
        &link_fixed(nl::AF_UNSPEC, 0, 0, 0),
    ))?;
    Ok(bodies.iter().filter_map(|body| parse(body)).collect())
}

/// Removes a link; nothing to do when it is gone.
pub fn remove(socket: &mut RouteSocket, index: u32) -> Result<(), NetlinkError> {
    match socket.request(&Message::new(
        nl::RTM_DELLINK,
        0,
        &link_fixed(nl::AF_UNSPEC, index, 0, 0),
    )) {
        Err(error) if error.is(libc::ENODEV) => Ok(()),
        other => other,
    }
}

/// A request that changes a link: up, and what the caller adds.
pub fn change(index: u32) -> Message {
    Message::new(
        nl::RTM_NEWLINK,
        0,
        &link_fixed(nl::AF_UNSPEC, index, nl::IFF_UP, nl::IFF_UP),
    )
}

/// IPv4 addresses of a link, in the kernel's order.
pub fn addresses(socket: &mut RouteSocket, index: u32) -> Result<Vec<Cidr>, NetlinkError> {
    let bodies = socket.dump(&Message::new(nl::RTM_GETADDR, 0, &address_fixed(0, 0)))?;
    Ok(bodies
        .iter()
        .filter_map(|body| {
            let (fixed, attributes) = body.split_at_checked(8)?;
            let owner = u32::from_ne_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]);
            (fixed[0] == nl::AF_INET && owner == index).then_some(())?;
            Some(Cidr {
                address: Attributes::new(attributes).ipv4(nl::IFA_LOCAL)?,
                prefix_length: fixed[1],
            })
        })
        .collect())
}

/// Makes `wanted` the only IPv4 address of a link.
pub fn set_address(socket: &mut RouteSocket, index: u32, wanted: Cidr) -> Result<(), NetlinkError> {
    let request = |kind, flags, cidr: Cidr| {
        Message::new(kind, flags, &address_fixed(cidr.prefix_length, index))
            .attribute(nl::IFA_LOCAL, &cidr.address.octets())
            .attribute(nl::IFA_ADDRESS, &cidr.address.octets())
    };
    let mut there = false;
    for cidr in addresses(socket, index)? {
        if cidr == wanted {
            there = true;
        } else {
            match socket.request(&request(nl::RTM_DELADDR, 0, cidr)) {
                Err(error) if !error.is(libc::EADDRNOTAVAIL) => return Err(error),
                _ => {}
            }
        }
    }
    if there {
        Ok(())
    } else {
        socket.request(&request(
            nl::RTM_NEWADDR,
            nl::NLM_F_CREATE | nl::NLM_F_REPLACE,
            wanted,
        ))
    }
}

fn parse(body: &[u8]) -> Option<Link> {
    let (fixed, rest) = body.split_at_checked(16)?;
    let attributes = Attributes::new(rest);
    let info = attributes.nest(nl::IFLA_LINKINFO);
    let kind = info
        .and_then(|info| info.string(nl::IFLA_INFO_KIND))
        .unwrap_or_default()
        .to_owned();
    let data = info.and_then(|info| info.nest(nl::IFLA_INFO_DATA));
    let vxlan = data.filter(|_| kind == "vxlan").and_then(|data| {
        Some(Vxlan {
            vni: data.u32(nl::IFLA_VXLAN_ID)?,
            local: data
                .ipv4(nl::IFLA_VXLAN_LOCAL)
                .unwrap_or(Ipv4Addr::UNSPECIFIED),
            port: data.be16(nl::IFLA_VXLAN_PORT)?,
        })
    });
    Some(Link {
        index: u32::from_ne_bytes(fixed[4..8].try_into().ok()?),
        name: attributes.string(nl::IFLA_IFNAME)?.to_owned(),
        up: u32::from_ne_bytes(fixed[8..12].try_into().ok()?) & nl::IFF_UP != 0,
        mtu: attributes.u32(nl::IFLA_MTU).unwrap_or(0),
        mac: attributes
            .get(nl::IFLA_ADDRESS)
            .and_then(|bytes| bytes.try_into().ok())
            .map(Mac),
        master: attributes.u32(nl::IFLA_MASTER).filter(|index| *index != 0),
        peer: attributes.u32(nl::IFLA_LINK).filter(|index| *index != 0),
        kind,
        vxlan,
    })
}
