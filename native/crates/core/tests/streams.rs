//! Attached clients, execs and terminals of real containers.

mod support;

use serde_json::{Value, json};
use support::client::Stream;
use support::{Client, Core, possible, until};

fn attach(id: &str) -> Value {
    json!({"call": "attach", "containerId": id, "stdin": true, "stdout": true, "stderr": true})
}

fn started(core: &Core, client: &mut Client, mut create: Value, stdin: &str) -> String {
    create["stdin"] = json!(stdin);
    let id = create["containerId"].as_str().expect("id").to_owned();
    client.ok(core.with_gates(create));
    client.by_id("start", &id);
    id
}

#[test]
fn several_clients_get_all_output_and_the_log_has_it_too() {
    if !possible() {
        return;
    }
    let core = Core::start();
    let mut client = core.client();
    let script = format!("{} echo out; echo err >&2; exit 3", support::GATE);
    let create = core.with_gates(core.create("a", &["sh", "-c", &script]));
    client.ok(create);
    // Before the start too: that is how `docker run` hears the first byte.
    let mut first = Stream::open(&core, attach("a"));
    assert_eq!(first.value, json!({"terminal": false}));
    client.by_id("start", "a");
    let mut second = Stream::open(&core, attach("a"));
    let mut third = Stream::open(
        &core,
        json!({"call": "attach", "containerId": "a", "stdin": false, "stdout": false, "stderr": true}),
    );
    core.open_gate();
    assert_eq!(client.exit("a")["exitCode"], 3);
    assert_eq!(first.rest(), ("out\n".into(), "err\n".into()));
    assert_eq!(second.rest(), ("out\n".into(), "err\n".into()));
    assert_eq!(third.rest(), (String::new(), "err\n".into()));
    assert_eq!(core.log_text("a").len(), "out\nerr\n".len());
    let (refused, _) = Stream::ask(&core, attach("a"));
    assert_eq!(
        (&refused["ok"], &refused["code"]),
        (&json!(false), &json!("conflict"))
    );
    let (refused, _) = Stream::ask(&core, attach("nope"));
    assert_eq!(refused["code"], "not-found");
    assert_eq!(client.fails(attach("a"))["code"], "conflict");
    client.delete("a");
    core.expect_clean();
}

#[test]
fn stdin_ends_with_its_client_when_once_and_stays_open_otherwise() {
    if !possible() {
        return;
    }
    let core = Core::start();
    let mut client = core.client();
    started(&core, &mut client, core.create("once", &["cat"]), "once");
    let mut stream = Stream::open(&core, attach("once"));
    stream.write("hello\n");
    assert_eq!(stream.until("hello\n"), "hello\n");
    let long = "x".repeat(300_000);
    let mut writer = stream.socket.try_clone().expect("clone");
    let sent = long.clone();
    let thread = std::thread::spawn(move || {
        std::io::Write::write_all(&mut writer, sent.as_bytes()).expect("written");
        writer.shutdown(std::net::Shutdown::Write).expect("shut");
    });
    let (out, _) = stream.rest();
    thread.join().expect("writer");
    assert!(out == long, "{} bytes came back", out.len());
    assert_eq!(client.exit("once")["exitCode"], 0);

    started(&core, &mut client, core.create("open", &["cat"]), "open");
    let mut stream = Stream::open(&core, attach("open"));
    stream.write("one\n");
    stream.until("one\n");
    stream.close_stdin();
    assert_eq!(stream.rest(), (String::new(), String::new()));
    // A client that vanishes takes nothing with it.
    drop(Stream::open(&core, attach("open")));
    let mut stream = Stream::open(&core, attach("open"));
    stream.write("two\n");
    assert_eq!(stream.until("two\n"), "two\n");
    assert_eq!(client.by_id("state", "open")["status"], "running");
    assert_eq!(core.log_text("open"), "one\ntwo\n");
    for id in ["once", "open"] {
        client.delete(id);
    }
    core.expect_clean();
}

