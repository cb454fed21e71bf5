//! The pool: a container from a parked sandbox is the same as one that is made cold, and nothing of the pool outlives its core.

mod support;

use serde_json::{Value, json};
use std::fs;
use std::process::Command;
use support::{Client, Core, PARKED, possible, until};

/// Everything that a program can see of how its container was made. Numbers that are of one container only are cut out.
const LOOK: &str = r#"
    while read -r id parent device root at options rest; do echo "mount $root $at $options ${rest%% - *} | ${rest#* - }"; done < /proc/self/mountinfo;
    for at in / /proc /sys /dev /dev/pts /dev/shm /dev/mqueue /sys/fs/cgroup /etc; do stat -c 'dir %n %a %u %g %F' "$at"; done;
    ls -l /dev; cat /proc/self/cgroup; hostname; id; pwd; ls /proc/self/fd; ls /;
    grep -E 'Cap|NoNew|Seccomp|Groups|Umask|Cpus_allowed_list' /proc/self/status; cat /proc/self/limits; cat /proc/self/oom_score_adj;
    cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/devices/devices.list;
    touch /proc/sys/kernel/x /sys/x; ls /proc/1; readlink /proc/1/root; cat /proc/net/dev; env; cat /volume/file; touch /volume/file; ls /sys/firmware
"#;

/// Sandboxes that are as good as ready: the place where its monitor will listen is the last that one makes.
fn parked(core: &Core) -> usize {
    let names = fs::read_dir(core.dir.join("core")).expect("dir").flatten();
    names
        .filter(|entry| entry.path().to_string_lossy().contains(PARKED))
        .filter(|entry| entry.path().join("parked.json").exists())
        .filter(|entry| entry.path().join("mon.sock").exists())
        .count()
}

/// Whether a container came from the pool: the record of its sandbox is still among its own.
fn pooled(core: &Core, id: &str) -> bool {
    core.dir.join("core").join(id).join("parked.json").exists()
}

/// One container of the usual kind teaches the pool what to make; afterwards it is full.
fn fill(core: &Core, client: &mut Client) {
    client.run(core.create("first", &["true"]));
    client.delete("first");
    until("a full pool", || {
        core.parked().len() == 4 && parked(core) == 2
    });
}

/// What its sandbox was parked in; null without a root or a sandbox.
fn warm_root(core: &Core, id: &str) -> Value {
    let path = core.dir.join("core").join(id).join("parked.json");
    let read = fs::read(path).ok();
    let record = read.map(|record| serde_json::from_slice::<Value>(&record).expect("json"));
    record.map_or(Value::Null, |record| record["root"].clone())
}

/// Containers of one image teach the pool to park sandboxes in roots of it; afterwards there is one of these.
fn warm_up(core: &Core, client: &mut Client) {
    for number in 0..4 {
        let id = format!("w{number}");
        client.run(core.create(&id, &["true"]));
        client.delete(&id);
        until("a full pool", || {
            core.parked().len() == 4 && parked(core) == 2
        });
    }
    let roots = fs::read_dir(core.dir.join("containers")).expect("dir");
    let roots = roots.flatten().map(|entry| entry.path());
    let made = roots.filter(|path| path.to_string_lossy().contains(PARKED));
    assert!(made.count() > 0, "a root is made ahead");
}

/// Lines of a container without the path of its upper directory, which nothing in it can open.
fn without_upper(lines: &[String]) -> Vec<&str> {
    lines
        .iter()
        .map(|line| line.split("upperdir=").next().unwrap_or_default())
        .collect()
}

fn looking(core: &Core, id: &str) -> Value {
    let mut create = core.create(id, &["sh", "-c", LOOK]);
    let volume = core.dir.join("volume");
    fs::create_dir_all(&volume).expect("volume");
    fs::write(volume.join("file"), "of the volume\n").expect("file");
    let mounts = create["spec"]["mounts"].as_array_mut().expect("mounts");
    mounts.push(json!({"destination": "/volume", "type": "bind", "source": volume, "options": ["rbind", "ro"]}));
    mounts.push(json!({"destination": "/run", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "size=1m"]}));
    create["spec"]["linux"]["resources"] =
        json!({"memory": {"limit": 64 << 20}, "pids": {"limit": 50}});
    create["spec"]["process"]["oomScoreAdj"] = json!(500);
    create["spec"]["process"]["cwd"] = json!("/made/for/it");
    create["spec"]["process"]["user"] = json!({"uid": 7, "gid": 8, "additionalGids": [9]});
    create["spec"]["hostname"] = json!("same");
    create["spec"]["linux"]["cgroupsPath"] = json!(core.cgroup(id));
    create
}

fn seen(core: &Core, client: &mut Client, id: &str, create: Value) -> Vec<String> {
    let exit = client.run(create);
    let mut lines: Vec<String> = core
        .log_text(id)
        .replace(&core.name, "CORE")
        .replace(id, "ID")
        .lines()
        .map(str::to_owned)
        .collect();
    // The staged trees are mounted in another order.
    lines.sort();
    lines.push(exit["exitCode"].to_string());
    lines
}

