//! What stands in one sandbox: the bridge, the VXLAN device, and a veth pair to each container.
//!
//! Nothing learns and nothing floods to the other nodes: the addresses of local containers are static entries of the bridge, those of
//! others are static entries of the VXLAN device, so a late frame or a forged one cannot redirect traffic.

use crate::link::{self, Link, Vxlan};
use crate::namespace;
use crate::netlink::constants as nl;
use crate::netlink::message::{Message, link_fixed, neighbour_fixed};
use crate::netlink::socket::{NetlinkError, RouteSocket};
use crate::pins::Pinned;
use crate::values::{Cidr, Mac, mac_of};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

pub const BRIDGE: &str = "br0";
pub const VXLAN: &str = "vxlan0";
/// Hops that a packet between nodes may take.
const VXLAN_TTL: u8 = 64;

/// Why a step on a sandbox did not work.
#[derive(Debug)]
pub enum SandboxError {
    Kernel(NetlinkError),
    Io(io::Error),
    /// Something that must be there first is not.
    Missing(String),
    /// Something else is in the way.
    Conflict(String),
}

impl From<NetlinkError> for SandboxError {
    fn from(error: NetlinkError) -> Self {
        Self::Kernel(error)
    }
}

impl From<io::Error> for SandboxError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// One container's place on a network.
pub struct Endpoint<'a> {
    pub port: &'a str,
    pub name: &'a str,
    pub address: Cidr,
    pub mac: Mac,
    pub mtu: u32,
}

/// Makes the bridge with exactly this address, up. The same gateway address has the same MAC on every node.
pub fn add_bridge(sandbox: &mut Pinned, gateway: Cidr, mtu: u32) -> Result<(), SandboxError> {
    let socket = &mut sandbox.socket;
    let mac = mac_of(gateway.address);
    if link::find(socket, BRIDGE)?.is_none() {
        create_up(
            socket,
            Message::new(
                nl::RTM_NEWLINK,
                nl::NLM_F_CREATE | nl::NLM_F_EXCL,
                &link_fixed(nl::AF_UNSPEC, 0, nl::IFF_UP, nl::IFF_UP),
            )
            .string(nl::IFLA_IFNAME, BRIDGE)
            .attribute(nl::IFLA_ADDRESS, &mac.0)
            .u32(nl::IFLA_MTU, mtu)
            .nest(nl::IFLA_LINKINFO, |info| {
                info.string(nl::IFLA_INFO_KIND, "bridge")
                    .nest(nl::IFLA_INFO_DATA, |data| {
                        data.u32(nl::IFLA_BR_STP_STATE, 0)
                            .u8(nl::IFLA_BR_MCAST_SNOOPING, 0)
                    })
            }),
        )?;
    }
    let bridge = require(socket, BRIDGE)?;
    if bridge.mtu != mtu || bridge.mac != Some(mac) || !bridge.up {
        socket.request(
            &link::change(bridge.index)
                .attribute(nl::IFLA_ADDRESS, &mac.0)
                .u32(nl::IFLA_MTU, mtu),
        )?;
    }
    link::set_address(socket, bridge.index, gateway)?;
    Ok(())
}

