//! What is done to running containers: logs read and followed, health, pause, limits and figures.

mod support;

use serde_json::{Value, json};
use std::fs;
use std::time::Duration;
use support::client::Stream;
use support::{Client, Core, possible, until};

fn logs(id: &str, change: Value) -> Value {
    let mut call = json!({"call": "logs", "containerId": id, "stdout": true, "stderr": true, "follow": false, "tail": null, "sinceNs": null, "untilNs": null, "timestamps": false});
    for (name, value) in change.as_object().expect("fields") {
        call[name] = value.clone();
    }
    call
}

fn begin(core: &Core, client: &mut Client, create: Value) {
    let id = create["containerId"].as_str().expect("id").to_owned();
    client.ok(core.with_gates(create));
    client.by_id("start", &id);
}

#[test]
fn logs_are_filtered_and_cut_to_their_tail() {
    if !possible() {
        return;
    }
    let core = Core::start();
    let mut client = core.client();
    let script = "for n in 1 2 3; do echo out $n; echo err $n >&2; sleep 0.02; done; printf end";
    assert_eq!(
        client.run(core.create("a", &["sh", "-c", script]))["exitCode"],
        0
    );
    let read = |change: Value| Stream::open(&core, logs("a", change)).rest();
    let (out, err) = read(json!({}));
    assert_eq!(
        (out.as_str(), err.as_str()),
        ("out 1\nout 2\nout 3\nend", "err 1\nerr 2\nerr 3\n")
    );
    assert_eq!(read(json!({"stderr": false})).1, "");
    let mut last = Stream::open(&core, logs("a", json!({"tail": 2})));
    assert_eq!(std::iter::from_fn(|| last.frame()).count(), 2);
    assert_eq!(read(json!({"tail": 0})), (String::new(), String::new()));
    let (stamped, _) = read(json!({"timestamps": true, "stderr": false}));
    let times: Vec<&str> = stamped
        .lines()
        .map(|line| line.split_once(' ').expect("time").0)
        .collect();
    assert!(times.iter().all(|time| time.ends_with('Z')), "{stamped}");
    // The moment of the second line, in nanoseconds.
    let second = fs::read_to_string(core.log_path("a")).expect("log");
    let second: Value = second
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .find(|line: &Value| line["log"] == "out 2\n")
        .expect("there");
    let time = second["time"].as_str().expect("time");
    let output = std::process::Command::new("date")
        .args(["-d", time, "+%s%N"])
        .output()
        .expect("date");
    let at = String::from_utf8(output.stdout)
        .expect("digits")
        .trim()
        .to_owned();
    assert_eq!(
        read(json!({"sinceNs": at, "stderr": false})).0,
        "out 2\nout 3\nend"
    );
    assert_eq!(
        read(json!({"untilNs": at, "stderr": false})).0,
        "out 1\nout 2\n"
    );
    let (refused, _) = Stream::ask(&core, logs("a", json!({"sinceNs": "yesterday"})));
    assert_eq!(refused["code"], "invalid");
    let mut silent = core.create("none", &["true"]);
    silent["log"] = json!(null);
    client.run(silent);
    let (refused, _) = Stream::ask(&core, logs("none", json!({})));
    assert!(
        refused["message"]
            .as_str()
            .expect("message")
            .contains("does not support reading")
    );
    for id in ["a", "none"] {
        client.delete(id);
    }
    core.expect_clean();
}

#[test]
fn following_misses_nothing_through_rotations_and_ends_with_the_container() {
    if !possible() {
        return;
    }
    let core = Core::start();
    let mut client = core.client();
    let script = format!("echo first; {} seq 1 20000; echo last", support::GATE);
    let mut create = core.create("a", &["sh", "-c", &script]);
    create["log"]["maxSizeBytes"] = json!(200_000);
    create["log"]["maxFiles"] = json!(50);
    begin(&core, &mut client, create);
    let mut follow = Stream::open(&core, logs("a", json!({"follow": true})));
    assert_eq!(follow.until("first\n"), "first\n");
    let mut late = Stream::open(&core, logs("a", json!({"follow": true, "tail": 0})));
    core.open_gate();
    let want: String = (1..=20_000)
        .map(|number| format!("{number}\n"))
        .collect::<String>()
        + "last\n";
    let (out, _) = follow.rest();
    assert!(out == want, "{} of {} bytes", out.len(), want.len());
    assert!(late.rest().0 == want);
    assert_eq!(client.exit("a")["exitCode"], 0);
    // A follower of a container that is deleted hears its end too.
    assert!(
        Stream::open(&core, logs("a", json!({"follow": true})))
            .rest()
            .0
            .ends_with("last\n")
    );
    client.delete("a");
    core.expect_clean();
}

