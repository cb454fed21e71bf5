//! Archives over the socket: what a real container changed as a layer, its whole root, and layers that are sent.

mod support;

use serde_json::{Value, json};
use shoal_protocol::read_frame;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use support::client::Stream;
use support::{Client, Core, possible};

/// The pieces of an archive up to the length of 0, and the result behind it.
fn received(mut stream: UnixStream) -> (Vec<u8>, Value) {
    let mut bytes = Vec::new();
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length).expect("a length");
        let length = u64::from(u32::from_be_bytes(length));
        if length == 0 {
            break;
        }
        assert_eq!(
            (&stream)
                .take(length)
                .read_to_end(&mut bytes)
                .expect("a piece"),
            length as usize
        );
    }
    (bytes, last_frame(&mut stream))
}

fn last_frame(stream: &mut UnixStream) -> Value {
    let frame = read_frame(stream).expect("a frame").expect("no end before");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("the end");
    assert!(rest.is_empty(), "the result is last");
    serde_json::from_slice(&frame).expect("JSON")
}

fn packed(core: &Core, request: Value) -> (Vec<u8>, Value) {
    let (answer, stream) = Stream::ask(core, request);
    assert_eq!(
        (&answer["ok"], &answer["value"]),
        (&json!(true), &json!({}))
    );
    let (bytes, result) = received(stream);
    assert_eq!(result["ok"], true, "{result}");
    (bytes, result["value"].clone())
}

