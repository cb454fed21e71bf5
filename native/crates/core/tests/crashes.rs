//! kill -9 of every process of ours, at chosen and at random moments: no container is lost, no exit code is lost or invented, nothing leaks.

mod support;

use serde_json::{Value, json};
use std::fs;
use std::time::Duration;
use support::{Client, Core, possible, rounds, until};

fn kill(pid: i32) {
    // SAFETY: kill takes no pointer; the pid is of a process that this test started.
    let killed = unsafe { libc::kill(pid, libc::SIGKILL) };
    assert_eq!(killed, 0, "killing {pid}");
}

#[test]
fn a_killed_core_finds_its_containers_and_their_exit_codes_again() {
    if !possible() {
        return;
    }
    let mut core = Core::start();
    let mut client = core.client();
    let gates = core.dir.join("gates");
    fs::create_dir(&gates).expect("dir");
    for (id, script) in [
        (
            "runs",
            "echo before; while [ ! -e /gates/runs ]; do sleep 0.01; done; echo after; exit 5",
        ),
        (
            "ends",
            "while [ ! -e /gates/ends ]; do sleep 0.01; done; exit 6",
        ),
    ] {
        let mut create = core.create(id, &["sh", "-c", script]);
        let gate = json!({"destination": "/gates", "type": "bind", "source": gates, "options": ["rbind", "ro"]});
        create["spec"]["mounts"]
            .as_array_mut()
            .expect("mounts")
            .push(gate);
        client.ok(create);
        client.by_id("start", id);
    }
    client.ok(core.create("parked", &["sh", "-c", "exit 4"]));
    client.ok(core.create("early", &["sh", "-c", "exit 3"]));
    client.by_id("start", "early");
    assert_eq!(client.exit("early")["exitCode"], 3);
    let pid = client.by_id("state", "runs")["pid"].clone();
    let started = client.by_id("state", "runs")["startedAtMs"].clone();
    core.kill();
    // One ends while there is no core.
    fs::write(gates.join("ends"), "").expect("go");
    let record = core.dir.join("core/ends/exit.json");
    until("an exit record without a core", || record.exists());
    core.restart();
    let mut client = core.client();
    // Outstanding exits are said again to whoever says hello.
    assert_eq!(client.exit("ends")["exitCode"], 6);
    assert_eq!(client.exit("early")["exitCode"], 3);
    let state = client.by_id("state", "runs");
    assert_eq!(
        (&state["status"], &state["pid"], &state["startedAtMs"]),
        (&json!("running"), &pid, &started)
    );
    assert_eq!(client.by_id("state", "parked")["status"], "created");
    assert_eq!(
        client.fails(core.create("runs", &["true"]))["code"],
        "already-exists"
    );
    fs::write(gates.join("runs"), "").expect("go");
    assert_eq!(client.exit("runs")["exitCode"], 5);
    assert_eq!(core.log_text("runs"), "before\nafter\n");
    client.by_id("start", "parked");
    assert_eq!(client.exit("parked")["exitCode"], 4);
    for id in ["runs", "ends", "parked", "early"] {
        client.delete(id);
    }
    core.expect_clean();
}

#[test]
fn a_killed_zygote_is_replaced() {
    if !possible() {
        return;
    }
    let core = Core::start();
    let mut client = core.client();
    client.ok(core.create("old", &["sh", "-c", "sleep 0.2; exit 2"]));
    client.by_id("start", "old");
    kill(core.zygote().expect("a zygote"));
    assert_eq!(
        client.run(core.create("new", &["sh", "-c", "exit 8"]))["exitCode"],
        8
    );
    assert_eq!(client.exit("old")["exitCode"], 2);
    for id in ["old", "new"] {
        client.delete(id);
    }
    core.expect_clean();
}

