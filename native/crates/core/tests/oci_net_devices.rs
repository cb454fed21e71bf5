//! The OCI command line: network interfaces of the host that move into a container (linux.netDevices).

mod bundle;

use bundle::{Bundle, possible};
use serde_json::{Value, json};
use shoal_net::link;
use shoal_net::netlink::constants as nl;
use shoal_net::netlink::message::{Message, link_fixed};
use shoal_net::netlink::socket::RouteSocket;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};

static NEXT: AtomicU32 = AtomicU32::new(0);
const MAC: [u8; 6] = [2, 0x11, 0x22, 0x33, 0x44, 0x55];
const MTU: u32 = 1789;

/// A pair of interfaces in this network namespace; the first one is for the container. This kernel has no dummy ones.
struct Veth {
    host: String,
    peer: String,
    socket: RouteSocket,
}

impl Veth {
    /// Up, with an address of each family that is known everywhere and one that is the host's alone.
    fn new() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = |end| format!("sh{}{end}{number}", std::process::id());
        let (host, peer) = (name("a"), name("b"));
        let mut socket = RouteSocket::open().expect("a netlink socket");
        let fixed = link_fixed(nl::AF_UNSPEC, 0, 0, 0);
        let make = Message::new(nl::RTM_NEWLINK, nl::NLM_F_CREATE | nl::NLM_F_EXCL, &fixed)
            .string(nl::IFLA_IFNAME, &host)
            .attribute(nl::IFLA_ADDRESS, &MAC)
            .u32(nl::IFLA_MTU, MTU)
            .nest(nl::IFLA_LINKINFO, |info| {
                info.string(nl::IFLA_INFO_KIND, "veth")
                    .nest(nl::IFLA_INFO_DATA, |data| {
                        data.nest(nl::VETH_INFO_PEER, |other| {
                            other.raw(&fixed).string(nl::IFLA_IFNAME, &peer)
                        })
                    })
            });
        socket.request(&make).expect("a pair of interfaces");
        let mut veth = Self { host, peer, socket };
        let index = veth.find().expect("the interface").index;
        veth.socket.request(&link::change(index)).expect("up");
        // 192.0.2.7/24, 2001:db8::7/64 and, of the host's own scope, 192.0.2.9/32.
        let v6 = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
        for (family, prefix, scope, bytes) in [
            (nl::AF_INET, 24, 0, &[192, 0, 2, 7][..]),
            (nl::AF_INET6, 64, 0, &v6[..]),
            (nl::AF_INET, 32, 254, &[192, 0, 2, 9][..]),
        ] {
            let mut fixed = [family, prefix, 0, scope, 0, 0, 0, 0];
            fixed[4..].copy_from_slice(&index.to_ne_bytes());
            let add = Message::new(nl::RTM_NEWADDR, nl::NLM_F_CREATE, &fixed)
                .attribute(nl::IFA_LOCAL, bytes)
                .attribute(nl::IFA_ADDRESS, bytes);
            veth.socket.request(&add).expect("an address");
        }
        veth
    }

    /// The first interface, where it is still in this namespace.
    fn find(&mut self) -> Option<link::Link> {
        link::find(&mut self.socket, &self.host).expect("asked")
    }
}

impl Drop for Veth {
    fn drop(&mut self) {
        // The other end goes with it; either may be gone with a namespace.
        for name in [&self.host, &self.peer] {
            if let Ok(Some(link)) = link::find(&mut self.socket, name) {
                drop(link::remove(&mut self.socket, link.index));
            }
        }
    }
}

/// A network namespace that is there before the container.
struct Netns(Child);