#[test]
fn rotated_files_are_compressed_and_read_as_one_log() {
    if !possible() {
        return;
    }
    let core = Core::start();
    let mut client = core.client();
    let mut create = core.create("a", &["seq", "1", "20000"]);
    create["log"]["maxSizeBytes"] = json!(200_000);
    create["log"]["maxFiles"] = json!(50);
    create["log"]["compress"] = json!(true);
    assert_eq!(client.run(create)["exitCode"], 0);
    let name = |ending: &str| format!("{}{ending}", core.log_path("a").display());
    until("the rotated files are packed", || {
        fs::metadata(name(".1.gz")).is_ok() && fs::metadata(name(".1")).is_err()
    });
    assert!(fs::metadata(name("")).is_ok());
    let want: String = (1..=20_000).map(|number| format!("{number}\n")).collect();
    assert!(Stream::open(&core, logs("a", json!({}))).rest().0 == want);
    client.delete("a");
    core.expect_clean();
}

/// The process that writes the log of a container in non-blocking mode: it has the file open and is named for it.
fn log_writer(core: &Core, id: &str) -> Option<i32> {
    let path = core.log_path(id);
    let has_it = |pid: i32| {
        fs::read_dir(format!("/proc/{pid}/fd")).is_ok_and(|fds| {
            fds.flatten()
                .any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to == path))
        })
    };
    fs::read_dir("/proc")
        .expect("/proc")
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .find(|pid: &i32| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm"));
            name.is_ok_and(|name| name == "shoal-log\n") && has_it(*pid)
        })
}

#[test]
fn a_log_that_blocks_nobody_counts_what_it_loses_and_takes_a_new_writer() {
    if !possible() {
        return;
    }
    let core = Core::start();
    let mut client = core.client();
    let script = format!("echo first; {} seq 1 300000; exit 7", support::GATE);
    let mut create = core.create("a", &["sh", "-c", &script]);
    create["log"]["mode"] = json!("non-blocking");
    create["log"]["maxBufferBytes"] = json!(65_536);
    begin(&core, &mut client, create);
    until("the first line is in the log", || {
        core.log_text("a") == "first\n"
    });
    let send = |pid: i32, signal: i32| {
        // SAFETY: no pointers.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "{pid}");
    };
    // A disk that stands still. The program ends all the same, and only then does the disk go on.
    let writer = log_writer(&core, "a").expect("a writer");
    send(writer, libc::SIGSTOP);
    let pid = client.by_id("state", "a")["pid"].as_i64().expect("pid");
    core.open_gate();
    until("the program has ended", || {
        fs::metadata(format!("/proc/{pid}")).is_err()
    });
    send(writer, libc::SIGCONT);
    assert_eq!(client.exit("a")["exitCode"], 7);
    let record = fs::read(core.dir.join("core/a/exit.json")).expect("the exit record");
    let record: Value = serde_json::from_slice(&record).expect("JSON");
    let lost = record["lostLogRecords"].as_u64().expect("a number");
    let text = core.log_text("a");
    let lines: Vec<u64> = text
        .lines()
        .skip(1)
        .map(|line| line.parse().expect("a whole line"))
        .collect();
    assert!(lost > 0 && lines.is_sorted(), "{lost} lost");
    assert_eq!(lines.len() as u64 + lost, 300_000);
    client.delete("a");

    let mut create = core.create("b", &["cat"]);
    create["stdin"] = json!("once");
    create["log"]["mode"] = json!("non-blocking");
    begin(&core, &mut client, create);
    let mut stream = Stream::open(
        &core,
        json!({"call": "attach", "containerId": "b", "stdin": true, "stdout": true, "stderr": true, "logs": false}),
    );
    stream.write("one\n");
    until("one is in the log", || core.log_text("b") == "one\n");
    let writer = log_writer(&core, "b").expect("a writer");
    send(writer, libc::SIGKILL);
    until("it is gone", || log_writer(&core, "b").is_none());
    stream.write("two\n");
    until("two is in the log", || core.log_text("b") == "one\ntwo\n");
    stream.close_stdin();
    assert_eq!(client.exit("b")["exitCode"], 0);
    client.delete("b");
    until("no writer stays", || log_writer(&core, "b").is_none());
    core.expect_clean();
}