/// Makes the VXLAN device, its tunnel socket in the host's namespace, as a port of the bridge that does not learn. One with other settings is replaced, and its entries are gone with it.
pub fn add_vxlan(
    host: &mut RouteSocket,
    sandbox: &mut Pinned,
    wanted: Vxlan,
    mtu: u32,
) -> Result<(), SandboxError> {
    let bridge = require(&mut sandbox.socket, BRIDGE)?;
    if let Some(found) = link::find(&mut sandbox.socket, VXLAN)?
        && found.vxlan != Some(wanted)
    {
        link::remove(&mut sandbox.socket, found.index)?;
    }
    if link::find(&mut sandbox.socket, VXLAN)?.is_none() {
        // The request goes to the host's namespace and names the sandbox: the kernel makes the device there in one step, with the
        // tunnel's socket here. So no crash can leave it half-way, in the host's namespace.
        host.request(
            &Message::new(
                nl::RTM_NEWLINK,
                nl::NLM_F_CREATE | nl::NLM_F_EXCL,
                &link_fixed(nl::AF_UNSPEC, 0, 0, 0),
            )
            .string(nl::IFLA_IFNAME, VXLAN)
            .u32(nl::IFLA_MTU, mtu)
            .attribute(
                nl::IFLA_NET_NS_FD,
                &sandbox.namespace.as_raw_fd().to_ne_bytes(),
            )
            .nest(nl::IFLA_LINKINFO, |info| {
                info.string(nl::IFLA_INFO_KIND, "vxlan")
                    .nest(nl::IFLA_INFO_DATA, |data| {
                        data.u32(nl::IFLA_VXLAN_ID, wanted.vni)
                            .attribute(nl::IFLA_VXLAN_LOCAL, &wanted.local.octets())
                            .attribute(nl::IFLA_VXLAN_PORT, &wanted.port.to_be_bytes())
                            .u8(nl::IFLA_VXLAN_TTL, VXLAN_TTL)
                            .u8(nl::IFLA_VXLAN_LEARNING, 0)
                            .u8(nl::IFLA_VXLAN_PROXY, 1)
                    })
            }),
        )?;
    }
    let socket = &mut sandbox.socket;
    let vxlan = require(socket, VXLAN)?;
    enslave(socket, &vxlan, &bridge, mtu)?;
    // Frames to addresses that no local port has go to this port, which drops them unless it has an entry for them.
    set_port(socket, vxlan.index, true)?;
    Ok(())
}

/// Joins a container: a port on the bridge here, and its other end in the container's namespace, up and addressed.
pub fn add_endpoint(
    sandbox: &mut Pinned,
    container: &OwnedFd,
    endpoint: &Endpoint<'_>,
) -> Result<(), SandboxError> {
    let bridge = require(&mut sandbox.socket, BRIDGE)?;
    let name = endpoint.name.to_owned();
    let mut inner = namespace::inside(container, RouteSocket::open)?;
    if let Some(port) = link::find(&mut sandbox.socket, endpoint.port)? {
        let other_end = link::find(&mut inner, endpoint.name)?;
        let same = other_end.is_some_and(|end| {
            port.kind == "veth"
                && port.peer == Some(end.index)
                && end.peer == Some(port.index)
                && end.mac == Some(endpoint.mac)
        });
        if !same {
            link::remove(&mut sandbox.socket, port.index)?;
        }
    }
    if link::find(&mut sandbox.socket, endpoint.port)?.is_none() {
        if link::find(&mut inner, endpoint.name)?.is_some() {
            return Err(SandboxError::Conflict(format!(
                "the container already has another interface named {}; remove that endpoint first",
                endpoint.name
            )));
        }
        sandbox.socket.request(&veth_pair(container, endpoint))?;
    }
    let port = require(&mut sandbox.socket, endpoint.port)?;
    enslave(&mut sandbox.socket, &port, &bridge, endpoint.mtu)?;
    set_port(&mut sandbox.socket, port.index, false)?;
    sandbox.socket.request(
        &Message::new(
            nl::RTM_NEWNEIGH,
            nl::NLM_F_CREATE | nl::NLM_F_REPLACE,
            &neighbour_fixed(nl::AF_BRIDGE, port.index, nl::NUD_NOARP, nl::NTF_MASTER),
        )
        .attribute(nl::NDA_LLADDR, &endpoint.mac.0),
    )?;
    // Before the interface is up, so that it never has a link-local address.
    namespace::inside(container, || namespace::disable_ipv6(&name))?;
    let end = require(&mut inner, endpoint.name)?;
    if !end.up || end.mtu != endpoint.mtu {
        inner.request(&link::change(end.index).u32(nl::IFLA_MTU, endpoint.mtu))?;
    }
    link::set_address(&mut inner, end.index, endpoint.address)?;
    Ok(())
}