#[test]
fn a_killed_monitor_makes_the_exit_code_unknown_and_ends_the_container() {
    if !possible() {
        return;
    }
    let mut core = Core::start();
    let mut client = core.client();
    for id in ["a", "b"] {
        client.ok(core.create(id, &["sh", "-c", "sleep 100 & sleep 100"]));
        client.by_id("start", id);
    }
    let pid = client.by_id("state", "a")["pid"].clone();
    kill(monitor_of(&core, "a"));
    let exit = client.exit("a");
    assert_eq!(
        (&exit["exitCode"], &exit["exitCodeKnown"]),
        (&json!(137), &json!(false))
    );
    // Gone, or a zombie that waits for this machine's pid 1.
    let alive =
        fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    assert!(!alive, "init {pid} outlives its monitor");
    // The same while there is no core.
    let monitor = monitor_of(&core, "b");
    core.kill();
    kill(monitor);
    core.restart();
    let mut client = core.client();
    assert_eq!(client.exit("b")["exitCodeKnown"], false);
    assert_eq!(client.exit("a")["exitCodeKnown"], false);
    for id in ["a", "b"] {
        client.delete(id);
    }
    core.expect_clean();
}

/// A small generator with a fixed seed, so that a failing round can be run again.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Who is killed. Sandboxes of the pool may just be becoming containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Client,
    Core,
    Zygote,
    CoreAndZygote,
    OneMonitor,
    AllMonitors,
    OneOfThePool,
    WholePool,
    CoreAndMonitors,
    Everything,
}

const VICTIMS: [Victim; 10] = [
    Victim::Client,
    Victim::Core,
    Victim::Zygote,
    Victim::CoreAndZygote,
    Victim::OneMonitor,
    Victim::AllMonitors,
    Victim::OneOfThePool,
    Victim::WholePool,
    Victim::CoreAndMonitors,
    Victim::Everything,
];

impl Victim {
    fn kills_core(self) -> bool {
        matches!(
            self,
            Self::Core | Self::CoreAndZygote | Self::CoreAndMonitors | Self::Everything
        )
    }

    /// The processes beside the core that it stands for, now.
    fn others(self, core: &Core, random: &mut Random) -> Vec<i32> {
        let mut one = |mut all: Vec<i32>| {
            let at = random.below(all.len().max(1) as u64);
            let at = usize::try_from(at).expect("small");
            if all.is_empty() {
                all
            } else {
                vec![all.swap_remove(at)]
            }
        };
        match self {
            Self::Client | Self::Core => Vec::new(),
            Self::Zygote | Self::CoreAndZygote => core.zygote().into_iter().collect(),
            // Init, as long as it is parked, is among them.
            Self::OneMonitor => one(core.monitors()),
            Self::AllMonitors | Self::CoreAndMonitors => core.monitors(),
            Self::OneOfThePool => one(core.parked()),
            Self::WholePool => core.parked(),
            Self::Everything => {
                let mut all = core.monitors();
                all.extend(core.parked());
                all.extend(core.zygote());
                all
            }
        }
    }
}

/// How far a container is brought before the kill; the last step is asked for and not waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    CreateAsked,
    Created,
    StartAsked,
    Started,
    DeleteAsked,
}

const STEPS: [Step; 5] = [
    Step::CreateAsked,
    Step::Created,
    Step::StartAsked,
    Step::Started,
    Step::DeleteAsked,
];

struct Subject {
    id: String,
    step: Step,
    /// What the program ends with; None for one that does not end by itself.
    code: Option<u64>,
}

impl Subject {
    fn random(round: u64, number: u64, random: &mut Random) -> Self {
        let step = STEPS[usize::try_from(random.below(STEPS.len() as u64)).expect("small")];
        let code = (random.below(4) > 0).then(|| random.below(100));
        Self {
            id: format!("r{round}-{number}"),
            step,
            code,
        }
    }

    fn create(&self, core: &Core) -> Value {
        let script = match self.code {
            // Files for the reaper to remove.
            Some(code) => format!("cd /tmp; touch $(seq {}); exit {code}", code * 3),
            None => "sleep 100 & sleep 100".to_owned(),
        };
        core.create(&self.id, &["sh", "-c", &script])
    }

