//! What the socket takes and refuses, and `shoal-core init`.

mod support;

use serde_json::json;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use support::{Client, Core, possible};

#[test]
fn a_connection_says_hello_first_in_our_version() {
    if !possible() {
        return;
    }
    let core = Core::start();
    assert_eq!(
        std::fs::metadata(core.socket())
            .expect("socket")
            .permissions()
            .mode()
            & 0o777,
        0o600
    );
    let mut client = Client::connect(&core.socket());
    assert_eq!(client.fails(json!({"call": "list"}))["code"], "conflict");
    assert_eq!(
        client.fails(json!({"call": "hello", "version": 99}))["code"],
        "invalid"
    );
    assert_eq!(client.fails(json!({"call": "hello"}))["code"], "invalid");
    let hello = client.ok(json!({"call": "hello", "version": 1}));
    assert_eq!(
        (&hello["version"], &hello["pid"]),
        (&json!(1), &json!(core.child.id()))
    );
    assert!(["v1", "hybrid", "v2"].contains(&hello["cgroup"].as_str().expect("cgroup")));
    assert_eq!(client.fails(json!({"call": "dance"}))["code"], "invalid");
    assert_eq!(client.fails(json!({"call": "start"}))["code"], "invalid");
    assert_eq!(
        client.fails(json!({"call": "start", "containerId": "nope"}))["code"],
        "not-found"
    );
    assert_eq!(
        client.ok(json!({"call": "list"})),
        json!({"containers": []})
    );
}

#[test]
fn a_broken_frame_ends_its_connection_and_no_other() {
    if !possible() {
        return;
    }
    let core = Core::start();
    let mut good = core.client();
    for bytes in [
        &b"\xff\xff\xff\xff"[..],
        b"\0\0\0\x03abc",
        b"\0\0\0\x02[]",
        b"\0\0",
    ] {
        let mut stream = std::os::unix::net::UnixStream::connect(core.socket()).expect("connect");
        stream.write_all(bytes).expect("sent");
        stream.shutdown(std::net::Shutdown::Write).expect("shut");
        let mut rest = Vec::new();
        std::io::Read::read_to_end(&mut stream, &mut rest).expect("closed");
        assert!(rest.is_empty());
    }
    good.ok(json!({"call": "list"}));
}

#[test]
fn a_second_core_on_the_same_root_is_refused() {
    if !possible() {
        return;
    }
    let core = Core::start();
    let output = Command::new(support::binary())
        .args(["serve", "--root"])
        .arg(core.dir.join("core"))
        .arg("--socket")
        .arg(core.dir.join("other.sock"))
        .output()
        .expect("runs");
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("another shoal-core serves it"), "{text}");
    core.client().ok(json!({"call": "list"}));
}

#[test]
fn shutdown_leaves_containers_to_the_next_core() {
    if !possible() {
        return;
    }
    let mut core = Core::start();
    let mut client = core.client();
    client.ok(core.create("a", &["sleep", "100"]));
    client.by_id("start", "a");
    client.ok(json!({"call": "shutdown"}));
    assert_eq!(core.child.wait().expect("end").code(), Some(0));
    core.restart();
    let mut client = core.client();
    assert_eq!(client.by_id("state", "a")["status"], "running");
    client.delete("a");
    core.expect_clean();
    // With nothing left, the parent group goes too.
    client.ok(json!({"call": "shutdown"}));
    core.child.wait().expect("end");
    assert!(!core.cgroup_file("memory", "..", "cgroup.procs").exists());
}

#[test]
fn init_gives_the_commands_status_and_reaps_orphans() {
    for (script, want) in [
        ("exit 7", 7),
        ("kill -TERM $$", 143),
        ("(sleep 0.05 &) ; exit 3", 3),
    ] {
        let status = Command::new(support::binary())
            .args(["init", "--", "/bin/sh", "-c", script])
            .status()
            .expect("runs");
        assert_eq!(status.code(), Some(want), "{script}");
    }
    let missing = Command::new(support::binary())
        .args(["init", "--", "/nonexistent"])
        .stderr(Stdio::null())
        .status()
        .expect("runs");
    assert_eq!(missing.code(), Some(127));
}

#[test]
fn init_forwards_sigterm_and_with_keep_outlives_its_command() {
    if !possible() {
        return;
    }
    let term = |pid: u32| {
        let pid = i32::try_from(pid).expect("pid");
        // SAFETY: kill takes no pointer; the process is this test's child.
        let killed = unsafe { libc::kill(pid, libc::SIGTERM) };
        assert_eq!(killed, 0);
    };
    let start = |args: &[&str]| {
        let mut child = Command::new(support::binary())
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .expect("runs");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped"))
            .read_line(&mut line)
            .expect("a line");
        assert_eq!(line, "up\n");
        child
    };
    let mut child = start(&[
        "init",
        "--",
        "/bin/sh",
        "-c",
        "trap 'exit 9' TERM; echo up; while :; do sleep 0.05; done",
    ]);
    term(child.id());
    assert_eq!(child.wait().expect("end").code(), Some(9));

    let mut child = start(&["init", "--keep", "--", "/bin/sh", "-c", "echo up; exit 4"]);
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert!(child.try_wait().expect("status").is_none(), "--keep stays");
    term(child.id());
    assert_eq!(child.wait().expect("end").code(), Some(4));
}

