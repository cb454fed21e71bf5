//! The resolver on real namespaces: containers ask at 127.0.0.11, name servers answer in the host's.

mod common;

use common::{World, busybox, can_run, inside, run};
use serde_json::{Value, json};
use shoal_net::NetHandler;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const A: u16 = 1;
const AAAA: u16 = 28;

fn question(name: &str, kind: u16) -> Vec<u8> {
    let mut packet = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        packet.push(label.len() as u8);
        packet.extend(label.bytes());
    }
    packet.push(0);
    packet.extend(kind.to_be_bytes());
    packet.extend([0, 1]);
    packet
}

/// Sends a packet from inside a container over UDP.
fn udp(container: &Path, packet: &[u8]) -> io::Result<Vec<u8>> {
    inside(container, || {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_read_timeout(Some(Duration::from_secs(6)))?;
        socket.connect("127.0.0.11:53")?;
        socket.send(packet)?;
        let mut buffer = vec![0; 65535];
        Ok(socket.recv(&mut buffer).map(|got| buffer[..got].to_vec()))
    })
}

fn frame(packet: &[u8]) -> Vec<u8> {
    let mut bytes = (packet.len() as u16).to_be_bytes().to_vec();
    bytes.extend(packet);
    bytes
}

fn read_frame(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    Ok(message)
}

/// Asks all questions on one TCP connection and gives the answers.
fn tcp(container: &Path, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    inside(container, || {
        let mut stream = TcpStream::connect("127.0.0.11:53")?;
        stream.set_read_timeout(Some(Duration::from_secs(6)))?;
        // One byte at first: a question may come in pieces.
        let all: Vec<u8> = packets.iter().flat_map(|packet| frame(packet)).collect();
        stream.write_all(&all[..1])?;
        stream.write_all(&all[1..])?;
        stream.shutdown(std::net::Shutdown::Write)?;
        packets.iter().map(|_| read_frame(&mut stream)).collect()
    })
}

/// The answer code, whether it was cut, and the addresses.
fn told(answer: &[u8]) -> (u8, bool, Vec<Ipv4Addr>) {
    let count = usize::from(u16::from_be_bytes([answer[6], answer[7]]));
    let question = 12 + answer[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
    let addresses = (0..count).map(|index| {
        let at = question + index * 16 + 12;
        Ipv4Addr::new(answer[at], answer[at + 1], answer[at + 2], answer[at + 3])
    });
    let mut addresses: Vec<_> = addresses.collect();
    addresses.sort();
    (answer[3] & 0xf, answer[2] & 2 != 0, addresses)
}

fn ask(container: &Path, name: &str, kind: u16) -> (u8, bool, Vec<Ipv4Addr>) {
    told(&udp(container, &question(name, kind)).unwrap())
}

fn put(handler: &NetHandler, zones: Value, clients: Value) {
    handler
        .resolver(
            &json!({"zones": zones, "clients": clients, "removeZones": [], "removeClients": []}),
        )
        .unwrap();
}

fn zone(revision: u32, web: &[&str]) -> Value {
    let many: Vec<String> = (1..=100).map(|last| format!("10.0.9.{last}")).collect();
    json!([{"networkId": "n1", "networkName": "front", "revision": revision, "records": [
        {"name": "web", "addresses": web, "ttlSeconds": 5}, {"name": "tasks.many", "addresses": many, "ttlSeconds": 0},
    ]}])
}

fn client(id: &str, upstreams: &[&str]) -> Value {
    json!([{"containerId": id, "networkIds": ["n1"], "upstreams": upstreams}])
}

/// A name server in the host's namespace that knows every name as 192.0.2.7, by UDP and TCP.
struct NameServer {
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl NameServer {
    fn start(host: &Path, at: &str) -> Self {
        fn known(packet: &[u8]) -> Vec<u8> {
            let mut answer = packet.to_vec();
            answer[2] |= 0x80;
            answer[7] = 1;
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 7]);
            answer
        }
        let (socket, listener) =
            inside(host, || Ok((UdpSocket::bind(at)?, TcpListener::bind(at)?)));
        socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        listener.set_nonblocking(true).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let by_udp = thread::spawn(move || {
            let mut buffer = [0; 4096];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((got, peer)) = socket.recv_from(&mut buffer) {
                    // First a forgery: another id. It must not be taken for the answer.
                    let mut forged = known(&buffer[..got]);
                    forged[0] ^= 1;
                    socket.send_to(&forged, peer).unwrap();
                    socket.send_to(&known(&buffer[..got]), peer).unwrap();
                }
            }
        });
        let stopped = Arc::clone(&stop);
        let by_tcp = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((mut stream, _)) => {
                        stream.set_nonblocking(false).unwrap();
                        let packet = read_frame(&mut stream).unwrap();
                        stream.write_all(&frame(&known(&packet))).unwrap();
                    }
                    Err(_) => thread::sleep(Duration::from_millis(10)),
                }
            }
        });
        Self {
            stop,
            threads: vec![by_udp, by_tcp],
        }
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            assert!(
                thread.join().is_ok() || thread::panicking(),
                "the name server works"
            );
        }
    }
}