    /// Brings it to its step.
    fn drive(&self, core: &Core, client: &mut Client) {
        if self.step == Step::CreateAsked {
            client.send(self.create(core)).expect("sent");
            return;
        }
        client.ok(self.create(core));
        match self.step {
            Step::CreateAsked | Step::Created => {}
            Step::StartAsked => drop(client.send(json!({"call": "start", "containerId": self.id}))),
            Step::Started => drop(client.by_id("start", &self.id)),
            Step::DeleteAsked => {
                client.by_id("start", &self.id);
                drop(client.send(json!({"call": "delete", "containerId": self.id, "force": true})));
            }
        }
    }

    /// Finds out what became of it, ends it and deletes it. `killed` are the pids that were.
    fn settle(&self, core: &Core, client: &mut Client, killed: &[i32], told: &str) {
        // Somebody else's call may still be making or deleting it. That it is gone is shown by another that can have its name.
        let mut gone = false;
        until(&format!("{told}: {} there or gone", self.id), || {
            let state = client.call(json!({"call": "state", "containerId": self.id}));
            if state["ok"] == true {
                if self.step == Step::DeleteAsked {
                    client.call(json!({"call": "delete", "containerId": self.id, "force": true}));
                }
                return self.step != Step::DeleteAsked;
            }
            gone = client.call(self.create(core))["ok"] == true;
            gone
        });
        if gone {
            assert!(
                matches!(self.step, Step::CreateAsked | Step::DeleteAsked),
                "{told}: {} was lost",
                self.id
            );
            client.delete(&self.id);
            return;
        }
        let state = client.by_id("state", &self.id);
        let (monitor, init) = processes_of(core, &self.id);
        if state["status"] == "created" {
            // A start may still be under way in the monitor; either way it gets going.
            client.call(json!({"call": "start", "containerId": self.id}));
        }
        if self.code.is_none() {
            client.call(
                json!({"call": "kill", "containerId": self.id, "signal": "KILL", "all": false}),
            );
        }
        let exit = client.exit(&self.id);
        let was_killed = |pid: i32| killed.contains(&pid);
        if exit["exitCodeKnown"] == true {
            let right = self.code.is_some_and(|code| exit["exitCode"] == code);
            let by_us = exit["exitCode"] == 137 && (self.code.is_none() || was_killed(init));
            assert!(right || by_us, "{told}: {} ended with {exit}", self.id);
        } else {
            assert_eq!(exit["exitCode"], 137, "{told}: {exit}");
            assert!(
                was_killed(monitor),
                "{told}: {exit} is unknown though its monitor {monitor} was not killed"
            );
        }
        client.delete(&self.id);
    }
}

/// A container's monitor and its init.
fn processes_of(core: &Core, id: &str) -> (i32, i32) {
    let state: Value = serde_json::from_slice(
        &fs::read(core.dir.join("core").join(id).join("state.json")).expect("state"),
    )
    .expect("JSON");
    let pid = |name: &str| i32::try_from(state[name].as_i64().expect("pid")).expect("pid");
    (pid("monitorPid"), pid("pid"))
}

fn monitor_of(core: &Core, id: &str) -> i32 {
    processes_of(core, id).0
}

/// The crash matrix: `script/crashes` runs it for 1,000 rounds.
#[test]
fn kills_at_random_moments_of_many_lives_leave_nothing_and_lose_nothing() {
    if !possible() {
        return;
    }
    let mut core = Core::start();
    let seed = rounds("SHOAL_CRASH_SEED", 0x5a0a1);
    let rounds = rounds("SHOAL_CRASH_ROUNDS", 60);
    eprintln!("again: SHOAL_CRASH_SEED={seed} SHOAL_CRASH_ROUNDS={rounds}");
    let mut random = Random(seed);
    let mut counts = [0u32; VICTIMS.len()];
    for round in 0..rounds {
        let mut client = core.client();
        let subjects: Vec<Subject> = (0..=random.below(3))
            .map(|number| Subject::random(round, number, &mut random))
            .collect();
        for subject in &subjects {
            subject.drive(&core, &mut client);
        }
        std::thread::sleep(Duration::from_micros(random.below(12_000)));
        let chosen = usize::try_from(random.below(VICTIMS.len() as u64)).expect("small");
        let victim = VICTIMS[chosen];
        counts[chosen] += 1;
        let killed = victim.others(&core, &mut random);
        for pid in &killed {
            // It may have ended by itself.
            // SAFETY: kill takes no pointer; the process is of this test's core.
            unsafe { libc::kill(*pid, libc::SIGKILL) };
        }
        if victim.kills_core() {
            core.kill();
        }
        drop(client);
        if victim.kills_core() {
            core.restart();
        }
        let steps: Vec<Step> = subjects.iter().map(|subject| subject.step).collect();
        let told = format!("round {round} of seed {seed}, {victim:?}, {steps:?}");
        let mut client = core.client();
        for subject in &subjects {
            subject.settle(&core, &mut client, &killed, &told);
        }
        core.expect_clean();
        if round % 25 == 24 {
            client.ok(json!({"call": "shutdown"}));
            core.child.wait().expect("its end");
            assert_eq!(core.everything(), Vec::<String>::new(), "{told}");
            core.restart();
        }
    }
    eprintln!(
        "{rounds} rounds: {:?}",
        VICTIMS.iter().zip(counts).collect::<Vec<_>>()
    );
}

