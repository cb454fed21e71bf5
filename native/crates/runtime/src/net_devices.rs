//! Network interfaces of the host that move into a container (runtime-spec 1.3, config-linux.md "Network Devices").
//!
//! The maker moves them before the host's hooks run, when init is in its network namespace, and sets them up there. What they are called
//! inside, their MTU and hardware address, and their permanent addresses of global scope are kept; the kernel forgets the addresses of an
//! interface that moves. A creation that fails later gives them back.

use crate::sys::{file, process};
use shoal_net::link::{self, Link};
use shoal_net::netlink::attributes::Attributes;
use shoal_net::netlink::constants as nl;
use shoal_net::netlink::message::{Message, link_fixed};
use shoal_net::netlink::socket::{NetlinkError, RouteSocket};
use shoal_protocol::oci::NetDevice;
use shoal_protocol::{Failure, FailureCode};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

/// Longest name of an interface, without its NUL (IFNAMSIZ of <linux/if.h>).
pub const NAME_BYTES_MAX: usize = 15;
/// Stands in a name for the lowest number that is free, as the kernel has it.
const TEMPLATE: &str = "%d";
/// Flags of an address that the one inside has too; the others say what became of it (<linux/if_addr.h>): NODAD, HOMEADDRESS,
/// MANAGETEMPADDR, NOPREFIXROUTE, MCAUTOJOIN.
const ADDRESS_FLAGS_KEPT: u32 = 0x02 | 0x10 | 0x100 | 0x200 | 0x400;

/// Refuses names that the kernel would not take, and two interfaces of one name.
pub fn validate(devices: &BTreeMap<String, NetDevice>) -> Result<(), Failure> {
    let mut taken = BTreeSet::new();
    for (name, device) in devices {
        let doing = format!("reading linux.netDevices {name:?}");
        let refuse = |value: &str| {
            format!(
                "invalid network device name {value:?}: it has 1 to {NAME_BYTES_MAX} bytes, no space, '/' or ':', and a '%' only as one {TEMPLATE:?}"
            )
        };
        if !is_name(name) || name.contains('%') {
            return Err(Failure::invalid(doing, refuse(name)));
        }
        let inside = inside(name, device);
        let without = inside.replacen(TEMPLATE, "", 1);
        if !is_name(inside) || without.contains('%') {
            return Err(Failure::invalid(doing, refuse(inside)));
        }
        if !inside.contains('%') && !taken.insert(inside) {
            return Err(Failure::invalid(
                doing,
                format!("another of them is called {inside:?} in the container too"),
            ));
        }
    }
    Ok(())
}

/// Whether the kernel takes this as a name (dev_valid_name of net/core/dev.c).
fn is_name(name: &str) -> bool {
    let odd = |byte: u8| matches!(byte, b'/' | b':' | 0 | 0x0b) || byte.is_ascii_whitespace();
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && !matches!(name, "." | "..")
        && !name.bytes().any(odd)
}

/// What the configuration calls the interface in the container.
fn inside<'a>(name: &'a str, device: &'a NetDevice) -> &'a str {
    match device.name.as_str() {
        "" => name,
        other => other,
    }
}

/// The name itself, or what its template becomes among these; None when it is taken.
fn free_name(wanted: &str, there: &BTreeSet<String>) -> Option<String> {
    if !wanted.contains(TEMPLATE) {
        return (!there.contains(wanted)).then(|| wanted.to_owned());
    }
    (0..=u32::from(u16::MAX))
        .map(|number| wanted.replacen(TEMPLATE, &number.to_string(), 1))
        .take_while(|name| name.len() <= NAME_BYTES_MAX)
        .find(|name| !there.contains(name))
}

/// An address of an interface, as a request to have it: attributes and what comes before the index.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Address {
    family: u8,
    prefix_length: u8,
    flags: u32,
    attributes: Vec<(u16, Vec<u8>)>,
}

impl Address {
    /// The address in an answer of the kernel, if it is the interface's, permanent and of global scope: others may only hold where they
    /// are, or for a time.
    fn read(body: &[u8], index: u32) -> Option<Self> {
        let (fixed, rest) = body.split_at_checked(8)?;
        let attributes = Attributes::new(rest);
        let owner = u32::from_ne_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]);
        let flags = attributes
            .u32(nl::IFA_FLAGS)
            .unwrap_or_else(|| fixed[2].into());
        let known = matches!(fixed[0], nl::AF_INET | nl::AF_INET6);
        if !known
            || owner != index
            || fixed[3] != nl::RT_SCOPE_UNIVERSE
            || flags & nl::IFA_F_PERMANENT == 0
        {
            return None;
        }
        let kept = [nl::IFA_ADDRESS, nl::IFA_LOCAL, nl::IFA_BROADCAST];
        Some(Self {
            family: fixed[0],
            prefix_length: fixed[1],
            flags: flags & ADDRESS_FLAGS_KEPT,
            attributes: kept
                .into_iter()
                .filter_map(|kind| Some((kind, attributes.get(kind)?.to_vec())))
                .collect(),
        })
    }

    fn request(&self, index: u32) -> Message {
        let mut fixed = [0; 8];
        fixed[0] = self.family;
        fixed[1] = self.prefix_length;
        fixed[4..8].copy_from_slice(&index.to_ne_bytes());
        let flags = nl::NLM_F_CREATE | nl::NLM_F_REPLACE;
        let whole = Message::new(nl::RTM_NEWADDR, flags, &fixed).u32(nl::IFA_FLAGS, self.flags);
        self.attributes
            .iter()
            .fold(whole, |message, (kind, bytes)| {
                message.attribute(*kind, bytes)
            })
    }
}