fn check(test: Value, change: Value) -> Value {
    let mut check = json!({"test": test, "intervalMs": 30, "timeoutMs": 5000, "startPeriodMs": 0, "startIntervalMs": 30, "retries": 2});
    for (name, value) in change.as_object().expect("fields") {
        check[name] = value.clone();
    }
    check
}

#[test]
fn health_goes_from_starting_to_healthy_to_unhealthy_and_back() {
    if !possible() {
        return;
    }
    let core = Core::start();
    let mut client = core.client();
    let mut create = core.create("a", &["sh", "-c", "touch /ok; sleep 1000"]);
    create["health"] = check(json!(["CMD-SHELL", "echo looking; test -e /ok"]), json!({}));
    client.ok(create);
    assert_eq!(
        client.by_id("state", "a")["health"],
        json!({"status": "starting", "failingStreak": 0, "results": []})
    );
    client.by_id("start", "a");
    assert_eq!(client.event("health", "a")["status"], "healthy");
    let run = |client: &mut Client, script: &str, name: &str| {
        let mut exec = core.exec("a", name, &["sh", "-c", script]);
        (exec["stdout"], exec["stderr"]) = (json!(false), json!(false));
        client.ok(exec);
    };
    run(&mut client, "rm /ok", "break");
    assert_eq!(client.event("health", "a")["status"], "unhealthy");
    let health = client.by_id("state", "a")["health"].clone();
    assert!(
        health["failingStreak"].as_u64().expect("streak") >= 2,
        "{health}"
    );
    let last = health["results"]
        .as_array()
        .expect("results")
        .last()
        .expect("one");
    assert_eq!(
        (&last["exitCode"], &last["output"]),
        (&json!(1), &json!("looking\n"))
    );
    run(&mut client, "touch /ok", "mend");
    assert_eq!(client.event("health", "a")["status"], "healthy");
    until("five results are kept", || {
        client.by_id("state", "a")["health"]["results"]
            .as_array()
            .expect("results")
            .len()
            == 5
    });
    // No check of a paused container, and none is a result of having been paused.
    client.by_id("pause", "a");
    let before = client.by_id("state", "a")["health"].clone();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(client.by_id("state", "a")["health"], before);
    client.by_id("resume", "a");
    until("checks go on", || {
        client.by_id("state", "a")["health"] != before
    });
    assert_eq!(
        client.by_id("execs", "a")["execs"]
            .as_array()
            .expect("execs")
            .len(),
        2,
        "checks are no execs of anybody"
    );
    client.delete("a");
    core.expect_clean();
}