impl Netns {
    fn new() -> Self {
        let mut command = Command::new("/usr/bin/busybox");
        // SAFETY: one system call on plain data between fork and exec.
        unsafe {
            command.pre_exec(|| match libc::unshare(libc::CLONE_NEWNET) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        Self(command.args(["sleep", "1000"]).spawn().expect("a holder"))
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A bundle that shows the interface `inside` of its container.
fn showing(veth: &Veth, name: &str, inside: &str) -> Bundle {
    let mut bundle = Bundle::script(&format!("busybox ip address show dev {inside}"));
    bundle.config["linux"]["netDevices"] = json!({veth.host.as_str(): {"name": name}});
    bundle
}

fn join(bundle: &mut Bundle, path: &str) {
    for namespace in bundle.config["linux"]["namespaces"]
        .as_array_mut()
        .expect("a list")
    {
        if namespace["type"] == "network" {
            namespace["path"] = json!(path);
        }
    }
}

fn assert_kept(out: &str) {
    for kept in [
        "02:11:22:33:44:55",
        "mtu 1789",
        "192.0.2.7/24",
        "2001:db8::7/64",
        "UP",
    ] {
        assert!(out.contains(kept), "{kept} is kept: {out}");
    }
    assert!(!out.contains("192.0.2.9"), "the host's own address: {out}");
}

#[test]
fn a_device_moves_with_its_addresses_and_is_up_inside() {
    if !possible() {
        return;
    }
    for (name, inside) in [("", ""), ("ctr0", "ctr0"), ("net%d", "net0")] {
        let mut veth = Veth::new();
        let host = veth.host.clone();
        let inside = if inside.is_empty() { &host } else { inside };
        let mut bundle = showing(&veth, name, inside);
        let seen = bundle.dir.join("seen");
        // The hooks of the host come after it.
        bundle.config["hooks"] = json!({"createRuntime": [{"path": "/bin/sh", "args":
            ["sh", "-c", format!("test ! -e /sys/class/net/{host} && touch {}", seen.display())]}]});
        bundle.write();
        let said = bundle.say(&["run", &bundle.id]);
        assert_eq!(said.code, 0, "{said:?}");
        assert_kept(&said.out);
        assert!(seen.exists(), "the hook has run when it was gone");
        bundle.assert_nothing_left(&bundle.id);
        // Nobody else has the namespace: a virtual device ends with it.
        bundle::eventually("the device is gone", || veth.find().is_none());
    }
}

#[test]
fn a_device_stays_in_a_namespace_that_was_there_before() {
    if !possible() {
        return;
    }
    let (mut veth, netns) = (Veth::new(), Netns::new());
    let mut bundle = showing(&veth, "ctr0", "ctr0");
    join(&mut bundle, &netns.path());
    bundle.write();
    let said = bundle.say(&["run", &bundle.id]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_kept(&said.out);
    bundle.assert_nothing_left(&bundle.id);
    assert!(veth.find().is_none(), "it is not the host's any more");
    // And a second one of that name is refused before it moves.
    let mut second = Veth::new();
    let mut bundle = showing(&second, "ctr0", "ctr0");
    join(&mut bundle, &netns.path());
    bundle.write();
    let said = bundle.say(&["run", &bundle.id]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("\"ctr0\" is taken"), "{said:?}");
    assert!(second.find().is_some_and(|link| link.up), "untouched");
    bundle.assert_nothing_left(&bundle.id);
}

#[test]
fn a_device_moves_into_a_user_namespace_too() {
    if !possible() {
        return;
    }
    let veth = Veth::new();
    let mut bundle = showing(&veth, "ctr0", "ctr0");
    let namespaces = bundle.config["linux"]["namespaces"].as_array_mut();
    namespaces.expect("a list").push(json!({"type": "user"}));
    for field in ["uidMappings", "gidMappings"] {
        bundle.config["linux"][field] = json!([{"containerID": 0, "hostID": 0, "size": 65536}]);
    }
    bundle.write();
    let said = bundle.say(&["run", &bundle.id]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_kept(&said.out);
    bundle.assert_nothing_left(&bundle.id);
}

#[test]
fn a_creation_that_fails_gives_its_devices_back() {
    if !possible() {
        return;
    }
    let (mut first, mut second) = (Veth::new(), Veth::new());
    type Case = (&'static str, fn(&mut Value));
    let fails: [Case; 2] = [
        ("hook", |config| {
            config["hooks"] = json!({"createRuntime": [{"path": "/bin/false"}]});
        }),
        ("zzz-none", |config| {
            config["linux"]["netDevices"]["zzz-none"] = json!({});
        }),
    ];
    for (word, fail) in fails {
        let mut bundle = showing(&first, "ctr0", "ctr0");
        bundle.config["linux"]["netDevices"][second.host.as_str()] = json!({});
        fail(&mut bundle.config);
        bundle.write();
        let said = bundle.say(&["run", &bundle.id]);
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.err.contains(word), "{word}: {said:?}");
        for veth in [&mut first, &mut second] {
            let link = veth.find().expect("it is the host's again");
            assert!(link.up && link.mtu == MTU, "{link:?}");
            let addresses = link::addresses(&mut veth.socket, link.index).expect("addresses");
            let texts: Vec<String> = addresses
                .iter()
                .map(|cidr| cidr.address.to_string())
                .collect();
            assert_eq!(texts, ["192.0.2.7"], "with its addresses");
        }
        bundle.assert_nothing_left(&bundle.id);
    }
}

#[test]
fn what_cannot_be_is_refused_in_one_line_that_names_the_field() {
    if !possible() {
        return;
    }
    let mut veth = Veth::new();
    type Case = (&'static str, fn(&mut Bundle));
    let cases: [Case; 4] = [
        ("without a NET namespace", |bundle| {
            bundle.config["linux"]["namespaces"] = json!([{"type": "pid"}, {"type": "mount"}]);
        }),
        ("without a NET namespace", |bundle| {
            join(bundle, "/proc/self/ns/net")
        }),
        ("invalid network device name \"a/b\"", |bundle| {
            bundle.config["linux"]["netDevices"] = json!({"eth0": {"name": "a/b"}});
        }),
        ("\"lo\"", |bundle| {
            bundle.config["linux"]["netDevices"] = json!({"lo": {"name": "lo7"}});
        }),
    ];
    for (word, change) in cases {
        let mut bundle = showing(&veth, "", "lo");
        change(&mut bundle);
        bundle.write();
        let said = bundle.say(&["run", &bundle.id]);
        assert_eq!(said.code, 1, "{word}: {said:?}");
        assert!(
            said.err.contains(word) && said.err.contains("linux.netDevices"),
            "{word}: {said:?}"
        );
        assert_eq!(said.err.trim().lines().count(), 1, "{said:?}");
        assert!(veth.find().is_some_and(|link| link.up), "untouched");
        bundle.assert_nothing_left(&bundle.id);
    }
}