/// One interface that has moved.
struct Device {
    /// As it was on the host.
    was: Link,
    addresses: Vec<Address>,
    /// Its name inside.
    name: String,
}

/// The interfaces that have moved into a container, for as long as they may have to go back.
pub(crate) struct Moved {
    host: RouteSocket,
    home: OwnedFd,
    inside: RouteSocket,
    namespace: OwnedFd,
    devices: Vec<Device>,
}

/// Moves the devices into the network namespace of `pid` and sets them up there. On failure none of them is moved. The caller has one
/// thread, and is in the namespace that they are in.
pub(crate) fn move_in(pid: i32, devices: &BTreeMap<String, NetDevice>) -> Result<Moved, Failure> {
    let mut moved = Moved::open(pid)?;
    for (name, device) in devices {
        if let Err(failure) = moved.one(name, inside(name, device)) {
            moved.back();
            return Err(failure);
        }
    }
    Ok(moved)
}

impl Moved {
    fn open(pid: i32) -> Result<Self, Failure> {
        let io =
            |error: io::Error| Failure::io("moving linux.netDevices into the container", &error);
        let (own, theirs) = ("/proc/self/ns/net", format!("/proc/{pid}/ns/net"));
        let identity = |path: &str| fs::metadata(path).map(|at| (at.dev(), at.ino()));
        if identity(own).map_err(io)? == identity(&theirs).map_err(io)? {
            return Err(Failure::invalid(
                "reading linux.netDevices",
                "unable to move network devices without a NET namespace of the container's own: it joins the host's; give linux.namespaces another",
            ));
        }
        let home = file::open(own, libc::O_RDONLY).map_err(io)?;
        let namespace = file::open(&theirs, libc::O_RDONLY).map_err(io)?;
        let host = RouteSocket::open().map_err(io)?;
        // A socket stays of the namespace that it was opened in.
        process::join_namespace(namespace.as_fd(), libc::CLONE_NEWNET).map_err(io)?;
        let inside = RouteSocket::open();
        process::join_namespace(home.as_fd(), libc::CLONE_NEWNET).map_err(io)?;
        Ok(Self {
            host,
            home,
            inside: inside.map_err(io)?,
            namespace,
            devices: Vec::new(),
        })
    }

    fn one(&mut self, name: &str, wanted: &str) -> Result<(), Failure> {
        let doing = || format!("moving linux.netDevices {name:?} into the container");
        let refused =
            |error: NetlinkError| Failure::new(FailureCode::System, doing(), error.to_string());
        let was = find(&mut self.host, name)
            .map_err(refused)?
            .ok_or_else(|| {
                Failure::new(
                    FailureCode::NotFound,
                    doing(),
                    format!("link not found for interface {name} on the host"),
                )
            })?;
        let addresses = addresses(&mut self.host, was.index).map_err(refused)?;
        let there = link::all(&mut self.inside).map_err(refused)?;
        let there = there.into_iter().map(|link| link.name).collect();
        // Asked before, as the kernel would first move it, and then refuse the name.
        let free = free_name(wanted, &there).ok_or_else(|| {
            Failure::new(
                FailureCode::AlreadyExists,
                doing(),
                format!("the name {wanted:?} is taken in the container's network namespace"),
            )
        })?;
        let move_it = change_namespace(was.index, &free, &self.namespace);
        let outcome = self.host.request(&move_it);
        let mut device = Device {
            was,
            addresses,
            name: free,
        };
        if let Err(error) = outcome {
            if let Ok(None) = link::find(&mut self.host, name) {
                name.clone_into(&mut device.name);
                self.devices.push(device);
            }
            return Err(refused(error));
        }
        let settled = settle(&mut self.inside, &device.name, &device.addresses, true);
        self.devices.push(device);
        settled.map_err(refused)
    }

    /// Gives the devices back to the host, as they were. One that will not go stays where it is: its namespace gives it back or ends it
    /// (config-linux.md "Namespace Lifecycle and Container Termination").
    pub(crate) fn back(mut self) {
        for device in self.devices.iter().rev() {
            let Ok(Some(link)) = find(&mut self.inside, &device.name) else {
                continue;
            };
            let request = change_namespace(link.index, &device.was.name, &self.home);
            if self.inside.request(&request).is_ok() {
                // Best effort: the failure that led here is the one to tell.
                drop(settle(
                    &mut self.host,
                    &device.was.name,
                    &device.addresses,
                    device.was.up,
                ));
            }
        }
    }
}

