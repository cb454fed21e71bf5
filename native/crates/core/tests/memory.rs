//! Containers that the kernel kills for memory say so, whoever of them was killed and whoever of ours was alive; others do not.

mod support;

use serde_json::{Value, json};
use std::fs;
use support::{Core, GATE, possible, rounds, until};

/// Doubles a string until there is no memory.
const GROW: &str = "x=a; while :; do x=$x$x; done";

/// A create call with docker's `--memory 16m --pids-limit 20`.
fn small(core: &Core, id: &str, script: &str) -> Value {
    let mut create = core.create(id, &["sh", "-c", script]);
    create["spec"]["linux"]["resources"] = json!({
        "memory": {"limit": 16_777_216, "reservation": null, "swap": 33_554_432},
        "cpu": null,
        "pids": {"limit": 20}
    });
    create["spec"]["mounts"][6]["options"] = json!(["size=300m"]);
    create
}

#[test]
fn memory_that_runs_out_is_told() {
    if !possible() {
        return;
    }
    let core = Core::start();
    let mut client = core.client();
    let child = format!("sh -c '{GROW}'; exit 3");
    for round in 0..rounds("SHOAL_OOM_ROUNDS", 4) {
        for (id, script, code) in [
            ("init", GROW, 137),
            ("child", child.as_str(), 3),
            (
                "shm",
                "dd if=/dev/zero of=/dev/shm/x bs=1M count=200; exit 5",
                5,
            ),
        ] {
            let exit = client.run(small(&core, id, script));
            assert_eq!(
                (&exit["exitCode"], &exit["oomKilled"]),
                (&json!(code), &json!(true)),
                "round {round}, {id}: {exit} {}",
                core.log_text(id)
            );
            let told = client
                .events
                .iter()
                .position(|event| event["event"] == "oom" && event["containerId"] == id);
            client.events.remove(told.expect("an oom event"));
            client.delete(id);
        }
    }
    core.expect_clean();
}

#[test]
fn what_did_not_run_out_of_memory_does_not_say_so() {
    if !possible() {
        return;
    }
    let core = Core::start();
    let mut client = core.client();
    let exit = client.run(small(&core, "well", "exit 137"));
    assert_eq!(exit["oomKilled"], false, "{exit}");
    client.ok(small(&core, "killed", "sleep 100"));
    client.by_id("start", "killed");
    client.ok(json!({"call": "kill", "containerId": "killed", "signal": "KILL", "all": false}));
    let exit = client.exit("killed");
    assert_eq!(
        (&exit["exitCode"], &exit["oomKilled"]),
        (&json!(137), &json!(false))
    );
    assert!(client.events.iter().all(|event| event["event"] != "oom"));
    for id in ["well", "killed"] {
        client.delete(id);
    }
    core.expect_clean();
}

#[test]
fn memory_that_ran_out_while_one_of_ours_was_dead_is_told_later() {
    if !possible() {
        return;
    }
    let mut core = Core::start();
    let mut client = core.client();
    client.ok(core.with_gates(small(&core, "core", &format!("{GATE} {GROW}"))));
    client.by_id("start", "core");
    client.ok(small(
        &core,
        "monitor",
        &format!("sh -c '{GROW}'; echo after; sleep 100"),
    ));
    client.by_id("start", "monitor");
    until("a killed child", || {
        core.log_text("monitor").contains("after")
    });
    core.kill();
    core.open_gate();
    let record = core.dir.join("core/core/exit.json");
    until("an exit record without a core", || record.exists());
    let state = fs::read(core.dir.join("core/monitor/state.json")).expect("state");
    let state: Value = serde_json::from_slice(&state).expect("JSON");
    let monitor = i32::try_from(state["monitorPid"].as_i64().expect("pid")).expect("pid");
    // SAFETY: kill takes no pointer; the pid is of this test's monitor.
    assert_eq!(unsafe { libc::kill(monitor, libc::SIGKILL) }, 0);
    core.restart();
    let mut client = core.client();
    for (id, known) in [("core", true), ("monitor", false)] {
        let exit = client.exit(id);
        assert_eq!(
            (&exit["exitCodeKnown"], &exit["oomKilled"]),
            (&json!(known), &json!(true)),
            "{id}: {exit}"
        );
        client.delete(id);
    }
    core.expect_clean();
}