#[test]
fn a_container_from_the_pool_is_the_same_as_a_cold_one() {
    if !possible() {
        return;
    }
    let core = Core::start();
    let mut client = core.client();
    let cold = seen(&core, &mut client, "same", looking(&core, "same"));
    assert!(
        !pooled(&core, "same"),
        "the first one has nothing to come from"
    );
    client.delete("same");
    fs::remove_file(core.log_path("same")).expect("its log");
    until("a full pool", || {
        core.parked().len() == 4 && parked(&core) == 2
    });
    let warm = seen(&core, &mut client, "same", looking(&core, "same"));
    assert!(pooled(&core, "same"), "it came from the pool");
    assert_eq!(warm, cold);
    assert!(
        cold.iter().any(|line| line.contains("of the volume")),
        "{cold:#?}"
    );
    // Processes that work at the same time are kept apart; a program has every processor.
    let own = fs::read_to_string("/proc/self/status").expect("status");
    let processors = own
        .lines()
        .find(|line| line.starts_with("Cpus_allowed_list:"))
        .expect("since Linux 2.6.24");
    assert!(cold.iter().any(|line| line == processors), "{cold:#?}");
    client.delete("same");
    core.expect_clean();
}

#[test]
fn a_container_whose_root_was_made_ahead_is_the_same_as_a_cold_one() {
    if !possible() {
        return;
    }
    let core = Core::start();
    let mut client = core.client();
    let cold = seen(&core, &mut client, "same", looking(&core, "same"));
    let upper = |id: &str| core.dir.join("containers").join(id).join("upper");
    let made = |id: &str| -> Vec<String> {
        let entries = fs::read_dir(upper(id)).expect("upper").flatten();
        let mut names: Vec<String> = entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    };
    let made_cold = made("same");
    client.delete("same");
    fs::remove_file(core.log_path("same")).expect("its log");
    warm_up(&core, &mut client);
    let mut warm = Vec::new();
    // A sandbox that is ready may not have been told to the pool yet; then one without a root serves.
    until("a container from a root that was there", || {
        if !warm.is_empty() {
            client.delete("same");
            fs::remove_file(core.log_path("same")).expect("its log");
        }
        warm = seen(&core, &mut client, "same", looking(&core, "same"));
        warm_root(&core, "same").is_object()
    });
    assert_eq!(without_upper(&warm), without_upper(&cold));
    assert_eq!(made("same"), made_cold);
    client.delete("same");
    core.expect_clean();
}

#[test]
fn a_root_made_ahead_is_not_used_for_a_layer_or_a_directory_that_is_another() {
    if !possible() {
        return;
    }
    let core = Core::start();
    let mut client = core.client();
    warm_up(&core, &mut client);
    // Somebody's directory is there already: it is kept, and its container has it.
    let own = core.dir.join("containers").join("own");
    fs::create_dir(&own).expect("dir");
    fs::write(own.join("kept"), "").expect("file");
    client.run(core.create("own", &["true"]));
    assert!(own.join("kept").exists() && own.join("upper").exists());
    client.delete("own");
    warm_up(&core, &mut client);
    // The image is removed and comes back under its name: another directory.
    let layer = core.dir.join("layer");
    fs::rename(&layer, core.dir.join("former")).expect("moved");
    support::make_layer(&layer);
    fs::write(layer.join("etc/new"), "new").expect("file");
    client.run(core.create("new", &["cat", "/etc/new"]));
    assert_eq!(core.log_text("new"), "new");
    client.delete("new");
    // One that never was cannot be parked in, and is refused by its name.
    let mut create = core.create("none", &["true"]);
    create["rootfs"]["layers"] = json!(["/does/not/exist"]);
    for _ in 0..4 {
        let failure = client.fails(create.clone()).to_string();
        assert!(failure.contains("/does/not/exist"), "{failure}");
    }
    warm_up(&core, &mut client);
    // What was made ahead goes with the pool, also where nobody can tidy up in time.
    let mut core = core;
    core.kill();
    core.restart();
    until("nothing left", || core.everything().is_empty());
    let mut client = core.client();
    warm_up(&core, &mut client);
    client.ok(json!({"call": "shutdown"}));
    core.child.wait().expect("its end");
    assert_eq!(core.everything(), Vec::<String>::new());
}

#[test]
fn a_volume_on_a_file_system_that_was_mounted_after_parking_is_seen() {
    if !possible() {
        return;
    }
    let core = Core::start();
    let mut client = core.client();
    fill(&core, &mut client);
    let late = core.dir.join("late");
    fs::create_dir(&late).expect("dir");
    assert!(support::mount_tmpfs(&late, "size=1m"));
    fs::write(late.join("word"), "new").expect("word");
    let mut create = core.create("late", &["cat", "/late/word"]);
    let mounts = create["spec"]["mounts"].as_array_mut().expect("mounts");
    mounts.push(
        json!({"destination": "/late", "type": "bind", "source": late, "options": ["rbind"]}),
    );
    let exit = client.run(create);
    // No sandbox has a hold on what the host mounted before it was used.
    client.delete("late");
    let unmounted = Command::new("umount").arg(&late).status();
    assert_eq!(
        (exit["exitCode"].clone(), core.log_text("late")),
        (json!(0), "new".to_owned())
    );
    assert!(
        unmounted.is_ok_and(|status| status.success()),
        "{} is busy",
        late.display()
    );
    core.expect_clean();
}