#[test]
fn health_knows_timeouts_start_periods_long_output_and_missing_programs() {
    if !possible() {
        return;
    }
    let mut core = Core::start();
    let mut client = core.client();
    let cases = [
        (
            "late",
            json!(["CMD-SHELL", "echo begun; sleep 1000"]),
            json!({"timeoutMs": 100}),
        ),
        ("none", json!(["CMD", "/nope"]), json!({})),
        (
            "long",
            json!(["CMD-SHELL", "yes | head -c 100000; exit 1"]),
            json!({}),
        ),
        (
            "young",
            json!(["CMD", "false"]),
            json!({"startPeriodMs": 600_000}),
        ),
        ("off", json!(["NONE"]), json!({})),
    ];
    for (id, test, change) in &cases {
        let mut create = core.create(id, &["sleep", "1000"]);
        create["health"] = check(test.clone(), change.clone());
        client.ok(create);
        client.by_id("start", id);
    }
    let result = |client: &mut Client, id: &str| {
        client.by_id("state", id)["health"]["results"]
            .as_array()
            .expect("results")
            .last()
            .expect("one")
            .clone()
    };
    for id in ["late", "none", "long"] {
        assert_eq!(client.event("health", id)["status"], "unhealthy");
    }
    let late = result(&mut client, "late");
    assert_eq!(
        (&late["exitCode"], &late["output"]),
        (
            &json!(-1),
            &json!("Health check exceeded timeout (100ms): begun\n")
        )
    );
    let none = result(&mut client, "none");
    assert_eq!(none["exitCode"], -1);
    assert!(
        none["output"].as_str().expect("output").contains("/nope"),
        "{none}"
    );
    let long = result(&mut client, "long");
    assert_eq!(long["output"].as_str().expect("output").len(), 4096 + 3);
    until("a failure in the start period is seen", || {
        !client.by_id("state", "young")["health"]["results"]
            .as_array()
            .expect("results")
            .is_empty()
    });
    assert_eq!(client.by_id("state", "young")["health"]["failingStreak"], 0);
    assert_eq!(
        client.by_id("state", "young")["health"]["status"],
        "starting"
    );
    assert_eq!(client.by_id("state", "off")["health"], json!(null));
    // The checks go on without a core, and the next one learns what they found.
    core.kill();
    core.restart();
    let mut client = core.client();
    until("the new core knows", || {
        client.by_id("state", "none")["health"]["status"] == "unhealthy"
    });
    for (id, _, _) in &cases {
        client.delete(id);
    }
    core.expect_clean();
}

#[test]
fn a_paused_container_stands_still_and_wakes_to_be_killed() {
    if !possible() {
        return;
    }
    let mut core = Core::start();
    let mut client = core.client();
    begin(
        &core,
        &mut client,
        core.create(
            "a",
            &[
                "sh",
                "-c",
                "trap 'exit 7' TERM; while :; do echo tick; sleep 0.01; done",
            ],
        ),
    );
    until("it ticks", || core.log_text("a").contains("tick"));
    client.by_id("pause", "a");
    assert_eq!(client.by_id("state", "a")["status"], "paused");
    assert_eq!(
        client.fails(json!({"call": "pause", "containerId": "a"}))["code"],
        "conflict"
    );
    let (refused, _) = Stream::ask(&core, core.exec("a", "e", &["true"]));
    assert!(
        refused["message"]
            .as_str()
            .expect("message")
            .contains("is paused"),
        "{refused}"
    );
    let still = core.log_text("a");
    std::thread::sleep(Duration::from_millis(150));
    assert_eq!(core.log_text("a"), still);
    // A new core knows that it is paused.
    core.kill();
    core.restart();
    let mut client = core.client();
    assert_eq!(client.by_id("state", "a")["status"], "paused");
    assert_eq!(
        client.fails(json!({"call": "delete", "containerId": "a", "force": false}))["code"],
        "conflict"
    );
    client.by_id("resume", "a");
    assert_eq!(
        client.fails(json!({"call": "resume", "containerId": "a"}))["code"],
        "conflict"
    );
    until("it ticks again", || core.log_text("a").len() > still.len());
    client.by_id("pause", "a");
    client.ok(json!({"call": "kill", "containerId": "a", "signal": "TERM", "all": false}));
    assert_eq!(client.exit("a")["exitCode"], 7);
    begin(&core, &mut client, core.create("b", &["sleep", "1000"]));
    client.by_id("pause", "b");
    client.delete("b");
    client.delete("a");
    core.expect_clean();
}