#[test]
fn containers_are_answered_across_restarts() {
    if !can_run("containers_are_answered_across_restarts") {
        return;
    }
    let mut world = World::new();
    let (h1, _) = world.two_hosts();
    let (c1, c2) = (world.namespace("c1"), world.namespace("c2"));
    let handler = world.handler(&h1, "h1");
    put(
        &handler,
        zone(2, &["10.0.9.2", "10.0.9.3"]),
        client("c1", &[]),
    );
    let web = vec![Ipv4Addr::new(10, 0, 9, 2), Ipv4Addr::new(10, 0, 9, 3)];
    assert_eq!(ask(&c1, "web", A), (0, false, web.clone()));
    assert_eq!(ask(&c1, "WEB.Front", A), (0, false, web.clone()));
    assert_eq!(ask(&c1, "web", AAAA), (0, false, vec![]));
    assert_eq!(ask(&c1, "nobody", A), (3, false, vec![]));
    let (code, cut, some) = ask(&c1, "tasks.many", A);
    assert_eq!(
        (code, cut, (29..100).contains(&some.len())),
        (0, true, true),
        "{}",
        some.len()
    );
    let answers = tcp(
        &c1,
        &[
            question("tasks.many", A),
            question("web", A),
            question("nobody", A),
        ],
    );
    assert_eq!(
        answers
            .iter()
            .map(|answer| told(answer).2.len())
            .collect::<Vec<_>>(),
        [100, 2, 0]
    );
    let garbage = udp(&c1, &[1, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 99]).unwrap();
    assert_eq!((garbage.len(), garbage[3] & 0xf), (12, 1));
    let lookup = busybox(&c1, &["nslookup", "web", "127.0.0.11"]);
    assert!(
        String::from_utf8_lossy(&lookup.stdout).contains("10.0.9.3"),
        "{lookup:?}"
    );

    // A container that starts after it was announced.
    put(&handler, json!([]), client("late", &[]));
    run(
        "ip",
        &["-n", &world.full_name("c2"), "link", "set", "lo", "up"],
    );
    assert!(udp(&c2, &question("web", A)).is_err(), "not a client");
    let late = world.namespace("late");
    handler.container_started("late");
    assert_eq!(ask(&late, "web", A).2, web);

    // A newer revision, then an older one that comes late.
    put(&handler, zone(4, &["10.0.9.9"]), json!([]));
    put(&handler, zone(3, &["10.0.9.8"]), json!([]));
    assert_eq!(ask(&c1, "web", A).2, [Ipv4Addr::new(10, 0, 9, 9)]);

    // The core is killed and started again: nobody needs to tell it anything.
    drop(handler);
    assert!(
        udp(&c1, &question("web", A)).is_err(),
        "nobody answers meanwhile"
    );
    let handler = world.handler(&h1, "h1");
    assert_eq!(ask(&c1, "web", A).2, [Ipv4Addr::new(10, 0, 9, 9)]);
    handler.container_started("c1");
    assert_eq!(ask(&late, "web", A).2, [Ipv4Addr::new(10, 0, 9, 9)]);

    handler.container_removed("late");
    handler
        .resolver(&json!({"zones": [], "clients": [], "removeZones": ["n1"], "removeClients": []}))
        .unwrap();
    assert_eq!(ask(&c1, "web", A).0, 3);
    let saved = std::fs::read_to_string(world.directory("h1-state").join("resolver.json")).unwrap();
    assert!(
        saved.contains("\"c1\"")
            && !saved.contains("late")
            && !saved.contains("n1\",\"networkName"),
        "{saved}"
    );

    // A file cut short is set aside.
    drop(handler);
    std::fs::write(
        world.directory("h1-state").join("resolver.json"),
        &saved[..saved.len() / 2],
    )
    .unwrap();
    let handler = world.handler(&h1, "h1");
    assert!(
        world
            .directory("h1-state")
            .join("resolver.json.unreadable")
            .exists()
    );
    put(&handler, zone(1, &["10.0.9.1"]), client("c1", &[]));
    assert_eq!(ask(&c1, "web", A).2, [Ipv4Addr::new(10, 0, 9, 1)]);
    let wrong = handler.resolver(&json!({"zones": [], "clients": [{"containerId": "c1", "networkIds": [], "upstreams": ["x"]}], "removeZones": [], "removeClients": []}));
    assert_eq!(
        wrong.unwrap_err().code,
        shoal_protocol::FailureCode::Invalid
    );
    assert!(handler.resolver(&json!({"zones": []})).is_err());
}

