//! What a resident container costs in memory while nothing happens to it.

mod support;

use serde_json::json;
use std::fs;
use support::client::Stream;
use support::{Core, possible, until};

/// Kibibytes of its own that an idle monitor may hold: stack, heap and data, without the code, which all of them share.
const MONITOR_KIB_MAX: u64 = 120;
/// The same of the process from which they are forked.
const ZYGOTE_KIB_MAX: u64 = 120;

/// The mappings of a process, as (first line, everything told of it) of smaps.
fn mappings(pid: i32) -> Vec<(String, String)> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap_or_default();
    let mut found: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        let is_first = line
            .split(' ')
            .next()
            .is_some_and(|word| word.contains('-'));
        match found.last_mut() {
            Some((_, told)) if !is_first => *told += &format!("{line}\n"),
            _ => found.push((line.to_owned(), String::new())),
        }
    }
    found
}

/// One figure of a mapping, in kibibytes.
fn kib(told: &str, what: &str) -> u64 {
    let line = told.lines().find(|line| line.starts_with(what));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
        .expect("a figure of smaps")
}

fn is_code(first: &str) -> bool {
    first.contains(" r-xp ") && !first.ends_with("[vdso]")
}

/// Kibibytes of a process that are no file's, without its code, which is the zygote's.
fn anonymous_kib(pid: i32) -> u64 {
    let mappings = mappings(pid);
    assert!(!mappings.is_empty(), "a process that lives");
    mappings
        .iter()
        .filter(|(first, _)| !is_code(first))
        .map(|(_, told)| kib(told, "Anonymous:"))
        .sum()
}

/// The code is memory that forks take along (`sys::code`), all of it there and none of it a monitor's own.
fn expect_common_code(zygote: i32, monitor: i32) {
    for (pid, own) in [(zygote, None), (monitor, Some(0))] {
        let code: Vec<_> = mappings(pid)
            .into_iter()
            .filter(|(first, _)| is_code(first))
            .collect();
        let [(first, told)] = &code[..] else {
            panic!("one mapping with code, not {code:?}")
        };
        assert!(first.contains(" 00:00 0"), "it is still a file's: {first}");
        assert!(kib(told, "Rss:") > 1024, "{told}");
        if let Some(own) = own {
            assert_eq!(kib(told, "Private_Dirty:"), own, "{told}");
        }
    }
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
    expect_common_code(core.zygote().expect("a zygote"), monitor);
    let zygote = anonymous_kib(core.zygote().expect("a zygote"));
    assert!(zygote <= ZYGOTE_KIB_MAX, "the zygote holds {zygote} KiB");
    client.ok(json!({"call": "kill", "containerId": "talker", "signal": "KILL", "all": false}));
    client.delete("talker");
    core.expect_clean();
}