/// What another program lists of an archive.
fn names(archive: &[u8]) -> Vec<String> {
    let mut tar = Command::new("tar")
        .args(["--list", "--file=-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("tar");
    let mut input = tar.stdin.take().expect("its input");
    let archive = archive.to_vec();
    let feeding = std::thread::spawn(move || input.write_all(&archive));
    let output = tar.wait_with_output().expect("tar ends");
    feeding.join().expect("no panic").expect("tar reads all");
    assert!(output.status.success());
    String::from_utf8(output.stdout)
        .expect("names")
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn what_a_container_changed_becomes_a_layer_and_its_root_an_archive() {
    if !possible() {
        return;
    }
    let core = Core::start();
    let mut client = core.client();
    let script = "echo new > /new; rm /etc/passwd; mkdir /made; cat /etc/group > /etc/copied";
    let create = core.create("a", &["sh", "-c", script]);
    let rootfs = create["rootfs"].clone();
    let changed_root = Path::new(rootfs["directory"].as_str().expect("directory")).join("upper");
    std::fs::write(core.dir.join("layer/etc/passwd"), "root:x:0:0::/:/bin/sh\n").expect("a file");
    std::fs::write(core.dir.join("layer/etc/group"), "root:x:0:\n").expect("a file");
    assert_eq!(client.run(create)["exitCode"], 0);

    let (diff, result) = packed(
        &core,
        json!({"call": "diff", "upper": changed_root, "compression": "none"}),
    );
    assert_eq!(result["size"], diff.len());
    assert_eq!(result["digest"], result["diffId"]);
    let listed = names(&diff);
    for name in ["new", "etc/.wh.passwd", "etc/copied", "made/"] {
        assert!(listed.iter().any(|line| line == name), "{name}: {listed:?}");
    }
    assert!(
        !listed.iter().any(|name| name.starts_with("bin/")),
        "{listed:?}"
    );

    let layer = core.dir.join("committed");
    let committed =
        client.ok(json!({"call": "commit", "upper": changed_root, "destination": layer}));
    assert_eq!(committed["diffId"], result["diffId"]);
    assert_eq!(
        std::fs::read_to_string(layer.join("new")).expect("new"),
        "new\n"
    );

    let (root, exported) = packed(
        &core,
        json!({"call": "export", "layers": rootfs["layers"], "upper": changed_root, "compression": "gzip"}),
    );
    assert_eq!(root[..2], [0x1f, 0x8b]);
    assert_eq!(exported["size"], root.len());
    client.delete("a");

    // A container of the committed layer sees what the first one left; so does one of the exported root, which is sent to the core.
    let all = core.dir.join("all");
    let sent = sent(&core, &root, &all, &exported["diffId"]);
    assert_eq!(sent["ok"], true, "{sent}");
    assert_eq!(sent["value"]["digest"], exported["digest"]);
    let mut layers = rootfs["layers"].as_array().expect("layers").clone();
    layers.push(json!(layer));
    for (id, layers) in [("b", json!(layers)), ("c", json!([all]))] {
        let mut create = core.create(
            id,
            &["sh", "-c", "cat /new /etc/copied; test ! -e /etc/passwd"],
        );
        create["rootfs"]["layers"] = layers;
        assert_eq!(client.run(create)["exitCode"], 0, "{}", core.log_text(id));
        assert!(
            core.log_text(id).contains("root:x:0:"),
            "{}",
            core.log_text(id)
        );
        client.delete(id);
    }
    core.expect_clean();
}

/// Sends an archive; the last frame.
fn sent(core: &Core, archive: &[u8], destination: &Path, diff_id: &Value) -> Value {
    let (answer, mut stream) = Stream::ask(
        core,
        json!({"call": "unpack", "archive": null, "digest": null, "diffId": diff_id, "destination": destination, "devices": "refuse"}),
    );
    assert_eq!(answer["ok"], true, "{answer}");
    let mut writing = stream.try_clone().expect("a copy");
    let archive = archive.to_vec();
    let feeding = std::thread::spawn(move || {
        // A refused archive may be cut short.
        drop(writing.write_all(&archive));
        drop(writing.shutdown(Shutdown::Write));
    });
    let last = last_frame(&mut stream);
    feeding.join().expect("no panic");
    last
}

#[test]
fn refusals_of_archives_are_answers_and_leave_nothing() {
    if !possible() {
        return;
    }
    let core = Core::start();
    let mut client = core.client();
    let ask = |request: Value| Stream::ask(&core, request).0;
    let code = |answer: &Value| answer["code"].as_str().unwrap_or("none").to_owned();
    let none = json!({"call": "diff", "upper": "/nonexistent", "compression": "none"});
    assert_eq!(code(&ask(none.clone())), "not-found");
    assert_eq!(
        code(&ask(json!({"call": "export", "layers": [], "upper": null}))),
        "invalid"
    );
    assert_eq!(code(&ask(json!({"call": "diff"}))), "invalid");
    // Each kind of call has its kind of connection.
    assert_eq!(code(&client.fails(none)), "conflict");
    let file = json!({"call": "unpack", "archive": "/x", "diffId": null, "destination": core.dir.join("x")});
    assert_eq!(code(&ask(file.clone())), "conflict");
    assert_eq!(code(&client.fails(file)), "not-found");
    let streamed = json!({"call": "unpack", "archive": null, "diffId": null, "destination": core.dir.join("x")});
    assert_eq!(code(&client.fails(streamed)), "invalid");
    // What is no archive is refused in the middle, and the client, who still writes, hears why.
    let garbage = vec![b'x'; 20 << 20];
    let refused = sent(&core, &garbage, &core.dir.join("x"), &Value::Null);
    assert_eq!(code(&refused), "invalid", "{refused}");
    assert!(
        refused["message"]
            .as_str()
            .is_some_and(|why| why.contains("not a tar archive"))
    );
    let cut = sent(&core, &[0x1f, 0x8b, 8], &core.dir.join("x"), &Value::Null);
    assert!(
        cut["message"]
            .as_str()
            .is_some_and(|why| why.contains("truncated")),
        "{cut}"
    );
    let left: Vec<_> = std::fs::read_dir(&core.dir)
        .expect("the directory")
        .map(|entry| entry.expect("an entry").file_name())
        .filter(|name| name.to_string_lossy().starts_with('x'))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    // A client that goes in the middle of an export ends it and nothing else.
    let (_, stream) = Stream::ask(
        &core,
        json!({"call": "export", "layers": [core.dir.join("layer")], "upper": null, "compression": "none"}),
    );
    drop(stream);
    assert_eq!(
        Client::connect(&core.socket()).ok(json!({"call": "hello", "version": 1}))["version"],
        1
    );
    core.expect_clean();
}