#[test]
fn after_a_reboot_containers_have_exited_and_nobody_else_is_taken_for_them() {
    if !possible() {
        return;
    }
    let mut core = Core::start();
    let mut client = core.client();
    client.ok(core.create("old", &["sleep", "100"]));
    client.by_id("start", "old");
    // A reboot ends everything, and gives the pids to others.
    let monitor = monitor_of(&core, "old");
    core.kill();
    kill(monitor);
    let record = core.dir.join("core/old/state.json");
    let mut state: Value =
        serde_json::from_slice(&fs::read(&record).expect("state")).expect("JSON");
    let gone = i32::try_from(state["pid"].as_i64().expect("pid")).expect("pid");
    // Init dies with its monitor only until it is the program.
    // SAFETY: as in `kill`; the process is of this test's container.
    unsafe { libc::kill(gone, libc::SIGKILL) };
    let mut innocent = std::process::Command::new("sleep")
        .arg("100")
        .spawn()
        .expect("a process");
    let stat = fs::read_to_string(format!("/proc/{}/stat", innocent.id())).expect("stat");
    let start: u64 = stat
        .rsplit_once(") ")
        .expect("stat")
        .1
        .split(' ')
        .nth(19)
        .expect("field 22")
        .parse()
        .expect("ticks");
    state["pid"] = json!(innocent.id());
    state["pidStartTime"] = json!(start);
    state["bootId"] = json!("00000000-0000-0000-0000-000000000000");
    fs::write(&record, state.to_string()).expect("state");
    core.restart();
    let mut client = core.client();
    let exit = client.exit("old");
    let alive = innocent.try_wait().expect("looked").is_none();
    innocent.kill().expect("its end");
    innocent.wait().expect("its end");
    assert!(alive, "the process that has the pid now was killed");
    assert_eq!(
        (&exit["exitCode"], &exit["exitCodeKnown"]),
        (&json!(137), &json!(false))
    );
    assert_eq!(client.by_id("state", "old")["status"], "stopped");
    client.delete("old");
    core.expect_clean();
}

#[test]
fn kills_of_zygote_and_monitors_under_many_creations_leave_each_whole_or_absent() {
    if !possible() {
        return;
    }
    let core = Core::start();
    let mut random = Random(77);
    let mut client = core.client();
    for round in 0..8 {
        let ids: Vec<String> = (0..12).map(|number| format!("m{round}-{number}")).collect();
        for id in &ids {
            client
                .send(core.create(id, &["sh", "-c", "exit 1"]))
                .expect("sent");
        }
        std::thread::sleep(Duration::from_micros(random.below(15_000)));
        if let Some(zygote) = core.zygote() {
            kill(zygote);
        }
        for _ in &ids {
            let reply = loop {
                let frame = client.receive().expect("a reply");
                if frame.get("event").is_none() {
                    break frame;
                }
            };
            assert_eq!(reply["ok"], true, "round {round}: {reply}");
        }
        for id in &ids {
            client.by_id("start", id);
            assert_eq!(client.exit(id)["exitCode"], 1);
            client.delete(id);
        }
    }
    core.expect_clean();
}