#[test]
fn init_with_restart_starts_the_command_again_until_it_is_told_to_stop() {
    let mut child = Command::new(support::binary())
        .args(["init", "--restart", "--", "/bin/sh", "-c"])
        .arg("echo up; sleep 0.05; exit 4")
        .stdout(Stdio::piped())
        .spawn()
        .expect("runs");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    for _ in 0..3 {
        assert_eq!(lines.next().expect("a line").expect("utf-8"), "up");
    }
    let pid = i32::try_from(child.id()).expect("pid");
    // SAFETY: kill takes no pointer; the process is this test's child.
    let killed = unsafe { libc::kill(pid, libc::SIGTERM) };
    assert_eq!(killed, 0);
    assert!(child.wait().expect("end").code().is_some());
}

/// Names of all fields, at every depth; what a list holds is told by its first.
fn shape(value: &serde_json::Value, at: &str, into: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, field) in fields {
                into.push(format!("{at}.{name}"));
                shape(field, &format!("{at}.{name}"), into);
            }
        }
        serde_json::Value::Array(items) => {
            if let Some(first) = items.first() {
                shape(first, &format!("{at}[]"), into);
            }
        }
        _ => {}
    }
}

/// What the core really answers has the fields of native/testdata/replies.json, which the TypeScript half is checked by.
#[test]
fn every_answer_has_the_shape_of_the_shared_fixture() {
    if !possible() {
        return;
    }
    let core = Core::start();
    let mut client = core.client();
    let mut create = core.create("a", &["sh", "-c", "exit 3"]);
    let archive = core.dir.join("layer.tar");
    let packed = Command::new("tar")
        .arg("-cf")
        .arg(&archive)
        .arg("-C")
        .arg(core.dir.join("layer"))
        .arg("etc")
        .status();
    assert!(packed.is_ok_and(|status| status.success()));
    create["id"] = json!(2);
    let text = include_str!("../../../testdata/replies.json");
    let replies: Vec<serde_json::Value> = serde_json::from_str(text).expect("fixture");
    let wanted = |id: u64| {
        let reply = replies
            .iter()
            .find(|reply| reply["id"] == id && reply["ok"] == true)
            .expect("a fixture of this call");
        reply["value"].clone()
    };
    let by_id = |call: &str| json!({"call": call, "containerId": "a"});
    let unpack = json!({"call": "unpack", "archive": archive, "diffId": null, "destination": core.dir.join("unpacked")});
    let network = json!({"call": "network", "ops": [{"op": "sandbox-remove", "sandbox": "none"}, {"op": "bridge-add", "sandbox": "none", "address": "10.9.0.1/24", "mtu": 1450}]});
    let resolver = json!({"call": "resolver", "zones": [], "clients": [], "removeZones": [], "removeClients": []});
    let calls = [
        (1, json!({"call": "hello", "version": 1})),
        (2, create),
        (8, by_id("pids")),
        (3, by_id("start")),
        (7, json!({"call": "list"})),
        (9, network),
        (10, json!({"call": "network-dump"})),
        (11, resolver),
        (12, unpack),
    ];
    let mut check = |id: u64, request: serde_json::Value| {
        let value = client.ok(request.clone());
        let (mut got, mut want) = (Vec::new(), Vec::new());
        shape(&value, "", &mut got);
        shape(&wanted(id), "", &mut want);
        // What is null or empty here has no fields to compare below it.
        let missing: Vec<&String> = want
            .iter()
            .filter(|field| !got.contains(field) && field.matches(['.', '[']).count() == 1)
            .collect();
        let unknown: Vec<&String> = got.iter().filter(|field| !want.contains(field)).collect();
        let exit = |field: &&String| !field.contains(".exit.");
        let unknown: Vec<&String> = unknown.into_iter().filter(exit).collect();
        assert!(
            missing.is_empty() && unknown.is_empty(),
            "{request}: missing {missing:?}, unknown {unknown:?} in {value}"
        );
        if id == 1 {
            let version = concat!("shoal-core ", env!("CARGO_PKG_VERSION"));
            assert_eq!(
                (&value["binary"], value["cgroup"].is_string()),
                (&json!(version), true)
            );
        }
    };
    for (id, request) in calls {
        check(id, request);
    }
    let mut listener = core.client();
    assert_eq!(listener.exit("a")["exitCode"], 3);
    check(6, by_id("state"));
    check(
        5,
        json!({"call": "delete", "containerId": "a", "force": false}),
    );
    let mut run = core.create("a", &["true"]);
    run["call"] = json!("run");
    check(27, run);
    client.delete("a");
    core.expect_clean();
}