/// Removes a port of the bridge, and with it the interface in the container; nothing to do when it is gone.
pub fn remove_endpoint(sandbox: &mut Pinned, port: &str) -> Result<(), SandboxError> {
    match link::find(&mut sandbox.socket, port)? {
        Some(found) if found.kind == "veth" => Ok(link::remove(&mut sandbox.socket, found.index)?),
        Some(found) => Err(SandboxError::Conflict(format!(
            "{port} is a {} and no port of a container",
            found.kind
        ))),
        None => Ok(()),
    }
}

/// Removes all links of the sandbox at once rather than some time after the namespace is let go, so that the VNI is free on return.
pub fn clear(sandbox: &mut Pinned) -> Result<(), SandboxError> {
    for found in link::all(&mut sandbox.socket)? {
        if !found.kind.is_empty() {
            link::remove(&mut sandbox.socket, found.index)?;
        }
    }
    Ok(())
}

/// The link of this name, which an earlier operation must have made.
pub fn require(socket: &mut RouteSocket, name: &str) -> Result<Link, SandboxError> {
    link::find(socket, name)?
        .ok_or_else(|| SandboxError::Missing(format!("it has no {name}; add that first")))
}

/// Creates a link. That somebody made it between our look and our request is success.
fn create_up(socket: &mut RouteSocket, message: Message) -> Result<(), NetlinkError> {
    match socket.request(&message) {
        Err(error) if error.is(libc::EEXIST) => Ok(()),
        other => other,
    }
}

fn veth_pair(container: &impl AsFd, endpoint: &Endpoint<'_>) -> Message {
    Message::new(
        nl::RTM_NEWLINK,
        nl::NLM_F_CREATE | nl::NLM_F_EXCL,
        &link_fixed(nl::AF_UNSPEC, 0, 0, 0),
    )
    .string(nl::IFLA_IFNAME, endpoint.port)
    .u32(nl::IFLA_MTU, endpoint.mtu)
    .nest(nl::IFLA_LINKINFO, |info| {
        info.string(nl::IFLA_INFO_KIND, "veth")
            .nest(nl::IFLA_INFO_DATA, |data| {
                data.nest(nl::VETH_INFO_PEER, |peer| {
                    peer.raw(&link_fixed(nl::AF_UNSPEC, 0, 0, 0))
                        .string(nl::IFLA_IFNAME, endpoint.name)
                        .attribute(nl::IFLA_ADDRESS, &endpoint.mac.0)
                        .u32(nl::IFLA_MTU, endpoint.mtu)
                        .attribute(
                            nl::IFLA_NET_NS_FD,
                            &container.as_fd().as_raw_fd().to_ne_bytes(),
                        )
                })
            })
    })
}

/// Makes a link an up port of the bridge. Its MTU comes first: a port with a small one would shrink the bridge's.
fn enslave(
    socket: &mut RouteSocket,
    port: &Link,
    bridge: &Link,
    mtu: u32,
) -> Result<(), NetlinkError> {
    if port.up && port.mtu == mtu && port.master == Some(bridge.index) {
        return Ok(());
    }
    socket.request(
        &link::change(port.index)
            .u32(nl::IFLA_MTU, mtu)
            .u32(nl::IFLA_MASTER, bridge.index),
    )
}

/// No learning on a port, and whether frames to unknown addresses leave by it.
fn set_port(
    socket: &mut RouteSocket,
    index: u32,
    unknown_unicast: bool,
) -> Result<(), NetlinkError> {
    socket.request(
        &Message::new(nl::RTM_SETLINK, 0, &link_fixed(nl::AF_BRIDGE, index, 0, 0)).nest(
            nl::IFLA_PROTINFO,
            |port| {
                port.u8(nl::IFLA_BRPORT_LEARNING, 0)
                    .u8(nl::IFLA_BRPORT_UNICAST_FLOOD, u8::from(unknown_unicast))
            },
        ),
    )
}