#[test]
fn a_client_that_takes_nothing_holds_the_program_up_and_loses_nothing() {
    if !possible() {
        return;
    }
    let core = Core::start();
    let mut client = core.client();
    let script = format!("{} seq 1 200000; exit 5", support::GATE);
    started(
        &core,
        &mut client,
        core.create("slow", &["sh", "-c", &script]),
        "closed",
    );
    let mut slow = Stream::open(&core, attach("slow"));
    core.open_gate();
    // Everything between program and client is full long before the program is done.
    until("output is in the log", || {
        std::fs::metadata(core.log_path("slow")).is_ok_and(|log| log.len() > 500_000)
    });
    assert_eq!(client.by_id("state", "slow")["status"], "running");
    let (out, _) = slow.rest();
    let want: String = (1..=200_000).map(|number| format!("{number}\n")).collect();
    assert!(out == want, "{} of {} bytes", out.len(), want.len());
    assert_eq!(client.exit("slow")["exitCode"], 5);
    assert!(core.log_text("slow") == want);
    client.delete("slow");
    core.expect_clean();
}

#[test]
fn the_streams_outlive_the_core() {
    if !possible() {
        return;
    }
    let mut core = Core::start();
    let mut client = core.client();
    started(&core, &mut client, core.create("a", &["cat"]), "once");
    let mut stream = Stream::open(&core, attach("a"));
    let mut exec = core.exec("a", "e", &["sh", "-c", "read word; echo got $word; exit 9"]);
    exec["stdin"] = json!(true);
    let mut exec = Stream::open(&core, exec);
    core.kill();
    stream.write("still here\n");
    assert_eq!(stream.until("here\n"), "still here\n");
    exec.write("it\n");
    assert_eq!(exec.rest().0, "got it\n");
    core.restart();
    let mut client = core.client();
    let execs = client.by_id("execs", "a")["execs"].clone();
    assert_eq!(execs[0]["exit"]["exitCode"], 9, "{execs}");
    stream.close_stdin();
    assert_eq!(stream.rest(), (String::new(), String::new()));
    assert_eq!(client.exit("a")["exitCode"], 0);
    client.delete("a");
    core.expect_clean();
}

#[test]
fn exec_tells_output_and_exit_code_and_is_listed() {
    if !possible() {
        return;
    }
    let core = Core::start();
    let mut client = core.client();
    started(
        &core,
        &mut client,
        core.create("a", &["sleep", "1000"]),
        "closed",
    );
    let mut exec = Stream::open(
        &core,
        core.exec("a", "e1", &["sh", "-c", "echo out; echo err >&2; exit 42"]),
    );
    assert!(exec.value["pid"].as_i64().expect("pid") > 0);
    assert_eq!(exec.rest(), ("out\n".into(), "err\n".into()));
    let event = client.event("exec-exit", "a");
    assert_eq!(
        (&event["execId"], &event["exitCode"]),
        (&json!("e1"), &json!(42))
    );
    // Without streams on an ordinary connection.
    let mut detached = core.exec("a", "e2", &["sleep", "1000"]);
    (detached["stdout"], detached["stderr"]) = (json!(false), json!(false));
    let pid = client.ok(detached.clone())["pid"].as_i64().expect("pid");
    assert_eq!(client.fails(detached)["code"], "already-exists");
    let pids = client.by_id("pids", "a");
    assert!(pids["pids"].as_array().expect("pids").contains(&json!(pid)));
    let execs = client.by_id("execs", "a")["execs"].clone();
    assert_eq!(
        (&execs[0]["execId"], &execs[0]["exit"]["exitCode"]),
        (&json!("e1"), &json!(42))
    );
    assert_eq!(
        (&execs[1]["execId"], &execs[1]["pid"], &execs[1]["exit"]),
        (&json!("e2"), &json!(pid), &json!(null))
    );
    client.ok(json!({"call": "exec-kill", "containerId": "a", "execId": "e2", "signal": "TERM"}));
    let event = client.event("exec-exit", "a");
    assert_eq!(
        (&event["exitCode"], &event["signal"]),
        (&json!(143), &json!("SIGTERM"))
    );
    let gone = json!({"call": "exec-kill", "containerId": "a", "execId": "e2", "signal": "TERM"});
    assert_eq!(client.fails(gone)["code"], "conflict");
    let none = json!({"call": "exec-kill", "containerId": "a", "execId": "no", "signal": "TERM"});
    assert_eq!(client.fails(none)["code"], "not-found");
    // Programs that are not there, or are none.
    for (program, errno) in [("nope", 2), ("/etc/plain", 13)] {
        let (reply, _) = Stream::ask(&core, core.exec("a", program, &[program]));
        assert_eq!(
            (&reply["ok"], &reply["errno"]),
            (&json!(false), &json!(errno)),
            "{reply}"
        );
    }
    // The user and the end of an exec when its container ends.
    let mut user = core.exec("a", "e3", &["sh", "-c", "id -u; sleep 1000"]);
    user["process"]["user"] = json!({"uid": 1000, "gid": 1000, "additionalGids": []});
    let mut user = Stream::open(&core, user);
    assert_eq!(user.until("\n"), "1000\n");
    client.ok(json!({"call": "kill", "containerId": "a", "signal": "KILL", "all": false}));
    assert_eq!(client.event("exec-exit", "a")["exitCode"], 137);
    assert_eq!(client.exit("a")["exitCode"], 137);
    assert_eq!(user.rest(), (String::new(), String::new()));
    let (reply, _) = Stream::ask(&core, core.exec("a", "e4", &["true"]));
    assert_eq!(reply["code"], "conflict");
    client.delete("a");
    core.expect_clean();
}