/// The link of this very name; the kernel also finds alternative ones.
fn find(socket: &mut RouteSocket, name: &str) -> Result<Option<Link>, NetlinkError> {
    Ok(link::find(socket, name)?.filter(|link| link.name == name))
}

fn addresses(socket: &mut RouteSocket, index: u32) -> Result<Vec<Address>, NetlinkError> {
    let all = Message::new(nl::RTM_GETADDR, 0, &[0; 8]);
    let bodies = socket.dump(&all)?;
    Ok(bodies
        .iter()
        .filter_map(|body| Address::read(body, index))
        .collect())
}

/// Moves a link into a namespace and renames it, in one request.
fn change_namespace(index: u32, name: &str, namespace: &OwnedFd) -> Message {
    Message::new(nl::RTM_NEWLINK, 0, &link_fixed(nl::AF_UNSPEC, index, 0, 0))
        .string(nl::IFLA_IFNAME, name)
        .u32(nl::IFLA_NET_NS_FD, namespace.as_raw_fd().cast_unsigned())
}

/// Gives a link that has moved its addresses again, and sets it up.
fn settle(
    socket: &mut RouteSocket,
    name: &str,
    addresses: &[Address],
    up: bool,
) -> Result<(), NetlinkError> {
    let index = link::find(socket, name)?.map_or(0, |link| link.index);
    for address in addresses {
        socket.request(&address.request(index))?;
    }
    if up {
        socket.request(&link::change(index))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices(names: &[(&str, &str)]) -> BTreeMap<String, NetDevice> {
        let device = |name: &str| NetDevice { name: name.into() };
        names
            .iter()
            .map(|(host, inside)| ((*host).to_owned(), device(inside)))
            .collect()
    }

    #[test]
    fn validate_refuses_names_that_the_kernel_would_not_take() {
        validate(&devices(&[
            ("eth0", ""),
            ("eth1", "net%d"),
            ("eth2", "net%d"),
            ("a-b.c@d", "exactly15bytes_"),
        ]))
        .expect("good names");
        for (host, inside) in [
            ("", ""),
            ("sixteen_bytes_16", ""),
            ("a/b", ""),
            ("a:b", ""),
            ("a b", ""),
            ("a\u{b}b", ""),
            (".", ""),
            ("..", ""),
            ("eth%d", ""),
            ("eth0", "a/b"),
            ("eth0", "a%"),
            ("eth0", "%d%d"),
            ("eth0", "%s"),
            ("eth0", "a\0"),
        ] {
            let failure = validate(&devices(&[(host, inside)])).expect_err(inside);
            assert!(failure.doing.contains("linux.netDevices"), "{failure}");
            let told = if inside.is_empty() { host } else { inside };
            assert!(failure.message.contains(&format!("{told:?}")), "{failure}");
            assert_eq!(failure.to_string().lines().count(), 1, "{failure}");
        }
        let twice = devices(&[("eth0", "a"), ("eth1", "a")]);
        assert!(validate(&twice).is_err());
        assert!(validate(&devices(&[("a", ""), ("b", "a")])).is_err());
    }

    #[test]
    fn a_template_takes_the_lowest_number_that_is_free() {
        let there = ["lo", "eth0", "eth2"].map(str::to_owned).into();
        assert_eq!(free_name("eth1", &there).as_deref(), Some("eth1"));
        assert_eq!(free_name("eth%d", &there).as_deref(), Some("eth1"));
        assert_eq!(free_name("x%dy", &there).as_deref(), Some("x0y"));
        assert_eq!(free_name("eth0", &there), None);
        let full = (0..10)
            .map(|number| format!("fourteen_bytes{number}"))
            .collect();
        assert_eq!(free_name("fourteen_bytes%d", &full), None);
    }

    #[test]
    fn only_permanent_addresses_of_global_scope_are_kept() {
        let body = |scope: u8, flags: u8, index: u8| {
            let mut body = vec![nl::AF_INET, 24, flags, scope, index, 0, 0, 0];
            body.extend([8, 0, 2, 0, 10, 1, 2, 3]);
            body
        };
        let read = Address::read(&body(0, 0x80, 7), 7).expect("an address");
        assert_eq!(read.attributes, [(nl::IFA_LOCAL, vec![10, 1, 2, 3])]);
        assert_eq!((read.prefix_length, read.flags), (24, 0));
        for other in [body(254, 0x80, 7), body(0, 0, 7), body(0, 0x80, 8)] {
            assert_eq!(Address::read(&other, 7), None);
        }
        assert_eq!(Address::read(&[2, 24, 0x80], 7), None);
    }
}