#[test]
fn a_paused_container_whose_monitor_was_killed_is_ended() {
    if !possible() {
        return;
    }
    let core = Core::start();
    let mut client = core.client();
    begin(&core, &mut client, core.create("a", &["sleep", "1000"]));
    client.by_id("pause", "a");
    for pid in core.monitors() {
        // SAFETY: kill takes no pointer; the monitor is of this test's core.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
    assert_eq!(client.exit("a")["exitCodeKnown"], false);
    client.delete("a");
    core.expect_clean();
}

#[test]
fn limits_change_while_it_runs_and_stats_tell_them() {
    if !possible() {
        return;
    }
    let core = Core::start();
    let mut client = core.client();
    let mut create = core.create(
        "a",
        &[
            "sh",
            "-c",
            "head -c 20000000 /dev/zero > /dev/shm/x; while :; do :; done",
        ],
    );
    create["spec"]["linux"]["resources"] = json!({"memory": {"limit": 100_000_000, "reservation": null, "swap": null}, "cpu": null, "pids": {"limit": 20}});
    begin(&core, &mut client, create);
    until("its memory shows", || {
        client.by_id("stats", "a")["memory"]["usageBytes"]
            .as_u64()
            .expect("bytes")
            > 20_000_000
    });
    let first = client.by_id("stats", "a");
    assert_eq!(
        (&first["memory"]["limitBytes"], &first["pids"]["limit"]),
        (&json!(99_999_744), &json!(20)),
        "{first}"
    );
    assert!(first["pids"]["current"].as_u64().expect("tasks") >= 1);
    assert_eq!(first["networks"], json!([]));
    let number = |stats: &Value, path: &str| {
        stats
            .pointer(path)
            .and_then(Value::as_u64)
            .expect("a number")
    };
    until("processor time is counted", || {
        let later = client.by_id("stats", "a");
        number(&later, "/cpu/totalNs") > number(&first, "/cpu/totalNs")
            && number(&later, "/systemCpuNs") > number(&first, "/systemCpuNs")
    });
    client.ok(json!({"call": "update", "containerId": "a", "resources": {"memory": {"limit": 200_003_584, "swap": 400_007_168}, "pids": {"limit": 30}}}));
    let stats = client.by_id("stats", "a");
    assert_eq!(
        (&stats["memory"]["limitBytes"], &stats["pids"]["limit"]),
        (&json!(200_003_584), &json!(30)),
        "{stats}"
    );
    assert_eq!(client.fails(json!({"call": "update", "containerId": "a", "resources": {"cpu": {"shares": 1, "quota": 5}}}))["ok"], false);
    client.ok(json!({"call": "kill", "containerId": "a", "signal": "KILL", "all": true}));
    client.exit("a");
    for call in ["stats", "pause", "resume"] {
        assert_eq!(
            client.fails(json!({"call": call, "containerId": "a"}))["code"],
            "conflict",
            "{call}"
        );
    }
    client.delete("a");
    core.expect_clean();
}

#[test]
fn seccomp_profiles_hold_for_the_program_and_for_execs() {
    if !possible() {
        return;
    }
    let core = Core::start();
    let mut client = core.client();
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["sethostname"], "action": "SCMP_ACT_KILL", "includes": {"caps": ["CAP_SYS_ADMIN"]}}
        ]
    });
    let cases = [
        ("usual", json!("default"), "2"),
        ("own", json!({"profile": profile.to_string()}), "2"),
        ("free", json!("unconfined"), "0"),
    ];
    for (id, seccomp, mode) in cases {
        let script = "grep ^Seccomp: /proc/self/status; mkdir /made && echo made; sleep 1000";
        let mut create = core.create(id, &["sh", "-c", script]);
        create["seccomp"] = seccomp;
        begin(&core, &mut client, create);
        let line = format!("Seccomp:\t{mode}\n");
        until("its mode is told", || core.log_text(id).contains(&line));
        let mut exec = Stream::open(
            &core,
            core.exec(id, "e", &["grep", "^Seccomp:", "/proc/self/status"]),
        );
        assert_eq!(exec.rest().0, line, "{id}");
        let made = Stream::open(&core, core.exec(id, "m", &["mkdir", "/second"])).rest();
        assert_eq!(
            made.1.contains("not permitted"),
            id == "own",
            "{id}: {made:?}"
        );
    }
    let mut bad = core.create("bad", &["true"]);
    bad["seccomp"] = json!({"profile": "{"});
    let refused = client.fails(bad);
    assert!(
        refused["doing"]
            .as_str()
            .expect("doing")
            .contains("seccomp"),
        "{refused}"
    );
    for id in ["usual", "own", "free"] {
        client.delete(id);
    }
    core.expect_clean();
}