#[test]
fn other_names_are_asked_of_the_hosts_servers() {
    if !can_run("other_names_are_asked_of_the_hosts_servers") {
        return;
    }
    let mut world = World::new();
    let (h1, _) = world.two_hosts();
    let (c1, c2) = (world.namespace("c1"), world.namespace("c2"));
    let _server = NameServer::start(&h1, "10.77.0.1:5353");
    let _silent = inside(&h1, || UdpSocket::bind("10.77.0.1:5354"));
    let handler = world.handler(&h1, "h1");
    // The first server is not there: its refusal makes the next one be asked at once.
    put(
        &handler,
        zone(1, &["10.0.9.2"]),
        client("c1", &["10.77.0.1:5999", "10.77.0.1:5353"]),
    );
    put(&handler, json!([]), client("c2", &["10.77.0.1:5354"]));
    let foreign = vec![Ipv4Addr::new(192, 0, 2, 7)];
    let start = Instant::now();
    for _ in 0..50 {
        assert_eq!(ask(&c1, "example.org", A), (0, false, foreign.clone()));
    }
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(
        ask(&c1, "web", A).2,
        [Ipv4Addr::new(10, 0, 9, 2)],
        "own names are not asked"
    );
    let answers = tcp(&c1, &[question("example.org", A)]);
    assert_eq!(told(&answers[0]).2, foreign);
    let answer = udp(&c1, &question("example.org", A)).unwrap();
    assert_eq!(&answer[..2], &[0xab, 0xcd], "the client's own id");
    // A server that does not answer: the client is told within the time that it waits, and nobody else waits with it.
    let start = Instant::now();
    let c2 = &c2;
    thread::scope(|scope| {
        let slow = scope.spawn(move || ask(c2, "example.org", A));
        assert_eq!(ask(c2, "web", A).2, [Ipv4Addr::new(10, 0, 9, 2)]);
        assert!(start.elapsed() < Duration::from_secs(2));
        assert_eq!(slow.join().unwrap(), (2, false, vec![]));
    });
    assert!(
        (Duration::from_secs(3)..Duration::from_secs(5)).contains(&start.elapsed()),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn many_questions_at_once() {
    if !can_run("many_questions_at_once") {
        return;
    }
    let mut world = World::new();
    let (h1, _) = world.two_hosts();
    let containers: Vec<_> = (0..8)
        .map(|number| world.namespace(&format!("c{number}")))
        .collect();
    let handler = world.handler(&h1, "h1");
    put(&handler, zone(1, &["10.0.9.2"]), json!([]));
    for number in 0..containers.len() {
        put(&handler, json!([]), client(&format!("c{number}"), &[]));
    }
    let start = Instant::now();
    thread::scope(|scope| {
        for container in &containers {
            scope.spawn(move || {
                let packet = question("web", A);
                inside(container, || {
                    let socket = UdpSocket::bind("127.0.0.1:0")?;
                    socket.connect("127.0.0.11:53")?;
                    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
                    let mut buffer = [0; 512];
                    for _ in 0..1000 {
                        socket.send(&packet)?;
                        let got = socket.recv(&mut buffer)?;
                        assert_eq!(told(&buffer[..got]).0, 0);
                    }
                    Ok(())
                });
            });
        }
    });
    eprintln!("8 containers, 8,000 questions: {:?}", start.elapsed());
    // More connections than one may have: those over the limit are closed, the others work.
    inside(&containers[0], || {
        let mut streams = (0..40)
            .map(|_| TcpStream::connect("127.0.0.11:53"))
            .collect::<io::Result<Vec<_>>>()?;
        let mut served = 0;
        for stream in &mut streams {
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            served += usize::from(
                stream.write_all(&frame(&question("web", A))).is_ok() && read_frame(stream).is_ok(),
            );
        }
        assert_eq!(served, 32);
        Ok(())
    });
}