#[test]
fn exec_stdin_is_the_clients_and_ends_with_it() {
    if !possible() {
        return;
    }
    let core = Core::start();
    let mut client = core.client();
    started(
        &core,
        &mut client,
        core.create("a", &["sleep", "1000"]),
        "closed",
    );
    let mut exec = core.exec("a", "wc", &["wc", "-c"]);
    exec["stdin"] = json!(true);
    let mut stream = Stream::open(&core, exec.clone());
    stream.write(&"y".repeat(200_000));
    stream.close_stdin();
    assert_eq!(stream.rest().0.trim(), "200000");
    // Bytes ahead of the answer would be lost, so that they are refused.
    exec["execId"] = json!("ahead");
    let mut hasty = Client::connect(&core.socket());
    exec["id"] = json!(1);
    let mut bytes = Vec::new();
    shoal_protocol::write_frame(&mut bytes, exec.to_string().as_bytes()).expect("frame");
    bytes.extend_from_slice(b"early");
    hasty.raw(&bytes);
    assert_eq!(hasty.receive().expect("reply")["code"], "invalid");
    client.delete("a");
    core.expect_clean();
}

#[test]
fn a_terminal_has_its_size_and_takes_a_new_one() {
    if !possible() {
        return;
    }
    let core = Core::start();
    let mut client = core.client();
    let mut create = core.create(
        "tty",
        &[
            "sh",
            "-c",
            "stty size; read x; stty size; tty; echo \"$x\"; exit 4",
        ],
    );
    create["spec"]["process"]["terminal"] = json!(true);
    create["consoleSize"] = json!({"rows": 11, "columns": 22});
    create["stdin"] = json!("open");
    client.ok(create);
    let mut stream = Stream::open(&core, attach("tty"));
    assert_eq!(stream.value, json!({"terminal": true}));
    client.by_id("start", "tty");
    assert_eq!(stream.raw_until("\n"), "11 22\r\n");
    client.ok(
        json!({"call": "resize", "containerId": "tty", "execId": null, "rows": 33, "columns": 44}),
    );
    stream.write("word\n");
    let rest = stream.raw_until("/dev/pts/0\r\nword\r\n");
    assert!(rest.contains("33 44\r\n"), "{rest:?}");
    assert_eq!(client.exit("tty")["exitCode"], 4);
    assert!(core.log_text("tty").contains("33 44\r\n"));
    client.delete("tty");

    started(
        &core,
        &mut client,
        core.create("a", &["sleep", "1000"]),
        "closed",
    );
    let mut exec = core.exec(
        "a",
        "t",
        &["sh", "-c", "stty size; read x; stty size; exit 6"],
    );
    exec["process"]["terminal"] = json!(true);
    exec["consoleSize"] = json!({"rows": 5, "columns": 6});
    exec["stdin"] = json!(true);
    let mut stream = Stream::open(&core, exec);
    assert_eq!(stream.raw_until("\n"), "5 6\r\n");
    client
        .ok(json!({"call": "resize", "containerId": "a", "execId": "t", "rows": 7, "columns": 8}));
    stream.write("\n");
    stream.raw_until("7 8\r\n");
    assert_eq!(client.event("exec-exit", "a")["exitCode"], 6);
    let plain =
        json!({"call": "resize", "containerId": "a", "execId": null, "rows": 7, "columns": 8});
    assert_eq!(client.fails(plain)["code"], "conflict");
    client.delete("a");
    core.expect_clean();
}
