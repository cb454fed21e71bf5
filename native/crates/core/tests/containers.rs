//! Containers from create to delete, through the real binary.

mod support;

use serde_json::json;
use std::fs;
use std::time::Instant;
use support::{Core, possible, until};

#[test]
fn a_container_runs_logs_exits_and_leaves_nothing() {
    if !possible() {
        return;
    }
    let core = Core::start();
    let mut client = core.client();
    let began = Instant::now();
    let exit = client.run(core.create("one", &["sh", "-c", "echo hello; echo oops >&2; exit 7"]));
    eprintln!("create, start, exit: {:?}", began.elapsed());
    assert_eq!(
        (
            &exit["exitCode"],
            &exit["exitCodeKnown"],
            &exit["signal"],
            &exit["oomKilled"]
        ),
        (&json!(7), &json!(true), &json!(null), &json!(false))
    );
    let log = fs::read_to_string(core.log_path("one")).expect("log");
    assert!(
        log.contains(r#"{"log":"hello\n","stream":"stdout","time":""#),
        "{log}"
    );
    assert!(
        log.contains(r#"{"log":"oops\n","stream":"stderr","time":""#),
        "{log}"
    );
    let state = client.by_id("state", "one");
    assert_eq!(
        (&state["status"], &state["pid"], &state["exit"]["exitCode"]),
        (&json!("stopped"), &json!(0), &json!(7))
    );
    assert!(state["startedAtMs"].as_u64() >= state["createdAtMs"].as_u64());
    client.delete("one");
    assert_eq!(
        client.fails(json!({"call": "state", "containerId": "one"}))["code"],
        "not-found"
    );
    core.expect_clean();
}

/// Runs a shell script in a container that `change` has altered; gives its exit event and its output.
fn run_script(
    core: &Core,
    id: &str,
    script: &str,
    change: impl FnOnce(&mut serde_json::Value),
) -> (serde_json::Value, String) {
    let mut client = core.client();
    let mut create = core.create(id, &["sh", "-c", script]);
    change(&mut create);
    let exit = client.run(create);
    client.delete(id);
    (exit, core.log_text(id))
}

#[test]
fn the_program_sees_what_docker_would_show_it() {
    if !possible() {
        return;
    }
    let core = Core::start();
    let script = r#"
        echo host=$(hostname) pid=$$ cwd=$(pwd) umask=$(umask)
        grep -E '^(Cap|NoNewPrivs|Sig(Ign|Blk))' /proc/self/status
        echo fds=$(ls /proc/self/fd | wc -l)
        readlink /proc/self/fd/0
        for path in /dev/fd /dev/stdin /dev/stdout /dev/stderr /dev/ptmx /dev/core; do echo $path=$(readlink $path); done
        for node in null zero full random urandom tty; do stat -c '%n %a %t:%T %F' /dev/$node; done
        cat /proc/timer_list | wc -c
        ls /sys/firmware | wc -l
        touch /sys/firmware/x 2>/dev/null || echo masked-readonly
        echo 1 2>/dev/null > /proc/sys/net/ipv4/ip_forward || echo sys-readonly
        touch /sys/x 2>/dev/null || echo sysfs-readonly
        cat /sys/class/net/lo/flags
        ls /sys/class/net
        ls /sys/fs/cgroup | wc -l
        touch /made && stat -c '%a %u' /
        stat -c '%a' /dev/shm
        cat /proc/1/cgroup | grep -c memory:/$
    "#;
    let (exit, text) = run_script(&core, "view", script, |create| {
        create["spec"]["process"]["cwd"] = json!("/srv/work")
    });
    assert_eq!(exit["exitCode"], 0, "{text}");
    for wanted in [
        "host=box pid=1 cwd=/srv/work umask=0022\n",
        "CapInh:\t0000000000000000\nCapPrm:\t00000000a80425fb\nCapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\n",
        "NoNewPrivs:\t0\n",
        "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n",
        "fds=4\n/dev/null\n",
        "/dev/fd=/proc/self/fd\n",
        "/dev/stdin=/proc/self/fd/0\n",
        "/dev/ptmx=pts/ptmx\n",
        "/dev/null 666 1:3 character special file\n",
        "/dev/tty 666 5:0 character special file\n",
        "\n0\n0\nmasked-readonly\nsys-readonly\nsysfs-readonly\n0x9\nlo\n",
        "755 0\n1777\n1\n",
    ] {
        assert!(text.contains(wanted), "{wanted:?} is not in:\n{text}");
    }
    core.expect_clean();
}

#[test]
fn limits_are_in_the_cgroup_files() {
    if !possible() {
        return;
    }
    let core = Core::start();
    let mut client = core.client();
    let mut create = core.create("limits", &["sleep", "100"]);
    create["spec"]["linux"]["resources"] = json!({
        "memory": {"limit": 67_108_864, "reservation": 33_554_432, "swap": 134_217_728},
        "cpu": {"shares": 512, "quota": 50_000, "period": 100_000, "cpus": "0"},
        "pids": {"limit": 17}
    });
    let pid = client.ok(create)["pid"].as_i64().expect("pid");
    client.by_id("start", "limits");
    let read = |controller: &str, file: &str| {
        fs::read_to_string(core.cgroup_file(controller, "limits", file))
            .map(|text| text.trim().to_owned())
    };
    if std::path::Path::new("/sys/fs/cgroup/memory").is_dir() {
        for (controller, file, want) in [
            ("memory", "memory.limit_in_bytes", "67108864"),
            ("memory", "memory.soft_limit_in_bytes", "33554432"),
            ("cpu", "cpu.shares", "512"),
            ("cpu", "cpu.cfs_quota_us", "50000"),
            ("cpuset", "cpuset.cpus", "0"),
            ("pids", "pids.max", "17"),
        ] {
            assert_eq!(read(controller, file).expect(file), want, "{file}");
        }
        assert!(
            read("devices", "devices.list")
                .expect("devices")
                .contains("c 1:3 rwm")
        );
        assert!(
            !read("devices", "devices.list")
                .expect("devices")
                .contains("a *:*")
        );
        assert_eq!(
            read("freezer", "cgroup.procs").expect("freezer"),
            pid.to_string()
        );
    }
    assert_eq!(client.by_id("pids", "limits")["pids"], json!([pid]));
    assert_eq!(client.by_id("state", "limits")["pid"], json!(pid));
    client.delete("limits");
    core.expect_clean();
}

#[test]
fn identity_limits_and_settings_are_as_asked() {
    if !possible() {
        return;
    }
    let core = Core::start();
    let script = "id; ulimit -n; ulimit -Hn; cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/msgmax; \
                  grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status; cat /proc/self/oom_score_adj; echo again > /dev/stdout; id -G";
    let (exit, text) = run_script(&core, "who", script, |create| {
        create["spec"]["process"]["user"] =
            json!({"uid": 1000, "gid": 1001, "additionalGids": [1002, 7]});
        create["spec"]["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 111, "hard": 222}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 18_446_744_073_709_552_000.0_f64}]);
        create["spec"]["process"]["noNewPrivileges"] = json!(true);
        create["spec"]["process"]["oomScoreAdj"] = json!(500);
        create["spec"]["linux"]["sysctl"] =
            json!({"net.ipv4.ip_unprivileged_port_start": "0", "kernel.msgmax": "4096"});
    });
    assert_eq!(exit["exitCode"], 0, "{text}");
    for wanted in [
        "uid=1000 gid=1001 groups=7,1002\n",
        "111\n222\n0\n4096\n",
        "CapEff:\t0000000000000000\nCapBnd:\t00000000a80425fb\nNoNewPrivs:\t1\n500\nagain\n",
    ] {
        assert!(text.contains(wanted), "{wanted:?} is not in:\n{text}");
    }
}

#[test]
fn a_read_only_root_takes_no_write_and_mounts_do() {
    if !possible() {
        return;
    }
    let core = Core::start();
    let shared = core.dir.join("shared");
    fs::create_dir_all(shared.join("deep")).expect("dir");
    fs::write(shared.join("file"), "from the host\n").expect("file");
    let script = "touch /x 2>/dev/null || echo root-ro; touch /scratch/x && echo scratch-rw; touch /data/x && echo data-rw; \
                  cat /ro/file; touch /ro/y 2>/dev/null || echo bind-ro; cat /etc/one; echo z > /dev/null && echo dev-ok; mkdir /dev/shm/q && echo shm-ok";
    let (exit, text) = run_script(&core, "ro", script, |create| {
        create["spec"]["root"]["readonly"] = json!(true);
        let mounts = create["spec"]["mounts"].as_array_mut().expect("mounts");
        mounts.push(json!({"destination": "/scratch", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m"]}));
        mounts.push(json!({"destination": "/data", "type": "bind", "source": shared, "options": ["rbind", "rprivate"]}));
        mounts.push(json!({"destination": "/ro", "type": "bind", "source": shared, "options": ["rbind", "ro", "rprivate"]}));
        mounts.push(json!({"destination": "/etc/one", "type": "bind", "source": shared.join("file"), "options": ["bind"]}));
    });
    assert_eq!(exit["exitCode"], 0, "{text}");
    assert_eq!(
        text,
        "root-ro\nscratch-rw\ndata-rw\nfrom the host\nbind-ro\nfrom the host\ndev-ok\nshm-ok\n"
    );
    assert!(shared.join("x").exists());
}

#[test]
fn a_program_that_cannot_run_fails_start_in_dockers_words() {
    if !possible() {
        return;
    }
    let core = Core::start();
    let mut client = core.client();
    for (id, args, code, words) in [
        (
            "none",
            "nope",
            127,
            "exec: \"nope\": executable file not found in $PATH",
        ),
        (
            "path",
            "/bin/nope",
            127,
            "exec: \"/bin/nope\": no such file or directory",
        ),
        (
            "plain",
            "/etc/plain",
            126,
            "exec: \"/etc/plain\": permission denied",
        ),
        ("dir", "/etc", 126, "exec: \"/etc\": is a directory"),
    ] {
        client.ok(core.create(id, &[args]));
        let failure = client.fails(json!({"call": "start", "containerId": id}));
        assert_eq!(
            (&failure["code"], &failure["message"]),
            (&json!("invalid"), &json!(words))
        );
        assert_eq!(client.by_id("state", id)["status"], "stopped");
        assert_eq!(client.exit(id)["exitCode"], code, "{id}");
        assert_eq!(
            client.fails(json!({"call": "start", "containerId": id}))["code"],
            "conflict"
        );
        client.delete(id);
    }
    core.expect_clean();
}

#[test]
fn signals_reach_the_program_and_the_state_refuses_what_makes_no_sense() {
    if !possible() {
        return;
    }
    let core = Core::start();
    let mut client = core.client();
    client.ok(core.create(
        "s",
        &[
            "sh",
            "-c",
            "trap 'exit 9' TERM; echo up; while :; do sleep 1; done",
        ],
    ));
    assert_eq!(
        client.fails(core.create("s", &["true"]))["code"],
        "already-exists"
    );
    client.by_id("start", "s");
    assert_eq!(
        client.fails(json!({"call": "start", "containerId": "s"}))["code"],
        "conflict"
    );
    assert_eq!(
        client.fails(json!({"call": "delete", "containerId": "s", "force": false}))["code"],
        "conflict"
    );
    assert_eq!(
        client.fails(json!({"call": "kill", "containerId": "s", "signal": "NOPE", "all": false}))["code"],
        "invalid"
    );
    until("its first words", || core.log_text("s").contains("up"));
    client.ok(json!({"call": "kill", "containerId": "s", "signal": "TERM", "all": true}));
    assert_eq!(client.exit("s")["exitCode"], 9);
    assert_eq!(
        client
            .fails(json!({"call": "kill", "containerId": "s", "signal": "SIGKILL", "all": false}))
            ["code"],
        "conflict"
    );
    client.ok(json!({"call": "delete", "containerId": "s", "force": false}));

    client.ok(core.create("k", &["sleep", "100"]));
    client.by_id("start", "k");
    client.ok(json!({"call": "kill", "containerId": "k", "signal": "9", "all": false}));
    let exit = client.exit("k");
    assert_eq!(
        (&exit["exitCode"], &exit["signal"]),
        (&json!(137), &json!("SIGKILL"))
    );
    client.delete("k");

    // A created container that was never started goes without force.
    client.ok(core.create("c", &["true"]));
    client.ok(json!({"call": "delete", "containerId": "c", "force": false}));
    assert_eq!(
        client.fails(json!({"call": "kill", "containerId": "c", "signal": "9", "all": false}))["code"],
        "not-found"
    );
    core.expect_clean();
}

#[test]
fn bad_requests_name_the_field_and_leave_nothing() {
    if !possible() {
        return;
    }
    let core = Core::start();
    // An image whose /dev and /proc lead elsewhere.
    let evil = core.dir.join("evil");
    fs::create_dir_all(evil.join("bin")).expect("dir");
    fs::copy(support::BUSYBOX, evil.join("bin/sh")).expect("busybox");
    std::os::unix::fs::symlink("/tmp", evil.join("dev")).expect("link");
    std::os::unix::fs::symlink("/../../../../tmp", evil.join("escape")).expect("link");
    let mut client = core.client();
    type Change<'a> = Box<dyn Fn(&mut serde_json::Value) + 'a>;
    let changes: Vec<(&str, &str, Change)> = vec![
        (
            "containerId",
            "invalid",
            Box::new(|create| create["containerId"] = json!("../x")),
        ),
        (
            "symlink",
            "invalid",
            Box::new(|create| create["rootfs"]["layers"] = json!([evil])),
        ),
        (
            "/nonexistent",
            "invalid",
            Box::new(|create| create["rootfs"]["layers"] = json!(["/nonexistent"])),
        ),
        (
            "bind source",
            "invalid",
            Box::new(|create| {
                let bind = json!({"destination": "/x", "type": "bind", "source": "/nonexistent/source", "options": ["rbind"]});
                create["spec"]["mounts"]
                    .as_array_mut()
                    .expect("mounts")
                    .push(bind);
            }),
        ),
        (
            "nosuchfs",
            "invalid",
            Box::new(|create| {
                create["spec"]["mounts"]
                    .as_array_mut()
                    .expect("mounts")
                    .push(json!({"destination": "/x", "type": "nosuchfs"}));
            }),
        ),
        (
            "not of type proc",
            "invalid",
            Box::new(|create| create["spec"]["mounts"][0]["type"] = json!("tmpfs")),
        ),
        (
            "size",
            "invalid",
            Box::new(|create| create["spec"]["mounts"][1]["options"] = json!(["size=lots"])),
        ),
        (
            "pids.max",
            "system",
            Box::new(|create| {
                create["spec"]["linux"]["resources"]["pids"] =
                    json!({"limit": 99_999_999_999_999_i64})
            }),
        ),
        (
            "cgroupsPath",
            "invalid",
            Box::new(|create| create["spec"]["linux"]["cgroupsPath"] = json!("/../../etc")),
        ),
    ];
    for (word, code, change) in changes {
        let mut create = core.create("bad", &["true"]);
        change(&mut create);
        let failure = client.fails(create);
        let text = format!("{} {}", failure["doing"], failure["message"]);
        assert!(text.contains(word), "{failure} should name {word}");
        assert!(
            failure["code"] == code || failure["code"] == "invalid",
            "{failure}"
        );
        core.expect_clean();
    }
    // A bind below a link of the image stays inside the root, also where it leads to nothing.
    let mut create = core.create(
        "inside",
        &["sh", "-c", "ls /tmp/deep; cat /run/resolve/conf"],
    );
    create["rootfs"]["layers"] = json!([core.dir.join("layer"), evil.join("escape-only")]);
    fs::create_dir_all(evil.join("escape-only")).expect("dir");
    std::os::unix::fs::symlink("/../../../../tmp", evil.join("escape-only/escape")).expect("link");
    fs::create_dir_all(evil.join("escape-only/etc")).expect("dir");
    std::os::unix::fs::symlink(
        "../run/resolve/conf",
        evil.join("escape-only/etc/resolv.conf"),
    )
    .expect("link");
    let source = core.dir.join("layer/etc");
    create["spec"]["mounts"].as_array_mut().expect("mounts").push(
        json!({"destination": "/etc/resolv.conf", "type": "bind", "source": source.join("plain"), "options": ["rbind"]}),
    );
    create["spec"]["mounts"].as_array_mut().expect("mounts").push(json!({"destination": "/escape/deep", "type": "bind", "source": source, "options": ["rbind"]}));
    let exit = client.run(create);
    assert_eq!(
        (&exit["exitCode"], core.log_text("inside").as_str()),
        (&json!(0), "plain\nnot a program\n")
    );
    assert!(!std::path::Path::new("/tmp/deep").exists());
    client.delete("inside");
    core.expect_clean();
}

#[test]
fn no_byte_of_output_is_lost_and_logs_rotate() {
    if !possible() {
        return;
    }
    let core = Core::start();
    let mut client = core.client();
    let exit = client.run(core.create(
        "much",
        &[
            "sh",
            "-c",
            "seq 1 60000; head -c 40000 /dev/zero | tr '\\0' x; printf end",
        ],
    ));
    assert_eq!(exit["exitCode"], 0);
    let text = core.log_text("much");
    let numbers = text
        .lines()
        .take(60_000)
        .enumerate()
        .all(|(index, line)| line == (index + 1).to_string());
    assert!(numbers && text.ends_with("end"), "{} bytes", text.len());
    client.delete("much");

    let mut create = core.create(
        "long",
        &["sh", "-c", "head -c 40000 /dev/zero; echo; seq 1 5000"],
    );
    create["log"]["maxSizeBytes"] = json!(100_000);
    create["log"]["maxFiles"] = json!(3);
    client.run(create);
    client.delete("long");
    let path = core.log_path("long");
    let name = |number: u32| std::path::PathBuf::from(format!("{}.{number}", path.display()));
    assert!(path.exists() && name(1).exists() && name(2).exists() && !name(3).exists());
    for file in [path.clone(), name(1), name(2)] {
        assert!(
            fs::metadata(&file).expect("log").len() < 200_000,
            "{}",
            file.display()
        );
    }

    let mut create = core.create("quiet", &["sh", "-c", "echo x; exit 3"]);
    create["log"] = json!(null);
    assert_eq!(client.run(create)["exitCode"], 3);
    client.delete("quiet");
}

#[test]
fn many_containers_at_once_each_keep_their_own_code() {
    if !possible() {
        return;
    }
    let core = Core::start();
    let mut client = core.client();
    let ids: Vec<String> = (0..24).map(|number| format!("c{number}")).collect();
    let began = Instant::now();
    for (number, id) in ids.iter().enumerate() {
        client
            .send(core.create(id, &["sh", "-c", &format!("exit {number}")]))
            .expect("sent");
    }
    for _ in &ids {
        let reply = client.receive().expect("a reply");
        assert_eq!(reply["ok"], true, "{reply}");
    }
    for id in &ids {
        client.by_id("start", id);
    }
    for (number, id) in ids.iter().enumerate() {
        assert_eq!(client.exit(id)["exitCode"], number);
    }
    eprintln!("24 containers: {:?}", began.elapsed());
    assert_eq!(
        client.ok(json!({"call": "list"}))["containers"]
            .as_array()
            .map(Vec::len),
        Some(24)
    );
    for id in &ids {
        client.delete(id);
    }
    core.expect_clean();
}