#[test]
fn what_a_sandbox_cannot_be_is_made_cold() {
    if !possible() {
        return;
    }
    let core = Core::start();
    let mut client = core.client();
    fill(&core, &mut client);
    type Case = (&'static str, fn(&mut Value));
    let cases: [Case; 4] = [
        ("sysctl", |spec| {
            spec["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
        }),
        ("shared", |spec| {
            spec["linux"]["namespaces"] =
                json!(["mount", "pid", "ipc"].map(|kind| json!({"type": kind})));
            spec["hostname"] = json!("");
        }),
        ("masked", |spec| {
            spec["linux"]["maskedPaths"] = json!(["/etc"])
        }),
        ("cpus", |spec| {
            spec["linux"]["resources"]["cpu"] = json!({"cpus": "0"});
        }),
    ];
    for (id, change) in cases {
        let mut create = core.create(id, &["true"]);
        change(&mut create["spec"]);
        assert_eq!(client.run(create)["exitCode"], 0, "{id}");
        assert!(!pooled(&core, id), "{id}");
        client.delete(id);
    }
    // A failure is told as the cold way tells it, and nothing stays.
    let mut create = core.create("broken", &["true"]);
    let mounts = create["spec"]["mounts"].as_array_mut().expect("mounts");
    mounts.push(json!({"destination": "/x", "type": "bind", "source": "/does/not/exist", "options": ["rbind"]}));
    let failure = client.fails(create).to_string();
    assert!(failure.contains("/does/not/exist"), "{failure}");
    let create = core.create("usual", &["true"]);
    client.run(create);
    client.delete("usual");
    core.expect_clean();
}

#[test]
fn killed_sandboxes_cost_nobody_a_container_and_nothing_outlives_the_core() {
    if !possible() {
        return;
    }
    let mut core = Core::start();
    let mut client = core.client();
    fill(&core, &mut client);
    for pid in core.parked() {
        // A monitor's init may be gone with it already.
        // SAFETY: kill takes no pointer; the pid is of a process that this test's core made.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
    for number in 0..3 {
        let id = format!("k{number}");
        let create = core.create(&id, &["sh", "-c", "exit 4"]);
        assert_eq!(client.run(create)["exitCode"], 4);
        client.delete(&id);
    }
    until("a full pool again", || core.parked().len() == 4);
    // A killed core takes its sandboxes with it; what they had is gone once the next one listens.
    let before = core.parked();
    core.kill();
    core.restart();
    until("the old ones gone", || {
        let now = core.parked();
        before.iter().all(|pid| !now.contains(pid))
    });
    until("nothing left", || core.everything().is_empty());
    let mut client = core.client();
    fill(&core, &mut client);
    client.ok(json!({"call": "shutdown"}));
    core.child.wait().expect("its end");
    assert_eq!(core.everything(), Vec::<String>::new());
}

#[test]
fn run_starts_at_once_and_leaves_nothing_when_the_program_cannot_be_started() {
    if !possible() {
        return;
    }
    let core = Core::start();
    let mut client = core.client();
    let run = |id: &str, args: &[&str]| {
        let mut request = core.create(id, args);
        request["call"] = json!("run");
        request
    };
    // Cold, then from the pool: both fail alike, and what was begun is gone.
    for pooled_now in [false, true] {
        if pooled_now {
            fill(&core, &mut client);
        }
        let failure = client.fails(run("bad", &["/no/such/program"]));
        assert_eq!(failure["code"], "invalid", "{failure}");
        assert!(
            failure["message"].to_string().contains("/no/such/program"),
            "{failure}"
        );
        let answer = client.ok(json!({"call": "list"}));
        assert_eq!(answer["containers"], json!([]));
    }
    until("a full pool", || parked(&core) == 2);
    let answer = client.ok(run("good", &["sh", "-c", "echo ran; exit 4"]));
    assert!(answer["pid"].as_i64().is_some_and(|pid| pid > 0));
    assert!(
        answer["startedAtMs"].as_u64().is_some_and(|at| at > 0),
        "{answer}"
    );
    assert_eq!(client.exit("good")["exitCode"], 4);
    assert!(pooled(&core, "good"), "it came from the pool");
    assert!(core.log_text("good").contains("ran"));
    let refused = client.fails(json!({"call": "start", "containerId": "good"}));
    assert_eq!(refused["code"], "conflict", "{refused}");
    client.delete("good");
    core.expect_clean();
}
