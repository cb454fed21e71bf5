//! What a resident container costs in memory while nothing happens to it.

mod support;

use serde_json::json;
use std::fs;
use support::{Core, Stream, possible, until};

/// Kibibytes of its own that an idle monitor may hold: stack, heap and data, without the code, which all of them share.
const MONITOR_KIB_MAX: u64 = 120;
/// The same of the process from which they are forked.
const ZYGOTE_KIB_MAX: u64 = 120;

/// Kibibytes of a process that are no file's.
fn anonymous_kib(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("Anonymous:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
        .expect("a process that lives")
}

#[test]
fn a_monitor_gives_back_what_it_needs_only_while_something_happens() {
    if !possible() {
        return;
    }
    let core = Core::start();
    let mut client = core.client();
    let say = "while read line; do head -c 300000 /dev/zero | tr '\\0' x; echo; done";
    let mut create = core.create("talker", &["sh", "-c", say]);
    create["stdin"] = json!("open");
    client.ok(create);
    client.by_id("start", "talker");
    let monitors = core.monitors();
    let [monitor] = monitors[..] else {
        panic!("one monitor, not {monitors:?}")
    };
    let rests = |after: &str| {
        until(&format!("the monitor rests {after}"), || {
            anonymous_kib(monitor) <= MONITOR_KIB_MAX
        });
    };
    rests("after its container's start");
    let mut stream = Stream::open(
        &core,
        json!({"call": "attach", "containerId": "talker", "stdin": true, "stdout": true, "stderr": false}),
    );
    for _ in 0..3 {
        stream.write("go\n");
        stream.until("x\n");
    }
    drop(stream);
    rests("after a megabyte of output");
    for number in 0..3 {
        let mut exec = core.exec("talker", &format!("e{number}"), &["true"]);
        (exec["stdout"], exec["stderr"]) = (json!(false), json!(false));
        client.ok(exec);
    }
    rests("after execs");
    let zygote = anonymous_kib(core.zygote().expect("a zygote"));
    assert!(zygote <= ZYGOTE_KIB_MAX, "the zygote holds {zygote} KiB");
    client.ok(json!({"call": "kill", "containerId": "talker", "signal": "KILL", "all": false}));
    client.delete("talker");
    core.expect_clean();
}
